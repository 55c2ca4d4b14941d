"""The whole analysis of an ensemble's ratings as a plain table: 50 models, 500 pairs, 2 orders, 2 wordings, 3 repeats (300,000 rows), whole process.

python benchmarks/atlas_speed.py [MODELS [PAIRS]]
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aligntax.stats.ensembles import EnsembleDesign, draw_ensemble

CATEGORIES = ("control", "cross_cultural", "erasure", "clash", "neutral_contradiction")
ORDERS, WORDINGS, REPEATS = ("AB", "BA"), 2, 3


def write(folder: Path, models: int, pairs: int) -> tuple[Path, Path, int]:
    """A table of ratings and one of models, of an ensemble with true differences between categories."""
    sizes = tuple(pairs // len(CATEGORIES) + (i < pairs % len(CATEGORIES)) for i in range(len(CATEGORIES)))
    design = EnsembleDesign(
        models=models, pairs=sizes, means=(0.85, 0.5, 0.45, 0.4, 0.15), spread=(0.04, 0.1, 0.12, 0.15, 0.08), offset_sd=0.03, repeats=WORDINGS * REPEATS,
        noise_sd=0.03, orders=2, order_sd=0.02, refusal=(0.0, 0.01, 0.01, 0.02, 0.0), step=0.01, clip=True,
    )  # fmt: skip
    x = draw_ensemble(design, np.random.default_rng(0)).ratings
    table, of_models = folder / "ratings.csv", folder / "models.csv"
    rows = 0
    with table.open("w", encoding="utf-8") as file:
        file.write("pair,category,model,order,variant,repeat,topic,status,mode,rating\n")
        starts = np.cumsum((0, *sizes))
        for p in range(pairs):
            c = int(np.searchsorted(starts, p, side="right")) - 1
            for m in range(models):
                for o, order in enumerate(ORDERS):
                    for r in range(WORDINGS * REPEATS):
                        value = x[p, m, o, r]
                        rated = "refusal,sampled," if np.isnan(value) else f"ok,sampled,{value:.2f}"
                        file.write(f"p{p},{CATEGORIES[c]},m{m},{order},P{r // REPEATS + 1},{r % REPEATS + 1},t{p - starts[c]},{rated}\n")
                        rows += 1
    with of_models.open("w", encoding="utf-8") as file:
        file.write("model,country,stage\n")
        for m in range(models):
            file.write(f"m{m},{('US', 'CN', 'FR')[m % 3]},{('base', 'sft', 'dpo')[m // 3 % 3]}\n")
    return table, of_models, rows


def main() -> None:
    models, pairs = (int(sys.argv[i]) if len(sys.argv) > i else default for i, default in ((1, 50), (2, 500)))
    with tempfile.TemporaryDirectory() as folder:
        table, of_models, rows = write(Path(folder), models, pairs)
        command = [
            "atlas",
            "analyse",
            str(table),
            "--models",
            str(of_models),
            "--order",
            "control,cross_cultural,erasure,clash",
            "--out",
            folder,
        ]
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "aligntax", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        size = (Path(folder) / "atlas.html").stat().st_size / 1e6
        print(
            f"{models} models, {pairs} pairs, {rows:,} ratings, 10,000 permutations: {seconds:.1f} s on one core, {memory:,.0f} MB, page {size:.1f} MB"
        )


if __name__ == "__main__":
    main()
