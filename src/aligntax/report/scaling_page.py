"""The page of a tax over widths: one self-contained HTML file without a script, which loads nothing. All text from models and tables is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from markupsafe import Markup

from aligntax.core.words import cut, printable
from aligntax.predict.scaling_results import Scaling
from aligntax.report import scaling_charts as charts
from aligntax.report.pages import asset, attempted, figure, template
from aligntax.report.scaling_text import between_text, fits_grid, laws_text, lead, models_grid, overlaps_grid


def render(found: Scaling) -> str:
    """The page."""
    return template("scaling.html.j2").render(
        css=asset("report.css"),
        title=f"Tax of {cut(printable(found.objective), 80)} in wider models",
        lead=lead(found),
        found=found,
        laws=laws_text(found.by_width.study, found.by_width.reason),
        between=between_text(found),
        figures={
            "rates": _figure(found, charts.rates, "Tax rate by width, with laws"),
            "beyond": _figure(found, charts.beyond, "Tax rate beyond chance by width"),
        },
        grids={"models": models_grid(found), "fits": fits_grid(found), "overlaps": overlaps_grid(found)},
        notes=[printable(note) for note in found.notes],
    )


def _figure(found: Scaling, draw: Callable[..., str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; None where there is nothing to draw."""
    wide, phone = (attempted(partial(draw, found, narrow=narrow)) for narrow in (False, True))
    return None if wide is None or phone is None else figure(wide, phone, label)
