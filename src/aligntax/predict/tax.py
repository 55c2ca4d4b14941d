"""The tax of a safety objective, told from the base model alone (imports torch): how much of its direction lies in what tasks need.

What is estimated, at one layer that is chosen on prompts that are used for nothing else:

- the **safety direction**: where it is known what training would have the model say, the mean gradient of the log-odds of that, after unsafe prompts; of preferences that of the chosen answer less that of
  the rejected one; else the mean state after unsafe prompts less the mean state after safe ones, at one of a prompt's last tokens;
- a **capability direction** per task: the mean gradient of the log-odds of its right answers;
- the **tax rate**: the share of the safety direction's squared length inside the span of the capability directions, corrected for the noise of all of
  them (``stats.directions``), beside what other directions of the same make give, estimated in the same way;
- the **signed overlap** with every task: above 0 a step towards safety raises the task, below 0 it lowers it.

Beside them stand the rate by other definitions (``metrics``), what one step of the optimiser does to the tasks (``stepping``), and whether the model behaves as its directions say (``behaviour``).

Every set of prompts is used once: one half of the safety prompts for the choice of layer and token, and for what safety is held against, the other for the directions; one half of a task's items for
its gradient and the step, the other for random concepts, other answers and covariances.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.predict.behaviour import behaviour_angles
from aligntax.predict.concepts import other_answers, random_concepts
from aligntax.predict.gather import (
    Direction,
    IntArray,
    Sides,
    Sums,
    Tell,
    blocks_of,
    choices,
    choose,
    fitted,
    keep_reliable,
    kind_of,
    layers_of,
    place_of,
    read_direction,
    read_gradients,
    sides_of,
    task_parts,
)
from aligntax.predict.inputs import Capability, Objective, Request, divided, taught
from aligntax.predict.metrics import MEAN_STATES, by_states, in_metrics
from aligntax.predict.results import (
    MAX_DIMENSION,
    MIN_CONCEPTS,
    AtLayer,
    BehaviourAngle,
    ChosenBy,
    InMetric,
    Kind,
    Settings,
    TaskRisk,
    TaxPrediction,
    Used,
)
from aligntax.predict.stepping import optimiser_step
from aligntax.stats.directions import BlockSample, CrossFit, overlap_p
from aligntax.stats.multiplicity import holm

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel


@dataclass(frozen=True)
class _Readings:
    """What was read of the model.

    Attributes:
        kind: what the safety direction is made of.
        layers: looked at. chosen: the one that is read. at: its place among them. chosen_by: how.
        place: token that states are read at, counted from a prompt's end.
        seen: (reliability, z) by layer on the half that chooses; empty where none did.
        choosing, sides: prompts by class of either half.
        blocks, count: of all that is behind directions.
        safety: the safety direction. tasks: those of the tasks that can be told from noise.
    """

    kind: Kind
    layers: Sequence[int]
    chosen: int
    at: int
    chosen_by: ChosenBy
    place: int
    seen: Sequence[tuple[float, float]]
    choosing: Sides | None
    sides: Sides
    blocks: Mapping[str, IntArray]
    count: int
    safety: Direction
    tasks: Mapping[str, Sums]

    @property
    def samples(self) -> list[BlockSample]:
        return [of.sample(self.at) for of in self.tasks.values()]


def predict_tax(
    model: HFModel, objective: Objective, tasks: Sequence[Capability], settings: Settings | None = None, tell: Tell = lambda *_: None
) -> TaxPrediction:
    """What a base model says of the tax of a safety objective.

    Args:
        model: the base model, local.
        objective: what safety training would teach.
        tasks: what it should not cost.
        settings: how.
        tell: progress: what, done, of how many.

    Raises:
        InputError: if there are too few prompts or tasks, or a state or gradient is no number.
    """
    want = settings or Settings()
    objective, tasks, shared = divided(objective, tasks, want.seed)
    notes = [*objective.notes, *shared]
    parts = task_parts(tasks, want, notes)
    read = _read(model, objective, parts, want, tell, notes)
    want = replace(want, place=read.place)
    fits = _fits(model, read, want, notes)
    fit = next(one.fit for one in fits if one.layer == read.chosen)
    others = unused(objective, read.choosing, want)
    concepts = (
        random_concepts(model, parts, read.tasks, read.chosen, read.at, want, fit, tell)
        if read.kind == "states"
        else other_answers(model, others, parts, read.tasks, read.chosen, read.at, want, fit, tell)
    )
    if concepts.p is None:
        notes.append(
            f"only {len(concepts.rates)} random concepts could be told from noise (of {concepts.tried} tried), too few to say whether safety is special: "
            f"{MIN_CONCEPTS} are needed, from more prompts and items, or more varied tasks"
        )
    risks = _risks(read.tasks, fit, read.at)
    directions = {"safety": read.safety.at(read.at)}
    if read.kind == "answers":
        states = read_direction(model, objective, read.sides, read.blocks, read.count, [read.chosen], want, tell, "states")
        directions[MEAN_STATES] = states.at(0)
    metrics = _metrics(model, parts, read, directions, want, tell)
    behaviour = _behaviour(model, parts, read, directions, risks, others, want, tell, notes) if want.sweep else ()
    step = optimiser_step(model, objective, {name: rows for name, (rows, _) in parts.items()}, want, tell, notes) if want.step else None
    used = {name: tuple(Used(str(one.item), str(one.content)[:16]) for one in rows) for name, (rows, _) in parts.items()}
    return TaxPrediction(
        model.name, dict(model.identity), objective.name, want.template, tuple(fits), read.chosen, read.chosen_by,
        directions["safety"].means.shape[1], tuple(risks), concepts, len(read.sides["unsafe"]), len(read.sides.get("safe", ())), want, tuple(notes),
        metrics, step, used, tuple(read.tasks), behaviour, read.kind,
    )  # fmt: skip


def _read(
    model: HFModel,
    objective: Objective,
    parts: Mapping[str, tuple[list[Request], list[Request]]],
    want: Settings,
    tell: Tell,
    notes: list[str],
) -> _Readings:
    """Directions of safety and of every task at all layers that are looked at, and the layer to read."""
    deep = int(model.local.model.config.get_text_config().num_hidden_layers)
    layers, kind = layers_of(deep, want.layer), kind_of(objective, want)
    choosing, sides = sides_of(objective, want, notes)
    count, blocks = blocks_of(
        {what: (rows, "safety") for what, rows in sides.items()} | {f"task {name}": (rows, "task") for name, (rows, _) in parts.items()}
    )
    others = [one for rows in (*sides.values(), *(part for both in parts.values() for part in both)) for one in rows]
    place = place_of(model, objective, choosing, others, layers, want, tell, kind)
    want = replace(want, place=place)
    seen = choices(model, objective, choosing, layers, want, tell, kind)
    chosen, chosen_by = choose(layers, seen, deep, want.layer)
    at = layers.index(chosen)
    safety = read_direction(model, objective, sides, blocks, count, layers, want, tell, kind)
    found = {
        name: read_gradients(model, rows, Sums(blocks[f"task {name}"], count), layers, want, partial(tell, name))
        for name, (rows, _) in parts.items()
    }
    keep_reliable(found, safety.at(at), at, want, notes)
    return _Readings(kind, layers, chosen, at, chosen_by, place, seen, choosing, sides, blocks, count, safety, found)


def _fits(model: HFModel, read: _Readings, want: Settings, notes: list[str]) -> list[AtLayer]:
    """The tax rate at every layer that tells anything.

    Raises:
        InputError: if the one to read does not.
    """
    fits = []
    for number, layer in enumerate(read.layers):
        try:
            fit = fitted(read.safety.at(number), read.tasks, number, want)
        except ValueError as error:
            if layer == read.chosen:
                raise InputError(f"layer {layer} of {printable(model.name)}: {error}") from None
            notes.append(f"layer {layer} tells nothing: {error}")
            continue
        reliability, z = read.seen[number] if read.seen else (None, None)
        fits.append(AtLayer(layer, reliability, z, fit))
    return fits


def _metrics(
    model: HFModel,
    parts: Mapping[str, tuple[list[Request], list[Request]]],
    read: _Readings,
    directions: Mapping[str, BlockSample],
    want: Settings,
    tell: Tell,
) -> tuple[InMetric, ...]:
    """The tax rate by other definitions."""
    other = (by_states(directions[MEAN_STATES], read.samples, want.level),) if MEAN_STATES in directions else ()
    dimension = directions["safety"].means.shape[1]
    if not (want.metrics or (want.metrics is None and dimension <= MAX_DIMENSION)):
        return other
    difference = directions["safety"] if read.kind == "states" else directions.get(MEAN_STATES)
    prompts = [one for _, part in parts.values() for one in part]
    random.Random(f"{want.seed} states").shuffle(prompts)  # noqa: S311 - an order of prompts
    return *other, *in_metrics(
        model, prompts, directions["safety"], read.samples, read.chosen, want, tell, vector=read.kind == "states", difference=difference
    )


def _behaviour(
    model: HFModel,
    parts: Mapping[str, tuple[list[Request], list[Request]]],
    read: _Readings,
    directions: Mapping[str, BlockSample],
    risks: Sequence[TaskRisk],
    others: Mapping[str, Sequence[Request]],
    want: Settings,
    tell: Tell,
    notes: list[str],
) -> tuple[BehaviourAngle, ...]:
    """Whether the model behaves as its directions say, of the tasks that safety moves most."""
    most = [r.task for r in sorted(risks, key=lambda r: -abs(r.overlap.cosine if r.overlap else 0.0))][: want.sweep]
    asked = others.get("unsafe", ())
    if not asked and read.choosing is not None:
        notes.append(
            "whether the model behaves as its directions say was not measured: nobody says what it should answer to unsafe prompts (--answer)"
        )
        return ()
    found = {name: read.tasks[name] for name in most}
    items = {name: parts[name][1] for name in most}
    return behaviour_angles(model, directions, found, read.at, asked, items, read.chosen, want, tell, notes)


def _risks(found: Mapping[str, Sums], fit: CrossFit, at: int) -> list[TaskRisk]:
    """Tasks, those that a step towards safety lowers most first."""
    adjusted = holm([overlap_p(one, fit) for one in fit.overlaps]) if fit.overlaps else []
    risks = [
        TaskRisk(
            name,
            fit.overlaps[n] if fit.overlaps else None,
            float(adjusted[n]) if fit.overlaps else None,
            float(fit.capability_reliabilities[n]),
            float(np.linalg.norm(sums.mean(at))),
            float(np.mean(sums.values)),
            len(sums),
        )
        for n, (name, sums) in enumerate(found.items())
    ]
    return sorted(risks, key=lambda r: (r.overlap is None, r.overlap.cosine if r.overlap else 0.0, r.task))


def unused(objective: Objective, choosing: Sides | None, want: Settings) -> Mapping[str, Sequence[Request]]:
    """Prompts that no direction was made from, by class, unsafe ones with what training would have the model say; nothing where all are behind the direction."""
    if choosing is None:
        return {}
    wanted = choosing["unsafe"] if objective.is_preference else taught(choosing["unsafe"], objective, want.answers)
    return {what: rows for what, rows in (("unsafe", wanted or ()), ("safe", choosing.get("safe", ()))) if rows}
