"""Ledgers and flips for a terminal: rich tables that fit its width. Nothing in a cell is read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from aligntax.core.explain import headline, is_subgroup, main_entries, reasons, summary
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.tables import entry_row
from aligntax.core.words import cut, number, printable

if TYPE_CHECKING:
    from aligntax.store.rows import Flip

_STYLES = {"tax": "bold red", "gain": "bold blue", "no tax": "green", "undetermined": "yellow", "-": "dim"}


def ledger_view(ledger: Ledger, *, all_checks: bool = False) -> Group:
    """The ledger as tables per pair and metric, then what its verdicts mean and which doubts there are.

    Args:
        ledger: what to show.
        all_checks: explain subgroups too.
    """
    parts: list[RenderableType] = []
    for (baseline, candidate, kind, metric), group in groupby(ledger, key=lambda e: (e.baseline, e.candidate, e.kind, e.metric)):
        title = Text(printable(f"{baseline} -> {candidate}: {metric} ({kind.replace('_', ' ')})"), style="bold")
        parts += [title, _table(list(group)), Text("")]
    for baseline, candidate in dict.fromkeys(e.pair for e in ledger):
        parts.append(Text(summary(main_entries(ledger), baseline, candidate), style="bold"))
    parts.append(Text(""))
    final = ledger[-1].candidate if len(ledger) else ""
    chosen = list(ledger) if all_checks else [e for e in main_entries(ledger) if e.pair == (ledger.baseline, final)]
    for entry in chosen:
        parts.append(Text(headline(entry)))
        parts += [Text.assemble("  ", reason) for reason in reasons(entry)]
        parts += [Text(f"  ! {check}", style="yellow") for check in entry.checks]
    hidden = len(ledger) - len(chosen)
    if hidden:
        parts.append(Text(f"{hidden} more entries (subgroups, stages) are explained by 'aligntax show RUN --all'.", style="dim"))
    return Group(*parts)


def _table(entries: Sequence[Entry]) -> Table:
    level = f"{100 * entries[0].level:g} % interval"
    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    table.add_column("task", overflow="fold", ratio=1, min_width=12)
    for heading in ("n", "base", "cand."):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("change", justify="right", no_wrap=True)
    table.add_column(level, no_wrap=True)
    table.add_column("p (Holm)" if any(e.p_adjusted is not None for e in entries) else "p", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    tasks = {e.task for e in entries}
    for entry in entries:
        row = entry_row(entry)
        task = f"  {row.task.split('/', 1)[1]}" if is_subgroup(entry, tasks) else row.task
        cells = (task, row.n, row.baseline, row.candidate, row.change.removesuffix(" points"), row.interval, row.p)
        table.add_row(*(Text(cell) for cell in cells), Text(row.verdict, style=_STYLES.get(row.verdict, "")))
    return table


def flips_view(flips: Iterable[Flip], total: int, *, width: int = 600) -> Group:
    """Items that changed, with both answers; texts are cut at ``width`` characters and the cut is marked."""
    parts: list[RenderableType] = []
    shown = 0
    for flip in flips:
        shown += 1
        title = f"{flip.task}/{flip.label}" if flip.label else flip.task
        change = f"{_score(flip.baseline_value)} -> {_score(flip.candidate_value)}"
        parts.append(Text(printable(f"{title}  item {flip.item}  {change}"), style="bold"))
        for name, text in (
            ("question", flip.question),
            ("target", flip.target),
            ("baseline", answer_text(flip.baseline_answer, flip.baseline_extracted)),
            ("candidate", answer_text(flip.candidate_answer, flip.candidate_extracted)),
        ):
            if text is not None:
                parts.append(Text(f"  {name}: {cut(printable(text, keep_newlines=False), width)}"))
        parts.append(Text(""))
    if shown < total:
        parts.append(Text(f"{shown} of {total:,} shown, the largest changes first; --limit shows more.", style="dim"))
    elif total == 0:
        parts.append(Text("No item changed."))
    return Group(*parts)


def answer_text(answer: str | None, extracted: str | None) -> str | None:
    """A reply, with what was extracted from it where that is something else."""
    if answer is None:
        return extracted
    return answer if extracted is None or extracted.strip() == answer.strip() else f"{answer.strip()}  [extracted: {extracted}]"


def _score(value: float | None) -> str:
    return "-" if value is None else number(value, 0 if value.is_integer() else 3)


def console(*, stderr: bool = False) -> Console:
    """A console that never reads markup, emoji or highlighting into model text."""
    made = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not made.is_terminal and not stderr:
        made.width = max(made.width, 120)
    return made
