"""How much answers vary when nothing that matters does: from run to run, and over rewordings of one question.

Alignment may buy predictability, or cost it. Both are unbiased variances of an item's scores, so that unequal numbers of trials compare; run to
run also the share of pairs of trials that give the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aligntax.core.errors import InputError
from aligntax.flow.compare import MetricTable
from aligntax.flow.judge import MetricFacts
from aligntax.flow.scores import FloatArray, IntArray, item_values
from aligntax.store.rows import Items, Rows

RUNS, REWORDED, AGREEMENT = "variance over trials", "variance over rewordings", "same answer in two trials"
ONCE = "wordings were asked once: where answers are drawn by chance, what varies from run to run is in the variance over rewordings"


def consistency_tables(tables: Sequence[MetricTable], items: Items, rows: Rows, rewordings: bool) -> list[MetricTable]:
    """Tables of the kind ``consistency``; none where every item was asked once, in one wording.

    Args:
        tables: scores.
        items: the study's items; their clusters are the questions where ``rewordings``.
        rows: the answers.
        rewordings: whether items of one cluster are rewordings of one question.

    Raises:
        InputError: if they are said to be, and no item has a cluster.
    """
    if rewordings and (items.cluster < 0).all():
        raise InputError("rewordings take the question that items are wordings of: name its column with --cluster")
    out = []
    for table in tables:
        bounded = {t: of for t, of in table.facts.items() if of.unit == "fraction" and of.scale == 1.0}
        if table.derived or not bounded:
            continue
        out += _over_trials(table, bounded, items)
        if rewordings:
            out += _over_rewordings(table, bounded, items)
    return out + _agreement(tables, items, rows)


def _facts(scale: float, *, higher: bool) -> MetricFacts:
    return MetricFacts("fraction", higher_is_better=higher, scale=scale, strict=False)


def _over_trials(table: MetricTable, facts: dict[int, MetricFacts], items: Items) -> list[MetricTable]:
    of = np.isin(items.task, list(facts))
    repeated = {arm: of & (scores.trials > 1) for arm, scores in table.arms.items()}
    repeated = {arm: mask for arm, mask in repeated.items() if mask.any()}
    if len(repeated) < 2:
        return []
    there = sorted({int(t) for mask in repeated.values() for t in np.unique(items.task[mask])})
    of &= np.isin(items.task, there)
    arms = {arm: item_values(np.where(repeated[arm], table.arms[arm].variance, np.nan), table.arms[arm].planned & of) for arm in repeated}
    known = {t: _facts(0.5, higher=False) for t in there}  # two trials differ by at most all: a variance of one half
    return [MetricTable(f"{table.metric}: {RUNS}", arms, known, kind="consistency", derived=True)]


def _over_rewordings(table: MetricTable, facts: dict[int, MetricFacts], items: Items) -> list[MetricTable]:
    of = np.isin(items.task, list(facts)) & (items.cluster >= 0)
    for scores in table.arms.values():
        for task in np.unique(items.task[of]):
            if scores.valid[items.task == task].any():  # items that every arm with this task answered
                of &= scores.valid | (items.task != task)
    question = np.where(of, items.task * (int(items.cluster.max(initial=-1)) + 1) + items.cluster, -1)
    arms = {}
    for arm, scores in table.arms.items():
        values = _within(scores.mean, scores.variance / np.maximum(scores.trials, 1), question)
        if np.isfinite(values).any():
            arms[arm] = item_values(values, scores.planned & of)
    if len(arms) < 2:
        return []
    name = f"{table.metric}: {REWORDED}"
    known = {t: _facts(1.0, higher=False) for t in facts}
    once = np.logical_or.reduce([of & (scores.trials == 1) for scores in table.arms.values()])
    checks = {t: [ONCE] for t in known if once[items.task == t].any()}
    return [
        MetricTable(
            name, arms, known, kind="consistency", derived=True, groups=question, grouped="question, in several wordings", checks=checks
        )
    ]


def _within(mean: FloatArray, noise: FloatArray, question: IntArray) -> FloatArray:
    """(N,) unbiased variance of an item's question over its wordings, less what trials add to it; NaN for questions worded once."""
    out = np.full(len(mean), np.nan)
    at = np.flatnonzero((question >= 0) & ~np.isnan(mean))
    if len(at) == 0:
        return out
    _, code = np.unique(question[at], return_inverse=True)
    count = np.bincount(code).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        centre = np.bincount(code, weights=mean[at]) / count
        spread = np.bincount(code, weights=(mean[at] - centre[code]) ** 2) / (count - 1)
        added = np.bincount(code, weights=np.nan_to_num(noise[at])) / count
    out[at] = np.where(count > 1, spread - added, np.nan)[code]
    return out


def _agreement(tables: Sequence[MetricTable], items: Items, rows: Rows) -> list[MetricTable]:
    repeated = [t for t in tables if not t.derived and any((s.trials > 1).any() for s in t.arms.values())]
    if not repeated:
        return []
    values = {arm.name: rows.agreement(arm.number, len(items.task)) for arm in rows.arms}
    values = {arm: of for arm, of in values.items() if np.isfinite(of).any()}
    if len(values) < 2:
        return []
    there = sorted({int(t) for of in values.values() for t in np.unique(items.task[np.isfinite(of)])})
    planned = {arm: np.logical_or.reduce([t.arms[arm].planned for t in repeated if arm in t.arms]) for arm in values}
    arms = {arm: item_values(of, planned[arm] & np.isin(items.task, there)) for arm, of in values.items()}
    return [MetricTable(AGREEMENT, arms, {t: _facts(1.0, higher=True) for t in there}, kind="consistency", derived=True)]
