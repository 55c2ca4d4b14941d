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
from aligntax.flow.gate import gate
from aligntax.flow.inversion import inversion_of
from aligntax.report.gate import badge_json, badge_svg, gate_json, gate_markdown, github_annotations, junit
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import noninferiority_p, p_value, upper_tail
from aligntax.stats.planning import items_for, items_needed
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
        ("budgets:\n  - {lose_at_most: 0}", "must be more than 0; got 0"),
        ("budgets:\n  - {lose_at_most: -5%}", "must be more than 0"),
        ("budgets:\n  - {lose_at_most: .inf}", "must be more than 0"),
        ("budgets:\n  - {lose_at_most: 1" + "0" * 400 + "}", "a number such as 0.01"),
        ("budgets:\n  - {lose_at_most: a lot}", "a number such as 0.01, or a share of the baseline such as 5%; got 'a lot'"),
        ("budgets:\n  - {lose_at_most: 0.01, rule: never}", "rule must be ruled_out or not_shown; got 'never'"),
        ("budgets:\n  - {lose_at_most: 0.01, tasks: x}", "tasks is not known here; allowed: lose_at_most, kind, task, metric, rule"),
        ("budgets:\n  - {kind: safety}", "lose_at_most is missing"),
        ("confidence: 95\nbudgets:\n  - {lose_at_most: 1}", "confidence: "),
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
    assert planned.stdout == "1 points: 11,799 items\n2 points: 2,969 items\n"
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
    assert "what was spent is known" in held.reason
