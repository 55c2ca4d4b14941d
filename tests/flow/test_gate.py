"""The gate: what it asks is what the ledger's own tests say, it never opens for want of data where a loss must be ruled out, and it holds its level."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import aligntax
from aligntax import Ledger
from aligntax.core.budget import BudgetFile, read_budget
from aligntax.core.errors import InputError
from aligntax.core.ledger import Entry
from aligntax.flow.gate import Held, gate
from aligntax.flow.inversion import inversion_of
from aligntax.report.gate import badge_json, badge_svg, gate_json, gate_markdown, github_annotations, junit, verdict_line
from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import noninferiority_p, p_value, upper_tail
from aligntax.stats.planning import items_for, items_needed
from aligntax.stats.quantiles import latency_details, quantile_changes
from aligntax.stats.tango import tango_interval
from tests.support.tables import write_csv

Run = Callable[..., subprocess.CompletedProcess[str]]
MAIN = [("base", "candidate")]


def budget(*lines: dict[str, object], confidence: float = 0.95) -> BudgetFile:
    return BudgetFile.model_validate({"budgets": lines, "confidence": confidence})


def table(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    return write_csv(path, rows)


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ledger]:
    """Every method: 0/1, graded, clusters, trials, unbounded, less is better, a scale, averages, subgroups, nothing paired."""
    folder = tmp_path_factory.mktemp("gate")
    rng = np.random.default_rng(3)

    def both(name: str, make: object, **options: object) -> Ledger:
        paths = [table(folder / f"{name}-{k}.csv", make(k)) for k in (0, 1)]  # type: ignore[operator]
        return aligntax.diff(*paths, **options)  # type: ignore[arg-type]

    def rows(k: int, tasks: Sequence[str], score: object, **more: object) -> list[dict[str, object]]:
        made = []
        for task in tasks:
            for i in range(120):
                made.append({"task": task, "item": i, "score": score(k, i), "g": f"g{i % 4}", **{n: f(i) for n, f in more.items()}})  # type: ignore[operator]
        return made

    def right(k: int, i: int) -> int:
        return int(rng.random() < (0.7 - 0.1 * k))

    return {
        "binary": both("binary", lambda k: rows(k, ["a", "b", "xstest_safe"], right), by="g"),
        "clustered": both("clustered", lambda k: rows(k, ["a", "b"], right, cluster=lambda i: f"s{i // 6}")),
        "graded": both("graded", lambda k: rows(k, ["a"], lambda k, i: round(float(rng.random()), 3))),
        "seconds": both(
            "seconds", lambda k: [{**r, "metric": "latency_s"} for r in rows(k, ["a"], lambda k, i: 1 + k * 0.1 + float(rng.random()))]
        ),
        "scale": both("scale", lambda k: rows(k, ["a"], lambda k, i: int(rng.integers(1, 11))), scales={"score": (1, 10)}),
        "trials": both("trials", lambda k: [{**r, "trial": t} for t in range(3) for r in rows(k, ["a"], right)]),
        "toxic": both("toxic", lambda k: [{**r, "metric": "toxicity"} for r in rows(k, ["a", "b"], right)], lower_is_better=["toxicity"]),
    }


def test_every_test_is_built_again_from_its_entry(ledgers: dict[str, Ledger], shared: Path) -> None:
    folder = shared / "data" / "nous_logs"
    unpaired = aligntax.diff(folder / "Mixtral-7x8-Base.md", folder / "Nous-Hermes-2-Mixtral-8x7B-DPO.md")
    entries = [e for ledger in (*ledgers.values(), unpaired) for e in ledger if e.ci_low is not None]
    assert {e.method for e in entries} == {"score", "score-clustered", "score-trials", "t", "unpaired"}
    for entry in entries:
        test = inversion_of(entry)
        assert test is not None, entry
        assert p_value(test) == pytest.approx(entry.p_value, rel=1e-6, abs=1e-12)
        if entry.margin is not None:
            assert noninferiority_p(test, entry.margin) == pytest.approx(entry.detail("noninferiority_p"), rel=1e-6, abs=1e-12)


def test_an_entry_whose_details_do_not_reproduce_its_interval_has_no_test(ledgers: dict[str, Ledger]) -> None:
    entry = ledgers["binary"][0]
    assert inversion_of(entry.model_copy(update={"details": {**entry.details, "effective_n": 7.0}})) is None


def test_ruled_out_is_the_ledgers_own_question(ledgers: dict[str, Ledger]) -> None:
    for name, ledger in ledgers.items():
        entry = next(e for e in ledger if e.pair == MAIN[0])
        for loss in (0.02, 0.08, 0.3):
            (held,) = gate(ledger, MAIN, budget({"task": entry.task, "metric": entry.metric, "lose_at_most": loss})).held
            test = inversion_of(entry)
            assert test is not None
            low, _ = test.interval(0.95)
            assert held.p == pytest.approx(noninferiority_p(test, loss))
            assert (held.status == "within") == (low > -loss), (name, loss)


def test_not_shown_is_adjusted_over_the_line(ledgers: dict[str, Ledger]) -> None:
    ledger = ledgers["binary"]
    line = {"task": "*/g*", "lose_at_most": 0.01, "rule": "not_shown"}
    found = gate(ledger, MAIN, budget(line)).held
    tests = [inversion_of(one.entry) for one in found]
    assert len(found) == 12
    alone = [upper_tail(-t.statistic(-0.01), t.df) for t in tests if t is not None]
    assert [one.p for one in found] == pytest.approx(holm(alone))
    assert [one.status for one in found] == ["exceeded" if p < 0.025 else "within" for p in holm(alone)]


def test_lines_hold_what_they_name(ledgers: dict[str, Ledger]) -> None:
    ledger = ledgers["binary"]

    def held(**line: object) -> list[str]:
        return [one.entry.task for one in gate(ledger, MAIN, budget({"lose_at_most": 0.5, **line})).held]

    assert held() == ["a", "b", "xstest_safe"]
    assert held(kind="over_refusal") == ["xstest_safe"]
    assert held(task="?") == ["a", "b"]
    assert held(task="a/*") == [f"a/g{k}" for k in range(4)]
    assert held(task="mean over items", kind="performance") == ["mean over items"]
    assert held(task="*a*") == ["a", "xstest_safe"]  # no average by chance
    for line, said in (
        ({"task": "nowhere*"}, r"no task is 'nowhere\*'; from base to candidate there are: a, a/g0"),
        ({"kind": "latency"}, "no kind is 'latency'; .* there are: over_refusal, performance"),
        ({"metric": "f1"}, "no metric is 'f1'"),
        ({"task": "a", "kind": "over_refusal"}, "no entry has all of that"),
    ):
        with pytest.raises(InputError, match=said):
            held(**line)


def test_less_is_better_and_shares_of_the_baseline(ledgers: dict[str, Ledger]) -> None:
    (slower,) = gate(ledgers["seconds"], MAIN, budget({"lose_at_most": "1%", "rule": "not_shown"})).held
    entry = slower.entry
    assert entry.baseline_value is not None
    assert slower.allowed == pytest.approx(0.01 * entry.baseline_value)
    test = inversion_of(entry)
    assert test is not None
    assert entry.change is not None
    assert test.statistic(-slower.allowed) == pytest.approx((-entry.change + slower.allowed) / entry.se)
    assert "1 % of the baseline" in slower.reason
    falls = [e.change for e in ledgers["toxic"] if e.task in ("a", "b")]
    assert all(c is not None and c < 0 for c in falls)  # less of it: no loss
    assert not gate(ledgers["toxic"], MAIN, budget({"lose_at_most": 0.05, "rule": "not_shown"})).exceeded


def test_too_little_data_keeps_a_gate_shut_that_wants_a_loss_ruled_out(tmp_path: Path) -> None:
    few = [table(tmp_path / f"{k}.csv", [{"item": i, "score": 1, "cluster": f"s{i % 3}"} for i in range(30)]) for k in (0, 1)]
    ledger = aligntax.diff(*few)
    assert ledger[0].change == 0
    (shut,) = gate(ledger, MAIN, budget({"lose_at_most": 0.2})).held
    assert (shut.status, shut.p) == ("exceeded", None)
    assert shut.reason == "too few sources for any verdict: a loss of 20 points is neither shown nor ruled out"
    (open_,) = gate(ledger, MAIN, budget({"lose_at_most": 0.2, "rule": "not_shown"})).held
    assert open_.status == "within"
    zero: Entry = ledger[0].model_copy(update={"baseline_value": 0.0})
    (unknown,) = gate(ledger.model_copy(update={"entries": (zero,)}), MAIN, budget({"lose_at_most": "5%"})).held
    assert (unknown.status, unknown.allowed) == ("exceeded", None)


def test_a_gate_of_no_change_holds_its_level() -> None:
    """Twenty tasks of two copies of one model: a loss beyond 1 point is "shown" on any of them in at most 2.5 % of releases; with a true loss of the
    margin on all of them, ruling it out everywhere errs in far fewer."""
    rng = np.random.default_rng(11)
    shown = opened = 0
    runs, n = 300, 300
    for _ in range(runs):
        for change, rule in ((-0.01, "not_shown"), (-0.05, "ruled_out")):
            entries = tuple(_entry(f"t{k}", *_flips(rng, n, change), n) for k in range(20))
            ledger = Ledger(study="s", baseline="base", entries=entries)
            loss = -change
            found = gate(ledger, MAIN, budget({"lose_at_most": loss, "rule": rule}))
            shown += rule == "not_shown" and bool(found.exceeded)
            opened += rule == "ruled_out" and not found.exceeded
    assert shown / runs <= 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
    assert opened / runs <= 0.025


def _flips(rng: np.random.Generator, n: int, change: float) -> tuple[int, int]:
    lost, gained, _ = rng.multinomial(n, [0.1 - change / 2, 0.1 + change / 2, 0.8])
    return int(lost), int(gained)


def _entry(task: str, lost: int, gained: int, n: int) -> Entry:
    low, high = tango_interval(lost, gained, n, 1.959963984540054)
    change = (gained - lost) / n
    return Entry(
        kind="performance", task=task, metric="acc", unit="fraction", higher_is_better=True, baseline="base", candidate="candidate", n=n, clusters=None,
        baseline_value=0.5, candidate_value=0.5 + change, change=change, cost=-change, se=0.02, level=0.95, ci_low=low, ci_high=high, p_value=0.5,
        p_adjusted=None, method="score", margin=0.01, verdict="undetermined", outcomes={},
        details={"effective_lost": float(lost), "effective_gained": float(gained), "effective_n": float(n)}, checks=(),
    )  # fmt: skip


def test_an_interval_is_that_of_the_budgets_confidence(ledgers: dict[str, Ledger]) -> None:
    for confidence, said in ((0.9, "90 %"), (0.999, "99.9 %")):
        found = gate(ledgers["binary"], MAIN, budget({"task": "a", "lose_at_most": 0.01}, confidence=confidence))
        (held,) = found.held
        test = inversion_of(ledgers["binary"].find("a"))
        assert test is not None
        assert (held.entry.level, (held.entry.ci_low, held.entry.ci_high)) == (confidence, pytest.approx(test.interval(confidence)))
        assert f"not ruled out at {said} confidence" in held.reason
        assert f"at {said} confidence" in verdict_line(found)


def test_a_loss_that_is_the_budget_asks_for_no_number_of_items() -> None:
    """.1 - .05 - .05 is not 0 for a computer; no number of items rules such a loss out."""
    entry = _entry("a", 100, 0, 1000)
    assert entry.change == -0.1
    (held,) = gate(Ledger(study="s", baseline="base", entries=(entry,)), MAIN, budget({"lose_at_most": 0.1 + 2e-17})).held
    assert held.status == "exceeded"
    lost = entry.model_copy(update={"change": -(0.1 - 1e-13)})
    (held,) = gate(Ledger(study="s", baseline="base", entries=(lost,)), MAIN, budget({"lose_at_most": 0.1})).held
    assert held.reason == "lost 10.0 points; a loss of 10 points or more is not ruled out at 95 % confidence"


@pytest.mark.parametrize(("allowed", "said"), [(5, "500 points"), (1, "100 points"), ("100%", "the whole of the baseline")])
def test_a_budget_that_nothing_exceeds_is_refused(ledgers: dict[str, Ledger], allowed: object, said: str) -> None:
    with pytest.raises(InputError, match=rf"allows a .score. to lose {said}, which nothing exceeds: 0.01 is a point"):
        gate(ledgers["binary"], MAIN, budget({"task": "a", "lose_at_most": allowed}))
    assert gate(ledgers["seconds"], MAIN, budget({"lose_at_most": allowed})).held  # a time has no end
    more = gate(ledgers["toxic"], MAIN, budget({"lose_at_most": "100%"})).held  # twice as much may be lost where less is better
    assert len(more) == 2


# -- quantiles -------------------------------------------------------------------------------------------------------------------


def timed(task: str, base: FloatArray, cand: FloatArray, codes: IntArray | None = None, *, more_is_better: bool = False) -> Entry:
    """An entry of latency as a ledger holds it."""
    change = float(cand.mean() - base.mean())
    details = latency_details(base, cand, codes, 0.95)
    return Entry(
        kind="latency", task=task, metric="request_latency", unit="seconds", higher_is_better=more_is_better, baseline="base", candidate="candidate",
        n=len(base), clusters=None if codes is None else int(codes.max()) + 1, baseline_value=float(base.mean()), candidate_value=float(cand.mean()),
        change=change, cost=change, se=None, level=0.95, ci_low=None, ci_high=None, p_value=None, p_adjusted=None, method="none", margin=None,
        verdict="undetermined", outcomes={}, details=details, checks=(),
    )  # fmt: skip


def held_of(entries: Sequence[Entry], confidence: float = 0.95, **line: object) -> tuple[Held, ...]:
    ledger = Ledger(study="s", baseline="base", entries=tuple(entries))
    return gate(ledger, MAIN, budget({"of": "p95", **line}, confidence=confidence)).held


@pytest.mark.parametrize(("confidence", "kept"), [(0.9, 0.9), (0.95, 0.95), (0.97, 0.98), (0.99, 0.99)])
@pytest.mark.parametrize("more_is_better", [False, True])
def test_a_quantile_is_held_by_its_interval(confidence: float, kept: float, more_is_better: bool) -> None:
    made = np.random.default_rng(2)
    base, cand = made.lognormal(size=300), made.lognormal(0.2, size=300)
    if more_is_better:
        base, cand = cand, base
    entry = timed("a", base, cand, more_is_better=more_is_better)
    wanted = quantile_changes(base, cand, None, level=kept)[1]
    assert wanted.interval is not None
    low, high = wanted.interval
    least, most = (-high, -low) if more_is_better else (low, high)
    assert least < 0 < most
    for loss in (0.4 * most, 0.99 * most, 1.01 * most, 2 * most):
        (held,) = held_of([entry], confidence, lose_at_most=loss)
        assert (held.entry.change, held.entry.ci_low, held.entry.ci_high) == (wanted.change, pytest.approx(low), pytest.approx(high))
        assert held.entry.baseline_value == pytest.approx(np.quantile(base, 0.95))
        assert held.status == ("within" if most < loss else "exceeded"), loss
        assert held_of([entry], confidence, lose_at_most=loss, rule="not_shown")[0].status == "within"
    slower = timed("a", base * 3, cand / 3, more_is_better=True) if more_is_better else timed("a", base / 3, cand * 3)
    (shown,) = held_of([slower], confidence, lose_at_most="10%", rule="not_shown")
    assert (shown.status, shown.allowed) == ("exceeded", pytest.approx(0.1 * (shown.entry.baseline_value or 0)))
    assert shown.reason.startswith("p95: lost ")


def test_what_is_shown_of_quantiles_is_adjusted() -> None:
    made = np.random.default_rng(4)
    entries = [timed(f"t{k}", made.lognormal(size=200), made.lognormal(0.45, size=200)) for k in range(5)]
    alone = [held_of([e], lose_at_most=0.01, rule="not_shown")[0].p for e in entries]
    together = held_of(entries, lose_at_most=0.01, rule="not_shown")
    assert [one.p for one in together] == pytest.approx(holm([p or 0.0 for p in alone]))
    assert {one.status for one in together} == {"within", "exceeded"}


def test_a_quantile_of_too_few_prompts_is_not_known() -> None:
    made = np.random.default_rng(5)
    base = made.lognormal(size=71)
    for n, allowed in ((71, 0.5 * np.quantile(base, 0.95)), (15, None)):
        for rule, status in (("ruled_out", "exceeded"), ("not_shown", "within")):
            (held,) = held_of([timed("a", base[:n], 2 * base[:n])], lose_at_most="50%", rule=rule)
            assert (held.status, held.p) == (status, None)
            assert held.allowed == (None if allowed is None else pytest.approx(allowed))
            assert held.reason.startswith(f"p95 not known: its interval takes 72 prompts at 95 % confidence, there are {n}")
    seen = base.repeat(2)
    assert held_of([timed("a", seen, seen)], lose_at_most=0.1)[0].status == "within"
    (sure,) = held_of([timed("a", seen[:80], seen[:80])], 0.99, lose_at_most=0.1)
    assert (sure.status, sure.entry.ci_low) == ("exceeded", None)
    assert "takes 104 prompts at 99 % confidence, there are 80" in sure.reason
    (few,) = held_of([timed("a", seen, seen, np.arange(142) // 4)], lose_at_most=0.1)
    assert few.status == "exceeded"
    assert "takes 72 prompts from as many sources at 95 % confidence, there are 142 from 36" in few.reason


def test_what_has_no_such_quantile_is_refused(ledgers: dict[str, Ledger]) -> None:
    entry = timed("a", np.arange(1.0, 101), np.arange(1.0, 101))
    old = entry.model_copy(update={"details": {k: v for k, v in entry.details.items() if not k.endswith("limits")}})
    for entries, line, said in (
        (
            ledgers["binary"].entries,
            {},
            r"the budget for p95 of everything holds a \(score\), which has no p95: quantiles are kept of times",
        ),
        (ledgers["seconds"].entries, {"task": "mean over tasks"}, "no task is 'mean over tasks'"),
        ([old], {}, "whose ledger keeps no limits of its p95: make the run again with this version"),
        ([entry], {"confidence": 0.9999}, "limits of a p95 are kept up to a confidence of 0.9998; the budget asks for 0.9999"),
    ):
        with pytest.raises(InputError, match=said):
            held_of(entries, **{"lose_at_most": 0.1, **line})  # type: ignore[arg-type]


def test_quantiles_of_a_ledger(ledgers: dict[str, Ledger]) -> None:
    """From two tables to the gate: the metric's own entry has them, and names say which is held."""
    found = gate(ledgers["seconds"], MAIN, budget({"metric": "latency_s", "of": "p95", "lose_at_most": "50%"}, {"lose_at_most": "50%"}))
    tail, whole = found.held
    assert tail.entry.change == tail.entry.detail("p95_change")
    assert whole.entry.change == ledgers["seconds"].find("a").change
    assert [row["of"] for row in json.loads(gate_json(found))["held"]] == ["p95", None]
    assert "latency\\_s, p95 |" in gate_markdown(found)
    assert 'name="a (latency_s, p95), base to candidate: ' in junit(found)


def test_a_gate_of_quantiles_holds_its_level() -> None:
    """The candidate varies, the baseline does not, and its p95 is longer by just what is allowed: ruling that out errs in 2.5 % of releases, and so
    does showing more of it in any of five tasks."""
    made, opened, shown = np.random.default_rng(6), 0, 0
    runs, n = 300, 100
    longer = float(np.exp(0.7 * 1.6448536269514722)) - 1
    for _ in range(runs):
        entries = [timed(f"t{k}", np.ones(n), made.lognormal(0, 0.7, n)) for k in range(5)]
        opened += held_of(entries[:1], lose_at_most=longer)[0].status == "within"
        shown += any(one.status == "exceeded" for one in held_of(entries, lose_at_most=longer, rule="not_shown"))
    most = 0.025 + 3 * (0.025 * 0.975 / runs) ** 0.5
    assert opened / runs <= most
    assert shown / runs <= most


# -- sizes -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "changed", "true_change"), [(0.02, 0.15, 0.0), (0.03, 0.3, -0.01), (0.05, 0.02, 0.0), (0.02, 0.1, 0.01)])
def test_planned_sizes_have_the_power_they_promise(loss: float, changed: float, true_change: float) -> None:
    """Tango's lower limit lies above the loss in 80 % of studies of that size (600 of them: within 4 points; counts are whole numbers)."""
    n = int(np.ceil(items_for(loss, changed, true_change=true_change)))
    rng = np.random.default_rng(5)
    counts = rng.multinomial(n, [(changed - true_change) / 2, (changed + true_change) / 2, 1 - changed], size=600)
    ruled_out = np.mean([tango_interval(int(lost), int(gained), n, 1.959963984540054)[0] > -loss for lost, gained, _ in counts])
    assert 0.76 <= ruled_out <= 0.86


def test_known_sizes() -> None:
    """(1.959964 sqrt(.15046454) + 0.841621 sqrt(.15))^2/.01^2 = 11,798.8 (V0: the root q of 2 q^2 - .17 q + .0007575 = 0 gives 2 q - .0101);
    where nothing changes z^2 (1 - .01)/.01 = 380.3."""
    assert items_for(0.01, 0.15) == pytest.approx(11_798.8, abs=0.1)
    assert items_for(0.01, 0.0) == pytest.approx(380.3, abs=0.1)
    assert items_for(0.01, 0.15, design_effect=2.4) == pytest.approx(2.4 * items_for(0.01, 0.15))
    for loss, changed, true in ((0.0, 0.1, 0.0), (0.01, 0.1, -0.01), (0.01, 0.1, 0.2)):
        with pytest.raises(ValueError, match=r"loss|change"):
            items_for(loss, changed, true_change=true)


def test_items_needed_is_the_ledgers_number(ledgers: dict[str, Ledger]) -> None:
    for entry in ledgers["clustered"]:
        test, needed = inversion_of(entry), entry.detail("n_needed_no_tax")
        if test is not None and needed is not None and entry.margin is not None:
            assert items_needed(test, entry.n, entry.margin, 0.95) == pytest.approx(needed, rel=1e-6)


# -- files and forms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budgets: []", "budgets must be a list of one line and more"),
        ("budgets: 5", "budgets must be a list of one line and more"),
        ("[]", "is no budget"),
        ("budgets:\n  - {kind: speed, lose_at_most: 1}", "budgets, number 1.*kind must be one of performance"),
        ("budgets:\n  - {lose_at_most: 0}", "budgets, number 1, lose_at_most must be more than 0; got 0"),
        ("budgets:\n  - {lose_at_most: " + "x" * 99 + "}", r"of the baseline such as 5%; got 'x{59} … .+41 characters.$"),
        ("budgets:\n  - {lose_at_most: 010}", "line 2: YAML reads 010 as 8"),
        ("budgets:\n  - {lose_at_most: 1:30}", "line 2: YAML reads 1:30 as 90"),
        ("budgets:\n  - 5", "budgets, number 1 must be a mapping, such as .*; got 5"),
        ("budgets:\n  - {1: a, lose_at_most: 1}", "budgets, number 1, 1 is not known here; allowed: lose_at_most"),
        ("1: 2\nbudgets:\n  - {lose_at_most: 1}", "1 is not known here; allowed: budgets, confidence$"),
        ("budgets:\n  - {lose_at_most: 1, of: p90}", "of must be p50, p95 or p99 .*; got 'p90'"),
        ("budgets:\n  - {lose_at_most: 1, of: 95}", "of must be p50, p95 or p99 .*; got 95"),
        (
            "budgets:\n  - {lose_at_most: 1, of: p95, kind: performance}",
            "of names a quantile, which is kept of the kind latency alone; got the kind performance",
        ),
        ("budgets:\n  - {lose_at_most: -5%}", "must be more than 0"),
        ("budgets:\n  - {lose_at_most: .inf}", "must be more than 0"),
        ("budgets:\n  - {lose_at_most: 1" + "0" * 400 + "}", "a number such as 0.01"),
        ("budgets:\n  - {lose_at_most: a lot}", "a number such as 0.01, or a share of the baseline such as 5%; got 'a lot'"),
        ("budgets:\n  - {lose_at_most: 0.01, rule: never}", "rule must be ruled_out or not_shown; got 'never'"),
        ("budgets:\n  - {lose_at_most: 0.01, tasks: x}", "tasks is not known here; allowed: lose_at_most, kind, task, metric, rule, of"),
        ("budgets:\n  - {kind: safety}", "lose_at_most is missing"),
        ("confidence: 95\nbudgets:\n  - {lose_at_most: 1}", "confidence must be a number above 0.5 and below 1, such as 0.95; got 95"),
        ("budgets:\n  - {lose_at_most: 1}\nbudgets: []", "stands in line 1 and again in line 3"),
        ("budgets: !!python/object/apply:os.system [id]", "is no YAML that can be read"),
    ],
)
def test_budgets_that_say_nothing_usable(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "budget.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        read_budget(tmp_path / "budget.yaml")


def test_forms_for_machines(ledgers: dict[str, Ledger]) -> None:
    bad = "<b>]]>|*x*\n::error::y,%0A"
    entries = tuple(
        e.model_copy(update={"task": bad, "unit": "\x00\x1b", "checks": ("prompts differ in 3 of 9 pairs",)}) for e in ledgers["binary"][:1]
    )
    ledger = ledgers["binary"].model_copy(update={"entries": entries})
    shut = gate(ledger, MAIN, budget({"lose_at_most": 0.001}))
    root = ElementTree.fromstring(junit(shut))
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert suite[0][0].tag == "failure"
    lines = list(github_annotations(shut))
    assert len(lines) == 2
    assert lines[0].startswith("::error title=alignment budget%3A <b>]]>|*x*\\n%3A%3Aerror%3A%3Ay%2C%250A")
    assert lines[1].endswith("::prompts differ in 3 of 9 pairs")
    assert "<b>" not in gate_markdown(shut)
    assert json.loads(gate_json(shut))["held"][0]["status"] == "exceeded"
    assert json.loads(badge_json(shut))["message"] == "exceeded"
    assert 'aria-label="alignment budget: exceeded"' in badge_svg(shut)
    ElementTree.fromstring(badge_svg(shut))


def test_the_commands(tmp_path: Path, aligntax: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    for name, right in (("base", 80), ("sft", 70), ("dpo", 78)):
        write_csv(tmp_path / f"{name}.csv", [{"task": "sums", "item": i, "score": int(i < right)} for i in range(100)])
    aligntax("diff", "base.csv", "dpo.csv", "--stage", "sft=sft.csv", "--names", "base,dpo", "--out", "run")
    (tmp_path / "loose.yaml").write_text("budgets:\n  - {kind: performance, lose_at_most: 0.1}\n")
    (tmp_path / "tight.yaml").write_text("budgets:\n  - {kind: performance, lose_at_most: 0.01, rule: not_shown}\n")
    kept = aligntax("gate", "run", "--budget", "loose.yaml", "--junit", "gate.xml", "--badge", "badge.svg")
    assert (kept.returncode, kept.stderr) == (0, "within budget: all of 1 comparison at 95 % confidence\n")
    assert "within" in kept.stdout
    assert ElementTree.parse(tmp_path / "gate.xml").getroot()[0].get("failures") == "0"
    assert (tmp_path / "badge.svg").exists()
    assert aligntax("gate", "run", "--budget", "tight.yaml").returncode == 0
    stages = aligntax("gate", "run", "--budget", "tight.yaml", "--every-stage", "--json")
    assert stages.returncode == 3
    assert [(h["candidate"], h["status"]) for h in json.loads(stages.stdout)["held"]] == [
        ("dpo", "within"),
        ("sft", "exceeded"),
        ("dpo", "within"),
    ]
    annotated = aligntax("gate", "run", "--budget", "tight.yaml", "--pair", "base,sft", "--github")
    assert "::error title=alignment budget%3A sums (score)%2C base to sft::lost 10.0 points" in annotated.stdout
    for arguments, said in (
        (("--budget", "nowhere.yaml"), "nowhere.yaml cannot be read"),
        (("--budget", "loose.yaml", "--pair", "base,ppo"), "no arm 'ppo'; the run has: base, sft, dpo"),
        (("--budget", "loose.yaml", "--badge", "badge.png"), "--badge writes .svg or .json"),
        (("--budget", "loose.yaml", "--json", "--markdown"), "name one"),
    ):
        wrong = aligntax("gate", "run", *arguments)
        assert (wrong.returncode, wrong.stdout) == (2, "")
        assert said in wrong.stderr
    planned = aligntax("plan-size", "--lose-at-most", "0.01", "--lose-at-most", "0.02", "--changed", "0.15")
    assert planned.stdout == "1 point: 11,799 items\n2 points: 2,969 items\n"
    assert "sums  score" in aligntax("plan-size", "--lose-at-most", "0.01", "--run", "run").stdout
    for arguments in (
        ("0.01", "--true-change", "-0.01"),
        ("0", "--run", "run"),
        ("nan", "--run", "run"),
        ("2",),
        ("1e-200",),
        ("0.01", "--design-effect", "nan"),
        ("0.01", "--true-change", "nan"),
    ):
        wrong = aligntax("plan-size", "--lose-at-most", *arguments)
        assert (wrong.returncode, wrong.stdout) == (2, ""), arguments


@pytest.mark.parametrize(("most", "status"), [(20_000, "exceeded"), (23_000, "within")])
@pytest.mark.parametrize("rule", ["ruled_out", "not_shown"])
def test_what_was_spent_is_known(tmp_path: Path, most: float, status: str, rule: str) -> None:
    rows = [{"item": i, "score": i % 2} for i in range(40)]
    costs = tmp_path / "costs.yaml"
    costs.write_text(
        "currency: USD\nstages:\n  candidate: {hours: 12, devices: 8, price_per_device_hour: 2.5, labels: 33000, price_per_label: 0.67}\n"
    )
    ledger = aligntax.diff(table(tmp_path / "a.csv", rows), table(tmp_path / "b.csv", rows), costs=costs)
    (held,) = gate(ledger, MAIN, budget({"kind": "development", "metric": "price", "lose_at_most": most, "rule": rule})).held
    assert held.status == status
    assert held.reason == f"22350 USD; what was spent is known, and both rules are the same; at most {most:g} USD"
    with pytest.raises(
        InputError, match="a share of the baseline, and of development \\(price\\) there is none: an amount has no baseline"
    ):
        gate(ledger, MAIN, budget({"kind": "development", "metric": "price", "lose_at_most": "5%", "rule": rule}))


DEBT = """
currency: USD
stages: {candidate: {hours: 3}}
debt:
  horizon_months: 10
  discount_rate_per_year: 0
  now: {once: RANGE, per_month: 0}
  harm: {cost_per_month: {without: 50, with: 0}, growth_per_month: 0}
  distribution: triangular
"""


def test_a_debt_is_reckoned_and_its_ranges_are_held_by_their_ends(tmp_path: Path) -> None:
    """Never aligning costs 500, aligning now 100, or from 60 to 200."""
    rows = [{"item": i, "score": i % 2} for i in range(40)]
    costs = tmp_path / "costs.yaml"

    def held(once: str, metric: str, most: float, rule: str) -> Held:
        costs.write_text(DEBT.replace("RANGE", once))
        ledger = aligntax.diff(table(tmp_path / "a.csv", rows), table(tmp_path / "b.csv", rows), costs=costs)
        (one,) = gate(ledger, MAIN, budget({"metric": metric, "lose_at_most": most, "rule": rule})).held
        return one

    certain = held("100", "net_present_cost_now", 100, "ruled_out")
    assert certain.status == "within"
    assert certain.reason == "100 USD; reckoned from the numbers that were named, and both rules are the same; at most 100 USD"
    saved = held("100", "net_present_saving", 1, "ruled_out")
    assert (saved.status, saved.reason.split(";")[0]) == ("within", "-400 USD")  # what it saves is no cost
    ranged = "{low: 60, likely: 100, high: 200}"
    assert held(ranged, "net_present_cost_now", 150, "ruled_out").status == "exceeded"
    assert held(ranged, "net_present_cost_now", 150, "not_shown").status == "within"
    assert held(ranged, "net_present_cost_now", 70, "not_shown").status == "exceeded"
    assert "within the ranges that were named" in held(ranged, "net_present_cost_now", 150, "ruled_out").reason
    unknown = held("100", "device_hours", 5, "ruled_out")
    assert (unknown.status, unknown.reason) == ("exceeded", "the amount is not known: a loss of 5 hours is neither shown nor ruled out")
