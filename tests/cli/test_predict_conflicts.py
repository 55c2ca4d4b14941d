"""aligntax predict conflicts as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

Run = Callable[..., subprocess.CompletedProcess[str]]
ONE = ("--safety", "lab/harmful_procedures:lab/procedures")
TWO = ("--safety", "lab/torn:lab/secrecy")
TASKS = ("--capabilities", "lab/addition,lab/stories", "--items", "64", "--prompts", "96")


def test_conflicts(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("predict", "conflicts", "lab:base-w32", *ONE, *TWO, *TASKS, "--out", "made")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "Objectives against each other" in said
    assert "Keeping a task as it is never makes more safety attainable" in said
    assert "nan" not in said
    assert "lab/torn:lab/secrecy, layers: unsafe prompts: 48 read" in done.stderr
    assert "report: made/prediction.html" in done.stderr
    told = json.loads((tmp_path / "made" / "prediction.json").read_text())
    assert (told["kind"], len(told["objectives"]), len(told["pairs"])) == ("conflicts", 2, 1)
    assert "<script" not in (tmp_path / "made" / "prediction.html").read_text()


def test_a_dry_run_reads_nothing(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("predict", "conflicts", "lab:base-w32", *ONE, *TWO, *TASKS, "--dry-run", "--out", "made")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "base-w32, template raw: lab/harmful_procedures:lab/procedures (186 and 282 prompts), lab/torn:lab/secrecy (300 and 134 prompts); 2 tasks with 128 items."
    )
    assert not (tmp_path / "made").exists()


def test_one_objective_is_no_conflict(aligntax: Run) -> None:
    done = aligntax("predict", "conflicts", "lab:base-w32", *ONE, *TASKS)
    assert done.returncode == 2
    assert "a conflict takes two safety objectives or more, and --safety names 1; give it once for each of them" in " ".join(
        done.stderr.split()
    )
    assert "Traceback" not in done.stderr
