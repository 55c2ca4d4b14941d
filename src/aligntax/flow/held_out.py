"""A run's changes over the items that something else has not seen: what was made from an item is not to be held against its own score."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.kinds import BESIDE
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.study import Study
from aligntax.core.words import items_text, printable
from aligntax.flow.compare import MetricTable, StudyNotes, compare
from aligntax.flow.diff import metric_tables
from aligntax.flow.scores import BoolArray, FloatArray, ItemScores
from aligntax.flow.stored import recorded
from aligntax.store.run import StoredRun, load_rows


@dataclass(frozen=True)
class HeldOut:
    """Changes of a run over what was not seen.

    Attributes:
        changes: by arm and task, against the base.
        left_out: by task, items of the run that were seen.
        akin: items that were not seen, but share a cluster with one that was: they are not independent of it.
    """

    changes: Mapping[str, Mapping[str, Entry]]
    left_out: Mapping[str, int]
    akin: int


def held_out(run: StoredRun, base: str, arms: Sequence[str], seen: Collection[tuple[str, str, str]], metric: str | None = None) -> HeldOut:
    """Every task's own change between a base and other arms, over items that were not seen.

    Args:
        run: a complete run with its samples.
        base: name of an arm.
        arms: names of others.
        seen: (task, item id, beginning of the content's hash); an item is seen if its id, or its content where the run knows it, is among its task's.
        metric: of all tasks; None for each task's own score, the first of several by name.

    Raises:
        InputError: if there are no samples, or all items were seen.
        LogError, PairingError: if the run's rows cannot be read, or nothing is left to compare.
    """
    study = run.study.model_copy(update={"baseline": base, "arms": _alone(run.study, base, arms), "contrasts": ()})
    with load_rows(run) as rows:
        items = rows.items()
        if not len(items.task):
            raise InputError(
                f"{printable(run.path.name)} has summaries and no samples: nobody knows which of its items the prediction has seen"
            )
        marked = rows.marked(seen, len(items.task))
        if marked.all():
            raise InputError(
                f"the prediction has seen all {items_text(len(marked))} of {printable(run.path.name)}; measure more items, or predict from fewer (--items)"
            )
        tables = [_without(table, marked) for table in metric_tables(run.study, items, rows, [recorded(run.ledger)])]
        notes = StudyNotes(cluster=run.study.analysis.cluster)
        ledger = Ledger(study=run.study.id, baseline=base, entries=tuple(compare(study, items, tables, notes)))
        akin = ~marked & (items.cluster >= 0) & np.isin(items.cluster, items.cluster[marked])
        counts = np.bincount(items.task[marked], minlength=len(items.tasks))
        names = items.tasks
    changes = {
        arm: {task: entry for task in names if (entry := _own(ledger, run.ledger, task, base, arm, metric)) is not None} for arm in arms
    }
    return HeldOut(changes, {task: int(count) for task, count in zip(names, counts, strict=True) if count}, int(akin.sum()))


def _alone(study: Study, base: str, arms: Sequence[str]) -> tuple[object, ...]:
    """The base and the others, each compared with the base alone."""
    by_name = {arm.name: arm for arm in study.arms}
    return by_name[base].model_copy(update={"parent": None}), *(by_name[name].model_copy(update={"parent": base}) for name in arms)


def _without(table: MetricTable, marked: BoolArray) -> MetricTable:
    return replace(table, arms={name: _cut(scores, marked) for name, scores in table.arms.items()})


def _cut(scores: ItemScores, marked: BoolArray) -> ItemScores:
    kept = ~marked[scores.row_item]

    def blank(values: FloatArray) -> FloatArray:
        return np.where(marked, np.nan, values)

    return replace(
        scores,
        mean=blank(scores.mean),
        variance=blank(scores.variance),
        unread=blank(scores.unread),
        read_mean=blank(scores.read_mean),
        trials=np.where(marked, 0.0, scores.trials),
        planned=scores.planned & ~marked,
        row_item=scores.row_item[kept],
        row_outcome=scores.row_outcome[kept],
    )


def _own(ledger: Ledger, whole: Ledger, task: str, base: str, arm: str, metric: str | None) -> Entry | None:
    """A task's own score, of which less or more is better."""
    beside = {(e.task, e.metric) for e in whole if "derived" in e.details}
    fits = [
        e
        for e in ledger
        if (e.task, e.pair) == (task, (base, arm))
        and e.cost is not None
        and (e.metric == metric if metric is not None else e.kind not in BESIDE and (e.task, e.metric) not in beside)
    ]
    return min(fits, key=lambda e: e.metric) if fits else None
