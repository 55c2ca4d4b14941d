"""The whole analysis: golden numbers through a file, known truths of made-up ensembles, invariances, and tables that say little."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.atlas import analysis as module
from aligntax.atlas.analysis import Analysis, Settings, analyse
from aligntax.atlas.claims import claims
from aligntax.atlas.export import as_json
from aligntax.atlas.ratings import FloatArray, read_ratings
from aligntax.core.errors import InputError
from aligntax.stats.ensembles import EnsembleDesign, draw_ensemble, no_real_difference
from aligntax.stats.raters import cluster_raters
from tests.support.atlas_ratings import ratings_of

QUICK = Settings(draws=199, resamples=200)
EIGHT = ["control", "clash"] * 4


@pytest.fixture
def quick_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples of trees: most of a small analysis' time."""
    monkeypatch.setattr(module, "cluster_raters", partial(cluster_raters, resamples=20, permutations=19))


@pytest.fixture(scope="module")
def f1(golden: Callable[[str], Any]) -> dict[str, Any]:
    return dict(golden("atlas_golden.json")["F1"])


@pytest.fixture(scope="module")
def tables(f1: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """F1 as a table of ratings and one of models; K is control, X clash."""
    folder = tmp_path_factory.mktemp("f1")
    with (folder / "ratings.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["pair", "category", "model", "rating"])
        for pair, category, row in zip(f1["pairs"], f1["category"], f1["X"], strict=True):
            out.writerows([pair, {"K": "control", "X": "clash"}[category], m, v] for m, v in zip(f1["models"], row, strict=True))
    with (folder / "models.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["model", "geography", "alignment"])
        out.writerows([m, m[0], a] for m, a in zip(f1["models"], f1["align"], strict=True))
    return folder / "ratings.csv", folder / "models.csv"


@pytest.fixture(scope="module")
def found(tables: tuple[Path, Path]) -> Analysis:
    return analyse(read_ratings(tables[0], models=tables[1]), Settings(order=("control", "clash"), rarefied=3))


# -- golden ----------------------------------------------------------------------------------------------------------------------


def test_pairs_of_the_golden_fixture(found: Analysis, f1: dict[str, Any]) -> None:
    for row in found.pairs:
        known = f1["per_pair"][row.name]
        got = {"mean": row.mean, "range": row.range, "sd": row.sd, "gmd": row.gmd, "rarefied_range_k3": row.rarefied}
        assert got == pytest.approx({name: known[name] for name in got}, abs=1e-12)
    assert found.summaries["clash"].means["full_range"] == pytest.approx(0.50)
    assert found.summaries["control"].range_of_means == pytest.approx(0.065)
    x1 = next(row for row in found.pairs if row.name == "X1")
    assert (x1.lowest, x1.highest, x1.flagged) == (("C1",), ("C2",), True)


def test_components_and_reliability_of_the_golden_fixture(found: Analysis, f1: dict[str, Any]) -> None:
    for ours, theirs in (("all", "all"), ("control", "K"), ("clash", "X")):
        known = f1["anova"][theirs]
        expected = {
            "alpha": f1["alpha"][theirs], "icc_1": known["ICC1"], "icc_a1": known["ICC2"], "icc_c1": known["ICC3"], "var_pair": known["var_pair"],
            "var_model": known["var_model"], "var_rest": known["var_pm_e"],
        }  # fmt: skip
        assert found.reliability[ours] == pytest.approx(expected, abs=1e-12)
    assert found.components is not None
    assert found.components.effects["pair", "model"] == pytest.approx(f1["anova"]["all"]["var_pm_e"])


def test_groups_and_clusters_of_the_golden_fixture(found: Analysis, f1: dict[str, Any]) -> None:
    rows = {(row.column, row.on): row for row in found.groups}
    for column, key in (("geography", "geo"), ("alignment", "align_grp")):
        for on, part in (("all pairs", "all"), ("contested pairs", "X")):
            share, known = rows[column, on].share, f1[key][part]
            assert share is not None
            got = (share.eta2, share.epsilon2, share.omega2, share.f, share.main_share)
            assert got == pytest.approx(tuple(known[name] for name in ("eta2", "eps2", "omega2", "F", "main_share")))
            assert (share.exact, share.labelings, share.null_mean) == (True, 20, pytest.approx(known["null_eta2"]))
            assert share.p == pytest.approx({"geography": 18 / 20, "alignment": 2 / 20}[column])
    ari = {column: rows[column, "contested pairs"].clusters for column in ("geography", "alignment")}
    assert ari["geography"] is not None
    assert ari["alignment"] is not None
    assert (ari["geography"].ari, ari["alignment"].ari) == (pytest.approx(-1 / 9), 1.0)
    assert not rows["alignment", "contested pairs"].sound  # three models in a group


def test_the_tree_of_all_pairs_of_the_golden_fixture(tables: tuple[Path, Path], f1: dict[str, Any]) -> None:
    found = analyse(
        read_ratings(tables[0]), replace(QUICK, controls=("control", "clash"))
    )  # nothing is contested: the tree is of all pairs
    assert found.clusters is not None
    np.testing.assert_allclose(found.clusters.linkage, f1["linkage_mad_average"])
    assert (found.clusters.k, found.clusters.silhouette) == (2, pytest.approx(0.736276, abs=5e-7))
    assert [row.cluster for row in found.models] == [0, 1, 0, 1, 0, 1]


def test_blind_spots_contrast_and_raters_of_the_golden_fixture(found: Analysis, f1: dict[str, Any]) -> None:
    rates = {row.k: row for row in found.councils}
    assert rates[3].rate == pytest.approx(np.mean(f1["blindspot_k3_t20"][4:]))
    assert rates[2].rate == pytest.approx(np.mean(f1["blindspot_k2_t20"][4:]))
    assert (rates[3].pairs, rates[3].within, rates[3].controls) == (4, 1.0, 1.0)
    (contrast,) = found.comparisons
    assert (contrast.test.p_greater, contrast.test.p, contrast.finding) == (pytest.approx(1 / 70), pytest.approx(2 / 70), "more divergent")
    assert found.distinct["contested"].by_bandwidth == pytest.approx({0.05: 5.458071, 0.1: 3.737947, 0.2: 2.561831}, abs=5e-7)
    assert (found.distinct["contested"].free, found.distinct["control"].free) == pytest.approx((2.036828, 1.154986), abs=5e-7)
    assert found.dimensions is not None
    assert found.dimensions.debiased is None  # four pairs


def test_claims_of_the_golden_fixture(found: Analysis) -> None:
    assert [c.judgement for c in claims(found)] == ["supported", "supported", *["cannot be told"] * 5]


def test_the_json_has_every_number_and_no_nan(found: Analysis) -> None:
    told = json.loads(as_json(found))
    assert told["schema"] == 1
    assert told["pairs"][4]["gmd"] == pytest.approx(0.266667, abs=1e-6)
    assert told["groups"][0]["share"]["eta2"] == pytest.approx(0.064865, abs=1e-6)
    assert told["dimensions"]["debiased"] is None
    assert len(told["claims"]) == 7


# -- truths ----------------------------------------------------------------------------------------------------------------------


def design(**more: Any) -> EnsembleDesign:
    given: dict[str, Any] = {
        "models": 12,
        "pairs": (12, 12),
        "means": (0.6, 0.5),
        "mean_sd": 0.05,
        "spread": (0.04, 0.12),
        "heterogeneity": 0.2,
    }
    return EnsembleDesign(**{**given, **more})


def drawn(of: EnsembleDesign, seed: int) -> FloatArray:
    return np.clip(draw_ensemble(of, np.random.default_rng(seed)).ratings, 0, 1)


@pytest.mark.usefixtures("quick_clusters")
def test_a_true_ratio_and_true_camps_are_found() -> None:
    stage = ("base", "dpo") * 6
    of = design(groups=tuple(int(s == "dpo") for s in stage), group_offsets=(-0.12, 0.12))
    found = analyse(ratings_of(drawn(of, 3)[..., None], ["control"] * 12 + ["clash"] * 12, groups={"stage": stage}), QUICK)
    (row,) = [row for row in found.groups if row.on == "contested pairs"]
    assert row.share is not None
    assert row.share.omega2 == pytest.approx(0.5, abs=0.2)  # .24^2/4 of .24^2/4 + .12^2 and more, in the contested half
    assert row.sound
    assert row.p_holm is not None
    assert row.p_holm < 0.05
    ratios = []
    for seed in range(6):
        (one,) = analyse(ratings_of(drawn(design(), seed)[..., None], ["control"] * 12 + ["clash"] * 12), QUICK).comparisons
        assert one.ratio is not None
        assert one.ratio.low is not None
        assert one.ratio.high is not None
        ratios.append((one.ratio.low < np.log(3) < one.ratio.high, one.finding))
    assert ratios.count((True, "more divergent")) >= 5


def null_studies(count: int) -> dict[str, int]:
    """How many of so many studies without any difference find one, by what they find."""
    of = no_real_difference(EnsembleDesign(models=10, pairs=(8, 8, 8), means=(0.5,) * 3, spread=(0.1,) * 3, noise_sd=0.05))
    hits = dict.fromkeys(("supported", "contrast", "trend", "silhouette", "groups"), 0)
    for seed in range(count):
        rng = np.random.default_rng(seed)
        groups = {name: rng.permutation(["u", "v"] * 5).tolist() for name in ("country", "stage")}
        made = ratings_of(drawn(of, seed)[..., None], ["control"] * 8 + ["a"] * 8 + ["b"] * 8, groups=groups)
        found = analyse(made, replace(QUICK, order=("control", "a", "b"), seed=seed))
        judged = claims(found)
        hits["supported"] += any(judged[i].judgement == "supported" for i in (0, 1, 4))
        hits["contrast"] += any(one.finding in ("more divergent", "less divergent") for one in found.comparisons)
        assert found.trend is not None
        assert found.clusters is not None
        hits["trend"] += found.trend.p <= 0.05
        hits["silhouette"] += found.clusters.silhouette_p <= 0.05
        hits["groups"] += any(row.p_holm is not None and row.p_holm <= 0.05 for row in found.groups if row.on == "contested pairs")
    return hits


@pytest.mark.usefixtures("quick_clusters")
def test_nothing_is_found_where_nothing_is() -> None:
    hits = null_studies(25)
    assert hits["supported"] <= 1  # it takes tests and intervals before and after adjustment
    assert max(hits.values()) <= 5  # P(6 of 25 at .05) = .001


@pytest.mark.slow
def test_nothing_is_found_where_nothing_is_in_many_studies() -> None:
    hits = null_studies(400)
    assert hits["supported"] <= 10
    assert max(hits.values()) <= 34  # .05 and three standard errors


# -- invariances -----------------------------------------------------------------------------------------------------------------


def _dispersions(found: Analysis) -> dict[str, tuple[float | None, ...]]:
    return {row.name: (row.range, row.sd, row.gmd, row.rarefied) for row in found.pairs}


def example(seed: int = 1, pairs: int = 12, models: int = 7) -> FloatArray:
    rng = np.random.default_rng(seed)
    spread = np.where(np.arange(pairs) % 2 == 0, 0.03, 0.12)
    return np.clip(0.5 + spread[:, None] * rng.normal(size=(pairs, models)), 0.05, 0.95).round(2)


@pytest.mark.usefixtures("quick_clusters")
def test_the_order_of_models_and_pairs_changes_nothing() -> None:
    x, kinds = example(), ["control", "clash"] * 6
    country = list("uvuvuvu")
    here = analyse(ratings_of(x, kinds, groups={"country": country}), QUICK)
    rng = np.random.default_rng(0)
    p, m = rng.permutation(len(x)), rng.permutation(x.shape[1])
    made = ratings_of(
        x[p][:, m],
        [kinds[i] for i in p],
        groups={"country": [country[i] for i in m]},
        pairs=[f"p{i}" for i in p],
        models=[f"m{i}" for i in m],
    )
    there = analyse(made, QUICK)
    assert _dispersions(there) == {name: pytest.approx(row) for name, row in _dispersions(here).items()}
    ends = [{row.name: (row.lowest, row.highest, row.flagged) for row in one.pairs} for one in (here, there)]
    assert ends[0] == ends[1]
    exact = [
        (one.comparisons[0].test.p, one.comparisons[0].test.difference, one.groups[0].share.p, one.groups[0].share.omega2)
        for one in (here, there)
    ]  # type: ignore[union-attr]
    assert exact[0] == pytest.approx(exact[1])
    assert [row.rate for row in here.councils] == pytest.approx([row.rate for row in there.councils])
    assert here.clusters is not None
    assert there.clusters is not None
    assert there.clusters.silhouette == pytest.approx(here.clusters.silhouette)
    assert [c.judgement for c in claims(here)] == [c.judgement for c in claims(there)]


@pytest.mark.usefixtures("quick_clusters")
@pytest.mark.parametrize("change", [lambda x: 1 - x, lambda x: x + 0.04], ids=["1 - x", "x + .04"])
def test_turning_and_moving_the_scale_leaves_dispersions(change: Callable[[FloatArray], FloatArray]) -> None:
    x = example()
    here, there = (analyse(ratings_of(y, ["control", "clash"] * 6), QUICK) for y in (x, change(x)))
    assert _dispersions(there) == {name: pytest.approx(row) for name, row in _dispersions(here).items()}
    assert there.comparisons[0].test.difference == pytest.approx(here.comparisons[0].test.difference)
    assert there.councils == here.councils
    if change(np.array([0.3]))[0] == 0.7:
        assert there.comparisons[0].adjusted_test.difference == pytest.approx(here.comparisons[0].adjusted_test.difference)


@pytest.mark.usefixtures("quick_clusters")
def test_a_constant_of_a_model_moves_its_own_component_alone() -> None:
    x = example() * 0.5
    here, there = (analyse(ratings_of(y, ["control", "clash"] * 6), QUICK) for y in (x, x + np.linspace(0, 0.3, 7)))
    assert here.components is not None
    assert there.components is not None
    assert there.components.effects["pair", "model"] == pytest.approx(here.components.effects["pair", "model"])
    assert there.components.effects["model",] > here.components.effects["model",] + 0.005
    sds = [row.sd for row in here.pairs]
    reliability = here.reliability["all"]
    assert np.mean([s**2 for s in sds if s is not None]) == pytest.approx((reliability["var_model"] or 0) + (reliability["var_rest"] or 0))


# -- orders, wordings, repeats ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clusters")
def test_noise_of_repeats_comes_off_and_what_a_wording_moves_does_not() -> None:
    rng = np.random.default_rng(5)
    own = example(2, 40, 8)[:, :, None, None, None]
    quiet = (
        np.broadcast_to(own, (40, 8, 2, 2, 3)) + np.array([0.0, 0.04])[None, None, None, :, None]
    )  # the second wording lifts every rating
    still = analyse(ratings_of(quiet, ["control", "clash"] * 20), QUICK)
    assert [row.corrected for row in still.pairs] == pytest.approx([row.sd for row in still.pairs])
    noisy = analyse(ratings_of(quiet + 0.05 * rng.normal(size=quiet.shape) * 0.5, ["control", "clash"] * 20), QUICK)
    calm, sharp = (np.mean([row.corrected**2 - row.sd**2 for row in noisy.pairs if row.category == c]) for c in ("control", "clash"))  # type: ignore[operator]
    assert calm == pytest.approx(-(0.025**2) / 12, rel=0.4)
    assert sharp == pytest.approx(-(0.025**2) / 12, rel=0.4)
    assert analyse(ratings_of(quiet[..., :1], ["control", "clash"] * 20), QUICK).pairs[0].corrected is None


@pytest.mark.usefixtures("quick_clusters")
def test_orders_are_told_apart_and_a_model_that_follows_them_is_named() -> None:
    x = np.repeat(example()[:, :, None], 2, axis=2)
    x[:, 2, 0] += 0.15
    x[:, 2, 1] -= 0.15
    found = analyse(ratings_of(np.clip(x, 0, 1)[..., None, None], ["control", "clash"] * 6), QUICK)
    assert [row.unfit for row in found.models] == [m == 2 for m in range(7)]
    assert found.models[2].order_signed == pytest.approx(0.3, abs=0.02)
    assert found.order_shift == pytest.approx(0.3 / 7, abs=0.005)
    assert found.order_noise == pytest.approx(0.3 / np.sqrt(2 * 7), abs=0.005)
    (as_it_was,) = found.designs  # both orders were asked, there is no third, and nothing says what a repeat would do
    assert as_it_was["counts"] == {"order": 2, "repeat": 1}


@pytest.mark.usefixtures("quick_clusters")
def test_wordings_have_their_stability() -> None:
    x = np.repeat(example(1, 24)[:, :, None, None], 3, axis=3)
    found = analyse(ratings_of(x[..., None], ["control", "clash"] * 12), QUICK)
    assert found.variants is not None
    assert found.variants[0] == pytest.approx(1.0)
    assert found.variants[1] == sum(bool(row.flagged) for row in found.pairs)


# -- missing ratings -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clusters")
def test_refusals_are_counted_and_models_that_refuse_keep_their_place() -> None:
    x = example(4, 20, 8)
    x[1::2, 3] = np.nan  # refuses all that is contested
    x[:, 5] = np.nan  # and this one everything
    stage = ["a", "b"] * 4
    found = analyse(ratings_of(x, ["control", "clash"] * 10, groups={"stage": stage}), QUICK)
    assert sum(n for *_, n in found.missing) == 30
    assert found.clustered == [0, 1, 2, 4, 6, 7]
    assert found.clusters is not None
    assert [row.cluster for row in found.models] == [
        None if m in (3, 5) else found.clusters.labels[found.clustered.index(m)] for m in range(8)
    ]
    assert (found.models[5].mean, found.models[5].missing) == (None, 20)
    contested = next(row for row in found.groups if row.on == "contested pairs")
    assert (contested.labels, contested.unlabelled) == ({"a": 4, "b": 2}, 2)
    assert found.k == 3  # half of the seven that rated
    assert [row.k for row in found.councils] == [2, 3, 4, 5]  # of the six that rated what is contested
    whole = analyse(ratings_of(x[:, found.clustered], ["control", "clash"] * 10), QUICK)
    assert [row.rate for row in whole.councils] == pytest.approx([row.rate for row in found.councils[: len(whole.councils)]])


@pytest.mark.usefixtures("quick_clusters")
def test_what_is_done_about_missing_ratings_is_shown_side_by_side() -> None:
    x = example(4, 20, 8)
    assert analyse(ratings_of(x, ["control", "clash"] * 10), QUICK).sensitivity == {}
    x[1, 0] = x[3, 2] = np.nan
    x[5] = np.nan
    found = analyse(ratings_of(x, ["control", "clash"] * 10), QUICK)
    there = found.sensitivity["ratings there are"]["clash"]
    assert there == pytest.approx(found.comparisons[0].test.ratio)
    kept = np.array([i not in (1, 3, 5) for i in range(20)])
    alone = analyse(ratings_of(x[kept], [c for c, k in zip(["control", "clash"] * 10, kept, strict=True) if k]), QUICK)
    assert found.sensitivity["pairs that every model rated"]["clash"] == pytest.approx(alone.comparisons[0].test.ratio)


@pytest.mark.usefixtures("quick_clusters")
def test_models_that_share_no_pair_are_named() -> None:
    x = example(4, 20, 6)
    x[10:, 1], x[:10, 4] = np.nan, np.nan
    found = analyse(ratings_of(x, ["control", "clash"] * 10), QUICK)
    assert found.clusters is None
    assert "no clusters of models: m1 and m4 rated no pair in common" in found.notes


# -- what categories are for -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clusters")
def test_roles_come_from_names_and_from_settings() -> None:
    kinds = ["control_high", "control_mid", "foil_control", "Neutral_Contradiction", "anchor-low", "clash", "reverse_foil", "clash"] * 3
    x = example(3, 24)
    found = analyse(ratings_of(x, kinds), QUICK)
    assert (found.roles.controls, found.roles.middle) == (("control_high", "control_mid", "foil_control"), ("control_mid",))
    assert (found.roles.contradictions, found.roles.anchors, found.roles.contested) == (
        ("Neutral_Contradiction",),
        ("anchor-low",),
        ("clash",),
    )
    assert found.roles.foils == ("reverse_foil",)
    assert [(one.first, one.second) for one in found.comparisons] == [("clash", "all controls")]
    assert [(one.first, one.second) for one in found.matched] == [("clash", "control_mid")]
    assert [(one.first, one.second) for one in found.beyond] == [
        ("Neutral_Contradiction", "all controls"),
        ("reverse_foil", "all controls"),
        ("clash", "Neutral_Contradiction"),
    ]
    named = analyse(ratings_of(x, kinds), replace(QUICK, controls=("Neutral*",), contradictions=("clash",), anchors=("anchor-low",)))
    assert (named.roles.controls, named.roles.contradictions) == (("Neutral_Contradiction",), ("clash",))
    assert named.roles.contested == ("control_high", "control_mid", "foil_control")


@pytest.mark.usefixtures("quick_clusters")
def test_councils_are_of_contested_pairs_that_divide_the_ensemble_by_more_than_passes_for_agreement() -> None:
    x = np.array([[0.1, 0.9, 0.5, 0.5], [0.4, 0.59, 0.5, 0.5], [0.2, 0.8, 0.5, 0.5], [0.1, 0.9, 0.2, 0.8]])
    found = analyse(ratings_of(x, ["anchor", "clash", "clash", "control"]), QUICK)
    assert [row.flagged for row in found.pairs] == [True, True, True, True]  # four models are flagged from .177 on
    assert {row.pairs for row in found.councils} == {1}
    assert [row.rate for row in found.councils] == pytest.approx([1 / 6, 0.0])


@pytest.mark.usefixtures("quick_clusters")
def test_topics_are_used_where_most_pairs_share_theirs() -> None:
    x, kinds = example(3, 24), ["control", "clash"] * 12
    topic = [f"t{i // 2}" for i in range(24)]
    matched = analyse(ratings_of(x, kinds, topic=topic), QUICK).comparisons[0].test
    assert matched.relabellings == 2**12
    few = analyse(ratings_of(x, kinds, topic=[t if i < 4 else None for i, t in enumerate(topic)]), QUICK).comparisons[0].test
    assert (few.first, few.left_out) == (12, 0)


@pytest.mark.usefixtures("quick_clusters")
def test_kin_are_moved_together_or_exchanged_among_themselves() -> None:
    x, kinds = example(3, 24, 12), ["control", "clash"] * 12
    developer = [f"d{m // 2}" for m in range(12)]
    groups = {
        "developer": developer,
        "country": ["u"] * 6 + ["v"] * 6,
        "stage": ["base", "dpo"] * 6,
        "half": ["x"] * 2 + ["y"] * 10,
    }
    rows = {row.column: row for row in analyse(ratings_of(x, kinds, groups=groups), QUICK).groups if row.on == "contested pairs"}
    assert set(rows) == {"developer", "country", "stage", "half"}
    assert rows["country"].share is not None
    assert rows["country"].share.labelings == 20  # three developers of six
    assert (rows["country"].reason, rows["country"].sound, rows["country"].independent) == (
        "labels of one developer are moved together",
        True,
        False,
    )
    assert rows["stage"].share is not None
    assert rows["stage"].share.labelings == 2**6
    assert (rows["stage"].sound, rows["stage"].independent) == (True, False)
    assert (rows["developer"].sound, rows["developer"].independent) == (False, True)
    alone = {"developer": ["d"] * 12, "country": ["u"] * 6 + ["v"] * 6}
    row = next(r for r in analyse(ratings_of(x, kinds, groups=alone), QUICK).groups if r.column == "country")
    assert row.share is not None
    assert row.sound  # within one developer every labelling is possible
    same = {"developer": ["d", "e"] * 6, "country": ["u", "v"] * 6}
    row = next(r for r in analyse(ratings_of(x, kinds, groups=same), QUICK).groups if r.column == "country")
    assert row.share is not None
    assert row.share.p == 1.0  # two developers: exchanging them is all there is


@pytest.mark.usefixtures("quick_clusters")
@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["u"] * 6, "all models have the same label"),
        ([f"g{i}" for i in range(6)], "every model has a label of its own"),
        ([None] * 6, "no model has a label"),
    ],
)
def test_labels_that_are_no_groups_say_so_once(labels: Sequence[str | None], reason: str) -> None:
    found = analyse(ratings_of(example(3, 12, 6), ["control", "clash"] * 6, groups={"country": labels}), QUICK)
    assert [(row.on, row.reason) for row in found.groups] == [("contested pairs", reason)]


# -- the collapse contrast -------------------------------------------------------------------------------------------------------


def _topics(models: int, positions: Sequence[float], seed: int = 0) -> tuple[FloatArray, list[str], list[str | None]]:
    """Paraphrases at .9, contradictions at .1, clashes of every model at its position between; twelve topics, and one control that is no paraphrase."""
    rng = np.random.default_rng(seed)
    rows, kinds, topics = [], [], []
    for t in range(12):
        for kind in ("control", "control_mid", "clash", "contradiction"):
            base = {"control": 0.9, "control_mid": 0.5, "contradiction": 0.1}.get(kind)
            own = np.full(models, base) if base is not None else 0.1 + 0.8 * np.asarray(positions)
            rows.append(own + 0.02 * rng.normal(size=models))
            kinds.append(kind)
            topics.append(f"t{t}")
    return np.clip(rows, 0, 1), kinds, topics


@pytest.mark.usefixtures("quick_clusters")
def test_the_collapse_contrast_says_who_smooths_a_clash_over() -> None:
    positions = (0.0, 0.25, 0.5, 0.75, 1.0)
    x, kinds, topics = _topics(5, positions)
    found = analyse(ratings_of(x, kinds, topic=topics), QUICK)
    whole, *single = found.collapse
    assert (whole.model, whole.models, whole.topics, whole.contradictions) == (None, 5, 12, 12)
    assert whole.position == pytest.approx(0.5, abs=0.02)
    assert [row.model for row in single] == ["m0", "m1", "m2", "m3", "m4"]
    for row, truth in zip(single, positions, strict=True):
        assert row.position_low is not None
        assert row.position_high is not None
        assert row.position_low < row.position_high < row.position_low + 0.1
        assert row.position == pytest.approx(truth, abs=0.03)
        assert row.contrast == pytest.approx(0.8 * (truth - 0.5), abs=0.03)


@pytest.mark.usefixtures("quick_clusters")
def test_the_collapse_contrast_needs_topics_controls_and_contradictions() -> None:
    x, kinds, topics = _topics(5, (0.5,) * 5)
    assert analyse(ratings_of(x, kinds), QUICK).collapse == []
    assert analyse(ratings_of(x, [k.replace("contradiction", "other") for k in kinds], topic=topics), QUICK).collapse == []
    apart = [f"{t}{k}" for t, k in zip(topics, kinds, strict=True)]
    found = analyse(ratings_of(x, kinds, topic=apart), QUICK)
    assert found.collapse == []
    assert any("where clash lies between paraphrases and contradictions is not told: 0 topics shared" in note for note in found.notes)


@pytest.mark.usefixtures("quick_clusters")
def test_the_mean_of_the_collapse_contrast_is_of_models_that_rated_all() -> None:
    x, kinds, topics = _topics(5, (0.0, 0.25, 0.5, 0.75, 1.0))
    x[2, 4] = np.nan  # the model at 1 did not rate one clash
    found = analyse(ratings_of(x, kinds, topic=topics), QUICK)
    assert found.collapse[0].models == 4
    assert found.collapse[0].position == pytest.approx(0.375, abs=0.02)
    assert found.collapse[-1].topics == 11


# -- references ------------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clusters")
def test_anchors_calibrate_and_a_reference_gives_votes_and_an_illusion() -> None:
    rng = np.random.default_rng(0)
    truth = np.concatenate([np.linspace(0, 1, 6), np.full(6, 0.85), np.full(6, 0.3)])
    bend = np.linspace(0.6, 1.6, 6)  # every model bends the scale its own way
    x = np.clip(truth[:, None] ** bend + 0.01 * rng.normal(size=(18, 6)), 0, 1)
    kinds = ["anchor"] * 6 + ["control"] * 6 + ["clash"] * 6
    found = analyse(ratings_of(x, kinds, reference=truth), QUICK)
    assert set(found.calibrated) == {"control", "clash"}
    assert (found.calibrated["clash"] or 1) < 0.5 * found.spreads["clash"][0]
    assert [row.slope for row in found.models] == sorted((row.slope for row in found.models), key=float) or found.models[
        0
    ].slope is not None
    assert found.votes is not None
    assert found.votes.pairs == 12
    assert found.illusion["clash"] is not None
    assert analyse(ratings_of(x, kinds), QUICK).illusion == {}
    same = analyse(ratings_of(np.full((18, 6), 0.9), kinds, reference=[*truth[:6], *[0.9] * 6, *[0.1] * 6]), QUICK)
    assert same.illusion == pytest.approx({"control": 0.0, "clash": 8 / 9})
    assert any("no calibration" in note or "not calibrated" in note for note in same.notes)


# -- tables that say little ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_clusters")
@pytest.mark.parametrize(
    ("x", "kinds"),
    [
        (np.full((8, 6), 0.5), EIGHT),
        (np.zeros((8, 6)), EIGHT),
        (np.ones((8, 6)), EIGHT),
        (np.tile(np.arange(6) / 6, (8, 1)), EIGHT),
        (np.tile(np.arange(8)[:, None] / 8, (1, 6)), EIGHT),
        (example(0, 8, 2), EIGHT),
        (example(0, 8, 3), EIGHT),
        (example(0, 2, 2), ["control", "clash"]),
        (example(0, 8, 6), ["control"] * 8),
        (example(0, 8, 6), ["anchor"] * 8),
        (example(0, 8, 6), ["contradiction"] * 8),
        (example(0, 8, 6), ["x"] * 8),
        (example(0, 8, 6), [f"c{i}" for i in range(8)]),
    ],
    ids=["all equal", "all 0", "all 1", "constant models", "constant pairs", "2 models", "3 models", "2 by 2", "controls", "anchors", "contradictions",
         "one category", "a category each"],
)  # fmt: skip
def test_tables_that_say_little_claim_nothing(x: FloatArray, kinds: Sequence[str]) -> None:
    groups = {"country": ["u", "v"] * (x.shape[1] // 2) + ["u"] * (x.shape[1] % 2)}
    found = analyse(ratings_of(x, kinds, groups=groups), QUICK)
    json.loads(as_json(found))
    assert {c.judgement for c in claims(found)[:5]} <= {"cannot be told", "not supported"}
    assert all(c.why for c in claims(found))


def test_no_limit_of_a_mean_difference_is_beyond_what_a_scale_can_have() -> None:
    x = np.tile([0.0, 0, 0, 1, 1, 1], (4, 1))  # two camps at the ends: the mean difference of any law on [0, 1] is at most .5
    found = analyse(ratings_of(np.vstack([np.full((4, 6), 0.5) + np.arange(6) / 100, x]), ["control"] * 4 + ["clash"] * 4), QUICK)
    assert found.spreads["clash"] == (pytest.approx(0.6), pytest.approx(found.spreads["clash"][1]), pytest.approx(0.6))
    assert (found.spreads["control"][2] or 1) <= 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(order=("control", "zzz")), "--order names the category 'zzz', which no pair has; there are: control, clash"),
        (Settings(order=("control", "control")), "--order names two categories or more, each once"),
        (Settings(order=("control",)), "--order names two categories or more, each once"),
        (Settings(controls=("zzz",)), "--control names the category 'zzz'"),
        (Settings(contradictions=("zzz",)), "--contradiction names the category 'zzz'"),
        (Settings(tau=1.5), "--tau lies between 0 and 1; got 1.5"),
        (Settings(tau=float("nan")), "--tau lies between 0 and 1; got nan"),
        (Settings(step=0.0), "--step, as a share of the whole scale, lies between 0 and 1; got 0"),
        (Settings(level=0.4), "--level lies between 0.5 and 1; got 0.4"),
        (Settings(rarefied=7), "--rarefy takes 2 models or more, and no more than the 6 that rated pairs; got 7"),
        (Settings(draws=0), "permutations and resamples are 1 or more"),
    ],
)
def test_settings_that_fit_nothing_are_one_sentence(settings: Settings, message: str) -> None:
    with pytest.raises(InputError, match=message):
        analyse(ratings_of(example(0, 8, 6), EIGHT), settings)


def test_tables_without_divergence_are_one_sentence() -> None:
    nothing = np.full((8, 6), np.nan)
    with pytest.raises(InputError, match="0 models rated anything; divergence needs two models or more"):
        analyse(ratings_of(nothing, EIGHT))
    nothing[:, 0] = 0.5
    with pytest.raises(InputError, match="1 model rated anything"):
        analyse(ratings_of(nothing, EIGHT))
    nothing[0, 1] = 0.5
    with pytest.raises(InputError, match="fewer than two pairs were rated by two models or more"):
        analyse(ratings_of(nothing, EIGHT))
