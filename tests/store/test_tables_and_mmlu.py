"""Plain tables, MMLU-Pro outputs, plug-in readers."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest
from pytest import approx

import aligntax
from aligntax import InputError
from aligntax.core.ids import item_content
from aligntax.store import logs
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Value, Want, find_reader, reader
from aligntax.testing import check_reader
from tests.support.tables import mmlu_row, pair, write_csv, write_jsonl, write_parquet


def test_column_options(tmp_path: Path) -> None:
    rows = [{"prompt_id": i, "correct": bool(i % 3), "suite": "s", "say": "hm"} for i in range(9)]
    columns = {"item": "prompt_id", "score": "correct", "task": "suite", "answer": "say"}
    for write, suffix in ((write_csv, "csv"), (write_jsonl, "jsonl"), (write_parquet, "parquet")):
        path = write(tmp_path / f"t.{suffix}", rows)
        entry = aligntax.diff(path, path, columns=columns)[0]
        assert (entry.task, entry.metric, entry.n, entry.baseline_value) == ("s", "correct", 9, approx(6 / 9))


def test_long_tables_with_a_metric_column(tmp_path: Path) -> None:
    rows = [{"item": i, "metric": m, "score": i % 2} for i in range(6) for m in ("acc", "f1")]
    path = write_csv(tmp_path / "t.csv", rows)
    assert [e.metric for e in aligntax.diff(path, path)] == ["acc", "f1"]


@pytest.mark.parametrize("separator", [",", "\t", ";", "|"])
def test_separators_byte_order_marks_and_line_ends(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "t.csv"
    text = "\r\n".join([f"item{separator}score", *[f"a{i}{separator}{i % 2}" for i in range(8)]]) + "\r\n"
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert aligntax.diff(path, path)[0].n == 8


def test_ids_pair_as_text_whatever_their_type(tmp_path: Path) -> None:
    rows = [{"item": i, "score": i % 2} for i in range(8)]
    assert aligntax.diff(write_csv(tmp_path / "a.csv", rows), write_parquet(tmp_path / "b.parquet", rows))[0].n == 8
    assert aligntax.diff(write_csv(tmp_path / "a.csv", rows), write_jsonl(tmp_path / "c.jsonl", rows))[0].n == 8


def test_file_names_with_wildcards_and_quotes(tmp_path: Path) -> None:
    rows, _ = pair(5, 0, 0, 5)
    for name in ("a*[1]?.csv", "it's.csv", "b[2].parquet"):
        path = (write_parquet if name.endswith("parquet") and "'" not in name else write_csv)(tmp_path / name, rows)
        assert aligntax.diff(path, path)[0].n == 10


def test_contents_are_the_same_in_sql_and_in_python(tmp_path: Path) -> None:
    rows = [{"item": i, "score": 1, "question": q, "target": t} for i, (q, t) in enumerate([("a", "b"), ("ä÷", None), ("x" * 300, "1")])]
    a, b = write_jsonl(tmp_path / "a.jsonl", rows), write_parquet(tmp_path / "b.parquet", rows)
    assert aligntax.diff(a, b)[0].n == 3
    assert item_content("a", None, "b") != item_content("ab", None, "") != item_content("ab", None, None)
    assert item_content("a", ["b", "c"], "d") != item_content("a", ["bc"], "d")


def test_mmlu_pro_as_zip_json_lines_and_folder(tmp_path: Path) -> None:
    rows = [mmlu_row(i, pred=None if i == 3 else "AB"[i % 2]) for i in range(10)]
    listed, lines, packed, folder = tmp_path / "a.json", tmp_path / "b.jsonl", tmp_path / "c.zip", tmp_path / "parts"
    listed.write_text(json.dumps(rows, indent=2))
    write_jsonl(lines, rows)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("outputs/x.json", json.dumps(rows))
    folder.mkdir()
    (folder / "1.json").write_text(json.dumps(rows[:4]))
    (folder / "2.json").write_text(json.dumps(rows[4:]))
    ledgers = [aligntax.diff(path, listed, cluster="src", by="category") for path in (listed, lines, packed, folder)]
    assert ledgers[0][0].n == 10
    assert ledgers[0][0].baseline_value == 0.5
    assert ledgers[0][0].outcomes["base"] == {"scored": 9, "unparsed": 1}
    assert all(ledger.to_json() == ledgers[0].to_json() for ledger in ledgers)


def test_a_wrong_letter_beyond_the_options_is_scored(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([mmlu_row(0, pred="J"), mmlu_row(1)]))
    entry = aligntax.diff(path, path)[0]
    assert entry.outcomes["base"] == {"scored": 2}
    assert entry.baseline_value == 0.5


def test_readers_of_other_packages_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @reader("tally", lambda seen: seen.path.suffix == ".tally")
    def tally(path: Path, want: Want) -> LogSource:
        marks = path.read_text().strip()
        rows = (LogRow("tally", str(i), None, {"mark": Value(float(m == "x"))}) for i, m in enumerate(marks))
        return LogSource("tally", rows, facts=LogFacts(labels={want.cluster or ""}))

    class Point:
        value = "somewhere:tally"
        loaded: object = tally

        def load(self) -> object:
            return self.loaded

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point()] if group == logs.ENTRY_POINTS else [])
    path = tmp_path / "a.tally"
    path.write_text("xx.x")
    check_reader(tally, path)
    assert find_reader(path) is tally
    assert aligntax.diff(path, path)[0].baseline_value == 0.75
    Point.loaded = len
    with pytest.raises(InputError, match="is a builtin_function_or_method, not a reader"):
        find_reader(path)


def test_check_reader_finds_what_is_wrong(tmp_path: Path) -> None:
    def broken(path: Path, want: Want) -> LogSource:
        return LogSource("broken", iter([LogRow("t", None, None, {"m": Value(1.0)})]))

    path = tmp_path / "x"
    path.write_text("x")
    with pytest.raises(AssertionError, match="an id or a content hash"):
        check_reader(reader("broken", lambda _: True)(broken), path)
    with pytest.raises(AssertionError, match="does not recognise"):
        check_reader(reader("blind", lambda _: False)(broken), path)
    assert Sighting(path).first_object is None
