"""Drawing in a process of its own, started early: its imports and its engine take a second that reading logs covers.

python -m aligntax.report.drawing     reads one JSON list of plots from stdin, writes one JSON list of SVGs to stdout
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from aligntax.report import charts, curves, plane
from aligntax.report.pages import attempted

Figure = charts.Plot | plane.Drawing | curves.Curves
Draw = Callable[[Sequence[Figure]], list[str]]
_TIMEOUT_S = 120


def narrow(figure: Figure) -> Figure:
    """The same figure for a phone."""
    return replace(figure, narrow=True)


def draw_here(plots: Sequence[Figure]) -> list[str]:
    """Draw in this process; a plot that cannot be drawn says so in its place."""
    return [attempted(partial(_svg, plot)) for plot in plots]


def _svg(figure: Figure) -> str:
    if isinstance(figure, plane.Drawing):
        return plane.svg(figure)
    return curves.svg(figure) if isinstance(figure, curves.Curves) else charts.svg(figure)


def _figure(values: Mapping[str, Any]) -> Figure:
    """A figure from ``dataclasses.asdict`` of one."""
    if values["form"] in plane.FORMS:
        return plane.drawing_from(values)
    return curves.curves_from(values) if values["form"] in curves.FORMS else charts.plot_from(values)


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

    def draw(self, plots: Sequence[Figure]) -> list[str]:
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
    charts.svg(charts.Plot("forest", (charts.Mark("", 0.0, 0.0, 0.0, "-"),), ""))
    json.dump(draw_here([_figure(p) for p in json.load(sys.stdin)]), sys.stdout)


if __name__ == "__main__":
    main()
