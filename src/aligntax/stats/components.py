"""What ratings vary with: pairs, models, what a model makes of a pair, the order of the two texts, the wording, chance.

All effects are random and the design is crossed; repeats are within cells. Components are Henderson's (1953, Biometrics 9:226, his method 1):
for every subset of the facets the uncorrected sum of squares is set equal to its expectation, which is linear in the components. On
complete data that is the analysis of variance, with ratings missing at random it is still unbiased. Estimates below 0 are kept as they are: they
say that a component is small, and replacing them by 0 before averaging or adding would bias what follows; report 0 beside the raw value.

Divergence is spread between models within a pair, so a component counts towards it, or towards its error, if it involves the model; what all
models share (a pair's mean, an order that shifts all of them) does not.

Sources: intraclass correlations McGraw and Wong 1996 (Psychol. Methods 1:30) and Shrout and Fleiss 1979 (Psychol. Bull. 86:420); alpha
Krippendorff 2011, Computing Krippendorff's alpha-reliability; generalizability and decision studies Cronbach et al. 1972 and Brennan 2001,
Generalizability Theory; isotonic regression Barlow et al. 1972.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from math import inf, prod, sqrt

import numpy as np

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.dispersion import dispersion, flags

Effect = tuple[str, ...]

PAIR, MODEL, REPEAT = "pair", "model", "repeat"

UNIVERSE: Mapping[str, int] = {"order": 2}
"""Facets of which there are only so many levels: two texts have two orders. Asking in both leaves nothing of the order's error."""

GRID = 0.05
_CLOSE = 1e-6
_SINGULAR = 1e-9


@dataclass(frozen=True)
class Components:
    """Variance components.

    Attributes:
        effects: raw variance of every effect, by the facets it involves; may be below 0. Without repeats the effect of all facets holds the
            noise too.
        noise: variance of repeats within a cell; None without repeats.
        levels: levels of every facet that has more than one; a facet of one level has no effects of its own: they are part of the others.
        ratings: how many there are.
    """

    effects: dict[Effect, float]
    noise: float | None
    levels: dict[str, int]
    ratings: int

    @property
    def negative(self) -> list[Effect]:
        """Effects whose raw estimate is below 0."""
        return [effect for effect, value in self.effects.items() if value < 0]

    def reported(self, *effect: str) -> float:
        """The component, 0 where its estimate is below."""
        return max(self.effects[effect], 0.0)


def variance_components(x: FloatArray, facets: Sequence[str]) -> Components:
    """Components of a crossed design with repeats.

    Args:
        x: one axis for every facet, and a last one for repeats (of length 1 if there are none); NaN where missing.
        facets: their names, in the order of the axes.

    Raises:
        ValueError: if axes and names do not agree, no facet has two levels, ratings are infinite, or so many are missing that the
            components cannot be told apart.
    """
    if x.ndim != len(facets) + 1 or len(set(facets)) < len(facets):
        raise ValueError(
            f"{len(facets)} facets and repeats are {len(facets) + 1} axes with a name each; got {x.ndim} axes and {list(facets)}"
        )
    if np.isinf(x).any():
        raise ValueError("ratings must be finite, or NaN where missing")
    single = tuple(i for i in range(len(facets)) if x.shape[i] == 1)
    names = tuple(name for i, name in enumerate(facets) if i not in single)
    if not names:
        raise ValueError(f"none of {', '.join(facets)} has two levels: there is nothing to compare")
    x = x.squeeze(axis=single)
    given = ~np.isnan(x)
    if not given.any():
        raise ValueError("there are no ratings")
    centered = np.where(given, x - np.nanmean(x), 0.0)  # components do not depend on the mean; sums of squares round less without it
    counts, sums = given.sum(axis=-1).astype(np.float64), centered.sum(axis=-1)
    repeated = bool((counts >= 2).any())
    subsets = list(chain.from_iterable(combinations(range(len(names)), r) for r in range(len(names) + 1)))
    matrix, squares = _equations(counts, sums, subsets)
    n = float(counts.sum())
    if repeated:
        matrix = np.vstack([matrix, np.full((1, len(subsets) + 1), n)])
        squares = np.append(squares, np.sum(centered**2))
    else:
        matrix = matrix[:, :-1]
    found = _solve(matrix / n, squares / n, names)
    effects = {tuple(names[i] for i in s): float(v) for s, v in zip(subsets, found, strict=False) if s}
    return Components(effects, float(found[-1]) if repeated else None, dict(zip(names, x.shape[:-1], strict=True)), int(n))


def _equations(counts: FloatArray, sums: FloatArray, subsets: Sequence[tuple[int, ...]]) -> tuple[FloatArray, FloatArray]:
    """Coefficients of mean^2, the effects and the noise in the expected sum of squares of every subset, and the sums of squares.

    A unit of an effect E adds to the sum of squares of S the sum over levels of S of (sum over levels of E within of n^2) / n; the noise adds
    the number of levels of S that have ratings.
    """
    n = {s: _collapse(counts, s) for s in subsets}
    squared = {s: _over(_collapse(sums, s) ** 2, n[s]) for s in subsets}
    added = {(s, u): _over(_collapse(n[u] ** 2, s), n[s]) for s in subsets for u in subsets if set(s) <= set(u)}
    rows = [[*(added[s, tuple(sorted({*s, *e}))] for e in subsets), float(np.count_nonzero(n[s]))] for s in subsets]
    return np.array(rows), np.array([squared[s] for s in subsets])


def _collapse(values: FloatArray, kept: tuple[int, ...]) -> FloatArray:
    """Summed over all other axes, which stay with length 1."""
    return np.asarray(values.sum(axis=tuple(i for i in range(values.ndim) if i not in kept), keepdims=True))


def _over(values: FloatArray, n: FloatArray) -> float:
    """Sum of values / n over the levels that have ratings."""
    return float(np.sum(np.divide(values, n, out=np.zeros_like(n), where=n > 0)))


def _solve(matrix: FloatArray, squares: FloatArray, names: tuple[str, ...]) -> FloatArray:
    if np.linalg.svd(matrix, compute_uv=False)[-1] < _SINGULAR:
        raise ValueError(f"the ratings that are there do not tell the components of {' x '.join(names)} apart: too many are missing")
    return np.asarray(np.linalg.solve(matrix, squares))


@dataclass(frozen=True)
class TwoWay:
    """Ratings of pairs by models, one each: components, mean squares, intraclass correlations.

    ``icc_1``, ``icc_a1`` and ``icc_c1`` are ICC(1,1), ICC(A,1) and ICC(C,1) of McGraw and Wong; with ``_k`` those of the mean of all models. All
    depend on how different the pairs' means are: categories are not compared by them, but by dispersion.

    Attributes:
        pairs, models, ratings: counts.
        var_pair, var_model: raw components; may be below 0.
        var_rest: raw component of what a model makes of a pair, noise included.
        icc_1: from the one-way analysis of pairs; None, as the others, where its denominator is not above 0.
        complete: whether no rating is missing.
    """

    pairs: int
    models: int
    ratings: int
    var_pair: float
    var_model: float
    var_rest: float
    icc_1: float | None
    complete: bool

    @property
    def ms_pair(self) -> float | None:
        """Mean square of pairs; None where ratings are missing."""
        return self.var_rest + self.models * self.var_pair if self.complete else None

    @property
    def ms_model(self) -> float | None:
        """Mean square of models; None where ratings are missing."""
        return self.var_rest + self.pairs * self.var_model if self.complete else None

    @property
    def icc_a1(self) -> float | None:
        return _share(self.var_pair, self.var_model + self.var_rest)

    @property
    def icc_c1(self) -> float | None:
        return _share(self.var_pair, self.var_rest)

    @property
    def icc_a1_k(self) -> float | None:
        return _share(self.var_pair, (self.var_model + self.var_rest) / self.models)

    @property
    def icc_c1_k(self) -> float | None:
        return _share(self.var_pair, self.var_rest / self.models)


def _share(signal: float, rest: float) -> float | None:
    return signal / (signal + rest) if signal + rest > 0 else None


def two_way(x: FloatArray) -> TwoWay:
    """Pairs by models without repeats. On complete data the mean over pairs of sd^2 is var_model + var_rest exactly.

    Args:
        x: (pairs, models) ratings, NaN where missing.

    Raises:
        ValueError: with fewer than two pairs or models, or what ``variance_components`` refuses.
    """
    _shape(x, 2)
    found = variance_components(x[..., None], (PAIR, MODEL))
    one_way = variance_components(x, (PAIR,))
    assert one_way.noise is not None
    return TwoWay(
        pairs=x.shape[0],
        models=x.shape[1],
        ratings=found.ratings,
        var_pair=found.effects[(PAIR,)],
        var_model=found.effects[(MODEL,)],
        var_rest=found.effects[(PAIR, MODEL)],
        icc_1=_share(one_way.effects[(PAIR,)], one_way.noise),
        complete=found.ratings == x.size,
    )


def _shape(x: FloatArray, axes: int) -> None:
    if x.ndim != axes or min(x.shape[:2]) < 2:
        wanted = ("pairs", "models", "repeats")[:axes]
        raise ValueError(f"ratings are ({', '.join(wanted)}) with two pairs and two models or more; got the shape {x.shape}")


@dataclass(frozen=True)
class Repeated:
    """Ratings of pairs by models with repeats.

    Attributes:
        var_pair, var_model, var_pair_model, noise: raw components; may be below 0 but for the noise.
        retest: correlation of two ratings by one model of one pair, the one-way intraclass correlation of cells; None where nothing varies.
        sem: standard error of measurement of a single rating, sqrt(noise).
    """

    var_pair: float
    var_model: float
    var_pair_model: float
    noise: float
    retest: float | None

    @property
    def sem(self) -> float:
        return sqrt(self.noise)


def repeated(x: FloatArray) -> Repeated:
    """Pairs by models with repeats.

    Args:
        x: (pairs, models, repeats) ratings, NaN where missing.

    Raises:
        ValueError: with fewer than two pairs or models, no cell with two repeats, or what ``variance_components`` refuses.
    """
    _shape(x, 3)
    found = variance_components(x, (PAIR, MODEL))
    cells = x.reshape(-1, x.shape[2])
    one_way = variance_components(cells, ("cell",))
    if found.noise is None or one_way.noise is None:
        raise ValueError("no model rated a pair twice: noise cannot be told from divergence")
    e = found.effects
    return Repeated(e[(PAIR,)], e[(MODEL,)], e[(PAIR, MODEL)], found.noise, _share(one_way.effects[("cell",)], one_way.noise))


def krippendorff_alpha(x: FloatArray) -> float | None:
    """Krippendorff's alpha for interval data: 1 - observed / expected disagreement.

    Observed is the mean over ratings of their unit's variance, expected the variance of all; units with one rating are dropped. None where
    there is no unit with two, or nothing varies.

    Args:
        x: (pairs, models) ratings, NaN where missing.

    Raises:
        ValueError: for infinite ratings.
    """
    x = x[np.count_nonzero(~np.isnan(x), axis=1) >= 2]
    values = x[~np.isnan(x)]
    if len(values) == 0 or float(np.ptp(values)) == 0:
        return None
    m = np.count_nonzero(~np.isnan(x), axis=1)
    observed = float(np.sum(m * dispersion(x, "sd") ** 2)) / len(values)
    return 1 - observed / float(values.var(ddof=1))


@dataclass(frozen=True)
class NoiseCorrected:
    """Divergence of every pair without the noise of single ratings, (pairs,) each; NaN where a pair has fewer than two models.

    Attributes:
        raw: standard deviation of the models' mean ratings.
        variance: raw^2 less what noise adds to it; below 0 where the models are closer than their noise would bring them.
        corrected: its square root, 0 where it is below 0.
        noise: variance of one rating that was used; NaN where nothing was repeated.
    """

    raw: FloatArray
    variance: FloatArray
    corrected: FloatArray
    noise: FloatArray

    @property
    def negative(self) -> int:
        """Pairs reported as 0 whose estimate is below."""
        return int(np.count_nonzero(self.variance < 0))


def noise_corrected(x: FloatArray, *, pooled: bool = False) -> NoiseCorrected:
    """D^2 = s^2 of the models' means less the mean over models of noise / repeats.

    Noise differs between pairs: near the ends of the scale there is little, on pairs that models are unsure of there is much. A noise pooled
    over all pairs therefore takes too much off calm pairs and too little off contested ones, and inflates their ratio; each pair's own is
    unbiased whatever the others do, with models x (repeats - 1) degrees of freedom. ``pooled`` is for few of these.

    Args:
        x: (pairs, models, repeats) ratings, NaN where missing.
        pooled: one noise for all pairs.

    Raises:
        ValueError: for another number of axes, or infinite ratings.
    """
    if x.ndim != 3:
        raise ValueError(f"ratings are (pairs, models, repeats); got the shape {x.shape}")
    if np.isinf(x).any():
        raise ValueError("ratings must be finite, or NaN where missing")
    given = ~np.isnan(x)
    k = given.sum(axis=2)
    cells = np.divide(np.where(given, x, 0.0).sum(axis=2), k, out=np.full(k.shape, np.nan), where=k > 0)
    within = np.where(given, x - cells[..., None], 0.0) ** 2
    squares, df = within.sum(axis=(1, 2)), np.maximum(k - 1, 0).sum(axis=1)
    if pooled:
        squares, df = np.full(len(x), squares.sum()), np.full(len(x), df.sum())
    noise = np.divide(squares, df, out=np.full(len(x), np.nan), where=df > 0)
    raw = dispersion(cells, "sd")
    rated = (k > 0).sum(axis=1)
    share = np.divide(1.0, k, out=np.zeros(k.shape), where=k > 0).sum(axis=1) / np.maximum(rated, 1)
    variance = raw**2 - noise * share
    return NoiseCorrected(raw, variance, np.sqrt(np.maximum(variance, 0.0)), noise)


@dataclass(frozen=True)
class OrderEffect:
    """Ratings of (A, B) less those of (B, A), which would be 0 since similarity is symmetric.

    Attributes:
        signed: (models,) mean difference; NaN for a model without a pair rated in both orders.
        absolute: (models,) mean absolute difference.
        pairs: (models,) pairs rated in both orders.
        mean_absolute: over all differences; None without any.
        noise_sd: root mean square of the differences over sqrt 2: the SD of one rating, order included; None without any.
        symmetrised: (pairs, models) mean of both orders, NaN where one is missing.
    """

    signed: FloatArray
    absolute: FloatArray
    pairs: IntArray
    mean_absolute: float | None
    noise_sd: float | None
    symmetrised: FloatArray

    def unfit(self, threshold: float) -> list[int]:
        """Models whose mean absolute difference is above the flag threshold: they cannot carry a divergence."""
        return [i for i, value in enumerate(self.absolute) if value > threshold]


def order_effect(ab: FloatArray, ba: FloatArray) -> OrderEffect:
    """Both orders of the same pairs.

    Args:
        ab: (pairs, models) ratings, NaN where missing.
        ba: (pairs, models), the texts exchanged.

    Raises:
        ValueError: if the shapes differ.
    """
    if ab.shape != ba.shape or ab.ndim != 2:
        raise ValueError(f"both orders are (pairs, models); got the shapes {ab.shape} and {ba.shape}")
    d = ab - ba
    given = ~np.isnan(d)
    n = given.sum(axis=0)
    values = np.where(given, d, 0.0)
    signed, absolute = (np.divide(v.sum(axis=0), n, out=np.full(len(n), np.nan), where=n > 0) for v in (values, np.abs(values)))
    total = int(n.sum())
    mean_absolute = float(np.abs(values).sum()) / total if total else None
    noise = sqrt(float(np.sum(values**2)) / total / 2) if total else None
    return OrderEffect(signed, absolute, n.astype(np.int64), mean_absolute, noise, (ab + ba) / 2)


@dataclass(frozen=True)
class Design:
    """One row of a decision study: what so many orders, wordings and repeats make of the divergence of an average pair.

    Attributes:
        counts: levels of every facet but pair and model, and repeats in each cell.
        signal: variance between models within a pair that remains with any number of wordings and repeats.
        error: variance that the rest adds to a model's mean rating.
        reliability: signal / (signal + error), of differences between models within a pair; None where both are 0.
        inflation: sqrt((signal + error) / signal), how many times too large the uncorrected standard deviation is; None without a signal.
        se_variance: standard error of the corrected variance s^2 - error from noise alone, given these models.
        se: that of its square root, se_variance / (2 sqrt signal); None where se_variance exceeds the signal: the root is then mostly noise.
    """

    counts: dict[str, int]
    signal: float
    error: float
    reliability: float | None
    inflation: float | None
    se_variance: float
    se: float | None


def d_study(
    components: Components, counts: Mapping[str, int], *, models: int | None = None, universe: Mapping[str, int] = UNIVERSE
) -> Design:
    """What a design with so many levels would give, from the components of one that was run.

    Every effect E that involves the model adds var_E / (product of the levels of its facets) to a mean rating. Of that, var_E / (product of the
    universe's sizes) is common to all designs and belongs to the signal: 0, but for facets like the order of which there are only two levels
    (Brennan 2001, section 5.1). Components below 0 count as 0. Given the models' true ratings of variance S and independent normal errors of
    variance E, s^2 of M models has the variance (4 S E + 2 E^2) / (M - 1), that of a non-central chi-square.

    Args:
        components: of ``variance_components``, with facets pair and model among them.
        counts: levels of every other facet and of ``repeat``; a facet or repeats not named have 1.
        models: models of the new design; those of the old if None.
        universe: levels there are of a facet; unlimited if not named.

    Raises:
        ValueError: if no facet separates noise from divergence, or a count is not between 1 and what there is.
    """
    if MODEL not in components.levels:
        raise ValueError("a decision study of divergence needs two models or more")
    others = [f for f in components.levels if f not in (PAIR, MODEL)]
    if components.noise is None and not others:
        raise ValueError("without repeats, orders or wordings noise cannot be told from divergence")
    known = [*others, *([REPEAT] if components.noise is not None else [])]
    wanted = {**dict.fromkeys(known, 1), **counts}
    for name, n in wanted.items():
        most = universe.get(name, inf) if name in known else 1
        if not 1 <= n <= most:
            raise ValueError(
                f"{name} can have {'1 level' if most == 1 else f'1 to {most} levels'} here, got {n}; components are known of {known}"
            )
    signal, error = _signal_and_error(components, wanted, universe)
    m = components.levels[MODEL] if models is None else models
    if m < 2:
        raise ValueError(f"a divergence needs two models or more, got {m}")
    se_variance = sqrt((4 * signal * error + 2 * error**2) / (m - 1))
    return Design(
        counts=wanted,
        signal=signal,
        error=error,
        reliability=_share(signal, error),
        inflation=sqrt((signal + error) / signal) if signal > 0 else None,
        se_variance=se_variance,
        se=se_variance / (2 * sqrt(signal)) if signal > 0 and se_variance <= signal else None,
    )


def _signal_and_error(components: Components, counts: Mapping[str, int], universe: Mapping[str, int]) -> tuple[float, float]:
    every = tuple(components.levels)
    signal = error = 0.0
    for effect, raw in components.effects.items():
        if MODEL not in effect:
            continue
        value, facets = max(raw, 0.0), [f for f in effect if f not in (PAIR, MODEL)]
        # without repeats the effect of all facets holds the noise, which no universe exhausts
        exhaustible = components.noise is not None or effect != every
        common = value / prod(universe.get(f, inf) for f in facets) if exhaustible else 0.0
        signal += common
        error += value / prod(counts[f] for f in facets) - common
    if components.noise is not None:
        error += components.noise / prod(counts[f] for f in (*every, REPEAT) if f not in (PAIR, MODEL))
    return signal, error


def d_table(components: Components, counts: Mapping[str, int], *, universe: Mapping[str, int] = UNIVERSE) -> list[Design]:
    """The design as it is, then with one more level of every facet of which there are more, and one more repeat.

    Repeats are among them only where there are some: without any their noise is not known.

    Raises:
        ValueError: as ``d_study``.
    """
    rows = [d_study(components, counts, universe=universe)]
    more = [f for f in components.levels if f not in (PAIR, MODEL)] + ([REPEAT] if components.noise is not None else [])
    for name in more:
        up = {**rows[0].counts, name: rows[0].counts[name] + 1}
        if up[name] <= universe.get(name, inf):
            rows.append(d_study(components, up, universe=universe))
    return rows


def quantisation_sd(step: float) -> float:
    """Standard deviation that rounding to a grid adds: step / sqrt 12 (a uniform error; Sheppard 1898)."""
    return step / sqrt(12)


@dataclass(frozen=True)
class VariantStability:
    """Whether the pairs that diverge are the same under every wording.

    Attributes:
        tau: mean Kendall tau-b of the pairs' Gini mean difference over all pairs of variants; None where it is undefined for one of them.
        flagged: (pairs,) variants in which the pair is flagged.
        rated: (pairs,) variants in which it has two ratings and more.
        divergent: (pairs,) 1.0 if flagged in the required number of variants, 0.0 if not, NaN if the variants without ratings decide.
    """

    tau: float | None
    flagged: IntArray
    rated: IntArray
    divergent: FloatArray


def variant_stability(x: FloatArray, *, required: int = 2) -> VariantStability:
    """Rank stability of divergences, and pairs flagged in several variants.

    Args:
        x: (pairs, models, variants) ratings, NaN where missing.
        required: variants in which a divergent pair is flagged.

    Raises:
        ValueError: with fewer than two variants, or than are required.
    """
    if x.ndim != 3 or x.shape[2] < 2 or not 1 <= required <= x.shape[2]:
        raise ValueError(
            f"ratings are (pairs, models, variants) with two variants or more, {required} of them flagged; got the shape {x.shape}"
        )
    by_variant = np.moveaxis(x, 2, 0)
    spread, flag = dispersion(by_variant, "gmd"), flags(by_variant)
    taus = [_tau(spread[i], spread[j]) for i, j in combinations(range(len(spread)), 2)]
    tau = float(np.mean(taus))
    rated = np.count_nonzero(~np.isnan(flag), axis=0).astype(np.int64)
    flagged = np.count_nonzero(flag == 1, axis=0).astype(np.int64)
    open_ = (flagged < required) & (flagged + len(flag) - rated >= required)
    divergent = np.where(open_, np.nan, (flagged >= required).astype(np.float64))
    return VariantStability(None if np.isnan(tau) else tau, flagged, rated, divergent)


def _tau(a: FloatArray, b: FloatArray) -> float:
    """Kendall's tau-b (Kendall 1945, Biometrika 33:239) of what both have; NaN where one of them is constant."""
    both = ~np.isnan(a) & ~np.isnan(b)
    x, y = (np.sign(v[both][:, None] - v[both]) for v in (a, b))
    size = sqrt(float(np.sum(x * x)) * float(np.sum(y * y)))
    return float(np.sum(x * y)) / size if size > 0 else np.nan


@dataclass(frozen=True)
class ScaleUse:
    """How one model uses the scale.

    Attributes:
        ratings, missing: how many it gave, and did not.
        distinct: different values.
        on_grid: share of multiples of .05; None, as all below, without ratings.
        entropy: of its values, in nats.
        kurtosis: fourth standardised moment (3 for a normal law, 1.8 for a uniform one), large where ratings pile up on a few values; None
            where all ratings are the same.
        at_ends: share at 0 or 1.
        slope, offset: of its ratings on the anchors' reference values, least squares; None with fewer than two different references rated.
    """

    ratings: int
    missing: int
    distinct: int
    on_grid: float | None
    entropy: float | None
    kurtosis: float | None
    at_ends: float | None
    slope: float | None
    offset: float | None


def scale_use(x: FloatArray, reference: FloatArray | None = None) -> list[ScaleUse]:
    """One entry for every model.

    Args:
        x: (pairs, models) ratings in [0, 1], NaN where missing.
        reference: (pairs,) reference value of anchor pairs, NaN for others; None without anchors.

    Raises:
        ValueError: if the lengths differ.
    """
    anchors = np.full(len(x), np.nan) if reference is None else reference
    if x.ndim != 2 or len(anchors) != len(x):
        raise ValueError(f"ratings are (pairs, models) with a reference for every pair; got the shapes {x.shape} and {anchors.shape}")
    return [_scale_use(column, anchors) for column in x.T]


def _scale_use(column: FloatArray, reference: FloatArray) -> ScaleUse:
    values = column[~np.isnan(column)]
    n = len(values)
    line = _line(column, reference)
    slope, offset = line if line is not None else (None, None)
    if n == 0:
        return ScaleUse(0, len(column), 0, None, None, None, None, slope, offset)
    _, counts = np.unique(np.rint(values / _CLOSE), return_counts=True)
    share = counts / n
    off = values - values.mean()
    second = float(np.mean(off**2))
    return ScaleUse(
        ratings=n,
        missing=len(column) - n,
        distinct=len(counts),
        on_grid=float(np.mean(np.abs(values / GRID - np.rint(values / GRID)) < _CLOSE / GRID)),
        entropy=float(-np.sum(share * np.log(share))),
        kurtosis=float(np.mean(off**4)) / second**2 if len(counts) > 1 else None,
        at_ends=float(np.mean((values <= 0) | (values >= 1))),
        slope=slope,
        offset=offset,
    )


def _line(y: FloatArray, reference: FloatArray) -> tuple[float, float] | None:
    both = ~np.isnan(y) & ~np.isnan(reference)
    if both.sum() < 2 or float(np.ptp(reference[both])) == 0:
        return None
    off = reference[both] - reference[both].mean()
    slope = float(off @ y[both]) / float(off @ off)
    return slope, float(y[both].mean() - slope * reference[both].mean())


@dataclass(frozen=True)
class Calibrated:
    """Ratings on the scale of the anchors.

    Attributes:
        ratings: (pairs, models) calibrated ratings of pairs that are no anchors; NaN for the anchors themselves and for models without a fit.
        fitted: (models,) whether the model has a fit: it rated three anchors or more, and rates higher what is more alike.
        beyond: (models,) share of its ratings outside those it gave to anchors, which are moved to the nearest: their spread is lost.
    """

    ratings: FloatArray
    fitted: np.ndarray[tuple[int], np.dtype[np.bool_]]
    beyond: FloatArray


def calibrate(x: FloatArray, reference: FloatArray) -> Calibrated:
    """Monotone calibration of every model on the anchors: isotonic regression of the reference on the model's rating, linear between.

    Anchors are left out of what is returned: on them models agree by construction. A model whose fit is flat (it does not tell the anchors
    apart, or in the wrong direction) has no calibrated ratings rather than all the same.

    Args:
        x: (pairs, models) ratings, NaN where missing.
        reference: (pairs,) reference value of anchor pairs, NaN for others.

    Raises:
        ValueError: if the lengths differ, or there are fewer than three anchors.
    """
    if x.ndim != 2 or len(reference) != len(x):
        raise ValueError(f"ratings are (pairs, models) with a reference for every pair; got the shapes {x.shape} and {reference.shape}")
    anchor = ~np.isnan(reference)
    if anchor.sum() < 3:
        raise ValueError(f"a calibration needs three anchors or more, got {int(anchor.sum())}")
    out, fitted, beyond = np.full(x.shape, np.nan), np.zeros(x.shape[1], dtype=np.bool_), np.full(x.shape[1], np.nan)
    for m, column in enumerate(x.T):
        curve = _monotone(column[anchor], reference[anchor])
        rows = np.flatnonzero(~anchor & ~np.isnan(column))
        if curve is None:
            continue
        fitted[m] = True
        given, level = curve
        out[rows, m] = np.interp(column[rows], given, level)
        if len(rows):
            beyond[m] = float(np.mean((column[rows] < given[0]) | (column[rows] > given[-1])))
    return Calibrated(out, fitted, beyond)


def _monotone(rating: FloatArray, reference: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Different ratings and their isotonic fit; None with fewer than three anchors, or where the fit is flat."""
    from scipy.optimize import isotonic_regression  # slow to import, and only this needs it

    some = ~np.isnan(rating)
    if some.sum() < 3:
        return None
    given, where, weights = np.unique(rating[some], return_inverse=True, return_counts=True)
    means = np.bincount(where, weights=reference[some]) / weights
    level = isotonic_regression(means, weights=weights).x
    return (given, level) if len(level) > 1 and level[-1] - level[0] > _CLOSE else None
