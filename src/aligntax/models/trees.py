"""Sequences that begin alike, as trees: what is shared is computed once. Plans only; imports no torch.

Sorted sequences share prefixes with their neighbours. A prefix that many rows need becomes a *trunk*, whose keys and values are kept;
what hangs on a trunk is cut into *rows*, each a forest of tokens in which a token sees the trunk, its ancestors and itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

ROW = 256
"""Tokens of a row: attention costs what a row is long, and rows are put side by side in batches."""
TRUNK = 16
"""A shared prefix shorter than this is repeated in every row rather than kept apart."""


@dataclass(frozen=True)
class Row:
    """Tokens that are computed together.

    Attributes:
        tokens: (T,) token ids. parent: (T,) index of the token before it in this row, -1 where that is the trunk's last.
        depth: (T,) position in the sequence. wanted: for each sequence that ends here, (its number, indices in this row of the
            tokens whose predictions are asked for).
    """

    tokens: Ints
    parent: Ints
    depth: Ints
    wanted: tuple[tuple[int, Ints], ...]

    def sees(self) -> npt.NDArray[np.bool_]:
        """(T, T) whether a token sees another: itself and its ancestors."""
        size = len(self.tokens)
        seen = np.zeros((size, size), bool)
        for t in range(size):
            if self.parent[t] >= 0:
                seen[t] = seen[self.parent[t]]
            seen[t, t] = True
        return seen


@dataclass
class Trunk:
    """A prefix that rows share.

    Attributes:
        tokens: (P,) the whole prefix from the first token on, perhaps none.
        rows: what hangs on it.
    """

    tokens: Ints
    rows: list[Row] = field(default_factory=list)


def plan(sequences: Sequence[Sequence[int]], first: Sequence[int], row: int = ROW, trunk: int = TRUNK) -> list[Trunk]:
    """Trunks with their rows, such that every sequence is a trunk followed by a path through one of its rows.

    Args:
        sequences: token ids, each of at least one.
        first: for each, the index of the first token whose prediction is asked for; no trunk reaches that far.
        row: tokens of a row at most, but for a single sequence that is longer.
        trunk: shortest shared prefix worth a trunk.

    Raises:
        ValueError: on an empty sequence, or one of which nothing is asked.
    """
    arrays = [np.asarray(s, np.int64) for s in sequences]
    if any(not 0 <= f < len(a) for a, f in zip(arrays, first, strict=True)):
        raise ValueError("of every sequence at least one prediction must be asked for")
    order = sorted(range(len(arrays)), key=lambda i: arrays[i].tolist())
    shared = np.array([0, *(_common(arrays[a], arrays[b]) for a, b in itertools.pairwise(order))], np.int64)
    found: list[Trunk] = []
    if order:
        wood = _Wood(arrays, list(first), order, shared, row, trunk)
        _grow(wood, (0, len(order)), Trunk(np.empty(0, np.int64)), found)
    return [t for t in found if t.rows]


def _common(one: Ints, two: Ints) -> int:
    """Tokens that two sequences share from the start."""
    size = min(len(one), len(two))
    differ = np.flatnonzero(one[:size] != two[:size])
    return int(differ[0]) if len(differ) else size


@dataclass(frozen=True)
class _Wood:
    """What planning looks at: sequences, their first wanted index, their sorted order, and what each sorted one shares with the one before."""

    arrays: list[Ints]
    first: list[int]
    order: list[int]
    shared: Ints
    row: int
    trunk: int

    def adds(self, k: int, depth: int) -> int:
        """Tokens above ``depth`` that the k-th sorted sequence does not share with the one before it."""
        return len(self.arrays[self.order[k]]) - max(depth, int(self.shared[k]))

    def size(self, start: int, end: int, depth: int) -> int:
        """Distinct tokens above ``depth`` in the tree of a span."""
        alone = len(self.arrays[self.order[start]]) - depth
        return alone + sum(self.adds(k, depth) for k in range(start + 1, end))


def _grow(wood: _Wood, span: tuple[int, int], on: Trunk, found: list[Trunk]) -> None:
    """Hang the sequences of a span of the sorted order on a trunk, or on longer ones that grow from it."""
    found.append(on)
    depth = len(on.tokens)
    held: list[tuple[int, int]] = []
    size = 0
    for start, end in _children(wood.shared, *span, depth):
        adds = wood.size(start, end, depth)
        if adds > wood.row and end - start > 1:
            common = min(int(wood.shared[start + 1 : end].min()), *(wood.first[wood.order[k]] for k in range(start, end)))
            if common - depth >= wood.trunk:
                _grow(wood, (start, end), Trunk(wood.arrays[wood.order[start]][:common]), found)
            else:  # too little is shared to be kept apart: the child is cut into rows, each repeating it
                on.rows += [_row(wood, part, depth) for part in _cuts(wood, start, end, depth)]
            continue
        if held and (size + adds > wood.row or held[-1][1] != start):
            on.rows.append(_row(wood, (held[0][0], held[-1][1]), depth))
            held, size = [], 0
        held.append((start, end))
        size += adds
    if held:
        on.rows.append(_row(wood, (held[0][0], held[-1][1]), depth))


def _children(shared: Ints, lo: int, hi: int, depth: int) -> list[tuple[int, int]]:
    """Spans that differ in their first token after ``depth``."""
    cuts = [lo, *(lo + 1 + np.flatnonzero(shared[lo + 1 : hi] <= depth)).tolist(), hi]
    return list(itertools.pairwise(cuts))


def _cuts(wood: _Wood, start: int, end: int, depth: int) -> list[tuple[int, int]]:
    """Consecutive parts of a span, each of at most a row's tokens where that can be."""
    found, begin, size = [], start, 0
    for k in range(start, end):
        if k > begin and size + wood.adds(k, depth) > wood.row:
            found.append((begin, k))
            begin, size = k, 0
        size += wood.size(k, k + 1, depth) if k == begin else wood.adds(k, depth)
    return [*found, (begin, end)]


def _row(wood: _Wood, span: tuple[int, int], depth: int) -> Row:
    """The forest of a span above ``depth``."""
    tokens: list[Ints] = []
    parents: list[Ints] = []
    depths: list[Ints] = []
    wanted: list[tuple[int, Ints]] = []
    path = np.empty(0, np.int64)  # nodes of the sequence before, from the trunk on
    count = 0
    for k in range(*span):
        number = wood.order[k]
        sequence = wood.arrays[number]
        kept = max(0, int(wood.shared[k]) - depth) if k > span[0] else 0
        nodes = np.arange(count, count + len(sequence) - depth - kept)
        if len(nodes):
            tokens.append(sequence[depth + kept :])
            parents.append(np.concatenate([[path[kept - 1] if kept else -1], nodes[:-1]]))
            depths.append(np.arange(depth + kept, len(sequence)))
        path = np.concatenate([path[:kept], nodes])
        count += len(nodes)
        wanted.append((number, path[wood.first[number] - depth :]))
    return Row(np.concatenate(tokens), np.concatenate(parents), np.concatenate(depths), tuple(wanted))


def computed(trunks: Sequence[Trunk]) -> int:
    """Tokens that the plan computes, trunks included."""
    return sum(len(t.tokens) + sum(len(r.tokens) for r in t.rows) for t in trunks)
