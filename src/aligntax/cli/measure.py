"""``aligntax measure`` and ``aligntax run``: models are asked, and the ledger is made of their answers."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligntax.cli.shared import (
    BootstrapOption,
    ByOption,
    ClusterOption,
    CostsOption,
    DiversityOption,
    EmbedderOption,
    JsonOption,
    KindOption,
    LevelOption,
    MarginOption,
    MarkdownOption,
    RewordingsOption,
    drawing,
    key_values,
    note,
    print_ledger,
    two_names,
)
from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable

if TYPE_CHECKING:
    from aligntax.core.items import Task
    from aligntax.core.study import Analysis
    from aligntax.flow.collect import Tell
    from aligntax.flow.diversity import Embed
    from aligntax.flow.latency import Latency
    from aligntax.flow.measure import ArmSpec, Models, Plan

DivergenceOption = Annotated[
    bool,
    typer.Option(
        "--divergence/--no-divergence", help="Also how far each candidate's distribution is from its baseline's [yes].", show_default=False
    ),
]
LatencyOption = Annotated[
    int | None,
    typer.Option(
        "--latency",
        metavar="N",
        min=1,
        max=1_000_000,
        help="Also time the first N written answers of every task, one at a time, arms in turn; all models are in memory at once meanwhile. "
        "Times are not kept with the answers: a stopped run times anew.",
        show_default=False,
    ),
]
RoundsOption = Annotated[
    int | None,
    typer.Option(
        "--latency-rounds", metavar="R", min=1, max=1000, help="How often each is timed; its median counts [3].", show_default=False
    ),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
BatchOption = Annotated[
    int | None, typer.Option("--batch-tokens", metavar="N", min=1, help="Tokens of a batch [4096]; moves no answer in float32.")
]
ConcurrencyOption = Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Requests under way at an endpoint.")]
AnswersOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Where answers are kept [.answers.sqlite beside the run].", show_default=False)
]
RunOption = Annotated[
    Path | None,
    typer.Option("--out", "--output-path", "--output_path", metavar="DIR", help="Folder of the run; default aligntax-runs/<study id>."),
]
DryRunOption = Annotated[
    bool,
    typer.Option("--dry-run", help="Print what would be asked, and stop. Hub models are fetched and endpoints are asked what they serve."),
]

ANSWERS = ".answers.sqlite"
"""File beside the runs in which every answer is kept."""


def measure(
    base: Annotated[str, typer.Argument(metavar="BASE", help="The base model.", show_default=False)],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The model the study is about.", show_default=False)],
    stage: Annotated[
        list[str] | None,
        typer.Option("--stage", metavar="NAME=MODEL[@PARENT]", help="A stage between them, or a branch from the arm PARENT; repeatable."),
    ] = None,
    names: Annotated[str | None, typer.Option(metavar="A,B", help="What to call base and candidate; default their own names.")] = None,
    tasks: Annotated[
        str, typer.Option("--tasks", metavar="TASK,...", help="lab, lab/addition, tasks of --include-path, or lm-eval:NAME.")
    ] = "lab",
    include: Annotated[
        list[Path] | None, typer.Option("--include-path", "--include_path", metavar="DIR", help="A folder of tasks; repeatable.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N items of every task.")] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="raw|chat|both", help="How models are asked [both, or raw where one has no chat template].", show_default=False
        ),
    ] = None,
    apply_chat_template: Annotated[
        bool, typer.Option("--apply-chat-template", "--apply_chat_template", help="The same as --template chat.")
    ] = False,
    shots: Annotated[
        int | None,
        typer.Option("--num-fewshot", "--num_fewshot", metavar="N", min=0, help="Examples before a question [each task's own number]."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system-instruction", "--system_instruction", metavar="TEXT", help="System prompt.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", min=0, help="Sampling temperature [each task's own].")] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="How often each question is asked, up to 10,000.")] = 1,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", metavar="N", min=1, help="Longest answer [each task's own].")] = None,
    cluster: ClusterOption = None,
    by: ByOption = None,
    margin: MarginOption = None,
    level: LevelOption = 0.95,
    kind: KindOption = None,
    bootstrap: BootstrapOption = 0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Seed of sampling and of the bootstrap.")] = 0,
    divergence: DivergenceOption = True,
    latency: LatencyOption = None,
    latency_rounds: RoundsOption = None,
    diversity: DiversityOption = None,
    embedder: EmbedderOption = None,
    rewordings: RewordingsOption = False,
    judge_model: Annotated[
        str | None,
        typer.Option(
            "--judge-model",
            metavar="MODEL",
            help="Model that says what was refused, fully or partly, of tasks of safety and over-refusal; and of tasks of helpfulness which answers are better than the baseline's.",
            show_default=False,
        ),
    ] = None,
    judge_rubric: Annotated[
        str, typer.Option("--judge-rubric", metavar="NAME", help="How it is asked: xstest, or lab for embedded models.")
    ] = "xstest",
    costs: CostsOption = None,
    device: DeviceOption = "auto",
    batch_tokens: BatchOption = None,
    concurrency: ConcurrencyOption = 8,
    answers: AnswersOption = None,
    out: RunOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """Ask models, and compare them item by item.

    A model is lab:NAME (embedded), a folder, a PEFT folder, a hub id (org/name or hf:org/name@revision), or an endpoint
    (api:http://host:8000/v1#model). Options follow after commas: dtype=bfloat16, adapter=DIR, tokenizer=DIR (for endpoints).
    Every answer is kept: a stopped run goes on where it was, and an arm that two studies share is asked once.

    For example:

      aligntax measure lab:base lab:sft

      aligntax measure org/base checkpoints/dpo --stage sft=checkpoints/sft --tasks lm-eval:arc_challenge --num-fewshot 5

      aligntax measure lab:base api:http://127.0.0.1:8000/v1#sft --template chat --dry-run
    """
    from aligntax.api import analysis_of, elicitation_of, embedding
    from aligntax.flow.measure import Models, Options, chosen_templates, stage_tree, tree
    from aligntax.flow.study_file import latency_of
    from aligntax.tasks.find import find_tasks

    named, embed = embedding(embedder, device)
    analysis = analysis_of(
        margin, level, cluster, by, key_values(kind, "--kind", "TASK=KIND"), (), {}, bootstrap, seed, diversity=diversity, embedder=named,
        rewordings=rewordings,
    )  # fmt: skip
    if apply_chat_template and template not in (None, "chat"):
        raise InputError(f"--apply-chat-template is --template chat; it cannot stand beside --template {printable(template)}")
    how = elicitation_of(shots=shots, system=system, max_tokens=max_tokens, temperature=temperature, trials=trials, seed=seed)
    timed = latency_of(None, latency, latency_rounds)
    judge = None if judge_model is None else (judge_model, judge_rubric)
    stages = tree(base, candidate, None if names is None else two_names(names), stage or ())
    found = [(task, limit) for task in find_tasks(tasks.split(","), include or ())]
    with Models(Options(device, batch_tokens, concurrency, say=note)) as models:
        templates, why = chosen_templates("chat" if apply_chat_template else template, stages, models)
        if why:
            note(why)
        specs, contrasts = stage_tree(stages, templates, how)
        carry_out(
            models, specs, contrasts, found, analysis, Output(out, answers, dry_run, json, markdown, divergence, timed, judge, embed, costs)
        )


def run_study(
    study: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="Arms, tasks and analysis.", show_default=False)],
    divergence: DivergenceOption = True,
    latency: LatencyOption = None,
    latency_rounds: RoundsOption = None,
    costs: CostsOption = None,
    device: DeviceOption = "auto",
    batch_tokens: BatchOption = None,
    concurrency: ConcurrencyOption = 8,
    answers: AnswersOption = None,
    out: RunOption = None,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """Measure a study written as YAML.

    \b
    baseline: base-raw
    arms:
      base-raw: {model: "hf:org/name@revision", template: raw, shots: 5}
      sft-chat: {model: checkpoints/sft, template: chat, parent: base-raw, system: "Be helpful."}
      base-guarded:
        model: "hf:org/name@revision"
        shots: 5
        parent: base-raw
        guards: [{name: words, where: input, pattern: "(?i)bomb|poison"}]
    tasks:
      - {use: lab/addition, limit: 200}
      - {use: "lm-eval:arc_challenge", kind: performance}
    analysis: {margin: 0.01, cluster: cluster}
    latency: {prompts: 50, rounds: 3}
    """  # noqa: D301 - the backspace keeps the example's lines apart
    from aligntax.api import analysis_of, embedding
    from aligntax.flow.measure import Models, Options
    from aligntax.flow.study_file import analysis_settings, latency_of, read_study, tasks_of

    asked = read_study(study)
    judge = None if asked.judge is None else (asked.judge.model, asked.judge.rubric)
    timed = latency_of(asked.latency, latency, latency_rounds)
    found, kinds = tasks_of(asked, study.parent)
    named, embed = embedding(asked.analysis.embedder, device)
    analysis = analysis_of(kinds=kinds, seed=asked.seed, embedder=named, **analysis_settings(asked.analysis))
    with Models(Options(device, batch_tokens, concurrency, say=note)) as models:
        carry_out(
            models,
            asked.specs(),
            (),
            found,
            analysis,
            Output(out, answers, dry_run, json, markdown, divergence, timed, judge, embed, costs),
        )


@dataclass(frozen=True)
class Output:
    """Where a run goes and what is printed of it."""

    out: Path | None = None
    answers: Path | None = None
    dry_run: bool = False
    json: bool = False
    markdown: bool = False
    divergence: bool = True
    latency: Latency | None = None
    judge: tuple[str, str] | None = None
    embed: Embed | None = None
    costs: Path | None = None

    @property
    def writes(self) -> bool:
        return (self.out is not None or not self.json) and not self.dry_run


def carry_out(
    models: Models,
    specs: Sequence[ArmSpec],
    contrasts: tuple[tuple[str, str], ...],
    tasks: Sequence[tuple[Task, int | None]],
    analysis: Analysis,
    output: Output,
) -> None:
    """Plan; and unless it is a dry run ask, compare, write and print."""
    from aligntax.api import DEFAULT_RUNS, costs_of, judge_of
    from aligntax.flow.measure import measure as ask
    from aligntax.flow.measure import plan
    from aligntax.store.answers import Answers
    from aligntax.store.run import check_target, check_writable, write_run

    if output.json and output.markdown:
        raise InputError("--json and --markdown are two forms of one output; name one of them")
    planned = plan(specs, contrasts, tasks, analysis, models, output.latency, judge_of(models, output.judge))
    spent = [] if output.costs is None else costs_of(output.costs, planned.study)
    target = output.out or DEFAULT_RUNS / planned.study.id
    store = output.answers or target.parent / ANSWERS
    if output.dry_run:
        with Answers(store if store.exists() else None) as kept:
            _say_plan(planned, kept, target, output.divergence)
        return
    if output.writes:
        check_target(target, planned.study.id)
        check_writable(target)
    with drawing(output.writes) as draw:
        with Answers(store) as kept, progress() as tell:
            comparison = ask(planned, kept, tell, lambda _what, _rows: None, divergence=output.divergence, embed=output.embed)
        with comparison:
            comparison.add(spent)
            for name, about in comparison.provenance["arms"].items():
                for text in about["left_out"]:
                    note(f"{name}: {text}")
            if output.writes:
                from aligntax.report.page import render

                write_run(
                    target, comparison.study, comparison.ledger, comparison.provenance, comparison.rows, lambda: render(comparison, draw)
                )
            print_ledger(comparison.ledger, json=output.json, markdown=output.markdown)
    if output.writes:
        note(f"report: {target / 'report.html'}")


def _say_plan(plan: Plan, answers: Any, target: Path, divergence: bool) -> None:
    """What would be asked: on stdout, a table."""
    from rich.table import Table
    from rich.text import Text

    from aligntax.core.asks import ScoreAsk
    from aligntax.flow.collect import longest
    from aligntax.flow.diverge import calls
    from aligntax.flow.guarded import most_requests
    from aligntax.flow.judging import check_judge
    from aligntax.flow.latency import held, requests_of
    from aligntax.report.terminal import console

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("arm", "model", "template", "questions", "to score", "to write", "known", "prompt tokens", "answer tokens"):
        table.add_column(heading, justify="left" if heading in ("arm", "model", "template") else "right", no_wrap=heading != "model")
    for arm, of in zip(plan.arms, plan.study.arms, strict=True):
        scored = sum(isinstance(ask, ScoreAsk) for ask in arm.requests.values())
        known = len(answers.known(arm.requests))
        given, most = arm.tokens
        cells = (
            arm.name, of.source, of.elicitation.template if of.elicitation else "", f"{len(arm.sittings):,}", f"{scored:,}",
            f"{len(arm.requests) - scored:,}", f"{known:,}", f"{given:,}" if given else "counted by the endpoint", f"<= {most:,}",
        )  # fmt: skip
        table.add_row(*(Text(printable(cell)) for cell in cells))
    screen = console()
    screen.print(table)
    left = [longest(arm, answers) for arm in plan.arms]
    missing, total = sum(count for count, _ in left), sum(len(arm.requests) for arm in plan.arms)
    screen.print(
        f"{items_text(len(plan.tasks), 'task')}, {total:,} requests, {missing:,} of them to be asked; nothing was asked. The run would be {printable(str(target))}"
    )
    for arm in (arm for arm in plan.arms if arm.guards):
        guards = ", ".join(f"{s.name} ({s.guard.where}{'' if s.model is None else f', asks {s.guard.model}'})" for s in arm.guards)
        screen.print(Text(printable(f"{arm.name} is guarded: {guards}; what they block becomes {arm.instead!r}")))
    if plan.judge is not None:
        count, pairs = check_judge(plan.judge, plan.arms, plan.study.analysis.kinds)
        said = [f"says of up to {count:,} answers whether they refuse, by the rubric {plan.judge.rubric.name}"] if count else []
        said += [f"compares up to {pairs:,} answers with those of {plan.arms[0].name}, in both orders"] if pairs else []
        screen.print(Text(printable(f"{plan.judge.model.name} {', and '.join(said)}.")))
    if most := most_requests(plan.arms):
        screen.print(f"Moderators are asked up to {most:,} times more, each once about equal texts.")
    if divergence and (more := calls(plan.study, plan.arms)):
        screen.print(f"Their divergence takes up to {more:,} requests more, which score answers again; --no-divergence leaves it out.")
    if plan.latency is not None:
        timed, warm = requests_of(plan.arms, plan.latency)
        models = len(held(plan.arms))
        screen.print(
            f"Then {timed:,} answers are timed, one at a time ({timed // (len(plan.arms) * plan.latency.rounds):,} prompts, {len(plan.arms)} arms, "
            f"{plan.latency.rounds} rounds), after {warm:,} that are not counted; {models} models are in memory at once meanwhile."
        )
    if missing:
        screen.print(_estimate(left))


def _estimate(left: Sequence[tuple[int, float | None]]) -> str:
    """How long the asking may take, from how fast the models answered before."""
    if any(count and seconds is None for count, seconds in left):
        return "No estimate of the time: not every model has been asked with this file of answers before; --limit 10 asks a few items and makes one."
    seconds = sum(seconds or 0.0 for count, seconds in left if count)
    span = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    return f"At the speed of the last run at most {span}, if every answer takes all the tokens it may."


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar per arm with tokens per second and time left; a line per quarter where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from aligntax.report.terminal import console

    columns = (
        TextColumn("{task.description:16s}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    shown = sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), disable=not shown) as bars:
        rows: dict[str, tuple[TaskID, float]] = {}
        quarters: dict[str, int] = {}

        def tell(arm: str, done: int, total: int, tokens: int) -> None:
            if arm not in rows:
                rows[arm] = bars.add_task(printable(arm), total=total, rate=""), time.monotonic()
                quarters[arm] = 4 * done // max(1, total)
                if done == total:
                    _line(shown, f"{arm}: all {total:,} answers are known")
            row, begun = rows[arm]
            rate = tokens / max(1e-9, time.monotonic() - begun)
            bars.update(row, completed=done, rate=f"{rate:,.0f} tokens/s" if tokens else "")
            if tokens and 4 * done // max(1, total) > quarters[arm]:
                quarters[arm] = 4 * done // max(1, total)
                _line(shown, f"{arm}: {done:,} of {total:,} answers, {rate:,.0f} tokens/s")

        yield tell


def _line(shown: bool, text: str) -> None:
    if not shown:
        note(text)
