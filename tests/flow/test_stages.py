"""The accounts of a stage tree: exact sums and products, refunds, the worst cell, where safety fell."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from math import prod
from pathlib import Path

import pytest

import aligntax
from aligntax.core.study import Analysis
from aligntax.flow.diff import Comparison, chain, diff_logs
from aligntax.flow.stages import Account, accounts, cells, losses_of_safety, paths, worst
from aligntax.report.overview import stage_sentences
from aligntax.stats.multiplicity import holm
from aligntax.store.logs import Want
from aligntax.store.run import StoredRun, load_run
from tests.support.tables import write_csv

Run = Callable[..., subprocess.CompletedProcess[str]]


def published(shared: Path, model: str, *stages: str) -> Comparison:
    file = shared / "data" / "published_tables" / "per_stage_results.csv"
    first, *between, last = stages
    arms = chain(
        Path(f"{file}#{model}/{first}"),
        Path(f"{file}#{model}/{last}"),
        (first, last),
        [(s, Path(f"{file}#{model}/{s}"), None) for s in between],
    )
    with diff_logs(arms, Analysis(), Want()) as comparison:
        return comparison


def of(run: StoredRun | Comparison, task: str) -> Account:
    (found,) = [one for one in accounts(run.study, run.ledger) if one.task == task]
    return found


def test_published_stage_trees(shared: Path) -> None:
    """SFT -> DPO costs safety (8B -5.9, 70B -5.4 points); 405B's MATH 63.4 -> 59.9 -> 67.3 is refunded; every sum and product is exact."""
    for model, safety in (("Tulu-3-8B", -5.9), ("Tulu-3-70B", -5.4)):
        run = published(shared, model, "SFT", "DPO", "RLVR")
        found = of(run, "Safety")
        assert found.path == ("SFT", "DPO", "RLVR")
        assert found.steps[0].change == pytest.approx(safety)
        assert losses_of_safety(cells(run.study, run.ledger))[0].entry.pair == ("SFT", "DPO")
        for one in accounts(run.study, run.ledger):
            assert sum(step.change for step in one.steps) == pytest.approx(one.total, abs=1e-12)
            assert one.retained == pytest.approx(prod(step.retained or 0.0 for step in one.steps), rel=1e-12)
    math = of(published(shared, "Tulu-3-405B", "SFT", "DPO", "RLVR"), "MATH")
    assert [step.change for step in math.steps] == pytest.approx([-3.5, 7.4])
    assert [step.refund for step in math.steps] == pytest.approx([0.0, 3.5])
    assert math.total == pytest.approx(3.9)


def test_the_worst_cell_of_a_published_tree(shared: Path) -> None:
    run = published(shared, "Llama-3-8B", "base", "Tulu2-SFT", "Tulu2-DPO")
    cell = worst(cells(run.study, run.ledger), "points")
    assert cell is not None
    assert (cell.entry.task, cell.entry.pair, cell.q) == ("TydiQA_GP", ("Tulu2-SFT", "Tulu2-DPO"), None)
    assert cell.entry.change == pytest.approx(-35.06)
    said = "The largest loss of any task at any stage: TydiQA_GP from Tulu2-SFT to Tulu2-DPO, -35.1 points (no interval is known)."
    assert said in stage_sentences(run.study, run.ledger)


def test_paths_refunds_and_adjusted_cells(tmp_path: Path) -> None:
    for name, (sums, safe, toxic) in {"base": (80, 90, 10), "sft": (55, 90, 30), "dpo": (70, 75, 15), "raft": (79, 91, 9)}.items():
        rows = [{"task": "sums", "item": i, "score": int(i < sums), "metric": "acc"} for i in range(100)]
        rows += [{"task": "toxigen", "item": i, "score": int(i < safe), "metric": "acc"} for i in range(100)]
        rows += [{"task": "rude", "item": i, "score": int(i < toxic), "metric": "toxicity"} for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", rows)
    aligntax.diff(
        tmp_path / "base.csv", tmp_path / "dpo.csv", names=("base", "dpo"), lower_is_better=["toxicity"],
        stages=[("raft", tmp_path / "raft.csv", "base"), ("sft", tmp_path / "sft.csv")], out=tmp_path / "run",
    )  # fmt: skip
    run = load_run(tmp_path / "run")
    assert paths(run.study) == [("base", "sft", "dpo")]  # a branch of one edge has no account of its own
    sums, rude = of(run, "sums"), of(run, "rude")
    assert (sums.total, sums.refunded, sums.retained) == (pytest.approx(-0.1), pytest.approx(0.15), pytest.approx(70 / 80))
    assert (rude.total, rude.refunded, rude.retained) == (pytest.approx(0.05), pytest.approx(0.15), None)  # less is better
    found = cells(run.study, run.ledger)
    assert len(found) == 9  # three tasks on three edges
    assert [cell.q for cell in found] == pytest.approx(holm([cell.entry.p_value or 0.0 for cell in found]))
    cell = worst(found)
    assert cell is not None
    assert (cell.entry.task, cell.entry.pair) == ("sums", ("base", "sft"))
    assert [(c.entry.task, c.entry.pair) for c in losses_of_safety(found)] == [("toxigen", ("sft", "dpo"))]
    first, second = stage_sentences(run.study, run.ledger)
    assert "sums from base to sft, -25.0 points (established among all 9 cells of the tree" in first
    assert second.startswith("Safety fell at: toxigen from sft to dpo, -15.0 points (established among all 9 cells")


def test_too_few_sources_establish_nothing_among_the_cells(tmp_path: Path) -> None:
    """Three sources lose a third of the sums each: the ledger has an interval and no verdict, and the tree says no more than that."""
    for name, right in (("base", 90), ("sft", 60), ("dpo", 58)):
        rows = [{"task": "sums", "item": i, "score": int((7 * i) % 100 < right + i % 3), "cluster": f"s{i % 3}"} for i in range(300)]
        write_csv(tmp_path / f"{name}.csv", rows)
    arms = chain(tmp_path / "base.csv", tmp_path / "dpo.csv", ("base", "dpo"), [("sft", tmp_path / "sft.csv", None)])
    with diff_logs(arms, Analysis(), Want()) as run:
        first = cells(run.study, run.ledger)[0]
    assert (first.entry.verdict, first.q) == ("undetermined", None)
    assert first.entry.p_value is not None
    assert first.entry.p_value < 0.05


def test_no_share_is_kept_of_what_fell_below_0(tmp_path: Path) -> None:
    for name, score in (("base", 2.0), ("sft", -1.0), ("dpo", 1.0)):
        write_csv(tmp_path / f"{name}.csv", [{"task": "reward", "item": i, "score": score + 0.1 * (i % 5)} for i in range(40)])
    arms = chain(tmp_path / "base.csv", tmp_path / "dpo.csv", ("base", "dpo"), [("sft", tmp_path / "sft.csv", None)])
    with diff_logs(arms, Analysis(), Want()) as run:
        found = of(run, "reward")
    assert [step.retained for step in found.steps] == [None, None]
    assert found.retained is None


def test_the_accounts_in_a_terminal(tmp_path: Path, aligntax: Run) -> None:
    for name, right in (("base", 80), ("sft", 60), ("dpo", 70)):
        write_csv(tmp_path / f"{name}.csv", [{"task": "sums", "item": i, "score": int(i < right)} for i in range(100)])
    aligntax("diff", "base.csv", "dpo.csv", "--stage", "sft=sft.csv", "--names", "base,dpo", "--out", "run")
    shown = aligntax("show", "run", "--stages").stdout
    assert "base -> sft -> dpo" in shown
    assert "80.0 % -20.0 (75.0 %) +10.0 (116.7 %) -10.0 87.5 % 10.0 points" in " ".join(shown.split())
    aligntax("diff", "base.csv", "dpo.csv", "--out", "pair")
    refused = aligntax("show", "pair", "--stages")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "has no path of two stages" in refused.stderr
