"""The mean of several tasks' changes, each task the same weight, with the tasks taken as fixed (strata)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt

from aligntax.stats.paired import PairedChange, ScoreTest, TTest

FEW_FLIPS = 10


def mean_over_tasks(parts: Sequence[PairedChange], scale: float | None = 1.0) -> PairedChange:
    """Combine the tasks' estimates into their unweighted mean.

    The variance is that of a stratified mean, ``sum V_t / T^2``, with Satterthwaite degrees of freedom
    ``V^2 / sum(V_t^2 / (T^4 df_t))`` (Satterthwaite 1946). For bounded scores it enters Tango's test as the design
    effect against the averaged rates of loss and gain; where no item changed the design effect is that of unequal
    weights alone, ``N sum(1/n_t) / T^2`` (Kish 1965).

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
    }
    if any(part.test is None or part.se is None for part in parts):
        return PairedChange(**base, se=None, method="none", test=None, reason="a task without an interval")  # type: ignore[arg-type]
    variances = [v / count**2 for v in _variances(parts, lost / n, gained / n, scale)]
    variance = sum(variances)
    df = _satterthwaite(variances, [part.df for part in parts])
    clustered = any(part.clusters is not None for part in parts)
    if scale is None:
        method = "t-clustered" if clustered else "t"
        test = TTest(change, sqrt(variance), df if df is not None else float(n - count))
        return PairedChange(**base, se=sqrt(variance), method=method, test=test)  # type: ignore[arg-type]
    unit = change / scale
    reference = max(0.0, ((lost + gained) / scale / n - unit * unit) / (n - 1))
    if reference <= 1e-15 / n or variance <= 0:
        deff = n * sum(1.0 / part.n for part in parts) / count**2
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


def _variances(parts: Sequence[PairedChange], lost: float, gained: float, scale: float | None) -> list[float]:
    """The tasks' variances; a bounded task with few flips is taken to be no steadier than the average task.

    Its own estimate would often be 0 by chance, and a small task weighs as much as a large one.
    """
    own = [(part.se or 0.0) ** 2 for part in parts]
    if scale is None:
        return own
    per_item = scale * (lost + gained) - (gained - lost) ** 2
    return [max(v, per_item / (part.n - 1)) if part.items_changed < FEW_FLIPS else v for v, part in zip(own, parts, strict=True)]


def _satterthwaite(variances: Sequence[float], dfs: Sequence[float | None]) -> float | None:
    known = [(v, df) for v, df in zip(variances, dfs, strict=True) if df is not None]
    if not known:
        return None
    below = sum(v * v / df for v, df in known)
    return sum(variances) ** 2 / below if below > 0 else min(df for _, df in known)
