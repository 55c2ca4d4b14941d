"""What chance makes of the tax rate: the bound, the exact law, tight frames, and random subspaces."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from aligntax.stats.overlap import principal, tax_rate
from aligntax.stats.packing import (
    chance_corrected,
    coherence,
    isotropic_null,
    low_rank_energy,
    packing_bound,
    packing_law,
    proportional_limit,
    random_coherence,
    tight_residual,
    wachter_edges,
    welch_mean,
)


@pytest.fixture
def known(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("theory_cases.json"))


def with_tau0(d: int, tau0: float) -> tuple[np.ndarray, np.ndarray]:
    """A safety direction and one intrinsic capability with that overlap."""
    v, c = np.zeros(d), np.zeros(d)
    v[0], c[0], c[1] = 1, sqrt(tau0), sqrt(1 - tau0)
    return v, c


def follows(values: np.ndarray, below: Callable[[np.ndarray], np.ndarray]) -> bool:
    """Kolmogorov and Smirnov's test at 1 %."""
    n = len(values)
    steps = np.arange(n + 1) / n
    at = below(np.sort(values))
    return bool(max(np.max(steps[1:] - at), np.max(at - steps[:-1])) < 1.63 / sqrt(n))


def test_known_bounds() -> None:
    assert packing_bound(0.25, 2, 0.05, 0.5, 1) == approx(0.1117647059, abs=1e-9)
    assert packing_bound(0, 10, 0.02) == approx(0.005, abs=1e-9)
    assert packing_bound(0.3, 3, 0.01, 0.35, 2) == approx(0.0310526316, abs=1e-9)


def test_known_laws() -> None:
    for d, incidental, tau0, mean in (
        (512, 20, 0.12, 0.1544422701),
        (1024, 20, 0.12, 0.1372043011),
        (4096, 20, 0.12, 0.1242979243),
        (4096, 64, 0.3, 0.3109401709),
    ):
        assert packing_law(tau0, incidental, d, 1).mean == approx(mean, abs=1e-9)
    for d, m, q95 in ((768, 1, 0.0049991480), (768, 8, 0.0201192075), (768, 64, 0.1076755469), (4096, 1, 0.0009377597)):
        assert isotropic_null(d, m).quantile(0.95) == approx(q95, abs=1e-9)
    assert low_rank_energy(8, 4096) == 0.001953125
    assert [welch_mean(256, d) for d in (32, 64, 128, 256, 300)] == approx([0.0274509804, 0.0117647059, 0.0039215686, 0, 0], abs=1e-9)
    assert wachter_edges(1000, 20, 20)[1] == approx(0.0784, abs=1e-9)
    assert wachter_edges(2048, 5, 32)[1] == approx(0.03023, abs=5e-6)


def test_the_golden_cases(known: dict[str, Any]) -> None:
    for case in known["G_bound"]:
        assert case["m"] == case["mprime"] + case["I"]
        assert packing_bound(case["tau0"], case["mprime"], case["mu"], case["gbar"], case["I"]) == approx(case["bound"], abs=1e-9)
    for case in known["G_expect"]:
        assert packing_law(case["tau0"], case["mp"], case["d"], case["I"]).mean == approx(case["E"], abs=1e-9)
    for name, case in known["F_null"].items():
        d, m = (int(part.split("=")[1]) for part in name.split(","))
        law = isotropic_null(d, m)
        assert (law.mean, law.sd) == approx((case["mean"], case["sd"]), abs=1e-9)
        assert law.quantile([0.95, 0.99]) == approx([case["q95"], case["q99"]], abs=1e-9)


def test_random_packing_follows_the_law() -> None:
    """64 dimensions, one intrinsic capability of tau0 = .3 and six at random: mean .366667, sd .03604."""
    rng, reps = np.random.default_rng(0), 1500
    v, c = with_tau0(64, 0.3)
    law = packing_law(0.3, 6, 64, 1)
    assert (law.mean, law.sd) == approx((0.366667, 0.03604), abs=5e-6)
    found = np.array([tax_rate(v, np.column_stack([c, rng.normal(size=(64, 6))])) for _ in range(reps)])
    assert found.mean() == approx(law.mean, abs=3 * law.sd / sqrt(reps))
    assert found.std() == approx(law.sd, abs=3 * law.sd / sqrt(2 * reps))
    assert follows(found, law.below)
    assert np.all(found >= 0.3)


def test_moments_quantiles_and_probabilities_agree() -> None:
    law = packing_law(0.2, 7, 50, 2)
    grid = law.quantile((np.arange(20_000) + 0.5) / 20_000)
    assert law.mean == approx(grid.mean(), abs=1e-6)
    assert law.sd == approx(grid.std(), rel=1e-3)
    p = np.array([0.01, 0.5, 0.99])
    assert law.below(law.quantile(p)) == approx(p, abs=1e-12)
    assert law.above(law.quantile(p)) == approx(1 - p, abs=1e-12)
    assert law.below([-1, 0.1, 1, 2]).tolist() == [0, 0, 1, 1]
    assert law.above([-1, 0.1, 1, 2]).tolist() == [1, 1, 0, 0]
    # Two directions in four dimensions: Beta(1, 1), the uniform law.
    assert isotropic_null(4, 2).quantile([0.1, 0.7]) == approx([0.1, 0.7], abs=1e-12)


@pytest.mark.parametrize(
    ("law", "value"),
    [(packing_law(0.3, 0, 10, 1), 0.3), (packing_law(0.3, 9, 10, 1), 1), (packing_law(1, 3, 10, 1), 1), (isotropic_null(5, 8), 1)],
)
def test_where_nothing_is_left_to_chance(law: Any, value: float) -> None:
    assert (law.mean, law.sd) == approx((value, 0), abs=1e-12)
    assert law.quantile([0, 0.5, 1]) == approx([value] * 3)
    assert law.below([value - 0.1, value, value + 0.1]).tolist() == [0, 1, 1]
    assert law.above([value - 0.1, value, value + 0.1]).tolist() == [1, 1, 0]


def test_chance_is_taken_off() -> None:
    assert chance_corrected([8 / 64, 1, 0], 8, 64) == approx([0, 1, -8 / 56])
    rng, reps = np.random.default_rng(1), 800
    found = chance_corrected([tax_rate(rng.normal(size=24), rng.normal(size=(24, 5))) for _ in range(reps)], 5, 24)
    assert found.mean() == approx(0, abs=3 * found.std() / sqrt(reps))
    with pytest.raises(ValueError, match="64 capability directions can span all 64 dimensions"):
        chance_corrected(0.5, 64, 64)


def test_capabilities_that_grow_with_width_keep_their_tax() -> None:
    laws = [packing_law(0.2, d // 4, d, 1) for d in (64, 1024, 65536)]
    limit = proportional_limit(0.2, 0.25)
    assert limit == approx(0.4)
    assert [abs(law.mean - limit) for law in laws] == approx([0.8 / 4 / (law.room) for law in laws], rel=1e-6)
    assert laws[2].sd < laws[1].sd < laws[0].sd
    assert laws[2].sd == approx(0.8 * sqrt(2 * 0.25 * 0.75 / 65536), rel=1e-3)
    fixed = [packing_law(0.2, 16, d, 1).mean - 0.2 for d in (1025, 2049)]
    assert fixed[0] == approx(2 * fixed[1])
    with pytest.raises(ValueError, match="lie between 0 and 1"):
        proportional_limit(0.2, 1.5)


def test_low_rank_updates() -> None:
    """A random subspace holds r/d of a direction; its worst unit shift moves the capability by sqrt(r/d), a random one by 1/sqrt(d)."""
    rng, d, r, reps = np.random.default_rng(2), 256, 8, 600
    bases = np.linalg.qr(rng.normal(size=(reps, d, r)))[0]
    inside = bases[:, 0, :]  # what each basis holds of the first axis
    energy = np.sum(inside**2, axis=1)
    assert energy.mean() == approx(low_rank_energy(r, d), abs=3 * energy.std() / sqrt(reps))
    assert follows(energy, isotropic_null(d, r).below)
    u = rng.normal(size=(reps, r))
    moved = np.sum(inside * u, axis=1) / np.linalg.norm(u, axis=1)
    assert np.mean(moved**2) == approx(1 / d, abs=3 * np.std(moved**2) / sqrt(reps))


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_directions_exceed_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    d, intrinsic, incidental = int(rng.integers(60, 400)), int(rng.integers(0, 3)), int(rng.integers(0, 4))
    if intrinsic + incidental == 0:
        return
    c = rng.normal(size=(d, intrinsic + incidental))
    v = rng.normal(size=d) / sqrt(d) + c[:, :intrinsic] @ rng.uniform(-1, 1, intrinsic) / sqrt(d)
    found = coherence(v, c, np.arange(intrinsic))
    if (intrinsic + incidental) * found.mu >= 1:
        with pytest.raises(ValueError, match="the bound needs m mu below 1"):
            _ = found.bound
        return
    assert abs(tax_rate(v, c) - found.sum_of_squares) <= found.bound + 1e-12
    assert intrinsic or found.sum_of_squares == 0
    # With overlaps that the data would force at other values, the deviation counts.
    if intrinsic:
        forced = (c[:, :intrinsic] / np.linalg.norm(c[:, :intrinsic], axis=0)).T @ (v / np.linalg.norm(v)) + 0.02
        moved = coherence(v, c, np.arange(intrinsic), np.clip(forced, -1, 1))
        if (intrinsic + incidental) * moved.mu < 1:
            assert abs(tax_rate(v, c) - moved.sum_of_squares) <= moved.bound + 1e-12


def test_coherence_by_hand() -> None:
    c = np.array([[1, 0.6, 0], [0, 0.8, 0], [0, 0, 1]])
    found = coherence([0.5, 0.5, sqrt(0.5)], c, [0, 2], [0.45, 0.7])
    assert found.between == approx(0.6)
    assert found.incidental == approx(0.7)
    assert found.deviation == approx(0.05)
    assert found.mu == approx(0.7)
    assert found.mean_overlap == approx(0.575)
    assert found.sum_of_squares == approx(0.45**2 + 0.49)
    assert (found.intrinsic_count, found.incidental_count) == (2, 1)
    assert coherence([1.0, 0], [0.0, 1]).mu == 0
    with pytest.raises(ValueError, match="one per intrinsic capability"):
        coherence([0.5, 0.5, sqrt(0.5)], c, [0, 2], [0.45])


def test_coherence_of_random_directions() -> None:
    """The largest |cosine| of 40 directions in 100 dimensions: half of the draws lie above its typical value."""
    rng, reps = np.random.default_rng(3), 400
    x = rng.normal(size=(reps, 40, 100))
    x /= np.linalg.norm(x, axis=2, keepdims=True)
    gram = np.abs(x @ x.transpose(0, 2, 1)) * (1 - np.eye(40))
    above = np.mean(gram.max(axis=(1, 2)) > random_coherence(40, 100))
    assert above == approx(0.5, abs=3 * 0.5 / sqrt(reps))
    # Two directions: in the plane half of them lie within 45 degrees of a line, in space |cosine| is uniform.
    assert [random_coherence(2, d) for d in (2, 3)] == approx([sqrt(0.5), 0.5])
    # It falls like sqrt(log/d), so the bound's linear terms do, not like log/d.
    assert random_coherence(40, 4000) / random_coherence(40, 1000) == approx(0.5, rel=0.01)


def tight_frame(n: int, d: int, seed: int) -> np.ndarray:
    """(d, n) directions with equal mean cos^2 to every vector, by alternating between tightness and length 1."""
    f = np.random.default_rng(seed).normal(size=(d, n))
    for _ in range(200):
        left, _, right = np.linalg.svd(f, full_matrices=False)
        f = left @ right * sqrt(n / d)
        f /= np.linalg.norm(f, axis=0)
    return f


def test_tight_frames_meet_the_welch_bound() -> None:
    n, d = 60, 40
    f = tight_frame(n, d, 4)
    gram = f.T @ f
    assert np.sum(gram**2) - n == approx(n * (n - 1) * welch_mean(n, d), rel=1e-6)
    loose = np.random.default_rng(5).normal(size=(d, n))
    loose /= np.linalg.norm(loose, axis=0)
    assert np.sum((loose.T @ loose) ** 2) - n > n * (n - 1) * welch_mean(n, d)
    assert np.max(np.abs(gram - np.eye(n))) >= sqrt(welch_mean(n, d))
    # What is left of a safety direction beside its two closest: the mean cos^2 times length^2 over all others, exactly.
    forced, rest = np.split(np.argsort(-np.abs(gram[0]))[1:], [2])
    left = f[:, 0] - f[:, forced] @ np.linalg.lstsq(f[:, forced], f[:, 0], rcond=None)[0]
    tau0 = tax_rate(f[:, 0], f[:, forced])
    assert np.mean((f[:, rest].T @ left) ** 2) == approx(tight_residual(tau0, 1, d, n, 2), rel=1e-6)


@pytest.mark.parametrize("intrinsic", [0, 1])
def test_what_tight_packing_leaves(intrinsic: int) -> None:
    """First order: within 6 % here, while random packing is a third higher. A safety direction outside the frame meets the random mean."""
    n, d, incidental, rng = 128, 48, 4, np.random.default_rng(6)
    f = tight_frame(n, d, 7)
    gram, found, expected = f.T @ f, [], []
    for i in rng.integers(0, n, 300):
        order = np.argsort(-np.abs(gram[i]))  # the first is itself; the next overlaps most
        forced, rest = order[1 : 1 + intrinsic], order[1 + intrinsic :]
        tau0 = float(np.sum(gram[i, forced] ** 2))
        drawn = rng.choice(rest, incidental, replace=False)
        found.append(tax_rate(f[:, i], f[:, np.append(forced, drawn)]) - tau0)
        expected.append(tight_residual(tau0, incidental, d, n, intrinsic))
    assert np.mean(found) == approx(np.mean(expected), rel=0.06 + 3 * np.std(found) / np.mean(found) / sqrt(300))
    assert np.mean(found) < 0.85 * incidental / d
    outside = [tax_rate(rng.normal(size=d), f[:, rng.choice(n, incidental, replace=False)]) for _ in range(300)]
    assert np.mean(outside) == approx(incidental / d, abs=3 * np.std(outside) / sqrt(300))


def test_tight_residual_at_its_ends() -> None:
    assert tight_residual(0, 8, 64, 256) == approx(8 * (256 - 64) / (64 * 255))
    assert tight_residual(0, 8, 256, 256) == 0
    assert tight_residual(0, 0, 256, 256) == 0
    assert tight_residual(0.0, 8, 1000, 10**7) == approx(8 / 1000, rel=1e-3)
    with pytest.raises(ValueError, match="a tight frame needs as many directions as dimensions"):
        tight_residual(0, 3, 10, 8)
    with pytest.raises(ValueError, match="and is 0 without intrinsic capabilities"):
        tight_residual(0.3, 3, 10, 80)


def test_random_subspaces() -> None:
    rng, reps = np.random.default_rng(8), 12
    d, k, m = 600, 30, 50
    found = [principal(rng.normal(size=(d, k)), rng.normal(size=(d, m))) for _ in range(reps)]
    means, worst = np.array([p.mean_tax for p in found]), np.array([p.worst_tax for p in found])
    assert means.mean() == approx(m / d, abs=3 * means.std() / sqrt(reps))
    low, high = wachter_edges(d, k, m)
    assert 0.92 * high < worst.mean() < high  # the edge of a large space; at this size the largest still lies below it
    assert worst.mean() > 2.5 * m / d
    assert low < np.mean([p.taxes.min() for p in found]) < 2 * low + 0.01
    assert wachter_edges(10, 4, 6)[1] == wachter_edges(10, 7, 6)[1] == 1
    assert wachter_edges(10, 1, 3) == approx(((sqrt(7) - sqrt(27)) ** 2 / 100, (sqrt(7) + sqrt(27)) ** 2 / 100))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: packing_bound(0.25, 8, 0.2, 0.5, 1), "the bound needs m mu below 1; 9 capabilities at a coherence of 0.2 make 1.8"),
        (lambda: packing_bound(0.25, 8, 0.01), "without intrinsic capabilities tau0 and the mean overlap are 0"),
        (lambda: packing_bound(0, 2, -0.1), "tau0, mu and the mean overlap are 0 or more"),
        (lambda: packing_bound(0, -2, 0.1), "incidental capabilities are counted: a whole number of at least 0, found -2"),
        (lambda: packing_law(0.3, 3, 10), "without intrinsic capabilities tau0 is 0; found 0.3"),
        (lambda: packing_law(1.3, 3, 10, 1), "tau0 is a tax rate between 0 and 1; found 1.3"),
        (lambda: packing_law(0.3, 3, 10, 10), "10 intrinsic directions leave no room in 10 dimensions"),
        (lambda: isotropic_null(0, 3), "dimensions are counted: a whole number of at least 1, found 0"),
        (lambda: isotropic_null(10, 3).quantile(1.5), "shares between 0 and 1"),
        (lambda: isotropic_null(10, 3).above(np.nan), "tax rates must be finite numbers"),
        (lambda: low_rank_energy(12, 8), "a subspace of rank 12 does not fit into 8 dimensions"),
        (lambda: wachter_edges(8, 9, 2), "subspaces of 9 and 2 dimensions do not fit into 8"),
        (lambda: welch_mean(1, 2), "directions are counted: a whole number of at least 2"),
    ],
)
def test_what_is_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
