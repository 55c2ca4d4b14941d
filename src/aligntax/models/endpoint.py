"""A model behind the OpenAI protocol (vLLM, llama.cpp, ``aligntax lab serve``, providers). Imports no torch.

What is scored is asked for with ``echo`` and ``logprobs`` of ``/v1/completions``; servers that only know ``prompt_logprobs`` cannot score.
Whatever a server sends is hostile until it was checked: it is read up to a limit, and never shown as it is.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import queue
import random
import re
import ssl
import threading
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from email.utils import parsedate_to_datetime
from functools import cache, cached_property
from itertools import pairwise
from typing import Any, TypeVar

import httpx2

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.ids import digest
from aligntax.core.words import cut, printable
from aligntax.models.encoding import encoded
from aligntax.models.timing import Timed

MAX_BODY = 64 * 2**20
"""Bytes of an answer that are read."""

OWN_VARIABLE, OPENAI_VARIABLE = "ALIGNTAX_API_KEY", "OPENAI_API_KEY"
_OPENAI_HOST = "api.openai.com"

_AGAIN = frozenset({408, 409, 425, 429})
_GATEWAY = frozenset({502, 503, 504})  # somebody answers, but not the model
_NO_ENTRY = frozenset({401, 402, 403})
_STOPPING = _NO_ENTRY | {404, 405}  # no other request would fare better
_READS_TRANSIENT = re.compile(
    r"overload|rate.?limit|time.?out|timed out|temporar|try again|retry|unavailable|capacity|too many requests", re.I
)
_FIRST_WAIT, _LONGEST_JITTER, _LONGEST_WAIT = 0.5, 30.0, 60.0
_LOST_IN_A_ROW = 5
_CONNECT_SECONDS = 10.0
_FAREWELL = 5.0  # seconds that a cancelled call may take to end
_MAX_STOPS = 4  # of OpenAI's protocol
_NOISE = 1e-4  # a log-probability above 0 by rounding
_SHOWN = 200

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

_JSON = {"Content-Type": "application/json"}
_PROBE = (
    "question: what is 1 + 2? answer:",
    " 3. question: what is 4 + 5? answer: 9. question: what is 9 + 2? answer: 11. question: what is 6 + 7? answer: 12. "
    "question: what is 3 + 3? answer: 7. question: what is 8 + 1? answer: 10. question: what is 5 + 5? answer: 11.",
)
"""A prompt and a text: whether texts can be scored, by the tokens meant, and by which model."""

_Tokens = tuple[int, ...]
_Ask = TypeVar("_Ask", ScoreAsk, GenerateAsk)
_Answer = TypeVar("_Answer", Scored, Generated)


class _NoAnswerError(Exception):
    """One request has no answer.

    Attributes:
        status: of HTTP, where there was one.
        again: the next attempt may fare better; ``after``: in so many seconds, as the server says.
        down: nobody was there to answer.
    """

    def __init__(self, why: str, *, status: int | None = None, again: bool = False, after: float | None = None, down: bool = False) -> None:
        super().__init__(why)
        self.status, self.again, self.after, self.down = status, again, after, down


@dataclass
class _Call:
    """One call of ``connect``, ``score`` or ``generate``: its connections, its results, and how many asks in a row were lost."""

    client: httpx2.AsyncClient
    emit: Callable[[Any], None]
    lost: int = 0
    told: bool = False


@dataclass(frozen=True)
class _Notice:
    """A sentence for people, on its way out of the thread that asks."""

    text: str


class Endpoint:
    """A model behind the OpenAI protocol; satisfies ``Model``, ``Generates`` and ``ScoresText``.

    ``connect`` finds out what is served, and fills in what only the server knows; the first question does it where nobody did.

    A key is read from the environment when it is needed, and sent to the endpoint only: that of ``key_env`` if one is named, else
    ``ALIGNTAX_API_KEY``, else, for https://api.openai.com alone, ``OPENAI_API_KEY``. It is never kept, shown or recorded.

    Texts are scored by their token ids where a tokenizer is given, else by the offsets that the server tells. Answers come from
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
        if concurrency < 1 or attempts < 1 or not 0 < timeout < math.inf:
            raise InputError("concurrency and attempts are at least 1, and timeout is a number of seconds above 0")
        self._given = _address(url)
        self.url = str(self._given).rstrip("/")
        self._key_env = key_env
        self._key()
        self._model, self._tokenizer = model, tokenizer
        self._concurrency, self._timeout, self._attempts = concurrency, timeout, attempts
        self._say, self._wait = say or (lambda _: None), wait
        self._random = random.Random()  # noqa: S311 - spreads attempts over time; every process has to draw differently
        self._connected = False
        self._least: int | None = None
        self._cannot_score: str | None = None
        self._limit_name = "max_tokens"
        self._usage_streams = True
        self._neutral: Mapping[str, float] = {}
        self._names_ids = False
        self._most = 1000
        self.name: str = printable(model or self._given.host)
        self.identity: Mapping[str, Any] = {"endpoint": self.url, "model": model, **self._tokenizer_identity}
        self.facts: Mapping[str, Any] = {"endpoint": self.url, "concurrency": concurrency}
        self.context: int | None = None

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
            raise InputError(f"the chat template of {self.name} refuses these messages: {cut(printable(why), _SHOWN)}") from None

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

        async def one(call: _Call, ask: ScoreAsk) -> Scored:
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
            async with self._client() as client:
                call = _Call(client, emit)
                with suppress(_NoAnswerError):  # whether it has a list of models or not, a connection is open now
                    await self._once(call, "GET", f"{self.url}/models", None)
                try:
                    emit(await self._streamed(call, ask))
                except _NoAnswerError as error:
                    if (stop := self._stop(error)) is not None:
                        raise stop from None
                    emit(Failure(str(error)))

        (found,) = list(_in_background(work))
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
            async with self._client() as client:
                call = _Call(client, emit)
                try:
                    await self._find(call)
                except _NoAnswerError as error:
                    raise self._stop(error) or InputError(f"{self.url} does not answer: {error}") from None

        for notice in _in_background(work):
            self._say(notice.text)
        self._connected = True

    async def _find(self, call: _Call) -> None:
        served = await self._locate(call)
        if self._given.scheme == "http" and self._key()[1] and not _is_local(self._given.host):
            call.emit(_Notice(f"the key goes to {self._given.host} unencrypted; use https"))
        name = self._choose(list(dict.fromkeys(m["id"] for m in served))) if served is not None else self._model
        about = next((m for m in served or () if m["id"] == name), {})
        owner = about.get("owned_by")
        self._model = name
        self._neutral = _NEUTRAL.get(owner, {}) if isinstance(owner, str) else {}
        self._names_ids = owner in _NAMES_IDS
        limit = about.get("max_model_len")
        self.context = limit if isinstance(limit, int) and _is_count(limit) and limit > 0 else None
        self.name = cut(printable(str(name)), _SHOWN)
        root = about.get("root")
        self.identity = {
            "endpoint": self.url,
            "model": name,
            **({"root": cut(root, _SHOWN)} if isinstance(root, str) and root != name else {}),
            **self._tokenizer_identity,
        }
        scores, why, fingerprint = await self._probe(call)
        self.facts = {
            "endpoint": self.url,
            "server": cut(printable(owner), _SHOWN) if isinstance(owner, str) else None,
            "listed": served is not None,
            "concurrency": self._concurrency,
            "tokens": "by the tokenizer named" if self._tokenizer is not None else "by the server",
            "log_probabilities": scores,
            "log_probabilities_reason": why,
            "settings_sent": dict(self._neutral),
            "fingerprint": fingerprint,
        }

    async def _locate(self, call: _Call) -> list[dict[str, Any]] | None:
        """The models served, and in ``self.url`` the address that has them; None where there is no list but a model was named."""
        given = str(self._given).rstrip("/")
        versioned = re.search(r"/v\d+\w*$", given) is not None
        # /v1 first: what llama.cpp has beside it is another protocol under the same names.
        candidates = [given] if versioned else [f"{given}/v1", given]
        failed: list[_NoAnswerError] = []
        for base in candidates:
            try:
                served = _models(await self._request(call, "GET", f"{base}/models", attempts=2))
            except _NoAnswerError as error:
                if error.down:
                    what = "nobody answers" if error.status is None else "the model is not ready"
                    raise InputError(f"{what} at {given}: {error}") from None
                failed.append(error)
                continue
            self.url = base
            if base != given:
                call.emit(_Notice(f"{given}: the OpenAI protocol is spoken at {base}"))
            return served
        for problem in failed:
            if problem.status in _NO_ENTRY:
                raise problem
        if failed[0].again and failed[0].status is not None:
            raise InputError(f"{given} does not say what it serves: {failed[0]}; try again later")
        if versioned and self._model is not None and failed[0].status in (404, 405):
            call.emit(_Notice(f"{given} lists no models; {printable(self._model)} is asked for unseen"))
            return None
        raise InputError(
            f"{given} does not speak the OpenAI protocol: GET {candidates[0]}/models: {failed[0]}; write http://host:port/v1"
        ) from None

    def _choose(self, served: list[str]) -> str:
        wanted = self._model
        shown = cut(", ".join(map(printable, served)), 5 * _SHOWN)
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

    async def _probe(self, call: _Call) -> tuple[bool | None, str | None, list[float] | None]:
        """Whether given texts can be scored, why not, and the log-probabilities of a fixed text: another model under the same address and
        name gives others.
        """
        ask = self.continuation(self.raw(_PROBE[0]), _PROBE[1])
        try:
            found, choice = await self._scored(call, ask, attempts=2)
        except _NoAnswerError as error:
            if error.status in _NO_ENTRY or (error.down and error.status is None):
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
                f"the tokenizer named is not that of {self.name}: it wrote {printable(repr(meant))[:_SHOWN]}, "
                f"and the server read {printable(repr(read))[:_SHOWN]}"
            )

    # -- asking ------------------------------------------------------------------------------------------------------------

    def _answers(
        self, asks: Sequence[_Ask], one: Callable[[_Call, _Ask], Coroutine[Any, Any, _Answer]]
    ) -> Iterator[tuple[int, _Answer | Failure]]:
        async def work(emit: Callable[[Any], None]) -> None:
            todo = iter(enumerate(asks))
            async with self._client() as client:
                call = _Call(client, emit)

                async def worker() -> None:
                    for at, ask in todo:
                        emit((at, await self._answer(call, ask, one)))

                try:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(min(self._concurrency, len(asks))):
                            group.create_task(worker())
                except BaseExceptionGroup as errors:
                    raise errors.exceptions[0] from None

        for item in _in_background(work):
            if isinstance(item, _Notice):
                self._say(item.text)
            else:
                yield item

    async def _answer(self, call: _Call, ask: _Ask, one: Callable[[_Call, _Ask], Coroutine[Any, Any, _Answer]]) -> _Answer | Failure:
        try:
            found = await one(call, ask)
        except _NoAnswerError as error:
            if (stop := self._stop(error)) is not None:
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

    async def _scored(self, call: _Call, ask: ScoreAsk, attempts: int | None = None) -> tuple[Scored, dict[str, Any]]:
        """The score, and what it was read from. Which ``max_tokens`` the server takes with ``echo`` is found out once."""
        first: _NoAnswerError | None = None
        for least in (0, 1) if self._least is None else (self._least,):
            try:
                found = await self._echoed(call, ask, least, attempts)
            except _NoAnswerError as error:
                if error.again or error.status in _STOPPING:
                    raise
                first = first or error
                continue
            self._least = least
            return found
        assert first is not None  # noqa: S101 - the loop has run
        raise first

    async def _echoed(self, call: _Call, ask: ScoreAsk, least: int, attempts: int | None) -> tuple[Scored, dict[str, Any]]:
        before, own = ask.prompt.tokens, ask.tokens
        by_ids = before is not None and own is not None
        whole = f"{ask.prompt.text}{ask.text}"
        if (by_ids and not own) or not (ask.text or own):
            raise _NoAnswerError("the text to be scored has no tokens")
        if not (before if by_ids else ask.prompt.text):
            raise _NoAnswerError("nothing comes before the text to be scored, so its first token has no probability")
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
            answer = await self._request(call, "POST", url, body, attempts)
        except _NoAnswerError as error:
            if error.status not in (400, 422) or ask.top <= _FEW or self._most <= _FEW:
                raise
            answer = await self._request(call, "POST", url, {**body, "logprobs": _FEW}, attempts)
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

    async def _streamed(self, call: _Call, ask: GenerateAsk) -> Timed:
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
            except _NoAnswerError as error:
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

    async def _events(self, call: _Call, url: str, body: Mapping[str, Any], spoken: bool) -> _Stream:
        """Server-sent events (the lines ``data: JSON`` and at last ``data: [DONE]``), read up to a limit."""
        content = json.dumps(body).encode()
        headers = {**_JSON, "Accept": "text/event-stream"}
        with self._faults():
            async with asyncio.timeout(self._timeout):
                stream = _Stream(spoken)
                async with call.client.stream("POST", url, content=content, headers=headers) as response:
                    size = 0
                    data = bytearray()
                    events = response.is_success and response.headers.get("Content-Type", "").split(";")[0] == "text/event-stream"
                    async for chunk in response.aiter_bytes():
                        data += chunk
                        size += len(chunk)
                        if size > MAX_BODY:
                            raise _NoAnswerError(f"the answer is longer than {MAX_BODY:,} bytes")
                        if events and stream.read(data):
                            break
                    if not events:
                        self._judged(response, bytes(data))
                        kind = self._clean(response.headers.get("Content-Type", "")) or "nothing named"
                        raise _NoAnswerError(f"it does not stream: events were asked for, and {kind} came")
        if stream.error is not None:
            raise _NoAnswerError(f"the stream ended with an error: {self._clean(stream.error)}", again=True)
        if stream.total == 0:
            raise _NoAnswerError("the stream was cut off before the answer ended", again=True)
        return stream

    async def _generated(self, call: _Call, ask: GenerateAsk) -> Generated:
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
            answer = await self._request(call, "POST", f"{self.url}/completions", {**body, "max_tokens": ask.max_tokens})
        choice = _choice(answer)
        text, reason = _written(choice, spoken)
        ends = [at for s in stops if (at := text.find(s)) >= 0]
        if not ends:
            return Generated(text, reason, self._count(answer, text), _drawn(choice) if prompt.tokens is not None else ())
        end = min(ends)
        only_stop = any(text[end:] == s for s in stops)  # the server counted what it wrote; nothing but the stop goes
        return Generated(text[:end], "stop", self._count(answer if only_stop else {}, text[:end]))

    async def _spoken(self, call: _Call, body: dict[str, Any], limit: int) -> dict[str, Any]:
        """A chat completion. Newer models of OpenAI know the limit by another name only, and say so."""
        url, sent = f"{self.url}/chat/completions", self._limit_name
        try:
            return await self._request(call, "POST", url, {**body, sent: limit})
        except _NoAnswerError as error:
            if error.status != 400 or sent != "max_tokens" or "max_completion_tokens" not in str(error):
                raise
        self._limit_name = "max_completion_tokens"
        return await self._request(call, "POST", url, {**body, self._limit_name: limit})

    def _count(self, answer: Mapping[str, Any], text: str) -> int | None:
        told = _used(answer, "completion_tokens")
        return told if told is not None or self._tokenizer is None else len(self._encode(text, special=False))

    # -- the wire ----------------------------------------------------------------------------------------------------------

    def _client(self) -> httpx2.AsyncClient:
        key = self._key()[1]
        return httpx2.AsyncClient(
            headers={
                "User-Agent": "aligntax",
                "Accept": "application/json",
                "Accept-Encoding": "identity",  # a limit on bytes read is a limit on bytes held
                **({"Authorization": f"Bearer {key}"} if key else {}),
            },
            verify=_trust(),
            follow_redirects=False,
            trust_env=not _is_local(self._given.host),  # proxies are for hosts elsewhere
            timeout=httpx2.Timeout(None, connect=min(_CONNECT_SECONDS, self._timeout)),
            limits=httpx2.Limits(max_connections=self._concurrency),
        )

    async def _request(
        self, call: _Call, method: str, url: str, body: Mapping[str, Any] | None = None, attempts: int | None = None
    ) -> dict[str, Any]:
        """The JSON object that answers, after as many attempts as it takes and are allowed."""
        last = min(attempts or self._attempts, self._attempts) - 1
        for attempt in range(last + 1):
            try:
                return await self._once(call, method, url, body)
            except _NoAnswerError as error:
                if not error.again or attempt == last:
                    raise
                pause = self._pause(attempt, error.after)
                if not call.told:
                    call.told = True
                    call.emit(_Notice(f"{self.url}: {error}; it is tried up to {last + 1} times, the next in {pause:.1f} s"))
            await self._wait(pause)
        raise AssertionError("unreachable")

    def _pause(self, attempt: int, after: float | None) -> float:
        """Seconds: exponential with full jitter; where the server says when, then a little later, so that not all come at once."""
        jitter = self._random.uniform(0, min(_LONGEST_JITTER, _FIRST_WAIT * 2**attempt))
        return jitter if after is None else min(_LONGEST_WAIT, after + jitter)

    async def _once(self, call: _Call, method: str, url: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        # Encoded here: half of a surrogate pair, which a text may hold, is sent as an escape.
        content = None if body is None else json.dumps(body).encode()
        with self._faults():
            async with asyncio.timeout(self._timeout), call.client.stream(method, url, content=content, headers=_JSON) as response:
                data = bytearray()
                async for chunk in response.aiter_bytes():
                    data += chunk
                    if len(data) > MAX_BODY:
                        raise _NoAnswerError(f"the answer is longer than {MAX_BODY:,} bytes")
                return self._judged(response, bytes(data))

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What can go wrong between here and a server, in words."""
        try:
            yield
        except TimeoutError:
            raise _NoAnswerError(f"there was no answer within {self._timeout:g} s", again=True, down=True) from None
        except httpx2.TransportError as error:
            why = self._clean(str(error)) or "no reason given"
            raise _NoAnswerError(f"the connection failed ({type(error).__name__}: {why})", again=True, down=True) from None
        except httpx2.DecodingError:
            raise _NoAnswerError("the answer cannot be decompressed", again=True) from None

    def _judged(self, response: httpx2.Response, data: bytes) -> dict[str, Any]:
        """The JSON object of an answer that is one."""
        status = response.status_code
        if 300 <= status < 400:
            place = self._clean(response.headers.get("Location", "").split("?")[0])
            raise _NoAnswerError(
                f"the endpoint answered {status}, which points to {place or 'nowhere'}; redirects are not followed", status=status
            )
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        said = self._clean(_message(body, data))
        if not 200 <= status < 300:
            why = f"the endpoint answered {status}" + (f": {said}" if said else "")
            if status == 429 and _error_code(body) == "insufficient_quota":
                raise _NoAnswerError(why, status=402)
            again = status in _AGAIN or (status >= 500 and status != 501)
            raise _NoAnswerError(
                why, status=status, again=again, after=_after(response.headers.get("Retry-After")), down=status in _GATEWAY
            )
        if body is None:
            raise _NoAnswerError(
                f"the answer is not JSON, or was cut off; it begins with {said!r}" if said else "the answer is empty", again=True
            )
        if not isinstance(body, dict):
            raise _NoAnswerError("the answer is JSON of the wrong shape: not an object")
        if body.get("error"):
            code = _error_code(body)
            again = code in ("429", "server_error") or code.startswith("5") or _READS_TRANSIENT.search(said) is not None
            raise _NoAnswerError(f"the endpoint answered {status} with an error: {said}", again=again)
        return body

    def _stop(self, error: _NoAnswerError) -> AligntaxError | None:
        """What ends the whole call, since every other request would end the same way."""
        status = error.status
        if status in (401, 403):
            variable, key = self._key()
            what = f"the key in {variable} is refused" if key else f"it wants a key, and there is none in {variable}"
            return InputError(f"{self.url} cannot be used: {what} ({error})")
        if status == 402:
            return AligntaxError(
                f"{self.url} wants to be paid ({error}); what was answered is kept, and the same command goes on from there"
            )
        if status in (404, 405):
            model = printable(str(self._model))
            return InputError(f"{self.url} does not know the model {model}, or does not offer what was asked for ({error})")
        if status is not None and 300 <= status < 400:
            return InputError(f"{self.url} cannot be used: {error}; give the address it points to")
        return None

    def _key(self) -> tuple[str, str | None]:
        """(environment variable, the key in it)."""
        own = self._given.scheme == "https" and self._given.host == _OPENAI_HOST
        if self._key_env == OPENAI_VARIABLE and not own:
            raise InputError(
                f"{OPENAI_VARIABLE} goes to https://{_OPENAI_HOST} only; put the key for {self._given.host} into {OWN_VARIABLE}"
            )
        names = [self._key_env] if self._key_env else [OWN_VARIABLE, OPENAI_VARIABLE] if own else [OWN_VARIABLE]
        for name in names:
            key = os.environ.get(name, "").strip()
            if key and not (key.isascii() and key.isprintable() and " " not in key):
                raise InputError(f"the environment variable {name} holds no key: keys are of visible ASCII characters")
            if key:
                return name, key
        if self._key_env:
            raise InputError(f"the environment variable {printable(self._key_env)}, which was named for the key, is empty or not set")
        return names[-1], None

    def _clean(self, text: str) -> str:
        """Text of a server for a message: one line, harmless, short, and without the key if it was repeated."""
        key = self._key()[1]
        if key and len(key) >= 8:  # shorter ones are placeholders, and parts of words
            text = text.replace(key, "[key]")
        return cut(printable(" ".join(text[: 20 * _SHOWN].split())), _SHOWN)


# -- a call in a thread of its own ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def _in_background(work: Callable[[Callable[[Any], None]], Coroutine[Any, Any, None]]) -> Iterator[Any]:
    """What ``work`` emits, as it comes; it runs in an event loop of its own thread, and is cancelled when the iterator is closed.

    In a thread, because results are wanted by callers that have no event loop, or are inside one (notebooks); in a loop, because
    only there can a request that waits be ended at once.
    """
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(box.put))

    def run() -> None:
        error: BaseException | None = None
        try:
            asyncio.set_event_loop(loop)
            loop.run_until_complete(task)
        except BaseException as raised:  # noqa: BLE001 - it is raised again in the caller's thread
            error = raised
        finally:
            with suppress(Exception):
                loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            box.put(_End(error))

    thread = threading.Thread(target=run, name="aligntax-endpoint", daemon=True)
    try:
        thread.start()
        while not isinstance(item := box.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        with suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(task.cancel)
        if thread is not threading.current_thread():  # which collects garbage, and may find this iterator
            with suppress(RuntimeError):  # it never began
                thread.join(_FAREWELL)


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
            raise _NoAnswerError("an event of the stream is not JSON") from None
        if not isinstance(body, dict):
            raise _NoAnswerError("an event of the stream is JSON of the wrong shape: not an object")
        if body.get("error"):
            self.error = _message(body, line)
            return True
        self.usage = body.get("usage") or self.usage
        for choice in body.get("choices") or ():
            self._take(choice, now)
        return False

    def _take(self, choice: Any, now: float) -> None:
        if not isinstance(choice, dict):
            raise _NoAnswerError("an event of the stream is JSON of the wrong shape: a choice is no object")
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


def _address(url: str) -> httpx2.URL:
    """A URL that can be used, without a slash at its end.

    Raises:
        InputError: if it is none, or holds what does not belong there; a password is not repeated.
    """
    shown = "the URL of the endpoint" if re.search("[@?#]", url) else printable(url)
    try:
        found = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, UnicodeError):
        raise InputError(f"{shown} is no URL; write http://host:port/v1") from None
    if found.userinfo:
        raise InputError(f"the URL of the endpoint holds a user or password; leave it out, and put a key into {OWN_VARIABLE}")
    if found.query or found.fragment:
        raise InputError(f"the URL of the endpoint has a part after ? or #; leave it out, and put a key into {OWN_VARIABLE}")
    if found.scheme not in ("http", "https") or not found.host or not 0 < (found.port or 1) < 2**16:
        raise InputError(f"{shown} is no URL of an endpoint; write http://host:port/v1")
    return found.copy_with(path=found.path.rstrip("/"))


@cache
def _trust() -> ssl.SSLContext:
    """Certificates of the system; reading them takes longer than a request to a server nearby."""
    return httpx2.create_ssl_context()


def _is_local(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) is not None


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
        raise _NoAnswerError("there is no list of models in the answer")
    return found


def _message(body: Any, data: bytes) -> str:
    """What a server says about an error, in whichever of the usual places."""
    if isinstance(body, dict):
        for place in ("error", "message", "detail"):
            said = body.get(place)
            if isinstance(said, dict):
                said = said.get("message") or said
            if said:
                return said if isinstance(said, str) else json.dumps(said)
    return data[: 20 * _SHOWN].decode("utf-8", "replace")


def _error_code(body: Any) -> str:
    error = body.get("error") if isinstance(body, dict) else None
    return str(error.get("code") or error.get("type") or "") if isinstance(error, dict) else ""


def _after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _choice(body: Mapping[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise _NoAnswerError("the answer is JSON of the wrong shape: there is no choice in it")
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
        raise _NoAnswerError("the provider's filter ended the answer (finish_reason content_filter)")
    if reason not in ("stop", "length"):
        raise _NoAnswerError(f"the answer did not end as answers do: finish_reason is {printable(repr(reason)[:_SHOWN])}")
    message = choice.get("message") if spoken else choice
    text = message.get("content" if spoken else "text") if isinstance(message, dict) else None
    if text is None and spoken and reason == "length":
        text = ""  # all was spent before the answer began: on reasoning, which is not the answer
    if not isinstance(text, str):
        raise _NoAnswerError("the answer is JSON of the wrong shape: there is no text in it")
    # Half of a surrogate pair is no character, and cannot be written to a file.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"), reason


def _drawn(choice: Mapping[str, Any]) -> tuple[int, ...]:
    """Ids of the tokens of an answer as they were drawn; none where the server does not tell."""
    told = choice.get("token_ids")
    return tuple(told) if isinstance(told, list) and all(_is_count(t) for t in told) else ()


def _columns(choice: Mapping[str, Any], *names: str) -> list[list[Any]]:
    told = choice.get("logprobs")
    if not isinstance(told, dict):
        raise _NoAnswerError("no log-probabilities came back (echo with logprobs is not offered)")
    found = [told.get(name) for name in names]
    for name, column in zip(names, found, strict=True):
        if not isinstance(column, list):
            raise _NoAnswerError(f"the log-probabilities that came back lack {name}")
    columns = [column for column in found if isinstance(column, list)]
    if len({len(column) for column in columns}) != 1:
        raise _NoAnswerError(f"the lists of {', '.join(names)} that came back differ in length")
    return columns


def _by_ids(choice: Mapping[str, Any], used: int | None, before: int, own: int, least: int, alternatives: bool = False) -> Scored:
    """The last ``own`` tokens of those that were sent; ``least`` more may have been written."""
    values, tops = _columns(choice, "token_logprobs", "top_logprobs")
    sent = before + own
    if used is not None and used != sent:
        raise _NoAnswerError(f"{sent} tokens were sent, and the server read {used}")
    if not sent <= len(values) <= sent + least:
        raise _NoAnswerError(f"{len(values)} log-probabilities came back for {sent} tokens")
    return _rows(values[before:sent], tops[before:sent], alternatives)


def _by_offsets(choice: Mapping[str, Any], whole: str, boundary: int, least: int) -> Scored:
    """The tokens of ``whole`` from the first one on that reaches past ``boundary``; ``least`` more may have been written."""
    tokens, values, tops, offsets = _columns(choice, "tokens", "token_logprobs", "top_logprobs", "text_offset")
    text = choice.get("text")
    if not isinstance(text, str) or not text.startswith(whole):
        raise _NoAnswerError("the text that came back is not the one that was sent (echo is not offered)")
    starts = _starts(tokens, offsets, whole, len(text))
    inside = bisect_left(starts, len(whole))
    if len(starts) > inside + least:
        raise _NoAnswerError(f"{len(starts)} log-probabilities came back for {inside} tokens")
    for at in range(inside):
        if starts[at] >= boundary or _end(tokens[at], starts, at, whole) > boundary:
            break
    else:
        raise _NoAnswerError("no token that came back reaches into the text to be scored")
    for k in range(at, inside):
        if not _stands(tokens[k], whole, starts[k]):
            raise _NoAnswerError("the offsets that came back do not fit the text: other words stand there; name tokenizer=FOLDER")
    return _rows(values[at:inside], tops[at:inside])


def _starts(tokens: list[Any], offsets: list[Any], whole: str, limit: int) -> list[int]:
    """Where each token begins in ``whole``.

    vLLM adds up the lengths of tokens as it writes them, so that a begin token moves all others; then what the tokens spell is
    searched for the text. Other servers tell places in the text itself.
    """
    if not all(isinstance(t, str) for t in tokens) or not all(_is_count(o) for o in offsets):
        raise _NoAnswerError("the tokens or offsets that came back are not texts and counts")
    steps = [b - a for a, b in pairwise(offsets)]
    if any(step < 0 for step in steps):
        raise _NoAnswerError("the offsets that came back do not fit the text: they go backwards")
    if steps and offsets[0] == 0 and all(step == len(t) for step, t in zip(steps, tokens, strict=False)):
        spelled = "".join(tokens)
        for shift in (0, len(tokens[0])):
            if spelled.startswith(whole, shift):
                return [o - shift for o in offsets]
        raise _NoAnswerError("the tokens that came back do not spell the text that was sent; name tokenizer=FOLDER")
    if offsets and offsets[-1] > limit:
        raise _NoAnswerError("the offsets that came back do not fit the text: they go past its end")
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
            raise _NoAnswerError("no alternatives came back with a log-probability, so whether it is the highest is not known")
        logprobs.append(found)
        others = {str(token): _logprob(p) for token, p in top.items()}
        greedy.append(found >= max(others.values()))
        # Only by id: a spelling may be that of several tokens, of half a character for one.
        if alternatives and all(re.fullmatch(rf"{_ID}\d{{1,9}}", token) for token in others):
            told.append({int(token.removeprefix(_ID)): p for token, p in others.items()})
    return Scored(tuple(logprobs), tuple(greedy), tuple(told) if len(told) == len(logprobs) else ())


def _logprob(value: Any) -> float:
    if value is None:
        raise _NoAnswerError("a log-probability was dropped: null stands in its place")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _NoAnswerError(f"a log-probability that came back is no number: {printable(repr(value)[:60])}")
    try:
        found = float(value)
    except OverflowError:
        found = math.nan
    if math.isnan(found):
        raise _NoAnswerError("a log-probability that came back is no number")
    if found > _NOISE:
        raise _NoAnswerError(f"a log-probability that came back is positive: {found:.4g}")
    return min(found, 0.0)
