"""Score rows to numbers per item: the arrays that comparisons are made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aligntax.core.samples import CODE, MISSING, OUTCOMES, UNREAD, Outcome
from aligntax.store.rows import MetricRows

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Membership by outcome code: ``TABLE[codes]``.
_MISSING = np.array([o in MISSING for o in OUTCOMES])
_UNREAD = np.array([o in UNREAD for o in OUTCOMES])
_INCORRECT = np.array([o in (Outcome.REFUSED, Outcome.UNPARSED, Outcome.TRUNCATED) for o in OUTCOMES])


@dataclass(frozen=True)
class ItemScores:
    """One metric of one arm over all N planned items; every array is (N,).

    Attributes:
        mean: mean score over the item's trials; NaN where there is none.
        trials: scored trials per item.
        variance: unbiased variance over an item's trials; NaN below two.
        unread: share of an item's trials that nobody could read and that count as incorrect.
        read_mean: mean score over the readable trials; NaN where there is none.
        planned: whether the arm has any row for the item.
        row_item, row_outcome: (M,) item index and outcome code of every score row.
        overruled: unparsed answers that carried a score other than 0, which is not believed.
    """

    mean: FloatArray
    trials: FloatArray
    variance: FloatArray
    unread: FloatArray
    read_mean: FloatArray
    planned: BoolArray
    row_item: IntArray
    row_outcome: npt.NDArray[np.uint8]
    overruled: int

    @property
    def valid(self) -> BoolArray:
        return self.trials > 0


def item_scores(rows: MetricRows, count: int, strict: BoolArray) -> ItemScores:
    """Reduce score rows to items.

    Args:
        rows: score rows of one metric in one arm.
        count: N, the planned items of the study.
        strict: (N,) items for which the metric is an accuracy: refused, unparsed and truncated answers without a score
            count as 0 there, because that is what the user got. Elsewhere they are missing.
    """
    value, outcome = rows.value.copy(), rows.outcome
    overruled = 0
    if strict.any() and _INCORRECT[outcome].any():
        strict_row = strict[rows.item]
        value[np.isnan(value) & _INCORRECT[outcome] & strict_row] = 0.0
        invented = (outcome == CODE[Outcome.UNPARSED]) & (value != 0) & strict_row
        overruled = int(invented.sum())
        value[invented] = 0.0
    valid = ~np.isnan(value) & ~_MISSING[outcome]
    at, x = rows.item[valid], value[valid]
    trials = np.bincount(at, minlength=count).astype(np.float64)
    if len(at) and trials.max() > 1:
        # Equal trials must give equal means to the last bit, in whatever order they were logged.
        order = np.lexsort((x, at))
        valid, at, x = np.flatnonzero(valid)[order], at[order], x[order]
    unread_row = _UNREAD[outcome[valid]] & (x == 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(at, weights=x, minlength=count) / trials
        variance = np.full(count, np.nan)
        if len(at) and trials.max() > 1:
            spread = np.bincount(at, weights=(x - mean[at]) ** 2, minlength=count)
            variance = np.where(trials > 1, spread / (trials - 1), np.nan)
        if unread_row.any():
            unread = np.bincount(at[unread_row], minlength=count) / trials
            read = np.bincount(at[~unread_row], minlength=count)
            read_mean = np.bincount(at[~unread_row], weights=x[~unread_row], minlength=count) / read
        else:
            unread, read_mean = np.where(trials > 0, 0.0, np.nan), mean
    planned = np.zeros(count, dtype=np.bool_)
    planned[rows.item] = True
    return ItemScores(mean, trials, variance, unread, read_mean, planned, rows.item, outcome, overruled)


def difference(flexible: ItemScores, strict: ItemScores, of: BoolArray) -> ItemScores:
    """What one extractor finds and another does not, as a metric of its own: the answers lost to their format. ``of`` (N,): the items it is for."""
    mean = np.where(of, flexible.mean - strict.mean, np.nan)
    rows = of[strict.row_item]
    trials = np.where(np.isnan(mean), 0.0, np.minimum(flexible.trials, strict.trials))
    nothing = np.full(len(mean), np.nan)
    return ItemScores(
        mean,
        trials,
        nothing,
        np.where(trials > 0, 0.0, np.nan),
        mean,
        (flexible.planned | strict.planned) & of,
        strict.row_item[rows],
        np.where(_MISSING[strict.row_outcome], strict.row_outcome, CODE[Outcome.SCORED]).astype(np.uint8)[rows],
        0,
    )


def item_values(values: FloatArray, planned: BoolArray) -> ItemScores:
    """One value per item that was made of its samples or of their texts, both (N,); NaN where there is none."""
    there = planned & ~np.isnan(values)
    rows = np.flatnonzero(planned)
    codes = np.where(there[rows], CODE[Outcome.SCORED], CODE[Outcome.ABSENT]).astype(np.uint8)
    mean = np.where(there, values, np.nan)
    return ItemScores(
        mean, there.astype(np.float64), np.full(len(mean), np.nan), np.where(there, 0.0, np.nan), mean, planned, rows, codes, 0
    )


def relabelled(codes: IntArray) -> IntArray:
    """Codes renumbered 0..G-1 in the same order, without gaps."""
    present = np.bincount(codes) > 0
    return (np.cumsum(present) - 1)[codes]


def outcome_counts(scores: ItemScores, members: BoolArray) -> dict[str, int]:
    """Outcomes of the planned items in ``members`` (N,), zeros left out; items without a row are absent."""
    counts = np.bincount(scores.row_outcome[members[scores.row_item]], minlength=len(OUTCOMES))
    counts[CODE[Outcome.ABSENT]] += int(np.count_nonzero(members & ~scores.planned))
    return {str(outcome): int(n) for outcome, n in zip(OUTCOMES, counts, strict=True) if n}
