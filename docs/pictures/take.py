"""Pictures of the report, state by state: python docs/pictures/take.py NAME=RUN[=STATE,STATE...]... (Chromium and playwright are needed).

Every RUN is a run folder; what it has no section for is passed over. Pictures go beside this file, as NAME-STATE.png. Those here are of

    logs=RUN=light,dark,phone,items,methods                                         the first recipe of the README
    demo=RUN=light,phone-chart,stages,split,divergence,outcomes,print,plane,calibration     make demo
    timed=RUN=latency               aligntax measure lab:base lab:clumsy --stage sft=lab:sft --template raw --latency 8 --latency-rounds 2, five tasks
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
DESK, PHONE = {"width": 1180, "height": 1000}, {"width": 390, "height": 844}


def at(selector: str) -> Callable[[Page], bool]:
    """Scroll a section to the top; whether the page has it."""

    def act(page: Page) -> bool:
        there = page.locator(selector).count() > 0
        if there:
            page.locator(selector).evaluate("e => e.scrollIntoView()")
        return there

    return act


def one_item(page: Page) -> bool:
    if not at("#items")(page):
        return False
    page.locator("#list > details > summary").nth(1).click()
    return True


def formula(page: Page) -> bool:
    for k in (0, 1):
        page.locator("#methods ~ details > summary").nth(k).click()
    return at("#methods")(page)


def on_paper(page: Page) -> bool:
    page.emulate_media(media="print")
    return True


STATES: list[tuple[str, dict[str, Any], Callable[[Page], bool]]] = [
    ("light", {"viewport": DESK}, at("h1")),
    ("dark", {"viewport": DESK, "color_scheme": "dark"}, at("#changes-by-task")),
    ("phone", {"viewport": PHONE}, at("h1")),
    ("phone-chart", {"viewport": PHONE, "color_scheme": "dark"}, at("#changes-by-task")),
    ("stages", {"viewport": DESK}, at("#stages")),
    ("split", {"viewport": DESK}, at("#split")),
    ("divergence", {"viewport": DESK}, at("#divergence")),
    ("plane", {"viewport": DESK}, at("#plane")),
    ("calibration", {"viewport": DESK}, at("#reliability")),
    ("latency", {"viewport": DESK}, at("#latency")),
    ("items", {"viewport": DESK}, one_item),
    ("outcomes", {"viewport": DESK}, at("#outcomes")),
    ("methods", {"viewport": DESK}, formula),
    ("print", {"viewport": DESK}, on_paper),
]


def main() -> None:
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for given in sys.argv[1:]:
            name, run, *only = given.split("=")
            for state, settings, act in STATES:
                if only and state not in only[0].split(","):
                    continue
                page = chromium.new_page(**settings)
                page.goto((Path(run) / "report.html").resolve().as_uri())
                page.wait_for_selector("#browser:not([hidden])")
                if act(page):
                    page.wait_for_timeout(200)
                    page.screenshot(path=HERE / f"{name}-{state}.png")
                page.close()


if __name__ == "__main__":
    main()
