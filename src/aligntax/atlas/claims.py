"""What the published claims about ensembles come to in these ratings: supported, contradicted, or not to be told; each in words.

The claims are those of the Atlas Divergence Test (K.C. Hoye, 5 April 2026). Two of them, about geography and about aligned models forming camps,
its author has since withdrawn; they are tested like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal

from aligntax.atlas.analysis import Analysis, Comparison, GroupRow
from aligntax.core.words import cut, p_text, printable

Judgement = Literal["supported", "not supported", "contradicted", "cannot be told"]

GEOGRAPHY = ("country", "geography", "region", "geo")
ALIGNMENT = ("alignment", "aligned", "stage", "align")
SMALL = 0.15
"""The share that the source says geography stays below."""


@dataclass(frozen=True)
class Claim:
    """One claim of the source, and what these ratings say of it."""

    claim: str
    judgement: Judgement
    why: str


def claims(found: Analysis) -> list[Claim]:
    """All claims, in the source's order."""
    return [_grows(found), _stairs(found), _size(found), _geography(found), _camps(found), _illusion(found)]


def _unit(found: Analysis) -> str:
    c = found.counts
    facets = [f"{c[name]} {name}" for name in ("orders", "variants", "repeats") if c[name] > 1] or ["asked once"]
    missing = sum(n for *_, n in found.missing)
    return f"{c['pairs']} pairs, {c['models']} models, {', '.join(facets)}, {missing:,} ratings missing"


def _ratio(one: Comparison, *, adjusted: bool = False) -> str:
    ratio, test = (one.adjusted_ratio, one.adjusted_test) if adjusted else (one.ratio, one.test)
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"{test.ratio:.2f} times"
    return f"{exp(ratio.estimate):.2f} times [{exp(ratio.low):.2f}, {exp(ratio.high):.2f}]"


def _grows(found: Analysis) -> Claim:
    claim = "Models disagree more about contested pairs than about controls."
    rows = found.comparisons
    if not rows:
        return Claim(
            claim,
            "cannot be told",
            "no category is known to be a control" if not found.controls else "no category could be compared with the controls",
        )
    told = "; ".join(
        f"{printable(one.first)}: {_ratio(one)} as divergent, p {p_text(one.p_holm)}; where on the scale it lies taken off, {_ratio(one, adjusted=True)}, "
        f"p {p_text(one.adjusted_p_holm)}"
        for one in rows
    )
    more = [one for one in rows if one.finding == "more divergent"]
    if len(more) == len(rows):
        return Claim(claim, "supported", f"{told} ({_unit(found)})")
    if any(one.finding == "less divergent" for one in rows):
        return Claim(claim, "contradicted", f"{told} ({_unit(found)})")
    seen = [one for one in rows if one.finding == "only before adjustment"]
    why = (
        f"of {_listed(seen)} it holds only before adjustment: ratings in the middle of the scale have more room to differ. " if seen else ""
    )
    return Claim(claim, "supported" if more and not seen and len(more) == len(rows) else "not supported", f"{why}{told} ({_unit(found)})")


def _listed(rows: Sequence[Comparison]) -> str:
    return cut(", ".join(printable(one.first) for one in rows), 200)


def _stairs(found: Analysis) -> Claim:
    claim = "Disagreement climbs step by step from one category to the next (the staircase)."
    if found.trend is None or not found.steps:
        return Claim(claim, "cannot be told", "the expected order was not named; --order A,B,C names it before looking")
    steps = [one for one in found.steps if one.finding == "more divergent"]
    told = "; ".join(f"{printable(one.second)} to {printable(one.first)}: {_ratio(one)}, p {p_text(one.p_holm)}" for one in found.steps)
    overall = f"the trend as a whole has p {p_text(found.trend.p)}"
    if found.adjusted_trend is not None:
        overall += f" ({p_text(found.adjusted_trend.p)} adjusted)"
    judgement: Judgement = "supported" if len(steps) == len(found.steps) else "not supported"
    few = "" if judgement == "supported" else f"{len(steps)} of {len(found.steps)} steps are shown by themselves: a trend may rest on one. "
    return Claim(claim, judgement, f"{few}{told}; {overall} ({_unit(found)})")


def _size(found: Analysis) -> Claim:
    claim = "Contested pairs divide models three to four times as much as controls do."
    rows = [one for one in found.comparisons if one.ratio is not None and one.ratio.low is not None and one.ratio.high is not None]
    if not rows:
        return Claim(claim, "cannot be told", "no ratio to controls has an interval here")
    told = "; ".join(f"{printable(one.first)} {_ratio(one)}" for one in rows)
    below = [one for one in rows if one.ratio is not None and exp(one.ratio.high or 0.0) < 3]
    inside = [one for one in rows if one.ratio is not None and exp(one.ratio.low or 0.0) <= 4 and exp(one.ratio.high or 0.0) >= 3]
    adjusted = "; ".join(f"{printable(one.first)} {_ratio(one, adjusted=True)}" for one in rows)
    judgement: Judgement = "contradicted" if len(below) == len(rows) else "cannot be told" if inside else "not supported"
    return Claim(
        claim,
        judgement,
        f"{told}. With the scale's middle taken off: {adjusted}. Intervals that hold 3 to 4 do not show it ({_unit(found)})",
    )


def _group(found: Analysis, names: Sequence[str]) -> GroupRow | None:
    rows = [row for row in found.groups if row.column.lower() in names]
    return next((row for row in rows if row.on == "contested pairs"), rows[0] if rows else None)


def _geography(found: Analysis) -> Claim:
    claim = "Geography explains less than 15 % of the disagreement."
    row = _group(found, GEOGRAPHY)
    if row is None:
        return Claim(claim, "cannot be told", "no column says where models come from (country, geography, region)")
    share = row.share
    if share is None or share.eta2 is None or share.omega2 is None:
        return Claim(claim, "cannot be told", f"{row.column}: {row.reason or (share.reason if share else '')}")
    told = (
        f"omega squared {share.omega2:.3f}, its upper bound {'unknown' if share.upper is None else f'{share.upper:.3f}'} at {100 * share.level:.0f} %, on {row.on}; "
        f"eta squared is {share.eta2:.3f}, where labels without meaning give {share.null_mean:.3f} on average and up to {share.null_95:.3f}; p {p_text(share.p or 1.0)}"
    )
    if share.upper is not None and share.upper < SMALL:
        return Claim(claim, "supported", f"{told} ({_unit(found)})")
    if (row.p_holm or 1.0) <= 1 - found.settings.level and share.omega2 > SMALL:
        return Claim(claim, "not supported", f"{told} ({_unit(found)})")
    return Claim(
        claim, "cannot be told", f"{told}. That a share is small takes an upper bound below it, and so more models ({_unit(found)})"
    )


def _camps(found: Analysis) -> Claim:
    claim = "Highly aligned models stand together, wherever they come from."
    row = _group(found, ALIGNMENT)
    if row is None:
        return Claim(
            claim, "cannot be told", "no column says how models were aligned (alignment, stage), filled in before looking at ratings"
        )
    share = row.share
    if share is None or share.eta2 is None or share.omega2 is None:
        return Claim(claim, "cannot be told", f"{row.column}: {row.reason or (share.reason if share else '')}")
    camps = ""
    if row.clusters is not None:
        camps = f"; the clusters found agree with it by an adjusted Rand index of {row.clusters.ari:.2f}, p {p_text(row.clusters.p)}"
    told = f"{row.column} on {row.on}: omega squared {share.omega2:.3f}, p {p_text(row.p_holm or 1.0)} (Holm over columns){camps}"
    shown = (row.p_holm or 1.0) <= 1 - found.settings.level
    return Claim(claim, "supported" if shown else "not supported", f"{told}{'; ' + row.reason if row.reason else ''} ({_unit(found)})")


def _illusion(found: Analysis) -> Claim:
    claim = "A small council seems to agree where the whole ensemble does not."
    if not found.councils:
        return Claim(claim, "cannot be told", "no contested pair is flagged as divergent, so there is nothing for a council to overlook")
    told = ", ".join(f"{100 * row.rate:.0f} % of councils of {row.k}" for row in found.councils[:4])
    three = next((row for row in found.councils if row.k == 3), found.councils[0])
    inside = ""
    if three.within is not None and three.across is not None:
        inside = (
            f"; of councils of {three.k} from one cluster {100 * three.within:.0f} %, of mixed ones {100 * three.across:.0f} % (clusters found in the same "
            "ratings make that difference larger than it is)"
        )
    size = f"range of at most {found.settings.tau:g} on a pair whose whole ensemble is flagged"
    return Claim(claim, "supported" if three.rate >= 0.05 else "not supported", f"{told} have a {size}{inside} ({_unit(found)})")
