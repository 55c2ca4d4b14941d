"""The verb ``audit``: what makes numbers unsound before anybody compares them.

Tables are held against themselves (averages, rows that are another model's, cells far off), samples against their texts and their siblings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from aligntax.core.errors import InputError
from aligntax.core.ledger import AVERAGES
from aligntax.core.samples import CODE, MISSING, OUTCOMES
from aligntax.core.study import Analysis
from aligntax.core.words import number, printable
from aligntax.flow.diff import ArmSource, diff_logs
from aligntax.store.logs import Want, find_reader, located, open_log
from aligntax.store.readers.tables_of_results import Table, tables_of
from aligntax.store.rows import Rows

_ROUNDING = 0.6
"""An average may be off by so many units of its last printed digit, or by half of its cells' on the mean: all of them were rounded."""
_CUT = 1.1
_MISSING = tuple(CODE[outcome] for outcome in OUTCOMES if outcome in MISSING)
_FEW = 3  # cells below which a row says too little to be recognised
_FAR, _LARGE = 6.0, 10.0  # robust standard deviations, and points, of a cell that is far off its siblings


@dataclass(frozen=True)
class Finding:
    """One thing that makes a number unsound: where, what sort of thing, and what was found."""

    where: str
    what: str
    said: str


def audit(paths: Sequence[Path]) -> list[Finding]:
    """Everything found in files, each alone and then all together.

    Raises:
        InputError: if a path is no log and no table.
    """
    tables: list[tuple[str, Table]] = []
    logs: list[Path] = []
    found: list[Finding] = []
    for path in paths:
        for file in _opened(path):
            of = tables_of(file)
            if of is None:
                logs.append(file)
            else:
                tables += [(file.name, one) for one in of]
    for name, table in tables:
        found += averages(name, table)
        found += far_cells(name, table)
    found += identical_rows(tables)
    for log in logs:
        found += _alone(log)
    for first, second in combinations(logs, 2):
        found += _together(first, second)
    return found


def _opened(path: Path) -> list[Path]:
    """The files of a folder of tables; any other path as it is.

    Raises:
        InputError: if it does not exist.
    """
    file, part = located(path)
    if part is not None:
        raise InputError(f"{printable(str(path))}: an audit reads whole files; leave #{printable(part)} out")
    if not file.is_dir():
        return [file]
    inside = sorted(p for p in file.iterdir() if p.is_file())
    of_tables = [p for p in inside if p.suffix.lower() in (".md", ".csv") and tables_of(p) is not None]
    try:
        find_reader(file)
    except InputError:  # no folder of logs
        if of_tables:
            return of_tables
        raise
    return [*of_tables, file]


# -- tables ----------------------------------------------------------------------------------------------------------------------


def averages(where: str, table: Table) -> Iterator[Finding]:
    """Averages that are not the mean of their cells, or not of the same cells as their siblings'."""
    for name in table.averages:
        yield from _unequal(where, table, name)
        for arm, printed in table.averages_of(name).items():
            cells = table.cells[arm]
            if len(cells) < _FEW:
                continue  # nothing to hold it against: its cells are not here
            mean = sum(cell.value for cell in cells.values()) / len(cells)
            units = sum(cell.unit for cell in cells.values()) / len(cells)
            slack = max(_ROUNDING * printed.unit, units / 2 + printed.unit / 10)
            if printed.unit < (0.02 if max(abs(cell.value) for cell in cells.values()) > 1 else 0.0002):
                slack = max(slack, _CUT * printed.unit)  # many digits are often cut off instead of rounded
            options = [mean, *(sum(c.value for c in some.values()) / len(some) for some in table.alternatives(arm))]
            if min(abs(printed.value - option) for option in options) > slack + 1e-9:
                yield Finding(
                    where, "average is not the mean of its cells",
                    f"{printable(name)} of {printable(arm)} is printed as {printed.text}; its {len(cells)} cells here average {number(mean, 2)}",
                )  # fmt: skip


def _unequal(where: str, table: Table, name: str) -> Iterator[Finding]:
    """Within one model, whose stages are what somebody compares; models of other papers have tasks of their own."""
    families: dict[str, dict[str, frozenset[str]]] = {}
    for arm, cells in table.cells.items():
        if name in table.averages_of(arm):
            families.setdefault(table.family.get(arm, ""), {})[arm] = frozenset(cells)
    for sets in families.values():
        every = frozenset().union(*sets.values())
        for arm, tasks in sets.items():
            if gone := sorted(every - tasks):
                yield Finding(
                    where, "average over unequal task sets",
                    f"{printable(name)} of {printable(arm)} has no {printable(', '.join(gone[:4]))}{' ...' if len(gone) > 4 else ''}, which others have: averages over unequal sets cannot be compared",
                )  # fmt: skip


def identical_rows(tables: Sequence[tuple[str, Table]]) -> Iterator[Finding]:
    """Rows that are another model's to the last digit."""
    seen: dict[tuple[tuple[str, str], ...], list[tuple[str, str]]] = {}
    for where, table in tables:
        for arm, cells in table.cells.items():
            if len(cells) >= _FEW:
                key = tuple(sorted((name, cell.text) for name, cell in cells.items()))
                seen.setdefault(key, []).append((where, arm))
    for of in seen.values():
        names = list(dict.fromkeys(f"{arm} ({where})" if len(tables) > 1 else arm for where, arm in of))
        if len({arm for _, arm in of}) > 1:  # the same model in two tables is no copy
            yield Finding(
                of[0][0], "rows identical to the last digit",
                f"{printable(', '.join(names[:4]))}{f' and {len(names) - 4} more' if len(names) > 4 else ''}: is one of them another model's row?",
            )  # fmt: skip


def far_cells(where: str, table: Table) -> Iterator[Finding]:
    """Changes from a stage to the next that are far off the changes of its other benchmarks."""
    for parent, child in table.edges:
        before, after = table.cells.get(parent, {}), table.cells.get(child, {})
        changes = {name: after[name].value - before[name].value for name in after if name in before}
        if len(changes) < 2 * _FEW:
            continue
        centre = median(changes.values())
        spread = 1.4826 * median(abs(c - centre) for c in changes.values())  # of a normal law, its standard deviation
        scale = 1.0 if max(abs(cell.value) for cell in (*before.values(), *after.values())) > 1 else 0.01
        for name, change in changes.items():
            if abs(change - centre) > max(_LARGE * scale, _FAR * spread):
                yield Finding(
                    where, "a cell far off its siblings",
                    f"{printable(name)} moves by {number(change, 2)} from {printable(parent)} to {printable(child)} ({before[name].text} to {after[name].text}), "
                    f"where the others move by {number(centre, 2)} in the middle",
                )  # fmt: skip


# -- samples -----------------------------------------------------------------------------------------------------------------------


def _alone(path: Path) -> Iterator[Finding]:
    """One log: contents that repeat, doubts of its reader, what it left out."""
    want = Want()
    source = open_log(path, want)
    if source.summaries is None:
        with Rows() as rows:
            arm = rows.add(path.name, path, source, want)
            yield from _repeated(path.name, rows, arm.number)
            yield from _failures(path.name, rows, arm.number)
    for task, doubts in source.facts.doubts.items():
        for doubt in doubts:
            yield Finding(path.name, "predictions filled in", f"{printable(task)}: {printable(doubt)}")
    for note in source.facts.notes:
        yield Finding(path.name, "left out", printable(note))


def _repeated(where: str, rows: Rows, number_: int) -> Iterator[Finding]:
    found = rows.con.execute(
        f"SELECT task, count(DISTINCT item), count(DISTINCT content) FROM samples_{number_} WHERE content <> '' AND item <> '' "
        "GROUP BY task ORDER BY task"
    ).fetchall()
    for task, n, distinct in found:
        if distinct < n:
            yield Finding(where, "duplicated contents", f"{printable(task)}: {n - distinct:,} of {n:,} items repeat the content of another")


def _failures(where: str, rows: Rows, number_: int) -> Iterator[Finding]:
    found = rows.con.execute(
        f"SELECT task, metric, count(*), count(*) FILTER (outcome IN {_MISSING}) FROM joined_{number_} GROUP BY task, metric ORDER BY task, metric"
    ).fetchall()
    for task, metric, n, missing in found:
        if missing:
            yield Finding(where, "missing scores", f"{printable(task)}, {printable(metric)}: {missing:,} of {n:,} have none")


_OF_ENTRIES = (
    "stand for different contents", "prompts differ", "replies are identical", "asked differently", "unequal attrition", "no average over unequal",
)  # fmt: skip


def _together(first: Path, second: Path) -> Iterator[Finding]:
    """Two logs of the same tasks: what keeps them from being compared."""
    where = f"{first.name} | {second.name}"
    if find_reader(first).name != find_reader(second).name:
        return
    try:
        with diff_logs([ArmSource("first", first, None), ArmSource("second", second, "first")], Analysis(), Want()) as compared:
            said: dict[str, list[str]] = {}
            for entry in compared.ledger:
                for check in entry.checks:
                    if any(sign in check for sign in _OF_ENTRIES) and entry.task not in AVERAGES:
                        said.setdefault(check, []).append(entry.task)
    except InputError as error:
        yield Finding(where, "cannot be compared", str(error))
        return
    for check, tasks in said.items():
        names = list(dict.fromkeys(tasks))
        told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Finding(where, "not asked alike", f"{printable(told)}: {check}")
