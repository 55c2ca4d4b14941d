"""Two estimated subspaces: one dimension by hand, invariances, nulls, refusals, and studies."""

from __future__ import annotations

import numpy as np
import pytest

from aligntax.stats.clusters import FloatArray
from aligntax.stats.subspaces import SubspaceOverlap, isotropic_cosines, subspace_overlap, wachter_edge

Rng = np.random.Generator


def drawn(rng: Rng, d: int, k: int, m: int, n: int, mean: float, signal: float) -> tuple[FloatArray, FloatArray]:
    """Rows of a safety and a capability subspace whose principal cosines squared are all ``mean``, with noise of length 1."""
    c = np.linalg.qr(rng.normal(size=(d, m)))[0]
    rest = rng.normal(size=(d, k))
    rest = np.linalg.qr(rest - c @ (c.T @ rest))[0]
    v = np.sqrt(mean) * c @ np.linalg.qr(rng.normal(size=(m, k)))[0] + np.sqrt(1 - mean) * rest
    noise = rng.normal(size=(2, n, d)) / np.sqrt(d)
    return signal * (rng.normal(size=(n, k)) + 1) @ v.T + noise[0], signal * rng.normal(size=(n, m)) @ c.T + noise[1]


def test_wachters_edge_and_the_matrix_beta_law() -> None:
    assert wachter_edge(20, 20, 1000) == pytest.approx(0.0784, abs=1e-9)
    assert wachter_edge(5, 32, 2048) == pytest.approx(0.03023, abs=5e-6)
    rng = np.random.default_rng(1)
    found = isotropic_cosines(20, 20, 1000, 300, rng)
    assert found.mean() == pytest.approx(0.02, abs=0.0004)
    assert found[:, -1].mean() == pytest.approx(0.0698, abs=0.002)  # at this size below the edge
    for k, m in ((2, 5), (5, 2)):
        cosines = isotropic_cosines(k, m, 30, 2000, rng)
        assert cosines.shape == (2000, 2)
        assert cosines.sum(axis=1).mean() / k == pytest.approx(m / 30, abs=0.005)
        c = np.linalg.qr(rng.normal(size=(30, m)))[0]
        direct = [np.linalg.svd(np.linalg.qr(rng.normal(size=(30, k)))[0].T @ c, compute_uv=False)[0] ** 2 for _ in range(2000)]
        assert cosines[:, -1].mean() == pytest.approx(np.mean(direct), abs=0.015)


def test_without_noise_it_is_the_mean_of_squared_cosines() -> None:
    rng = np.random.default_rng(2)
    v, c = np.linalg.qr(rng.normal(size=(40, 3)))[0], np.linalg.qr(rng.normal(size=(40, 4)))[0]
    x, y = rng.normal(size=(60, 3)) @ v.T, rng.normal(size=(50, 4)) @ c.T
    found = subspace_overlap(x, y, 3, 4, rng, draws=19)
    cosines = np.linalg.svd(v.T @ c, compute_uv=False) ** 2
    assert found.mean == pytest.approx(cosines.sum() / 3, rel=1e-9)
    assert (found.naive, found.largest) == (pytest.approx(cosines.sum() / 3), pytest.approx(cosines[0]))
    assert (found.low, found.high) == (pytest.approx(found.mean), pytest.approx(found.mean))
    assert found.reproduced == (3, 4)
    assert found.excess == pytest.approx((found.mean - 0.1) / 0.9)


def test_one_dimension_is_spearmans_correction() -> None:
    """First directions of halves by the decomposition of each half; v_A'c_B c_A'v_B/(v_A'v_B c_A'c_B), and with A and B of c exchanged the same."""
    rng = np.random.default_rng(3)
    x, y = drawn(rng, 30, 1, 1, 60, 0.5, 0.5)
    groups = np.arange(60) % 8
    found = subspace_overlap(x, y, 1, 1, np.random.default_rng(4), groups=(groups, groups), splits=1, draws=9)
    again = np.random.default_rng(4)
    halves = [np.isin(groups, np.sort(again.permutation(8)[:4])) for _ in range(2)]
    va, vb = (np.linalg.svd(x[h], full_matrices=False)[2][0] for h in (halves[0], ~halves[0]))
    ca, cb = (np.linalg.svd(y[h], full_matrices=False)[2][0] for h in (halves[1], ~halves[1]))
    expected = ((va @ cb) * (ca @ vb) + (va @ ca) * (cb @ vb)) / 2 / ((va @ vb) * (ca @ cb))
    assert found.mean == pytest.approx(expected, rel=1e-9)


def test_rotation_and_scale_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    x, y = drawn(rng, 40, 2, 3, 80, 0.4, 0.8)
    turn = np.linalg.qr(rng.normal(size=(40, 40)))[0]
    first = subspace_overlap(x, y, 2, 3, np.random.default_rng(6), generic=x, draws=19)
    second = subspace_overlap(3 * x @ turn, -y @ turn, 2, 3, np.random.default_rng(6), generic=x @ turn, draws=19)
    assert second.mean == pytest.approx(first.mean, rel=1e-7)
    assert (second.low, second.naive) == (pytest.approx(first.low), pytest.approx(first.naive))
    assert second.matched is not None
    assert first.matched is not None
    assert second.matched.mean == pytest.approx(first.matched.mean)


def test_generic_variance_is_no_evidence() -> None:
    """Both subspaces are the directions of largest variance of everything: far above m/d, and nothing above what these have in common anyway."""
    rng = np.random.default_rng(7)
    sd = np.arange(1, 61.0) ** -1.0
    x, y, generic = (rng.normal(size=(n, 60)) * sd for n in (150, 150, 300))
    found = subspace_overlap(x, y, 2, 4, rng, generic=generic, draws=199)
    assert found.isotropic.p_mean <= 0.01
    assert found.isotropic.p_largest <= 0.01
    assert found.matched is not None
    assert found.matched.mean > 4 * 4 / 60
    assert found.principal is not None
    assert found.principal > 0.9
    assert found.principal > found.naive - 0.1


def test_directions_that_halves_do_not_share_are_told() -> None:
    rng = np.random.default_rng(8)
    x, y = drawn(rng, 100, 2, 2, 60, 0.4, 0.8)
    found = subspace_overlap(x, y, 4, 2, rng, draws=19)
    assert (found.mean, found.low, found.high, found.excess) == (None, None, None, None)
    assert found.reproduced == (2, 2)
    assert found.reason is not None
    assert "only 2 of 4 safety directions" in found.reason
    assert found.naive > 0


def test_what_cannot_be_compared() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(40, 20)), rng.normal(size=(40, 20))
    for call, said in (
        (lambda: subspace_overlap(x, y[:, :5], 1, 1, rng), "one layer"),
        (lambda: subspace_overlap(x, np.concatenate([y, x[3:4]]), 1, 1, rng), "rows in common"),
        (lambda: subspace_overlap(x, y, 11, 10, rng), "subspaces of 11 and 10"),
        (lambda: subspace_overlap(x, y, 0, 1, rng), "subspaces of 0 and 1"),
        (lambda: subspace_overlap(x[:12], y, 5, 1, rng), "too few for 5"),
        (lambda: subspace_overlap(np.outer(np.arange(1, 41), x[0]), y, 2, 1, rng), "span fewer than 2"),
        (lambda: subspace_overlap(np.where(x > 2, np.nan, x), y, 1, 1, rng), "finite"),
        (lambda: subspace_overlap(x, y, 1, 1, rng, generic=x[:, :4]), "20 dimensions"),
        (lambda: subspace_overlap(x, y, 1, 1, rng, groups=(np.arange(40) % 5, None)), "5 independent rows or groups"),
        (lambda: subspace_overlap(x, y, 1, 1, rng, splits=0), "at least 1"),
    ):
        with pytest.raises(ValueError, match=said):
            call()


def subspace_study(rng: Rng, d: int, k: int, m: int, n: int, mean: float, signal: float, studies: int) -> list[SubspaceOverlap]:
    return [subspace_overlap(*drawn(rng, d, k, m, n, mean, signal), k, m, rng, splits=4, draws=19) for _ in range(studies)]


def subspace_summary(found: list[SubspaceOverlap], mean: float) -> dict[str, float]:
    told = [f for f in found if f.mean is not None]
    estimates = np.array([f.mean for f in told], dtype=np.float64)
    return {
        "naive": float(np.mean([f.naive for f in found])),
        "identified": len(told) / len(found),
        "mean": float(estimates.mean()),
        "sd": float(estimates.std()),
        "covers": float(np.mean([f.low <= mean <= f.high for f in told if f.low is not None and f.high is not None])),
    }


@pytest.mark.parametrize("mean", [0.0, 0.6])
def test_means_are_unbiased_and_covered(mean: float) -> None:
    row = subspace_summary(subspace_study(np.random.default_rng(10), 96, 2, 4, 96, mean, 0.3, 15), mean)
    assert row["identified"] == 1
    assert row["mean"] == pytest.approx(mean, abs=0.02)
    assert row["covers"] >= 0.8
    if mean > 0:
        assert row["naive"] < mean - 0.05


def null_level(rng: Rng, studies: int) -> tuple[float, float]:
    """Shares of p at most .05 of mean and largest cosine for subspaces drawn uniformly."""
    found = [subspace_overlap(rng.normal(size=(40, 50)), rng.normal(size=(40, 50)), 2, 3, rng, splits=1, draws=39) for _ in range(studies)]
    return float(np.mean([f.isotropic.p_mean <= 0.05 for f in found])), float(np.mean([f.isotropic.p_largest <= 0.05 for f in found]))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "signal"), [(96, 0.5), (96, 0.3), (400, 0.3)])
@pytest.mark.parametrize("mean", [0.0, 0.3, 0.7])
def test_means_are_covered_everywhere(n: int, signal: float, mean: float) -> None:
    row = subspace_summary(subspace_study(np.random.default_rng(11), 128, 3, 5, n, mean, signal, 150), mean)
    assert row["mean"] == pytest.approx(mean, abs=0.01)
    assert row["covers"] >= 0.92


@pytest.mark.slow
def test_the_null_holds_its_level() -> None:
    for share in null_level(np.random.default_rng(12), 2000):
        assert share == pytest.approx(0.05, abs=0.015)
