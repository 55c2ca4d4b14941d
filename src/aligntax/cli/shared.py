"""What several commands share: options, and how a ledger is printed."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aligntax.core.ledger import Ledger
    from aligntax.report.drawing import Draw

ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="Column of what was sampled or shares text: source document, passage, seed question. Items of one source are not independent.",
    ),
]
ByOption = Annotated[str | None, typer.Option(metavar="COL", help="Column that splits each task into subgroups.")]
MarginOption = Annotated[
    str | None,
    typer.Option(
        metavar="E",
        help="The loss that starts to matter: 0.01 is one point of an accuracy; 5% is a share of the baseline. Default: 0.01 for fractions, by kind otherwise.",
    ),
]
LevelOption = Annotated[float, typer.Option(metavar="L", help="Confidence level.")]
BootstrapOption = Annotated[int, typer.Option(metavar="B", help="Resamples of a percentile bootstrap beside the interval (a cross-check).")]
SeedOption = Annotated[int, typer.Option(help="Seed of the bootstrap.")]
KindOption = Annotated[
    list[str] | None,
    typer.Option("--kind", metavar="TASK=KIND", help="Kind of a task, name or pattern (repeat): performance, safety, over_refusal, ..."),
]
DiversityOption = Annotated[
    bool | None,
    typer.Option(
        "--diversity/--no-diversity",
        help="How different answers are, to one prompt and across prompts; by default only to one prompt, where several answers to it were given.",
        show_default=False,
    ),
]
EmbedderOption = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Local model whose vectors say how far answers are apart; by default TF-IDF vectors of words and pairs of words.",
    ),
]
RewordingsOption = Annotated[
    bool, typer.Option("--rewordings", help="Items of one --cluster are rewordings of one question: how much do answers vary over them?")
]
JudgeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--judge", metavar="JUDGE=PEOPLE",
        help="Correct the metric JUDGE, which every item has, by the metric PEOPLE, which some have (repeat): prediction-powered, by arm.",
    ),
]  # fmt: skip
CostsOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="YAML of what the stages cost to make: compute, hours, energy, labels, price (docs/development.md)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print ledger.json and nothing else (and write no run unless --out names one).")]
MarkdownOption = Annotated[bool, typer.Option("--markdown", help="Print the comparison as Markdown, for a pull request.")]


def two_names(text: str, option: str = "--names") -> tuple[str, str]:
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise InputError(f"{option} takes two names separated by a comma, got {text!r}")
    return parts[0], parts[1]


def key_values(values: list[str] | None, option: str, form: str) -> dict[str, str]:
    out = {}
    for value in values or ():
        key, found, right = value.partition("=")
        if not (found and key and right):
            raise InputError(f"{option} takes {form}, got {value!r}")
        out[key] = right
    return out


def metric_scales(values: list[str] | None) -> dict[str, tuple[float, float]]:
    out = {}
    for metric, text in key_values(values, "--scale", "METRIC=LOW:HIGH").items():
        low, _, high = text.partition(":")
        try:
            out[metric] = (float(low), float(high))
        except ValueError:
            raise InputError(f"--scale takes METRIC=LOW:HIGH with two numbers, got {metric}={text!r}") from None
    return out


def print_ledger(ledger: Ledger, *, json: bool = False, markdown: bool = False, all_checks: bool = False) -> None:
    if json:
        from aligntax.core.words import safe_json

        sys.stdout.write(safe_json(ledger.to_json()))
    elif markdown:
        from aligntax.report.markdown import markdown as as_markdown

        sys.stdout.write(as_markdown(ledger))
    else:
        from aligntax.report.terminal import console, ledger_view

        console().print(ledger_view(ledger, all_checks=all_checks))


def note(text: str) -> None:
    from aligntax.core.words import printable

    typer.echo(printable(text)[:2000], err=True)


@contextmanager
def drawing(wanted: bool) -> Iterator[Draw]:
    """A way to draw charts: a process that warms up while logs are read, where a second processor is there for it."""
    from aligntax.report.drawing import DrawingProcess, draw_here

    if not wanted or (os.cpu_count() or 1) < 2:
        yield draw_here
        return
    process = DrawingProcess()
    try:
        yield process.draw
    finally:
        process.close()
