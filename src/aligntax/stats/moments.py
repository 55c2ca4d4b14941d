"""Means, variances and correlations that do not depend on the order of rows.

Sums of whole numbers are exact in doubles, so 0/1 data need no sorting; anything else is summed in sorted order.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from aligntax.stats.clusters import FloatArray, IntArray


def is_whole(x: FloatArray) -> bool:
    """True if every value is a whole number small enough for exact sums of squares."""
    return bool(np.array_equal(x, np.rint(x))) and (len(x) == 0 or float(np.abs(x).max()) < 1e6)


def canonical_order(d: FloatArray, codes: IntArray | None) -> tuple[FloatArray, IntArray | None]:
    """``d`` and ``codes`` sorted by (cluster, d), unless the sums are exact as they stand."""
    if is_whole(d):
        return d, codes
    if codes is None:
        return np.sort(d), None
    order = np.lexsort((d, codes))
    return d[order], codes[order]


def mean(x: FloatArray) -> float:
    """Mean of at least one value, the same to the last bit whatever the order."""
    return float(x.mean() if is_whole(x) else np.sort(x).mean())


def sample_variance(x: FloatArray) -> float:
    """Unbiased variance (ddof 1) of at least two values."""
    n = len(x)
    if x.min() == x.max():
        return 0.0  # exactly, where subtracting a rounded mean would leave noise
    if not is_whole(x):
        return float(np.sort(x).var(ddof=1))
    total = float(x.sum())
    return max(0.0, float(np.sum(x * x)) - total * total / n) / (n - 1)


def correlation(x: FloatArray, y: FloatArray) -> float | None:
    """Pearson correlation; None if either side does not vary (or there are fewer than two values)."""
    n = len(x)
    if n < 2:
        return None
    if not (is_whole(x) and is_whole(y)):
        order = np.lexsort((y, x))
        x, y = x[order], y[order]
        x, y = x - x.mean(), y - y.mean()
    sx, sy = float(x.sum()), float(y.sum())
    xx, yy = float(np.sum(x * x)) - sx * sx / n, float(np.sum(y * y)) - sy * sy / n
    if xx <= 1e-14 * n or yy <= 1e-14 * n:
        return None
    return (float(np.sum(x * y)) - sx * sy / n) / sqrt(xx * yy)
