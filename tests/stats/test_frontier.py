"""Frontiers of safety against capability: known answers, shifts that reach them, and searches that find nothing better."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, pi, radians, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy.optimize import minimize

from aligntax.stats.frontier import (
    attainable,
    best_safety,
    best_safety_at,
    best_shift,
    best_shift_beside,
    ellipse,
    exchange_rate,
    free_gain,
    gentlest_shift,
    least_change,
    least_loss,
    loss_only_shift,
    on_edge,
    quadratic_loss,
    safety_ellipsoid,
    safety_range,
    weighted_shift,
)
from aligntax.stats.overlap import loss_only, overlap, principal, signed_angle, tax_rate

CORRELATED = np.array([[1, 0.6], [0, 0.8], [0, 0]])
V = np.array([0.5, 0.5, sqrt(0.5)])
CHANGES = [-0.5, 0, 0.25, 0.5, 0.75, 1]
FRONTIER = {
    30: [0, 0.5, 0.7006292692, 0.8660254038, 0.9802379667, 0.8660254038],
    45: [0.2588190451, 0.7071067812, 0.8614298922, 0.9659258263, 0.9980372592, 0.7071067812],
    60: [0.5, 0.8660254038, 0.9635254916, 1, 0.9478219619, 0.5],
    85: [0.8191520443, 0.9961946981, 0.9863503045, 0.9063077870, 0.7242876642, 0.0871557427],
    90: [0.8660254038, 1, 0.9682458366, 0.8660254038, 0.6614378278, 0],
    120: [1, 0.8660254038, 0.7135254916, 0.5, 0.1978219619, -0.5],
}
SCHEDULE = {
    45: (0.7071067812, {0.75: 0.0626229125, 0.9: 0.3281754029, 1: 0.7071067812}),
    30: (0.5, {0.75: 0.3188001390, 0.9: 0.5614779162, 1: 0.8660254038}),
    60: (0.8660254038, {0.9: 0.0725082782, 0.95: 0.2045836543, 1: 0.5}),
    85: (0.9961946981, {1: 0.0871557427}),
}

seeds = st.integers(0, 10**6)
angles = st.floats(0, pi)


@pytest.fixture
def known(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("theory_cases.json"))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """A safety direction, fewer capability directions than dimensions, both of length 1, and the generator."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 8))
    c = rng.normal(size=(d, int(rng.integers(1, d))))
    v = rng.normal(size=d)
    return v / np.linalg.norm(v), c / np.linalg.norm(c, axis=0), rng


@pytest.mark.parametrize("degrees", FRONTIER)
def test_known_frontier(degrees: int) -> None:
    a = radians(degrees)
    assert best_safety(CHANGES, a) == approx(FRONTIER[degrees], abs=1e-9)
    assert best_safety(2 * np.array(CHANGES), a, 2) == approx(2 * np.array(FRONTIER[degrees]), abs=1e-9)


@pytest.mark.parametrize("degrees", SCHEDULE)
def test_known_tax_schedule(degrees: int) -> None:
    free, taxes = SCHEDULE[degrees]
    a = radians(degrees)
    assert free_gain(np.cos(a) ** 2) == approx(free, abs=1e-9)
    assert least_change(free, a) == approx(0, abs=1e-9)
    assert least_change([0.0, -1.0, 0.99 * free], a).tolist() == [0, 0, 0]
    assert least_change(list(taxes), a) == approx(list(taxes.values()), abs=1e-9)
    # Beyond a right angle safety lowers the capability by as much, and nothing is lost before it.
    assert least_change(list(taxes), pi - a) == approx([-t for t in taxes.values()], abs=1e-9)
    assert least_loss(list(taxes), pi - a) == approx(list(taxes.values()), abs=1e-9)
    assert not least_loss(list(taxes), a).any()


def test_the_golden_cases(known: dict[str, Any]) -> None:
    for name, row in known["A_frontier_B1"].items():
        a, x = radians(float(name.split("=")[1])), [float(key.split("=")[1]) for key in row]
        assert best_safety(x, a) == approx(list(row.values()), abs=1e-9)
    for name, row in known["B_taxschedule_B1"].items():
        a, free = radians(float(name.split("=")[1])), row.pop("free")
        assert free_gain(np.cos(a) ** 2) == approx(free, abs=1e-9)
        assert least_change([float(key.split("=")[1]) for key in row], a) == approx(list(row.values()), abs=1e-9)
    case = known["C_multi"]
    v, c = case["v"], case["C"]
    assert best_safety_at([x for x, _ in case["at_dC"]], v, c) == approx([y for _, y in case["at_dC"]], abs=1e-9)
    assert best_shift(v, c).safety == approx(case["free_gain_B1"], abs=1e-9)
    assert best_shift(v, c, 2).safety == approx(case["free_gain_B2"], abs=1e-9)
    assert best_shift(v, c, 1, case["unconstrained_at"]).safety == approx(case["unconstrained"], abs=1e-9)
    case = known["C_cone"]
    assert best_shift(case["v"], case["C"]).safety == approx(case["gain_two_sided"], abs=1e-9)
    assert loss_only_shift(case["v"], case["C"]).safety == approx(case["gain_loss_only"], abs=1e-9)
    case = known["H_quad"]
    assert quadratic_loss(case["B"], case["tau"], case["h"], case["B"]) == approx(case["loss_full"], abs=1e-9)
    for row in case["loss_at"]:
        assert quadratic_loss(row["dS"], case["tau"], case["h"], case["B"]) == approx(row["loss"], abs=1e-9)


def test_known_answers_of_several_capabilities() -> None:
    found = best_safety_at([[0.2, 0.1], [-0.2, 0.1], [0.3, 0.3], [0.5, 0.7]], V, CORRELATED)
    assert found == approx([0.7800947589, 0.7024718039, 0.8911456297, 1], abs=1e-9)
    assert best_shift(V, CORRELATED).safety == approx(0.7071067812, abs=1e-9)
    cone = np.array([0.6, -0.5, 0.6244997998398398])
    assert best_shift(cone, np.eye(3)[:, :2]).safety == approx(0.6244997998, abs=1e-9)
    assert loss_only_shift(cone, np.eye(3)[:, :2]).safety == approx(0.8660254038, abs=1e-9)
    assert loss_only_shift(cone, np.eye(3)[:, :2]).capability == approx([0.6 / 0.8660254038, 0], abs=1e-9)


def test_known_quadratic_losses() -> None:
    assert quadratic_loss([0.8, 0.9, 0.95, 1], 0.25, 2) == approx([0, 0.0052574504, 0.0418544716, 0.25], abs=1e-9)
    assert quadratic_loss(3.0, 0.25, 2, 3) == approx(0.25 * 9, abs=1e-9)
    assert quadratic_loss(1.0, [0, 1], 2) == approx([0, 1], abs=1e-12)


def test_one_direction_or_its_opposite() -> None:
    """At 0 and 180 degrees the frontier is a line, and its ends are those of the budget."""
    x = np.array([-1, -0.5, 0, 0.75, 1])
    assert best_safety(x, 0.0) == approx(x, abs=1e-12)
    assert best_safety(x, pi) == approx(-x, abs=1e-12)
    assert exchange_rate(x, [[0.0], [pi]]).tolist() == [[1] * 5, [-1] * 5]
    assert attainable([0.5, 0.5, 2], [0.5, 0.49, 2], 0.0).tolist() == [True, False, False]
    assert attainable([np.cos(1) + 1e-8, 1], [1, np.cos(1) + 1e-8], 1.0).all()
    assert least_change(0.3, 0.0) == approx(0.3)
    assert least_loss(0.3, pi) == approx(0.3)
    assert ellipse(0.0, 2).falling == 0
    assert ellipse(0.0, 2).rising == approx(2 * sqrt(2))
    assert best_safety([-1, 1], radians(40)) == approx([-np.cos(radians(40)), np.cos(radians(40))])


@given(angles, st.floats(-1, 1), st.floats(0.1, 10))
@settings(max_examples=40, deadline=None)
def test_the_edge_is_an_ellipse(alpha: float, share: float, budget: float) -> None:
    x = share * budget
    low, high = safety_range(x, alpha, budget)
    assert high == best_safety(x, alpha, budget)
    for y in (low, high):
        assert x * x - 2 * x * y * np.cos(alpha) + y * y <= budget**2 * np.sin(alpha) ** 2 + 1e-9 * budget**2
        assert attainable(x, y, alpha, budget)
        assert attainable(y, x, alpha, budget)  # the same with roles swapped
    if abs(share) < 0.999 and 0.01 < alpha < pi - 0.01:
        assert not attainable(x, high + 1e-3 * budget, alpha, budget)
        assert not attainable(high + 1e-3 * budget, x, alpha, budget)
    phi = float(np.arccos(share))
    assert on_edge(phi, alpha, budget) == approx(
        (x, float(best_safety(x, alpha, budget))), abs=1e-7 * budget
    )  # a root's digits at the ends


@given(st.floats(0.02, pi - 0.02), st.floats(-0.99, 0.99))
@settings(max_examples=30, deadline=None)
def test_exchange_rates_are_slopes_and_weights(alpha: float, x: float) -> None:
    h = 1e-6
    slope = (best_safety(x + h, alpha) - best_safety(x - h, alpha)) / (2 * h)
    rate = float(exchange_rate(x, alpha))
    assert rate == approx(float(slope), rel=1e-4, abs=1e-5)
    v, c = np.array([np.cos(alpha), np.sin(alpha), 0]), np.array([1.0, 0, 0])
    found = weighted_shift(v, c, [-rate])
    assert found.capability == approx([x], abs=1e-9)
    assert found.safety == approx(float(best_safety(x, alpha)), abs=1e-9)


def test_axes_and_ends() -> None:
    a, b = radians(50), 1.5
    found = ellipse(a, b)
    phi = np.linspace(0, 2 * pi, 200001)
    x, y = on_edge(phi, a, b)
    assert np.max(x + y) / sqrt(2) == approx(found.rising, abs=1e-9)
    assert np.max(x - y) / sqrt(2) == approx(found.falling, abs=1e-9)
    assert abs(np.trapezoid(y, x)) == approx(found.area, rel=1e-8)
    assert exchange_rate([-b, 0, b * np.cos(a), b], a, b) == approx([inf, np.cos(a), 0, -inf], abs=1e-9)
    # Efficient from the capability's direction to safety's: from (B, B cos) to (B cos, B).
    assert np.array(on_edge([0, a], a, b)) == approx(np.array([[b, b * np.cos(a)], [b * np.cos(a), b]]))


@given(angles, st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_the_schedule_inverts_the_frontier(alpha: float, gain: float) -> None:
    change = float(least_change(gain, alpha))
    assert best_safety(change, alpha) >= gain - 1e-9
    closer = 0.999 * change
    if abs(change) > 1e-3:
        assert best_safety(closer, alpha) < gain
        assert np.sign(change) == np.sign(np.cos(alpha))
        # The source's other form of it.
        a = min(alpha, pi - alpha)
        assert abs(change) == approx(np.cos(a + np.arccos(gain)), abs=1e-7)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_best_shift_meets_its_targets_and_none_beats_it(seed: int) -> None:
    v, c, rng = drawn(seed)
    budget = float(rng.uniform(0.5, 3))
    random = rng.normal(size=(500, len(v)))
    random *= budget / np.linalg.norm(random, axis=1, keepdims=True)
    targets = rng.uniform(0, 0.9) * c.T @ random[0]
    found = best_shift(v, c, budget, targets)
    assert found.capability == approx(targets, abs=1e-9)
    assert found.length == approx(budget, abs=1e-9)
    assert np.linalg.norm(found.delta) == approx(budget, abs=1e-9)
    assert v @ found.delta == approx(found.safety, abs=1e-12)
    assert found.safety == approx(float(best_safety_at(targets, v, c, budget)), abs=1e-9)
    g, b = c.T @ c, c.T @ v
    inner, tau = np.linalg.solve(g, targets), b @ np.linalg.solve(g, b)
    assert found.safety == approx(b @ inner + sqrt(budget**2 - targets @ inner) * sqrt(1 - tau), abs=1e-7)
    # Each random shift is mended to meet the targets, then cut to the budget outside the span.
    base = c @ inner
    outside = random - random @ np.linalg.qr(c)[0] @ np.linalg.qr(c)[0].T
    tried = base + outside * (sqrt(budget**2 - base @ base) / np.linalg.norm(outside, axis=1, keepdims=True))
    assert tried @ c == approx(np.tile(targets, (len(tried), 1)), abs=1e-9)
    assert np.all(tried @ v <= found.safety + 1e-9)
    # Every random shift lies at or below the frontier at its own changes.
    assert np.all(random @ v <= best_safety_at(random @ c * (1 - 1e-12), v, c, budget) + 1e-6)
    beside = best_shift_beside(base, v, c, budget)
    assert beside.delta == approx(found.delta, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_direct_optimiser_finds_the_same(seed: int) -> None:
    v, c, rng = drawn(seed)
    targets = 0.4 * c.T @ (rng.normal(size=len(v)) / sqrt(len(v)))
    ball = {"type": "ineq", "fun": lambda x: 4 - x @ x, "jac": lambda x: -2 * x}
    equal = {"type": "eq", "fun": lambda x: c.T @ x - targets, "jac": lambda x: c.T}
    above = {"type": "ineq", "fun": lambda x: c.T @ x, "jac": lambda x: c.T}

    def largest(limit: dict[str, Any]) -> float:
        start = 0.1 * rng.normal(size=len(v))
        found = minimize(lambda x: -v @ x, start, jac=lambda x: -v, constraints=[ball, limit], method="SLSQP", options={"ftol": 1e-13})
        assert found.success
        return float(-found.fun)

    assert largest(equal) == approx(best_shift(v, c, 2, targets).safety, abs=1e-6)
    assert largest(above) == approx(loss_only_shift(v, c, 2).safety, abs=1e-6)
    curvature = rng.uniform(0.5, 3, c.shape[1])
    gain = 0.5 * (1 + best_shift(v, c).safety) * 2
    reach = {"type": "ineq", "fun": lambda x: v @ x - gain, "jac": lambda x: v}
    h = c * curvature @ c.T
    low = minimize(
        lambda x: x @ h @ x / 2, gain * v, jac=lambda x: h @ x, constraints=[ball, reach], method="SLSQP", options={"ftol": 1e-13}
    )
    assert min(4 - low.x @ low.x, v @ low.x - gain) > -1e-7
    assert low.fun == approx(gentlest_shift(v, c, curvature, gain, 2)[1], abs=1e-6)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_one_capability_by_angle_and_by_vectors(seed: int) -> None:
    v, c, rng = drawn(seed)
    alpha, x = signed_angle(v, c[:, 0]), float(rng.uniform(-2, 2))
    assert best_shift(v, c[:, 0], 2, [x]).safety == approx(float(best_safety(x, alpha, 2)), abs=1e-9)
    assert loss_only_shift(v, c[:, 0], 2).safety == approx(float(free_gain(loss_only(v, c[:, 0]).tau, 2)), abs=1e-9)


@given(seeds, st.floats(0, 1))
@settings(max_examples=20, deadline=None)
def test_the_gentlest_shift(seed: int, share: float) -> None:
    v, c, rng = drawn(seed)
    axes = np.linalg.qr(c)[0]
    tau, free = tax_rate(v, c), overlap(v, c).free
    # With equal curvature in the span it is the closed form.
    found, loss = gentlest_shift(v, axes, np.full(axes.shape[1], 2.0), share, 1)
    assert loss == approx(float(quadratic_loss(share, tau, 2)), abs=1e-7)
    assert found.safety == approx(share, abs=1e-9)
    assert found.length <= 1 + 1e-9
    curvature = rng.uniform(0, 3, c.shape[1])
    found, loss = gentlest_shift(v, c, curvature, 1.5 * share, 1.5)
    assert found.safety == approx(1.5 * share, abs=1e-9)
    assert found.length <= 1.5 + 1e-9
    h = c * curvature @ c.T
    assert loss == approx(found.delta @ h @ found.delta / 2, abs=1e-9)
    if share <= free:
        assert loss == approx(0, abs=1e-12)
    for step in rng.normal(size=(200, len(v))) * 10.0 ** rng.uniform(-4, 0, (200, 1)):
        other = found.delta + step
        other += v * (1.5 * share - v @ other)
        if np.linalg.norm(other) <= 1.5:
            assert other @ h @ other / 2 >= loss - 1e-9


def test_the_gentlest_shift_without_free_directions() -> None:
    """Where capabilities span everything, a small gain takes H^-1 v, a large one what the budget allows, the largest v."""
    v, h = np.array([0.8, 0.6]), np.array([1.0, 4.0])
    small, loss = gentlest_shift(v, np.eye(2), h, 0.1)
    pull = v / h
    assert small.delta == approx(0.1 * pull / (v @ pull), abs=1e-12)
    assert loss == approx(0.5 * 0.01 / (v @ pull), abs=1e-12)
    large, _ = gentlest_shift(v, np.eye(2), h, 0.95)
    assert large.length == approx(1, abs=1e-9)
    assert gentlest_shift(v, np.eye(2), h, 1)[0].delta == approx(v, abs=1e-9)
    assert gentlest_shift(v, np.eye(2), [0.0, 0.0], 0.7)[1] == 0
    with pytest.raises(ValueError, match="curvatures must be 0 or more"):
        gentlest_shift(v, np.eye(2), [1, -1], 0.5)
    with pytest.raises(ValueError, match="outside 0 to the budget of 1"):
        gentlest_shift(v, np.eye(2), h, 1.2)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_ellipsoid_of_safety(seed: int) -> None:
    v, c, rng = drawn(seed)
    objectives = np.column_stack([v, rng.normal(size=(len(v), 2))])
    objectives /= np.linalg.norm(objectives, axis=0)
    found, angles_between = safety_ellipsoid(objectives, c, 2), principal(objectives, c)
    basis = np.linalg.qr(objectives)[0]
    semi_axes = np.sort(2 * np.sqrt(np.maximum(np.linalg.eigvalsh(safety_ellipsoid(basis, c).shape), 0)))
    assert semi_axes == approx(np.sort(2 * angles_between.semi_axes), abs=1e-7)
    weights = rng.normal(size=3)
    best = found.best(weights)
    assert c.T @ best.delta == approx(np.zeros(c.shape[1]), abs=1e-9)
    assert weights @ objectives.T @ best.delta == approx(best.safety, abs=1e-9)
    assert best.safety == approx(2 * sqrt(max(weights @ found.shape @ weights, 0)), abs=1e-7)
    assert found.holds(objectives.T @ best.delta * (1 - 1e-9))
    if best.safety > 1e-6:
        assert not found.holds(objectives.T @ best.delta * 1.001)
    for step in rng.normal(size=(50, len(v))):
        inside = step - np.linalg.qr(c)[0] @ (np.linalg.qr(c)[0].T @ step)
        assert weights @ objectives.T @ inside * 2 <= best.safety * np.linalg.norm(inside) + 1e-9
        assert found.holds(objectives.T @ inside * (1.99 / max(np.linalg.norm(inside), 1e-9)))


def test_no_direction_left() -> None:
    """Safety within the capabilities' span: a given displacement decides everything, and the rest of the budget buys nothing."""
    found = best_shift([1.0, 0, 0], CORRELATED, 1, [0.3, 0.18])
    assert found.safety == approx(0.3)
    assert found.length == approx(0.3)
    assert best_shift([1.0, 0, 0], CORRELATED).safety == 0
    nothing = loss_only_shift([-1.0, 0, 0], [1.0, 0, 0])
    assert (nothing.safety, nothing.length) == (0, 0)
    everything = safety_ellipsoid(np.eye(3)[:, :2], np.eye(3))
    assert everything.best([1, 1]).safety == 0
    assert everything.holds([0, 0])
    assert not everything.holds([0.1, 0])
    c = np.random.default_rng(0).normal(size=(6, 3))
    within = safety_ellipsoid(c @ [[1.0, 2], [0, 1], [1, 1]], c)
    assert (within.best([1, 1]).safety, within.best([1, 1]).length) == (0, 0)
    assert within.holds([0, 0])
    assert not within.holds([1e-3, 0])
    mixed = safety_ellipsoid(np.column_stack([c[:, 0], np.ones(6)]), c)
    assert mixed.holds([0, 0.1])
    assert not mixed.holds([1e-3, 0.1])


def test_dependent_capabilities_change_together() -> None:
    doubled = np.column_stack([CORRELATED, CORRELATED[:, 0]])
    assert best_shift(V, doubled, 1, [0.2, 0.1, 0.2]).safety == approx(0.7800947589, abs=1e-9)
    with pytest.raises(ValueError, match=r"contradict each other by .* \(2 of 3 are independent\)"):
        best_shift(V, doubled, 1, [0.2, 0.1, 0.3])


def test_what_cannot_be_had() -> None:
    with pytest.raises(ValueError, match=r"a capability change of -1.2 cannot be had: a budget of at least 1.2 is needed, and it is 1"):
        best_safety([0.5, -1.2], 0.3)
    with pytest.raises(ValueError, match="a safety gain of 3 cannot be had: a budget of at least 3 is needed, and it is 2"):
        least_change(3, 0.3, 2)
    needed = sqrt(np.array([0.9, -0.5]) @ np.linalg.solve(CORRELATED.T @ CORRELATED, [0.9, -0.5]))
    with pytest.raises(ValueError, match=f"these capability changes cannot be had: a budget of at least {needed:.8g}"):
        best_shift(V, CORRELATED, 1, [0.9, -0.5])
    assert best_shift(V, CORRELATED, needed, [0.9, -0.5]).length == approx(needed)
    with pytest.raises(ValueError, match=r"leaves the span of the capability directions by 0.5"):
        best_shift_beside([0.1, 0, 0.5], V, CORRELATED)
    with pytest.raises(ValueError, match="safety and the weighted capabilities cancel"):
        weighted_shift([1.0, 0, 0], [1.0, 0, 0], [-1])


@pytest.mark.parametrize("budget", [0, -1, np.nan, inf])
def test_budgets_are_above_zero(budget: float) -> None:
    calls: list[Callable[[], object]] = [
        lambda: best_safety(0, 1, budget),
        lambda: best_shift(V, CORRELATED, budget),
        lambda: loss_only_shift(V, CORRELATED, budget),
        lambda: free_gain(0.5, budget),
        lambda: ellipse(1, budget),
        lambda: safety_ellipsoid(V[:, None], CORRELATED, budget),
        lambda: gentlest_shift(V, CORRELATED, [1, 1], 0, budget),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="budget must be a finite number above 0"):
            call()


def test_other_values_that_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and pi, in radians; found 60"):
        best_safety(0.1, 60)
    with pytest.raises(ValueError, match="capability changes must be finite numbers, found nan"):
        best_safety([0.1, np.nan], 1)
    with pytest.raises(ValueError, match=r"a tax rate lies between 0 and 1; found 1.5"):
        free_gain([0.5, 1.5])
    with pytest.raises(ValueError, match=r"one change per capability is needed: found the shape \(3,\) for 2"):
        best_shift(V, CORRELATED, 1, [0, 0, 0])
    with pytest.raises(ValueError, match="one number per direction is needed"):
        weighted_shift(V, CORRELATED, [1])
    with pytest.raises(ValueError, match="the curvature must be a finite number"):
        quadratic_loss(0.1, 0.5, -1)


def test_a_sweep_of_phases_shows_the_angle() -> None:
    """24 phases at 68 degrees, amplitudes 2 and .7, noise .05: the angle between both harmonics has an sd of 1.25 degrees."""
    rng = np.random.default_rng(3)
    phi, a, reps = np.arange(24) * 2 * pi / 24, radians(68), 2000
    capability, safety = on_edge(phi, a)
    design = np.column_stack([np.cos(phi), np.sin(phi)])
    turns = []
    for clean, amplitude in ((safety, 2.0), (capability, 0.7)):
        cosine, sine = np.linalg.lstsq(design, amplitude * clean[:, None] + rng.normal(0, 0.05, (24, reps)), rcond=None)[0]
        turns.append(np.degrees(np.arctan2(sine, cosine)))
    found = turns[0] - turns[1]
    expected = np.degrees(sqrt(2 / 24) * 0.05 * sqrt(1 / 2**2 + 1 / 0.7**2))
    assert expected == approx(1.25, abs=0.005)
    assert found.mean() == approx(68, abs=3 * expected / sqrt(reps))
    assert found.std() == approx(expected, abs=3 * expected / sqrt(2 * reps))
