"""A verification for a terminal, and the tables and sentences that its page shares."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from aligntax.core.words import cut, items_text, level_text, number, p_text, percent, printable
from aligntax.predict.results import ShiftPoint
from aligntax.predict.verify import ArmHeld, Verification
from aligntax.report.grids import NOTHING, Grid, decimals, name_text, rich_table

BASELINE = "surprise"
"""What anybody can know of a task without any geometry: how sure the base is of its right answers."""


def lead(found: Verification) -> str:
    """What was found, in a few sentences."""
    tried = f"{len(found.predictors)} predictors that {printable(str(found.prediction['model']))} gave before training"
    tested = [one for one in found.arms if one.leader is not None]
    if not tested:
        return f"{tried} could not be held against what was lost: {printable(found.arms[0].holding.reason or 'not identified')}."
    if found.together:
        best = max(found.together, key=lambda name: found.together[name].spearman)
        of = found.together[best]
        said = f"Over {items_text(len(tested), 'trained model')} and {items_text(len(found.common), 'task')} '{best}' ranks losses best, with a mean rank correlation of {of.spearman:.2f} (p {p_text(of.adjusted_p)} among all that were tried)"
        clear = of.adjusted_p <= 0.05
    else:
        one = tested[0]
        best = str(one.leader)
        held = one.holding.held[best]
        said = f"'{best}' ranks what {printable(one.arm)} lost best, with a rank correlation of {held.spearman:.2f} [{held.low:.2f}, {held.high:.2f}] over {items_text(one.holding.tasks, 'task')} (p {p_text(held.adjusted_p)} among all that were tried)"
        clear = held.adjusted_p <= 0.05
    verdict = "" if clear else " So none of them is shown to tell anything."
    return f"{tried} were held against what was lost. {said}.{verdict} {theory(found)}"


def theory(found: Verification) -> str:
    """What becomes of the theory's own predictor, the overlap of a task with safety."""
    names = [p.name for p in found.predictors if p.family == "geometry" and p.name.startswith("overlap")]
    if found.together:
        shown = [
            name
            for name in names
            if name in found.together and found.together[name].adjusted_p <= 0.05 and found.together[name].spearman > 0
        ]
    else:
        shown = [
            name for one in found.arms for name in names
            if name in one.holding.held and one.holding.held[name].adjusted_p <= 0.05 and one.holding.held[name].spearman > 0
        ]  # fmt: skip
    if shown:
        return f"Of the theory's overlaps {', '.join(repr(name) for name in dict.fromkeys(shown))} {'tells' if len(set(shown)) == 1 else 'tell'} losses."
    return "No overlap of the theory is shown to tell which tasks lose."


def _called(name: str) -> str:
    """A predictor's name, part of which may be somebody's."""
    return cut(printable(name), 80)


def together_grid(found: Verification) -> Grid | None:
    """Every predictor over all arms."""
    if not found.together:
        return None
    arms = [one for one in found.arms if one.holding.held]
    family = {p.name: p.family for p in found.predictors}
    rows = [
        (_called(name), family[name], f"{of.spearman:+.2f}", p_text(of.p), p_text(of.adjusted_p), decimals(of.auc, 2),
         *(f"{one.holding.held[name].spearman:+.2f}" if name in one.holding.held else NOTHING for one in arms))
        for name, of in sorted(found.together.items(), key=lambda pair: -pair[1].spearman)
    ]  # fmt: skip
    return Grid(
        "All trained models together",
        (("predictor", False), ("from", False), ("mean rank correlation", True), ("p", True), ("p, all tried", True), ("AUC", True), *((name_text(one.arm), True) for one in arms)),
        tuple(rows),
        f"Spearman over {items_text(len(found.common), 'task')} that all have (by model: over all of its own), p by permuting tasks in all models alike, then Holm over predictors. AUC: how often a task that lost more than "
        f"{percent(found.margin, 0)} stands above one that did not; .5 is chance. Below 0 a predictor is worse than none, whatever its size: it was not turned round after the fact.",
    )  # fmt: skip


def arm_grid(found: Verification, one: ArmHeld) -> Grid:
    """Every predictor against one arm."""
    family = {p.name: p.family for p in found.predictors}
    rows = []
    for name, held in sorted(one.holding.held.items(), key=lambda pair: -pair[1].spearman):
        rows.append(
            (
                _called(name), family[name], f"{held.spearman:+.2f}", f"{held.low:+.2f} to {held.high:+.2f}", p_text(held.spearman_p), p_text(held.adjusted_p), f"{held.kendall:+.2f}",
                decimals(held.auc, 2), f"{held.calibration.q2:.2f}", NOTHING if name == one.leader else p_text(one.adjusted[name]),
            )
        )  # fmt: skip
    ceiling = "" if one.holding.ceiling is None else f" Errors of the drops alone keep a perfect predictor near {one.holding.ceiling:.2f}."
    note = one.holding.reason or (
        f"{items_text(one.holding.tasks, 'task')}, of which {one.holding.beyond} lost more than {percent(found.margin, 0)}. q2: share of the drops' variance told by a line that has not seen the task; "
        f"at 0 or below the mean tells as much. Last: that the first in the table is no better.{ceiling}"
    )
    headings = (
        ("predictor", False), ("from", False), ("Spearman", True), (level_text(one.holding.level), False), ("p", True), ("p, all tried", True), ("Kendall", True), ("AUC", True), ("q2", True), ("against the first, p", True),
    )  # fmt: skip
    return Grid(f"What {name_text(one.arm)} lost", headings, tuple(rows), note)


def drops_grid(one: ArmHeld, names: tuple[str, ...]) -> Grid:
    """Tasks by what they lost, beside some predictors."""
    rows = tuple(
        (
            name_text(d.task), f"{100 * d.drop:+.1f}", NOTHING if d.low is None or d.high is None else f"{100 * d.low:+.1f} to {100 * d.high:+.1f}", f"{d.items:,}",
            *(f"{d.foretold[name]:+.3f}" if name in d.foretold else NOTHING for name in names),
        )
        for d in one.drops
    )  # fmt: skip
    return Grid(
        f"Tasks of {name_text(one.arm)}",
        (("task", False), ("lost, points", True), ("interval", False), ("items", True), *((_called(name), True) for name in names)),
        rows,
        "Of items that the prediction has not seen; above 0 it got worse.",
    )


def points_grid(points: tuple[ShiftPoint, ...]) -> Grid | None:
    """Where trained models' own shifts lie."""
    if not points:
        return None

    def span(low: float | None, high: float | None) -> str:
        return NOTHING if low is None or high is None else f"{number(low, 2)} to {number(high, 2)}"

    rows = tuple(
        (
            name_text(p.stage), p.where, f"{p.prompts:,}", percent(p.size, 0), printable(p.towards), decimals(p.safety, 2), span(p.safety_low, p.safety_high),
            decimals(p.rate, 2), span(p.rate_low, p.rate_high), printable(p.reason or ""),
        )
        for p in points
    )  # fmt: skip
    return Grid(
        "Where training moved the states",
        (
            ("model", False), ("on", False), ("prompts", True), ("size", True), ("towards", False), ("cosine", True), ("interval", False), ("in what tasks need", True), ("interval", False), ("", False),
        ),
        rows,
        "The mean shift of the hidden states at the prediction's layer. Size: of the mean state's length. Cosine: with the direction named before it, which theory wants near 1; 'safety' is the prediction's own. In what tasks need: "
        "share of its squared length, which theory wants near 0; as many random directions would hold the share that chance gives.",
    )  # fmt: skip


def columns(found: Verification, one: ArmHeld) -> tuple[str, ...]:
    """Predictors beside a task's drop: the leader, the theory's, the plain one."""
    known = {p.name for p in found.predictors}
    return tuple(
        name
        for name in dict.fromkeys((one.leader, "answers lost in a step", "overlap, opposed", BASELINE))
        if name in known and name is not None
    )


def left_out_notes(found: Verification) -> list[str]:
    """Tasks that take no part, by reason."""
    reasons: dict[str, list[str]] = {}
    for task, why in sorted(found.left_out.items()):
        reasons.setdefault(why, []).append(printable(task))
    return [f"{cut(', '.join(tasks), 200)} left out: {printable(why)}" for why, tasks in reasons.items()]


def view(found: Verification) -> Group:
    """All of it for a terminal."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    grids = [together_grid(found), *(arm_grid(found, one) for one in found.arms), points_grid(found.points)]
    for grid in grids:
        if grid is not None:
            parts += [Text(grid.title, style="bold"), rich_table(grid), Text(grid.note, style="dim"), Text("")]
    parts += [Text(f"! {cut(text, 400)}", style="yellow") for text in (*found.notes, *left_out_notes(found))]
    return Group(*parts)
