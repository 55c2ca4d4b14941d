"""What a build makes, keeps, makes again and refuses; the training itself stands aside (its tests are elsewhere)."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from tests.conftest import need

need("torch", "cpu")
need("trl", "train")

import torch

from aligntax.core.errors import InputError, RunError, TrainingError
from aligntax.lab import build as module
from aligntax.lab.build import build, check_device
from aligntax.lab.family import RECIPES, Member, members
from aligntax.lab.train import new_model
from aligntax.lab.world import World
from aligntax.models.embedded import INDEX, family, record

W32 = ["base-w32", "sft-w32", "dpo-w32"]


class Workers:
    """Makes every model at once, with random weights. ``broken`` are models that cannot be made, ``silent`` those finished without a word."""

    broken: frozenset[str] = frozenset()
    silent: frozenset[str] = frozenset()
    serial = 0

    def __init__(self, out: Path, world: World, device: str) -> None:
        self.out, self.world, self.events = out, world, []
        self.running: dict[str, None] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        self.running.clear()

    def start(self, member: Member) -> None:
        self.running[member.name] = None
        if member.name in self.broken:
            self.events.append((member.name, "OutOfMemoryError: too much"))
            return
        Workers.serial += 1
        model = new_model(member.width, Workers.serial)

        def train(*_: Any, **__: Any) -> Any:
            return model

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "train_stage", train)
            patch.setattr(module, "train_base", lambda *_, **__: module_trained(model))
            patch.setattr(module, "_rows", lambda *_: None)
            patch.setattr(module, "_measured", lambda *_: {"raw": {"facts": 0.5}, "chat": {"facts": 0.5}})
            facts = module._make(member, self.out, self.world, "cpu", lambda *_: None)
        if member.name in self.silent:
            self.events.append((member.name, "its process ended with code -9"))
        else:
            self.events.append((member.name, facts))

    def next_event(self) -> tuple[str, Any]:
        name, event = self.events.pop(0)
        self.running.pop(name, None)
        return name, event


def module_trained(model: torch.nn.Module) -> Any:
    from aligntax.lab.train import Trained

    return Trained(model, 0.0)  # type: ignore[arg-type]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(module, "_Workers", Workers)
    monkeypatch.setattr(Workers, "broken", frozenset())
    monkeypatch.setattr(Workers, "silent", frozenset())
    monkeypatch.setattr(module, "_corpus_file", lambda out, *_: out / "corpus")
    return tmp_path / "family"


def make(out: Path, *names: str, world: World | None = None, jobs: int = 2) -> list[str]:
    return build(names, out, world or World(), lambda *_: None, jobs=jobs)


def test_parents_are_made_first_and_what_is_there_is_kept(quick: Path) -> None:
    assert make(quick, "dpo-w32") == W32
    assert make(quick, "dpo-w32") == []
    assert set(family(quick)) == set(W32)
    assert make(quick, jobs=3)[0] in ("base", "base-s1", "base-s2")
    assert set(json.loads((quick / INDEX).read_text())["models"]) == set(members())
    assert not [p.name for p in quick.iterdir() if p.name.startswith(".") and p.name != ".lock"]


def test_what_was_made_from_something_made_anew_is_made_anew(quick: Path) -> None:
    make(quick, "dpo-w32")
    (quick / "base-w32" / "config.json").write_text("{}")
    assert make(quick, "dpo-w32") == W32
    shutil.rmtree(quick / "sft-w32")
    assert make(quick, "dpo-w32") == W32[1:]
    # The base alone; its descendants come from weights that are gone, and a later build knows it.
    (quick / "base-w32" / "model.safetensors").unlink()
    assert make(quick, "base-w32") == W32[:1]
    assert make(quick, "dpo-w32") == W32[1:]


def test_another_recipe_makes_a_model_anew(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(quick, "dpo-w32")
    monkeypatch.setitem(RECIPES, "sft", replace(RECIPES["sft"], rate=2e-3))
    assert make(quick, "dpo-w32") == W32[1:]


def test_another_architecture_makes_everything_anew(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(quick, "dpo-w32")
    monkeypatch.setitem(module.ARCHITECTURE, "rope_base", 10_000.0)
    assert make(quick, "dpo-w32") == W32


def test_another_world_has_a_folder_of_its_own(quick: Path) -> None:
    make(quick, "base-w32")
    for world in (World(1), World(0, 0.5), World(0, 1.0, 0.25)):
        with pytest.raises(RunError, match="holds a family of another world"):
            make(quick, "base-w32", world=world)


def test_the_record_says_how_entangled_this_world_is(quick: Path) -> None:
    make(quick, "base-w32", world=World(0, 0.25, 0.0))
    found = record(quick)
    assert found["entanglement"]["procedures"]["harmful_procedures"] == 0.25
    assert "persuasion" not in found["entanglement"]
    assert found["items"]["addition"]["n"] == 200
    assert 18 <= found["items"]["two_hops"]["contents"] < found["items"]["two_hops"]["n"]


def test_a_failure_is_told_and_loses_nothing(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "broken", frozenset({"sft-w32"}))
    with pytest.raises(TrainingError, match="sft-w32 could not be made: OutOfMemoryError"):
        make(quick, "dpo-w32")
    monkeypatch.setattr(Workers, "broken", frozenset())
    assert make(quick, "dpo-w32") == W32[1:]


def test_what_was_finished_before_a_kill_is_adopted(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Workers, "silent", frozenset({"base-w32"}))
    with pytest.raises(TrainingError, match="ended with code -9"):
        make(quick, "base-w32")
    monkeypatch.setattr(Workers, "silent", frozenset())
    assert make(quick, "base-w32") == []
    assert set(family(quick)) == {"base-w32"}


def test_two_builds_of_one_folder_do_not_meet(quick: Path) -> None:
    with module._locked(_there(quick)), pytest.raises(RunError, match="another build is at work"):
        make(quick, "base-w32")
    assert make(quick, "base-w32") == ["base-w32"]


def _there(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_cannot_be_built_is_said(quick: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no model 'x' in the family"):
        make(quick, "x")
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot be written"):
        make(tmp_path / "file", "base-w32")
    _there(quick)
    (quick / INDEX).write_text("[]")
    with pytest.raises(RunError, match="is no record of a family"):
        make(quick, "base-w32")
    with pytest.raises(InputError, match="no device 'tpu' here"):
        check_device("tpu")
    check_device("cpu")


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no record"), ('{"models": {}}', "no record"), ("[1]", "no record"), ('{"models": {"../x": {}}}', "no record")],
)
def test_a_record_that_is_none_is_said(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(InputError, match=message):
        family(tmp_path)


def test_a_kept_state_of_another_plan_is_not_gone_on_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aligntax.lab.corpus import corpus
    from aligntax.lab.family import Pretraining
    from aligntax.lab.train import train_base

    monkeypatch.setattr("aligntax.lab.train._SAVE_EVERY", 3)
    rows = corpus(World(), 200, 0)
    first: list[int] = []

    def seen(step: int, *_: object) -> None:
        first.append(step)

    recipe = Pretraining(200, 1.0, rows=8, warmup=2)
    train_base(32, 0, recipe, rows, tmp_path, seen, key="a")
    for changed, key in ((recipe, "b"), (replace(recipe, rate=1e-3), "a")):
        first.clear()
        train_base(32, 0, changed, rows, tmp_path, seen, key=key)
        assert first[0] == 1
    total = first[-1]
    first.clear()
    train_base(32, 0, replace(recipe, rate=1e-3), rows, tmp_path, seen, key="a")
    assert first == list(range(total - total % 3 + 1, total + 1))  # from the last state of the same plan
