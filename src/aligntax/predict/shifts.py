"""Where a trained model's own shift of the hidden states lies on the theory's frontier (imports torch).

The shift of a stage is the mean difference of its states and the base's at the same token of the same prompts, at the layer of the prediction: theory's delta. Its
coordinates are theory's: how much of its length goes along what tasks need (the root of its tax rate), and its cosine with the safety direction (the share of the
safety that a shift of its size could reach). Both are corrected for noise; the prompts are none of those behind the directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.predict.gather import Sums, Tell, blocks_of, prompt_tokens, read_direction, read_gradients, read_states, sides_of, task_parts
from aligntax.predict.inputs import Capability, Objective, Request, divided
from aligntax.predict.metrics import MEAN_STATES
from aligntax.predict.results import ShiftPoint, TaxPrediction
from aligntax.stats.directions import BlockSample, corrected_cosine, cross_fitted

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel


def shift_points(
    base: HFModel, stages: Iterable[tuple[str, HFModel]], objective: Objective, tasks: Sequence[Capability], made: TaxPrediction, tell: Tell
) -> list[ShiftPoint]:
    """Of every stage, its shift on unsafe prompts and on tasks' prompts.

    Args:
        base: the model that the prediction was made from.
        stages: by name, models that were trained from it; one is read before the next is taken.
        objective: as the prediction had it.
        tasks: as the prediction had them.
        made: the prediction.
        tell: progress.

    Raises:
        InputError: if a stage's states are not the base's: another depth, width or tokens.
    """
    want = made.settings
    objective, tasks, _ = divided(objective, tasks, want.seed)
    parts = {name: part for name, part in task_parts(tasks, want, []).items() if name in made.tasks}
    others, sides = sides_of(objective, want, [])
    shifted: dict[str, list[Request]] = {} if others is None else {"unsafe prompts": list(others["unsafe"])}
    shifted["prompts of tasks"] = [one for _, part in parts.values() for one in part]
    named = {f"task {name}": (rows, "task") for name, (rows, _) in parts.items()}
    count, blocks = blocks_of(
        {what: (rows, "safety") for what, rows in sides.items()}
        | named
        | {where: (rows, "safety" if where.startswith("unsafe") else "task") for where, rows in shifted.items()}
    )
    layer = [made.layer]
    towards = {"safety": read_direction(base, objective, sides, blocks, count, layer, want, tell, made.made_of).at(0)}
    if made.made_of == "answers":
        towards[MEAN_STATES] = read_direction(base, objective, sides, blocks, count, layer, want, tell, "states").at(0)
    needs = [
        read_gradients(base, parts[name][0], Sums(blocks[f"task {name}"], count), layer, want, partial(tell, name)).sample(0)
        for name in made.tasks
        if name in parts
    ]

    def states(model: HFModel, name: str, where: str) -> Sums:
        found = Sums(blocks[where], count)
        read_states(model, shifted[where], [found], layer, want, partial(tell, f"{name}: {where}"))
        return found

    before = {where: states(base, "base", where) for where in shifted}
    out = []
    for name, stage in stages:
        for where, rows in shifted.items():
            _check_alike(base, stage, name, rows)
            one, two = before[where], states(stage, name, where)
            size = float(np.linalg.norm(two.mean(0) - one.mean(0)) / np.linalg.norm(one.mean(0)))
            delta = BlockSample(two.means(0) - one.means(0), one.counts)
            out += [_point(name, where, what, len(rows), size, delta, aim, needs, want.level) for what, aim in towards.items()]
    return out


def _point(
    stage: str,
    where: str,
    what: str,
    prompts: int,
    size: float,
    delta: BlockSample,
    safety: BlockSample,
    needs: Sequence[BlockSample],
    level: float,
) -> ShiftPoint:
    try:
        along, towards = cross_fitted(delta, needs, level=level), corrected_cosine(delta, safety, level=level)
    except ValueError as error:
        return ShiftPoint(stage, where, what, prompts, size, None, None, None, None, None, None, str(error))
    reason = along.reason or towards.reason
    if reason is not None or towards.rho is None:
        return ShiftPoint(stage, where, what, prompts, size, None, None, None, None, None, None, reason)
    rho = towards.rho
    return ShiftPoint(stage, where, what, prompts, size, along.estimate, along.low, along.high, rho.estimate, rho.low, rho.high, None)


def _check_alike(base: HFModel, stage: HFModel, name: str, rows: Sequence[Request]) -> None:
    if any(prompt_tokens(base, one) != prompt_tokens(stage, one) for one in rows[:8]):
        raise InputError(
            f"{printable(name)} reads the prompts as other tokens than {printable(base.name)} (another tokenizer, or another chat template): states of both cannot be compared"
        )
    one, two = (model.local.model.config.get_text_config() for model in (base, stage))
    for key in ("hidden_size", "num_hidden_layers"):
        if getattr(one, key) != getattr(two, key):
            raise InputError(
                f"{printable(name)} has the {key} {getattr(two, key)} and {printable(base.name)} {getattr(one, key)}: states of both cannot be compared"
            )
