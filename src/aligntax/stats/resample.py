"""Resampling by cluster (or by item): bootstrap limits, sign flips, the restricted wild cluster bootstrap.

Never the default of the ledger; offered as cross-checks. ``d`` (n,), ``codes`` (n,) cluster codes; without clusters
pass ``np.arange(n)``. Cameron, Gelbach and Miller 2008 (REStat 90:414); Webb 2014; Efron 1987 (BCa).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from math import floor, inf, sqrt

import numpy as np
from scipy.special import ndtr, ndtri

from aligntax.stats.clusters import FloatArray, IntArray, cluster_sums

_CHUNK_CELLS = 4_000_000  # resample in blocks of about 32 MB
MAX_ENUMERATED_CLUSTERS = 12
_WEBB = np.array([-sqrt(1.5), -1.0, -sqrt(0.5), sqrt(0.5), 1.0, sqrt(1.5)])


def bootstrap_means(d: FloatArray, codes: IntArray | None, resamples: int, rng: np.random.Generator) -> FloatArray:
    """(resamples,) means of resampled clusters (items when ``codes`` is None), drawn with replacement.

    Items that share a difference are drawn together as one multinomial cell, which is the same distribution.
    """
    sizes: FloatArray
    totals, sizes, weights, draws = _cells(d, codes)
    out = np.empty(resamples)
    block = max(1, _CHUNK_CELLS // len(totals))
    for start in range(0, resamples, block):
        picks = rng.multinomial(draws, weights, size=min(block, resamples - start))
        out[start : start + len(picks)] = (picks @ totals) / (picks @ sizes)
    return out


def _cells(d: FloatArray, codes: IntArray | None) -> tuple[FloatArray, FloatArray, FloatArray, int]:
    """What is drawn: (total, size, probability) per cell, and how many draws make a resample."""
    if codes is None:
        values, counts = np.unique(d, return_counts=True)
        return values, np.ones(len(values)), counts / len(d), len(d)
    sizes = np.bincount(codes)
    totals = np.bincount(codes, weights=d, minlength=len(sizes)).astype(np.float64)
    return totals, sizes.astype(np.float64), np.full(len(sizes), 1.0 / len(sizes)), len(sizes)


def percentile_interval(means: FloatArray, level: float) -> tuple[float, float]:
    """Percentile limits: the smallest value whose cumulative share reaches alpha/2, and 1 - alpha/2."""
    alpha = 1.0 - level
    low, high = np.quantile(means, [alpha / 2, 1 - alpha / 2], method="inverted_cdf")
    return float(low), float(high)


@dataclass(frozen=True)
class BcaInterval:
    """Bias-corrected accelerated limits, with what they were computed from."""

    low: float
    high: float
    bias: float
    acceleration: float
    levels: tuple[float, float]


def jackknife_acceleration(d: FloatArray, codes: IntArray) -> float:
    """Efron's acceleration from leave-one-cluster-out means: sum u^3 / (6 (sum u^2)^1.5), u = mean - mean_(g)."""
    sizes = np.bincount(codes).astype(np.float64)
    totals = np.bincount(codes, weights=d, minlength=len(sizes))
    left_out = (d.sum() - totals) / (len(d) - sizes)
    u = left_out.mean() - left_out
    scale = float(np.sum(u**2))
    return 0.0 if scale == 0 else float(np.sum(u**3)) / (6.0 * scale**1.5)


def bca_interval(means: FloatArray, estimate: float, acceleration: float, level: float) -> BcaInterval:
    """BCa limits of bootstrap ``means`` (ties with the estimate count half towards the bias correction)."""
    tolerance = 1e-12 * max(1.0, abs(estimate))
    below = float(np.mean(means < estimate - tolerance))
    ties = float(np.mean(np.abs(means - estimate) <= tolerance))
    bias = float(ndtri(below + ties / 2))
    alpha = 1.0 - level
    shifted = [bias + float(ndtri(q)) for q in (alpha / 2, 1 - alpha / 2)]
    levels = tuple(float(ndtr(bias + s / (1.0 - acceleration * s))) for s in shifted)
    low, high = np.quantile(means, levels, method="inverted_cdf")
    return BcaInterval(float(low), float(high), bias, acceleration, (levels[0], levels[1]))


def bootstrap_t_interval(
    d: FloatArray, codes: IntArray, level: float, resamples: int, rng: np.random.Generator
) -> tuple[float, float] | None:
    """Studentised bootstrap by cluster with the CR1 error; None where a resample has no variance.

    Better than t for skewed scores with n >= 100; it explodes at small n with many zeros.
    """
    sizes, sums = cluster_sums(d, codes)
    totals = sums + sizes * d.mean()
    count, n = len(sizes), len(d)
    change = float(d.mean())
    se = sqrt(float(np.sum(sums**2)) * count / (count - 1)) / n
    ratios = []
    block = max(1, _CHUNK_CELLS // count)
    for start in range(0, resamples, block):
        picks = rng.multinomial(count, np.full(count, 1.0 / count), size=min(block, resamples - start))
        m = picks @ sizes
        mean = (picks @ totals) / m
        spread = np.sum(picks * (totals - sizes * mean[:, None]) ** 2, axis=1) * count / (count - 1) / m**2
        if np.any(spread <= 0):
            return None
        ratios.append((mean - change) / np.sqrt(spread))
    alpha = 1.0 - level
    low_t, high_t = np.quantile(np.concatenate(ratios), [alpha / 2, 1 - alpha / 2])
    return change - float(high_t) * se, change - float(low_t) * se


@dataclass(frozen=True)
class SignFlip:
    """The sign-flip test of clusters, exact by enumeration: p of no change, limits, and the number of splits."""

    p: float
    low: float
    high: float
    splits: int


def sign_flip(d: FloatArray, codes: IntArray, level: float = 0.95, delta: float = 0.0) -> SignFlip:
    """p(delta) = the share of the 2^(G-1) splits of clusters into A and B with delta between mean(A) and mean(B).

    Needs no distribution but symmetry. The empty split counts, so the smallest p is 2^-(G-1): with five clusters or
    fewer 5 % cannot be reached, and the limits are infinite.

    Raises:
        ValueError: with more than 20 clusters (enumeration would not fit).
    """
    sizes = np.bincount(codes).astype(np.float64)
    totals = np.bincount(codes, weights=d, minlength=len(sizes))
    count = len(sizes)
    if count > 20:
        raise ValueError(f"{count} clusters: the sign-flip test enumerates splits of at most 20")
    splits = 1 << (count - 1)
    # The last cluster always stays in B; bit g of the split's number puts cluster g in A. Split 0 is the empty one.
    member = (np.arange(1, splits)[:, None] >> np.arange(count - 1)) & 1
    n_a, sum_a = member @ sizes[:-1], member @ totals[:-1]
    mean_a, mean_b = sum_a / n_a, (totals.sum() - sum_a) / (sizes.sum() - n_a)
    low, high = np.sort(np.minimum(mean_a, mean_b)), np.sort(np.maximum(mean_a, mean_b))
    slack = 1e-12 * max(1.0, abs(delta))
    inside = np.count_nonzero((np.minimum(mean_a, mean_b) <= delta + slack) & (np.maximum(mean_a, mean_b) >= delta - slack))
    needed = floor((1.0 - level) * splits * (1 + 1e-12))
    limits = (-inf, inf) if needed < 1 else (float(low[needed - 1]), float(high[-needed]))
    return SignFlip((1 + int(inside)) / splits, *limits, splits)


def wild_cluster_p(
    d: FloatArray, codes: IntArray, delta: float = 0.0, *, rng: np.random.Generator | None = None, draws: int = 9999
) -> float:
    """Restricted wild cluster bootstrap of "the mean is delta", CR1 t statistic.

    Rademacher weights, enumerated, up to 12 clusters; above that ``draws`` of Webb's six-point weights from ``rng``.

    Raises:
        ValueError: with more than 12 clusters and no generator.
    """
    sizes = np.bincount(codes).astype(np.float64)
    u = np.bincount(codes, weights=d - delta, minlength=len(sizes))
    count, n = len(sizes), len(d)
    if count <= MAX_ENUMERATED_CLUSTERS:
        weights = np.array(list(product((-1.0, 1.0), repeat=count)))
    elif rng is None:
        raise ValueError(f"{count} clusters: weights are drawn, so a generator is needed")
    else:
        weights = rng.choice(_WEBB, size=(draws, count))

    def t_values(w: FloatArray) -> FloatArray:
        flipped = w * u
        mean = flipped.sum(axis=1) / n
        spread = np.sum((flipped - sizes * mean[:, None]) ** 2, axis=1) * count / (count - 1) / n**2
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.abs(np.where(spread > 0, mean / np.sqrt(spread), np.where(mean == 0, 0.0, inf)))

    observed = t_values(np.ones((1, count)))[0]
    return float(np.mean(t_values(weights) >= observed * (1 - 1e-12)))
