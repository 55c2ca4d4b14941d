"""The verb ``diff``: logs of several arms in, a judged comparison out. Runs no model."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path, PurePath
from types import TracebackType
from typing import Any, Self

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.kinds import NATS, UNITS
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.study import Analysis, Arm, Study, check_tree
from aligntax.core.words import cut, printable
from aligntax.flow import checks as words
from aligntax.flow.calibration import calibration_tables
from aligntax.flow.compare import MetricTable, PairNotes, StudyNotes, compare
from aligntax.flow.consistency import consistency_tables
from aligntax.flow.diversity import Embed, diversity_tables
from aligntax.flow.judge import MetricFacts
from aligntax.flow.judged import corrected_tables, length_controlled_tables
from aligntax.flow.latency import with_parts
from aligntax.flow.refusals import refusal_tables
from aligntax.flow.scores import BoolArray, difference, item_scores
from aligntax.flow.split import with_splits
from aligntax.flow.summaries import compare_summaries, nothing_paired, summarised
from aligntax.store.logs import LogFacts, Summary, Want, open_log
from aligntax.store.rows import Flip, Items, MetricRows, Rows

# Names whose direction nobody doubts; everything else is taken as "more is better" with a check.
_HIGHER = frozenset(
    [
        "acc",
        "acc_norm",
        "acc_bytes",
        "acc_tokens",
        "acc_mutual_info",
        "acc_all",
        "accuracy",
        "exact_match",
        "exact",
        "em",
        "f1",
        "score",
        "pass@1",
        "pass",
        "pass_at_1",
        "correct",
        "mcc",
        "mc1",
        "mc2",
        "bleu",
        "rouge1",
        "rouge2",
        "rougeL",
        "rougeLsum",
        "chrf",
        "meteor",
        "bleurt_acc",
        "bleu_acc",
        "rouge1_acc",
        "win_rate",
        "prompt_level_strict_acc",
        "prompt_level_loose_acc",
        "inst_level_strict_acc",
        "inst_level_loose_acc",
        "math_verify",
        "output_tokens_per_second",
        "requests_per_second",
    ]
)
_LOWER = frozenset(
    [
        "perplexity",
        "word_perplexity",
        "byte_perplexity",
        "bits_per_byte",
        "ppl",
        "loss",
        "nll",
        "brier",
        "brier_score",
        "log_loss",
        "time_to_first_token",
        "time_per_output_token",
        "inter_token_latency",
        "request_latency",
        "output_tokens",
        "energy",
        "ece",
        "error",
        "error_rate",
        "wer",
        "cer",
        "ter",
        "toxicity",
        "toxicity_score",
        "latency",
        "latency_s",
        "ttft",
    ]
)
# Quantities without an upper end, even where every value seen lies in [0, 1].
_UNBOUNDED = frozenset(
    [
        "latency",
        "ttft",
        "tpot",
        "seconds",
        "time",
        "duration",
        "loss",
        "nll",
        "perplexity",
        "ppl",
        "tokens",
        "logprob",
        "logprobs",
        "loglikelihood",
        "entropy",
        "kl",
        "bits",
        "byte",
        "cost",
        "reward",
    ]
)
_PATHS = re.compile(r"(?<![\w.:/])(?:/|~/|[A-Za-z]:\\)[^\s,;'\"=]+")


def is_lower_better(metric: str) -> bool:
    """Whether nobody doubts that less of this metric is better; ``metric`` may carry lm-eval's filter."""
    return metric.split(",", 1)[0].lower() in _LOWER


@dataclass(frozen=True)
class ArmSource:
    """One arm of a diff: its name, its log, and the arm it was made from."""

    name: str
    path: Path
    parent: str | None


def chain(base: Path, candidate: Path, names: tuple[str, str], stages: Sequence[tuple[str, Path, str | None]]) -> list[ArmSource]:
    """The arms of a stage tree: stages without a parent stand between base and candidate in the order given.

    Raises:
        InputError: on repeated names, unknown parents or a loop.
    """
    arms, last = [ArmSource(names[0], base, None)], names[0]
    for name, path, parent in stages:
        arms.append(ArmSource(name, path, last if parent is None else parent))
        if parent is None:
            last = name
    arms.append(ArmSource(names[1], candidate, last))
    check_tree([a.name for a in arms], {a.name: a.parent for a in arms})
    return arms


class Comparison:
    """A study with its ledger, and with its rows still at hand for the flips. A context manager."""

    def __init__(
        self, study: Study, ledger: Ledger, provenance: Mapping[str, Any], rows: Rows, tables: Sequence[MetricTable], items: Items
    ) -> None:
        self.study, self.ledger, self.provenance = study, ledger, provenance
        self.rows, self._tables, self._items = rows, {t.metric: t for t in tables}, items

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.rows.close()

    def add(self, entries: Sequence[Entry]) -> None:
        """Entries that were not made from scores."""
        self.ledger = self.ledger.model_copy(update={"entries": (*self.ledger.entries, *entries)})

    def flips(
        self, baseline: str, candidate: str, metric: str, *, task: str | None = None, direction: str = "both", limit: int | None = None
    ) -> tuple[int, list[Flip]]:
        """Items whose score changed: (how many there are, those described).

        Args:
            baseline: arm name.
            candidate: arm name.
            metric: metric key.
            task: one task, or a subgroup ``task/label``; None for all.
            direction: ``lost`` (worse in the candidate), ``gained`` or ``both``.
            limit: describe at most so many: the largest changes, of equal ones an even sample.

        Raises:
            InputError: on an unknown arm, metric or task.
        """
        table = self._tables.get(metric)
        if table is None or table.derived or table.kind == "format":
            known = [m for m, t in self._tables.items() if not t.derived and t.kind != "format"]
            raise InputError(f"no metric {printable(metric)!r} with answers of its own; this run has: {printable(', '.join(known))}")
        for arm in (baseline, candidate):
            if arm not in table.arms:
                raise InputError(f"no arm {printable(arm)!r} with this metric; the run has: {printable(', '.join(table.arms))}")
        a, b = table.arms[baseline], table.arms[candidate]
        d = b.mean - a.mean
        codes = self._items.task
        sign = np.array([table.facts[t].sign if t in table.facts else 1.0 for t in range(len(self._items.tasks))])[codes]
        benefit = sign * d
        chosen = ~np.isnan(d) & {"lost": benefit < 0, "gained": benefit > 0, "both": benefit != 0}[direction]
        if task is not None:
            chosen &= self._members(task)
        at = np.flatnonzero(chosen)
        if limit == 0:
            return len(at), []
        numbers = {arm.name: arm.number for arm in self.rows.arms}
        found = self.rows.describe(numbers[baseline], numbers[candidate], metric, at, np.abs(d[at]), limit)
        # What was compared: means over trials, in which unread answers count as they do in the ledger.
        return len(at), [replace(flip, baseline_value=float(a.mean[i]), candidate_value=float(b.mean[i])) for i, flip in found]

    def _members(self, task: str) -> BoolArray:
        items = self._items
        if task in items.tasks:
            return np.asarray(items.task == items.tasks.index(task))
        for code, name in enumerate(items.tasks):
            if task.startswith(f"{name}/") and task[len(name) + 1 :] in items.labels:
                return np.asarray((items.task == code) & (items.by == items.labels.index(task[len(name) + 1 :])))
        raise InputError(f"no task {printable(task)!r}; this run has: {printable(', '.join(items.tasks))}, and subgroups as task/label")


def diff_logs(
    arms: Sequence[ArmSource],
    analysis: Analysis,
    want: Want,
    progress: Callable[[str, int], None] | None = None,
    embed: Embed | None = None,
) -> Comparison:
    """Read the arms' logs, compare them, and judge.

    Args:
        arms: the first is the baseline, the last the candidate.
        analysis: settings; ``want`` must name the same cluster and subgroup columns.
        want: columns to read.
        progress: called with (what is being done, rows so far).
        embed: makes the vectors of the analysis' embedder.

    Raises:
        InputError: on anything wrong with the logs or with what was asked of them.
    """
    say = progress or _silent
    rows = Rows()
    try:
        summaries: dict[str, list[Summary]] = {}
        for arm in arms:
            source = open_log(arm.path, want)
            if source.summaries is not None:
                rows.add_summaries(arm.name, arm.path, source)
                summaries[arm.name] = source.summaries
                continue
            rows.add(arm.name, arm.path, source, want, lambda n, name=arm.name: say(f"reading {name}", n))  # type: ignore[misc]
        study = Study(
            baseline=arms[0].name,
            arms=tuple(
                Arm(name=a.name, parent=a.parent, source=r.source, reader=r.reader, identity=r.rows)
                for a, r in zip(arms, rows.arms, strict=True)
            ),
            analysis=analysis,
        )
        if summaries:
            return _compare_summaries(study, rows, summaries)
        return compare_rows(study, rows, [r.facts for r in rows.arms], say, embed)
    except BaseException:
        rows.close()
        raise


def _compare_summaries(study: Study, rows: Rows, given: Mapping[str, list[Summary]]) -> Comparison:
    """Compare where at least one arm has no samples: the others are summarised as well."""
    if study.analysis.cluster is not None or study.analysis.by is not None:
        without = next(name for name in given)
        raise InputError(f"{printable(without)} has no samples, and so neither sources nor subgroups; leave --cluster and --by out")
    analysis = study.analysis
    asked = {
        "--diversity": analysis.diversity,
        "--embedder": analysis.embedder,
        "--rewordings": analysis.rewordings,
        "--judge": analysis.judges,
    }
    if needed := [option for option, value in asked.items() if value]:
        without = next(name for name in given)
        raise InputError(f"{printable(without)} has no samples, and so no answers; leave {' and '.join(needed)} out")
    arms = {arm.name: given.get(arm.name) or summarised(rows, arm.number) for arm in rows.arms}
    directions: dict[tuple[str, str], bool] = {}
    for arm in rows.arms:
        directions |= arm.facts.higher_is_better
    _check_scales(arms)
    for of in arms.values():
        for one in of:
            parts = set(re.split(r"[^a-z0-9]+", one.task.lower()))
            if one.metric == "points" and (one.task, one.metric) not in directions and parts & _LOWER:
                directions[one.task, one.metric] = False
    span: dict[tuple[str, str], list[float]] = {}
    for of in arms.values():
        for one in of:
            span.setdefault((one.task, one.metric), []).append(one.value)
    facts = {
        (task, metric): _metric_facts(metric, task, min(values), max(values), directions, study.analysis)
        for (task, metric), values in span.items()
    }
    ledger = _with_settings(compare_summaries(study, arms, facts), {arm.name: arm.facts.settings for arm in rows.arms})
    items = nothing_paired()
    provenance = _provenance(rows, [arm.facts for arm in rows.arms], [], items)
    provenance["pairing"] = "none: at least one side has no samples"
    provenance["estimator"] = "difference of the values as given"
    return Comparison(study, ledger, provenance, rows, [], items)


def _with_settings(ledger: Ledger, settings: Mapping[str, Mapping[str, Any]]) -> Ledger:
    """Entries of tasks that the two arms' logs say were asked differently gain that check."""
    found = {pair: settings_that_differ(settings[pair[0]], settings[pair[1]]) for pair in {entry.pair for entry in ledger}}
    entries = tuple(
        entry.model_copy(update={"checks": (*entry.checks, words.asked_differently(found[entry.pair][entry.task]))})
        if entry.task in found[entry.pair]
        else entry
        for entry in ledger
    )
    return ledger.model_copy(update={"entries": entries})


def _check_scales(arms: Mapping[str, Sequence[Summary]]) -> None:
    """Refuse fractions against percentages: published tables do not say which they print.

    Raises:
        InputError: if one arm's points all lie in [0, 1] and another's do not.
    """
    points = {name: [one.value for one in of if one.metric == "points"] for name, of in arms.items()}
    small = [name for name, values in points.items() if len(values) > 1 and all(0 <= v <= 1 for v in values)]
    large = [name for name, values in points.items() if len(values) > 1 and sum(v > 1 for v in values) > len(values) / 2]
    if small and large:
        raise InputError(f"{printable(small[0])} gives fractions and {printable(large[0])} percentages; bring them to one scale first")


def _silent(_what: str, _rows: int) -> None:
    """Progress that nobody asked for."""


def compare_rows(
    study: Study, rows: Rows, facts: Sequence[LogFacts], say: Callable[[str, int], None], embed: Embed | None = None
) -> Comparison:
    """Compare rows already loaded, in the order of the study's arms; ``embed`` makes the vectors of the analysis' embedder."""
    say("pairing", 0)
    items = rows.items()
    analysis = study.analysis
    tables = [*metric_tables(study, items, rows, facts), *refusal_tables(rows, items, facts, analysis)]
    corrected = corrected_tables(tables, items, analysis.judges, analysis.level)
    tables = [
        *length_controlled_tables(calibration_tables(tables, items), items, analysis.level),
        *corrected,
        *_format_tables(tables, items),
        *consistency_tables(tables, items, rows, analysis.rewordings),
        *diversity_tables(rows, items, facts, analysis.diversity, embed, lambda what: say(what, 0)),
    ]
    notes = _notes(study, rows, facts)
    entries = compare(study, items, tables, notes, lambda metric: say(f"comparing {metric}", 0))
    entries = with_parts(with_splits(study, entries, tables, items), {table.metric: table for table in tables}, items)
    ledger = Ledger(study=study.id, baseline=study.baseline, entries=tuple(entries))
    return Comparison(study, ledger, _provenance(rows, facts, tables, items), rows, tables, items)


def metric_tables(study: Study, items: Items, rows: Rows, facts: Sequence[LogFacts]) -> list[MetricTable]:
    """Every metric of every arm as scores per item."""
    names = list(dict.fromkeys(m for arm in rows.arms for m in rows.metrics(arm.number)))
    directions: dict[tuple[str, str], bool] = {}
    for one in facts:
        directions |= one.higher_is_better
    out: list[MetricTable] = []
    for metric in sorted(names):
        found = {arm.name: rows.metric_rows(arm.number, metric) for arm in rows.arms}
        found = {name: r for name, r in found.items() if len(r.item)}
        known = {
            t: replace(of, guesses=_guesses(items.tasks[t], metric, facts)) if of.unit == "fraction" and of.higher_is_better else of
            for t, of in _facts(metric, found, items, directions, study.analysis).items()
        }
        by_task = np.array([t in known and known[t].strict for t in range(len(items.tasks))])
        arms = {name: item_scores(r, len(items.task), by_task[items.task]) for name, r in found.items()}
        out.append(MetricTable(metric, arms, known))
    return out


def _facts(
    metric: str, found: Mapping[str, MetricRows], items: Items, directions: Mapping[tuple[str, str], bool], analysis: Analysis
) -> dict[int, MetricFacts]:
    low, high = np.full(len(items.tasks), np.inf), np.full(len(items.tasks), -np.inf)
    for r in found.values():
        seen = ~np.isnan(r.value)
        np.minimum.at(low, items.task[r.item[seen]], r.value[seen])
        np.maximum.at(high, items.task[r.item[seen]], r.value[seen])
    counts = sum(np.bincount(items.task[r.item], minlength=len(items.tasks)) for r in found.values())
    present = [int(t) for t in np.flatnonzero(counts)]
    return {t: _metric_facts(metric, items.tasks[t], float(low[t]), float(high[t]), directions, analysis) for t in present}


def _guesses(task: str, metric: str, facts: Sequence[LogFacts]) -> tuple[tuple[int, int], ...]:
    """(Options, items that offer so many), where the arms that tell it agree."""
    told = [tuple(sorted(one.guesses[task, metric].items())) for one in facts if (task, metric) in one.guesses]
    return told[0] if told and len(set(told)) == 1 else ()


def _metric_facts(
    metric: str, task: str, low: float, high: float, directions: Mapping[tuple[str, str], bool], analysis: Analysis
) -> MetricFacts:
    """Unit, direction and range of one metric on one task.

    Raises:
        InputError: if a score lies outside the range that was named for its metric.
    """
    name = metric.split(",", 1)[0]
    if metric in analysis.lower_is_better or name in analysis.lower_is_better:
        higher, assumed = False, False
    elif (told := directions.get((task, metric), directions.get((task, name)))) is not None:
        higher, assumed = told, False
    else:
        higher, assumed = not is_lower_better(name), name not in _HIGHER and not is_lower_better(name)
    scale = analysis.scales.get(metric, analysis.scales.get(name))
    if scale is not None:
        if low < scale.low or high > scale.high:
            raise InputError(
                f"{printable(metric)} of {printable(task)} runs from {low:g} to {high:g}, outside the scale {scale.low:g} to {scale.high:g} named for it"
            )
        fraction = (scale.low, scale.high) == (0.0, 1.0)
        return MetricFacts("fraction" if fraction else name, higher, scale.high - scale.low, fraction and higher, assumed)
    if name in UNITS or name in NATS:
        return MetricFacts(UNITS.get(name, "nats"), higher, None, False, assumed)
    parts = set(re.split(r"[^a-z0-9]+", name.lower()))
    if low >= 0 and high <= 1 and ("acc" in parts or not _UNBOUNDED & parts):  # an accuracy per token is an accuracy
        return MetricFacts("fraction", higher, 1.0, higher, assumed)
    if low == np.inf:
        return MetricFacts("fraction", higher, 1.0, higher, assumed)
    return MetricFacts(name, higher, None, False, assumed)


def _format_tables(tables: Sequence[MetricTable], items: Items) -> list[MetricTable]:
    """What a flexible extractor finds beyond a strict one: right answers lost to their format."""
    out = []
    for strict in tables:
        name, _, extractor = strict.metric.partition(",")
        if "strict" not in extractor:
            continue
        for flexible in tables:
            if flexible is strict or flexible.metric.partition(",")[0] != name or "flexible" not in flexible.metric:
                continue
            both = [t for t, f in strict.facts.items() if t in flexible.facts and f.unit == flexible.facts[t].unit == "fraction"]
            of = np.isin(items.task, both)  # not every task has both extractors
            arms = {arm: difference(flexible.arms[arm], strict.arms[arm], of) for arm in strict.arms if arm in flexible.arms}
            never_less = all(not (s.mean < 0).any() for s in arms.values())
            known = {t: MetricFacts("fraction", not strict.facts[t].higher_is_better, 1.0 if never_less else 2.0, False) for t in both}
            if known and arms:
                out.append(MetricTable(f"{flexible.metric} - {strict.metric}", arms, known, kind="format"))
    return out


def _notes(study: Study, rows: Rows, facts: Sequence[LogFacts]) -> StudyNotes:
    numbers = {arm.name: arm.number for arm in rows.arms}
    settings = {arm.name: one.settings for arm, one in zip(rows.arms, facts, strict=True)}
    replies = all(rows.has_text(arm.number, "answer") for arm in rows.arms)
    prompts = all(rows.has_text(arm.number, "prompt") for arm in rows.arms)
    pairs = {
        (a, b): PairNotes(
            rows.identical(numbers[a], numbers[b], "answer") if replies else {},
            rows.identical(numbers[a], numbers[b], "prompt") if prompts else {},
            settings_that_differ(settings[a], settings[b]),
        )
        for a, b in study.pairs
    }
    known = rows.has_contents()
    return StudyNotes(
        cluster=study.analysis.cluster or next((f.auto_cluster for f in facts if f.auto_cluster), None),
        groups={g: tasks for f in facts for g, tasks in f.groups.items()},
        repeated=rows.repeated_contents() if known else {},
        changed=rows.changed_contents() if known else {},
        pairs=pairs,
        doubts={arm.name: one.doubts for arm, one in zip(rows.arms, facts, strict=True)},
    )


_OF_HARNESS = ("harness", "lm_eval_version", "chat_template_sha", "system_instruction_sha", "limit")
_OF_TASK = ("n-shot", "versions", "task_hashes")
_OF_INSPECT = ("packages", "task_args", "task_version", "generate", "plan")


def settings_that_differ(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    """By task, what two logs say of how they asked that is not the same; what only one of them says is no difference."""
    common = _differ({key: a.get(key) for key in _OF_HARNESS}, b)
    found: dict[str, list[str]] = {}
    for key in _OF_TASK:
        ours, theirs = _by_task(a, key), _by_task(b, key)
        for task in ours:
            found.setdefault(task, []).extend(f"{key} {text}" for text in _differ({"": ours[task]}, {"": theirs.get(task)}))
    ours, theirs = _by_task(a, "tasks"), _by_task(b, "tasks")
    for task, about in ours.items():
        if isinstance(about, dict) and isinstance(other := theirs.get(task), dict):
            found.setdefault(task, []).extend(_differ({key: about.get(key) for key in _OF_INSPECT}, other))
    return {task: "; ".join([*common, *own]) for task, own in found.items() if common or own}


def _by_task(settings: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = settings.get(key)
    return value if isinstance(value, dict) else {}


def _differ(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{key} {_few(value)} against {_few(theirs[key])}".strip()
        for key, value in ours.items()
        if value is not None and theirs.get(key) is not None and value != theirs[key]
    ]


def _few(value: object) -> str:
    return printable(cut(str(value), 40))


def _provenance(rows: Rows, facts: Sequence[LogFacts], tables: Sequence[MetricTable], items: Items) -> dict[str, Any]:
    """Versions, what each log says about itself, and every automatic choice with its reason."""
    choices = []
    for arm in rows.arms:
        choices.append({"choice": f"reader {arm.reader} for {arm.name}", "reason": "by the look of the file"})
    for table in tables:
        for t, f in table.facts.items():
            bounded = "bounded scores: score test at the effective sample size" if f.scale is not None else "unbounded scores: t test"
            direction = "higher is better" if f.higher_is_better else "lower is better"
            reason = "assumed: no log says" if f.assumed else "as the log, the metric's name or the settings say"
            choices.append(
                {
                    "choice": f"{items.tasks[t]}, {table.metric}: {bounded}; {direction}",
                    "reason": f"range of the scores seen; direction {reason}",
                }
            )
    return {
        "aligntax": version("aligntax"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: version(name) for name in ("numpy", "scipy", "duckdb", "pydantic")},
        "pairing": "task, source id and content hash where every arm has them; never row order",
        "estimator": "mean over items of candidate - baseline; strict accuracy (refused, unparsed and truncated count as incorrect)",
        "arms": {
            arm.name: {
                "source": arm.source,
                "reader": arm.reader,
                "samples": arm.samples,
                "rows_sha256": arm.rows,
                "settings": _without_paths(one.settings),
                "left_out": list(one.notes),
            }
            for arm, one in zip(rows.arms, facts, strict=True)
        },
        "choices": choices,
    }


def _without_paths(value: Any) -> Any:
    """Absolute paths shortened to their last part: they say something about a machine, nothing about the study."""
    if isinstance(value, str):
        return _PATHS.sub(lambda m: PurePath(m[0].replace("\\", "/")).name or "...", value)
    if isinstance(value, dict):
        return {str(k): _without_paths(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_paths(v) for v in value]
    return value
