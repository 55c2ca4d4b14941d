"""aligntax predict scaling as a user types it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.cli.predict_scaling import scaling
from aligntax.core.errors import InputError

Run = Callable[..., subprocess.CompletedProcess[str]]
SAFETY = "lab/harmful_procedures:lab/procedures"
TASKS = "lab/addition,lab/stories,lab/honesty,lab/brackets"


def test_two_widths(tmp_path: Path, aligntax: Run) -> None:
    """Rates are told, and no law is fitted to so few."""
    given = ("predict", "scaling", "lab:base-w48", "lab:base-w64", "--safety", SAFETY, "--capabilities", TASKS)
    done = aligntax(*given, "--items", "96", "--concepts", "0", "--out", "made")
    assert done.returncode == 0, done.stderr
    said = " ".join(done.stdout.split())
    assert f"{SAFETY} in wider models, before any training." in said
    assert "no law is fitted: rates are known at" in said
    assert "base-w48: " in done.stderr
    assert "report: made/prediction.html" in done.stderr
    told = json.loads((tmp_path / "made" / "prediction.json").read_text())
    assert (told["kind"], told["by_width"]["study"]) == ("scaling", None)
    assert [(one["model"], one["width"], one["layer"]) for one in told["models"]] == [("base-w48", 48, 2), ("base-w64", 64, 2)]
    assert "<script" not in (tmp_path / "made" / "prediction.html").read_text()


@pytest.mark.parametrize(
    ("models", "more", "said"),
    [
        (
            ["lab:base", "lab:base-s1"],
            {},
            "takes models of different widths: two to compare, 3 for a law, 5 to compare laws; all 2 have 128 dimensions",
        ),
        (["lab:base-w32", "lab:base-w32"], {}, "base-w32 and base-w32 are one model; name every model once"),
        (["lab:base-w32", "api:http://127.0.0.1:9/v1#m"], {}, "is an endpoint, which shows no states"),
        (["lab:base-w32", "lab:nobody"], {}, "nobody"),
        (["lab:base-w32", "lab:base-w48"], {"template": "spoken"}, "--template is raw or chat; got 'spoken'"),
        (["lab:base-w32", "lab:base-w48"], {"capabilities": ["lab/adition"]}, "did you mean lab_addition"),
        (["lab:base-w32", "lab:base-w48"], {"safety": "nowhere.csv"}, "nowhere.csv cannot be read: no such file"),
    ],
)
def test_bad_input(models: list[str], more: dict[str, object], said: str) -> None:
    given: dict[str, object] = {"safety": SAFETY, "capabilities": [TASKS], **more}
    with pytest.raises(InputError, match=said):
        scaling(models, **given)  # type: ignore[arg-type]


def test_a_dry_run_reads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scaling(["lab:base-w32", "lab:base-w48"], SAFETY, [TASKS], items=96, dry_run=True, out=tmp_path / "made")
    assert capsys.readouterr().out.startswith(
        "base-w32 (32), base-w48 (48); template raw: 186 and 282 prompts, 4 tasks with 384 items. Nothing was read."
    )
    assert not (tmp_path / "made").exists()
