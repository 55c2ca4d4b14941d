"""Predictors against drops: scipy's statistics, permutations by hand, refits, and levels."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from aligntax.stats.predictors import compare_predictors, hold_predictors, hold_together

Rng = np.random.Generator


@pytest.mark.parametrize("n", [8, 15])
def test_rank_correlations_are_scipys(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=n).round(1)
    x[1] = x[0]  # a tie
    y = (x + rng.normal(size=n)).round(1)
    found = hold_predictors(y, {"x": x}, rng, draws=500).held["x"]
    assert found.spearman == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.kendall == pytest.approx(stats.kendalltau(x, y).statistic)


def test_eight_tasks_are_permuted_exactly() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=8), rng.normal(size=8)
    holding = hold_predictors(y, {"x": x}, rng)
    assert (holding.exact, holding.orders, holding.tasks) == (True, 40320, 8)
    found = holding.held["x"]
    ranks = stats.rankdata(y)
    every = np.array([np.corrcoef(stats.rankdata(x), ranks[list(o)])[0, 1] for o in list(permutations(range(8)))[::37]])
    assert found.spearman_p == pytest.approx(np.mean(np.abs(every) >= abs(found.spearman) - 1e-12), abs=0.06)
    assert found.kendall_p == pytest.approx(stats.kendalltau(x, y, method="exact").pvalue)
    order = hold_predictors(np.arange(8.0), {"x": np.arange(8.0)}, rng).held["x"]
    assert (order.spearman_p, order.kendall_p) == (pytest.approx(2 / 40320), pytest.approx(2 / 40320))
    # of all 10! orders two are as extreme; the drawn p is (1 + b)/(1 + B)
    assert hold_predictors(np.arange(10.0), {"x": np.arange(10.0)}, rng, draws=99).held["x"].spearman_p == pytest.approx(0.01)


def test_predictors_are_adjusted_together() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(size=20)
    table = {"good": y + 0.3 * rng.normal(size=20), "none": rng.normal(size=20), "other": rng.normal(size=20)}
    held = hold_predictors(y, table, rng, draws=999).held
    assert held["good"].adjusted_p == pytest.approx(3 * held["good"].spearman_p)
    assert all(h.adjusted_p >= h.spearman_p for h in held.values())
    assert held["good"].low > 0.5


def test_auc_is_mann_whitney() -> None:
    rng = np.random.default_rng(3)
    y, x = rng.normal(size=20), rng.normal(size=20).round(0)
    holding = hold_predictors(y, {"x": x}, rng, margin=0.3, draws=99)
    u = stats.mannwhitneyu(x[y > 0.3], x[y <= 0.3]).statistic
    assert holding.held["x"].auc == pytest.approx(u / (np.sum(y > 0.3) * np.sum(y <= 0.3)))
    assert holding.beyond == int(np.sum(y > 0.3))
    assert hold_predictors(y, {"x": x}, rng, margin=99.0, draws=99).held["x"].auc is None
    assert hold_predictors(y, {"x": x}, rng, draws=99).held["x"].auc is None


def test_calibration_leaves_each_task_out() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=12)
    y = 0.5 + 2 * x + rng.normal(size=12)
    found = hold_predictors(y, {"x": x}, rng, draws=99).held["x"].calibration
    line = stats.linregress(x, y)
    assert (found.slope, found.intercept) == pytest.approx((line.slope, line.intercept))
    assert found.slope_high - found.slope == pytest.approx(stats.t.ppf(0.975, 10) * line.stderr)
    kept = [np.arange(12) != i for i in range(12)]
    predicted = np.array([np.polyval(np.polyfit(x[k], y[k], 1), x[i]) for i, k in enumerate(kept)])
    means = np.array([y[k].mean() for k in kept])
    assert found.q2 == pytest.approx(1 - np.sum((y - predicted) ** 2) / np.sum((y - means) ** 2))
    loo = stats.linregress(predicted, y)
    assert (found.loo_slope, found.loo_intercept) == pytest.approx((loo.slope, loo.intercept))
    worthless = hold_predictors(rng.normal(size=40), {"x": rng.normal(size=40)}, rng, draws=99).held["x"].calibration
    assert worthless.q2 < 0.1


def test_errors_of_drops_bound_what_can_be_seen() -> None:
    rng = np.random.default_rng(5)
    y = rng.normal(size=30)
    holding = hold_predictors(y, {"x": rng.normal(size=30)}, rng, se=np.full(30, 0.5), draws=99)
    assert holding.reliability == pytest.approx(1 - 0.25 / y.var(ddof=1))
    assert holding.ceiling == pytest.approx(np.sqrt(holding.reliability))
    hopeless = hold_predictors(y, {"x": rng.normal(size=30)}, rng, se=np.full(30, 3.0), draws=99)
    assert hopeless.ceiling == 0
    assert hold_predictors(y, {"x": rng.normal(size=30)}, rng, draws=99).ceiling is None
    reached = []
    for _ in range(60):
        truth = rng.normal(size=60)
        h = hold_predictors(truth + rng.normal(size=60), {"truth": truth}, rng, se=np.ones(60), draws=9)
        reached.append((h.ceiling, h.held["truth"].spearman))
    ceiling, spearman = np.mean(reached, axis=0)
    assert spearman == pytest.approx(ceiling, abs=0.05)


def test_two_predictors() -> None:
    rng = np.random.default_rng(6)
    y = rng.normal(size=10)
    good, bad = y + 0.1 * rng.normal(size=10), rng.normal(size=10)
    found = compare_predictors(y, good, bad, rng)
    back = compare_predictors(y, bad, good, rng)
    assert found.difference == pytest.approx(stats.spearmanr(y, good).statistic - stats.spearmanr(y, bad).statistic)
    assert (back.difference, back.p) == (pytest.approx(-found.difference), pytest.approx(found.p))
    assert (found.exact, found.swaps) == (True, 1024)
    # by hand: ranks of a task are swapped, and ranked again
    ranks = np.stack([stats.rankdata(good), stats.rankdata(bad)])
    beyond = 0
    for i in range(1024):
        swap = np.array([i >> j & 1 for j in range(10)], dtype=bool)
        a, b = np.where(swap, ranks[0], ranks[1]), np.where(swap, ranks[1], ranks[0])
        beyond += abs(stats.spearmanr(a, y).statistic - stats.spearmanr(b, y).statistic) >= abs(found.difference) - 1e-9
    assert found.p == pytest.approx(beyond / 1024)
    same = compare_predictors(y, good, 3 * good + 1, rng)
    assert (same.difference, same.p) == (pytest.approx(0), 1.0)
    assert compare_predictors(np.arange(20.0), np.arange(20.0), rng.normal(size=20), rng, draws=199).exact is False


def test_few_tasks_decide_nothing() -> None:
    rng = np.random.default_rng(7)
    found = hold_predictors(np.arange(7.0), {"x": np.arange(7.0)}, rng, margin=3.0)
    assert found.held == {}
    assert found.reason == "not identified: 7 tasks, and it takes at least 8"
    assert found.beyond == 3
    with pytest.raises(ValueError, match="at least 8 tasks"):
        compare_predictors(np.arange(7.0), np.arange(7.0), np.arange(7.0) ** 2, rng)


def test_what_cannot_be_held() -> None:
    rng = np.random.default_rng(8)
    y = rng.normal(size=10)
    hole = y.copy()
    hole[2] = np.nan
    for arguments, options, said in (
        ((hole, {"x": y}), {}, "drops: 1 of 10 values are not finite"),
        ((y, {"x": hole}), {}, "the predictor 'x': 1 of 10"),
        ((y, {"x": np.ones(10)}), {}, "the same for all tasks"),
        ((np.zeros(10), {"x": y}), {}, "drops: the same"),
        ((y, {"x": y[:9]}), {}, r"the shape \(9,\) for 10 tasks"),
        ((y, {}), {}, "at least one predictor"),
        ((y, {"x": y}), {"se": -np.ones(10)}, "0 or more"),
        ((y, {"x": y}), {"level": 0.0}, "level"),
    ):
        with pytest.raises(ValueError, match=said):
            hold_predictors(*arguments, rng, **options)


def level_study(rng: Rng, n: int, studies: int, draws: int = 199) -> dict[str, float]:
    """Shares of p at most .05 for a worthless predictor and for two equally good ones, and coverage of rho's limits."""
    found = []
    rho = 6 / np.pi * np.arcsin(0.25)  # of normals with correlation .5
    for _ in range(studies):
        z, noise = rng.normal(size=n), rng.normal(size=(4, n))
        y, a, b, c = z + noise[0], z + noise[1], z + noise[2], noise[3]
        held = hold_predictors(y, {"a": a, "c": c}, rng, draws=draws).held
        d = compare_predictors(y, a, b, rng, draws=draws)
        found.append(
            (
                held["c"].spearman_p <= 0.05,
                held["c"].kendall_p <= 0.05,
                d.p <= 0.05,
                held["c"].low <= 0 <= held["c"].high,
                held["a"].low <= rho <= held["a"].high,
                d.low <= 0 <= d.high,
            )
        )
    names = ("spearman rejects", "kendall rejects", "swaps reject", "covers 0", "covers rho .48", "covers difference 0")
    return dict(zip(names, np.mean(found, axis=0).tolist(), strict=True))


def test_levels() -> None:
    row = level_study(np.random.default_rng(9), 13, 120, 99)
    for name, share in row.items():
        if "reject" in name:
            assert share <= 0.11, name
        else:
            assert share >= 0.87, name


@pytest.mark.slow
@pytest.mark.parametrize("n", [9, 16, 30])
def test_levels_everywhere(n: int) -> None:
    row = level_study(np.random.default_rng(10), n, 2000)
    for name in ("spearman rejects", "kendall rejects"):
        assert 0.03 <= row[name] <= 0.065, name
    assert row["swaps reject"] <= 0.08
    assert row["covers 0"] >= 0.9


# -- several outcomes of the same tasks --------------------------------------------------------------------------------------------


def correlated(rng: Rng, outcomes: int, n: int, shared: float = 0.8) -> np.ndarray:
    """(outcomes, n) drops that share most of their variance, as those of models that were trained alike do."""
    return np.sqrt(shared) * rng.normal(size=n) + np.sqrt(1 - shared) * rng.normal(size=(outcomes, n))


@pytest.mark.parametrize("n", [8, 21])
def test_the_mean_over_outcomes_is_that_of_scipys(n: int) -> None:
    rng = np.random.default_rng(11)
    y = correlated(rng, 3, n).round(1)
    one = rng.normal(size=n).round(1)
    one[1] = one[0]  # a tie
    each = rng.normal(size=(3, n)) + y
    found = hold_together(y, {"one": one, "each": each}, rng, margin=0.0, draws=99)
    assert found["one"].spearman == pytest.approx(np.mean([stats.spearmanr(one, row).statistic for row in y]))
    assert found["each"].spearman == pytest.approx(np.mean([stats.spearmanr(x, row).statistic for x, row in zip(each, y, strict=True)]))
    areas = [stats.mannwhitneyu(one[row > 0], one[row <= 0]).statistic / (np.sum(row > 0) * np.sum(row <= 0)) for row in y]
    assert found["one"].auc == pytest.approx(np.mean(areas))


def test_one_outcome_is_held_as_alone() -> None:
    rng = np.random.default_rng(12)
    y, table = rng.normal(size=8), {"a": rng.normal(size=8), "b": rng.normal(size=8)}
    alone = hold_predictors(y, table, rng, margin=0.2).held
    for name, found in hold_together(y[None], table, rng, margin=0.2).items():
        assert found.spearman == pytest.approx(alone[name].spearman)
        assert (found.p, found.adjusted_p) == pytest.approx((alone[name].spearman_p, alone[name].adjusted_p))
        assert found.auc == pytest.approx(alone[name].auc)


def test_eight_tasks_of_several_outcomes_are_permuted_exactly() -> None:
    """All 8! orders, each of them in every outcome alike; no draw enters."""
    rng = np.random.default_rng(13)
    y, x = correlated(rng, 2, 8), rng.normal(size=8)
    first, second = (hold_together(y, {"x": x}, np.random.default_rng(seed))["x"] for seed in (1, 2))
    assert first == second
    ranks, u = stats.rankdata(y, axis=1), stats.rankdata(x)
    orders = np.array(list(permutations(range(8))))
    every = np.mean([(row[orders] - 4.5) @ (u - 4.5) / 42 for row in ranks], axis=0)
    assert first.p == pytest.approx(np.mean(np.abs(every) >= abs(first.spearman) - 1e-9))
    best = hold_together([np.arange(8.0), np.arange(8.0) ** 3], {"x": np.arange(8.0), "down": -np.arange(8.0)}, rng)
    assert (best["x"].p, best["x"].adjusted_p) == pytest.approx((2 / 40320, 4 / 40320))
    assert (best["down"].spearman, best["down"].p) == pytest.approx((-1, 2 / 40320))


def test_drawn_orders_of_several_outcomes() -> None:
    y = np.tile(np.arange(20.0), (4, 1))
    found = hold_together(y, {"x": np.arange(20.0)}, np.random.default_rng(14), draws=199)["x"]
    assert found.p == pytest.approx(1 / 200)
    again = [hold_together(correlated(np.random.default_rng(1), 3, 20), {"x": np.arange(20.0)}, np.random.default_rng(2)) for _ in range(2)]
    assert again[0] == again[1]


def test_outcomes_that_agree_are_no_further_evidence() -> None:
    """Ten copies of one outcome have its p: a permutation of tasks moves all of them alike."""
    rng = np.random.default_rng(15)
    y, x = rng.normal(size=8), rng.normal(size=8)
    one, ten = (hold_together(np.tile(y, (k, 1)), {"x": x}, rng)["x"].p for k in (1, 10))
    assert ten == pytest.approx(one)


def together_level(rng: Rng, studies: int, n: int, outcomes: int, shared: float, draws: int = 99) -> float:
    """Share of p at most .05 for a predictor that tells nothing of outcomes that are correlated."""
    found = [
        hold_together(correlated(rng, outcomes, n, shared), {"x": rng.normal(size=n)}, rng, draws=draws)["x"].p for _ in range(studies)
    ]
    return float(np.mean(np.array(found) <= 0.05))


@pytest.mark.parametrize("shared", [0.0, 0.9])
def test_level_with_correlated_outcomes(shared: float) -> None:
    """400 studies: .05 is hardly ever missed by .035. Outcomes that were taken as independent would reject some .4 where they share .9."""
    assert 0.015 <= together_level(np.random.default_rng(16), 400, 12, 6, shared) <= 0.085


@pytest.mark.slow
@pytest.mark.parametrize("shared", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [9, 20])
def test_level_with_correlated_outcomes_everywhere(n: int, shared: float) -> None:
    assert 0.04 <= together_level(np.random.default_rng(17), 4000, n, 5, shared, 199) <= 0.06


def test_few_tasks_of_several_outcomes_decide_nothing() -> None:
    rng = np.random.default_rng(18)
    assert hold_together(rng.normal(size=(3, 7)), {"x": np.arange(7.0)}, rng) == {}
    assert set(hold_together(rng.normal(size=(3, 8)), {"x": np.arange(8.0)}, rng, draws=9)) == {"x"}


def test_auc_of_several_outcomes() -> None:
    """Of outcomes in which all tasks or none are beyond the margin there is none; of the others the mean."""
    rng = np.random.default_rng(19)
    up = np.arange(9.0)
    found = hold_together([up, up + 100, -up], {"x": up}, rng, margin=4.0, draws=9)
    assert found["x"].auc == pytest.approx(1.0)
    assert hold_together([up + 100, -up], {"x": up}, rng, margin=4.0, draws=9)["x"].auc is None
    assert hold_together([up, up[::-1]], {"x": up}, rng, margin=4.0, draws=9)["x"].auc == pytest.approx(0.5)
    assert hold_together([up], {"x": up}, rng, draws=9)["x"].auc is None


def test_what_cannot_be_held_together() -> None:
    rng = np.random.default_rng(20)
    y = rng.normal(size=(2, 10))
    hole, flat = y.copy(), y.copy()
    hole[1, 2], flat[1] = np.nan, 3.0
    for drops, table, options, said in (
        (y[0], {"x": y[0]}, {}, "drops by outcome and task"),
        (y[:0], {"x": np.arange(10.0)}, {}, "drops by outcome and task"),
        (y, {}, {}, "a predictor"),
        (y, {"x": y}, {"draws": 0}, "a draw"),
        (hole, {"x": y}, {}, "drops: 1 of 10 values are not finite"),
        (flat, {"x": y}, {}, "drops: the same for all tasks"),
        (y, {"x": hole}, {}, "the predictor 'x': 1 of 10 values are not finite"),
        (y, {"x": flat}, {}, "the predictor 'x': the same for all tasks"),
    ):
        with pytest.raises(ValueError, match=said):
            hold_together(drops, table, rng, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(9,), (3, 10), (2, 9)])
def test_a_predictor_of_another_shape_is_named(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(21)
    with pytest.raises(ValueError, match="the predictor 'x'"):
        hold_together(rng.normal(size=(2, 10)), {"x": rng.normal(size=shape)}, rng)
