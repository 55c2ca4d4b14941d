"""Run directories: written beside and renamed, the manifest last; where it stands, the run is complete.

study.yaml         the study as resolved          samples/<arm>.parquet   what came back, one row per sample
provenance.json    versions and choices           scores.parquet          what it is worth: arm, sample (the row
                                                  number, from 0, in the arm's file), metric, value, outcome
ledger.parquet     the record                     report.html             the report
ledger.json        an export of it                MANIFEST.json           sha256 of each of these
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import yaml
from pydantic import ValidationError

from aligntax.core.errors import LogError, RunError
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.samples import OUTCOMES
from aligntax.core.study import Study
from aligntax.core.words import printable
from aligntax.store.jsonio import load_json, shown
from aligntax.store.loading import quoted
from aligntax.store.logs import LogFacts
from aligntax.store.readers.table import first_line, literal
from aligntax.store.rows import ArmRows, Rows, connect

MANIFEST = "MANIFEST.json"
_RECORD = ("study.yaml", "provenance.json", "scores.parquet", "ledger.parquet")
_NESTED = ("outcomes", "details", "checks")
_ENTRY_TYPES = {
    "kind": "VARCHAR", "task": "VARCHAR", "metric": "VARCHAR", "unit": "VARCHAR", "higher_is_better": "BOOLEAN", "baseline": "VARCHAR",
    "candidate": "VARCHAR", "n": "BIGINT", "clusters": "BIGINT", "baseline_value": "DOUBLE", "candidate_value": "DOUBLE", "change": "DOUBLE",
    "cost": "DOUBLE", "se": "DOUBLE", "level": "DOUBLE", "ci_low": "DOUBLE", "ci_high": "DOUBLE", "p_value": "DOUBLE", "p_adjusted": "DOUBLE",
    "method": "VARCHAR", "margin": "DOUBLE", "verdict": "VARCHAR", "outcomes": "VARCHAR", "details": "VARCHAR", "checks": "VARCHAR",
}  # fmt: skip


@dataclass(frozen=True)
class StoredRun:
    """A complete run directory: its study, ledger and provenance."""

    path: Path
    study: Study
    ledger: Ledger
    provenance: dict[str, Any]


def arm_file(name: str, number: int) -> str:
    """A file name for an arm: its number, and what of its name is safe in a file name."""
    return f"{number:02d}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name).strip('._')[:60] or 'arm'}.parquet"


def check_target(out: Path, study_id: str | None) -> None:
    """Refuse a target that is not ours to replace: a file, a foreign folder, or a complete run of another study (of none, if ``study_id`` is None).

    Raises:
        RunError: saying what is there.
    """
    try:
        if not out.exists():
            return
    except OSError as error:
        raise RunError(f"{shown(out)} cannot be written: {first_line(error)}") from None
    if not out.is_dir():
        raise RunError(f"{shown(out)} is a file; name a folder for the run with --out")
    if not any(out.iterdir()):
        return
    if not (out / MANIFEST).is_file():
        raise RunError(f"{shown(out)} is a folder with other files in it; name a new or empty folder with --out")
    other = _manifest(out).get("study")
    if study_id is not None and other != study_id:
        raise RunError(f"{shown(out)} holds a complete run of another study ({printable(str(other))}); name another folder with --out")


def check_writable(out: Path) -> None:
    """Make the folder that a run will stand in, before hours of work; refuse where nothing can be written.

    Raises:
        RunError: saying why.
    """
    try:
        parent = out.resolve().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".aligntax-"):
            (parent / out.name).exists()
    except (OSError, ValueError) as error:
        raise RunError(f"{shown(out)} cannot be written: {first_line(error)}") from None


def write_run(
    out: Path, study: Study, ledger: Ledger, provenance: Mapping[str, Any], rows: Rows, report: Callable[[], str], *, replace: bool = False
) -> Path:
    """Write a complete run, or nothing. ``report`` renders the page; it is asked for last, while the rows are written. ``replace``: a run of another study, too.

    Returns:
        ``out``.

    Raises:
        RunError: if the target is not ours to replace, or cannot be written.
    """
    check_target(out, None if replace else study.id)
    named = out
    try:
        out = out.resolve()  # a link to a folder stays a link
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = _beside(out)
        try:
            part = scratch / "run"
            (part / "samples").mkdir(parents=True)
            _write_files(part, study, ledger, provenance, rows, report)
            if out.exists():
                out.rename(scratch / "old")
            part.rename(out)
        finally:
            try:
                _removed(scratch)
            except KeyboardInterrupt:  # a signal during the removal must not leave half of it
                _removed(scratch)
                raise
    except (OSError, duckdb.IOException) as error:
        raise RunError(f"{shown(named)} cannot be written: {first_line(error)}") from None
    return named


def _write_files(part: Path, study: Study, ledger: Ledger, provenance: Mapping[str, Any], rows: Rows, report: Callable[[], str]) -> None:
    document = {"id": study.id, **study.model_dump(mode="json")}
    (part / "study.yaml").write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    (part / "provenance.json").write_text(json.dumps(provenance, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    (part / "ledger.json").write_text(ledger.to_json(), encoding="utf-8")
    write_ledger(ledger, part / "ledger.parquet")
    with ThreadPoolExecutor(1) as pool:  # the rows are written while the page is drawn
        writing = pool.submit(_write_rows, part, rows)
        page = report()
        writing.result()
    (part / "report.html").write_text(page, encoding="utf-8")
    files = sorted(p for p in part.rglob("*") if p.is_file())
    manifest = {"study": study.id, "files": {p.relative_to(part).as_posix(): _sha256(p) for p in files}}
    (part / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _write_rows(part: Path, rows: Rows) -> None:
    # Ids do not repeat: looking for a dictionary of them takes longer than writing them.
    options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, DICTIONARY_SIZE_LIMIT 5000"
    names = " ".join(f"WHEN {code} THEN {literal(str(o))}" for code, o in enumerate(OUTCOMES))
    scores = []
    with rows.con.cursor() as con:
        for arm in rows.arms:
            k = arm.number
            target = literal(str(part / "samples" / arm_file(arm.name, k)))
            columns = 'task, item, content, trial, question, target, answer, prompt, cluster, "by" AS subgroup'
            con.execute(f"COPY (SELECT {columns} FROM samples_{k}) TO {target} ({options})")
            scores.append(
                f"SELECT {literal(arm.name)} AS arm, x.sample, x.metric, x.value, CASE x.outcome {names} END AS outcome, x.extracted FROM scores_{k} x"
            )
        con.execute(f"COPY ({' UNION ALL '.join(scores)}) TO {literal(str(part / 'scores.parquet'))} ({options})")


def write_ledger(ledger: Ledger, path: Path) -> None:
    """The ledger as Parquet: one row per entry, nested fields as JSON text."""
    records = [entry.model_dump(mode="json") for entry in ledger]
    for record in records:
        record.update({key: json.dumps(record[key], ensure_ascii=False, allow_nan=False) for key in _NESTED})
    columns = ", ".join(f"{quoted(name)} {kind}" for name, kind in _ENTRY_TYPES.items())
    meta = f"KV_METADATA {{study: {literal(ledger.study)}, baseline: {literal(ledger.baseline)}}}"
    with connect() as con:
        con.execute(f"CREATE TABLE ledger ({columns})")
        con.executemany(
            f"INSERT INTO ledger VALUES ({', '.join('?' * len(_ENTRY_TYPES))})",
            [[record[name] for name in _ENTRY_TYPES] for record in records],
        )
        con.execute(f"COPY ledger TO {literal(str(path))} (FORMAT parquet, {meta})")


def read_ledger(path: Path, study: Study) -> Ledger:
    """The ledger from its Parquet record.

    Raises:
        RunError: if it cannot be read.
    """
    try:
        with connect() as con:
            rows = con.execute(f"SELECT {', '.join(map(quoted, _ENTRY_TYPES))} FROM read_parquet({literal(str(path))})").fetchall()
        records = [dict(zip(_ENTRY_TYPES, row, strict=True)) for row in rows]
        for record in records:
            record.update({key: json.loads(record[key]) for key in _NESTED})
        ledger = Ledger(study=study.id, baseline=study.baseline, entries=tuple(Entry(**record) for record in records))
    except (duckdb.Error, ValueError, TypeError) as error:
        raise RunError(f"{shown(path)} is no ledger of this version: {_why(error)}") from None
    if not len(ledger):
        raise RunError(f"{shown(path)} holds no entries; make the run again")
    return ledger


def load_run(path: Path) -> StoredRun:
    """A complete run, its files checked against the manifest.

    Raises:
        RunError: if the folder is not a complete run, or a file was changed.
    """
    if not path.is_dir():
        raise RunError(f"{shown(path)} is not a run directory; give a folder that 'aligntax measure', 'run' or 'diff' wrote")
    if not (path / MANIFEST).is_file():
        raise RunError(f"{shown(path)} holds no complete run (no {MANIFEST}); make it again with 'aligntax diff'")
    files = _manifest(path)["files"]
    if unlisted := [name for name in _RECORD if name not in files]:
        raise RunError(f"{shown(path / MANIFEST)} does not list {unlisted[0]}; make the run again")
    for name, digest in files.items():
        file = path / name
        if name == "report.html":
            continue  # rendered again at will; everything else is record
        if not file.is_file() or file.resolve().parent not in {path.resolve(), (path / "samples").resolve()}:
            raise RunError(f"{shown(path)} lacks {printable(name)}, which its manifest lists; make the run again")
        if _sha256(file) != digest:
            raise RunError(f"{shown(file)} was changed after the run (its sha256 is not the manifest's); make the run again")
    try:
        document = yaml.safe_load((path / "study.yaml").read_text(encoding="utf-8"))
        document.pop("id", None)
        study = Study.model_validate(document)
    except (OSError, yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunError(f"{shown(path / 'study.yaml')} is no study of this version: {_why(error)}") from None
    provenance = load_json(path / "provenance.json")
    arms = provenance.get("arms") if isinstance(provenance, dict) else None
    if not isinstance(arms, dict) or not all(isinstance(arms.get(arm.name), dict) for arm in study.arms):
        raise RunError(
            f"{shown(path / 'provenance.json')} is no provenance of this version: 'arms' must hold an object per arm; make the run again"
        )
    return StoredRun(path, study, read_ledger(path / "ledger.parquet", study), provenance)


def load_rows(run: StoredRun) -> Rows:
    """The rows of a stored run, as they were when it was made.

    Raises:
        LogError: if a file of rows cannot be read.
    """
    rows = Rows()
    codes = " ".join(f"WHEN {literal(str(o))} THEN {code}" for code, o in enumerate(OUTCOMES))
    facts = run.provenance.get("arms", {})
    try:
        for k, arm in enumerate(run.study.arms):
            samples = literal(str(run.path / "samples" / arm_file(arm.name, k)))
            scores = literal(str(run.path / "scores.parquet"))
            rows.con.execute(
                f'CREATE TABLE samples_{k} AS SELECT task, item, content, question, target, answer, prompt, cluster, subgroup AS "by", trial, '
                f"hash(task, item, content) AS k1, hash(content, item, task, 1) AS k2 FROM read_parquet({samples})"
            )
            rows.con.execute(
                f"CREATE TABLE scores_{k} AS SELECT sample, metric, value, CAST(CASE outcome {codes} END AS UTINYINT) AS outcome, extracted "
                f"FROM read_parquet({scores}) WHERE arm = ?",
                [arm.name],
            )
            settings = facts.get(arm.name, {}).get("settings", {})
            rows.arms.append(ArmRows(arm.name, k, arm.source, arm.reader, LogFacts(settings=settings), arm.identity, 0))
    except duckdb.Error as error:
        rows.close()
        raise LogError(f"{shown(run.path)} cannot be read: {first_line(error)}") from None
    return rows


def replace_report(run: Path, report: str) -> Path:
    """Put a newly rendered report into a run, manifest included."""
    target = run / "report.html"
    try:
        _write_beside(target, report)
        manifest = _manifest(run)
        manifest["files"]["report.html"] = _sha256(target)
        _write_beside(run / MANIFEST, json.dumps(manifest, indent=1) + "\n")
    except OSError as error:
        raise RunError(f"{shown(target)} cannot be written: {first_line(error)}") from None
    return target


def write_text(path: Path, text: str) -> Path:
    """Write a file beside its target and rename it.

    Raises:
        RunError: if it cannot be written.
    """
    if path.is_dir():
        raise RunError(f"{shown(path)} is a folder; name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_beside(path, text)
    except OSError as error:
        raise RunError(f"{shown(path)} cannot be written: {first_line(error)}") from None
    return path


def _write_beside(target: Path, text: str) -> None:
    part = _beside(target)
    try:
        with part.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _beside(target: Path) -> Path:
    """A new hidden name beside a target. It is known before anything is made there: a signal just after the making still finds what to remove."""
    return target.parent / f".{target.name[:40]}.{secrets.token_hex(4)}.partial"


def _removed(folder: Path) -> None:
    """Remove a scratch folder. Again where it is still there: a thread that a signal cut loose may be writing its last file."""
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _manifest(run: Path) -> dict[str, Any]:
    found = load_json(run / MANIFEST)
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise RunError(f"{shown(run / MANIFEST)} is no manifest; make the run again")
    return found


def _why(error: Exception) -> str:
    """The first complaint of a validation with its place, or the first line of another error."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return printable(f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}")
    return first_line(error)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
