"""Everything that ratings of an ensemble say: how far models diverge, on what, by what, and how sure that is (docs/atlas.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import pairwise
from math import exp, isnan
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from aligntax.atlas.ratings import FloatArray, IntArray, Ratings
from aligntax.core.errors import InputError
from aligntax.core.words import cut, items_text, printable
from aligntax.stats.components import (
    Components,
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
    CategorySummary,
    Contrast,
    LogRatio,
    Trend,
    category_contrast,
    category_summary,
    ensemble_bootstrap,
    log_ratio,
    mean_dispersion,
    ordered_trend,
)
from aligntax.stats.councils import blind_spots, blind_spots_by_cluster, consensus_illusion
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

CONTROLS, ANCHORS = ("control*", "*_control", "*control"), ("anchor*",)
"""Categories by their names, where nobody says which are which."""

Spread = Literal["gmd", "adjusted"]
RAW: Spread = "gmd"
ADJUSTED: Spread = "adjusted"
T = TypeVar("T")
Finding = Literal["more divergent", "less divergent", "not shown", "only before adjustment"]


@dataclass(frozen=True)
class Settings:
    """How ratings are analysed.

    Attributes:
        controls: categories (or patterns) that the others are compared with; empty takes those whose names say control.
        anchors: categories with known ratings, for calibration alone; empty takes those whose names begin with anchor.
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
    """One pair: its place, its dispersions (None with fewer than two ratings), and who stands at the ends."""

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
    lowest: str | None
    highest: str | None
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
    """What models' groups in one column have to do with their ratings; None with the reason where that cannot be told."""

    column: str
    labels: Mapping[str, int]
    unlabelled: int
    on: str
    share: GroupShare | None
    p_holm: float | None
    clusters: RandAgreement | None
    reason: str = ""


@dataclass(frozen=True)
class CouncilRow:
    """Blind spots of councils of k models on flagged pairs: the share of councils whose ratings span at most tau."""

    k: int
    rate: float
    within: float | None
    across: float | None
    controls: float | None


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
    categories: tuple[str, ...]
    controls: tuple[str, ...]
    contested: tuple[str, ...]
    anchors: tuple[str, ...]
    counts: dict[str, int]
    missing: list[tuple[str, str, str, int]]
    k: int
    flag: float | None
    pairs: list[PairRow]
    models: list[ModelRow]
    summaries: dict[str, CategorySummary]
    spreads: dict[str, tuple[float, float | None, float | None]]
    comparisons: list[Comparison]
    steps: list[Comparison]
    trend: Trend | None
    adjusted_trend: Trend | None
    components: Components | None
    designs: list[dict[str, Any]]
    reliability: dict[str, dict[str, float | None]]
    order_noise: float | None
    variants: tuple[float | None, int, int] | None
    groups: list[GroupRow]
    clusters: ClusterReport | None
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
        InputError: if there are fewer than two models or pairs with ratings, a category named is not there, or the settings fit nothing.
    """
    want = settings or Settings()
    rng = np.random.default_rng(want.seed)
    x = ratings.means()
    _check(ratings, x, want)
    categories = ratings.categories
    anchors = _named(want.anchors, ANCHORS, categories, "anchor")
    controls = tuple(c for c in _named(want.controls, CONTROLS, categories, "control") if c not in anchors)
    contested = tuple(c for c in categories if c not in controls and c not in anchors)
    k = want.rarefied or (10 if x.shape[1] >= 20 else max(2, x.shape[1] // 2))
    notes = list(ratings.notes)
    labels = np.array([categories.index(c) for c in ratings.category])
    is_contested = np.array([c in contested for c in ratings.category])
    corrected = noise_corrected(ratings.repeats()).corrected if _has_repeats(ratings) else np.full(len(x), np.nan)
    tell("clusters of models")
    tree, why = _possible(lambda: cluster_raters(_rated(x[is_contested]) if is_contested.any() else _rated(x), rng=rng))
    notes += [f"no clusters of models: {why}"] if why else []
    tell("categories")
    comparisons, steps, trend, adjusted = _compared(x, ratings, labels, controls, contested, want, rng, notes)
    tell("groups")
    groups = _grouped(x, ratings, is_contested, tree, want, rng)
    tell("councils")
    flagged = flags(x)
    found = Analysis(
        source=ratings.source,
        settings=want,
        categories=categories,
        controls=controls,
        contested=contested,
        anchors=anchors,
        counts=_counts(ratings),
        missing=[(*key, n) for key, n in sorted(ratings.missing.items())],
        k=k,
        flag=flag_threshold(x.shape[1]),
        pairs=_pair_rows(x, ratings, k, corrected, flagged),
        models=_model_rows(x, ratings, tree, anchors),
        summaries={c: category_summary(x[labels == i], step=want.step) for i, c in enumerate(categories)},
        spreads=_spreads(x, labels, categories, want, rng),
        comparisons=comparisons,
        steps=steps,
        trend=trend,
        adjusted_trend=adjusted,
        components=None,
        designs=[],
        reliability=_reliability(x, labels, categories),
        order_noise=None,
        variants=None,
        groups=groups,
        clusters=tree,
        dimensions=None,
        distinct={},
        votes=None,
        councils=_councils(x, flagged, is_contested, tree, labels, controls, categories, want),
        sensitivity=_sensitivity(x, labels, controls, contested, categories, want),
        calibrated={},
        illusion={},
        ratings=x,
        notes=notes,
    )
    _add_components(found, ratings)
    _add_raters(found, x, ratings, is_contested)
    _add_anchored(found, x, ratings, labels)
    return found


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
            raise InputError(_unknown("--order names", name, ratings.categories))
    if len(set(want.order)) < len(want.order) or len(want.order) == 1:
        raise InputError("--order names two categories or more, each once, from the least to the most divergent")
    if not 0 < want.tau < 1 or not 0.5 < want.level < 1 or not 0 < want.step <= 1:
        raise InputError("--tau and the step of the scale lie between 0 and 1, --level between .5 and 1")
    if want.rarefied is not None and not 2 <= want.rarefied <= x.shape[1]:
        raise InputError(f"--rarefy takes 2 to {x.shape[1]} models, of which there are so many; got {want.rarefied}")


def _unknown(what: str, name: str, there: Sequence[str]) -> str:
    return (
        f"{what} the category {cut(printable(repr(name)), 80)}, which no pair has; there are: {cut(', '.join(map(printable, there)), 300)}"
    )


def _named(given: tuple[str, ...], usual: tuple[str, ...], there: Sequence[str], what: str) -> tuple[str, ...]:
    """Categories that are meant: those given, by name or pattern, else those whose names say so."""
    for one in given:
        if not any(one == c or fnmatchcase(c, one) for c in there):
            raise InputError(_unknown(f"--{what} names", one, there))
    patterns = given or usual
    return tuple(c for c in there if any(c == p or fnmatchcase(c.lower() if not given else c, p) for p in patterns))


def _has_repeats(ratings: Ratings) -> bool:
    return bool((np.isfinite(ratings.repeats()).sum(axis=2) > 1).any())


def _rated(x: FloatArray) -> FloatArray:
    """Only models and pairs that anything is known of."""
    return x[np.isfinite(x).any(axis=1)][:, np.isfinite(x).any(axis=0)]


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


def _pair_rows(x: FloatArray, ratings: Ratings, k: int, corrected: FloatArray, flagged: FloatArray) -> list[PairRow]:
    of, rarefied = pair_dispersion(x), rarefied_range(x, k)
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
                ratings.models[int(np.nanargmin(x[i]))] if some else None,
                ratings.models[int(np.nanargmax(x[i]))] if some else None,
                _number(ratings.reference[i]),
                _number(illusion[i]),
            )
        )
    return out


def _model_rows(x: FloatArray, ratings: Ratings, tree: ClusterReport | None, anchors: Sequence[str]) -> list[ModelRow]:
    is_anchor = np.array([c in anchors for c in ratings.category])
    use = scale_use(x, np.where(is_anchor, ratings.reference, np.nan))
    orders = _orders(ratings)
    effect = None if orders is None else order_effect(*orders)
    unfit = [] if effect is None else effect.unfit(flag_threshold(2))
    at = dict(zip(np.flatnonzero(np.isfinite(x).any(axis=0)).tolist(), [] if tree is None else tree.labels.tolist(), strict=False))
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
            at.get(m),
            ratings.modes.get(name, ()),
        )
        for m, name in enumerate(ratings.models)
    ]


def _orders(ratings: Ratings) -> tuple[FloatArray, FloatArray] | None:
    """(pairs, models) ratings with the sentences in either order; None where there are not two."""
    if len(ratings.orders) != 2:
        return None
    with np.errstate(invalid="ignore"):
        by = ratings.x.reshape(len(ratings.pairs), len(ratings.models), 2, -1)
        known = np.isfinite(by)
        mean = np.where(known, by, 0.0).sum(axis=3) / np.where(known.any(axis=3), known.sum(axis=3), np.nan)
    return mean[:, :, 0], mean[:, :, 1]


# -- categories ----------------------------------------------------------------------------------------------------------------


def _spreads(
    x: FloatArray, labels: IntArray, categories: Sequence[str], want: Settings, rng: np.random.Generator
) -> dict[str, tuple[float, float | None, float | None]]:
    """By category, the mean Gini mean difference with limits over models and pairs; without limits where models are too few."""
    out = {}
    enough = int(np.isfinite(x).any(axis=0).sum()) >= MIN_MODELS
    ensemble = ensemble_bootstrap(x, RAW, rng=rng, resamples=want.resamples, step=want.step) if enough else None
    for code, name in enumerate(categories):
        of = pair_dispersion(x[labels == code]).gmd
        of = of[np.isfinite(of)]
        if not len(of):
            continue
        low, high = (None, None) if ensemble is None else mean_dispersion(ensemble, labels == code, rng=rng, level=want.level)
        out[name] = (float(of.mean()), low, high)
    return out


def _compared(
    x: FloatArray,
    ratings: Ratings,
    labels: IntArray,
    controls: Sequence[str],
    contested: Sequence[str],
    want: Settings,
    rng: np.random.Generator,
    notes: list[str],
) -> tuple[list[Comparison], list[Comparison], Trend | None, Trend | None]:
    """Every contested category against the controls, every step of the expected order, and the staircase as a whole."""
    categories = ratings.categories
    judge = _Judge(x, labels, categories, _topics(ratings), want, rng)
    if not controls or not contested:
        notes.append("no category is known to be a control, so none is compared with it; name it with --control")
    second = tuple(categories.index(c) for c in controls)
    asked = [(c, " and ".join(controls), (categories.index(c),), second) for c in contested if controls]
    comparisons = judge.family(asked, notes)
    order = want.order
    steps = judge.family([(b, a, (categories.index(b),), (categories.index(a),)) for a, b in pairwise(order)], notes)
    if not order:
        return comparisons, steps, None, None
    codes = tuple(categories.index(c) for c in order)
    trends = [
        _possible(lambda y=y: ordered_trend(y, labels, codes, rng=rng, topics=judge.topics, draws=want.draws))[0]  # type: ignore[misc]
        for y in (judge.raw, judge.adjusted)
    ]
    return comparisons, steps, trends[0], trends[1]


def _topics(ratings: Ratings) -> IntArray | None:
    """Codes of topics; a pair without one is alone in its own."""
    if ratings.topic is None or len(set(ratings.topic)) < 2:
        return None
    names: dict[Any, int] = {}
    return np.array([names.setdefault(i if t is None else t, len(names)) for i, t in enumerate(ratings.topic)], dtype=np.int64)


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
        self.ensembles = (
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
                notes.append(f"{first} is not compared with {second}: {why}")
                continue
            found.append((first, second, *tests, *self._ratios(codes)))
        raw, adjusted = holm([f[2].p for f in found]), holm([f[3].p for f in found])
        return [
            Comparison(*f, p_holm=p, adjusted_p_holm=q, finding=_finding(f[2], f[3], p, q, 1 - self.want.level))
            for f, p, q in zip(found, raw, adjusted, strict=True)
        ]

    def _tests(self, codes: IntArray) -> tuple[tuple[Contrast, Contrast] | None, str]:
        topics = self.topics

        def both(topics: IntArray | None) -> tuple[Contrast, Contrast]:
            one, two = (
                category_contrast(y, codes, 1, 0, rng=self.rng, topics=topics, draws=self.want.draws) for y in (self.raw, self.adjusted)
            )
            return one, two

        found, why = _possible(lambda: both(topics))
        if found is None and topics is not None:
            found, why = _possible(lambda: both(None))
        return found, why

    def _ratios(self, codes: IntArray) -> tuple[LogRatio | None, LogRatio | None]:
        if self.ensembles is None:
            return None, None
        one, two = (
            _possible(lambda e=e: log_ratio(e, codes, 1, 0, rng=self.rng, topics=self.topics, level=self.want.level))[0]  # type: ignore[misc]
            or _possible(lambda e=e: log_ratio(e, codes, 1, 0, rng=self.rng, level=self.want.level))[0]  # type: ignore[misc]
            for e in self.ensembles
        )
        return one, two


def _finding(raw: Contrast, adjusted: Contrast, p: float, q: float, alpha: float) -> Finding:
    if p > alpha:
        return "not shown"
    if q > alpha or (raw.difference > 0) != (adjusted.difference > 0):
        return "only before adjustment"
    return "more divergent" if raw.difference > 0 else "less divergent"


def _sensitivity(
    x: FloatArray, labels: IntArray, controls: Sequence[str], contested: Sequence[str], categories: Sequence[str], want: Settings
) -> dict[str, dict[str, float | None]]:
    """Ratio of contested to control by what is done about missing ratings; empty where none is missing."""
    if np.isfinite(x).all() or not controls:
        return {}
    low, high = (np.where(np.isfinite(x), x, f(x, axis=1, keepdims=True)) for f in (np.nanmin, np.nanmax))
    ways = {
        "pairs that every model rated": x[np.isfinite(x).all(axis=1)],
        "ratings there are": x,
        "missing as the lowest": low,
        "missing as the highest": high,
    }
    of_ways = {"pairs that every model rated": labels[np.isfinite(x).all(axis=1)]}
    is_control = [categories.index(c) for c in controls]
    out: dict[str, dict[str, float | None]] = {}
    for way, values in ways.items():
        codes = of_ways.get(way, labels)
        y = log_dispersion(values, RAW, step=want.step) if len(values) else np.array([])
        control = y[np.isin(codes, is_control)]
        control = control[np.isfinite(control)]
        out[way] = {}
        for c in contested:
            of = y[codes == categories.index(c)]
            of = of[np.isfinite(of)]
            out[way][c] = exp(float(of.mean() - control.mean())) if len(of) and len(control) else None
    return out


# -- components, groups, raters, councils --------------------------------------------------------------------------------------


def _add_components(found: Analysis, ratings: Ratings) -> None:
    facets = ("pair", "model", "order", "variant")
    components, why = _possible(lambda: variance_components(ratings.x, facets))
    found.components = components
    if components is None:
        found.notes.append(f"no variance components: {why}")
    else:
        counts = {f: n for f, n in components.levels.items() if f not in ("pair", "model")}
        repeats = np.isfinite(ratings.x).sum(axis=4)
        counts["repeat"] = max(1, round(float(repeats[repeats > 0].mean())))
        designs, _ = _possible(lambda: d_table(components, counts))
        found.designs = [
            {"counts": d.counts, "reliability": d.reliability, "inflation": d.inflation, "error": d.error, "se": d.se}
            for d in designs or ()
        ]
    orders = _orders(ratings)
    if orders is not None:
        found.order_noise = order_effect(*orders).noise_sd
    if len(ratings.variants) > 1:
        shape = (len(ratings.pairs), len(ratings.models), len(ratings.variants))
        by = np.moveaxis(ratings.x, 3, 2).reshape(*shape, -1)
        known = np.isfinite(by)
        mean = np.where(known, by, 0.0).sum(axis=3) / np.where(known.any(axis=3), known.sum(axis=3), np.nan)
        stable = variant_stability(mean)
        found.variants = (stable.tau, int(np.nansum(stable.divergent)), int((stable.flagged > 0).sum()))


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


def _grouped(
    x: FloatArray,
    ratings: Ratings,
    is_contested: npt.NDArray[np.bool_],
    tree: ClusterReport | None,
    want: Settings,
    rng: np.random.Generator,
) -> list[GroupRow]:
    """Every column of groups on the contested pairs and on all, adjusted over columns within each."""
    out: list[GroupRow] = []
    kin = next((name for name in FAMILY if name in ratings.groups), None)
    where = [("contested pairs", is_contested)] if is_contested.any() and not is_contested.all() else []
    for on, rows in (*where, ("all pairs", np.ones(len(x), dtype=bool))):
        made = [_group_row(x[rows], ratings, column, on, kin, tree, want, rng) for column in ratings.groups if column != "parent"]
        tested = [row.share.p for row in made if row.share is not None and row.share.p is not None]
        adjusted = iter(holm(tested))
        out += [
            row
            if row.share is None or row.share.p is None
            else GroupRow(row.column, row.labels, row.unlabelled, row.on, row.share, next(adjusted), row.clusters, row.reason)
            for row in made
        ]
    return out


def _group_row(
    x: FloatArray,
    ratings: Ratings,
    column: str,
    on: str,
    kin: str | None,
    tree: ClusterReport | None,
    want: Settings,
    rng: np.random.Generator,
) -> GroupRow:
    of = ratings.groups[column]
    known = [m for m, label in enumerate(of) if label is not None]
    names = tuple(dict.fromkeys(str(of[m]) for m in known))
    sizes = {name: sum(of[m] == name for m in known) for name in names}
    labels = np.array([names.index(str(of[m])) for m in known], dtype=np.int64)
    units, strata, notes = _kinship(ratings, column, kin, known, labels)
    share, why = _possible(
        lambda: group_share(x[:, known], labels, rng=rng, units=units, strata=strata, permutations=want.draws, level=want.level)
    )
    if share is None and (units is not None or strata is not None):
        alone, _ = _possible(lambda: group_share(x[:, known], labels, rng=rng, permutations=want.draws, level=want.level))
        if alone is not None:
            share, notes = alone, f"models of one {kin} are taken for independent, as there is no other labelling that keeps them together"
    few = [name for name, n in sizes.items() if n < 5]
    if share is not None and few:
        notes = "; ".join(
            filter(None, [notes, f"fewer than five models in {cut(', '.join(map(printable, few)), 100)}: too few for a claim about groups"])
        )
    agreement = None
    rated = np.flatnonzero(np.isfinite(ratings.means()).any(axis=0)).tolist()
    if tree is not None and on != "all pairs" and known == rated:
        agreement, _ = _possible(lambda: rand_agreement(tree.labels, labels, rng=rng, permutations=want.draws))
    return GroupRow(column, sizes, len(of) - len(known), on, share, None, agreement, why if share is None else notes)


def _kinship(
    ratings: Ratings, column: str, kin: str | None, known: Sequence[int], labels: IntArray
) -> tuple[IntArray | None, IntArray | None, str]:
    """(units, strata, what was done): labels of kin are moved together where they are alike, else exchanged among kin alone."""
    if kin is None or kin == column:
        return None, None, ""
    of = [ratings.groups[kin][m] for m in known]
    codes: dict[Any, int] = {}
    unit = np.array([codes.setdefault(i if name is None else name, len(codes)) for i, name in enumerate(of)], dtype=np.int64)
    if len(codes) == len(known):
        return None, None, ""
    if all(len(set(labels[unit == u].tolist())) == 1 for u in range(len(codes))):
        return unit, None, f"labels of one {kin} are moved together"
    return None, unit, f"labels are exchanged within one {kin} only"


def _add_raters(found: Analysis, x: FloatArray, ratings: Ratings, is_contested: npt.NDArray[np.bool_]) -> None:
    rows = is_contested if is_contested.any() else np.ones(len(x), dtype=bool)
    found.dimensions, why = _possible(lambda: dimensions(_rated(x[rows])))
    if found.dimensions is None:
        found.notes.append(f"no dimensions of disagreement: {why}")
    is_control = np.array([c in found.controls for c in ratings.category])
    for name, of in (("contested", rows), ("control", is_control)):
        if of.any():
            one, _ = _possible(lambda of=of: distinct_raters(_rated(x[of])))  # type: ignore[misc]
            found.distinct |= {} if one is None else {name: one}
    outside = np.where(np.array([c in found.anchors for c in ratings.category]), np.nan, ratings.reference)
    if np.isfinite(outside).sum() >= 3:
        found.votes, why = _possible(lambda: independent_votes(x, outside))
        found.notes += [f"no independent votes: {why}"] if found.votes is None else []


def _councils(
    x: FloatArray,
    flagged: FloatArray,
    is_contested: npt.NDArray[np.bool_],
    tree: ClusterReport | None,
    labels: IntArray,
    controls: Sequence[str],
    categories: Sequence[str],
    want: Settings,
) -> list[CouncilRow]:
    """Blind spots by the size of a council, on contested pairs that the whole ensemble flags."""
    rows = (flagged == 1) & (is_contested if is_contested.any() else True)
    calm = np.isin(labels, [categories.index(c) for c in controls])
    if not rows.any():
        return []
    there = np.isfinite(x).any(axis=0)
    out = []
    for k in range(2, min(7, int(there.sum()) - 1) + 1):
        rates = blind_spots(x[rows], k, want.tau)
        within = across = None
        if tree is not None and is_contested.any():
            one, two = blind_spots_by_cluster(x[rows][:, there], tree.labels, k, want.tau)
            within, across = (_mean(one), _mean(two))
        rate = _mean(rates)
        if rate is not None:
            out.append(CouncilRow(k, rate, within, across, _mean(blind_spots(x[calm], k, want.tau)) if calm.any() else None))
    return out


def _mean(values: FloatArray) -> float | None:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def _add_anchored(found: Analysis, x: FloatArray, ratings: Ratings, labels: IntArray) -> None:
    """What needs known ratings: divergence after calibration on the anchors, and consensus that is displaced."""
    is_anchor = np.array([c in found.anchors for c in ratings.category])
    anchored = np.where(is_anchor, ratings.reference, np.nan)
    if np.isfinite(anchored).sum() >= 3:
        ratings_again, why = _possible(lambda: calibrate(x, anchored))
        if ratings_again is None:
            found.notes.append(f"no calibration on the anchors: {why}")
        else:
            lost = [ratings.models[m] for m in np.flatnonzero(~ratings_again.fitted)]
            if lost:
                found.notes.append(
                    f"not calibrated, as they do not rate the anchors in their order: {cut(', '.join(map(printable, lost)), 200)}"
                )
            spread = pair_dispersion(ratings_again.ratings).gmd
            found.calibrated = {c: _mean(spread[labels == i]) for i, c in enumerate(found.categories) if c not in found.anchors}
    index = consensus_illusion(x, ratings.reference)
    if np.isfinite(index).any():
        found.illusion = {c: _mean(index[labels == i]) for i, c in enumerate(found.categories) if c not in found.anchors}
