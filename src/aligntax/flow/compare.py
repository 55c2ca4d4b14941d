"""Scores to ledger: which comparisons a study makes, and their order. Pure: arrays in, entries out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aligntax.core.errors import PairingError
from aligntax.core.kinds import kind_of
from aligntax.core.ledger import MEAN_OVER_ITEMS, MEAN_OVER_TASKS, Detail, Entry
from aligntax.core.study import Study
from aligntax.core.words import items_text, printable
from aligntax.flow import checks as words
from aligntax.flow.judge import (
    Draft,
    MetricFacts,
    Pairing,
    Side,
    add_method_checks,
    draft,
    judge,
    set_margin,
    test_details,
)
from aligntax.flow.scores import BoolArray, IntArray, ItemScores, outcome_counts
from aligntax.stats.average import mean_over_tasks
from aligntax.stats.paired import PairedChange
from aligntax.stats.verdict import MIN_DF
from aligntax.store.rows import Items


@dataclass(frozen=True)
class MetricTable:
    """One metric of a study: its scores by arm (N items each) and what is known of it per task code.

    Attributes:
        kind: of all its entries; None where the task's kind is theirs. Metrics that were made of others or of texts have one.
        derived: whether it was made here, of other scores or of texts, and so has no samples of its own.
        groups: (N,) codes of the groups that its values belong to, where one value stands for several items; they take the place of clusters.
        grouped: what such a group is, in words.
        told: further details by (task code, arm), for the entries of a task as a whole.
        checks: further doubts by task code.
    """

    metric: str
    arms: Mapping[str, ItemScores]
    facts: Mapping[int, MetricFacts]
    kind: str | None = None
    derived: bool = False
    groups: IntArray | None = None
    grouped: str = ""
    told: Mapping[tuple[int, str], Mapping[str, Detail]] = field(default_factory=dict)
    checks: Mapping[int, Sequence[str]] = field(default_factory=dict)

    @property
    def planned(self) -> BoolArray:
        out: BoolArray = np.logical_or.reduce([scores.planned for scores in self.arms.values()])
        return out


@dataclass(frozen=True)
class PairNotes:
    """What the logs' texts say about one pair of arms, per task: (samples compared, samples alike)."""

    replies: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    prompts: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyNotes:
    """Facts about items that become checks: repeated contents, ids whose content changed, groups of tasks, cluster name, doubts by arm and task."""

    cluster: str | None = None
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    repeated: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], PairNotes] = field(default_factory=dict)
    doubts: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)


def compare(
    study: Study, items: Items, tables: Sequence[MetricTable], notes: StudyNotes, progress: Callable[[str], None] | None = None
) -> list[Entry]:
    """All entries of a study: per pair and metric the tasks, their subgroups, groups and averages.

    Raises:
        PairingError: if no pair of arms shares a single scored item, or a cluster column has gaps.
    """
    rng = np.random.default_rng(study.analysis.seed)
    drafts: list[Draft] = []
    for table in tables:
        if progress is not None:
            progress(table.metric)
        comparison = _MetricComparison(study, items, table, notes, rng)
        for pair in study.pairs:
            drafts += comparison.pair(*pair)
    if not any(one.estimate is not None for one in drafts):
        raise PairingError(_nothing_common(study, items, tables, notes))
    return judge(drafts, study.analysis)


def _nothing_common(study: Study, items: Items, tables: Sequence[MetricTable], notes: StudyNotes) -> str:
    arms = [arm.name for arm in study.arms]
    held = {
        name: sorted({items.tasks[t] for table in tables if name in table.arms for t in np.unique(items.task[table.arms[name].planned])})
        for name in arms
    }
    told = "; ".join(
        f"{printable(name)} has {printable(', '.join(tasks[:4]))}{', ...' if len(tasks) > 4 else ''}" for name, tasks in held.items()
    )
    if len({tuple(tasks) for tasks in held.values()}) > 1 and not set.intersection(*(set(t) for t in held.values())):
        return f"the arms have no task in common ({told}); compare logs of the same task"
    if notes.changed:
        return f"no item is common to the arms ({told}): {items_text(sum(notes.changed.values()), 'id')} agree, but questions, choices or targets differ"
    return f"no item with a score is common to the arms ({told}); items pair by task, id and content"


class _MetricComparison:
    """One metric of one study; holds what its pairs share."""

    def __init__(self, study: Study, items: Items, table: MetricTable, notes: StudyNotes, rng: np.random.Generator) -> None:
        self.study, self.items, self.table, self.notes, self.rng = study, items, table, notes, rng
        self.analysis = study.analysis
        planned = np.flatnonzero(table.planned)
        self.by_task = _split(planned, items.task[planned]) if len(items.tasks) > 1 else {0: planned}
        self._branches = branches(study)
        self._scored: dict[tuple[int, tuple[str, ...]], BoolArray] = {}

    def _compared(self, task: int, baseline: str, candidate: str) -> BoolArray:
        """(N,) items scored in every arm of the pair's branch that has the task: so that edges add up to the total exactly."""
        has = tuple(
            arm
            for arm in dict.fromkeys((baseline, candidate, *self._branches[candidate]))
            if arm in (baseline, candidate) or self._has(arm, task)
        )
        if (task, has) not in self._scored:
            nothing = np.zeros(len(self.items.task), dtype=np.bool_)
            masks = [self.table.arms[arm].valid if arm in self.table.arms else nothing for arm in has]
            self._scored[task, has] = np.logical_and.reduce(masks)
        return self._scored[task, has]

    def pair(self, baseline: str, candidate: str) -> list[Draft]:
        """Entries of one pair: tasks, then their subgroups, then groups, then averages."""
        out: list[Draft] = []
        totals: dict[int, Draft] = {}
        for task in sorted(self.by_task, key=lambda t: self.items.tasks[t]):
            total = self._total(task, baseline, candidate)
            totals[task] = total
            out.append(total)
            if self.analysis.by is not None and self.table.groups is None:
                out += self._subgroups(task, baseline, candidate)
        if self.table.groups is None:
            out += self._groups(totals, baseline, candidate)
        out += self._averages(totals, baseline, candidate)
        if self.table.derived:
            for one in out:
                one.details["derived"] = 1
        return out

    # -- tasks ------------------------------------------------------------------------------------------------

    def _total(self, task: int, baseline: str, candidate: str) -> Draft:
        name = self.items.tasks[task]
        family = ("tasks", self._kind(name), self.table.metric, baseline, candidate) if len(self.by_task) > 1 else None
        clusters = self.items.cluster if self.table.groups is None else self.table.groups
        out = self._draft(name, task, self.by_task[task], baseline, candidate, family, clusters)
        for side, arm in (("baseline", baseline), ("candidate", candidate)):
            out.details |= {f"{key}_{side}": value for key, value in self.table.told.get((task, arm), {}).items()}
        out.checks += self.table.checks.get(task, ())
        pair_notes = self.notes.pairs.get((baseline, candidate), PairNotes())
        if name in pair_notes.replies:
            n, same = pair_notes.replies[name]
            out.details["identical_replies"] = same
            out.checks += words.identical_replies(n, same)
        if name in pair_notes.prompts:
            out.checks += words.prompts_differ(*pair_notes.prompts[name])
        if name in pair_notes.settings:
            out.checks.append(words.asked_differently(pair_notes.settings[name]))
        out.checks += [
            f"{printable(arm)}: {doubt}" for arm in (baseline, candidate) for doubt in self.notes.doubts.get(arm, {}).get(name, ())
        ]
        if out.estimate is not None:
            out.checks += words.unequal_attrition(out.outcomes, self.analysis.level)
        if name in self.notes.repeated:
            out.checks.append(words.repeated_contents(*self.notes.repeated[name]))
        if name in self.notes.changed:
            out.checks.append(words.changed_contents(self.notes.changed[name]))
        if self.table.facts[task].assumed:
            out.checks.append(words.direction_assumed(self.table.metric))
        return out

    def _kind(self, task: str) -> str:
        return self.table.kind or kind_of(task, self.analysis.kinds, self.table.metric)

    def _draft(
        self,
        name: str,
        task: int,
        members: IntArray,
        baseline: str,
        candidate: str,
        family: tuple[str, ...] | None,
        clusters: IntArray | None,
        *,
        subgroup: bool = False,
    ) -> Draft:
        """One comparison over the planned items ``members`` (indices), with cluster codes (N,) or without."""
        facts = self.table.facts[task]
        mask = np.zeros(len(self.items.task), dtype=np.bool_)
        mask[members] = True
        both = {arm: self.table.arms[arm] for arm in (baseline, candidate) if arm in self.table.arms}
        outcomes = {
            arm: outcome_counts(self.table.arms[arm], mask) if arm in both else {"absent": len(members)} for arm in (baseline, candidate)
        }
        has = {arm: bool(scores.planned[members].any()) for arm, scores in both.items()}
        paired = members[self._paired(members, baseline, candidate)]
        kind = self._kind(self.items.tasks[task])
        if len(paired) == 0:
            empty = Draft(
                kind, name, self.table.metric, baseline, candidate, facts, None, None, None, None, outcomes, None, is_subgroup=subgroup
            )
            alone = [arm for arm in (baseline, candidate) if has.get(arm)]
            empty.checks.append(words.only_in(alone[0]) if len(alone) == 1 else words.NO_COMMON_ITEM)
            return empty
        codes, cluster_name, cluster_checks = (None, None, []) if clusters is None else self._clusters(paired, clusters[paired])
        out = draft(
            Pairing(
                kind=kind,
                task=name,
                metric=self.table.metric,
                baseline=baseline,
                candidate=candidate,
                facts=facts if subgroup or name == self.items.tasks[task] else replace(facts, guesses=()),  # several tasks
                base=_side(both[baseline], paired),
                cand=_side(both[candidate], paired),
                codes=codes,
                cluster=cluster_name,
                outcomes=outcomes,
                family=family,
                is_subgroup=subgroup,
            ),
            self.analysis,
            self.rng,
        )
        missing = {
            arm: int(np.count_nonzero(~self.table.arms[arm].valid[members]))
            for arm in self.table.arms
            if arm in (baseline, candidate, *self._branches[candidate])
        }
        out.checks += [*cluster_checks, *words.left_out(missing, len(members))]
        out.checks += words.overruled({arm: scores.overruled for arm, scores in both.items()} if not subgroup else {})
        return out

    def _paired(self, members: IntArray, baseline: str, candidate: str) -> BoolArray:
        """Which of the members are compared, task by task."""
        tasks = self.items.task[members]
        out = np.zeros(len(members), dtype=np.bool_)
        for task in np.flatnonzero(np.bincount(tasks)):
            mask = self._compared(int(task), baseline, candidate)
            out |= (tasks == task) & mask[members]
        return out

    def _clusters(self, paired: IntArray, codes: IntArray) -> tuple[IntArray | None, str | None, list[str]]:
        """Cluster codes of the paired items: asked for, or carried by the log itself.

        Raises:
            PairingError: if a cluster column was asked for and some items of a task have none.
        """
        if self.table.groups is not None:
            return codes, self.table.grouped, []
        asked = self.analysis.cluster
        missing = int(np.count_nonzero(codes < 0))
        if missing == len(codes):
            return None, None, [words.no_cluster_column(asked)] if asked else []
        if missing and asked:
            raise PairingError(
                f"column {printable(asked)} is empty for {items_text(missing, 'item')} of {printable(self.items.tasks[int(self.items.task[paired[0]])])}; "
                "give every item a source, or leave --cluster out"
            )
        name = asked or self.notes.cluster
        if not missing:
            return codes, name, []
        alone = int(codes.max()) + 1 + np.arange(len(codes))
        return np.where(codes < 0, alone, codes), name, [words.own_sources(missing, name or "cluster")]

    # -- subgroups ----------------------------------------------------------------------------------------------

    def _subgroups(self, task: int, baseline: str, candidate: str) -> Iterator[Draft]:
        members, name = self.by_task[task], self.items.tasks[task]
        labels = self.items.by[members]
        present = [int(code) for code in np.unique(labels)]
        if present == [-1]:
            return
        family = ("by", self._kind(name), self.table.metric, baseline, candidate, name)
        constant = len(present) > 1 and all(len(np.unique(self.items.cluster[members[labels == code]])) == 1 for code in present)
        cluster = self.analysis.cluster or self.notes.cluster
        for code in present:
            label = self.items.labels[code] if code >= 0 else "(no label)"
            part = members[labels == code]
            out = self._draft(
                f"{name}/{label}", task, part, baseline, candidate, family, None if constant else self.items.cluster, subgroup=True
            )
            if constant and cluster is not None and self.items.cluster[part[0]] >= 0:
                out.checks.append(words.constant_cluster(cluster))
            yield out

    # -- groups and averages --------------------------------------------------------------------------------------

    def _groups(self, totals: Mapping[int, Draft], baseline: str, candidate: str) -> Iterator[Draft]:
        """Groups that the logs define, as the mean over their items, where both arms have every task of the group."""
        codes = {self.items.tasks[task]: task for task in totals}
        for group, tasks in self.notes.groups.items():
            parts = [codes[t] for t in tasks if t in codes]
            if group in codes or len(parts) < 2 or len(parts) < len(tasks) or not self._same_metric(parts, totals):
                continue
            out = self._pooled(group, parts, baseline, candidate)
            out.checks.append(f"mean over the items of {len(parts)} tasks")
            yield out

    def _same_metric(self, parts: Sequence[int], totals: Mapping[int, Draft]) -> bool:
        facts = {(self.table.facts[t].unit, self.table.facts[t].higher_is_better, self.table.facts[t].scale, totals[t].kind) for t in parts}
        return len(facts) == 1 and all(totals[t].estimate is not None for t in parts)

    def _averages(self, totals: Mapping[int, Draft], baseline: str, candidate: str) -> Iterator[Draft]:
        kinds: dict[str, list[int]] = {}
        for task, total in totals.items():
            kinds.setdefault(total.kind, []).append(task)
        for kind, tasks in kinds.items():
            if len(tasks) < 2:
                continue
            names = {arm: {t for t in tasks if self._has(arm, t)} for arm in (baseline, candidate)}
            if names[baseline] != names[candidate]:
                only = [sorted(self.items.tasks[t] for t in names[a] - names[b]) for a, b in ((baseline, candidate), (candidate, baseline))]
                yield self._no_average(kind, totals[tasks[0]], words.unequal_tasks(baseline, candidate, only[0], only[1]))
            elif any(totals[t].estimate is None for t in tasks):
                yield self._no_average(kind, totals[tasks[0]], words.NO_ESTIMATE)
            elif not self._same_metric(tasks, totals):
                yield self._no_average(kind, totals[tasks[0]], words.MIXED_UNITS)
            else:
                yield self._macro(tasks, totals, baseline, candidate)
                if self.table.groups is not None:
                    continue
                yield self._pooled(MEAN_OVER_ITEMS, tasks, baseline, candidate)

    def _has(self, arm: str, task: int) -> bool:
        return arm in self.table.arms and bool(self.table.arms[arm].planned[self.by_task[task]].any())

    def _no_average(self, kind: str, like: Draft, reason: str) -> Draft:
        out = Draft(kind, MEAN_OVER_TASKS, self.table.metric, like.baseline, like.candidate, like.facts, None, None, None, None, {}, None)
        out.checks.append(reason)
        return out

    def _macro(self, tasks: Sequence[int], totals: Mapping[int, Draft], baseline: str, candidate: str) -> Draft:
        """The mean over tasks, each with the same weight."""
        parts = [totals[t] for t in tasks]
        estimates: list[PairedChange] = [p.estimate for p in parts if p.estimate is not None]
        facts = self.table.facts[tasks[0]]
        values = [sum(getattr(p, side) or 0.0 for p in parts) / len(parts) for side in ("baseline_value", "candidate_value")]
        out = Draft(
            parts[0].kind, MEAN_OVER_TASKS, self.table.metric, baseline, candidate, facts,
            mean_over_tasks(estimates, facts.scale), values[0], values[1], None, _summed([p.outcomes for p in parts]), None,
        )  # fmt: skip
        set_margin(out, self.analysis)
        out.details["tasks"] = len(parts)
        estimate = out.estimate
        assert estimate is not None
        out.details |= {key: value for key, value in (("df", estimate.df), ("design_effect", estimate.design_effect)) if value is not None}
        _average_unparsed(out, parts, facts.scale, self.analysis.level)
        test_details(out, self.analysis)
        # Items in tasks of unequal weight have no common sample size to plan with.
        for key in ("n_needed_no_tax", "n_needed_no_tax_observed", "n_needed_detect"):
            out.details.pop(key, None)
        add_method_checks(out, self.analysis, None, "")
        if out.clustered_df is not None and out.clustered_df < MIN_DF:
            out.checks.append(words.few_sources_in_average(out.clustered_df))
        return out

    def _pooled(self, name: str, tasks: Sequence[int], baseline: str, candidate: str) -> Draft:
        """The mean over the items of several tasks; clusters stay within their task."""
        members = np.concatenate([self.by_task[t] for t in tasks])
        labelled = self.items.cluster >= 0
        clusters = None
        if labelled[members].any():
            # A label of one task is no label of another, and an item of a task without labels is a source of its own.
            span = int(self.items.cluster.max()) + 1
            alone = len(self.items.tasks) * span + np.arange(len(labelled))
            clusters = np.where(labelled, self.items.task * span + self.items.cluster, alone)
        out = self._draft(name, tasks[0], members, baseline, candidate, None, clusters)
        out.details["tasks"] = len(tasks)
        return out


def _split(members: IntArray, codes: IntArray) -> dict[int, IntArray]:
    """Members by code, each group in ascending order."""
    order = np.argsort(codes, kind="stable")
    cuts = np.flatnonzero(np.diff(codes[order])) + 1
    return {int(codes[part[0]]): members[part] for part in np.split(order, cuts) if len(part)}


def _side(scores: ItemScores, at: IntArray) -> Side:
    if len(at) == len(scores.mean) and at[0] == 0 and at[-1] == len(at) - 1 and bool((np.diff(at) == 1).all()):
        return Side(scores.mean, scores.trials, scores.variance, scores.unread, scores.read_mean)  # all items: no copies
    return Side(scores.mean[at], scores.trials[at], scores.variance[at], scores.unread[at], scores.read_mean[at])


def _average_unparsed(out: Draft, parts: Sequence[Draft], scale: float | None, level: float) -> None:
    """What the parts say of unread answers, averaged like their changes."""
    if not all("unparsed_baseline" in part.details for part in parts):
        return
    for key in ("unparsed_baseline", "unparsed_candidate"):
        out.details[key] = sum(part.details[key] for part in parts) / len(parts)  # type: ignore[misc]
    bounds = [part.bounds for part in parts]
    if not any(bounds):
        return
    low, high = (
        mean_over_tasks([pair[side] if pair is not None else part.estimate for pair, part in zip(bounds, parts, strict=True)], scale)  # type: ignore[misc]
        for side in (0, 1)
    )
    out.bounds = (low, high)
    out.details["change_bounds"] = [low.change, high.change]
    if low.test is not None and high.test is not None:
        out.details["change_bounds_ci"] = [low.test.interval(level)[0], high.test.interval(level)[1]]
    both = [part.details.get("change_both_parsed") for part in parts]
    if all(isinstance(x, float) for x in both):
        out.both_parsed = sum(both) / len(both)  # type: ignore[arg-type]
        out.details["change_both_parsed"] = out.both_parsed
    out.unparsed_differ = any(part.unparsed_differ for part in parts)


def branches(study: Study) -> dict[str, tuple[str, ...]]:
    """For every arm the arms of its branch: the root, the root's child that it descends from, and all that descends from that child.

    Edges of one branch share their items, so that they add up; a sibling branch does not cost them any.
    """
    parents = {arm.name: arm.parent for arm in study.arms}

    def top(name: str) -> str:
        while (parent := parents[name]) is not None and parents[parent] is not None:
            name = parent
        return name

    tops = {arm.name: top(arm.name) for arm in study.arms}
    return {name: tuple(other for other in tops if tops[other] == tops[name] or parents[other] is None) for name in tops}


def _summed(parts: Sequence[Mapping[str, Mapping[str, int]]]) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for part in parts:
        for arm, counts in part.items():
            for outcome, n in counts.items():
                out.setdefault(arm, {})[outcome] = out.get(arm, {}).get(outcome, 0) + n
    return out
