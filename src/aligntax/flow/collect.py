"""Plan and collect: what every arm is asked, and the only input and output of a study, asking it.

A request is identified by the content of the model (weights, adapter, tokenizer, dtype; or endpoint and served model), the rendered
prompt, the continuation or the sampling with its stops, and the trial. Answers are kept by that identity, so a run that was killed
goes on where it stood, and an arm that several studies share is asked once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aligntax.core.asks import Answer, Ask, Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.ids import digest, seed_of
from aligntax.core.items import Choose, Question, Roll, Task, Templated, Value, Want, Wording
from aligntax.core.study import Elicitation
from aligntax.core.words import printable
from aligntax.models.asks import Generates, Model, ScoresText
from aligntax.models.guards import Sentry
from aligntax.store.answers import Answers
from aligntax.store.logs import LogRow

KEEP_EVERY = 2.0
"""Seconds between two writings of answers: what a kill can cost."""

ANOTHER = 0.05
"""Nats per token by which the log-likelihood of a fixed text may move under one model: half precision and company move it by about .01."""

Tell = Callable[[str, int, int, int], None]
"""Called with (arm, answers there, answers planned, tokens asked and answered since the start)."""

Got = Sequence[Sequence[Answer]]
"""The answers of one sitting: one list per want."""


@dataclass(frozen=True)
class Sitting:
    """One question asked once: its task, trial, and the requests behind each of its wants, by identity."""

    task: str
    question: Question
    trial: int
    requests: tuple[tuple[str, ...], ...]
    prompt: str


@dataclass
class ArmPlan:
    """Everything one arm is asked: sittings in the order of tasks and items, requests once each; and the guards that its answers pass.

    ``instead`` is what the user gets in place of what they block.
    """

    name: str
    model: Model
    sittings: list[Sitting] = field(default_factory=list)
    requests: dict[str, Ask] = field(default_factory=dict)
    guards: tuple[Sentry, ...] = ()
    instead: str = ""

    @property
    def tokens(self) -> tuple[int, int]:
        """(tokens of all prompts and continuations, tokens that answers may take); texts whose tokens an endpoint counts are left out."""
        given = sum(_size(ask) for ask in self.requests.values())
        return given, sum(ask.max_tokens for ask in self.requests.values() if isinstance(ask, GenerateAsk))


def _size(ask: Ask) -> int:
    tokens = len(ask.prompt.tokens or ())
    return tokens + len(ask.tokens or ()) if isinstance(ask, ScoreAsk) else tokens


def plan_arm(name: str, model: Model, how: Elicitation, tasks: Sequence[tuple[Task, int | None]]) -> ArmPlan:
    """What an arm is asked.

    Args:
        name: of the arm.
        model: its model; only its tokenizer is used here.
        how: elicitation.
        tasks: with the number of items to take, from the first on; None for all.

    Raises:
        InputError: if a task cannot be asked so, or the model cannot give what it needs.
    """
    plan = ArmPlan(name, model)
    template: Callable[[Sequence[Message]], str] | None = model.template if model.renders else None
    for task, limit in tasks:
        questions = task.questions(how, template)[:limit]
        if not questions:
            raise InputError(f"{printable(task.name)} has no items to ask")
        for question in questions:
            for trial in range(how.trials):
                plan.sittings.append(_sitting(plan, task.name, question, trial, how))
    return plan


def _sitting(plan: ArmPlan, task: str, question: Question, trial: int, how: Elicitation) -> Sitting:
    requests, prompts = [], []
    for number, want in enumerate(question.wants):
        # Draws of different items, trials and arms are independent; one model asked the same twice gives the same.
        seed = seed_of(how.seed, model_key(plan.model), how.template, task, question.item, question.content, number, trial)
        asks = _asks(plan, task, want, seed, how)
        ids = tuple(request_id(plan.model, ask, trial) for ask in asks)
        plan.requests.update(zip(ids, asks, strict=True))
        requests.append(ids)
        prompts += [_windows(asks) if isinstance(want, Roll) else ask.prompt.key for ask in asks[:1]]
    return Sitting(task, question, trial, tuple(requests), digest(prompts)[:32])


def _windows(asks: Sequence[Ask]) -> list[int]:
    """Where a whole text was cut: other windows, other contexts, and so other likelihoods. Nothing where one window holds it all."""
    return [len(ask.tokens or ()) for ask in asks if isinstance(ask, ScoreAsk)] if len(asks) > 1 else []


def request_id(model: Model, ask: Ask, trial: int) -> str:
    """Identity of one request."""
    return digest([dict(model.identity), ask.key, trial])


def _asks(plan: ArmPlan, task: str, want: Want, seed: int, how: Elicitation) -> list[Ask]:
    model = plan.model
    if isinstance(want, Roll):
        rolling = getattr(model, "rolling", None)
        if rolling is None:
            raise InputError(_cannot(plan, task, "rolling log-likelihoods need its tokenizer: name one with ,tokenizer=FOLDER"))
        return list(rolling(want.text))
    prompt = prompt_of(model, want.wording)
    if isinstance(want, Choose):
        if not isinstance(model, ScoresText) or model.facts.get("log_probabilities") is False:
            raise InputError(_cannot(plan, task, "it gives no log-probabilities of given texts; use a task that is answered in words"))
        return [model.continuation(prompt, choice) for choice in want.choices]
    if not isinstance(model, Generates):
        raise InputError(_cannot(plan, task, "it writes no answers; use a task that is answered by log-likelihood"))
    return [
        GenerateAsk(
            prompt=prompt,
            max_tokens=how.max_tokens or want.max_tokens,
            temperature=want.temperature if how.temperature is None else how.temperature,
            top_p=want.top_p if how.top_p is None else how.top_p,
            stops=want.stops,
            seed=seed,
        )
    ]


def _cannot(plan: ArmPlan, task: str, why: str) -> str:
    return f"{printable(plan.name)} cannot be asked {printable(task)}: {why}"


def prompt_of(model: Model, wording: Wording) -> Prompt:
    """A wording as this model reads it."""
    if isinstance(wording, str):
        return model.raw(wording)
    return model.templated(wording.text) if isinstance(wording, Templated) else model.chat(wording)


# -- collecting ----------------------------------------------------------------------------------------------------------------


def collect(plan: ArmPlan, answers: Answers, tell: Tell) -> dict[str, Answer]:
    """Ask what is not known yet; every answer is kept as it comes.

    Returns:
        The answer to every request of the plan, failures among them.
    """
    _recognise(plan.model, answers)
    found = answers.known(plan.requests)
    total = len(plan.requests)
    tell(plan.name, len(found), total, 0)
    missing = {key: ask for key, ask in plan.requests.items() if key not in found}
    keeper = _Keeper(answers, found)
    if missing:
        plan.model.warm()  # loading is not answering
    tokens, begun = 0, time.monotonic()
    try:
        for key, answer, size in _answered(plan.model, missing):
            tokens += size
            keeper.add(key, answer)
            tell(plan.name, len(found), total, tokens)
    finally:
        keeper.flush()
    if tokens:
        answers.timed(model_key(plan.model), tokens, time.monotonic() - begun)
    return found


def some_answered(arm: ArmPlan, found: Mapping[str, Answer]) -> None:
    """Whether anything was answered at all: comparing nothing would say something about pairs, not about what went wrong.

    Raises:
        AligntaxError: with the reason of most failures.
    """
    failed = failures(found)
    if failed and failed.total() == len(arm.requests):
        why, count = failed.most_common(1)[0]
        raise AligntaxError(
            f"{printable(arm.name)} gave no answer to any of {len(arm.requests):,} requests; {count:,} times: {printable(why)}"
        )


def failures(found: Mapping[str, Answer]) -> Counter[str]:
    """How often what went wrong."""
    return Counter(answer.why for answer in found.values() if isinstance(answer, Failure))


def _recognise(model: Model, answers: Answers) -> None:
    """What stands behind an address may change under the same name: its answers to a fixed text tell.

    Raises:
        InputError: if the answers kept are another model's.
    """
    fingerprint = model.facts.get("fingerprint")
    if fingerprint and (apart := answers.unlike(model_key(model), fingerprint)) > ANOTHER:
        how = "it has other tokens" if apart == float("inf") else f"its log-likelihood moved by {apart:.2g} nats per token"
        raise InputError(
            f"{model.name} at {model.facts.get('endpoint')} is not the model whose answers are kept here: a fixed text tells ({how}); "
            "keep its answers in a file of their own with --answers FILE"
        )


def model_key(model: Model) -> str:
    """Identity of a model alone, whatever it is asked."""
    return digest(dict(model.identity))[:16]


def longest(plan: ArmPlan, answers: Answers) -> tuple[int, float | None]:
    """(requests not answered yet, seconds they take at most at the speed this model was asked at before; None if it never was)."""
    known = answers.known(plan.requests)
    missing = [ask for key, ask in plan.requests.items() if key not in known]
    tokens = sum(_size(ask) + (ask.max_tokens if isinstance(ask, GenerateAsk) else 0) for ask in missing)
    rate = answers.rate(model_key(plan.model))
    return len(missing), None if rate is None else tokens / rate


class _Keeper:
    """Holds answers back for a moment, so that not every one is a transaction of its own."""

    def __init__(self, answers: Answers, found: dict[str, Answer]) -> None:
        self.answers, self.found = answers, found
        self.fresh: list[tuple[str, Answer]] = []
        self.last = time.monotonic()

    def add(self, key: str, answer: Answer) -> None:
        self.found[key] = answer
        self.fresh.append((key, answer))
        if time.monotonic() - self.last > KEEP_EVERY:
            self.flush()

    def flush(self) -> None:
        self.answers.keep(self.fresh)
        self.fresh, self.last = [], time.monotonic()


def _answered(model: Model, missing: dict[str, Ask]) -> Iterator[tuple[str, Answer, int]]:
    """(identity, answer, tokens) of every missing request, as they come."""
    scored = {k: ask for k, ask in missing.items() if isinstance(ask, ScoreAsk)}
    written = {k: ask for k, ask in missing.items() if isinstance(ask, GenerateAsk)}
    if scored and isinstance(model, ScoresText):
        yield from _named(list(scored), list(scored.values()), model.score(list(scored.values())))
    if written and isinstance(model, Generates):
        yield from _named(list(written), list(written.values()), model.generate(list(written.values())))


def _named(keys: list[str], asks: Sequence[Ask], found: Iterator[tuple[int, Answer]]) -> Iterator[tuple[str, Answer, int]]:
    for at, answer in found:
        size = _size(asks[at]) + ((answer.tokens or 0) if isinstance(answer, Generated) else 0)
        yield keys[at], answer, size


# -- scoring -------------------------------------------------------------------------------------------------------------------


def bare(_arm: str, _number: int, sitting: Sitting, got: Got) -> tuple[Got, dict[str, Value]]:
    """What the user gets of a model without guards: its answers, and what they are worth."""
    return got, sitting.question.grade(got)


Given = Callable[[str, int, Sitting, Got], tuple[Got, dict[str, Value]]]
"""Called with (arm, number of the sitting, sitting, answers); what the user gets, and its scores."""


def rows(plan: ArmPlan, found: dict[str, Answer], cluster: str | None, by: str | None, given: Given = bare) -> Iterator[LogRow]:
    """The arm's samples with their scores, in the form that every reader of logs gives.

    Args:
        plan: what was asked.
        found: the answers.
        cluster: label that names clusters; None takes the task's own.
        by: label that makes subgroups.
        given: what the user gets of the answers.
    """
    nothing = Failure("not asked")
    for number, sitting in enumerate(plan.sittings):
        question = sitting.question
        got, scores = given(plan.name, number, sitting, [[found.get(key, nothing) for key in keys] for keys in sitting.requests])
        yield LogRow(
            task=sitting.task,
            item=question.item,
            content=question.content,
            scores=scores,
            trial=sitting.trial,
            question=question.question,
            target=question.target,
            answer=_shown(got, question),
            prompt=sitting.prompt,
            cluster=question.cluster if cluster is None else question.labels.get(cluster),
            by=None if by is None else question.labels.get(by),
        )


def _shown(got: Sequence[Sequence[Answer]], question: Question) -> str | None:
    """The answer as people read it: the text, or the likeliest choice."""
    first = got[0] if got else []
    if len(first) == 1:
        only = first[0]
        if isinstance(only, Generated):
            return only.text
        if isinstance(only, Failure):
            return None  # never an answer, whatever else is known of the sample
        return f"log-likelihood {only.total:.4f}" if isinstance(only, Scored) else None
    scored = [a.total if isinstance(a, Scored) else float("nan") for a in first]
    if not scored or any(x != x for x in scored):
        return None
    best = max(range(len(scored)), key=scored.__getitem__)
    want = question.wants[0]
    text = want.choices[best].strip() if isinstance(want, Choose) else f"choice {best}"
    return f"{text} (log-likelihood {scored[best]:.4f})"
