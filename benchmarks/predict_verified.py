"""Verifications of several families of models taken together: predictors over all trained models, tasks permuted in all of them alike.

    aligntax predict verify RUN --base MODEL ... --out FOLDER      # once for every family
    python benchmarks/predict_verified.py FOLDER [FOLDER ...]

Families share tasks, and so the luck of what a task is like; a permutation moves a task in all of them. Only tasks that every family has take part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from aligntax.stats.predictors import hold_together

MARGIN = 0.03


def main() -> None:
    told = [json.loads((Path(folder) / "verification.json").read_text()) for folder in sys.argv[1:]]
    arms: list[tuple[str, dict[str, Any]]] = [
        (f"{one['prediction']['model']} to {arm['arm']}", {d["task"]: d for d in arm["drops"]})
        for one in told
        for arm in one["arms"]
        if arm["drops"]
    ]
    common = sorted(set.intersection(*(set(drops) for _, drops in arms)))
    names = [p["name"] for p in told[0]["predictors"]]
    names = [name for name in names if all(name in drops[task]["foretold"] for _, drops in arms for task in common)]
    y = np.array([[drops[task]["drop"] for task in common] for _, drops in arms])
    table = {name: np.array([[drops[task]["foretold"][name] for task in common] for _, drops in arms]) for name in names}
    found = hold_together(y, table, np.random.default_rng(0), margin=MARGIN, draws=19999)
    print(f"{len(arms)} trained models, {len(common)} tasks: {', '.join(name for name, _ in arms)}")
    for name, of in sorted(found.items(), key=lambda pair: -pair[1].spearman):
        print(f"| {name} | {of.spearman:+.2f} | {of.p:.4f} | {of.adjusted_p:.3f} | {'-' if of.auc is None else f'{of.auc:.2f}'} |")


if __name__ == "__main__":
    main()
