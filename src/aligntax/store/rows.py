"""All rows of a study in one in-memory DuckDB: loaded once, keyed by item identity, handed out as numpy arrays.

Per arm k: ``samples_k(task, item, content, trial, question, target, answer, prompt, cluster, by, k1, k2)`` and
``scores_k(sample, metric, value, outcome, extracted)``, where ``sample`` is the rowid in ``samples_k``. An item is
(task, source id, content hash); ``k1`` and ``k2`` are two independent 64-bit hashes of that, because joining two
numbers is several times cheaper than joining three strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
import numpy.typing as npt

from aligntax.core.errors import LogError, PairingError
from aligntax.core.ids import digest
from aligntax.core.samples import CODE, Outcome
from aligntax.core.words import items_text, printable
from aligntax.store.jsonio import shown
from aligntax.store.loading import KEYS, SAMPLE_TEXTS, RowLoader, TableLoader, duplicate, quoted
from aligntax.store.logs import LogFacts, LogSource, Want

_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
}

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def connect() -> duckdb.DuckDBPyConnection:
    """An in-memory database that fetches no extensions."""
    return duckdb.connect(config=_CONFIG)


@dataclass(frozen=True)
class ArmRows:
    """One loaded arm: its name, number, reader, facts, identity (sha256 of rows) and count of samples."""

    name: str
    number: int
    source: str
    reader: str
    facts: LogFacts
    rows: str
    samples: int


@dataclass(frozen=True)
class Items:
    """The planned items as codes, all (N,): ``-1`` where an item has no such label.

    Attributes:
        task, cluster, by: integer codes, in the sorted order of the names.
        tasks, clusters, labels: the names behind the codes.
    """

    task: IntArray
    cluster: IntArray
    by: IntArray
    tasks: tuple[str, ...]
    clusters: int
    labels: tuple[str, ...]


@dataclass(frozen=True)
class MetricRows:
    """The score rows of one metric in one arm, (M,) each: item index, value (NaN where null), outcome code."""

    item: IntArray
    value: FloatArray
    outcome: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Flip:
    """One item whose score changed, with what can be shown of it."""

    task: str
    item: str
    label: str | None
    question: str | None
    target: str | None
    baseline_value: float | None
    candidate_value: float | None
    baseline_answer: str | None
    candidate_answer: str | None
    baseline_extracted: str | None
    candidate_extracted: str | None


class Rows:
    """The rows of a study's arms. Use as a context manager, or ``close`` it."""

    def __init__(self, con: duckdb.DuckDBPyConnection | None = None) -> None:
        self.con = con or connect()
        self.arms: list[ArmRows] = []
        self._index: list[IntArray] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.con.close()

    # -- loading ------------------------------------------------------------------------------------------------

    def add(self, name: str, path: Path, source: LogSource, want: Want, progress: Callable[[int], None] | None = None) -> ArmRows:
        """Load one arm.

        Raises:
            LogError: on rows that no log may hold (duplicates, scores that are not finite, unknown outcomes).
        """
        k = len(self.arms)
        where = shown(path)
        if source.rows is not None:
            RowLoader(self.con, k, where).load(source.rows, progress)
        elif source.table is not None:
            TableLoader(self.con, k, where).load(source.table, want)
        self._join(k)
        count = int(self._one(f"SELECT count(*) FROM samples_{k}"))
        if count == 0:
            raise LogError(f"{where} holds no rows")
        for what, label in (("cluster", want.cluster), ("subgroup", want.by)):
            if label is not None and label not in source.facts.labels and not self._has_label(k, "cluster" if what == "cluster" else "by"):
                labels = printable(", ".join(sorted(source.facts.labels))) or "none"
                raise PairingError(f"{where} has no {what} column {printable(label)!r}; its columns are: {labels}")
        arm = ArmRows(name, k, path.name, source.reader, source.facts, self._fingerprint(k), count)
        self.arms.append(arm)
        return arm

    def _has_label(self, k: int, column: str) -> bool:
        return bool(self._one(f'SELECT count("{column}") FROM samples_{k}'))

    def _one(self, sql: str, parameters: Sequence[object] = ()) -> Any:
        row = self.con.execute(sql, list(parameters)).fetchone()
        return None if row is None else row[0]

    def _check_duplicates(self, arm: ArmRows, index: IntArray) -> None:
        """Plain tables: an item stands once per trial and metric. (Rows of readers are checked while they are loaded.)"""
        k = arm.number
        if not self._is_table(k) or int(np.bincount(index).max()) == 1:
            return
        row = self.con.execute(
            f"SELECT any_value(task), any_value(item), trial, count(*) AS n FROM rows_{k} GROUP BY k1, k2, trial, metric HAVING n > 1 ORDER BY 1, 2 LIMIT 1"
        ).fetchone()
        if row is not None:
            raise duplicate(printable(arm.source), str(row[0]), str(row[1]), int(row[2]), int(row[3]))

    def add_summaries(self, name: str, path: Path, source: LogSource) -> ArmRows:
        """An arm of which only summaries are known: no rows, and an identity of its numbers."""
        k = len(self.arms)
        texts = ", ".join(f"{quoted(c)} VARCHAR" for c in SAMPLE_TEXTS)
        self.con.execute(f"CREATE TABLE samples_{k} ({texts}, trial INTEGER, k1 UBIGINT, k2 UBIGINT)")
        self.con.execute(f"CREATE TABLE scores_{k} (sample BIGINT, metric VARCHAR, value DOUBLE, outcome UTINYINT, extracted VARCHAR)")
        identity = digest(sorted([s.task, s.metric, s.value, s.se, s.n] for s in source.summaries or ()))
        arm = ArmRows(name, k, path.name, source.reader, source.facts, identity, 0)
        self.arms.append(arm)
        return arm

    def _fingerprint(self, k: int) -> str:
        """sha256 over the rows in sorted order of their own hashes, so that row order and file format do not matter.

        Columns that say nothing (empty texts, a single task or metric, trial 0, outcomes that the score implies) enter
        once, not per row.
        """
        optional = [c for c in SAMPLE_TEXTS if c not in ("task", "item")] + ["extracted"]
        implied = f"CASE WHEN value IS NULL THEN {CODE[Outcome.ABSENT]} ELSE {CODE[Outcome.SCORED]} END"
        used = ", ".join(f"bool_or({quoted(c)} IS NOT NULL AND {quoted(c)} <> '')" for c in optional)
        told = self.con.execute(
            f"SELECT {used}, max(trial) > 0, bool_or(outcome <> {implied}), min(task), max(task), min(metric), max(metric) FROM joined_{k}"
        ).fetchall()[0]
        columns = ["item", "value", *(c for c, varies in zip([*optional, "trial", "outcome"], told, strict=False) if varies)]
        task, metric = told[-4:-2], told[-2:]
        columns += [name for name, (low, high) in (("task", task), ("metric", metric)) if low != high]
        hashed = ", chr(31), ".join(quoted(c) for c in columns)
        rows = self.con.execute(f"SELECT CAST('0x' || left(md5(concat({hashed})), 16) AS UBIGINT) AS h FROM joined_{k}").fetchnumpy()["h"]
        header = "\x1f".join([*columns, *task, *metric])
        return hashlib.sha256(header.encode() + np.sort(np.asarray(rows, dtype="<u8")).tobytes()).hexdigest()

    def _join(self, k: int) -> None:
        """View ``joined_k``: every score row with its sample's columns (in plain tables these are one and the same row)."""
        self.con.execute(
            f"CREATE VIEW joined_{k} AS "
            + (
                f"SELECT * EXCLUDE (k1, k2), rowid AS sample, NULL::VARCHAR AS extracted FROM rows_{k}"
                if self._is_table(k)
                else f"SELECT s.* EXCLUDE (k1, k2), x.* FROM samples_{k} s JOIN scores_{k} x ON x.sample = s.rowid"
            )
        )

    def _is_table(self, k: int) -> bool:
        return bool(self._one("SELECT count(*) FROM duckdb_tables() WHERE table_name = ?", [f"rows_{k}"]))

    # -- identity -----------------------------------------------------------------------------------------------

    def items(self) -> Items:
        """Give every item of every arm its index, and each score row the index of its item.

        Raises:
            PairingError: on rows without identity, and on items whose labels differ between or within arms.
        """
        self._settle_identity()
        keys = [self.con.execute(f"SELECT rowid AS sample, k1, k2 FROM samples_{arm.number}").fetchnumpy() for arm in self.arms]
        numbered, count = _number(np.concatenate([k["k1"] for k in keys]), np.concatenate([k["k2"] for k in keys]))
        self._index = []
        for arm, found, of_row in zip(self.arms, keys, np.split(numbered, np.cumsum([len(k["k1"]) for k in keys])[:-1]), strict=True):
            index = np.empty(len(of_row), dtype=np.int64)
            index[found["sample"]] = of_row
            self._check_duplicates(arm, index)
            self._index.append(index)
        (task, tasks), (cluster, clusters), (by, labels) = (self._codes(c, count) for c in ("task", "cluster", "by"))
        return Items(task, cluster, by, tasks, len(clusters), labels)

    def _settle_identity(self) -> None:
        """Identity uses what all arms of a task have: source ids, contents, or both.

        A task where one arm lacks contents is paired by source id alone, and the other way round.
        """
        if self._same_identity_everywhere():
            return
        drop: dict[str, set[str]] = {"item": set(), "content": set()}
        for arm in self.arms:
            rows = self.con.execute(
                f"SELECT task, count(*), count(*) FILTER (item <> ''), count(*) FILTER (content <> '') FROM samples_{arm.number} GROUP BY task"
            ).fetchall()
            for task, n, ids, contents in rows:
                if 0 < ids < n:
                    raise PairingError(
                        f"{printable(arm.source)} has {items_text(n - ids, 'row')} of {printable(task)} without an item id, and {ids:,} with one"
                    )
                if ids == 0 and contents < n:
                    raise PairingError(
                        f"{printable(arm.source)} has rows of {printable(task)} with neither an item id nor a question to pair by"
                    )
                if ids == 0:
                    drop["item"].add(task)
                if contents < n:
                    drop["content"].add(task)
        for column, tasks in drop.items():
            for arm in self.arms:
                if not tasks:
                    continue
                table = f"rows_{arm.number}" if self._is_table(arm.number) else f"samples_{arm.number}"
                self.con.execute(f"UPDATE {table} SET {column} = '' WHERE {column} <> '' AND task IN (SELECT unnest(?))", [sorted(tasks)])
                self.con.execute(
                    f"UPDATE {table} SET k1 = k.k1, k2 = k.k2 FROM (SELECT rowid AS r, {KEYS} FROM {table}) k WHERE k.r = {table}.rowid"
                )
        for arm in self.arms:
            self._check_contents_only(arm, drop["item"])

    def _same_identity_everywhere(self) -> bool:
        """The common case, told cheaply: every row has an id, and all rows have a content or none has."""
        sizes = [
            self.con.execute(
                f"SELECT count(*), count(*) FILTER (item = ''), count(*) FILTER (content = '') FROM samples_{a.number}"
            ).fetchall()[0]
            for a in self.arms
        ]
        return all(ids == 0 for _, ids, _ in sizes) and (all(c == 0 for *_, c in sizes) or all(c == n for n, _, c in sizes))

    def _check_contents_only(self, arm: ArmRows, tasks: set[str]) -> None:
        if not tasks:
            return
        row = self.con.execute(
            f"SELECT task, count(*) AS n FROM joined_{arm.number} "
            f"WHERE task IN (SELECT unnest(?)) GROUP BY task, content, trial, metric HAVING n > 1 LIMIT 1",
            [sorted(tasks)],
        ).fetchone()
        if row is not None:
            raise PairingError(
                f"{printable(arm.source)} has {row[1]} identical rows in {printable(str(row[0]))} and no item ids to tell them apart; name an id column with --item"
            )

    def _codes(self, column: str, count: int) -> tuple[IntArray, tuple[str, ...]]:
        """((count,) codes of a label by item, the labels they stand for, sorted).

        Raises:
            PairingError: if one item carries two labels.
        """
        name = quoted(column)
        union = " UNION ".join(f"SELECT {name} AS label FROM samples_{a.number} WHERE {name} IS NOT NULL" for a in self.arms)
        self.con.execute(
            f"CREATE OR REPLACE TABLE labels AS SELECT label, hash(label) AS h, CAST(row_number() OVER (ORDER BY label) - 1 AS INTEGER) AS code FROM ({union})"
        )
        labels = tuple(str(r[0]) for r in self.con.execute("SELECT label FROM labels ORDER BY code").fetchall())
        codes = np.full(count, -1, dtype=np.int64)
        if not labels:
            return codes, labels
        if column == "task" and len(labels) == 1:
            return np.zeros(count, dtype=np.int64), labels
        for arm, index in zip(self.arms, self._index, strict=True):
            found = self.con.execute(
                f"SELECT s.rowid AS sample, l.code FROM samples_{arm.number} s JOIN labels l ON hash(s.{name}) = l.h AND s.{name} = l.label"
            ).fetchnumpy()
            at, code = index[found["sample"]], found["code"].astype(np.int64)
            clash = (codes[at] >= 0) & (codes[at] != code)
            codes[at] = code
            clash |= codes[at] != code
            if clash.any():
                raise self._two_labels(arm, int(found["sample"][np.argmax(clash)]), column)
        return codes, labels

    def _two_labels(self, arm: ArmRows, sample: int, column: str) -> PairingError:
        what = "cluster" if column == "cluster" else "subgroup"
        key = f"(SELECT k1, k2 FROM samples_{arm.number} WHERE rowid = {sample})"
        union = " UNION ".join(
            f"SELECT s.task, s.item, s.{quoted(column)} AS label FROM samples_{a.number} s JOIN {key} k ON s.k1 = k.k1 AND s.k2 = k.k2"
            for a in self.arms
        )
        found = self.con.execute(f"SELECT task, item, label FROM ({union}) WHERE label IS NOT NULL ORDER BY label").fetchall()
        labels = " and ".join(repr(printable(str(r[2]))) for r in found)
        return PairingError(
            f"item {printable(str(found[0][1]))!r} of {printable(str(found[0][0]))} has more than one {what} label, {labels}; "
            f"an item belongs to one {what} in every arm and trial"
        )

    # -- arrays -------------------------------------------------------------------------------------------------

    def metrics(self, k: int) -> list[str]:
        """Metric keys of one arm, sorted."""
        return [str(r[0]) for r in self.con.execute(f"SELECT DISTINCT metric FROM scores_{k} ORDER BY 1").fetchall()]

    def metric_rows(self, k: int, metric: str) -> MetricRows:
        """The score rows of one metric."""
        found = self.con.execute(f"SELECT sample, value, outcome FROM scores_{k} WHERE metric = ?", [metric]).fetchnumpy()
        value = np.ma.filled(np.ma.asarray(found["value"], dtype=np.float64), np.nan)
        return MetricRows(self._index[k][found["sample"]], value, np.asarray(found["outcome"], dtype=np.uint8))

    def marked(self, seen: Collection[tuple[str, str, str]], count: int) -> npt.NDArray[np.bool_]:
        """(count,) items among ``seen``: (task, item id, beginning of the content's hash), by the id or, where a content is known, by that."""
        found = np.zeros(count, dtype=np.bool_)
        ids = {(task, item) for task, item, _ in seen if item}
        contents = {(task, content) for task, _, content in seen if content}
        sizes = {len(content) for _, content in contents}
        for arm, index in zip(self.arms, self._index, strict=True):
            rows = self.con.execute(f"SELECT rowid, task, item, content FROM samples_{arm.number}").fetchall()
            for sample, task, item, content in rows:
                if (task, item) in ids or (content and any((task, content[:size]) in contents for size in sizes)):
                    found[index[sample]] = True
        return found

    def has_trials(self, k: int) -> bool:
        """Whether an arm was asked anything more than once."""
        return self._one(f"SELECT 1 FROM samples_{k} WHERE trial > 0 LIMIT 1") is not None

    def answers(self, k: int, tasks: Sequence[str]) -> tuple[IntArray, IntArray, list[str]]:
        """Texts that an arm answered with: (M,) item index, (M,) trial, and the M answers, by item and trial; failures are left out."""
        found = self.con.execute(
            f"SELECT s.rowid AS sample, s.trial, s.answer FROM samples_{k} s JOIN {self._answered(k)} x ON x.sample = s.rowid "
            "WHERE s.answer IS NOT NULL AND s.task IN (SELECT unnest(?))",
            [list(tasks)],
        ).fetchnumpy()
        item, trial = self._index[k][found["sample"]], np.asarray(found["trial"], dtype=np.int64)
        order = np.lexsort((found["sample"], trial, item))
        # Plain tables have a row per metric: one answer stands there several times.
        fresh = np.ones(len(order), dtype=np.bool_)
        fresh[1:] = (np.diff(item[order]) != 0) | (np.diff(trial[order]) != 0)
        order = order[fresh]
        texts = found["answer"]
        return item[order], trial[order], [str(texts[i]) for i in order]

    def agreement(self, k: int, count: int) -> FloatArray:
        """(count,) share of pairs of an item's trials with the same answer, as it was read or else as it stands; NaN below two trials."""
        found = self.con.execute(
            f"SELECT s.rowid AS sample, s.trial, hash(coalesce(x.read, s.answer)) AS said FROM samples_{k} s JOIN {self._answered(k)} x "
            "ON x.sample = s.rowid WHERE coalesce(x.read, s.answer) IS NOT NULL"
        ).fetchnumpy()
        item = self._index[k][found["sample"]]
        one = np.unique(np.stack([item.astype(np.uint64), found["trial"].astype(np.uint64), found["said"]]), axis=1)
        item = one[0].astype(np.int64)
        n = np.bincount(item, minlength=count).astype(np.float64)
        _, at, same = np.unique(one[[0, 2]], axis=1, return_index=True, return_counts=True)
        pairs = np.bincount(item[at], weights=same * (same - 1.0), minlength=count)
        with np.errstate(invalid="ignore", divide="ignore"):
            out: FloatArray = np.where(n > 1, pairs / (n * (n - 1)), np.nan)
        return out

    def _answered(self, k: int) -> str:
        """Samples that have an answer, whatever it is worth, with what was read out of it."""
        return (
            f"(SELECT sample, min_by(extracted, metric) FILTER (extracted IS NOT NULL) AS read FROM scores_{k} GROUP BY sample "
            f"HAVING bool_or(outcome NOT IN ({CODE[Outcome.FAILED]}, {CODE[Outcome.ABSENT]})))"
        )

    def identical(self, a: int, b: int, column: str) -> dict[str, tuple[int, int]]:
        """Per task: (samples in both arms that have ``column`` in both, those where it is the same)."""
        rows = self.con.execute(
            f"SELECT x.task, count(*), count(*) FILTER (x.{column} = y.{column}) FROM samples_{a} x JOIN samples_{b} y "
            f"ON x.k1 = y.k1 AND x.k2 = y.k2 AND x.trial = y.trial "
            f"WHERE x.{column} IS NOT NULL AND y.{column} IS NOT NULL GROUP BY x.task"
        ).fetchall()
        return {str(task): (int(n), int(same)) for task, n, same in rows}

    def has_text(self, k: int, column: str) -> bool:
        """Whether any sample of an arm has this text."""
        return self._one(f"SELECT 1 FROM samples_{k} WHERE {column} IS NOT NULL LIMIT 1") is not None

    def _named_items(self) -> str:
        return " UNION ".join(f"SELECT task, item, content FROM samples_{a.number}" for a in self.arms)

    def has_contents(self) -> bool:
        """Whether any item's content is known (otherwise ids alone identify items)."""
        return any(self._one(f"SELECT 1 FROM samples_{a.number} WHERE content <> '' LIMIT 1") for a in self.arms)

    def repeated_contents(self) -> dict[str, tuple[int, int]]:
        """Per task: (items, distinct contents), where the same content stands under several ids."""
        rows = self.con.execute(
            f"SELECT task, count(*) AS n, count(DISTINCT content) AS d FROM ({self._named_items()}) WHERE content <> '' GROUP BY task HAVING d < n"
        ).fetchall()
        return {str(task): (int(n), int(distinct)) for task, n, distinct in rows}

    def changed_contents(self) -> dict[str, int]:
        """Per task: source ids that stand for different contents in different arms (they do not pair)."""
        rows = self.con.execute(
            f"SELECT task, count(*) FROM (SELECT task, item FROM ({self._named_items()}) WHERE item <> '' GROUP BY task, item HAVING count(*) > 1) GROUP BY task"
        ).fetchall()
        return {str(task): int(n) for task, n in rows}

    def describe(self, a: int, b: int, metric: str, chosen: IntArray, size: FloatArray, limit: int | None) -> list[tuple[int, Flip]]:
        """What can be shown of the items ``chosen`` (indices, (M,)), with their indices, largest ``size`` first, then by task and id.

        Of more than ``limit`` the largest; of equal ones an even sample, always the same.

        Answers are those of the first trial.
        """
        sizes = np.full(int(chosen.max()) + 1 if len(chosen) else 0, np.nan)
        sizes[chosen] = size
        self._register_samples("chosen", a, sizes)
        try:
            self.con.execute(
                f"CREATE OR REPLACE TEMP TABLE picked AS SELECT * FROM (SELECT DISTINCT c.idx, c.size, s.task, s.item, s.content FROM chosen c "
                f"JOIN samples_{a} s ON s.rowid = c.sample) "
                + (
                    ""
                    if limit is None
                    else f"ORDER BY round(size, 9) DESC, md5(concat_ws(chr(31), task, item, content)), item LIMIT {int(limit)}"
                )
            )
        finally:
            self.con.unregister("chosen")
        few = np.full_like(sizes, np.nan)
        few[self.con.execute("SELECT idx FROM picked").fetchnumpy()["idx"]] = 0.0
        for k in {a, b}:
            self._register_samples(f"index_{k}", k, few)

        def side(k: int) -> str:
            return (
                f'SELECT p.idx, any_value(s."by") AS label, avg(x.value) AS v, arg_min(s.answer, s.trial) AS answer, arg_min(x.extracted, s.trial) AS extracted, '
                f"any_value(s.question) AS question, any_value(s.target) AS target FROM picked p JOIN index_{k} n ON n.idx = p.idx "
                f"JOIN samples_{k} s ON s.rowid = n.sample JOIN scores_{k} x ON x.sample = s.rowid AND x.metric = ? GROUP BY p.idx"
            )

        try:
            rows = self.con.execute(
                f"SELECT p.idx, p.task, p.item, coalesce(x.label, y.label), coalesce(x.question, y.question), coalesce(x.target, y.target), x.v, y.v, "
                f"x.answer, y.answer, x.extracted, y.extracted FROM picked p JOIN ({side(a)}) x ON x.idx = p.idx JOIN ({side(b)}) y ON y.idx = p.idx "
                f"ORDER BY p.size DESC, p.task, length(p.item), p.item, p.content",
                [metric, metric],
            ).fetchall()
        finally:
            for k in {a, b}:
                self.con.unregister(f"index_{k}")
        return [(int(row[0]), Flip(*row[1:])) for row in rows]

    def _register_samples(self, name: str, k: int, sizes: FloatArray) -> None:
        """The samples of arm ``k`` whose item has a ``size`` ((at most N,), NaN where none), as a table the database can read."""
        index = self._index[k]
        sample = np.flatnonzero(index < len(sizes))
        sample = sample[~np.isnan(sizes[index[sample]])]
        self.con.register(name, {"sample": sample, "idx": index[sample], "size": sizes[index[sample]]})


def _number(k1: npt.NDArray[np.uint64], k2: npt.NDArray[np.uint64]) -> tuple[IntArray, int]:
    """Rows with equal (k1, k2), both (M,), get one number; numbers follow the sorted keys, so row order does not matter.

    Returns:
        (M,) numbers from 0, and how many there are.
    """
    order = np.argsort(k1)
    first, second = k1[order], k2[order]
    if ((first[1:] == first[:-1]) & (second[1:] != second[:-1])).any():  # two items share the first hash: sort by both
        order = np.lexsort((k2, k1))
        first, second = k1[order], k2[order]
    fresh = np.ones(len(order), dtype=np.int64)
    fresh[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    fresh[:1] = 0
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(fresh)
    return numbers, int(fresh.sum()) + 1 if len(order) else 0
