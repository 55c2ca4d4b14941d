"""Drawings of an atlas: the staircase, what was smoothed over, the map of pairs and models, their tree, groups against chance, blind spots, sources of variance.

Altair, in the page's colours. Names of models and pairs are never values of a scale (the engine cannot draw some words): axes run over numbers, and names are text marks.
"""

from __future__ import annotations

import re
from math import isnan
from typing import Any

from aligntax.atlas.analysis import Analysis
from aligntax.report.atlas_text import component_values, role_mean, role_text
from aligntax.report.charts import drawn, styled
from aligntax.report.row_charts import column_axis, inline, layered, named_rows, row_axis, short

_INK, _SOFT, _LINE = "var(--ink)", "var(--soft)", "var(--line)"
_ROLES = {"control": "var(--no-tax)", "contested": "var(--tax)", "contradiction": "var(--gain)", "foil": "var(--ink)", "anchor": _SOFT}
_STEP, _CELL, _NARROW_CELL = 26, 15, 12
MAX_ROWS, MAX_MODELS = 60, 60
_NAME = 26
_SMALLEST = 7
"""Letters that are smaller are left out."""


def model_names(found: Analysis) -> list[str]:
    """Names of models without what stands before the last slash or hash, where they are then still all different."""
    whole = [row.name for row in found.models]
    tails = [re.sub(r"^[\w.:@/#~-]*[/#](?=.)", "", name) for name in whole]
    return tails if len(set(tails)) == len(tails) and all(tails) else whole


def staircase(found: Analysis, *, narrow: bool) -> str:
    """Mean difference of two models by category, with its interval; the controls' mean as a line."""
    import altair as alt

    order = [c for c in (found.settings.order or ()) if c in found.spreads]
    order += [c for c in found.roles.categories if c in found.spreads and c not in order]
    rows = [
        {
            "row": i, "mean": found.spreads[c][0], "low": found.spreads[c][1], "high": found.spreads[c][2],
            "role": role_text(found, c),
        }
        for i, c in enumerate(order)
    ]  # fmt: skip
    y = row_axis(len(order))
    title = "mean difference of two models, on a scale from 0 to 1"
    x = alt.X("mean:Q", title=title, scale=alt.Scale(zero=True), axis=alt.Axis(tickCount=4 if narrow else 6))
    roles = [r for r in _ROLES if any(row["role"] == r for row in rows)]
    colour = alt.Color("role:N", title=None, scale=alt.Scale(domain=roles, range=[_ROLES[r] for r in roles]))
    with_limits = alt.Chart(inline([row for row in rows if row["low"] is not None]))
    calm = role_mean(found, found.roles.controls)
    layers: list[Any] = []
    if calm is not None:
        at = alt.Chart(inline([{"mean": calm}]))
        layers.append(at.mark_rule(color=_ROLES["control"], strokeDash=[5, 4]).encode(x=x))
    layers += [
        with_limits.mark_rule(strokeWidth=3, opacity=0.6).encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y, color=colour),
        alt.Chart(inline(rows)).mark_point(filled=True, size=90, opacity=1).encode(x=x, y=y, color=colour),
        named_rows(order, 20 if narrow else _NAME),
    ]
    return layered(layers, narrow=narrow, height=max(90, _STEP * len(order)))


def pair_map(found: Analysis, *, narrow: bool) -> str:
    """Ratings of the pairs that divide models most, models in the order of their tree; the stronger the more alike."""
    import altair as alt

    chosen = shown_pairs(found)
    models = shown_models(found)
    rows: list[dict[str, Any]] = [
        {"row": i, "column": j, "rating": None if isnan(found.ratings[p, m]) else float(found.ratings[p, m])}
        for i, p in enumerate(chosen)
        for j, m in enumerate(models)
    ]
    cell = _NARROW_CELL if narrow else _CELL
    column, row = column_axis(len(models)), row_axis(len(chosen))
    boxes = [{**r, "left": r["column"] - 0.5, "right": r["column"] + 0.5, "top": r["row"] - 0.5, "bottom": r["row"] + 0.5} for r in rows]
    known = alt.Chart(inline([b for b in boxes if b["rating"] is not None]))
    lost = alt.Chart(inline([b for b in boxes if b["rating"] is None]))
    shade = alt.Opacity(
        "rating:Q",
        title="rating",
        scale=alt.Scale(domain=[0, 1], range=[0.04, 1]),
        legend=alt.Legend(values=[0, 0.25, 0.5, 0.75, 1], format=".2f", orient="bottom"),
    )
    names = model_names(found)
    heads = [{"column": j, "text": short(names[m], 18 if narrow else 22)} for j, m in enumerate(models)]
    width = 300 if narrow else max(480, 11 * len(models))
    size = min(11, int(0.85 * width / max(1, len(models))))  # names lean at 60 degrees: so far are two of them apart
    head = alt.Chart(inline(heads if size >= _SMALLEST else [])).mark_text(align="left", angle=300, dx=4, dy=0, color=_INK, fontSize=size)
    layers = [
        known.mark_rect(color="var(--link)").encode(
            x=column_axis(len(models), "left"), x2="right:Q", y=row_axis(len(chosen), "top"), y2="bottom:Q", opacity=shade
        ),
        lost.mark_text(text="×", color=_SOFT, fontSize=10).encode(x=column, y=row),
        head.encode(x=column, y=alt.value(-4), text="text:N"),
        named_rows([found.pairs[p].name for p in chosen], 20 if narrow else 28, 11),
    ]
    if not narrow:
        starts = [i for i, p in enumerate(chosen) if i == 0 or found.pairs[p].category != found.pairs[chosen[i - 1]].category]
        kinds = alt.Chart(inline([{"row": i, "text": short(found.pairs[chosen[i]].category, 20)} for i in starts]))
        beside = kinds.mark_text(align="left", dx=8, color=_SOFT, fontSize=11)
        layers.append(beside.encode(x=alt.value("width"), y=row, text="text:N"))
    made = alt.layer(*layers).properties(padding={"left": 12, "top": 8, "right": 12, "bottom": 5})
    return drawn(styled(made, narrow=narrow, height=max(60, cell * len(chosen))).properties(width=width))


def shown_pairs(found: Analysis) -> list[int]:
    """Pairs of the map: those that divide models most, by category."""
    known = [i for i, row in enumerate(found.pairs) if row.gmd is not None]
    chosen = sorted(known, key=lambda i: -(found.pairs[i].gmd or 0.0))[:MAX_ROWS]
    return sorted(chosen, key=lambda i: (found.roles.categories.index(found.pairs[i].category), -(found.pairs[i].gmd or 0.0)))


def shown_models(found: Analysis) -> list[int]:
    """Models of the map, in the order of their tree."""
    rated = [m for m, row in enumerate(found.models) if row.ratings]
    order = [] if found.clusters is None else [found.clustered[i] for i in found.clusters.order.tolist()]
    return [int(m) for m in [*order, *(m for m in rated if m not in order)][:MAX_MODELS]]


def tree(found: Analysis, *, narrow: bool) -> str | None:
    """The tree of models; at every node the share of resampled pairs that have it."""
    import altair as alt

    if found.clusters is None:
        return None
    models, link, names = len(found.clustered), found.clusters.linkage, model_names(found)
    if models > MAX_MODELS:
        return None
    order = found.clusters.order.tolist()
    at = {leaf: (0.0, float(place)) for place, leaf in enumerate(order)}
    lines, notes = [], []
    for step, (a, b, height, _) in enumerate(link.tolist()):
        (xa, ya), (xb, yb) = at[int(a)], at[int(b)]
        lines += [
            {"x": xa, "y": ya, "x2": height, "y2": ya},
            {"x": xb, "y": yb, "x2": height, "y2": yb},
            {"x": height, "y": ya, "x2": height, "y2": yb},
        ]
        at[models + step] = (height, (ya + yb) / 2)
        if step < models - 2:
            notes.append({"x": height, "y": (ya + yb) / 2, "text": f"{100 * found.clusters.support[step]:.0f}"})
    colours = ("var(--tax)", "var(--gain)", "var(--no-tax)", _SOFT)
    dots: list[dict[str, Any]] = [
        {"x": 0.0, "y": float(place), "c": int(found.clusters.labels[leaf]) % len(colours)} for place, leaf in enumerate(order)
    ]
    x = alt.X("x:Q", title="mean difference of two models' ratings")
    y = row_axis(models, "y")
    used = sorted({d["c"] for d in dots})
    colour = alt.Color("c:O", scale=alt.Scale(domain=used, range=[colours[c] for c in used]), legend=None)
    layers = [
        alt.Chart(inline(lines)).mark_rule(color=_INK, strokeWidth=1.4).encode(x=x, y=y, x2="x2:Q", y2="y2:Q"),
        alt.Chart(inline(dots)).mark_point(filled=True, size=55, opacity=1).encode(x=x, y=y, color=colour),
        alt.Chart(inline(notes)).mark_text(align="left", dx=3, dy=-6, color=_SOFT, fontSize=10).encode(x=x, y=y, text="text:N"),
        named_rows(
            [f"{short(names[found.clustered[leaf]], 16 if narrow else 22)} · {found.clusters.labels[leaf] + 1}" for leaf in order],
            22 if narrow else 28,
        ),
    ]
    return layered(layers, narrow=narrow, height=max(90, 18 * models))


def components(found: Analysis, *, narrow: bool) -> str | None:
    """Shares of the variance of ratings by source."""
    import altair as alt

    values = component_values(found)
    total = sum(max(value, 0.0) for _, value in values)
    if not total:
        return None
    rows = [{"row": i, "zero": 0.0, "share": max(value, 0.0) / total} for i, (_, value) in enumerate(values)]
    title = "share of the variance of ratings"
    axis = alt.Axis(format="%", tickCount=4 if narrow else 6)
    bars = alt.Chart(inline(rows)).mark_rule(strokeWidth=12, color="var(--link)", opacity=0.8)
    layers = [
        bars.encode(x=alt.X("zero:Q", title=title, axis=axis), x2="share:Q", y=row_axis(len(rows))),
        named_rows([name for name, _ in values], 24 if narrow else 34),
    ]
    return layered(layers, narrow=narrow, height=max(70, _STEP * len(rows)))


def collapsed(found: Analysis, *, narrow: bool) -> str | None:
    """Contested categories between contradictions (0) and paraphrases (1): the mean of the models with its interval, and every model as a tick."""
    import altair as alt

    whole = [row for row in found.collapse if row.model is None and row.position is not None]
    if not whole:
        return None
    rows = [{"row": i, "at": row.position, "low": row.position_low, "high": row.position_high} for i, row in enumerate(whole)]
    place = {row.category: i for i, row in enumerate(whole)}
    single = [
        {"row": place[row.category], "at": row.position}
        for row in found.collapse
        if row.model is not None and row.position is not None and row.category in place
    ]
    y, title = row_axis(len(rows)), "0: like a contradiction, 1: like a paraphrase"
    marks = alt.Chart(inline(rows))
    limits = alt.Chart(inline([row for row in rows if row["low"] is not None and row["high"] is not None]))
    ends = alt.Chart(inline([{"at": 0.0}, {"at": 1.0}]))
    x = alt.X("at:Q", title=title, axis=alt.Axis(tickCount=4 if narrow else 6))
    layers = [
        ends.mark_rule(color=_SOFT, strokeDash=[5, 4]).encode(x=x),
        alt.Chart(inline(single)).mark_tick(color=_SOFT, thickness=2, size=12, opacity=0.6).encode(x=x, y=y),
        limits.mark_rule(strokeWidth=3, opacity=0.6, color="var(--tax)").encode(x=alt.X("low:Q", title=title), x2="high:Q", y=y),
        marks.mark_point(filled=True, size=90, opacity=1, color="var(--tax)").encode(x=x, y=y),
        named_rows([row.category for row in whole], 20 if narrow else _NAME),
    ]
    return layered(layers, narrow=narrow, height=max(70, _STEP * len(rows)))


def shares(found: Analysis, *, narrow: bool) -> str | None:
    """Eta squared of every column against what labels without meaning give."""
    import altair as alt

    rows = [
        {"eta": r.share.eta2, "mean": r.share.null_mean, "top": r.share.null_95, "upper": r.share.upper, "name": f"{r.column}, {r.on}"}
        for r in found.groups
        if r.share is not None and r.share.eta2 is not None
    ]
    if not rows:
        return None
    for i, row in enumerate(rows):
        row |= {"row": i, "zero": 0.0}
    y = row_axis(len(rows))
    title = "eta squared: share of the disagreement between groups"
    scale = alt.Scale(domain=[0, 1])
    x = alt.X("eta:Q", title=title, scale=scale)
    marks = alt.Chart(inline(rows))
    layers = [
        marks.mark_rule(strokeWidth=12, color=_SOFT, opacity=0.25).encode(x=alt.X("zero:Q", title=title, scale=scale), x2="top:Q", y=y),
        marks.mark_tick(color=_SOFT, thickness=2, size=14).encode(x=alt.X("mean:Q", title=title, scale=scale), y=y),
        marks.mark_point(filled=True, size=90, opacity=1, color="var(--link)").encode(x=x, y=y),
        named_rows([str(row["name"]) for row in rows], 20 if narrow else 28),
    ]
    return layered(layers, narrow=narrow, height=max(70, _STEP * len(rows)))


def blind_spots(found: Analysis, *, narrow: bool) -> str | None:
    """Share of councils that seem to agree, by their size."""
    import altair as alt

    if not found.councils:
        return None
    series = (
        ("all councils", "rate", _INK),
        ("from one cluster", "within", "var(--tax)"),
        ("mixed", "across", "var(--gain)"),
        ("on controls", "controls", "var(--no-tax)"),
    )
    rows = [
        {"k": row.k, "share": value, "which": name}
        for row in found.councils
        for name, key, _ in series
        if (value := getattr(row, key)) is not None
    ]
    used = [s for s in series if any(r["which"] == s[0] for r in rows)]
    colour = alt.Color(
        "which:N",
        title=None,
        scale=alt.Scale(domain=[s[0] for s in used], range=[s[2] for s in used]),
        legend=alt.Legend(columns=2 if narrow else 0),
    )
    ks = [row.k for row in found.councils]
    x = alt.X(
        "k:Q", title="models in the council", axis=alt.Axis(values=ks, grid=False), scale=alt.Scale(domain=[min(ks), max(ks)], zero=False)
    )
    y = alt.Y("share:Q", title="share that seems to agree", axis=alt.Axis(format="%"), scale=alt.Scale(domain=[0, 1]))
    base = alt.Chart(inline(rows))
    layers = [
        base.mark_line(strokeWidth=2).encode(x=x, y=y, color=colour),
        base.mark_point(filled=True, size=60, opacity=1).encode(x=x, y=y, color=colour),
    ]
    return drawn(styled(alt.layer(*layers), narrow=narrow, height=260))
