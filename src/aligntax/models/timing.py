"""One answer by the clock: when its first token came, when its last, how many there were, and what energy it took. Imports no torch by itself.

Batch size 1: nothing waits for company, and nothing is shared with it. A clock that does not go backwards (``time.perf_counter``) is read
beside the model: of a local one when the token's id is on the processor, of an endpoint when the text arrives.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from aligntax.core.asks import Failure, GenerateAsk
from aligntax.core.words import printable

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

POWERCAP = Path("/sys/class/powercap")
"""Where Linux shows the energy counters of processors (RAPL)."""


@dataclass(frozen=True, slots=True)
class Timed:
    """An answer with its times.

    Attributes:
        text: of the answer. reason: why it ended.
        first: seconds from the request to the first token; None where it could not be seen.
        total: seconds from the request to the end of the answer.
        tokens: of the answer, as whoever wrote it counts them; None if unknown.
    """

    text: str
    reason: Literal["stop", "length"]
    first: float | None
    total: float
    tokens: int | None

    @property
    def per_token(self) -> float | None:
        """Seconds per token after the first; None where there is none, or it is not known when the first came."""
        if self.first is None or self.tokens is None or self.tokens < 2:
            return None
        return (self.total - self.first) / (self.tokens - 1)


@runtime_checkable
class Times(Protocol):
    def timed(self, ask: GenerateAsk) -> Timed | Failure:
        """The answer to one ask, asked once and alone. What had to be tried again is a failure, since waiting for that is no latency.

        Raises:
            InputError: where no ask would fare better (key, model, address).
        """


Stopwatch = Callable[[GenerateAsk], Timed | Failure]


def stopwatch(model: Any) -> Stopwatch | None:
    """What times the answers of a model; None if nothing can. Weights are loaded when it is first used.

    It holds on to a local model: let go of it before the model is closed.
    """
    if isinstance(model, Times):
        return model.timed
    local = sys.modules.get("aligntax.models.hf")  # whoever has such a model has imported it
    return _Local(model).timed if local is not None and isinstance(model, local.HFModel) else None


class _Local:
    """A local model's stopwatch: plain decoding with a cache, one request at a time, by the rules of ``HFModel.generate``."""

    def __init__(self, model: HFModel) -> None:
        self.model = model

    @cached_property
    def generator(self) -> Any:
        """Decodes without sharing; its ``writer.first`` is when it chose its first token, whose id is on the processor then."""
        from aligntax.models.generation import Generator
        from aligntax.models.local import Token
        from aligntax.models.writing import Writer, Writing

        class Clock(Writer):
            first: float | None = None

            def write(self, writing: Writing, token: Token) -> bool:
                if self.first is None:
                    self.first = time.perf_counter()
                return super().write(writing, token)

        parts = self.model.local
        made = Generator(parts.model, self.model.tokenizer, self.model.name, share=False)
        made.writer = Clock(parts.model, self.model.tokenizer, self.model.name)
        return made

    @cached_property
    def settle(self) -> Callable[[], object]:
        """Waits until the accelerator has done what it was told."""
        if not str(self.model.device).startswith("cuda"):
            return _nothing
        import torch

        return partial(torch.cuda.synchronize, torch.device(self.model.device))

    def timed(self, ask: GenerateAsk) -> Timed | Failure:
        from aligntax.models.local import Request

        clock = self.generator.writer
        tokens = ask.prompt.tokens or (self.model._begin(),)
        if len(tokens) >= clock.context:
            return Failure(f"a prompt of {len(tokens)} tokens leaves no room: {self.model.name} takes at most {clock.context}")
        request = Request(tokens, ask.max_tokens, ask.temperature, ask.top_p, ask.seed, ask.stops)
        clock.first = None
        self.settle()
        begun = time.perf_counter()
        try:
            ((_, reply),) = self.generator.generate([request])
        except FloatingPointError as error:
            return Failure(str(error))
        self.settle()
        ended = time.perf_counter()
        return Timed(reply.text, "length" if reply.reason == "length" else "stop", clock.first - begun, ended - begun, len(reply.tokens))


def _nothing() -> None:
    """Where the processor itself computes there is nothing to wait for."""


# -- energy --------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Counter:
    """An energy counter: its name, how to read it (joules), and where it begins anew (joules; None if it does not)."""

    name: str
    read: Callable[[], float]
    turn: float | None = None


class Meter:
    """Joules that the machine took, by counters which cover more than the model: everything on these parts, idle as well.

    Args:
        counters: what is added up.
    """

    def __init__(self, counters: Sequence[Counter]) -> None:
        self.counters = tuple(counters)

    @property
    def words(self) -> str:
        """What is counted, for provenance."""
        return ", ".join(counter.name for counter in self.counters)

    def read(self) -> list[float] | None:
        """The counters now; None if one cannot be read."""
        try:
            return [counter.read() for counter in self.counters]
        except Exception:  # noqa: BLE001 - NVML raises errors of its own
            return None

    def between(self, before: list[float] | None, after: list[float] | None) -> float | None:
        """Joules between two readings; None where a counter could not be read, or did not move: counters move every some milliseconds."""
        if before is None or after is None:
            return None
        steps = []
        for counter, low, high in zip(self.counters, before, after, strict=True):
            step = high - low
            if step < 0 and counter.turn is not None:  # it began anew; twice within one answer it cannot
                step += counter.turn
            steps.append(step)
        return None if any(step < 0 for step in steps) or sum(steps) == 0 else sum(steps)


def meter_of(device: str | None, powercap: Path = POWERCAP) -> tuple[Meter | None, str]:
    """The meter of a device, and in words what it counts or why there is none.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``; None where the machine is not this one.
        powercap: folder of the processor's counters.
    """
    if device is None:
        return None, "not known: the machine that answers is not seen from here"
    if device == "cpu":
        found, why = _processor(powercap)
    elif device.startswith("cuda"):
        found, why = _accelerator(device)
    else:
        found, why = [], f"no counter is known for the device {printable(device)}"
    return (Meter(found), Meter(found).words) if found else (None, f"not known: {why}")


def _processor(folder: Path) -> tuple[list[Counter], str]:
    """RAPL: packages, and the memory beside them; parts of a package (core, uncore) and the whole platform would count twice."""
    zones = sorted(path for path in folder.glob("*:*") if (path / "energy_uj").is_file()) if folder.is_dir() else []
    if not zones:
        return [], "this processor shows no energy counter (RAPL)"
    found = []
    for zone in zones:
        try:
            name = (zone / "name").read_text().strip()
            if not name.startswith(("package", "dram")):
                continue
            turn = float((zone / "max_energy_range_uj").read_text()) / 1e6
            read = _microjoules(zone / "energy_uj")
            read()
        except (OSError, ValueError) as error:
            return [], f"the processor's energy counter cannot be read ({type(error).__name__}); on most systems only root may"
        if zone.name.startswith("intel-rapl-mmio"):  # the same package, seen another way
            continue
        found.append(Counter(f"{name} of the processor, idle and other programs included (RAPL)", read, turn))
    return found, "this processor shows no energy counter of a package (RAPL)"


def _microjoules(path: Path) -> Callable[[], float]:
    return lambda: float(path.read_text()) / 1e6


def _accelerator(device: str) -> tuple[list[Counter], str]:
    """NVML's total energy counter (millijoules since the driver was loaded; Volta and later)."""
    try:
        import pynvml  # type: ignore[import-not-found, import-untyped, unused-ignore]
        import torch
    except ImportError:
        return [], "nvidia-ml-py, which reads the accelerator's counter, is not installed"
    try:
        pynvml.nvmlInit()
        number = torch.device(device).index
        uuid = f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device() if number is None else number).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception as error:  # noqa: BLE001 - NVML raises errors of its own
        return [], f"the accelerator's energy counter cannot be read ({printable(str(error))[:100]})"

    def read() -> float:
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3

    return [Counter("the accelerator, idle included and the processor not (NVML)", read)], ""


def clock_facts() -> Mapping[str, Any]:
    """What the clock is, for provenance."""
    info = time.get_clock_info("perf_counter")
    return {"clock": "time.perf_counter", "resolution_seconds": info.resolution}
