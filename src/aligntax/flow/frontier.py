"""Where each model stands on the frontier of everything measured: dominated, on the frontier, or undetermined.

Arms are points whose coordinates are their changes from the baseline, the baseline at 0, in the direction of benefit: one coordinate per kind
and metric (its mean over tasks, or each task where there is no mean), of those that every arm has. What is said is said of all at once: the
differences between any two arms in any coordinate have intervals at 1 - alpha/m, m the number of pairs times coordinates (Bonferroni), each by
the test of the ledger's own entry where it has that pair; otherwise by the changes from the baseline, whose errors add up at worst: nobody kept
how they vary together (arms that lose different items of the same task differ by more than independent errors would tell). Nothing is certain
of what rests on too few sources for a verdict.

- dominated: another arm is better for certain in a coordinate, and in none worse by the margin or more, nor worse for certain;
- on the frontier: against every other arm it is better for certain somewhere;
- undetermined: otherwise. What the estimates alone would say stands beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from aligntax.core.errors import InputError
from aligntax.core.ledger import MEAN_OVER_TASKS, Entry, Ledger
from aligntax.core.study import Study
from aligntax.core.words import printable
from aligntax.flow.exchange import few_sources, quantities, sampling_error
from aligntax.flow.inversion import benefit, inversion_of
from aligntax.stats.paired import critical_value

Where = Literal["on the frontier", "dominated", "undetermined"]
Coordinate = tuple[str, str, str]
"""Kind, metric, task."""


@dataclass(frozen=True)
class Standing:
    """One arm.

    Attributes:
        arm: its name.
        where: what is certain.
        by: arms that dominate it for certain.
        rivals: arms against which it is nowhere better for certain: any of them may dominate it.
        apparently_by: arms that dominate it if estimates are taken for the truth.
    """

    arm: str
    where: Where
    by: tuple[str, ...]
    rivals: tuple[str, ...]
    apparently_by: tuple[str, ...]


@dataclass(frozen=True)
class Frontier:
    """All arms.

    Attributes:
        coordinates: what they are compared in.
        left_out: what some arm does not have, with the arms that have none of it.
        standings: the arms in the order of the ledger, the baseline first.
        level: of everything said together.
        comparisons: differences that have an interval at once.
    """

    coordinates: tuple[Coordinate, ...]
    left_out: tuple[tuple[Coordinate, tuple[str, ...]], ...]
    standings: tuple[Standing, ...]
    level: float
    comparisons: int


@dataclass(frozen=True)
class Place:
    """A change in the direction of benefit with its interval; ``low``, ``high`` None where that is not known."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class PlanePoint:
    """One arm in the plane of two coordinates; the baseline stands at 0, 0 without intervals."""

    arm: str
    parent: str | None
    across: Place
    up: Place


@dataclass(frozen=True)
class Plane:
    """Arms in two coordinates, each with its unit."""

    across: Coordinate
    up: Coordinate
    units: tuple[str, str]
    points: tuple[PlanePoint, ...]


@dataclass(frozen=True)
class _Step:
    """What is known of the difference of two arms in one coordinate, in the direction of benefit; limits None where nothing is."""

    value: float
    low: float | None
    high: float | None
    margin: float

    def turned(self) -> _Step:
        return _Step(-self.value, None if self.high is None else -self.high, None if self.low is None else -self.low, self.margin)


def frontier(ledger: Ledger, level: float = 0.95) -> Frontier:
    """Where every arm of the ledger stands.

    Raises:
        InputError: if no two arms have a measurement in common.
    """
    by_arm = _by_arm(ledger)
    arms = [ledger.baseline, *by_arm]
    every = list(dict.fromkeys(key for of in by_arm.values() for key in of))
    common = tuple(key for key in every if all(key in of for of in by_arm.values()))
    if not common:
        names = printable(", ".join(by_arm)) or "none"
        raise InputError(
            f"there is no frontier: no measurement with a better side is shared by all arms ({names}); compare arms that were asked the same tasks"
        )
    left_out = tuple((key, tuple(arm for arm, of in by_arm.items() if key not in of)) for key in every if key not in common)
    direct = {pair: {_key(e): e for e in quantities(ledger, pair)} for pair in dict.fromkeys(e.pair for e in ledger)}
    pairs = list(combinations(arms, 2))
    comparisons = len(pairs) * len(common)
    each = 1 - (1 - level) / comparisons
    steps: dict[tuple[str, str], list[_Step]] = {}
    for a, b in pairs:
        steps[a, b] = [_step(direct, by_arm, (a, b), key, each) for key in common]
        steps[b, a] = [step.turned() for step in steps[a, b]]
    standings = tuple(_standing(arm, [other for other in arms if other != arm], steps) for arm in arms)
    return Frontier(common, left_out, standings, level, comparisons)


def plane(study: Study, ledger: Ledger, across: Coordinate | None = None, up: Coordinate | None = None) -> Plane | None:
    """The arms in two coordinates; by default safety across and performance up, of each a task's own score before what is made of it, a mean over tasks
    before a task, and what rests on the most items.

    None where no arm has both. Arms that lack one of them are left out.
    """
    by_arm = _by_arm(ledger)
    entries = {key: entry for of in by_arm.values() for key, entry in of.items()}
    across, up = across or _widest(entries, "safety"), up or _widest(entries, "performance")
    having = {arm: of for arm, of in by_arm.items() if across in of and up in of}
    if across is None or up is None or not having:
        return None
    parents = {arm.name: arm.parent for arm in study.arms}
    still = Place(0.0, None, None)
    points = [PlanePoint(ledger.baseline, None, still, still)]
    points += [PlanePoint(arm, parents.get(arm), place_of(of[across]), place_of(of[up])) for arm, of in having.items()]
    one = next(iter(having.values()))
    return Plane(across, up, (one[across].unit, one[up].unit), tuple(points))


def place_of(entry: Entry) -> Place:
    """An entry's change and interval in the direction of benefit."""
    sign, change = benefit(entry), entry.change or 0.0
    if entry.ci_low is None or entry.ci_high is None:
        return Place(sign * change, None, None)
    low, high = sorted((sign * entry.ci_low, sign * entry.ci_high))
    return Place(sign * change, low, high)


def _by_arm(ledger: Ledger) -> dict[str, dict[Coordinate, Entry]]:
    """What every arm has against the baseline."""
    found = {
        pair[1]: {_key(e): e for e in quantities(ledger, pair)}
        for pair in dict.fromkeys(e.pair for e in ledger)
        if pair[0] == ledger.baseline
    }
    return {arm: of for arm, of in found.items() if of}


def _key(entry: Entry) -> Coordinate:
    return entry.kind, entry.metric, entry.task


def _widest(entries: Mapping[Coordinate, Entry], kind: str) -> Coordinate | None:
    of = {key: e for key, e in entries.items() if key[0] == kind}
    return min(of, key=lambda key: ("derived" in of[key].details, key[2] != MEAN_OVER_TASKS, -of[key].n), default=None)


def _step(
    direct: Mapping[tuple[str, str], Mapping[Coordinate, Entry]],
    by_arm: Mapping[str, Mapping[Coordinate, Entry]],
    pair: tuple[str, str],
    key: Coordinate,
    level: float,
) -> _Step:
    """The second arm less the first, in one coordinate."""
    a, b = pair
    for ends, turned in (((a, b), False), ((b, a), True)):
        entry = direct.get(ends, {}).get(key)
        if entry is not None:
            step = _own(entry, level)
            return step.turned() if turned else step
    first, second = by_arm[a][key], by_arm[b][key]
    value = benefit(second) * (second.change or 0.0) - benefit(first) * (first.change or 0.0)
    margin = first.margin or second.margin or 0.0
    one, other = sampling_error(first), sampling_error(second)
    if one is None or other is None or few_sources(first) or few_sources(second):
        return _Step(value, None, None, margin)
    df = min((d for _, d in (one, other) if d is not None), default=None)
    half = critical_value(level, df) * (one[0] + other[0])
    return _Step(value, value - half, value + half, margin)


def _own(entry: Entry, level: float) -> _Step:
    """The step of a pair that the ledger has, by its own test at another level."""
    value, margin, test = benefit(entry) * (entry.change or 0.0), entry.margin or 0.0, inversion_of(entry)
    if test is None or few_sources(entry):
        return _Step(value, None, None, margin)
    low, high = test.interval(level)
    return _Step(value, low, high, margin)


def _standing(arm: str, others: list[str], steps: Mapping[tuple[str, str], list[_Step]]) -> Standing:
    """``steps[other, arm]`` is the arm less the other."""
    by = tuple(other for other in others if _dominates(steps[arm, other]))
    apparently = tuple(
        other
        for other in others
        if all(step.value >= 0 for step in steps[arm, other]) and any(step.value > 0 for step in steps[arm, other])
    )
    rivals = tuple(other for other in others if not any(step.low is not None and step.low > 0 for step in steps[other, arm]))
    where: Where = "dominated" if by else "undetermined" if rivals else "on the frontier"
    return Standing(arm, where, by, rivals, apparently)


def _dominates(of: list[_Step]) -> bool:
    """Whether steps lead to an arm that is better for certain somewhere, and nowhere worse by the margin, or worse for certain."""
    if any(step.low is None or step.high is None for step in of):
        return False
    no_worse = all((step.low or 0.0) > -step.margin or (step.low or 0.0) >= 0 for step in of) and all(
        (step.high or 0.0) >= 0 for step in of
    )
    return no_worse and any((step.low or 0.0) > 0 for step in of)


# -- in words -------------------------------------------------------------------------------------------------------------------------------


def standing_sentence(one: Standing) -> str:
    name = printable(one.arm)
    if one.where == "dominated":
        return f"{name}: dominated by {printable(', '.join(one.by))}."
    if one.where == "on the frontier":
        return f"{name}: on the frontier; against every other arm it is better somewhere, for certain."
    seems = f"dominated by {printable(', '.join(one.apparently_by))}" if one.apparently_by else "on the frontier"
    return (
        f"{name}: undetermined, {seems} by the estimates alone; it is nowhere better for certain than {printable(', '.join(one.rivals))}."
    )


def coordinate_text(key: Coordinate) -> str:
    return printable(f"{key[0].replace('_', ' ')}: {key[2]} ({key[1]})")


def frontier_rows(found: Frontier) -> dict[str, object]:
    """The frontier as plain values for JSON."""
    return {
        "level": found.level,
        "comparisons": found.comparisons,
        "coordinates": [dict(zip(("kind", "metric", "task"), key, strict=True)) for key in found.coordinates],
        "left_out": [
            dict(zip(("kind", "metric", "task"), key, strict=True)) | {"missing_in": list(arms)} for key, arms in found.left_out
        ],
        "arms": [
            {
                "arm": s.arm, "where": s.where, "dominated_by": list(s.by), "may_be_dominated_by": list(s.rivals),
                "apparently_dominated_by": list(s.apparently_by),
            }
            for s in found.standings
        ],
    }  # fmt: skip
