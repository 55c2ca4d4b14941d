"""Speed and memory of whole processes: aligntax diff, and pandas + statsmodels on the same files, in turn.

    python benchmarks/diff_speed.py [--runs 5]

Uses the MMLU-Pro pair of ``$ALIGNTAX_SHARED`` (or the folder ``shared`` beside the checkout) where it is, and two
million paired rows in Parquet that it makes. Prints medians, the ratio to the peer run by run, and whether the two agree.
Memory is the peak of the largest process (the charts are drawn in a second one).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
SHARED = Path(os.environ.get("ALIGNTAX_SHARED", HERE.parent.parent / "shared"))


def measured(command: list[str], cwd: Path) -> tuple[float, float, str]:
    """(seconds, peak MiB, stdout) of one process."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024); print(done.stdout); sys.exit(done.returncode)"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, cwd=cwd, check=True)
    seconds = time.perf_counter() - start
    peak, _, out = done.stdout.partition("\n")
    return seconds, float(peak), out


def turn_by_turn(name: str, ours: list[str], peer: list[str] | None, runs: int, cwd: Path, limit: str) -> None:
    figures: dict[str, list[tuple[float, float]]] = {"aligntax": [], "peer": []}
    last: dict[str, str] = {}
    for _ in range(runs + 1):  # the first round warms the file cache and is not counted
        for who, command in (("aligntax", ours), ("peer", peer)):
            if command is not None:
                seconds, peak, out = measured(command, cwd)
                figures[who].append((seconds, peak))
                last[who] = out
    for who, found in figures.items():
        if found:
            seconds_, peaks = [s for s, _ in found[1:]], [p for _, p in found[1:]]
            print(
                f"{name:34s} {who:9s} {statistics.median(seconds_):6.2f} s (min {min(seconds_):.2f}, max {max(seconds_):.2f})  {statistics.median(peaks):6.0f} MiB"
            )
    if peer is not None:
        ratios = [a[0] / b[0] for a, b in zip(figures["aligntax"][1:], figures["peer"][1:], strict=True)]
        print(f"{'':34s} ratio to the peer {statistics.median(ratios):.2f}; aim: {limit}")
        agree(last["aligntax"], last["peer"])
    else:
        print(f"{'':34s} aim: {limit}")


def agree(ours: str, peer: str) -> None:
    """The two must say the same of what both compute."""
    if not ours.lstrip().startswith("{"):
        return
    entry, total = json.loads(ours)["entries"][0], json.loads(peer)["total"]
    assert entry["n"] == total["n"]
    assert abs(entry["change"] - total["change"]) < 1e-12
    assert abs(entry["details"]["mcnemar_exact_p"] - total["p"]) <= 1e-9 * total["p"]
    print(f"{'':34s} n, change and exact McNemar p agree")


def two_million_rows(folder: Path) -> tuple[Path, Path]:
    import duckdb

    paths = folder / "base.parquet", folder / "candidate.parquet"
    with duckdb.connect() as con:
        con.execute("SELECT setseed(0.5)")
        for path, p in zip(paths, (0.60, 0.58), strict=True):
            con.execute(
                f"COPY (SELECT 'item-' || i AS item, CAST(random() < {p} AS INTEGER) AS score, 'source ' || (i % 5000) AS cluster "
                f"FROM range(2000000) t(i)) TO '{path}' (FORMAT parquet)"
            )
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    aligntax = [sys.executable, "-m", "aligntax"]
    peer = [sys.executable, str(HERE / "peer_pandas.py")]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        turn_by_turn("aligntax --help", [*aligntax, "--help"], None, runs, folder, "under 0.25 s")
        pair = [str(SHARED / "data" / "mmlu_pro" / f"Mistral-7B-{name}v0.1.zip") for name in ("", "Instruct-")]
        if Path(pair[0]).exists():
            options = ["--cluster", "src", "--by", "category", "--margin", "0.01"]
            turn_by_turn(
                "MMLU-Pro pair, report",
                [*aligntax, "diff", *pair, *options, "--out", "mmlu"],
                [*peer, *pair],
                runs,
                folder,
                "under 2.5 s, 400 MB",
            )
            turn_by_turn(
                "MMLU-Pro pair, --bootstrap 10000",
                [*aligntax, "diff", *pair, *options, "--bootstrap", "10000", "--out", "boot"],
                None,
                runs,
                folder,
                "0.25 s more",
            )
            turn_by_turn("MMLU-Pro pair, --json", [*aligntax, "diff", *pair, *options, "--json"], [*peer, *pair], runs, folder, "-")
            print(f"{'':34s} report.html: {(folder / 'mmlu' / 'report.html').stat().st_size / 1e6:.2f} MB; aim: under 4 MB")
        else:
            print(f"no MMLU-Pro pair under {SHARED}: set ALIGNTAX_SHARED")
        big = [str(path) for path in two_million_rows(folder)]
        turn_by_turn(
            "2,000,000 pairs, Parquet, report",
            [*aligntax, "diff", *big, "--out", "big"],
            [*peer, *big],
            max(2, runs // 2),
            folder,
            "under 8 s, 1.5 GB",
        )
        turn_by_turn("2,000,000 pairs, Parquet, --json", [*aligntax, "diff", *big, "--json"], [*peer, *big], max(2, runs // 2), folder, "-")


if __name__ == "__main__":
    main()
