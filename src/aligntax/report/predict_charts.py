"""Drawings of a prediction: tasks by overlap, the frontier with its free regime, the tax rate across layers, safety among random concepts. Altair, in the page's colours."""

from __future__ import annotations

from math import acos, cos, pi, sin, sqrt

from aligntax.predict.results import TaxPrediction
from aligntax.report.charts import drawn, styled
from aligntax.report.predict_text import verdict
from aligntax.report.row_charts import INK, inline, layered, named_rows, row_axis

_SOFT = "var(--soft)"
_COLOURS = {"lowered": "var(--tax)", "raised": "var(--gain)", "not shown": _SOFT}
_STEP = 22


def overlaps(found: TaxPrediction, *, narrow: bool) -> str | None:
    """Signed overlap of every task with its interval; what safety lowers is on the left."""
    import altair as alt

    known = [r for r in found.risks if r.overlap is not None]
    if not known:
        return None
    rows = [
        {"row": i, "at": r.overlap.cosine, "low": r.overlap.low, "high": r.overlap.high, "is": verdict(found, r)}
        for i, r in enumerate(known)
        if r.overlap is not None
    ]
    title = "overlap with the safety direction: lowered by safety | raised by it"
    y = row_axis(len(rows))
    there = [name for name in _COLOURS if any(row["is"] == name for row in rows)]
    colour = alt.Color("is:N", title="a step towards safety", scale=alt.Scale(domain=there, range=[_COLOURS[name] for name in there]))
    marks = alt.Chart(inline(rows))
    axis = alt.Axis(tickCount=4 if narrow else 7, format=".2~f")
    layers = [
        alt.Chart(inline([{"at": 0.0}])).mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(x=alt.X("at:Q", title=title, axis=axis)),
        marks.mark_rule(strokeWidth=3, opacity=0.6).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour),
        marks.mark_point(filled=True, size=70, opacity=1).encode(x=alt.X("at:Q", title=title), y=y, color=colour),
        named_rows([r.task for r in known], 20 if narrow else 30),
    ]
    return layered(layers, narrow=narrow, height=max(80, _STEP * len(rows)))


def step(found: TaxPrediction, *, narrow: bool) -> str | None:
    """Answers that one step of training costs, with the interval over batches, tasks that lose most first."""
    import altair as alt

    if found.step is None:
        return None
    tasks = found.step.tasks
    rows = [
        {
            "row": i,
            "at": t.lost.value,
            "low": max(-1.0, t.lost.low),
            "high": min(1.0, t.lost.high),
            "is": "loses" if t.lost.low > 0 else "not shown",
        }
        for i, t in enumerate(tasks)
    ]
    title = "answers lost in one step of training"
    y = row_axis(len(rows))
    kinds = [name for name in ("loses", "not shown") if any(row["is"] == name for row in rows)]
    colour = alt.Color(
        "is:N", title=None, scale=alt.Scale(domain=kinds, range=[{"loses": "var(--tax)", "not shown": _SOFT}[k] for k in kinds])
    )
    axis = alt.X("at:Q", title=title, axis=alt.Axis(format="%", tickCount=4 if narrow else 7))
    marks = alt.Chart(inline(rows))
    made = [
        alt.Chart(inline([{"at": 0.0}])).mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(x=axis),
        marks.mark_rule(strokeWidth=3, opacity=0.6).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour),
        marks.mark_point(filled=True, size=70, opacity=1).encode(x=axis, y=y, color=colour),
        named_rows([t.task for t in tasks], 20 if narrow else 30),
    ]
    return layered(made, narrow=narrow, height=max(80, _STEP * len(rows)))


def frontier(found: TaxPrediction, *, narrow: bool) -> str | None:
    """What safety can be had for which shift along the tasks, by theory, for the estimate and its interval; up to the dashed line it is free."""
    import altair as alt

    fit = found.fit
    if fit.estimate is None or fit.low is None or fit.high is None or found.free is None:
        return None
    series = (("estimate", fit.estimate, INK), ("lower limit", fit.low, "var(--gain)"), ("upper limit", fit.high, "var(--tax)"))
    rows = []
    for name, tau, _ in series:
        alpha = acos(sqrt(min(1.0, max(0.0, tau))))
        for step in range(61):  # along the efficient arc, from no shift along the tasks to all of safety
            phi = pi / 2 + (alpha - pi / 2) * step / 60
            rows.append({"along": cos(phi), "safety": cos(phi - alpha), "which": name, "at": step})
    colour = alt.Color("which:N", title=None, scale=alt.Scale(domain=[s[0] for s in series], range=[s[2] for s in series]))
    x = alt.X(
        "along:Q", title="shift along what tasks need, share of the whole shift", axis=alt.Axis(format="%", tickCount=4 if narrow else 6)
    )
    y = alt.Y("safety:Q", title="safety, share of the attainable", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False))
    free = alt.Chart(inline([{"safety": sin(acos(sqrt(min(1.0, max(0.0, fit.estimate)))))}]))
    layers = [
        free.mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(y=y),
        alt.Chart(inline(rows)).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, order="at:Q"),
    ]
    return drawn(styled(alt.layer(*layers), narrow=narrow, height=240))


def layers(found: TaxPrediction, *, narrow: bool) -> str | None:
    """The tax rate across layers with its interval; the one that was chosen is full."""
    import altair as alt

    rows = [
        {
            "layer": one.layer,
            "at": one.fit.estimate,
            "low": one.fit.low,
            "high": one.fit.high,
            "is": "chosen" if one.layer == found.layer else "others",
        }
        for one in found.layers
        if one.fit.estimate is not None
    ]
    if len(rows) < 2:
        return None
    colour = alt.Color("is:N", title=None, scale=alt.Scale(domain=["chosen", "others"], range=["var(--link)", _SOFT]))
    x = alt.X(
        "layer:Q",
        title="layer",
        axis=alt.Axis(values=[one.layer for one in found.layers], grid=False, format="d"),
        scale=alt.Scale(padding=20, zero=False, nice=False),
    )
    marks = alt.Chart(inline(rows))
    made = [
        marks.mark_rule(strokeWidth=3, opacity=0.6).encode(
            x=x, y=alt.Y("low:Q", title="tax rate", axis=alt.Axis(format="%")), y2="high:Q", color=colour
        ),
        marks.mark_point(filled=True, size=90, opacity=1).encode(x=x, y=alt.Y("at:Q", title="tax rate"), color=colour),
    ]
    return drawn(styled(alt.layer(*made), narrow=narrow, height=220))


def among(found: TaxPrediction, *, narrow: bool) -> str | None:
    """Tax rates of random concepts as ticks, safety's as a dot with its interval."""
    import altair as alt

    fit = found.fit
    if fit.estimate is None or not found.concepts.rates:
        return None
    title = "share of the direction in what tasks need"
    axis = alt.X("at:Q", title=title, axis=alt.Axis(format="%", tickCount=4 if narrow else 6))
    y = row_axis(2)
    ticks = alt.Chart(inline([{"at": rate, "row": 1} for rate in found.concepts.rates]))
    safety = alt.Chart(inline([{"at": fit.estimate, "low": fit.low, "high": fit.high, "row": 0}]))
    made = [
        ticks.mark_tick(color=_SOFT, thickness=2, size=16, opacity=0.5).encode(x=axis, y=y),
        safety.mark_rule(strokeWidth=3, opacity=0.6, color="var(--link)").encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y),
        safety.mark_point(filled=True, size=90, opacity=1, color="var(--link)").encode(x=axis, y=y),
        named_rows(["safety", "random concepts" if found.made_of == "states" else "other answers"], 20),
    ]
    return layered(made, narrow=narrow, height=80)
