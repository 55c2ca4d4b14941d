"""Results without samples: lm-eval's markdown tables, published tables (long), leaderboard dumps (wide).

What holds several models is asked for one of them: ``FILE#MODEL``, or ``FILE#MODEL/STAGE``.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from aligntax.core.errors import LogError
from aligntax.core.words import cut, printable
from aligntax.store.jsonio import MAX_ROW_CHARS, opened, shown
from aligntax.store.logs import LogFacts, LogSource, Sighting, Summary, Want, reader

METRIC = "points"
_BENCHMARK = ("benchmark", "task")
_ARM = ("model", "start_model", "method", "size", "stage")
_CONDITION = ("prompt",)
_AVERAGES = re.compile(r"(?i)^(mean|overall)\b|_avg$|\b(avg|average)\b")
# Columns of leaderboards that measure nothing.
_NOT_MEASURED = re.compile(
    r"(?i)\bparams?\b|\bparameters\b|^url$|^type$|licen[cs]e|\bdate\b|^rank$|\blikes?\b|^kind$|\bhub\b|co2|co₂|\bcost\b|^generation$|^precision$|^context\b|^architecture$|"
    r"^flagged$|^merged$|^size$|\brevision\b"
)
_CELL = re.compile(
    r"(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,2})?)\s*%?(?:\s*(?:±|\+/-|\+-)\s*(?P<error>\d*\.?\d+)\s*%?)?(?:\s*[(\[][^()\[\]]*[)\]])?"
)
_NOTHING = frozenset(["", "-", "–", "—", "n/a", "na", "nan", "none", "null", "tbd", "?"])
_TABLE_HEAD = re.compile(r"^(?=[^\n]*\|[ \t]*Metric[ \t]*\|)(?=[^\n]*\|[ \t]*Value[ \t]*\|)[ \t]*\|[ \t]*(Tasks?|Groups?)[ \t]*\|", re.M)


def is_average(name: str) -> bool:
    """Whether a column or benchmark is an average of others."""
    return _AVERAGES.search(name.strip()) is not None


# -- lm-eval's tables in markdown ---------------------------------------------------------------------------------------------------


def _sniff_markdown(seen: Sighting) -> bool:
    if seen.is_dir or seen.zip_names or seen.path.suffix.lower() not in (".md", ".markdown", ".txt"):
        return False
    return _TABLE_HEAD.search(_read(seen.path)) is not None


@reader("lm-eval-table", _sniff_markdown)
def markdown_tables(path: Path, want: Want) -> LogSource:
    """Every row of every table as lm-eval prints them (Tasks, Metric, Value, Stderr); averages in the text are left out."""
    del want
    facts = LogFacts(settings={"harness": "lm-eval, its printed tables"})
    found: dict[tuple[str, str], Summary] = {}
    for number, one in _markdown_rows(_read(path)):
        known = found.setdefault((one.task, one.metric), one)
        if known != one:
            raise LogError(
                f"{shown(path)}, line {number}: {printable(one.task)}, {printable(one.metric)} stands twice, with {known.value:g} and {one.value:g}"
            )
    if not found:
        raise LogError(f"{shown(path)} has no row of results in its tables")
    return LogSource("lm-eval-table", None, facts=facts, summaries=list(found.values()))


def _markdown_rows(text: str) -> Iterator[tuple[int, Summary]]:
    columns: list[str] = []
    task = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip().startswith("|"):
            columns = []
            continue
        text_ = line.strip().removesuffix("```").strip()
        for part in [text_] if not columns else _rows_of(text_, len(columns)):
            cells = [cell.strip() for cell in part.removeprefix("|").removesuffix("|").split("|")]
            if not columns:
                columns, task = [cell.lower() for cell in cells], ""
                continue
            if all(set(cell) <= set("-: ") for cell in cells):
                continue
            if len(cells) != len(columns):
                task = ""  # whose the next row without a name is cannot be known
                continue
            row = dict(zip(columns, cells, strict=True))
            task = row.get("tasks") or row.get("task") or row.get("groups") or task
            name, value = row.get("metric", ""), row.get("value", "")
            if not (task and name and _number(value) is not None):
                continue
            filter_ = row.get("filter")
            metric = f"{name},{filter_}" if filter_ else name
            yield number, Summary(task.lstrip("- "), metric, float(value), _number(row.get("stderr", "")))


def _rows_of(line: str, columns: int) -> list[str]:
    """The rows of a line: some files have lost line ends between them, so that a row's last bar stands beside the next one's first."""
    cells = line.removeprefix("|").removesuffix("|").split("|")
    if len(cells) <= columns or (len(cells) + 1) % (columns + 1):
        return [line]
    return ["|".join(cells[at : at + columns]) for at in range(0, len(cells), columns + 1)]


def _number(text: str) -> float | None:
    if len(text) > 40:
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if abs(found) < float("inf") else None


def _printed(text: str) -> Cell | None:
    """A cell of a published table: a number, perhaps with %, with an error after ± or with something in brackets; None if it is no number."""
    found = _CELL.fullmatch(text.strip().replace("−", "-")) if len(text) <= 60 else None
    if found is None or _number(found["number"]) is None:
        return None
    return Cell(text.strip(), found["number"], None if found["error"] is None else _number(found["error"]))


def _unread(text: str) -> bool:
    """Whether a cell says something that is no number and no sign for "nothing here"."""
    return text.strip().lower() not in _NOTHING and _printed(text) is None


# -- tables of many models ------------------------------------------------------------------------------------------------------------


def _columns(seen: Sighting) -> list[str]:
    if seen.is_dir or seen.zip_names or seen.path.suffix.lower() != ".csv":
        return []
    first = seen.head.decode("utf-8-sig", "replace").split("\n", 1)[0].strip()
    try:
        return [name.strip() for name in next(csv.reader([first]), [])]
    except csv.Error:
        return []


def _is_long(columns: Sequence[str]) -> bool:
    ours = "value" in columns and any(c in columns for c in _BENCHMARK) and any(c in columns for c in _ARM)
    return ours and not {"item", "score", "id", "question"} & set(columns)


def _is_wide(columns: Sequence[str]) -> bool:
    lowered = [c.lower() for c in columns]
    others = [c for c in lowered if not _NOT_MEASURED.search(c) and c not in _ARM]
    return bool(lowered) and lowered[0] in _ARM and len(others) >= 2 and not {"item", "score", "value"} & set(lowered)


def _table(path: Path) -> list[dict[str, str]]:
    lines = csv.DictReader(io.StringIO(_read(path), newline=""), strict=True)
    try:
        return [
            {(key or "").strip(): (value or "").strip() for key, value in row.items() if isinstance(value, str | None)} for row in lines
        ]
    except csv.Error as error:
        raise LogError(f"{shown(path)} is no CSV that can be read ({printable(str(error))})") from None


def _named(row: Mapping[str, str]) -> str:
    """The arm of a row: its model and what else tells arms apart."""
    lowered = {key.lower(): value for key, value in row.items()}
    return "/".join(lowered[c] for c in _ARM if lowered.get(c))


def _chosen(path: Path, rows: Sequence[dict[str, str]], part: str | None) -> list[dict[str, str]]:
    names = list(dict.fromkeys(map(_named, rows)))
    if part is None or part not in names:
        said = "holds several models: name one" if part is None else f"has no {printable(part)!r}: name one"
        raise LogError(f"{shown(path)} {said} as {shown(path.name)}#NAME; there are: {cut(printable(', '.join(names)), 600)}")
    return [row for row in rows if _named(row) == part]


@reader("published-table", lambda seen: _is_long(_columns(seen)), parts=True)
def long_table(path: Path, want: Want) -> LogSource:
    """One arm of a table with a row per model, stage and benchmark; averages are left out, they are of others."""
    facts = LogFacts(settings={"harness": "published table", "model": want.part})
    found: dict[str, Summary] = {}
    for row in _chosen(path, _table(path), want.part):
        name = "/".join(row[c] for c in (*_BENCHMARK, *_CONDITION) if row.get(c))
        cell = _printed(row.get("value", ""))
        if cell is None or is_average(name):
            if cell is not None:
                facts.note(f"{name} is left out: an average of other rows")
            elif _unread(row.get("value", "")):
                facts.note(f"{name} is left out: {cut(row['value'], 60)!r} is no number")
            continue
        if name in found and found[name].value != cell.value:
            raise LogError(
                f"{shown(path)}: {printable(name)} of {printable(str(want.part))} stands twice, with {found[name].value:g} and {cell.value:g}"
            )
        found[name] = Summary(name, METRIC, cell.value, cell.error)
        told = row.get("higher_is_better", "")
        if told in ("0", "1", "true", "false", "True", "False"):
            facts.higher_is_better[name, METRIC] = told in ("1", "true", "True")
        if row.get("source"):
            facts.settings.setdefault("source", row["source"])
    if not found:
        raise LogError(f"{shown(path)} has no number of {printable(str(want.part))} that is no average")
    return LogSource("published-table", None, facts=facts, summaries=list(found.values()))


@reader("leaderboard", lambda seen: _is_wide(_columns(seen)), parts=True)
def wide_table(path: Path, want: Want) -> LogSource:
    """One row of a leaderboard: every column of numbers is a benchmark, averages are left out."""
    name, _, which = (want.part or "").rpartition("~")
    table = _table(path)
    literal = any(_named(row) == want.part for row in table)
    numbered = bool(name) and not literal and which.isdecimal() and len(which) < 9 and int(which) > 0
    rows = _chosen(path, table, name if numbered else want.part)
    if numbered:
        rows = rows[int(which) - 1 : int(which)]
    if not rows or any(row != rows[0] for row in rows):
        few = f"{len(rows)} different rows" if rows else f"no row {which}"
        raise LogError(f"{shown(path)} has {few} of that name; number one, as {shown(path.name)}#NAME~1")
    facts = LogFacts(settings={"harness": "leaderboard", "model": want.part})
    found = []
    for name, text in rows[0].items():
        cell = _printed(text)
        if _NOT_MEASURED.search(name) or name.lower() in _ARM:
            continue
        if cell is None:
            if _unread(text) and any(_printed(row.get(name, "")) for row in table):
                facts.note(f"{name} is left out: {cut(text, 60)!r} is no number")
            continue
        if is_average(name):
            facts.note(f"{name} is left out: an average of other columns")
            continue
        found.append(Summary(name, METRIC, cell.value, cell.error))
    if not found:
        raise LogError(f"{shown(path)} has no numbers of {printable(str(want.part))}")
    return LogSource("leaderboard", None, facts=facts, summaries=found)


def _read(path: Path) -> str:
    with opened(path) as streams:
        for where, stream in streams:
            text = stream.read(MAX_ROW_CHARS + 1)
            if len(text) > MAX_ROW_CHARS:
                raise LogError(f"{where} is larger than {MAX_ROW_CHARS // 2**20} MiB, which no table of results is")
            return text
    return ""


# -- whole tables, for audits ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """A number as it is printed; ``unit``: one of its last digit.

    Attributes:
        text: the whole cell.
        number: the number in it.
        error: the error printed after it.
    """

    text: str
    number: str
    error: float | None = None

    @property
    def value(self) -> float:
        return float(self.number)

    @property
    def unit(self) -> float:
        mantissa, _, exponent = self.number.lower().partition("e")
        return float(f"1e{int(exponent or 0) - len(mantissa.partition('.')[2])}")


@dataclass
class Table:
    """Every model of a table: its cells by benchmark, its printed averages by name, and which stage was made from which.

    Attributes:
        cells: by model and benchmark.
        printed: printed averages, by model and name.
        edges: (parent, child) of stages.
        family: the model behind a stage, where a table has several.
        other_means: by model, further sets of cells of which a printed average may be the mean (lm-eval's tables have several metrics per task).
        inverted: (model, benchmark) of cells of which less is better.
        twice: (model, benchmark, both texts) of cells that stand twice and differ.
        unread: (model, benchmark, text) of cells that say something and are no number.
    """

    cells: dict[str, dict[str, Cell]] = field(default_factory=dict)
    printed: dict[str, dict[str, Cell]] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    family: dict[str, str] = field(default_factory=dict)
    other_means: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)
    inverted: set[tuple[str, str]] = field(default_factory=set)
    twice: list[tuple[str, str, str, str]] = field(default_factory=list)
    unread: list[tuple[str, str, str]] = field(default_factory=list)

    @property
    def averages(self) -> list[str]:
        return list(dict.fromkeys(name for of in self.printed.values() for name in of))

    def averages_of(self, name: str) -> dict[str, Cell]:
        """The printed averages of one name, by model."""
        return {arm: of[name] for arm, of in self.printed.items() if name in of}

    def alternatives(self, arm: str) -> list[dict[str, Cell]]:
        return [cells for cells in self.other_means.get(arm, []) if cells]


def tables_of(path: Path) -> list[Table] | None:
    """The tables of a file with all their models; None if it is another sort of log."""
    seen = Sighting(path)
    if seen.is_dir or not seen.head:
        return None
    columns = _columns(seen)
    if _is_long(columns):
        return [_whole_long(_table(path))]
    if _is_wide(columns):
        return [_whole_wide(_table(path))]
    return _whole_markdown(_read(path)) if _sniff_markdown(seen) else None


def _whole_long(rows: Sequence[dict[str, str]]) -> Table:
    table = Table()
    edges: dict[tuple[str, str], None] = {}
    order: dict[str, list[str]] = {}
    for row in rows:
        arm, name = _named(row), "/".join(row[c] for c in (*_BENCHMARK, *_CONDITION) if row.get(c))
        text = row.get("value", "")
        cell = _printed(text)
        if cell is None:
            if _unread(text):
                table.unread.append((arm, name, text))
            continue
        table.cells.setdefault(arm, {})
        table.family[arm] = row.get("model", "")
        into = table.printed.setdefault(arm, {}) if is_average(name) else table.cells[arm]
        order.setdefault(arm, []).append(name)
        if name in into and into[name].value != cell.value:
            table.twice.append((arm, name, into[name].text, cell.text))
        into[name] = cell
        parent = row.get("parent_stage")
        if parent:
            edges[_named({**row, "stage": parent}), arm] = None
        if row.get("higher_is_better", "") in ("0", "false", "False"):
            table.inverted.add((arm, name))
    table.edges = list(edges)
    for arm, names in order.items():
        every = {**table.cells.get(arm, {}), **table.printed.get(arm, {})}
        table.other_means[arm] = _stretches(list(dict.fromkeys(names)), every)
    return table


def _stretches(order: Sequence[str], cells: Mapping[str, Cell]) -> list[dict[str, Cell]]:
    """The cells of which an average that stands among them may be the mean: from the row's start or another average to it, or from it on."""
    ends = [at for at, name in enumerate(order) if is_average(name)]
    before = [order[start:at] for at in ends for start in (0, *(end + 1 for end in ends if end < at))]
    after = [order[at + 1 : end] for at in ends for end in (*(end for end in ends if end > at), len(order))]
    return [{name: cells[name] for name in some if not is_average(name)} for some in (*before, *after)]


def _whole_wide(rows: Sequence[dict[str, str]]) -> Table:
    table = Table()
    seen: Counter[str] = Counter()
    said: list[tuple[str, str, str]] = []
    for row in rows:
        arm = _named(row)
        seen[arm] += 1
        name = arm if seen[arm] == 1 else f"{arm}~{seen[arm]}"
        measured = {k: v for k, v in row.items() if not _NOT_MEASURED.search(k) and k.lower() not in _ARM}
        numbers = {k: cell for k, v in measured.items() if (cell := _printed(v)) is not None}
        said += [(name, k, v) for k, v in measured.items() if _unread(v)]
        table.cells[name] = {k: cell for k, cell in numbers.items() if not is_average(k)}
        table.printed[name] = {k: cell for k, cell in numbers.items() if is_average(k)}
        table.other_means[name] = _stretches(list(numbers), numbers)
    benchmarks = {k for of in (*table.cells.values(), *table.printed.values()) for k in of}
    table.unread = [one for one in said if one[1] in benchmarks]  # a column without any number is no benchmark
    return table


def _percent(value: float) -> Cell:
    text = f"{100 * value:.2f}"
    return Cell(text, text)


def _whole_markdown(text: str) -> list[Table]:
    """A table per section, in percent, with the average that is printed under it."""
    found: list[Table] = []
    for section in re.split(r"(?m)^(?=\S[^|\n]*:\s*$)", text):
        rows = [one for _, one in _markdown_rows(section)]
        told = re.search(r"(?mi)^[ \t]*average:[ \t]*(\d+(?:\.\d+)?)[ \t]*$", section)
        if not rows or told is None:
            continue
        title = section.split(":", 1)[0].strip()[:60] or "table"
        by_metric: dict[str, dict[str, Cell]] = {}
        for one in rows:
            by_metric.setdefault(one.metric.partition(",")[0], {})[one.task] = _percent(one.value)
        best = {task: cell for metric in ("acc", "acc_norm") for task, cell in by_metric.get(metric, {}).items()}
        table = Table({title: best or next(iter(by_metric.values()))}, {title: {"Average": Cell(told[1], told[1])}})
        table.other_means[title] = list(by_metric.values())
        found.append(table)
    return found
