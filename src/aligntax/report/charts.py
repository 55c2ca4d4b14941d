"""Forest plots: Altair specifications, drawn to SVG by vl-convert without a browser or a network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aligntax.core.words import VERDICT_WORDS, change_unit, cut, is_fraction, printable

if TYPE_CHECKING:
    import altair

    from aligntax.core.ledger import Entry

# Okabe and Ito's palette, told apart with any colour vision; shapes say the same once more.
COLOURS = {"tax": "#d55e00", "gain": "#0072b2", "no tax": "#009e73", "undetermined": "#6b6b6b", "-": "#6b6b6b"}
_SHAPES = {"tax": "triangle-down", "gain": "triangle-up", "no tax": "circle", "undetermined": "diamond", "-": "diamond"}
MAX_ROWS = 60
NAMED = 6
"""Points of a scatter plot that are named although nothing was established there: the farthest to the right."""


@dataclass(frozen=True)
class Plot:
    """What a plot shows: plain values, so that another process can draw it.

    Attributes:
        rows: (label, change, low, high, verdict in words) per row, in the unit of ``axis``. In a scatter plot ``low`` is the place on the
            horizontal axis.
        axis: title of the axis of changes.
        margin: half-width of the grey band; None for no band.
        across: title of a scatter plot's horizontal axis; empty for a forest plot.
    """

    rows: tuple[tuple[str, float, float | None, float | None, str], ...]
    axis: str
    margin: float | None
    across: str = ""


def forest_plot(entries: Sequence[Entry]) -> Plot:
    """The plot of entries that share one unit: one row each, at most ``MAX_ROWS``; entries without a change are left out."""
    shown = [e for e in entries if e.change is not None][:MAX_ROWS]
    unit, margin = shown[0].unit, shown[0].margin
    factor = 100.0 if is_fraction(unit) else 1.0

    def scaled(x: float | None) -> float | None:
        return None if x is None else x * factor

    return Plot(
        rows=tuple(
            (name, (e.change or 0.0) * factor, scaled(e.ci_low), scaled(e.ci_high), VERDICT_WORDS[e.verdict])
            for e, name in zip(shown, _labels(shown), strict=True)
        ),
        axis=f"change ({printable(change_unit(unit))}), candidate - baseline",
        margin=scaled(margin) if all(e.margin == margin for e in shown) else None,
    )


def scatter_plot(points: Sequence[tuple[Entry, float]], across: str) -> Plot:
    """Changes, all in one unit, against another quantity of the same comparison."""
    unit = points[0][0].unit
    factor = 100.0 if is_fraction(unit) else 1.0
    far = sorted((x for _, x in points), reverse=True)[:NAMED][-1]
    settled = {"tax", "gain"}
    names = _labels([entry for entry, _ in points])
    names = [name if e.verdict in settled or x >= far else "" for name, (e, x) in zip(names, points, strict=True)]
    return Plot(
        rows=tuple(
            (name, (e.change or 0.0) * factor, x, None, VERDICT_WORDS[e.verdict]) for name, (e, x) in zip(names, points, strict=True)
        ),
        axis=f"change ({printable(change_unit(unit))})",
        margin=None,
        across=across,
    )


def svg(plot: Plot) -> str:
    """Draw a plot as an SVG string."""
    import vl_convert

    drawn: str = vl_convert.vegalite_to_svg(json.dumps(chart(plot).to_dict()))
    return drawn


def chart(plot: Plot) -> altair.LayerChart:
    """The Altair chart behind ``svg``."""
    return _scatter(plot) if plot.across else _forest(plot)


def _scatter(plot: Plot) -> altair.LayerChart:
    import altair as alt

    keys = ("task", "change", "x", "none", "verdict")
    verdicts = [v for v in COLOURS if any(row[4] == v for row in plot.rows)]
    base = alt.Chart(alt.InlineData(values=[dict(zip(keys, row, strict=True)) for row in plot.rows]))
    x, y = alt.X("x:Q", title=plot.across), alt.Y("change:Q", title=plot.axis)
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=x,
        y=y,
        color=alt.Color("verdict:N", title=None, scale=alt.Scale(domain=verdicts, range=[COLOURS[v] for v in verdicts])),
        shape=alt.Shape("verdict:N", title=None, scale=alt.Scale(domain=verdicts, range=[_SHAPES[v] for v in verdicts])),
    )
    names = base.mark_text(align="left", dx=7, fontSize=10).encode(x=x, y=y, text="task:N")
    zero = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color="#333333").encode(y="zero:Q")
    return _styled(alt.layer(zero, points, names).properties(width=560, height=340))


def _forest(plot: Plot) -> altair.LayerChart:
    import altair as alt

    names = [row[0] for row in plot.rows]
    keys = ("task", "change", "low", "high", "verdict")
    verdicts = [v for v in COLOURS if any(row[4] == v for row in plot.rows)]
    y = alt.Y("task:N", sort=names, title=None, axis=alt.Axis(labelLimit=320, ticks=False, domain=False))
    colour = alt.Color("verdict:N", title=None, scale=alt.Scale(domain=verdicts, range=[COLOURS[v] for v in verdicts]))
    shape = alt.Shape("verdict:N", title=None, scale=alt.Scale(domain=verdicts, range=[_SHAPES[v] for v in verdicts]))
    base = alt.Chart(alt.InlineData(values=[dict(zip(keys, row, strict=True)) for row in plot.rows]))
    layers: list[Any] = []
    if plot.margin is not None:
        band = alt.Chart(alt.InlineData(values=[{"from": -plot.margin, "to": plot.margin}]))
        layers.append(band.mark_rect(color="#888888", opacity=0.13).encode(x="from:Q", x2="to:Q"))
    layers.append(alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color="#333333").encode(x="zero:Q"))
    layers.append(base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=plot.axis), x2="high:Q", y=y, color=colour))
    layers.append(
        base.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("change:Q", title=plot.axis), y=y, color=colour, shape=shape)
    )
    return _styled(alt.layer(*layers).properties(width=640, height=alt.Step(21)))


def _styled(chart: Any) -> altair.LayerChart:
    made: altair.LayerChart = (
        chart.configure_view(stroke=None)
        .configure_axis(labelFont="sans-serif", titleFont="sans-serif", gridColor="#e6e6e6")
        .configure_legend(labelFont="sans-serif", titleFont="sans-serif", orient="top", title=None)
    )
    return made


def _labels(entries: Sequence[Entry]) -> list[str]:
    """Row labels, made distinct: a chart merges rows of one name."""
    names: list[str] = []
    for entry in entries:
        name = cut(printable(entry.task), 60)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names
