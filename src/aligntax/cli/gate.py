"""aligntax gate and aligntax plan-size: a release held to its budget, and how many items that takes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.shared import note, two_names
from aligntax.core.errors import InputError
from aligntax.core.words import exact_text, printable

if TYPE_CHECKING:
    from aligntax.core.study import Study

EXCEEDED = 3
_SMALLEST = 1e-6
"""A loss smaller than that takes more items than there are."""


def gate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    budget: Annotated[Path, typer.Option(metavar="FILE", help="The budget: what may be lost at most, by kind, task and metric.")],
    pair: Annotated[
        list[str] | None, typer.Option(metavar="A,B", help="Arms to hold (repeat); default the baseline and the candidate.")
    ] = None,
    every_stage: Annotated[bool, typer.Option("--every-stage", help="Hold every edge of the stage tree as well.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request or a step's summary.")] = False,
    github: Annotated[
        bool, typer.Option("--github", help="Print GitHub annotations as well; done by itself inside GitHub Actions.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    badge: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a badge: .svg, or .json as shields.io reads it.")] = None,
) -> None:
    """Hold a run to a budget; exit with 3 if it is exceeded.

    A budget is YAML. Each line names a kind, a task or a metric (patterns allowed; what is not named is all of it), the most
    that may be lost (0.01 is a point of an accuracy; 5% is a share of the baseline), and a rule. With ruled_out a loss of that
    size must be ruled out, so that too few items keep the gate shut; with not_shown it must not be shown, so that they open it.
    Means are held; of a time also its p50, p95 or p99 (of: p95), in seconds or as a share of the baseline's.

      confidence: 0.95
      budgets:
        - {kind: performance, lose_at_most: 0.01, rule: ruled_out}
        - {kind: over_refusal, task: "xstest*", lose_at_most: 0.02, rule: not_shown}
        - {metric: request_latency, of: p95, lose_at_most: 10%, rule: ruled_out}

    For example:

      aligntax gate RUN --budget budget.yaml --junit gate.xml --markdown >> "$GITHUB_STEP_SUMMARY"
    """
    from aligntax.core.budget import read_budget
    from aligntax.flow.gate import gate as hold
    from aligntax.report import gate as views
    from aligntax.report.terminal import console
    from aligntax.store.run import load_run, write_text

    if badge is not None and badge.suffix not in (".svg", ".json"):
        raise InputError(f"--badge writes .svg or .json, got {printable(badge.name)}")
    if json and markdown:
        raise InputError("--json and --markdown are two forms of one thing; name one")
    budgets = read_budget(budget)
    stored = load_run(run)
    found = hold(stored.ledger, _pairs(stored.study, pair, every_stage), budgets)
    for path, text in ((junit, views.junit), (badge, views.badge_svg if badge and badge.suffix == ".svg" else views.badge_json)):
        if path is not None:
            write_text(path, text(found))
    if json:
        typer.echo(views.gate_json(found))
    elif markdown:
        typer.echo(views.gate_markdown(found))
    else:
        console().print(views.gate_view(found))
    if github or os.environ.get("GITHUB_ACTIONS") == "true":
        for line in views.github_annotations(found):
            typer.echo(line, err=json or markdown)
    note(views.verdict_line(found))
    if found.exceeded:
        raise typer.Exit(EXCEEDED)


def _pairs(study: Study, named: list[str] | None, every_stage: bool) -> list[tuple[str, str]]:
    known = [arm.name for arm in study.arms]
    pairs = [two_names(one, "--pair") for one in named or ()] or [(study.baseline, study.candidate)]
    for name in (name for pair in pairs for name in pair):
        if name not in known:
            raise InputError(f"no arm {printable(repr(name))}; the run has: {printable(', '.join(known))}")
    if every_stage:
        pairs += [(arm.parent, arm.name) for arm in study.arms if arm.parent is not None]
    return list(dict.fromkeys(pairs))


def plan_size(
    lose_at_most: Annotated[
        list[float], typer.Option("--lose-at-most", metavar="E", help="The loss to rule out (repeat): 0.01 is a point.")
    ],
    changed: Annotated[
        float, typer.Option(metavar="SHARE", help="Items expected to be lost or gained; 0.1 to 0.3 between stages of one model.")
    ] = 0.2,
    true_change: Annotated[float, typer.Option(metavar="C", help="The change that is expected; less than 0 is a loss.")] = 0.0,
    design_effect: Annotated[float, typer.Option(metavar="D", help="Of sources that share items; a run's ledger has it.")] = 1.0,
    confidence: Annotated[float, typer.Option(metavar="L", help="Of the budget.")] = 0.95,
    power: Annotated[float, typer.Option(metavar="P", help="How often the loss is to be ruled out.")] = 0.8,
    run: Annotated[Path | None, typer.Option(metavar="RUN", help="Take all that from this run, entry by entry.")] = None,
) -> None:
    """How many items a budget takes: to rule a loss out, if the change is what is expected.

    For example:

      aligntax plan-size --lose-at-most 0.01 --changed 0.15

      aligntax plan-size --lose-at-most 0.01 --lose-at-most 0.02 --run aligntax-runs/4fba721cb41d7e0a
    """
    from math import ceil

    for name, value in (("--confidence", confidence), ("--power", power)):
        if not 0.5 <= value < 1:
            raise InputError(f"{name} must lie between 0.5 and 1, got {value:g}")
    if not all(_SMALLEST <= loss < float("inf") for loss in lose_at_most):
        raise InputError(f"--lose-at-most must be {_SMALLEST:g} or more, got {', '.join(f'{loss:g}' for loss in lose_at_most)}")
    if run is not None:
        _plan_from(run, lose_at_most, confidence, power)
        return
    from aligntax.stats.planning import items_for

    if not 0 < changed <= 1 or not 0 < design_effect < float("inf") or not -1 <= true_change <= 1:
        raise InputError(
            "--changed is a share between 0 and 1, --design-effect more than 0, --true-change between -1 and 1; "
            f"got {changed:g}, {design_effect:g} and {true_change:g}"
        )
    for loss in lose_at_most:
        try:
            n = items_for(loss, changed, true_change=true_change, confidence=confidence, power=power, design_effect=design_effect)
        except ValueError as error:
            raise InputError(f"--lose-at-most {loss:g}: {error}") from None
        typer.echo(f"{exact_text(loss, 'fraction')}: {ceil(n):,} items")


def _plan_from(run: Path, losses: list[float], confidence: float, power: float) -> None:
    from rich.table import Table
    from rich.text import Text

    from aligntax.core.explain import main_entries
    from aligntax.core.ledger import MEAN_OVER_TASKS
    from aligntax.core.words import count_text
    from aligntax.flow.inversion import inversion_of
    from aligntax.report.terminal import console
    from aligntax.stats.planning import items_needed
    from aligntax.store.run import load_run

    stored = load_run(run)
    pair = (stored.study.baseline, stored.study.candidate)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("task", "metric", "items now", *(f"to rule out {loss:g}" for loss in losses)):
        table.add_column(heading, justify="left" if heading in ("task", "metric") else "right")
    for entry in main_entries(stored.ledger):
        test = inversion_of(entry) if entry.pair == pair and entry.n and entry.verdict and entry.task != MEAN_OVER_TASKS else None
        if test is not None:
            needed = [items_needed(test, entry.n, loss, confidence, power) for loss in losses]
            table.add_row(Text(printable(entry.task)), Text(printable(entry.metric)), f"{entry.n:,}", *(count_text(n) for n in needed))
    if not table.row_count:
        raise InputError(f"{printable(str(run))} has no paired change from {printable(pair[0])} to {printable(pair[1])} to plan from")
    console().print(table)
    note(f"items of the same mix that rule the loss (in each metric's unit) out {100 * power:g} % of the time if nothing changed")
