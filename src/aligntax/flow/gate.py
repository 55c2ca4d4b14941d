"""The verb ``gate``: a ledger held to a budget.

Ruling out is an intersection-union test (Berger 1982): all entries of a line must pass, so none needs adjusting. What is shown
is sought among all entries of a line, and Holm-adjusted over them. Both err at most (1 - confidence)/2 of the time, as the verdicts do.

A mean is held by its entry's own test; a quantile (``of``) by the limits of its change, which the entry keeps at many confidences (``stats.quantiles``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

from aligntax.core.budget import Budget, BudgetFile
from aligntax.core.errors import InputError
from aligntax.core.explain import error_of, is_subgroup, is_unsound
from aligntax.core.ledger import AVERAGES, Entry, Ledger
from aligntax.core.words import count_text, cut, exact_text, printable, size_text
from aligntax.flow.debt import TASK as DEBT
from aligntax.flow.inversion import benefit, inversion_of
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import Inversion, noninferiority_p, upper_tail
from aligntax.stats.planning import items_needed
from aligntax.stats.quantiles import CONFIDENCES, confidence_at_most, limits_at
from aligntax.stats.quantiles import items_needed as items_for_quantile
from aligntax.stats.verdict import MIN_DF

Status = Literal["within", "exceeded"]
_ENDLESS = 1e9
"""Items beyond which nobody is told to ask for more: the change is what is allowed, but for rounding."""


@dataclass(frozen=True)
class Held:
    """One entry held to one line of the budget.

    Attributes:
        budget: the line.
        entry: what was held to it, its interval at the budget's confidence; of a quantile with that quantile's values, change and interval.
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
        InputError: if a line holds nothing in one of the pairs, or allows more than can be lost: a gate that checks nothing must not open. If it
            holds a quantile of what has none.
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
        return line.task is not None and line.task.startswith("mean")
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
    held = [_as_held(line, e, confidence) for e in entries]
    allowed = [_allowed(line, e) for e in held]
    asked = [None if a is None else _p(line, e, a) for e, a in zip(held, allowed, strict=True)]
    p = asked if line.rule == "ruled_out" else _adjusted(asked)
    return [_held(line, e, a, x, confidence) for e, a, x in zip(held, allowed, p, strict=True)]


def _as_held(line: Budget, entry: Entry, confidence: float) -> Entry:
    """The entry with the interval at the budget's confidence; of a quantile as if that were its value."""
    if line.of is not None:
        return _quantile(line, entry, confidence)
    test = inversion_of(entry)
    if test is None:
        return entry
    low, high = test.interval(confidence)
    limits = (low, high) if benefit(entry) > 0 else (-high, -low)
    return entry.model_copy(update={"level": confidence, "ci_low": limits[0], "ci_high": limits[1]})


def _quantile(line: Budget, entry: Entry, confidence: float) -> Entry:
    """The entry of a quantile, whose change has no error but an interval.

    Raises:
        InputError: if the entry has no such quantile, or the ledger keeps no limits of it at any such confidence.
    """
    name, what = line.of, printable(f"{entry.task} ({entry.metric})")
    if f"{name}_change" not in entry.details:
        raise InputError(
            f"the budget for {line.named} holds {what}, which has no {name}: quantiles are kept of times and sizes that were measured prompt by "
            "prompt (kind latency), and not of their mean over tasks; name what has one by kind, task and metric"
        )
    if f"{name}_change_limits" not in entry.details:
        raise InputError(
            f"the budget for {line.named} holds {what}, whose ledger keeps no limits of its {name}: make the run again with this version"
        )
    if (1 - confidence) / 2 < CONFIDENCES[0] * (1 - 1e-9):
        raise InputError(
            f"limits of a {name} are kept up to a confidence of {1 - 2 * CONFIDENCES[0]:g}; the budget asks for {confidence:g}"
        )
    change, limits = entry.detail(f"{name}_change"), _limits(line, entry)
    low, high = limits_at(limits, confidence) or (None, None)
    return entry.model_copy(
        update={
            "baseline_value": entry.detail(f"{name}_baseline"), "candidate_value": entry.detail(f"{name}_candidate"), "change": change,
            "cost": None if change is None else -benefit(entry) * change, "se": None, "level": confidence, "ci_low": low, "ci_high": high,
        }
    )  # fmt: skip


def _limits(line: Budget, entry: Entry) -> list[float | None]:
    """The limits of a quantile's change at each of ``CONFIDENCES``."""
    kept = entry.details.get(f"{line.of}_change_limits")
    return kept if isinstance(kept, list) else [None] * len(CONFIDENCES)


def _p(line: Budget, entry: Entry, loss: float) -> float | None:
    """The p-value of the question that the rule asks; None where there is no test, or too few sources for any verdict."""
    if line.of is not None:
        return None if _few_sources(entry) or entry.ci_low is None else _quantile_p(line, entry, loss)
    test = _test(entry)
    if test is None:
        return None
    return noninferiority_p(test, loss) if line.rule == "ruled_out" else _shown_p(test, loss)


def _quantile_p(line: Budget, entry: Entry, loss: float) -> float | None:
    """One-sided p of "the loss of the quantile is ``loss`` or more" (ruled out), of "it is at most that" (shown)."""
    limits = _limits(line, entry)
    mirrored = [None if x is None else -x for x in reversed(limits)]
    losses, gains = (mirrored, limits) if benefit(entry) > 0 else (limits, mirrored)
    return confidence_at_most(gains, -loss) if line.rule == "ruled_out" else confidence_at_most(losses, loss)


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
    """Whether an entry is an amount that was counted or reckoned, which no sampling error stands between."""
    return entry.kind == "development" and entry.method == "none" and entry.cost is not None


def _ends(entry: Entry) -> tuple[float, float]:
    """The least and the most that a known amount costs: of one that was named as ranges the ends of its interval."""
    cost = entry.cost or 0.0
    if entry.ci_low is None or entry.ci_high is None:  # an end that is missing is "never", which only a month can be
        return cost, cost
    return (-entry.ci_high, -entry.ci_low) if entry.higher_is_better else (entry.ci_low, entry.ci_high)


def _allowed(line: Budget, entry: Entry) -> float | None:
    """The loss allowed, in the entry's unit; None where it is a share of nothing.

    Raises:
        InputError: if no loss could exceed it.
    """
    value, share = line.lose_at_most.value, line.lose_at_most.relative
    what = printable(f"{entry.task} ({entry.metric})")
    if share and entry.kind == "development":
        raise InputError(
            f"the budget for {line.named} allows a share of the baseline, and of {what} there is none: an amount has no baseline; name it"
        )
    if value >= 1 and entry.unit == "fraction" and (not share or benefit(entry) > 0):
        most = "the whole of the baseline" if share else f"{100 * value:g} points"
        raise InputError(
            f"the budget for {line.named} allows {what} to lose {most}, which nothing exceeds: 0.01 is a point, and 1% a hundredth of the baseline's value"
        )
    if not share:
        return value
    return abs(entry.baseline_value) * value or None if entry.baseline_value is not None else None


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
        exceeded = _ends(entry)[line.rule == "ruled_out"] > allowed
    doubts = tuple(check for check in entry.checks if is_unsound(check))
    return Held(
        line, entry, allowed, "exceeded" if exceeded else "within", p, _reason(line, entry, allowed, p, exceeded, confidence), doubts
    )


def _reason(line: Budget, entry: Entry, allowed: float | None, p: float | None, exceeded: bool, confidence: float) -> str:
    sure = f"at {confidence_text(confidence)} confidence"
    if allowed is None:
        known = "a share of the baseline was asked for, and the baseline is 0 or unknown"
        return f"{_untold(line, entry, confidence)}; {known}" if line.of is not None and entry.change is None else known
    most = allowed_text(line, entry, allowed)
    if _is_known(entry):
        return f"{_amount_text(entry)}; at most {most}"
    if p is None:
        return f"{_untold(line, entry, confidence)}: a loss of {most} is neither shown nor ruled out"
    lost = -benefit(entry) * (entry.change or 0.0)
    size = printable(size_text(lost, entry.unit, error_of(entry)))
    seen = f"lost {size}" if lost > 0 else f"gained {size}" if lost < 0 else "no change"
    seen = seen if line.of is None else f"{line.of}: {seen}"
    if line.rule == "not_shown":
        return f"{seen}; a loss beyond {most} is {'shown' if exceeded else 'not shown'} {sure}"
    if not exceeded:
        return f"{seen}; a loss of {most} or more is ruled out {sure}"
    more = "" if lost >= allowed or line.of is not None else _more(entry, allowed, lost, confidence)
    return f"{seen}; a loss of {most} or more is not ruled out {sure}{more}"


def confidence_text(confidence: float) -> str:
    """All the digits that somebody chose: 99.9 % is not 100 %."""
    return f"{100 * confidence:.10g} %"


def _amount_text(entry: Entry) -> str:
    """A known amount in words; what it rests on."""
    low, high = _ends(entry)
    said = [printable(exact_text(x, entry.unit)) for x in ((low,) if low == high else (low, high))]
    if low != high:
        return f"{' to '.join(said)} within the ranges that were named; ruled_out asks for the upper end, not_shown for the lower"
    rests = "reckoned from the numbers that were named" if entry.task == DEBT else "what was spent is known"
    return f"{said[0]}; {rests}, and both rules are the same"


def _untold(line: Budget, entry: Entry, confidence: float) -> str:
    """Why there is no answer to either rule."""
    if entry.kind == "development":
        return "the amount is not known"
    if line.of is None or _few_sources(entry):
        return "too few sources for any verdict" if _few_sources(entry) else "no interval, for want of items or of a known error"
    needed = items_for_quantile(float(line.of[1:]) / 100, confidence)
    told = f"not known: its interval takes {needed:,} prompts" + (" from as many sources" if entry.clusters else "")
    return f"{line.of} {told} at {confidence_text(confidence)} confidence, there are {entry.n:,}" + (
        f" from {entry.clusters:,}" if entry.clusters else ""
    )


def _more(entry: Entry, allowed: float, lost: float, confidence: float) -> str:
    """How many items would rule the loss out, if the change is what it seems."""
    test = inversion_of(entry)
    if test is None or not entry.n:
        return ""
    needed = items_needed(test, entry.n, allowed - lost, confidence)
    return f" (about {count_text(needed)} items would four times in five, if the change is as seen)" if entry.n < needed < _ENDLESS else ""
