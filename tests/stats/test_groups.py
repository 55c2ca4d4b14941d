"""Shares between groups: the fixture, brute force, invariances, permutations that hold their level, and a bound that covers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.stats import beta

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.groups import GroupShare, between_groups, group_share, label_permutations

GEO, ALIGN = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def f1(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("atlas_golden.json")["F1"])


@pytest.mark.parametrize(("labels", "key", "p"), [(GEO, "geo", 18 / 20), (ALIGN, "align_grp", 2 / 20)])
def test_fixture(f1: dict[str, Any], labels: IntArray, key: str, p: float) -> None:
    category = np.array(f1["category"])
    for name, expected in f1[key].items():
        x = np.array(f1["X"])[np.full(8, True) if name == "all" else category == name]
        found = group_share(x, labels)
        for ours, theirs in {
            "eta2": "eta2",
            "epsilon2": "eps2",
            "omega2": "omega2",
            "f": "F",
            "main_share": "main_share",
            "interaction_share": "inter_share",
            "null_mean": "null_eta2",
        }.items():
            assert getattr(found, ours) == pytest.approx(expected[theirs], rel=1e-9, abs=1e-9), (name, ours)
        assert found.exact
        assert found.labelings == 20
        if name != "K":
            assert found.p == pytest.approx(p)


def test_null_of_one_pair_is_beta() -> None:
    """Under normality eta2 of one pair is Beta((G - 1)/2, (M - G)/2); the printed 95th percentiles, and the permutations of a normal sample."""
    for models, percentile in ((6, 0.658), (10, 0.399), (14, 0.284), (20, 0.197), (30, 0.130), (40, 0.097)):
        assert beta.ppf(0.95, 0.5, (models - 2) / 2) == pytest.approx(percentile, abs=1e-3)
    rng = np.random.default_rng(1)
    found = [group_share(rng.normal(size=(1, 14)), np.arange(14) % 2) for _ in range(40)]
    assert [f.null_mean for f in found] == pytest.approx([1 / 13] * 40)
    assert np.mean([f.null_95 for f in found if f.null_95]) == pytest.approx(0.284, abs=0.02)


def test_it_is_permanova() -> None:
    """R2 from squared distances between models alone (Anderson 2001): SST = sum d^2/M, SSW = sum over groups of sum d^2/n_g, over i < j."""
    rng = np.random.default_rng(2)
    x, labels = rng.random((7, 11)), np.array([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2])
    d2 = np.sum((x[:, :, None] - x[:, None, :]) ** 2, axis=0)
    total = d2.sum() / 2 / 11
    within = sum(d2[np.ix_(labels == g, labels == g)].sum() / 2 / np.sum(labels == g) for g in range(3))
    found = group_share(x, labels, rng=rng, permutations=99)
    assert found.eta2 == pytest.approx(1 - within / total, rel=1e-12)
    assert found.f == pytest.approx(((total - within) / 2) / (within / 8), rel=1e-12)


def _by_hand(x: FloatArray, labels: IntArray) -> dict[str, float]:
    """Loops over pairs, and least squares for the main part."""
    ssb = sst = numerator = msw_sum = 0.0
    rows = []
    for p, row in enumerate(x):
        rated = np.isfinite(row)
        v, g = row[rated], labels[rated]
        ssb_p = sum(np.sum(g == k) * (v[g == k].mean() - v.mean()) ** 2 for k in set(g.tolist()))
        sst_p = float(np.sum((v - v.mean()) ** 2))
        msw = (sst_p - ssb_p) / (len(v) - len(set(g.tolist())))
        ssb, sst, msw_sum = ssb + ssb_p, sst + sst_p, msw_sum + msw
        numerator += ssb_p - (len(set(g.tolist())) - 1) * msw
        rows += [(p, k, value) for k, value in zip(g.tolist(), v.tolist(), strict=True)]
    pair, group, value = (np.array(c) for c in zip(*rows, strict=True))
    y = value.astype(float)
    pairs, groups = np.eye(len(x))[pair.astype(int)], np.eye(int(labels.max()) + 1)[group.astype(int)]

    def residual(design: FloatArray) -> float:
        return float(np.sum((y - design @ np.linalg.lstsq(design, y, rcond=None)[0]) ** 2))

    main = residual(pairs) - residual(np.hstack([pairs, groups]))
    return {"eta2": ssb / sst, "epsilon2": numerator / sst, "omega2": numerator / (sst + msw_sum), "main_share": main / sst}


def test_missing_ratings_by_hand() -> None:
    rng = np.random.default_rng(3)
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    x = rng.random((12, 10)) + 0.3 * labels
    x[rng.random(x.shape) < 0.2] = np.nan
    x[0, 7:] = np.nan  # a pair that no model of one group rated
    x[1, 3:] = np.nan  # a pair with as many ratings as groups: left out
    found = group_share(x, labels, rng=rng, permutations=99)
    assert (found.pairs, found.pairs_left_out) == (11, 1)
    assert found.missing == int(np.isnan(np.delete(x, 1, axis=0)).sum())
    for name, value in _by_hand(np.delete(x, 1, axis=0), labels).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9), name
    assert found.main_share is not None
    assert found.interaction_share is not None
    assert found.interaction_share >= -1e-12


def test_sums_of_many_labelings_are_those_of_each() -> None:
    """The product of matrices for complete pairs, and the sums for the others, against one analysis of variance per labeling."""
    rng = np.random.default_rng(4)
    x = rng.random((6, 9))
    x[2, 1], x[4, [0, 5]] = np.nan, np.nan
    labels = np.array([rng.permutation([0, 0, 0, 1, 1, 1, 1, 2, 2]) for _ in range(20)])
    found = between_groups(x, labels)
    for b, row in enumerate(labels):
        by_hand = 0.0
        for values in x:
            rated = np.isfinite(values)
            v, g = values[rated], row[rated]
            by_hand += sum(np.sum(g == k) * (v[g == k].mean() - v.mean()) ** 2 for k in set(g.tolist()))
        assert found[b] == pytest.approx(by_hand, rel=1e-10)


def test_what_leaves_it_unchanged() -> None:
    rng = np.random.default_rng(5)
    x, labels = rng.random((8, 7)), np.array([0, 1, 0, 1, 1, 0, 1])
    one = group_share(x, labels)
    order, pairs = rng.permutation(7), rng.permutation(8)
    for other in (
        group_share(1 - x, labels),
        group_share(x + 0.2, labels),
        group_share(3 * x + rng.random((8, 1)), labels),  # a constant per pair
        group_share(x[pairs][:, order], labels[order]),
        group_share(x, np.array([5, -2])[labels]),  # names of groups
    ):
        for name in ("eta2", "epsilon2", "omega2", "upper", "f", "main_share", "p", "null_95", "dimensions"):
            assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9), name
    own = group_share(x + rng.normal(size=7), labels)  # a constant per model is part of the differences
    assert own.eta2 != pytest.approx(one.eta2)


def test_labelings() -> None:
    rows, exact = label_permutations([0, 0, 1, 1, 2])
    assert exact
    assert len(rows) == 30 == len({tuple(r) for r in rows.tolist()})
    assert all(sorted(r) == [0, 0, 1, 1, 2] for r in rows.tolist())
    within, _ = label_permutations([0, 1, 0, 1, 1], strata=[7, 7, 9, 9, 9])
    assert {tuple(r) for r in within.tolist()} == {(a, 1 - a, *b) for a in (0, 1) for b in ((0, 1, 1), (1, 0, 1), (1, 1, 0))}
    whole, _ = label_permutations([0, 0, 0, 1, 1, 0], units=[4, 4, 4, 5, 5, 6])
    assert {tuple(r) for r in whole.tolist()} == {(1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 0), (0, 0, 0, 0, 0, 1)}
    drawn, exact = label_permutations(np.arange(30) % 2, rng=np.random.default_rng(0), permutations=50)
    assert not exact
    assert drawn.shape == (50, 30)
    assert np.all(drawn.sum(axis=1) == 15)
    some, _ = label_permutations(
        np.arange(40) % 2, strata=np.arange(40) // 20, rng=np.random.default_rng(0), units=np.arange(40), permutations=50
    )
    assert np.all(some[:, :20].sum(axis=1) == 10)


def test_what_cannot_be_answered() -> None:
    x = np.random.default_rng(0).random((4, 6))
    with pytest.raises(ValueError, match="6 models in 1 groups"):
        group_share(x, np.zeros(6))
    with pytest.raises(ValueError, match="no permutation can tell"):
        group_share(x, GEO, strata=GEO)
    with pytest.raises(ValueError, match="different labels"):
        group_share(x, GEO, units=[0, 0, 1, 1, 2, 2])
    with pytest.raises(ValueError, match="different strata"):
        label_permutations([0, 0, 1, 1], units=[0, 0, 1, 1], strata=[0, 1, 0, 1])
    with pytest.raises(ValueError, match="generator"):
        group_share(np.random.default_rng(0).random((4, 30)), np.arange(30) % 2)
    with pytest.raises(ValueError, match="infinite"):
        group_share(np.where(x > 0.5, np.inf, x), GEO)
    with pytest.raises(ValueError, match="one label per model"):
        group_share(x, GEO[:3])
    with pytest.raises(ValueError, match="ratings must be"):
        group_share(x[0], GEO)
    with pytest.raises(ValueError, match="labels must be"):
        between_groups(x, GEO)
    alike = group_share(np.repeat(x[:, :1], 6, axis=1), GEO)
    assert (alike.eta2, alike.upper, alike.p) == (None, None, None)
    assert "do not differ" in alike.reason
    empty = group_share(np.where(np.arange(6) < 2, x, np.nan), GEO)
    assert (empty.pairs, empty.pairs_left_out, empty.eta2) == (0, 4, None)
    assert "more ratings than groups" in empty.reason
    apart = group_share(np.repeat([[0.1, 0.5]], 3, axis=0)[:, GEO], GEO)
    assert apart.f == np.inf
    assert apart.upper == 1.0
    assert apart.eta2 == pytest.approx(1.0)
    small = group_share(x[:, :3], np.array([0, 0, 1]))
    assert small.upper is None
    assert "degrees of freedom" in small.reason


def _study(
    rng: np.random.Generator, pairs: int, labels: IntArray, shared: float, omega2: float, *, camps: bool = False, unequal: bool = False
) -> FloatArray:
    """Variance 1 within groups on every pair (``unequal``: about as much on average), ``shared`` of it a trait of the model, groups a constant apart."""
    models = len(labels)
    trait = rng.choice([-1.0, 1.0], models) if camps else rng.normal(size=models)
    e = np.sqrt(shared) * trait + np.sqrt(1 - shared) * rng.normal(size=(pairs, models))
    if unequal:
        e = e * np.where(labels == 0, np.sqrt(1.6), np.sqrt(0.4))
    offsets = labels - labels.mean()
    return np.asarray(e + offsets * np.sqrt(omega2 / (1 - omega2) / np.mean(offsets**2)))


def test_level_is_held() -> None:
    """No group effect, but traits of models: exact and drawn p lie below u at most as often as u."""
    rng = np.random.default_rng(6)
    exact = np.array([group_share(_study(rng, 6, np.arange(10) % 2, 0.7, 0.0), np.arange(10) % 2).p for _ in range(400)], dtype=float)
    drawn = np.array(
        [group_share(_study(rng, 6, np.arange(20) % 3, 0.7, 0.0), np.arange(20) % 3, rng=rng, permutations=99).p for _ in range(400)],
        dtype=float,
    )
    for p in (exact, drawn):
        for u in (0.05, 0.2, 0.5, 0.8):
            assert np.mean(p <= u) == pytest.approx(u, abs=3.5 * np.sqrt(u * (1 - u) / 400) + 0.01)


def test_models_of_one_developer_move_together() -> None:
    """Ten developers with two like models each, geography a fact of developers: with ``units`` the level holds, without it does not."""
    rng = np.random.default_rng(7)
    developer = np.arange(20) // 2
    labels = developer % 2
    naive, whole = [], []
    for _ in range(200):
        x = rng.normal(size=(5, 10))[:, developer] + 0.3 * rng.normal(size=(5, 20))
        naive.append(group_share(x, labels, rng=rng, permutations=99).p)
        whole.append(group_share(x, labels, units=developer).p)
    assert np.mean(np.array(whole, dtype=float) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)
    assert np.mean(np.array(naive, dtype=float) <= 0.05) > 0.10


def test_omega_squared_finds_the_truth_and_eta_squared_does_not() -> None:
    rng = np.random.default_rng(8)
    labels = np.arange(12) % 2
    for omega2 in (0.0, 0.15):
        found = [group_share(_study(rng, 10, labels, 0.3, omega2), labels) for _ in range(200)]
        assert np.mean([f.omega2 for f in found if f.omega2 is not None]) == pytest.approx(omega2, abs=0.03)
        assert np.mean([f.eta2 for f in found if f.eta2 is not None]) > omega2 + 0.05


def _covered(seed: int, studies: int, pairs: int, models: int, shared: float, omega2: float, missing: float = 0.0, **kind: bool) -> float:
    rng = np.random.default_rng(seed)
    labels = np.arange(models) % 2
    hits = 0
    for _ in range(studies):
        x = _study(rng, pairs, labels, shared, omega2, **kind)
        x[rng.random(x.shape) < missing] = np.nan
        found: GroupShare = group_share(x, labels, rng=rng, permutations=9)
        assert found.upper is not None
        assert found.omega2 is not None
        assert found.upper >= max(found.omega2, 0)
        hits += found.upper >= omega2
    return hits / studies


SETTINGS = [
    (8, 20, 0.5, 0.40, 0.0, {}),
    (30, 10, 0.5, 0.15, 0.0, {}),
    (20, 20, 0.9, 0.15, 0.1, {}),
    (20, 20, 0.0, 0.15, 0.0, {}),
    (20, 20, 0.8, 0.30, 0.0, {"camps": True}),
    (20, 20, 0.5, 0.15, 0.0, {"unequal": True}),
]


@pytest.mark.parametrize(("pairs", "models", "shared", "omega2", "missing", "kind"), SETTINGS)
def test_upper_bound_covers(pairs: int, models: int, shared: float, omega2: float, missing: float, kind: dict[str, bool]) -> None:
    assert _covered(9, 200, pairs, models, shared, omega2, missing, **kind) >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 200)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pairs", "models", "shared", "omega2", "missing", "kind"), [*SETTINGS, (30, 40, 0.5, 0.15, 0.0, {}), (12, 8, 0.7, 0.4, 0.1, {})]
)
def test_upper_bound_covers_in_many_studies(
    pairs: int, models: int, shared: float, omega2: float, missing: float, kind: dict[str, bool]
) -> None:
    share = _covered(10, 2_000, pairs, models, shared, omega2, missing, **kind)
    assert share >= 0.95 - 3 * np.sqrt(0.95 * 0.05 / 2_000)


def test_a_small_share_is_not_claimed_by_chance() -> None:
    """Even a ratio of 0 leaves the bound where the study could have seen something: exp(-nc/2) = .05 at nc = 5.99."""
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    x = np.array([[0.1, 0.4, 0.6, 0.9, 0.1, 0.4, 0.6, 0.9]])
    found = group_share(x, labels)
    assert found.eta2 == pytest.approx(0.0)
    f2 = -2 * np.log(0.05) / 8
    assert found.upper == pytest.approx(f2 / (1 + f2), rel=1e-6)
