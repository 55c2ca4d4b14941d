"""Entries of the kind ``divergence``, from sums along the candidate's answers (``flow.diverge``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from aligntax.core.asks import GenerateAsk
from aligntax.core.items import Choose, Roll
from aligntax.core.kinds import BOUND, BYTES, FORWARD, K1, K3, REVERSE, SHANNON
from aligntax.core.ledger import Detail, Entry, Method
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.diverge import TOP, Along, Pair, Way
from aligntax.flow.scores import FloatArray, IntArray, relabelled
from aligntax.stats.divergence import per_token
from aligntax.stats.paired import paired_change

GIVEN = "the given texts"
_EXACT = "exact over the vocabulary at every token"


@dataclass(frozen=True)
class _Measure:
    """One measure: its metric, the sums it is made of, its unit, whether it can be negative, how it was estimated, further rates."""

    metric: str
    of: str
    unit: str
    signed: bool
    estimator: str
    beside: tuple[str, ...] = ()


_BESIDE = ("entropy_baseline", "entropy_candidate")
_MEASURES = {
    Way.WHOLE: (
        _Measure(FORWARD, "kl_forward", "nats/token", False, _EXACT, _BESIDE),
        _Measure(REVERSE, "kl_reverse", "nats/token", False, _EXACT, _BESIDE),
        _Measure(SHANNON, "js", "nats/token", False, _EXACT, _BESIDE),
    ),
    Way.SAMPLED: (
        _Measure(K1, "k1", "nats/token", True, "sampled estimator k1, log p/q of each token", ("k2",)),
        _Measure(K3, "k3", "nats/token", False, "sampled estimator k3, q/p - 1 - log q/p of each token", ("k2",)),
        _Measure(BOUND, "at_least", "nats/token", False, f"a lower bound, from those of the {TOP} likeliest tokens that both sides tell"),
    ),
    Way.BYTES: (
        _Measure(
            BYTES, "bits", "bits/byte", True, "different tokenizers or unknown tokens: whole texts are compared, per byte of the answer"
        ),
    ),
}


def divergence_entries(pair: Pair, found: Sequence[Along], analysis: Analysis, how: Elicitation | None) -> list[Entry]:
    """One entry per measure and task."""
    out = []
    for measure in _MEASURES[pair.way]:
        for task in sorted({sitting.task for sitting in pair.candidate.sittings}):
            of = [one for one in found if one.sitting.task == task and measure.of in one.sums]
            if of:
                out += _entry(pair, task, measure, of, analysis, how)
    return out


def _entry(pair: Pair, task: str, measure: _Measure, found: Sequence[Along], analysis: Analysis, how: Elicitation | None) -> list[Entry]:
    """The entry; none where nothing finite is left."""
    of = [one for one in found if np.isfinite(one.sums[measure.of])]
    if not of:
        return []
    planned = sum(sitting.task == task for sitting in pair.candidate.sittings)
    totals, lengths = _column(of, measure.of), np.array([one.size for one in of], dtype=np.float64)
    codes, clusters = _clusters(of, analysis)
    rate = per_token(totals, lengths).value
    # Linearised: the mean of these is the ratio, and their spread that of the ratio's estimate.
    estimate = paired_change(rate + (totals - rate * lengths) / lengths.mean(), codes, binary=False, trials=False, scale=None)
    low, high = (None, None) if estimate.test is None else estimate.test.interval(analysis.level)
    drawn, temperature = _drawn(pair, task)
    details: dict[str, Detail] = {measure.unit.split("/")[1] + "s": int(lengths.sum()), "per_answer": float(totals.mean())}
    details |= {name: _rate(of, name, lengths) for name in measure.beside}
    if pair.way is Way.WHOLE:
        details["top1_agreement"] = _rate(of, "agree", lengths)
    if temperature is not None:
        details["temperature"] = temperature
    if estimate.clusters is not None:
        details["df"] = estimate.clusters.df
    counts = {"scored": len(of), "infinite": len(found) - len(of), "absent": max(0, planned - len(found))}
    return [
        Entry(
            kind="divergence", task=task, metric=measure.metric, unit=measure.unit, higher_is_better=None, baseline=pair.baseline.name,
            candidate=pair.candidate.name, n=len(of), clusters=clusters, baseline_value=None, candidate_value=None, change=rate, cost=None,
            se=estimate.se, level=analysis.level, ci_low=low if low is None or measure.signed else max(0.0, low), ci_high=high, p_value=None,
            p_adjusted=None, method=cast("Method", estimate.method), margin=None, verdict=None,
            outcomes={arm.name: {k: n for k, n in counts.items() if n} for arm in (pair.baseline, pair.candidate)},
            details=details, checks=_words(pair, measure, found, drawn, temperature, how),
        )
    ]  # fmt: skip


def _words(
    pair: Pair, measure: _Measure, found: Sequence[Along], drawn: str, temperature: float | None, how: Elicitation | None
) -> tuple[str, ...]:
    """What was estimated, along which texts, and what it is not."""
    infinite = sum(not np.isfinite(one.sums[measure.of]) for one in found)
    retold = any(one.retold for one in found)
    template = "" if how is None or drawn == GIVEN else f", {how.template} template"  # whole texts are never put into a template
    unit = measure.unit.split("/")[1]
    words = [f"along {drawn}{template}; {measure.estimator}; ratio of sums over {unit}s"]
    if retold:
        words.append("tokens are those of the answers' texts, not as they were drawn; where an answer ends is not compared")
    if measure.metric == FORWARD and temperature == 1.0 and not retold:
        words.append("the Rao-Blackwellised estimate of KL of whole answers, over their tokens")
    if pair.way is not Way.WHOLE and measure.metric != BOUND and temperature != 1.0:
        words.append(
            "no estimate of KL: that takes answers drawn at temperature 1; this is how much likelier the candidate finds these texts"
        )
    if measure.metric == BOUND:
        words.append("KL can be any number above it")
    if pair.way is Way.BYTES:
        words.append("each model's own tokenization of a text is one of several: a difference of two lower bounds")
    if infinite:
        words.append(f"{infinite} answers that one side finds impossible are left out: there the divergence is infinite")
    return tuple(words)


def _drawn(pair: Pair, task: str) -> tuple[str, float | None]:
    """Where a task's texts come from, in words, and the temperature if they were drawn."""
    sitting = next(s for s in pair.candidate.sittings if s.task == task)
    want = sitting.question.wants[0]
    if isinstance(want, Roll):
        return GIVEN, None
    if isinstance(want, Choose):
        return "the choices that the candidate finds likeliest", None
    ask = pair.candidate.requests[sitting.requests[0][0]]
    if not isinstance(ask, GenerateAsk):
        return "the candidate's answers", None
    if ask.temperature == 0:
        return "the candidate's answers, its likeliest (temperature 0)", 0.0
    cut = "" if ask.top_p == 1 else f", top-p {ask.top_p:g}"
    drawn = f"the candidate's answers, drawn at temperature {ask.temperature:g}{cut}"
    return drawn, ask.temperature if ask.top_p == 1 else None


def _rate(of: Sequence[Along], name: str, lengths: FloatArray) -> float | None:
    rate = float(_column(of, name).sum() / lengths.sum())
    return rate if np.isfinite(rate) else None


def _column(of: Sequence[Along], name: str) -> FloatArray:
    return np.array([one.sums[name] for one in of], dtype=np.float64)


def _clusters(of: Sequence[Along], analysis: Analysis) -> tuple[IntArray | None, int | None]:
    """Cluster codes of the answers: of trials of one item at least, of what the analysis or the task names at most."""
    labels: list[str | None] = []
    for one in of:
        question = one.sitting.question
        labels.append(question.cluster if analysis.cluster is None else question.labels.get(analysis.cluster))
    if any(label is None for label in labels):
        items: list[str | None] = [one.sitting.question.item for one in of]
        if len(set(items)) == len(items):
            return None, None
        labels = items
    names = sorted({label for label in labels if label is not None})
    code = {name: k for k, name in enumerate(names)}
    return relabelled(np.array([code[label] for label in labels if label is not None], dtype=np.int64)), len(names)
