"""docs/cli.md: the help of every command, as ``--help`` prints it. ``python -m aligntax.cli.reference > docs/cli.md`` writes it again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from aligntax.cli.main import app

_WIDTH = 110
_HEAD = """# The command line

Written from the program itself (`python -m aligntax.cli.reference > docs/cli.md`); a test holds that it is up to date. Exit codes: 0 done, 1 failed (or found
something, with `--strict`), 2 wrong usage or bad input, 130 interrupted.
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_pages(typer.main.get_command(app), "aligntax", None)])


def _pages(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(
        command, info_name=name.rpartition(" ")[2], parent=parent, terminal_width=_WIDTH, max_content_width=_WIDTH
    )
    # lm-eval's own help stands behind --help; here is what we say of it.
    text = "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield f"{'#' * (name.count(' ') + 2)} {name}\n\n```text\n{text}\n```\n"
    for child in getattr(command, "commands", {}).values():
        if not child.hidden:
            yield from _pages(child, f"{name} {child.name}", context)


if __name__ == "__main__":
    typer.echo(reference(), nl=False)
