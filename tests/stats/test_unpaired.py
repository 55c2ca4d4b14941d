"""Two samples that are not paired: published intervals, and simulations of coverage and level."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from aligntax.stats.paired import p_value
from aligntax.stats.unpaired import TwoProportions, two_means


@pytest.mark.parametrize(
    ("x1", "n1", "x2", "n2", "low", "high"),
    [
        (56, 70, 48, 80, 0.0528, 0.3382),
        (9, 10, 3, 10, 0.1700, 0.8406),
        (5, 56, 0, 29, -0.0326, 0.1933),
        (0, 10, 0, 20, -0.1658, 0.2844),
        (0, 10, 0, 10, -0.2879, 0.2879),
        (10, 10, 0, 20, 0.7156, 1.0000),
    ],
)
def test_miettinen_and_nurminens_interval(x1: int, n1: int, x2: int, n2: int, low: float, high: float) -> None:
    """Newcombe 1998 (Statistics in Medicine 17:873), table II, method 5; his difference is first minus second."""
    found = TwoProportions(x2 / n2, n2, x1 / n1, n1).interval(0.95)
    assert found == pytest.approx((low, high), abs=6e-5)
    turned = TwoProportions(x1 / n1, n1, x2 / n2, n2).interval(0.95)
    assert turned == pytest.approx((-high, -low), abs=6e-5)


def test_the_statistic_falls_and_the_interval_is_its_inversion() -> None:
    test = TwoProportions(0.3, 40, 0.45, 60)
    values = [test.statistic(d) for d in np.linspace(-0.99, 0.99, 199)]
    assert all(a >= b for a, b in pairwise(values))
    assert [abs(test.statistic(limit)) for limit in test.interval(0.95)] == pytest.approx([1.959964, 1.959964], abs=1e-5)


def test_two_means() -> None:
    """Welch's degrees of freedom; the normal law where a size is unknown."""
    test = two_means(1.0, 0.3, 10, 0.4, 20)
    assert test is not None
    assert (test.se, test.df) == (pytest.approx(0.5), pytest.approx(0.25**2 / (0.3**4 / 9 + 0.4**4 / 19)))
    unknown = two_means(1.0, 0.3, None, 0.4, 20)
    assert unknown is not None
    assert unknown.interval(0.95) == pytest.approx((1 - 0.5 * 1.959964, 1 + 0.5 * 1.959964), abs=1e-6)
    assert two_means(0.0, 0.0, 10, 0.0, 10) is None


@pytest.mark.parametrize(("p1", "p2", "n1", "n2"), [(0.5, 0.5, 60, 60), (0.05, 0.05, 100, 250), (0.9, 0.8, 80, 200), (0.02, 0.3, 50, 40)])
def test_coverage_and_level(p1: float, p2: float, n1: int, n2: int) -> None:
    """Over 3,000 studies the 95 % interval covers the true change, and "no change" is refused as often as promised where it holds."""
    rng = np.random.default_rng(7)
    covered = refused = 0
    studies = 3000
    for x1, x2 in zip(rng.binomial(n1, p1, studies), rng.binomial(n2, p2, studies), strict=True):
        test = TwoProportions(x1 / n1, n1, x2 / n2, n2)
        covered += abs(test.statistic(p2 - p1)) <= 1.959964
        refused += p_value(test) < 0.05
    assert 0.935 <= covered / studies <= 0.975
    if p1 == p2:
        assert refused / studies <= 0.065
