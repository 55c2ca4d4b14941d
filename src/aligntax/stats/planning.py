"""How much more data a question needs, from the half-width of the interval (never from the raw error, which is 0 without flips)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from scipy.special import ndtri, stdtrit

POWER = 0.8


@dataclass(frozen=True)
class Planning:
    """Attributes (items are floats: rounded up only when shown):
    half_width: half of the interval's width.
    minimum_detectable_change: the true change that would be found with 80 % power at this size.
    n_no_tax: items that would rule a loss of the margin out if the true change is 0; None without a margin.
    n_no_tax_observed: the same if the true change is the observed one; None where that loss is the margin or more.
    n_detect: items that would establish the observed change; None if it is 0.
    """

    half_width: float
    minimum_detectable_change: float
    n_no_tax: float | None
    n_no_tax_observed: float | None
    n_detect: float | None


def plan(low: float, high: float, n: int, change: float, margin: float | None, critical: float, df: float | None) -> Planning:
    """Planning numbers in the benefit direction (``change`` > 0 is better; ``margin`` > 0)."""
    half = (high - low) / 2
    power_quantile = float(ndtri(POWER) if df is None else stdtrit(df, POWER))
    detectable = half * (1 + power_quantile / critical)
    return Planning(
        half_width=half,
        minimum_detectable_change=detectable,
        n_no_tax=None if margin is None else n * (detectable / margin) ** 2,
        n_no_tax_observed=None if margin is None or change <= -margin else n * (detectable / (margin + change)) ** 2,
        n_detect=None if abs(change) <= 1e-12 * half else n * (detectable / abs(change)) ** 2,
    )


def sources_needed(icc: float | None, variance: float, shares_squared: float, count: int, margin: float, critical: float) -> float | None:
    """Sources that would decide the question, where more items from the present ones cannot; None where they can.

    With infinitely many items of the present sources the error tends to sqrt(ICC * variance * sum f^2).
    """
    if icc is None or icc <= 0:
        return None
    half = critical * sqrt(icc * variance * shares_squared)
    return count * (half / margin) ** 2 if half > margin else None
