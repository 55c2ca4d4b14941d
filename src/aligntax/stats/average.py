"""The mean of several tasks' changes, each task the same weight, with the tasks taken as fixed (strata)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from aligntax.stats.paired import PairedChange, ScoreTest, TTest, critical_value

_LEVEL = 0.95  # at which limits are turned into errors


def mean_over_tasks(parts: Sequence[PairedChange], scale: float | None = 1.0) -> PairedChange:
    """Combine the tasks' estimates into their unweighted mean.

    The variance is that of a stratified mean, ``sum V_t / T^2``, with Satterthwaite degrees of freedom
    ``V^2 / sum(V_t^2 / (T^4 df_t))`` (Satterthwaite 1946). For bounded scores it enters Tango's test as the design
    effect against the averaged rates of loss and gain.

    Args:
        parts: one estimate per task, all of the same metric.
        scale: largest possible |difference| of one item; None for unbounded scores.

    Returns:
        The estimate; its ``test`` is None if any part has none (``reason`` says which kind).

    Raises:
        ValueError: with fewer than two tasks.
    """
    count = len(parts)
    if count < 2:
        raise ValueError("an average needs at least two tasks")
    n = sum(part.n for part in parts)
    change = sum(part.change for part in parts) / count
    lost = sum(part.lost / part.n for part in parts) / count * n
    gained = sum(part.gained / part.n for part in parts) / count * n
    base = {
        "n": n,
        "change": change,
        "lost": lost,
        "gained": gained,
        "items_changed": sum(part.items_changed for part in parts),
        "sources": sum(part.sources or part.n for part in parts) if any(part.sources for part in parts) else None,
    }
    if any(part.test is None or part.se is None for part in parts):
        return PairedChange(**base, se=None, method="none", test=None, reason="a task without an interval")  # type: ignore[arg-type]
    variances = [v / count**2 for v in _variances(parts, scale)]
    variance = sum(variances)
    df = _satterthwaite(variances, [part.df for part in parts])
    clustered = any(part.clusters is not None for part in parts)
    if scale is None:
        method = "t-clustered" if clustered else "t"
        test = TTest(change, sqrt(variance), df if df is not None else float(n - count))
        return PairedChange(**base, se=sqrt(variance), method=method, test=test)  # type: ignore[arg-type]
    unit = change / scale
    reference = max(0.0, ((lost + gained) / scale / n - unit * unit) / (n - 1))
    if reference <= 1e-15 / n:
        # No item changed: the size at which Tango's limits, z^2/(n + z^2), are as wide as the tasks' own together.
        z = critical_value(_LEVEL, df)
        half = min(z * sqrt(variance) / scale, 0.999)
        deff = n / (z * z * (1 / half - 1))
    else:
        deff = variance / scale**2 / reference
    order = ("score-clustered", "score-trials", "score")
    return PairedChange(
        **base,  # type: ignore[arg-type]
        se=sqrt(variance),
        method=min((part.method for part in parts), key=order.index),
        test=ScoreTest(lost / scale / deff, gained / scale / deff, n / deff, df, scale),
        design_effect=deff,
    )


def _variances(parts: Sequence[PairedChange], scale: float | None) -> list[float]:
    """The tasks' variances, for bounded scores no smaller than what each task's own interval says.

    A small task without a flip has an estimated error of 0 and weighs as much as a large one; its score interval knows better.
    The same idea as recovering variances from limits (MOVER, Zou and Donner 2008, Stat Med 27:1693).
    """
    own = [(part.se or 0.0) ** 2 for part in parts]
    return own if scale is None else [max(v, _half_width(part) ** 2) for v, part in zip(own, parts, strict=True)]


def _half_width(part: PairedChange) -> float:
    """Half the task's interval over its critical value: an error that is never 0."""
    assert part.test is not None
    low, high = part.test.interval(_LEVEL)
    return (high - low) / 2 / critical_value(_LEVEL, part.df)


def _satterthwaite(variances: Sequence[float], dfs: Sequence[float | None]) -> float | None:
    known = [(v, df) for v, df in zip(variances, dfs, strict=True) if df is not None]
    if not known:
        return None
    below = sum(v * v / df for v, df in known)
    return sum(variances) ** 2 / below if below > 0 else min(df for _, df in known)
