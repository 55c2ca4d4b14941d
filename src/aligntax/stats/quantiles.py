"""Times of the same prompts in two arms: quantiles and their change, medians of paired differences and ratios, and what a change is made of.

Two questions that medians answer differently. The change of a quantile compares the two distributions (is the slowest twentieth slower?);
the median of the paired changes looks at each prompt (is the usual prompt slower?). The one can fall while the other rises.

- Quantiles are Hyndman and Fan's type 7 (1996, Am. Stat. 50:361).
- The median of differences and of ratios has the exact interval of order statistics, the inversion of the sign test: Thompson 1936 (Ann. Math.
  Stat. 7:122). It needs no distribution, and 6 items at 95 %. With clusters its limits are the quantiles at the limits of the share below it
  (Woodruff 1952, J. Am. Stat. Assoc. 47:635), that share with its cluster-robust error (CR2, Bell and McCaffrey's degrees of freedom).
- A quantile of one arm has fractional order statistics as limits: rank k, for which P(Beta(k, n + 1 - k) <= q) is the tail (Stigler 1977, J. Am.
  Stat. Assoc. 72:544; Hutson 1999, J. Appl. Stat. 26:343). There are none where the largest (smallest) of n values may lie below (above) the
  quantile more often than that, max(q, 1 - q)^n: 72 items for p95 at 95 %, 368 for p99.
- The change of a quantile has the least and the largest difference of two order statistics whose normal scores (z, z') lie on the ellipse
  z^2 - 2 r z z' + z'^2 = (1 - r^2) c^2: the profile of the joint region of both quantiles (Venzon and Moolgavkar 1988, Appl. Stat. 37:87), which correlate
  as the shares of items below them do (r; Bahadur 1966, Ann. Math. Stat. 37:577). If one arm never varies it is the other's interval; if one is a
  multiple of the other it is that of the one. With clusters n is the effective one of the share (Korn and Graubard 1998, Surv. Methodol. 24:193), and c Student's.
  A percentile bootstrap of the change errs on one side in 10 to 14 % of studies with 40 to 100 items for p95, where one arm varies more than the other:
  quantiles of resamples do not reach beyond the largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, log, sqrt

import numpy as np
from scipy.special import bdtr, betainc, ndtr, ndtri

from aligntax.stats.clusters import FloatArray, IntArray, bell_mccaffrey_df, cr_variance, kish_clusters
from aligntax.stats.moments import correlation
from aligntax.stats.paired import critical_value

QUANTILES = (0.5, 0.95, 0.99)
FEWEST = 10
"""Items below which no quantile has an interval."""
FEWEST_SOURCES = {"median": 10, "quantile": 20}
"""Clusters below which a median of pairs has no interval, and the change of a quantile."""
_TAILS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25)
CONFIDENCES = (*_TAILS, 0.5, *(1 - tail for tail in reversed(_TAILS)))
"""One-sided confidences at which limits of a quantile's change are kept."""

_KNOTS = 201
_FARTHEST = 8.0  # normal scores beyond which nobody asks
_ANGLES = np.linspace(0, 2 * np.pi, 361)
Interval = tuple[float, float]
Limits = Sequence[float | None]
Detail = float | int | list[float | None] | None


# -- medians of pairs ----------------------------------------------------------------------------------------------------------


def median_interval(x: FloatArray, codes: IntArray | None, *, level: float) -> Interval | None:
    """Limits of the median of ``x`` (n,).

    Independent items: order statistics k and n + 1 - k, with the largest k for which P(Binomial(n, 1/2) < k) is at most half of what the
    level leaves (Thompson 1936). Clusters ``codes`` (n,): Woodruff 1952.

    Returns:
        (low, high); None with too few items or clusters for any.
    """
    if codes is not None and int(codes.max()) + 1 < len(x):
        return _woodruff(x, codes, level)
    rank = _sign_rank(len(x), level)
    if rank == 0:
        return None
    ordered = np.sort(x)
    return float(ordered[rank - 1]), float(ordered[-rank])


def _sign_rank(n: int, level: float) -> int:
    """The largest k with P(Binomial(n, 1/2) <= k - 1) <= (1 - level) / 2; 0 if there is none."""
    below = bdtr(np.arange(n // 2 + 1), n, 0.5)
    return int(np.searchsorted(below, (1 - level) / 2 * (1 + 1e-12), side="right"))


def _woodruff(x: FloatArray, codes: IntArray, level: float) -> Interval | None:
    """The quantiles at the limits of the share at or below the median; None with few clusters, or where a limit is none of a share."""
    sizes = np.bincount(codes)
    if len(sizes) < FEWEST_SOURCES["median"]:
        return None
    inside = (x <= np.median(x)).astype(np.float64)
    half = critical_value(level, bell_mccaffrey_df(sizes)) * sqrt(cr_variance(inside, codes))
    if half >= 0.5:
        return None
    low, high = np.quantile(x, [0.5 - half, 0.5 + half])
    return float(low), float(high)


# -- changes of quantiles ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantileChange:
    """A quantile in two arms and its change.

    Attributes:
        interval: of the change; None where there is none.
        limits: of the change at each of ``CONFIDENCES``, None where too few items tell; None where they never do.
    """

    q: float
    baseline: float
    candidate: float
    interval: Interval | None
    limits: tuple[float | None, ...] | None

    @property
    def change(self) -> float:
        return self.candidate - self.baseline


def items_needed(q: float, level: float) -> int:
    """Independent items (with clusters: Kish's effective number of them, since whole sources may be slow) that an interval of a quantile takes at
    ``level``: the least n with max(q, 1 - q)^n <= (1 - level)/2.
    """
    return max(FEWEST, ceil(log((1 - level) / 2) / log(max(q, 1 - q)) * (1 - 1e-12)))


def quantile_changes(baseline: FloatArray, candidate: FloatArray, codes: IntArray | None, *, level: float) -> list[QuantileChange]:
    """The quantiles ``QUANTILES`` of two arms over the same items, and their changes.

    Args:
        baseline: (n,) values.
        candidate: (n,) values of the same items.
        codes: (n,) cluster codes 0..G-1, or None.
        level: confidence level.
    """
    codes = None if codes is None or int(codes.max()) + 1 == len(baseline) else codes
    return [_quantile_change(baseline, candidate, codes, q, level) for q in QUANTILES]


def _quantile_change(baseline: FloatArray, candidate: FloatArray, codes: IntArray | None, q: float, level: float) -> QuantileChange:
    n = len(baseline)
    values = float(np.quantile(baseline, q)), float(np.quantile(candidate, q))
    if n < FEWEST or (codes is not None and int(codes.max()) + 1 < FEWEST_SOURCES["quantile"]):
        return QuantileChange(q, *values, None, None)
    arms = [_Arm.of(x, at, q, codes) for x, at in zip((baseline, candidate), values, strict=True)]
    r = _together(arms[0].inside, arms[1].inside, codes)
    sizes = None if codes is None else np.bincount(codes)
    df = None if sizes is None else bell_mccaffrey_df(sizes)
    unseen = max(q, 1 - q) ** (n if sizes is None else kish_clusters(sizes))

    def limits(tail: float) -> Interval | None:
        return None if unseen > tail * (1 + 1e-9) else _profile(arms[0], arms[1], r, critical_value(1 - 2 * tail, df))

    pairs = [limits(tail) or (None, None) for tail in (*_TAILS, 0.5)]
    kept = (*(low for low, _ in pairs), *(high for _, high in pairs[-2::-1]))
    return QuantileChange(q, *values, limits((1 - level) / 2), kept)


@dataclass(frozen=True)
class _Arm:
    """One arm's values in order (n,), which of its items lie at or below the quantile (n,) in the items' own order, and the ranks of its limits:
    at normal scores ``scores`` the fractional ranks ``ranks``.
    """

    ordered: FloatArray
    inside: FloatArray
    scores: FloatArray
    ranks: FloatArray

    @classmethod
    def of(cls, x: FloatArray, at: float, q: float, codes: IntArray | None) -> _Arm:
        inside = (x <= at).astype(np.float64)
        n = float(len(x))
        effective = n if codes is None else min(n, _effective(inside, codes), _effective((x <= np.median(x)).astype(np.float64), codes))
        scores, ranks = _fractional_ranks(effective, q)
        return cls(np.sort(x), inside, scores, ranks * (n + 1) / (effective + 1))

    def at(self, scores: FloatArray) -> FloatArray:
        """The order statistics at normal scores, those between two ranks interpolated."""
        ranks = np.clip(np.interp(scores, self.scores, self.ranks), 1, len(self.ordered))
        below = np.minimum(ranks.astype(np.int64), max(1, len(self.ordered) - 1))
        low, high = self.ordered[below - 1], self.ordered[np.minimum(below, len(self.ordered) - 1)]
        return np.asarray(low + (ranks - below) * (high - low))


def _effective(inside: FloatArray, codes: IntArray) -> float:
    """Independent items whose share would have the same variance.

    Of the share below a far quantile that is known badly, and too many where few items happen to lie beyond: then the limits would be both there
    and too short. So that of the share below the median bounds it.
    """
    variance = cr_variance(inside, codes)
    share = float(inside.mean())
    return share * (1 - share) / variance if variance > 0 else float(len(inside))


@lru_cache(maxsize=256)
def _fractional_ranks(n: float, q: float) -> tuple[FloatArray, FloatArray]:
    """(normal scores z, ranks k) with P(Beta(k, n + 1 - k) <= q) = Phi(-z), as far out as 1 <= k <= n."""
    farthest = min(_FARTHEST, float(-ndtri(max(q, 1 - q) ** n)))
    scores = np.linspace(-farthest, farthest, _KNOTS) if farthest > 0 else np.zeros(1)
    low, high = np.ones(len(scores)), np.full(len(scores), n)
    for _ in range(60):
        middle = (low + high) / 2
        short = betainc(middle, n + 1 - middle, q) > ndtr(-scores)
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    return scores, (low + high) / 2


def _together(first: FloatArray, second: FloatArray, codes: IntArray | None) -> float:
    """The correlation of two shares of the same items; 0 where one of them has no error."""
    if codes is None:
        return min(1.0, max(-1.0, correlation(first, second) or 0.0))
    one, other, apart = (cr_variance(x, codes) for x in (first, second, first - second))
    return 0.0 if one == 0 or other == 0 else min(1.0, max(-1.0, (one + other - apart) / (2 * sqrt(one * other))))


def _profile(base: _Arm, cand: _Arm, r: float, critical: float) -> Interval | None:
    """The least and the largest change on the ellipse; None where an arm has no such limits."""
    if critical > min(base.scores[-1], cand.scores[-1]) + 1e-9:
        return None
    first = critical * np.cos(_ANGLES)
    second = critical * (r * np.cos(_ANGLES) + sqrt(1 - r * r) * np.sin(_ANGLES))
    changes = cand.at(second) - base.at(first)
    return float(changes.min()), float(changes.max())


_JUST_BELOW = 1 - 1e-9


def confidence_at_most(limits: Limits, value: float) -> float | None:
    """The confidence that a change is at most ``value``, by its limits at each of ``CONFIDENCES``; a p-value of "it is at most that".

    ``value`` itself counts as below, and what lies between two limits has (just less than) the confidence of the upper one, so that it is never
    too small; beyond the last limit that is known it is 1. None without limits.
    """
    known = [(p, x) for p, x in zip(CONFIDENCES, limits, strict=True) if x is not None]
    if not known:
        return None
    return next((p * _JUST_BELOW for p, x in known if x > value), 1.0)


def limits_at(limits: Limits, level: float) -> Interval | None:
    """The interval at a two-sided confidence: the kept limits at that or the next larger one; None beyond those that are known."""
    least = (1 - level) / 2 * (1 + 1e-9)
    at = max((k for k, p in enumerate(CONFIDENCES) if p <= least), default=None)
    low, high = (None, None) if at is None else (limits[at], limits[-1 - at])
    return None if low is None or high is None else (low, high)


# -- what is said of one metric --------------------------------------------------------------------------------------------------


def latency_details(base: FloatArray, cand: FloatArray, codes: IntArray | None, level: float) -> dict[str, Detail]:
    """Everything about one metric of time, size or speed of the same prompts in two arms.

    Args:
        base: (n,) values, not below 0.
        cand: (n,) values of the same prompts.
        codes: (n,) cluster codes 0..G-1, or None.
        level: confidence level.

    Returns:
        ``median_change`` and ``median_ratio`` of the pairs; ``p50_baseline``, ``p50_candidate``, ``p50_change`` and likewise p95 and p99; each
        change and ratio with ``..._ci`` ([low, high], None where there is none), those of quantiles with ``..._limits`` at each of
        ``CONFIDENCES``. Where too few items are the reason, ``p99_items_needed`` says how many it takes (``p99_sources_needed``: how many
        clusters of one size); the quantile itself is None as well if fewer than one item lies beyond it: it would be the largest value.

    Raises:
        ValueError: if the arrays differ in length, are empty, or hold values below 0 or that are not finite.
    """
    n = len(base)
    if n == 0 or len(cand) != n:
        raise ValueError(f"two arms over the same items, at least one: got {n} and {len(cand)}")
    if not (np.isfinite(base).all() and np.isfinite(cand).all() and base.min() >= 0 and cand.min() >= 0):
        raise ValueError("times and sizes are finite and not below 0")
    codes = None if codes is None or int(codes.max()) + 1 == n else codes
    d = cand - base
    out: dict[str, Detail] = {"median_change": float(np.median(d)), "median_change_ci": _listed(median_interval(d, codes, level=level))}
    if base.min() > 0:
        r = cand / base
        out |= {"median_ratio": float(np.median(r)), "median_ratio_ci": _listed(median_interval(r, codes, level=level))}
    else:
        out |= {"median_ratio": None, "median_ratio_ci": None}
    for one in quantile_changes(base, cand, codes, level=level):
        name = f"p{one.q * 100:.0f}"
        seen = one.q == 0.5 or n * (1 - one.q) >= 1 - 1e-9
        values = (one.baseline, one.candidate, one.change) if seen else (None, None, None)
        out |= dict(zip((f"{name}_baseline", f"{name}_candidate", f"{name}_change"), values, strict=True))
        out[f"{name}_change_ci"] = _listed(one.interval)
        out[f"{name}_change_limits"] = None if one.limits is None else list(one.limits)
        needed = items_needed(one.q, level)
        if n < needed:
            out[f"{name}_items_needed"] = needed
        if codes is not None and one.interval is None:
            out[f"{name}_sources_needed"] = max(needed, FEWEST_SOURCES["quantile"])
    return out


def _listed(interval: Interval | None) -> list[float | None] | None:
    return None if interval is None else list(interval)


# -- verbosity, speed, and the first token -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Parts:
    """What the time of an answer is made of, (n,) each: seconds to the first token, seconds per token after it (NaN where there is none),
    tokens. ``total`` is first + (tokens - 1) per_token.
    """

    first: FloatArray
    per_token: FloatArray
    tokens: FloatArray

    @property
    def further(self) -> FloatArray:
        """Tokens after the first."""
        return np.maximum(self.tokens - 1, 0)

    @property
    def total(self) -> FloatArray:
        return self.first + np.where(self.further > 0, self.further * self.per_token, 0.0)


def decomposed(base: Parts, cand: Parts) -> dict[str, FloatArray]:
    """What of the change of each answer's time is its first token's, its length's, its speed's; the three add up to it exactly.

    With m tokens after the first and s seconds for each, m1 s1 - m0 s0 = (m1 - m0)(s0 + s1)/2 + (s1 - s0)(m0 + m1)/2: each factor's change at
    the mean of the other, which is the Shapley value of two factors (Bennet 1920, J. R. Stat. Soc. 83:455; Shorrocks 2013, J. Econ. Inequal.
    11:99). An answer of one token has no speed; then the whole product is the length's.

    Returns:
        ``first_token_effect``, ``verbosity_effect``, ``speed_effect``, (n,) seconds.
    """
    m0, m1 = base.further, cand.further
    s0, s1 = np.where(m0 > 0, base.per_token, np.nan), np.where(m1 > 0, cand.per_token, np.nan)
    s0, s1 = np.where(m0 > 0, s0, np.where(m1 > 0, s1, 0.0)), np.where(m1 > 0, s1, np.where(m0 > 0, s0, 0.0))
    return {
        "first_token_effect": cand.first - base.first,
        "verbosity_effect": (m1 - m0) * (s0 + s1) / 2,
        "speed_effect": (s1 - s0) * (m0 + m1) / 2,
    }
