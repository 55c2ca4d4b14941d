"""Who disagrees with whom: distances between models, clusters of them, and how many different raters an ensemble has.

``x`` (P, M) holds ratings, NaN where missing. Two distances: ``level``, the mean over pairs of |x_i - x_j|, which keeps differences of level,
and ``pattern``, 1 - r on double-centred ratings, which keeps only what models find more alike than others do. Both are taken over the pairs
that two models both rated; two models without enough of them are refused, not guessed.

**"How many" has three answers**, and none of them is called the effective number of models:

- ``dimensions``: the participation ratio (sum l)^2/sum l^2 of the correlations of double-centred ratings. Two opposed camps are one dimension.
  M independent raters have M - 1, since centring takes one; over few pairs chance correlations make it far fewer (20 raters over 30 pairs read
  11.8), so r^2 is replaced by its estimate free of that, (df r^2 - 1)/(df - 1), df = pairs - 1. Simulated for 20 independent raters: 19.5 at
  15 pairs, 19.2 at 30, 19.0 from 60 on. Below ``MIN_PAIRS`` pairs there is no such number.
- ``distinct_raters``: the Vendi score (Friedman and Dieng 2023, TMLR), exp of the entropy of the eigenvalues of K/M for a similarity K of
  raters. It depends on the declared bandwidth, and noise of single ratings counts as difference.
- ``independent_votes``: Kish's M/(1 + (M - 1) r), on errors against an outside reference only. On ratings it reads about 1 merely because
  pairs differ, and on centred ratings r is forced to -1/(M - 1).

**Clusters are found in anything**, noise too; ``ClusterReport`` says whether the silhouette exceeds what ratings shuffled between models
within each pair give, and how often each node of the tree comes back when pairs are resampled (Felsenstein 1985, Evolution 39:783).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import pdist
from scipy.special import comb

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.groups import label_permutations

Kind = Literal["level", "pattern"]

MIN_PAIRS = 15
"""Fewer pairs tell nothing about the number of dimensions."""

BANDWIDTHS = (0.05, 0.10, 0.20)
"""Root mean square differences of two raters at which their similarity is exp(-1/2); the middle one is the declared one, the others show what hangs on it."""

_BLOCK_CELLS = 2_000_000
_FLAT = 1e-12  # a standard deviation below it is rounding


@dataclass(frozen=True)
class ClusterReport:
    """Average-linkage clusters of models.

    Attributes:
        distances: (M, M).
        linkage: (M - 1, 4) as scipy's: the two nodes joined, their distance, the size.
        order: (M,) models as the tree's leaves stand.
        k: the number of clusters with the largest mean silhouette, the smallest of equals; at least 2.
        labels: (M,) clusters 0..k-1, numbered by their first model.
        silhouettes: mean silhouette for each k tried.
        silhouette: that of ``k``.
        silhouette_p: p of a silhouette as large where each pair's ratings are shuffled between models (the best k chosen each time again);
            small where models are consistently different, in camps or otherwise.
        together: (M, M) share of pair resamples in which two models fall into one of ``k`` clusters; 1 on the diagonal.
        support: (M - 1,) share of pair resamples whose tree has the same set of models under some node, in the order of ``linkage``; the last,
            of all models, is always 1.
        resamples: of pairs, that were used; resamples in which a distance is not defined are drawn again.
        pairs: pairs that went in.
    """

    distances: FloatArray
    linkage: FloatArray
    order: IntArray
    k: int
    labels: IntArray
    silhouettes: dict[int, float]
    silhouette: float
    silhouette_p: float
    together: FloatArray
    support: FloatArray
    resamples: int
    pairs: int


@dataclass(frozen=True)
class RandAgreement:
    """Agreement of clusters with what is known of the models.

    Attributes:
        ari: adjusted Rand index; 1 identical, 0 chance.
        p: one-sided permutation p.
        labelings, exact: labelings counted or drawn; ``exact`` where they are all.
    """

    ari: float
    p: float
    labelings: int
    exact: bool


@dataclass(frozen=True)
class Dimensions:
    """Dimensions of disagreement.

    Attributes:
        debiased: the participation ratio with chance correlation taken out; None below ``MIN_PAIRS`` pairs. Noise may carry it above M - 1.
        raw: the plain participation ratio, which few pairs make too small: for comparison, not to be shown alone.
        mean_r: mean correlation between two raters.
        eigenvalues: (M,) of the correlations, descending.
        pairs: pairs; with missing ratings the fewest that two models share.
        reason: why ``debiased`` is None; empty otherwise.
    """

    debiased: float | None
    raw: float
    mean_r: float
    eigenvalues: FloatArray
    pairs: int
    reason: str = ""


@dataclass(frozen=True)
class DistinctRaters:
    """Effective distinct raters.

    Attributes:
        by_bandwidth: Vendi score for each declared bandwidth (K = exp(-d^2/2h^2), d the root mean square difference of two raters).
        free: the same with K = 1 - mean |difference|, the share of cut-points in [0, 1] on whose same side two raters fall; no bandwidth.
        clipped: largest share of negative eigenvalues set to 0; 0 where no rating is missing.
    """

    by_bandwidth: dict[float, float]
    free: float
    clipped: float


@dataclass(frozen=True)
class IndependentVotes:
    """Kish's effective number of votes.

    Attributes:
        votes: M/(1 + (M - 1) mean_r); above M where errors are opposed; None where that is not positive, or an error does not vary.
        mean_r: mean correlation of two models' errors over pairs. An error that is the same on all pairs is not seen in it.
        pairs: pairs with a reference.
        reason: why ``votes`` is None; empty otherwise.
    """

    votes: float | None
    mean_r: float | None
    pairs: int
    reason: str = ""


def rater_distances(x: npt.ArrayLike, kind: Kind = "level") -> FloatArray:
    """(M, M) distances between models, each over the pairs that both rated.

    Raises:
        ValueError: on fewer than two models, two models that share no pair (``pattern``: fewer than two), and for ``pattern`` a model whose
            centred ratings do not vary.
    """
    ratings = _ratings(x)
    found = _distances(ratings, kind)
    if not np.all(np.isfinite(found)):
        i, j = (int(v[np.flatnonzero(~np.isfinite(found))[0]]) for v in np.triu_indices(ratings.shape[1], 1))
        problem = "share no pair" if kind == "level" else "share fewer than two pairs, or the centred ratings of one do not vary"
        raise ValueError(f"models {i} and {j} {problem}: they have no distance")
    return _square(found, ratings.shape[1])


def cluster_raters(
    x: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    kind: Kind = "level",
    largest_k: int = 10,
    resamples: int = 1_000,
    permutations: int = 199,
) -> ClusterReport:
    """Average linkage, the number of clusters by silhouette, and how stable both are.

    Args:
        x: (P, M) ratings, NaN where missing; three models or more.
        rng: draws pairs and shuffles.
        kind: which distance.
        largest_k: the most clusters tried.
        resamples: bootstrap resamples of pairs.
        permutations: shuffles for ``silhouette_p``.

    Raises:
        ValueError: on fewer than three models, as ``rater_distances``, or where too few pairs are rated in common to resample them.
    """
    ratings = _ratings(x)
    total, models = ratings.shape
    if models < 3:
        raise ValueError(f"{models} models: clusters need three or more")
    distances = rater_distances(ratings, kind)
    tree = _tree(distances)
    silhouettes = _silhouettes(distances, tree, largest_k)
    k = _best(silhouettes)
    shuffled = 0
    for _ in range(permutations):
        null = _square(_distances(_shuffled(ratings, rng), kind), models)
        values = _silhouettes(null, _tree(null), largest_k) if np.all(np.isfinite(null)) else {}
        shuffled += not values or max(values.values()) >= silhouettes[k] - 1e-12
    clades = _clades(tree)
    seen, together, done = np.zeros(models - 1), np.zeros((models, models)), 0
    for resampled in _resampled_distances(ratings, kind, resamples, rng):
        again = _tree(_square(resampled, models))
        present = set(_clades(again))
        seen += [clade in present for clade in clades]
        labels = _cut(again, k)
        together += labels[:, None] == labels[None, :]
        done += 1
    return ClusterReport(
        distances,
        tree,
        leaves_list(tree).astype(np.int64),
        k,
        _cut(tree, k),
        silhouettes,
        silhouettes[k],
        (1 + shuffled) / (1 + permutations),
        together / done,
        seen / done,
        done,
        total,
    )


def adjusted_rand(a: npt.ArrayLike, b: npt.ArrayLike) -> float:
    """Adjusted Rand index of two partitions (Hubert and Arabie 1985, J. Classif. 2:193).

    Raises:
        ValueError: on different lengths, or partitions for which it is not defined (both of one cluster, or both of singletons only).
    """
    first, second = np.unique(np.asarray(a), return_inverse=True)[1], np.unique(np.asarray(b), return_inverse=True)[1]
    if first.shape != second.shape or first.ndim != 1 or len(first) < 2:
        raise ValueError("two partitions of the same two or more models are needed")
    return float(_rand(first[None, :].astype(np.int64), second.astype(np.int64))[0])


def rand_agreement(
    labels: npt.ArrayLike,
    known: npt.ArrayLike,
    *,
    rng: np.random.Generator | None = None,
    strata: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    permutations: int = 10_000,
) -> RandAgreement:
    """Adjusted Rand index of clusters with known labels, tested by permuting the known ones (``groups.label_permutations``).

    The clusters may come from the ratings: only the known labels are permuted, and they do not.

    Raises:
        ValueError: as ``adjusted_rand`` and ``groups.label_permutations``.
    """
    observed = adjusted_rand(labels, known)
    rows, exact = label_permutations(known, rng=rng, strata=strata, units=units, permutations=permutations)
    null = _rand(rows, np.unique(np.asarray(labels), return_inverse=True)[1].astype(np.int64))
    as_large = int(np.count_nonzero(null >= observed - 1e-12))
    p = as_large / len(rows) if exact else (1 + as_large) / (1 + len(rows))
    return RandAgreement(observed, p, len(rows), exact)


def double_centred(x: npt.ArrayLike) -> FloatArray:
    """(P, M) what is left of ratings when the pair's and the model's effect are taken off; NaN stays.

    With missing ratings the effects are those of least squares, so that a model is not moved by which pairs it rated.

    Raises:
        ValueError: on a model or a pair without a rating, or other shapes.
    """
    ratings = _ratings(x)
    w = np.isfinite(ratings).astype(np.float64)
    n = w.sum(axis=1)
    if np.any(n == 0) or np.any(w.sum(axis=0) == 0):
        raise ValueError("a pair or a model has no rating: leave it out")
    filled = np.where(w == 1, ratings, 0.0)
    within = w * (filled - (filled.sum(axis=1) / n)[:, None])
    normal = np.diag(w.sum(axis=0)) - w.T @ (w / n[:, None])
    offsets = np.linalg.pinv(normal, hermitian=True) @ within.sum(axis=0)
    left = w * (filled - offsets)
    return np.asarray(np.where(w == 1, left - (left.sum(axis=1) / n)[:, None], np.nan), dtype=np.float64)


def dimensions(x: npt.ArrayLike) -> Dimensions:
    """Dimensions of disagreement (module docstring); correlations of double-centred ratings over the pairs that two models both rated.

    Raises:
        ValueError: on fewer than three models, two models with fewer than three pairs in common, or a model whose centred ratings do not vary.
    """
    ratings = _ratings(x)
    models = ratings.shape[1]
    if models < 3:
        raise ValueError(f"{models} models: dimensions need three or more")
    shared = np.isfinite(ratings).astype(np.float64)
    shared = shared.T @ shared
    if shared.min() < 3:
        raise ValueError("two models have fewer than three pairs in common")
    r = 1.0 - rater_distances(ratings, "pattern")
    apart = ~np.eye(models, dtype=bool)
    squares, df = r[apart] ** 2, shared[apart] - 1
    fewest = int(shared.min())
    enough = fewest >= MIN_PAIRS
    chance_free = models + float(np.sum((df * squares - 1) / (df - 1)))
    return Dimensions(
        debiased=models**2 / chance_free if enough and chance_free > 0 else None,
        raw=models**2 / (models + float(squares.sum())),
        mean_r=float(r[apart].mean()),
        eigenvalues=np.asarray(np.linalg.eigvalsh(r)[::-1], dtype=np.float64),
        pairs=fewest,
        reason=""
        if enough and chance_free > 0
        else f"{fewest} pairs: at least {MIN_PAIRS} are needed"
        if not enough
        else "chance exceeds it",
    )


def distinct_raters(x: npt.ArrayLike, bandwidths: tuple[float, ...] = BANDWIDTHS) -> DistinctRaters:
    """Effective distinct raters, from 1 (all alike) to M, over the pairs that two models both rated.

    With missing ratings the similarities need not be positive semidefinite: negative eigenvalues are set to 0, and how much that was is told.

    Raises:
        ValueError: as ``rater_distances``, on ratings outside [0, 1], or a bandwidth of 0 or less.
    """
    ratings = _ratings(x)
    if np.nanmin(ratings) < 0 or np.nanmax(ratings) > 1:
        raise ValueError("distinct raters are defined for ratings in [0, 1]")
    if not bandwidths or min(bandwidths) <= 0:
        raise ValueError("bandwidths are positive")
    similarity = 1.0 - rater_distances(ratings)
    squares = _square(_mean_differences(ratings, np.ones((1, len(ratings))), 2)[0], ratings.shape[1])
    free, clipped = _vendi(similarity)
    found = {h: _vendi(np.exp(-squares / (2 * h * h))) for h in bandwidths}
    return DistinctRaters({h: v for h, (v, _) in found.items()}, free, max(clipped, *(c for _, c in found.values())))


def independent_votes(x: npt.ArrayLike, reference: npt.ArrayLike) -> IndependentVotes:
    """Kish's effective number of votes (Kish 1965, Survey Sampling, ch. 5) from errors against an outside reference (means of people).

    Args:
        x: (P, M) ratings, NaN where missing.
        reference: (P,) NaN where there is none; such pairs are left out.

    Raises:
        ValueError: on other shapes, fewer than two models, or two models with fewer than three pairs in common.
    """
    ratings, outside = _ratings(x), np.asarray(reference, dtype=np.float64)
    if outside.shape != (len(ratings),):
        raise ValueError(f"one reference per pair is needed: {outside.shape} for {len(ratings)} pairs")
    known = np.isfinite(outside)
    errors = ratings[known] - outside[known, None]
    models, pairs = errors.shape[1], int(known.sum())
    w = np.isfinite(errors).astype(np.float64)
    if models < 2 or (w.T @ w).min() < 3:
        raise ValueError("votes need two models or more, and three pairs with a reference that any two of them rated")
    r = _correlations(errors, np.ones((1, pairs)))[0]
    if not np.all(np.isfinite(r)):
        return IndependentVotes(None, None, pairs, "a model's errors do not vary")
    mean_r = float(r.mean())
    inflation = 1 + (models - 1) * mean_r
    if inflation <= _FLAT:
        return IndependentVotes(None, mean_r, pairs, "errors cancel each other: the formula has no value")
    return IndependentVotes(models / inflation, mean_r, pairs)


def _ratings(x: npt.ArrayLike) -> FloatArray:
    ratings = np.asarray(x, dtype=np.float64)
    if ratings.ndim != 2 or ratings.shape[1] < 2 or not len(ratings):
        raise ValueError(f"ratings must be (pairs, models) with two models or more, found {ratings.shape}")
    if np.any(np.isinf(ratings)):
        raise ValueError("a rating is infinite; a missing one is NaN")
    return ratings


def _square(condensed: FloatArray, models: int) -> FloatArray:
    out = np.zeros((models, models))
    out[np.triu_indices(models, 1)] = condensed
    return out + out.T


def _distances(x: FloatArray, kind: Kind) -> FloatArray:
    """(M(M - 1)/2,) distances; NaN where not defined."""
    if kind in ("level", "pattern") and np.all(np.isfinite(x)):  # the same, faster
        if kind == "level":
            return np.asarray(pdist(x.T, "cityblock") / len(x), dtype=np.float64)
        c = double_centred(x)
        length = np.sqrt(np.sum(c * c, axis=0))
        unit = c / np.where(length > _FLAT * np.sqrt(len(x)), length, np.nan)
        return np.asarray(1.0 - np.clip((unit.T @ unit)[np.triu_indices(x.shape[1], 1)], -1.0, 1.0), dtype=np.float64)
    return np.asarray(_weighted_distances(x, np.ones((1, len(x))), kind)[0], dtype=np.float64)


def _weighted_distances(x: FloatArray, weights: FloatArray, kind: Kind) -> FloatArray:
    """(B, M(M - 1)/2) distances with weights (B, P) on pairs; NaN where not defined."""
    if kind == "level":
        return _mean_differences(x, weights, 1)
    if kind == "pattern":
        return np.asarray(1.0 - _correlations(double_centred(x), weights), dtype=np.float64)
    raise ValueError(f"distances are 'level' or 'pattern', not {kind!r}")


def _mean_differences(x: FloatArray, weights: FloatArray, power: int) -> FloatArray:
    """(B, pairs of models) weighted means of |x_i - x_j|^power over the pairs that both rated."""
    i, j = np.triu_indices(x.shape[1], 1)
    out = np.empty((len(weights), len(i)))
    for part in _columns(len(i), len(x)):
        d = np.abs(x[:, i[part]] - x[:, j[part]]) ** power
        both = np.isfinite(d)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[:, part] = (weights @ np.where(both, d, 0.0)) / (weights @ both.astype(np.float64))
    return out


def _correlations(x: FloatArray, weights: FloatArray) -> FloatArray:
    """(B, pairs of models) weighted Pearson correlations over the pairs that both rated; NaN where one does not vary."""
    i, j = np.triu_indices(x.shape[1], 1)
    out = np.empty((len(weights), len(i)))
    for part in _columns(len(i), 3 * len(x)):
        a, b = x[:, i[part]], x[:, j[part]]
        both = np.isfinite(a) & np.isfinite(b)
        a, b = np.where(both, a, 0.0), np.where(both, b, 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            n = weights @ both.astype(np.float64)
            mean_a, mean_b = (weights @ a) / n, (weights @ b) / n
            var_a, var_b = (weights @ (a * a)) / n - mean_a**2, (weights @ (b * b)) / n - mean_b**2
            flat = (var_a <= _FLAT**2) | (var_b <= _FLAT**2)
            r = ((weights @ (a * b)) / n - mean_a * mean_b) / np.sqrt(var_a * var_b)
        out[:, part] = np.where(flat, np.nan, np.clip(r, -1.0, 1.0))
    return out


def _columns(count: int, height: int) -> list[slice]:
    step = max(1, _BLOCK_CELLS // max(1, height))
    return [slice(start, start + step) for start in range(0, count, step)]


def _resampled_distances(x: FloatArray, kind: Kind, resamples: int, rng: np.random.Generator) -> FloatArray:
    """(resamples, pairs of models) distances over pairs drawn with replacement; a resample in which one is not defined is drawn again."""
    kept: list[FloatArray] = []
    missing = resamples
    for _ in range(20):
        weights = rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=missing).astype(np.float64)
        drawn = _weighted_distances(x, weights, kind)
        kept.append(drawn[np.all(np.isfinite(drawn), axis=1)])
        missing -= len(kept[-1])
        if not missing:
            return np.concatenate(kept)
    raise ValueError("some models share so few pairs that resampled pairs leave them without a distance")


def _shuffled(x: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Each pair's ratings shuffled between the models that rated it."""
    rated = np.isfinite(x)
    out = np.full(x.shape, np.nan)
    order = np.argsort(np.where(rated, rng.random(x.shape), 2.0), axis=1)
    values = np.take_along_axis(x, order, axis=1)  # the rated ones first, in random order
    out[rated] = values[np.arange(x.shape[1]) < rated.sum(axis=1)[:, None]]
    return out


def _tree(distances: FloatArray) -> FloatArray:
    return np.asarray(linkage(distances[np.triu_indices(len(distances), 1)], method="average"), dtype=np.float64)


def _cut(tree: FloatArray, k: int) -> IntArray:
    """(M,) exactly k clusters, numbered by their first model: the tree without its last k - 1 joins."""
    models = len(tree) + 1
    root = np.arange(2 * models - 1)
    for step in range(models - 2, -1, -1):  # from the top: what is joined below the cut takes its parent's root
        if step < models - k:
            a, b = int(tree[step, 0]), int(tree[step, 1])
            root[[a, b]] = root[models + step]
    _, first, codes = np.unique(root[:models], return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes].astype(np.int64)


def _clades(tree: FloatArray) -> list[int]:
    """The set of models under each join, as bits."""
    models = len(tree) + 1
    sets = [1 << m for m in range(models)]
    for a, b in tree[:, :2].astype(np.int64).tolist():
        sets.append(sets[a] | sets[b])
    return sets[models:]


def _silhouettes(distances: FloatArray, tree: FloatArray, largest_k: int) -> dict[int, float]:
    """Mean silhouette (Rousseeuw 1987, J. Comput. Appl. Math. 20:53) of 2..largest_k clusters; a model alone in its cluster counts 0."""
    models = len(distances)
    out = {}
    for k in range(2, min(largest_k, models - 1) + 1):
        member = np.eye(k)[_cut(tree, k)]
        sizes, sums = member.sum(axis=0), distances @ member
        own = member == 1
        a = sums[own] / np.maximum(member @ sizes - 1, 1)
        b = np.min(np.where(own, np.inf, sums / sizes), axis=1)
        larger = np.maximum(a, b)
        s = np.where((member @ sizes > 1) & (larger > 0), (b - a) / np.where(larger > 0, larger, 1.0), 0.0)
        out[k] = float(s.mean())
    return out


def _best(silhouettes: dict[int, float]) -> int:
    top = max(silhouettes.values())
    return min(k for k, s in silhouettes.items() if s >= top - 1e-12)


def _rand(rows: IntArray, other: IntArray) -> FloatArray:
    """(B,) adjusted Rand indices of the rows (B, M) with one partition (M,)."""
    member = np.eye(int(other.max()) + 1)[other]
    both = np.zeros(len(rows))
    own = 0.0
    for g in range(int(rows.max()) + 1):
        z = (rows == g).astype(np.float64)
        both += comb(z @ member, 2).sum(axis=1)
        own += comb(float(z[0].sum()), 2)
    columns = float(comb(member.sum(axis=0), 2).sum())
    expected, most = own * columns / comb(len(other), 2), (own + columns) / 2
    if abs(most - expected) < _FLAT:
        raise ValueError("both partitions are trivial: the adjusted Rand index is not defined")
    return np.asarray((both - expected) / (most - expected), dtype=np.float64)


def _vendi(similarity: FloatArray) -> tuple[float, float]:
    """Exp of the entropy of the eigenvalues of K/M, and the share of negative ones set to 0."""
    values = np.linalg.eigvalsh(similarity) / len(similarity)
    clipped = float(-values[values < 0].sum())
    values = np.maximum(values, 0.0) / float(values[values > 0].sum())
    positive = values[values > 0]
    return float(np.exp(-np.sum(positive * np.log(positive)))), clipped if clipped > 1e-12 else 0.0
