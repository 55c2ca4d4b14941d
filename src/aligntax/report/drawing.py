"""Drawing in a process of its own, started early: its imports and its engine take a second that reading logs covers.

python -m aligntax.report.drawing     reads one JSON list of plots from stdin, writes one JSON list of SVGs to stdout
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from aligntax.report.charts import Mark, Plot, plot_from, svg

Draw = Callable[[Sequence[Plot]], list[str]]
_TIMEOUT_S = 120


def draw_here(plots: Sequence[Plot]) -> list[str]:
    """Draw in this process."""
    return [svg(plot) for plot in plots]


class DrawingProcess:
    """A drawing process that is warming up; ``draw`` is called once, ``close`` in any case."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "aligntax.report.drawing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )

    def draw(self, plots: Sequence[Plot]) -> list[str]:
        """The plots as SVG strings; drawn here if the process fails."""
        try:
            out, _ = self._process.communicate(json.dumps([asdict(p) for p in plots]).encode(), timeout=_TIMEOUT_S)
            drawn = json.loads(out)
        except (OSError, ValueError, subprocess.TimeoutExpired):
            return draw_here(plots)
        return drawn if len(drawn) == len(plots) else draw_here(plots)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    svg(Plot("forest", (Mark("", 0.0, 0.0, 0.0, "-"),), ""))
    json.dump(draw_here([plot_from(p) for p in json.load(sys.stdin)]), sys.stdout)


if __name__ == "__main__":
    main()
