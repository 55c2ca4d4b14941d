"""The exchange rate: what each point of safety or helpfulness cost, in each currency.

Of a pair of arms every established gain of safety or helpfulness is a purchase, and every other kind with a better side is a currency in its own
unit. The rate is cost over gain, its interval Fieller's (1954, J. R. Stat. Soc. B 16:175): the rates r at which the mean of
"cost - r gain" does not differ from 0. Measured on different tasks, whose items are different samples, their covariance is taken as 0;
where they share a task (a time of the very answers that are safer) nobody kept how they vary together, and the interval holds the rates of
every correlation, so that it is wider than it need be. The critical value is that of the smaller of the two degrees of freedom: in simulation
the interval then never covers less than its level, while Welch's approximation at the estimated rate falls to 92 % (tests/flow/test_exchange.py).
Errors are those that the entries' own intervals stand for (half the interval over its critical value, as for averages over tasks). What rests on
too few sources for a verdict has no interval here either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from aligntax.core.explain import error_of, is_subgroup, main_entries
from aligntax.core.kinds import NO_BETTER_SIDE
from aligntax.core.ledger import AVERAGES, MEAN_OVER_TASKS, Entry, Ledger
from aligntax.core.words import change_number, change_unit, decimals_for, interval_text, level_text, number, printable, scale_of, size_text
from aligntax.stats.paired import critical_value
from aligntax.stats.verdict import MIN_DF

PURCHASES = ("safety", "helpfulness")
"""Kinds that alignment is done for; each is a currency for the other."""
ASSUMPTION = (
    "gain and cost from different tasks vary apart, their items being different samples; from a common task they may vary together in any way, "
    "which makes the interval wider"
)
_GROUP = "mean over the items of"

Status = Literal["cost", "free", "not shown", "open", "no rate"]


@dataclass(frozen=True)
class Rate:
    """What a purchase cost in one currency.

    Attributes:
        bought, paid: the two entries.
        rate: cost per unit of what was bought, in ``unit``; negative where the currency was gained too; None where there is no rate.
        low, high: its interval at the entries' level; None where it has no end, or nothing is known of the errors.
        unit: for example ``points per point``.
        status: ``cost`` or ``free`` where the interval leaves no doubt about the sign, ``not shown`` where it holds 0, ``open`` where it has no
            end, ``no rate`` where there is none.
        reason: why there is no rate or no interval; empty otherwise.
    """

    bought: Entry
    paid: Entry
    rate: float | None
    low: float | None
    high: float | None
    unit: str
    status: Status
    reason: str = ""


@dataclass(frozen=True)
class Exchange:
    """One pair of arms: its rates, one per purchase and currency, and what has none (not bought, or no currency), with the reason in words."""

    pair: tuple[str, str]
    rates: tuple[Rate, ...]
    not_bought: tuple[tuple[Entry, str], ...]


def exchange(ledger: Ledger) -> list[Exchange]:
    """Every pair of arms of the ledger of which safety or helpfulness was measured."""
    found = []
    for pair in dict.fromkeys(e.pair for e in ledger):
        of = quantities(ledger, pair)
        wanted = [e for e in of if e.kind in PURCHASES]
        reasons = [(e, _why_not(e) or ("" if any(paid.kind != e.kind for paid in of) else _no_currency(e))) for e in wanted]
        rates = [_rate(ledger, e, paid) for e, reason in reasons if not reason for paid in of if paid.kind != e.kind]
        if wanted:
            found.append(Exchange(pair, tuple(rates), tuple((e, reason) for e, reason in reasons if reason)))
    return found


def quantities(ledger: Ledger, pair: tuple[str, str]) -> list[Entry]:
    """What was measured of a pair, each thing once: of every kind and metric the mean over tasks, or its tasks where there is no mean.

    Kinds without a better side (a divergence) are left out: a distance is no loss by itself.
    """
    entries = [e for e in main_entries(ledger) if e.pair == pair and e.kind not in NO_BETTER_SIDE and e.change is not None]
    out: list[Entry] = []
    for key in dict.fromkeys((e.kind, e.metric) for e in entries):
        of = [e for e in entries if (e.kind, e.metric) == key]
        means = [e for e in of if e.task == MEAN_OVER_TASKS]
        out += means or [e for e in of if _is_task(e)]
    return out


def tasks_behind(ledger: Ledger, entry: Entry) -> frozenset[str]:
    """The tasks that an entry rests on: those of its average, or itself."""
    if entry.task not in AVERAGES:
        return frozenset([entry.task])
    like = (entry.pair, entry.kind, entry.metric)
    return frozenset(e.task for e in ledger if (e.pair, e.kind, e.metric) == like and _is_task(e) and e.change is not None)


def sampling_error(entry: Entry) -> tuple[float, float | None] | None:
    """The standard error that the entry's interval stands for, and its degrees of freedom (None: the normal law); None without an interval.

    Half the interval over its critical value where that is larger than ``se``: a task without a flip has an ``se`` of 0 and is not known exactly.
    """
    if entry.change is None or entry.ci_low is None or entry.ci_high is None:
        return None
    df = entry.detail("df")
    error = max(entry.se or 0.0, (entry.ci_high - entry.ci_low) / 2 / critical_value(entry.level, df))
    return (error, df) if error > 0 else None


def few_sources(entry: Entry) -> bool:
    """Whether an entry rests on too few sources for a verdict, and so for anything that is said for certain."""
    df = entry.detail("df")
    return entry.method.endswith("-clustered") and df is not None and df < MIN_DF


def fieller(c: float, variance_c: float, b: float, variance_b: float, *, critical: float) -> tuple[float, float] | None:
    """Fieller's interval for c/b of two independent estimates: (c - r b)^2 <= critical^2 (variance_c + r^2 variance_b).

    None where b does not differ from 0 at the critical value: the rates that are not rejected have no end.
    """
    t2 = critical**2
    quadratic = b * b - t2 * variance_b
    if quadratic <= 0:
        return None
    half = sqrt(max((b * c) ** 2 - quadratic * (c * c - t2 * variance_c), 0.0))
    return (b * c - half) / quadratic, (b * c + half) / quadratic


def any_correlation(c: float, se_c: float, b: float, se_b: float, *, critical: float) -> tuple[float, float] | None:
    """The union over every correlation of Fieller's intervals for c/b: |c - r b| <= critical (se_c + |r| se_b), where c and r b are as far apart as
    errors that go against each other can bring them.

    None where b, taken as positive, does not differ from 0 at the critical value.
    """
    if b - critical * se_b <= 0:
        return None
    low, high = c - critical * se_c, c + critical * se_c
    most, least = b + critical * se_b, b - critical * se_b
    return low / (most if low > 0 else least), high / (least if high > 0 else most)


def _is_task(entry: Entry) -> bool:
    """Whether an entry is a task of its own: no average, no group that a log defines, no subgroup."""
    return entry.task not in AVERAGES and not is_subgroup(entry) and not any(check.startswith(_GROUP) for check in entry.checks)


def _why_not(entry: Entry) -> str:
    """Why nothing was bought; empty if it was."""
    if entry.verdict == "gain":
        return ""
    size = size_text(entry.cost or 0.0, entry.unit, error_of(entry))
    if entry.ci_low is None or entry.ci_high is None:
        return f"{_moved(entry)}, and no interval is known: that anything was bought is not shown, so it has no price"
    if entry.verdict == "tax":
        return f"it was lost, not bought: {size}"
    span = interval_text(entry.ci_low, entry.ci_high, entry.unit, error_of(entry))
    return f"{_moved(entry)} {span}: that anything was bought is not established, so it has no price"


def _no_currency(entry: Entry) -> str:
    return f"{_moved(entry)}, an established gain; nothing else with a better side was measured that it could have cost"


def _moved(entry: Entry) -> str:
    return f"{change_number(entry.change or 0.0, entry.unit, error_of(entry))} {change_unit(entry.unit)}"


def _rate(ledger: Ledger, bought: Entry, paid: Entry) -> Rate:
    unit = f"{change_unit(paid.unit)} per {_one(bought.unit)}"
    common = sorted(tasks_behind(ledger, bought) & tasks_behind(ledger, paid))
    gain, cost = -(bought.cost or 0.0), paid.cost
    if cost is None:
        return Rate(bought, paid, None, None, None, unit, "no rate", "it has no better side")
    factor = scale_of(paid.unit) / scale_of(bought.unit)
    of_cost, of_gain = sampling_error(paid), sampling_error(bought)
    if of_cost is None or of_gain is None:
        return Rate(bought, paid, factor * cost / gain, None, None, unit, "not shown", "no interval of the cost is known")
    if few_sources(paid):
        why = f"the cost rests on too few sources ({paid.detail('df'):.1f} degrees of freedom) for a price to be shown"
        return Rate(bought, paid, factor * cost / gain, None, None, unit, "not shown", why)
    (se_c, df_c), (se_b, df_b) = of_cost, of_gain
    df = min((d for d in (df_c, df_b) if d is not None), default=None)
    critical = critical_value(min(bought.level, paid.level), df)
    if common:
        limits = any_correlation(cost, se_c, gain, se_b, critical=critical)
    else:
        limits = fieller(cost, se_c**2, gain, se_b**2, critical=critical)
    if limits is None:
        why = f"at {df:.1f} degrees of freedom" if df is not None else "as its error stands"
        return Rate(bought, paid, factor * cost / gain, None, None, unit, "open", f"the gain may be 0 {why}: the rate has no end")
    low, high = factor * limits[0], factor * limits[1]
    status: Status = "cost" if low > 0 else "free" if high < 0 else "not shown"
    shared = f"both rest on {', '.join(common)}: the interval holds whatever way they vary together" if common else ""
    return Rate(bought, paid, factor * cost / gain, low, high, unit, status, shared)


def _one(unit: str) -> str:
    return "point" if change_unit(unit) == "points" else printable(unit)


# -- in words -------------------------------------------------------------------------------------------------------------------------------


def name_of(entry: Entry) -> str:
    """Kind, metric and task of an entry; a task that is an average by its words."""
    return printable(f"{entry.kind.replace('_', ' ')}: {entry.task} ({entry.metric})")


def rate_text(rate: Rate) -> str:
    """The rate with its interval, without its unit; ``-`` where there is none."""
    if rate.rate is None:
        return "-"
    places = _places(rate)
    value = number(rate.rate, places)
    if rate.low is None or rate.high is None:
        return f"{value} [no interval]"
    return f"{value} [{number(rate.low, places)}, {number(rate.high, places)}]"


def _places(rate: Rate) -> int:
    """Decimals: those that the interval justifies, and enough that an end beside 0 is not shown as 0."""
    if rate.low is None or rate.high is None:
        return 2
    near = min(abs(rate.low), abs(rate.high))
    width = (rate.high - rate.low) / 4
    return decimals_for(min(width, near) if near > 0 and near < 0.5 * 10.0 ** -decimals_for(width, least=2) else width, least=2, most=6)


def bought_sentence(entry: Entry) -> str:
    span = interval_text(entry.ci_low, entry.ci_high, entry.unit, error_of(entry))
    return f"{name_of(entry)} improved by {size_text(entry.cost or 0.0, entry.unit, error_of(entry))} (change {span} at {level_text(entry.level)})."


def rate_sentence(rate: Rate) -> str:
    """What one point cost in this currency."""
    what, one = name_of(rate.paid), _one(rate.bought.unit)
    if rate.rate is None:
        return f"{what}: no rate. {printable(rate.reason[:1].upper() + rate.reason[1:])}."
    places, unit = _places(rate), printable(change_unit(rate.paid.unit))
    if rate.low is None or rate.high is None:
        return f"{what}: {number(rate.rate, places)} {unit} per {one} as measured; {rate.reason}."
    span = f"{level_text(min(rate.bought.level, rate.paid.level))} interval {number(rate.low, places)} to {number(rate.high, places)}"
    span += f"; {printable(rate.reason)}" if rate.reason else ""
    if rate.status == "cost":
        return f"{what}: each {one} cost {number(rate.rate, places)} {unit} ({span})."
    if rate.status == "free":
        return (
            f"{what}: free; with each {one} it improved by {number(-rate.rate, places)} {unit} (cost {number(rate.rate, places)}, {span})."
        )
    return (
        f"{what}: no price shown; {number(rate.rate, places)} {unit} per {one} as measured ({span}), at most {number(rate.high, places)}."
    )


def exchange_rows(found: Sequence[Exchange]) -> list[dict[str, object]]:
    """Every rate, and every purchase that has none, as plain values for JSON."""
    rows: list[dict[str, object]] = []
    for one in found:
        rows += [
            _row(one, r.bought, r.reason) | {
                "paid": _key(r.paid), "cost": r.paid.cost, "cost_unit": r.paid.unit, "rate": r.rate, "low": r.low, "high": r.high,
                "level": min(r.bought.level, r.paid.level), "rate_unit": r.unit, "status": r.status,
            }
            for r in one.rates
        ]  # fmt: skip
        rows += [
            _row(one, e, reason) | {
                "paid": None, "cost": None, "cost_unit": None, "rate": None, "low": None, "high": None, "level": e.level, "rate_unit": None,
                "status": "no currency" if e.verdict == "gain" else "not bought",
            }
            for e, reason in one.not_bought
        ]  # fmt: skip
    return rows


def _row(one: Exchange, entry: Entry, reason: str) -> dict[str, object]:
    benefit = None if entry.cost is None else -entry.cost
    return {
        "baseline": one.pair[0], "candidate": one.pair[1], "bought": _key(entry), "gain": benefit, "gain_unit": entry.unit, "reason": reason,
    }  # fmt: skip


def _key(entry: Entry) -> dict[str, str]:
    return {"kind": entry.kind, "task": entry.task, "metric": entry.metric}
