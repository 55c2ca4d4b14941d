"""Asking endpoints: every attempt is an event, every call ends once. Imports no torch.

Many endpoints are asked at once, each by as many workers as its roster entry allows. A worker takes a call, tries it as often as is allowed, and emits a
line for every attempt. What ends a model (no key, no such model) ends only that model: the rest of its calls are not asked, and have no line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aligntax.atlas.digits import REASONS, Place, rate
from aligntax.atlas.pairs import Pair, PairSet
from aligntax.atlas.protocol import LAB, Call, Plan, Protocol
from aligntax.atlas.replies import Reading, read, read_list
from aligntax.atlas.roster import Rater
from aligntax.core.words import cut
from aligntax.models.wire import Call as WireCall
from aligntax.models.wire import NoAnswerError, Wire, in_background

UNREADABLE = frozenset({"nonnumeric", "multiple", "range", "out_of_range", "bad_json", "empty"})
"""Statuses of a reply that is asked for once more."""
_LOST = 5
"""Calls in a row that were lost for want of an answer, after which an endpoint counts as gone."""
_TOP = 20
_FLUSH = 0.01
"""Seconds between handing lines over: waking the thread that writes them for each would cost as much as asking."""
_TEXT = 20_000

Line = dict[str, Any]
"""One attempt, as it stands in calls.jsonl."""


@dataclass
class Source:
    """One endpoint and the calls it is to answer; ``begun``: replies that are there and are to be asked for once more, by call."""

    name: str
    rater: Rater
    calls: Sequence[Call]
    begun: Mapping[str, str] = field(default_factory=dict)
    can_logprobs: bool = True


@dataclass
class _State:
    """What is known of an endpoint while it is asked."""

    wire: Wire
    source: Source
    model: str | None
    limit_name: str = "max_tokens"
    logprobs: bool = True
    quiet_until: float = 0.0
    lost: int = 0
    ended: str = ""


def asked(plan: Plan, sources: Sequence[Source]) -> Iterator[list[Line]]:
    """Lines of all attempts at all calls, as they come, a few at a time; the iterator may be closed at any time."""

    async def work(emit: Callable[[Any], None]) -> None:
        kept: list[Line] = []

        def flush() -> None:
            if kept:
                emit(kept.copy())
                kept.clear()

        async def now_and_then() -> None:
            while True:
                await asyncio.sleep(_FLUSH)
                flush()

        clock = asyncio.create_task(now_and_then())
        try:
            async with asyncio.TaskGroup() as group:
                for source in sources:
                    group.create_task(_ask_source(plan, source, kept.append))
        finally:
            clock.cancel()
            flush()

    yield from in_background(work)


def probed(sources: Sequence[Source]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model, what its endpoint can do), from one mundane question each: who answers, whether log-probabilities come back and make sense."""
    pair = Pair("probe", "probe", None, _SHOTS[0][0], _SHOTS[0][1], None)
    other = Pair("probe 2", "probe", None, _SHOTS[1][0], _SHOTS[1][1], None)
    protocol = Protocol(orders=("AB",), variants=("ends",), repeats=1, scale="d9", reprompt=False)
    plan = Plan(protocol, PairSet((pair, other), "probe", "probe"))
    asks = [Source(s.name, s.rater, [c for c in plan.calls(s.name, "probe") if c.pairs == (0,)]) for s in sources]
    for lines in asked(plan, asks):
        yield from ((line["model"], _able(line)) for line in lines if line["final"])


def _able(line: Line) -> dict[str, Any]:
    """What a probe's line says of an endpoint."""
    if line["outcome"] != "reply":
        return {"answers": False, "why": line.get("why") or f"another model answered: {line.get('served')}"}
    found = rate(places(line), line.get("text"), finish_reason=line.get("finish_reason"), refusal=line.get("refusal"))
    usage = line.get("usage") or {}
    reason = found.expected.reason
    sane = reason is None or (reason == "no_rating" and bool(line.get("logprobs")))
    return {
        "answers": True,
        "served": line.get("served"),
        "fingerprint": line.get("fingerprint"),
        "provider": line.get("provider"),
        "rating": found.reading.status,
        "logprobs": "there" if sane else REASONS["no_logprobs" if reason == "no_rating" else str(reason)],
        "tokens_out": usage.get("completion_tokens"),
        "seconds": line.get("latency_s"),
    }


async def _ask_source(plan: Plan, source: Source, emit: Callable[[Line], None]) -> None:
    rater, reference = source.rater, source.rater.reference
    wire = Wire(reference.place, key_env=rater.key_env, concurrency=rater.concurrency, timeout=rater.timeout, attempts=rater.attempts)
    if not wire.url.rsplit("/", 1)[-1].startswith("v"):
        wire.url = f"{wire.url}/v1"
    wants = plan.protocol.logprobs and plan.protocol.scale == "d9" and source.can_logprobs
    state = _State(wire, source, reference.served, logprobs=wants)
    todo = iter(source.calls)

    async def worker() -> None:
        async with wire.client(1) as client:
            call = WireCall(client, lambda _: None)
            for one in todo:
                await _ask(plan, state, call, one, emit)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(rater.concurrency, len(source.calls))):
            group.create_task(worker())


async def _ask(plan: Plan, state: _State, wire_call: WireCall, call: Call, emit: Callable[[Line], None]) -> None:
    """One call to its end: the reply, once more if it cannot be read, or why there is none."""
    first = state.source.begun.get(call.key)
    if first is None:
        first = await _tried(plan, state, wire_call, call, None, emit)
    if (
        first is not None
        and plan.protocol.reprompt
        and state.source.rater.template == "chat"
        and not state.ended
        and unreadable(plan, call, first)
    ):
        await _tried(plan, state, wire_call, call, first, emit)


def unreadable(plan: Plan, call: Call, text: str, reason: str | None = "stop") -> bool:
    """Whether a reply about one pair holds no rating that could be there if it were asked for once more."""
    return len(call.pairs) == 1 and read(text, plan.protocol.scale, finish_reason=reason).status in UNREADABLE


async def _tried(
    plan: Plan, state: _State, wire_call: WireCall, call: Call, before: str | None, emit: Callable[[Line], None]
) -> str | None:
    """The text of a reply; None where there is none. Every attempt is emitted."""
    wire = state.wire
    for attempt in range(1, wire.attempts + 1):
        if state.ended:  # what was not asked has no line
            return None
        line = _line(call, plan, attempt, again=before is not None)
        if (pause := state.quiet_until - time.monotonic()) > 0:
            await wire.wait(pause)
        begun = time.perf_counter()
        url, body = _request(plan, state, call, before)
        try:
            answer = await wire.once(wire_call, "POST", url, body)
            told = _reply(answer, state)
        except NoAnswerError as error:
            line |= {"latency_s": round(time.perf_counter() - begun, 4), "http": error.status, "why": cut(str(error), 400)}
            if _adapted(state, error, body):
                emit({**line, "outcome": "lost", "final": False})
                continue
            if (stop := wire.stop(error, str(state.model))) is not None:
                state.ended = cut(str(stop), 400)
                emit({**line, "outcome": "failed", "why": state.ended, "final": True})
                return None
            last = attempt == wire.attempts or not error.again
            wait = 0.0 if last else wire.pause(attempt - 1, error.after)
            emit({**line, "outcome": "failed" if last else "lost", "retry_after": error.after, "final": last})
            if last:
                _count_lost(state, error)
                return None
            if error.status == 429 and error.after is not None:
                state.quiet_until = max(state.quiet_until, time.monotonic() + wait)
            await wire.wait(wait)
            continue
        state.lost = 0
        line |= {"latency_s": round(time.perf_counter() - begun, 4), "http": 200, **told}
        wrong = _other_model(told.get("served"), state.model)
        emit({**line, "outcome": "wrong_model" if wrong else "reply", "final": True})
        return None if wrong else told["text"]
    return None


def _count_lost(state: _State, error: NoAnswerError) -> None:
    state.lost = state.lost + 1 if error.down or error.again else 0
    if state.lost >= _LOST * max(1, state.wire.concurrency):
        state.ended = f"the endpoint is gone: {state.lost} calls in a row got no answer, the last because {cut(str(error), 200)}"


def _adapted(state: _State, error: NoAnswerError, body: Mapping[str, Any]) -> bool:
    """Whether the endpoint refused a parameter that can be named otherwise, or left out, which is then said."""
    said = str(error)
    if error.status not in (400, 403, 422):
        return False
    if state.limit_name == "max_tokens" and "max_completion_tokens" in said and "max_tokens" in body:
        state.limit_name = "max_completion_tokens"
        return True
    if "logprobs" in said and "logprobs" in body:
        state.logprobs = False
        return True
    return False


def _line(call: Call, plan: Plan, attempt: int, *, again: bool) -> Line:
    return {
        "call": call.key, "model": call.model, "pairs": [plan.pairs.pairs[i].name for i in call.pairs], "order": call.order, "variant": call.variant,
        "repeat": call.repeat, "attempt": attempt, "again": again, "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }  # fmt: skip


def _request(plan: Plan, state: _State, call: Call, before: str | None) -> tuple[str, dict[str, Any]]:
    """Where it is asked, and how."""
    p, rater = plan.protocol, state.source.rater
    body: dict[str, Any] = {**rater.send, "model": state.model, "temperature": p.temperature, "seed": call.seed}
    if rater.template == "raw":
        body |= {"prompt": raw_text(plan, call), "max_tokens": plan.limit(call), "stop": ["\n"] if call.variant != LAB else ["question"]}
        if state.logprobs:
            body["logprobs"] = _TOP
        return f"{state.wire.url}/completions", body
    messages = plan.messages(call) if before is None else plan.again(call, before)
    body |= {"messages": [{"role": role, "content": content} for role, content in messages], state.limit_name: plan.limit(call)}
    if state.logprobs:
        body |= {"logprobs": True, "top_logprobs": _TOP}
    return f"{state.wire.url}/chat/completions", body


_SHOTS = (
    ("The shop opens at nine in the morning.", "From nine in the morning the shop is open.", {"dec2": "0.97", "d9": "9", "pct": "97"}),
    ("The shop opens at nine in the morning.", "A kilogram of flour makes two loaves.", {"dec2": "0.02", "d9": "0", "pct": "2"}),
    ("The shop opens at nine in the morning.", "The shop sells bread and cheese.", {"dec2": "0.41", "d9": "4", "pct": "41"}),
)
"""Examples for models without a chat template, of no category of pairs."""


def raw_text(plan: Plan, call: Call) -> str:
    """The whole text for a model without a chat template: examples first, for it was not taught to follow a request."""
    if call.variant == LAB:
        return f"question: {plan.text(call)} answer:"
    how = plan.text(call)
    if len(call.pairs) > 1:
        return f"{how}\n\nRatings:\n"
    head, _, pair = how.partition("\n\n")
    shown = "\n\n".join(f"Text 1: {a}\n\nText 2: {b}\n\nRating: {value[plan.protocol.scale]}" for a, b, value in _SHOTS)
    return f"{head}\n\n{shown}\n\n{pair}\n\nRating:"


def _reply(answer: Mapping[str, Any], state: _State) -> Line:
    """What came back, as it came. Raises NoAnswerError where it is no answer of the protocol."""
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoAnswerError("the answer is JSON of the wrong shape: there is no choice in it", again=True)
    choice = choices[0]
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    if text is not None and not isinstance(text, str):
        raise NoAnswerError("the answer is JSON of the wrong shape: its text is none", again=True)
    refusal = message.get("refusal") if isinstance(message, dict) else None
    served, usage, finger, provider, reason = (
        answer.get("model"), answer.get("usage"), answer.get("system_fingerprint"), answer.get("provider"), choice.get("finish_reason"),
    )  # fmt: skip
    told: Line = {
        "text": (text or "")[:_TEXT],
        "refusal": refusal[:_TEXT] if isinstance(refusal, str) and refusal else None,
        "finish_reason": reason if isinstance(reason, str) else None,
        "served": cut(served, 200) if isinstance(served, str) else None,
        "provider": cut(provider, 200) if isinstance(provider, str) else None,
        "fingerprint": cut(finger, 200) if isinstance(finger, str) else None,
        "usage": {k: v for k, v in usage.items() if isinstance(v, int)} if isinstance(usage, dict) else None,
    }
    if state.logprobs:
        told["logprobs"] = _told(choice.get("logprobs"))
    return told


def _told(given: Any) -> list[Any] | None:
    """Log-probabilities in one form, [token, logprob, [[token, logprob], ...]] for every place; None where there are none, or no form is known."""
    if not isinstance(given, dict):
        return None
    content = given.get("content")
    if isinstance(content, list):
        rows = [row for row in content if isinstance(row, dict)]
        return [
            [_name(row), row.get("logprob"), [[_name(t), t.get("logprob")] for t in row.get("top_logprobs") or () if isinstance(t, dict)]]
            for row in rows[:64]
        ]
    tokens, values, tops = given.get("tokens"), given.get("token_logprobs"), given.get("top_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return None
    listed = tops if isinstance(tops, list) else [None] * len(tokens)
    return [
        [str(t), v, [[str(k), p] for k, p in top.items()] if isinstance(top, dict) else []]
        for t, v, top in list(zip(tokens, values, listed, strict=False))[:64]
    ]


def _name(row: Mapping[str, Any]) -> str:
    token = row.get("token")
    return token if isinstance(token, str) else ""


def places(line: Line) -> list[Place]:
    """Log-probabilities of a line as ``digits`` reads them; null becomes NaN."""
    return [
        Place(token, _nat(value), tuple((text, _nat(p)) for text, p in top))
        for token, value, top in line.get("logprobs") or ()
        if isinstance(token, str)
    ]


def _nat(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else float("nan")


def _other_model(served: str | None, wanted: str | None) -> bool:
    """Whether another model answered: neither the one that was asked, nor a dated version of it."""
    if served is None or wanted is None:
        return False
    one, other = (name.rsplit("/", 1)[-1].lower() for name in (served, wanted))
    return not (one.startswith(other) or other.startswith(one))


def readings(plan: Plan, call: Call, line: Line) -> tuple[Reading, ...]:
    """What a line's reply says of each pair of its call."""
    text, reason, refusal = str(line.get("text") or ""), line.get("finish_reason"), line.get("refusal")
    if len(call.pairs) == 1:
        return (read(text, plan.protocol.scale, finish_reason=reason, refusal=refusal),)
    return read_list(text, len(call.pairs), plan.protocol.scale, finish_reason=reason, refusal=refusal)
