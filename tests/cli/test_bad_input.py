"""Whatever is wrong with what was given: one sentence on stderr, exit code 2, and nothing half written."""

from __future__ import annotations

import json
import struct
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.tables import mmlu_row, pair, write_csv, write_jsonl, write_parquet

Run = Callable[..., subprocess.CompletedProcess[str]]
GOOD = [mmlu_row(i) for i in range(6)]


def zipped(path: Path, members: dict[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def text(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def bad_crc(path: Path) -> Path:
    zipped(path, {"a.json": json.dumps(GOOD)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    at = data.index(b"Question 3")
    data[at] ^= 0x20
    return text(path, bytes(data))


def encrypted(path: Path) -> Path:
    zipped(path, {"a.json": json.dumps(GOOD)})
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.index(signature) + offset
        data[at : at + 2] = struct.pack("<H", struct.unpack("<H", data[at : at + 2])[0] | 1)
    return text(path, bytes(data))


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "empty": (lambda p: text(p / "a.json", ""), "is empty"),
    "blank": (lambda p: text(p / "a.jsonl", "\n\n  \n"), "is no log that aligntax understands"),
    "truncated json": (lambda p: text(p / "a.json", json.dumps(GOOD)[:-40]), "row 6 is not complete JSON"),
    "unclosed list": (lambda p: text(p / "a.json", json.dumps(GOOD)[:-1]), "ends after row 6 without closing its list"),
    "malformed line": (lambda p: text(p / "a.jsonl", json.dumps(GOOD[0]) + "\n{oops}\n"), "row 2 is not complete JSON"),
    "not objects": (lambda p: text(p / "a.json", "[1, 2, 3]"), "row 1: a JSON object was expected, found '1, 2, 3]'"),
    "object then number": (lambda p: text(p / "a.jsonl", json.dumps(GOOD[0]) + "\n17\n"), "row 2: a JSON object was expected"),
    "latin-1": (
        lambda p: text(p / "a.json", json.dumps([mmlu_row(0, question="caf\u00e9")], ensure_ascii=False).encode("latin-1")),
        "is not UTF-8 text",
    ),
    "utf-16": (lambda p: text(p / "a.csv", "item,score\na,1\n".encode("utf-16")), "is no log that aligntax understands"),
    "binary": (lambda p: text(p / "a.bin", bytes(range(256)) * 20), "is no log that aligntax understands"),
    "deep nesting": (lambda p: text(p / "a.json", "[" + '{"a":' * 100_000), "nests too deeply"),
    "huge number": (lambda p: text(p / "a.jsonl", '{"item": ' + "9" * 5000 + ', "score": 1}\n'), "row 1 is not complete JSON"),
    "truncated zip": (
        lambda p: text(p / "a.zip", zipped(p / "b.zip", {"a.json": json.dumps(GOOD)}).read_bytes()[:-30]),
        "is no log that aligntax understands",
    ),
    "wrong checksum": (lambda p: bad_crc(p / "a.zip"), "is a damaged zip file"),
    "encrypted": (lambda p: encrypted(p / "a.zip"), "is encrypted"),
    "zip bomb": (lambda p: zipped(p / "a.zip", {"a.json": b"[" + b" " * 40_000_000}), "as only a zip bomb does"),
    "hostile member": (lambda p: zipped(p / "a.zip", {"../../etc/x.json": json.dumps(GOOD)}), "unsafe path"),
    "absolute member": (lambda p: zipped(p / "a.zip", {"/etc/x.json": json.dumps(GOOD)}), "unsafe path"),
    "windows member": (lambda p: zipped(p / "a.zip", {"C:\\x.json": json.dumps(GOOD)}), "unsafe path"),
    "zip without json": (lambda p: zipped(p / "a.zip", {"a.txt": "hello"}), "holds no .json or .jsonl member"),
    "inspect log": (lambda p: zipped(p / "a.eval", {"header.json": "{}"}), "has no samples; item by item comparison needs them"),
    "empty folder": (lambda p: (p / "d").mkdir() or p / "d", "(an empty folder)"),
    "foreign folder": (lambda p: text(p / "d.txt", "x").parent, "is no log that aligntax understands (a folder of"),
    "missing": (lambda p: p / "nowhere.json", "does not exist"),
    "missing keys": (lambda p: text(p / "a.json", json.dumps([*GOOD, {"question_id": 1}])), "row 7 has no question, answer, pred"),
    "numeric letter": (lambda p: text(p / "a.json", json.dumps([mmlu_row(0, pred=3)])), "answer and pred must be letters"),
    "repeated item": (lambda p: text(p / "a.json", json.dumps([*GOOD, GOOD[2]])), "has item '2' of mmlu_pro 2 times in trial 0"),
    "repeated item in a table": (
        lambda p: write_csv(p / "a.csv", [{"item": 1, "score": 1}] * 2),
        "has item '1' of table 2 times in trial 0",
    ),
    "no score column": (lambda p: write_csv(p / "a.csv", [{"item": 1, "points": 1}]), "has no column 'score'; it has item, points"),
    "no item column": (lambda p: write_csv(p / "a.csv", [{"id": 1, "score": 1}]), "has no column 'item' to pair rows by"),
    "identical rows without ids": (
        lambda p: write_csv(p / "a.csv", [{"question": "q", "score": 1}] * 2),
        "2 identical rows in table and no item ids",
    ),
    "nan": (lambda p: write_csv(p / "a.csv", [{"item": 1, "score": "NaN"}]), "row 1: score is 'NaN'; scores must be finite"),
    "infinity": (lambda p: write_csv(p / "a.csv", [{"item": 0, "score": 1}, {"item": 1, "score": "inf"}]), "row 2: score is 'inf'"),
    "infinity in json": (lambda p: text(p / "a.jsonl", '{"item": 1, "score": Infinity}\n'), "row 1: score is inf"),
    "huge score": (lambda p: write_csv(p / "a.csv", [{"item": 1, "score": "1e200"}]), "row 1: score is '1e200'; scores must be finite"),
    "huge score in json": (lambda p: text(p / "a.jsonl", '{"item": 1, "score": 1' + "0" * 400 + "}\n"), "at most 1e+100 either side of 0"),
    "negative trial": (lambda p: write_csv(p / "a.csv", [{"item": 1, "score": 1, "trial": -1}]), "not a whole number from 0 to"),
    "huge trial in json": (
        lambda p: write_jsonl(p / "a.jsonl", [{"item": 1, "score": 1, "trial": 10**12}]),
        "not a whole number from 0 to",
    ),
    "words as scores": (lambda p: write_csv(p / "a.csv", [{"item": 1, "score": "good"}]), "row 1: score is 'good'"),
    "words as scores in json": (
        lambda p: write_jsonl(p / "a.jsonl", [{"item": 1, "score": "good"}]),
        "row 1: score is 'good', not a number",
    ),
    "unknown outcome": (
        lambda p: write_csv(p / "a.csv", [{"item": 1, "score": 1, "outcome": "lost"}]),
        "row 1: outcome is 'lost'; allowed: scored, refused",
    ),
    "unknown outcome in json": (
        lambda p: write_jsonl(p / "a.jsonl", [{"item": 1, "score": 1, "outcome": "lost"}]),
        "outcome is 'lost'; allowed: scored",
    ),
    "scored without a score": (
        lambda p: write_csv(p / "a.csv", [{"item": 1, "score": "", "outcome": "scored"}]),
        "outcome is scored, but there is no score",
    ),
    "fractional trial": (lambda p: write_csv(p / "a.csv", [{"item": 1, "score": 1, "trial": "x"}]), "trial is 'x', not a whole number"),
    "ragged csv": (
        lambda p: text(p / "a.csv", "item,score\na,1\nb,1,2,3\n"),
        "cannot be read as a table: line 3: Expected Number of Columns: 2 Found: 3",
    ),
    "truncated parquet": (
        lambda p: text(p / "a.parquet", write_parquet(p / "b.parquet", pair(5, 0, 0, 5)[0]).read_bytes()[:-50]),
        "is no readable PARQUET table",
    ),
    "only failures": (
        lambda p: write_csv(p / "a.csv", [{"item": 1, "score": "", "outcome": "failed"}]),
        "no item with a score is common to the arms",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_one_sentence_exit_two_and_nothing_written(name: str, tmp_path: Path, aligntax: Run) -> None:
    make, message = FILES[name]
    folder = tmp_path / "in"
    folder.mkdir()
    path = make(folder)
    before = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))
    done = aligntax("diff", path, path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 900
    assert not (tmp_path / "aligntax-runs").exists()
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*")) == before


def table(path: Path, rows: list[dict[str, object]]) -> Path:
    return write_csv(path, rows)


ARMS: dict[str, tuple[list[dict[str, object]], list[dict[str, object]], list[str], str]] = {
    "no common item": ([{"item": 1, "score": 1}], [{"item": 2, "score": 1}], [], "no item with a score is common to the arms"),
    "no common task": ([{"item": 1, "score": 1, "task": "a"}], [{"item": 1, "score": 1, "task": "b"}], [], "the arms have no task in common (base has a; candidate has b)"),
    "same ids, other questions": (
        [{"item": 1, "score": 1, "question": "x"}], [{"item": 1, "score": 1, "question": "y"}], [], "1 id agree, but questions, choices or targets differ",
    ),
    "no cluster column": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--cluster", "src"], "has no cluster column 'src'; its columns are: item, score"),
    "a cluster column with gaps": (
        [{"item": i, "score": 1, "src": "s" if i else ""} for i in range(3)], [{"item": i, "score": 1} for i in range(3)], ["--cluster", "src"], "no cluster column",
    ),
    "an item in two clusters": (
        [{"item": 1, "score": 1, "src": "a"}], [{"item": 1, "score": 1, "src": "b"}], ["--cluster", "src"], "item '1' of table has more than one cluster label, 'a' and 'b'",
    ),
    "unknown option": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--clutser", "x"], "No such option: --clutser"),
    "margin 0": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--margin", "0"], "margin must be a number greater than 0"),
    "level": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--level", "95"], "level: Input should be less than 1, got 95"),
    "names": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--names", "one"], "--names takes two names separated by a comma, got 'one'"),
    "same names": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--names", "a,a"], "two arms are named 'a'"),
    "stage": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--stage", "sft"], "--stage takes NAME=PATH or NAME=PATH@PARENT, got 'sft'"),
    "kind": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--kind", "table=fun"], "kind of table must be one of performance"),
    "scale": ([{"item": 1, "score": 1}], [{"item": 1, "score": 1}], ["--scale", "score=low:high"], "--scale takes METRIC=LOW:HIGH with two numbers"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARMS)
def test_arms_that_define_no_comparison(name: str, tmp_path: Path, aligntax: Run) -> None:
    base, candidate, options, message = ARMS[name]
    done = aligntax("diff", table(tmp_path / "a.csv", base), table(tmp_path / "b.csv", candidate), *options)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "aligntax-runs").exists()


def test_a_cluster_column_partly_empty_in_both(tmp_path: Path, aligntax: Run) -> None:
    rows = [{"item": i, "score": 1, "src": "s" if i else ""} for i in range(3)]
    path = write_csv(tmp_path / "a.csv", rows)
    done = aligntax("diff", path, path, "--cluster", "src")
    assert done.returncode == 2
    assert "column src is empty for 1 item of table; give every item a source" in done.stderr


def test_a_row_of_a_hundred_megabytes_is_refused(tmp_path: Path, aligntax: Run) -> None:
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        file.write('{"item": 1, "score": 1, "answer": "')
        for _ in range(100):
            file.write("x" * 1_000_000)
        file.write('"}\n')
    done = aligntax("diff", path, path)
    assert done.returncode == 2
    assert "row 1 is longer than 64 MiB" in done.stderr


def test_an_unexpected_failure_is_said_without_a_traceback(tmp_path: Path, aligntax: Run) -> None:
    # A name with a line break and escape codes, in a message: still one harmless line.
    done = aligntax("diff", tmp_path / "no\n\x1b[31mwhere", tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr
