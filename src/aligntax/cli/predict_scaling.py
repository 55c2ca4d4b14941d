"""aligntax predict scaling: how the tax changes over a family of widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.predicting import (
    Clusters,
    Device,
    Include,
    Json,
    Kept,
    Level,
    OneSafety,
    Out,
    Seed,
    bar,
    check_out,
    check_template,
    objective_text,
    opened_local,
    task_names,
    tasks_text,
    tell_prediction,
)
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aligntax.models.hf import HFModel


def scaling(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="Base models of different widths, made alike: lab:base, folders, hub ids. Several seeds of a width are welcome.",
            show_default=False,
        ),
    ],
    safety: OneSafety,
    capabilities: Kept,
    template: Annotated[str, typer.Option(metavar="raw|chat", help="How models are asked.")] = "raw",
    include: Include = None,
    clusters: Clusters = False,
    depth: Annotated[
        float,
        typer.Option(
            metavar="D",
            min=0.0,
            max=1.0,
            help="Layer to be read, as a share of the depth, the same in all models: 0 the embeddings, 1 the last layer.",
        ),
    ] = 0.6,
    prompts: Annotated[int, typer.Option(metavar="N", min=16, help="Most prompts of either class.")] = 512,
    items: Annotated[
        int, typer.Option(metavar="N", min=32, help="Most items of a task: half for its direction, half for random concepts.")
    ] = 256,
    concepts: Annotated[int, typer.Option(metavar="N", min=0, help="Random concepts to hold safety against; 0 for none.")] = 60,
    level: Level = 0.95,
    seed: Seed = 0,
    device: Device = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What would be read; weights are not loaded.")] = False,
    out: Out = None,
    json: Json = False,
) -> None:
    """Whether the tax of safety vanishes in wider models: what is left of it however wide, and what is crowding alone.

    Reads states and gradients of one model after the other, as predict tax does, at one relative depth and by the tasks that all
    models can be compared by. Rates stand beside what chance gives at each width, since that falls with width too; laws of how the
    tax falls are fitted and compared. A law takes three widths, a comparison of laws five. docs/predict.md says what every number means.

    For example:

      aligntax predict scaling lab:base lab:base-w96 lab:base-w64 lab:base-w48 lab:base-w32 --safety lab/harmful_procedures:lab/procedures --capabilities lab

      aligntax predict scaling org/base-70m org/base-160m org/base-410m org/base-1b org/base-3b --safety preferences.jsonl --capabilities lm-eval:arc_easy,lm-eval:sciq --out widths
    """
    from aligntax.predict.inputs import capabilities as found_tasks
    from aligntax.predict.inputs import read_objective
    from aligntax.predict.scaling_results import ScalingSettings, as_json

    check_template(template)
    names = task_names(capabilities)
    objective = read_objective(safety, template, include or (), grouped=clusters)
    tasks = found_tasks(names, template, include or (), grouped=clusters)  # conversations as such: every model has its own template
    widths = _widths(models, device)
    settings = ScalingSettings(template, prompts, items, depth, concepts, level, seed)
    if dry_run:
        told = ", ".join(f"{printable(name)} ({width:,})" for name, width in widths.items())
        typer.echo(f"{told}; template {template}: {objective_text(objective)}, {tasks_text(tasks, items)}. Nothing was read.")
        return
    check_out(out)
    from aligntax.predict.scaling import predict_scaling

    with bar() as tell:
        found = predict_scaling(_opened(models, device), objective, tasks, settings, tell)
    from aligntax.report.scaling_page import render
    from aligntax.report.scaling_text import view

    tell_prediction(as_json(found), lambda: view(found), lambda: render(found), out, json=json)


def _widths(names: Sequence[str], device: str) -> dict[str, int]:
    """Dimensions by model, before anything is read of any.

    Raises:
        InputError: if one cannot be had, is named twice, or all have one width.
    """
    from aligntax.models.hf import load_config
    from aligntax.predict.scaling import check_new, check_widths

    widths: dict[str, int] = {}
    known: dict[str, Mapping[str, object]] = {}
    for model in _opened(names, device):
        check_new(model.name, model.identity, known)
        known[model.name] = model.identity
        widths[model.name] = int(load_config(model.folder).get_text_config().hidden_size)
    check_widths(widths)
    return widths


def _opened(names: Sequence[str], device: str) -> Iterator[HFModel]:
    """One model at a time: the last is closed before the next is opened."""
    for name in names:
        with opened_local(name, device) as model:
            yield model
