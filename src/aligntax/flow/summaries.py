"""Comparisons of which at least one side has no samples: results files, published tables, leaderboards.

Nothing pairs, so the arms' errors are taken as independent, which is conservative where both answered the same items; and where neither a size
nor a standard error is known there is no interval, and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aligntax.core.errors import PairingError
from aligntax.core.kinds import kind_of
from aligntax.core.ledger import Ledger
from aligntax.core.samples import CODE, Outcome
from aligntax.core.study import Analysis, Study
from aligntax.core.words import printable
from aligntax.flow import checks as words
from aligntax.flow.judge import Draft, MetricFacts, judge, set_margin
from aligntax.stats.paired import Inversion, PairedChange, noninferiority_p
from aligntax.stats.unpaired import TwoProportions, two_means
from aligntax.store.logs import Summary
from aligntax.store.rows import Items, Rows

UNPAIRED = (
    "unpaired: at least one side has no samples; errors are taken as independent, which widens the interval where the items are the same"
)
NO_SIZE = "neither the number of items nor a standard error is known: no interval"
_MISSING = (CODE[Outcome.FAILED], CODE[Outcome.ABSENT])
_UNPARSED = CODE[Outcome.UNPARSED]
_INCORRECT = tuple(CODE[o] for o in (Outcome.REFUSED, Outcome.UNPARSED, Outcome.TRUNCATED))

Facts = Mapping[tuple[str, str], MetricFacts]


@dataclass(frozen=True)
class _Pair:
    first: Summary
    second: Summary
    facts: MetricFacts


def summarised(rows: Rows, number: int) -> list[Summary]:
    """An arm's samples as summaries: means over items with their standard errors. As where items are paired (``flow.scores``), refused, unparsed
    and truncated answers without a score count as 0 in an accuracy, and unparsed ones never as more.
    """
    accuracy = f"(SELECT task, metric, min(value) >= 0 AND max(value) <= 1 AS strict FROM joined_{number} GROUP BY task, metric)"
    value = f"CASE WHEN strict AND (outcome = {_UNPARSED} OR value IS NULL AND outcome IN {_INCORRECT}) THEN 0 ELSE value END"
    items = (
        f"(SELECT task, metric, item, content, any_value(cluster) AS cluster, avg({value}) AS m FROM joined_{number} "
        f"JOIN {accuracy} USING (task, metric) WHERE outcome NOT IN {_MISSING} GROUP BY task, metric, item, content HAVING m IS NOT NULL)"
    )
    found = rows.con.execute(
        f"SELECT task, metric, avg(m), stddev_samp(m) / sqrt(count(*)), count(*), bool_and(cluster IS NOT NULL) FROM {items} "
        "GROUP BY task, metric ORDER BY task, metric"
    ).fetchall()
    # Items of one source are not independent: the error of the mean from the sums of its sources (CR1).
    sources = rows.con.execute(
        "SELECT task, metric, sqrt(sum(u * u) * count(*) / (count(*) - 1)) / sum(k), count(*) FROM ("
        f"SELECT i.task, i.metric, i.cluster, sum(i.m - t.mean) AS u, count(*) AS k FROM {items} i JOIN "
        f"(SELECT task, metric, avg(m) AS mean FROM {items} GROUP BY task, metric) t USING (task, metric) "
        "WHERE i.cluster IS NOT NULL GROUP BY i.task, i.metric, i.cluster) GROUP BY task, metric HAVING count(*) > 1"
    ).fetchall()
    clustered = {(task, metric): (se, count) for task, metric, se, count in sources}
    return [
        Summary(task, metric, value, clustered[task, metric][0], n, sources=clustered[task, metric][1])
        if every and (task, metric) in clustered
        else Summary(task, metric, value, se, n)
        for task, metric, value, se, n, every in found
    ]


def compare_summaries(study: Study, arms: Mapping[str, Sequence[Summary]], facts: Facts) -> Ledger:
    """The ledger of a study of summaries: every task and metric that both arms of a pair have.

    Raises:
        PairingError: if no pair has anything in common.
    """
    drafts: list[Draft] = []
    known = {name: {(s.task, s.metric): s for s in of} for name, of in arms.items()}
    for a, b in study.pairs:
        common = [key for key in known[a] if key in known[b]]
        by_family: dict[tuple[str, str], int] = {}
        for task, metric in common:
            key = kind_of(task, study.analysis.kinds, metric), metric
            by_family[key] = by_family.get(key, 0) + 1
        # Sections of one kind and metric stand together, tasks in the order of the source.
        for task, metric in sorted(common, key=lambda key: (key[1], kind_of(key[0], study.analysis.kinds, key[1]))):
            kind = kind_of(task, study.analysis.kinds, metric)
            family = ("tasks", kind, metric, a, b) if by_family[kind, metric] > 1 else None
            pair = _Pair(known[a][task, metric], known[b][task, metric], facts[task, metric])
            drafts.append(_draft(pair, kind, (a, b), family, study.analysis))
    if not drafts:
        told = "; ".join(f"{printable(name)} has {printable(', '.join(sorted({t for t, _ in of})[:4]))}" for name, of in known.items())
        raise PairingError(f"the arms have no task and metric in common ({told})")
    return Ledger(study=study.id, baseline=study.baseline, entries=tuple(judge(drafts, study.analysis)))


def _draft(pair: _Pair, kind: str, names: tuple[str, str], family: tuple[str, ...] | None, analysis: Analysis) -> Draft:
    first, second, facts = pair.first, pair.second, pair.facts
    test = _test(pair)
    estimate = PairedChange(
        n=0, change=facts.sign * (second.value - first.value), se=_error(pair), method="unpaired" if test else "none", test=test, lost=0.0,
        gained=0.0, items_changed=0,
    )  # fmt: skip
    out = Draft(
        kind=kind, task=first.task, metric=first.metric, baseline=names[0], candidate=names[1], facts=facts, estimate=estimate,
        baseline_value=first.value, candidate_value=second.value, margin=None,
        outcomes={name: {} if s.n is None else {"scored": s.n} for name, s in zip(names, (first, second), strict=True)}, family=family,
    )  # fmt: skip
    set_margin(out, analysis)
    for side, summary in (("baseline", first), ("candidate", second)):
        if summary.n is not None:
            out.details[f"n_{side}"] = summary.n
        if summary.se is not None:
            out.details[f"se_{side}"] = summary.se
        if summary.sources is not None:
            out.details[f"clusters_{side}"] = summary.sources
    out.checks.append(UNPAIRED if test else NO_SIZE)
    if facts.assumed:
        out.checks.append(words.direction_assumed(first.metric if first.metric != "points" else first.task))
    if test is not None:
        low, _ = test.interval(analysis.level)
        out.details["largest_loss_not_excluded"] = max(0.0, -low)
        if out.margin is not None:
            out.details["noninferiority_p"] = noninferiority_p(test, out.margin)
    return out


def _error(pair: _Pair) -> float | None:
    first, second = _se(pair.first, pair.facts), _se(pair.second, pair.facts)
    return None if first is None or second is None else float(np.hypot(first, second))


def _se(one: Summary, facts: MetricFacts) -> float | None:
    """The standard error as told; of a fraction of whose items the number is known, at most that of as many yes or no answers."""
    if one.se is not None:
        return one.se
    if one.n is None or one.n < 2 or facts.unit != "fraction" or not 0 <= one.value <= 1:
        return None
    # No scores in [0, 1] with this mean spread more than zeros and ones do.
    return float(np.sqrt(one.value * (1 - one.value) / (one.n - 1)))


def _test(pair: _Pair) -> Inversion | None:
    """In the benefit direction. Shares of known sizes: a score test; else means with their errors."""
    first, second, sign = pair.first, pair.second, pair.facts.sign
    if first.n and second.n and all(_is_share(one, pair.facts) for one in (first, second)):
        p1, p2 = (first.value, second.value) if sign > 0 else (1 - first.value, 1 - second.value)
        return TwoProportions(p1, first.n, p2, second.n)
    errors = _se(first, pair.facts), _se(second, pair.facts)
    if errors[0] is None or errors[1] is None:
        return None
    sizes = [one.n if one.sources is None else one.sources for one in (first, second)]
    return two_means(sign * (second.value - first.value), errors[0], sizes[0], errors[1], sizes[1])


def _is_share(one: Summary, facts: MetricFacts) -> bool:
    """Whether a fraction is one of yes and no answers: its standard error is theirs, or nobody told another."""
    if one.sources is not None or facts.unit != "fraction" or not one.n or one.n < 2 or not 0 <= one.value <= 1:
        return False
    own = np.sqrt(one.value * (1 - one.value) / (one.n - 1))
    return one.se is None or bool(abs(one.se - own) <= 0.02 * own + 1e-12)


def nothing_paired() -> Items:
    """The items of a comparison without any."""
    none = np.zeros(0, dtype=np.int64)
    return Items(none, none, none, (), 0, ())
