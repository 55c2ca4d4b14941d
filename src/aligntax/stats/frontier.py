"""How much safety a shift of bounded length can gain at a given capability change, and the shift that gains it.

A shift delta (d,) of the hidden states has length B at most, the budget. It changes safety by <v, delta> and capability i by <c_i, delta>, where v
and c_i have length 1 (``stats.overlap``; other budgets than a ball: ``stats.metric``). alpha is the angle between v and one capability c, from 0
to pi, with its sign: above pi/2 safety lowers the capability. Angles are in radians.

One capability (Young 2026, arXiv:2603.00047), x its change and y that of safety:

    y <= x cos(alpha) + sin(alpha) sqrt(B^2 - x^2)                  met by delta = x c + sqrt(B^2 - x^2) n, n the part of v orthogonal to c
    {x^2 - 2 x y cos(alpha) + y^2 <= B^2 sin^2(alpha), |x| <= B}    all that can be had: an ellipse, the same with x and y swapped; |x| <= B is
                                                                    needed at alpha = 0 and pi only, where it is a segment
    (B cos(phi), B cos(phi - alpha))                                its edge; efficient (more of one is less of the other) for 0 <= phi <= alpha
    y = B sin(alpha) = B sqrt(1 - tau)                              free: at x = 0
    |x| >= max(0, y |cos(alpha)| - sin(alpha) sqrt(B^2 - y^2))      what a gain y takes; x has the sign of cos(alpha)
    dy/dx = cos(alpha) - sin(alpha) x/sqrt(B^2 - x^2)               along the upper edge; a capability weighed by -dy/dx leads there

**The sign.** Up to pi/2 the largest safety gain raises the capability: nothing is lost, and only keeping it from rising costs anything. A loss is
paid beyond pi/2 (``least_loss``). Several capabilities that must be kept from falling: ``loss_only_shift``.

Several capabilities, changes x = C'delta given:

    y <= b'G^+ x + sqrt(B^2 - x'G^+ x) sqrt(1 - tau)                if x can be had at all: in the span of C', and x'G^+ x <= B^2

Several safety directions V, no capability moved: {V'delta} is the ellipsoid with shape V'(I - P)V, in orthonormal coordinates of semi-axes
B sin(theta_i) (``overlap.principal``).

Quadratic loss (1/2) sum_i h_i <c_i, delta>^2, that of capabilities trained to an optimum: in a span of equal curvature h the least loss for a
gain y is (h/2) x^2 with the least |x| above; h B^2 tau/2 at y = B. With a linear model the same shift changes capability i by B b_i, with sign. So
tau, b_i and |b_i| as predictors of damage are different hypotheses.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, pi, sqrt

import numpy as np
import numpy.typing as npt

from aligntax.stats.clusters import FloatArray
from aligntax.stats.overlap import RANK_TOL, BoolArray, Span, loss_only, safety_and_span, span, unit_columns

_ROUNDING = 1e-12
"""By this share of the budget a change may pass it and count as equal to it."""

_FLAT = 1e-15  # sines below this are those of rounded 0 and pi


@dataclass(frozen=True)
class Shift:
    """A shift of the hidden states and what it changes.

    Attributes:
        delta: (d,) the shift.
        safety: change of safety.
        capability: (m,) change of each capability, with its sign.
        length: of the shift. It is the budget, unless no direction is left in which safety could still rise.
    """

    delta: FloatArray
    safety: float
    capability: FloatArray
    length: float


@dataclass(frozen=True)
class Ellipse:
    """What one capability and safety can reach together.

    Attributes:
        rising: semi-axis along (1, 1), B sqrt(1 + cos(alpha)).
        falling: semi-axis along (1, -1), B sqrt(1 - cos(alpha)).
        area: pi B^2 sin(alpha).
    """

    rising: float
    falling: float
    area: float


@dataclass(frozen=True)
class SafetyEllipsoid:
    """What several safety directions can reach together if no capability moves: {y: y = E^(1/2) u, ||u|| <= B}.

    Attributes:
        shape: (n, n) E = V'(I - P)V; of the directions as given, each of length 1.
        free: (d, n) parts of the safety directions outside the capabilities.
        budget: B.
    """

    shape: FloatArray
    free: FloatArray
    budget: float

    def best(self, weights: npt.ArrayLike) -> Shift:
        """The shift with the largest weighted sum of safety changes; ``safety`` is that sum, ``capability`` is empty (none moves).

        Raises:
            ValueError: on weights of another shape or not finite.
        """
        w = _weights(weights, self.free.shape[1])
        along = self.free @ w
        length = float(np.linalg.norm(along))
        if length <= RANK_TOL * max(float(np.abs(w).max()), 1e-300):
            return Shift(np.zeros(len(along)), 0.0, np.zeros(0), 0.0)
        return Shift(self.budget * along / length, self.budget * length, np.zeros(0), self.budget)

    def holds(self, safety: npt.ArrayLike) -> bool:
        """Whether the safety changes (n,) can be had together.

        Raises:
            ValueError: on another shape or changes that are not finite.
        """
        y = _weights(safety, self.free.shape[1])
        needed, missed = _least_length(self.free, y)
        return missed <= 1e-9 * self.budget and needed <= self.budget * (1 + _ROUNDING)


def check_budget(budget: float) -> float:
    """``budget`` as a float.

    Raises:
        ValueError: unless it is finite and above 0.
    """
    if not 0 < budget < inf:
        raise ValueError(f"the budget must be a finite number above 0, found {budget}")
    return float(budget)


def best_safety(capability: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> FloatArray:
    """The largest safety change at a capability change: Theorem 1.

    By symmetry also the largest capability change at a given safety change.

    Args:
        capability: any shape, between -budget and budget.
        alpha: signed angle, broadcast with it.
        budget: B.

    Raises:
        ValueError: on a change beyond the budget, an angle outside 0..pi, or a budget that is not above 0.
    """
    x, a, rest = _plane(capability, alpha, budget, "capability change")
    return np.asarray(x * np.cos(a) + np.sin(a) * rest)


def safety_range(capability: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """The least and the largest safety change at a capability change; with the roles swapped, of the capability at a safety change.

    Raises:
        ValueError: as ``best_safety``.
    """
    x, a, rest = _plane(capability, alpha, budget, "capability change")
    middle, half = x * np.cos(a), np.sin(a) * rest
    return np.asarray(middle - half), np.asarray(middle + half)


def attainable(capability: npt.ArrayLike, safety: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> BoolArray:
    """Whether a shift within the budget makes both changes.

    Raises:
        ValueError: on values that are not finite, an angle outside 0..pi, or a budget that is not above 0.
    """
    b, a = check_budget(budget), _angles(alpha)
    x, y = _finite(capability, "capability changes"), _finite(safety, "safety changes")
    slack = _ROUNDING * b
    # The set is the same with the roles swapped; near the budget a root loses digits, and then the other way round is the exact one.
    off = [np.abs(q - p * np.cos(a)) - np.sin(a) * np.sqrt(np.maximum((b - p) * (b + p), 0.0)) for p, q in ((x, y), (y, x))]
    return np.asarray((np.maximum(np.abs(x), np.abs(y)) <= b + slack) & (np.minimum(*off) <= slack))


def on_edge(phi: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> tuple[FloatArray, FloatArray]:
    """(capability, safety) of a shift of full length at angle ``phi`` from the capability, in the plane of both directions.

    Raises:
        ValueError: on an angle outside 0..pi, phases that are not finite, or a budget that is not above 0.
    """
    b = check_budget(budget)
    p, a = np.broadcast_arrays(_finite(phi, "phases"), _angles(alpha))
    return np.asarray(b * np.cos(p)), np.asarray(b * np.cos(p - a))


def ellipse(alpha: float, budget: float = 1.0) -> Ellipse:
    """The set of changes that can be had, for one capability.

    Raises:
        ValueError: on an angle outside 0..pi or a budget that is not above 0.
    """
    b, a = check_budget(budget), float(_angles(alpha))
    # Half angles, since 1 - cos(a) loses all digits near 0.
    return Ellipse(b * sqrt(2) * float(np.cos(a / 2)), b * sqrt(2) * float(np.sin(a / 2)), pi * b * b * float(np.sin(a)))


def exchange_rate(capability: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> FloatArray:
    """Safety gained per capability gained along the upper edge; infinite at both ends, unless both directions are one (then cos(alpha)).

    Minus it is the weight of the capability whose weighted sum with safety is largest there.

    Raises:
        ValueError: as ``best_safety``.
    """
    x, a, rest = _plane(capability, alpha, budget, "capability change")
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.cos(a) - np.sin(a) * x / rest
    return np.asarray(np.where(np.sin(a) <= _FLAT, np.cos(a), slope))


def free_gain(tau: npt.ArrayLike, budget: float = 1.0) -> FloatArray:
    """B sqrt(1 - tau), the largest safety gain that moves no capability (with tau_cone: that lowers none).

    Raises:
        ValueError: on a tau outside 0..1 or a budget that is not above 0.
    """
    return check_budget(budget) * np.sqrt(1.0 - _taxes(tau))


def least_change(gain: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> FloatArray:
    """The smallest capability change that comes with a safety gain of ``gain`` or more, with its sign: below 0 the capability falls, above 0 it rises.

    For several capabilities pass ``Overlap.angle``: then it is the length of the displacement within their span.

    Args:
        gain: any shape, up to the budget; 0 or less takes no change.
        alpha: signed angle, broadcast with it.
        budget: B.

    Raises:
        ValueError: on a gain beyond the budget, an angle outside 0..pi, or a budget that is not above 0.
    """
    y, a, rest = _plane(np.maximum(_finite(gain, "safety gains"), 0.0), alpha, budget, "safety gain")
    size = np.maximum(y * np.abs(np.cos(a)) - np.sin(a) * rest, 0.0)
    return np.asarray(np.where(np.cos(a) < 0, -size, size) + 0.0)  # + 0.0: no negative zero


def least_loss(gain: npt.ArrayLike, alpha: npt.ArrayLike, budget: float = 1.0) -> FloatArray:
    """The least that one capability must fall for a safety gain, 0 or more: 0 wherever safety does not lower it.

    Raises:
        ValueError: as ``least_change``.
    """
    return np.maximum(-least_change(gain, alpha, budget), 0.0)


def quadratic_loss(gain: npt.ArrayLike, tau: npt.ArrayLike, curvature: float, budget: float = 1.0) -> FloatArray:
    """The least loss (h/2)||P delta||^2 for a safety gain, in a capability span of equal curvature h.

    Args:
        gain: any shape, up to the budget.
        tau: tax rate, broadcast with it.
        curvature: h, 0 or more.
        budget: B.

    Raises:
        ValueError: on a gain beyond the budget, a tau outside 0..1, or a curvature below 0.
    """
    if not 0 <= curvature < inf:
        raise ValueError(f"the curvature must be a finite number, 0 or more; found {curvature}")
    t = _taxes(tau)
    return curvature / 2 * least_change(gain, np.arctan2(np.sqrt(1 - t), np.sqrt(t)), budget) ** 2


def best_safety_at(targets: npt.ArrayLike, v: npt.ArrayLike, c: npt.ArrayLike | Span, budget: float = 1.0) -> FloatArray:
    """The largest safety change at given changes of all capabilities: Theorem 2.

    Args:
        targets: (..., m) changes of the capabilities.
        v: (d,) safety direction.
        c: (d, m) capability directions.
        budget: B.

    Returns:
        (...,) safety changes.

    Raises:
        ValueError: on directions that do not fit (``overlap.safety_and_span``), or targets that no shift within the budget meets.
    """
    b = check_budget(budget)
    safety, capability = safety_and_span(v, c)
    inner = _inner(targets, capability)
    rest = _remaining(np.linalg.norm(inner, axis=-1), b, "these capability changes")
    free = float(np.linalg.norm(capability.outside(safety)))
    return np.asarray(inner @ (capability.basis.T @ safety) + rest * free)


def best_shift(v: npt.ArrayLike, c: npt.ArrayLike | Span, budget: float = 1.0, targets: npt.ArrayLike | None = None) -> Shift:
    """The shift that gains the most safety at given changes of all capabilities.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        budget: B.
        targets: (m,) changes of the capabilities; None moves none.

    Raises:
        ValueError: as ``best_safety_at``.
    """
    safety, capability = safety_and_span(v, c)
    m = capability.columns.shape[1]
    x = np.zeros(m) if targets is None else np.asarray(targets, dtype=np.float64)
    if x.shape != (m,):
        raise ValueError(f"one change per capability is needed: found the shape {x.shape} for {m} capability directions")
    return _completed(capability.basis @ _inner(x, capability), safety, capability, check_budget(budget))


def best_shift_beside(displacement: npt.ArrayLike, v: npt.ArrayLike, c: npt.ArrayLike | Span, budget: float = 1.0) -> Shift:
    """The shift that gains the most safety if its part in the span of the capabilities is ``displacement`` (d,).

    Raises:
        ValueError: on directions that do not fit, a displacement outside the span, or one longer than the budget.
    """
    safety, capability = safety_and_span(v, c)
    inner = _finite(displacement, "displacements")
    if inner.shape != safety.shape:
        raise ValueError(f"the displacement must be one vector of {len(safety)} dimensions, found the shape {inner.shape}")
    off = float(np.linalg.norm(capability.outside(inner)))
    if off > 1e-9 * float(np.linalg.norm(inner)):
        raise ValueError(f"the displacement leaves the span of the capability directions by {off:.6g}: give its part within the span")
    return _completed(inner, safety, capability, check_budget(budget))


def loss_only_shift(v: npt.ArrayLike, c: npt.ArrayLike | Span, budget: float = 1.0) -> Shift:
    """The shift that gains the most safety and lowers no capability; the zero shift if every one that gains lowers some.

    Raises:
        ValueError: on directions that do not fit, or a budget that is not above 0.
    """
    b = check_budget(budget)
    safety, capability = safety_and_span(v, c)
    return _shift(b * loss_only(safety, capability).direction, safety, capability)


def weighted_shift(v: npt.ArrayLike, c: npt.ArrayLike | Span, weights: npt.ArrayLike, budget: float = 1.0) -> Shift:
    """The shift with the largest safety + sum_i weights_i capability_i, which is along v + C weights.

    The same direction maximises that sum minus a penalty on the squared length. For one capability, weights from -infinity to infinity run along
    the whole upper edge, against its slope; those from 0 up along its efficient part.

    Raises:
        ValueError: on directions or weights that do not fit, or if v + C weights is zero.
    """
    b = check_budget(budget)
    safety, capability = safety_and_span(v, c)
    along = safety + capability.columns @ _weights(weights, capability.columns.shape[1])
    length = float(np.linalg.norm(along))
    if length <= RANK_TOL:
        raise ValueError("safety and the weighted capabilities cancel: with these weights every shift is as good as none")
    return _shift(b * along / length, safety, capability)


def gentlest_shift(
    v: npt.ArrayLike, c: npt.ArrayLike | Span, curvature: npt.ArrayLike, gain: float, budget: float = 1.0
) -> tuple[Shift, float]:
    """The shift of a given safety gain with the least quadratic loss, and that loss.

    It is along (H + r I)^-1 v, H = sum_i h_i c_i c_i', with the largest penalty r at which the budget suffices; without loss where the gain is
    free.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        curvature: (m,) h_i, 0 or more.
        gain: safety gain, from 0 to the budget.
        budget: B.

    Raises:
        ValueError: on directions or curvatures that do not fit, or a gain outside 0..budget.
    """
    b = check_budget(budget)
    safety, capability = safety_and_span(v, c)
    h = _weights(curvature, capability.columns.shape[1])
    if not np.all(h >= 0):
        raise ValueError(f"curvatures must be 0 or more, found {h}")
    if not 0 <= gain <= b * (1 + _ROUNDING):
        raise ValueError(f"a safety gain of {gain:g} lies outside 0 to the budget of {b:g}")
    kept = h > 0
    if not kept.any():
        return _shift(gain * safety, safety, capability), 0.0
    axes, singular, _ = np.linalg.svd(capability.columns[:, kept] * np.sqrt(h[kept]), full_matrices=False)
    bent = singular > RANK_TOL * singular[0]
    axes, hardness = axes[:, bent], singular[bent] ** 2
    inside, outside = axes.T @ safety, span(axes).outside(safety)
    free = float(np.linalg.norm(outside))
    weights, weight = _yielding(inside, hardness / hardness.max(), free if free > RANK_TOL else 0.0, gain, b)
    delta = gain * (axes @ (inside * weights) + weight * outside) / (float(inside**2 @ weights) + weight * free**2)
    found = _shift(delta, safety, capability)
    return found, float(np.sum(h * found.capability**2)) / 2


def safety_ellipsoid(vs: npt.ArrayLike, c: npt.ArrayLike | Span, budget: float = 1.0) -> SafetyEllipsoid:
    """What safety directions (d, n) can reach together if no capability moves.

    Raises:
        ValueError: on directions that do not fit, or a budget that is not above 0.
    """
    b, capability = check_budget(budget), c if isinstance(c, Span) else span(c)
    objectives = unit_columns(vs, "safety direction")
    safety_and_span(objectives[:, 0], capability)
    free = capability.outside(objectives)
    return SafetyEllipsoid(free.T @ free, free, b)


def _finite(x: npt.ArrayLike, name: str) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} must be finite numbers, found {values[~np.isfinite(values)].flat[0]}")
    return values


def _angles(alpha: npt.ArrayLike) -> FloatArray:
    a = _finite(alpha, "angles")
    if np.any(a < 0) or np.any(a > pi + _ROUNDING):
        raise ValueError(f"an angle lies between 0 and pi, in radians; found {a[(a < 0) | (a > pi)].flat[0]:g}")
    return a


def _taxes(tau: npt.ArrayLike) -> FloatArray:
    t = _finite(tau, "tax rates")
    if np.any(t < -_ROUNDING) or np.any(t > 1 + _ROUNDING):
        raise ValueError(f"a tax rate lies between 0 and 1; found {t[(t < 0) | (t > 1)].flat[0]:g}")
    return np.clip(t, 0.0, 1.0)


def _weights(x: npt.ArrayLike, m: int) -> FloatArray:
    values = _finite(x, "weights and changes")
    if values.shape != (m,):
        raise ValueError(f"one number per direction is needed: found the shape {values.shape} for {m} directions")
    return values


def _remaining(sizes: npt.ArrayLike, budget: float, name: str) -> FloatArray:
    """sqrt(B^2 - size^2), 0 where size is B but for rounding."""
    size = np.asarray(sizes, dtype=np.float64)
    over = size > budget * (1 + _ROUNDING)
    if np.any(over):
        raise ValueError(f"{name} cannot be had: a budget of at least {np.max(size):.10g} is needed, and it is {budget:g}")
    return np.asarray(np.sqrt(np.maximum((budget - size) * (budget + size), 0.0)))


def _plane(along: npt.ArrayLike, alpha: npt.ArrayLike, budget: float, name: str) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Changes within the budget, angles, and sqrt(B^2 - change^2)."""
    b, a, x = check_budget(budget), _angles(alpha), _finite(along, f"{name}s")
    rest = _remaining(np.abs(x), b, f"a {name} of {x.flat[int(np.argmax(np.abs(x)))]:g}" if x.size else name)
    return np.clip(x, -b, b), a, rest


def _least_length(columns: FloatArray, changes: FloatArray) -> tuple[float, float]:
    """The length of the shortest shift whose products with the columns (d, n) come closest to ``changes`` (n,), and by how much they miss."""
    shift = np.linalg.lstsq(columns.T, changes, rcond=RANK_TOL)[0]
    return float(np.linalg.norm(shift)), float(np.linalg.norm(columns.T @ shift - changes))


def _inner(targets: npt.ArrayLike, capability: Span) -> FloatArray:
    """(..., r) coordinates in the span of the shortest shift that changes the capabilities by ``targets`` (..., m)."""
    x, m = _finite(targets, "capability changes"), capability.columns.shape[1]
    if not x.ndim or x.shape[-1] != m:
        raise ValueError(f"one change per capability is needed: found the shape {x.shape} for {m} capability directions")
    clash = float(np.abs(x @ capability.null).max(initial=0.0))
    if clash > 1e-9 * float(np.abs(x).max(initial=0.0)):
        raise ValueError(
            f"these capability changes contradict each other by {clash:.6g}: the directions are dependent ({capability.rank} of {m} are "
            f"independent), and dependent capabilities change together"
        )
    return np.asarray(x @ capability.right / capability.singular)


def _completed(inner: FloatArray, safety: FloatArray, capability: Span, budget: float) -> Shift:
    """``inner`` (d,), a shift within the span, and all that is left of the budget along the part of v outside it."""
    rest = float(_remaining(np.linalg.norm(inner), budget, "these capability changes"))
    outside = capability.outside(safety)
    free = float(np.linalg.norm(outside))
    return _shift(inner + rest * outside / free if free > RANK_TOL else inner, safety, capability)


def _yielding(inside: FloatArray, hardness: FloatArray, free: float, gain: float, budget: float) -> tuple[FloatArray, float]:
    """By how much each component of v (r,) in the axes of the curvature is followed, and how much the part outside of them, for the least loss.

    That is 1/(1 + t hardness) and 1 with the largest t at which the gain is had within the budget; ``hardness`` (r,) is 1 at most.
    """
    from scipy.optimize import brentq  # slow to import, and only this needs it

    none, every, easiest = np.zeros_like(inside), np.ones_like(inside), 1 / hardness

    def excess(weights: FloatArray, weight: float = 1.0) -> float:
        """Length of the shift that has the gain, minus the budget."""
        length = np.sqrt(float(inside**2 @ weights**2) + weight * free**2)
        return gain * float(length) / (float(inside**2 @ weights) + weight * free**2) - budget

    if free > 0 and excess(none) <= _ROUNDING * budget:
        return none, 1.0
    if free == 0 and excess(easiest, 0.0) <= _ROUNDING * budget:
        return easiest, 0.0
    if excess(every) >= -_ROUNDING * budget:
        return every, 1.0
    top = 1.0
    while excess(1 / (1 + top * hardness)) < 0:
        top *= 4.0
    t = float(brentq(lambda t: excess(1 / (1 + t * hardness)), 0.0, top, xtol=1e-14, rtol=1e-14, maxiter=1000))
    return 1 / (1 + t * hardness), 1.0


def _shift(delta: FloatArray, safety: FloatArray, capability: Span) -> Shift:
    return Shift(delta, float(safety @ delta), capability.columns.T @ delta, float(np.linalg.norm(delta)))
