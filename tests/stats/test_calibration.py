"""Calibration: decompositions by hand, an unbiased squared error, and intervals that cover."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from aligntax.core.choices import beliefs
from aligntax.stats import calibration as c
from aligntax.stats.paired import paired_change


def test_beliefs_by_hand() -> None:
    found = beliefs([np.log(0.6), np.log(0.3), np.log(0.1)], right=True, gold=0)
    assert found == pytest.approx({"confidence": 0.6, "brier": 0.16, "log_loss": -np.log(0.6)})
    wrong = beliefs([-1000.0, -1002.0], right=False, gold=1)
    assert wrong["confidence"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert wrong["brier"] == pytest.approx(wrong["confidence"] ** 2)
    assert wrong["log_loss"] == pytest.approx(2 + np.log(1 + np.exp(-2)))
    assert "log_loss" not in beliefs([-1.0, -2.0], right=False, gold=None)
    assert beliefs([-1.0, float("-inf")], right=True, gold=0) == beliefs([-1.0], right=True, gold=0) == {}


def test_diagram_and_decomposition_by_hand() -> None:
    confidence, right = np.array([0.2, 0.4, 0.8, 0.8]), np.array([0.0, 1.0, 1.0, 1.0])
    of = c.equal_mass(confidence, 2)
    assert of.tolist() == [0, 0, 1, 1]
    drawn = c.diagram(confidence, right, of)
    assert drawn.confidence == pytest.approx([0.3, 0.8])
    assert drawn.right == pytest.approx([0.5, 1.0])
    assert drawn.ece == pytest.approx(0.2)
    parts = c.decomposition(confidence, right, of)
    assert (parts.reliability, parts.resolution, parts.uncertainty) == pytest.approx((0.04, 0.0625, 0.1875))
    assert parts.brier == pytest.approx((0.04 + 0.36 + 0.04 + 0.04) / 4)
    assert parts.brier == pytest.approx(parts.reliability - parts.resolution + parts.uncertainty + parts.within)
    assert parts.within == pytest.approx(_within(confidence, right, of))


def _within(confidence: np.ndarray, right: np.ndarray, of: np.ndarray) -> float:
    """Stephenson, Coelho and Jolliffe's two terms: variance of the confidences within bins, less twice their covariance with what happened."""
    return sum(
        float(np.sum((f - f.mean()) ** 2) - 2 * np.sum((f - f.mean()) * (y - y.mean())))
        for b in np.unique(of)
        for f, y in [(confidence[of == b], right[of == b])]
    ) / len(of)


def test_equal_mass_bins() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(103)
    of = c.equal_mass(confidence, 10)
    assert sorted(np.bincount(of)) == [10] * 7 + [11] * 3
    assert all(confidence[of == b].max() <= confidence[of == b + 1].min() for b in range(9))
    assert (c.bins_for(10), c.bins_for(299), c.bins_for(10_000)) == (1, 9, 15)


def test_squared_error_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(1)
    confidence, right = rng.random(14), (rng.random(14) < 0.5).astype(float)
    of = c.equal_mass(confidence, 2)
    r = confidence - right
    expected = sum(np.mean([r[i] * r[j] for i, j in permutations(np.flatnonzero(of == b), 2)]) * (of == b).mean() for b in (0, 1))
    values = c.squared_error(confidence, right, of)
    assert values.mean() == pytest.approx(expected)
    # A pseudo-value is what its bin's estimate says more with the answer than without.
    at = np.flatnonzero(of == 0)
    without = np.mean([r[i] * r[j] for i, j in permutations(at[1:], 2)])
    whole = np.mean([r[i] * r[j] for i, j in permutations(at, 2)])
    assert values[at[0]] == pytest.approx(whole + (len(at) - 1) * (whole - without))
    with pytest.raises(ValueError, match="three answers"):
        c.squared_error(confidence[:3], right[:3], np.array([0, 0, 1]))


def draw(rng: np.random.Generator, difficulty: np.ndarray, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """Answers that are right less often than their confidence says, by ``shift``."""
    confidence = np.maximum(1 / (1 + np.exp(-(1.2 + 1.3 * difficulty + 0.7 * rng.standard_normal(len(difficulty))))), 0.25)
    return confidence, (rng.random(len(difficulty)) < confidence - shift).astype(float)


@pytest.mark.parametrize(("shifts", "least"), [((0.0, 0.0), 0.97), ((0.0, 0.1), 0.93), ((0.03, 0.1), 0.93)])
def test_intervals_of_a_paired_change_cover(shifts: tuple[float, float], least: float) -> None:
    """The debiased squared error of a constant shift is its square; without any the interval is conservative, with one it covers 95 %."""
    rng = np.random.default_rng(7)
    true = shifts[1] ** 2 - shifts[0] ** 2
    covered, found = 0, []
    for _ in range(400):
        difficulty = rng.standard_normal(400)
        sides = [draw(rng, difficulty, shift) for shift in shifts]
        values = [c.squared_error(*side, c.equal_mass(side[0], c.bins_for(400))) for side in sides]
        estimate = paired_change(values[1] - values[0], binary=False, scale=None)
        assert estimate.test is not None
        low, high = estimate.test.interval(0.95)
        covered += low <= true <= high
        found.append(estimate.change)
    assert covered / 400 >= least
    assert np.mean(found) == pytest.approx(true, abs=4 * np.std(found) / 20)
