"""Predictors held against what tasks lost: do overlaps that were measured before training say which tasks will drop?

The unit is the task; items within a task only set the error of its drop. Predictors are signed overlaps, their absolute values, their squares, and
baselines such as a gradient's norm or a task's difficulty: the linear and the quadratic theory differ in which of them should do best. Larger values must
mean a larger expected drop: give signed overlaps with the sign turned.

* **Rank correlations**, Spearman's rho and Kendall's tau-b, with permutation p over tasks, two-sided: all n! orders up to eight tasks, else so many
  are drawn and p is (1 + b)/(1 + B). Holm's method over predictors.
* **AUC** for tasks that dropped by more than a margin: the share of pairs (one that did, one that did not) that the predictor orders rightly.
* **Calibration**: the line of drops on the predictor, and the same predicted for every task by a line fitted without it. ``q2`` is the share of the
  variance explained so, against means that leave the task out too; it is below 0 for a predictor that is worse than the mean. Slope and intercept of
  drops on those predictions should be 1 and 0. With a constant predictor they would be perfectly *anti*correlated: read them with ``q2``.
* **Two predictors**: the difference of rho. Under the null that both are equally good ranks of one task can be swapped between them: a test over
  all 2^n swaps up to twelve tasks, else drawn; limits by the jackknife over tasks. It is a test of exchangeability, which two predictors of the same
  correlation but different dependence on the drops need not have; limits and p can disagree then, and the limits are about rho.
* **Errors of the drops** bound every correlation: with reliability r = 1 - mean(se^2)/variance of the drops no predictor is expected beyond
  sqrt(r). That ceiling is told; correlations are not divided by it.

Fewer than eight tasks decide nothing: results are then "not identified".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from math import factorial, sqrt

import numpy as np
import numpy.typing as npt

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import critical_value

MIN_TASKS = 8
MAX_EXACT_TASKS = 8
"""Up to as many tasks all orders are gone through."""
MAX_EXACT_SWAPS = 12
"""Up to as many tasks all swaps are gone through."""

_TIE = 1e-12
_CHUNK_CELLS = 2_000_000


@dataclass(frozen=True)
class Calibration:
    """A predictor's line.

    Attributes:
        slope, intercept: of drops on the predictor, all tasks.
        slope_low, slope_high: t limits of the slope.
        q2: leave-one-out share of variance explained.
        loo_slope, loo_intercept: of drops on leave-one-out predictions; None where these do not vary.
    """

    slope: float
    intercept: float
    slope_low: float
    slope_high: float
    q2: float
    loo_slope: float | None
    loo_intercept: float | None


@dataclass(frozen=True)
class Held:
    """One predictor held against drops.

    Attributes:
        spearman, kendall: rank correlations.
        spearman_p, kendall_p: two-sided permutation p.
        adjusted_p: ``spearman_p`` by Holm's method over the predictors.
        low, high: jackknife t limits of Spearman's rho.
        auc: for tasks beyond the margin; None without a margin, or where all or none are beyond it.
        calibration: the line.
    """

    spearman: float
    kendall: float
    spearman_p: float
    kendall_p: float
    adjusted_p: float
    low: float
    high: float
    auc: float | None
    calibration: Calibration


@dataclass(frozen=True)
class Holding:
    """All predictors.

    Attributes:
        held: by predictor; empty where not identified.
        tasks: how many.
        exact: whether all orders were gone through.
        orders: permutations compared.
        beyond: tasks that dropped by more than the margin; None without one.
        reliability: 1 - mean(se^2)/variance of the drops; None without errors.
        ceiling: its root, what a perfect predictor's correlation is expected to reach; 0 where errors are as large as the differences.
        reason: why nothing is identified; None where it is.
        level: confidence.
    """

    held: dict[str, Held]
    tasks: int
    exact: bool
    orders: int
    beyond: int | None
    reliability: float | None
    ceiling: float | None
    reason: str | None
    level: float


@dataclass(frozen=True)
class Difference:
    """Spearman's rho of one predictor less that of another.

    Attributes:
        difference: of the correlations.
        p: two-sided, by swaps.
        low, high: jackknife t limits.
        exact, swaps: as ``Holding.exact`` and ``Holding.orders``.
        level: confidence.
    """

    difference: float
    p: float
    low: float
    high: float
    exact: bool
    swaps: int
    level: float


def hold_predictors(
    drops: npt.ArrayLike,
    predictors: Mapping[str, npt.ArrayLike],
    rng: np.random.Generator,
    *,
    se: npt.ArrayLike | None = None,
    margin: float | None = None,
    draws: int = 9999,
    level: float = 0.95,
) -> Holding:
    """Hold predictors against measured drops.

    Args:
        drops: (n,) per task, above 0 where it got worse, in the unit of the margin.
        predictors: by name, (n,) values known before the drops; larger means a larger expected drop.
        rng: draws orders where there are more than eight tasks.
        se: (n,) standard errors of the drops.
        margin: a drop beyond it counts as damage; None leaves AUC out.
        draws: orders drawn.
        level: confidence.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, drops or a predictor that are the same for all tasks, or errors below 0.
    """
    y = _values(drops, "drops", None)
    table = {name: _values(x, f"the predictor {name!r}", len(y)) for name, x in predictors.items()}
    if not table or not 0 < level < 1 or draws < 1:
        raise ValueError(
            f"at least one predictor, one draw and a level between 0 and 1 are needed; found {len(table)}, {draws} and {level:g}"
        )
    reliability = None if se is None else _reliability(y, _values(se, "standard errors", len(y), varies=False))
    ceiling = None if reliability is None else sqrt(max(reliability, 0.0))
    beyond = None if margin is None else int(np.sum(y > margin))
    n, exact = len(y), len(y) <= MAX_EXACT_TASKS
    if n < MIN_TASKS:
        return Holding(
            {}, n, exact, 0, beyond, reliability, ceiling, f"not identified: {n} tasks, and it takes at least {MIN_TASKS}", level
        )
    orders = _orders(n, draws, rng)
    found = {name: _rank_tests(x, y, orders, exact) for name, x in table.items()}
    adjusted = holm([f[2] for f in found.values()])
    held = {
        name: Held(*found[name], p, *_jackknife_limits(x[None], y, level), _auc(x, y, margin), _calibration(x, y, level))
        for (name, x), p in zip(table.items(), adjusted, strict=True)
    }
    return Holding(held, n, exact, len(orders), beyond, reliability, ceiling, None, level)


@dataclass(frozen=True)
class Together:
    """One predictor held against the drops of several outcomes of the same tasks.

    Attributes:
        spearman: mean of the rank correlations.
        p: two-sided, by permuting tasks in all outcomes alike.
        adjusted_p: by Holm's method over the predictors.
        auc: mean for drops beyond the margin, of the outcomes in which some are and some are not; None without any.
    """

    spearman: float
    p: float
    adjusted_p: float
    auc: float | None


def hold_together(
    drops: npt.ArrayLike,
    predictors: Mapping[str, npt.ArrayLike],
    rng: np.random.Generator,
    *,
    margin: float | None = None,
    draws: int = 9999,
) -> dict[str, Together]:
    """Hold predictors against several outcomes of the same tasks: outcomes share tasks, so a permutation moves a task in all of them alike.

    Args:
        drops: (a, n) per outcome and task, above 0 where it got worse.
        predictors: by name, (n,) one for all outcomes, or (a, n) one of each.
        rng: draws permutations.
        margin: a drop beyond it counts as damage; None leaves AUC out.
        draws: permutations.

    Returns:
        By predictor; empty with fewer than eight tasks.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, or an outcome or predictor that is the same for all tasks.
    """
    y = np.asarray(drops, dtype=np.float64)
    if y.ndim != 2 or not len(y) or not predictors or draws < 1:
        raise ValueError(f"drops by outcome and task, a predictor and a draw are needed; found the shape {y.shape} and {len(predictors)}")
    for row in y:
        _values(row, "drops", None)
    table = {name: _by_outcome(x, name, y.shape) for name, x in predictors.items()}
    if y.shape[1] < MIN_TASKS:
        return {}
    orders = _orders(y.shape[1], draws, rng)
    exact = y.shape[1] <= MAX_EXACT_TASKS
    target = _unit(_ranks(y))
    found = {}
    for name, x in table.items():
        ranked = _unit(_ranks(x))
        value = float(np.mean(np.einsum("an,an->a", ranked, target)))
        drawn = np.zeros(len(orders))
        for one, other in zip(ranked, target, strict=True):
            drawn += other[orders] @ one
        beyond = int(np.sum(np.abs(drawn / len(y)) >= abs(value) - _TIE))
        areas = [area for one, other in zip(x, y, strict=True) if (area := _auc(one, other, margin)) is not None]
        found[name] = value, beyond / len(orders) if exact else (1 + beyond) / (1 + len(orders)), float(np.mean(areas)) if areas else None
    adjusted = holm([p for _, p, _ in found.values()])
    return {name: Together(rho, p, by, area) for (name, (rho, p, area)), by in zip(found.items(), adjusted, strict=True)}


def _by_outcome(x: npt.ArrayLike, name: str, shape: tuple[int, ...]) -> FloatArray:
    """(a, n) from one row for all outcomes, or a row for each."""
    values = np.asarray(x, dtype=np.float64)
    if values.shape not in (shape, shape[1:]):
        raise ValueError(
            f"the predictor {name!r}: one number per task is needed, or one per outcome and task; found the shape {values.shape} for {shape}"
        )
    return np.stack([_values(row, f"the predictor {name!r}", shape[1]) for row in np.broadcast_to(values, shape)])


def compare_predictors(
    drops: npt.ArrayLike, first: npt.ArrayLike, second: npt.ArrayLike, rng: np.random.Generator, *, draws: int = 9999, level: float = 0.95
) -> Difference:
    """Whether one predictor ranks drops better than another.

    Args:
        drops: (n,) per task.
        first: (n,) one predictor; larger means a larger expected drop.
        second: (n,) the other.
        rng: draws swaps where there are more than twelve tasks.
        draws: swaps drawn.
        level: confidence.

    Raises:
        ValueError: as ``hold_predictors``, or with fewer than eight tasks.
    """
    y = _values(drops, "drops", None)
    a, b = _values(first, "the first predictor", len(y)), _values(second, "the second predictor", len(y))
    n = len(y)
    if n < MIN_TASKS or not 0 < level < 1 or draws < 1:
        raise ValueError(f"at least {MIN_TASKS} tasks, one draw and a level between 0 and 1 are needed; found {n}, {draws} and {level:g}")
    exact = n <= MAX_EXACT_SWAPS
    swap = np.array(list(product((False, True), repeat=n))) if exact else rng.random((draws, n)) < 0.5
    ranks = _ranks(np.stack([a, b]))
    target = _unit(_ranks(y[None]))[0]
    difference = float(np.subtract(*(_unit(ranks) @ target)))
    mixed = [_unit(_ranks(np.where(swap, ranks[i], ranks[1 - i]))) @ target for i in (0, 1)]
    beyond = int(np.sum(np.abs(mixed[0] - mixed[1]) >= abs(difference) - _TIE))
    p = beyond / len(swap) if exact else (1 + beyond) / (1 + len(swap))
    return Difference(difference, p, *_jackknife_limits(np.stack([a, b]), y, level), exact, len(swap), level)


def _values(x: npt.ArrayLike, name: str, n: int | None, *, varies: bool = True) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 1 or not len(values) or (n is not None and len(values) != n):
        raise ValueError(
            f"{name}: one number per task is needed, found the shape {values.shape}" + (f" for {n} tasks" if n is not None else "")
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: {int(np.sum(~np.isfinite(values)))} of {len(values)} values are not finite")
    if varies and np.ptp(values) == 0:
        raise ValueError(f"{name}: the same for all tasks, so nothing can be ranked")
    return values


def _reliability(y: FloatArray, se: FloatArray) -> float:
    if np.any(se < 0):
        raise ValueError("standard errors are 0 or more")
    return 1 - float(np.mean(se**2)) / float(y.var(ddof=1))


def _orders(n: int, draws: int, rng: np.random.Generator) -> IntArray:
    """(orders, n) permutations: all of them, or drawn."""
    if n <= MAX_EXACT_TASKS:
        return np.array(list(permutations(range(n))), dtype=np.int64).reshape(factorial(n), n)
    return rng.permuted(np.tile(np.arange(n), (draws, 1)), axis=1)


def _ranks(x: FloatArray) -> FloatArray:
    """Mean ranks along the last axis of (k, n), from 0."""
    below = np.sum(x[:, None, :] < x[:, :, None], axis=2)
    same = np.sum(x[:, None, :] == x[:, :, None], axis=2)
    return np.asarray(below + (same - 1) / 2, dtype=np.float64)


def _unit(ranks: FloatArray) -> FloatArray:
    """Rows centred and of length 1; 0 where a row does not vary."""
    centred = ranks - ranks.mean(axis=-1, keepdims=True)
    length = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.where(length > 0, length, 1.0))


def _rank_tests(x: FloatArray, y: FloatArray, orders: IntArray, exact: bool) -> tuple[float, float, float, float]:
    """Spearman, Kendall and their p."""
    n = len(y)
    u, v = _unit(_ranks(np.stack([x, y])))
    i, j = np.triu_indices(n, 1)
    a, b = np.sign(x[i] - x[j]), np.sign(y[:, None] - y)
    scale = sqrt(float(np.sum(a**2)) * float(np.sum(b[i, j] ** 2)))
    spearman, kendall = float(u @ v), float(a @ b[i, j]) / scale
    beyond, chunk = np.zeros(2), max(1, _CHUNK_CELLS // len(i))
    for start in range(0, len(orders), chunk):
        o = orders[start : start + chunk]
        beyond += (
            np.sum(np.abs(v[o] @ u) >= abs(spearman) - _TIE),
            np.sum(np.abs(b[o[:, i], o[:, j]] @ a / scale) >= abs(kendall) - _TIE),
        )
    p = beyond / len(orders) if exact else (1 + beyond) / (1 + len(orders))
    return spearman, kendall, float(p[0]), float(p[1])


def _jackknife_limits(x: FloatArray, y: FloatArray, level: float) -> tuple[float, float]:
    """Limits of Spearman's rho of x (1, n), or of the first less the second of (2, n), by leaving tasks out in turn."""
    n = len(y)

    def rho(kept: npt.NDArray[np.bool_]) -> float:
        found = _unit(_ranks(x[:, kept])) @ _unit(_ranks(y[None, kept]))[0]
        return float(found[0] if len(found) == 1 else found[0] - found[1])

    everything = np.ones(n, dtype=bool)
    without = np.array([rho(np.arange(n) != i) for i in range(n)])
    half = critical_value(level, float(n - 1)) * sqrt((n - 1) / n * float(np.sum((without - without.mean()) ** 2)))
    bound = float(len(x))
    return max(rho(everything) - half, -bound), min(rho(everything) + half, bound)


def _auc(x: FloatArray, y: FloatArray, margin: float | None) -> float | None:
    if margin is None:
        return None
    hit, miss = x[y > margin], x[y <= margin]
    if not len(hit) or not len(miss):
        return None
    return float(np.mean((hit[:, None] > miss) + 0.5 * (hit[:, None] == miss)))


def _calibration(x: FloatArray, y: FloatArray, level: float) -> Calibration:
    n, centred = len(y), x - x.mean()
    spread = float(centred @ centred)
    slope = float(centred @ y) / spread
    rest = y - y.mean() - slope * centred
    half = critical_value(level, float(n - 2)) * sqrt(float(rest @ rest) / (n - 2) / spread)
    leverage = 1 / n + centred**2 / spread
    missed = rest / np.maximum(1 - leverage, _TIE)  # what the line without the task misses it by
    q2 = 1 - float(missed @ missed) / float(np.sum(((y - y.mean()) * n / (n - 1)) ** 2))
    predicted = y - missed
    around = predicted - predicted.mean()
    loo_slope = loo_intercept = None
    if float(around @ around) > _TIE * float(np.sum((y - y.mean()) ** 2)):
        loo_slope = float(around @ y) / float(around @ around)
        loo_intercept = float(y.mean()) - loo_slope * float(predicted.mean())
    return Calibration(slope, float(y.mean() - slope * x.mean()), slope - half, slope + half, q2, loo_slope, loo_intercept)
