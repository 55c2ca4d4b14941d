"""A loopback server of the OpenAI protocol that goes wrong as servers do, at random but the same every time, and counts what it answered.

What a call is answered with depends on the call alone (its model, seed, and how many messages it has), so that a run that was disturbed can be compared
with one that was not; which requests go wrong before they are answered is drawn by a seeded generator.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time
from types import TracebackType
from typing import Any, Self

Asked = tuple[str, int, int]
"""(model, seed, how many messages): what one request of one call is known by."""
Body = dict[str, Any]

FAULTS = (
    "429", "429 short", "429 long", "429 date", "429 nonsense", "500", "502", "503", "529", "408", "hang", "reset", "close", "half", "error in 200", "code in 200", "html",
    "nothing", "cut json", "no choices", "null", "list", "broken off", "not text",
)  # fmt: skip
"""Every way in which a request goes without an answer."""
KINDS = ("number",) * 12 + ("refusal", "refusal field", "words", "words", "nothing", "cut", "filtered", "part list")
"""What a call may be answered with."""


@dataclass
class Faulty:
    """The server; use it as a context manager.

    Attributes:
        rate: share of requests that go wrong.
        faults: how they may.
        seed: of the draws.
        latency: seconds before an answer.
        hangs: how many requests are left hanging at most, since each costs the client its whole time-out.
        models: by model, what answers for it instead: a function of the request's body and headers that gives (status, headers, body).
        reply: what a call is answered with, as (text, the rest of the choice); from its identity and body.
        served: name in the answers; None for the one asked for.
        answered: how many requests of each kind were answered with a reply. texts: with which.
        seen: statuses and faults that were sent. bodies: of all requests. headers: of all requests.
        in_flight, most: requests being answered now, and at most at a time.
    """

    rate: float = 0.0
    faults: Sequence[str] = FAULTS
    seed: int = 0
    latency: float = 0.0
    hangs: int = 3
    models: dict[str, Callable[[Body, dict[str, str]], tuple[int, dict[str, str], bytes]]] = field(default_factory=dict)
    reply: Callable[[Asked, Body], tuple[Any, Body]] | None = None
    served: str | None = None
    extra: Callable[[dict[str, str]], Body] | None = None
    answered: Counter[Asked] = field(default_factory=Counter)
    texts: dict[Asked, Any] = field(default_factory=dict)
    seen: Counter[str] = field(default_factory=Counter)
    bodies: list[Body] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    in_flight: int = 0
    most: int = 0

    def __enter__(self) -> Self:
        self._random = random.Random(self.seed)
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self, ready: threading.Event) -> None:
        async def main() -> None:
            self._stop = asyncio.Event()
            self._tasks: set[asyncio.Task[None]] = set()
            server = await asyncio.start_server(self._client, "127.0.0.1", 0, backlog=256)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(main())
        self._loop.close()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in rest)}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", 0))) or b"{}")
        self.bodies.append(body)
        self.headers.append({**headers, "path": first.split()[1]})
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        try:
            return await self._answer(writer, first.split()[1], headers, body)
        finally:
            self.in_flight -= 1

    async def _answer(self, writer: asyncio.StreamWriter, path: str, headers: dict[str, str], body: Body) -> bool:
        if special := self.models.get(str(body.get("model"))):
            status, more, data = special(body, headers)
            if status:
                await _send(writer, status, data, more)
                return True
        elif self.faults and self._random.random() < self.rate:
            fault = self._random.choice(self.faults)
            if fault != "hang" or self.seen["hang"] < self.hangs:
                self.seen[fault] += 1
                return await self._fault(writer, fault)
        if self.latency:
            await asyncio.sleep(self.latency)
        asked = (str(body.get("model")), int(body.get("seed", -1)), len(body.get("messages", ())))
        text, choice = (self.reply or reply)(asked, body)
        made = chat(text, body, choice) if "chat" in path else plain(text, body, choice)
        if self.served:
            made["model"] = self.served
        if self.extra:
            made |= self.extra(headers)
        self.answered[asked] += 1
        self.texts[asked] = text
        self.seen["reply"] += 1
        await _send(writer, 200, json.dumps(made).encode())
        return True

    async def _fault(self, writer: asyncio.StreamWriter, fault: str) -> bool:
        """One of ``FAULTS``; whether the connection is still there."""
        if fault[:3].isdigit():
            after = {"short": "0.01", "long": "45", "date": formatdate(time() + 3, usegmt=True), "nonsense": "soon"}.get(fault[4:])
            await _send(writer, int(fault[:3]), b'{"error": {"message": "not now"}}', {"Retry-After": after} if after else {})
            return True
        if fault in _BROKEN:
            await _send(writer, 200, _BROKEN[fault])
            return True
        if fault == "hang":
            await self._stop.wait()
        elif fault == "half":
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{"choices": [{"mess')
            await writer.drain()
        elif fault == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False


_BROKEN = {
    "error in 200": b'{"error": {"message": "Provider returned error: overloaded", "code": 502}}',
    "code in 200": b'{"error": {"message": "no luck", "code": "429"}}',
    "html": b"<html><body>one moment</body></html>",
    "nothing": b"",
    "cut json": b'{"choices": [{"message": {"content": "0.4',
    "no choices": b'{"id": "x", "choices": []}',
    "null": b'{"choices": null}',
    "list": b'{"choices": [null]}',
    "broken off": b'{"choices": [{"message": {"content": "0.4"}, "finish_reason": "error"}]}',
    "not text": b'{"choices": [{"message": {"content": {"rating": 0.4}}}]}',
}


async def _send(writer: asyncio.StreamWriter, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    told = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    writer.write(f"HTTP/1.1 {status} X\r\n".encode() + "".join(f"{k}: {v}\r\n" for k, v in told.items()).encode() + b"\r\n" + body)
    await writer.drain()


def number(asked: Asked) -> int:
    """A number of a request, the same every time."""
    return int(hashlib.sha256(repr(asked).encode()).hexdigest()[:8], 16)


def reply(asked: Asked, body: Body) -> tuple[Any, Body]:
    """(text, the rest of the choice) of a request: mostly a number, sometimes what models say instead."""
    n = number(asked)
    kind = KINDS[n % len(KINDS)]
    digits = any("single digit" in str(m.get("content")) for m in body.get("messages", ()))
    rating = str(n // 97 % 10) if digits else f"{n // 97 % 101 / 100:.2f}"
    if kind == "refusal":
        return "I'm sorry, but I can't rate these texts.", {}
    if kind == "refusal field":
        return None, {"refusal": "No."}
    if kind == "words":
        return "They are about one subject.", {}
    if kind == "nothing":
        return "", {}
    if kind == "cut":
        return "Let me think about what both", {"finish_reason": "length"}
    if kind == "filtered":
        return "", {"finish_reason": "content_filter"}
    return ([{"type": "thinking", "thinking": "0.1"}, {"type": "text", "text": rating}] if kind == "part list" else rating), {}


def chat(text: Any, body: Body, choice: Body) -> Body:
    """A chat completion."""
    message = {"role": "assistant", "content": text, **{k: choice[k] for k in ("refusal", "reasoning_content") if k in choice}}
    rest = {k: v for k, v in choice.items() if k not in ("refusal", "reasoning_content")}
    return _completion(body, {"index": 0, "message": message, "finish_reason": "stop", **rest})


def plain(text: Any, body: Body, choice: Body) -> Body:
    """A completion of a raw text."""
    return _completion(body, {"index": 0, "text": text, "finish_reason": "stop", **choice})


def _completion(body: Body, choice: Body) -> Body:
    usage = {"prompt_tokens": 90, "completion_tokens": 4, "total_tokens": 94}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": body.get("model"), "choices": [choice], "usage": usage}
