"""What widths say of a tax, as plain values. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from aligntax.core.words import safe_json
from aligntax.predict.results import Settings, plain
from aligntax.stats.directions import CrossFit
from aligntax.stats.widths import ScalingStudy

SCHEMA = 1
DEPTH = 0.6
"""Where every model is read if nobody says: three fifths of the way, as a single model is where its layer cannot be chosen by data."""


@dataclass(frozen=True)
class ScalingSettings:
    """How models are read.

    Attributes:
        template: ``raw`` or ``chat``.
        prompts: most prompts of either class.
        items: most items of a task, both halves together.
        depth: of the layer that is read, from 0 (the embeddings) to 1 (the last).
        concepts: random concepts for the null; 0 for none.
        level: confidence.
        seed: of what is drawn.
        batch_tokens: of a batch.
    """

    template: str = "raw"
    prompts: int = 512
    items: int = 256
    depth: float = DEPTH
    concepts: int = 60
    level: float = 0.95
    seed: int = 0
    batch_tokens: int = 4096

    def reading(self, layer: int) -> Settings:
        """The same for one model, at one of its layers."""
        return Settings(self.template, self.prompts, self.items, layer, self.concepts, self.level, self.seed, self.batch_tokens)


@dataclass(frozen=True)
class ModelRate:
    """One model.

    Attributes:
        model: its name.
        identity: content of weights and tokenizer.
        width: dimensions of a state.
        layer, depth: that was read; of so many.
        fit: tax rate and overlaps by all tasks that are compared, in their order; None where directions cannot be compared at all.
        reason: why the model is left out; None where it counts.
        p_holm: that an overlap is 0, over the tasks of this model; empty where left out.
        chance: m/d, what as many random directions give.
        adjusted: the tax rate beyond chance, (tau - m/d)/(1 - m/d); None where left out.
        effective: effective number of dimensions of its states; None where they are too few to say.
        concepts: the median rate of random concepts, the same in all models; None without enough of them.
        as_large: share of concepts, safety counted among them, whose rate is as large; None likewise.
        variance: of the rate, as laws are fitted with; None where none is.
    """

    model: str
    identity: Mapping[str, object]
    width: int
    layer: int
    depth: int
    fit: CrossFit | None
    reason: str | None
    p_holm: tuple[float, ...]
    chance: float
    adjusted: float | None
    effective: float | None
    concepts: float | None
    as_large: float | None
    variance: float | None

    @property
    def rate(self) -> float | None:
        """The tax rate; None where the model is left out."""
        return None if self.reason is not None or self.fit is None else self.fit.estimate


@dataclass(frozen=True)
class Band:
    """The packing law at one width, with limits of its mean."""

    at: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Laws:
    """Laws fitted to one measure of width.

    Attributes:
        study: the fits; None where there are fewer than three widths.
        reason: why there is none.
        band: the packing law from the narrowest model to four times the widest.
    """

    study: ScalingStudy | None
    reason: str | None
    band: tuple[Band, ...]


@dataclass(frozen=True)
class Spread:
    """Models of one width.

    Attributes:
        width: theirs.
        models: how many.
        sd: of their rates.
        error: what their errors alone would make of it (root mean square).
        p: that these make it as large.
    """

    width: int
    models: int
    sd: float
    error: float
    p: float


@dataclass(frozen=True)
class Scaling:
    """All of it.

    Attributes:
        objective, template: what was asked.
        tasks: that are compared, the same in all models.
        models: the narrowest first.
        by_width: laws of the tax rate by the number of dimensions.
        by_effective: the same by the effective number of dimensions.
        beyond: laws of the rate beyond chance by the number of dimensions.
        between: how much models differ by more than their errors, as a multiple of the variance that random packing has; None without a fit.
        spreads: widths of which there are several models.
        concepts: random concepts that all models identify.
        concepts_beyond: their rate beyond chance, averaged over models: of the one in the middle. None without enough of them.
        concepts_p: share of them, safety counted among them, whose average is as large; None likewise.
        unsafe, safe: prompts behind the direction.
        settings: how.
        notes: what people should know.
    """

    objective: str
    template: str
    tasks: tuple[str, ...]
    models: tuple[ModelRate, ...]
    by_width: Laws
    by_effective: Laws
    beyond: Laws
    between: float | None
    spreads: tuple[Spread, ...]
    concepts: tuple[str, ...]
    concepts_beyond: float | None
    concepts_p: float | None
    unsafe: int
    safe: int
    settings: ScalingSettings
    notes: tuple[str, ...]

    @property
    def counted(self) -> tuple[ModelRate, ...]:
        """Models that have a rate."""
        return tuple(one for one in self.models if one.rate is not None)


def as_json(found: Scaling) -> str:
    """The text of ``prediction.json``: every number, null where there is none (or no limit)."""
    whole = {"schema": SCHEMA, "kind": "scaling", **asdict(found)}
    return safe_json(json.dumps(plain(whole), indent=1, ensure_ascii=False, allow_nan=False)) + "\n"
