"""Entries of the kind ``development``: what each alignment stage took to make, and what share of pretraining its compute was.

Compute is counted in petaflop/s-days of 1e15 x 86,400 floating-point operations. From parameters N and tokens D it is 6 N D (Kaplan et al.
2020, arXiv:2001.08361, section 2.1: 2 N per token forwards, twice that backwards; attention over the context left out).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

from aligntax.core.costs import BASELINE, Compute, CostsFile, Stage, read_costs
from aligntax.core.errors import InputError
from aligntax.core.files import read_bytes
from aligntax.core.ids import digest
from aligntax.core.ledger import Detail, Entry, Ledger
from aligntax.core.study import Study, check_tree
from aligntax.core.words import items_text, printable
from aligntax.flow.debt import Assessment, assess, debt_entries

TASK = "development"
COMPUTE, SHARE = "training_compute", "training_compute_share"
UNITS = {
    COMPUTE: "petaflop/s-days", SHARE: "ratio", "device_hours": "hours", "energy": "kWh", "labels": "count", "person_hours": "hours",
}  # fmt: skip
METRICS = (*UNITS, "price")
PETAFLOP_S_DAY = 1e15 * 86_400
FORWARD_BACKWARD, FORWARD = 6, 2
"""Floating-point operations per parameter and token."""
MAX_STATE_BYTES = 64 * 2**20
UNNAMED = "aligned"
"""The candidate of a debt where no stage is named."""


@dataclass(frozen=True)
class Quantity:
    """An amount, and where it comes from; None with a reason where it cannot be computed, None without one where nothing was said."""

    value: float | None = None
    said: tuple[str, ...] = ()
    details: Mapping[str, Detail] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainerState:
    """What a trainer_state.json tells; None where it does not.

    Attributes:
        flops: ``total_flos``. steps, planned: done, and of how many. epochs: passed.
        input_tokens: counted where the trainer was told to.
        seconds: of all calls of ``train`` that ended, and ``sessions`` how many. seconds_steps: steps in those seconds, as rates tell.
        sha256: of the file.
    """

    flops: float | None
    steps: float | None
    planned: float | None
    epochs: float | None
    input_tokens: float | None
    seconds: float | None
    sessions: int
    seconds_steps: float | None
    sha256: str


@dataclass(frozen=True)
class Development:
    """A costs file made out: its entries, the assessment of its debt, and its currency."""

    ledger: Ledger
    debt: Assessment | None
    currency: str | None


def develop(path: Path) -> Development:
    """A costs file by itself; where no parent is named a stage starts from the baseline.

    Raises:
        InputError: if the file, or a trainer_state.json it names, cannot be used.
    """
    costs = read_costs(path)
    baseline = costs.baseline or BASELINE
    parents = {name: stage.parent or baseline for name, stage in costs.stages.items()}
    if baseline in costs.stages:
        raise InputError(f"{_where(path)}: the stage {_named(baseline)} has the baseline's name; what the baseline took is pretraining")
    check_tree([baseline, *costs.stages], {baseline: None, **parents})
    states = _states(costs, path)
    candidate = list(costs.stages)[-1] if costs.stages else UNNAMED
    assessed = None if costs.debt is None else assess(costs.debt)
    entries = _entries(costs, states, parents, baseline) + _owed(costs, assessed, (baseline, candidate))
    identity = {"costs": costs.model_dump(), "states": {name: state.sha256 for name, state in states.items()}}
    return Development(Ledger(study=digest(identity)[:16], baseline=baseline, entries=tuple(entries)), assessed, costs.currency)


def development_entries(path: Path, study: Study) -> list[Entry]:
    """The entries of a costs file whose stages are arms of a study; its tree is the study's.

    Raises:
        InputError: if a stage is no arm, or has another parent; if the file, or a trainer_state.json it names, cannot be used.
    """
    costs = read_costs(path)
    arms = {arm.name: arm.parent or study.baseline for arm in study.arms}
    if costs.baseline is not None and costs.baseline != study.baseline:
        raise InputError(f"{_where(path)}: the baseline is {_named(costs.baseline)} here and {_named(study.baseline)} in the study")
    for name, stage in costs.stages.items():
        if name not in arms or name == study.baseline:
            known = ", ".join(arm for arm in arms if arm != study.baseline)
            raise InputError(f"{_where(path)}: the stage {_named(name)} is no aligned arm of the study; it has: {printable(known)}")
        if stage.parent is not None and stage.parent != arms[name]:
            raise InputError(
                f"{_where(path)}: the stage {_named(name)} has the parent {_named(stage.parent)} here and {_named(arms[name])} in the study"
            )
    assessed = None if costs.debt is None else assess(costs.debt)
    owed = _owed(costs, assessed, (study.baseline, study.candidate))
    return _entries(costs, _states(costs, path), arms, study.baseline) + owed


def _owed(costs: CostsFile, assessed: Assessment | None, pair: tuple[str, str]) -> list[Entry]:
    return [] if assessed is None or costs.currency is None else debt_entries(assessed, costs.currency, pair)


def _states(costs: CostsFile, path: Path) -> dict[str, TrainerState]:
    named = {name: stage.trainer_state for name, stage in costs.stages.items() if stage.trainer_state is not None}
    return {name: read_trainer_state(path.parent / state) for name, state in named.items()}


def _entries(costs: CostsFile, states: Mapping[str, TrainerState], parents: Mapping[str, str], baseline: str) -> list[Entry]:
    """Every stage against what it was made from, then whole paths from the baseline."""
    pretraining = None if costs.pretraining is None else compute_of(costs.pretraining)
    found = {name: stage_quantities(stage, states.get(name)) for name, stage in costs.stages.items()}
    currency = costs.currency or ""
    out = []
    for name, quantities in found.items():
        shared = {**quantities, SHARE: _share(quantities[COMPUTE], pretraining)}
        out += [_entry((parents[name], name), metric, quantity, currency) for metric, quantity in _ordered(shared)]
    for name in found:
        path = _path(name, parents, baseline)
        if len(path) > 1:
            summed = {metric: _sum(metric, path, found) for metric in found[name]}
            summed[SHARE] = _share(summed[COMPUTE], pretraining)
            out += [_entry((baseline, name), metric, quantity, currency) for metric, quantity in _ordered(summed)]
    return out


def _ordered(quantities: Mapping[str, Quantity]) -> list[tuple[str, Quantity]]:
    """Of what something is known or said, in the order of the units."""
    return [(metric, quantities[metric]) for metric in METRICS if quantities[metric] != Quantity()]


def _path(name: str, parents: Mapping[str, str], baseline: str) -> list[str]:
    """The stages from the baseline to ``name``; itself alone where it does not come from the baseline."""
    path, at = [name], parents[name]
    while at != baseline:
        if at in path or at not in parents:
            return [name]
        path.append(at)
        at = parents[at]
    return path[::-1]


def _sum(metric: str, path: Sequence[str], found: Mapping[str, Mapping[str, Quantity]]) -> Quantity:
    """Along a path; unknown if any stage's is, and not spoken of if nothing is said of any."""
    of = {name: found.get(name, {}).get(metric, Quantity()) for name in path}
    if all(one == Quantity() for one in of.values()):
        return Quantity()
    lacking = [printable(name) for name, one in of.items() if one.value is None]
    if lacking:
        return Quantity(None, (f"no sum over the stages: {metric} is not known of {', '.join(lacking)}",))
    return Quantity(sum(one.value or 0.0 for one in of.values()), (f"sum of the stages {printable(', '.join(path))}",))


def _share(compute: Quantity, pretraining: Quantity | None) -> Quantity:
    if pretraining is None or pretraining.value is None or compute == Quantity():
        return Quantity()
    if compute.value is None:
        return Quantity(None, compute.said)
    base = f"pretraining is {pretraining.value:.6g} petaflop/s-days, {pretraining.said[0]}"
    return Quantity(compute.value / pretraining.value, (base, *compute.said))


def _entry(pair: tuple[str, str], metric: str, quantity: Quantity, currency: str) -> Entry:
    """A cost has no baseline's value, no interval and no verdict: somebody counted it."""
    value = quantity.value
    if value is not None and not isfinite(value):
        raise InputError(f"{metric} of {printable(pair[1])} is larger than any number; look for a slip in its numbers")
    return Entry(
        kind="development", task=TASK, metric=metric, unit=UNITS.get(metric, currency), higher_is_better=None, baseline=pair[0],
        candidate=pair[1], n=0, clusters=None, baseline_value=None, candidate_value=value, change=value, cost=value, se=None, level=0.95,
        ci_low=None, ci_high=None, p_value=None, p_adjusted=None, method="none", margin=None, verdict=None, outcomes={},
        details=dict(quantity.details), checks=quantity.said,
    )  # fmt: skip


# What one stage took.


def stage_quantities(stage: Stage, state: TrainerState | None) -> dict[str, Quantity]:
    """Every quantity of one stage by metric, its share of pretraining left out."""
    hours = _device_hours(stage, state)
    energy = _energy(stage, hours)
    out = {COMPUTE: _rated(_training_compute(stage, state), hours), "device_hours": hours, "energy": energy}
    for metric in ("labels", "person_hours"):
        given = getattr(stage, metric)
        out[metric] = Quantity() if given is None else Quantity(given, ("as given",))
    return out | {"price": _price(stage, out)}


def compute_of(given: Compute) -> Quantity:
    """Training compute in petaflop/s-days from what was given; nothing where nothing was."""
    if given.petaflop_s_days is not None:
        return Quantity(given.petaflop_s_days, ("as given",))
    if given.flops is not None:
        return Quantity(given.flops / PETAFLOP_S_DAY, (f"from {given.flops:.6g} floating-point operations as given",))
    if given.parameters is None:
        return Quantity()
    trained = (given.tokens or 0.0) * (given.passes or 1.0)
    forward = getattr(given, "forward_tokens", None) or 0.0
    said = [
        f"6 N D (Kaplan et al. 2020) with N = {given.parameters:.6g} parameters and D = {trained:.6g} tokens; attention over the context is left out"
    ]
    if forward:
        said.append(f"2 N for each of {forward:.6g} tokens that passed forwards only")
    flops = given.parameters * (FORWARD_BACKWARD * trained + FORWARD * forward)
    return Quantity(flops / PETAFLOP_S_DAY, tuple(said))


def _training_compute(stage: Stage, state: TrainerState | None) -> Quantity:
    """What was given comes first; a trainer's count stands in where nothing was, and beside it otherwise."""
    given = compute_of(stage)
    if state is None:
        return given
    counted = _counted(state)
    if given == Quantity():
        return counted
    beside = "counts nothing" if counted.value is None else f"counts {counted.value:.6g} petaflop/s-days"
    return replace(given, said=(*given.said, f"trainer_state.json {beside}; what was given is taken"), details=counted.details)


def _counted(state: TrainerState) -> Quantity:
    """Compute by ``total_flos``, with what it leaves out (transformers' ``Trainer.floating_point_ops``)."""
    details: dict[str, Detail] = {
        name: value
        for name, value in (("steps", state.steps), ("epochs", state.epochs), ("input_tokens", state.input_tokens))
        if value is not None
    }
    if state.flops is None:
        why = "trainer_state.json counts no floating-point operations (total_flos is 0 or missing), as for trainers that are not fed input_ids (GRPO, RLOO)"
        return Quantity(None, (f"{why}: name parameters and tokens, or flops",), details)
    said = [
        "total_flos of trainer_state.json: 6 for every parameter outside embeddings and every token of the batches, padding among them; "
        "frozen parameters count as trained ones, all experts as active, attention over the context not at all",
        "not in it: a reference or reward model's passes, generated tokens, evaluation, steps lost when a run was killed",
    ]
    if state.planned and state.steps is not None and state.steps < state.planned:
        said.append(f"trainer_state.json stands at step {state.steps:,.0f} of {state.planned:,.0f}")
    return Quantity(state.flops / PETAFLOP_S_DAY, tuple(said), details | {"flops": state.flops})


def _rated(compute: Quantity, hours: Quantity) -> Quantity:
    """With what the devices achieved, which tells a slip in either number."""
    if not compute.value or not hours.value:
        return compute
    achieved = compute.value * PETAFLOP_S_DAY / (hours.value * 3600)
    return replace(compute, details={**compute.details, "flops_per_device_second": achieved}) if isfinite(achieved) else compute


def _device_hours(stage: Stage, state: TrainerState | None) -> Quantity:
    if stage.device_hours is not None:
        return Quantity(stage.device_hours, ("as given",))
    hours, said = _clock_hours(stage, state)
    if hours is None:
        return Quantity(None, said) if stage.devices is not None else Quantity()
    if stage.devices is None:
        return Quantity(None, (f"devices is not named: {hours:.4g} hours of the clock on how many?",))
    return Quantity(hours * stage.devices, (f"{hours:.6g} hours on {items_text(int(stage.devices), 'device')}", *said))


def _clock_hours(stage: Stage, state: TrainerState | None) -> tuple[float | None, tuple[str, ...]]:
    if stage.hours is not None:
        return stage.hours, ("hours as given",)
    if state is None:
        return None, ("hours is not named: devices ran for how long?",)
    if state.seconds is None:
        return None, (
            "hours is not named, and trainer_state.json holds no train_runtime: trainer.save_state() writes it after training, checkpoints lack it",
        )
    said = ["hours by train_runtime of trainer_state.json: loading and saving after the end are not in it"]
    if state.sessions > 1:
        said.append(f"sum over {state.sessions} calls of train")
    # Rates are rounded to 3 digits after the point, and a session that went on from a checkpoint knows its own steps alone.
    if state.steps and state.seconds_steps is not None and state.seconds_steps < 0.9 * state.steps:
        said.append(
            f"train_runtime covers about {state.seconds_steps:,.0f} of {state.steps:,.0f} steps: the hours before a resume are missing"
        )
    return state.seconds / 3600, tuple(said)


def _energy(stage: Stage, hours: Quantity) -> Quantity:
    """kWh: device hours x mean watts x the building's overhead where one is named (Patterson et al. 2021, arXiv:2104.10350, section 2)."""
    if stage.energy_kwh is not None:
        return Quantity(stage.energy_kwh, ("as given",))
    overhead = stage.power_usage_effectiveness
    if stage.watts_per_device is None:
        return Quantity() if overhead is None else Quantity(None, ("watts_per_device is not named",))
    if hours.value is None:
        return Quantity(None, ("device hours are not known", *hours.said))
    said = f"{hours.value:.6g} device hours at {stage.watts_per_device:g} watts"
    said += "; devices alone, without cooling and hosts" if overhead is None else f", times {overhead:g} for the building"
    return Quantity(hours.value * stage.watts_per_device / 1000 * (overhead or 1.0), (said,))


_PRICED = {
    "device_hours": "price_per_device_hour", "energy": "price_per_kwh", "labels": "price_per_label", "person_hours": "price_per_person_hour",
}  # fmt: skip


def _price(stage: Stage, quantities: Mapping[str, Quantity]) -> Quantity:
    """The sum over everything that is known of; nothing where a part of it has no price, since a part is not the price."""
    if stage.price is not None:
        return Quantity(stage.price, ("as given",))
    if not stage.unit_prices:
        return Quantity()
    total, said, lacking = stage.price_of_rest or 0.0, [], []
    for metric, name in _PRICED.items():
        each, amount, word = getattr(stage, name), quantities[metric], metric.replace("_", " ")
        if each is not None and amount.value is not None:
            total += each * amount.value
            said.append(f"{amount.value:.6g} {word} at {each:g}")
        elif each is not None:
            lacking.append(f"{name} is named, and {word} not known")
        # What a device draws is mostly in the price of its hours.
        elif amount not in (Quantity(), Quantity(0.0, amount.said)) and metric != "energy":
            lacking.append(f"{word} cost something, and {name} is not named (0 if they do not)")
    if lacking:
        return Quantity(None, ("no price: " + "; ".join(lacking),))
    if stage.price_of_rest is not None:
        said.append(f"{stage.price_of_rest:g} for the rest")
    return Quantity(total, (" + ".join(said),))


# trainer_state.json.


def read_trainer_state(path: Path) -> TrainerState:
    """What transformers' Trainer wrote, and with it TRL's.

    Raises:
        InputError: if it cannot be read, or is no such file.
    """
    where = _where(path)
    data = read_bytes(path, "name flops and hours in the costs file instead", MAX_STATE_BYTES)
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(f"{where} is no JSON that can be read; a trainer_state.json was expected") from None
    history = given.get("log_history") if isinstance(given, dict) else None
    if not isinstance(given, dict) or not isinstance(history, list) or "global_step" not in given:
        raise InputError(f"{where} is no trainer_state.json: it has no global_step and log_history")
    ends = [line for line in history if isinstance(line, dict) and "train_runtime" in line]
    seconds = [_amount(line, "train_runtime", where) for line in ends]
    rates = [_amount(line, "train_steps_per_second", where) for line in ends]
    return TrainerState(
        flops=_amount(given, "total_flos", where) or None,
        steps=_amount(given, "global_step", where),
        planned=_amount(given, "max_steps", where),
        epochs=_amount(given, "epoch", where),
        input_tokens=_amount(given, "num_input_tokens_seen", where) or None,
        seconds=sum(s or 0.0 for s in seconds) if ends and None not in seconds else None,
        sessions=len(ends),
        seconds_steps=_steps(seconds, rates) if ends else None,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _steps(seconds: Sequence[float | None], rates: Sequence[float | None]) -> float | None:
    """Steps that the seconds cover, the largest number that rounds to the rates."""
    if None in seconds or None in rates:
        return None
    return sum((s or 0.0) * ((r or 0.0) + 0.0005) for s, r in zip(seconds, rates, strict=True))


def _amount(given: Mapping[str, Any], name: str, where: str) -> float | None:
    """A number of a trainer's; None where it is missing or null."""
    value = given.get(name)
    if value is None:
        return None
    try:
        found = None if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        found = None
    if found is None or not isfinite(found) or found < 0:
        raise InputError(f"{where}: {name} must be a number of 0 and more; got {printable(repr(value))[:60]}")
    return found


def _where(path: Path) -> str:
    return printable(str(path))


def _named(name: str) -> str:
    return printable(repr(name))
