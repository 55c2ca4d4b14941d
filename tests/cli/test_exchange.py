"""aligntax exchange and aligntax trend: what they print, and how they refuse."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from aligntax.cli.exchange import exchange, trend
from aligntax.core.errors import InputError
from aligntax.core.study import Analysis
from aligntax.flow.diff import chain, diff_logs
from aligntax.store.logs import Want
from aligntax.store.run import write_run
from tests.support.tables import write_csv

app = typer.Typer()
app.command()(exchange)
app.command()(trend)


def said(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return " ".join(done.stdout.split())


def keep(
    out: Path,
    base: Path,
    candidate: Path,
    name: str,
    stages: Sequence[tuple[str, Path, str | None]] = (),
    kinds: dict[str, str] | None = None,
) -> None:
    """A run with a page that nobody reads: drawing charts takes longer than all else."""
    with diff_logs(chain(base, candidate, ("base", name), stages), Analysis(kinds=kinds or {}), Want()) as found:
        write_run(out, found.study, found.ledger, found.provenance, found.rows, lambda: "no page")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of a base and an aligned model: 40, 25, 10 points of sums lost, 50 of safety gained; and one that measured no safety."""
    folder = tmp_path_factory.mktemp("runs")
    for size, lost in ((1, 40), (8, 25), (70, 10)):
        for name, (sums, safe) in {"base": (90, 40), "dpo": (90 - lost, 90)}.items():
            rows = [{"task": "sums", "item": i, "score": int(i < sums)} for i in range(100)]
            rows += [{"task": "toxigen", "item": i, "score": int(i < safe)} for i in range(100)]
            write_csv(folder / f"{name}.csv", rows)
        keep(folder / f"r{size}", folder / "base.csv", folder / "dpo.csv", f"dpo-{size}B")
    keep(folder / "unsafe", folder / "base.csv", folder / "dpo.csv", "dpo", kinds={"toxigen": "performance"})
    return folder


def test_exchange_prints_rates_and_the_frontier(runs: Path) -> None:
    text = said("exchange", runs / "r8")
    assert "dpo-8B against base" in text
    assert "performance: sums (score) -25.0 points 0.50 [0.32, 0.72] points per point cost" in text
    assert "safety: toxigen (score) improved by 50.0 points (change [+40.4, +59.6] at 95 %)." in text
    assert "each point cost 0.50 points (95 % interval 0.32 to 0.72)" in text
    assert "base: on the frontier; against every other arm it is better somewhere, for certain." in text
    assert "gain and cost from different tasks vary apart" in text


def test_each_purchase_has_a_table_of_its_own(tmp_path: Path) -> None:
    for name, right in {"base": (90, 40, 50), "dpo": (70, 90, 80)}.items():
        tasks = zip(("sums", "toxigen", "alpaca_eval"), right, strict=True)
        write_csv(tmp_path / f"{name}.csv", [{"task": t, "item": i, "score": int(i < k)} for t, k in tasks for i in range(100)])
    keep(tmp_path / "run", tmp_path / "base.csv", tmp_path / "dpo.csv", "dpo")
    text = said("exchange", tmp_path / "run")
    helpful, safe = text.index("helpfulness: alpaca_eval (score) improved by"), text.index("safety: toxigen (score) improved by")
    assert helpful < safe
    between = text[helpful:safe]
    assert "safety: toxigen (score) +50.0 points -1.67" in between
    assert "performance: sums (score) -20.0 points 0.67" in between
    assert "performance: sums (score) -20.0 points 0.40" in text[safe:]


def test_a_gain_alone_is_told(tmp_path: Path) -> None:
    for name, right in {"base": 40, "dpo": 90}.items():
        write_csv(tmp_path / f"{name}.csv", [{"task": "toxigen", "item": i, "score": int(i < right)} for i in range(100)])
    keep(tmp_path / "run", tmp_path / "base.csv", tmp_path / "dpo.csv", "dpo")
    assert "toxigen (score): +50.0 points, an established gain; nothing else" in said("exchange", tmp_path / "run")
    assert "nothing else" in said("exchange", tmp_path / "run", "--markdown")


def test_exchange_as_data_and_as_markdown(runs: Path) -> None:
    found = json.loads(CliRunner().invoke(app, ["exchange", str(runs / "r8"), "--json"]).stdout)
    assert found["rates"][0]["rate"] == pytest.approx(0.5)
    assert (found["rates"][0]["status"], found["rates"][0]["rate_unit"]) == ("cost", "points per point")
    assert [arm["where"] for arm in found["frontier"]["arms"]] == ["on the frontier", "on the frontier"]
    text = said("exchange", runs / "r8", "--markdown")
    assert "### Exchange rates **dpo\\-8B against base**" in text
    assert "### Frontier" in text


def test_rates_stand_without_a_frontier(tmp_path: Path) -> None:
    """Two candidates that were asked different tasks: each has its rates, and nothing to be compared in."""
    for name, tasks in {
        "base": ("sums", "toxigen", "words", "harmbench"),
        "one": ("sums", "toxigen"),
        "two": ("words", "harmbench"),
    }.items():
        right = {"sums": 90, "words": 90, "toxigen": 40, "harmbench": 40} if name == "base" else {"sums": 60, "words": 60}
        rows = [{"task": t, "item": i, "score": int(i < right.get(t, 95))} for t in tasks for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", rows)
    keep(tmp_path / "run", tmp_path / "base.csv", tmp_path / "two.csv", "two", [("one", tmp_path / "one.csv", "base")])
    text = said("exchange", tmp_path / "run")
    assert "two against base" in text
    assert "There is no frontier: no measurement with a better side is shared by all arms" in text


def test_trend_over_runs(runs: Path) -> None:
    folders = [runs / f"r{size}" for size in (1, 8, 70)]
    text = said("trend", *folders)
    assert "r1 1B -40.0" in text
    assert "the loss shrinks with size (-40.0 at 1B, -10.0 at 70B, points)" in text
    assert "! 3 sizes leave 1 degree of freedom" in text
    assert "size 70B (read from the name dpo-70B)" in text
    found = json.loads(CliRunner().invoke(app, ["trend", *map(str, folders), "--size", "r70=100B", "--json"]).stdout)
    assert found["points"][2]["size"] == 1e11
    assert found["df"] == 1
    assert "### Tax against size" in said("trend", *folders, "--markdown")


def test_trend_over_a_published_table(shared: Path) -> None:
    table = shared / "data" / "published_tables" / "instructgpt_2203.02155_table14.csv"
    text = said("trend", "--table", table, "--base", "GPT/*", "--candidate", "PPO/*", "--task", "*/few-shot")
    assert "1.3B 1.3B -3.67" in text
    assert "6B 6B -5.09" in text
    assert "175B 175B -6.99" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["exchange", "{}/r8", "--json", "--markdown"], "two forms of one thing"),
        (["exchange", "{}/unsafe"], "no safety or helpfulness to have been bought"),
        (["trend"], "name the runs, one per size"),
        (["trend", "{}/r1", "{}/r8"], "needs 3 sizes or more"),
        (["trend", "{}/r1", "{}/r1"], "r1 is named twice"),
        (["trend", "{}/r1", "--kind", "speed"], "--kind must be one of"),
        (["trend", "{}/r1", "--level", "2"], "--level must lie between 0.5 and 1"),
        (["trend", "{}/r1", "--template", "x"], "--template is raw or chat"),
        (["trend", "{}/r1", "--size", "r1"], "--size takes NAME=N"),
        (["trend", "{}/r1", "--size", "r1=big"], "a size is a number of parameters"),
        (["trend", "{}/r1", "--base", "a/*"], "choose from a table"),
        (["trend", "{}/r1", "--table", "t.csv"], "--table takes --base and --candidate"),
        (
            ["trend", "--table", "t.csv", "--base", "a*", "--candidate", "b*", "--kind", "safety"],
            "--kind, --metric and --template choose from runs",
        ),
        (["trend", "--table", "{}/base.csv", "--base", "a*", "--candidate", "b*"], "is no table of published results"),
        (["trend", "--table", "{}/nothing.csv", "--base", "a*", "--candidate", "b*"], "nothing.csv"),
    ],
)
def test_bad_input_is_one_sentence(runs: Path, arguments: list[str], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        said(*(a.format(runs) for a in arguments))
    assert "\n" not in str(error.value)
