"""A ledger entry in sentences: what happened, how sure that is, and what would settle what is not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from aligntax.core.kinds import MANY_METRICS
from aligntax.core.ledger import AVERAGES, Entry, Ledger
from aligntax.core.words import (
    VERDICT_WORDS,
    change_number,
    change_unit,
    count_text,
    exact_text,
    interval_text,
    level_text,
    number,
    percent,
    printable,
    size_text,
    value_text,
)

# Signs of checks by what they say: what was asked was not the same; a comparison does not rest on what it seems to.
_NOT_ALIKE = (
    "stand for different contents", "prompts differ", "replies are identical", "asked differently", "unequal attrition", "no average over unequal",
)  # fmt: skip
_UNSOUND = (
    *_NOT_ALIKE, "repeat the content", "filled in upstream", "no score for", "unpaired:", "not separable", "no log says whether", "only ", "carried a score",
)  # fmt: skip


def is_not_alike(check: str) -> bool:
    """Whether a check says that two arms were not asked the same."""
    return any(sign in check for sign in _NOT_ALIKE)


_NOTES = (
    "the loss exceeds the margin",
    "trials per item averaged",
    "clustered by ",
    "verdict does not depend on the unparsed",
    "mean over the items of",
    "as many words from every arm",
    "debiased squared error of confidence",
    "of every answer, corrected by",
    "win rate at equal lengths, by",
)


def is_note(check: str) -> bool:
    """Whether a check only says how something was done, or makes a verdict surer."""
    return any(sign in check for sign in _NOTES)


def is_unsound(check: str) -> bool:
    """Whether a check questions the soundness of a comparison, not its precision."""
    return any(sign in check for sign in _UNSOUND)


def error_of(entry: Entry) -> float | None:
    """The error that decides how many digits are shown."""
    if entry.se:
        return entry.se
    return None if entry.ci_low is None or entry.ci_high is None else (entry.ci_high - entry.ci_low) / 4


def headline(entry: Entry) -> str:
    """One sentence: the change, its interval, the items, the verdict."""
    name = f"{printable(entry.task)} ({printable(entry.metric)})"
    if entry.change is None:
        return f"{name}: {VERDICT_WORDS[entry.verdict]}, nothing to compare."
    unit, error = entry.unit, error_of(entry)
    if entry.kind == "development":
        low, high = (None if x is None else f"{_level(x, unit, error)}" for x in (entry.ci_low, entry.ci_high))
        span = "" if low is None or high is None else f" ({level_text(entry.level)} of the range that was named: {low} to {high})"
        return f"{name} is {_level(entry.change, unit, error)} {unit}{span}."
    if entry.kind == "divergence":
        span = (
            ""
            if entry.ci_low is None or entry.ci_high is None
            else f" ({level_text(entry.level)} interval {_level(entry.ci_low, unit, error)} to {_level(entry.ci_high, unit, error)})"
        )
        return f"{name} is {_level(entry.change, unit, error)} {unit} over {entry.n:,} answers{span}."
    moved = "did not move" if entry.change == 0 else "rose" if entry.change > 0 else "fell"
    amount = "" if entry.change == 0 else f" by {size_text(entry.change, unit, error)}"
    where = f" over {entry.n:,} items" + (f" from {entry.clusters} sources" if entry.clusters else "")
    if entry.n == 0:
        sizes = [entry.detail(f"n_{side}") for side in ("baseline", "candidate")]
        where = ", unpaired" if None in sizes else f", unpaired, {sizes[0]:,.0f} and {sizes[1]:,.0f} items"
    if entry.ci_low is None or entry.ci_high is None:
        interval = "no interval"
    else:
        interval = (
            f"{level_text(entry.level)} interval {change_number(entry.ci_low, unit, error)} to {change_number(entry.ci_high, unit, error)}"
        )
    return f"{name} {moved}{amount}{where} ({interval}): {VERDICT_WORDS[entry.verdict]}."


def _level(x: float, unit: str, error: float | None) -> str:
    return change_number(x, unit, error).removeprefix("+")


def reasons(entry: Entry) -> list[str]:
    """Why the verdict is what it is, what would change an undetermined one, and what of the change is the template's."""
    return [*_reasons(entry), *_retained(entry), *_split(entry), *_calibration(entry)]


def _retained(entry: Entry) -> list[str]:
    """Of an established change: what share of the baseline is left, of all of it and of what lies above guessing."""
    share, above = entry.detail("retained"), entry.detail("retained_above_chance")
    if share is None or entry.verdict not in ("tax", "gain"):
        return []
    said = f"{percent(share, 0)} of the baseline's value is retained{_span(entry, 'retained')}"
    chance = entry.detail("chance")
    if above is not None and chance is not None:
        said += f", {percent(above, 0)} of what lies above guessing ({percent(chance)}){_span(entry, 'retained_above_chance')}"
    return [f"{said}."]


def _calibration(entry: Entry) -> list[str]:
    """The usual number beside the debiased one, and which way a model is wrong about itself."""
    told = {what: [entry.detail(f"{what}_{side}") for side in ("baseline", "candidate")] for what in ("ece", "overconfidence")}
    (before, after), (first, second) = told["ece"], told["overconfidence"]
    if before is None or after is None or first is None or second is None:
        return []
    said = [f"{number(100 * abs(x), 1)} points {'surer' if x > 0 else 'less sure'} than right" for x in (first, second)]
    return [
        f"Expected calibration error, not debiased: {percent(before)}, then {percent(after)}; the baseline is {said[0]}, the candidate {said[1]}."
    ]


def _span(entry: Entry, name: str) -> str:
    low, high = detail_interval(entry, name)
    return "" if low is None or high is None else f" ({percent(low, 0)} to {percent(high, 0)})"


def _split(entry: Entry) -> list[str]:
    """The two-by-two split: what weights did, what the way of asking did."""
    if entry.detail("weights_effect") is None:
        return []
    said = {name: effect_text(entry, name) for name in ("weights_effect", "elicitation_effect", "interaction")}
    return [
        f"The weights account for {said['weights_effect']}, asking in a chat instead of raw for {said['elicitation_effect']}; "
        f"the weights' effect in a chat differs from that at raw by {said['interaction']}."
    ]


def detail_interval(entry: Entry, name: str) -> tuple[float | None, float | None]:
    """The interval of a detail, kept as ``<name>_ci``; (None, None) where there is none."""
    interval = entry.details.get(f"{name}_ci")
    return (interval[0], interval[1]) if isinstance(interval, list) else (None, None)


def effect_text(entry: Entry, name: str) -> str:
    """An effect of the split with its interval."""
    low, high = detail_interval(entry, name)
    error = error_of(entry) if low is None or high is None else (high - low) / 4
    return f"{change_number(entry.detail(name) or 0.0, entry.unit, error)} {interval_text(low, high, entry.unit, error)}"


def _reasons(entry: Entry) -> list[str]:
    unit, margin = entry.unit, entry.margin
    if entry.change is None or entry.ci_low is None:
        return []
    # A margin that is a share of the baseline has digits that nobody chose.
    margin_text = "" if margin is None else exact_text(margin if unit == "fraction" else float(f"{margin:.3g}"), unit)
    if entry.verdict == "tax":
        return [
            f"A loss is established at {level_text(entry.level)} confidence; the margin is {margin_text}."
            if margin
            else "A loss is established."
        ]
    if entry.verdict == "gain":
        return ["An improvement is established."]
    if entry.verdict == "no_tax":
        return [f"A loss of {margin_text} or more is ruled out."]
    if entry.verdict is None:
        return []
    return _undetermined(entry, margin_text)


def _undetermined(entry: Entry, margin_text: str) -> list[str]:
    out, error = [], error_of(entry)
    loss = entry.detail("largest_loss_not_excluded")
    if loss is not None:
        out.append(f"A loss of up to {size_text(loss, entry.unit, min(error or loss, loss) or None)} remains possible.")
    smallest = entry.detail("minimum_detectable_change")
    if smallest is not None:
        out.append(f"This many items would find a change of {size_text(smallest, entry.unit, error)} four times in five.")
    needed = entry.detail("n_needed_no_tax")
    if needed is not None and needed > entry.n:
        sources = f" from {count_text(entry.clusters * needed / entry.n)} such sources" if entry.clusters else ""
        out.append(f"To rule out a loss of {margin_text} takes about {count_text(needed)} items{sources} if nothing changed.")
    return out


def metric_of_section(entry: Entry) -> str:
    """The metric that an entry's table is about; nothing where one table holds several ways of measuring its kind."""
    return "" if entry.kind in MANY_METRICS else entry.metric


def is_subgroup(entry: Entry) -> bool:
    """Whether the entry divides a task that has an entry of its own; the task's name alone does not tell (tasks may have a slash)."""
    return "subgroup" in entry.details


def main_entries(ledger: Ledger) -> list[Entry]:
    """Entries that are no subgroups: what a reader looks at first."""
    return [entry for entry in ledger if not is_subgroup(entry)]


def first_rows(entries: Sequence[Entry], limit: int) -> list[Entry]:
    """At most so many, in the order given: tasks and averages before subgroups, what is established before what is not."""
    if len(entries) <= limit:
        return list(entries)
    rank = sorted(range(len(entries)), key=lambda i: (is_subgroup(entries[i]), entries[i].verdict not in ("tax", "gain")))
    return [entries[i] for i in sorted(rank[:limit])]


def summary(entries: Iterable[Entry], baseline: str, candidate: str) -> str:
    """One sentence for a whole comparison: on how many tasks which verdict, and the largest established loss and gain."""
    judged = [e for e in entries if e.pair == (baseline, candidate) and is_judged(e)]
    if not judged:
        return f"Nothing was judged between {printable(baseline)} and {printable(candidate)}."
    said = {
        "tax": "worse on {n} (tax{largest})",
        "gain": "better on {n} (gain{largest})",
        "no_tax": "on {n} a loss that matters is ruled out (no tax)",
        "undetermined": "on {n} neither is settled (undetermined)",
    }
    parts = []
    for name, words in said.items():
        found = [e for e in judged if e.verdict == name]
        if found:
            parts.append(words.format(n=len(found), largest=_largest_text(found)))
    many = "1 comparison" if len(judged) == 1 else f"{len(judged)} comparisons"
    return f"{printable(candidate)} against {printable(baseline)}, {many}: {'; '.join(parts)}."


def is_judged(entry: Entry) -> bool:
    """Whether an entry counts among the comparisons: there was something to compare, it has a better side, and it is no average of others."""
    return entry.verdict is not None and entry.change is not None and entry.task not in AVERAGES


def size_of(entry: Entry) -> tuple[bool, float]:
    """How large a change is beside others: points are comparable with each other, other units only in their margins, and come after them."""
    points = {"fraction": 100.0, "points": 1.0}.get(entry.unit)
    size = abs(entry.change or 0.0)
    return points is not None, size * points if points is not None else size / (entry.margin or float("inf"))


def _largest_text(entries: Sequence[Entry]) -> str:
    """The largest change among established ones."""
    entry = max(entries, key=size_of)
    error = error_of(entry)
    change = f"{change_number(entry.change or 0.0, entry.unit, error)} {change_unit(entry.unit)}"
    values = [value_text(x, entry.unit, error) for x in (entry.baseline_value, entry.candidate_value)]
    most = "" if len(entries) == 1 else "most on "
    name = entry.task if metric_of_section(entry) else f"{entry.task} ({entry.metric})"
    return f": {most}{printable(name)}, {change}, from {values[0]} to {values[1]}"
