"""Two drawings: the plane of safety and capability with its stage tree, and a tax against size. Altair, drawn as ``report.charts`` draws.

Colours are custom properties of the page (``var(--ink)``); names of arms are text beside their points and never values of a scale.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING, Any, Literal

from aligntax.core.words import cut, printable, scale_of
from aligntax.flow.frontier import Coordinate, Frontier, Place, Plane
from aligntax.flow.trend import SizeTrend
from aligntax.report.charts import drawn, styled, unit_text

if TYPE_CHECKING:
    import altair

_INK, _SOFT, _LINE, _PAPER = "var(--ink)", "var(--soft)", "var(--line)", "var(--paper)"
# What is certain of an arm, told by colour and once more by shape.
_COLOURS = {
    "baseline": _INK, "on the frontier": "var(--gain)", "dominated": "var(--tax)", "undetermined": "var(--undetermined)", "arm": "var(--link)",
}  # fmt: skip
_SHAPES = {"baseline": "square", "on the frontier": "triangle-up", "dominated": "triangle-down", "undetermined": "diamond", "arm": "circle"}
_WIDE, _NARROW, _HEIGHT = 480, 300, 340
_STEPS = 60
"""Places at which the band of a trend is computed."""
_LETTER = 6.2
"""Width of a letter of a title, on average."""
_NEAR = 0.07
"""Names closer than this share of the height to one that stands near them are moved up or down."""


@dataclass(frozen=True)
class Dot:
    """One arm, or one size.

    Attributes:
        text: what is written beside it.
        x, y: its place, in the units of the axes.
        x_low, x_high, y_low, y_high: its intervals; None where there is none.
        group: decides colour and shape.
        parent: number of the dot that it was made from, None for a root.
    """

    text: str
    x: float
    y: float
    x_low: float | None
    x_high: float | None
    y_low: float | None
    y_high: float | None
    group: str
    parent: int | None = None


@dataclass(frozen=True)
class Drawing:
    """What a drawing shows: plain values, so that another process can draw it.

    Attributes:
        form: ``plane`` or ``trend``.
        dots: arms, or sizes.
        across, up: titles of the axes.
        line: of a trend (size, line, lower limit, upper limit), from the smallest size to the largest.
        narrow: drawn for a phone.
    """

    form: Literal["plane", "trend"]
    dots: tuple[Dot, ...]
    across: str
    up: str
    line: tuple[tuple[float, float, float, float], ...] = ()
    narrow: bool = False


FORMS = ("plane", "trend")


def drawing_from(values: Mapping[str, Any]) -> Drawing:
    """A drawing from ``dataclasses.asdict`` of one, or from the JSON of that."""
    dots = tuple(Dot(**dot) for dot in values["dots"])
    line = tuple((a, b, c, d) for a, b, c, d in values["line"])
    return Drawing(**{**values, "dots": dots, "line": line})


def plane_drawing(plane: Plane, front: Frontier | None = None) -> Drawing:
    """Arms by what they changed against the baseline in two coordinates, both so that more is better.

    Args:
        plane: arms with intervals and their parents.
        front: what is certain of them; without it all arms look alike.
    """
    where = {} if front is None else {one.arm: one.where for one in front.standings}
    factors = [scale_of(unit) for unit in plane.units]
    numbers = {point.arm: i for i, point in enumerate(plane.points)}
    dots = []
    for i, point in enumerate(plane.points):
        group = "baseline" if i == 0 else where.get(point.arm, "arm")
        x, y = (_scaled(place, factor) for place, factor in zip((point.across, point.up), factors, strict=True))
        parent = None if point.parent is None else numbers.get(point.parent)
        dots.append(Dot(cut(printable(point.arm), 40), x[0], y[0], x[1], x[2], y[1], y[2], group, parent))
    return Drawing("plane", tuple(dots), _title(plane.across, plane.units[0]), _title(plane.up, plane.units[1]))


def trend_drawing(found: SizeTrend) -> Drawing:
    """Changes against size, with the fitted line and its band."""
    factor = scale_of(found.unit)
    dots = tuple(
        Dot(
            cut(printable(p.name), 40), p.size, factor * p.change, None, None,
            None if p.low is None else factor * p.low, None if p.high is None else factor * p.high, "arm",
        )
        for p in found.points
    )  # fmt: skip
    first, last = log10(found.points[0].size), log10(found.points[-1].size)
    sizes = [10 ** (first + (last - first) * i / _STEPS) for i in range(_STEPS + 1)]
    line = tuple((size, *(factor * value for value in found.at(size))) for size in sizes)
    return Drawing("trend", dots, "parameters", f"change ({unit_text(found.unit)}), less than 0 is worse", line)  # type: ignore[arg-type]


def _scaled(place: Place, factor: float) -> tuple[float, float | None, float | None]:
    return factor * place.value, None if place.low is None else factor * place.low, None if place.high is None else factor * place.high


def _title(key: Coordinate, unit: str) -> str:
    kind, metric, task = key
    return f"{kind.replace('_', ' ')} ({cut(printable(task), 30)}, {cut(printable(metric), 30)}), change {unit_text(unit)}, more is better"


def svg(drawing: Drawing) -> str:
    """Draw as an SVG string.

    Raises:
        ValueError: whatever the drawing engine raises.
    """
    return drawn(chart(drawing))


def chart(drawing: Drawing) -> altair.LayerChart:
    """The Altair chart behind ``svg``."""
    return _plane(drawing) if drawing.form == "plane" else _trend(drawing)


def _plane(drawing: Drawing) -> altair.LayerChart:
    import altair as alt

    width = _NARROW if drawing.narrow else _WIDE
    spans = (
        _domain([v for d in drawing.dots for v in (d.x, d.x_low, d.x_high)]),
        _domain([v for d in drawing.dots for v in (d.y, d.y_low, d.y_high)]),
    )
    below, beside = _lines(drawing.across, _NARROW if drawing.narrow else _WIDE), _lines(drawing.up, _HEIGHT)
    x = alt.X("x:Q", title=below, scale=alt.Scale(domain=spans[0], nice=False, zero=False))
    y = alt.Y("y:Q", title=beside, scale=alt.Scale(domain=spans[1], nice=False, zero=False))
    groups = [g for g in _COLOURS if any(d.group == g for d in drawing.dots)]
    legend = alt.Legend(values=[g for g in groups if g != "arm"], columns=2 if drawing.narrow else 0)
    colour = alt.Color("group:N", title=None, scale=alt.Scale(domain=groups, range=[_COLOURS[g] for g in groups]), legend=legend)
    shape = alt.Shape("group:N", title=None, scale=alt.Scale(domain=groups, range=[_SHAPES[g] for g in groups]), legend=legend)
    dots = alt.Chart(_values(drawing.dots))
    edges = [
        {"x": drawing.dots[d.parent].x, "y": drawing.dots[d.parent].y, "x2": d.x, "y2": d.y} for d in drawing.dots if d.parent is not None
    ]
    across = alt.Chart(_values([d for d in drawing.dots if d.x_low is not None and d.x_high is not None]))
    up = alt.Chart(_values([d for d in drawing.dots if d.y_low is not None and d.y_high is not None]))
    layers = [
        *_zeros(),
        alt.Chart(alt.InlineData(values=edges)).mark_rule(color=_SOFT, strokeDash=[4, 3]).encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        across.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=alt.X("xlow:Q", title=below), x2="xhigh:Q", y=y, color=colour),
        up.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=x, y=alt.Y("ylow:Q", title=beside), y2="yhigh:Q", color=colour),
        dots.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        *_names(drawing.dots, spans, width, x, y),
    ]
    return styled(alt.layer(*layers), narrow=drawing.narrow, height=_HEIGHT)


def _trend(drawing: Drawing) -> altair.LayerChart:
    import altair as alt

    sizes = [d.x for d in drawing.dots]
    room = (max(sizes) / min(sizes)) ** 0.06
    # With few sizes the band is many times as high as the points: it is cut where they are still told apart. Not with the engine's
    # clipping, which refers to an element by a name that another drawing of the page has too.
    seen = _domain([0.0, *(v for d in drawing.dots for v in (d.y, d.y_low, d.y_high))], 0.35)
    label = "replace(format(datum.value, '.3~s'), 'G', 'B')"
    x = alt.X(
        "x:Q", title=drawing.across, scale=alt.Scale(type="log", domain=[min(sizes) / room, max(sizes) * room], nice=False),
        axis=alt.Axis(values=sorted(set(sizes)), labelExpr=label, labelOverlap=True, grid=False),
    )  # fmt: skip
    scale = alt.Scale(domain=seen, nice=False, zero=False)
    beside = _lines(drawing.up, _HEIGHT)
    y = alt.Y("y:Q", title=beside, scale=scale)
    line = alt.Chart(
        alt.InlineData(
            values=[dict(zip("xyuv", (x, *(min(max(v, seen[0]), seen[1]) for v in rest)), strict=True)) for x, *rest in drawing.line]
        )
    )
    with_limits = alt.Chart(_values([d for d in drawing.dots if d.y_low is not None and d.y_high is not None]))
    layers = [
        line.mark_area(color=_SOFT, opacity=0.16).encode(x=x, y=alt.Y("u:Q", title=beside, scale=scale), y2="v:Q"),
        _zeros()[1],
        line.mark_line(color=_INK, strokeWidth=1.5).encode(x=x, y=y),
        with_limits.mark_rule(color=_COLOURS["arm"], strokeWidth=2).encode(x=x, y=alt.Y("ylow:Q", title=beside), y2="yhigh:Q"),
        alt.Chart(_values(drawing.dots)).mark_point(filled=True, size=70, opacity=1, color=_COLOURS["arm"]).encode(x=x, y=y),
    ]
    return styled(alt.layer(*layers), narrow=drawing.narrow, height=_HEIGHT)


def _values(dots: Sequence[Dot]) -> Any:
    import altair as alt

    return alt.InlineData(
        values=[
            {"x": d.x, "y": d.y, "xlow": d.x_low, "xhigh": d.x_high, "ylow": d.y_low, "yhigh": d.y_high, "group": d.group, "text": d.text}
            for d in dots
        ]
    )


def _domain(values: Sequence[float | None], share: float = 0.08) -> list[float]:
    """Ends of an axis that show all values, with room beside them."""
    known = [v for v in values if v is not None]
    room = share * (max(known) - min(known)) or 1.0
    return [min(known) - room, max(known) + room]


def _names(dots: Sequence[Dot], spans: tuple[list[float], list[float]], width: int, x: Any, y: Any) -> list[Any]:
    """Names beside their dots, on the side that has room; where several crowd, one under the other. A halo keeps lines out of them."""
    import altair as alt

    (left, right), (bottom, top) = spans
    placed: list[tuple[float, float, str]] = []
    layers = []
    for dot in sorted(dots, key=lambda d: -d.y):
        side: Literal["left", "right"] = "right" if dot.x > (left + right) / 2 else "left"
        height = (dot.y - bottom) / (top - bottom) + 0.025  # above its interval's line
        while any(s == side and abs(h - height) < _NEAR * 0.75 and abs(px - dot.x) < 0.3 * (right - left) for px, h, s in placed):
            height -= _NEAR / 4
        placed.append((dot.x, height, side))
        moved = round(-_HEIGHT * (height - (dot.y - bottom) / (top - bottom)))
        how: dict[str, Any] = {"align": side, "dx": 8 if side == "left" else -8, "dy": moved, "fontSize": 12, "limit": round(0.55 * width)}
        halo = alt.Chart(_values([dot])).mark_text(**how, stroke=_PAPER, strokeWidth=4, strokeJoin="round", color=_PAPER)
        layers += [mark.encode(x=x, y=y, text="text:N") for mark in (halo, alt.Chart(_values([dot])).mark_text(**how, color=_INK))]
    return layers


def _zeros() -> list[Any]:
    import altair as alt

    rule = alt.Chart(alt.InlineData(values=[{"zero": 0}])).mark_rule(color=_LINE, strokeWidth=2)
    return [rule.encode(x="zero:Q"), rule.encode(y="zero:Q")]


def _lines(title: str, room: int) -> str | list[str]:
    """A title in one line, or in two where it is longer than its axis."""
    head, comma, tail = title.partition("), ")
    return [f"{head})", tail] if comma and _LETTER * len(title) > room else title
