"""The mean over two crossed factors that were both sampled: families of models and pairs of sentences, judges and items.

``d`` (F, P) has a difference per family and pair, NaN where there is none. The estimate is the mean over families of each family's mean over pairs. A family
moves all of its pairs, and a pair moves all families, so the variance of that mean is the one by families plus the one by pairs less the one by cells, which
both count (Cameron, Gelbach and Miller 2011, J. Bus. Econ. Stat. 29:238; each with its small-sample factor G/(G - 1)). It is never taken as smaller than
either of the two alone. Its t has one degree of freedom less than the smaller factor has levels: Satterthwaite's number, which lies between the two, covers
.87 to .92 with two or three families that differ; this one covers .95 or more, and is wide where only pairs differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class CrossedMean:
    """A mean over two crossed factors.

    Attributes:
        mean: in the unit of the differences. low, high: limits at ``level``. p: two-sided, that it is 0.
        se: standard error. df: degrees of freedom of its t.
        rows, columns: how many of either have a difference.
        level: confidence.
    """

    mean: float
    low: float
    high: float
    p: float
    se: float
    df: float
    rows: int
    columns: int
    level: float


def crossed_mean(d: npt.ArrayLike, level: float = 0.95) -> CrossedMean:
    """The mean with its interval over other rows and other columns.

    Args:
        d: (F, P) differences, NaN where there is none.
        level: confidence.

    Raises:
        ValueError: if fewer than two rows or columns have a difference, or the level is no share.
    """
    x = np.asarray(d, dtype=np.float64)
    if x.ndim != 2 or not 0 < level < 1:
        raise ValueError(f"differences are rows by columns and the level lies between 0 and 1; got the shape {x.shape} and {level:g}")
    known = np.isfinite(x)
    x, known = x[known.any(axis=1)][:, known.any(axis=0)], known[known.any(axis=1)][:, known.any(axis=0)]
    rows, columns = x.shape
    if rows < 2 or columns < 2:
        raise ValueError(f"an interval over both takes two rows and two columns with differences; there are {rows} and {columns}")
    weight = known / known.sum(axis=1, keepdims=True) / rows
    mean = float(np.sum(weight * np.where(known, x, 0.0)))
    pull = weight * np.where(known, x - mean, 0.0)
    cells = int(known.sum())
    by_row, by_column, by_cell = (
        float(np.sum(of**2)) * n / (n - 1) for of, n in ((pull.sum(axis=1), rows), (pull.sum(axis=0), columns), (pull, cells))
    )
    variance = max(by_row + by_column - by_cell, by_row, by_column)
    if variance == 0.0:
        return CrossedMean(mean, mean, mean, 1.0 if mean == 0 else 0.0, 0.0, float(rows - 1), rows, columns, level)
    df, se = float(min(rows, columns) - 1), sqrt(variance)
    half = float(stdtrit(df, (1 + level) / 2)) * se
    return CrossedMean(mean, mean - half, mean + half, float(2 * stdtr(df, -abs(mean) / se)), se, df, rows, columns, level)
