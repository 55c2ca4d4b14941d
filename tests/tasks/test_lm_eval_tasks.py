"""Tasks of lm-eval asked by our engine, and our engine asked by lm-eval: item by item what lm-eval makes of the same model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")
need("lm_eval", "eval")

from lm_eval import simple_evaluate
from lm_eval.loggers import EvaluationTracker
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from aligntax.core.asks import Answer, Failure, Generated, Scored
from aligntax.core.errors import InputError
from aligntax.core.harness import begun, decoding
from aligntax.core.items import Choose, Roll, Templated, Write
from aligntax.core.kinds import CHOICE_METRICS
from aligntax.core.samples import Outcome
from aligntax.core.study import Elicitation
from aligntax.flow.collect import ArmPlan, collect, plan_arm, rows
from aligntax.models.hf import HFModel
from aligntax.models.lm_eval_model import AligntaxLM
from aligntax.store.answers import Answers
from aligntax.store.logs import LogRow, Want
from aligntax.store.readers.lm_eval import lm_eval as log_reader
from aligntax.tasks import SUITES
from aligntax.tasks import lm_eval as module
from aligntax.tasks.lm_eval import Registered, registered
from aligntax.testing import KnownModel as Known
from tests.support.random_models import random_model

pytestmark = pytest.mark.filterwarnings("ignore")  # lm-eval and what it loads warn of themselves

LIMIT = 5
LAB = SUITES / "lab"

COMMON = """
custom_dataset: !function items.load
test_split: test
fewshot_split: shots
"""
TASKS = {
    # Shots drawn by lm-eval's own sampler, a description, scores per character and against the bare choice.
    "our_choices": """
dataset_kwargs: {file: comparing}
description: "be brief."
doc_to_text: "question: {{prompt}} answer:"
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_mutual_info}, {metric: brier_score}]
""",
    # The task begins the answer; two contexts with one continuation; the likelihood of one continuation.
    "our_begun": """
dataset_kwargs: {file: comparing}
gen_prefix: "the larger one is"
doc_to_text: "question: {{prompt}} answer:"
output_type: multiple_choice
doc_to_choice: choices
doc_to_target: gold
metric_list: [{metric: acc}]
""",
    "our_contexts": """
dataset_kwargs: {file: comparing}
doc_to_text: gold
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: "is larger."
metric_list: [{metric: acc}]
""",
    "our_last": """
dataset_kwargs: {file: comparing}
doc_to_text: "question: {{prompt}} answer:"
output_type: loglikelihood
doc_to_target: "{{' ' + choices[gold]}}"
metric_list: [{metric: perplexity}, {metric: acc}]
""",
    # One reply read in two ways, asked twice over, but not drawn.
    "our_sums": """
dataset_kwargs: {file: addition}
doc_to_text: "question: {{prompt}} answer:"
output_type: generate_until
doc_to_target: "{{answers[0]}}"
repeats: 2
generation_kwargs: {until: ["question", "."], do_sample: false, temperature: 0.7, max_gen_toks: 12}
filter_list:
  - name: strict-match
    filter: [{function: regex, regex_pattern: "answer is ([0-9]+)"}, {function: take_first}]
  - name: flexible-extract
    filter: [{function: regex, group_select: -1, regex_pattern: "(\\\\w+)"}, {function: take_first}]
metric_list: [{metric: exact_match, ignore_case: true}]
""",
}
ROLLING = """
dataset_kwargs: {file: stories}
doc_to_text: ""
output_type: loglikelihood_rolling
doc_to_target: "{{prompt}} {{(answers | join(' ') + ' ') * 8}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """No network, whatever was imported before; and no look at the machine, which takes lm-eval longer than these evaluations."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
            patch.setenv(name, "1")
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        patch.setattr("datasets.config.HF_HUB_OFFLINE", True, raising=False)
        patch.setattr("lm_eval.evaluator.add_env_info", lambda _: None)
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tasks over items of the lab."""
    folder = tmp_path_factory.mktemp("tasks")
    shutil.copy(LAB / "items.py", folder)
    for name in ("comparing", "addition", "stories"):
        for split in ("test", "shots"):
            lines = (LAB / f"{name}.{split}.jsonl").read_text().splitlines()[:20]
            (folder / f"{name}.{split}.jsonl").write_text("\n".join(lines) + "\n")
    for name, text in {**TASKS, "our_stories": ROLLING}.items():
        (folder / f"{name}.yaml").write_text(f"task: {name}\ntag: ours{COMMON}{text}metadata: {{version: 1.0}}\n")
    (folder / "group.yaml").write_text(f"group: our_group\ntask: [{', '.join(TASKS)}]\n")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    random_model(made, 32, 0)
    return made


@pytest.fixture(scope="module")
def hflm(folder: Path) -> HFLM:
    return HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=8)


@pytest.fixture(scope="module")
def model(folder: Path) -> HFModel:
    return HFModel(folder, "test", device="cpu")


@dataclass
class Run:
    """What lm-eval made of a model: its samples by task, and the rows that our reader makes of its log."""

    samples: dict[str, list[dict[str, Any]]]
    rows: dict[tuple[str, str], LogRow]


def evaluated(lm: Any, include: Path, names: list[str], out: Path | None, how: Elicitation, **options: Any) -> Run:
    tracker = None if out is None else EvaluationTracker(output_path=str(out))
    found = simple_evaluate(
        model=lm, tasks=names, task_manager=TaskManager(include_path=str(include), include_defaults=False), bootstrap_iters=0,
        log_samples=True, limit=LIMIT, num_fewshot=how.shots, apply_chat_template=how.template == "chat", system_instruction=how.system,
        **options,
    )  # fmt: skip
    samples = deepcopy(found["samples"])
    if tracker is None or out is None:
        return Run(samples, {})
    logged = found.pop("samples")
    tracker.save_results_aggregated(results=found, samples=logged)
    for task, some in logged.items():
        tracker.save_results_samples(task_name=task, samples=some)
    merged: dict[tuple[str, str], LogRow] = {}
    for row in log_reader.read(out, Want()).rows or ():
        merged.setdefault((row.task, row.item), row).scores.update(row.scores)
    return Run(samples, merged)


def measured(model: Any, tasks: list[Any], how: Elicitation) -> tuple[ArmPlan, dict[str, Answer], dict[tuple[str, str], LogRow]]:
    plan = plan_arm("arm", model, how, [(task, LIMIT) for task in tasks])
    with Answers(None) as answers:
        found = collect(plan, answers, lambda *_: None)
    return plan, found, {(row.task, row.item): row for row in rows(plan, found, None, None)}


def likelihoods(plan: ArmPlan, found: dict[str, Answer]) -> dict[tuple[str, str], list[Any]]:
    """Responses in the order of lm-eval's requests."""
    out: dict[tuple[str, str], list[Any]] = {}
    for sitting in plan.sittings:
        answers = [found[key] for keys in sitting.requests for key in keys]
        out[sitting.task, sitting.question.item] = [
            (a.total, all(a.greedy)) if isinstance(a, Scored) else a.text if isinstance(a, Generated) else a for a in answers
        ]
    return out


def agree(ours: list[Any], theirs: list[Any]) -> None:
    assert len(ours) == len(theirs)
    for one, two in zip(ours, theirs, strict=True):
        first = two[0] if isinstance(two, list) else two
        if isinstance(one, tuple):
            assert one[0] == pytest.approx(float(first[0]), abs=1e-4)
            assert one[1] == bool(first[1])
        else:
            assert one == first


HOWS = [
    Elicitation(),
    Elicitation(shots=2, system="speak of numbers."),
    Elicitation(template="chat", shots=2),
    Elicitation(template="chat", system="speak of numbers."),
]


@pytest.mark.parametrize("how", HOWS, ids=["raw", "raw-shots", "chat-shots", "chat"])
def test_every_item_is_what_lm_eval_makes_of_it(how: Elicitation, tasks: Path, hflm: HFLM, model: HFModel, tmp_path: Path) -> None:
    lab = ["lab_addition" if how.template == "raw" else "lab_comparing"] if how.shots else []
    names = ["our_group"]
    theirs = evaluated(hflm, tasks, names, tmp_path / "log", how)
    found = registered("our_group", [tasks])
    assert [t.name for t in found] == list(TASKS)
    if lab:
        more = evaluated(hflm, LAB, lab, tmp_path / "lab", how)
        theirs = Run({**theirs.samples, **more.samples}, {**theirs.rows, **more.rows})
        found += [t for name in lab for t in registered(name, [LAB])]
    plan, answers, ours = measured(model, found, how)
    said = likelihoods(plan, answers)
    assert ours.keys() == theirs.rows.keys()
    assert len(ours) == LIMIT * len(found)
    for key, row in ours.items():
        log = theirs.rows[key]
        assert (row.item, row.content) == (log.item, log.content)
        named = dict(row.scores)
        assert {n: v.outcome for n, v in named.items() if v.value} == {n: v.outcome for n, v in log.scores.items() if v.value}
        for name, value in log.scores.items():
            rounded = "log_likelihood" in name or name.split(",")[0] in CHOICE_METRICS
            assert value.value == pytest.approx(named.pop(name).value, abs=1e-4 if rounded else 0), (key, name)
        assert not named
    for task, samples in theirs.samples.items():
        for sample in samples:
            agree(said[task, str(sample["doc_id"])], sample["resps"])


def test_replies_are_read_by_every_filter(tasks: Path, model: HFModel) -> None:
    (task,) = registered("our_sums", [tasks])
    _, answers, ours = measured(model, [task], Elicitation())
    assert all(isinstance(a, Generated) and a.text for a in answers.values())
    for row in ours.values():
        strict, flexible = row.scores["exact_match,strict-match"], row.scores["exact_match,flexible-extract"]
        assert strict.extracted == "[invalid]"
        assert strict.outcome in (Outcome.UNPARSED, Outcome.TRUNCATED)
        assert flexible.extracted
        assert flexible.extracted in (row.answer or "")
    assert task.higher_is_better == {"exact_match,strict-match": True, "exact_match,flexible-extract": True}


def test_texts_as_a_whole(tasks: Path, folder: Path, model: HFModel, tmp_path: Path) -> None:
    """lm-eval counts the begin token where the tokenizer adds one, as a text that begins twice; we do not, nor does it when told so."""
    plain = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=8, add_bos_token=False)
    theirs = evaluated(plain, tasks, ["our_stories"], tmp_path / "log", Elicitation())
    (task,) = registered("our_stories", [tasks])
    plan, _, ours = measured(model, [task], Elicitation())
    assert all(isinstance(s.question.wants[0], Roll) for s in plan.sittings)
    assert any(len(s.requests[0]) > 1 for s in plan.sittings)  # more than one window
    for sample in theirs.samples["our_stories"]:
        row = ours["our_stories", str(sample["doc_id"])]
        assert row.content == theirs.rows["our_stories", row.item].content
        likelihood, size = sample["bits_per_byte"]
        assert row.scores.keys() == {"bits_per_byte,none"}
        assert row.scores["bits_per_byte,none"].value == pytest.approx(-likelihood / size / 0.6931471805599453, abs=1e-6)
    assert task.facts["left_out"] == ["word_perplexity", "byte_perplexity"]
    assert task.higher_is_better == {"bits_per_byte,none": False}
    ours_asked = evaluated(AligntaxLM(model), tasks, ["our_stories"], None, Elicitation())
    for one, two in zip(ours_asked.samples["our_stories"], theirs.samples["our_stories"], strict=True):
        assert one["byte_perplexity"] == pytest.approx(two["byte_perplexity"], abs=1e-3)


@pytest.mark.parametrize("how", [HOWS[0], HOWS[2]], ids=["raw", "chat-shots"])
def test_our_engine_as_a_model_of_lm_eval(how: Elicitation, tasks: Path, hflm: HFLM, folder: Path) -> None:
    theirs = evaluated(hflm, tasks, list(TASKS), None, how)
    arguments: Any = f"pretrained={folder},dtype=float32" if how.template == "raw" else {"pretrained": str(folder)}
    ours = evaluated("aligntax", tasks, list(TASKS), None, how, model_args=arguments, device="cpu", batch_size=4)
    for task, samples in theirs.samples.items():
        for one, two in zip(ours.samples[task], samples, strict=True):
            assert one["arguments"] == two["arguments"]
            agree([r[0] for r in one["resps"]], two["resps"])
            assert [one[m] for m in one["metrics"] if m not in ("perplexity", "brier_score")] == [
                two[m] for m in two["metrics"] if m not in ("perplexity", "brier_score")
            ]


def test_a_begun_answer_stands_where_the_template_puts_it(folder: Path, hflm: HFLM, model: HFModel) -> None:
    turns = [("user", "which is larger?"), ("assistant", "the larger one is ")]
    chat = [{"role": role, "content": content} for role, content in turns]
    assert begun(model.template, turns) == hflm.apply_chat_template(chat, add_generation_prompt=False)

    def refuses(messages: Any) -> str:
        if messages[-1][0] != "user":
            raise InputError("user last")
        return "U" + messages[-1][1] + "A"

    assert begun(refuses, turns) == "Uwhich is larger?Athe larger one is "
    assert begun(lambda m: f"{len(m)}:", turns) == "1:the larger one is "
    assert begun(lambda m: m[-1][1].strip() + "|", turns) == "the larger one is"


def test_endpoints_that_render_themselves_get_the_turns(tasks: Path) -> None:
    (task,) = registered("our_sums", [tasks])
    question = task.questions(Elicitation(template="chat", shots=1, system="add."), None)[0]
    (want,) = question.wants
    assert isinstance(want, Write)
    assert isinstance(want.wording, tuple)
    assert [role for role, _ in want.wording] == ["system", "user", "assistant", "user"]
    assert question.question == want.wording[-1][1].removeprefix("question: ").removesuffix(" answer:")
    (task,) = registered("our_choices", [tasks])
    conditioned, bare = task.questions(Elicitation(template="chat"), lambda m: f"<{m[-1][1]}>")[0].wants
    assert isinstance(conditioned, Choose)
    assert isinstance(conditioned.wording, Templated)
    assert isinstance(bare, Choose)
    assert bare.wording == ""
    (task,) = registered("our_begun", [tasks])
    with pytest.raises(InputError, match="our_begun begins the answer itself, which needs the chat template"):
        task.questions(Elicitation(template="chat"), None)


def test_shots(tasks: Path, tmp_path: Path) -> None:
    (task,) = registered("our_choices", [tasks])
    again = registered("our_choices", [tasks])[0]
    two, none = Elicitation(shots=2), Elicitation()
    first = [q.wants for q in task.questions(two)]
    assert [q.wants for q in task.questions(none)] != first
    assert task.facts["n-shot"] == 0
    assert [q.wants for q in task.questions(two)] == first == [q.wants for q in again.questions(two)]
    assert task.facts["n-shot"] == 2
    assert task.identity == again.identity != registered("our_begun", [tasks])[0].identity
    with pytest.raises(InputError, match="our_choices cannot be asked with 99 examples: Sample larger"):
        task.questions(Elicitation(shots=99))
    moved = tmp_path / "elsewhere"
    shutil.copytree(tasks, moved)
    assert registered("our_choices", [moved])[0].identity == task.identity
    with (moved / "comparing.test.jsonl").open("a") as file:
        file.write((moved / "comparing.shots.jsonl").read_text())
    assert registered("our_choices", [moved])[0].identity != task.identity
    (moved / "our_choices.yaml").write_text((moved / "our_choices.yaml").read_text() + "num_fewshot: 0\n")
    (fixed,) = registered("our_choices", [moved])
    assert fixed.questions(two)[0].wants == fixed.questions(none)[0].wants
    assert fixed.facts["notes"] == ["asked without examples, as the task says, not with 2"]


CODE = """
def results(doc, results):
    if doc["cluster"].endswith("9"):
        raise KeyError("no such thing")
    doc["answers"].clear()
    text = results[0]
    return {"long": len(text), "parts": [1, 0, 1], "words": text.count(" ") + 1}

def rate(items):
    return sum(map(sum, items))
"""


def test_metrics_of_a_tasks_own(tasks: Path, tmp_path: Path) -> None:
    """Its errors are the machinery's, its lists are left out, and a failed answer has no score under any name."""
    shutil.copytree(tasks, tmp_path, dirs_exist_ok=True)
    (tmp_path / "code.py").write_text(CODE)
    (tmp_path / "own.yaml").write_text(
        f"task: own{COMMON}"
        """
dataset_kwargs: {file: addition}
doc_to_text: "question: {{prompt}} answer:"
doc_to_target: answers
output_type: generate_until
process_results: !function code.results
generation_kwargs: {until: ["x"], max_gen_toks: 3}
metric_list:
  - {metric: long, aggregation: mean, higher_is_better: true}
  - {metric: parts, aggregation: !function code.rate, higher_is_better: true}
"""
    )
    (task,) = registered("own", [tmp_path])
    facts = dict(task.facts)
    questions = task.questions(Elicitation())
    good = next(q for q in questions if not q.labels["cluster"].endswith("9"))
    bad = next(q for q in questions if q.labels["cluster"].endswith("9"))
    nothing = (None, Outcome.FAILED)

    def graded(question: Any, answer: Answer) -> dict[str, Any]:
        return {name: (v.value, v.outcome) for name, v in question.grade([[answer]]).items()}

    said, gone = Generated("a b", "stop", 2), Failure("down")
    assert graded(good, gone) == {"long,none": nothing}  # what else there is was not seen yet
    for _ in range(2):  # the task empties its items
        assert graded(good, said) == {"long,none": (3.0, Outcome.SCORED), "words,none": (2.0, Outcome.SCORED)}
    assert graded(bad, said) == graded(good, gone) == {"long,none": nothing, "words,none": nothing}
    assert facts["left_out"] == ["parts"]  # facts are taken before answers are graded, and know it all the same
    assert facts["notes"] == [f"item {bad.item} could not be scored: KeyError: 'no such thing'"]
    assert (facts["other_aggregations"], task.facts["other_aggregations"]) == ({"parts": "rate"}, {})


def test_cut_and_empty_replies(tasks: Path) -> None:
    (task,) = registered("our_sums", [tasks])
    question = task.questions(Elicitation())[0]
    strict, flexible = "exact_match,strict-match", "exact_match,flexible-extract"
    right = question.grade([[Generated(f"answer is {question.target}", "length", 5)]])
    assert (right[strict].value, right[strict].outcome) == (1.0, Outcome.SCORED)
    assert right[strict].extracted == question.target
    cut = question.grade([[Generated("answer is 7", "length", 5)]])
    assert (cut[flexible].value, cut[flexible].outcome) == (0.0, Outcome.TRUNCATED)
    wrong = question.grade([[Generated("it is 7", "stop", 5)]])
    assert (wrong[strict].outcome, wrong[flexible].outcome) == (Outcome.UNPARSED, Outcome.SCORED)
    assert question.grade([[Failure("gone")]]).keys() == {strict, flexible}


def test_what_cannot_be_asked_is_refused_by_name(tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lm_eval.tasks

    some = Path(lm_eval.tasks.__file__).parent / "humaneval"  # the whole registry takes a while
    monkeypatch.setattr(module, "_registry", lambda: TaskManager(include_path=str(some), include_defaults=False))
    with pytest.raises(InputError, match=r"no task, group or tag 'our_choice' among \d+; did you mean our_choices"):
        registered("our_choice", [tasks])
    with pytest.raises(InputError, match=r"no task, group or tag 'zzzz' among \d+$"):
        registered("zzzz", [])
    with pytest.raises(InputError, match="nowhere is no folder of tasks"):
        registered("our_sums", [tmp_path / "nowhere"])
    with pytest.raises(InputError, match="humaneval runs code that models write"):
        registered("humaneval", [tasks])
    shutil.copytree(tasks, tmp_path, dirs_exist_ok=True)
    base = f"{COMMON}dataset_kwargs: {{file: addition}}\ndoc_to_text: '{{{{prompt}}}}'\ndoc_to_target: '{{{{answers[0]}}}}'\n"

    def no_network(*_: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("evaluate.load", no_network)
    bad = {
        "picture": ("doc_to_image: prompt\noutput_type: generate_until\n", "picture shows images"),
        "rounds": ("output_type: many_rounds\n", "rounds asks for many_rounds; known: loglikelihood"),
        "code": ("output_type: generate_until\nunsafe_code: true\n", "code runs code that models write"),
        "missing": ("output_type: generate_until\ndataset_kwargs: {file: nowhere}\n", "missing cannot be loaded .*nowhere.test.jsonl"),
        "metric": (
            "output_type: generate_until\nmetric_list: [{metric: no_such_metric, aggregation: mean, higher_is_better: true}]\n",
            "its metric no_such_metric is not here",
        ),
        "package": ("output_type: generate_until\nprocess_results: !function needs.x\n", "package needs a package that is not installed"),
    }
    (tmp_path / "needs.py").write_text("import no_such_package_anywhere\n")
    for name, (text, _) in bad.items():
        lines = base.replace("dataset_kwargs: {file: addition}\n", "") if "dataset_kwargs" in text else base
        (tmp_path / f"{name}.yaml").write_text(f"task: {name}{lines}{text}")
    (tmp_path / "bad_group.yaml").write_text("group: bad_group\ntask: [our_sums, {task: code, num_fewshot: 0}]\n")
    for name, (_, words) in bad.items():
        with pytest.raises(InputError, match=words):
            registered(name, [tmp_path])
    with pytest.raises(InputError, match="code runs code that models write"):
        registered("bad_group", [tmp_path])
    assert {t.name for t in registered("ours", [tasks])} == {*TASKS, "our_stories"}


def test_generation_settings() -> None:
    greedy = decoding({"until": "x", "do_sample": False, "temperature": 0.7, "top_k": 5, "num_beams": 1, "min_p": None})
    assert (greedy.max_tokens, greedy.stops, greedy.temperature) == (256, ("x",), 0.0)
    drawn = decoding({"until": ["a", ""], "temperature": 0.5, "top_p": 0.9, "max_new_tokens": 7, "max_gen_toks": 5})
    assert (drawn.max_tokens, drawn.stops, drawn.temperature, drawn.top_p) == (5, ("a",), 0.5, 0.9)
    assert decoding({"do_sample": True}).temperature == 0.0  # as lm-eval's engines take it
    assert decoding({"temperature": 0.5, "top_k": 5}, temperature=0.0).temperature == 0.5
    for bad, words in (
        ({"num_beams": 4}, "num_beams=4 is not known here"),
        ({"temperature": 1.0, "top_k": 5}, "top_k=5"),
        ({"top_k": 5}, None),
        ({"max_length": 30}, "max_length=30"),
        ({"max_gen_toks": 0}, "no answer can be written with max_gen_toks 0"),
        ({"temperature": "warm"}, "temperature must be a number"),
        ({"do_sample": "maybe"}, "do_sample must be true or false"),
    ):
        if words is None:
            decoding(bad)
            continue
        with pytest.raises(InputError, match=words):
            decoding(bad)


def test_settings_of_a_task_that_would_be_lost(tasks: Path, tmp_path: Path) -> None:
    shutil.copytree(tasks, tmp_path, dirs_exist_ok=True)
    text = (tmp_path / "our_sums.yaml").read_text()
    (tmp_path / "our_sums.yaml").write_text(text.replace("do_sample: false", "do_sample: false, penalty_alpha: 0.6"))
    (task,) = registered("our_sums", [tmp_path])
    with pytest.raises(InputError, match=r"our_sums cannot be asked: the generation setting penalty_alpha=0\.6"):
        task.questions(Elicitation())
    (tmp_path / "our_sums.yaml").write_text(text.replace("do_sample: false", "do_sample: true"))
    (task,) = registered("our_sums", [tmp_path])
    with pytest.raises(InputError, match="our_sums draws 2 replies to one question"):
        task.questions(Elicitation())
    assert task.questions(Elicitation(temperature=0.0))


def test_a_model_that_fails_says_so_to_lm_eval(tasks: Path, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance

    def instance(kind: Any, *arguments: Any) -> Instance:
        return Instance(kind, {}, arguments, 0)

    silent = AligntaxLM(Known("silent", lambda _: Failure("the server is gone")))
    with pytest.raises(RuntimeError, match=r"^the server is gone$"):
        silent.generate_until([instance("generate_until", "a", {"until": ["."]})])
    with pytest.raises(RuntimeError, match="num_beams=3 is not known here"):
        silent.generate_until([instance("generate_until", "a", {"num_beams": 3})])
    with pytest.raises(RuntimeError, match="silent gives no rolling log-likelihoods"):
        silent.loglikelihood_rolling([instance("loglikelihood_rolling", "a")])
    assert silent.loglikelihood([instance("loglikelihood", "a", " bc")]) == [(-3.0, False)]
    mute = AligntaxLM(Known("mute", str, chats=False))
    with pytest.raises(RuntimeError, match="mute has no chat template"):
        mute.apply_chat_template([{"role": "user", "content": "hello"}])
    assert silent.apply_chat_template([{"role": "user", "content": "hello"}]) == "<user>hello<assistant>"
    assert len(silent.tokenizer_name) == 16
    with pytest.raises(InputError, match="is no model"):
        AligntaxLM("no model at all")


def test_an_endpoint_gets_its_turns_back() -> None:
    class Remote(Known):
        def template(self, messages: Any) -> str:
            raise InputError("only the endpoint can")

        def chat(self, messages: Any) -> Any:
            from aligntax.core.asks import Prompt

            return Prompt(None, None, tuple(messages), special=False)

        def generate(self, asks: Any) -> Any:
            for number, ask in enumerate(asks):
                yield number, Generated(f"{ask.prompt.messages[-1][1]} {ask.seed}", "stop", 1)

    from lm_eval.api.instance import Instance

    lm = AligntaxLM(Remote("remote", str))
    text = lm.apply_chat_template([{"role": "user", "content": "hello"}])
    assert json.loads(text) == [["user", "hello"]]
    asked = [Instance("generate_until", {}, (text, {"temperature": 1.0, "until": []}), 0)] * 2
    asked.append(Instance("generate_until", {}, (lm.apply_chat_template([{"role": "user", "content": "bye"}]), asked[0].args[1]), 1))
    said = [answer.split() for answer in lm.generate_until(asked)]
    assert [word for word, _ in said] == ["hello", "hello", "bye"]
    assert len({seed for _, seed in said}) == 3  # every request has draws of its own
    assert lm.generate_until(asked) == [" ".join(one) for one in said]
    with pytest.raises(RuntimeError, match="only the endpoint can"):
        lm.apply_chat_template([{"role": "assistant", "content": "so"}], add_generation_prompt=False)


def test_registered_is_a_task(tasks: Path) -> None:
    (task,) = registered("our_last", [tasks])
    assert isinstance(task, Registered)
    assert task.higher_is_better == {"log_likelihood,none": True, "acc,none": True}
    assert task.facts["lm_eval"]
    assert (task.facts["version"], task.facts["items"], task.kind) == (1.0, 20, None)
