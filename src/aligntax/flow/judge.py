"""One paired comparison: from the arrays of one task, metric and pair to a draft entry; from drafts to judged entries.

Everything statistical happens in the benefit direction (positive is better) and is turned back for the entry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import ndtr

from aligntax.core.kinds import NO_BETTER_SIDE, OF_GUARDS, default_margin
from aligntax.core.ledger import Detail, Entry
from aligntax.core.study import Analysis
from aligntax.flow import checks as words
from aligntax.flow.inversion import parameters
from aligntax.flow.scores import FloatArray, IntArray, relabelled
from aligntax.stats.mcnemar import mcnemar_exact_p, mcnemar_mid_p
from aligntax.stats.moments import correlation, mean, sample_variance
from aligntax.stats.multiplicity import benjamini_hochberg, holm
from aligntax.stats.paired import (
    PairedChange,
    critical_value,
    equivalence_p,
    noninferiority_p,
    p_value,
    paired_change,
    without_noise,
)
from aligntax.stats.planning import plan, sources_needed
from aligntax.stats.quantiles import latency_details
from aligntax.stats.ratio import ratio_interval
from aligntax.stats.resample import bootstrap_means, bootstrap_t_interval, percentile_interval
from aligntax.stats.trials import trial_variance
from aligntax.stats.verdict import MIN_DF, Verdict, verdict

_BOOTSTRAP_T_ITEMS = 100
_SHARES = np.linspace(0, 1, 41)
"""Where the distributions of latencies are kept, to be drawn."""
_FEW_FLIPS = 10
"""Changed items below which a ratio has no interval: its variance is that of the items that changed."""


@dataclass(frozen=True)
class MetricFacts:
    """What is known of one metric on one task: unit, direction, and the largest |difference| of one item (None if unbounded).

    ``strict`` marks accuracies, in which unreadable answers count as incorrect; ``assumed`` an assumed direction; ``guesses`` says how many
    of the task's items offer how many options, one of them right.
    """

    unit: str
    higher_is_better: bool
    scale: float | None
    strict: bool
    assumed: bool = False
    guesses: tuple[tuple[int, int], ...] = ()

    @property
    def sign(self) -> float:
        return 1.0 if self.higher_is_better else -1.0

    def chance(self, n: int) -> float | None:
        """The score of guessing on ``n`` of the task's items; None unless they are all of them, or all offer the same number of options."""
        total = sum(items for _, items in self.guesses)
        if not total or (n != total and len(self.guesses) > 1):
            return None
        return sum(items / options for options, items in self.guesses) / total


@dataclass(frozen=True)
class Side:
    """One arm on the paired items, every array (n,)."""

    mean: FloatArray
    trials: FloatArray
    variance: FloatArray
    unread: FloatArray
    read_mean: FloatArray


@dataclass
class Draft:
    """An entry before its family is known. ``estimate`` is in the benefit direction; None without paired items."""

    kind: str
    task: str
    metric: str
    baseline: str
    candidate: str
    facts: MetricFacts
    estimate: PairedChange | None
    baseline_value: float | None
    candidate_value: float | None
    margin: float | None
    outcomes: dict[str, dict[str, int]]
    family: tuple[str, ...] | None
    details: dict[str, Detail] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    bounds: tuple[PairedChange, PairedChange] | None = None
    unparsed_differ: bool = False
    both_parsed: float | None = None
    is_subgroup: bool = False

    @property
    def clustered_df(self) -> float | None:
        """Degrees of freedom where clusters are known (an average keeps its method's name)."""
        estimate = self.estimate
        clustered = estimate is not None and estimate.method in {"score-clustered", "t-clustered"}
        return estimate.df if estimate is not None and clustered else None

    @property
    def testable(self) -> bool:
        """Whether it stays in its family; decided by design alone, never by the result."""
        df = self.clustered_df
        return self.estimate is not None and self.estimate.test is not None and (df is None or df >= MIN_DF)


@dataclass(frozen=True)
class Pairing:
    """The paired items of one task (or subgroup) in two arms: what ``draft`` judges."""

    kind: str
    task: str
    metric: str
    baseline: str
    candidate: str
    facts: MetricFacts
    base: Side
    cand: Side
    codes: IntArray | None
    cluster: str | None
    outcomes: dict[str, dict[str, int]]
    family: tuple[str, ...] | None
    is_subgroup: bool = False


def draft(pairing: Pairing, analysis: Analysis, rng: np.random.Generator | None = None) -> Draft:
    """Estimate one change and everything that goes with it except what depends on its family.

    Args:
        pairing: at least one paired item.
        analysis: settings.
        rng: generator for the bootstrap cross-check, if one was asked for.
    """
    facts, base, cand = pairing.facts, pairing.base, pairing.cand
    single = float(base.trials.max()) == 1 and float(cand.trials.max()) == 1
    binary = single and _is_binary(base.mean) and _is_binary(cand.mean)
    d = without_noise(facts.sign * (cand.mean - base.mean), facts.scale)
    codes = None if pairing.codes is None else relabelled(pairing.codes)
    estimate = paired_change(d, codes, binary=binary, trials=not single, scale=facts.scale)
    out = Draft(
        kind=pairing.kind,
        task=pairing.task,
        metric=pairing.metric,
        baseline=pairing.baseline,
        candidate=pairing.candidate,
        facts=facts,
        estimate=estimate,
        baseline_value=mean(base.mean),
        candidate_value=mean(cand.mean),
        margin=None,
        outcomes=pairing.outcomes,
        family=pairing.family,
        is_subgroup=pairing.is_subgroup,
    )
    set_margin(out, analysis)
    _basic_details(out, base, cand, binary=binary)
    _ratio_details(out, base, cand, codes, analysis.level)
    if pairing.kind == "latency":
        _latency_details(out, base, cand, codes, analysis)
    _trial_details(out, base, cand, d, single=single)
    _unparsed_details(out, pairing, codes, analysis, binary=binary, trials=not single)
    if analysis.bootstrap and rng is not None:
        _bootstrap_details(out, d, codes, analysis, rng)
    test_details(out, analysis)
    add_method_checks(out, analysis, pairing.cluster, _trials_text(base, cand, single))
    return out


def _is_binary(x: FloatArray) -> bool:
    return bool(np.all((x == 0) | (x == 1)))


def _trials_text(base: Side, cand: Side, single: bool) -> str:
    if single:
        return ""
    low = int(min(base.trials.min(), cand.trials.min()))
    high = int(max(base.trials.max(), cand.trials.max()))
    return str(low) if low == high else f"{low} to {high}"


def set_margin(out: Draft, analysis: Analysis) -> None:
    """The margin asked for, or the kind's default; a check where none is known."""
    if out.kind in NO_BETTER_SIDE:
        return
    if analysis.margin is not None:
        asked = analysis.margin
        value = None if out.baseline_value is None else abs(out.baseline_value) * asked.value
        out.margin = (value or None) if asked.relative else asked.value
        if out.margin is None:
            out.checks.append(words.NO_SHARE)
        return
    out.margin, reason = default_margin(out.kind, out.facts.unit, out.baseline_value, out.facts.scale)
    if out.margin is None:
        out.checks.append(reason)


def _basic_details(out: Draft, base: Side, cand: Side, *, binary: bool) -> None:
    estimate, details = out.estimate, out.details
    assert estimate is not None
    details["lost"], details["gained"] = estimate.lost, estimate.gained
    if binary:
        lost, gained = round(estimate.lost), round(estimate.gained)
        details["lost"], details["gained"] = lost, gained
        details["mcnemar_exact_p"] = mcnemar_exact_p(lost, gained)
        details["mcnemar_mid_p"] = mcnemar_mid_p(lost, gained)
    else:
        details["items_changed"] = estimate.items_changed
    if estimate.n > 1:
        details["se_independent_items"] = estimate.se_independent
        details["se_unpaired"] = sqrt((sample_variance(base.mean) + sample_variance(cand.mean)) / estimate.n)
    if (r := correlation(base.mean, cand.mean)) is not None:
        details["correlation"] = r
    if estimate.effective_contributors is not None:
        details["effective_contributors"] = estimate.effective_contributors
    clusters = estimate.clusters
    if clusters is not None:
        details["se_clustered"] = sqrt(clusters.variance_cr2)
        details["se_clustered_cr1"] = sqrt(clusters.variance_cr1)
        details["icc"] = clusters.icc
        details["flip_clusters"] = clusters.flip_clusters
        details["largest_cluster_share"] = clusters.largest_share
        details["mean_of_cluster_means"] = out.facts.sign * clusters.mean_of_means
    if estimate.design_effect is not None:
        details["design_effect"] = estimate.design_effect
    if estimate.df is not None:
        details["df"] = estimate.df


def _ratio_details(out: Draft, base: Side, cand: Side, codes: IntArray | None, level: float) -> None:
    """What share of the baseline's value is retained, of all of it and of what lies above chance; only where more is better and less than 0 there is not."""
    if not out.facts.higher_is_better or float(min(base.mean.min(), cand.mean.min())) < 0:
        return
    floors = {"retained": 0.0}
    chance = out.facts.chance(len(base.mean))
    if chance is not None and chance < 1:  # of items with a single option there is nothing to know
        change = float(cand.mean.mean() - base.mean.mean())
        out.details |= {"chance": chance, "chance_corrected_change": change / (1 - chance)}
        floors["retained_above_chance"] = chance
    for name, floor in floors.items():
        if float(base.mean.mean()) - floor <= 1e-12:
            continue  # nothing to retain
        share, interval = ratio_interval(cand.mean, base.mean, codes, level=level, floor=floor)
        out.details[name] = share
        if interval is not None and out.estimate is not None and out.estimate.items_changed >= _FEW_FLIPS:
            out.details[f"{name}_ci"] = list(interval)
    if "retained" in out.details:
        out.details["relative_change"] = float(out.details["retained"]) - 1.0  # type: ignore[arg-type]


def _latency_details(out: Draft, base: Side, cand: Side, codes: IntArray | None, analysis: Analysis) -> None:
    """Quantiles and medians of pairs beside the change of the mean."""
    if min(base.mean.min(), cand.mean.min()) < 0:
        out.checks.append(words.NEGATIVE_TIMES)
        return
    out.details |= latency_details(base.mean, cand.mean, codes, analysis.level)
    for name, side in (("baseline", base), ("candidate", cand)):
        out.details[f"distribution_{name}"] = [float(x) for x in np.quantile(side.mean, _SHARES)]
    short = {name: out.details.get(f"{name}_items_needed") for name in ("p95", "p99")}
    out.checks += words.few_for_quantiles({name: int(n) for name, n in short.items() if isinstance(n, int)}, len(base.mean))
    sources = {name: out.details.get(f"{name}_sources_needed") for name in ("p50", "p95", "p99")}
    out.checks += words.few_for_quantiles(
        {name: int(n) for name, n in sources.items() if isinstance(n, int)}, 0 if codes is None else len(np.unique(codes)), "source"
    )
    if out.metric.split(",", 1)[0] not in OF_GUARDS:  # an arm without guards spends nothing on them
        out.checks += words.zeros(int((base.mean == 0).sum()), int((cand.mean == 0).sum()), out.facts.unit)


def _trial_details(out: Draft, base: Side, cand: Side, d: FloatArray, *, single: bool) -> None:
    if single:
        return
    split = trial_variance(d, base.variance, base.trials, cand.variance, cand.trials)
    if split is None:
        return
    out.details["within_item_variance"] = split.within
    out.details["within_item_variance_baseline"] = split.baseline
    out.details["within_item_variance_candidate"] = split.candidate
    out.details["between_item_variance"] = split.between
    if split.between < 0:
        out.checks.append(words.negative_between(split.between))


def _unparsed_details(out: Draft, pairing: Pairing, codes: IntArray | None, analysis: Analysis, *, binary: bool, trials: bool) -> None:
    """Bounds and the both-parsed subset (Horowitz and Manski 2000): only accuracies can have unread answers."""
    base, cand, facts = pairing.base, pairing.cand, pairing.facts
    if not facts.strict:
        return
    rates = mean(base.unread), mean(cand.unread)
    out.details["unparsed_baseline"], out.details["unparsed_candidate"] = rates
    assert out.estimate is not None
    if rates == (0.0, 0.0):
        test = out.estimate.test
        change = out.estimate.change
        out.details |= {"change_bounds": [change, change], "n_both_parsed": out.estimate.n, "change_both_parsed": change}
        if test is not None:
            ci: list[float | None] = list(test.interval(analysis.level))
            out.details |= {"change_bounds_ci": ci, "change_both_parsed_ci": ci}
        return

    def estimated(x: FloatArray, c: IntArray | None) -> PairedChange:
        groups = None if c is None else relabelled(c)
        return paired_change(x, groups, binary=binary, trials=trials, scale=facts.scale)

    low = estimated(cand.mean - np.minimum(base.mean + base.unread, 1.0), codes)
    high = estimated(np.minimum(cand.mean + cand.unread, 1.0) - base.mean, codes)
    out.bounds = (low, high)
    out.details["change_bounds"] = [low.change, high.change]
    if low.test is not None and high.test is not None:
        out.details["change_bounds_ci"] = [low.test.interval(analysis.level)[0], high.test.interval(analysis.level)[1]]
    both = ~np.isnan(base.read_mean) & ~np.isnan(cand.read_mean)
    out.details["n_both_parsed"] = int(both.sum())
    if both.any():
        parsed = estimated(cand.read_mean[both] - base.read_mean[both], None if codes is None else codes[both])
        out.both_parsed = parsed.change
        out.details["change_both_parsed"] = parsed.change
        if parsed.test is not None:
            out.details["change_both_parsed_ci"] = list(parsed.test.interval(analysis.level))
    flags_base, flags_cand = base.unread > 0, cand.unread > 0
    only_base, only_cand = int((flags_base & ~flags_cand).sum()), int((~flags_base & flags_cand).sum())
    far = out.margin is not None and abs(rates[1] - rates[0]) > out.margin
    out.unparsed_differ = mcnemar_exact_p(only_base, only_cand) < 1 - analysis.level or far


def _bootstrap_details(out: Draft, d: FloatArray, codes: IntArray | None, analysis: Analysis, rng: np.random.Generator) -> None:
    estimate = out.estimate
    if estimate is None or estimate.n < 2 or estimate.sources == 1:
        return
    if codes is None:
        d = np.sort(d)
    used = codes if estimate.clusters is not None else None
    low, high = percentile_interval(bootstrap_means(d, used, analysis.bootstrap, rng), analysis.level)
    out.details["bootstrap_low"], out.details["bootstrap_high"] = _turned(out.facts.sign, low, high)
    if out.facts.scale is None and estimate.n >= _BOOTSTRAP_T_ITEMS and estimate.test is not None:
        x, groups = (np.sort(d), np.arange(len(d))) if used is None else (d, used)
        limits = bootstrap_t_interval(x, groups, analysis.level, analysis.bootstrap, rng)
        if limits is not None:
            out.details["bootstrap_t_low"], out.details["bootstrap_t_high"] = _turned(out.facts.sign, *limits)


def _turned(sign: float, low: float, high: float) -> tuple[float, float]:
    """An interval of the benefit direction in the direction of the metric (and the other way round)."""
    return (low, high) if sign > 0 else (-high, -low)


def test_details(out: Draft, analysis: Analysis) -> None:
    """p-values at the margin and planning numbers, from the inversion."""
    estimate, margin = out.estimate, out.margin
    if estimate is None or estimate.test is None:
        return
    details, test = out.details, estimate.test
    low, high = test.interval(analysis.level)
    details["largest_loss_not_excluded"] = max(0.0, -low)
    if margin is not None:
        details["noninferiority_p"] = noninferiority_p(test, margin)
        details["equivalence_p"] = equivalence_p(test, margin)
        se = estimate.se_independent
        if se:
            tails = (-(estimate.change + margin) / se, (estimate.change - margin) / se)
            details["equivalence_p_independent"] = float(max(ndtr(t) for t in tails))
    planning = plan(low, high, estimate.n, estimate.change, margin, critical_value(analysis.level, test.df), test.df)
    details["minimum_detectable_change"] = planning.minimum_detectable_change
    details["n_needed_detect"] = planning.n_detect
    if margin is not None:
        details["n_needed_no_tax"] = planning.n_no_tax
        details["n_needed_no_tax_observed"] = planning.n_no_tax_observed


def add_method_checks(out: Draft, analysis: Analysis, cluster: str | None, trials: str) -> None:
    estimate, facts = out.estimate, out.facts
    assert estimate is not None
    loss = out.details.get("largest_loss_not_excluded")
    out.checks += words.method_checks(
        estimate,
        unit=facts.unit,
        cluster=cluster,
        trials=trials,
        loss=loss if isinstance(loss, float) else None,
        level=analysis.level,
    )
    if estimate.test is None or estimate.clusters is None:
        return
    low, high = estimate.test.interval(analysis.level)
    out.checks += words.cluster_means_check(
        facts.sign * estimate.clusters.mean_of_means, facts.sign * estimate.change, (high - low) / 2, facts.unit
    )


def judge(drafts: Sequence[Draft], analysis: Analysis) -> list[Entry]:
    """Adjust within families, reach verdicts, and make entries, in the order given."""
    families: dict[tuple[str, ...], list[int]] = {}
    for i, one in enumerate(drafts):
        if one.family is not None:
            families.setdefault(one.family, []).append(i)
    extra: list[dict[str, Any]] = [{} for _ in drafts]
    for members in families.values():
        _adjust(drafts, members, extra, analysis)
    return [_entry(one, extra[i], analysis) for i, one in enumerate(drafts)]


def _adjust(drafts: Sequence[Draft], members: list[int], extra: list[dict[str, Any]], analysis: Analysis) -> None:
    """Holm within one family, over the members that can be tested; over all of them for exact McNemar of subgroups."""
    exact = [i for i in members if drafts[i].is_subgroup and "mcnemar_exact_p" in drafts[i].details]
    if exact:
        p = [float(drafts[i].details["mcnemar_exact_p"]) for i in exact]  # type: ignore[arg-type]
        for i, h, b in zip(exact, holm(p), benjamini_hochberg(p), strict=True):
            drafts[i].details |= {"holm_mcnemar_exact_p": h, "bh_mcnemar_exact_p": b}
    tested = [i for i in members if drafts[i].testable]
    if len(tested) < 2:
        return
    tests = [drafts[i].estimate.test for i in tested]  # type: ignore[union-attr]
    q = holm([p_value(t) for t in tests])  # type: ignore[arg-type]
    level = 1 - (1 - analysis.level) / len(tested)
    for i, test, adjusted in zip(tested, tests, q, strict=True):
        assert test is not None
        extra[i] |= {"q": adjusted, "members": len(tested), "limits": test.interval(level)}
    with_margin = [i for i in tested if drafts[i].margin is not None]
    ni = holm([float(drafts[i].details["noninferiority_p"]) for i in with_margin])  # type: ignore[arg-type]
    for i, adjusted in zip(with_margin, ni, strict=True):
        extra[i]["q_ni"] = adjusted


def _entry(one: Draft, family: dict[str, Any], analysis: Analysis) -> Entry:
    estimate, facts = one.estimate, one.facts
    checks, details = list(one.checks), dict(one.details)
    numbers: dict[str, float | None] = dict.fromkeys(("se", "ci_low", "ci_high", "p_value", "p_adjusted"))
    said: Verdict | None = None if one.kind in NO_BETTER_SIDE else "undetermined"
    if estimate is not None and estimate.test is not None:
        low, high = estimate.test.interval(analysis.level)
        p = p_value(estimate.test)
        ni = details.get("noninferiority_p")
        q, q_ni = family.get("q", p), family.get("q_ni", ni)
        if family:
            details["simultaneous_low"], details["simultaneous_high"] = _turned(facts.sign, *family["limits"])
            if "q_ni" in family:
                details["noninferiority_p_adjusted"] = family["q_ni"]
        if said is not None:
            said = verdict(estimate.change, q, q_ni, df=one.clustered_df, level=analysis.level)
        checks += _verdict_checks(one, said, p, q, (low, high), family.get("members"), analysis)
        checks += _unparsed_checks(one, said, (low, high), analysis)
        ci_low, ci_high = _turned(facts.sign, low, high)
        numbers = {"se": estimate.se, "ci_low": ci_low, "ci_high": ci_high, "p_value": p, "p_adjusted": family.get("q")}
    else:
        checks += _unparsed_checks(one, said, (None, None), analysis)
    if estimate is not None and estimate.test is not None:
        details |= parameters(estimate.test)
    if one.is_subgroup:
        details["subgroup"] = 1
    change = None
    if one.baseline_value is not None and one.candidate_value is not None:
        change = one.candidate_value - one.baseline_value
    return Entry(
        kind=one.kind,  # type: ignore[arg-type]
        task=one.task,
        metric=one.metric,
        unit=facts.unit,
        higher_is_better=facts.higher_is_better,
        baseline=one.baseline,
        candidate=one.candidate,
        n=0 if estimate is None else estimate.n,
        clusters=None if estimate is None else estimate.sources,
        baseline_value=one.baseline_value,
        candidate_value=one.candidate_value,
        change=change,
        cost=None if change is None else -facts.sign * change + 0.0,
        level=analysis.level,
        method="none" if estimate is None else estimate.method,  # type: ignore[arg-type]
        margin=one.margin,
        verdict=said,
        outcomes=one.outcomes,
        details=details,
        checks=tuple(dict.fromkeys(checks)),
        **numbers,
    )


def _verdict_checks(
    one: Draft, said: Verdict | None, p: float, q: float, interval: tuple[float, float], members: int | None, analysis: Analysis
) -> list[str]:
    """What must be said beside a verdict."""
    estimate, margin = one.estimate, one.margin
    assert estimate is not None
    alpha, high, out = 1 - analysis.level, interval[1], []
    if said == "no_tax" and estimate.change < 0 and q < alpha:
        out.append(words.SMALL_LOSS)
    if said == "tax" and margin is not None and high < -margin:
        out.append(words.LARGE_LOSS)
    if members is not None and q >= alpha > p:
        out.append(words.family_check(q, members))
    if said == "undetermined" and margin is not None and estimate.clusters is not None and estimate.test is not None:
        sizes = estimate.clusters.sizes / estimate.n
        variance = (estimate.se_independent or 0.0) ** 2 * estimate.n
        out += words.more_sources_check(
            sources_needed(
                estimate.clusters.icc,
                variance,
                float(np.sum(sizes**2)),
                estimate.clusters.count,
                margin,
                critical_value(analysis.level, estimate.df),
            )
        )
    return out


def _unparsed_checks(one: Draft, said: Verdict | None, interval: tuple[float, float] | tuple[None, None], analysis: Analysis) -> list[str]:
    """What unread answers leave open; also where no interval can be given."""
    if one.bounds is None or one.estimate is None:
        return []
    out, unit = [], one.facts.unit
    at_bounds = {_unadjusted(bound, one, analysis) for bound in one.bounds}
    harmless = said != "undetermined" and at_bounds == {said}
    if harmless:
        out.append(words.UNPARSED_HARMLESS)
    if one.unparsed_differ:
        rates = [float(one.details[f"unparsed_{side}"]) for side in ("baseline", "candidate")]  # type: ignore[arg-type]
        out.append(words.unparsed_differ(rates[0], rates[1], one.bounds[0].change, one.bounds[1].change, unit))
        if said == "tax" and not harmless:
            out.append(words.NOT_SEPARABLE)
    if one.both_parsed is not None:
        out += words.both_parsed_check(one.estimate.change, one.both_parsed, interval[0], interval[1], unit)
    return out


def _unadjusted(bound: PairedChange, one: Draft, analysis: Analysis) -> Verdict:
    if bound.test is None:
        return "undetermined"
    ni = None if one.margin is None else noninferiority_p(bound.test, one.margin)
    return verdict(bound.change, p_value(bound.test), ni, df=one.clustered_df, level=analysis.level)
