"""What people see: pages, Markdown, terminal, CSV. Model text is hostile and does nothing anywhere."""

from __future__ import annotations

import csv
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

import aligntax
from aligntax import Ledger
from aligntax.core.words import cut, decimals_for, number, p_text, printable
from aligntax.flow.stored import reopen
from aligntax.report import charts
from aligntax.report.csv_export import ledger_csv
from aligntax.report.drawing import DrawingProcess, draw_here
from aligntax.report.markdown import markdown
from aligntax.report.page import MAX_FLIPS, render
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
    assert not names & {"script", "img", "iframe", "object", "embed", "link", "form", "foreignobject", "base", "a", "use", "image"}
    for tag, attributes in parser.tags:
        assert not [a for a in attributes if a.lower().startswith("on")], (tag, attributes)
        assert "javascript:" not in " ".join(v or "" for v in attributes.values())
        assert not {"href", "xlink:href", "src", "srcset", "action"} & set(attributes)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", page)
    assert "{{ 7 * 7 }}" in page
    assert "url(" not in page
    assert page.count("<svg") == sum(1 for tag, _ in parser.tags if tag == "svg")


def test_the_page_forbids_scripts_and_the_network(hostile_run: Path) -> None:
    page = (hostile_run / "report.html").read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    assert policy[1].startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script-src" not in policy[1]
    assert "unsafe-eval" not in policy[1]


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
        "12 of 12 shown",
        "3 of 3 shown",
        "outcomes, base",
        "85 scored",
        "Holm",
        "Provenance",
    ):
        assert text in page, text


def test_flips_are_capped_and_the_cap_is_stated(tmp_path: Path) -> None:
    base, candidate = pair(10, 900, 800, 10)
    for row in (*base, *candidate):
        row |= {"answer": "long " * 2000, "question": "why " * 2000}
    paths = [write_csv(tmp_path / f"{k}.csv", rows) for k, rows in enumerate((base, candidate))]
    aligntax.diff(*paths, out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"{MAX_FLIPS // 2} of 900 shown" in page
    assert f"{MAX_FLIPS // 2} of 800 shown" in page
    assert "… (+" in page
    assert len(page) < 1_000_000


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


@pytest.mark.parametrize("size", ["1280,900", "400,900"])
def test_the_page_in_a_real_browser(hostile_run: Path, tmp_path: Path, size: str) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    width, height = map(int, size.split(","))
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        page = chromium.new_page(viewport={"width": width, "height": height})
        messages: list[str] = []
        requests: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("dialog", lambda dialog: messages.append(dialog.message))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((hostile_run / "report.html").as_uri())
        drawn = page.locator("figure svg path").count()
        overflow = (
            page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") if size.startswith("1280") else 0
        )
        chromium.close()
    assert drawn > 0
    assert messages == []
    assert [url for url in requests if not url.startswith("file:")] == []
    assert overflow <= 0


def test_numbers_in_words() -> None:
    assert number(-0.0001, 1) == "0.0"
    assert number(-1234.56, 1) == "-1,234.6"
    assert p_text(0.0) == "< 0.0001"
    assert p_text(3e-12) == "3e-12"
    assert decimals_for(0.004) == 3
    assert printable("a\x1b\u202e\nb") == "a\\x1b\\u202e\\nb"
    assert printable("zwölf ÷ 2 = 六") == "zwölf ÷ 2 = 六"
    assert cut("abcdef", 3) == "abc … (+3 characters)"


def test_differences_of_answers_are_marked_and_escaped() -> None:
    from aligntax.report.page import differences

    one, two = differences("so the answer is (B) <b>", "so the answer is (C) <b> & more")
    assert one == "so the answer is (<mark>B</mark>) &lt;b&gt;"
    assert two == "so the answer is (<mark>C</mark>) &lt;b&gt;<mark> &amp; more</mark>"
    assert differences("<i>alpha</i>", "nothing in common here at all") == ("&lt;i&gt;alpha&lt;/i&gt;", "nothing in common here at all")
    assert differences("", "") == ("", "")


def test_the_scorecard_and_the_audit(tmp_path: Path) -> None:
    for name, limit in (("a", 70), ("b", 40)):
        rows = [f"lost,{k},{int(k < limit)}" for k in range(100)] + [f"xstest_safe,{k},{int(k >= limit)}" for k in range(100)]
        (tmp_path / f"{name}.csv").write_text("task,item,score\n" + "\n".join(rows) + "\nlost,x,\n")
    aligntax.diff(tmp_path / "a.csv", tmp_path / "b.csv", out=tmp_path / "run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<h2>By kind</h2>" in page
    assert "lost: -30.0 points" in page
    assert "<td>over refusal</td>" in page
    assert "<h2>Audit</h2>" in page
    assert "no score for 1 in base, 1 in candidate, of 101 planned items" in page
