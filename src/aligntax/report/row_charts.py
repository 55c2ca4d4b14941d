"""Drawings whose rows are named: axes run over numbers, and names are text marks, since no name may be a value of a scale (the engine cannot draw some words)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from aligntax.core.words import printable
from aligntax.report.charts import drawn, styled

if TYPE_CHECKING:
    import altair

INK = "var(--ink)"


def short(text: str, room: int) -> str:
    """A name for a drawing, its middle left out: names of models begin and end differently."""
    text = printable(text)
    if len(text) <= room:
        return text
    end = (room - 1) // 2
    return f"{text[: room - 1 - end]}…{text[len(text) - end :]}"


def inline(rows: Sequence[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.InlineData(values=list(rows))


def named_rows(names: Sequence[str], room: int, size: int = 12) -> Any:
    """Names as text left of a drawing whose rows are numbers from the top."""
    import altair as alt

    rows = [{"row": i, "text": short(name, room)} for i, name in enumerate(names)]
    base = alt.Chart(inline(rows)).mark_text(align="right", dx=-8, color=INK, fontSize=size, limit=230)
    return base.encode(x=alt.value(0), y=row_axis(len(names)), text="text:N")


def row_axis(count: int, field: str = "row") -> altair.Y:
    """The place of rows that are numbers from the top."""
    import altair as alt

    return alt.Y(f"{field}:Q", axis=None, scale=alt.Scale(domain=[-0.5, count - 0.5], reverse=True, nice=False, zero=False))


def column_axis(count: int, field: str = "column") -> altair.X:
    """The place of columns that are numbers from the left."""
    import altair as alt

    return alt.X(f"{field}:Q", axis=None, scale=alt.Scale(domain=[-0.5, count - 0.5], nice=False, zero=False))


def layered(layers: Sequence[Any], *, narrow: bool, height: int) -> str:
    """Layers as SVG, with room at their sides."""
    import altair as alt

    made = alt.layer(*layers).properties(padding={"left": 12, "top": 5, "right": 12, "bottom": 5})
    return drawn(styled(made, narrow=narrow, height=height))
