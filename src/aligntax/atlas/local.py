"""Local models as raters (lab, folders, hub ids): the same lines as endpoints give. Torch is imported where a model is opened."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aligntax.atlas.asking import Line, raw_text, unreadable
from aligntax.atlas.protocol import LAB, Call, Plan
from aligntax.core.asks import Failure, GenerateAsk, Generated, Prompt, ScoreAsk
from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable
from aligntax.models.asks import Generates, ScoresText
from aligntax.models.references import open_model

if TYPE_CHECKING:
    from aligntax.atlas.roster import Rater

BATCH = 256
"""Calls whose answers are written down together; a kill loses at most so many."""
DIGITS = "0123456789"


def rated(plan: Plan, name: str, rater: Rater, calls: Sequence[Call], device: str = "auto") -> Iterator[Line]:
    """Lines of all calls of one local model, as they come.

    With log-probabilities a digit is scored rather than drawn: all ten after the prompt, so the whole distribution is known.

    Raises:
        InputError: if the model cannot be had, or cannot be asked so.
    """
    opened = open_model(rater.reference, device=device)
    model: Any = opened
    try:
        if rater.template == "chat" and not model.facts.get("chat_template", True):
            raise InputError(f"{printable(name)} has no chat template; give it template: raw in the roster")
        if not isinstance(model, Generates):
            raise InputError(f"{printable(name)} writes no answers, so it cannot rate")
        exact = plan.protocol.scale == "d9" and plan.protocol.logprobs and isinstance(model, ScoresText)
        for start in range(0, len(calls), BATCH):
            some = calls[start : start + BATCH]
            yield from _scored(plan, model, rater, some) if exact else _written(plan, model, rater, some)
    finally:
        opened.close()


def _prompt(plan: Plan, model: Any, rater: Rater, call: Call, before: str | None = None) -> Prompt:
    if rater.template == "raw":
        found: Prompt = model.raw(raw_text(plan, call))
        return found
    spoken: Prompt = model.chat(plan.messages(call) if before is None else plan.again(call, before))
    return spoken


def _written(plan: Plan, model: Any, rater: Rater, calls: Sequence[Call]) -> Iterator[Line]:
    stops = ("question",) if plan.protocol.variants == (LAB,) else ("\n",) if rater.template == "raw" else ()
    before: dict[int, str] = {}
    for again in (False, True):
        todo = list(range(len(calls))) if not again else sorted(before)
        asks = [
            GenerateAsk(_prompt(plan, model, rater, calls[i], before.get(i) if again else None), plan.limit(calls[i]), plan.protocol.temperature, stops=stops, seed=calls[i].seed)
            for i in todo
        ]  # fmt: skip
        if not asks:
            return
        begun = time.perf_counter()
        for at, answer in model.generate(asks):
            call = calls[todo[at]]
            line = _line(plan, call, again=again, seconds=(time.perf_counter() - begun) / (at + 1))
            if isinstance(answer, Generated):
                yield {**line, "outcome": "reply", "text": answer.text, "refusal": None, "finish_reason": answer.reason, "final": True}
                if plan.protocol.reprompt and not again and rater.template == "chat" and unreadable(plan, call, answer.text, answer.reason):
                    before[todo[at]] = answer.text
            else:
                yield {**line, "outcome": "failed", "why": cut(answer.why, 400), "final": True}


def _scored(plan: Plan, model: Any, rater: Rater, calls: Sequence[Call]) -> Iterator[Line]:
    """The probability of every digit right after the prompt; what is left is all other text. The likeliest digit stands for the reply."""
    space = " " if rater.template == "raw" else ""
    prompts = [_prompt(plan, model, rater, call) for call in calls]
    asks: list[ScoreAsk] = [model.continuation(prompt, f"{space}{digit}") for prompt in prompts for digit in DIGITS]
    found: dict[int, Any] = dict(model.score(asks))
    for at, call in enumerate(calls):
        scores = [found.get(10 * at + k, Failure("not scored")) for k in range(10)]
        line = _line(plan, call, again=False, seconds=None)
        if failed := next((s for s in scores if isinstance(s, Failure)), None):
            yield {**line, "outcome": "failed", "why": cut(failed.why, 400), "final": True}
            continue
        totals = [float(s.total) for s in scores]
        best = max(range(10), key=totals.__getitem__)
        top = [[d, v] for d, v in zip(DIGITS, totals, strict=True)]
        yield {
            **line, "outcome": "reply", "text": DIGITS[best], "refusal": None, "finish_reason": "stop", "logprobs": [[DIGITS[best], totals[best], top]], "final": True,
        }  # fmt: skip


def _line(plan: Plan, call: Call, *, again: bool, seconds: float | None) -> Line:
    return {
        "call": call.key, "model": call.model, "pairs": [plan.pairs.pairs[i].name for i in call.pairs], "order": call.order, "variant": call.variant,
        "repeat": call.repeat, "attempt": 1, "again": again, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), "latency_s": seconds and round(seconds, 4), "http": None,
    }  # fmt: skip
