"""What the commands of predict share: the model, the tasks' names, progress, and what is written."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.shared import note
from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import RenderableType

    from aligntax.models.hf import HFModel
    from aligntax.predict.inputs import Capability, Objective
    from aligntax.predict.results import Wish

OneSafety = Annotated[
    str,
    typer.Option(
        metavar="PROMPTS",
        help="Table with prompt and label (unsafe, safe), or TRL's prompt, chosen, rejected; or tasks as UNSAFE:SAFE.",
        show_default=False,
    ),
]
Kept = Annotated[
    list[str],
    typer.Option(
        metavar="TASKS", help="What safety should not cost: tasks as measure takes them (repeat, or with commas).", show_default=False
    ),
]
Include = Annotated[list[Path] | None, typer.Option(metavar="DIR", help="Folder of lm-eval tasks (repeat).")]
Clusters = Annotated[
    bool,
    typer.Option(
        "--clusters/--no-clusters",
        help="Whether items of a task that share a cluster count as one: asked of other clusters, not of other items.",
    ),
]
Layer = Annotated[
    int | None,
    typer.Option(metavar="L", min=0, help="Layer to be read, 0 for the embeddings; default: chosen by the data.", show_default=False),
]
Level = Annotated[float, typer.Option(metavar="L", min=0.5, max=0.9999, help="Confidence level.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="auto, cpu, cuda.")]
Out = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Folder for prediction.json and prediction.html; without it nothing is written.")
]
Json = Annotated[bool, typer.Option("--json", help="Print prediction.json and nothing else.")]


def task_names(given: Sequence[str]) -> list[str]:
    """Names of tasks, of which one value may hold several with commas."""
    return [part.strip() for value in given for part in value.split(",") if part.strip()]


def check_template(template: str) -> None:
    """Raises: InputError, unless it is raw or chat."""
    if template not in ("raw", "chat"):
        raise InputError(f"--template is raw or chat; got {printable(repr(template))}")


def check_out(out: Path | None) -> None:
    """Refuse a folder that cannot be written, before minutes of work.

    Raises:
        InputError, RunError: saying why.
    """
    from aligntax.store.run import check_writable

    if out is not None and out.exists() and not out.is_dir():
        raise InputError(f"{printable(str(out))} is a file, and --out names a folder")
    if out is not None:
        check_writable(out)


def objective_text(one: Objective) -> str:
    """How many prompts or preferences an objective has."""
    return f"{len(one.unsafe):,} and {len(one.safe):,} prompts" if one.safe else f"{len(one.unsafe):,} preferences"


def tasks_text(tasks: Sequence[Capability], items: int) -> str:
    """How many tasks there are, with how many items that are read."""
    return f"{len(tasks)} tasks with {items_text(sum(min(items, len(t.requests)) for t in tasks))}"


def direction_of(name: str, *allowed: Wish) -> Wish:
    """Raises: InputError, unless it is one of those allowed."""
    found = next((one for one in allowed if one == name), None)
    if found is None:
        raise InputError(f"--direction is {', '.join(allowed[:-1])} or {allowed[-1]}; got {printable(repr(name))}")
    return found


def tell_prediction(
    text: str, shown: Callable[[], RenderableType], page: Callable[[], str], out: Path | None, *, json: bool, name: str = "prediction"
) -> None:
    """Print a result, as JSON or for people, and write both files if a folder is named.

    Args:
        text: the JSON.
        shown: for a terminal.
        page: the HTML.
        out: folder, or None.
        json: print the JSON and nothing else.
        name: of both files.
    """
    if json:
        sys.stdout.write(text)
    else:
        from aligntax.report.terminal import console

        console().print(shown())
    if out is not None:
        from aligntax.store.run import write_text

        made = page()
        write_text(out / f"{name}.json", text)
        note(f"report: {write_text(out / f'{name}.html', made)}")


@contextmanager
def opened_local(name: str, device: str) -> Iterator[HFModel]:
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
def bar() -> Iterator[Callable[[str, int, int], None]]:
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
