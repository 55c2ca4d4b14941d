"""Divergence between arms: how far the candidate's distribution is from the baseline's at every token of the candidate's answers.

Estimand: along the candidate's answers as it gave them (at temperature 1 that is the Rao-Blackwellised estimate of KL(candidate || baseline);
at temperature 0 it is the divergence along its likeliest answers, and is named so). Exact over the vocabulary at every token. Per token is the
ratio of sums, nats of all answers over their tokens, not a mean of ratios.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from aligntax.core.asks import Answer, Diverged, GenerateAsk, Generated, ScoreAsk, Scored
from aligntax.core.ids import digest
from aligntax.core.ledger import Detail, Entry, Method
from aligntax.core.study import Analysis, Study
from aligntax.flow.collect import ArmPlan, Sitting, Tell
from aligntax.flow.scores import FloatArray, IntArray, relabelled
from aligntax.models.asks import Exposes, Model
from aligntax.stats.divergence import per_token
from aligntax.stats.paired import paired_change
from aligntax.store.answers import Answers

FORWARD, REVERSE, SHANNON = "kl(candidate||baseline)", "kl(baseline||candidate)", "js"
_KEEP_EVERY = 2000


@dataclass(frozen=True)
class Pair:
    """Two arms whose models show their distributions, asked alike: the plans, and the candidate's answers."""

    baseline: ArmPlan
    candidate: ArmPlan
    answers: Mapping[str, Answer]

    @property
    def name(self) -> str:
        return f"{self.baseline.name} | {self.candidate.name}"


def comparable(study: Study, arms: Sequence[ArmPlan], found: Mapping[str, Mapping[str, Answer]]) -> tuple[list[Pair], list[str]]:
    """The pairs of a study whose divergence can be had, and why the others' cannot."""
    plans = {arm.name: arm for arm in arms}
    how = {arm.name: arm.elicitation for arm in study.arms}
    pairs, notes = [], []
    for a, b in study.pairs:
        first, second = plans[a], plans[b]
        if how[a] != how[b]:
            continue  # asked differently: other prompts, so nothing to compare token by token
        if not (isinstance(first.model, Exposes) and isinstance(second.model, Exposes)):
            notes.append(f"{a} -> {b}: no divergence, an endpoint shows no whole distributions")
        elif not _same_tokens(first, second):
            notes.append(f"{a} -> {b}: no divergence, their tokenizers differ; compare bits per byte")
        else:
            pairs.append(Pair(first, second, found[b]))
    return pairs, notes


def _same_tokens(a: ArmPlan, b: ArmPlan) -> bool:
    return all(x.prompt == y.prompt for x, y in zip(a.sittings, b.sittings, strict=True))


def diverged(pair: Pair, answers: Answers, tell: Tell) -> list[tuple[Sitting, Diverged]]:
    """Every answer of the candidate with the divergence along it; what is known already is not computed again.

    Raises:
        InputError: if the vocabularies differ in size.
    """
    texts = [(sitting, ask) for sitting in pair.candidate.sittings for ask in _texts(pair, sitting)]
    models = digest([dict(pair.baseline.model.identity), dict(pair.candidate.model.identity)])
    keys = [digest(["diverged", models, ask.key]) for _, ask in texts]
    known: dict[str, Answer] = answers.known(keys)
    tell(pair.name, len(known), len(keys), 0)
    missing = {key: ask for key, (_, ask) in zip(keys, texts, strict=True) if key not in known}
    fresh: list[tuple[str, Answer]] = []
    tokens = 0
    try:
        for key, told in _computed(pair.baseline.model, pair.candidate.model, missing):
            fresh.append((key, told))
            known[key] = told
            tokens += 2 * (len(missing[key].prompt.tokens or ()) + told.tokens)
            tell(pair.name, len(known), len(keys), tokens)
            if len(fresh) >= _KEEP_EVERY:
                answers.keep(fresh)
                fresh = []
    finally:
        answers.keep(fresh)
    return [(s, one) for key, (s, _) in zip(keys, texts, strict=True) if isinstance(one := known.get(key), Diverged)]


def _texts(pair: Pair, sitting: Sitting) -> Iterator[ScoreAsk]:
    """What the candidate said: its text, or the choice it found likeliest. Answers of no tokens, and failures, have no divergence."""
    for keys in sitting.requests:
        asks = [pair.candidate.requests[key] for key in keys]
        got = [pair.answers.get(key) for key in keys]
        if isinstance(asks[0], GenerateAsk):
            said = got[0]
            if isinstance(said, Generated) and said.text.strip():
                yield pair.candidate.model.continuation(asks[0].prompt, said.text)
            continue
        scored = [(a, g) for a, g in zip(asks, got, strict=True) if isinstance(a, ScoreAsk) and isinstance(g, Scored)]
        if len(scored) == len(asks):
            yield max(scored, key=lambda one: one[1].total)[0]


def _computed(a: Model, b: Model, missing: Mapping[str, ScoreAsk]) -> Iterator[tuple[str, Diverged]]:
    if not missing or not (isinstance(a, Exposes) and isinstance(b, Exposes)):
        return
    from aligntax.models.divergence import divergences
    from aligntax.models.scoring import Query

    keys = [key for key, ask in missing.items() if ask.tokens and ask.prompt.tokens]
    queries = [Query(missing[key].prompt.tokens or (), missing[key].tokens or ()) for key in keys]
    for at, d in divergences(a.distributions(), b.distributions(), queries):
        yield (
            keys[at],
            Diverged(
                tokens=len(d.kl_ab),
                kl_forward=float(d.kl_ba.sum()),
                kl_reverse=float(d.kl_ab.sum()),
                js=float(d.js.sum()),
                entropy_baseline=float(d.entropy_a.sum()),
                entropy_candidate=float(d.entropy_b.sum()),
                agree=int(d.agree.sum()),
            ),
        )


# -- entries -------------------------------------------------------------------------------------------------------------------


def entries(pair: Pair, found: Sequence[tuple[Sitting, Diverged]], analysis: Analysis, words: str) -> list[Entry]:
    """One entry per measure and task; ``words`` says how the answers were drawn."""
    out = []
    for metric in (FORWARD, REVERSE, SHANNON):
        for task in sorted({sitting.task for sitting in pair.candidate.sittings}):
            of = [(sitting, one) for sitting, one in found if sitting.task == task]
            planned = sum(sitting.task == task for sitting in pair.candidate.sittings)
            if of:
                out.append(_entry(pair, task, metric, of, planned, analysis, words))
    return out


def _entry(
    pair: Pair, task: str, metric: str, of: Sequence[tuple[Sitting, Diverged]], planned: int, analysis: Analysis, words: str
) -> Entry:
    part = {FORWARD: "kl_forward", REVERSE: "kl_reverse", SHANNON: "js"}[metric]
    totals, lengths = _column(of, part), _column(of, "tokens")
    codes, clusters = _clusters(of, analysis)
    rate = per_token(totals, lengths).value
    # Linearised: the mean of these is the ratio, and their spread that of the ratio's estimate.
    estimate = paired_change(rate + (totals - rate * lengths) / lengths.mean(), codes, binary=False, trials=False, scale=None)
    low, high = (None, None) if estimate.test is None else estimate.test.interval(analysis.level)
    details: dict[str, Detail] = {
        "tokens": int(lengths.sum()),
        "per_answer": float(totals.mean()),
        "top1_agreement": float(_column(of, "agree").sum() / lengths.sum()),
        "entropy_baseline": float(_column(of, "entropy_baseline").sum() / lengths.sum()),
        "entropy_candidate": float(_column(of, "entropy_candidate").sum() / lengths.sum()),
    }
    if estimate.clusters is not None:
        details["df"] = estimate.clusters.df
    return Entry(
        kind="divergence", task=task, metric=metric, unit="nats/token", higher_is_better=None, baseline=pair.baseline.name,
        candidate=pair.candidate.name, n=len(of), clusters=clusters, baseline_value=None, candidate_value=None, change=rate, cost=None,
        se=estimate.se, level=analysis.level, ci_low=None if low is None else max(0.0, low), ci_high=high, p_value=None, p_adjusted=None,
        method=cast("Method", estimate.method), margin=None, verdict=None,
        outcomes={arm.name: {"scored": len(of), **({"absent": planned - len(of)} if planned > len(of) else {})} for arm in (pair.baseline, pair.candidate)},
        details=details, checks=(words,),
    )  # fmt: skip


def _column(of: Sequence[tuple[Sitting, Diverged]], name: str) -> FloatArray:
    return np.array([getattr(one, name) for _, one in of], dtype=np.float64)


def _clusters(of: Sequence[tuple[Sitting, Diverged]], analysis: Analysis) -> tuple[IntArray | None, int | None]:
    """Cluster codes of the answers: of trials of one item at least, of what the analysis or the task names at most."""
    labels: list[Any] = []
    for sitting, _ in of:
        question = sitting.question
        label = question.cluster if analysis.cluster is None else question.labels.get(analysis.cluster)
        labels.append(label)
    if any(label is None for label in labels):
        items = [sitting.question.item for sitting, _ in of]
        if len(set(items)) == len(items):
            return None, None
        labels = items
    names = sorted(set(labels))
    code = {name: k for k, name in enumerate(names)}
    return relabelled(np.array([code[label] for label in labels], dtype=np.int64)), len(names)
