"""Variance components of repeated trials (Miller 2024, arXiv:2411.00640): Var(d) = omega^2 + E s_A^2/K_A + E s_B^2/K_B."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aligntax.stats.clusters import FloatArray
from aligntax.stats.moments import mean, sample_variance


@dataclass(frozen=True)
class TrialVariance:
    """Attributes:
    baseline, candidate: mean within-item variance of one trial (for 0/1 scores mean(p(1-p) K/(K-1))).
    within: the part of Var(d) that sampling adds, E s_A^2/K_A + E s_B^2/K_B.
    between: what is left of Var(d); an unbiased estimate, so it can fall below 0.
    """

    baseline: float
    candidate: float
    within: float
    between: float


def trial_variance(
    d: FloatArray, var_baseline: FloatArray, k_baseline: FloatArray, var_candidate: FloatArray, k_candidate: FloatArray
) -> TrialVariance | None:
    """Split the variance of item differences into sampling noise and differences between items.

    Args:
        d: (n,) differences of item means.
        var_baseline: (n,) unbiased variances (ddof 1) over an item's trials.
        k_baseline: (n,) trials per item.
        var_candidate: the same of the candidate.
        k_candidate: the same of the candidate.

    Returns:
        None unless every item has a variance over at least two trials in both arms, and there are two items.
    """
    if len(d) < 2 or k_baseline.min() < 2 or k_candidate.min() < 2 or np.isnan(var_baseline).any() or np.isnan(var_candidate).any():
        return None
    within = mean(var_baseline / k_baseline) + mean(var_candidate / k_candidate)
    return TrialVariance(mean(var_baseline), mean(var_candidate), within, sample_variance(d) - within)
