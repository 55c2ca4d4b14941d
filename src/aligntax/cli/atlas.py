"""aligntax atlas: where an ensemble of models stops agreeing on the meaning of sentences, and whether alignment made it so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.shared import note
from aligntax.core.errors import InputError

if TYPE_CHECKING:
    from aligntax.atlas.analysis import Analysis

app = typer.Typer(
    help="Many models rate how alike two sentences are in meaning: where they stop agreeing, on what, and what that is worth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for atlas.json and atlas.html; without it nothing is written.")]


def _words(values: list[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InputError(f"--scale takes LOW:HIGH with two numbers, such as 0:100; got {text!r}") from None


@app.command()
def analyse(
    ratings: Annotated[
        Path, typer.Argument(metavar="RATINGS", help="Table of ratings: CSV, TSV, JSON lines or Parquet.", show_default=False)
    ],
    models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table with a row per model and its groups, one per column (country, stage, ...).")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Control category, name or pattern (repeat); default: those whose names say control."),
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Category with known ratings, for calibration alone (repeat); default: anchor*."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Categories from the least to the most divergent, as expected before looking: the staircase."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column that groups models (repeat); default: group, or all columns of --models."),
    ] = None,
    pair: Annotated[str, typer.Option(metavar="COL", help="Column that names the pair.")] = "pair",
    category: Annotated[str, typer.Option(metavar="COL", help="Column that names its category.")] = "category",
    model: Annotated[str, typer.Option(metavar="COL", help="Column that names the model.")] = "model",
    rating: Annotated[str, typer.Option(metavar="COL", help="Column with the rating.")] = "rating",
    scale: Annotated[str, typer.Option(metavar="LOW:HIGH", help="Scale of the ratings.")] = "0:1",
    step: Annotated[float, typer.Option(metavar="S", help="Smallest step of the scale, in its own unit.")] = 0.01,
    tau: Annotated[
        float, typer.Option(metavar="T", help="Largest range that passes for agreement in a council, on a scale from 0 to 1.")
    ] = 0.20,
    rarefy: Annotated[
        int | None, typer.Option(metavar="K", help="Models of a sub-ensemble, for ranges that compare between ensembles of different size.")
    ] = None,
    permutations: Annotated[int, typer.Option(metavar="N", min=99, help="Relabellings drawn where not all are gone through.")] = 10_000,
    level: Annotated[float, typer.Option(metavar="L", help="Confidence level.")] = 0.95,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of every random draw.")] = 0,
    out: OutOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print atlas.json and nothing else.")] = False,
) -> None:
    """The whole analysis of a plain table of ratings. No model is asked, nothing leaves this machine.

    One row per rating with the columns pair, category, model and rating (empty where a model gave none), and where known
    order, variant, repeat, topic, reference, text_a, text_b, status, mode and group. Or one row per pair with pair,
    category and a column per model, as ratings collected by hand are. docs/atlas.md says what every number means.

    For example:

      aligntax atlas analyse ratings.csv --order control,cross_cultural,erasure,clash --out atlas

      aligntax atlas analyse matrix.csv --models models.csv --group country
    """
    from aligntax.atlas.analysis import Settings
    from aligntax.atlas.analysis import analyse as work
    from aligntax.atlas.export import as_json
    from aligntax.atlas.ratings import Columns, read_ratings
    from aligntax.report.atlas_text import view
    from aligntax.report.terminal import console

    low, high = _scale(scale)
    columns = Columns(pair, category, model, rating, _words(group), (low, high))
    settings = Settings(
        controls=_words(control), anchors=_words(anchor), order=_words([order] if order else None), tau=tau, rarefied=rarefy, draws=permutations,
        level=level, step=step / (high - low) if high > low else step, seed=seed,
    )  # fmt: skip
    found = work(read_ratings(ratings, columns, models), settings, _tell)
    text = as_json(found)
    if json:
        sys.stdout.write(text)
    else:
        console().print(view(found))
    if out is not None:
        _write(out, found, text)


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        note(f"{what} ...")


def _write(out: Path, found: Analysis, text: str) -> None:
    from aligntax.report.atlas_page import render
    from aligntax.store.run import write_text

    write_text(out / "atlas.json", text)
    note(f"report: {write_text(out / 'atlas.html', render(found))}")
