"""Laws over widths: least squares by hand, what cannot be told apart, and coverage under the exact law."""

from __future__ import annotations

import numpy as np
import pytest

from aligntax.stats.paired import critical_value
from aligntax.stats.widths import ScalingStudy, fit_widths, packing_variance

WIDTHS = np.geomspace(64, 4096, 7)


def test_a_line_in_1_over_d_is_weighted_least_squares() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(1)
    v = rng.uniform(0.5, 2, 7) * 1e-6
    y = 0.1 + 9 / WIDTHS + rng.normal(size=7) * np.sqrt(v)
    found = fit_widths(WIDTHS, y, v).fits["packing"]
    theirs = sm.WLS(y, sm.add_constant(1 / WIDTHS), weights=1 / v).fit(cov_type="fixed scale")
    assert (found.tau0, found.kappa) == pytest.approx(tuple(theirs.params), rel=1e-9)
    half = max(critical_value(0.95, None), critical_value(0.95, 5.0) * np.sqrt(found.chi2 / 5))
    assert found.tau0_interval == pytest.approx((theirs.params[0] - half * theirs.bse[0], theirs.params[0] + half * theirs.bse[0]))
    assert found.kappa_interval == pytest.approx((theirs.params[1] - half * theirs.bse[1], theirs.params[1] + half * theirs.bse[1]))
    log_likelihood = -0.5 * (found.chi2 + np.sum(np.log(2 * np.pi * v)))
    assert found.aic == pytest.approx(-2 * log_likelihood + 4)
    assert found.aicc == pytest.approx(found.aic + 2 * 2 * 3 / 4)
    assert found.at(WIDTHS) == pytest.approx(theirs.fittedvalues)


def test_welch_and_packing_are_one_line_and_tau0_goes_below_zero() -> None:
    n = 256.0
    d = np.array([32.0, 48, 64, 96, 128, 192])
    y = 8 * (1 / d - 1 / n)
    study = fit_widths(d, y, np.full(6, 1e-8), features=n)
    packing, welch = study.fits["packing"], study.fits["welch"]
    assert packing.tau0 == pytest.approx(-8 / n)
    assert packing.features == pytest.approx(n)
    assert (welch.kappa, welch.tau0) == (pytest.approx(8), None)
    assert welch.at(np.array([32.0, 512.0]), n) == pytest.approx([8 * (1 / 32 - 1 / n), 0.0])
    assert study.rivals["welch"] < 0  # as good with a parameter less
    assert "welch" not in fit_widths(d, y, np.full(6, 1e-8)).fits
    with pytest.raises(ValueError, match="number of features"):
        welch.at(64.0)


def test_power_limits_are_profiles() -> None:
    """At both limits the sum of squares, minimised over the other two parameters by another optimiser, exceeds the least by the threshold."""
    from scipy.optimize import minimize

    rng = np.random.default_rng(2)
    d = np.geomspace(16, 8192, 12)
    v = np.full(12, 4e-6)
    y = 0.2 + 4 * d**-0.8 + rng.normal(size=12) * 2e-3
    found = fit_widths(d, y, v).fits["power"]
    assert found.tau0 is not None
    assert found.tau0_interval is not None
    assert found.beta == pytest.approx(0.8, abs=0.1)

    def least(tau0: float) -> float:
        def q(p: np.ndarray) -> float:
            return float(np.sum((y - tau0 - np.exp(p[0]) * (d / 300) ** -np.exp(p[1])) ** 2 / v))

        return float(
            min(minimize(q, [a, b], method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-10}).fun for a in (-3, -4) for b in (-1, 0))
        )

    threshold = max(critical_value(0.95, None) ** 2, critical_value(0.95, 9.0) ** 2 * found.chi2 / 9)
    assert least(found.tau0) == pytest.approx(found.chi2, rel=1e-5)
    for end in found.tau0_interval:
        assert least(end) - found.chi2 == pytest.approx(threshold, rel=0.02)


def test_laws_are_told_apart_where_they_differ() -> None:
    v = packing_variance(WIDTHS, 0.1, 8, 1)
    straight = fit_widths(WIDTHS, 0.1 + 0.9 * 8 / (WIDTHS - 1), incidental=8, intrinsic=1)
    assert straight.rivals["constant"] > 6
    assert straight.variances == pytest.approx(v, rel=0.01)
    slow = fit_widths(WIDTHS, 0.1 + 0.8 * WIDTHS**-0.5, np.full(7, 1e-8))
    assert slow.preferred == "power"
    assert slow.fits["power"].beta == pytest.approx(0.5, abs=1e-3)
    flat = fit_widths(np.geomspace(64, 4096, 5), np.full(5, 0.2), np.full(5, 1e-6))
    power = flat.fits["power"].tau0_interval
    assert power == (-np.inf, np.inf)  # a constant leaves the exponent, and so tau0, open
    assert flat.preferred is None  # by AICc the constant would be, for its fewer parameters alone
    assert flat.fits["packing"].aicc is not None
    assert flat.fits["constant"].aicc is not None
    assert flat.fits["packing"].aicc - flat.fits["constant"].aicc > 6


def test_few_widths_decide_nothing() -> None:
    few = fit_widths([64, 128, 256, 64], [0.3, 0.2, 0.16, 0.31], np.full(4, 1e-4))
    assert (few.widths, few.preferred) == (3, None)
    assert few.reason == "3 different widths: it takes at least 5 to compare laws"
    assert "power" not in few.fits
    five = fit_widths(WIDTHS[:5], 0.1 + 0.8 * WIDTHS[:5] ** -0.5, np.full(5, 1e-8)).fits
    assert five["power"].aicc is not None
    assert five["power"].aicc - five["power"].aic == pytest.approx(24)
    assert fit_widths(WIDTHS[:4], 9 / WIDTHS[:4], np.full(4, 1e-6)).fits["power"].aicc is None


def test_variances_that_are_too_small_widen_the_limits() -> None:
    rng = np.random.default_rng(3)
    y = 0.1 + 8 / WIDTHS + 0.01 * rng.normal(size=7)
    honest, sure = fit_widths(WIDTHS, y, np.full(7, 1e-4)).fits["packing"], fit_widths(WIDTHS, y, np.full(7, 1e-8)).fits["packing"]
    assert sure.fit_p < 1e-6 < honest.fit_p
    assert sure.tau0_interval is not None
    assert sure.tau0_interval[1] - sure.tau0_interval[0] > 0.005


def test_the_exact_law() -> None:
    """d = 64, |I| = 1, m' = 6, tau0 = .3: sd .03604."""
    assert np.sqrt(packing_variance(64, 0.3, 6, 1)) == pytest.approx(0.03604, abs=5e-6)
    with pytest.raises(ValueError, match="0 < m'"):
        packing_variance([64, 8], 0.3, 8, 1)


def test_what_cannot_be_fitted() -> None:
    y, v = np.full(7, 0.1), np.full(7, 1e-4)
    for arguments, options, said in (
        ((WIDTHS, y), {}, "variances are needed"),
        ((WIDTHS, y, -v), {}, "above 0"),
        ((WIDTHS, y, v[:3]), {}, "above 0 is needed for every rate"),
        ((WIDTHS[:3], y), {}, "shapes"),
        ((-WIDTHS, y, v), {}, "above 0"),
        ((WIDTHS, np.where(y > 0, np.nan, y), v), {}, "finite"),
        ((np.full(7, 64.0), y, v), {}, "1 different widths"),
        ((WIDTHS, y, v), {"features": 0.0}, "number of features"),
        ((WIDTHS, y, v), {"level": 2.0}, "level"),
        ((WIDTHS, y), {"incidental": 64}, "0 < m'"),
    ):
        with pytest.raises(ValueError, match=said):
            fit_widths(*arguments, **options)


def law_study(rng: np.random.Generator, widths: np.ndarray, tau0: float, studies: int, m: int = 8) -> list[ScalingStudy]:
    """Rates drawn from the exact law with one intrinsic and m incidental directions."""
    found = []
    for _ in range(studies):
        y = tau0 + (1 - tau0) * rng.beta(m / 2, (widths - 1 - m) / 2)
        found.append(fit_widths(widths, y, incidental=m, intrinsic=1))
    return found


def law_summary(found: list[ScalingStudy], tau0: float, m: int = 8) -> dict[str, float]:
    fits = [s.fits["packing"] for s in found]
    power = [s.fits["power"].tau0_interval for s in found]
    covered = [
        (f.tau0_interval[0] <= tau0 <= f.tau0_interval[1], f.kappa_interval[0] <= (1 - tau0) * m <= f.kappa_interval[1])
        for f in fits
        if f.tau0_interval is not None and f.kappa_interval is not None
    ]
    return {
        "tau0": float(np.mean([f.tau0 for f in fits if f.tau0 is not None])),
        "sd": float(np.std([f.tau0 for f in fits if f.tau0 is not None])),
        "covers tau0": float(np.mean([c[0] for c in covered])),
        "covers kappa": float(np.mean([c[1] for c in covered])),
        "power covers tau0": float(np.mean([p[0] <= tau0 <= p[1] for p in power if p is not None])),
        "power preferred": float(np.mean([s.preferred == "power" for s in found])),
        "constant preferred": float(np.mean([s.preferred == "constant" for s in found])),
    }


@pytest.mark.parametrize("tau0", [0.0, 0.12])
def test_tau0_and_kappa_are_covered(tau0: float) -> None:
    row = law_summary(law_study(np.random.default_rng(4), np.array([64.0, 128, 256, 512, 1024]), tau0, 60), tau0)
    assert row["tau0"] == pytest.approx(tau0, abs=0.003)
    assert row["covers tau0"] >= 0.92
    assert row["covers kappa"] >= 0.92
    assert row["power preferred"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [5, 7, 10])
@pytest.mark.parametrize("tau0", [0.0, 0.12, 0.3])
def test_tau0_and_kappa_are_covered_everywhere(count: int, tau0: float) -> None:
    row = law_summary(law_study(np.random.default_rng(5), np.geomspace(64, 4096, count), tau0, 2000), tau0)
    assert 0.94 <= row["covers tau0"] <= 0.995
    assert row["covers kappa"] >= 0.94
    assert row["power preferred"] <= 0.05
