"""The paired change of one task between two models: one estimate, and one inversion that everything is read from.

Interval, p-value and non-inferiority test come from the same statistic T(delta), so they can never disagree.
Bounded scores use Tango's score test at the effective sample size (``ScoreTest``); unbounded ones a t test
(``TTest``). The choice between methods depends on the kind of data alone, never on the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Protocol

import numpy as np
from scipy.special import ndtr, ndtri, stdtr, stdtrit

from aligntax.stats.clusters import ClusterFacts, FloatArray, IntArray, cluster_facts
from aligntax.stats.moments import canonical_order, sample_variance
from aligntax.stats.tango import tango_interval, tango_statistic

# With fewer clusters than this holding a changed item, a clustered error below the item-level one is not believed.
MIN_FLIP_CLUSTERS = 5


def upper_tail(statistic: float, df: float | None) -> float:
    """P(X > statistic) for a standard normal (df None) or Student's t."""
    return float(ndtr(-statistic) if df is None else stdtr(df, -statistic))


def critical_value(level: float, df: float | None) -> float:
    """Two-sided critical value of a standard normal (df None) or Student's t at confidence ``level``."""
    p = 1.0 - (1.0 - level) / 2.0
    return float(ndtri(p) if df is None else stdtrit(df, p))


class Inversion(Protocol):
    """A test of "the mean change is delta" that can be inverted into an interval."""

    @property
    def df(self) -> float | None:
        """Degrees of freedom; None for the normal law."""

    def statistic(self, delta: float) -> float:
        """T(delta), decreasing in delta."""

    def interval(self, level: float) -> tuple[float, float]:
        """(low, high): the changes not rejected at ``level``."""


@dataclass(frozen=True)
class ScoreTest:
    """Tango's score test at the effective sample size.

    Attributes:
        lost, gained, n: counts divided by the design effect.
        df: degrees of freedom of the critical value; None for the normal law.
        scale: largest possible absolute difference of one item (1 for fractions); counts are in units of it.
    """

    lost: float
    gained: float
    n: float
    df: float | None
    scale: float = 1.0

    def statistic(self, delta: float) -> float:
        unit = min(max(delta / self.scale, -1.0), 1.0)
        return tango_statistic(unit, self.lost, self.gained, self.n)

    def interval(self, level: float) -> tuple[float, float]:
        low, high = tango_interval(self.lost, self.gained, self.n, critical_value(level, self.df))
        return low * self.scale, high * self.scale


@dataclass(frozen=True)
class TTest:
    """Student's t for a mean (with clusters: CR2 error and Bell-McCaffrey degrees of freedom)."""

    change: float
    se: float
    df: float

    def statistic(self, delta: float) -> float:
        return (self.change - delta) / self.se

    def interval(self, level: float) -> tuple[float, float]:
        half = critical_value(level, self.df) * self.se
        return self.change - half, self.change + half


def p_value(test: Inversion) -> float:
    """Two-sided p of no change."""
    return min(1.0, 2.0 * upper_tail(abs(test.statistic(0.0)), test.df))


def noninferiority_p(test: Inversion, margin: float) -> float:
    """One-sided p of "the loss is ``margin`` or more"; small values rule such a loss out (benefit direction)."""
    return upper_tail(test.statistic(-margin), test.df)


def equivalence_p(test: Inversion, margin: float) -> float:
    """Two one-sided tests (Schuirmann 1987): small values rule out any change of ``margin`` or more."""
    return max(upper_tail(test.statistic(-margin), test.df), upper_tail(-test.statistic(margin), test.df))


@dataclass(frozen=True)
class PairedChange:
    """The estimate of a mean paired change, in the direction of ``d`` as given.

    Attributes:
        n: items.
        change: mean of the differences.
        se: standard error that the inversion uses; None if it cannot be estimated.
        method: ``score``, ``score-trials``, ``score-clustered``, ``t``, ``t-clustered`` or ``none``.
        test: the inversion; None if there is none (one item, one cluster, no variation in unbounded scores).
        lost, gained: sums of losses and gains (counts for 0/1 scores).
        items_changed: items with a difference other than 0.
        design_effect: the factor the counts were divided by (None for t methods).
        raw_design_effect: before the floor; None where not defined.
        clusters: cluster facts, or None where items are treated as independent.
        sources: how many clusters there are; None without clusters.
        se_independent: sd/sqrt(n), ddof 1; None with one item.
        effective_contributors: (sum u^2)^2 / sum u^4 of centred differences (of cluster sums when clustered).
        reason: why there is no inversion, in words; empty otherwise.
    """

    n: int
    change: float
    se: float | None
    method: str
    test: Inversion | None
    lost: float
    gained: float
    items_changed: int
    design_effect: float | None = None
    raw_design_effect: float | None = None
    clusters: ClusterFacts | None = None
    sources: int | None = None
    se_independent: float | None = None
    effective_contributors: float | None = None
    reason: str = ""

    @property
    def df(self) -> float | None:
        """Degrees of freedom of the inversion; None for the normal law or without an inversion."""
        return None if self.test is None else self.test.df


def paired_change(
    d: FloatArray,
    codes: IntArray | None = None,
    *,
    binary: bool,
    trials: bool = False,
    scale: float | None = 1.0,
) -> PairedChange:
    """Estimate the mean of ``d`` with the method that the kind of data calls for.

    Args:
        d: (n,) differences candidate - baseline per item (item means when there are several trials).
        codes: (n,) cluster codes 0..G-1, or None. All clusters of one item each are the same as None.
        binary: every score behind ``d`` is a single 0/1 outcome; without clusters the effective size is then n itself.
        trials: ``d`` are means over several trials (names the method; the item stays the unit).
        scale: largest possible |d| of one item; None for unbounded scores.

    Returns:
        The estimate with its inversion.

    Raises:
        ValueError: if ``d`` is empty, or exceeds ``scale``.
    """
    n = len(d)
    if n == 0:
        raise ValueError("no items")
    if scale is not None and float(np.abs(d).max()) > scale * (1 + 1e-12):
        raise ValueError(f"differences reach {float(np.abs(d).max())!r}, beyond the scale {scale!r}")
    d = without_noise(d, scale)
    if codes is not None and int(codes.max()) + 1 == n:
        codes = None
    d, codes = canonical_order(d, codes)
    change = float(d.mean())
    variance = sample_variance(d) if n > 1 else None
    base = PairedChange(
        n=n,
        change=change,
        se=None,
        method="none",
        test=None,
        lost=float(np.maximum(-d, 0).sum()),
        gained=float(np.maximum(d, 0).sum()),
        items_changed=int(np.count_nonzero(d)),
        se_independent=None if variance is None else sqrt(variance / n),
    )
    if n == 1:
        return replace(base, reason="one item: its change has no measurable error")
    if codes is not None and int(codes.max()) == 0:
        return replace(base, sources=1, reason="one source: no interval for other sources")
    facts = None if codes is None else cluster_facts(d, codes)
    base = replace(
        base,
        clusters=facts,
        sources=None if facts is None else facts.count,
        effective_contributors=_contributors(d - change if facts is None else facts.sums),
    )
    assert variance is not None
    if scale is None:
        return _unbounded(base, variance / n)
    return _bounded(base, d / scale, scale, binary=binary, trials=trials)


def without_noise(d: FloatArray, scale: float | None) -> FloatArray:
    """Differences of means that are 0 but for rounding, as 0: they are not changed items."""
    if scale is None:
        return d
    noise = (d != 0) & (np.abs(d) < 1e-12 * scale)
    return np.where(noise, 0.0, d) if noise.any() else d


def _contributors(u: FloatArray) -> float | None:
    fourth = float(np.sum(u**4))
    return None if fourth == 0 else float(np.sum(u**2)) ** 2 / fourth


def _unbounded(base: PairedChange, variance_independent: float) -> PairedChange:
    facts = base.clusters
    variance = variance_independent if facts is None else facts.variance_cr2
    df = float(base.n - 1) if facts is None else facts.df
    if variance <= 0:
        return replace(base, reason="every difference is the same: its error cannot be estimated without bounds on the score")
    se = sqrt(variance)
    return replace(
        base,
        se=se,
        method="t" if facts is None else "t-clustered",
        test=TTest(base.change, se, df),
        raw_design_effect=variance / variance_independent if variance_independent > 0 else None,
    )


def _bounded(base: PairedChange, unit: FloatArray, scale: float, *, binary: bool, trials: bool) -> PairedChange:
    """Tango at n/deff; ``unit`` are differences in units of ``scale``."""
    n, facts = base.n, base.clusters
    lost, gained = base.lost / scale, base.gained / scale
    mean = (gained - lost) / n
    reference = max(0.0, ((lost + gained) / n - mean * mean) / (n - 1))
    if facts is not None:
        variance, df, method = facts.variance_cr2 / scale**2, facts.df, "score-clustered"
    elif binary and not trials:
        variance, df, method = reference, None, "score"
    else:
        variance, df = sample_variance(unit) / n, float(n - 1)
        method = "score-trials" if trials else "score"
    # A zero variance shows up as rounding noise when all differences are one and the same fraction.
    degenerate = reference <= 1e-15 / n or variance <= 1e-15 / n
    raw = None if degenerate else variance / reference
    if raw is None or (binary and not trials and facts is None):
        deff = 1.0
    elif facts is not None and facts.flip_clusters < MIN_FLIP_CLUSTERS:
        deff = max(1.0, raw)
    else:
        deff = raw
    return replace(
        base,
        se=sqrt(deff * reference) * scale,
        method=method,
        test=ScoreTest(lost / deff, gained / deff, n / deff, df, scale),
        design_effect=deff,
        raw_design_effect=raw,
    )
