"""Making the family (imports torch): every model from its parent, one after the other, resumable after a kill at any moment."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np

from aligntax.core.errors import InputError, RunError, TrainingError
from aligntax.core.ids import digest
from aligntax.core.words import printable
from aligntax.lab.corpus import Packed, corpus, documents
from aligntax.lab.evaluate import accuracies
from aligntax.lab.family import RECIPES, Member, chosen, described, pretraining
from aligntax.lab.stages import requests, train_stage
from aligntax.lab.tasks import TASKS, entangled, held_out_examples
from aligntax.lab.tokenizer import vocabulary
from aligntax.lab.train import ARCHITECTURE, save_model, train_base
from aligntax.lab.world import World
from aligntax.models.embedded import INDEX
from aligntax.models.local import LocalModel

_FACTS = "facts.json"
_FIELDS = ("tokens", "document", "position", "weight")
ITEMS = 200
"""Held-out items per task and template at most; the record says how many there are, of how many contents."""

Tell = Callable[[str, str, int, int, str], None]
"""(model, what is being done, step, steps, remark)."""


def build(names: Sequence[str], out: Path, world: World, tell: Tell, device: str = "cpu", jobs: int = 1) -> list[str]:
    """Make models of the family that are not there yet, with what they are made from.

    Every model is made by a process of its own with one thread: two models side by side take less time than one after the
    other with two threads, and weights do not depend on how many processors there are.

    Args:
        names: members to make; none for all.
        out: folder of the family, one folder per model and ``family.json``.
        world: what they learn.
        tell: progress.
        device: where to compute.
        jobs: how many models to make at once.

    Returns:
        The names of the models that were made now.

    Raises:
        InputError: on an unknown name.
        RunError: if ``out`` holds a family of another world, or cannot be written.
        TrainingError: if a model could not be made; what was complete stays.
    """
    chosen(names)  # a wrong name is told before anything is made
    _own(out)
    with _locked(out):
        return _build(names, out, world, tell, device, jobs)


def _build(names: Sequence[str], out: Path, world: World, tell: Tell, device: str, jobs: int) -> list[str]:
    record = _record(out, world)
    _adopt(out, record)
    todo: list[Member] = []
    for member in chosen(names):  # parents come first: what was made from a model that is made anew is made anew as well
        if member.parent in {m.name for m in todo} or not _complete(out, member, record, world):
            todo.append(member)
    tell("models", "to make", 0, len(todo), "")
    _write_record(out, record)
    for count in sorted({pretraining(m.width).documents for m in todo if m.stage == "base"}):
        _corpus_file(out, world, count, lambda what: tell("corpus", what, 0, 0, ""))
    made: list[str] = []
    failed = ""
    with _Workers(out, world, device) as workers:
        while (todo and not failed) or workers.running:
            waiting = {member.name for member in todo} | set(workers.running)
            ready = [] if failed else [member for member in todo if member.parent not in waiting]
            for member in sorted(ready, key=lambda m: -m.width)[: jobs - len(workers.running)]:
                workers.start(member)
                todo.remove(member)
            name, event = workers.next_event()
            if isinstance(event, tuple):
                tell(name, *event)
            elif isinstance(event, str):
                failed = failed or f"{name} could not be made: {event}"
                workers.stop()  # what they have done so far is kept
            else:
                record["models"][name] = event
                _write_record(out, record)
                shutil.rmtree(out / f".{name}.partial", ignore_errors=True)
                made.append(name)
    if failed:
        raise TrainingError(failed)
    for left in out.glob(".corpus-*"):
        left.unlink()
    return made


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Two builds of one folder would undo each other's work."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / ".lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout:
        raise RunError(f"another build is at work in {printable(str(out))}; wait for it, or name another folder with --out") from None


def _own(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(f"{printable(str(out))} cannot be written: {printable(str(error))}") from None


def check_device(device: str) -> None:
    """Refuse a device that is not here, before anything is begun.

    Raises:
        InputError: naming those that are.
    """
    import torch

    here = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if device not in here:
        raise InputError(f"no device {printable(repr(device))} here; there is: {', '.join(here)}")


Event = tuple[str, int, int, str] | str | dict[str, Any]
"""Progress (what, step, steps, remark), what went wrong, or the facts of a finished model."""


class _Workers:
    """Processes that make one model each. Leaving the context ends those that still run."""

    def __init__(self, out: Path, world: World, device: str) -> None:
        self.context = multiprocessing.get_context("spawn")
        self.events: Any = self.context.Queue()
        self.running: dict[str, Any] = {}
        self.settings = (out, (world.seed, world.procedures, world.appeals), device)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End those that still run; what one had finished is still in the queue, or adopted by the next build."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.join()
        self.running.clear()

    def start(self, member: Member) -> None:
        arguments = (member, *self.settings, self.events, os.getpid())
        process = self.context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        self.running[member.name] = process

    def next_event(self) -> tuple[str, Event]:
        """Wait for the next event of any worker."""
        while True:
            try:
                name, event = self.events.get(timeout=1)
            except queue.Empty:
                for name, process in self.running.items():
                    if process.exitcode is not None:
                        self.running.pop(name)
                        return name, f"its process ended with code {process.exitcode}"
                continue
            if not isinstance(event, tuple) and name in self.running:
                self.running.pop(name).join()
            return name, event


def _work(member: Member, out: Path, world: tuple[int, float, float], device: str, events: Any, parent: int) -> None:
    """The life of a worker."""
    import torch

    torch.set_num_threads(1)
    last = 0.0

    def tell(what: str, step: int, steps: int, remark: str) -> None:
        nonlocal last
        if os.getppid() != parent:
            os._exit(1)  # nobody is waiting any more
        if time.monotonic() - last > 0.3 or step == steps:
            last = time.monotonic()
            events.put((member.name, (what, step, steps, remark)))

    try:
        events.put((member.name, _make(member, out, World(*world), device, tell)))
    except (KeyboardInterrupt, SystemExit):
        return
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must learn of it
        events.put((member.name, f"{type(error).__name__}: {printable(str(error))[:500]}"))


def _make(member: Member, out: Path, world: World, device: str, tell: Callable[[str, int, int, str], None]) -> dict[str, Any]:
    """Train, save and test one model; its facts for the record."""
    scratch = out / f".{member.name}.partial"
    made_of = _made_of(out, member, world)
    start = time.perf_counter()
    before = 0.0

    def train(step: int, steps: int, remark: str) -> None:
        tell("training", step, steps, remark)

    if member.stage == "base":
        recipe = pretraining(member.width)
        rows = _rows(_corpus_file(out, world, recipe.documents, lambda what: tell(what, 0, 0, "")))
        made = train_base(member.width, member.seed, recipe, rows, scratch, train, device, key=digest([described(member), made_of]))
        model, before = made.model, made.seconds_before
    else:
        model = train_stage(RECIPES[member.stage], out / str(member.parent), world, member.seed, train, device)
    seconds = before + time.perf_counter() - start
    part = scratch / "model"
    shutil.rmtree(part, ignore_errors=True)
    save_model(model, part)
    found = _measured(part, world, lambda at, of: tell("testing", at, of, ""))
    facts = {
        **described(member),
        "made_of": made_of,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds),
        "accuracy": found,
        "sha256": {p.name: _sha256(p) for p in sorted(part.iterdir())},
    }
    _write_json(scratch / _FACTS, facts)
    shutil.rmtree(out / member.name, ignore_errors=True)
    part.rename(out / member.name)
    return facts


def _made_of(out: Path, member: Member, world: World) -> dict[str, Any]:
    """What a model depends on besides its recipe: data, by a sample of them; architecture; the parent's weights."""
    parent = out / str(member.parent) / "model.safetensors"
    return {
        "data": _data_key(world.seed, world.procedures, world.appeals, member.stage, member.seed),
        "architecture": dict(ARCHITECTURE),
        "parent": None if member.parent is None else _sha256(parent) if parent.is_file() else "missing",
    }


@cache
def _items(seed: int, procedures: float, appeals: float) -> dict[str, dict[str, int]]:
    """How many held-out items each task is measured on, and of how many contents."""
    world = World(seed, procedures, appeals)
    found = {name: held_out_examples(task, world, ITEMS) for name, task in TASKS.items()}
    return {name: {"n": len(examples), "contents": len({e.content for e in examples})} for name, examples in found.items()}


@cache
def _data_key(world_seed: int, procedures: float, appeals: float, stage: str, seed: int) -> str:
    world = World(world_seed, procedures, appeals)
    pieces = list(documents(world, 500, 0))
    if stage != "base":
        asked = requests(RECIPES[stage], world, seed, 200)
        pieces += [[(example.prompt, 0.0), (wanted, 1.0), (unwanted, -1.0)] for example, wanted, unwanted in asked]
    return digest([pieces, list(vocabulary())])[:16]


def _adopt(out: Path, record: dict[str, Any]) -> None:
    """Put into the record what a build had finished and was stopped before it could say so."""
    for path in out.glob(f".*.partial/{_FACTS}"):
        name = path.parent.name.removeprefix(".").removesuffix(".partial")
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        if all((out / name / file).is_file() and _sha256(out / name / file) == known for file, known in facts["sha256"].items()):
            record["models"][name] = facts
            shutil.rmtree(path.parent, ignore_errors=True)


def _record(out: Path, world: World) -> dict[str, Any]:
    """What is already there, checked to be of this world."""
    fresh = {
        "schema": 1,
        "world": {"seed": world.seed, "procedures": world.procedures, "appeals": world.appeals},
        "tasks": {
            name: {
                "kind": t.kind,
                "about": t.about,
                "mechanisms": dict(t.mechanisms),
                "form": t.form,
                "determined": t.determined,
                "split": t.split,
            }
            for name, t in TASKS.items()
        },
        "entanglement": entangled(world),
        "items": _items(world.seed, world.procedures, world.appeals),
        "models": {},
    }
    path = out / INDEX
    try:
        if not path.is_file():
            return fresh
        found = json.loads(path.read_text(encoding="utf-8"))
        there, models = found["world"], dict(found["models"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{printable(str(path))} is no record of a family; remove it or name another folder with --out") from None
    if there != fresh["world"]:
        raise RunError(f"{printable(str(out))} holds a family of another world ({there}); name another folder with --out")
    return {**fresh, "models": models}


def _complete(out: Path, member: Member, record: dict[str, Any], world: World) -> bool:
    """Whether a model is there as recorded, made by this recipe, of this data, from the parent that is there."""
    facts = record["models"].get(member.name)
    wanted = json.loads(json.dumps({**described(member), "made_of": _made_of(out, member, world)}))
    if facts is None or any(facts.get(key) != value for key, value in wanted.items()):
        return False
    folder = out / member.name
    return all((folder / name).is_file() and _sha256(folder / name) == known for name, known in facts["sha256"].items())


def _write_record(out: Path, record: dict[str, Any]) -> None:
    order = [m.name for m in chosen([])]
    models = {name: record["models"][name] for name in sorted(record["models"], key=lambda n: order.index(n) if n in order else len(order))}
    _write_json(out / INDEX, {**record, "models": models})


def _write_json(path: Path, value: Any) -> None:
    part = path.parent / f".{path.name}.{os.getpid()}"
    part.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def _measured(folder: Path, world: World, tick: Callable[[int, int], None]) -> dict[str, dict[str, float]]:
    model = LocalModel.load(folder)
    found, at = {}, 0

    def one() -> None:
        nonlocal at
        at += 1
        tick(at, 2 * len(TASKS))

    for name, chat in (("raw", False), ("chat", True)):
        found[name] = {key: round(value, 4) for key, value in accuracies(model, world, ITEMS, chat=chat, tick=one).items()}
    return found


def _corpus_file(out: Path, world: World, count: int, say: Callable[[str], None]) -> Path:
    """The corpus, kept on disk while the family is being made: writing it takes most of a minute."""
    sources = [_sha256(Path(__file__).parent / name) for name in ("world.py", "tasks.py", "corpus.py", "tokenizer.py")]
    key = digest([world.seed, world.procedures, world.appeals, count, *sources])
    path = out / f".corpus-{key[:12]}.npz"
    if not path.is_file():
        say(f"writing the corpus of {count:,} documents")
        made = corpus(world, count, seed=0)
        part = out / f".corpus-{os.getpid()}.part.npz"
        np.savez(part, **{f"{k}.{field}": getattr(packed, field) for k, packed in enumerate(made) for field in _FIELDS})
        part.replace(path)
    return path


def _rows(path: Path) -> tuple[Packed, Packed]:
    with np.load(path, allow_pickle=False) as kept:
        short, long = (Packed(*(kept[f"{k}.{field}"] for field in _FIELDS)) for k in range(2))
    return short, long


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
