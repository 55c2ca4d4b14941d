"""What a prediction is made from: prompts on either side of a safety objective, and tasks with their right answers. Imports no torch.

A **safety objective** is one of

- two classes of prompts, unsafe and safe (columns ``prompt`` and ``label``, where known ``group`` and ``completion``; or tasks, ``UNSAFE:SAFE``, several with commas),
- preferences (columns ``prompt``, ``chosen``, ``rejected``, as TRL has them; texts, or lists of messages).

``completion`` or ``chosen`` is what training would have the model say; of a task it is the task's own right answer.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aligntax.core.asks import Message
from aligntax.core.errors import InputError, LogError
from aligntax.core.items import Choose, Question, Task, Wording, Write
from aligntax.core.study import Elicitation
from aligntax.core.words import cut, items_text, printable
from aligntax.store.columns import read_columns
from aligntax.store.jsonio import json_rows, opened, shown
from aligntax.store.logs import Sighting
from aligntax.tasks.find import find_tasks

UNSAFE = frozenset({"1", "1.0", "true", "yes", "unsafe", "harmful", "harm", "bad"})
SAFE = frozenset({"0", "0.0", "false", "no", "safe", "harmless", "benign", "good"})
MIN_PROMPTS = 16
"""Fewer of a class say nothing of any other prompt."""


@dataclass(frozen=True)
class Request:
    """A prompt, and what belongs to it.

    Attributes:
        wording: as the model reads it.
        text: the prompt alone, to find the same one elsewhere.
        group: who shares a template or a source with others; None where that is not known.
        wanted, unwanted: what training would have the model say, and not say; None where nobody says it. Of a task's item its right answer.
        item, content: the item's id and the hash of its question and answer; None of what is no item of a task.
    """

    wording: Wording
    text: str
    group: str | None = None
    wanted: str | None = None
    unwanted: str | None = None
    item: str | None = None
    content: str | None = None


@dataclass(frozen=True)
class Objective:
    """A safety objective.

    Attributes:
        name: for people.
        unsafe, safe: two classes of prompts; of preferences ``safe`` is empty.
        notes: what was left out, and why.
        unsafe_tasks: names of the tasks that the unsafe prompts are; what safety training is to undo is none of what it should not cost.
    """

    name: str
    unsafe: tuple[Request, ...]
    safe: tuple[Request, ...]
    notes: tuple[str, ...] = ()
    unsafe_tasks: tuple[str, ...] = ()

    @property
    def is_preference(self) -> bool:
        """Whether it is told by answers rather than by two classes of prompts."""
        return any(one.unwanted is not None for one in self.unsafe)


@dataclass(frozen=True)
class Capability:
    """A task, as requests with their right answers (``wanted``)."""

    name: str
    requests: tuple[Request, ...]


def read_objective(text: str, template: str, include: Sequence[Path] = (), *, grouped: bool = False) -> Objective:
    """A safety objective by the name of a file, or of tasks.

    Args:
        text: a path, or ``UNSAFE:SAFE``.
        template: ``raw`` or ``chat``.
        include: folders of tasks.
        grouped: whether items of a task that share a cluster are one group; rows of a file are by their column ``group``.

    Raises:
        InputError, LogError: if there is none, or one class has too few prompts.
    """
    path = Path(text)
    if not _is_there(path) and ":" in text.removeprefix("lm-eval:"):
        sides = [capabilities(names.split(","), template, include, grouped=grouped) for names in _two_sides(text)]
        first, second = (tuple(r for task in side for r in task.requests) for side in sides)
        found = Objective(text, first, second, (), tuple(task.name for task in sides[0]))
    else:
        found = _of_rows(path, _rows(path), template)
    return _checked(found)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _two_sides(text: str) -> tuple[str, str]:
    """Names of tasks on either side of the colon; one may itself begin with ``lm-eval:``."""
    sides = re.split(r"(?<!lm-eval):", text)
    if len(sides) != 2 or not all(side.strip() for side in sides):
        raise InputError(
            f"{printable(text)} is no file, and no tasks on two sides; a safety objective is a table of prompts, or UNSAFE:SAFE such as "
            "lab/harmful_procedures:lab/procedures"
        )
    return sides[0], sides[1]


def _rows(path: Path) -> list[Mapping[str, Any]]:
    if not _is_there(path):
        raise LogError(f"{shown(path)} cannot be read: no such file; name a table of prompts, or two tasks as UNSAFE:SAFE")
    if Sighting(path).looks_like_json:
        rows: list[Mapping[str, Any]] = []
        with opened(path) as streams:
            for where, stream in streams:
                rows += [row for _, row in json_rows(stream, where)]
        return rows
    table = read_columns(path)
    return [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]


def _of_rows(path: Path, rows: Sequence[Mapping[str, Any]], template: str) -> Objective:
    names = {name for row in rows for name in row}
    where = shown(path)
    if "prompt" not in names or not ({"label"} <= names or {"chosen", "rejected"} <= names):
        raise LogError(
            f"{where} has the columns {cut(', '.join(map(printable, sorted(map(str, names)))), 300) or 'none'}; a safety objective has prompt and label "
            "(unsafe, safe), or prompt, chosen and rejected"
        )
    if "label" not in names:
        return Objective(path.name, tuple(_preference(row, template, f"{where}, row {n}") for n, row in enumerate(rows, 1)), ())
    sides: tuple[list[Request], list[Request]] = ([], [])
    for n, row in enumerate(rows, 1):
        label = str(row.get("label")).strip().lower()
        if label not in UNSAFE | SAFE:
            raise LogError(f"{where}, row {n}: the label is {cut(printable(repr(row.get('label'))), 60)}; write unsafe or safe (or 1, 0)")
        sides[label in SAFE].append(_request(row, template, f"{where}, row {n}"))
    return Objective(path.name, tuple(sides[0]), tuple(sides[1]))


def _request(row: Mapping[str, Any], template: str, where: str) -> Request:
    wording, text = _wording(row.get("prompt"), template, f"{where}: prompt")
    wanted = None if row.get("completion") in (None, "") else _said(row["completion"], f"{where}: completion")
    return Request(wording, text, None if row.get("group") in (None, "") else str(row["group"]), wanted)


def _preference(row: Mapping[str, Any], template: str, where: str) -> Request:
    one = _request(row, template, where)
    chosen, rejected = (_said(row.get(name), f"{where}: {name}") for name in ("chosen", "rejected"))
    if chosen == rejected:
        raise LogError(f"{where}: chosen and rejected are the same text")
    return Request(one.wording, one.text, one.group or one.text, chosen, rejected)  # answers to one prompt are not independent


def _wording(cell: Any, template: str, where: str) -> tuple[Wording, str]:
    """(as the model reads it, the text alone)."""
    if isinstance(cell, str) and cell.strip():
        return (cell if template == "raw" else (("user", cell),)), cell
    messages = _messages(cell, where)
    if template == "raw":
        raise LogError(f"{where} is a conversation, which a raw text is not; ask by --template chat")
    return messages, "\n".join(content for _, content in messages)


def _said(cell: Any, where: str) -> str:
    """An answer: a text, or the last message of a conversation."""
    if isinstance(cell, str) and cell.strip():
        return cell
    return _messages(cell, where)[-1][1]


def _messages(cell: Any, where: str) -> tuple[Message, ...]:
    if not isinstance(cell, list) or not cell:
        raise LogError(f"{where} is {cut(printable(repr(cell)), 60)}; a text is expected, or a list of messages with role and content")
    out = []
    for message in cell:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str) or not isinstance(message.get("content"), str):
            raise LogError(f"{where} holds {cut(printable(repr(message)), 60)}, which is no message with role and content as texts")
        out.append((message["role"], message["content"]))
    return tuple(out)


def _checked(found: Objective) -> Objective:
    """Prompts that stand on both sides, or twice, left out.

    Raises:
        InputError: if a class has too few.
    """
    both = {r.text for r in found.unsafe} & {r.text for r in found.safe}
    sides = [_once([r for r in side if r.text not in both], keep_answers=found.is_preference) for side in (found.unsafe, found.safe)]
    notes = (
        [
            f"{items_text(len(both), 'prompt')} of the safety objective {'stand' if len(both) > 1 else 'stands'} on both sides and {'are' if len(both) > 1 else 'is'} left out"
        ]
        if both
        else []
    )
    twice = len(found.unsafe) + len(found.safe) - sum(map(len, sides)) - sum(r.text in both for r in (*found.unsafe, *found.safe))
    notes += [f"{items_text(twice, 'repeated prompt')} of the safety objective left out"] if twice else []
    named = ("preferences",) if found.is_preference else ("unsafe prompts", "safe prompts")
    for what, side in zip(named, sides, strict=False):
        if len(side) < MIN_PROMPTS:
            raise InputError(
                f"{printable(found.name)} has {len(side)} different {what}{f', after {notes[0]}' if both else ''}; {MIN_PROMPTS} and more are needed, and some hundreds for a narrow interval"
            )
    return replace(found, unsafe=tuple(sides[0]), safe=tuple(sides[1]), notes=tuple(notes))


def _once(requests: Sequence[Request], *, keep_answers: bool) -> list[Request]:
    return list({(r.text, r.wanted, r.unwanted) if keep_answers else r.text: r for r in reversed(requests)}.values())[::-1]


def taught(rows: Sequence[Request], objective: Objective, answers: Sequence[str]) -> list[Request] | None:
    """Unsafe prompts with what training would have the model say (``wanted``); None where nobody says it of all of them.

    Args:
        rows: unsafe prompts of the objective.
        objective: of tasks the right answer is what is wanted, unless answers are given.
        answers: for prompts of which nothing is known, in turn; of tasks for all.
    """
    told = [None if objective.unsafe_tasks and answers else one.wanted for one in rows]
    if None in told and not answers:
        return None
    return [
        replace(one, wanted=answers[n % len(answers)] if text is None else text)
        for n, (one, text) in enumerate(zip(rows, told, strict=True))
    ]


# -- tasks ---------------------------------------------------------------------------------------------------------------------


def capabilities(
    names: Sequence[str], template: str, include: Sequence[Path] = (), *, render: Any = None, grouped: bool = False
) -> list[Capability]:
    """Tasks with the right answer of every item.

    Args:
        names: as ``measure`` takes them.
        template: ``raw`` or ``chat``.
        include: folders of tasks.
        render: renders a conversation by the model's own chat template, for tasks that need it.
        grouped: whether items that share a cluster are one group.

    Raises:
        InputError: on an unknown name, or a task without answers.
    """
    how = Elicitation(template="chat" if template == "chat" else "raw", shots=0)
    return [Capability(task.name, _answered(task, how, render, grouped=grouped)) for task in find_tasks(names, include)]


def _answered(task: Task, how: Elicitation, render: Any, *, grouped: bool) -> tuple[Request, ...]:
    found = [one for question in task.questions(how, render) if (one := _gold(question)) is not None]
    if not found:
        raise InputError(
            f"{printable(task.name)} has no right answers that could be scored (a task of whole texts, or without targets); leave it out"
        )
    return tuple(found if grouped else (replace(one, group=None) for one in found))


def _gold(question: Question) -> Request | None:
    """The first thing that an item asks, with its right answer as it would stand behind the prompt."""
    want = question.wants[0]
    if isinstance(want, Choose):
        right = [c for c in want.choices if c.strip() == question.target.strip()]
        return (
            None
            if len(right) != 1
            else Request(want.wording, question.question, question.cluster, right[0], None, question.item, question.content)
        )
    if not isinstance(want, Write) or not question.target.strip():
        return None
    space = " " if isinstance(want.wording, str) and not want.wording[-1:].isspace() else ""
    return Request(want.wording, question.question, question.cluster, f"{space}{question.target}", None, question.item, question.content)


def divided(objective: Objective, tasks: Sequence[Capability], seed: int) -> tuple[Objective, list[Capability], list[str]]:
    """Prompts that are both the safety objective's and a task's, divided between them by whole groups: one in both would be an overlap of its own making.

    Args:
        objective: what safety training would teach.
        tasks: what it should not cost.
        seed: of the division.

    Returns:
        Both without what the other has, and what was divided, in words.
    """
    known = {r.text for r in (*objective.unsafe, *objective.safe)}
    taken: set[str] = set()
    out, notes = [], []
    for task in tasks:
        if task.name in objective.unsafe_tasks:
            notes.append(f"{printable(task.name)} is what safety training is to undo, and none of what it should not cost")
            continue
        both = [r for r in task.requests if r.text in known]
        mine = {r.text for r in halves(both, f"{seed} {task.name}")[0]} - taken
        taken |= mine
        kept = tuple(r for r in task.requests if r.text not in known or r.text in mine)
        if both:
            notes.append(
                f"{items_text(len(both), 'prompt')} of {printable(task.name)} are the safety objective's as well: half of them count as the task's"
            )
        if kept:
            out.append(Capability(task.name, kept))
    unsafe, safe = (tuple(r for r in side if r.text not in taken) for side in (objective.unsafe, objective.safe))
    return replace(objective, unsafe=unsafe, safe=safe), out, notes


def groups_of(rows: Sequence[Request]) -> dict[object, list[Request]]:
    """Requests by group; who has none is alone."""
    groups: dict[object, list[Request]] = {}
    for n, one in enumerate(rows):
        groups.setdefault(one.group if one.group is not None else n, []).append(one)
    return groups


def halves(rows: Sequence[Request], draw: str) -> tuple[list[Request], list[Request]]:
    """Two halves by whole groups; ``draw`` names the draw."""
    groups = groups_of(rows)
    first: list[Request] = []
    second: list[Request] = []
    for name in random.Random(f"{draw} halves").sample(sorted(groups, key=str), len(groups)):  # noqa: S311 - a split of prompts
        (first if len(first) <= len(second) else second).extend(groups[name])
    return first, second


def sample(requests: Sequence[Request], count: int, seed: int, what: str) -> list[Request]:
    """So many requests, one of every group, then a second of every group, ...: many groups tell more than many of a group."""
    draw = random.Random(f"{seed} {what}")  # noqa: S311 - a sample of questions
    groups = groups_of(requests)
    queues = [draw.sample(groups[name], len(groups[name])) for name in draw.sample(sorted(groups, key=str), len(groups))]
    rounds = zip_longest(*queues)
    return [one for around in rounds for one in around if one is not None][:count]
