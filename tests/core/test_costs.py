"""costs.yaml: what it may say, and one sentence about what it may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligntax.core.costs import CostsFile, Debt, read_costs
from aligntax.core.errors import InputError

DEBT = """
currency: EUR
debt:
  horizon_months: 24
  discount_rate_per_year: 0
  now: {once: 100, per_month: 1}
  harm:
    incidents_per_month: {without: 0.5, with: 0.1}
    cost_per_incident: 20
    growth_per_month: 0
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "costs.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(InputError) as caught:
        read_costs(write(folder, text))
    message = str(caught.value)
    assert message.startswith(str(folder / "costs.yaml"))
    assert "\n" not in message
    assert message.isprintable()
    return message.removeprefix(str(folder / "costs.yaml"))


def debt_of(costs: CostsFile) -> Debt:
    assert costs.debt is not None
    return costs.debt


def test_numbers_are_read_as_they_are_meant(tmp_path: Path) -> None:
    """YAML takes 175e9 for text and 1_000 for a number; quotes change nothing."""
    text = "stages: {a: {parameters: 175e9, tokens: 3.0e+11, labels: 33_000, hours: '12', devices: 8.0}}"
    stage = read_costs(write(tmp_path, text)).stages["a"]
    assert (stage.parameters, stage.tokens, stage.labels, stage.hours, stage.devices) == (175e9, 3e11, 33000.0, 12.0, 8.0)
    assert stage.energy_kwh is None


def test_ranges_and_single_numbers(tmp_path: Path) -> None:
    ranged = DEBT.replace("cost_per_incident: 20", "cost_per_incident: {low: 5, likely: 20, high: 1e3}") + "  distribution: pert\n"
    numbers = dict(debt_of(read_costs(write(tmp_path, ranged))).numbers())
    spread = numbers["harm.cost_per_incident"]
    assert (spread.low, spread.likely, spread.high, spread.is_range) == (5, 20, 1000, True)
    assert not numbers["now.once"].is_range
    same = DEBT.replace("cost_per_incident: 20", "cost_per_incident: {low: 20, likely: 20, high: 20}")
    assert debt_of(read_costs(write(tmp_path, same))) == debt_of(read_costs(write(tmp_path, DEBT)))
    assert set(numbers) == {
        "discount_rate_per_year", "now.once", "now.per_month", "harm.incidents_per_month.without", "harm.incidents_per_month.with",
        "harm.cost_per_incident", "harm.growth_per_month",
    }  # fmt: skip


NUMBER = "must be a number without a unit from 0 to 1e+30, such as 12.5; got"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("-1", "-1"), ("true", "True"), ("'12 h'", "'12 h'"), ("700W", "'700W'"), (".nan", "nan"), (".inf", "inf"), ("1e400", "'1e400'"),
        ("1e31", "'1e31'"), ("99999999999999999999999999999999", "99999999999999999999999999999999"), ("", "None"), ("[1]", "[1]"),
        ("{low: 1, likely: 2, high: 3}", "{'low': 1, 'likely': 2, 'high': 3}"), ("2026-01-01", "datetime.date(2026, 1, 1)"), ("1 000", "'1 000'"),
        ("'1,5'", "'1,5'"),
    ],
)  # fmt: skip
def test_what_is_no_number_of_hours(tmp_path: Path, value: str, found: str) -> None:
    assert refusal(tmp_path, f"stages: {{sft: {{hours: {value} }}}}") == f": stages, sft, hours {NUMBER} {found}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", " names no costs: a mapping with stages or debt is expected"),
        ("[]", " names no costs: a mapping with stages or debt is expected"),
        ("stages: {}", ": neither stages nor debt is named, so there is nothing to count"),
        ("stages: [sft]", ": stages must be a mapping (names of stages, each with its costs); got ['sft']"),
        ("stages: {1: {}}", ": stages: the name 1 is no text; put it in quotes"),
        ("stages: {a: {hour: 1}}", ": stages, a, hour is not known here; allowed: petaflop_s_days, flops,"),
        ("stages: {a: }", ": stages, a must be a mapping (petaflop_s_days,"),
        ("stages: {a: {hours: 1, hours: 2}}", " is no YAML that can be read: the key 'hours' stands in line 1 and again in line 1"),
        ("stages: {a: {hours: 1:30}}", ": line 1: YAML reads 1:30 as 90; write the number that is meant"),
        ("stages:\n  a: {labels: 010}", ": line 2: YAML reads 010 as 8; write the number that is meant"),
        ("stages: {a: {labels: 1.5}}", ": stages, a, labels must be a whole number from 0 to 1e+30, such as 33000; got 1.5"),
        ("stages: {a: {devices: 0}}", ": stages, a, devices must be a whole number from 1 to"),
        ("stages: {'': {}}", ": stages: the name '' has no character"),
        ("stages: {a: {parent: ''}}", ": stages, a, parent: String should have at least 1 character; got ''"),
        ("stages: {a: {parent: 3}}", ": stages, a, parent: Input should be a valid string; got 3"),
        ("stages: {a: {trainer_state: ''}}", ": stages, a, trainer_state: String should have at least 1 character"),
        ("stages: {a: {power_usage_effectiveness: 0.8}}", "must be a number without a unit from 1 to 10"),
        ("stages: {a: {parameters: 1}}", ": stages, a: parameters and tokens make compute together; one of them is missing"),
        ("stages: {a: {tokens: 1}}", ": stages, a: parameters and tokens make compute together; one of them is missing"),
        ("stages: {a: {parameters: 0, tokens: 1}}", ": stages, a, parameters must be a number without a unit above 0"),
        ("stages: {a: {passes: 1}}", ": stages, a: passes says how often tokens were trained on; tokens is missing"),
        ("stages: {a: {flops: 1, petaflop_s_days: 1}}", ": stages, a: the compute is named twice, as petaflop_s_days and as flops; keep one"),
        ("stages: {a: {device_hours: 1, hours: 1}}", ": stages, a: device_hours is the whole, and hours would make it again; keep one"),
        ("stages: {a: {energy_kwh: 1, watts_per_device: 1}}", "energy_kwh is the whole, and watts_per_device would make it again"),
        ("currency: USD\nstages: {a: {price: 1, price_per_label: 1}}", "price is the whole, and price_per_label would make it again"),
        ("stages: {a: {price_per_kwh: 3}}", ": currency is missing: stages, a has prices; name one, such as USD"),
        ("currency: usd\nstages: {a: {}}", ": currency must be three capital letters, such as USD; got 'usd'"),
        ("currency: NO\nstages: {a: {}}", ": currency must be three capital letters, such as USD; got False"),
        ("pretraining: 3640\nstages: {a: {}}", ": pretraining must be a mapping (petaflop_s_days, flops, parameters, tokens, passes); got 3640"),
        ("pretraining: {}\nstages: {a: {}}", ": pretraining: names no compute: petaflop_s_days, flops, or parameters and tokens"),
        ("pretraining: {flops: 0}\nstages: {a: {}}", ": pretraining: names no compute"),
        ("stages: {\"a\\e[2J\": {hours: x}}", ": stages, a\\x1b[2J, hours must be"),
        ("stages: &a {x: *a}", ": stages, x"),
    ],
)  # fmt: skip
def test_one_sentence_about_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("horizon_months: 24", "", ": debt, horizon_months is missing; no number of a debt has a default"),
        ("once: 100, ", "", ": debt, now, once is missing; no number of a debt has a default"),
        ("once: 100", "onc: 100", ": debt, now, onc is not known here; allowed: once, per_month"),
        ("discount_rate_per_year: 0", "", ": debt, discount_rate_per_year is missing"),
        ("    growth_per_month: 0\n", "", ": debt, harm, growth_per_month is missing"),
        (", with: 0.1", "", ": debt, harm, incidents_per_month, with is missing"),
        ("with: 0.1", "wit: 0.1", ": debt, harm, incidents_per_month, wit is not known here; allowed: without, with"),
        ("    cost_per_incident: 20\n", "", ": debt, harm: cost_per_incident is missing; incidents_per_month was named"),
        ("incidents_per_month", "cost_per_month", ": debt, harm: cost_per_month has cost_per_incident in it; cost_per_month was named"),
        ("    incidents_per_month: {without: 0.5, with: 0.1}\n", "", "names none of incidents_per_month, probability_per_month, cost_per_month"),
        ("    cost", "    probability_per_month: {without: 1, with: 0}\n    cost", "names incidents_per_month and probability_per_month of"),
        ("horizon_months: 24", "horizon_months: 0", ": debt, horizon_months must be a whole number from 1 to 1200, such as 36; got 0"),
        ("horizon_months: 24", "horizon_months: 2.5", ": debt, horizon_months must be a whole number"),
        ("horizon_months: 24", "horizon_months: true", ": debt, horizon_months must be a whole number"),
        ("discount_rate_per_year: 0", "discount_rate_per_year: 5", "from 0 to 1, such as 0.05 (which is 5 %); got 5"),
        ("growth_per_month: 0", "growth_per_month: -1", "above -1 to 1, such as 0.02 (which is 2 % a month; 0 is none); got -1"),
        ("incidents_per_month: {without: 0.5", "probability_per_month: {without: 1.5", "without must be a number without a unit from 0 to 1"),
        ("cost_per_incident: 20", "cost_per_incident: {low: 5}", "a range has low, likely and high; got low"),
        ("cost_per_incident: 20", "cost_per_incident: {low: 5, likely: 4, high: 9}", "low, likely and high must not fall; got 5, 4 and 9"),
        ("cost_per_incident: 20", "cost_per_incident: {low: -5, likely: 4, high: 9}", "cost_per_incident: low must be a number"),
        ("cost_per_incident: 20", "cost_per_incident: {low: 1, likely: 4, high: 9}", "distribution is missing: harm.cost_per_incident is a range"),
        ("  now:", "  distribution: normal\n  now:", ": debt, distribution must be triangular or pert; got 'normal'"),
        ("  now:", "  later: {month: 25, once: 1, growth_per_month: 0, per_month: 1}\n  now:", "must not lie beyond horizon_months (24); got 25"),
        ("  now:", "  later: {month: 12, once: 1, growth_per_month: 0}\n  now:", ": debt, later, per_month is missing"),
        ("currency: EUR", "", ": currency is missing: debt has prices"),
    ],
)  # fmt: skip
def test_a_debt_has_no_defaults(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in DEBT
    assert message in refusal(tmp_path, DEBT.replace(old, new, 1))


def test_what_is_no_yaml(tmp_path: Path) -> None:
    assert "is no YAML that can be read" in refusal(tmp_path, "stages: {a: !!python/object:os.system {}}")
