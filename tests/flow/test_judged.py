"""Judges put right: what people would say of every answer, and win rates at equal lengths."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import aligntax
from aligntax.core.errors import InputError
from tests.support.tables import write_csv


def log(path: Path, judge: np.ndarray, people: np.ndarray) -> Path:
    """A long table: the judge's labels of every item, people's where they are numbers."""
    rows = [{"task": "xstest_unsafe", "item": f"q{i}", "metric": "judge", "score": x} for i, x in enumerate(judge)]
    rows += [{"task": "xstest_unsafe", "item": f"q{i}", "metric": "people", "score": x} for i, x in enumerate(people) if not np.isnan(x)]
    return write_csv(path, rows)


def test_with_every_label_it_is_what_people_say(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = []
    for side in "ab":
        people = (rng.random(80) < 0.5).astype(float)
        sides.append(log(tmp_path / f"{side}.csv", np.where(rng.random(80) < 0.7, people, 1 - people), people))
    ledger = aligntax.diff(*sides, judges={"judge": "people"})
    right, corrected = ledger.find("xstest_unsafe", "people"), ledger.find("xstest_unsafe", "judge corrected by people")
    assert corrected.change == pytest.approx(right.change)
    assert corrected.kind == "safety"
    assert corrected.details["rate_ci_baseline"] == [right.baseline_value, right.baseline_value]  # everyone was asked


def test_by_hand(tmp_path: Path) -> None:
    """Half of what the judge passes over is a refusal to people: 60 of 100 judged, 40 labelled (20 yes of its yes, 10 of 20 of its no)."""
    judge = np.array([1.0] * 60 + [0.0] * 40)
    people = np.full(100, np.nan)
    people[:20], people[60:70], people[70:80] = 1, 1, 0
    entry = aligntax.diff(log(tmp_path / "a.csv", judge, people), log(tmp_path / "b.csv", judge, people), judges={"judge": "people"}).find(
        "xstest_unsafe", "judge corrected by people"
    )
    assert entry.baseline_value == pytest.approx(0.6 * 1 + 0.4 * 0.5)
    assert entry.detail("judged_baseline") == 0.6


def test_few_labels_correct_no_change(tmp_path: Path) -> None:
    """With one odd label of four nothing is known of the judge's error: there is no change, and a reason."""
    judge = np.array([1.0] * 6 + [0.0] * 4)
    people = np.full(10, np.nan)
    people[[0, 1, 6, 7]] = [1, 1, 1, 0]
    entry = aligntax.diff(log(tmp_path / "a.csv", judge, people), log(tmp_path / "b.csv", judge, people), judges={"judge": "people"}).find(
        "xstest_unsafe", "judge corrected by people"
    )
    assert entry.change is None
    assert any(
        "4 labels, 1 of which show an error of the judge: too few to correct a change with; label 30 or more" in c for c in entry.checks
    )


def test_string_matching_on_xstest(shared: Path, tmp_path: Path) -> None:
    """String matching sees hardly any of Mistral-Instruct's refusals: with 80 of 200 labels the corrected change is people's, the judge's is not."""
    rng = np.random.default_rng(1)
    read = {}
    for name in ("llama2orig", "mistralinstruct"):
        with (shared / "data" / "xstest" / f"{name}_streval.csv").open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["type"].startswith("contrast_")]
        read[name] = [np.array([float(row[column] != "1_full_compliance") for row in rows]) for column in ("strmatch_label", "final_label")]
    true = float(read["mistralinstruct"][1].mean() - read["llama2orig"][1].mean())
    inside = []
    for _ in range(12):
        paths = []
        for name, (judge, people) in read.items():
            some = np.full(len(people), np.nan)
            chosen = rng.choice(len(people), 80, replace=False)
            some[chosen] = people[chosen]
            paths.append(log(tmp_path / f"{name}.csv", judge, some))
        ledger = aligntax.diff(*paths, judges={"judge": "people"})
        corrected, plain = ledger.find("xstest_unsafe", "judge corrected by people"), ledger.find("xstest_unsafe", "judge")
        assert None not in (corrected.ci_low, corrected.ci_high, plain.ci_high)
        inside.append(corrected.ci_low <= true <= corrected.ci_high)
        assert plain.ci_high < true  # the judge alone invents a loss
    assert sum(inside) >= 10


def test_a_metric_that_is_not_there(tmp_path: Path) -> None:
    path = log(tmp_path / "a.csv", np.ones(3), np.ones(3))
    with pytest.raises(InputError, match="no metric 'model' to correct a judge with; there are: judge, people"):
        aligntax.diff(path, path, judges={"model": "people"})


def test_labels_of_other_tasks_correct_nothing(tmp_path: Path) -> None:
    rows = [{"task": "a", "item": i, "metric": "judge", "score": 1} for i in range(9)]
    path = write_csv(tmp_path / "a.csv", rows + [{"task": "b", "item": i, "metric": "people", "score": 1} for i in range(9)])
    with pytest.raises(InputError, match="no task of any arm has both judge and people"):
        aligntax.diff(path, path, judges={"judge": "people"})


def annotations(path: Path, wins: np.ndarray, longer: np.ndarray) -> Path:
    rows = [
        {"instruction": f"do {i}", "output_1": "x" * 300, "output_2": "y" * int(300 + extra), "generator_1": "reference", "generator_2": path.stem,
         "preference": 1.0 + win}
        for i, (win, extra) in enumerate(zip(wins, longer, strict=True))
    ]  # fmt: skip
    path.write_text(json.dumps(rows))
    return path


def test_wins_of_length_alone(tmp_path: Path) -> None:
    """A model no better than the other, only longer, before a judge who likes length: the gain goes where lengths are equal."""
    rng = np.random.default_rng(5)
    paths = []
    for name, extra in (("short", 0.0), ("long", 150.0)):
        longer = np.clip(rng.normal(extra, 120, 800), -250, None)
        paths.append(annotations(tmp_path / f"{name}.json", (rng.random(800) < 1 / (1 + np.exp(-longer / 100))).astype(float), longer))
    ledger = aligntax.diff(*paths)
    plain, controlled = ledger.find("alpaca_eval", "win_rate"), ledger.find("alpaca_eval", "win_rate, length-controlled")
    assert plain.verdict == "gain"
    assert controlled.verdict != "gain"
    assert controlled.candidate_value == pytest.approx(0.5, abs=0.08)
    assert controlled.kind == "helpfulness"
    assert controlled.detail("mean_length_difference_candidate") == pytest.approx(150, abs=15)
    assert not [e for e in ledger if e.metric == "length_difference"]
