"""How much of the disagreement between models lies between groups of them (countries, developers, stages of alignment).

``x`` (P, M) holds ratings, NaN where missing, ``groups`` (M,) the group of each model. Per pair SST = SSB + SSW about the pair's mean; shares
pool the sums over pairs, so pairs on which models disagree more weigh more. The pooled eta squared is the R2 of PERMANOVA with Euclidean
distances between models (Anderson 2001, Austral Ecology 26:32); epsilon squared is Kelley's (1935, PNAS 21:554), omega squared Hays's (1963,
Statistics for Psychologists), their sums taken over pairs.

**Eta squared is never read alone.** Without any effect it averages (G - 1)/(M - 1): 11 % with ten models in two groups. Beside it stand the
distribution under permuted labels, and omega squared, which averages about 0 then and may be negative.

**The unit is the model.** Labels are permuted jointly over all pairs, so what a model has in common over pairs is kept; more pairs do not make
up for few models. Models of one developer or family are not independent: ``units`` moves their labels together, ``strata`` permutes within
developers where these have models in several groups. As for every PERMANOVA a small p says that groups differ in location or in spread.

**That a share is small is claimed by its upper bound**, never by a small estimate. The bound is for the omega squared of these pairs with
models drawn afresh for each group. The ratio F = (SSB/(G - 1))/(SSW/(M - G)) is taken as non-central F. With S the covariance of pairs within
groups, the denominator has (M - G) nu degrees of freedom, nu = tr(S)^2/tr(S^2) (Box 1954, Ann. Math. Stat. 25:290), since pairs are correlated
where models have traits; tr(S^2) is estimated without bias under normality (Bai and Saranadasa 1996, Stat. Sinica 6:311). The numerator has
(G - 1) tr(S)/k and non-centrality M tau/k, tau the sum over pairs of the variance between groups' means and k the largest eigenvalue of S: an
effect along the direction in which models differ most anyway is the hardest to see. The bound is the tau at which P(F or less) is 1 - level
times what it is without an effect (CLs, Read 2002, J. Phys. G 28:2693), so that a ratio that is small by chance excludes no share that the
study could not have shown.

Share of studies in which the bound lay at or above the truth, 95 %, 2,000 studies each (slow tests of ``tests/stats/test_groups.py``), groups
a constant apart, which is along the models' trait and so the hardest case:

=====  ======  ======  =====  =======  ====================  =======
pairs  models  shared  truth  missing  models within groups  covered
=====  ======  ======  =====  =======  ====================  =======
    8      20      .5    .40        0  normal                   .960
   30      10      .5    .15        0  normal                  1.000
   20      20      .9    .15     10 %  normal                  1.000
   20      20       0    .15        0  normal                  1.000
   20      20      .8    .30        0  two camps                .971
   20      20      .5    .15        0  variances 4 to 1         .998
   30      40      .5    .15        0  normal                   .965
   12       8      .7    .40     10 %  normal                   .999
=====  ======  ======  =====  =======  ====================  =======

So it is conservative, most where groups are few models. Two narrower choices of k were tried and covered too little (1,500 studies in each of six
settings): tr(S^2)/tr(S) down to .89, and the larger of it and the direction in which groups were seen to differ down to .93. Percentile
bootstrap over models gave bounds wider by 5 % on average.

**Missing ratings.** Sums are over the ratings that there are, so what is said holds as far as missing ones are missing at random; where a
group refuses the contested pairs, nothing here mends it. A pair with fewer than G + 1 ratings is left out and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, log, prod

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import fdtr, ncfdtr

from aligntax.stats.clusters import FloatArray, IntArray

MAX_EXACT = 20_000
"""As many labelings are enumerated; more are drawn."""

_BLOCK_CELLS = 2_000_000  # (labelings x pairs) at a time: three arrays of 16 MB
_TIE = 1e-9  # by so little, relatively, two statistics may differ and be the same


@dataclass(frozen=True)
class GroupShare:
    """The share of disagreement that lies between groups. Shares are fractions of the sum of squares about pairs' means.

    Attributes:
        pairs, models, groups: how many went in.
        missing: ratings missing in these pairs.
        pairs_left_out: pairs with fewer than groups + 1 ratings.
        eta2: SSB/SST; never to be shown without ``null_mean`` and ``null_95``.
        epsilon2: (SSB - (G - 1) MSW)/SST, MSW by pair.
        omega2: (SSB - (G - 1) MSW)/(SST + MSW), MSW by pair.
        upper: upper bound of omega squared at ``level`` (one-sided); None with fewer than two degrees of freedom within groups.
        level: confidence of ``upper``.
        f: pseudo-F; infinite where models of a group agree exactly.
        main_share: the part of eta2 that a constant offset per group explains.
        interaction_share: the rest of it, offsets that differ from pair to pair.
        p: one-sided permutation p of eta2, never below 1/labelings.
        null_mean, null_95: mean and 95th percentile of eta2 over permuted labels.
        labelings: labelings counted, or drawn (then the observed one counts as one more).
        exact: every labeling was counted.
        dimensions: nu, how many independent pairs the within-group differences are worth.
        reason: why numbers are None; empty otherwise.
    """

    pairs: int
    models: int
    groups: int
    missing: int
    pairs_left_out: int
    eta2: float | None
    epsilon2: float | None
    omega2: float | None
    upper: float | None
    level: float
    f: float | None
    main_share: float | None
    interaction_share: float | None
    p: float | None
    null_mean: float | None
    null_95: float | None
    labelings: int
    exact: bool
    dimensions: float | None
    reason: str = ""


@dataclass(frozen=True)
class _Parts:
    """Ratings of the used pairs about their means: c (P, M) with 0 where missing, w (P, M) 1 where rated, labels (M,) 0..G-1."""

    c: FloatArray
    w: FloatArray
    labels: IntArray
    groups: int

    @property
    def total(self) -> float:
        return float(np.sum(self.c**2))


def group_share(
    x: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator | None = None,
    strata: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    permutations: int = 10_000,
    level: float = 0.95,
) -> GroupShare:
    """The share of disagreement between groups, with its permutation test and upper bound.

    Args:
        x: (P, M) ratings, NaN where missing.
        groups: (M,) whole numbers, the group of each model; at least two groups, and more models than groups.
        rng: draws labelings where they are more than ``MAX_EXACT``.
        strata: (M,) whole numbers; labels are permuted within a stratum only.
        units: (M,) whole numbers; models of one unit keep a label in common.
        permutations: labelings drawn where they are not enumerated.
        level: confidence of the upper bound.

    Raises:
        ValueError: on other shapes, infinite ratings, one group, no more models than groups, or labelings that cannot be permuted
            (``label_permutations``).
    """
    ratings = _ratings(x)
    labels, count = _codes(groups, ratings.shape[1])
    models = len(labels)
    if count < 2 or models <= count:
        raise ValueError(f"{models} models in {count} groups: a share between groups needs two groups or more, and more models than groups")
    drawn, exact = label_permutations(labels, rng=rng, strata=strata, units=units, permutations=permutations)
    rated = np.isfinite(ratings)
    used = rated.sum(axis=1) > count
    parts = _parts(ratings[used], labels, count)
    counts = int(used.sum()), models, count, int((~rated[used]).sum()), int((~used).sum())
    total = parts.total
    if total <= 1e-20 * max(1, parts.c.size):
        reason = (
            "no pair has more ratings than groups"
            if not used.any()
            else "the models do not differ on any pair: there is nothing to share out"
        )
        return GroupShare(*counts, *(None,) * 4, level, *(None,) * 6, len(drawn), exact, None, reason)
    between_p, n_p, groups_p = _between_by_pair(parts)
    within_p = np.maximum(np.sum(parts.c**2, axis=1) - between_p, 0.0)
    between, within = float(between_p.sum()), float(within_p.sum())
    msw = within_p / (n_p - groups_p)
    numerator = float(np.sum(between_p - (groups_p - 1) * msw))
    df = float(np.mean(groups_p - 1)), float(np.mean(n_p - groups_p))
    f = (between / df[0]) / (within / df[1]) if within > 1e-15 * total else np.inf
    main = _main(parts) / total
    null = between_groups(ratings[used], drawn) / total
    eta2 = between / total
    as_large = int(np.count_nonzero(null >= eta2 * (1 - _TIE)))
    upper, dimensions = _upper_bound(parts, f, df, 1 - level) if df[1] >= 2 else (None, None)
    return GroupShare(
        *counts,
        eta2=eta2,
        epsilon2=numerator / total,
        omega2=numerator / (total + float(msw.sum())),
        upper=upper,
        level=level,
        f=float(f),
        main_share=main,
        interaction_share=eta2 - main,
        p=as_large / len(drawn) if exact else (1 + as_large) / (1 + len(drawn)),
        null_mean=float(null.mean()),
        null_95=float(np.quantile(null, 0.95, method="inverted_cdf")),
        labelings=len(drawn),
        exact=exact,
        dimensions=dimensions,
        reason="" if upper is not None else "fewer than two degrees of freedom within groups: no upper bound",
    )


def label_permutations(
    labels: npt.ArrayLike,
    *,
    rng: np.random.Generator | None = None,
    strata: npt.ArrayLike | None = None,
    units: npt.ArrayLike | None = None,
    permutations: int = 10_000,
) -> tuple[IntArray, bool]:
    """(B, M) permuted labels, and whether they are all distinct labelings there are, the observed one among them.

    Raises:
        ValueError: where only one labeling exists (labels constant within every stratum), a unit has two labels or lies in two strata, or
            labelings must be drawn and there is no generator.
    """
    codes, _ = _codes(labels, None)
    blocks, _ = _codes(np.zeros(len(codes)) if strata is None else strata, len(codes))
    unit, count = _codes(np.arange(len(codes)) if units is None else units, len(codes))
    first = np.array([int(np.argmax(unit == u)) for u in range(count)], dtype=np.int64)
    if np.any(codes[first][unit] != codes):
        raise ValueError("a unit has models with different labels: its label cannot be permuted as one")
    if np.any(blocks[first][unit] != blocks):
        raise ValueError("a unit has models in different strata")
    own, stratum = codes[first], blocks[first]
    members = [np.flatnonzero(stratum == s) for s in range(int(stratum.max()) + 1)]
    distinct = prod(_count_arrangements(own[m]) for m in members)
    if distinct == 1:
        raise ValueError("labels are the same within every stratum: no permutation can tell groups apart")
    if distinct <= MAX_EXACT:
        rows = np.empty((1, count), dtype=np.int64)
        for m in members:
            orders = _arrangements(own[m])
            rows, before = np.repeat(rows, len(orders), axis=0), len(rows)
            rows[:, m] = np.tile(orders, (before, 1))
        return rows[:, unit], True
    if rng is None:
        raise ValueError(f"{distinct} labelings are too many to enumerate: they are drawn, so a generator is needed")
    rows = np.tile(own, (permutations, 1))
    for m in members:
        rows[:, m] = rng.permuted(rows[:, m], axis=1)
    return rows[:, unit], False


def between_groups(x: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """(B,) sums of squares between groups, summed over pairs, for B labelings of the models.

    With c the ratings about pairs' means and z_g a group's indicator, SSB = sum_g z_g' (c'c) z_g / n_g over complete pairs, so their number
    costs nothing; pairs with missing ratings are summed one by one, in blocks of bounded memory.

    Args:
        x: (P, M) ratings, NaN where missing; a pair without a rating adds 0.
        labels: (B, M) whole numbers from 0.

    Raises:
        ValueError: on other shapes, or infinite ratings.
    """
    ratings = _ratings(x)
    rows = np.asarray(labels, dtype=np.int64)
    if rows.ndim != 2 or rows.shape[1] != ratings.shape[1]:
        raise ValueError(f"labels must be (labelings, {ratings.shape[1]}), found {rows.shape}")
    parts = _parts(ratings, rows[0], int(rows.max()) + 1)
    complete = np.all(parts.w == 1, axis=1)
    gram = parts.c[complete].T @ parts.c[complete]
    c, w = parts.c[~complete].T, parts.w[~complete].T
    out = np.zeros(len(rows))
    block = max(1, _BLOCK_CELLS // max(1, c.shape[1], rows.shape[1]))
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        for g in range(parts.groups):
            z = (rows[part] == g).astype(np.float64)
            size = np.maximum(z.sum(axis=1), 1.0)
            out[part] += np.einsum("bm,bm->b", z @ gram, z) / size
            if c.shape[1]:
                sums = z @ c
                out[part] += np.sum(sums * sums / np.maximum(z @ w, 1.0), axis=1)
    return out


def _ratings(x: npt.ArrayLike) -> FloatArray:
    ratings = np.asarray(x, dtype=np.float64)
    if ratings.ndim != 2 or not ratings.shape[1]:
        raise ValueError(f"ratings must be (pairs, models), found {ratings.shape}")
    if np.any(np.isinf(ratings)):
        raise ValueError("a rating is infinite; a missing one is NaN")
    return ratings


def _codes(labels: npt.ArrayLike, length: int | None) -> tuple[IntArray, int]:
    """Labels as 0..G-1, and G."""
    given = np.asarray(labels)
    if given.ndim != 1 or not len(given) or (length is not None and len(given) != length):
        raise ValueError(f"one label per model is needed: {given.shape} for {length if length is not None else 'some'} models")
    values, codes = np.unique(given, return_inverse=True)
    return codes.astype(np.int64), len(values)


def _parts(x: FloatArray, labels: IntArray, groups: int) -> _Parts:
    w = np.isfinite(x).astype(np.float64)
    n = np.maximum(w.sum(axis=1, keepdims=True), 1.0)
    filled = np.where(w == 1, x, 0.0)
    c = np.where(w == 1, filled - filled.sum(axis=1, keepdims=True) / n, 0.0)
    return _Parts(c - w * (c.sum(axis=1, keepdims=True) / n), w, labels, groups)  # twice: equal ratings leave exact zeros


def _between_by_pair(parts: _Parts) -> tuple[FloatArray, FloatArray, FloatArray]:
    """(P,) SSB, ratings, and groups that have a rating."""
    z = np.eye(parts.groups)[parts.labels]
    sums, n = parts.c @ z, parts.w @ z
    return np.sum(sums**2 / np.maximum(n, 1.0), axis=1), n.sum(axis=1), np.sum(n > 0, axis=1).astype(np.float64)


def _main(parts: _Parts) -> float:
    """Sum of squares of one offset per group, given the pairs: b' A^- b (two-way analysis of variance with empty cells, Searle 1971, ch. 7)."""
    z = np.eye(parts.groups)[parts.labels]
    sums, n = parts.c @ z, parts.w @ z
    a = np.diag(n.sum(axis=0)) - n.T @ (n / n.sum(axis=1, keepdims=True))
    b = sums.sum(axis=0)
    return float(b @ np.linalg.pinv(a, hermitian=True) @ b)


def _upper_bound(parts: _Parts, f: float, df: tuple[float, float], alpha: float) -> tuple[float, float]:
    """The upper bound of omega squared, and nu (module docstring)."""
    trace, trace2, k = _within(parts)
    nu = min(max((trace**2 - 2 * trace2 / df[1]) / trace2, 1.0), float(len(parts.c))) if trace2 > 0 else 1.0
    if not np.isfinite(f):
        return 1.0, nu
    a, b = df[0] * trace / k, df[1] * nu
    at_zero = float(fdtr(a, b, f))
    limit = -2 * log(alpha)  # what the equation below tends to for small f
    if at_zero > 0:
        goal, high = alpha * at_zero, 1.0
        while float(ncfdtr(a, b, high, f)) > goal and high < 1e9:
            high *= 2
        limit = float(brentq(lambda nc: float(ncfdtr(a, b, nc, f)) - goal, 0.0, high, xtol=1e-8))
    f2 = limit * k / (trace * float(parts.w.sum(axis=1).mean()))
    return f2 / (1 + f2), nu


def _within(parts: _Parts) -> tuple[float, float, float]:
    """tr(S), tr(S^2) without bias, and the largest eigenvalue of S (at most tr(S)), S (P, P) the covariance of pairs within groups.

    With missing ratings each element has the degrees of freedom of the models that rated both pairs, and at least two.
    """
    z = np.eye(parts.groups)[parts.labels]
    means = (parts.c @ z) / np.maximum(parts.w @ z, 1.0)
    e = parts.w * (parts.c - means[:, parts.labels])
    dof = parts.w @ parts.w.T
    for g in range(parts.groups):
        own = parts.w[:, parts.labels == g]
        dof -= own @ own.T > 0
    dof = np.maximum(dof, 2.0)
    s = e @ e.T / dof
    variances = np.diag(s)
    squares = dof**2 / ((dof - 1) * (dof + 2)) * (s**2 - np.outer(variances, variances) / dof)
    trace = float(variances.sum())
    return trace, max(float(squares.sum()), trace**2 / len(e)), min(float(np.linalg.eigvalsh(s)[-1]), trace)


def _count_arrangements(labels: IntArray) -> int:
    left, ways = len(labels), 1
    for size in np.bincount(labels):
        ways *= comb(left, int(size))
        left -= int(size)
    return ways


def _arrangements(labels: IntArray) -> IntArray:
    """(count, n) every distinct order of a multiset."""
    values, sizes = np.unique(labels, return_counts=True)
    rows = np.full((1, len(labels)), values[-1], dtype=np.int64)
    free = np.arange(len(labels))[None, :]
    for value, size in zip(values[:-1], sizes[:-1], strict=True):
        left = free.shape[1]
        chosen = np.array(list(combinations(range(left), int(size))), dtype=np.int64)
        unchosen = np.ones((len(chosen), left), dtype=bool)
        np.put_along_axis(unchosen, chosen, False, axis=1)
        rest = np.nonzero(unchosen)[1].reshape(len(chosen), -1)
        rows = np.repeat(rows, len(chosen), axis=0)
        np.put_along_axis(rows, free[:, chosen].reshape(len(rows), -1), value, axis=1)
        free = free[:, rest].reshape(len(rows), -1)
    return rows
