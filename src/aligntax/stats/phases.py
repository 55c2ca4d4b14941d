"""The angle between safety and capability as behaviour shows it: both metrics measured along shifts that go round in a plane.

In the plane of two orthonormal directions e1, e2 the states are shifted by B (cos phi e1 + sin phi e2) for K phases phi and a few budgets B, and the
change of both metrics is measured. To second order in B

    y(B, phi) = B (a cos phi + b sin phi) + B^2 (h0 + h1 cos 2 phi + h2 sin 2 phi)

so the first harmonic is the linear theory, with amplitude A = |(a, b)| per unit of budget and phase atan2(b, a), and everything quadratic is in the
0th and 2nd harmonics, whatever the curvature. The behavioural angle is the phase of safety less that of capability, and the linear theory says that
it is the angle between the two directions as estimated from states. That equality can fail, which is what the sweep is for. If the theory holds the
frontier of both metrics at budget B is the ellipse of that angle.

**Error.** Means over prompts at each phase: ordinary least squares over phases and budgets, with the covariance of both metrics' residuals, which
the difference of the phases needs where both are measured on the same run. Values per prompt (P, budgets, K): every coefficient is linear in the
values, so each prompt has coefficients of its own, and their covariance over prompts is that of the means. Prefer it: a prompt whose response is far
from the average bends no residual, and least squares would not see it. For the same errors sigma of both metrics least squares has the standard error
sqrt(2/K) sigma sqrt(1/A_S^2 + 1/A_C^2) at one budget of 1.

**Is the budget small enough?** Third-order terms turn the first harmonic itself. So the angle is also given per budget, with the share of the second
harmonic in the first: take the angle at budgets where that is below a tenth (``MAX_CURVATURE``) in both metrics. The test of fit compares the model
above, with one angle and powers of B, with separate harmonics for every budget.

Angles are in radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, inf, pi, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, stdtr

from aligntax.stats.clusters import FloatArray
from aligntax.stats.paired import critical_value

MIN_PHASES = 24
MIN_BUDGETS = 3
MIN_PROMPTS = 8
MIN_Z = 4.0
"""Least amplitude of a first harmonic over its standard error: below, its phase has no usable error."""
MAX_CURVATURE = 0.1
"""Largest share of the second harmonic in the first at which a budget counts as small."""

_FIRST = slice(0, 2)
_SECOND = slice(3, 5)


@dataclass(frozen=True)
class Harmonics:
    """One metric's response, over all budgets or at one.

    Attributes:
        amplitude: of the first harmonic, in units of the metric per unit of budget.
        amplitude_se: its standard error.
        phase: of the first harmonic, from -pi to pi.
        phase_se: its standard error.
        mean: the 0th harmonic, per squared unit of budget.
        second: amplitude of the 2nd harmonic, per squared unit of budget.
        curvature: second over first harmonic at the largest budget used.
    """

    amplitude: float
    amplitude_se: float
    phase: float
    phase_se: float
    mean: float
    second: float
    curvature: float


@dataclass(frozen=True)
class BudgetAngle:
    """The sweep at one budget.

    Attributes:
        budget: B.
        safety, capability: responses.
        angle, se: behavioural angle and its standard error; None where a first harmonic is not told from 0.
        small: whether the second harmonic is at most a tenth of the first in both metrics.
    """

    budget: float
    safety: Harmonics
    capability: Harmonics
    angle: float | None
    se: float | None
    small: bool


@dataclass(frozen=True)
class BehaviouralAngle:
    """The sweep over all budgets.

    Attributes:
        angle: phase of safety less that of capability, from -pi to pi; None where not identified.
        low, high: t limits, not wrapped; None where not identified.
        se: standard error.
        df: degrees of freedom.
        safety, capability: responses of both metrics.
        budgets: the same at each budget.
        fit_p: that the model over budgets fits as well as separate harmonics for every budget, the smaller p of both metrics, doubled; None with
            values per prompt, whose residuals are no measurement error.
        reason: why the angle is not identified; None where it is.
        level: confidence.
    """

    angle: float | None
    low: float | None
    high: float | None
    se: float | None
    df: float
    safety: Harmonics
    capability: Harmonics
    budgets: tuple[BudgetAngle, ...]
    fit_p: float | None
    reason: str | None
    level: float


@dataclass(frozen=True)
class Agreement:
    """Whether behaviour shows the angle of the directions.

    Attributes:
        difference: behavioural less represented angle, from -pi to pi.
        low, high: limits of the difference.
        p: two-sided, that both are the same.
    """

    difference: float
    low: float
    high: float
    p: float


def behavioural_angle(
    budgets: npt.ArrayLike,
    phases: npt.ArrayLike,
    safety: npt.ArrayLike,
    capability: npt.ArrayLike,
    *,
    same_prompts: bool = False,
    level: float = 0.95,
) -> BehaviouralAngle:
    """Fit both metrics over budgets and phases.

    Args:
        budgets: (B,) lengths of the shift, above 0, at least three different ones.
        phases: (K,) radians, at least 24, which need not be evenly spaced.
        safety: changes of the safety metric against no shift, (B, K) means or (P, B, K) with a row per prompt.
        capability: the same of the capability metric, of the same kind.
        same_prompts: values per prompt are of the same prompts in both metrics, in the same order; else the prompts are taken as independent.
        level: confidence.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, too few phases, budgets or prompts, or phases that leave the harmonics
            undetermined.
    """
    size, phase = _grid(budgets, phases)
    s, c = (_responses(y, len(size), len(phase), name) for y, name in ((safety, "safety"), (capability, "capability")))
    if len(s) != len(c) and (same_prompts or min(len(s), len(c)) == 1):
        raise ValueError(f"safety has values of {len(s)} prompts and capability of {len(c)}: give both as means, or both per prompt")
    if not 0 < level < 1:
        raise ValueError(f"the level lies between 0 and 1, found {level:g}")
    if same_prompts and len(s) == 1:
        raise ValueError("same_prompts is for values per prompt; means over prompts are taken as measured together")
    grid = np.repeat(size, len(phase)), np.tile(phase, len(size))
    flat = s.reshape(len(s), -1), c.reshape(len(c), -1)
    joint = _fit(_design(*grid), flat, same_prompts)
    safety_fit, capability_fit = (_harmonics(joint, i, float(size.max())) for i in (0, 1))
    angle, se = _angle(joint, safety_fit, capability_fit)
    reason = None if angle is not None else _reason(safety_fit, capability_fit)
    at = tuple(_at_budget(float(b), phase, (s[:, i], c[:, i]), same_prompts) for i, b in enumerate(size))
    half = critical_value(level, joint.df) * se if se is not None else None
    return BehaviouralAngle(
        angle=angle,
        low=None if angle is None or half is None else angle - half,
        high=None if angle is None or half is None else angle + half,
        se=se,
        df=joint.df,
        safety=safety_fit,
        capability=capability_fit,
        budgets=at,
        fit_p=_fit_p(joint, flat, *grid) if len(s) == 1 else None,
        reason=reason,
        level=level,
    )


def agrees(behaviour: BehaviouralAngle, angle: float, se: float, level: float = 0.95) -> Agreement:
    """Test that the behavioural angle is the one between the directions.

    Args:
        behaviour: an identified angle.
        angle: between the safety and the capability direction, with sign, in radians.
        se: its standard error; 0 where it is known.
        level: confidence.

    Raises:
        ValueError: if the behavioural angle is not identified, or the error is below 0 or not finite.
    """
    if behaviour.angle is None or behaviour.se is None:
        raise ValueError(f"the behavioural angle cannot be compared: {behaviour.reason}")
    if not (np.isfinite(angle) and np.isfinite(se) and se >= 0):
        raise ValueError(f"the angle must be finite and its error finite and 0 or more; found {angle} and {se}")
    variance = behaviour.se**2 + se**2
    difference = _wrapped(behaviour.angle - angle)
    if variance == 0:
        return Agreement(difference, difference, difference, 1.0 if difference == 0 else 0.0)
    df = variance**2 * behaviour.df / behaviour.se**4 if behaviour.se > 0 else inf  # Satterthwaite: the other error is taken as known
    half = critical_value(level, None if df == inf or df > 1e8 else df) * sqrt(variance)
    return Agreement(difference, difference - half, difference + half, float(2 * stdtr(min(df, 1e8), -abs(difference) / sqrt(variance))))


@dataclass(frozen=True)
class _Fit:
    """Coefficients (2, 5) of safety and capability, their covariance (10, 10), degrees of freedom, residual sums of squares (2,)."""

    beta: FloatArray
    covariance: FloatArray
    df: float
    rest: FloatArray


def _design(budget: FloatArray, phase: FloatArray) -> FloatArray:
    """(n, 5) columns: cos, sin by B; 1, cos 2 phi, sin 2 phi by B^2."""
    square = budget**2
    return np.column_stack([budget * np.cos(phase), budget * np.sin(phase), square, square * np.cos(2 * phase), square * np.sin(2 * phase)])


def _fit(design: FloatArray, values: tuple[FloatArray, FloatArray], same_prompts: bool) -> _Fit:
    """Least squares of both metrics, values (P, n) each."""
    if np.linalg.matrix_rank(design) < design.shape[1]:
        raise ValueError("the phases do not determine the harmonics: spread them over the whole circle")
    inverse = np.linalg.inv(design.T @ design)
    by_prompt = tuple(y @ design @ inverse for y in values)
    beta = np.stack([b.mean(axis=0) for b in by_prompt])
    residuals = np.stack([y.mean(axis=0) for y in values]) - beta @ design.T
    cross = residuals @ residuals.T
    df = float(len(design) - design.shape[1])
    if len(values[0]) == 1:
        return _Fit(beta, np.kron(cross / df, inverse), df, np.diagonal(cross))
    n = design.shape[1]
    covariance = np.zeros((2 * n, 2 * n))
    if same_prompts:
        covariance = np.cov(np.column_stack(by_prompt), rowvar=False) / len(by_prompt[0])
    else:
        for i, b in enumerate(by_prompt):
            covariance[i * n : (i + 1) * n, i * n : (i + 1) * n] = np.cov(b, rowvar=False) / len(b)
    return _Fit(beta, covariance, float(min(len(b) for b in by_prompt) - 1), np.diagonal(cross))


def _harmonics(fit: _Fit, which: int, budget: float) -> Harmonics:
    beta, n = fit.beta[which], fit.beta.shape[1]
    first, second = beta[_FIRST], float(np.hypot(*beta[_SECOND]))
    amplitude = float(np.hypot(*first))
    block = fit.covariance[which * n : which * n + 2, which * n : which * n + 2]
    if amplitude == 0:
        return Harmonics(0.0, sqrt(float(np.trace(block)) / 2), 0.0, inf, float(beta[2]), second, inf if second else 0.0)
    along, around = first / amplitude, _turned(first) / amplitude
    return Harmonics(
        amplitude,
        sqrt(max(float(along @ block @ along), 0.0)),
        atan2(first[1], first[0]),
        sqrt(max(float(around @ block @ around), 0.0)) / amplitude,
        float(beta[2]),
        second,
        budget * second / amplitude,
    )


def _turned(x: FloatArray) -> FloatArray:
    return np.array([-x[1], x[0]])


def _angle(fit: _Fit, safety: Harmonics, capability: Harmonics) -> tuple[float | None, float | None]:
    if _reason(safety, capability) is not None:
        return None, None
    n = fit.beta.shape[1]
    gradient = np.zeros(2 * n)
    gradient[0:2] = _turned(fit.beta[0, _FIRST]) / safety.amplitude**2
    gradient[n : n + 2] = -_turned(fit.beta[1, _FIRST]) / capability.amplitude**2
    return _wrapped(safety.phase - capability.phase), sqrt(max(float(gradient @ fit.covariance @ gradient), 0.0))


def _reason(safety: Harmonics, capability: Harmonics) -> str | None:
    for name, h in (("safety", safety), ("capability", capability)):
        if h.amplitude == 0 or h.amplitude < MIN_Z * h.amplitude_se:
            z = h.amplitude / h.amplitude_se if h.amplitude_se > 0 else 0.0
            return f"not identified: the first harmonic of {name} is {z:.1f} standard errors long and it takes {MIN_Z:g}: the shift hardly moves it in this plane"
    return None


def _at_budget(budget: float, phase: FloatArray, values: tuple[FloatArray, FloatArray], same_prompts: bool) -> BudgetAngle:
    fit = _fit(_design(np.full(len(phase), budget), phase), values, same_prompts)
    safety, capability = (_harmonics(fit, i, budget) for i in (0, 1))
    angle, se = _angle(fit, safety, capability)
    return BudgetAngle(budget, safety, capability, angle, se, max(safety.curvature, capability.curvature) <= MAX_CURVATURE)


def _fit_p(joint: _Fit, values: tuple[FloatArray, FloatArray], budget: FloatArray, phase: FloatArray) -> float:
    """F test of the model over budgets within separate harmonics for every budget, by metric; Bonferroni over both."""
    rest, left = np.zeros(2), 0
    for b in np.unique(budget):
        at = budget == b
        design = _design(budget[at], phase[at])
        for i, y in enumerate(values):
            beta = np.linalg.lstsq(design, y[0, at], rcond=None)[0]
            rest[i] += float(np.sum((y[0, at] - design @ beta) ** 2))
        left += int(at.sum()) - design.shape[1]
    more = joint.df - left
    scale = np.array([float(np.sum(y**2)) for y in values])
    f = [
        (a - b) / more / (b / left) if b > 1e-20 * s else (0.0 if a <= 1e-20 * s else inf)
        for a, b, s in zip(joint.rest, rest, scale, strict=True)
    ]
    return min(1.0, 2 * min(float(fdtrc(more, left, max(x, 0.0))) for x in f))


def _grid(budgets: npt.ArrayLike, phases: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    size, phase = np.asarray(budgets, dtype=np.float64), np.asarray(phases, dtype=np.float64)
    if size.ndim != 1 or phase.ndim != 1 or not (np.isfinite(size).all() and np.isfinite(phase).all() and np.all(size > 0)):
        raise ValueError("budgets must be finite and above 0, phases finite, each a row of numbers")
    different = len(np.unique(np.round(phase % (2 * pi), 9)))
    if different < MIN_PHASES:
        raise ValueError(f"{different} different phases: the sweep takes at least {MIN_PHASES}")
    if len(np.unique(size)) != len(size) or len(size) < MIN_BUDGETS:
        raise ValueError(f"{len(np.unique(size))} different budgets of {len(size)}: the sweep takes at least {MIN_BUDGETS}, each once")
    return size, phase


def _responses(y: npt.ArrayLike, budgets: int, phases: int, name: str) -> FloatArray:
    """(P, B, K); means are one prompt."""
    values = np.asarray(y, dtype=np.float64)
    if values.shape[-2:] != (budgets, phases) or values.ndim not in {2, 3}:
        raise ValueError(
            f"{name} must be (budgets, phases) or (prompts, budgets, phases) with {budgets} budgets and {phases} phases, found {values.shape}"
        )
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has {int(np.sum(~np.isfinite(values)))} values that are not finite")
    if values.ndim == 3 and len(values) < MIN_PROMPTS:
        raise ValueError(f"{name} has {len(values)} prompts: an error over prompts takes at least {MIN_PROMPTS}")
    return values if values.ndim == 3 else values[None]


def _wrapped(angle: float) -> float:
    """``angle`` in (-pi, pi]."""
    return pi - (pi - angle) % (2 * pi)
