"""How a tax changes with width, for a terminal, and the tables and sentences that a page shares."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from statistics import fmean

from rich.console import Group, RenderableType
from rich.text import Text

from aligntax.core.words import cut, items_text, level_text, number, p_text, percent, printable
from aligntax.predict.scaling_results import ModelRate, Scaling
from aligntax.report.grids import NOTHING, Grid, decimals, name_text, rich_table
from aligntax.stats.widths import DECISIVE, ScalingFit, ScalingStudy


def lead(found: Scaling) -> str:
    """What was found, in a few sentences for people who know no linear algebra."""
    what = f"{printable(found.objective)} in wider models, before any training."
    return " ".join([what, *_rates(found), *_beyond(found), *_stays(found)])


def _rates(found: Scaling) -> Iterator[str]:
    """What the rates do, and what chance makes of it."""
    means = by_width(found)
    narrow, wide = next(iter(means)), list(means)[-1]
    tasks, m = items_text(len(found.tasks), "task"), len(found.tasks)
    if narrow == wide:
        yield (
            f"Only at {narrow} dimensions is known how much of the safety direction lies in what the {tasks} need: {percent(max(0.0, means[wide]), 0)}; "
            f"{m} random directions would hold {percent(m / wide, 0)}."
        )
        return
    yield (
        f"Of the safety direction {percent(max(0.0, means[narrow]), 0)} lies in what the {tasks} need in models of {narrow} dimensions, and "
        f"{percent(max(0.0, means[wide]), 0)} in models of {wide}{_falls(found)}. That alone says nothing: {m} random directions would hold "
        f"{percent(m / narrow, 0)} and {percent(m / wide, 0)}, since they are less crowded in wider models."
    )


def _falls(found: Scaling) -> str:
    study = found.by_width.study
    kappa = None if study is None else study.fits["packing"].kappa_interval
    if kappa is None:
        return ""
    return ": it falls with width" if kappa[0] > 0 else ": it rises with width" if kappa[1] < 0 else ", which is no clear change with width"


def _beyond(found: Scaling) -> Iterator[str]:
    """What is left of a rate once chance is taken off, and whether that is more than any other concept has."""
    study = found.beyond.study
    limits = None if study is None else study.fits["constant"].tau0_interval
    if study is None or limits is None:
        yield f"What is beyond chance on average is not known: {printable(found.beyond.reason or '')}."
        return
    level = level_text(study.level)
    told = f"{percent(study.fits['constant'].tau0 or 0.0, 0)} of what chance leaves free, on average over all widths ({level} interval {percent(limits[0], 0)} to {percent(limits[1], 0)})"
    among = concepts_text(found)
    if limits[1] < 0:
        yield f"Beyond chance there is {told}: safety keeps clear of what these tasks need.{among}"
    elif limits[0] <= 0:
        yield f"Beyond chance there is {told}: no more than crowding is shown.{among}"
    else:
        yield f"Beyond chance there is {told}: more than crowding.{among}"


def concepts_text(found: Scaling) -> str:
    """Whether random concepts have as much beyond chance."""
    if found.concepts_beyond is None or found.concepts_p is None:
        return ""
    told = f"{len(found.concepts)} random concepts have {percent(found.concepts_beyond, 0)} in the middle of them, p {p_text(found.concepts_p)}"
    if found.concepts_p <= 1 - found.settings.level:
        return f" That is more than other concepts have ({told}): safety is entangled with these tasks."
    return f" That is no more than other concepts have ({told})."


def _stays(found: Scaling) -> Iterator[str]:
    """What the packing law leaves however wide a model is, and whether the dimensions that states really use say the same."""
    study = found.by_width.study
    law = None if study is None else study.fits["packing"]
    if law is None or law.tau0_interval is None:
        return
    low, high = law.tau0_interval
    told = _tau0(law, found.settings.level)
    if low > 0:
        yield f"However wide the model, something stays, if the law of random packing holds ({told}).{_otherwise(found)}"
    elif high < 0:
        size = "" if law.features is None else f"; gone at about {law.features:,.0f} dimensions"
        yield f"In wide models nothing stays, if the law holds ({told}, below 0 as where directions are packed better than at random{size})."
    else:
        yield f"That anything stays in ever wider models is not shown ({told}, if the law of random packing holds)."


def _otherwise(found: Scaling) -> str:
    """That something stays is not said of the effective dimensions."""
    study = found.by_effective.study
    law = None if study is None else study.fits["packing"]
    if law is None or law.tau0_interval is None or law.tau0_interval[0] > 0:
        return ""
    return f" By the dimensions that states really use, it is not shown ({_tau0(law, found.settings.level)})."


def _tau0(law: ScalingFit, level: float) -> str:
    low, high = law.tau0_interval or (0.0, 0.0)
    return f"{percent(law.tau0 or 0.0, 0)}, {level_text(level)} interval {percent(low, 0)} to {percent(high, 0)}"


def by_width(found: Scaling) -> dict[int, float]:
    """Mean rate by width, the narrowest first."""
    widths = sorted({one.width for one in found.counted})
    return {width: fmean(one.rate or 0.0 for one in found.counted if one.width == width) for width in widths}


def laws_text(study: ScalingStudy | None, reason: str | None) -> str:
    """Which laws are left."""
    if study is None:
        return printable(reason or "")
    if study.reason is not None:
        return f"Nothing is decided: {study.reason}."
    if study.preferred is not None:
        return f"The law preferred is {study.preferred}: every other is worse by more than {DECISIVE:g} in AIC."
    least = min(fit.aic for fit in study.fits.values())
    left, out = (sorted(law for law, fit in study.fits.items() if (fit.aic - least > DECISIVE) == worse) for worse in (False, True))
    told = f"; {' and '.join(out)} {'is' if len(out) == 1 else 'are'} ruled out" if out else ""
    return (
        f"Undecided between {' and '.join(left)}, which are within {DECISIVE:g} in AIC{told}."
        if len(left) > 1
        else f"Left is {left[0]}{told}."
    )


def models_grid(found: Scaling) -> Grid:
    """Every model, those that are left out as well."""
    return Grid(
        "Tax rate by model",
        (
            ("model", False), ("dimensions", True), ("effective", True), ("layer", True), ("tax rate", True), (level_text(found.settings.level), False), ("chance", True),
            ("beyond", True), ("random concepts", True), ("as large", True), ("", False),
        ),
        tuple(_row(one) for one in found.models),
        f"Tax rate: share of the safety direction in what {items_text(len(found.tasks), 'task')} need, corrected for noise. Chance: what as many random directions hold. Beyond: what is more than "
        "that, as a share of what chance leaves free. Random concepts: the median of the same ones in all models; as large: how many of these have at least safety's rate. Effective: dimensions "
        "that the states really use.",
    )  # fmt: skip


def _row(one: ModelRate) -> tuple[str, ...]:
    fit = one.fit
    known = one.rate is not None and fit is not None and fit.low is not None and fit.high is not None
    return (
        name_text(one.model), f"{one.width:,}", decimals(one.effective, 1), f"{one.layer} of {one.depth}", decimals(one.rate),
        f"{number(fit.low, 3)} to {number(fit.high, 3)}" if known and fit is not None and fit.low is not None and fit.high is not None else NOTHING,
        decimals(one.chance), decimals(one.adjusted), decimals(one.concepts), NOTHING if one.as_large is None else percent(one.as_large, 0),
        "" if one.reason is None else "left out",
    )  # fmt: skip


def fits_grid(found: Scaling) -> Grid | None:
    """Laws by each measure of width."""
    measures = (("dimensions", found.by_width), ("effective dimensions", found.by_effective), ("beyond chance", found.beyond))
    rows = []
    for name, laws in measures:
        fits = {} if laws.study is None else laws.study.fits
        for law, fit in fits.items():
            least = min(other.aic for other in fits.values())
            rows.append((name, law, *_parameters(fit), number(fit.aic - least, 1), p_text(fit.fit_p)))
    if not rows:
        return None
    return Grid(
        "Laws",
        (
            ("by", False), ("law", False), ("τ₀", True), (level_text(found.settings.level), False), ("κ", True), (level_text(found.settings.level), False), ("β", True),
            ("AIC", True), ("p of fit", True),
        ),
        tuple(rows),
        "Packing: τ₀ + κ/d. Power: τ₀ + κ d^-β. Constant: τ₀. τ₀ is what stays in ever wider models, below 0 where directions are packed better than at random. By chance alone τ₀ is 0 and κ "
        f"the number of tasks, {len(found.tasks)}; beyond chance is then 0 at every width. AIC: above that of the best law; laws within {DECISIVE:g} are not told apart, and one that holds another as "
        "a special case is hardly ever worse.",
    )  # fmt: skip


def _parameters(fit: ScalingFit) -> tuple[str, str, str, str, str]:
    """τ0, κ and β with limits; where there is no limit the number itself is anything."""
    out: list[str] = []
    for value, limits, places in ((fit.tau0, fit.tau0_interval, 3), (fit.kappa, fit.kappa_interval, 2)):
        if value is None or limits is None:
            out += [NOTHING, NOTHING]
        elif isfinite(limits[0]) and isfinite(limits[1]):
            out += [number(value, places), f"{number(limits[0], places)} to {number(limits[1], places)}"]
        else:
            out += [NOTHING, "no limit"]
    return out[0], out[1], out[2], out[3], decimals(fit.beta, 2) if "no limit" not in out else NOTHING


def overlaps_grid(found: Scaling) -> Grid:
    """Signed overlaps of every task by width, and in how many models they are shown; those that safety lowers most first."""
    widths = sorted({one.width for one in found.counted})
    rows = []
    for n, task in enumerate(found.tasks):
        cosines = {width: fmean(_cosine(one, n) for one in found.counted if one.width == width) for width in widths}
        shown = [_cosine(one, n) for one in found.counted if one.p_holm[n] <= 1 - found.settings.level]
        rows.append((sum(cosines.values()), task, cosines, sum(x < 0 for x in shown), sum(x > 0 for x in shown)))
    rows.sort(key=lambda row: (row[0], row[1]))
    return Grid(
        "Overlaps by width",
        (("task", False), *((f"{width:,}", True) for width in widths), ("lowered in", True), ("raised in", True)),
        tuple(
            (name_text(task), *(number(x, 2) for x in cosines.values()), str(lowered or NOTHING), str(raised or NOTHING))
            for _, task, cosines, lowered, raised in rows
        ),
        f"Cosine between the safety direction and what raises the task's right answers, corrected for noise, the mean of models of one width; below 0 a step towards safety lowers the task. Lowered or "
        f"raised in: models (of {len(found.counted)}) in which that is shown, by Holm over the tasks. An overlap that packing alone makes changes its sign from model to model; one that stays is the data's.",
    )


def _cosine(one: ModelRate, task: int) -> float:
    return 0.0 if one.fit is None else one.fit.overlaps[task].cosine


def between_text(found: Scaling) -> str:
    """How much models differ besides their width."""
    told = [
        f"The {one.models} models of width {one.width} have rates with a standard deviation of {number(one.sd, 3)}, and their errors make {number(one.error, 3)} (p {p_text(one.p)})."
        for one in found.spreads
    ]
    if found.between:
        told.append(
            f"Besides what laws and errors explain, models differ by {percent(found.between**0.5, 0)} of the standard deviation that random packing gives to models of one width. "
            "That is part of the errors by which laws are fitted."
        )
    elif found.between is not None:
        told.append("What the laws leave is no more than the errors of the rates.")
    return " ".join(told)


def view(found: Scaling) -> Group:
    """All of it for a terminal."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    for grid in (models_grid(found), fits_grid(found), overlaps_grid(found)):
        if grid is not None:
            parts += [Text(grid.title, style="bold"), rich_table(grid), Text(grid.note, style="dim"), Text("")]
    sides = f"{found.unsafe:,} unsafe and {found.safe:,} safe prompts" if found.safe else f"{found.unsafe:,} preferences"
    parts.append(Text(f"{sides} behind the direction, template {found.template}, depth {found.settings.depth:g}", style="dim"))
    parts.append(Text(f"{laws_text(found.by_width.study, found.by_width.reason)} {between_text(found)}", style="dim"))
    parts += [Text(f"! {cut(text, 400)}", style="yellow") for text in found.notes]
    return Group(*parts)
