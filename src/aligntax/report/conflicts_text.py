"""Conflicts between safety objectives for a terminal, and the tables and sentences that a page shares."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from rich.console import Group, RenderableType
from rich.text import Text

from aligntax.core.words import cut, items_text, level_text, number, p_text, percent, printable
from aligntax.predict.conflict_results import NEGLIGIBLE, Conflicts, Outcome, Pair, Preserved, level_of, outcome
from aligntax.report.grids import NOTHING, Grid, name_text, rich_table
from aligntax.stats.directions import Jackknifed
from aligntax.stats.paired import critical_value

OUTCOME_WORDS: dict[Outcome, str] = {
    "resolved": "conflict resolved",
    "mediated": "conflict gone",
    "attenuated": "conflict weaker",
    "unchanged": "conflict unchanged",
    "worsened": "conflict worse",
    "induced": "conflict made",
    "none": "no conflict",
    "not shown": "not shown",
    "not identified": "not identified",
}
OUTCOME_MEANS: dict[Outcome, str] = {
    "resolved": "With all of the tasks kept as they are, the two pull together: the conflict ran through what the tasks need.",
    "mediated": "With all of the tasks kept as they are, next to nothing of the conflict is left: it ran through what the tasks need.",
    "attenuated": "With all of the tasks kept as they are the conflict is weaker: part of it runs through what the tasks need.",
    "unchanged": "Keeping all of the tasks as they are changes next to nothing of that.",
    "worsened": "With all of the tasks kept as they are the conflict is worse: what the tasks need hid part of it.",
    "induced": "With all of the tasks kept as they are the two come to pull apart.",
    "none": "With all of the tasks kept as they are they do not pull apart either.",
    "not shown": "What keeping all of the tasks does to that is not shown.",
    "not identified": "What keeping all of the tasks does to that is not identified.",
}
CHANGED: frozenset[Outcome] = frozenset({"resolved", "mediated", "attenuated", "worsened", "induced"})
"""Outcomes of a change that is shown."""
SHAPE = (
    "Keeping a task as it is never makes more safety attainable: it takes away, from what can be reached together, all that would move the task. What it can change is the shape of "
    "the rest: whether a step towards one objective then brings the other along or sets it back."
)


def side(value: Jackknifed | None) -> str:
    """Whether two objectives pull apart or together, where the interval shows it."""
    if value is None:
        return "not identified"
    return "apart" if value.high < 0 else "together" if value.low > 0 else "not shown"


def lead(found: Conflicts) -> str:
    """What was found, in a few sentences for people who know no linear algebra."""
    model = printable(found.model)
    known = [pair for pair in found.pairs if pair.rho is not None]
    if not known:
        return f"How the {len(found.objectives)} safety objectives pull at each other in {model} is {printable(found.pairs[0].whole.reason or 'not identified')}."
    apart = [pair for pair in known if side(pair.rho) == "apart"]
    first = min(apart or known, key=lambda pair: pair.rho.estimate if pair.rho else 0.0)
    names = name_text(first.first), name_text(first.second)
    if apart:
        said = f"Pulling {model} towards {names[0]} pulls it away from {names[1]}, before any training ({_number(first.rho, found)})."
    elif len(found.pairs) == 1 and side(first.rho) == "together":
        said = f"Pulling {model} towards {names[0]} pulls it towards {names[1]} as well, before any training ({_number(first.rho, found)})."
    elif len(found.pairs) == 1:
        said = f"Whether pulling {model} towards {names[0]} pulls it away from {names[1]} or towards it is not shown ({_number(first.rho, found)})."
    else:
        said = f"No two of the {len(found.objectives)} safety objectives are shown to pull {model} apart."
    parts = [said]
    if len(found.pairs) > 1:
        parts.append(_counted(found))
    if first.together is not None and (apart or len(found.pairs) == 1):
        means = OUTCOME_MEANS[outcome(found, first, first.together)]
        parts.append(means if first.together.partial is None else f"{means[:-1]} ({_number(first.together.partial, found)}).")
    return " ".join(parts)


def _number(value: Jackknifed | None, found: Conflicts) -> str:
    """A cosine with its interval, in words."""
    assert value is not None  # noqa: S101 - of a pair that is identified
    return (
        f"cosine {number(value.estimate, 2)}, {level_text(found.settings.level)} interval {number(value.low, 2)} to {number(value.high, 2)}"
    )


def _counted(found: Conflicts) -> str:
    """Of how many pairs what is shown."""
    sides = [side(pair.rho) for pair in found.pairs]
    told = (
        ("apart", "pull apart"),
        ("together", "pull together"),
        ("not shown", "show neither"),
        ("not identified", "cannot be told from noise"),
    )
    return f"Of {len(sides)} pairs of objectives {' and '.join(f'{sides.count(key)} {words}' for key, words in told if key in sides)}."


def limits(value: Jackknifed | None) -> str:
    return NOTHING if value is None else f"{number(value.low, 3)} to {number(value.high, 3)}"


def estimate(value: Jackknifed | None) -> str:
    return NOTHING if value is None else number(value.estimate, 3)


def times_needed(value: Jackknifed | None, found: Conflicts, at_once: int = 1) -> str:
    """How many times as much data would tell a number as large as the one seen from none, by the square of its interval; ``at_once``: of how many (Bonferroni)."""
    if value is None or value.estimate == 0:
        return NOTHING
    df = found.pairs[0].whole.blocks - 1
    wider = critical_value(1 - found.alpha / at_once, df) / critical_value(found.settings.level, df)
    times = (wider * (value.high - value.low) / 2 / value.estimate) ** 2
    return NOTHING if times <= 1 else "over 100 times" if times > 100 else f"{ceil(10 * times) / 10:g} times"


def pairs_grid(found: Conflicts) -> Grid:
    """Every two objectives with nothing kept, those that pull apart most first."""
    rows = [
        (
            name_text(pair.first), name_text(pair.second), estimate(pair.rho), limits(pair.rho), side(pair.rho),
            times_needed(pair.rho, found) if side(pair.rho) == "not shown" else NOTHING,
        )
        for pair in sorted_pairs(found)
    ]  # fmt: skip
    level = level_text(found.settings.level)
    return Grid(
        "Objectives against each other",
        (("objective", False), ("and", False), ("cosine", True), (level, False), ("they pull", False), ("would settle it", True)),
        tuple(rows),
        "Cosine: 1 where both pull the same way, -1 where they pull against each other, 0 where a step towards one leaves the other alone; corrected for the noise of both directions. "
        "'Would settle it': how much more data would tell whether they pull apart or together, if the cosine is what it seems. Intervals hold for one pair each.",
    )


def kept_grid(found: Conflicts) -> Grid | None:
    """Every two objectives with all tasks kept; None where no task has a direction."""
    rows = []
    for pair in sorted_pairs(found):
        kept = pair.together
        if kept is not None:
            what = OUTCOME_WORDS[outcome(found, pair, kept)]
            numbers = (estimate(kept.partial), limits(kept.partial), estimate(kept.change), limits(kept.change))
            rows.append((name_text(pair.first), name_text(pair.second), *numbers, what))
    level = level_text(found.settings.level)
    if not rows:
        return None
    return Grid(
        f"The same with all {len(found.tasks)} tasks kept" if len(found.tasks) > 1 else "The same with the task kept",
        (("objective", False), ("and", False), ("cosine", True), (level, False), ("change", True), (level, False), ("keeping them", False)),
        tuple(rows),
        "The cosine of what is left of both objectives once no task may move. A change can be shown and still be small: look at its size.",
    )


def sorted_pairs(found: Conflicts) -> list[Pair]:
    """Those that pull apart most first, those that are not identified last."""
    return sorted(found.pairs, key=lambda pair: (pair.rho is None, pair.rho.estimate if pair.rho else 0.0))


def sorted_tasks(pair: Pair) -> list[Preserved]:
    """Those whose keeping helps most first."""
    return sorted(pair.each, key=lambda kept: (kept.change is None, -kept.change.estimate if kept.change else 0.0))


def tasks_grid(found: Conflicts, pair: Pair, tasks: Sequence[Preserved] | None = None) -> Grid:
    """One pair with each task kept, that which helps most first; of all tasks, or of some."""
    rows = []
    for kept in sorted_tasks(pair) if tasks is None else tasks:
        what = outcome(found, pair, kept)
        taxes = NOTHING if kept.taxes is None else " and ".join(percent(max(0.0, tax), 0) for tax in kept.taxes)
        rows.append(
            (
                name_text(kept.task or ""), estimate(kept.partial), limits(kept.partial), estimate(kept.change), limits(kept.change), p_text(kept.p_holm), OUTCOME_WORDS[what],
                times_needed(kept.change, found, len(pair.each)) if what == "not shown" else NOTHING, taxes,
            )
        )  # fmt: skip
    level = level_text(found.settings.level)
    return Grid(
        f"{name_text(pair.first)} and {name_text(pair.second)}, one task kept at a time",
        (
            ("kept", False), ("cosine", True), (level, False), ("change", True), (level, False), ("p", True), ("keeping it", False), ("would settle it", True), ("in the task", True),
        ),
        tuple(rows),
        f"{'The cosine is ' + estimate(pair.rho) + ' where nothing is kept. ' if pair.rho else ''}p: that keeping the task changes nothing, by Holm over the tasks. 'In the task': how much of either objective lies "
        "in what the task needs.",
    )  # fmt: skip


def levels_grid(found: Conflicts) -> Grid | None:
    """What keeping all tasks costs in level; None where that is known of no pair."""
    known = [(pair, level) for pair in sorted_pairs(found) if (level := level_of(pair)) is not None]
    if not known:
        return None
    return Grid(
        "What both can have at least",
        (("objectives", False), ("nothing kept", True), ("all tasks kept", True)),
        tuple(
            (f"{name_text(pair.first)} and {name_text(pair.second)}", percent(level.before, 0), percent(level.after, 0))
            for pair, level in known
        ),
        "The most that both objectives can gain at once, each as a share of what a push of the same size for it alone would reach with nothing kept. Estimates without intervals, cut to what is possible: keeping never raises them.",
    )


def objectives_grid(found: Conflicts) -> Grid:
    """Objectives as they were read, with how much of each lies in what all tasks need."""
    rows = []
    for one in found.objectives:
        sides = f"{one.unsafe:,} {'preferences' if one.made_of == 'preferences' else f'unsafe, {one.safe:,} safe' if one.made_of == 'states' else 'unsafe, wanted answers'}"
        rows.append((name_text(one.name), sides, f"{one.reliability:.2f}", f"{one.z:.1f}", _tax_of(found, one.name)))
    return Grid(
        "Objectives",
        (("objective", False), ("prompts", False), ("reliability", True), ("z", True), ("in what the tasks need", True)),
        tuple(rows),
        "Reliability: the share of a direction's squared length that is not noise; z: that length in standard errors. It takes .5 and 4.",
    )


def _tax_of(found: Conflicts, name: str) -> str:
    """The tax rate of an objective given all tasks, from any pair that tells it."""
    for pair in found.pairs:
        if name in (pair.first, pair.second) and pair.together is not None and pair.together.taxes is not None:
            return percent(max(0.0, pair.together.taxes[name != pair.first]), 0)
    return NOTHING


def doubts(found: Conflicts) -> list[str]:
    """What people should know before they rely on it."""
    told = [
        "One layer, first order, one shift for all inputs: what training does may differ. Hold it against runs before you rely on it.",
        "Intervals are held against 0: whether a cosine is more than that of two concepts that have nothing to do with safety is not asked.",
        f"An objective's direction is what its prompts differ in, form and subject included: two objectives whose prompts differ in form alike pull together by that. Changes below {NEGLIGIBLE:g} count as none only where their whole interval is below it.",
    ]
    clipped = max((pair.together.clipped for pair in found.pairs if pair.together is not None), default=0)
    if clipped:
        told.append(
            f"{items_text(clipped, 'direction')} of the tasks nearly {'repeats' if clipped == 1 else 'repeat'} others: with all tasks kept a little less is taken away than should be."
        )
    reasons = dict.fromkeys(
        text for pair in found.pairs for text in (pair.whole.reason, pair.together.reason if pair.together else None) if text
    )
    return [*told, *(printable(text) for text in reasons), *(printable(note) for note in found.notes)]


def view(found: Conflicts) -> Group:
    """All of it for a terminal; of the tasks, those that change what is shown of a conflict."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    changing = [
        tasks_grid(found, pair, tasks)
        for pair in sorted_pairs(found)
        if (tasks := [kept for kept in sorted_tasks(pair) if outcome(found, pair, kept) in CHANGED])
    ]
    for grid in (pairs_grid(found), kept_grid(found), *changing, levels_grid(found), objectives_grid(found)):
        if grid is not None:
            parts += [Text(grid.title, style="bold"), rich_table(grid), Text(grid.note, style="dim"), Text("")]
    if found.tasks:
        parts.append(Text("Tasks whose keeping changes nothing that is shown of a conflict are in the page and in --json.", style="dim"))
    parts += [Text(SHAPE), Text(footing(found), style="dim")]
    parts += [Text(f"! {cut(text, 400)}", style="yellow") for text in doubts(found)]
    return Group(*parts)


def footing(found: Conflicts) -> str:
    """Where it was read."""
    how = {
        "data": "chosen on prompts that were used for nothing else",
        "you": "named by you",
        "rule": "three fifths of the way, as there were too few prompts to choose by",
    }
    return f"{printable(found.model)}, template {found.template}, layer {found.layer} ({how[found.chosen_by]}), {found.dimension} dimensions, {items_text(len(found.tasks), 'task')}, seed {found.settings.seed}"
