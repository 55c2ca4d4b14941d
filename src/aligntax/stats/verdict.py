"""The verdict on one change, and the order in which its questions are asked (docs/methods.md, "verdict")."""

from __future__ import annotations

from typing import Literal

Verdict = Literal["tax", "gain", "no_tax", "undetermined"]

MIN_DF = 4.0


def verdict(change: float, q_value: float | None, q_noninferiority: float | None, *, df: float | None, level: float) -> Verdict:
    """Tax, gain, no tax or undetermined, in the benefit direction.

    Args:
        change: positive is better.
        q_value: two-sided p of no change (Holm-adjusted inside a family); None if it cannot be tested.
        q_noninferiority: p of "a loss of the margin or more" (likewise); None without a margin.
        df: Bell-McCaffrey degrees of freedom where clusters are known, else None. Below 4 there is no verdict.
        level: confidence level; alpha = 1 - level. Tax, gain and no_tax each err at most alpha/2 of the time.
    """
    alpha = 1.0 - level
    if q_value is None or (df is not None and df < MIN_DF):
        return "undetermined"
    if change > 0 and q_value < alpha:
        return "gain"
    if q_noninferiority is not None and q_noninferiority < alpha / 2:
        return "no_tax"
    if change < 0 and q_value < alpha:
        return "tax"
    return "undetermined"
