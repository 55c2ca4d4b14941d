"""Tango's score statistic for a paired difference of two proportions, and its inversion.

Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the
paired-sample design", Statistics in Medicine 17 (1998) 891-908. Counts need not be whole: dividing ``lost``,
``gained`` and ``n`` by one design effect carries the interval over to clusters, trials and graded scores
(effective-sample intervals, Korn and Graubard 1998).
"""

from __future__ import annotations

from math import copysign, inf, sqrt

# 2**-60 of the bracket: below the spacing of doubles near 1, so the limits are exact to rounding.
_HALVINGS = 64


def tango_variance(delta: float, lost: float, gained: float, n: float) -> float:
    """Variance of one item's difference at the likeliest rate of losses when the mean change is ``delta``; arguments as of ``tango_statistic``."""
    a = 2.0 * n
    b = -(gained + lost) + (2.0 * n - gained + lost) * delta
    c = -lost * delta * (1.0 - delta)
    q = (sqrt(max(b * b - 4.0 * a * c, 0.0)) - b) / (2.0 * a)
    return 2.0 * q + delta * (1.0 - delta)


def tango_statistic(delta: float, lost: float, gained: float, n: float) -> float:
    """Score statistic T(delta) of the hypothesis "the mean change is delta".

    Args:
        delta: hypothesised change (candidate minus baseline), in [-1, 1].
        lost: items right before and wrong after (effective count; may be fractional).
        gained: the reverse.
        n: items (effective count).

    Returns:
        T, asymptotically standard normal; it decreases in ``delta`` and is ``+-inf`` where the variance under
        the hypothesis vanishes. ``T(0)**2`` is McNemar's chi-square without continuity correction.
    """
    numerator = gained - lost - n * delta
    if abs(numerator) < 1e-14 * n:
        return 0.0
    variance = n * tango_variance(delta, lost, gained, n)
    return numerator / sqrt(variance) if variance > 0 else copysign(inf, numerator)


def tango_interval(lost: float, gained: float, n: float, critical: float) -> tuple[float, float]:
    """All changes that the score test does not reject: ``{delta : |T(delta)| <= critical}``.

    Returns:
        (low, high) within [-1, 1]; low <= (gained - lost)/n <= high always holds.

    Raises:
        ValueError: if ``n`` is not positive or ``critical`` is not a positive number.
    """
    if not n > 0 or not critical > 0:
        raise ValueError(f"n and critical must be positive, got n={n!r}, critical={critical!r}")
    change = min(max((gained - lost) / n, -1.0), 1.0)
    low = _crossing(-1.0, change, lost, gained, n, critical)
    high = _crossing(change, 1.0, lost, gained, n, -critical)
    return low, high


def _crossing(left: float, right: float, lost: float, gained: float, n: float, level: float) -> float:
    """Where T falls through ``level`` between ``left`` (T above) and ``right`` (T below); an end if it does not."""
    if tango_statistic(left, lost, gained, n) <= level:
        return left
    if tango_statistic(right, lost, gained, n) >= level:
        return right
    for _ in range(_HALVINGS):
        middle = 0.5 * (left + right)
        if tango_statistic(middle, lost, gained, n) > level:
            left = middle
        else:
            right = middle
    return 0.5 * (left + right)
