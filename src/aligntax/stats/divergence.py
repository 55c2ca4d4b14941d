"""How far one distribution over tokens is from another, from whole distributions, from samples and from the top of a list.

Everything is in nats unless its name says otherwise. Rows are natural log-probabilities: ``logp`` (..., V) over a vocabulary of V tokens,
-inf where a token is impossible. p and q are named for their places in KL(p||q) = sum p log(p/q): the first is the one that is averaged
over. KL(aligned||base), from samples of the aligned model, is what RLHF penalises; KL(base||aligned), from samples of the base model, is
another number. A result is worth nothing without its direction, the model that was sampled from, the prompts and the temperature.

Zeros are taken as they are: 0 log 0 = 0, and p > 0 where q = 0 gives inf. Nothing is smoothed.

Sources: Schulman 2020 (joschu.net/blog/kl-approx.html) for k1, k2, k3; Amini, Vieira and Cotterell 2025 (arXiv:2504.10637) for the
Rao-Blackwellised estimator; Lin 1991 (IEEE Trans. Inf. Theory 37:145) for the Jensen-Shannon divergence; Cover and Thomas 2006, section 2.7
(log sum inequality) for the bound from a lumped tail; Cochran 1977, section 6.4, for the ratio of means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import TypeVar

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Token = TypeVar("Token", int, str)

ROUNDING = 1e-6
"""A divergence this little below 0 is rounding, and is set to 0."""
_DOUBLE = 1e-12
"""Probabilities in double precision add up to 1 at least as exactly as this."""
_NORMAL = 1e-3
"""Rows whose probabilities add up to 1 less exactly than this are no log-probabilities (but logits, perhaps)."""


def settle(values: FloatArray) -> FloatArray:
    """Values of a quantity that cannot be negative: those in (-``ROUNDING``, 0) become 0; what is further below is left to be seen."""
    return np.where((values < 0) & (values > -ROUNDING), 0.0, values)


# -- whole distributions -----------------------------------------------------------------------------------------------------------


def kl(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """KL(p||q) = sum_v p (log p - log q), in nats; (..., V) twice -> (...).

    Computed as sum p (log p - log q) - sum p + sum q, which is the same for distributions and does not suffer where float32 has made their
    sums differ from 1. Never negative: see ``settle``.

    Raises:
        ValueError: if shapes differ, or rows are no log-probabilities.
    """
    p, q = _rows(logp, logq)
    return settle((_product(p, _difference(p, q)) - np.exp(p) + np.exp(q)).sum(-1))


def jensen_shannon(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """JS(p, q) = (KL(p||m) + KL(q||m)) / 2 with m = (p + q) / 2, in nats, from 0 to ln 2 (Lin 1991); (..., V) twice -> (...).

    Computed as sum m log(max(p, q) / m) - sum min(p, q) |log p - log q| / 2: exactly 0 where p = q, and symmetric to the last bit.

    Raises:
        ValueError: if shapes differ, or rows are no log-probabilities.
    """
    p, q = _rows(logp, logq)
    low = np.minimum(p, q)
    gap = np.abs(_difference(p, q))
    middle = (np.exp(p) + np.exp(q)) / 2
    apart = middle * (log(2) - np.log1p(np.exp(-gap)))
    return settle((apart - _product(low, np.where(low == -np.inf, 0.0, gap)) / 2).sum(-1))


def entropy(logp: npt.ArrayLike) -> FloatArray:
    """H(p) = -sum_v p log p, in nats; (..., V) -> (...).

    Raises:
        ValueError: if rows are no log-probabilities.
    """
    (p,) = _rows(logp)
    return settle(-_product(p, p).sum(-1))


def total_variation(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """TV(p, q) = sum_v |p - q| / 2, from 0 to 1; (..., V) twice -> (...). Pinsker: TV <= sqrt(KL / 2).

    Raises:
        ValueError: if shapes differ, or rows are no log-probabilities.
    """
    p, q = _rows(logp, logq)
    return np.asarray(np.abs(np.exp(p) - np.exp(q)).sum(-1) / 2)


def top1_agreement(logp: npt.ArrayLike, logq: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether both have the same most likely token, the lowest id in a tie; (..., V) twice -> (...)."""
    p, q = _rows(logp, logq)
    return np.asarray(p.argmax(-1) == q.argmax(-1))


def _rows(*given: npt.ArrayLike) -> list[FloatArray]:
    """Rows of log-probabilities in double precision, of one shape."""
    found = [np.asarray(g, np.float64) for g in given]
    for rows in found:
        if rows.ndim < 1 or rows.shape != found[0].shape:
            raise ValueError(f"rows over one vocabulary are needed, found shapes {' and '.join(str(f.shape) for f in found)}")
        with np.errstate(over="ignore"):
            sums = np.exp(rows).sum(-1)
        if not (np.abs(sums - 1) < _NORMAL).all():
            raise ValueError("rows are no log-probabilities: their probabilities do not add up to 1")
    return found


def _difference(p: FloatArray, q: FloatArray) -> FloatArray:
    """Log p - log q; 0 where both are impossible."""
    with np.errstate(invalid="ignore"):
        return np.where((p == -np.inf) & (q == -np.inf), 0.0, p - q)


def _product(logp: FloatArray, x: FloatArray) -> FloatArray:
    """P x; 0 where p = 0, whatever x is."""
    p = np.exp(logp)
    with np.errstate(invalid="ignore"):
        return np.where(p == 0, 0.0, p * x)


# -- samples -----------------------------------------------------------------------------------------------------------------------


def k1(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """Log p(y) - log q(y) for y drawn from p, in nats; elementwise. Schulman's k1.

    Unbiased for KL(p||q), token by token and summed over a sequence; single values may be negative. Drawn from p means: from the very
    distribution whose log-probabilities these are. Draws at another temperature or with top-p come from another distribution, and draws
    from q estimate -KL(q||p).

    Raises:
        ValueError: if something was drawn that p makes impossible.
    """
    return _ratio(logp, logq)


def k2(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """(log p(y) - log q(y))^2 / 2 for y drawn from p, in nats; elementwise. Schulman's k2.

    **Biased**: its mean is E_p[(log p/q)^2] / 2, which is close to KL(p||q) only where p and q are. Kept to compare with training logs.

    Raises:
        ValueError: if something was drawn that p makes impossible.
    """
    return _ratio(logp, logq) ** 2 / 2


def k3(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    """(r - 1) - log r with r = q(y)/p(y) for y drawn from p, in nats; elementwise. Schulman's k3.

    Never negative, and unbiased for KL(p||q) where p is positive wherever q is; elsewhere E_p[r] < 1, and it is too small by q's mass
    there. Use it token by token and add up: r of a whole sequence is a product with a very heavy tail. (The gradient of this loss is not
    that of KL(p||q).)

    Raises:
        ValueError: if something was drawn that p makes impossible.
    """
    d = _ratio(logp, logq)
    with np.errstate(over="ignore"):
        return np.expm1(-d) + d


def _ratio(logp: npt.ArrayLike, logq: npt.ArrayLike) -> FloatArray:
    p, q = np.asarray(logp, np.float64), np.asarray(logq, np.float64)
    if not (p > -np.inf).all():
        raise ValueError("what was drawn from a model cannot have probability 0 under it")
    return np.asarray(p - q)


def per_sequence(values: npt.ArrayLike, lengths: npt.ArrayLike) -> FloatArray:
    """Sums over sequences: values (N,) of tokens, one sequence after another, and lengths (S,) that add up to N -> (S,).

    Of k1 or k3 values they are Monte Carlo estimates of the sequence KL. Of the whole KL(p(.|y_<t) || q(.|y_<t)) at every token of
    sequences y drawn from p, they are the Rao-Blackwellised estimate (Amini et al. 2025): unbiased for the same sequence KL, never negative,
    and with no more variance than k1. Along sequences drawn from elsewhere the sum is a divergence along those, and no sequence KL.

    Raises:
        ValueError: if lengths do not add up to the number of values.
    """
    v, n = np.asarray(values, np.float64), np.asarray(lengths, np.int64)
    if v.ndim != 1 or n.ndim != 1 or (n < 0).any() or int(n.sum()) != len(v):
        raise ValueError(f"lengths add up to {int(n.sum())}, but there are {v.size} values")
    return np.bincount(np.repeat(np.arange(len(n)), n), weights=v, minlength=len(n)).astype(np.float64)


@dataclass(frozen=True)
class PerToken:
    """A divergence per token.

    Attributes:
        value: total divergence / total tokens, in nats per token.
        se: its standard error over sequences; nan for a single one.
        sequences, tokens: how many there were.
    """

    value: float
    se: float
    sequences: int
    tokens: int


def per_token(totals: npt.ArrayLike, lengths: npt.ArrayLike) -> PerToken:
    """Nats per token as the ratio of means, (sum of totals) / (sum of lengths); totals and lengths (S,) by sequence.

    Not the mean of the sequences' own ratios, in which a token of a short answer would count more than one of a long answer, and which no
    KL per token equals. Standard error by linearisation (Cochran 1977): with e_s = total_s - value * length_s,
    se^2 = S / (S - 1) * sum e_s^2 / (sum of lengths)^2. Tokens of one sequence are not independent, sequences of one prompt neither: where a
    prompt has several, give their sums, so that a row is a prompt.

    Raises:
        ValueError: if nothing is given, shapes differ or there are no tokens.
    """
    x, n = np.asarray(totals, np.float64), np.asarray(lengths, np.float64)
    if x.ndim != 1 or x.shape != n.shape or (n < 0).any() or not n.sum() > 0:
        raise ValueError("one total and one length for each sequence are needed, and at least one token")
    tokens, size = float(n.sum()), len(x)
    value = float(x.sum()) / tokens
    se = float(np.sqrt(size / (size - 1) * ((x - value * n) ** 2).sum())) / tokens if size > 1 and np.isfinite(value) else float("nan")
    return PerToken(value, se, size, int(tokens))


# -- the top of a list ---------------------------------------------------------------------------------------------------------------


def known_to_both(p: Sequence[Mapping[Token, float]], q: Sequence[Mapping[Token, float]]) -> tuple[FloatArray, FloatArray]:
    """(logp, logq), each (N, K): the tokens whose log-probabilities both sides told at each of N positions, nan where there are fewer than K.

    Args:
        p: at every position the log-probability of each token that was told, as an API's ``top_logprobs``, the drawn token among them.
        q: the same from the other model, at the same positions of the same text.

    Raises:
        ValueError: if there are not as many positions on both sides.
    """
    shared = [[token for token in one if token in two] for one, two in zip(p, q, strict=True)]
    shape = len(shared), max(map(len, shared), default=0)
    logp, logq = np.full(shape, np.nan), np.full(shape, np.nan)
    for k, tokens in enumerate(shared):
        logp[k, : len(tokens)] = [p[k][t] for t in tokens]
        logq[k, : len(tokens)] = [q[k][t] for t in tokens]
    return logp, logq


def kl_at_least(logp: npt.ArrayLike, logq: npt.ArrayLike, rounding: float = ROUNDING) -> FloatArray:
    """A lower bound on KL(p||q), in nats, from tokens known to both sides (``known_to_both``); (..., K) twice -> (...).

    With S the known tokens and all others lumped into one: sum_S p log(p/q) + p_rest log(p_rest / q_rest) <= KL(p||q), since lumping can only
    lose information (data processing; log sum inequality). More known tokens never lower it; all of them give the KL itself.

    There is no upper bound to go with it. Where p_rest > 0, q may be as close to 0 as it likes on tokens that p puts its rest on: a list of
    the likeliest tokens says how likely the others are at most, never at least. So KL(p||q) can be any number above the bound unless
    p_rest = 0, and KL(q||p) unless q_rest = 0. (Bounded divergences can be bounded: JS <= ln 2.)

    Args:
        logp: log-probabilities under p, nan where fewer tokens are known.
        logq: those of the same tokens under q.
        rounding: how far the masses of the rest, 1 minus what is known, may be wrong because the log-probabilities were rounded. The bound
            is the lowest that any masses so near allow; 0 trusts them to 1e-12.

    Raises:
        ValueError: if shapes differ, a token is known to one side only, or known probabilities add up to more than 1 and ``rounding``.
    """
    p, q = np.asarray(logp, np.float64), np.asarray(logq, np.float64)
    if p.shape != q.shape or not np.array_equal(np.isnan(p), np.isnan(q)):
        raise ValueError("log-probabilities of the same tokens are needed on both sides")
    p, q = np.where(np.isnan(p), -np.inf, p), np.where(np.isnan(q), -np.inf, q)
    rest_p, rest_q = 1 - np.exp(p).sum(-1), 1 - np.exp(q).sum(-1)
    slack = rounding + _DOUBLE
    over = -float(np.min([rest_p, rest_q], initial=0.0))
    if over > slack:
        raise ValueError(f"known probabilities add up to {over:.1e} more than 1, and rounding explains {rounding:.1e}")
    # x log(x/y) falls in y, and in x up to y/e.
    y = np.maximum(rest_q, 0) + slack
    x = np.clip(y / np.e, np.maximum(rest_p - slack, 0), np.maximum(rest_p, 0) + slack)
    rest = x * np.log(x / y)
    return np.asarray(np.maximum(_product(p, _difference(p, q)).sum(-1) + rest, 0.0))


# -- different tokenizers --------------------------------------------------------------------------------------------------------------


def bits_per_byte_difference(logp_a: npt.ArrayLike, logp_b: npt.ArrayLike, size: int) -> float:
    """(sum logp_a - sum logp_b) / (bytes * ln 2), in bits per byte: what b needs more than a for the same string.

    Positive where a finds the string likelier. It can compare models of different tokenizers, whose tokens cannot be compared one by one.

    Caveat: the probability of a string is the sum over all ways to tokenize it, and each model's log-probability of its own tokenization is
    only a lower bound on that. The difference of two lower bounds bounds nothing, so that over strings drawn from a this estimates KL(a||b)
    per byte but for the mass that both leave on other tokenizations (small for likely text, not for rare). Both sides must score
    the same bytes after the same bytes: special tokens, a begin token, or an end token on one side only, make it meaningless.

    Args:
        logp_a: log-probabilities in nats of the tokens of the string under a, any number of them.
        logp_b: the same under b, over b's own tokens.
        size: bytes of the string in UTF-8.

    Raises:
        ValueError: if there are no bytes.
    """
    if size < 1:
        raise ValueError(f"a string of at least one byte is needed, found {size}")
    return float(np.sum(np.asarray(logp_a, np.float64)) - np.sum(np.asarray(logp_b, np.float64))) / (size * log(2))
