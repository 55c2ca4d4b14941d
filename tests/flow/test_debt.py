"""Alignment debt: closed forms, what must hold for any numbers, and draws whose quantiles are known."""

from __future__ import annotations

from math import floor, isinf, sqrt
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from aligntax.core.costs import Debt, Spread
from aligntax.core.errors import InputError
from aligntax.flow.debt import Assessment, assess, debt_entries, draw, totals

CERTAIN: dict[str, Any] = {
    "horizon_months": 24,
    "discount_rate_per_year": 0,
    "now": {"once": 100, "per_month": 2},
    "harm": {"cost_per_month": {"without": 10, "with": 1}, "growth_per_month": 0},
}
LATER = {"month": 6, "once": 150, "growth_per_month": 0.02, "per_month": 3}


def debt(**changes: Any) -> Debt:
    """The certain numbers, some changed: ``now`` and ``harm`` part by part."""
    given = {**CERTAIN, **{k: {**CERTAIN[k], **v} if k in ("now", "harm") else v for k, v in changes.items()}}
    return Debt.model_validate(given)


def incidents(way: str, without: Any, with_: Any, each: Any, growth: Any = 0) -> dict[str, Any]:
    return {"harm": {way: {"without": without, "with": with_}, "cost_per_incident": each, "growth_per_month": growth}}


def given_by(**changes: Any) -> Debt:
    return Debt.model_validate({**CERTAIN, **changes})


def test_nothing_discounted_nothing_growing() -> None:
    """Never 24 x 10; now 100 + 24 x (2 + 1); even after 100/(10 - 3) = 14.3 months."""
    found = assess(debt())
    assert (found.never, found.now, found.saving) == (approx(240), approx(172), approx(68))
    assert found.month == 15
    assert found.back is None
    assert found.break_even_harm == approx(172 / 24)
    assert (found.later, found.cheaper, found.drawn, found.break_even_rate) == (None, None, {}, None)


def test_passing_is_more_than_reaching() -> None:
    """100 against 10 a month: equal at the end of month 10, passed in month 11."""
    assert assess(debt(now={"per_month": 0}, harm={"cost_per_month": {"without": 10, "with": 0}})).month == 11


@pytest.mark.parametrize(("rate", "growth"), [(0.08, 0.0), (0.0, 0.03), (0.08, 0.03), (0.5, -0.1), (0.126825030131969720661, 0.01)])
def test_geometric_series(rate: float, growth: float) -> None:
    """sum d^t q^(t-1) = d ((dq)^H - 1)/(dq - 1), and H d where dq = 1 (the last case: 1 % a month each)."""
    d, q, months = (1 + rate) ** (-1 / 12), 1 + growth, 24
    series = months * d if abs(d * q - 1) < 1e-12 else d * ((d * q) ** months - 1) / (d * q - 1)
    annuity = months if d == 1 else d * (d**months - 1) / (d - 1)
    found = assess(debt(discount_rate_per_year=rate, harm={"growth_per_month": growth}))
    assert found.never == approx(10 * series, rel=1e-12)
    assert found.now == approx(100 + 2 * annuity + series, rel=1e-12)
    assert found.break_even_harm == approx(found.now / series, rel=1e-12)


def test_aligning_later() -> None:
    """Six months of harm, then 150 grown by 2 % a month, then 18 months of 3 + 1."""
    found = assess(debt(later=LATER))
    assert found.later == approx(60 + 150 * 1.02**6 + 18 * 4)
    assert found.saving_against_later == approx(60 + 150 * 1.02**6 + 72 - 172)
    discounted = assess(debt(later=LATER, discount_rate_per_year=0.1))
    d = 1.1 ** (-1 / 12)
    by_hand = sum(10 * d**t for t in range(1, 7)) + 150 * 1.02**6 * d**6 + sum(4 * d**t for t in range(7, 25))
    assert discounted.later == approx(by_hand)


def test_at_the_last_month_later_is_never_with_its_price_on_top() -> None:
    found = assess(debt(later={"month": 24, "once": 50, "growth_per_month": 0, "per_month": 7}))
    assert found.later == approx(found.never + 50)


def test_incidents_and_probabilities_come_to_costs() -> None:
    by_cost = assess(debt())
    for way, without, each in (("incidents_per_month", 4, 2.5), ("probability_per_month", 0.5, 20)):
        found = assess(given_by(**incidents(way, without, without / 10, each)))
        assert (found.never, found.now, found.month) == (approx(by_cost.never), approx(by_cost.now), by_cost.month)
        assert found.break_even_rate == approx(172 / 24 / each)
    dear = assess(given_by(**incidents("probability_per_month", 0.5, 0, 2)))
    assert dear.break_even_rate is None
    said = debt_entries(dear, "USD", ("base", "dpo"))[2].checks
    assert "no probability of an incident makes aligning now pay at this cost per incident" in said


def test_never_even_and_even_no_more() -> None:
    cheap = assess(debt(harm={"cost_per_month": {"without": 1, "with": 0}}))
    assert cheap.month is None
    entry = debt_entries(cheap, "USD", ("base", "dpo"))[-1]
    assert (entry.metric, entry.change, entry.unit) == ("break_even", None, "months")
    assert "not aligning never costs more within 24 months" in entry.checks
    # Harm of 60 falls by a half a month, to 120 in all; alignment costs 50 and 5 a month: passed in month 1, given back when 50 + 5 t >= 120 (1 - 2^-t).
    fading = assess(debt(now={"once": 50, "per_month": 5}, harm={"cost_per_month": {"without": 60, "with": 0}, "growth_per_month": -0.5}))
    assert (fading.month, fading.back) == (1, 14)
    assert "from month 14 on not aligning is cheaper again" in debt_entries(fading, "USD", ("base", "dpo"))[-1].checks


def test_no_harm_avoided_cannot_pay() -> None:
    entries = debt_entries(assess(debt(harm={"cost_per_month": {"without": 3, "with": 3}})), "USD", ("base", "dpo"))
    assert "harm with alignment is no less than without it: by these numbers aligning cannot pay" in entries[2].checks
    wide = {"low": 0, "likely": 3, "high": 90}
    perhaps = assess(debt(harm={"cost_per_month": {"without": wide, "with": 3}}, distribution="triangular"))
    assert perhaps.cheaper is not None
    assert perhaps.cheaper > 0.5
    checks = debt_entries(perhaps, "USD", ("base", "dpo"))[2].checks
    assert "harm with alignment is no less than without it: by the likeliest numbers aligning cannot pay" in checks


def test_sensitivities_of_a_linear_saving() -> None:
    """saving = 24 h - 100 - 24 (2 + h'): each per cent is a hundredth of its term."""
    found = {one.name: one for one in assess(debt(later=LATER)).sensitivities}
    assert set(found) == {
        "discount_rate_per_year", "now.once", "now.per_month", "harm.cost_per_month.without", "harm.cost_per_month.with", "harm.growth_per_month",
    }  # fmt: skip
    for name, term in (
        ("now.once", -100), ("now.per_month", -48), ("harm.cost_per_month.without", 240), ("harm.cost_per_month.with", -24),
        ("discount_rate_per_year", 0), ("harm.growth_per_month", 0),
    ):  # fmt: skip
        assert found[name].per_percent == approx(term / 100, abs=1e-9)
        assert found[name].elasticity == approx(term / 68, abs=1e-9)
        assert (found[name].at_low, found[name].swing) == (None, 0.0)


def test_no_elasticity_of_nothing() -> None:
    nothing = assess(debt(now={"once": 0, "per_month": 0}, harm={"cost_per_month": {"without": 3, "with": 3}}))
    assert nothing.saving == 0
    assert {one.elasticity for one in nothing.sensitivities} == {None}


def ranged(distribution: str) -> Debt:
    spread = {"low": 2, "likely": 6, "high": 14}
    return debt(
        harm={"cost_per_month": {"without": spread, "with": 0}},
        now={"once": {"low": 90, "likely": 90, "high": 130}},
        distribution=distribution,
    )


def test_a_tornado_has_the_largest_swing_first() -> None:
    found = assess(ranged("pert")).sensitivities
    assert [one.name for one in found[:2]] == ["harm.cost_per_month.without", "now.once"]
    assert (found[0].at_low, found[0].at_high) == (approx(48 - 138), approx(336 - 138))
    assert (found[1].at_low, found[1].at_high) == (approx(144 - 138), approx(144 - 178))


def test_distributions_have_their_moments() -> None:
    """Triangular: (a + m + b)/3, variance (a^2 + m^2 + b^2 - am - ab - mb)/18. PERT: (a + 4m + b)/6, variance (mean - a)(b - mean)/7."""
    a, m, b, n = 2.0, 5.0, 14.0, 200_000
    for name, mean, variance in (
        ("triangular", (a + m + b) / 3, (a * a + m * m + b * b - a * m - a * b - m * b) / 18),
        ("pert", (a + 4 * m + b) / 6, ((a + 4 * m + b) / 6 - a) * (b - (a + 4 * m + b) / 6) / 7),
    ):
        x = draw(Spread(low=a, likely=m, high=b), name, n, np.random.default_rng(1))  # type: ignore[arg-type]
        assert x.min() >= a
        assert x.max() <= b
        assert x.mean() == approx(mean, abs=4 * sqrt(variance / n))
        assert x.var() == approx(variance, rel=0.02)
    for edge in (Spread(low=1, likely=1, high=3), Spread(low=1, likely=3, high=3)):
        for name in ("triangular", "pert"):
            x = draw(edge, name, 1000, np.random.default_rng(1))  # type: ignore[arg-type]
            assert ((x >= 1) & (x <= 3)).all()
            assert x.std() > 0.1
    assert set(draw(Spread(low=3, likely=3, high=3), "pert", 5, np.random.default_rng(1))) == {3.0}


def test_intervals_hold_ninety_per_cent_of_what_is_known() -> None:
    """saving = 24 h - c with h triangular (2, 6, 14): quantiles 2 + sqrt(p 12 4) and 14 - sqrt((1 - p) 12 8); P(saving > 0) = P(h > c/24)."""
    spread = {"low": 2, "likely": 6, "high": 14}
    one = debt(now={"once": 192, "per_month": 0}, harm={"cost_per_month": {"without": spread, "with": 0}}, distribution="triangular")
    found = assess(one, draws=100_000)
    low, high = 2 + sqrt(0.05 * 12 * 4), 14 - sqrt(0.05 * 12 * 8)
    assert (found.drawn["never"].low, found.drawn["never"].high) == (approx(24 * low, rel=0.01), approx(24 * high, rel=0.01))
    assert (found.drawn["saving"].low, found.drawn["saving"].high) == (approx(24 * low - 192, abs=2), approx(24 * high - 192, abs=2))
    assert found.drawn["saving"].mean == approx(24 * 22 / 3 - 192, abs=1)
    above = (14 - 8) ** 2 / (12 * 8)
    assert found.cheaper == approx(above, abs=0.006)
    assert found.never_even == approx(1 - above, abs=0.006)
    assert found.drawn["month"].low == floor(192 / high) + 1
    assert found.drawn["month"].high is None  # more than one draw in twenty never pays
    assert (found.drawn["now"].low, found.drawn["now"].high) == (192, 192)


def test_draws_are_the_same_again_and_others_with_another_seed() -> None:
    first, again, other = (assess(ranged("pert"), draws=500, seed=seed) for seed in (0, 0, 1))
    assert first.drawn == again.drawn
    assert first.drawn != other.drawn


def test_entries_say_whose_numbers_they_are() -> None:
    found = assess(ranged("pert").model_copy(update={"later": debt(later=LATER).later}))
    entries = {e.metric: e for e in debt_entries(found, "EUR", ("base", "dpo"))}
    assert list(entries) == ["net_present_cost_now", "net_present_cost_never", "net_present_cost_later", "net_present_saving", "break_even"]
    for entry in entries.values():
        assert (entry.kind, entry.task, entry.pair, entry.level, entry.method, entry.n) == (
            "development",
            "debt",
            ("base", "dpo"),
            0.9,
            "none",
            0,
        )
        assert (entry.verdict, entry.p_value, entry.se, entry.baseline_value) == (None, None, None, None)
        assert any("it is no sampling interval" in check for check in entry.checks)
        assert any("the user's own numbers over 24 months, discounted by 0 % a year" in check for check in entry.checks)
    never, saving = entries["net_present_cost_never"], entries["net_present_saving"]
    assert (never.unit, never.change, never.cost, never.candidate_value) == ("EUR", 144, 144, 144)
    assert (saving.change, saving.cost, saving.higher_is_better) == (144 - 138, -(144 - 138), True)
    assert (saving.ci_low, saving.ci_high) == (found.drawn["saving"].low, found.drawn["saving"].high)
    assert saving.details["probability_now_cheaper"] == found.cheaper
    assert saving.details["at_low_and_high harm.cost_per_month.without"] == [approx(-90), approx(198)]
    assert saving.details["saving_against_later"] == found.saving_against_later
    assert entries["break_even"].unit == "months"
    certain = debt_entries(assess(debt()), "EUR", ("base", "dpo"))
    assert {(e.ci_low, e.ci_high) for e in certain} == {(None, None)}
    assert not any("draws" in e.details or "no sampling interval" in " ".join(e.checks) for e in certain)


def test_growth_beyond_any_number_is_refused() -> None:
    with pytest.raises(InputError, match="the debt grows beyond any number within 1200 months"):
        assess(debt(horizon_months=1200, harm={"growth_per_month": 1}))


def test_a_hundred_years_are_weighed_in_a_second() -> None:
    found = assess(ranged("triangular").model_copy(update={"horizon_months": 1200}))
    assert found.never == approx(7200)


money = st.floats(0, 1e9)
shares = st.floats(0, 1)
growths = st.floats(-0.5, 0.2)


def of(once: float, monthly: float, without: float, with_: float, rate: float, growth: float) -> Assessment:
    return assess(
        debt(
            now={"once": once, "per_month": monthly},
            harm={"cost_per_month": {"without": without, "with": with_}, "growth_per_month": growth},
            discount_rate_per_year=rate,
        )
    )


@given(money, money, money, money, shares, growths, st.floats(0, 1e6))
@settings(max_examples=80, deadline=None)
def test_more_harm_never_makes_aligning_worse(
    once: float, monthly: float, without: float, with_: float, rate: float, growth: float, more: float
) -> None:
    less, greater = of(once, monthly, without, with_, rate, growth), of(once, monthly, without + more, with_, rate, growth)
    assert greater.never >= less.never
    assert greater.saving >= less.saving
    assert greater.now == less.now
    assert (greater.month or np.inf) <= (less.month or np.inf)
    dearer = of(once + more, monthly, without, with_, rate, growth)
    assert dearer.saving <= less.saving
    assert (dearer.month or np.inf) >= (less.month or np.inf)


@given(money, money, money, shares, growths)
@settings(max_examples=80, deadline=None)
def test_at_its_break_even_harm_aligning_just_pays(once: float, monthly: float, with_: float, rate: float, growth: float) -> None:
    even = of(once, monthly, 0.0, with_, rate, growth).break_even_harm
    at = of(once, monthly, even, with_, rate, growth)
    assert at.never == approx(at.now, rel=1e-9)


@given(money, shares, shares)
@settings(max_examples=50, deadline=None)
def test_discounting_makes_debt_smaller(without: float, rate: float, more: float) -> None:
    low, high = sorted((rate, more))
    assert of(0, 0, without, 0, high, 0).never <= of(0, 0, without, 0, low, 0).never * (1 + 1e-12)


def test_rows_are_weighed_alone() -> None:
    """A row's totals do not depend on its neighbours."""
    one = ranged("pert")
    rng = np.random.default_rng(3)
    x = {name: rng.uniform(0, 5, 40) for name, _ in one.numbers()}
    together = totals(one, x)
    for k in (0, 17, 39):
        alone = totals(one, {name: values[k : k + 1] for name, values in x.items()})
        assert alone.saving[0] == together.saving[k]
        assert alone.month[0] == together.month[k] or (isinf(alone.month[0]) and isinf(together.month[k]))
