"""Every task of lm-eval's registry (extra ``eval``), asked by our engine and graded by lm-eval's own filters and metrics.

lm-eval builds the requests and turns responses into scores; between the two stand our models. What it would send to a model that we
cannot ask is refused by name. Remote code stays off, and tasks that run what a model wrote are never run.
"""

from __future__ import annotations

import inspect
import json
import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from aligntax.core.asks import Answer, Failure, Generated, Message, Scored
from aligntax.core.choices import beliefs
from aligntax.core.errors import InputError, MissingExtraError
from aligntax.core.harness import begun, decoding
from aligntax.core.ids import digest
from aligntax.core.items import Choose, Question, Roll, Task, Templated, Value, Want, Wording, Write
from aligntax.core.samples import MAX_SCORE, Outcome
from aligntax.core.study import Elicitation
from aligntax.core.words import printable

_OUTPUTS = ("loglikelihood", "multiple_choice", "loglikelihood_rolling", "generate_until")
_BITS = "bits_per_byte"
_PERPLEXITIES = (_BITS, "byte_perplexity", "word_perplexity")
_OF_PAIRS = frozenset({"f1_score", "matthews_corrcoef", "bleu", "chrf", "chrfpp", "ter", "brier_score"})
_MEANS = frozenset({"mean", "nanmean"})
_NOTHING_EXTRACTED = frozenset({"[invalid]", "", "[no match]"})
_QUESTION_FIELDS = ("question", "problem", "query", "prompt", "input", "goal", "sentence", "text", "ctx", "context")
_MOST_FAULTS = 20
_LN2 = math.log(2)


def registered(name: str, include: Sequence[Path] = ()) -> list[Task]:
    """The tasks behind a name of lm-eval: of a task, a group (opened, in its order) or a tag.

    Args:
        name: as lm-eval knows it.
        include: folders with tasks of one's own, as lm-eval's ``--include_path``; they come before the registry.

    Raises:
        InputError: if nothing has this name, if a task cannot be asked here, or if its items cannot be had.
        MissingExtraError: if lm-eval is not installed.
    """
    if find_spec("lm_eval") is None:
        raise MissingExtraError("lm-eval", "eval")
    with _quietly():
        manager = _manager(name, include)
        for task, config in _below(manager.task_index, name):
            _refuse(task, config or {})  # before any code of the task runs
        with _seeded():
            found = _loaded(manager, name)
    return [_checked(task) for task in found]


def _manager(name: str, include: Sequence[Path]) -> Any:
    """The index that knows a name: of the folders if they do, which is quick, else the whole registry's.

    Raises:
        InputError: if none does.
    """
    from lm_eval.tasks import TaskManager

    known: list[str] = []
    if absent := [folder for folder in include if not folder.is_dir()]:
        raise InputError(f"{printable(str(absent[0]))} is no folder of tasks")
    if include:
        own = TaskManager(include_path=[str(folder) for folder in include], include_defaults=False)
        if name in own.task_index:
            if all(config is not None for _, config in _below(own.task_index, name)):
                return own
            # A group of one's own over tasks of the registry.
            return TaskManager(include_path=[str(folder) for folder in include])
        known += own.all_tasks
    everything = _registry()
    if name in everything.task_index:
        return everything
    known += everything.all_tasks
    near = get_close_matches(name, known, n=3, cutoff=0.6)
    raise InputError(
        f"lm-eval has no task, group or tag {printable(repr(name))} among {len(known):,}"
        + (f"; did you mean {' or '.join(map(printable, near))}?" if near else "")
    )


@cache
def _registry() -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _below(index: Mapping[str, Any], name: str, seen: frozenset[str] = frozenset()) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """(name, settings) of every task that a name stands for; settings are None where the index does not know the task."""
    entry = index.get(name)
    if entry is None:
        yield name, None
    elif name not in seen:
        if entry.kind.name == "TAG":
            yield from _members(index, sorted(entry.tags), seen | {name})
        elif entry.kind.name == "GROUP":
            yield from _members(index, (entry.cfg or {}).get("task") or (), seen | {name})
        else:
            yield name, entry.cfg or {}


def _members(index: Mapping[str, Any], members: Any, seen: frozenset[str]) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """Tasks of a group: named, named with settings of the group's own, or written down there."""
    for child in members if isinstance(members, list | tuple) else ():
        if isinstance(child, str):
            yield from _below(index, child, seen)
        elif isinstance(child, Mapping) and "group" in child and child["group"] not in index:
            yield from _members(index, child.get("task"), seen)
        elif isinstance(child, Mapping):
            name = str(child.get("group", child.get("task")))
            for task, config in _below(index, name, seen):
                yield task, {**(config or {}), **child}


def _refuse(task: str, config: Mapping[str, Any]) -> None:
    """Tasks that ask for what is not here.

    Raises:
        InputError: naming the task, and what it asks for.
    """
    shown = printable(task)
    if config.get("unsafe_code"):
        raise InputError(f"lm-eval's task {shown} runs code that models write, which is never done here")
    if config.get("doc_to_image") or config.get("doc_to_audio"):
        raise InputError(f"lm-eval's task {shown} shows images or plays sounds; only texts can be asked here")
    output = config.get("output_type")
    if output is not None and output not in _OUTPUTS:
        raise InputError(f"lm-eval's task {shown} asks for {printable(str(output))}; known: {', '.join(_OUTPUTS)}")
    kwargs = config.get("dataset_kwargs")
    if isinstance(kwargs, Mapping) and kwargs.get("trust_remote_code") and int(version("datasets").partition(".")[0]) < 4:
        # Later versions of datasets have no remote code, and lm-eval drops the wish.
        raise InputError(
            f"lm-eval's task {shown} loads its items by code from elsewhere, which is not run here; install datasets 4 or later"
        )


def _loaded(manager: Any, name: str) -> list[Any]:
    shown = f"lm-eval's {printable(name)}"
    try:
        return list(manager.load(name)["tasks"].values())
    except ImportError as error:
        raise InputError(f"{shown} needs a package that is not installed ({printable(str(error))[:200]})") from None
    except Exception as error:  # noqa: BLE001 - loaders of data sets, and tasks' own code, raise almost anything
        why = printable((str(error).strip() or type(error).__name__).splitlines()[0])[:200]
        raise InputError(
            f"{shown} cannot be loaded ({type(error).__name__}: {why}); its items come from outside this package: check the connection, "
            "the access to the data set, or the files it names"
        ) from None


def _checked(task: Any) -> Registered:
    from lm_eval.api.task import ConfigurableTask

    name = str(task.task_name)
    _refuse(name, {"unsafe_code": getattr(task, "UNSAFE_CODE", False), "output_type": task.OUTPUT_TYPE})
    if getattr(task, "MULTIMODAL", False):
        _refuse(name, {"doc_to_image": True})
    own = callable(task.config.process_results) or type(task).process_results is not ConfigurableTask.process_results
    missing = [] if own else [metric for metric, function in task._metric_fn_list.items() if function is None]
    if missing:
        raise InputError(f"lm-eval's task {printable(name)}: its metric {printable(missing[0])} is not here, and could not be fetched")
    return Registered(task)


@contextmanager
def _quietly() -> Iterator[None]:
    """lm-eval says nothing below an error, and draws no progress bars of its own."""
    from lm_eval.api import task as module

    log, bars = logging.getLogger("lm_eval"), module.tqdm
    level = log.level
    log.setLevel(logging.ERROR)
    module.tqdm = lambda rows, **_: rows
    try:
        yield
    finally:
        log.setLevel(level)
        module.tqdm = bars


@contextmanager
def _seeded() -> Iterator[None]:
    """The draws that tasks make for themselves (the order of choices, say) are those of lm-eval's own seeds, and nobody else's are moved."""
    import numpy as np
    from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED

    plain, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002 - tasks draw from the global state
    random.seed(DEFAULT_RANDOM_SEED)
    np.random.seed(DEFAULT_OTHER_SEED)  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)  # noqa: NPY002


# -- one task ------------------------------------------------------------------------------------------------------------------


class Registered:
    """One task of lm-eval; satisfies ``core.items.Task``.

    Args:
        task: lm-eval's own object.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self.name = str(task.task_name)
        self.kind: str | None = None
        self._rolling = task.OUTPUT_TYPE == "loglikelihood_rolling"
        self._own_shots: int | None = getattr(task.config, "num_fewshot", None)
        self._config = _settled(task.dump_config())
        self._asked_shots = self._own_shots or 0
        # Facts are taken before answers are graded: these two lists are handed out as they are, and grow.
        self._left_out: list[str] = []
        self._notes: list[str] = []
        self._faults = 0
        self._learned: set[str] = set()
        self._builds: dict[tuple[bool, int, str | None], tuple[list[_Item], _Talk]] = {}
        for metric in self._aggregations:
            if self._output(metric) is None or (self._output(metric) == _BITS != metric):
                self._leave_out(metric)
        if _BITS in map(self._output, self._aggregations):
            self._note("perplexities of a corpus are no averages over items and are not given; bits_per_byte is each item's own")

    # -- what it is ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _identity(self) -> tuple[str, int]:
        """(hash of settings, items and shots, number of items)."""
        with _quietly(), _seeded():
            items = [digest(_plain(doc)) for doc in self._task.eval_docs]
            shots = [digest(_plain(doc)) for doc in getattr(getattr(self._task, "sampler", None), "df", None) or ()]
        return digest([self._config, items, shots, version("lm_eval")]), len(items)

    @property
    def identity(self) -> str:
        return self._identity[0]

    @property
    def facts(self) -> Mapping[str, Any]:
        given = {m: how for m, how in self._aggregations.items() if self._output(m) == m and m not in self._left_out}
        return {
            "source": "lm-eval",
            "lm_eval": version("lm_eval"),
            "version": self._task.VERSION,
            "output_type": self._task.OUTPUT_TYPE,
            "items": self._identity[1],
            "identity": self.identity,
            "n-shot": self._asked_shots,
            # lm-eval's own number is no mean of these.
            "other_aggregations": {m: how for m, how in given.items() if how not in _MEANS and m != _BITS},
            "left_out": self._left_out,
            "notes": self._notes,
        }

    @cached_property
    def _aggregations(self) -> dict[str, str]:
        """Declared metrics by the name of the function that lm-eval sums them up with."""
        return {str(metric): str(getattr(how, "__name__", how)) for metric, how in self._task.aggregation().items()}

    def _output(self, metric: str) -> str | None:
        """What a declared metric is called here; None where only pairs of many items give a number."""
        how = self._aggregations.get(metric, "mean")
        if self._rolling and metric in _PERPLEXITIES:
            return _BITS
        if how == "perplexity":  # its values are log-likelihoods, of which more is better
            return "log_likelihood"
        return None if how in _OF_PAIRS else metric

    @cached_property
    def _filters(self) -> list[str]:
        return [str(f.name) for f in self._task._filters]

    @property
    def higher_is_better(self) -> Mapping[str, bool]:
        found: dict[str, bool] = {}
        for metric, higher in self._task.higher_is_better().items():
            name = self._output(str(metric))
            if name is not None and isinstance(higher, bool):
                found |= {f"{name},{f}": True if name == "log_likelihood" else higher for f in self._filters}
        return found

    def _leave_out(self, metric: str) -> None:
        if metric not in self._left_out:
            self._left_out.append(metric)

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)

    # -- asking --------------------------------------------------------------------------------------------------------------

    def questions(self, how: Elicitation, template: Callable[[Sequence[Message]], str] | None = None) -> list[Question]:
        """Every item as lm-eval asks it.

        Args:
            how: elicitation. Tasks that say they are asked without examples are, however many are wanted, as lm-eval does it.
            template: renders a conversation by the model's chat template; None leaves conversations to the endpoint.

        Raises:
            InputError: if the task cannot be asked so.
        """
        shots = self._shots(how)
        key = how.template == "chat", shots, how.system
        if key not in self._builds:  # once for all models: conversations are not yet rendered in there
            self._builds[key] = self._build(*key)
        items, talk = self._builds[key]
        return [self._question(item, _Sheet(self.name, talk, template, how)) for item in items]

    def _build(self, chat: bool, shots: int, system: str | None) -> tuple[list[_Item], _Talk]:
        from lm_eval.defaults import DEFAULT_OTHER_SEED

        task, talk = self._task, _Talk()
        task.set_config(key="num_fewshot", value=shots)
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        try:
            with _quietly(), _seeded():
                task.build_all_requests(
                    limit=None, rank=0, world_size=1, system_instruction=system, apply_chat_template=chat, fewshot_as_multiturn=True,
                    chat_template=talk if chat else None, tokenizer_name="",
                )  # fmt: skip
                by_doc: dict[int, list[Any]] = {}
                for instance in task.instances:
                    by_doc.setdefault(instance.doc_id, []).append(instance)
                items = [_item(task, talk, number, sorted(of, key=lambda i: i.idx)) for number, of in by_doc.items()]
        except Exception as error:  # noqa: BLE001 - tasks bring code of their own
            why = printable(str(error).strip() or type(error).__name__)[:200]
            raise InputError(f"lm-eval's task {printable(self.name)} cannot be asked with {shots} examples: {why}") from None
        return items, talk

    def _shots(self, how: Elicitation) -> int:
        wanted = self._own_shots if how.shots is None else how.shots
        if self._own_shots == 0 and wanted:
            self._note(f"asked without examples, as the task says, not with {wanted}")
            wanted = 0
        self._asked_shots = wanted or 0
        return self._asked_shots

    def _question(self, item: _Item, sheet: _Sheet) -> Question:
        places = [sheet.place(instance) for instance in item.instances]
        return Question(
            item=item.name,
            content=item.content,
            question=item.question,
            target=item.target,
            wants=sheet.wants,
            grade=partial(self._grade, item, places),
            labels=item.labels,
        )

    # -- grading -------------------------------------------------------------------------------------------------------------

    def _grade(self, item: _Item, places: Sequence[_Place], answers: Sequence[Sequence[Answer]]) -> dict[str, Value]:
        """Scores by lm-eval's own filters and metrics; every metric failed where the machinery gave no answer."""
        responses = [place.response(answers) for place in places]
        if any(isinstance(r, Failure) for r in responses):
            return self._failed(self._filters)
        answered = item.answered(responses)
        cut = any(isinstance(a, Generated) and a.reason == "length" for found in answers for a in found)
        written = all(i.request_type == "generate_until" for i in answered)
        scores: dict[str, Value] = {}
        for ensemble in self._task._filters:
            try:
                with _quietly():
                    ensemble.apply(answered)
                    # A task may write into the item; the next trial needs it as it was.
                    found = self._task.process_results(deepcopy(answered[0].doc), [i.filtered_resps[ensemble.name] for i in answered])
                values = self._values(found, answered)
                values |= self._beliefs(values, item, responses)
            except Exception as error:  # noqa: BLE001 - tasks bring code of their own: a fault of the machinery, never a score
                self._fault(item.name, error)
                scores |= self._failed([ensemble.name])
                continue
            first = answered[0].filtered_resps[ensemble.name]
            for name, value in values.items():
                scores[f"{name},{ensemble.name}"] = _judged(value, first, cut, self._fallbacks) if written else Value(value)
        return scores

    def _beliefs(self, values: Mapping[str, float], item: _Item, responses: Sequence[Any]) -> dict[str, float]:
        """How sure a model was of the choice that ``acc`` judges."""
        if self._config.get("output_type") != "multiple_choice" or "acc" not in values or "acc_mutual_info" in values:
            return {}
        gold = int(item.target) if item.target.isdecimal() else None
        found = beliefs([likelihood for likelihood, _ in responses], bool(values["acc"]), gold)
        self._learned |= found.keys()
        return found

    @cached_property
    def _fallbacks(self) -> frozenset[str]:
        """What the filters leave where they found nothing."""
        chains = [chain.get("filter") or () for chain in self._config.get("filter_list") or () if isinstance(chain, dict)]
        own = [step.get("fallback") for chain in chains for step in chain if isinstance(step, dict)]
        return _NOTHING_EXTRACTED | {text.strip() for text in own if isinstance(text, str)}

    def _values(self, found: Mapping[Any, Any], instances: Sequence[Any]) -> dict[str, float]:
        """Numbers by the names they have here; everything else is left out, and named."""
        values = {}
        pair = next((m for m in _PERPLEXITIES if isinstance(found.get(m), tuple | list) and len(found[m]) == 2), None)
        if pair is not None and self._rolling:
            likelihood, size = found[pair]
            if pair == "word_perplexity":
                size = len(str(instances[0].args[0]).encode())
            values[_BITS] = _finite(-float(likelihood) / _LN2 / max(1, size), pair)
        for metric, raw in found.items():
            value = _number(raw)
            if value is not None:
                values["log_likelihood" if self._output(metric) == "log_likelihood" else str(metric)] = _finite(value, str(metric))
            elif metric not in values:
                self._leave_out(str(metric))
        self._learned |= values.keys()
        return values

    def _failed(self, filters: Sequence[str]) -> dict[str, Value]:
        """Every metric known to have values, without one. What a task's own code makes of answers is only known once it was seen."""
        sure = {name for m, how in self._aggregations.items() if (name := self._output(m)) and (how in _MEANS or name != m)}
        known = sorted((sure | self._learned) - set(self._left_out) or set(self._aggregations) - set(self._left_out))
        return {f"{name},{f}": Value(None, Outcome.FAILED) for f in filters for name in known}

    def _fault(self, item: str, error: Exception) -> None:
        self._faults += 1
        if self._faults <= _MOST_FAULTS:
            self._note(f"item {item} could not be scored: {type(error).__name__}: {printable(str(error))[:200]}")
        elif self._faults == _MOST_FAULTS + 1:
            self._note("further items could not be scored")


@dataclass(frozen=True)
class _Item:
    """One document with lm-eval's requests, before any model renders them."""

    name: str
    content: str
    question: str
    target: str
    labels: Mapping[str, str]
    instances: Sequence[Any]

    def answered(self, responses: Sequence[Any]) -> list[Any]:
        """Copies of the requests with their responses, as lm-eval fills them in."""
        filled = []
        for instance, response in zip(self.instances, responses, strict=True):
            one = copy(instance)
            one.resps, one.filtered_resps = [response] * (instance.repeats or 1), {}
            filled.append(one)
        return filled


def _bare(task: Any, talk: _Talk, instance: Any) -> str:
    """The question without system prompt and shots, where the task has one text for it."""
    text = task.doc_to_text(instance.doc)
    return text if isinstance(text, str) else talk.shown(instance.args[0])


def _item(task: Any, talk: _Talk, number: int, instances: Sequence[Any]) -> _Item:
    target, plain = str(task.doc_to_target(instances[0].doc)), _plain(instances[0].doc)
    fields = plain if isinstance(plain, dict) else {}
    named = next((fields[key] for key in _QUESTION_FIELDS if isinstance(fields.get(key), str)), None)
    return _Item(
        name=str(number),
        content=digest([plain, target]),  # what our reader of lm-eval's logs makes of the logged sample
        question=_bare(task, talk, instances[0]) if named is None else named,
        target=target,
        labels={str(key): text for key, value in fields.items() if (text := _label(value)) is not None},
        instances=instances,
    )


def _judged(value: float, filtered: Any, cut: bool, nothing: frozenset[str]) -> Value:
    """A score with what was read out of the reply. Only worthless replies are cut or unread: what scores was understood."""
    if isinstance(filtered, list) and filtered:  # filters that keep several replies
        filtered = filtered[0]
    read = filtered if isinstance(filtered, str) else None
    if value != 0:
        outcome = Outcome.SCORED
    elif cut:
        outcome = Outcome.TRUNCATED
    else:
        outcome = Outcome.UNPARSED if filtered is None or (read is not None and read.strip() in nothing) else Outcome.SCORED
    return Value(value, outcome, read)


def _number(raw: Any) -> float | None:
    """A number, or the number in a numpy scalar."""
    if getattr(raw, "ndim", None) == 0:
        raw = raw.item()
    return float(raw) if isinstance(raw, bool | int | float) else None


def _finite(value: float, metric: str) -> float:
    if not abs(value) <= MAX_SCORE:
        raise ValueError(f"{metric} is {value}")
    return value


# -- requests ------------------------------------------------------------------------------------------------------------------


class _Talk:
    """What lm-eval calls to render a conversation: writes the turns down as JSON, which is rendered for each model when it is asked."""

    BEGINS = "[[["

    def __init__(self) -> None:
        self.known: dict[str, tuple[tuple[Message, ...], bool]] = {}

    def __call__(self, messages: Sequence[Mapping[str, str]], add_generation_prompt: bool = True) -> str:
        turns = tuple((str(m["role"]), str(m["content"])) for m in messages)
        begun_by_task = not add_generation_prompt and bool(turns) and turns[-1][0] == "assistant"
        text = json.dumps([turns, begun_by_task])
        self.known[text] = turns, begun_by_task
        return text

    def shown(self, context: Any) -> str:
        """A context for people: of a conversation, what was said last."""
        return self.known[context][0][-1][1] if context in self.known else str(context)

    def split(self, context: str) -> tuple[str | None, str]:
        """(the conversation that a context begins with, what the task says after it)."""
        if context in self.known:
            return context, ""
        told = next((t for t in self.known if context.startswith(t)), None) if context.startswith(self.BEGINS) else None
        return told, context[len(told or "") :]


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the answer to one instance stands: in which want, and as which of its choices (None: the want's only answer)."""

    want: int
    choice: int | None

    def response(self, answers: Sequence[Sequence[Answer]]) -> Any:
        """The answer in lm-eval's form: (log-likelihood, is greedy), a log-likelihood, or a text; or why there is none."""
        found = answers[self.want] if self.choice is None else [answers[self.want][self.choice]]
        failed = next((a for a in found if isinstance(a, Failure)), None)
        if failed is not None or not found:
            return failed or Failure("nothing was asked")
        if isinstance(found[0], Generated):
            return found[0].text
        scored = [a for a in found if isinstance(a, Scored)]
        if self.choice is None:
            return sum(a.total for a in scored)
        return scored[0].total, all(scored[0].greedy)


@dataclass
class _Sheet:
    """Collects what one item asks; choices of one context are asked together."""

    task: str
    talk: _Talk
    template: Callable[[Sequence[Message]], str] | None
    how: Elicitation
    slots: list[Want | tuple[Wording, list[str]]] = field(default_factory=list)
    contexts: dict[str, int] = field(default_factory=dict)

    @property
    def wants(self) -> tuple[Want, ...]:
        return tuple(Choose(slot[0], tuple(slot[1])) if isinstance(slot, tuple) else slot for slot in self.slots)

    def place(self, instance: Any) -> _Place:
        """Note one request down.

        Raises:
            InputError: if it cannot be asked here.
        """
        kind, arguments = instance.request_type, instance.args
        if kind == "loglikelihood" and len(arguments) == 2:
            return self._choice(arguments[0], arguments[1])
        if kind == "loglikelihood_rolling" and len(arguments) == 1:
            self.slots.append(Roll(str(arguments[0])))
        elif kind == "generate_until" and len(arguments) == 2:
            self.slots.append(self._write(arguments[0], arguments[1], instance.repeats or 1))
        else:
            raise InputError(
                f"lm-eval's task {printable(self.task)} asks for {printable(str(kind))} of {len(arguments)} parts, which is not known here"
            )
        return _Place(len(self.slots) - 1, None)

    def _wording(self, context: Any) -> Wording:
        """A context as it is asked: a text, or the conversation it stands for, rendered where somebody here can."""
        shown = printable(self.task)
        if not isinstance(context, str):
            raise InputError(f"lm-eval's task {shown} asks with a {type(context).__name__}; only texts can be asked here")
        told, rest = self.talk.split(context)
        if told is None:
            return context
        turns, begun_by_task = self.talk.known[told]
        if self.template is not None:
            return Templated((begun(self.template, turns) if begun_by_task else self.template(turns)) + rest)
        if begun_by_task or rest:
            raise InputError(
                f"lm-eval's task {shown} begins the answer itself, which needs the chat template: name the endpoint's tokenizer"
            )
        return turns

    def _choice(self, context: str, continuation: Any) -> _Place:
        if context not in self.contexts:
            self.contexts[context] = len(self.slots)
            self.slots.append((self._wording(context), []))
        want = self.contexts[context]
        slot = self.slots[want]
        assert isinstance(slot, tuple)  # noqa: S101 - contexts only point to such
        slot[1].append(str(continuation))
        return _Place(want, len(slot[1]) - 1)

    def _write(self, context: str, settings: Any, repeats: int) -> Write:
        shown = printable(self.task)
        if not isinstance(settings, Mapping):
            raise InputError(f"lm-eval's task {shown} has no generation settings that could be read")
        try:
            found = decoding(settings, self.how.temperature)
        except InputError as error:
            raise InputError(f"lm-eval's task {shown} cannot be asked: {error}") from None
        drawn = found.temperature if self.how.temperature is None else self.how.temperature
        if repeats > 1 and drawn > 0:
            raise InputError(
                f"lm-eval's task {shown} draws {repeats} replies to one question and judges them together, which is not done here; "
                "ask at temperature 0, or use trials"
            )
        return Write(self._wording(context), found.max_tokens, found.stops, found.temperature, found.top_p)


# -- plain data ----------------------------------------------------------------------------------------------------------------


def _plain(doc: Any) -> Any:
    """A document as it comes out of lm-eval's log; numbers that JSON does not have by their name, as our reader names them."""
    from lm_eval.utils import handle_non_serializable

    return _nameable(json.loads(json.dumps(doc, default=handle_non_serializable, ensure_ascii=False)))


def _nameable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, list):
        return [_nameable(v) for v in value]
    return {k: _nameable(v) for k, v in value.items()} if isinstance(value, dict) else value


def _settled(config: Any) -> Any:
    """A task's settings without what differs between machines: functions by their source, no addresses, no places of files."""
    if isinstance(config, Mapping):
        left_out = ("config_source", "data_files", "data_dir", "cache_dir")  # items are hashed by themselves
        return {str(k): _settled(v) for k, v in sorted(config.items(), key=lambda kv: str(kv[0])) if k not in left_out}
    if isinstance(config, list | tuple):
        return [_settled(v) for v in config]
    if isinstance(config, partial):
        return [_settled(config.func), _settled(config.args), _settled(config.keywords)]
    if callable(config):
        try:
            return inspect.getsource(config)
        except (TypeError, OSError):
            return str(getattr(config, "__qualname__", type(config).__qualname__))
    if isinstance(config, str):
        return Path(config).name if len(config) < 4096 and Path(config).is_absolute() else config
    return config if config is None or isinstance(config, bool | int | float) else str(config)


def _label(value: Any) -> str | None:
    """A field as a label, written as our readers of logs write it; None for what is no label."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int | float) and value != "" else None
