"""Quantiles of paired times, medians of pairs, and what a change of time is made of: known answers, and simulations that the intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta, binom, norm

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.quantiles import (
    CONFIDENCES,
    Parts,
    QuantileChange,
    confidence_at_most,
    decomposed,
    items_needed,
    latency_details,
    limits_at,
    median_interval,
    quantile_changes,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("n", "level", "rank"),
    # P(Binomial(n, 1/2) < k) by hand: 2^-5 = .03125 > .025 > 2^-6; 11/1024 = .0107 <= .025 < 56/1024; 1/1024 <= .005 < 11/1024;
    # n = 20: (1 + 20 + 190 + 1140 + 4845)/2^20 = .0059, with 15504 more .0207, with 38760 more .0577.
    [(5, 0.95, 0), (6, 0.95, 1), (10, 0.95, 2), (10, 0.99, 1), (20, 0.95, 6), (20, 0.9, 6), (20, 0.99, 4)],
)
def test_ranks_of_the_sign_test(n: int, level: float, rank: int) -> None:
    x = rng(1).permutation(np.arange(1.0, n + 1))
    assert median_interval(x, None, level=level) == ((rank, n + 1 - rank) if rank else None)


def test_it_is_the_inversion_of_the_sign_test() -> None:
    """Just inside the limits the two-sided binomial test does not reject, just outside it does."""
    from scipy.stats import binomtest

    x = rng(2).lognormal(size=37)
    found = median_interval(x, None, level=0.95)
    assert found is not None
    for limit, inwards in zip(found, (1, -1), strict=True):
        for step, rejected in ((1e-9, False), (-1e-9, True)):
            above = int((x > limit + inwards * step).sum())
            assert (binomtest(above, 37).pvalue < 0.05) == rejected


def test_unpaired_and_paired_medians_may_disagree() -> None:
    """By hand: most prompts get slower by 1, and two that were slow become fast."""
    base = np.array([1.0, 2, 3, 4, 5, 20, 30])
    cand = np.array([2.0, 3, 4, 5, 6, 1, 1])
    found = latency_details(base, cand, None, 0.95)
    assert (found["p50_baseline"], found["p50_candidate"], found["p50_change"]) == (4.0, 3.0, -1.0)
    assert found["median_change"] == 1.0
    assert found["median_change_ci"] == [-29.0, 1.0]
    assert found["median_ratio"] == 1.25  # of 2, 3/2, 4/3, 5/4, 6/5, 1/20, 1/30
    assert found["p50_change_ci"] is None
    assert found["p50_items_needed"] == 10


def test_what_a_few_items_cannot_say_is_not_said() -> None:
    base = rng(3).lognormal(size=15)
    found = latency_details(base, 2 * base, None, 0.95)
    assert found["median_ratio"] == 2.0
    assert found["median_ratio_ci"] == [2.0, 2.0]
    assert found["p50_change"] == pytest.approx(np.median(base))
    assert isinstance(found["p50_change_ci"], list)
    for name, needed in (("p95", 72), ("p99", 368)):
        assert found[f"{name}_baseline"] is found[f"{name}_candidate"] is found[f"{name}_change"] is found[f"{name}_change_ci"] is None
        assert found[f"{name}_items_needed"] == needed
    enough = rng(4).lognormal(size=368)
    full = latency_details(enough, 2 * enough, None, 0.95)
    assert full["p99_change"] == pytest.approx(np.quantile(enough, 0.99))
    assert all(full[f"{name}_change_ci"] for name in ("p50", "p95", "p99"))
    assert not [key for key in full if key.endswith("needed")]
    # .95^72 = .02489 <= .025 < .95^71 = .02620; .99^368 = .02476 <= .025 < .99^367 = .02501.
    assert [items_needed(q, 0.95) for q in (0.5, 0.95, 0.99)] == [10, 72, 368]
    assert [items_needed(q, 0.99) for q in (0.5, 0.95, 0.99)] == [10, 104, 528]
    for n, told in ((71, False), (72, True)):
        some = rng(4).lognormal(size=n)
        assert isinstance(latency_details(some, 2 * some, None, 0.95)["p95_change_ci"], list) is told


def test_values_that_make_no_ratio() -> None:
    found = latency_details(np.array([0.0, 4.0]), np.array([1.0, 2.0]), None, 0.95)
    assert (found["median_ratio"], found["median_ratio_ci"]) == (None, None)
    for base, cand in (([], []), ([1.0], [1.0, 2.0]), ([-1.0], [1.0]), ([1.0], [np.nan])):
        with pytest.raises(ValueError, match=r"two arms over the same items|finite and not below 0"):
            latency_details(np.array(base), np.array(cand), None, 0.95)


def p95(base: FloatArray, cand: FloatArray, codes: IntArray | None = None, level: float = 0.95) -> QuantileChange:
    return quantile_changes(base, cand, codes, level=level)[1]


@pytest.mark.parametrize(("n", "q", "place"), [(20, 0.5, 0), (72, 0.95, 1), (400, 0.99, 2)])
def test_beside_an_arm_that_never_varies_it_is_the_other_arms_interval(n: int, q: float, place: int) -> None:
    """The values are their ranks: the limits are ranks k with P(Beta(k, n + 1 - k) <= q) = .975 and .025 (Hutson 1999), within one rank inside those
    of the binomial test, for which P(Bin(n, q) >= k) >= .975 and P(Bin(n, q) >= k) <= .025."""
    x = rng(5).permutation(np.arange(1.0, n + 1))
    found = quantile_changes(np.ones(n), x, None, level=0.95)[place].interval
    assert found is not None
    low, high = (1 + limit for limit in found)
    assert [float(beta.cdf(q, k, n + 1 - k)) for k in (low, high)] == pytest.approx([0.975, 0.025], rel=2e-3)
    k = np.arange(1, n + 1)
    exact = k[binom.sf(k - 1, n, q) >= 0.975].max(), k[binom.sf(k - 1, n, q) <= 0.025].min()
    assert exact[0] <= low <= exact[0] + 1
    assert exact[1] - 1 <= high <= exact[1] + 1e-9
    mirrored = quantile_changes(x, np.ones(n), None, level=0.95)[place].interval
    assert mirrored == pytest.approx((-found[1], -found[0]))


def test_the_change_of_a_multiple_is_the_interval_of_the_one() -> None:
    base = rng(6).lognormal(size=90)
    alone, doubled = p95(np.zeros(90), base), p95(base, 2 * base)
    assert doubled.interval == pytest.approx(alone.interval, rel=1e-3)
    same = p95(base, base)
    assert (same.change, same.interval) == (0.0, (0.0, 0.0))
    assert p95(base, base + 3).interval == pytest.approx((3.0, 3.0))


def test_it_is_the_profile_of_the_joint_region() -> None:
    """Of independent arms with many items: quantiles u and v of two uniforms, each with error sqrt(q (1 - q)/n), so that the change has sqrt(2) of it."""
    grid = (np.arange(250_000.0) + 0.5) / 250_000
    found = p95(grid, rng(7).permutation(grid))
    half = 1.959964 * np.sqrt(2 * 0.95 * 0.05 / 250_000)
    assert found.interval == pytest.approx((-half, half), rel=0.02)


def test_limits_at_every_confidence() -> None:
    base, cand = rng(8).lognormal(size=(2, 400))
    found = p95(base, cand)
    assert found.limits is not None
    assert len(found.limits) == len(CONFIDENCES) == 23
    assert found.limits == tuple(sorted(found.limits, key=lambda x: x or 0.0))
    for level in (0.5, 0.9, 0.95, 0.99, 0.998):
        low, high = p95(base, cand, level=level).interval or (np.nan, np.nan)
        assert limits_at(found.limits, level) == pytest.approx((low, high))
        below, above = (confidence_at_most(found.limits, x) for x in (low - 1e-9, high - 1e-9))
        assert (below, above) == (pytest.approx((1 - level) / 2), pytest.approx((1 + level) / 2))
        assert (below or 1) < (1 - level) / 2
    assert limits_at(found.limits, 0.97) == limits_at(found.limits, 0.98) != limits_at(found.limits, 0.95)
    assert limits_at(found.limits, 0.9999) is None
    few = p95(base[:72], cand[:72]).limits
    assert few is not None
    assert [p for p, x in zip(CONFIDENCES, few, strict=True) if x is not None] == [p for p in CONFIDENCES if 0.025 <= p <= 0.975]
    assert confidence_at_most(few, -1e9) == pytest.approx(0.025)
    assert confidence_at_most(few, 1e9) == 1.0
    assert limits_at(few, 0.98) is None
    assert confidence_at_most((None,) * 23, 0.0) is None


def test_a_limit_that_stands_for_several_confidences_counts_as_the_largest() -> None:
    """Counts of tokens have ties; "at most 2" holds 2 itself, and is as sure as the first limit beyond it."""
    steps = tuple(float(k // 4) for k in range(23))
    assert confidence_at_most(steps, 2.0) == confidence_at_most(steps, 2.9) == pytest.approx(CONFIDENCES[12])
    assert confidence_at_most(steps, 1.999) == pytest.approx(CONFIDENCES[8])


@pytest.mark.parametrize("clustered", [False, True])
def test_no_order_of_rows_moves_anything(clustered: bool) -> None:
    base, cand = rng(7).lognormal(size=(2, 120))
    codes = np.repeat(np.arange(24), 5) if clustered else None
    shuffled = rng(8).permutation(120)
    first = latency_details(base, cand, codes, 0.95)
    again = latency_details(base[shuffled], cand[shuffled], None if codes is None else codes[shuffled], 0.95)
    assert first == again


def test_clusters_of_one_are_items_and_few_clusters_say_nothing() -> None:
    base, cand = rng(10).lognormal(size=(2, 60))
    alone = latency_details(base, cand, np.arange(60), 0.95)
    assert alone == latency_details(base, cand, None, 0.95)
    nine = latency_details(base, cand, np.arange(60) % 9, 0.95)
    assert (nine["median_change_ci"], nine["median_ratio_ci"], nine["p50_change_ci"]) == (None, None, None)
    some = latency_details(base, cand, np.arange(60) % 15, 0.95)
    assert isinstance(some["median_change_ci"], list)
    assert some["p50_change_ci"] is None
    assert (some["p50_sources_needed"], some["p95_sources_needed"]) == (20, 72)
    same = latency_details(base, base, np.arange(60) % 15, 0.95)
    assert same["median_change_ci"] == [0.0, 0.0]


def test_woodruff_limits_by_hand() -> None:
    """Twenty clusters of one value, 0 or 1, within: the share at or below the median 0 is 12/20, and its error is that of 20 numbers."""
    values = np.repeat([0.0] * 10 + [1.0] * 10, 3) + np.tile([0.0, 0.1, 0.2], 20)
    codes = np.repeat(np.arange(20), 3)
    found = median_interval(values, codes, level=0.95)
    # The median .6 has 30 of 60 below: the clusters' shares are ten times 1 and ten times 0, the CR2 variance .25/19, and t_19 = 2.093.
    half = 2.0930240544 * np.sqrt(0.25 / 19)
    assert found == pytest.approx(tuple(np.quantile(values, [0.5 - half, 0.5 + half])))


# -- coverage ----------------------------------------------------------------------------------------------------------------------


def drawn(kind: str, codes: IntArray | None, n: int, made: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Paired times with correlation .8 in the exponent: log-normal, or with tails so heavy that no variance is finite."""

    def noise() -> FloatArray:
        if codes is None:
            return made.normal(size=n)
        return np.sqrt(0.5) * made.normal(size=int(codes.max()) + 1)[codes] + np.sqrt(0.5) * made.normal(size=n)

    a = noise()
    b = 0.8 * a + 0.6 * noise()
    if kind == "lognormal":
        return np.exp(0.5 * a), 1.1 * np.exp(0.5 * b)
    return norm.sf(a) ** -0.5, 1.2 * norm.sf(b) ** -0.5


def truth(kind: str, q: float) -> float:
    return float(0.1 * np.exp(0.5 * norm.ppf(q)) if kind == "lognormal" else 0.2 * (1 - q) ** -0.5)


def coverage(kind: str, n: int, codes: IntArray | None, studies: int, seed: int) -> dict[str, float]:
    made, hits = rng(seed), dict.fromkeys((0.5, 0.95, 0.99, "ratio"), 0)
    told = dict.fromkeys(hits, 0)
    for _ in range(studies):
        base, cand = drawn(kind, codes, n, made)
        intervals = {c.q: c.interval for c in quantile_changes(base, cand, codes, level=0.95)}
        wanted = {q: truth(kind, q) for q in intervals}
        for key, interval, value in (
            *((q, intervals[q], wanted[q]) for q in intervals),
            ("ratio", median_interval(cand / base, codes, level=0.95), 1.1 if kind == "lognormal" else 1.2),
        ):
            if interval is not None:
                told[key] += 1
                hits[key] += interval[0] <= value <= interval[1]
    return {str(key): hits[key] / told[key] for key in hits if told[key]}


@pytest.mark.parametrize(("kind", "n"), [("lognormal", 72), ("pareto", 72), ("lognormal", 368)])
def test_it_covers(kind: str, n: int) -> None:
    found = coverage(kind, n, None, 250, n)
    assert set(found) == ({"0.5", "0.95", "ratio"} if n < 368 else {"0.5", "0.95", "0.99", "ratio"})
    assert all(share >= 0.92 for share in found.values()), found


def test_it_covers_with_clusters_and_with_very_many_items() -> None:
    found = coverage("lognormal", 320, np.repeat(np.arange(80), 4), 150, 1)
    assert set(found) == {"0.5", "0.95", "ratio"}
    assert all(share >= 0.9 for share in found.values()), found
    many = coverage("pareto", 5001, None, 200, 2)
    assert set(many) == {"0.5", "0.95", "0.99", "ratio"}
    assert all(share >= 0.92 for share in many.values()), many


def uneven(kind: str, n: int, made: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Arms of which one varies more than the other: there the larger values of one decide alone."""
    x = np.exp(0.7 * made.normal(size=n))
    still = 1 + 1e-3 * made.normal(size=n)
    return {"tail": (still, x), "tail lost": (x, still), "twice": (x, 2 * x), "uniform": (still, 3 * made.uniform(size=n))}[kind]


def uneven_truth(kind: str, q: float) -> float:
    x, still = float(np.exp(0.7 * norm.ppf(q))), float(1 + 1e-3 * norm.ppf(q))
    return {"tail": x - still, "tail lost": still - x, "twice": x, "uniform": 3 * q - still}[kind]


def missed(kind: str, n: int, place: int, studies: int, seed: int) -> tuple[float, float]:
    """How often the true change of a quantile lies below the interval, and above it."""
    made, below, above = rng(seed), 0, 0
    for _ in range(studies):
        one = quantile_changes(*uneven(kind, n, made), None, level=0.95)[place]
        assert one.interval is not None
        below += uneven_truth(kind, one.q) < one.interval[0]
        above += uneven_truth(kind, one.q) > one.interval[1]
    return below / studies, above / studies


@pytest.mark.parametrize("kind", ["tail", "tail lost", "twice", "uniform"])
def test_neither_side_errs_too_often_at_the_least_number_of_items(kind: str) -> None:
    """The percentile bootstrap errs in 11 to 13 % of such studies on one side."""
    assert max(missed(kind, 72, 1, 400, 3)) <= 0.025 + 3 * (0.025 * 0.975 / 400) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tail", "tail lost", "twice", "uniform"])
@pytest.mark.parametrize(("n", "place"), [(10, 0), (40, 0), (72, 1), (100, 1), (400, 1), (368, 2), (1000, 2), (6000, 2)])
def test_neither_side_errs_too_often(kind: str, n: int, place: int) -> None:
    assert max(missed(kind, n, place, 800, n)) <= 0.025 + 3 * (0.025 * 0.975 / 800) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(80, 4), (80, 20), (150, 10), (400, 5)])
def test_it_covers_where_whole_sources_are_slow(groups: int, size: int) -> None:
    """One source in twelve takes three times as long, the other arm never: what lies beyond p95 is whole sources."""
    made, codes = rng(groups), np.repeat(np.arange(groups), size)

    def slow(count: int, of: IntArray) -> FloatArray:
        return np.where(made.random(count) < 1 / 12, 3.0, 1.0)[of] * np.exp(0.2 * made.normal(size=len(of)))

    true = np.quantile(slow(3_000_000, np.arange(3_000_000)), [0.5, 0.95, 0.99]) - 1
    hits = dict.fromkeys((0.5, 0.95, 0.99), 0)
    told = dict.fromkeys(hits, 0)
    for _ in range(300):
        for one, at in zip(quantile_changes(np.ones(len(codes)), slow(groups, codes), codes, level=0.95), true, strict=True):
            if one.interval is not None:
                told[one.q] += 1
                hits[one.q] += one.interval[0] <= at <= one.interval[1]
    assert (told[0.5], told[0.95], told[0.99]) == (300, 300, 300 if groups >= 368 else 0)
    assert all(hits[q] / told[q] >= 0.9 for q in hits if told[q]), hits


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lognormal", "pareto"])
@pytest.mark.parametrize(("n", "groups"), [(10, 0), (72, 0), (200, 0), (1000, 0), (400, 100), (500, 400), (6000, 300)])
def test_it_covers_everywhere(kind: str, n: int, groups: int) -> None:
    codes = None if not groups else np.sort(rng(3).integers(0, groups, n))
    codes = None if codes is None else np.unique(codes, return_inverse=True)[1]
    found = coverage(kind, n, codes, 500, n + groups)
    assert all(0.92 <= share <= 0.999 for share in found.values()), found


# -- parts of a change -------------------------------------------------------------------------------------------------------------


def parts(first: object, per_token: object, tokens: object) -> Parts:
    return Parts(*(np.asarray(x, dtype=np.float64) for x in (first, per_token, tokens)))


def test_parts_by_hand_and_they_add_up() -> None:
    """1 + 10 x .1 = 2 s becomes 1.5 + 20 x .2 = 5.5 s: half a second for the first token, 10 tokens at .15 s, .1 s at 15 tokens."""
    found = decomposed(parts([1.0], [0.1], [11]), parts([1.5], [0.2], [21]))
    assert {k: float(v[0]) for k, v in found.items()} == pytest.approx(
        {"first_token_effect": 0.5, "verbosity_effect": 1.5, "speed_effect": 1.5}
    )
    made = rng(12)
    base, cand = (parts(made.lognormal(size=500), made.lognormal(size=500), made.integers(1, 30, 500)) for _ in range(2))
    total = sum(decomposed(base, cand).values())
    assert total == pytest.approx(cand.total - base.total, abs=1e-12)


def test_each_part_alone() -> None:
    base = parts([1.0, 2.0], [0.1, 0.2], [5, 9])
    for name, other in (
        ("first_token_effect", parts([1.5, 2.5], [0.1, 0.2], [5, 9])),
        ("verbosity_effect", parts([1.0, 2.0], [0.1, 0.2], [6, 12])),
        ("speed_effect", parts([1.0, 2.0], [0.2, 0.3], [5, 9])),
    ):
        assert [key for key, d in decomposed(base, other).items() if (d != 0).all()] == [name]
        assert sum((d != 0).any() for d in decomposed(base, other).values()) == 1


def test_an_answer_of_one_token_has_no_speed() -> None:
    found = decomposed(parts([1.0, 1.0, 1.0], [np.nan, 0.2, np.nan], [1, 5, 1]), parts([1.0, 1.0, 2.0], [0.3, np.nan, np.nan], [11, 1, 0]))
    assert found["verbosity_effect"] == pytest.approx([3.0, -0.8, 0.0])
    assert found["speed_effect"].tolist() == [0.0, 0.0, 0.0]
    assert found["first_token_effect"].tolist() == [0.0, 0.0, 1.0]
