"""How different a model's answers are: to one prompt (several answers each), and across prompts (one answer each of a block of prompts).

Both are values of a group of texts (``stats.diversity``): of a prompt's answers, or of the answers to a block of ``BLOCK`` prompts. A group's value
stands for its items, and a block is the unit, so that a change of diversity is a paired mean like every other change. Across prompts a block of
fixed size is measured rather than the whole task, whose n-grams are the less distinct the more prompts there are. Sources stay together: one that
fills several blocks has blocks of its own, which are one unit.

All sides are measured on the same items, on equally many answers to each (the first ones), and on equally many words: within a group the r-th
longest answer of every arm is cut to the length of the shortest r-th longest answer of any. What the answers are as written stands in the details.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from aligntax.core.errors import InputError
from aligntax.core.ids import digest
from aligntax.core.ledger import Detail
from aligntax.core.words import printable
from aligntax.flow.compare import MetricTable
from aligntax.flow.judge import MetricFacts
from aligntax.flow.scores import BoolArray, FloatArray, IntArray, item_values
from aligntax.stats import diversity as measures
from aligntax.stats.diversity import Words
from aligntax.store.logs import LogFacts
from aligntax.store.rows import Items, Rows

BLOCK = 20
"""Prompts whose answers are compared with each other."""
PER_PROMPT, ACROSS = "per prompt", "across prompts"

Embed = Callable[[Sequence[str]], FloatArray]
"""Texts to (D, F) vectors."""


@dataclass(frozen=True)
class _Metric:
    unit: str
    higher: bool
    scale: float | None = None


_METRICS = {
    "ead": _Metric("fraction", True),
    "distinct_1": _Metric("fraction", True, 1.0),
    "distinct_2": _Metric("fraction", True, 1.0),
    "distinct_3": _Metric("fraction", True, 1.0),
    "self_bleu": _Metric("fraction", False, 1.0),
    "word_entropy": _Metric("nats", True),
    "compression_ratio": _Metric("ratio", False),
    "vendi": _Metric("answers", True),
    "distance": _Metric("fraction", True, 2.0),
}
_OF_VECTORS = frozenset({"vendi", "distance"})


@dataclass(frozen=True)
class _Texts:
    """The answers of one arm to the items measured, all arms the same number to each item: item index and text of every answer."""

    item: IntArray
    trial: IntArray
    text: list[str]


def diversity_tables(
    rows: Rows, items: Items, facts: Sequence[LogFacts], wanted: bool | None, embed: Embed | None, say: Callable[[str], None]
) -> list[MetricTable]:
    """Tables of the kind ``diversity``.

    Args:
        rows: the study's answers.
        items: its items.
        facts: of every arm.
        wanted: True measures across prompts as well; None only per prompt, where several answers to one prompt were given; False nothing.
        embed: makes vectors of texts; without, they are TF-IDF vectors of words and pairs of words.
        say: is told what is being measured.

    Raises:
        InputError: if it was asked for, and there is nothing to measure.
    """
    if wanted is False or (wanted is None and embed is None and not any(rows.has_trials(arm.number) for arm in rows.arms)):
        return []
    chosen = set().union(*(one.chosen for one in facts))
    tasks = [t for t, name in enumerate(items.tasks) if name not in chosen]
    found = {arm.name: rows.answers(arm.number, [items.tasks[t] for t in tasks]) for arm in rows.arms}
    out: dict[str, _Filled] = {}
    for task in tasks:
        sides = _common({arm: _of_task(of, items, task) for arm, of in found.items()})
        if len(sides) < 2:
            continue
        several = bool(np.bincount(next(iter(sides.values())).item).max(initial=0) > 1)
        if several:
            say(f"diversity of {items.tasks[task]}, {PER_PROMPT}")
            _fill(out, PER_PROMPT, sides, _by_prompt(sides), None, items, task, embed)
        if wanted and len(np.unique(next(iter(sides.values())).item)) > 1:
            say(f"diversity of {items.tasks[task]}, {ACROSS}")
            _fill(out, ACROSS, sides, *_by_block(sides, items), items, task, embed)
    if not out and (wanted or embed is not None):
        held = ", ".join(items.tasks[t] for t in tasks) or "none: every task is answered by the likeliest of given choices"
        raise InputError(
            f"there are no answers to measure the diversity of: it takes answers in words, of one item in two arms, and to one prompt several; tasks: {printable(held)}"
        )
    return [filled.table() for filled in out.values()]


def _of_task(found: tuple[IntArray, IntArray, list[str]], items: Items, task: int) -> _Texts:
    item, trial, text = found
    at = np.flatnonzero(items.task[item] == task)
    return _Texts(item[at], trial[at], [text[i] for i in at])


def _common(sides: Mapping[str, _Texts]) -> dict[str, _Texts]:
    """The arms that answered the task at all, on the items that all of them answered, each with as many answers as the arm that has fewest."""
    some = {arm: of for arm, of in sides.items() if len(of.item)}
    if not some:
        return {}
    size = max(int(of.item.max()) for of in some.values()) + 1
    least = np.minimum.reduce([np.bincount(of.item, minlength=size) for of in some.values()])
    out = {}
    for arm, of in some.items():
        rank = np.arange(len(of.item)) - np.searchsorted(of.item, of.item)  # sorted by item and trial
        at = np.flatnonzero(rank < least[of.item])
        out[arm] = _Texts(of.item[at], rank[at], [of.text[i] for i in at])
    return out if any(len(of.item) for of in out.values()) else {}


@dataclass(frozen=True)
class _Slice:
    """Texts measured together: which ones, and the group of each, (T,)."""

    at: IntArray
    group: IntArray
    groups: int


def _by_prompt(sides: Mapping[str, _Texts]) -> list[_Slice]:
    item = next(iter(sides.values())).item
    several = np.flatnonzero(np.bincount(item)[item] > 1)
    _, group = np.unique(item[several], return_inverse=True)
    return [_Slice(several, group, int(group.max(initial=-1)) + 1)]


def _by_block(sides: Mapping[str, _Texts], items: Items) -> tuple[list[_Slice], IntArray]:
    """One slice per trial that all items have: everyone's first answers, second answers, ...; and the unit of every block."""
    any_side = next(iter(sides.values()))
    of = np.unique(any_side.item)
    block, unit = _blocks(of, items)
    number = np.full(len(items.task), -1, dtype=np.int64)
    number[of] = block
    trials = int(np.bincount(any_side.item)[of].min())
    out = []
    for trial in range(trials):
        at = np.flatnonzero(any_side.trial == trial)
        out.append(_Slice(at, number[any_side.item[at]], len(unit)))
    return out, unit


def _blocks(of: IntArray, items: Items) -> tuple[IntArray, IntArray]:
    """(n,) the block of every item, and (B,) the unit of every block, itself or the source that fills it: in an order that is always the same and has
    nothing to do with the log's.
    """
    source = np.where(items.cluster[of] >= 0, items.cluster[of], int(items.cluster.max(initial=-1)) + 1 + np.arange(len(of)))
    order = np.argsort(source, kind="stable")
    sources = np.split(order, np.flatnonzero(np.diff(source[order])) + 1)
    sources.sort(key=lambda some: digest(["block", int(source[some[0]])]))
    large, small = [some for some in sources if len(some) >= BLOCK], [some for some in sources if len(some) < BLOCK]
    block = np.empty(len(of), dtype=np.int64)
    unit: list[int] = []
    for number, some in enumerate(large):
        blocks = len(some) // BLOCK
        block[some] = len(unit) + np.arange(len(some)) * blocks // len(some)
        unit += [number] * blocks
    total = sum(map(len, small))
    starts = np.cumsum([0, *map(len, small)])[: len(small)]
    together = np.unique(starts * max(1, total // BLOCK) // max(1, total), return_inverse=True)[1]  # a small source is in one block
    for some, number in zip(small, together + len(unit), strict=True):
        block[some] = number
    unit += range(len(large), len(large) + int(together.max(initial=-1)) + 1)
    return block, np.array(unit, dtype=np.int64)


@dataclass
class _Filled:
    """A table being filled task by task."""

    metric: str
    groups: IntArray | None
    values: dict[str, FloatArray]
    planned: dict[str, BoolArray]
    facts: dict[int, MetricFacts]
    told: dict[tuple[int, str], dict[str, Detail]]
    checks: dict[int, list[str]]
    large: bool = False

    def table(self) -> MetricTable:
        arms = {arm: item_values(of, self.planned[arm]) for arm, of in self.values.items()}
        return MetricTable(
            self.metric, arms, self.facts, kind="diversity", derived=True, groups=self.groups,
            grouped=f"block of about {BLOCK} prompts{' or source of more' if self.large else ''}", told=self.told, checks=self.checks,
        )  # fmt: skip


def _fill(
    out: dict[str, _Filled],
    how: str,
    sides: Mapping[str, _Texts],
    slices: Sequence[_Slice],
    unit: IntArray | None,
    items: Items,
    task: int,
    embed: Embed | None,
) -> None:
    """Measure one task, and put the values of its groups where their items are; ``unit`` says which groups of texts are one unit, None where the items are."""
    count = len(items.task)
    item = next(iter(sides.values())).item
    owner = np.full(count, -1, dtype=np.int64)
    for one in slices:
        owner[item[one.at]] = one.group
    has = owner >= 0
    found = _averaged(sides, slices, embed)
    for name, metric in _METRICS.items():
        full = f"{name}_{'tfidf' if embed is None else 'embedding'},{how}" if name in _OF_VECTORS else f"{name},{how}"
        filled = out.get(full)
        if filled is None:
            groups = None if unit is None else np.full(count, -1, dtype=np.int64)
            filled = out[full] = _Filled(full, groups, {}, {}, {}, {}, {})
        if filled.groups is not None and unit is not None:
            filled.groups[has] = unit[owner[has]] + int(filled.groups.max(initial=-1)) + 1
            filled.large |= len(np.unique(unit)) < len(unit)
        filled.facts[task] = MetricFacts(metric.unit, higher_is_better=metric.higher, scale=metric.scale, strict=False)
        filled.checks[task] = [_said(how, item, slices)]
        for arm, of in found.items():
            filled.values.setdefault(arm, np.full(count, np.nan))[has] = of.values[name][owner[has]]
            filled.planned.setdefault(arm, np.zeros(count, dtype=np.bool_))[has] = True
            told: dict[str, Detail] = {"share_of_words_compared": of.compared / of.words if of.words else None}
            if name in of.written:
                plain = of.written[name]
                told["as_written"] = float(np.nanmean(plain)) if np.isfinite(plain).any() else None
            filled.told[task, arm] = told


@dataclass
class _Found:
    """What was measured of one arm: by metric the groups' values, with lengths matched and as written; and how many words were compared of how many."""

    values: dict[str, FloatArray]
    written: dict[str, FloatArray]
    compared: int = 0
    words: int = 0


def _averaged(sides: Mapping[str, _Texts], slices: Sequence[_Slice], embed: Embed | None) -> dict[str, _Found]:
    """Every arm measured in every slice; means over the slices."""
    numbers: dict[str, int] = {}
    words = {arm: measures.words_of(of.text, numbers) for arm, of in sides.items()}
    vectors = None if embed is None else {arm: measures.unit_rows(embed(of.text)) for arm, of in sides.items()}
    out = {arm: _Found({}, {}) for arm in sides}
    for one in slices:
        own = {arm: of.take(one.at) for arm, of in words.items()}
        texts = {arm: [of.text[i] for i in one.at] for arm, of in sides.items()}
        limits = dict(zip(own, measures.matched_lengths([of.lengths for of in own.values()], one.group), strict=True))
        given = None if vectors is None else {arm: of[one.at] for arm, of in vectors.items()}
        for matched in (False, True):
            if matched:
                texts = {arm: _shortened(texts[arm], own[arm], limits[arm]) for arm in own}
                own = {arm: of.cut(limits[arm]) for arm, of in own.items()}
            unit = (
                given if given is not None else _unit_vectors(own) if matched else None
            )  # of texts as written they would take as long again
            for arm, of in own.items():
                if matched:
                    out[arm].compared += len(of.ids)
                else:
                    out[arm].words += len(of.ids)
                into = out[arm].values if matched else out[arm].written
                for name, values in _measured(of, texts[arm], one, None if unit is None else unit[arm]):
                    into[name] = into.get(name, 0.0) + values / len(slices)
    return out


def _unit_vectors(words: Mapping[str, Words]) -> dict[str, sparse.csr_matrix]:
    """TF-IDF vectors of every arm's texts; a word weighs the same in all of them."""
    rows = measures.tfidf(measures.joined(list(words.values())))
    bounds = np.cumsum([0, *(len(of.starts) - 1 for of in words.values())])
    return {arm: rows[low:high] for arm, low, high in zip(words, bounds[:-1], bounds[1:], strict=True)}


def _said(how: str, item: IntArray, slices: Sequence[_Slice]) -> str:
    counts = np.bincount(item)
    if how == ACROSS:
        sizes = np.bincount(slices[0].group)
        size = f"{sizes.max()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        several = f"; means over the first {len(slices)} answers to every prompt" if len(slices) > 1 else ""
        return f"each answer beside those to the other prompts of its block of {size}{several}; as many words from every arm"
    low, high = int(counts[counts > 1].min()), int(counts.max())
    many = f"{low}" if low == high else f"{low} to {high}"
    return f"{many} answers to each prompt, as many answers and as many words from every arm"


def _shortened(texts: Sequence[str], words: Words, limit: IntArray) -> list[str]:
    """Texts up to the end of their last word that is compared."""
    lengths = words.lengths
    return [text if most >= n else measures.shortened(text, int(most)) for text, n, most in zip(texts, lengths, limit, strict=True)]


def _measured(words: Words, texts: Sequence[str], one: _Slice, vectors: sparse.csr_matrix | None) -> Iterator[tuple[str, FloatArray]]:
    """Every metric of every group; those of vectors where there are any."""
    few, all_ = measures.distinct(words, one.group, one.groups)
    yield "ead", measures.expectation_adjusted(few, all_)
    for order in (1, 2, 3):
        yield f"distinct_{order}", measures.distinct_share(few[order - 1], all_[order - 1])
    yield "self_bleu", measures.self_bleu(words, one.group, one.groups)
    yield "word_entropy", measures.word_entropy(words, one.group, one.groups)
    members: list[list[str]] = [[] for _ in range(one.groups)]
    for text, group in zip(texts, one.group, strict=True):
        members[group].append(text)
    yield "compression_ratio", measures.compression_ratio(members)
    if vectors is None:
        return
    yield "vendi", measures.vendi(vectors, one.group, one.groups)
    yield "distance", measures.mean_distance(vectors, one.group, one.groups)
