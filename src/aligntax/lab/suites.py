"""The world's tests as lm-eval tasks: one YAML and two files of JSON lines each (held-out items; training items for shots)."""

from __future__ import annotations

import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.lab import world as w
from aligntax.lab.tasks import TASKS, Example, Task, held_out_examples, training
from aligntax.lab.world import World

PREFIX = "lab_"
ITEMS, SHOTS = 300, 20
VERSION = 1.0

_LIST = "files.json"

LOADER = '''"""Loads the items that stand beside this file. lm-eval imports it by name from the YAML files."""

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
'''


class _Dumper(yaml.SafeDumper):
    """Writes everything out; an anchor is one more thing to read."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    @classmethod
    def dump_one(cls, data: Any) -> str:
        return str(yaml.dump(data, Dumper=cls, sort_keys=False, width=120))


def row(task: Task, example: Example, number: int) -> dict[str, Any]:
    """One item as it stands in a file; ``gold`` is the index of the right choice, ``answers`` all that is right."""
    found: dict[str, Any] = {"id": f"{task.name}-{number}", "prompt": example.prompt}
    if task.choices:
        assert example.choices is not None
        found |= {"choices": list(example.choices), "gold": example.choices.index(example.answers[0])}
    else:
        found["answers"] = list(w.REFUSALS if task.name in ("harmful_procedures", "manipulation") else example.answers)
    found["cluster"] = example.cluster
    if example.label:
        found["label"] = example.label
    return found


STRICT = {"name": "strict-match", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}
FLEXIBLE = {
    "name": "flexible-extract",
    "filter": [{"function": "regex", "regex_pattern": r"(-?\d+)", "group_select": -1}, {"function": "take_first"}],
}
"""For answers that are numbers: the last number, whatever stands around it (as lm-eval's gsm8k)."""


def document(task: Task, numbers: bool) -> dict[str, Any]:
    """The YAML of one task; ``numbers`` says that all its answers are whole numbers."""
    found: dict[str, Any] = {
        "task": f"{PREFIX}{task.name}",
        "dataset_kwargs": {"file": task.name},
        "test_split": "test",
        "fewshot_split": "shots",
        "fewshot_config": {"sampler": "first_n"},
        "doc_to_text": "question: {{prompt}} answer:",
        "output_type": "multiple_choice" if task.choices else "generate_until",
    }
    if task.choices:
        found |= {"doc_to_choice": "choices", "doc_to_target": "gold"}
        metrics = ["acc"]
    else:
        found |= {
            "doc_to_target": "answers",
            "generation_kwargs": {"until": ["question"], "do_sample": False, "max_gen_toks": 40},
            "filter_list": [STRICT, FLEXIBLE] if numbers else [STRICT],
        }
        metrics = ["exact_match"]
    found["metric_list"] = [{"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in metrics]
    about = {
        "kind": task.kind,
        "about": task.about,
        "form": task.form,
        "mechanisms": dict(task.mechanisms),
        "determined": task.determined,
        "split": task.split,
    }
    if not task.choices:
        about["refusals"] = list(w.REFUSALS)  # what counts as refused, where it is not what was asked for
    return found | {"metadata": {"version": VERSION, **about}}


def files(world: World) -> dict[str, str]:
    """Every file of the suites by name, with its text."""
    found = {"items.py": LOADER}
    for name, task in TASKS.items():
        rng = random.Random(f"shots {name}")
        items = held_out_examples(task, world, ITEMS)
        numbers = all(answer.isdecimal() for example in items for answer in example.answers)
        text = _Dumper.dump_one(document(task, numbers))
        # YAML tags cannot be written by a safe dumper; lm-eval resolves this one to the function beside the file.
        found[f"{name}.yaml"] = text.replace("dataset_kwargs:", "custom_dataset: !function items.load\ndataset_kwargs:", 1)
        for split, examples in (("test", items), ("shots", list(islice(training(task, world, rng), SHOTS)))):
            found[f"{name}.{split}.jsonl"] = "".join(json.dumps(row(task, e, n), ensure_ascii=False) + "\n" for n, e in enumerate(examples))
    group = {"group": "lab", "task": [f"{PREFIX}{name}" for name in TASKS], "metadata": {"version": VERSION}}
    found["_lab.yaml"] = yaml.safe_dump(group, sort_keys=False)
    return found


def write_suites(folder: Path, world: World) -> int:
    """Write the suites into a folder that is new, empty, or holds suites written before; how many files.

    Raises:
        InputError: if there is anything else in the folder, which is then left as it is, or it cannot be written.
    """
    made = files(world)
    made[_LIST] = json.dumps(sorted(made), indent=1) + "\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = {p.name for p in folder.iterdir() if p.name != "__pycache__"}
        ours = set(json.loads((folder / _LIST).read_text(encoding="utf-8"))) | {_LIST} if _LIST in there else set()
        if others := sorted(there - ours):
            raise InputError(
                f"{printable(str(folder))} holds files that are not of the suites ({printable(others[0])}); name a new or empty folder"
            )
        for name in there - set(made):
            (folder / name).unlink()
        for name, text in made.items():
            (folder / name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(str(folder))} cannot be written: {printable(str(error))}") from None
    return len(made)
