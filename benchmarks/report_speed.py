"""The report: seconds to render, size, and seconds until a browser has opened it and its items can be searched.

    python benchmarks/report_speed.py

Uses the MMLU-Pro pair of ``$ALIGNTAX_SHARED`` (or the folder ``shared`` beside the checkout) where it is, and 100,000 items with
answers of 150 words that it makes. The browser is Chromium, headless, through playwright; without one the page is only rendered.
"""

from __future__ import annotations

import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import aligntax
from aligntax.flow.stored import reopen
from aligntax.report.page import render
from aligntax.store.run import load_run

SHARED = Path(os.environ.get("ALIGNTAX_SHARED", Path(__file__).parent.parent.parent / "shared"))
RUNS = 5


def long_answers(folder: Path, count: int = 100_000) -> tuple[Path, Path]:
    """Two tables of answers of 150 words drawn from 5,000; a quarter of the scores change."""
    import csv

    rng = random.Random(0)
    words = ["".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 9))) for _ in range(5_000)]
    paths = folder / "base.csv", folder / "candidate.csv"
    right = [rng.random() < 0.6 for _ in range(count)]
    for path in paths:
        with path.open("w", newline="") as out:
            rows = csv.writer(out)
            rows.writerow(["item", "score", "question", "answer"])
            for i in range(count):
                score = right[i] if path == paths[0] or rng.random() < 0.75 else not right[i]
                rows.writerow([i, int(score), f"question {i}", " ".join(rng.choices(words, k=150))])
    return paths


def report(name: str, run: Path) -> None:
    with reopen(load_run(run)) as comparison:
        render(comparison)
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            page = render(comparison)
            times.append(time.perf_counter() - start)
    said = f"{name:24s} renders in {statistics.median(times):.2f} s (max {max(times):.2f}), {len(page.encode()) / 1e6:.2f} MB"
    file = run / "report.html"
    print(said + "".join(f", {what} {seconds:.2f} s" for what, seconds in opened(file).items()))


def opened(file: Path) -> dict[str, float]:
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        return {}
    from playwright.sync_api import sync_playwright

    loaded, searchable = [], []
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(RUNS):
            page = chromium.new_page()
            start = time.perf_counter()
            page.goto(file.as_uri())
            loaded.append(time.perf_counter() - start)
            page.wait_for_selector("#browser:not([hidden])")
            searchable.append(time.perf_counter() - start)
            page.close()
        chromium.close()
    return {"opens in": statistics.median(loaded), "searchable after": statistics.median(searchable)}


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pair = [SHARED / "data" / "mmlu_pro" / f"Mistral-7B-{name}v0.1.zip" for name in ("", "Instruct-")]
        if pair[0].exists():
            aligntax.diff(*pair, cluster="src", by="category", out=folder / "mmlu")
            report("MMLU-Pro, 12,032 items", folder / "mmlu")
        aligntax.diff(*long_answers(folder), out=folder / "long")
        report("100,000 long answers", folder / "long")


if __name__ == "__main__":
    main()
