"""Two safety objectives when capabilities are kept where they are: what their conflict becomes.

v1, v2 (d,) and the capability directions c (d, m) have length 1; rho = <v1, v2> is how the objectives pull together (below 0: a conflict), a = C'v1
and b = C'v2 their overlaps, g = a'G^+ b what they share through the capabilities (a b for one capability), tau1 and tau2 their tax rates, P the
projector on the capabilities' span. With r_i = (I - P) v_i:

    partial = (rho - g)/sqrt((1 - tau1)(1 - tau2)) = cos(r1, r2)                        the partial correlation of v1 and v2 given C
    s1 <= s2 partial + sqrt(1 - partial^2) sqrt(1 - s2^2)                               gains s_i in units of B sqrt(1 - tau_i)
    y1 <= sqrt((1 - tau1)/(1 - tau2)) partial y2 + sqrt(1 - partial^2) sqrt(1 - tau1) sqrt(B^2 - y2^2/(1 - tau2))                       in raw units
    1 - tau(v | C and u) = (1 - tau(v | C)) (1 - partial(v, u | C)^2)                   the chain rule: tau is an R^2
    |partial| <= 1                                                                      feasible: such directions exist; for one capability
                                                                                        1 - a^2 - b^2 - rho^2 + 2 a b rho >= 0

Outcomes of keeping the capabilities, all about the *shape* of what can be had together, each objective in units of its own largest gain:

==========  ====================  =====================================================================
resolved    rho < 0 < partial     g < rho: the conflict becomes a synergy
mediated    rho < 0 = partial     g = rho: the conflict ran through the capabilities entirely
attenuated  rho < partial < 0     (1 - q)|rho| < -g < |rho|, q = sqrt((1 - tau1)(1 - tau2))
unchanged   rho = partial < 0     as without overlap
worsened    partial < rho < 0     the capabilities hid conflict; g >= 0 suffices (unless both taxes are 0)
induced     partial < 0 <= rho    keeping the capabilities creates a conflict
none        0 <= rho, partial     no conflict before or after
==========  ====================  =====================================================================

**The level never rises.** Keeping capabilities is a constraint: no pair of gains becomes possible that was not before. It costs nothing at weights
(w1, w2) exactly if P(w1 v1 + w2 v2) = 0; ``kept`` tells what it costs. "Restricting a capability helps" holds for the shape alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from aligntax.stats.clusters import FloatArray
from aligntax.stats.frontier import check_budget
from aligntax.stats.overlap import RANK_TOL, Span, safety_and_span, span, unit_vector

StrArray = npt.NDArray[np.str_]

_SAME = 1e-12  # cosines that differ by less are equal but for rounding


@dataclass(frozen=True)
class Coupling:
    """Two safety objectives, before and after capabilities are kept.

    Attributes:
        rho: cosine between them.
        tau1, tau2: their tax rates.
        shared: g, what they share through the capabilities.
        partial: cosine between what is left of them.
        outcome: see the module.
    """

    rho: float
    tau1: float
    tau2: float
    shared: float
    partial: float
    outcome: str


@dataclass(frozen=True)
class Kept:
    """What keeping capabilities costs two objectives, and what it does to the shape.

    Attributes:
        before, after: largest weighted sum of both gains, without and with the capabilities kept; after <= before.
        free: keeping them costs nothing at these weights.
        fair_before, fair_after: largest gain that both objectives have at least; fair_after <= fair_before.
        rho, partial: cosine between the objectives, before and after.
        outcome: see the module.
        delta: (d,) the shift of ``after``; zeros if nothing can be gained.
    """

    before: float
    after: float
    free: bool
    fair_before: float
    fair_after: float
    rho: float
    partial: float
    outcome: str
    delta: FloatArray


def partial_cosine(rho: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> FloatArray:
    """The partial cosine from three cosines, for one capability: (rho - a b)/sqrt((1 - a^2)(1 - b^2)).

    Args:
        rho: between both objectives, any shape.
        a: of the first objective with the capability, broadcast with it.
        b: of the second.

    Raises:
        ValueError: on cosines outside -1..1, three that no directions have, or an objective that is the capability.
    """
    r, x, y = np.broadcast_arrays(*(_cosines(name, values) for name, values in (("rho", rho), ("a", a), ("b", b))))
    bad = ~feasible(r, x, y)
    if bad.any():
        first = tuple(float(values[bad].flat[0]) for values in (r, x, y))
        raise ValueError(
            f"no three directions have the cosines rho = {first[0]:g}, a = {first[1]:g}, b = {first[2]:g}: "
            f"1 - a^2 - b^2 - rho^2 + 2 a b rho must be 0 or more"
        )
    return partial_from(r, x * y, x * x, y * y)


def partial_from(rho: npt.ArrayLike, shared: npt.ArrayLike, tau1: npt.ArrayLike, tau2: npt.ArrayLike) -> FloatArray:
    """The partial cosine from what several capabilities make of two objectives: (rho - g)/sqrt((1 - tau1)(1 - tau2)).

    Args:
        rho: cosine between both objectives, any shape.
        shared: g = a'G^+ b, broadcast with it.
        tau1: tax rate of the first objective.
        tau2: of the second.

    Raises:
        ValueError: on values that no directions have, or a tax rate of 1 (kept, the capabilities leave nothing of that objective to gain).
    """
    r, g, first, second = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (rho, shared, tau1, tau2)))
    taxed = np.maximum(first, second)
    if not (np.all(np.minimum(first, second) >= 0) and np.all(taxed <= 1)):
        raise ValueError("tax rates lie between 0 and 1")
    if np.any(1 - taxed <= _SAME):
        raise ValueError("an objective lies in the span of the capabilities (its tax rate is 1): kept, they leave nothing of it to gain")
    q = np.sqrt((1 - first) * (1 - second))
    bad = ~(((r - g) ** 2 <= q**2 + _SAME) & (g**2 <= first * second + _SAME))
    if bad.any():
        raise ValueError(
            f"no directions have rho = {r[bad].flat[0]:g}, shared = {g[bad].flat[0]:g} and tax rates {first[bad].flat[0]:g} and "
            f"{second[bad].flat[0]:g}: |rho - shared| is at most sqrt((1 - tau1)(1 - tau2)), and |shared| at most sqrt(tau1 tau2)"
        )
    return np.asarray(np.clip((r - g) / q, -1.0, 1.0))


def feasible(rho: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Whether three directions have these cosines: 1 - a^2 - b^2 - rho^2 + 2 a b rho >= 0, but for rounding.

    Raises:
        ValueError: on cosines outside -1..1.
    """
    r, x, y = (_cosines(name, values) for name, values in (("rho", rho), ("a", a), ("b", b)))
    return np.asarray(1 - x * x - y * y - r * r + 2 * x * y * r >= -_SAME)


def outcomes(rho: npt.ArrayLike, partial: npt.ArrayLike) -> StrArray:
    """What keeping the capabilities does to a conflict; see the module.

    Args:
        rho: cosine between both objectives, any shape; closer to 0 than rounding it is 0.
        partial: the same with the capabilities kept, broadcast with it.

    Raises:
        ValueError: on cosines outside -1..1.
    """
    r, p = np.broadcast_arrays(_cosines("rho", rho), _cosines("partial", partial))
    conflict = r < -_SAME
    cases = [
        ~conflict & (p < -_SAME),
        ~conflict,
        np.abs(p) <= _SAME,
        p > 0,
        np.abs(p - r) <= _SAME,
        p > r,
    ]
    return np.select(cases, ["induced", "none", "mediated", "resolved", "unchanged", "attenuated"], default="worsened")


def coupling(v1: npt.ArrayLike, v2: npt.ArrayLike, c: npt.ArrayLike | Span) -> Coupling:
    """Two safety directions (d,) against capability directions (d, m).

    Raises:
        ValueError: on directions that do not fit (``overlap.safety_and_span``), or an objective in the span of the capabilities: kept, they leave
            nothing of it to gain.
    """
    first, second, capability = _both(v1, v2, c)
    rest1, rest2 = capability.outside(first), capability.outside(second)
    free1, free2 = float(np.linalg.norm(rest1)), float(np.linalg.norm(rest2))
    for name, free in (("first", free1), ("second", free2)):
        if free <= RANK_TOL:
            raise ValueError(f"the {name} safety direction lies in the span of the capabilities: kept, they leave nothing of it to gain")
    rho, partial = float(first @ second), _cosine(rest1, rest2)
    return Coupling(
        rho=rho,
        tau1=max(1 - free1**2, 0.0),
        tau2=max(1 - free2**2, 0.0),
        shared=float(first @ capability.inside(second)),
        partial=partial,
        outcome=str(outcomes(rho, partial)),
    )


def best_share(other: npt.ArrayLike, partial: npt.ArrayLike) -> FloatArray:
    """The largest gain of one objective at a gain of the other, capabilities kept, both as shares of their own largest gains then.

    Args:
        other: s2, any shape, from -1 to 1.
        partial: partial cosine, broadcast with it.

    Raises:
        ValueError: on a share or cosine outside -1..1.
    """
    s, p = _cosines("the other objective's share", other), _cosines("the partial cosine", partial)
    return np.asarray(s * p + np.sqrt((1 - p) * (1 + p) * (1 - s) * (1 + s)))


def best_gain(other: npt.ArrayLike, partial: float, tau1: float, tau2: float, budget: float = 1.0) -> FloatArray:
    """The largest gain of the first objective at a gain of the second, capabilities kept, in units of <v, delta>.

    Args:
        other: gain of the second objective, any shape, up to budget sqrt(1 - tau2) either way.
        partial: partial cosine.
        tau1: tax rate of the first objective.
        tau2: of the second.
        budget: B.

    Raises:
        ValueError: on a tax rate outside 0..1 (1 for the second), a cosine outside -1..1, or a gain that cannot be had, told with what is needed.
    """
    b, y = check_budget(budget), np.asarray(other, dtype=np.float64)
    if not (0 <= tau1 <= 1 and 0 <= tau2 < 1):
        raise ValueError(f"tax rates lie between 0 and 1, that of the second objective below 1; found {tau1:g} and {tau2:g}")
    largest = b * sqrt(1 - tau2)
    if not np.all(np.abs(y) <= largest * (1 + _SAME)):
        worst = float(np.max(np.abs(y)))
        raise ValueError(
            f"the second objective can change by {largest:.10g} at most with the capabilities kept: for {worst:g} a budget of at least "
            f"{worst / sqrt(1 - tau2):.10g} is needed, and it is {b:g}"
        )
    return b * sqrt(1 - tau1) * best_share(np.clip(y / largest, -1, 1), partial)


def best_pair_shift(v1: npt.ArrayLike, v2: npt.ArrayLike, c: npt.ArrayLike | Span, gain2: float, budget: float = 1.0) -> FloatArray:
    """(d,) the shift that gains the most of the first objective at a gain of the second, and moves no capability.

    Raises:
        ValueError: as ``coupling`` and ``best_gain``.
    """
    first, second, capability = _both(v1, v2, c)
    found = coupling(first, second, capability)
    best_gain(gain2, found.partial, found.tau1, found.tau2, budget)  # refuses what cannot be had
    rest1, rest2 = capability.outside(first), capability.outside(second)
    along = rest2 / np.linalg.norm(rest2)
    aside = rest1 - along * (along @ rest1)
    needed, length = gain2 / float(np.linalg.norm(rest2)), float(np.linalg.norm(aside))
    delta = needed * along
    if length <= RANK_TOL:
        return np.asarray(delta)
    return np.asarray(delta + sqrt(max((budget - needed) * (budget + needed), 0.0)) * aside / length)


def sequential_cosines(v: npt.ArrayLike, c: npt.ArrayLike) -> FloatArray:
    """(m,) partial cosine of the safety direction and each capability given those before it; 1 - tau is the product of 1 - cosine^2.

    0 where the capability lies in the span of those before it, or where these leave nothing of the safety direction.

    Raises:
        ValueError: as ``overlap.safety_and_span``.
    """
    rest, capability = safety_and_span(v, c)
    found = np.zeros(capability.columns.shape[1])
    before: Span | None = None
    for i, column in enumerate(capability.columns.T):
        own = column if before is None else before.outside(column)
        if min(np.linalg.norm(own), np.linalg.norm(rest)) > RANK_TOL:
            found[i] = _cosine(rest, own)
        before = span(capability.columns[:, : i + 1])
        rest = before.outside(rest)
    return found


def kept(
    v1: npt.ArrayLike, v2: npt.ArrayLike, c: npt.ArrayLike | Span, weights: tuple[float, float] = (1.0, 1.0), budget: float = 1.0
) -> Kept:
    """What keeping the capabilities costs at weights (w1, w2) of the objectives, and for the worse-off of both.

    Args:
        v1: (d,) first safety direction.
        v2: (d,) second.
        c: (d, m) capability directions.
        weights: not both 0, and not such that the objectives cancel.
        budget: B.

    Raises:
        ValueError: as ``coupling``, or on weights that leave nothing to gain.
    """
    b = check_budget(budget)
    first, second, capability = _both(v1, v2, c)
    found = coupling(first, second, capability)
    total = weights[0] * first + weights[1] * second
    scale = max(abs(weights[0]), abs(weights[1]))
    size = float(np.linalg.norm(total))
    if not np.isfinite(size) or size <= RANK_TOL * scale:
        raise ValueError(f"weights must be finite and leave something to gain; with {weights} the two objectives cancel or count nothing")
    rest, inside = capability.outside(total), float(np.linalg.norm(capability.inside(total)))
    left = float(np.linalg.norm(rest))
    return Kept(
        before=b * size,
        after=b * left,
        free=inside <= 1e-9 * size,
        fair_before=b * _nearest(first, second),
        fair_after=b * _nearest(capability.outside(first), capability.outside(second)),
        rho=found.rho,
        partial=found.partial,
        outcome=found.outcome,
        delta=b * rest / left if left > RANK_TOL * size else np.zeros_like(rest),
    )


def _both(v1: npt.ArrayLike, v2: npt.ArrayLike, c: npt.ArrayLike | Span) -> tuple[FloatArray, FloatArray, Span]:
    first, capability = safety_and_span(unit_vector(v1, "the first safety direction"), c)
    second, _ = safety_and_span(unit_vector(v2, "the second safety direction"), capability)
    return first, second, capability


def _cosines(name: str, values: npt.ArrayLike) -> FloatArray:
    x = np.asarray(values, dtype=np.float64)
    bad = ~(np.abs(x) <= 1 + _SAME)
    if bad.any():
        raise ValueError(f"{name} lies between -1 and 1; found {x[bad].flat[0]:g}")
    return np.clip(x, -1.0, 1.0)


def _cosine(x: FloatArray, y: FloatArray) -> float:
    return float(np.clip(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)), -1.0, 1.0))


def _nearest(x: FloatArray, y: FloatArray) -> float:
    """Distance from 0 to the segment between x and y: the largest gain that both have at least, per budget, is the least over weights."""
    step = y - x
    length = float(step @ step)
    at = min(max(-float(x @ step) / length, 0.0), 1.0) if length > 0 else 0.0
    return float(np.linalg.norm(x + at * step))
