"""A line through changes of several sizes: statsmodels as a second opinion, hand-computed cases, and simulations that it covers."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from aligntax.stats.paired import critical_value
from aligntax.stats.trend import Trend, fit_trend, paule_mandel


def draws(k: int, ratio: float, tau: float, studies: int, seed: int, slope: float = 0.0) -> list[Trend]:
    """Fits of simulated changes at ``k`` sizes over two decades, the largest error ``ratio`` times the smallest."""
    rng = np.random.default_rng(seed)
    x, se = np.linspace(0.0, 2.0, k), np.geomspace(1.0, ratio, k)
    return [fit_trend(x, slope * x + rng.normal(0, np.sqrt(se**2 + tau**2)), se) for _ in range(studies)]


def test_without_errors_it_is_ordinary_least_squares() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    for k in (3, 5, 8):
        x, y = rng.normal(0, 1, k), rng.normal(0, 3, k)
        ours, theirs = fit_trend(x, y, None, level=0.9), sm.OLS(y, sm.add_constant(x)).fit()
        assert (ours.intercept, ours.slope) == pytest.approx(tuple(theirs.params), rel=1e-9)
        assert ours.slope_interval == pytest.approx(tuple(theirs.conf_int(0.1)[1]), rel=1e-9)
        assert ours.slope_p == pytest.approx(theirs.pvalues[1], rel=1e-9)
        assert ours.slope_se == pytest.approx(theirs.bse[1], rel=1e-9)
        told = theirs.get_prediction([[1.0, 0.7]]).summary_frame(alpha=0.1)
        assert ours.at(0.7) == pytest.approx((told["mean"][0], told["mean_ci_lower"][0], told["mean_ci_upper"][0]), rel=1e-9)
        assert (ours.tau2, ours.df) == (None, k - 2)


def test_with_errors_it_is_weighted_least_squares_at_paule_and_mandels_scatter() -> None:
    """statsmodels scales the covariance by the weighted residual variance: that is Knapp and Hartung's interval."""
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    wide = 0
    for tau in (0.0, 1.0, 5.0):
        x, se = np.log10([1.3e9, 6e9, 13e9, 70e9, 175e9]), np.array([1.0, 0.5, 2.0, 0.7, 1.4])
        y = -2 + 0.5 * x + rng.normal(0, np.sqrt(se**2 + tau**2))
        ours = fit_trend(x, y, se)
        assert ours.tau2 is not None
        theirs = sm.WLS(y, sm.add_constant(x), weights=1 / (se**2 + ours.tau2)).fit()
        assert (ours.intercept, ours.slope) == pytest.approx(tuple(theirs.params), rel=1e-7)
        assert ours.scale == pytest.approx(theirs.scale, rel=1e-7)
        t, z = theirs.bse[1] * critical_value(0.95, 3.0), theirs.bse[1] / sqrt(theirs.scale) * critical_value(0.95, None)
        assert ours.slope_interval == pytest.approx((ours.slope - max(t, z), ours.slope + max(t, z)), rel=1e-7)
        wide += z > t
        if ours.tau2 > 0:
            assert ours.scale == pytest.approx(1.0, rel=1e-9)
    assert wide < 3  # both laws were seen or only t's


def test_paule_and_mandel_by_hand() -> None:
    """Three equal errors s at x = -1, 0, 1: the residual of a line is (1, -2, 1) c, so Q = 6 c^2 / (s^2 + tau^2), and tau^2 = 6 c^2 - s^2."""
    x, c, s = np.array([-1.0, 0.0, 1.0]), 0.7, 0.5
    y = 2 + 3 * x + c * np.array([1.0, -2.0, 1.0])
    assert paule_mandel(x, y, np.full(3, s)) == pytest.approx(6 * c * c - s * s, rel=1e-9)
    assert paule_mandel(x, y, np.full(3, 2.0)) == 0.0  # the known errors explain it
    fit = fit_trend(x, y, np.full(3, s))
    assert (fit.intercept, fit.slope, fit.df) == (pytest.approx(2.0), pytest.approx(3.0), 1)
    # Variance of the slope: (s^2 + tau^2)/2 = 3 c^2; t of 1 degree of freedom.
    assert fit.slope_interval[1] - 3 == pytest.approx(sqrt(3) * c * critical_value(0.95, 1.0), rel=1e-9)


def test_points_on_a_line_by_luck_are_no_surer_than_their_errors() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0])
    lucky = fit_trend(x, 1 - 2 * x, np.ones(4))
    assert lucky.tau2 == 0.0
    assert lucky.slope_interval[1] + 2 == pytest.approx(critical_value(0.95, None) / sqrt(5), rel=1e-9)
    assert 0 < lucky.slope_p < 0.05
    exact = fit_trend(x, 1 - 2 * x, None)
    assert exact.slope_interval == (-2.0, -2.0)
    assert exact.slope_p == 0.0
    flat = fit_trend(x, np.zeros(4), None)
    assert (flat.slope_p, flat.at(1.0)) == (1.0, (0.0, 0.0, 0.0))


def test_p_and_interval_agree() -> None:
    for fit in draws(4, 3.0, 1.0, 200, 5, slope=2.0):
        low, high = fit.slope_interval
        assert (fit.slope_p < 0.05) == (low > 0 or high < 0)


@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_the_band_does_not_depend_on_where_sizes_are_counted_from(shift: float) -> None:
    x, y, se = np.array([0.1, 0.8, 2.2, 2.5]), np.array([-3.0, -5.0, -7.0, -5.5]), np.array([0.5, 0.6, 0.4, 0.9])
    assert fit_trend(x + shift, y, se).at(1.0 + shift) == pytest.approx(fit_trend(x, y, se).at(1.0), rel=1e-9)


def test_what_cannot_be_fitted() -> None:
    x, y = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 2.5])
    with pytest.raises(ValueError, match="3 points"):
        fit_trend(x[:2], y[:2], None)
    with pytest.raises(ValueError, match="one size"):
        fit_trend(np.ones(3), y, None)
    with pytest.raises(ValueError, match="above 0"):
        fit_trend(x, y, np.array([1.0, 0.0, 1.0]))
    with pytest.raises(ValueError, match="finite"):
        fit_trend(x, np.array([1.0, np.nan, 2.0]), None)


def coverage(k: int, ratio: float, tau: float, studies: int, seed: int) -> tuple[float, float]:
    """How often the slope's interval and the band at the largest size hold the truth (0)."""
    fits = draws(k, ratio, tau, studies, seed)
    slope = np.mean([fit.slope_interval[0] <= 0 <= fit.slope_interval[1] for fit in fits])
    band = np.mean([fit.at(2.0)[1] <= 0 <= fit.at(2.0)[2] for fit in fits])
    return float(slope), float(band)


@pytest.mark.parametrize(("k", "ratio", "tau"), [(3, 1.0, 2.0), (4, 3.0, 2.0), (5, 3.0, 0.0), (8, 1.0, 0.5)])
def test_it_covers(k: int, ratio: float, tau: float) -> None:
    slope, band = coverage(k, ratio, tau, 500, 11)
    assert slope >= 0.92
    assert band >= 0.92


@pytest.mark.slow
@pytest.mark.parametrize("k", [3, 4, 5, 6, 8])
@pytest.mark.parametrize("tau", [0.0, 0.5, 2.0, 8.0])
@pytest.mark.parametrize("ratio", [1.0, 3.0])
def test_it_covers_everywhere(k: int, tau: float, ratio: float) -> None:
    """Errors up to three times each other; the level of the test is 1 - coverage, since interval and p agree."""
    slope, band = coverage(k, ratio, tau, 4000, 100 * k + int(10 * tau))
    assert 0.94 <= slope <= 0.999
    assert band >= 0.94


@pytest.mark.parametrize("sd", [0.5, 1.0, 2.0])
def test_rounded_values_do_not_make_a_line(sd: float) -> None:
    """Whole per cents at three sizes lie on a line exactly in up to a fifth of the studies, and the interval would be a point: 7 % false trends at sd 1."""
    rng = np.random.default_rng(4)
    x, found, exact = np.linspace(0.0, 2.0, 3), 0, 0
    for _ in range(2000):
        base = rng.uniform(40, 60, 3)
        y = np.round(base - 3 + rng.normal(0, sd, 3)) - np.round(base)
        exact += fit_trend(x, y, None).scale == 0
        found += fit_trend(x, y, None, rounding=sqrt(2 / 12)).slope_p < 0.05
    assert found / 2000 <= 0.05
    assert exact / 2000 >= 0.06
    flat = fit_trend(x, np.array([0.0, 10.0, 20.0]), None, rounding=0.5)
    assert (flat.scale, flat.tau2) == (0.25, None)
    assert flat.slope_interval == pytest.approx(
        (10 - 0.5 * critical_value(0.95, 1.0) / sqrt(2), 10 + 0.5 * critical_value(0.95, 1.0) / sqrt(2))
    )


def test_the_normal_law_would_not_do() -> None:
    """Five sizes with scatter beyond their errors: the same error with a normal critical value holds the truth in less than nine tenths."""
    fits = draws(5, 1.0, 2.0, 400, 13)
    held = np.mean([abs(fit.slope) <= 1.96 * sqrt(fit.covariance[2]) for fit in fits])
    assert held < 0.9
