"""Whether a base model behaves as its directions say: the phase sweep of ``predict.sweep`` for the tasks most at risk (imports torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import degrees
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable
from aligntax.predict.gather import Sums, Tell, example
from aligntax.predict.inputs import Request, groups_of
from aligntax.predict.results import BehaviourAngle, Settings
from aligntax.predict.sweep import SweepResult, angles, represented, sweep
from aligntax.stats.directions import BlockSample, cross_fitted
from aligntax.stats.phases import MIN_PROMPTS

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

PROMPTS = 64
"""Of the objective, and of a task: every one is answered at 72 shifts."""


def behaviour_angles(
    model: HFModel,
    directions: Mapping[str, BlockSample],
    capabilities: Mapping[str, Sums],
    at: int,
    unsafe: Sequence[Request],
    items: Mapping[str, Sequence[Request]],
    layer: int,
    want: Settings,
    tell: Tell,
    notes: list[str],
) -> tuple[BehaviourAngle, ...]:
    """Angles of safety and tasks as answers show them, beside what directions say.

    Args:
        model: the base model.
        directions: of safety, by name.
        capabilities: of tasks, those to be swept.
        at: the layer's place in the sums.
        unsafe: prompts with wanted answers, none of which is behind a direction.
        items: of the tasks, none of which is behind a direction.
        layer: where states are shifted.
        want: settings.
        tell: progress.
        notes: where to say what is missing.
    """
    asked = _alone(unsafe)
    if len(asked) < MIN_PROMPTS:
        notes.append(
            f"behaviour was not measured: {items_text(len(asked), 'unsafe prompt')} that no direction was made from, and {MIN_PROMPTS} are needed"
        )
        return ()
    told = [
        (*example(model, one, str(one.wanted)), None if one.unwanted is None else example(model, one, one.unwanted)[1]) for one in asked
    ]
    own = {name: [example(model, one, str(one.wanted)) for one in _alone(items[name])] for name in capabilities}
    found: list[BehaviourAngle] = []
    for towards, safety in directions.items():
        samples = [sums.sample(at) for sums in capabilities.values()]
        fits = [cross_fitted(safety, [one], level=want.level) for one in samples]
        try:
            swept = sweep(
                model.local.model,
                layer,
                _mean(safety),
                np.stack([_mean(one) for one in samples]),
                told,
                own,
                head=model.scorer.head,
                batch_tokens=want.batch_tokens,
                tell=tell,
            )
            shown = angles(swept, [one for fit in fits for one in represented(fit)], level=want.level)
        except InputError as error:
            notes.append(f"behaviour was not measured for {printable(towards)}: {error}")
            continue
        found += [_plain(name, towards, one) for name, one in zip(capabilities, shown, strict=True)]
    return tuple(found)


def _alone(rows: Sequence[Request]) -> list[Request]:
    """One of every group."""
    return [of[0] for of in groups_of(rows).values()][:PROMPTS]


def _mean(sample: BlockSample) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.asarray(sample.weights @ sample.means / sample.weights.sum())


def _plain(task: str, towards: str, one: SweepResult) -> BehaviourAngle:
    def turned(radians: float | None) -> float | None:
        return None if radians is None else degrees(radians)

    said, agreed = one.behaviour, one.agreement
    return BehaviourAngle(
        task, towards, one.prompts, one.items, max(one.budgets) / one.length, turned(said.angle), turned(said.low), turned(said.high), turned(one.represented),
        turned(one.expected), turned(one.linear), None if agreed is None else degrees(agreed.difference), None if agreed is None else degrees(agreed.low),
        None if agreed is None else degrees(agreed.high), None if agreed is None else agreed.p, one.reasons,
    )  # fmt: skip
