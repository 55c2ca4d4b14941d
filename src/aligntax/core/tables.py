"""Ledger entries as rows of text, and the plainest tables they can be put in (the terminal and the report have their own)."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

from aligntax.core.words import VERDICT_WORDS, change_number, change_unit, interval_text, p_text, printable, value_text

if TYPE_CHECKING:
    from aligntax.core.ledger import Entry


@dataclass(frozen=True)
class Row:
    """One entry in words, control characters of hostile text made visible."""

    pair: str
    task: str
    metric: str
    n: str
    baseline: str
    candidate: str
    change: str
    interval: str
    p: str
    verdict: str


HEADINGS = Row("arms", "task", "metric", "n", "baseline", "candidate", "change", "interval", "p", "verdict")
NUMERIC = frozenset({3, 4, 5, 6, 8})


def is_unpaired(entry: Entry) -> bool:
    """Whether nothing was paired: at least one side has values and no samples."""
    return entry.n == 0 and entry.change is not None


def entry_row(entry: Entry) -> Row:
    """The cells of one entry; p is the adjusted one where there is a family."""
    error = entry.se or (None if entry.ci_low is None or entry.ci_high is None else (entry.ci_high - entry.ci_low) / 4)
    change = "-" if entry.change is None else f"{change_number(entry.change, entry.unit, error)} {change_unit(entry.unit)}"
    return Row(
        pair=printable(f"{entry.baseline} -> {entry.candidate}"),
        task=printable(entry.task),
        metric=printable(entry.metric),
        n="-" if is_unpaired(entry) else f"{entry.n:,}",
        baseline=value_text(entry.baseline_value, entry.unit, error),
        candidate=value_text(entry.candidate_value, entry.unit, error),
        change=printable(change),
        interval=interval_text(entry.ci_low, entry.ci_high, entry.unit, error),
        p=p_text(entry.p_value if entry.p_adjusted is None else entry.p_adjusted),
        verdict=VERDICT_WORDS[entry.verdict],
    )


def entry_rows(entries: Iterable[Entry]) -> list[Row]:
    return [entry_row(entry) for entry in entries]


def text_table(rows: Sequence[Row]) -> str:
    """A fixed-width table."""
    lines = [astuple(row) for row in (HEADINGS, *rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in NUMERIC else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def html_table(rows: Sequence[Row]) -> str:
    """An HTML table with every cell escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in astuple(HEADINGS))
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in astuple(row)) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
