"""Drawings of a tax over widths: rates with the laws that were fitted to them, and what is beyond chance. Altair, in the page's colours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite, log
from statistics import fmean
from typing import Any

from aligntax.predict.scaling_results import ModelRate, Scaling
from aligntax.report.charts import drawn, styled
from aligntax.report.row_charts import INK, inline
from aligntax.stats.widths import Law

_SOFT = "var(--soft)"
_SAFETY = "var(--link)"
_NAMES: dict[Law, str] = {"packing": "packing law", "power": "power law", "constant": "constant"}
_LINES = {"packing law": _SAFETY, "power law": "var(--no-tax)", "constant": "var(--tax)", "chance": INK, "random concepts": _SOFT}
_ASIDE = 0.03
"""How far models of one width are drawn apart, as a share of it."""


def rates(found: Scaling, *, narrow: bool) -> str | None:
    """Rates by width with their intervals; laws as lines, beyond the widest model dashed; chance; medians of random concepts."""
    import altair as alt

    if not found.counted:
        return None
    points = _points(found, lambda one: one.rate, lambda one: (one.fit.low, one.fit.high) if one.fit is not None else (None, None))
    widths = sorted({one.width for one in found.counted})
    x = _across(found, widths, narrow)
    y = alt.Y("at:Q", title="share in what tasks need", axis=alt.Axis(format="%"), scale=alt.Scale(domain=_range(points, 0.0), clamp=True))
    lines = [*_laws(found, widths), *_chance(found), *_concepts(found, lambda one: one.concepts)]
    layers: list[Any] = []
    if found.by_width.band:
        band = alt.Chart(inline([{"width": b.at, "low": b.low, "high": b.high} for b in found.by_width.band]))
        layers.append(
            band.mark_area(color=_SAFETY, opacity=0.13).encode(x=x, y=alt.Y("low:Q", title="share in what tasks need"), y2="high:Q")
        )
    layers += [*_lined(lines, x, y, narrow), *_dots(points, x, y)]
    return drawn(styled(alt.layer(*layers), narrow=narrow, height=300))


def beyond(found: Scaling, *, narrow: bool) -> str | None:
    """What is beyond chance by width, of safety with its interval and of random concepts."""
    import altair as alt

    if not found.counted:
        return None
    points = _points(found, lambda one: one.adjusted, lambda one: _beyond_limits(one))
    widths = sorted({one.width for one in found.counted})
    x = _across(found, widths, narrow, wider=False)
    lines = _concepts(found, lambda one: None if one.concepts is None else (one.concepts - one.chance) / (1 - one.chance))
    domain = _range([*points, *lines], -1.0)
    y = alt.Y("at:Q", title="beyond chance", axis=alt.Axis(format="%"), scale=alt.Scale(domain=domain, clamp=True))
    zero = alt.Chart(inline([{"at": 0.0}])).mark_rule(color=INK, strokeDash=[5, 4]).encode(y=y)
    return drawn(styled(alt.layer(zero, *_lined(lines, x, y, narrow), *_dots(points, x, y)), narrow=narrow, height=220))


def _beyond_limits(one: ModelRate) -> tuple[float | None, float | None]:
    fit = one.fit
    if fit is None or fit.low is None or fit.high is None:
        return None, None
    return (fit.low - one.chance) / (1 - one.chance), (fit.high - one.chance) / (1 - one.chance)


def _across(found: Scaling, widths: Sequence[int], narrow: bool, wider: bool = True) -> Any:
    import altair as alt

    ends = [min(widths) * (1 - 2 * _ASIDE), max(widths) * (1 + 2 * _ASIDE)]
    ticks = [*widths]
    if wider and found.by_width.band:
        ends[1] = found.by_width.band[-1].at
        ticks += [2 * max(widths), 4 * max(widths)]
    axis = alt.Axis(values=_apart(ticks, 0.16 if narrow else 0.08), grid=False, format="d", labelFlush=False)
    return alt.X("width:Q", title="dimensions of a state", axis=axis, scale=alt.Scale(type="log", domain=ends, nice=False))


def _apart(ticks: Sequence[int], least: float) -> list[int]:
    """Ticks that are at least so far from each other, as a share of the whole axis; the last of all stays."""
    whole = log(max(ticks) / min(ticks)) or 1.0
    kept: list[int] = []
    for tick in reversed(ticks):
        if not kept or log(kept[-1] / tick) / whole >= least:
            kept.append(tick)
    return kept[::-1]


def _range(rows: Sequence[dict[str, Any]], least: float) -> list[float]:
    """An axis that holds all rows and their limits, these as far as a share can go."""
    low = min(0.0, *(float(row.get("low", row["at"])) for row in rows), *(float(row["at"]) for row in rows))
    high = max(0.0, *(float(row.get("high", row["at"])) for row in rows), *(float(row["at"]) for row in rows))
    return [max(least, 1.05 * low), min(1.0, 1.05 * high)]


def _points(
    found: Scaling, value: Callable[[ModelRate], float | None], limits: Callable[[ModelRate], tuple[float | None, float | None]]
) -> list[dict[str, Any]]:
    """A row per model, those of one width beside each other."""
    rows = []
    for one in found.counted:
        same = [other for other in found.counted if other.width == one.width]
        aside = _ASIDE * (same.index(one) - (len(same) - 1) / 2)
        low, high = limits(one)
        rows.append({"width": one.width * (1 + aside), "at": value(one), "low": low, "high": high})
    return rows


def _laws(found: Scaling, widths: Sequence[int]) -> list[dict[str, Any]]:
    """Points of the fitted laws, up to the widest model and beyond."""
    study = found.by_width.study
    if study is None:
        return []
    rows = []
    for law, name in _NAMES.items():
        if law not in study.fits:
            continue
        limits = study.fits[law].tau0_interval
        bounded = limits is not None and all(map(isfinite, limits))  # else nothing is known of wider models, and the line would be anywhere
        for at in _steps(min(widths), found.by_width.band[-1].at if bounded else max(widths)):
            part = "seen" if at <= max(widths) * (1 + 1e-9) else "beyond"
            rows.append({"width": at, "at": float(study.fits[law].at(at)), "which": name, "part": part})
    return rows


def _steps(low: float, high: float) -> list[float]:
    """Widths at equal distances on the axis."""
    return [low * (high / low) ** (k / 120) for k in range(121)]


def _chance(found: Scaling) -> list[dict[str, Any]]:
    m, widths = len(found.tasks), [one.width for one in found.counted]
    last = found.by_width.band[-1].at if found.by_width.band else max(widths)
    return [{"width": at, "at": min(1.0, m / at), "which": "chance", "part": "chance"} for at in _steps(min(widths), last)]


def _concepts(found: Scaling, value: Callable[[ModelRate], float | None]) -> list[dict[str, Any]]:
    """Mean of the medians of random concepts, by width."""
    rows = []
    for width in sorted({one.width for one in found.counted}):
        of = [x for one in found.counted if one.width == width and (x := value(one)) is not None]
        if of:
            rows.append({"width": float(width), "at": fmean(of), "which": "random concepts", "part": "concepts"})
    return rows


def _lined(rows: Sequence[dict[str, Any]], x: Any, y: Any, narrow: bool) -> list[Any]:
    import altair as alt

    if not rows:
        return []
    there = [name for name in _LINES if any(row["which"] == name for row in rows)]
    legend = alt.Legend(columns=3 if narrow else 0)
    colour = alt.Color("which:N", title=None, scale=alt.Scale(domain=there, range=[_LINES[name] for name in there]), legend=legend)
    dash = alt.StrokeDash(
        "part:N", legend=None, scale=alt.Scale(domain=["seen", "beyond", "chance", "concepts"], range=[[1, 0], [6, 4], [2, 3], [1, 0]])
    )
    made = [alt.Chart(inline(rows)).mark_line(strokeWidth=2).encode(x=x, y=y, color=colour, strokeDash=dash, order="width:Q")]
    squares = [row for row in rows if row["part"] == "concepts"]
    if squares:
        made.append(alt.Chart(inline(squares)).mark_point(filled=True, shape="square", size=45, opacity=1).encode(x=x, y=y, color=colour))
    return made


def _dots(rows: Sequence[dict[str, Any]], x: Any, y: Any) -> list[Any]:
    import altair as alt

    marks = alt.Chart(inline(rows))
    return [
        marks.mark_rule(strokeWidth=3, opacity=0.6, color=_SAFETY).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        marks.mark_point(filled=True, size=80, opacity=1, color=_SAFETY).encode(x=x, y=y),
    ]
