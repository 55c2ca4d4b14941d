"""Making the family (imports torch): every model from its parent, one after the other, resumable after a kill at any moment."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import queue
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from aligntax.core.errors import RunError, TrainingError
from aligntax.core.ids import digest
from aligntax.core.words import printable
from aligntax.lab.corpus import Packed, corpus
from aligntax.lab.evaluate import accuracies
from aligntax.lab.family import RECIPES, Member, chosen, described, pretraining
from aligntax.lab.stages import train_stage
from aligntax.lab.tasks import TASKS
from aligntax.lab.train import save_model, train_base
from aligntax.lab.world import World
from aligntax.models.embedded import INDEX
from aligntax.models.local import LocalModel

ITEMS = 200
"""Held-out items per task and template in the record."""

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
    record = _record(out, world)
    todo = [member for member in chosen(names) if not _complete(out, member, record)]
    stale = {member.name for member in todo}
    # What was made from a model that is made anew is made anew as well.
    todo += [m for m in chosen(names) if m.name not in stale and m.parent in stale]
    made: list[str] = []
    if any(member.stage == "base" for member in todo):
        try:
            _rows(out, world, max(pretraining(m.width).documents for m in todo), lambda what: tell("corpus", what, 0, 0, ""))
        except OSError as error:
            raise RunError(f"{printable(str(out))} cannot be written: {printable(str(error))}") from None
    with _Workers(out, world, device) as workers:
        while todo or workers.running:
            waiting = {member.name for member in todo} | set(workers.running)
            ready = [member for member in todo if member.parent not in waiting]
            for member in sorted(ready, key=lambda m: -m.width)[: jobs - len(workers.running)]:
                workers.start(member)
                todo.remove(member)
            name, event = workers.next_event()
            if isinstance(event, tuple):
                tell(name, *event)
            elif isinstance(event, str):
                raise TrainingError(f"{name} could not be made: {event}")
            else:
                record["models"][name] = event
                _write_record(out, record)
                made.append(name)
    if all(_complete(out, member, record) for member in chosen([])):
        for left in out.glob(".corpus-*"):
            left.unlink()
    return made


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
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.join()

    def start(self, member: Member) -> None:
        process = self.context.Process(target=_work, args=(member, *self.settings, self.events, os.getpid()), daemon=True)
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
                        return name, f"its process ended with code {process.exitcode}"
                continue
            if not isinstance(event, tuple):
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
    start = time.perf_counter()

    def train(step: int, steps: int, remark: str) -> None:
        tell("training", step, steps, remark)

    if member.stage == "base":
        recipe = pretraining(member.width)
        rows = _rows(out, world, recipe.documents, lambda what: tell(what, 0, 0, ""))
        model = train_base(member.width, member.seed, recipe, rows, scratch, train, device)
    else:
        model = train_stage(RECIPES[member.stage], out / str(member.parent), world, member.seed, train, device)
    seconds = time.perf_counter() - start
    part = scratch / "model"
    shutil.rmtree(part, ignore_errors=True)
    save_model(model, part)
    found = _measured(part, world, lambda at, of: tell("testing", at, of, ""))
    facts = {
        **described(member),
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(seconds),
        "accuracy": found,
        "sha256": {p.name: _sha256(p) for p in sorted(part.iterdir())},
    }
    shutil.rmtree(out / member.name, ignore_errors=True)
    part.rename(out / member.name)
    shutil.rmtree(scratch, ignore_errors=True)
    return facts


def _record(out: Path, world: World) -> dict[str, Any]:
    """What is already there, checked to be of this world."""
    fresh = {
        "schema": 1,
        "world": {"seed": world.seed, "procedures": world.procedures, "appeals": world.appeals},
        "tasks": {
            name: {"kind": t.kind, "about": t.about, "mechanisms": dict(t.mechanisms), "form": t.form, "determined": t.determined}
            for name, t in TASKS.items()
        },
        "models": {},
    }
    path = out / INDEX
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            return fresh
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["world"] != fresh["world"]:
            raise RunError(f"{printable(str(out))} holds a family of another world ({found['world']}); name another folder with --out")
        return {**fresh, "models": dict(found["models"])}
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{printable(str(path))} is no record of a family; remove it or name another folder with --out") from None
    except OSError as error:
        raise RunError(f"{printable(str(out))} cannot be written: {printable(str(error))}") from None


def _complete(out: Path, member: Member, record: dict[str, Any]) -> bool:
    """Whether a model is there as recorded, made by this recipe, from the parent that is there."""
    facts = record["models"].get(member.name)
    if facts is None or any(facts.get(key) != value for key, value in json.loads(json.dumps(described(member))).items()):
        return False
    folder = out / member.name
    return all((folder / name).is_file() and _sha256(folder / name) == known for name, known in facts["sha256"].items())


def _write_record(out: Path, record: dict[str, Any]) -> None:
    order = [m.name for m in chosen([])]
    models = {name: record["models"][name] for name in sorted(record["models"], key=lambda n: order.index(n) if n in order else len(order))}
    part = out / f".{INDEX}.{os.getpid()}"
    part.write_text(json.dumps({**record, "models": models}, indent=1) + "\n", encoding="utf-8")
    part.replace(out / INDEX)


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


def _rows(out: Path, world: World, documents: int, say: Callable[[str], None]) -> tuple[Packed, Packed]:
    """The corpus, kept on disk while the family is being made: writing it takes most of a minute."""
    sources = [_sha256(Path(__file__).parent / name) for name in ("world.py", "tasks.py", "corpus.py", "tokenizer.py")]
    key = digest([world.seed, world.procedures, world.appeals, documents, *sources])
    path = out / f".corpus-{key[:12]}.npz"
    fields = ("tokens", "document", "position", "weight")
    if not path.is_file():
        say("writing the corpus")
        made = corpus(world, documents, seed=0)
        part = out / f".corpus.{os.getpid()}.npz"
        np.savez(part, **{f"{k}.{field}": getattr(packed, field) for k, packed in enumerate(made) for field in fields})
        part.replace(path)
    say("reading the corpus")
    with np.load(path, allow_pickle=False) as kept:
        short, long = (Packed(*(kept[f"{k}.{field}"] for field in fields)) for k in range(2))
    return short, long


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
