"""Guards from a study file and from Python, on embedded models."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import aligntax as package
from aligntax.cli.main import app
from aligntax.core.errors import InputError
from aligntax.core.guards import Guard
from tests.conftest import need

for module, extra in (("torch", "cpu"), ("transformers", "models")):
    need(module, extra)

NO = "i cannot help with that."
MAKE = r"\bmake an? \w+ \w+"
STUDY = """
baseline: bare
arms:
  bare: {model: "lab:base-w32"}
  guarded:
    model: "lab:base-w32"
    parent: bare
    guards: GUARDS
    instead: i cannot help with that.
tasks:
  - {use: lab/harmful_procedures, limit: 6}
  - {use: lab/look_alikes, limit: 6}
"""
GUARDS = (
    r'[{name: words, where: input, pattern: "\\bmake an? \\w+ \\w+"}, '
    '{name: judge, where: output, model: "lab:base-w32", template: raw, max_tokens: 2, ask: "{prompt} {answer}", blocks: "^no such reply$"}]'
)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def written(guards: str) -> Path:
    path = Path("study.yaml")
    path.write_text(STUDY.replace("GUARDS", guards))
    return path


def test_a_study_with_guards_from_file_and_python(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", str(written(GUARDS)), "--dry-run", "--latency", "2"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.split())
    assert "guarded is guarded: words (input), judge (output, asks base-w32); what they block becomes 'i cannot help with that.'" in said
    assert "Moderators are asked up to 12 times more, each once about equal texts." in said
    assert "1 models are in memory at once" in said
    ledger = package.run("study.yaml", out="run")
    assert [ledger.find(f"lab_{task}", "blocked").candidate_value for task in ("harmful_procedures", "look_alikes")] == [1.0, 0.0]
    assert ledger.find("lab_harmful_procedures", "exact_match,strict-match").change == 1.0
    assert ledger.find("lab_look_alikes", "exact_match,strict-match").change == 0.0
    assert package.load("run") == ledger
    stored = (tmp_path / "run" / "study.yaml").read_text()
    assert "pattern" in stored
    assert "check" not in stored
    # Both models are one: named, one of them is guarded by a function.
    from_python = package.measure(
        "lab:base-w32", "lab:base-w32", names=("bare", "guarded"), tasks="lab/harmful_procedures,lab/look_alikes", limit=6, template="both",
        guards={"guarded": [Guard(name="make", where="input", check=lambda text: " make " in text, version="1")]}, instead=NO, divergence=False,
    )  # fmt: skip
    for candidate in ("guarded-raw", "guarded-chat"):
        assert from_python.find("lab_harmful_procedures", "blocked", candidate=candidate, baseline="bare-raw").candidate_value == 1.0


@pytest.mark.parametrize(
    ("guards", "message"),
    [
        (
            "[{name: w, where: inside, pattern: x}]",
            "study.yaml: arms.guarded.guards.0: guard 'w': where must be input (reads the question)",
        ),
        ("[{name: w, where: input, pattern: '('}]", "guard 'w': pattern '(' is no regular expression"),
        ("[{name: w, where: input, check: os.system}]", "a guard in a file has no check: a file names no code; give functions from Python"),
        ("[{name: w, where: input, pattern: x}, {name: w, where: output, pattern: x}]", "two guards of one arm are named 'w'"),
        ("[]", "instead is what the user gets in place of what a guard blocks, and there are no guards"),
        ("words", "arms.guarded.guards: Input should be a valid"),
        ("[{name: m, where: output, model: nowhere, ask: '{answer}', blocks: x}]", "nowhere is no model"),
        ("[5]", "arms.guarded.guards.0: "),
    ],
)
def test_bad_guards_in_a_file(guards: str, message: str) -> None:
    done = CliRunner().invoke(app, ["run", str(written(guards)), "--dry-run"])
    assert isinstance(done.exception, InputError) or done.exit_code == 2, done.output
    said = str(done.exception) if isinstance(done.exception, InputError) else done.output
    assert message in " ".join(said.split())


def test_bad_guards_from_python() -> None:
    guard = Guard(name="w", where="input", pattern="x")
    for given, message in (
        ({"guards": {"nobody": [guard]}}, "guards are given for 'nobody', which is no arm; arms: bare, guarded"),
        ({"guards": {"guarded": ["words"]}}, r"guards of 'guarded' must be a list of Guard, got \['words'\]"),
        ({"guards": {"guarded": guard}}, "guards of 'guarded' must be a list of Guard"),
        ({"guards": [guard]}, "guards are given by the name of an arm"),
        ({"guards": {"guarded": [guard, guard]}}, "two guards of one arm are named 'w'"),
        ({"instead": "no."}, "instead is what the user gets in place of what a guard blocks, and there are no guards"),
    ):
        with pytest.raises(InputError, match=message):
            package.measure(
                "lab:base-w32", "lab:sft-w32", names=("bare", "guarded"), tasks="lab/look_alikes", limit=2, template="raw", **given
            )  # type: ignore[arg-type]
