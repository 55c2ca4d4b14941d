"""Nulls of a tax rate: known answers, brute force, and tests that hold their level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aligntax.stats.clusters import FloatArray
from aligntax.stats.overlap_nulls import (
    covariance_matched,
    isotropic,
    matched_subspaces,
    naive_rates,
    over_layers,
    permuted_labels,
    random_concepts,
)

Rng = np.random.Generator


def test_isotropic_known_answers(golden: Callable[[str], Any]) -> None:
    for key, case in golden("theory_cases.json")["F_null"].items():
        d, m = (int(part.split("=")[1]) for part in key.split(","))
        at = isotropic(case["q95"], m, d)
        assert at.high == pytest.approx(case["q95"], rel=1e-6)
        assert at.p == pytest.approx(0.05, rel=1e-4)
        assert at.p + at.p_low == pytest.approx(1.0)
        assert (at.mean, at.draws) == (pytest.approx(case["mean"]), 0)
        assert isotropic(case["q99"], m, d).p == pytest.approx(0.01, rel=1e-4)
    assert isotropic(0.1, 10, 100).excess == pytest.approx(0.0)
    assert isotropic(1.0, 10, 100).excess == pytest.approx(1.0)
    assert isotropic(-0.02, 3, 50).p == 1.0  # a corrected rate may lie below 0


def test_drawn_directions_are_combinations_of_centred_states() -> None:
    """tau of X'w by hand, with the generator in the same state."""
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(20, 9)) * np.arange(1, 10) + 50, rng.normal(size=(9, 2))
    found = covariance_matched(0.3, x, c, np.random.default_rng(2), draws=50)
    w = np.random.default_rng(2).normal(size=(50, 20))
    rates = naive_rates((w @ (x - x.mean(axis=0))).T, c)
    assert (found.mean, found.high) == pytest.approx((rates.mean(), np.quantile(rates, 0.95)))
    assert found.p == (1 + int(np.sum(rates >= 0.3))) / 51
    q = np.linalg.qr(c)[0]
    by_hand = [float(np.sum((q.T @ v) ** 2) / np.sum(v**2)) for v in w @ (x - x.mean(axis=0))]
    assert rates == pytest.approx(by_hand)


def anisotropic(rng: Rng, n: int, d: int) -> tuple[FloatArray, FloatArray]:
    """States whose variance is concentrated, and the sd of each dimension."""
    sd = np.arange(1, d + 1.0) ** -0.5
    return rng.normal(size=(n, d)) * sd, sd


def test_generic_variance_is_not_taken_for_overlap() -> None:
    """Capabilities along the directions of largest variance: any difference of means overlaps with them, far above m/d."""
    rng = np.random.default_rng(3)
    x, sd = anisotropic(rng, 200, 100)
    c = np.eye(100)[:, :4]
    expected = float(np.sum(sd[:4] ** 2) / np.sum(sd**2))
    matched = covariance_matched(expected, x, c, rng)
    assert matched.mean == pytest.approx(expected, abs=0.06)
    assert matched.p > 0.2
    assert isotropic(expected, 4, 100).p < 1e-6
    shuffled = permuted_labels(x, np.arange(200) % 2, c, rng, draws=499)
    assert shuffled.rate.mean == pytest.approx(matched.mean, abs=0.05)
    assert shuffled.how == "rows"


def test_permutations_by_hand_and_by_group() -> None:
    rng = np.random.default_rng(4)
    x, c = rng.normal(size=(16, 6)), rng.normal(size=(6, 2))
    label = np.arange(16) % 2 == 0
    signal = x + 4 * label[:, None]
    found = permuted_labels(signal, label, c, rng, draws=199)
    shift = signal[label].mean(axis=0) - signal[~label].mean(axis=0)
    assert found.rate.rate == pytest.approx(float(naive_rates(shift[:, None], c)[0]))
    assert found.p_signal == 1 / 200
    assert found.length > 1.5
    pairs = permuted_labels(signal, label, c, rng, np.arange(16) // 2, draws=199)
    assert pairs.how == "rows within groups"
    assert pairs.p_signal <= 3 / 200  # 2^8 flips: the observed one and its reverse are as long
    whole = permuted_labels(x, label, c, rng, np.where(label, np.arange(16) // 4, 10 + np.arange(16) // 4), draws=199)
    assert whole.how == "groups"
    with pytest.raises(ValueError, match="hold both classes"):
        permuted_labels(x, label, c, rng, np.where(np.arange(16) < 4, 0, np.arange(16)))


def test_permuting_within_groups_keeps_each_groups_labels() -> None:
    """Groups that differ by far more than the classes do: within them nothing is found, across them the labels' imbalance would be."""
    rng = np.random.default_rng(5)
    within = across = 0
    for _ in range(60):
        groups = np.repeat(np.arange(6), 10)
        label = rng.random(60) < np.where(groups < 3, 0.75, 0.25)
        label[::10], label[1::10] = True, False
        x = rng.normal(size=(60, 5)) + 5 * (groups < 3)[:, None]
        within += permuted_labels(x, label, np.eye(5)[:, :1], rng, groups, draws=99).p_signal <= 0.05
        across += permuted_labels(x, label, np.eye(5)[:, :1], rng, draws=99).p_signal <= 0.05
    assert within <= 8
    assert across >= 45


def test_other_concepts_and_subspaces() -> None:
    others = np.linspace(0, 0.98, 50)
    found = random_concepts(0.9, others)
    assert found.p == pytest.approx((1 + 5) / 51)
    assert found.p_low == pytest.approx((1 + 46) / 51)
    assert found.p_two_sided == pytest.approx(2 * 6 / 51)
    assert found.excess == pytest.approx((0.9 - 0.49) / 0.51)
    assert matched_subspaces(2.0, others).p == pytest.approx(1 / 51)
    assert (found.null, matched_subspaces(0.1, others).null) == ("N4", "N5")
    layers = over_layers({"5": found, "6": random_concepts(0.99, others)})
    assert layers == pytest.approx({"5": 6 / 51, "6": 2 / 51})


def test_what_cannot_be_compared() -> None:
    rng = np.random.default_rng(6)
    x, c = rng.normal(size=(20, 6)), rng.normal(size=(6, 2))
    for call, said in (
        (lambda: random_concepts(0.5, np.ones(49)), "at least 50 other concepts"),
        (lambda: matched_subspaces(0.5, np.append(np.ones(60), np.nan)), "1 of 61 other subspaces have no tax rate"),
        (lambda: random_concepts(float("nan"), np.ones(60)), "only an identified rate"),
        (lambda: isotropic(0.5, 6, 6), "from 1 to d - 1"),
        (lambda: covariance_matched(0.5, np.ones((20, 6)), c, rng), "all states are the same"),
        (lambda: covariance_matched(0.5, x, np.column_stack([c, c[:, 0]]), rng), "span only 2"),
        (lambda: covariance_matched(0.5, np.where(x > 1, np.nan, x), c, rng), "finite states"),
        (lambda: permuted_labels(x, np.ones(20), c, rng), "one class"),
        (lambda: permuted_labels(x, np.arange(20), c, rng), "True or False"),
        (lambda: permuted_labels(x, np.arange(20) % 2, c, rng, np.arange(19)), "one group label"),
        (lambda: naive_rates(x.T, np.zeros((6, 1))), "zero everywhere"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def level_study(rng: Rng, studies: int, n: int = 40, d: int = 60) -> dict[str, float]:
    """Shares of studies with p at most .05 where nothing is there: N1, N2, N3 (signal, rate), N4 among concepts and N5 among subspaces of one kind.

    States are anisotropic, so that N1 is the wrong null.
    """
    hits = []
    for _ in range(studies):
        x, sd = anisotropic(rng, n, d)
        c = np.linalg.qr(rng.normal(size=(d, 3)) * sd[:, None])[0]
        label = np.arange(n) % 2 == 0
        v = sd * rng.normal(size=d)
        rate = float(naive_rates(v[:, None], c)[0])
        permuted = permuted_labels(x, label, c, rng, draws=99)
        concepts = naive_rates((rng.normal(size=(60, d)) * sd).T, c)
        spaces = np.linalg.qr(rng.normal(size=(59, d, 3)) * sd[:, None])[0]
        against = np.sum((v @ spaces) ** 2, axis=1) / float(v @ v)
        tests = (
            isotropic(rate, 3, d).p,
            covariance_matched(rate, x, c, rng, draws=99).p,
            permuted.p_signal,
            permuted.rate.p,
            random_concepts(float(concepts[0]), concepts[1:]).p,
            matched_subspaces(rate, against).p,
        )
        hits.append([p <= 0.05 for p in tests])
    return dict(zip(("N1", "N2", "N3 signal", "N3 rate", "N4", "N5"), np.mean(hits, axis=0).tolist(), strict=True))


def test_levels() -> None:
    row = level_study(np.random.default_rng(7), 300)
    assert row.pop("N1") > 0.3
    for name, share in row.items():
        assert 0.01 <= share <= 0.09, name


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d"), [(40, 60), (200, 60), (60, 400)])
def test_levels_everywhere(n: int, d: int) -> None:
    row = level_study(np.random.default_rng(8), 3000, n, d)
    assert row.pop("N1") > 0.3
    for name, share in row.items():
        assert 0.03 <= share <= 0.065, name
