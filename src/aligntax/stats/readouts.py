"""The tax rate under the states' own covariance: how much of a safety readout the capability readouts explain.

With a budget that keeps hidden states where states usually are (Mahalanobis) the product of two readouts s and c is s'Sigma c, so that over inputs

    cos(alpha) = correlation of s'h and c'h,      tau_Sigma = R^2 of s'h regressed on the c_i'h,

and the partial cosine given capabilities is the ordinary partial correlation. Inference is in the number of inputs, not of dimensions.

**Readouts** (``out_of_fold``) are read off states by ridge regression on labels (for two classes that is linear discriminant analysis with a shrunk
covariance, Friedman 1989, J. Am. Stat. Assoc. 84:165), each input by a fit that has not seen its group. The penalty is chosen within the other
folds, by the error on groups left out in turn, which needs no refitting: the residuals of a group are (I - H_gg)^-1 (y_g - yhat_g). Fits of
different folds differ in scale and offset, so a readout is counted from the mean of the states it was fitted on and in units of its own standard
deviation there; offsets would otherwise correlate held-out labels with readouts below 0. A readout that does not read its own label is told.

**Fitted readouts are noisy**, and an R^2 between noisy readouts is too small however many inputs it is taken over: with 300 inputs, 64 dimensions and
four capabilities a true .7 is estimated as .5. So ``label_tax`` fits every readout twice on halves that share no group, reads inputs that neither has
seen, and takes products only between the two fits: with M_ij the covariance over inputs of the first fit of i and the second of j, tau_Sigma =
b1'G^-1 b2/M_ss, G the symmetric part of M_cc, b1 and b2 the parts of M between capabilities and safety, as in ``directions.cross_fitted``. Noise drops
out; what a penalty shrinks away does not, so a tenth of the penalty that predicts best is taken. The same example is estimated as .66 to .70, with limits
that hold it; where two fits agree by less than .5 the result is "not identified". The jackknife removes whole blocks from fits and inputs, in closed form.

**R^2** grows with the number of capabilities: of m unrelated ones it averages m/(n - 1). Where inputs are independent the estimate is the adjusted
R^2; where they come in groups it is the jackknife's correction K R^2 - (K - 1) mean R^2_(-k) over blocks of groups, since groups of inputs that share
a mean count for fewer than n: with 40 groups of 10 and an intraclass correlation of .8, sixteen unrelated capabilities have an adjusted R^2 of .23 on
average and a corrected one of .03. Limits are those of ``directions.rate_limits``, by the same blocks. They are for the readouts as they were fitted.

The test that no capability explains anything is the F test; with groups Hotelling's, that the sums by block of the products of readouts have mean 0.
Partial correlations have Fisher's z limits with error 1/sqrt(n - q - 3) given q others (Fisher 1924, Metron 3:329), with groups the jackknife's of z.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt, tanh

import numpy as np
import numpy.typing as npt
from scipy.special import fdtrc, ndtr, stdtr

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.directions import (
    BLOCKS,
    MIN_BLOCKS,
    MIN_EIGENVALUE,
    SignedOverlap,
    group_blocks,
    jackknife_covariance,
    rate_limits,
    signed_overlaps,
)
from aligntax.stats.multiplicity import holm
from aligntax.stats.paired import critical_value

PENALTIES = 10.0 ** np.arange(-4.0, 4.25, 0.5)
"""Ridge penalties that are tried, in units of the states' mean squared length (the mean eigenvalue of their Gram matrix)."""

UNDERSMOOTHING = 0.1
"""Share of the chosen penalty that ``label_tax`` takes: noise is corrected for, what a penalty shrinks away is not."""
MIN_AGREEMENT = 0.5
"""Least correlation between the readouts of two independent fits."""

_PARTS = 5
_TOLERANCE = 1e-10


@dataclass(frozen=True)
class Readouts:
    """Out-of-fold readouts.

    Attributes:
        values: (n, q) readout of every label on every input, by a fit that has not seen the input's group.
        agreement: (q,) correlation of readout and label.
        low: (q,) its lower limit, jackknifed over groups.
        penalties: (folds, q) chosen, in units of the states' mean squared length; the largest says that no direction helped.
        reasons: per label, why its readout means nothing; None where it reads its label.
        folds: how many.
    """

    values: FloatArray
    agreement: FloatArray
    low: FloatArray
    penalties: FloatArray
    reasons: tuple[str | None, ...]
    folds: int


@dataclass(frozen=True)
class PartialCorrelation:
    """The correlation of two readouts given others.

    Attributes:
        estimate: from -1 to 1.
        low, high: limits at ``level``, by Fisher's z.
        p: two-sided, that it is 0.
        adjusted_p: by Holm's method over the capabilities tested together.
        given: how many others were held fixed.
        level: confidence.
    """

    estimate: float
    low: float
    high: float
    p: float
    adjusted_p: float
    given: int
    level: float


@dataclass(frozen=True)
class ReadoutTax:
    """tau_Sigma of a safety readout given capability readouts.

    Attributes:
        estimate: corrected R^2; may lie below 0.
        low, high: limits.
        se: jackknife standard error.
        raw: R^2 as it stands, which is too large.
        adjusted: adjusted R^2, which is the estimate where inputs are independent.
        f, df, p: the test that no capability explains anything; None with as many capabilities as blocks or more.
        partials: per capability, the partial correlation given the others.
        inputs, capabilities: n and m.
        blocks: K.
        grouped: whether inputs came in groups.
        level: confidence.
    """

    estimate: float
    low: float
    high: float
    se: float
    raw: float
    adjusted: float
    f: float | None
    df: tuple[float, float] | None
    p: float | None
    partials: tuple[PartialCorrelation, ...]
    inputs: int
    capabilities: int
    blocks: int
    grouped: bool
    level: float


@dataclass(frozen=True)
class LabelTax:
    """tau_Sigma of readouts that were fitted to labels, corrected for the noise of the fits.

    Attributes:
        estimate, low, high, se: from readouts by two independent fits; None where not identified.
        naive: corrected R^2 of readouts by one fit, which noise pulls down.
        overlaps: per capability, the correlation of its readout with that of safety, corrected; empty where not identified.
        agreement: (1 + m,) correlation between the readouts of two independent fits, safety first.
        clipped: eigenvalues of the correlations between capabilities that were taken as ``directions.MIN_EIGENVALUE``.
        reason: why it is not identified; None where it is.
        blocks: K.
        level: confidence.
    """

    estimate: float | None
    low: float | None
    high: float | None
    se: float | None
    naive: float
    overlaps: tuple[SignedOverlap, ...]
    agreement: FloatArray
    clipped: int
    reason: str | None
    blocks: int
    level: float


def out_of_fold(
    states: npt.ArrayLike,
    labels: npt.ArrayLike,
    rng: np.random.Generator,
    groups: npt.ArrayLike | None = None,
    *,
    folds: int = 5,
    level: float = 0.95,
) -> Readouts:
    """Readouts of labels from states, each input by a fit on other groups.

    Args:
        states: (n, d) hidden states.
        labels: (n,) or (n, q): two values for classes, or any numbers.
        rng: deals groups into folds.
        groups: (n,) labels of inputs that belong together; None: inputs are independent.
        folds: at least 2.
        level: of ``Readouts.low``.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, a label that is constant (also within the inputs of a fit), states that are
            all the same, or fewer than eight groups.
    """
    gram, y = _labelled(states, labels)
    count, block = group_blocks(groups, len(y), "inputs", BLOCKS)
    codes = _codes(groups, len(y))
    if not 2 <= folds <= MIN_BLOCKS:
        raise ValueError(f"folds is {folds}: from 2 to {MIN_BLOCKS} are possible")
    fold = rng.permutation(np.arange(int(codes.max()) + 1) % folds)[codes]
    values, penalties = np.empty_like(y), np.empty((folds, y.shape[1]))
    for k in range(folds):
        held = np.flatnonzero(fold == k)
        part = _training(gram, y, np.flatnonzero(fold != k), held)
        scale = float(part.values.mean())
        penalties[k] = _choose([part], codes, scale)
        weights = part.vectors @ (part.vectors.T @ part.target / (part.values[:, None] + scale * penalties[k]))
        spread = (part.kernel @ weights).std(axis=0)
        values[held] = part.across @ weights / np.where(spread > 0, spread, 1.0)
    agreement, low = _agreement(values, y, block, count, level)
    reasons = tuple(
        None if limit > 0 else f"not identified: the readout agrees with its label by a correlation of {r:.2f}, which is not told from 0"
        for r, limit in zip(agreement, low, strict=True)
    )
    return Readouts(values, agreement, low, penalties, reasons, folds)


def readout_tax(
    safety: npt.ArrayLike,
    capabilities: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    blocks: int = BLOCKS,
) -> ReadoutTax:
    """tau_Sigma: the share of a safety readout's variance over inputs that capability readouts explain.

    Args:
        safety: (n,) readout of every input.
        capabilities: (n,) or (n, m) readouts.
        groups: (n,) labels of inputs that belong together; None: inputs are independent.
        level: confidence.
        blocks: K, at least 8; fewer are made where there are fewer groups.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, a constant readout, capability readouts that depend on each other, fewer
            than eight groups, or too few inputs for so many capabilities.
    """
    table = _table(safety, capabilities)
    n, m = len(table), table.shape[1] - 1
    count, block = group_blocks(groups, n, "inputs", blocks)
    sizes, covariances = _covariances(table, block, count)
    coordinates = _coordinates(covariances)
    raw = np.sum(coordinates**2, axis=1)
    adjusted = 1 - (1 - raw) * (sizes - 1) / (sizes - m - 1)
    corrected = adjusted if groups is None else adjusted + (count * raw[0] - (count - 1) * float(raw[1:].mean()) - adjusted[0])
    rate = rate_limits(corrected, coordinates, critical_value(level, float(count - 1)))
    f, df = _f_test(float(raw[0]), n, m) if groups is None else _hotelling(table, block, count)
    return ReadoutTax(
        estimate=rate.estimate,
        low=rate.low,
        high=rate.high,
        se=rate.se,
        raw=float(raw[0]),
        adjusted=float(adjusted[0]),
        f=f,
        df=df,
        p=None if df is None else float(fdtrc(*df, f)),
        partials=_partials(covariances, n, m, groups is not None, level),
        inputs=n,
        capabilities=m,
        blocks=count,
        grouped=groups is not None,
        level=level,
    )


def partial_correlation(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    given: npt.ArrayLike,
    groups: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    blocks: int = BLOCKS,
) -> PartialCorrelation:
    """The correlation of two readouts (n,) over inputs, given readouts (n, q) that are held fixed: two safety readouts given capabilities.

    Args:
        first: (n,) readout.
        second: (n,) the other.
        given: (n,) or (n, q) readouts held fixed.
        groups: as in ``readout_tax``.
        level: confidence.
        blocks: as in ``readout_tax``.

    Raises:
        ValueError: as ``readout_tax``.
    """
    fixed = _finite(given, "readouts held fixed")
    fixed = fixed[:, None] if fixed.ndim == 1 else fixed
    table = _table(first, np.column_stack([_finite(second, "the second readout"), fixed]))
    count, block = group_blocks(groups, len(table), "inputs", blocks)
    return _partials(_covariances(table, block, count)[1], len(table), 1, groups is not None, level)[0]


def label_tax(
    states: npt.ArrayLike,
    safety: npt.ArrayLike,
    capabilities: npt.ArrayLike,
    rng: np.random.Generator,
    groups: npt.ArrayLike | None = None,
    *,
    level: float = 0.95,
    blocks: int = BLOCKS,
    repeats: int = 3,
) -> LabelTax:
    """tau_Sigma of the readouts that labels define, corrected for the noise of the fits (module docstring).

    Args:
        states: (n, d) hidden states.
        safety: (n,) labels: two values, or any numbers.
        capabilities: (n,) or (n, m) labels.
        rng: deals blocks of groups into parts.
        groups: (n,) labels of inputs that belong together; None: inputs are independent.
        level: confidence.
        blocks: K, at least 10; fewer are made where there are fewer groups.
        repeats: how often blocks are dealt; products are averaged.

    Raises:
        ValueError: on shapes that do not fit, values that are not finite, labels that are constant where a readout is fitted, states that are all the
            same, or fewer than ten groups.
    """
    s, c = _finite(safety, "safety labels"), _finite(capabilities, "capability labels")
    c = c[:, None] if c.ndim == 1 else c
    if s.ndim != 1 or len(s) != len(c) or repeats < 1:
        raise ValueError(
            f"labels are (inputs,) and (inputs, capabilities) and repeats at least 1; found {s.shape}, {c.shape} and {repeats}"
        )
    gram, y = _labelled(states, np.column_stack([s, c]))
    count, block = group_blocks(groups, len(y), "inputs", blocks)
    if count < 2 * _PARTS:
        raise ValueError(f"{count} blocks of groups: two independent fits for every input take at least {2 * _PARTS}")
    codes = _codes(groups, len(y))
    y = (y - y.mean(axis=0)) / np.where(y.std(axis=0) > 0, y.std(axis=0), 1.0)
    covariances = np.zeros((count + 1, 2 * y.shape[1], 2 * y.shape[1]))
    for _ in range(repeats):
        sums = _two_fits(gram, y, codes, block, rng.permutation(np.arange(count) % _PARTS))
        means = sums[:, 0, 1:] / sums[:, :1, 0]
        covariances += (sums[:, 1:, 1:] / sums[:, :1, :1] - means[:, :, None] * means[:, None, :]) / repeats
    once = out_of_fold(states, y, rng, groups, level=level).values
    naive = readout_tax(once[:, 0], once[:, 1:], groups, level=level, blocks=blocks)
    return _corrected(covariances, naive.estimate, np.atleast_2d(np.corrcoef(once.T))[0], level)


def _corrected(covariances: FloatArray, naive: float, once: FloatArray, level: float) -> LabelTax:
    """From the covariances (K + 1, 2 q, 2 q) over inputs of two independent readouts of every label, safety first.

    Args:
        covariances: see above.
        naive: adjusted R^2 of readouts by one fit.
        once: (q,) correlations of these with that of safety.
        level: confidence.
    """
    count, q = len(covariances) - 1, covariances.shape[1] // 2
    across = covariances[:, :q, q:]
    squared = np.diagonal(across, axis1=1, axis2=2)
    spread = np.diagonal(covariances[0])
    agreement = squared[0] / np.sqrt(np.maximum(spread[:q] * spread[q:], np.finfo(np.float64).tiny))
    weakest = int(np.argmin(agreement))
    if agreement[weakest] < MIN_AGREEMENT or not np.all(squared > 0):
        which = "the safety readout" if weakest == 0 else f"the readout of capability {weakest - 1} (counted from 0)"
        reason = f"not identified: two independent fits of {which} agree by a correlation of {agreement[weakest]:.2f}; it takes {MIN_AGREEMENT:g}, so more inputs"
        return LabelTax(None, None, None, None, naive, (), agreement, 0, reason, count, level)
    lengths = np.sqrt(squared)
    cosines = across / lengths[:, :, None] / lengths[:, None, :]
    values, vectors = np.linalg.eigh((cosines[:, 1:, 1:] + cosines[:, 1:, 1:].transpose(0, 2, 1)) / 2)
    kept = np.maximum(values, MIN_EIGENVALUE)
    first, second = (np.einsum("kap,ka->kp", vectors, b) for b in (cosines[:, 1:, 0], cosines[:, 0, 1:]))
    rates = np.sum(first * second / kept, axis=1)
    corrected = rates + (count - 1) * (rates[0] - float(rates[1:].mean()))
    t = critical_value(level, float(count - 1))
    rate = rate_limits(corrected, np.einsum("kap,kp->ka", vectors, (first + second) / 2 / np.sqrt(kept)), t)
    overlaps = signed_overlaps((cosines[:, 1:, 0] + cosines[:, 0, 1:]) / 2, once[1:], t)
    clipped = int(np.sum(values[0] < MIN_EIGENVALUE))
    return LabelTax(rate.estimate, rate.low, rate.high, rate.se, naive, overlaps, agreement, clipped, None, count, level)


# -- readouts -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Training:
    """Inputs that a readout is fitted on, from products of states.

    Attributes:
        rows: (t,) their numbers.
        across: (h, t) products of the inputs held out with them, both counted from the mean of the latter.
        kernel: (t, t) their own.
        values, vectors: eigenvalues and eigenvectors of ``kernel``.
        target: (t, q) labels, centred.
    """

    rows: IntArray
    across: FloatArray
    kernel: FloatArray
    values: FloatArray
    vectors: FloatArray
    target: FloatArray


def _training(gram: FloatArray, y: FloatArray, rows: IntArray, held: IntArray) -> _Training:
    constant = np.ptp(y[rows], axis=0) == 0
    if constant.any():
        raise ValueError(
            f"label {int(np.argmax(constant))} (counted from 0) has one value only where a readout is fitted: there is nothing to tell apart"
        )
    kernel, across = gram[np.ix_(rows, rows)], gram[np.ix_(held, rows)]
    means = kernel.mean(axis=1)
    kernel = kernel - means[:, None] - means + means.mean()
    across = across - across.mean(axis=1, keepdims=True) - means + means.mean()
    values, vectors = np.linalg.eigh(kernel)
    return _Training(rows, across, kernel, np.maximum(values, 0.0), vectors, y[rows] - y[rows].mean(axis=0))


def _choose(parts: list[_Training], codes: IntArray, scale: float) -> FloatArray:
    """(q,) the penalties, in units of ``scale``, with the least error on groups left out in turn, summed over trainings."""
    errors = np.zeros((len(PENALTIES), parts[0].target.shape[1]))
    for part in parts:
        turned = part.vectors.T @ part.target
        for i, penalty in enumerate(PENALTIES):
            shrunk = part.values / (part.values + scale * penalty)
            errors[i] += _left_out_error(part.vectors, shrunk, turned, part.target, codes[part.rows])
    return np.asarray(PENALTIES[np.argmin(errors, axis=0)])


def _left_out_error(vectors: FloatArray, shrunk: FloatArray, turned: FloatArray, target: FloatArray, codes: IntArray) -> FloatArray:
    """(q,) sum of squared errors on groups that are left out in turn, at one penalty; the mean is left out with them."""
    n = len(target)
    rest = target - vectors @ (shrunk[:, None] * turned)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    sizes = np.diff(starts, append=n)
    total = np.zeros(target.shape[1])
    for size in np.unique(sizes):
        rows = order[starts[sizes == size][:, None] + np.arange(size)]  # (groups of this size, size)
        part = vectors[rows]
        hat = np.einsum("gaj,gbj->gab", part * shrunk, part, optimize=True) + 1 / n
        total += np.sum(np.linalg.solve(np.eye(size) - hat, rest[rows]) ** 2, axis=(0, 1))
    return total


def _read(part: _Training, penalties: FloatArray, block: IntArray) -> tuple[FloatArray, dict[int, FloatArray]]:
    """Readouts (h, q) of the inputs held out, by all inputs of the training and by all but each block of them, in closed form."""
    all_in = np.empty((len(part.across), len(penalties)))
    without = {int(b): np.empty_like(all_in) for b in np.unique(block[part.rows])}
    for penalty in np.unique(penalties):
        labels = np.flatnonzero(penalties == penalty)
        inverse = (part.vectors / (part.values + penalty)) @ part.vectors.T
        weights, reach = inverse @ part.target[:, labels], part.across @ inverse
        all_in[:, labels] = part.across @ weights
        for b, found in without.items():
            own = np.flatnonzero(block[part.rows] == b)
            found[:, labels] = all_in[:, labels] - reach[:, own] @ np.linalg.solve(inverse[np.ix_(own, own)], weights[own])
    return all_in, without


def _two_fits(gram: FloatArray, y: FloatArray, codes: IntArray, block: IntArray, part_of: IntArray) -> FloatArray:
    """Sums over inputs of the products of 1 and two independent readouts of each label, with and without each block.

    Every fifth of the blocks is read by two fits, each on two of the other fifths.

    Args:
        gram: (n, n) products of states.
        y: (n, q) labels.
        codes: (n,) groups.
        block: (n,) blocks.
        part_of: (K,) fifth of each block.

    Returns:
        (K + 1, 1 + 2 q, 1 + 2 q): 1, the first readouts, the second.
    """
    count, q = len(part_of), y.shape[1]
    sums = np.zeros((count + 1, 2 * q + 1, 2 * q + 1))
    for p in range(_PARTS):
        held = np.flatnonzero(part_of[block] == p)
        others = [(p + 1 + i) % _PARTS for i in range(_PARTS - 1)]
        trainings = [_training(gram, y, np.flatnonzero(np.isin(part_of[block], half)), held) for half in (others[::2], others[1::2])]
        scale = float(np.mean([t.values.mean() for t in trainings]))
        penalties = scale * UNDERSMOOTHING * _choose(trainings, codes, scale)
        (first, first_without), (second, second_without) = (_read(t, penalties, block) for t in trainings)
        for k in range(count + 1):
            kept = np.flatnonzero(block[held] != k - 1)
            a, b = first_without.get(k - 1, first), second_without.get(k - 1, second)
            table = np.column_stack([np.ones(len(kept)), a[kept], b[kept]])
            sums[k] += table.T @ table
    return sums


def _labelled(states: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """(n, n) products of centred states, and (n, q) labels."""
    x, y = _finite(states, "states"), _finite(labels, "labels")
    y = y[:, None] if y.ndim == 1 else y
    if x.ndim != 2 or len(x) != len(y):
        raise ValueError(f"states are (inputs, dimensions) and labels (inputs,) or (inputs, labels); found {x.shape} and {y.shape}")
    x = x - x.mean(axis=0)
    gram = x @ x.T
    if not float(np.trace(gram)) > 0:
        raise ValueError("states are the same on all inputs: nothing can be read off them")
    return gram, y


def _codes(groups: npt.ArrayLike | None, n: int) -> IntArray:
    return np.arange(n) if groups is None else np.unique(np.asarray(groups).astype(np.str_), return_inverse=True)[1].astype(np.int64)


def _agreement(values: FloatArray, labels: FloatArray, block: IntArray, count: int, level: float) -> tuple[FloatArray, FloatArray]:
    """Correlation of each readout with its label, and its lower limit."""
    found, low = np.zeros(values.shape[1]), np.full(values.shape[1], -inf)
    for j in range(values.shape[1]):
        table = np.column_stack([values[:, j], labels[:, j]])
        if np.ptp(table[:, 0]) == 0:
            continue
        _, covariances = _covariances(table, block, count)
        r = covariances[:, 0, 1] / np.sqrt(covariances[:, 0, 0] * covariances[:, 1, 1])
        z = np.arctanh(np.clip(r, -1 + _TOLERANCE, 1 - _TOLERANCE))
        half = critical_value(level, float(count - 1)) * sqrt(float(jackknife_covariance(z[None])[0, 0]))
        found[j], low[j] = float(r[0]), tanh(float(z[0]) - half)
    return found, low


# -- regression -----------------------------------------------------------------------------------------------------


def _finite(x: npt.ArrayLike, name: str) -> FloatArray:
    values = np.asarray(x, dtype=np.float64)
    if values.ndim not in {1, 2} or not np.isfinite(values).all():
        raise ValueError(
            f"{name}: finite numbers are needed, one row per input; found the shape {values.shape}, {int(np.sum(~np.isfinite(values)))} values not finite"
        )
    return values


def _table(safety: npt.ArrayLike, capabilities: npt.ArrayLike) -> FloatArray:
    """(n, 1 + m) standardised readouts, safety first."""
    s, c = _finite(safety, "the safety readout"), _finite(capabilities, "capability readouts")
    c = c[:, None] if c.ndim == 1 else c
    if s.ndim != 1 or len(s) != len(c):
        raise ValueError(f"readouts are (inputs,) and (inputs, capabilities), found {s.shape} and {c.shape}")
    n, m = c.shape
    if n < m + 5:
        raise ValueError(f"{n} inputs are too few for {m} capability readouts: at least {m + 5} are needed")
    table = np.column_stack([s, c])
    spread = table.std(axis=0)
    constant = spread <= _TOLERANCE * np.abs(table).max(axis=0)
    if constant.any():
        which = int(np.argmax(constant))
        told = "the safety readout" if which == 0 else f"capability readout {which - 1} (counted from 0)"
        raise ValueError(f"{told} is the same on all inputs: it reads nothing")
    table = (table - table.mean(axis=0)) / spread
    singular = np.linalg.svd(table[:, 1:], compute_uv=False)
    if singular[-1] <= _TOLERANCE**0.5 * singular[0]:
        raise ValueError(f"the {m} capability readouts depend on each other: leave out those that the others give")
    return np.asarray(table)


def _covariances(table: FloatArray, block: IntArray, count: int) -> tuple[FloatArray, FloatArray]:
    """Numbers of inputs (K + 1,) and covariances (K + 1, q, q): of all, then without each block."""
    ones = np.column_stack([np.ones(len(table)), table])
    by_block = np.stack([ones[block == k].T @ ones[block == k] for k in range(count)])
    total = by_block.sum(axis=0)
    sums = np.concatenate([total[None], total - by_block])
    n = sums[:, 0, 0]
    means = sums[:, 0, 1:] / n[:, None]
    return n, sums[:, 1:, 1:] / n[:, None, None] - means[:, :, None] * means[:, None, :]


def _coordinates(covariances: FloatArray) -> FloatArray:
    """(K + 1, m) correlations of the first variable with the others made orthonormal; their squares add up to R^2."""
    values, vectors = np.linalg.eigh(covariances[:, 1:, 1:])
    turned = np.einsum("kap,ka->kp", vectors, covariances[:, 1:, 0]) / np.sqrt(np.maximum(values, _TOLERANCE))
    return np.asarray(np.einsum("kap,kp->ka", vectors, turned) / np.sqrt(covariances[:, 0, 0])[:, None])


def _f_test(r2: float, n: int, m: int) -> tuple[float, tuple[float, float] | None]:
    df = (float(m), float(n - m - 1))
    return (r2 / df[0] / ((1 - r2) / df[1]) if r2 < 1 else inf), df


def _hotelling(table: FloatArray, block: IntArray, count: int) -> tuple[float | None, tuple[float, float] | None]:
    """Hotelling's T^2, as an F, that the sums by block of safety times capability readouts have mean 0."""
    m = table.shape[1] - 1
    if count <= m:
        return None, None
    scores = np.stack([table[block == k, 0] @ table[block == k, 1:] for k in range(count)])
    mean = scores.mean(axis=0)
    deviations = scores - mean
    distance = count * (count - 1) * float(mean @ np.linalg.lstsq(deviations.T @ deviations, mean, rcond=None)[0])
    return distance * (count - m) / (m * (count - 1)), (float(m), float(count - m))


def _partials(covariances: FloatArray, n: int, tested: int, grouped: bool, level: float) -> tuple[PartialCorrelation, ...]:
    """Partial correlations of the first variable with the next ``tested`` ones, each given all others."""
    precision = np.linalg.inv(covariances)
    given = covariances.shape[1] - 2
    diagonal = np.sqrt(np.diagonal(precision, axis1=1, axis2=2))
    r = -precision[:, 0, 1 : tested + 1] / diagonal[:, :1] / diagonal[:, 1 : tested + 1]
    z = np.arctanh(np.clip(r, -1 + _TOLERANCE, 1 - _TOLERANCE))
    df = float(len(covariances) - 2) if grouped else None
    se = np.sqrt(np.diagonal(jackknife_covariance(z.T))) if grouped else np.full(tested, 1 / sqrt(n - given - 3))
    t = critical_value(level, df)
    scaled = np.abs(z[0]) / se
    p = 2 * (ndtr(-scaled) if df is None else stdtr(df, -scaled))
    return tuple(
        PartialCorrelation(float(r[0, i]), tanh(z[0, i] - t * se[i]), tanh(z[0, i] + t * se[i]), float(p[i]), q, given, level)
        for i, q in enumerate(holm(p.tolist()))
    )
