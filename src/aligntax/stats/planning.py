"""How much more data a question needs, from the half-width of the interval (never from the raw error, which is 0 without flips)."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from scipy.special import ndtri, stdtrit

from aligntax.stats.paired import Inversion, critical_value
from aligntax.stats.tango import tango_variance

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


def items_needed(test: Inversion, n: int, room: float, confidence: float, power: float = POWER) -> float:
    """Items of the same mix that rule a loss out with ``power``, where the true change is better than that loss by ``room``.

    n (h (1 + power quantile/critical value)/room)^2 with h half the width of the present interval, as for ``minimum_detectable_change``.
    """
    critical = critical_value(confidence, test.df)
    low, high = test.interval(confidence)
    quantile = float(ndtri(power) if test.df is None else stdtrit(test.df, power))
    return n * ((high - low) / 2 * (1 + quantile / critical) / room) ** 2


def items_for(
    loss: float, changed: float, *, true_change: float = 0.0, confidence: float = 0.95, power: float = POWER, design_effect: float = 1.0
) -> float:
    """Items that rule out a loss of ``loss`` (right or wrong answers), before anything was measured.

    ``deff (z_confidence sqrt(V0) + z_power sqrt(V1))^2/(loss + true_change)^2`` for the score test: V1 = changed - true_change^2 is the variance of
    one difference, V0 the one that Tango's statistic takes at the loss (Nam 1997, Biometrics 53:1422). Where nothing changes that is
    ``z^2 (1 - loss)/loss``, the size below which Tango's interval reaches the loss.

    Args:
        loss: the loss to rule out, as a fraction.
        changed: expected share of items lost or gained.
        true_change: expected change; positive is better.
        confidence: of the two-sided interval.
        power: how often the loss is to be ruled out.
        design_effect: of clusters; 1 without.

    Raises:
        ValueError: if the expected change is itself that loss, or larger than the share of changed items.
    """
    if not 0 < loss < 1:
        raise ValueError(f"the loss must lie between 0 and 1, got {loss!r}")
    if loss + true_change <= 0:
        raise ValueError("the expected change is itself that loss: no number of items rules it out")
    if abs(true_change) > changed:
        raise ValueError("the expected change is larger than the share of items that change")
    z = critical_value(confidence, None)
    lost, gained = (changed - true_change) / 2, (changed + true_change) / 2
    at_loss = tango_variance(-loss, lost, gained, 1.0)
    errors = z * sqrt(at_loss) + float(ndtri(power)) * sqrt(changed - true_change**2)
    return design_effect * (errors / (loss + true_change)) ** 2


def sources_needed(icc: float | None, variance: float, shares_squared: float, count: int, margin: float, critical: float) -> float | None:
    """Sources that would decide the question, where more items from the present ones cannot; None where they can.

    With infinitely many items of the present sources the error tends to sqrt(ICC * variance * sum f^2).
    """
    if icc is None or icc <= 0:
        return None
    half = critical * sqrt(icc * variance * shares_squared)
    return count * (half / margin) ** 2 if half > margin else None
