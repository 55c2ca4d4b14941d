"""The page of a tax over widths: what is said, what has no number, and nothing hostile gets through."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.predict.scaling_results import Band, Laws, ModelRate, Scaling, ScalingSettings, Spread
from aligntax.report.scaling_page import render
from aligntax.report.scaling_text import between_text, fits_grid, laws_text, lead, models_grid, overlaps_grid
from aligntax.stats.directions import CrossFit, SignedOverlap
from aligntax.stats.widths import fit_widths

HOSTILE = "<script>alert(1)</script>\x1b[31m"
WIDTHS = (32, 48, 64, 96, 128, 128)


def rate(width: int, tau: float, seed: int, reason: str | None = None) -> ModelRate:
    overlaps = tuple(SignedOverlap(float(c), float(c) - 0.1, float(c) + 0.1, float(c)) for c in (-0.4, 0.0, 0.3))
    fit = CrossFit(
        estimate=tau, low=tau - 0.05, high=tau + 0.06, se=0.02, jackknife=(tau, 0.02), naive=tau, overlaps=overlaps, reliability=0.9,
        capability_reliabilities=np.full(3, 0.9), z=8.0, least_eigenvalue=0.8, clipped=0, reason=None, blocks=32, level=0.95,
    )  # fmt: skip
    known = reason is None
    return ModelRate(
        f"w{width}-{seed}", {}, width, 2, 4, fit if known else None, reason, (0.001, 0.9, 0.002) if known else (), 3 / width, tau - 3 / width if known else None,
        width / 4, 0.1 if known else None, 0.4 if known else None, 0.0004 if known else None,
    )  # fmt: skip


def laws(at: Any, y: Any) -> Laws:
    study = fit_widths(at, y, np.full(len(at), 0.0004))
    return Laws(study, None, tuple(Band(float(x), 0.2, 0.1, 0.3) for x in np.geomspace(min(at), 4 * max(at), 9)))


def scaling(floor: float = 0.2, **more: Any) -> Scaling:
    d = np.array(WIDTHS, dtype=float)
    y = floor + (1 - floor) * 3 / d
    made = Scaling(
        objective="prompts.csv", template="raw", tasks=("one", "two", "three"), models=tuple(rate(w, float(t), n) for n, (w, t) in enumerate(zip(WIDTHS, y, strict=True))),
        by_width=laws(d, y), by_effective=laws(d / 4, y), beyond=laws(d, (y - 3 / d) / (1 - 3 / d)), between=0.5, spreads=(Spread(128, 2, 0.03, 0.02, 0.2),),
        concepts=("a",) * 30, concepts_beyond=0.01, concepts_p=0.03, unsafe=100, safe=90, settings=ScalingSettings(), notes=("a note",),
    )  # fmt: skip
    return replace(made, **more)


def test_what_is_said() -> None:
    found = scaling()
    said = lead(found)
    assert "28 % lies in what the 3 tasks need in models of 32 dimensions, and 22 % in models of 128" in said
    assert "3 random directions would hold 9 % and 2 %" in said
    assert "Beyond chance there is 20 % of what chance leaves free" in said
    assert "more than crowding. That is more than other concepts have (30 random concepts have 1 % in the middle of them, p 0.030)" in said
    assert "However wide the model, something stays" in said
    unlike = laws(np.array(WIDTHS) / 4, 4.0 / np.array(WIDTHS))
    assert "By the dimensions that states really use, it is not shown (0 %" in lead(scaling(by_effective=unlike))
    assert "really use" not in said
    assert "no more than other concepts have" in lead(scaling(concepts_p=0.4))
    assert "no more than crowding is shown" in lead(scaling(0.0))
    below = lead(scaling(-0.3))
    assert "safety keeps clear of what these tasks need" in below
    assert "In wide models nothing stays" in below
    assert "Models" not in between_text(scaling(between=0.0))
    assert "71 % of the standard deviation that random packing gives" in between_text(found)
    assert [row[-2:] for row in overlaps_grid(found).rows] == [("6", "-"), ("-", "-"), ("-", "6")]
    page = render(found)
    assert page.count("<svg") == 4
    assert not re.search(r"<script|could not be drawn|https?://(?!www\.w3\.org)", page)


def test_laws_in_words() -> None:
    study = scaling().by_width.study
    assert study is not None
    told = laws_text(study, None)
    assert told.startswith("Undecided between")
    assert "packing" in told
    assert laws_text(replace(study, preferred="power"), None).startswith("The law preferred is power")
    assert laws_text(replace(study, reason="3 different widths"), None) == "Nothing is decided: 3 different widths."
    assert laws_text(None, "no law is fitted") == "no law is fitted"
    grid = fits_grid(scaling(by_width=laws(np.array(WIDTHS), np.full(6, 0.2))))
    assert grid is not None
    constant = next(row for row in grid.rows if row[:2] == ("dimensions", "power"))
    assert constant[2:7] == ("-", "no limit", "-", "no limit", "-")  # an exponent that nothing bounds: its numbers would be anything


def test_too_few_widths_have_rates_and_no_law() -> None:
    nothing = Laws(None, "no law is fitted: rates are known at 1 width", ())
    models = (rate(32, 0.0, 0, "not identified: the safety direction has reliability 0.20"), rate(64, 0.3, 1))
    found = scaling(
        models=models,
        by_width=nothing,
        by_effective=nothing,
        beyond=nothing,
        between=None,
        spreads=(),
        concepts=(),
        concepts_beyond=None,
        concepts_p=None,
    )
    assert "Only at 64 dimensions is known" in lead(found)
    assert "no law is fitted: rates are known at 1 width" in lead(found)
    assert [row[-1] for row in models_grid(found).rows] == ["left out", ""]
    assert fits_grid(found) is None
    page = render(found)
    assert page.count("<svg") == 4
    assert "could not be drawn" not in page


def test_hostile_names_do_nothing() -> None:
    models = tuple(replace(one, model=HOSTILE) for one in scaling().models)
    page = render(scaling(objective=HOSTILE, tasks=(HOSTILE,) * 3, models=models, notes=(HOSTILE,), concepts=(HOSTILE,) * 30))
    assert "<script" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_nothing_is_clipped_in_a_real_browser(chromium: Any, tmp_path: Path, width: int, scheme: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(scaling(tasks=tuple(f"{'w' * 60} {n}" for n in range(3)))), encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate("[...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0).length") == 2
    context.close()
