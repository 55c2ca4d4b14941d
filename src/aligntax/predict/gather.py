"""States and gradients of an objective's prompts and of tasks' items, summed by block as they are read, and which layer to read (imports torch).

Rows are never kept: of every direction there are K blocks of whole groups (``stats.directions.common_blocks``), and of a block the mean at every layer that is
looked at. So memory is K x layers x dimensions per direction, however many prompts there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable
from aligntax.flow.collect import prompt_of
from aligntax.predict.inputs import Capability, Objective, Request, groups_of, halves, sample, taught
from aligntax.predict.reading import Tokens, gradients, hidden_states
from aligntax.predict.results import ChosenBy, Kind, Settings
from aligntax.stats.directions import (
    BLOCKS,
    MIN_BLOCKS,
    MIN_CAPABILITY_RELIABILITY,
    BlockSample,
    CrossFit,
    block_reliability,
    common_blocks,
    cross_fitted,
)

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

MAX_LAYERS = 12
"""Layers that are looked at; of a deeper model so many, evenly spread."""
PLACES = (-1, -2, -3, -4)
"""Tokens from a prompt's end whose states are looked at for a difference of means: where a template ends, the last is not always the one that tells most."""
MIN_ITEMS = 16
"""Items of a task, for its gradient; with fewer it is left out."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Tell = Callable[[str, int, int], None]
Some = Callable[[int, int], None]


class Sums:
    """States or gradients of one class, by block.

    Attributes:
        blocks: (N,) of every row; below 0 for one that counts nowhere.
        counts: (K,) rows.
        sums: (K, L, D); (K, 0, 0) before any was read.
        values: (N,) mean log-probability of a row's answer, where gradients were read.
    """

    def __init__(self, blocks: IntArray, count: int) -> None:
        self.blocks = blocks
        self.counts = np.bincount(blocks[blocks >= 0], minlength=count).astype(np.float64)
        self.sums: FloatArray = np.zeros((count, 0, 0))
        self.values = np.full(len(blocks), np.nan)

    def add(self, numbers: IntArray, x: npt.NDArray[np.float32]) -> None:
        """Rows ``x`` (B, L, D), which are those with these numbers."""
        if not self.sums.size:
            self.sums = np.zeros((len(self.counts), *x.shape[1:]))
        blocks = self.blocks[numbers]
        order = np.argsort(blocks, kind="stable")
        order = order[blocks[order] >= 0]
        if not len(order):
            return
        found, starts = np.unique(blocks[order], return_index=True)
        # No matrix product: the threads of numpy's library would spin beside those of the model.
        self.sums[found] += np.add.reduceat(x[order], starts, axis=0)

    def means(self, at: int) -> FloatArray:
        """(K, D) by block, at one layer."""
        return np.asarray(self.sums[:, at] / self.counts[:, None])

    def mean(self, at: int) -> FloatArray:
        """(D,) of all rows, at one layer."""
        return np.asarray(self.sums[:, at].sum(axis=0) / self.counts.sum())

    def sample(self, at: int) -> BlockSample:
        return BlockSample(self.means(at), self.counts)

    def __len__(self) -> int:
        return len(self.blocks)


@dataclass(frozen=True)
class Direction:
    """What a safety objective's direction is made of: one class less the other, or of preferences (``negative`` None) the mean of differences.

    Attributes:
        positive, negative: classes.
    """

    positive: Sums
    negative: Sums | None

    def at(self, layer: int) -> BlockSample:
        if self.negative is None:
            return self.positive.sample(layer)
        one, two = self.positive.counts, self.negative.counts
        return BlockSample(self.positive.means(layer) - self.negative.means(layer), one * two / (one + two))


def layers_of(deep: int, wanted: int | None) -> list[int]:
    """Layers to look at: 0 to ``deep``, or some of them, evenly spread."""
    if wanted is not None and not 0 <= wanted <= deep:
        raise InputError(f"--layer lies between 0 (the embeddings) and {deep}; got {wanted}")
    some = range(deep + 1) if deep < MAX_LAYERS else sorted({round(deep * k / (MAX_LAYERS - 1)) for k in range(MAX_LAYERS)})
    return sorted({*some, *([] if wanted is None else [wanted])})


def choose(layers: Sequence[int], choosing: Sequence[tuple[float, float]], deep: int, wanted: int | None) -> tuple[int, ChosenBy]:
    """The layer to read: as somebody says, else where the safety direction is farthest from nothing on prompts of their own, else three fifths of the way."""
    if wanted is not None:
        return wanted, "you"
    inner = [at for at, layer in enumerate(layers) if 0 < layer < deep] or [*range(len(layers))]
    if choosing:
        return layers[max(inner, key=lambda at: choosing[at][1])], "data"
    return layers[min(inner, key=lambda at: abs(layers[at] - 0.6 * deep))], "rule"


# -- safety --------------------------------------------------------------------------------------------------------------------------

Sides = Mapping[str, Sequence[Request]]


def sides_of(objective: Objective, want: Settings, notes: list[str]) -> tuple[Sides | None, Sides]:
    """Prompts by class: of the half that chooses the layer, and of the half that gives the direction; no choice, and all prompts, where groups are too few to halve.

    Raises:
        InputError: if groups are too few for anything.
    """
    sides = {
        what: sample(side, want.prompts, want.seed, what) for what, side in (("unsafe", objective.unsafe), ("safe", objective.safe)) if side
    }
    few = min(len(groups_of(side)) for side in sides.values())
    if few < MIN_BLOCKS:
        raise InputError(
            f"{printable(objective.name)}: {few} independent groups of prompts on one side, and {MIN_BLOCKS} are needed (prompts of one group share a template or a source)"
        )
    if few < 2 * MIN_BLOCKS or want.layer is not None:
        if want.layer is None:
            notes.append(f"the layer was not chosen by the data: {few} independent groups of prompts on one side are too few to be halved")
        return None, sides
    split = {what: halves(side, f"{want.seed} {what}") for what, side in sides.items()}
    return {what: part[0] for what, part in split.items()}, {what: part[1] for what, part in split.items()}


def kind_of(objective: Objective, want: Settings) -> Kind:
    """What a safety direction is made of: gradients of wanted answers where they are known, unless states are asked for.

    Raises:
        InputError: if wanted answers are asked for and nobody says them.
    """
    if objective.is_preference:
        return "preferences"
    known = want.direction != "states" and taught(objective.unsafe, objective, want.answers) is not None
    if want.direction == "answers" and not known:
        raise InputError(
            f"{printable(objective.name)}: nobody says what is wanted of unsafe prompts; say so in the column completion, or with --answer"
        )
    return "answers" if known else "states"


def read_direction(
    model: HFModel,
    objective: Objective,
    sides: Sides,
    blocks: Mapping[str, IntArray],
    count: int,
    layers: Sequence[int],
    want: Settings,
    tell: Tell,
    kind: Kind | None = None,
) -> Direction:
    """The safety direction at every layer that is looked at.

    Args:
        model: local.
        objective: what safety training would teach.
        sides: prompts by class.
        blocks: of these.
        count: of blocks.
        layers: to look at.
        want: settings.
        tell: progress.
        kind: what it is made of; None takes preferences where these are given, else states.
    """
    kind = kind or ("preferences" if objective.is_preference else "states")
    if kind == "states":
        unsafe, safe = (
            read_states(model, sides[what], [Sums(blocks[what], count)], layers, want, partial(tell, f"{what} prompts"))[0]
            for what in ("unsafe", "safe")
        )
        return Direction(unsafe, safe)
    wanted = taught(sides["unsafe"], objective, want.answers) if kind == "answers" else sides["unsafe"]
    return read_answers(model, wanted or (), blocks["unsafe"], count, layers, want, tell)


def read_answers(
    model: HFModel, rows: Sequence[Request], blocks: IntArray, count: int, layers: Sequence[int], want: Settings, tell: Tell
) -> Direction:
    """What raises the wanted answers to prompts and, where they are known, lowers the unwanted ones: gradients of log-odds, a row per prompt."""
    found = read_gradients(model, rows, Sums(blocks, count), layers, want, partial(tell, "wanted answers"))
    known = [n for n, one in enumerate(rows) if one.unwanted is not None]
    if len(known) == len(rows):
        other = read_gradients(
            model, rows, Sums(blocks, count), layers, want, partial(tell, "unwanted answers"), [str(one.unwanted) for one in rows]
        )
        found.sums -= other.sums
    return Direction(found, None)


def choices(
    model: HFModel, objective: Objective, sides: Sides | None, layers: Sequence[int], want: Settings, tell: Tell, kind: Kind | None = None
) -> list[tuple[float, float]]:
    """(reliability, z) of the safety direction by layer, on prompts that do nothing but choose."""
    if sides is None:
        return []
    count, blocks = blocks_of({what: (rows, "safety") for what, rows in sides.items()})
    found = read_direction(model, objective, sides, blocks, count, layers, want, tell, kind)
    return [block_reliability(found.at(at)) for at in range(len(layers))]


def place_of(
    model: HFModel,
    objective: Objective,
    sides: Sides | None,
    others: Iterable[Request],
    layers: Sequence[int],
    want: Settings,
    tell: Tell,
    kind: Kind,
) -> int:
    """The token, counted from a prompt's end, at which a difference of mean states stands out best, on prompts that do nothing but choose; the last where nothing chooses.

    Args:
        model: local.
        objective: what safety training would teach.
        sides: prompts that choose; None for none.
        others: all further prompts that are read there: none may be shorter.
        layers: to look at.
        want: settings.
        tell: progress.
        kind: what the direction is made of.
    """
    if want.place is not None or kind != "states" or sides is None:
        return want.place or -1
    shortest = min(len(prompt_tokens(model, one)) for one in chain(*sides.values(), others))
    inner = layers[1:-1] or layers
    best = {
        place: max(
            z
            for layer, (_, z) in zip(layers, choices(model, objective, sides, layers, replace(want, place=place), tell, kind), strict=True)
            if layer in inner
        )
        for place in PLACES
        if -place <= shortest
    }
    return max(best, key=lambda place: best[place]) if best else -1


# -- blocks --------------------------------------------------------------------------------------------------------------------------


def blocks_of(parts: Mapping[str, tuple[Sequence[Request], str]]) -> tuple[int, dict[str, IntArray]]:
    """How many blocks, and the block of every row of every part; parts of one kind share their groups' names.

    Args:
        parts: by name, requests and the kind of their groups.

    Raises:
        InputError: if a part has too few groups.
    """
    names = list(parts)
    labels = [_labels(rows, kind, name) for name, (rows, kind) in parts.items()]
    count = BLOCKS
    while True:
        try:
            found, blocks = common_blocks(labels, [printable(name) for name in names], count)
        except ValueError as error:
            if count > MIN_BLOCKS and "without rows" in str(error):
                count = max(MIN_BLOCKS, count - 4)
                continue
            raise InputError(str(error)) from None
        return found, dict(zip(names, blocks, strict=True))


def _labels(rows: Sequence[Request], kind: str, name: str) -> npt.NDArray[np.object_]:
    """Groups, of which parts of one kind may share some; who has none is alone under its part's name."""
    out = np.empty(len(rows), dtype=object)
    out[:] = [f"{kind}: {one.group}" if one.group is not None else f"{kind} {name}: alone {n}" for n, one in enumerate(rows)]
    return out


# -- reading -------------------------------------------------------------------------------------------------------------------------


def prompt_tokens(model: HFModel, one: Request) -> Tokens:
    return prompt_of(model, one.wording).tokens or ()


def example(model: HFModel, one: Request, answer: str) -> tuple[Tokens, Tokens]:
    """(prompt, answer) in token ids."""
    ask = model.continuation(prompt_of(model, one.wording), answer)
    return ask.prompt.tokens or (), ask.tokens or ()


def read_states(
    model: HFModel, rows: Sequence[Request], into: Sequence[Sums], layers: Sequence[int], want: Settings, tell: Some
) -> Sequence[Sums]:
    """The states of every prompt at one place, the last token's unless settings say another, into one set of sums or several."""
    done = 0
    prompts = [prompt_tokens(model, one) for one in rows]
    for batch in hidden_states(model.local.model, prompts, places=(want.place or -1,), batch_tokens=want.batch_tokens):
        some = batch.states[:, list(layers), 0]
        for sums in into:
            sums.add(batch.numbers, some)
        done += len(some)
        tell(done, len(rows))
    return into


def read_gradients(
    model: HFModel,
    rows: Sequence[Request],
    into: Sums,
    layers: Sequence[int],
    want: Settings,
    tell: Some,
    answers: Iterable[str] | None = None,
) -> Sums:
    """Gradients of every request's answer, and its log-probability."""
    said = [str(one.wanted) for one in rows] if answers is None else answers
    done = 0
    examples = [example(model, one, answer) for one, answer in zip(rows, said, strict=True)]
    for batch in gradients(model.local.model, examples, layers=layers, head=model.scorer.head, batch_tokens=want.batch_tokens):
        into.add(batch.numbers, batch.gradients)
        into.values[batch.numbers] = batch.values
        done += len(batch.numbers)
        tell(done, len(rows))
    return into


# -- tasks -----------------------------------------------------------------------------------------------------------------------


def keep_reliable(found: dict[str, Sums], safety: BlockSample, at: int, want: Settings, notes: list[str]) -> None:
    """Leave out tasks whose direction is mostly noise at the layer that was chosen: they would make the whole span one.

    Raises:
        InputError: if none is left, or the directions cannot be compared at all.
    """
    try:
        fit = fitted(safety, found, at, want)
    except ValueError as error:
        raise InputError(str(error)) from None
    for name, reliability in zip(list(found), fit.capability_reliabilities.tolist(), strict=True):
        if not reliability >= MIN_CAPABILITY_RELIABILITY:
            count = len(found.pop(name))
            more = "" if reliability <= 0 else f", about {_more(reliability):.1f} times as many items would do"
            notes.append(
                f"{printable(name)} left out: the direction of its {count} items has reliability {reliability:.2f}, and {MIN_CAPABILITY_RELIABILITY:.2f} is needed{more}"
            )
    if not found:
        raise InputError(f"no task has a direction that can be told from noise; use more items ({notes[-1]})")


def fitted(safety: BlockSample, found: Mapping[str, Sums], at: int, want: Settings) -> CrossFit:
    """The tax rate at one layer; what is said of a direction names its task.

    Raises:
        ValueError: if the directions cannot be compared.
    """
    tasks = [*found]
    try:
        fit = cross_fitted(safety, [sums.sample(at) for sums in found.values()], level=want.level)
    except ValueError as error:
        raise ValueError(named(str(error), tasks)) from None
    return fit if fit.reason is None else replace(fit, reason=named(fit.reason, tasks))


def named(text: str, tasks: Sequence[str]) -> str:
    """What an estimator says of a capability by its number, with the task's name."""
    return re.sub(r"capability (\d+) \(counted from 0\)", lambda m: f"the direction of {printable(tasks[int(m[1])])}", text)


def _more(reliability: float) -> float:
    """How many times as many rows a reliability of two thirds takes (Spearman and Brown 1910)."""
    odds = MIN_CAPABILITY_RELIABILITY / (1 - MIN_CAPABILITY_RELIABILITY)
    return odds * (1 - reliability) / reliability


def task_parts(tasks: Sequence[Capability], want: Settings, notes: list[str]) -> dict[str, tuple[list[Request], list[Request]]]:
    """By task: items for its gradient, and items for random concepts; whole groups in either.

    Raises:
        InputError: if no task has enough.
    """
    out = {}
    for task in tasks:
        rows = sample(task.requests, want.items, want.seed, task.name)
        one, two = halves(rows, f"{want.seed} {task.name}")
        if len(one) < MIN_ITEMS or len(groups_of(one)) < MIN_BLOCKS:
            notes.append(
                f"{printable(task.name)} left out: {items_text(len(rows))} in {len(groups_of(rows))} groups; a direction and its null take {2 * MIN_ITEMS} items in "
                f"{2 * MIN_BLOCKS} groups"
            )
        else:
            out[task.name] = (one, two)
    if not out:
        raise InputError(
            f"no task has the {2 * MIN_ITEMS} items in {2 * MIN_BLOCKS} groups that a direction and its null take; name tasks with more"
        )
    return out
