"""What the commands of predict share: the model, the tasks' names, progress, and what is written."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aligntax.cli.shared import note
from aligntax.core.errors import InputError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from aligntax.models.hf import HFModel
    from aligntax.predict.results import Wish


def task_names(given: Sequence[str]) -> list[str]:
    """Names of tasks, of which one value may hold several with commas."""
    return [part.strip() for value in given for part in value.split(",") if part.strip()]


def check_template(template: str) -> None:
    """Raises: InputError, unless it is raw or chat."""
    if template not in ("raw", "chat"):
        raise InputError(f"--template is raw or chat; got {printable(repr(template))}")


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
