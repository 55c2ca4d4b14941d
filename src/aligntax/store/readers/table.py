"""Plain tables: CSV, TSV, JSON lines, a JSON list, or Parquet, with columns item and score.

Optional columns: task, trial, metric, cluster, answer, outcome, question, target, and any label column. CSV and
Parquet are read by DuckDB without passing through Python; JSON goes row by row.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

from aligntax.core.errors import InputError, LogError
from aligntax.core.ids import item_content
from aligntax.core.items import Value
from aligntax.core.samples import MAX_SCORE, MAX_TRIAL, OUTCOMES, Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, opened, shown
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, TableQuery, Want, reader

TASK = "table"
_SEPARATORS = (",", "\t", ";", "|")
_MAX_HEADER = 1 << 20
_MAX_LINE = 16 << 20
SCORES_MUST = f"scores must be finite numbers, at most {MAX_SCORE:g} either side of 0 (leave it empty where there is none)"
ROLES = ("item", "score", "task", "trial", "answer", "outcome", "metric")
_ALWAYS = ("question", "target")
AUTO_CLUSTER = "cluster"
"""A table's column of this name is used as the cluster even when none is asked for: dropping it would be anti-conservative."""


def _sniff(seen: Sighting) -> bool:
    if seen.is_dir:
        return False
    if seen.head[:4] == b"PAR1" or seen.first_object is not None:
        return True
    return not seen.zip_names and _first_line_has_columns(seen.head)


def _first_line_has_columns(head: bytes) -> bool:
    line = head.split(b"\n", 1)[0]
    return b"\0" not in line and any(separator.encode() in line for separator in _SEPARATORS)


@reader("table", _sniff)
def table(path: Path, want: Want) -> LogSource:
    """The rows of one table, as task ``table`` unless a task column says otherwise."""
    with path.open("rb") as raw:
        magic = raw.read(4)
    if magic == b"PAR1":
        return _database_table("parquet", path)
    if Sighting(path).first_object is not None:
        facts = LogFacts(settings={"harness": "table"})
        return LogSource("table", _json_table(path, want, facts), facts=facts)
    return _database_table("csv", path)


def _database_table(form: str, path: Path) -> LogSource:
    import duckdb

    relation = database_relation(path, form)
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as con:
            columns = {str(row[0]): str(row[1]) for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()}
    except duckdb.Error as error:
        raise LogError(f"{shown(path)} is no readable {form.upper()} table: {first_line(error)}") from None
    auto = AUTO_CLUSTER if AUTO_CLUSTER in columns else None
    facts = LogFacts(labels=set(columns), auto_cluster=auto, settings={"harness": "table"})
    return LogSource("table", None, TableQuery(relation, columns), facts)


def database_relation(path: Path, form: str) -> str:
    """What DuckDB reads a ``csv`` or ``parquet`` file by, in SQL.

    Raises:
        LogError: if the first line of a CSV cannot be column names.
    """
    named = literal(_no_globs(str(path)))
    return f"read_parquet({named})" if form == "parquet" else _csv_relation(path, named)


def _csv_relation(path: Path, named: str) -> str:
    """How DuckDB reads this CSV, every choice made here: its own guessing may skip lines that do not fit its guess.

    Raises:
        LogError: if the first line cannot be column names.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline(_MAX_HEADER)
    except UnicodeDecodeError:
        raise LogError(f"{shown(path)} is not UTF-8 text; save it as UTF-8") from None
    separator = max(_SEPARATORS, key=lambda s: len(next(csv.reader([first], delimiter=s), [])))
    names = next(csv.reader([first], delimiter=separator))
    repeated = sorted({n for n in names if names.count(n) > 1})
    if repeated or not all(names):
        found = f"repeats {printable(', '.join(repeated))}" if repeated else "has an empty name"
        raise LogError(f"{shown(path)}: the first line of a table names its columns, and this one {found}")
    columns = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in names)
    return (
        f"read_csv({named}, auto_detect = false, header = true, delim = {literal(separator)}, quote = '\"', escape = '\"', "
        f"columns = {{{columns}}}, max_line_size = {_MAX_LINE}, buffer_size = {4 * _MAX_LINE})"
    )


def literal(text: str) -> str:
    """An SQL string."""
    return "'" + text.replace("'", "''") + "'"


def first_line(error: Exception) -> str:
    """What is wrong, from a database error: its first line, or of a CSV error the line's number and its fault.

    The rest are hints about the database's own options.
    """
    lines = [line for line in str(error).strip().split("\n") if line.strip()]
    if not lines or "CSV Error on Line" not in lines[0]:
        return printable(lines[0] if lines else type(error).__name__)[:300]
    faults = [line for line in lines[1:] if line.startswith(("Expected", "Value", "Maximum", "Invalid", "Error", "The"))]
    number = lines[0].rsplit(":", 1)[-1].strip()
    return printable(f"line {number}: {faults[0] if faults else 'not valid CSV'}")[:300].rstrip(". ")


def _no_globs(path: str) -> str:
    """DuckDB expands wildcards in paths; a file may be named with them."""
    return "".join(f"[{ch}]" if ch in "*?[" else ch for ch in path)


def column_for(role: str, named: str | None, columns: Sequence[str], where: str) -> str | None:
    """The column that plays ``role``: the one named, else the one of the usual name, else None.

    Raises:
        InputError: if the named column is not there.
    """
    if named is not None:
        if named not in columns:
            raise InputError(f"{where} has no column {printable(named)!r} (for {role}); it has {printable(', '.join(columns))}")
        return named
    return role if role in columns else None


def resolve(columns: Sequence[str], want: Want, where: str) -> dict[str, str]:
    """Role -> column, for the roles that the table has.

    Raises:
        InputError: if there is no score column, or nothing that identifies an item.
    """
    roles = {role: column_for(role, getattr(want.columns, role), columns, where) for role in ROLES}
    roles |= {role: role if role in columns else None for role in _ALWAYS}
    found = {role: column for role, column in roles.items() if column is not None}
    has = printable(", ".join(columns))
    if "score" not in found:
        raise InputError(f"{where} has no column 'score'; it has {has}: name the one that holds scores with --score")
    if "item" not in found and "question" not in found:
        raise InputError(f"{where} has no column 'item' to pair rows by; it has {has}: name one with --item")
    return found


def _json_table(path: Path, want: Want, facts: LogFacts) -> Iterator[LogRow]:
    where = shown(path)
    roles: dict[str, str] | None = None
    with opened(path) as streams:
        for name, stream in streams:
            for number, row in json_rows(stream, name):
                facts.labels.update(row)
                if AUTO_CLUSTER in row:
                    facts.auto_cluster = AUTO_CLUSTER
                if roles is None:
                    roles = resolve(list(row), want, where)
                yield _json_row(row, roles, want, f"{name}, row {number}")


def _json_row(row: dict[str, Any], roles: dict[str, str], want: Want, where: str) -> LogRow:
    def get(role: str) -> Any:
        return row.get(roles[role]) if role in roles else None

    outcome = parse_outcome(get("outcome"), where)
    value = parse_score(get("score"), where)
    question, target = label_text(get("question")), label_text(get("target"))
    return LogRow(
        task=label_text(get("task")) or TASK,
        item=label_text(get("item")),
        content=None if question is None else item_content(question, None, target),
        scores={label_text(get("metric")) or roles["score"]: settle(value, outcome, where)},
        trial=parse_trial(get("trial"), where),
        question=question,
        target=target,
        answer=None if get("answer") is None else str(get("answer")),  # an empty answer is an answer
        cluster=label_text(row.get(want.cluster or AUTO_CLUSTER)),
        by=label_text(row.get(want.by)) if want.by else None,
    )


def parse_outcome(value: object, where: str) -> Outcome | None:
    if value is None or value == "":
        return None
    try:
        return Outcome(str(value).strip().lower())
    except ValueError:
        raise LogError(f"{where}: outcome is {printable(repr(value))}; allowed: {', '.join(OUTCOMES)}") from None


def parse_score(value: object, where: str) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return float(value.strip().lower() == "true")
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise LogError(f"{where}: score is {printable(repr(value))[:80]}, not a number (leave it empty where there is none)") from None
    except OverflowError:
        number = inf
    if not abs(number) <= MAX_SCORE:
        raise LogError(f"{where}: score is {number}; {SCORES_MUST}")
    return number


def parse_trial(value: object, where: str) -> int:
    if value is None or value == "":
        return 0
    text = str(value)
    if not text.isdecimal() or len(text) > 10 or int(text) > MAX_TRIAL:
        raise LogError(f"{where}: trial is {printable(repr(value))[:80]}, not a whole number from 0 to {MAX_TRIAL}")
    return int(text)


def settle(value: float | None, outcome: Outcome | None, where: str) -> Value:
    """A score and an outcome made consistent: a missing score is never 0, a failed sample has no score."""
    if outcome is None:
        return Value(value, Outcome.ABSENT if value is None else Outcome.SCORED)
    if outcome is Outcome.SCORED and value is None:
        raise LogError(f"{where}: outcome is scored, but there is no score")
    return Value(None if outcome in (Outcome.FAILED, Outcome.ABSENT) else value, outcome)
