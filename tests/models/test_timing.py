"""Answers by the clock: local models, endpoints that stream (and those that do not), and the counters of energy."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from aligntax.core.asks import Failure, GenerateAsk, Generated, Prompt
from aligntax.core.errors import InputError
from aligntax.models.endpoint import Endpoint
from aligntax.models.timing import Counter, Meter, Timed, meter_of, stopwatch
from aligntax.testing import KnownModel, Machine, PacedModel
from tests.conftest import need

ASK = GenerateAsk(Prompt("a bb", None), 5, stops=("\n",))
SPEAK = GenerateAsk(Prompt(None, None, (("user", "hello"),)), 5)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


# -- doubles and local models ------------------------------------------------------------------------------------------------------


def test_seconds_per_token_after_the_first() -> None:
    assert Timed("a b c", "stop", 0.5, 1.5, 3).per_token == 0.5
    for none in (Timed("a", "stop", 0.5, 0.5, 1), Timed("a b", "stop", None, 1.0, 2), Timed("a b", "stop", 0.5, 1.0, None)):
        assert none.per_token is None


def test_a_double_tells_its_times_and_a_machine_drifts() -> None:
    machine = Machine(drift=0.1)
    one, two = (PacedModel(name, lambda _: "a b c", first=0.2, per_token=0.1, machine=machine) for name in ("one", "two"))
    for slow, model in ((1.0, one), (1.1, two), (1.2, one)):
        assert stopwatch(model)(ASK) == Timed("a b c", "stop", pytest.approx(0.2 * slow), pytest.approx(0.4 * slow), 3)  # type: ignore[misc]
    assert PacedModel("mute", lambda _: "", first=0.2, per_token=0.1).timed(ASK) == Timed("", "stop", None, 0.2, 0)
    assert stopwatch(KnownModel("untimed", lambda _: "")) is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("torch", "cpu")
    need("transformers", "models")
    from tests.support.random_models import random_model

    return random_model(tmp_path_factory.mktemp("timed"), 32, 1)


def test_a_local_answer_is_the_one_that_is_scored(folder: Path) -> None:
    from aligntax.models.hf import HFModel

    model = HFModel(folder, "timed", device="cpu")
    watch = stopwatch(model)
    assert watch is not None
    assert "local" not in vars(model)  # no weights before they are needed
    asks = [
        GenerateAsk(model.raw(text), size, temperature, 0.9, stops, 3)
        for text in ("question: what is 1 + 2? answer:", "the river of galt is", "")
        for size, temperature, stops in ((12, 0.0, ()), (12, 0.8, ("of",)), (1, 0.0, ()))
    ]
    for at, wanted in model.generate(asks):
        assert isinstance(wanted, Generated)
        found = watch(asks[at])
        assert isinstance(found, Timed)
        assert (found.text, found.reason, found.tokens) == (wanted.text, wanted.reason, wanted.tokens)
        assert found.first is not None
        assert 0 < found.first <= found.total < 60
        assert (found.per_token is None) == (wanted.tokens == 1)
    assert watch(GenerateAsk(model.raw("the river " * 2000), 5)) == Failure(
        f"a prompt of {len(model.raw('the river ' * 2000).tokens or ())} tokens leaves no room: timed takes at most {model.context}"
    )


def test_our_own_server_streams_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aligntax.lab.serve import Server, _Handler
    from aligntax.models.hf import HFModel
    from aligntax.models.local import LocalModel

    model = HFModel(folder, "timed", device="cpu")
    monkeypatch.setattr(_Handler, "disable_nagle_algorithm", True)  # or small packets wait for each other, and arrive at once
    with Server(LocalModel.load(folder, "timed")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = Endpoint(server.url)
        for prompt, ours in (
            (made.raw("the river of galt is"), model.raw("the river of galt is")),
            (made.chat([("user", "hello")]), model.chat([("user", "hello")])),
        ):
            ((_, wanted),) = model.generate([GenerateAsk(ours, 16)])
            found = made.timed(GenerateAsk(prompt, 16))
            assert isinstance(found, Timed)
            assert isinstance(wanted, Generated)
            assert (found.text, found.reason, found.tokens) == (wanted.text, wanted.reason, wanted.tokens)
            assert found.first is not None
            assert 0 < found.first < found.total
        server.shutdown()


# -- a server that streams what it is told -----------------------------------------------------------------------------------------


def said(text: str | None = None, reason: str | None = None, **more: Any) -> dict[str, Any]:
    """An event of either protocol."""
    delta = {k: more.pop(k) for k in ("reasoning_content",) if k in more}
    return {"choices": [{"text": text, "delta": {"content": text, **delta}, "finish_reason": reason}], **more}


def counted(tokens: int, **details: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"completion_tokens": tokens, "completion_tokens_details": details}}


class Streams(ThreadingHTTPServer):
    """Answers every request for an answer with the next script: a status with a body, or events, bytes and pauses (seconds)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scripts: list[Any] = []
        self.bodies: list[dict[str, Any]] = []
        self.connections = 0
        self.used: list[int] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_: Any) -> None:
        """A client that has gone."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Streams

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self.number = self.server.connections

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def send(self, status: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send(200, json.dumps({"data": [{"id": "m"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body.get("echo"):  # whether texts can be scored is not the question here
            return self.send(400, b'{"error": {"message": "no echo"}}')
        self.server.bodies.append(body)
        self.server.used.append(self.number)
        script = self.server.scripts.pop(0) if len(self.server.scripts) > 1 else self.server.scripts[0]
        if isinstance(script, tuple):
            return self.send(*script)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        for step in script:
            if isinstance(step, float):
                time.sleep(step)
            else:
                self.wfile.write(step if isinstance(step, bytes) else f"data: {json.dumps(step)}\n\n".encode())
                self.wfile.flush()
        return None


DONE = b"data: [DONE]\n\n"


@pytest.fixture(scope="module")
def running() -> Iterator[Streams]:
    with Streams() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield made
        made.shutdown()


@pytest.fixture
def streams(running: Streams) -> Streams:
    running.scripts, running.bodies, running.used = [], [], []
    return running


def reach(streams: Streams, **options: Any) -> Endpoint:
    made = Endpoint(streams.url, **options)
    made.connect()
    return made


@pytest.mark.parametrize("ask", [ASK, SPEAK])
def test_a_stream_by_the_clock(streams: Streams, ask: GenerateAsk) -> None:
    """The first text after .1 s, four more every .05 s; events without text (a role, a comment, a usage) are none."""
    rest = [part for k in range(4) for part in (0.05, said(" b", "stop" if k == 3 else None))]
    streams.scripts = [[said(""), b": waiting\n\n", 0.1, said("a"), *rest, counted(5), DONE]]
    found = reach(streams).timed(ask)
    assert isinstance(found, Timed)
    assert (found.text, found.reason, found.tokens) == ("a b b b b", "stop", 5)
    assert found.first == pytest.approx(0.1, abs=0.04)
    assert found.total == pytest.approx(0.3, abs=0.06)
    assert found.per_token == pytest.approx(0.05, abs=0.015)
    (body,) = streams.bodies
    assert (body["stream"], body["stream_options"], body["max_tokens"]) == (True, {"include_usage": True}, 5)


def test_the_connection_stands_before_the_clock_runs(streams: Streams) -> None:
    streams.scripts = [[said("a", "stop"), counted(1), DONE]]
    made = reach(streams)
    before = streams.connections
    made.timed(ASK)
    assert streams.connections == before + 1  # one connection: it was opened by what is not timed, and used again


@pytest.mark.parametrize(
    ("events", "wanted"),
    [
        ([said("a"), 0.02, said(" b", "stop"), counted(0), DONE], (True, None)),  # a count of nothing for something
        ([said("a"), 0.02, said(" b", "length"), DONE], (True, None)),  # no count
        ([said("a b c", "stop"), counted(3), DONE], (False, 3)),  # all at once: when the first was there is not known
        ([said("a b c", "stop"), DONE], (False, None)),
        ([b"".join(f"data: {json.dumps(said(x))}\n\n".encode() for x in "abc"), 0.02, said("", "stop"), counted(4), DONE], (False, 4)),
        ([said("a"), 0.02, said(None, "stop"), counted(2), DONE], (True, 2)),  # a token and the end token
        ([said("", "stop"), counted(1), DONE], (False, 1)),  # nothing was said
        ([said("", "stop"), counted(0), DONE], (False, 0)),
        ([said("a"), said(" b", "stop"), counted(9, reasoning_tokens=7), DONE], (False, 9)),  # it thought where nobody saw it
        ([said("a"), 0.02, said(" b", "stop", usage={"completion_tokens": 2}), DONE], (True, 2)),
        ([said("a"), 0.02, said(" b", "stop"), counted(2)], (True, 2)),  # no mark at the end
        ([b'data: {"choi', b'ces": [{"text": "a"}]}\r\n\r\n', 0.02, said("b", "stop"), counted(2), DONE], (True, 2)),  # cut anywhere
    ],
)
def test_what_a_stream_does_not_tell_is_not_known(streams: Streams, events: list[Any], wanted: tuple[bool, int | None]) -> None:
    streams.scripts = [events]
    found = reach(streams).timed(ASK)
    assert isinstance(found, Timed), found
    assert ((found.first is not None), found.tokens) == wanted


def test_thoughts_that_are_shown_are_the_first_tokens(streams: Streams) -> None:
    streams.scripts = [[0.02, said(None, reasoning_content="hm"), 0.1, said("a"), said(" b", "stop"), counted(3, reasoning_tokens=1), DONE]]
    found = reach(streams).timed(SPEAK)
    assert isinstance(found, Timed)
    assert found.text == "a b"
    assert found.first is not None
    assert found.first < 0.1 < found.total


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ((503, b'{"error": {"message": "overloaded"}}'), "the endpoint answered 503: overloaded"),
        ((429, b"{}"), "the endpoint answered 429"),
        (
            (200, b'{"choices": [{"text": "a", "finish_reason": "stop"}]}'),
            "it does not stream: events were asked for, and application/json",
        ),
        ((200, b"hello", "text/html"), "the answer is not JSON"),
        ([said("a")], "the stream was cut off before the answer ended"),
        ([b"data: {nonsense\n\n"], "an event of the stream is not JSON"),
        ([b"data: [1]\n\n"], "an event of the stream is JSON of the wrong shape: not an object"),
        ([{"choices": [3]}], "an event of the stream is JSON of the wrong shape: a choice is no object"),
        ([said("a"), {"error": {"message": "out of\nmemory"}}], "the stream ended with an error: out of memory"),
        ([said("a", "content_filter"), DONE], "the provider's filter ended the answer"),
        ([said("a", "odd"), DONE], "the answer did not end as answers do: finish_reason is 'odd'"),
        ([said("a"), 3.0, said("b", "stop"), DONE], "there was no answer within 0.5 s"),
    ],
)
def test_what_goes_wrong_is_a_failure_and_nothing_is_tried_again(streams: Streams, script: Any, why: str) -> None:
    streams.scripts = [script]
    found = reach(streams, timeout=0.5).timed(ASK)
    assert isinstance(found, Failure)
    assert found.why.startswith(why)
    assert len(streams.bodies) == 1


def test_an_endless_answer_is_not_read(streams: Streams, monkeypatch: pytest.MonkeyPatch) -> None:
    made = reach(streams)
    monkeypatch.setattr("aligntax.models.wire.MAX_BODY", 1000)
    streams.scripts = [[said("a" * 600), said("b" * 600, "stop"), DONE]]
    assert made.timed(ASK) == Failure("the answer is longer than 1,000 bytes")


def test_what_no_ask_would_change_ends_it(streams: Streams) -> None:
    made = reach(streams)
    for status, sentence in ((401, "it wants a key"), (404, "does not know the model")):
        streams.scripts = [(status, b"{}")]
        with pytest.raises(InputError, match=sentence):
            made.timed(ASK)


def test_what_a_server_does_not_know_is_left_out_from_then_on(streams: Streams) -> None:
    answer = [said("a"), 0.02, said(" b", "stop"), DONE]
    streams.scripts = [
        (422, b'{"detail": "stream_options: extra fields not permitted"}'),
        answer,
        (400, b'{"error": {"message": "use max_completion_tokens instead of max_tokens"}}'),
        answer,
    ]
    made = reach(streams)
    for ask in (ASK, SPEAK, SPEAK):
        found = made.timed(ask)
        assert isinstance(found, Timed)
        assert found.total < 0.5
    assert ["stream_options" in body for body in streams.bodies] == [True, False, False, False, False]
    assert ["max_completion_tokens" in body for body in streams.bodies] == [False, False, False, True, True]


# -- energy ------------------------------------------------------------------------------------------------------------------------


def zone(folder: Path, name: str, title: str, joules: float, turn: float = 1000.0) -> Path:
    made = folder / name
    made.mkdir(parents=True)
    (made / "name").write_text(title + "\n")
    (made / "energy_uj").write_text(str(round(joules * 1e6)))
    (made / "max_energy_range_uj").write_text(str(round(turn * 1e6)))
    return made / "energy_uj"


def test_packages_and_memory_are_counted_once(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 990.0)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", 5.0)
    for name, title in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys"), ("intel-rapl-mmio:0", "package-0")):
        zone(tmp_path, name, title, 1.0)
    meter, words = meter_of("cpu", tmp_path)
    assert meter is not None
    assert [counter.name.split(" ")[0] for counter in meter.counters] == ["package-0", "dram"]
    assert words == meter.words
    assert "idle and other programs included" in words
    before = meter.read()
    package.write_text("2000000")  # it began anew at 1000
    memory.write_text("5500000")
    assert meter.between(before, meter.read()) == pytest.approx(12.5)


def test_what_cannot_be_counted_is_not_known(tmp_path: Path) -> None:
    counter = zone(tmp_path, "intel-rapl:0", "package-0", 3.0)
    meter, _ = meter_of("cpu", tmp_path)
    assert meter is not None
    before = meter.read()
    assert meter.between(before, meter.read()) is None  # it has not moved yet: that is not 0 joules
    counter.unlink()
    assert meter.read() is None
    assert meter.between(before, None) is None
    back = Meter([Counter("a counter that does not begin anew", lambda: 1.0)])
    assert back.between([2.0], back.read()) is None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("1")
    (tmp_path / "intel-rapl:0" / "max_energy_range_uj").unlink()
    for device, folder, why in (
        ("cpu", tmp_path, "the processor's energy counter cannot be read (FileNotFoundError); on most systems only root may"),
        ("cpu", tmp_path / "none", "this processor shows no energy counter (RAPL)"),
        ("mps", tmp_path, "no counter is known for the device mps"),
        (None, tmp_path, "the machine that answers is not seen from here"),
    ):
        assert meter_of(device, folder) == (None, f"not known: {why}")


def test_the_accelerators_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert meter_of("cuda") == (None, "not known: nvidia-ml-py, which reads the accelerator's counter, is not installed")
    millijoules = iter((1000, 4500, 9000))
    asked: list[str] = []
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or "handle",
        nvmlDeviceGetTotalEnergyConsumption=lambda _: next(millijoules),
    )
    card = SimpleNamespace(
        device=lambda name: SimpleNamespace(index=int(name.partition(":")[2]) if ":" in name else None),
        cuda=SimpleNamespace(current_device=lambda: 0, get_device_properties=lambda k: SimpleNamespace(uuid=f"card-{k}")),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setitem(sys.modules, "torch", card)
    meter, words = meter_of("cuda:1")
    assert meter is not None
    assert asked == ["GPU-card-1"]
    assert "NVML" in words
    assert meter.between(meter.read(), meter.read()) == pytest.approx(4.5)
    nvml.nvmlInit = lambda: 1 / 0
    assert meter_of("cuda") == (None, "not known: the accelerator's energy counter cannot be read (division by zero)")
