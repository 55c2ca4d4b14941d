"""Every known answer of the statistics specification, to 1e-9."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from pytest import approx

from aligntax.stats import clusters, intervals, mcnemar, resample
from aligntax.stats.moments import correlation
from aligntax.stats.multiplicity import benjamini_hochberg, holm
from aligntax.stats.paired import PairedChange, critical_value, equivalence_p, noninferiority_p, p_value, paired_change
from aligntax.stats.planning import plan
from aligntax.stats.tango import tango_interval, tango_statistic
from aligntax.stats.trials import trial_variance
from aligntax.stats.verdict import verdict

TOLERANCE = 1e-9


def near(x: Any) -> Any:
    return approx(x, rel=TOLERANCE, abs=TOLERANCE)


@pytest.fixture(scope="module")
def answers(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("statistics.json"))


def discordant(n: int, lost: int, gained: int) -> np.ndarray:
    return np.array([-1.0] * lost + [1.0] * gained + [0.0] * (n - lost - gained))


def check_score(found: PairedChange, known: dict[str, Any], margin: float = 0.05) -> None:
    assert found.test is not None
    low, high = found.test.interval(0.95)
    assert found.change == near(known["change"])
    assert found.se == near(known["se"])
    assert found.design_effect == near(known["deff"])
    assert (found.df is None and known["df"] is None) or found.df == near(known["df"])
    assert critical_value(0.95, found.df) == near(known["crit"])
    assert [low, high] == near(known["ci"])
    assert p_value(found.test) == near(known["p_value"])
    assert noninferiority_p(found.test, margin) == near(known["noninferiority_p"])
    assert equivalence_p(found.test, margin) == near(known["equivalence_p"])
    assert max(0.0, -low) == near(known["largest_loss_not_excluded"])
    planned = plan(low, high, found.n, found.change, margin, critical_value(0.95, found.df), found.df)
    expected = known["planning"]
    assert planned.half_width == near(expected["half_width"])
    assert planned.minimum_detectable_change == near(expected["minimum_detectable_change"])
    assert planned.n_no_tax == near(expected["n_no_tax_if_true_change_0"])
    for value, key in ((planned.n_no_tax_observed, "n_no_tax_if_true_change_as_observed"), (planned.n_detect, "n_detect_observed")):
        assert value == (None if expected[key] is None else near(expected[key]))


def test_a_unclustered_binary(answers: dict[str, Any]) -> None:
    known = answers["A_unclustered_binary"]
    counts = known["data"]
    n, lost, gained = counts["n"], counts["lost"], counts["gained"]
    assert intervals.wald_interval(lost, gained, n) == near(known["wald_sd_n1"]["ci"])
    assert intervals.wald_interval(lost, gained, n, ddof=0) == near(known["wald_sd_n"]["ci"])
    assert intervals.t_interval(lost, gained, n) == near(known["t"]["ci"])
    assert intervals.newcombe_interval(counts["both_right"], lost, gained, counts["both_wrong"]) == near(known["newcombe10"])
    assert intervals.bonett_price_interval(lost, gained, n) == near(known["bonett_price"])
    assert intervals.dirichlet_interval(lost, gained, n) == near(known["dirichlet_3cell_uniform"])
    check_score(paired_change(discordant(n, lost, gained), binary=True), known["tango"])
    assert tango_statistic(0.0, lost, gained, n) ** 2 == near(known["mcnemar_chi2"])
    assert mcnemar.mcnemar_score_p(lost, gained) == near(known["mcnemar_chi2_p"])
    assert mcnemar.mcnemar_exact_p(lost, gained) == near(known["mcnemar_exact_p"])
    assert mcnemar.mcnemar_mid_p(lost, gained) == near(known["mcnemar_mid_p"])
    base = np.array([1.0] * 15 + [1.0] * 2 + [0.0] * 7 + [0.0] * 6)
    candidate = np.array([1.0] * 15 + [0.0] * 2 + [1.0] * 7 + [0.0] * 6)
    assert np.sqrt((base.var(ddof=1) + candidate.var(ddof=1)) / n) == near(known["se_unpaired"])
    assert correlation(base, candidate) == near(known["correlation"])


def test_a2_published_layout(answers: dict[str, Any]) -> None:
    known = answers["A2_published_layout"]
    counts = known["data"]
    assert intervals.wald_interval(counts["lost"], counts["gained"], counts["n"], ddof=0) == near(known["wald_sd_n"])
    assert intervals.newcombe_interval(counts["both_right"], counts["lost"], counts["gained"], counts["both_wrong"]) == near(
        known["newcombe10"]
    )
    assert intervals.bonett_price_interval(counts["lost"], counts["gained"], counts["n"]) == near(known["bonett_price"])
    assert tango_interval(counts["lost"], counts["gained"], counts["n"], critical_value(0.95, None)) == near(known["tango"])


def test_a3_no_flips(answers: dict[str, Any]) -> None:
    known = answers["A3_no_flips"]
    n = known["data"]["n"]
    check_score(paired_change(discordant(n, 0, 0), binary=True), known["default"])
    assert intervals.wald_interval(0, 0, n) == near(known["wald"])
    assert intervals.bonett_price_interval(0, 0, n) == near(known["bonett_price"])
    assert mcnemar.mcnemar_exact_p(0, 0) == known["mcnemar_exact_p"] == 1
    z = critical_value(0.95, None)
    assert tango_interval(0, 0, n, z)[1] == near(z**2 / (n + z**2))


def test_a4_published_check(answers: dict[str, Any]) -> None:
    known = answers["A4_published_check"]
    counts = known["data"]
    newcombe = intervals.newcombe_interval(counts["both_right"], counts["lost"], counts["gained"], counts["both_wrong"])
    assert newcombe == near(known["newcombe10"])
    assert [round(x, 4) for x in newcombe] == known["published_4_digits"]
    assert tango_interval(counts["lost"], counts["gained"], counts["n"], critical_value(0.95, None)) == near(known["tango"])
    assert intervals.bonett_price_interval(counts["lost"], counts["gained"], counts["n"]) == near(known["bonett_price"])


def test_b_clustered_binary(answers: dict[str, Any]) -> None:
    known = answers["B_clustered_binary"]
    d, codes = np.array(known["data"]["d"]), np.array(known["data"]["cluster"])
    sizes, sums = clusters.cluster_sums(d, codes)
    assert list(sizes) == known["sizes"]
    assert list(sums) == near(known["S"])
    check_score(paired_change(d, binary=True), known["item_level"])
    for kind in ("CR0", "CR1", "CR2", "CR3"):
        assert np.sqrt(clusters.cr_variance(d, codes, kind)) == near(known[kind]["se"])
    z, t5 = critical_value(0.95, None), critical_value(0.95, 5)
    assert [d.mean() - z * known["CR0"]["se"], d.mean() + z * known["CR0"]["se"]] == near(known["CR0"]["ci_z"])
    assert [d.mean() - t5 * known["CR1"]["se"], d.mean() + t5 * known["CR1"]["se"]] == near(known["CR1"]["ci_t"])
    unbounded = paired_change(d, codes, binary=False, scale=None)
    assert unbounded.test is not None
    assert unbounded.df == near(known["CR2"]["df"])
    assert unbounded.test.interval(0.95) == near(known["CR2"]["ci"])
    assert p_value(unbounded.test) == near(known["CR2"]["p"])
    assert clusters.imbens_kolesar_df(sizes, 0.1) == near(known["df_compound_symmetry_rho_0_1"])
    assert clusters.kish_clusters(sizes) == near(known["kish_clusters"])
    assert clusters.anova_icc(d, codes) == near(known["icc"])
    found = paired_change(d, codes, binary=True)
    check_score(found, known["default_score"])
    assert found.clusters is not None
    assert found.clusters.flip_clusters == known["flip_clusters"]
    flipped = resample.sign_flip(d, codes)
    assert flipped.p == near(known["sign_flip"]["p"])
    assert [flipped.low, flipped.high] == near(known["sign_flip"]["ci"])
    assert flipped.splits == known["sign_flip"]["splits"]
    assert resample.wild_cluster_p(d, codes) == near(known["wild_restricted_rademacher_p"])


def test_b_cluster_bootstrap_over_all_resamples(answers: dict[str, Any]) -> None:
    known = answers["B_clustered_binary"]["cluster_bootstrap_exhaustive"]
    data = answers["B_clustered_binary"]["data"]
    d, codes = np.array(data["d"]), np.array(data["cluster"])
    sizes, totals = np.bincount(codes), np.bincount(codes, weights=d)
    picks = np.array(list(product(range(6), repeat=6)))
    means = totals[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    assert len(means) == known["resamples"]
    assert resample.percentile_interval(means, 0.95) == near(known["percentile"])
    acceleration = resample.jackknife_acceleration(d, codes)
    found = resample.bca_interval(means, float(d.mean()), acceleration, 0.95)
    assert acceleration == near(known["acceleration"])
    assert found.levels == near(known["bca_levels"])
    assert [found.low, found.high] == near(known["bca"])


def test_c_trials(answers: dict[str, Any]) -> None:
    known = answers["C_trials"]
    trials = known["data"]["trials"]
    base = np.array([[1.0] * k + [0.0] * (trials - k) for k in known["data"]["base_right"]])
    candidate = np.array([[1.0] * k + [0.0] * (trials - k) for k in known["data"]["candidate_right"]])
    d = candidate.mean(axis=1) - base.mean(axis=1)
    assert list(d) == near(known["d"])
    assert d.mean() == near(known["change"])
    check_score(paired_change(d, binary=False, trials=True), known["score"])
    plain = paired_change(d, binary=False, scale=None)
    assert plain.test is not None
    assert plain.test.interval(0.95) == near(known["t"]["ci"])
    assert p_value(plain.test) == near(known["t"]["p"])
    assert resample.sign_flip(d, np.arange(10)).p == near(known["sign_flip_p"])
    k = np.full(10, float(trials))
    split = trial_variance(d, base.var(axis=1, ddof=1), k, candidate.var(axis=1, ddof=1), k)
    assert split is not None
    assert split.baseline == near(known["within_base"])
    assert split.candidate == near(known["within_candidate"])
    assert split.between == near(known["between_items"])
    assert split.within + split.between == near(known["var_d"])


def test_d_real_valued(answers: dict[str, Any]) -> None:
    known = answers["D_real_valued"]
    d = np.array(known["data"])
    found = paired_change(d, binary=False, scale=None)
    assert found.test is not None
    assert found.method == "t"
    assert found.change == near(known["change"])
    assert found.se == near(known["t"]["se"])
    assert found.test.interval(0.95) == near(known["t"]["ci"])
    assert p_value(found.test) == near(known["t"]["p"])
    assert found.effective_contributors == near(known["effective_contributors"])
    assert resample.jackknife_acceleration(d, np.arange(12)) == near(known["jackknife_acceleration"])
    assert resample.sign_flip(d, np.arange(12)).p == near(known["sign_flip_p"])


def test_f_holm(answers: dict[str, Any]) -> None:
    assert holm(answers["F_holm"]["p"]) == near(answers["F_holm"]["adjusted"])


def test_g_bell_mccaffrey_df(answers: dict[str, Any]) -> None:
    for sizes, df in answers["G_bm_df"].items():
        assert clusters.bell_mccaffrey_df([int(s) for s in sizes.strip("()").split(",")]) == near(df)


def test_h_verdicts(answers: dict[str, Any]) -> None:
    for case in answers["H_verdicts"]:
        if "p" not in case:
            found = paired_change(discordant(case["n"], 0, 0), binary=True)
            assert found.test is not None
            assert found.test.interval(0.95) == approx(case["ci"], abs=1e-5)
            change, q, ni = 0.0, p_value(found.test), noninferiority_p(found.test, 0.01)
        else:
            change, q, ni = sum(case["ci"]) / 2, case.get("p_adjusted", case["p"]), case["p_ni"]
        assert verdict(change, q, ni, df=None, level=0.95) == case["verdict"], case


# The rest needs no shared file.


@pytest.mark.parametrize("change", [0.02, -0.02, 0.0])
def test_no_verdict_below_four_degrees_of_freedom(change: float) -> None:
    assert verdict(change, 1e-9, 1e-9, df=3.99, level=0.95) == "undetermined"


def test_verdict_without_a_margin_is_never_no_tax() -> None:
    assert verdict(-0.1, 0.001, None, df=None, level=0.95) == "tax"
    assert verdict(-0.1, 0.5, None, df=None, level=0.95) == "undetermined"


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted .01 .02 .03 .5 times 4/1, 4/2, 4/3, 4/4: .04 .04 .04 .5.
    assert benjamini_hochberg([0.03, 0.5, 0.01, 0.02]) == approx([0.04, 0.5, 0.04, 0.04])


def test_bell_mccaffrey_df_agrees_with_matrices() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        sizes = rng.integers(1, 30, size=rng.integers(2, 9)).astype(float)
        assert clusters.bell_mccaffrey_df(sizes) == approx(brute_force_df(sizes), rel=1e-9)
        assert clusters.imbens_kolesar_df(sizes, 0.0) == approx(brute_force_df(sizes), rel=1e-9)


def brute_force_df(sizes: np.ndarray) -> float:
    """(tr B)^2 / tr(B^2) from the residual maker itself, identity working model."""
    n = int(sizes.sum())
    residual = np.eye(n) - np.ones((n, n)) / n
    rows, start = [], 0
    for size in sizes.astype(int):
        block = np.zeros((size, n))
        block[:, start : start + size] = np.eye(size)
        h = block @ residual @ block.T
        values, vectors = np.linalg.eigh(h)
        keep = values > 1e-12
        root = vectors[:, keep] @ np.diag(values[keep] ** -0.5) @ vectors[:, keep].T
        rows.append(residual @ block.T @ root @ np.ones(size))
        start += size
    g = np.array(rows)
    gram = g @ g.T
    return float(np.trace(gram) ** 2 / np.trace(gram @ gram))
