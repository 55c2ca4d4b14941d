"""What judges said, put right: rates corrected by people's labels, win rates at equal lengths. Values of items, so that they pair like scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.ledger import Detail
from aligntax.core.words import printable
from aligntax.flow.compare import MetricTable
from aligntax.flow.judge import MetricFacts
from aligntax.flow.scores import BoolArray, FloatArray, item_values
from aligntax.stats.judges import corrected_items, corrected_rate
from aligntax.stats.preference import length_controlled
from aligntax.store.rows import Items

FEW_ODD = 3
"""Labels that differ from the usual one of their judge's answer, below which little is known of the judge's errors."""
FEW_LABELS, FEW_GRADED = 30, 10
"""Labels of one arm below which, with few odd ones, or graded, no error of a change is believed: 5 % tests reject up to 19 % (tests/stats/test_judges.py)."""
LENGTHS = "length_difference"
"""Metric of a log that holds how much longer the model's answer is than the reference's; made into win rates, no entry of its own."""
WINS = "win_rate"


def corrected_tables(tables: Sequence[MetricTable], items: Items, judges: Mapping[str, str], level: float) -> list[MetricTable]:
    """A metric per judge: its labels of all items, corrected by people's labels of some (``stats.judges.corrected_items``).

    Args:
        tables: scores.
        items: the study's items.
        judges: metric of the judge -> metric of people.
        level: of the intervals of each arm's rate, in the details.

    Raises:
        InputError: if there is no such metric, or nothing has both.
    """
    known = {table.metric: table for table in tables}
    out = []
    for judge, truth in judges.items():
        for name in (judge, truth):
            if name not in known:
                raise InputError(f"no metric {printable(repr(name))} to correct a judge with; there are: {printable(', '.join(known))}")
        out.append(_corrected(known[judge], known[truth], items, level))
    return out


def _corrected(judge: MetricTable, truth: MetricTable, items: Items, level: float) -> MetricTable:
    values = {arm: np.full(len(items.task), np.nan) for arm in judge.arms if arm in truth.arms}
    told: dict[tuple[int, str], dict[str, Detail]] = {}
    facts: dict[int, MetricFacts] = {}
    checks: dict[int, list[str]] = {}
    for task, of in judge.facts.items():
        if task not in truth.facts or of.unit != "fraction":
            continue
        facts[task] = MetricFacts("fraction", truth.facts[task].higher_is_better, None, strict=False)
        checks[task] = [f"{judge.metric} of every answer, corrected by {truth.metric} of those labelled (prediction-powered)"]
        for arm in values:
            mask = (items.task == task) & judge.arms[arm].valid
            labels = np.where(truth.arms[arm].valid, truth.arms[arm].mean, np.nan)[mask]
            if not mask.any() or np.isnan(labels).all():
                continue
            told[task, arm], doubt = _rates(judge.arms[arm].mean[mask], labels, level)
            checks[task] += [f"{printable(arm)}: {doubt}"] if doubt else []
            if _enough(judge.arms[arm].mean[mask], labels, told[task, arm].get("odd_labels")):
                values[arm][mask] = corrected_items(judge.arms[arm].mean[mask], labels)
    if not told:
        raise InputError(
            f"no task of any arm has both {printable(judge.metric)} and {printable(truth.metric)}, as shares: there is nothing to correct with"
        )
    planned = {arm: judge.arms[arm].planned & np.isin(items.task, [t for t, of in told if of == arm]) for arm in values}
    arms = {arm: item_values(of, planned[arm]) for arm, of in values.items()}
    return MetricTable(f"{judge.metric} corrected by {truth.metric}", arms, facts, derived=True, told=told, checks=checks)


def _rates(judge: FloatArray, labels: FloatArray, level: float) -> tuple[dict[str, Detail], str]:
    """An arm's rate over these answers with its interval, and what is doubtful about it."""
    known = int((~np.isnan(labels)).sum())
    details: dict[str, Detail] = {"judged": float(judge.mean()), "labelled": known}
    if not _is_binary(judge) or not _is_binary(labels[~np.isnan(labels)]):
        return details, ""
    found = corrected_rate(judge, labels, level)
    details |= {
        "rate": found.rate,
        "rate_ci": None if found.low is None else [found.low, found.high],
        "judge_sensitivity": found.sensitivity,
        "judge_specificity": found.specificity,
        "odd_labels": found.odd,
    }
    few = (found.odd is None or found.odd < FEW_ODD) and known < len(judge)
    if few and known < FEW_LABELS:
        return (
            details,
            f"{known} labels, {found.odd or 0} of which show an error of the judge: too few to correct a change with; label {FEW_LABELS} or more",
        )
    return (
        details,
        f"{found.odd} labels show an error of the judge: its errors are hardly known, and the error of the change may be too small"
        if few
        else "",
    )


def _enough(judge: FloatArray, labels: FloatArray, odd: Detail) -> bool:
    """Whether the errors of the judge are known well enough for an error of a change."""
    known = int((~np.isnan(labels)).sum())
    if known == len(judge):
        return True
    if not _is_binary(judge) or not _is_binary(labels[~np.isnan(labels)]):
        return known >= FEW_GRADED
    return known >= FEW_LABELS or (isinstance(odd, int | float) and odd >= FEW_ODD)


def _is_binary(x: FloatArray) -> BoolArray | bool:
    return bool(np.all((x == 0) | (x == 1)))


def length_controlled_tables(tables: Sequence[MetricTable], items: Items, level: float) -> list[MetricTable]:
    """Tables without the lengths, and the win rate at equal lengths beside each win rate that has them."""
    known = {table.metric: table for table in tables}
    if LENGTHS not in known or WINS not in known:
        return list(tables)
    wins, lengths = known[WINS], known[LENGTHS]
    values = {arm: np.full(len(items.task), np.nan) for arm in wins.arms if arm in lengths.arms}
    told: dict[tuple[int, str], dict[str, Detail]] = {}
    facts: dict[int, MetricFacts] = {}
    checks: dict[int, list[str]] = {}
    for task in wins.facts:
        if task not in lengths.facts:
            continue
        checks[task] = [
            "win rate at equal lengths, by a logistic regression on tanh of the difference of lengths (AlpacaEval 2.0, without its difficulties)"
        ]
        for arm in values:
            mask = (items.task == task) & wins.arms[arm].valid & lengths.arms[arm].valid
            if not mask.any():
                continue
            found = length_controlled(wins.arms[arm].mean[mask], lengths.arms[arm].mean[mask], level=level)
            told[task, arm] = {
                "win_rate": found.raw,
                "rate": found.rate,
                "rate_ci": None if found.low is None else [found.low, found.high],
                "length_effect": found.length_effect,
                "mean_length_difference": found.mean_difference,
            }
            if found.items is not None:
                values[arm][np.flatnonzero(mask)[found.kept]] = found.items
            checks[task] += [f"{printable(arm)}: {found.reason}"] if found.reason else []
            if found.extrapolated:
                checks[task].append(
                    f"{printable(arm)}: its answers are always the longer ones or always the shorter: equal lengths lie beyond what was seen"
                )
        facts[task] = MetricFacts("fraction", wins.facts[task].higher_is_better, None, strict=False)
    kept = [table for table in tables if table.metric != LENGTHS]
    if not told:
        return kept
    planned = {arm: wins.arms[arm].planned & np.isin(items.task, [t for t, of in told if of == arm]) for arm in values}
    arms = {arm: item_values(of, planned[arm]) for arm, of in values.items()}
    controlled = MetricTable(f"{WINS}, length-controlled", arms, facts, derived=True, told=told, checks=checks)
    return [*kept, controlled]
