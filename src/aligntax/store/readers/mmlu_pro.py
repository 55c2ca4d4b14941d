"""MMLU-Pro outputs: a zip, a JSON list or JSON lines of questions with ``pred`` and ``answer`` letters.

Right means ``pred == answer``, as upstream scores it; a letter beyond the options stays scored (and wrong).
``pred`` null is an answer that could not be parsed. Upstream's script would put a random letter there instead.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aligntax.core.errors import LogError
from aligntax.core.ids import item_content
from aligntax.core.items import Value
from aligntax.core.samples import Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, opened
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Want, reader

TASK, METRIC = "mmlu_pro", "accuracy"
# A lone capital, or any letter after what announces an answer ("(g)" alone is often a gas, or grams); as upstream reads it, the first letter of a word.
_LETTER = re.compile(r"(?<![A-Za-z])([A-J])(?![A-Za-z])|(?i:answer(?: is)?:?\s*)[(\[*]*([a-j])(?![A-Za-z])|answer is \(?([A-J])")
_NEEDED = ("question_id", "question", "answer", "pred")


def _is_ours(row: dict[str, Any] | None) -> bool:
    return row is not None and all(key in row for key in _NEEDED)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix in {".json", ".jsonl", ".zip"})


def _sniff(seen: Sighting) -> bool:
    if not seen.is_dir:
        return _is_ours(seen.first_object)
    files = _files(seen.path)
    return bool(files) and all(_is_ours(Sighting(p).first_object) for p in files)


@reader("mmlu-pro", _sniff)
def mmlu_pro(path: Path, want: Want) -> LogSource:
    """Every row of the file, or of all files of the folder, as task ``mmlu_pro``, metric ``accuracy``."""
    facts = LogFacts(higher_is_better={(TASK, METRIC): True}, settings={"harness": "MMLU-Pro"})
    return LogSource("mmlu-pro", _rows(_files(path) if path.is_dir() else [path], want, facts), facts=facts)


def _rows(paths: list[Path], want: Want, facts: LogFacts) -> Iterator[LogRow]:
    filled: Counter[str] = Counter()
    swapped: list[str] = []
    total = 0
    for path in paths:
        with opened(path) as streams:
            for where, stream in streams:
                for number, row in json_rows(stream, where):
                    if not facts.labels:
                        facts.labels.update(key for key, value in row.items() if isinstance(value, str | int))
                    yield _row(row, want, f"{where}, row {number}")
                    total += 1
                    if isinstance(row.get("options"), list) and row["options"]:
                        facts.guess(TASK, METRIC, len(row["options"]))
                    if _filled_in(row):
                        filled[row["pred"]] += 1
                    if isinstance(row.get("answer_index"), int) and row["answer_index"] != ord(row["answer"][:1] or "@") - ord("A"):
                        swapped.append(str(row["question_id"]))
    if swapped:
        facts.mislabelled.append(
            f"{TASK}: answers that are not the option that their answer_index names: {len(swapped):,} of {total:,} "
            f"(item {', '.join(swapped[:5])}{' ...' if len(swapped) > 5 else ''})"
        )
    if filled:
        letter, most = filled.most_common(1)[0]
        facts.doubts[TASK] = [
            f"{filled.total():,} of {total:,} predictions are not what their texts yield ({most:,} of them {letter}): filled in upstream, and "
            "scored as answers"
        ]


def _filled_in(row: dict[str, Any]) -> bool:
    """Whether a letter was predicted of a text that nowhere says it: whatever the extractor, it did not read it there."""
    pred, text = row["pred"], row.get("generated_text", row.get("model_outputs"))
    if not pred or ("generated_text" not in row and "model_outputs" not in row):
        return False
    if isinstance(text, str) and f"({pred})" in text:  # as nearly all do
        return False
    return not isinstance(text, str) or pred not in {"".join(found).upper() for found in _LETTER.findall(text)}


def _row(row: dict[str, Any], want: Want, where: str) -> LogRow:
    missing = [key for key in _NEEDED if key not in row]
    if missing:
        raise LogError(f"{where} has no {', '.join(missing)}; MMLU-Pro rows have {', '.join(_NEEDED)}")
    pred, answer, options = row["pred"], row["answer"], row.get("options")
    if not isinstance(answer, str) or not (pred is None or isinstance(pred, str)):
        raise LogError(
            f"{where}: answer and pred must be letters (pred may be null), got {printable(repr(answer))} and {printable(repr(pred))}"
        )
    unparsed = pred is None or pred == ""
    text = row.get("generated_text", row.get("model_outputs"))
    return LogRow(
        task=TASK,
        item=label_text(row["question_id"]),
        content=item_content(str(row["question"]), options if isinstance(options, list) else None, answer),
        scores={METRIC: Value(0.0, Outcome.UNPARSED) if unparsed else Value(1.0 if pred == answer else 0.0, Outcome.SCORED, pred)},
        question=str(row["question"]),
        target=answer,
        answer=text if isinstance(text, str) else pred,
        cluster=label_text(row.get(want.cluster)) if want.cluster else None,
        by=label_text(row.get(want.by)) if want.by else None,
    )
