"""Contrasts of categories: known answers, brute force over relabellings, tests that hold their level, intervals that cover."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from pytest import approx

from aligntax.stats.contrasts import (
    EnsembleBootstrap,
    category_contrast,
    category_summary,
    ensemble_bootstrap,
    log_ratio,
    mean_dispersion,
    ordered_trend,
)
from aligntax.stats.dispersion import dispersion, log_dispersion
from aligntax.stats.multiplicity import benjamini_hochberg, holm
from tests.stats.test_dispersion import F1

NAN = float("nan")
KX = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_fixtures_ratios_and_its_exact_p() -> None:
    found = category_contrast(log_dispersion(F1, "sd"), KX, 1, 0, rng=rng())
    assert found.ratio == approx(9.744291, abs=5e-7)
    assert (found.exact, found.relabellings) == (True, 70)
    assert found.p_greater == approx(1 / 70)
    assert found.p == approx(2 / 70)
    assert (found.first, found.second, found.left_out) == (4, 4, 0)
    back = category_contrast(log_dispersion(F1, "sd"), KX, 0, 1, rng=rng())
    assert (back.difference, back.p, back.p_greater) == approx((-found.difference, found.p, 1.0))
    for statistic, summary, known in (
        ("range", "mean", 7.142857),
        ("sd", "mean", 8.899244),
        ("gmd", "mean", 8.806818),
        ("sd", "rms", 8.247103),
    ):
        ensemble = ensemble_bootstrap(F1, statistic, rng=rng(), resamples=20)  # type: ignore[arg-type]
        assert np.exp(log_ratio(ensemble, KX, 1, 0, rng=rng(), summary=summary).estimate) == approx(known, abs=5e-7)  # type: ignore[arg-type]


def test_category_spread_is_the_mean_of_ranges_not_the_range_of_means() -> None:
    control, clash = category_summary(F1[:4]), category_summary(F1[4:])
    assert [control.means["full_range"], clash.means["full_range"]] == approx([0.07, 0.50])
    assert [control.range_of_means, clash.range_of_means] == approx([0.065, 0.45])
    assert [control.flagged, clash.flagged] == [0.0, 1.0]
    assert [control.mean_rating, clash.mean_rating] == approx([0.8125, 0.375])
    assert clash.geometric_sd is not None
    assert control.geometric_sd is not None
    assert clash.geometric_sd / control.geometric_sd == approx(9.744291, abs=5e-7)
    assert clash.medians["gmd"] == approx(4 / 15)


def test_a_summary_of_nothing_is_none() -> None:
    x = np.array([[0.5, NAN, NAN], [NAN, NAN, NAN]])
    found = category_summary(x)
    assert found.pairs == 0
    assert found.mean_rating is found.rms_sd is found.geometric_sd is found.flagged is found.range_of_means is None
    assert set(found.means.values()) == set(found.medians.values()) == {None}
    ones = category_summary(np.array([[1.0, 1.0, 1.0], [0.5, 0.7, NAN]]))
    assert ones.pairs == 2
    assert ones.means["adjusted"] == approx(np.sqrt(0.02) / np.sqrt(0.24))  # of the second pair: at 1 nothing can be seen
    assert ones.range_of_means == approx(0.1)  # the third model did not rate all


def within_topics(y: np.ndarray, labels: np.ndarray, topics: np.ndarray) -> float:
    """Differences within topics weighted by n_a n_b / (n_a + n_b)."""
    top = bottom = 0.0
    for t in np.unique(topics):
        a, b = y[(topics == t) & (labels == 1)], y[(topics == t) & (labels == 0)]
        if len(a) and len(b):
            weight = len(a) * len(b) / (len(a) + len(b))
            top, bottom = top + weight * (a.mean() - b.mean()), bottom + weight
    return top / bottom


@pytest.mark.parametrize("topics", [np.zeros(6, dtype=np.int64), np.array([0, 0, 0, 7, 7, 7]), np.array([3, 3, 1, 1, 1, 2])])
def test_contrasts_are_exact_by_brute_force(topics: np.ndarray) -> None:
    """All orders of the labels within topics, also where a topic has one category only (its pairs count for nothing)."""
    y, labels = rng(1).normal(size=6), np.array([1, 0, 1, 0, 0, 1])
    groups = [np.flatnonzero(topics == t) for t in np.unique(topics)]
    observed, null = within_topics(y, labels, topics), []
    for orders in product(*(permutations(g) for g in groups)):
        shuffled = labels.copy()
        for g, o in zip(groups, orders, strict=True):
            shuffled[g] = labels[list(o)]
        null.append(within_topics(y, shuffled, topics))
    values = np.array(null)
    found = category_contrast(y, labels, 1, 0, rng=rng(), topics=topics)
    assert found.exact
    assert found.difference == approx(observed)
    assert found.p == approx(np.mean(np.abs(values) >= abs(observed) - 1e-12))
    assert found.p_greater == approx(np.mean(values >= observed - 1e-12))
    drawn = category_contrast(y, labels, 1, 0, rng=rng(), topics=topics, exact_limit=0, draws=20_000)
    assert not drawn.exact
    assert drawn.p == approx(found.p, abs=0.015)


def test_pairs_without_a_value_or_alone_in_their_topic_are_left_out() -> None:
    y, labels = np.array([1.0, 2.0, 3.0, NAN, 5.0, 9.0, 0.0]), np.array([0, 0, 1, 1, 1, 2, 0])
    found = category_contrast(y, labels, 1, 0, rng=rng())
    assert (found.first, found.second, found.left_out) == (2, 3, 1)
    assert found.difference == approx(4 - 1)
    topics = np.array([0, 1, 0, 1, 1, 1, 2])
    found = category_contrast(y, labels, 1, 0, rng=rng(), topics=topics)
    assert (found.first, found.second, found.left_out) == (2, 2, 2)
    assert found.difference == approx((2 + 3) / 2)


def test_contrasts_that_cannot_be_are_refused() -> None:
    y, labels = np.array([1.0, 2.0, 3.0]), np.array([0, 1, 1])
    with pytest.raises(ValueError, match="not compared with itself"):
        category_contrast(y, labels, 1, 1, rng=rng())
    with pytest.raises(ValueError, match="two categories"):
        category_contrast(y, labels, 1, 5, rng=rng())
    with pytest.raises(ValueError, match="no topic holds"):
        category_contrast(y, labels, 1, 0, rng=rng(), topics=np.array([0, 1, 1]))
    with pytest.raises(ValueError, match="as many values"):
        category_contrast(y[:2], labels[:2], 1, 0, rng=rng(), topics=np.array([0, 0, 0]))
    with pytest.raises(ValueError, match="finite"):
        category_contrast(np.array([1.0, -np.inf, 0.0]), labels, 1, 0, rng=rng())
    with pytest.raises(ValueError, match="two different categories"):
        ordered_trend(y, labels, (0, 0), rng=rng())


def test_jonckheere_terpstra_by_hand_and_by_brute_force() -> None:
    """[1, 2], [2, 3], [3, 5]: 4, 4 and 4 pairs of values, the 2s and the 3s tie: 3.5 + 4 + 3.5 = 11."""
    y, labels = np.array([1.0, 2, 2, 3, 3, 5]), np.array([0, 0, 1, 1, 2, 2])

    def statistic(codes: np.ndarray) -> float:
        return sum((y[i] < y[j]) + 0.5 * (y[i] == y[j]) for i in range(6) for j in range(6) if codes[i] < codes[j])

    found = ordered_trend(y, labels, (0, 1, 2), rng=rng())
    assert found.statistic == 11
    assert found.concordance == approx(11 / 12)
    null = [statistic(labels[list(order)]) for order in permutations(range(6))]
    assert (found.exact, found.relabellings, found.p) == (True, 90, approx(np.mean(np.array(null) >= 11)))
    assert ordered_trend(y, labels, (2, 1, 0), rng=rng()).concordance == approx(1 / 12)
    assert ordered_trend(y, labels, (0, 1, 2), rng=rng(), exact_limit=0, draws=20_000).p == approx(found.p, abs=0.005)


def test_the_same_ratings_on_other_places_of_the_scale_are_tied() -> None:
    """Deviations of .9 .92 .88 and of .95 .97 .93 are the same but in the last digits of a double."""
    y = log_dispersion(np.array([[0.9, 0.92, 0.88], [0.95, 0.97, 0.93], [0.6, 0.62, 0.58]]), "sd")
    assert len(np.unique(y)) > 1
    assert ordered_trend(y, np.array([0, 1, 2]), (0, 1, 2), rng=rng()).statistic == 1.5


def test_a_trend_within_topics_compares_no_others() -> None:
    """Topics that differ by 10 with one pair of each of three categories, all in order: 3 of 3 in each, p = 1 / 6^3."""
    labels, topics = np.tile([0, 1, 2], 3), np.repeat([0, 1, 2], 3)
    found = ordered_trend(labels + 10.0 * topics, labels, (0, 1, 2), rng=rng(), topics=topics)
    assert (found.statistic, found.concordance, found.p) == (9.0, 1.0, approx(1 / 216))


def test_a_trend_with_ties_and_topics_is_its_definition() -> None:
    """Every pair of values of one topic counted one by one, before and after the order of the pairs is changed."""
    draw = rng(2)
    for _ in range(20):
        y, labels, topics = np.round(draw.random(30), 1), draw.integers(0, 4, 30), draw.integers(0, 3, 30)
        pairs = [(i, j) for i in range(30) for j in range(30) if topics[i] == topics[j] and labels[i] < labels[j]]
        known = sum((y[i] < y[j]) + 0.5 * (y[i] == y[j]) for i, j in pairs)
        shuffled = draw.permutation(30)
        for order in (np.arange(30), shuffled):
            found = ordered_trend(y[order], labels[order], (0, 1, 2, 3), rng=rng(), topics=topics[order], draws=5)
            assert (found.statistic, found.concordance) == approx((known, known / len(pairs)))


def test_adjustments_for_many_are_the_ones_there_are() -> None:
    p = [0.001, 0.012, 0.03, 0.20]
    assert holm(p) == approx([0.004, 0.036, 0.06, 0.20])
    assert benjamini_hochberg(p) == approx([0.004, 0.024, 0.04, 0.20])


def study(draw: np.random.Generator, models: int, pairs: int, ratio: float, common: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Two categories whose pairs' SD varies (log SD .4); ``common`` of a model's variance is its own in all pairs of a category."""
    labels = np.repeat([0, 1], pairs)
    sd = 0.005 * np.exp(np.log(ratio) * labels + draw.normal(0, 0.4, 2 * pairs))
    own = draw.normal(size=(2, models))[labels]
    return 0.5 + sd[:, None] * (np.sqrt(common) * own + np.sqrt(1 - common) * draw.normal(size=own.shape)), labels


TESTS = ["contrast", "contrast in topics", "trend", "trend in topics"]


def null_p(draw: np.random.Generator, studies: int, test: str) -> np.ndarray:
    """p-values where categories are labels without meaning, but models have leanings on all pairs alike, and topics (if there are any) differ."""
    matched, out = test.endswith("topics"), []
    labels, topics = np.tile([0, 1, 2], 8), np.repeat(np.arange(8), 3) if matched else None
    for _ in range(studies):
        sd = 0.03 * np.exp(draw.normal(0, 0.4, 24) + (draw.normal(0, 0.6, 8)[topics] if matched else 0.0))
        x = 0.5 + sd[:, None] * (draw.normal(size=10) + draw.normal(size=(24, 10))) / np.sqrt(2)
        y = log_dispersion(x, "gmd")
        if test.startswith("trend"):
            out.append(ordered_trend(y, labels, (0, 1, 2), rng=draw, draws=199, topics=topics).p)
        else:
            out.append(category_contrast(y, labels, 1, 0, rng=draw, draws=199, topics=topics, exact_limit=300).p)
    return np.array(out)


def test_forgetting_the_topics_of_matched_pairs_is_conservative() -> None:
    """Labels were not exchanged between topics, so what topics differ by is no chance of theirs."""
    draw, topics, labels = rng(5), np.repeat(np.arange(8), 2), np.tile([0, 1], 8)
    y = draw.normal(0, 0.4, (300, 16)) + np.repeat(draw.normal(0, 1.0, (300, 8)), 2, axis=1)
    p = np.array(
        [[category_contrast(v, labels, 1, 0, rng=draw, draws=199, topics=t, exact_limit=300).p for t in (topics, None)] for v in y]
    )
    assert np.mean(p[:, 0] <= 0.05) == approx(0.05, abs=0.04)
    assert np.mean(p[:, 1] <= 0.05) <= 0.01


@pytest.mark.parametrize("test", TESTS)
def test_p_is_uniform_where_categories_mean_nothing(test: str) -> None:
    p = null_p(rng(5), 400, test)
    atom = 0.1 if test == "trend in topics" else 0.01  # few different values of the statistic: p steps over a level, never below it
    for level in (0.05, 0.2, 0.5, 0.8):
        share, error = np.mean(p <= level + 1e-12), 3.5 * np.sqrt(level * (1 - level) / 400)
        assert share <= level + error + 0.005, (level, share)
        assert share >= level - error - atom, (level, share)


@pytest.mark.slow
@pytest.mark.parametrize("test", TESTS)
def test_the_level_is_held_in_many_studies(test: str) -> None:
    p = null_p(rng(6), 5000, test)
    for level in (0.01, 0.05, 0.2, 0.5):
        assert np.mean(p <= level + 1e-12) <= level + 3 * np.sqrt(level * (1 - level) / 5000) + 0.005


def test_power_grows_with_the_difference() -> None:
    """Twice the SD, 12 pairs each, 10 models: the specification's table says .93 (its tau of .4, two-sided 5 %)."""
    draw, hits = rng(7), 0
    for _ in range(200):
        x, labels = study(draw, 10, 12, 2.0, common=0.0)
        hits += category_contrast(log_dispersion(x, "sd", step=1e-6), labels, 1, 0, rng=draw, draws=499).p <= 0.05
    assert 0.87 <= hits / 200 <= 1.0


def test_a_resampled_mean_difference_is_smaller_by_the_chance_of_drawing_a_model_twice() -> None:
    """E*[gmd] = (1 - 1/M) gmd and E*[s^2] = (1 - 1/M) s^2, exactly over all resamples."""
    gmd, sd = (ensemble_bootstrap(F1, s, rng=rng(8), resamples=20_000) for s in ("gmd", "sd"))  # type: ignore[arg-type]
    assert gmd.resampled.mean(axis=0) == approx(gmd.observed * 5 / 6, rel=0.01)
    assert (sd.resampled**2).mean(axis=0) == approx(sd.observed**2 * 5 / 6, rel=0.01)


def test_models_are_drawn_for_all_pairs_at_once() -> None:
    """Two pairs with the same ratings have the same dispersion in every resample."""
    found = ensemble_bootstrap(np.vstack([F1[4], F1[4]]), "rarefied", k=3, rng=rng(9), resamples=50)
    assert np.array_equal(found.resampled[:, 0], found.resampled[:, 1])
    assert len(np.unique(found.resampled[:, 0])) > 10
    fixed = ensemble_bootstrap(F1, "sd", rng=rng(9), resamples=5, resample_models=False)
    assert np.array_equal(fixed.resampled, np.tile(dispersion(F1, "sd"), (5, 1)))


def test_an_interval_without_resampled_pairs_is_that_of_the_models_alone() -> None:
    """By definition: percentiles of the resampled differences of mean logs."""
    ensemble = ensemble_bootstrap(F1, "gmd", rng=rng(10), resamples=500)
    found = log_ratio(ensemble, KX, 1, 0, rng=rng(), resample_pairs=False)
    logs = np.log(np.maximum(ensemble.resampled, 0.005))
    differences = logs[:, 4:].mean(axis=1) - logs[:, :4].mean(axis=1)
    low, high = np.quantile(differences, [0.025, 0.975], method="inverted_cdf")
    assert (found.low, found.high) == approx((low, high))
    assert (found.first, found.second, found.models, found.resamples) == (4, 4, 6, 500)


def test_estimates_are_the_contrasts_also_within_topics() -> None:
    x = F1.copy()
    x[2, 1:] = NAN
    topics = np.array([0, 1, 1, 2, 0, 0, 1, 2])
    for one in (None, topics):
        ensemble = ensemble_bootstrap(x, "adjusted", rng=rng(11), resamples=200)
        found = log_ratio(ensemble, KX, 1, 0, rng=rng(), topics=one)
        contrast = category_contrast(log_dispersion(x, "adjusted"), KX, 1, 0, rng=rng(), topics=one)
        assert found.estimate == approx(contrast.difference)
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.estimate < found.high
        assert (found.first, found.second) == (contrast.first, contrast.second) == (4, 3)


def test_an_interval_that_is_not_there_has_no_limits() -> None:
    """Two ratings a pair: most resamples of the models leave a pair fewer than two, and some a category none."""
    x = np.full((4, 8), NAN)
    for row in range(4):
        x[row, 2 * row : 2 * row + 2] = 0.2, 0.3 + 0.1 * row
    found = log_ratio(ensemble_bootstrap(x, "sd", rng=rng(12)), np.array([0, 0, 1, 1]), 1, 0, rng=rng())
    assert found.low is found.high is None
    assert found.resamples < 1900
    assert np.isfinite(found.estimate)
    with pytest.raises(ValueError, match="resampled from 4 or more"):
        ensemble_bootstrap(F1[:, :3], "sd", rng=rng())
    with pytest.raises(ValueError, match="summarised"):
        log_ratio(ensemble_bootstrap(F1, "sd", rng=rng(), resamples=5), KX, 1, 0, rng=rng(), summary="median")  # type: ignore[arg-type]


def coverage(
    studies: int, models: int, pairs: int, *, seed: int, statistic: Any = "gmd", k: int | None = None, **options: Any
) -> tuple[float, float, float]:
    """Share of studies whose interval holds the ratio: both resampled, pairs alone, models alone."""
    draw, truth = rng(seed), np.log(2.0)
    hits = np.zeros(3)
    for _ in range(studies):
        x, labels = study(draw, models, pairs, 2.0)
        both = ensemble_bootstrap(x, statistic, k=k, rng=draw, resamples=300, step=1e-6)
        fixed = EnsembleBootstrap(both.observed, np.tile(both.observed, (300, 1)), both.floor, models)
        for i, (ensemble, again) in enumerate(((both, True), (fixed, True), (both, False))):
            found = log_ratio(ensemble, labels, 1, 0, rng=draw, resample_pairs=again, **options)
            assert found.low is not None
            assert found.high is not None
            hits[i] += found.low <= truth <= found.high
    both_share, pairs_share, models_share = hits / studies
    return float(both_share), float(pairs_share), float(models_share)


def test_the_interval_over_models_and_pairs_covers_and_the_others_do_not() -> None:
    both, pairs_only, models_only = coverage(400, 10, 12, seed=13)
    assert 0.925 <= both <= 0.985
    assert pairs_only < 0.89
    assert models_only < 0.89


@pytest.mark.slow
@pytest.mark.parametrize(
    ("models", "pairs", "statistic", "k", "low", "high"),
    [
        (10, 12, "gmd", None, 0.945, 0.98),
        (20, 12, "sd", None, 0.925, 0.965),
        (20, 30, "gmd", None, 0.93, 0.97),
        (10, 5, "gmd", None, 0.93, 0.98),
        (10, 3, "gmd", None, 0.90, 0.96),
        (5, 12, "gmd", None, 0.965, 1.0),
        (4, 12, "gmd", None, 0.97, 1.0),
        (20, 12, "rarefied", 10, 0.915, 0.965),
        (10, 12, "adjusted", None, 0.94, 0.98),
        (10, 12, "range", None, 0.94, 0.98),
    ],
)
def test_the_interval_covers_in_many_studies(models: int, pairs: int, statistic: str, k: int | None, low: float, high: float) -> None:
    both, _, _ = coverage(2000, models, pairs, seed=14, statistic=statistic, k=k)
    assert low <= both <= high, both


def mean_coverage(studies: int, models: int, pairs: int, seed: int) -> tuple[float, float]:
    """Share of studies whose limits hold the mean over pairs of 2 sigma / sqrt pi; and of those too low (high) the larger."""
    draw, truth = rng(seed), 0.005 * np.exp(0.4**2 / 2) * 2 / np.sqrt(np.pi)
    below = above = 0
    for _ in range(studies):
        x, labels = study(draw, models, pairs, 1.0)
        low, high = mean_dispersion(ensemble_bootstrap(x, "gmd", rng=draw, resamples=300, step=1e-6), labels == 1, rng=draw)
        assert low is not None
        assert high is not None
        below, above = below + (truth < low), above + (truth > high)
    return 1 - (below + above) / studies, max(below, above) / studies


def test_limits_of_a_categorys_mean_cover() -> None:
    covered, worse = mean_coverage(400, 10, 12, seed=16)
    assert 0.925 <= covered <= 0.98
    assert worse <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("models", "pairs"), [(6, 12), (10, 12), (10, 5), (20, 12), (20, 30)])
def test_limits_of_a_categorys_mean_cover_in_many_studies(models: int, pairs: int) -> None:
    covered, worse = mean_coverage(2000, models, pairs, seed=17)
    assert 0.92 <= covered <= 0.985, covered
    assert worse <= 0.055, worse


def test_limits_of_a_mean_that_are_not_there() -> None:
    ensemble = ensemble_bootstrap(F1, "gmd", rng=rng(18), resamples=200)
    low, high = mean_dispersion(ensemble, KX == 1, rng=rng())
    assert low is not None
    assert high is not None
    assert low < ensemble.observed[4:].mean() < high
    assert mean_dispersion(ensemble, np.arange(8) == 1, rng=rng()) == (None, None)
    same = ensemble_bootstrap(np.full((3, 5), 0.9), "gmd", rng=rng(), resamples=20)
    assert mean_dispersion(same, np.ones(3, dtype=bool), rng=rng()) == (None, None)
    with pytest.raises(ValueError, match="member or not"):
        mean_dispersion(ensemble, np.ones(3, dtype=bool), rng=rng())


@pytest.mark.slow
@pytest.mark.parametrize(("statistic", "summary"), [("gmd", "mean"), ("sd", "rms")])
def test_ratios_of_means_are_covered_in_many_studies(statistic: str, summary: str) -> None:
    both, _, _ = coverage(2000, 10, 12, seed=15, statistic=statistic, summary=summary)
    assert 0.94 <= both <= 0.98, both
