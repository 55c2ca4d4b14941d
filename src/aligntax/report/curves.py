"""Two drawings of two arms each: reliability diagrams (share right against confidence) and distributions of latencies (share of answers by time).

Drawn as ``report.charts`` draws; arms are told apart by colour and by dashes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from aligntax.core.ledger import Entry
from aligntax.core.words import cut, printable, scale_of
from aligntax.report.charts import drawn, styled, unit_text

if TYPE_CHECKING:
    import altair

_INK, _SOFT = "var(--ink)", "var(--soft)"
_COLOURS, _DASHES = [_INK, "var(--link)"], [[4, 3], [1, 0]]
_HEIGHT = 300
FORMS = ("reliability", "distribution")


@dataclass(frozen=True)
class Curve:
    """One arm: its name, and points (x, y)."""

    name: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curves:
    """What a drawing shows: plain values, so that another process can draw it.

    Attributes:
        form: ``reliability`` or ``distribution``.
        curves: baseline and candidate.
        across, up: titles of the axes.
        narrow: drawn for a phone.
    """

    form: Literal["reliability", "distribution"]
    curves: tuple[Curve, ...]
    across: str
    up: str
    narrow: bool = False


def curves_from(values: Mapping[str, Any]) -> Curves:
    """A drawing from ``dataclasses.asdict`` of one, or from the JSON of that."""
    curves = tuple(Curve(one["name"], tuple((a, b) for a, b in one["points"])) for one in values["curves"])
    return Curves(**{**values, "curves": curves})


def reliability(entry: Entry) -> Curves | None:
    """Share right against confidence, bin by bin; None where an entry has no bins."""
    found = []
    for side, arm in (("baseline", entry.baseline), ("candidate", entry.candidate)):
        bins = [entry.details.get(f"bin_{what}_{side}") for what in ("confidence", "right")]
        if not all(isinstance(one, list) for one in bins):
            return None
        points = tuple((100 * x, 100 * y) for x, y in zip(*bins, strict=True))
        found.append(Curve(cut(printable(arm), 40), points))
    return Curves("reliability", tuple(found), "confidence (per cent)", "right (per cent)")


def distribution(entry: Entry) -> Curves | None:
    """Share of answers up to a time or a size; None where an entry has no distributions."""
    found = []
    for side, arm in (("baseline", entry.baseline), ("candidate", entry.candidate)):
        values = entry.details.get(f"distribution_{side}")
        if not isinstance(values, list) or any(x is None for x in values):
            return None
        step = 100 / (len(values) - 1)
        found.append(
            Curve(cut(printable(arm), 40), tuple((scale_of(entry.unit) * float(x or 0.0), k * step) for k, x in enumerate(values)))
        )
    return Curves(
        "distribution", tuple(found), f"{cut(printable(entry.metric), 40)} ({unit_text(entry.unit)})", "answers up to it (per cent)"
    )


def svg(curves: Curves) -> str:
    """Draw as an SVG string.

    Raises:
        ValueError: whatever the drawing engine raises.
    """
    return drawn(chart(curves))


def chart(curves: Curves) -> altair.LayerChart:
    """The Altair chart behind ``svg``."""
    import altair as alt

    arms = [f"r{i}" for i in range(len(curves.curves))]
    names = json.dumps([one.name for one in curves.curves])
    legend = alt.Legend(labelExpr=f"{names}[toNumber(slice(datum.value, 1))]", labelLimit=260)
    colour = alt.Color("arm:N", title=None, scale=alt.Scale(domain=arms, range=_COLOURS[: len(arms)]), legend=legend)
    dash = alt.StrokeDash("arm:N", title=None, scale=alt.Scale(domain=arms, range=_DASHES[: len(arms)]), legend=legend)
    order = alt.Order("place:Q")
    calibrated = curves.form == "reliability"
    x = alt.X("x:Q", title=curves.across, scale=alt.Scale(domain=[0, 100]) if calibrated else alt.Scale(zero=False))
    y = alt.Y("y:Q", title=curves.up, scale=alt.Scale(domain=[0, 100]))
    base = alt.Chart(_values(curves.curves))
    layers = [
        base.mark_line(strokeWidth=2, interpolate="linear" if calibrated else "step-after").encode(
            x=x, y=y, color=colour, strokeDash=dash, order=order
        )
    ]
    if calibrated:
        layers.append(base.mark_point(filled=True, opacity=1, size=45).encode(x=x, y=y, color=colour))
        ideal = alt.Chart(alt.InlineData(values=[{"x": 0, "y": 0}, {"x": 100, "y": 100}]))
        layers.insert(0, ideal.mark_line(color=_SOFT, strokeWidth=1).encode(x="x:Q", y="y:Q"))
    return styled(alt.layer(*layers), narrow=curves.narrow, height=_HEIGHT)


def _values(curves: Sequence[Curve]) -> Any:
    import altair as alt

    return alt.InlineData(
        values=[{"arm": f"r{i}", "x": x, "y": y, "place": k} for i, one in enumerate(curves) for k, (x, y) in enumerate(one.points)]
    )
