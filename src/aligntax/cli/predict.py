"""aligntax predict: what the base model says of the tax before anything is trained."""

from __future__ import annotations

from typing import Annotated

import typer

from aligntax.cli.predict_conflicts import conflicts
from aligntax.cli.predict_scaling import scaling
from aligntax.cli.predict_verify import verify
from aligntax.cli.predicting import (
    Clusters,
    Device,
    Include,
    Json,
    Kept,
    Layer,
    Level,
    OneSafety,
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
from aligntax.core.words import printable

app = typer.Typer(
    help="What a base model says of the alignment tax before anything is trained.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def predict() -> None:
    """What a base model says of the alignment tax before anything is trained."""


@app.command()
def tax(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base model: lab:base, a folder, a hub id.", show_default=False)],
    safety: OneSafety,
    capabilities: Kept,
    template: Annotated[str, typer.Option(metavar="raw|chat", help="How the model is asked.")] = "raw",
    include: Include = None,
    clusters: Clusters = False,
    layer: Layer = None,
    prompts: Annotated[int, typer.Option(metavar="N", min=32, help="Most prompts of either class.")] = 512,
    items: Annotated[
        int, typer.Option(metavar="N", min=32, help="Most items of a task: half for its direction, half for random concepts.")
    ] = 256,
    concepts: Annotated[int, typer.Option(metavar="N", min=50, help="Random concepts to hold safety against.")] = 100,
    answer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEXT",
            help="What training would have the model say to unsafe prompts, where no table says so (repeat); of unsafe tasks in place of their right answers.",
        ),
    ] = None,
    step: Annotated[
        bool,
        typer.Option(
            "--step/--no-step", help="Whether one step of training is taken, and taken back; it needs weights in float32, three times."
        ),
    ] = True,
    metrics: Annotated[
        bool | None,
        typer.Option(
            "--metrics/--no-metrics", help="Whether the tax rate is told in other metrics [up to 1,024 dimensions].", show_default=False
        ),
    ] = None,
    direction: Annotated[
        str,
        typer.Option(
            metavar="auto|states|answers",
            help="What safety is: auto is what raises the wanted answers, where they are known; states always the difference between mean states.",
        ),
    ] = "auto",
    sweep: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=0,
            help="Of so many tasks, those that safety moves most, also measure whether the model behaves as its directions say (minutes).",
        ),
    ] = 0,
    level: Level = 0.95,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What would be read; the model's weights are not loaded.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """How much of a safety objective lies in what tasks need, which tasks it would lower, and how sure that is.

    Reads hidden states and gradients of a local model; nothing is trained and no answer is drawn. The safety direction is what
    raises the wanted answers to unsafe prompts (or, where nobody names them, the difference between unsafe and safe prompts), a
    task's direction what raises its right answers; their overlap is corrected for noise, has an interval, and stands beside
    that of directions that have nothing to do with safety. One step of training is taken, and taken back: what it does to the
    tasks' answers stands first. docs/predict.md says what every number means.

    For example:

      aligntax predict tax lab:base --safety lab/harmful_procedures:lab/procedures --capabilities lab

      aligntax predict tax org/base --safety preferences.jsonl --capabilities lm-eval:gsm8k,lm-eval:arc_easy --out prediction
    """
    from aligntax.predict.inputs import capabilities as found_tasks
    from aligntax.predict.inputs import read_objective
    from aligntax.predict.results import Settings, as_json

    check_template(template)
    wish = direction_of(direction, "auto", "states", "answers")
    names = task_names(capabilities)
    objective = read_objective(safety, template, include or (), grouped=clusters)
    with opened_local(model, device) as base:
        tasks = found_tasks(names, template, include or (), render=base.template, grouped=clusters)
        settings = Settings(
            template,
            prompts,
            items,
            layer,
            concepts,
            level,
            seed,
            answers=tuple(answer or ()),
            step=step,
            metrics=metrics,
            sweep=sweep,
            direction=wish,
        )
        if dry_run:
            typer.echo(
                f"{printable(base.name)}, template {template}: {objective_text(objective)}, {tasks_text(tasks, items)}. Nothing was read."
            )
            return
        check_out(out)
        from aligntax.predict.tax import predict_tax

        with bar() as tell:
            found = predict_tax(base, objective, tasks, settings, tell)
    from aligntax.report.predict_page import render
    from aligntax.report.predict_text import view

    tell_prediction(as_json(found), lambda: view(found), lambda: render(found), out, json=json)


app.command()(conflicts)
app.command()(scaling)
app.command()(verify)
