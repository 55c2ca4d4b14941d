"""Whether a model is as often right as it is sure: calibration of the probability that an answer is right.

``confidence`` (n,) are such probabilities, ``right`` (n,) whether the answers were (0 or 1). Bins hold equally many items (equal mass), in the order
of confidence. Binned errors are biased upward: without any miscalibration a bin of m answers still misses its confidence by chance. The
debiased squared error takes that away (Kumar, Liang and Ma 2019, arXiv:1909.10155, section 4.2); here as a U-statistic per bin, the mean of
r_i r_j over all pairs of different items with r = confidence - right, which is unbiased whatever the confidences within a bin are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aligntax.stats.clusters import FloatArray, IntArray

MOST_BINS = 15
PER_BIN = 30
"""Answers that a bin should hold: with fewer the debiased error is still unbiased, but says little."""


def bins_for(n: int) -> int:
    """How many bins so many answers fill."""
    return max(1, min(MOST_BINS, n // PER_BIN))


def equal_mass(confidence: FloatArray, bins: int) -> IntArray:
    """(n,) number of every answer's bin: as many answers in each as possible, equal confidences in the order given."""
    out = np.empty(len(confidence), dtype=np.int64)
    out[np.argsort(confidence, kind="stable")] = np.arange(len(confidence)) * bins // len(confidence)
    return out


@dataclass(frozen=True)
class Diagram:
    """A reliability diagram, (B,) each: answers, mean confidence and share right of every bin that holds any."""

    count: FloatArray
    confidence: FloatArray
    right: FloatArray

    @property
    def ece(self) -> float:
        """Expected calibration error: mean |confidence - right| of the bins, weighted by their answers (Naeini et al. 2015; not debiased)."""
        return float(np.sum(self.count * np.abs(self.confidence - self.right)) / self.count.sum())


def diagram(confidence: FloatArray, right: FloatArray, bin_of: IntArray) -> Diagram:
    """Means per bin."""
    count = np.bincount(bin_of).astype(np.float64)
    some = count > 0
    sums = [np.bincount(bin_of, weights=x)[some] for x in (confidence, right)]
    return Diagram(count[some], sums[0] / count[some], sums[1] / count[some])


@dataclass(frozen=True)
class Decomposition:
    """The Brier score as reliability - resolution + uncertainty + within (Murphy 1973; ``within`` is the two terms of Stephenson, Coelho and Jolliffe
    2008 that binning leaves, so that the sum is exact).
    """

    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float


def decomposition(confidence: FloatArray, right: FloatArray, bin_of: IntArray) -> Decomposition:
    """Decompose the Brier score of (n,) answers over bins."""
    d = diagram(confidence, right, bin_of)
    weight, base = d.count / d.count.sum(), float(right.mean())
    reliability = float(np.sum(weight * (d.confidence - d.right) ** 2))
    resolution = float(np.sum(weight * (d.right - base) ** 2))
    uncertainty = base * (1 - base)
    brier = float(np.mean((confidence - right) ** 2))
    return Decomposition(brier, reliability, resolution, uncertainty, brier - (reliability - resolution + uncertainty))


def squared_error(confidence: FloatArray, right: FloatArray, bin_of: IntArray) -> FloatArray:
    """(n,) values whose mean is the debiased squared calibration error, and whose spread is that of its estimate.

    Per bin the mean of r_i r_j over pairs of different items; the values are its jackknife pseudo-values (leave one answer out of its bin), so that
    a paired change of two models is a mean of differences. May be negative by chance. Conservative where both models are calibrated
    perfectly (there the statistic is degenerate, and the jackknife takes its variance for twice what it is); of fewer than 60 answers an interval of
    a change covers 92 to 94 %.

    Raises:
        ValueError: if a bin holds fewer than three answers: leaving one out leaves no pair.
    """
    r = confidence - right
    count = np.bincount(bin_of).astype(np.float64)
    if (count[count > 0] < 3).any():
        raise ValueError("a bin needs at least three answers")
    sums, squares = np.bincount(bin_of, weights=r), np.bincount(bin_of, weights=r * r)
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = (sums**2 - squares) / (count * (count - 1))
    m = count[bin_of]
    without = ((sums[bin_of] - r) ** 2 - (squares[bin_of] - r * r)) / ((m - 1) * (m - 2))
    out: FloatArray = whole[bin_of] + (m - 1) * (whole[bin_of] - without)
    return out
