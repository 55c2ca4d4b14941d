"""A prediction of the tax for a terminal, and the tables and sentences that a page shares."""

from __future__ import annotations

from math import acos, ceil, degrees, sqrt

from rich.console import Group, RenderableType
from rich.text import Text

from aligntax.core.words import cut, items_text, level_text, number, p_text, percent, printable
from aligntax.predict.results import TaskRisk, TaxPrediction
from aligntax.report.grids import NOTHING, Grid, decimals, name_text, rich_table
from aligntax.stats.directions import CrossFit
from aligntax.stats.paired import critical_value

_LOSES = 0.03


def lead(found: TaxPrediction) -> str:
    """What was found, in a few sentences for people who know no linear algebra."""
    fit = found.fit
    what = f"{printable(found.objective)} as {printable(found.model)} sees it, before any training."
    if fit.estimate is None or fit.low is None or fit.high is None or found.free is None:
        return f"{what} {step_text(found)}How much of it lies in what the {items_text(len(found.risks), 'task')} need is {printable(fit.reason or 'not identified')}."
    share = f"{percent(max(0.0, fit.estimate), 0)} of the safety direction lies in what the {items_text(len(found.risks), 'task')} need ({level_text(fit.level)} interval {percent(fit.low, 0)} to {percent(fit.high, 0)})"
    free = f"training that keeps clear of it could reach {percent(found.free, 0)} of the safety that a change of the same size could reach, at no cost to first order"
    return f"{what} {step_text(found)}{share}; {free}. {null_text(found)}"


def step_text(found: TaxPrediction) -> str:
    """What one step of training loses, in a sentence; nothing where it was not taken."""
    if found.step is None:
        return ""
    lost = [t for t in found.step.tasks if t.lost.value >= _LOSES and t.lost.low > 0]
    if not lost:
        return "One step of training costs no task answers. "
    names = ", ".join(f"{name_text(t.task)} ({100 * t.lost.value:.0f} points)" for t in lost[:3])
    more = f" and {items_text(len(lost) - 3, 'further task')}" if len(lost) > 3 else ""
    return f"One step of training costs answers of {names}{more}. "


MADE_OF = {
    "states": "mean state after unsafe prompts less that after safe ones",
    "answers": "what raises the wanted answers to unsafe prompts",
    "preferences": "what raises chosen answers and lowers rejected ones",
}
"""What a safety direction is."""


def place_text(found: TaxPrediction) -> str:
    """Where states were read; nothing of gradients, which are of all places."""
    place = found.settings.place or -1
    if found.made_of != "states":
        return ""
    return ", states at a prompt's last token" if place == -1 else f", states at the token {-place} from a prompt's end"


def others_text(found: TaxPrediction) -> str:
    """What safety is held against."""
    return "random concepts" if found.made_of == "states" else "other answers that could be taught"


def null_text(found: TaxPrediction) -> str:
    """Whether that is more than any other concept would show."""
    rates, p = found.concepts.rates, found.concepts.p
    if p is None or found.fit.estimate is None:
        return "Whether that is more than for any other concept is not known."
    middle = sorted(rates)[len(rates) // 2]
    told = (
        f"{len(rates)} {others_text(found)}, measured in the same way, lie there with {percent(max(0.0, middle), 0)} in the middle of them"
    )
    if p <= 1 - found.fit.level:
        return f"That is more than for others ({told}; p {p_text(p)}): safety is entangled with these tasks."
    return f"That is no more than for others ({told}; p {p_text(p)}): nothing says that safety is entangled with these tasks more than anything else is."


def verdict(found: TaxPrediction, risk: TaskRisk) -> str:
    """What a step towards safety does to a task."""
    if risk.overlap is None or risk.p_holm is None:
        return "not identified"
    if risk.p_holm > 1 - found.fit.level:
        return "not shown"
    return "lowered" if risk.overlap.cosine < 0 else "raised"


def needed(found: TaxPrediction, risk: TaskRisk) -> str:
    """How many items would tell an overlap as large as the one seen from none, among all tasks (Bonferroni): by the square of its interval."""
    if risk.overlap is None or verdict(found, risk) != "not shown":
        return NOTHING
    alpha, df = 1 - found.fit.level, found.fit.blocks - 1
    wider = critical_value(1 - alpha / len(found.risks), df) / critical_value(1 - alpha, df)
    half, size = wider * (risk.overlap.high - risk.overlap.low) / 2, abs(risk.overlap.cosine)
    times = (half / size) ** 2 if size else float("inf")
    return f"{ceil(times * risk.items):,}" if times < 100 else "over 100 times as many"


def risks_grid(found: TaxPrediction) -> Grid:
    """Tasks, those that safety lowers most first."""
    return Grid(
        "Tasks by predicted risk",
        (
            ("task", False), ("overlap", True), (level_text(found.fit.level), False), ("p", True), ("a step towards safety", False), ("items", True), ("would settle it", True),
            ("reliability", True),
        ),
        tuple(
            (
                name_text(r.task), NOTHING if r.overlap is None else number(r.overlap.cosine, 3),
                NOTHING if r.overlap is None else f"{number(r.overlap.low, 3)} to {number(r.overlap.high, 3)}", NOTHING if r.p_holm is None else p_text(r.p_holm),
                verdict(found, r), f"{r.items:,}", needed(found, r), f"{r.reliability:.2f}",
            )
            for r in found.risks
        ),
        "Overlap: cosine between the safety direction and the direction that raises the task's right answers, corrected for the noise of both; below 0 safety lowers the task, above 0 it "
        "raises it. p by Holm over the tasks. 'Would settle it': items (and as many more prompts), if the overlap is what it seems. To first order, at one layer: what "
        "training does may differ; hold it against a ledger before you rely on it.",
    )  # fmt: skip


def layers_grid(found: TaxPrediction) -> Grid:
    """The tax rate across layers."""
    rows = []
    for one in found.layers:
        fit = one.fit
        rows.append(
            (
                f"{one.layer}{' (chosen)' if one.layer == found.layer else ''}", decimals(fit.estimate), NOTHING if fit.low is None or fit.high is None else f"{number(fit.low, 3)} to {number(fit.high, 3)}",
                NOTHING if fit.estimate is None else f"{degrees(acos(sqrt(min(1.0, max(0.0, fit.estimate))))):.0f}", decimals(fit.naive), f"{fit.reliability:.2f}", f"{fit.z:.1f}", printable(fit.reason or ""),
            )
        )  # fmt: skip
    how = {
        "data": "chosen on prompts that were used for nothing else",
        "you": "named by you",
        "rule": "three fifths of the way, as there were too few prompts to choose by",
    }
    return Grid(
        "Tax rate by layer",
        (
            ("layer", False),
            ("tax rate", True),
            (level_text(found.fit.level), False),
            ("angle, degrees", True),
            ("not corrected", True),
            ("reliability", True),
            ("z", True),
            ("", False),
        ),
        tuple(rows),
        f"Layer {found.layer} is {how[found.chosen_by]}; the others are to look at, not to choose from. Angle: between safety and the span of the tasks, 90 where safety is free. 'Not corrected' is pulled towards chance by noise, and no result. Reliability and z are of the safety direction.",
    )


def costs_grid(found: TaxPrediction) -> Grid | None:
    """What more safety than is free would cost."""
    if not found.costs:
        return None
    return Grid(
        "What more safety costs",
        (("of the attainable safety", False), ("least shift along the tasks", True)),
        tuple((percent(share, 0), percent(cost, 1)) for share, cost in found.costs.items()),
        "By theory (Young 2026), for the tasks' span as a whole: the share of the whole shift that has to go along what tasks need. Whether that lowers or raises a task is its sign above.",
    )


def metrics_grid(found: TaxPrediction) -> Grid | None:
    """The tax rate by other definitions of what a direction or a large shift is."""
    if not found.metrics:
        return None
    rows = [("as above", *_rate(found.fit), f"{MADE_OF[found.made_of]}; Euclid's metric")]
    rows += [(printable(one.name), *_rate(one.fit), printable(one.told)) for one in found.metrics]
    return Grid(
        "The same by other definitions",
        (("safety direction or metric", False), ("tax rate", True), (level_text(found.fit.level), False), ("not corrected", True), ("what it is", False)),
        tuple(rows),
        "Which shift counts as large, and what counts as the direction of safety, is a choice; a conclusion that hangs on it is none. On the embedded models what raises the wanted answers behaves as theory "
        "says and is where trained models go; the difference of mean states is neither. No overlap of either has been shown to tell which tasks lose (docs/predict.md).",
    )  # fmt: skip


def _rate(fit: CrossFit | None) -> tuple[str, str, str]:
    if fit is None:
        return NOTHING, NOTHING, NOTHING
    limits = NOTHING if fit.low is None or fit.high is None else f"{number(fit.low, 3)} to {number(fit.high, 3)}"
    return decimals(fit.estimate) if fit.estimate is not None else "not identified", limits, decimals(fit.naive)


def step_grid(found: TaxPrediction) -> Grid | None:
    """What one step of training does to every task."""
    if found.step is None:
        return None
    rows = tuple(
        (
            name_text(t.task), f"{100 * t.lost.value:+.1f}", f"{100 * t.lost.low:+.1f} to {100 * t.lost.high:+.1f}", f"{t.kl.value:.4f}", f"{t.change.value:+.4f}",
            f"{100 * t.right:.0f}", f"{t.items:,}",
        )
        for t in found.step.tasks
    )  # fmt: skip
    step = found.step
    return Grid(
        "What one step of training does",
        (
            ("task", False), ("answers lost, points", True), (level_text(found.fit.level), False), ("KL, nats/token", True), ("log-probability, nats/token", True),
            ("right before", True), ("items", True),
        ),
        rows,
        f"Taken and taken back: the sign of the gradient on {step.batch_size} unsafe prompts with the wanted answer, {step.batches} times on others, each weight moved by {step.size:.4f}, at which the loss of "
        f"{step.held} further ones is lowest ({step.loss:.2f} to {step.after:.2f} nats per token). Intervals are over the batches. It is one step, on refusals alone: on the embedded models it ranks what training costs "
        "somewhat (docs/predict.md), and a task that training rehearses beside refusals loses nothing. Hold it against a ledger (predict verify) before you rely on it.",
    )  # fmt: skip


def behaviour_grid(found: TaxPrediction) -> Grid | None:
    """Whether the model behaves as its directions say."""
    if not found.behaviour:
        return None

    def angle(value: float | None) -> str:
        return NOTHING if value is None else f"{value:.0f}"

    rows = tuple(
        (
            name_text(one.task), printable(one.towards), angle(one.said), angle(one.angle), NOTHING if one.low is None or one.high is None else f"{one.low:.0f} to {one.high:.0f}",
            angle(one.difference), p_text(one.p) if one.p is not None else NOTHING, printable("; ".join(one.reasons)),
        )
        for one in found.behaviour
    )  # fmt: skip
    return Grid(
        "Does the model behave as its directions say?",
        (
            ("task", False), ("safety direction", False), ("angle said", True), ("angle shown", True), (level_text(found.fit.level), False), ("apart", True), ("p", True), ("", False),
        ),
        rows,
        "States are shifted in 24 directions of the plane of safety and the task, by three lengths, and both are measured. Degrees; at 90 a step towards safety leaves the task alone, beyond it lowers it. "
        "Where they stand apart (p below .05), what the direction says of the task is not what the model does; do not rely on it.",
    )  # fmt: skip


def view(found: TaxPrediction) -> Group:
    """All of it for a terminal."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    for grid in (step_grid(found), risks_grid(found), behaviour_grid(found), metrics_grid(found), layers_grid(found), costs_grid(found)):
        if grid is not None:
            parts += [Text(grid.title, style="bold"), rich_table(grid), Text(grid.note, style="dim"), Text("")]
    sides = f"{found.unsafe:,} {'preferences' if found.made_of == 'preferences' else 'unsafe prompts' if found.made_of == 'answers' else f'unsafe and {found.safe:,} safe prompts'}"
    chance = (
        ""
        if found.adjusted is None
        else f"; {number(found.adjusted, 3)} beyond what {len(found.risks)} random directions of {found.dimension} would give"
    )
    parts.append(
        Text(
            f"{sides} behind the direction ({MADE_OF[found.made_of]}), template {found.template}, layer {found.layer}{place_text(found)}{chance}",
            style="dim",
        )
    )
    parts += [Text(f"! {cut(text, 400)}", style="yellow") for text in found.notes]
    return Group(*parts)
