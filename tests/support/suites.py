"""Small suites on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml


def suite(folder: Path, task: str, rows: list[dict[str, Any]], shots: list[dict[str, Any]] | None = None, **recipe: Any) -> Path:
    """Write one task: ``rows`` have prompt and answers (or choices and gold)."""
    folder.mkdir(parents=True, exist_ok=True)
    choose = "choices" in rows[0] if rows else False
    document: dict[str, Any] = {
        "task": task,
        "custom_dataset": "items.load",
        "dataset_kwargs": {"file": task},
        "test_split": "test",
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": "question: {{prompt}} answer:",
        "output_type": "multiple_choice" if choose else "generate_until",
        "doc_to_target": "gold" if choose else "answers",
        "metric_list": [{"metric": "acc" if choose else "exact_match"}],
        **({"doc_to_choice": "choices"} if choose else {"generation_kwargs": {"until": ["question"], "max_gen_toks": 8}}),
        **recipe,
    }
    (folder / f"{task}.yaml").write_text(yaml.safe_dump(document), encoding="utf-8")
    for split, some in (("test", rows), ("shots", shots or [])):
        text = "".join(json.dumps(row) + "\n" for row in some)
        (folder / f"{task}.{split}.jsonl").write_text(text, encoding="utf-8")
    return folder
