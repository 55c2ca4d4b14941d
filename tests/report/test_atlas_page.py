"""The page and the terminal view of an atlas: what they say, what they never say, and hostile names that stay text."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from aligntax.atlas import analysis as module
from aligntax.atlas.analysis import Analysis, Settings, analyse
from aligntax.atlas.ratings import FloatArray
from aligntax.report import atlas_charts as charts
from aligntax.report.atlas_page import render
from aligntax.report.atlas_text import COLLAPSED, collapse_grid, components_grid, doubts, grids, lead, sentences, view
from aligntax.report.row_charts import short
from aligntax.stats.raters import cluster_raters
from tests.support.atlas_ratings import ratings_of

QUICK = Settings(draws=199, resamples=100)
HOSTILE = [
    "<script>alert(1)</script>", "[bold]x[/bold]", "\x1b[31mred", "constructor", "__proto__", "😀🔥", "\u202eevil", "שלום", "toString", "null", "NaN", "2020-01-01",
    "undefined", "a" * 300, "\"quote'", "&amp;", "datum", "1e5", "\u200bzero", "${x}", "{{7*7}}", "=1+1", "hasOwnProperty", "line\nbreak", "%s", "valueOf",
]  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _quick_clusters() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "cluster_raters", partial(cluster_raters, resamples=20, permutations=19))
        yield


def example(pairs: int = 24, models: int = 8, seed: int = 0) -> FloatArray:
    rng = np.random.default_rng(seed)
    return np.clip(0.5 + np.tile([0.03, 0.2], pairs // 2)[:, None] * rng.normal(size=(pairs, models)), 0, 1).round(2)


def text_of(found: Analysis, width: int = 160) -> str:
    out = io.StringIO()
    Console(file=out, width=width, color_system=None).print(view(found))
    return out.getvalue()


def words_of(page: str) -> str:
    """What the page shows: no style sheet, no markup."""
    return re.sub(r"<[^>]*>", " ", re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))


# -- words -----------------------------------------------------------------------------------------------------------------------


def test_the_lead_is_no_stronger_than_the_findings() -> None:
    found = analyse(ratings_of(example(), ["control", "clash"] * 12), QUICK)
    told = lead(found)
    assert told.startswith(
        "8 models rated how alike 24 pairs of sentences are in meaning. Two of them picked at random differ by 0.03 on a control pair"
    )
    assert told.endswith("That category divides these models more than the controls, also after allowing for where on the scale it lies.")
    one = found.comparisons[0]
    assert lead(replace(found, comparisons=[replace(one, finding="only before adjustment")])).endswith("than controls do is not shown.")
    assert lead(replace(found, roles=replace(found.roles, contested=("clash", "other")))).endswith(
        "Of the other contested categories that is not shown."
    )
    assert lead(analyse(ratings_of(example(), ["x"] * 24), QUICK)).endswith(
        "There is nothing to compare that with: no category is a control."
    )
    assert lead(analyse(ratings_of(example(), ["control"] * 24), QUICK)).endswith("no category is contested.")


def test_small_interactions_are_added_up_and_nothing_is_below_zero_in_words() -> None:
    x = np.repeat(np.repeat(example()[:, :, None, None, None], 2, axis=2), 2, axis=3)
    x = np.concatenate([x, x], axis=4)
    grid = components_grid(analyse(ratings_of(x, ["control", "clash"] * 12), QUICK))
    assert grid is not None
    names = [row[0] for row in grid.rows]
    assert names[-1].endswith("other interactions, each below 0.5 %")
    assert "the same question again" in names
    assert not [row for row in grid.rows if row[1].startswith("-0.00000")]
    assert sum(float(row[2].rstrip(" %")) for row in grid.rows) == pytest.approx(100, abs=0.3)


def test_a_row_for_every_model_of_the_collapse_and_the_outermost_in_a_terminal() -> None:
    rng = np.random.default_rng(0)
    kinds = ["control", "clash", "milder", "contradiction"] * 6
    base = np.array([{"control": 0.9, "clash": 0.5, "milder": 0.6, "contradiction": 0.1}[k] for k in kinds])
    at = np.linspace(-0.2, 0.2, 16)
    x = np.clip(base[:, None] + np.where(np.array(kinds) == "clash", 1.0, 0.0)[:, None] * at + 0.02 * rng.normal(size=(24, 16)), 0, 1)
    found = analyse(ratings_of(x, kinds, topic=[f"t{i // 4}" for i in range(24)]), QUICK)
    grid, few = collapse_grid(found), collapse_grid(found, 4)
    assert grid is not None
    assert few is not None
    assert [row[:2] for row in grid.rows[:3]] == [("mean of 16 models", "clash"), ("mean of 16 models", "milder"), ("m0", "clash")]
    assert len(grid.rows) == 2 + 16
    assert [row[0] for row in few.rows[2:]] == ["m0", "m1", "m14", "m15"]
    assert "12 models between these are left out here." in few.note
    assert "0: rated like a contradiction, 1: rated like a paraphrase" in few.note
    assert COLLAPSED in text_of(found)


def test_doubts_say_what_the_design_lacks() -> None:
    plain = " ".join(doubts(analyse(ratings_of(example(), ["control", "clash"] * 12), QUICK)))
    for said in ("asked in one order only", "asked once", "asked in one wording", "without contradictions about everyday things"):
        assert said in plain
    x = example()
    x[::2] = np.clip(x[::2] + 0.4, 0, 1)
    x[1, 2] = np.nan
    kinds = ["control", "clash", "control", "contradiction"] * 6
    made = ratings_of(x, kinds)
    told = " ".join(doubts(analyse(replace(made, modes={"m0": ("sampled",), "m1": ("logprob",)}), QUICK)))
    assert "no control is rated about as high as clash" in told
    assert "no contested category is shown to divide models more than everyday contradictions do" in told
    assert "1 rating is missing (most of them: m2 1); models that refuse the contested pairs are not missing by chance" in told
    assert "ratings were made in several ways (logprob, sampled): part of the divergence may come from that" in told


def test_clusters_that_chance_gives_as_well_say_so() -> None:
    found = analyse(ratings_of(example(), ["control", "clash"] * 12), QUICK)
    assert found.clusters is not None
    told = [" ".join(sentences(replace(found, clusters=replace(found.clusters, silhouette_p=p)))) for p in (0.01, 0.4)]
    assert "which chance gives as well" not in told[0]
    assert "clusters, which chance gives as well: silhouette" in told[1]


def test_names_are_shortened_in_their_middle() -> None:
    assert short("claude", 10) == "claude"
    assert short("meta-llama-3.3-70b-instruct", 13) == "meta-l…struct"
    assert len(short("x" * 300, 20)) == 20


def test_models_of_different_providers_are_named_by_what_tells_them_apart() -> None:
    found = analyse(ratings_of(example(models=3), ["control", "clash"] * 12, models=["a/one", "b/two", "api:http://h:1/v1#three"]), QUICK)
    assert charts.model_names(found) == ["one", "two", "three"]
    same = analyse(ratings_of(example(models=3), ["control", "clash"] * 12, models=["a/one", "b/one", "<b>/x"]), QUICK)
    assert charts.model_names(same) == ["a/one", "b/one", "<b>/x"]


# -- the page --------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def everything() -> tuple[Analysis, str]:
    """Two orders, wordings and repeats, all roles, topics, references, groups, refusals."""
    rng = np.random.default_rng(0)
    kinds = ["anchor", "control", "control_mid", "clash", "neutral_contradiction"] * 8
    mean = {"anchor": 0.5, "control": 0.9, "control_mid": 0.5, "clash": 0.5, "neutral_contradiction": 0.15}
    base = np.array([mean[k] for k in kinds])
    base[::5] = np.linspace(0, 1, 8)
    own = base[:, None] + np.where(np.array(kinds) == "clash", 0.2, 0.04)[:, None] * rng.normal(size=(40, 10))
    x = np.clip(own[:, :, None, None, None] + 0.02 * rng.normal(size=(40, 10, 2, 2, 2)), 0, 1)
    x[3, 0] = np.nan
    groups = {"developer": [f"d{m // 2}" for m in range(10)], "country": ["u"] * 4 + ["v"] * 6, "stage": ["base", "dpo"] * 5}
    reference = np.where(np.array(kinds) == "clash", 0.3, base)
    made = ratings_of(
        x, kinds, groups=groups, topic=[None if k == "anchor" else f"t{i // 5}" for i, k in enumerate(kinds)], reference=reference.tolist()
    )
    found = analyse(made, replace(QUICK, order=("control", "clash")))
    return found, render(found)


def test_the_page_has_every_table_and_drawing_and_no_script(everything: tuple[Analysis, str]) -> None:
    found, page = everything
    assert 'id="collapse"' in page
    for grid in grids(found):
        assert grid.title.replace("'", "&#39;") in page
    assert page.count("<svg") == 14  # seven drawings, for a screen and for a phone
    assert not re.search(r"<script|javascript:|could not be drawn|https?://(?!www\.w3\.org)", page)
    assert "default-src 'none'" in page
    for said in (words_of(page), text_of(found)):
        assert not re.search(r"\b(nan|inf|None)\b", said)
    for name in re.findall(r"var\((--[a-z-]+)\)", page):
        assert f"{name}:" in page


@pytest.mark.parametrize(
    ("x", "kinds"),
    [
        (np.full((8, 6), 0.5), ["control", "clash"] * 4),
        (example(2, 2), ["control", "clash"]),
        (example(8, 6), [f"c{i}" for i in range(8)]),
        (np.where(np.arange(6) == 2, np.nan, example(8, 6)), ["control", "clash"] * 4),
        (np.where(np.arange(8)[:, None] % 2 == 1, np.nan, example(8, 6)), ["control", "clash"] * 4),
    ],
    ids=[
        "all equal",
        "2 by 2",
        "a category each",
        "one refuses all",
        "all refuse contested",
    ],
)
def test_tables_that_say_little_have_a_page_and_a_view(x: FloatArray, kinds: Sequence[str]) -> None:
    groups = {"country": (["u", "v"] * 6)[: x.shape[1]]}
    found = analyse(ratings_of(x, kinds, groups=groups), QUICK)
    page = render(found)
    assert "could not be drawn" not in page
    for said in (words_of(page), text_of(found)):
        assert not re.search(r"\b(nan|inf|None)\b", said)


@pytest.fixture(scope="module")
def hostile() -> tuple[Analysis, str]:
    n = len(HOSTILE)
    x = np.array([[((p * 7 + m * 3) % 11) / 10 for m in range(n)] for p in range(n)])
    kinds = [HOSTILE[p // 4] for p in range(n)]
    groups = {
        "country": [HOSTILE[m % 3] for m in range(n)],
        "<b>column</b>": [HOSTILE[m % 2] for m in range(n)],
        "constructor": [HOSTILE[m % 4] for m in range(n)],
    }
    made = ratings_of(x, kinds, groups=groups, models=HOSTILE, pairs=HOSTILE[::-1])
    made = replace(made, texts=tuple((name, name[::-1]) for name in HOSTILE), source="\x1b[2J<i>.csv")
    found = analyse(made, replace(QUICK, controls=(HOSTILE[0],), order=(HOSTILE[0], "constructor")))
    return found, render(found)


def test_hostile_names_stay_text(hostile: tuple[Analysis, str]) -> None:
    found, page = hostile
    told = text_of(found)
    for said in (page, told):
        assert not re.search(r"[\x00-\x08\x1b\u200b\u202a-\u202e\u2066-\u2069]", said)
    assert "<script" not in page
    assert "<b>column" not in page
    assert "<i>" not in page
    assert "could not be drawn" not in page
    assert "[bold]x[/bold]" in told
    assert "\\x1b[31mred" in told


def test_many_pairs_and_many_models_fit() -> None:
    found = analyse(ratings_of(example(500, 4), ["control", "clash"] * 250), QUICK)
    page = render(found)
    assert "All 500 pairs" in page
    assert f"The {charts.MAX_ROWS} pairs that divide models most, of 500" in page
    many = render(analyse(ratings_of(example(8, 64), ["control", "clash"] * 4), QUICK))
    assert "could not be drawn" not in many
    assert "The first 60 of 64 models" in many


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
@pytest.mark.parametrize("which", ["everything", "hostile"])
def test_nothing_is_clipped_and_nothing_loads_in_a_real_browser(
    chromium: Any, tmp_path: Path, request: pytest.FixtureRequest, which: str, width: int, scheme: str
) -> None:
    file = tmp_path / "atlas.html"
    file.write_text(request.getfixturevalue(which)[1], encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda asked: None if asked.url == file.as_uri() else said.append(asked.url))
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert (
        page.evaluate("[...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0).length")
        == {"everything": 7, "hostile": 6}[which]
    )
    cut = page.evaluate(
        """() => [...document.querySelectorAll("figure svg")].flatMap(svg => {
            const box = svg.getBoundingClientRect();
            return [...svg.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()])
                .filter(([, t]) => t.width && (t.left < box.left - 2 || t.right > box.right + 2 || t.top < box.top - 2 || t.bottom > box.bottom + 2))
                .map(([text]) => text); })"""
    )
    assert cut == []
    context.close()
    assert said == []
