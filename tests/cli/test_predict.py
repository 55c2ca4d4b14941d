"""aligntax predict as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.cli.predict import app
from aligntax.core.errors import InputError, LogError

Run = Callable[..., subprocess.CompletedProcess[str]]
SAFETY = ("--safety", "lab/harmful_procedures:lab/procedures")
WHAT = (
    "predict",
    "tax",
    "lab:base-w32",
    *SAFETY,
    "--capabilities",
    "lab/addition,lab/stories,lab/honesty,lab/brackets",
    "--items",
    "96",
    "--prompts",
    "96",
)


def test_a_prediction(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax(*WHAT, "--out", "made")
    assert done.returncode == 0, done.stderr
    assert "lab/harmful_procedures:lab/procedures as base-w32 sees it, before any training." in " ".join(done.stdout.split())
    assert "Tasks by predicted risk" in done.stdout
    assert "lab_addition: 48 read" in done.stderr
    assert "report: made/prediction.html" in done.stderr
    told = json.loads((tmp_path / "made" / "prediction.json").read_text())
    assert {r["task"] for r in told["risks"]} <= {"lab_addition", "lab_stories", "lab_honesty", "lab_brackets"}


# -- without a process of its own ----------------------------------------------------------------------------------------------------


def typed(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(one) for one in arguments[1:]])  # without "predict"


def test_json_alone_and_a_dry_run(tmp_path: Path) -> None:
    done = typed(*WHAT, "--json", "--no-step", "--no-metrics", "--direction", "states")
    assert json.loads(done.stdout)["kind"] == "tax"
    dry = typed(*WHAT, "--dry-run", "--out", tmp_path / "made")
    assert dry.exit_code == 0
    assert dry.stdout.startswith("base-w32, template raw: 186 and 282 prompts, 4 tasks with 384 items. Nothing was read.")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("predict", "tax", "api:http://127.0.0.1:9/v1#m", *SAFETY, "--capabilities", "lab/addition"),
            "is an endpoint, which shows no states",
        ),
        (
            ("predict", "tax", "lab:base-w32", *SAFETY, "--capabilities", "lab/addition", "--template", "spoken"),
            "--template is raw or chat; got 'spoken'",
        ),
        (
            ("predict", "tax", "lab:base-w32", "--safety", "nowhere.csv", "--capabilities", "lab/addition"),
            "nowhere.csv cannot be read: no such file",
        ),
        (("predict", "tax", "lab:base-w32", *SAFETY, "--capabilities", "lab/adition"), "did you mean lab_addition"),
        (("predict", "tax", "lab:base-w32", *SAFETY, "--capabilities", ","), "no tasks were named"),
        (("predict", "tax", "lab:nobody", *SAFETY, "--capabilities", "lab/addition"), "nobody"),
        ((*WHAT, "--layer", "9"), "--layer lies between 0 (the embeddings) and 4; got 9"),
    ],
)
def test_bad_input(arguments: tuple[str, ...], said: str) -> None:
    error = typed(*arguments).exception
    assert isinstance(error, InputError | LogError), error
    assert said in str(error)
    assert "\n" not in str(error)


def test_one_sentence_and_exit_code_2(aligntax: Run) -> None:
    done = aligntax(*WHAT, "--direction", "up")
    assert done.returncode == 2
    assert done.stderr == "error: --direction is auto, states or answers; got 'up'\n"


def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    done = typed(*WHAT, "--out", tmp_path / "file")
    assert isinstance(done.exception, InputError)
    assert "is a file, and --out names a folder" in str(done.exception)
    assert "read" not in done.stderr
    assert (tmp_path / "file").read_text() == "mine"
