"""The plane of safety and capability, and a tax against size: valid specifications, the page's colours, hostile names."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from aligntax.core.study import Analysis, Arm, Study
from aligntax.flow.frontier import frontier, plane
from aligntax.flow.trend import SizePoint, SizeTrend
from aligntax.report.plane import Drawing, chart, drawing_from, plane_drawing, svg, trend_drawing
from aligntax.stats.trend import fit_trend
from tests.flow.test_exchange import entry
from tests.flow.test_frontier import ARMS, changes, ledger

HOSTILE = "<script>alert(1)</script>\u202e{{x}}"


def stage_tree() -> Study:
    arms = [("base", None), ("good", "base"), ("bad", "good"), ("clever", "base")]
    return Study(
        baseline="base", arms=tuple(Arm(name=n, parent=p, source=n, reader="table", identity=n) for n, p in arms), analysis=Analysis()
    )


def drawn_plane() -> Drawing:
    whole = ledger(*changes(ARMS, 0.01))
    found = plane(stage_tree(), whole)
    assert found is not None
    return plane_drawing(found, frontier(whole))


def drawn_trend() -> Drawing:
    points = tuple(SizePoint(f"{n}B", n * 1e9, -0.01 * n, 0.01, -0.01 * n - 0.02, -0.01 * n + 0.02) for n in (1.3, 6.0, 13.0))
    fit = fit_trend(np.log10([p.size for p in points]), np.array([p.change for p in points]), np.full(3, 0.01))
    return trend_drawing(SizeTrend("sums", "fraction", points, fit, (), ()))


def inside(spec: object, key: str) -> list[Any]:
    """What lists named ``key`` hold anywhere in a specification."""
    if isinstance(spec, list):
        return [one for part in spec for one in inside(part, key)]
    if not isinstance(spec, dict):
        return []
    own = spec.get(key)
    return (own if isinstance(own, list) else []) + [one for part in spec.values() for one in inside(part, key)]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("make", [drawn_plane, drawn_trend])
def test_specifications_are_valid_and_use_the_pages_colours(make: object, narrow: bool) -> None:
    assert callable(make)
    drawing = replace(make(), narrow=narrow)
    spec = chart(drawing).to_dict()  # against Vega-Lite's schema
    assert spec["width"] == (300 if narrow else 480)
    made = svg(drawing)
    colours = set(re.findall(r'(?:fill|stroke)="([^"]+)"', made))
    assert colours <= {"none", "transparent"} | {c for c in colours if c.startswith("var(--")}
    assert "url(" not in made


def test_arms_stand_at_their_changes_with_their_parents_and_what_is_certain() -> None:
    drawing = drawn_plane()
    assert [(d.text, d.x, d.y, d.group, d.parent) for d in drawing.dots] == [
        ("base", 0.0, 0.0, "baseline", None),
        ("good", pytest.approx(30.0), pytest.approx(0.0), "on the frontier", 0),
        ("bad", pytest.approx(10.0), pytest.approx(-20.0), "dominated", 1),
        ("clever", pytest.approx(-10.0), pytest.approx(20.0), "on the frontier", 0),
    ]
    assert drawing.across == "safety (toxigen, acc), change in points, more is better"
    good = drawing.dots[1]
    assert good.x_low is not None
    assert good.x_high is not None
    assert good.x_low < 30 < good.x_high
    assert (drawing.dots[0].x_low, drawing.dots[0].y_high) == (None, None)
    edges = [value for values in chart(drawing).to_dict()["datasets"].values() for value in values if "x2" in value]
    assert edges[1] == {"x": drawing.dots[1].x, "y": drawing.dots[1].y, "x2": drawing.dots[2].x, "y2": drawing.dots[2].y}


def test_a_trend_has_its_line_and_its_band_in_points() -> None:
    drawing = drawn_trend()
    assert [(d.x, d.y) for d in drawing.dots] == [(1.3e9, pytest.approx(-1.3)), (6e9, pytest.approx(-6.0)), (13e9, pytest.approx(-13.0))]
    assert (drawing.line[0][0], drawing.line[-1][0]) == (pytest.approx(1.3e9), pytest.approx(13e9))
    assert all(low < at < high for _, at, low, high in drawing.line)
    assert ">1.3B<" in svg(drawing)


def test_another_process_can_draw_them() -> None:
    for drawing in (drawn_plane(), drawn_trend()):
        assert drawing_from(json.loads(json.dumps(asdict(drawing)))) == drawing


def test_names_are_text_and_nothing_else() -> None:
    whole = ledger(entry("safety", HOSTILE, -0.1, 0.01, candidate=HOSTILE), entry("performance", "sums", 0.1, 0.01, candidate=HOSTILE))
    study = Study(
        baseline="base",
        arms=tuple(Arm(name=n, parent=p, source="x", reader="table", identity=n) for n, p in (("base", None), (HOSTILE, "base"))),
        analysis=Analysis(),
    )
    found = plane(study, whole)
    assert found is not None
    made = svg(plane_drawing(found))
    assert "<script" not in made
    assert "\u202e" not in made
    assert "&lt;script&gt;" in made
    scales = [*inside(chart(plane_drawing(found)).to_dict(), "domain"), *inside(chart(plane_drawing(found)).to_dict(), "range")]
    assert scales
    assert "script" not in json.dumps(scales)


def test_one_arm_without_intervals_is_drawn() -> None:
    whole = ledger(entry("safety", "toxigen", -0.1, None, candidate="good"), entry("performance", "sums", 0.0, None, candidate="good"))
    found = plane(stage_tree(), whole)
    assert found is not None
    assert ">good<" in svg(plane_drawing(found))
