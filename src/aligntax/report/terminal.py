"""Ledgers and flips for a terminal: rich tables that fit its width. Nothing in a cell is read as markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from aligntax.core.explain import headline, is_subgroup, main_entries, metric_of_section, reasons, summary
from aligntax.core.ledger import AVERAGES, Entry, Ledger
from aligntax.core.tables import entry_row
from aligntax.core.words import change_unit, cut, number, printable

if TYPE_CHECKING:
    from aligntax.store.rows import Flip

MAX_PAIRS = 3
"""Pairs of arms with a table of their own; more are put side by side."""
MAX_ACROSS = 4
"""Arms beside each other where one table holds several metrics."""
LEFT_OUT = frozenset({"kl(baseline||candidate)", "js", "k3(candidate||baseline)"})
"""Further measures of a divergence, which the ledger and the report have."""
MAX_EXPLAINED = 12
"""Entries explained one by one whatever they found."""
_STYLES = {"tax": "bold red", "gain": "bold blue", "no tax": "green", "undetermined": "yellow", "-": "dim"}


def ledger_view(ledger: Ledger, *, all_checks: bool = False) -> Group:
    """The ledger as tables, then what its verdicts mean and which doubts there are.

    Up to three pairs of arms have a table each. More are put side by side, one table per baseline, since nobody reads hundreds of rows.

    Args:
        ledger: what to show.
        all_checks: every table, every entry explained.
    """
    pairs = list(dict.fromkeys(e.pair for e in ledger))
    wide = len(pairs) > MAX_PAIRS and not all_checks
    shown = ledger if all_checks else ledger.model_copy(update={"entries": tuple(e for e in ledger if e.metric not in LEFT_OUT)})
    parts = _matrices(shown) if wide else _tables(shown)
    main = main_entries(ledger)
    for baseline, candidate in pairs:
        parts.append(Text(summary(main, baseline, candidate), style="bold"))
    parts.append(Text(""))
    final = ledger[-1].candidate if len(ledger) else ""
    chosen = list(ledger) if all_checks else _explained([e for e in main if e.pair == (ledger.baseline, final)])
    for entry in chosen:
        parts.append(Text(headline(entry)))
        parts += [Text.assemble("  ", reason) for reason in reasons(entry)]
        parts += [Text(f"  ! {check}", style="yellow") for check in entry.checks]
    hidden = len(ledger) - len(chosen)
    if hidden:
        parts.append(Text(f"{hidden} more entries are explained by 'aligntax show RUN --all'.", style="dim"))
    return Group(*parts)


def _explained(entries: Sequence[Entry]) -> list[Entry]:
    """All of a few entries; of many those that established something, and the averages."""
    if len(entries) <= MAX_EXPLAINED:
        return list(entries)
    return [e for e in entries if e.verdict in ("tax", "gain") or e.task in AVERAGES]


def _tables(ledger: Ledger) -> list[RenderableType]:
    parts: list[RenderableType] = []
    groups: dict[tuple[str, str, str, str], list[Entry]] = {}
    for entry in ledger:
        groups.setdefault((entry.baseline, entry.candidate, entry.kind, metric_of_section(entry)), []).append(entry)
    for (baseline, candidate, kind, metric), group in groups.items():
        named = kind.replace("_", " ")
        title = Text(
            printable(f"{baseline} -> {candidate}: {metric} ({named})" if metric else f"{baseline} -> {candidate}: {named}"), style="bold"
        )
        parts += [title, _table(group), Text("")]
    return parts


def _matrices(ledger: Ledger) -> list[RenderableType]:
    """Per baseline, kind and metric: tasks down, candidates across, each cell a change with its verdict. Subgroups and edges are left out."""
    parts: list[RenderableType] = []
    entries = sorted(main_entries(ledger), key=lambda e: e.baseline != ledger.baseline)
    for key in dict.fromkeys((e.baseline, e.kind, metric_of_section(e)) for e in entries):
        cells = {(_row_name(e), e.candidate): e for e in entries if (e.baseline, e.kind, metric_of_section(e)) == key}
        candidates = list(dict.fromkeys(candidate for _, candidate in cells))
        if len(candidates) < 2:
            continue  # a single edge; the report and 'show --all' have it
        unit, kind = next(iter(cells.values())).unit, key[1].replace("_", " ")
        title = f"from {key[0]}: {key[2]} ({kind}), changes in {change_unit(unit)}" if key[2] else f"from {key[0]}: {kind}"
        # Metrics of several units have longer names and cells: fewer arms stand beside each other.
        across = len(candidates) if key[2] else MAX_ACROSS
        for first in range(0, len(candidates), across):
            parts += [Text(printable(title), style="bold"), _matrix(cells, candidates[first : first + across]), Text("")]
    return parts


def _matrix(cells: Mapping[tuple[str, str], Entry], candidates: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    table.add_column("task", overflow="fold", ratio=1, min_width=12)
    table.add_column("n", justify="right", no_wrap=True)
    table.add_column("base", justify="right", no_wrap=True)
    for candidate in candidates:
        table.add_column(printable(candidate), justify="right", no_wrap=True)
    for task in dict.fromkeys(task for task, _ in cells):
        found = [cells.get((task, candidate)) for candidate in candidates]
        rows = [entry_row(e) for e in found if e is not None]
        words = (Text("-", style="dim") if e is None else _cell(e) for e in found)
        table.add_row(Text(printable(task)), Text(rows[0].n), Text(rows[0].baseline), *words)
    return table


def _row_name(entry: Entry) -> str:
    """A task; with its metric where one table holds several."""
    if metric_of_section(entry):
        return entry.task
    unit = change_unit(entry.unit)
    return f"{entry.task}: {entry.metric}" + ("" if unit == "points" else f" ({unit})")


def _cell(entry: Entry) -> Text:
    row = entry_row(entry)
    word = {"no tax": "no tax", "undetermined": "?", "-": ""}.get(row.verdict, row.verdict)
    return Text(f"{row.change.removesuffix(change_unit(entry.unit)).strip()} {word}".strip(), style=_STYLES.get(row.verdict, ""))


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
    for entry in entries:
        row = entry_row(entry)
        task = f"  {row.task.split('/', 1)[1]}" if is_subgroup(entry) else row.task
        if not metric_of_section(entry):
            task = f"{task}: {row.metric}"
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
        parts.append(
            Text(f"{shown} of {total:,} shown, the largest changes and of equal ones an even sample; --limit shows more.", style="dim")
        )
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
