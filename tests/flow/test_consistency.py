"""Consistency: variances over trials and rewordings, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import aligntax
from aligntax.core.errors import InputError
from aligntax.flow.consistency import ONCE


def log(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def trials(path: Path, right: list[list[int]]) -> Path:
    return log(path, [{"item": f"q{i}", "trial": k, "score": x, "answer": str(x)} for i, of in enumerate(right) for k, x in enumerate(of)])


def test_run_to_run_by_hand(tmp_path: Path) -> None:
    base = trials(tmp_path / "a.jsonl", [[1, 0, 1, 0], [1, 1, 1, 1]] * 20)
    tuned = trials(tmp_path / "b.jsonl", [[1, 1], [0, 0]] * 20)  # as unsure of what is right, but sure of itself
    ledger = aligntax.diff(base, tuned)
    entry = ledger.find("table", "score: variance over trials")
    assert (entry.baseline_value, entry.candidate_value) == (pytest.approx((1 / 3 + 0) / 2), 0.0)  # unbiased: 4 p (1 - p)/3
    assert (entry.kind, entry.higher_is_better, entry.verdict) == ("consistency", False, "gain")
    agreed = ledger.find("table", "same answer in two trials")
    assert (agreed.baseline_value, agreed.candidate_value) == (pytest.approx((2 / 6 + 1) / 2), 1.0)  # 2 of 6 pairs
    assert ledger.find("table").metric == "score"  # a task's own score goes before what is measured beside it


def test_asked_once_says_nothing_of_consistency(tmp_path: Path) -> None:
    base = trials(tmp_path / "a.jsonl", [[1], [0]] * 5)
    assert not [e for e in aligntax.diff(base, base) if e.kind == "consistency"]


def reworded(path: Path, scores: np.ndarray) -> Path:
    """(questions, wordings, trials) scores."""
    return log(
        path,
        [
            {"item": f"q{i}.{j}", "cluster": f"q{i}", "trial": k, "score": int(x)}
            for i, of in enumerate(scores)
            for j, again in enumerate(of)
            for k, x in enumerate(again)
        ],
    )


def test_rewordings_by_hand(tmp_path: Path) -> None:
    base = reworded(tmp_path / "a.jsonl", np.array([[[1], [0]], [[1], [1]], [[0], [0]], [[1], [0]]] * 10))
    tuned = reworded(tmp_path / "b.jsonl", np.array([[[1], [1]], [[1], [1]], [[0], [0]], [[1], [0]]] * 10))
    entry = aligntax.diff(base, tuned, rewordings=True).find("table", "score: variance over rewordings")
    assert (entry.baseline_value, entry.candidate_value) == (0.25, 0.125)
    assert (entry.n, entry.clusters) == (80, 40)  # the question is the unit
    assert ONCE in entry.checks  # one draw of each wording cannot tell the wording from the draw
    assert not [e for e in aligntax.diff(base, tuned) if "rewordings" in e.metric]


def test_noise_of_trials_is_no_inconsistency(tmp_path: Path) -> None:
    """Every wording has the same chance of .5: over wordings there is no variance but that of four draws, which is taken away."""
    rng = np.random.default_rng(2)
    paths = [reworded(tmp_path / f"{side}.jsonl", rng.random((300, 3, 4)) < 0.5) for side in "ab"]
    entry = aligntax.diff(*paths, rewordings=True).find("table", "score: variance over rewordings")
    assert entry.baseline_value == pytest.approx(0.0, abs=0.015)
    assert entry.candidate_value == pytest.approx(0.0, abs=0.015)
    assert ONCE not in entry.checks


def test_rewordings_of_nothing(tmp_path: Path) -> None:
    base = trials(tmp_path / "a.jsonl", [[1], [0]] * 5)
    with pytest.raises(InputError, match="name its column with --cluster"):
        aligntax.diff(base, base, rewordings=True)
