"""The page of conflicts: one self-contained HTML file without a script, which loads nothing. All text from models and tables is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from markupsafe import Markup

from aligntax.core.words import cut, printable
from aligntax.predict.conflict_results import Conflicts
from aligntax.report import conflicts_charts as charts
from aligntax.report.conflicts_text import (
    SHAPE,
    doubts,
    footing,
    kept_grid,
    lead,
    levels_grid,
    objectives_grid,
    pairs_grid,
    sorted_pairs,
    tasks_grid,
)
from aligntax.report.grids import name_text
from aligntax.report.pages import asset, attempted, figure, template

MAX_PAIRS = 6
"""Pairs that are drawn, those that pull apart most; the others have their tables."""


def render(found: Conflicts) -> str:
    """The page."""
    pairs = [pair for pair in sorted_pairs(found) if pair.each]
    sections = [
        {
            "title": f"{name_text(pair.first)} and {name_text(pair.second)}",
            "figure": _figure(
                partial(charts.shifts, found, pair), f"{printable(pair.first)} and {printable(pair.second)}: cosine with tasks kept"
            )
            if n < MAX_PAIRS
            else None,
            "grid": tasks_grid(found, pair),
        }
        for n, pair in enumerate(pairs)
    ]
    return template("conflicts.html.j2").render(
        css=asset("report.css"),
        title=f"Conflicts of safety objectives in {cut(printable(found.model), 80)}, before training",
        lead=lead(found),
        shape=SHAPE,
        model=printable(found.model),
        tasks=len(found.tasks),
        map=_figure(partial(charts.conflict_map, found), "Map of conflicts: every two objectives, before and after all tasks are kept"),
        sections=sections,
        grids={"pairs": pairs_grid(found), "kept": kept_grid(found), "levels": levels_grid(found), "objectives": objectives_grid(found)},
        doubts=doubts(found),
        footing=footing(found),
    )


def _figure(draw: Callable[..., str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; None where there is nothing to draw."""
    wide, phone = (attempted(partial(draw, narrow=narrow)) for narrow in (False, True))
    return None if wide is None or phone is None else figure(wide, phone, label)
