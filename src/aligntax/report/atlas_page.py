"""The page of an atlas: one self-contained HTML file without a script, which loads nothing. All text from models and tables is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from markupsafe import Markup

from aligntax.atlas.analysis import Analysis
from aligntax.atlas.claims import claims
from aligntax.core.words import cut, printable
from aligntax.report import atlas_charts as charts
from aligntax.report.atlas_text import BEYOND, COLLAPSED, MATCHED_TITLE, STAGES, doubts, ends_text, grids, lead, sentences
from aligntax.report.grids import decimals
from aligntax.report.pages import asset, attempted, figure, template


def render(found: Analysis) -> str:
    """The page."""
    figures = {
        "staircase": _figure(found, charts.staircase, "Divergence by category"),
        "map": _figure(found, charts.pair_map, "Ratings by pair and model"),
        "tree": _figure(found, charts.tree, "Tree of models"),
        "shares": _figure(found, charts.shares, "What groups explain, against chance"),
        "blind": _figure(found, charts.blind_spots, "Councils that seem to agree"),
        "collapsed": _figure(found, charts.collapsed, "Contested pairs between contradictions and paraphrases"),
        "components": _figure(found, charts.components, "Where ratings vary"),
    }
    tables = {grid.title: grid for grid in grids(found)}
    return template("atlas.html.j2").render(
        css=asset("report.css"),
        title=f"Atlas of {cut(printable(found.source), 80)}",
        lead=lead(found),
        found=found,
        figures=figures,
        tables=tables,
        collapse=COLLAPSED,
        stages=STAGES,
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


def _figure(found: Analysis, draw: Callable[..., str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; None where there is nothing to draw."""
    wide, phone = (attempted(partial(draw, found, narrow=narrow)) for narrow in (False, True))
    return None if wide is None or phone is None else figure(wide, phone, label)
