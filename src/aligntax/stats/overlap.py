"""How much of a safety direction lies in the span of capability directions: the alignment tax rate, its signs and its parts.

One layer with hidden states of d numbers. ``v`` (d,) is the safety direction, ``c`` (d, m) has one capability direction per column. Both may have
any length but 0: they are scaled to length 1, so a capability change is in units of the length of that metric's gradient. Both are covectors
(what is read off a hidden state: gradients, probes); directions along which hidden states differ are turned into them by ``stats.metric``.

With b = C'v, G = C'C and P the projector on the span of the columns:

    tau = ||P v||^2 = b'G^+ b = cos^2(alpha)          the tax rate (Young 2026, arXiv:2603.00047), an R^2: v regressed on the columns
    sqrt(1 - tau)                                     the share of the largest safety gain left if no capability may move
    b_i = <v, c_i>                                    signed: above 0 safety raises capability i (synergy), below 0 it lowers it (cost)
    tau_i = b_i^2                                     of task i alone; they add up to tau only if the columns are orthonormal
    lambda_min(G) tau <= sum_i tau_i <= lambda_max(G) tau                         with lambda_min the least eigenvalue above 0
    unique_i = tau - tau(without i)                   0 for a column that lies in the span of the others
    tau_cone = 1 - min_{lambda >= 0} ||v + C lambda||^2 <= tau                    if capabilities may rise but not fall
    tau_soft(r) = sum_j <v, u_j>^2 h_j/(h_j + r)      h_j, u_j the eigenpairs of H = sum_i w_i c_i c_i'

**tau has no sign.** A capability that safety raises counts in tau as much as one that it lowers: tau is the price of keeping capabilities where
they are. The price of keeping them from falling is tau_cone (Moreau's decomposition; the columns with lambda_i > 0 are those that bind).

**More columns, more tau.** With as many independent columns as dimensions tau is 1 whatever v is (``Overlap.spans``). tau_soft has no such edge:
(1 - tau_soft)/(2 beta) is the largest <v, delta> - (kappa/2) delta'H delta - (beta/2)||delta||^2 with r = beta/kappa; it goes from tau at r = 0 to 0.

**Shares** are Shapley values of tau over the columns (Lindeman, Merenda and Gold 1980; Groemping 2007, Am. Stat. 61:139): what a column adds,
averaged over all orders of adding. They are 0 or more and add up to tau.

Ranks are found by singular values, never by inverting G: doubled, scaled, recombined or dependent columns leave tau as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import factorial

import numpy as np
import numpy.typing as npt

from aligntax.stats.clusters import FloatArray

BoolArray = npt.NDArray[np.bool_]

RANK_TOL = 1e-10
"""A direction adds to a span if more than this share of it lies outside; less is rounding."""

MAX_EXACT = 16
"""With as many capability directions shares are exact, over all their subsets; beyond, orders are drawn."""

_SIGN = 1e-12  # overlaps closer to 0 are rounding, neither synergy nor cost
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class Span:
    """Directions of length 1 and the space that they span.

    Attributes:
        columns: (d, m) the directions.
        basis: (d, r) orthonormal, of their span.
        singular: (r,) singular values of the columns, falling.
        right: (m, r) their right singular vectors: columns = basis diag(singular) right'.
        null: (m, m - r) orthonormal: columns @ null = 0.
    """

    columns: FloatArray
    basis: FloatArray
    singular: FloatArray
    right: FloatArray
    null: FloatArray

    @property
    def dimension(self) -> int:
        return int(self.columns.shape[0])

    @property
    def rank(self) -> int:
        return int(self.basis.shape[1])

    @property
    def coordinates(self) -> FloatArray:
        """(r, m) the columns in the basis."""
        return self.singular[:, None] * self.right.T

    def inside(self, x: FloatArray) -> FloatArray:
        """The part of ``x`` (d,) or (d, k) in the span."""
        return self.basis @ (self.basis.T @ x)

    def outside(self, x: FloatArray) -> FloatArray:
        """The part of ``x`` (d,) or (d, k) orthogonal to the span; exactly 0 where the span is everything."""
        if self.rank == self.dimension:
            return np.zeros_like(x)
        rest = x - self.inside(x)
        return rest - self.inside(rest)  # once more: the first pass leaves rounding errors of the size of x


@dataclass(frozen=True)
class Overlap:
    """A safety direction against capability directions.

    Attributes:
        tau: tax rate, from 0 (orthogonal) to 1 (the safety direction lies in the span).
        free: sqrt(1 - tau), the largest safety gain per budget that moves no capability.
        signed: (m,) b_i, above 0 where safety raises the capability.
        gram: (m, m) cosines between capabilities.
        per_task: (m,) tau_i = b_i^2.
        unique: (m,) tau minus tau without this capability.
        tau_cone: the tax rate if capabilities may rise but not fall.
        rank: independent capability directions.
        dimension: d.
        condition: largest over least singular value (of those above 0) of the capability directions; a large one says that directions are nearly
            dependent and that their unique parts and targets rest on small differences.
        sum_low, sum_high: between these lies the sum of ``per_task`` for this tau and these columns.
    """

    tau: float
    free: float
    signed: FloatArray
    gram: FloatArray
    per_task: FloatArray
    unique: FloatArray
    tau_cone: float
    rank: int
    dimension: int
    condition: float
    sum_low: float
    sum_high: float

    @property
    def angle(self) -> float:
        """Between the safety direction and the span, in radians from 0 to pi/2; it has no sign (``signed`` has)."""
        return float(np.arctan2(self.free, np.sqrt(self.tau)))

    @property
    def synergies(self) -> BoolArray:
        """(m,) capabilities that safety raises."""
        return self.signed > _SIGN

    @property
    def costs(self) -> BoolArray:
        """(m,) capabilities that safety lowers."""
        return self.signed < -_SIGN

    @property
    def dependent(self) -> bool:
        """Some capability direction lies in the span of the others."""
        return self.rank < len(self.signed)

    @property
    def spans(self) -> bool:
        """The capabilities span the whole space: tau is 1 for every safety direction and tells nothing about this one."""
        return self.rank == self.dimension


@dataclass(frozen=True)
class LossOnly:
    """What remains if capabilities may rise but not fall.

    Attributes:
        tau: tau_cone; sqrt(1 - tau_cone) is the largest gain per budget.
        free: that share, sqrt(1 - tau_cone).
        multipliers: (m,) lambda; above 0 where a capability binds, which then stays exactly where it is.
        direction: (d,) of length 1, along which the gain is had; zeros if there is none (safety can only fall).
    """

    tau: float
    free: float
    multipliers: FloatArray
    direction: FloatArray


@dataclass(frozen=True)
class Shares:
    """Shapley shares of tau.

    Attributes:
        share: (m,) they add up to tau.
        se: (m,) Monte Carlo standard error; 0 where exact.
        exact: over all subsets.
        orders: orders counted, drawn ones and their reverses; 0 where exact.
    """

    share: FloatArray
    se: FloatArray
    exact: bool
    orders: int


@dataclass(frozen=True)
class Principal:
    """Several safety directions against capability directions.

    Attributes:
        angles: (k,) principal angles between both spans, in radians, rising; pi/2 where a safety direction meets no capability.
        taxes: (k,) cos^2 of them: the tax rates of the principal safety directions.
        semi_axes: (k,) sin of them: semi-axes, per budget, of the safety vectors that can be had if no capability moves.
        directions: (d, k) the principal safety directions, orthonormal.
        mean_tax: mean of ``taxes``, ||P_C V||_F^2/k.
        worst_tax: the largest.
        objectives: (n,) tax rate of each safety direction as given.
        rank: k, independent safety directions; fewer than given where these depend on each other.
    """

    angles: FloatArray
    taxes: FloatArray
    semi_axes: FloatArray
    directions: FloatArray
    mean_tax: float
    worst_tax: float
    objectives: FloatArray
    rank: int


@dataclass(frozen=True)
class Intrinsic:
    """tau in a part of named capabilities and what the others add.

    Attributes:
        tau0: tax rate of the named capabilities alone, gamma'G_I^+ gamma.
        sum_of_squares: sum of their squared overlaps, which is tau0 only if they are orthonormal.
        residual: tau - tau0, 0 or more.
        tau: of all.
    """

    tau0: float
    sum_of_squares: float
    residual: float
    tau: float


def unit_vector(v: npt.ArrayLike, name: str = "the safety direction") -> FloatArray:
    """(d,) ``v`` scaled to length 1.

    Raises:
        ValueError: on another shape, values that are not finite, or the zero vector.
    """
    x = np.asarray(v, dtype=np.float64)
    if x.ndim != 1 or not x.size:
        raise ValueError(f"{name} must be one vector of numbers, found the shape {x.shape}")
    return _scaled(x[:, None], lambda _: name)[:, 0]


def unit_columns(c: npt.ArrayLike, name: str = "capability direction") -> FloatArray:
    """(d, m) columns scaled to length 1; (d,) is taken as one column.

    Raises:
        ValueError: on another shape, values that are not finite, or a column of zeros, which is named.
    """
    x = np.asarray(c, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or not x.size:
        raise ValueError(f"{name}s must be the columns of a matrix (dimensions, directions), found the shape {x.shape}")
    return _scaled(x, lambda i: f"{name} {i} (counted from 0)")


def span(c: npt.ArrayLike) -> Span:
    """The span of the columns of ``c`` (d, m).

    Raises:
        ValueError: as ``unit_columns``.
    """
    columns = unit_columns(c)
    left, singular, right = np.linalg.svd(columns, full_matrices=columns.shape[1] > columns.shape[0])
    rank = int(np.sum(singular > RANK_TOL * singular[0]))
    return Span(columns, left[:, :rank], singular[:rank], right[:rank].T, right[rank:].T)


def safety_and_span(v: npt.ArrayLike, c: npt.ArrayLike | Span) -> tuple[FloatArray, Span]:
    """``v`` of length 1, and the span of ``c``.

    Raises:
        ValueError: as ``unit_vector`` and ``unit_columns``, or if they live in spaces of different dimension.
    """
    safety, capability = unit_vector(v), c if isinstance(c, Span) else span(c)
    if len(safety) != capability.dimension:
        raise ValueError(
            f"the safety direction has {len(safety)} dimensions and the capability directions {capability.dimension}: they must be of one layer"
        )
    return safety, capability


def tax_rate(v: npt.ArrayLike, c: npt.ArrayLike | Span) -> float:
    """tau, the share of the safety direction's squared length in the span of the capability directions.

    Raises:
        ValueError: as ``safety_and_span``.
    """
    safety, capability = safety_and_span(v, c)
    return _tau(safety, capability)


def overlap(v: npt.ArrayLike, c: npt.ArrayLike) -> Overlap:
    """Everything about one safety direction (d,) and capability directions (d, m).

    Raises:
        ValueError: as ``safety_and_span``.
    """
    safety, capability = safety_and_span(v, c)
    signed, tau = capability.columns.T @ safety, _tau(safety, capability)
    return Overlap(
        tau=tau,
        free=_length(capability.outside(safety)),
        signed=signed,
        gram=capability.columns.T @ capability.columns,
        per_task=signed**2,
        unique=unique_parts(safety, capability),
        tau_cone=loss_only(safety, capability).tau,
        rank=capability.rank,
        dimension=capability.dimension,
        condition=float(capability.singular[0] / capability.singular[-1]),
        sum_low=float(capability.singular[-1] ** 2) * tau,
        sum_high=float(capability.singular[0] ** 2) * tau,
    )


def signed_angle(v: npt.ArrayLike, c: npt.ArrayLike) -> float:
    """The angle between the safety direction and one capability direction (d,), in radians from 0 to pi; above pi/2 safety lowers the capability.

    Raises:
        ValueError: as ``safety_and_span``, or with more than one capability direction.
    """
    safety, capability = safety_and_span(v, c)
    if capability.columns.shape[1] != 1:
        raise ValueError(f"an angle with a sign is between two directions; there are {capability.columns.shape[1]} capability directions")
    return float(np.arctan2(_length(capability.outside(safety)), float(capability.columns[:, 0] @ safety)))


def unique_parts(v: npt.ArrayLike, c: npt.ArrayLike | Span) -> FloatArray:
    """(m,) tau minus tau without each capability; 0 where the others span it.

    Raises:
        ValueError: as ``safety_and_span``.
    """
    safety, capability = safety_and_span(v, c)
    # Rows of the pseudo-inverse: within the span, orthogonal to every other column. A column spanned by others has a part in the null space.
    dual = capability.right / capability.singular
    own = np.linalg.norm(capability.null, axis=1) <= RANK_TOL**0.5
    parts = (dual @ (capability.basis.T @ safety)) ** 2 / np.sum(dual**2, axis=1)
    return np.where(own, parts, 0.0)


def loss_only(v: npt.ArrayLike, c: npt.ArrayLike | Span) -> LossOnly:
    """The tax rate if capabilities may rise but not fall, by non-negative least squares.

    Raises:
        ValueError: as ``safety_and_span``.
    """
    from scipy.optimize import nnls  # slow to import, and only this needs it

    safety, capability = safety_and_span(v, c)
    coordinates = capability.coordinates
    multipliers, _ = nnls(coordinates, -(capability.basis.T @ safety), maxiter=50 * coordinates.shape[1])
    direction = safety + capability.columns @ multipliers
    length = _length(direction)
    if length <= RANK_TOL:
        return LossOnly(1.0, 0.0, multipliers, np.zeros_like(direction))
    return LossOnly(max(1.0 - length**2, 0.0), min(length, 1.0), multipliers, direction / length)


def soft_tax(v: npt.ArrayLike, c: npt.ArrayLike, ridge: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """tau_soft: capability directions count by how much moving along them costs, against ``ridge``.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        ridge: any shape, 0 or more; 0 gives tau.
        weights: (m,) above 0, for example squared lengths of gradients; None weighs all 1.

    Returns:
        tau_soft, in the shape of ``ridge``.

    Raises:
        ValueError: as ``safety_and_span``, and on weights or ridges outside their range.
    """
    safety, strength, directions = _strengths(v, c, weights)
    r = _ridge(ridge)
    return np.asarray(np.sum((directions.T @ safety) ** 2 * strength / (strength + r[..., None]), axis=-1))


def soft_dimension(c: npt.ArrayLike, ridge: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> FloatArray:
    """tr(H (H + ridge)^-1): how many directions the capabilities are worth. Over d it is the mean of tau_soft for a safety direction drawn at random.

    Args:
        c: (d, m) capability directions.
        ridge: any shape, 0 or more; 0 gives their rank.
        weights: (m,) above 0; None weighs all 1.

    Raises:
        ValueError: as ``soft_tax``.
    """
    columns = unit_columns(c)
    _, strength, _ = _strengths(columns[:, 0], columns, weights)
    r = _ridge(ridge)
    return np.asarray(np.sum(strength / (strength + r[..., None]), axis=-1))


def shapley_shares(
    v: npt.ArrayLike, c: npt.ArrayLike, *, rng: np.random.Generator | None = None, orders: int = 200, max_exact: int = MAX_EXACT
) -> Shares:
    """Each capability's share of tau.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        rng: draws orders where there are more than ``max_exact`` directions.
        orders: orders drawn, each together with its reverse (their errors partly cancel).
        max_exact: up to as many directions all 2^m subsets are counted.

    Raises:
        ValueError: as ``safety_and_span``; if orders must be drawn without a generator, or fewer than two; or ``max_exact`` beyond 20.
    """
    safety, capability = safety_and_span(v, c)
    if max_exact > 20:
        raise ValueError(f"max_exact is {max_exact}: beyond 20 directions the subsets do not fit into memory; let orders be drawn")
    target, columns = capability.basis.T @ safety, capability.coordinates
    m = columns.shape[1]
    if m <= max_exact:
        return Shares(_exact_shares(target, columns), np.zeros(m), True, 0)
    if rng is None or orders < 2:
        raise ValueError(f"{m} capability directions have too many subsets: a generator and at least two orders to draw are needed")
    drawn = _drawn_shares(target, columns, rng, orders)
    return Shares(drawn.mean(axis=0), drawn.std(axis=0, ddof=1) / np.sqrt(orders), False, 2 * orders)


def principal(vs: npt.ArrayLike, c: npt.ArrayLike | Span) -> Principal:
    """Principal angles between safety directions (d, n) and capability directions (d, m).

    Raises:
        ValueError: as ``unit_columns``, or if they live in spaces of different dimension.
    """
    objectives = _objectives(vs, capability := c if isinstance(c, Span) else span(c))
    safety = span(objectives).basis
    k = safety.shape[1]
    _, cosines, right = np.linalg.svd(capability.basis.T @ safety, full_matrices=True)
    directions = safety @ right.T
    # The sine is measured, not taken from the cosine, which cannot tell small angles apart.
    sines = np.linalg.norm(capability.outside(directions), axis=0)
    cosines = np.concatenate([cosines, np.zeros(k)])[:k]
    taxes = np.minimum(cosines, 1.0) ** 2
    return Principal(
        angles=np.arctan2(sines, cosines),
        taxes=taxes,
        semi_axes=sines,
        directions=directions,
        mean_tax=float(taxes.mean()),
        worst_tax=float(taxes.max()),
        objectives=np.sum((capability.basis.T @ objectives) ** 2, axis=0),
        rank=k,
    )


def weighted_direction(vs: npt.ArrayLike, weights: npt.ArrayLike) -> FloatArray:
    """(d,) of length 1: the one safety direction of a weighted sum of objectives (d, n), each of length 1.

    Raises:
        ValueError: on weights of another shape or not finite, or objectives that cancel.
    """
    objectives, w = unit_columns(vs, "safety direction"), np.asarray(weights, dtype=np.float64)
    if w.shape != (objectives.shape[1],) or not np.isfinite(w).all() or not w.any():
        raise ValueError(
            f"one finite weight per safety direction is needed, not all of them 0: found {w} for {objectives.shape[1]} directions"
        )
    found = objectives @ w
    if _length(found) <= RANK_TOL * float(np.abs(w).max()):
        raise ValueError("the weighted safety directions cancel: nothing is left to be gained with these weights")
    return unit_vector(found)


def intrinsic_tax(v: npt.ArrayLike, c: npt.ArrayLike, intrinsic: npt.ArrayLike) -> Intrinsic:
    """The part of tau that named capabilities carry, and what the others add.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        intrinsic: whole numbers, the columns whose overlap is taken as forced by the data; may be empty.

    Raises:
        ValueError: as ``safety_and_span``, or on columns that are not there or named twice.
    """
    safety, capability = safety_and_span(v, c)
    chosen = column_numbers(intrinsic, capability.columns.shape[1])
    tau = _tau(safety, capability)
    if not len(chosen):
        return Intrinsic(0.0, 0.0, tau, tau)
    own = capability.columns[:, chosen]
    tau0 = _tau(safety, span(own))
    return Intrinsic(tau0, float(np.sum((own.T @ safety) ** 2)), max(tau - tau0, 0.0), tau)


def column_numbers(chosen: npt.ArrayLike, m: int) -> npt.NDArray[np.int64]:
    """``chosen`` as numbers of columns, each once, 0 to m - 1.

    Raises:
        ValueError: otherwise.
    """
    found = np.asarray(chosen)
    if not found.size:
        return np.zeros(0, dtype=np.int64)
    fits = found.ndim == 1 and np.issubdtype(found.dtype, np.integer) and len(np.unique(found)) == len(found)
    if not fits or found.min() < 0 or found.max() >= m:
        raise ValueError(f"intrinsic capabilities are numbers of columns from 0 to {m - 1}, each once; found {found.tolist()}")
    return found.astype(np.int64)


def _scaled(x: FloatArray, name_of: Callable[[int], str]) -> FloatArray:
    """``x`` (d, m) with columns of length 1; ``name_of`` names a column."""
    bad = ~np.isfinite(x).all(axis=0)
    if bad.any():
        raise ValueError(f"{name_of(int(np.argmax(bad)))} holds values that are not finite numbers")
    peak = np.abs(x).max(axis=0)
    if not peak.all():
        raise ValueError(f"{name_of(int(np.argmin(peak)))} is zero everywhere: it has no direction, leave it out")
    x = x / peak  # so that squares neither overflow nor vanish
    return np.asarray(x / np.linalg.norm(x, axis=0))


def _objectives(vs: npt.ArrayLike, capability: Span) -> FloatArray:
    objectives = unit_columns(vs, "safety direction")
    if len(objectives) != capability.dimension:
        raise ValueError(
            f"safety directions have {len(objectives)} dimensions and capability directions {capability.dimension}: they must be of one layer"
        )
    return objectives


def _length(x: FloatArray) -> float:
    return float(np.linalg.norm(x))


def _tau(safety: FloatArray, capability: Span) -> float:
    """The share inside, or 1 minus the share outside, whichever is the smaller and so the better known."""
    inside = float(np.sum((capability.basis.T @ safety) ** 2))
    return inside if inside < 0.5 else 1.0 - float(np.sum(capability.outside(safety) ** 2))


def _ridge(ridge: npt.ArrayLike) -> FloatArray:
    r = np.asarray(ridge, dtype=np.float64)
    if not np.all(r >= 0):
        raise ValueError(f"the ridge must be 0 or more, found {r}")
    return r


def _strengths(v: npt.ArrayLike, c: npt.ArrayLike, weights: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray, FloatArray]:
    """``v`` of length 1, and the eigenvalues (r,) above 0 and eigenvectors (d, r) of H."""
    safety, capability = safety_and_span(v, c)
    m = capability.columns.shape[1]
    w = np.ones(m) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (m,) or not np.isfinite(w).all() or not np.all(w > 0):
        raise ValueError(f"one finite weight above 0 per capability direction is needed: found {w} for {m} directions")
    directions, singular, _ = np.linalg.svd(capability.columns * np.sqrt(w), full_matrices=False)
    kept = singular > RANK_TOL * singular[0]
    return safety, singular[kept] ** 2, directions[:, kept]


def _added(rests: FloatArray) -> FloatArray:
    """What is left of the later columns once the first is taken out of them; ``rests`` (n, r, k) holds n sets of columns (n, r, k - 1)."""
    head, others = rests[:, :, :1], rests[:, :, 1:]
    length = np.linalg.norm(head, axis=1, keepdims=True)
    unit = np.where(length > RANK_TOL, head / np.where(length > RANK_TOL, length, 1.0), 0.0)
    return np.asarray(others - unit * (unit.transpose(0, 2, 1) @ others))


def _exact_shares(target: FloatArray, columns: FloatArray) -> FloatArray:
    """Shapley values from tau of all subsets, which are grown a column at a time: each set so far once without it and once with it."""
    m = columns.shape[1]
    rests = np.concatenate([columns, target[:, None]], axis=1)[None]
    for _ in range(m):
        rests = np.concatenate([rests[:, :, 1:], _added(rests)])
    left = np.sum(rests[:, :, 0] ** 2, axis=1)  # (2^m,), bit j of the number says that column j is in
    members = np.array([bin(s).count("1") for s in range(2**m)])
    weight = np.array([factorial(size) * factorial(m - 1 - size) / factorial(m) for size in range(m)])
    without = [np.flatnonzero(~(np.arange(2**m) >> j) & 1) for j in range(m)]
    return np.array([np.sum(weight[members[s]] * (left[s] - left[s + 2**j])) for j, s in enumerate(without)])


def _drawn_shares(target: FloatArray, columns: FloatArray, rng: np.random.Generator, orders: int) -> FloatArray:
    """(orders, m) what each column adds, in a drawn order and in its reverse, averaged."""
    rank, m = columns.shape
    found = np.empty((orders, m))
    block = max(_BLOCK_CELLS // (rank * (m + 1)), 1)
    for start in range(0, orders, block):
        n = min(block, orders - start)
        order = rng.permuted(np.tile(np.arange(m), (n, 1)), axis=1)
        found[start : start + n] = (_increments(target, columns, order) + _increments(target, columns, order[:, ::-1])) / 2
    return found


def _increments(target: FloatArray, columns: FloatArray, order: npt.NDArray[np.int64]) -> FloatArray:
    """(n, m) by column, what it adds to tau when columns enter in each ``order`` (n, m)."""
    n, m = order.shape
    rests = np.concatenate([columns.T[order], np.broadcast_to(target, (n, 1, len(target)))], axis=1).transpose(0, 2, 1)
    left = np.empty((n, m + 1))
    left[:, 0] = np.sum(target**2)
    for j in range(m):
        rests = _added(rests)
        left[:, j + 1] = np.sum(rests[:, :, -1] ** 2, axis=1)
    by_column = np.empty((n, m))
    np.put_along_axis(by_column, order, -np.diff(left, axis=1), axis=1)
    return by_column
