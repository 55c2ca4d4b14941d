"""The tax of a safety objective, told from the base model alone (imports torch): how much of its direction lies in what tasks need.

What is estimated, at one layer that is chosen on prompts that are used for nothing else:

- the **safety direction**: mean state after unsafe prompts less the mean state after safe ones, at the last token of a prompt (what is added to a state
  to make a request look unsafe, and so to have it refused); of preferences the mean gradient of the log-odds of the chosen answer less that of the rejected one;
- a **capability direction** per task: the mean gradient of the log-odds of its right answers;
- the **tax rate**: the share of the safety direction's squared length inside the span of the capability directions, corrected for the noise of all of
  them (``stats.directions``), beside what directions of random concepts give, estimated in the same way;
- the **signed overlap** with every task: above 0 a step towards safety raises the task, below 0 it lowers it.

Every set of prompts is used once: one half of the safety prompts for the choice of the layer, the other for the directions; one half of a task's items for
its gradient, the other for the states from which random concepts are made.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, stdtrit

from aligntax.core.errors import InputError
from aligntax.core.words import cut, items_text, printable
from aligntax.flow.collect import prompt_of
from aligntax.predict.inputs import Capability, Objective, Request, divided, groups_of, halves, sample
from aligntax.predict.reading import Tokens, gradients, hidden_states
from aligntax.predict.results import MIN_CONCEPTS, AtLayer, ChosenBy, Concepts, Settings, TaskRisk, TaxPrediction
from aligntax.stats.directions import MIN_BLOCKS, MIN_CAPABILITY_RELIABILITY, CrossFit, Sample, SignedOverlap, cross_fitted, tax_rate
from aligntax.stats.multiplicity import holm

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

MAX_LAYERS = 12
"""Layers that are looked at; of a deeper model so many, evenly spread."""
MIN_ITEMS = 16
"""Items of a task, for its gradient; with fewer it is left out."""
_RARE = 0.15
"""A word that fewer prompts have, or nearly all, is no concept to tell them apart by."""

FloatArray = npt.NDArray[np.float64]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class _Rows:
    """States or gradients by row, all layers that are looked at.

    Attributes:
        x: (N, L, D).
        groups: (N,) labels.
    """

    x: npt.NDArray[np.float32]
    groups: npt.NDArray[np.object_]

    def at(self, layer: int) -> FloatArray:
        return self.x[:, layer].astype(np.float64)


def predict_tax(
    model: HFModel, objective: Objective, tasks: Sequence[Capability], settings: Settings | None = None, tell: Tell = lambda *_: None
) -> TaxPrediction:
    """What a base model says of the tax of a safety objective.

    Args:
        model: the base model, local.
        objective: what safety training would teach.
        tasks: what it should not cost.
        settings: how.
        tell: progress: what, done, of how many.

    Raises:
        InputError: if there are too few prompts or tasks, or a state or gradient is no number.
    """
    want = settings or Settings()
    objective, tasks, shared = divided(objective, tasks, want.seed)
    notes = [*objective.notes, *shared]
    parts = _parts(tasks, want, notes)
    deep = int(model.local.model.config.get_text_config().num_hidden_layers)
    layers = _layers(deep, want.layer)
    choosing, safety = _safety(model, objective, layers, want, tell, notes)
    found = {name: _gradients(model, rows, layers, want, partial(tell, name), name) for name, (rows, _) in parts.items()}
    chosen, chosen_by = _chosen(layers, choosing, deep, want.layer)
    at = layers.index(chosen)
    _keep_reliable(found, safety, at, want, notes)
    fits = []
    for number, layer in enumerate(layers):
        try:
            fit = _fitted(_contrast(safety, number), found, number, want)
        except ValueError as error:
            if layer == chosen:
                raise InputError(f"layer {layer} of {printable(model.name)}: {error}") from None
            notes.append(f"layer {layer} tells nothing: {error}")
            continue
        reliability, z = choosing[number] if choosing else (None, None)
        fits.append(AtLayer(layer, reliability, z, fit))
    fit = next(one.fit for one in fits if one.layer == chosen)
    concepts = _concepts(model, parts, found, chosen, at, want, fit, tell)
    risks = _risks(found, fit, at)
    if concepts.p is None:
        notes.append(
            f"only {len(concepts.rates)} random concepts could be made from the tasks' prompts (of {concepts.tried} tried), too few to say whether safety is special: "
            f"{MIN_CONCEPTS} are needed, from more items or more varied tasks"
        )
    return TaxPrediction(
        model.name, dict(model.identity), objective.name, want.template, tuple(fits), chosen, chosen_by,
        safety[0].x.shape[2], tuple(risks), concepts, len(safety[0].x), len(safety[1].x) if len(safety) > 1 else 0, want, tuple(notes),
    )  # fmt: skip


def _risks(found: Mapping[str, tuple[_Rows, FloatArray]], fit: CrossFit, at: int) -> list[TaskRisk]:
    """Tasks, those that a step towards safety lowers most first."""
    adjusted = holm([_p(one, fit) for one in fit.overlaps]) if fit.overlaps else []
    risks = [
        TaskRisk(
            name,
            fit.overlaps[n] if fit.overlaps else None,
            float(adjusted[n]) if fit.overlaps else None,
            float(fit.capability_reliabilities[n]),
            float(np.linalg.norm(rows.at(at).mean(axis=0))),
            float(np.mean(values)),
            len(values),
        )
        for n, (name, (rows, values)) in enumerate(found.items())
    ]
    return sorted(risks, key=lambda r: (r.overlap is None, r.overlap.cosine if r.overlap else 0.0, r.task))


def _p(overlap: SignedOverlap, fit: CrossFit) -> float:
    """Two-sided, from the jackknife interval."""
    df = fit.blocks - 1
    half = (overlap.high - overlap.low) / 2
    return 1.0 if half <= 0 else float(2 * stdtr(df, -abs(overlap.cosine) / half * stdtrit(df, (1 + fit.level) / 2)))


def _layers(deep: int, wanted: int | None) -> list[int]:
    """Layers to look at: 0 to ``deep``, or some of them, evenly spread."""
    if wanted is not None and not 0 <= wanted <= deep:
        raise InputError(f"--layer lies between 0 (the embeddings) and {deep}; got {wanted}")
    some = range(deep + 1) if deep < MAX_LAYERS else sorted({round(deep * k / (MAX_LAYERS - 1)) for k in range(MAX_LAYERS)})
    return sorted({*some, *([] if wanted is None else [wanted])})


def _chosen(layers: Sequence[int], choosing: Sequence[tuple[float, float]], deep: int, wanted: int | None) -> tuple[int, ChosenBy]:
    """The layer to read: as somebody says, else where the safety direction is farthest from nothing on prompts of their own, else three fifths of the way."""
    if wanted is not None:
        return wanted, "you"
    inner = [at for at, layer in enumerate(layers) if 0 < layer < deep] or [*range(len(layers))]
    if choosing:
        return layers[max(inner, key=lambda at: choosing[at][1])], "data"
    return layers[min(inner, key=lambda at: abs(layers[at] - 0.6 * deep))], "rule"


def _keep_reliable(found: dict[str, tuple[_Rows, FloatArray]], safety: Sequence[_Rows], at: int, want: Settings, notes: list[str]) -> None:
    """Leave out tasks whose direction is mostly noise at the layer that was chosen: they would make the whole span one.

    Raises:
        InputError: if none is left, or the directions cannot be compared at all.
    """
    try:
        fit = _fitted(_contrast(safety, at), found, at, want)
    except ValueError as error:
        raise InputError(str(error)) from None
    for name, reliability in zip(list(found), fit.capability_reliabilities.tolist(), strict=True):
        if not reliability >= MIN_CAPABILITY_RELIABILITY:
            count = len(found.pop(name)[1])
            more = "" if reliability <= 0 else f", about {_more(reliability):.1f} times as many items would do"
            notes.append(
                f"{printable(name)} left out: the direction of its {count} items has reliability {reliability:.2f}, and {MIN_CAPABILITY_RELIABILITY:.2f} is needed{more}"
            )
    if not found:
        raise InputError(f"no task has a direction that can be told from noise; use more items ({notes[-1]})")


def _fitted(safety: Sample, found: Mapping[str, tuple[_Rows, FloatArray]], at: int, want: Settings) -> CrossFit:
    """The tax rate at one layer; what is said of a direction names its task.

    Raises:
        ValueError: if the directions cannot be compared.
    """
    tasks = [*found]

    def named(text: str) -> str:
        return re.sub(r"capability (\d+) \(counted from 0\)", lambda m: f"the direction of {printable(tasks[int(m[1])])}", text)

    try:
        fit = cross_fitted(safety, [_sample(rows, at) for rows, _ in found.values()], level=want.level)
    except ValueError as error:
        raise ValueError(named(str(error))) from None
    return fit if fit.reason is None else replace(fit, reason=named(fit.reason))


def _more(reliability: float) -> float:
    """How many times as many rows a reliability of two thirds takes (Spearman and Brown 1910)."""
    odds = MIN_CAPABILITY_RELIABILITY / (1 - MIN_CAPABILITY_RELIABILITY)
    return odds * (1 - reliability) / reliability


def _parts(tasks: Sequence[Capability], want: Settings, notes: list[str]) -> dict[str, tuple[list[Request], list[Request]]]:
    """By task: items for its gradient, and items for random concepts; whole groups in either.

    Raises:
        InputError: if no task has enough.
    """
    out = {}
    for task in tasks:
        rows = sample(task.requests, want.items, want.seed, task.name)
        one, two = halves(rows, f"{want.seed} {task.name}")
        if len(one) < MIN_ITEMS or len(groups_of(one)) < MIN_BLOCKS:
            notes.append(
                f"{printable(task.name)} left out: {items_text(len(rows))} in {len(groups_of(rows))} groups; a direction and its null take {2 * MIN_ITEMS} items in "
                f"{2 * MIN_BLOCKS} groups"
            )
        else:
            out[task.name] = (one, two)
    if not out:
        raise InputError(
            f"no task has the {2 * MIN_ITEMS} items in {2 * MIN_BLOCKS} groups that a direction and its null take; name tasks with more"
        )
    return out


# -- directions ----------------------------------------------------------------------------------------------------------------


def _safety(
    model: HFModel, objective: Objective, layers: Sequence[int], want: Settings, tell: Tell, notes: list[str]
) -> tuple[list[tuple[float, float]], list[_Rows]]:
    """(reliability and z by layer on the half that chooses it, rows of the other half by class); all rows and no choice where groups are too few to halve."""
    sides = {
        what: sample(side, want.prompts, want.seed, what) for what, side in (("unsafe", objective.unsafe), ("safe", objective.safe)) if side
    }
    few = min(len(groups_of(side)) for side in sides.values())
    if few < MIN_BLOCKS:
        raise InputError(
            f"{printable(objective.name)}: {few} independent groups of prompts on one side, and {MIN_BLOCKS} are needed (prompts of one group share a template or a source)"
        )
    if few < 2 * MIN_BLOCKS or want.layer is not None:
        if want.layer is None:
            notes.append(f"the layer was not chosen by the data: {few} independent groups of prompts on one side are too few to be halved")
        return [], [_read(model, objective, side, what, layers, want, tell) for what, side in sides.items()]
    split = {what: halves(side, f"{want.seed} {what}") for what, side in sides.items()}
    first, second = ([_read(model, objective, part[half], what, layers, want, tell) for what, part in split.items()] for half in (0, 1))
    return [_quality(first, at) for at in range(len(layers))], second


def _read(
    model: HFModel, objective: Objective, rows: Sequence[Request], what: str, layers: Sequence[int], want: Settings, tell: Tell
) -> _Rows:
    """States after prompts of one class; of preferences gradients."""
    if not objective.is_preference:
        return _states(model, rows, layers, want, partial(tell, f"{what} prompts"), ("safety", what))
    chosen, rejected = (
        _gradients(model, rows, layers, want, partial(tell, name), "safety", [str(getattr(one, key)) for one in rows])[0]
        for name, key in (("chosen", "wanted"), ("rejected", "unwanted"))
    )
    return _Rows(chosen.x - rejected.x, chosen.groups)


def _quality(rows: Sequence[_Rows], at: int) -> tuple[float, float]:
    """(reliability, z) of a safety direction; nothing of a state that is the same after every prompt."""
    positive = rows[0].at(at)
    negative, other = (rows[1].at(at), rows[1].groups) if len(rows) > 1 else (np.zeros_like(positive), rows[0].groups)
    try:
        found = tax_rate(positive, negative, np.eye(positive.shape[1], 1), (rows[0].groups, other))
    except ValueError:
        return 0.0, 0.0
    return found.reliability, found.z


def _contrast(rows: Sequence[_Rows], at: int) -> Sample:
    if len(rows) == 1:
        return Sample(rows[0].at(at), None, rows[0].groups)
    return Sample(rows[0].at(at), rows[1].at(at), rows[0].groups, rows[1].groups)


def _sample(rows: _Rows, at: int) -> Sample:
    return Sample(rows.at(at), None, rows.groups)


def _labels(rows: Sequence[Request], what: str, name: str) -> npt.NDArray[np.object_]:
    """Groups, of which tasks may share some; who has none is alone under its task's name."""
    out = np.empty(len(rows), dtype=object)
    out[:] = [f"{what}: {one.group}" if one.group is not None else f"{what} {name}: alone {n}" for n, one in enumerate(rows)]
    return out


def _prompt(model: HFModel, one: Request) -> Tokens:
    return prompt_of(model, one.wording).tokens or ()


def _example(model: HFModel, one: Request, answer: str) -> tuple[Tokens, Tokens]:
    ask = model.continuation(prompt_of(model, one.wording), answer)
    return ask.prompt.tokens or (), ask.tokens or ()


def _states(
    model: HFModel, rows: Sequence[Request], layers: Sequence[int], want: Settings, tell: Callable[[int, int], None], names: tuple[str, str]
) -> _Rows:
    """The last token's states of every prompt."""
    x: npt.NDArray[np.float32] | None = None
    done = 0
    for batch in hidden_states(model.local.model, [_prompt(model, one) for one in rows], batch_tokens=want.batch_tokens):
        some = batch.states[:, list(layers), 0]
        x = np.empty((len(rows), *some.shape[1:]), dtype=np.float32) if x is None else x
        x[batch.numbers] = some
        done += len(some)
        tell(done, len(rows))
    assert x is not None  # noqa: S101 - there are rows
    return _Rows(x, _labels(rows, *names))


def _gradients(
    model: HFModel,
    rows: Sequence[Request],
    layers: Sequence[int],
    want: Settings,
    tell: Callable[[int, int], None],
    name: str,
    answers: Sequence[str] | None = None,
) -> tuple[_Rows, FloatArray]:
    """(gradients, log-probabilities) of every request's answer."""
    said = [str(one.wanted) for one in rows] if answers is None else answers
    x: npt.NDArray[np.float32] | None = None
    values = np.empty(len(rows))
    done = 0
    examples = [_example(model, one, answer) for one, answer in zip(rows, said, strict=True)]
    for batch in gradients(model.local.model, examples, head=model.scorer.head, batch_tokens=want.batch_tokens):
        some = batch.gradients[:, list(layers)]
        x = np.empty((len(rows), *some.shape[1:]), dtype=np.float32) if x is None else x
        x[batch.numbers], values[batch.numbers] = some, batch.values
        done += len(some)
        tell(done, len(rows))
    assert x is not None  # noqa: S101 - there are rows
    return _Rows(x, _labels(rows, "safety" if name == "safety" else "task", name)), values


# -- the null ------------------------------------------------------------------------------------------------------------------


def _concepts(
    model: HFModel,
    parts: Mapping[str, tuple[list[Request], list[Request]]],
    found: Mapping[str, tuple[_Rows, FloatArray]],
    layer: int,
    at: int,
    want: Settings,
    fit: CrossFit,
    tell: Tell,
) -> Concepts:
    """Tax rates of random concepts among the items that gradients were not taken of: one task's prompts against another's, and of one task those that hold a word
    against those that do not.
    """
    rows = {
        name: [replace(one, group=f"{name}: {n if one.group is None else one.group}") for n, one in enumerate(part)]
        for name, (_, part) in parts.items()
    }
    states = _states(
        model,
        [one for of in rows.values() for one in of],
        [layer],
        want,
        partial(tell, "prompts of random concepts"),
        ("concept", "concept"),
    )
    task = np.repeat(np.arange(len(rows)), [len(of) for of in rows.values()])
    holds = _told_apart(rows, task)
    names = random.Random(f"{want.seed} concepts").sample(sorted(holds), min(want.concepts, len(holds)))  # noqa: S311 - a sample of concepts
    samples = [_sample(of, at) for of, _ in found.values()]
    rates: dict[str, float] = {}
    x = states.at(0)
    for number, name in enumerate(names, 1):
        one, two = holds[name]
        try:
            rate = cross_fitted(Sample(x[one], x[two], states.groups[one], states.groups[two]), samples, level=want.level).estimate
        except ValueError:
            rate = None  # of too few groups, or of states that are all the same
        if rate is not None:
            rates[name] = rate
        tell("random concepts", number, len(names))
    enough = len(rates) >= MIN_CONCEPTS and fit.estimate is not None
    p = (1 + sum(rate >= (fit.estimate or 0.0) for rate in rates.values())) / (1 + len(rates)) if enough else None
    return Concepts(tuple(rates), tuple(rates.values()), len(names), p)


Masks = tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]


def _told_apart(rows: Mapping[str, Sequence[Request]], task: npt.NDArray[np.int64]) -> dict[str, Masks]:
    """By concept, the two classes of all rows."""
    names = list(rows)
    out: dict[str, Masks] = {f"{a} or {b}": (task == i, task == j) for (i, a), (j, b) in combinations(enumerate(names), 2)}
    for i, name in enumerate(names):
        for word, holds in _words([one.text for one in rows[name]]).items():
            one, two = np.zeros(len(task), dtype=bool), np.zeros(len(task), dtype=bool)
            one[task == i], two[task == i] = holds, ~holds
            out[f"{name} with {word}"] = (one, two)
    return out


def _words(texts: Sequence[str]) -> dict[str, npt.NDArray[np.bool_]]:
    """By word: which texts hold it, of words that tell texts apart; of words that the same texts hold, one."""
    sets = [frozenset(re.findall(r"\w+", text.lower())) for text in texts]
    out: dict[str, npt.NDArray[np.bool_]] = {}
    seen: set[bytes] = set()
    for word in sorted({word for one in sets for word in one}):
        holds = np.array([word in one for one in sets])
        key = np.packbits(holds).tobytes()
        if _RARE <= holds.mean() <= 1 - _RARE and key not in seen:
            out[cut(word, 60)] = holds
            seen.add(key)
    return out
