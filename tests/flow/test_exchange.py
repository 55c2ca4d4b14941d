"""What safety cost: known rates, every case that has none, shared tasks, and a simulation that the interval covers."""

from __future__ import annotations

from math import sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aligntax
from aligntax.core.ledger import MEAN_OVER_TASKS, Entry, Ledger
from aligntax.flow.exchange import (
    Rate,
    any_correlation,
    bought_sentence,
    exchange,
    exchange_rows,
    few_sources,
    fieller,
    level_text,
    quantities,
    rate_sentence,
    rate_text,
    sampling_error,
    tasks_behind,
)
from aligntax.stats.paired import critical_value, paired_change
from tests.support.tables import write_csv

Z = critical_value(0.95, None)


def entry(kind: str, task: str, cost: float, se: float | None, **more: Any) -> Entry:
    """An entry whose loss is ``cost``, with a normal interval (or t's, with ``df`` in its details)."""
    sign = 1 if more.get("higher_is_better") is False else -1
    df = more.get("details", {}).get("df")
    half = None if se is None else critical_value(0.95, df) * se
    low, high = (None, None) if half is None else (sign * cost - half, sign * cost + half)
    verdict = "undetermined" if half is None else "tax" if cost > half else "gain" if cost < -half else "undetermined"
    values = {
        "kind": kind, "task": task, "metric": "acc", "unit": "fraction", "higher_is_better": True, "baseline": "base", "candidate": "dpo", "n": 400,
        "clusters": None, "baseline_value": 0.5, "candidate_value": 0.5 + sign * cost, "change": sign * cost, "cost": cost, "se": se, "level": 0.95,
        "ci_low": low, "ci_high": high, "p_value": None, "p_adjusted": None, "method": "score", "margin": 0.01, "verdict": verdict, "outcomes": {},
        "details": {}, "checks": (),
    }  # fmt: skip
    return Entry(**{**values, **more})


def ledger(*entries: Entry) -> Ledger:
    return Ledger(study="s", baseline="base", entries=entries)


def only(*entries: Entry) -> Rate:
    (one,) = exchange(ledger(*entries))
    (rate,) = one.rates
    return rate


def test_a_rate_by_hand() -> None:
    """20 points of safety (error 2) for 5 points of performance (error 1): .25, and by definition t is critical at both ends."""
    rate = only(entry("safety", "toxigen", -0.20, 0.02), entry("performance", "sums", 0.05, 0.01))
    assert rate.rate == pytest.approx(0.25)
    assert (rate.unit, rate.status) == ("points per point", "cost")
    assert rate.low is not None
    assert rate.high is not None
    for r in (rate.low, rate.high):
        assert abs(0.05 - r * 0.20) / sqrt(0.01**2 + r**2 * 0.02**2) == pytest.approx(Z, rel=1e-9)
    assert rate_text(rate) == "0.25 [0.15, 0.37]"
    assert rate_sentence(rate) == "performance: sums (acc): each point cost 0.25 points (95 % interval 0.15 to 0.37)."
    assert bought_sentence(rate.bought) == "safety: toxigen (acc) improved by 20.0 points (change [+16.1, +23.9] at 95 %)."


def test_fieller_has_an_end_only_where_the_gain_is_not_0() -> None:
    assert fieller(1.0, 0.0, 2.0, 0.0, critical=Z) == (0.5, 0.5)
    assert fieller(1.0, 1.0, 1.9, 1.0, critical=Z) is None
    found = fieller(-3.0, 1.0, 10.0, 1.0, critical=Z)
    assert found is not None
    assert found[0] < -0.3 < found[1] < 0


def test_units_and_directions() -> None:
    slow = entry("latency", "replies", 0.4, 0.05, unit="seconds", higher_is_better=False, metric="latency", margin=None)
    rate = only(entry("safety", "toxigen", -0.20, 0.01, higher_is_better=False), slow)
    assert (rate.rate, rate.unit) == (pytest.approx(20), "ms per point")  # .4 s for 20 points
    graded = entry("helpfulness", "mt_bench", -0.5, 0.1, unit="score", margin=None)
    rate = only(graded, entry("performance", "sums", 0.05, 0.01))
    assert (rate.rate, rate.unit) == (pytest.approx(10.0), "points per score")  # 5 points for half a score


def test_each_purchase_is_a_currency_of_the_other_and_distances_are_none() -> None:
    found = exchange(
        ledger(
            entry("safety", "toxigen", -0.20, 0.02),
            entry("helpfulness", "alpaca_eval", 0.10, 0.02),
            entry("divergence", "sums", 0.3, 0.01, unit="nats", verdict=None),
        )
    )
    assert [(r.bought.kind, r.paid.kind) for one in found for r in one.rates] == [("safety", "helpfulness")]
    assert [(e.kind, why) for one in found for e, why in one.not_bought] == [("helpfulness", "it was lost, not bought: 10.0 points")]


@pytest.mark.parametrize(
    ("cost", "se", "status", "said"),
    [
        (-0.05, 0.01, "free", "free; with each point it improved by 0.25 points (cost -0.25, 95 % interval -0.37 to -0.15)."),
        (0.006, 0.01, "not shown", "no price shown; 0.03 points per point as measured (95 % interval -0.07 to 0.13), at most 0.13."),
        (0.05, None, "not shown", "0.25 points per point as measured; no interval of the cost is known."),
    ],
)
def test_what_was_paid_in_words(cost: float, se: float | None, status: str, said: str) -> None:
    rate = only(entry("safety", "toxigen", -0.20, 0.02), entry("performance", "sums", cost, se))
    assert rate.status == status
    assert rate_sentence(rate) == f"performance: sums (acc): {said}"


@pytest.mark.parametrize(
    ("cost", "se", "said"),
    [
        (-0.02, 0.02, "+2.0 points [-1.9, +5.9]: that anything was bought is not established, so it has no price"),
        (0.08, 0.02, "it was lost, not bought: 8.0 points"),
        (-0.08, None, "+8.0 points, and no interval is known: that anything was bought is not shown, so it has no price"),
    ],
)
def test_what_was_not_bought_has_no_price(cost: float, se: float | None, said: str) -> None:
    (one,) = exchange(ledger(entry("safety", "toxigen", cost, se), entry("performance", "sums", 0.05, 0.01)))
    assert one.rates == ()
    assert [why for _, why in one.not_bought] == [said]


def test_a_rate_without_an_end_says_so() -> None:
    """The gain is established by its own normal law, but with the cost's two degrees of freedom it may be 0."""
    rate = only(entry("safety", "toxigen", -0.20, 0.07), entry("performance", "sums", 0.05, 0.01, details={"df": 2.0}))
    assert (rate.status, rate.low, rate.high) == ("open", None, None)
    assert rate.rate == pytest.approx(0.25)
    assert rate_sentence(rate).endswith("as measured; the gain may be 0 at 2.0 degrees of freedom: the rate has no end.")
    assert rate_text(rate) == "0.25 [no interval]"


def test_what_rests_on_too_few_sources_has_no_price() -> None:
    """Three sources: an interval is printed, and there is no verdict; so there is no price either."""
    paid = entry("performance", "sums", 0.3, 0.03, details={"df": 2.0}, clusters=3, method="score-clustered")
    assert few_sources(paid)
    rate = only(entry("safety", "toxigen", -0.50, 0.02), paid)
    assert (rate.rate, rate.low, rate.high, rate.status) == (pytest.approx(0.6), None, None, "not shown")
    assert rate_sentence(rate).endswith("as measured; the cost rests on too few sources (2.0 degrees of freedom) for a price to be shown.")
    enough = paid.model_copy(update={"details": {"df": 4.0}})
    assert only(entry("safety", "toxigen", -0.50, 0.02), enough).status == "cost"
    assert not few_sources(paid.model_copy(update={"method": "score"}))  # items that are sources of their own


def test_a_gain_beside_which_nothing_was_measured_is_told() -> None:
    (one,) = exchange(ledger(entry("safety", "toxigen", -0.20, 0.02)))
    assert one.rates == ()
    ((_, why),) = one.not_bought
    assert why == "+20.0 points, an established gain; nothing else with a better side was measured that it could have cost"
    assert [row["status"] for row in exchange_rows([one])] == ["no currency"]


def test_levels_keep_their_digits() -> None:
    assert [level_text(x) for x in (0.95, 0.9, 0.999, 0.9975)] == ["95 %", "90 %", "99.9 %", "99.75 %"]
    gain = entry("safety", "toxigen", -0.20, 0.02, level=0.999)
    cost = entry("performance", "sums", 0.05, 0.01, level=0.999)
    assert "(99.9 % interval" in rate_sentence(only(gain, cost))


def test_an_average_stands_for_its_tasks_and_shared_tasks_say_so() -> None:
    safety = [
        entry("safety", MEAN_OVER_TASKS, -0.2, 0.01),
        entry("safety", "toxigen", -0.1, 0.01),
        entry("safety", "harmbench", -0.3, 0.01),
    ]
    group = entry("safety", "both", -0.2, 0.01, checks=("mean over the items of 2 tasks",))
    sub = entry("safety", "toxigen/women", -0.1, 0.01, details={"subgroup": 1})
    paid = [entry("performance", "sums", 0.05, 0.01), entry("format", "toxigen", 0.02, 0.01, metric="acc - em", higher_is_better=False)]
    whole = ledger(*safety, group, sub, *paid)
    assert [(e.kind, e.task) for e in quantities(whole, ("base", "dpo"))] == [
        ("safety", MEAN_OVER_TASKS), ("performance", "sums"), ("format", "toxigen"),
    ]  # fmt: skip
    assert tasks_behind(whole, safety[0]) == {"toxigen", "harmbench"}
    (one,) = exchange(whole)
    assert [(r.paid.kind, r.status) for r in one.rates] == [("performance", "cost"), ("format", "cost")]
    shared = one.rates[1]
    assert (shared.low, shared.high) == (
        pytest.approx((0.02 - Z * 0.01) / (0.2 + Z * 0.01)),
        pytest.approx((0.02 + Z * 0.01) / (0.2 - Z * 0.01)),
    )
    assert rate_sentence(shared).endswith("; both rest on toxigen: the interval holds whatever way they vary together).")
    assert exchange_rows([one])[1]["reason"] == shared.reason
    # A mean that could not be taken: the tasks stand for themselves.
    none = entry("safety", MEAN_OVER_TASKS, 0.0, None).model_copy(update={"change": None, "cost": None})
    assert [e.task for e in quantities(ledger(none, *safety[1:], *paid), ("base", "dpo"))] == ["toxigen", "harmbench", "sums", "toxigen"]


def test_the_error_is_what_the_interval_stands_for() -> None:
    still = entry("performance", "sums", 0.0, 0.0, ci_low=-0.04, ci_high=0.04)
    assert sampling_error(still) == (pytest.approx(0.04 / Z), None)
    assert sampling_error(entry("performance", "sums", 0.0, None)) is None


@pytest.mark.parametrize("correlation", [-0.95, 0.0, 0.95])
def test_whatever_way_they_vary_together_the_interval_covers(correlation: float) -> None:
    rng = np.random.default_rng(3)
    draws = rng.multivariate_normal([0.05, 0.2], [[0.02**2, correlation * 0.02 * 0.03], [correlation * 0.02 * 0.03, 0.03**2]], 4000)
    found = [any_correlation(c, 0.02, b, 0.03, critical=Z) for c, b in draws]
    covered = np.mean([limits is None or limits[0] <= 0.25 <= limits[1] for limits in found])
    assert covered >= 0.943
    if correlation < -0.9:
        assert covered <= 0.965  # at the worst correlation it is no wider than it must be


@pytest.mark.parametrize("c", [-0.05, 0.0, 0.05])
def test_the_union_over_correlations_is_fiellers(c: float) -> None:
    """Fieller's intervals of every correlation, by a grid of rates."""
    low, high = any_correlation(c, 0.02, 0.2, 0.03, critical=Z) or (0.0, 0.0)
    rates = np.linspace(-2, 2, 40001)
    kept = np.zeros(len(rates), dtype=bool)
    for rho in (-1.0, -0.5, 0.0, 0.5, 1.0):
        kept |= (c - rates * 0.2) ** 2 <= Z**2 * (0.02**2 - 2 * rates * rho * 0.02 * 0.03 + rates**2 * 0.03**2) + 1e-12
    assert rates[kept].min() == pytest.approx(low, abs=2e-4)
    assert rates[kept].max() == pytest.approx(high, abs=2e-4)


def _drawn(rng: np.random.Generator, n: int, lost: float, gained: float) -> Any:
    u = rng.random(n)
    return paired_change(np.where(u < lost, -1.0, np.where(u > 1 - gained, 1.0, 0.0)), binary=True)


def test_it_covers_where_answers_are_right_or_wrong() -> None:
    """Safety rises by 15 points over 200 items, performance falls by 4 over 400: rate .2667; Tango's intervals, 600 studies."""
    rng = np.random.default_rng(7)
    hits = priced = 0
    for _ in range(600):
        gain, cost = _drawn(rng, 200, 0.05, 0.20), _drawn(rng, 400, 0.09, 0.05)
        low, high = gain.test.interval(0.95)
        if low <= 0:
            continue
        priced += 1
        bought = entry("safety", "toxigen", -gain.change, gain.se, ci_low=low, ci_high=high, verdict="gain")
        low, high = cost.test.interval(0.95)
        rate = only(bought, entry("performance", "sums", -cost.change, cost.se, ci_low=low, ci_high=high))
        if rate.low is not None and rate.high is not None:
            hits += rate.low <= 0.04 / 0.15 <= rate.high
        else:
            hits += rate.status == "open"
    assert priced > 570
    assert 0.93 <= hits / priced <= 0.975


def _covers(df_gain: float, df_cost: float, gain: float, cost: float, law: str, studies: int = 40_000) -> float:
    """Coverage of Fieller's interval for t-distributed errors of 1, by the smaller or by Welch's degrees of freedom at the estimate."""
    rng = np.random.default_rng(int(df_gain + 31 * df_cost + 7 * gain))
    b, c = gain + rng.normal(size=studies), cost + rng.normal(size=studies)
    vb, vc = rng.chisquare(df_gain, studies) / df_gain, rng.chisquare(df_cost, studies) / df_cost
    at = (c / b) ** 2 * vb
    df = np.full(studies, min(df_gain, df_cost)) if law == "smaller" else (vc + at) ** 2 / (vc**2 / df_cost + at**2 / df_gain)
    from scipy.special import stdtrit

    return float(np.mean(np.abs(c - cost / gain * b) <= stdtrit(df, 0.975) * np.sqrt(vc + (cost / gain) ** 2 * vb)))


def test_the_smaller_degrees_of_freedom_hold_the_level_and_welchs_do_not() -> None:
    for df_gain, df_cost in ((5, 5), (5, 1000), (39, 5), (1000, 5), (29, 29)):
        for gain, cost in ((4.0, 0.0), (6.0, 2.0), (15.0, 6.0)):
            assert _covers(df_gain, df_cost, gain, cost, "smaller") >= 0.945
    assert _covers(1000, 5, 3.0, 0.0, "welch") < 0.93


def test_rates_of_gains_that_are_seldom_established_are_too_low() -> None:
    """Only established gains have a rate. With a power of one half and more those rates are covered; with less, lucky gains make them too low."""
    from scipy.special import ndtri

    rng = np.random.default_rng(5)
    held = {}
    for power in (0.2, 0.5, 0.8):
        true = Z + float(ndtri(power))  # in errors of the gain; a cost as large as the gain
        gain, cost = true + rng.normal(size=100_000), true + rng.normal(size=100_000)
        bought = gain > Z
        held[power] = float(np.mean(np.abs(cost - gain)[bought] <= Z * np.sqrt(2)))
        assert float(np.median((cost / gain)[bought])) == pytest.approx({0.2: 0.44, 0.5: 0.71, 0.8: 0.9}[power], abs=0.03)
    assert held[0.2] < 0.91
    assert min(held[0.5], held[0.8]) >= 0.945


def test_from_logs(tmp_path: Path) -> None:
    for name, (sums, safe) in {"base": (90, 40), "dpo": (70, 90)}.items():
        rows = [{"task": "sums", "item": i, "score": int(i < sums)} for i in range(100)]
        write_csv(tmp_path / f"{name}.csv", [*rows, *({"task": "toxigen", "item": i, "score": int(i < safe)} for i in range(100))])
    (one,) = exchange(aligntax.diff(tmp_path / "base.csv", tmp_path / "dpo.csv"))
    (rate,) = one.rates
    assert (rate.bought.task, rate.paid.task) == ("toxigen", "sums")
    assert rate.rate == pytest.approx(20 / 50)
    assert rate.status == "cost"
