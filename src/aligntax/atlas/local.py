"""Local models as raters (lab, folders, hub ids): the same lines as endpoints give. Torch is imported where a model is opened."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from math import exp, fsum
from typing import TYPE_CHECKING, Any

from aligntax.atlas.asking import Line, asks_again, line_of
from aligntax.atlas.digits import LEAST_MASS
from aligntax.atlas.protocol import Call, Plan
from aligntax.core.asks import Failure, GenerateAsk, Generated, Prompt, ScoreAsk
from aligntax.core.errors import InputError
from aligntax.core.ids import digest
from aligntax.core.words import cut, printable
from aligntax.models.asks import Generates, ScoresText
from aligntax.models.references import open_model

if TYPE_CHECKING:
    from aligntax.atlas.roster import Rater

BATCH = 256
"""Calls that are asked together."""
DIGITS = "0123456789"


def rated(
    plan: Plan, name: str, rater: Rater, calls: Sequence[Call], begun: Mapping[str, Line] | None = None, device: str = "auto"
) -> Iterator[Line]:
    """Lines of all calls of one local model, as they come.

    With log-probabilities a digit is scored rather than drawn: all ten after the prompt, so the whole distribution is known, and every repeat has the
    same. Where too little of it lies on digits, the model would write something else: then its reply is drawn, as from any other model.

    Args:
        plan: what is asked.
        name: of the model in the roster.
        rater: its entry.
        calls: to be made.
        begun: lines of replies that are there and are to be asked for once more, by call.
        device: as everywhere.

    Raises:
        InputError: if the model cannot be had, or cannot be asked so.
        MissingExtraError: if torch or transformers are not installed.
    """
    opened = open_model(rater.reference, device=device)
    model: Any = opened
    try:
        if rater.template == "chat" and not model.facts.get("chat_template", True):
            raise InputError(f"{printable(name)} has no chat template; give it template: raw in the roster")
        if not isinstance(model, Generates):
            raise InputError(f"{printable(name)} writes no answers, so it cannot rate")
        exact = plan.protocol.expects and isinstance(model, ScoresText)
        weights = digest(dict(opened.identity))[:16]
        known: dict[tuple[object, ...], list[float]] = {}
        for start in range(0, len(calls), BATCH):
            some = calls[start : start + BATCH]
            found = _scored(plan, model, rater, some, begun or {}, known) if exact else _written(plan, model, rater, some, begun or {})
            yield from ({**line, "fingerprint": weights} for line in found)
    finally:
        opened.close()


def _prompt(plan: Plan, model: Any, rater: Rater, call: Call, before: Line | None = None) -> Prompt:
    if rater.template == "raw":
        found: Prompt = model.raw(plan.raw(call))
        return found
    spoken: Prompt = model.chat(plan.messages(call) if before is None else plan.again(call, str(before["text"])))
    return spoken


def _written(plan: Plan, model: Any, rater: Rater, calls: Sequence[Call], begun: Mapping[str, Line]) -> Iterator[Line]:
    before = {i: begun[call.key] for i, call in enumerate(calls) if call.key in begun}
    for again in (False, True):
        todo = [i for i in range(len(calls)) if (i in before) is again]
        if not todo:
            continue
        asks = [_ask(plan, model, rater, calls[i], before.get(i)) for i in todo]
        started = time.perf_counter()
        for count, (at, answer) in enumerate(model.generate(asks), 1):
            call = calls[todo[at]]
            line = line_of(plan, call, again=again) | {"latency_s": round((time.perf_counter() - started) / count, 4), "http": None}
            if isinstance(answer, Failure):
                yield _failed(line, answer.why)
                continue
            assert isinstance(answer, Generated)  # noqa: S101 - nothing else comes of asking for text
            line |= {"outcome": "reply", "text": answer.text, "refusal": None, "finish_reason": answer.reason, "final": True}
            yield line
            if not again and asks_again(plan, rater, call, line):
                before[todo[at]] = line


def _failed(line: Line, why: str) -> Line:
    return {**line, "outcome": "failed", "why": cut(printable(why), 400), "final": True}


def _ask(plan: Plan, model: Any, rater: Rater, call: Call, before: Line | None) -> GenerateAsk:
    stops = plan.stops(call) if rater.template == "raw" else ()
    return GenerateAsk(_prompt(plan, model, rater, call, before), plan.limit(call), plan.protocol.temperature, stops=stops, seed=call.seed)


def _scored(
    plan: Plan, model: Any, rater: Rater, calls: Sequence[Call], begun: Mapping[str, Line], known: dict[tuple[object, ...], list[float]]
) -> Iterator[Line]:
    """The probability of every digit right after the prompt; what is left is all other text. The likeliest digit stands for the reply.

    ``known`` has the log-probabilities of the ten digits by what was shown: repeats show the same.
    """
    drawn = [call for call in calls if call.key in begun]
    new = {_shown(call): call for call in calls if _shown(call) not in known and call.key not in begun}
    failed: dict[tuple[object, ...], str] = {}
    for shown, told in _digits(plan, model, rater, list(new.values())):
        if isinstance(told, str):
            failed[shown] = told
        else:
            known[shown] = told
    for call in calls:
        if call.key in begun:
            continue
        shown, line = _shown(call), line_of(plan, call, again=False) | {"latency_s": None, "http": None}
        if shown in failed:
            yield _failed(line, failed[shown])
            continue
        totals = known[shown]
        if fsum(map(exp, totals)) < LEAST_MASS:
            drawn.append(call)
            continue
        best = max(range(10), key=totals.__getitem__)
        top = [[digit, value] for digit, value in zip(DIGITS, totals, strict=True)]
        yield {
            **line, "outcome": "reply", "text": DIGITS[best], "refusal": None, "finish_reason": "stop", "logprobs": [[DIGITS[best], totals[best], top]], "final": True,
        }  # fmt: skip
    shown_by = {call.key: _shown(call) for call in drawn}
    for line in _written(plan, model, rater, drawn, begun):
        found = known.get(shown_by[line["call"]])
        yield line if found is None else {**line, "digit_mass": round(fsum(map(exp, found)), 6)}


def _digits(plan: Plan, model: Any, rater: Rater, calls: Sequence[Call]) -> Iterator[tuple[tuple[object, ...], list[float] | str]]:
    """(what was shown, log-probabilities of the ten digits or why there are none)."""
    space = " " if rater.template == "raw" else ""
    prompts = [_prompt(plan, model, rater, call) for call in calls]
    asks: list[ScoreAsk] = [model.continuation(prompt, f"{space}{digit}") for prompt in prompts for digit in DIGITS]
    found: dict[int, Any] = dict(model.score(asks)) if asks else {}
    for at, call in enumerate(calls):
        scores = [found.get(10 * at + k, Failure("not scored")) for k in range(10)]
        why = next((s.why for s in scores if isinstance(s, Failure)), None)
        yield _shown(call), [float(s.total) for s in scores] if why is None else why


def _shown(call: Call) -> tuple[object, ...]:
    """What a call shows: all of it but the repeat."""
    return (call.pairs, call.order, call.variant)
