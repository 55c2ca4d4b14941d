"""Predictions held against a ledger: which of what a base model said beforehand tells which tasks training lowered? Imports no torch.

Drops are of items that the prediction has not seen: a task's difficulty, or what a step does to it, would otherwise share the luck of its items with its drop.
Tasks are the unit (``stats.predictors``). Every predictor is turned so that more of it means a larger drop, by what theory or its author says; a predictor that is
good the other way round has a correlation below 0, and is not turned afterwards.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.ids import digest
from aligntax.core.ledger import Entry
from aligntax.core.study import Arm
from aligntax.core.words import cut, items_text, printable, safe_json
from aligntax.flow.held_out import held_out
from aligntax.predict.results import SCHEMA, Kind, ShiftPoint, plain
from aligntax.stats.multiplicity import holm
from aligntax.stats.predictors import MIN_TASKS, Difference, Holding, Together, compare_predictors, hold_predictors, hold_together
from aligntax.store.jsonio import load_json, shown
from aligntax.store.run import StoredRun

MIN_ITEMS = 10
"""A task with fewer items left says too little of its drop."""
MARGIN = 0.03
"""A drop by so much of the score's range is damage, unless the user says otherwise."""
Family = Literal["geometry", "optimiser", "baseline"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Predictor:
    """Something that was known before training.

    Attributes:
        name: for people.
        family: where it comes from.
        says: in words, which tasks are to lose.
    """

    name: str
    family: Family
    says: str


@dataclass(frozen=True)
class TaskDrop:
    """What a task lost, and what was foretold.

    Attributes:
        task, metric: which score.
        drop: base less candidate, above 0 where it got worse. se: its standard error.
        low, high: limits. items: behind it.
        foretold: values by predictor.
    """

    task: str
    metric: str
    drop: float
    se: float | None
    low: float | None
    high: float | None
    items: int
    foretold: Mapping[str, float]


@dataclass(frozen=True)
class ArmHeld:
    """Predictors held against one arm.

    Attributes:
        arm: its name.
        drops: of the tasks, the largest first.
        holding: the tests.
        leader: the predictor with the largest rank correlation, where tests were made.
        against: by other predictor, the leader's correlation less its. adjusted: the p of these by Holm's method.
    """

    arm: str
    drops: tuple[TaskDrop, ...]
    holding: Holding
    leader: str | None
    against: Mapping[str, Difference]
    adjusted: Mapping[str, float]


@dataclass(frozen=True)
class Verification:
    """All of it.

    Attributes:
        run, base: what was held against what.
        prediction: what the prediction was made from: model, objective, template, settings.
        predictors: all that were tried.
        arms: in the run's order.
        together: over all arms, on the tasks that all of them have.
        common: these tasks.
        margin: a drop beyond it counts as damage.
        left_out: by task, why it takes no part.
        notes: what people should know.
        points: where the trained models' own shifts lie (``predict.shifts``).
    """

    run: str
    base: str
    prediction: Mapping[str, Any]
    predictors: tuple[Predictor, ...]
    arms: tuple[ArmHeld, ...]
    together: Mapping[str, Together]
    common: tuple[str, ...]
    margin: float
    left_out: Mapping[str, str]
    notes: tuple[str, ...]
    points: tuple[ShiftPoint, ...] = ()

    def tax_rate(self, towards: str) -> float | None:
        """The tax rate that was predicted of a safety direction; None where it was not identified."""
        rate = self.prediction["tax_rates"].get(towards)
        return None if rate is None else float(rate)


def read_prediction(path: Path) -> dict[str, Any]:
    """What ``predict tax`` wrote.

    Raises:
        InputError: if the file is none of it.
    """
    found = load_json(path)
    if not isinstance(found, dict) or found.get("kind") != "tax":
        raise InputError(f"{shown(path)} is no prediction.json of 'aligntax predict tax'")
    if found.get("schema") != SCHEMA:
        raise InputError(
            f"{shown(path)} has schema {cut(printable(repr(found.get('schema'))), 20)}, and this version reads {SCHEMA}; make the prediction again"
        )
    try:
        _foretold(found)
        _seen(found)
        _made(found)
        digest(dict(found["identity"]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, StopIteration, OverflowError) as error:
        raise InputError(f"{shown(path)} is a broken prediction.json ({cut(printable(repr(error)), 80)}); make it again") from None
    return found


# -- predictors ----------------------------------------------------------------------------------------------------------------------


def _made(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a prediction was made from, and the tax rates that it gives."""
    kept = {key: found[key] for key in ("model", "objective", "template", "layer", "unsafe", "safe", "made_of", "settings")}
    if kept["made_of"] not in get_args(Kind):
        raise ValueError(f"made_of is {kept['made_of']!r}")
    if not isinstance(kept["settings"], dict) or any(
        isinstance(x, dict) or (isinstance(x, list) and not all(isinstance(t, str) for t in x)) for x in kept["settings"].values()
    ):
        raise ValueError("settings hold more than plain values")
    rates = {str(one["name"]): one["fit"]["estimate"] for one in found["metrics"] if one["fit"] is not None}
    rates["safety"] = next(one["fit"]["estimate"] for one in found["layers"] if one["layer"] == found["layer"])
    return {**kept, "tax_rates": {name: None if rate is None else float(rate) for name, rate in rates.items()}}


def _foretold(found: Mapping[str, Any]) -> dict[Predictor, dict[str, float]]:
    """Values by predictor and task."""
    out: dict[Predictor, dict[str, float]] = {}

    def add(name: str, family: Family, says: str, values: Mapping[str, float | None]) -> None:
        known = {task: float(value) for task, value in values.items() if value is not None and np.isfinite(value)}
        if len(known) > 1:
            out[Predictor(name, family, says)] = known

    risks = {str(r["task"]): r for r in found["risks"]}
    cosines = {task: r["overlap"]["cosine"] for task, r in risks.items() if r["overlap"] is not None}
    add("overlap, opposed", "geometry", "tasks whose direction points away from safety lose", {t: -c for t, c in cosines.items()})
    add(
        "overlap, absolute",
        "geometry",
        "tasks that share a direction with safety lose, whichever way",
        {t: abs(c) for t, c in cosines.items()},
    )
    add("overlap, squared", "geometry", "the same, as the theory's tax rate of a task", {t: c * c for t, c in cosines.items()})
    add("overlap, opposed, by gradient", "geometry", "the same as opposed, in nats: overlap times the length of the task's gradient",
        {t: -c * risks[t]["gradient"] for t, c in cosines.items()})  # fmt: skip
    for metric in found["metrics"]:
        if metric["fit"] is not None and metric["fit"]["overlaps"]:
            own = {str(t): o["cosine"] for t, o in zip(found["tasks"], metric["fit"]["overlaps"], strict=True)}
            name = cut(printable(str(metric["name"])), 60)
            add(f"overlap, opposed: {name}", "geometry", "opposed, in another metric", {t: -c for t, c in own.items()})
            add(f"overlap, absolute: {name}", "geometry", "absolute, in another metric", {t: abs(c) for t, c in own.items()})
    add("gradient of states", "geometry", "tasks with a long gradient lose", {t: r["gradient"] for t, r in risks.items()})
    steps = {str(s["task"]): s for s in (found["step"] or {"tasks": ()})["tasks"]}
    of = _reader(steps)
    add("answers lost in a step", "optimiser", "tasks of which one step of training costs answers lose", of(lambda s: s["lost"]["value"]))
    add("KL of a step", "optimiser", "tasks whose answers one step of training changes most lose", of(lambda s: s["kl"]["value"]))
    add(
        "log-probability lost in a step",
        "optimiser",
        "tasks whose right answers one step of training makes less likely lose",
        of(lambda s: -s["change"]["value"]),
    )
    add(
        "gradient cosine, opposed",
        "optimiser",
        "tasks whose gradient points away from the objective's, by all weights, lose",
        of(lambda s: -s["cosine"]["value"]),
    )
    add("gradient cosine, absolute", "optimiser", "the same, whichever way", of(lambda s: abs(s["cosine"]["value"])))
    add("gradient of weights", "baseline", "tasks with a long gradient by the weights lose", of(lambda s: s["norm"]))
    add(
        "surprise",
        "baseline",
        "tasks whose right answers the base is less sure of lose",
        {t: -r["value"] for t, r in (steps or risks).items()},
    )
    add("answers not right", "baseline", "tasks that the base answers badly lose", of(lambda s: 1 - s["right"]))
    return out


def _reader(rows: Mapping[str, Row]) -> Callable[[Callable[[Row], float]], dict[str, float | None]]:
    return lambda value: {task: value(row) for task, row in rows.items()}


def _seen(found: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    return {(str(task), str(one["item"]), str(one["content"])) for task, used in found["used"].items() for one in used}


# -- holding -------------------------------------------------------------------------------------------------------------------------


def verify(
    run: StoredRun,
    found: Mapping[str, Any],
    *,
    base: str | None = None,
    arms: Sequence[str] = (),
    metric: str | None = None,
    margin: float = MARGIN,
    draws: int = 9999,
    seed: int = 0,
    points: Sequence[ShiftPoint] = (),
) -> Verification:
    """Hold a prediction against a run.

    Args:
        run: with the base model among its arms.
        found: the content of prediction.json.
        base: the arm that is the base; None finds it by its weights.
        arms: those to hold against; none: all that were asked as the base was.
        metric: of all tasks; None for each task's own score.
        margin: a drop beyond it counts as damage.
        draws: permutations.
        seed: of these.
        points: to go with the result.

    Raises:
        InputError: if the base is not in the run, or no task is in both.
        LogError, PairingError: if the run cannot be read.
    """
    notes: list[str] = []
    name = _base_of(run, found, base, notes)
    others = _arms_of(run, name, arms)
    foretold = _foretold(found)
    if metric is not None and metric not in (there := sorted({e.metric for e in run.ledger})):
        raise InputError(f"{printable(run.path.name)} has no metric {printable(repr(metric))}; it has {_few(there)}")
    held = held_out(run, name, others, _seen(found), metric)
    if held.left_out:
        notes.append(f"{items_text(sum(held.left_out.values()))} of the run were seen by the prediction and take no part in the drops")
    if held.akin:
        notes.append(
            f"{items_text(held.akin)} behind the drops share a source with others that were seen: their luck is not wholly their own, and a correlation may be somewhat too high"
        )
    known = {task for values in foretold.values() for task in values}
    left_out: dict[str, dict[str, list[str]]] = {}
    rng = np.random.default_rng(seed)
    made = [_arm(other, held.changes[other], foretold, known, margin, draws, rng, left_out) for other in others]
    if not any(one.drops for one in made):
        raise InputError(
            f"no task of {printable(run.path.name)} is one of the prediction's with {MIN_ITEMS} items that it has not seen ({_few(sorted(held.left_out or left_out))}); "
            "measure more items, or predict from fewer (--items)"
        )
    common, together = _together(made, margin, draws, rng)
    reasons = {
        task: "; ".join(why if len(of) == len(others) else f"{why} (in {', '.join(map(printable, of))})" for why, of in by.items())
        for task, by in left_out.items()
    }
    return Verification(
        run.path.name, name, _made(found), tuple(foretold), tuple(made), together, common, margin, reasons, tuple(notes), tuple(points)
    )


def stages_of(run: StoredRun, found: Mapping[str, Any], base: str | None = None, arms: Sequence[str] = ()) -> dict[str, Arm]:
    """Arms of models that were asked, and are held against the prediction, by name.

    Raises:
        InputError: as ``verify``.
    """
    known = {arm.name: arm for arm in run.study.arms}
    return {name: known[name] for name in _arms_of(run, _base_of(run, found, base, []), arms) if known[name].model is not None}


def _few(names: Sequence[str]) -> str:
    return cut(printable(", ".join(names)), 200) or "none"


def _base_of(run: StoredRun, found: Mapping[str, Any], wanted: str | None, notes: list[str]) -> str:
    """The run's arm that is the prediction's model, asked by the same template."""
    names = [arm.name for arm in run.study.arms]
    key = digest(dict(found["identity"]))[:16]
    if wanted is not None:
        arm = next((arm for arm in run.study.arms if arm.name == wanted), None)
        if arm is None:
            raise InputError(f"{printable(run.path.name)} has no arm {printable(repr(wanted))}; it has {_few(names)}")
        if arm.model is None:
            notes.append(
                f"the run does not say which weights {printable(wanted)} has; that it is {printable(str(found['model']))} is taken from you"
            )
        elif arm.model != key:
            raise InputError(
                f"{printable(wanted)} has other weights than the {printable(str(found['model']))} that the prediction was made from"
            )
        if arm.elicitation is not None and arm.elicitation.template != found["template"]:
            notes.append(
                f"{printable(wanted)} was asked by the template {arm.elicitation.template}, and the prediction was made by {printable(str(found['template']))}"
            )
        return wanted
    fits = [arm for arm in run.study.arms if arm.model == key]
    asked = [arm for arm in fits if arm.elicitation is not None and arm.elicitation.template == found["template"]]
    if len(asked) == 1:
        return asked[0].name
    if not fits:
        known = "" if any(arm.model for arm in run.study.arms) else " (logs do not say which weights answered)"
        raise InputError(
            f"no arm of {printable(run.path.name)} has the weights of {printable(str(found['model']))}{known}; name the base with --baseline, one of {_few(names)}"
        )
    if not asked:
        raise InputError(
            f"{_few([arm.name for arm in fits])}: the prediction was made by the template {printable(str(found['template']))}, and the run asked by another; predict by that one"
        )
    raise InputError(f"several arms have the base's weights ({_few([arm.name for arm in asked])}); name one with --baseline")


def _arms_of(run: StoredRun, base: str, wanted: Sequence[str]) -> list[str]:
    """Arms to hold against: those named, else all with other weights that were asked in the base's way."""
    by_name = {arm.name: arm for arm in run.study.arms}
    if unknown := [name for name in wanted if name not in by_name or name == base]:
        raise InputError(
            f"{printable(run.path.name)} has no arm {printable(repr(unknown[0]))} beside the base; it has {_few([n for n in by_name if n != base])}"
        )
    own = by_name[base]
    found = list(dict.fromkeys(wanted)) or [
        arm.name
        for arm in run.study.arms
        if arm.name != base and arm.elicitation == own.elicitation and (arm.model is None or arm.model != own.model)
    ]
    if not found:
        raise InputError(f"{printable(run.path.name)} has no other model that was asked as {printable(base)} was")
    return found


def _arm(
    arm: str,
    changes: Mapping[str, Entry],
    foretold: Mapping[Predictor, Mapping[str, float]],
    known: set[str],
    margin: float,
    draws: int,
    rng: np.random.Generator,
    left_out: dict[str, dict[str, list[str]]],
) -> ArmHeld:
    drops = []
    for task, entry in changes.items():
        values = {p.name: of[task] for p, of in foretold.items() if task in of}
        why = None
        if task not in known:
            why = "the prediction does not have it"
        elif entry.n < MIN_ITEMS:
            why = f"{items_text(entry.n)} that the prediction has not seen; {MIN_ITEMS} are needed"
        elif len(values) < len(foretold):
            why = "not all predictors have it: its direction could not be told from noise"
        if why is None:
            drops.append(_drop(entry, values))
        else:
            left_out.setdefault(task, {}).setdefault(why, []).append(arm)
    drops.sort(key=lambda d: (-d.drop, d.task))
    y = [d.drop for d in drops]
    table = {p.name: [d.foretold[p.name] for d in drops] for p in foretold}
    table = {name: values for name, values in table.items() if values and np.ptp(values) > 0}
    if len(drops) < MIN_TASKS or not np.ptp(y) or not table:
        if len(drops) < MIN_TASKS:
            reason = f"not identified: {items_text(len(drops), 'task')}, and it takes at least {MIN_TASKS}"
        else:
            reason = f"not identified: {'every predictor says the same of all tasks' if np.ptp(y) else 'all tasks lost the same'}"
        return ArmHeld(arm, tuple(drops), Holding({}, len(drops), False, 0, None, None, None, reason, 0.95), None, {}, {})
    errors = [d.se for d in drops]
    holding = hold_predictors(
        y, table, rng, se=[float(e) for e in errors if e is not None] if None not in errors else None, margin=margin, draws=draws
    )
    leader = max(holding.held, key=lambda name: holding.held[name].spearman)
    against = {name: compare_predictors(y, table[leader], table[name], rng, draws=draws) for name in holding.held if name != leader}
    adjusted = dict(zip(against, holm([d.p for d in against.values()]), strict=True)) if against else {}
    return ArmHeld(arm, tuple(drops), holding, leader, against, adjusted)


def _drop(entry: Entry, values: Mapping[str, float]) -> TaskDrop:
    worse = -1.0 if entry.higher_is_better else 1.0
    low, high = (None, None) if entry.ci_low is None or entry.ci_high is None else sorted((worse * entry.ci_low, worse * entry.ci_high))
    return TaskDrop(entry.task, entry.metric, float(entry.cost or 0.0), entry.se, low, high, entry.n, values)


def _together(made: Sequence[ArmHeld], margin: float, draws: int, rng: np.random.Generator) -> tuple[tuple[str, ...], dict[str, Together]]:
    """All arms on the tasks that they share."""
    some = [one for one in made if one.holding.held]
    common = sorted(set.intersection(*({d.task for d in one.drops} for one in some))) if some else []
    if len(some) < 2 or len(common) < MIN_TASKS:
        return (), {}
    by_task = [{d.task: d for d in one.drops} for one in some]
    y = np.array([[of[task].drop for task in common] for of in by_task])
    names = [name for name in some[0].holding.held if np.ptp([by_task[0][task].foretold[name] for task in common]) > 0]
    if (np.ptp(y, axis=1) == 0).any() or not names:
        return (), {}
    table = {name: [by_task[0][task].foretold[name] for task in common] for name in names}
    return tuple(common), hold_together(y, table, rng, margin=margin, draws=draws)


def as_json(found: Verification) -> str:
    """The text of ``verification.json``."""
    whole = {"schema": SCHEMA, "kind": "verification", **asdict(found)}
    return safe_json(json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
