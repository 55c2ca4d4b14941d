"""Alignment debt: what harm that is not resolved will have cost within a horizon, against what aligning costs, from the user's own numbers.

Costs are expected values, discounted to today. With month t = 1 ... H, discount d(t) = (1 + r)^(-t/12), harm of the first month h without
alignment and h' with it, both growing by g a month, c once and m a month for alignment:

    now    = c + sum d(t) (m + h' (1 + g)^(t - 1))
    never  = sum d(t) h (1 + g)^(t - 1)
    later  = sum up to M of d(t) h (1 + g)^(t - 1) + d(M) c_M (1 + g_c)^M + sum after M of d(t) (m_M + h' (1 + g)^(t - 1))

Ranges are propagated by Monte Carlo with independent draws, triangular or PERT (Malcolm, Roseboom, Clark and Fazar 1959, Oper. Res. 7:646).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aligntax.core.costs import Debt, Distribution, Spread
from aligntax.core.errors import InputError
from aligntax.core.ledger import Detail, Entry

FloatArray = npt.NDArray[np.float64]

TASK = "debt"
DRAWS = 20_000
LEVEL = 0.9
_TAIL = (1 - LEVEL) / 2
_STEP = 0.01


@dataclass(frozen=True)
class Totals:
    """Present costs of every row of numbers, (n,) each.

    Attributes:
        now, never, later: in the currency; ``later`` is None where it was not asked.
        month: the first in which ``never`` has cost more than ``now``; inf where none has.
        back: the first after it in which it has not any more; inf where none.
        per_harm: present value of a harm of 1 in the first month that grows.
    """

    now: FloatArray
    never: FloatArray
    later: FloatArray | None
    month: FloatArray
    back: FloatArray
    per_harm: FloatArray

    @property
    def saving(self) -> FloatArray:
        return self.never - self.now


@dataclass(frozen=True)
class Drawn:
    """What the ranges come to: mean, 5 % and 95 % quantiles of the draws, None where that quantile is never."""

    mean: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Sensitivity:
    """What the saving owes to one number.

    Attributes:
        name: its place in the file.
        spread: the number.
        per_percent: of the saving in the currency if the number is 1 % larger.
        elasticity: of the saving in per cent; None where nothing is saved.
        at_low, at_high: the saving at the ends of its range, everything else at its likeliest; None without a range.
    """

    name: str
    spread: Spread
    per_percent: float
    elasticity: float | None
    at_low: float | None
    at_high: float | None

    @property
    def swing(self) -> float:
        return 0.0 if self.at_low is None or self.at_high is None else abs(self.at_high - self.at_low)


@dataclass(frozen=True)
class Assessment:
    """The debt made out, at the likeliest values; ``drawn`` by metric where there are ranges.

    Attributes:
        now, never, later, saving, saving_against_later: present costs in the currency.
        month, back: in which not aligning has cost more, and again less; None for never within the horizon.
        break_even_harm: of the first month without alignment, at which aligning now just pays.
        break_even_rate: the same in incidents or as a probability; None where harm is said as a cost, or no probability would do.
        sensitivities: the largest swing first, then the largest effect of one per cent.
        cheaper: share of the draws in which aligning now is cheaper. never_even: share in which it has not paid within the horizon.
    """

    debt: Debt
    now: float
    never: float
    later: float | None
    saving: float
    month: float | None
    back: float | None
    break_even_harm: float
    break_even_rate: float | None
    sensitivities: tuple[Sensitivity, ...]
    draws: int
    cheaper: float | None
    never_even: float | None
    drawn: Mapping[str, Drawn]

    @property
    def saving_against_later(self) -> float | None:
        return None if self.later is None else self.later - self.now


def assess(debt: Debt, *, draws: int = DRAWS, seed: int = 0) -> Assessment:
    """Weigh aligning now against never, and against later where that is asked.

    Args:
        debt: the user's numbers.
        draws: of the ranges.
        seed: of the draws.

    Raises:
        InputError: if the numbers grow beyond any number within the horizon.
    """
    spreads = dict(debt.numbers())
    likely = {name: np.array([spread.likely]) for name, spread in spreads.items()}
    at = totals(debt, likely)
    even = float(at.now[0] / at.per_harm[0])
    cheaper = never_even = None
    drawn: dict[str, Drawn] = {}
    if any(spread.is_range for spread in spreads.values()):
        rng = np.random.default_rng(seed)
        found = totals(debt, {name: draw(spread, debt.distribution, draws, rng) for name, spread in spreads.items()})
        cheaper, never_even = float((found.saving > 0).mean()), float(np.isinf(found.month).mean())
        of = {"now": found.now, "never": found.never, "later": found.later, "saving": found.saving, "month": found.month}
        drawn = {name: _drawn(values) for name, values in of.items() if values is not None}
    return Assessment(
        debt=debt,
        now=float(at.now[0]),
        never=float(at.never[0]),
        later=None if at.later is None else float(at.later[0]),
        saving=float(at.saving[0]),
        month=_known(at.month[0]),
        back=_known(at.back[0]),
        break_even_harm=even,
        break_even_rate=_rate(debt, even),
        sensitivities=_sensitivities(debt, spreads, at),
        draws=draws if drawn else 0,
        cheaper=cheaper,
        never_even=never_even,
        drawn=drawn,
    )


def totals(debt: Debt, x: Mapping[str, FloatArray]) -> Totals:
    """Present costs month by month.

    Args:
        debt: horizon, month of aligning later, and how harm is said.
        x: every number of ``debt.numbers()`` by name, (n,) values each.

    Raises:
        InputError: if they grow beyond any number.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = _totals(debt, x)
    parts = (found.now, found.never, found.per_harm, *(() if found.later is None else (found.later,)))
    if not all(np.isfinite(part).all() for part in parts):
        raise InputError(
            f"the debt grows beyond any number within {debt.horizon_months} months: lower growth_per_month, horizon_months or the costs"
        )
    return found


def _totals(debt: Debt, x: Mapping[str, FloatArray]) -> Totals:
    without, with_ = _harm(debt, x)
    discount, growth = np.exp(-np.log1p(x["discount_rate_per_year"]) / 12), 1 + x["harm.growth_per_month"]
    weight, grown = np.ones_like(without), np.ones_like(without)
    now, never, per_harm = x["now.once"].copy(), np.zeros_like(without), np.zeros_like(without)
    later = None if debt.later is None else np.zeros_like(without)
    month, back = np.full(len(without), np.inf), np.full(len(without), np.inf)
    for t in range(1, debt.horizon_months + 1):
        weight = weight * discount
        per_harm = per_harm + weight * grown
        never = never + weight * (without * grown)
        now = now + weight * (x["now.per_month"] + with_ * grown)
        ahead = never > now
        back[~ahead & np.isfinite(month) & np.isinf(back)] = t
        month[ahead & np.isinf(month)] = t
        if debt.later is not None and later is not None:
            later = later + weight * (without * grown if t <= debt.later.month else x["later.per_month"] + with_ * grown)
            if t == debt.later.month:
                later = later + weight * x["later.once"] * (1 + x["later.growth_per_month"]) ** t
        grown = grown * growth
    return Totals(now, never, later, month, back, per_harm)


def _harm(debt: Debt, x: Mapping[str, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Expected harm of the first month, without alignment and with it."""
    way = debt.harm.way[0]
    each = x.get("harm.cost_per_incident", 1.0)
    return x[f"harm.{way}.without"] * each, x[f"harm.{way}.with"] * each


def _rate(debt: Debt, harm: float) -> float | None:
    """The harm of a month as incidents or as a probability."""
    if debt.harm.cost_per_incident is None or debt.harm.cost_per_incident.likely == 0:
        return None
    rate = harm / debt.harm.cost_per_incident.likely
    return None if not np.isfinite(rate) or (debt.harm.way[0] == "probability_per_month" and rate > 1) else rate


def draw(spread: Spread, distribution: Distribution | None, n: int, rng: np.random.Generator) -> FloatArray:
    """(n,) draws of one number.

    Triangular with its mode at the likeliest value; or PERT: low + (high - low) Beta(1 + 4 (likely - low)/(high - low),
    1 + 4 (high - likely)/(high - low)), whose mean is (low + 4 likely + high)/6.
    """
    if not spread.is_range:
        return np.full(n, spread.likely)
    if distribution == "triangular":
        return rng.triangular(spread.low, spread.likely, spread.high, n)
    width = spread.high - spread.low
    a, b = 1 + 4 * (spread.likely - spread.low) / width, 1 + 4 * (spread.high - spread.likely) / width
    return spread.low + width * rng.beta(a, b, n)


def _drawn(values: FloatArray) -> Drawn:
    """Quantiles are draws themselves, so that one that is never stays never."""
    low, high = np.quantile(values, [_TAIL, 1 - _TAIL], method="inverted_cdf")
    mean = float(values.mean()) if np.isfinite(values).all() else None
    return Drawn(mean, _known(low), _known(high))


def _sensitivities(debt: Debt, spreads: Mapping[str, Spread], at: Totals) -> tuple[Sensitivity, ...]:
    """One number at a time, the others at their likeliest; what aligning later costs is no part of the saving."""
    asked = {name: spread for name, spread in spreads.items() if not name.startswith("later.")}
    saving = float(at.saving[0])
    # What rounding leaves of two equal costs is no saving to have a share of.
    settled = abs(saving) > max(1e-12 * float(at.now[0] + at.never[0]), 1e-300)
    rows: list[tuple[str, float]] = []
    for name, spread in asked.items():
        rows += [(name, spread.likely * (1 + _STEP)), (name, spread.likely * (1 - _STEP)), (name, spread.low), (name, spread.high)]
    x = {name: np.full(len(rows), spread.likely) for name, spread in spreads.items()}
    for k, (name, value) in enumerate(rows):
        x[name][k] = value
    savings = totals(debt, x).saving.reshape(len(asked), 4)
    out = []
    for (name, spread), (up, down, low, high) in zip(asked.items(), savings, strict=True):
        per_percent = float(up - down) / 2
        elasticity = _known(per_percent / (_STEP * saving)) if settled else None
        ends = (float(low), float(high)) if spread.is_range else (None, None)
        out.append(Sensitivity(name, spread, per_percent, elasticity, *ends))
    return tuple(sorted(out, key=lambda one: (-one.swing, -abs(one.per_percent))))


def _known(x: float | np.floating) -> float | None:
    return float(x) if np.isfinite(x) else None


# Entries.


def debt_entries(found: Assessment, currency: str, pair: tuple[str, str]) -> list[Entry]:
    """The ledger's entries, intervals where the user gave ranges."""
    own = _checks(found)
    out = [
        _entry(found, pair, "net_present_cost_now", currency, found.now, "now", own),
        _entry(found, pair, "net_present_cost_never", currency, found.never, "never", own),
    ]
    if found.later is not None and found.debt.later is not None:
        month = f"aligned at the end of month {found.debt.later.month}"
        out.append(_entry(found, pair, "net_present_cost_later", currency, found.later, "later", (month, *own)))
    even: dict[str, Detail] = {"break_even_harm_per_month": found.break_even_harm}
    if found.debt.harm.way[0] != "cost_per_month":
        even[f"break_even_{found.debt.harm.way[0]}"] = found.break_even_rate
    saving = _entry(found, pair, "net_present_saving", currency, found.saving, "saving", (*own, *_owing(found)), even | _details(found))
    out.append(saving.model_copy(update={"higher_is_better": True, "cost": -found.saving, "candidate_value": None}))
    at = _entry(found, pair, "break_even", "months", found.month, "month", (*own, *_when(found)), _never(found))
    return [*out, at.model_copy(update={"cost": None, "candidate_value": None})]


def _entry(
    found: Assessment, pair: tuple[str, str], metric: str, unit: str, value: float | None, name: str,
    checks: tuple[str, ...], details: Mapping[str, Detail] | None = None,
) -> Entry:  # fmt: skip
    drawn = found.drawn.get(name, Drawn(None, None, None))
    more: dict[str, Detail] = {"draws": found.draws, "mean_of_draws": drawn.mean} if found.drawn else {}
    return Entry(
        kind="development", task=TASK, metric=metric, unit=unit, higher_is_better=None, baseline=pair[0], candidate=pair[1], n=0,
        clusters=None, baseline_value=None, candidate_value=value, change=value, cost=value, se=None, level=LEVEL, ci_low=drawn.low,
        ci_high=drawn.high, p_value=None, p_adjusted=None, method="none", margin=None, verdict=None, outcomes={},
        details={**(details or {}), **more}, checks=checks,
    )  # fmt: skip


def _checks(found: Assessment) -> tuple[str, ...]:
    debt = found.debt
    rate = debt.discount_rate_per_year.likely
    out = [f"the user's own numbers over {debt.horizon_months} months, discounted by {100 * rate:g} % a year; nothing here was measured"]
    if found.drawn:
        out.append(
            f"the interval holds 90 % of {found.draws:,} independent {debt.distribution} draws from the user's own ranges; it is no sampling interval, "
            "and the value is that of the likeliest numbers"
        )
    return tuple(out)


def _owing(found: Assessment) -> tuple[str, ...]:
    out = []
    without, with_ = found.debt.harm.way[1].without.likely, found.debt.harm.way[1].with_.likely
    if with_ >= without:
        numbers = "the likeliest" if found.drawn else "these"
        out.append(f"harm with alignment is no less than without it: by {numbers} numbers aligning cannot pay")
    probability = found.debt.harm.way[0] == "probability_per_month"
    if probability and found.break_even_rate is None:
        out.append("no probability of an incident makes aligning now pay at this cost per incident")
    if found.cheaper is not None:
        out.append(f"aligning now is cheaper in {100 * found.cheaper:.3g} % of the draws")
    return tuple(out)


def _when(found: Assessment) -> tuple[str, ...]:
    out = []
    if found.month is None:
        out.append(f"not aligning never costs more within {found.debt.horizon_months} months")
    if found.back is not None:
        out.append(f"from month {found.back:.0f} on not aligning is cheaper again")
    if found.never_even:
        out.append(f"it never does in {100 * found.never_even:.3g} % of the draws" if found.month is None else _sometimes(found.never_even))
    return tuple(out)


def _sometimes(share: float) -> str:
    return f"in {100 * share:.3g} % of the draws not aligning never costs more within the horizon; an end of the interval that is missing is there"


def _never(found: Assessment) -> dict[str, Detail]:
    return {} if found.never_even is None else {"share_never": found.never_even}


def _details(found: Assessment) -> dict[str, Detail]:
    out: dict[str, Detail] = {}
    if found.saving_against_later is not None:
        out["saving_against_later"] = found.saving_against_later
    if found.cheaper is not None:
        out["probability_now_cheaper"] = found.cheaper
    for one in found.sensitivities:
        out[f"per_percent {one.name}"] = one.per_percent
        out[f"elasticity {one.name}"] = one.elasticity
        if one.at_low is not None:
            out[f"at_low_and_high {one.name}"] = [one.at_low, one.at_high]
    return out
