"""Divergence between arms: how far the candidate's distribution is from the baseline's along the candidate's answers, and how it can be had.

Three ways, the best one that a pair allows:

- whole: both models show their distributions over one vocabulary. Exact at every token; drawn at temperature 1, the sums over answers are the
  Rao-Blackwellised estimate of the sequence KL.
- sampled: both tell the log-probabilities of the same tokens, and perhaps of the likeliest others (endpoints; vocabularies of different size).
- bytes: both tell how likely a text is, each by tokens of its own.

Rates are ratios of sums, nats of all answers over all their tokens (or bits over bytes), never means of ratios.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from math import log

import numpy as np

from aligntax.core.asks import Answer, Ask, Diverged, GenerateAsk, Generated, ScoreAsk, Scored
from aligntax.core.ids import digest
from aligntax.core.items import Roll
from aligntax.core.study import Study
from aligntax.core.words import printable
from aligntax.flow.collect import ArmPlan, Sitting, Tell, collect, request_id
from aligntax.models.asks import Exposes, Model, ScoresText
from aligntax.stats import divergence as estimators
from aligntax.store.answers import Answers

TOP = 20
"""Alternatives asked for at every place, for the lower bound: what vLLM tells unless it was started with more."""
_ROUNDING = 1e-4  # of the mass of alternatives, as endpoints tell them
_KEEP_EVERY = 2000


class Way(Enum):
    """How a divergence can be had."""

    WHOLE = auto()
    SAMPLED = auto()
    BYTES = auto()


@dataclass(frozen=True)
class Pair:
    """Two arms asked alike, how they can be compared, and the candidate's answers."""

    baseline: ArmPlan
    candidate: ArmPlan
    answers: Mapping[str, Answer]
    way: Way

    @property
    def name(self) -> str:
        return f"{self.baseline.name} | {self.candidate.name}"


@dataclass(frozen=True)
class Text:
    """One answer of the candidate, as each side scores it: one request, or the windows of a whole text. ``size`` in bytes of UTF-8.

    ``retold``: the tokens are not those that were drawn, but those of the answer's text, without its end.
    """

    sitting: Sitting
    baseline: tuple[ScoreAsk, ...]
    candidate: tuple[ScoreAsk, ...]
    size: int
    retold: bool = False


@dataclass(frozen=True)
class Along:
    """Sums along one answer: by name (docs/methods.md), over ``size`` tokens or bytes."""

    sitting: Sitting
    size: int
    sums: Mapping[str, float]
    retold: bool


def comparable(study: Study, arms: Sequence[ArmPlan], found: Mapping[str, Mapping[str, Answer]]) -> tuple[list[Pair], list[str]]:
    """The pairs of a study whose divergence can be had, and why the others' cannot."""
    plans = {arm.name: arm for arm in arms}
    how = {arm.name: arm.elicitation for arm in study.arms}
    pairs, notes = [], []
    for a, b in study.pairs:
        if how[a] != how[b]:
            continue  # asked differently: other prompts, so nothing to compare
        first, second = plans[a], plans[b]
        mute = next((printable(p.name) for p in (first, second) if not _scores(p.model)), None)
        blind = next((printable(p.name) for p in (first, second) if how[a] and how[a].template == "chat" and not p.model.renders), None)  # type: ignore[union-attr]
        if mute is not None:
            notes.append(f"{a} -> {b}: no divergence, {mute} gives no log-probabilities of given texts")
        elif blind is not None:
            notes.append(f"{a} -> {b}: no divergence, {blind} renders conversations itself; name its tokenizer with tokenizer=FOLDER")
        elif not _same_tokens(first, second):
            pairs.append(Pair(first, second, found[b], Way.BYTES))
        else:
            whole = isinstance(first.model, Exposes) and isinstance(second.model, Exposes)
            pairs.append(Pair(first, second, found[b], Way.WHOLE if whole else Way.SAMPLED))
    return pairs, notes


def calls(study: Study, arms: Sequence[ArmPlan]) -> int:
    """Requests that divergences take at most beside those of the arms; none where both models show their distributions."""
    pairs, _ = comparable(study, arms, {arm.name: {} for arm in arms})
    return sum(2 * len(pair.candidate.sittings) for pair in pairs if pair.way is not Way.WHOLE)


def _scores(model: Model) -> bool:
    return isinstance(model, ScoresText) and model.facts.get("log_probabilities") is not False


def _same_tokens(a: ArmPlan, b: ArmPlan) -> bool:
    """Whether everything asked has the same tokens for both, and both know them."""
    for x, y in zip(a.sittings, b.sittings, strict=True):
        for keys, others in zip(x.requests, y.requests, strict=True):
            sides = [_tokens(a.requests[key]) for key in keys], [_tokens(b.requests[key]) for key in others]
            if sides[0] != sides[1] or any(before is None for before, _ in sides[0]):
                return False
    return True


def _tokens(ask: Ask) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    return ask.prompt.tokens, ask.tokens if isinstance(ask, ScoreAsk) else ()


def along(pair: Pair, answers: Answers, tell: Tell) -> list[Along]:
    """Every answer of the candidate with the sums along it; what is known already is not asked or computed again.

    Raises:
        InputError: if vocabularies differ in size (``Way.WHOLE``), or an endpoint refuses.
        FloatingPointError: if a model gives log-probabilities that are no numbers.
    """
    texts = list(_texts(pair))
    if pair.way is Way.WHOLE:
        return _whole(pair, texts, answers, tell)
    top = TOP if pair.way is Way.SAMPLED else 0
    first = _scored(pair, pair.baseline, [t.baseline for t in texts], [t.sitting.trial for t in texts], top, answers, tell)
    second = _scored(pair, pair.candidate, [t.candidate for t in texts], [t.sitting.trial for t in texts], top, answers, tell)
    measure = _sampled if pair.way is Way.SAMPLED else _in_bytes
    return [measure(text, p, q) for text, q, p in zip(texts, first, second, strict=True) if p is not None and q is not None]


# -- texts ---------------------------------------------------------------------------------------------------------------------


def _texts(pair: Pair) -> Iterator[Text]:
    """What the candidate said, or the choice it found likeliest, or the given text; nothing where it failed, or said nothing.

    Texts that the two sides would not score alike are left out: by other tokens (``Way.SAMPLED``), or other bytes (``Way.BYTES``).
    """
    for sitting, twin in zip(pair.candidate.sittings, pair.baseline.sittings, strict=True):
        for want, keys, others in zip(sitting.question.wants, sitting.requests, twin.requests, strict=True):
            asks, theirs = [pair.candidate.requests[k] for k in keys], [pair.baseline.requests[k] for k in others]
            got = [pair.answers.get(k) for k in keys]
            said = got[0] if got else None
            if isinstance(want, Roll):
                text = Text(sitting, _only_scores(theirs), _only_scores(asks), len(want.text.encode()))
            elif isinstance(asks[0], GenerateAsk):
                if not isinstance(said, Generated):
                    continue
                if said.drawn and pair.way is not Way.BYTES:
                    drawn = ScoreAsk(asks[0].prompt, said.text, said.drawn)
                    yield Text(sitting, (drawn,), (drawn,), len(said.text.encode()))
                    continue
                if not said.text.strip():
                    continue
                ask = pair.candidate.model.continuation(asks[0].prompt, said.text)
                other = pair.baseline.model.continuation(theirs[0].prompt, said.text)
                text = Text(sitting, (other,), (ask,), len(ask.text.encode()), retold=True)
            else:
                scored = [g.total for g in got if isinstance(g, Scored)]
                if len(scored) < len(got):
                    continue
                best = max(range(len(scored)), key=scored.__getitem__)
                own, their = _only_scores(asks)[best], _only_scores(theirs)[best]
                text = Text(sitting, (their,), (own,), len(own.text.encode()))
            if _alike(text, pair.way):
                yield text


def _only_scores(asks: Sequence[object]) -> tuple[ScoreAsk, ...]:
    return tuple(ask for ask in asks if isinstance(ask, ScoreAsk))


def _alike(text: Text, way: Way) -> bool:
    """Whether both sides score the same: tokens after the same tokens, or at least the same bytes."""
    if way is Way.BYTES:
        return text.size > 0 and "".join(a.text for a in text.baseline) == "".join(a.text for a in text.candidate)
    sides = [[(a.prompt.tokens, a.tokens) for a in side] for side in (text.baseline, text.candidate)]
    return sides[0] == sides[1] and all(before and own for before, own in sides[0])


# -- whole distributions ---------------------------------------------------------------------------------------------------------


def _whole(pair: Pair, texts: Sequence[Text], answers: Answers, tell: Tell) -> list[Along]:
    models = digest([dict(pair.baseline.model.identity), dict(pair.candidate.model.identity)])
    keys = [[digest(["diverged", models, ask.key]) for ask in text.candidate] for text in texts]
    wanted = {key: ask for of, text in zip(keys, texts, strict=True) for key, ask in zip(of, text.candidate, strict=True)}
    known: dict[str, Answer] = answers.known(wanted)
    tell(pair.name, len(known), len(wanted), 0)
    missing = {key: ask for key, ask in wanted.items() if key not in known}
    fresh: list[tuple[str, Answer]] = []
    tokens = 0
    try:
        for key, told in _computed(pair.baseline.model, pair.candidate.model, missing):
            fresh.append((key, told))
            known[key] = told
            tokens += 2 * (len(missing[key].prompt.tokens or ()) + told.tokens)
            tell(pair.name, len(known), len(wanted), tokens)
            if len(fresh) >= _KEEP_EVERY:
                answers.keep(fresh)
                fresh = []
    finally:
        answers.keep(fresh)
    out = []
    for of, text in zip(keys, texts, strict=True):
        parts = [one for key in of if isinstance(one := known.get(key), Diverged)]
        if parts and len(parts) == len(of):
            names = ("kl_forward", "kl_reverse", "js", "entropy_baseline", "entropy_candidate", "agree")
            out.append(
                Along(
                    text.sitting,
                    sum(p.tokens for p in parts),
                    {name: float(sum(getattr(p, name) for p in parts)) for name in names},
                    text.retold,
                )
            )
    return out


def _computed(a: Model, b: Model, missing: Mapping[str, ScoreAsk]) -> Iterator[tuple[str, Diverged]]:
    if not missing or not (isinstance(a, Exposes) and isinstance(b, Exposes)):
        return
    from aligntax.models.divergence import divergences
    from aligntax.models.scoring import Query

    keys = list(missing)
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


# -- log-probabilities of given texts -----------------------------------------------------------------------------------------------


def _scored(
    pair: Pair, arm: ArmPlan, texts: Sequence[Sequence[ScoreAsk]], trials: Sequence[int], top: int, answers: Answers, tell: Tell
) -> list[list[Scored] | None]:
    """Every text as one side scores it; None where it could not."""
    asked = [[replace(ask, top=top) for ask in text] for text in texts]
    keys = [[request_id(arm.model, ask, trial) for ask in text] for text, trial in zip(asked, trials, strict=True)]
    requests = {key: ask for of, text in zip(keys, asked, strict=True) for key, ask in zip(of, text, strict=True)}
    found = collect(ArmPlan(f"{pair.name}: {arm.name}", arm.model, requests=dict(requests)), answers, tell) if requests else {}
    out: list[list[Scored] | None] = []
    for of in keys:
        told = [one for key in of if isinstance(one := found.get(key), Scored)]
        out.append(told if told and len(told) == len(of) else None)
    return out


def _sampled(text: Text, p: Sequence[Scored], q: Sequence[Scored]) -> Along:
    """k1, k2 and k3 of KL(candidate || baseline), and the bound where both tell alternatives; p is the candidate."""
    sums: dict[str, float] = defaultdict(float)
    size = 0
    for one, two in zip(p, q, strict=True):
        size += len(one.logprobs)
        if min(one.logprobs) == -np.inf:
            sums["k1"] = sums["k2"] = sums["k3"] = np.nan  # nothing that the candidate could have drawn
            continue
        for name in ("k1", "k2", "k3"):
            sums[name] += float(getattr(estimators, name)(one.logprobs, two.logprobs).sum())
    if all(one.tops for one in (*p, *q)):
        tops = [top for one in p for top in one.tops], [top for one in q for top in one.tops]
        try:
            sums["at_least"] = float(estimators.kl_at_least(*estimators.known_to_both(*tops), rounding=_ROUNDING).sum())
        except ValueError:  # probabilities that add up to more than 1: no distribution, and no bound
            sums["at_least"] = np.nan
    return Along(text.sitting, size, dict(sums), text.retold)


def _in_bytes(text: Text, p: Sequence[Scored], q: Sequence[Scored]) -> Along:
    bits = (sum(one.total for one in p) - sum(one.total for one in q)) / log(2)
    return Along(text.sitting, text.size, {"bits": bits}, text.retold)
