"""The verb ``gate``: a ledger held to a budget.

Ruling out is an intersection-union test (Berger 1982): all entries of a line must pass, so none needs adjusting. What is shown
is sought among all entries of a line, and Holm-adjusted over them. Both err at most (1 - confidence)/2 of the time, as the verdicts do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from aligntax.core.budget import Budget, BudgetFile
from aligntax.core.errors import InputError
from aligntax.core.explain import is_subgroup, is_unsound
from aligntax.core.ledger import AVERAGES, Entry, Ledger
from aligntax.core.words import count_text, cut, exact_text, percent, printable, size_text
from aligntax.flow.inversion import benefit, inversion_of
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import Inversion, noninferiority_p, upper_tail
from aligntax.stats.planning import items_needed
from aligntax.stats.verdict import MIN_DF

Status = Literal["within", "exceeded"]


@dataclass(frozen=True)
class Held:
    """One entry held to one line of the budget.

    Attributes:
        budget: the line.
        entry: what was held to it.
        allowed: the loss allowed, in the entry's unit; None where a share of nothing was asked for.
        status: ``within`` or ``exceeded``.
        p: of the question that the rule asks, adjusted where several entries were asked; None where there is no test.
        reason: why, in one sentence.
        doubts: checks that question the comparison itself.
    """

    budget: Budget
    entry: Entry
    allowed: float | None
    status: Status
    p: float | None
    reason: str
    doubts: tuple[str, ...]


@dataclass(frozen=True)
class Gate:
    """What a gate found; it is open if nothing exceeds its budget."""

    held: tuple[Held, ...]
    confidence: float

    @property
    def exceeded(self) -> tuple[Held, ...]:
        return tuple(one for one in self.held if one.status == "exceeded")


def gate(ledger: Ledger, pairs: Sequence[tuple[str, str]], budget: BudgetFile) -> Gate:
    """Hold the entries of some pairs of arms to a budget.

    A line holds tasks, and subgroups and averages where its pattern names them.

    Raises:
        InputError: if a line holds nothing in one of the pairs: a gate that checks nothing must not open.
    """
    held: list[Held] = []
    for baseline, candidate in pairs:
        of = [e for e in ledger if e.pair == (baseline, candidate)]
        for line in budget.budgets:
            chosen = _chosen(line, of)
            if not chosen:
                raise InputError(_nothing(line, of, baseline, candidate))
            held += _judged(line, chosen, budget.confidence)
    return Gate(tuple(held), budget.confidence)


def _chosen(line: Budget, entries: Sequence[Entry]) -> list[Entry]:
    return [e for e in entries if line.holds(e) and _is_meant(line, e)]


def _is_meant(line: Budget, entry: Entry) -> bool:
    """Tasks always; subgroups and averages where the pattern names them."""
    if entry.task in AVERAGES:
        return line.task not in (None, "*")
    return not is_subgroup(entry) or (line.task is not None and "/" in line.task)


def _nothing(line: Budget, entries: Sequence[Entry], baseline: str, candidate: str) -> str:
    if not entries:
        return f"the run compares nothing from {printable(baseline)} to {printable(candidate)}"
    for name, wanted, known in (
        ("kind", line.kind, [e.kind for e in entries]),
        ("task", line.task, [e.task for e in entries]),
        ("metric", line.metric, [e.metric for e in entries]),
    ):
        if wanted is not None and not any(fnmatchcase(one, wanted) for one in known):
            there = cut(printable(", ".join(sorted(set(known)))), 300)
            return f"the budget for {line.named} holds nothing: no {name} is {printable(repr(wanted))}; from {printable(baseline)} to {printable(candidate)} there are: {there}"
    return f"the budget for {line.named} holds nothing: no entry has all of that from {printable(baseline)} to {printable(candidate)}"


def _judged(line: Budget, entries: Sequence[Entry], confidence: float) -> list[Held]:
    """One line of the budget, over all its entries at once."""
    allowed = [_allowed(line, e) for e in entries]
    asked = [None if a is None or (test := _test(e)) is None else (test, a) for e, a in zip(entries, allowed, strict=True)]
    if line.rule == "ruled_out":
        p = [None if one is None else noninferiority_p(*one) for one in asked]
    else:
        p = _adjusted([None if one is None else _shown_p(*one) for one in asked])
    return [_held(line, e, a, x, confidence) for e, a, x in zip(entries, allowed, p, strict=True)]


def _shown_p(test: Inversion, loss: float) -> float:
    """One-sided p of "the loss is at most ``loss``": small values show a larger one."""
    return upper_tail(-test.statistic(-loss), test.df)


def _test(entry: Entry) -> Inversion | None:
    """An entry's test; None where it has none, or too few sources for any verdict."""
    return None if _few_sources(entry) else inversion_of(entry)


def _few_sources(entry: Entry) -> bool:
    df = entry.detail("df")
    return entry.clusters is not None and df is not None and df < MIN_DF


def _is_known(entry: Entry) -> bool:
    """Whether an entry is an amount that was spent, which no sampling error stands between."""
    return entry.kind == "development" and entry.method == "none" and entry.cost is not None


def _allowed(line: Budget, entry: Entry) -> float | None:
    if not line.lose_at_most.relative:
        return line.lose_at_most.value
    return abs(entry.baseline_value) * line.lose_at_most.value or None if entry.baseline_value is not None else None


def allowed_text(line: Budget, entry: Entry, allowed: float) -> str:
    """The loss allowed, in words; of a share both the share and what it comes to."""
    if not line.lose_at_most.relative:
        return printable(exact_text(allowed, entry.unit))
    return f"{printable(exact_text(float(f'{allowed:.3g}'), entry.unit))} ({100 * line.lose_at_most.value:g} % of the baseline)"


def _adjusted(p: Sequence[float | None]) -> list[float | None]:
    known = [i for i, x in enumerate(p) if x is not None]
    out: list[float | None] = [None] * len(p)
    for i, q in zip(known, holm([p[i] or 0.0 for i in known]), strict=True):
        out[i] = q
    return out


def _held(line: Budget, entry: Entry, allowed: float | None, p: float | None, confidence: float) -> Held:
    alpha = (1 - confidence) / 2
    settled = p is not None and p < alpha
    exceeded = settled if line.rule == "not_shown" else not settled
    if _is_known(entry) and allowed is not None:
        exceeded = (entry.cost or 0.0) > allowed
    doubts = tuple(check for check in entry.checks if is_unsound(check))
    return Held(
        line, entry, allowed, "exceeded" if exceeded else "within", p, _reason(line, entry, allowed, p, exceeded, confidence), doubts
    )


def _reason(line: Budget, entry: Entry, allowed: float | None, p: float | None, exceeded: bool, confidence: float) -> str:
    sure = f"at {percent(confidence, 0)} confidence"
    if allowed is None:
        return "a share of the baseline was asked for, and the baseline is 0 or unknown"
    most = allowed_text(line, entry, allowed)
    if _is_known(entry):
        return f"{printable(size_text(entry.cost or 0.0, entry.unit, entry.se))} of {most}; what was spent is known, and both rules are the same"
    if p is None:
        why = "too few sources for any verdict" if _few_sources(entry) else "no interval, for want of items or of a known error"
        return f"{why}: a loss of {most} is neither shown nor ruled out"
    lost = -benefit(entry) * (entry.change or 0.0)
    size = printable(size_text(lost, entry.unit, entry.se))
    seen = f"lost {size}" if lost > 0 else f"gained {size}" if lost < 0 else "no change"
    if line.rule == "not_shown":
        return f"{seen}; a loss beyond {most} is {'shown' if exceeded else 'not shown'} {sure}"
    if not exceeded:
        return f"{seen}; a loss of {most} or more is ruled out {sure}"
    return f"{seen}; a loss of {most} or more is not ruled out {sure}" + (
        "" if lost >= allowed else _more(entry, allowed, lost, confidence)
    )


def _more(entry: Entry, allowed: float, lost: float, confidence: float) -> str:
    """How many items would rule the loss out, if the change is what it seems."""
    test = inversion_of(entry)
    if test is None or not entry.n:
        return ""
    needed = items_needed(test, entry.n, allowed - lost, confidence)
    return f" (about {count_text(needed)} items would four times in five, if the change is as seen)" if needed > entry.n else ""
