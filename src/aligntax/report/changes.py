"""Items lost and gained, packed for the page: texts once each, compressed, cut where the page would grow too large.

The script of the page unpacks, searches and marks the differences. What is packed is base64, which no text can break out of.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aligntax.core.errors import InputError
from aligntax.core.words import cut, number, printable
from aligntax.report.terminal import answer_text

if TYPE_CHECKING:
    from aligntax.flow.diff import Comparison
    from aligntax.store.rows import Flip

MAX_ITEMS = 12_000
"""Items the page holds in all; it says how many there are."""
MAX_PACKED = 2_600_000
"""Characters of packed items in the page."""
LIMITS = (20_000, 4_000, 2_000, 1_000, 600, 300)
"""Characters a text may have, the largest that fits: beyond it texts are cut, and the cut is marked."""
EXAMPLES = 8
"""Items per direction that are written out for readers without the script, and in print."""
_EXAMPLE_CHARS = 1_000
_SHRINKS_TO = 0.6
"""Share of its size that text is sure to shrink to (base64 included); a first guess, the result is measured."""


@dataclass(frozen=True)
class Group:
    """The changed items of one pair and metric: how many there are, how many of them the page holds."""

    arms: tuple[str, str]
    metric: str
    lost: int
    gained: int
    held: int


@dataclass(frozen=True)
class Changes:
    """What the page shows of changed items.

    Attributes:
        groups: pairs and metrics with changes.
        packed: base64 of deflated JSON.
        limit: characters after which texts are cut; None where none was.
        examples: the first items, in words.
    """

    groups: tuple[Group, ...]
    packed: str
    limit: int | None
    examples: tuple[dict[str, str], ...]

    @property
    def total(self) -> int:
        return sum(g.lost + g.gained for g in self.groups)

    @property
    def held(self) -> int:
        return sum(g.held for g in self.groups)


@dataclass(frozen=True)
class _Found:
    group: int
    lost: bool
    flip: Flip


def changes(comparison: Comparison, pairs: Sequence[tuple[str, str]]) -> Changes:
    """The changed items of ``pairs``, those of the first pair first; of more than ``MAX_ITEMS`` the largest changes, of equal ones an even sample."""
    groups: list[Group] = []
    found: list[_Found] = []
    for pair in pairs:
        for metric in dict.fromkeys(e.metric for e in comparison.ledger if e.pair == pair and e.kind != "format"):
            before = len(found)
            try:
                lost = _add(found, comparison, len(groups), pair, metric, "lost")
                gained = _add(found, comparison, len(groups), pair, metric, "gained")
            except InputError:  # a quantity without answers of its own, such as a divergence
                continue
            if lost + gained:
                groups.append(Group(pair, metric, lost, gained, len(found) - before))
    packed, limit, kept = _fitted(found, groups)
    if len(kept) < len(found):
        held = [sum(one.group == i for one in kept) for i in range(len(groups))]
        groups = [Group(g.arms, g.metric, g.lost, g.gained, n) for g, n in zip(groups, held, strict=True)]
    examples = [one for lost in (True, False) for one in [f for f in kept if f.lost == lost and f.group == 0][:EXAMPLES]]
    return Changes(tuple(groups), packed, limit, tuple(_example(one) for one in examples))


def _add(found: list[_Found], comparison: Comparison, group: int, pair: tuple[str, str], metric: str, direction: str) -> int:
    """Add one direction's items to ``found``, half of the room for what was lost; how many there are in all."""
    room = MAX_ITEMS - len(found)
    total, flips = comparison.flips(*pair, metric, direction=direction, limit=room // 2 if direction == "lost" else room)
    found += [_Found(group, direction == "lost", flip) for flip in flips]
    return total


def _fitted(found: Sequence[_Found], groups: Sequence[Group]) -> tuple[str, int | None, Sequence[_Found]]:
    """The packed items with the longest texts that fit; if not even the shortest do, every second item is left out until they do."""
    while True:
        sizes = [len(text) for one in found for text in _texts(one.flip)]
        for limit in LIMITS:
            if limit != LIMITS[-1] and sum(min(size, limit) for size in sizes) * _SHRINKS_TO > 2 * MAX_PACKED:
                continue
            packed = _pack(found, groups, limit)
            if len(packed) <= MAX_PACKED:
                return packed, limit if any(size > limit for size in sizes) else None, found
        found = found[::2]


def _texts(flip: Flip) -> list[str]:
    texts = (flip.question, flip.target, flip.baseline_answer, flip.candidate_answer, flip.baseline_extracted, flip.candidate_extracted)
    return [text for text in texts if text is not None]


def _pack(found: Sequence[_Found], groups: Sequence[Group], limit: int) -> str:
    numbers: dict[str, int] = {}

    def at(text: str | None) -> int | None:
        return None if text is None else numbers.setdefault(cut(text, limit), len(numbers))

    items = [
        {
            "group": one.group, "lost": one.lost, "task": one.flip.task, "label": one.flip.label, "item": one.flip.item, "values": _values(one.flip),
            "question": at(one.flip.question), "target": at(one.flip.target),
            "answers": [at(one.flip.baseline_answer), at(one.flip.candidate_answer)],
            "extracted": [at(one.flip.baseline_extracted), at(one.flip.candidate_extracted)],
        }
        for one in found
    ]  # fmt: skip
    named = [{"arms": g.arms, "name": f"{g.arms[0]} to {g.arms[1]}, {g.metric} ({g.lost:,} lost, {g.gained:,} gained)"} for g in groups]
    data: dict[str, Any] = {"groups": named, "texts": list(numbers), "items": items}
    return base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 6)).decode()


def _values(flip: Flip) -> str:
    return " → ".join("-" if v is None else number(v, 0 if v.is_integer() else 3) for v in (flip.baseline_value, flip.candidate_value))


def _example(one: _Found) -> dict[str, str]:
    flip = one.flip

    def shown(text: str | None) -> str:
        return "" if text is None else printable(cut(text.strip(), _EXAMPLE_CHARS), keep_newlines=True)

    return {
        "direction": "lost" if one.lost else "gained",
        "task": printable(f"{flip.task}/{flip.label}" if flip.label else flip.task),
        "item": printable(flip.item),
        "values": _values(flip),
        "question": shown(flip.question),
        "target": shown(flip.target),
        "baseline": shown(answer_text(flip.baseline_answer, flip.baseline_extracted)),
        "candidate": shown(answer_text(flip.candidate_answer, flip.candidate_extracted)),
    }
