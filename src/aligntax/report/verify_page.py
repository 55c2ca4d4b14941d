"""The page of a verification: one self-contained HTML file without a script, which loads nothing. All text from models and runs is escaped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from markupsafe import Markup

from aligntax.core.words import cut, printable
from aligntax.predict.verify import Verification
from aligntax.report import verify_charts as charts
from aligntax.report.pages import asset, attempted, figure, template
from aligntax.report.predict_text import MADE_OF
from aligntax.report.verify_text import BASELINE, arm_grid, columns, drops_grid, lead, left_out_notes, points_grid, together_grid


def render(found: Verification) -> str:
    """The page."""
    arms = [
        {
            "name": cut(printable(one.arm), 60),
            "grid": arm_grid(found, one),
            "drops": drops_grid(one, columns(found, one)),
            "figures": [
                made
                for name in columns(found, one)
                if name != BASELINE
                and (made := _figure(partial(charts.drops, one, name), f"Drops of {printable(one.arm)} against {name}")) is not None
            ][:2],
        }
        for one in found.arms
    ]
    return template("verify.html.j2").render(
        css=asset("report.css"),
        title=f"Predictions held against {cut(printable(found.run), 60)}",
        lead=lead(found),
        found=found,
        model=printable(str(found.prediction["model"])),
        objective=printable(str(found.prediction["objective"])),
        made_of=MADE_OF[str(found.prediction["made_of"])],
        together=together_grid(found),
        correlations=_figure(partial(charts.correlations, found), "Predictors by rank correlation with losses"),
        frontiers=[
            (printable(towards), made)
            for towards in dict.fromkeys(p.towards for p in found.points)
            if (
                made := _figure(
                    partial(charts.frontier, found.points, towards, found.tax_rate(towards)),
                    f"Frontier of {towards} with the shifts of trained models",
                )
            )
        ],
        points=points_grid(found.points),
        arms=arms,
        says=[(cut(printable(p.name), 80), p.family, p.says) for p in found.predictors],
        notes=[printable(note) for note in (*found.notes, *left_out_notes(found))],
    )


def _figure(draw: Callable[..., str | None], label: str) -> Markup | None:
    """A drawing for a screen and one for a phone; None where there is nothing to draw."""
    wide, phone = (attempted(partial(draw, narrow=narrow)) for narrow in (False, True))
    return None if wide is None or phone is None else figure(wide, phone, label)
