"""Made-up ensembles whose truth is known, and the power that studies of a given size have.

The rating of pair p by model m is ``pair mean + offset_m + group offset + group x pair + spread_p (sqrt(s) u_m + sqrt(1 - s) e_pm)``, plus half
the model's order effect with its sign, plus noise of each call; u and e are standard normal, log ``spread_p`` is normal about its category's
log spread with SD ``heterogeneity``. With ``link="logit"`` the sum is one of logits (noise included) and the truth is on that scale: the same
disagreement then looks larger where pair means are in the middle, with no category effect at all. Last, ratings are clipped to [0, 1] (if
asked), rounded to ``step``, and refused. Truth is what holds before these three.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import comb
from typing import Literal

import numpy as np
from scipy.special import expit, logit

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.groups import MAX_EXACT, between_groups, label_permutations

_BLOCK_CELLS = 4_000_000  # studies x (ratings or labelings) at a time: about 32 MB


@dataclass(frozen=True)
class EnsembleDesign:
    """What an ensemble is drawn from. Tuples named "per category" have the length of ``pairs``.

    Attributes:
        models: M.
        pairs: pairs per category.
        means: mean of pair means, per category.
        mean_sd: SD of pair means within a category.
        spread: between-model SD of the median pair, per category.
        heterogeneity: SD of log spread between pairs of one category.
        shared: share of a pair's between-model variance (without offsets and groups) that is one trait of the model, the same on every pair.
        offset_sd: SD of models' constant offsets.
        groups: (M,) group of each model, 0..G-1; None without groups.
        group_offsets: constant offset per group.
        group_pair_sd: SD of group x pair effects.
        repeats: calls per pair, model and order.
        noise_sd: SD of one call about the model's own rating.
        orders: 1, or 2 for AB and BA.
        order_sd: SD between models of AB minus BA.
        refusal: probability that a model refuses a pair (all its calls), per category; None for no refusals.
        step: ratings are rounded to multiples of it; 0 leaves them.
        clip: ratings are clipped to [0, 1].
        link: ``identity`` or ``logit``.
    """

    models: int = 20
    pairs: tuple[int, ...] = (12, 12)
    means: tuple[float, ...] = (0.5, 0.5)
    mean_sd: float = 0.1
    spread: tuple[float, ...] = (0.05, 0.15)
    heterogeneity: float = 0.4
    shared: float = 0.0
    offset_sd: float = 0.0
    groups: tuple[int, ...] | None = None
    group_offsets: tuple[float, ...] = ()
    group_pair_sd: float = 0.0
    repeats: int = 1
    noise_sd: float = 0.0
    orders: int = 1
    order_sd: float = 0.0
    refusal: tuple[float, ...] | None = None
    step: float = 0.0
    clip: bool = False
    link: Literal["identity", "logit"] = "identity"

    def __post_init__(self) -> None:
        """Raises ValueError where parts do not fit each other."""
        for name in ("means", "spread", *(("refusal",) if self.refusal is not None else ())):
            if len(getattr(self, name)) != len(self.pairs):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {len(self.pairs)} categories")
        if self.models < 2 or min(self.pairs, default=0) < 1 or self.repeats < 1 or self.orders not in (1, 2):
            raise ValueError("an ensemble needs two models, a pair in every category, one repeat, and one or two orders")
        scales = (
            self.mean_sd,
            *self.spread,
            self.heterogeneity,
            self.offset_sd,
            self.group_pair_sd,
            self.noise_sd,
            self.order_sd,
            self.step,
        )
        if min(scales) < 0 or not 0 <= self.shared <= 1 or not all(0 <= r <= 1 for r in self.refusal or ()):
            raise ValueError("SDs and the step are not negative, shares and probabilities lie in [0, 1]")
        if self.groups is None and (self.group_offsets or self.group_pair_sd):
            raise ValueError("group effects need the group of each model")
        if self.groups is not None and (len(self.groups) != self.models or set(self.groups) != set(range(max(self.groups) + 1))):
            raise ValueError(f"groups must name one group 0, 1, ... for each of {self.models} models, and leave none out")
        if self.groups is not None and self.group_offsets and len(self.group_offsets) != max(self.groups) + 1:
            raise ValueError(f"{len(self.group_offsets)} offsets for {max(self.groups) + 1} groups")


@dataclass(frozen=True)
class Ensemble:
    """A drawn ensemble and its truth (on the link's scale, before clipping, rounding and refusals).

    Attributes:
        ratings: (P, M, orders, repeats), NaN where refused.
        category: (P,) category of each pair.
        own: (P, M) what each model would rate without noise and order effect.
        spread: (P,) SD of models about their group's mean on a pair: pair spread and offsets together.
        order_effect: (M,) AB minus BA.
        omega2: the groups' share of the variance between models, pooled over pairs, for models drawn afresh; None without groups, or where
            nothing varies.
        design: what it was drawn from.
    """

    ratings: FloatArray
    category: IntArray
    own: FloatArray
    spread: FloatArray
    order_effect: FloatArray
    omega2: float | None
    design: EnsembleDesign

    @property
    def cells(self) -> FloatArray:
        """(P, M) means over orders and repeats, NaN where refused."""
        return np.asarray(self.ratings.mean(axis=(2, 3)), dtype=np.float64)


def draw_ensemble(design: EnsembleDesign, rng: np.random.Generator) -> Ensemble:
    """Ratings of known truth (module docstring)."""
    category = np.repeat(np.arange(len(design.pairs)), design.pairs)
    total, models = len(category), design.models
    center = np.asarray(design.means)[category]
    center = (logit(center) if design.link == "logit" else center) + design.mean_sd * rng.normal(size=total)
    spread = np.asarray(design.spread)[category] * np.exp(design.heterogeneity * rng.normal(size=total))
    trait, rest = rng.normal(size=models), rng.normal(size=(total, models))
    own = center[:, None] + design.offset_sd * rng.normal(size=models)
    own = own + spread[:, None] * (np.sqrt(design.shared) * trait + np.sqrt(1 - design.shared) * rest)
    within = spread**2 + design.offset_sd**2
    omega2 = None
    if design.groups is not None:
        codes = np.asarray(design.groups)
        count = int(codes.max()) + 1
        effects = np.asarray(design.group_offsets or np.zeros(count)) + design.group_pair_sd * rng.normal(size=(total, count))
        weights = np.bincount(codes) / models
        between = float(np.sum(weights * (effects - (effects @ weights)[:, None]) ** 2))
        omega2 = between / (between + float(within.sum())) if between + float(within.sum()) > 0 else None
        own = own + effects[:, codes]
    order_effect = design.order_sd * rng.normal(size=models)
    signs = np.array([0.5, -0.5])[: design.orders]
    x = own[:, :, None, None] + order_effect[None, :, None, None] * signs[None, None, :, None]
    x = x + design.noise_sd * rng.normal(size=(total, models, design.orders, design.repeats))
    x = expit(x) if design.link == "logit" else x
    x = np.clip(x, 0.0, 1.0) if design.clip else x
    x = np.rint(x / design.step) * design.step if design.step > 0 else x
    if design.refusal is not None:
        refused = rng.random((total, models)) < np.asarray(design.refusal)[category][:, None]
        x = np.where(refused[:, :, None, None], np.nan, x)
    return Ensemble(x, category.astype(np.int64), own, np.sqrt(within), order_effect, omega2, design)


def no_real_difference(design: EnsembleDesign) -> EnsembleDesign:
    """The same design with one mind in it: models differ by the noise of single calls alone (and refuse as before).

    Whatever divergence, groups or clusters an analysis finds in it is found in noise.
    """
    return replace(
        design, spread=(0.0,) * len(design.pairs), offset_sd=0.0, groups=None, group_offsets=(), group_pair_sd=0.0, order_sd=0.0
    )  # fmt: skip


@dataclass(frozen=True)
class ContrastPower:
    """How often a study finds that models disagree more about one category than about another.

    Attributes:
        power: p at most ``alpha``, two-sided.
        first_step: p at most alpha/family, the first step of Holm: what a contrast can rely on whatever the others show.
        holm: rejected by Holm where the other contrasts of the family (against the same control pairs) have the same ratio.
        studies: simulated studies; a share's standard error is sqrt(share (1 - share)/studies).
        labelings, exact: labelings of pairs, and whether these are all there are.
    """

    power: float
    first_step: float
    holm: float
    studies: int
    labelings: int
    exact: bool


def contrast_power(
    ratio: float,
    models: int,
    pairs: int,
    *,
    rng: np.random.Generator,
    heterogeneity: float = 0.4,
    family: int = 3,
    alpha: float = 0.05,
    studies: int = 4_000,
    permutations: int = 1_999,
) -> ContrastPower:
    """Power of the permutation test of mean log SD between two categories with as many pairs each.

    Ratings are normal and independent, not clipped or rounded: on a pair, models have the SD exp(heterogeneity z), ``ratio`` times that in the
    contested category. The statistic is the difference between categories of mean log s (s the sample SD over models); labels are permuted
    over pairs, all labelings where they are at most ``MAX_EXACT``, otherwise ``permutations`` drawn ones with p = (1 + b)/(1 + B).

    With the defaults (heterogeneity .4, two-sided .05; 4,000 studies, standard errors up to .008), and in brackets the first step of Holm
    with three contrasts:

    =====  ========  =========  =========  =========  =========  =========
    ratio  models    5 pairs    8          12         20         30
    =====  ========  =========  =========  =========  =========  =========
    1.25   10        .10 (.04)  .14 (.06)  .20 (.09)  .32 (.17)  .43 (.26)
    1.5    10        .21 (.10)  .35 (.19)  .52 (.33)  .76 (.59)  .91 (.81)
    2      10        .51 (.29)  .77 (.59)  .93 (.83)  1. (.98)   1. (1.)
    3      10        .88 (.67)  .99 (.96)  1. (1.)    1. (1.)    1. (1.)
    1.25   20        .11 (.04)  .16 (.07)  .24 (.12)  .35 (.20)  .50 (.32)
    1.5    20        .25 (.11)  .41 (.24)  .60 (.41)  .82 (.68)  .95 (.88)
    2      20        .58 (.34)  .84 (.68)  .96 (.90)  1. (.99)   1. (1.)
    3      20        .93 (.76)  1. (.98)   1. (1.)    1. (1.)    1. (1.)
    =====  ========  =========  =========  =========  =========  =========

    Args:
        ratio: SD of the contested category over the control's.
        models: models, at least 2.
        pairs: pairs per category, at least 2.
        rng: draws studies and labelings.
        heterogeneity: SD of log SD between pairs of a category.
        family: contrasts that Holm corrects for, each a contested category with the same ratio against the same control.
        alpha: two-sided level.
        studies: simulated studies.
        permutations: labelings drawn where they are not enumerated.

    Raises:
        ValueError: on a ratio of 0 or less, or fewer than two models, two pairs or one contrast.
    """
    if ratio <= 0 or models < 2 or pairs < 2 or family < 1:
        raise ValueError("power needs a positive ratio, two models, two pairs per category, and one contrast")
    exact = comb(2 * pairs, pairs) <= MAX_EXACT
    labels, _ = label_permutations(np.repeat([0, 1], pairs), rng=rng, permutations=permutations)
    chosen = labels.T.astype(np.float64)  # (2 pairs, B)
    block = max(1, _BLOCK_CELLS // max(chosen.shape[1], 2 * pairs * models * (family + 1)))
    counts = np.zeros(3)
    for start in range(0, studies, block):
        size = min(block, studies - start)
        logs = [_log_sds(1.0 if k == 0 else ratio, size, pairs, models, heterogeneity, rng) for k in range(family + 1)]
        p = np.array([_permutation_p(logs[0], contested, chosen, exact=exact) for contested in logs[1:]])
        order = np.sort(p, axis=0)
        stepped = np.minimum.accumulate(order <= alpha / np.arange(family, 0, -1)[:, None] * (1 + 1e-12), axis=0)
        rejected = p <= np.max(np.where(stepped, order, 0.0), axis=0)
        counts += size * np.array([np.mean(p <= alpha * (1 + 1e-12)), np.mean(p <= alpha / family * (1 + 1e-12)), np.mean(rejected)])
    power, first, all_true = (float(c) / studies for c in counts)
    return ContrastPower(power, first, all_true, studies, labels.shape[0], exact)


def _log_sds(ratio: float, studies: int, pairs: int, models: int, heterogeneity: float, rng: np.random.Generator) -> FloatArray:
    sd = ratio * np.exp(heterogeneity * rng.normal(size=(studies, pairs)))
    return np.asarray(np.log(sd * rng.normal(size=(studies, pairs, models)).std(axis=2, ddof=1)), dtype=np.float64)


def _permutation_p(control: FloatArray, contested: FloatArray, chosen: FloatArray, *, exact: bool) -> FloatArray:
    """(studies,) two-sided p: how many labelings put as large a difference between the two halves."""
    pairs = control.shape[1]
    logs = np.concatenate([control, contested], axis=1)
    logs = logs - logs.mean(axis=1, keepdims=True)
    observed = np.abs(logs[:, pairs:].sum(axis=1)) - 1e-9
    as_large = np.count_nonzero(np.abs(logs @ chosen) >= observed[:, None], axis=1)
    return np.asarray(as_large / chosen.shape[1] if exact else (1 + as_large) / (1 + chosen.shape[1]), dtype=np.float64)


@dataclass(frozen=True)
class SharePower:
    """How often a study finds that groups differ, and what it then estimates.

    Attributes:
        power: permutation p at most alpha.
        eta2_range: the 5th and 95th percentile of the estimated eta squared.
        eta2_mean: its mean.
        studies, labelings, exact: as for ``ContrastPower``.
    """

    power: float
    eta2_range: tuple[float, float]
    eta2_mean: float
    studies: int
    labelings: int
    exact: bool


def share_power(
    omega2: float,
    models: int,
    *,
    rng: np.random.Generator,
    groups: int = 2,
    pairs: int = 10,
    shared: float = 0.5,
    alpha: float = 0.05,
    studies: int = 1_000,
    permutations: int = 999,
) -> SharePower:
    """Power of the permutation test of ``groups.group_share`` where groups of equal size (or nearly) differ by a constant offset.

    Ratings are normal with variance 1 within groups on every pair, ``shared`` of it one trait of the model.

    Args:
        omega2: the true share of variance between groups, 0 to below 1.
        models: models, more than groups.
        rng: draws studies and labelings.
        groups: how many groups.
        pairs: pairs.
        shared: share of the within-group variance that is the same on every pair.
        alpha: level.
        studies: simulated studies.
        permutations: labelings drawn where they are not enumerated.

    Raises:
        ValueError: on a share outside [0, 1), fewer than two groups, or no more models than groups.
    """
    if not 0 <= omega2 < 1 or groups < 2 or models <= groups:
        raise ValueError("power needs a share in [0, 1), two groups or more, and more models than groups")
    codes = np.arange(models) % groups
    offsets = np.arange(groups, dtype=np.float64)
    offsets -= offsets[codes].mean()
    offsets *= np.sqrt(omega2 / (1 - omega2) / np.mean(offsets[codes] ** 2))
    labels, exact = label_permutations(codes, rng=rng, permutations=permutations)
    rows = np.concatenate([codes[None], labels])
    found, eta2 = 0, np.empty(studies)
    for i in range(studies):
        x = np.sqrt(shared) * rng.normal(size=models) + np.sqrt(1 - shared) * rng.normal(size=(pairs, models)) + offsets[codes]
        between = between_groups(x, rows)
        eta2[i] = between[0] / np.sum((x - x.mean(axis=1, keepdims=True)) ** 2)
        as_large = int(np.count_nonzero(between[1:] >= between[0] * (1 - 1e-9)))
        p = as_large / len(labels) if exact else (1 + as_large) / (1 + len(labels))
        found += int(p <= alpha * (1 + 1e-12))
    low, high = np.quantile(eta2, [0.05, 0.95])
    return SharePower(found / studies, (float(low), float(high)), float(eta2.mean()), studies, len(labels), exact)
