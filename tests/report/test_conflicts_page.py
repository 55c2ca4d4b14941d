"""The page of conflicts: what it says and never says, hostile names that stay text, and a browser that clips nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from aligntax.predict.conflict_results import Conflicts, Pair, Preserved, ReadObjective, ReadTask, level_of
from aligntax.predict.results import Settings
from aligntax.report import conflicts_charts as charts
from aligntax.report.conflicts_page import render
from aligntax.report.conflicts_text import SHAPE, lead, pairs_grid, side, tasks_grid, times_needed, view
from aligntax.report.terminal import console
from aligntax.stats.directions import CorrectedCosine, Jackknifed

HOSTILE = "<script>alert(1)</script>\x1b[31m"


def around(estimate: float, half: float = 0.1) -> Jackknifed:
    return Jackknifed(estimate, estimate - half, estimate + half, half / 2, 0.001 if abs(estimate) > half else 0.6)


def preserved(task: str | None, rho: float, change: float, half: float = 0.05) -> Preserved:
    one = around(change, half)
    return Preserved(task, around(rho + change), one, one.p, (0.2, 0.1), 0, None)


def pair(first: str, second: str, rho: float, changes: Mapping[str, float]) -> Pair:
    whole = CorrectedCosine(around(rho), rho * 0.9, (0.9, 0.8), (8.0, 7.0), None, 32, 0.95)
    each = tuple(preserved(task, rho, change) for task, change in changes.items())
    return Pair(first, second, whole, preserved(None, rho, sum(changes.values())), each, 0)


def made(**more: Any) -> Conflicts:
    names = ("harmless", "honest", "secret")
    found = Conflicts(
        "base", {}, "raw", tuple(ReadObjective(name, "states", 100, 90, 0.9, 8.0) for name in names), (ReadTask("reading", 64, 0.9), ReadTask("sums", 64, 0.8)), 2, "data", 64,
        (
            pair("harmless", "honest", -0.3, {"reading": 0.2, "sums": -0.01}),
            pair("harmless", "secret", 0.4, {"reading": 0.0, "sums": 0.01}),
            pair("honest", "secret", 0.05, {"reading": -0.3, "sums": 0.02}),
        ),
        Settings(), ("a note",),
    )  # fmt: skip
    return replace(found, **more)


def test_what_is_said() -> None:
    found = made()
    assert lead(found).startswith(
        "Pulling base towards harmless pulls it away from honest, before any training (cosine -0.30, 95 % interval -0.40 to -0.20)."
    )
    assert "Of 3 pairs of objectives 1 pull apart and 1 pull together and 1 show neither." in lead(found)
    assert "the conflict is weaker: part of it runs through what the tasks need (cosine -0.11" in lead(found)
    assert [row[4] for row in pairs_grid(found).rows] == ["apart", "not shown", "together"]
    keeping = [[row[6] for row in tasks_grid(found, one).rows] for one in found.pairs]
    assert keeping == [["conflict weaker", "conflict unchanged"], ["no conflict", "no conflict"], ["no conflict", "conflict made"]]
    page = render(found)
    assert SHAPE in page
    assert page.count("<svg") == 8  # the map, and one drawing per pair, each for a screen and a phone
    assert not re.search(r"<script|could not be drawn|https?://(?!www\.w3\.org)|\bnan\b", page)


def test_two_objectives_that_pull_together_or_neither() -> None:
    together = made(pairs=(pair("harmless", "secret", 0.4, {"sums": 0.0}),))
    assert "pulls it towards secret as well" in lead(together)
    assert "With all of the tasks kept as they are they do not pull apart either" in lead(together)
    neither = made(pairs=(pair("harmless", "secret", 0.05, {"sums": 0.0}),))
    assert "pulls it away from secret or towards it is not shown" in lead(neither)
    assert pairs_grid(neither).rows[0][5] == "4 times"  # half the interval is twice the cosine
    assert times_needed(around(0.001), neither) == "over 100 times"
    assert float(times_needed(around(0.05), neither, 10).split()[0]) > 4


def test_what_is_not_identified_has_no_number() -> None:
    whole = CorrectedCosine(None, 0.1, (0.2, 0.8), (1.0, 7.0), "not identified: the direction of harmless has reliability 0.20", 32, 0.95)
    nothing = Preserved(None, None, None, None, None, 0, "not identified: reasons")
    found = made(pairs=(Pair("harmless", "honest", whole, nothing, (replace(nothing, task="sums"),), 0),), objectives=made().objectives[:2])
    assert "is not identified: the direction of harmless has reliability 0.20" in lead(found)
    assert (side(None), level_of(found.pairs[0])) == ("not identified", None)
    page = render(found)
    assert page.count("<svg") == 2  # the map, with question marks
    assert "not identified: reasons" in page
    alone = made(tasks=(), pairs=tuple(replace(one, together=None, each=()) for one in made().pairs))
    page = render(alone)
    assert page.count("<svg") == 2
    assert "all tasks kept" not in page


def test_the_terminal_tells_the_tasks_that_change_something() -> None:
    screen = console()
    with screen.capture() as captured:
        screen.print(view(made()))
    said = " ".join(captured.get().split())
    assert "harmless and honest, one task kept at a time" in said
    assert "harmless and secret, one task kept at a time" not in said
    assert SHAPE in said


def test_hostile_names_do_nothing() -> None:
    pairs = tuple(
        replace(one, first=HOSTILE if n < 2 else one.first, each=tuple(replace(kept, task=HOSTILE) for kept in one.each))
        for n, one in enumerate(made().pairs)
    )
    objectives = (replace(made().objectives[0], name=HOSTILE), *made().objectives[1:])
    found = made(model=HOSTILE, objectives=objectives, pairs=pairs, notes=(HOSTILE,), tasks=(ReadTask(HOSTILE, 64, 0.9),))
    page = render(found)
    assert "<script" not in page
    assert "\x1b" not in page
    assert "could not be drawn" not in page
    screen = console()
    with screen.capture() as captured:
        screen.print(view(found))
    assert "\x1b[31m" not in captured.get()


def test_many_objectives_have_tables_and_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "shifts", lambda *_, **__: "<svg></svg>")  # twelve drawings take their time
    objectives = tuple(ReadObjective(f"o{n}", "states", 100, 90, 0.9, 8.0) for n in range(13))
    pairs = tuple(pair("o0", f"o{n}", -0.3, {"sums": 0.1}) for n in range(1, 13))
    page = render(made(objectives=objectives, pairs=pairs))
    assert page.count("<svg") == 12  # six pairs, twice
    assert "Map of conflicts" not in page


@pytest.mark.parametrize(("width", "scheme"), [(1100, "light"), (390, "dark")])
def test_nothing_is_clipped_in_a_real_browser(chromium: Any, tmp_path: Path, width: int, scheme: str) -> None:
    file = tmp_path / "page.html"
    long = "w" * 60
    objectives = tuple(replace(one, name=f"{one.name} {long}") for one in made().objectives)
    pairs = tuple(replace(one, first=f"{one.first} {long}", second=f"{one.second} {long}") for one in made().pairs)
    file.write_text(render(made(objectives=objectives, pairs=pairs)), encoding="utf-8")
    context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    assert page.evaluate("[...document.querySelectorAll('figure svg')].filter(svg => svg.getBoundingClientRect().width > 0).length") == 4
    context.close()
