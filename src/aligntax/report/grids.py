"""Tables of words, for a terminal and for pages. Nothing in a cell is read as markup."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table as RichTable
from rich.text import Text

from aligntax.core.words import cut, printable

NOTHING = "-"
ROOM = 40
"""Characters of a name in a table."""


@dataclass(frozen=True)
class Grid:
    """A table of words: headings with whether a column holds numbers, rows of cells."""

    title: str
    headings: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def decimals(value: float | None, places: int = 3) -> str:
    """A number, or a dash."""
    return NOTHING if value is None else f"{value:.{places}f}"


def name_text(text: str) -> str:
    """A name of the user's for a cell."""
    return cut(printable(text), ROOM)


def rich_table(grid: Grid) -> RichTable:
    """For a terminal."""
    table = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, numeric in grid.headings:
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table
