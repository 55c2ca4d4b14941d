"""How the tax of a safety objective changes with the width of a model: what packing makes of it, and what stays (imports torch).

**What is compared.** Of every model the debiased tax rate (``stats.directions``) at *one* relative depth, by *one* set of tasks, on the same prompts and items.
A layer that the data choose in each model would be a winner's pick, and would differ in more than width; a rate grows with the number of tasks. So a task whose
direction is mostly noise in any model that counts is left out in all. Directions are read in one half of a task's items, states for random concepts in the other.

**Chance.** m random directions of d dimensions hold m/d of any other: that a tax falls like 1/d says nothing of safety. Beside every rate stand m/d, the rate
beyond it, and the median of the same random concepts in all models.

**Variances.** A rate r that is a squared length has the variance 4 lambda r + c, of which limits tell both parts. Taken at the rate as it was seen, rates that are small
by chance would have small variances and the most weight; so r is that of a first packing law. What models differ by besides their width and the errors of
their rates is in no jackknife. It is taken as a multiple of what random packing makes models of one width differ by, 2m(d - m)/(d^2 (d + 2)), the smallest at
which the most flexible law that can be fitted has residuals as large as their variances (Paule and Mandel 1982, J. Res. Natl. Bur. Stand. 87:377): models of one
width and departures from the law both count, and no law that is compared is favoured. Errors of models are taken as independent although all are asked
the same: on the lab they correlate by about .1.

**Effective dimensions** of states, (tr S)^2/tr(S^2), with both parts unbiased (Himeno and Yamada 2014, J. Multivar. Anal. 130:27): the ratio as it stands
is less than the number of prompts, whatever the states.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from aligntax.core.errors import InputError
from aligntax.core.words import items_text, printable
from aligntax.predict.concepts import class_sums, told_apart
from aligntax.predict.gather import (
    Direction,
    Sides,
    Sums,
    Tell,
    blocks_of,
    named,
    read_direction,
    read_gradients,
    read_states,
    sides_of,
    task_parts,
)
from aligntax.predict.inputs import Capability, Objective, Request, divided
from aligntax.predict.scaling_results import Band, Laws, ModelRate, Scaling, ScalingSettings, Spread
from aligntax.stats.directions import (
    MIN_CAPABILITY_RELIABILITY,
    MIN_RELIABILITY,
    MIN_Z,
    BlockSample,
    CrossFit,
    block_reliability,
    cross_fitted,
    overlap_p,
    point_rate,
)
from aligntax.stats.multiplicity import holm
from aligntax.stats.packing import chance_corrected
from aligntax.stats.paired import critical_value
from aligntax.stats.widths import MIN_WIDTHS, ScalingStudy, fit_widths, packing_variance

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

FIT_WIDTHS = 3
"""With fewer no law is fitted."""
MIN_CONCEPTS = 20
"""Of which a median is told."""
STATES = 512
"""Prompts behind the effective number of dimensions."""
WIDER = 4.0
"""So much wider than the widest model the law is drawn."""

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Asked:
    """What every model is asked.

    Attributes:
        objective, sides: the safety objective, and its prompts by class.
        parts: by task, items for its gradient.
        blocks, count: of all of these; how many.
        others: prompts for random concepts and the effective dimension.
        concepts: by name, where rows of both classes go.
        kept: rows of ``others`` behind the effective dimension.
    """

    objective: Objective
    sides: Sides
    parts: Mapping[str, Sequence[Request]]
    blocks: Mapping[str, IntArray]
    count: int
    others: Sequence[Request]
    concepts: Mapping[str, tuple[Sums, Sums]]
    kept: frozenset[int]

    @property
    def total(self) -> int:
        """Rows that are read of a model."""
        sides = (2 if self.objective.is_preference else 1) * sum(map(len, self.sides.values()))
        return sides + sum(map(len, self.parts.values())) + len(self.others)


@dataclass(frozen=True)
class _Read:
    """What is kept of a model once it is closed: directions by block."""

    name: str
    identity: Mapping[str, object]
    layer: int
    deep: int
    safety: BlockSample
    tasks: Mapping[str, BlockSample]
    concepts: Mapping[str, BlockSample]
    effective: float | None

    @property
    def width(self) -> int:
        return int(self.safety.means.shape[1])


def predict_scaling(
    models: Iterable[HFModel],
    objective: Objective,
    tasks: Sequence[Capability],
    settings: ScalingSettings | None = None,
    tell: Tell = lambda *_: None,
) -> Scaling:
    """How the tax of a safety objective changes over a family of widths.

    Args:
        models: base models of different widths, made alike; one is read before the next is taken, and nothing but sums is kept of it.
        objective: what safety training would teach.
        tasks: what it should not cost; conversations unrendered, so that each model has its own template.
        settings: how.
        tell: progress: model, rows read, of how many.

    Raises:
        InputError: with models of one width only, one model twice, prompts that a model cannot be asked, or nothing that can be told from noise in any of them.
    """
    want = settings or ScalingSettings()
    if not 0 <= want.depth <= 1:
        raise InputError(f"--depth lies between 0 (the embeddings) and 1 (the last layer); got {want.depth:g}")
    objective, tasks, shared = divided(objective, tasks, want.seed)
    notes = [*objective.notes, *shared]
    asked = _asked(objective, tasks, want, notes)
    read: list[_Read] = []
    for model in models:
        check_new(model.name, model.identity, {one.name: one.identity for one in read})
        read.append(_read_model(model, asked, want, tell))
    check_widths({one.name: one.width for one in read})
    read.sort(key=lambda one: one.width)
    weak = {one.name: reason for one in read if (reason := _weakness(one.safety)) is not None}
    if len(weak) == len(read):
        raise InputError(f"in none of the models the safety direction can be told from noise; use more prompts ({_first(weak)})")
    compared = _compared([one for one in read if one.name not in weak], notes)
    rates = [_rate(one, compared, weak.get(one.name), want.level) for one in read]
    if all(one.rate is None for one in rates):
        raise InputError(f"the tax rate is identified in none of the models ({_first({one.model: str(one.reason) for one in rates})})")
    notes += [f"{printable(one.model)} left out: {printable(str(one.reason))}" for one in rates if one.reason is not None]
    notes += [
        f"{printable(one.model)}: in {one.width} dimensions the tasks nearly repeat each other, so that its rate is a little low"
        for one in rates
        if one.rate is not None and one.fit is not None and one.fit.clipped
    ]
    concepts, of_concepts = _concepts(rates, read, compared, notes)
    return _told(rates, concepts, of_concepts, asked, compared, want, notes)


def check_widths(widths: Mapping[str, int]) -> None:
    """Raises: InputError, if models have one width only."""
    if len(set(widths.values())) < 2:
        which = f"; all {len(widths)} have {next(iter(widths.values()))} dimensions" if widths else ""
        raise InputError(
            f"how the tax changes with width takes models of different widths: two to compare, {FIT_WIDTHS} for a law, {MIN_WIDTHS} to compare laws{which}"
        )


def check_new(name: str, identity: Mapping[str, object], known: Mapping[str, Mapping[str, object]]) -> None:
    """Raises: InputError, if a model is there already: as another seed of its width it would count twice."""
    for other, theirs in known.items():
        if name == other or dict(theirs) == dict(identity):
            how = "are named alike" if dict(theirs) != dict(identity) else "are one model"
            raise InputError(f"{printable(other)} and {printable(name)} {how}; name every model once, by folders of different names")


# -- reading -------------------------------------------------------------------------------------------------------------------------


def _asked(objective: Objective, tasks: Sequence[Capability], want: ScalingSettings, notes: list[str]) -> _Asked:
    reading = want.reading(0)  # a layer that is named: all prompts give the direction, and none chooses
    halves = task_parts(tasks, reading, notes)
    _, sides = sides_of(objective, reading, notes)
    parts = {name: rows for name, (rows, _) in halves.items()}
    count, blocks = blocks_of(
        {what: (rows, "safety") for what, rows in sides.items()} | {f"task {name}": (rows, "task") for name, rows in parts.items()}
    )
    others = [one for _, part in halves.values() for one in part]
    task = np.repeat(np.arange(len(halves)), [len(part) for _, part in halves.values()])
    labels = np.array([f"{task[n]}: {one.group if one.group is not None else f'alone {n}'}" for n, one in enumerate(others)], dtype=object)
    draw = random.Random(f"{want.seed} concepts")  # noqa: S311 - a sample of concepts
    holds = told_apart({name: part for name, (_, part) in halves.items()}, task) if want.concepts else {}
    names = draw.sample(sorted(holds), min(want.concepts, len(holds)))
    concepts = {name: made for name in names if (made := class_sums(holds[name], labels)) is not None}
    kept = random.Random(f"{want.seed} states").sample(range(len(others)), min(STATES, len(others)))  # noqa: S311 - a sample of prompts
    if not concepts:  # then nothing else of them is read
        others, kept = [others[n] for n in sorted(kept)], list(range(len(kept)))
    return _Asked(objective, sides, parts, blocks, count, others, concepts, frozenset(kept))


class _Rows(Sums):
    """Some rows as they are, in place of their sums."""

    def __init__(self, kept: frozenset[int], count: int) -> None:
        super().__init__(np.full(count, -1, dtype=np.int64), 1)
        self.kept = kept
        self.rows: dict[int, npt.NDArray[np.float32]] = {}

    def add(self, numbers: IntArray, x: npt.NDArray[np.float32]) -> None:
        self.rows |= {number: x[i, 0].copy() for i, number in enumerate(numbers.tolist()) if number in self.kept}


def _read_model(model: HFModel, asked: _Asked, want: ScalingSettings, tell: Tell) -> _Read:
    """Everything of one model, at the layer nearest to the depth.

    Raises:
        InputError: if it cannot be asked.
    """
    deep = int(model.local.model.config.get_text_config().num_hidden_layers)
    layer = min(range(deep + 1), key=lambda at: abs(at - want.depth * deep))
    reading, told = want.reading(layer), _counted(model.name, asked.total, tell)
    rows = _Rows(asked.kept, len(asked.others))
    concepts = {name: Direction(*(Sums(side.blocks, len(side.counts)) for side in sides)) for name, sides in asked.concepts.items()}
    into = [rows, *(side for one in concepts.values() for side in (one.positive, one.negative) if side is not None)]
    try:
        safety = read_direction(model, asked.objective, asked.sides, asked.blocks, asked.count, [layer], reading, told)
        tasks = {
            name: read_gradients(
                model, items, Sums(asked.blocks[f"task {name}"], asked.count), [layer], reading, lambda *at, name=name: told(name, *at)
            )
            for name, items in asked.parts.items()
        }
        read_states(model, asked.others, into, [layer], reading, lambda *at: told("other prompts", *at))
    except InputError as error:
        raise InputError(f"{printable(model.name)}: {error}") from None
    return _Read(
        model.name, dict(model.identity), layer, deep, safety.at(0), {name: sums.sample(0) for name, sums in tasks.items()},
        {name: _small(one.at(0)) for name, one in concepts.items()}, effective_dimensions(np.array([rows.rows[n] for n in sorted(rows.rows)])),
    )  # fmt: skip


def _counted(name: str, total: int, tell: Tell) -> Tell:
    """One count for all that is read of a model."""
    done: dict[str, int] = {}

    def told(what: str, at: int, _: int) -> None:
        done[what] = at
        tell(name, sum(done.values()), total)

    return told


def _small(sample: BlockSample) -> BlockSample:
    """In half the memory: concepts are many, and are kept of every model until it is known which tasks are compared."""
    return BlockSample(sample.means.astype(np.float32), sample.weights)


def effective_dimensions(rows: npt.ArrayLike) -> float | None:
    """(tr S)^2/tr(S^2) of the covariance of rows (n, d), both parts unbiased; None with fewer than eight rows, or where no spread can be told from noise."""
    x = np.asarray(rows, dtype=np.float64)
    n = len(x)
    if n < 8:
        return None
    x = x - x.mean(axis=0)
    gram = x @ x.T if n < x.shape[1] else x.T @ x
    trace, squares = float(np.trace(gram)) / (n - 1), float(np.sum(gram**2)) / (n - 1) ** 2
    fourth = n * float(np.sum(np.einsum("nd,nd->n", x, x) ** 2)) / (n - 1)
    above = 2 * squares + (n * n - 3 * n + 1) * trace**2 - fourth
    below = (n - 1) * (n - 2) * squares + trace**2 - fourth
    return above / below if above > 0 and below > 0 else None


# -- rates ---------------------------------------------------------------------------------------------------------------------------


def _weakness(safety: BlockSample) -> str | None:
    """Why a safety direction says nothing."""
    reliability, z = block_reliability(safety)
    if reliability >= MIN_RELIABILITY and z >= MIN_Z:
        return None
    return f"not identified: the safety direction has reliability {reliability:.2f} and is {z:.1f} standard errors long; it takes {MIN_RELIABILITY:g} and {MIN_Z:g}"


def _compared(read: Sequence[_Read], notes: list[str]) -> list[str]:
    """Tasks that can be told from noise in every model.

    Raises:
        InputError: if there is none.
    """
    kept = []
    for name in read[0].tasks:
        noisy = {one.name: r for one in read if not (r := block_reliability(one.tasks[name])[0]) >= MIN_CAPABILITY_RELIABILITY}
        if not noisy:
            kept.append(name)
            continue
        which = ", ".join(f"{printable(model)} {reliability:.2f}" for model, reliability in noisy.items())
        notes.append(
            f"{printable(name)} left out in all models: the reliability of its direction is below {MIN_CAPABILITY_RELIABILITY:.2f} in {which}"
        )
    if not kept:
        raise InputError(f"no task has a direction that can be told from noise in all models that count; use more items ({notes[-1]})")
    return kept


def _rate(one: _Read, tasks: Sequence[str], reason: str | None, level: float) -> ModelRate:
    """A model's rate by all tasks; left out where it is not identified, or where so many tasks span everything."""
    m, fit = len(tasks), None
    if m >= one.width:
        reason = reason or f"{m} tasks in {one.width} dimensions span everything: the tax rate is 1 whatever is measured"
    else:
        try:
            fit = cross_fitted(one.safety, [one.tasks[name] for name in tasks], level=level)
        except ValueError as error:
            reason = reason or named(str(error), tasks)
        else:
            reason = reason or (None if fit.reason is None else named(fit.reason, tasks))
    known = reason is None and fit is not None and fit.estimate is not None
    return ModelRate(
        model=one.name,
        identity=one.identity,
        width=one.width,
        layer=one.layer,
        depth=one.deep,
        fit=fit,
        reason=reason,
        p_holm=tuple(float(p) for p in holm([overlap_p(overlap, fit) for overlap in fit.overlaps])) if known and fit is not None else (),
        chance=min(1.0, m / one.width),
        adjusted=float(chance_corrected(fit.estimate, m, one.width)) if known and fit is not None and fit.estimate is not None else None,
        effective=one.effective,
        concepts=None,
        as_large=None,
        variance=None,
    )


def _concepts(
    rates: Sequence[ModelRate], read: Sequence[_Read], tasks: Sequence[str], notes: list[str]
) -> tuple[tuple[str, ...], FloatArray]:
    """Random concepts that every model that counts identifies, and their rates (models, concepts): of other concepts in each, medians would differ by which they are."""
    counted = [one for one, rate in zip(read, rates, strict=True) if rate.rate is not None]
    found = [
        {name: rate for name, sample in one.concepts.items() if (rate := _concept(sample, [one.tasks[task] for task in tasks])) is not None}
        for one in counted
    ]
    common = tuple(name for name in read[0].concepts if all(name in of for of in found)) if found else ()
    if len(common) < MIN_CONCEPTS:
        if found and read[0].concepts:
            notes.append(
                f"{items_text(len(common), 'random concept')} could be told from noise in every model, and {MIN_CONCEPTS} are needed to say how they change with width"
            )
        return (), np.zeros((len(found), 0))
    return common, np.array([[of[name] for name in common] for of in found])


def _concept(sample: BlockSample, tasks: Sequence[BlockSample]) -> float | None:
    try:
        return point_rate(sample, tasks)
    except ValueError:
        return None


# -- laws ----------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Points:
    """Models that have a rate; arrays (n,)."""

    widths: FloatArray
    effective: FloatArray
    rates: FloatArray
    growth: FloatArray
    least: FloatArray
    packing: FloatArray

    @property
    def different(self) -> int:
        return len(np.unique(self.widths))


def _told(
    rates: Sequence[ModelRate],
    concepts: tuple[str, ...],
    of_concepts: FloatArray,
    asked: _Asked,
    tasks: Sequence[str],
    want: ScalingSettings,
    notes: list[str],
) -> Scaling:
    """Laws, and all of it."""
    known = [one for one in rates if one.rate is not None]
    points = _points(known, len(tasks))
    few = (
        f"no law is fitted: rates are known at {items_text(points.different, 'width')}, and a law with two parameters takes {FIT_WIDTHS}"
        if points.different < FIT_WIDTHS
        else None
    )
    nothing = Laws(None, few, ())
    by_width = by_effective = beyond = nothing
    between = None
    measured = 4 * points.growth * np.maximum(points.rates, 0.0) + points.least
    if few is None:
        measured, between = model_variance(points.widths, points.rates, points.growth, points.least, points.packing, want.level)
    total = measured + (between or 0.0) * points.packing
    free = 1 - len(tasks) / points.widths
    adjusted = np.array([one.adjusted for one in known], dtype=np.float64)
    if few is None:
        by_width = _laws(points, points.widths, points.rates, total, want.level)
        beyond = _laws(points, points.widths, adjusted, total / free**2, want.level)
        by_effective = (
            _laws(points, points.effective, points.rates, total, want.level)
            if np.isfinite(points.effective).all()
            else replace(nothing, reason="the effective number of dimensions is not known in every model")
        )
    middle, p = _among(adjusted, 1 - (1 - of_concepts) / free[:, None], free**2 / total)
    return Scaling(
        objective=asked.objective.name,
        template=want.template,
        tasks=tuple(tasks),
        models=tuple(_completed(rates, total, of_concepts)),
        by_width=by_width,
        by_effective=by_effective,
        beyond=beyond,
        between=between,
        spreads=_spreads(points, measured),
        concepts=concepts,
        concepts_beyond=middle,
        concepts_p=p,
        unsafe=len(asked.sides["unsafe"]),
        safe=len(asked.sides.get("safe", ())),
        settings=want,
        notes=tuple(notes),
    )


def _completed(rates: Sequence[ModelRate], variances: FloatArray, of_concepts: FloatArray) -> list[ModelRate]:
    """Models with what is known once all are."""
    out, n = [], 0
    for one in rates:
        if one.rate is None:
            out.append(one)
            continue
        of = of_concepts[n]
        middle, share = (float(np.median(of)), float((1 + np.sum(of >= one.rate)) / (1 + len(of)))) if len(of) else (None, None)
        out.append(replace(one, variance=float(variances[n]), concepts=middle, as_large=share))
        n += 1
    return out


def _among(safety: FloatArray, concepts: FloatArray, weights: FloatArray) -> tuple[float | None, float | None]:
    """Rates beyond chance, averaged over models: of the concept in the middle, and the share of concepts, safety counted among them, whose average is as large.

    Args:
        safety: (n,).
        concepts: (n, c).
        weights: (n,) of the models.
    """
    if not concepts.shape[1]:
        return None, None
    means = weights @ concepts / weights.sum()
    return float(np.median(means)), float((1 + np.sum(means >= weights @ safety / weights.sum())) / (1 + len(means)))


def _points(known: Sequence[ModelRate], m: int) -> _Points:
    widths = np.array([one.width for one in known], dtype=np.float64)
    parts = np.array([rate_variance(one.fit) for one in known if one.fit is not None])
    return _Points(
        widths=widths,
        effective=np.array([np.nan if one.effective is None else one.effective for one in known]),
        rates=np.array([one.rate for one in known], dtype=np.float64),
        growth=parts[:, 0],
        least=parts[:, 1],
        packing=packing_variance(widths, 0.0, m),
    )


def rate_variance(fit: CrossFit) -> tuple[float, float]:
    """The lambda and c of the variance 4 lambda r + c that a rate r has, from its limits (``stats.directions``).

    Where the estimate is so far below 0 that limits were cut there, both are a little too large.

    Raises:
        ValueError: of a rate that is not identified.
    """
    if fit.estimate is None or fit.low is None or fit.high is None:
        raise ValueError("a rate that is not identified has no variance")
    t2 = critical_value(fit.level, float(fit.blocks - 1)) ** 2
    middle, half = (fit.low + fit.high) / 2, (fit.high - fit.low) / 2
    return max(middle - fit.estimate, 0.0) / (2 * t2), max((half**2 - middle**2 + fit.estimate**2) / t2, 1e-12)


def model_variance(
    widths: FloatArray, rates: FloatArray, growth: FloatArray, least: FloatArray, packing: FloatArray, level: float
) -> tuple[FloatArray, float]:
    """Variances of rates by their errors (module docstring), and the multiple of ``packing`` that models differ by besides.

    Args:
        widths: (n,), at least three different ones.
        rates: (n,).
        growth: (n,) lambda of ``rate_variance``.
        least: (n,) c of the same.
        packing: (n,) variance that random packing has.
        level: confidence.
    """
    from scipy.optimize import brentq  # slow to import, and only a fit needs it

    measured = 4 * growth * np.maximum(rates, 0.0) + least
    for _ in range(3):
        law = fit_widths(widths, rates, measured, level=level).fits["packing"]
        measured = 4 * growth * np.maximum(law.at(widths), 0.0) + least

    def excess(times: float) -> float:
        fits = fit_widths(widths, rates, measured + times * packing, level=level).fits
        law = fits["power"] if "power" in fits and fits["power"].df > 0 else fits["packing"]
        return law.chi2 - law.df

    if excess(0.0) <= 0:
        return measured, 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 4
    return measured, float(brentq(excess, 0.0, high, xtol=1e-6))


def _laws(points: _Points, at: FloatArray, rates: FloatArray, variances: FloatArray, level: float) -> Laws:
    """Laws by one measure of width; seeds of one width are one width, even where the measure tells them apart."""
    try:
        study = fit_widths(at, rates, variances, level=level)
    except ValueError as error:
        return Laws(None, f"no law is fitted: {error}", ())
    if points.different < MIN_WIDTHS:
        few = f"{points.different} different widths: it takes at least {MIN_WIDTHS} to compare laws"
        study = replace(study, preferred=None, reason=few)
    return Laws(replace(study, widths=points.different), None, _band(study, at))


def _band(study: ScalingStudy, at: FloatArray) -> tuple[Band, ...]:
    """The packing law with the limits of its mean, by the same threshold as those of tau0."""
    law = study.fits["packing"]
    assert law.tau0_interval is not None  # noqa: S101 - the law has one
    design = np.column_stack([np.ones_like(at), 1 / at])
    inverse = np.linalg.inv(design.T @ (design / study.variances[:, None]))
    threshold = ((law.tau0_interval[1] - law.tau0_interval[0]) / 2) ** 2 / inverse[0, 0]
    places = np.geomspace(at.min(), WIDER * at.max(), 49)
    rows = np.column_stack([np.ones_like(places), 1 / places])
    half = np.sqrt(threshold * np.einsum("ni,ij,nj->n", rows, inverse, rows))
    return tuple(Band(*map(float, of)) for of in zip(places, law.at(places), law.at(places) - half, law.at(places) + half, strict=True))


def _spreads(points: _Points, measured: FloatArray) -> tuple[Spread, ...]:
    """Widths of which there are several models."""
    found = []
    for width in np.unique(points.widths):
        where = points.widths == width
        n = int(where.sum())
        if n > 1:
            sd, error = float(points.rates[where].std(ddof=1)), sqrt(float(measured[where].mean()))
            found.append(Spread(int(width), n, sd, error, float(chdtrc(n - 1, (n - 1) * sd**2 / error**2))))
    return tuple(found)


def _first(reasons: Mapping[str, str]) -> str:
    return next(f"{printable(name)}: {printable(reason)}" for name, reason in reasons.items())
