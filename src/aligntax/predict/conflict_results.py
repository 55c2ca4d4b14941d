"""What is found of conflicts between safety objectives, as plain values. Imports no torch.

Two objectives are directions; rho is their cosine, the partial cosine what it becomes where capabilities are kept as they are. Below 0 a step towards the
one objective is a step away from the other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any, Literal

from aligntax.core.words import safe_json
from aligntax.predict.results import ChosenBy, Kind, Settings, plain
from aligntax.stats.directions import CorrectedCosine, Jackknifed

SCHEMA = 1
NEGLIGIBLE = 0.1
"""Cosines and changes of cosines that are no larger count as none, where their whole interval lies within."""
Outcome = Literal["resolved", "mediated", "attenuated", "unchanged", "worsened", "induced", "none", "not shown", "not identified"]
_SETTINGS = ("template", "prompts", "items", "layer", "level", "seed", "batch_tokens", "answers", "direction")


@dataclass(frozen=True)
class Preserved:
    """Two objectives where one capability is kept as it is, or all of them.

    Attributes:
        task: the capability; None for all of them.
        partial: cosine between what is left of both directions; None where not identified.
        change: partial less rho; None where not identified.
        p_holm: that the change is 0, for one capability by Holm over all of them; None where not identified.
        taxes: shares of the squared lengths of both directions in what is kept; None where not identified.
        clipped: directions of capabilities that nearly repeat others.
        reason: why it is not identified; None where it is.
    """

    task: str | None
    partial: Jackknifed | None
    change: Jackknifed | None
    p_holm: float | None
    taxes: tuple[float, float] | None
    clipped: int
    reason: str | None


@dataclass(frozen=True)
class Pair:
    """Two objectives set against each other.

    Attributes:
        first, second: their names.
        whole: their cosine, with nothing kept.
        together: with all capabilities kept; None where no task has a direction.
        each: with one capability kept at a time, in the order of the tasks.
        common: prompts that both hold.
    """

    first: str
    second: str
    whole: CorrectedCosine
    together: Preserved | None
    each: tuple[Preserved, ...]
    common: int

    @property
    def rho(self) -> Jackknifed | None:
        """Their cosine with its limits; None where not identified."""
        return self.whole.rho


@dataclass(frozen=True)
class ReadObjective:
    """An objective as it was read.

    Attributes:
        name: for people.
        made_of: what its direction is made of.
        unsafe, safe: prompts behind the direction; ``safe`` is 0 where it is made of answers.
        reliability, z: of the direction.
    """

    name: str
    made_of: Kind
    unsafe: int
    safe: int
    reliability: float
    z: float


@dataclass(frozen=True)
class ReadTask:
    """A capability: its name, the items behind its direction, and that direction's reliability."""

    task: str
    items: int
    reliability: float


@dataclass(frozen=True)
class Conflicts:
    """All of it.

    Attributes:
        model, template: what was asked.
        identity: content of weights and tokenizer.
        objectives: in the order given.
        tasks: capabilities whose directions can be told from noise.
        layer: that was read. chosen_by: as in ``TaxPrediction``.
        dimension: of a state.
        pairs: every two objectives.
        settings: how.
        notes: what people should know.
    """

    model: str
    identity: Mapping[str, Any]
    template: str
    objectives: tuple[ReadObjective, ...]
    tasks: tuple[ReadTask, ...]
    layer: int
    chosen_by: ChosenBy
    dimension: int
    pairs: tuple[Pair, ...]
    settings: Settings
    notes: tuple[str, ...]

    @property
    def alpha(self) -> float:
        """What an adjusted p may be at most."""
        return 1 - self.settings.level


def outcome(found: Conflicts, pair: Pair, kept: Preserved) -> Outcome:
    """What keeping capabilities does to a conflict, as far as intervals and the adjusted p of the change show it (docs/predict.md has the conditions)."""
    rho, partial, change = pair.rho, kept.partial, kept.change
    if rho is None or partial is None or change is None or kept.p_holm is None:
        return "not identified"
    conflict, changed = rho.high < 0, kept.p_holm <= found.alpha
    if conflict and changed and change.estimate > 0:
        return "resolved" if partial.low > 0 else "mediated" if _within(partial) else "attenuated"
    if conflict and changed:
        return "worsened"
    if conflict and _within(change):
        return "unchanged"
    if not conflict and changed and partial.high < 0:
        return "induced"
    return "none" if min(rho.low, partial.low) > -NEGLIGIBLE else "not shown"


def _within(value: Jackknifed) -> bool:
    return max(-value.low, value.high) < NEGLIGIBLE


@dataclass(frozen=True)
class Level:
    """How much of either objective can be had at least, as shares of what a push for one alone reaches: without and with all capabilities kept."""

    before: float
    after: float


def level_of(pair: Pair) -> Level | None:
    """What keeping all capabilities costs the worse-off of two objectives; None where not identified.

    Estimates, without limits: from rho, the partial cosine and both taxes, cut to what directions can have. Keeping never raises the level.
    """
    kept = pair.together
    if pair.rho is None or kept is None or kept.partial is None or kept.taxes is None:
        return None
    left = [1 - min(1.0, max(0.0, tax)) for tax in kept.taxes]
    before = _nearest(1.0, 1.0, _cosine(pair.rho))
    return Level(before, min(before, _nearest(left[0], left[1], _cosine(kept.partial) * sqrt(left[0] * left[1]))))


def _cosine(value: Jackknifed) -> float:
    return min(1.0, max(-1.0, value.estimate))


def _nearest(first: float, second: float, product: float) -> float:
    """Distance from 0 to the segment between two directions, from their squared lengths and their product (``stats.coupling.kept``)."""
    step = first + second - 2 * product
    at = min(max((first - product) / step, 0.0), 1.0) if step > 0 else 0.0
    return sqrt(max(0.0, (1 - at) ** 2 * first + at**2 * second + 2 * at * (1 - at) * product))


def as_json(found: Conflicts) -> str:
    """The text of ``prediction.json``: every number, null where there is none."""
    whole = {"schema": SCHEMA, "kind": "conflicts", **asdict(found)}
    whole["settings"] = {name: whole["settings"][name] for name in _SETTINGS}
    for told, pair in zip(whole["pairs"], found.pairs, strict=True):
        level = level_of(pair)
        told["level"] = None if level is None else asdict(level)
        if pair.together is not None:
            told["together"]["outcome"] = outcome(found, pair, pair.together)
        for one, kept in zip(told["each"], pair.each, strict=True):
            one["outcome"] = outcome(found, pair, kept)
    return safe_json(json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
