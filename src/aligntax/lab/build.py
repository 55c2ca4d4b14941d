"""Making the family (imports torch): every model from its parent, one after the other, resumable after a kill at any moment."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from aligntax.core.errors import RunError
from aligntax.core.ids import digest
from aligntax.core.words import printable
from aligntax.lab.corpus import Packed, corpus
from aligntax.lab.evaluate import accuracies
from aligntax.lab.family import RECIPES, Member, Pretraining, chosen, described, pretraining
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


def build(names: Sequence[str], out: Path, world: World, tell: Tell, device: str = "cpu") -> list[str]:
    """Make models of the family that are not there yet, with what they are made from.

    Args:
        names: members to make; none for all.
        out: folder of the family, one folder per model and ``family.json``.
        world: what they learn.
        tell: progress.
        device: where to compute.

    Returns:
        The names of the models that were made now.

    Raises:
        InputError: on an unknown name.
        RunError: if ``out`` holds a family of another world, or cannot be written.
    """
    record = _record(out, world)
    rows: list[tuple[Packed, Packed]] = []
    made = []
    for member in chosen(names):
        if _complete(out, member, record):
            continue
        scratch = out / f".{member.name}.partial"
        start = time.perf_counter()
        try:
            if member.stage == "base":
                recipe = pretraining(member.width)
                if not rows:
                    rows.append(_rows(out, world, recipe, lambda what, name=member.name: tell(name, what, 0, 0, "")))  # type: ignore[misc]
                model = train_base(
                    member.width, member.seed, recipe, rows[0], scratch, lambda *at, name=member.name: tell(name, "training", *at), device
                )
            else:
                assert member.parent is not None
                model = train_stage(
                    RECIPES[member.stage], out / member.parent, world, member.seed,
                    lambda *at, name=member.name: tell(name, "training", *at), device,
                )  # fmt: skip
            seconds = time.perf_counter() - start
            part = scratch / "model"
            shutil.rmtree(part, ignore_errors=True)
            save_model(model, part)
            found = _measured(part, world, lambda at, of, name=member.name: tell(name, "testing", at, of, ""))  # type: ignore[misc]
            facts = {
                **described(member),
                "parameters": sum(p.numel() for p in model.parameters()),
                "seconds": round(seconds),
                "accuracy": found,
                "sha256": {p.name: _sha256(p) for p in sorted(part.iterdir())},
            }
            shutil.rmtree(out / member.name, ignore_errors=True)
            part.rename(out / member.name)
            record["models"][member.name] = facts
            _write_record(out, record)
        except OSError as error:
            raise RunError(f"{printable(str(out))} cannot be written: {printable(str(error))}") from None
        shutil.rmtree(scratch, ignore_errors=True)
        made.append(member.name)
    if all(_complete(out, member, record) for member in chosen(names)):
        for left in out.glob(".corpus-*"):
            left.unlink()
    return made


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


def _rows(out: Path, world: World, recipe: Pretraining, say: Callable[[str], None]) -> tuple[Packed, Packed]:
    """The corpus, kept on disk while the family is being made: writing it takes most of a minute."""
    key = digest([asdict(world)["seed"], world.procedures, world.appeals, recipe.documents, _sha256(Path(__file__).parent / "tasks.py")])
    path = out / f".corpus-{key[:12]}.npz"
    fields = ("tokens", "document", "position", "weight")
    if path.is_file():
        say("reading the corpus")
        with np.load(path, allow_pickle=False) as kept:
            return tuple(  # type: ignore[return-value]
                Packed(*(kept[f"{k}.{f}"].astype(t) for f, t in zip(fields, (np.int64, np.int16, np.int64, np.float32), strict=True)))
                for k in range(2)
            )
    say("writing the corpus")
    made = corpus(world, recipe.documents, seed=0)
    part = out / f".corpus.{os.getpid()}.npz"
    small = (np.int16, np.int16, np.int16, np.float32)
    np.savez(
        part, **{f"{k}.{f}": getattr(packed, f).astype(t) for k, packed in enumerate(made) for f, t in zip(fields, small, strict=True)}
    )
    part.replace(path)
    return made


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
