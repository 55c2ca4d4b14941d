"""Every answer that a model gave, kept by the identity of its request: a killed run goes on, and nothing is asked twice.

One SQLite file (standard library; safe against a kill at any moment, and against several writers). Failures are not kept: they are asked again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import astuple
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aligntax.core.asks import Answer, Diverged, Failure, Generated, Scored
from aligntax.core.errors import RunError
from aligntax.core.words import printable

_TABLE, _RATES, _MODELS = "answers_1", "rates_1", "models_1"
_MANY = 500
_OURS = 0x616C7478  # SQLite's application id: "altx"


class Answers:
    """A store of answers. A context manager; ``None`` as path keeps them in memory.

    Raises:
        RunError: if the file is no store of answers, or cannot be written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(":memory:" if path is None else path, timeout=60)
            self._claim()
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {_TABLE} (id TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {_RATES} (model TEXT PRIMARY KEY, tokens REAL NOT NULL, seconds REAL NOT NULL)")
            self._db.execute(f"CREATE TABLE IF NOT EXISTS {_MODELS} (model TEXT PRIMARY KEY, fingerprint TEXT NOT NULL)")
            self._db.commit()
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"answers cannot be kept in {printable(str(path))}: {printable(str(error))}") from None

    def _claim(self) -> None:
        """Mark a new file as ours; refuse somebody else's."""
        (mark,) = self._db.execute("PRAGMA application_id").fetchone()
        if mark == _OURS:
            return
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {_TABLE, _RATES, _MODELS}:
            raise sqlite3.DatabaseError("it is a database of another program")
        self._db.execute(f"PRAGMA application_id = {_OURS}")

    def _asked(self, sql: str, values: Sequence[Any]) -> list[Any]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise RunError(
                f"the answers kept in {printable(str(self.path))} cannot be read ({printable(str(error))}); move the file away, and they are asked again"
            ) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._db.close()

    def known(self, ids: Iterable[str]) -> dict[str, Answer]:
        """The answers there are to these requests; what cannot be read counts as not there."""
        found: dict[str, Answer] = {}
        rest = iter(ids)
        while some := tuple(islice(rest, _MANY)):
            marks = ",".join("?" * len(some))
            for key, body in self._asked(f"SELECT id, body FROM {_TABLE} WHERE id IN ({marks})", some):
                answer = _read(body)
                if answer is not None:
                    found[key] = answer
        return found

    def keep(self, answers: Sequence[tuple[str, Answer]]) -> None:
        """Store answers, all of them or none; failures are left out.

        Raises:
            RunError: if they cannot be written.
        """
        rows = [(key, json.dumps(_body(answer), allow_nan=False)) for key, answer in answers if not isinstance(answer, Failure)]
        try:
            with self._db:
                self._db.executemany(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise RunError(f"answers cannot be kept in {printable(str(self.path))}: {printable(str(error))}") from None

    def timed(self, model: str, tokens: int, seconds: float) -> None:
        """Remember how fast a model answered: the last time counts."""
        try:
            with self._db:
                self._db.execute(f"INSERT OR REPLACE INTO {_RATES} VALUES (?, ?, ?)", (model, float(tokens), seconds))
        except sqlite3.Error as error:
            raise RunError(f"answers cannot be kept in {printable(str(self.path))}: {printable(str(error))}") from None

    def rate(self, model: str) -> float | None:
        """Tokens per second, asked and answered, when this model was asked last; None if it never was."""
        rows = self._asked(f"SELECT tokens / seconds FROM {_RATES} WHERE model = ? AND seconds > 0", (model,))
        rate = rows[0][0] if rows else None
        return float(rate) if isinstance(rate, int | float) and rate > 0 else None

    def unlike(self, model: str, fingerprint: Sequence[float]) -> float:
        """How far a model is from the one that was asked before under the same identity: mean absolute difference of the log-probabilities
        of a fixed text, nats per token; 0 where none was, and inf where the text has other tokens. The first fingerprint is kept.
        """
        rows = self._asked(f"SELECT fingerprint FROM {_MODELS} WHERE model = ?", (model,))
        if not rows:
            try:
                with self._db:
                    self._db.execute(f"INSERT OR IGNORE INTO {_MODELS} VALUES (?, ?)", (model, json.dumps(list(fingerprint))))
            except sqlite3.Error as error:
                raise RunError(f"answers cannot be kept in {printable(str(self.path))}: {printable(str(error))}") from None
            return 0.0
        try:
            before = [float(x) for x in json.loads(rows[0][0])]
        except (ValueError, TypeError):
            return float("inf")
        if len(before) != len(fingerprint) or not before:
            return float("inf")
        return sum(abs(x - y) for x, y in zip(before, fingerprint, strict=True)) / len(before)


def _body(answer: Answer) -> list[Any]:
    if isinstance(answer, Scored):
        # Minus infinity is a log-probability; JSON has no word for it.
        tops = [{str(token): _written(p) for token, p in top.items()} for top in answer.tops]
        return ["scored", [_written(x) for x in answer.logprobs], [int(g) for g in answer.greedy], *([tops] if tops else [])]
    if isinstance(answer, Generated):
        return ["generated", answer.text, answer.reason, answer.tokens, list(answer.drawn)]
    if isinstance(answer, Diverged):
        return ["diverged", *(None if x == float("inf") else x for x in astuple(answer))]
    raise TypeError(f"a {type(answer).__name__} is not kept")


def _written(logprob: float) -> float | None:
    return None if logprob == float("-inf") else logprob


def _logprob(written: float | None) -> float:
    return float("-inf") if written is None else float(written)


def _read(body: str) -> Answer | None:
    try:
        kind, *rest = json.loads(body)
        if kind == "scored":
            tops = ({int(token): _logprob(p) for token, p in top.items()} for top in (rest[2] if len(rest) > 2 else []))
            return Scored(tuple(map(_logprob, rest[0])), tuple(map(bool, rest[1])), tuple(tops))
        if kind == "generated" and rest[1] in ("stop", "length"):
            return Generated(str(rest[0]), rest[1], rest[2], tuple(map(int, rest[3])))
        if kind == "diverged":
            kl, reverse, js, one, two = (float("inf") if x is None else float(x) for x in rest[1:6])
            return Diverged(int(rest[0]), kl, reverse, js, one, two, int(rest[6]))
    except (ValueError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    return None
