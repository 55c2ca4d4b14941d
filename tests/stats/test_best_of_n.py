"""Best of n: known answers, and simulations in which the bounds hold and are met."""

from __future__ import annotations

import csv
from itertools import combinations
from math import comb, exp, log
from pathlib import Path

import numpy as np
import pytest

from aligntax.stats.best_of_n import FloatArray, best_of, best_of_draws, compute_factor, kl_bound, n_for_kl, win_rate_bound
from aligntax.stats.paired import critical_value, paired_change


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
    with pytest.raises(ValueError, match="p and reward must be"):
        best_of([[0.5, 0.5]], [[1.0, 2.0]], 2)


def test_draws_by_hand() -> None:
    """Of three answers with rewards 1 < 2 < 3 two are drawn: the best is the third twice, the second once."""
    assert best_of_draws([2.0, 3.0, 1.0], [10.0, 40.0, 70.0], 2) == pytest.approx((2 * 40 + 10) / 3)
    assert best_of_draws([2.0, 3.0, 1.0], [10.0, 40.0, 70.0], 1) == pytest.approx(40.0)
    assert best_of_draws([2.0, 3.0, 1.0], [10.0, 40.0, 70.0], 3) == 40.0
    assert best_of_draws([0.0, 0.0], [1.0, 0.0], 2) == 0.5  # a tie
    assert best_of_draws([-np.inf, np.inf], [1.0, 0.0], 2) == 0.0


def test_draws_are_pass_at_k_where_the_score_is_the_reward() -> None:
    right = np.array([1.0, 0, 0, 1, 0, 0, 0, 0, 0, 1])
    for n in range(1, 11):
        assert best_of_draws(right, right, n) == pytest.approx(1 - comb(7, n) / comb(10, n))


@pytest.mark.parametrize("seed", range(5))
def test_draws_are_the_mean_over_all_subsets(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reward, value = rng.integers(0, 4, 7).astype(float), rng.normal(0, 1, 7)
    for n in range(1, 8):
        means = [value[list(s)][reward[list(s)] == reward[list(s)].max()].mean() for s in combinations(range(7), n)]
        assert best_of_draws(reward, value, n) == pytest.approx(float(np.mean(means)), abs=1e-12)


def test_draws_are_unbiased_and_their_interval_covers() -> None:
    """Prompts with three answers each, drawn 6 times; what the best of 4 changes over one draw, over all prompts that there might be."""
    rng, n, prompts, runs = np.random.default_rng(3), 4, 40, 400
    laws = rng.dirichlet(np.ones(3), 400)
    reward, value = np.array([0.0, 1.0, 2.0]), np.array([1.0, 0.0, 1.0])
    truth = float(np.mean([best_of(p, reward, n) @ value - p @ value for p in laws]))
    estimates, held = [], 0
    for _ in range(runs):
        upper = laws[rng.integers(0, 400, prompts)].cumsum(axis=1)[:, None, :2]
        drawn = (rng.random((prompts, 6, 1)) > upper).sum(axis=2)
        d = np.array([best_of_draws(reward[x], value[x], n) - value[x].mean() for x in drawn])
        found = paired_change(d, binary=False, trials=True, scale=None)
        assert found.se is not None
        estimates.append(found.change)
        held += abs(found.change - truth) <= critical_value(0.95, prompts - 1) * found.se
    assert np.mean(estimates) == pytest.approx(truth, abs=3 * np.std(estimates) / np.sqrt(runs))
    assert 0.925 <= held / runs <= 0.975


def test_draws_that_cannot_be_chosen_from_are_refused() -> None:
    for reward, value, n, said in (
        ([1.0], [1.0, 2.0], 1, "must be"),
        ([np.nan, 1.0], [1.0, 2.0], 1, "must be"),
        ([1.0, 2.0], [1.0, np.nan], 1, "must be"),
        ([1.0, 2.0], [1.0, 2.0], 3, "the best of 3 takes 3 answers to a prompt, got 2"),
        ([], [], 1, "takes 1 answers"),
        ([1.0, 2.0], [1.0, 2.0], 0, "whole number"),
    ):
        with pytest.raises(ValueError, match=said):
            best_of_draws(reward, value, n)


def test_the_recipe_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every subset of 4 of 5 draws but one holds the draw with the highest reward, which is right; without it the next is, which is wrong."""
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[2] / "docs" / "guards.md").read_text(encoding="utf-8")
    (code,) = [code for block in text.split("```python\n")[1:] if "best_of_draws" in (code := block.partition("```")[0])]
    lines = [f"{item},{k},{int(k == 4)},{k}" for item in ("a", '"b, c"') for k in range(5)]
    Path("base.csv").write_text("\n".join(["item,trial,score,reward", *lines]))
    exec(code, {})
    with Path("best.csv").open(newline="") as file:
        assert [(row["item"], float(row["score"])) for row in csv.DictReader(file)] == [("a", 0.8), ("b, c", 0.8)]
