"""Drawing in a process of its own, started early: its imports and its engine take a second that reading logs covers.

python -m aligntax.report.drawing     reads one JSON list of plots from stdin, writes one JSON list of SVGs to stdout
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict

from aligntax.core.words import cut, printable
from aligntax.report.charts import Mark, Plot, plot_from, svg

Draw = Callable[[Sequence[Plot]], list[str]]
_TIMEOUT_S = 120


def draw_here(plots: Sequence[Plot]) -> list[str]:
    """Draw in this process. A plot that the engine cannot draw says so in its place: no drawing is worth a run."""
    return [_drawn(plot) for plot in plots]


def _drawn(plot: Plot) -> str:
    try:
        return svg(plot)
    except Exception as error:  # noqa: BLE001 - the engine raises what it likes
        said = html.escape(cut(printable(" ".join(str(error).split())), 200))
        return f'<svg xmlns="http://www.w3.org/2000/svg" width="480" height="40"><text y="24" fill="currentColor">This chart could not be drawn: {said}</text></svg>'


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
