"""What pages share: figures whose names stay text, and drawings that fail without costing a page."""

from __future__ import annotations

import numpy as np
import pytest

from aligntax.atlas.analysis import Settings, analyse
from aligntax.report import atlas_charts, row_charts
from aligntax.report.atlas_page import render
from aligntax.report.pages import asset, attempted, figure, template
from tests.support.atlas_ratings import ratings_of


def test_a_figure_has_both_drawings_and_its_name_is_text() -> None:
    made = figure("<svg>wide</svg>", "<svg>phone</svg>", '"><script>')
    assert made.count('role="img" aria-label="&#34;&gt;&lt;script&gt;"') == 2
    assert made.index('"wide-only"') < made.index("<svg>wide</svg>") < made.index('"narrow"') < made.index("<svg>phone</svg>")


def test_a_drawing_that_fails_says_why_in_its_place() -> None:
    def broken() -> str:
        raise ValueError("no <such>\n\x1b[31m operator" + "x" * 1000)

    assert attempted(lambda: "<svg/>") == "<svg/>"
    assert attempted(lambda: None) is None
    said = attempted(broken)
    assert "This chart could not be drawn: no &lt;such&gt; \\x1b[31m operator" in said
    assert len(said) < 500


def test_charts_of_an_atlas_that_fail_cost_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> str:
        raise ValueError("no <such> operator")

    x = np.clip(0.5 + 0.2 * np.random.default_rng(0).normal(size=(8, 6)), 0, 1)
    found = analyse(ratings_of(x, ["control", "clash"] * 4), Settings(draws=99, resamples=50))
    whole = render(found)
    for module in (atlas_charts, row_charts):
        monkeypatch.setattr(module, "drawn", broken)
    page = render(found)
    assert page.count("This chart could not be drawn: no &lt;such&gt; operator") == page.count("<svg") == whole.count("<svg") > 0
    assert "could not be drawn" not in whole


def test_templates_escape_and_refuse_what_they_lack() -> None:
    page = template("page.html.j2").environment
    assert page.from_string("{{ x }}").render(x="<b>\x1b") == "&lt;b&gt;\x1b"
    assert page.from_string("{{ x | shown }}").render(x="<b>\x1b") == "&lt;b&gt;\\x1b"
    with pytest.raises(Exception, match="'y' is undefined"):
        page.from_string("{{ y }}").render()
    assert asset("report.css").startswith(":root {")
