"""``aligntax``: arguments in, exit codes out (0 done, 1 failed, 2 wrong usage or bad input, 3 a budget is exceeded).

stdout carries data, stderr words and progress. Heavy imports happen inside the command that needs them.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax import __version__
from aligntax.cli import atlas, lab, predict
from aligntax.cli.development import development
from aligntax.cli.exchange import exchange, trend
from aligntax.cli.gate import gate, plan_size
from aligntax.cli.measure import measure, run_study
from aligntax.cli.shared import (
    BootstrapOption,
    ByOption,
    ClusterOption,
    CostsOption,
    DiversityOption,
    EmbedderOption,
    JsonOption,
    JudgeOption,
    KindOption,
    LevelOption,
    MarginOption,
    MarkdownOption,
    RewordingsOption,
    SeedOption,
    drawing,
    key_values,
    metric_scales,
    note,
    print_ledger,
    two_names,
)
from aligntax.core.errors import AligntaxError, InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aligntax.flow.audit import Finding


app = typer.Typer(
    name="aligntax",
    help="Measure what an alignment step cost a language model, from models or from evaluation logs: item by item, with honest intervals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)

app.add_typer(atlas.app, name="atlas")
app.add_typer(lab.app, name="lab")
app.add_typer(predict.app, name="predict")

RunArg = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory that 'aligntax measure', 'run' or 'diff' wrote.", show_default=False)
]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"aligntax {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")] = False,
) -> None:
    """Measure what an alignment step cost a language model."""


@app.command()
def diff(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Log of the base model: file or folder.", show_default=False)],
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="Log of the aligned model.", show_default=False)],
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", metavar="NAME=PATH[@PARENT]", help="A stage between them (repeat); without @PARENT it follows the stage before it."
        ),
    ] = None,
    names: Annotated[str, typer.Option(metavar="A,B", help="Names of the two arms.")] = "base,candidate",
    cluster: ClusterOption = None,
    by: ByOption = None,
    margin: MarginOption = None,
    level: LevelOption = 0.95,
    bootstrap: BootstrapOption = 0,
    seed: SeedOption = 0,
    kind: KindOption = None,
    lower_is_better: Annotated[
        list[str] | None, typer.Option("--lower-is-better", metavar="METRIC", help="A metric for which less is better (repeat).")
    ] = None,
    scale: Annotated[
        list[str] | None,
        typer.Option("--scale", metavar="METRIC=LOW:HIGH", help="Known range of a metric's scores, such as score=1:10 (repeat)."),
    ] = None,
    item: Annotated[str | None, typer.Option("--item", metavar="COL", help="Tables: column that identifies the item [item].")] = None,
    score: Annotated[str | None, typer.Option("--score", metavar="COL", help="Tables: column of scores [score].")] = None,
    task: Annotated[str | None, typer.Option("--task", metavar="COL", help="Tables: column of task names [task].")] = None,
    trial: Annotated[str | None, typer.Option("--trial", metavar="COL", help="Tables: column of trial numbers [trial].")] = None,
    answer: Annotated[str | None, typer.Option("--answer", metavar="COL", help="Tables: column of replies [answer].")] = None,
    outcome: Annotated[str | None, typer.Option("--outcome", metavar="COL", help="Tables: column of outcomes [outcome].")] = None,
    metric: Annotated[str | None, typer.Option("--metric", metavar="COL", help="Tables: column of metric names [metric].")] = None,
    diversity: DiversityOption = None,
    embedder: EmbedderOption = None,
    rewordings: RewordingsOption = False,
    judge: JudgeOption = None,
    costs: CostsOption = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run; default aligntax-runs/<study id>.")] = None,
    json: JsonOption = False,
    markdown: MarkdownOption = False,
) -> None:
    """Compare evaluation logs item by item; no model is run.

    BASE and CANDIDATE are lm-eval folders or samples_*.jsonl, Inspect logs, AlpacaEval annotations, XSTest labels, MMLU-Pro
    outputs, or tables (CSV, TSV, JSON lines, Parquet) with columns item and score and, if there are any, task, cluster,
    answer, outcome, trial, metric, question, target. FILE#NAME names one of several models in a file. Results without
    samples (lm-eval, published tables, leaderboards, serving benchmarks) are compared unpaired. docs/formats.md has all.

    For example:

      aligntax diff base.zip chat.zip --cluster src --by category

      aligntax diff results/base results/dpo --stage sft=results/sft

      aligntax diff base.parquet chat.parquet --item prompt_id --score correct --margin 0.02
    """
    from aligntax.api import DEFAULT_RUNS, analysis_of, costs_of, embedding
    from aligntax.flow.diff import chain, diff_logs
    from aligntax.store.logs import Columns, Want
    from aligntax.store.run import check_target, write_run

    named, embed = embedding(embedder)
    analysis = analysis_of(
        margin, level, cluster, by, key_values(kind, "--kind", "TASK=KIND"), lower_is_better or (), metric_scales(scale), bootstrap, seed,
        diversity=diversity, embedder=named, rewordings=rewordings, judges=key_values(judge, "--judge", "JUDGE=PEOPLE"),
    )  # fmt: skip
    arms = chain(base, candidate, two_names(names), [_stage(s) for s in stage or ()])
    want = Want(cluster, by, Columns(item=item, score=score, task=task, trial=trial, answer=answer, outcome=outcome, metric=metric))
    writes = out is not None or not json
    with _Progress() as say, drawing(writes) as draw, diff_logs(arms, analysis, want, say, embed) as comparison:
        if costs is not None:
            comparison.add(costs_of(costs, comparison.study))
        target = out or DEFAULT_RUNS / comparison.study.id
        if writes:
            say("rendering", 0)
            from aligntax.report.page import render

            check_target(target, comparison.study.id)
            write_run(target, comparison.study, comparison.ledger, comparison.provenance, comparison.rows, lambda: render(comparison, draw))
        left_out = [(arm, text) for arm, facts in comparison.provenance["arms"].items() for text in facts["left_out"]]
    for arm, text in left_out:
        note(f"{arm}: {text}")
    print_ledger(comparison.ledger, json=json, markdown=markdown)
    if writes:
        note(f"report: {target / 'report.html'}")


app.command()(measure)
app.command("run")(run_study)
app.command()(gate)
app.command("plan-size")(plan_size)
app.command()(exchange)
app.command()(trend)
app.command()(development)


@app.command()
def show(
    run: RunArg,
    all_: Annotated[bool, typer.Option("--all", help="Explain subgroups too.")] = False,
    stages: Annotated[
        bool, typer.Option("--stages", help="Print the accounts of the stage tree: changes that add up, shares that multiply up, refunds.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print ledger.json and nothing else.")] = False,
) -> None:
    """Print a run's ledger: the table, what each verdict means, and which doubts there are."""
    from aligntax.store.run import load_run

    stored = load_run(run)
    if not stages:
        print_ledger(stored.ledger, json=json, all_checks=all_)
        return
    from aligntax.core.words import printable
    from aligntax.flow.stages import paths
    from aligntax.report.overview import stages_view
    from aligntax.report.terminal import console

    if json or not paths(stored.study):
        raise InputError(
            "--stages and --json are two views; name one" if json else f"{printable(str(run))} has no path of two stages and more"
        )
    console().print(stages_view(stored.study, stored.ledger))


@app.command()
def flips(
    run: RunArg,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="One task, or a subgroup task/label.")] = None,
    metric: Annotated[str | None, typer.Option(metavar="METRIC", help="Metric key; default the run's first.")] = None,
    pair: Annotated[str | None, typer.Option(metavar="A,B", help="Arms to compare; default the baseline and the candidate.")] = None,
    lost: Annotated[bool, typer.Option("--lost", help="Only items that got worse.")] = False,
    gained: Annotated[bool, typer.Option("--gained", help="Only items that got better.")] = False,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, help="At most so many items: the largest changes, of equal ones an even sample.")
    ] = 20,
    json: Annotated[bool, typer.Option("--json", help="Print JSON lines, texts uncut.")] = False,
) -> None:
    """The items that changed, with both answers, the largest changes first."""
    from dataclasses import asdict
    from json import dumps

    from aligntax.core.words import safe_json
    from aligntax.flow.stored import reopen
    from aligntax.report.terminal import console, flips_view
    from aligntax.store.run import load_run

    stored = load_run(run)
    names = (stored.study.baseline, stored.study.candidate) if pair is None else two_names(pair, "--pair")
    direction = "both" if lost == gained else "lost" if lost else "gained"
    with reopen(stored) as comparison:
        chosen = metric or next((e.metric for e in stored.ledger if e.kind != "format"), "(none)")
        total, found = comparison.flips(*names, chosen, task=task, direction=direction, limit=limit)
    if json:
        for flip in found:
            typer.echo(safe_json(dumps(asdict(flip), ensure_ascii=False)))
        return
    note(f"{total:,} items changed in {chosen}, {names[0]} to {names[1]}" + ("" if direction == "both" else f" ({direction})"))
    console().print(flips_view(found, total))


@app.command()
def report(
    run: RunArg,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to put the page; default the run's report.html.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown for a pull request instead.")] = False,
) -> None:
    """Render a run's report again."""
    from aligntax.store.run import load_run, replace_report, write_text

    stored = load_run(run)
    if markdown:
        print_ledger(stored.ledger, markdown=True)
        return
    from aligntax.flow.stored import reopen
    from aligntax.report.page import render

    with reopen(stored) as comparison:
        page = render(comparison)
    note(f"report: {replace_report(run, page) if out is None else write_text(out, page)}")


@app.command()
def export(
    run: RunArg,
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="csv|inspect|lm-eval",
            help="csv: the ledger, one line per entry. inspect, lm-eval: the samples, a folder of logs per arm.",
            show_default=False,
        ),
    ],
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="File (csv; default stdout) or new folder to write.")] = None,
) -> None:
    """The run in another tool's format.

    For example:

      aligntax export RUN --to inspect --out logs && inspect view --log-dir logs

      aligntax export RUN --to csv > ledger.csv
    """
    from aligntax.report.csv_export import ledger_csv
    from aligntax.store.run import load_run, write_text

    if to not in ("csv", "inspect", "lm-eval"):
        raise InputError(f"--to {to!r} is no format that is written; allowed: csv, inspect, lm-eval")
    if to != "csv":
        _export_logs(run, to, out)
        return
    text = ledger_csv(load_run(run).ledger)
    if out is None:
        sys.stdout.write(text)
    else:
        note(f"written: {write_text(out, text)}")


@app.command()
def demo(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of the run; default aligntax-runs/<study id>.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="The first N items of every task, of up to 300.")] = 120,
    simulated: Annotated[bool, typer.Option("--simulated", help="Compare simulated logs instead: needs no torch, runs no model.")] = False,
) -> None:
    """The main job on the embedded models: base to SFT to DPO, and a clumsy branch, asked raw and in a chat."""
    if not simulated:
        measure("lab:base", "lab:dpo", stage=["clumsy=lab:clumsy@base", "sft=lab:sft"], names="base,dpo", limit=limit, out=out)
        return
    from importlib.resources import as_file, files

    note("simulated logs: drawn from known probabilities, no model was run")
    with as_file(files("aligntax") / "examples") as folder:
        diff(
            folder / "simulated-base.csv",
            folder / "simulated-dpo.csv",
            stage=[f"simulated-sft={folder / 'simulated-sft.csv'}"],
            names="simulated-base,simulated-dpo",
            out=out,
        )


@app.command()
def audit(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Logs, tables, or folders of tables.", show_default=False)],
    json: Annotated[bool, typer.Option("--json", help="Print findings as JSON lines.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if there is anything but what was left out and what is only asked.")
    ] = False,
) -> None:
    """What makes results unsound before they are compared; no model is run.

    In tables: averages that are not the mean of their cells or stand over unequal sets, rows that are another model's to
    the last digit, rows that two models have swapped, cells far off their siblings, cells with two values. In logs:
    duplicated contents, predictions that the text does not yield, labels that look swapped, missing scores; between logs:
    other items, prompts, shots, templates, versions or document hashes; among files of one model each, one far off its
    siblings. FILE#NAME names one of several models in a log.

    For example:

      aligntax audit results/base results/dpo

      aligntax audit card.csv leaderboard.csv
    """
    from aligntax.flow.audit import QUESTIONS
    from aligntax.flow.audit import audit as find

    found = find(paths)
    if json:
        from dataclasses import asdict
        from json import dumps

        for one in found:
            typer.echo(dumps(asdict(one)))
    else:
        _print_findings(found)
    if strict and any(one.what not in QUESTIONS for one in found):
        raise typer.Exit(1)


def _print_findings(found: Sequence[Finding]) -> None:
    from itertools import groupby

    from aligntax.core.words import items_text, printable

    for what, of in groupby(sorted(found, key=lambda one: one.what), key=lambda one: one.what):
        typer.echo(what)
        for one in of:
            typer.echo(f"  {printable(one.where)}: {one.said}")
    note("nothing found" if not found else items_text(len(found), "finding"))


@app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def lm_eval(ctx: typer.Context) -> None:
    """Run lm-eval on this engine: 'lm_eval run --model aligntax' with its own options, tasks and logs.

    For example: aligntax lm-eval --model_args pretrained=lab:base --tasks lab --include_path DIR --log_samples --output_path base
    """
    from aligntax.models import lm_eval_model  # lm-eval finds models that are imported
    from aligntax.store.run import check_writable

    if (place := _option(ctx.args, "--output_path", "-o")) is not None:
        check_writable(Path(place) / "results")  # lm-eval only warns, after hours, that it could not write them

    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # lm-eval's own default is a CUDA device, there or not.
    device = [] if any(arg.split("=")[0] == "--device" for arg in ctx.args) else ["--device", "auto"]
    sys.argv = ["lm_eval", "run", "--model", lm_eval_model.NAME, *device, *ctx.args]
    lm_eval_model.command_line()


@app.command()
def doctor() -> None:
    """What is installed, which extras are missing, and the command that adds them."""
    from aligntax.cli.doctor import report_lines

    for line in report_lines():
        typer.echo(line)


def _option(args: Sequence[str], *names: str) -> str | None:
    """Value of an option that another program reads."""
    for at, arg in enumerate(args):
        name, found, value = arg.partition("=")
        if name in names:
            return value if found else next(iter(args[at + 1 : at + 2]), None)
    return None


def _export_logs(run: Path, to: str, out: Path | None) -> None:
    from aligntax.store.run import load_rows, load_run
    from aligntax.store.writers import write_logs

    if out is None:
        raise InputError(f"--to {to} writes a folder of logs; name it with --out")
    stored = load_run(run)
    known = {(e.task, e.metric): e.higher_is_better for e in stored.ledger if e.higher_is_better is not None}
    with load_rows(stored) as rows:
        written = write_logs(out, to, rows, known, stored.study.id)
    note(f"written: {len(written)} files in {out}")


def _stage(text: str) -> tuple[str, Path, str | None]:
    """NAME=PATH[@PARENT]; an existing path may hold an @ itself."""
    name, found, rest = text.partition("=")
    if not (found and name and rest):
        raise InputError(f"--stage takes NAME=PATH or NAME=PATH@PARENT, got {text!r}")
    path, at, parent = rest.rpartition("@")
    if not at or Path(rest).exists():
        return name, Path(rest), None
    return name, Path(path), parent


class _Progress:
    """A spinner on stderr that says what is being done; nothing when stderr is no terminal."""

    def __enter__(self) -> Callable[[str, int], None]:
        self.status = None
        if sys.stderr.isatty():
            from aligntax.report.terminal import console

            self.status = console(stderr=True).status("starting")
            self.status.start()
        return self.say

    def say(self, what: str, rows: int) -> None:
        if self.status is not None:
            from aligntax.core.words import printable

            self.status.update(printable(what) + (f": {rows:,} rows" if rows else ""))

    def __exit__(self, *error: object) -> None:
        if self.status is not None:
            self.status.stop()


def run() -> None:
    """Entry point: every expected error becomes one sentence on stderr and an exit code."""
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        raise KeyboardInterrupt  # so that half-written folders are removed, as after Ctrl-C

    signal.signal(signal.SIGTERM, stop)
    if sys.stdout is None:  # closed by who called
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - until the process ends
    try:
        code = app(standalone_mode=False)
        sys.stdout.flush()
    except AligntaxError as error:
        note(f"error: {error}")
        code = error.exit_code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of stdout went away, as 'head' does; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _unwritten(error)
    except Exception as error:
        # DuckDB turns a signal that comes during a query into this error.
        interrupted = isinstance(error, RuntimeError) and str(error) == "Query interrupted"
        code = 128 + signal.SIGINT if interrupted else _unexpected(error)
    if stopped:
        code = 128 + stopped[0]
    sys.exit(code if isinstance(code, int) else 0)


def _unwritten(error: OSError) -> int:
    """What was to be printed found no room: said, unless the error is about something else."""
    if error.errno not in (errno.ENOSPC, errno.EBADF, errno.EIO) or error.filename is not None:
        return _unexpected(error)
    note(f"error: the output cannot be written ({error.strerror})")
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - so that nothing is tried again on the way out
    return 1


def _unexpected(error: Exception) -> int:
    """Usage errors of the option parser, and bugs."""
    if hasattr(error, "format_message"):
        command = getattr(getattr(error, "ctx", None), "command_path", "aligntax")
        note(f"error: {error.format_message().replace(chr(10), ' ').rstrip('.')}; see '{command} --help'")
        return int(getattr(error, "exit_code", 2))
    if os.environ.get("ALIGNTAX_TRACEBACK"):
        raise error
    note(
        f"error: aligntax failed unexpectedly ({type(error).__name__}: {error}); set ALIGNTAX_TRACEBACK=1 to see where, and please report it"
    )
    return 1
