"""Pairs of texts that an ensemble rates: read from a table, checked, hashed, and compared between categories before any model sees them.

The shipped set and how it was written: docs/stimuli.md.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from math import inf, sqrt
from pathlib import Path

import numpy as np

from aligntax.core.errors import InputError, LogError
from aligntax.core.ids import digest
from aligntax.core.words import cut, items_text, number, printable
from aligntax.store.columns import Texts, read_columns
from aligntax.store.jsonio import shown

STANDARD = "pairs-1.csv"
"""The shipped set. Its texts never change: other texts are another file, with the next number."""
CONTESTED = ("cross_cultural", "erasure_sensitive", "epistemic_clash")
NEEDED = ("pair", "category", "text_a", "text_b")
MAX_TEXT, MAX_NAME = 4_000, 200
FEWEST_WORDS, MOST_WORDS, MOST_DIFFERENCE = 12, 40, 0.30
NOTABLE = 0.2
"""|d| from which a difference between categories is marked; Cohen's (1988, section 2.2) small effect."""

MEASURES = {
    "words": "words per text",
    "length_difference": "length difference",
    "overlap": "lexical overlap",
    "negations": "negations per pair",
    "word_length": "letters per word",
    "reference": "reference",
    "rating": "mean rating",
}
"""What categories are compared on: name -> what it is called."""
_DECIMALS = {"words": 1, "negations": 2, "word_length": 2}  # others: 3

_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_NEGATIONS = frozenset({"no", "not", "never", "none", "nothing", "nobody", "nowhere", "neither", "nor", "without", "cannot"})
_CONTROL = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_JOINERS = "\u200c\u200d"  # formats that spelling needs, in Persian or Hindi


@dataclass(frozen=True)
class Pair:
    """Two texts whose likeness in meaning is rated.

    Attributes:
        name: of the pair, one of its kind in a set.
        category: the cell of the design.
        topic: shared by pairs that were written to be compared with one another; None where there is none.
        a, b: the texts, each one line.
        reference: the rating expected, in [0, 1]: of people, or a target set by whoever wrote the pair; None where nobody can say.
    """

    name: str
    category: str
    topic: str | None
    a: str
    b: str
    reference: float | None


@dataclass(frozen=True)
class PairSet:
    """A set of pairs; ``pair_set`` makes one of pairs at hand.

    Attributes:
        pairs: in the order of the table.
        source: file name.
        identity: sha256 (hex) over names, categories, topics, texts and references, sorted by name: the order of the rows does not matter, every character does.
    """

    pairs: tuple[Pair, ...]
    source: str
    identity: str

    @property
    def categories(self) -> tuple[str, ...]:
        """In the order in which they appear."""
        return tuple(dict.fromkeys(p.category for p in self.pairs))

    @property
    def topics(self) -> tuple[str, ...]:
        """In the order in which they appear."""
        return tuple(dict.fromkeys(p.topic for p in self.pairs if p.topic is not None))


def pair_set(pairs: Iterable[Pair], source: str) -> PairSet:
    """Pairs as a set, with its identity.

    Raises:
        InputError: if two pairs have one name.
    """
    kept = tuple(pairs)
    if twice := next((name for name, n in Counter(p.name for p in kept).items() if n > 1), None):
        raise InputError(f"two pairs of {printable(source)} are called {cut(printable(twice), 60)}; every pair has a name of its own")
    rows = [[p.name, p.category, p.topic, p.a, p.b, p.reference] for p in sorted(kept, key=lambda p: p.name)]
    return PairSet(kept, source, digest(rows))


def text_hash(text: str) -> str:
    """sha256 (hex) of a text in UTF-8: what was shown to a model, without showing it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def text_hashes(pairs: PairSet) -> dict[str, tuple[str, str]]:
    """By pair, the sha256 of either text."""
    return {p.name: (text_hash(p.a), text_hash(p.b)) for p in pairs.pairs}


def standard_pairs() -> PairSet:
    """The set that ships with the package."""
    with as_file(files("aligntax.atlas") / "stimuli" / STANDARD) as path:
        return read_pairs(path)


def read_pairs(path: Path) -> PairSet:
    """Pairs from a table with the columns ``pair``, ``category``, ``text_a``, ``text_b`` and, where known, ``topic`` and ``reference``.

    Args:
        path: CSV, TSV, JSON lines or Parquet, a row per pair. Other columns are left alone.

    Raises:
        LogError: on what cannot be read, or is no set of pairs; the row is named.
    """
    table, where = read_columns(path), shown(path)
    if gone := [name for name in NEEDED if name not in table]:
        raise LogError(
            f"{where} has no column {' or '.join(gone)}; it has {cut(', '.join(map(printable, table)), 300)}. A set of pairs has a row per pair "
            "with pair, category, text_a and text_b, and may have topic and reference"
        )
    size = len(table["pair"])
    if size < 2:
        raise LogError(f"{where} has one pair; a set has two or more, as what is compared is how ratings differ between pairs")
    pairs = tuple(_pair(table, at, f"{where}, row {at + 1}") for at in range(size))
    _distinct(pairs, where)
    return pair_set(pairs, path.name)


def _pair(table: Mapping[str, Texts], at: int, where: str) -> Pair:
    name, category = (_label(table[column][at], column, where) for column in ("pair", "category"))
    topic = table["topic"][at] if "topic" in table else None
    of = f"{where}, pair {cut(printable(name), 60)}"
    a, b = (_text(table[column][at], column, of) for column in ("text_a", "text_b"))
    reference = _reference(table["reference"][at], of) if "reference" in table else None
    return Pair(name, category, None if topic is None else _label(topic, "topic", where), a, b, reference)


def _label(cell: str | None, column: str, where: str) -> str:
    if cell is None:
        raise LogError(f"{where} has no {column}")
    if len(cell) > MAX_NAME:
        raise LogError(f"{where}: {column} has {len(cell):,} characters; names have {MAX_NAME} at most")
    return _one_line(cell, column, where)


def _text(cell: str | None, column: str, where: str) -> str:
    if cell is None:
        raise LogError(f"{where}: {column} is empty; a pair has two texts")
    if len(cell) > MAX_TEXT:
        raise LogError(f"{where}: {column} has {len(cell):,} characters; a text has {MAX_TEXT:,} at most")
    return _one_line(cell, column, where)


def _one_line(text: str, column: str, where: str) -> str:
    """Nothing that ends a line, hides text or turns it round: what is rated is what a reader of the table sees.

    Raises:
        LogError: naming the character.
    """
    if bad := next((ch for ch in text if unicodedata.category(ch) in _CONTROL and ch not in _JOINERS), None):
        raise LogError(f"{where}: {column} holds the control character U+{ord(bad):04X}; a text is one line of characters that can be seen")
    return text


def _reference(cell: str | None, where: str) -> float | None:
    if cell is None:
        return None
    try:
        value = float(cell)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise LogError(
            f"{where}: reference is {cut(printable(repr(cell)), 60)}; it is a number from 0 (unrelated) to 1 (the same meaning), or empty"
        )
    return value + 0.0  # -0 is 0


def _distinct(pairs: Sequence[Pair], where: str) -> None:
    """No name twice, nor twice but for capitals: tables and people would take them for one pair.

    Raises:
        LogError: naming both rows.
    """
    rows: dict[str, int] = {}
    for at, pair in enumerate(pairs):
        first = rows.setdefault(unicodedata.normalize("NFKC", pair.name).casefold(), at)
        if first != at:
            raise LogError(
                f"{where}, row {at + 1} names the pair {cut(printable(pair.name), 60)}, and row {first + 1} {cut(printable(pairs[first].name), 60)}; "
                "every pair has a name of its own (capitals do not tell them apart)"
            )


@dataclass(frozen=True)
class Measured:
    """One measure of one category.

    Attributes:
        n: pairs that have it.
        mean, sd: over those pairs; None where there is none (the SD: fewer than two).
        d: standardised difference from the contested categories (of a contested one: from the other contested ones); None where one side has
            no pair, or both together have fewer than three.
    """

    n: int
    mean: float | None
    sd: float | None
    d: float | None

    @property
    def notable(self) -> bool:
        return self.d is not None and abs(self.d) >= NOTABLE


@dataclass(frozen=True)
class MatchRow:
    """A category beside the contested ones: by name of ``MEASURES``, what its pairs are like."""

    category: str
    n: int
    contested: bool
    measures: Mapping[str, Measured]


def words(text: str) -> list[str]:
    """Lower-cased words: runs of letters and digits, with apostrophes and hyphens inside. Made for languages that put spaces between words."""
    return [word.lower() for word in _WORD.findall(text)]


def pair_measures(pair: Pair) -> dict[str, float]:
    """What can be counted of a pair: words per text, length difference |n_a - n_b| / max, Jaccard overlap of the sets of words (Jaccard 1901, Bull.
    Soc. Vaudoise Sci. Nat. 37:547), negations (English: no, not, never, ..., n't) in both texts, letters per word.
    """
    a, b = words(pair.a), words(pair.b)
    both, longest = a + b, max(len(a), len(b))
    one, two = set(a), set(b)
    return {
        "words": len(both) / 2,
        "length_difference": abs(len(a) - len(b)) / longest if longest else 0.0,
        "overlap": len(one & two) / len(one | two) if both else 0.0,
        "negations": float(sum(word in _NEGATIONS or word.replace("’", "'").endswith("n't") for word in both)),
        "word_length": sum(map(len, both)) / len(both) if both else 0.0,
    }


def standardised_difference(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Cohen's d with the pooled SD (Cohen 1988, Statistical Power Analysis for the Behavioral Sciences, 2nd ed., section 2.5): (mean x - mean y) / s.

    Returns:
        None where a side is empty or both have fewer than three values; infinite where means differ and nothing varies.
    """
    df = len(x) + len(y) - 2
    if not len(x) or not len(y) or df < 1:
        return None
    one, two = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    gap = float(one.mean() - two.mean())
    pooled = sqrt(float(((one - one.mean()) ** 2).sum() + ((two - two.mean()) ** 2).sum()) / df)
    if pooled < 1e-12:
        return 0.0 if abs(gap) < 1e-12 else inf if gap > 0 else -inf
    return gap / pooled


def matching(pairs: PairSet, ratings: Mapping[str, float] | None = None, *, contested: Collection[str] = CONTESTED) -> list[MatchRow]:
    """How alike the categories are in everything that is not what they are compared for.

    Args:
        pairs: the set.
        ratings: mean rating by pair, once models (or people) have rated; pairs without one are left out of that measure.
        contested: categories that the others serve to be compared with.

    Returns:
        A row per category, in the order of the set. Without ``ratings`` there is no measure ``rating``.

    Raises:
        InputError: if a rating belongs to no pair.
    """
    if lost := sorted(set(ratings or ()) - {p.name for p in pairs.pairs}):
        raise InputError(
            f"no pair of {printable(pairs.source)} is called {cut(printable(lost[0]), 60)}; ratings belong to pairs of the set"
        )
    values: dict[str, dict[str, list[float]]] = {c: {} for c in pairs.categories}
    for pair in pairs.pairs:
        found: dict[str, float | None] = {**pair_measures(pair), "reference": pair.reference}
        if ratings is not None:
            found["rating"] = ratings.get(pair.name)
        for name, value in found.items():
            values[pair.category].setdefault(name, []).extend([] if value is None else [value])
    counts = {c: sum(p.category == c for p in pairs.pairs) for c in values}
    return [MatchRow(c, counts[c], c in contested, {name: _measured(values, c, name, contested) for name in values[c]}) for c in values]


def _measured(values: Mapping[str, Mapping[str, list[float]]], category: str, name: str, contested: Collection[str]) -> Measured:
    x = values[category][name]
    pool = [value for other in values if other in contested and other != category for value in values[other][name]]
    return Measured(
        len(x),
        float(np.mean(x)) if x else None,
        float(np.std(x, ddof=1)) if len(x) > 1 else None,
        standardised_difference(x, pool),
    )


def against_checklist(pairs: PairSet) -> list[str]:
    """What can be checked by counting and is not so: 12 to 40 words per text, lengths within 30 % of the longer, in words for people."""
    out = []
    for pair in pairs.pairs:
        lengths = len(words(pair.a)), len(words(pair.b))
        name = cut(printable(pair.name), 60)
        if not all(FEWEST_WORDS <= n <= MOST_WORDS for n in lengths):
            out.append(f"{name}: texts of {lengths[0]} and {lengths[1]} words, not {FEWEST_WORDS} to {MOST_WORDS}")
        if (share := pair_measures(pair)["length_difference"]) > MOST_DIFFERENCE:
            out.append(f"{name}: lengths differ by {number(100 * share, 0)} %, more than {100 * MOST_DIFFERENCE:.0f} %")
    return out


def matching_report(pairs: PairSet, ratings: Mapping[str, float] | None = None, *, contested: Collection[str] = CONTESTED) -> str:
    """The set and its matching as Markdown that can be read as plain text.

    Args:
        pairs: the set.
        ratings: as of ``matching``.
        contested: as of ``matching``.

    Raises:
        InputError: as ``matching``.
    """
    rows = matching(pairs, ratings, contested=contested)
    names = list(rows[0].measures)
    pool = [_cell(r.category) for r in rows if r.contested]
    lines = [
        f"{_cell(pairs.source)}: {items_text(len(pairs.pairs), 'pair')}, {len(rows)} categories, {items_text(len(pairs.topics), 'topic')}",
        f"identity (sha256): {pairs.identity}",
        "",
        "Mean (SD over pairs):",
        "",
        *_table(
            ["category", "pairs", *(MEASURES[m] for m in names)],
            [[_cell(r.category), str(r.n), *(_mean(r.measures[m], _DECIMALS.get(m, 3)) for m in names)] for r in rows],
        ),
        "",
    ]
    if pool:
        lines += [
            f"Standardised difference (Cohen's d, pooled SD) from {', '.join(pool)} together (of each of these: from the others of them); "
            f"! marks {NOTABLE:g} and more:",
            "",
            *_table(
                ["category", *(MEASURES[m] for m in names)], [[_cell(r.category), *(_gap(r.measures[m]) for m in names)] for r in rows]
            ),
        ]
    else:
        lines.append(f"No differences: the set has none of the contested categories ({', '.join(map(_cell, contested))}).")
    faults = against_checklist(pairs)
    lines += ["", "Checklist (length): " + ("every pair keeps it." if not faults else f"{items_text(len(faults), 'fault')}.")]
    return "\n".join([*lines, *(f"- {_cell(fault)}" for fault in faults), ""])


def _mean(found: Measured, decimals: int) -> str:
    if found.mean is None:
        return "-"
    return number(found.mean, decimals) + ("" if found.sd is None else f" ({number(found.sd, decimals)})")


def _gap(found: Measured) -> str:
    if found.d is None:
        return "-"
    text = number(found.d, 2)
    return ("" if text.startswith("-") else "+") + text + (" !" if found.notable else "")


def _cell(text: str) -> str:
    """A name that leaves a Markdown table standing."""
    return cut(printable(text), 200).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("`", "\\`")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    wide = [max(map(len, column)) for column in zip(head, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, wide, strict=True)))
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "-" * (wide[0] + 2) + "|" + "|".join("-" * (w + 1) + ":" for w in wide[1:]) + "|"
    return [line(head), rule, *map(line, rows)]
