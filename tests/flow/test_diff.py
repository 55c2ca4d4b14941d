"""The verb diff on small logs whose answers are known: trees, trials, families, averages, outcomes, directions."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import approx

import aligntax
from aligntax import InputError, Ledger
from aligntax.core.ledger import MEAN_OVER_ITEMS, MEAN_OVER_TASKS
from tests.support.tables import pair, write_csv, write_jsonl, write_parquet

Rows = list[dict[str, Any]]


def run(folder: Path, base: Rows, candidate: Rows, **options: Any) -> Ledger:
    stages = [(name, write_csv(folder / f"{name}.csv", rows), *parent) for name, rows, *parent in options.pop("stages", ())]
    return aligntax.diff(write_csv(folder / "base.csv", base), write_csv(folder / "candidate.csv", candidate), stages=stages, **options)


def noisy(seed: int, n: int = 120, p: float = 0.7, **more: Any) -> Rows:
    rng = random.Random(seed)
    return [{"item": f"i{i}", "score": int(rng.random() < p), **more} for i in range(n)]


def test_known_answers_through_the_whole_flow(tmp_path: Path) -> None:
    entry = run(tmp_path, *pair(15, 2, 7, 6), margin=0.05)[0]
    assert entry.method == "score"
    assert (entry.n, entry.baseline_value, entry.candidate_value) == (30, 17 / 30, 22 / 30)
    assert [entry.ci_low, entry.ci_high] == approx([-0.03373323001550859, 0.36329604591735387], abs=1e-12)
    assert entry.p_value == approx(0.0955807045456294, rel=1e-9)
    assert entry.p_adjusted is None
    # The lower limit, -.034, lies above -.05: a loss of the margin is ruled out, at p = .018.
    assert entry.verdict == "no_tax"
    assert entry.checks == ("few flips (9): no interval is exact here, this one is conservative",)
    assert entry.details["n_needed_no_tax"] == approx(966.2239777511243)
    assert entry.outcomes == {"base": {"scored": 30}, "candidate": {"scored": 30}}


def test_order_reader_and_chunks_do_not_matter(tmp_path: Path) -> None:
    base, candidate = noisy(1, cluster=None), noisy(2)
    for i, (a, b) in enumerate(zip(base, candidate, strict=True)):
        for row, say in ((a, "yes, really"), (b, 'a "quoted", odd\nline')):
            row |= {
                "cluster": f"c{i % 9}",
                "question": f"Frage {i}: wie viel ist {i} ÷ 2?",
                "target": str(i % 3),
                "answer": say,
                "score": row["score"] * (i % 4) / 3,
            }
    ledgers = []
    for write, suffix in ((write_csv, "csv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")):
        paths = [write(tmp_path / f"{name}.{suffix}", rows) for name, rows in (("a", base), ("b", candidate))]
        ledgers.append(aligntax.diff(*paths, bootstrap=50))
    shuffled = [random.Random(3).sample(rows, len(rows)) for rows in (base, candidate)]
    ledgers.append(run(tmp_path, *shuffled, bootstrap=50))
    assert ledgers[0][0].n == 120
    for other in ledgers[1:]:
        assert other.to_json() == ledgers[0].to_json()


def test_swapping_the_arms_turns_every_sign(tmp_path: Path) -> None:
    base, candidate = noisy(1, cluster="x"), noisy(2, cluster="x")
    for i, rows in enumerate(zip(base, candidate, strict=True)):
        for row in rows:
            row["cluster"] = i % 12
    one, other = run(tmp_path, base, candidate)[0], run(tmp_path, candidate, base)[0]
    assert one.change == approx(-(other.change or 0))
    assert one.ci_low == approx(-(other.ci_high or 0))
    assert (one.details["lost"], one.details["gained"]) == (other.details["gained"], other.details["lost"])
    assert one.p_value == approx(other.p_value or 0)


def test_edges_of_a_path_add_up_to_the_total_exactly(tmp_path: Path) -> None:
    base, sft, dpo = noisy(1), noisy(2), noisy(3)
    ledger = run(tmp_path, base[:110], dpo, stages=[("sft", sft[5:])], names=("base", "dpo"))
    edges = [e for e in ledger if e.pair in {("base", "sft"), ("sft", "dpo")}]
    total = ledger.find("table", baseline="base", candidate="dpo")
    assert [e.pair for e in ledger] == [("base", "sft"), ("sft", "dpo"), ("base", "dpo")]
    assert all(e.n == 105 for e in ledger)
    assert sum(e.change or 0 for e in edges) == approx(total.change or 0, abs=1e-15)
    assert edges[0].candidate_value == edges[1].baseline_value
    assert any("such pairs are left out" in check for check in total.checks)
    for entry in ledger:
        assert sum(entry.outcomes[entry.baseline].values()) == 120
        assert sum(entry.outcomes[entry.candidate].values()) == 120


def test_a_tree_with_branches(tmp_path: Path) -> None:
    ledger = run(tmp_path, noisy(1), noisy(2), stages=[("sft", noisy(3)), ("merge", noisy(4), "base")], names=("base", "dpo"))
    assert [e.pair for e in ledger] == [("base", "sft"), ("base", "merge"), ("sft", "dpo"), ("base", "dpo")]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([("base", noisy(3))], "two arms are named 'base'"),
        ([("sft", noisy(3), "rlhf")], "stage 'sft' names the parent 'rlhf', which is not an arm; known: base, sft, candidate"),
        ([("a", noisy(3), "b"), ("b", noisy(4), "a")], "is its own ancestor"),
    ],
)
def test_trees_that_are_none(tmp_path: Path, stages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path, noisy(1), noisy(2), stages=stages)


def test_trials_are_averaged_per_item(tmp_path: Path) -> None:
    right = {"base": [4, 3, 4, 0, 2, 4, 1, 4, 3, 4], "candidate": [4, 1, 3, 0, 2, 4, 0, 4, 3, 2]}
    arms = [
        [{"item": i, "trial": t, "score": int(t < k)} for i, k in enumerate(right[name]) for t in range(4)]
        for name in ("base", "candidate")
    ]
    entry = run(tmp_path, *arms, margin=0.05)[0]
    assert entry.method == "score-trials"
    assert (entry.n, entry.change) == (10, approx(-0.15))
    assert [entry.ci_low, entry.ci_high] == approx([-0.33977518729152584, 0.009085797023031512], abs=1e-12)
    assert entry.details["within_item_variance_baseline"] == approx(0.10833333333333332)
    assert entry.details["between_item_variance"] == approx(-0.018055555555555554)
    assert "4 trials per item averaged; the item is the unit" in entry.checks
    assert "change rests on 4 items" in entry.checks
    assert any(check.startswith("variance between items is estimated below 0") for check in entry.checks)
    assert entry.outcomes["base"] == {"scored": 40}


def test_unequal_trials_weigh_items_equally(tmp_path: Path) -> None:
    base = [{"item": "a", "trial": t, "score": 1} for t in range(9)] + [{"item": "b", "trial": 0, "score": 0}]
    candidate = [{"item": "a", "trial": 0, "score": 0}, {"item": "b", "trial": 0, "score": 0}, {"item": "b", "trial": 1, "score": 1}]
    entry = run(tmp_path, base, candidate)[0]
    assert entry.baseline_value == 0.5
    assert entry.candidate_value == 0.25
    assert any(check.startswith("1 to 9 trials") for check in entry.checks)


def test_clusters_asked_for_and_carried(tmp_path: Path) -> None:
    d = [1, 0, -1, -1, 0, 0, 0, 0, 1, 0, -1, -1, 0, 0, -1, 0, 0, -1, 0, 0, 1, 0, -1, 0]
    source = [0, 1, 1, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5]
    for column in ("document", "cluster"):
        arms: tuple[Rows, Rows] = ([], [])
        for i, (change, c) in enumerate(zip(d, source, strict=True)):
            before = 1 if change < 0 else 0
            for arm, score in zip(arms, (before, before + change), strict=True):
                arm.append({"item": i, "score": score, column: f"source {c}"})
        entry = run(tmp_path, *arms, cluster="document" if column == "document" else None, margin=0.05)[0]
        assert entry.method == "score-clustered"
        assert [entry.ci_low, entry.ci_high] == approx([-0.539979974691676, 0.267608218676873], abs=1e-12)
        assert entry.details["df"] == approx(3.4972353870458144)
        # Below four degrees of freedom there is no verdict, whatever the interval.
        assert entry.verdict == "undetermined"
        assert entry.checks[0] == f"clustered by {column}: 6 clusters, df 3.5, design effect 1.1"
        assert (
            entry.checks[1] == "df 3.5 < 4: too few or too unequal sources for a trustworthy interval; largest source holds 33 % of items"
        )


def test_a_cluster_column_constant_within_subgroups_clusters_the_total_only(tmp_path: Path) -> None:
    base, candidate = noisy(1, 200), noisy(2, 200)
    for i, rows in enumerate(zip(base, candidate, strict=True)):
        for row in rows:
            row["subject"] = f"s{i % 8}"
    ledger = run(tmp_path, base, candidate, cluster="subject", by="subject")
    assert ledger.find("table").clusters == 8
    for label in range(8):
        entry = ledger.find(f"table/s{label}")
        assert entry.clusters is None
        assert entry.method == "score"
        assert "subject is constant within each subgroup: it clusters the total only" in entry.checks


def test_one_source_gives_no_interval(tmp_path: Path) -> None:
    base, candidate = noisy(1), noisy(2)
    for row in (*base, *candidate):
        row["doc"] = "the only one"
    entry = run(tmp_path, base, candidate, cluster="doc")[0]
    assert (entry.ci_low, entry.p_value, entry.method, entry.verdict) == (None, None, "none", "undetermined")
    assert entry.checks[0] == "one source: no interval for other sources"


def test_families_adjust_tasks_and_subgroups(tmp_path: Path) -> None:
    base, candidate = [], []
    for k, (both, lost, gained, neither) in enumerate([(60, 20, 2, 18), (70, 6, 5, 19), (50, 10, 3, 37)]):
        a, b = pair(both, lost, gained, neither, task=f"t{k}")
        for i, rows in enumerate(zip(a, b, strict=True)):
            for row in rows:
                row |= {"item": f"{k}-{row['item']}", "half": i % 2}
        base, candidate = base + a, candidate + b
    ledger = run(tmp_path, base, candidate, by="half")
    tasks = [ledger.find(f"t{k}") for k in range(3)]
    p = [t.p_value or 0 for t in tasks]
    order = np.argsort(p)
    stepped = np.minimum(1, np.maximum.accumulate([p[i] * (3 - rank) for rank, i in enumerate(order)]))
    assert [tasks[i].p_adjusted for i in order] == approx(list(stepped))
    # Simultaneous limits are the interval at 1 - .05/3: wider than the marginal one.
    assert all(t.details["simultaneous_low"] < (t.ci_low or 0) for t in tasks)  # type: ignore[operator]
    for k in range(3):
        halves = [ledger.find(f"t{k}/{h}") for h in (0, 1)]
        assert all(h.details["holm_mcnemar_exact_p"] <= 1 for h in halves)  # type: ignore[operator]
        low, high = sorted(h.p_value or 0 for h in halves)
        assert sorted(h.p_adjusted or 0 for h in halves) == approx([min(1, 2 * low), max(min(1, 2 * low), high)])
    for name in (MEAN_OVER_TASKS, MEAN_OVER_ITEMS):
        assert ledger.find(name).p_adjusted is None
    assert ledger.find(MEAN_OVER_TASKS).change == approx(sum(t.change or 0 for t in tasks) / 3)
    assert ledger.find(MEAN_OVER_ITEMS).change == approx(sum((t.change or 0) * t.n for t in tasks) / sum(t.n for t in tasks))


def test_no_average_over_unequal_task_sets(tmp_path: Path) -> None:
    base = [{"task": t, "item": i, "score": 1} for t in ("a", "b", "c") for i in range(5)]
    candidate = [{"task": t, "item": i, "score": i % 2} for t in ("a", "b") for i in range(5)]
    ledger = run(tmp_path, base, candidate)
    average = ledger.find(MEAN_OVER_TASKS)
    assert (average.change, average.ci_low, average.verdict, average.method) == (None, None, "undetermined", "none")
    assert average.checks == ("no average over unequal task sets (only in base: c)",)
    alone = ledger.find("c")
    assert (alone.n, alone.change) == (0, None)
    assert alone.checks == ("only base has this task: nothing to compare",)
    assert alone.outcomes == {"base": {"scored": 5}, "candidate": {"absent": 5}}
    with pytest.raises(KeyError, match="mean over items"):
        ledger.find(MEAN_OVER_ITEMS)


def outcome_rows(cells: dict[str, int]) -> tuple[Rows, Rows]:
    """Rows from counts of outcome pairs such as RU (right, then unparsed)."""
    row = {"R": {"score": 1, "outcome": "scored"}, "W": {"score": 0, "outcome": "scored"}, "U": {"score": "", "outcome": "unparsed"}}
    pairs = [cell for cell, n in cells.items() for _ in range(n)]
    return tuple([{"item": i, **row[cell[side]]} for i, cell in enumerate(pairs)] for side in (0, 1))  # type: ignore[return-value]


def test_unparsed_answers_count_as_wrong_and_are_bounded(tmp_path: Path) -> None:
    base, candidate = outcome_rows({"RR": 8, "RW": 2, "WR": 1, "WW": 4, "RU": 2, "UR": 1, "WU": 1, "UU": 1})
    entry = run(tmp_path, base, candidate)[0]
    details = entry.details
    assert entry.change == approx(-0.1)
    assert details["change_both_parsed"] == approx(-0.06666666666666667)
    assert details["n_both_parsed"] == 15
    assert details["change_bounds"] == approx([-0.2, 0.1])
    low, high = details["change_bounds_ci"]  # type: ignore[misc]
    assert low < -0.2  # type: ignore[operator]
    assert high > 0.1  # type: ignore[operator]
    assert (details["unparsed_baseline"], details["unparsed_candidate"]) == (0.1, 0.2)
    assert "unparsed differ (10.0 % against 20.0 %); change lies between -20.0 and +10.0 whatever they hide" in entry.checks
    assert entry.outcomes == {"base": {"scored": 18, "unparsed": 2}, "candidate": {"scored": 16, "unparsed": 4}}


def test_a_verdict_that_does_not_depend_on_the_unparsed(tmp_path: Path) -> None:
    base, candidate = outcome_rows({"RR": 100, "RW": 60, "WW": 40, "RU": 1, "UR": 1})
    entry = run(tmp_path, base, candidate)[0]
    assert entry.verdict == "tax"
    assert "verdict does not depend on the unparsed" in entry.checks
    assert "format or knowledge: not separable" not in entry.checks


def test_failed_and_absent_leave_the_pair_out_and_refused_counts(tmp_path: Path) -> None:
    base = [{"item": i, "score": 1, "outcome": "scored"} for i in range(20)]
    candidate = [
        {"item": i, "score": s, "outcome": o}
        for i, (s, o) in enumerate([("", "failed"), ("", ""), ("", "refused"), ("", "truncated"), (1, "truncated"), *[(1, "scored")] * 14])
    ]
    entry = run(tmp_path, base, candidate)[0]
    assert entry.outcomes["candidate"] == {"scored": 14, "refused": 1, "truncated": 2, "failed": 1, "absent": 2}
    assert entry.n == 17
    assert entry.candidate_value == approx(15 / 17)
    assert entry.details["unparsed_candidate"] == approx(1 / 17)
    assert "no score for 3 in candidate, of 20 planned items; such pairs are left out" in entry.checks


def test_an_unparsed_answer_with_a_score_is_overruled(tmp_path: Path) -> None:
    base, candidate = pair(10, 0, 0, 5, outcome="scored")
    candidate[0]["outcome"] = "unparsed"
    entry = run(tmp_path, base, candidate)[0]
    assert entry.details["lost"] == 1
    assert "unparsed answers that carried a score (1 in candidate) count as incorrect" in entry.checks


def test_lower_is_better(tmp_path: Path) -> None:
    base, candidate = pair(20, 2, 30, 50)
    entry = run(tmp_path, base, candidate, lower_is_better=["score"])[0]
    up = run(tmp_path, base, candidate)[0]
    assert entry.higher_is_better is False
    assert (entry.change, entry.ci_low, entry.ci_high) == (up.change, approx(up.ci_low), approx(up.ci_high))
    assert entry.cost == entry.change
    assert up.cost == -(up.change or 0)
    assert (entry.verdict, up.verdict) == ("tax", "gain")
    assert (entry.details["lost"], entry.details["gained"]) == (30, 2)


def test_unbounded_scores_use_t_and_have_no_margin_of_their_own(tmp_path: Path) -> None:
    d = [0.12, -0.4, 0.03, 0.0, -2.1, 0.25, -0.08, -0.31, 0.05, -0.6, 0.01, -0.02]
    base, candidate = [{"item": i, "reward": 5.0} for i in range(12)], [{"item": i, "reward": 5.0 + x} for i, x in enumerate(d)]
    entry = run(tmp_path, base, candidate, columns={"score": "reward"})[0]
    assert (entry.method, entry.unit, entry.margin, entry.metric) == ("t", "reward", None, "reward")
    assert [entry.ci_low, entry.ci_high] == approx([-0.6531727445235516, 0.1448394111902182])
    assert "heavy tails (effective contributors 1.6 of 12): interval may cover far less than 95 %" in entry.checks
    assert "no margin is known for the unit reward: name one with --margin" in entry.checks
    assert "no log says whether more reward is better; taken as better (--lower-is-better says otherwise)" in entry.checks
    assert "noninferiority_p" not in entry.details


def test_a_known_scale_makes_scores_bounded(tmp_path: Path) -> None:
    rng = random.Random(0)
    base = [{"item": i, "score": rng.randint(5, 9)} for i in range(40)]
    candidate = [{"item": i, "score": rng.randint(4, 9)} for i in range(40)]
    entry = run(tmp_path, base, candidate, scales={"score": (1, 10)}, margin=0.5)[0]
    assert entry.method == "score"
    assert entry.details["df"] == 39
    with pytest.raises(InputError, match="outside the scale 1 to 8 named for it"):
        run(tmp_path, base, candidate, scales={"score": (1, 8)})


def test_bootstrap_is_a_seeded_cross_check(tmp_path: Path) -> None:
    base, candidate = noisy(1, 400), noisy(2, 400)
    one, again = (run(tmp_path, base, candidate, bootstrap=2000, seed=4)[0] for _ in range(2))
    assert one == again
    assert one.details["bootstrap_low"] == approx(one.ci_low, abs=0.01)
    assert one.details["bootstrap_high"] == approx(one.ci_high, abs=0.01)


def test_the_same_content_under_two_ids_is_noted_and_a_changed_content_does_not_pair(tmp_path: Path) -> None:
    base = [{"item": i, "score": 1, "question": "the same" if i < 3 else f"q{i}"} for i in range(10)]
    candidate = [{**row, "question": "another" if row["item"] == 9 else row["question"]} for row in base]
    entry = run(tmp_path, base, candidate)[0]
    assert entry.n == 9
    assert "2 of 11 items repeat the content of another under an id of their own" in entry.checks
    assert "1 item ids stand for different contents in different arms; they are not paired" in entry.checks
    assert entry.outcomes["base"] == {"scored": 10, "absent": 1}


def test_pairing_by_content_alone(tmp_path: Path) -> None:
    base = [{"question": f"q{i}", "score": i % 2} for i in range(10)]
    candidate = [{"question": f"q{i}", "score": 1} for i in reversed(range(10))]
    assert run(tmp_path, base, candidate)[0].n == 10
    # One arm has ids, the other only contents.
    named = [{"item": f"n{i}", **row} for i, row in enumerate(base)]
    assert run(tmp_path, named, candidate)[0].n == 10


def test_kinds_and_their_overrides(tmp_path: Path) -> None:
    rows = [{"task": t, "item": i, "score": i % 2} for t in ("toxigen", "xstest_safe", "truthfulqa_mc1", "mine") for i in range(12)]
    ledger = run(tmp_path, rows, rows, kinds={"mine": "consistency"})
    found = {e.task: e.kind for e in ledger}
    assert found == {"toxigen": "safety", "xstest_safe": "over_refusal", "truthfulqa_mc1": "performance", "mine": "consistency"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0}, "margin must be greater than 0"),
        ({"margin": -0.1}, "margin must be greater than 0"),
        ({"margin": "much"}, "margin must be a number greater than 0"),
        ({"level": 1.5}, "level: Input should be less than 1, got 1.5"),
        ({"kinds": {"x": "fun"}}, "kind of x must be one of performance"),
        ({"cluster": "nowhere"}, "has no cluster column 'nowhere'; its columns are: item, score"),
        ({"by": "nowhere"}, "has no subgroup column 'nowhere'"),
        ({"columns": {"score": "points"}}, "has no column 'points' .for score.; it has item, score"),
        ({"columns": {"scores": "points"}}, "unknown column role scores; known: item, score"),
        ({"scales": {"score": (3, 1)}}, "a scale runs from low to high"),
        ({"bootstrap": -5}, "bootstrap: Input should be greater than or equal to 0, got -5"),
        ({"bootstrap": 10**11}, "bootstrap: Input should be less than or equal to 1000000, got 100000000000"),
    ],
)
def test_wrong_settings_are_said_in_one_sentence(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        run(tmp_path, noisy(1), noisy(2), **options)
    assert "\n" not in str(caught.value)


def test_a_relative_margin(tmp_path: Path) -> None:
    entry = run(tmp_path, *pair(50, 5, 5, 40), margin="10%")[0]
    assert entry.margin == approx(0.055)


def test_the_ledger_is_a_table_a_frame_and_a_list(tmp_path: Path) -> None:
    ledger = run(tmp_path, *pair(15, 2, 7, 6), margin=0.01)
    assert len(ledger) == len(list(ledger)) == 1
    assert "undetermined" in str(ledger)
    assert "<td>undetermined</td>" in ledger._repr_html_()
    frame = ledger.to_frame()
    assert list(frame["change"]) == [ledger[0].change]
    assert Ledger.from_dict(ledger.to_dict()) == ledger


def test_a_frame_without_a_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    ledger, real = run(tmp_path, *pair(15, 2, 7, 6)), builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name in {"pandas", "polars"}:
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install 'aligntax\\[frames\\]'"):
        ledger.to_frame()


def test_mean_over_items_keeps_clusters_within_their_task(tmp_path: Path) -> None:
    base = [{"task": t, "item": f"{t}{i}", "score": i % 2, "cluster": i % 5} for t in "ab" for i in range(40)]
    candidate = [{**row, "score": int(i % 3 == 0)} for i, row in enumerate(base)]
    ledger = run(tmp_path, base, candidate)
    assert ledger.find(MEAN_OVER_ITEMS).clusters == 10
    assert ledger.find("a").clusters == 5


def test_a_check_says_when_only_the_family_keeps_an_entry_from_being_called(tmp_path: Path) -> None:
    base, candidate = [], []
    for k in range(14):
        a, b = pair(80, 12 if k == 0 else 2, 2, 6, task=f"t{k:02d}")
        base += [{**r, "item": f"{k}-{r['item']}"} for r in a]
        candidate += [{**r, "item": f"{k}-{r['item']}"} for r in b]
    entry = run(tmp_path, base, candidate).find("t00")
    assert entry.p_value is not None
    assert entry.p_value < 0.05
    assert entry.verdict == "undetermined"
    assert any(check.startswith("interval excludes 0 but 14 entries were examined (Holm p 0.1") for check in entry.checks)


def test_strict_accuracy_is_decided_task_by_task(tmp_path: Path) -> None:
    """A task rated 1 to 5 beside it must not turn unparsed answers of an accuracy into missing ones."""
    base = [{"task": "qa", "item": i, "score": 1, "outcome": "scored"} for i in range(100)]
    candidate = [{**row, "score": "" if i < 20 else 1, "outcome": "unparsed" if i < 20 else "scored"} for i, row in enumerate(base)]
    rated = [{"task": "rated", "item": i, "score": 1 + i % 5, "outcome": "scored"} for i in range(30)]
    entry = run(tmp_path, base + rated, candidate + rated).find("qa")
    assert (entry.n, entry.change, entry.verdict) == (100, approx(-0.2), "tax")
    assert entry.details["unparsed_candidate"] == 0.2


def test_a_gap_in_a_tables_own_cluster_column_does_not_drop_the_clusters(tmp_path: Path) -> None:
    base, candidate = noisy(1, 200), noisy(2, 200)
    for i, rows in enumerate(zip(base, candidate, strict=True)):
        for row in rows:
            row["cluster"] = f"c{i % 20}" if i else ""
    entry = run(tmp_path, base, candidate)[0]
    assert entry.clusters == 21
    assert "1 items have no cluster label: each is taken as a source of its own" in entry.checks


def test_two_extractors_with_several_trials(tmp_path: Path) -> None:
    metrics = ("exact_match,strict-match", "exact_match,flexible-extract")
    rows = [
        {"item": i, "trial": t, "metric": m, "score": (i + t + k) % 2} for i in range(12) for t in range(2) for k, m in enumerate(metrics)
    ]
    ledger = run(tmp_path, rows, rows)
    assert ledger[2].kind == "format"
    assert "within_item_variance" not in ledger[2].details


def test_equal_trials_in_another_order_are_no_change(tmp_path: Path) -> None:
    values = (0.1, 0.2, 0.3)
    base = [{"item": i, "trial": t, "score": values[t]} for i in range(30) for t in range(3)]
    candidate = [{"item": i, "trial": t, "score": values[2 - t]} for i in range(30) for t in range(3)]
    assert run(tmp_path, base, candidate)[0].details["items_changed"] == 0


def test_a_sibling_stage_costs_a_pair_no_items(tmp_path: Path) -> None:
    base, sft, merge = noisy(1), noisy(2), noisy(3)[:40]
    ledger = run(tmp_path, base, noisy(4), stages=[("sft", sft[5:]), ("merge", merge, "base")], names=("base", "dpo"))
    n = {e.pair: e.n for e in ledger}
    assert n == {("base", "sft"): 115, ("base", "merge"): 40, ("sft", "dpo"): 115, ("base", "dpo"): 115}


def test_a_stage_without_a_metric_leaves_the_others_comparable(tmp_path: Path) -> None:
    def rows(seed: int, *metrics: str) -> Rows:
        return [{**row, "metric": m} for row in noisy(seed) for m in metrics]

    ledger = run(tmp_path, rows(1, "acc", "f1"), rows(2, "acc", "f1"), stages=[("sft", rows(3, "acc"))])
    assert ledger.find("table", "f1", "candidate", "base").n == 120
    assert ledger.find("table", "f1", "sft").n == 0


def test_quantities_without_an_upper_end_are_no_fractions(tmp_path: Path) -> None:
    rng = random.Random(1)
    base, candidate = ([{"item": i, "latency_s": rng.uniform(0.2, 0.4)} for i in range(40)] for _ in range(2))
    entry = run(tmp_path, base, candidate, columns={"score": "latency_s"}, lower_is_better=["latency_s"])[0]
    assert (entry.method, entry.unit, entry.kind) == ("t", "seconds", "latency")


def test_an_average_carries_the_doubt_about_unparsed_answers(tmp_path: Path) -> None:
    base = [{"task": t, "item": i, "score": 1, "outcome": "scored"} for t in "ab" for i in range(80)]
    candidate = [{**row, "score": 0 if i % 4 == 0 else 1, "outcome": "unparsed" if i % 4 == 0 else "scored"} for i, row in enumerate(base)]
    entry = run(tmp_path, base, candidate).find(MEAN_OVER_TASKS)
    assert entry.details["change_bounds"] == approx([-0.25, 0.0])
    assert "unparsed differ (0.0 % against 25.0 %); change lies between -25.0 and +0.0 whatever they hide" in entry.checks
    assert "format or knowledge: not separable" in entry.checks


def test_one_source_keeps_its_doubt_about_unparsed_answers_and_has_no_bootstrap(tmp_path: Path) -> None:
    base = [{"item": i, "score": 1, "outcome": "scored", "cluster": "one"} for i in range(40)]
    candidate = [{**row, "score": i % 2, "outcome": "scored" if i % 2 else "unparsed"} for i, row in enumerate(base)]
    entry = run(tmp_path, base, candidate, bootstrap=100)[0]
    assert entry.clusters == 1
    assert "bootstrap_low" not in entry.details
    assert any(check.startswith("unparsed differ (0.0 % against 50.0 %)") for check in entry.checks)


def test_a_share_of_nothing_is_no_margin(tmp_path: Path) -> None:
    entry = run(tmp_path, *pair(0, 0, 3, 40), margin="5%")[0]
    assert entry.margin is None
    assert any(check.startswith("no margin: a share of a baseline of 0 is nothing") for check in entry.checks)
