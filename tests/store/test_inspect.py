"""Inspect logs: read without Inspect, and checked against what Inspect itself makes of the same files."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

import aligntax
from aligntax.core.errors import InputError, LogError
from aligntax.core.samples import Outcome
from aligntax.store.logs import LogRow, Want, find_reader
from aligntax.testing import check_reader
from tests.conftest import need


def read(path: Path, want: Want | None = None) -> list[LogRow]:
    source = find_reader(path).read(path, want or Want())
    assert source.reader == "inspect"
    assert source.rows is not None
    return list(source.rows)


def notes(path: Path) -> list[str]:
    source = find_reader(path).read(path, Want())
    assert source.rows is not None
    list(source.rows)
    return source.facts.notes


# -- against Inspect ---------------------------------------------------------------------------------------------------------------


def wanted(path: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Scores by sample and epoch, as Inspect's own API reads them."""
    from inspect_ai.log import read_eval_log
    from inspect_ai.scorer import value_to_float

    number = value_to_float()
    log = read_eval_log(str(path))
    return {
        (str(sample.id), sample.epoch): {name: number(score.value) for name, score in (sample.scores or {}).items()}
        for sample in log.samples or []
    }


def test_real_logs_are_read_as_inspect_reads_them(shared: Path) -> None:
    need("inspect_ai", "inspect")
    files = sorted(p for p in (shared / "data" / "inspect_logs").iterdir() if p.suffix in (".eval", ".json"))
    assert len(files) == 5
    for path in files:
        check_reader(find_reader(path), path)
        found = {(str(r.item), r.trial + 1): {k: v.value for k, v in r.scores.items() if v.value is not None} for r in read(path)}
        assert found == wanted(path)


def test_a_real_log_whose_samples_were_never_scored(shared: Path) -> None:
    (path,) = (shared / "data" / "inspect_logs").glob("*dPiJifoWeEQBrfWsAopzWr.eval")
    rows = read(path)
    assert [row.scores["match"].outcome for row in rows] == [Outcome.FAILED] * 10
    assert all(row.scores["match"].value is None for row in rows)


GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log that Inspect itself wrote: two epochs, several scorers, letters, numbers, parts, failures, endings."""
    need("inspect_ai", "inspect")
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalMetric, EvalResults, EvalSample, EvalScore, EvalSpec, write_eval_log
    from inspect_ai.model import ChatMessageAssistant, ChatMessageSystem, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    def sample(number: int, epoch: int, **change: Any) -> EvalSample:
        grade = "CIPN"[(number + epoch) % 4]
        said = ModelOutput.from_content("mock/model", f"answer {number}", stop_reason=change.pop("stop", "stop"))
        given: dict[str, Any] = {
            "id": number,
            "epoch": epoch,
            "input": [ChatMessageSystem(content="be brief"), ChatMessageUser(content=f"question {number}?")]
            if number % 2
            else f"question {number}?",
            "target": ["a", "b"] if number == 3 else "a",
            "choices": ["a", "b"] if number == 4 else None,
            "messages": [ChatMessageUser(content=f"question {number}?"), ChatMessageAssistant(content=f"answer {number}")],
            "output": said,
            "scores": {
                "graded": Score(value=grade, answer=grade.lower()),
                "number": Score(value=number / 10),
                "words": Score(value="yes" if number % 2 else "No"),
                "parts": Score(value={"fluent": number / 10, "true": number % 2 == 0}),
                "listed": Score(value=[1, 0]),
            },
            "metadata": {"source": f"s{number % 3}", "nested": {"a": 1}},
            **change,
        }
        return EvalSample(**given)

    samples = [sample(n, e) for e in (1, 2) for n in range(1, 7)]
    samples.append(sample(7, 1, stop="max_tokens", scores={"graded": Score(value="I")}))
    samples.append(sample(8, 1, stop="content_filter", scores={"graded": Score(value="I")}))
    samples.append(sample(9, 1, scores={"graded": Score(value=float("nan"))}))
    samples.append(sample(10, 1, scores={"graded": Score(value="maybe")}))
    log = EvalLog(
        eval=EvalSpec(
            created="2026-01-01T00:00:00+00:00",
            task="made/task",
            dataset=EvalDataset(name="d"),
            model="mock/model",
            config=EvalConfig(epochs=2),
        ),
        results=EvalResults(
            scores=[EvalScore(name=n, scorer=n, metrics={"accuracy": EvalMetric(name="accuracy", value=0.5)}) for n in ("graded", "parts")]
        ),
        status="success",
        samples=samples,
    )
    folder = tmp_path_factory.mktemp("made")
    write_eval_log(log, str(folder / "made.eval"))
    write_eval_log(log, str(folder / "made.json"))
    return folder


@pytest.mark.parametrize("name", ["made.eval", "made.json"])
def test_what_inspect_writes(made: Path, name: str) -> None:
    rows = {(row.item, row.trial): row for row in read(made / name, Want(cluster="source"))}
    assert len(rows) == 16
    for number in range(1, 7):
        for epoch in (1, 2):
            row = rows[str(number), epoch - 1]
            assert row.task == "made/task"
            grade = "CIPN"[(number + epoch) % 4]
            assert row.scores["graded"].value == GRADES[grade]
            assert row.scores["graded"].extracted == grade.lower()
            assert row.scores["graded"].outcome is (Outcome.REFUSED if grade == "N" else Outcome.SCORED)
            assert row.scores["number"].value == number / 10
            assert row.scores["words"].value == number % 2
            assert row.scores["parts/fluent"].value == number / 10
            assert row.scores["parts/true"].value == float(number % 2 == 0)
            assert "listed" not in row.scores
            assert f"question {number}?" in (row.question or "")
            assert row.answer == f"answer {number}"
            assert row.cluster == f"s{number % 3}"
            assert row.content == rows[str(number), 0].content
    assert len({row.content for row in rows.values()}) == 10
    assert rows["7", 0].scores["graded"].outcome is Outcome.TRUNCATED
    assert rows["8", 0].scores["graded"].outcome is Outcome.REFUSED
    assert (rows["9", 0].scores["graded"].value, rows["9", 0].scores["graded"].outcome) == (None, Outcome.FAILED)
    assert "graded" not in rows["10", 0].scores
    told = notes(made / name)
    assert any("graded is left out where its value is no number (for example the text 'maybe')" in note for note in told)
    assert any("listed is left out" in note and "a list" in note for note in told)
    assert find_reader(made / name).read(made / name, Want()).facts.higher_is_better["made/task", "graded"] is True


def test_both_forms_hold_the_same(made: Path) -> None:
    key = lambda row: (row.item, row.trial)  # noqa: E731
    one, two = (sorted(read(made / name), key=key) for name in ("made.eval", "made.json"))
    assert one == two


def test_large_samples_in_pieces(made: Path, tmp_path: Path) -> None:
    """Inspect can write a sample as a shell with its messages, events and attachments in pieces."""
    from inspect_ai.log._recorders.chunked import convert_eval_logs_to_chunked

    convert_eval_logs_to_chunked(str(made / "made.eval"), str(tmp_path))
    (path,) = tmp_path.glob("*.eval")
    with zipfile.ZipFile(path) as archive:
        assert any(name.endswith("/sample.json") for name in archive.namelist())
    key = lambda row: (row.item, row.trial)  # noqa: E731
    strip = lambda row: (*key(row), row.question, row.target, row.answer, row.scores, row.content)  # noqa: E731
    assert sorted(map(strip, read(path))) == sorted(map(strip, read(made / "made.eval"))) or [
        strip(r) for r in sorted(read(path), key=key)
    ] == [strip(r) for r in sorted(read(made / "made.eval"), key=key)]


# -- made here -----------------------------------------------------------------------------------------------------------------------


def sample(number: int, grade: str, **change: Any) -> dict[str, Any]:
    return {
        "id": number, "epoch": 1, "input": f"q{number}", "target": "t", "scores": {"match": {"value": grade, "answer": "x"}},
        "output": {"choices": [{"message": {"role": "assistant", "content": "said"}, "stop_reason": "stop"}]}, "metadata": {}, **change,
    }  # fmt: skip


HEADER = {
    "version": 2, "status": "success",
    "eval": {"task": "t", "model": "m", "scorers": [{"name": "match", "metrics": [{"name": "inspect_ai/accuracy"}]}]},
}  # fmt: skip


def write(path: Path, samples: list[dict[str, Any]], header: str = "header.json", **members: str) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(header, json.dumps(HEADER))
        for one in samples:
            archive.writestr(f"samples/{one.get('id')}_epoch_{one.get('epoch')}.json", json.dumps(one))
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_two_logs_are_compared(tmp_path: Path) -> None:
    base = write(tmp_path / "base.eval", [sample(n, "C" if n < 80 else "I") for n in range(100)])
    tuned = write(tmp_path / "tuned.eval", [sample(n, "C" if n < 50 else "I") for n in range(100)])
    entry = aligntax.diff(base, tuned).find("t")
    assert (entry.metric, entry.unit, entry.verdict, entry.higher_is_better) == ("match", "fraction", "tax", True)
    assert entry.change == pytest.approx(-0.3)


def test_a_run_that_was_killed_has_no_header(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "a.eval", [sample(1, "C")], header="_journal/start.json"))) == 1


def test_a_folder_has_one_log_per_task(tmp_path: Path) -> None:
    write(tmp_path / "a.eval", [sample(1, "C")])
    assert len(read(tmp_path)) == 1
    write(tmp_path / "b.eval", [sample(1, "C")])
    with pytest.raises(LogError, match=r"two logs of the task t: a\.eval and b\.eval"):
        find_reader(tmp_path).read(tmp_path, Want())


def test_a_sample_that_failed_is_missing(tmp_path: Path) -> None:
    (row,) = read(write(tmp_path / "a.eval", [sample(1, "I", error={"message": "boom"})]))
    assert (row.scores["match"].value, row.scores["match"].outcome) == (None, Outcome.FAILED)


@pytest.mark.parametrize(
    ("samples", "members", "message"),
    [
        ([], {}, "has no samples"),
        ([{"epoch": 1}], {}, "a sample has no id"),
        ([sample(1, "C", epoch=0)], {}, "epochs count from 1"),
        ([], {"samples/1_epoch_1.json": "{"}, "is not valid JSON"),
        ([], {"samples/1_epoch_1.json": "[" * 100_000}, "nests too deeply"),
        ([sample(1, "C")], {"../../evil.json": "{}"}, "unsafe path"),
    ],
)
def test_logs_that_are_damaged_or_hostile(tmp_path: Path, samples: list[Any], members: dict[str, str], message: str) -> None:
    path = write(tmp_path / "a.eval", samples, **members)
    with pytest.raises(LogError, match=message):
        read(path)


ALONE = (
    "import sys; from pathlib import Path; from aligntax.store.logs import find_reader, Want\n"
    "p = Path(sys.argv[1]); print(len(list(find_reader(p).read(p, Want()).rows)), 'inspect_ai' in sys.modules)"
)


def test_packed_with_zstandard_and_damaged(made: Path, tmp_path: Path) -> None:
    data = bytearray((made / "made.eval").read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        info = next(i for i in archive.infolist() if i.filename.startswith("samples/"))
        assert info.compress_type == 93
    at = info.header_offset + 30 + len(info.filename) + info.compress_size // 2
    data[at : at + 8] = bytes(255 - b for b in data[at : at + 8])
    path = tmp_path / "damaged.eval"
    path.write_bytes(bytes(data))
    with pytest.raises(LogError, match="damaged"):
        read(path)
    done = subprocess.run([sys.executable, "-c", ALONE, str(path)], capture_output=True, text=True, check=False)
    assert "LogError" in done.stderr
    assert "is damaged" in done.stderr


def test_zstandard_is_read_without_inspect(made: Path) -> None:
    """In a process that never imports Inspect, whose import changes zipfile."""
    done = subprocess.run([sys.executable, "-c", ALONE, str(made / "made.eval")], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["16", "False"]


# -- writing -------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    endings = [{}, {"output": {"choices": [{"message": {"content": "cut"}, "stop_reason": "max_tokens"}]}}]
    for name, limit in (("base", 40), ("tuned", 25)):
        made = [sample(n, "C" if n < limit else "NI"[n % 2], metadata={"source": f"s{n % 9}"}, **endings[n % 2]) for n in range(60)]
        write(folder / f"{name}.eval", [*made, sample(60, "I", error={"message": "boom"})])
    aligntax.diff(folder / "base.eval", folder / "tuned.eval", cluster="source", out=folder / "run")
    return folder


def export(run: Path, to: str, out: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "aligntax", "export", str(run / "run"), "--to", to, "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def numbers(ledger: aligntax.Ledger) -> list[Any]:
    return [(e.task, e.n, e.clusters, e.baseline_value, e.change, e.ci_low, e.ci_high, e.verdict, e.outcomes) for e in ledger]


@pytest.mark.parametrize("to", ["inspect", "lm-eval"])
def test_a_run_as_logs_of_others_and_back(run: Path, tmp_path: Path, to: str) -> None:
    export(run, to, tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["base", "candidate"]
    before = aligntax.load(run / "run")
    after = aligntax.diff(tmp_path / "out" / "base", tmp_path / "out" / "candidate", cluster="cluster")
    if to == "inspect":
        assert numbers(after) == numbers(before)
        assert find_reader(tmp_path / "out" / "base").name == "inspect"
    else:  # lm-eval's logs know no refusals
        assert [n[:8] for n in numbers(after)] == [n[:8] for n in numbers(before)]
        assert find_reader(tmp_path / "out" / "base").name == "lm-eval"
    done = subprocess.run(
        [sys.executable, "-m", "aligntax", "export", str(run / "run"), "--to", to, "--out", str(tmp_path / "out")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "not an empty folder" in done.stderr) == (2, True)


def test_inspect_opens_what_was_written(run: Path, tmp_path: Path) -> None:
    need("inspect_ai", "inspect")
    from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries

    export(run, "inspect", tmp_path / "out")
    (path,) = (tmp_path / "out" / "candidate").glob("*.eval")
    log = read_eval_log(str(path))
    assert (log.status, log.eval.task, len(log.samples or [])) == ("success", "t", 61)
    assert log.results is not None
    assert log.results.scores[0].metrics["accuracy"].value == pytest.approx(25 / 60)
    assert len(read_eval_log_sample_summaries(str(path))) == 61
    one = read_eval_log_sample(str(path), id="7", epoch=1)
    assert one.output.completion == "cut"
    assert wanted(path)["7", 1] == {"match": 1.0}


def test_trials_do_not_fit_into_lm_evals_logs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / f"{name}.eval", [sample(n, "C", epoch=e) for n in range(10) for e in (1, 2)])
    aligntax.diff(tmp_path / "a.eval", tmp_path / "b.eval", out=tmp_path / "run")
    from aligntax.store.run import load_rows, load_run
    from aligntax.store.writers import write_logs

    with load_rows(load_run(tmp_path / "run")) as rows, pytest.raises(InputError, match="have no trials: export --to inspect"):
        write_logs(tmp_path / "out", "lm-eval", rows, {}, "x")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.eval", "b.eval", "run"]


def test_directions_sources_and_items_without_ids_survive(tmp_path: Path) -> None:
    """A tax stays a tax, clusters stay clusters, and items that have no ids stay apart."""
    for name, limit in (("a", 60), ("b", 90)):
        rows = [f"{int(k < limit)},s{k // 4},question {k},refused" for k in range(120)]
        (tmp_path / f"{name}.csv").write_text("score,cluster,question,metric\n" + "\n".join(rows) + "\n")
    before = aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", lower_is_better=["refused"], out=tmp_path / "run")
    assert before[0].verdict == "tax"
    assert (before[0].n, before[0].clusters) == (120, 30)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "aligntax", "export", "run", "--to", "inspect", "--out", "out"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert numbers(aligntax.diff(tmp_path / "out" / "base", tmp_path / "out" / "candidate")) == numbers(before)


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"match": {"value": 10**400}}},
        {"scores": {"match": {"value": "C", "metadata": {"aligntax_outcome": ["x"]}}}},
        {"choices": [1, float("nan"), {"a": 1}]},
        {"messages": [{"role": "user", "content": "attachment://" + "9" * 5000}]},
    ],
)
def test_odd_samples_are_read(tmp_path: Path, change: dict[str, Any]) -> None:
    assert len(read(write(tmp_path / "a.eval", [sample(1, "C", **change)]))) == 1


def test_odd_headers_are_read_and_written_down(tmp_path: Path) -> None:
    odd = {
        **HEADER,
        "results": {"scores": 5},
        "plan": {"steps": 5},
        "eval": {**HEADER["eval"], "task_args": {"x": float("nan")}, "scorers": 5},
    }
    for name in ("a", "b"):
        with zipfile.ZipFile(tmp_path / f"{name}.eval", "w") as archive:
            archive.writestr("header.json", json.dumps(odd))
            for n in range(5):
                archive.writestr(f"samples/{n}_epoch_1.json", json.dumps(sample(n, "C")))
    aligntax.diff(tmp_path / "a.eval", tmp_path / "b.eval", out=tmp_path / "run")
    with pytest.raises(LogError, match="epochs count from 1"):
        read(write(tmp_path / "c.eval", [sample(1, "C", epoch=2**31 + 5)]))
