"""Changes over what was not seen: a hand computation, by item id and by content, whichever way is better, source by source, arm by arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from aligntax.core.ids import item_content
from aligntax.core.ledger import Entry
from aligntax.core.study import Analysis
from aligntax.flow.diff import ArmSource, chain, diff_logs
from aligntax.flow.held_out import HeldOut, held_out
from aligntax.store.logs import Want
from aligntax.store.run import StoredRun, load_run, write_run
from tests.support.tables import write_csv

Rows = list[dict[str, Any]]
Seen = set[tuple[str, str, str]]


def kept(folder: Path, arms: dict[str, Rows], parents: dict[str, str] | None = None, analysis: Analysis | None = None) -> StoredRun:
    """A run of these arms with a page that nobody reads; each made from the one before it, unless said otherwise."""
    names = list(arms)
    paths = {name: write_csv(folder / f"{name}.csv", rows) for name, rows in arms.items()}
    between = [(name, paths[name], (parents or {}).get(name)) for name in names[1:-1]]
    tree = chain(paths[names[0]], paths[names[-1]], (names[0], names[-1]), between)
    tree = [ArmSource(a.name, a.path, (parents or {}).get(a.name, a.parent)) for a in tree]
    with diff_logs(tree, analysis or Analysis(), Want()) as found:
        write_run(folder / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    return load_run(folder / "run")


def scored(scores: Sequence[float], task: str = "sums", prefix: str = "i", **more: Any) -> Rows:
    return [{"task": task, "item": f"{prefix}{n}", "score": score, **more} for n, score in enumerate(scores)]


def asked(scores: Sequence[float], task: str = "sums") -> Rows:
    """Rows with a question and an answer, and so with a content."""
    return [row | {"question": f"{task} {n}?", "target": f"t{n}"} for n, row in enumerate(scored(scores, task))]


def content(n: int, task: str = "sums") -> str:
    return item_content(f"{task} {n}?", None, f"t{n}")


def ids(numbers: Sequence[int], task: str = "sums") -> Seen:
    return {(task, f"i{n}", "") for n in numbers}


def without(folder: Path, base: Rows, tuned: Rows) -> Entry:
    """The change of rows from which what was seen is gone."""
    folder.mkdir()
    return kept(folder, {"base": base, "tuned": tuned}).ledger.find("sums")


def numbers(one: Entry) -> dict[str, Any]:
    return one.model_dump(exclude={"details", "p_adjusted"})


def change(found: HeldOut, arm: str, task: str = "sums") -> Entry:
    return found.changes[arm][task]


BASE = [1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1, 0, 1]
TUNED = [0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1, 1, 1]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """One task, and no contents."""
    return kept(tmp_path_factory.mktemp("plain"), {"base": scored(BASE), "tuned": scored(TUNED)})


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Two tasks whose items have the same ids."""
    arms = {name: [*scored(scores), *scored(scores, "reading")] for name, scores in (("base", BASE), ("tuned", TUNED))}
    return kept(tmp_path_factory.mktemp("two"), arms)


def test_changes_are_those_of_a_hand_computation(plain: StoredRun, tmp_path: Path) -> None:
    """Items 0 to 4 were seen, all of them lost: of the other 15 three were lost and two gained."""
    found = held_out(plain, "base", ["tuned"], ids(range(5)))
    one = change(found, "tuned")
    d = np.array(TUNED[5:]) - np.array(BASE[5:])
    assert (one.n, one.baseline_value, one.candidate_value) == (15, pytest.approx(11 / 15), pytest.approx(10 / 15))
    assert one.change == pytest.approx(-1 / 15) == pytest.approx(d.mean())
    assert one.cost == pytest.approx(1 / 15)
    assert numbers(one) == numbers(without(tmp_path / "cut", scored(BASE)[5:], scored(TUNED)[5:]))
    assert found.left_out == {"sums": 5}
    assert plain.ledger.find("sums").n == 20  # the run itself is as it was


def test_nothing_seen_is_the_run_itself(plain: StoredRun) -> None:
    found = held_out(plain, "base", ["tuned"], {("sums", "i99", "0123456789abcdef"), ("other", "i0", "")})
    assert numbers(change(found, "tuned")) == numbers(plain.ledger.find("sums"))
    assert found.left_out == {}


def test_ids_are_those_of_their_task(two: StoredRun) -> None:
    """Item i0 of one task says nothing of item i0 of another."""
    found = held_out(two, "base", ["tuned"], ids(range(5)))
    assert (change(found, "tuned").n, change(found, "tuned", "reading").n) == (15, 20)
    assert found.left_out == {"sums": 5}


def test_items_are_found_by_content_under_other_ids(tmp_path: Path) -> None:
    """What was read elsewhere under another id, and of which only the beginning of the content's hash was kept."""
    run = kept(tmp_path, {"base": asked(BASE), "tuned": asked(TUNED)})
    found = held_out(run, "base", ["tuned"], {("sums", f"elsewhere-{n}", content(n)[:16]) for n in range(5)})
    assert (change(found, "tuned").n, found.left_out) == (15, {"sums": 5})
    mixed = {
        ("sums", "i7", ""),
        ("sums", "x", content(3)[:16]),
        ("sums", "", content(4)),
        ("sums", "", ""),
        ("reading", "x", content(5)[:16]),
    }
    assert held_out(run, "base", ["tuned"], mixed).left_out == {"sums": 3}
    wrong = {("sums", f"elsewhere-{n}", content(n)[:15] + "!") for n in range(5)}
    assert held_out(run, "base", ["tuned"], wrong).left_out == {}


def test_a_run_without_contents_knows_items_by_id_alone(plain: StoredRun) -> None:
    assert held_out(plain, "base", ["tuned"], {("sums", f"x{n}", content(n)[:16]) for n in range(5)}).left_out == {}
    assert held_out(plain, "base", ["tuned"], {("sums", f"i{n}", content(n)[:16]) for n in range(5)}).left_out == {"sums": 5}


def test_everything_seen_is_an_error_that_says_so(plain: StoredRun) -> None:
    with pytest.raises(InputError, match="seen"):
        held_out(plain, "base", ["tuned"], ids(range(20)))


def test_a_run_of_summaries_has_no_items(tmp_path: Path) -> None:
    (tmp_path / "card.csv").write_text("model,ARC,MMLU\nbase,56,62.0\ntuned,57.5,61.0\n")
    base, tuned = (Path(f"{tmp_path / 'card.csv'}#{name}") for name in ("base", "tuned"))
    with diff_logs(chain(base, tuned, ("base", "tuned"), []), Analysis(), Want()) as found:
        assert not any(arm.samples for arm in found.rows.arms)
        write_run(tmp_path / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    with pytest.raises(InputError, match="sample"):
        held_out(load_run(tmp_path / "run"), "base", ["tuned"], set())


def test_a_task_all_of_whose_items_were_seen_has_no_change(two: StoredRun) -> None:
    found = held_out(two, "base", ["tuned"], ids(range(20), "reading"))
    assert set(found.changes["tuned"]) == {"sums"}
    assert found.left_out == {"reading": 20}


def test_less_of_a_loss_is_better(tmp_path: Path) -> None:
    """Toxicity that rises is a cost, as is an accuracy that falls; the run says which way is which, whatever its words."""
    low, high = [0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.3, 0.1, 0.2, 0.1, 0.2], [0.4, 0.2, 0.5, 0.3, 0.6, 0.4, 0.2, 0.5, 0.3, 0.2, 0.6, 0.4]
    arms = {
        name: [*scored(values, "rude", metric="heat"), *scored(values, "kind", metric="warmth")]
        for name, values in (("base", low), ("tuned", high))
    }
    run = kept(tmp_path, arms, analysis=Analysis(lower_is_better=("heat",)))
    found = held_out(run, "base", ["tuned"], {("rude", "i0", ""), ("kind", "i0", "")})
    rude, kind = change(found, "tuned", "rude"), change(found, "tuned", "kind")
    rise = float(np.mean(high[1:]) - np.mean(low[1:]))
    assert (rude.higher_is_better, kind.higher_is_better) == (False, True)
    assert (rude.change, rude.cost) == (pytest.approx(rise), pytest.approx(rise))
    assert (kind.change, kind.cost) == (pytest.approx(rise), pytest.approx(-rise))


def test_directions_are_those_that_the_run_was_made_with(tmp_path: Path) -> None:
    """A reader's word on a metric's direction is not in its rows; the ledger has it."""
    rows = {"base": scored(BASE, metric="depth"), "tuned": scored(TUNED, metric="depth")}
    run = kept(tmp_path, rows)
    turned = [entry.model_copy(update={"higher_is_better": False}) for entry in run.ledger]
    run = StoredRun(run.path, run.study, run.ledger.model_copy(update={"entries": tuple(turned)}), run.provenance)
    assert change(held_out(run, "base", ["tuned"], ids(range(5))), "tuned").cost == pytest.approx(-1 / 15)


def test_sources_are_kept(tmp_path: Path) -> None:
    """Items of one source are not independent, of the unseen ones either: the error is that of these items in their sources."""
    arms = {
        name: [row | {"cluster": f"c{n // 2}"} for n, row in enumerate(scored(scores + scores[::-1]))]
        for name, scores in (("base", BASE), ("tuned", TUNED))
    }
    found = held_out(kept(tmp_path, arms), "base", ["tuned"], ids(range(7)))
    assert found.akin == 1  # the other half of the fourth source
    one = change(found, "tuned")
    assert one.clusters == 17  # of 20, three were seen whole and one by half
    assert one.method.endswith("clustered")
    cut = without(tmp_path / "cut", arms["base"][7:], arms["tuned"][7:])
    assert (one.se, one.ci_low, one.ci_high) == (cut.se, cut.ci_low, cut.ci_high)


def test_the_arms_are_compared_with_the_base_alone(tmp_path: Path) -> None:
    """An item that one stage does not have is no loss to another's comparison, nor is the order of training."""
    other = [1 - x for x in BASE]
    arms = {"base": scored(BASE), "sft": scored(TUNED)[6:], "dpo": scored(other)}
    run = kept(tmp_path, arms)
    assert run.ledger.find("sums", candidate="dpo", baseline="base").n == 14  # there edges add up
    found = held_out(run, "base", ["sft", "dpo"], ids(range(2)))
    assert (change(found, "sft").n, change(found, "dpo").n) == (14, 18)
    assert {one.pair for of in found.changes.values() for one in of.values()} == {("base", "sft"), ("base", "dpo")}
    alone = held_out(run, "base", ["dpo"], ids(range(2)))
    assert alone.changes["dpo"] == found.changes["dpo"]
    assert set(alone.changes) == {"dpo"}


def test_any_arm_may_be_the_base(tmp_path: Path) -> None:
    run = kept(tmp_path, {"base": scored(BASE), "sft": scored(TUNED), "dpo": scored(BASE)})
    found = held_out(run, "sft", ["base", "dpo"], ids(range(5)))
    assert change(found, "base").pair == ("sft", "base")
    assert change(found, "base").change == pytest.approx(1 / 15)
    assert change(found, "dpo").change == pytest.approx(1 / 15)


def test_a_task_has_its_own_score_or_the_one_that_was_asked_for(tmp_path: Path) -> None:
    """The first by name of several that are scores; calibration stands beside, and is taken only by name."""
    arms = {
        name: [*scored(scores, metric="f1"), *scored(scores[::-1], metric="exact"), *scored([1 - x / 2 for x in scores], metric="brier")]
        for name, scores in (("base", BASE), ("tuned", TUNED))
    }
    run = kept(tmp_path, arms)
    assert change(held_out(run, "base", ["tuned"], ids(range(5))), "tuned").metric == "exact"
    assert change(held_out(run, "base", ["tuned"], ids(range(5)), "f1"), "tuned").change == pytest.approx(-1 / 15)
    brier = change(held_out(run, "base", ["tuned"], ids(range(5)), "brier"), "tuned")
    assert (brier.metric, brier.cost) == ("brier", pytest.approx(1 / 30))
    assert held_out(run, "base", ["tuned"], ids(range(5)), "nothing").changes == {"tuned": {}}


def test_trials_of_an_item_go_with_it(tmp_path: Path) -> None:
    arms = {
        name: [{"task": "sums", "item": f"i{n}", "trial": t, "score": int((n + t * shift) % 3 == 0)} for n in range(12) for t in range(2)]
        for name, shift in (("base", 1), ("tuned", 2))
    }
    one = change(held_out(kept(tmp_path, arms), "base", ["tuned"], ids([0, 5])), "tuned")
    assert one.n == 10
    assert sum(one.outcomes["base"].values()) == 20
