"""No judgement of a published claim is stronger than its evidence."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import log
from typing import Any

import numpy as np
import pytest

from aligntax.atlas import analysis as module
from aligntax.atlas.analysis import Analysis, Comparison, Finding, Settings, analyse
from aligntax.atlas.claims import Claim, claims
from aligntax.stats.contrasts import Contrast, LogRatio
from aligntax.stats.groups import GroupShare
from aligntax.stats.raters import cluster_raters
from tests.support.atlas_ratings import ratings_of

GROWS, STAIRS, SIZE, GEOGRAPHY, CAMPS, FLATTENS, ILLUSION = range(7)


@pytest.fixture(scope="module")
def base() -> Analysis:
    """A real analysis of three categories and two columns of groups, whose parts the tests exchange."""
    rng = np.random.default_rng(0)
    x = np.clip(0.5 + np.repeat([0.03, 0.1, 0.12], 6)[:, None] * rng.normal(size=(18, 12)), 0, 1)
    groups = {"country": ["u", "v"] * 6, "stage": ["base"] * 6 + ["dpo"] * 6}
    made = ratings_of(x, ["control"] * 6 + ["a"] * 6 + ["b"] * 6, groups=groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cluster_raters", partial(cluster_raters, resamples=20, permutations=39))
        return analyse(made, Settings(draws=199, resamples=200, order=("control", "a", "b")))


def comparison(
    low: float | None = 2.0,
    high: float | None = 3.5,
    finding: Finding = "more divergent",
    first: str = "a",
    adjusted: tuple[float, float] | None = None,
) -> Comparison:
    """One category against controls, with limits of how many times it is as divergent."""
    test = Contrast(log(2.5), 0.001, 0.001, True, 924, 6, 6, 0)

    def ratio(limits: tuple[float | None, float | None]) -> LogRatio:
        low, high = (None if v is None else log(v) for v in limits)
        return LogRatio(log(2.5), low, high, 0.95, 200, 6, 6, 12)

    return Comparison(first, "control", test, test, ratio((low, high)), ratio(adjusted or (low, high)), 0.01, 0.01, finding)


def judged(found: Analysis, which: int, **parts: Any) -> Claim:
    return claims(replace(found, **parts))[which]


def both(**more: Any) -> list[Comparison]:
    return [comparison(**more), comparison(first="b", **more)]


def test_more_disagreement_takes_tests_and_intervals_before_and_after_adjustment(base: Analysis) -> None:
    assert judged(base, GROWS, comparisons=both()).judgement == "supported"
    assert judged(base, GROWS, comparisons=both(low=0.9)).judgement == "not supported"
    assert judged(base, GROWS, comparisons=both(adjusted=(0.9, 3.0))).judgement == "not supported"
    before = judged(base, GROWS, comparisons=both(finding="only before adjustment"))
    assert before.judgement == "not supported"
    assert before.why.startswith("Of a, b it holds only before adjustment: ratings in the middle of the scale have more room to differ.")
    assert judged(base, GROWS, comparisons=[comparison(), comparison(first="b", finding="not shown")]).judgement == "not supported"
    less = comparison(first="b", low=0.2, high=0.6, finding="less divergent")
    assert judged(base, GROWS, comparisons=[comparison(), less]).judgement == "contradicted"
    assert judged(base, GROWS, comparisons=[comparison(), replace(less, adjusted_ratio=None)]).judgement == "not supported"


def test_a_category_that_could_not_be_compared_is_not_vouched_for(base: Analysis) -> None:
    one = judged(base, GROWS, comparisons=[comparison()])
    assert one.judgement == "not supported"
    assert one.why.startswith("b could not be compared. ")
    two = [comparison(first="a")]
    assert judged(base, STAIRS, steps=two).judgement == "not supported"  # one of two steps
    assert judged(base, SIZE, comparisons=[comparison(low=3.1, high=3.9)]).judgement == "cannot be told"


def test_of_other_models_nothing_is_told_without_intervals_over_models(base: Analysis) -> None:
    for parts in (both(low=None, high=None), both(low=2.5, high=2.5), [replace(c, ratio=None, adjusted_ratio=None) for c in both()]):
        one = judged(base, GROWS, comparisons=parts, steps=parts)
        assert one.judgement == "cannot be told"
        assert one.why.startswith("Of other models nothing can be told, as these ratings give no interval over models. ")
        assert "2.50 times (no interval over models)" in one.why
        assert judged(base, STAIRS, comparisons=parts, steps=parts).judgement == "cannot be told"
        assert judged(base, SIZE, comparisons=parts).judgement == "cannot be told"


@pytest.mark.parametrize("models", [2, 3])
def test_two_or_three_models_support_no_claim_however_sure_they_are(models: int) -> None:
    rng = np.random.default_rng(0)
    x = np.clip(0.5 + np.repeat([0.01, 0.3], 40)[:, None] * rng.normal(size=(80, models)), 0, 1)
    found = analyse(ratings_of(x, ["control"] * 40 + ["a"] * 40), Settings(draws=199, resamples=100, order=("control", "a")))
    assert found.comparisons[0].finding == "more divergent"
    told = claims(found)
    assert {c.judgement for c in told[:5]} == {"cannot be told"}
    assert "intervals over models take 4 models or more" in told[GROWS].why


def test_what_is_lacking_is_said(base: Analysis) -> None:
    assert judged(base, GROWS, comparisons=[], roles=replace(base.roles, controls=())).why == "no category is control"
    assert judged(base, GROWS, comparisons=[], roles=replace(base.roles, contested=())).why == "no category is contested"
    assert judged(base, GROWS, comparisons=[]).why == "no category could be compared with the controls"
    assert judged(base, STAIRS, settings=replace(base.settings, order=())).why.startswith("the expected order was not named; --order")
    assert judged(base, STAIRS, trend=None).why == "the categories control, a, b have too few rated pairs to compare"
    assert judged(base, GEOGRAPHY, groups=[]).why.startswith("no column says where models come from")
    assert judged(base, CAMPS, groups=[]).why.startswith("no column says how models were aligned")
    assert judged(base, FLATTENS).why.startswith("no step of training was taken by two families")
    assert judged(base, ILLUSION, roles=replace(base.roles, contested=())).why == "no category is contested"
    assert judged(base, ILLUSION, councils=[]).why.startswith("no contested pair is flagged as divergent with a range above 0.2")
    two = judged(base, ILLUSION, councils=[], counts={**base.counts, "models": 2})
    assert two.why == "with two models no council is smaller than the ensemble"


def test_every_step_of_a_staircase_is_shown_by_itself(base: Analysis) -> None:
    assert judged(base, STAIRS, steps=both()).judgement == "supported"
    one = judged(base, STAIRS, steps=[comparison(), comparison(first="b", finding="not shown")])
    assert one.judgement == "not supported"
    assert one.why.startswith("1 of 2 steps is shown by themselves; a trend may rest on one. control to a: ")
    down = judged(base, STAIRS, steps=[comparison(), comparison(first="b", low=0.3, high=0.8, finding="less divergent")])
    assert (down.judgement, down.why[:18]) == ("contradicted", "A step goes down. ")


@pytest.mark.parametrize(
    ("limits", "adjusted", "judgement"),
    [
        ((3.1, 3.9), (3.2, 3.8), "supported"),
        ((2.0, 5.0), (2.0, 5.0), "cannot be told"),
        ((1.1, 2.5), (1.2, 2.0), "contradicted"),
        ((4.2, 9.0), (4.1, 7.0), "contradicted"),
        ((4.2, 9.0), (3.0, 7.0), "cannot be told"),
        ((3.1, 3.9), (1.0, 2.0), "cannot be told"),
    ],
)
def test_three_to_four_times(base: Analysis, limits: tuple[float, float], adjusted: tuple[float, float], judgement: str) -> None:
    assert judged(base, SIZE, comparisons=both(low=limits[0], high=limits[1], adjusted=adjusted)).judgement == judgement


def test_times_of_controls_that_are_rated_alike_hang_on_the_step_of_the_scale(base: Analysis) -> None:
    flat = [replace(row, gmd=0.0) if row.category == "control" else row for row in base.pairs]
    one = judged(base, SIZE, comparisons=both(low=8.0, high=20.0), pairs=flat)
    assert one.judgement == "cannot be told"
    assert one.why.startswith("models rate half of the controls alike, as far as a scale with steps of 0.01 can tell")


def share(
    base: Analysis, column: str, *, sound: bool = True, independent: bool = True, p: float = 0.001, reason: str = "", **parts: Any
) -> Analysis:
    """The analysis with another share of one column on contested pairs."""
    rows = [
        replace(
            row,
            share=replace(row.share, **parts) if isinstance(row.share, GroupShare) else None,
            sound=sound,
            independent=independent,
            p_holm=p,
            reason=reason,
        )
        if row.column == column and row.on == "contested pairs"
        else row
        for row in base.groups
    ]
    return replace(base, groups=rows)


def test_a_small_share_is_claimed_by_its_upper_bound_alone(base: Analysis) -> None:
    assert claims(share(base, "country", omega2=0.01, upper=0.14, p=0.5))[GEOGRAPHY].judgement == "supported"
    assert claims(share(base, "country", omega2=-0.05, upper=0.16, p=0.9))[GEOGRAPHY].judgement == "cannot be told"
    assert claims(share(base, "country", omega2=0.01, upper=None, p=0.5))[GEOGRAPHY].judgement == "cannot be told"
    assert claims(share(base, "country", omega2=0.4, upper=0.6))[GEOGRAPHY].judgement == "not supported"
    kin = claims(
        share(base, "country", omega2=0.01, upper=0.1, independent=False, p=0.5, reason="labels of one developer are moved together")
    )[GEOGRAPHY]
    assert kin.judgement == "cannot be told"
    assert "The bound takes models for independent, which kin are not" in kin.why
    for one in (share(base, "country", omega2=0.01, upper=0.1, sound=False), share(base, "country", omega2=0.4, upper=0.6, sound=False)):
        assert claims(one)[GEOGRAPHY].judgement == "cannot be told"


def test_camps_take_groups_of_five_a_test_and_a_share_that_is_not_tiny(base: Analysis) -> None:
    yes = claims(share(base, "stage", omega2=0.4))[CAMPS]
    assert yes.judgement == "supported"
    assert "that alignment is the cause takes models before and after it" in yes.why
    assert claims(share(base, "stage", omega2=0.4, independent=False))[CAMPS].judgement == "supported"  # the test has moved kin together
    assert claims(share(base, "stage", omega2=0.4, p=0.06))[CAMPS].judgement == "not supported"
    tiny = claims(share(base, "stage", omega2=0.01))[CAMPS]
    assert tiny.judgement == "not supported"
    assert "less than the 15 % that the source calls tiny" in tiny.why
    assert claims(share(base, "stage", omega2=0.4, sound=False))[CAMPS].judgement == "cannot be told"


def test_groups_of_fewer_than_five_models_are_not_sound() -> None:
    rng = np.random.default_rng(0)
    stage = ["base"] * 4 + ["dpo"] * 8
    x = np.clip(0.5 + 0.02 * rng.normal(size=(20, 12)) + np.where(np.array(stage) == "dpo", 0.2, -0.2), 0, 1)
    found = analyse(ratings_of(x, ["control"] * 10 + ["a"] * 10, groups={"stage": stage}), Settings(draws=199, resamples=100))
    (row,) = [row for row in found.groups if row.on == "contested pairs"]
    assert row.p_holm is not None
    assert row.p_holm < 0.01
    assert row.reason == "fewer than five models in base: too few for a claim about groups"
    assert claims(found)[CAMPS].judgement == "cannot be told"


def test_councils_are_counted_on_five_pairs_or_more(base: Analysis) -> None:
    assert base.councils
    rows = [replace(row, pairs=8, rate=0.04) for row in base.councils]
    assert judged(base, ILLUSION, councils=rows).judgement == "not supported"
    assert judged(base, ILLUSION, councils=[replace(row, rate=0.05) for row in rows]).judgement == "supported"
    few = judged(base, ILLUSION, councils=[replace(row, rate=0.9, pairs=4) for row in rows])
    assert few.judgement == "cannot be told"
    assert "So few pairs say nothing of others: it takes 5" in few.why


def test_clusters_that_chance_gives_as_well_are_not_told_of(base: Analysis) -> None:
    assert base.clusters is not None
    rows = [replace(row, within=0.9, across=0.1) for row in base.councils]
    real = judged(base, ILLUSION, councils=rows, clusters=replace(base.clusters, silhouette_p=0.01))
    assert "of councils of 3 from one cluster 90 %, of mixed ones 10 %" in real.why
    assert "cluster" not in judged(base, ILLUSION, councils=rows, clusters=replace(base.clusters, silhouette_p=0.4)).why


def test_every_claim_says_of_how_many_it_speaks(base: Analysis) -> None:
    for one in claims(replace(base, comparisons=both(), steps=both())):
        if one.judgement != "cannot be told":
            assert one.why.endswith("(18 pairs, 12 models, asked once, 0 ratings missing)")
