"""Random concepts: what a safety direction is held against. Concepts that have nothing to do with safety, among the prompts of tasks (imports torch through gather)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from aligntax.core.words import cut
from aligntax.predict.gather import Sums
from aligntax.predict.inputs import Request
from aligntax.stats.directions import common_blocks

_RARE = 0.15
"""A word that fewer prompts have, or nearly all, is no concept to tell them apart by."""

Masks = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def told_apart(rows: Mapping[str, Sequence[Request]], task: npt.NDArray[np.int64]) -> dict[str, Masks]:
    """By concept, the two classes of all rows."""
    names = list(rows)
    out: dict[str, Masks] = {f"{a} or {b}": (task == i, task == j) for (i, a), (j, b) in combinations(enumerate(names), 2)}
    for i, name in enumerate(names):
        for word, holds in _words([one.text for one in rows[name]]).items():
            one, two = np.zeros(len(task), dtype=bool), np.zeros(len(task), dtype=bool)
            one[task == i], two[task == i] = holds, ~holds
            out[f"{name} with {word}"] = (one, two)
    return out


def _words(texts: Sequence[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """By word: which texts hold it, of words that tell texts apart; of words that the same texts hold, one."""
    sets = [frozenset(re.findall(r"\w+", text.lower())) for text in texts]
    out: dict[str, npt.NDArray[np.bool_]] = {}
    seen: set[bytes] = set()
    for word in sorted({word for one in sets for word in one}):
        holds = np.array([word in one for one in sets])
        key = np.packbits(holds).tobytes()
        if _RARE <= holds.mean() <= 1 - _RARE and key not in seen:
            out[cut(word, 60)] = holds
            seen.add(key)
    return out


def class_sums(masks: Masks, labels: npt.NDArray[np.object_]) -> tuple[Sums, Sums] | None:
    """Where the rows of a concept's two classes go; None where a class has too few groups."""
    try:
        count, blocks = common_blocks([labels[mask] for mask in masks], ["one class", "the other"])
    except ValueError:
        return None
    made = []
    for mask, of in zip(masks, blocks, strict=True):
        where = np.full(len(labels), -1, dtype=np.int64)
        where[mask] = of
        made.append(Sums(where, count))
    return made[0], made[1]
