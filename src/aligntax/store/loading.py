"""Rows into the database: from readers, batch by batch; from CSV and Parquet, without passing through Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from aligntax.core.errors import LogError
from aligntax.core.samples import CODE, MAX_SCORE, MAX_TRIAL, OUTCOMES, Outcome
from aligntax.core.words import printable
from aligntax.store.logs import LogRow, TableQuery, Want
from aligntax.store.readers.table import AUTO_CLUSTER, SCORES_MUST, TASK, first_line, literal, resolve

SAMPLE_TEXTS = ("task", "item", "content", "question", "target", "answer", "prompt", "cluster", "by")
KEYS = "hash(task, item, content) AS k1, hash(content, item, task, 1) AS k2"

_BATCH = 20_000
_TEXTS_OF = attrgetter(*SAMPLE_TEXTS)


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _part(text: str) -> str:
    """One part of ``core.ids.item_content`` in SQL."""
    return f"CASE WHEN {text} IS NULL THEN '-' ELSE concat(strlen({text}), ':', {text}) END"


def _outcome_sql(outcome: str, score_is_null: str) -> str:
    cases = " ".join(f"WHEN '{o}' THEN {c}" for o, c in CODE.items())
    unnamed = f"CASE WHEN {score_is_null} THEN {CODE[Outcome.ABSENT]} ELSE {CODE[Outcome.SCORED]} END"
    return f"CAST(CASE WHEN {outcome} IS NULL THEN {unnamed} ELSE CASE lower(trim({outcome})) {cases} END END AS UTINYINT)"


def duplicate(where: str, task: str, item: str, trial: int, count: int) -> LogError:
    return LogError(
        f"{where} has item {printable(item)!r} of {printable(task)} {count} times in trial {trial}; an item stands once per trial: "
        "add a column trial, or name the id column with --item"
    )


class RowLoader:
    """Writes a reader's rows into ``samples_k`` and ``scores_k``, merging rows of one sample (filters of one reply)."""

    def __init__(self, con: duckdb.DuckDBPyConnection, k: int, where: str) -> None:
        self.con, self.k, self.where = con, k, where
        self.sample_of: dict[tuple[str, str, str, int], int] = {}
        self.seen: set[tuple[int, str]] = set()
        texts = ", ".join(f"{quoted(c)} VARCHAR" for c in SAMPLE_TEXTS)
        con.execute(f"CREATE TABLE samples_{k} ({texts}, trial INTEGER, k1 UBIGINT, k2 UBIGINT)")
        con.execute(f"CREATE TABLE scores_{k} (sample BIGINT, metric VARCHAR, value DOUBLE, outcome UTINYINT, extracted VARCHAR)")

    def load(self, rows: Iterator[LogRow], progress: Callable[[int], None] | None) -> None:
        done = 0
        while batch := list(islice(rows, _BATCH)):
            self._insert(batch)
            done += len(batch)
            if progress is not None:
                progress(done)

    def _insert(self, batch: list[LogRow]) -> None:
        fresh: list[LogRow] = []
        scores: list[tuple[int, str, float | None, int, str | None]] = []
        for row in batch:
            key = (row.task, row.item or "", row.content or "", row.trial)
            sample = self.sample_of.get(key)
            if sample is None:
                sample = self.sample_of[key] = len(self.sample_of)
                fresh.append(row)
            for metric, value in row.scores.items():
                if (sample, metric) in self.seen:
                    raise duplicate(self.where, row.task, row.item or "(no id)", row.trial, 2)
                self.seen.add((sample, metric))
                if value.value is not None and not abs(value.value) <= MAX_SCORE:
                    raise LogError(
                        f"{self.where}: {printable(metric)} of item {printable(row.item or '(no id)')} is {value.value}; {SCORES_MUST}"
                    )
                scores.append((sample, metric, value.value, CODE[value.outcome], value.extracted))
        if fresh:
            columns = dict(zip(SAMPLE_TEXTS, map(_texts, zip(*map(_TEXTS_OF, fresh), strict=True)), strict=True))
            for c in ("item", "content"):
                columns[c][columns[c] == None] = ""  # noqa: E711 - elementwise
            columns["trial"] = np.array([r.trial for r in fresh], dtype=np.int32)
            self._append(f"samples_{self.k}", columns, f", {KEYS}")
        if scores:
            sample_, metric_, value_, outcome_, extracted_ = zip(*scores, strict=True)
            self._append(
                f"scores_{self.k}",
                {
                    "sample": np.array(sample_, dtype=np.int64),
                    "metric": _texts(metric_),
                    "value": np.ma.masked_invalid(np.array([np.nan if v is None else v for v in value_], dtype=np.float64)),
                    "outcome": np.array(outcome_, dtype=np.uint8),
                    "extracted": _texts(extracted_),
                },
            )

    def _append(self, table: str, columns: dict[str, npt.NDArray[Any]], computed: str = "") -> None:
        names = ", ".join(quoted(c) for c in columns)
        self.con.register("incoming", columns)
        self.con.execute(f"INSERT INTO {table} BY NAME SELECT {names}{computed} FROM incoming")
        self.con.unregister("incoming")


def _texts(values: Sequence[str | None]) -> npt.NDArray[Any]:
    """Object array of strings; lone surrogates, which no encoding holds, become escapes, so that what differs stays different."""
    out = np.empty(len(values), dtype=object)
    out[:] = [v if v is None or v.isascii() else v.encode("utf-8", "backslashreplace").decode("utf-8") for v in values]
    return out


class TableLoader:
    """Reads a plain table into ``rows_k``, with ``samples_k`` and ``scores_k`` as views of it."""

    def __init__(self, con: duckdb.DuckDBPyConnection, k: int, where: str) -> None:
        self.con, self.k, self.where = con, k, where

    def load(self, table: TableQuery, want: Want) -> None:
        """Read, check and make the views.

        Raises:
            InputError: if columns are missing.
            LogError: on scores, outcomes or trials that are not what they should be.
        """
        k, where = self.k, self.where
        roles = resolve(table.columns, want, where)

        def text(column: str | None, *, empty: bool = False) -> str:
            if column is None:
                return "NULL::VARCHAR"
            plain = f"CAST({quoted(column)} AS VARCHAR)"
            return plain if empty else f"nullif({plain}, '')"

        def present(column: str | None) -> str | None:
            return column if column in table.columns else None

        score = quoted(roles["score"])
        value, none = f"TRY_CAST({score} AS DOUBLE)", f"{score} IS NULL"
        if table.types[roles["score"]] == "VARCHAR":
            value = f"CASE lower({score}) WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE {value} END"
            none = f"coalesce({score}, '') = ''"
        content = (
            f"CASE WHEN {text(roles['question'])} IS NULL THEN '' ELSE sha256({_part(text(roles['question']))} || {_part(text(roles.get('target')))}) END"
            if "question" in roles
            else "''"
        )
        columns = {
            "task": f"coalesce({text(roles.get('task'))}, '{TASK}')",
            "item": f"coalesce({text(roles.get('item'))}, '')",
            "content": content,
            "trial": f"TRY_CAST(coalesce({text(roles.get('trial'))}, '0') AS INTEGER)",
            "question": text(roles.get("question")),
            "target": text(roles.get("target")),
            "answer": text(roles.get("answer"), empty=True),  # an empty answer is an answer
            "prompt": "NULL::VARCHAR",
            "cluster": text(present(want.cluster or AUTO_CLUSTER)),
            '"by"': text(present(want.by) if want.by else None),
            "metric": f"coalesce({text(roles.get('metric'))}, {literal(roles['score'])})",
            "value": value,
            "outcome": _outcome_sql(text(roles.get("outcome")), none),
            "has_score": f"NOT ({none})",
        }
        select = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
        try:
            self.con.execute(f"CREATE TABLE rows_{k} AS SELECT *, {KEYS} FROM (SELECT {select} FROM {table.relation})")
            self._check(roles, table.relation)
        except duckdb.Error as error:
            raise LogError(f"{where} cannot be read as a table: {first_line(error)}") from None
        self.con.execute(f"ALTER TABLE rows_{k} DROP COLUMN has_score")
        failed, absent = CODE[Outcome.FAILED], CODE[Outcome.ABSENT]
        self.con.execute(f"UPDATE rows_{k} SET value = NULL WHERE outcome IN ({failed}, {absent}) AND value IS NOT NULL")
        self.con.execute(f"CREATE VIEW samples_{k} AS SELECT rowid, * EXCLUDE (metric, value, outcome) FROM rows_{k}")
        self.con.execute(
            f"CREATE VIEW scores_{k} AS SELECT rowid AS sample, metric, value, outcome, NULL::VARCHAR AS extracted FROM rows_{k}"
        )

    def _check(self, roles: dict[str, str], relation: str) -> None:
        k, where = self.k, self.where

        def first(condition: str) -> int | None:
            found = self.con.execute(f"SELECT min(rowid) FROM rows_{k} WHERE {condition}").fetchall()[0][0]
            return None if found is None else int(found)

        def cell(row: int, column: str) -> str:
            found = self.con.execute(f"SELECT CAST({quoted(column)} AS VARCHAR) FROM {relation} LIMIT 1 OFFSET {row}").fetchall()[0][0]
            return printable(repr(found))[:80]

        if (row := first(f"has_score AND NOT coalesce(abs(value) <= {MAX_SCORE}, false)")) is not None:
            raise LogError(f"{where}, row {row + 1}: score is {cell(row, roles['score'])}; {SCORES_MUST}")
        if (row := first("outcome IS NULL")) is not None:
            raise LogError(f"{where}, row {row + 1}: outcome is {cell(row, roles['outcome'])}; allowed: {', '.join(OUTCOMES)}")
        if (row := first(f"outcome = {CODE[Outcome.SCORED]} AND value IS NULL")) is not None:
            raise LogError(f"{where}, row {row + 1}: outcome is scored, but there is no score")
        if (row := first("NOT coalesce(trial >= 0, false)")) is not None:
            raise LogError(f"{where}, row {row + 1}: trial is {cell(row, roles['trial'])}, not a whole number from 0 to {MAX_TRIAL}")
