"""How far two models are from each other at every token of given texts, over the whole vocabulary (imports torch).

Both models go through the same batches in lockstep (``scoring.lockstep``); a distribution over the vocabulary lives only while its place is
measured. Which divergence this is depends on where the texts come from: along continuations drawn from a, sums of ``kl_ab`` over sequences
are the Rao-Blackwellised estimate of KL(a||b) (``stats.divergence.per_sequence``), along any others they are a divergence along those.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.scoring import LOGITS, Ints, Query, Scorer, lockstep, read
from aligntax.stats import divergence as exact

BLOCK = 2**18
"""Logits of each model that a processor works on at once: a mebibyte, so that all passes but the first find them in its cache."""
_TINY = 1e-37
"""Smaller than any probability that matters, and no denormal in float32."""


@dataclass(frozen=True)
class Divergence:
    """How two models, a and b, differ along a continuation; every array is (T,), one value for each token after all before it, in nats.

    Attributes:
        logprobs_a, logprobs_b: log-probability of the token; -inf where a model makes it impossible.
        greedy_a, greedy_b: whether it is the most likely token.
        kl_ab: KL(a||b) over the vocabulary. kl_ba: KL(b||a). Neither is negative: rounding in (-1e-6, 0) is set to 0; anything further
            below would be a fault, and is left to be seen. inf where one side gives probability to what the other makes impossible.
        js: Jensen-Shannon divergence, 0 to ln 2, settled likewise.
        entropy_a, entropy_b: entropies over the vocabulary.
        agree: whether both have the same most likely token.
    """

    logprobs_a: npt.NDArray[np.float64]
    logprobs_b: npt.NDArray[np.float64]
    greedy_a: npt.NDArray[np.bool_]
    greedy_b: npt.NDArray[np.bool_]
    kl_ab: npt.NDArray[np.float64]
    kl_ba: npt.NDArray[np.float64]
    js: npt.NDArray[np.float64]
    entropy_a: npt.NDArray[np.float64]
    entropy_b: npt.NDArray[np.float64]
    agree: npt.NDArray[np.bool_]


def divergences(a: Scorer, b: Scorer, queries: Sequence[Query]) -> Iterator[tuple[int, Divergence]]:
    """(number of the query, how the models differ along its continuation), in the order in which they are ready.

    Prefixes are shared if both models can share them. Logits of both models together never exceed ``scoring.LOGITS`` (an accelerator needs
    one and a half times as much again to work in), but for models whose logits come whole (``Scorer.head`` is None): there a batch is cut
    to that size, but a single sequence is not.

    Exponentials and products are float32; sums and normalisation are float64. A model against its own copy gives exactly 0, and from given
    logits the error is about 1e-8 nats for models that are close, 1e-7 for others.

    Args:
        a: a model.
        b: another of the same tokenizer, which the caller answers for.
        queries: what to go through.

    Raises:
        InputError: if the vocabularies differ in size, or a query is empty, holds unknown ids or is longer than a model's context.
        FloatingPointError: if a model gives log-probabilities that are no numbers.
    """
    if a.vocabulary != b.vocabulary:
        raise InputError(
            f"{printable(a.name)} has {a.vocabulary} tokens in its output and {printable(b.name)} has {b.vocabulary}: their distributions "
            "cannot be compared token by token; compare their log-likelihoods per byte"
        )
    a.check(queries)
    b.check(queries)
    found: Iterator[tuple[int, Divergence]] = _along(a, b, queries)
    return found


@torch.inference_mode()
def _along(a: Scorer, b: Scorer, queries: Sequence[Query]) -> Iterator[tuple[int, Divergence]]:
    places = LOGITS // (2 * a.vocabulary)
    room = min(a.batch_tokens, b.batch_tokens)
    if a.head is None or b.head is None:
        room = min(room, places)
    for wanted, states in lockstep([a, b], queries, room):
        for number, found in read(wanted, queries, places, partial(_compared, a, b, states)):
            yield number, Divergence(**found)
        del states  # before the next batch is computed


def _compared(a: Scorer, b: Scorer, states: list[torch.Tensor], places: Ints, of: Ints, asked: Ints) -> dict[str, npt.NDArray[Any]]:
    """What ``scoring.read`` wants measured, for a divergence."""
    row, token = torch.from_numpy(of).to(a.device), torch.from_numpy(asked).to(a.device)
    sides = [scorer.logits(state, places).to(a.device) for scorer, state in zip((a, b), states, strict=True)]
    best = [logits.argmax(-1) for logits in sides]
    above = [logits.gather(-1, k[:, None]) for logits, k in zip(sides, best, strict=True)]
    told = [(logits[row, token] - top[row, 0]).double() for logits, top in zip(sides, above, strict=True)]
    *sums, norm_a, norm_b = _sums(*(logits.sub_(top) for logits, top in zip(sides, above, strict=True)))
    found = {
        "logprobs_a": told[0] - norm_a[row],
        "logprobs_b": told[1] - norm_b[row],
        "greedy_a": best[0][row] == token,
        "greedy_b": best[1][row] == token,
        "agree": (best[0] == best[1])[row],
    }
    for scorer, norm in ((a, norm_a), (b, norm_b)):
        if bool(norm.isnan().any()):
            raise FloatingPointError(f"{scorer.name} gives log-probabilities that are no numbers")
    settled = {
        name: exact.settle(x.cpu().numpy())[of] for name, x in zip(("kl_ab", "kl_ba", "js", "entropy_a", "entropy_b"), sums, strict=True)
    }
    return {name: x.cpu().numpy() for name, x in found.items()} | settled


def _sums(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(7, C) KL(p||q), KL(q||p), JS, H(p), H(q) and the logarithms of sum exp a and sum exp b, in float64.

    a and b are logits (C, V) of p and q, less the largest of each row; they are overwritten.
    """
    count, vocabulary = a.shape
    step = max(1, BLOCK // vocabulary) if a.device.type == "cpu" else count
    work = a.new_empty(3, min(step, count), vocabulary)
    return torch.cat([_block(a[k : k + step], b[k : k + step], work[:, : count - k]) for k in range(0, count, step)], 1)


def _block(a: torch.Tensor, b: torch.Tensor, work: torch.Tensor) -> torch.Tensor:
    """``_sums`` of a few rows (R, V), with room to work in (3, R, V); everything given is overwritten.

    p and q stay unnormalised: the sums by which to divide are known in float64 only after the pass that makes them, and rounding them to
    float32 (as ``log_softmax`` does, which on processors is off by up to 1e-4 where the vocabulary is large) would drown the divergence of models that are close.
    With d = log p - log q and m = (p + q) / 2, JS = sum m log(max(p, q) / m) - sum min(p, q) |d| / 2, which is exactly 0 where p = q.
    """
    p, q, product = work

    def total(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.mul(x, y, out=product).sum(-1, dtype=torch.float64)

    torch.exp(a, out=p)
    torch.exp(b, out=q)
    mass_p, mass_q = p.sum(-1, dtype=torch.float64), q.sum(-1, dtype=torch.float64)
    norm_p, norm_q = mass_p.log(), mass_q.log()
    entropy_p, entropy_q = norm_p - total(p, a) / mass_p, norm_q - total(q, b) / mass_q
    if not bool(torch.isfinite(entropy_p + entropy_q).all()):
        return _with_zeros(a, b)
    d, shift = a.sub_(b), norm_p - norm_q
    forward, reverse = total(p, d) / mass_p - shift, shift - total(q, d) / mass_q
    # For JS q gets the mass of p.
    q.mul_((mass_p / mass_q).float()[:, None])
    d.sub_(shift.float()[:, None])
    common = total(torch.minimum(p, q, out=b), d.abs_())
    high, middle = torch.maximum(p, q, out=b).clamp_min_(_TINY), p.add_(q).mul_(0.5).clamp_min_(_TINY)
    js = (total(middle, high.div_(middle).log_()) - common / 2) / mass_p
    return torch.stack([forward, reverse, js, entropy_p, entropy_q, norm_p, norm_q])


def _with_zeros(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """``_sums`` of rows in which something is impossible (0 log 0), or is no number."""
    norms = torch.stack([x.double().logsumexp(-1) for x in (a, b)])
    if bool(norms.isnan().any()):
        return torch.cat([torch.full_like(norms[:1], torch.nan).expand(5, -1), norms])
    p, q = ((x.double() - norm[:, None]).cpu().numpy() for x, norm in zip((a, b), norms, strict=True))
    found = exact.kl(p, q), exact.kl(q, p), exact.jensen_shannon(p, q), exact.entropy(p), exact.entropy(q)
    return torch.cat([torch.from_numpy(np.stack(found)).to(a.device), norms])
