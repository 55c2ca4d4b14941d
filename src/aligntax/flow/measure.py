"""The verb ``measure``: models are asked, their answers scored and compared. The same comparison as of logs, one step earlier."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from aligntax.core.asks import Answer
from aligntax.core.errors import InputError
from aligntax.core.guards import INSTEAD
from aligntax.core.ids import digest
from aligntax.core.items import Choose, Task, Write
from aligntax.core.ledger import Entry
from aligntax.core.study import Analysis, Arm, Elicitation, Study, TaskUse, check_tree
from aligntax.core.words import printable
from aligntax.flow.apart import divergence_entries
from aligntax.flow.collect import ArmPlan, Tell, bare, collect, failures, model_key, plan_arm, rows, some_answered
from aligntax.flow.diff import Comparison, compare_rows
from aligntax.flow.diverge import Pair, Way, along, comparable
from aligntax.flow.diversity import Embed
from aligntax.flow.guarded import Guarded, rulings
from aligntax.flow.judging import Judge, Judgements, check_judge, judge_arms
from aligntax.flow.latency import Latency, Timings, check_timing, time_arms, try_timing
from aligntax.models.asks import Model
from aligntax.models.guards import posted
from aligntax.models.references import Reference, open_model, parse
from aligntax.store.answers import Answers
from aligntax.store.logs import LogFacts, LogSource, Want
from aligntax.store.rows import Rows

Template = Literal["raw", "chat"]
READER = "measured"


@dataclass(frozen=True)
class ArmSpec:
    """One arm to be measured: its name, the arm it was made from, its model, and how it is asked."""

    name: str
    parent: str | None
    reference: Reference
    how: Elicitation


@dataclass(frozen=True)
class Options:
    """How a study is run; none of it is part of what is measured.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda``, ...
        batch_tokens: tokens of a batch; None for the engine's own number.
        concurrency: requests under way at an endpoint.
        say: is told what people should know while an endpoint is asked (retries, a key that goes unencrypted).
    """

    device: str = "auto"
    batch_tokens: int | None = None
    concurrency: int = 8
    say: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "concurrency"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"{name} must be a whole number of at least 1, got {printable(repr(value))}")
        if not isinstance(self.device, str) or not self.device:
            raise InputError(f"device must be a name like auto, cpu or cuda, got {printable(repr(self.device))}")


@dataclass
class Plan:
    """A study before anything is asked: its arms with every request, and its models, opened but not loaded."""

    study: Study
    arms: list[ArmPlan]
    tasks: list[tuple[Task, int | None]]
    latency: Latency | None = None
    judge: Judge | None = None


Stage = tuple[str, str, str | None]
"""(name, reference, parent's name) of one model."""


def tree(base: str, candidate: str, names: tuple[str, str] | None, stages: Sequence[str]) -> list[Stage]:
    """Every model of a stage tree: stages without a parent stand between base and candidate in the order given.

    Args:
        base: reference of the baseline's model.
        candidate: of the model the study is about.
        names: what to call them; None takes their own names, or base and candidate where those are the same.
        stages: each ``NAME=MODEL`` or ``NAME=MODEL@PARENT``; what follows an @ is a revision unless it names an arm.

    Raises:
        InputError: if a stage is written otherwise, or a reference names no model.
    """
    if names is not None and (isinstance(names, str) or len(names) != 2 or not all(isinstance(n, str) and n for n in names)):
        raise InputError(f"names must be two names, of base and candidate; got {printable(repr(names))}")
    first, last = names or (_label(base, "base"), _label(candidate, "candidate"))
    if first == last and names is None:
        first, last = "base", "candidate"
    parts = []
    for stage in stages:
        name, found, rest = stage.partition("=") if isinstance(stage, str) else ("", "", "")
        if not (found and name and rest):
            raise InputError(f"a stage is written NAME=MODEL or NAME=MODEL@PARENT, got {printable(repr(stage))}")
        parts.append((name, rest))
    known = {first, last, *(name for name, _ in parts)}
    out: list[Stage] = [(first, base, None)]
    above = first
    for name, rest in parts:
        model, at, parent = rest.rpartition("@")
        if at and parent in known:
            out.append((name, model, parent))
        else:
            out.append((name, rest, above))
            above = name
    return [*out, (last, candidate, above)]


def _label(reference: str, otherwise: str) -> str:
    label = parse(reference).label
    return label if re.fullmatch(r"[\w.-]+", label) else otherwise


def chosen_templates(wanted: str | None, stages: Sequence[Stage], models: Models) -> tuple[list[Template], str]:
    """The templates to ask by, and why; by default both where every model has a chat template, raw otherwise.

    Raises:
        InputError: on an unknown template.
    """
    if wanted not in (None, "raw", "chat", "both"):
        raise InputError(f"template must be raw, chat or both, got {printable(repr(wanted))}")
    if wanted == "raw":
        return ["raw"], ""
    if wanted == "chat":
        return ["chat"], ""
    without = None if wanted == "both" else can_chat(models, [parse(text) for _, text, _ in stages])
    if without is None:
        return ["raw", "chat"], ""
    return ["raw"], f"asked by the raw template only: {printable(without.label)} has no chat template"


def stage_tree(
    models: Sequence[Stage], templates: Sequence[Template], how: Elicitation
) -> tuple[list[ArmSpec], tuple[tuple[str, str], ...]]:
    """Arms of a stage tree, each model asked by every template; and the comparisons beside the edges and totals.

    With two templates an arm is named after its model and template, the baseline is the first model asked raw, and within the second
    template every model is also compared with the first.

    Args:
        models: (name, reference, parent's name) with the baseline first.
        templates: ``raw``, ``chat`` or both.
        how: the rest of the elicitation.

    Raises:
        InputError: on repeated names, unknown parents, a loop, or a reference that names no model.
    """
    check_tree([name for name, _, _ in models], {name: parent for name, _, parent in models})
    both = len(templates) > 1

    def arm(name: str, template: str) -> str:
        return f"{name}-{template}" if both else name

    specs = []
    root = models[0][0]
    for k, template in enumerate(templates):
        for name, text, parent in models:
            above = arm(parent, template) if parent is not None else (arm(root, templates[0]) if k else None)
            specs.append(ArmSpec(arm(name, template), above, parse(text), how.model_copy(update={"template": template})))
    contrasts = tuple((arm(root, t), arm(name, t)) for t in templates[1:] for name, _, _ in models[1:])
    return specs, contrasts


class Models:
    """Opens every model of a study once, and closes them together. A context manager."""

    def __init__(self, options: Options, opened: Mapping[Reference, Model] | None = None) -> None:
        self.options = options
        self._opened: dict[Reference, Model] = dict(opened or {})  # given by a caller who has them at hand

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        for model in self._opened.values():
            model.close()

    def __call__(self, reference: Reference) -> Model:
        """The model behind a reference: its tokenizer and identity, not yet its weights.

        Raises:
            InputError: if it cannot be had.
        """
        if reference not in self._opened:
            o = self.options
            self._opened[reference] = open_model(
                reference, device=o.device, batch_tokens=o.batch_tokens, concurrency=o.concurrency, say=o.say
            )
        return self._opened[reference]


def can_chat(models: Models, references: Sequence[Reference]) -> Reference | None:
    """The first model without a chat template; None if all can be asked in a chat."""
    return next((r for r in references if not models(r).facts.get("chat_template", True)), None)


def plan(
    specs: Sequence[ArmSpec],
    contrasts: tuple[tuple[str, str], ...],
    tasks: Sequence[tuple[Task, int | None]],
    analysis: Analysis,
    models: Models,
    latency: Latency | None = None,
    judge: Judge | None = None,
) -> Plan:
    """A study ready to be asked. Tokenizers are loaded, weights are not.

    Args:
        specs: the arms, the baseline first.
        contrasts: pairs compared beside the edges of the tree and the totals.
        tasks: with the number of items to take; None for all.
        analysis: how changes are judged.
        models: opens them.
        latency: what is timed, if anything; no part of the study's identity, as times are never the same twice.
        judge: who says what was refused; None for nobody but the rule.

    Raises:
        InputError: if a model cannot be had, or cannot be asked what a task asks, or timed.
    """
    for task, limit in tasks:
        if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
            raise InputError(f"limit must be a whole number of at least 1, got {printable(repr(limit))} for {printable(task.name)}")
    kinds = dict(analysis.kinds)  # what was asked for comes first: the first match holds
    for task, _ in tasks:
        if task.kind is not None:
            kinds.setdefault(task.name, task.kind)
    analysis = analysis.model_copy(update={"kinds": kinds})
    arms = [plan_arm(spec.name, models(spec.reference), spec.how, tasks) for spec in specs]
    hows = [_guarded(spec, arm, models) for spec, arm in zip(specs, arms, strict=True)]
    _check_labels(arms, analysis)
    if latency is not None:
        check_timing(arms, latency)
    if judge is not None:
        check_judge(judge, arms, analysis.kinds)
        analysis = analysis.model_copy(update={"judge_model": judge.identity})
    study = Study(
        baseline=specs[0].name,
        arms=tuple(
            Arm(
                name=spec.name,
                parent=spec.parent,
                source=spec.reference.label,
                reader=READER,
                identity=digest([dict(arm.model.identity), how.model_dump(mode="json")]),
                elicitation=how,
                model=model_key(arm.model),
            )
            for spec, arm, how in zip(specs, arms, hows, strict=True)
        ),
        analysis=analysis,
        tasks=tuple(TaskUse(name=task.name, identity=task.identity, limit=limit) for task, limit in tasks),
        contrasts=contrasts,
    )
    return Plan(study, arms, list(tasks), latency, judge)


def _guarded(spec: ArmSpec, arm: ArmPlan, models: Models) -> Elicitation:
    """Post the guards of an arm; the elicitation with all that identifies them.

    Raises:
        InputError: if a moderator cannot be had, or cannot write.
    """
    how = spec.how
    if not how.guards:
        return how
    named = [None if guard.model is None else parse(guard.model) for guard in how.guards]
    arm.guards = tuple(
        posted(guard, None if name is None else models(name), "" if name is None else name.label, spec.name)
        for guard, name in zip(how.guards, named, strict=True)
    )
    arm.instead = INSTEAD if how.instead is None else how.instead
    return how.model_copy(update={"guards": tuple(sentry.guard for sentry in arm.guards), "instead": arm.instead})


def _check_labels(arms: Sequence[ArmPlan], analysis: Analysis) -> None:
    """Whether the items have the labels that the analysis names: asking may take hours.

    Raises:
        InputError: naming the labels there are.
    """
    there = {label for sitting in arms[0].sittings for label in sitting.question.labels}
    for option, label in (("cluster", analysis.cluster), ("by", analysis.by)):
        if label is not None and label not in there:
            raise InputError(
                f"no item has a label {printable(repr(label))}, which {option} names; labels there: {printable(', '.join(sorted(there))) or 'none'}"
            )


def measure(
    plan: Plan,
    answers: Answers,
    tell: Tell,
    say: Callable[[str, int], None],
    *,
    divergence: bool = True,
    embed: Embed | None = None,
) -> Comparison:
    """Ask what is not known yet, time answers if that was planned, score, compare.

    Args:
        plan: the study.
        answers: where answers are kept.
        tell: progress of asking.
        say: progress of comparing.
        divergence: also how far each candidate's distribution is from its baseline's, where both models show theirs.
        embed: makes the vectors of the analysis' embedder.

    Raises:
        InputError: if a model cannot be loaded or timed, or an endpoint refuses.
    """
    table = Rows()
    try:
        if plan.latency is not None:
            try_timing(plan.arms, plan.latency)
        found, known = _collected(plan, answers, tell)
        guarded = rulings(plan.arms, found, answers, tell)
        said = None if plan.judge is None else _judgements(plan, plan.judge, found, answers, tell, guarded)
        times = None if plan.latency is None else time_arms(plan.arms, plan.latency, found, plan.study.analysis.seed, tell)
        apart, notes = _divergences(plan, answers, found, tell) if divergence else ([], [])
        facts = []
        cluster, by = plan.study.analysis.cluster, plan.study.analysis.by
        for arm, of in zip(plan.arms, plan.study.arms, strict=True):
            one = _facts(plan, arm, known[arm.name])
            one.notes.extend(_told(arm, found[arm.name]))
            say(f"scoring {arm.name}", 0)
            scored = rows(arm, found[arm.name], cluster, by, bare if guarded is None else guarded.given)
            if times is not None:
                scored = times.added(arm.name, scored)
                _tell_times(one, times, arm.name)
            if said is not None:
                scored = said.added(arm.name, scored)
                one.higher_is_better = {**one.higher_is_better, **said.directions()}
                one.settings["judge"] = said.facts
                one.notes.extend(said.notes[arm.name])
            table.add(arm.name, Path(of.source), LogSource(READER, scored, facts=one), Want(cluster, by))
            if guarded is not None:
                _tell_guards(one, guarded, arm, plan)
            facts.append(one)
        facts[0].notes.extend(notes)
        compared = compare_rows(plan.study, table, facts, say, embed)
        compared.add(apart)
        return compared
    except BaseException:
        table.close()
        raise


def _tell_guards(facts: LogFacts, guarded: Guarded, arm: ArmPlan, plan: Plan) -> None:
    kinds = plan.study.analysis.kinds
    facts.higher_is_better = {**facts.higher_is_better, **guarded.directions([task.name for task, _ in plan.tasks], kinds)}
    facts.notes.extend([*guarded.notes[arm.name], *guarded.unknown_to(arm.name, kinds)])
    moderators = {sentry.name: dict(sentry.facts) for sentry in arm.guards if sentry.model is not None}
    if moderators:
        facts.settings["moderators"] = moderators


def _judgements(
    plan: Plan, judge: Judge, found: Mapping[str, dict[str, Answer]], answers: Answers, tell: Tell, guarded: Guarded | None
) -> Judgements:
    """What the judge says of what users get."""
    kinds = plan.study.analysis.kinds
    if guarded is None:
        return judge_arms(judge, plan.arms, found, answers, tell, kinds)
    return judge_arms(judge, plan.arms, found, answers, tell, kinds, shown=guarded.shown)


def _tell_times(facts: LogFacts, times: Timings, arm: str) -> None:
    facts.higher_is_better = {**facts.higher_is_better, **times.directions()}
    facts.settings["latency"] = times.facts[arm]
    facts.notes.extend(times.notes.get(arm, ()))


def _collected(plan: Plan, answers: Answers, tell: Tell) -> tuple[dict[str, dict[str, Answer]], dict[str, dict[str, object]]]:
    """Answers and facts by arm. All arms of one model are asked before the next is loaded, so that memory holds one at a time."""
    found: dict[str, dict[str, Answer]] = {}
    known: dict[str, dict[str, object]] = {}
    for model in dict.fromkeys(arm.model for arm in plan.arms):
        arms = [arm for arm in plan.arms if arm.model is model]
        for arm in arms:
            found[arm.name] = collect(arm, answers, tell)
            some_answered(arm, found[arm.name])
        known |= {arm.name: dict(model.facts) for arm in arms}
        model.close()
    return found, known


def _told(arm: ArmPlan, found: Mapping[str, Answer]) -> list[str]:
    failed = failures(found)
    if not failed:
        return []
    why, count = failed.most_common(1)[0]
    return [f"{sum(failed.values()):,} of {len(arm.requests):,} requests failed, {count:,} times: {why}"]


def _divergences(plan: Plan, answers: Answers, found: Mapping[str, Mapping[str, Answer]], tell: Tell) -> tuple[list[Entry], list[str]]:
    """Entries of every pair that can be compared token by token, and why others cannot."""
    pairs, notes = comparable(plan.study, plan.arms, found)
    how = {arm.name: arm.elicitation for arm in plan.study.arms}
    out: list[Entry] = []
    for at, pair in enumerate(pairs):
        try:
            out += _diverged(pair, answers, plan.study.analysis, how[pair.candidate.name], tell, notes)
        except (FloatingPointError, InputError) as error:
            notes.append(f"{pair.baseline.name} -> {pair.candidate.name}: no divergence, {error}")
        later = {id(m) for other in pairs[at + 1 :] for m in (other.baseline.model, other.candidate.model)}
        for model in (pair.baseline.model, pair.candidate.model):
            if id(model) not in later:
                model.close()
    return out, notes


def _diverged(pair: Pair, answers: Answers, analysis: Analysis, how: Elicitation | None, tell: Tell, notes: list[str]) -> list[Entry]:
    """Entries of one pair; by samples, with a note, where models that share a tokenizer have outputs of different sizes."""
    try:
        return divergence_entries(pair, along(pair, answers, tell), analysis, how)
    except InputError as error:
        if pair.way is not Way.WHOLE:
            raise
        notes.append(f"{pair.baseline.name} -> {pair.candidate.name}: divergence from samples, not over the vocabulary: {error}")
    pair = replace(pair, way=Way.SAMPLED)
    return divergence_entries(pair, along(pair, answers, tell), analysis, how)


def _facts(plan: Plan, arm: ArmPlan, known: dict[str, object]) -> LogFacts:
    directions = {(task.name, metric): higher for task, _ in plan.tasks for metric, higher in task.higher_is_better.items()}
    labels = {name for sitting in arm.sittings for name in sitting.question.labels}
    clustered = any(sitting.question.cluster is not None for sitting in arm.sittings)
    how = next(a.elicitation for a in plan.study.arms if a.name == arm.name)
    settings = {
        "model": known,
        "elicitation": None if how is None else how.model_dump(mode="json"),
        "tasks": {task.name: dict(task.facts) for task, _ in plan.tasks},
    }
    facts = LogFacts(
        higher_is_better=directions,
        labels=labels,
        auto_cluster="cluster" if clustered and plan.study.analysis.cluster is None else None,
        settings=settings,
    )
    for sitting in arm.sittings:
        options = [len(want.choices) for want in sitting.question.wants if isinstance(want, Choose)]
        if not any(isinstance(want, Write) for want in sitting.question.wants):
            facts.chosen.add(sitting.task)
        if len(options) == len(sitting.question.wants) == 1 and options[0] > 1:
            for task, metric in directions:
                if task == sitting.task and metric.split(",", 1)[0] in ("acc", "acc_norm"):
                    facts.guess(task, metric, options[0])
    return facts
