"""Drawings of a verification: predictors by rank correlation, drops against a predictor, and trained models on the theory's frontier."""

from __future__ import annotations

from math import acos, cos, pi, sqrt

from aligntax.predict.results import ShiftPoint
from aligntax.predict.verify import ArmHeld, Verification
from aligntax.report.charts import drawn, styled
from aligntax.report.row_charts import INK, inline, layered, named_rows, row_axis, short

_SOFT = "var(--soft)"
_STEP = 22
_FAMILIES = {"geometry": "var(--link)", "optimiser": "var(--tax)", "baseline": _SOFT}


def correlations(found: Verification, *, narrow: bool) -> str | None:
    """Rank correlation of every predictor: a tick per trained model, a dot for their mean."""
    import altair as alt

    arms = [one for one in found.arms if one.holding.held]
    if not arms:
        return None
    family = {p.name: p.family for p in found.predictors}
    means = (
        {name: of.spearman for name, of in found.together.items()}
        if found.together
        else {name: of.spearman for name, of in arms[0].holding.held.items()}
    )
    names = sorted(means, key=lambda name: -means[name])
    dots = [{"row": i, "at": means[name], "from": family[name]} for i, name in enumerate(names)]
    ticks = [{"row": i, "at": one.holding.held[name].spearman} for i, name in enumerate(names) for one in arms if name in one.holding.held]
    title = "rank correlation with what tasks lost"
    y = row_axis(len(names))
    there = [name for name in _FAMILIES if any(dot["from"] == name for dot in dots)]
    colour = alt.Color("from:N", title=None, scale=alt.Scale(domain=there, range=[_FAMILIES[name] for name in there]))
    axis = alt.Axis(tickCount=4 if narrow else 8, format=".1~f")
    layers = [
        alt.Chart(inline([{"at": 0.0}])).mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(x=alt.X("at:Q", title=title, axis=axis)),
        alt.Chart(inline(ticks)).mark_tick(color=INK, thickness=1.5, size=12, opacity=0.5).encode(x=alt.X("at:Q", title=title), y=y),
        alt.Chart(inline(dots)).mark_point(filled=True, size=80, opacity=1).encode(x=alt.X("at:Q", title=title), y=y, color=colour),
        named_rows(names, 24 if narrow else 44),
    ]
    return layered(layers, narrow=narrow, height=max(80, _STEP * len(names)))


def drops(one: ArmHeld, name: str, *, narrow: bool) -> str | None:
    """What every task lost against what was foretold of it."""
    import altair as alt

    rows = [
        {
            "foretold": d.foretold[name],
            "lost": d.drop,
            "low": d.drop if d.low is None else d.low,
            "high": d.drop if d.high is None else d.high,
            "text": short(d.task, 18),
        }
        for d in one.drops
        if name in d.foretold
    ]
    if len(rows) < 3:
        return None
    most = sorted(rows, key=lambda r: -abs(float(str(r["lost"]))))[:4]
    x = alt.X("foretold:Q", title=short(name, 80), axis=alt.Axis(tickCount=4 if narrow else 6), scale=alt.Scale(padding=30, zero=False))
    lost = f"lost by {short(one.arm, 24)}"
    y = alt.Y("lost:Q", title=lost, axis=alt.Axis(format="%"))
    chart = alt.Chart(inline(rows))
    layers = [
        alt.Chart(inline([{"lost": 0.0}])).mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(y=y),
        chart.mark_rule(strokeWidth=1.5, opacity=0.4, color=INK).encode(x=x, y=alt.Y("low:Q", title=lost), y2="high:Q"),
        chart.mark_point(filled=True, size=60, opacity=1, color="var(--link)").encode(x=x, y=y),
        alt.Chart(inline(most)).mark_text(align="center", dy=-10, color=INK, fontSize=11).encode(x=x, y=y, text="text:N"),
    ]
    return drawn(styled(alt.layer(*layers), narrow=narrow, height=260))


def frontier(points: tuple[ShiftPoint, ...], towards: str, tau: float | None, *, narrow: bool) -> str | None:
    """The theory's frontier for the tax rate that was predicted, its free regime, and where trained models' own shifts lie."""
    import altair as alt

    known = [p for p in points if p.towards == towards and p.rate is not None and p.safety is not None]
    if tau is None or not known:
        return None
    alpha = acos(sqrt(min(1.0, max(0.0, tau))))
    curve = []
    for step in range(61):
        phi = pi / 2 + (alpha - pi / 2) * step / 60
        curve.append({"along": cos(phi), "safety": cos(phi - alpha), "at": step})
    names = list(dict.fromkeys(p.stage for p in known))
    palette = ("var(--tax)", "var(--link)", INK, _SOFT, "var(--gain)")
    dots = [
        {
            "along": sqrt(max(0.0, p.rate or 0.0)),
            "low": p.safety_low,
            "high": p.safety_high,
            "left": sqrt(max(0.0, p.rate_low or 0.0)),
            "right": sqrt(max(0.0, p.rate_high or 0.0)),
            "safety": p.safety,
            "which": f"{number}",
            "on": p.where,
        }
        for p in known
        for number in [names.index(p.stage) % len(palette)]
    ]
    across, up = "shift along what tasks need, share of the whole shift", "towards safety, share of the attainable"
    x = alt.X("along:Q", title=across, axis=alt.Axis(format="%", tickCount=4 if narrow else 6))
    y = alt.Y("safety:Q", title=up, axis=alt.Axis(format="%"))
    labels = [str(n) for n in range(min(len(names), len(palette)))]
    colour = alt.Color("which:N", legend=None, scale=alt.Scale(domain=labels, range=list(palette[: len(labels)])))
    shape = alt.Shape("on:N", title=None, scale=alt.Scale(domain=["unsafe prompts", "prompts of tasks"], range=["circle", "square"]))
    chart = alt.Chart(inline(dots))
    first = {p.stage: i for i, p in reversed(list(enumerate(known)))}
    named = [{**dots[i], "text": short(stage, 14)} for stage, i in first.items()]
    layers = [
        alt.Chart(inline([{"safety": 0.0}])).mark_rule(color=_SOFT, opacity=0.5).encode(y=y),
        alt.Chart(inline([{"safety": curve[0]["safety"]}])).mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(y=y),
        alt.Chart(inline(curve)).mark_line(strokeWidth=2, color=INK).encode(x=x, y=y, order="at:Q"),
        chart.mark_rule(opacity=0.4).encode(x=x, y=alt.Y("low:Q", title=up), y2="high:Q", color=colour),
        chart.mark_rule(opacity=0.4).encode(x=alt.X("left:Q", title=across), x2="right:Q", y=y, color=colour),
        chart.mark_point(filled=True, size=80, opacity=1).encode(x=x, y=y, color=colour, shape=shape),
        alt.Chart(inline(named)).mark_text(align="left", dx=8, dy=10, color=INK, fontSize=11).encode(x=x, y=y, text="text:N"),
    ]
    return drawn(styled(alt.layer(*layers), narrow=narrow, height=280))
