"""The public Python API: the same verbs as the command line, returning a ``Ledger``. Stands above ``report``."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aligntax.core.errors import InputError
from aligntax.core.guards import Guard
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.study import Analysis, Elicitation, Margin, Scale, Study
from aligntax.core.words import printable

if TYPE_CHECKING:
    from aligntax.core.items import Task
    from aligntax.flow.diversity import Embed
    from aligntax.flow.judging import Judge
    from aligntax.flow.latency import Latency
    from aligntax.flow.measure import ArmSpec, Models

AnyPath = str | PathLike[str]
DEFAULT_RUNS = Path("aligntax-runs")


def diff(
    base: AnyPath,
    candidate: AnyPath,
    *,
    stages: Sequence[tuple[str, AnyPath] | tuple[str, AnyPath, str]] = (),
    names: tuple[str, str] = ("base", "candidate"),
    cluster: str | None = None,
    by: str | None = None,
    margin: float | str | None = None,
    level: float = 0.95,
    bootstrap: int = 0,
    seed: int = 0,
    kinds: Mapping[str, str] | None = None,
    lower_is_better: Sequence[str] = (),
    scales: Mapping[str, tuple[float, float]] | None = None,
    columns: Mapping[str, str] | None = None,
    diversity: bool | None = None,
    embedder: str | None = None,
    rewordings: bool = False,
    judges: Mapping[str, str] | None = None,
    costs: AnyPath | None = None,
    out: AnyPath | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Ledger:
    """What alignment changed, from logs that are already there. Runs no model.

    Args:
        base: log of the base model: a file or folder of lm-eval or MMLU-Pro outputs, or a table (CSV, TSV, JSON lines,
            Parquet) with columns item and score.
        candidate: log of the aligned model.
        stages: (name, log) or (name, log, parent) of stages between or beside them; those without a parent stand
            between base and candidate in the order given.
        names: what to call base and candidate.
        cluster: column of what was sampled or shares text (source document, passage, seed question).
        by: column that splits every task into subgroups.
        margin: the loss that starts to matter, in the metric's unit (accuracies as fractions) or as ``"5%"`` of the
            baseline; by default each kind's own (0.01 for fractions).
        level: confidence level.
        bootstrap: resamples of a percentile cross-check; 0 for none.
        seed: of the bootstrap.
        kinds: overrides of the kind of tasks, by name or pattern.
        lower_is_better: metrics for which less is better.
        scales: known (low, high) range of a metric's scores.
        columns: names of a plain table's columns by role: item, score, task, trial, answer, outcome, metric.
        diversity: True measures how different answers are, to one prompt and across prompts; None only to one prompt, where several answers
            to it were given; False not at all.
        embedder: a local model whose vectors say how far texts are apart; by default TF-IDF vectors.
        rewordings: the items of one cluster are rewordings of one question, whose answers should not differ.
        judges: metrics of judges with the metric of people's labels, of some items, that corrects each.
        costs: file that says what the stages cost to make (docs/development.md); its stages are arms of this study.
        out: folder to write the run to; None writes nothing.
        progress: called with (what is being done, rows so far).

    Returns:
        The ledger: entries for every edge of the stage tree and from base to each arm.

    Raises:
        InputError: on anything wrong with the logs or with what was asked, in one sentence.
    """
    from aligntax.flow.diff import chain, diff_logs
    from aligntax.store.logs import Columns, Want

    named, embed = embedding(embedder)
    analysis = analysis_of(
        margin,
        level,
        cluster,
        by,
        kinds,
        lower_is_better,
        scales,
        bootstrap,
        seed,
        diversity=diversity,
        embedder=named,
        rewordings=rewordings,
        judges=judges,
    )
    unknown = set(columns or {}) - set(Columns.__dataclass_fields__)
    if unknown:
        raise InputError(f"unknown column role {', '.join(sorted(unknown))}; known: {', '.join(Columns.__dataclass_fields__)}")
    tree = chain(Path(base), Path(candidate), names, [(s[0], Path(s[1]), s[2] if len(s) > 2 else None) for s in stages])
    want = Want(cluster=cluster, by=by, columns=Columns(**(columns or {})))
    with diff_logs(tree, analysis, want, progress, embed) as comparison:
        if costs is not None:
            comparison.add(costs_of(Path(costs), comparison.study))
        if out is not None:
            from aligntax.report.page import render
            from aligntax.store.run import check_target, write_run

            check_target(Path(out), comparison.study.id)
            write_run(Path(out), comparison.study, comparison.ledger, comparison.provenance, comparison.rows, lambda: render(comparison))
        return comparison.ledger


def measure(
    base: str,
    candidate: str,
    *,
    stages: Sequence[str] = (),
    names: tuple[str, str] | None = None,
    tasks: str | Sequence[str] = ("lab",),
    include: AnyPath | Sequence[AnyPath] = (),
    limit: int | None = None,
    template: str | None = None,
    shots: int | None = None,
    system: str | None = None,
    temperature: float | None = None,
    trials: int = 1,
    max_tokens: int | None = None,
    guards: Mapping[str, Sequence[Guard]] | None = None,
    instead: str | None = None,
    cluster: str | None = None,
    by: str | None = None,
    margin: float | str | None = None,
    level: float = 0.95,
    bootstrap: int = 0,
    seed: int = 0,
    kinds: Mapping[str, str] | None = None,
    divergence: bool = True,
    latency: int | None = None,
    latency_rounds: int | None = None,
    diversity: bool | None = None,
    embedder: str | None = None,
    rewordings: bool = False,
    judge_model: str | None = None,
    judge_rubric: str = "xstest",
    costs: AnyPath | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,
    concurrency: int = 8,
    answers: AnyPath | None = None,
    out: AnyPath | None = None,
    progress: Callable[[str, int, int, int], None] | None = None,
) -> Ledger:
    """Ask models, and say what alignment changed.

    Args:
        base: the base model: ``lab:base``, a folder, a PEFT folder, ``org/name``, ``hf:org/name@revision`` or ``api:URL#model``.
        candidate: the model the study is about.
        stages: ``NAME=MODEL`` between them, or ``NAME=MODEL@PARENT`` beside them.
        names: what to call base and candidate; by default their own names.
        tasks: ``lab``, ``lab/addition``, tasks of included folders, ``lm-eval:NAME``.
        include: folders of tasks.
        limit: the first so many items of every task.
        template: ``raw``, ``chat`` or ``both``; by default both where every model has a chat template.
        shots: examples before a question; by default each task's own number.
        system: system prompt.
        temperature: of sampling; by default each task's own.
        trials: how often each question is asked.
        max_tokens: longest answer; by default each task's own.
        guards: by name of a model or an arm, what stands between it and its user (docs/guards.md).
        instead: what the user of these arms gets in place of what a guard blocks; by default ``core.guards.INSTEAD``.
        cluster: label of what was sampled or shares text; by default each task's own.
        by: label that splits every task into subgroups.
        margin: the loss that starts to matter, as in ``diff``.
        level: confidence level.
        bootstrap: resamples of a percentile cross-check; 0 for none.
        seed: of sampling and of the bootstrap.
        kinds: overrides of the kind of tasks, by name or pattern.
        divergence: also how far each candidate's distribution is from its baseline's, where both models show theirs.
        latency: time the first so many prompts of every task that are answered in words, one at a time, the arms in turn; all models are then in
            memory at once. None times nothing. Times belong to this run: they are not kept with the answers.
        latency_rounds: how often each of them is timed; 3 if not given.
        diversity: as in ``diff``; several answers to one prompt take ``trials`` and a ``temperature``.
        embedder: as in ``diff``.
        rewordings: as in ``diff``.
        judge_model: model that says what was refused, fully or partly, of tasks of safety and over-refusal, and which answers are better than
            the baseline's, of tasks of helpfulness (docs/refusals.md).
        judge_rubric: how it is asked: ``xstest``, or ``lab`` for embedded models.
        costs: what the stages cost to make (docs/development.md).
        device: ``auto``, ``cpu``, ``cuda``, ...
        batch_tokens: tokens of a batch; moves no answer in float32.
        concurrency: requests under way at an endpoint.
        answers: file in which answers are kept, so that a second run asks only what is new; None keeps them in memory.
        out: folder to write the run to; None writes nothing.
        progress: called with (arm, answers there, answers planned, tokens so far).

    Returns:
        The ledger: entries for every edge of the stage tree, from base to each arm, and divergences.

    Raises:
        InputError: on anything wrong with what was asked, in one sentence.
        MissingExtraError: if what it needs is not installed.
    """
    from aligntax.flow.measure import Models, Options, chosen_templates, stage_tree, tree
    from aligntax.flow.study_file import latency_of
    from aligntax.tasks.find import find_tasks

    named, embed = embedding(embedder, device)
    analysis = analysis_of(
        margin, level, cluster, by, kinds, (), {}, bootstrap, seed, diversity=diversity, embedder=named, rewordings=rewordings
    )
    how = elicitation_of(shots=shots, system=system, max_tokens=max_tokens, temperature=temperature, trials=trials, seed=seed)
    asked = tasks.split(",") if isinstance(tasks, str) else tasks
    folders = [include] if isinstance(include, str | PathLike) else include
    found = [(task, limit) for task in find_tasks(asked, [Path(folder) for folder in folders])]
    timed = latency_of(None, latency, latency_rounds)
    judge = None if judge_model is None else (judge_model, judge_rubric)
    models_of = tree(base, candidate, names, stages)
    with Models(Options(device, batch_tokens, concurrency)) as models:
        templates, _ = chosen_templates(template, models_of, models)
        specs, contrasts = stage_tree(models_of, templates, how)
        specs = _with_guards(specs, guards, instead)
        return _measured(models, specs, contrasts, found, analysis, answers, out, progress, divergence, timed, embed, costs, judge)


def run(
    study: AnyPath,
    *,
    guards: Mapping[str, Sequence[Guard]] | None = None,
    divergence: bool = True,
    latency: int | None = None,
    latency_rounds: int | None = None,
    costs: AnyPath | None = None,
    device: str = "auto",
    batch_tokens: int | None = None,
    concurrency: int = 8,
    answers: AnyPath | None = None,
    out: AnyPath | None = None,
    progress: Callable[[str, int, int, int], None] | None = None,
) -> Ledger:
    """Measure a study written as YAML.

    Args:
        study: the file: baseline, arms, tasks, analysis.
        guards: by name of an arm, guards after those that the file names: functions, which no file can (docs/guards.md).
        divergence: also how far each candidate's distribution is from its baseline's, where both models show theirs.
        latency: time so many prompts of every task, as in ``measure``; None does what the file says.
        latency_rounds: how often each of them is timed; None does what the file says.
        costs: what the stages cost to make (docs/development.md).
        device: ``auto``, ``cpu``, ``cuda``, ...
        batch_tokens: tokens of a batch; moves no answer in float32.
        concurrency: requests under way at an endpoint.
        answers: file in which answers are kept; None keeps them in memory.
        out: folder to write the run to; None writes nothing.
        progress: called with (arm, answers there, answers planned, tokens so far).

    Raises:
        InputError: on anything wrong with the file or with what it asks.
    """
    from aligntax.flow.measure import Models, Options
    from aligntax.flow.study_file import analysis_settings, latency_of, read_study, tasks_of

    asked = read_study(Path(study))
    timed = latency_of(asked.latency, latency, latency_rounds)
    judge = None if asked.judge is None else (asked.judge.model, asked.judge.rubric)
    found, kinds = tasks_of(asked, Path(study).parent)
    named, embed = embedding(asked.analysis.embedder, device)
    analysis = analysis_of(kinds=kinds, seed=asked.seed, embedder=named, **analysis_settings(asked.analysis))
    with Models(Options(device, batch_tokens, concurrency)) as models:
        specs = _with_guards(asked.specs(), guards, None)
        return _measured(models, specs, (), found, analysis, answers, out, progress, divergence, timed, embed, costs, judge)


def _with_guards(specs: Sequence[ArmSpec], guards: Mapping[str, Sequence[Guard]] | None, instead: str | None) -> list[ArmSpec]:
    """The arms, those that are named with more guards: by their own name, or by their model's where it is asked by several templates.

    Raises:
        InputError: if a name is no arm's, or what it names are no guards.
    """
    if guards is None:
        if instead is not None:
            raise InputError("instead is what the user gets in place of what a guard blocks, and there are no guards")
        return list(specs)
    if not isinstance(guards, Mapping):
        raise InputError(f"guards are given by the name of an arm, as {{name: [Guard(...), ...]}}; got a {type(guards).__name__}")
    names = {spec.name for spec in specs}
    models = {spec.name.removesuffix(f"-{spec.how.template}") for spec in specs}
    for name, some in guards.items():
        if name not in names | models:
            raise InputError(
                f"guards are given for {printable(repr(name))}, which is no arm; arms: {printable(', '.join(spec.name for spec in specs))}"
            )
        if not isinstance(some, Sequence) or not all(isinstance(one, Guard) for one in some):
            raise InputError(f"guards of {printable(repr(name))} must be a list of Guard, got {printable(reprlib.repr(some))}")
    out = []
    for spec in specs:
        key = spec.name if spec.name in guards else spec.name.removesuffix(f"-{spec.how.template}")
        if not guards.get(key):
            out.append(spec)
            continue
        given = {**dict(spec.how), "guards": (*spec.how.guards, *guards[key])}
        out.append(replace(spec, how=elicitation_of(**{**given, "instead": spec.how.instead if instead is None else instead})))
    return out


def _measured(
    models: Models,
    specs: Sequence[ArmSpec],
    contrasts: tuple[tuple[str, str], ...],
    tasks: Sequence[tuple[Task, int | None]],
    analysis: Analysis,
    answers: AnyPath | None,
    out: AnyPath | None,
    progress: Callable[[str, int, int, int], None] | None,
    divergence: bool,
    latency: Latency | None,
    embed: Embed | None,
    costs: AnyPath | None,
    judge: tuple[str, str] | None,
) -> Ledger:
    from aligntax.flow.measure import measure as ask
    from aligntax.flow.measure import plan
    from aligntax.store.answers import Answers
    from aligntax.store.run import check_target, write_run

    planned = plan(specs, contrasts, tasks, analysis, models, latency, judge_of(models, judge))
    spent = None if costs is None else costs_of(Path(costs), planned.study)
    if out is not None:
        check_target(Path(out), planned.study.id)

    def silent(*_: object) -> None:
        """Progress that nobody asked for."""

    with (
        Answers(None if answers is None else Path(answers)) as kept,
        ask(planned, kept, progress or silent, silent, divergence=divergence, embed=embed) as comparison,
    ):
        if spent is not None:
            comparison.add(spent)
        if out is not None:
            from aligntax.report.page import render

            write_run(Path(out), comparison.study, comparison.ledger, comparison.provenance, comparison.rows, lambda: render(comparison))
        return comparison.ledger


def load(run: AnyPath) -> Ledger:
    """The ledger of a run directory, its files checked against the manifest.

    Raises:
        RunError: if it is not a complete run.
    """
    from aligntax.store.run import load_run

    return load_run(Path(run)).ledger


def analysis_of(
    margin: float | str | None,
    level: float,
    cluster: str | None,
    by: str | None,
    kinds: Mapping[str, str] | None,
    lower_is_better: Sequence[str],
    scales: Mapping[str, tuple[float, float]] | None,
    bootstrap: int,
    seed: int,
    *,
    diversity: bool | None = None,
    embedder: str | None = None,
    rewordings: bool = False,
    judges: Mapping[str, str] | None = None,
) -> Analysis:
    """Settings as given by a person, checked.

    Raises:
        InputError: naming the setting, what was found and what is allowed.
    """
    if isinstance(margin, float | int) and not margin > 0:
        raise InputError(f"margin must be greater than 0, got {margin}: with a margin of 0 nothing could be ruled out")
    try:
        return Analysis(
            margin=parse_margin(margin),
            level=level,
            cluster=cluster,
            by=by,
            kinds=dict(kinds or {}),
            lower_is_better=tuple(lower_is_better),
            scales={metric: Scale(low=low, high=high) for metric, (low, high) in (scales or {}).items()},
            bootstrap=bootstrap,
            seed=seed,
            diversity=diversity,
            embedder=embedder,
            rewordings=rewordings,
            judges=dict(judges or {}),
        )
    except ValidationError as error:
        raise _sentence(error) from None
    except InputError:
        raise
    except (ValueError, TypeError):
        raise InputError("kinds and scales are mappings: {task: kind}, {metric: (low, high)}") from None


def judge_of(models: Models, named: tuple[str, str] | None) -> Judge | None:
    """The judge model behind (its name, its rubric); None for none.

    Raises:
        InputError: if the model cannot be had, or there is no such rubric.
    """
    if named is None:
        return None
    from aligntax.flow.judging import Judge
    from aligntax.flow.rubrics import rubric_of
    from aligntax.models.references import parse

    return Judge(models(parse(named[0])), rubric_of(named[1]))


def costs_of(path: Path, study: Study) -> list[Entry]:
    """Entries of what a study's stages cost to make.

    Raises:
        InputError: if the file cannot be read, or names a stage that is no arm.
    """
    from aligntax.flow.development import development_entries

    return development_entries(path, study)


def embedding(name: str | None, device: str = "auto") -> tuple[str | None, Embed | None]:
    """(what identifies an embedder, its function); nothing for None.

    Raises:
        InputError: if it names no local model.
        MissingExtraError: if torch or transformers are not installed.
    """
    if name is None:
        return None, None
    from aligntax.models.references import need_torch

    need_torch()
    from aligntax.models.embedding import open_embedder

    return open_embedder(name, device)


def elicitation_of(**given: Any) -> Elicitation:
    """How models are asked, as given by a person, checked.

    Raises:
        InputError: naming the setting, what was found and what is allowed.
    """
    try:
        return Elicitation(**given)
    except ValidationError as error:
        raise _sentence(error) from None


def _sentence(error: ValidationError) -> InputError:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    got = "" if "got" in message else f", got {printable(reprlib.repr(first['input']))[:80]}"
    return InputError(f"{place + ': ' if place else ''}{message}{got}")


def parse_margin(margin: float | str | None) -> Margin | None:
    """A margin in the metric's unit, or a share of the baseline as ``"5%"``.

    Raises:
        InputError: if it is not a positive number.
    """
    if margin is None:
        return None
    text = str(margin).strip()
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise InputError(
            f"margin must be a number greater than 0 (0.01 is one point of an accuracy) or a share like 5%, got {printable(repr(text))}"
        )
    return Margin(value=value, relative=relative)
