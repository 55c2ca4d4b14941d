"""A small server of the OpenAI protocol for one local model, on loopback only (imports torch).

Completions (text, lists of texts, token ids; log-probabilities; echo) and chat completions, both with streaming. Requests
that wait are decoded together; a reply does not depend on its company. There is no key, and nothing is kept.
"""

from __future__ import annotations

import ipaddress
import json
import queue
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.attention import FAR, stretch, uncut
from aligntax.models.local import LocalModel, Reply, Request, Token

MAX_BODY = 2**20
MAX_PROMPTS, MAX_N, MAX_REPLIES = 256, 128, 512
_BATCH = 64
_TIMEOUT = 30.0

Kind = TypeVar("Kind", bound="_Body")
Tokens = Annotated[list[int], Field(min_length=1)]


class _Body(BaseModel):
    """What both endpoints understand. Anything else is refused by name, so that nothing asked for is silently missing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    model: str = ""
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    n: int = Field(1, ge=1, le=MAX_N)
    stop: str | Annotated[list[str], Field(max_length=16)] | None = None
    seed: int | None = None
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    user: str | None = None
    # Known to the protocol, and accepted where they ask for nothing.
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    best_of: Literal[1] | None = None
    suffix: None = None

    metadata: None = None
    store: Literal[False] | None = None

    def stops(self) -> tuple[str, ...]:
        """Stops that are not empty."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(s for s in given if s)


class Completion(_Body):
    """Body of ``/v1/completions``."""

    prompt: str | Tokens | Annotated[list[str] | list[Tokens], Field(min_length=1, max_length=MAX_PROMPTS)]
    max_tokens: int | None = Field(16, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool = False
    return_tokens_as_token_ids: bool = False
    return_token_ids: bool = False


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str
    name: str | None = None


class Chat(_Body):
    """Body of ``/v1/chat/completions``."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=256)]
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)


class HttpError(Exception):
    """A refusal with its status."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


Event = tuple[int, Reply | Exception | None]


class _Job:
    """One request on its way through the model.

    Events (its number, its reply so far or what went wrong, at last None) arrive in a queue that the jobs of one request to the
    server share. Only who streams is told of every token.
    """

    def __init__(self, at: int, request: Request, events: queue.Queue[Event], streams: bool) -> None:
        self.at, self.request, self.streams, self._events = at, request, streams, events
        self.cancelled = False

    def tell(self, event: Reply | Exception | None) -> None:
        self._events.put((self.at, event))


class _Jobs:
    """The jobs of one request to the server."""

    def __init__(self, requests: list[Request], streams: bool) -> None:
        self._events: queue.Queue[Event] = queue.Queue()
        self.jobs = [_Job(at, request, self._events, streams) for at, request in enumerate(requests)]

    def events(self) -> Iterator[tuple[int, Reply]]:
        """(number, reply so far) until every job has ended.

        Raises:
            Exception: what went wrong in the model.
        """
        left = len(self.jobs)
        while left:
            at, event = self._events.get()
            if event is None:
                left -= 1
            elif isinstance(event, Exception):
                raise event
            else:
                yield at, event

    def finished(self) -> list[Reply]:
        """The whole replies."""
        found = [Reply() for _ in self.jobs]
        for at, reply in self.events():
            found[at] = reply
        return found

    def cancel(self) -> None:
        """Nobody waits for the rest."""
        for job in self.jobs:
            job.cancelled = True


class Engine:
    """Owns the model: one thread decodes whatever waits, together."""

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self._waiting: queue.Queue[_Job | Callable[[], None] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread when what waits is done."""
        self._waiting.put(None)

    def submit(self, requests: list[Request], *, streams: bool = False) -> _Jobs:
        """Queue requests for decoding."""
        made = _Jobs(requests, streams)
        for job in made.jobs:
            self._waiting.put(job)
        return made

    def score(self, sequences: list[tuple[int, ...]], top: int) -> list[list[Token]]:
        """Log-probabilities of given tokens.

        Raises:
            Exception: what went wrong in the model.
        """
        done: queue.Queue[list[list[Token]] | Exception] = queue.Queue()

        def work() -> None:
            try:
                found: list[list[Token]] = []
                for start in range(0, len(sequences), _BATCH // 2):
                    found += self.model.score(sequences[start : start + _BATCH // 2], top)
                done.put(found)
            except Exception as error:
                done.put(error)

        self._waiting.put(work)
        found = done.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _work(self) -> None:
        held: _Job | Callable[[], None] | None = None
        while True:
            first, held = held or self._waiting.get(), None
            if first is None:
                return
            if not isinstance(first, _Job):
                first()
                continue
            jobs = [first]
            while len(jobs) < _BATCH:
                try:
                    other = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if other is None:
                    self._waiting.put(None)
                    break
                if not isinstance(other, _Job):
                    held = other
                    break
                jobs.append(other)
            self._decode(jobs)

    def _decode(self, jobs: list[_Job]) -> None:
        try:
            for at, reply in self.model.stream([job.request for job in jobs]):
                job = jobs[at]
                if job.cancelled:
                    reply.reason = "stop"  # the model leaves it out from here on
                elif job.streams or reply.reason is not None:
                    job.tell(Reply(list(reply.tokens), reply.text, reply.reason))
        except Exception as error:
            if len(jobs) > 1:  # whose fault it is shows when each goes alone
                for job in jobs:
                    self._decode([job])
                return
            jobs[0].tell(error)
        for job in jobs:
            job.tell(None)


class Server(ThreadingHTTPServer):
    """The server; ``url`` says where it listens.

    Args:
        model: what is served.
        port: on loopback; 0 takes a free one.
        say: is told a line for every request.
        root: identity of the model's content, told with its name.

    Raises:
        InputError: if the model does not allow that requests are answered together.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, model: LocalModel, port: int = 0, say: Callable[[str], None] = lambda _: None, root: str | None = None) -> None:
        if (why := _alone(model.model)) is not None:
            raise InputError(
                f"{printable(model.name)} cannot be served: requests are answered together, and it has {why}; measure it from its folder"
            )
        self.root = root
        self.engine, self.model, self.say, self.started = Engine(model), model, say, int(time.time())
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def server_close(self) -> None:
        """Close the socket and end the engine's thread."""
        super().server_close()
        self.engine.close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is one line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError | socket.timeout):
            self.say(f"error: {type(error).__name__}: {printable(str(error))[:200]}")


def _alone(model: Any) -> str | None:
    """Why answers of a model would depend on their company; None if they do not."""
    config = model.config.get_text_config()
    if getattr(model, "_is_stateful", False):
        return "a recurrent state"
    if stretch(config) < FAR:
        return "rotary positions that change with the longest request"
    return uncut(config)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
    disable_nagle_algorithm = True  # a token is sent when it is there, not when a packet is full
    server_version = "aligntax"
    sys_version = ""
    _POSTS: ClassVar[dict[str, str]] = {"/v1/completions": "_completions", "/v1/chat/completions": "_chat"}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        self.server.say(
            printable(f"{self.command or '-'} {printable(self.path) if hasattr(self, 'path') else '-'} {args[1] if len(args) > 1 else ''}")
        )

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _other(self) -> None:
        self._answer(self._no_method)

    do_PUT = do_DELETE = do_PATCH = do_OPTIONS = _other

    def _no_method(self) -> None:
        raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, f"{self.command} is not supported; use GET or POST")

    def _answer(self, work: Callable[[], None]) -> None:
        self.begun = False
        try:
            self._check_host()
            work()
        except HttpError as error:
            self._refuse(error.status, str(error))
        except InputError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))
        except ConnectionError:
            self.close_connection = True
        except Exception as error:
            self.server.say(f"error: {type(error).__name__}: {printable(str(error))[:200]}")
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the model failed on this request")

    def _check_host(self) -> None:
        """A page in a browser must not reach this server under a name of its own."""
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0].strip("[]").lower()
        try:
            local = host in ("", "localhost") or ipaddress.ip_address(host).is_loopback
        except ValueError:
            local = False
        if not local:
            raise HttpError(HTTPStatus.FORBIDDEN, "this server answers on loopback only")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self.close_connection = True  # what is left of the request was perhaps not read
        if self.begun:
            return
        body = {
            "error": {
                "message": message,
                "type": "invalid_request_error" if status < 500 else "server_error",
                "param": None,
                "code": int(status),
            }
        }
        try:
            self._send(status, body)
        except ConnectionError:
            return

    def _send(self, status: HTTPStatus, body: dict[str, Any]) -> None:
        data = json.dumps(body, allow_nan=False).encode()
        self.begun = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)

    # -- requests -------------------------------------------------------------------------------------------------------

    def _get(self) -> None:
        path = self.path.split("?", 1)[0].rstrip("/")
        model = {"id": self.server.model.name, "object": "model", "created": self.server.started, "owned_by": "aligntax"}
        if path == "/v1/models":
            self._send(
                HTTPStatus.OK, {"object": "list", "data": [model | {"max_model_len": self.server.model.context, "root": self.server.root}]}
            )
        elif path == f"/v1/models/{self.server.model.name}":
            self._send(HTTPStatus.OK, model)
        elif path == "/health":
            self._send(HTTPStatus.OK, {"status": "ok"})
        else:
            raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing at {printable(path)[:100]!r}; try /v1/models")

    def _post(self) -> None:
        work = self._POSTS.get(self.path.split("?", 1)[0].rstrip("/"))
        if work is None:
            raise HttpError(HTTPStatus.NOT_FOUND, f"there is nothing at {printable(self.path)[:100]!r}; try {' or '.join(self._POSTS)}")
        getattr(self, work)(self._body())

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise HttpError(HTTPStatus.LENGTH_REQUIRED, "a Content-Length is needed; chunked bodies are not read")
        if int(length) > MAX_BODY:
            raise HttpError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has {length} bytes; at most {MAX_BODY} are read")
        data = self.rfile.read(int(length))
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            raise HttpError(HTTPStatus.BAD_REQUEST, "the body is not JSON") from None

    def _parsed(self, kind: type[Kind], body: Any) -> Kind:
        try:
            found = kind.model_validate(body)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the body"
            raise HttpError(HTTPStatus.BAD_REQUEST, printable(f"{place}: {first['msg']}")[:300]) from None
        names = {"", self.server.model.name, self.server.model.name.rpartition(":")[2]}
        if found.model not in names:
            raise HttpError(HTTPStatus.NOT_FOUND, f"no model {printable(found.model)[:100]!r} here; this is {self.server.model.name}")
        return found

    # -- completions ----------------------------------------------------------------------------------------------------

    def _completions(self, raw: Any) -> None:
        body = self._parsed(Completion, raw)
        model = self.server.model
        given = body.prompt
        each: list[Any] = [given] if isinstance(given, str) or isinstance(given[0], int) else list(given)
        prompts = [model.encode(p) if isinstance(p, str) else tuple(p) for p in each]
        room = 0 if body.max_tokens == 0 else 1
        for prompt in prompts:
            self._check_length(prompt, room)
        if body.max_tokens == 0 and not body.echo:
            raise HttpError(HTTPStatus.BAD_REQUEST, "max_tokens: 0 makes sense with echo only")
        if body.stream and (body.logprobs is not None or body.echo):
            raise HttpError(HTTPStatus.BAD_REQUEST, "a stream carries neither logprobs nor echo here; ask without stream")
        if len(prompts) * body.n > MAX_REPLIES:
            raise HttpError(
                HTTPStatus.BAD_REQUEST, f"{len(prompts)} prompts times n = {body.n} are too many: at most {MAX_REPLIES} replies a request"
            )
        limit = model.context if body.max_tokens is None else body.max_tokens
        seeds = self._seeds(body, len(prompts))
        top = body.logprobs or 0
        jobs = self.server.engine.submit(
            [
                Request(prompt, limit, body.temperature, body.top_p, next(seeds), body.stops(), top)
                for prompt in prompts
                for _ in range(body.n)
            ]
            if limit
            else [],
            streams=body.stream,
        )
        echoed: list[list[Token] | None] = [None] * len(prompts)
        if body.echo and body.logprobs is not None:
            echoed = list(self.server.engine.score(prompts, top))
        head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": body.model or model.name,
        }
        if body.stream:
            self._stream(
                head, jobs, body, lambda at, piece, reason: {"index": at, "text": piece, "logprobs": None, "finish_reason": reason}
            )
            return
        replies = jobs.finished() if limit else [Reply(reason="length") for _ in range(len(prompts) * body.n)]
        choices = []
        for at, reply in enumerate(replies):
            prompt, text, scored = prompts[at // body.n], each[at // body.n], echoed[at // body.n]
            shown = (text if isinstance(text, str) else model.decode(prompt)) if body.echo else ""
            gap = " " if shown and reply.tokens and model.piece(prompt, reply.tokens[0].id).startswith(" ") and reply.text else ""
            told = None
            if body.logprobs is not None:
                told = self._text_logprobs(prompt if body.echo else (), shown, scored, gap, reply, body.return_tokens_as_token_ids)
            ids = {"token_ids": [token.id for token in reply.tokens]} if body.return_token_ids else {}
            choices.append({"index": at, "text": shown + gap + reply.text, "logprobs": told, "finish_reason": reply.reason, **ids})
        used = sum(len(reply.tokens) for reply in replies)
        self._send(HTTPStatus.OK, {**head, "choices": choices, "usage": _usage(sum(map(len, prompts)), used)})

    def _text_logprobs(
        self, prompt: tuple[int, ...], shown: str, scored: list[Token] | None, gap: str, reply: Reply, by_id: bool
    ) -> dict[str, list[Any]]:
        """The completions form of log-probabilities; the first token of an echoed prompt has none.

        ``text_offset`` says where a token begins in the text; tokens that leave no text (begin, end) stand where they would be.
        """
        model = self.server.model
        offsets = model.offsets(shown, prompt) if prompt else []
        end = len(shown) + len(gap) + len(reply.text)
        at = len(shown) + len(gap)
        before: list[int] = []
        for new in reply.tokens:
            offsets.append(min(at, end))
            at += 0 if new.id in model.ends else len(model.piece(before, new.id))
            before.append(new.id)
        out: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": offsets}
        rows = [*([None, *scored] if prompt and scored is not None else []), *reply.tokens]
        before = []

        def named(token: int) -> str:
            return f"token_id:{token}" if by_id else model.piece(before, token)

        for token, row in zip([*prompt, *(t.id for t in reply.tokens)], rows, strict=True):
            piece = named(token)
            out["tokens"].append(piece)
            out["token_logprobs"].append(None if row is None else row.logprob)
            # The token itself always stands among the alternatives, as the protocol has it.
            top = {} if row is None else {named(t): p for t, p in reversed(row.top)} | {piece: row.logprob}
            out["top_logprobs"].append(top or None)
            before.append(token)
        return out

    # -- chat -----------------------------------------------------------------------------------------------------------

    def _chat(self, raw: Any) -> None:
        body = self._parsed(Chat, raw)
        model = self.server.model
        prompt = model.encode_chat([{"role": m.role, "content": m.content} for m in body.messages])
        self._check_length(prompt, 1)
        limit = body.max_completion_tokens or body.max_tokens or model.context
        if body.top_logprobs is not None and not body.logprobs:
            raise HttpError(HTTPStatus.BAD_REQUEST, "top_logprobs needs logprobs: true")
        if body.stream and body.logprobs:
            raise HttpError(HTTPStatus.BAD_REQUEST, "a stream carries no logprobs here; ask without stream")
        top = (body.top_logprobs or 0) if body.logprobs else 0
        seeds = self._seeds(body, 1)
        jobs = self.server.engine.submit(
            [Request(prompt, limit, body.temperature, body.top_p, next(seeds), body.stops(), top) for _ in range(body.n)],
            streams=body.stream,
        )
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.model or model.name}
        if body.stream:
            begun: set[int] = set()

            def chunk(at: int, piece: str, reason: str | None) -> dict[str, Any]:
                role = {} if at in begun else {"role": "assistant"}
                begun.add(at)
                return {"index": at, "delta": {**role, "content": piece} if piece or role else {}, "finish_reason": reason}

            self._stream({**head, "object": "chat.completion.chunk"}, jobs, body, chunk)
            return
        choices, used = [], 0
        for at, reply in enumerate(jobs.finished()):
            used += len(reply.tokens)
            choices.append(
                {
                    "index": at,
                    "message": {"role": "assistant", "content": reply.text},
                    "logprobs": {"content": self._chat_logprobs(prompt, reply.tokens)} if body.logprobs else None,
                    "finish_reason": reply.reason,
                }
            )
        self._send(HTTPStatus.OK, {**head, "object": "chat.completion", "choices": choices, "usage": _usage(len(prompt), used)})

    def _chat_logprobs(self, prompt: tuple[int, ...], new: list[Token]) -> list[dict[str, Any]]:
        model, before, found = self.server.model, list(prompt), []

        def told(token: int, logprob: float) -> dict[str, Any]:
            piece = model.piece(before, token)
            return {"token": piece, "logprob": logprob, "bytes": list(piece.encode())}

        for token in new:
            found.append({**told(token.id, token.logprob), "top_logprobs": [told(t, p) for t, p in token.top]})
            before.append(token.id)
        return found

    # -- both -----------------------------------------------------------------------------------------------------------

    def _check_length(self, prompt: tuple[int, ...], room: int) -> None:
        limit = self.server.model.context - room
        if not prompt:
            raise HttpError(HTTPStatus.BAD_REQUEST, "the prompt is empty")
        if len(prompt) > limit:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"the prompt has {len(prompt)} tokens; this model takes at most {limit}")
        size = len(self.server.model.model.get_input_embeddings().weight)
        if not all(0 <= t < size for t in prompt):
            raise HttpError(HTTPStatus.BAD_REQUEST, f"token ids go from 0 to {size - 1}")

    @staticmethod
    def _seeds(body: _Body, prompts: int) -> Iterator[int]:
        if body.seed is None:
            return (secrets.randbits(62) for _ in range(prompts * body.n))
        first = body.seed
        return (abs(first + k) % 2**62 for _ in range(prompts) for k in range(body.n))

    def _stream(self, head: dict[str, Any], jobs: _Jobs, body: _Body, chunk: Callable[[int, str, str | None], dict[str, Any]]) -> None:
        """Server-sent events. Text that may turn out to be the beginning of a stop, or of a character, is held back."""
        self.begun = True
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        stops = body.stops()
        sent = [0] * len(jobs.jobs)
        used = 0
        try:
            for at, reply in jobs.events():
                done = reply.reason is not None
                until = len(reply.text) if done else max(sent[at], min(_certain(reply.text, stops), len(reply.text.rstrip("\ufffd"))))
                if until > sent[at] or done:
                    self._event({**head, "choices": [chunk(at, reply.text[sent[at] : until], reply.reason)]})
                    sent[at] = until
                used += done * len(reply.tokens)
            if (body.stream_options or {}).get("include_usage"):
                prompts = sum(len(job.request.tokens) for job in jobs.jobs[:: body.n])
                self._event({**head, "choices": [], "usage": _usage(prompts, used)})
        except ConnectionError:
            raise
        except Exception as error:
            self.server.say(f"error: {type(error).__name__}: {printable(str(error))[:200]}")
            self._event({"error": {"message": "the model failed on this request", "type": "server_error", "param": None, "code": 500}})
        finally:
            jobs.cancel()
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body, allow_nan=False)}\n\n".encode())
        self.wfile.flush()


def _certain(text: str, stops: Sequence[str]) -> int:
    """How much of a text no stop can take back: all but the longest end of it that a stop begins with."""
    longest = min(max((len(stop) for stop in stops), default=1) - 1, len(text))
    return len(text) - next((k for k in range(longest, 0, -1) if any(stop.startswith(text[-k:]) for stop in stops)), 0)


def _usage(prompt: int, new: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
