"""The page of a prediction: one self-contained HTML file without a script, which loads nothing. All text from models and tables is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from markupsafe import Markup

from aligntax.core.words import cut, printable
from aligntax.predict.results import TaxPrediction
from aligntax.report import predict_charts as charts
from aligntax.report.pages import asset, attempted, figure, template
from aligntax.report.predict_text import (
    MADE_OF,
    behaviour_grid,
    costs_grid,
    layers_grid,
    lead,
    metrics_grid,
    others_text,
    place_text,
    risks_grid,
    step_grid,
)


def render(found: TaxPrediction) -> str:
    """The page."""
    drawings = {
        "overlaps": _figure(found, charts.overlaps, "Tasks by overlap with the safety direction"),
        "among": _figure(found, charts.among, "Safety among random concepts"),
        "frontier": _figure(found, charts.frontier, "Frontier of safety and shift along the tasks"),
        "layers": _figure(found, charts.layers, "Tax rate by layer"),
        "step": _figure(found, charts.step, "Answers lost in one step of training, by task"),
    }
    grids = {
        "risks": risks_grid(found),
        "step": step_grid(found),
        "behaviour": behaviour_grid(found),
        "metrics": metrics_grid(found),
        "layers": layers_grid(found),
        "costs": costs_grid(found),
    }
    return template("predict.html.j2").render(
        css=asset("report.css"),
        title=f"Tax of {cut(printable(found.objective), 80)}, before training",
        lead=lead(found),
        found=found,
        model=printable(found.model),
        made_of=MADE_OF[found.made_of],
        others=others_text(found),
        place=place_text(found),
        figures=drawings,
        grids={name: grid for name, grid in grids.items() if grid is not None},
        notes=[printable(note) for note in found.notes],
    )


def _figure(found: TaxPrediction, draw: Callable[..., str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; None where there is nothing to draw."""
    wide, phone = (attempted(partial(draw, found, narrow=narrow)) for narrow in (False, True))
    return None if wide is None or phone is None else figure(wide, phone, label)
