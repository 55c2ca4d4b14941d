"""A model behind the OpenAI protocol (vLLM, llama.cpp, ``aligntax lab serve``, providers). Imports no torch.

What is scored is asked for with ``echo`` and ``logprobs`` of ``/v1/completions``; servers that only know ``prompt_logprobs`` cannot score.
Whatever a server sends is hostile until it was checked: it is read up to a limit, and never shown as it is.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeVar

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.ids import digest
from aligntax.core.words import cut, printable
from aligntax.models.encoding import encoded
from aligntax.models.timing import Timed
from aligntax.models.wire import (
    NO_ENTRY,
    SHOWN,
    STOPPING,
    Call,
    NoAnswerError,
    Notice,
    Wire,
    body_of,
    in_background,
    is_local,
    message_of,
)

_MAX_STOPS = 4  # of OpenAI's protocol
_NOISE = 1e-4  # a log-probability above 0 by rounding

_LOST_IN_A_ROW = 5
# Servers that sample by the model's own generation_config, or by defaults of their own, where nothing is said: a penalty or a cut that
# nobody asked for moves even greedy answers. Known by "owned_by" in their list of models.
_NEUTRAL: Mapping[str, Mapping[str, float]] = {
    "vllm": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "sglang": {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
    "llamacpp": {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0},
}

_NAMES_IDS = ("vllm", "aligntax")
"""Servers that tell ids of tokens when asked; the spelling of a token may be that of several."""
_ID = "token_id:"
_FEW = 5
"""Alternatives that every server tells (OpenAI's limit)."""

_PROBE = (
    "question: what is 1 + 2? answer:",
    " 3. question: what is 4 + 5? answer: 9. question: what is 9 + 2? answer: 11. question: what is 6 + 7? answer: 12. "
    "question: what is 3 + 3? answer: 7. question: what is 8 + 1? answer: 10. question: what is 5 + 5? answer: 11.",
)
"""A prompt and a text: whether texts can be scored, by the tokens meant, and by which model."""

_Tokens = tuple[int, ...]
_Ask = TypeVar("_Ask", ScoreAsk, GenerateAsk)
_Answer = TypeVar("_Answer", Scored, Generated)


class Endpoint:
    """A model behind the OpenAI protocol; satisfies ``Model``, ``Generates`` and ``ScoresText``.

    ``connect`` finds out what is served, and fills in what only the server knows; the first question does it where nobody did.

    Keys are those of ``Wire``. Texts are scored by their token ids where a tokenizer is given, else by the offsets that the server tells. Answers come from
    ``/completions``, for a conversation without a tokenizer from ``/chat/completions``, where the server applies its chat template.

    Args:
        url: where it is, with or without ``/v1``.
        model: which of the models served; may be left out where there is one.
        tokenizer: of that model, as transformers has it; without one the server tokenizes.
        key_env: environment variable that holds this endpoint's key.
        concurrency: requests at a time.
        timeout: seconds for one attempt, from connecting to the last byte.
        attempts: how often one request is tried.
        say: is told what people should know.
        wait: pauses between attempts.

    Attributes:
        name: of the model, as it is served.
        identity: endpoint, model, and the content of the tokenizer if there is one.
        facts: what was found. ``log_probabilities`` is True if given texts can be scored, False if not, None if that was not settled;
            then ``log_probabilities_reason`` says why.
        context: tokens for prompt and answer, where the server says it.

    Raises:
        InputError: if the URL cannot be used, or the key named is not there.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        *,
        tokenizer: Any | None = None,
        key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        attempts: int = 6,
        say: Callable[[str], None] | None = None,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._wire = Wire(url, key_env=key_env, concurrency=concurrency, timeout=timeout, attempts=attempts, wait=wait)
        self._model, self._tokenizer = model, tokenizer
        self._say = say or (lambda _: None)
        self._connected = False
        self._least: int | None = None
        self._cannot_score: str | None = None
        self._limit_name = "max_tokens"
        self._usage_streams = True
        self._neutral: Mapping[str, float] = {}
        self._names_ids = False
        self._most = 1000
        self.name: str = printable(model or self._wire.given.host)
        self.identity: Mapping[str, Any] = {"endpoint": self.url, "model": model, **self._tokenizer_identity}
        self.facts: Mapping[str, Any] = {"endpoint": self.url, "concurrency": concurrency}
        self.context: int | None = None

    @property
    def url(self) -> str:
        """The address of the protocol, once that is known."""
        return self._wire.url

    # -- prompts -----------------------------------------------------------------------------------------------------------

    def raw(self, text: str) -> Prompt:
        """A text as the tokenizer begins one; a begin token that the text brings along is not doubled."""
        if self._tokenizer is None:
            return Prompt(text, None)
        begin = getattr(self._tokenizer, "bos_token", None)
        special = not (begin and text.startswith(begin))
        return Prompt(text, self._encode(text, special), (), special)

    def template(self, messages: Sequence[Message]) -> str:
        """A conversation by the tokenizer's chat template, ready for the assistant's turn.

        Raises:
            InputError: without a tokenizer or a chat template, or if it refuses the messages.
        """
        from jinja2 import TemplateError

        tokenizer = self._named_tokenizer("its chat template cannot be seen from here")
        if not getattr(tokenizer, "chat_template", None):
            raise InputError(f"the tokenizer named for {self.name} has no chat template")
        turns = [{"role": role, "content": content} for role, content in messages]
        try:
            return str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False))
        except Exception as error:  # noqa: BLE001 - a template is a program, and raises what it likes
            why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
            raise InputError(f"the chat template of {self.name} refuses these messages: {cut(printable(why), SHOWN)}") from None

    def templated(self, text: str) -> Prompt:
        """A text that the chat template made; nothing is added before it.

        Raises:
            InputError: without a tokenizer; the server would put a second begin token before it.
        """
        self._named_tokenizer("whether it puts a second begin token before a rendered conversation is not known")
        return Prompt(text, self._encode(text, special=False), (), special=False)

    def chat(self, messages: Sequence[Message]) -> Prompt:
        """A conversation, ready for the assistant's turn; without a tokenizer the endpoint renders it, and nobody else knows how.

        Raises:
            InputError: if the tokenizer has no chat template, or it refuses the messages.
        """
        if self._tokenizer is None:
            return Prompt(None, None, tuple(messages), special=False)
        text = self.template(messages)
        return Prompt(text, self._encode(text, special=False), tuple(messages), special=False)

    def continuation(self, prompt: Prompt, text: str) -> ScoreAsk:
        """``text`` after ``prompt``, by lm-eval's rule: spaces at the prompt's end go to the text, both are tokenized together, and cut
        where the prompt's tokens end.

        Raises:
            InputError: if the endpoint renders the prompt, or nothing comes before the text and the endpoint tokenizes.
        """
        if prompt.text is None:
            raise InputError(
                f"{self.name} renders conversations itself, so no text can be scored after one; name its tokenizer with tokenizer=FOLDER"
            )
        bare = prompt.text.rstrip()
        spaces = prompt.text[len(bare) :]
        if self._tokenizer is None:
            if not bare:
                raise InputError(
                    f"nothing comes before the text to be scored, and whether {self.name} puts a begin token there is not known; "
                    "name its tokenizer with tokenizer=FOLDER"
                )
            return ScoreAsk(Prompt(bare, None, prompt.messages, prompt.special), spaces + text, None)
        whole = self._encode(bare + spaces + text, prompt.special)
        context = self._encode(bare, prompt.special)
        if not context:
            context = (self._begin(),)
            whole = (*context, *whole)
        return ScoreAsk(Prompt(bare, context, prompt.messages, prompt.special), spaces + text, whole[len(context) :])

    @property
    def renders(self) -> bool:
        """Whether conversations become text here, by the template of the tokenizer named; else the server applies its own."""
        return self._tokenizer is not None

    @property
    def rolling(self) -> Callable[[str], list[ScoreAsk]] | None:
        """Cuts a whole text into windows to be scored, every token predicted once; None without a tokenizer or a known context."""
        return None if self._tokenizer is None or self.context is None else self._rolling

    def _rolling(self, text: str) -> list[ScoreAsk]:
        # The last token of a window has to be sent as well, and servers want room for one more.
        size = max(1, (self.context or 0) - 2)
        tokens, begin = self._encode(text, special=False), self._begin()
        asks = []
        for start in range(0, len(tokens), size):
            some = tokens[start : start + size]
            before = (begin,) if start == 0 else tokens[max(0, start + len(some) - size - 1) : start]
            asks.append(ScoreAsk(Prompt(None, before), "", some))
        return asks

    def _named_tokenizer(self, why: str) -> Any:
        if self._tokenizer is None:
            raise InputError(f"{self.name} is an endpoint, and {why}; name its tokenizer with tokenizer=FOLDER")
        return self._tokenizer

    def _encode(self, text: str, special: bool) -> _Tokens:
        assert self._tokenizer is not None  # noqa: S101 - every caller has looked
        return encoded(self._tokenizer, text, special)

    def _begin(self) -> int:
        for name in ("bos_token_id", "eos_token_id"):
            token = getattr(self._tokenizer, name, None)
            if token is not None:
                return int(token)
        raise InputError(f"the tokenizer named for {self.name} has no begin or end token to put before a text")

    @cached_property
    def _tokenizer_identity(self) -> dict[str, str]:
        return {} if self._tokenizer is None else {"tokenizer": _content(self._tokenizer)}

    # -- abilities ---------------------------------------------------------------------------------------------------------

    def score(self, asks: Sequence[ScoreAsk]) -> Iterator[tuple[int, Scored | Failure]]:
        """Log-probabilities of texts, in the order in which they are ready.

        Raises:
            InputError: if the endpoint offers none, or refuses everything (key, model, address).
            AligntaxError: if it is gone. What was yielded before stands; the rest was not asked.
        """
        self._ensure()
        if self._cannot_score is not None:
            raise InputError(f"{self.name} at {self.url} gives no log-probabilities of given texts: {self._cannot_score}")
        for ask in asks:
            if ask.prompt.text is None and ask.prompt.tokens is None:
                raise InputError(f"{self.name} renders conversations itself, so nothing can be scored after one; name tokenizer=FOLDER")

        async def one(call: Call, ask: ScoreAsk) -> Scored:
            return (await self._scored(call, ask))[0]

        return self._answers(asks, one)

    def generate(self, asks: Sequence[GenerateAsk]) -> Iterator[tuple[int, Generated | Failure]]:
        """Answers, in the order in which they are ready.

        An answer that a provider's filter ended (``content_filter``) is a failure: its text is neither whole nor the model's own.
        An answer is cut at the first of all stops, also where the server was told of four at most. Its tokens are as the server counts
        them, stop included; where it does not, or text was cut off here, as the tokenizer does; else unknown.

        Raises:
            InputError: if the endpoint refuses everything (key, model, address).
            AligntaxError: if it is gone. What was yielded before stands; the rest was not asked.
        """
        self._ensure()
        return self._answers(asks, self._generated)

    def timed(self, ask: GenerateAsk) -> Timed | Failure:
        """One answer as it streams in, asked once: what would have to be tried again is a failure. The connection stands before the clock runs.

        The first token is the first text that arrives, reasoning included, since the tokens counted include it; where the whole text arrives at
        once, or reasoning is counted and not shown, it is not known when the first token was there. Tokens are as the server counts them, else as the tokenizer does; a count of 0 for
        an answer that has text is none. What was written is timed to its end, beyond stops that the server was not told of (it takes four).

        Raises:
            InputError: if the endpoint refuses everything (key, model, address).
        """
        self._ensure()

        async def work(emit: Callable[[Any], None]) -> None:
            async with self._wire.call(emit) as call:
                with suppress(NoAnswerError):  # whether it has a list of models or not, a connection is open now
                    await self._wire.once(call, "GET", f"{self.url}/models", None)
                try:
                    emit(await self._streamed(call, ask))
                except NoAnswerError as error:
                    if (stop := self._wire.stop(error, str(self._model))) is not None:
                        raise stop from None
                    emit(Failure(str(error)))

        (found,) = list(in_background(work))
        assert isinstance(found, Timed | Failure)  # noqa: S101 - nothing else is emitted
        return found

    def warm(self) -> None:
        """Nothing is loaded here."""

    def close(self) -> None:
        """Nothing is held between calls; a call that is not wanted any more ends when its iterator is closed."""

    def _ensure(self) -> None:
        if not self._connected:
            self.connect()

    # -- what is served ----------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Ask what is served: the address of the protocol, the model, its context, and whether it scores given texts.

        Raises:
            InputError: if nobody answers, no such model is served, the key is missing or refused, or the tokenizer is another model's.
        """

        async def work(emit: Callable[[Any], None]) -> None:
            async with self._wire.call(emit) as call:
                try:
                    await self._find(call)
                except NoAnswerError as error:
                    raise self._wire.stop(error, str(self._model)) or InputError(f"{self.url} does not answer: {error}") from None

        for notice in in_background(work):
            self._say(notice.text)
        self._connected = True

    async def _find(self, call: Call) -> None:
        served = await self._locate(call)
        if self._wire.given.scheme == "http" and self._wire.key()[1] and not is_local(self._wire.given.host):
            call.emit(Notice(f"the key goes to {self._wire.given.host} unencrypted; use https"))
        name = self._choose(list(dict.fromkeys(m["id"] for m in served))) if served is not None else self._model
        about = next((m for m in served or () if m["id"] == name), {})
        owner = about.get("owned_by")
        self._model = name
        self._neutral = _NEUTRAL.get(owner, {}) if isinstance(owner, str) else {}
        self._names_ids = owner in _NAMES_IDS
        limit = about.get("max_model_len")
        self.context = limit if isinstance(limit, int) and _is_count(limit) and limit > 0 else None
        self.name = cut(printable(str(name)), SHOWN)
        root = about.get("root")
        self.identity = {
            "endpoint": self.url,
            "model": name,
            **({"root": cut(root, SHOWN)} if isinstance(root, str) and root != name else {}),
            **self._tokenizer_identity,
        }
        scores, why, fingerprint = await self._probe(call)
        self.facts = {
            "endpoint": self.url,
            "server": cut(printable(owner), SHOWN) if isinstance(owner, str) else None,
            "listed": served is not None,
            "concurrency": self._wire.concurrency,
            "tokens": "by the tokenizer named" if self._tokenizer is not None else "by the server",
            "log_probabilities": scores,
            "log_probabilities_reason": why,
            "settings_sent": dict(self._neutral),
            "fingerprint": fingerprint,
        }

    async def _locate(self, call: Call) -> list[dict[str, Any]] | None:
        """The models served, and in ``self.url`` the address that has them; None where there is no list but a model was named."""
        given = str(self._wire.given).rstrip("/")
        versioned = re.search(r"/v\d+\w*$", given) is not None
        # /v1 first: what llama.cpp has beside it is another protocol under the same names.
        candidates = [given] if versioned else [f"{given}/v1", given]
        failed: list[NoAnswerError] = []
        for base in candidates:
            try:
                served = _models(await self._wire.request(call, "GET", f"{base}/models", attempts=2))
            except NoAnswerError as error:
                if error.down:
                    what = "nobody answers" if error.status is None else "the model is not ready"
                    raise InputError(f"{what} at {given}: {error}") from None
                failed.append(error)
                continue
            self._wire.url = base
            if base != given:
                call.emit(Notice(f"{given}: the OpenAI protocol is spoken at {base}"))
            return served
        for problem in failed:
            if problem.status in NO_ENTRY:
                raise problem
        if failed[0].again and failed[0].status is not None:
            raise InputError(f"{given} does not say what it serves: {failed[0]}; try again later")
        if versioned and self._model is not None and failed[0].status in (404, 405):
            call.emit(Notice(f"{given} lists no models; {printable(self._model)} is asked for unseen"))
            return None
        raise InputError(
            f"{given} does not speak the OpenAI protocol: GET {candidates[0]}/models: {failed[0]}; write http://host:port/v1"
        ) from None

    def _choose(self, served: list[str]) -> str:
        wanted = self._model
        shown = cut(", ".join(map(printable, served)), 5 * SHOWN)
        if wanted is None:
            if len(served) != 1:
                raise InputError(f"{self.url} serves {len(served)} models, name one of them: {shown}")
            return served[0]
        if wanted in served:
            return wanted
        near = get_close_matches(wanted, served, n=1)
        raise InputError(
            f"{self.url} serves no model {printable(repr(wanted))}; "
            + (f"did you mean {printable(near[0])}? " if near else "")
            + f"it serves: {shown}"
        )

    async def _probe(self, call: Call) -> tuple[bool | None, str | None, list[float] | None]:
        """Whether given texts can be scored, why not, and the log-probabilities of a fixed text: another model under the same address and
        name gives others.
        """
        ask = self.continuation(self.raw(_PROBE[0]), _PROBE[1])
        try:
            found, choice = await self._scored(call, ask, attempts=2)
        except NoAnswerError as error:
            if error.status in NO_ENTRY or (error.down and error.status is None):
                raise
            if error.again:
                return None, str(error), None
            self._cannot_score = str(error)
            return False, str(error), None
        self._cannot_score = None
        if self._tokenizer is not None:
            self._compare_tokenizers(ask, choice)
        return True, None, [round(max(x, -100.0), 4) for x in found.logprobs]

    def _compare_tokenizers(self, ask: ScoreAsk, choice: Mapping[str, Any]) -> None:
        """Another model's tokenizer would give numbers that look like scores: what the server read must be what was meant."""
        tokens = choice["logprobs"].get("tokens")
        if self._tokenizer is None or not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
            return
        ids = [*(ask.prompt.tokens or ()), *(ask.tokens or ())]
        read = "".join(tokens[: len(ids)])
        meant = str(self._tokenizer.decode(ids, skip_special_tokens=True))
        if "token_id:" not in read and not _letters(read).endswith(_letters(meant)):
            raise InputError(
                f"the tokenizer named is not that of {self.name}: it wrote {printable(repr(meant))[:SHOWN]}, "
                f"and the server read {printable(repr(read))[:SHOWN]}"
            )

    # -- asking ------------------------------------------------------------------------------------------------------------

    def _answers(
        self, asks: Sequence[_Ask], one: Callable[[Call, _Ask], Coroutine[Any, Any, _Answer]]
    ) -> Iterator[tuple[int, _Answer | Failure]]:
        async def work(emit: Callable[[Any], None]) -> None:
            todo = iter(enumerate(asks))
            async with self._wire.call(emit) as call:

                async def worker() -> None:
                    for at, ask in todo:
                        emit((at, await self._answer(call, ask, one)))

                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._wire.concurrency, len(asks))):
                        group.create_task(worker())

        for item in in_background(work):
            if isinstance(item, Notice):
                self._say(item.text)
            else:
                yield item

    async def _answer(self, call: Call, ask: _Ask, one: Callable[[Call, _Ask], Coroutine[Any, Any, _Answer]]) -> _Answer | Failure:
        try:
            found = await one(call, ask)
        except NoAnswerError as error:
            if (stop := self._wire.stop(error, str(self._model))) is not None:
                raise stop from None
            call.lost = call.lost + 1 if error.down or error.again else 0
            if call.lost >= _LOST_IN_A_ROW:
                raise AligntaxError(
                    f"{self.url} is gone: {call.lost} requests in a row got no answer, the last because {error}; "
                    "what was answered is kept, and the same command goes on from there"
                ) from None
            return Failure(str(error))
        call.lost = 0
        return found

    async def _scored(self, call: Call, ask: ScoreAsk, attempts: int | None = None) -> tuple[Scored, dict[str, Any]]:
        """The score, and what it was read from. Which ``max_tokens`` the server takes with ``echo`` is found out once."""
        first: NoAnswerError | None = None
        for least in (0, 1) if self._least is None else (self._least,):
            try:
                found = await self._echoed(call, ask, least, attempts)
            except NoAnswerError as error:
                if error.again or error.status in STOPPING:
                    raise
                first = first or error
                continue
            self._least = least
            return found
        assert first is not None  # noqa: S101 - the loop has run
        raise first

    async def _echoed(self, call: Call, ask: ScoreAsk, least: int, attempts: int | None) -> tuple[Scored, dict[str, Any]]:
        before, own = ask.prompt.tokens, ask.tokens
        by_ids = before is not None and own is not None
        whole = f"{ask.prompt.text}{ask.text}"
        if (by_ids and not own) or not (ask.text or own):
            raise NoAnswerError("the text to be scored has no tokens")
        if not (before if by_ids else ask.prompt.text):
            raise NoAnswerError("nothing comes before the text to be scored, so its first token has no probability")
        body = {
            "model": self._model,
            "prompt": [*(before or ()), *(own or ())] if by_ids else whole,
            "echo": True,
            "logprobs": min(ask.top, self._most) or 1,
            "max_tokens": least,
            "temperature": 0,
            **self._neutral,
            **({"return_tokens_as_token_ids": True} if by_ids and self._names_ids and self._connected else {}),
        }
        url = f"{self.url}/completions"
        try:
            answer = await self._wire.request(call, "POST", url, body, attempts)
        except NoAnswerError as error:
            if error.status not in (400, 422) or ask.top <= _FEW or self._most <= _FEW:
                raise
            answer = await self._wire.request(call, "POST", url, {**body, "logprobs": _FEW}, attempts)
            self._most = _FEW  # only now: it was the number that the server did not like
        choice = _choice(answer)
        if by_ids:
            return _by_ids(choice, _used(answer, "prompt_tokens"), len(before or ()), len(own or ()), least, ask.top > 0), choice
        return _by_offsets(choice, whole, len(ask.prompt.text or ""), least), choice

    def _settings(self, ask: GenerateAsk) -> dict[str, Any]:
        stops = [s for s in ask.stops if s]
        return {
            "model": self._model,
            "temperature": ask.temperature,
            "top_p": ask.top_p,
            "seed": ask.seed,
            **({"stop": stops[:_MAX_STOPS]} if stops else {}),
            **self._neutral,
        }

    async def _streamed(self, call: Call, ask: GenerateAsk) -> Timed:
        """An answer as events. What the server does not know of the request is left out, and it is asked anew, with a new clock."""
        body, prompt = {**self._settings(ask), "stream": True}, ask.prompt
        spoken = prompt.text is None and prompt.tokens is None
        if spoken:
            body["messages"] = [{"role": role, "content": content} for role, content in prompt.messages]
        else:
            body["prompt"] = prompt.text if prompt.tokens is None else list(prompt.tokens)
        url = f"{self.url}/chat/completions" if spoken else f"{self.url}/completions"
        for _ in range(3):
            limit = self._limit_name if spoken else "max_tokens"
            usage = {"stream_options": {"include_usage": True}} if self._usage_streams else {}
            try:
                stream = await self._events(call, url, {**body, limit: ask.max_tokens, **usage}, spoken)
            except NoAnswerError as error:
                if error.status in (400, 422) and self._usage_streams and "stream_options" in str(error):
                    self._usage_streams = False
                elif error.status == 400 and spoken and limit == "max_tokens" and "max_completion_tokens" in str(error):
                    self._limit_name = "max_completion_tokens"
                else:
                    raise
                continue
            return self._clocked(stream)
        raise AssertionError("unreachable")

    def _clocked(self, stream: _Stream) -> Timed:
        text, reason = _written({"text": stream.text, "finish_reason": stream.reason}, spoken=False)
        tokens = self._count({"usage": stream.usage}, text)
        if tokens == 0 and stream.arrivals:
            tokens = None
        # The end token may be counted as well, and has no text.
        at_once = stream.arrivals == 1 and (tokens is None or tokens > 2)
        details = stream.usage.get("completion_tokens_details") if isinstance(stream.usage, dict) else None
        unseen = not stream.thoughts and isinstance(details, dict) and bool(details.get("reasoning_tokens"))
        return Timed(text, reason, None if at_once or unseen else stream.first, stream.total, tokens)

    async def _events(self, call: Call, url: str, body: Mapping[str, Any], spoken: bool) -> _Stream:
        """Server-sent events (the lines ``data: JSON`` and at last ``data: [DONE]``), read up to a limit."""
        content = json.dumps(body).encode()
        headers = {"Accept": "text/event-stream"}
        with self._wire.faults():
            async with asyncio.timeout(self._wire.timeout):
                stream = _Stream(spoken)
                async with self._wire.answer(call, "POST", url, content, headers) as response:
                    data = bytearray()
                    events = response.is_success and response.headers.get("Content-Type", "").split(";")[0] == "text/event-stream"
                    async for chunk in body_of(response):
                        data += chunk
                        if events and stream.read(data):
                            break
                    if not events:
                        self._wire.judged(response, bytes(data))
                        kind = self._wire.clean(response.headers.get("Content-Type", "")) or "nothing named"
                        raise NoAnswerError(f"it does not stream: events were asked for, and {kind} came")
        if stream.error is not None:
            raise NoAnswerError(f"the stream ended with an error: {self._wire.clean(stream.error)}", again=True)
        if stream.total == 0:
            raise NoAnswerError("the stream was cut off before the answer ended", again=True)
        return stream

    async def _generated(self, call: Call, ask: GenerateAsk) -> Generated:
        prompt = ask.prompt
        stops = [s for s in ask.stops if s]
        body = self._settings(ask)
        if prompt.tokens is not None and self._names_ids:
            body["return_token_ids"] = True
        spoken = prompt.text is None and prompt.tokens is None
        if spoken:
            body["messages"] = [{"role": role, "content": content} for role, content in prompt.messages]
            answer = await self._spoken(call, body, ask.max_tokens)
        else:
            body["prompt"] = prompt.text if prompt.tokens is None else list(prompt.tokens)
            answer = await self._wire.request(call, "POST", f"{self.url}/completions", {**body, "max_tokens": ask.max_tokens})
        choice = _choice(answer)
        text, reason = _written(choice, spoken)
        ends = [at for s in stops if (at := text.find(s)) >= 0]
        if not ends:
            return Generated(text, reason, self._count(answer, text), _drawn(choice) if prompt.tokens is not None else ())
        end = min(ends)
        only_stop = any(text[end:] == s for s in stops)  # the server counted what it wrote; nothing but the stop goes
        return Generated(text[:end], "stop", self._count(answer if only_stop else {}, text[:end]))

    async def _spoken(self, call: Call, body: dict[str, Any], limit: int) -> dict[str, Any]:
        """A chat completion. Newer models of OpenAI know the limit by another name only, and say so."""
        url, sent = f"{self.url}/chat/completions", self._limit_name
        try:
            return await self._wire.request(call, "POST", url, {**body, sent: limit})
        except NoAnswerError as error:
            if error.status != 400 or sent != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
        self._limit_name = "max_completion_tokens"
        return await self._wire.request(call, "POST", url, {**body, self._limit_name: limit})

    def _count(self, answer: Mapping[str, Any], text: str) -> int | None:
        told = _used(answer, "completion_tokens")
        return told if told is not None or self._tokenizer is None else len(self._encode(text, special=False))


# -- a stream ------------------------------------------------------------------------------------------------------------------


class _Stream:
    """An answer that comes in events; the clock runs from its making.

    Attributes:
        text: so far. arrivals: how often text came, reasoning included. thoughts: events of reasoning. first: seconds to the first text.
        total: seconds to the event that says why the answer ended, 0 before. reason: that. usage: the server's count. error: what it said.
    """

    def __init__(self, spoken: bool) -> None:
        self.spoken = spoken
        self.text, self.arrivals, self.thoughts, self.total = "", 0, 0, 0.0
        self.first: float | None = None
        self.reason: Any = None
        self.usage: Any = None
        self.error: str | None = None
        self._seen = 0
        self._latest = -1.0
        self._begun = time.perf_counter()

    def read(self, data: bytearray) -> bool:
        """Take the whole lines off ``data``; whether the stream has ended."""
        now = time.perf_counter() - self._begun
        while (end := data.find(b"\n", self._seen)) >= 0:
            line = bytes(data[:end]).strip()
            del data[: end + 1]
            self._seen = 0
            if line.startswith(b"data:") and self._event(line[5:].strip(), now):
                return True
        self._seen = len(data)
        return False

    def _event(self, line: bytes, now: float) -> bool:
        if line == b"[DONE]":
            return True
        try:
            body = json.loads(line)
        except (ValueError, RecursionError):
            raise NoAnswerError("an event of the stream is not JSON") from None
        if not isinstance(body, dict):
            raise NoAnswerError("an event of the stream is JSON of the wrong shape: not an object")
        if body.get("error"):
            self.error = message_of(body, line)
            return True
        self.usage = body.get("usage") or self.usage
        for choice in body.get("choices") or ():
            self._take(choice, now)
        return False

    def _take(self, choice: Any, now: float) -> None:
        if not isinstance(choice, dict):
            raise NoAnswerError("an event of the stream is JSON of the wrong shape: a choice is no object")
        part = choice.get("delta") if self.spoken else choice
        part = part if isinstance(part, dict) else {}
        piece = part.get("content" if self.spoken else "text")
        thought = part.get("reasoning_content") or part.get("reasoning")
        if (isinstance(piece, str) and piece) or (isinstance(thought, str) and thought):
            self.arrivals += now != self._latest
            self._latest = now
            self.thoughts += isinstance(thought, str) and thought != ""
            self.first = now if self.first is None else self.first
            self.text += piece if isinstance(piece, str) else ""
        if choice.get("finish_reason") is not None:
            self.reason, self.total = choice["finish_reason"], now


# -- reading answers -----------------------------------------------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _letters(text: str) -> str:
    """What every tokenizer keeps: letters and digits of ASCII, without case, and without the marks that some put for spaces."""
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _content(tokenizer: Any) -> str:
    """Hash of all in a tokenizer that moves a token; not of the padding and truncation that its last user left set."""
    inner = getattr(tokenizer, "backend_tokenizer", None)
    if inner is not None:
        core = {k: v for k, v in json.loads(inner.to_str()).items() if k not in ("padding", "truncation")}
    else:
        core = {"kind": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    named = {
        name: str(getattr(tokenizer, name, None)) for name in ("bos_token", "eos_token", "chat_template", "add_bos_token", "add_eos_token")
    }
    return digest([core, named])


def _models(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    data = body.get("data")
    found = [m for m in data if isinstance(m, dict) and isinstance(m.get("id"), str) and m["id"]] if isinstance(data, list) else []
    if not found:
        raise NoAnswerError("there is no list of models in the answer")
    return found


def _choice(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise NoAnswerError("the answer is JSON of the wrong shape: there is no choice in it")
    found: dict[str, Any] = choices[0]
    return found


def _used(body: Mapping[str, Any], what: str) -> int | None:
    usage = body.get("usage")
    told = usage.get(what) if isinstance(usage, dict) else None
    return int(told) if _is_count(told) and told < 2**31 else None  # type: ignore[arg-type, operator]


def _written(choice: Mapping[str, Any], spoken: bool) -> tuple[str, Any]:
    """(text, ``stop`` or ``length``) of an answer."""
    reason = choice.get("finish_reason")
    if reason == "content_filter":
        raise NoAnswerError("the provider's filter ended the answer (finish_reason content_filter)")
    if reason not in ("stop", "length"):
        raise NoAnswerError(f"the answer did not end as answers do: finish_reason is {printable(repr(reason)[:SHOWN])}")
    message = choice.get("message") if spoken else choice
    text = message.get("content" if spoken else "text") if isinstance(message, dict) else None
    if text is None and spoken and reason == "length":
        text = ""  # all was spent before the answer began: on reasoning, which is not the answer
    if not isinstance(text, str):
        raise NoAnswerError("the answer is JSON of the wrong shape: there is no text in it")
    # Half of a surrogate pair is no character, and cannot be written to a file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), reason


def _drawn(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens of an answer as they were drawn; none where the server does not tell."""
    told = choice.get("token_ids")
    return tuple(told) if isinstance(told, list) and all(_is_count(t) for t in told) else ()


def _columns(choice: Mapping[str, Any], *names: str) -> list[list[Any]]:
    told = choice.get("logprobs")
    if not isinstance(told, dict):
        raise NoAnswerError("no log-probabilities came back (echo with logprobs is not offered)")
    found = [told.get(name) for name in names]
    for name, column in zip(names, found, strict=True):
        if not isinstance(column, list):
            raise NoAnswerError(f"the log-probabilities that came back lack {name}")
    columns = [column for column in found if isinstance(column, list)]
    if len({len(column) for column in columns}) != 1:
        raise NoAnswerError(f"the lists of {', '.join(names)} that came back differ in length")
    return columns


def _by_ids(choice: Mapping[str, Any], used: int | None, before: int, own: int, least: int, alternatives: bool = False) -> Scored:
    """The last ``own`` tokens of those that were sent; ``least`` more may have been written."""
    values, tops = _columns(choice, "token_logprobs", "top_logprobs")
    sent = before + own
    if used is not None and used != sent:
        raise NoAnswerError(f"{sent} tokens were sent, and the server read {used}")
    if not sent <= len(values) <= sent + least:
        raise NoAnswerError(f"{len(values)} log-probabilities came back for {sent} tokens")
    return _rows(values[before:sent], tops[before:sent], alternatives)


def _by_offsets(choice: Mapping[str, Any], whole: str, boundary: int, least: int) -> Scored:
    """The tokens of ``whole`` from the first one on that reaches past ``boundary``; ``least`` more may have been written."""
    tokens, values, tops, offsets = _columns(choice, "tokens", "token_logprobs", "top_logprobs", "text_offset")
    text = choice.get("text")
    if not isinstance(text, str) or not text.startswith(whole):
        raise NoAnswerError("the text that came back is not the one that was sent (echo is not offered)")
    starts = _starts(tokens, offsets, whole, len(text))
    inside = bisect_left(starts, len(whole))
    if len(starts) > inside + least:
        raise NoAnswerError(f"{len(starts)} log-probabilities came back for {inside} tokens")
    for at in range(inside):
        if starts[at] >= boundary or _end(tokens[at], starts, at, whole) > boundary:
            break
    else:
        raise NoAnswerError("no token that came back reaches into the text to be scored")
    for k in range(at, inside):
        if not _stands(tokens[k], whole, starts[k]):
            raise NoAnswerError("the offsets that came back do not fit the text: other words stand there; name tokenizer=FOLDER")
    return _rows(values[at:inside], tops[at:inside])


def _starts(tokens: list[Any], offsets: list[Any], whole: str, limit: int) -> list[int]:
    """Where each token begins in ``whole``.

    vLLM adds up the lengths of tokens as it writes them, so that a begin token moves all others; then what the tokens spell is
    searched for the text. Other servers tell places in the text itself.
    """
    if not all(isinstance(t, str) for t in tokens) or not all(_is_count(o) for o in offsets):
        raise NoAnswerError("the tokens or offsets that came back are not texts and counts")
    steps = [b - a for a, b in pairwise(offsets)]
    if any(step < 0 for step in steps):
        raise NoAnswerError("the offsets that came back do not fit the text: they go backwards")
    if steps and offsets[0] == 0 and all(step == len(t) for step, t in zip(steps, tokens, strict=False)):
        spelled = "".join(tokens)
        for shift in (0, len(tokens[0])):
            if spelled.startswith(whole, shift):
                return [o - shift for o in offsets]
        raise NoAnswerError("the tokens that came back do not spell the text that was sent; name tokenizer=FOLDER")
    if offsets and offsets[-1] > limit:
        raise NoAnswerError("the offsets that came back do not fit the text: they go past its end")
    return offsets


def _end(token: str, starts: list[int], at: int, whole: str) -> int:
    """Where a token ends. Spaces before the next one are its own only if it has them: some tokenizers have spaces in no token."""
    following = starts[at + 1] if at + 1 < len(starts) else len(whole)
    span = whole[max(0, starts[at]) : max(0, min(following, len(whole)))]
    if token and not token[-1].isspace():
        span = span.rstrip() or span
    return starts[at] + len(span) if starts[at] >= 0 else 0


def _stands(token: str, whole: str, at: int) -> bool:
    """Whether a token is where its offset says; parts of characters and special tokens cannot be seen in a text."""
    core = token.strip()
    if not core or "\ufffd" in core or core.startswith("bytes:") or re.fullmatch(r"<.*>|\[.*\]", core, re.S):
        return True
    there = whole[at : at + len(token) + 64].lstrip()[: len(core)]
    return there.casefold() == core.casefold()


def _rows(values: list[Any], tops: list[Any], alternatives: bool = False) -> Scored:
    logprobs, greedy = [], []
    told: list[Mapping[int, float]] = []
    for value, top in zip(values, tops, strict=True):
        found = _logprob(value)
        if not isinstance(top, dict) or not top:
            raise NoAnswerError("no alternatives came back with a log-probability, so whether it is the highest is not known")
        logprobs.append(found)
        others = {str(token): _logprob(p) for token, p in top.items()}
        greedy.append(found >= max(others.values()))
        # Only by id: a spelling may be that of several tokens, of half a character for one.
        if alternatives and all(re.fullmatch(rf"{_ID}\d{{1,9}}", token) for token in others):
            told.append({int(token.removeprefix(_ID)): p for token, p in others.items()})
    return Scored(tuple(logprobs), tuple(greedy), tuple(told) if len(told) == len(logprobs) else ())


def _logprob(value: Any) -> float:
    if value is None:
        raise NoAnswerError("a log-probability was dropped: null stands in its place")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NoAnswerError(f"a log-probability that came back is no number: {printable(repr(value)[:60])}")
    try:
        found = float(value)
    except OverflowError:
        found = math.nan
    if math.isnan(found):
        raise NoAnswerError("a log-probability that came back is no number")
    if found > _NOISE:
        raise NoAnswerError(f"a log-probability that came back is positive: {found:.4g}")
    return min(found, 0.0)
