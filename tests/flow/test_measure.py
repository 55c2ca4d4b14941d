"""Measuring with models whose every answer is known: what is asked, kept, scored and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligntax.core.asks import Failure, Prompt, ScoreAsk
from aligntax.core.errors import AligntaxError, InputError, PairingError
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.diff import Comparison
from aligntax.flow.measure import ArmSpec, Models, Options, measure, plan, stage_tree
from aligntax.store.answers import Answers
from aligntax.store.run import load_run, write_run
from aligntax.tasks.find import find_tasks
from aligntax.testing import KnownModel as Known
from tests.support.suites import suite

SUMS = [
    {"id": f"s{k}", "prompt": f"{k} plus {k}?", "answers": [str(2 * k)], "cluster": f"c{k % 10}", "half": str(k < 30)} for k in range(60)
]


def right(prompt: str) -> str:
    """Adds: the last number asked about, doubled."""
    return " " + str(2 * int(prompt.rpartition("question: ")[2].split()[0]))


def wrong_below(bound: int) -> Callable[[str], str | Failure]:
    return lambda prompt: right(prompt) if int(right(prompt)) >= 2 * bound else " no idea"


def study(
    folder: Path,
    models: list[Known],
    *,
    answers: Answers | None = None,
    templates: tuple[Any, ...] = ("raw",),
    how: Elicitation | None = None,
    analysis: Analysis | None = None,
    tasks: tuple[str, ...] = ("sums",),
    limit: int | None = None,
) -> Comparison:
    """A chain of models, each from the one before, on the suites of a folder."""
    named = [(m.name, m.name, models[k - 1].name if k else None) for k, m in enumerate(models)]
    for model in models:
        Path(model.name).mkdir(exist_ok=True)  # a reference must name something
    specs, contrasts = stage_tree(named, list(templates), how or Elicitation())
    with Models(Options(), {spec.reference: m for spec in specs for m in models if m.name == spec.reference.place}) as opened:
        found = [(task, limit) for task in find_tasks(list(tasks), [folder])]
        planned = plan(specs, contrasts, found, analysis or Analysis(), opened)
        with answers or Answers(None) as kept:
            return measure(planned, kept, lambda *_: None, lambda *_: None, divergence=False)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    stripped = [{"name": "stripped", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}]
    return suite(tmp_path / "tasks", "sums", SUMS, SUMS[:3], filter_list=stripped)


def test_a_loss_is_a_tax(sums: Path) -> None:
    with study(sums, [Known("base", right), Known("tuned", wrong_below(40))]) as found:
        entry = found.ledger.find("sums", "exact_match,stripped")
    assert (entry.baseline_value, entry.candidate_value, entry.n, entry.verdict) == (1.0, pytest.approx(1 / 3), 60, "tax")
    assert entry.clusters == 10  # the suite's own clusters, without being asked
    assert entry.outcomes == {"base": {"scored": 60}, "tuned": {"scored": 60}}


def test_a_copy_costs_exactly_nothing_and_is_asked_once(sums: Path) -> None:
    one, two = Known("one", wrong_below(7), identity="same"), Known("two", wrong_below(7), identity="same")
    with study(sums, [one, two]) as found:
        entry = found.ledger[0]
    assert entry.change == 0.0
    assert entry.verdict != "tax"
    assert len(one.asked) == 60
    assert two.asked == []


def test_two_models_share_no_answer(sums: Path) -> None:
    one, two = Known("one", right), Known("two", right)
    study(sums, [one, two]).rows.close()
    assert (len(one.asked), len(two.asked)) == (60, 60)


@pytest.mark.parametrize("after", [0, 1, 37, 60, 95, 119])
def test_a_stopped_run_goes_on(sums: Path, tmp_path: Path, after: int) -> None:
    """Whatever was answered before a stop is never asked again, and nothing is missing."""
    store = tmp_path / "answers.sqlite"
    first = [Known("base", right, stop_after=after if after < 60 else None), Known("tuned", wrong_below(9), stop_after=max(0, after - 60))]
    with pytest.raises(KeyboardInterrupt):
        study(sums, first, answers=Answers(store))
    again = [Known("base", right), Known("tuned", wrong_below(9))]
    with study(sums, again, answers=Answers(store)) as found:
        resumed = found.ledger
    for before, later in zip(first, again, strict=True):
        asked = [str(key) for key in (*before.asked, *later.asked)]
        assert len(asked) == 60
        assert len(set(asked)) == 60
    with study(sums, [Known("base", right), Known("tuned", wrong_below(9))]) as whole:
        assert whole.ledger == resumed


def test_a_failure_is_no_answer_and_is_asked_again(sums: Path, tmp_path: Path) -> None:
    store = tmp_path / "answers.sqlite"

    def flaky(prompt: str) -> str | Failure:
        return Failure("the endpoint was down") if right(prompt) in (" 10", " 20") else right(prompt)

    with study(sums, [Known("base", right), Known("tuned", flaky)], answers=Answers(store)) as found:
        entry = found.ledger.find("sums")
        assert entry.outcomes["tuned"] == {"scored": 58, "failed": 2}
        assert entry.n == 58
        assert entry.candidate_value == 1.0
        total, flips = found.flips("base", "tuned", "exact_match,stripped")
        assert (total, flips) == (0, [])
    later = Known("tuned", right)
    with study(sums, [Known("base", right), later], answers=Answers(store)) as found:
        assert found.ledger.find("sums").n == 60
    assert len(later.asked) == 2


def test_refused_and_cut_answers_say_so(tmp_path: Path) -> None:
    folder = suite(
        tmp_path / "t",
        "sums",
        SUMS,
        metadata={"refusals": ["i must refuse."]},
        filter_list=[{"name": "s", "filter": [{"function": "remove_whitespace"}]}],
    )
    refuses = Known("refuses", lambda p: " i must refuse." if right(p) < " 5" else right(p))
    rambles = Known("rambles", lambda p: right(p) + " or so", reason="length")
    with study(folder, [refuses, rambles]) as found:
        outcomes = found.ledger.find("sums").outcomes
    assert outcomes["refuses"]["refused"] > 10
    assert outcomes["refuses"]["refused"] + outcomes["refuses"]["scored"] == 60
    assert outcomes["rambles"] == {"truncated": 60}


def test_two_templates_make_four_arms(sums: Path) -> None:
    base, tuned = Known("base", lambda p: right(p) if "<user>" not in p else " hm"), Known("tuned", right)
    with study(sums, [base, tuned], templates=("raw", "chat")) as found:
        arms = {a.name: a.parent for a in found.study.arms}
        pairs = [e.pair for e in found.ledger]
        values = {e.pair: (e.baseline_value, e.candidate_value) for e in found.ledger}
    assert arms == {"base-raw": None, "tuned-raw": "base-raw", "base-chat": "base-raw", "tuned-chat": "base-chat"}
    assert set(pairs) == {("base-raw", "tuned-raw"), ("base-raw", "base-chat"), ("base-chat", "tuned-chat"), ("base-raw", "tuned-chat")}
    assert values["base-raw", "base-chat"] == (1.0, 0.0)
    assert values["base-chat", "tuned-chat"] == (0.0, 1.0)
    total = found.ledger.find("sums", baseline="base-raw", candidate="tuned-chat")
    assert (total.details["weights_effect"], total.details["elicitation_effect"], total.details["interaction"]) == (0.5, -0.5, 1.0)
    assert base.closed
    assert tuned.closed


def test_the_split_adds_up_to_the_last_bit(sums: Path) -> None:
    base = Known("base", lambda p: right(p) if hash_of(p) % 3 or "<user>" not in p else " hm")
    tuned = Known("tuned", lambda p: right(p) if (hash_of(p) + 1) % (4 if "<user>" in p else 2) else " hm")
    with study(sums, [base, tuned], templates=("raw", "chat")) as found:
        total = found.ledger.find("sums", baseline="base-raw", candidate="tuned-chat")
        means = {a.name: v for a in found.study.arms for v in [value_of(found, a.name)]}
    weights, elicitation, interaction = (total.detail(k) for k in ("weights_effect", "elicitation_effect", "interaction"))
    assert weights is not None
    assert elicitation is not None
    assert weights + elicitation == pytest.approx(total.change, abs=1e-15)
    assert weights == pytest.approx((means["tuned-raw"] - means["base-raw"] + means["tuned-chat"] - means["base-chat"]) / 2)
    assert interaction == pytest.approx(means["tuned-chat"] - means["base-chat"] - means["tuned-raw"] + means["base-raw"])
    low, high = total.details["weights_effect_ci"]  # type: ignore[misc]
    assert low < weights < high


def hash_of(prompt: str) -> int:
    return int(prompt.rpartition("question: ")[2].split()[0])


def value_of(found: Comparison, arm: str) -> float:
    entry = next(e for e in found.ledger if arm in e.pair)
    value = entry.baseline_value if entry.baseline == arm else entry.candidate_value
    assert value is not None
    return value


def test_shots_and_system_prompts_are_asked_as_they_should(sums: Path) -> None:
    base = Known("base", right)
    how = Elicitation(shots=2, system="add up.")
    with pytest.raises(PairingError):  # one arm is no comparison
        study(sums, [base], how=how, limit=1)
    assert base.asked[0][1] == ("add up.question: 0 plus 0? answer: 0\n\nquestion: 1 plus 1? answer: 2\n\nquestion: 0 plus 0? answer:")
    chat = Known("chat", right)
    with pytest.raises(PairingError):
        study(sums, [chat], templates=("chat",), how=how, limit=1)
    assert chat.asked[0][1] == (
        "<system>add up.<user>question: 0 plus 0? answer:<assistant>0<user>question: 1 plus 1? answer:<assistant>2"
        "<user>question: 0 plus 0? answer:<assistant>"
    )


def test_what_went_wrong_is_said(sums: Path) -> None:
    broken = Known("broken", lambda _: Failure("the endpoint answered 500: boom"))
    with pytest.raises(AligntaxError, match="broken gave no answer to any of 60 requests; 60 times: the endpoint answered 500: boom"):
        study(sums, [Known("base", right), broken])
    half = Known("half", lambda prompt: right(prompt) if int(right(prompt)) >= 60 else Failure("too long"))
    with study(sums, [Known("base", right), half]) as found:
        assert "30 of 60 requests failed, 30 times: too long" in found.provenance["arms"]["half"]["left_out"]


def test_labels_and_limits_are_checked_before_anything_is_asked(sums: Path) -> None:
    model = Known("base", right)
    for analysis, message in (
        (Analysis(cluster="source"), "no item has a label 'source', which cluster names; labels there: cluster, half, id, prompt"),
        (Analysis(by="third"), "no item has a label 'third', which by names"),
    ):
        with pytest.raises(InputError, match=message):
            study(sums, [model, Known("tuned", right)], analysis=analysis)
    for limit in (0, -1, True, 2.5):
        with pytest.raises(InputError, match="limit must be a whole number of at least 1"):
            study(sums, [model, Known("tuned", right)], limit=limit)  # type: ignore[arg-type]
    assert model.asked == []


def test_whole_texts_cut_into_other_windows_have_other_prompts(tmp_path: Path) -> None:
    """The likelihood of a text depends on how much of it stands before each token."""

    class Rolls(Known):
        def __init__(self, name: str, size: int) -> None:
            super().__init__(name, right)
            self.size = size

        def rolling(self, text: str) -> list[ScoreAsk]:
            words = text.split()
            parts = [words[k : k + self.size] for k in range(0, len(words), self.size)]
            return [ScoreAsk(Prompt(None, (0,)), " ".join(part), tuple(len(w) for w in part)) for part in parts]

    rows = [{"text": "a bb ccc dddd " * (k + 1)} for k in range(20)]
    recipe = {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "text",
        "metric_list": [{"metric": "bits_per_byte"}],
    }
    folder = suite(tmp_path / "t", "rolled", rows, **recipe)
    for sizes, differ in (((100, 200), False), ((8, 200), True)):
        with study(folder, [Rolls(f"m{n}", n) for n in sizes], tasks=("rolled",)) as found:
            assert any("prompts differ" in check for check in found.ledger[0].checks) == differ


def test_an_accuracy_per_token_is_an_accuracy(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{k}", "choices": ["yes", "no"], "gold": k % 2} for k in range(40)]
    folder = suite(tmp_path / "t", "choose", rows, metric_list=[{"metric": "acc_tokens"}])
    with study(folder, [Known("one", right), Known("two", right)], tasks=("choose",)) as found:
        assert found.ledger.find("choose").unit == "fraction"
        assert found.ledger.find("choose").margin == 0.01


def test_trials_are_drawn_apart(sums: Path) -> None:
    model, other = Known("base", right), Known("tuned", right)
    with study(sums, [model, other], how=Elicitation(trials=3, temperature=0.7, seed=5)) as found:
        assert found.ledger.find("sums").method.startswith("score")
    # Every item, trial and model has draws of its own: one seed for all would make items copies of each other, and the split of the
    # variance into items and trials takes the arms' draws to be independent.
    seeds = [key[4][2] for key in (*model.asked, *other.asked)]
    assert len(seeds) == len(set(seeds)) == 360
    again = Known("base", right)
    with study(sums, [again, Known("tuned", right)], how=Elicitation(trials=3, temperature=0.7, seed=6)):
        assert not {key[4][2] for key in again.asked} & set(seeds)


def test_format_is_told_from_knowledge_where_both_extractors_are(tmp_path: Path) -> None:
    """One task has a flexible extractor, the other has none; a chatty model loses the strict score of the first only."""
    strict = {"name": "strict-match", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
    flexible = {"name": "flexible-extract", "filter": [{"function": "regex", "regex_pattern": r"(\d+)", "group_select": -1}]}
    suite(tmp_path / "tasks", "numbers", SUMS, filter_list=[strict, flexible])
    folder = suite(tmp_path / "tasks", "plain", SUMS, filter_list=[strict])
    chatty = Known("chatty", lambda prompt: f"it is {right(prompt).strip()}")
    with study(folder, [Known("base", right), chatty], tasks=("numbers", "plain")) as found:
        changes = {(e.task, e.kind, e.metric): e.change for e in found.ledger if not e.task.startswith("mean")}
    assert changes[("numbers", "performance", "exact_match,strict-match")] == -1.0
    assert changes[("numbers", "performance", "exact_match,flexible-extract")] == 0.0
    assert changes[("numbers", "format", "exact_match,flexible-extract - exact_match,strict-match")] == 1.0
    assert changes[("plain", "performance", "exact_match,strict-match")] == -1.0
    assert {task for task, kind, _ in changes if kind == "format"} == {"numbers"}


def test_choices_by_likelihood(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{k}", "choices": ["yes", "certainly not"], "gold": k % 2} for k in range(40)]
    metrics = [{"metric": m} for m in ("acc", "acc_norm", "acc_bytes", "acc_tokens")]
    folder = suite(tmp_path / "t", "choose", rows, metric_list=metrics)
    short = Known("short", right)  # every character costs as much: the short choice is likelier, per character they tie
    knows = Known("knows", right, likes=lambda p, t: 0.0 if (int(p.split()[1][1:]) % 2 == 1) == ("not" in t) else -1.0)
    with study(folder, [short, knows], tasks=("choose",)) as found:
        values = {e.metric: (e.baseline_value, e.candidate_value) for e in found.ledger}
        assert found.flips("short", "knows", "acc,none")[1][0].candidate_answer == "certainly not (log-likelihood 0.0000)"
    assert values["acc,none"] == (0.5, 1.0)
    assert values["acc_tokens,none"] == (0.5, 1.0)
    assert short.asked[0] == ["score", "question: p0 answer:", " yes"]


def test_a_run_is_written_and_read_again(sums: Path, tmp_path: Path) -> None:
    with study(sums, [Known("base", right), Known("tuned", wrong_below(40))], analysis=Analysis(by="half")) as found:
        write_run(tmp_path / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "<html></html>")
        assert [e.task for e in found.ledger] == ["sums", "sums/False", "sums/True"]
    stored = load_run(tmp_path / "run")
    assert stored.ledger.to_dict() == found.ledger.to_dict()
    assert stored.study.tasks[0].name == "sums"
    assert stored.study.arms[1].elicitation == Elicitation()
    assert str(tmp_path) not in (tmp_path / "run" / "provenance.json").read_text()


@pytest.mark.parametrize(
    ("recipe", "rows", "message"),
    [
        ({"doc_to_text": "{{absent}}"}, SUMS, "doc_to_text does not fit an item"),
        ({"doc_to_target": "absent"}, SUMS, "has no field 'absent'"),
        ({"output_type": "generate_images"}, SUMS, "output_type"),
        ({"process_results": "!function x.y"}, SUMS, "process_results"),
        ({}, [], "is empty: the task sums has no items"),
        ({"num_fewshot": 9}, SUMS, "has 3 shots; 9 were asked for"),
    ],
)
def test_bad_suites(tmp_path: Path, recipe: dict[str, Any], rows: list[dict[str, Any]], message: str) -> None:
    folder = suite(tmp_path / "t", "sums", rows, SUMS[:3], **recipe)
    with pytest.raises(InputError, match=message):
        study(folder, [Known("base", right), Known("tuned", right)])


def test_bad_names(sums: Path) -> None:
    with pytest.raises(InputError, match="did you mean sums"):
        find_tasks(["sumz"], [sums])
    with pytest.raises(InputError, match="did you mean lab_addition"):
        find_tasks(["lab/additon"])
    with pytest.raises(InputError, match="is no folder of tasks"):
        find_tasks(["lab"], [sums / "absent"])


def test_a_model_without_a_template_is_named_while_planning(sums: Path) -> None:
    plain = Known("plain", right, chats=False)
    with pytest.raises(InputError, match="plain has no chat template"):
        study(sums, [Known("base", right), plain], templates=("chat",))
    assert plain.asked == []


def test_specs_are_hashable_references() -> None:
    spec = ArmSpec("a", None, Known("x", right).reference, Elicitation())
    assert {spec.reference: 1}[Known("x", right).reference] == 1


def test_a_torn_store_is_refused_and_a_spoilt_line_asked_again(sums: Path, tmp_path: Path) -> None:
    import sqlite3

    from aligntax.core.errors import RunError

    store = tmp_path / "answers.sqlite"
    study(sums, [Known("base", right), Known("tuned", right)], answers=Answers(store)).rows.close()
    with sqlite3.connect(store) as db:
        db.execute('UPDATE answers_1 SET body = \'["generated", "x"\' WHERE id IN (SELECT id FROM answers_1 LIMIT 1)')
    models = [Known("base", right), Known("tuned", right)]
    study(sums, models, answers=Answers(store)).rows.close()
    assert sum(len(m.asked) for m in models) == 1
    (tmp_path / "torn.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 10)
    with pytest.raises(RunError, match="answers cannot be kept"):
        Answers(tmp_path / "torn.sqlite")
