"""The page of a verification and its view: what is said, what has no number, hostile names that stay text, and a browser that clips nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.predict.results import ShiftPoint
from aligntax.predict.verify import ArmHeld, Family, Predictor, TaskDrop, Verification
from aligntax.report import verify_charts as charts
from aligntax.report.terminal import console
from aligntax.report.verify_page import render
from aligntax.report.verify_text import arm_grid, columns, drops_grid, lead, left_out_notes, points_grid, theory, together_grid, view
from aligntax.stats.multiplicity import holm
from aligntax.stats.predictors import Holding, Together, compare_predictors, hold_predictors, hold_together

HOSTILE = "<script>alert(1)</script>]]>\x1b[31m[red]\u202e"
LONG = "w" * 3000
FAMILIES: dict[str, Family] = {
    "answers lost in a step": "optimiser",
    "overlap, opposed": "geometry",
    "surprise": "baseline",
}


def arm(name: str, seed: int, tasks: int = 12, prefix: str = "task") -> ArmHeld:
    """An arm whose drops the step tells, and the others do not."""
    rng = np.random.default_rng(seed)
    y = np.linspace(-0.05, 0.2, tasks)
    table = {
        "answers lost in a step": y + 0.01 * rng.normal(size=tasks),
        "overlap, opposed": rng.normal(size=tasks),
        "surprise": rng.normal(size=tasks),
    }
    drops = tuple(
        TaskDrop(
            f"{prefix} {n}",
            "acc",
            float(y[n]),
            0.02,
            float(y[n]) - 0.04,
            float(y[n]) + 0.04,
            100,
            {p: float(x[n]) for p, x in table.items()},
        )
        for n in reversed(range(tasks))
    )
    if tasks < 8:
        reason = f"not identified: {tasks} tasks, and it takes at least 8"
        return ArmHeld(name, drops, Holding({}, tasks, False, 0, None, None, None, reason, 0.95), None, {}, {})
    holding = hold_predictors(y, table, rng, se=np.full(tasks, 0.02), margin=0.03, draws=199)
    best = "answers lost in a step"
    against = {p: compare_predictors(y, table[best], x, rng, draws=99) for p, x in table.items() if p != best}
    adjusted = dict(zip(against, holm([d.p for d in against.values()]), strict=True))
    return ArmHeld(name, drops, holding, best, against, adjusted)


def point(stage: str = "sft", where: str = "unsafe prompts", towards: str = "safety", **more: Any) -> ShiftPoint:
    return replace(ShiftPoint(stage, where, towards, 64, 0.3, 0.2, 0.1, 0.3, 0.6, 0.5, 0.7, None), **more)


def made(**more: Any) -> Verification:
    arms = (arm("sft", 1), arm("dpo", 2))
    rng = np.random.default_rng(3)
    y = np.array([[d.drop for d in one.drops] for one in arms])
    table = {name: [[d.foretold[name] for d in one.drops] for one in arms] for name in FAMILIES}
    found = Verification(
        "run", "base",
        {"model": "base-w32", "objective": "prompts.csv", "template": "raw", "layer": 2, "unsafe": 100, "safe": 90, "made_of": "states", "settings": {}, "tax_rates": {"safety": 0.25, "mean states": None}},
        tuple(Predictor(name, family, f"what {name} says") for name, family in FAMILIES.items()), arms, hold_together(y, table, rng, margin=0.03, draws=199),
        tuple(d.task for d in arms[0].drops), 0.03, {"other": "the prediction does not have it"}, ("a note",),
        (point(), point(where="prompts of tasks", safety=0.1), point("dpo", rate=None, rate_low=None, rate_high=None, safety=None, safety_low=None, safety_high=None, reason="not identified: too short")),
    )  # fmt: skip
    return replace(found, **more)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words alone: drawing takes longer than all else."""
    for name in ("correlations", "drops", "frontier"):
        monkeypatch.setattr(charts, name, lambda *_, **__: "<svg></svg>")


def said(found: Verification) -> str:
    screen = console()
    with screen.capture() as captured:
        screen.print(view(found))
    return captured.get()


def harmless(page: str) -> None:
    """Nothing runs, nothing is loaded, and no character acts on what shows it."""
    assert not re.search(r"<script|could not be drawn|https?://(?!www\.w3\.org)|\son\w+=", page)
    assert "]]>" not in re.sub(r"<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.S)
    assert not any(c in page for c in "\x1b\u202e")


# -- what is said ------------------------------------------------------------------------------------------------------------------


def test_what_is_said() -> None:
    found = made()
    assert lead(found).startswith("3 predictors that base-w32 gave before training were held against what was lost.")
    assert (
        "Over 2 trained models and 12 tasks 'answers lost in a step' ranks losses best, with a mean rank correlation of 1.00 (p "
        in lead(found)
    )
    assert "So none of them" not in lead(found)
    assert theory(found) == "No overlap of the theory is shown to tell which tasks lose."
    grid = together_grid(found)
    assert grid is not None
    assert grid.rows[0][0] == "answers lost in a step"
    assert [row[0] for row in arm_grid(found, found.arms[0]).rows] == sorted(
        FAMILIES, key=lambda name: -found.arms[0].holding.held[name].spearman
    )
    assert arm_grid(found, found.arms[0]).rows[0][-1] == "-"  # nothing is held against itself
    assert [name for name, _ in drops_grid(found.arms[0], columns(found, found.arms[0])).headings[4:]] == list(FAMILIES)
    assert left_out_notes(found) == ["other left out: the prediction does not have it"]
    page = render(found)
    harmless(page)
    # Correlations, one frontier, and two drawings of each arm; each for a screen and for a phone.
    assert page.count("<svg") == 2 * (1 + 1 + 2 * 2)
    assert said(found).count("! ") == 2


def test_an_overlap_that_tells_losses_is_named() -> None:
    one = arm("sft", 1)
    right = replace(one.holding.held["answers lost in a step"], adjusted_p=0.01)
    wrong = replace(right, spearman=-0.9)
    for held, expected in (
        (right, "Of the theory's overlaps 'overlap, opposed' tells losses."),
        (wrong, "No overlap of the theory is shown to tell which tasks lose."),  # the wrong way round tells nothing of the theory
    ):
        holding = replace(one.holding, held={**one.holding.held, "overlap, opposed": held})
        assert theory(made(arms=(replace(one, holding=holding),), together={}, common=())) == expected
        over_all = Together(held.spearman, 0.01, 0.01, None)
        assert theory(made(together={**made().together, "overlap, opposed": over_all})) == expected


def test_nothing_is_shown_where_no_p_is_small() -> None:
    one = arm("sft", 1)
    weak = {name: replace(held, adjusted_p=0.4) for name, held in one.holding.held.items()}
    found = made(arms=(replace(one, holding=replace(one.holding, held=weak)),), together={}, common=())
    assert "So none of them is shown to tell anything." in lead(found)


def test_one_arm() -> None:
    found = made(arms=(arm("sft", 1),), together={}, common=())
    assert "'answers lost in a step' ranks what sft lost best, with a rank correlation of 1.00 [" in lead(found)
    assert "over 12 tasks" in lead(found)
    assert together_grid(found) is None
    page = render(found)
    harmless(page)
    assert page.count("<svg") == 2 * (1 + 1 + 2)
    assert "All trained models together" not in page + said(found)


def test_no_arm_that_could_be_tested() -> None:
    found = made(arms=(arm("sft", 1, 5), arm("dpo", 2, 4)), together={}, common=())
    assert "could not be held against what was lost: not identified: 5 tasks, and it takes at least 8." in lead(found)
    page = render(found)
    harmless(page)
    assert page.count("<svg") == 2 * (1 + 2 * 2)  # the frontier, and drops against what was foretold
    assert charts.correlations(found, narrow=False) is None
    assert charts.drops(replace(found.arms[0], drops=found.arms[0].drops[:2]), "surprise", narrow=False) is None
    assert "not identified: 4 tasks" in page
    assert "nan" not in said(found)


def test_an_arm_without_any_task(undrawn: None) -> None:
    nothing = replace(arm("sft", 1, 4), drops=())
    page = render(made(arms=(nothing, arm("dpo", 2)), together={}, common=()))
    harmless(page)


def test_no_points(undrawn: None) -> None:
    found = made(points=())
    assert points_grid(()) is None
    page = render(found)
    harmless(page)
    assert "Where training moved" not in page + said(found)


def test_points_that_are_not_identified_have_no_number() -> None:
    none = point(rate=None, rate_low=None, rate_high=None, safety=None, safety_low=None, safety_high=None, reason="a direction is zero")
    found = made(points=(none,))
    grid = points_grid(found.points)
    assert grid is not None
    assert grid.rows[0] == ("sft", "unsafe prompts", "64", "30 %", "safety", "-", "-", "-", "-", "a direction is zero")
    assert charts.frontier(found.points, "safety", 0.25, narrow=False) is None
    assert "nan" not in said(found)


def test_a_tax_rate_that_is_not_identified_draws_no_frontier() -> None:
    assert charts.frontier((), "safety", 0.25, narrow=False) is None
    assert charts.frontier((point(),), "safety", None, narrow=True) is None
    assert charts.frontier((point(),), "mean states", 0.3, narrow=True) is None
    many = tuple(point(f"stage {n}", rate=rate) for n, rate in enumerate((-0.2, 0.0, 0.3, 1.0, 1.4, 0.5, 0.6)))  # by chance beyond 0 and 1
    for tau in (-0.1, 0.0, 1.0, 1.2):
        assert "<svg" in str(charts.frontier(many, "safety", tau, narrow=False))


def test_what_safety_is_made_of_is_told_as_it_is(undrawn: None) -> None:
    found = made()
    for kind, words in (
        ("states", "mean state after unsafe prompts less that after safe ones"),
        ("answers", "what raises the wanted answers"),
    ):
        assert words in render(replace(found, prediction={**found.prediction, "made_of": kind}))
    other = replace(found, prediction={**found.prediction, "made_of": "answers"})
    assert "'safety' is the difference of mean states" not in render(other) + " ".join(said(other).split())


# -- hostile names -----------------------------------------------------------------------------------------------------------------


def renamed(one: ArmHeld, arm_name: str, task: str, names: Mapping[str, str]) -> ArmHeld:
    """An arm with other names of itself, its tasks and its predictors."""
    drops = tuple(
        replace(d, task=f"{task}{n}", metric=task, foretold={names.get(p, p): x for p, x in d.foretold.items()})
        for n, d in enumerate(one.drops)
    )
    held = {names.get(p, p): of for p, of in one.holding.held.items()}
    holding = replace(one.holding, held=held, reason=None if held else arm_name)
    return replace(one, arm=arm_name, drops=drops, holding=holding, against={names.get(p, p): d for p, d in one.against.items()}, adjusted={names.get(p, p): d for p, d in one.adjusted.items()})  # fmt: skip


def hostile(text: str) -> Verification:
    """Every name that somebody else gave; predictors' are printable when they are made."""
    from aligntax.core.words import printable

    found = made()
    names = {"overlap, opposed": f"overlap, opposed: {printable(text)}"}
    return replace(
        found, run=text, base=text, arms=tuple(renamed(one, f"{text}{n}", text, names) for n, one in enumerate(found.arms)),
        predictors=tuple(replace(p, name=names.get(p.name, p.name)) for p in found.predictors), together={names.get(p, p): of for p, of in found.together.items()},
        common=(text,), left_out={text: text}, notes=(printable(text),), points=tuple(replace(p, stage=text, reason=p.reason) for p in found.points),
        prediction={**found.prediction, "model": text, "objective": text},
    )  # fmt: skip


def test_hostile_names_do_nothing() -> None:
    found = hostile(HOSTILE)
    page = render(found)
    harmless(page)
    assert "&lt;script&gt;" in page


def test_hostile_names_are_no_markup_on_a_terminal() -> None:
    text = said(hostile(HOSTILE))
    assert not any(c in text for c in "\x1b\u202e")
    assert "[red]" in text
    assert "<script>" in text
    markup = said(made(run="[bold]x[/bold]", notes=("[link=x]y[/link]",)))
    assert "[link=x]y[/link]" in markup


def test_a_hostile_template_does_nothing(undrawn: None) -> None:
    found = made()
    harmless(render(replace(found, prediction={**found.prediction, "template": HOSTILE, "layer": HOSTILE})))


def test_long_names_are_cut(undrawn: None) -> None:
    """Of what others name a page shows the beginning, in its title, headings and cells; for those of metrics see below."""
    page = render(hostile(LONG))
    harmless(page)
    title = re.search(r"<title>(.*?)</title>", page)
    assert title is not None
    assert len(title[1]) < 200
    for cell in re.findall(r"<h2[^>]*>(.*?)</h2>|<t[dh][^>]*>(.*?)</t[dh]>", page, flags=re.S):
        assert LONG not in "".join(cell) or "overlap" in "".join(cell)


def test_long_names_of_metrics_are_cut(undrawn: None) -> None:
    page = render(hostile(LONG))
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, flags=re.S)
    assert max(len(cell) for cell in cells) < 500


@pytest.fixture(scope="module")
def page_of_long_names(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "page.html"
    names = {"overlap, opposed": f"overlap, opposed: {'w' * 60}"}
    found = made()
    found = replace(
        found, arms=tuple(renamed(one, f"{'w' * 70}{n}", "w" * 60, names) for n, one in enumerate(found.arms)),
        predictors=tuple(replace(p, name=names.get(p.name, p.name)) for p in found.predictors), together={names.get(p, p): of for p, of in found.together.items()},
    )  # fmt: skip
    file.write_text(render(found), encoding="utf-8")
    return file


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_nothing_is_clipped_in_a_real_browser(chromium: Any, page_of_long_names: Path, width: int, scheme: str) -> None:
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(page_of_long_names.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    shown = page.evaluate("[...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0).length")
    assert shown == 1 + 1 + 2  # correlations, the frontier, and drops of each arm against the one predictor that kept its name
    context.close()
