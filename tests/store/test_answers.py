"""The store of answers: what is kept comes back, and what is not ours or is damaged is refused in one sentence."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from aligntax.core.asks import Answer, Diverged, Failure, Generated, Scored
from aligntax.core.errors import RunError
from aligntax.store.answers import Answers

INF = float("inf")
KEPT: dict[str, Answer] = {
    "a": Scored((-0.5, -INF), (True, False), ({3: -0.5, 7: -INF}, {5: -1.0})),
    "b": Scored((-0.25,), (False,)),
    "c": Generated("two\u2028lines", "length", 3, (4, 5, 6)),
    "d": Generated("", "stop", None),
    "e": Diverged(3, INF, 0.5, 0.25, 1.0, 2.0, 1),
}


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    with Answers(tmp_path / "new" / "kept.sqlite") as store:
        store.keep([*KEPT.items(), ("f", Failure("boom"))])
    with Answers(tmp_path / "new" / "kept.sqlite") as store:
        assert store.known([*KEPT, "f", "g"]) == KEPT


def test_a_fixed_text_tells_models_apart(tmp_path: Path) -> None:
    with Answers(tmp_path / "kept.sqlite") as store:
        assert store.unlike("m", [-1.0, -2.0]) == 0.0
        assert store.unlike("m", [-1.02, -2.0]) == pytest.approx(0.01)
        assert store.unlike("m", [-1.0, -4.0]) == pytest.approx(1.0)
        assert store.unlike("m", [-1.0]) == INF
        assert store.unlike("n", [-9.0]) == 0.0
    with Answers(tmp_path / "kept.sqlite") as store:
        assert store.unlike("m", [-1.0, -4.0]) == pytest.approx(1.0)  # the first one is kept


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "bookmarks.sqlite"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE bookmarks (url TEXT)")
    before = path.read_bytes()
    with pytest.raises(RunError, match="database of another program"):
        Answers(path)
    assert path.read_bytes() == before


def test_a_damaged_file_is_said(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    with Answers(path) as store:
        store.keep([(f"{k:064d}", Generated("word " * 100, "stop", 1)) for k in range(500)])
    data = bytearray(path.read_bytes())
    data[8192:] = b"\x07" * (len(data) - 8192)
    path.write_bytes(data)
    with Answers(path) as store, pytest.raises(RunError, match="move the file away, and they are asked again"):
        store.known([f"{k:064d}" for k in range(500)])


def test_speed_that_is_no_number_is_none(tmp_path: Path) -> None:
    path = tmp_path / "kept.sqlite"
    with Answers(path) as store:
        store.timed("m", 10**30, 2.0)
        assert store.rate("m") == pytest.approx(5e29)
        store._db.execute("UPDATE rates_1 SET tokens = 'x'")
        assert store.rate("m") is None
        assert store.rate("n") is None
