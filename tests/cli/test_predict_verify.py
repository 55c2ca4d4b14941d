"""aligntax predict verify as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.cli.predict_verify import verify
from aligntax.core.errors import InputError
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.measure import Models, Options, measure, plan, stage_tree
from aligntax.models.references import open_model, parse
from aligntax.predict.inputs import capabilities, read_objective
from aligntax.predict.results import Settings, as_json
from aligntax.predict.tax import predict_tax
from aligntax.store.answers import Answers
from aligntax.store.run import write_run
from aligntax.tasks.find import find_tasks
from tests.support.tables import write_csv

Run = Callable[..., subprocess.CompletedProcess[str]]
TASKS = ("lab_addition", "lab_honesty", "lab_stories")
SAFETY = "lab/harmful_procedures:lab/procedures"
ITEMS = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``run``: the base and its tuned model, asked 80 items of three tasks; with a page that nobody reads."""
    place = tmp_path_factory.mktemp("verify")
    specs, contrasts = stage_tree([("base", "lab:base-w32", None), ("sft", "lab:sft-w32", "base")], ["raw"], Elicitation())
    with Models(Options()) as models, Answers(None) as answers:
        planned = plan(specs, contrasts, [(task, 80) for task in find_tasks(TASKS)], Analysis(), models)
        with measure(planned, answers, lambda *_: None, lambda *_: None) as found:
            write_run(place / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    return place


@pytest.fixture(scope="module")
def prediction(folder: Path) -> Path:
    """``prediction.json``, without what takes long."""
    base: Any = open_model(parse("lab:base-w32"))
    want = Settings(items=ITEMS, prompts=128, concepts=0, step=False, metrics=False, direction="states")
    made = predict_tax(base, read_objective(SAFETY, "raw"), capabilities(TASKS, "raw"), want)
    base.close()
    path = folder / "prediction.json"
    path.write_text(as_json(made), encoding="utf-8")
    return path


def prompts(path: Path, completion: str = "") -> Path:
    """A table of 64 prompts on either side; with what training would have the model say to unsafe ones, or without."""
    objective = read_objective(SAFETY, "raw")
    sides = (("unsafe", objective.unsafe), ("safe", objective.safe))
    return write_csv(
        path, [{"prompt": one.wording, "label": label, "completion": completion} for label, side in sides for one in side[:64]]
    )


def test_a_prediction_that_is_made_now(folder: Path, tmp_path: Path, aligntax: Run) -> None:
    table = prompts(tmp_path / "prompts.csv", " i cannot help with that.")
    what = ("--base", "lab:base-w32", "--safety", table, "--items", ITEMS, "--capabilities", "lab/addition,lab/stories")
    done = aligntax("predict", "verify", folder / "run", *what, "--out", "made")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert "could not be held against what was lost: not identified: 2 tasks, and it takes at least 8." in said
    assert "Where training moved the states" in said
    assert "lab_honesty left out: the prediction does not have it" in said
    assert "nan" not in said
    assert "report: made/verification.html" in done.stderr
    told = json.loads((tmp_path / "made" / "verification.json").read_text())
    assert (told["kind"], told["base"], [one["arm"] for one in told["arms"]]) == ("verification", "base", ["sft"])
    assert {p["stage"] for p in told["points"]} == {"sft"}  # an embedded model is found by itself
    assert {p["where"] for p in told["points"]} == {"unsafe prompts", "prompts of tasks"}
    drops = {d["task"]: d for d in told["arms"][0]["drops"]}
    assert set(drops) == {"lab_addition", "lab_stories"}
    assert all(40 <= d["items"] < 80 for d in drops.values())  # of 80, some were seen
    names = {p["name"] for p in told["predictors"]}
    assert {"answers lost in a step", "overlap, opposed", "surprise"} <= names
    page = (tmp_path / "made" / "verification.html").read_text()
    assert "<script" not in page
    assert "could not be drawn" not in page


def test_a_prediction_that_was_made_before(folder: Path, prediction: Path, aligntax: Run) -> None:
    done = aligntax("predict", "verify", folder / "run", "--prediction", prediction, "--json", "--margin", "0.1")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert (told["kind"], told["margin"], told["points"]) == ("verification", 0.1, [])
    whole = json.loads(prediction.read_text())
    assert told["prediction"]["tax_rates"]["safety"] == pytest.approx(
        next(one["fit"]["estimate"] for one in whole["layers"] if one["layer"] == whole["layer"])
    )
    for drop in told["arms"][0]["drops"]:
        used = {one["item"] for one in whole["used"][drop["task"]]}
        assert len(used) == ITEMS // 2
        assert drop["items"] == 80 - len(used & {str(n) for n in range(80)})


def test_one_sentence_and_exit_code_2(folder: Path, tmp_path: Path, aligntax: Run) -> None:
    (tmp_path / "old.json").write_text('{"kind": "tax", "schema": 1}')
    done = aligntax("predict", "verify", folder / "run", "--prediction", "old.json", "--out", "made")
    assert done.returncode == 2
    assert done.stderr == "error: old.json has schema 1, and this version reads 2; make the prediction again\n"
    assert done.stdout == ""
    assert not (tmp_path / "made").exists()


# -- what is refused, without a process of its own ------------------------------------------------------------------------------------


def typed(*arguments: object) -> Result:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(verify)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def refused(*arguments: object) -> str:
    error = typed(*arguments).exception
    assert isinstance(error, InputError), error
    assert "\n" not in str(error)
    return str(error)


MODEL = ("--base", "lab:base-w32", "--safety", SAFETY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to hold against the run: --base MODEL with --safety PROMPTS, or --prediction FILE"),
        (("--base", "lab:base-w32"), "--base MODEL with --safety PROMPTS"),
        (("--safety", SAFETY), "--base MODEL with --safety PROMPTS"),
        ((*MODEL, "--prediction", "x.json"), "or --prediction FILE"),
        (("--prediction", "x.json", "--safety", SAFETY), "or --prediction FILE"),
        (
            ("--prediction", "x.json", "--template", "chat"),
            "--prediction was made with its own settings; --template cannot be changed or used now",
        ),
        (("--prediction", "x.json", "--capabilities", "lab", "--answer", "no"), "--capabilities, --answer cannot be changed or used now"),
        (("--prediction", "x.json"), "x.json cannot be read"),
        ((*MODEL, "--template", "spoken"), "--template is raw or chat; got 'spoken'"),
        ((*MODEL, "--capabilities", "lab/adition"), "did you mean lab_addition"),
        ((*MODEL, "--capabilities", ","), "no tasks were named"),
        ((*MODEL, "--stage", "sft"), "--stage takes ARM=MODEL; got 'sft'"),
        ((*MODEL, "--stage", "=x\x1b"), r"--stage takes ARM=MODEL; got '=x\x1b'"),
        (("--base", "api:http://127.0.0.1:9/v1#m", "--safety", SAFETY), "is an endpoint, which shows no states"),
        (("--base", "lab:base-w32", "--safety", "nowhere.csv"), "nowhere.csv cannot be read: no such file"),
    ],
)
def test_bad_input(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    assert said in refused(folder / "run", *arguments)


def test_no_run(tmp_path: Path) -> None:
    assert "is not a run directory" in refused(tmp_path / "nowhere", "--prediction", "x.json")


def test_bad_arms(folder: Path, prediction: Path) -> None:
    run = folder / "run"
    assert "run has no arm 'nobody'; it has base, sft" in refused(run, "--prediction", prediction, "--baseline", "nobody")
    assert "sft has other weights than the base-w32" in refused(run, "--prediction", prediction, "--baseline", "sft")
    assert "run has no arm 'x' beside the base; it has sft" in refused(run, "--prediction", prediction, "--arm", "x")


@pytest.fixture(scope="module")
def quick(folder: Path) -> tuple[str, ...]:
    """A prediction without a step: a table that does not say what training would teach."""
    path = prompts(folder / "prompts.csv")
    return ("--base", "lab:base-w32", "--safety", str(path), "--items", str(ITEMS), "--capabilities", "lab/addition,lab/stories")


def test_a_stage_that_is_no_arm(folder: Path, quick: tuple[str, ...]) -> None:
    said = refused(folder / "run", *quick, "--stage", "nobody=lab:sft-w32")
    assert "--stage 'nobody' is no arm of the run; these are base, sft" in said


def test_a_stage_of_other_weights_shows_no_shift(folder: Path, quick: tuple[str, ...]) -> None:
    done = typed(folder / "run", *quick, "--stage", "sft=lab:dpo-w32", "--json")
    assert done.exit_code == 0, done.exception
    assert "sft shows no shift: lab:dpo-w32 has other weights than the run's arm" in done.stderr
    told = json.loads(done.stdout)
    assert told["points"] == []
    assert "answers lost in a step" not in {p["name"] for p in told["predictors"]}


def test_shifts_are_left_out(folder: Path, quick: tuple[str, ...]) -> None:
    done = typed(folder / "run", *quick, "--no-shifts", "--stage", "sft=nowhere", "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["points"] == []


@pytest.mark.parametrize("options", [("--stage", "sft=lab:sft-w32"), ("--items", "64"), ("--clusters",)])
def test_options_that_do_nothing_with_a_prediction_are_refused(folder: Path, prediction: Path, options: tuple[str, ...]) -> None:
    assert options[0] in refused(folder / "run", "--prediction", prediction, *options)


def test_a_margin_is_a_number(folder: Path, prediction: Path) -> None:
    assert "margin" in refused(folder / "run", "--prediction", prediction, "--margin", "inf")
    assert typed(folder / "run", "--prediction", prediction, "--margin", "nan").exit_code == 2
