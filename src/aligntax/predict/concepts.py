"""Random concepts: what a safety direction is held against, other directions of the same make that have nothing to do with safety (imports torch)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aligntax.core.words import cut
from aligntax.predict.gather import Direction, IntArray, Sums, Tell, read_gradients, read_states
from aligntax.predict.inputs import Request, groups_of
from aligntax.predict.results import MIN_CONCEPTS, Concepts, Settings
from aligntax.stats.directions import BlockSample, CrossFit, common_blocks, point_rate

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

ANSWERED = 48
"""Prompts of a class behind each of other answers."""

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


def random_concepts(
    model: HFModel,
    parts: Mapping[str, tuple[list[Request], list[Request]]],
    found: Mapping[str, Sums],
    layer: int,
    at: int,
    want: Settings,
    fit: CrossFit,
    tell: Tell,
) -> Concepts:
    """Tax rates of random concepts among the items that gradients were not taken of: one task's prompts against another's, and of one task those that hold a word
    against those that do not.
    """
    rows = [one for _, part in parts.values() for one in part]
    task = np.repeat(np.arange(len(parts)), [len(part) for _, part in parts.values()])
    labels = np.array([f"{task[n]}: {one.group if one.group is not None else f'alone {n}'}" for n, one in enumerate(rows)], dtype=object)
    holds = told_apart({name: part for name, (_, part) in parts.items()}, task)
    names = random.Random(f"{want.seed} concepts").sample(sorted(holds), min(want.concepts, len(holds)))  # noqa: S311 - a sample of concepts
    sums = {name: sides for name in names if (sides := class_sums(holds[name], labels)) is not None}
    read_states(model, rows, [x for sides in sums.values() for x in sides], [layer], want, partial(tell, "prompts of random concepts"))
    samples = [of.sample(at) for of in found.values()]
    rates = {name: rate for name, sides in sums.items() if (rate := _rate(sides, samples)) is not None}
    return judged(rates, len(names), fit)


def other_answers(
    model: HFModel,
    sides: Mapping[str, Sequence[Request]],
    parts: Mapping[str, tuple[Sequence[Request], Sequence[Request]]],
    found: Mapping[str, Sums],
    layer: int,
    at: int,
    want: Settings,
    fit: CrossFit,
    tell: Tell,
) -> Concepts:
    """Tax rates of what raises other answers to the same kind of prompts: those of one task, or of two in turn, in place of the wanted ones.

    Args:
        model: the base model.
        sides: prompts by class that no direction was made from; the answers that are not wanted stay what they are.
        parts: items by task; answers are those of the half that gradients were not taken of.
        found: directions of tasks.
        layer: to be read.
        at: its place in ``found``.
        want: settings.
        fit: of safety.
        tell: progress.
    """
    draw = random.Random(f"{want.seed} answers")  # noqa: S311 - a sample of answers
    names = [name for name in found if name in parts]
    taught = [(name,) for name in names] + draw.sample(list(combinations(names, 2)), len(names) * (len(names) - 1) // 2)
    samples = [of.sample(at) for of in found.values()]
    rates: dict[str, float] = {}
    ready = {what: made for what, rows in sides.items() if (made := _ready(model, rows, layer, want)) is not None}
    plans = [(some, what) for some in taught for what in ready][: want.concepts]
    for number, (some, what) in enumerate(plans, 1):
        rows, blocks, count, other = ready[what]
        said = [str(one.wanted) for one in chain.from_iterable(zip(*(parts[name][1] for name in some), strict=False))]
        answers = [said[n % len(said)] for n in range(len(rows))]
        sums = read_gradients(model, rows, Sums(blocks, count), [layer], want, lambda *_: None, answers)
        if other is not None:
            sums.sums -= other.sums
        try:
            rate = point_rate(sums.sample(0), samples)
        except ValueError:
            rate = None
        if rate is not None:
            rates[f"{' and '.join(some)} after {what} prompts"] = rate
        tell("other answers", number, len(plans))
    return judged(rates, len(plans), fit)


def _ready(
    model: HFModel, rows: Sequence[Request], layer: int, want: Settings
) -> tuple[Sequence[Request], IntArray, int, Sums | None] | None:
    """Prompts, one of every group, with their blocks and the gradients of the answers that are not wanted; None where they are too few."""
    some = [of[0] for of in groups_of(rows).values()][:ANSWERED]
    try:
        count, (blocks,) = common_blocks([np.arange(len(some))], ["prompts"])
    except ValueError:
        return None
    if any(one.unwanted is None for one in some):
        return some, blocks, count, None
    unwanted = [str(one.unwanted) for one in some]
    return some, blocks, count, read_gradients(model, some, Sums(blocks, count), [layer], want, lambda *_: None, unwanted)


def judged(rates: Mapping[str, float], tried: int, fit: CrossFit) -> Concepts:
    """Rates with the share of them that is as large as safety's."""
    enough = len(rates) >= MIN_CONCEPTS and fit.estimate is not None
    p = (1 + sum(rate >= (fit.estimate or 0.0) for rate in rates.values())) / (1 + len(rates)) if enough else None
    return Concepts(tuple(rates), tuple(rates.values()), tried, p)


def _rate(sides: tuple[Sums, Sums], samples: Sequence[BlockSample]) -> float | None:
    """A concept's tax rate; None where it is not identified, or states are the same in both classes."""
    try:
        return point_rate(Direction(*sides).at(0), samples)
    except ValueError:
        return None
