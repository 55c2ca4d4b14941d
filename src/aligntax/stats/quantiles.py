"""Times of the same prompts in two arms: quantiles and their change, medians of paired differences and ratios, and what a change is made of.

Two questions that medians answer differently. The change of a quantile compares the two distributions (is the slowest twentieth slower?);
the median of the paired changes looks at each prompt (is the usual prompt slower?). The one can fall while the other rises.

- Quantiles are Hyndman and Fan's type 7 (1996, Am. Stat. 50:361).
- The median of differences and of ratios has the exact interval of order statistics, the inversion of the sign test: Thompson 1936 (Ann. Math.
  Stat. 7:122). It needs no distribution, and 6 items at 95 %.
- The change of a quantile has the percentile interval of the paired bootstrap over items, or over clusters (Efron 1979, Ann. Stat. 7:1). In
  simulations it covers as soon as two items lie beyond the quantile (40 items for p95, 200 for p99) and there are 20 clusters; the basic and the
  normal interval do not, and what needs no resampling is wider.
- With clusters the limits of a median are the quantiles at the limits of the share below it (Woodruff 1952, J. Am. Stat. Assoc. 47:635), that
  share with its cluster-robust error (CR2, Bell and McCaffrey's degrees of freedom); the bootstrap is too short there up to 60 clusters. The
  same where so many items make resampling slow; those of two dependent quantiles become limits of their difference by Zou and Donner (2008,
  Stat. Med. 27:1693), the quantiles correlating as the shares do (Bahadur 1966, Ann. Math. Stat. 37:577).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr

from aligntax.stats.clusters import FloatArray, IntArray, bell_mccaffrey_df, cr_variance
from aligntax.stats.moments import sample_variance
from aligntax.stats.paired import critical_value

QUANTILES = (0.5, 0.95, 0.99)
RESAMPLES = 1000
LARGE = 5_000
"""Items beyond which nothing is resampled."""
TAIL = 2
"""Items that have to lie beyond a quantile before its change has an interval: with fewer the largest values are all that is known."""
FEWEST = 10
"""Items below which no quantile has one."""
FEWEST_SOURCES = {"median": 10, "quantile": 20}
"""Clusters below which a median of pairs has no interval, and the change of a quantile."""

_CELLS = 2_000_000  # resampled at once: 16 MB
Interval = tuple[float, float]
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
        return _woodruff(np.sort(x), 0.5, _share(x, float(np.median(x)), codes), level)
    rank = _sign_rank(len(x), level)
    if rank == 0:
        return None
    ordered = np.sort(x)
    return float(ordered[rank - 1]), float(ordered[-rank])


def _sign_rank(n: int, level: float) -> int:
    """The largest k with P(Binomial(n, 1/2) <= k - 1) <= (1 - level) / 2; 0 if there is none."""
    below = bdtr(np.arange(n // 2 + 1), n, 0.5)
    return int(np.searchsorted(below, (1 - level) / 2 * (1 + 1e-12), side="right"))


# -- changes of quantiles ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QuantileChange:
    """A quantile in two arms and its change; ``interval`` None where there is none."""

    q: float
    baseline: float
    candidate: float
    interval: Interval | None

    @property
    def change(self) -> float:
        return self.candidate - self.baseline


def items_needed(q: float) -> int:
    """Items that a quantile's change needs for an interval."""
    return max(FEWEST, ceil(TAIL / min(q, 1 - q) * (1 - 1e-12)))


def quantile_changes(
    baseline: FloatArray,
    candidate: FloatArray,
    codes: IntArray | None,
    *,
    level: float,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> list[QuantileChange]:
    """The quantiles ``QUANTILES`` of two arms over the same items, and their changes.

    Args:
        baseline: (n,) values.
        candidate: (n,) values of the same items.
        codes: (n,) cluster codes 0..G-1, or None.
        level: confidence level.
        rng: of the bootstrap.
        resamples: of it.
    """
    n = len(baseline)
    codes = None if codes is None or int(codes.max()) + 1 == n else codes
    few = codes is not None and int(codes.max()) + 1 < FEWEST_SOURCES["quantile"]
    told = [] if few else [q for q in QUANTILES if n >= items_needed(q)]
    limits: dict[float, Interval | None] = {}
    if n > LARGE:
        limits = {q: _mover(baseline, candidate, q, codes, level) for q in told}
    elif told:
        drawn = _resampled(baseline, candidate, codes, told, resamples, rng)
        ends = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
        limits = {q: (float(low), float(high)) for q, low, high in zip(told, *ends, strict=True)}
    before, after = np.quantile(baseline, QUANTILES), np.quantile(candidate, QUANTILES)
    return [QuantileChange(q, float(b), float(c), limits.get(q)) for q, b, c in zip(QUANTILES, before, after, strict=True)]


def _resampled(
    baseline: FloatArray, candidate: FloatArray, codes: IntArray | None, qs: list[float], resamples: int, rng: np.random.Generator
) -> FloatArray:
    """(resamples, len(qs)) changes of quantiles over clusters (items) drawn with replacement, in both arms the same."""
    order = np.lexsort((candidate, baseline))  # the order of rows must not matter
    baseline, candidate = baseline[order], candidate[order]
    codes = np.arange(len(order)) if codes is None else codes[order]
    sides = [(x[by], codes[by]) for x in (candidate, baseline) for by in (np.argsort(x, kind="stable"),)]
    count = int(codes.max()) + 1
    out = np.empty((resamples, len(qs)))
    block = max(1, _CELLS // len(codes))
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        picks = rng.integers(0, count, (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(picks.ravel(), minlength=size * count).reshape(size, count).astype(np.int32)
        after, before = (_repeated(x, times[:, of], qs) for x, of in sides)
        out[start : start + size] = after - before
    return out


def _repeated(ordered: FloatArray, times: npt.NDArray[np.int32], qs: list[float]) -> FloatArray:
    """(m, len(qs)) quantiles of sorted values (n,), each repeated ``times`` (m, n)."""
    below = np.cumsum(times, axis=1, dtype=np.int32)
    out = np.empty((len(times), len(qs)))
    for k, q in enumerate(qs):
        place = q * (below[:, -1] - 1)
        rank = np.floor(place)
        low = ordered[np.argmax(below > rank[:, None], axis=1)]
        high = ordered[np.argmax(below > np.minimum(rank + 1, below[:, -1] - 1)[:, None], axis=1)]
        out[:, k] = low + (place - rank) * (high - low)
    return out


@dataclass(frozen=True)
class _Share:
    """The items at or below a quantile: (n,) 0 or 1, the variance of their mean, and its degrees of freedom (None for the normal law)."""

    inside: FloatArray
    variance: float
    df: float | None


def _share(x: FloatArray, at: float, codes: IntArray | None) -> _Share:
    inside = (x <= at).astype(np.float64)
    if codes is None:
        return _Share(inside, sample_variance(inside) / len(x), None)
    sizes = np.bincount(codes)
    if len(sizes) < FEWEST_SOURCES["median"]:
        return _Share(inside, np.nan, None)
    return _Share(inside, cr_variance(inside, codes), bell_mccaffrey_df(sizes))


def _woodruff(ordered: FloatArray, q: float, share: _Share, level: float) -> Interval | None:
    """The quantiles of sorted values at the limits of the share below; None where a limit is none of a share."""
    half = critical_value(level, share.df) * sqrt(share.variance)
    if not 0 <= half < min(q, 1 - q):  # also where the variance is not known
        return None
    low, high = np.quantile(ordered, [q - half, q + half])
    return float(low), float(high)


def _mover(baseline: FloatArray, candidate: FloatArray, q: float, codes: IntArray | None, level: float) -> Interval | None:
    """Limits of the change of a quantile from those of the two, which depend on each other (Zou and Donner 2008)."""
    ends, shares, values = [], [], []
    for x in (baseline, candidate):
        values.append(float(np.quantile(x, q)))
        shares.append(_share(x, values[-1], codes))
        found = _woodruff(np.sort(x), q, shares[-1], level)
        if found is None:
            return None
        ends.append(found)
    first, second = shares
    both = first.inside - second.inside
    apart = sample_variance(both) / len(both) if codes is None else cr_variance(both, codes)
    scale = sqrt(first.variance * second.variance)
    r = 0.0 if scale == 0 else (first.variance + second.variance - apart) / (2 * scale)
    (low_b, high_b), (low_c, high_c) = ends
    b, c = values
    down, up = (c - low_c, high_b - b), (high_c - c, b - low_b)
    half = [sqrt(max(0.0, x * x + y * y - 2 * r * x * y)) for x, y in (down, up)]
    return c - b - half[0], c - b + half[1]


# -- what is said of one metric --------------------------------------------------------------------------------------------------


def latency_details(
    base: FloatArray, cand: FloatArray, codes: IntArray | None, level: float, rng: np.random.Generator
) -> dict[str, Detail]:
    """Everything about one metric of time, size or speed of the same prompts in two arms.

    Args:
        base: (n,) values, not below 0.
        cand: (n,) values of the same prompts.
        codes: (n,) cluster codes 0..G-1, or None.
        level: confidence level.
        rng: of the bootstrap.

    Returns:
        ``median_change`` and ``median_ratio`` of the pairs; ``p50_baseline``, ``p50_candidate``, ``p50_change`` and likewise p95 and p99; each
        change and ratio with ``..._ci`` ([low, high], None where there is none). Where too few items are the reason, ``p99_items_needed`` says
        how many it takes; then the quantile itself is None as well if fewer than one item lies beyond it: it would be the largest value.

    Raises:
        ValueError: if the arrays differ in length, are empty, or hold values below 0 or that are not finite.
    """
    n = len(base)
    if n == 0 or len(cand) != n:
        raise ValueError(f"two arms over the same items, at least one: got {n} and {len(cand)}")
    if not (np.isfinite(base).all() and np.isfinite(cand).all() and base.min() >= 0 and cand.min() >= 0):
        raise ValueError("times and sizes are finite and not below 0")
    d = cand - base
    out: dict[str, Detail] = {"median_change": float(np.median(d)), "median_change_ci": _listed(median_interval(d, codes, level=level))}
    if base.min() > 0:
        r = cand / base
        out |= {"median_ratio": float(np.median(r)), "median_ratio_ci": _listed(median_interval(r, codes, level=level))}
    else:
        out |= {"median_ratio": None, "median_ratio_ci": None}
    for one in quantile_changes(base, cand, codes, level=level, rng=rng):
        name = f"p{one.q * 100:.0f}"
        seen = one.q == 0.5 or n * (1 - one.q) >= 1 - 1e-9
        values = (one.baseline, one.candidate, one.change) if seen else (None, None, None)
        out |= dict(zip((f"{name}_baseline", f"{name}_candidate", f"{name}_change"), values, strict=True))
        out[f"{name}_change_ci"] = _listed(one.interval)
        if n < items_needed(one.q):
            out[f"{name}_items_needed"] = items_needed(one.q)
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
