"""The tax rate of directions that were estimated from hidden states: debiased, with intervals, or told to be not identified.

A safety direction is the difference between the mean states of two classes of prompts, v = mu1 - mu0. The length of an estimated difference is
that of the difference *and of its noise*, so the naive rate ||P dhat||^2/||dhat||^2 is pulled towards the share f = tr(P S)/tr(S) that the basis
holds of the noise: up where the tax rate is below f, down where it is above. With n prompts per class and kappa = 2 tr(S)/(n ||v||^2) it averages
(tau + f kappa)/(1 + kappa). It is given beside the estimate, never instead of it, and no interval is made from it.

**A basis from other data** (``tax_rate``). tau = N/D,

    N = ||P dhat||^2 - tr(P V),   D = ||dhat||^2 - tr(V),   V = Cov(dhat),

both unbiased. Where rows are independent V = S1/n1 + S0/n0 and N and D are the averages of (x_i - y_j)'P(x_k - y_l) over rows i != k of one class
and j != l of the other: crossnobis (Diedrichsen and Kriegeskorte 2017, PLoS Comput. Biol. 13:e1005508). Rows that belong together (a template, a
pair of matched prompts) share noise, which those averages would keep; with ``groups`` V is that of independent *groups*, whatever their size and the
correlation within them. With p_g and q_g the group's parts of both means, f_g and e_g its shares of their rows, r_g and s_g its deviations
p_g - f_g sum_h p_h and q_g - e_g sum_h q_h,

    tr Cov(p, q) = sum_g r_g's_g/(1 - f_g - e_g) / (1 + sum_g f_g e_g/(1 - f_g - e_g))

is unbiased for any covariances within groups (linear in them, solved for the weights of groups; the leave-out estimator of Rao 1970, J. Am. Stat.
Assoc. 65:161, for means). Nothing of size d x d is made. The estimate may lie below 0 or above 1: cut it only in prose.

**Everything noisy** (``cross_fitted``, ``partial_cosine``). Capability directions are means of gradients, or differences of means, from their own
prompts, and their noise makes overlaps smaller. Each set of prompts is cut into K blocks; with x_k the estimate of block k, products are taken
between different blocks only:

    G_ij = mean over k != k' of c_ik'c_jk',   M_ij = mean over k != k', l != l' of (c_ik'v_l)(c_jk''v_l'),   D = mean over l != l' of v_l'v_l',

which are unbiased for C'C, (C'v)(C'v)' and ||v||^2, and tau = tr(G^-1 M)/D. This is the split-half form (b_A'G^-1 b_B with both swaps, over v_A'v_B)
with numerator, Gram matrix and length each averaged over *all* splits of blocks, in closed form: it needs no draws, and is steadier than the median
over 16 random splits (anisotropic noise, d = 512, m = 16, reliabilities .67 and .5: standard deviation .12 against .17, and a single split 5). With one
capability tr(G^-1 M)/D is Spearman's correction for attenuation.

**Limits.** A rate is a squared length, ||t||^2 with t the coordinates of v along the capabilities made orthonormal, over the length of v. Near 0 its
error depends on the rate itself, and a jackknife error that is small because the estimate happens to be makes limits that are too short above (one
capability, tau = .02: the t interval covers .85, Fieller's set .87). So ``low`` and ``high`` are the rates r with (tau_hat - r)^2 <= t^2 (4 lambda r + 2
tr V^2), the variance that a squared length r has (``rate_limits``): V is the jackknife covariance of t, lambda = t'Vt/t't. They cover .93 to .98
where those do, and are about as long. Jackknife t limits and Fieller's set stand beside. The jackknife is over K = 32 blocks of whole groups, with
K - 1 degrees of freedom; all sums are updated, nothing is refitted.

**Not identified.** Below reliability .5 or D/SE(D) = 4 the ratio has tails so heavy that neither estimate nor limits mean anything: both are None,
and the reason says how many prompts it would take. Where the reliability is truly far below .5 the few samples that pass by luck overstate D: among those
rates are too low. So decide on the number of prompts before, not by adding until the gate opens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.overlap import unit_columns
from aligntax.stats.paired import critical_value, upper_tail

BLOCKS = 32
"""Blocks of prompts that the jackknife leaves out in turn."""
MIN_BLOCKS = 8
"""With fewer groups neither noise nor error can be learnt."""
MIN_Z = 4.0
"""Least D over its standard error."""
MIN_RELIABILITY = 0.5
"""Least share of a safety direction's squared length that is not noise."""
MIN_CAPABILITY_RELIABILITY = 2 / 3
"""The same of a capability direction: two halves of its prompts agree with a cosine of .5."""
MIN_EIGENVALUE = 0.05
"""Eigenvalues of the cosines between capabilities are not taken as smaller: below, directions repeat each other and noise is divided by."""

_RANK_TOL = 1e-8


@dataclass(frozen=True)
class Fieller:
    """The ratios that are not rejected.

    Attributes:
        kind: "interval" from ``low`` to ``high``; "outside": all but those between ``low`` and ``high``; "line": every one.
        low, high: limits.
    """

    kind: Literal["interval", "outside", "line"]
    low: float
    high: float

    def holds(self, ratio: float) -> bool:
        """Whether ``ratio`` is in the set."""
        inside = self.low <= ratio <= self.high
        return inside if self.kind != "outside" else not self.low < ratio < self.high


@dataclass(frozen=True)
class SignedOverlap:
    """Cosine between the safety direction and one capability direction; above 0 safety raises the capability.

    Attributes:
        cosine: corrected for noise.
        low, high: jackknife t limits.
        naive: as it stands in the estimated directions.
    """

    cosine: float
    low: float
    high: float
    naive: float


@dataclass(frozen=True)
class TaxRate:
    """The tax rate of a difference between two classes, given a basis from other data.

    Attributes:
        estimate: N/D, from the debiased squared lengths; below 0 or above 1 by chance; None where not identified.
        low, high: limits (module docstring); None where not identified.
        se: jackknife standard error; None where not identified.
        jackknife: t limits from ``se``; None where not identified.
        fieller: Fieller's set, whether identified or not.
        naive: the biased rate of the direction as estimated.
        floor: share of the noise that the basis holds; ``naive`` is pulled towards it.
        numerator, denominator: N and D.
        z: D over its jackknife standard error.
        reliability: D over the squared length as estimated; the expected squared cosine between estimated and true direction.
        overlaps: one per column of the basis; empty where not identified.
        reason: why it is not identified; None where it is.
        prompts_needed: per class for reliability .5 and z 4, by what was seen; None where identified or where no difference was seen at all.
        positive, negative: rows.
        blocks: K.
        level: confidence.
    """

    estimate: float | None
    low: float | None
    high: float | None
    se: float | None
    jackknife: tuple[float, float] | None
    fieller: Fieller
    naive: float
    floor: float | None
    numerator: float
    denominator: float
    z: float
    reliability: float
    overlaps: tuple[SignedOverlap, ...]
    reason: str | None
    prompts_needed: int | None
    positive: int
    negative: int
    blocks: int
    level: float


@dataclass(frozen=True)
class Sample:
    """What one direction is estimated from.

    Attributes:
        positive: (n, d) states of one class, or gradients of one metric, a row per prompt.
        negative: (n0, d) states of the other class; None where rows are gradients, whose mean is the direction.
        groups: (n,) labels of rows that belong together; None where rows are independent. A label means the same in every sample.
        negative_groups: (n0,) those of the other class.
    """

    positive: npt.ArrayLike
    negative: npt.ArrayLike | None = None
    groups: npt.ArrayLike | None = None
    negative_groups: npt.ArrayLike | None = None


@dataclass(frozen=True)
class BlockSample:
    """What one direction is estimated from, summed up by block: for rows that are too many to be kept.

    Attributes:
        means: (K, d) the direction as each block has it. Blocks are common to all samples (``common_blocks``): block k of one and block l of another are
            independent unless k = l.
        weights: (K,) what a block weighs: n rows, or n1 n0/(n1 + n0) of two classes.
    """

    means: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class CrossFit:
    """The tax rate where safety and capability directions are all estimated.

    Attributes:
        estimate, low, high, se, jackknife: as in ``TaxRate``, corrected for the noise of all directions.
        naive: the biased rate of the directions as estimated.
        overlaps: signed cosine with each capability; with one capability it is cos(alpha). Empty where not identified.
        reliability: of the safety direction.
        capability_reliabilities: (m,).
        z: of the safety direction's squared length.
        least_eigenvalue: of the corrected cosines between capabilities; 1 where these are orthogonal. None where a length is not above 0.
        clipped: eigenvalues below ``MIN_EIGENVALUE`` that were taken as that: capabilities nearly repeat each other, and the rate is a little low.
        reason: why it is not identified; None where it is.
        blocks, level: as in ``TaxRate``.
    """

    estimate: float | None
    low: float | None
    high: float | None
    se: float | None
    jackknife: tuple[float, float] | None
    naive: float
    overlaps: tuple[SignedOverlap, ...]
    reliability: float
    capability_reliabilities: FloatArray
    z: float
    least_eigenvalue: float | None
    clipped: int
    reason: str | None
    blocks: int
    level: float


@dataclass(frozen=True)
class Jackknifed:
    """A number with its jackknife t limits, its standard error, and the two-sided p that it is 0."""

    estimate: float
    low: float
    high: float
    se: float
    p: float


@dataclass(frozen=True)
class CorrectedCosine:
    """How two safety directions stand to each other.

    Attributes:
        rho: their cosine, corrected for noise; None where not identified.
        naive: as it stands in the estimated directions.
        reliabilities, z: of both directions, as in ``CrossFit``.
        reason, blocks, level: as in ``CrossFit``.
    """

    rho: Jackknifed | None
    naive: float
    reliabilities: tuple[float, float]
    z: tuple[float, float]
    reason: str | None
    blocks: int
    level: float


@dataclass(frozen=True)
class PartialCosine:
    """How two safety directions stand to each other once capabilities are preserved.

    Attributes:
        partial: (rho - a'G^-1 b)/sqrt((1 - tau1)(1 - tau2)), corrected for noise; None where not identified.
        rho: the cosine without capabilities, corrected; None where not identified.
        change: ``partial`` less ``rho``, its error from the same replicates; None where not identified.
        taxes: tau1 and tau2, corrected; None where not identified.
        clipped, reason, blocks, level: as in ``CrossFit``.
    """

    partial: Jackknifed | None
    rho: Jackknifed | None
    change: Jackknifed | None
    taxes: tuple[float, float] | None
    clipped: int
    reason: str | None
    blocks: int
    level: float

    @property
    def estimate(self) -> float | None:
        """The estimate of ``partial``."""
        return None if self.partial is None else self.partial.estimate

    @property
    def low(self) -> float | None:
        """The lower limit of ``partial``."""
        return None if self.partial is None else self.partial.low

    @property
    def high(self) -> float | None:
        """The upper limit of ``partial``."""
        return None if self.partial is None else self.partial.high

    @property
    def cosine(self) -> float | None:
        """The estimate of ``rho``."""
        return None if self.rho is None else self.rho.estimate


def tax_rate(
    positive: npt.ArrayLike,
    negative: npt.ArrayLike,
    basis: npt.ArrayLike,
    groups: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    *,
    level: float = 0.95,
    blocks: int = BLOCKS,
) -> TaxRate:
    """The debiased tax rate of the difference between two classes of states.

    Args:
        positive: (n1, d) states.
        negative: (n0, d) states.
        basis: (d, m) capability directions in columns, of any length, **estimated on other prompts** (else use ``cross_fitted``).
        groups: (n1,) and (n0,) labels of rows that belong together; a label in both classes is one group (a pair, a template). None: rows are independent.
        level: confidence.
        blocks: K, at least 8; fewer are made where a class has fewer groups.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, directions that are zero or depend on each other, more directions than
            dimensions, a class with fewer than eight groups, or a group that holds half of a class.
    """
    x, y = _states(positive, "positive states"), _states(negative, "negative states")
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"positive states have {x.shape[1]} dimensions and negative ones {y.shape[1]}: both must be of one layer")
    columns = independent_columns(basis, x.shape[1])
    _check(level, blocks)
    names = ("positive states", "negative states")
    labels = _numbered(groups or (None, None), (len(x), len(y)), names)
    count, block_of = _assign(labels, names, blocks)
    _check_shares(labels, block_of, names)
    centre = (x.mean(axis=0) + y.mean(axis=0)) / 2  # states often share a mean far longer than any difference
    sides = (_side(x - centre, labels[0], block_of), _side(y - centre, labels[1], block_of))
    orthonormal = np.linalg.qr(columns)[0]
    shift, squared, noise = _difference(*sides, count)
    first, second = (_Side(s.sums @ orthonormal, s.counts, s.ids, s.block) for s in sides)
    _, squared_inside, noise_inside = _difference(first, second, count)
    numerator, denominator = squared_inside - noise_inside, squared - noise
    covariance = jackknife_covariance(np.stack([numerator, denominator]))
    covariance[0, 0] = max(covariance[0, 0], 2 * _squared_trace(jackknife_covariance((shift @ orthonormal).T), count - 1))
    z = _ratio(float(denominator[0]), sqrt(covariance[1, 1]))
    reliability = float(denominator[0] / squared[0]) if squared[0] > 0 else 0.0
    reason, needed = _gate(reliability, z, float(noise[0]), float(denominator[0]), len(x), len(y))
    t = critical_value(level, float(count - 1))
    rate = rate_limits(numerator / denominator, shift @ orthonormal / np.sqrt(denominator)[:, None], t) if reason is None else None
    return TaxRate(
        estimate=None if rate is None else rate.estimate,
        low=None if rate is None else rate.low,
        high=None if rate is None else rate.high,
        se=None if rate is None else rate.se,
        jackknife=None if rate is None else rate.jackknife,
        fieller=fieller(float(numerator[0]), float(denominator[0]), covariance, t),
        naive=float(squared_inside[0] / squared[0]) if squared[0] > 0 else 0.0,
        floor=float(noise_inside[0] / noise[0]) if noise[0] > _RANK_TOL * squared[0] else None,
        numerator=float(numerator[0]),
        denominator=float(denominator[0]),
        z=z,
        reliability=reliability,
        overlaps=signed_overlaps(shift @ columns / np.sqrt(denominator)[:, None], shift[0] @ columns / sqrt(squared[0]), t)
        if reason is None
        else (),
        reason=reason,
        prompts_needed=needed,
        positive=len(x),
        negative=len(y),
        blocks=count,
        level=level,
    )


def cross_fitted(
    safety: Sample | BlockSample, capabilities: Sequence[Sample] | Sequence[BlockSample], *, level: float = 0.95, blocks: int = BLOCKS
) -> CrossFit:
    """The tax rate of one safety direction given capability directions, all of them estimated.

    Args:
        safety: its prompts; no row and no group of it may be in a capability's sample.
        capabilities: one per direction, all as rows or all by block, as ``safety``. Where capabilities share prompts, ``groups`` must say so by common labels.
        level: confidence.
        blocks: K, at least 8; fewer are made where a sample has fewer groups. Samples by block have theirs.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, no capability, more capabilities than dimensions, a sample with fewer than
            eight groups, or rows or groups shared between safety and capabilities.
    """
    found = _cross_blocks([safety], capabilities, level, blocks)
    reason = found.reason()
    rate = rate_limits(found.fit(0, 0), found.coordinates(0), found.t) if reason is None else None
    return CrossFit(
        estimate=None if rate is None else rate.estimate,
        low=None if rate is None else rate.low,
        high=None if rate is None else rate.high,
        se=None if rate is None else rate.se,
        jackknife=None if rate is None else rate.jackknife,
        naive=found.naive,
        overlaps=signed_overlaps(*found.cosines(0), found.t) if reason is None else (),
        reliability=float(found.safety_reliability[0]),
        capability_reliabilities=found.capability_reliability,
        z=float(found.z[0]),
        least_eigenvalue=found.least_eigenvalue,
        clipped=found.clipped,
        reason=reason,
        blocks=found.count,
        level=level,
    )


def partial_cosine(
    first: Sample | BlockSample,
    second: Sample | BlockSample,
    capabilities: Sequence[Sample] | Sequence[BlockSample],
    *,
    level: float = 0.95,
    blocks: int = BLOCKS,
) -> PartialCosine:
    """The cosine between two safety directions outside the span of the capabilities, all of them estimated.

    Args:
        first: prompts of one direction.
        second: prompts of the other; where both share prompts, ``groups`` must say so by common labels.
        capabilities: as in ``cross_fitted``.
        level: confidence.
        blocks: as in ``cross_fitted``.

    Raises:
        ValueError: as ``cross_fitted``.
    """
    found = _cross_blocks([first, second], capabilities, level, blocks)
    reason = found.reason()
    if reason is None:
        lengths = found.safety_squared
        rho = found.safety_product / np.sqrt(lengths[0] * lengths[1])
        taxes = found.fit(0, 0), found.fit(1, 1)
        left = (1 - taxes[0]) * (1 - taxes[1])
        if not np.all((left > 0) & (taxes[0] < 1)):
            reason = "a safety direction lies in the span of the capabilities as far as can be seen: nothing of it is left to compare"
    if reason is not None:
        return PartialCosine(None, None, None, None, found.clipped, reason, found.count, level)
    partial = (rho - found.fit(0, 1)) / np.sqrt(left)
    return PartialCosine(
        partial=_jackknifed(partial, found.t),
        rho=_jackknifed(rho, found.t),
        change=_jackknifed(partial - rho, found.t),
        taxes=(float(taxes[0][0]), float(taxes[1][0])),
        clipped=found.clipped,
        reason=None,
        blocks=found.count,
        level=level,
    )


def corrected_cosine(first: BlockSample, second: BlockSample, *, level: float = 0.95) -> CorrectedCosine:
    """The cosine between two safety directions, both estimated: ``partial_cosine`` where there is no capability.

    Args:
        first: one direction by block.
        second: the other, in the same blocks; where both share prompts, these are in one block (``common_blocks``).
        level: confidence.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, fewer than eight blocks, or a direction that is zero.
    """
    _check(level, BLOCKS)
    (v, w), count = _summed([first, second], common=True)
    keep = 1.0 - np.concatenate([np.zeros((1, count)), np.eye(count)])
    shares = _shares(v[1], keep), _shares(w[1], keep)
    product = _between(v, w, *shares)
    squared = _between(v, v, shares[0], shares[0]), _between(w, w, shares[1], shares[1])
    whole = shares[0][0] @ v[0], shares[1][0] @ w[0]
    naive = float(whole[0] @ whole[0]), float(whole[1] @ whole[1])
    if not min(naive) > 0:
        raise ValueError("a direction is zero: its two classes have the same mean, or its gradients add up to nothing")
    z = tuple(_ratio(float(x[0]), sqrt(float(jackknife_covariance(x[None])[0, 0]))) for x in squared)
    reliabilities = tuple(float(x[0]) / of for x, of in zip(squared, naive, strict=True))
    reason = next(
        (_weak(f"safety direction {i + 1}", r, of) for i, (r, of) in enumerate(zip(reliabilities, z, strict=True)) if _is_weak(r, of)), None
    )
    return CorrectedCosine(
        rho=_jackknifed(product / np.sqrt(squared[0] * squared[1]), critical_value(level, float(count - 1))) if reason is None else None,
        naive=float(whole[0] @ whole[1]) / sqrt(naive[0] * naive[1]),
        reliabilities=(reliabilities[0], reliabilities[1]),
        z=(z[0], z[1]),
        reason=reason,
        blocks=count,
        level=level,
    )


def point_rate(safety: BlockSample, capabilities: Sequence[BlockSample]) -> float | None:
    """The estimate of ``cross_fitted`` alone, for nulls of many directions: no limits, and so no need for as many blocks of the one as of the others.

    Args:
        safety: its blocks, of other prompts than any capability's.
        capabilities: as in ``cross_fitted``.

    Returns:
        The rate; None where the direction is not identified.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, or a direction that is zero.
    """
    (v, *c), _ = _summed([safety, *capabilities], common=False)
    reliability, z = block_reliability(safety)
    if reliability < MIN_RELIABILITY or z < MIN_Z:
        return None
    shares = [_shares(w, np.ones((1, len(w)))) for _, w in (v, *c)]
    rate = float(_cross([v], c, shares[:1], shares[1:], 0, 0.95).fit(0, 0)[0])
    return rate if np.isfinite(rate) else None


def block_reliability(sample: BlockSample) -> tuple[float, float]:
    """(reliability, D over its jackknife error) of a direction by block, as ``cross_fitted`` has them; 0, 0 for one that is zero."""
    means, count = sample.means, len(sample.weights)
    weights = _shares(sample.weights, 1.0 - np.concatenate([np.zeros((1, count)), np.eye(count)]))
    whole = weights @ means
    own = weights**2
    squared = _off_diagonal(np.einsum("rd,rd->r", whole, whole), own @ np.einsum("kd,kd->k", means, means), own.sum(axis=1))
    naive = float(whole[0] @ whole[0])
    if naive == 0:
        return 0.0, 0.0
    return float(squared[0]) / naive, _ratio(float(squared[0]), sqrt(float(jackknife_covariance(squared[None])[0, 0])))


def common_blocks(groups: Sequence[npt.ArrayLike], names: Sequence[str], blocks: int = BLOCKS) -> tuple[int, list[IntArray]]:
    """Blocks of whole groups that are common to several parts: how many, and the block (n,) of each row of each part.

    Args:
        groups: (n,) labels by part; a label means the same in every part.
        names: of the parts, for the error.
        blocks: at most so many.

    Raises:
        ValueError: if a part has fewer than eight groups, or its groups leave a block without rows.
    """
    _check(0.5, blocks)
    labels = _numbered(groups, [len(np.asarray(x)) for x in groups], names)
    count, block_of = _assign(labels, names, blocks)
    found = [block_of[x] for x in labels]
    for x, name in zip(found, names, strict=True):
        if (empty := count - len(np.unique(x))) > 0:
            raise ValueError(_empty(name, empty, count))
    return count, found


def _empty(name: str, empty: int, count: int) -> str:
    return f"{name}: its groups leave {empty} of {count} blocks without rows of a class; ask for fewer blocks"


def overlap_p(overlap: SignedOverlap, fit: CrossFit) -> float:
    """That a signed overlap of a fit is 0, two-sided, from its jackknife limits."""
    df = fit.blocks - 1
    half = (overlap.high - overlap.low) / 2
    return 1.0 if half <= 0 else float(2 * stdtr(df, -abs(overlap.cosine) / half * critical_value(fit.level, float(df))))


def fieller(numerator: float, denominator: float, covariance: FloatArray, critical: float) -> Fieller:
    """The ratios r with (N - r D)^2 <= critical^2 Var(N - r D) (Fieller 1954, J. R. Stat. Soc. B 16:175).

    Args:
        numerator: N.
        denominator: D.
        covariance: (2, 2) of both.
        critical: two-sided critical value.
    """
    t2 = critical**2
    a = denominator**2 - t2 * float(covariance[1, 1])
    b = numerator * denominator - t2 * float(covariance[0, 1])
    c = numerator**2 - t2 * float(covariance[0, 0])
    inside = b * b - a * c
    if a > 0:
        half = sqrt(max(inside, 0.0))
        return Fieller("interval", (b - half) / a, (b + half) / a)
    if a == 0:
        return Fieller("line", -inf, inf) if b == 0 else Fieller("interval", *((c / (2 * b), inf) if b > 0 else (-inf, c / (2 * b))))
    if inside <= 0:
        return Fieller("line", -inf, inf)
    return Fieller("outside", (b + sqrt(inside)) / a, (b - sqrt(inside)) / a)


# -- blocks and intervals, for the other estimators as well ---------------------------------------------------------


def group_blocks(groups: npt.ArrayLike | None, n: int, name: str, blocks: int) -> tuple[int, IntArray]:
    """Blocks of whole groups: how many, and the block (n,) of each row.

    Args:
        groups: (n,) labels; None: every row is its own group.
        n: rows.
        name: of the rows, for the error.
        blocks: at most so many.

    Raises:
        ValueError: with fewer than eight groups, or another number of labels than rows.
    """
    _check(0.5, blocks)
    labels = _numbered([groups], [n], [name])
    count, block_of = _assign(labels, [name], blocks)
    return count, block_of[labels[0]]


def jackknife_covariance(replicates: FloatArray) -> FloatArray:
    """(s, s) covariance of statistics (s, K + 1): first of all blocks, then without each."""
    left_out = replicates[:, 1:]
    count = left_out.shape[1]
    deviations = left_out - left_out.mean(axis=1, keepdims=True)
    return np.asarray((count - 1) / count * deviations @ deviations.T)


@dataclass(frozen=True)
class Rate:
    """An estimated rate with its limits (module docstring), its jackknife standard error and jackknife t limits."""

    estimate: float
    low: float
    high: float
    se: float
    jackknife: tuple[float, float]


def rate_limits(rates: FloatArray, coordinates: FloatArray, t: float) -> Rate:
    """Limits of a rate that is the squared length of coordinates (module docstring).

    Args:
        rates: (K + 1,) corrected rates: of all blocks, then without each.
        coordinates: (K + 1, m) coordinates of which the rate without its correction is the squared length.
        t: two-sided critical value.
    """
    estimate, low, high, se = _interval(rates, t)
    covariance = jackknife_covariance(coordinates.T)
    length = float(coordinates[0] @ coordinates[0])
    growth = float(coordinates[0] @ covariance @ coordinates[0]) / length if length > 0 else 0.0
    least = sqrt(2 * _squared_trace(covariance, len(rates) - 2))
    lowest = max(estimate, -t * least)  # a rate is never below 0: less is chance, and no evidence against 0
    middle = lowest + 2 * t * t * growth
    half = sqrt(max(middle**2 - lowest**2 + (t * least) ** 2, 0.0))
    return Rate(estimate, middle - half, middle + half, se, (low, high))


def _squared_trace(covariance: FloatArray, df: int) -> float:
    """tr(V^2) without bias under normality from an estimate with ``df`` degrees of freedom (Bai and Saranadasa 1996), at least tr(V)^2/m."""
    trace, squares = float(np.trace(covariance)), float(np.sum(covariance**2))
    return max(df**2 / ((df - 1) * (df + 2)) * (squares - trace**2 / df), trace**2 / len(covariance))


def signed_overlaps(cosines: FloatArray, naive: FloatArray, t: float) -> tuple[SignedOverlap, ...]:
    """From corrected cosines (K + 1, m): of all blocks, then without each; and naive ones (m,)."""
    found = []
    for i, biased in enumerate(naive):
        cosine, low, high, _ = _interval(cosines[:, i], t)
        found.append(SignedOverlap(cosine, low, high, float(biased)))
    return tuple(found)


# -- one direction, a known basis -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """One class by groups: sums (G, d) and numbers (G,) of rows, numbers of groups (G,), common to both classes, and their blocks (G,)."""

    sums: FloatArray
    counts: FloatArray
    ids: IntArray
    block: IntArray

    def kept(self, count: int) -> FloatArray:
        """(K + 1, G) 1 where a group is in: in row 0 all, in row k all but those of block k - 1."""
        return np.asarray(self.block != np.arange(-1, count)[:, None], dtype=np.float64)

    def totals(self, count: int) -> tuple[FloatArray, FloatArray]:
        """(K + 1, d) sums and (K + 1,) numbers of the rows kept."""
        by_block = np.stack([self.sums[self.block == k].sum(axis=0) for k in range(count)])
        total = by_block.sum(axis=0)
        return np.concatenate([total[None], total - by_block]), self.kept(count) @ self.counts


def _side(rows: FloatArray, labels: IntArray, block_of: IntArray) -> _Side:
    ids, codes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    if len(ids) == len(rows):
        return _Side(rows, np.ones(len(rows)), labels, block_of[labels])
    order = np.argsort(codes, kind="stable")
    sums = np.add.reduceat(rows[order], np.concatenate([[0], np.cumsum(counts)[:-1]]), axis=0)
    return _Side(sums, counts.astype(np.float64), ids, block_of[ids])


def _difference(first: _Side, second: _Side, count: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Difference of the means (K + 1, d), its squared length and the trace of its covariance (K + 1,); row 0 of all rows, then without each block."""
    (a, n), (b, m) = first.totals(count), second.totals(count)
    shift = a / n[:, None] - b / m[:, None]
    noise = _covariance(first, first, count) + _covariance(second, second, count) - 2 * _covariance(first, second, count)
    return shift, np.einsum("kd,kd->k", shift, shift), noise


def _covariance(first: _Side, second: _Side, count: int) -> FloatArray:
    """(K + 1,) trace of the covariance between the means of two classes (of one, its variance); module docstring."""
    common, i, j = np.intersect1d(first.ids, second.ids, assume_unique=True, return_indices=True)
    if not len(common):
        return np.zeros(count + 1)
    (a, n), (b, m) = first.totals(count), second.totals(count)
    p, q, u, w = first.sums[i], second.sums[j], first.counts[i], second.counts[j]
    keep = first.kept(count)[:, i]
    mean_a, mean_b = a / n[:, None], b / m[:, None]
    products = (
        np.einsum("gd,gd->g", p, q) - w * (mean_b @ p.T) - u * (mean_a @ q.T) + u * w * np.einsum("kd,kd->k", mean_a, mean_b)[:, None]
    )
    f, e = u / n[:, None], w / m[:, None]
    gap = 1 - f - e
    deviations = np.sum(keep * products / gap, axis=1) / (n * m)
    return np.asarray(deviations / (1 + np.sum(keep * f * e / gap, axis=1)))


def _gate(reliability: float, z: float, noise: float, squared: float, n1: int, n0: int) -> tuple[str | None, int | None]:
    """Why a difference is not identified, and prompts per class that would do: noise falls as 1/n, and the standard error at least as 1/sqrt(n)."""
    if reliability >= MIN_RELIABILITY and z >= MIN_Z:
        return None, None
    if squared <= 0:
        return "not identified: no difference between the classes can be told from noise", None
    n = 2 / (1 / n1 + 1 / n0)
    needed = ceil(n * max(noise / squared * MIN_RELIABILITY / (1 - MIN_RELIABILITY), (MIN_Z / z) ** 2, 1.0))
    told = f"not identified: the safety direction has reliability {reliability:.2f} and is {z:.1f} standard errors long"
    return f"{told}; it takes {MIN_RELIABILITY:g} and {MIN_Z:g}, about {needed} prompts per class", needed


# -- several directions, all of them estimated ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Cross:
    """Unbiased products of directions; arrays (K + 1, ...) hold all blocks first, then all but each.

    Attributes:
        outer: per pair of safety directions, (K + 1, m, m) of (C'v)(C'w)'.
        mixed: per safety direction, (K + 1, m) of C'v.
        gram: (K + 1, m, m) of C'C.
        safety_squared: per safety direction, (K + 1,).
        safety_product: (K + 1,) between the first and the last safety direction.
        safety_naive, capability_naive: squared lengths as estimated.
        naive: naive tax rate of the first safety direction.
        count: K.
        level: confidence.
    """

    outer: dict[tuple[int, int], FloatArray]
    mixed: list[FloatArray]
    gram: FloatArray
    safety_squared: list[FloatArray]
    safety_product: FloatArray
    safety_naive: FloatArray
    capability_naive: FloatArray
    naive: float
    count: int
    level: float

    @property
    def t(self) -> float:
        return critical_value(self.level, float(self.count - 1))

    @property
    def z(self) -> FloatArray:
        return np.array([_ratio(float(x[0]), sqrt(float(jackknife_covariance(x[None])[0, 0]))) for x in self.safety_squared])

    @property
    def safety_reliability(self) -> FloatArray:
        return np.array([x[0] for x in self.safety_squared]) / self.safety_naive

    @property
    def capability_reliability(self) -> FloatArray:
        return np.asarray(np.diagonal(self.gram[0]) / self.capability_naive, dtype=np.float64)

    @cached_property
    def eigen(self) -> tuple[FloatArray, FloatArray, FloatArray] | None:
        """Lengths (K + 1, m), eigenvalues and eigenvectors of the cosines between capabilities; None where a length is not above 0."""
        squared = np.diagonal(self.gram, axis1=1, axis2=2)
        if not np.all(squared > 0):
            return None
        lengths = np.sqrt(squared)
        values, vectors = np.linalg.eigh(self.gram / lengths[:, :, None] / lengths[:, None, :])
        return lengths, values, vectors

    @property
    def least_eigenvalue(self) -> float | None:
        return None if self.eigen is None else float(self.eigen[1][0, 0])

    @property
    def clipped(self) -> int:
        return 0 if self.eigen is None else int(np.sum(self.eigen[1][0] < MIN_EIGENVALUE))

    def reason(self) -> str | None:
        """Why the rate is not identified."""
        for i, (z, reliability) in enumerate(zip(self.z, self.safety_reliability, strict=True)):
            if _is_weak(reliability, z):
                return _weak("the safety direction" if len(self.z) == 1 else f"safety direction {i + 1}", reliability, z)
        least = int(np.argmin(self.capability_reliability))
        reliability = float(self.capability_reliability[least])
        if reliability < MIN_CAPABILITY_RELIABILITY or self.eigen is None:
            more = (
                (MIN_CAPABILITY_RELIABILITY / (1 - MIN_CAPABILITY_RELIABILITY)) * (1 - reliability) / reliability
                if reliability > 0
                else None
            )
            told = f"not identified: capability {least} (counted from 0) has reliability {reliability:.2f}; it takes {MIN_CAPABILITY_RELIABILITY:.2f}"
            return told if more is None else f"{told}, about {more:.1f} times as many prompts"
        return None

    def fit(self, i: int, j: int) -> FloatArray:
        """(K + 1,) v_i'C (C'C)^-1 C'v_j over the lengths of v_i and v_j: for i = j the tax rate; NaN where a length is not above 0."""
        if self.eigen is None or np.any(self.safety_squared[i] <= 0) or np.any(self.safety_squared[j] <= 0):
            return np.full(self.count + 1, np.nan)
        lengths, values, vectors = self.eigen
        scaled = self.outer[i, j] / lengths[:, :, None] / lengths[:, None, :]
        inner = np.einsum("kap,kab,kbp->kp", vectors, scaled, vectors)
        both = np.sqrt(self.safety_squared[i] * self.safety_squared[j])
        return np.asarray(np.sum(inner / np.maximum(values, MIN_EIGENVALUE), axis=1) / both)

    def coordinates(self, i: int) -> FloatArray:
        """(K + 1, m) naive coordinates of safety direction ``i``, of length 1 but for noise, along the capabilities made orthonormal."""
        assert self.eigen is not None
        lengths, values, vectors = self.eigen
        scaled = self.mixed[i] / lengths / np.sqrt(self.safety_squared[i])[:, None]
        turned = np.einsum("kap,ka->kp", vectors, scaled) / np.sqrt(np.maximum(values, MIN_EIGENVALUE))
        return np.asarray(np.einsum("kap,kp->ka", vectors, turned))

    def cosines(self, i: int) -> tuple[FloatArray, FloatArray]:
        """(K + 1, m) corrected cosines of safety direction ``i`` with each capability, and (m,) naive ones."""
        squared = np.diagonal(self.gram, axis1=1, axis2=2)
        naive = self.mixed[i][0] / np.sqrt(self.safety_naive[i] * self.capability_naive)
        return self.mixed[i] / np.sqrt(squared * self.safety_squared[i][:, None]), naive


def _cross_blocks(
    safety: Sequence[Sample | BlockSample], capabilities: Sequence[Sample] | Sequence[BlockSample], level: float, blocks: int
) -> _Cross:
    _check(level, blocks)
    if not capabilities:
        raise ValueError("no capability is given: a tax rate is that of a safety direction against capability directions")
    given = [*safety, *capabilities]
    samples = [x for x in given if isinstance(x, Sample)]
    if not samples:
        estimates, count = _summed([x for x in given if isinstance(x, BlockSample)], common=True)
        return _products(estimates[: len(safety)], estimates[len(safety) :], count, level)
    if len(samples) < len(given):
        raise ValueError("some samples are rows and some are summed by block: give all of them as the one or as the other")
    names = [f"safety direction {i + 1}" for i in range(len(safety))] + [
        f"capability {i} (counted from 0)" for i in range(len(capabilities))
    ]
    rows = [[_states(x, name) for x in (s.positive, s.negative) if x is not None] for s, name in zip(samples, names, strict=True)]
    d = rows[0][0].shape[1]
    for name, parts in zip(names, rows, strict=True):
        if any(x.shape[1] != d for x in parts):
            raise ValueError(
                f"{name} has rows of {parts[-1].shape[1]} dimensions and the first safety direction of {d}: all must be of one layer"
            )
    if len(capabilities) > d:
        raise ValueError(
            f"{len(capabilities)} capabilities in {d} dimensions: they span everything, and the tax rate is 1 whatever is measured"
        )
    labels = _sample_labels(samples, names, rows)
    _no_common(rows, labels, len(safety), names)
    flat = [(x, name) for parts, name in zip(labels, names, strict=True) for x in parts]
    count, block_of = _assign([x for x, _ in flat], [name for _, name in flat], blocks)
    estimates = [_block_estimates(x, y, block_of, count, name) for x, y, name in zip(rows, labels, names, strict=True)]
    return _products(estimates[: len(safety)], estimates[len(safety) :], count, level)


_Estimates = list[tuple[FloatArray, FloatArray]]


def _summed(samples: Sequence[BlockSample], *, common: bool) -> tuple[_Estimates, int]:
    """Block estimates and their weights, and how many blocks the first sample has.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, too few blocks, more capabilities than dimensions, and, if blocks are common, on
            different numbers of them.
    """
    count, d = samples[0].means.shape
    for sample in samples:
        k = len(sample.weights)
        if sample.means.shape != (k, d) or sample.weights.shape != (k,) or (common and k != count) or k < MIN_BLOCKS:
            raise ValueError(
                f"samples by block need (K, d) means and (K,) weights, K at least {MIN_BLOCKS}, of one layer and in common blocks; found the shapes "
                f"{sample.means.shape} and {sample.weights.shape} beside {samples[0].means.shape}"
            )
        if not (np.isfinite(sample.means).all() and np.isfinite(sample.weights).all() and np.all(sample.weights > 0)):
            raise ValueError("values that are not finite in a block, or a block without rows")
    if len(samples) - 1 > d:
        raise ValueError(
            f"{len(samples) - 1} capabilities in {d} dimensions: they span everything, and the tax rate is 1 whatever is measured"
        )
    return [(np.asarray(x.means, np.float64), np.asarray(x.weights, np.float64)) for x in samples], count


def _products(v: _Estimates, c: _Estimates, count: int, level: float) -> _Cross:
    """All products from block estimates (K, d) and their weights (K,), with and without each block."""
    keep = 1.0 - np.concatenate([np.zeros((1, count)), np.eye(count)])
    weights = [_shares(w, keep) for _, w in [*v, *c]]
    return _cross(v, c, weights[: len(v)], weights[len(v) :], count, level)


def _cross(v: _Estimates, c: _Estimates, own: list[FloatArray], cap: list[FloatArray], count: int, level: float) -> _Cross:
    """The same for shares (R, K) of the blocks, a row for every estimate that is wanted."""
    means_c = np.stack([w @ x for (x, _), w in zip(c, cap, strict=True)], axis=1)  # (K + 1, m, d)
    stacked = np.stack([x for x, _ in c], axis=1)  # (K, m, d)
    shares = np.stack(cap, axis=1)  # (K + 1, m, K)
    same_c = np.einsum("rik,rjk,kij->rij", shares, shares, stacked @ stacked.transpose(0, 2, 1), optimize=True)
    gram = _off_diagonal(means_c @ means_c.transpose(0, 2, 1), same_c, np.einsum("rik,rjk->rij", shares, shares))
    means_v = [w @ x for (x, _), w in zip(v, own, strict=True)]

    crosses = [np.einsum("kid,ld->ikl", stacked, x, optimize=True) for x, _ in v]
    pairs = [(i, j) for i in range(len(v)) for j in range(i, len(v))]
    naive_v = np.array([float(x[0] @ x[0]) for x in means_v])
    if not np.all(naive_v > 0) or not np.all(np.diagonal(means_c[0] @ means_c[0].T) > 0):
        raise ValueError("a direction is zero: its two classes have the same mean, or its gradients add up to nothing")
    overlap = np.linalg.lstsq(means_c[0].T, means_v[0][0], rcond=None)[0]
    return _Cross(
        outer={(i, j): _outer(crosses[i], crosses[j], own[i], own[j], shares) for i, j in pairs},
        mixed=[np.einsum("rid,rd->ri", means_c, x) for x in means_v],
        gram=gram,
        safety_squared=[_between(x, x, w, w) for x, w in zip(v, own, strict=True)],
        safety_product=_between(v[0], v[-1], own[0], own[-1]),
        safety_naive=naive_v,
        capability_naive=np.diagonal(means_c[0] @ means_c[0].T).copy(),
        naive=float(overlap @ (means_c[0] @ means_v[0][0]) / naive_v[0]),
        count=count,
        level=level,
    )


def _between(x: tuple[FloatArray, FloatArray], y: tuple[FloatArray, FloatArray], left: FloatArray, right: FloatArray) -> FloatArray:
    """(R,) mean product of different blocks of two directions.

    Args:
        x: block estimates (K, d) of the one, and their weights.
        y: the same of the other.
        left: (R, K) shares of the blocks of the one, a row for every estimate that is wanted.
        right: the same of the other.
    """
    same = (left * right) @ np.einsum("kd,kd->k", x[0], y[0])
    return _off_diagonal(np.einsum("rd,rd->r", left @ x[0], right @ y[0]), same, np.sum(left * right, axis=1))


def _outer(x: FloatArray, y: FloatArray, left: FloatArray, right: FloatArray, shares: FloatArray) -> FloatArray:
    """(K + 1, m, m) mean over k != k', l != l' of x_i[k, l] y_j[k', l'], by inclusion and exclusion.

    Args:
        x: (m, K, K) products of capability blocks k with blocks l of one safety direction.
        y: the same of the other.
        left: (K + 1, K) weights of the blocks of the one safety direction.
        right: the same of the other.
        shares: (K + 1, m, K) weights of the capability blocks.
    """
    out = np.empty((len(left), len(x), len(x)))
    for r, (a, b, s) in enumerate(zip(left, right, shares, strict=True)):
        p, q = s[:, :, None] * x * a, s[:, :, None] * y * b
        everything = np.outer(p.sum(axis=(1, 2)), q.sum(axis=(1, 2)))
        same_capability = p.sum(axis=2) @ q.sum(axis=2).T
        same_safety = p.sum(axis=1) @ q.sum(axis=1).T
        both = p.reshape(len(x), -1) @ q.reshape(len(x), -1).T
        out[r] = (everything - same_capability - same_safety + both) / ((1 - s @ s.T) * (1 - a @ b))
    return out


def _off_diagonal(everything: FloatArray, same: FloatArray, weight: FloatArray) -> FloatArray:
    """Weighted mean of products of different blocks, from that of all products, the part of equal blocks and the weight of these."""
    return np.asarray((everything - same) / (1 - weight))


def _shares(weights: FloatArray, keep: FloatArray) -> FloatArray:
    kept = keep * weights
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def _block_estimates(
    rows: list[FloatArray], labels: list[IntArray], block_of: IntArray, count: int, name: str
) -> tuple[FloatArray, FloatArray]:
    """(K, d) the direction by block, and (K,) how much it weighs: n, or n1 n0/(n1 + n0) rows."""
    means, sizes = [], []
    for x, y in zip(rows, labels, strict=True):
        block = block_of[y]
        size = np.bincount(block, minlength=count).astype(np.float64)
        if not size.all():
            raise ValueError(_empty(name, int(np.sum(size == 0)), count))
        means.append(np.stack([x[block == k].mean(axis=0) for k in range(count)]))
        sizes.append(size)
    if len(means) == 1:
        return means[0], sizes[0]
    return means[0] - means[1], sizes[0] * sizes[1] / (sizes[0] + sizes[1])


def _sample_labels(samples: Sequence[Sample], names: Sequence[str], rows: list[list[FloatArray]]) -> list[list[IntArray]]:
    """Labels of the rows of every part of every sample, as numbers that are common to all samples."""
    for s, name in zip(samples, names, strict=True):
        if s.negative is not None and (s.groups is None) != (s.negative_groups is None):
            raise ValueError(f"{name}: groups are given for one class only; give them for both or for none")
    given = [x for s, parts in zip(samples, rows, strict=True) for x in (s.groups, s.negative_groups)[: len(parts)]]
    spread = [name for name, parts in zip(names, rows, strict=True) for _ in parts]
    flat = iter(_numbered(given, [len(x) for parts in rows for x in parts], spread))
    return [[next(flat) for _ in parts] for parts in rows]


def _no_common(rows: list[list[FloatArray]], labels: list[list[IntArray]], safeties: int, names: Sequence[str]) -> None:
    """Rows or groups in two samples put the same noise into two directions.

    Between safety and capability that is an error; between others it is one unless their groups say so, which keeps products of them apart.
    """
    own = np.concatenate([x for parts in labels[:safeties] for x in parts])
    for numbers, name in zip(labels[safeties:], names[safeties:], strict=True):
        if np.isin(np.concatenate(numbers), own).any():
            raise ValueError(f"{name} has a group in common with a safety direction: take safety and capability from different prompts")
    flat = [(x, i) for i, parts in enumerate(rows) for x in parts]
    number = np.concatenate([x for parts in labels for x in parts])
    sample = np.repeat([i for _, i in flat], [len(x) for x, _ in flat])
    position = np.concatenate([np.arange(len(x)) for x, _ in flat])
    part = np.repeat(np.arange(len(flat)), [len(x) for x, _ in flat])
    key = np.random.default_rng(0).normal(size=flat[0][0].shape[1])  # equal rows have equal products with it, others almost surely not
    products = np.concatenate([x @ key for x, _ in flat])
    order = np.argsort(products)
    a, b = order[:-1], order[1:]
    slack = 1e-9 * float(np.abs(products).max())
    for first, second in np.column_stack([a, b])[np.diff(products[order]) <= slack]:
        if sample[first] == sample[second] or number[first] == number[second]:
            continue
        row = flat[part[first]][0][position[first]]
        if row.any() and np.array_equal(row, flat[part[second]][0][position[second]]):
            low, high = sorted((int(sample[first]), int(sample[second])))
            if low < safeties <= high:
                raise ValueError(f"{names[high]} has a row in common with {names[low]}: take safety and capability from different prompts")
            raise ValueError(f"{names[low]} and {names[high]} have a row in common: say so by a common label in their groups")


# -- rows, labels, blocks -------------------------------------------------------------------------------------------


def _check(level: float, blocks: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"the level lies between 0 and 1, found {level:g}")
    if blocks < MIN_BLOCKS:
        raise ValueError(f"blocks is {blocks}: the jackknife takes at least {MIN_BLOCKS}")


def _states(x: npt.ArrayLike, name: str) -> FloatArray:
    rows = np.asarray(x, dtype=np.float64)
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"{name}: rows of numbers are needed, (prompts, dimensions); found the shape {rows.shape}")
    with np.errstate(invalid="ignore", over="ignore"):
        finite = bool(np.isfinite(rows.sum()))
    if not finite:
        raise ValueError(
            f"{name}: values that are not finite, first in row {int(np.argmin(np.isfinite(rows).all(axis=1)))} (counted from 0)"
        )
    return rows


def independent_columns(basis: npt.ArrayLike, d: int) -> FloatArray:
    """(d, m) columns of length 1.

    Raises:
        ValueError: on another shape, values that are not finite, a column of zeros, more columns than dimensions, or columns that depend on each other.
    """
    columns = unit_columns(basis)
    if len(columns) != d:
        raise ValueError(f"the basis has {len(columns)} dimensions and the states {d}: both must be of one layer")
    m = columns.shape[1]
    if m > d:
        raise ValueError(f"{m} capability directions in {d} dimensions: they span everything, and the tax rate is 1 whatever is measured")
    singular = np.linalg.svd(columns, compute_uv=False)
    rank = int(np.sum(singular > _RANK_TOL * singular[0]))
    if rank < m:
        raise ValueError(f"the {m} capability directions span only {rank} dimensions: leave out those that the others span")
    return columns


def _numbered(given: Sequence[npt.ArrayLike | None], sizes: Sequence[int], names: Sequence[str]) -> list[IntArray]:
    """Group labels of parts as numbers that are common to all parts; rows without labels get a number each."""
    labels = [None if x is None else np.asarray(x) for x in given]
    for x, n, name in zip(labels, sizes, names, strict=True):
        if x is not None and x.shape != (n,):
            raise ValueError(f"{name}: one group label per row is needed, found the shape {x.shape} for {n} rows")
    texts = [None if x is None else x.astype(np.str_) for x in labels]
    every = np.unique(np.concatenate([np.zeros(0, dtype=np.str_), *(x for x in texts if x is not None)]))
    found, free = [], len(every)
    for x, n in zip(texts, sizes, strict=True):
        found.append(np.arange(free, free + n) if x is None else np.searchsorted(every, x).astype(np.int64))
        free += n
    return found


def _assign(parts: Sequence[IntArray], names: Sequence[str], blocks: int) -> tuple[int, IntArray]:
    """Blocks for groups: how many, and (groups,) the block of each.

    A group goes where the parts that it is in have the fewest groups so far, groups of several parts first.

    Raises:
        ValueError: if a part has fewer than eight groups.
    """
    unique = [np.unique(x) for x in parts]
    for x, name in zip(unique, names, strict=True):
        if len(x) < MIN_BLOCKS:
            raise ValueError(f"{name}: {len(x)} independent rows or groups, and the jackknife takes at least {MIN_BLOCKS}")
    count, total = min(blocks, *(len(x) for x in unique)), int(max(x[-1] for x in unique)) + 1
    member = np.zeros((total, len(parts)), dtype=bool)
    for i, x in enumerate(unique):
        member[x, i] = True
    block_of, filled = np.zeros(total, dtype=np.int64), np.zeros((len(parts), count), dtype=np.int64)
    for g in np.flatnonzero(member.sum(axis=1) > 1):
        block_of[g] = np.argmin(filled[member[g]].sum(axis=0))
        filled[member[g], block_of[g]] += 1
    for i, taken in enumerate(filled):
        alone = np.flatnonzero(member[:, i] & (member.sum(axis=1) == 1))
        levels = np.arange(int(taken.max()) + len(alone) // count + 2)
        block_of[alone] = np.argwhere(levels[:, None] >= taken)[: len(alone), 1]
    return count, block_of


def _check_shares(labels: Sequence[IntArray], block_of: IntArray, names: Sequence[str]) -> None:
    """No group may hold half of a class, with any block left out: its noise could not be told from the difference."""
    for x, name in zip(labels, names, strict=True):
        sizes, by_block = np.bincount(x), np.bincount(block_of[x])
        if 2 * sizes.max() >= len(x) - by_block.max():
            raise ValueError(
                f"{name}: one group holds {int(sizes.max())} of {len(x)} rows; groups must be smaller than half of what is left without a block"
            )


def _interval(replicates: FloatArray, t: float) -> tuple[float, float, float, float]:
    """Estimate, limits and standard error from (K + 1,)."""
    estimate, se = float(replicates[0]), sqrt(float(jackknife_covariance(replicates[None])[0, 0]))
    return estimate, estimate - t * se, estimate + t * se, se


def _jackknifed(replicates: FloatArray, t: float) -> Jackknifed:
    """From (K + 1,)."""
    estimate, low, high, se = _interval(replicates, t)
    p = min(1.0, 2 * upper_tail(abs(_ratio(estimate, se)), len(replicates) - 2.0))
    return Jackknifed(estimate, low, high, se, p)


def _is_weak(reliability: float, z: float) -> bool:
    return z < MIN_Z or reliability < MIN_RELIABILITY


def _weak(which: str, reliability: float, z: float) -> str:
    return f"not identified: {which} has reliability {reliability:.2f} and is {z:.1f} standard errors long; it takes {MIN_RELIABILITY:g} and {MIN_Z:g}"


def _ratio(value: float, error: float) -> float:
    return value / error if error > 0 else 0.0 if value == 0 else inf if value > 0 else -inf
