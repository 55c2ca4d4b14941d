"""The latency tax: the first prompts of every task are asked again of every arm, by the clock, one at a time and in turn.

A machine warms up, throttles, and has other things to do. So every arm answers a few prompts that are not counted; then every prompt is asked
of all arms one right after the other, in an order that is drawn anew and rotated, so that each arm has each place equally often and a drift
reaches all of them alike. It is done in rounds; an item's value is the median over its rounds.

The answer of an arm with guards is timed with them, as its user waits for it: input guards one after the other, then the model if none of them
blocks, then output guards; whoever blocks ends it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import numpy as np

from aligntax.core.asks import Answer, Failure, GenerateAsk, Generated
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.items import Value
from aligntax.core.ledger import Detail, Entry
from aligntax.core.samples import Outcome
from aligntax.core.words import printable
from aligntax.flow.collect import ArmPlan, Sitting, Tell
from aligntax.flow.compare import MetricTable
from aligntax.flow.guarded import moderators, sentries_of, user_text
from aligntax.flow.scores import relabelled
from aligntax.models.asks import Model
from aligntax.models.guards import Checked
from aligntax.models.timing import Meter, Stopwatch, Timed, clock_facts, meter_of, stopwatch
from aligntax.stats.paired import paired_change
from aligntax.stats.quantiles import Parts, decomposed
from aligntax.store.logs import LogRow
from aligntax.store.rows import Items

WARM_UP = 3
"""Requests of every arm before any is counted."""
LOST_IN_A_ROW = 5
"""Failures of one arm after which nobody is asked any more: every prompt that is timed was answered before."""

FIRST, PER_TOKEN, TOTAL, TOKENS = "time_to_first_token", "time_per_output_token", "request_latency", "output_tokens"
RATE, ENERGY = "output_tokens_per_second", "energy"
HIGHER_IS_BETTER: Mapping[str, bool] = {FIRST: False, PER_TOKEN: False, TOTAL: False, TOKENS: False, RATE: True, ENERGY: False}
"""The metrics of timing: seconds, seconds per token after the first, seconds, tokens, tokens per second, joules."""
GUARD_SECONDS, MODEL_SECONDS, GUARD_TOKENS = "guard_seconds", "model_seconds", "guard_tokens"
"""What an answer's time and tokens are made of where any arm has guards: seconds of its guards and of the model, tokens that moderators read and
wrote; of one of several as ``guard_seconds,NAME``. A guard that was not reached takes nothing."""

COARSE = "not known: the counter stood still while some answers were written, and is too coarse for them"

Key = tuple[str, str, str]
"""(task, item, content) of one prompt."""


@dataclass(frozen=True)
class Latency:
    """How many prompts of every task are timed, and in how many rounds."""

    prompts: int
    rounds: int = 3

    def __post_init__(self) -> None:
        for name, value, most in (("latency", self.prompts, 1_000_000), ("latency_rounds", self.rounds, 1000)):
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                what = "prompts to be timed of every task" if name == "latency" else "times that each of them is asked"
                raise InputError(f"{name} is the number of {what}, from 1 to {most:,}; got {printable(repr(value))}")


# -- what is asked -------------------------------------------------------------------------------------------------------------


def prompts_of(arm: ArmPlan) -> Iterator[tuple[Key, str]]:
    """(prompt, identity of its request) of everything that an arm answers in words, each item once."""
    for sitting in arm.sittings:
        number = _written(arm, sitting) if sitting.trial == 0 else None
        if number is not None:
            yield (sitting.task, sitting.question.item, sitting.question.content), number


def _written(arm: ArmPlan, sitting: Sitting) -> str | None:
    """The first request of a sitting that is answered in words."""
    return next((key for keys in sitting.requests for key in keys if isinstance(arm.requests[key], GenerateAsk)), None)


def chosen(arms: Sequence[ArmPlan], latency: Latency, found: Mapping[str, Mapping[str, Answer]] | None = None) -> dict[Key, dict[str, str]]:
    """The prompts to be timed, with the identity of their request by arm: of every task the first that every arm answered.

    Args:
        arms: what each is asked.
        latency: how many.
        found: answers by arm; None counts every prompt as answered.
    """
    of = {
        arm.name: {key: ask for key, ask in prompts_of(arm) if found is None or isinstance(found[arm.name].get(ask), Generated)}
        for arm in arms
    }
    counts: dict[str, int] = {}
    out: dict[Key, dict[str, str]] = {}
    for key in of[arms[0].name]:
        if counts.get(key[0], 0) < latency.prompts and all(key in asks for asks in of.values()):
            counts[key[0]] = counts.get(key[0], 0) + 1
            out[key] = {name: asks[key] for name, asks in of.items()}
    return out


def check_timing(arms: Sequence[ArmPlan], latency: Latency) -> None:
    """Whether there is something to time, and every model can be timed; nothing is asked.

    Raises:
        InputError: if not, naming the tasks or the model.
    """
    if not chosen(arms, latency):
        tasks = printable(", ".join(dict.fromkeys(sitting.task for sitting in arms[0].sittings)))
        raise InputError(
            f"latency is the time of answers that are written, and no task here asks for any: {tasks}; add a task that is answered in words, or leave latency out"
        )
    for model in held(arms):
        if stopwatch(model) is None:
            raise InputError(f"{printable(model.name)} cannot be timed: it has no ability to time an answer")


def try_timing(arms: Sequence[ArmPlan], latency: Latency) -> None:
    """Time one short answer of every model that is elsewhere: what it cannot do must be known before an hour of asking.

    Raises:
        InputError: if it cannot be timed.
    """
    first = next(iter(chosen(arms, latency).values()))
    for model in _models(arms):
        if "device" in model.facts:  # computed here: nothing can be missing, and loading it now would take memory
            continue
        arm = next(arm for arm in arms if arm.model is model)
        ask, watch = arm.requests[first[arm.name]], stopwatch(model)
        assert isinstance(ask, GenerateAsk)
        assert watch is not None
        answer = watch(replace(ask, max_tokens=min(ask.max_tokens, 2)))
        if isinstance(answer, Failure):
            raise InputError(f"{printable(model.name)} cannot be timed: {answer.why}; leave latency out, or try again")
    tried: set[int] = set()
    for sentry in (sentry for arm in arms for sentry in arm.guards):
        if sentry.model is None or "device" in sentry.model.facts or id(sentry.model) in tried:
            continue
        tried.add(id(sentry.model))
        watch = stopwatch(sentry.model)
        assert watch is not None
        reply = watch(sentry.ask("", ""))
        if isinstance(reply, Failure):
            raise InputError(f"the moderator {printable(sentry.model.name)} cannot be timed: {reply.why}; leave latency out, or try again")


def _models(arms: Sequence[ArmPlan]) -> list[Model]:
    return list(dict.fromkeys(arm.model for arm in arms))


def held(arms: Sequence[ArmPlan]) -> list[Model]:
    """The models that are in memory at once while answers are timed: the arms' and the moderators'."""
    return list(dict.fromkeys([*_models(arms), *moderators(arms)]))


def requests_of(arms: Sequence[ArmPlan], latency: Latency) -> tuple[int, int]:
    """(timed answers, answers of the warm-up) if every prompt is answered; the requests of moderators are part of an answer."""
    return len(chosen(arms, latency)) * latency.rounds * len(arms), WARM_UP * len(arms)


def orders(arms: int, blocks: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """The order of the arms in each block: runs of as many blocks as there are arms are Latin squares, the rotations of a random order in a
    random sequence, so that each arm has each place once and a drift that is even cancels.
    """
    for start in range(0, blocks, arms):
        order = rng.permutation(arms)
        for turn in rng.permutation(arms)[: blocks - start]:
            yield tuple(int(k) for k in np.roll(order, turn))


# -- asking by the clock -------------------------------------------------------------------------------------------------------


@dataclass
class Timings:
    """What was timed: scores by arm and prompt, what there is to know about them by arm, and what is missing."""

    scores: dict[str, dict[Key, dict[str, Value]]]
    facts: dict[str, dict[str, Any]]
    notes: dict[str, list[str]] = field(default_factory=dict)

    def added(self, arm: str, rows: Iterable[LogRow]) -> Iterator[LogRow]:
        """An arm's rows, those of the first trial with the times of their prompts beside the other scores."""
        mine = self.scores[arm]
        for row in rows:
            times = mine.get((row.task, row.item or "", row.content or "")) if row.trial == 0 else None
            yield replace(row, scores={**row.scores, **times}) if times else row

    def directions(self) -> dict[tuple[str, str], bool]:
        """Which way is better, by (task, metric)."""
        found = {(key[0], metric) for arm in self.scores.values() for key, values in arm.items() for metric in values}
        return {(task, metric): HIGHER_IS_BETTER.get(metric, False) for task, metric in found}


@dataclass(frozen=True)
class _Clocked:
    """One answer as its user waited for it.

    Attributes:
        timed: text, times and tokens, guards and all.
        joules: energy, None if unknown.
        same: whether the model's text is that of the answer that was scored; None where it was not asked.
        model: seconds of the model alone. guards: what each guard that was reached took.
    """

    timed: Timed
    joules: float | None
    same: bool | None
    model: float
    guards: Mapping[str, Checked] = field(default_factory=dict)

    def value(self, metric: str) -> float | None:
        name, _, of = metric.partition(",")
        if name in (GUARD_SECONDS, GUARD_TOKENS):
            reached = [checked for guard, checked in self.guards.items() if of in ("", guard)]
            spent = [checked.seconds if name == GUARD_SECONDS else checked.tokens for checked in reached]
            return None if None in spent else sum(x for x in spent if x is not None)
        t = self.timed
        if metric == RATE:
            return t.tokens / t.total if t.tokens else None
        return {FIRST: t.first, PER_TOKEN: t.per_token, TOTAL: t.total, TOKENS: t.tokens, ENERGY: self.joules, MODEL_SECONDS: self.model}[
            metric
        ]


def _metrics(arms: Sequence[ArmPlan]) -> list[str]:
    """What may be measured of these arms."""
    guards = sentries_of(arms)
    if not guards:
        return list(HIGHER_IS_BETTER)
    asking = [name for name, sentry in guards.items() if sentry.model is not None]
    tokens = [GUARD_TOKENS, *_each(GUARD_TOKENS, asking)] if asking else []
    return [*HIGHER_IS_BETTER, GUARD_SECONDS, *_each(GUARD_SECONDS, list(guards)), MODEL_SECONDS, *tokens]


def _each(metric: str, guards: Sequence[str]) -> list[str]:
    """A metric by guard; of one alone it is the same number."""
    return [f"{metric},{name}" for name in guards] if len(guards) > 1 else []


def _shows(arm: ArmPlan) -> bool:
    """Whether the user sees tokens as they come: not where the whole answer is read first."""
    return not any(sentry.guard.where == "output" for sentry in arm.guards)


def time_arms(arms: Sequence[ArmPlan], latency: Latency, found: Mapping[str, Mapping[str, Answer]], seed: int, tell: Tell) -> Timings:
    """Time every arm's answers. All models are in memory at once; they are closed at the end.

    Args:
        arms: what each was asked.
        latency: prompts and rounds.
        found: the answers, by arm.
        seed: of the order of arms.
        tell: progress; the arm is called ``timing``.

    Raises:
        AligntaxError: if an arm fails many times in a row, or no prompt was answered by all.
    """
    asked = chosen(arms, latency, found)
    if not asked:
        raise AligntaxError("there is nothing to time: no prompt was answered by every arm; every answer is kept")
    try:
        for model in held(arms):
            model.warm()
        clock = _Round(arms, found)
        first = list(asked)[:WARM_UP]
        for turn in range(WARM_UP):
            for arm in arms:
                key = first[turn % len(first)]
                clock.ask(arm.name, key, asked[key])
        clock.failures.clear()
        taken: dict[str, dict[Key, list[_Clocked]]] = {arm.name: {key: [] for key in asked} for arm in arms}
        total, tokens = len(asked) * latency.rounds * len(arms), 0
        tell("timing", 0, total, 0)
        blocks = [key for _ in range(latency.rounds) for key in asked]
        done = 0
        for key, order in zip(blocks, orders(len(arms), len(blocks), np.random.default_rng(seed)), strict=True):
            for k in order:
                answer = clock.ask(arms[k].name, key, asked[key])
                done += 1
                if answer is not None:
                    taken[arms[k].name][key].append(answer)
                    tokens += answer.timed.tokens or 0
                tell("timing", done, total, tokens)
        return _timings(arms, latency, taken, clock)
    finally:
        clock = None  # type: ignore[assignment]  # it holds the models
        for model in held(arms):
            model.close()


class _Round:
    """Asks by the clock, and counts who failed and why."""

    def __init__(self, arms: Sequence[ArmPlan], found: Mapping[str, Mapping[str, Answer]]) -> None:
        self.watches: dict[int, Stopwatch | None] = {id(model): stopwatch(model) for model in held(arms)}
        self.arms = {arm.name: arm for arm in arms}
        self.found = found
        self.texts = {arm.name: dict(_user_texts(arm)) if arm.guards else {} for arm in arms}
        self.devices = {arm.name: arm.model.facts.get("device") for arm in arms}
        self.meters: dict[str, tuple[Meter | None, str]] = {name: meter_of(device) for name, device in self.devices.items()}
        self.failures: dict[str, list[str]] = {}
        self.lost: dict[str, int] = {}

    def ask(self, name: str, key: Key, requests: Mapping[str, str]) -> _Clocked | None:
        """One answer of one arm; None if it failed.

        Raises:
            AligntaxError: if it failed too often in a row.
        """
        meter = self.meters[name][0]
        before = None if meter is None else meter.read()
        answer = self._answer(name, key, requests[name])
        if isinstance(answer, Failure):
            self.failures.setdefault(name, []).append(answer.why)
            self.lost[name] = self.lost.get(name, 0) + 1
            if self.lost[name] >= LOST_IN_A_ROW:
                raise AligntaxError(
                    f"{printable(name)} failed {LOST_IN_A_ROW} timed requests in a row, the last because {answer.why}; every answer is kept, and the same "
                    "command times anew"
                )
            return None
        self.lost[name] = 0
        return answer if meter is None else replace(answer, joules=meter.between(before, meter.read()))

    def _answer(self, name: str, key: Key, number: str) -> _Clocked | Failure:
        """One answer as the user waits for it: whoever blocks ends it."""
        arm = self.arms[name]
        passed: dict[str, Checked] = {}
        blocked = self._passed(arm, "input", passed, self.texts[name].get(key, ""), None)
        if isinstance(blocked, Failure):
            return blocked
        if blocked:
            spent = _spent(passed)
            return _Clocked(Timed(arm.instead, "stop", spent, spent, 0), None, None, 0.0, passed)
        request, watch = arm.requests[number], self.watches[id(arm.model)]
        assert isinstance(request, GenerateAsk)
        assert watch is not None
        answer = watch(request)
        if isinstance(answer, Failure):
            return answer
        known = self.found[name][number]
        same = isinstance(known, Generated) and known.text == answer.text
        asked = _spent(passed)
        blocked = self._passed(arm, "output", passed, self.texts[name].get(key, ""), answer.text)
        if isinstance(blocked, Failure):
            return blocked
        total = answer.total + _spent(passed)
        first = total if not _shows(arm) else None if answer.first is None else asked + answer.first
        text = arm.instead if blocked else answer.text
        return _Clocked(replace(answer, text=text, first=first, total=total), None, same, answer.total, passed)

    def _passed(self, arm: ArmPlan, where: str, passed: dict[str, Checked], prompt: str, answer: str | None) -> bool | Failure:
        """Whether one of an arm's guards at this place blocks; those that were reached are added to ``passed``."""
        for sentry in arm.guards:
            if sentry.guard.where != where:
                continue
            found = sentry.timed(prompt, answer, None if sentry.model is None else self.watches[id(sentry.model)])
            if isinstance(found, Failure):
                return Failure(f"guard {sentry.name}: {found.why}")
            passed[sentry.name] = found
            if found.blocks:
                return True
        return False


def _spent(passed: Mapping[str, Checked]) -> float:
    return sum(checked.seconds for checked in passed.values())


def _user_texts(arm: ArmPlan) -> Iterator[tuple[Key, str]]:
    for sitting in arm.sittings:
        if sitting.trial == 0:
            yield (sitting.task, sitting.question.item, sitting.question.content), user_text(sitting.question)


def _timings(arms: Sequence[ArmPlan], latency: Latency, taken: Mapping[str, Mapping[Key, list[_Clocked]]], clock: _Round) -> Timings:
    metrics = [m for m in _metrics(arms) if any(c.value(m) is not None for of in taken.values() for some in of.values() for c in some)]
    # Who gets an answer whole sees no token come: that is no speed, and not a high one.
    left_out = {arm.name: {PER_TOKEN} if not _shows(arm) else set() for arm in arms}
    coarse = [arm.name for arm in arms if _is_coarse(clock.meters[arm.name][0], taken[arm.name].values())]
    for name in coarse:
        left_out[name].add(ENERGY)
    seen = {arm.name: [m for m in metrics if m not in left_out[arm.name]] for arm in arms}
    scores = {name: {key: _item(some, seen[name]) for key, some in of.items()} for name, of in taken.items()}
    facts, notes = {}, {}
    for arm in arms:
        every = [c for some in taken[arm.name].values() for c in some]
        failed = clock.failures.get(arm.name, [])
        again = [c.same for c in every if c.same is not None]
        facts[arm.name] = {
            "prompts": len(taken[arm.name]),
            "rounds": latency.rounds,
            "value_of_an_item": "median over its rounds",
            "warm_up": f"{WARM_UP} requests of every arm before any was counted",
            "order": "every prompt of all arms in turn, in an order drawn anew and rotated (Latin squares), round by round",
            "batch_size": 1,
            "asked_before": "every prompt was answered once already: what a server caches of prompts is cached",
            "device": clock.devices[arm.name] or "not known: the machine that answers is not seen from here",
            "energy": f"{COARSE}: {clock.meters[arm.name][1]}" if arm.name in coarse else clock.meters[arm.name][1],
            "failed": len(failed),
            "same_text_as_scored": f"{sum(again)} of {len(again)}",
            "spread_within_items": _spread(taken[arm.name].values(), seen[arm.name]),
            **({"guards": _guard_words(arm)} if arm.guards else {}),
            **clock_facts(),
        }
        if failed:
            notes[arm.name] = [f"{len(failed):,} of {len(every) + len(failed):,} timed requests failed, the last because {failed[-1]}"]
    here = [name for name, device in clock.devices.items() if device]
    if 0 < len(here) < len(arms):
        mixed = f"{', '.join(here)} computed here and the others elsewhere: their times differ by what serves them as well as by the model"
        notes[arms[0].name] = [mixed, *notes.get(arms[0].name, [])]
    return Timings(scores, facts, notes)


def _is_coarse(meter: Meter | None, taken: Iterable[Sequence[_Clocked]]) -> bool:
    """Whether a counter stood still (or could not be read) during some answers: the others then got what it had saved up for several of them, so
    that their mean is no answer's energy.
    """
    return meter is not None and any(c.joules is None for some in taken for c in some)


def _guard_words(arm: ArmPlan) -> str:
    """What is in the times of an arm with guards, for provenance."""
    order = ", ".join(
        [s.name for s in arm.guards if s.guard.where == "input"] + ["the model"] + [s.name for s in arm.guards if s.guard.where == "output"]
    )
    words = f"one after the other: {order}; whoever blocks ends it, and who is not reached takes no time"
    if not _shows(arm):
        words += "; nothing is shown before the whole answer was read, so that the first token comes with the last, and there is no time per token"
    return words


def _item(some: Sequence[_Clocked], metrics: Sequence[str]) -> dict[str, Value]:
    """An item's values: medians over the rounds that have one; failed where no round was answered, absent where answers have no such value."""
    out = {}
    for metric in metrics:
        found = [v for c in some if (v := c.value(metric)) is not None]
        out[metric] = Value(float(median(found))) if found else Value(None, Outcome.ABSENT if some else Outcome.FAILED)
    return out


def _spread(taken: Iterable[Sequence[_Clocked]], metrics: Sequence[str]) -> dict[str, float | None]:
    """By metric the usual spread of an item's rounds: the median over items of (largest - smallest) / median; None below two rounds."""
    out: dict[str, float | None] = {}
    of = list(taken)
    for metric in metrics:
        every = [[v for c in some if (v := c.value(metric)) is not None] for some in of]
        shares = [(max(v) - min(v)) / median(v) for v in every if len(v) > 1 and median(v) > 0]
        out[metric] = round(median(shares), 4) if shares else None
    return out


# -- what a change is made of ----------------------------------------------------------------------------------------------------


def with_parts(entries: Sequence[Entry], tables: Mapping[str, MetricTable], items: Items) -> list[Entry]:
    """Entries of the whole time of answers gain in their details what of it is the first token's, the length's and the speed's."""
    if any(metric not in tables for metric in (FIRST, PER_TOKEN, TOKENS)):
        return list(entries)
    return [
        entry.model_copy(update={"details": {**entry.details, **_parts(entry, tables, items)}})
        if entry.metric == TOTAL and entry.task in items.tasks
        else entry
        for entry in entries
    ]


def _parts(entry: Entry, tables: Mapping[str, MetricTable], items: Items) -> dict[str, Detail]:
    sides = []
    usable = items.task == items.tasks.index(entry.task)
    for arm in entry.pair:
        if any(arm not in tables[metric].arms for metric in (FIRST, PER_TOKEN, TOKENS)):
            return {}
        first, per_token, tokens = (tables[metric].arms[arm].mean for metric in (FIRST, PER_TOKEN, TOKENS))
        usable = usable & ~np.isnan(first) & ~np.isnan(tokens) & ((tokens < 2) | ~np.isnan(per_token))
        sides.append((first, per_token, tokens))
    at = np.flatnonzero(usable)
    if not len(at):
        return {}
    codes = items.cluster[at] if entry.clusters is not None else None
    codes = None if codes is None or (codes < 0).any() else relabelled(codes)
    base, cand = (Parts(*(x[at] for x in side)) for side in sides)
    details: dict[str, Detail] = {"parts_items": len(at)}
    for name, d in decomposed(base, cand).items():
        estimate = paired_change(d, codes, binary=False, trials=False, scale=None)
        details[name] = estimate.change
        details[f"{name}_ci"] = None if estimate.test is None else list(estimate.test.interval(entry.level))
    return details
