"""Made-up ensembles as tables of ratings: for trying the analysis where the truth is known, and for plans (``stats.ensembles`` draws them)."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np

from aligntax.core.errors import InputError
from aligntax.stats.ensembles import (
    ContrastPower,
    EnsembleDesign,
    SharePower,
    contrast_power,
    draw_ensemble,
    no_real_difference,
    share_power,
)

CONTROL, CONTESTED = "control", "contested"
HETEROGENEITY = 0.4
"""SD of log spread between pairs of one category."""
MEANS = (0.7, 0.5)
"""Mean ratings: contested pairs lie in the middle, where there is more room to differ, as they do in published runs."""


@dataclass(frozen=True)
class MadeUp:
    """What an ensemble is made of.

    Attributes:
        models: how many. pairs: per category. ratio: contested SD over the control's, 1 for none.
        spread: SD of models on a control pair. noise: of one call. repeats: calls per pair, model and order.
        share: of the variance between models over all pairs that an offset between two groups explains, 0 for none; it adds to both categories, so
            that the ratio seen is less.
        null: one mind in all models: whatever is found is found in noise.
        seed: of the draw.
    """

    models: int = 20
    pairs: int = 12
    ratio: float = 2.0
    spread: float = 0.06
    noise: float = 0.02
    repeats: int = 2
    share: float = 0.0
    null: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.models < 4 or self.pairs < 2 or self.repeats < 1:
            raise InputError("a made-up ensemble has 4 models, 2 pairs per category and 1 repeat or more")
        if self.ratio <= 0 or not 0 < self.spread <= 0.3 or not 0 <= self.noise <= 0.3 or not 0 <= self.share < 1:
            raise InputError("--ratio is above 0, --spread above 0 and up to .3, --noise 0 to .3, --share 0 to below 1")


def table(made: MadeUp) -> tuple[str, dict[str, object]]:
    """(ratings as CSV, the truth that an analysis should find).

    Raises:
        InputError: where what is asked for does not fit together.
    """
    groups = tuple(k % 2 for k in range(made.models)) if made.share > 0 else None
    spread = (made.spread, made.spread * made.ratio)
    within = float(np.mean(np.square(spread))) * exp(2 * HETEROGENEITY**2)  # E of a squared log-normal spread
    gap = 2 * sqrt(made.share / (1 - made.share) * within) if groups else 0.0
    design = EnsembleDesign(
        models=made.models,
        pairs=(made.pairs, made.pairs),
        means=MEANS,
        spread=spread,
        heterogeneity=HETEROGENEITY,
        groups=groups,
        group_offsets=(-gap / 2, gap / 2) if groups else (),
        repeats=made.repeats,
        noise_sd=made.noise,
        orders=2,
        order_sd=made.noise / 2,
        step=0.01,
        clip=True,
    )
    drawn = draw_ensemble(no_real_difference(design) if made.null else design, np.random.default_rng(made.seed))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("pair", "category", "model", "rating", "order", "repeat", "group"))
    for p, m, o, r in np.ndindex(drawn.ratings.shape):
        category = (CONTROL, CONTESTED)[int(drawn.category[p])]
        group = "" if groups is None else ("one", "two")[groups[m]]
        writer.writerow(
            (f"pair {p + 1:03d}", category, f"model {m + 1:02d}", f"{drawn.ratings[p, m, o, r]:.2f}", ("AB", "BA")[o], r + 1, group)
        )
    by = {name: float(np.sqrt(np.mean(drawn.spread[drawn.category == k] ** 2))) for k, name in enumerate((CONTROL, CONTESTED))}
    truth: dict[str, object] = {
        "ratio_drawn_from": 1.0 if made.null else made.ratio,
        "rms_sd": by,
        "omega2": drawn.omega2,
        "noise_sd": made.noise,
        "one_mind": made.null,
        "seed": made.seed,
    }
    return out.getvalue(), truth


def contrast_table(
    ratios: Sequence[float],
    models: Sequence[int],
    pairs: Sequence[int],
    *,
    heterogeneity: float,
    family: int,
    alpha: float,
    studies: int,
    seed: int,
) -> dict[tuple[float, int, int], ContrastPower]:
    """Power of every combination.

    Raises:
        InputError: on sizes that no study has.
    """
    rng = np.random.default_rng(seed)
    try:
        return {
            (ratio, m, n): contrast_power(ratio, m, n, rng=rng, heterogeneity=heterogeneity, family=family, alpha=alpha, studies=studies)
            for ratio in ratios
            for m in models
            for n in pairs
        }
    except ValueError as error:
        raise InputError(str(error)) from None


def share_table(
    shares: Sequence[float], models: Sequence[int], *, pairs: int, alpha: float, studies: int, seed: int
) -> Mapping[tuple[float, int], SharePower]:
    """Power of finding that two groups differ, for every share and number of models.

    Raises:
        InputError: on shares or sizes that no study has.
    """
    rng = np.random.default_rng(seed)
    try:
        return {(share, m): share_power(share, m, rng=rng, pairs=pairs, alpha=alpha, studies=studies) for share in shares for m in models}
    except ValueError as error:
        raise InputError(str(error)) from None
