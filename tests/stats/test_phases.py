"""The behavioural angle: known answers, curvature kept apart, errors by prompt, and coverage."""

from __future__ import annotations

import numpy as np
import pytest

from aligntax.stats.clusters import FloatArray
from aligntax.stats.phases import agrees, behavioural_angle

Rng = np.random.Generator
PHASES = np.arange(24) * 2 * np.pi / 24
BUDGETS = np.array([0.5, 1.0, 2.0])
ANGLE = np.deg2rad(68)


def wave(amplitude: float, phase: float, budgets: FloatArray = BUDGETS, curved: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> FloatArray:
    """(B, K) responses: first harmonic by budget, 0th and 2nd by its square."""
    second = curved[0] + curved[1] * np.cos(2 * PHASES) + curved[2] * np.sin(2 * PHASES)
    return budgets[:, None] * amplitude * np.cos(PHASES - phase) + budgets[:, None] ** 2 * second


def test_curvature_does_not_move_the_angle() -> None:
    found = behavioural_angle(BUDGETS, PHASES, wave(2, ANGLE + 0.2, curved=(-0.3, 0.05, 0.02)), wave(0.7, 0.2, curved=(0.1, 0, 0.04)))
    assert found.angle == pytest.approx(ANGLE, abs=1e-12)
    assert (found.safety.amplitude, found.capability.amplitude) == (pytest.approx(2), pytest.approx(0.7))
    assert (found.safety.phase, found.capability.phase) == (pytest.approx(ANGLE + 0.2), pytest.approx(0.2))
    assert (found.safety.mean, found.capability.mean) == (pytest.approx(-0.3), pytest.approx(0.1))
    assert found.safety.second == pytest.approx(np.hypot(0.05, 0.02))
    assert found.capability.curvature == pytest.approx(2.0 * 0.04 / 0.7)
    assert [b.angle for b in found.budgets] == pytest.approx([ANGLE] * 3)
    assert [b.small for b in found.budgets] == [True, True, False]
    assert found.budgets[1].safety.curvature == pytest.approx(np.hypot(0.05, 0.02) / 2)


def test_third_order_terms_show_at_large_budgets() -> None:
    """A cubic term turns the first harmonic: the angle drifts with the budget and the model over budgets does not fit."""
    rng = np.random.default_rng(1)
    s = wave(2, ANGLE) + 0.15 * BUDGETS[:, None] ** 3 * np.cos(PHASES) + 0.02 * rng.normal(size=(3, 24))
    found = behavioural_angle(BUDGETS, PHASES, s, wave(0.7, 0.0) + 0.02 * rng.normal(size=(3, 24)))
    angles = [b.angle for b in found.budgets if b.angle is not None]
    assert angles[0] > angles[1] > angles[2]
    assert angles[0] == pytest.approx(ANGLE, abs=0.05)
    assert found.fit_p is not None
    assert found.fit_p < 1e-6


def test_the_standard_error_is_that_of_least_squares() -> None:
    """At one budget of 1: sqrt(2/K) sigma sqrt(1/A_S^2 + 1/A_C^2), 1.25 degrees for sigma .05, A = (2, .7)."""
    errors, angles = angle_study(np.random.default_rng(2), 300)
    assert np.rad2deg(np.std(angles)) == pytest.approx(1.25, abs=0.16)  # 3 Monte Carlo standard errors
    assert np.rad2deg(np.mean(errors)) == pytest.approx(1.25, abs=0.06)
    assert np.rad2deg(np.mean(angles)) == pytest.approx(68, abs=0.22)


def angle_study(rng: Rng, studies: int) -> tuple[list[float], list[float]]:
    """Standard errors and angles at the budget 1."""
    errors, angles = [], []
    for _ in range(studies):
        s, c = (wave(a, p) + 0.05 * rng.normal(size=(3, 24)) for a, p in ((2.0, ANGLE), (0.7, 0.0)))
        at = behavioural_angle(BUDGETS, PHASES, s, c).budgets[1]
        assert at.angle is not None
        assert at.se is not None
        angles.append(at.angle)
        errors.append(at.se)
    return errors, angles


def test_errors_that_both_metrics_share_cancel() -> None:
    """One run moves both: the phases' errors are correlated, and least squares sees that in the residuals."""
    rng = np.random.default_rng(3)
    angles, errors = [], []
    for _ in range(200):
        both = 0.1 * rng.normal(size=(3, 24))
        found = behavioural_angle(BUDGETS, PHASES, wave(1, 0.3) + both, wave(1, 0.0) + both)
        assert found.angle is not None
        assert found.se is not None
        angles.append(found.angle)
        errors.append(found.se)
    assert np.mean(errors) == pytest.approx(np.std(angles), rel=0.2)
    assert np.mean(errors) < 0.3 * np.sqrt(2) * np.mean([found.safety.phase_se])


def prompt_study(rng: Rng, studies: int, prompts: int = 40) -> dict[str, float]:
    """Coverage where prompts respond each in their own direction: with values per prompt, and with their means only."""
    hits = []
    for _ in range(studies):
        values = []
        for amplitude, phase, spread in ((2.0, ANGLE, 0.5), (0.7, 0.0, 0.4)):
            own = amplitude * (1 + 0.4 * rng.normal(size=(prompts, 1, 1)))
            turned = phase + spread * rng.normal(size=(prompts, 1, 1))
            values.append(BUDGETS[:, None] * own * np.cos(PHASES - turned) + 0.5 * rng.normal(size=(prompts, 3, 24)))
        by_prompt = behavioural_angle(BUDGETS, PHASES, *values)
        means = behavioural_angle(BUDGETS, PHASES, *(v.mean(axis=0) for v in values))
        assert by_prompt.fit_p is None
        hits.append([f.low is not None and f.high is not None and f.low <= ANGLE <= f.high for f in (by_prompt, means)])
    return dict(zip(("by prompt", "means"), np.mean(hits, axis=0).tolist(), strict=True))


def test_prompts_are_the_sample() -> None:
    row = prompt_study(np.random.default_rng(4), 100)
    assert row["by prompt"] >= 0.88
    assert row["means"] < 0.5


def test_same_prompts_take_their_covariance() -> None:
    rng = np.random.default_rng(5)
    turned = 0.4 * rng.normal(size=(60, 1, 1))
    s, c = (BUDGETS[:, None] * np.cos(PHASES - p - turned) + 0.05 * rng.normal(size=(60, 3, 24)) for p in (1.0, 0.0))
    together, apart = behavioural_angle(BUDGETS, PHASES, s, c, same_prompts=True), behavioural_angle(BUDGETS, PHASES, s, c)
    assert together.angle == apart.angle
    assert together.se is not None
    assert apart.se is not None
    assert together.se < 0.2 * apart.se


def test_agreement_with_the_angle_between_directions() -> None:
    rng = np.random.default_rng(6)
    found = behavioural_angle(BUDGETS, PHASES, wave(2, 3.0) + 0.1 * rng.normal(size=(3, 24)), wave(1, 0.0) + 0.1 * rng.normal(size=(3, 24)))
    assert found.se is not None
    near = agrees(found, 3.0, 0.1)
    assert near.p > 0.05
    assert near.low < 0 < near.high
    around = agrees(found, 3.0 - 2 * np.pi, 0.1)  # the same angle
    assert around.difference == pytest.approx(near.difference)
    far = agrees(found, 2.5, 0.0)
    assert far.p < 1e-6
    assert (far.low > 0) == (far.difference > 0)
    assert agrees(found, 2.5, 1.0).p > 0.3
    exact = behavioural_angle(BUDGETS, PHASES, wave(2, 1.0), wave(1, 0.0))
    assert agrees(exact, 1.0, 0.1).p == pytest.approx(1.0)


def test_a_metric_that_does_not_move_has_no_phase() -> None:
    rng = np.random.default_rng(7)
    found = behavioural_angle(BUDGETS, PHASES, wave(2, 1.0) + 0.1 * rng.normal(size=(3, 24)), 0.1 * rng.normal(size=(3, 24)))
    assert (found.angle, found.low, found.high, found.se) == (None, None, None, None)
    assert found.reason is not None
    assert "first harmonic of capability" in found.reason
    with pytest.raises(ValueError, match="cannot be compared"):
        agrees(found, 1.0, 0.1)
    still = behavioural_angle(BUDGETS, PHASES, wave(2, 1.0), np.zeros((3, 24)))
    assert still.angle is None


def test_what_cannot_be_fitted() -> None:
    s, c = wave(2, 1.0), wave(1, 0.0)
    hole = s.copy()
    hole[0, 0] = np.nan
    for arguments, said in (
        ((BUDGETS, PHASES, hole, c), "1 values that are not finite"),
        ((BUDGETS, PHASES[:20], s[:, :20], c[:, :20]), "20 different phases"),
        ((BUDGETS, PHASES % np.pi, s, c), "12 different phases"),
        ((BUDGETS[:2], PHASES, s[:2], c[:2]), "at least 3"),
        ((np.array([1.0, 1.0, 2.0]), PHASES, s, c), "2 different budgets of 3"),
        ((-BUDGETS, PHASES, s, c), "above 0"),
        ((BUDGETS, PHASES, s.T, c), "3 budgets and 24 phases"),
        ((BUDGETS, PHASES, np.stack([s] * 9), c), "9 prompts and capability of 1"),
        ((BUDGETS, PHASES, np.stack([s] * 5), np.stack([c] * 5)), "at least 8"),
    ):
        with pytest.raises(ValueError, match=said):
            behavioural_angle(*arguments)
    with pytest.raises(ValueError, match="values per prompt"):
        behavioural_angle(BUDGETS, PHASES, s, c, same_prompts=True)
    with pytest.raises(ValueError, match="error finite"):
        agrees(behavioural_angle(BUDGETS, PHASES, s, c), 1.0, -1.0)


@pytest.mark.slow
def test_the_standard_error_holds() -> None:
    errors, angles = angle_study(np.random.default_rng(8), 5000)
    assert np.rad2deg(np.std(angles)) == pytest.approx(1.25, abs=0.04)
    assert np.rad2deg(np.mean(errors)) == pytest.approx(1.25, abs=0.02)
    row = prompt_study(np.random.default_rng(9), 2000)
    assert 0.93 <= row["by prompt"] <= 0.97
