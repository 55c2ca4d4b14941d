"""What must hold for any data: signs, order, monotonicity, agreement between interval and test."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from aligntax.stats import resample
from aligntax.stats.average import mean_over_tasks
from aligntax.stats.clusters import cr_variance
from aligntax.stats.mcnemar import mcnemar_exact_p
from aligntax.stats.moments import correlation, sample_variance
from aligntax.stats.multiplicity import benjamini_hochberg, holm
from aligntax.stats.paired import PairedChange, critical_value, equivalence_p, noninferiority_p, p_value, paired_change
from aligntax.stats.planning import sources_needed
from aligntax.stats.tango import tango_interval, tango_statistic

flips = st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0]), min_size=2, max_size=60)
graded = st.lists(st.integers(-8, 8).map(lambda k: k / 8), min_size=2, max_size=60)


def codes_for(d: list[float], seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).integers(0, max(2, len(d) // 3), size=len(d))
    return np.unique(found, return_inverse=True)[1]


def limits(found: PairedChange) -> tuple[float, float]:
    assert found.test is not None
    return found.test.interval(0.95)


@given(flips, st.integers(0, 5))
@settings(max_examples=150, deadline=None)
def test_swapping_the_arms_turns_every_sign(d: list[float], seed: int) -> None:
    x = np.array(d)
    for codes in (None, codes_for(d, seed)):
        a, b = paired_change(x, codes, binary=True), paired_change(-x, codes, binary=True)
        assert a.change == -b.change
        assert (a.lost, a.gained) == (b.gained, b.lost)
        if a.test is not None and b.test is not None:
            (low, high), (other_low, other_high) = limits(a), limits(b)
            assert low == approx(-other_high, abs=1e-12)
            assert high == approx(-other_low, abs=1e-12)
            assert p_value(a.test) == approx(p_value(b.test), rel=1e-9)


@given(graded, st.integers(0, 5), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_row_order_does_not_matter_to_the_last_bit(d: list[float], seed: int, random: object) -> None:
    x, codes = np.array(d) / 3.0, codes_for(d, seed)
    order = list(range(len(d)))
    random.shuffle(order)  # type: ignore[attr-defined]
    for scale in (1.0, None):
        assert paired_change(x, None, binary=False, scale=scale).change == paired_change(x[order], None, binary=False, scale=scale).change
        a, b = paired_change(x, codes, binary=False, scale=scale), paired_change(x[order], codes[order], binary=False, scale=scale)
        assert (a.change, a.se, a.design_effect, a.df) == (b.change, b.se, b.design_effect, b.df)
        if a.test is not None:
            assert limits(a) == limits(b)


@given(flips)
@settings(max_examples=100, deadline=None)
def test_unchanged_items_shrink_the_change(d: list[float]) -> None:
    x = np.array(d)
    more = np.concatenate([x, np.zeros(10)])
    assert abs(paired_change(more, binary=True).change) <= abs(paired_change(x, binary=True).change)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60), st.floats(0.6, 0.999))
@settings(max_examples=200, deadline=None)
def test_the_interval_is_the_inversion_of_the_test(lost: int, gained: int, same: int, level: float) -> None:
    n = lost + gained + same
    if n == 0:
        return
    z = critical_value(level, None)
    low, high = tango_interval(lost, gained, n, z)
    assert -1 <= low <= (gained - lost) / n <= high <= 1
    inside = [low + (high - low) * f for f in (0.001, 0.5, 0.999)]
    assert all(abs(tango_statistic(delta, lost, gained, n)) <= z * (1 + 1e-6) for delta in inside)
    for outside in (low - 1e-6, high + 1e-6):
        if -1 < outside < 1:
            assert abs(tango_statistic(outside, lost, gained, n)) >= z * (1 - 1e-6)


@given(flips)
@settings(max_examples=100, deadline=None)
def test_interval_p_value_and_margin_test_never_disagree(d: list[float]) -> None:
    found = paired_change(np.array(d), binary=True)
    assert found.test is not None
    low, high = limits(found)
    excludes_zero = low > 0 or high < 0
    assert excludes_zero == (p_value(found.test) < 0.05) or min(abs(low), abs(high)) < 1e-9
    for margin in (0.02, 0.1, 0.3):
        if abs(low + margin) > 1e-9:
            assert (noninferiority_p(found.test, margin) < 0.025) == (low > -margin)
        assert equivalence_p(found.test, margin) >= noninferiority_p(found.test, margin)


@pytest.mark.parametrize("n", [2, 3, 10, 500])
def test_no_flips_never_give_an_interval_of_width_zero(n: int) -> None:
    for codes in (None, np.arange(n) % 2 if n > 2 else None):
        found = paired_change(np.zeros(n), codes, binary=True)
        low, high = limits(found)
        assert low < 0 < high


def test_clusters_of_one_item_are_no_clusters() -> None:
    d = np.array([1.0, 0, 0, -1, 0, 1, 0, 0])
    assert paired_change(d, np.arange(8), binary=True) == paired_change(d, binary=True)


def test_equal_sizes_make_cr2_equal_to_cr1() -> None:
    d, codes = np.random.default_rng(0).normal(size=30), np.arange(30) % 6
    assert cr_variance(d, codes, "CR2") == approx(cr_variance(d, codes, "CR1"))


def test_few_flip_clusters_floor_the_design_effect() -> None:
    # Two items of one cluster move in opposite directions: the clustered variance is 0 there.
    d, codes = np.zeros(40), np.arange(40) % 10
    d[0], d[10] = 1.0, -1.0
    found = paired_change(d, codes, binary=True)
    assert found.clusters is not None
    assert found.clusters.flip_clusters == 1
    assert found.design_effect == 1.0


@pytest.mark.parametrize(
    ("d", "codes", "reason"),
    [
        (np.array([1.0]), None, "one item: its change has no measurable error"),
        (np.array([1.0, 0.0, -1.0]), np.zeros(3, dtype=np.int64), "one source: no interval for other sources"),
    ],
)
def test_no_interval_where_none_can_be_had(d: np.ndarray, codes: np.ndarray | None, reason: str) -> None:
    found = paired_change(d, codes, binary=True)
    assert found.test is None
    assert found.method == "none"
    assert found.reason == reason


def test_unbounded_scores_that_never_vary_have_no_interval() -> None:
    found = paired_change(np.full(12, 0.4), binary=False, scale=None)
    assert found.test is None
    assert found.reason.startswith("every difference is the same")


def test_a_known_scale_only_rescales() -> None:
    d = np.array([0.5, -0.25, 0.0, 0.0, 0.75, 0.0, 0.25, 0.0])
    unit, ten = paired_change(d, binary=False), paired_change(10 * d, binary=False, scale=10.0)
    assert ten.se == approx(10 * (unit.se or 0))
    assert limits(ten) == approx([10 * x for x in limits(unit)])
    assert unit.test is not None
    assert ten.test is not None
    assert noninferiority_p(ten.test, 1.0) == approx(noninferiority_p(unit.test, 0.1))


def test_differences_beyond_the_scale_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond the scale"):
        paired_change(np.array([2.0, 0.0]), binary=False, scale=1.0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_are_larger_and_keep_their_order(p: list[float]) -> None:
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert all(a >= q - 1e-12 for a, q in zip(adjusted, p, strict=True))
        assert [adjusted[i] for i in np.argsort(p, kind="stable")] == sorted(adjusted)
        assert max(adjusted) <= 1


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_symmetric(lost: int, gained: int) -> None:
    assert mcnemar_exact_p(lost, gained) == mcnemar_exact_p(gained, lost)


def test_bootstrap_by_item_and_by_cluster_centre_on_the_mean() -> None:
    rng = np.random.default_rng(1)
    d, codes = rng.choice([-1.0, 0.0, 1.0], size=400, p=[0.1, 0.8, 0.1]), np.arange(400) // 10
    for groups in (None, codes):
        means = resample.bootstrap_means(d, groups, 4000, np.random.default_rng(5))
        assert means.mean() == approx(d.mean(), abs=0.003)
        se = np.sqrt(d.var() / 400) if groups is None else np.sqrt(cr_variance(d, codes, "CR0"))
        assert means.std() == approx(se, rel=0.06)


def test_the_bootstrap_is_seeded() -> None:
    d = np.array([0.1, 0.4, -0.2, 0.0, 0.9])
    first, again = (resample.bootstrap_means(d, None, 50, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(first, again)


def test_wild_bootstrap_needs_a_generator_beyond_enumeration() -> None:
    d, codes = np.random.default_rng(0).normal(size=60), np.arange(60) % 20
    with pytest.raises(ValueError, match="a generator is needed"):
        resample.wild_cluster_p(d, codes)
    p = resample.wild_cluster_p(d, codes, rng=np.random.default_rng(1))
    t_test = paired_change(d, codes, binary=False, scale=None)
    assert t_test.test is not None
    assert p == approx(p_value(t_test.test), abs=0.08)


def test_sign_flip_cannot_reach_five_percent_with_five_clusters() -> None:
    d, codes = np.concatenate([np.full(4, 0.9), np.full(16, 0.8)]), np.arange(20) % 5
    found = resample.sign_flip(d, codes)
    assert found.p == 1 / 16
    assert (found.low, found.high) == (-np.inf, np.inf)


@given(st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=40))
def test_moments_agree_with_numpy(x: list[float]) -> None:
    values = np.array(x)
    assert sample_variance(values) == approx(values.var(ddof=1), abs=1e-12)
    assert sample_variance(values / 3) == approx((values / 3).var(ddof=1), abs=1e-12)
    other = np.arange(len(x)) % 3 * 1.0
    r = correlation(values, other)
    if values.std() == 0 or other.std() == 0:
        assert r is None
    else:
        assert r == approx(np.corrcoef(values, other)[0, 1], abs=1e-9)


def test_mean_over_tasks_of_equal_tasks_is_their_mean() -> None:
    rng = np.random.default_rng(4)
    parts = [paired_change(rng.choice([-1.0, 0.0, 1.0], size=200, p=[0.1, 0.85, 0.05]), binary=True) for _ in range(4)]
    found = mean_over_tasks(parts)
    assert found.change == approx(np.mean([p.change for p in parts]))
    # Each task's error is at least what its own interval says, a few percent more than its estimate at this size.
    stratified = np.sqrt(sum((p.se or 0) ** 2 for p in parts)) / 4
    assert stratified <= (found.se or 0) <= 1.06 * stratified
    low, high = limits(found)
    assert low < found.change < high
    assert (high - low) / 2 == approx(1.96 * (found.se or 0), rel=0.03)


def test_mean_over_tasks_without_a_flip_is_not_certain() -> None:
    parts = [paired_change(np.zeros(n), binary=True) for n in (50, 500)]
    low, high = limits(mean_over_tasks(parts))
    # The tasks' own limits, z^2/(n + z^2), joined: the small task keeps the average from being called steady.
    z2 = critical_value(0.95, None) ** 2
    assert high == approx(np.hypot(z2 / (50 + z2), z2 / (500 + z2)) / 2, rel=1e-9)
    assert low == approx(-high)


def test_mean_over_tasks_of_unbounded_scores_has_satterthwaite_df() -> None:
    rng = np.random.default_rng(8)
    parts = [paired_change(rng.normal(size=10), binary=False, scale=None) for _ in range(3)]
    found = mean_over_tasks(parts, None)
    v = np.array([(p.se or 0) ** 2 / 9 for p in parts])
    assert found.df == approx(v.sum() ** 2 / np.sum(v**2 / 9))
    assert found.method == "t"


def test_an_average_needs_two_tasks_and_intervals() -> None:
    one = paired_change(np.array([1.0, 0.0, 0.0]), binary=True)
    with pytest.raises(ValueError, match="at least two tasks"):
        mean_over_tasks([one])
    assert mean_over_tasks([one, paired_change(np.array([1.0]), binary=True)]).test is None


def test_more_items_help_when_sources_do_not_limit() -> None:
    assert sources_needed(-0.1, 1.0, 0.1, 10, 0.01, 2.0) is None
    assert sources_needed(0.0001, 1.0, 0.1, 10, 0.5, 2.0) is None
    # h = 2 sqrt(.04 * 1 * .1) = .1265; 10 * (.1265 / .01)^2 = 1600 sources.
    assert sources_needed(0.04, 1.0, 0.1, 10, 0.01, 2.0) == approx(1600)


def test_a_small_task_without_flips_keeps_an_average_open() -> None:
    """Three large tasks that never move and a small one: the small one alone leaves 11.4/4 points open."""
    parts = [paired_change(np.zeros(n), binary=True) for n in (5000, 5000, 5000, 30)]
    low, _ = limits(mean_over_tasks(parts))
    assert low < -0.028


def test_rounding_noise_is_no_change() -> None:
    d = np.full(50, 5.6e-17)
    d[:3] = -0.5
    found = paired_change(d, np.arange(50) % 10, binary=False)
    assert found.items_changed == 3
    assert found.clusters is not None
    assert found.clusters.flip_clusters == 3
