"""Drawings of conflicts between safety objectives: the map before and after tasks are kept, and what keeping each task does to one pair. Altair, in the page's colours."""

from __future__ import annotations

from typing import Any

from aligntax.core.words import number
from aligntax.predict.conflict_results import Conflicts, Outcome, Pair, outcome
from aligntax.report.charts import drawn, styled
from aligntax.report.conflicts_text import side, sorted_tasks
from aligntax.report.row_charts import INK, column_axis, inline, layered, named_rows, row_axis, short
from aligntax.stats.directions import Jackknifed

_SOFT = "var(--soft)"
_SIDES = {"apart": "var(--tax)", "together": "var(--gain)", "neither": _SOFT}
_WEAKER, _WORSE, _ELSE = "conflict weaker", "conflict worse or made", "neither"
_KEEPING: dict[Outcome, str] = {
    "resolved": _WEAKER,
    "mediated": _WEAKER,
    "attenuated": _WEAKER,
    "worsened": _WORSE,
    "induced": _WORSE,
}
_COLOURS = {_WEAKER: "var(--gain)", _WORSE: "var(--tax)", _ELSE: _SOFT}
_ROW, _STEP = 30, 24
_FAINT, _STRONG = 0.12, 0.45
"""Opacity of cells: the page's letters stay legible on the strongest, in light and dark."""
MAX_OBJECTIVES, MAX_TASKS = 12, 40


def conflict_map(found: Conflicts, *, narrow: bool) -> str | None:
    """Cosines of every two objectives as coloured cells: with nothing kept, and with all tasks kept beside it (below it on a phone)."""
    import altair as alt

    size = len(found.objectives)
    if size > MAX_OBJECTIVES:
        return None
    place = {one.name: n for n, one in enumerate(found.objectives)}
    tables = [("nothing kept", [pair.rho for pair in found.pairs])]
    if found.tasks:
        tables.append(("all tasks kept", [pair.together.partial if pair.together else None for pair in found.pairs]))
    titles, heads, names, cells = [], [], [], []
    for n, (title, values) in enumerate(tables):
        top, left = (n * (size + 2), 0) if narrow else (0, n * (size + 1))
        titles.append({"row": top, "column": left - 0.48, "text": title})
        heads += [{"row": top + 1, "column": left + j, "text": f"{j + 1}"} for j in range(size)]
        if narrow or not n:
            names += [
                {"row": top + 2 + i, "text": f"{i + 1} {short(one.name, 18 if narrow else 34)}"} for i, one in enumerate(found.objectives)
            ]
        for pair, value in zip(found.pairs, values, strict=True):
            i, j = place[pair.first], place[pair.second]
            cells += [_cell(value, top + 2 + row, left + column) for row, column in ((i, j), (j, i))]
    rows = (size + 2) * (len(tables) if narrow else 1)
    columns = size if narrow else size * len(tables) + len(tables) - 1
    width = min(200, 80 * size) if narrow else min(460, 80 * columns)
    letters = min(13, int(width / columns / 2.6))
    x, y = column_axis(columns), row_axis(rows)
    box = {"x": column_axis(columns, "left"), "x2": "right:Q", "y": row_axis(rows, "top"), "y2": "bottom:Q"}
    colour = alt.Color("is:N", scale=alt.Scale(domain=list(_SIDES), range=list(_SIDES.values())), legend=None)
    shade = alt.Opacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[_FAINT, _STRONG], clamp=True), legend=None)

    def text(of: list[dict[str, Any]], **more: Any) -> Any:
        return alt.Chart(inline(of)).mark_text(**{"color": INK, "fontSize": 12, **more})

    layers = [
        alt.Chart(inline(cells)).mark_rect().encode(**box, color=colour, opacity=shade),
        text([c for c in cells if c["is"] != "neither"], fontSize=letters, fontWeight="bold").encode(x=x, y=y, text="text:N"),
        text([c for c in cells if c["is"] == "neither"], fontSize=letters).encode(x=x, y=y, text="text:N"),
        text(heads, color=_SOFT).encode(x=x, y=y, text="text:N"),
        text(titles, fontWeight="bold", align="left").encode(x=x, y=y, text="text:N"),
        text(names, align="right", dx=-8, limit=260).encode(x=alt.value(0), y=y, text="text:N"),
    ]
    made = alt.layer(*layers).properties(padding={"left": 12, "top": 5, "right": 12, "bottom": 5})
    return drawn(styled(made, narrow=narrow, height=_ROW * rows).properties(width=width))


def _cell(value: Jackknifed | None, row: float, column: float) -> dict[str, Any]:
    """A cell, the more coloured the larger its cosine is; without colour where the side is not shown."""
    what = side(value) if side(value) in _SIDES else "neither"
    return {
        "row": row, "column": column, "top": row - 0.46, "bottom": row + 0.46, "left": column - 0.48, "right": column + 0.48, "is": what,
        "strength": 0.0 if value is None or what == "neither" else abs(value.estimate), "text": "?" if value is None else number(value.estimate, 2),
    }  # fmt: skip


def shifts(found: Conflicts, pair: Pair, *, narrow: bool) -> str | None:
    """What keeping all tasks, and each of them, does to one pair: from the line, its cosine with nothing kept, to the dot."""
    import altair as alt

    if pair.rho is None or pair.together is None:
        return None
    rho = pair.rho
    shown = [kept for kept in (pair.together, *sorted_tasks(pair)[:MAX_TASKS]) if kept.partial is not None and kept.change is not None]
    rows = [
        {
            "row": n, "from": rho.estimate, "at": kept.partial.estimate, "low": kept.partial.low, "high": kept.partial.high,
            "least": rho.estimate + kept.change.low, "most": rho.estimate + kept.change.high, "is": _KEEPING.get(outcome(found, pair, kept), _ELSE),
        }
        for n, kept in enumerate(shown)
        if kept.partial is not None and kept.change is not None
    ]  # fmt: skip
    if not rows:
        return None
    names = ["all tasks" if kept.task is None else kept.task for kept in shown]
    title = "cosine: they pull apart | together"
    there = [name for name in _COLOURS if any(row["is"] == name for row in rows)]
    scale = alt.Scale(domain=there, range=[_COLOURS[name] for name in there])
    colour = alt.Color("is:N", title=None, scale=scale, legend=alt.Legend(columns=1 if narrow else 0))
    y, marks = row_axis(len(rows)), alt.Chart(inline(rows))
    axis = alt.Axis(tickCount=4 if narrow else 7, format=".2~f")

    def across(field: str) -> alt.X:
        return alt.X(f"{field}:Q", title=title, axis=axis, scale=alt.Scale(zero=True))

    band = alt.Chart(inline([{"low": rho.low, "high": rho.high, "at": rho.estimate, "zero": 0.0}]))
    layers = [
        band.mark_rect(color=_SOFT, opacity=0.14).encode(x=across("low"), x2="high:Q"),
        band.mark_rule(color=INK).encode(x=across("zero")),
        band.mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(x=across("at")),
        marks.mark_rule(strokeWidth=1, opacity=0.8).encode(x=across("low"), x2="high:Q", y=y, color=colour),
        marks.mark_rule(strokeWidth=5, opacity=0.45).encode(x=across("least"), x2="most:Q", y=y, color=colour),
        marks.mark_point(filled=True, size=70, opacity=1).encode(x=across("at"), y=y, color=colour),
        named_rows(names, 20 if narrow else 30),
    ]
    return layered(layers, narrow=narrow, height=max(80, _STEP * len(rows)))
