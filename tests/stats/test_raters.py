"""Who disagrees with whom: the fixture, brute force, invariances, and what noise alone gives."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from aligntax.stats.raters import (
    adjusted_rand,
    cluster_raters,
    dimensions,
    distinct_raters,
    double_centred,
    independent_votes,
    rand_agreement,
    rater_distances,
)

GEO, ALIGN = [0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 0, 1]


@pytest.fixture
def f1(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("atlas_golden.json")["F1"])


def test_fixture_clusters(f1: dict[str, Any]) -> None:
    x = np.array(f1["X"])
    found = cluster_raters(x, rng=np.random.default_rng(1))
    assert found.linkage == pytest.approx(np.array(f1["linkage_mad_average"]), abs=1e-9)
    assert found.linkage[:, 2] == pytest.approx([0.03875, 0.04125, 0.059375, 0.060625, 0.204167], abs=5e-7)
    assert found.k == 2
    assert found.labels.tolist() == ALIGN
    assert found.silhouette == found.silhouettes[2] == pytest.approx(0.736276, abs=5e-7)
    assert sorted(found.order.tolist()) == list(range(6))
    assert found.silhouette_p == pytest.approx(1 / 200)
    assert found.together[0, 4] > 0.95
    assert found.together[0, 1] < 0.1
    assert np.array_equal(np.diag(found.together), np.ones(6))
    assert found.support[-1] == 1
    assert found.support.min() > 0.9
    geography, alignment = rand_agreement(found.labels, GEO), rand_agreement(found.labels, ALIGN)
    assert (geography.ari, alignment.ari) == (pytest.approx(-0.111111, abs=5e-7), 1.0)
    assert (geography.p, alignment.p, alignment.labelings, alignment.exact) == (1.0, 2 / 20, 20, True)


def test_fixture_numbers_of_raters(f1: dict[str, Any]) -> None:
    x = np.array(f1["X"])
    found = dimensions(x)
    assert found.raw == pytest.approx(f1["neff_dc"]["PR"], abs=1e-9)
    assert found.mean_r == pytest.approx(f1["neff_dc"]["rbar"], abs=1e-9)
    assert found.eigenvalues == pytest.approx(np.array(f1["neff_dc"]["lam"]), abs=1e-9)
    assert found.debiased is None
    assert "8 pairs: at least 15" in found.reason
    k, c = distinct_raters(x[:4]), distinct_raters(x[4:])
    assert (k.by_bandwidth[0.10], k.free) == (pytest.approx(1.248133, abs=5e-7), pytest.approx(1.154986, abs=5e-7))
    assert list(c.by_bandwidth.values()) == pytest.approx([5.458071, 3.737947, 2.561831], abs=5e-7)
    assert c.free == pytest.approx(2.036828, abs=5e-7)
    assert c.clipped == 0
    # With a reference that is the same everywhere "errors" are the ratings, which is what the page warns of.
    votes = independent_votes(x, np.full(8, 0.3))
    assert votes.votes == pytest.approx(f1["neff_raw"]["kish"], abs=1e-9)
    assert votes.mean_r == pytest.approx(f1["neff_raw"]["rbar"], abs=1e-9)


def _gaps(rng: np.random.Generator, shape: tuple[int, int], share: float) -> Any:
    x = rng.random(shape)
    x[rng.random(shape) < share] = np.nan
    return x


@pytest.mark.parametrize("share", [0.0, 0.2])
def test_distances_by_hand(share: float) -> None:
    rng = np.random.default_rng(2)
    x = _gaps(rng, (20, 6), share)
    level, pattern = rater_distances(x), rater_distances(x, "pattern")
    centred = double_centred(x)
    for i, j in combinations(range(6), 2):
        both = np.isfinite(x[:, i]) & np.isfinite(x[:, j])
        assert level[i, j] == level[j, i] == pytest.approx(np.abs(x[both, i] - x[both, j]).mean())
        assert pattern[i, j] == pytest.approx(1 - np.corrcoef(centred[both, i], centred[both, j])[0, 1])
    # Least squares: the residuals of a regression on indicators of pairs and models.
    p, m = np.nonzero(np.isfinite(x))
    design = np.hstack([np.eye(20)[p], np.eye(6)[m]])
    residuals = x[p, m] - design @ np.linalg.lstsq(design, x[p, m], rcond=None)[0]
    assert centred[p, m] == pytest.approx(residuals, abs=1e-10)
    assert np.array_equal(np.isnan(centred), np.isnan(x))


def test_silhouette_by_hand() -> None:
    rng = np.random.default_rng(3)
    x = rng.random((6, 7))
    found = cluster_raters(x, rng=rng, resamples=20, permutations=9)
    d, labels = found.distances, found.labels
    values = []
    for i in range(7):
        own = [j for j in range(7) if labels[j] == labels[i] and j != i]
        a = d[i, own].mean() if own else 0.0
        b = min(d[i, labels == c].mean() for c in set(labels.tolist()) - {labels[i]})
        values.append((b - a) / max(a, b) if own else 0.0)
    assert found.silhouette == pytest.approx(np.mean(values), rel=1e-12)
    assert found.k == min(k for k, s in found.silhouettes.items() if s == max(found.silhouettes.values()))
    assert len(set(labels.tolist())) == found.k


def test_support_counts_trees_with_the_same_node() -> None:
    """Three tight pairs of models: each node of two comes back always; how the three are joined is chance, and says so."""
    rng = np.random.default_rng(4)
    camps = np.repeat(rng.random((30, 3)), 2, axis=1)
    found = cluster_raters(camps + 0.01 * rng.normal(size=(30, 6)), rng=rng)
    two = found.linkage[:, 3] == 2
    assert found.k == 3
    assert np.all(found.support[two] == 1)
    assert found.support[3] < 0.99
    assert found.together[0, 1] == 1
    assert found.together[0, 2] == 0


@pytest.mark.parametrize("kind", ["level", "pattern"])
def test_what_leaves_clusters_unchanged(kind: Any) -> None:
    rng = np.random.default_rng(5)
    x = _gaps(rng, (25, 8), 0.1)
    one = cluster_raters(x, rng=np.random.default_rng(0), kind=kind, resamples=50, permutations=9)
    order = rng.permutation(8)
    for other, back in (
        (1 - x, np.arange(8)),
        (x + rng.random((25, 1)), np.arange(8)),
        (x[rng.permutation(25)], np.arange(8)),
        (x[:, order], order),
    ):
        again = cluster_raters(other, rng=np.random.default_rng(0), kind=kind, resamples=50, permutations=9)
        assert again.distances == pytest.approx(one.distances[np.ix_(back, back)], abs=1e-9)
        assert again.linkage[:, 2] == pytest.approx(one.linkage[:, 2], abs=1e-9)
        assert adjusted_rand(again.labels, one.labels[back]) == 1
    if kind == "pattern":
        assert rater_distances(x + rng.normal(size=8), kind) == pytest.approx(one.distances, abs=1e-9)


def test_noise_has_clusters_but_no_small_p() -> None:
    """Raters who differ by chance alone: the silhouette's p lies below .05 and .5 as often as it should, at different spreads and with gaps."""
    rng = np.random.default_rng(6)
    p = []
    for _ in range(120):
        x = 0.5 + np.exp(0.5 * rng.normal(size=(8, 1))) * 0.1 * rng.normal(size=(8, 7))
        x[0, :2] = np.nan
        p.append(cluster_raters(x, rng=rng, largest_k=3, resamples=1, permutations=19).silhouette_p)
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=0.055)
    assert np.mean(np.array(p) <= 0.5) == pytest.approx(0.5, abs=0.13)


def test_adjusted_rand() -> None:
    """Hubert and Arabie's index by counting couples of models."""
    rng = np.random.default_rng(7)
    a, b = rng.integers(0, 3, 12), rng.integers(0, 4, 12)
    couples = list(combinations(range(12), 2))
    both = sum(a[i] == a[j] and b[i] == b[j] for i, j in couples)
    ours, theirs = sum(a[i] == a[j] for i, j in couples), sum(b[i] == b[j] for i, j in couples)
    expected = ours * theirs / len(couples)
    assert adjusted_rand(a, b) == pytest.approx((both - expected) / ((ours + theirs) / 2 - expected))
    assert adjusted_rand(a, a) == 1
    with pytest.raises(ValueError, match="trivial"):
        adjusted_rand([0, 0, 0], [1, 1, 1])
    with pytest.raises(ValueError, match="same two or more"):
        adjusted_rand([0, 1], [0, 1, 1])


def test_rand_agreement_holds_its_level() -> None:
    rng = np.random.default_rng(8)
    p = np.array([rand_agreement(rng.integers(0, 6, 40), np.arange(40) % 5, rng=rng, permutations=199).p for _ in range(400)])
    for u in (0.05, 0.2, 0.5):
        assert np.mean(p <= u) == pytest.approx(u, abs=3 * np.sqrt(u * (1 - u) / 400) + 0.02)


def test_independent_raters_have_as_many_dimensions_less_one() -> None:
    """Twenty independent raters: 19 after centring; the plain ratio reads far less, and the less the fewer pairs."""
    rng = np.random.default_rng(9)
    for pairs, raw in ((15, 8.4), (30, 11.8), (60, 14.6)):
        found = [dimensions(rng.normal(size=(pairs, 20)) + rng.normal(size=(pairs, 1)) + rng.normal(size=20)) for _ in range(100)]
        assert np.mean([f.raw for f in found]) == pytest.approx(raw, abs=0.25)
        assert np.mean([f.debiased for f in found if f.debiased is not None]) == pytest.approx(19, abs=0.8)
        assert all(f.debiased is not None for f in found)


def test_two_camps_are_one_dimension_and_gaps_do_not_matter_much() -> None:
    rng = np.random.default_rng(10)
    x = rng.normal(size=(40, 1)) * np.where(np.arange(12) % 2, 1, -1) + 0.05 * rng.normal(size=(40, 12))
    assert dimensions(x).debiased == pytest.approx(1, abs=0.02)
    y = rng.normal(size=(200, 12))
    y[rng.random(y.shape) < 0.1] = np.nan
    found = dimensions(y)
    assert found.debiased == pytest.approx(11, abs=0.8)
    assert found.pairs < 200


def test_votes_on_errors_and_the_trap_of_raw_ratings() -> None:
    """Ten independent raters, pairs .2 apart, noise .1: ten votes on errors; 1.2 on raw ratings (the page's 1.22)."""
    rng = np.random.default_rng(11)
    votes, raw, shared = [], [], []
    for _ in range(60):
        truth = 0.5 + 0.2 * rng.normal(size=200)
        x = truth[:, None] + 0.1 * rng.normal(size=(200, 10))
        votes.append(independent_votes(x, truth).votes)
        raw.append(independent_votes(x, np.zeros(200)).votes)
        shared.append(independent_votes(x + 0.1 * rng.normal(size=(200, 1)), truth).votes)
    assert np.mean([v for v in votes if v is not None]) == pytest.approx(10, abs=0.5)
    assert np.mean([v for v in raw if v is not None]) == pytest.approx(10 / (1 + 9 * 0.8), abs=0.03)
    assert np.mean([v for v in shared if v is not None]) == pytest.approx(10 / (1 + 9 * 0.5), abs=0.08)
    unknown = np.where(np.arange(200) < 150, np.nan, truth)
    assert independent_votes(x, unknown).pairs == 50


def test_vendi_ends_and_gaps() -> None:
    alike = distinct_raters(np.repeat(np.linspace(0, 1, 9)[:, None], 4, axis=1))
    assert [alike.free, *alike.by_bandwidth.values()] == pytest.approx([1.0] * 4)
    apart = distinct_raters(np.eye(4), bandwidths=(0.01,))
    assert apart.by_bandwidth[0.01] == pytest.approx(4)
    # Opposed camps at 0 and 1: two raters, whatever their number.
    assert distinct_raters(np.tile([0.0, 1.0, 0.0, 1.0], (3, 1))).free == pytest.approx(2)
    x = _gaps(np.random.default_rng(12), (10, 6), 0.3)
    gaps = distinct_raters(x)
    assert 1 <= gaps.free <= 6
    assert gaps.clipped >= 0


def test_what_cannot_be_answered() -> None:
    rng = np.random.default_rng(13)
    x = rng.random((20, 5))
    apart = x.copy()
    apart[:10, 0], apart[10:, 1] = np.nan, np.nan
    with pytest.raises(ValueError, match="models 0 and 1 share no pair"):
        rater_distances(apart)
    with pytest.raises(ValueError, match="models 0 and 1"):
        cluster_raters(apart, rng=rng)
    with pytest.raises(ValueError, match="fewer than three pairs in common"):
        dimensions(apart)
    # Seven models on the lines of the Fano plane: any two share one pair, so a resample must draw all seven.
    lines = np.array([[0, 1, 2], [0, 3, 4], [0, 5, 6], [1, 3, 5], [1, 4, 6], [2, 3, 6], [2, 4, 5]])
    fano = np.where(np.any(np.arange(7)[:, None, None] == lines[None], axis=2), rng.random((7, 7)), np.nan)
    with pytest.raises(ValueError, match="so few pairs"):
        cluster_raters(fano, rng=rng, permutations=1)
    with pytest.raises(ValueError, match="do not vary"):
        rater_distances(np.repeat(x[:, :1], 5, axis=1), "pattern")
    with pytest.raises(ValueError, match="'level' or 'pattern'"):
        rater_distances(x, "other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="three or more"):
        cluster_raters(x[:, :2], rng=rng)
    with pytest.raises(ValueError, match="three or more"):
        dimensions(x[:, :2])
    with pytest.raises(ValueError, match="two models or more"):
        rater_distances(x[:, :1])
    with pytest.raises(ValueError, match="infinite"):
        rater_distances(np.where(x > 0.5, np.inf, x))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        distinct_raters(x + 1)
    with pytest.raises(ValueError, match="positive"):
        distinct_raters(x, ())
    with pytest.raises(ValueError, match="one reference per pair"):
        independent_votes(x, np.zeros(3))
    with pytest.raises(ValueError, match="three pairs with a reference"):
        independent_votes(x, np.where(np.arange(20) < 2, 0.5, np.nan))
    with pytest.raises(ValueError, match="no rating"):
        double_centred(np.where(np.arange(5) == 2, np.nan, x))
    same = independent_votes(np.repeat(x[:, :1], 5, axis=1), x[:, 0])
    assert (same.votes, same.mean_r) == (None, None)
    assert "do not vary" in same.reason
    opposed = independent_votes(0.5 + np.outer(x[:, 0] - 0.5, [1, -1]), np.full(20, 0.5))
    assert opposed.votes is None
    assert "cancel" in opposed.reason
