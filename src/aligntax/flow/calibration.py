"""Whether models are as often right as they are sure: a metric made of confidence and accuracy, item by item.

``calibration error, squared`` is the reliability part of the Brier score, debiased (``stats.calibration.squared_error``): its values are
pseudo-values, so that it pairs and clusters like any score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aligntax.core.ledger import Detail
from aligntax.flow.compare import MetricTable
from aligntax.flow.judge import MetricFacts
from aligntax.flow.scores import BoolArray, FloatArray, ItemScores, item_values
from aligntax.stats.calibration import bins_for, decomposition, diagram, equal_mass, squared_error
from aligntax.store.rows import Items

SURE = "confidence"
SQUARED = "calibration error, squared"
_FEWEST = 30
_TRUTHS = ("acc", "exact_match", "accuracy", "correct")


def calibration_tables(tables: Sequence[MetricTable], items: Items) -> list[MetricTable]:
    """The calibration error of every confidence that has an accuracy beside it; confidence itself has no better side, and no entry."""
    out = [table for table in tables if not _is_sure(table, tables)]
    known = {table.metric: table for table in tables}
    for sure in tables:
        right = _truth(sure.metric, known)
        if right is not None:
            out += _table(sure, right, items)
    return out


def _is_sure(table: MetricTable, tables: Sequence[MetricTable]) -> bool:
    return _truth(table.metric, {t.metric: t for t in tables}) is not None


def _truth(metric: str, known: Mapping[str, MetricTable]) -> MetricTable | None:
    """The accuracy that a confidence is about: of the same filter."""
    name, comma, chain = metric.partition(",")
    if name != SURE:
        return None
    return next((known[f"{truth}{comma}{chain}"] for truth in _TRUTHS if f"{truth}{comma}{chain}" in known), None)


def _table(sure: MetricTable, right: MetricTable, items: Items) -> list[MetricTable]:
    arms = [arm for arm in sure.arms if arm in right.arms]
    values = {arm: np.full(len(items.task), np.nan) for arm in arms}
    told: dict[tuple[int, str], dict[str, Detail]] = {}
    facts: dict[int, MetricFacts] = {}
    checks: dict[int, list[str]] = {}
    for task in sure.facts:
        has = [arm for arm in arms if _told(sure.arms[arm], right.arms[arm], items.task == task).any()]
        common = np.logical_and.reduce([_told(sure.arms[arm], right.arms[arm], items.task == task) for arm in has]) if has else None
        if common is None or int(common.sum()) < _FEWEST:
            continue
        bins = bins_for(int(common.sum()))
        for arm in has:
            values[arm][common], told[task, arm] = _measured(sure.arms[arm].mean[common], right.arms[arm].mean[common], bins)
        facts[task] = MetricFacts("fraction", higher_is_better=False, scale=None, strict=False)
        many = "1 bin" if bins == 1 else f"{bins} bins of equally many answers"
        checks[task] = [f"debiased squared error of confidence over {many}; ece_baseline and ece_candidate are not debiased"]
    if not facts:
        return []
    chain = sure.metric.partition(",")[2]
    planned = {arm: sure.arms[arm].planned & np.isin(items.task, [t for t, of in told if of == arm]) for arm in arms}
    scores = {arm: item_values(values[arm], planned[arm]) for arm in arms}
    name = f"{SQUARED},{chain}" if chain else SQUARED
    return [MetricTable(name, scores, facts, kind="calibration", derived=True, told=told, checks=checks)]


def _told(sure: ItemScores, right: ItemScores, of: BoolArray) -> BoolArray:
    """Items asked once whose confidence and rightness are both known. Of items asked several times none: those that were answered alike every time are
    no fair sample, and a mean over trials is neither right nor wrong.
    """
    once = (sure.trials == 1) & (right.trials == 1)
    out: BoolArray = of & once & ((right.mean == 0) | (right.mean == 1)) & (sure.mean >= 0) & (sure.mean <= 1)
    return out


def _measured(confidence: FloatArray, right: FloatArray, bins: int) -> tuple[FloatArray, dict[str, Detail]]:
    bin_of = equal_mass(confidence, bins)
    drawn, parts = diagram(confidence, right, bin_of), decomposition(confidence, right, bin_of)
    details: dict[str, Detail] = {
        "ece": drawn.ece,
        "confidence": float(confidence.mean()),
        "overconfidence": float((confidence - right).mean()),
        "reliability": parts.reliability,
        "resolution": parts.resolution,
        "uncertainty": parts.uncertainty,
        "within_bins": parts.within,
        "bin_confidence": drawn.confidence.tolist(),
        "bin_right": drawn.right.tolist(),
        "bin_answers": drawn.count.tolist(),
    }
    return squared_error(confidence, right, bin_of), details
