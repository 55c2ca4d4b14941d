"""Tax rates of estimated directions: brute force, exact unbiasedness, known answers, refusals, and studies of bias and coverage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.directions import (
    BlockSample,
    CrossFit,
    PartialCosine,
    Sample,
    TaxRate,
    corrected_cosine,
    cross_fitted,
    fieller,
    group_blocks,
    jackknife_covariance,
    partial_cosine,
    rate_limits,
    tax_rate,
)

Rng = np.random.Generator


# -- one direction, a known basis -----------------------------------------------------------------------------------


def all_pairs(x: FloatArray, y: FloatArray, p: FloatArray) -> float:
    """Mean of (x_i - y_j)'P(x_k - y_l) over i != k and j != l, by loops."""
    total, count = 0.0, 0
    for i, k in product(range(len(x)), repeat=2):
        for j, l in product(range(len(y)), repeat=2):
            if i != k and j != l:
                total, count = total + float((x[i] - y[j]) @ p @ (x[k] - y[l])), count + 1
    return total / count


def test_it_is_the_all_pairs_statistic() -> None:
    rng = np.random.default_rng(1)
    x, y, c = rng.normal(size=(11, 7)) + 0.8, rng.normal(size=(9, 7)), rng.normal(size=(7, 2))
    found = tax_rate(x, y, c)
    q = np.linalg.qr(c)[0]
    assert found.numerator == pytest.approx(all_pairs(x, y, q @ q.T), rel=1e-12)
    assert found.denominator == pytest.approx(all_pairs(x, y, np.eye(7)), rel=1e-12)
    shift = x.mean(axis=0) - y.mean(axis=0)
    assert found.naive == pytest.approx(float(np.sum((q.T @ shift) ** 2) / np.sum(shift**2)))
    trace = np.trace(np.cov(x, rowvar=False)) / 11 + np.trace(np.cov(y, rowvar=False)) / 9
    assert found.denominator == pytest.approx(float(shift @ shift - trace))
    assert found.reliability == pytest.approx(found.denominator / float(shift @ shift))


def test_jackknife_replicates_are_fits_without_a_block() -> None:
    """The covariance behind Fieller's set and the overlaps' limits are those of estimates made afresh without each block."""
    rng = np.random.default_rng(2)
    x, y, c = rng.normal(size=(40, 6)) + 1.0, rng.normal(size=(37, 6)), rng.normal(size=(6, 2))
    gx, gy = np.arange(40) % 10, np.arange(37) % 10
    found = tax_rate(x, y, c, (gx, gy))
    assert found.blocks == 10
    without = [tax_rate(x[gx != g], y[gy != g], c, (gx[gx != g], gy[gy != g])) for g in range(10)]
    ratios = np.array([w.numerator / w.denominator for w in without])
    assert found.se == pytest.approx(np.sqrt(9 / 10 * np.sum((ratios - ratios.mean()) ** 2)), rel=1e-9)
    d = np.array([w.denominator for w in without])
    assert found.z == pytest.approx(found.denominator / np.sqrt(9 / 10 * np.sum((d - d.mean()) ** 2)), rel=1e-9)


def test_matched_pairs_are_the_pair_statistic() -> None:
    """Differences within pairs, products of different pairs only; taken as two samples the shared part of a pair would bias it."""
    rng = np.random.default_rng(3)
    y = 3 * rng.normal(size=(12, 5))
    x = y + 0.7 + 0.3 * rng.normal(size=(12, 5))
    d = x - y
    expected = (np.sum(d.sum(axis=0) ** 2) - np.sum(d**2)) / (12 * 11)
    pairs = np.arange(12)
    order = rng.permutation(12)
    found = tax_rate(x, y[order], np.eye(5)[:, :2], (pairs, pairs[order]))
    assert found.denominator == pytest.approx(expected, rel=1e-12)
    assert found.reason is None
    apart = tax_rate(x, y, np.eye(5)[:, :2])
    assert abs(apart.denominator - expected) > 1.0


def test_it_is_unbiased_for_any_covariance_within_groups() -> None:
    """The estimate is a quadratic form z'Az of the states; tr(A S) is ||v||^2's noise, which must be 0 for every S that joins rows of one group only."""
    rng = np.random.default_rng(4)
    gx = np.array([0, 0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 8])  # uneven groups; some of both classes, some of one
    gy = np.array([0, 1, 1, 3, 4, 9, 9, 10, 11, 12, 13, 14])
    n1, n = len(gx), len(gx) + len(gy)

    def form(z: FloatArray) -> float:
        return tax_rate(z[:n1, None], z[n1:, None], np.ones((1, 1)), (gx, gy)).denominator

    unit = np.eye(n)
    diagonal = np.array([form(e) for e in unit])
    a = np.diag(diagonal)
    for i, j in combinations(range(n), 2):
        a[i, j] = a[j, i] = (form(unit[i] + unit[j]) - diagonal[i] - diagonal[j]) / 2
    for _ in range(5):
        root = rng.normal(size=(n, n))
        same = np.concatenate([gx, gy])[:, None] == np.concatenate([gx, gy])
        covariance = np.where(same, root @ root.T, 0.0)
        assert abs(float(np.sum(a * covariance))) < 1e-12 * np.trace(covariance)
    means = np.concatenate([np.full(n1, 2.0), np.full(n - n1, -1.0)])
    assert means @ a @ means == pytest.approx(9.0)


def test_origin_rotation_scale_and_the_basis_chosen_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    x, y, c = rng.normal(size=(30, 8)) + 2.0, rng.normal(size=(25, 8)), rng.normal(size=(8, 3))
    g = (rng.integers(0, 12, 30), rng.integers(0, 12, 25))
    found = tax_rate(x, y, c, g)
    turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    far = 1e4 * rng.normal(size=8)
    named = tuple(np.array([f"template {i:02d}" for i in labels]) for labels in g)
    for other in (
        tax_rate(x + far, y + far, c, g),
        tax_rate(x @ turn, y @ turn, turn.T @ c, g),
        tax_rate(-3 * x, -3 * y, c, g),
        tax_rate(x, y, c @ rng.normal(size=(3, 3)), g),
        tax_rate(x, y, c, (named[0], named[1])),
    ):
        assert other.estimate == pytest.approx(found.estimate, rel=1e-6)
        assert (other.low, other.high) == pytest.approx((found.low, found.high), rel=1e-6)
    assert [o.cosine for o in tax_rate(-x, -y, c, g).overlaps] == pytest.approx([-o.cosine for o in found.overlaps])


def test_limits_of_a_rate() -> None:
    """At both ends the estimate is t standard errors away, the error being that of the squared length at the end."""
    rng = np.random.default_rng(6)
    coordinates = 0.5 + 0.02 * rng.normal(size=(33, 3))
    rates = np.sum(coordinates**2, axis=1) - 0.01
    found = rate_limits(rates, coordinates, 2.0)
    v = jackknife_covariance(coordinates.T)
    trace, squares = np.trace(v), np.sum(v**2)
    least = max(31**2 / (30 * 33) * (squares - trace**2 / 31), trace**2 / 3)
    growth = coordinates[0] @ v @ coordinates[0] / (coordinates[0] @ coordinates[0])
    for end in (found.low, found.high):
        assert abs(found.estimate - end) == pytest.approx(2.0 * np.sqrt(4 * growth * end + 2 * least), rel=1e-9)
    assert found.low < found.estimate < found.high
    assert rate_limits(rates - 5, coordinates, 2.0).low <= 0 <= rate_limits(rates - 5, coordinates, 2.0).high


def test_fieller() -> None:
    v = np.array([[0.04, 0.01], [0.01, 0.09]])
    found = fieller(1.0, 2.0, v, 2.0)
    assert found.kind == "interval"
    for r in (found.low, found.high):
        assert (1 - 2 * r) ** 2 == pytest.approx(4 * (0.04 - 2 * r * 0.01 + r * r * 0.09), rel=1e-9)
    assert found.holds(0.5)
    assert not found.holds(found.high + 0.01)
    open_ended = fieller(2.0, 0.5, v, 2.0)
    assert open_ended.kind == "outside"
    assert open_ended.holds(4.0)
    assert open_ended.holds(-1e6)
    assert not open_ended.holds((open_ended.low + open_ended.high) / 2)
    assert fieller(0.1, 0.1, v, 2.0).kind == "line"
    assert fieller(0.1, 0.1, v, 2.0).holds(1e9)


def test_too_few_prompts_are_told_and_counted() -> None:
    rng = np.random.default_rng(7)
    d, n = 200, 40
    v = np.zeros(d)
    v[0] = np.sqrt(2 * d / 100)  # reliability .5 at 100 per class
    few = tax_rate(rng.normal(size=(n, d)) + v, rng.normal(size=(n, d)), np.eye(d)[:, :3])
    assert (few.estimate, few.low, few.high, few.se, few.jackknife, few.overlaps) == (None, None, None, None, None, ())
    assert few.reason is not None
    assert "not identified" in few.reason
    assert few.prompts_needed is not None
    assert str(few.prompts_needed) in few.reason
    assert 60 <= few.prompts_needed <= 300
    enough = tax_rate(rng.normal(size=(300, d)) + v, rng.normal(size=(300, d)), np.eye(d)[:, :3])
    assert enough.reason is None
    assert enough.reliability == pytest.approx(0.75, abs=0.1)
    same = tax_rate(np.ones((20, 4)), np.ones((20, 4)), np.eye(4)[:, :1])
    assert same.estimate is None
    assert same.prompts_needed is None
    assert same.reason == "not identified: no difference between the classes can be told from noise"


def test_what_cannot_be_estimated() -> None:
    rng = np.random.default_rng(8)
    x, y, c = rng.normal(size=(20, 6)), rng.normal(size=(20, 6)), rng.normal(size=(6, 2))
    hole = x.copy()
    hole[3, 2] = np.nan
    some = np.arange(20)
    heavy = np.where(some < 12, 0, some)
    for arguments, said in (
        ((x[:, :5], y, c), "one layer"),
        ((hole, y, c), "row 3"),
        ((x, y, rng.normal(size=(5, 2))), "one layer"),
        ((x, y, np.column_stack([c, np.zeros(6)])), "zero everywhere"),
        ((x, y, np.column_stack([c, c[:, :1] - c[:, 1:]])), "span only 2"),
        ((x, y, rng.normal(size=(6, 7))), "7 capability directions in 6 dimensions"),
        ((x[:7], y, c), "7 independent rows or groups"),
        ((x, y[:0], c), "0 independent rows"),
        ((x, y, c, (some // 4, some)), "5 independent rows or groups"),
        ((x, y, c, (some[:5], some)), "one group label per row"),
        ((x, y, c, (heavy, some)), "one group holds 12 of 20"),
        ((x[0], y, c), "rows of numbers"),
    ):
        with pytest.raises(ValueError, match=said):
            tax_rate(*arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 8"):
        tax_rate(x, y, c, blocks=4)
    with pytest.raises(ValueError, match="between 0 and 1"):
        tax_rate(x, y, c, level=95)


def test_blocks_hold_whole_groups_and_as_many_of_them() -> None:
    labels = np.repeat([f"t{i}" for i in range(50)], 3)
    count, block = group_blocks(labels, 150, "rows", 32)
    assert count == 32
    by_group = block.reshape(50, 3)
    assert np.all(by_group == by_group[:, :1])
    assert set(np.bincount(by_group[:, 0])) == {1, 2}


# -- several directions, all of them estimated ----------------------------------------------------------------------


def exact(v: FloatArray, n: int = 8) -> Sample:
    """A sample without noise, in two classes."""
    return Sample(np.tile(v, (n, 1)), np.zeros((n, len(v))))


def test_known_answers_without_noise(golden: Callable[[str], Any]) -> None:
    cases = golden("theory_cases.json")
    multi = cases["C_multi"]
    c, v = np.array(multi["C"]), np.array(multi["v"])
    found = cross_fitted(exact(3 * v), [Sample(np.tile(2 * c[:, i], (8, 1))) for i in range(2)])
    assert found.estimate == pytest.approx(multi["tau"], abs=1e-9)
    assert [o.cosine for o in found.overlaps] == pytest.approx(multi["b"], abs=1e-9)
    assert (found.reliability, found.blocks, found.clipped) == (pytest.approx(1.0), 8, 0)
    assert found.least_eigenvalue == pytest.approx(1 - multi["G"][0][1])
    plain = tax_rate(np.tile(v, (8, 1)), np.zeros((8, 3)), c)
    assert (plain.estimate, plain.naive) == (pytest.approx(0.5, abs=1e-9), pytest.approx(0.5, abs=1e-9))
    four = cases["D_multi"]
    c4 = np.array(four["C"])
    pair = partial_cosine(exact(np.array(four["v1"])), exact(np.array(four["v2"])), [Sample(np.tile(c4[:, i], (8, 1))) for i in range(2)])
    assert (pair.estimate, pair.cosine) == (pytest.approx(four["partial"], abs=1e-9), pytest.approx(four["rho"], abs=1e-9))
    assert pair.taxes == pytest.approx((four["tau1"], four["tau2"]), abs=1e-9)


@pytest.mark.parametrize("index", range(8))
def test_partial_cosines_without_noise(golden: Callable[[str], Any], index: int) -> None:
    case = golden("theory_cases.json")["D_partial"][index]
    rho, a, b = case["rho"], case["a"], case["b"]
    root = np.linalg.cholesky(np.array([[1, a, b], [a, 1, rho], [b, rho, 1]]))  # c, v1, v2
    found = partial_cosine(exact(root[1]), exact(root[2]), [exact(root[0])])
    assert found.estimate == pytest.approx(case["partial"], abs=1e-9)


def noisy(rng: Rng, v: FloatArray, noise: float, n: int, classes: bool = True) -> Sample:
    x = v + noise * rng.normal(size=(n, len(v)))
    return Sample(x, noise * rng.normal(size=(n, len(v)))) if classes else Sample(x)


def test_products_are_means_over_all_splits() -> None:
    """tau from b_A b_B', G and v_A'v_B averaged over every way to halve the blocks of safety and of capabilities."""
    rng = np.random.default_rng(9)
    d, k = 6, 8
    v = rng.normal(size=(k, d)) * 0.3 + np.array([3.0, 1, 0, 0, 0, 0])
    c = rng.normal(size=(2, k, d)) * 0.2 + np.eye(6)[:2, None] * 2
    found = cross_fitted(Sample(v), [Sample(c[0]), Sample(c[1])])
    halves = [np.isin(np.arange(k), list(h)) for h in combinations(range(k), k // 2)]
    outer, gram, length = np.zeros((2, 2)), np.zeros((2, 2)), 0.0
    for a in halves:
        length += float(v[a].mean(axis=0) @ v[~a].mean(axis=0)) / len(halves)
    for s in halves:
        first, second = c[:, s].mean(axis=1), c[:, ~s].mean(axis=1)
        gram += first @ second.T / len(halves)
        for a in halves:
            outer += np.outer(first @ v[a].mean(axis=0), second @ v[~a].mean(axis=0)) / len(halves) ** 2
    assert found.estimate == pytest.approx(float(np.trace(np.linalg.solve(gram, outer))) / length, rel=1e-9)


def test_shared_prompts_of_capabilities_are_kept_apart_by_their_groups() -> None:
    """Two metrics' gradients at the same prompts share noise: with common labels the cosine between them is unbiased, which the tax rate needs."""
    rng = np.random.default_rng(10)
    d, n, found = 40, 48, []
    labels = np.arange(n)
    for _ in range(60):
        shared = 1.5 * rng.normal(size=(n, d))
        c = [Sample(np.eye(d)[i] * 6 + shared + rng.normal(size=(n, d)), groups=labels) for i in (0, 1)]
        v = (np.eye(d)[0] + np.eye(d)[1]) / np.sqrt(2) * 5
        fit = cross_fitted(noisy(rng, v, 1.0, n), c)
        assert fit.estimate is not None
        found.append((fit.estimate, fit.naive, fit.least_eigenvalue))
    estimate, naive, eigenvalue = np.mean(found, axis=0)
    assert estimate == pytest.approx(1.0, abs=0.02)
    assert naive < 0.93
    assert eigenvalue > 0.93


def test_one_capability_keeps_its_sign() -> None:
    rng = np.random.default_rng(11)
    d, n = 100, 80
    c, v = np.eye(d)[0] * 4, (-0.6 * np.eye(d)[0] + 0.8 * np.eye(d)[1]) * 4
    found = cross_fitted(noisy(rng, v, 1.0, n), [noisy(rng, c, 1.0, n, classes=False)])
    (overlap,) = found.overlaps
    assert overlap.low < -0.6 < overlap.high < 0
    assert overlap.cosine < overlap.naive  # noise pulls towards 0
    assert found.estimate == pytest.approx(overlap.cosine**2, abs=0.02)


def test_unreliable_directions_and_repeated_capabilities_are_told() -> None:
    rng = np.random.default_rng(12)
    d, n = 100, 64
    v, c = np.eye(d)[0] * 5, np.eye(d)[1] * 5
    weak = cross_fitted(noisy(rng, v, 1.0, n), [noisy(rng, c, 1.0, n), noisy(rng, c * 0.15, 1.0, n, classes=False)])
    assert (weak.estimate, weak.overlaps) == (None, ())
    assert weak.reason is not None
    assert "capability 1" in weak.reason
    assert cross_fitted(noisy(rng, 0.1 * v, 1.0, n), [noisy(rng, c, 1.0, n)]).reason is not None
    weak_pair = partial_cosine(noisy(rng, v, 1.0, n), noisy(rng, 0.1 * c, 1.0, n), [noisy(rng, v + c, 1.0, n)])
    assert weak_pair.reason is not None
    assert "safety direction 2" in weak_pair.reason
    twin = cross_fitted(noisy(rng, v + c, 1.0, n), [noisy(rng, c, 0.2, n), noisy(rng, c + 0.1 * np.eye(d)[2], 0.2, n)])
    assert twin.clipped == 1
    assert twin.least_eigenvalue is not None
    assert twin.least_eigenvalue < 0.05
    assert twin.estimate == pytest.approx(0.5, abs=0.08)
    inside = partial_cosine(exact(v), exact(v + c), [exact(2 * v)])
    assert inside.reason is not None
    assert "nothing of it is left" in inside.reason


def test_common_rows_and_groups_are_refused() -> None:
    rng = np.random.default_rng(13)
    x, y, c = rng.normal(size=(3, 20, 9)) + 3
    labels = np.arange(20)
    with pytest.raises(ValueError, match=r"capability 0 .* has a row in common with safety direction 1"):
        cross_fitted(Sample(x, y), [Sample(np.concatenate([c, y[:1]]))])
    with pytest.raises(ValueError, match="group in common"):
        cross_fitted(Sample(x, y, labels, labels), [Sample(c, groups=labels)])
    with pytest.raises(ValueError, match=r"capability 0 .* and capability 1 .* have a row in common"):
        cross_fitted(Sample(x, y), [Sample(c), Sample(np.concatenate([rng.normal(size=(20, 9)), c[4:5]]))])
    for samples, said in (
        ((Sample(x, y), []), "no capability"),
        ((Sample(x, y), [Sample(c + i + rng.normal(size=c.shape)) for i in range(10)]), "10 capabilities in 9 dimensions"),
        ((Sample(x, y[:, :5]), [Sample(c)]), "one layer"),
        ((Sample(x, y, labels), [Sample(c)]), "one class only"),
        ((Sample(x, y), [Sample(c[:5])]), "5 independent rows"),
        ((Sample(x, y), [Sample(np.zeros((20, 9)))]), "is zero"),
    ):
        with pytest.raises(ValueError, match=said):
            cross_fitted(*samples)


# -- studies --------------------------------------------------------------------------------------------------------


def basis_and_direction(rng: Rng, d: int, m: int, tau: float, power: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Noise sd (d,) with total variance 1, an orthonormal basis (d, m) that leans to large variances, and a unit direction of that tax rate."""
    variance = np.arange(1, d + 1.0) ** -power
    sd = np.sqrt(variance / variance.sum())
    c = np.linalg.qr(rng.normal(size=(d, m)) * np.sqrt(sd)[:, None])[0]
    inside = c @ rng.normal(size=m)
    outside = rng.normal(size=d) * np.sqrt(sd)
    outside -= c @ (c.T @ outside)
    v = np.sqrt(tau) * inside / np.linalg.norm(inside) + np.sqrt(1 - tau) * outside / np.linalg.norm(outside)
    return sd, c, v


def two_classes(
    rng: Rng, d: int, m: int, n: int, tau: float, kappa: float, templates: int = 0
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[IntArray, IntArray] | None]:
    """States (n, d) of two classes, a basis (d, m) and groups; kappa is noise over signal.

    With templates half of the variance is theirs, the contrast's own in part.
    """
    sd, c, v = basis_and_direction(rng, d, m, tau, 0.7)
    x, y, groups = rng.normal(size=(n, d)) * sd, rng.normal(size=(n, d)) * sd, None
    if templates:
        groups = (rng.integers(0, templates, n), rng.integers(0, templates, n))
        both, own = rng.normal(size=(2, templates, d)) * sd
        x, y = (x + both[groups[0]] + 0.7 * own[groups[0]]) / np.sqrt(2), (y + both[groups[1]]) / np.sqrt(2)
    return x + v * np.sqrt(2 / (n * kappa)), y, c, groups


def rate_study(
    rng: Rng, d: int, m: int, n: int, tau: float, kappa: float, studies: int, templates: int = 0
) -> list[tuple[TaxRate, TaxRate]]:
    """Tax rates with groups told and not told (``two_classes``)."""
    found = []
    for _ in range(studies):
        x, y, c, groups = two_classes(rng, d, m, n, tau, kappa, templates)
        told = tax_rate(x, y, c, groups)
        found.append((told, tax_rate(x, y, c) if templates else told))
    return found


def rate_summary(found: list[tuple[TaxRate, TaxRate]], tau: float) -> dict[str, float]:
    told = [t for t, _ in found if t.estimate is not None]
    row = {
        "naive": float(np.mean([t.naive for t, _ in found])),
        "identified": len(told) / len(found),
        "fieller, all": float(np.mean([t.fieller.holds(tau) for t, _ in found])),
        "groups not told": float(np.median([u.numerator / u.denominator for _, u in found])),
    }
    if told:
        estimates = np.array([t.estimate for t in told], dtype=np.float64)
        row |= {
            "mean": float(estimates.mean()),
            "sd": float(estimates.std()),
            "covers": float(np.mean([t.low <= tau <= t.high for t in told if t.low is not None and t.high is not None])),
            "above": float(np.mean([t.low > tau for t in told if t.low is not None])),
            "jackknife t": float(np.mean([t.jackknife[0] <= tau <= t.jackknife[1] for t in told if t.jackknife is not None])),
            "fieller": float(np.mean([t.fieller.holds(tau) for t in told])),
        }
    return row


def estimated(
    rng: Rng, d: int, m: int, n: int, tau: float, reliabilities: tuple[float, float]
) -> tuple[Sample, list[Sample], FloatArray, FloatArray]:
    """Samples of a safety direction and of m capabilities with these reliabilities, and the true directions (d,) and (d, m)."""
    variance = np.arange(1, d + 1.0) ** -0.7
    sd = np.sqrt(variance / variance.sum())
    c = rng.normal(size=(d, m))
    c /= np.linalg.norm(c, axis=0)
    q = np.linalg.qr(c)[0]
    inside, outside = q @ rng.normal(size=m), rng.normal(size=d)
    outside -= q @ (q.T @ outside)
    v = np.sqrt(tau) * inside / np.linalg.norm(inside) + np.sqrt(1 - tau) * outside / np.linalg.norm(outside)
    noise, rough = np.sqrt((1 / reliabilities[0] - 1) * n / 2) * sd, np.sqrt((1 / reliabilities[1] - 1) * n) * sd
    safety = Sample(v + noise * rng.normal(size=(n, d)), noise * rng.normal(size=(n, d)))
    return safety, [Sample(c[:, i] + rough * rng.normal(size=(n, d))) for i in range(m)], v, c


def cross_study(
    rng: Rng, d: int, m: int, n: int, tau: float, reliabilities: tuple[float, float], studies: int
) -> list[tuple[CrossFit, float]]:
    """Cross-fitted rates, and the true cosine with the first capability; reliabilities of safety and capabilities."""
    found = []
    for _ in range(studies):
        safety, capabilities, v, c = estimated(rng, d, m, n, tau, reliabilities)
        found.append((cross_fitted(safety, capabilities), float(c[:, 0] @ v)))
    return found


def cross_summary(found: list[tuple[CrossFit, float]], tau: float) -> dict[str, float]:
    told = [(f, b) for f, b in found if f.estimate is not None]
    estimates = np.array([f.estimate for f, _ in told], dtype=np.float64)
    return {
        "naive": float(np.mean([f.naive for f, _ in found])),
        "identified": len(told) / len(found),
        "mean": float(estimates.mean()),
        "median": float(np.median(estimates)),
        "sd": float(estimates.std()),
        "covers": float(np.mean([f.low <= tau <= f.high for f, _ in told if f.low is not None and f.high is not None])),
        "above": float(np.mean([f.low > tau for f, _ in told if f.low is not None])),
        "jackknife t": float(np.mean([f.jackknife[0] <= tau <= f.jackknife[1] for f, _ in told if f.jackknife is not None])),
        "cosine": float(np.mean([f.overlaps[0].low <= b <= f.overlaps[0].high for f, b in told])),
    }


@pytest.mark.parametrize(("m", "tau"), [(1, 0.0), (1, 0.2), (8, 0.0), (8, 0.2), (8, 0.5)])
def test_rates_are_unbiased_and_covered(m: int, tau: float) -> None:
    row = rate_summary(rate_study(np.random.default_rng(14), 64, m, 48, tau, 0.25, 160), tau)
    assert row["identified"] > 0.95
    assert row["mean"] == pytest.approx(tau, abs=0.02)
    assert row["covers"] >= 0.88
    if tau > 0.1:
        assert row["naive"] < tau - 0.02 or m == 8


def test_the_naive_rate_follows_its_formula() -> None:
    """(tau + f kappa)/(1 + kappa): .210 for tau 0, f .262, kappa 4. With Gaussian states of share f in the basis."""
    rng = np.random.default_rng(15)
    d, m, n, found = 80, 10, 32, []
    sd = np.where(np.arange(d) < m, np.sqrt(0.262 / m), np.sqrt(0.738 / (d - m)))
    v = np.zeros(d)
    v[m] = np.sqrt(2 / n / 4)
    for _ in range(200):
        found.append(tax_rate(rng.normal(size=(n, d)) * sd + v, rng.normal(size=(n, d)) * sd, np.eye(d)[:, :m]))
    naive = np.array([f.naive for f in found])
    assert naive.mean() == pytest.approx(0.210, abs=3 * float(naive.std()) / np.sqrt(200) + 0.002)
    assert np.mean([f.floor for f in found if f.floor is not None]) == pytest.approx(0.262, abs=0.005)
    assert np.mean([f.estimate is None for f in found]) > 0.99


def test_groups_that_are_not_told_bias_the_rate() -> None:
    """Ten templates carry half of the variance: told, the rate is .5 and covered; not told, it is low and its limits are far too short."""
    found = rate_study(np.random.default_rng(16), 64, 8, 120, 0.5, 0.06, 120, templates=10)
    row = rate_summary(found, 0.5)
    assert row["mean"] == pytest.approx(0.5, abs=0.02)
    assert row["covers"] >= 0.9
    assert row["groups not told"] < 0.485
    assert np.mean([u.low is not None and u.high is not None and u.low <= 0.5 <= u.high for _, u in found]) < 0.9


@pytest.mark.parametrize(("m", "tau"), [(1, 0.3), (8, 0.0), (8, 0.4)])
def test_cross_fits_are_unbiased_and_covered(m: int, tau: float) -> None:
    row = cross_summary(cross_study(np.random.default_rng(17), 128, m, 64, tau, (0.8, 0.85), 70), tau)
    assert row["identified"] > 0.97
    assert row["mean"] == pytest.approx(tau, abs=0.03)
    assert row["covers"] >= 0.88
    assert row["cosine"] >= 0.86
    assert abs(row["naive"] - tau) > 0.01
    if tau > 0:
        assert row["naive"] < tau - 0.07


def test_partial_cosines_are_covered() -> None:
    hits, estimates = partial_study(np.random.default_rng(18), 60)
    assert np.mean(hits) >= 0.88
    assert np.mean(estimates) == pytest.approx(0.5, abs=0.05)


def partial_study(rng: Rng, studies: int) -> tuple[list[bool], list[float]]:
    """rho = -.1, both tax rates .36 along three capabilities with opposite signs: the partial cosine is .5 - from conflict to synergy."""
    d, n, hits, estimates = 128, 64, [], []
    for _ in range(studies):
        q = np.linalg.qr(rng.normal(size=(d, 5)))[0]
        c = q[:, :3] @ np.linalg.cholesky(np.array([[1, 0.3, 0], [0.3, 1, 0.3], [0, 0.3, 1]])).T
        a = q[:, 0]
        rest = (q[:, 3], 0.5 * q[:, 3] + np.sqrt(0.75) * q[:, 4])
        v1, v2 = 0.6 * a + 0.8 * rest[0], -0.6 * a + 0.8 * rest[1]
        noise = 1 / np.sqrt(d)
        samples = [noisy(rng, v / np.sqrt(n) * 3, noise, n) for v in (v1, v2)]
        found = partial_cosine(*samples, [noisy(rng, c[:, i] / np.sqrt(n) * 3, noise, n, classes=False) for i in range(3)])
        assert found.estimate is not None
        assert found.low is not None
        assert found.high is not None
        hits.append(found.low <= 0.5 <= found.high)
        estimates.append(found.estimate)
    return hits, estimates


@pytest.mark.slow
@pytest.mark.parametrize(("d", "m", "n"), [(64, 1, 64), (64, 8, 32), (64, 8, 512), (256, 16, 128), (512, 16, 128)])
@pytest.mark.parametrize("tau", [0.0, 0.02, 0.1, 0.3, 0.8])
def test_rates_are_covered_everywhere(d: int, m: int, n: int, tau: float) -> None:
    row = rate_summary(rate_study(np.random.default_rng(19), d, m, n, tau, 0.25, 1500 if d < 256 else 500), tau)
    assert row["mean"] == pytest.approx(tau, abs=0.01)
    assert row["covers"] >= 0.915


@pytest.mark.slow
@pytest.mark.parametrize(("d", "m", "n"), [(64, 1, 64), (64, 8, 64), (256, 8, 64), (512, 16, 128)])
@pytest.mark.parametrize("tau", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("reliabilities", [(0.67, 0.75), (0.82, 0.82), (0.82, 0.95)])
def test_cross_fits_are_covered_everywhere(d: int, m: int, n: int, tau: float, reliabilities: tuple[float, float]) -> None:
    studies = 400 if d < 512 else 150
    row = cross_summary(cross_study(np.random.default_rng(20), d, m, n, tau, reliabilities, studies), tau)
    # a median's Monte Carlo error is 1.25 times a mean's, and at the lowest reliability half of the studies are not identified
    assert row["median"] == pytest.approx(tau, abs=0.02 + 3 * 1.25 * row["sd"] / np.sqrt(row["identified"] * studies))
    assert row["covers"] >= 0.9


# -- two safety directions, with and without capabilities --------------------------------------------------------------


def in_blocks(rng: Rng, v: FloatArray, reliability: float, blocks: int = 32) -> BlockSample:
    """A direction of this reliability, by block."""
    noise = np.sqrt(float(v @ v) * (1 / reliability - 1) / len(v) * blocks)
    return BlockSample(v + noise * rng.normal(size=(blocks, len(v))), np.ones(blocks))


@pytest.mark.parametrize("index", range(8))
def test_cosines_and_changes_without_noise(golden: Callable[[str], Any], index: int) -> None:
    case = golden("theory_cases.json")["D_partial"][index]
    rho, a, b = case["rho"], case["a"], case["b"]
    root = np.linalg.cholesky(np.array([[1, a, b], [a, 1, rho], [b, rho, 1]]))  # c, v1, v2
    c, v1, v2 = (BlockSample(np.tile(3 * x, (8, 1)), np.ones(8)) for x in root)
    alone, found = corrected_cosine(v1, v2), partial_cosine(v1, v2, [c])
    assert alone.rho is not None
    assert (alone.rho.estimate, alone.rho.low, alone.rho.high) == pytest.approx((rho, rho, rho), abs=1e-9)
    assert alone.reliabilities == pytest.approx((1.0, 1.0))
    assert alone.naive == pytest.approx(rho, abs=1e-9)
    assert found.rho is not None
    assert found.change is not None
    assert found.rho.estimate == found.cosine == pytest.approx(rho, abs=1e-9)
    assert found.change.estimate == pytest.approx(case["partial"] - rho, abs=1e-9)
    assert found.change.high - found.change.low == pytest.approx(0.0, abs=1e-9)


def test_the_cosine_alone_is_that_of_the_partial_one_and_a_mean_over_all_splits() -> None:
    rng = np.random.default_rng(21)
    x, y = rng.normal(size=(8, 6)) + 2, rng.normal(size=(8, 6)) - np.array([2, 2, 2, -2, -2, -2])
    v, w, c = BlockSample(x, np.arange(1.0, 9)), BlockSample(y, np.ones(8)), in_blocks(rng, np.eye(6)[0], 0.95, 8)
    alone, beside = corrected_cosine(v, w), partial_cosine(v, w, [c])
    assert alone.rho == beside.rho
    even = corrected_cosine(BlockSample(x, np.ones(8)), w)
    assert even.rho is not None

    def apart(s: FloatArray, t: FloatArray) -> float:
        return float(np.mean([s[i] @ t[j] for i in range(len(s)) for j in range(len(t)) if i != j]))

    assert even.rho.estimate == pytest.approx(apart(x, y) / np.sqrt(apart(x, x) * apart(y, y)))
    left_out = []
    for k in range(8):
        s, t = np.delete(x, k, axis=0), np.delete(y, k, axis=0)
        left_out.append(apart(s, t) / np.sqrt(apart(s, s) * apart(t, t)))
    assert even.rho.se == pytest.approx(np.sqrt(7 / 8 * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)))


def test_directions_that_are_noise_have_no_cosine() -> None:
    rng = np.random.default_rng(22)
    clear, weak = in_blocks(rng, np.eye(40)[0], 0.9), in_blocks(rng, np.eye(40)[1], 0.2)
    found = corrected_cosine(clear, weak)
    assert found.rho is None
    assert found.reason is not None
    assert "safety direction 2 has reliability" in found.reason
    with pytest.raises(ValueError, match="a direction is zero"):
        corrected_cosine(clear, BlockSample(np.zeros((32, 40)), np.ones(32)))
    with pytest.raises(ValueError, match="in common blocks"):
        corrected_cosine(clear, in_blocks(rng, np.eye(40)[0], 0.9, 16))


def triple_study(rng: Rng, rho: float, a: float, b: float, reliability: float, studies: int) -> list[PartialCosine]:
    """Two objectives with the cosine rho and one capability with cosines a and b to them, in 48 dimensions."""
    root = np.linalg.cholesky(np.array([[1, a, b], [a, 1, rho], [b, rho, 1]]))
    found = []
    for _ in range(studies):
        axes = np.linalg.qr(rng.normal(size=(48, 3)))[0] @ root.T
        c, v, w = (in_blocks(rng, axes[:, i], reliability) for i in range(3))
        found.append(partial_cosine(v, w, [c]))
    return found


@pytest.mark.parametrize(("rho", "a", "b"), [(-0.3, 0.6, -0.5), (-0.3, 0.5, 0.5), (0.4, 0.3, 0.0)])
def test_cosines_and_changes_are_covered(rho: float, a: float, b: float) -> None:
    found = [f for f in triple_study(np.random.default_rng(23), rho, a, b, 0.8, 80) if f.rho is not None and f.change is not None]
    change = (rho - a * b) / np.sqrt((1 - a * a) * (1 - b * b)) - rho
    assert len(found) > 70
    assert np.mean([f.rho.low <= rho <= f.rho.high for f in found if f.rho]) >= 0.88
    assert np.mean([f.change.low <= change <= f.change.high for f in found if f.change]) >= 0.88
    assert np.mean([f.rho.estimate for f in found if f.rho]) == pytest.approx(rho, abs=0.03)
    assert all((f.rho.p < 0.05) == (not f.rho.low <= 0 <= f.rho.high) for f in found if f.rho)


@pytest.mark.slow
@pytest.mark.parametrize("reliability", [0.75, 0.9])
@pytest.mark.parametrize(
    ("rho", "a", "b"), [(-0.3, 0.6, -0.5), (-0.3, 0.6, -0.7), (-0.3, 0.5, 0.5), (0.0, 0.5, 0.5), (0.0, 0.0, 0.0), (0.9, 0.2, 0.2)]
)
def test_cosines_and_changes_are_covered_everywhere(rho: float, a: float, b: float, reliability: float) -> None:
    study = triple_study(np.random.default_rng(24), rho, a, b, reliability, 400)
    found = [(f.rho, f.change) for f in study if f.rho is not None and f.change is not None]
    change = (rho - a * b) / np.sqrt((1 - a * a) * (1 - b * b)) - rho
    assert len(found) > 100
    assert np.mean([one.low <= rho <= one.high for one, _ in found]) >= 0.91
    assert np.mean([one.low <= change <= one.high for _, one in found]) >= 0.91
