"""The page of an atlas: one self-contained HTML file without a script, which loads nothing. All text from models and tables is escaped."""

from __future__ import annotations

import html
from collections.abc import Callable
from importlib.resources import files

import jinja2
from markupsafe import Markup

from aligntax.atlas.analysis import Analysis
from aligntax.atlas.claims import claims
from aligntax.core.words import cut, printable
from aligntax.report import atlas_charts as charts
from aligntax.report.atlas_text import BEYOND, COLLAPSE, MATCHED_TITLE, decimals, doubts, ends_text, grids, lead, sentences


def render(found: Analysis) -> str:
    """The page."""
    templates = files("aligntax.report") / "templates"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((templates / "atlas.html.j2").read_text(encoding="utf-8"))
    figures = {
        "staircase": _figure(lambda narrow: charts.staircase(found, narrow=narrow), "Divergence by category"),
        "map": _figure(lambda narrow: charts.pair_map(found, narrow=narrow), "Ratings by pair and model"),
        "tree": _figure(lambda narrow: charts.tree(found, narrow=narrow), "Tree of models"),
        "shares": _figure(lambda narrow: charts.shares(found, narrow=narrow), "What groups explain, against chance"),
        "blind": _figure(lambda narrow: charts.blind_spots(found, narrow=narrow), "Councils that seem to agree"),
    }
    tables = {grid.title: grid for grid in grids(found)}
    made: str = template.render(
        css=Markup((templates / "report.css").read_text(encoding="utf-8")),  # noqa: S704 - our own file
        title=f"Atlas of {cut(printable(found.source), 80)}",
        lead=lead(found),
        found=found,
        figures=figures,
        tables=tables,
        collapse=COLLAPSE,
        comparisons=("Against the controls", MATCHED_TITLE, BEYOND, "Step by step"),
        claims=claims(found),
        sentences=sentences(found),
        doubts=doubts(found),
        pairs=[
            {
                "name": printable(row.name), "category": printable(row.category), "mean": decimals(row.mean, 2), "gmd": decimals(row.gmd), "range": decimals(row.range, 2),
                "flagged": "flagged" if row.flagged else "", "lowest": ends_text(row.lowest), "highest": ends_text(row.highest),
                "texts": None if row.texts is None else tuple(printable(t) for t in row.texts),
            }
            for row in sorted(found.pairs, key=lambda r: -(r.gmd or 0.0))
        ],
        models=[
            {
                "name": printable(row.name), "ratings": f"{row.ratings:,}", "missing": f"{row.missing:,}", "mean": decimals(row.mean, 2), "distinct": row.distinct,
                "grid": decimals(row.on_grid, 2), "ends": decimals(row.at_ends, 2), "order": decimals(row.order_absolute), "cluster": "-" if row.cluster is None else row.cluster + 1,
                "groups": ", ".join(f"{printable(k)} {printable(v or '-')}" for k, v in row.groups.items()) or "-",
            }
            for row in found.models
        ],
        shown=len(charts.shown_pairs(found)),
        shown_models=len(charts.shown_models(found)),
    )  # fmt: skip
    return made


def _figure(draw: Callable[[bool], str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; what cannot be drawn says so in its place."""
    drawn = []
    for narrow in (False, True):
        try:
            svg = draw(narrow)
        except Exception as error:  # noqa: BLE001 - the engine raises what it likes, and no drawing is worth an analysis
            said = html.escape(cut(printable(" ".join(str(error).split())), 200))
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40"><text y="24" fill="currentColor">This chart could not be drawn: {said}</text></svg>'
        if svg is None:
            return None
        drawn.append(Markup(svg))  # noqa: S704 - the drawing engine escapes labels; a test feeds it hostile ones
    return Markup(
        '<div class="wide-only" role="img" aria-label="{label}">{wide}</div><div class="narrow" role="img" aria-label="{label}">{narrow}</div>'
    ).format(label=label, wide=drawn[0], narrow=drawn[1])
