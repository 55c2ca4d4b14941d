"""The mean over two crossed factors: by hand, and coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t

from aligntax.stats.crossed import crossed_mean


def test_by_hand() -> None:
    d = np.array([[1.0, 3.0], [2.0, 6.0]])  # mean 3; rows -1, 1; columns -1.5, 1.5
    found = crossed_mean(d, 0.9)
    rows, columns, cells = 2 * 2 * (2 / 4) ** 2, 2 * 2 * (3 / 4) ** 2, (4 + 0 + 1 + 9) / 16 * 4 / 3
    assert found.mean == 3
    assert found.se**2 == pytest.approx(max(rows + columns - cells, rows, columns))
    assert found.df == 1
    assert found.high - found.mean == pytest.approx(t.ppf(0.95, 1) * found.se)
    assert found.p == pytest.approx(2 * t.sf(3 / found.se, 1))


def test_a_family_counts_once_however_many_pairs_it_rated() -> None:
    d = np.array([[0.2, 0.2, 0.2, 0.2], [0.4, np.nan, np.nan, np.nan], [np.nan] * 4])
    found = crossed_mean(d)
    assert found.mean == pytest.approx(0.3)
    assert (found.rows, found.columns) == (2, 4)


def test_invariances() -> None:
    d = np.random.default_rng(2).normal(0.1, 1, (4, 7))
    d[1, 2] = np.nan
    one = crossed_mean(d)
    turned = crossed_mean(d[::-1, ::-1])
    assert (turned.mean, turned.low, turned.p) == pytest.approx((one.mean, one.low, one.p))
    scaled = crossed_mean(10 * d)
    assert (scaled.low, scaled.high, scaled.p) == pytest.approx((10 * one.low, 10 * one.high, one.p))


def test_nothing_varies() -> None:
    same, none = crossed_mean(np.full((3, 4), 0.5)), crossed_mean(np.zeros((3, 4)))
    assert (same.low, same.high, same.p) == (0.5, 0.5, 0.0)
    assert (none.low, none.high, none.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("d", [np.zeros((1, 5)), np.zeros((5, 1)), np.full((3, 3), np.nan), np.zeros(3)])
def test_refused(d: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"takes two rows and two columns|rows by columns"):
        crossed_mean(d)
    with pytest.raises(ValueError, match="level"):
        crossed_mean(np.zeros((3, 3)), 1.0)


def coverage(rows: int, columns: int, sds: tuple[float, float, float], studies: int) -> tuple[float, float]:
    """(share of intervals that hold the truth, of tests at 5 % that reject it)."""
    rng = np.random.default_rng([rows, columns])
    held = rejected = 0
    for _ in range(studies):
        d = rng.normal(0, sds[0], (rows, 1)) + rng.normal(0, sds[1], (1, columns)) + rng.normal(0, sds[2], (rows, columns))
        found = crossed_mean(d)
        held += found.low <= 0 <= found.high
        rejected += found.p <= 0.05
    return held / studies, rejected / studies


def test_it_covers() -> None:
    for sds in ((1.0, 0.0, 1.0), (1.0, 1.0, 1.0)):
        held, rejected = coverage(6, 12, sds, 500)
        assert held > 0.92
        assert rejected == pytest.approx(1 - held, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 12), (3, 12), (5, 12), (10, 12), (3, 40), (10, 40), (5, 5)])
@pytest.mark.parametrize("sds", [(0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0), (0.3, 0.3, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0, 0.0)])
def test_it_covers_whatever_varies(shape: tuple[int, int], sds: tuple[float, float, float]) -> None:
    assert coverage(*shape, sds, 4000)[0] >= 0.94
