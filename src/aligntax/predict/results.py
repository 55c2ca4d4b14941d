"""What a prediction says, as plain values. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import acos, degrees, isfinite, sqrt
from typing import Any, Literal

import numpy as np

from aligntax.core.words import safe_json
from aligntax.stats.directions import CrossFit, SignedOverlap
from aligntax.stats.frontier import least_change
from aligntax.stats.packing import chance_corrected

SCHEMA = 2
MIN_CONCEPTS = 50
"""Fewer random concepts say nothing of where safety stands among them."""
SHARES = (0.9, 0.95, 0.99, 1.0)
"""Shares of the attainable safety of which is told what they cost."""
MAX_DIMENSION = 1024
"""Up to as many dimensions of a state other metrics are told without being asked for: a covariance has their square."""
Kind = Literal["states", "answers", "preferences"]
"""What a safety direction is made of: mean states after unsafe prompts less those after safe ones; gradients of wanted answers; of chosen answers less rejected ones."""
Wish = Literal["auto", "answers", "states"]
ChosenBy = Literal["data", "you", "rule"]


@dataclass(frozen=True)
class Settings:
    """How a prediction is made.

    Attributes:
        template: ``raw`` or ``chat``.
        prompts: most prompts of either class, both halves together.
        items: most items of a task, both halves together.
        layer: to be read; None chooses one.
        concepts: random concepts for the null.
        place: of the token after which states are read, counted from a prompt's end, -1 and below; None chooses one where the direction is of states, and is -1 elsewhere.
        level: confidence.
        seed: of what is drawn.
        batch_tokens: of a batch.
        answers: what training would have the model say to unsafe prompts of which nothing else is known, in turn.
        step: whether a step of training is taken, and taken back.
        direction: ``states`` whatever is known of answers; ``answers`` takes wanted answers and nothing else; ``auto`` where they are known.
        sweep: tasks, those that safety moves most, of which behaviour is measured too.
        metrics: whether the tax rate is told in other metrics; None where states have up to ``MAX_DIMENSION`` dimensions.
    """

    template: str = "raw"
    prompts: int = 512
    items: int = 256
    layer: int | None = None
    concepts: int = 100
    level: float = 0.95
    seed: int = 0
    batch_tokens: int = 4096
    answers: tuple[str, ...] = ()
    step: bool = True
    metrics: bool | None = None
    sweep: int = 0
    direction: Wish = "auto"
    place: int | None = None


@dataclass(frozen=True)
class AtLayer:
    """One layer.

    Attributes:
        layer: 0 for the embeddings.
        reliability, z: of the safety direction on the half that chose the layer; None where none did.
        fit: tax rate and overlaps on the other half.
    """

    layer: int
    reliability: float | None
    z: float | None
    fit: CrossFit


@dataclass(frozen=True)
class TaskRisk:
    """What a step towards safety does to one task, to first order.

    Attributes:
        task: its name.
        overlap: signed cosine with the safety direction; None where not identified.
        p_holm: that it is 0, over all tasks; None where not identified.
        reliability: of the task's own direction.
        gradient: length of its mean gradient of the log-odds, in nats per token and unit of the state.
        value: mean log-probability of a right answer's token in the base model, in nats.
        items: behind the gradient.
    """

    task: str
    overlap: SignedOverlap | None
    p_holm: float | None
    reliability: float
    gradient: float
    value: float
    items: int


@dataclass(frozen=True)
class Concepts:
    """Tax rates of random concepts, estimated as that of safety is: of mean states one task's prompts against another's, or those with a word against those without;
    of gradients what raises other answers to the same prompts.

    Attributes:
        names, rates: of those that were identified.
        tried: all.
        p: share of them, the safety direction counted among them, whose rate is as large; None with fewer than 50.
    """

    names: tuple[str, ...]
    rates: tuple[float, ...]
    tried: int
    p: float | None


@dataclass(frozen=True)
class InMetric:
    """The tax rate in another metric.

    Attributes:
        name: of the metric.
        told: what it is, and what it was made from.
        fit: None where it cannot be made.
    """

    name: str
    told: str
    fit: CrossFit | None


@dataclass(frozen=True)
class Range:
    """A mean over batches of the objective, with its limits."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskStep:
    """What one step of the optimiser does to one task.

    Attributes:
        task: its name.
        lost: share of answers that are the likeliest before the step and not after it, less those that it brings.
        kl: KL(before || after), in nats per token of the right answers.
        change: of the mean log-probability of the right answers, in nats per token; below 0 is a cost.
        cosine: of the gradients of the task's loss and of the objective's, by all weights.
        norm: length of the gradient of the task's loss.
        value: mean log-probability of a right answer's token in the base model, in nats.
        right: share of items answered rightly in the base model, token by token the likeliest.
        items: how many.
    """

    task: str
    lost: Range
    kl: Range
    change: Range
    cosine: Range
    norm: float
    value: float
    right: float
    items: int


@dataclass(frozen=True)
class OptimiserStep:
    """One step of the optimiser for the objective.

    Attributes:
        size: of the step, in units of the weights.
        batches, batch_size: of the objective.
        held: examples on which the size was chosen.
        loss, after: of these, before and after the step, in nats per token.
        tasks: those that lose most first.
    """

    size: float
    batches: int
    batch_size: int
    held: int
    loss: float
    after: float
    tasks: tuple[TaskStep, ...]


@dataclass(frozen=True)
class BehaviourAngle:
    """The angle between safety and a task, in degrees, as answers show it when states are shifted, beside what directions say.

    Attributes:
        task: its name. towards: which safety direction.
        prompts, items: that were answered.
        budget: the largest shift, as a share of a state's mean length.
        angle, low, high: as answers show it; None where not identified.
        said: as the directions say, corrected for noise. expected: what is left of that in the plane of directions with noise.
        linear: as the gradients of the same prompts say.
        difference, difference_low, difference_high, p: ``angle`` less ``expected``, and that it is 0; None where one of them is missing.
        reasons: why a number is missing.
    """

    task: str
    towards: str
    prompts: int
    items: int
    budget: float
    angle: float | None
    low: float | None
    high: float | None
    said: float | None
    expected: float | None
    linear: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    p: float | None
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ShiftPoint:
    """Where a trained model's own shift lies on the theory's frontier.

    Attributes:
        stage: its name.
        where: which prompts.
        towards: which safety direction.
        prompts: how many.
        size: length of the mean shift, as a share of that of the mean state.
        rate, rate_low, rate_high: share of the shift's squared length in what tasks need; None where not identified.
        safety, safety_low, safety_high: cosine with that direction; None where not identified.
        reason: why it is not identified; None where it is.
    """

    stage: str
    where: str
    towards: str
    prompts: int
    size: float
    rate: float | None
    rate_low: float | None
    rate_high: float | None
    safety: float | None
    safety_low: float | None
    safety_high: float | None
    reason: str | None


@dataclass(frozen=True)
class Used:
    """An item that a prediction has seen: its id, and the beginning of the hash of its content."""

    item: str
    content: str


@dataclass(frozen=True)
class TaxPrediction:
    """All of it.

    Attributes:
        model, objective, template: what was asked.
        identity: content of weights and tokenizer.
        layers: every layer looked at. layer: the one that was chosen.
        chosen_by: ``data``, ``you``, or ``rule``: three fifths of the way, where prompts are too few to choose by.
        dimension: of a state.
        risks: tasks, those that safety lowers most first.
        concepts: the null.
        unsafe, safe: prompts behind the direction.
        settings: how.
        notes: what people should know.
        metrics: the same in other metrics.
        step: the rival of the geometry; None where it was not measured.
        used: by task, the items behind directions and step: what is not to be held against them.
        tasks: names in the order of the overlaps of every fit.
        behaviour: whether the model behaves as its directions say; empty unless asked for.
        made_of: what the safety direction is made of.
    """

    model: str
    identity: Mapping[str, Any]
    objective: str
    template: str
    layers: tuple[AtLayer, ...]
    layer: int
    chosen_by: ChosenBy
    dimension: int
    risks: tuple[TaskRisk, ...]
    concepts: Concepts
    unsafe: int
    safe: int
    settings: Settings
    notes: tuple[str, ...]
    metrics: tuple[InMetric, ...] = ()
    step: OptimiserStep | None = None
    used: Mapping[str, tuple[Used, ...]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    behaviour: tuple[BehaviourAngle, ...] = ()
    made_of: Kind = "states"

    @property
    def fit(self) -> CrossFit:
        """At the layer that was chosen."""
        return next(one.fit for one in self.layers if one.layer == self.layer)

    @property
    def adjusted(self) -> float | None:
        """The tax rate beyond what as many random directions give by chance; None where not identified."""
        return None if self.fit.estimate is None else float(chance_corrected(self.fit.estimate, len(self.risks), self.dimension))

    @property
    def free(self) -> float | None:
        """Share of the attainable safety that costs no task anything, sqrt(1 - tau); None where not identified."""
        return None if self.fit.estimate is None else sqrt(1 - min(1.0, max(0.0, self.fit.estimate)))

    @property
    def angle(self) -> float | None:
        """Between the safety direction and the span of the capabilities, in degrees; None where not identified."""
        return None if self.fit.estimate is None else degrees(acos(sqrt(min(1.0, max(0.0, self.fit.estimate)))))

    @property
    def costs(self) -> dict[float, float]:
        """By share of the attainable safety: the least shift along what tasks need, as a share of the whole shift (theory's tax schedule). Empty where not identified."""
        if self.fit.estimate is None:
            return {}
        alpha = acos(sqrt(min(1.0, max(0.0, self.fit.estimate))))
        return {share: float(least_change(share, alpha)) for share in SHARES}


def as_json(found: TaxPrediction) -> str:
    """The text of ``prediction.json``: every number, null where there is none."""
    whole = {
        "schema": SCHEMA, "kind": "tax", **asdict(found),
        "adjusted": found.adjusted, "free": found.free, "angle_degrees": found.angle, "costs": {f"{share:g}": cost for share, cost in found.costs.items()},
    }  # fmt: skip
    return safe_json(json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, numbers that are none as null: what JSON takes."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not isfinite(value) else value
