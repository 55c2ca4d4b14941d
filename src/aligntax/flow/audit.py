"""The verb ``audit``: what makes numbers unsound before anybody compares them.

Tables are held against themselves (averages, rows that are another model's, cells far off), samples against their texts and their siblings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median

from aligntax.core.errors import InputError
from aligntax.core.explain import is_not_alike
from aligntax.core.ledger import AVERAGES
from aligntax.core.samples import CODE, MISSING, OUTCOMES, Outcome
from aligntax.core.study import Analysis
from aligntax.core.words import cut, number, printable
from aligntax.flow.diff import ArmSource, diff_logs, is_lower_better
from aligntax.store.logs import LogFacts, Want, find_reader, located, open_log
from aligntax.store.readers.tables_of_results import Cell, Table, tables_of
from aligntax.store.rows import Rows

_ROUNDING = 0.6
"""An average may be off by so many units of its last printed digit, or by half of its cells' on the mean: all of them were rounded."""
_CUT = 1.1
_MISSING = tuple(CODE[outcome] for outcome in OUTCOMES if outcome in MISSING)
_FEW = 3  # cells below which a row says too little to be recognised
_MANY = 10  # benchmarks, or answers, from which what most of them say is no accident
_SHOWN = 5
_FAR, _LARGE = 6.0, 10.0  # robust standard deviations, and points, of a cell that is far off its siblings


@dataclass(frozen=True)
class Finding:
    """One thing that makes a number unsound: where, what sort of thing, and what was found."""

    where: str
    what: str
    said: str


def audit(paths: Sequence[Path]) -> list[Finding]:
    """Everything found in files, each alone and then all together.

    Logs are held against the first log that has one of their tasks, tables against all others.

    Raises:
        InputError: if a path is no log and no table.
    """
    tables: list[tuple[str, Table]] = []
    logs: list[Path] = []
    found: list[Finding] = []
    for path in paths:
        for file in _opened(path):
            of = tables_of(located(file)[0])
            if of is None:
                logs.append(file)
            else:
                tables += [(file.name, one) for one in of]
    for name, table in tables:
        found += [*averages(name, table), *far_cells(name, table), *cells_in_doubt(name, table)]
    found += identical_rows(tables)
    for one, other in combinations(tables, 2):
        found += swapped_rows(one, other)
    found += far_models(_by_file(paths))
    first_of: dict[str, Path] = {}
    for log in logs:
        tasks, alone = _alone(log)
        found += alone
        for first in dict.fromkeys(first_of[task] for task in tasks if task in first_of):
            found += _together(first, log)
        for task in tasks:
            first_of.setdefault(task, log)
    return found


def _opened(path: Path) -> list[Path]:
    """The files of a folder of tables; any other path as it is, with the model it names.

    Raises:
        InputError: if it does not exist, or names one model of a table.
    """
    file, part = located(path)
    if part is not None:
        if tables_of(file) is not None:
            raise InputError(f"{printable(str(path))}: an audit reads whole tables; leave #{printable(part)} out")
        return [path]
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


def _by_file(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """The values of files that are one model each (lm-eval's printed tables), by task and metric."""
    return {
        file.name: {f"{one.task}, {one.metric}": one.value for one in open_log(file, Want()).summaries or ()}
        for path in paths
        for file in _opened(path)
        if file.is_file() and tables_of(file) is not None and find_reader(file).name == "lm-eval-table"
    }


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


def far_models(models: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """Of files of one model each (its values, by benchmark): one that is better, or worse, than every other on most benchmarks, by more than a point in the middle.

    Stages of one table are left alone: the last one is meant to be the best.
    """
    scale = 1.0 if any(abs(x) > 1 for of in models.values() for x in of.values()) else 0.01
    for where, own in models.items():
        others = [of for other, of in models.items() if other != where]
        leads: dict[str, list[float]] = {"better": [], "worse": []}
        for benchmark, value in own.items():
            values = [of[benchmark] for of in others if benchmark in of]
            if len(values) >= _FEW:
                leads["better"].append(value - max(values))
                leads["worse"].append(min(values) - value)
        for side, of in leads.items():
            ahead = sum(lead > 0 for lead in of)
            if len(of) >= _MANY and 2 * ahead > len(of) and median(of) > scale:
                yield Finding(
                    where, "a model far off its siblings",
                    f"{side} than every other of {len(others) + 1} models on {ahead} of {len(of)} values, by {number(median(of) / scale, 1)} points "
                    "in the middle: is it the model that its name says?",
                )  # fmt: skip


def cells_in_doubt(where: str, table: Table) -> Iterator[Finding]:
    """Cells that stand twice with different values, and cells that are no number."""
    for arm, name, first, second in table.twice:
        yield Finding(where, "a cell with two values", f"{printable(name)} of {printable(arm)} stands twice, as {first} and as {second}")
    for arm, name, text in table.unread[:_SHOWN]:
        yield Finding(where, "left out", f"{printable(name)} of {printable(arm)}: {printable(cut(text, 60))!r} is no number")
    if len(table.unread) > _SHOWN:
        yield Finding(where, "left out", f"{len(table.unread) - _SHOWN:,} more cells are no numbers")


def swapped_rows(one: tuple[str, Table], other: tuple[str, Table]) -> Iterator[Finding]:
    """Two models of two tables, each with the other's row: the labels of one table look swapped."""
    (first, table), (second, against) = one, other
    for a, b in combinations([arm for arm in table.cells if arm in against.cells], 2):
        shared = [n for n in table.cells[a] if n in table.cells[b] and n in against.cells[a] and n in against.cells[b]]
        crossed = all(_alike(table.cells[x][n], against.cells[y][n]) for x, y in ((a, b), (b, a)) for n in shared)
        if len(shared) >= _FEW and crossed and not all(_alike(table.cells[a][n], table.cells[b][n]) for n in shared):
            yield Finding(
                f"{first} | {second}", "labels that look swapped",
                f"{printable(a)} and {printable(b)} have each other's values in the two tables, on all of {len(shared)} benchmarks",
            )  # fmt: skip


def _alike(one: Cell, other: Cell) -> bool:
    """Whether two printed numbers may be one number, rounded."""
    return abs(one.value - other.value) <= (one.unit + other.unit) / 2 + 1e-12


# -- samples -----------------------------------------------------------------------------------------------------------------------


def _alone(path: Path) -> tuple[list[str], list[Finding]]:
    """(Tasks of one log, what it shows by itself): contents that repeat, labels that look swapped, doubts of its reader, what it left out."""
    want = Want()
    source = open_log(path, want)
    found: list[Finding] = []
    if source.summaries is None:
        with Rows() as rows:
            arm = rows.add(path.name, path, source, want)
            tasks = [str(r[0]) for r in rows.con.execute(f"SELECT DISTINCT task FROM samples_{arm.number} ORDER BY task").fetchall()]
            found += _repeated(path.name, rows, arm.number)
            found += _failures(path.name, rows, arm.number)
            found += _swapped(path.name, rows, arm.number, source.facts)
    else:
        tasks = list(dict.fromkeys(one.task for one in source.summaries))
    found += [Finding(path.name, "labels that look swapped", printable(text)) for text in source.facts.mislabelled]
    for task, doubts in source.facts.doubts.items():
        found += [Finding(path.name, "predictions filled in", f"{printable(task)}: {printable(doubt)}") for doubt in doubts]
    return tasks, found + [Finding(path.name, "left out", printable(note)) for note in source.facts.notes]


def _swapped(where: str, rows: Rows, number_: int, facts: LogFacts) -> Iterator[Finding]:
    """Scores that say the opposite of what answers and targets say: 0 where they are the same, 1 where they are not."""
    found = rows.con.execute(
        "SELECT task, metric, count(*) FILTER (value = 1), count(*) FILTER (value = 1 AND same), count(*) FILTER (value = 0), "
        "count(*) FILTER (value = 0 AND same), bool_and(value IN (0, 1)) "
        "FROM (SELECT task, metric, value, lower(trim(coalesce(extracted, answer))) = lower(trim(target)) AS same "
        f"FROM joined_{number_} WHERE outcome = {CODE[Outcome.SCORED]} AND target <> '' AND coalesce(extracted, answer) <> '') "
        "GROUP BY task, metric ORDER BY task, metric"
    ).fetchall()
    for task, metric, right, right_same, wrong, wrong_same, binary in found:
        if not binary or facts.higher_is_better.get((task, metric)) is False or is_lower_better(metric):
            continue
        if min(right, wrong) >= _MANY and 2 * wrong_same > wrong and 2 * right_same < right:
            yield Finding(
                where, "labels that look swapped",
                f"{printable(task)}, {printable(metric)}: {wrong_same:,} of {wrong:,} answers scored 0 are their targets, and {right - right_same:,} of {right:,} scored 1 are not",
            )  # fmt: skip


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


def _together(first: Path, second: Path) -> Iterator[Finding]:
    """Two logs of the same tasks: what keeps them from being compared."""
    where = f"{first.name} | {second.name}"
    if find_reader(located(first)[0]).name != find_reader(located(second)[0]).name:
        return
    try:
        with diff_logs([ArmSource("first", first, None), ArmSource("second", second, "first")], Analysis(), Want()) as compared:
            said: dict[str, list[str]] = {}
            for entry in compared.ledger:
                for check in entry.checks:
                    if is_not_alike(check) and entry.task not in AVERAGES:
                        said.setdefault(check, []).append(entry.task)
    except InputError as error:
        yield Finding(where, "cannot be compared", str(error))
        return
    for check, tasks in said.items():
        names = list(dict.fromkeys(tasks))
        told = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        yield Finding(where, "not asked alike", f"{printable(told)}: {check}")
