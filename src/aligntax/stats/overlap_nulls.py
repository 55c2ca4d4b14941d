"""What a tax rate would be by chance: five nulls, each of another question.

Some overlap is certain. Which part of it is news depends on what "by chance" means:

====  ==========================================  =========================================================================================
null  the safety direction is like                answers
====  ==========================================  =========================================================================================
N1    any direction of the space                  nothing about real states, which fill few dimensions; a check of the arithmetic
N2    any direction along which states vary       is it more than what generic directions of variance share with the capabilities?
N3    what permuted labels give                   is there a safety signal at all? (not whether it is independent of capabilities)
N4    other concepts, estimated in the same way   **is safety special?** The primary one
N5    the same, against other subspaces           are these capabilities special? (subspaces of the same number of dimensions)
====  ==========================================  =========================================================================================

N1 is exact: tau of a uniform direction in d dimensions against a fixed subspace of m is Beta(m/2, (d - m)/2), with mean m/d. N2 draws v from the
normal law with the states' covariance, as random combinations X'w of centred rows, so nothing of size d x d is made; its mean is near
tr(P S)/tr(S), often many times m/d. A direction as estimated is signal and noise, and under N2's hypothesis both have that covariance: N2 and N3 are
for the *naive* tax rate. For N4 and N5 the rates must have been estimated like that of safety (same sizes of classes, same layer and position,
same correction, none left out because its estimate failed); then p = (1 + b)/(1 + K), b of the K others being as large or larger, is exact.

``excess`` is (tau - E)/(1 - E), E the null's mean: 0 at chance and 1 at 1, for N1 the form of an adjusted R^2. The deterministic part of a law
tau ~ m/d is N1's mean, so that a tax that falls with width says nothing before E is taken off.

Permuted labels respect groups: where every group holds both classes labels are permuted within groups (flips of matched pairs), where every group
holds one class whole groups are. The statistic of the signal is the squared length of the difference of the means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import betaincc, betaincinv

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.directions import independent_columns
from aligntax.stats.multiplicity import holm
from aligntax.stats.overlap import unit_columns

MIN_OTHERS = 50
"""Concepts or subspaces that a comparison takes at least."""

Null = Literal["N1", "N2", "N3", "N4", "N5"]

_TIE = 1e-12


@dataclass(frozen=True)
class NullTest:
    """A tax rate against a null.

    Attributes:
        null: which.
        rate: the tax rate compared.
        mean: of the null.
        high: the null's 95th percentile.
        excess: (rate - mean)/(1 - mean).
        p: one-sided, that the rate is this large by chance.
        p_low: that it is this small.
        draws: (1 + draws) p is a whole number; 0 where exact.
    """

    null: Null
    rate: float
    mean: float
    high: float
    excess: float
    p: float
    p_low: float
    draws: int

    @property
    def p_two_sided(self) -> float:
        """Twice the smaller, at most 1."""
        return min(1.0, 2 * min(self.p, self.p_low))


@dataclass(frozen=True)
class PermutationTest:
    """N3: permuted labels.

    Attributes:
        rate: the naive tax rate against what permuted labels give. Not a test of independence of the capabilities: under permuted labels the
            direction is noise, and its rate the share of the noise that the basis holds.
        p_signal: one-sided, that the classes differ this much by chance.
        length: of the difference of the means, over the root mean square of permuted ones.
        how: what was permuted.
    """

    rate: NullTest
    p_signal: float
    length: float
    how: Literal["rows", "rows within groups", "groups"]


def isotropic(rate: float, rank: int, dimension: int) -> NullTest:
    """N1: a direction drawn uniformly against a subspace of ``rank`` of ``dimension`` dimensions.

    Raises:
        ValueError: unless 0 < rank < dimension and the rate is finite.
    """
    if not 0 < rank < dimension:
        raise ValueError(f"a subspace has from 1 to d - 1 dimensions; found {rank} of {dimension}")
    a, b, x = rank / 2, (dimension - rank) / 2, min(max(_rate(rate), 0.0), 1.0)
    upper = float(betaincc(a, b, x))
    mean = rank / dimension
    return NullTest("N1", float(rate), mean, float(betaincinv(a, b, 0.95)), (rate - mean) / (1 - mean), upper, 1 - upper, 0)


def covariance_matched(
    rate: float, states: npt.ArrayLike, basis: npt.ArrayLike, rng: np.random.Generator, *, draws: int = 1999
) -> NullTest:
    """N2: directions drawn from the normal law with the covariance of ``states``.

    Args:
        rate: the naive tax rate.
        states: (n, d) that the covariance is taken from; where they are of two classes, centre each class first.
        basis: (d, m) capability directions in columns.
        rng: draws directions.
        draws: how many.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, zero or dependent directions, states that do not vary.
    """
    x, inside = _states_and_basis(states, basis)
    x = x - x.mean(axis=0)
    gram, part = _grams(x, inside)
    rates = _quadratic_rates(rng.normal(size=(draws, len(x))), gram, part)[0]
    return _by_draws("N2", _rate(rate), rates)


def permuted_labels(
    states: npt.ArrayLike,
    positive: npt.ArrayLike,
    basis: npt.ArrayLike,
    rng: np.random.Generator,
    groups: npt.ArrayLike | None = None,
    *,
    draws: int = 1999,
) -> PermutationTest:
    """N3: the naive tax rate and the length of the difference between two classes, against permuted labels.

    Args:
        states: (n, d) of both classes.
        positive: (n,) True where a state is of the positive class.
        basis: (d, m) capability directions in columns, estimated on other prompts.
        rng: permutes.
        groups: (n,) labels of rows that belong together; None: rows are exchangeable.
        draws: permutations.

    Raises:
        ValueError: as ``covariance_matched``; with one class only; or where some groups hold one class and others both.
    """
    x, inside = _states_and_basis(states, basis)
    label = np.asarray(positive)
    if label.shape != (len(x),) or not np.isin(label, (0, 1)).all():
        raise ValueError(f"one label per state, True or False, is needed; found the shape {label.shape} for {len(x)} states")
    label = label.astype(bool)
    if label.all() or not label.any():
        raise ValueError("all states are of one class: there is nothing to permute")
    x = x - x.mean(axis=0)
    gram, part = _grams(x, inside)
    permuted, how = _permutations(label, groups, draws, rng)
    weights = np.concatenate([label[None], permuted]).astype(np.float64)
    ones = weights.sum(axis=1, keepdims=True)
    rates, lengths = _quadratic_rates(weights / ones - (1 - weights) / (len(x) - ones), gram, part)
    p = (1 + int(np.sum(lengths[1:] >= lengths[0] * (1 - _TIE)))) / (1 + draws)
    length = float(np.sqrt(lengths[0] / lengths[1:].mean()))
    return PermutationTest(_by_draws("N3", float(rates[0]), rates[1:]), p, length, how)


def random_concepts(rate: float, others: npt.ArrayLike) -> NullTest:
    """N4: the tax rates of other concepts (topic, language, sentiment, length, ...), estimated exactly like that of safety.

    Args:
        rate: of safety.
        others: (K,) at least 50.

    Raises:
        ValueError: with fewer than 50, or rates that are not finite: a concept whose rate is not identified cannot be left out after the fact.
    """
    return _by_draws("N4", _rate(rate), _others(others, "concepts"))


def matched_subspaces(rate: float, others: npt.ArrayLike) -> NullTest:
    """N5: the tax rates of the same safety direction against other subspaces of as many dimensions, estimated in the same way.

    Args:
        rate: against the capabilities.
        others: (K,) at least 50.

    Raises:
        ValueError: as ``random_concepts``.
    """
    return _by_draws("N5", _rate(rate), _others(others, "subspaces"))


def naive_rates(directions: npt.ArrayLike, basis: npt.ArrayLike) -> FloatArray:
    """(k,) naive tax rates of directions (d, k) in columns against the span of ``basis`` (d, m).

    Raises:
        ValueError: on shapes that do not fit, and zero or dependent directions in the basis.
    """
    columns = unit_columns(directions, "direction")
    return np.asarray(np.sum((np.linalg.qr(independent_columns(basis, len(columns)))[0].T @ columns) ** 2, axis=0))


def over_layers(tests: Mapping[str, NullTest]) -> dict[str, float]:
    """Holm-adjusted p of every layer's test, in the order given."""
    return dict(zip(tests, holm([t.p for t in tests.values()]), strict=True))


def _rate(rate: float) -> float:
    if not np.isfinite(rate):
        raise ValueError(f"the tax rate is {rate}: only an identified rate can be compared")
    return float(rate)


def _others(others: npt.ArrayLike, what: str) -> FloatArray:
    rates = np.asarray(others, dtype=np.float64)
    if rates.ndim != 1 or len(rates) < MIN_OTHERS:
        raise ValueError(f"the tax rates of at least {MIN_OTHERS} other {what} are needed, found the shape {rates.shape}")
    if not np.isfinite(rates).all():
        raise ValueError(
            f"{int(np.sum(~np.isfinite(rates)))} of {len(rates)} other {what} have no tax rate: choose {what} by a rule that does not look at it"
        )
    return rates


def _by_draws(null: Null, rate: float, rates: FloatArray) -> NullTest:
    slack, mean = _TIE * max(1.0, abs(rate)), float(rates.mean())
    p, p_low = ((1 + int(np.sum(side))) / (1 + len(rates)) for side in (rates >= rate - slack, rates <= rate + slack))
    high = float(np.quantile(rates, 0.95))
    return NullTest(null, rate, mean, high, (rate - mean) / (1 - mean) if mean < 1 else 0.0, p, p_low, len(rates))


def _states_and_basis(states: npt.ArrayLike, basis: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    x = np.asarray(states, dtype=np.float64)
    if x.ndim != 2 or len(x) < 3 or not np.isfinite(x).all():
        raise ValueError(f"at least three rows of finite states (rows, dimensions) are needed, found the shape {x.shape}")
    if not np.ptp(x, axis=0).any():
        raise ValueError("all states are the same: they vary along no direction")
    return x, np.linalg.qr(independent_columns(basis, x.shape[1]))[0]


def _grams(x: FloatArray, inside: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Products of rows (n, n), and the rows in the basis (n, m)."""
    return x @ x.T, x @ inside


def _quadratic_rates(weights: FloatArray, gram: FloatArray, part: FloatArray) -> tuple[FloatArray, FloatArray]:
    """(draws,) tax rates and squared lengths of the directions X'w, w a row of ``weights``."""
    lengths = np.einsum("bn,bn->b", weights @ gram, weights)
    inside = np.sum((weights @ part) ** 2, axis=1)
    if not np.all(lengths > 0):
        raise ValueError("a drawn direction is zero: states do not vary enough to tell directions from rounding")
    return inside / lengths, lengths


def _permutations(
    label: npt.NDArray[np.bool_], groups: npt.ArrayLike | None, draws: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.bool_], Literal["rows", "rows within groups", "groups"]]:
    """(draws, n) permuted labels."""
    n = len(label)
    if groups is None:
        return rng.permuted(np.tile(label, (draws, 1)), axis=1), "rows"
    given = np.asarray(groups)
    if given.shape != (n,):
        raise ValueError(f"one group label per state is needed, found the shape {given.shape} for {n} states")
    codes = np.unique(given.astype(np.str_), return_inverse=True)[1]
    sizes, ones = np.bincount(codes), np.bincount(codes, weights=label)
    both = (ones > 0) & (ones < sizes)
    if both.all():
        return _within(label, codes, draws, rng), "rows within groups"
    if both.any():
        raise ValueError(
            f"{int(both.sum())} groups hold both classes and {int(np.sum(~both))} only one: permute those that pair the classes, or leave the others out"
        )
    of_group = ones == sizes
    return rng.permuted(np.tile(of_group, (draws, 1)), axis=1)[:, codes], "groups"


def _within(label: npt.NDArray[np.bool_], codes: IntArray, draws: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Labels permuted within groups: rows are ordered by group and a random number, and take their group's labels in that order."""
    order = np.argsort(codes, kind="stable")
    shuffled = np.argsort(codes + rng.random((draws, len(codes))), axis=1)
    out = np.empty((draws, len(codes)), dtype=bool)
    np.put_along_axis(out, shuffled, np.broadcast_to(label[order], out.shape), axis=1)
    return out
