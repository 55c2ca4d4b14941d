"""Councils: the fixture, every council counted one by one, intervals that cover, and a choice that is verified where it was not made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from aligntax.stats import councils
from aligntax.stats.clusters import FloatArray
from aligntax.stats.councils import (
    blind_spots,
    blind_spots_by_cluster,
    choose_council,
    collapse_contrast,
    consensus_illusion,
)

CAMPS = [0, 1, 0, 1, 0, 1]


@pytest.fixture
def f1(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("atlas_golden.json")["F1"])


def test_fixture(f1: dict[str, Any]) -> None:
    x = np.array(f1["X"])
    assert blind_spots(x, 3, 0.2) == pytest.approx(np.array(f1["blindspot_k3_t20"]), abs=1e-9)
    assert blind_spots(x, 2, 0.2) == pytest.approx(np.array(f1["blindspot_k2_t20"]), abs=1e-9)
    assert blind_spots(x, 3, 0.2)[4:].mean() == pytest.approx(0.125)
    within, across = blind_spots_by_cluster(x, CAMPS, 3, 0.2)
    assert within == pytest.approx(np.ones(8))
    assert across[4:] == pytest.approx([0, 2 / 18, 0, 0])
    reference = np.full(4, 0.3)
    for models, value in ((slice(None), 0.046071), (slice(0, 6, 2), 0.357321), (slice(1, 6, 2), 0.0)):
        assert consensus_illusion(x[4:, models], reference).mean() == pytest.approx(value, abs=5e-7)


@pytest.mark.parametrize("k", [2, 3, 5])
def test_blind_spots_by_counting(k: int) -> None:
    """Ratings on a grid of .05, so that spans of exactly tau occur, with gaps."""
    rng = np.random.default_rng(1)
    x = rng.integers(0, 21, (25, 8)) / 20
    x[rng.random(x.shape) < 0.25] = np.nan
    labels = np.array([0, 0, 0, 0, 0, 1, 1, 1])
    found, (within, across) = blind_spots(x, k, 0.3), blind_spots_by_cluster(x, labels, k, 0.3)
    for p, row in enumerate(x):
        drawn = [np.array(c) for c in combinations(np.flatnonzero(np.isfinite(row)), k)]
        agree = np.array([round(float(np.ptp(row[c])), 6) <= 0.3 for c in drawn], dtype=float)
        one = np.array([len(set(labels[c].tolist())) == 1 for c in drawn], dtype=bool)
        for value, kept in ((found[p], np.ones(len(drawn), dtype=bool)), (within[p], one), (across[p], ~one)):
            assert value == pytest.approx(agree[kept].mean() if kept.any() else np.nan, nan_ok=True)


def test_what_leaves_blind_spots_unchanged() -> None:
    rng = np.random.default_rng(2)
    x = rng.random((10, 7))
    one = blind_spots(x, 3, 0.25)
    for other in (1 - x, x + 0.3, x[:, rng.permutation(7)], x + rng.random((10, 1))):
        assert blind_spots(other, 3, 0.25) == pytest.approx(one)
    assert blind_spots(np.hstack([x, np.full((10, 2), np.nan)]), 3, 0.25) == pytest.approx(one)


def test_illusion_is_missing_where_it_is_not_defined() -> None:
    x = np.array([[0.8, 0.8, 0.8], [0.8, np.nan, np.nan], [0.8, 0.8, np.nan], [0.8, 0.8, 0.8], [0.1, 0.1, 0.1], [0.0, 1.0, np.nan]])
    reference = np.array([0.3, 0.3, 0.6, np.nan, 0.3, 0.3])
    found = consensus_illusion(x, reference)
    assert found == pytest.approx([0.5 / 0.7, np.nan, 0.2 / 0.4, np.nan, 0.0, 0.0], nan_ok=True)
    assert np.isnan(consensus_illusion(x[:1], np.array([1.0]))[0])
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        consensus_illusion(x, reference + 1)
    with pytest.raises(ValueError, match="one reference per pair"):
        consensus_illusion(x, reference[:2])


def test_collapse_by_hand() -> None:
    """Two topics, three contradictions, by the formulas of Welch and Fieller."""
    clash, paraphrase, contradiction = np.array([[0.50], [0.60]]), np.array([[0.90], [0.80]]), np.array([[0.10], [0.20], [0.30]])
    found = collapse_contrast(clash, paraphrase, contradiction)
    assert found.contrast.estimate[0] == pytest.approx(0.55 - (0.85 + 0.2) / 2)
    # Var of clash - paraphrase/2 over topics: values .05 and .20; of contradiction/2: .05, .10, .15.
    parts = 0.01125 / 2, 0.0025 / 3
    df = sum(parts) ** 2 / (parts[0] ** 2 / 1 + parts[1] ** 2 / 2)
    from scipy.stats import t

    half = t.ppf(0.975, df) * np.sqrt(sum(parts))
    assert [found.contrast.low[0], found.contrast.high[0]] == pytest.approx([0.025 - half, 0.025 + half])
    assert found.above_paraphrase.estimate[0] == pytest.approx(-0.3)
    assert found.above_contradiction.estimate[0] == pytest.approx(0.35)
    assert found.position.estimate[0] == pytest.approx(0.35 / 0.65)
    assert (found.topics[0], found.contradictions[0]) == (2, 3)


def test_ends_of_the_position_are_where_t_is_critical() -> None:
    rng = np.random.default_rng(3)
    clash, paraphrase, contradiction = rng.normal(0.5, 0.1, (8, 1)), rng.normal(0.9, 0.05, (8, 1)), rng.normal(0.2, 0.1, (6, 1))
    found = collapse_contrast(clash, paraphrase, contradiction).position

    def t_squared(r: float) -> float:
        d = clash[:, 0] - r * paraphrase[:, 0]
        mean = d.mean() - (1 - r) * contradiction.mean()
        return float(mean**2 / (d.var(ddof=1) / 8 + (1 - r) ** 2 * contradiction.var(ddof=1) / 6))

    assert t_squared(found.estimate[0]) == pytest.approx(0, abs=1e-12)
    assert t_squared(found.low[0]) == pytest.approx(t_squared(found.high[0]))
    assert 3.8 < t_squared(found.low[0]) < 8


def test_scale_use_cancels_and_missing_is_missing() -> None:
    rng = np.random.default_rng(4)
    clash, paraphrase, contradiction = rng.random((6, 3)), 1 + rng.random((6, 3)), -1 - rng.random((5, 3))
    one = collapse_contrast(clash, paraphrase, contradiction)
    shift, slope = np.array([0.1, -0.2, 0.3]), np.array([0.5, 1.0, 2.0])
    moved = collapse_contrast(clash + shift, paraphrase + shift, contradiction + shift)
    scaled = collapse_contrast(slope * clash + shift, slope * paraphrase + shift, slope * contradiction + shift)
    for name in ("estimate", "low", "high"):
        assert getattr(moved.contrast, name) == pytest.approx(getattr(one.contrast, name))
        assert getattr(scaled.position, name) == pytest.approx(getattr(one.position, name))
        assert getattr(scaled.contrast, name) == pytest.approx(slope * getattr(one.contrast, name))
    clash[0, 0], paraphrase[1, 0], clash[1:, 1], contradiction[1:, 2] = np.nan, np.nan, np.nan, np.nan
    gaps = collapse_contrast(clash, paraphrase, contradiction)
    assert gaps.topics.tolist() == [4, 1, 6]
    assert gaps.contradictions.tolist() == [5, 5, 1]
    assert gaps.contrast.estimate[0] == pytest.approx(np.mean(clash[2:, 0] - paraphrase[2:, 0] / 2) - contradiction[:, 0].mean() / 2)
    assert np.isnan(gaps.contrast.estimate).tolist() == [False, True, True]
    assert np.isnan(gaps.above_paraphrase.estimate).tolist() == [False, True, False]
    unsure = collapse_contrast(rng.random((3, 1)), rng.random((3, 1)), rng.random((3, 1))).position
    assert np.isfinite(unsure.estimate[0])
    assert np.isnan(unsure.low[0])
    with pytest.raises(ValueError, match="contradiction"):
        collapse_contrast(clash, paraphrase[:2], contradiction)


def _collapse_coverage(seed: int, models: int, topics: int, contradictions: int) -> FloatArray:
    """Clash .55, paraphrase .9 (they share their topic's deviation), contradiction .2, offsets of models; a model is a study."""
    rng = np.random.default_rng(seed)
    offset, topic = 0.1 * rng.normal(size=models), 0.08 * rng.normal(size=(topics, models))
    found = collapse_contrast(
        0.55 + offset + topic + 0.1 * rng.normal(size=(topics, models)),
        0.90 + offset + topic / 2 + 0.04 * rng.normal(size=(topics, models)),
        0.20 + offset + 0.12 * rng.normal(size=(contradictions, models)),
    )
    truth = {"contrast": 0.0, "above_contradiction": 0.35, "above_paraphrase": -0.35, "position": 0.5}
    return np.array([np.mean((getattr(found, k).low <= v) & (v <= getattr(found, k).high)) for k, v in truth.items()])


@pytest.mark.parametrize(("topics", "contradictions"), [(5, 5), (12, 12), (8, 20)])
def test_collapse_covers(topics: int, contradictions: int) -> None:
    assert np.all(np.abs(_collapse_coverage(5, 1_000, topics, contradictions) - 0.95) < 3.5 * np.sqrt(0.95 * 0.05 / 1_000))


def _ratings(rng: np.random.Generator, pairs: int, models: int, missing: float = 0.0) -> FloatArray:
    """Two camps, apart by a different amount on every pair, and noise of single models."""
    apart = 0.12 * rng.normal(size=(pairs, 1)) * np.where(np.arange(models) % 2, 1, -1)
    x = np.clip(0.5 + apart + 0.08 * rng.normal(size=(pairs, models)), 0, 1)
    x[rng.random(x.shape) < missing] = np.nan
    return np.asarray(x)


def test_the_choice_by_counting() -> None:
    """All councils of three of eight, with gaps: fewest blind spots where it is chosen, then widest; and the random councils' rate."""
    rng = np.random.default_rng(6)
    x = _ratings(rng, 40, 8, 0.2)
    found = choose_council(x, 3, 0.2, rng=np.random.default_rng(0))
    flagged = np.flatnonzero(np.nanmax(x, axis=1) - np.nanmin(x, axis=1) > 0.2)
    held = set(np.random.default_rng(0).choice(flagged, round(len(flagged) / 2), replace=False).tolist())
    assert (found.chosen_on, found.verified_on) == (len(flagged) - len(held), len(held))

    def span(row: FloatArray, council: tuple[int, ...]) -> float:
        v = row[list(council)]
        v = v[np.isfinite(v)]
        return float(np.ptp(v)) if len(v) >= 2 else 0.0

    every = list(combinations(range(8), 3))
    train, test = [p for p in flagged if p not in held], sorted(held)
    scores = {c: (np.mean([span(x[p], c) <= 0.2 for p in train]), -np.mean([span(x[p], c) for p in train])) for c in every}
    assert found.council == min(every, key=lambda c: scores[c])
    assert found.exhaustive
    assert found.compared == 56
    assert found.chosen_rate == pytest.approx(scores[found.council][0])
    assert found.rate == pytest.approx(np.mean([span(x[p], found.council) <= 0.2 for p in test]))
    assert found.random_rate == pytest.approx(np.mean([span(x[p], c) <= 0.2 for p in test for c in every]))
    assert found.difference == pytest.approx(found.rate - found.random_rate)
    assert found.low <= found.difference <= found.high


def test_search_that_is_not_exhaustive_says_so_and_comes_close(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    same = 0
    for _ in range(20):
        x = _ratings(rng, 40, 9)
        best = choose_council(x, 4, 0.2, rng=np.random.default_rng(1))
        with monkeypatch.context() as patched:
            patched.setattr(councils, "MAX_COUNCILS", 50)
            found = choose_council(x, 4, 0.2, rng=np.random.default_rng(1))
        assert best.exhaustive
        assert not found.exhaustive
        assert found.verified_on == best.verified_on
        assert found.chosen_rate >= best.chosen_rate
        same += found.council == best.council
    assert same >= 18


def test_topics_stay_together() -> None:
    rng = np.random.default_rng(8)
    x = np.repeat(_ratings(rng, 30, 6), 2, axis=0)
    topics = np.repeat(np.arange(30), 2)
    found, single = (
        choose_council(x, 2, 0.2, rng=np.random.default_rng(2), topics=topics),
        choose_council(x[::2], 2, 0.2, rng=np.random.default_rng(2)),
    )
    assert found.council == single.council
    assert (found.rate, found.low, found.high) == pytest.approx((single.rate, single.low, single.high))
    assert found.verified_on == 2 * single.verified_on


def _difference_coverage(seed: int, studies: int, pairs: int, models: int, k: int, tau: float, missing: float) -> float:
    """The truth of a chosen council: its rate less that of random ones on 1,500 more pairs of the same models."""
    rng = np.random.default_rng(seed)
    hits = 0
    for _ in range(studies):
        louder = np.exp(0.3 * rng.normal(size=models))

        def draw(n: int, louder: FloatArray = louder) -> FloatArray:
            return 0.5 + (_ratings(rng, n, models, missing) - 0.5) * louder

        found = choose_council(draw(pairs), k, tau, rng=rng)
        more = draw(1_500)
        more = more[np.nanmax(more, axis=1) - np.nanmin(more, axis=1) > tau]
        own = np.mean(councils._blind(more, np.array([found.council]), tau))
        truth = float(own - np.mean(councils._random_councils(more, k, tau)))
        hits += found.low <= truth <= found.high
    return hits / studies


COUNCILS = [(20, 10, 3, 0.2, 0.0), (40, 10, 3, 0.2, 0.1), (60, 20, 3, 0.2, 0.0), (100, 10, 2, 0.3, 0.0), (24, 12, 4, 0.2, 0.0)]


def test_held_out_difference_covers() -> None:
    assert _difference_coverage(9, 200, *COUNCILS[0]) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


@pytest.mark.slow
@pytest.mark.parametrize("setting", COUNCILS)
def test_held_out_difference_covers_in_many_studies(setting: tuple[int, int, int, float, float]) -> None:
    share = _difference_coverage(10, 2_000, *setting)
    assert share >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2_000)


@pytest.mark.slow
@pytest.mark.parametrize(("topics", "contradictions"), [(5, 5), (12, 12), (8, 20), (3, 3)])
def test_collapse_covers_in_many_studies(topics: int, contradictions: int) -> None:
    shares = _collapse_coverage(11, 10_000, topics, contradictions)
    assert np.all(np.abs(shares - 0.95) < 0.012)


def test_noise_alone_is_no_better_council() -> None:
    """All models alike: what looks better where it was chosen is no better where it was not; the held-out interval excludes 0 seldom."""
    rng = np.random.default_rng(12)
    found = [choose_council(0.5 + 0.1 * rng.normal(size=(40, 10)), 3, 0.2, rng=rng) for _ in range(150)]
    assert np.mean([f.chosen_rate for f in found]) < np.mean([f.random_rate for f in found]) - 0.1
    assert np.mean([f.difference for f in found]) == pytest.approx(0, abs=0.02)
    assert np.mean([not f.low <= 0 <= f.high for f in found]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 150)


def test_what_cannot_be_answered() -> None:
    rng = np.random.default_rng(13)
    x = rng.random((10, 5))
    assert np.isnan(blind_spots(np.where(np.arange(5) < 2, x, np.nan), 3, 0.2)).all()
    for k in (1, 6):
        with pytest.raises(ValueError, match="council of"):
            blind_spots(x, k, 0.2)
    with pytest.raises(ValueError, match="tau"):
        blind_spots(x, 3, -0.1)
    with pytest.raises(ValueError, match="tau"):
        blind_spots(x, 3, float("nan"))
    with pytest.raises(ValueError, match="ratings must be"):
        blind_spots(x[0], 3, 0.2)
    with pytest.raises(ValueError, match="one cluster per model"):
        blind_spots_by_cluster(x, [0, 1], 3, 0.2)
    with pytest.raises(ValueError, match="fewer models than there are"):
        choose_council(x, 5, 0.2, rng=rng)
    with pytest.raises(ValueError, match="fewer models than there are"):
        choose_council(x, 3, 0.2, rng=rng, held_out=1.0)
    with pytest.raises(ValueError, match="at least four"):
        choose_council(x, 3, 0.2, rng=rng, flagged=np.arange(10) < 3)
    with pytest.raises(ValueError, match="one per pair"):
        choose_council(x, 3, 0.2, rng=rng, topics=np.arange(3))
