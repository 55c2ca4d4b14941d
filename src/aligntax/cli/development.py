"""aligntax development: what alignment took to make, and what it costs not to have it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.core.errors import InputError

if TYPE_CHECKING:
    from aligntax.core.ledger import Entry
    from aligntax.flow.debt import Assessment
    from aligntax.flow.development import Development


def development(
    costs: Annotated[Path, typer.Argument(metavar="COSTS.yaml", help="What was spent, in your own numbers.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print the entries as ledger.json and nothing else.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables as Markdown, for a pull request.")] = False,
) -> None:
    """The development tax of every stage, and the alignment debt of not having it.

    COSTS.yaml names what each stage took: training compute (as such, from parameters and tokens, or from a trainer_state.json),
    hours, devices, watts, labels, prices. Nothing is guessed; what is left out is unknown. docs/development.md has every name.

      pretraining: {petaflop_s_days: 3640}

      stages: {sft: {petaflop_s_days: 4.9}, ppo: {petaflop_s_days: 60, parent: sft}}

    With debt: it weighs aligning now against never, and against later, with break-even and sensitivity.

    For example:

      aligntax development costs.yaml --markdown >> "$GITHUB_STEP_SUMMARY"
    """
    from aligntax.core.words import safe_json
    from aligntax.flow.development import develop

    if json and markdown:
        raise InputError("--json and --markdown are two forms of one thing; name one")
    found = develop(costs)
    if json:
        sys.stdout.write(safe_json(found.ledger.to_json()))
    elif markdown:
        sys.stdout.write(_as_markdown(found))
    else:
        _print(found)


@dataclass(frozen=True)
class _Table:
    """A table of plain cells, of which the first ``words`` columns are no numbers, and what is said beneath it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    said: tuple[str, ...]


def _tables(found: Development) -> list[_Table]:
    out = [table] if (table := _spent(found.ledger.entries)) is not None else []
    return out if found.debt is None else [*out, _owed(found, found.debt), _sensitivity(found.debt, found.currency or "")]


def _spent(entries: Sequence[Entry]) -> _Table | None:
    """One row per stage and per path, one column per metric that is spoken of; None where nothing was spent."""
    from aligntax.flow.development import METRICS, SHARE, TASK

    of = [entry for entry in entries if entry.task == TASK]
    if not of:
        return None
    metrics = [metric for metric in METRICS if any(entry.metric == metric for entry in of)]
    cells = {(entry.pair, entry.metric): entry for entry in of}
    rows = []
    for pair in dict.fromkeys(entry.pair for entry in of):
        row = [cells.get((pair, metric)) for metric in metrics]
        rows.append((*pair, *("-" if one is None else _share(one.change) if one.metric == SHARE else _amount(one.change) for one in row)))
    units = {entry.metric: "" if entry.unit in ("count", "hours") else f" ({entry.unit})" for entry in of}
    names = ["of pretraining" if metric == SHARE else f"{metric.replace('_', ' ')}{units[metric]}" for metric in metrics]
    return _Table("What the stages took", ("from", "to", *names), tuple(rows), 2, tuple(_notes(of)))


def _notes(entries: Sequence[Entry]) -> list[str]:
    """Where the numbers come from and why some are missing, each once with the stages it is said of; what the table shows by itself is left out."""
    from aligntax.flow.development import SHARE

    stages: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        for check in entry.checks:
            if entry.metric != SHARE and check != "as given" and not check.startswith(("sum of", "no sum")):
                stages.setdefault((entry.metric.replace("_", " "), check), []).append(entry.candidate)
    return [f"{', '.join(names)}, {metric}: {check}" for (metric, check), names in stages.items()]


def _owed(found: Development, debt: Assessment) -> _Table:
    """Present costs, saving and break-even; with ranges their interval and mean."""
    months, currency = debt.debt.horizon_months, found.currency
    values = [("align now", debt.now, "now"), ("never align", debt.never, "never")]
    if debt.later is not None and debt.debt.later is not None:
        values.append((f"align at the end of month {debt.debt.later.month}", debt.later, "later"))
    values.append(("saved by aligning now", debt.saving, "saving"))
    rows: list[tuple[str, ...]] = []
    for name, value, key in values:
        drawn = debt.drawn.get(key)
        rows.append((name, _amount(value), *(() if drawn is None else (_span(drawn.low, drawn.high), _amount(drawn.mean)))))
    drawn = debt.drawn.get("month")
    month = "never" if debt.month is None else f"month {debt.month:.0f}"
    ends = () if drawn is None else (f"month {_span(drawn.low, drawn.high, 'never')}".replace("month never", "never"), _amount(drawn.mean))
    rows.append(("break-even: not aligning has cost more by", month, *ends))
    empty = ("", "") if debt.drawn else ()
    rows.append(("break-even harm in the first month", _amount(debt.break_even_harm), *empty))
    way = debt.debt.harm.way[0].removesuffix("_per_month")
    if way != "cost":
        rows.append((f"break-even {way} in the first month", _amount(debt.break_even_rate), *empty))
    said = dict.fromkeys(check for entry in found.ledger for check in entry.checks if entry.metric in ("net_present_saving", "break_even"))
    headings = ("", f"{currency}, today's worth", *(("5 % to 95 %", "mean") if debt.drawn else ()))
    return _Table(f"The debt over {months} months", headings, tuple(rows), 1, tuple(said))


def _sensitivity(debt: Assessment, currency: str) -> _Table:
    """What the saving owes to each number, the largest swing first."""
    ranged = any(one.at_low is not None for one in debt.sensitivities)
    rows = []
    for one in debt.sensitivities:
        low, likely, high = one.spread.low, one.spread.likely, one.spread.high
        given = f"{_amount(low)} .. {_amount(likely)} .. {_amount(high)}" if one.spread.is_range else _amount(likely)
        ends = (_amount(one.at_low), _amount(one.at_high)) if ranged else ()
        rows.append((one.name, given, _signed(one.per_percent), "-" if one.elasticity is None else f"{one.elasticity:+.2f}", *ends))
    headings = ("number", "given", f"1 % more: {currency}", "elasticity", *(("at its low", "at its high") if ranged else ()))
    return _Table("What the saving owes to each number", headings, tuple(rows), 1, ())


def _amount(x: float | None) -> str:
    """Four significant digits, so that a small model's compute is not shown as 0."""
    if x is None:
        return "-"
    size = abs(x)
    return f"{x:.0f}" if size == 0 else f"{x:,.0f}" if 1000 <= size < 1e15 else f"{x:.4g}"


def _signed(x: float) -> str:
    text = _amount(x)
    return text if text.startswith("-") or x == 0 else f"+{text}"


def _share(x: float | None) -> str:
    return "-" if x is None else f"{100 * x:.3g} %"


def _span(low: float | None, high: float | None, missing: str = "-") -> str:
    return f"{missing if low is None else _amount(low)} to {missing if high is None else _amount(high)}"


def _print(found: Development) -> None:
    from rich.table import Table
    from rich.text import Text

    from aligntax.core.words import printable
    from aligntax.report.terminal import console

    out = console()
    for table in _tables(found):
        out.print(Text(table.title, style="bold"))
        shown = Table(box=None, pad_edge=False, header_style="dim")
        for k, heading in enumerate(table.headings):
            shown.add_column(Text(heading), justify="left" if k < table.words else "right")
        for row in table.rows:
            shown.add_row(*(Text(printable(cell)) for cell in row))
        out.print(shown)
        for line in table.said:
            out.print(Text(f"  ! {printable(line)}", style="yellow"))
        out.print()


def _as_markdown(found: Development) -> str:
    from aligntax.report.markdown import escaped

    lines = []
    for table in _tables(found):
        lines += [f"### {escaped(table.title)}", "", "| " + " | ".join(escaped(h) for h in table.headings) + " |"]
        lines.append("|" + "|".join("---" if k < table.words else "--:" for k in range(len(table.headings))) + "|")
        lines += ["| " + " | ".join(escaped(cell) for cell in row) + " |" for row in table.rows]
        lines += ["", *(f"- {escaped(line)}" for line in table.said), ""]
    return "\n".join(lines)
