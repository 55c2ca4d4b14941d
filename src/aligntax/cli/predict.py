"""aligntax predict: what the base model says of the tax before anything is trained."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.shared import note
from aligntax.core.errors import InputError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aligntax.models.hf import HFModel

app = typer.Typer(
    help="What a base model says of the alignment tax before anything is trained.", no_args_is_help=True, rich_markup_mode=None
)


@app.callback()
def predict() -> None:
    """What a base model says of the alignment tax before anything is trained."""


@app.command()
def tax(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The base model: lab:base, a folder, a hub id.", show_default=False)],
    safety: Annotated[
        str,
        typer.Option(
            metavar="PROMPTS",
            help="Table with prompt and label (unsafe, safe), or TRL's prompt, chosen, rejected; or tasks as UNSAFE:SAFE.",
            show_default=False,
        ),
    ],
    capabilities: Annotated[
        list[str],
        typer.Option(
            metavar="TASKS", help="What safety should not cost: tasks as measure takes them (repeat, or with commas).", show_default=False
        ),
    ],
    template: Annotated[str, typer.Option(metavar="raw|chat", help="How the model is asked.")] = "raw",
    include: Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Folder of lm-eval tasks (repeat).")] = None,
    clusters: Annotated[
        bool,
        typer.Option(
            "--clusters/--no-clusters",
            help="Whether items of a task that share a cluster count as one: asked of other clusters, not of other items.",
        ),
    ] = False,
    layer: Annotated[
        int | None,
        typer.Option(metavar="L", min=0, help="Layer to be read, 0 for the embeddings; default: chosen by the data.", show_default=False),
    ] = None,
    prompts: Annotated[int, typer.Option(metavar="N", min=32, help="Most prompts of either class.")] = 512,
    items: Annotated[
        int, typer.Option(metavar="N", min=32, help="Most items of a task: half for its direction, half for random concepts.")
    ] = 256,
    concepts: Annotated[int, typer.Option(metavar="N", min=50, help="Random concepts to hold safety against.")] = 100,
    level: Annotated[float, typer.Option(metavar="L", min=0.5, max=0.9999, help="Confidence level.")] = 0.95,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="What would be read; the model's weights are not loaded.")] = False,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for prediction.json and prediction.html; without it nothing is written.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print prediction.json and nothing else.")] = False,
) -> None:
    """How much of a safety objective lies in what tasks need, which tasks it would lower, and how sure that is.

    Reads hidden states and gradients of a local model; nothing is trained and no answer is drawn. The safety direction is the
    difference between unsafe and safe prompts, a task's direction what raises its right answers; their overlap is corrected
    for noise, has an interval, and stands beside that of random concepts. docs/predict.md says what every number means.

    For example:

      aligntax predict tax lab:base --safety lab/harmful_procedures:lab/procedures --capabilities lab

      aligntax predict tax org/base --safety preferences.jsonl --capabilities lm-eval:gsm8k,lm-eval:arc_easy --out prediction
    """
    from aligntax.predict.inputs import capabilities as found_tasks
    from aligntax.predict.inputs import read_objective
    from aligntax.predict.results import Settings, as_json

    if template not in ("raw", "chat"):
        raise InputError(f"--template is raw or chat; got {printable(repr(template))}")
    names = [part.strip() for value in capabilities for part in value.split(",") if part.strip()]
    objective = read_objective(safety, template, include or (), grouped=clusters)
    with _opened(model, device) as base:
        tasks = found_tasks(names, template, include or (), render=base.template, grouped=clusters)
        settings = Settings(template, prompts, items, layer, concepts, level, seed)
        if dry_run:
            sizes = (
                f"{len(objective.unsafe):,} and {len(objective.safe):,} prompts"
                if objective.safe
                else f"{len(objective.unsafe):,} preferences"
            )
            typer.echo(
                f"{printable(base.name)}, template {template}: {sizes}, {len(tasks)} tasks with {sum(min(items, len(t.requests)) for t in tasks):,} items. Nothing was read."
            )
            return
        from aligntax.predict.tax import predict_tax

        with _bar() as tell:
            found = predict_tax(base, objective, tasks, settings, tell)
    text = as_json(found)
    if json:
        sys.stdout.write(text)
    else:
        from aligntax.report.predict_text import view
        from aligntax.report.terminal import console

        console().print(view(found))
    if out is not None:
        from aligntax.report.predict_page import render
        from aligntax.store.run import write_text

        write_text(out / "prediction.json", text)
        note(f"report: {write_text(out / 'prediction.html', render(found))}")


@contextmanager
def _opened(name: str, device: str) -> Iterator[HFModel]:
    """A local model: states of an endpoint's are not to be had."""
    from aligntax.models.references import open_model, parse

    reference = parse(name)
    if reference.where == "api":
        raise InputError(f"{printable(name)} is an endpoint, which shows no states; name a local model (a folder, a hub id, lab:base)")
    opened = open_model(reference, device=device)
    try:
        from aligntax.models.hf import HFModel

        assert isinstance(opened, HFModel)  # noqa: S101 - what is no endpoint is one
        yield opened
    finally:
        opened.close()


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for every part on a terminal, else a line when one is done."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from aligntax.report.terminal import console

    shown = sys.stderr.isatty()
    columns = (TextColumn("{task.description:28s}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console(stderr=True), disable=not shown) as progress:
        rows: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in rows:
                rows[what] = progress.add_task(printable(what), total=total)
            progress.update(rows[what], completed=done, total=total)
            if not shown and done == total:
                note(f"{printable(what)}: {total:,} read")

        yield tell
