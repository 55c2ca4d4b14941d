"""Asking endpoints: every attempt is an event, every call ends once. Imports no torch.

Many endpoints are asked at once, each by as many workers as its roster entry allows. A worker takes a call, tries it as often as is allowed, and has every
attempt recorded before it goes on: what was answered is written down when the next is asked. What ends a model (no key, no such model) ends only that
model: the rest of its calls are not asked, and have no line.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import isfinite
from typing import Any

from aligntax.atlas.digits import REASONS, Place, Rated, rate
from aligntax.atlas.pairs import Pair, pair_set
from aligntax.atlas.protocol import SHOTS, Call, Plan, Protocol
from aligntax.atlas.replies import Reading, read, read_list
from aligntax.atlas.roster import Rater
from aligntax.core.words import cut, printable
from aligntax.models.wire import Call as WireCall
from aligntax.models.wire import NoAnswerError, Wire, in_background, message_of

UNREADABLE = frozenset({"nonnumeric", "multiple", "range", "out_of_range", "bad_json", "empty"})
"""Statuses of a reply that is asked for once more."""
SETTLED = frozenset({"reply", "filtered", "wrong_model"})
"""Outcomes after which a call is not made again; ``failed`` is asked again by the next run, ``lost`` is an attempt that others follow."""
_LOST = 5
"""Calls in a row without an answer, for each that is made at a time, after which an endpoint counts as gone; one round, where it never answered."""
_STRANGERS = 5
"""Answers in a row of another model, after which no more are paid for."""
_BUSY = 5
"""How many times as many attempts a call has where the endpoint says that it is asked too often: that is no fault of the call."""
_PATIENCE = 600.0
"""Seconds that an endpoint may ask to be left alone; where it wants more, the rest is for another day."""
_TOPS = (20, 5, 0)
"""Log-probabilities asked for; servers allow 20 or 5."""
_OPTIONAL = ("temperature", "seed")
_FLUSH = 0.01
"""Seconds between handing lines over for counting: waking that thread for each would cost as much as asking."""
TEXT = 2**20
"""Characters of a reply that are kept; a longer one is read as one that was cut short."""
_PLACES, _WIDE = 4096, 64
"""Tokens of which log-probabilities are kept, and of how many the alternatives are, digits aside."""
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")

_FILTER = re.compile(
    r"content[ _-]?(filter|management|policy)|moderation|safety (system|polic)|(input|prompt) was (flagged|blocked)|prohibited[ _]content",
    re.I,
)
_UNKNOWN = re.compile(
    r"unsupported|not support|unknown|unrecogni[sz]ed|not (permitted|allowed)|only the default|extra|deprecated|unexpected", re.I
)
_VERSION = re.compile(r"(-(gguf|latest|preview|exp|experimental|stable|free|v?\d{2,8}|\d{4}-\d{2}-\d{2}))+$")

Line = dict[str, Any]
"""One attempt, as it stands in calls.jsonl."""
Record = Callable[[Line], None]
Wait = Callable[[float], Awaitable[None]]


@dataclass
class Source:
    """One endpoint and the calls it is to answer; ``begun``: lines of replies that are there and are to be asked for once more, by call."""

    name: str
    rater: Rater
    calls: Sequence[Call]
    begun: Mapping[str, Line] = field(default_factory=dict)


@dataclass
class _State:
    """What is known of an endpoint while it is asked.

    Attributes:
        versioned: whether ``/v1`` was added to its address here, and may be wrong.
        limit_name, top, left_out: how it wants the limit named, how many log-probabilities it tells, and which parameters it does not take.
        answered: replies so far. lost, strangers: calls in a row without an answer, or answered by another model.
        ended: why nothing more is asked.
    """

    wire: Wire
    source: Source
    model: str
    record: Record
    versioned: bool
    limit_name: str = "max_tokens"
    top: int = _TOPS[0]
    left_out: dict[str, None] = field(default_factory=dict)
    quiet_until: float = 0.0
    answered: int = 0
    lost: int = 0
    strangers: int = 0
    ended: str = ""


def asked(plan: Plan, sources: Sequence[Source], record: Record, wait: Wait = asyncio.sleep) -> Iterator[list[Line]]:
    """Lines of all attempts at all calls, a few at a time; the iterator may be closed at any time.

    Args:
        plan: what is asked.
        sources: whom.
        record: called with every line in the thread that asks, before anything else is asked; what it raises ends the asking.
        wait: pauses between attempts.

    Raises:
        InputError: before anything is asked, if an address cannot be used or a key that is named is not there.
    """
    states: list[_State] = []

    async def work(emit: Callable[[Any], None]) -> None:
        async def now_and_then() -> None:
            while True:
                await asyncio.sleep(_FLUSH)
                flush()

        def flush() -> None:
            if kept:
                emit(kept.copy())
                kept.clear()

        clock = asyncio.create_task(now_and_then())
        try:
            async with asyncio.TaskGroup() as group:
                for state in states:
                    for _ in range(min(state.wire.concurrency, len(state.source.calls))):
                        group.create_task(_worker(plan, state, todo[state.source.name]))
        finally:
            clock.cancel()
            flush()

    kept: list[Line] = []

    def recorded(line: Line) -> None:
        record(line)
        kept.append(line)

    states += [_opened(plan, source, recorded, wait) for source in sources]
    todo = {source.name: iter(source.calls) for source in sources}
    yield from in_background(work)


def wire_of(rater: Rater, wait: Wait = asyncio.sleep) -> Wire:
    """The wire to a model's endpoint.

    Raises:
        InputError: if its address cannot be used, or the key that is named is not there.
    """
    return Wire(
        rater.reference.place,
        key_env=rater.key_env,
        concurrency=rater.concurrency,
        timeout=rater.timeout,
        attempts=rater.attempts,
        wait=wait,
    )


def _opened(plan: Plan, source: Source, record: Record, wait: Wait) -> _State:
    wire = wire_of(source.rater, wait)
    bare = wire.given.path in ("", "/")  # an address with a path is one of a protocol already
    if bare:
        wire.url = f"{wire.url}/v1"
    return _State(wire, source, str(source.rater.reference.served), record, bare, top=_TOPS[0] if plan.protocol.expects else 0)


async def _worker(plan: Plan, state: _State, todo: Iterator[Call]) -> None:
    async with state.wire.call(lambda _: None, 1) as wire_call:
        for call in todo:
            if state.ended:
                return
            await _ask(plan, state, wire_call, call)


async def _ask(plan: Plan, state: _State, wire_call: WireCall, call: Call) -> None:
    """One call to its end: the reply, once more if it cannot be read, or why there is none."""
    first = state.source.begun.get(call.key) or await _tried(plan, state, wire_call, call, None)
    if first is not None and not state.ended and asks_again(plan, state.source.rater, call, first):
        await _tried(plan, state, wire_call, call, first)


def asks_again(plan: Plan, rater: Rater, call: Call, line: Line) -> bool:
    """Whether a first reply about one pair holds no rating that could be there if it were asked for once more."""
    if not plan.protocol.reprompt or rater.template != "chat" or len(call.pairs) > 1:
        return False
    return readings(plan, call, line)[0].status in UNREADABLE


async def _tried(plan: Plan, state: _State, wire_call: WireCall, call: Call, before: Line | None) -> Line | None:
    """The line of a reply; None where there is none. Every attempt is recorded."""
    tries = _Tries(state)
    while not state.ended:  # what was not asked has no line
        if (pause := state.quiet_until - time.monotonic()) > 0:
            await state.wire.wait(pause)
        line = line_of(plan, call, attempt=tries.number, again=before is not None)
        url, body = _request(plan, state, call, before)
        begun = time.perf_counter()
        try:
            told = _reply(await state.wire.once(wire_call, "POST", url, body), state)
        except NoAnswerError as error:
            line |= {
                "latency_s": round(time.perf_counter() - begun, 4),
                "http": error.status,
                "why": cut(str(error), 400),
                "retry_after": error.after,
            }
            outcome, wait = tries.after(error, url, body)
            _ends(state, line, outcome, wait is None)
            if wait is None:
                return None
            await state.wire.wait(wait)
            continue
        line |= {"latency_s": round(time.perf_counter() - begun, 4), "http": 200, **told}
        wrong = is_other_model(told["served"], state.model, state.source.rater.answers_as)
        _ends(state, line, "wrong_model" if wrong else "reply", True)
        return None if wrong else line
    return None


def _ends(state: _State, line: Line, outcome: str, final: bool) -> None:
    """Record an attempt, and what it means for the endpoint."""
    line |= {"outcome": outcome, "final": final}
    if state.left_out:
        line["left_out"] = [*state.left_out]
    state.strangers = state.strangers + 1 if outcome == "wrong_model" else 0 if outcome == "reply" else state.strangers
    if outcome in SETTLED:
        state.answered, state.lost = state.answered + 1, 0
    elif final:
        state.lost += 1
    if not state.ended and state.lost >= (_LOST if state.answered else 1) * max(_LOST, state.wire.concurrency):
        state.ended = f"{state.lost} calls in a row got no answer, the last because {cut(str(line.get('why')), 200)}"
    if not state.ended and state.strangers >= _STRANGERS:
        state.ended = stranger(line["served"], state.model)
    if state.ended and final:
        line["ended"] = state.ended
    state.record(line)


@dataclass
class _Tries:
    """Attempts at one call."""

    state: _State
    number: int = 1
    failed: int = 0
    busy: int = 0

    def after(self, error: NoAnswerError, url: str, body: Mapping[str, Any]) -> tuple[str, float | None]:
        """(outcome, seconds to wait for the next attempt, None if this was the last) of a request without an answer."""
        state, wire = self.state, self.state.wire
        self.number += 1
        if _adapted(state, error, url, body):
            return "lost", 0.0
        if error.status in (None, 400, 403, 422, 451) and not error.again and _FILTER.search(str(error)):
            return "filtered", None
        if (stop := wire.stop(error, state.model)) is not None:
            state.ended = state.ended or cut(str(stop), 400)
            return "failed", None
        if error.after is not None and error.after > _PATIENCE:
            state.ended = (
                state.ended or f"the endpoint asks to be left alone for {error.after / 60:,.0f} minutes; the same command goes on then"
            )
            return "failed", None
        if error.status == 429:
            self.busy += 1
        else:
            self.failed += 1
        if not error.again or self.failed >= wire.attempts or self.busy >= _BUSY * wire.attempts:
            return "failed", None
        if error.after is None:
            return "lost", wire.pause(self.failed + self.busy - 1, None)
        wait = error.after + wire.pause(0, None)  # a little later, so that not all come at once
        if error.status == 429:
            state.quiet_until = max(state.quiet_until, time.monotonic() + wait)
        return "lost", wait


def _adapted(state: _State, error: NoAnswerError, url: str, body: Mapping[str, Any]) -> bool:
    """Whether the endpoint refused a parameter that can be named otherwise, or left out, which is then said.

    Many requests are on their way when the first is refused, so what counts is what this one sent, not what is known by now.
    """
    said = str(error)
    if error.status in (404, 405) and state.versioned and not state.answered:
        bare = str(state.wire.given).rstrip("/")
        state.wire.url = bare
        return not url.startswith(f"{bare}/completions") and not url.startswith(f"{bare}/chat/")
    if error.status not in (400, 403, 422):
        return False
    if "max_completion_tokens" in said and "max_tokens" in body:
        state.limit_name = "max_completion_tokens"
        return "messages" in body
    if "logprobs" in said and "logprobs" in body:
        sent = body.get("top_logprobs", body["logprobs"])
        state.top = min(state.top, next(n for n in _TOPS if n < sent))
        if not state.top:
            state.left_out["logprobs"] = None
        return True
    named = [name for name in _OPTIONAL if name in body and re.search(rf"\b{name}\b", said)]
    if named and _UNKNOWN.search(said):
        state.left_out |= dict.fromkeys(named)
        return True
    return False


def line_of(plan: Plan, call: Call, *, attempt: int = 1, again: bool) -> Line:
    """How the line of an attempt begins: what is asked, and when."""
    return {
        "call": call.key, "model": call.model, "pairs": [plan.pairs.pairs[i].name for i in call.pairs], "order": call.order, "variant": call.variant,
        "repeat": call.repeat, "attempt": attempt, "again": again, "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }  # fmt: skip


def _request(plan: Plan, state: _State, call: Call, before: Line | None) -> tuple[str, dict[str, Any]]:
    """Where it is asked, and how."""
    p, rater = plan.protocol, state.source.rater
    body: dict[str, Any] = {**rater.send, "model": state.model}
    body |= {name: value for name, value in (("temperature", p.temperature), ("seed", call.seed)) if name not in state.left_out}
    if rater.template == "raw":
        body |= {"prompt": plan.raw(call), "max_tokens": plan.limit(call), "stop": list(plan.stops(call))}
        if state.top:
            body["logprobs"] = state.top
        return f"{state.wire.url}/completions", body
    messages = plan.messages(call) if before is None else plan.again(call, str(before["text"]))
    body |= {"messages": [{"role": role, "content": content} for role, content in messages], state.limit_name: plan.limit(call)}
    if state.top:
        body |= {"logprobs": True, "top_logprobs": state.top}
    return f"{state.wire.url}/chat/completions", body


# -- what comes back -----------------------------------------------------------------------------------------------------------


def _reply(answer: Mapping[str, Any], state: _State) -> Line:
    """What came back, as it came but for the key.

    Raises:
        NoAnswerError: where it is no answer of the protocol.
    """
    clean = state.wire.without_key
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoAnswerError("the answer is JSON of the wrong shape: there is no choice in it", again=True)
    choice = choices[0]
    message = choice.get("message")
    reason = choice.get("finish_reason")
    if reason == "error" or choice.get("error"):
        why = state.wire.clean(message_of(choice, b"none is told"))
        raise NoAnswerError(f"the model broke off with an error: {why}", again=True)
    if not isinstance(message, dict) and "text" not in choice:
        raise NoAnswerError("the answer is JSON of the wrong shape: there is no message in it", again=True)
    text = _written(message.get("content") if isinstance(message, dict) else choice.get("text"))
    if text is None:
        raise NoAnswerError("the answer is JSON of the wrong shape: its text is none", again=True)
    text = clean(text)
    refusal, thought = (
        (message.get("refusal"), message.get("reasoning_content") or message.get("reasoning"))
        if isinstance(message, dict)
        else (None, None)
    )
    told: Line = {
        "text": text[:TEXT],
        **({"cut": len(text)} if len(text) > TEXT else {}),
        "refusal": clean(refusal)[:TEXT] if isinstance(refusal, str) and refusal else None,
        "finish_reason": clean(reason)[:60] if isinstance(reason, str) else None,
        **{
            ours: _named(answer.get(theirs), state)
            for ours, theirs in (("served", "model"), ("provider", "provider"), ("fingerprint", "system_fingerprint"))
        },
        "usage": _usage(answer.get("usage")),
        **({"thought": len(thought)} if isinstance(thought, str) and thought else {}),
    }
    if state.top:
        told["logprobs"] = _told(choice.get("logprobs"), state)
    return told


def _written(content: Any) -> str | None:
    """The text of a message, which some servers send in parts; none is no text, anything else is None."""
    if content is None:
        return ""
    if isinstance(content, list):
        parts: list[Any] = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") in ("text", "output_text")]
        return "".join(parts) if all(isinstance(part, str) for part in parts) else None
    return content if isinstance(content, str) else None


def _named(value: Any, state: _State) -> str | None:
    return cut(printable(state.wire.without_key(value)[:1000]), 200) if isinstance(value, str) and value else None


def _usage(given: Any) -> dict[str, int] | None:
    """Tokens, those of thinking among them."""
    if not isinstance(given, dict):
        return None
    details = given.get("completion_tokens_details")
    found = {name: given.get(name) for name in _COUNTS} | {
        "reasoning_tokens": details.get("reasoning_tokens") if isinstance(details, dict) else None
    }
    return {name: n for name, n in found.items() if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**53}


def _told(given: Any, state: _State) -> list[Any] | None:
    """Log-probabilities in one form, [token, logprob, [[token, logprob], ...]] for every place.

    None where there are none, no form is known, or the tokens spell the key.
    """
    if not isinstance(given, dict):
        return None
    content, tokens, values, tops = (given.get(name) for name in ("content", "tokens", "token_logprobs", "top_logprobs"))
    if isinstance(content, list):
        rows = [
            (row.get("token"), row.get("logprob"), _listed(row.get("top_logprobs"))) for row in content[:_PLACES] if isinstance(row, dict)
        ]
    elif isinstance(tokens, list) and isinstance(values, list):
        listed = tops if isinstance(tops, list) else [None] * len(tokens)
        rows = [
            (token, value, list(top.items()) if isinstance(top, dict) else [])
            for token, value, top in list(zip(tokens, values, listed, strict=False))[:_PLACES]
        ]
    else:
        return None
    found = [(_token(token), _number(value), _alternatives(at, _token(token), top)) for at, (token, value, top) in enumerate(rows)]
    for spelled in ("".join(token for token, _, _ in found), "\n".join(token for _, _, top in found for token, _ in top)):
        if state.wire.without_key(spelled) != spelled:
            return None
    return found


def _alternatives(at: int, token: str, top: Sequence[tuple[Any, Any]]) -> list[tuple[str, float | None]]:
    """What else might have stood there: of the first tokens, and of digits."""
    wanted = at < _WIDE or any(ch.isdecimal() for ch in token)
    return [(_token(text), _number(value)) for text, value in top[: 2 * _TOPS[0]]] if wanted else []


def _listed(given: Any) -> list[tuple[Any, Any]]:
    return [(row.get("token"), row.get("logprob")) for row in given if isinstance(row, dict)] if isinstance(given, list) else []


def _token(value: Any) -> str:
    return value[:400] if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    """A number that JSON has; a server may send any other, as NaN or with a thousand digits."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if isfinite(found) else None


def stranger(served: str, wanted: str) -> str:
    """That another model answered, in words."""
    return f"{printable(served)} answers where {printable(wanted)} was asked; if that is its name, write answers_as into the roster"


def is_other_model(served: str | None, wanted: str, known_as: str | None) -> bool:
    """Whether another model answered than the one that was asked.

    Its own name with another owner, or with a version where none was asked for, is its name; so is the other name that is known.
    """
    if served is None or served == known_as:
        return False
    (name, version), (asked_name, asked_version) = _parts(served), _parts(wanted)
    return name != asked_name or (bool(version) and bool(asked_version) and version != asked_version)


def _parts(name: str) -> tuple[str, str]:
    """A model's name without its owner, and the digits of its version: (gpt-4o, 20240806) of ``openai/gpt-4o-2024-08-06``; ``gpt-4o-mini`` has none."""
    last = re.sub(r"[ ._:@]+", "-", name.rstrip("/").rsplit("/", 1)[-1].lower())
    found = _VERSION.search(last)
    return (last, "") if found is None or found.start() == 0 else (last[: found.start()], re.sub(r"\D", "", found[0]))


# -- what a line says ----------------------------------------------------------------------------------------------------------


def _how(line: Line) -> dict[str, Any]:
    return {"finish_reason": "length" if line.get("cut") else line.get("finish_reason"), "refusal": line.get("refusal")}


def readings(plan: Plan, call: Call, line: Line) -> tuple[Reading, ...]:
    """What a line's reply says of each pair of its call."""
    text = str(line.get("text") or "")
    if plan.protocol.presentation == "isolated":
        return (read(text, plan.protocol.scale, **_how(line)),)
    return read_list(text, len(call.pairs), plan.protocol.scale, **_how(line))


def rated(line: Line) -> Rated:
    """The rating of a line's reply on single digits: expected where its log-probabilities can be used, else as it was drawn."""
    text, told = str(line.get("text") or ""), places(line)
    found = rate(told, text, **_how(line))
    if found.expected.reason == "no_match" and (shorter := _without_stop(told, text)):
        return rate(shorter, text, **_how(line))
    return found


def _without_stop(told: Sequence[Place], text: str) -> Sequence[Place]:
    """The tokens that spell the reply: some servers list the stop that ended it, which is not in its text; none if the first tokens spell something else."""
    wanted, spelled = "".join(text.split()), ""
    for at, place in enumerate(told):
        if at and spelled == wanted:
            return told[:at]
        spelled += "".join(place.token.split())
    return ()


def judged(line: Line, rater: Rater) -> Line:
    """A line of the log with the outcome that it has by what is known now: under which name a model answers may be learned later."""
    if line["outcome"] not in ("reply", "wrong_model") or not rater.remote:
        return line
    served = line.get("served")
    wrong = is_other_model(served if isinstance(served, str) else None, str(rater.reference.served), rater.answers_as)
    return {**line, "outcome": "wrong_model" if wrong else "reply"}


def places(line: Line) -> list[Place]:
    """Log-probabilities of a line as ``digits`` reads them; null becomes NaN."""
    return [Place(token, _nat(value), tuple((text, _nat(p)) for text, p in top)) for token, value, top in line.get("logprobs") or ()]


def _nat(value: float | None) -> float:
    return float("nan") if value is None else float(value)


# -- before anything is spent --------------------------------------------------------------------------------------------------


def probed(sources: Sequence[Source], max_tokens: int = 16, wait: Wait = asyncio.sleep) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model, what its endpoint can do), from one mundane question each.

    Who answers, whether its parameters are taken, whether log-probabilities come back and make sense, whether it thinks before it answers.

    Args:
        sources: whom; their calls do not matter.
        max_tokens: longest reply, as the protocol has it.
        wait: pauses between attempts.
    """
    pair = Pair("probe", "probe", None, SHOTS[0][0], SHOTS[0][1], None)
    plan = Plan(
        Protocol(orders=("AB",), variants=("ends",), repeats=1, scale="d9", reprompt=False, max_tokens=max_tokens),
        pair_set([pair], "probe"),
    )
    asks = {s.name: Source(s.name, s.rater, plan.calls(s.name, "probe")) for s in sources}
    for lines in asked(plan, list(asks.values()), lambda _: None, wait):
        yield from ((line["model"], _able(line, str(asks[line["model"]].rater.reference.served))) for line in lines if line["final"])


def _able(line: Line, wanted: str) -> dict[str, Any]:
    """What a probe's line says of an endpoint."""
    if line["outcome"] == "wrong_model":
        return {"answers": False, "other": line["served"], "why": stranger(line["served"], wanted)}
    if line["outcome"] != "reply":
        return {"answers": False, "why": line.get("ended") or line.get("why")}
    found = rated(line)
    usage = line.get("usage") or {}
    reason = found.expected.reason
    thinks = bool(usage.get("reasoning_tokens") or line.get("thought") or "think" in found.reading.flags)
    return {
        "answers": True,
        "served": line.get("served"),
        "fingerprint": line.get("fingerprint"),
        "provider": line.get("provider"),
        "rating": found.reading.status,
        "logprobs": "there"
        if reason is None or (reason == "no_rating" and line.get("logprobs"))
        else REASONS["no_logprobs" if reason == "no_rating" else reason],
        "left_out": line.get("left_out", []),
        "thinks": thinks,
        "tokens_out": usage.get("completion_tokens"),
        "seconds": line.get("latency_s"),
        "advice": advice(thinks) if found.reading.status == "truncated" else None,
    }


def advice(thinks: bool) -> str:
    """What to do about replies that were cut short."""
    before = (
        "it spends them on thinking: turn that off in its send (such as reasoning_effort: none), or allow more" if thinks else "allow more"
    )
    return f"{before} with --max-tokens, such as 2000"
