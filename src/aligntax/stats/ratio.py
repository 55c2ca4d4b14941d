"""The ratio of two paired means: what share of the baseline's value is retained.

Fieller 1954 (J. R. Stat. Soc. B 16:175): the ratios r at which the mean of c - r b does not differ from 0. With clusters the variances and
the covariance are cluster-robust (CR2) and the degrees of freedom Bell and McCaffrey's; without, those of independent items.
"""

from __future__ import annotations

from math import sqrt

from aligntax.stats.clusters import FloatArray, IntArray, cluster_facts
from aligntax.stats.moments import sample_variance
from aligntax.stats.paired import critical_value


def ratio_interval(
    candidate: FloatArray, baseline: FloatArray, codes: IntArray | None, *, level: float, floor: float = 0.0
) -> tuple[float, tuple[float, float] | None]:
    """(candidate - floor)/(baseline - floor) of the means, and its Fieller interval.

    Args:
        candidate: (n,) values.
        baseline: (n,) values of the same items.
        codes: (n,) cluster codes 0..G-1, or None.
        level: confidence level.
        floor: what is taken off both (the score of guessing).

    Returns:
        The ratio, and (low, high); None where the baseline does not differ from the floor for sure (the ratios that are not rejected have no
        end), or there is no error to learn from (one item, one source).

    Raises:
        ValueError: if the baseline's mean is the floor: there is nothing to retain.
    """
    b, c = float(baseline.mean()) - floor, float(candidate.mean()) - floor
    if abs(b) < 1e-12:
        raise ValueError("the baseline's mean is the floor: there is nothing to retain")
    found = _variances(candidate, baseline, codes)
    if found is None:
        return c / b, None
    vcc, vbb, vdd, df = found
    vcb = (vcc + vbb - vdd) / 2
    t2 = critical_value(level, df) ** 2
    # (c - r b)^2 <= t^2 (vcc - 2 r vcb + r^2 vbb)
    quadratic, linear, constant = b * b - t2 * vbb, b * c - t2 * vcb, c * c - t2 * vcc
    if quadratic <= 0:
        return c / b, None
    half = sqrt(max(linear * linear - quadratic * constant, 0.0))
    return c / b, ((linear - half) / quadratic, (linear + half) / quadratic)


def _variances(candidate: FloatArray, baseline: FloatArray, codes: IntArray | None) -> tuple[float, float, float, float] | None:
    """Variances of the means of c, b and c - b, and degrees of freedom."""
    n = len(candidate)
    parts = (candidate, baseline, candidate - baseline)
    if codes is not None and int(codes.max()) + 1 < n:
        if int(codes.max()) == 0:
            return None
        facts = [cluster_facts(x, codes) for x in parts]
        return facts[0].variance_cr2, facts[1].variance_cr2, facts[2].variance_cr2, facts[0].df
    if n < 2:
        return None
    variances = [sample_variance(x) / n for x in parts]
    return variances[0], variances[1], variances[2], float(n - 1)
