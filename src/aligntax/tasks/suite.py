"""Our own suites: lm-eval tasks of a plain sort (YAML beside JSON lines), read without lm-eval and asked exactly as lm-eval asks them.

What a suite may say is listed in ``Recipe``; anything else is refused by name, since it would be read differently by lm-eval.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from jinja2 import StrictUndefined, TemplateError
from jinja2.sandbox import SandboxedEnvironment
from pydantic import Field, ValidationError, field_validator, model_validator

from aligntax.core.asks import Answer, Failure, Generated, Message, Scored
from aligntax.core.choices import beliefs
from aligntax.core.errors import InputError
from aligntax.core.files import read_text
from aligntax.core.ids import canonical_json, digest
from aligntax.core.items import Choose, Question, Roll, Value, Want, Wording, Write
from aligntax.core.kinds import CHOICE_METRICS
from aligntax.core.samples import Outcome
from aligntax.core.study import Elicitation, Frozen
from aligntax.core.words import label_text, printable
from aligntax.core.yamlio import read_yaml

MAX_BYTES = 64 * 2**20
"""Of a task or its data set."""
_LN2 = math.log(2)
_TEMPLATES = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


class Filter(Frozen):
    """One step from a reply to an answer; ``regex`` takes group 1 of the first match (the last with ``group_select: -1``)."""

    function: Literal["remove_whitespace", "take_first", "lowercase", "regex"]
    regex_pattern: str = r"#### (\-?[0-9\.\,]+)"
    group_select: Literal[0, -1] = 0
    fallback: str = "[invalid]"

    @field_validator("regex_pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regular expression ({error})") from None
        return pattern


class Extractor(Frozen):
    """A named chain of filters: one way to read an answer out of a reply."""

    name: str
    filter: tuple[Filter, ...]


class Metric(Frozen):
    """What an answer is worth. Averages are taken over items."""

    metric: Literal["exact_match", "acc", "acc_norm", "acc_bytes", "acc_tokens", "bits_per_byte"]
    aggregation: Literal["mean", "bits_per_byte"] = "mean"
    higher_is_better: bool = True


class Decoding(Frozen):
    """How a reply is written."""

    until: tuple[str, ...] = ()
    max_gen_toks: int = Field(default=256, ge=1)
    do_sample: bool = False
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class Shots(Frozen):
    """Shots are the first so many of their split."""

    sampler: Literal["first_n"]


class Recipe(Frozen):
    """The YAML of one task, in lm-eval's words."""

    task: str
    custom_dataset: str
    dataset_kwargs: dict[Literal["file"], str]
    test_split: Literal["test"]
    fewshot_split: Literal["shots"] | None = None
    fewshot_config: Shots | None = None
    num_fewshot: int = Field(default=0, ge=0)
    description: str = ""
    doc_to_text: str
    doc_to_target: str | None = None
    doc_to_choice: str | None = None
    target_delimiter: str = " "
    fewshot_delimiter: str = "\n\n"
    output_type: Literal["generate_until", "multiple_choice", "loglikelihood_rolling"]
    generation_kwargs: Decoding = Decoding()
    filter_list: tuple[Extractor, ...] = ()
    metric_list: tuple[Metric, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)

    @field_validator("dataset_kwargs")
    @classmethod
    def _names_a_file(cls, given: dict[str, str]) -> dict[str, str]:
        if not re.fullmatch(r"[\w.-]{1,200}", given.get("file", "")):
            raise ValueError("file must name the items beside this file: letters, digits, dots and hyphens, without .test.jsonl")
        return given

    @field_validator("metadata")
    @classmethod
    def _is_data(cls, given: dict[str, Any]) -> dict[str, Any]:
        try:
            canonical_json(given)
        except (ValueError, TypeError, RecursionError):
            raise ValueError("only text, finite numbers, lists and mappings can be written down with a result") from None
        refusals = given.get("refusals", [])
        if not isinstance(refusals, list) or not all(isinstance(one, str) for one in refusals):
            raise ValueError("refusals must be a list of texts")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        allowed = _METRICS[self.output_type]
        if wrong := next((m.metric for m in self.metric_list if m.metric not in allowed), None):
            raise ValueError(f"metric {wrong} does not go with {self.output_type}; allowed: {', '.join(allowed)}")
        if not self.metric_list and self.output_type != "generate_until":
            raise ValueError(f"metric_list must name a metric for {self.output_type}; only tasks of generate_until may be without one")
        if self.metric_list and self.doc_to_target is None:
            raise ValueError("metric_list needs doc_to_target: what is right; leave both out where answers are only judged or compared")
        if self.output_type == "multiple_choice" and self.doc_to_choice is None:
            raise ValueError("multiple_choice needs doc_to_choice")
        return self


OPEN = "answered,none"
"""Metric of tasks that name none: the share of requests with an answer that is not empty."""

_METRICS = {
    "generate_until": ("exact_match",),
    "multiple_choice": ("acc", "acc_norm", "acc_bytes", "acc_tokens"),
    "loglikelihood_rolling": ("bits_per_byte",),
}


@dataclass(frozen=True)
class Suite:
    """One task of a suite: its recipe and the folder where its items stand. Satisfies ``core.items.Task``."""

    recipe: Recipe
    folder: Path

    @property
    def name(self) -> str:
        return self.recipe.task

    @property
    def kind(self) -> str | None:
        kind = self.recipe.metadata.get("kind")
        return None if kind is None else str(kind)

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        return self._rows("test")

    @cached_property
    def shots(self) -> list[dict[str, Any]]:
        return self._rows("shots") if self.recipe.fewshot_split else []

    @cached_property
    def identity(self) -> str:
        how = {k: v for k, v in self.recipe.model_dump(mode="json").items() if k != "metadata"}
        return digest([how, self.items, self.shots])

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        names = [e.name for e in self.recipe.filter_list] or ["none"]
        return {f"{m.metric},{name}": m.higher_is_better for m in self.recipe.metric_list for name in names} or {OPEN: True}

    @property
    def facts(self) -> Mapping[str, Any]:
        return {"source": "suite", "version": self.recipe.metadata.get("version"), "items": len(self.items), "identity": self.identity}

    def _rows(self, split: str) -> list[dict[str, Any]]:
        path = self.folder / f"{self.recipe.dataset_kwargs['file']}.{split}.jsonl"
        text = read_text(path, "data of a task are read whole", MAX_BYTES)
        rows = []
        for number, line in enumerate(text.split("\n"), 1):  # not splitlines: JSON may hold other line ends as they are
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                canonical_json(row).encode()
            except (ValueError, RecursionError) as error:
                why = "nested too deeply" if isinstance(error, RecursionError) else printable(str(error))[:200]
                raise InputError(f"{_shown(path)}, line {number} is no JSON that can be used ({why})") from None
            if not isinstance(row, dict):
                raise InputError(f"{_shown(path)}, line {number} is a {type(row).__name__}; every line must be an object")
            rows.append(row)
        if not rows and split == "test":
            raise InputError(f"{_shown(path)} is empty: the task {printable(self.name)} has no items")
        return rows

    # -- asking ------------------------------------------------------------------------------------------------------------

    def questions(self, how: Elicitation, template: Callable[[Sequence[Message]], str] | None = None) -> list[Question]:
        """Every item as it is asked.

        Raises:
            InputError: if more shots are wanted than there are, or an item does not fit the recipe.
        """
        del template  # a suite's conversations are rendered by whoever asks
        count = self.recipe.num_fewshot if how.shots is None else how.shots
        if count > len(self.shots):
            raise InputError(f"{printable(self.name)} has {len(self.shots)} shots; {count} were asked for")
        shots = self.shots[:count]
        before = [self._turn(row) for row in shots]
        answers = [self._gold_text(row) for row in shots]
        system = _joined(how.system or "", self.recipe.description, self.recipe.fewshot_delimiter)
        return [self._question(n, row, _Frame(self.recipe, how.template, system, before, answers)) for n, row in enumerate(self.items)]

    def _question(self, number: int, row: dict[str, Any], frame: _Frame) -> Question:
        text, target = self._turn(row), self._target(row)
        wants, grade = self._asked(row, frame.wording(text))
        return Question(
            item=str(number),
            content=digest([row, str(target)]),  # lm-eval logs a target as text: a run pairs with its logs
            question=str(row.get("prompt", text)),
            target=self._gold_text(row),
            wants=(wants,),
            grade=grade,
            cluster=label_text(row.get("cluster")),
            labels={k: said for k, v in row.items() if isinstance(v, str | int | float | bool) and (said := label_text(v)) is not None},
        )

    def _asked(self, row: dict[str, Any], wording: Wording) -> tuple[Want, Callable[[Sequence[Sequence[Answer]]], dict[str, Value]]]:
        recipe = self.recipe
        if recipe.output_type == "multiple_choice":
            choices, gold = self._choices(row), self._target(row)
            # As lm-eval: a chat template ends where the answer begins, a raw text leaves the delimiter to the answer.
            delimiter = recipe.target_delimiter if isinstance(wording, str) else ""
            metrics = [m.metric for m in recipe.metric_list]
            return Choose(wording, tuple(delimiter + c for c in choices)), lambda found: grade_choice(found[0], choices, gold, metrics)
        if recipe.output_type == "loglikelihood_rolling":
            text = self._gold_text(row)
            return Roll(text), lambda found: grade_roll(found[0], text)
        decoding = recipe.generation_kwargs
        warm = decoding.temperature if decoding.do_sample else 0.0
        want = Write(wording, decoding.max_gen_toks, decoding.until, warm, decoding.top_p)
        if not recipe.metric_list:
            return want, lambda found: grade_open(found[0][0])
        accepted = self._target(row)
        answers = [str(a) for a in (accepted if isinstance(accepted, list) else [accepted])]
        return want, lambda found: grade_text(found[0][0], answers, recipe.filter_list, self._refusals)

    @cached_property
    def _refusals(self) -> frozenset[str]:
        return frozenset(str(text) for text in self.recipe.metadata.get("refusals") or ())

    @cached_property
    def _text_template(self) -> Any:
        return _TEMPLATES.from_string(self.recipe.doc_to_text)

    def _turn(self, row: Mapping[str, Any]) -> str:
        try:
            return str(self._text_template.render(row))
        except Exception as error:  # noqa: BLE001 - a template is a program, and raises what it likes
            why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            raise InputError(f"{printable(self.name)}: doc_to_text does not fit an item ({printable(why)[:200]})") from None

    def _field(self, row: Mapping[str, Any], name: str) -> Any:
        if name not in row:
            raise InputError(f"{printable(self.name)}: an item has no field {printable(name)!r}; it has {printable(', '.join(row))}")
        return row[name]

    def _target(self, row: Mapping[str, Any]) -> Any:
        """What is right; nothing where a task does not say."""
        return "" if self.recipe.doc_to_target is None else self._field(row, self.recipe.doc_to_target)

    def _choices(self, row: Mapping[str, Any]) -> list[str]:
        choices, gold = self._field(row, str(self.recipe.doc_to_choice)), self._target(row)
        if not isinstance(choices, list) or len(choices) < 2 or not isinstance(gold, int) or not 0 <= gold < len(choices):
            raise InputError(f"{printable(self.name)}: an item needs at least two choices, and the number of the right one")
        return [str(c) for c in choices]

    def _gold_text(self, row: Mapping[str, Any]) -> str:
        target = self._target(row)
        if self.recipe.output_type == "multiple_choice":
            return self._choices(row)[int(target)]
        return str(target[0]) if isinstance(target, list) and target else str(target)


@dataclass(frozen=True)
class _Frame:
    """What every item of a task has around it: system prompt and shots."""

    recipe: Recipe
    template: str
    system: str
    shots: Sequence[str]
    answers: Sequence[str]

    def wording(self, text: str) -> Wording:
        """Raw: one text. Chat: shots as turns of their own."""
        if self.template == "raw":
            told = "".join(
                q + self.recipe.target_delimiter + a + self.recipe.fewshot_delimiter for q, a in zip(self.shots, self.answers, strict=True)
            )
            return self.system + told + text
        turns: list[Message] = [("system", self.system)] if self.system else []
        for q, a in zip(self.shots, self.answers, strict=True):
            turns += [("user", q), ("assistant", a)]
        return (*turns, ("user", text))


def _joined(one: str, two: str, between: str) -> str:
    if not one or not two:
        return one or two
    return one + two if one[-1].isspace() or two[0].isspace() else one + between + two


# -- grading -------------------------------------------------------------------------------------------------------------------


def grade_text(answer: Answer, accepted: Sequence[str], extractors: Sequence[Extractor], refusals: frozenset[str]) -> dict[str, Value]:
    """Whether what each extractor reads is one of the accepted answers; refused, unparsed and cut answers say so."""
    chains = extractors or (Extractor(name="none", filter=()),)
    if not isinstance(answer, Generated):
        return {f"exact_match,{e.name}": Value(None, Outcome.FAILED) for e in chains}
    found = {}
    for chain in chains:
        text, read = extracted(answer.text, chain.filter)
        right = text in accepted
        if right:
            outcome = Outcome.SCORED
        elif answer.text.strip() in refusals:
            outcome = Outcome.REFUSED
        elif answer.reason == "length":
            outcome = Outcome.TRUNCATED
        else:
            outcome = Outcome.SCORED if read else Outcome.UNPARSED
        found[f"exact_match,{chain.name}"] = Value(float(right), outcome, text)
    return found


def grade_open(answer: Answer) -> dict[str, Value]:
    """Whether there is an answer at all, of a task that does not say what is right: refusals, preferences and diversity are read off it."""
    if not isinstance(answer, Generated):
        return {OPEN: Value(None, Outcome.FAILED)}
    there = bool(answer.text.strip())
    outcome = Outcome.UNPARSED if not there else Outcome.TRUNCATED if answer.reason == "length" else Outcome.SCORED
    return {OPEN: Value(float(there), outcome)}


def extracted(text: str, filters: Sequence[Filter]) -> tuple[str, bool]:
    """(what is left of a reply, whether anything was found in it)."""
    read = True
    for one in filters:
        if one.function == "remove_whitespace":
            text = text.strip()
        elif one.function == "lowercase":
            text = text.lower()
        elif one.function == "regex":
            matches = re.findall(one.regex_pattern, text)
            match: Any = matches[one.group_select] if matches else one.fallback
            if isinstance(match, tuple):  # several groups: the one that matched, as lm-eval takes it
                match = next((m for m in match if m), one.fallback)
            text, read = match.strip(), bool(matches)
    return text, read and text != ""


def grade_choice(found: Sequence[Answer], choices: Sequence[str], gold: int, metrics: Sequence[str]) -> dict[str, Value]:
    """Whether the likeliest choice is right: as it is, per character (lm-eval's ``acc_norm``), per byte, per token; and how sure the model was."""
    scored = [a for a in found if isinstance(a, Scored)]
    if len(scored) < len(choices):
        return {f"{name},none": Value(None, Outcome.FAILED) for name in (*metrics, *(CHOICE_METRICS if "acc" in metrics else ()))}
    sizes = {
        "acc": [1.0] * len(choices),
        "acc_norm": [float(len(c)) for c in choices],
        "acc_bytes": [float(len(c.encode())) for c in choices],
        "acc_tokens": [float(len(a.logprobs)) for a in scored],
    }
    out = {}
    for name in metrics:
        likely = [a.total / max(1.0, size) for a, size in zip(scored, sizes[name], strict=True)]
        best = max(range(len(choices)), key=likely.__getitem__)
        out[f"{name},none"] = Value(float(best == gold), Outcome.SCORED, choices[best])
    if "acc" not in metrics:
        return out
    likelihoods = [a.total for a in scored]
    right = max(range(len(choices)), key=likelihoods.__getitem__) == gold
    return out | {f"{name},none": Value(value) for name, value in beliefs(likelihoods, right, gold).items()}


def grade_roll(found: Sequence[Answer], text: str) -> dict[str, Value]:
    """Bits per byte of a text: -log2 of its likelihood over its length in UTF-8."""
    if not found or any(isinstance(a, Failure) or not isinstance(a, Scored) for a in found):
        return {"bits_per_byte,none": Value(None, Outcome.FAILED)}
    total = sum(a.total for a in found if isinstance(a, Scored))
    return {"bits_per_byte,none": Value(-total / _LN2 / max(1, len(text.encode())))}


# -- finding -------------------------------------------------------------------------------------------------------------------


@dataclass
class Folder:
    """What a folder of tasks holds.

    Attributes:
        tasks: by name. groups: names of tasks by the group's name.
        others: why a file is no suite, by the name it has or its file's; lm-eval may read it.
    """

    tasks: dict[str, Suite] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)


def suites(folder: Path) -> Folder:
    """The tasks of a folder.

    Raises:
        InputError: if a file cannot be read at all, or is no YAML.
    """
    found = Folder()
    for path in sorted(folder.glob("*.yaml")):
        data = _yaml(path)
        if "group" in data:
            named = data.get("task")
            found.groups[str(data["group"])] = tuple(map(str, named if isinstance(named, list) else [named] if named else ()))
            continue
        try:
            suite = Suite(Recipe.model_validate(data), path.parent)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            name = data.get("task") if isinstance(data.get("task"), str) else path.stem
            found.others[str(name)] = f"{_shown(path)}: {printable(where)}: {printable(first['msg'])}"
            continue
        found.tasks[suite.name] = suite
    return found


def _yaml(path: Path) -> dict[str, Any]:
    # lm-eval's ``!function`` stays a name, and is never called.
    data = read_yaml(read_text(path, "a task is a small text", MAX_BYTES), _shown(path), names=("!function",))
    if not isinstance(data, dict):
        raise InputError(f"{_shown(path)} is no task: a mapping was expected")
    return data


def _shown(path: Path) -> str:
    return printable(str(path))
