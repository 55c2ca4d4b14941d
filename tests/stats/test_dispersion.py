"""Dispersion of one pair's ratings: known answers, brute force, invariances, and that U-statistics are unbiased."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from pytest import approx
from scipy.special import expit, logit, ndtri

from aligntax.stats.dispersion import (
    atlas_threshold,
    c4,
    d2,
    dispersion,
    flag_threshold,
    flags,
    log_dispersion,
    pair_dispersion,
    rarefied_range,
)

NAN = float("nan")
F1 = np.array(
    [
        [0.90, 0.92, 0.88, 0.91, 0.89, 0.90],
        [0.80, 0.85, 0.75, 0.82, 0.78, 0.80],
        [0.95, 0.95, 0.93, 0.96, 0.94, 0.97],
        [0.60, 0.65, 0.55, 0.62, 0.58, 0.60],
        [0.50, 0.10, 0.45, 0.05, 0.55, 0.15],
        [0.40, 0.20, 0.60, 0.10, 0.50, 0.30],
        [0.70, 0.30, 0.65, 0.25, 0.75, 0.35],
        [0.55, 0.15, 0.50, 0.20, 0.60, 0.10],
    ]
)
"""Eight pairs by six models: four controls, four clashes."""

ALL = ("gmd", "sd", "range", "adjusted", "logit_sd", "mad", "iqr")


def test_every_dispersion_of_the_golden_fixture(golden: Callable[[str], Any]) -> None:
    known = golden("atlas_golden.json")["F1"]
    x = np.array(known["X"])
    assert np.array_equal(x, F1)
    found = pair_dispersion(x)
    columns = {"range": found.full_range, "rarefied_range_k3": rarefied_range(x, 3)}
    for i, pair in enumerate(known["pairs"]):
        for name, value in known["per_pair"][pair].items():
            column = columns[name] if name in columns else getattr(found, name)
            assert column[i] == approx(value, rel=1e-9, abs=1e-9), (pair, name)
    assert c4(6) == approx(known["c4_6"], rel=1e-12)
    assert d2(6) == approx(known["d2_6"], rel=1e-12)


def test_the_printed_tables() -> None:
    found = pair_dispersion(F1)
    rows = {
        0: (0.90, 0.04, 0.014142, 0.014862, 0.015783, 0.017333, 0.026, 0.010, 0.015, 0.997600),
        1: (0.80, 0.10, 0.034059, 0.035794, 0.039457, 0.041333, 0.062, 0.020, 0.030, 0.986080),
        4: (0.30, 0.50, 0.223607, 0.234996, 0.197284, 0.266667, 0.400, 0.200, 0.375, 0.400000),
        5: (0.35, 0.50, 0.187083, 0.196612, 0.197284, 0.233333, 0.350, 0.150, 0.250, 0.580000),
    }
    columns = (found.mean, found.full_range, found.sd, found.sd_unbiased, found.range_over_d2, found.gmd, rarefied_range(F1, 3))
    for i, row in rows.items():
        assert [c[i] for c in (*columns, found.mad, found.iqr, found.rwg)] == approx(row, abs=5e-7)
    assert found.logit_sd[:4].mean() == approx(0.208183, abs=5e-7)
    assert found.logit_sd[4:].mean() == approx(1.087707, abs=5e-7)
    assert found.logit_sd[4:].mean() / found.logit_sd[:4].mean() == approx(5.224778, abs=5e-7)
    assert found.adjusted[[0, 4]] == approx([0.047140, 0.487950], abs=5e-7)


def test_factors_of_the_normal_law() -> None:
    """d2 of Grant and Leavenworth's table; in closed form d2(2) = 2 / sqrt pi, d2(3) = 3 / sqrt pi, c4(2) = sqrt(2 / pi), c4(3) = sqrt pi / 2."""
    assert [d2(n) for n in (2, 3, 4, 5, 6, 10, 20)] == approx(
        [1.128379, 1.692569, 2.058751, 2.325929, 2.534413, 3.077505, 3.734950], abs=5e-7
    )
    assert [d2(2), d2(3)] == approx([2 / np.sqrt(np.pi), 3 / np.sqrt(np.pi)], rel=1e-13)
    assert [c4(2), c4(3)] == approx([np.sqrt(2 / np.pi), np.sqrt(np.pi) / 2], rel=1e-13)
    assert c4(6) == approx(0.951533, abs=5e-7)
    assert c4(2000) == approx(1 - 1 / (4 * 2000) - 7 / (32 * 2000**2), rel=1e-9)
    for factor in (c4, d2):
        with pytest.raises(ValueError, match="2 values or more"):
            factor(1)


def test_flag_thresholds_stand_for_one_standard_deviation() -> None:
    """The page's table, rounded to .005; and what the Atlas protocol's own thresholds stand for."""
    table = {2: 0.10, 3: 0.145, 4: 0.18, 5: 0.20, 7: 0.23, 10: 0.265, 15: 0.30, 20: 0.32, 30: 0.35}
    assert {n: flag_threshold(n) for n in table} == approx(table, abs=0.0036)
    assert flag_threshold(5) == approx(0.20, rel=1e-12)
    assert flag_threshold(10, sd=0.1) == approx(0.3077505, abs=5e-8)
    implied = {2: 0.089, 3: 0.089, 4: 0.073, 5: 0.086, 10: 0.065, 20: 0.0535}
    assert {n: atlas_threshold(n) / d2(n) for n in implied} == approx(implied, abs=5e-4)
    for bad in (0.0, -1.0, NAN):
        with pytest.raises(ValueError, match="above 0"):
            flag_threshold(5, sd=bad)
    with pytest.raises(ValueError, match="2 models"):
        atlas_threshold(1)


def test_flags_reach_the_threshold_of_the_models_that_rated() -> None:
    """.95 - .75 is .20 minus a rounding error, and flagged among five; the same range among six is not, and one rating says nothing."""
    five = [0.95, 0.75, 0.8, 0.8, 0.8]
    x = np.array([[*five, NAN], [*five, 0.8], [0.5, NAN, NAN, NAN, NAN, NAN], [NAN] * 6])
    assert flags(x) == approx([1.0, 0.0, NAN, NAN], nan_ok=True)
    assert flags(x, atlas_threshold) == approx([1.0, 1.0, NAN, NAN], nan_ok=True)
    assert flags(F1) == approx([0, 0, 0, 0, 1, 1, 1, 1])


@pytest.mark.parametrize("k", [2, 3, 4, 7, 9])
def test_rarefied_range_is_the_mean_over_all_sub_ensembles(k: int) -> None:
    rng = np.random.default_rng(1)
    x = np.round(rng.random((6, 9)), 1)
    x[3, :4], x[4, ::2], x[5] = NAN, NAN, NAN
    for row, found in zip(x, rarefied_range(x, k), strict=True):
        subsets = list(combinations(row[~np.isnan(row)], k))
        expected = np.mean([max(s) - min(s) for s in subsets]) if subsets else NAN
        assert found == approx(expected, rel=1e-12, abs=1e-15, nan_ok=True)


def test_rarefied_range_of_two_is_ginis_mean_difference_and_of_all_the_range() -> None:
    assert rarefied_range(F1, 2) == approx(dispersion(F1, "gmd"), rel=1e-14)
    assert rarefied_range(F1, 6) == approx(dispersion(F1, "range"), rel=1e-14)
    assert rarefied_range(F1, 3)[4] == approx(0.4, rel=1e-12)
    assert np.isnan(rarefied_range(F1, 7)).all()
    assert dispersion(F1, "rarefied", k=3) == approx(rarefied_range(F1, 3), rel=0)


def test_growth_of_the_range_with_the_ensemble_depends_on_the_shape() -> None:
    """E[range of 20] / E[range of 10] on a fine grid of quantiles: normal d2(20) / d2(10), uniform (19/21) / (9/11), two camps by coin."""
    grid = (np.arange(4000) + 0.5) / 4000
    growth = {name: float(rarefied_range(q, 20) / rarefied_range(q, 10)) for name, q in (("normal", ndtri(grid)), ("uniform", grid))}
    assert growth["normal"] == approx(d2(20) / d2(10), abs=0.002)
    assert growth["uniform"] == approx((19 / 21) / (9 / 11), abs=0.001)
    camps = (grid > 0.5).astype(float)
    assert rarefied_range(camps, 10) == approx(1 - 2 * 0.5**10, abs=1e-4)


def test_the_same_disagreement_on_the_logit_scale_has_less_range_near_the_end() -> None:
    """Mean range of 10 models at a logit SD of .6, by the pair's mean."""
    table = {0.95: 0.099, 0.92: 0.150, 0.85: 0.244, 0.70: 0.367, 0.50: 0.419, 0.30: 0.366, 0.10: 0.179}
    z = ndtri((np.arange(20_000) + 0.5) / 20_000)
    found = {m: float(rarefied_range(expit(logit(m) + 0.6 * z), 10)) for m in table}
    assert found == approx(table, abs=0.002)


@pytest.mark.parametrize("statistic", ALL)
def test_missing_ratings_are_left_out(statistic: Any) -> None:
    x = F1.copy()
    x[0, [1, 4]], x[1, 1:], x[2] = NAN, NAN, NAN
    found = dispersion(x, statistic)
    assert found[0] == approx(dispersion(F1[0][[0, 2, 3, 5]], statistic), rel=1e-12)
    assert np.isnan(found[2])
    assert found[1] == 0 if statistic in ("mad", "iqr") else np.isnan(found[1])  # one rating: no distance, but a median
    assert found[3:] == approx(dispersion(F1[3:], statistic), rel=1e-12)


def test_quartiles_and_median_deviation_are_numpys() -> None:
    rng = np.random.default_rng(2)
    x = rng.random((50, 11))
    x[rng.random(x.shape) < 0.3] = NAN
    low, middle, high = np.nanquantile(x, [0.25, 0.5, 0.75], axis=1)
    assert dispersion(x, "iqr") == approx(high - low, rel=1e-10)
    assert dispersion(x, "mad") == approx(np.nanmedian(np.abs(x - middle[:, None]), axis=1), rel=1e-10)


@pytest.mark.parametrize("statistic", [*ALL, "rarefied"])
def test_invariances(statistic: Any) -> None:
    """Under the order of models and of pairs, x -> 1 - x, and (but for what adjusts for location) a constant added."""
    k = 4 if statistic == "rarefied" else None
    rng = np.random.default_rng(3)
    known = dispersion(F1, statistic, k=k)
    assert dispersion(F1[:, rng.permutation(6)], statistic, k=k) == approx(known, rel=1e-9)
    pairs = rng.permutation(8)
    assert dispersion(F1[pairs], statistic, k=k) == approx(known[pairs], rel=1e-9)
    assert dispersion(1 - F1, statistic, k=k) == approx(known, rel=1e-9)
    if statistic not in ("adjusted", "logit_sd"):
        assert dispersion(F1 + 0.02, statistic, k=k) == approx(known, rel=1e-9)
        assert dispersion(F1 / 2, statistic, k=k) == approx(known / 2, rel=1e-9)


def test_equal_ratings_have_no_dispersion_at_all() -> None:
    x = np.full((1, 7), 0.9)
    for statistic in ALL:
        assert dispersion(x, statistic)[0] == 0
    assert rarefied_range(x, 3)[0] == 0
    assert pair_dispersion(x).rwg[0] == 1


def test_the_largest_standard_deviation_the_mean_allows_is_adjusted_to_one() -> None:
    """Half of the ratings 0, half 1: sd^2 = m (1 - m) n / (n - 1). Where all are 0 or all 1 nothing can be seen."""
    assert dispersion(np.array([[0.0, 1.0] * 4]), "adjusted") == approx([np.sqrt(8 / 7)])
    assert np.isnan(dispersion(np.array([[1.0] * 4, [0.0] * 4]), "adjusted")).all()


def test_logarithms_have_a_floor_and_keep_the_order() -> None:
    """A pair on which one model is off by a step is not below one on which all agree."""
    x = np.full((3, 20), 0.9)
    x[1, 0], x[2, :10] = 0.91, 0.95
    found = log_dispersion(x, "sd")
    assert found[0] == approx(np.log(0.005))
    assert found[0] <= found[1] < found[2] == approx(np.log(x[2].std(ddof=1)))
    assert log_dispersion(x, "adjusted")[0] == approx(np.log(0.01))
    assert log_dispersion(x, "logit_sd", step=0.05)[0] == approx(np.log(0.10))
    assert np.isnan(log_dispersion(np.array([[0.5, NAN]]), "sd")[0])
    with pytest.raises(ValueError, match="step"):
        log_dispersion(x, "sd", step=0.0)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        pair_dispersion(np.array([[0.5, 47.0]]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        dispersion(np.array([[0.5, -0.1]]), "logit_sd")
    for statistic in ("sd", "gmd", "range"):
        with pytest.raises(ValueError, match="finite"):
            dispersion(np.array([[0.5, np.inf]]), statistic)
    with pytest.raises(ValueError, match="no dispersion is called 'variance'"):
        dispersion(F1, "variance")  # type: ignore[arg-type]
    for statistic, k in (("rarefied", None), ("sd", 3)):
        with pytest.raises(ValueError, match="k belongs to the rarefied range"):
            dispersion(F1, statistic, k=k)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="k = 1"):
        rarefied_range(F1, 1)


def test_u_statistics_are_unbiased_whatever_the_shape_and_the_number_of_models() -> None:
    """Skewed ratings, E|x - y| = 1 and E[range of 4] = 1 + 1/2 + 1/3 of exponential ones, from ensembles of 4 to 15, some ratings missing."""
    rng = np.random.default_rng(4)
    for models in (4, 7, 15):
        x = rng.exponential(size=(40_000, models))
        if models > 4:
            x[rng.random(x.shape) < 0.2] = NAN
        for k, truth in ((2, 1.0), (4, 11 / 6)):
            found = rarefied_range(x, k)
            found = found[~np.isnan(found)]
            assert found.mean() == approx(truth, abs=4 * found.std() / np.sqrt(len(found)))
    normal = rng.normal(size=(40_000, 5)) * 0.02 + 0.5
    found = pair_dispersion(normal)
    for column in (found.sd_unbiased, found.range_over_d2, found.gmd * np.sqrt(np.pi) / 2):
        assert column.mean() == approx(0.02, abs=4 * column.std() / 200)
