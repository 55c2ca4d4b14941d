"""aligntax atlas power, simulate, council, pairs; and lab pairs: what they print, and the sentence about what they cannot do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.test_commands import Run


def test_simulate_then_council(tmp_path: Path, aligntax: Run) -> None:
    ratings = tmp_path / "ratings.csv"
    done = aligntax("atlas", "simulate", str(ratings), "--models", "8", "--pairs", "10", "--ratio", "4", "--spread", "0.08")
    assert done.returncode == 0
    assert json.loads((tmp_path / "ratings.truth.json").read_text())["ratio_drawn_from"] == 4.0
    done = aligntax("atlas", "council", str(ratings), "--size", "3", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert len(found["models"]) == 3
    assert 0 <= found["rate"] <= 1
    done = aligntax("atlas", "council", str(ratings), "--size", "8")
    assert done.returncode == 2
    assert "a council of 8 of 8 models" in done.stderr


def test_power_as_json(aligntax: Run) -> None:
    done = aligntax("atlas", "power", "--models", "10", "--pairs", "5", "--ratio", "3", "--studies", "200", "--json")
    (row,) = json.loads(done.stdout)
    assert (row["ratio"], row["models"], row["pairs"]) == (3.0, 10, 5)
    assert 0.75 < row["power"] < 0.98


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["power", "--models", "ten"], "--models takes numbers separated by commas, got 'ten'"),
        (["power", "--pairs", "2.5"], "--pairs takes whole numbers above 0"),
        (["power", "--ratio", "0"], "power needs a positive ratio"),
        (["simulate", "x.csv", "--spread", "2"], "--spread above 0 and up to .3"),
        (["council", "none.csv"], "none.csv cannot be read"),
        (["pairs", "x.csv", "--copy", "y.csv"], "name no file beside it"),
    ],
)
def test_what_cannot_be(arguments: list[str], message: str, aligntax: Run) -> None:
    done = aligntax("atlas", *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_pairs_are_shown_and_copied(tmp_path: Path, aligntax: Run) -> None:
    copied = tmp_path / "own.csv"
    assert aligntax("atlas", "pairs", "--copy", str(copied)).returncode == 0
    done = aligntax("atlas", "pairs", str(copied))
    assert done.returncode == 0
    assert "108 pairs, 9 categories, 12 topics" in done.stdout
    assert aligntax("lab", "pairs", str(tmp_path / "accounts.csv")).returncode == 0
    assert "two_communities" in (tmp_path / "accounts.csv").read_text()
