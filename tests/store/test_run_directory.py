"""Run directories: complete or absent, checked when read, never somebody else's."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
import yaml

import aligntax
from aligntax import InputError
from aligntax.core.errors import RunError
from aligntax.flow.stored import reopen
from aligntax.store.run import arm_file, load_run
from tests.support.tables import mmlu_row, pair, write_csv, write_jsonl


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    return tuple(  # type: ignore[return-value]
        write_jsonl(tmp_path / f"{name}.jsonl", [mmlu_row(i, pred="AB"[(i + k) % 3 == 0]) for i in range(30)])
        for k, name in enumerate("ab")
    )


def made(logs: tuple[Path, Path], out: Path, **options: object) -> Path:
    aligntax.diff(*logs, cluster="src", by="category", out=out, **options)  # type: ignore[arg-type]
    return out


def test_what_is_in_it(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "deep" / "run")
    files = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    samples = {f"samples/{arm_file(n, k)}" for k, n in enumerate(("base", "candidate"))}
    assert files == samples | {
        "study.yaml",
        "provenance.json",
        "scores.parquet",
        "ledger.parquet",
        "ledger.json",
        "report.html",
        "MANIFEST.json",
    }
    manifest = json.loads((run / "MANIFEST.json").read_text())
    assert {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in manifest["files"]} == manifest["files"]
    assert set(manifest["files"]) == files - {"MANIFEST.json"}
    study = yaml.safe_load((run / "study.yaml").read_text())
    assert study["id"] == manifest["study"] == json.loads((run / "ledger.json").read_text())["study"]
    for path in run.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["run"]


def test_the_record_reads_back_exactly(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "run")
    ledger = aligntax.diff(*logs, cluster="src", by="category")
    assert aligntax.load(run) == ledger
    assert json.loads((run / "ledger.json").read_text()) == ledger.to_dict()
    with reopen(load_run(run)) as again:
        total, flips = again.flips("base", "candidate", "accuracy", limit=3)
    details = ledger[0].details
    assert total == details["lost"] + details["gained"]  # type: ignore[operator]
    assert {f.baseline_answer for f in flips} <= {"The answer is (A).", "The answer is (B)."}


def test_two_runs_are_equal_to_the_byte(logs: tuple[Path, Path], tmp_path: Path) -> None:
    one, two = made(logs, tmp_path / "one", bootstrap=200), made(logs, tmp_path / "two", bootstrap=200)
    assert (one / "MANIFEST.json").read_bytes() == (two / "MANIFEST.json").read_bytes()


def test_other_tools_can_read_the_rows(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "run")
    with duckdb.connect() as con:
        mean = con.execute(
            f"SELECT avg(x.value) FROM '{run}/scores.parquet' x JOIN (SELECT *, row_number() OVER () - 1 AS sample FROM '{run}/samples/00-base.parquet') s "
            "USING (sample) WHERE x.arm = 'base' AND s.subgroup = 'law'"
        ).fetchall()[0][0]
    assert mean == pytest.approx(aligntax.load(run).find("mmlu_pro/law").baseline_value)


def test_the_same_study_is_made_again_and_another_is_refused(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "run")
    made(logs, run)
    with pytest.raises(RunError, match="holds a complete run of another study"):
        aligntax.diff(*logs, out=run)
    assert aligntax.load(run).find("mmlu_pro").clusters == 5


@pytest.mark.parametrize("kind", ["a file", "a foreign folder"])
def test_what_is_not_ours_is_left_alone(logs: tuple[Path, Path], tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "a file":
        target.write_text("mine")
    else:
        target.mkdir()
        (target / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match="with --out"):
        made(logs, target)
    assert (target if kind == "a file" else target / "mine.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_an_unwritable_place_is_said(logs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot be written"):
        made(logs, tmp_path / "file" / "run")


@pytest.mark.parametrize("name", ["ledger.parquet", "study.yaml", "scores.parquet"])
def test_a_changed_or_missing_file_is_noticed(logs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    run = made(logs, tmp_path / "run")
    content = (run / name).read_bytes()
    (run / name).write_bytes(content + b" ")
    with pytest.raises(RunError, match="was changed after the run"):
        aligntax.load(run)
    (run / name).unlink()
    with pytest.raises(RunError, match=f"lacks {name}"):
        aligntax.load(run)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a run directory"):
        aligntax.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds no complete run"):
        aligntax.load(tmp_path)
    (tmp_path / "MANIFEST.json").write_text("[]")
    with pytest.raises(InputError, match="is no manifest"):
        aligntax.load(tmp_path)


def test_a_manifest_that_points_elsewhere_is_refused(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "run")
    manifest = json.loads((run / "MANIFEST.json").read_text())
    manifest["files"]["../a.jsonl"] = hashlib.sha256(logs[0].read_bytes()).hexdigest()
    (run / "MANIFEST.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match="lacks"):
        aligntax.load(run)


def test_names_of_arms_are_no_paths(tmp_path: Path) -> None:
    base, candidate = (write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate(pair(5, 2, 1, 4)))
    run = tmp_path / "run"
    aligntax.diff(base, candidate, names=("../../x/\x1b[31m", "con:aux*?"), out=run)
    assert sorted(p.name for p in (run / "samples").iterdir()) == ["00-x_31m.parquet", "01-con_aux.parquet"]
    assert aligntax.load(run)[0].baseline == "../../x/\x1b[31m"


def test_a_kill_leaves_no_run(tmp_path: Path) -> None:
    """Killed at several moments, the folder is either a complete run or not there; a later run is not disturbed."""
    base, candidate = (write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate(pair(4000, 300, 200, 1500)))
    out = tmp_path / "runs" / "run"
    command = [sys.executable, "-m", "aligntax", "diff", str(base), str(candidate), "--out", str(out)]
    for delay in (0.9, 1.3, 1.7):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not out.exists() or aligntax.load(out)[0].n == 6000
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert aligntax.load(out)[0].n == 6000
    assert os.listdir(out.parent)


def _resealed(run: Path) -> None:
    """The manifest as a careful forger would leave it."""
    manifest = json.loads((run / "MANIFEST.json").read_text())
    manifest["files"] = {name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in manifest["files"]}
    (run / "MANIFEST.json").write_text(json.dumps(manifest))


def _sql(run: Path, change: str) -> None:
    with duckdb.connect() as con:
        con.execute(f"CREATE TABLE l AS SELECT * FROM '{run}/ledger.parquet'")
        con.execute(change)
        con.execute(f"COPY l TO '{run}/ledger.parquet' (FORMAT parquet)")


FORGERIES: dict[str, tuple[Callable[[Path], object], str]] = {
    "study in another encoding": (lambda r: (r / "study.yaml").write_bytes(b"\xff\xfe\x00"), "is no study of this version"),
    "study that runs code": (
        lambda r: (r / "study.yaml").write_text('!!python/object/apply:os.system ["true"]'),
        "could not determine a constructor",
    ),
    "provenance without arms": (lambda r: (r / "provenance.json").write_text('{"arms": {"base": 3}}'), "must hold an object per arm"),
    "ledger with nan": (lambda r: _sql(r, "UPDATE l SET change = 'nan'"), "change: Input should be a finite number"),
    "ledger with an unknown verdict": (lambda r: _sql(r, "UPDATE l SET verdict = '<b>'"), "verdict: Input should be"),
    "ledger with negative counts": (lambda r: _sql(r, "UPDATE l SET n = -5"), "n: Input should be greater than or equal to 0"),
    "ledger without entries": (lambda r: _sql(r, "DELETE FROM l"), "holds no entries"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forged_record_is_refused(logs: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    forge, message = FORGERIES[name]
    run = made(logs, tmp_path / "run")
    forge(run)
    _resealed(run)
    with pytest.raises(RunError, match=message):
        reopen(load_run(run))


def test_a_manifest_must_list_the_record(logs: tuple[Path, Path], tmp_path: Path) -> None:
    run = made(logs, tmp_path / "run")
    (run / "MANIFEST.json").write_text('{"study": "x", "files": {}}')
    with pytest.raises(RunError, match=r"does not list study\.yaml"):
        aligntax.load(run)


def test_a_link_to_a_folder_stays_a_link(logs: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    made(logs, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(aligntax.load(tmp_path / "disk"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_run_cleans_up(tmp_path: Path, number: signal.Signals, code: int) -> None:
    base, candidate = (write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate(pair(40_000, 3000, 2000, 15_000)))
    place = tmp_path / "runs"
    place.mkdir()
    command = [sys.executable, "-m", "aligntax", "diff", str(base), str(candidate), "--out", str(place / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not os.listdir(place):
        time.sleep(0.002)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert os.listdir(place) in ([], ["run"])
    assert process.returncode == code or os.listdir(place) == ["run"], said
