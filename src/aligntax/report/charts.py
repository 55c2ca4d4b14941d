"""Plots: Altair specifications, drawn to SVG by vl-convert without a browser or a network.

Colours are custom properties of the page that shows them (``var(--tax)``), so that one drawing serves light, dark and print.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from aligntax.core.explain import first_rows, is_subgroup
from aligntax.core.words import VERDICT_WORDS, change_unit, cut, printable, scale_of

if TYPE_CHECKING:
    import altair

    from aligntax.core.ledger import Entry

Form = Literal["forest", "waterfall", "scatter", "effects"]
# Names of the page's colours (Okabe and Ito's palette, told apart with any colour vision); shapes say the same once more.
COLOURS = {
    "tax": "var(--tax)", "gain": "var(--gain)", "no tax": "var(--no-tax)", "undetermined": "var(--undetermined)", "-": "var(--undetermined)",
    "weights": "var(--link)", "template": "var(--ink)", "start": "var(--soft)",
}  # fmt: skip
_SHAPES = {
    "tax": "triangle-down", "gain": "triangle-up", "no tax": "circle", "undetermined": "diamond", "-": "diamond",
    "weights": "circle", "template": "square", "start": "stroke",
}  # fmt: skip
_INK, _SOFT, _LINE = "var(--ink)", "var(--soft)", "var(--line)"
MAX_ROWS = 60
NAMED = 6
"""Points of a scatter plot that are named although nothing was established there: the farthest to the right."""
_WIDE, _NARROW = 480, 300
_STEP, _NARROW_STEP = 21, 36
_LETTER = 6.4
"""Width of a letter of a label, on average: labels stand left, so that what belongs to the row above can be set in."""


@dataclass(frozen=True)
class Mark:
    """One row or point of a plot.

    Attributes:
        label: its name, distinct within the plot.
        value: where its mark stands, in the unit of the plot's axis.
        low: lower end of its line; the start of a waterfall's bar; the place on a scatter plot's horizontal axis.
        high: upper end of its line.
        group: verdict in words, or which effect; decides colour and shape.
        text: what is written beside it.
    """

    label: str
    value: float
    low: float | None
    high: float | None
    group: str
    text: str = ""


@dataclass(frozen=True)
class Plot:
    """What a plot shows: plain values, so that another process can draw it.

    Attributes:
        form: which plot.
        marks: its rows or points.
        axis: title of the axis of values.
        margin: half-width of the grey band; None for no band.
        across: title of a scatter plot's horizontal axis.
        narrow: drawn for a phone: labels above their rows.
    """

    form: Form
    marks: tuple[Mark, ...]
    axis: str
    margin: float | None = None
    across: str = ""
    narrow: bool = False


def plot_from(values: Mapping[str, Any]) -> Plot:
    """A plot from ``dataclasses.asdict`` of one."""
    return Plot(**{**values, "marks": tuple(Mark(**mark) for mark in values["marks"])})


def forest_plot(entries: Sequence[Entry]) -> Plot:
    """The plot of entries that share one unit: one row each, at most ``MAX_ROWS``; entries without a change are left out."""
    shown = first_rows([e for e in entries if e.change is not None], MAX_ROWS)
    unit, margin = shown[0].unit, shown[0].margin
    factor = scale_of(unit)

    def scaled(x: float | None) -> float | None:
        return None if x is None else x * factor

    return Plot(
        "forest",
        tuple(
            Mark(name, (e.change or 0.0) * factor, scaled(e.ci_low), scaled(e.ci_high), VERDICT_WORDS[e.verdict])
            for e, name in zip(shown, labels(shown), strict=True)
        ),
        axis=f"change ({unit_text(unit)}), candidate - baseline",
        margin=scaled(margin) if all(e.margin == margin for e in shown) else None,
    )


def scatter_plot(points: Sequence[tuple[Entry, float]], across: str) -> Plot:
    """Changes, all in one unit, against another quantity of the same comparison."""
    unit = points[0][0].unit
    factor = scale_of(unit)
    far = sorted((x for _, x in points), reverse=True)[:NAMED][-1]
    names = labels([entry for entry, _ in points])
    marks = [
        Mark(name, (e.change or 0.0) * factor, x, None, VERDICT_WORDS[e.verdict], name if e.verdict in ("tax", "gain") or x >= far else "")
        for name, (e, x) in zip(names, points, strict=True)
    ]
    return Plot("scatter", tuple(marks), axis=f"change ({unit_text(unit)})", across=across)


def unit_text(unit: str) -> str:
    """A unit for an axis: short, and never a word that the drawing engine knows."""
    return f"in {cut(printable(change_unit(unit)), 30)}"


def svg(plot: Plot) -> str:
    """Draw a plot as an SVG string.

    Raises:
        ValueError: whatever the drawing engine raises.
    """
    return drawn(chart(plot))


def drawn(chart: altair.LayerChart) -> str:
    """A chart as an SVG string."""
    import vl_convert
    from altair.utils.schemapi import debug_mode

    with debug_mode(False):  # the tests check the same specifications against the schema; here that would take as long as drawing
        spec = chart.to_dict(validate=False)
    svg: str = vl_convert.vegalite_to_svg(json.dumps(spec))
    return svg


def chart(plot: Plot) -> altair.LayerChart:
    """The Altair chart behind ``svg``."""
    return {"forest": _forest, "waterfall": _waterfall, "scatter": _scatter, "effects": _effects}[plot.form](plot)


def _values(marks: Sequence[Mark], among: Sequence[Mark] = ()) -> Any:
    """Marks as data, their rows numbered as they stand ``among`` others: a name of a task is never a value of a scale, where some are keywords."""
    import altair as alt

    rows = {label: i for i, label in enumerate(dict.fromkeys(m.label for m in (among or marks)))}
    return alt.InlineData(
        values=[
            {"label": m.label, "value": m.value, "low": m.low, "high": m.high, "group": m.group, "text": m.text, "row": f"r{rows[m.label]}"}
            for m in marks
        ]
    )


def _coloured(plot: Plot) -> tuple[Any, Any]:
    """Colour and shape by group, with the legend of the groups that occur."""
    import altair as alt

    groups = [g for g in COLOURS if any(m.group == g for m in plot.marks)]
    told = [g for g in groups if g not in ("-", "start")]
    legend = alt.Legend(values=told) if told else None
    colour = alt.Color("group:N", title=None, scale=alt.Scale(domain=groups, range=[COLOURS[g] for g in groups]), legend=legend)
    shape = alt.Shape("group:N", title=None, scale=alt.Scale(domain=groups, range=[_SHAPES[g] for g in groups]), legend=legend)
    return colour, shape


def _rows(plot: Plot) -> tuple[Any, list[Any]]:
    """The axis of rows, and the layers that carry their names: an axis where there is room, else text above each row."""
    import altair as alt

    names = list(dict.fromkeys(m.label for m in plot.marks))
    rows = [f"r{i}" for i in range(len(names))]
    if not plot.narrow:
        room = min(260.0, 10 + _LETTER * max(map(len, names), default=0))
        shown = f"slice({json.dumps([f'#{name}' for name in names])}[toNumber(slice(datum.value, 1))], 1)"
        axis = alt.Axis(labelExpr=shown, labelLimit=260, labelAlign="left", labelPadding=room, ticks=False, domain=False)
        return alt.Y("row:N", sort=rows, title=None, axis=axis), []
    text = alt.Chart(_values([Mark(name, 0.0, None, None, "") for name in names]))
    y = alt.Y("row:N", sort=rows, title=None, axis=None)
    named = text.mark_text(
        align="left", baseline="bottom", dy=-16 if plot.form == "effects" else -6, fontSize=12, limit=_NARROW, color=_INK
    ).encode(x=alt.value(0), y=y, text="label:N")
    return y, [named]


def _forest(plot: Plot) -> altair.LayerChart:
    import altair as alt

    y, layers = _rows(plot)
    colour, shape = _coloured(plot)
    x = alt.X("value:Q", title=plot.axis)
    base = alt.Chart(_values(plot.marks))
    layers = [
        *_band(plot.margin),
        _zero("x"),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=plot.axis), x2="high:Q", y=y, color=colour),
        base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        *layers,
    ]
    return _styled(alt.layer(*layers), plot)


def _effects(plot: Plot) -> altair.LayerChart:
    """A forest plot with several effects beside each other in one row."""
    import altair as alt

    y, layers = _rows(plot)
    colour, shape = _coloured(plot)
    across = alt.YOffset("group:N", scale=alt.Scale(paddingOuter=0.4))
    base = alt.Chart(_values(plot.marks))
    layers = [
        _zero("x"),
        base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=plot.axis), x2="high:Q", y=y, yOffset=across, color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(
            x=alt.X("value:Q", title=plot.axis), y=y, yOffset=across, color=colour, shape=shape
        ),
        *layers,
    ]
    return _styled(alt.layer(*layers), plot)


def _waterfall(plot: Plot) -> altair.LayerChart:
    """A bar per stage from its parent's value to its own; the first stage is a line."""
    import altair as alt

    y, layers = _rows(plot)
    colour, _ = _coloured(plot)
    ends = [end for m in plot.marks for end in (m.value, m.low) if end is not None]
    room = 0.05 * (max(ends) - min(ends)) or 1.0
    x = alt.X("value:Q", title=plot.axis, scale=alt.Scale(domain=[min(ends) - room, max(ends) + 4 * room], zero=False, nice=True))
    bars, starts = ([m for m in plot.marks if (m.low is None) == start] for start in (False, True))
    text = alt.Chart(_values([replace(m, value=max(m.value, m.value if m.low is None else m.low)) for m in plot.marks], plot.marks))
    layers = [
        alt.Chart(_values(bars, plot.marks)).mark_bar(height=11, minBandSize=3).encode(x=x, x2="low:Q", y=y, color=colour),
        alt.Chart(_values(plot.marks)).mark_tick(thickness=3, size=17, color=_INK).encode(x=x, y=y),
        text.mark_text(align="left", dx=7, fontSize=12, color=_INK).encode(x=x, y=y, text="text:N"),
        *layers,
    ]
    if starts:
        layers.insert(0, alt.Chart(_values(starts, plot.marks)).mark_rule(strokeDash=[3, 3], color=_SOFT).encode(x=x))
    return _styled(alt.layer(*layers), plot)


def _scatter(plot: Plot) -> altair.LayerChart:
    import altair as alt

    colour, shape = _coloured(plot)
    x, y = alt.X("low:Q", title=plot.across), alt.Y("value:Q", title=plot.axis)
    base = alt.Chart(_values(plot.marks))
    points = base.mark_point(filled=True, size=70, opacity=1).encode(x=x, y=y, color=colour, shape=shape)
    return _styled(alt.layer(_zero("y"), points, *_names(plot.marks, x, y)), plot)


def _names(marks: Sequence[Mark], x: Any, y: Any) -> list[Any]:
    """Names beside their points, on the side that has room; of two at about one height the lower one's stands below, the other's above."""
    import altair as alt

    middle = max((m.low or 0.0 for m in marks), default=0.0) / 2
    near = 0.12 * (max(m.value for m in marks) - min(m.value for m in marks))
    named = sorted((m for m in marks if m.text), key=lambda m: (m.value, m.low or 0.0))
    places: dict[tuple[Literal["left", "right"], int], list[Mark]] = {}
    side = 0
    for mark, above in zip(named, [*named[1:], None], strict=True):
        crowded = above is not None and above.value - mark.value < near
        side = -side if side > 0 else int(crowded)
        places.setdefault(("right" if (mark.low or 0.0) > middle else "left", side), []).append(mark)
    return [
        alt.Chart(_values(of)).mark_text(align=align, dx=7 if align == "left" else -7, dy=9 * side, fontSize=12, color=_INK)
        .encode(x=x, y=y, text="text:N")
        for (align, side), of in places.items()
    ]  # fmt: skip


def _zero(axis: str) -> Any:
    import altair as alt

    rule = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=_INK)
    return rule.encode(x="zero:Q") if axis == "x" else rule.encode(y="zero:Q")


def _band(margin: float | None) -> list[Any]:
    import altair as alt

    if margin is None:
        return []
    band = alt.Chart(alt.InlineData(values=[{"from": -margin, "to": margin}]))
    return [band.mark_rect(color=_SOFT, opacity=0.16).encode(x="from:Q", x2="to:Q")]


def _styled(chart: Any, plot: Plot) -> altair.LayerChart:
    import altair as alt

    step = (_NARROW_STEP if plot.narrow else _STEP) + (12 if plot.form == "effects" else 0)
    return styled(chart, narrow=plot.narrow, height=340 if plot.form == "scatter" else alt.Step(step, **{"for": "position"}))


def styled(chart: Any, *, narrow: bool, height: Any) -> altair.LayerChart:
    """A chart in the page's colours and fonts, as wide as a screen's column or a phone."""
    font = {"labelFont": "sans-serif", "titleFont": "sans-serif", "labelColor": _INK, "titleColor": _SOFT, "labelFontSize": 12}
    made: altair.LayerChart = (
        chart.properties(width=_NARROW if narrow else _WIDE, height=height, background="transparent")
        .configure(aria=False)  # the page names the figure, and the table beside it has the numbers
        .configure_view(stroke=None)
        .configure_axis(**font, gridColor=_LINE, tickColor=_SOFT, domainColor=_SOFT, titleFontSize=12, titleFontWeight="normal")
        .configure_axisX(tickCount=5 if narrow else 8)
        .configure_legend(**font, orient="top", title=None)
    )
    return made


def labels(entries: Sequence[Entry]) -> list[str]:
    """Row labels, made distinct: a chart merges rows of one name. A subgroup of a task that is a row itself stands under it."""
    names: list[str] = []
    for entry in entries:
        full = printable(entry.task)
        name = cut(f"· {full.split('/', 1)[1]}" if is_subgroup(entry) and "/" in full else full, 60)
        if name in names:
            name = cut(f"{name} ({printable(entry.metric)})", 60)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return names
