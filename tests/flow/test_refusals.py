"""Refusals by rule as tables: directions, trials, empty answers, and what is left alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from aligntax.core.samples import CODE, Outcome
from aligntax.core.study import Analysis
from aligntax.flow.compare import MetricTable
from aligntax.flow.refusals import ANY, BY_WORDING, FULL, refusal_tables
from aligntax.store.logs import Want, open_log
from aligntax.store.rows import Items, Rows

NO, YES, PARTLY = "I cannot help with that.", "Take two eggs.", "It is not right. Here are the steps:\n1. Go.\n2. Run."


def tables(
    folder: Path,
    arms: Mapping[str, Mapping[tuple[str, str], Sequence[str]]],
    analysis: Analysis | None = None,
    *,
    chosen: str = "",
    metric: str = "score",
) -> tuple[dict[str, MetricTable], Items]:
    """Tables by metric, of answers by arm and (task, item)."""
    with Rows() as rows:
        facts = []
        for name, answers in arms.items():
            path = folder / f"{name}.jsonl"
            said = [
                {"task": task, "item": item, "trial": k, "score": 1, "answer": text, "metric": metric}
                for (task, item), texts in answers.items()
                for k, text in enumerate(texts)
            ]
            path.write_text("\n".join(map(json.dumps, said)))
            source = open_log(path, Want())
            source.facts.chosen |= {chosen} - {""}
            rows.add(name, path, source, Want())
            facts.append(source.facts)
        items = rows.items()
        return {table.metric: table for table in refusal_tables(rows, items, facts, analysis or Analysis())}, items


def test_means_over_trials_and_directions(tmp_path: Path) -> None:
    base = {("xstest_safe", "a"): [NO, YES, PARTLY, NO], ("xstest_unsafe", "b"): [NO], ("gsm8k", "c"): [NO]}
    found, items = tables(tmp_path, {"base": base, "tuned": {key: [YES] for key in base}})
    assert set(found) == {FULL, ANY}
    of = {items.tasks[code]: k for k, code in enumerate(items.task.tolist())}
    full, either = found[FULL].arms["base"], found[ANY].arms["base"]
    assert (full.mean[of["xstest_safe"]], either.mean[of["xstest_safe"]]) == (0.5, 0.75)
    assert full.variance[of["xstest_safe"]] == 1 / 3  # of 1, 0, 0, 1, unbiased
    assert np.isnan(full.mean[of["gsm8k"]])
    told = {items.tasks[code]: facts for code, facts in found[FULL].facts.items()}
    assert {task: facts.higher_is_better for task, facts in told.items()} == {"xstest_safe": False, "xstest_unsafe": True}
    assert all((facts.unit, facts.scale, facts.strict) == ("fraction", 1.0, False) for facts in told.values())
    assert (found[ANY].derived, found[ANY].kind) == (True, None)
    assert all(checks == [BY_WORDING] for checks in found[ANY].checks.values())


def test_an_empty_answer_is_neither_and_is_counted(tmp_path: Path) -> None:
    base = {("xstest_safe", "a"): ["  "], ("xstest_safe", "b"): [YES, ""]}
    found, _ = tables(tmp_path, {"base": base, "tuned": {key: [NO] for key in base}})
    scores = found[ANY].arms["base"]
    assert np.isnan(scores.mean[0])
    assert (scores.mean[1], scores.trials.tolist()) == (0.0, [0.0, 1.0])
    assert np.bincount(scores.row_outcome, minlength=CODE[Outcome.UNPARSED] + 1)[CODE[Outcome.UNPARSED]] == 2
    assert found[ANY].checks[0][1:] == ["base: 2 of 3 answers are empty, or thoughts alone: neither refusals nor compliance"]


def test_choices_are_nobodys_words(tmp_path: Path) -> None:
    arm = {("xstest_safe", "a"): [NO]}
    assert tables(tmp_path, {"base": arm, "tuned": arm}, chosen="xstest_safe")[0] == {}


def test_a_kind_that_was_named_counts(tmp_path: Path) -> None:
    arm = {("mine", "a"): [NO]}
    assert tables(tmp_path, {"base": arm, "tuned": arm})[0] == {}
    found, _ = tables(tmp_path, {"base": arm, "tuned": arm}, Analysis(kinds={"mine": "safety"}))
    assert found[FULL].facts[0].higher_is_better


def test_a_metric_of_the_log_stays_the_logs(tmp_path: Path) -> None:
    arm = {("xstest_safe", "a"): [NO]}
    assert set(tables(tmp_path, {"base": arm, "tuned": arm}, metric=ANY)[0]) == {FULL}
