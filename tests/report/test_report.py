"""What people see: pages, Markdown, terminal, CSV. Model text is hostile and does nothing anywhere."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import itertools
import json
import re
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aligntax
from aligntax import Ledger
from aligntax.core.words import cut, decimals_for, number, p_text, printable
from aligntax.flow.stored import reopen
from aligntax.report import changes as packing
from aligntax.report import charts, overview
from aligntax.report.csv_export import ledger_csv
from aligntax.report.drawing import DrawingProcess, draw_here, narrow
from aligntax.report.markdown import markdown
from aligntax.report.page import render
from aligntax.report.terminal import console, flips_view, ledger_view
from aligntax.store.run import load_run
from tests.support.tables import pair, write_csv

HOSTILE = [
    "<script>alert(1)</script>",
    "</pre></body><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "\x1b[31mred\x1b]0;title\x07",
    "[bold red]markup[/] [link=https://example.org]x[/link]",
    "\u202eright to left\u2066",
    "=cmd|' /C calc'!A0",
    "| a | b |\n|---|\n`code` *em* [x](javascript:alert(1))",
    "{{ 7 * 7 }} {% for x in y %}",
    "\x00null\x7f",
    "\ud800 lone",
]


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    base, candidate = pair(30, 12, 10, 20)
    for i, rows in enumerate(zip(base, candidate, strict=True)):
        for row in rows:
            bad = HOSTILE[i % len(HOSTILE)].encode("utf-8", "replace").decode()
            row |= {
                "item": f"{i} {bad}",
                "task": HOSTILE[0] if i % 2 else HOSTILE[2],
                "group": bad,
                "question": bad + str(i),
                "target": bad,
                "answer": bad * (1 + i % 3),
            }
    paths = [write_csv(folder / f"{name}.csv", rows) for name, rows in (("a", base), ("b", candidate))]
    aligntax.diff(*paths, by="group", names=(HOSTILE[1], HOSTILE[3]), out=folder / "run")
    return folder / "run"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_hostile_text_adds_no_element_and_no_handler(hostile_run: Path) -> None:
    page = (hostile_run / "report.html").read_text()
    parser = Tags()
    parser.feed(page)
    names = {tag for tag, _ in parser.tags}
    assert not names & {"img", "iframe", "object", "embed", "link", "foreignobject", "base", "use", "image"}
    assert [attributes for tag, attributes in parser.tags if tag == "script"] == [
        {"type": "application/octet-stream", "id": "changes-data"},
        {},
    ]
    targets = {attributes.get("id") for _, attributes in parser.tags}
    for tag, attributes in parser.tags:
        assert not [a for a in attributes if a.lower().startswith("on")], (tag, attributes)
        assert "javascript:" not in " ".join(v or "" for v in attributes.values())
        assert not {"xlink:href", "src", "srcset", "action", "formaction"} & set(attributes)
        if "href" in attributes:
            assert tag == "a"
            assert (attributes["href"] or "").startswith("#")
            assert (attributes["href"] or "")[1:] in targets
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert "{{ 7 * 7 }}" in page
    assert "url(" not in page
    assert page.count("<svg") == sum(1 for tag, _ in parser.tags if tag == "svg")


def test_the_page_allows_its_own_script_alone_and_no_network(hostile_run: Path) -> None:
    page = (hostile_run / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    script = re.search(r"<script>(.*)</script>\s*</body>", page, re.DOTALL)
    assert policy
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in policy[1].split("; "))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval|Function\(|fetch|XMLHttp", script[1])


def test_hostile_text_in_terminal_markdown_and_csv(hostile_run: Path) -> None:
    stored = load_run(hostile_run)
    with reopen(stored) as comparison:
        metric = stored.ledger[0].metric
        total, flips = comparison.flips(stored.study.baseline, stored.study.candidate, metric, limit=100)
    screen = console()
    with screen.capture() as capture:
        screen.print(ledger_view(stored.ledger, all_checks=True))
        screen.print(flips_view(flips, total))
    shown = capture.get()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown)
    assert "[bold red]markup[/]" in shown
    text = markdown(stored.ledger)
    assert "<script" not in text
    assert "<img" not in text
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", text)
    assert "](javascript" not in text
    for row in csv.reader(io.StringIO(ledger_csv(stored.ledger))):
        assert not [cell for cell in row if cell.startswith(("=", "@")) or re.match(r"[+-][^0-9.]", cell)]


def small(tmp_path: Path) -> Ledger:
    base, candidate = (write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate(pair(50, 12, 3, 20, task="sums")))
    return aligntax.diff(base, candidate, out=tmp_path / "run")


def test_the_page_says_what_matters(tmp_path: Path) -> None:
    small(tmp_path)
    page = (tmp_path / "run" / "report.html").read_text()
    for text in (
        "sums (score) fell by 10.6 points over 85 items (95 % interval -20.3 to -1.9): tax.",
        "12 lost, 3 gained",
        "outcomes, base",
        "85 scored",
        "Holm",
        "Provenance",
    ):
        assert text in page, text


def packed(page: str) -> dict[str, Any]:
    found = re.search(r'id="changes-data">([^<]*)</script>', page)
    assert found
    data: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(found[1])))
    return data


def test_the_page_holds_every_changed_item_uncut(tmp_path: Path) -> None:
    base, candidate = pair(50, 12, 3, 20, task="sums")
    for i, row in enumerate((*base, *candidate)):
        row |= {"question": "why?", "target": "42", "answer": f"answer {i} " + "so " * 5_000}
    paths = [write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate((base, candidate))]
    aligntax.diff(*paths, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    data = packed(page)
    assert [group["arms"] for group in data["groups"]] == [["base", "candidate"]]
    assert sum(item["lost"] for item in data["items"]) == 12
    assert sum(not item["lost"] for item in data["items"]) == 3
    answers = {row["item"]: row["answer"] for row in candidate}
    for item in data["items"]:
        assert data["texts"][item["answers"][1]] == answers[item["item"]]
        assert item["values"] == ("1 → 0" if item["lost"] else "0 → 1")
    assert len(data["texts"]) == 2 + 2 * 15
    assert "base to candidate, score: 12 lost, 3 gained." in page
    assert "are cut where marked" not in page


def test_long_texts_are_cut_to_fit_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_PACKED", 400_000)
    rng = np.random.default_rng(0)
    base, candidate = pair(10, 90, 80, 10)
    for row in (*base, *candidate):
        row |= {"answer": " ".join(map(str, rng.integers(10**6, size=2_000)))}
    paths = [write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate((base, candidate))]
    aligntax.diff(*paths, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    data = packed(page)
    assert len(data["items"]) == 170
    longest = max(data["texts"], key=len)
    limit = packing.LIMITS[packing.LIMITS.index(int(longest.split(" … ")[0].__len__()))]
    assert f"Texts of more than {limit:,} characters are cut where marked." in page
    assert re.search(r" … \(\+[0-9,]+ characters\)$", longest)
    assert len(page) < 700_000


def test_items_that_do_not_fit_are_an_even_sample_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_ITEMS", 60)
    paths = []
    for k in range(2):
        rows = [{"task": f"t{i % 3}", "item": i, "score": (i // 3 + k) % 2} for i in range(600)]
        paths.append(write_csv(tmp_path / f"{k}.csv", rows))
    aligntax.diff(*paths, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    items = packed(page)["items"]
    assert "This page holds 60 of 600: of every comparison the largest changes, and of equal ones an even sample." in page
    assert sum(item["lost"] for item in items) == 30
    assert {item["task"] for item in items} == {"t0", "t1", "t2"}
    assert max(int(item["item"]) for item in items) > 300


def test_where_nothing_fits_items_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "MAX_PACKED", 2_000)
    small(tmp_path)
    data = packed((tmp_path / "run" / "report.html").read_text())
    assert 0 < len(data["items"]) <= 15


def test_forest_rows_are_capped_and_the_cap_is_stated(tmp_path: Path) -> None:
    base = [{"item": i, "score": i % 2, "group": f"g{i % 80:02d}"} for i in range(400)]
    candidate = [{**row, "score": int(i % 3 == 0)} for i, row in enumerate(base)]
    paths = [write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate((base, candidate))]
    aligntax.diff(*paths, by="group", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{charts.MAX_ROWS} of 81 entries are drawn." in page


def test_markdown_for_a_pull_request(tmp_path: Path) -> None:
    text = markdown(small(tmp_path))
    assert "| base \\-\\> candidate" in text or "| base \\-&gt; candidate" in text
    assert "**tax**" in text
    assert text.count("<details>") == text.count("</details>") == 1


def test_csv_has_one_line_per_entry_and_plain_numbers(tmp_path: Path) -> None:
    ledger = small(tmp_path)
    rows = list(csv.DictReader(io.StringIO(ledger_csv(ledger))))
    assert len(rows) == len(ledger)
    assert float(rows[0]["change"]) == ledger[0].change
    assert float(rows[0]["detail.lost"]) == 12
    assert rows[0]["outcome.scored.baseline"] == "85"
    low, high = map(float, rows[0]["detail.change_bounds"].split())
    assert low == high == pytest.approx(ledger[0].change)


def test_rendering_again_gives_the_same_page(tmp_path: Path) -> None:
    small(tmp_path)
    with reopen(load_run(tmp_path / "run")) as comparison:
        assert render(comparison) == (tmp_path / "run" / "report.html").read_text()


def test_a_drawing_process_draws_what_this_one_does(tmp_path: Path) -> None:
    plot = charts.forest_plot(list(small(tmp_path)))
    process = DrawingProcess()
    try:
        assert process.draw([plot]) == draw_here([plot])
    finally:
        process.close()


def test_a_drawing_process_that_dies_is_replaced(tmp_path: Path) -> None:
    plot = charts.forest_plot(list(small(tmp_path)))
    process = DrawingProcess()
    process.close()
    assert process.draw([plot]) == draw_here([plot])


def tree(tmp_path: Path) -> Path:
    """Base, SFT and DPO: SFT loses 20 items of 100, DPO wins 10 back; one answer of DPO is missing."""
    right = {"base": 80, "sft": 60, "dpo": 70}
    for name, count in right.items():
        rows = [{"task": "sums", "item": i, "score": int(i < count)} for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", rows)
    aligntax.diff(
        tmp_path / "base.csv", tmp_path / "dpo.csv", stages=[("sft", tmp_path / "sft.csv")], names=("base", "dpo"), out=tmp_path / "run"
    )
    return tmp_path / "run"


def test_the_stage_tree_as_a_waterfall(tmp_path: Path) -> None:
    stored = load_run(tree(tmp_path))
    (fall,) = overview.waterfalls(stored.study, stored.ledger)
    assert [(m.label, m.low, m.value, m.group, m.text) for m in fall.plot.marks] == [
        ("base", None, pytest.approx(80), "start", "80.0 %"),
        ("└ sft", pytest.approx(80), pytest.approx(60), "tax", "-20.0 points, tax"),
        ("└─ dpo", pytest.approx(60), pytest.approx(70), "gain", "+10.0 points, gain"),
    ]
    page = (tmp_path / "run" / "report.html").read_text()
    assert 'aria-label="Waterfall: sums: score (performance), stage by stage"' in page


def test_the_edges_of_a_waterfall_add_up_where_arms_have_different_items(tmp_path: Path) -> None:
    for name, items in (("base", range(100)), ("sft", range(100)), ("dpo", range(50))):
        write_csv(tmp_path / f"{name}.csv", [{"task": "sums", "item": i, "score": int(i % 3 > 0 or i < 9)} for i in items])
    stages = [("sft", tmp_path / "sft.csv")]
    aligntax.diff(tmp_path / "base.csv", tmp_path / "dpo.csv", stages=stages, names=("base", "dpo"), out=tmp_path / "run")
    stored = load_run(tmp_path / "run")
    (fall,) = overview.waterfalls(stored.study, stored.ledger)
    assert all(after.low == before.value for before, after in itertools.pairwise(fall.plot.marks))


def test_outcomes_are_told_where_not_every_answer_was_scored(tmp_path: Path) -> None:
    for name, bad in (("a", 5), ("b", 40)):
        rows = [{"task": "x", "item": i, "score": int(i >= bad), "outcome": "refused" if i < bad else "scored"} for i in range(100)]
        rows += [{"task": "y", "item": i, "score": 1, "outcome": "scored"} for i in range(10)]
        write_csv(tmp_path / f"{name}.csv", rows)
    ledger = aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv")
    rows, more, whole = overview.outcomes(ledger)
    assert [(r.task, r.arm, r.planned, r.parts) for r in rows] == [
        ("x (score)", "candidate", 100, (("scored", 60, 60.0), ("refused", 40, 40.0))),
        ("x (score)", "base", 100, (("scored", 95, 95.0), ("refused", 5, 5.0))),
    ]
    assert (more, whole) == (0, 2)


def test_a_page_without_samples_claims_nothing_of_items(tmp_path: Path) -> None:
    """Published values: every task a waterfall, no items, no outcomes, and what is left out said once for all arms."""
    rows = ["model,stage,parent_stage,benchmark,value"]
    for stage, parent, values in (("SFT", "", (60.0, 93.1)), ("DPO", "SFT", (62.0, 87.2)), ("RLVR", "DPO", (63.5, 85.5))):
        rows += [f"m,{stage},{parent},{name},{value}" for name, value in zip(("MATH", "Safety"), values, strict=True)]
        rows += [f"m,{stage},{parent},Avg,70"]
    path = tmp_path / "card.csv"
    path.write_text("\n".join(rows) + "\n")
    stages = [("dpo", f"{path}#m/DPO")]
    aligntax.diff(f"{path}#m/SFT", f"{path}#m/RLVR", stages=stages, names=("sft", "rlvr"), out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "No samples are known, and so no outcomes." in page
    assert "Nothing is paired: at least one side has no samples, and so no items to show." in page
    assert "Without an interval there is no verdict" in page
    assert 'Avg is left out: an average of other rows <span class="soft">(sft, dpo, rlvr)</span>' in page
    stored = load_run(tmp_path / "run")
    safety, maths = overview.waterfalls(stored.study, stored.ledger)
    assert (safety.title, maths.title) == ("Safety: points (safety)", "MATH: points (performance)")
    assert [m.text for m in safety.plot.marks] == ["93.1", "-5.9 points, undetermined", "-1.7 points, undetermined"]


@pytest.mark.parametrize("name", ["constructor", "toString", "hasOwnProperty", "__proto__", "valueOf"])
def test_names_that_the_drawing_engine_knows(tmp_path: Path, name: str) -> None:
    for form in ("forest", "waterfall", "effects"):
        marks = (charts.Mark(name, 1.0, 0.0, 2.0, "tax"), charts.Mark("b", 2.0, 1.0, 3.0, "gain"))
        for plot in (charts.Plot(form, marks, charts.unit_text(name)), narrow(charts.Plot(form, marks, charts.unit_text(name)))):  # type: ignore[arg-type]
            assert f">{name}</text>" in charts.svg(plot)


def test_a_plot_that_cannot_be_drawn_costs_no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: charts.Plot) -> str:
        raise ValueError("no <such> operator")

    monkeypatch.setattr("aligntax.report.charts.svg", broken)
    (said,) = draw_here([charts.Plot("forest", (), "")])
    assert "This chart could not be drawn: no &lt;such&gt; operator" in said


def test_an_item_that_never_fits_ends_the_packing(monkeypatch: pytest.MonkeyPatch) -> None:
    from aligntax.store.rows import Flip

    monkeypatch.setattr(packing, "MAX_PACKED", 1_000)
    flip = Flip("t" * 10**6, "i" * 10**6, None, None, None, 1.0, 0.0, *([str(np.random.default_rng(0).bytes(10_000))] * 4))
    one = packing._Found(0, True, flip)
    packed, _, kept = packing._fitted([one], [packing.Group(("a", "b"), "m", 1, 0, 1)])
    assert len(kept) <= 1
    assert len(packed) <= 1_000


def test_room_is_shared_and_values_tell_themselves_apart() -> None:
    from aligntax.store.rows import Flip

    assert packing.shared([10, 9_000, 9_000], 12_000) == [10, 5_995, 5_995]
    assert packing.shared([3, 4], 12_000) == [3, 4]

    def values(before: float, after: float) -> str:
        return packing._values(Flip("t", "i", None, None, None, before, after, None, None, None, None))

    assert values(1.0, 0.0) == "1 → 0"
    assert values(0.5, 0.50004) == "0.500000 → 0.500040"


def test_values_of_items_are_those_that_were_compared(tmp_path: Path) -> None:
    """A refusal counts as 0, whatever score it carried or lacked."""
    write_csv(tmp_path / "a.csv", [{"item": i, "score": 1, "outcome": "scored"} for i in range(4)])
    rows = [{"item": i, "score": "" if i else 1, "outcome": "refused" if i else "unparsed"} for i in range(4)]
    write_csv(tmp_path / "b.csv", rows)
    aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", out=tmp_path / "run")
    assert {item["values"] for item in packed((tmp_path / "run" / "report.html").read_text())["items"]} == {"1 → 0"}


def test_a_task_with_a_slash_is_no_subgroup(tmp_path: Path) -> None:
    for name, right in (("a", 90), ("b", 40)):
        rows = [{"task": "qa", "item": i, "score": i % 2} for i in range(100)]
        rows += [{"task": "qa/hard", "item": i, "score": int(i < right)} for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", rows)
    ledger = aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "worse on 1 (tax: qa/hard, -50.0 points, from 90.0 % to 40.0 %)" in page
    assert ledger.find("qa/hard").p_adjusted is not None  # a family of two tasks


def test_rows_left_out_are_never_those_that_the_page_speaks_of(tmp_path: Path) -> None:
    for name in ("a", "b"):
        rows = [
            {"task": f"t{t:02d}", "item": i, "score": int(not (t == 19 and name == "b" and i % 2)), "g": f"g{i % 25}"}
            for t in range(20)
            for i in range(100)
        ]
        write_csv(tmp_path / f"{name}.csv", rows)
    aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", by="g", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    table = page[page.index("<tbody>") : page.index("</tbody>")]
    assert all(f">t{t:02d}</a>" in table for t in range(20))
    assert "mean over tasks</a>" in table
    assert "122 more entries are in ledger.json." in page


def test_a_page_of_very_many_entries_stays_small_and_says_what_it_left_out(tmp_path: Path) -> None:
    for name in ("base", "sft", "dpo"):
        rows = [{"task": f"task{t:03d}", "item": i, "score": (i + t) % 2} for t in range(400) for i in range(4)]
        write_csv(tmp_path / f"{name}.csv", rows)
    stages = [("sft", tmp_path / "sft.csv")]
    aligntax.diff(tmp_path / "base.csv", tmp_path / "dpo.csv", stages=stages, names=("base", "dpo"), out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert len(page.encode()) < 4_000_000
    assert "2 more entries are in ledger.json." in page  # 402 with both averages, 400 a table


def test_one_section_per_kind_and_metric(tmp_path: Path) -> None:
    tasks = ["arc", "harmbench", "hellaswag", "mmlu", "mt_bench", "xstest_safe", "winogrande"]
    for name in ("a", "b"):
        write_csv(tmp_path / f"{name}.csv", [{"task": t, "item": i, "score": i % 2} for t in tasks for i in range(10)])
    aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert page.count("<h3>score (performance)</h3>") == page.count("<h3>score (safety)</h3>") == 1


def plots(ledger: Ledger) -> list[charts.Plot]:
    mark = charts.Mark
    made = [
        charts.forest_plot(list(ledger)),
        charts.scatter_plot([(ledger[0], 0.1), (ledger[0], 0.5)], "nats"),
        charts.Plot("waterfall", (mark("a", 5.0, None, None, "start", "5"), mark("b", 4.0, 5.0, None, "tax", "-1")), "per cent"),
        charts.Plot("effects", (mark("a", 1.0, 0.0, 2.0, "weights"), mark("a", 3.0, 2.0, 4.0, "template")), "points"),
    ]
    return [one for plot in made for one in (plot, narrow(plot))]


def test_plots_are_valid_and_take_their_colours_from_the_page(tmp_path: Path) -> None:
    css = (Path(charts.__file__).parent / "templates" / "report.css").read_text()
    for plot in plots(small(tmp_path)):
        charts.chart(plot).to_dict()  # raises where Vega-Lite's schema does not allow something
        drawn = charts.svg(plot)
        used = set(re.findall(r"var\((--[a-z-]+)\)", drawn))
        assert "--ink" in used
        assert all(f"{name}:" in css for name in used)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        made = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        yield made
        made.close()


@contextmanager
def opened(chromium: Any, file: Path, **settings: Any) -> Iterator[Any]:
    """The page in a context of its own; afterwards nothing may have been said, asked or loaded."""
    context = chromium.new_context(**settings)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: None if request.url == file.as_uri() else said.append(request.url))
    page.goto(file.as_uri())
    yield page
    context.close()
    assert said == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_hostile_text_does_nothing_in_a_real_browser(hostile_run: Path, chromium: Any, width: int, scheme: str) -> None:
    with opened(chromium, hostile_run / "report.html", viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        page.wait_for_selector("#browser:not([hidden])")
        for summary in page.locator("#list > details > summary").all():
            summary.click()
        assert page.locator("#list pre").count() >= 60
        assert page.locator("#list script, #list img, #list svg, #list a").count() == 0
        text = page.locator("#list").inner_text()
        for shown in ("<script>alert(1)</script>", "\\x1b[31mred", "\\u202eright to left", "{{ 7 * 7 }}"):
            assert shown in text
        assert not re.search(r"[\u202a-\u202e\u2066-\u2069\x1b]", text)
        shown_as = "narrow" if width < 720 else "wide-only"
        assert page.locator(f"figure .{shown_as} svg path").count() > 0
        assert page.locator(f"figure .{shown_as} svg").first.is_visible()
        overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert page.evaluate(overflow) <= 0
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(22, 22, 22)"
        assert dark == (scheme == "dark")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("searched")
    base, candidate = pair(50, 60, 20, 20, task="sums")
    for side, rows in (("B", base), ("C", candidate)):
        for i, row in enumerate(rows):
            row |= {"question": f"what is {i} and one?", "target": "B", "answer": f"so the answer of {i} is ({side}) <b>"}
    paths = [write_csv(folder / f"{k}.csv", rows) for k, rows in enumerate((base, candidate))]
    aligntax.diff(*paths, out=folder / "run")
    return folder / "run" / "report.html"


def test_items_are_searched_and_their_differences_marked(searched: Path, chromium: Any) -> None:
    from playwright.sync_api import expect

    with opened(chromium, searched) as page:
        page.wait_for_selector("#browser:not([hidden])")
        status = page.locator("#status")
        assert status.inner_text() == "80 items, 25 shown"
        page.locator("#more").click()
        assert status.inner_text() == "80 items, 50 shown"
        page.select_option("#direction", "gained")
        assert status.inner_text() == "20 items"
        assert page.locator("#more").is_hidden()
        page.select_option("#direction", "")
        some = page.locator("#list > details > summary").nth(3).inner_text()
        number = re.search(r"what is (\d+) and", some)
        assert number
        page.fill("#q", f'so "ANSWER of {number[1]} is"')
        expect(status).to_have_text("1 item")
        page.press("#q", "Enter")
        page.locator("#list summary").first.press("Enter")
        expect(page.locator("#list mark")).to_have_text(["B", "C"])
        assert "(C) <b>" in page.locator("#list pre").last.inner_text()
        page.fill("#q", "nowhere to be found")
        expect(status).to_have_text("0 items")


def test_the_page_tells_its_items_without_scripts_and_on_paper(searched: Path, chromium: Any) -> None:
    with opened(chromium, searched, java_script_enabled=False) as page:
        assert page.locator("#examples > details").count() == 16
        assert page.locator("#examples").is_visible()
        assert page.locator("#browser").is_hidden()
    with opened(chromium, searched, color_scheme="dark") as page:
        page.wait_for_selector("#browser:not([hidden])")
        page.emulate_media(media="print", color_scheme="dark")
        assert page.locator("nav").is_hidden()
        assert page.locator("#tools").is_hidden()
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
        assert page.locator("section details details li").first.is_visible()
        assert page.locator("#browser").is_hidden()
        assert page.locator("#examples pre").first.is_visible()


def test_the_page_can_be_used_by_keyboard_and_read_aloud(searched: Path, chromium: Any) -> None:
    with opened(chromium, searched) as page:
        page.wait_for_selector("#browser:not([hidden])")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
        page.keyboard.press("Enter")
        page.locator("#q").focus()
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, button')].filter(e => !(e.labels?.length || e.textContent.trim())).length"
        )
        assert unnamed == 0
        assert page.evaluate("[...document.querySelectorAll('figure svg')].every(e => e.closest('[role=img][aria-label]'))")
        assert page.evaluate(
            "[...document.querySelectorAll('h1, h2, h3')].map(e => +e.tagName[1]).every((n, i, all) => i === 0 || n <= all[i - 1] + 1)"
        )


def test_numbers_in_words() -> None:
    assert number(-0.0001, 1) == "0.0"
    assert number(-1234.56, 1) == "-1,234.6"
    assert p_text(0.0) == "< 0.0001"
    assert p_text(3e-12) == "3e-12"
    assert decimals_for(0.004) == 3
    assert printable("a\x1b\u202e\nb") == "a\\x1b\\u202e\\nb"
    assert printable("zwölf ÷ 2 = 六") == "zwölf ÷ 2 = 六"
    assert cut("abcdef", 3) == "abc … (+3 characters)"


def test_the_scorecard_and_the_audit(tmp_path: Path) -> None:
    for name, limit in (("a", 70), ("b", 40)):
        rows = [f"lost,{k},{int(k < limit)}" for k in range(100)] + [f"xstest_safe,{k},{int(k >= limit)}" for k in range(100)]
        (tmp_path / f"{name}.csv").write_text("task,item,score\n" + "\n".join(rows) + "\nlost,x,\n")
    aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Largest loss: lost (score): -30.0 points" in page
    assert "<h3>over refusal</h3>" in page
    assert "candidate against base, 2 comparisons: worse on 1 (tax: lost, -30.0 points, from 70.0 % to 40.0 %); better on 1 (gain: " in page
    assert "no score for 1 in base, 1 in candidate, of 101 planned items" in page
