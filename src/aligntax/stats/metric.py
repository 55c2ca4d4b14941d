"""Budgets other than a ball: the same geometry in the metric that the budget sets.

tau is not the same after a change of coordinates h -> A h, since ||delta|| <= B is not. A budget delta'M delta <= B^2 is a ball again in
u = M^(1/2) delta, and **everything in overlap, frontier, coupling and packing holds with M^(-1/2) s in place of every covector s**:

    <s, t> = s'M^-1 t                                                                   the product of covectors
    tau_M = s'M^-1 C (C'M^-1 C)^+ C'M^-1 s/(s'M^-1 s)
    delta = M^(-1/2) u                                                                  back to the hidden states

``Metric.covectors`` turns covectors, ``Metric.shift`` turns a found ``Shift.delta`` back. Gains and changes are then in units of
||s||_{M^-1}, the largest change that a shift of budget 1 makes of that readout.

**Covectors and vectors.** What is read off a state (probes, gradients, unembedding rows) is a covector s, <s, h> its reading. What is added to a
state (differences of means, steering vectors) is a vector x. Put together they need the metric: the covector of x is M x
(``Metric.covector_of``). The Euclidean product of the two is the most common silent error; with M = Sigma^-1 the covector of a difference of
means is the probe of linear discriminant analysis, Sigma^-1(mu1 - mu0).

Budgets:

- M = I: the ball, of B = sqrt(2 KL/f) where the next one is f I.
- M = F, the Fisher information of the output: KL(p_h || p_(h + delta)) = delta'F delta/2 + O(||delta||^3), so B = sqrt(2 KL), and the budget is of
  second order in delta, not of first. At the last layer, with unembedding rows gamma_w, F(h) = Cov_{w ~ p(.|h)}(gamma_w), averaged over h. With p
  uniform it is Cov(gamma), whose inverse is the causal inner product of Park, Choe and Veitch (2023, arXiv:2311.03658).
- M = Sigma^-1, Sigma the covariance of hidden states: shifts stay where states lie. <s, t> = s'Sigma t is the covariance of two readouts, cos
  their correlation, tau the R^2 of regressing the safety readout on the capability readouts, and the partial cosine their partial correlation.
- M = Sigma: what moves readouts that are distributed like states is dear. It is the opposite choice: high variance is dear here, cheap there.
  tau can go from near 0 to near 1 between the two, so the metric belongs to every tax rate.

Directions in generic subspaces: for v ~ N(0, Sigma) E tau is about tr(P Sigma)/tr(Sigma), often far above m/d; two such directions have a mean cos^2
of about 1/d_eff, d_eff = tr(Sigma)^2/tr(Sigma^2). Both are ratios of means, not means of ratios: at d_eff = 13 the second is 18 % too high, at 66
a few percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax

from aligntax.stats.clusters import FloatArray
from aligntax.stats.overlap import Span, span

_SINGULAR = 1e-12
"""Eigenvalues below this share of the largest are 0 but for rounding."""


@dataclass(frozen=True)
class Metric:
    """A budget delta'M delta <= B^2.

    Attributes:
        root: (d, r) A with A A' = M^-1; shifts are A u, ||u|| <= B. r < d where shifts are confined to r dimensions.
        lower: (d, r) M A, which takes a vector x = A u to its u = lower' x.
        name: what it is, for people.
    """

    root: FloatArray
    lower: FloatArray
    name: str

    @property
    def dimension(self) -> int:
        return int(self.root.shape[0])

    @property
    def confined(self) -> bool:
        """Shifts are confined to a subspace (M is infinite outside of it)."""
        return bool(self.root.shape[0] > self.root.shape[1])

    def covectors(self, s: npt.ArrayLike) -> FloatArray:
        """Covectors (d,) or (d, n), in the coordinates in which the budget is a ball: (r,) or (r, n).

        Raises:
            ValueError: on another dimension, values that are not finite, or a covector that no allowed shift moves.
        """
        x = self._fitting(s, "covectors")
        found = self.root.T @ x
        lost = np.linalg.norm(found, axis=0) <= _SINGULAR * np.linalg.norm(self.root, axis=0).max() * np.linalg.norm(x, axis=0)
        lost &= np.linalg.norm(x, axis=0) > 0
        if np.any(lost):
            raise ValueError(
                f"covector {int(np.argmax(lost))} (counted from 0) is not moved by any shift that the budget ({self.name}) allows"
            )
        return found

    def covector_of(self, x: npt.ArrayLike) -> FloatArray:
        """M x, the covector of a vector (d,) or (d, n): in the original coordinates, for ``covectors``.

        Raises:
            ValueError: on another dimension, values that are not finite, or a vector outside the subspace to which shifts are confined.
        """
        vectors = self._fitting(x, "vectors")
        inner = self.lower.T @ vectors
        off = np.linalg.norm(vectors - self.root @ inner, axis=0)
        if np.any(off > 1e-8 * np.linalg.norm(vectors, axis=0)):
            raise ValueError(
                f"a vector leaves the {self.root.shape[1]} of {self.dimension} dimensions to which shifts are confined ({self.name}): it has no covector"
            )
        return self.lower @ inner

    def shift(self, u: npt.ArrayLike) -> FloatArray:
        """The shift of hidden states (d,) that is ``u`` (r,) in the coordinates in which the budget is a ball.

        Raises:
            ValueError: on another shape.
        """
        inner = np.asarray(u, dtype=np.float64)
        if inner.shape != (self.root.shape[1],):
            raise ValueError(f"a shift in this metric has {self.root.shape[1]} numbers, found the shape {inner.shape}")
        return np.asarray(self.root @ inner)

    def length(self, delta: npt.ArrayLike) -> float:
        """sqrt(delta'M delta), what a shift (d,) takes of the budget.

        Raises:
            ValueError: as ``covector_of``.
        """
        x = self._fitting(delta, "shifts")
        if x.ndim != 1:
            raise ValueError(f"the length of one shift at a time is told, found the shape {x.shape}")
        return sqrt(max(float(x @ self.covector_of(x)), 0.0))

    def _fitting(self, x: npt.ArrayLike, name: str) -> FloatArray:
        values = np.asarray(x, dtype=np.float64)
        if values.ndim not in {1, 2} or len(values) != self.dimension or not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite and have {self.dimension} dimensions in this metric, found the shape {values.shape}")
        return values


def budget_metric(m: npt.ArrayLike, name: str = "budget matrix") -> Metric:
    """The metric of a budget delta'M delta <= B^2.

    Args:
        m: (d, d) M, symmetric and positive definite, such as a Fisher information.
        name: what it is, for people.

    Raises:
        ValueError: on another shape, values that are not finite, a matrix that is not symmetric, or one that leaves a direction free of cost (the
            gain would have no bound there).
    """
    values, axes = _eigen(m, name)
    free = int(np.sum(values <= _SINGULAR * values[-1]))
    if free:
        raise ValueError(
            f"the {name} leaves {free} of {len(values)} directions without cost, so gains along them have no bound: add what else limits shifts, "
            f"for example a multiple of the identity"
        )
    return Metric(axes / np.sqrt(values), axes * np.sqrt(values), name)


def on_distribution(sigma: npt.ArrayLike, name: str = "inverse covariance") -> Metric:
    """The metric M = Sigma^-1: tau is the R^2 between readouts of states of covariance Sigma.

    Where Sigma is singular (fewer states than dimensions) shifts are confined to the span of the states.

    Args:
        sigma: (d, d) covariance of hidden states, positive semidefinite; or their second moment, for R^2 without an intercept.
        name: what it is, for people.

    Raises:
        ValueError: on another shape, values that are not finite, or a matrix that is not symmetric.
    """
    values, axes = _eigen(sigma, name)
    kept = values > _SINGULAR * values[-1]
    return Metric(axes[:, kept] * np.sqrt(values[kept]), axes[:, kept] / np.sqrt(values[kept]), name)


def states_metric(states: npt.ArrayLike, *, centred: bool = True) -> Metric:
    """``on_distribution`` with the covariance of hidden states (n, d), without forming it.

    Args:
        states: (n, d) hidden states.
        centred: take the covariance; otherwise the second moment, which makes tau the R^2 without an intercept.

    Raises:
        ValueError: on another shape, values that are not finite, or states that do not differ.
    """
    x = _table(states, "hidden states")
    x = x - x.mean(axis=0) if centred else x
    _, singular, axes = np.linalg.svd(x / sqrt(max(len(x) - centred, 1)), full_matrices=False)
    kept = singular > sqrt(_SINGULAR) * singular[0]
    if not singular[0] > 0:
        raise ValueError(f"the {len(x)} hidden states do not differ: there is no distribution to stay on")
    return Metric(axes[kept].T * singular[kept], axes[kept].T / singular[kept], "inverse covariance of hidden states")


def softmax_fisher(unembedding: npt.ArrayLike, states: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> FloatArray:
    """(d, d) mean Fisher information of softmax(unembedding h + bias) with respect to h.

    Adding one number to all logits changes nothing, so a shift that does only that is free: ``budget_metric`` refuses an F with such a direction.

    Args:
        unembedding: (w, d) a row per word.
        states: (n, d) hidden states h of the last layer, over which the mean is taken. One of zeros, without bias, weighs all words alike.
        bias: (w,) or None.

    Raises:
        ValueError: on shapes that do not fit or values that are not finite.
    """
    rows, p = _words(unembedding, states, bias)
    shared = p.mean(axis=0)
    rows = rows - shared @ rows  # the covariance does not change, and loses fewer digits
    means = p @ rows
    return np.asarray((rows * shared[:, None]).T @ rows - means.T @ means / len(p))


def softmax_kl(unembedding: npt.ArrayLike, states: npt.ArrayLike, delta: npt.ArrayLike, bias: npt.ArrayLike | None = None) -> float:
    """Mean KL(p_h || p_(h + delta)) in nats of softmax(unembedding h + bias), exactly: what delta'F delta/2 approximates.

    Args:
        unembedding: (w, d) a row per word.
        states: (n, d) hidden states of the last layer.
        delta: (d,) one shift for all.
        bias: (w,) or None.

    Raises:
        ValueError: on shapes that do not fit or values that are not finite.
    """
    shift = np.asarray(delta, dtype=np.float64)
    rows, p = _words(unembedding, states, bias)
    if shift.shape != (rows.shape[1],) or not np.isfinite(shift).all():
        raise ValueError(f"a shift of {rows.shape[1]} finite numbers is needed, found the shape {shift.shape}")
    moved = rows @ shift
    # KL = log E_p exp(moved) - E_p moved; about the mean, so that small shifts keep their digits.
    centred = moved - (p @ moved)[:, None]
    peak = centred.max(axis=1)
    if peak.max() < 1:
        return float(np.mean(np.log1p(np.sum(p * np.expm1(centred), axis=1))))
    return float(np.mean(np.log(np.sum(p * np.exp(centred - peak[:, None]), axis=1)) + peak))


def kl_budget(kl: float) -> float:
    """B = sqrt(2 KL) for the Fisher metric, KL in nats.

    Raises:
        ValueError: unless kl is finite and above 0.
    """
    if not 0 < kl < float("inf"):
        raise ValueError(f"a KL budget is a finite number of nats above 0, found {kl}")
    return sqrt(2 * kl)


def effective_dimension(sigma: npt.ArrayLike) -> float:
    """tr(Sigma)^2/tr(Sigma^2): in how many dimensions states of covariance Sigma lie; two directions drawn from them have a mean cos^2 of about 1 over it.

    Raises:
        ValueError: on another shape, values that are not finite, or a matrix that is not symmetric.
    """
    m = _symmetric(sigma, "covariance")
    return float(np.trace(m) ** 2 / np.sum(m**2))


def generic_tax(c: npt.ArrayLike | Span, sigma: npt.ArrayLike) -> float:
    """tr(P Sigma)/tr(Sigma): about the mean tau of a direction drawn from N(0, Sigma).

    Raises:
        ValueError: on a matrix that is no covariance, or directions that do not fit.
    """
    capability = c if isinstance(c, Span) else span(c)
    m = _symmetric(sigma, "covariance")
    if len(m) != capability.dimension:
        raise ValueError(f"the covariance has {len(m)} dimensions and the capability directions {capability.dimension}")
    return float(np.sum(capability.basis * (m @ capability.basis)) / np.trace(m))


def noisy_tax(tau: npt.ArrayLike, floor: npt.ArrayLike, noise: npt.ArrayLike) -> FloatArray:
    """About the mean tau of an estimated safety direction, (tau + floor noise)/(1 + noise): pulled toward the noise's own tax rate.

    Args:
        tau: of the true direction, any shape.
        floor: ``generic_tax`` of the noise's covariance.
        noise: squared length of the noise over that of the true direction: for a difference of two means of n each, 2 tr(Sigma)/(n ||difference||^2).

    Raises:
        ValueError: on a noise below 0, or values that are not finite.
    """
    t, f, k = (np.asarray(x, dtype=np.float64) for x in (tau, floor, noise))
    if not (np.isfinite(t).all() and np.isfinite(f).all() and np.isfinite(k).all() and np.all(k >= 0)):
        raise ValueError("tax rates and noise must be finite numbers, and the noise 0 or more")
    return np.asarray((t + f * k) / (1 + k))


def _symmetric(matrix: npt.ArrayLike, name: str) -> FloatArray:
    m = np.asarray(matrix, dtype=np.float64)
    if m.ndim != 2 or m.shape[0] != m.shape[1] or not m.size or not np.isfinite(m).all():
        raise ValueError(f"the {name} must be a square matrix of finite numbers, found the shape {m.shape}")
    scale = float(np.abs(m).max())
    if float(np.abs(m - m.T).max()) > 1e-9 * scale:
        raise ValueError(f"the {name} is not symmetric: entries differ from their mirror image by {np.abs(m - m.T).max():.6g}")
    if not scale or np.any(np.diag(m) < 0):
        raise ValueError(f"the {name} must not be 0 everywhere, nor below 0 on its diagonal; the least there is {np.diag(m).min():.6g}")
    return np.asarray((m + m.T) / 2)


def _eigen(matrix: npt.ArrayLike, name: str) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, rising and 0 or more, and eigenvectors of a symmetric matrix."""
    values, axes = np.linalg.eigh(_symmetric(matrix, name))
    if values[0] < -1e-9 * values[-1]:
        raise ValueError(f"the {name} must have no eigenvalue below 0; the least is {values[0]:.6g}")
    return np.maximum(values, 0.0), axes


def _table(x: npt.ArrayLike, name: str) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a table of finite numbers, found the shape {values.shape}")
    return values


def _words(unembedding: npt.ArrayLike, states: npt.ArrayLike, bias: npt.ArrayLike | None) -> tuple[FloatArray, FloatArray]:
    """Unembedding rows (w, d) and word probabilities (n, w)."""
    rows, h = _table(unembedding, "unembedding rows"), _table(states, "hidden states")
    b = np.zeros(len(rows)) if bias is None else np.asarray(bias, dtype=np.float64)
    if rows.shape[1] != h.shape[1] or b.shape != (len(rows),) or not np.isfinite(b).all():
        raise ValueError(f"unembedding {rows.shape}, hidden states {h.shape} and bias {b.shape} do not fit together")
    return rows, np.exp(log_softmax(h @ rows.T + b, axis=1))
