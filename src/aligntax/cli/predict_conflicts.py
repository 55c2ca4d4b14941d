"""aligntax predict conflicts: safety objectives set against each other, with and without each capability kept."""

from __future__ import annotations

from typing import Annotated

import typer

from aligntax.cli.predicting import (
    Clusters,
    Device,
    Include,
    Json,
    Layer,
    Level,
    Out,
    Seed,
    bar,
    check_out,
    check_template,
    direction_of,
    objective_text,
    opened_local,
    task_names,
    tasks_text,
    tell_prediction,
)
from aligntax.core.errors import InputError
from aligntax.core.words import printable


def conflicts(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base model: lab:base, a folder, a hub id.", show_default=False)],
    safety: Annotated[
        list[str],
        typer.Option(
            metavar="PROMPTS",
            help="A safety objective, as predict tax takes it: a table of prompts, or tasks as UNSAFE:SAFE. Give two or more (repeat).",
            show_default=False,
        ),
    ],
    capabilities: Annotated[
        list[str],
        typer.Option(
            metavar="TASKS", help="What may be kept as it is: tasks as measure takes them (repeat, or with commas).", show_default=False
        ),
    ],
    template: Annotated[str, typer.Option(metavar="raw|chat", help="How the model is asked.")] = "raw",
    include: Include = None,
    clusters: Clusters = False,
    layer: Layer = None,
    direction: Annotated[
        str,
        typer.Option(
            metavar="states|answers",
            help="What an objective is: the difference between the states after unsafe and safe prompts, or what raises the wanted answers to unsafe ones.",
        ),
    ] = "states",
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT", help="The wanted answer where no table says so (repeat), for --direction answers.", show_default=False
        ),
    ] = None,
    prompts: Annotated[int, typer.Option(metavar="N", min=32, help="Most prompts of either class of an objective.")] = 512,
    items: Annotated[int, typer.Option(metavar="N", min=16, help="Most items of a task.")] = 256,
    level: Level = 0.95,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What would be read; the model's weights are not loaded.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Which safety objectives pull against each other, and what becomes of that where training must leave a task as it is.

    Reads hidden states and gradients of a local model; nothing is trained and no answer is drawn. Two objectives that pull apart
    undo each other's training. Such a conflict may run through a task that both move in opposite directions: with the task kept
    it is weaker, or gone; or the task hid it, and it is worse. Keeping a task never makes more safety attainable, it changes
    what the two can have together. Every number is corrected for noise and has an interval; docs/predict.md says what it means.

    For example:

      aligntax predict conflicts lab:base --safety lab/harmful_procedures:lab/procedures --safety lab/torn:lab/secrecy --capabilities lab/facts,lab/addition

      aligntax predict conflicts org/base --safety harmless.jsonl --safety honest.jsonl --capabilities lm-eval:gsm8k,lm-eval:arc_easy --out prediction
    """
    from aligntax.predict.inputs import capabilities as found_tasks
    from aligntax.predict.inputs import read_objective
    from aligntax.predict.results import Settings

    check_template(template)
    wish = direction_of(direction, "states", "answers")
    names = task_names(capabilities)
    if len(safety) < 2:
        raise InputError("a conflict takes two safety objectives or more, and --safety names 1; give it once for each of them")
    objectives = [read_objective(one, template, include or (), grouped=clusters) for one in safety]
    with opened_local(model, device) as base:
        tasks = found_tasks(names, template, include or (), render=base.template, grouped=clusters)
        settings = Settings(
            template=template,
            prompts=prompts,
            items=items,
            layer=layer,
            level=level,
            seed=seed,
            answers=tuple(answer or ()),
            direction=wish,
        )
        if dry_run:
            sizes = ", ".join(f"{printable(one.name)} ({objective_text(one)})" for one in objectives)
            typer.echo(f"{printable(base.name)}, template {template}: {sizes}; {tasks_text(tasks, items)}. Nothing was read.")
            return
        check_out(out)
        from aligntax.predict.conflicts import predict_conflicts

        with bar() as tell:
            found = predict_conflicts(base, objectives, tasks, settings, tell)
    from aligntax.predict.conflict_results import as_json
    from aligntax.report.conflicts_page import render
    from aligntax.report.conflicts_text import view

    tell_prediction(as_json(found), lambda: view(found), lambda: render(found), out, json=json)
