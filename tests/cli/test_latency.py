"""Timing from the command line, on embedded models."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import aligntax as package
from aligntax.cli.main import app
from aligntax.core.errors import InputError
from tests.conftest import need

for module, extra in (("torch", "cpu"), ("transformers", "models")):
    need(module, extra)

Run = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("lab:base-w32", "lab:sft-w32", "--tasks", "lab/persuasion,lab/brighter", "--limit", "6", "--template", "raw", "--no-divergence")


def test_a_run_with_times(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("measure", *SMALL, "--latency", "4", "--latency-rounds", "2", "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    entries = {(e["task"], e["metric"]): e for e in json.loads(done.stdout)["entries"]}
    whole = entries["lab_persuasion", "request_latency"]
    assert whole["n"] == 4
    assert whole["baseline_value"] > entries["lab_persuasion", "time_to_first_token"]["baseline_value"] > 0
    parts = sum(whole["details"][f"{part}_effect"] for part in ("first_token", "verbosity", "speed"))
    assert parts == pytest.approx(whole["change"], rel=0.2, abs=0.005)  # medians over rounds were taken of each by itself
    assert entries["lab_persuasion", "output_tokens_per_second"]["higher_is_better"] is True
    assert ("lab_brighter", "request_latency") not in entries  # it is answered by likelihood
    assert "timing: 16 of 16 answers" in done.stderr
    told = json.loads((tmp_path / "run" / "provenance.json").read_text())["arms"]["sft-w32"]["settings"]["latency"]
    assert (told["prompts"], told["rounds"], told["device"], told["failed"], told["same_text_as_scored"]) == (4, 2, "cpu", 0, "8 of 8")


def test_a_dry_run_says_what_would_be_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["measure", *SMALL, "--latency", "4", "--dry-run"])
    assert done.exit_code == 0, done.output
    said = "Then 24 answers are timed, one at a time (4 prompts, 2 arms, 3 rounds), after 6 that are not counted; 2 models are in memory at once"
    assert said in " ".join(done.stdout.split())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--latency", "0"), "Invalid value for '--latency'"),
        (("--latency-rounds", "2"), "latency_rounds says how often each prompt is timed; say with latency how many prompts are"),
    ],
)
def test_bad_arguments(tmp_path: Path, aligntax: Run, arguments: tuple[str, ...], message: str) -> None:
    done = aligntax("measure", *SMALL, *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_same_from_python_and_from_a_file(tmp_path: Path) -> None:
    arms = {"a": {"model": "lab:base-w32"}, "b": {"model": "lab:sft-w32", "parent": "a"}}
    tasks = [{"use": "lab/persuasion", "limit": 4}]
    (tmp_path / "study.yaml").write_text(
        json.dumps({"baseline": "a", "arms": arms, "tasks": tasks, "latency": {"prompts": 2, "rounds": 1}})
    )
    found = package.run(tmp_path / "study.yaml", divergence=False, device="cpu")
    assert found.find("lab_persuasion", "request_latency").n == 2
    more = package.run(tmp_path / "study.yaml", divergence=False, device="cpu", latency=3)
    assert more.find("lab_persuasion", "request_latency").n == 3
    with pytest.raises(InputError, match=r"latency is the number of prompts to be timed of every task, from 1 to 1,000,000; got 0"):
        package.measure("lab:base-w32", "lab:sft-w32", tasks="lab/persuasion", latency=0)
    with pytest.raises(
        InputError, match="no task here asks for any: lab_brighter; add a task that is answered in words, or leave latency out"
    ):
        package.measure("lab:base-w32", "lab:sft-w32", tasks="lab/brighter", latency=4)
