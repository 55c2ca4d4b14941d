"""How a tax rate falls with the width of a model: laws fitted to a few widths, and what they can tell apart.

    packing     tau = tau0 + kappa/d            random incidental overlaps on top of an irreducible part
    welch       tau = kappa (1/d - 1/N)         optimal packing of N features, nothing irreducible; 0 from the width N on
    power       tau = tau0 + kappa d^-beta
    constant    tau = tau0

by weighted least squares with the variances of the rates, which must be debiased (``directions.tax_rate``): the noise floor of naive ones mimics the
law. Without variances they are those of the exact law tau0 + (1 - tau0) Beta(m'/2, (D - m')/2), D = d - |I|, at tau0 of a first fit.

**Packing and welch are one line.** kappa (1/d - 1/N) is tau0 + kappa/d with tau0 = -kappa/N: where N is not known they cannot be told apart, and a tau0
*below 0* is what optimal packing looks like. So tau0 is never cut at 0, ``ScalingFit.features`` is the N = -kappa/tau0 that such a fit stands for,
and welch is fitted only with N given.

**Intervals** of tau0 and kappa are profile-likelihood intervals: all values at which the weighted sum of squares, minimised over the rest, exceeds the
least by at most c. For the power law they are unions over beta from 0.05 to 5; where the data do not bound beta from below they are unbounded. c is the
normal law's z^2, or t^2 with n - k degrees of freedom times the residual variance if that is larger (given variances may be too small: what differs
between models besides their width is in none of them).

**Comparison** is by AIC, which has no bias where variances are known; a law is preferred if every other is worse by more than 6 (``DECISIVE``). The
small-sample AICc (Hurvich and Tsai 1989, Biometrika 76:297) corrects for a variance that is estimated from the same fit, by 2k(k + 1)/(n - k - 1): with
five widths 24 for the power law's three parameters, 6 for two, 1.3 for one. By that alone a constant would be "preferred" by 6.7 over packing where
both fit equally well, and the power law could not win where it is true. It stands beside (``ScalingFit.aicc``). With fewer than five widths nothing is
decided and ``ScalingStudy.reason`` says so.

``d`` may be any positive measure of width, such as the effective number of dimensions (tr S)^2/tr(S^2).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log, pi
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

from aligntax.stats.clusters import FloatArray
from aligntax.stats.paired import critical_value

MIN_WIDTHS = 5
DECISIVE = 6.0
"""Difference in AIC at which a rival law is preferred."""
BETAS = np.geomspace(0.05, 5.0, 4000)
"""Exponents of the power law that are tried."""

Law = Literal["packing", "welch", "power", "constant"]


@dataclass(frozen=True)
class ScalingFit:
    """One law fitted.

    Attributes:
        law: which.
        tau0, kappa, beta: parameters; None where the law has none. tau0 may be below 0.
        tau0_interval, kappa_interval: profile-likelihood limits, infinite where the data give none.
        chi2, df: weighted residual sum of squares and n - k.
        fit_p: that residuals are no larger than the variances.
        aic, aicc: Akaike's criterion with known variances, without and with the small-sample term; aicc None with too few widths for its parameters.
        features: N = -kappa/tau0 that a packing fit with tau0 below 0 and kappa above 0 stands for; None otherwise.
    """

    law: Law
    tau0: float | None
    kappa: float | None
    beta: float | None
    tau0_interval: tuple[float, float] | None
    kappa_interval: tuple[float, float] | None
    chi2: float
    df: int
    fit_p: float
    aic: float
    aicc: float | None
    features: float | None

    def at(self, width: npt.ArrayLike, features: float | None = None) -> FloatArray:
        """The law's tax rates at widths of any shape; ``features`` is the N of a welch fit."""
        d = np.asarray(width, dtype=np.float64)
        if self.law == "welch":
            if features is None or self.kappa is None:
                raise ValueError("a welch law needs its number of features")
            return self.kappa * np.maximum(1 / d - 1 / features, 0.0)
        out = np.full(d.shape, self.tau0, dtype=np.float64)
        return out if self.kappa is None else out + self.kappa * d ** -(1.0 if self.beta is None else self.beta)


@dataclass(frozen=True)
class ScalingStudy:
    """The laws beside each other.

    Attributes:
        fits: by law, those that could be fitted.
        preferred: the law with the least AIC if every other is worse by more than ``DECISIVE``; None where undecided.
        rivals: AIC of each law less that of packing.
        variances: (n,) used.
        widths: how many different ones.
        reason: why nothing is decided; None where the comparison counts.
        level: confidence.
    """

    fits: dict[Law, ScalingFit]
    preferred: Law | None
    rivals: dict[Law, float]
    variances: FloatArray
    widths: int
    reason: str | None
    level: float


def packing_variance(width: npt.ArrayLike, tau0: float, incidental: float, intrinsic: int = 0) -> FloatArray:
    """Variance of tau under random packing: (1 - tau0)^2 2m'(D - m')/(D^2 (D + 2)), D = d - |I|.

    Args:
        width: d, any shape.
        tau0: irreducible part.
        incidental: m', directions that overlap by packing only.
        intrinsic: |I|.

    Raises:
        ValueError: unless 0 < m' < D at every width.
    """
    free = np.asarray(width, dtype=np.float64) - intrinsic
    if intrinsic < 0 or incidental <= 0 or not np.all(free > incidental):
        raise ValueError(
            f"the law takes 0 < m' < d - |I|; found m' = {incidental:g}, |I| = {intrinsic} and widths from {np.min(free) + intrinsic:g}"
        )
    return np.asarray((1 - tau0) ** 2 * 2 * incidental * (free - incidental) / (free**2 * (free + 2)))


def fit_widths(
    widths: npt.ArrayLike,
    rates: npt.ArrayLike,
    variances: npt.ArrayLike | None = None,
    *,
    incidental: float | None = None,
    intrinsic: int = 0,
    features: float | None = None,
    level: float = 0.95,
) -> ScalingStudy:
    """Fit the laws to tax rates at several widths.

    Args:
        widths: (n,) above 0; a width may occur more than once (seeds).
        rates: (n,) debiased tax rates.
        variances: (n,) of the rates, above 0; None: those of the exact law, which needs ``incidental``.
        incidental: m', for the exact law's variances.
        intrinsic: |I|, for the same.
        features: N, for welch; None leaves it out.
        level: confidence.

    Raises:
        ValueError: on shapes that do not fit, values out of range, fewer than three different widths, or no way to know the variances.
    """
    d, y = np.asarray(widths, dtype=np.float64), np.asarray(rates, dtype=np.float64)
    if d.ndim != 1 or d.shape != y.shape or not (np.isfinite(d).all() and np.isfinite(y).all() and np.all(d > 0)):
        raise ValueError(f"widths above 0 and as many finite tax rates are needed, found the shapes {d.shape} and {y.shape}")
    different = len(np.unique(d))
    if different < 3:
        raise ValueError(f"{different} different widths: a law with two parameters takes at least three")
    if not 0 < level < 1:
        raise ValueError(f"the level lies between 0 and 1, found {level:g}")
    if features is not None and not features > 0:
        raise ValueError(f"the number of features must be above 0, found {features:g}")
    v = _variances(d, y, variances, incidental, intrinsic)
    fits: dict[Law, ScalingFit] = {
        "packing": _linear("packing", [np.ones_like(d), 1 / d], y, v, level),
        "constant": _linear("constant", [np.ones_like(d)], y, v, level),
    }
    if features is not None and np.any(d < features):
        fits["welch"] = _linear("welch", [np.maximum(1 / d - 1 / features, 0.0)], y, v, level)
    if different > 3:
        fits["power"] = _power(d, y, v, level)
    rivals: dict[Law, float] = {law: f.aic - fits["packing"].aic for law, f in fits.items() if law != "packing"}
    reason = None if different >= MIN_WIDTHS else f"{different} different widths: it takes at least {MIN_WIDTHS} to compare laws"
    return ScalingStudy(fits, _preferred(fits) if reason is None else None, rivals, v, different, reason, level)


def _preferred(fits: dict[Law, ScalingFit]) -> Law | None:
    order = sorted(fits, key=lambda law: fits[law].aic)
    return order[0] if fits[order[1]].aic - fits[order[0]].aic > DECISIVE else None


def _variances(d: FloatArray, y: FloatArray, given: npt.ArrayLike | None, incidental: float | None, intrinsic: int) -> FloatArray:
    if given is not None:
        v = np.asarray(given, dtype=np.float64)
        if v.shape != d.shape or not (np.isfinite(v).all() and np.all(v > 0)):
            raise ValueError(f"a finite variance above 0 is needed for every rate, found the shape {v.shape} for {len(d)}")
        return v
    if incidental is None:
        raise ValueError("variances are needed, or the number of incidental directions that gives those of the exact law")
    weights = packing_variance(d, 0.0, incidental, intrinsic)
    tau0 = _solve(np.column_stack([np.ones_like(d), 1 / d]), y, weights)[0][0]
    return packing_variance(d, min(max(float(tau0), 0.0), 0.99), incidental, intrinsic)


def _solve(design: FloatArray, y: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Coefficients, the inverse of X'WX, and the weighted residual sum of squares."""
    w = design / v[:, None]
    inverse = np.linalg.inv(design.T @ w)
    beta = inverse @ (w.T @ y)
    return beta, np.asarray(inverse, dtype=np.float64), float(np.sum((y - design @ beta) ** 2 / v))


def _threshold(chi2: float, df: int, level: float) -> float:
    """How much the sum of squares may exceed the least (module docstring)."""
    known = critical_value(level, None) ** 2
    return known if df < 1 else max(known, critical_value(level, float(df)) ** 2 * chi2 / df)


def _fitted(
    law: Law,
    values: tuple[float | None, float | None, float | None],
    intervals: tuple[tuple[float, float] | None, tuple[float, float] | None],
    chi2: float,
    v: FloatArray,
    k: int,
) -> ScalingFit:
    n = len(v)
    tau0, kappa, beta = values
    aic = chi2 + float(np.sum(np.log(2 * pi * v))) + 2 * k
    aicc = aic + 2 * k * (k + 1) / (n - k - 1) if n - k - 1 > 0 else None
    features = -kappa / tau0 if law == "packing" and tau0 is not None and kappa is not None and tau0 < 0 < kappa else None
    p = float(chdtrc(n - k, chi2)) if n > k else 1.0
    return ScalingFit(law, tau0, kappa, beta, *intervals, chi2, n - k, p, aic, aicc, features)


def _linear(law: Law, columns: list[FloatArray], y: FloatArray, v: FloatArray, level: float) -> ScalingFit:
    """A law that is linear in its parameters; a column of ones is that of tau0."""
    design = np.column_stack(columns)
    beta, inverse, chi2 = _solve(design, y, v)
    half = np.sqrt(_threshold(chi2, len(y) - len(beta), level) * np.diagonal(inverse))
    found = [(float(b), (float(b - h), float(b + h))) for b, h in zip(beta, half, strict=True)]
    tau0 = found.pop(0) if law != "welch" else (None, None)
    kappa = found.pop(0) if law != "constant" else (None, None)
    return _fitted(law, (tau0[0], kappa[0], None), (tau0[1], kappa[1]), chi2, v, len(beta))


def _power(d: FloatArray, y: FloatArray, v: FloatArray, level: float) -> ScalingFit:
    """The best exponent of a grid, refined; intervals are unions over the grid of those at each exponent."""
    from scipy.optimize import minimize_scalar  # slow to import, and only this needs it

    scale = float(np.exp(np.mean(np.log(d))))  # powers of d/scale are near 1 whatever the exponent
    lines = _lines((d / scale) ** -BETAS[:, None], y, v)
    best = int(np.argmin(lines.chi2))
    around = log(BETAS[max(best - 1, 0)]), log(BETAS[min(best + 1, len(BETAS) - 1)])
    found = minimize_scalar(
        lambda b: float(_lines((d[None] / scale) ** -np.exp(b), y, v).chi2[0]), bounds=around, method="bounded", options={"xatol": 1e-10}
    )
    beta = float(np.exp(found.x)) if found.fun < lines.chi2[best] else float(BETAS[best])
    line = _lines((d[None] / scale) ** -beta, y, v)
    chi2 = float(line.chi2[0])
    limit = chi2 + _threshold(chi2, len(d) - 3, level)
    intervals = _union(lines, limit, scale)
    return _fitted("power", (float(line.offset[0]), float(line.slope[0]) * scale**beta, beta), intervals, chi2, v, 3)


@dataclass(frozen=True)
class _Lines:
    """Weighted lines of y on several x, arrays (B,): coefficients, their variances for known errors, weighted residual sums of squares."""

    offset: FloatArray
    slope: FloatArray
    offset_variance: FloatArray
    slope_variance: FloatArray
    chi2: FloatArray


def _lines(x: FloatArray, y: FloatArray, v: FloatArray) -> _Lines:
    """Lines of y (n,) on each row of x (B, n)."""
    w = 1 / v
    centre = (x @ w) / w.sum()
    around = x - centre[:, None]
    spread = around**2 @ w
    height = float(w @ y) / float(w.sum())
    slope = around @ (w * (y - height)) / spread
    rest = y - height - slope[:, None] * around
    return _Lines(height - slope * centre, slope, 1 / w.sum() + centre**2 / spread, 1 / spread, rest**2 @ w)


def _union(lines: _Lines, limit: float, scale: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Profile limits of tau0 and kappa: at each exponent that is not rejected those of the line, over all of them the widest."""
    kept = lines.chi2 <= limit
    if kept[0]:  # as beta goes to 0 the power and the constant become one, and their coefficients run apart
        return (-inf, inf), (-inf, inf)
    units, left = scale ** BETAS[kept], limit - lines.chi2[kept]
    found = []
    for centre, variance, unit in (
        (lines.offset[kept], lines.offset_variance[kept], np.ones_like(units)),
        (lines.slope[kept], lines.slope_variance[kept], units),
    ):
        half = np.sqrt(left * variance)
        found.append((float(np.min((centre - half) * unit)), float(np.max((centre + half) * unit))))
    return found[0], found[1]
