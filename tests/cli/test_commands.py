"""The commands as a user types them."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aligntax.examples import make
from tests.support.tables import pair, write_csv

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def logs(tmp_path: Path) -> tuple[Path, Path]:
    base, candidate = pair(50, 12, 3, 20, task="sums")
    for row in (*base, *candidate):
        row |= {"question": f"What about {row['item']}?", "answer": f"I say {row['score']}"}
    return write_csv(tmp_path / "base.csv", base), write_csv(tmp_path / "chat.csv", candidate)


def test_diff_writes_a_run_and_says_where(logs: tuple[Path, Path], tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("diff", *logs)
    assert done.returncode == 0
    assert "sums (score) fell by 10.6 points" in done.stdout
    run = next((tmp_path / "aligntax-runs").iterdir())
    assert done.stderr == f"report: aligntax-runs/{run.name}/report.html\n"
    assert json.loads((run / "ledger.json").read_text())["study"] == run.name


def test_json_prints_the_ledger_and_nothing_else(logs: tuple[Path, Path], tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("diff", *logs, "--json")
    ledger = json.loads(done.stdout)
    assert (ledger["schema"], ledger["baseline"], len(ledger["entries"])) == (1, "base", 1)
    assert done.stderr == ""
    assert not (tmp_path / "aligntax-runs").exists()
    named = aligntax("diff", *logs, "--json", "--out", "here")
    assert json.loads(named.stdout) == ledger == json.loads((tmp_path / "here" / "ledger.json").read_text())


def test_show_flips_report_export(logs: tuple[Path, Path], tmp_path: Path, aligntax: Run) -> None:
    aligntax("diff", *logs, "--out", "run", "--names", "llama,llama-chat")
    shown = aligntax("show", "run")
    assert "llama -> llama-chat: score (performance)" in shown.stdout
    assert json.loads(aligntax("show", "run", "--json").stdout)["baseline"] == "llama"
    flips = aligntax("flips", "run", "--lost", "--limit", "2")
    assert flips.stderr == "15 items changed in score, llama to llama-chat (lost)\n".replace("15", "12")
    assert flips.stdout.count("question: What about i") == 2
    assert "baseline: I say 1" in flips.stdout
    assert "candidate: I say 0" in flips.stdout
    assert "2 of 12 shown" in flips.stdout
    lines = aligntax("flips", "run", "--json", "--limit", "500").stdout.splitlines()
    assert len(lines) == 15
    assert json.loads(lines[0])["baseline_answer"] == "I say 1"
    assert aligntax("flips", "run", "--task", "sums", "--gained").returncode == 0
    before = (tmp_path / "run" / "report.html").read_text()
    again = aligntax("report", "run")
    assert again.returncode == 0
    assert (tmp_path / "run" / "report.html").read_text() == before
    assert aligntax("show", "run").returncode == 0
    assert aligntax("report", "run", "--out", "elsewhere/page.html").returncode == 0
    assert (tmp_path / "elsewhere" / "page.html").read_text() == before
    assert "**tax**" in aligntax("report", "run", "--markdown").stdout
    assert "**tax**" in aligntax("diff", *logs, "--markdown", "--out", "other").stdout
    rows = list(csv.DictReader(io.StringIO(aligntax("export", "run", "--to", "csv").stdout)))
    assert rows[0]["verdict"] == "tax"
    assert aligntax("export", "run", "--to", "csv", "--out", "ledger.csv").stdout == ""
    assert list(csv.DictReader(io.StringIO((tmp_path / "ledger.csv").read_text()))) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flips", "run", "--metric", "nope"], "no metric 'nope' with answers of its own; this run has: score"),
        (["flips", "run", "--task", "nope"], "no task 'nope'; this run has: sums"),
        (["flips", "run", "--pair", "base,nope"], "no arm 'nope' with this metric; the run has: base, candidate"),
        (["flips", "run", "--limit", "0"], "--limit"),
        (["export", "run", "--to", "xml"], "--to 'xml' is no format that is written; allowed: csv, inspect, lm-eval"),
        (["show", "nowhere"], "nowhere is not a run directory"),
        (["report", "run", "--out", "run"], "run is a folder; name a file"),
        (["shwo", "run"], "No such command 'shwo'"),
        (["diff", "base.csv"], "Missing argument 'CANDIDATE'"),
        (["diff", "base.csv", "chat.csv", "--bootstrap", "many"], "Invalid value for '--bootstrap'"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str, logs: tuple[Path, Path], aligntax: Run) -> None:
    aligntax("diff", *logs, "--out", "run")
    done = aligntax(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_stages_on_the_command_line(logs: tuple[Path, Path], tmp_path: Path, aligntax: Run) -> None:
    odd = tmp_path / "sft@v2.csv"
    odd.write_bytes(logs[0].read_bytes())
    done = aligntax("diff", *logs, "--stage", f"sft={odd}", "--stage", f"merge={logs[1]}@base", "--json")
    pairs = [(e["baseline"], e["candidate"]) for e in json.loads(done.stdout)["entries"]]
    assert pairs == [("base", "sft"), ("base", "merge"), ("sft", "candidate"), ("base", "candidate")]


def test_the_demo_says_that_it_is_simulated(tmp_path: Path, aligntax: Run) -> None:
    done = aligntax("demo", "--simulated")
    assert done.returncode == 0
    assert "simulated logs: drawn from known probabilities, no model was run" in done.stderr
    assert "simulated-base -> simulated-dpo" in done.stdout
    page = next((tmp_path / "aligntax-runs").rglob("report.html")).read_text()
    assert "simulated-base to simulated-dpo" in page


def test_the_example_logs_are_what_their_maker_makes() -> None:
    for arm, text in make.logs().items():
        assert (Path(make.__file__).parent / f"{arm}.csv").read_text() == text


def test_doctor_names_what_is_missing(aligntax: Run) -> None:
    done = aligntax("doctor")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0].startswith("aligntax 0.1.0, Python 3.")
    assert "core: complete (" in done.stdout
    assert "pip install 'aligntax[cluster]'" in done.stdout or "cluster: complete" in done.stdout


def test_version_and_help(aligntax: Run) -> None:
    assert aligntax("--version").stdout == "aligntax 0.1.0\n"
    for command in ("diff", "show", "flips", "report", "export", "demo", "doctor"):
        done = aligntax(command, "--help")
        assert done.returncode == 0
        assert "Usage:" in done.stdout
    assert "For example:" in aligntax("diff", "--help").stdout


def test_a_reader_that_goes_away_is_no_error(logs: tuple[Path, Path], tmp_path: Path) -> None:
    command = f"{sys.executable} -m aligntax diff {logs[0]} {logs[1]} --json | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout == "{\n"
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["--help"], ["measure", "--help"], ["lab", "info", "--help"]])
def test_help_loads_nothing_heavy(command: list[str]) -> None:
    """What makes help slow is a heavy import; benchmarks/ measures the time."""
    code = f"import sys; sys.argv = ['aligntax', *{command!r}]; from aligntax.cli.main import app; app(standalone_mode=False); print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    loaded = set(done.stdout.split())
    assert "aligntax.cli.main" in loaded
    assert not {"numpy", "scipy", "torch", "transformers", "pandas", "duckdb", "altair", "httpx2", "jinja2"} & loaded
