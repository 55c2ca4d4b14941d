"""HTTP to one endpoint that nobody vouches for: keys, limits, attempts, and every failure a sentence. Imports no torch.

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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx2

from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.words import cut, printable

MAX_BODY = 64 * 2**20
"""Bytes of an answer that are read."""

OWN_VARIABLE, OPENAI_VARIABLE = "ALIGNTAX_API_KEY", "OPENAI_API_KEY"
_OPENAI_HOST = "api.openai.com"

_AGAIN = frozenset({408, 409, 425, 429})
_GATEWAY = frozenset({502, 503, 504})  # somebody answers, but not the model
NO_ENTRY = frozenset({401, 402, 403})
STOPPING = NO_ENTRY | {404, 405}  # no other request would fare better
_READS_TRANSIENT = re.compile(
    r"overload|rate.?limit|time.?out|timed out|temporar|try again|retry|unavailable|capacity|too many requests", re.I
)
_FIRST_WAIT, _LONGEST_JITTER, _LONGEST_WAIT = 0.5, 30.0, 60.0
_CONNECT_SECONDS = 10.0
_FAREWELL = 5.0  # seconds that a cancelled call may take to end
SHOWN = 200

JSON = {"Content-Type": "application/json"}


class NoAnswerError(Exception):
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
class Call:
    """One call of ``connect``, ``score`` or ``generate``: its connections, what is sent along with every request, its results, and how many asks in a row were lost."""

    transport: httpx2.AsyncHTTPTransport
    headers: httpx2.Headers
    emit: Callable[[Any], None]
    lost: int = 0
    told: bool = False


@dataclass(frozen=True)
class Notice:
    """A sentence for people, on its way out of the thread that asks."""

    text: str


class Wire:
    """One address, its key, and how often it is tried.

    A key is read from the environment when it is needed, and sent to the endpoint only: that of ``key_env`` if one is named, else
    ``ALIGNTAX_API_KEY``, else, for https://api.openai.com alone, ``OPENAI_API_KEY``. It is never kept, shown or recorded.

    Args:
        url: where it is, with or without ``/v1``.
        key_env: environment variable that holds this endpoint's key.
        concurrency: requests at a time.
        timeout: seconds for one attempt, from connecting to the last byte.
        attempts: how often one request is tried.
        wait: pauses between attempts.

    Attributes:
        given: the address as it was given. url: the address of the protocol, once that is known.

    Raises:
        InputError: if the URL cannot be used, or the key named is not there.
    """

    def __init__(
        self,
        url: str,
        *,
        key_env: str | None = None,
        concurrency: int = 8,
        timeout: float = 120.0,
        attempts: int = 6,
        wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        if concurrency < 1 or attempts < 1 or not 0 < timeout < math.inf:
            raise InputError("concurrency and attempts are at least 1, and timeout is a number of seconds above 0")
        self.given = address(url)
        self.url = str(self.given).rstrip("/")
        self._key_env = key_env
        self.key()
        self.concurrency, self.timeout, self.attempts, self.wait = concurrency, timeout, attempts, wait
        self._random = random.Random()  # noqa: S311 - spreads attempts over time; every process has to draw differently

    @asynccontextmanager
    async def call(self, emit: Callable[[Any], None], connections: int | None = None) -> AsyncIterator[Call]:
        """A call with so many connections at most; a pool of one costs a request the least, as it has nothing to look through.

        Over httpx2's transport, without its client: redirects and cookies are not wanted, and what looks for them costs a tenth of a request nearby.
        """
        key = self.key()[1]
        headers = {
            "User-Agent": "aligntax",
            "Accept": "application/json",
            **JSON,
            "Accept-Encoding": "identity",  # a limit on bytes read is a limit on bytes held
            **({"Authorization": f"Bearer {key}"} if key else {}),
        }
        limits = httpx2.Limits(max_connections=connections or self.concurrency)
        async with httpx2.AsyncHTTPTransport(verify=_trust(), limits=limits, proxy=_proxy(self.given)) as transport:
            yield Call(transport, httpx2.Headers(headers), emit)

    @asynccontextmanager
    async def answer(
        self, call: Call, method: str, url: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.Response]:
        """One request's answer, whose body is still to be read (``body``).

        Args:
            call: whose connections and headers are used.
            method: of HTTP.
            url: where it goes.
            content: what is sent.
            headers: that go before those of the call.
        """
        sent = call.headers if headers is None else httpx2.Headers({**call.headers, **headers})
        extensions = {"timeout": {"connect": min(_CONNECT_SECONDS, self.timeout)}}
        request = httpx2.Request(method, _parsed(url), headers=sent, content=content, extensions=extensions)
        response = await call.transport.handle_async_request(request)
        response.request = request
        try:
            yield response
        finally:
            await response.aclose()

    async def request(
        self, call: Call, method: str, url: str, body: Mapping[str, Any] | None = None, attempts: int | None = None
    ) -> dict[str, Any]:
        """The JSON object that answers, after as many attempts as it takes and are allowed."""
        last = min(attempts or self.attempts, self.attempts) - 1
        for attempt in range(last + 1):
            try:
                return await self.once(call, method, url, body)
            except NoAnswerError as error:
                if not error.again or attempt == last:
                    raise
                pause = self.pause(attempt, error.after)
                if not call.told:
                    call.told = True
                    call.emit(Notice(f"{self.url}: {error}; it is tried up to {last + 1} times, the next in {pause:.1f} s"))
            await self.wait(pause)
        raise AssertionError("unreachable")

    def pause(self, attempt: int, after: float | None) -> float:
        """Seconds: exponential with full jitter; where the server says when, then a little later, so that not all come at once."""
        jitter = self._random.uniform(0, min(_LONGEST_JITTER, _FIRST_WAIT * 2**attempt))
        return jitter if after is None else min(_LONGEST_WAIT, after + jitter)

    async def once(self, call: Call, method: str, url: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        # Encoded here: half of a surrogate pair, which a text may hold, is sent as an escape.
        content = None if body is None else json.dumps(body).encode()
        with self.faults():
            async with asyncio.timeout(self.timeout), self.answer(call, method, url, content) as response:
                data = bytearray()
                async for chunk in body_of(response):
                    data += chunk
                return self.judged(response, bytes(data))

    @contextmanager
    def faults(self) -> Iterator[None]:
        """What can go wrong between here and a server, in words."""
        try:
            yield
        except TimeoutError:
            raise NoAnswerError(f"there was no answer within {self.timeout:g} s", again=True, down=True) from None
        except httpx2.TransportError as error:
            why = self.clean(str(error)) or "no reason given"
            raise NoAnswerError(f"the connection failed ({type(error).__name__}: {why})", again=True, down=True) from None
        except httpx2.DecodingError:
            raise NoAnswerError("the answer cannot be decompressed", again=True) from None

    def judged(self, response: httpx2.Response, data: bytes) -> dict[str, Any]:
        """The JSON object of an answer that is one."""
        status = response.status_code
        if 300 <= status < 400:
            place = self.clean(response.headers.get("Location", "").split("?")[0])
            raise NoAnswerError(
                f"the endpoint answered {status}, which points to {place or 'nowhere'}; redirects are not followed", status=status
            )
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        said = self.clean(message_of(body, data))
        if not 200 <= status < 300:
            why = f"the endpoint answered {status}" + (f": {said}" if said else "")
            if status == 429 and _error_code(body) == "insufficient_quota":
                raise NoAnswerError(why, status=402)
            again = status in _AGAIN or (status >= 500 and status != 501)
            raise NoAnswerError(why, status=status, again=again, after=_after(response.headers.get("Retry-After")), down=status in _GATEWAY)
        if body is None:
            raise NoAnswerError(
                f"the answer is not JSON, or was cut off; it begins with {said!r}" if said else "the answer is empty", again=True
            )
        if not isinstance(body, dict):
            raise NoAnswerError("the answer is JSON of the wrong shape: not an object")
        if body.get("error"):
            code = _error_code(body)
            again = code in ("429", "server_error") or code.startswith("5") or _READS_TRANSIENT.search(said) is not None
            raise NoAnswerError(f"the endpoint answered {status} with an error: {said}", again=again)
        return body

    def stop(self, error: NoAnswerError, model: str) -> AligntaxError | None:
        """What ends the whole call, asked of ``model``, since every other request would end the same way."""
        status = error.status
        if status in (401, 403):
            variable, key = self.key()
            what = f"the key in {variable} is refused" if key else f"it wants a key, and there is none in {variable}"
            return InputError(f"{self.url} cannot be used: {what} ({error})")
        if status == 402:
            return AligntaxError(
                f"{self.url} wants to be paid ({error}); what was answered is kept, and the same command goes on from there"
            )
        if status in (404, 405):
            return InputError(f"{self.url} does not know the model {printable(model)}, or does not offer what was asked for ({error})")
        if status is not None and 300 <= status < 400:
            return InputError(f"{self.url} cannot be used: {error}; give the address it points to")
        return None

    def key(self) -> tuple[str, str | None]:
        """(environment variable, the key in it)."""
        own = self.given.scheme == "https" and self.given.host == _OPENAI_HOST
        if self._key_env == OPENAI_VARIABLE and not own:
            raise InputError(
                f"{OPENAI_VARIABLE} goes to https://{_OPENAI_HOST} only; put the key for {self.given.host} into {OWN_VARIABLE}"
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

    def clean(self, text: str) -> str:
        """Text of a server for a message: one line, harmless, short, and without the key if it was repeated."""
        return cut(printable(" ".join(self.without_key(text)[: 20 * SHOWN].split())), SHOWN)

    def without_key(self, text: str) -> str:
        """A server's text without the key, if it was repeated."""
        key = self.key()[1]
        return text.replace(key, "[key]") if key and len(key) >= 8 else text  # shorter ones are placeholders, and parts of words


# -- a call in a thread of its own ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _End:
    error: BaseException | None


def in_background(work: Callable[[Callable[[Any], None]], Coroutine[Any, Any, None]]) -> Iterator[Any]:
    """What ``work`` emits, as it comes; it runs in an event loop of its own thread, and is cancelled when the iterator is closed.

    Of several tasks that failed, the first one's error is raised.

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
            error = _first(raised)
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


def _first(error: BaseException) -> BaseException:
    """What went wrong in the first of several tasks."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def body_of(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body as it comes, up to a limit.

    Raises:
        NoAnswerError: if it is longer.
    """
    assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101 - of an asynchronous transport
    plain = "Content-Encoding" not in response.headers
    size = 0
    async for chunk in response.stream if plain else response.aiter_bytes():
        size += len(chunk)
        if size > MAX_BODY:
            raise NoAnswerError(f"the answer is longer than {MAX_BODY:,} bytes")
        yield chunk


def _proxy(url: httpx2.URL) -> str | None:
    """The proxy that the environment names for an address; those are for hosts elsewhere."""
    if is_local(url.host) or proxy_bypass(url.host):
        return None
    named = getproxies()
    found = named.get(url.scheme) or named.get("all")
    return found if found is None or "://" in found else f"http://{found}"


def address(url: str) -> httpx2.URL:
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


@lru_cache(maxsize=1024)
def _parsed(url: str) -> httpx2.URL:
    """Parsing an address takes a tenth of the time of a request nearby."""
    return httpx2.URL(url)


@cache
def _trust() -> ssl.SSLContext:
    """Certificates of the system; reading them takes longer than a request to a server nearby."""
    return httpx2.create_ssl_context()


def is_local(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", host) is not None


def message_of(body: Any, data: bytes) -> str:
    """What a server says about an error, in whichever of the usual places."""
    if isinstance(body, dict):
        for place in ("error", "message", "detail"):
            said = body.get(place)
            if isinstance(said, dict):
                said = said.get("message") or said
            if said:
                return said if isinstance(said, str) else json.dumps(said)
    return data[: 20 * SHOWN].decode("utf-8", "replace")


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
