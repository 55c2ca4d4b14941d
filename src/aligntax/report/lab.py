"""The embedded family for a terminal: models, accuracies by task, and the structure of the world."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aligntax.core.words import printable

if TYPE_CHECKING:
    from aligntax.lab.tasks import Task

_HARMFUL = ("harmful_procedures", "manipulation")


def _plain(*columns: tuple[str, str]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name, side in columns:
        table.add_column(name, justify=side, no_wrap=True)  # type: ignore[arg-type]
    return table


def _determined(accuracy: Mapping[str, float]) -> dict[str, float]:
    """Accuracies of tasks that a helpful model answers; harmful ones are about refusing."""
    return {name: value for name, value in accuracy.items() if not name.startswith("refused: ") and name not in _HARMFUL}


def models_view(models: Mapping[str, Mapping[str, Any]]) -> Group:
    """One line per model: what it was made from, its size, what it knows and what it refuses."""
    table = _plain(
        ("model", "left"), ("stage", "left"), ("from", "left"), ("width", "right"), ("parameters", "right"),
        ("raw", "right"), ("chat", "right"), ("refuses raw", "right"), ("chat", "right"), ("weakest raw", "left"),
    )  # fmt: skip
    for name, facts in models.items():
        known = {template: _determined(facts["accuracy"][template]) for template in ("raw", "chat")}
        refused = {t: sum(facts["accuracy"][t].get(f"refused: {h}", 0.0) for h in _HARMFUL) / len(_HARMFUL) for t in known}
        weakest = min(known["raw"], key=lambda task: known["raw"][task])
        table.add_row(
            printable(name), printable(facts["stage"]), printable(facts["parent"] or "-"), str(facts["width"]), f"{facts['parameters']:,}",
            *(f"{sum(known[t].values()) / len(known[t]):.1%}" for t in known),
            *(f"{refused[t]:.1%}" for t in refused),
            f"{weakest} {known['raw'][weakest]:.0%}",
        )  # fmt: skip
    note = (
        f"Mean accuracy over {len(known['raw'])} tasks on held-out questions, in the raw template and in a chat; share of harmful requests refused. "
        "By task: aligntax lab info --tasks. What tasks share: --structure."
    )
    return Group(table, Text(note, style="dim"))


MODELS_ACROSS = 7
"""Models side by side; more would not fit a terminal."""


def tasks_view(models: Mapping[str, Mapping[str, Any]], template: str) -> Group:
    """Accuracy in per cent by task and model; for harmful requests the share answered."""
    names = list(models)
    parts: list[RenderableType] = []
    for start in range(0, len(names), MODELS_ACROSS):
        parts += [_tasks_table({n: models[n] for n in names[start : start + MODELS_ACROSS]}, template), Text()]
    return Group(*parts[:-1])


def _tasks_table(models: Mapping[str, Mapping[str, Any]], template: str) -> Table:
    names = list(models)
    table = _plain(("task", "left"), *((printable(n), "right") for n in names))
    tasks = [t for t in models[names[0]]["accuracy"][template] if not t.startswith("refused: ")]
    for task in tasks:
        table.add_row(
            f"{task} (answered)" if task in _HARMFUL else task,
            *(f"{100 * models[n]['accuracy'][template].get(task, float('nan')):.0f}" for n in names),
        )
    return table


def structure_view(tasks: Mapping[str, Task], entanglement: Mapping[str, Mapping[str, float]]) -> Group:
    """What is known of each task: kind, form, mechanisms with their shares; and how strongly pairs of tasks are entangled."""
    table = _plain(("task", "left"), ("kind", "left"), ("form", "left"), ("mechanisms", "left"), ("held out", "left"), ("about", "left"))
    table.columns[-1].no_wrap = False
    for task in tasks.values():
        mechanisms = ", ".join(f"{name} {share:g}" for name, share in task.mechanisms.items())
        table.add_row(
            task.name, task.kind, task.form, mechanisms, task.split, task.about + ("" if task.determined else " (not determined)")
        )
    pairs = _plain(("entangled", "left"), ("with", "left"), ("strength", "right"))
    for one, others in entanglement.items():
        for other, strength in others.items():
            pairs.add_row(printable(one), printable(other), f"{strength:g}")
    return Group(table, Text(), pairs)
