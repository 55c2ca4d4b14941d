"""Small logs on disk."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    names = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    import duckdb

    source = write_jsonl(path.with_suffix(".tmp.jsonl"), rows)
    with duckdb.connect() as con:
        con.execute(f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited')) TO '{path}' (FORMAT parquet)")
    source.unlink()
    return path


def pair(both: int, lost: int, gained: int, neither: int, **columns: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two arms of 0/1 scores with these counts of (right right), (right wrong), (wrong right), (wrong wrong)."""
    scores = [(1, 1)] * both + [(1, 0)] * lost + [(0, 1)] * gained + [(0, 0)] * neither
    arms: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    for i, found in enumerate(scores):
        for arm, score in zip(arms, found, strict=True):
            arm.append({"item": f"i{i}", "score": score, **columns})
    return arms


def mmlu_row(number: int, *, pred: str | None = "A", answer: str = "A", **more: Any) -> dict[str, Any]:
    return {
        "question_id": number,
        "question": f"Question {number}?",
        "options": ["yes", "no"],
        "answer": answer,
        "answer_index": 0,
        "category": "logic" if number % 2 else "law",
        "src": f"s{number % 5}",
        "pred": pred,
        "generated_text": f"The answer is ({pred}).",
        **more,
    }
