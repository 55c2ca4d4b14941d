"""What a reader gives, and how the right reader is found: by looking at the file.

A reader is a function ``(path, want) -> LogSource`` with the ``reader`` decorator. Readers of other packages are
found through the entry-point group ``aligntax.readers`` (each entry point names a decorated function).
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from aligntax.core.errors import InputError, LogError
from aligntax.core.items import Value
from aligntax.core.words import printable
from aligntax.store.jsonio import json_rows, opened, shown

ENTRY_POINTS = "aligntax.readers"


@dataclass(frozen=True)
class Columns:
    """Names of a plain table's columns; None takes the usual name if it is there."""

    item: str | None = None
    score: str | None = None
    task: str | None = None
    trial: str | None = None
    answer: str | None = None
    outcome: str | None = None
    metric: str | None = None


@dataclass(frozen=True)
class Want:
    """What the comparison needs from a log: label columns, for plain tables the columns' names, and which model of a file that holds several."""

    cluster: str | None = None
    by: str | None = None
    columns: Columns = field(default_factory=Columns)
    part: str | None = None


@dataclass(slots=True)
class LogRow:
    """One sample of a log with its scores by metric.

    ``item`` is the source's id, ``content`` the hash of question, choices and target; at least one is needed.
    ``question``, ``target`` and ``answer`` are texts to show; ``prompt`` identifies the rendered prompt.
    """

    task: str
    item: str | None
    content: str | None
    scores: dict[str, Value]
    trial: int = 0
    question: str | None = None
    target: str | None = None
    answer: str | None = None
    prompt: str | None = None
    cluster: str | None = None
    by: str | None = None


@dataclass
class LogFacts:
    """What a log says about itself; readers may add to it while their rows are consumed.

    Attributes:
        higher_is_better: direction by (task, metric), where the log states it.
        groups: group name -> its tasks.
        labels: label columns seen (for the message when one is missing).
        auto_cluster: what the rows' clusters are when none was asked for ("cluster" of a table, "document" of
            list-valued metrics); None where rows carry none.
        settings: harness, version, shots, templates and the like, for provenance.
        notes: what was left out and why.
        doubts: by task, what makes its scores doubtful.
        guesses: by (task, metric), how many items offer how many options of which one is right.
        chosen: tasks answered by the likeliest of given choices: their answers are nobody's words.
        mislabelled: labels that contradict each other, for audits.
    """

    higher_is_better: dict[tuple[str, str], bool] = field(default_factory=dict)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    labels: set[str] = field(default_factory=set)
    auto_cluster: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    doubts: dict[str, list[str]] = field(default_factory=dict)
    mislabelled: list[str] = field(default_factory=list)
    guesses: dict[tuple[str, str], Counter[int]] = field(default_factory=dict)
    chosen: set[str] = field(default_factory=set)

    def guess(self, task: str, metric: str, options: int) -> None:
        """Count an item that offers so many options, one of them right."""
        self.guesses.setdefault((task, metric), Counter())[options] += 1

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True)
class Summary:
    """One number of a log without samples: the value of a metric on a task.

    ``se`` is its standard error and ``n`` its items, None where nobody says; ``sources``: from how many clusters the error was computed.
    """

    task: str
    metric: str
    value: float
    se: float | None = None
    n: int | None = None
    sources: int | None = None


@dataclass
class TableQuery:
    """A plain table that DuckDB reads by itself: ``relation`` is SQL after FROM, ``types`` its columns' SQL types."""

    relation: str
    types: dict[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.types)


@dataclass
class LogSource:
    """A log understood: an iterator of rows, a table for the database to read, or summaries where there are no samples; and facts about it."""

    reader: str
    rows: Iterator[LogRow] | None
    table: TableQuery | None = None
    facts: LogFacts = field(default_factory=LogFacts)
    summaries: list[Summary] | None = None


class Sighting:
    """A path being looked at: what readers decide by. Everything is read at most once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def is_dir(self) -> bool:
        return self.path.is_dir()

    @cached_property
    def head(self) -> bytes:
        """The first bytes of a file (empty for a folder)."""
        if self.is_dir:
            return b""
        try:
            if self.path.exists() and not self.path.is_file():
                raise LogError(
                    f"{shown(self.path)} is neither a file nor a folder (a pipe, say, which cannot be read twice); write it to a file first"
                )
            with self.path.open("rb") as raw:
                return raw.read(4096)
        except OSError as error:
            raise LogError(f"{shown(self.path)} cannot be read: {error.strerror}") from None

    @cached_property
    def zip_names(self) -> tuple[str, ...]:
        """Member names if it is a zip file."""
        # The head first: it refuses devices, which have no end to look for.
        if self.is_dir or not self.head or not zipfile.is_zipfile(self.path):
            return ()
        try:
            with zipfile.ZipFile(self.path) as archive:
                return tuple(archive.namelist())
        except zipfile.BadZipFile as error:
            raise LogError(f"{shown(self.path)} is a damaged zip file ({error}); fetch it again") from None

    @cached_property
    def looks_like_json(self) -> bool:
        return bool(self.zip_names) or self.head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{")

    @cached_property
    def first_object(self) -> dict[str, Any] | None:
        """The first JSON object of the file (or of its first JSON member); None if it is not JSON rows.

        Raises:
            LogError: if it starts like JSON rows and is not.
        """
        if self.is_dir or not self.looks_like_json:
            return None
        with opened(self.path) as streams:
            for where, stream in streams:
                for _, row in json_rows(stream, where):
                    return row
        return None


@dataclass(frozen=True)
class Reader:
    """A named reader: ``sniff`` says whether it understands what it sees, ``read`` reads it; ``parts``: its files hold several models."""

    name: str
    sniff: Callable[[Sighting], bool]
    read: Callable[[Path, Want], LogSource]
    parts: bool = False


def reader(name: str, sniff: Callable[[Sighting], bool], *, parts: bool = False) -> Callable[[Callable[[Path, Want], LogSource]], Reader]:
    """Make a reader of a function ``(path, want) -> LogSource``."""
    return lambda read: Reader(name, sniff, read, parts)


def located(path: Path) -> tuple[Path, str | None]:
    """(the file, which of its models): ``FILE#MODEL`` names one of several; a file may have a # in its own name."""
    text = str(path)
    if "#" not in text or path.exists():
        return path, None
    for at in (k for k, ch in enumerate(text) if ch == "#"):
        if Path(text[:at]).exists():
            return Path(text[:at]), text[at + 1 :]
    return path, None


def open_log(path: Path, want: Want) -> LogSource:
    """What a path holds, read by the reader that understands it.

    Raises:
        InputError: if the path does not exist, nothing understands it, or it names a model of a file that holds one.
    """
    file, part = located(path)
    found = find_reader(file, plain=want.columns != Columns())
    if part is not None and not found.parts:
        raise InputError(f"{shown(file)} holds one model ({found.name}); leave #{printable(part)} out")
    return found.read(file, replace(want, part=part))


def builtin_readers() -> tuple[Reader, ...]:
    from aligntax.store.readers.alpaca_eval import alpaca_eval
    from aligntax.store.readers.inspect_ai import inspect_log
    from aligntax.store.readers.lm_eval import lm_eval
    from aligntax.store.readers.mmlu_pro import mmlu_pro
    from aligntax.store.readers.serving import guidellm, vllm_bench
    from aligntax.store.readers.solutions import solutions
    from aligntax.store.readers.table import table
    from aligntax.store.readers.tables_of_results import long_table, markdown_tables, wide_table
    from aligntax.store.readers.xstest import xstest

    # The plain table takes whatever is left.
    return (
        inspect_log, lm_eval, mmlu_pro, alpaca_eval, solutions, xstest, vllm_bench, guidellm, markdown_tables, long_table, wide_table, table,
    )  # fmt: skip


def plugin_readers() -> tuple[Reader, ...]:
    """Readers that other packages offer.

    Raises:
        InputError: if an entry point names something that is not a reader.
    """
    from importlib.metadata import entry_points

    found = []
    for point in entry_points(group=ENTRY_POINTS):
        loaded = point.load()
        if not isinstance(loaded, Reader):
            raise InputError(f"entry point {point.value!r} of {ENTRY_POINTS} is a {type(loaded).__name__}, not a reader")
        found.append(loaded)
    return tuple(found)


def _is_plain(seen: Sighting) -> bool:
    """Whether the first line names the columns of a plain table, whatever else it names."""
    if seen.is_dir or seen.zip_names or seen.path.suffix.lower() not in (".csv", ".tsv", ".txt"):
        return False
    names = {name.strip().strip('"').lower() for name in re.split(r"[,;|\t]", seen.head.decode("utf-8-sig", "replace").split("\n", 1)[0])}
    return "score" in names and bool(names & {"item", "question"})


def find_reader(path: Path, *, plain: bool = False) -> Reader:
    """The first reader that understands ``path``: plug-ins before the readers that come with aligntax.

    A file whose columns are named by a person (``plain``), or are those of a plain table, is one.

    Raises:
        InputError: if the path does not exist, or nothing understands it.
    """
    if not path.exists():
        raise InputError(f"{shown(path)} does not exist; give a log file or a folder of logs")
    seen = Sighting(path)
    if not seen.is_dir and not seen.head:
        raise LogError(f"{shown(path)} is empty; an evaluation log was expected")
    from aligntax.store.readers.table import table

    plain = plain or _is_plain(seen)
    for candidate in (*plugin_readers(), *([table] if plain else []), *builtin_readers()):
        if candidate.sniff(seen):
            return candidate
    raise LogError(f"{shown(path)} is no log that aligntax understands{_what(seen)}; known formats: {known_formats()}")


def known_formats() -> str:
    return (
        "lm-eval folders and samples_*.jsonl, Inspect logs (.eval, .json), AlpacaEval annotations, XSTest labels, solutions of several models, MMLU-Pro outputs (zip, JSON, JSON lines), "
        "tables (CSV, TSV, JSON lines, Parquet) with columns item and score; and without samples lm-eval results and printed tables, "
        "published tables and leaderboards (CSV), vLLM and GuideLLM benchmarks"
    )


def _what(seen: Sighting) -> str:
    if seen.is_dir:
        names = sorted(p.name for p in seen.path.iterdir())
        return (
            f" (a folder of {len(names)}: {printable(', '.join(names[:3]))}{', ...' if len(names) > 3 else ''})"
            if names
            else " (an empty folder)"
        )
    if seen.first_object is not None:
        return f" (JSON rows with keys {printable(', '.join(list(seen.first_object)[:8]))})"
    return ""
