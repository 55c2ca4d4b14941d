"""What chance alone makes of the tax rate: directions packed at random, or as well as they can be, into d dimensions.

Of m capability directions the overlaps gamma_i of ``intrinsic`` many are forced by the data; the other m' (``incidental``) overlap only because d
dimensions must hold them. tau0 is the tax rate of the first alone, R = tau - tau0 what the others add.

**Bound.** mu, the coherence, is the largest of |<c_i, c_j>|, of |<v, c_i>| of incidental ones, and of |<v, c_i> - gamma_i| of intrinsic ones; gbar
the mean |gamma_i|. For m mu < 1 (Young 2026, arXiv:2603.00047; Gershgorin's circles)

    |tau - tau0| <= (tau0 m mu + m' mu^2 + 2 gbar |I| mu + |I| mu^2)/(1 - m mu),    tau0 = sum_I gamma_i^2

Here tau0 is the sum of squares, which is the tax rate of the intrinsic directions if these are orthonormal. The bound holds for any directions and
is loose beyond one; its terms linear in mu make it O(sqrt(log d/d)) at mu ~ sqrt(log d/d), while the mean of R falls as 1/d.

**Law** under random packing, v fixed and incidental directions uniform, D = d - |I|:

    tau = tau0 + (1 - tau0) Beta(m'/2, (D - m')/2),    mean tau0 + (1 - tau0) m'/D,    sd (1 - tau0) sqrt(2 m'(D - m')/(D^2 (D + 2)))

(from m' = D on tau is 1). With tau0 = 0 and no intrinsic direction this is also the law of tau for a safety direction that has nothing to do with the
capabilities: **that tau falls like 1/d says nothing about alignment.** ``chance_corrected`` is 0 on average then.

If capabilities grow with width, m' = ratio d, the law tightens around tau0 + (1 - tau0) ratio: the tax does not vanish.

A subspace of ``rank`` random dimensions holds rank/d of a direction's squared length on average (the same law), the "r/d" of a low-rank update.
That is a mean of cos^2, not a loss: the worst unit shift in that subspace moves the capability by sqrt(rank/d), a random one by 1/sqrt(d) (r.m.s.).

**Best packing.** N directions in d < N dimensions have a mean cos^2 of at least (N - d)/(d (N - 1)), met exactly by tight frames, and a largest
|cos| of at least its square root (Welch 1974, IEEE Trans. Inf. Theory 20:397). A safety direction and |I| intrinsic ones that are themselves among
the N vectors of a tight frame leave the others, to first order in coherence,

    R = m' (1 - tau0)(N/d - 1 + tau0)/(N - 1 - |I|)

which for tau0 = 0 is m'(N - d)/(d (N - 1)), about m'(1/d - 1/N), and reaches 0 at d = N. For a safety direction that is not one of the N it is
m'/d, as at random: a tight frame has the same mean cos^2 with every vector.

**Several safety directions**, k of them at random against m: the mean cos^2 is m/d (max(k, m)/d per min(k, m)). The largest is not: it lies near the
edge (sqrt(k(d - m)) + sqrt(m(d - k)))^2/d^2 (Wachter 1980, Ann. Stat. 8:937), and is 1 from k + m = d on.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import betainc, betaincc, betaincinv

from aligntax.stats.clusters import FloatArray
from aligntax.stats.overlap import Span, column_numbers, safety_and_span


@dataclass(frozen=True)
class Coherence:
    """How far directions are from orthogonal where nothing forces an overlap.

    Attributes:
        mu: the largest of the next three.
        between: largest |cosine| of two capabilities; 0 with one.
        incidental: largest |overlap| of safety with an incidental capability; 0 without any.
        deviation: largest distance of an intrinsic overlap from what the data force; 0 without any.
        mean_overlap: gbar, mean |gamma| of the intrinsic capabilities; 0 without any.
        sum_of_squares: of gamma, the tau0 of the bound.
        intrinsic_count, incidental_count: |I| and m'.
    """

    mu: float
    between: float
    incidental: float
    deviation: float
    mean_overlap: float
    sum_of_squares: float
    intrinsic_count: int
    incidental_count: int

    @property
    def bound(self) -> float:
        """Largest |tau - sum_of_squares| that this coherence allows.

        Raises:
            ValueError: if m mu is 1 or more: the bound says nothing then.
        """
        return packing_bound(self.sum_of_squares, self.incidental_count, self.mu, self.mean_overlap, self.intrinsic_count)


@dataclass(frozen=True)
class PackingLaw:
    """The law of tau under random packing: tau0 + (1 - tau0) Beta(m'/2, (D - m')/2).

    Attributes:
        tau0: tax rate of the intrinsic capabilities.
        incidental: m'.
        room: D = d - |I|, dimensions that the incidental directions have.
    """

    tau0: float
    incidental: int
    room: int

    @property
    def mean(self) -> float:
        return self.tau0 + (1 - self.tau0) * self._share

    @property
    def sd(self) -> float:
        return (1 - self.tau0) * sqrt(2 * self._share * (1 - self._share) / (self.room + 2))

    def quantile(self, p: npt.ArrayLike) -> FloatArray:
        """The tau below which lies a share ``p`` of the law.

        Raises:
            ValueError: on shares outside 0..1.
        """
        shares = np.asarray(p, dtype=np.float64)
        if not np.all((shares >= 0) & (shares <= 1)):
            raise ValueError("quantiles are asked for shares between 0 and 1")
        inner = np.full_like(shares, self._share) if self._certain else betaincinv(*self._shape, shares)
        return np.asarray(self.tau0 + (1 - self.tau0) * inner)

    def below(self, tau: npt.ArrayLike) -> FloatArray:
        """The probability of at most ``tau``.

        Raises:
            ValueError: on values that are not finite.
        """
        at = self._inner(tau)
        return np.asarray((at >= self._share).astype(np.float64) if self._certain else betainc(*self._shape, np.clip(at, 0, 1)))

    def above(self, tau: npt.ArrayLike) -> FloatArray:
        """The probability of ``tau`` or more: the p-value of a tax rate against chance.

        Raises:
            ValueError: on values that are not finite.
        """
        at = self._inner(tau)
        return np.asarray((at <= self._share).astype(np.float64) if self._certain else betaincc(*self._shape, np.clip(at, 0, 1)))

    @property
    def _share(self) -> float:
        return min(self.incidental / self.room, 1.0)

    @property
    def _certain(self) -> bool:
        """Whatever is drawn, tau is the same: nothing is left to cover, or nothing or everything covers it."""
        return self.tau0 == 1 or self.incidental == 0 or self.incidental >= self.room

    @property
    def _shape(self) -> tuple[float, float]:
        return self.incidental / 2, (self.room - self.incidental) / 2

    def _inner(self, tau: npt.ArrayLike) -> FloatArray:
        """Where ``tau`` lies on the scale of the beta law; at its certain value where they differ by rounding."""
        rate = np.asarray(tau, dtype=np.float64)
        if not np.isfinite(rate).all():
            raise ValueError("tax rates must be finite numbers")
        left = 1 - self.tau0
        at = (rate - self.tau0) / left if left > 0 else np.where(rate < 1, -1.0, 2.0)
        return np.asarray(np.where(np.abs(rate - self.mean) < 1e-12, self._share, at) if self._certain else at)


def coherence(v: npt.ArrayLike, c: npt.ArrayLike | Span, intrinsic: npt.ArrayLike = (), forced: npt.ArrayLike | None = None) -> Coherence:
    """The coherence of a safety direction (d,) and capability directions (d, m), and what the bound needs.

    Args:
        v: (d,) safety direction.
        c: (d, m) capability directions.
        intrinsic: numbers of the columns whose overlap the data force.
        forced: (len(intrinsic),) these overlaps, gamma, with their signs; None takes them as they are.

    Raises:
        ValueError: on directions or columns that do not fit (``overlap``), or forced overlaps outside -1..1.
    """
    safety, capability = safety_and_span(v, c)
    m = capability.columns.shape[1]
    chosen = column_numbers(intrinsic, m)
    signed = capability.columns.T @ safety
    gamma = signed[chosen] if forced is None else np.asarray(forced, dtype=np.float64)
    if gamma.shape != chosen.shape or not np.all(np.abs(gamma) <= 1 + 1e-12):
        raise ValueError(f"forced overlaps are cosines between -1 and 1, one per intrinsic capability; found {gamma} for {len(chosen)}")
    others = np.delete(signed, chosen)
    gram = np.abs(capability.columns.T @ capability.columns)
    between = float(np.max(gram - np.diag(np.diag(gram)), initial=0.0))
    incidental, deviation = (float(np.max(np.abs(x), initial=0.0)) for x in (others, signed[chosen] - gamma))
    return Coherence(
        mu=max(between, incidental, deviation),
        between=between,
        incidental=incidental,
        deviation=deviation,
        mean_overlap=float(np.abs(gamma).mean()) if len(gamma) else 0.0,
        sum_of_squares=float(np.sum(gamma**2)),
        intrinsic_count=len(chosen),
        incidental_count=m - len(chosen),
    )


def packing_bound(tau0: float, incidental: int, mu: float, mean_overlap: float = 0.0, intrinsic: int = 0) -> float:
    """Largest |tau - tau0| at coherence ``mu``.

    Args:
        tau0: sum of the squared intrinsic overlaps; below 1 if these are orthonormal.
        incidental: m', capabilities that overlap by packing only.
        mu: coherence.
        mean_overlap: gbar, mean |gamma| of the intrinsic capabilities.
        intrinsic: |I|; m = m' + |I|.

    Raises:
        ValueError: on values out of range, or if m mu is 1 or more: the bound says nothing then.
    """
    m = _count(incidental, "incidental capabilities", 0) + _count(intrinsic, "intrinsic capabilities", 0)
    if not (0 <= tau0 < float("inf") and 0 <= mu <= 1 + 1e-12 and 0 <= mean_overlap <= 1 + 1e-12):
        raise ValueError(f"tau0, mu and the mean overlap are 0 or more, the last two at most 1; found {tau0}, {mu} and {mean_overlap}")
    if not intrinsic and (tau0 > 0 or mean_overlap > 0):
        raise ValueError(f"without intrinsic capabilities tau0 and the mean overlap are 0; found {tau0:g} and {mean_overlap:g}")
    if m * mu >= 1:
        raise ValueError(f"the bound needs m mu below 1; {m} capabilities at a coherence of {mu:g} make {m * mu:g}")
    linear = tau0 * m * mu + 2 * mean_overlap * intrinsic * mu
    return (linear + (incidental + intrinsic) * mu**2) / (1 - m * mu)


def packing_law(tau0: float, incidental: int, dimension: int, intrinsic: int = 0) -> PackingLaw:
    """The law of tau with ``incidental`` directions drawn at random.

    Args:
        tau0: tax rate of the intrinsic capabilities, 0 without any.
        incidental: m'.
        dimension: d.
        intrinsic: |I|, dimensions that the intrinsic capabilities span; below d.

    Raises:
        ValueError: on values out of range.
    """
    d = _count(dimension, "dimensions", 1)
    taken = _count(intrinsic, "intrinsic capabilities", 0)
    if not 0 <= tau0 <= 1:
        raise ValueError(f"tau0 is a tax rate between 0 and 1; found {tau0}")
    if taken >= d:
        raise ValueError(f"{taken} intrinsic directions leave no room in {d} dimensions")
    if not taken and tau0 > 0:
        raise ValueError(f"without intrinsic capabilities tau0 is 0; found {tau0:g}")
    return PackingLaw(float(tau0), _count(incidental, "incidental capabilities", 0), d - taken)


def isotropic_null(dimension: int, m: int) -> PackingLaw:
    """The law of tau for a safety direction drawn at random, m independent capability directions: Beta(m/2, (d - m)/2).

    Raises:
        ValueError: on counts out of range.
    """
    return packing_law(0.0, m, dimension)


def low_rank_energy(rank: int, dimension: int) -> float:
    """Mean share of a direction's squared length in a random subspace: rank/d. Not a loss; see the module.

    Raises:
        ValueError: on counts out of range.
    """
    if _count(rank, "rank", 0) > dimension:
        raise ValueError(f"a subspace of rank {rank} does not fit into {dimension} dimensions")
    return rank / _count(dimension, "dimensions", 1)


def chance_corrected(tau: npt.ArrayLike, m: int, dimension: int) -> FloatArray:
    """(tau - m/d)/(1 - m/d), 0 on average for a safety direction drawn at random, and 1 at tau = 1; may be negative.

    Raises:
        ValueError: on counts out of range, or m of d or more, where tau is 1 whatever the safety direction.
    """
    if _count(m, "capability directions", 0) >= _count(dimension, "dimensions", 1):
        raise ValueError(f"{m} capability directions can span all {dimension} dimensions: tau is 1 for every safety direction then")
    chance = m / dimension
    return np.asarray((np.asarray(tau, dtype=np.float64) - chance) / (1 - chance))


def proportional_limit(tau0: float, ratio: float) -> float:
    """Where tau goes if incidental capabilities grow with width, m' = ratio d: tau0 + (1 - tau0) ratio.

    Raises:
        ValueError: on values outside 0..1.
    """
    if not (0 <= tau0 <= 1 and 0 <= ratio <= 1):
        raise ValueError(f"tau0 and the ratio of capabilities to dimensions lie between 0 and 1; found {tau0} and {ratio}")
    return tau0 + (1 - tau0) * ratio


def random_coherence(count: int, dimension: int) -> float:
    """The typical largest |cosine| among ``count`` directions drawn at random: its median if the pairs were independent; about sqrt(2 log(pairs)/d).

    Raises:
        ValueError: with fewer than two directions or dimensions.
    """
    n, d = _count(count, "directions", 2), _count(dimension, "dimensions", 2)
    pairs = n * (n - 1) / 2
    # cos^2 is Beta(1/2, (d - 1)/2); the upper tail, where the quantile lies, is that of the reversed law.
    return sqrt(1 - float(betaincinv((d - 1) / 2, 0.5, -np.expm1(np.log(0.5) / pairs))))


def welch_mean(count: int, dimension: int) -> float:
    """The least mean cos^2 between ``count`` directions, (N - d)/(d (N - 1)); 0 up to d. Its root bounds the largest |cos| from below.

    Raises:
        ValueError: with fewer than two directions, or no dimension.
    """
    n, d = _count(count, "directions", 2), _count(dimension, "dimensions", 1)
    return max(n - d, 0) / (d * (n - 1))


def tight_residual(tau0: float, incidental: int, dimension: int, count: int, intrinsic: int = 0) -> float:
    """R, what incidental capabilities add to tau if all directions belong to a tight frame; to first order in coherence.

    Args:
        tau0: tax rate of the intrinsic capabilities.
        incidental: m', drawn at random from the rest of the frame.
        dimension: d.
        count: N directions in the frame, d or more, the safety direction and the capabilities among them.
        intrinsic: |I|.

    Raises:
        ValueError: on values out of range, or more directions than the frame has.
    """
    n, d = _count(count, "directions", 2), _count(dimension, "dimensions", 1)
    others = n - 1 - _count(intrinsic, "intrinsic capabilities", 0)
    if not 0 <= tau0 <= 1 or (not intrinsic and tau0 > 0):
        raise ValueError(f"tau0 lies between 0 and 1, and is 0 without intrinsic capabilities; found {tau0:g} with {intrinsic}")
    if n < d or _count(incidental, "incidental capabilities", 0) > others:
        raise ValueError(
            f"{n} directions in {d} dimensions, {intrinsic} intrinsic and {incidental} incidental: a tight frame needs as many directions as "
            f"dimensions, and holds the safety direction and all capabilities"
        )
    return incidental * (1 - tau0) * (n / d - 1 + tau0) / others if incidental else 0.0


def wachter_edges(dimension: int, k: int, m: int) -> tuple[float, float]:
    """Between these lie the cos^2 of the principal angles of two random subspaces of k and m dimensions, in large spaces; the upper is 1 from k + m = d.

    Raises:
        ValueError: on counts out of range.
    """
    d = _count(dimension, "dimensions", 1)
    if max(_count(k, "safety directions", 1), _count(m, "capability directions", 1)) > d:
        raise ValueError(f"subspaces of {k} and {m} dimensions do not fit into {d}")
    one, two = sqrt(k * (d - m)), sqrt(m * (d - k))
    return ((one - two) / d) ** 2, 1.0 if k + m >= d else ((one + two) / d) ** 2


def _count(n: int, name: str, least: int) -> int:
    if not isfinite(n) or n != int(n) or n < least:
        raise ValueError(f"{name} are counted: a whole number of at least {least}, found {n}")
    return int(n)
