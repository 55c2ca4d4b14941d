"""The page of a prediction: nothing hostile gets through, what is not identified has no drawing, and a browser clips nothing."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.predict.results import AtLayer, Concepts, Settings, TaskRisk, TaxPrediction
from aligntax.report.predict_page import render
from aligntax.report.predict_text import lead, needed, verdict
from aligntax.stats.directions import CrossFit, SignedOverlap

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def fit(estimate: float | None = 0.2, reason: str | None = None, tasks: int = 3) -> CrossFit:
    known = estimate is not None
    cosines = np.linspace(-0.4, 0.3, tasks)
    return CrossFit(
        estimate=estimate, low=0.1 if known else None, high=0.3 if known else None, se=0.05 if known else None, jackknife=(0.2, 0.05) if known else None,
        naive=0.25, overlaps=tuple(SignedOverlap(float(c), float(c) - 0.1, float(c) + 0.1, float(c) * 0.9) for c in cosines) if known else (), reliability=0.9,
        capability_reliabilities=np.full(tasks, 0.9), z=8.0, least_eigenvalue=0.8, clipped=0, reason=reason, blocks=32, level=0.95,
    )  # fmt: skip


def prediction(**more: Any) -> TaxPrediction:
    one = fit()
    risks = tuple(
        TaskRisk(f"task {i}", overlap, p, 0.9, 0.01, -0.2, 64)
        for i, (overlap, p) in enumerate(zip(one.overlaps, (0.001, 0.9, 0.002), strict=True))
    )
    made = TaxPrediction(
        "base", {}, "prompts.csv", "raw", tuple(AtLayer(n, 0.9, 8.0, one) for n in (1, 2, 3)), 2, "data", 64, risks,
        Concepts(tuple(f"c{n}" for n in range(60)), tuple(np.linspace(0.02, 0.15, 60).tolist()), 80, 1 / 61), 200, 180, Settings(), ("a note",),
    )  # fmt: skip
    return replace(made, **more)


def test_what_is_said() -> None:
    found = prediction()
    assert "20 % of the safety direction lies in what the 3 tasks need (95 % interval 10 % to 30 %)" in lead(found)
    assert "could reach 89 % of the safety" in lead(found)
    assert "safety is entangled with these tasks" in lead(found)
    assert [verdict(found, r) for r in found.risks] == ["lowered", "not shown", "raised"]
    assert [needed(found, r) for r in found.risks][0::2] == ["-", "-"]
    half, size = 0.1, abs(found.risks[1].overlap.cosine)  # type: ignore[union-attr]
    assert int(needed(found, found.risks[1]).replace(",", "")) > 64 * (half / size) ** 2  # wider, since three are told of at once
    page = render(found)
    assert page.count("<svg") == 8
    assert not re.search(r"<script|could not be drawn|https?://(?!www\.w3\.org)", page)
    assert found.costs[1.0] == pytest.approx(np.sqrt(0.2))
    assert found.costs[0.9] == pytest.approx(0.9 * np.sqrt(0.2) - np.sqrt(0.8) * np.sqrt(1 - 0.81), abs=1e-9)


def test_a_concept_like_any_other_and_too_few_of_them() -> None:
    usual = prediction(concepts=Concepts(("a",) * 60, tuple(np.linspace(0.1, 0.5, 60).tolist()), 80, 0.7))
    assert "nothing says that safety is entangled with these tasks more than anything else is" in lead(usual)
    few = prediction(concepts=Concepts(("a",), (0.1,), 80, None))
    assert "Whether that is more than for any other concept is not known" in lead(few)


def test_what_is_not_identified_has_no_number() -> None:
    nothing = fit(None, "not identified: the safety direction has reliability 0.20")
    risks = tuple(replace(r, overlap=None, p_holm=None) for r in prediction().risks)
    found = prediction(layers=(AtLayer(2, None, None, nothing),), risks=risks, concepts=Concepts((), (), 0, None))
    assert "is not identified: the safety direction has reliability 0.20" in lead(found)
    assert (found.free, found.angle, found.adjusted, found.costs) == (None, None, None, {})
    page = render(found)
    assert page.count("<svg") == 0
    assert "not identified" in page


def test_hostile_names_do_nothing() -> None:
    risks = tuple(replace(r, task=HOSTILE) for r in prediction().risks)
    page = render(prediction(model=HOSTILE, objective=HOSTILE, notes=(HOSTILE,), risks=risks))
    assert "<script" not in page
    assert "\x1b" not in page


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_nothing_is_clipped_in_a_real_browser(chromium: Any, tmp_path: Path, width: int, scheme: str) -> None:
    file = tmp_path / "page.html"
    file.write_text(render(prediction(risks=tuple(replace(r, task=f"{'w' * 60} {r.task}") for r in prediction().risks))), encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate("[...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0).length") == 4
    context.close()
