"""Two subspaces that were both estimated: mean squared cosine, corrected for noise, and the largest one against what dimensions alone give.

Safety is often more than one direction. Its subspace is taken as the first k directions of rows (shifts of hidden states between two models, per-prompt
differences, gradients), by the singular value decomposition without centring (Pan et al. 2025, arXiv:2502.09674), the capabilities' as the first m
of theirs. With orthonormal bases V and C the mean tax rate is ||C'V||_F^2/k, the mean of the squared cosines of the k principal angles.

**Cross-fitted.** Both sets of rows are cut in two independent halves A and B. V_B (V_A'V_B)^-1 V_A' is a projector of which both halves' noise averages
out, and so is C_B (C_A'C_B)^-1 C_A', so the mean is

    tr[(V_A'V_B)^-1 V_A'C_B (C_A'C_B)^-1 C_A'V_B]/k

averaged with A and B of the capabilities exchanged, median over splits. It does not depend on the bases chosen within a subspace; for k = m = 1 it is
Spearman's correction. It can lie outside [0, 1]. If the halves of a subspace have a direction that the other half lacks (smallest cosine below .5), the
number of dimensions is more than the rows support, and the result is "not identified" and says how many do reproduce. What both halves share stays: if
generic variance fills the first directions, so it does in both. That is what ``matched`` compares with.

**Nulls.** A random subspace of k dimensions has a mean of m/d against a fixed one of m, but its *largest* squared cosine is far above m/d: near Wachter's
edge (1978, Ann. Prob. 6:1; Absil, Edelman and Koev 2006, Lin. Alg. Appl. 414:288)

    (sqrt(k (d - m)) + sqrt(m (d - k)))^2/d^2,   d = 1000, k = m = 20: .078 against .020.

Both are simulated: ``isotropic`` from small Wishart matrices without any vector of d numbers, ``matched`` by subspaces of random combinations of
generic states (parallel analysis, Horn 1965), whose overlap is larger because generic states fill few dimensions. Nulls are for the naive cosines.
If rows vary mostly as all states do, *both* subspaces are the first principal directions of these and overlap fully, far beyond random combinations:
``principal`` is the overlap of the capabilities with the first k principal directions of the generic states. A mean that is not above it shows no more.
Everything is computed from products of rows; nothing of size d x d is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.directions import BLOCKS, group_blocks, jackknife_covariance
from aligntax.stats.paired import critical_value

MIN_COSINE = 0.5
"""Least cosine between a direction of one half and the subspace of the other."""

_TIE = 1e-12
_CHUNK_CELLS = 4_000_000


@dataclass(frozen=True)
class SubspaceNull:
    """Mean and largest squared cosine of random subspaces.

    Attributes:
        mean, largest: of the null on average.
        p_mean, p_largest: one-sided, that the naive ones are as large by chance.
        draws: how many.
    """

    mean: float
    largest: float
    p_mean: float
    p_largest: float
    draws: int


@dataclass(frozen=True)
class SubspaceOverlap:
    """A safety subspace of k dimensions against a capability subspace of m.

    Attributes:
        mean: cross-fitted mean squared cosine; None where not identified.
        low, high: jackknife t limits, of one split; None where not identified.
        excess: (mean - null)/(1 - null), the null that of matched subspaces where there is one and m/d else; None where not identified.
        naive: mean squared cosine of the subspaces as estimated.
        largest: largest squared cosine of these.
        edge: Wachter's edge.
        isotropic: null of subspaces drawn uniformly.
        matched: null of combinations of generic states; None where none were given.
        principal: mean squared cosine of the capability subspace with the first k principal directions of the generic states; None without these.
        reproduced: directions of either subspace, safety first, that two halves have in common, median over splits.
        reason: why it is not identified; None where it is.
        splits, blocks, level: as asked for.
    """

    mean: float | None
    low: float | None
    high: float | None
    excess: float | None
    naive: float
    largest: float
    edge: float
    isotropic: SubspaceNull
    matched: SubspaceNull | None
    principal: float | None
    reproduced: tuple[int, int]
    reason: str | None
    splits: int
    blocks: int
    level: float


def wachter_edge(k: int, m: int, d: int) -> float:
    """Where the largest squared cosine between random subspaces of k and m of d dimensions lies.

    Raises:
        ValueError: unless both have at least one dimension and together at most d.
    """
    _dimensions(k, m, d)
    return (sqrt(k * (d - m)) + sqrt(m * (d - k))) ** 2 / d**2


def isotropic_cosines(k: int, m: int, d: int, draws: int, rng: np.random.Generator) -> FloatArray:
    """(draws, min(k, m)) squared cosines, rising, between a uniform subspace of k and a fixed one of m of d dimensions: a matrix beta law.

    Raises:
        ValueError: as ``wachter_edge``.
    """
    _dimensions(k, m, d)
    small, large = min(k, m), max(k, m)
    inside, outside = (_wishart_root(small, df, draws, rng) for df in (large, d - large))
    a, b = inside @ inside.transpose(0, 2, 1), outside @ outside.transpose(0, 2, 1)
    return _squared_cosines(a, a + b)


def subspace_overlap(
    safety: npt.ArrayLike,
    capability: npt.ArrayLike,
    k: int,
    m: int,
    rng: np.random.Generator,
    *,
    groups: tuple[npt.ArrayLike | None, npt.ArrayLike | None] = (None, None),
    generic: npt.ArrayLike | None = None,
    splits: int = 9,
    draws: int = 499,
    blocks: int = BLOCKS,
    level: float = 0.95,
) -> SubspaceOverlap:
    """Squared cosines between the first k directions of safety rows and the first m of capability rows.

    Args:
        safety: (n, d) rows, not centred.
        capability: (n', d) rows of other prompts.
        k: dimensions of the safety subspace.
        m: dimensions of the capability subspace.
        rng: splits and draws.
        groups: (n,) and (n',) labels of rows that belong together; None: rows are independent.
        generic: (g, d) states whose covariance random subspaces are matched to; None leaves that null out.
        splits: random splits into halves.
        draws: of the nulls.
        blocks: K of the jackknife, at least 8.
        level: confidence.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, rows shared between both sets, more dimensions than rows or than d allow, or
            fewer than eight groups.
    """
    x, y = _rows(safety, "safety rows"), _rows(capability, "capability rows")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"safety rows have {x.shape[1]} dimensions and capability rows {y.shape[1]}: both must be of one layer")
    d = x.shape[1]
    _dimensions(k, m, d)
    if splits < 1 or draws < 1 or not 0 < level < 1:
        raise ValueError(f"splits and draws are at least 1 and the level lies between 0 and 1; found {splits}, {draws} and {level:g}")
    cross = x @ y.T
    if np.any(_same_rows(x, y, cross)):
        raise ValueError("safety and capability have rows in common: take them from different prompts")
    sides = tuple(
        _Side(z @ z.T, *group_blocks(labels, len(z), name, blocks), size, name)
        for z, labels, size, name in ((x, groups[0], k, "safety rows"), (y, groups[1], m, "capability rows"))
    )
    for side in sides:
        side.check()
    full = [side.basis(np.arange(len(side.gram))) for side in sides]
    cosines = np.linalg.svd(full[0].T @ cross @ full[1], compute_uv=False) ** 2
    naive, largest = float(cosines.sum()) / k, float(cosines[0])
    found = [_split(sides, cross, rng) for _ in range(splits)]
    reproduced = (int(np.median([s.reproduced[0] for s in found])), int(np.median([s.reproduced[1] for s in found])))
    matched, principal = (
        (None, None) if generic is None else _matched(_rows(generic, "generic states"), y.T @ full[1], k, (naive, largest), draws, rng)
    )
    reason = _reason(reproduced, (k, m))
    mean = low = high = excess = None
    if reason is None:
        mean = float(np.median([s.mean for s in found]))
        half = _half(sides, cross, sorted(found, key=lambda s: s.mean)[(splits - 1) // 2], level)
        low, high = mean - half, mean + half
        null = m / d if matched is None else matched.mean
        excess = (mean - null) / (1 - null)
    return SubspaceOverlap(
        mean=mean,
        low=low,
        high=high,
        excess=excess,
        naive=naive,
        largest=largest,
        edge=wachter_edge(k, m, d),
        isotropic=_against((naive, largest), isotropic_cosines(k, m, d, draws, rng), k),
        matched=matched,
        principal=principal,
        reproduced=reproduced,
        reason=reason,
        splits=splits,
        blocks=min(side.count for side in sides),
        level=level,
    )


@dataclass(frozen=True)
class _Side:
    """One set of rows: products (n, n), blocks, and how many directions to take."""

    gram: FloatArray
    count: int
    block: IntArray
    size: int
    name: str

    def check(self) -> None:
        """Both halves, less a block, must have more rows than directions."""
        largest = int(np.bincount(self.block).max())
        if len(self.gram) // 2 - 2 * largest < self.size:
            raise ValueError(f"{self.name}: {len(self.gram)} rows are too few for {self.size} directions in each of two halves")
        values = np.linalg.eigvalsh(self.gram)
        if values[-self.size] <= _TIE * values[-1]:
            raise ValueError(f"{self.name} span fewer than {self.size} dimensions: ask for fewer")

    def basis(self, rows: IntArray) -> FloatArray:
        """(n, size) weights of rows that give an orthonormal basis of the first directions of ``rows``; 0 for other rows."""
        from scipy.linalg import eigh  # slow to import; only it finds a few eigenvectors without the others

        n = len(rows)
        values, vectors = eigh(self.gram[np.ix_(rows, rows)], subset_by_index=(n - self.size, n - 1), check_finite=False)
        out = np.zeros((len(self.gram), self.size))
        out[rows] = vectors / np.sqrt(np.maximum(values, np.finfo(np.float64).tiny))
        return out


@dataclass(frozen=True)
class _Split:
    """One split: bases of both halves of both sides, as weights of rows; which blocks are in half A; and what it gives."""

    bases: tuple[list[FloatArray], list[FloatArray]]
    in_a: tuple[IntArray, IntArray]
    mean: float
    reproduced: tuple[int, int]


def _split(sides: tuple[_Side, ...], cross: FloatArray, rng: np.random.Generator) -> _Split:
    in_a, bases = [], []
    for side in sides:
        chosen = np.sort(rng.permutation(side.count)[: side.count // 2])
        member = np.isin(side.block, chosen)
        in_a.append(chosen)
        bases.append([side.basis(np.flatnonzero(member)), side.basis(np.flatnonzero(~member))])
    agreement = [np.linalg.svd(b[0].T @ side.gram @ b[1], compute_uv=False) for side, b in zip(sides, bases, strict=True)]
    reproduced = tuple(int(np.sum(s >= MIN_COSINE)) for s in agreement)
    return _Split((bases[0], bases[1]), (in_a[0], in_a[1]), _mean(sides, cross, (bases[0], bases[1])), (reproduced[0], reproduced[1]))


def _mean(sides: tuple[_Side, ...], cross: FloatArray, bases: tuple[list[FloatArray], list[FloatArray]]) -> float:
    """The cross-fitted mean squared cosine; NaN where halves have nothing in common in some direction."""
    (va, vb), (ca, cb) = bases
    both_v, both_c = va.T @ sides[0].gram @ vb, ca.T @ sides[1].gram @ cb
    if min(np.linalg.svd(g, compute_uv=False)[-1] for g in (both_v, both_c)) <= _TIE:
        return float("nan")
    vacb, cavb, vaca, cbvb = va.T @ cross @ cb, ca.T @ cross.T @ vb, va.T @ cross @ ca, cb.T @ cross.T @ vb
    one = np.trace(np.linalg.solve(both_v, vacb @ np.linalg.solve(both_c, cavb)))
    two = np.trace(np.linalg.solve(both_v, vaca @ np.linalg.solve(both_c.T, cbvb)))
    return float(one + two) / 2 / sides[0].size


def _half(sides: tuple[_Side, ...], cross: FloatArray, split: _Split, level: float) -> float:
    """Half the jackknife interval: without each block in turn, the bases of the halves that held it are formed again."""
    count = min(side.count for side in sides)
    means = np.empty(count + 1)
    means[0] = split.mean
    for k in range(count):
        bases = (list(split.bases[0]), list(split.bases[1]))
        for i, side in enumerate(sides):
            if k < side.count:
                half = 0 if k in split.in_a[i] else 1
                member = np.isin(side.block, split.in_a[i]) == (half == 0)
                bases[i][half] = side.basis(np.flatnonzero(member & (side.block != k)))
        means[k + 1] = _mean(sides, cross, bases)
    return critical_value(level, float(count - 1)) * sqrt(float(jackknife_covariance(means[None])[0, 0]))


def _reason(reproduced: tuple[int, int], asked: tuple[int, int]) -> str | None:
    for name, found, size in zip(("safety", "capability"), reproduced, asked, strict=True):
        if found < size:
            return f"not identified: only {found} of {size} {name} directions of one half of the rows are in the other half too; ask for {found} or give more rows"
    return None


def _matched(
    generic: FloatArray, basis: FloatArray, k: int, naive: tuple[float, float], draws: int, rng: np.random.Generator
) -> tuple[SubspaceNull, float]:
    """Subspaces of k random combinations of centred generic states (g, d), and the first k principal directions of these, against the basis (d, m)."""
    if generic.shape[1] != len(basis) or len(generic) <= k + 1:
        raise ValueError(f"generic states must have {len(basis)} dimensions and more than {k + 1} rows, found the shape {generic.shape}")
    x = generic - generic.mean(axis=0)
    gram, inside = x @ x.T, x @ basis
    found, chunk = [], max(1, _CHUNK_CELLS // (k * len(x)))
    for start in range(0, draws, chunk):
        w = rng.normal(size=(min(chunk, draws - start), k, len(x)))
        part = w @ inside
        found.append(_squared_cosines(part @ part.transpose(0, 2, 1), (w @ gram) @ w.transpose(0, 2, 1)))
    values, vectors = np.linalg.eigh(gram)
    if values[-k] <= _TIE * values[-1]:
        raise ValueError(f"generic states vary along fewer than {k} dimensions")
    principal = float(np.sum((inside.T @ vectors[:, -k:]) ** 2 / values[-k:])) / k
    return _against(naive, np.concatenate(found), k), principal


def _against(naive: tuple[float, float], cosines: FloatArray, k: int) -> SubspaceNull:
    """Naive mean and largest squared cosine against those of draws (draws, r), r >= the number that are not 0."""
    means, largest = cosines.sum(axis=1) / k, cosines[:, -1]
    p = [(1 + int(np.sum(null >= x - _TIE))) / (1 + len(null)) for x, null in zip(naive, (means, largest), strict=True)]
    return SubspaceNull(float(means.mean()), float(largest.mean()), p[0], p[1], len(cosines))


def _squared_cosines(inside: FloatArray, everything: FloatArray) -> FloatArray:
    """(draws, k) eigenvalues, rising, of inside relative to everything, both (draws, k, k)."""
    root = np.linalg.cholesky(everything)
    half = np.linalg.solve(root, inside)
    return np.asarray(np.clip(np.linalg.eigvalsh(np.linalg.solve(root, half.transpose(0, 2, 1))), 0.0, 1.0))


def _wishart_root(size: int, df: int, draws: int, rng: np.random.Generator) -> FloatArray:
    """(draws, size, size) lower triangular roots of Wishart matrices with identity scale (Bartlett 1933)."""
    out = np.tril(rng.normal(size=(draws, size, size)), -1)
    index = np.arange(size)
    out[:, index, index] = np.sqrt(rng.chisquare(df - index, size=(draws, size)))
    return out


def _dimensions(k: int, m: int, d: int) -> None:
    if k < 1 or m < 1 or k + m > d:
        raise ValueError(f"subspaces of {k} and {m} dimensions in {d}: both take at least one and together at most all")


def _rows(x: npt.ArrayLike, name: str) -> FloatArray:
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or not np.isfinite(rows).all():
        raise ValueError(f"{name} must be finite numbers (rows, dimensions), found the shape {rows.shape}")
    return rows


def _same_rows(x: FloatArray, y: FloatArray, cross: FloatArray) -> npt.NDArray[np.bool_]:
    """Pairs (candidates,) that are equal: their product is that of each with itself."""
    own_x, own_y = np.einsum("nd,nd->n", x, x), np.einsum("nd,nd->n", y, y)
    near = np.argwhere(np.abs(own_x[:, None] - 2 * cross + own_y) <= 1e-9 * (own_x[:, None] + own_y))
    return np.array([np.array_equal(x[i], y[j]) for i, j in near], dtype=np.bool_)
