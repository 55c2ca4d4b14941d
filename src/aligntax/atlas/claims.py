"""What the published claims about ensembles come to in these ratings: supported, contradicted, or not to be told; each in words.

The claims are those of the Atlas Divergence Test (K.C. Hoye, 5 April 2026). Two of them, about geography and about aligned models forming camps,
its author has since withdrawn; they are tested like the others.

**What a judgement takes** (docs/atlas.md has the table). *Supported* and *contradicted* are said of models and pairs like these, so they take intervals over
both, on the raw and on the adjusted scale; a permutation test over pairs alone speaks of these models only. Of groups nothing is said where
one has fewer than five models. *Not supported* says that the evidence is not there, which is no proof of the contrary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from typing import Literal

from aligntax.atlas.analysis import Analysis, Comparison, GroupRow
from aligntax.atlas.families import COLLAPSE
from aligntax.core.words import cut, items_text, level_text, p_text, printable
from aligntax.stats.contrasts import MIN_MODELS, LogRatio

Judgement = Literal["supported", "not supported", "contradicted", "cannot be told"]

GEOGRAPHY = ("country", "geography", "region", "geo")
ALIGNMENT = ("alignment", "aligned", "stage", "align")
SMALL = 0.15
"""The share that the source says geography stays below."""
TIMES = (3.0, 4.0)
"""How many times as divergent as controls the source says contested pairs are."""
SEEN = 0.05
"""Of so many councils and more it is said that they seem to agree."""
MIN_FLAGGED = 5
"""On fewer pairs nothing is said of others."""
_TOLD = 4
"""Steps that are told of; the table has all."""
_WIDTH = 1e-9
"""An interval that is narrower comes of ratings that do not vary, and says nothing of other ratings."""


@dataclass(frozen=True)
class Claim:
    """One claim of the source, and what these ratings say of it."""

    claim: str
    judgement: Judgement
    why: str


def claims(found: Analysis) -> list[Claim]:
    """All claims, in the source's order."""
    return [_grows(found), _stairs(found), _size(found), _geography(found), _camps(found), _flattens(found), _illusion(found)]


def _unit(found: Analysis) -> str:
    c = found.counts
    words = {"orders": "order", "variants": "wording", "repeats": "repeat"}
    facets = [items_text(c[name], word) for name, word in words.items() if c[name] > 1] or ["asked once"]
    missing = sum(n for *_, n in found.missing)
    return f"{items_text(c['pairs'], 'pair')}, {items_text(c['models'], 'model')}, {', '.join(facets)}, {items_text(missing, 'rating')} missing"


def _ratio(one: Comparison, *, adjusted: bool = False) -> str:
    ratio, test = (one.adjusted_ratio, one.adjusted_test) if adjusted else (one.ratio, one.test)
    limits = _limits(ratio)
    if ratio is None or limits is None:
        return f"{test.ratio:.2f} times (no interval over models)"
    return f"{exp(ratio.estimate):.2f} times [{limits[0]:.2f}, {limits[1]:.2f}]"


def _limits(ratio: LogRatio | None) -> tuple[float, float] | None:
    """Limits of how many times; None without an interval, or where it has no width."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.high - ratio.low < _WIDTH:
        return None
    return exp(ratio.low), exp(ratio.high)


def _at_floor(found: Analysis, names: Sequence[str]) -> bool:
    """Half of these pairs and more are rated alike, as far as the scale can tell."""
    spreads = [row.gmd for row in found.pairs if row.category in names and row.gmd is not None]
    return 2 * sum(spread <= found.settings.step / 2 for spread in spreads) >= max(len(spreads), 1)


def _shown(one: Comparison, finding: Literal["more divergent", "less divergent"]) -> bool:
    """The test finds it, and so do the intervals over models and pairs, before and after adjustment."""
    both = [_limits(ratio) for ratio in (one.ratio, one.adjusted_ratio)]
    return one.finding == finding and all(of is not None and (of[0] > 1 if finding == "more divergent" else of[1] < 1) for of in both)


def _listed(names: Sequence[str]) -> str:
    return cut(", ".join(map(printable, names)), 200)


def _too_few(found: Analysis) -> str:
    """Why findings hold for these models alone; empty where there are intervals over models."""
    if any(_limits(one.ratio) for one in (*found.comparisons, *found.steps)):
        return ""
    rated = sum(row.ratings > 0 for row in found.models)
    why = f"intervals over models take {MIN_MODELS} models or more" if rated < MIN_MODELS else "these ratings give no interval over models"
    return f"Of other models nothing can be told, as {why}. "


def _grows(found: Analysis) -> Claim:
    claim = "Models disagree more about contested pairs than about controls."
    rows = found.comparisons
    if not rows:
        missing = "control" if not found.roles.controls else "contested" if not found.roles.contested else ""
        return Claim(claim, "cannot be told", f"no category is {missing}" if missing else "no category could be compared with the controls")
    told = "; ".join(
        f"{printable(one.first)}: {_ratio(one)} as divergent, p {p_text(one.p_holm)}; with its place on the scale allowed for {_ratio(one, adjusted=True)}, "
        f"p {p_text(one.adjusted_p_holm)}"
        for one in rows
    )
    lost = [name for name in found.roles.contested if name not in {one.first for one in rows}]
    only = [one.first for one in rows if one.finding == "only before adjustment"]
    few = _too_few(found)
    why = few
    why += f"{_listed(lost)} could not be compared. " if lost else ""
    why += (
        f"Of {_listed(only)} it holds only before adjustment: ratings in the middle of the scale have more room to differ. " if only else ""
    )
    judgement: Judgement = "not supported"
    if any(_shown(one, "less divergent") for one in rows):
        judgement = "contradicted"
    elif few:
        judgement = "cannot be told"
    elif all(_shown(one, "more divergent") for one in rows) and not lost:
        judgement = "supported"
    return Claim(claim, judgement, f"{why}{told} ({_unit(found)})")


def _stairs(found: Analysis) -> Claim:
    claim = "Disagreement climbs step by step from one category to the next (the staircase)."
    if not found.settings.order:
        return Claim(claim, "cannot be told", "the expected order was not named; --order A,B,C names it before looking")
    if found.trend is None or not found.steps:
        return Claim(claim, "cannot be told", f"the categories {_listed(found.settings.order)} have too few rated pairs to compare")
    wanted = len(found.settings.order) - 1
    shown = sum(_shown(one, "more divergent") for one in found.steps)
    told = "; ".join(f"{printable(one.second)} to {printable(one.first)}: {_ratio(one)}, p {p_text(one.p_holm)}" for one in found.steps)
    overall = f"the trend as a whole has p {p_text(found.trend.p)}"
    if found.adjusted_trend is not None:
        overall += f" ({p_text(found.adjusted_trend.p)} with the place on the scale allowed for)"
    few = _too_few(found)
    why = few
    judgement: Judgement = "not supported"
    if any(_shown(one, "less divergent") for one in found.steps):
        judgement, why = "contradicted", f"{why}A step goes down. "
    elif few:
        judgement = "cannot be told"
    elif shown == wanted:
        judgement = "supported"
    else:
        why += f"{shown} of {items_text(wanted, 'step')} {'is' if shown == 1 else 'are'} shown by themselves; a trend may rest on one. "
    return Claim(claim, judgement, f"{why}{told}; {overall} ({_unit(found)})")


def _size(found: Analysis) -> Claim:
    claim = "Contested pairs divide models three to four times as much as controls do."
    rows = [
        (one, raw, adjusted)
        for one in found.comparisons
        if (raw := _limits(one.ratio)) is not None and (adjusted := _limits(one.adjusted_ratio)) is not None
    ]
    if not rows:
        return Claim(claim, "cannot be told", "no ratio of contested pairs to controls has an interval over models here")
    if _at_floor(found, found.roles.controls):
        return Claim(
            claim,
            "cannot be told",
            f"models rate half of the controls alike, as far as a scale with steps of {found.settings.step:g} can tell: how many times more the others divide them "
            f"depends on that step ({_unit(found)})",
        )
    low, high = TIMES
    outside = [one for one, *both in rows if all(of[1] < low for of in both) or all(of[0] > high for of in both)]
    within = [one for one, *both in rows if all(of[0] >= low and of[1] <= high for of in both)]
    whole = len(rows) == len(found.roles.contested)
    judgement: Judgement = "cannot be told"
    if len(outside) == len(rows) and whole:
        judgement = "contradicted"
    elif outside:
        judgement = "not supported"
    elif len(within) == len(rows) and whole:
        judgement = "supported"
    told = "; ".join(f"{printable(one.first)} {_ratio(one)}" for one, *_ in rows)
    after = "; ".join(f"{printable(one.first)} {_ratio(one, adjusted=True)}" for one, *_ in rows)
    why = "" if judgement != "cannot be told" else "The intervals are too wide to tell. "
    return Claim(claim, judgement, f"{why}{told}. With the place on the scale allowed for: {after} ({_unit(found)})")


def _group(found: Analysis, names: Sequence[str]) -> GroupRow | None:
    rows = [row for row in found.groups if row.column.lower() in names]
    return next((row for row in rows if row.on == "contested pairs"), rows[0] if rows else None)


def _untold(row: GroupRow) -> str:
    return f"{cut(printable(row.column), 60)}: {row.reason or (row.share.reason if row.share else '')}"


def _geography(found: Analysis) -> Claim:
    claim = "Geography explains less than 15 % of the disagreement."
    row = _group(found, GEOGRAPHY)
    if row is None:
        return Claim(claim, "cannot be told", "no column says where models come from (country, geography, region)")
    share = row.share
    if share is None or share.eta2 is None or share.omega2 is None:
        return Claim(claim, "cannot be told", _untold(row))
    bound = "unknown" if share.upper is None else f"{share.upper:.3f}"
    told = (
        f"on {row.on} the share is {share.omega2:.3f} (omega squared), at most {bound} at {level_text(share.level)} confidence; eta squared is {share.eta2:.3f}, where "
        f"labels without meaning give {share.null_mean or 0.0:.3f} on average and up to {share.null_95 or 0.0:.3f}; p {p_text(row.p_holm)} (Holm over columns)"
        f"{'; ' + row.reason if row.reason else ''}"
    )
    small = share.upper is not None and share.upper < SMALL
    if row.sound and row.independent and small:
        return Claim(claim, "supported", f"{told} ({_unit(found)})")
    if row.sound and row.p_holm is not None and row.p_holm <= 1 - found.settings.level and share.omega2 > SMALL:
        return Claim(claim, "not supported", f"{told} ({_unit(found)})")
    need = (
        "the bound takes models for independent, which kin are not"
        if small and not row.independent
        else "that a share is small is said by an upper bound below it, which takes more models"
    )
    return Claim(claim, "cannot be told", f"{told}. {need[:1].upper() + need[1:]} ({_unit(found)})")


def _camps(found: Analysis) -> Claim:
    claim = "Highly aligned models stand together, wherever they come from."
    row = _group(found, ALIGNMENT)
    if row is None:
        return Claim(
            claim, "cannot be told", "no column says how models were aligned (alignment, stage), filled in before looking at ratings"
        )
    share = row.share
    if share is None or share.eta2 is None or share.omega2 is None:
        return Claim(claim, "cannot be told", _untold(row))
    camps = ""
    if row.clusters is not None:
        camps = f"; the clusters found agree with it by an adjusted Rand index of {row.clusters.ari:.2f} (1 is the same, 0 chance), p {p_text(row.clusters.p)}"
    told = (
        f"{cut(printable(row.column), 60)} explains a share of {share.omega2:.3f} (omega squared) on {row.on}, p {p_text(row.p_holm)} (Holm over columns){camps}"
        f"{'; ' + row.reason if row.reason else ''}"
    )
    if not row.sound:
        return Claim(claim, "cannot be told", f"{told} ({_unit(found)})")
    shown = row.p_holm is not None and row.p_holm <= 1 - found.settings.level
    if shown and share.omega2 < SMALL:
        return Claim(
            claim,
            "not supported",
            f"{told}. That is more than chance, and less than the {100 * SMALL:.0f} % that the source calls tiny for geography ({_unit(found)})",
        )
    if shown:
        caution = "models aligned alike rate alike, more than by chance; that alignment is the cause takes models before and after it"
        return Claim(claim, "supported", f"{told}. {caution[:1].upper() + caution[1:]} ({_unit(found)})")
    return Claim(claim, "not supported", f"{told} ({_unit(found)})")


def _flattens(found: Analysis) -> Claim:
    claim = "The flattening happens after pretraining, in the alignment phase: stages rate what is contested more alike than the models that they come from."
    contested = [one for one in found.stages if one.category in found.roles.contested]
    steps = [one for one in contested if one.measure == COLLAPSE] or contested
    if not steps:
        return Claim(
            claim,
            "cannot be told",
            "no step of training was taken by two families and more (columns parent and stage); what it did to one family is in that family's own ledger",
        )
    more, less = ([one for one in steps if one.finding == finding] for finding in ("more alike", "further apart"))
    judgement: Judgement = "supported" if more and not less else "contradicted" if less and not more else "not supported"
    measure = (
        "less the change of the same topics' paraphrases"
        if steps[0].measure == COLLAPSE
        else "no paraphrases of the same topics were rated"
    )
    told = "; ".join(
        f"{cut(printable(one.before), 40)} to {cut(printable(one.after), 40)}, {cut(printable(one.category), 40)}: {one.change.mean:+.3f} "
        f"[{one.change.low:+.3f}, {one.change.high:+.3f}], {one.change.rows} families, p {p_text(one.p_holm)} (Holm)"
        for one in sorted(steps, key=lambda one: one.p_holm)[:_TOLD]
    )
    return Claim(claim, judgement, f"change of the rating from parent to child, {measure}: {told} ({_unit(found)})")


def _illusion(found: Analysis) -> Claim:
    claim = "A small council seems to agree where the whole ensemble does not."
    if not found.roles.contested:
        return Claim(claim, "cannot be told", "no category is contested")
    if not found.councils:
        why = (
            "with two models no council is smaller than the ensemble"
            if found.counts["models"] <= 2
            else f"no contested pair is flagged as divergent with a range above {found.settings.tau:g}, so there is nothing for a council to overlook"
        )
        return Claim(claim, "cannot be told", why)
    told = ", ".join(f"{100 * row.rate:.0f} % of councils of {row.k}" for row in found.councils[:4])
    three = next((row for row in found.councils if row.k == 3), found.councils[0])
    inside = ""
    real = found.clusters is not None and found.clusters.silhouette_p <= 1 - found.settings.level
    if real and three.within is not None and three.across is not None:
        inside = (
            f"; of councils of {three.k} from one cluster {100 * three.within:.0f} %, of mixed ones {100 * three.across:.0f} % (clusters found in the same "
            "ratings make that difference larger than it is)"
        )
    size = f"have a range of at most {found.settings.tau:g} on {items_text(three.pairs, 'pair')} that divide{'s' if three.pairs == 1 else ''} the whole ensemble by more"
    judgement: Judgement = "cannot be told" if three.pairs < MIN_FLAGGED else "supported" if three.rate >= SEEN else "not supported"
    few = f". So few pairs say nothing of others: it takes {MIN_FLAGGED}" if three.pairs < MIN_FLAGGED else ""
    rule = f". Supported is said from {100 * SEEN:.0f} % of councils of {three.k} on" if not few else ""
    return Claim(claim, judgement, f"{told} {size}{inside}{few}{rule} ({_unit(found)})")
