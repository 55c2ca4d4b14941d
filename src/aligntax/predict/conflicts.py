"""Safety objectives set against each other, with and without each capability kept as it is, told from the base model alone (imports torch).

Directions are those of ``predict.tax``; all are read at one layer, that at which the least identified objective stands out best on prompts that are
used for nothing else. Products are corrected for the noise of every direction (``stats.directions``).

Objectives may hold the same prompts: these are in the same half and the same block of every objective that holds them, so that noise in common makes no
cosine. What the *classes* have in common remains, and a note says so. Objectives and tasks have no prompt in common.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable
from aligntax.predict.conflict_results import Conflicts, Pair, Preserved, ReadObjective, ReadTask
from aligntax.predict.gather import (
    MIN_ITEMS,
    Sides,
    Sums,
    Tell,
    blocks_of,
    choices,
    choose,
    keep_reliable,
    kind_of,
    layers_of,
    named,
    read_direction,
    read_gradients,
)
from aligntax.predict.inputs import Capability, Objective, Request, divided, groups_of, sample
from aligntax.predict.results import Kind, Settings
from aligntax.stats.directions import MIN_BLOCKS, BlockSample, block_reliability, corrected_cosine, partial_cosine
from aligntax.stats.multiplicity import holm

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel


def predict_conflicts(
    model: HFModel,
    objectives: Sequence[Objective],
    tasks: Sequence[Capability],
    settings: Settings | None = None,
    tell: Tell = lambda *_: None,
) -> Conflicts:
    """How a base model says that safety objectives pull at each other.

    Args:
        model: the base model, local.
        objectives: what safety training would teach; two or more.
        tasks: what it should not cost.
        settings: how.
        tell: progress: what, done, of how many.

    Raises:
        InputError: if there are fewer than two objectives, two are the same, there are too few prompts or items, or a state or gradient is no number.
    """
    want = settings or Settings()
    # Unless answers are asked for: objectives that are contrasts of the same prompts often want the same answers.
    kinds: list[Kind | None] = ["answers" if want.direction == "answers" and not one.is_preference else None for one in objectives]
    for one in objectives:
        if want.direction == "answers":
            kind_of(one, want)
    objectives = _distinct(objectives)
    objectives, tasks, shared = _apart(objectives, tasks, want.seed)
    notes = [
        *(f"{printable(one.name)}: {note}" for one in objectives for note in one.notes),
        *shared,
        *_alike(objectives, mixed=want.direction != "answers"),
    ]
    items = _items(tasks, want, notes)
    deep = int(model.local.model.config.get_text_config().num_hidden_layers)
    layers = layers_of(deep, want.layer)
    choosing, sides = _halved(_linked(objectives), want, notes)
    count, blocks = blocks_of(
        {_part(one, what): (rows, "safety") for one, parts in zip(objectives, sides, strict=True) for what, rows in parts.items()}
        | {f"task {name}": (rows, "task") for name, rows in items.items()}
    )
    seen = [
        choices(model, one, half, layers, want, _for(tell, f"{one.name}, layers"), kind)
        for one, half, kind in zip(objectives, choosing, kinds, strict=True)
    ]
    least = [(0.0, min(z for _, z in at)) for at in zip(*seen, strict=True)]
    chosen, chosen_by = choose(layers, least, deep, want.layer)
    directions = [
        read_direction(
            model, one, parts, {what: blocks[_part(one, what)] for what in parts}, count, [chosen], want, _for(tell, one.name), kind
        ).at(0)
        for one, parts, kind in zip(objectives, sides, kinds, strict=True)
    ]
    for one, direction in zip(objectives, directions, strict=True):
        if not np.any(direction.means):
            raise InputError(
                f"layer {chosen} of {printable(model.name)} is the same after all prompts of {printable(one.name)}: nothing is to be compared; name another --layer"
            )
    found = {
        name: read_gradients(model, rows, Sums(blocks[f"task {name}"], count), [chosen], want, partial(tell, name))
        for name, rows in items.items()
    }
    _keep(found, directions[0], want, notes)
    capabilities = {name: sums.sample(0) for name, sums in found.items()}
    pairs = [
        _pair((objectives[i], objectives[j]), (directions[i], directions[j]), capabilities, want)
        for i, j in combinations(range(len(objectives)), 2)
    ]
    told = [_told(*one) for one in zip(objectives, sides, directions, kinds, strict=True)]
    return Conflicts(
        model.name, dict(model.identity), want.template, tuple(told), tuple(ReadTask(name, len(sums), block_reliability(sums.sample(0))[0]) for name, sums in found.items()),
        chosen, chosen_by, directions[0].means.shape[1], tuple(pairs), want, tuple(notes),
    )  # fmt: skip


# -- objectives ----------------------------------------------------------------------------------------------------------------------


def _distinct(objectives: Sequence[Objective]) -> list[Objective]:
    """Objectives under names of their own.

    Raises:
        InputError: if there are fewer than two, or two are the same.
    """
    if len(objectives) < 2:
        raise InputError(
            f"a conflict takes two safety objectives or more, and {len(objectives)} was given; name --safety once for each of them"
        )
    out: list[Objective] = []
    for one in objectives:
        for other in out:
            if _sides_texts(one) == _sides_texts(other):
                raise InputError(
                    f"{printable(one.name)} and {printable(other.name)} hold the same prompts on the same sides: an objective has no conflict with itself; name each once"
                )
        names = {other.name for other in out}
        free = next(name for n in range(1, len(out) + 2) if (name := one.name if n == 1 else f"{one.name} ({n})") not in names)
        out.append(replace(one, name=free))
    return out


def _sides_texts(one: Objective) -> tuple[frozenset[tuple[str, str | None, str | None]], ...]:
    """What tells an objective from another: the prompts on either side, and the answers of preferences."""
    return tuple(
        frozenset((r.text, *((r.wanted, r.unwanted) if one.is_preference else (None, None))) for r in side)
        for side in (one.unsafe, one.safe)
    )


def _apart(objectives: Sequence[Objective], tasks: Sequence[Capability], seed: int) -> tuple[list[Objective], list[Capability], list[str]]:
    """Objectives and tasks without a prompt in common, those of all objectives divided from the tasks' at once."""
    every = Objective(
        "",
        tuple(r for one in objectives for r in one.unsafe),
        tuple(r for one in objectives for r in one.safe),
        (),
        tuple(dict.fromkeys(name for one in objectives for name in one.unsafe_tasks)),
    )
    rest, tasks, notes = divided(every, tasks, seed)
    left = {r.text for r in (*rest.unsafe, *rest.safe)}
    kept = [
        replace(one, unsafe=tuple(r for r in one.unsafe if r.text in left), safe=tuple(r for r in one.safe if r.text in left))
        for one in objectives
    ]
    return kept, tasks, notes


def _alike(objectives: Sequence[Objective], *, mixed: bool) -> list[str]:
    """What people should know of objectives that have prompts, or not even the kind of their directions, in common."""
    notes = []
    for one, other in combinations(objectives, 2):
        names = f"{printable(one.name)} and {printable(other.name)}"
        same, across = (sum(len(a & b) for a, b in pairs) for pairs in _common(one, other))
        if same:
            notes.append(
                f"{names} have {items_text(same, 'prompt')} in common on the same side: directions away from the same prompts are alike in that alone "
                "(unrelated ones have a cosine of .5 where all of a side is in common)"
            )
        if across:
            notes.append(
                f"{names} have {items_text(across, 'prompt')} in common on opposite sides: directions to and from the same prompts pull apart by that alone"
            )
    if mixed and len({one.is_preference for one in objectives}) > 1:
        notes.append(
            "of some objectives the direction is a difference of mean states (a vector), of others a mean gradient (a covector): a cosine between the two is still a "
            "number, but it depends on the units of the states more than one between directions of a kind"
        )
    return notes


def _common(one: Objective, other: Objective) -> tuple[list[tuple[set[str], set[str]]], list[tuple[set[str], set[str]]]]:
    """Texts of both objectives to be held against each other: of the same sides, and of opposite sides."""
    a, b = ([{r.text for r in side} for side in (of.unsafe, of.safe)] for of in (one, other))
    return [(a[0], b[0]), (a[1], b[1])], [(a[0], b[1]), (a[1], b[0])]


def _linked(objectives: Sequence[Objective]) -> list[Objective]:
    """Objectives in which whoever has the same text is of the same group, and so are those who share a group with them."""
    rows = [r for one in objectives for side in (one.unsafe, one.safe) for r in side]
    often = Counter(r.text for r in rows)
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            node = parent[node]
        return node

    for r in rows:
        if r.group is not None:
            parent[root(("text", r.text))] = root(("group", r.group))

    def label(r: Request) -> Request:
        if r.group is None and often[r.text] == 1:
            return r
        return replace(r, group=": ".join(root(("text", r.text))))

    return [replace(one, unsafe=tuple(map(label, one.unsafe)), safe=tuple(map(label, one.safe))) for one in objectives]


def _halved(objectives: Sequence[Objective], want: Settings, notes: list[str]) -> tuple[list[Sides | None], list[Sides]]:
    """Prompts by objective and class: of the half that chooses the layer, and of the half that gives the directions; whole groups, the same half in all objectives.

    No choice, and all prompts, where groups of one class are too few to halve.

    Raises:
        InputError: if groups are too few for anything.
    """
    sides = [
        {
            what: sample(side, want.prompts, want.seed, what)
            for what, side in (("unsafe", one.unsafe), ("safe", one.safe))
            if side or not one.is_preference
        }
        for one in objectives
    ]
    few = [min(len(groups_of(side)) for side in parts.values()) for parts in sides]
    for one, groups in zip(objectives, few, strict=True):
        if groups < MIN_BLOCKS:
            raise InputError(
                f"{printable(one.name)}: {groups} independent groups of prompts on one side, and {MIN_BLOCKS} are needed (prompts of one group share a template or a source)"
            )
        if groups < 2 * MIN_BLOCKS and want.layer is None:
            notes.append(
                f"the layer was not chosen by the data: {printable(one.name)} has {groups} independent groups of prompts on one side, too few to be halved"
            )
    if min(few) < 2 * MIN_BLOCKS or want.layer is not None:
        return [None] * len(sides), list(sides)
    parts = {(i, what): rows for i, of in enumerate(sides) for what, rows in of.items()}
    half_of = _half_of(parts, want.seed)

    def of_half(half: int) -> list[Sides]:
        return [
            {what: [r for n, r in enumerate(rows) if half_of[_label(r, (i, what), n)] == half] for what, rows in of.items()}
            for i, of in enumerate(sides)
        ]

    return list(of_half(0)), of_half(1)


Part = tuple[int, str]


def _label(one: Request, part: Part, number: int) -> str:
    return f"group {one.group}" if one.group is not None else f"alone {part} {number}"


def _half_of(parts: Mapping[Part, Sequence[Request]], seed: int) -> dict[str, int]:
    """The half of every group, 0 or 1, so that each part has about as many groups in either; those of several parts first."""
    members: dict[str, set[Part]] = {}
    for part, rows in parts.items():
        for n, one in enumerate(rows):
            members.setdefault(_label(one, part, n), set()).add(part)
    order = random.Random(f"{seed} objectives halves").sample(sorted(members), len(members))  # noqa: S311 - a split of prompts
    ahead: Counter[Part] = Counter()  # groups that a part has more of in the first half
    out = {}
    for name in sorted(order, key=lambda name: -len(members[name])):
        half = int(sum(ahead[part] for part in members[name]) > 0)
        out[name] = half
        for part in members[name]:
            ahead[part] += 1 - 2 * half
    return out


def _told(one: Objective, parts: Sides, direction: BlockSample, kind: Kind | None) -> ReadObjective:
    reliability, z = block_reliability(direction)
    made_of: Kind = kind or ("preferences" if one.is_preference else "states")
    return ReadObjective(one.name, made_of, len(parts["unsafe"]), len(parts.get("safe", ())) if made_of == "states" else 0, reliability, z)


def _part(one: Objective, what: str) -> str:
    return f"{one.name}, {what} prompts"


def _for(tell: Tell, name: str) -> Tell:
    return lambda what, done, total: tell(f"{name}: {what}", done, total)


# -- tasks ---------------------------------------------------------------------------------------------------------------------------


def _items(tasks: Sequence[Capability], want: Settings, notes: list[str]) -> dict[str, list[Request]]:
    """By task: items for its gradient.

    Raises:
        InputError: if no task has enough.
    """
    out = {}
    for task in tasks:
        rows = sample(task.requests, want.items, want.seed, task.name)
        if len(rows) < MIN_ITEMS or len(groups_of(rows)) < MIN_BLOCKS:
            notes.append(
                f"{printable(task.name)} left out: {items_text(len(rows))} in {len(groups_of(rows))} groups; a direction takes {MIN_ITEMS} items in {MIN_BLOCKS} groups"
            )
        else:
            out[task.name] = rows
    if not out:
        raise InputError(
            f"no task has the {MIN_ITEMS} items in {MIN_BLOCKS} groups that a direction takes and is none of what safety training is to undo; name other tasks, or tasks with more"
        )
    return out


def _keep(found: dict[str, Sums], safety: BlockSample, want: Settings, notes: list[str]) -> None:
    """Leave out tasks whose direction is mostly noise, all of them if need be: cosines between objectives take none."""
    try:
        keep_reliable(found, safety, 0, want, notes)
    except InputError:
        if found:
            raise
        notes.append(
            "no task has a direction that can be told from noise: objectives are set against each other with nothing kept; use more items"
        )


# -- pairs ---------------------------------------------------------------------------------------------------------------------------


def _pair(
    two: tuple[Objective, Objective], directions: tuple[BlockSample, BlockSample], capabilities: Mapping[str, BlockSample], want: Settings
) -> Pair:
    """Two objectives with nothing kept, with all capabilities kept, and with each.

    Raises:
        InputError: if the directions cannot be compared.
    """
    names = [one.name for one in two]
    tasks = list(capabilities)
    try:
        whole = corrected_cosine(*directions, level=want.level)
        if whole.reason is not None:
            whole = replace(whole, reason=_objectives_named(whole.reason, names))
        together = _preserved(directions, capabilities, None, names, want) if tasks else None
        each = [_preserved(directions, {task: capabilities[task]}, task, names, want) for task in tasks]
    except ValueError as error:
        raise InputError(f"{printable(names[0])} and {printable(names[1])}: {named(str(error), tasks)}") from None
    known = [n for n, one in enumerate(each) if one.change is not None]
    for n, p in zip(known, holm([one.change.p for one in each if one.change is not None]), strict=True):
        each[n] = replace(each[n], p_holm=p)
    same, across = (sum(len(a & b) for a, b in pairs) for pairs in _common(*two))
    return Pair(names[0], names[1], whole, together, tuple(each), same + across)


def _preserved(
    directions: tuple[BlockSample, BlockSample],
    capabilities: Mapping[str, BlockSample],
    task: str | None,
    names: Sequence[str],
    want: Settings,
) -> Preserved:
    found = partial_cosine(*directions, list(capabilities.values()), level=want.level)
    reason = None if found.reason is None else _objectives_named(named(found.reason, list(capabilities)), names)
    p = None if found.change is None else found.change.p
    return Preserved(task, found.partial, found.change, p, found.taxes, found.clipped, reason)


def _objectives_named(text: str, names: Sequence[str]) -> str:
    """What an estimator says of a safety direction by its number, with the objective's name."""
    return re.sub(r"safety direction (\d+)", lambda m: f"the direction of {printable(names[int(m[1]) - 1])}", text)
