"""aligntax predict verify: predictions held against what training did."""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligntax.cli.predicting import Device, Include, Seed, bar, check_out, check_template, opened_local, task_names, tell_prediction
from aligntax.cli.shared import note
from aligntax.core.errors import InputError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from aligntax.core.study import Arm
    from aligntax.models.hf import HFModel
    from aligntax.predict.inputs import Capability, Objective
    from aligntax.predict.results import ShiftPoint, TaxPrediction
    from aligntax.store.run import StoredRun


def verify(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run of measure, run or diff that has the base among its arms.", show_default=False)
    ],
    base: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The base model, to predict from now; with --safety.", show_default=False)
    ] = None,
    safety: Annotated[str | None, typer.Option(metavar="PROMPTS", help="As for predict tax.", show_default=False)] = None,
    prediction: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A prediction.json that was made before, instead of --base and --safety.", show_default=False),
    ] = None,
    capabilities: Annotated[
        list[str] | None,
        typer.Option(metavar="TASKS", help="As for predict tax; default: the tasks of the run.", show_default=False),
    ] = None,
    include: Include = None,
    answer: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="As for predict tax (repeat).")] = None,
    template: Annotated[str | None, typer.Option(metavar="raw|chat", help="How the model is asked [raw].", show_default=False)] = None,
    clusters: Annotated[bool, typer.Option("--clusters/--no-clusters", help="As for predict tax.")] = False,
    items: Annotated[
        int | None,
        typer.Option(metavar="N", min=32, help="Most items of a task [256]; half of them take no part in the drops.", show_default=False),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="ARM", help="The run's arm that is the base; default: the one with its weights.", show_default=False),
    ] = None,
    arm: Annotated[
        list[str] | None, typer.Option(metavar="ARM", help="Arms to hold against (repeat); default: all asked as the base was.")
    ] = None,
    stage: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ARM=MODEL",
            help="Where the model of an arm is, to show its shift (repeat); embedded models are found.",
            show_default=False,
        ),
    ] = None,
    shifts: Annotated[
        bool, typer.Option("--shifts/--no-shifts", help="Whether trained models that can be opened show where their own shift lies.")
    ] = True,
    metric: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of all tasks; default: each task's own score.", show_default=False)
    ] = None,
    margin: Annotated[float, typer.Option(metavar="D", min=0, help="A drop beyond it counts as damage: .03 is three points.")] = 0.03,
    seed: Seed = 0,
    device: Device = "auto",
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for verification.json and verification.html; without it nothing is written.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print verification.json and nothing else.")] = False,
) -> None:
    """Which of what a base model says beforehand tells what training cost: every predictor held against a ledger.

    Rank correlation over tasks with its p by permutation, how well drops are told beforehand, and which predictor wins.
    Drops are of items that the prediction has not seen. Models of the run that can be opened also show where their own
    shift of the hidden states lies on the theory's frontier.

    For example:

      aligntax measure lab:base lab:dpo --stage sft=lab:sft --template chat --out stages

      aligntax predict verify stages --base lab:base --safety lab/harmful_procedures:lab/procedures --template chat

      aligntax predict verify runs/2026-11 --prediction prediction/prediction.json
    """
    from aligntax.predict.verify import as_json, read_prediction
    from aligntax.predict.verify import verify as held
    from aligntax.store.run import load_run

    if (prediction is None) == (base is None) or (base is None) != (safety is None):
        raise InputError("say what to hold against the run: --base MODEL with --safety PROMPTS, or --prediction FILE")
    if prediction is not None and (given := _given(capabilities, include, answer, template, clusters, items, stage)):
        raise InputError(f"--prediction was made with its own settings; {given} cannot be changed or used now")
    if not isfinite(margin):
        raise InputError(f"--margin is a finite number, such as .03 for three points; got {margin}")
    stored = load_run(run)
    places = _places(stage or (), {one.name for one in stored.study.arms})
    points: list[ShiftPoint] = []
    if prediction is not None:
        found = read_prediction(prediction)
    else:
        check_out(out)
        found, points = _predicted(
            stored, str(base), str(safety), _names(stored, capabilities), tuple(include or ()), tuple(answer or ()), template or "raw", clusters, items or 256, seed,
            device, baseline, arm or [], places if shifts else None,
        )  # fmt: skip
    result = held(stored, found, base=baseline, arms=arm or (), metric=metric, margin=margin, seed=seed, points=points)
    from aligntax.report.verify_page import render
    from aligntax.report.verify_text import view

    tell_prediction(as_json(result), lambda: view(result), lambda: render(result), out, json=json, name="verification")


def _given(*options: object) -> str:
    names = ("--capabilities", "--include", "--answer", "--template", "--clusters", "--items", "--stage")
    return ", ".join(name for name, value in zip(names, options, strict=True) if value)


def _names(run: StoredRun, capabilities: list[str] | None) -> list[str]:
    """Tasks to predict: those named, else those that the run's models were asked."""
    if capabilities:
        return task_names(capabilities)
    found = [task.name for task in run.study.tasks]
    if not found:
        raise InputError(
            f"{printable(run.path.name)} was made from logs and does not say how its tasks are asked; name them with --capabilities"
        )
    return found


def _predicted(
    run: StoredRun,
    base: str,
    safety: str,
    names: list[str],
    include: tuple[Path, ...],
    answers: tuple[str, ...],
    template: str,
    clusters: bool,
    items: int,
    seed: int,
    device: str,
    baseline: str | None,
    arms: list[str],
    places: Mapping[str, str] | None,
) -> tuple[dict[str, Any], list[ShiftPoint]]:
    """The content of prediction.json, made now, and where trained models' shifts lie."""
    from json import loads

    from aligntax.predict.inputs import capabilities as found_tasks
    from aligntax.predict.inputs import read_objective
    from aligntax.predict.results import Settings, as_json
    from aligntax.predict.verify import stages_of

    check_template(template)
    objective = read_objective(safety, template, include, grouped=clusters)
    with opened_local(base, device) as model, bar() as tell:
        tasks = found_tasks(names, template, include, render=model.template, grouped=clusters)
        from aligntax.predict.tax import predict_tax

        settings = Settings(template, items=items, seed=seed, answers=answers)
        made = predict_tax(model, objective, tasks, settings, tell)
        found = loads(as_json(made))
        points: list[ShiftPoint] = []
        if places is not None:
            points = _points(model, stages_of(run, found, baseline, arms), places, objective, tasks, made, device, tell)
    return found, points


def _places(given: Sequence[str], arms: set[str]) -> dict[str, str]:
    """Models by arm.

    Raises:
        InputError: if one is none, or of no arm of the run.
    """
    found = {}
    for one in given:
        name, equals, place = one.partition("=")
        if not (name and equals and place):
            raise InputError(f"--stage takes ARM=MODEL; got {printable(repr(one))}")
        if name not in arms:
            raise InputError(f"--stage {printable(repr(name))} is no arm of the run; these are {printable(', '.join(sorted(arms)))}")
        found[name] = place
    return found


def _points(
    base: HFModel,
    arms: Mapping[str, Arm],
    places: Mapping[str, str],
    objective: Objective,
    tasks: Sequence[Capability],
    made: TaxPrediction,
    device: str,
    tell: Callable[[str, int, int], None],
) -> list[ShiftPoint]:
    """Where the shifts of trained models lie; one that cannot be found, or has other weights than the run's, is told and left out."""
    from aligntax.predict.shifts import shift_points

    if unknown := sorted(set(places) - set(arms)):
        raise InputError(
            f"--stage {printable(repr(unknown[0]))} is no arm that is held against the prediction; these are {printable(', '.join(arms)) or 'none'}"
        )
    return shift_points(base, _stages(arms, places, device), objective, tasks, made, tell)


def _stages(arms: Mapping[str, Arm], places: Mapping[str, str], device: str) -> Iterator[tuple[str, HFModel]]:
    """One trained model at a time: the last is closed before the next is opened."""
    from aligntax.flow.collect import model_key
    from aligntax.models.embedded import family

    for name, arm in arms.items():
        place = places.get(name) or (f"lab:{arm.source}" if arm.source in family() else None)
        if place is None:
            note(f"{printable(name)} shows no shift: where its model is is not known; name it with --stage {printable(name)}=MODEL")
            continue
        with opened_local(place, device) as stage:
            if model_key(stage) == arm.model:
                yield name, stage
            else:
                note(f"{printable(name)} shows no shift: {printable(place)} has other weights than the run's arm")
