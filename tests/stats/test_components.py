"""Variance components, agreement, noise, order, decision studies, scale use, calibration: known answers and simulations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest import approx

from aligntax.stats.components import (
    Components,
    calibrate,
    d_study,
    d_table,
    krippendorff_alpha,
    noise_corrected,
    order_effect,
    quantisation_sd,
    repeated,
    scale_use,
    two_way,
    variance_components,
    variant_stability,
)
from aligntax.stats.dispersion import dispersion
from tests.stats.test_dispersion import F1

NAN = float("nan")
F2 = np.array(
    [[[0.9, 0.9], [0.8, 0.9], [0.9, 1.0]], [[0.2, 0.3], [0.6, 0.6], [0.4, 0.5]], [[0.5, 0.5], [0.1, 0.2], [0.8, 0.7]]],
)
"""Three pairs by three models by two repeats."""

F3 = np.array([[0.9, 0.8, NAN, 0.9], [0.2, 0.3, 0.2, NAN], [0.5, 0.5, 0.6, 0.4], [NAN, NAN, 0.7, NAN]])
AB = np.array([[0.90, 0.80, 0.50], [0.40, 0.60, 0.30], [0.70, 0.20, 0.55]])
BA = np.array([[0.90, 0.90, 0.40], [0.50, 0.50, 0.30], [0.60, 0.40, 0.65]])
FACETS = ("pair", "model", "order", "variant")


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("name", "rows"), [("all", slice(0, 8)), ("K", slice(0, 4)), ("X", slice(4, 8))])
def test_components_and_correlations_of_the_golden_fixture(name: str, rows: slice, golden: Callable[[str], Any]) -> None:
    known = golden("atlas_golden.json")["F1"]
    found, anova = two_way(F1[rows]), known["anova"][name]
    values = {
        "MSP": found.ms_pair,
        "MSM": found.ms_model,
        "MSE": found.var_rest,
        "var_pair": found.var_pair,
        "var_model": found.var_model,
        "var_pm_e": found.var_rest,
        "ICC1": found.icc_1,
        "ICC2": found.icc_a1,
        "ICC3": found.icc_c1,
        "ICC2k": found.icc_a1_k,
        "ICC3k": found.icc_c1_k,
    }
    assert values == approx({key: anova[key] for key in values}, rel=1e-9, abs=1e-9)
    assert krippendorff_alpha(F1[rows]) == approx(known["alpha"][name], rel=1e-9, abs=1e-9)


def test_the_printed_table() -> None:
    rows = {
        (0, 8): (0.065415, 0.006936, 0.016529, 0.732513, 0.735992, 0.798286, 0.709907),
        (0, 4): (0.023923, 0.000467, 0.000213, 0.972273, 0.972361, 0.991161, 0.964842),
        (4, 8): (0.006819, 0.042167, 0.004083, -0.004525, 0.128500, 0.625478, -0.003538),
    }
    for (first, last), row in rows.items():
        part = F1[first:last]
        t = two_way(part)
        assert [t.var_pair, t.var_model, t.var_rest, t.icc_1, t.icc_a1, t.icc_c1, krippendorff_alpha(part)] == approx(row, abs=5.1e-7)


def test_mean_variance_within_pairs_is_the_sum_of_the_other_components() -> None:
    for x in (F1, F1[4:], rng(1).random((5, 9))):
        found = two_way(x)
        assert float(np.mean(dispersion(x, "sd") ** 2)) == approx(found.var_model + found.var_rest, rel=1e-12)
    shifted = two_way(F1 + np.arange(6) / 100)
    assert shifted.var_rest == approx(two_way(F1).var_rest, rel=1e-12)  # a model's own level is no interaction
    assert shifted.var_pair == approx(two_way(F1).var_pair, rel=1e-12)


def test_components_with_repeats() -> None:
    """F2: sums of squares .813333 (pairs), .123333 (models), .373333 (pairs x models), .03 (noise); all raw, the models' below 0."""
    found = repeated(F2)
    components = (found.var_pair, found.var_model, found.var_pair_model, found.noise)
    assert components == approx((0.052222, -0.005278, 0.045, 0.003333), abs=5.1e-7)
    cell = found.noise + 2 * found.var_pair_model
    squares = (2 * (cell + 6 * found.var_pair), 2 * (cell + 6 * found.var_model), 4 * cell, 9 * found.noise)
    assert squares == approx((0.813333, 0.123333, 0.373333, 0.03), abs=5.1e-7)
    assert (found.retest, found.sem) == approx((0.960100, 0.057735), abs=5.1e-7)
    raw = variance_components(F2, ("pair", "model"))
    assert raw.negative == [("model",)]
    assert raw.reported("model") == 0.0
    assert raw.reported("pair", "model") == approx(0.045)


def test_alpha_with_missing_ratings() -> None:
    assert krippendorff_alpha(F3) == approx(0.934477, abs=5.1e-7)
    assert krippendorff_alpha(F3[:3]) == approx(krippendorff_alpha(F3), rel=1e-12)  # a unit with one rating is dropped
    assert krippendorff_alpha(np.full((3, 2), 0.5)) is None
    assert krippendorff_alpha(np.array([[0.5, NAN], [NAN, 0.2]])) is None
    # all pairs of values of a unit against all pairs of values, by their definition
    x = F1[4:]
    within = np.mean([(a - b) ** 2 for row in x for i, a in enumerate(row) for j, b in enumerate(row) if i != j])
    every = [(a - b) ** 2 for i, a in enumerate(x.ravel()) for j, b in enumerate(x.ravel()) if i != j]
    assert krippendorff_alpha(x) == approx(1 - within / np.mean(every), rel=1e-12)


def anova(x: np.ndarray) -> dict[tuple[int, ...], float]:
    """Components of a complete crossed design by its mean squares: the sequence of expected mean squares solved from the top."""
    axes = range(x.ndim - 1)
    subsets = [tuple(i for i in axes if code >> i & 1) for code in range(1 << len(axes))]

    def means(kept: tuple[int, ...]) -> np.ndarray:
        return np.asarray(x.mean(axis=tuple(i for i in range(x.ndim) if i not in kept), keepdims=True))

    squares = {}
    for s in subsets:
        effect = sum((-1) ** (len(s) - len(t)) * means(t) for t in subsets if set(t) <= set(s))
        squares[s] = float(np.sum(np.broadcast_to(effect, x.shape) ** 2)) / np.prod([x.shape[i] - 1 for i in s])
    noise = float(x.var(axis=-1, ddof=1).mean())
    found: dict[tuple[int, ...], float] = {}
    for s in sorted(subsets[1:], key=len, reverse=True):
        above = sum(v * x.size / np.prod([x.shape[i] for i in t]) for t, v in found.items() if set(s) < set(t))
        found[s] = (squares[s] - noise - above) / (x.size / np.prod([x.shape[i] for i in s]))
    return found


def test_complete_designs_are_the_analysis_of_variance() -> None:
    x = rng(2).random((5, 4, 2, 3, 2)) + rng(3).random((5, 1, 2, 1, 1))
    found = variance_components(x, FACETS)
    expected = {tuple(FACETS[i] for i in s): v for s, v in anova(x).items()}
    assert found.effects == approx(expected, rel=1e-8, abs=1e-12)
    assert found.noise == approx(float(x.var(axis=-1, ddof=1).mean()))
    assert found.levels == {"pair": 5, "model": 4, "order": 2, "variant": 3}
    single = variance_components(x[:, :, :, :1], FACETS)
    assert single.effects == approx(variance_components(x[:, :, :, 0], FACETS[:3]).effects)
    assert "variant" not in single.levels


TRUTH = {
    ("pair",): 0.04,
    ("model",): 0.01,
    ("pair", "model"): 0.02,
    ("order",): 0.002,
    ("model", "order"): 0.003,
    ("model", "variant"): 0.004,
    ("pair", "model", "order", "variant"): 0.002,
}
NOISE = 0.005


def simulated(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    x = draw.normal(0.5, np.sqrt(NOISE), shape)
    for effect, variance in TRUTH.items():
        x += draw.normal(
            0, np.sqrt(variance), tuple(n if name in effect else 1 for name, n in zip((*FACETS, "repeat"), shape, strict=True))
        )
    return x


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_components_are_recovered_without_bias(missing: float) -> None:
    """Effects that are not there average 0 too, since values below 0 are kept; also with a third of the ratings missing."""
    draw, found = rng(4), []
    for _ in range(100):
        x = simulated(draw, (12, 8, 2, 3, 2))
        x[draw.random(x.shape) < missing] = NAN
        one = variance_components(x, FACETS)
        assert one.noise is not None
        found.append([*one.effects.values(), one.noise])
        names = list(one.effects)
    values = np.array(found)
    truth = np.array([*(TRUTH.get(name, 0.0) for name in names), NOISE])
    assert (np.abs(values.mean(axis=0) - truth) <= 4 * values.std(axis=0, ddof=1) / np.sqrt(100)).all()


def test_two_way_components_with_missing_ratings_are_unbiased() -> None:
    draw, found = rng(5), []
    for _ in range(300):
        x = 0.5 + draw.normal(0, 0.2, (20, 1)) + draw.normal(0, 0.1, (1, 8)) + draw.normal(0, 0.1, (20, 8))
        x[draw.random(x.shape) < 0.25] = NAN
        one = two_way(x)
        assert not one.complete
        assert one.ms_pair is one.ms_model is None
        found.append([one.var_pair, one.var_model, one.var_rest])
    values = np.array(found)
    assert (np.abs(values.mean(axis=0) - [0.04, 0.01, 0.01]) <= 4 * values.std(axis=0, ddof=1) / np.sqrt(300)).all()


def test_designs_that_tell_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="two pairs and two models"):
        two_way(F1[:1])
    with pytest.raises(ValueError, match="none of pair, model has two levels"):
        variance_components(F1[:1, :1, None], ("pair", "model"))
    with pytest.raises(ValueError, match="with a name each"):
        variance_components(F1, ("pair", "model"))
    with pytest.raises(ValueError, match="there are no ratings"):
        variance_components(np.full((2, 2, 1), NAN), ("pair", "model"))
    with pytest.raises(ValueError, match="too many are missing"):
        two_way(np.array([[0.1, NAN, NAN], [NAN, 0.4, NAN], [NAN, NAN, 0.9]]))
    with pytest.raises(ValueError, match="rated a pair twice"):
        repeated(F1[..., None])
    with pytest.raises(ValueError, match="finite"):
        two_way(np.array([[0.1, np.inf], [0.2, 0.3]]))
    assert two_way(np.full((3, 3), 0.5)).icc_a1 is None


@pytest.mark.parametrize("pooled", [False, True])
def test_divergence_without_noise(pooled: bool) -> None:
    found = noise_corrected(F2, pooled=pooled)
    assert found.raw == approx([0.05, 0.175594, 0.301386], abs=5.1e-7)
    assert found.corrected == approx([0.028868, 0.170783, 0.298608], abs=5.1e-7)
    assert found.noise == approx([1 / 300] * 3)
    assert found.negative == 0


def test_divergence_below_the_noise_is_kept_raw_and_counted() -> None:
    x = np.array([[[0.4, 0.6], [0.45, 0.55], [0.5, 0.5]], [[0.1, NAN], [0.5, NAN], [NAN, NAN]], [[0.2, 0.3], [NAN, NAN], [NAN, NAN]]])
    found = noise_corrected(x)
    assert found.variance[0] == approx(-(0.02 + 0.005) / 3 / 2)
    assert found.corrected[0] == 0
    assert found.negative == 1
    assert np.isnan(found.noise[1])  # nothing of that pair was repeated
    assert np.isnan(found.corrected[[1, 2]]).all()
    pooled = noise_corrected(x, pooled=True)
    assert pooled.noise == approx([(0.02 + 0.005 + 0.005) / 4] * 3)
    assert pooled.variance[1] == approx(0.08 - 0.0075)


def test_each_pairs_own_noise_is_unbiased_where_pairs_differ_in_noise() -> None:
    """Calm pairs (noise SD .01, D .02) and contested ones (.10, .20), some repeats missing: pooled noise halves the calm pairs' variance and more."""
    draw = rng(6)
    calm = np.arange(4000) % 2 == 0
    d, noise = np.where(calm, 0.02, 0.20), np.where(calm, 0.01, 0.10)
    x = 0.5 + d[:, None, None] * draw.normal(size=(4000, 8, 1)) + noise[:, None, None] * draw.normal(size=(4000, 8, 3))
    x[:, :, 2][draw.random((4000, 8)) < 0.3] = NAN
    own, pooled = noise_corrected(x), noise_corrected(x, pooled=True)
    for part, truth in ((calm, 0.02**2), (~calm, 0.20**2)):
        values = own.variance[part]
        assert values.mean() == approx(truth, abs=4 * values.std() / np.sqrt(len(values)))
    assert pooled.variance[calm].mean() < 0
    assert pooled.variance[~calm].mean() > 0.20**2 + 0.001


def test_order_effect() -> None:
    found = order_effect(AB, BA)
    assert found.signed == approx([0, -0.066667, 0], abs=5.1e-7)
    assert found.mean_absolute == approx(0.088889, abs=5.1e-7)
    assert found.noise_sd == approx(0.074536, abs=5.1e-7)
    assert dispersion(found.symmetrised, "sd") == approx([0.246644, 0.125831, 0.189297], abs=5.1e-7)
    assert dispersion(AB, "sd") == approx([0.208167, 0.152753, 0.256580], abs=5.1e-7)
    assert found.absolute == approx([2 / 30, 4 / 30, 2 / 30])
    assert found.unfit(0.1) == [1]
    assert list(found.pairs) == [3, 3, 3]


def test_order_effect_with_missing_ratings() -> None:
    ab, ba = AB.copy(), BA.copy()
    ab[0, 1], ba[:, 2] = NAN, NAN
    found = order_effect(ab, ba)
    assert list(found.pairs) == [3, 2, 0]
    assert found.signed == approx([0, -0.05, NAN], nan_ok=True)
    assert np.isnan(found.symmetrised).sum() == 4
    assert found.unfit(0.1) == [1]
    nothing = order_effect(np.full((2, 2), NAN), ba[:2, :2])
    assert nothing.mean_absolute is nothing.noise_sd is None
    with pytest.raises(ValueError, match="both orders"):
        order_effect(ab, ba[:2])


def made(noise: float | None = NOISE) -> Components:
    every = {(f,): 0.0 for f in FACETS} | TRUTH
    return Components(every, noise, {"pair": 100, "model": 10, "order": 2, "variant": 3}, 1)


def test_a_decision_study_by_hand() -> None:
    """Both orders asked leave nothing of the order; half of its variance, and of what else rests on it alone, stays with one of them."""
    both = d_study(made(), {"order": 2, "variant": 3, "repeat": 2})
    assert both.signal == approx(0.01 + 0.02 + 0.003 / 2)
    assert both.error == approx(0.004 / 3 + 0.002 / 6 + NOISE / 12)
    assert both.reliability == approx(both.signal / (both.signal + both.error))
    assert both.inflation == approx(1 / np.sqrt(both.signal / (both.signal + both.error)))
    one = d_study(made(), {})
    assert one.counts == {"order": 1, "variant": 1, "repeat": 1}
    assert one.error == approx(0.003 / 2 + 0.004 + 0.002 + NOISE)
    unlimited = d_study(made(), {"order": 2}, universe={})
    assert unlimited.error == approx(0.003 / 2 + 0.004 + 0.002 / 2 + NOISE / 2)
    confounded = d_study(made(noise=None), {"order": 2})
    assert confounded.error == approx(0.004 + 0.002 / 2)


def test_the_table_adds_one_level_at_a_time() -> None:
    rows = d_table(made(), {"order": 2, "variant": 3, "repeat": 2})
    assert [tuple(row.counts.values()) for row in rows] == [(2, 3, 2), (2, 4, 2), (2, 3, 3)]  # there is no third order
    assert rows[1].error == approx(0.004 / 4 + 0.002 / 8 + NOISE / 16)
    assert [tuple(row.counts.values()) for row in d_table(made(noise=None), {})] == [(1, 1), (2, 1), (1, 2)]


def test_decision_studies_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="noise cannot be told from divergence"):
        d_study(variance_components(F1[..., None], ("pair", "model")), {})
    for wrong in ({"order": 3}, {"variant": 0}, {"wording": 2}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} can have"):
            d_study(made(), wrong)
    with pytest.raises(ValueError, match="repeat can have 1 level here"):
        d_study(made(noise=None), {"repeat": 2})
    with pytest.raises(ValueError, match="two models"):
        d_study(made(), {}, models=1)


def test_a_decision_study_foretells_the_error_of_a_divergence() -> None:
    """Many studies of the same pair and models (true ratings fixed, both orders): s^2 exceeds their variance by the error, and varies by its SE."""
    draw, models, studies = rng(7), 12, 20_000
    design = d_study(made(), {"order": 2, "variant": 3, "repeat": 2}, models=models)
    true = draw.normal(size=models)
    true *= np.sqrt(design.signal / true.var(ddof=1))
    wording = draw.normal(0, np.sqrt(0.004 / 3), (studies, models))
    rest = draw.normal(0, np.sqrt(0.002 / 6 + NOISE / 12), (studies, models))
    s2 = (true + wording + rest).var(axis=1, ddof=1)
    assert s2.mean() - design.signal == approx(design.error, abs=4 * s2.std() / np.sqrt(studies))
    assert s2.std() == approx(design.se_variance, rel=0.02)
    assert design.se is not None
    assert np.sqrt(np.maximum(s2 - design.error, 0)).std() == approx(design.se, rel=0.05)
    assert d_study(made(noise=10.0), {}).se is None  # the root of what is mostly noise


def test_a_grid_adds_a_uniform_error() -> None:
    assert [quantisation_sd(0.05), quantisation_sd(0.01)] == approx([0.0144, 0.0029], abs=5e-5)
    x = rng(8).random(200_000)
    assert (np.round(x * 20) / 20 - x).std() == approx(quantisation_sd(0.05), rel=0.01)


@pytest.mark.slow
def test_rank_stability_is_scipys_tau_b() -> None:
    from scipy.stats import kendalltau

    x = np.round(rng(10).random((40, 2, 2)), 1)
    spread = dispersion(np.moveaxis(x, 2, 0), "gmd")
    assert variant_stability(x).tau == approx(kendalltau(spread[0], spread[1]).statistic, rel=1e-12)


def test_pairs_that_diverge_under_several_wordings() -> None:
    """Flagged with 5 models from a range of .20 on; the fourth pair was rated in one wording only, which cannot decide."""
    spread = np.array([[0.3, 0.3, 0.1], [0.1, 0.4, 0.05], [0.5, 0.25, 0.4], [0.3, NAN, NAN], [0.1, 0.12, NAN]])
    x = 0.3 + spread[:, None, :] * np.array([0, 0.2, 0.5, 0.9, 1.0])[:, None]
    found = variant_stability(x)
    assert list(found.flagged) == [2, 1, 3, 1, 0]
    assert list(found.rated) == [3, 3, 3, 1, 2]
    assert found.divergent == approx([1, 0, 1, NAN, 0], nan_ok=True)
    # of (.3, .1, .5, .1) and (.3, .4, .25, .12): 2 concordant, 3 discordant, one tie: -1 / sqrt(5 x 6); (.3, .1, .5) and (.1, .05, .4): 1;
    # (.3, .4, .25) and (.1, .05, .4): all three the other way round, -1
    assert found.tau == approx((-1 / np.sqrt(30) + 1 - 1) / 3)
    assert variant_stability(np.repeat(x[:3, :, :1], 2, axis=2)).tau == approx(1.0)
    assert variant_stability(np.full((3, 4, 2), 0.5)).tau is None
    with pytest.raises(ValueError, match="two variants or more"):
        variant_stability(x[..., :1])


def test_scale_use_by_hand() -> None:
    x = np.array([[0.0, 0.5], [1.0, 0.5], [0.5, 0.5], [0.5, NAN], [0.37, NAN], [NAN, NAN]])
    reference = np.array([0.0, 1.0, 0.5, NAN, NAN, NAN])
    first, second = scale_use(x, reference)
    assert (first.ratings, first.missing, first.distinct) == (5, 1, 4)
    assert first.on_grid == approx(0.8)
    assert first.entropy == approx(-(3 * 0.2 * np.log(0.2) + 0.4 * np.log(0.4)))
    assert first.at_ends == approx(0.4)
    assert (first.slope, first.offset) == approx((1.0, 0.0))
    off = x[:5, 0] - x[:5, 0].mean()
    assert first.kurtosis == approx(np.mean(off**4) / np.mean(off**2) ** 2)
    assert (second.entropy, second.kurtosis, second.slope, second.offset) == (approx(0), None, approx(0), approx(0.5))
    nothing = scale_use(np.full((3, 1), NAN))[0]
    assert (nothing.ratings, nothing.missing, nothing.distinct) == (0, 3, 0)
    assert nothing.on_grid is nothing.entropy is nothing.kurtosis is nothing.at_ends is nothing.slope is nothing.offset is None
    assert scale_use(np.array([[0.0], [1.0]] * 50))[0].kurtosis == approx(1.0)
    grid = scale_use(np.arange(0, 1.0001, 0.05)[:, None])[0]
    assert (grid.on_grid, grid.distinct) == (1.0, 21)
    with pytest.raises(ValueError, match="reference for every pair"):
        scale_use(x, reference[:2])


def test_calibration_undoes_how_models_use_the_scale() -> None:
    """Four models that rate the same similarity x as x, x^2, sqrt x and .2 + .5 x: apart before, together after."""
    draw = rng(9)
    truth = np.concatenate([np.linspace(0, 1, 41), draw.uniform(0, 1, 30)])
    reference = np.where(np.arange(71) < 41, truth, NAN)
    x = np.column_stack([truth, truth**2, np.sqrt(truth), 0.2 + 0.5 * truth])
    found = calibrate(x, reference)
    assert found.fitted.all()
    assert np.isnan(found.ratings[:41]).all()
    assert found.beyond == approx(0)
    assert np.abs(found.ratings[41:] - truth[41:, None]).max() < 0.02
    assert dispersion(x[41:], "gmd").mean() > 0.15
    assert dispersion(found.ratings[41:], "gmd").max() < 0.01


def test_calibration_by_hand() -> None:
    """Ratings .2, .4, .4, .6 of anchors at 0, .6, .2, .3: the two at .4 average .4, which .3 at .6 contradicts: pooled 1.1 / 3."""
    rating = np.array([0.2, 0.4, 0.4, 0.6, 0.3, 0.5, 0.9, NAN])
    reference = np.array([0.0, 0.6, 0.2, 0.3, NAN, NAN, NAN, NAN])
    reversed_, flat = 1 - rating, np.where(np.isnan(rating), NAN, 0.5)
    few = np.array([0.1, 0.3, NAN, NAN, 0.5, 0.5, 0.5, 0.5])
    found = calibrate(np.column_stack([rating, reversed_, flat, few]), reference)
    level = (0.6 + 0.2 + 0.3) / 3
    assert found.ratings[4:, 0] == approx([level / 2, level, level, NAN], nan_ok=True)
    assert list(found.fitted) == [True, False, False, False]
    assert found.beyond[0] == approx(1 / 3)
    assert np.isnan(found.ratings[:, 1:]).all()
    with pytest.raises(ValueError, match="three anchors"):
        calibrate(rating[:, None], np.where(np.arange(8) < 2, 0.5, NAN))
