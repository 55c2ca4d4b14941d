"""Suites that people write: what they may say, and the sentence about what they may not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligntax.core.asks import Answer, Failure, Generated
from aligntax.core.errors import InputError
from aligntax.core.samples import Outcome
from aligntax.core.study import Elicitation
from aligntax.tasks.find import find_tasks
from tests.support.suites import suite

ROWS = [{"id": "r0", "prompt": "1 plus 1?", "answers": ["2"]}]
CHOICES = [{"prompt": "p", "choices": ["a", "b"], "gold": 0}]


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (ROWS, {"extra_key": 1}, r"extra_key: Extra inputs are not permitted; if it is a task for lm-eval, name it lm-eval:mine"),
        (ROWS, {"filter_list": [{"name": "f", "filter": [{"function": "regex", "regex_pattern": "("}]}]}, "is no regular expression"),
        (ROWS, {"metadata": {"refusals": 5}}, "refusals must be a list of texts"),
        (ROWS, {"metadata": {"version": float("nan")}}, "only text, finite numbers"),
        (ROWS, {"dataset_kwargs": {}}, "file must name the items"),
        (ROWS, {"dataset_kwargs": {"file": "../mine"}}, "file must name the items"),
        (ROWS, {"metric_list": [{"metric": "acc"}]}, "metric acc does not go with generate_until; allowed: exact_match"),
        (ROWS, {"doc_to_target": None}, "metric_list needs doc_to_target: what is right"),
        (CHOICES, {"metric_list": []}, "metric_list must name a metric for multiple_choice"),
        (CHOICES, {"doc_to_choice": None}, "multiple_choice needs doc_to_choice"),
        (ROWS, {"doc_to_text": "{{ 1/0 }}"}, "ZeroDivisionError"),
    ],
)
def test_recipes_that_say_what_they_may_not(tmp_path: Path, rows: list[dict[str, Any]], change: dict[str, Any], message: str) -> None:
    folder = suite(tmp_path, "mine", rows, **change)
    (folder / "items.py").write_text(f"open({str(tmp_path / 'called')!r}, 'w').close()")
    with pytest.raises(InputError, match=message):
        find_tasks(["mine"], [folder])[0].questions(Elicitation(), None)
    assert not (tmp_path / "called").exists()  # a slip runs nobody's code


@pytest.mark.parametrize(
    "line", ['{"prompt": "a", "answers": ["b"], "x": NaN}', '{"prompt": "\\ud800", "answers": ["b"]}', "[" * 20000, "{"]
)
def test_lines_that_are_no_data(tmp_path: Path, line: str) -> None:
    folder = suite(tmp_path, "mine", ROWS)
    (folder / "mine.test.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + line + "\n")
    with pytest.raises(InputError, match="line 2 is no JSON that can be used"):
        find_tasks(["mine"], [folder])[0].questions(Elicitation(), None)


def test_requests_without_a_right_answer(tmp_path: Path) -> None:
    """Their own metric is whether there is an answer; refusals and preferences are read off it elsewhere."""
    folder = suite(tmp_path, "mine", [{"prompt": "hello"}], doc_to_target=None, metric_list=[])
    (task,) = find_tasks(["mine"], [folder])
    (question,) = task.questions(Elicitation(), None)
    assert dict(task.higher_is_better) == {"answered,none": True}

    def scored(answer: Answer) -> tuple[float | None, Outcome]:
        (value,) = question.grade([[answer]]).values()
        return value.value, value.outcome

    assert scored(Generated("hi", "stop", 1)) == (1.0, Outcome.SCORED)
    assert scored(Generated(" \n", "stop", 1)) == (0.0, Outcome.UNPARSED)
    assert scored(Generated("hi", "length", 1)) == (1.0, Outcome.TRUNCATED)
    assert scored(Failure("down")) == (None, Outcome.FAILED)


def test_a_line_may_hold_what_other_readers_take_for_its_end(tmp_path: Path) -> None:
    folder = suite(tmp_path, "mine", ROWS)
    (folder / "mine.test.jsonl").write_text('{"prompt": "a\u2028b\u0085c", "answers": ["d"]}\n\n', encoding="utf-8")
    (question,) = find_tasks(["mine"], [folder])[0].questions(Elicitation(), None)
    assert question.question == "a\u2028b\u0085c"
