"""Two safety objectives with capabilities kept: known answers, classes of outcome, and that the level never rises."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy.optimize import minimize

from aligntax.stats.coupling import (
    best_gain,
    best_pair_shift,
    best_share,
    coupling,
    feasible,
    kept,
    outcomes,
    partial_cosine,
    partial_from,
    sequential_cosines,
)
from aligntax.stats.overlap import tax_rate

C4 = np.array([[1, 0.6], [0, 0.8], [0, 0], [0, 0]])
V1, V2 = np.array([0.5, 0.5, 0.5, 0.5]), np.array([0.5, -0.5, 0.7, 0.1])
CASES = [
    (-0.3, 0.6, -0.5, 0.0, "mediated"),
    (-0.3, 0.6, -0.7, 0.2100420126, "resolved"),
    (-0.3, 0.6, 0.5, -0.8660254038, "worsened"),
    (0.2, 0.6, 0.5, -0.1443375673, "induced"),
    (0.0, 0.5, 0.5, -1 / 3, "induced"),
    (-0.2, 0.5, -0.2, -0.1178511302, "attenuated"),
    (0.5, 0.5, 0.5, 1 / 3, "none"),
    (-0.3, 0.0, 0.0, -0.3, "unchanged"),
]
seeds = st.integers(0, 10**6)


@pytest.fixture
def known(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("theory_cases.json"))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Two safety directions and capability directions that leave two dimensions or more, of length 1, and the generator."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 8))
    c = rng.normal(size=(d, int(rng.integers(1, d - 1))))
    v = rng.normal(size=(d, 2))
    v /= np.linalg.norm(v, axis=0)
    return v[:, 0], v[:, 1], c / np.linalg.norm(c, axis=0), rng


def from_cosines(rho: float, a: float, b: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """v1, v2 and c (each (4,)) with these cosines."""
    gram = np.array([[1, rho, a], [rho, 1, b], [a, b, 1]])
    values, axes = np.linalg.eigh(gram)
    rows = np.hstack([axes * np.sqrt(np.maximum(values, 0)), np.zeros((3, 1))])
    return rows[0], rows[1], rows[2]


@pytest.mark.parametrize(("rho", "a", "b", "partial", "outcome"), CASES)
def test_known_partial_cosines(rho: float, a: float, b: float, partial: float, outcome: str) -> None:
    assert partial_cosine(rho, a, b) == approx(partial, abs=1e-9)
    assert str(outcomes(rho, partial_cosine(rho, a, b))) == outcome
    assert partial_from(rho, a * b, a * a, b * b) == approx(partial, abs=1e-9)
    found = coupling(*from_cosines(rho, a, b))
    assert found.partial == approx(partial, abs=1e-9)
    assert (found.rho, found.shared) == approx((rho, a * b), abs=1e-9)
    assert (found.tau1, found.tau2) == approx((a * a, b * b), abs=1e-9)
    assert found.outcome == outcome


def test_they_are_vectorised() -> None:
    rho, a, b, partial, outcome = (list(x) for x in zip(*CASES, strict=True))
    assert partial_cosine(rho, a, b) == approx(np.array(partial), abs=1e-9)
    assert outcomes(rho, partial_cosine(rho, a, b)).tolist() == outcome


def test_several_capabilities() -> None:
    found = coupling(V1, V2, C4)
    assert (found.rho, found.tau1, found.tau2, found.partial) == approx((0.4, 0.5, 0.5, 0.8), abs=1e-12)
    assert found.outcome == "none"
    assert 1 - tax_rate(V1, np.column_stack([C4, V2])) == approx(0.18, abs=1e-12)
    assert best_share([0, 0.5, 0.9], found.partial) == approx([0.6, 0.9196152423, 0.9815339366], abs=1e-9)


def test_the_golden_cases(known: dict[str, Any]) -> None:
    for case in known["D_partial"]:
        rho, a, b = case["rho"], case["a"], case["b"]
        assert partial_cosine(rho, a, b) == approx(case["partial"], abs=1e-9)
        assert 1 - a * a - b * b - rho * rho + 2 * a * b * rho == approx(case["det"], abs=1e-9)
        assert feasible(rho, a, b)
    case = known["D_multi"]
    found = coupling(case["v1"], case["v2"], case["C"])
    assert (found.rho, found.tau1, found.tau2) == approx((case["rho"], case["tau1"], case["tau2"]), abs=1e-9)
    assert found.partial == approx(case["partial"], abs=1e-9)
    assert 1 - tax_rate(case["v1"], np.column_stack([case["C"], case["v2"]])) == approx(case["chain"], abs=1e-9)
    shares = {float(s): y for s, y in case["s1_at_s2"].items()}
    assert best_share(list(shares), found.partial) == approx(list(shares.values()), abs=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_partial_cosine_is_that_of_the_residuals(seed: int) -> None:
    v1, v2, c, _ = drawn(seed)
    found = coupling(v1, v2, c)
    fit1, fit2 = (c @ np.linalg.lstsq(c, v, rcond=None)[0] for v in (v1, v2))
    r1, r2 = v1 - fit1, v2 - fit2
    assert found.partial == approx(r1 @ r2 / np.linalg.norm(r1) / np.linalg.norm(r2), abs=1e-7)
    g, a, b = c.T @ c, c.T @ v1, c.T @ v2
    assert found.shared == approx(a @ np.linalg.solve(g, b), abs=1e-7)
    assert partial_from(found.rho, found.shared, found.tau1, found.tau2) == approx(found.partial, abs=1e-7)
    # Swapped, doubled and recombined it is the same.
    other = coupling(v2, v1, np.column_stack([c, 3 * c[:, 0], c @ np.ones(c.shape[1])]))
    assert other.partial == approx(found.partial, abs=1e-9)


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_the_chain_rule(seed: int) -> None:
    v, u, c, _ = drawn(seed)
    partial = coupling(v, u, c).partial
    assert 1 - tax_rate(v, np.column_stack([c, u])) == approx((1 - tax_rate(v, c)) * (1 - partial**2), abs=1e-9)
    cosines = sequential_cosines(v, c)
    assert np.prod(1 - cosines**2) == approx(1 - tax_rate(v, c), abs=1e-9)
    assert cosines[0] == approx(v @ c[:, 0], abs=1e-12)
    doubled = np.column_stack([c[:, 0], -2 * c[:, 0], c[:, 1:]])
    assert sequential_cosines(v, doubled)[1] == 0
    assert np.prod(1 - sequential_cosines(v, doubled) ** 2) == approx(1 - tax_rate(v, c), abs=1e-9)


def test_the_chain_ends_where_nothing_is_left() -> None:
    found = sequential_cosines([0.6, 0.8, 0], np.eye(3))
    assert found == approx([0.6, 1, 0], abs=1e-12)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_frontier_of_two_objectives(seed: int) -> None:
    v1, v2, c, rng = drawn(seed)
    found, budget = coupling(v1, v2, c), float(rng.uniform(0.5, 3))
    axes = np.linalg.qr(c)[0]
    gain2 = float(rng.uniform(-1, 1)) * budget * sqrt(1 - found.tau2)
    best = float(best_gain(gain2, found.partial, found.tau1, found.tau2, budget))
    delta = best_pair_shift(v1, v2, c, gain2, budget)
    assert c.T @ delta == approx(np.zeros(c.shape[1]), abs=1e-9)
    assert v2 @ delta == approx(gain2, abs=1e-9)
    assert v1 @ delta == approx(best, abs=1e-6)
    assert np.linalg.norm(delta) <= budget + 1e-9
    theta = np.arccos(found.partial)
    raw = sqrt((1 - found.tau1) / (1 - found.tau2)) * found.partial * gain2 + np.sin(theta) * sqrt(1 - found.tau1) * sqrt(
        max(budget**2 - gain2**2 / (1 - found.tau2), 0)
    )
    assert best == approx(raw, abs=1e-6)
    random = rng.normal(size=(300, len(v1)))
    random -= random @ axes @ axes.T
    random *= budget / np.linalg.norm(random, axis=1, keepdims=True)
    limit = budget * sqrt(1 - found.tau2)
    at = best_gain(np.clip(random @ v2, -limit, limit), found.partial, found.tau1, found.tau2, budget)
    assert np.all(random @ v1 <= at + 1e-6)


@given(st.floats(-1, 1), st.floats(-1, 1))
@settings(max_examples=40, deadline=None)
def test_the_frontier_is_the_same_with_roles_swapped(partial: float, share: float) -> None:
    best = float(best_share(share, partial))
    if min(share, best) >= partial:  # on the efficient part, where more of one is less of the other
        assert best_share(best, partial) == approx(share, abs=1e-6)
    assert -1 - 1e-12 <= best <= 1 + 1e-12


@given(st.floats(-1, 1), st.floats(-0.99, 0.99), st.floats(-0.99, 0.99))
@settings(max_examples=150, deadline=None)
def test_outcomes_follow_the_table_of_conditions(rho: float, a: float, b: float) -> None:
    if not feasible(rho, a, b):
        return
    partial, shared, q = float(partial_cosine(rho, a, b)), a * b, sqrt((1 - a * a) * (1 - b * b))
    name = str(outcomes(rho, partial))
    near = 1e-9
    if abs(rho) < near or abs(partial) < near or abs(partial - rho) < near:
        return  # at the border between two classes
    if rho > 0:
        assert name == ("induced" if rho < shared else "none")
    elif shared < rho:
        assert name == "resolved"
    elif shared < 0 and rho / shared < 1 / (1 - q):
        assert name == "attenuated"
    else:
        assert name == "worsened"
    # The source's wider attenuation, |partial| < |rho|, takes in part of what is resolved.
    if rho < 0 and shared < 0 and q < 1:
        assert (abs(partial) < abs(rho)) == (1 / (1 + q) < rho / shared < 1 / (1 - q))


def test_how_often_keeping_a_capability_helps() -> None:
    """Cosines drawn uniformly: of conflicts 15 % are resolved, 32 % attenuated, 53 % worsened; of others 15 % become one."""
    rho, a, b = np.random.default_rng(0).uniform(-1, 1, (3, 60_000))
    can = feasible(rho, a, b)
    names = outcomes(rho[can], partial_cosine(rho[can], a[can], b[can]))
    conflict = rho[can] < 0
    of_conflicts = [float(np.mean(names[conflict] == name)) for name in ("resolved", "attenuated", "worsened")]
    assert of_conflicts == approx([0.15, 0.32, 0.53], abs=0.015)
    assert np.mean(names[~conflict] == "induced") == approx(0.15, abs=0.015)


def test_rounding_makes_no_conflict() -> None:
    assert outcomes([-1e-16, -1e-16, 1e-17, -0.3, -0.3], [-1e-16, -0.2, 0, 1e-17, -0.3 + 1e-16]).tolist() == [
        "none",
        "induced",
        "none",
        "mediated",
        "unchanged",
    ]


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_keeping_capabilities_never_raises_the_level(seed: int) -> None:
    v1, v2, c, rng = drawn(seed)
    weights = (float(rng.normal()), float(rng.normal()))
    found = kept(v1, v2, c, weights, 1.3)
    assert found.after <= found.before + 1e-12
    assert found.fair_after <= found.fair_before + 1e-12
    total = weights[0] * v1 + weights[1] * v2
    assert found.before == approx(1.3 * np.linalg.norm(total))
    assert total @ found.delta == approx(found.after, abs=1e-9)
    assert c.T @ found.delta == approx(np.zeros(c.shape[1]), abs=1e-9)
    assert found.free == (abs(found.after - found.before) < 1e-12)
    assert found.fair_before == approx(1.3 * sqrt((1 + v1 @ v2) / 2), abs=1e-9)


def test_free_resolution() -> None:
    """The source's case: opposite overlaps. The conflict becomes a synergy in shape, and what both gain at once stays .7021."""
    v1, v2, c = from_cosines(-0.0142, 0.6, -0.6)
    found = kept(v1, v2, c)
    assert found.partial == approx(0.5403125, abs=1e-9)
    assert found.outcome == "resolved"
    assert found.free
    assert found.after == approx(found.before, abs=1e-9)
    assert found.fair_after == approx(found.fair_before, abs=1e-9)
    assert found.fair_before == approx(0.7021, abs=5e-5)
    # At other weights, or with other overlaps, it costs something though the shape improves all the same.
    paid = kept(v1, v2, c, (2, 1))
    assert not paid.free
    assert paid.after < paid.before - 0.01
    unequal = kept(*from_cosines(-0.3, 0.6, -0.7))
    assert unequal.outcome == "resolved"
    assert not unequal.free
    assert unequal.fair_after < unequal.fair_before - 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_the_fair_gain_is_the_largest_that_both_have(seed: int) -> None:
    v1, v2, c, _ = drawn(seed)
    found = kept(v1, v2, c)

    def largest(held: bool) -> float:
        """Over (delta, t): t, with both gains t or more."""
        d = len(v1)
        limits: list[dict[str, Any]] = [
            {"type": "ineq", "fun": lambda x: 1 - x[:d] @ x[:d]},
            {"type": "ineq", "fun": lambda x: np.array([v1 @ x[:d], v2 @ x[:d]]) - x[d]},
        ]
        limits += [{"type": "eq", "fun": lambda x: c.T @ x[:d]}] if held else []
        start = np.append(found.delta * 0.5, 0)
        return float(-minimize(lambda x: -x[d], start, constraints=limits, method="SLSQP", options={"ftol": 1e-12, "maxiter": 500}).fun)

    assert largest(False) == approx(found.fair_before, abs=1e-6)
    assert largest(True) == approx(found.fair_after, abs=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no three directions have the cosines rho = 0.9, a = 0.9, b = -0.9"):
        partial_cosine([0, 0.9], [0, 0.9], [0, -0.9])
    with pytest.raises(ValueError, match=r"rho lies between -1 and 1; found 1.5"):
        partial_cosine(1.5, 0, 0)
    with pytest.raises(ValueError, match="a lies between -1 and 1; found nan"):
        feasible(0, np.nan, 0)
    with pytest.raises(ValueError, match="in the span of the capabilities"):
        partial_cosine(0.3, 1, 0.3)
    with pytest.raises(ValueError, match=r"no directions have rho = 0.9, shared = 0.1 and tax rates 0.5 and 0.5"):
        partial_from(0.9, 0.1, 0.5, 0.5)
    with pytest.raises(ValueError, match="tax rates lie between 0 and 1"):
        partial_from(0, 0, -0.1, 0.5)
    with pytest.raises(ValueError, match="the second safety direction lies in the span"):
        coupling(V1, C4[:, 0] + C4[:, 1], C4)
    with pytest.raises(ValueError, match=r"can change by 0.7071067812 at most .* a budget of at least 1.272792206 is needed, and it is 1"):
        best_gain(0.9, 0.8, 0.5, 0.5)
    with pytest.raises(ValueError, match=r"share lies between -1 and 1; found 1.5"):
        best_share(1.5, 0)
    with pytest.raises(ValueError, match="budget must be a finite number above 0"):
        kept(V1, V2, C4, budget=0)
    with pytest.raises(ValueError, match="the two objectives cancel"):
        kept(V1, V1, C4, (1, -1))
    with pytest.raises(ValueError, match="the second safety direction is zero everywhere"):
        coupling(V1, np.zeros(4), C4)


def test_opposed_and_equal_objectives() -> None:
    same = coupling(V1, V1, C4)
    assert (same.rho, same.partial, same.outcome) == (approx(1), approx(1), "none")
    opposed = kept(V1, -V1, C4, (1, 0))
    assert opposed.fair_before == approx(0, abs=1e-12)
    assert opposed.partial == approx(-1)
    assert opposed.outcome == "unchanged"
    assert best_share([-1, 0.3, 1], 1.0) == approx([-1, 0.3, 1])
    assert best_share([-1, 0.3, 1], -1.0) == approx([1, -0.3, -1])
    assert best_pair_shift(V1, -V1, C4, 0.2) @ V1 == approx(-0.2)
