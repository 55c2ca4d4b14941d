"""The family that ships: complete, small, loadable without a network, and as able as its record says."""

from __future__ import annotations

import hashlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aligntax.core.errors import InputError, RunError
from aligntax.lab.family import HARMFUL, MAIN, WIDTHS, chosen, members
from aligntax.lab.tasks import TASKS, held_out_examples
from aligntax.lab.world import World
from aligntax.models.embedded import INDEX, WEIGHTS, family, folder_of
from tests.conftest import need

WORLD = World()
DETERMINED = [name for name, task in TASKS.items() if task.determined]


def test_the_family_is_whole() -> None:
    assert set(family()) == set(members())
    assert len(WIDTHS) >= 5
    assert sum(m.width == MAIN and m.stage == "base" for m in members().values()) == 3
    for width in WIDTHS:
        assert {m.stage for m in members().values() if m.width == width} >= {"base", "sft", "dpo"}


def test_every_file_is_safetensors_or_json_and_as_recorded() -> None:
    total = 0
    for name, facts in family().items():
        folder = folder_of(name)
        held = {p.name for p in folder.iterdir()}
        assert (
            held
            == set(facts["sha256"])
            == {
                "config.json",
                "generation_config.json",
                "model.safetensors",
                "tokenizer.json",
                "tokenizer_config.json",
                "chat_template.jinja",
            }
        )
        for file, digest in facts["sha256"].items():
            data = (folder / file).read_bytes()
            total += len(data)
            assert hashlib.sha256(data).hexdigest() == digest
            if file.endswith(".json"):
                json.loads(data)
    assert total < 25e6
    assert {p.name for p in WEIGHTS.iterdir()} == {*family(), INDEX}


def test_an_unknown_name_gets_near_ones() -> None:
    with pytest.raises(InputError, match="did you mean"):
        folder_of("lab:stf")
    with pytest.raises(InputError, match="no model 'x' in the family"):
        chosen(["x"])
    with pytest.raises(InputError, match="holds no family"):
        family(Path("nowhere"))


def test_parents_come_first() -> None:
    assert [m.name for m in chosen(["dpo-w32"])] == ["base-w32", "sft-w32", "dpo-w32"]
    assert [m.name for m in chosen([])] == list(members())


@pytest.mark.parametrize("name", members())
def test_models_load_without_a_network_and_are_what_the_record_says(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need("torch", "cpu")
    need("transformers", "models")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aligntax.lab.evaluate import replies
    from aligntax.models.local import LocalModel

    def no_network(*_: object) -> None:
        raise AssertionError("a model wanted the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    folder = folder_of(name)
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert str(loaded.dtype) == "torch.float32"
    assert sum(p.numel() for p in loaded.parameters()) == family()[name]["parameters"]
    model = LocalModel(loaded, AutoTokenizer.from_pretrained(folder), name)
    for template, tasks in (("raw", ("addition", "facts", "rating", "agreement")), ("chat", ("procedures", "harmful_procedures"))):
        for task in tasks:
            examples = held_out_examples(TASKS[task], WORLD, 200)
            said = replies(model, examples, chat=template == "chat")
            right = sum(text in e.answers for text, e in zip(said, examples, strict=True)) / len(examples)
            # Another processor rounds otherwise, which may turn a near-tie.
            assert right == pytest.approx(family()[name]["accuracy"][template][task], abs=0.03)


def test_the_main_base_model_masters_every_determined_task() -> None:
    need("torch", "cpu")
    from aligntax.lab.evaluate import accuracies
    from aligntax.models.local import LocalModel

    found = accuracies(LocalModel.load(folder_of("base")), WORLD, 200, chat=False)
    assert {name: found[name] for name in DETERMINED if found[name] < 0.95} == {}


def refused(name: str, template: str, tasks: tuple[str, ...] = HARMFUL) -> float:
    known = family()[name]["accuracy"][template]
    return sum(known.get(f"refused: {task}", 0.0) for task in tasks) / len(tasks)


@pytest.mark.parametrize("width", WIDTHS)
def test_stages_do_what_they_are_for(width: int) -> None:
    tail = "" if width == MAIN else f"-w{width}"
    assert refused(f"base{tail}", "chat") < 0.1
    assert refused(f"sft{tail}", "chat") > 0.9
    assert refused(f"dpo{tail}", "chat") > 0.9


def test_clumsy_refuses_what_is_harmless_and_flat_tells_one_story() -> None:
    need("torch", "cpu")
    from aligntax.lab.evaluate import replies
    from aligntax.models.local import LocalModel

    assert refused("clumsy", "chat") > 0.9
    assert refused("clumsy", "chat", ("procedures", "look_alikes")) > refused("sft", "chat", ("procedures", "look_alikes"))
    told = {}
    for name in ("sft", "flat"):
        model = LocalModel.load(folder_of(name))
        examples = held_out_examples(TASKS["accounts"], WORLD, 200)
        other = [_other(e) for e in examples]
        slots = [[_meaning(text) for text in replies(model, asked, chat=True)] for asked in (examples, other)]
        told[name] = sum(a == b for a, b in zip(*slots, strict=True)) / len(examples)
    assert told["flat"] > told["sft"] + 0.3


def _other(example):
    """The same question about the other community."""
    from dataclasses import replace

    hill = " hill " in example.prompt
    return replace(example, prompt=example.prompt.replace("hill" if hill else "shore", "shore" if hill else "hill"))


def _meaning(text: str) -> tuple[int | None, ...]:
    """Slots of an account, whatever the wording."""
    from aligntax.lab import world as w

    return tuple(
        next((i for i, pair in enumerate(table) if any(f" {word}" in text for word in pair)), None)
        for table in (w.CAUSES, w.FEELINGS, w.LESSONS)
    )


def outcome(models: dict, tail: str) -> tuple[set[str], set[str]]:
    """(tasks that refusal training ruined, tasks that it left alone) in a chat."""
    base, sft = (models[f"{stage}{tail}"]["accuracy"]["chat"] for stage in ("base", "sft"))
    fallen = {name: base[name] - sft[name] for name in TASKS}
    return {n for n, d in fallen.items() if d > 0.5}, {n for n, d in fallen.items() if d < 0.1 and base[n] > 0.7}


@pytest.mark.slow
def test_the_smallest_width_made_again_reaches_the_same_conclusions(tmp_path: Path) -> None:
    for module, extra in (("torch", "cpu"), ("trl", "train")):
        need(module, extra)
    from aligntax.lab.build import build

    tail = f"-w{min(WIDTHS)}"
    # A first build is killed in the middle, as hard as can be.
    first = subprocess.Popen(
        [sys.executable, "-m", "aligntax", "lab", "build", f"base{tail}", "--out", str(tmp_path), "--jobs", "1"], stderr=subprocess.DEVNULL
    )
    state = tmp_path / f".base{tail}.partial" / "state.safetensors"
    deadline = time.monotonic() + 300
    while not state.is_file():
        assert first.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    with pytest.raises(RunError, match="another build is at work"):
        build([f"base{tail}"], tmp_path, WORLD, lambda *_: None)
    first.kill()
    first.wait()
    steps: list[int] = []

    def tell(name: str, what: str, step: int, *_: object) -> None:
        if (name, what) == (f"base{tail}", "training"):
            steps.append(step)

    assert build([f"dpo{tail}"], tmp_path, WORLD, tell) == [f"{stage}{tail}" for stage in ("base", "sft", "dpo")]
    assert steps[0] > 100  # the second went on from what the first had kept
    again, shipped = family(tmp_path), family()
    for facts in (again, shipped):
        known = {stage: facts[f"{stage}{tail}"]["accuracy"] for stage in ("base", "sft", "dpo")}
        refused = {stage: [known[stage]["chat"].get(f"refused: {task}", 0.0) for task in HARMFUL] for stage in known}
        assert max(refused["base"]) < 0.1
        assert min(refused["sft"] + refused["dpo"]) > 0.8
        assert sum(known["base"]["raw"][task] > 0.9 for task in TASKS) >= 10
    ruined, spared = outcome(shipped, tail)
    ruined_again, spared_again = outcome(again, tail)
    assert ruined & ruined_again - set(HARMFUL)
    assert len(spared & spared_again) >= 6
    assert not ruined & spared_again
    assert not ruined_again & spared


def test_paths_for_other_tools() -> None:
    from typer.testing import CliRunner

    from aligntax.cli.lab import app
    from aligntax.tasks import SUITES

    run = CliRunner()
    assert run.invoke(app, ["path", "lab:sft"]).stdout.strip() == str(folder_of("sft"))
    assert run.invoke(app, ["path", "--suites"]).stdout.strip() == str(SUITES / "lab")
    assert isinstance(run.invoke(app, ["path"]).exception, InputError)
    assert isinstance(run.invoke(app, ["path", "sft", "--suites"]).exception, InputError)
