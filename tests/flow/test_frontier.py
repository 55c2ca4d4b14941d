"""Where arms stand: dominated, on the frontier or undetermined, for certain only where intervals say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.study import Analysis, Arm, Study
from aligntax.flow.frontier import Frontier, frontier, frontier_rows, place_of, plane, standing_sentence
from aligntax.flow.inversion import parameters
from aligntax.stats.paired import critical_value, paired_change
from tests.flow.test_exchange import entry

ARMS = {"good": (0.30, 0.00), "bad": (0.10, -0.20), "clever": (-0.10, 0.20)}
"""Safety and performance against the baseline."""


def changes(of: dict[str, tuple[float, float]], se: float | None = 0.005) -> list[Entry]:
    return [
        entry(kind, task, -value, se, candidate=arm)
        for arm, values in of.items()
        for (kind, task), value in zip((("safety", "toxigen"), ("performance", "sums")), values, strict=True)
    ]


def standings(found: Frontier) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {one.arm: (one.where, one.by) for one in found.standings}


def ledger(*entries: Entry) -> Ledger:
    return Ledger(study="s", baseline="base", entries=entries)


def test_what_is_certain() -> None:
    """``good`` is safer than base and loses nothing; ``bad`` is worse than ``good`` in both; ``clever`` trades one for the other."""
    found = frontier(ledger(*changes(ARMS, 0.001)))
    assert found.comparisons == 6 * 2
    assert found.coordinates == (("safety", "acc", "toxigen"), ("performance", "acc", "sums"))
    assert standings(found) == {
        "base": ("dominated", ("good",)), "good": ("on the frontier", ()), "bad": ("dominated", ("good",)), "clever": ("on the frontier", ()),
    }  # fmt: skip
    bad = found.standings[2]
    assert bad.apparently_by == ("good",)
    assert standing_sentence(bad) == "bad: dominated by good."


def test_what_is_not_certain_is_undetermined() -> None:
    found = frontier(ledger(*changes(ARMS, 0.15)))
    assert {one.where for one in found.standings} == {"undetermined"}
    assert found.standings[2].apparently_by == ("good",)
    assert standing_sentence(found.standings[2]) == (
        "bad: undetermined, dominated by good by the estimates alone; it is nowhere better for certain than base, good, clever."
    )
    nothing = frontier(ledger(*changes(ARMS, None)))
    assert {one.where for one in nothing.standings} == {"undetermined"}
    assert nothing.standings[2].apparently_by == ("good",)


def test_a_loss_below_the_margin_does_not_keep_an_arm_from_dominating_unless_it_is_certain() -> None:
    by_little = {"good": (0.30, -0.004)}
    assert standings(frontier(ledger(*changes(by_little, 0.002))))["base"] == ("dominated", ("good",))  # a loss of a point is ruled out
    assert standings(frontier(ledger(*changes(by_little, 0.0005))))["base"] == ("on the frontier", ())  # the loss is certain


def test_a_pair_of_the_ledger_is_taken_by_its_own_test() -> None:
    """Against the baseline the two differ by less than their errors; the paired comparison of the ledger knows better."""
    of = {"one": (0.30, 0.10), "two": (0.32, 0.11)}
    alone = frontier(ledger(*changes(of, 0.02)))
    assert standings(alone)["one"][0] == "undetermined"
    edge = [
        entry(kind, task, -change, 0.001, baseline="one", candidate="two")
        for kind, task, change in (("safety", "toxigen", 0.02), ("performance", "sums", 0.01))
    ]
    paired = frontier(ledger(*changes(of, 0.02), *edge))
    assert standings(paired)["one"] == ("dominated", ("two",))
    turned = [e.model_copy(update={"baseline": "two", "candidate": "one", "change": -(e.change or 0), "ci_low": -(e.ci_high or 0),
                                   "ci_high": -(e.ci_low or 0), "cost": -(e.cost or 0)}) for e in edge]  # fmt: skip
    assert standings(frontier(ledger(*changes(of, 0.02), *turned))) == standings(paired)


def test_less_is_better_and_coordinates_that_some_arm_lacks() -> None:
    entries = changes(ARMS, 0.001)
    entries += [entry("over_refusal", "xstest", 0.1, 0.01, candidate="good", higher_is_better=False)]
    found = frontier(ledger(*entries))
    assert found.left_out == ((("over_refusal", "acc", "xstest"), ("bad", "clever")),)
    rows: Any = frontier_rows(found)
    assert rows["left_out"] == [{"kind": "over_refusal", "metric": "acc", "task": "xstest", "missing_in": ["bad", "clever"]}]
    assert place_of(entries[-1]).value == pytest.approx(-0.1)
    with pytest.raises(InputError, match="no measurement with a better side is shared by all arms"):
        frontier(ledger(entry("safety", "toxigen", -0.1, 0.01), entry("performance", "sums", 0.1, 0.01, candidate="other")))


def test_equal_arms_are_never_told_apart() -> None:
    """300 studies of three arms and a baseline that are all alike: what is said of any is wrong at most one time in twenty."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(300):
        base = rng.normal(0, 0.01, 2)
        drawn = {name: tuple(rng.normal(0, 0.01, 2) - base) for name in ("a", "b", "c")}
        found = frontier(ledger(*changes(drawn, 0.01 * np.sqrt(2))))
        wrong += any(one.where != "undetermined" for one in found.standings)
    assert wrong / 300 <= 0.05


def test_what_rests_on_too_few_sources_is_certain_of_nothing() -> None:
    few = [e.model_copy(update={"details": {"df": 2.0}, "method": "score-clustered", "clusters": 3}) for e in changes(ARMS, 0.0001)]
    assert {one.where for one in frontier(ledger(*few)).standings} == {"undetermined"}


def test_arms_that_lose_different_items_differ_by_more_than_independent_errors_tell() -> None:
    """Two arms that are equally good, each losing 45 % of the items, and never the same ones: their changes have a correlation of -.8. With errors
    taken as independent one is said to be better in 7 % of the studies.
    """
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(500):
        u = rng.random(400)
        entries = []
        for arm, lost in (("a", u < 0.45), ("c", u > 0.55)):
            change = paired_change(np.where(lost, -1.0, 0.0), binary=True)
            assert change.test is not None
            low, high = change.test.interval(0.95)
            entries.append(
                entry(
                    "performance",
                    "sums",
                    -change.change,
                    change.se,
                    ci_low=low,
                    ci_high=high,
                    candidate=arm,
                    details=parameters(change.test),
                )
            )
        a, c = frontier(ledger(*entries)).standings[1:]
        wrong += "c" not in a.rivals or "a" not in c.rivals
    assert wrong / 500 <= 0.03


def test_the_plane_of_safety_and_performance() -> None:
    arms = [("base", None), ("good", "base"), ("bad", "good"), ("clever", "base")]
    study = Study(
        baseline="base", arms=tuple(Arm(name=n, parent=p, source=n, reader="table", identity=n) for n, p in arms), analysis=Analysis()
    )
    found = plane(study, ledger(*changes(ARMS)))
    assert found is not None
    assert (found.across, found.up) == (("safety", "acc", "toxigen"), ("performance", "acc", "sums"))
    assert [(p.arm, p.parent) for p in found.points] == arms
    assert (found.points[0].across.value, found.points[0].across.low) == (0.0, None)
    good = found.points[1].across
    half = critical_value(0.95, None) * 0.005
    assert (good.value, good.low, good.high) == pytest.approx((0.3, 0.3 - half, 0.3 + half))
    assert plane(study, ledger(entry("performance", "sums", 0.1, 0.01))) is None
