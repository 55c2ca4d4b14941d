"""``aligntax development`` as a user types it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from aligntax.cli.development import development
from aligntax.core.errors import InputError
from aligntax.core.ledger import Ledger

COSTS = """
currency: USD
pretraining: {petaflop_s_days: 3640}
stages:
  sft: {petaflop_s_days: 4.9, labels: 13000}
  "[bold]ppo|": {petaflop_s_days: 60, labels: 33000, parent: sft, hours: 3}
debt:
  horizon_months: 24
  discount_rate_per_year: 0
  now: {once: 100, per_month: 2}
  harm:
    incidents_per_month: {without: {low: 1, likely: 4, high: 8}, with: 0}
    cost_per_incident: 2.5
    growth_per_month: 0
  later: {month: 6, once: 150, growth_per_month: 0.02, per_month: 3}
  distribution: triangular
"""


@pytest.fixture
def costs(tmp_path: Path) -> Path:
    path = tmp_path / "costs.yaml"
    path.write_text(COSTS)
    return path


def run(*arguments: object) -> Result:
    app = typer.Typer(rich_markup_mode=None)
    app.command()(development)
    return CliRunner().invoke(app, [str(one) for one in arguments])


def lines(done: Result) -> list[str]:
    assert done.exit_code == 0, done.output
    return [" ".join(line.split()) for line in done.stdout.splitlines()]


def test_tables(costs: Path) -> None:
    shown = lines(run(costs))
    assert "from to training compute (petaflop/s-days) of pretraining device hours labels" in shown
    assert "base sft 4.9 0.135 % - 13,000" in shown
    assert "base [bold]ppo| 64.9 1.78 % - 46,000" in shown
    assert "! [bold]ppo|, device hours: devices is not named: 3 hours of the clock on how many?" in shown
    assert "The debt over 24 months" in shown
    assert any(line.startswith("never align 240 ") for line in shown)
    assert "break-even: not aligning has cost more by month 13 month 7 to never -" in shown
    assert "break-even incidents in the first month 2.467" in shown
    assert "harm.incidents_per_month.without 1 .. 4 .. 8 +2.4 +2.61 -88 332" in shown
    assert not any(line.startswith("later.") for line in shown)


def test_the_documentation_shows_what_is_printed(tmp_path: Path) -> None:
    """Every costs file in docs/development.md prints the tables that stand beneath it."""
    text = (Path(__file__).parents[2] / "docs" / "development.md").read_text()
    shown = re.findall(r"```yaml\n(.*?)```\s+```\n(.*?)```", text, re.DOTALL)
    assert len(shown) == 2
    for costs, table in shown:
        path = tmp_path / "costs.yaml"
        path.write_text(costs)
        printed = lines(run(path))
        for line in table.splitlines():
            assert " ".join(line.split()) in printed


def test_a_small_model_is_not_shown_as_nothing(tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text("pretraining: {flops: 7.9e13}\nstages: {sft: {flops: 307247616}}")
    assert "base sft 3.556e-12 0.000389 %" in lines(run(path))


def test_without_ranges_there_are_no_columns_for_them(tmp_path: Path) -> None:
    path = tmp_path / "costs.yaml"
    path.write_text(COSTS.replace("{low: 1, likely: 4, high: 8}", "4"))
    shown = lines(run(path))
    assert "USD, today's worth" in shown
    assert "number given 1 % more: USD elasticity" in shown
    assert not any("draws" in line for line in shown)


def test_json_is_a_ledger_and_nothing_else(costs: Path) -> None:
    done = run(costs, "--json")
    ledger = Ledger.from_dict(json.loads(done.stdout))
    assert (done.exit_code, done.stderr, ledger.baseline, len(ledger.study)) == (0, "", "base", 16)
    assert ledger.find("development", "training_compute", baseline="base", candidate="[bold]ppo|").change == pytest.approx(64.9)
    assert ledger.find("debt", "net_present_cost_later").change == pytest.approx(60 + 150 * 1.02**6 + 54)
    assert run(costs, "--json").stdout == done.stdout


def test_markdown(costs: Path) -> None:
    shown = lines(run(costs, "--markdown"))
    assert "### What the stages took" in shown
    assert "| base | \\[bold\\]ppo\\| | 64.9 | 1.78 % | \\- | 46,000 |" in shown
    assert "### What the saving owes to each number" in shown


def test_bad_input_is_one_sentence(tmp_path: Path, costs: Path) -> None:
    costs.write_text("stages: {sft: {hours: 12 h}}")
    for arguments, message in (
        ([costs], "stages, sft, hours must be a number without a unit from 0 to 1e+30, such as 12.5; got '12 h'"),
        ([costs, "--json", "--markdown"], "--json and --markdown are two forms of one thing; name one"),
        ([tmp_path / "none.yaml"], "cannot be read: No such file or directory"),
    ):
        done = run(*arguments)
        assert isinstance(done.exception, InputError)
        assert done.exception.exit_code == 2
        assert message in str(done.exception)
        assert done.stdout == ""
    assert run().exit_code == 2
