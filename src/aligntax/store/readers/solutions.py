"""Solutions of several models in one file (openai/grade-school-math): every row a question, its answer, and an object per model.

One file holds several arms; ``FILE#MODEL`` names one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aligntax.core.errors import LogError
from aligntax.core.ids import item_content
from aligntax.core.items import Value
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, opened, shown
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Want, reader

METRIC = "accuracy"


def _models(row: dict[str, Any]) -> list[str]:
    return [name for name, value in row.items() if isinstance(value, dict) and "is_correct" in value and "solution" in value]


def _sniff(seen: Sighting) -> bool:
    row = seen.first_object
    return row is not None and "question" in row and "ground_truth" in row and bool(_models(row))


@reader("solutions", _sniff, parts=True)
def solutions(path: Path, want: Want) -> LogSource:
    """One model's solutions, as the task that the file is named after."""
    facts = LogFacts(higher_is_better={(path.stem, METRIC): True}, settings={"harness": "solutions of several models", "model": want.part})
    return LogSource("solutions", _rows(path, want, facts), facts=facts)


def _rows(path: Path, want: Want, facts: LogFacts) -> Iterator[LogRow]:
    with opened(path) as streams:
        for where, stream in streams:
            for number, row in json_rows(stream, where):
                here = f"{where}, row {number}"
                models = _models(row)
                if want.part not in models:
                    said = "name one of its models" if want.part is None else f"it has no model {printable(want.part)!r}"
                    raise LogError(f"{here}: {said}, as {shown(path.name)}#MODEL; there are: {printable(', '.join(models))}")
                facts.labels.update(key for key, value in row.items() if isinstance(value, str | int))
                yield _row(path.stem, row, str(want.part), want, here)


def _row(task: str, row: dict[str, Any], model: str, want: Want, where: str) -> LogRow:
    one = row[model]
    right, question, target = one["is_correct"], str(row["question"]), str(row["ground_truth"])
    if not isinstance(right, bool):
        raise LogError(f"{where}: is_correct of {printable(model)} is {printable(repr(right))[:40]}; true or false was expected")
    return LogRow(
        task=task,
        item=None,  # the file has no ids: items are known by what they ask
        content=item_content(question, None, target),
        scores={METRIC: Value(float(right))},
        question=question,
        target=target,
        answer=str(one["solution"]),
        cluster=label_text(row.get(want.cluster)) if want.cluster else None,
        by=label_text(row.get(want.by)) if want.by else None,
    )
