"""costs.yaml: what alignment cost to make, and what it costs not to have it, as the user says it. No number has a default."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from aligntax.core.errors import InputError
from aligntax.core.files import read_text
from aligntax.core.study import Frozen
from aligntax.core.words import cut, printable
from aligntax.core.yamlio import read_yaml

MAX_NUMBER = 1e30
MAX_MONTHS = 1200
BASELINE = "base"
_DECIMAL = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# YAML 1.1 reads 1:30 as 90 and 010 as 8.
_MISREAD = re.compile(r"[+-]?(\d[\d_]*(:[0-5]?\d)+(\.\d*)?|0[0-7_]*[0-7])")

Distribution = Literal["triangular", "pert"]


@dataclass(frozen=True)
class Bounds:
    """Which numbers are allowed: from ``low`` (itself left out if ``above``) to ``high``, whole ones if ``whole``; ``such`` is an example."""

    low: float = 0.0
    high: float = MAX_NUMBER
    above: bool = False
    whole: bool = False
    such: str = "12.5"

    def number(self, given: Any) -> float:
        """``given`` as a number.

        Raises:
            ValueError: if it is none, or lies outside.
        """
        try:
            # YAML takes 175e9, which has no point, for text.
            value = float(given) if not isinstance(given, str) or _DECIMAL.fullmatch(given) else None
        except (TypeError, ValueError, OverflowError):
            value = None
        inside = value is not None and isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)
        if isinstance(given, bool) or value is None or not inside or (self.whole and not value.is_integer()):
            raise ValueError(f"must be {self.words}; got {cut(printable(repr(given)), 60)}")
        return value

    @property
    def words(self) -> str:
        """Which numbers are allowed, in words."""
        kind = "a whole number" if self.whole else "a number without a unit"
        least = f"above {self.low:g}" if self.above else f"from {self.low:g}"
        return f"{kind} {least} to {self.high:g}, such as {self.such}"


class Spread(Frozen):
    """A number of the user's with the lowest, likeliest and highest value it may have; three times the same where it is taken as certain."""

    low: float
    likely: float
    high: float

    @property
    def is_range(self) -> bool:
        return self.low < self.high


def _plain(bounds: Bounds) -> BeforeValidator:
    return BeforeValidator(bounds.number)


def _spread(bounds: Bounds) -> BeforeValidator:
    def read(given: Any) -> Any:
        if not isinstance(given, Mapping):
            value = bounds.number(given)
            return {"low": value, "likely": value, "high": value}
        if set(given) != {"low", "likely", "high"}:
            raise ValueError(f"a range has low, likely and high; got {cut(printable(', '.join(map(str, given))), 60) or 'none of them'}")
        out = {}
        for name in ("low", "likely", "high"):
            try:
                out[name] = bounds.number(given[name])
            except ValueError as error:
                raise ValueError(f"{name} {error}") from None
        if not out["low"] <= out["likely"] <= out["high"]:
            raise ValueError(f"low, likely and high must not fall; got {out['low']:g}, {out['likely']:g} and {out['high']:g}")
        return out

    return BeforeValidator(read)


_SHARE = Bounds(0, 1, such="0.05 (which is 5 %)")
_GROWTH = Bounds(-1, 1, above=True, such="0.02 (which is 2 % a month; 0 is none)")
Amount = Annotated[float | None, _plain(Bounds())]
Positive = Annotated[float | None, _plain(Bounds(above=True))]
Whole = Annotated[float | None, _plain(Bounds(whole=True, such="33000"))]
Month = Annotated[int, _plain(Bounds(1, MAX_MONTHS, whole=True, such="36"))]
Cost = Annotated[Spread, _spread(Bounds(such="12.5, or {low: 5, likely: 12.5, high: 40}"))]
Share = Annotated[Spread, _spread(_SHARE)]
Growth = Annotated[Spread, _spread(_GROWTH)]


class Compute(Frozen):
    """Training compute, said in one of three ways.

    Attributes:
        petaflop_s_days: 8.64e19 floating-point operations each.
        flops: floating-point operations.
        parameters: of the model, without embeddings; of a mixture of experts those that are active.
        tokens: trained on, forwards and backwards. passes: how often; None where ``tokens`` counts all passes.
    """

    petaflop_s_days: Amount = None
    flops: Amount = None
    parameters: Positive = None
    tokens: Amount = None
    passes: Positive = None

    @model_validator(mode="after")
    def _one_way(self) -> Compute:
        ways = {"petaflop_s_days": self.petaflop_s_days, "flops": self.flops, "parameters": self.parameters}
        named = [name for name, value in ways.items() if value is not None]
        if len(named) > 1:
            raise ValueError(f"the compute is named twice, as {' and as '.join(named)}; keep one")
        forward = getattr(self, "forward_tokens", None)
        counts = [name for name, value in (("tokens", self.tokens), ("forward_tokens", forward)) if value is not None]
        if (self.parameters is None) == bool(counts):
            raise ValueError("parameters and tokens make compute together; one of them is missing")
        if self.passes is not None and self.tokens is None:
            raise ValueError("passes says how often tokens were trained on; tokens is missing")
        return self


class Pretraining(Compute):
    """What the base model took; what the stages took is compared with it."""

    @model_validator(mode="after")
    def _some(self) -> Pretraining:
        if not (self.petaflop_s_days or self.flops or (self.parameters and self.tokens)):
            raise ValueError("names no compute: petaflop_s_days, flops, or parameters and tokens, more than 0")
        return self


class Stage(Compute):
    """One alignment stage. Whatever is left out is unknown, and never 0.

    Attributes:
        parent: the stage it was made from; None for the baseline.
        trainer_state: a trainer_state.json of transformers or TRL, beside the file.
        forward_tokens: that passed a model of ``parameters`` forwards only: generated, or scored by a reference or reward model.
        hours: of the clock. devices: that ran so long. device_hours: both in one.
        watts_per_device: mean draw. power_usage_effectiveness: of the building over that of its devices.
        energy_kwh: instead of the three.
        labels: of people (comparisons, demonstrations). person_hours: of engineering and oversight.
        price_per_device_hour, price_per_kwh, price_per_label, price_per_person_hour, price_of_rest: in the file's currency.
        price: of the whole stage, instead of those.
    """

    parent: Annotated[str, Field(min_length=1)] | None = None
    trainer_state: Annotated[str, Field(min_length=1)] | None = None
    forward_tokens: Amount = None
    hours: Amount = None
    devices: Annotated[float | None, _plain(Bounds(1, whole=True, such="8"))] = None
    device_hours: Amount = None
    watts_per_device: Amount = None
    power_usage_effectiveness: Annotated[float | None, _plain(Bounds(1, 10, such="1.2"))] = None
    energy_kwh: Amount = None
    labels: Whole = None
    person_hours: Amount = None
    price_per_device_hour: Amount = None
    price_per_kwh: Amount = None
    price_per_label: Amount = None
    price_per_person_hour: Amount = None
    price_of_rest: Amount = None
    price: Amount = None

    @property
    def unit_prices(self) -> dict[str, float]:
        """The prices that are named, the whole stage's left out."""
        return {name: value for name, value in self if name.startswith("price_") and value is not None}

    @model_validator(mode="after")
    def _said_once(self) -> Stage:
        for total, parts in (
            ("device_hours", ("hours",)),
            ("energy_kwh", ("watts_per_device", "power_usage_effectiveness")),
            ("price", tuple(self.unit_prices)),
        ):
            both = [name for name in parts if getattr(self, name) is not None]
            if getattr(self, total) is not None and both:
                raise ValueError(f"{total} is the whole, and {', '.join(both)} would make it again; keep one")
        return self


class Without(Frozen):
    """One rate of harm, without alignment and with it."""

    without: Cost
    with_: Annotated[Cost, Field(alias="with")]


class Probability(Frozen):
    """A probability of harm within a month, without alignment and with it."""

    without: Share
    with_: Annotated[Share, Field(alias="with")]


class Harm(Frozen):
    """What unresolved harm costs a month, by one of three ways to say how much of it there is.

    Attributes:
        incidents_per_month: how many are expected.
        probability_per_month: that there is one.
        cost_per_incident: in the file's currency.
        cost_per_month: instead of both.
        growth_per_month: of the month's harm, with alignment and without.
    """

    incidents_per_month: Without | None = None
    probability_per_month: Probability | None = None
    cost_per_month: Without | None = None
    cost_per_incident: Cost | None = None
    growth_per_month: Growth

    @model_validator(mode="after")
    def _one_way(self) -> Harm:
        ways = ("incidents_per_month", "probability_per_month", "cost_per_month")
        named = [name for name in ways if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"names {'none' if not named else ' and '.join(named)} of {', '.join(ways)}; exactly one is needed")
        if (self.cost_per_incident is None) != (named == ["cost_per_month"]):
            needed = "cost_per_incident is missing" if self.cost_per_incident is None else "cost_per_month has cost_per_incident in it"
            raise ValueError(f"{needed}; {named[0]} was named")
        return self

    @property
    def way(self) -> tuple[str, Without | Probability]:
        """How the harm is said, and its two rates."""
        for name in ("incidents_per_month", "probability_per_month", "cost_per_month"):
            found = getattr(self, name)
            if found is not None:
                return name, found
        raise AssertionError("a validator saw to it")


class Now(Frozen):
    """What alignment costs if it is done now: once, and every month from then on."""

    once: Cost
    per_month: Cost


class Later(Frozen):
    """What it costs to align at the end of a later month; ``once`` is today's price, which grows until then."""

    month: Month
    once: Cost
    growth_per_month: Growth
    per_month: Cost


class Debt(Frozen):
    """What it takes to weigh aligning now against not aligning. Every number is the user's; one may be a range.

    Attributes:
        horizon_months: how far is looked.
        discount_rate_per_year: by which a cost in a year weighs less; 0 for none.
        now, harm, later: what costs what.
        distribution: between low and high, of every range.
    """

    horizon_months: Month
    discount_rate_per_year: Share
    now: Now
    harm: Harm
    later: Later | None = None
    distribution: Distribution | None = None

    @model_validator(mode="after")
    def _whole(self) -> Debt:
        if self.later is not None and self.later.month > self.horizon_months:
            raise ValueError(f"later, month must not lie beyond horizon_months ({self.horizon_months}); got {self.later.month}")
        ranges = [name for name, spread in self.numbers() if spread.is_range]
        if ranges and self.distribution is None:
            raise ValueError(f"distribution is missing: {ranges[0]} is a range; name triangular or pert")
        return self

    def numbers(self) -> Iterator[tuple[str, Spread]]:
        """Every number that may be a range, by its place in the file."""
        rate, (without, with_) = self.harm.way[0], (self.harm.way[1].without, self.harm.way[1].with_)
        yield "discount_rate_per_year", self.discount_rate_per_year
        yield "now.once", self.now.once
        yield "now.per_month", self.now.per_month
        yield f"harm.{rate}.without", without
        yield f"harm.{rate}.with", with_
        if self.harm.cost_per_incident is not None:
            yield "harm.cost_per_incident", self.harm.cost_per_incident
        yield "harm.growth_per_month", self.harm.growth_per_month
        if self.later is not None:
            yield "later.once", self.later.once
            yield "later.growth_per_month", self.later.growth_per_month
            yield "later.per_month", self.later.per_month


class CostsFile(Frozen):
    """The whole file. ``baseline`` is the arm that the stages start from; ``currency`` that of every price."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    baseline: Annotated[str, Field(min_length=1)] | None = None
    pretraining: Pretraining | None = None
    stages: dict[Annotated[str, Field(min_length=1)], Stage] = Field(default_factory=dict)
    debt: Debt | None = None

    @model_validator(mode="after")
    def _whole(self) -> CostsFile:
        if not self.stages and self.debt is None:
            raise ValueError("neither stages nor debt is named, so there is nothing to count")
        if self.currency is None:
            priced = [f"stages, {name}" for name, stage in self.stages.items() if stage.unit_prices or stage.price is not None]
            priced += ["debt"] if self.debt is not None else []
            if priced:
                raise ValueError(f"currency is missing: {priced[0]} has prices; name one, such as USD")
        return self


def read_costs(path: Path) -> CostsFile:
    """Read costs.yaml.

    Raises:
        InputError: if it cannot be read, or says something that no such file says: where, what was found, what is allowed.
    """
    where = printable(str(path))
    text = read_text(path, "costs.yaml is a small text")
    given = read_yaml(text, where)
    if not isinstance(given, Mapping):
        raise InputError(f"{where} names no costs: a mapping with stages or debt is expected")
    refuse_misread(text, where)
    try:
        return CostsFile.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error)}") from None


def refuse_misread(text: str, where: str) -> None:
    """Refuse numbers that YAML takes for others than a reader does.

    Raises:
        InputError: naming the first, its line, and what YAML makes of it.
    """
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.ScalarToken) and token.plain and _MISREAD.fullmatch(token.value):
            line = token.start_mark.line + 1
            read = yaml.safe_load(token.value)
            raise InputError(f"{where}: line {line}: YAML reads {token.value} as {read}; write the number that is meant, such as 1.5 or 8")


_PARTS: dict[str, type[Frozen]] = {
    "pretraining": Pretraining, "debt": Debt, "now": Now, "harm": Harm, "later": Later,
    "incidents_per_month": Without, "cost_per_month": Without, "probability_per_month": Probability,
}  # fmt: skip


def _first(error: ValidationError) -> str:
    """What is wrong, the first of it, in one sentence."""
    every = error.errors()
    # A name that is not known is often a slip in one that is missing.
    one = next((e for e in every if e["type"] == "extra_forbidden"), every[0])
    place = tuple(str(part) for part in one["loc"])
    where = printable(", ".join(place))
    found = cut(printable(repr(one["input"])), 60)
    said = printable(one["msg"].removeprefix("Value error, "))
    if place[-1:] == ("[key]",):
        why = "has no character" if one["input"] == "" else "is no text; put it in quotes"
        return f"{printable(', '.join(place[:-2]))}: the name {found} {why}"
    if one["type"] == "extra_forbidden":
        return f"{where} is not known here; allowed: {', '.join(_allowed(place))}"
    if one["type"] == "missing":
        return f"{where} is missing" + ("; no number of a debt has a default" if place[0] == "debt" else "")
    if one["type"] in ("model_type", "dict_type"):
        allowed = "names of stages, each with its costs" if place == ("stages",) else ", ".join(_allowed((*place, "")))
        return f"{where} must be a mapping ({allowed}); got {found}"
    if place == ("currency",):
        return f"currency must be three capital letters, such as USD; got {found}"
    if one["type"] == "literal_error":
        return f"{where} must be triangular or pert; got {found}"
    if one["type"] != "value_error":
        return f"{where}: {said}; got {found}"
    return f"{where} {said}" if said.startswith("must be") else f"{where}: {said}" if where else said


def _allowed(place: tuple[str, ...]) -> list[str]:
    """Names that may stand at a place."""
    within = CostsFile if len(place) == 1 else Stage if place[0] == "stages" else _PARTS[place[-2]]
    return [field.alias or name for name, field in within.model_fields.items()]
