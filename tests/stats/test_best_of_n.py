"""Best of n: known answers, and simulations in which the bounds hold and are met."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from aligntax.stats.best_of_n import FloatArray, best_of, compute_factor, kl_bound, n_for_kl, win_rate_bound


def kl(p: FloatArray, q: FloatArray) -> float:
    at = p > 0
    return float(np.sum(p[at] * np.log(p[at] / q[at])))


def wins(best: FloatArray, p: FloatArray, reward: FloatArray) -> float:
    """Probability that a draw of the best has the higher reward than a draw of the model, ties half."""
    above = (reward[:, None] > reward[None, :]) + 0.5 * (reward[:, None] == reward[None, :])
    return float(best @ above @ p)


def test_known_answers() -> None:
    assert kl_bound(1) == 0.0
    assert kl_bound(4) == pytest.approx(log(4) - 0.75, abs=1e-15)
    assert kl_bound(4) == pytest.approx(0.6363, abs=5e-5)
    assert (win_rate_bound(1), win_rate_bound(4)) == (0.5, 0.8)
    assert compute_factor(2) == 2.0  # a tax of 100 %
    assert compute_factor(4, 0.1) == pytest.approx(1.3)  # 30 %, not 40 %
    assert compute_factor(100, 0.0) == 1.0


@pytest.mark.parametrize("n", [1, 2, 4, 100, 10**6])
def test_n_of_a_divergence_is_the_inverse_of_the_bound(n: int) -> None:
    assert n_for_kl(kl_bound(n)) == pytest.approx(n, rel=1e-9)


def test_n_of_small_and_large_divergences() -> None:
    assert n_for_kl(0) == 1.0
    assert n_for_kl(1e-12) == pytest.approx(1 + 2**0.5 * 1e-6, abs=1e-11)  # x^2/2 for small x = log n
    assert n_for_kl(30.0) == pytest.approx(exp(31.0), rel=1e-9)


def test_two_answers_by_hand() -> None:
    """The better of two equally likely answers is missed only if it is missed n times."""
    assert best_of(np.array([0.5, 0.5]), np.array([0.0, 1.0]), 3) == pytest.approx([1 / 8, 7 / 8])
    assert best_of(np.array([0.2, 0.3, 0.5]), np.array([1.0, 1.0, 0.0]), 2) == pytest.approx([0.4 * 0.75, 0.6 * 0.75, 0.25])
    assert best_of(np.array([0.2, 0.8, 0.0]), np.array([2.0, 1.0, 3.0]), 2) == pytest.approx([0.36, 0.64, 0.0])


def test_the_distribution_is_that_of_drawing() -> None:
    rng = np.random.default_rng(1)
    p, reward = rng.dirichlet(np.ones(6)), np.array([0.0, 1.0, 1.0, 2.0, 3.0, 3.0])
    drawn = rng.choice(6, size=(200_000, 4), p=p)
    taken = drawn[np.arange(len(drawn)), reward[drawn].argmax(axis=1)]
    share = np.bincount(taken, minlength=6) / len(taken)
    expected = best_of(p, reward, 4)
    assert np.abs(share - expected).max() < 4 * np.sqrt(0.25 / len(taken))


@pytest.mark.parametrize("n", [1, 2, 7, 50])
@pytest.mark.parametrize("seed", range(10))
def test_bounds_hold_whatever_the_answers(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    m = int(rng.integers(1, 40))
    p, reward = rng.dirichlet(np.full(m, rng.uniform(0.05, 3))), rng.integers(0, 1 + m // 2, m).astype(float)
    found = best_of(p, reward, n)
    assert found.sum() == pytest.approx(1.0)
    assert kl(found, p) <= kl_bound(n) + 1e-12
    assert wins(found, p, reward) <= win_rate_bound(n) + 1e-12
    assert wins(found, p, reward) >= 0.5 - 1e-12


def test_bounds_are_met_by_many_answers_of_different_reward() -> None:
    m = 4000
    p, reward = np.full(m, 1 / m), np.arange(m, dtype=float)
    found = best_of(p, reward, 8)
    assert kl(found, p) == pytest.approx(kl_bound(8), rel=1e-3)
    assert wins(found, p, reward) == pytest.approx(win_rate_bound(8), rel=1e-3)


@pytest.mark.parametrize("n", [0, -1, 2.0, True, None])
def test_n_is_a_whole_number(n: object) -> None:
    for of in (kl_bound, win_rate_bound, compute_factor):
        with pytest.raises(ValueError, match="n must be a whole number of at least 1"):
            of(n)  # type: ignore[operator]


def test_what_is_no_distribution_is_refused() -> None:
    one = np.ones(1)
    for p, reward in ((one * 0.5, one), (one, np.array([np.nan])), (np.ones((1, 1)), one), (np.array([1.5, -0.5]), np.zeros(2))):
        with pytest.raises(ValueError, match="p "):
            best_of(p, reward, 2)
    for bad in (-0.1, float("nan"), float("inf"), 701.0):
        with pytest.raises(ValueError, match="kl must lie between 0 and 700"):
            n_for_kl(bad)
    with pytest.raises(ValueError, match="share must lie between 0 and 1"):
        compute_factor(2, 1.5)
