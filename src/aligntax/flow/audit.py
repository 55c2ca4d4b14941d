"""The verb ``audit``: what makes numbers unsound before anybody compares them.

Tables are held against themselves (averages, rows that are another model's, cells far off), samples against their texts and their siblings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import sqrt
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

_CUT = 1.1
"""Units of the last digit by which an average is off that was cut off instead of rounded, as those of many digits often are."""
_MISSING = tuple(CODE[outcome] for outcome in OUTCOMES if outcome in MISSING)
_FEW = 3  # cells below which a row says too little to be recognised
_MANY = 10  # benchmarks, or answers, from which what most of them say is no accident
_FAR, _LARGE = 6.0, 10.0  # robust standard deviations, and points, of a cell that is far off its siblings
_ROWS = 600  # rows among which every pair is compared; beyond that only rows that are the same number by number
_SHOWN = 5
QUESTIONS = frozenset({"left out", "a model far off its siblings: is it what its name says?"})
"""Findings that may well be sound: no reason to fail."""


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
    found: list[Finding] = []
    files = [file for path in paths for file in _opened(path, found)]
    names = _names(files)
    tables: list[tuple[str, Table]] = []
    logs: list[Path] = []
    single: dict[str, dict[str, float]] = {}
    for file in files:
        of = tables_of(located(file)[0])
        if of is None:
            logs.append(file)
            continue
        tables += [(names[file], one) for one in of]
        if file.is_file() and find_reader(file).name == "lm-eval-table":
            try:
                summaries = open_log(file, Want()).summaries or ()
            except InputError as error:  # tables that contradict each other, such as of two numbers of shots
                found.append(Finding(names[file], "cannot be compared", str(error)))
                continue
            single[names[file]] = {f"{one.task}, {one.metric}": one.value for one in summaries}
    for name, table in tables:
        found += [*averages(name, table), *far_cells(name, table), *cells_in_doubt(name, table)]
    found += identical_rows([*tables, *((name, _of_one(name, values)) for name, values in single.items())])
    for one, other in combinations(tables, 2):
        found += swapped_rows(one, other)
    found += far_models(single)
    first_of: dict[str, Path] = {}
    for log in logs:
        tasks, alone = _alone(log, names[log])
        found += alone
        for first in dict.fromkeys(first_of[task] for task in tasks if task in first_of):
            found += _together(first, log, f"{names[first]} | {names[log]}")
        for task in tasks:
            first_of.setdefault(task, log)
    return found


def _opened(path: Path, found: list[Finding]) -> list[Path]:
    """The files of a folder of tables; any other path as it is, with the model it names. What lies beside logs and cannot be read goes to ``found``.

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
    of_tables = []
    for inside in sorted(p for p in file.iterdir() if p.is_file() and p.suffix.lower() in (".md", ".csv")):
        try:
            if tables_of(inside) is not None:
                of_tables.append(inside)
        except InputError as error:  # a README, say
            found.append(Finding(inside.name, "left out", str(error)))
    try:
        find_reader(file)
    except InputError:  # no folder of logs
        if of_tables:
            return of_tables
        raise
    return [*of_tables, file]


def _names(files: Sequence[Path]) -> dict[Path, str]:
    """What tells files apart in a finding: the shortest ends of their paths that differ."""
    parts = {file: located(file)[0].parts for file in files}
    length = dict.fromkeys(files, 1)

    def name(file: Path) -> str:
        part = located(file)[1]
        return "/".join(parts[file][-length[file] :]) + ("" if part is None else f"#{part}")

    while True:
        alike = Counter(map(name, files))
        longer = [file for file in files if alike[name(file)] > 1 and length[file] < len(parts[file])]
        if not longer:
            return {file: name(file) for file in files}
        for file in longer:
            length[file] += 1


def _of_one(name: str, values: Mapping[str, float]) -> Table:
    return Table({name: {key: Cell(f"{value:.12g}", f"{value:.12g}") for key, value in values.items()}})


# -- tables ----------------------------------------------------------------------------------------------------------------------


def averages(where: str, table: Table) -> Iterator[Finding]:
    """Averages that no plausible reading of their cells yields, or that are not of the same cells as their siblings'."""
    for name in table.averages:
        yield from _unequal(where, table, name)
        for arm, printed in table.averages_of(name).items():
            cells = table.cells[arm]
            if len(cells) < _FEW:
                continue  # nothing to hold it against: its cells are not here
            means = list(_means(table, arm, name))
            if not any(abs(printed.value - mean) <= slack + 1e-9 for mean, slack in ((m, _slack(printed, of)) for m, of in means)):
                yield Finding(
                    where, "average is not the mean of its cells",
                    f"{printable(name)} of {printable(arm)} is printed as {printed.text}; its {len(cells)} cells here average {number(means[0][0], 2)}",
                )  # fmt: skip


def _means(table: Table, arm: str, name: str) -> Iterator[tuple[float, Sequence[Cell]]]:
    """Every mean that a printed average may be, with its cells: of all of them; of those in one stretch before or after it; of the other
    averages; with what is better if less taken from the top of its scale; in per cent or as a fraction.
    """
    others = [cell for other, cell in table.printed.get(arm, {}).items() if other != name]
    for cells in (table.cells[arm], *table.alternatives(arm), {f"average {i}": cell for i, cell in enumerate(others)}):
        values = [cell.value for cell in cells.values()]
        if len(values) < 2:
            continue
        factor = 100.0 if max(values) <= 1 else 0.01
        rescaled = [Cell(c.text, f"{factor * c.value:.12g}") for c in cells.values()]
        turned = [_top(x) - x if (arm, key) in table.inverted else x for key, x in zip(cells, values, strict=True)]
        mixed = [100 * x if abs(x) <= 1 < max(values) else x for x in values]
        for of in (values, turned, mixed):
            mean = sum(of) / len(of)
            yield mean, list(cells.values())
            yield factor * mean, rescaled


def _top(value: float) -> float:
    return 1.0 if abs(value) <= 1 else 100.0


def _slack(printed: Cell, cells: Sequence[Cell]) -> float:
    """How far rounding alone takes an average from its printed cells: half a digit of its own, and of the cells' mean at most half a digit, or four
    standard deviations of as many independent roundings.
    """
    units = sum(cell.unit for cell in cells) / len(cells)
    slack = printed.unit / 2 + min(units / 2, 4 * units / sqrt(12 * len(cells)))
    many = printed.unit < (0.02 if abs(printed.value) > 1 else 0.0002)
    return max(slack, _CUT * printed.unit) if many else slack


def _unequal(where: str, table: Table, name: str) -> Iterator[Finding]:
    """Within one model, whose stages are what somebody compares; models of other papers have tasks of their own."""
    families: dict[str, dict[str, frozenset[str]]] = {}
    for arm, cells in table.cells.items():
        if name in table.printed.get(arm, {}):
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
    """Rows that are another model's: number by number, or, among not too many, as far as their printed digits and common benchmarks go."""
    rows = [(where, arm, cells) for where, table in tables for arm, cells in table.cells.items() if len(cells) >= _FEW]
    seen: dict[tuple[tuple[str, float], ...], list[int]] = {}
    for i, (_, _, cells) in enumerate(rows):
        seen.setdefault(tuple(sorted((name, cell.value) for name, cell in cells.items())), []).append(i)
    groups = [of for of in seen.values() if len({rows[i][1] for i in of}) > 1]  # the same model in two tables is no copy
    if len(rows) <= _ROWS:
        firsts = [of[0] for of in seen.values()]
        groups += [[i, j] for i, j in combinations(firsts, 2) if rows[i][1] != rows[j][1] and _same_row(rows[i][2], rows[j][2])]
    for of in groups:
        names = list(
            dict.fromkeys(f"{rows[i][1]} ({rows[i][0]})" if len(tables) > 1 and rows[i][1] != rows[i][0] else rows[i][1] for i in of)
        )
        yield Finding(
            rows[of[0]][0], "rows identical to the last digit",
            f"{printable(', '.join(names[:4]))}{f' and {len(names) - 4} more' if len(names) > 4 else ''}: is one of them another model's row?",
        )  # fmt: skip


def _same_row(one: Mapping[str, Cell], other: Mapping[str, Cell]) -> bool:
    """Whether two rows agree on every benchmark that both have, four at least, and these are most of the shorter one's."""
    shared = [name for name in one if name in other]
    return len(shared) > max(_FEW, min(len(one), len(other)) / 2) and all(_alike(one[n], other[n]) for n in shared)


def far_cells(where: str, table: Table) -> Iterator[Finding]:
    """Changes from a stage to the next that are far off the changes of its other benchmarks, all in points; scores beyond 100 are of no common scale."""
    for parent, child in table.edges:
        before, after = table.cells.get(parent, {}), table.cells.get(child, {})
        changes = {
            name: (after[name].value - before[name].value) * (100 if max(abs(after[name].value), abs(before[name].value)) <= 1 else 1)
            for name in after
            if name in before and max(abs(after[name].value), abs(before[name].value)) <= 100
        }
        if len(changes) < 2 * _FEW:
            continue
        centre = median(changes.values())
        spread = 1.4826 * median(abs(c - centre) for c in changes.values())  # of a normal law, its standard deviation
        for name, change in changes.items():
            if abs(change - centre) > max(_LARGE, _FAR * spread):
                yield Finding(
                    where, "a cell far off its siblings",
                    f"{printable(name)} moves by {number(change, 2)} from {printable(parent)} to {printable(child)} ({before[name].text} to {after[name].text}), "
                    f"where the others move by {number(centre, 2)} in the middle",
                )  # fmt: skip


def far_models(models: Mapping[str, Mapping[str, float]]) -> Iterator[Finding]:
    """Of files of one model each (its values, by task and metric): one that is better than every other on most, by more than a point in the middle.

    A question, since a larger model is. One that is worse than all is left alone: the base of several aligned models often is.
    """
    for where, own in models.items():
        others = [of for other, of in models.items() if other != where]
        leads = []
        for benchmark, value in own.items():
            values = [of[benchmark] for of in others if benchmark in of]
            if len(values) < _FEW or abs(value) > 100:
                continue
            less = is_lower_better(benchmark.rpartition(", ")[2])
            lead = min(values) - value if less else value - max(values)
            leads.append(lead * (100 if max(map(abs, (*values, value))) <= 1 else 1))
        ahead = sum(lead > 0 for lead in leads)
        if len(leads) >= _MANY and 2 * ahead > len(leads) and median(leads) > 1:
            yield Finding(
                where, "a model far off its siblings: is it what its name says?",
                f"better than every other of {len(others) + 1} models on {ahead} of {len(leads)} values, by {number(median(leads), 1)} points in the middle",
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
    moved = [a for a in table.cells if a in against.cells and not _same_cells(table.cells[a], against.cells[a])]
    places: dict[tuple[str, int], list[str]] = {}
    for arm in moved:
        for name, cell in against.cells[arm].items():
            places.setdefault((name, round(cell.value)), []).append(arm)
    order = {arm: i for i, arm in enumerate(moved)}
    for a in moved:
        name, cell = next(iter(table.cells[a].items()), ("", Cell("0", "0")))
        near = {
            b for place in range(round(cell.value) - 1, round(cell.value) + 2) for b in places.get((name, place), ()) if order[b] > order[a]
        }
        for b in sorted(near, key=order.__getitem__):
            shared = [n for n in table.cells[a] if n in table.cells[b] and n in against.cells[a] and n in against.cells[b]]
            crossed = all(_alike(table.cells[x][n], against.cells[y][n]) for x, y in ((a, b), (b, a)) for n in shared)
            if len(shared) >= _FEW and crossed and not all(_alike(table.cells[a][n], table.cells[b][n]) for n in shared):
                yield Finding(
                    f"{first} | {second}", "labels that look swapped",
                    f"{printable(a)} and {printable(b)} have each other's values in the two tables, on all of {len(shared)} benchmarks",
                )  # fmt: skip


def _same_cells(one: Mapping[str, Cell], other: Mapping[str, Cell]) -> bool:
    return all(_alike(cell, other[name]) for name, cell in one.items() if name in other)


def _alike(one: Cell, other: Cell) -> bool:
    """Whether two printed numbers may be one number, rounded."""
    return abs(one.value - other.value) <= (one.unit + other.unit) / 2 + 1e-12


# -- samples -----------------------------------------------------------------------------------------------------------------------


def _alone(path: Path, where: str) -> tuple[list[str], list[Finding]]:
    """(Tasks of one log, what it shows by itself): contents that repeat, labels that look swapped, doubts of its reader, what it left out."""
    want = Want()
    source = open_log(path, want)
    found: list[Finding] = []
    if source.summaries is None:
        with Rows() as rows:
            arm = rows.add(where, path, source, want)
            tasks = [str(r[0]) for r in rows.con.execute(f"SELECT DISTINCT task FROM samples_{arm.number} ORDER BY task").fetchall()]
            found += _repeated(where, rows, arm.number)
            found += _failures(where, rows, arm.number)
            found += _swapped(where, rows, arm.number, source.facts)
    else:
        tasks = list(dict.fromkeys(one.task for one in source.summaries))
    found += [Finding(where, "labels that look swapped", printable(text)) for text in source.facts.mislabelled]
    for task, doubts in source.facts.doubts.items():
        found += [Finding(where, "predictions filled in", f"{printable(task)}: {printable(doubt)}") for doubt in doubts]
    return tasks, found + [Finding(where, "left out", printable(note)) for note in source.facts.notes]


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


def _together(first: Path, second: Path, where: str) -> Iterator[Finding]:
    """Two logs of the same tasks: what keeps them from being compared."""
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
