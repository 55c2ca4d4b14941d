"""Everything that ratings of an ensemble say: how far models diverge, on what, by what, and how sure that is (docs/atlas.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from math import exp, isnan
from typing import Any, Literal, TypeVar

import numpy as np

from aligntax.atlas.families import StageStep, families, stage_steps
from aligntax.atlas.ratings import FloatArray, IntArray, Ratings, known_mean, numbered
from aligntax.atlas.roles import Roles, roles_of, unknown
from aligntax.core.errors import InputError
from aligntax.core.words import cut, items_text, printable
from aligntax.stats.components import (
    Components,
    OrderEffect,
    calibrate,
    d_table,
    krippendorff_alpha,
    noise_corrected,
    order_effect,
    scale_use,
    two_way,
    variance_components,
    variant_stability,
)
from aligntax.stats.contrasts import (
    MIN_MODELS,
    BoolArray,
    CategorySummary,
    Contrast,
    EnsembleBootstrap,
    LogRatio,
    Trend,
    category_contrast,
    category_summary,
    ensemble_bootstrap,
    log_ratio,
    mean_dispersion,
    ordered_trend,
)
from aligntax.stats.councils import PerModel, blind_spots, blind_spots_by_cluster, collapse_contrast, consensus_illusion
from aligntax.stats.dispersion import flag_threshold, flags, log_dispersion, pair_dispersion, rarefied_range
from aligntax.stats.groups import GroupShare, group_share
from aligntax.stats.multiplicity import holm
from aligntax.stats.raters import (
    ClusterReport,
    Dimensions,
    DistinctRaters,
    IndependentVotes,
    RandAgreement,
    cluster_raters,
    dimensions,
    distinct_raters,
    independent_votes,
    rand_agreement,
)

MIN_GROUP = 5
"""Fewer models of a group carry no claim about groups."""

WIDEST = 0.5
"""Mean difference of two models drawn from however many on a scale from 0 to 1: no law has a larger one."""

Spread = Literal["gmd", "adjusted"]
RAW: Spread = "gmd"
ADJUSTED: Spread = "adjusted"
T = TypeVar("T")
_SAME = 1e-9
Finding = Literal["more divergent", "less divergent", "not shown", "only before adjustment"]


@dataclass(frozen=True)
class Settings:
    """How ratings are analysed.

    Attributes:
        controls: categories (or patterns) that the others are compared with; empty takes those whose names say control.
        anchors: categories with known ratings, for calibration alone; empty takes those whose names begin with anchor.
        contradictions: categories of opposite claims about everyday things, which show what models make of any contradiction; empty takes those
            whose names say contradiction.
        foils: categories that are checks of their own (alike in words and not in meaning, or the other way), neither contested nor controls; empty
            takes those whose names say foil and not control.
        middle: controls that are no paraphrases but lie in the middle of the scale, where contested pairs do; empty takes those whose names say mid
            or matched.
        order: categories from the least to the most divergent, as expected before looking; empty tests no staircase.
        tau: largest range that passes for agreement in a council.
        rarefied: models of a sub-ensemble, for ranges that can be compared between ensembles; None takes 10, or half of fewer than 20.
        draws: permutations where not all are gone through.
        resamples: of models and pairs, for intervals.
        level: of confidence.
        step: of the scale, on [0, 1].
        seed: of every draw.
    """

    controls: tuple[str, ...] = ()
    anchors: tuple[str, ...] = ()
    contradictions: tuple[str, ...] = ()
    foils: tuple[str, ...] = ()
    middle: tuple[str, ...] = ()
    order: tuple[str, ...] = ()
    tau: float = 0.20
    rarefied: int | None = None
    draws: int = 10_000
    resamples: int = 2_000
    level: float = 0.95
    step: float = 0.01
    seed: int = 0


@dataclass(frozen=True)
class PairRow:
    """One pair: its place, its dispersions (None with fewer than two ratings), and who stands at the ends (nobody where all rate it alike).

    ``corrected`` is the standard deviation without the noise of repeats, None where nothing was asked twice in one order and wording.
    """

    name: str
    category: str
    topic: str | None
    texts: tuple[str, str] | None
    models: int
    mean: float | None
    range: float | None
    rarefied: float | None
    sd: float | None
    gmd: float | None
    adjusted: float | None
    logit_sd: float | None
    corrected: float | None
    flagged: bool | None
    lowest: tuple[str, ...]
    highest: tuple[str, ...]
    reference: float | None
    illusion: float | None


@dataclass(frozen=True)
class Comparison:
    """One category against another: how many times as divergent, before and after adjustment for where on the scale it lies.

    Attributes:
        first, second: categories.
        test, adjusted_test: permutation tests over pairs.
        ratio, adjusted_ratio: with intervals over models and pairs; None with too few models.
        p_holm, adjusted_p_holm: over all comparisons of the family.
        finding: a difference counts only if both say so.
    """

    first: str
    second: str
    test: Contrast
    adjusted_test: Contrast
    ratio: LogRatio | None
    adjusted_ratio: LogRatio | None
    p_holm: float
    adjusted_p_holm: float
    finding: Finding


@dataclass(frozen=True)
class GroupRow:
    """What models' groups in one column have to do with their ratings; None with the reason where that cannot be told.

    ``sound``: the groups can carry a claim, having five models or more each (the test moves kin together, or exchanges labels among them).
    ``independent``: no two models are known to be kin; the upper bound of a share takes that for granted.
    """

    column: str
    labels: Mapping[str, int]
    unlabelled: int
    on: str
    share: GroupShare | None
    p_holm: float | None
    clusters: RandAgreement | None
    reason: str = ""
    sound: bool = False
    independent: bool = True


@dataclass(frozen=True)
class CouncilRow:
    """Blind spots of councils of k models: the share of councils whose ratings span at most tau, on flagged pairs whose whole ensemble spans more."""

    k: int
    pairs: int
    rate: float
    within: float | None
    across: float | None
    controls: float | None


@dataclass(frozen=True)
class CollapseRow:
    """Where one model (None: the mean of all that rated these pairs) puts a category between contradictions and paraphrases of the same topics.

    Attributes:
        category: contested.
        model: its name.
        models: how many ``model`` stands for.
        position: 0 is rated like a contradiction, 1 like a paraphrase, with limits; these are None where the two are not told apart for sure.
        contrast: rating less the midpoint of the two, with limits.
        topics, contradictions: how many there are.
    """

    category: str
    model: str | None
    models: int
    position: float | None
    position_low: float | None
    position_high: float | None
    contrast: float | None
    contrast_low: float | None
    contrast_high: float | None
    topics: int
    contradictions: int


@dataclass(frozen=True)
class ModelRow:
    """One model: how it uses the scale, and how far the order of two sentences moves it."""

    name: str
    groups: Mapping[str, str | None]
    ratings: int
    missing: int
    mean: float | None
    distinct: int
    on_grid: float | None
    entropy: float | None
    at_ends: float | None
    slope: float | None
    offset: float | None
    order_signed: float | None
    order_absolute: float | None
    unfit: bool
    cluster: int | None
    modes: tuple[str, ...]


@dataclass
class Analysis:
    """All of it. What cannot be told is None, with a sentence in ``notes``."""

    source: str
    settings: Settings
    roles: Roles
    counts: dict[str, int]
    missing: list[tuple[str, str, str, int]]
    k: int
    flag: float | None
    pairs: list[PairRow]
    models: list[ModelRow]
    summaries: dict[str, CategorySummary]
    spreads: dict[str, tuple[float, float | None, float | None]]
    comparisons: list[Comparison]
    matched: list[Comparison]
    beyond: list[Comparison]
    steps: list[Comparison]
    trend: Trend | None
    adjusted_trend: Trend | None
    collapse: list[CollapseRow]
    stages: list[StageStep]
    components: Components | None
    designs: list[dict[str, Any]]
    reliability: dict[str, dict[str, float | None]]
    order_noise: float | None
    order_shift: float | None
    variants: tuple[float | None, int, int] | None
    groups: list[GroupRow]
    clusters: ClusterReport | None
    clustered: list[int]
    dimensions: Dimensions | None
    distinct: dict[str, DistinctRaters]
    votes: IndependentVotes | None
    councils: list[CouncilRow]
    sensitivity: dict[str, dict[str, float | None]]
    calibrated: dict[str, float | None]
    illusion: dict[str, float | None]
    ratings: FloatArray
    notes: list[str] = field(default_factory=list)


def analyse(ratings: Ratings, settings: Settings | None = None, tell: Callable[[str], None] = lambda _: None) -> Analysis:
    """Analyse ratings.

    Args:
        ratings: of an ensemble.
        settings: how.
        tell: progress, a phrase at a time.

    Raises:
        InputError: if there are fewer than two models or pairs with ratings, a category named is not there, a model's parent rated nothing, or the settings fit nothing.
    """
    want = settings or Settings()
    rng = np.random.default_rng(want.seed)
    x = ratings.means()
    _check(ratings, x, want)
    of_models = families(ratings)
    roles = roles_of(ratings.categories, want.controls, want.anchors, want.contradictions, want.foils, want.middle)
    notes = list(ratings.notes)
    labels = np.array([ratings.categories.index(c) for c in ratings.category])
    is_contested, is_control, is_anchor = (np.isin(labels, roles.codes(of)) for of in (roles.contested, roles.controls, roles.anchors))
    tell("clusters of models")
    tree, clustered = _clusters(x[is_contested] if is_contested.any() else x, ratings, rng, notes)
    tell("categories")
    judge = _Judge(x, labels, ratings.categories, _topics(ratings), want, rng)
    comparisons, matched, beyond = _against(judge, roles, notes)
    steps, trend, adjusted = _stairs(judge, notes)
    tell("groups")
    groups = _grouped(x, ratings, is_contested, tree, clustered, want, rng)
    tell("councils")
    flagged = flags(x)
    components, why = _possible(lambda: variance_components(ratings.x, ("pair", "model", "order", "variant")))
    notes += [f"no variance components: {why}"] if components is None else []
    orders = _orders(ratings)
    effect = None if orders is None else order_effect(*orders)
    rated = int(np.isfinite(x).any(axis=0).sum())
    k = want.rarefied or (10 if rated >= 20 else max(2, rated // 2))
    return Analysis(
        source=ratings.source,
        settings=want,
        roles=roles,
        counts=_counts(ratings),
        missing=[(*key, n) for key, n in sorted(ratings.missing.items())],
        k=k,
        flag=flag_threshold(rated),
        pairs=_pair_rows(x, ratings, k, flagged),
        models=_model_rows(x, ratings, {} if tree is None else dict(zip(clustered, tree.labels.tolist(), strict=True)), is_anchor, effect),
        summaries={c: category_summary(x[labels == i], step=want.step) for i, c in enumerate(ratings.categories)},
        spreads=_spreads(x, judge, rng),
        comparisons=comparisons,
        matched=matched,
        beyond=beyond,
        steps=steps,
        trend=trend,
        adjusted_trend=adjusted,
        collapse=_collapse(x, ratings, labels, roles, want.level, notes),
        stages=stage_steps(ratings, x, of_models, roles, want.level),
        components=components,
        designs=[] if components is None else _designs(components, ratings),
        reliability=_reliability(x, labels, ratings.categories),
        order_noise=None if effect is None else effect.noise_sd,
        order_shift=None if effect is None else effect.mean_absolute,
        variants=_variants(ratings),
        groups=groups,
        clusters=tree,
        clustered=clustered,
        dimensions=_dimensions(x[is_contested] if is_contested.any() else x, notes),
        distinct=_distinct(x, is_contested, is_control),
        votes=_votes(x, np.where(is_anchor, np.nan, ratings.reference), notes),
        councils=_councils(x, flagged, is_contested, tree, clustered, is_control, want),
        sensitivity=_sensitivity(x, labels, roles, want),
        calibrated=_by_category(_calibrated(x, np.where(is_anchor, ratings.reference, np.nan), ratings.models, notes), labels, roles),
        illusion=_by_category(consensus_illusion(x, ratings.reference), labels, roles),
        ratings=x,
        notes=notes,
    )


# -- what goes in --------------------------------------------------------------------------------------------------------------


def _check(ratings: Ratings, x: FloatArray, want: Settings) -> None:
    where = printable(ratings.source)
    rated = np.isfinite(x)
    if rated.any(axis=0).sum() < 2:
        raise InputError(
            f"{where}: {items_text(int(rated.any(axis=0).sum()), 'model')} rated anything; divergence needs two models or more"
        )
    if (rated.sum(axis=1) >= 2).sum() < 2:
        raise InputError(f"{where}: fewer than two pairs were rated by two models or more; there is nothing to compare")
    for name in want.order:
        if name not in ratings.categories:
            raise InputError(unknown("--order names", name, ratings.categories))
    if len(set(want.order)) < len(want.order) or len(want.order) == 1:
        raise InputError("--order names two categories or more, each once, from the least to the most divergent")
    for name, value, low, high in (
        ("--tau", want.tau, 0.0, 1.0),
        ("--step, as a share of the whole scale,", want.step, 0.0, 1.0),
        ("--level", want.level, 0.5, 1.0),
    ):
        if not low < value < high:
            raise InputError(f"{name} lies between {low:g} and {high:g}; got {value:g}")
    if want.draws < 1 or want.resamples < 1:
        raise InputError(f"permutations and resamples are 1 or more; got {want.draws} and {want.resamples}")
    there = int(rated.any(axis=0).sum())
    if want.rarefied is not None and not 2 <= want.rarefied <= there:
        raise InputError(f"--rarefy takes 2 models or more, and no more than the {there} that rated pairs; got {want.rarefied}")


def _rated(x: FloatArray) -> FloatArray:
    """Only models and pairs that anything is known of."""
    return x[np.isfinite(x).any(axis=1)][:, np.isfinite(x).any(axis=0)]


def _share_no_pair(x: FloatArray, models: Sequence[str]) -> str:
    """Which two models have no pair in common, in words; empty where any two have."""
    known = np.isfinite(x).astype(np.float64)
    apart = np.argwhere((known.T @ known) == 0)
    if not len(apart):
        return ""
    one, two = (cut(printable(models[int(m)]), 60) for m in apart[0])
    return f"{one} and {two} rated no pair in common"


def _possible(work: Callable[[], T]) -> tuple[T | None, str]:
    """What an estimator says, or why it says nothing."""
    try:
        return work(), ""
    except ValueError as error:
        return None, str(error)


def _counts(ratings: Ratings) -> dict[str, int]:
    return {
        "pairs": len(ratings.pairs),
        "models": len(ratings.models),
        "orders": len(ratings.orders),
        "variants": len(ratings.variants),
        "repeats": ratings.x.shape[4],
        "asked": int(ratings.asked.sum()),
        "ratings": int(np.isfinite(ratings.x).sum()),
    }


# -- pairs and models ----------------------------------------------------------------------------------------------------------


def _number(value: float | np.floating[Any]) -> float | None:
    return None if isnan(value) else float(value)


def _corrected(x: FloatArray, ratings: Ratings) -> FloatArray:
    """(pairs,) SD of models' mean ratings without the noise of repeats; NaN where none was repeated, 0 where noise explains all of it.

    A mean over cells of order and wording has the mean of their error variances over the number of cells; what an order or a wording shifts is
    not noise, and stays.
    """
    pairs, models, *_, repeats = ratings.x.shape
    cells = np.moveaxis(ratings.x.reshape(pairs, models, -1, repeats), 2, 0)
    error = np.stack([(of.raw**2 - of.variance) for of in map(noise_corrected, cells)])
    added = known_mean(error, 0) / np.maximum(np.isfinite(error).sum(axis=0), 1)
    return np.asarray(np.sqrt(np.maximum(pair_dispersion(x).sd ** 2 - added, 0.0)))


def _at_end(row: FloatArray, end: float, models: Sequence[str]) -> tuple[str, ...]:
    """Models at one end of a pair's ratings, by name; nobody where all rate it alike."""
    if np.nanmax(row) - np.nanmin(row) < _SAME:
        return ()
    return tuple(sorted(models[int(m)] for m in np.flatnonzero(np.abs(row - end) < _SAME)))


def _pair_rows(x: FloatArray, ratings: Ratings, k: int, flagged: FloatArray) -> list[PairRow]:
    of, rarefied, corrected = pair_dispersion(x), rarefied_range(x, k), _corrected(x, ratings)
    illusion = consensus_illusion(x, ratings.reference)
    out = []
    for i, name in enumerate(ratings.pairs):
        known = np.isfinite(x[i])
        some = known.sum() >= 2
        out.append(
            PairRow(
                name,
                ratings.category[i],
                None if ratings.topic is None else ratings.topic[i],
                ratings.texts[i],
                int(known.sum()),
                _number(of.mean[i]),
                _number(of.full_range[i]),
                _number(rarefied[i]),
                _number(of.sd[i]),
                _number(of.gmd[i]),
                _number(of.adjusted[i]),
                _number(of.logit_sd[i]),
                _number(corrected[i]),
                None if isnan(flagged[i]) else bool(flagged[i]),
                _at_end(x[i], float(np.nanmin(x[i])), ratings.models) if some else (),
                _at_end(x[i], float(np.nanmax(x[i])), ratings.models) if some else (),
                _number(ratings.reference[i]),
                _number(illusion[i]),
            )
        )
    return out


def _model_rows(
    x: FloatArray, ratings: Ratings, clusters: Mapping[int, int], is_anchor: BoolArray, effect: OrderEffect | None
) -> list[ModelRow]:
    use = scale_use(x, np.where(is_anchor, ratings.reference, np.nan))
    unfit = [] if effect is None else effect.unfit(flag_threshold(2))
    asked = ratings.asked.sum(axis=(0, 2, 3, 4))
    known = np.isfinite(ratings.x).sum(axis=(0, 2, 3, 4))
    return [
        ModelRow(
            name,
            {column: of[m] for column, of in ratings.groups.items()},
            int(known[m]),
            int(asked[m] - known[m]),
            _number(np.nanmean(x[:, m])) if known[m] else None,
            use[m].distinct,
            use[m].on_grid,
            use[m].entropy,
            use[m].at_ends,
            use[m].slope,
            use[m].offset,
            None if effect is None else _number(effect.signed[m]),
            None if effect is None else _number(effect.absolute[m]),
            m in unfit,
            clusters.get(m),
            ratings.modes.get(name, ()),
        )
        for m, name in enumerate(ratings.models)
    ]


def _orders(ratings: Ratings) -> tuple[FloatArray, FloatArray] | None:
    """(pairs, models) ratings with the sentences in either order; None where there are not two."""
    if len(ratings.orders) != 2:
        return None
    mean = known_mean(ratings.x.reshape(len(ratings.pairs), len(ratings.models), 2, -1), 3)
    return mean[:, :, 0], mean[:, :, 1]


# -- categories ----------------------------------------------------------------------------------------------------------------


def _spreads(x: FloatArray, judge: _Judge, rng: np.random.Generator) -> dict[str, tuple[float, float | None, float | None]]:
    """By category, the mean Gini mean difference with limits over models and pairs; without limits where models are too few.

    The upper limit is at most what any law on the scale can have.
    """
    out = {}
    for code, name in enumerate(judge.categories):
        of = pair_dispersion(x[judge.labels == code]).gmd
        of = of[np.isfinite(of)]
        if not len(of):
            continue
        mean = float(of.mean())
        low, high = (None, None)
        if judge.ensembles is not None:
            low, high = mean_dispersion(judge.ensembles[0], judge.labels == code, rng=rng, level=judge.want.level)
        out[name] = (mean, low, None if high is None else min(high, max(mean, WIDEST)))
    return out


def _against(judge: _Judge, roles: Roles, notes: list[str]) -> tuple[list[Comparison], list[Comparison], list[Comparison]]:
    """Every contested category against all controls, and against those in the middle alone; checks against controls, and contested against contradictions."""
    if not roles.controls:
        notes.append("no category is known to be a control, so none is compared with it; name it with --control")
    elif not roles.contested:
        notes.append("every category is a control, an anchor, a contradiction or a foil, so there is none to compare with the controls")

    def pairs(first: Sequence[str], second: Sequence[str], all_of: str) -> list[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
        return [(c, second[0] if len(second) == 1 else all_of, roles.codes([c]), roles.codes(second)) for c in first if second]

    return (
        judge.family(pairs(roles.contested, roles.controls, "all controls"), notes),
        judge.family(pairs(roles.contested, roles.middle, "controls in the middle") if roles.middle != roles.controls else [], notes),
        judge.family(
            [
                *pairs([*roles.contradictions, *roles.foils], roles.controls, "all controls"),
                *pairs(roles.contested, roles.contradictions, "all contradictions"),
            ],
            notes,
        ),
    )


def _stairs(judge: _Judge, notes: list[str]) -> tuple[list[Comparison], Trend | None, Trend | None]:
    """Every step of the expected order, and the staircase as a whole, before and after adjustment."""
    order, categories = judge.want.order, judge.categories
    if not order:
        return [], None, None
    at = {c: (categories.index(c),) for c in order}
    steps = judge.family([(b, a, at[b], at[a]) for a, b in pairwise(order)], notes)
    codes = tuple(at[c][0] for c in order)
    return steps, _trend(judge, judge.raw, codes), _trend(judge, judge.adjusted, codes)


def _trend(judge: _Judge, y: FloatArray, order: tuple[int, ...]) -> Trend | None:
    codes = np.array([order.index(label) if label in order else -1 for label in judge.labels.tolist()], dtype=np.int64)
    topics = judge.matched(codes)
    return _possible(lambda: ordered_trend(y, judge.labels, order, rng=judge.rng, topics=topics, draws=judge.want.draws))[0]


def _topics(ratings: Ratings) -> IntArray | None:
    """Codes of topics; a pair without one is alone in its own."""
    if ratings.topic is None or len(set(ratings.topic)) < 2:
        return None
    return numbered(ratings.topic)


@dataclass
class _Judge:
    """Compares categories, before and after adjustment."""

    x: FloatArray
    labels: IntArray
    categories: Sequence[str]
    topics: IntArray | None
    want: Settings
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.raw, self.adjusted = (log_dispersion(self.x, s, step=self.want.step) for s in (RAW, ADJUSTED))
        enough = int(np.isfinite(self.x).any(axis=0).sum()) >= MIN_MODELS
        self.ensembles: list[EnsembleBootstrap] | None = (
            [ensemble_bootstrap(self.x, s, rng=self.rng, resamples=self.want.resamples, step=self.want.step) for s in (RAW, ADJUSTED)]
            if enough
            else None
        )

    def family(self, asked: Sequence[tuple[str, str, tuple[int, ...], tuple[int, ...]]], notes: list[str]) -> list[Comparison]:
        """Comparisons (first, second, codes of the first, codes of the second), adjusted for how many there are."""
        found = []
        for first, second, a, b in asked:
            codes = np.where(np.isin(self.labels, a), 1, np.where(np.isin(self.labels, b), 0, -1))
            tests, why = self._tests(codes)
            if tests is None:
                notes.append(
                    f"{cut(printable(first), 60)} is not compared with {cut(printable(second), 100)}: {self._unseen(codes) or why}"
                )
                continue
            found.append((first, second, *tests, *self._ratios(codes)))
        raw, adjusted = holm([f[2].p for f in found]), holm([f[3].p for f in found])
        return [
            Comparison(*f, p_holm=p, adjusted_p_holm=q, finding=_finding(f[2], f[3], p, q, 1 - self.want.level))
            for f, p, q in zip(found, raw, adjusted, strict=True)
        ]

    def _unseen(self, codes: IntArray) -> str:
        """Why one of two categories has no dispersion."""
        for code in (0, 1):
            if not np.isfinite(self.raw[codes == code]).any():
                return "no pair of one of them was rated by two models"
            if not np.isfinite(self.adjusted[codes == code]).any():
                return "all models rate every pair of one of them at the same end of the scale, where no disagreement can be seen"
        return ""

    def matched(self, codes: IntArray) -> IntArray | None:
        """Topics, where most of the pairs compared (codes of 0 and more) share theirs with another category; to forget them errs to the safe side."""
        if self.topics is None:
            return None
        kept = codes >= 0
        several = {t for t in self.topics[kept].tolist() if len(set(codes[kept & (self.topics == t)].tolist())) > 1}
        shared = np.isin(self.topics[kept], list(several))
        return self.topics if len(shared) and shared.mean() > 0.5 else None

    def _tests(self, codes: IntArray) -> tuple[tuple[Contrast, Contrast] | None, str]:
        topics = self.matched(codes)

        def both() -> tuple[Contrast, Contrast]:
            one, two = (
                category_contrast(y, codes, 1, 0, rng=self.rng, topics=topics, draws=self.want.draws) for y in (self.raw, self.adjusted)
            )
            return one, two

        return _possible(both)

    def _ratios(self, codes: IntArray) -> tuple[LogRatio | None, LogRatio | None]:
        if self.ensembles is None:
            return None, None
        topics, level = self.matched(codes), self.want.level
        one, two = (_possible(lambda e=e: log_ratio(e, codes, 1, 0, rng=self.rng, topics=topics, level=level))[0] for e in self.ensembles)  # type: ignore[misc]
        return one, two


def _finding(raw: Contrast, adjusted: Contrast, p: float, q: float, alpha: float) -> Finding:
    if p > alpha:
        return "not shown"
    if q > alpha or (raw.difference > 0) != (adjusted.difference > 0):
        return "only before adjustment"
    return "more divergent" if raw.difference > 0 else "less divergent"


def _sensitivity(x: FloatArray, labels: IntArray, roles: Roles, want: Settings) -> dict[str, dict[str, float | None]]:
    """Ratio of contested to control by what is done about missing ratings; empty where none is missing."""
    x, labels = x[np.isfinite(x).any(axis=1)], labels[np.isfinite(x).any(axis=1)]
    x = x[:, np.isfinite(x).any(axis=0)]
    if np.isfinite(x).all() or not roles.controls:
        return {}
    known = np.isfinite(x)
    whole = known.all(axis=1)
    ways = {
        "pairs that every model rated": (x[whole], labels[whole]),
        "ratings there are": (x, labels),
        "missing as the pair's lowest": (np.where(known, x, np.nanmin(x, axis=1, keepdims=True)), labels),
        "missing as the pair's highest": (np.where(known, x, np.nanmax(x, axis=1, keepdims=True)), labels),
    }
    out: dict[str, dict[str, float | None]] = {}
    for way, (values, codes) in ways.items():
        y = log_dispersion(values, RAW, step=want.step) if len(values) else np.array([])
        control = _mean(y[np.isin(codes, roles.codes(roles.controls))])
        of = {c: _mean(y[codes == code]) for c, code in zip(roles.contested, roles.codes(roles.contested), strict=True)}
        out[way] = {c: None if mean is None or control is None else exp(mean - control) for c, mean in of.items()}
    return out


def _collapse(x: FloatArray, ratings: Ratings, labels: IntArray, roles: Roles, level: float, notes: list[str]) -> list[CollapseRow]:
    """Every contested category between paraphrases (controls of the same topics, but those in the middle) and contradictions: of all models, then of each."""
    opposite = np.isin(labels, roles.codes(roles.contradictions))
    if ratings.topic is None or not roles.paraphrases or not opposite.any():
        return []
    out: list[CollapseRow] = []
    is_paraphrase = np.isin(labels, roles.codes(roles.paraphrases))
    for category, code in zip(roles.contested, roles.codes(roles.contested), strict=True):
        both = [_by_topic(x, ratings.topic, rows) for rows in (labels == code, is_paraphrase)]
        shared = [t for t in both[0] if t in both[1]]
        if len(shared) < 2 or opposite.sum() < 2:
            notes.append(
                f"where {cut(printable(category), 60)} lies between paraphrases and contradictions is not told: {items_text(len(shared), 'topic')} shared with controls, "
                f"{items_text(int(opposite.sum()), 'contradiction')}; it takes two of each"
            )
            continue
        clash, paraphrase = (np.stack([of[t] for t in shared]) for of in both)
        parts = (clash, paraphrase, x[opposite])
        complete = np.all([np.isfinite(part).all(axis=0) for part in parts], axis=0)
        if complete.sum() >= 2:
            out += _collapse_rows(
                category, [None], int(complete.sum()), [part[:, complete].mean(axis=1, keepdims=True) for part in parts], level
            )
        out += _collapse_rows(category, ratings.models, 1, parts, level)
    return out


def _by_topic(x: FloatArray, topics: Sequence[str | None], rows: BoolArray) -> dict[str, FloatArray]:
    """(models,) mean rating of every topic, NaN where there is none."""
    found: dict[str, list[int]] = {}
    for i in np.flatnonzero(rows).tolist():
        if (topic := topics[i]) is not None:
            found.setdefault(topic, []).append(i)
    return {topic: known_mean(x[at], 0) for topic, at in found.items()}


def _collapse_rows(category: str, names: Sequence[str | None], models: int, parts: Sequence[FloatArray], level: float) -> list[CollapseRow]:
    of = collapse_contrast(*parts, level=level)

    def told(what: PerModel, m: int) -> tuple[float | None, float | None, float | None]:
        return _number(what.estimate[m]), _number(what.low[m]), _number(what.high[m])

    rows = [
        CollapseRow(category, name, models, *told(of.position, m), *told(of.contrast, m), int(of.topics[m]), int(of.contradictions[m]))
        for m, name in enumerate(names)
    ]
    return [row for row in rows if row.contrast is not None]


# -- components, groups, raters, councils --------------------------------------------------------------------------------------


def _designs(components: Components, ratings: Ratings) -> list[dict[str, Any]]:
    """What one more order, wording or repeat would do."""
    counts = {f: n for f, n in components.levels.items() if f not in ("pair", "model")}
    repeats = np.isfinite(ratings.x).sum(axis=4)
    counts["repeat"] = max(1, round(float(repeats[repeats > 0].mean())))
    designs, _ = _possible(lambda: d_table(components, counts))
    return [
        {"counts": d.counts, "reliability": d.reliability, "inflation": d.inflation, "error": d.error, "se": d.se} for d in designs or ()
    ]


def _variants(ratings: Ratings) -> tuple[float | None, int, int] | None:
    """(Kendall tau between wordings, pairs flagged under two and more, under any); None with one wording."""
    if len(ratings.variants) < 2:
        return None
    shape = (len(ratings.pairs), len(ratings.models), len(ratings.variants))
    stable = variant_stability(known_mean(np.moveaxis(ratings.x, 3, 2).reshape(*shape, -1), 3))
    return stable.tau, int(np.nansum(stable.divergent)), int((stable.flagged > 0).sum())


def _reliability(x: FloatArray, labels: IntArray, categories: Sequence[str]) -> dict[str, dict[str, float | None]]:
    out: dict[str, dict[str, float | None]] = {}
    for name, of in (("all", np.ones(len(x), dtype=bool)), *((c, labels == i) for i, c in enumerate(categories))):
        some = _rated(x[of]) if of.any() else x[of]
        found, _ = _possible(lambda some=some: two_way(some))  # type: ignore[misc]
        out[name] = {
            "alpha": krippendorff_alpha(some) if len(some) else None,
            "icc_1": None if found is None else found.icc_1,
            "icc_a1": None if found is None else found.icc_a1,
            "icc_c1": None if found is None else found.icc_c1,
            "var_pair": None if found is None else found.var_pair,
            "var_model": None if found is None else found.var_model,
            "var_rest": None if found is None else found.var_rest,
        }
    return out


FAMILY = ("developer", "family", "base_family")
"""Columns that say which models are kin: their labels are not independent."""


def _clusters(x: FloatArray, ratings: Ratings, rng: np.random.Generator, notes: list[str]) -> tuple[ClusterReport | None, list[int]]:
    """Clusters, and the models that are in them: those that rated any of these pairs."""
    there = np.flatnonzero(np.isfinite(x).any(axis=0)).tolist()
    names = [ratings.models[m] for m in there]
    why = _share_no_pair(x[:, there], names)
    tree = None
    if not why:
        tree, why = _possible(lambda: cluster_raters(_rated(x), rng=rng))
    if why:
        notes.append(f"no clusters of models: {why}")
    return tree, there if tree is not None else []


def _grouped(
    x: FloatArray,
    ratings: Ratings,
    is_contested: BoolArray,
    tree: ClusterReport | None,
    clustered: Sequence[int],
    want: Settings,
    rng: np.random.Generator,
) -> list[GroupRow]:
    """Every column of groups on the contested pairs and on all, adjusted over columns within each."""
    out: list[GroupRow] = []
    kin = next((name for name in FAMILY if name in ratings.groups), None)
    contested = is_contested.any() and not is_contested.all()
    for on, rows in (
        *([("contested pairs", is_contested)] if contested else []),
        ("all pairs", np.ones(len(x), dtype=bool)),
    ):
        made = []
        for column in ratings.groups:
            row = _group_row(x[rows], ratings, column, on, kin, want, rng)
            if tree is not None and (on != "all pairs" or not contested):
                row = replace(row, clusters=_cluster_agreement(tree, clustered, ratings.groups[column], want, rng))
            made.append(row)
        tested = [row.share.p for row in made if row.share is not None and row.share.p is not None]
        adjusted = iter(holm(tested))
        out += [row if row.share is None or row.share.p is None else replace(row, p_holm=next(adjusted)) for row in made]
    untold = {row.column for row in out if row.share is None and row.on != "all pairs"}
    return [row for row in out if row.share is not None or row.on != "all pairs" or row.column not in untold]


def _cluster_agreement(
    tree: ClusterReport, clustered: Sequence[int], of: Sequence[str | None], want: Settings, rng: np.random.Generator
) -> RandAgreement | None:
    """Whether clusters are the groups; None where a model in them has no label."""
    names = [of[m] for m in clustered]
    if None in names:
        return None
    codes = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)[1]
    return _possible(lambda: rand_agreement(tree.labels, codes, rng=rng, permutations=want.draws))[0]


def _group_row(
    x: FloatArray, ratings: Ratings, column: str, on: str, kin: str | None, want: Settings, rng: np.random.Generator
) -> GroupRow:
    of = ratings.groups[column]
    known = [m for m, label in enumerate(of) if label is not None and np.isfinite(x[:, m]).any()]
    names = tuple(dict.fromkeys(str(of[m]) for m in known))
    sizes = {name: sum(of[m] == name for m in known) for name in names}
    labels = np.array([names.index(str(of[m])) for m in known], dtype=np.int64)
    if len(names) < 2 or len(names) >= len(known):
        why = (
            "no model has a label"
            if not names
            else "all models have the same label"
            if len(names) == 1
            else "every model has a label of its own"
        )
        return GroupRow(column, sizes, len(of) - len(known), on, None, None, None, why)
    units, strata, kinship = _kinship(ratings, column, kin, known, labels)
    independent = units is None and strata is None
    share, why = _possible(
        lambda: group_share(x[:, known], labels, rng=rng, units=units, strata=strata, permutations=want.draws, level=want.level)
    )
    if share is None:
        return GroupRow(column, sizes, len(of) - len(known), on, None, None, None, why)
    few = [name for name, n in sizes.items() if n < MIN_GROUP]
    small = (
        f"fewer than five models in {cut(', '.join(map(printable, few)), 100) if len(few) <= 3 else f'{len(few)} of {len(sizes)} groups'}: too few for a claim about groups"
        if few
        else ""
    )
    return GroupRow(
        column,
        sizes,
        len(of) - len(known),
        on,
        share,
        None,
        None,
        "; ".join(filter(None, [kinship, small])),
        not few,
        independent,
    )


def _kinship(
    ratings: Ratings, column: str, kin: str | None, known: Sequence[int], labels: IntArray
) -> tuple[IntArray | None, IntArray | None, str]:
    """(units, strata, what was done): labels of kin are moved together where they are alike, else exchanged among kin alone."""
    if kin is None or kin == column:
        return None, None, ""
    unit = numbered([ratings.groups[kin][m] for m in known])
    families = len(set(unit.tolist()))
    if families == len(known):
        return None, None, ""
    if all(len(set(labels[unit == u].tolist())) == 1 for u in range(families)):
        return unit, None, f"labels of one {kin} are moved together"
    return None, unit, f"labels are exchanged within one {kin} only"


def _dimensions(x: FloatArray, notes: list[str]) -> Dimensions | None:
    found, why = _possible(lambda: dimensions(_rated(x)))
    if found is None:
        unnamed = "the ratings of a model do not vary beyond what all models share, or two models rated too few pairs in common"
        notes.append(f"no dimensions of disagreement: {unnamed if why.startswith('models ') else why}")
    return found


def _distinct(x: FloatArray, is_contested: BoolArray, is_control: BoolArray) -> dict[str, DistinctRaters]:
    out: dict[str, DistinctRaters] = {}
    for name, of in (("contested", is_contested), ("control", is_control)):
        if of.any():
            one, _ = _possible(lambda of=of: distinct_raters(_rated(x[of])))  # type: ignore[misc]
            out |= {} if one is None else {name: one}
    return out


def _votes(x: FloatArray, outside: FloatArray, notes: list[str]) -> IndependentVotes | None:
    """Votes against references beside the anchors; None with fewer than three."""
    if np.isfinite(outside).sum() < 3:
        return None
    found, why = _possible(lambda: independent_votes(x, outside))
    notes += [f"no independent votes: {why}"] if found is None else []
    return found


def _councils(
    x: FloatArray,
    flagged: FloatArray,
    is_contested: BoolArray,
    tree: ClusterReport | None,
    clustered: Sequence[int],
    is_control: BoolArray,
    want: Settings,
) -> list[CouncilRow]:
    """Blind spots by the size of a council, on contested pairs that the whole ensemble flags and on which it spans more than tau."""
    wide = np.nan_to_num(pair_dispersion(x).full_range) > want.tau + _SAME
    rows = (flagged == 1) & wide & is_contested
    if not rows.any():
        return []
    there = int(np.isfinite(x[rows]).any(axis=0).sum())
    out = []
    for k in range(2, min(7, there - 1) + 1):
        rate = _mean(blind_spots(x[rows], k, want.tau))
        within = across = None
        if tree is not None and k <= len(clustered):
            one, two = blind_spots_by_cluster(x[rows][:, clustered], tree.labels, k, want.tau)
            within, across = _mean(one), _mean(two)
        if rate is not None:
            controls = _mean(blind_spots(x[is_control], k, want.tau)) if is_control.any() else None
            out.append(CouncilRow(k, int(rows.sum()), rate, within, across, controls))
    return out


def _mean(values: FloatArray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _calibrated(x: FloatArray, anchored: FloatArray, models: Sequence[str], notes: list[str]) -> FloatArray:
    """(pairs,) mean difference of two models after each was calibrated on the anchors; NaN with fewer than three of these."""
    nothing = np.full(len(x), np.nan)
    if np.isfinite(anchored).sum() < 3:
        return nothing
    found, why = _possible(lambda: calibrate(x, anchored))
    if found is None:
        notes.append(f"no calibration on the anchors: {why}")
        return nothing
    if lost := [models[int(m)] for m in np.flatnonzero(~found.fitted)]:
        notes.append(f"not calibrated, as they do not rate the anchors in their order: {cut(', '.join(map(printable, lost)), 200)}")
    return pair_dispersion(found.ratings).gmd


def _by_category(values: FloatArray, labels: IntArray, roles: Roles) -> dict[str, float | None]:
    """Means by category, anchors aside; nothing where no pair has a value."""
    if not np.isfinite(values).any():
        return {}
    return {c: _mean(values[labels == i]) for i, c in enumerate(roles.categories) if c not in roles.anchors}
