"""Retained and chance-corrected: what the log says of guessing, and nothing where it says nothing."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import aligntax
from aligntax.core.explain import reasons
from tests.support.tables import write_csv


def test_chance_of_mmlu_pro(shared: Path) -> None:
    """One over the number of options, averaged over the 12,032 items (1 to 10 options each)."""
    folder = shared / "data" / "mmlu_pro"
    paths = [folder / f"Mistral-7B-{name}v0.1.zip" for name in ("", "Instruct-")]
    with zipfile.ZipFile(paths[0]) as archive:
        rows = json.loads(archive.read(archive.namelist()[0]))
    expected = sum(1 / len(row["options"]) for row in rows) / len(rows)
    ledger = aligntax.diff(*paths, cluster="src", by="category")
    entry = ledger.find("mmlu_pro")
    assert entry.baseline_value is not None
    assert entry.candidate_value is not None
    assert entry.change is not None
    chance = entry.detail("chance")
    assert chance == pytest.approx(expected)
    assert entry.detail("chance_corrected_change") == pytest.approx(entry.change / (1 - expected))
    assert entry.detail("retained_above_chance") == pytest.approx((entry.candidate_value - expected) / (entry.baseline_value - expected))
    said = next(text for text in reasons(entry) if "retained" in text)
    assert said == "81 % of the baseline's value is retained (75 % to 86 %), 70 % of what lies above guessing (11.1 %) (57 % to 79 %)."
    subgroup = ledger.find("mmlu_pro/law")
    assert subgroup.detail("chance") is None  # its items offer other numbers of options than all do
    assert subgroup.detail("retained") is not None


def lm_eval_log(path: Path, right: int, options: int, **more: object) -> Path:
    path.mkdir()
    rows = [
        {"doc_id": k, "doc": {"q": f"q{k}"}, "target": 0, "arguments": [["q", f" {c}"] for c in range(options)],
         "resps": [[[-1.0 - c, False]] for c in range(options)], "filtered_resps": [[-1.0 - c, False] for c in range(options)], "filter": "none",
         "metrics": ["acc"], "acc": float(k < right), **more}
        for k in range(200)
    ]  # fmt: skip
    (path / "samples_t_2026-01-01T00-00-00.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def test_chance_of_lm_eval_logs(tmp_path: Path) -> None:
    entry = aligntax.diff(lm_eval_log(tmp_path / "a", 150, 4), lm_eval_log(tmp_path / "b", 100, 4)).find("t")
    assert entry.detail("chance") == 0.25
    assert entry.detail("retained") == pytest.approx(2 / 3)
    assert entry.detail("relative_change") == pytest.approx(-1 / 3)
    assert entry.detail("retained_above_chance") == pytest.approx(0.5)
    twice = [lm_eval_log(tmp_path / f"m{k}", 150, 8, acc_mutual_info=1.0) for k in range(2)]
    assert aligntax.diff(*twice).find("t", "acc,none").detail("chance") is None


def test_nothing_where_nothing_is_known(tmp_path: Path) -> None:
    """No options in a table, no ratio of a baseline of 0 or of what less is better, no interval of a few changed items."""
    for name, right in (("a", 60), ("b", 55)):
        rows = [{"task": "t", "item": i, "score": int(i < right), "metric": "acc"} for i in range(100)]
        rows += [{"task": "t", "item": i, "score": int(name == "b"), "metric": "f1"} for i in range(100)]
        rows += [{"task": "t", "item": i, "score": 1 + i % 7 + (name == "b"), "metric": "latency"} for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", rows)
    ledger = aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv")
    few = ledger.find("t", "acc")
    assert few.detail("retained") == pytest.approx(55 / 60)
    assert "retained_ci" not in few.details
    assert "chance" not in few.details
    for metric in ("f1", "latency"):
        assert "retained" not in ledger.find("t", metric).details


def test_items_of_one_option_are_all_chance(tmp_path: Path) -> None:
    rows = [
        {"question_id": k, "question": f"q{k}", "options": ["x"], "answer": "A", "answer_index": 0, "pred": "A", "model_outputs": "(A)"}
        for k in range(20)
    ]
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    entry = aligntax.diff(tmp_path / "a.json", tmp_path / "b.json").find("mmlu_pro")
    assert "chance" not in entry.details
    assert entry.detail("retained") == 1.0
