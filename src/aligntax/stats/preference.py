"""How often one model's answers are preferred, with and without the pull of their length.

A preference is the candidate's score in [0, 1] on one item: 1 its answer is preferred, 0 the baseline's, 1/2 a tie, anything between a judge's
probability. Preferences are item scores like any other: ``win_rate`` gives them the ledger's own interval.

**Length control** is AlpacaEval 2's idea (Dubois et al. 2024, arXiv:2404.04475): what would the win rate be if both answers were of one length?

    logit P(candidate preferred) = theta + phi tanh(delta/sd(delta)) + psi difficulty,    LC win rate = mean over items at delta = 0

delta is the candidate's length less the baseline's, not centred, its sd with n - 1. What differs from their leaderboard (``glm_winrate.py`` of
alpaca_eval): they take difficulty from a fit over the whole leaderboard, shrink all three terms by an L1 penalty that cross-validation chooses,
and add, with weight .2, the baseline's own verbose and concise answers as further data. Two models alone identify no difficulty (every item
is seen once): it is left out unless it is given. Nothing is shrunk here: a penalty moves the estimate in a way that no interval covers.

A preference between 0 and 1 enters by the quasi-likelihood of a binomial share (Papke and Wooldridge 1996, J. Appl. Econom. 11:619); errors
are the sandwich's, from influence values per item. Their mean is the LC win rate, so that they go wherever item scores go. The sd of the
lengths is taken as it is, as theirs is. Coverage is simulated in tests/stats/test_preference.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

from aligntax.stats.clusters import FloatArray, IntArray, cluster_facts
from aligntax.stats.moments import sample_variance
from aligntax.stats.paired import critical_value, p_value, paired_change

_STEPS, _CONVERGED, _CERTAIN = 60, 1e-10, 1e-6
_SEPARATED = "the data are separated: model and length decide every preference, so that no finite estimate exists"
_TOO_FAR = "the lengths differ too much, and to one side: what the model says of equal lengths is 0 or 1, which no such data tell"
_FAR = 15.0
"""A linear predictor beyond that is a probability of 0 or 1 as far as data of any size tell: separation is looked for."""


@dataclass(frozen=True)
class WinRate:
    """Plain win rate, ties half.

    Attributes:
        rate: mean preference.
        low: lower limit of its interval; None with a reason.
        high: upper limit.
        p_value: two-sided, of no preference (1/2); None with a reason.
        n: items with a preference.
        wins: preferences above 1/2.
        ties: preferences of exactly 1/2.
        losses: preferences below 1/2.
        method: as ``paired.paired_change`` names it.
        reason: why there is no interval; empty otherwise.
    """

    rate: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int
    wins: int
    ties: int
    losses: int
    method: str
    reason: str = ""


@dataclass(frozen=True)
class LengthControlled:
    """Win rate at equal lengths.

    Attributes:
        rate: the LC win rate; None with a reason.
        low: lower limit of its interval, made on the logit scale; None with a reason.
        high: upper limit.
        se: standard error of the rate.
        df: degrees of freedom of the interval: n - 1, with clusters Bell and McCaffrey's.
        raw: the plain win rate of the same items.
        length_effect: phi; None where every difference of lengths is 0.
        length_effect_se: its standard error.
        mean_difference: mean of delta, in the unit of the lengths.
        extrapolated: no two answers are as long, nor is each model's sometimes the longer: 0 lies outside the differences seen.
        items: (n,) values whose mean is the rate (estimate + influence), in the order of the items kept, of unbounded scale; None with a
            reason. A t interval made from them covers too little where one side is hardly ever preferred (below .1 or above .9: .78-.94 of
            100 items, .85-.94 of 200, .92-.97 of 800); ``low`` and ``high`` cover .926-.964 there.
        kept: (N,) which items had a preference.
        n: items with a preference.
        reason: why there is no rate or no interval; empty otherwise.
    """

    rate: float | None
    low: float | None
    high: float | None
    se: float | None
    df: float | None
    raw: float
    length_effect: float | None
    length_effect_se: float | None
    mean_difference: float
    extrapolated: bool
    items: FloatArray | None
    kept: npt.NDArray[np.bool_]
    n: int
    reason: str = ""


def preferences_from_signs(signs: npt.ArrayLike) -> FloatArray:
    """(N,) preferences from 1 (the candidate's answer is better), 0 (tie), -1 (the baseline's), NaN (no judgement).

    Raises:
        ValueError: on any other value.
    """
    found = np.asarray(signs, dtype=np.float64)
    if not np.isin(found[~np.isnan(found)], (-1.0, 0.0, 1.0)).all():
        raise ValueError("signs must be 1 (candidate better), 0 (tie), -1 (baseline better) or NaN")
    return (found + 1.0) / 2.0


def preferences_from_alpaca(preference: npt.ArrayLike) -> FloatArray:
    """(N,) preferences from AlpacaEval's column ``preference``: 1 output_1 (the baseline's) is better, 2 output_2, 1.5 or 0 a tie.

    Raises:
        ValueError: on values that are neither 0 nor in [1, 2] nor NaN.
    """
    found = np.asarray(preference, dtype=np.float64)
    known = found[~np.isnan(found)]
    if not ((known == 0) | ((known >= 1) & (known <= 2))).all():
        raise ValueError("AlpacaEval's preferences lie in [1, 2], or are 0 for a tie")
    return np.where(found == 0, 0.5, found - 1.0)


def preferences_of_both_orders(candidate_second: npt.ArrayLike, candidate_first: npt.ArrayLike) -> tuple[FloatArray, float]:
    """Preferences for the candidate of a judge asked twice, with the answers in either order: their mean, which a liking for a place cannot move.

    Args:
        candidate_second: (N,) preferences for the candidate, its answer shown second.
        candidate_first: (N,) the same, its answer shown first.

    Returns:
        (N,) means, NaN where either is missing; and how much likelier the candidate wins when shown first (mean difference, 0 without a bias
        for a place).

    Raises:
        ValueError: on other shapes or values outside [0, 1], or where no item has both.
    """
    second, first = _preferences(candidate_second), _preferences(candidate_first)
    if second.shape != first.shape:
        raise ValueError(f"both orders must have the same items, got {len(second)} and {len(first)}")
    difference = first - second
    if np.isnan(difference).all():
        raise ValueError("no item was judged in both orders")
    return (first + second) / 2, float(np.nanmean(difference))


def win_rate(preferences: npt.ArrayLike, codes: IntArray | None = None, level: float = 0.95) -> WinRate:
    """Mean preference with the interval that paired 0/1 scores get: a win is a gain of half a point over 1/2, a loss a loss of it.

    Args:
        preferences: (N,) in [0, 1], NaN where there is none.
        codes: (N,) cluster codes, or None.
        level: confidence level.

    Raises:
        ValueError: on values outside [0, 1], codes of another length, or where no item has a preference.
    """
    y, kept = _kept(preferences)
    d = y[kept] - 0.5
    change = paired_change(d, _renumbered(codes, kept), binary=bool(np.isin(d, (-0.5, 0.0, 0.5)).all()), scale=0.5)
    limits = (None, None) if change.test is None else tuple(0.5 + x for x in change.test.interval(level))
    return WinRate(
        rate=0.5 + change.change,
        low=limits[0],
        high=limits[1],
        p_value=None if change.test is None else p_value(change.test),
        n=len(d),
        wins=int(np.sum(d > 0)),
        ties=int(np.sum(d == 0)),
        losses=int(np.sum(d < 0)),
        method=change.method,
        reason=change.reason,
    )


def length_controlled(
    preferences: npt.ArrayLike,
    length_difference: npt.ArrayLike,
    codes: IntArray | None = None,
    level: float = 0.95,
    *,
    difficulty: npt.ArrayLike | None = None,
) -> LengthControlled:
    """Win rate if both answers were of one length; the module's docstring has the model and its source.

    Args:
        preferences: (N,) in [0, 1], NaN where there is none.
        length_difference: (N,) the candidate's length less the baseline's, in characters or tokens.
        codes: (N,) cluster codes, or None.
        level: confidence level.
        difficulty: (N,) of every item, known from other models' answers; None leaves it out.

    Returns:
        The rate; without one, and a reason, where the data are separated (some term decides every preference, so that no finite estimate
        exists), every difference of lengths is the same and not 0, or all lie so far to one side of 0 that the rate comes out as 0 or 1.

    Raises:
        ValueError: on values outside [0, 1], lengths or difficulties that are not finite, arrays of other lengths, or fewer than two items
            with a preference.
    """
    y, kept = _kept(preferences)
    delta = _finite(length_difference, "length differences", kept)
    y, codes = y[kept], _renumbered(codes, kept)
    if len(y) < 2:
        raise ValueError("fewer than two items have a preference")
    found = LengthControlled(
        rate=None,
        low=None,
        high=None,
        se=None,
        df=None,
        raw=float(y.mean()),
        length_effect=None,
        length_effect_se=None,
        mean_difference=float(delta.mean()),
        extrapolated=bool(delta.min() > 0 or delta.max() < 0),
        items=None,
        kept=kept,
        n=len(y),
    )
    spread = sqrt(sample_variance(delta))
    if spread == 0 and delta[0] != 0:
        return replace(found, reason="every difference of lengths is the same: what length does cannot be told from what the model does")
    columns, at_equal = [np.ones(len(y))], [np.ones(len(y))]
    if difficulty is not None:
        columns.append(_finite(difficulty, "difficulties", kept))
        at_equal.append(columns[-1])
    if spread > 0:
        columns.append(np.tanh(delta / spread))
        if float(np.ptp(columns[-1])) < _CERTAIN:
            return replace(found, reason=_TOO_FAR)
        at_equal.append(np.zeros(len(y)))
    x, x0 = np.column_stack(columns), np.column_stack(at_equal)
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return replace(
            found, reason="length differences or difficulties are a line through one another: their effects cannot be told apart"
        )
    beta = _fit(x, y)
    if beta is None:
        return replace(found, reason=_SEPARATED if _separated(x, y) else _TOO_FAR)
    return _with_errors(found, x, x0, y, beta, codes, level, spread > 0)


def _fit(x: FloatArray, y: FloatArray) -> FloatArray | None:
    """Newton's solution of sum x (y - expit(x beta)) = 0; None where there is none in sight, as with separated data."""
    beta = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        mu = expit(x @ beta)
        try:
            step = np.linalg.solve((x.T * (mu * (1 - mu))) @ x, x.T @ (y - mu))
        except np.linalg.LinAlgError:
            return None
        # Far from the solution a full step may overshoot: no step moves a predictor by more than 2.
        step = step * min(1.0, 2.0 / max(float(np.abs(x @ step).max()), 1e-300))
        beta = beta + step
        if float(np.abs(x @ step).max()) < _CONVERGED:
            break
    else:
        return None
    return None if float(np.abs(x @ beta).max()) > _FAR and _separated(x, y) else beta


def _separated(x: FloatArray, y: FloatArray) -> bool:
    """Whether some direction sends every prediction towards its preference or nowhere (Albert and Anderson 1984, Biometrika 71:1).

    By linear programming (Konis 2007): largest sum of movements towards the preferences with none away, a direction's entries at most 1.
    """
    from scipy.optimize import linprog  # slow to import, and only extreme data need it

    towards = np.where(y == 1, 1.0, -1.0)[:, None] * x
    certain = (y == 0) | (y == 1)
    fixed = x[~certain]
    solved = linprog(
        -towards[certain].sum(axis=0),
        A_ub=-towards[certain],
        b_ub=np.zeros(int(certain.sum())),
        A_eq=fixed if len(fixed) else None,
        b_eq=np.zeros(len(fixed)) if len(fixed) else None,
        bounds=(-1, 1),
    )
    return bool(solved.status == 0 and -solved.fun > 1e-8)


def _with_errors(
    found: LengthControlled,
    x: FloatArray,
    x0: FloatArray,
    y: FloatArray,
    beta: FloatArray,
    codes: IntArray | None,
    level: float,
    has_length: bool,
) -> LengthControlled:
    """Rate, influence values and interval at the solution ``beta``; the length's coefficient is the last."""
    n = len(y)
    mu, equal = expit(x @ beta), expit(x0 @ beta)
    information = (x.T * (mu * (1 - mu))) @ x / n
    leverage = mu * (1 - mu) * np.sum(x * np.linalg.solve(information, x.T).T, axis=1) / n
    influence = np.linalg.solve(information, (x * ((y - mu) / (1 - leverage))[:, None]).T).T
    influence -= influence.mean(axis=0)
    rate = float(equal.mean())
    if rate * (1 - rate) < _CERTAIN:
        return replace(found, reason=_TOO_FAR)
    slope = (x0 * (equal * (1 - equal))[:, None]).mean(axis=0)
    items = equal + influence @ slope
    found = replace(
        found,
        rate=rate,
        items=items,
        length_effect=float(beta[-1]) if has_length else None,
    )
    error = _error(items, codes)
    if error is None:
        return replace(found, reason="one source: no interval for other sources")
    se, df = error
    length_error = _error(influence[:, -1], codes) if has_length else None
    half = critical_value(level, df) * se / (rate * (1 - rate))
    low, high = (float(expit(logit(rate) + side * half)) for side in (-1, 1))
    return replace(found, low=low, high=high, se=se, df=df, length_effect_se=None if length_error is None else length_error[0])


def _error(values: FloatArray, codes: IntArray | None) -> tuple[float, float] | None:
    """(standard error of the mean, degrees of freedom) of values with influence in them; None with one cluster."""
    n = len(values)
    if codes is not None and int(codes.max()) + 1 < n:
        if int(codes.max()) == 0:
            return None
        facts = cluster_facts(values, codes)
        return sqrt(facts.variance_cr2), facts.df
    return sqrt(sample_variance(values) / n), float(n - 1)


def _preferences(given: npt.ArrayLike) -> FloatArray:
    y = np.asarray(given, dtype=np.float64)
    known = y[~np.isnan(y)]
    if y.ndim != 1 or (known < 0).any() or (known > 1).any():
        raise ValueError("preferences must be a list of numbers from 0 to 1, NaN where there is none")
    return y


def _kept(preferences: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    y = _preferences(preferences)
    kept = ~np.isnan(y)
    if not kept.any():
        raise ValueError("no item has a preference")
    return y, kept


def _finite(given: npt.ArrayLike, name: str, kept: npt.NDArray[np.bool_]) -> FloatArray:
    values = np.asarray(given, dtype=np.float64)
    if values.shape != kept.shape:
        raise ValueError(f"{name} and preferences must have the same items, got {values.shape} and {kept.shape}")
    if not np.isfinite(values[kept]).all():
        raise ValueError(f"{name} must be known where there is a preference")
    return values[kept]


def _renumbered(codes: IntArray | None, kept: npt.NDArray[np.bool_]) -> IntArray | None:
    """Cluster codes 0..G-1 of the items kept."""
    if codes is None:
        return None
    if codes.shape != kept.shape:
        raise ValueError(f"cluster codes and preferences must have the same items, got {codes.shape} and {kept.shape}")
    return np.unique(codes[kept], return_inverse=True)[1].astype(np.int64)
