"""Loads the items that stand beside this file. lm-eval imports it by name from the YAML files."""

import json
from pathlib import Path


def load(file, **_):
    """Both splits of one task: what is asked, and what shots are taken from."""
    from datasets import Dataset

    here = Path(__file__).parent
    return {
        split: Dataset.from_list([json.loads(line) for line in (here / f"{file}.{split}.jsonl").read_text(encoding="utf-8").splitlines()])
        for split in ("test", "shots")
    }
