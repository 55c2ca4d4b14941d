"""Other budgets: invariance under a change of coordinates, the Fisher information of a softmax, and tau as an R^2."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx
from scipy.special import softmax

from aligntax.stats.coupling import coupling
from aligntax.stats.frontier import best_shift
from aligntax.stats.metric import (
    Metric,
    budget_metric,
    effective_dimension,
    generic_tax,
    kl_budget,
    noisy_tax,
    on_distribution,
    softmax_fisher,
    softmax_kl,
    states_metric,
)
from aligntax.stats.overlap import overlap, tax_rate

SIGMA = np.diag([4, 1, 0.25])
seeds = st.integers(0, 10**6)


@pytest.fixture
def known(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("theory_cases.json"))


def rate(metric: Metric, s: Any, c: Any) -> float:
    return tax_rate(metric.covectors(s), metric.covectors(c))


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """A safety and some capability covectors, a positive definite matrix, and the generator."""
    rng = np.random.default_rng(seed)
    d = int(rng.integers(3, 7))
    root = rng.normal(size=(d, d)) + 2 * np.eye(d)
    return rng.normal(size=d), rng.normal(size=(d, int(rng.integers(1, d)))), root @ root.T + 0.1 * np.eye(d), rng


def test_known_answers() -> None:
    s, c = np.ones(3), np.array([1.0, 0, 0])
    assert rate(budget_metric(np.eye(3)), s, c) == approx(1 / 3, abs=1e-12)
    assert rate(on_distribution(SIGMA), s, c) == approx(0.7619047619047619, abs=1e-12)
    assert rate(budget_metric(np.linalg.inv(SIGMA)), s, c) == approx(0.7619047619047619, abs=1e-12)
    assert rate(budget_metric(SIGMA), s, c) == approx(0.047619047619047616, abs=1e-12)


def test_the_golden_case(known: dict[str, Any]) -> None:
    case = known["I_metric"]
    assert case["Sigma"] == "diag(4,1,.25)"
    assert tax_rate(case["s"], case["c"]) == approx(case["tau_euclid"], abs=1e-9)
    assert rate(on_distribution(SIGMA), case["s"], case["c"]) == approx(case["tau_Sigma"], abs=1e-9)
    assert rate(budget_metric(SIGMA), case["s"], case["c"]) == approx(case["tau_Sigma_inv"], abs=1e-9)


@given(seeds)
@settings(max_examples=25, deadline=None)
def test_tau_does_not_depend_on_coordinates(seed: int) -> None:
    """After h -> A h covectors are A^-T s and the budget matrix is A^-T M A^-1."""
    s, c, m, rng = drawn(seed)
    a = rng.normal(size=m.shape) + 2 * np.eye(len(m))
    back = np.linalg.inv(a)
    if np.linalg.cond(a) > 1e3:
        return
    turned = back.T @ m @ back
    before, after = budget_metric(m), budget_metric((turned + turned.T) / 2)
    inner = np.linalg.inv(m)
    b, g = c.T @ inner @ s, c.T @ inner @ c
    assert rate(before, s, c) == approx(b @ np.linalg.solve(g, b) / (s @ inner @ s), abs=1e-7)
    assert rate(after, back.T @ s, back.T @ c) == approx(rate(before, s, c), abs=1e-7)
    old = overlap(before.covectors(s), before.covectors(c))
    new = overlap(after.covectors(back.T @ s), after.covectors(back.T @ c))
    assert new.signed == approx(old.signed, abs=1e-7)
    assert new.tau_cone == approx(old.tau_cone, abs=1e-7)
    # A vector moves to A x, and its covector with it.
    x = rng.normal(size=len(s))
    assert after.covector_of(a @ x) == approx(back.T @ before.covector_of(x), rel=1e-6, abs=1e-6)
    assert rate(after, after.covector_of(a @ x), back.T @ c) == approx(rate(before, m @ x, c), abs=1e-7)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_best_shift_in_another_metric(seed: int) -> None:
    s, c, m, rng = drawn(seed)
    metric, inner = budget_metric(m), np.linalg.inv(m)
    units = c / np.sqrt(np.einsum("im,ij,jm->m", c, inner, c))
    safety = s / sqrt(s @ inner @ s)
    random = rng.normal(size=(400, len(s)))
    random *= 2 / np.sqrt(np.einsum("ni,ij,nj->n", random, m, random))[:, None]
    targets = 0.5 * units.T @ random[0]
    found = best_shift(metric.covectors(s), metric.covectors(c), 2, targets)
    delta = metric.shift(found.delta)
    assert metric.length(delta) == approx(2, abs=1e-7)
    assert delta @ m @ delta == approx(4, abs=1e-7)
    assert units.T @ delta == approx(targets, abs=1e-7)
    assert safety @ delta == approx(found.safety, abs=1e-7)
    # No other shift within the budget that meets the targets gains more: mend random ones along M^-1 c.
    base = inner @ units @ np.linalg.solve(units.T @ inner @ units, targets)
    off = random - (inner @ units @ np.linalg.solve(units.T @ inner @ units, units.T @ random.T)).T
    lengths = np.sqrt(np.einsum("ni,ij,nj->n", off, m, off))[:, None]
    tried = base + off * sqrt(4 - base @ m @ base) / lengths
    assert np.all(tried @ safety <= found.safety + 1e-7)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_on_distribution_tau_is_r_squared(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, d, m = int(rng.integers(12, 40)), int(rng.integers(3, 8)), int(rng.integers(1, 3))
    states = rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)
    s, c = rng.normal(size=d), rng.normal(size=(d, m))
    safety, capability = states @ s, np.column_stack([np.ones(n), states @ c])
    rest = safety - capability @ np.linalg.lstsq(capability, safety, rcond=None)[0]
    r2 = 1 - rest @ rest / np.sum((safety - safety.mean()) ** 2)
    metric = states_metric(states)
    assert rate(metric, s, c) == approx(r2, abs=1e-7)
    assert rate(on_distribution(np.cov(states.T)), s, c) == approx(r2, abs=1e-7)
    signed = overlap(metric.covectors(s), metric.covectors(c)).signed
    assert signed[0] == approx(np.corrcoef(safety, states @ c[:, 0])[0, 1], abs=1e-9)
    # Without an intercept, with the second moment.
    rest = safety - (states @ c) @ np.linalg.lstsq(states @ c, safety, rcond=None)[0]
    assert rate(states_metric(states, centred=False), s, c) == approx(1 - rest @ rest / (safety @ safety), abs=1e-7)
    # And the partial cosine is the partial correlation.
    other = states @ (t := rng.normal(size=d))
    r1, r2nd = (y - capability @ np.linalg.lstsq(capability, y, rcond=None)[0] for y in (safety, other))
    found = coupling(metric.covectors(s), metric.covectors(t), metric.covectors(c))
    assert found.partial == approx(np.corrcoef(r1, r2nd)[0, 1], abs=1e-6)


def test_fewer_states_than_dimensions() -> None:
    rng = np.random.default_rng(1)
    states, s, c = rng.normal(size=(9, 30)), rng.normal(size=30), rng.normal(size=(30, 3))
    metric = states_metric(states)
    assert metric.confined
    assert metric.root.shape == (30, 8)
    assert rate(on_distribution(np.cov(states.T)), s, c) == approx(rate(metric, s, c), abs=1e-9)
    step = states[0] - states[1]
    assert metric.length(step) == approx(on_distribution(np.cov(states.T)).length(step))
    assert overlap(metric.covectors(s), metric.covectors(rng.normal(size=(30, 8)))).spans
    shift = metric.shift(best_shift(metric.covectors(s), metric.covectors(c)).delta)
    assert metric.length(shift) == approx(1)
    with pytest.raises(ValueError, match="leaves the 8 of 30 dimensions to which shifts are confined"):
        metric.covector_of(rng.normal(size=30))
    null = np.linalg.svd(states - states.mean(axis=0))[2][-1]
    with pytest.raises(ValueError, match="is not moved by any shift that the budget"):
        metric.covectors(null)


def test_vectors_become_covectors() -> None:
    """On-distribution the covector of a difference of means is the discriminant's probe; whitened, both are the same."""
    rng = np.random.default_rng(2)
    root = rng.normal(size=(5, 5))
    sigma, difference = root @ root.T, rng.normal(size=5)
    metric = on_distribution(sigma)
    probe = metric.covector_of(difference)
    assert probe == approx(np.linalg.solve(sigma, difference), rel=1e-8)
    values, axes = np.linalg.eigh(sigma)
    assert metric.covectors(probe) == approx(axes.T @ difference / np.sqrt(values), rel=1e-8)
    # Read as a covector, which it is not, it gives another tax rate.
    c = rng.normal(size=5)
    assert abs(rate(metric, difference, c) - rate(metric, probe, c)) > 0.01


def test_fisher_is_the_curvature_of_kl() -> None:
    rng = np.random.default_rng(3)
    rows, states, bias = rng.normal(size=(30, 4)), rng.normal(size=(6, 4)), rng.normal(size=30)
    f = softmax_fisher(rows, states, bias)
    by_hand = np.mean(
        [rows.T @ (np.diag(p) - np.outer(p, p)) @ rows for p in softmax(states @ rows.T + bias, axis=1)],
        axis=0,
    )
    assert f == approx(by_hand, abs=1e-12)
    delta = rng.normal(size=4)
    errors = []
    for size in (1e-1, 1e-2, 1e-3):
        exact = softmax_kl(rows, states, size * delta, bias)
        errors.append(abs(exact - size**2 * delta @ f @ delta / 2))
        p, moved = softmax(states @ rows.T + bias, axis=1), softmax((states + size * delta) @ rows.T + bias, axis=1)
        assert exact == approx(float(np.mean(np.sum(p * np.log(p / moved), axis=1))), rel=1e-6, abs=1e-15)
    # The remainder is of third order.
    assert errors[0] / errors[1] == approx(1000, rel=0.5)
    assert errors[1] / errors[2] == approx(1000, rel=0.1)
    # A shift of length sqrt(2 KL) in this metric costs that KL; large shifts are computed without overflow.
    metric = budget_metric(f, "Fisher information")
    shift = metric.shift(kl_budget(1e-6) * np.array([1.0, 0, 0, 0]))
    assert softmax_kl(rows, states, shift, bias) == approx(1e-6, rel=0.01)
    assert np.isfinite(softmax_kl(rows, states, 1e4 * delta, bias))


def test_with_words_alike_it_is_the_causal_inner_product() -> None:
    rows = np.random.default_rng(4).normal(size=(50, 3))
    assert softmax_fisher(rows, np.zeros((1, 3))) == approx(np.cov(rows.T, ddof=0), abs=1e-12)
    s, c = rows[0] - rows[1], rows[2] - rows[3]
    inner = np.linalg.inv(np.cov(rows.T, ddof=0))
    cosine = s @ inner @ c / sqrt(s @ inner @ s * (c @ inner @ c))
    metric = budget_metric(softmax_fisher(rows, np.zeros((1, 3))))
    assert rate(metric, s, c) == approx(cosine**2, abs=1e-9)


def test_a_ball_is_a_fisher_budget_of_one_number() -> None:
    f = 0.37
    metric = budget_metric(f * np.eye(3))
    s, c = np.array([1.0, 2, 0]), np.array([0.0, 1, 1])
    assert rate(metric, s, c) == approx(tax_rate(s, c), abs=1e-12)
    delta = metric.shift(best_shift(metric.covectors(s), metric.covectors(c), kl_budget(0.02)).delta)
    assert np.linalg.norm(delta) == approx(sqrt(2 * 0.02 / f))


def test_the_metric_decides_the_rate() -> None:
    """High variance is cheap with one choice and dear with the other: from near 0 to near 1 for one pair of directions."""
    sigma, s, c = np.diag([100.0, 1, 1]), np.array([1.0, 1, 1]), np.array([1.0, 0, 0])
    assert rate(on_distribution(sigma), s, c) > 0.98
    assert rate(budget_metric(sigma), s, c) < 0.006


def test_effective_dimensions() -> None:
    rng, reps = np.random.default_rng(5), 3000
    sigma = np.diag(np.concatenate([np.full(20, 10.0), np.full(180, 1.0)]))
    d_eff = effective_dimension(sigma)
    assert d_eff == approx((200 + 180) ** 2 / (2000 + 180))
    assert effective_dimension(np.eye(7)) == approx(7)
    x, y = rng.normal(size=(2, reps, 200)) * np.sqrt(np.diag(sigma))
    cos2 = np.sum(x * y, axis=1) ** 2 / np.sum(x * x, axis=1) / np.sum(y * y, axis=1)
    # A ratio of means, not a mean of ratios: a little too high at this size.
    assert cos2.mean() == approx(0.97 / d_eff, abs=3 * cos2.std() / sqrt(reps))
    c = np.eye(200)[:, :3]
    assert generic_tax(c, sigma) == approx(30 / 380)
    taxes = np.sum(x[:, :3] ** 2, axis=1) / np.sum(x * x, axis=1)
    assert taxes.mean() == approx(30 / 380, rel=0.05)
    assert taxes.mean() > 4 * 3 / 200  # far above what the count of dimensions says


def test_noise_pulls_toward_its_own_rate() -> None:
    assert noisy_tax(0, 0.262, 4) == approx(0.2096)
    assert noisy_tax([0, 0.5, 0.1], 0.1, [0, 1, 100]) == approx([0, 0.3, 0.1])
    rng, reps, d = np.random.default_rng(6), 3000, 60
    sigma, delta = np.concatenate([np.full(6, 5.0), np.full(54, 1.0)]), np.zeros(60)
    delta[10] = sqrt(np.sum(sigma) / 2)
    noise = rng.normal(size=(reps, d)) * np.sqrt(sigma)  # kappa = tr/||delta||^2 = 2
    c = np.eye(d)[:, :4]
    estimates = delta + noise
    found = np.sum(estimates[:, :4] ** 2, axis=1) / np.sum(estimates**2, axis=1)
    expected = float(noisy_tax(0, generic_tax(c, np.diag(sigma)), 2))
    assert found.mean() == approx(expected, rel=0.06)
    with pytest.raises(ValueError, match="noise 0 or more"):
        noisy_tax(0, 0.1, -1)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: budget_metric(np.diag([1.0, 0, 2])), "leaves 1 of 3 directions without cost"),
        (lambda: budget_metric(np.diag([1.0, -1, 2])), "nor below 0 on its diagonal; the least there is -1"),
        (lambda: budget_metric([[1.0, 2], [2, 1]]), "no eigenvalue below 0; the least is -1"),
        (lambda: budget_metric([[1.0, 2], [0, 1]]), "is not symmetric: entries differ from their mirror image by 2"),
        (lambda: budget_metric([[1.0, np.nan], [np.nan, 1]]), "a square matrix of finite numbers"),
        (lambda: budget_metric(np.ones((2, 3))), r"found the shape \(2, 3\)"),
        (lambda: on_distribution(np.zeros((2, 2))), "must not be 0 everywhere"),
        (lambda: states_metric(np.ones((5, 3))), "the 5 hidden states do not differ"),
        (lambda: states_metric([1.0, 2]), r"hidden states must be a table of finite numbers, found the shape \(2,\)"),
        (lambda: budget_metric(np.eye(3)).covectors([1.0, 2]), "covectors must be finite and have 3 dimensions"),
        (lambda: budget_metric(np.eye(3)).shift([1.0, 2]), "a shift in this metric has 3 numbers"),
        (lambda: budget_metric(np.eye(3)).length(np.eye(3)), "one shift at a time"),
        (lambda: softmax_fisher(np.ones((4, 3)), np.ones((2, 2))), "do not fit together"),
        (lambda: softmax_kl(np.ones((4, 3)), np.ones((2, 3)), [1.0]), "a shift of 3 finite numbers"),
        (lambda: kl_budget(0), "finite number of nats above 0"),
        (lambda: generic_tax(np.ones(3), np.eye(2)), "the covariance has 2 dimensions and the capability directions 3"),
    ],
)
def test_what_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
