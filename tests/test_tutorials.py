"""The notebooks run from top to bottom, as a reader would run them."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import need

TUTORIALS = sorted((Path(__file__).parent.parent / "docs" / "tutorials").glob("*.ipynb"))


def test_there_are_two() -> None:
    assert [path.stem for path in TUTORIALS] == ["checkpoints", "logs"]


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in (("torch", "cpu"), ("transformers", "models")):
        need(module, extra)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, Any] = {}
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") for cell in cells)  # nothing printed that nobody computed
    for number, cell in enumerate(cells):
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            exec(compile(tree, f"{path.name}, cell {number}", "exec"), names)
    assert len(names["ledger"]) > 5
