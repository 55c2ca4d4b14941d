"""aligntax exchange and aligntax trend: what safety cost in each currency, where each model stands, and whether the tax shrinks with size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.shared import key_values
from aligntax.core.errors import InputError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from aligntax.flow.exchange import Exchange, Rate
    from aligntax.flow.frontier import Frontier
    from aligntax.flow.trend import SizeTrend

_FORMS = "--json and --markdown are two forms of one thing; name one"


def exchange(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request.")] = False,
) -> None:
    """What each point of safety or helpfulness cost in each currency, and which models are on the frontier.

    A purchase is a gain of safety or helpfulness that is established; one that is not has no price. Each kind of cost is a
    currency in its own unit, its rate cost per point bought, with Fieller's interval. Both are means over tasks where there
    are several. An arm is dominated if another is nowhere worse and somewhere better in everything that was measured; with
    all intervals at once, it is that, or on the frontier, or undetermined. docs/exchange.md has the methods.

    For example:

      aligntax exchange aligntax-runs/4fba721cb41d7e0a
    """
    from json import dumps

    from aligntax.core.words import safe_json
    from aligntax.flow.exchange import ASSUMPTION, exchange_rows, rate_sentence
    from aligntax.flow.exchange import exchange as rates_of
    from aligntax.flow.frontier import frontier, frontier_rows
    from aligntax.report.terminal import console
    from aligntax.store.run import load_run

    if json and markdown:
        raise InputError(_FORMS)
    stored = load_run(run)
    ledger, main = stored.ledger, (stored.study.baseline, stored.study.candidate)
    found = sorted(rates_of(ledger), key=lambda one: one.pair != main)  # what the study is about first
    if not found:
        raise InputError(
            f"{printable(str(run))} has no safety or helpfulness to have been bought; "
            "measure a task of these kinds, or say which is one with --kind TASK=safety"
        )
    front: Frontier | str
    try:
        front = frontier(ledger, min(entry.level for entry in ledger))
    except InputError as error:  # rates stand without it
        front = str(error)
    if json:
        rows = {
            "rates": exchange_rows(found),
            "frontier": {"reason": front} if isinstance(front, str) else frontier_rows(front),
            "assumes": ASSUMPTION,
        }
        typer.echo(safe_json(dumps(rows, indent=2, ensure_ascii=False)))
        return
    if markdown:
        typer.echo("\n".join(_exchange_markdown(found, front)))
        return
    screen = console()
    for one in found:
        screen.print(f"{printable(one.pair[1])} against {printable(one.pair[0])}", style="bold")
        for bought, rates in _purchases(one):
            screen.print(bought)
            screen.print(_rates_table(rates))
            for r in rates:
                if one is found[0] or r.rate is None:  # of other pairs the table is enough
                    screen.print(f"  {rate_sentence(r)}")
            screen.print("")
        for line in _not_bought(one):
            screen.print(line)
        if one.not_bought:
            screen.print("")
    screen.print("Frontier", style="bold")
    for line in _frontier_lines(front):
        screen.print(f"  {line}")
    screen.print(f"Rates take it that {ASSUMPTION}.", style="dim")


def trend(
    runs: Annotated[list[Path] | None, typer.Argument(metavar="RUN...", help="Folders of runs, one per size.", show_default=False)] = None,
    size: Annotated[
        list[str] | None,
        typer.Option("--size", metavar="NAME=N", help="Parameters of a run's models, or of a table's row: 1.3B or 1300000000 (repeat)."),
    ] = None,
    kind: Annotated[str, typer.Option(metavar="KIND", help="Runs: the kind whose mean over tasks is fitted.")] = "performance",
    task: Annotated[
        list[str] | None, typer.Option("--task", metavar="TASK", help="One task of the runs; of a table, names or patterns (repeat).")
    ] = None,
    metric: Annotated[str | None, typer.Option(metavar="METRIC", help="Runs: which metric, where there are several.")] = None,
    template: Annotated[str | None, typer.Option(metavar="raw|chat", help="Runs asked both ways: both models with this template.")] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A published table with models of several sizes instead of runs.")
    ] = None,
    base: Annotated[str | None, typer.Option("--base", metavar="'NAME/*'", help="Table: the baseline's rows, * for the size.")] = None,
    candidate: Annotated[str | None, typer.Option("--candidate", metavar="'NAME/*'", help="Table: the candidate's rows.")] = None,
    level: Annotated[float, typer.Option(metavar="L", help="Confidence level.")] = 0.95,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request.")] = False,
) -> None:
    """Does the tax shrink with size? The change against log size, with a fitted line and its interval.

    Each run gives the change from its baseline to its candidate. Sizes are those that were counted when the models were
    loaded, what their names tell (8B), or --size. Runs that measured different things, or in different ways, are refused, and
    so is an average over the protocols (prompt styles, shots) of a published table.

    For example:

      aligntax trend runs/w32 runs/w48 runs/w64 runs/w96 --template raw

      aligntax trend --table table14.csv --base 'GPT/*' --candidate 'PPO/*' --task '*/few-shot'
    """
    from json import dumps

    from aligntax.core.kinds import KINDS
    from aligntax.core.words import safe_json
    from aligntax.flow.trend import parse_size, trend_of_runs, trend_of_table, trend_rows
    from aligntax.report.terminal import console
    from aligntax.store.run import load_run

    if json and markdown:
        raise InputError(_FORMS)
    if not 0.5 < level < 1:
        raise InputError(f"--level must lie between 0.5 and 1, got {level:g}")
    if kind not in KINDS:
        raise InputError(f"--kind must be one of {', '.join(KINDS)}; got {printable(repr(kind))}")
    if template not in (None, "raw", "chat"):
        raise InputError(f"--template is raw or chat, got {printable(repr(template))}")
    sizes = {name: parse_size(text) for name, text in key_values(size, "--size", "NAME=N").items()}
    if table is not None:
        if runs or base is None or candidate is None:
            raise InputError("--table takes --base and --candidate, and no runs: --table FILE --base 'GPT/*' --candidate 'PPO/*'")
        if metric is not None or template is not None or kind != "performance":
            raise InputError("--kind, --metric and --template choose from runs; a table has --task alone")
        found = trend_of_table(table, base, candidate, task or [], sizes, level=level)
    else:
        if not runs:
            raise InputError("name the runs, one per size, or a published table with --table")
        if base is not None or candidate is not None or len(task or []) > 1:
            raise InputError("--base, --candidate and several --task choose from a table; of runs, name one --task")
        names = _names(runs)
        loaded = [(name, load_run(path)) for name, path in zip(names, runs, strict=True)]
        found = trend_of_runs(loaded, sizes, kind=kind, task=task[0] if task else None, metric=metric, template=template, level=level)
    if json:
        typer.echo(safe_json(dumps(trend_rows(found), indent=2, ensure_ascii=False)))
    elif markdown:
        typer.echo("\n".join(_trend_markdown(found)))
    else:
        _print_trend(found, console())


def _names(runs: list[Path]) -> list[str]:
    """Runs by the names of their folders, or as they were given where two have one name."""
    short = [path.resolve().name for path in runs]
    names = short if len(set(short)) == len(short) else [str(path) for path in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{printable(twice)} is named twice; each size needs a run of its own")
    return names


def _purchases(one: Exchange) -> Iterator[tuple[str, list[Rate]]]:
    """What was bought, in a sentence, with what it cost in every currency."""
    from aligntax.flow.exchange import bought_sentence

    for bought in {id(r.bought): r.bought for r in one.rates}.values():
        yield bought_sentence(bought), [r for r in one.rates if r.bought is bought]


def _not_bought(one: Exchange) -> Iterator[str]:
    from aligntax.flow.exchange import name_of

    for entry, reason in one.not_bought:
        yield f"{name_of(entry)}: {printable(reason)}."


def _rows(rates: Sequence[Rate]) -> Iterator[tuple[str, str, str, str, str, str]]:
    """Bought, currency, change of the currency, rate with interval, its unit, status."""
    from aligntax.core.explain import error_of
    from aligntax.core.words import change_number, change_unit
    from aligntax.flow.exchange import name_of, rate_text

    for r in rates:
        change = "-" if r.paid.change is None else change_number(r.paid.change, r.paid.unit, error_of(r.paid))
        yield (
            name_of(r.bought),
            name_of(r.paid),
            f"{change} {printable(change_unit(r.paid.unit))}",
            rate_text(r),
            printable(r.unit),
            r.status,
        )


_HEADINGS = ("bought", "currency", "change", "rate [interval]", "unit", "")


def _rates_table(rates: Sequence[Rate]) -> Table:
    """The rates of one purchase."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    for heading in _HEADINGS[1:]:
        table.add_column(heading, justify="right" if heading in ("change", "rate [interval]") else "left", overflow="fold")
    styles = {"cost": "bold red", "free": "bold blue", "not shown": "yellow"}
    for row, rate in zip(_rows(rates), rates, strict=True):
        table.add_row(*(Text(cell) for cell in row[1:-1]), Text(rate.status, style=styles.get(rate.status, "dim")))
    return table


def _frontier_lines(found: Frontier | str) -> Iterator[str]:
    from aligntax.core.words import level_text
    from aligntax.flow.frontier import coordinate_text, standing_sentence

    if isinstance(found, str):
        yield f"{found[:1].upper()}{found[1:]}."
        return
    yield f"Over {'; '.join(map(coordinate_text, found.coordinates))}."
    for standing in found.standings:
        yield standing_sentence(standing)
    for key, arms in found.left_out:
        yield f"Left out: {coordinate_text(key)}, which {printable(', '.join(arms))} has no change of."
    yield f"All of this at once at {level_text(found.level)} confidence ({found.comparisons} differences, Bonferroni)."


def _exchange_markdown(found: list[Exchange], front: Frontier | str) -> Iterator[str]:
    from aligntax.flow.exchange import ASSUMPTION, rate_sentence
    from aligntax.report.markdown import escaped

    yield "### Exchange rates\n"
    for one in found:
        yield f"**{escaped(one.pair[1])} against {escaped(one.pair[0])}**\n"
        if one.rates:
            yield f"| {' | '.join(_HEADINGS)} |"
            yield "|---|---|--:|--:|---|---|"
            for row in _rows(one.rates):
                yield f"| {' | '.join(map(escaped, row))} |"
            yield ""
        for bought, rates in _purchases(one):
            yield f"- {escaped(bought)}"
            yield from (f"  - {escaped(rate_sentence(r))}" for r in rates if one is found[0] or r.rate is None)
        yield from (f"- {escaped(line)}" for line in _not_bought(one))
        yield ""
    yield "### Frontier\n"
    yield from (f"- {escaped(line)}" for line in _frontier_lines(front))
    yield f"\nRates take it that {escaped(ASSUMPTION)}."


def _trend_rows(found: SizeTrend) -> Iterator[tuple[str, str, str, str, str]]:
    """Name, size, change with interval, the line there with its limits."""
    from aligntax.core.words import change_number, interval_text
    from aligntax.flow.trend import digits_of, size_text

    for p in found.points:
        error = digits_of(found, p)
        value, low, high = found.at(p.size)
        interval = "" if p.low is None else interval_text(p.low, p.high, found.unit, error)
        line = f"{change_number(value, found.unit, error)} {interval_text(low, high, found.unit, error)}"
        yield printable(p.name), size_text(p.size), change_number(p.change, found.unit, error), interval, line


def _print_trend(found: SizeTrend, screen: Console) -> None:
    from rich.table import Table
    from rich.text import Text

    from aligntax.core.words import change_unit
    from aligntax.flow.trend import trend_sentences

    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    for heading in ("", "size", f"change ({change_unit(found.unit)})", "interval", "line [limits]"):
        table.add_column(heading, justify="left" if heading in ("", "interval", "line [limits]") else "right", overflow="fold")
    for row in _trend_rows(found):
        table.add_row(*map(Text, row))
    screen.print(table)
    for line in trend_sentences(found):
        screen.print(line)
    for line in found.notes:
        screen.print(f"  {line}", style="dim")
    for line in found.doubts:
        screen.print(f"  ! {line}", style="yellow")


def _trend_markdown(found: SizeTrend) -> Iterator[str]:
    from aligntax.core.words import change_unit
    from aligntax.flow.trend import trend_sentences
    from aligntax.report.markdown import escaped

    yield "### Tax against size\n"
    yield f"| | size | change, {escaped(change_unit(found.unit))} | interval | line and limits |"
    yield "|---|--:|--:|---|---|"
    for row in _trend_rows(found):
        yield f"| {' | '.join(map(escaped, row))} |"
    yield ""
    yield from (f"- {escaped(line)}" for line in (*trend_sentences(found), *found.notes, *(f"! {line}" for line in found.doubts)))
