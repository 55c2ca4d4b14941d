"""Items lost and gained, packed for the page: texts once each, compressed, cut where the page would grow too large.

The script of the page unpacks, searches and marks the differences. What is packed is base64, which no text can break out of.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from aligntax.core.errors import InputError
from aligntax.core.kinds import BESIDE
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
_NAME_CHARS = 300
MAX_GROUPS = 400
_SAMPLE = 10_000


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
        trials: whether items were asked several times, so that the answers are those of the first trial.
        examples: the first items, in words.
    """

    groups: tuple[Group, ...]
    packed: str
    limit: int | None
    trials: bool
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
    """The changed items of ``pairs``, those of the first pair first. Where there are more than ``MAX_ITEMS``, every pair and metric has the same room;
    of more than fit it shows the largest changes, of equal ones an even sample.
    """
    sizes: list[tuple[tuple[str, str], str, int, int]] = []
    for pair in pairs:
        for metric in dict.fromkeys(e.metric for e in comparison.ledger if e.pair == pair and e.kind not in BESIDE):
            try:
                lost, gained = (comparison.flips(*pair, metric, direction=d, limit=0)[0] for d in ("lost", "gained"))
            except InputError:  # a quantity without answers of its own, such as a divergence
                continue
            if lost + gained and len(sizes) < MAX_GROUPS:
                sizes.append((pair, metric, lost, gained))
    rooms = shared([n for _, _, *both in sizes for n in both], MAX_ITEMS)
    found: list[_Found] = []
    for k, (pair, metric, _, _) in enumerate(sizes):
        for direction, room in zip(("lost", "gained"), rooms[2 * k : 2 * k + 2], strict=True):
            _, flips = comparison.flips(*pair, metric, direction=direction, limit=room)
            found += [_Found(k, direction == "lost", flip) for flip in flips]
    groups = [Group(pair, metric, lost, gained, 0) for pair, metric, lost, gained in sizes]
    packed, limit, kept = _fitted(found, groups)
    held = Counter(one.group for one in kept)
    groups = [replace(g, held=held[i]) for i, g in enumerate(groups)]
    examples = [one for lost in (True, False) for one in [f for f in kept if f.lost == lost and f.group == 0][:EXAMPLES]]
    trials = any(e.detail("within_item_variance") is not None or e.method == "score-trials" for e in comparison.ledger)
    return Changes(tuple(groups), packed, limit, trials, tuple(_example(one) for one in examples))


def shared(wanted: Sequence[int], room: int) -> list[int]:
    """Room for each: what it wants if that is little, else the same for all."""
    left, out = room, [0] * len(wanted)
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    for k, i in enumerate(order):
        out[i] = min(wanted[i], left // (len(order) - k))
        left -= out[i]
    return out


def _fitted(found: Sequence[_Found], groups: Sequence[Group]) -> tuple[str, int | None, Sequence[_Found]]:
    """The packed items with the longest texts that fit; where not even the shortest do, as many of them as fit, evenly taken."""
    while True:
        sizes = [len(text) for text in {text for one in found for text in _texts(one.flip)}]
        ratio = _ratio(found)
        for limit in LIMITS:
            if limit != LIMITS[-1] and sum(min(size, limit) for size in sizes) * ratio > 2 * MAX_PACKED:
                continue
            held = Counter(one.group for one in found)
            packed = _pack(found, [replace(g, held=held[i]) for i, g in enumerate(groups)], limit)
            if len(packed) <= MAX_PACKED or not found:
                return packed, limit if any(size > limit for size in sizes) else None, found
        fewer = min(len(found) - 1, int(0.9 * len(found) * MAX_PACKED / len(packed)))
        found = [found[i * len(found) // fewer] for i in range(fewer)]


def _ratio(found: Sequence[_Found]) -> float:
    """Share of its size that text shrinks to, base64 included, in a sample of the items."""
    sample = "".join(text[:_SAMPLE] for one in found[:: max(1, len(found) // 200)] for text in _texts(one.flip))
    data = sample.encode("utf-8", "replace")
    return 4 / 3 * len(zlib.compress(data, 6)) / len(data) if data else 1.0


def _texts(flip: Flip) -> list[str]:
    texts = (flip.question, flip.target, flip.baseline_answer, flip.candidate_answer, flip.baseline_extracted, flip.candidate_extracted)
    return [text for text in texts if text is not None]


def _pack(found: Sequence[_Found], groups: Sequence[Group], limit: int) -> str:
    numbers: dict[str, int] = {}

    def at(text: str | None) -> int | None:
        return None if text is None else numbers.setdefault(cut(text, limit), len(numbers))

    items = [
        {
            "group": one.group, "lost": one.lost, "task": _short(one.flip.task), "label": None if one.flip.label is None else _short(one.flip.label),
            "item": _short(one.flip.item), "values": _values(one.flip),
            "question": at(one.flip.question), "target": at(one.flip.target),
            "answers": [at(one.flip.baseline_answer), at(one.flip.candidate_answer)],
            "extracted": [at(one.flip.baseline_extracted), at(one.flip.candidate_extracted)],
        }
        for one in found
    ]  # fmt: skip
    named = [{"arms": tuple(map(_short, g.arms)), "metric": _short(g.metric), "name": _group_text(g)} for g in groups[:MAX_GROUPS]]
    data: dict[str, Any] = {"groups": named, "texts": list(numbers), "items": items}
    return base64.b64encode(zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 6)).decode()


def _group_text(group: Group) -> str:
    total = group.lost + group.gained
    held = "" if group.held == total else f", {group.held:,} of them here"
    return (
        f"{_short(group.arms[0])} to {_short(group.arms[1])}, {_short(group.metric)} ({group.lost:,} lost, {group.gained:,} gained{held})"
    )


def _short(text: str) -> str:
    return cut(text, _NAME_CHARS)


def _values(flip: Flip) -> str:
    """Both values, with as many digits as tell them apart."""
    values = (flip.baseline_value, flip.candidate_value)
    for decimals in (3, 4, 6, 9):
        texts = ["-" if v is None else number(v, 0 if v.is_integer() else decimals) for v in values]
        if texts[0] != texts[1]:
            break
    return " → ".join(texts)


def _example(one: _Found) -> dict[str, str]:
    flip = one.flip

    def shown(text: str | None) -> str:
        return "" if text is None else printable(cut(text.strip(), _EXAMPLE_CHARS), keep_newlines=True)

    return {
        "direction": "lost" if one.lost else "gained",
        "task": printable(_short(f"{flip.task}/{flip.label}" if flip.label else flip.task)),
        "item": printable(_short(flip.item)),
        "values": _values(flip),
        "question": shown(flip.question),
        "target": shown(flip.target),
        "baseline": shown(answer_text(flip.baseline_answer, flip.baseline_extracted)),
        "candidate": shown(answer_text(flip.candidate_answer, flip.candidate_extracted)),
    }
