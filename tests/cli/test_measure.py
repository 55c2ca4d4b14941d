"""The commands that run models, as a user calls them, on the embedded models."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import aligntax as package
from tests.conftest import need

for module, extra in (("torch", "cpu"), ("transformers", "models")):
    need(module, extra)

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("lab:base-w32", "lab:sft-w32", "--tasks", "lab/procedures,lab/persuasion", "--limit", "6")


def kept(store: Path) -> int:
    """Answers in a store; none while it is being made or written."""
    try:
        with sqlite3.connect(store) as db:
            return int(db.execute("SELECT count(*) FROM answers_1").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def test_a_run_and_the_same_from_python(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("measure", *SMALL, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)  # stdout holds the ledger and nothing else
    arms = {e["baseline"] for e in found["entries"]} | {e["candidate"] for e in found["entries"]}
    assert arms == {"base-w32-raw", "sft-w32-raw", "base-w32-chat", "sft-w32-chat"}
    total = next(e for e in found["entries"] if e["task"] == "lab_persuasion" and "weights_effect" in e["details"])
    assert total["details"]["weights_effect"] + total["details"]["elicitation_effect"] == pytest.approx(total["change"])
    assert any(e["kind"] == "divergence" and e["change"] > 0.5 for e in found["entries"])
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    page = (tmp_path / "run" / "report.html").read_text()
    for heading in ("Stages", "Weights or template?"):
        assert heading in page
    again = package.measure(
        "lab:base-w32", "lab:sft-w32", tasks=["lab/procedures", "lab/persuasion"], limit=6, answers=tmp_path / ".answers.sqlite"
    )
    assert again.to_dict() == found


def test_a_dry_run_asks_and_writes_nothing(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("measure", *SMALL, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "48 requests, 48 of them to be asked; nothing was asked" in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


def test_a_killed_run_goes_on(tmp_path: Path, aligntax: Run) -> None:
    arguments = [
        "measure",
        "lab:base-w32",
        "lab:sft-w32",
        "--tasks",
        "lab",
        "--limit",
        "40",
        "--template",
        "raw",
        "--out",
        "run",
        "--no-divergence",
    ]
    first = subprocess.Popen(
        [sys.executable, "-m", "aligntax", *arguments], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    store = tmp_path / ".answers.sqlite"
    deadline = time.monotonic() + 100
    while not (store.is_file() and store.stat().st_size > 0 and kept(store) > 0):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    before = kept(store)
    assert not (tmp_path / "run").exists()
    done = aligntax(*arguments)
    assert done.returncode == 0, done.stderr
    assert kept(store) > before
    plan = aligntax(*arguments, "--dry-run")
    assert " 0 of them to be asked" in " ".join(plan.stdout.split())
    assert (tmp_path / "run" / "MANIFEST.json").is_file()


def test_a_study_file(tmp_path: Path, aligntax: Run) -> None:
    study = {
        "baseline": "base",
        "arms": {
            "tuned": {"model": "lab:sft-w32", "template": "chat", "parent": "base", "shots": 1},
            "base": {"model": "lab:base-w32", "system": "do: "},
        },
        "tasks": [{"use": "lab/facts", "limit": 5, "kind": "helpfulness"}, {"use": "lab_addition", "limit": 4}],
        "analysis": {"margin": 0.2},
    }
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    done = aligntax("run", "study.yaml", "--json")
    assert done.returncode == 0, done.stderr
    entries = json.loads(done.stdout)["entries"]
    assert {e["task"]: e["n"] for e in entries if e["task"].startswith("lab_")} == {"lab_facts": 5, "lab_addition": 4}
    facts = next(e for e in entries if e["task"] == "lab_facts")
    assert (facts["kind"], facts["margin"], facts["baseline"], facts["candidate"]) == ("helpfulness", 0.2, "base", "tuned")
    assert any("prompts differ" in check for check in facts["checks"])


def study_of(**change: Any) -> str:
    arms = {"a": {"model": "lab:base-w32"}, "b": {"model": "lab:sft-w32", "parent": "a"}}
    return json.dumps({"baseline": "a", "arms": arms, "tasks": [{"use": "lab/facts"}], **change})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no study: a mapping"),
        ("a: [1", "is no YAML"),
        ("baseline: a\nbaseline: b", "the key 'baseline' stands in line 1 and again in line 2"),
        ("a: !!python/object/apply:os.system ['true']", "is no YAML"),
        (study_of(baseline="c"), "the baseline 'c' is not an arm"),
        (study_of(arms={"a": {"model": "lab:base-w32"}}), "arms:"),
        (study_of(colour="red"), "colour: Extra inputs are not permitted"),
        (study_of(tasks=[{"use": "lab/fact"}]), "did you mean lab_facts"),
        (study_of(tasks=[{"use": "lab/facts", "limit": 0}]), "tasks.0.limit"),
        (study_of(arms={"a": {"model": "lab:bse"}, "b": {"model": "lab:sft", "parent": "a"}}), "did you mean base"),
        (study_of(arms={"a": {"model": "lab:base"}, "b": {"model": "lab:sft", "parent": "z"}}), "parent 'z', which is not an arm"),
        (study_of(tasks=[{"use": "lab/facts", "kind": "nonsense"}]), "must be one of"),
        (study_of(analysis={"margin": 0}), "margin"),
    ],
)
def test_bad_study_files(tmp_path: Path, aligntax: Run, text: str, message: str) -> None:
    (tmp_path / "study.yaml").write_text(text)
    done = aligntax("run", "study.yaml")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["study.yaml"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lab:base", "nowhere"), "is no model"),
        (("lab:base", "lab:stf"), "did you mean sft"),
        (("lab:base", "lab:sft", "--tasks", "lab/adition"), "did you mean lab_addition"),
        (("lab:base", "lab:sft", "--tasks", ""), "no tasks were named"),
        (("lab:base", "lab:sft", "--template", "soap"), "raw, chat or both"),
        (("lab:base", "lab:sft", "--num-fewshot", "99"), "has 20 shots; 99 were asked for"),
        (("lab:base", "lab:sft", "--stage", "dpo"), "NAME=MODEL"),
        (("lab:base", "lab:sft", "--names", "one"), "two names"),
        (("lab:base", "lab:sft", "--device", "warp"), "cannot be used here"),
        (("lab:base", "lab:sft", "--limit", "0"), "Invalid value for '--limit'"),
        (("lab:base", "api:http://127.0.0.1:9/v1#m"), "127.0.0.1:9"),
        (("lab:base", "lab:sft", "--out", "taken"), "name a new or empty folder"),
        (("lab:base", "lab:sft", "--out", "taken/file/run"), "cannot be written"),
        (("lab:base", "lab:sft", "--temperature", "inf"), "temperature"),
        (("lab:base", "lab:sft", "--trials", "10001"), "trials: Input should be less than or equal to 10000"),
        (("lab:base", "lab:sft", "--by", "nothing"), "no item has a label 'nothing'"),
        (("lab:base", "lab:sft", "--template", "raw", "--apply-chat-template"), "is --template chat"),
        (("lab:base", "lab:sft", "--json", "--markdown"), "name one of them"),
    ],
)
def test_bad_arguments(tmp_path: Path, aligntax: Run, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    done = aligntax("measure", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert {p.name for p in tmp_path.iterdir()} == {"taken"}
