"""Tax rates, their signs and parts: known answers, and what must hold for any directions."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, permutations
from math import radians, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from aligntax.stats.overlap import (
    intrinsic_tax,
    loss_only,
    overlap,
    principal,
    shapley_shares,
    signed_angle,
    soft_dimension,
    soft_tax,
    span,
    tax_rate,
    unique_parts,
    weighted_direction,
)

CORRELATED = np.array([[1, 0.6], [0, 0.8], [0, 0]])
V = np.array([0.5, 0.5, sqrt(0.5)])


@pytest.fixture
def known(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("theory_cases.json"))


def drawn(seed: int, most: int = 8) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """A safety direction, some capability directions in at least as many dimensions, and the generator."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(2, most))
    m = int(rng.integers(1, d + 1))
    return rng.normal(size=d), rng.normal(size=(d, m)), rng


seeds = st.integers(0, 10**6)


def test_correlated_capabilities() -> None:
    found = overlap(V, CORRELATED)
    assert found.signed == approx([0.5, 0.7], abs=1e-12)
    assert found.gram[0, 1] == approx(0.6, abs=1e-12)
    assert found.tau == approx(0.5, abs=1e-12)
    assert found.per_task.sum() == approx(0.74, abs=1e-12)
    assert found.unique == approx([0.01, 0.25], abs=1e-12)
    assert found.free == approx(0.7071067811865476, abs=1e-12)
    assert found.angle == approx(radians(45), abs=1e-12)
    assert found.tau_cone == 0
    assert overlap(-V, CORRELATED).tau_cone == approx(0.5, abs=1e-12)
    assert (found.sum_low, found.sum_high) == approx((0.2, 0.8), abs=1e-12)
    # Entering first, the second capability explains .49, the first .25.
    assert shapley_shares(V, CORRELATED).share == approx([(0.25 + 0.01) / 2, (0.49 + 0.25) / 2], abs=1e-12)


def test_loss_only_counts_what_falls() -> None:
    v = [0.6, -0.5, 0.6244997998398398]
    found = overlap(v, np.eye(3)[:, :2])
    assert found.tau == approx(0.61, abs=1e-12)
    assert found.tau_cone == approx(0.25, abs=1e-12)
    assert found.free == approx(0.6244997998398398, abs=1e-12)
    assert found.synergies.tolist() == [True, False]
    assert found.costs.tolist() == [False, True]
    only = loss_only(v, np.eye(3)[:, :2])
    assert only.free == approx(0.8660254037844386, abs=1e-12)
    assert only.multipliers == approx([0, 0.5], abs=1e-12)


def test_the_golden_cases(known: dict[str, Any]) -> None:
    case = known["C_multi"]
    found = overlap(case["v"], case["C"])
    assert found.signed == approx(case["b"], abs=1e-9)
    assert found.gram == approx(np.array(case["G"]), abs=1e-9)
    assert found.tau == approx(case["tau"], abs=1e-9)
    assert found.per_task.sum() == approx(case["sum_tau_i"], abs=1e-9)
    assert found.unique == approx(case["unique"], abs=1e-9)
    assert found.tau_cone == approx(case["cone"], abs=1e-9)
    assert loss_only(-np.array(case["v"]), case["C"]).tau == approx(case["cone_neg"], abs=1e-9)
    case = known["C_cone"]
    found = overlap(case["v"], case["C"])
    assert (found.tau, found.tau_cone) == approx((case["tau"], case["cone"]), abs=1e-9)
    assert found.free == approx(case["gain_two_sided"], abs=1e-9)
    assert loss_only(case["v"], case["C"]).free == approx(case["gain_loss_only"], abs=1e-9)
    case = known["E_principal"]
    found_angles = principal(*at_angles(case["angles_deg"]))
    assert np.degrees(found_angles.angles) == approx(case["angles_deg"], abs=1e-9)
    assert found_angles.taxes == approx(case["cos2"], abs=1e-9)
    assert found_angles.mean_tax == approx(case["mean_tax"], abs=1e-9)
    assert found_angles.semi_axes == approx(case["semi_axes"], abs=1e-9)


def at_angles(degrees: list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Safety and capability directions with these principal angles, both in bases that are not orthonormal, turned at random."""
    k = len(degrees)
    a = np.radians(degrees)
    safety = np.vstack([np.diag(np.cos(a)), np.diag(np.sin(a)), np.zeros((1, k))])
    capability = np.eye(2 * k + 1)[:, :k]
    rng = np.random.default_rng(1)
    turn = np.linalg.qr(rng.normal(size=(2 * k + 1, 2 * k + 1)))[0]
    mix = np.triu(np.ones((k, k)))
    return turn @ safety @ mix, turn @ capability @ mix


def test_principal_angles() -> None:
    found = principal(*at_angles([30, 70]))
    assert np.degrees(found.angles) == approx([30, 70], abs=1e-9)
    assert found.taxes == approx([0.75, 0.11697777844051097], abs=1e-12)
    assert found.mean_tax == approx(0.4334888892202555, abs=1e-12)
    assert found.worst_tax == approx(0.75, abs=1e-12)
    assert found.semi_axes == approx([0.5, 0.9396926207859084], abs=1e-12)
    assert found.directions.T @ found.directions == approx(np.eye(2), abs=1e-12)
    # The first safety direction is the first principal one, so its own rate is that one's.
    assert found.objectives[0] == approx(0.75, abs=1e-12)


def test_more_safety_directions_than_capabilities_leave_some_free() -> None:
    found = principal(np.eye(5)[:, :3] + np.eye(5)[:, [4]] * 0.5, np.eye(5)[:, 4])
    assert len(found.angles) == 3
    assert found.taxes[1:] == approx([0, 0], abs=1e-12)
    assert found.semi_axes[1:] == approx([1, 1], abs=1e-12)
    assert found.mean_tax == approx(found.taxes[0] / 3)
    assert principal(np.eye(5)[:, [0, 0, 1]], np.eye(5)[:, 4]).rank == 2


def test_tiny_angles_keep_their_digits() -> None:
    v, c = np.array([1.0, 1e-9, 0.0]), np.array([1.0, 0.0, 0.0])
    assert signed_angle(v, c) == approx(1e-9, rel=1e-6)
    assert overlap(v, c).free == approx(1e-9, rel=1e-6)
    assert principal(v[:, None], c).semi_axes == approx([1e-9], rel=1e-6)


def test_signed_angles() -> None:
    c = np.array([1.0, 0, 0])
    for degrees in (0, 30, 90, 120, 180):
        v = np.array([np.cos(np.radians(degrees)), 0, np.sin(np.radians(degrees))])
        assert np.degrees(signed_angle(3 * v, 2 * c)) == approx(degrees, abs=1e-9)
    with pytest.raises(ValueError, match="between two directions; there are 2"):
        signed_angle(V, CORRELATED)


def test_one_capability_that_safety_raises_or_lowers() -> None:
    for cosine in (-1.0, -0.6, 0.0, 0.6, 1.0):
        v = [cosine, sqrt(1 - cosine**2), 0]
        found = overlap(v, [1.0, 0, 0])
        assert found.tau == approx(cosine**2, abs=1e-12)
        assert found.tau_cone == approx(cosine**2 if cosine < 0 else 0, abs=1e-12)
    assert loss_only([-1.0, 0, 0], [1.0, 0, 0]).free == 0
    assert not loss_only([-1.0, 0, 0], [1.0, 0, 0]).direction.any()


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_tau_is_of_the_span(seed: int) -> None:
    v, c, rng = drawn(seed)
    tau, m = tax_rate(v, c), c.shape[1]
    mix = np.linalg.qr(rng.normal(size=(m, m)))[0] * rng.uniform(0.2, 5, m)
    doubled = np.column_stack([c, c[:, 0], c @ np.ones(m) if m > 1 else -2 * c[:, 0]])
    turn = np.linalg.qr(rng.normal(size=(len(v), len(v))))[0]
    for other in (c @ mix, 1e3 * c * rng.uniform(0.5, 2, m), doubled, c[:, ::-1]):
        assert tax_rate(v, other) == approx(tau, abs=1e-9)
    assert tax_rate(1e-200 * v, 1e200 * c) == approx(tau, abs=1e-9)
    assert tax_rate(-v, -c) == approx(tau, abs=1e-12)
    turned = overlap(turn @ v, turn @ c)
    assert turned.tau == approx(tau, abs=1e-9)
    assert turned.signed == approx(overlap(v, c).signed, abs=1e-9)
    assert turned.tau_cone == approx(overlap(v, c).tau_cone, abs=1e-9)
    again = overlap(v, doubled)
    assert again.dependent
    assert again.rank == np.linalg.matrix_rank(c)
    assert again.unique[0] == again.unique[-2] == 0
    if m > 1:  # a sum of capabilities cannot fall where none of them may
        assert again.tau_cone == approx(overlap(v, c).tau_cone, abs=1e-9)
    else:  # its opposite among them, the capability may not rise either
        assert again.tau_cone == approx(tau, abs=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_tau_by_regression_and_its_order(seed: int) -> None:
    v, c, rng = drawn(seed)
    found = overlap(v, c)
    fit = c @ np.linalg.lstsq(c, v, rcond=None)[0]
    assert found.tau == approx(fit @ fit / (v @ v), abs=1e-9)
    assert found.tau + found.free**2 == approx(1, abs=1e-12)
    assert 0 <= found.tau_cone <= found.tau + 1e-12
    assert found.sum_low - 1e-9 <= found.per_task.sum() <= found.sum_high + 1e-9
    more = np.column_stack([c, rng.normal(size=len(v))])
    assert tax_rate(v, more) >= found.tau - 1e-12
    assert loss_only(v, more).tau >= found.tau_cone - 1e-12
    for i in range(c.shape[1]):
        others = np.delete(c, i, axis=1)
        assert found.unique[i] == approx(found.tau - (tax_rate(v, others) if others.size else 0.0), abs=1e-9)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_loss_only_satisfies_what_makes_it_the_best(seed: int) -> None:
    v, c, rng = drawn(seed)
    found, v = loss_only(v, c), v / np.linalg.norm(v)
    changes = (c / np.linalg.norm(c, axis=0)).T @ found.direction
    assert np.all(found.multipliers >= 0)
    assert np.all(changes >= -1e-9)
    assert found.multipliers * changes == approx(np.zeros(len(changes)), abs=1e-9)
    assert v @ found.direction == approx(found.free, abs=1e-9)
    steps = rng.normal(size=(2000, len(v)))
    steps = steps[np.all(steps @ c >= 0, axis=1)]
    assert np.all(steps @ v <= (found.free + 1e-9) * np.linalg.norm(steps, axis=1))


def by_hand(v: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Shapley values as their definition has them: over all orders."""
    m = c.shape[1]
    worth = {s: tax_rate(v, c[:, list(s)]) if s else 0.0 for k in range(m + 1) for s in combinations(range(m), k)}
    shares = np.zeros(m)
    orders = list(permutations(range(m)))
    for order in orders:
        for i, column in enumerate(order):
            shares[column] += worth[tuple(sorted(order[: i + 1]))] - worth[tuple(sorted(order[:i]))]
    return shares / len(orders)


@pytest.mark.parametrize("dependent", [False, True])
def test_shares_are_averages_over_orders(dependent: bool) -> None:
    rng = np.random.default_rng(4)
    v, c = rng.normal(size=6), rng.normal(size=(6, 4))
    if dependent:
        c[:, 2], c[:, 3] = -3 * c[:, 0], c[:, 0] + c[:, 1]
    found = shapley_shares(v, c)
    assert found.share == approx(by_hand(v, c), abs=1e-9)
    assert found.share.sum() == approx(tax_rate(v, c), abs=1e-12)
    assert np.all(found.share >= -1e-12)
    assert found.exact
    assert not found.se.any()


def test_drawn_shares_lie_around_the_exact_ones() -> None:
    rng = np.random.default_rng(5)
    v, c = rng.normal(size=20), rng.normal(size=(20, 10)) + rng.normal(size=(20, 1))
    c[:, 7] = c[:, 1] - c[:, 2]
    exact, few = shapley_shares(v, c), shapley_shares(v, c, rng=rng, orders=600, max_exact=0)
    assert not few.exact
    assert few.orders == 1200
    assert few.share.sum() == approx(tax_rate(v, c), abs=1e-12)
    assert np.all(few.se > 0)
    assert np.all(np.abs(few.share - exact.share) < 4 * few.se)
    again = shapley_shares(v, c, rng=np.random.default_rng(9), orders=5, max_exact=0)
    assert np.array_equal(again.share, shapley_shares(v, c, rng=np.random.default_rng(9), orders=5, max_exact=0).share)


def test_standard_errors_of_drawn_shares() -> None:
    """An order and its reverse make two columns exact; with more, estimates scatter by their standard error."""
    rng = np.random.default_rng(12)
    two = shapley_shares(V, CORRELATED, rng=rng, orders=2, max_exact=0)
    assert two.share == approx([0.13, 0.37], abs=1e-12)
    assert two.se == approx([0, 0], abs=1e-12)
    v, c = rng.normal(size=9), rng.normal(size=(9, 5)) + rng.normal(size=(9, 1))
    exact = shapley_shares(v, c).share
    z = []
    for _ in range(40):
        found = shapley_shares(v, c, rng=rng, orders=30, max_exact=0)
        z += list((found.share - exact) / found.se)
    assert np.std(z) == approx(1, abs=0.25)


def test_many_directions_need_a_generator() -> None:
    c = np.random.default_rng(6).normal(size=(30, 17))
    with pytest.raises(ValueError, match="17 capability directions have too many subsets: a generator"):
        shapley_shares(c[:, 0], c)
    assert shapley_shares(c[:, 0], c, rng=np.random.default_rng(1), orders=20).share.sum() == approx(1)


@given(seeds, st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_soft_tax_is_the_loss_of_the_penalised_best(seed: int, ridge: float) -> None:
    v, c, rng = drawn(seed)
    weights = rng.uniform(0.1, 3, c.shape[1])
    units = c / np.linalg.norm(c, axis=0)
    h, beta = units * weights @ units.T, 1.7
    unit = v / np.linalg.norm(v)
    delta = np.linalg.solve(beta / ridge * h + beta * np.eye(len(v)), unit)
    value = unit @ delta - beta / ridge / 2 * delta @ h @ delta - beta / 2 * delta @ delta
    soft = float(soft_tax(v, c, ridge, weights))
    assert value == approx((1 - soft) / (2 * beta), rel=1e-9)
    assert soft <= tax_rate(v, c) + 1e-12


def test_soft_tax_between_its_ends() -> None:
    found = soft_tax(V, CORRELATED, [0.0, 1e-9, 0.1, 1.0, 1e12])
    assert found[0] == approx(0.5, abs=1e-12)
    assert found[1] == approx(0.5, abs=1e-7)
    assert np.all(np.diff(found) < 0)
    assert found[-1] < 1e-11
    assert soft_dimension(CORRELATED, [0.0, 1e12]) == approx([2, 0], abs=1e-9)
    rng = np.random.default_rng(7)
    c = rng.normal(size=(12, 5))
    taxes = [float(soft_tax(rng.normal(size=12), c, 0.5)) for _ in range(500)]
    assert np.mean(taxes) == approx(float(soft_dimension(c, 0.5)) / 12, abs=3 * np.std(taxes) / sqrt(500))
    with pytest.raises(ValueError, match="ridge must be 0 or more"):
        soft_tax(V, CORRELATED, -1)
    with pytest.raises(ValueError, match="one finite weight above 0 per capability"):
        soft_tax(V, CORRELATED, 1, [1, 0])


def test_intrinsic_part() -> None:
    found = intrinsic_tax(V, CORRELATED, [1])
    assert (found.tau0, found.sum_of_squares) == approx((0.49, 0.49), abs=1e-12)
    assert found.residual == approx(0.01, abs=1e-12)
    both = intrinsic_tax(V, CORRELATED, [0, 1])
    assert (both.tau0, both.sum_of_squares, both.residual) == approx((0.5, 0.74, 0), abs=1e-12)
    assert intrinsic_tax(V, CORRELATED, []).residual == approx(0.5)
    for wrong in ([2], [-1], [0, 0], [0.5]):
        with pytest.raises(ValueError, match="numbers of columns from 0 to 1, each once"):
            intrinsic_tax(V, CORRELATED, wrong)


def test_weighted_objectives() -> None:
    objectives = np.array([[1.0, -1], [0, 0.0], [1, 1]])
    assert weighted_direction(objectives, [1, 1]) == approx([0, 0, 1], abs=1e-12)
    assert tax_rate(weighted_direction(objectives, [1, 3]), CORRELATED) == approx(0.2, abs=1e-12)  # (-2, 0, 4)/sqrt(20)
    with pytest.raises(ValueError, match="cancel"):
        weighted_direction([[1.0, -1], [2, -2]], [1, 1])
    with pytest.raises(ValueError, match="one finite weight per safety direction"):
        weighted_direction(objectives, [1, np.nan])


def test_more_directions_than_dimensions() -> None:
    rng = np.random.default_rng(8)
    c = rng.normal(size=(3, 7))
    found = overlap(V, c)
    assert found.tau == 1
    assert found.free == 0
    assert found.spans
    assert found.dependent
    assert not found.unique.any()
    flat = c.copy()
    flat[2] = 0
    found = overlap(V, flat)
    assert found.tau == approx(0.5, abs=1e-12)
    assert not found.spans
    assert shapley_shares(V, c).share.sum() == approx(1, abs=1e-12)
    assert loss_only(V, c).tau <= 1


def test_nearly_dependent_directions_are_told() -> None:
    c = np.array([[1.0, 1.0], [0, 1e-6], [0, 0]])
    found = overlap(V, c)
    assert found.rank == 2
    assert found.condition > 1e5
    assert found.tau == approx(0.5, abs=1e-9)
    assert span([[1.0, 1.0], [0, 1e-12], [0, 0]]).rank == 1


@pytest.mark.parametrize(
    ("v", "c", "said"),
    [
        ([0.0, 0, 0], CORRELATED, "the safety direction is zero everywhere"),
        ([np.nan, 0, 0], CORRELATED, "the safety direction holds values that are not finite"),
        (V, [[1.0, 0], [0, 0], [0, 0]], r"capability direction 1 \(counted from 0\) is zero everywhere"),
        (V, [[1.0, np.inf], [0, 0], [0, 0]], r"capability direction 1 \(counted from 0\) holds values that are not finite"),
        ([1.0, 0], CORRELATED, "has 2 dimensions and the capability directions 3"),
        (CORRELATED, CORRELATED, r"must be one vector of numbers, found the shape \(3, 2\)"),
        (V, np.zeros((3, 0)), r"columns of a matrix \(dimensions, directions\), found the shape \(3, 0\)"),
    ],
)
def test_what_is_refused(v: Any, c: Any, said: str) -> None:
    for function in (overlap, tax_rate, loss_only, shapley_shares, unique_parts):
        with pytest.raises(ValueError, match=said):
            function(v, c)


def test_principal_refuses_other_spaces() -> None:
    with pytest.raises(ValueError, match="safety directions have 2 dimensions and capability directions 3"):
        principal(np.eye(2), CORRELATED)


def test_a_shared_reference_makes_directions_overlap_by_half() -> None:
    """Means of three unrelated samples, two of them less the third: the cosine is about 1/2, tau 1/4, though nothing relates the first two."""
    rng = np.random.default_rng(11)
    cosines = []
    for _ in range(400):
        harm, maths, neutral = rng.normal(size=(3, 200))
        v, c = harm - neutral, maths - neutral
        cosines.append(float(overlap(v, c).signed[0]))
    assert np.mean(cosines) == approx(0.5, abs=3 * np.std(cosines) / sqrt(400) + 1 / 200)
