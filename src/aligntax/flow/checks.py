"""Doubts in words. Every sentence that an entry's ``checks`` can hold is written here (docs/methods.md says when)."""

from __future__ import annotations

from collections.abc import Mapping

from aligntax.core.samples import MISSING
from aligntax.core.words import change_number, change_unit, count_text, items_text, number, p_text, percent, printable, size_text
from aligntax.stats.paired import MIN_FLIP_CLUSTERS, PairedChange, p_value
from aligntax.stats.unpaired import TwoProportions
from aligntax.stats.verdict import MIN_DF

FEW_FLIPS = 10
FEW_CLUSTERS_DF = 30.0
HEAVY_TAILS = 10.0
FEW_REPLIES = 10
"""Pairs below which identical replies are no wonder."""


def method_checks(estimate: PairedChange, *, unit: str, cluster: str | None, trials: str, loss: float | None, level: float) -> list[str]:
    """What the size, the flips and the clusters of one estimate leave open.

    Args:
        estimate: in the benefit direction.
        unit: the metric's unit.
        cluster: name of the cluster column, None without clusters.
        trials: trials per item in words ("4"), empty for single trials.
        loss: the largest loss not excluded; None without an interval.
        level: confidence level.
    """
    checks = []
    if trials:
        checks.append(f"{trials} trials per item averaged; the item is the unit")
    if estimate.reason:
        checks.append(estimate.reason)
    if estimate.test is None:
        return checks
    facts = estimate.clusters
    if facts is not None:
        checks.append(
            f"clustered by {printable(cluster or 'cluster')}: {facts.count} clusters, df {facts.df:.1f}, design effect {estimate.design_effect or estimate.raw_design_effect or 1:.1f}"
        )
        checks += _cluster_checks(estimate)
    if estimate.items_changed == 0:
        if facts is not None:
            checks.append("no item changed, so clustering cannot be estimated; interval assumes independent items")
        if loss is not None:
            checks.append(f"no item changed; losses up to {size_text(loss, unit, loss)} remain possible")
    elif facts is None and estimate.sources is None and estimate.items_changed < FEW_FLIPS and not estimate.method.startswith("t"):
        if estimate.method == "score" and estimate.df is None:
            checks.append(f"few flips ({estimate.items_changed}): no interval is exact here, this one is conservative")
        else:
            checks.append(f"change rests on {estimate.items_changed} items")
    contributors = estimate.effective_contributors
    if estimate.method == "t" and contributors is not None and contributors < HEAVY_TAILS:
        checks.append(
            f"heavy tails (effective contributors {contributors:.1f} of {estimate.n}): interval may cover far less than {100 * level:g} %"
        )
    return checks


def _cluster_checks(estimate: PairedChange) -> list[str]:
    facts, raw = estimate.clusters, estimate.raw_design_effect
    assert facts is not None
    checks = []
    if facts.df < MIN_DF:
        checks.append(
            f"df {facts.df:.1f} < 4: too few or too unequal sources for a trustworthy interval; largest source holds {percent(facts.largest_share, 0)} of items"
        )
    elif facts.df < FEW_CLUSTERS_DF:
        checks.append(
            f"few effective clusters (df {facts.df:.1f} < 30): valid if sources behave alike, can fall to 78-91 % coverage if one source is odd"
        )
    if 0 < facts.flip_clusters < min(MIN_FLIP_CLUSTERS, facts.count):
        checks.append(
            f"all flips come from {facts.flip_clusters} of {facts.count} sources: clustered error is not estimable, treat as a case study"
        )
    elif raw is not None and 0.9 < raw < 1.1:
        checks.append("clustering changed the standard error by < 5 %")
    elif raw is not None and raw < 0.9:
        checks.append(f"clustered error is smaller than the item-level one (deff {raw:.1f}); by chance, or clusters are strata")
    return checks


def cluster_means_check(mean_of_means: float, change: float, half_width: float, unit: str) -> list[str]:
    """Informative cluster sizes: the estimand stays the item mean, and the difference is said."""
    if abs(mean_of_means - change) <= half_width:
        return []
    return [
        f"large and small sources move differently: the mean over sources is {change_number(mean_of_means, unit)} {change_unit(unit)}, "
        f"over items {change_number(change, unit)}"
    ]


def more_sources_check(needed: float | None) -> list[str]:
    if needed is None:
        return []
    return [f"more items from the same sources cannot decide this; about {count_text(needed)} sources would"]


def family_check(q: float, members: int) -> str:
    return f"interval excludes 0 but {members} entries were examined (Holm p {p_text(q)})"


SMALL_LOSS = "a loss is certain but smaller than the margin"
LARGE_LOSS = "the loss exceeds the margin for certain"
NOT_SEPARABLE = "format or knowledge: not separable"
UNPARSED_HARMLESS = "verdict does not depend on the unparsed"


def unparsed_differ(baseline: float, candidate: float, low: float, high: float, unit: str) -> str:
    return (
        f"unparsed differ ({percent(baseline)} against {percent(candidate)}); change lies between "
        f"{change_number(low, unit)} and {change_number(high, unit)} whatever they hide"
    )


def both_parsed_check(change: float, parsed: float, low: float | None, high: float | None, unit: str) -> list[str]:
    """Items that both answered tell another story than all items."""
    amount = f"on items both answered the change is {change_number(parsed, unit)} {change_unit(unit)}"
    if parsed * change < 0:
        return [f"{amount}, of the other sign (a selected set: it drives no verdict)"]
    if low is not None and high is not None and not low <= parsed <= high:
        return [f"{amount}, outside the interval (a selected set: it drives no verdict)"]
    return []


def left_out(missing: dict[str, int], planned: int) -> list[str]:
    """Pairs without a score in some arm."""
    total = sum(missing.values())
    if not total:
        return []
    parts = ", ".join(f"{n:,} in {printable(arm)}" for arm, n in missing.items() if n)
    return [f"no score for {parts}, of {planned:,} planned items; such pairs are left out"]


def negative_between(value: float) -> str:
    return f"variance between items is estimated below 0 ({number(value, 4)}) and taken as 0: sampling noise explains all of it"


def overruled(counts: dict[str, int]) -> list[str]:
    parts = ", ".join(f"{n:,} in {printable(arm)}" for arm, n in counts.items() if n)
    return [f"unparsed answers that carried a score ({parts}) count as incorrect"] if parts else []


def identical_replies(n: int, same: int) -> list[str]:
    return [f"replies are identical in all {n:,} pairs: is this one model twice?"] if n >= FEW_REPLIES and n == same else []


def split_of_fewer(common: int, n: int) -> str:
    return f"the split into weights and template rests on the {common:,} items that all four arms have, the change on {n:,}: they do not add up to it"


def prompts_differ(n: int, same: int) -> list[str]:
    return [f"prompts differ in {n - same:,} of {n:,} pairs: the change mixes model and elicitation"] if same < n else []


def asked_differently(what: str) -> str:
    return f"asked differently ({what}): the change mixes model and harness"


def unequal_attrition(outcomes: Mapping[str, Mapping[str, int]], level: float) -> list[str]:
    """More items missing in one arm than chance explains (score test of two shares): what is left is a selected set."""
    shares = []
    for counts in outcomes.values():
        total = sum(counts.values())
        shares.append((sum(counts.get(str(outcome), 0) for outcome in MISSING), total))
    if len(shares) != 2 or not all(total for _, total in shares) or shares[0][0] / shares[0][1] == shares[1][0] / shares[1][1]:
        return []
    (m1, n1), (m2, n2) = shares
    if p_value(TwoProportions(m1 / n1, n1, m2 / n2, n2)) >= 1 - level:
        return []
    return [f"unequal attrition: {percent(m1 / n1)} missing against {percent(m2 / n2)}; the pairs that are left may be the easy ones"]


def repeated_contents(items: int, distinct: int) -> str:
    return f"{items - distinct:,} of {items:,} items repeat the content of another under an id of their own"


def changed_contents(n: int) -> str:
    return f"{n:,} item ids stand for different contents in different arms; they are not paired"


def direction_assumed(metric: str) -> str:
    return f"no log says whether more {printable(metric)} is better; taken as better (--lower-is-better says otherwise)"


def constant_cluster(cluster: str) -> str:
    return f"{printable(cluster)} is constant within each subgroup: it clusters the total only"


def own_sources(n: int, cluster: str) -> str:
    return f"{n:,} items have no {printable(cluster)} label: each is taken as a source of its own"


def few_sources_in_average(df: float) -> str:
    return f"df {df:.1f} < 4: too few or too unequal sources for a trustworthy interval"


def no_cluster_column(cluster: str) -> str:
    return f"no {printable(cluster)} labels in this task: items are treated as independent"


def only_in(arm: str) -> str:
    return f"only {printable(arm)} has this task: nothing to compare"


def unequal_tasks(baseline: str, candidate: str, only_baseline: list[str], only_candidate: list[str]) -> str:
    parts = [
        f"only in {printable(arm)}: {printable(', '.join(tasks[:5]))}{', ...' if len(tasks) > 5 else ''}"
        for arm, tasks in ((baseline, only_baseline), (candidate, only_candidate))
        if tasks
    ]
    return f"no average over unequal task sets ({'; '.join(parts)})"


NO_COMMON_ITEM = "no item has a score in every arm: nothing to compare"
NO_SHARE = "no margin: a share of a baseline of 0 is nothing; name the margin in the metric's unit with --margin"
NO_ESTIMATE = "no average: a task has no item with a score in every arm"
MIXED_UNITS = "no average over tasks with different units or directions"


NEGATIVE_TIMES = "some values are below 0, which no time and no count is: quantiles are left out"


def few_for_quantiles(needed: Mapping[str, int], n: int, what: str = "item") -> list[str]:
    """Which quantiles' changes have no interval, and how many items or sources it would take."""
    if not needed:
        return []
    told = ", ".join(f"{name} takes {count:,}" for name, count in needed.items())
    return [f"{items_text(n, what)} {'is' if n == 1 else 'are'} too few for an interval of every quantile: {told}"]


def zeros(baseline: int, candidate: int, unit: str) -> list[str]:
    """Values of 0 where nothing takes no time and has no length: missing values are often written so."""
    if not baseline and not candidate:
        return []
    return [f"{baseline:,} and {candidate:,} values are 0 {unit}: missing values written as 0 look like this, and they count"]
