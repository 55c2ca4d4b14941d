"""The suites that ship are those of the world, and lm-eval itself runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import yaml

from aligntax.core.errors import InputError
from aligntax.core.kinds import kind_of
from aligntax.lab.suites import FLEXIBLE, PREFIX, files, write_suites
from aligntax.lab.tasks import TASKS, Example
from aligntax.lab.world import World
from aligntax.tasks import SUITES
from aligntax.tasks.suite import Filter, extracted
from tests.conftest import need
from tests.support.random_models import random_model

LAB = SUITES / "lab"

RUN = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
model, arguments, include, tasks, limit = sys.argv[1:]
found = simple_evaluate(
    model=model, model_args=json.loads(arguments), tasks=tasks.split(","), device="cpu", batch_size=32 if model == "hf" else 1, limit=int(limit),
    task_manager=TaskManager(include_path=include, include_defaults=False), bootstrap_iters=0, log_samples=True,
)
rows = {
    task: [
        {"prompt": r["doc"]["prompt"], "answer": r["filtered_resps"], "score": r.get("exact_match", r.get("acc")), "filter": r["filter"]}
        for r in samples
    ]
    for task, samples in found["samples"].items()
}
json.dump(rows, open(model + ".json", "w"))
"""


def lm_eval(folder: Path, model: str, arguments: dict, tasks: str, limit: int) -> dict[str, list[dict]]:
    """What lm-eval itself, in a process of its own and without a network, makes of the suites."""
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "HF_HOME": str(folder / "home"),
    }
    command = [sys.executable, "-c", RUN, model, json.dumps(arguments), str(LAB), tasks, str(limit)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / f"{model}.json").read_text())


def test_what_ships_is_what_the_world_makes() -> None:
    made = files(World())
    assert {p.name for p in LAB.iterdir() if p.is_file()} == {*made, "files.json"}
    assert json.loads((LAB / "files.json").read_text()) == sorted(made)
    for name, text in made.items():
        assert (LAB / name).read_text(encoding="utf-8") == text, f"{name}: write the suites again with 'aligntax lab suites'"


@pytest.mark.parametrize("name", TASKS)
def test_items_are_complete(name: str) -> None:
    rows = [json.loads(line) for line in (LAB / f"{name}.test.jsonl").read_text().splitlines()]
    assert 80 <= len(rows) <= 300
    assert len({r["id"] for r in rows}) == len({r["prompt"] for r in rows}) == len(rows)
    shots = [json.loads(line) for line in (LAB / f"{name}.shots.jsonl").read_text().splitlines()]
    assert len(shots) == 20
    assert not {r["prompt"] for r in rows} & {r["prompt"] for r in shots}
    for r in rows:
        assert r["cluster"]
        assert r["choices"][r["gold"]] if TASKS[name].choices else r["answers"]
    document = yaml.safe_load((LAB / f"{name}.yaml").read_text().replace("!function ", ""))
    assert document["task"] == f"{PREFIX}{name}"
    assert kind_of(document["task"]) == TASKS[name].kind


def test_nobody_elses_files_are_touched(tmp_path: Path) -> None:
    assert write_suites(tmp_path / "new", World()) == write_suites(tmp_path / "new", World(1))
    (tmp_path / "new" / "mine.py").write_text("x = 1")
    before = {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()}
    with pytest.raises(InputError, match=r"not of the suites \(mine\.py\)"):
        write_suites(tmp_path / "new", World())
    assert {p.name: p.read_bytes() for p in (tmp_path / "new").iterdir()} == before
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_suites(tmp_path / "file", World())


def test_lm_eval_runs_them_and_agrees(tmp_path: Path) -> None:
    for module, extra in (("lm_eval", "eval"), ("transformers", "models"), ("torch", "cpu")):
        need(module, extra)
    from aligntax.lab.evaluate import replies
    from aligntax.models.local import LocalModel

    limit = 12
    folder = tmp_path / "model"
    random_model(folder, 32, 0, times=1)
    found = lm_eval(tmp_path, "hf", {"pretrained": str(folder), "dtype": "float32"}, "lab", limit)
    assert set(found) == {f"{PREFIX}{name}" for name in TASKS}
    model = LocalModel.load(folder)
    for name, task in TASKS.items():
        both = found[f"{PREFIX}{name}"]
        rows, flexible = ([r for r in both if ("flexible" in r["filter"]) == loose] for loose in (False, True))
        assert len(flexible) == (limit if name in ("addition", "counting", "rating", "two_step") else 0)
        items = {r["prompt"]: r for r in map(json.loads, (LAB / f"{name}.test.jsonl").read_text().splitlines())}
        assert len(rows) == limit
        if task.choices:
            continue
        asked = [Example(name, r["prompt"], (), None, "", "") for r in rows]
        for row, text in zip(rows, replies(model, asked, chat=False), strict=True):
            assert row["answer"] == [text]
            assert row["score"] == float(text in items[row["prompt"]]["answers"])
        for row, text in zip(flexible, replies(model, asked, chat=False) if flexible else (), strict=True):
            number, _ = extracted(text, [Filter.model_validate(one) for one in FLEXIBLE["filter"]])
            assert row["answer"] == [number]
            assert row["score"] == float(number in items[row["prompt"]]["answers"])


def test_lm_eval_through_the_server_agrees_with_lm_eval_on_the_model(tmp_path: Path) -> None:
    """Answers of two tokens and of one, some of which end at once: what an endpoint returns is what the model gives."""
    for module, extra in (("lm_eval", "eval"), ("transformers", "models"), ("torch", "cpu")):
        need(module, extra)

    from aligntax.lab.serve import Server
    from aligntax.models.local import LocalModel

    folder, tasks = tmp_path / "model", f"{PREFIX}comparing,{PREFIX}addition"
    random_model(folder, 32, 0)
    wanted = lm_eval(tmp_path, "hf", {"pretrained": str(folder), "dtype": "float32"}, tasks, 15)
    with Server(LocalModel.load(folder, "lab:test")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        arguments = {
            "model": "lab:test", "base_url": f"{server.url}/completions", "tokenizer": str(folder), "max_length": 256, "add_bos_token": True,
            "num_concurrent": 4,
        }  # fmt: skip
        found = lm_eval(tmp_path, "local-completions", arguments, tasks, 15)
        server.shutdown()
    for task in wanted:
        assert len(wanted[task]) == len(found[task]) == (30 if "addition" in task else 15)  # two extractors
        for one, two in zip(wanted[task], found[task], strict=True):
            assert one["prompt"] == two["prompt"]
            if "comparing" in task:
                for (a, greedy_a), (b, greedy_b) in zip(one["answer"], two["answer"], strict=True):
                    assert float(a) == pytest.approx(float(b), abs=1e-3)
                    assert greedy_a == greedy_b
            else:
                assert one["answer"] == two["answer"]
