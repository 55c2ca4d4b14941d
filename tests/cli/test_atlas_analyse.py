"""aligntax atlas analyse as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

MATRIX = """pair,category,GLM-5,Expanse,Llama,Skywork,Mistral
p1,control,90,92,91,88,90
p2,control,80,79,82,81,80
p3,control,85,84,88,86,85
p4,control,91,92,90,93,91
p5,clash,5,92,40,10,70
p6,clash,10,80,60,20,75
p7,clash,30,90,50,15,60
p8,clash,20,85,55,5,65
"""
MODELS = "model,country,stage\nGLM-5,CN,dpo\nExpanse,CA,sft\nLlama,US,dpo\nSkywork,CN,sft\nMistral,FR,dpo\n"


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    (tmp_path / "models.csv").write_text(MODELS)
    (tmp_path / "matrix.csv").write_text(MATRIX)
    return tmp_path / "matrix.csv"


def test_a_matrix_collected_by_hand(matrix: Path, tmp_path: Path, aligntax: Run) -> None:
    done = aligntax(
        "atlas", "analyse", matrix, "--scale", "0:100", "--step", "1", "--models", "models.csv", "--group", "country", "--out", "atlas"
    )
    assert done.returncode == 0
    assert done.stdout.startswith("5 models rated how alike 8 pairs of sentences are in meaning.")
    assert "supported: Models disagree more about contested pairs than about controls." in done.stdout
    assert "the columns GLM-5, Expanse, Llama, Skywork, Mistral were taken for models" in " ".join(done.stdout.split())
    assert "report: atlas/atlas.html" in done.stderr
    told = json.loads((tmp_path / "atlas" / "atlas.json").read_text())
    assert told["pairs"][4]["range"] == pytest.approx(0.87)
    assert (told["pairs"][4]["lowest"], told["pairs"][4]["highest"]) == (["GLM-5"], ["Expanse"])
    assert [row["column"] for row in told["groups"]] == ["country", "country"]
    assert "<svg" in (tmp_path / "atlas" / "atlas.html").read_text()


def test_json_prints_the_numbers_and_nothing_else(matrix: Path, tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("atlas", "analyse", matrix, "--scale", "0:100", "--json", "--permutations", "99")
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["schema"], told["counts"]["models"], len(told["claims"])) == (1, 5, 7)
    assert not (tmp_path / "atlas").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "row 1, column GLM-5: rating is '90'; ratings are numbers from 0 to 1 (another scale is named with --scale"),
        (["--scale", "0-100"], "--scale takes LOW:HIGH with two numbers, such as 0:100; got '0-100'"),
        (["--scale", "0:100", "--order", "clash,zzz"], "--order names the category 'zzz', which no pair has; there are: control, clash"),
        (["--scale", "0:100", "--tau", "20"], "--tau lies between 0 and 1; got 20"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(matrix: Path, aligntax: Run, arguments: list[str], message: str) -> None:
    done = aligntax("atlas", "analyse", matrix, *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


FAMILY = "pair,category,model,rating,topic,parent\n" + "".join(
    f"{category} {t},{category},{model},{round(mean + 0.01 * t + extra * (category == 'clash'), 2)},t{t},{'base' if model == 'dpo' else ''}\n"
    for t in range(12)
    for category, mean in (("control", 0.7), ("clash", 0.2))
    for model, extra in (("base", 0.0), ("dpo", 0.2 + 0.01 * (t % 3)))
)


def test_a_second_analysis_replaces_the_ledger_of_the_first(tmp_path: Path, aligntax: Run) -> None:
    (tmp_path / "family.csv").write_text(FAMILY)
    for level in ("0.95", "0.9"):
        done = aligntax("atlas", "analyse", "family.csv", "--level", level, "--permutations", "99", "--out", "atlas")
        assert done.returncode == 0, done.stderr
        assert "stages of base: atlas/stages-1/report.html" in done.stderr
        ledger = json.loads((tmp_path / "atlas" / "stages-1" / "ledger.json").read_text())
        assert {e["level"] for e in ledger["entries"]} == {float(level)}
        assert {e["verdict"] for e in ledger["entries"] if e["task"] == "atlas_clash"} == {"tax"}


def test_what_is_not_ours_is_not_replaced_and_nothing_is_written(tmp_path: Path, aligntax: Run) -> None:
    (tmp_path / "family.csv").write_text(FAMILY)
    (tmp_path / "atlas" / "stages-1").mkdir(parents=True)
    (tmp_path / "atlas" / "stages-1" / "thesis.txt").write_text("mine")
    done = aligntax("atlas", "analyse", "family.csv", "--permutations", "99", "--out", "atlas")
    assert done.returncode != 0
    assert "stages-1 is a folder with other files in it" in done.stderr
    assert sorted(p.name for p in (tmp_path / "atlas").rglob("*")) == ["stages-1", "thesis.txt"]


def test_a_parent_that_rated_nothing_is_named_before_anything_is_written(tmp_path: Path, aligntax: Run) -> None:
    (tmp_path / "family.csv").write_text(FAMILY.replace("base\n", "elder\n"))
    done = aligntax("atlas", "analyse", "family.csv", "--out", "atlas")
    assert done.returncode == 2
    assert "dpo names the parent elder, which rated nothing" in done.stderr
    assert not (tmp_path / "atlas").exists()


def test_roles_that_were_named_hold_in_the_ledger(tmp_path: Path, aligntax: Run) -> None:
    (tmp_path / "family.csv").write_text(FAMILY.replace(",clash,", ",opposites,"))
    done = aligntax("atlas", "analyse", "family.csv", "--contradiction", "opposites", "--permutations", "99", "--out", "atlas")
    assert done.returncode == 0, done.stderr
    ledger = json.loads((tmp_path / "atlas" / "stages-1" / "ledger.json").read_text())
    assert {e["task"] for e in ledger["entries"]} == {"atlas_control"}
