"""The tax of a safety objective, told from the base model alone (imports torch): how much of its direction lies in what tasks need.

What is estimated, at one layer that is chosen on prompts that are used for nothing else:

- the **safety direction**: mean state after unsafe prompts less the mean state after safe ones, at the last token of a prompt (what is added to a state
  to make a request look unsafe, and so to have it refused); of preferences the mean gradient of the log-odds of the chosen answer less that of the rejected one;
- a **capability direction** per task: the mean gradient of the log-odds of its right answers;
- the **tax rate**: the share of the safety direction's squared length inside the span of the capability directions, corrected for the noise of all of
  them (``stats.directions``), beside what directions of random concepts give, estimated in the same way;
- the **signed overlap** with every task: above 0 a step towards safety raises the task, below 0 it lowers it.

Every set of prompts is used once: one half of the safety prompts for the choice of the layer, the other for the directions; one half of a task's items for
its gradient, the other for the states from which random concepts are made.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.predict.behaviour import behaviour_angles
from aligntax.predict.concepts import other_answers, random_concepts
from aligntax.predict.gather import (
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
    InMetric,
    Settings,
    TaskRisk,
    TaxPrediction,
    Used,
)
from aligntax.predict.stepping import optimiser_step
from aligntax.stats.directions import CrossFit, overlap_p
from aligntax.stats.multiplicity import holm

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel


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
    deep = int(model.local.model.config.get_text_config().num_hidden_layers)
    layers = layers_of(deep, want.layer)
    choosing, sides = sides_of(objective, want, notes)
    count, blocks = blocks_of(
        {what: (rows, "safety") for what, rows in sides.items()} | {f"task {name}": (rows, "task") for name, (rows, _) in parts.items()}
    )
    kind = kind_of(objective, want)
    seen = choices(model, objective, choosing, layers, want, tell, kind)
    chosen, chosen_by = choose(layers, seen, deep, want.layer)
    at = layers.index(chosen)
    safety = read_direction(model, objective, sides, blocks, count, layers, want, tell, kind)
    found = {
        name: read_gradients(model, rows, Sums(blocks[f"task {name}"], count), layers, want, partial(tell, name))
        for name, (rows, _) in parts.items()
    }
    keep_reliable(found, safety.at(at), at, want, notes)
    fits = []
    for number, layer in enumerate(layers):
        try:
            fit = fitted(safety.at(number), found, number, want)
        except ValueError as error:
            if layer == chosen:
                raise InputError(f"layer {layer} of {printable(model.name)}: {error}") from None
            notes.append(f"layer {layer} tells nothing: {error}")
            continue
        reliability, z = seen[number] if seen else (None, None)
        fits.append(AtLayer(layer, reliability, z, fit))
    fit = next(one.fit for one in fits if one.layer == chosen)
    others = unused(objective, choosing, want)
    concepts = (
        random_concepts(model, parts, found, chosen, at, want, fit, tell)
        if kind == "states"
        else other_answers(model, others, parts, found, chosen, at, want, fit, tell)
    )
    risks = _risks(found, fit, at)
    dimension = safety.at(at).means.shape[1]
    metrics: tuple[InMetric, ...] = ()
    if want.metrics or (want.metrics is None and dimension <= MAX_DIMENSION):
        prompts = [one for _, part in parts.values() for one in part]
        random.Random(f"{want.seed} states").shuffle(prompts)  # noqa: S311 - an order of prompts
        metrics = in_metrics(
            model, prompts, safety.at(at), [of.sample(at) for of in found.values()], chosen, want, tell, vector=kind == "states"
        )
    directions = {"safety": safety.at(at)}
    if kind == "answers":
        states = read_direction(model, objective, sides, blocks, count, [chosen], want, tell, "states").at(0)
        directions[MEAN_STATES] = states
        metrics = (by_states(states, [of.sample(at) for of in found.values()], want.level), *metrics)
    behaviour: tuple[BehaviourAngle, ...] = ()
    if want.sweep:
        most = [r.task for r in sorted(risks, key=lambda r: -abs(r.overlap.cosine if r.overlap else 0.0))][: want.sweep]
        behaviour = behaviour_angles(
            model,
            directions,
            {name: found[name] for name in most},
            at,
            others.get("unsafe", ()) if kind != "states" else (),
            {name: parts[name][1] for name in most},
            chosen,
            want,
            tell,
            notes,
        )
    step = optimiser_step(model, objective, {name: rows for name, (rows, _) in parts.items()}, want, tell, notes) if want.step else None
    used = {name: tuple(Used(str(one.item), str(one.content)[:16]) for one in rows) for name, (rows, _) in parts.items()}
    if concepts.p is None:
        notes.append(
            f"only {len(concepts.rates)} random concepts could be told from noise (of {concepts.tried} tried), too few to say whether safety is special: "
            f"{MIN_CONCEPTS} are needed, from more prompts and items, or more varied tasks"
        )
    return TaxPrediction(
        model.name, dict(model.identity), objective.name, want.template, tuple(fits), chosen, chosen_by,
        dimension, tuple(risks), concepts, len(sides["unsafe"]), len(sides.get("safe", ())), want, tuple(notes), metrics, step, used, tuple(found), behaviour, kind,
    )  # fmt: skip


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
    # Of a safe task the right answer is what a model says now, and so what another answer would stand in the place of.
    safe = [replace(one, unwanted=one.wanted) for one in choosing.get("safe", ())]
    return {what: rows for what, rows in (("unsafe", wanted or ()), ("safe", safe)) if rows}
