"""Calibration as entries: from the likelihoods that lm-eval logs, and as a metric beside an accuracy in any table."""

from __future__ import annotations

import json
import random
from math import exp, log
from pathlib import Path

import numpy as np
import pytest

import aligntax
from aligntax.core.explain import reasons
from aligntax.stats.calibration import bins_for, equal_mass, squared_error
from tests.support.tables import write_csv


def choices(path: Path, surer: float, count: int = 600) -> Path:
    """An lm-eval log of a model that draws its belief from what is true: calibrated where ``surer`` is 1, too sure above."""
    rng = random.Random(path.name)  # not the whole path, which differs from run to run
    path.mkdir()
    rows = []
    for k in range(count):
        beliefs = [rng.gauss(1.2, 1.0), *(rng.gauss(0, 0.4) for _ in range(3))]
        total = sum(map(exp, beliefs))
        right = rng.choices(range(4), [exp(x) / total for x in beliefs])[0] == max(range(4), key=beliefs.__getitem__)
        told = [surer * x - 30 for x in beliefs]
        rows.append(
            {"doc_id": k, "doc": {"q": f"q{k}"}, "target": "unknown", "arguments": [["q", f" {c}"] for c in range(4)],
             "resps": [[[x, False]] for x in told], "filtered_resps": [[x, False] for x in told], "filter": "none", "metrics": ["acc"], "acc": float(right)}
        )  # fmt: skip
    (path / "samples_quiz_2026-01-01T00-00-00.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return path


def confidence_less_accuracy(log_: Path) -> float:
    rows = [json.loads(line) for line in next(log_.iterdir()).read_text().splitlines()]
    sure = [max(exp(x) for x, _ in row["filtered_resps"]) / sum(exp(x) for x, _ in row["filtered_resps"]) for row in rows]
    return sum(sure) / len(rows) - sum(row["acc"] for row in rows) / len(rows)


def test_a_model_that_became_too_sure(tmp_path: Path) -> None:
    surer = choices(tmp_path / "b", 3.0)
    ledger = aligntax.diff(choices(tmp_path / "a", 1.0), surer)
    brier, error = ledger.find("quiz", "brier,none"), ledger.find("quiz", "calibration error, squared,none")
    assert {brier.kind, error.kind} == {"calibration"}
    assert brier.verdict == "tax"
    assert error.verdict == "tax"
    assert error.baseline_value == pytest.approx(0.0, abs=0.006)
    assert error.detail("overconfidence_candidate") == pytest.approx(confidence_less_accuracy(surer))
    assert (error.detail("overconfidence_candidate") or 0) > 0.2
    assert abs(error.detail("overconfidence_baseline") or 0) < 0.05
    parts = [error.detail(f"{name}_candidate") or 0.0 for name in ("reliability", "resolution", "uncertainty", "within_bins")]
    assert brier.candidate_value == pytest.approx(parts[0] - parts[1] + parts[2] + parts[3])
    assert any("surer than right" in text for text in reasons(error))
    assert not [e for e in ledger if e.metric.startswith("confidence")]
    assert not [e for e in ledger if e.metric.startswith("log_loss")]  # nobody says which choice is right
    assert ledger.find("quiz").metric == "acc,none"


def test_the_right_choice_by_number_gives_a_log_loss(tmp_path: Path) -> None:
    log_ = choices(tmp_path / "a", 1.0, 40)
    file = next(log_.iterdir())
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["target"] = 2
    file.write_text("\n".join(map(json.dumps, rows)))
    entry = aligntax.diff(log_, log_).find("quiz", "log_loss,none")
    likelihoods = [[x[0][0] for x in row["resps"]] for row in rows]
    expected = np.mean([log(sum(exp(x - of[2]) for x in of)) for of in likelihoods])
    assert entry.baseline_value == pytest.approx(expected)
    assert (entry.unit, entry.kind, entry.higher_is_better) == ("nats", "calibration", False)


def table(path: Path, confidence: np.ndarray, right: np.ndarray) -> Path:
    rows = [{"item": f"q{i}", "metric": "confidence", "score": float(x)} for i, x in enumerate(confidence)]
    return write_csv(path, rows + [{"item": f"q{i}", "metric": "accuracy", "score": float(x)} for i, x in enumerate(right)])


def test_confidence_in_a_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    confidence = rng.random(300)
    right = (rng.random(300) < confidence).astype(float)
    paths = [table(tmp_path / "a.csv", confidence, right), table(tmp_path / "b.csv", np.minimum(confidence + 0.2, 1), right)]
    entry = aligntax.diff(*paths).find("table", "calibration error, squared")
    expected = squared_error(confidence, right, equal_mass(confidence, bins_for(300))).mean()
    assert entry.baseline_value == pytest.approx(expected)
    assert any(check.startswith("debiased squared error of confidence over 10 bins of equally many answers") for check in entry.checks)


def test_items_asked_several_times_have_no_calibration_error(tmp_path: Path) -> None:
    """A calibrated model, sure by .8 and right eight times in ten: the items it answered alike four times are nearly all right, and no fair sample."""
    rng = np.random.default_rng(0)
    paths = []
    for side in "ab":
        rows: list[dict[str, object]] = []
        for i in range(400):
            for k in range(4):
                rows += [{"item": f"q{i}", "trial": k, "metric": "confidence", "score": 0.8}]
                rows += [{"item": f"q{i}", "trial": k, "metric": "accuracy", "score": int(rng.random() < 0.8)}]
        paths.append(write_csv(tmp_path / f"{side}.csv", rows))
    assert not [e for e in aligntax.diff(*paths) if "calibration" in e.metric]


def test_a_confidence_without_an_accuracy_is_a_metric_like_others(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "a.csv", [{"item": i, "metric": "confidence", "score": 0.5} for i in range(50)])
    assert [e.metric for e in aligntax.diff(path, path)] == ["confidence"]


def test_few_answers_have_no_calibration_error(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", np.linspace(0.1, 0.9, 20), np.ones(20))
    assert {e.metric for e in aligntax.diff(path, path)} == {"accuracy"}
