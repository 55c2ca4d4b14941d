"""A small server of the OpenAI protocol for one local model, on loopback only (imports torch).

Completions (text, lists of texts, token ids; log-probabilities; echo) and chat completions, both with streaming. Requests
that wait are decoded together; a reply does not depend on its company. There is no key, and nothing is kept.
"""

from __future__ import annotations

import ipaddress
import itertools
import json
import queue
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.local import LocalModel, Reply, Request, Token

MAX_BODY = 2**20
MAX_PROMPTS, MAX_N = 256, 128
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


class _Job:
    """One request on its way through the model; events arrive in its queue, the last one being None or an error."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.events: queue.Queue[Reply | Exception | None] = queue.Queue()

    def replies(self) -> Iterator[Reply]:
        """Its reply, growing.

        Raises:
            Exception: what went wrong in the model.
        """
        while (event := self.events.get()) is not None:
            if isinstance(event, Exception):
                raise event
            yield event


class Engine:
    """Owns the model: one thread decodes whatever waits, together."""

    def __init__(self, model: LocalModel) -> None:
        self.model = model
        self._waiting: queue.Queue[_Job | Callable[[], None]] = queue.Queue()
        threading.Thread(target=self._work, name="engine", daemon=True).start()

    def submit(self, requests: list[Request]) -> list[_Job]:
        """Queue requests for decoding."""
        jobs = [_Job(r) for r in requests]
        for job in jobs:
            self._waiting.put(job)
        return jobs

    def score(self, sequences: list[tuple[int, ...]], top: int) -> list[list[Token]]:
        """Log-probabilities of given tokens.

        Raises:
            Exception: what went wrong in the model.
        """
        done: queue.Queue[list[list[Token]] | Exception] = queue.Queue()

        def work() -> None:
            try:
                done.put(self.model.score(sequences, top))
            except Exception as error:
                done.put(error)

        self._waiting.put(work)
        found = done.get()
        if isinstance(found, Exception):
            raise found
        return found

    def _work(self) -> None:
        held: list[_Job | Callable[[], None]] = []
        while True:
            first = held.pop() if held else self._waiting.get()
            if not isinstance(first, _Job):
                first()
                continue
            jobs = [first]
            while len(jobs) < _BATCH:
                try:
                    other = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if not isinstance(other, _Job):
                    held.append(other)
                    break
                jobs.append(other)
            self._decode(jobs)

    def _decode(self, jobs: list[_Job]) -> None:
        try:
            for at, reply in self.model.stream([job.request for job in jobs]):
                jobs[at].events.put(Reply(list(reply.tokens), reply.text, reply.reason))
        except Exception as error:
            for job in jobs:
                job.events.put(error)
        for job in jobs:
            job.events.put(None)


class Server(ThreadingHTTPServer):
    """The server; ``url`` says where it listens."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, model: LocalModel, port: int = 0, say: Callable[[str], None] = lambda _: None) -> None:
        self.engine, self.model, self.say, self.started = Engine(model), model, say, int(time.time())
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is one line."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError | socket.timeout):
            self.say(f"error: {type(error).__name__}: {printable(str(error))[:200]}")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _TIMEOUT
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
            self._send(HTTPStatus.OK, {"object": "list", "data": [model | {"max_model_len": self.server.model.context}]})
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
        prompts: list[tuple[int, ...]]
        if isinstance(given, str):
            prompts = [model.encode(given)]
        elif isinstance(given[0], int):
            prompts = [tuple(given)]
        else:
            prompts = [model.encode(p) if isinstance(p, str) else tuple(p) for p in given]
        room = 0 if body.max_tokens == 0 else 1
        for prompt in prompts:
            self._check_length(prompt, room)
        if body.max_tokens == 0 and not body.echo:
            raise HttpError(HTTPStatus.BAD_REQUEST, "max_tokens: 0 makes sense with echo only")
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
            else []
        )
        echoed: list[list[Token] | None] = [None] * len(prompts)
        if body.echo and body.logprobs is not None:
            echoed = list(self.server.engine.score(prompts, top))
        head = {"id": f"cmpl-{secrets.token_hex(12)}", "object": "text_completion", "created": int(time.time()), "model": model.name}
        if body.stream:
            self._stream(
                head, jobs, body, lambda at, piece, reason: {"index": at, "text": piece, "logprobs": None, "finish_reason": reason}
            )
            return
        choices, used = [], 0
        for at, prompt in enumerate(prompts):
            for k in range(body.n):
                reply = self._finished(jobs[at * body.n + k]) if jobs else Reply(reason="length")
                used += len(reply.tokens)
                text = (model.decode(prompt) + (" " if reply.text else "") if body.echo else "") + reply.text
                choices.append(
                    {
                        "index": at * body.n + k,
                        "text": text,
                        "logprobs": None
                        if body.logprobs is None
                        else self._text_logprobs(prompt if body.echo else (), echoed[at], prompt, reply.tokens),
                        "finish_reason": reply.reason,
                    }
                )
        self._send(HTTPStatus.OK, {**head, "choices": choices, "usage": _usage(sum(map(len, prompts)), used)})

    def _text_logprobs(
        self, shown: tuple[int, ...], scored: list[Token] | None, prompt: tuple[int, ...], new: list[Token]
    ) -> dict[str, list[Any]]:
        """The completions form of log-probabilities; the first token of an echoed prompt has none."""
        model = self.server.model
        rows: list[Token | None] = [None, *scored] if shown and scored is not None else []
        ids = [*shown, *(t.id for t in new)]
        rows += new
        before = list(prompt) if not shown else []
        out: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        offset = 0
        for token, row in zip(ids, rows, strict=True):
            piece = model.piece(before, token)
            out["tokens"].append(piece)
            out["token_logprobs"].append(None if row is None else row.logprob)
            out["top_logprobs"].append(None if row is None else {model.piece(before, t): p for t, p in row.top})
            out["text_offset"].append(offset)
            offset += len(piece)
            before.append(token)
        return out

    # -- chat -----------------------------------------------------------------------------------------------------------

    def _chat(self, raw: Any) -> None:
        body = self._parsed(Chat, raw)
        model = self.server.model
        prompt = model.encode_chat([{"role": m.role, "content": m.content} for m in body.messages])
        self._check_length(prompt, 1)
        limit = body.max_completion_tokens or body.max_tokens or model.context
        top = (body.top_logprobs or 0) if body.logprobs else 0
        seeds = self._seeds(body, 1)
        jobs = self.server.engine.submit(
            [Request(prompt, limit, body.temperature, body.top_p, next(seeds), body.stops(), top) for _ in range(body.n)]
        )
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model.name}
        if body.stream:
            first = itertools.count()

            def chunk(at: int, piece: str, reason: str | None) -> dict[str, Any]:
                role = {"role": "assistant"} if next(first) < body.n else {}
                return {"index": at, "delta": {**role, "content": piece} if piece or role else {}, "finish_reason": reason}

            self._stream({**head, "object": "chat.completion.chunk"}, jobs, body, chunk)
            return
        choices, used = [], 0
        for at, job in enumerate(jobs):
            reply = self._finished(job)
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

    @staticmethod
    def _finished(job: _Job) -> Reply:
        reply = Reply()
        for reply in job.replies():  # noqa: B007 - the last one is the whole
            pass
        return reply

    def _stream(self, head: dict[str, Any], jobs: list[_Job], body: _Body, chunk: Callable[[int, str, str | None], dict[str, Any]]) -> None:
        """Server-sent events. Text that may turn out to be the beginning of a stop is held back."""
        self.begun = True
        self.close_connection = True
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        held = max((len(s) for s in body.stops()), default=1) - 1
        used = 0
        for at, job in enumerate(jobs):
            sent = 0
            for reply in job.replies():
                done = reply.reason is not None
                until = len(reply.text) if done else max(sent, len(reply.text) - held)
                if until > sent or done:
                    self._event({**head, "choices": [chunk(at, reply.text[sent:until], reply.reason)]})
                    sent = until
                used += done * len(reply.tokens)
        if (body.stream_options or {}).get("include_usage"):
            prompts = sum(len(job.request.tokens) for job in jobs[:: body.n])
            self._event({**head, "choices": [], "usage": _usage(prompts, used)})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, body: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(body, allow_nan=False)}\n\n".encode())
        self.wfile.flush()


def _usage(prompt: int, new: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}
