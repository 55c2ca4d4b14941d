"""Makes the simulated logs beside this file; run it after a change: ``python -m aligntax.examples.make``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from aligntax.testing import Flips, SimulatedTask

ARMS = ("simulated-base", "simulated-sft", "simulated-dpo")

# Per task: items, sources, accuracy of the base, and the flips of base, SFT and DPO.
TASKS: dict[str, tuple[int, int, float, tuple[Flips, Flips, Flips]]] = {
    "sim_arithmetic": (800, 40, 0.80, (Flips(), Flips(lost=0.06, gained=0.05), Flips(lost=0.12, gained=0.04))),
    "sim_facts": (800, 40, 0.70, (Flips(), Flips(lost=0.004, gained=0.01), Flips(lost=0.004, gained=0.01))),
    "sim_format": (400, 40, 0.75, (Flips(unparsed=0.02), Flips(unparsed=0.03), Flips(unparsed=0.14))),
    "safety_sim_refusal": (300, 30, 0.20, (Flips(), Flips(lost=0.02, gained=0.55), Flips(lost=0.01, gained=0.60))),
}


def logs() -> dict[str, str]:
    """CSV text by arm."""
    rows: dict[str, list[Mapping[str, Any]]] = {arm: [] for arm in ARMS}
    for seed, (name, (items, sources, accuracy, steps)) in enumerate(TASKS.items(), start=7):
        task = SimulatedTask(name, items=items, sources=sources, accuracy=accuracy, seed=seed)
        for arm, flips in zip(ARMS, steps, strict=True):
            rows[arm] += task.arm(flips)
    return {arm: _csv(found) for arm, found in rows.items()}


def _csv(rows: Iterable[Mapping[str, Any]]) -> str:
    rows, out = list(rows), io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def main() -> None:
    for arm, text in logs().items():
        (Path(__file__).parent / f"{arm}.csv").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
