"""How far apart the ratings of one pair are: divergence of an ensemble, pair by pair.

Ratings are ``x`` (..., models), NaN where a model gave none; every function works along the last axis and uses the ratings there are. A
pair with too few ratings for a statistic has NaN, never 0. Missing ratings are taken to be missing at random: nothing here guards against
models that refuse exactly the pairs on which they would stand apart.

**Which statistic.** The range grows with the ensemble (by 21 % from 10 to 20 models under a normal law, by 4 % for two camps), so ranges of
different rosters do not compare; dividing by d2 corrects for that under a normal law only. Gini's mean difference and the rarefied range are
U-statistics: unbiased for every number of models and whatever the distribution. All of them depend on where on the scale a pair sits (a
pair rated .9 has less room than one rated .5); ``adjusted`` and ``logit_sd`` take that out.

Sources: c4 and d2 Tippett 1925 (Biometrika 17:364) and Grant and Leavenworth, Statistical Quality Control; Gini's mean difference Gini 1912,
as a U-statistic Hoeffding 1948; rarefaction Hurlbert 1971 (Ecology 52:577), here of the range; r_wg James, Demaree and Wolf 1984 (J. Appl.
Psychol. 69:85).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from math import comb, exp, lgamma, sqrt
from types import MappingProxyType
from typing import Literal

import numpy as np
from scipy.special import log_ndtr

from aligntax.stats.clusters import FloatArray, IntArray

Statistic = Literal["gmd", "sd", "range", "rarefied", "adjusted", "logit_sd", "mad", "iqr"]

EDGE = 0.005
"""Ratings nearer to 0 or 1 than this are moved here before a logit is taken: half a step of a scale with two decimals."""

REFERENCE_MODELS, REFERENCE_RANGE = 5, 0.20
"""The flag threshold of the Atlas protocol that the others are made to agree with: a range of .20 among 5 models, an SD of .086."""

_SLACK = 1e-9
"""A range of .95 - .75 is a range of .20, whatever binary fractions say."""


@dataclass(frozen=True)
class PairDispersion:
    """Every dispersion of every pair, (...) each; NaN where a pair has too few ratings.

    Attributes:
        n: ratings.
        mean: of the ratings.
        full_range: largest minus smallest (2 ratings and more, as all below but ``mad`` and ``iqr``).
        sd: standard deviation, n - 1 in the denominator.
        sd_unbiased: sd / c4(n), unbiased for a normal law.
        range_over_d2: range / d2(n), an estimate of the standard deviation under a normal law; too small for two camps.
        gmd: Gini's mean difference, the mean |x_i - x_j| of two different models.
        mad: median absolute deviation from the median, not scaled.
        iqr: interquartile range, quartiles interpolated linearly.
        rwg: 1 - 12 sd^2, agreement against ratings drawn evenly from [0, 1]; below 0 where models disagree more than that.
        logit_sd: standard deviation of logit(x), x moved into [.005, .995].
        adjusted: sd / sqrt(mean (1 - mean)), the share of the largest standard deviation that the mean allows (up to sqrt(n / (n-1)));
            NaN where the mean is 0 or 1: nothing can be seen there.
    """

    n: IntArray
    mean: FloatArray
    full_range: FloatArray
    sd: FloatArray
    sd_unbiased: FloatArray
    range_over_d2: FloatArray
    gmd: FloatArray
    mad: FloatArray
    iqr: FloatArray
    rwg: FloatArray
    logit_sd: FloatArray
    adjusted: FloatArray


@cache
def c4(n: int) -> float:
    """E[sd] / sigma of n independent normal values: sqrt(2/(n-1)) Gamma(n/2) / Gamma((n-1)/2).

    Raises:
        ValueError: below 2.
    """
    if n < 2:
        raise ValueError(f"c4 needs 2 values or more, got {n}")
    return sqrt(2 / (n - 1)) * exp(lgamma(n / 2) - lgamma((n - 1) / 2))


@cache
def d2(n: int) -> float:
    """E[range] / sigma of n independent normal values: the integral of 1 - Phi(t)^n - (1 - Phi(t))^n (Tippett 1925).

    Raises:
        ValueError: below 2.
    """
    if n < 2:
        raise ValueError(f"d2 needs 2 values or more, got {n}")
    # The trapezoid rule of an analytic integrand that vanishes at both ends is exact to rounding.
    t = np.linspace(-14.0, 14.0, 2801)
    upper = -np.expm1(n * log_ndtr(t))  # some value lies above t; by symmetry the other term is the same, reversed
    return float(np.sum(upper - np.exp(n * log_ndtr(-t))) * 0.01)


def flag_threshold(n: int, sd: float | None = None) -> float:
    """The range of n models that stands for one standard deviation whatever n: sd d2(n).

    Args:
        n: models that rated the pair.
        sd: .20 / d2(5) = .086 if None, so that 5 models are flagged from .20 on, as in the Atlas protocol.

    Raises:
        ValueError: for fewer than 2 models, or an sd that is not above 0.
    """
    sd = REFERENCE_RANGE / d2(REFERENCE_MODELS) if sd is None else sd
    if not sd > 0:
        raise ValueError(f"the standard deviation of a flag must be above 0, got {sd}")
    return sd * d2(n)


def atlas_threshold(n: int) -> float:
    """The Atlas protocol's own threshold (v1.0): .20 for 5 models and more, .15 for 3 and 4, .10 for 2.

    It stands for a standard deviation of .089 with 2 models and of .054 with 20: larger rosters are flagged sooner.

    Raises:
        ValueError: for fewer than 2 models.
    """
    if n < 2:
        raise ValueError(f"a range needs 2 models or more, got {n}")
    return 0.20 if n >= 5 else 0.15 if n >= 3 else 0.10


def flags(x: FloatArray, threshold: Callable[[int], float] = flag_threshold) -> FloatArray:
    """1.0 for a pair whose range reaches the threshold for the models that rated it, 0.0 for one that does not, NaN with fewer than 2."""
    n, found = _count(x), dispersion(x, "range")
    needed = np.array([np.inf, np.inf, *(threshold(i) for i in range(2, x.shape[-1] + 1))])[n]
    return np.where(n >= 2, (found >= needed - _SLACK).astype(np.float64), np.nan)


def pair_dispersion(x: FloatArray) -> PairDispersion:
    """Every statistic of every pair.

    Args:
        x: (..., models) ratings between 0 and 1, NaN where missing.

    Raises:
        ValueError: for ratings outside [0, 1] or infinite ones.
    """
    n, mean, sd = _moments(_within(x))
    full, r2 = dispersion(x, "range"), dispersion(x, "gmd")
    factors = np.array([[np.nan, np.nan], [np.nan, np.nan], *([c4(i), d2(i)] for i in range(2, x.shape[-1] + 1))])
    return PairDispersion(
        n=n,
        mean=mean,
        full_range=full,
        sd=sd,
        sd_unbiased=sd / factors[n, 0],
        range_over_d2=full / factors[n, 1],
        gmd=r2,
        mad=dispersion(x, "mad"),
        iqr=dispersion(x, "iqr"),
        rwg=1 - 12 * sd**2,
        logit_sd=dispersion(x, "logit_sd"),
        adjusted=dispersion(x, "adjusted"),
    )


def dispersion(x: FloatArray, statistic: Statistic, *, k: int | None = None) -> FloatArray:
    """(...) one statistic of every pair; see ``PairDispersion`` and, for ``rarefied``, ``rarefied_range``.

    Args:
        x: (..., models) ratings, NaN where missing; between 0 and 1 for ``adjusted`` and ``logit_sd``.
        statistic: its name.
        k: models of a sub-ensemble, for ``rarefied`` alone.

    Raises:
        ValueError: for an unknown statistic, a missing or superfluous ``k``, infinite ratings, or ratings outside the scale.
    """
    if (statistic == "rarefied") != (k is not None):
        raise ValueError(f"k belongs to the rarefied range, and only to it; got the statistic {statistic!r} with k = {k}")
    if statistic == "rarefied":
        assert k is not None
        return rarefied_range(x, k)
    if statistic not in _STATISTICS:
        raise ValueError(f"no dispersion is called {statistic!r}; there are {', '.join([*_STATISTICS, 'rarefied'])}")
    return _STATISTICS[statistic](x)


def log_dispersion(x: FloatArray, statistic: Statistic, *, k: int | None = None, step: float = 0.01) -> FloatArray:
    """Logarithm of a dispersion, of what a scale of such a step can show at the least where it is less (a log of 0 says nothing).

    The floor is half a step for what is measured in units of the rating. ``adjusted`` and ``logit_sd`` have the floor of a pair in the middle
    of the scale, where a step is smallest for them: a step, and two steps. Raising only the zeros would put a pair on which all agree above
    one on which a single model is off by a step.

    Args:
        x: (..., models) ratings, NaN where missing.
        statistic: its name.
        k: models of a sub-ensemble, for ``rarefied`` alone.
        step: of the scale, .01 for two decimals.

    Raises:
        ValueError: as ``dispersion``; for a step that is not above 0.
    """
    return np.asarray(np.log(np.maximum(dispersion(x, statistic, k=k), spread_floor(statistic, step))))


def spread_floor(statistic: Statistic, step: float) -> float:
    """The least dispersion that a scale of such a step can tell from none; see ``log_dispersion``.

    Raises:
        ValueError: for a step that is not above 0.
    """
    if not step > 0:
        raise ValueError(f"the step of a scale must be above 0, got {step}")
    return step / 2 * {"adjusted": 2.0, "logit_sd": 4.0}.get(statistic, 1.0)


def rarefied_range(x: FloatArray, k: int) -> FloatArray:
    """(...) mean range of all sub-ensembles of k models, exactly; NaN where fewer than k rated the pair.

    sum_i x_(i) [C(i-1, k-1) - C(n-i, k-1)] / C(n, k) over the sorted ratings: x_(i) is the largest of C(i-1, k-1) sub-ensembles and the
    smallest of C(n-i, k-1). k = 2 is Gini's mean difference, k = n the range. Unbiased for the expected range of k models drawn from where
    these come from.

    Args:
        x: (..., models) ratings, NaN where missing.
        k: models of a sub-ensemble.

    Raises:
        ValueError: for k below 2, or infinite ratings.
    """
    if k < 2:
        raise ValueError(f"a range needs 2 models or more, got k = {k}")
    ordered, n = _sorted(x)
    full = x.shape[-1]
    if full < k:
        return np.full(n.shape, np.nan)
    if bool((n == full).all()):
        return np.asarray(_centered(ordered) @ _rank_weights(full, k, full))
    weights = np.array([_rank_weights(i, k, full) for i in range(full + 1)])
    found = np.einsum("...m,...m->...", _centered(np.where(np.isnan(ordered), 0.0, ordered)), weights[n])
    return np.where(n >= k, found, np.nan)


@lru_cache(maxsize=256)
def _rank_weights(n: int, k: int, length: int) -> FloatArray:
    """(length,) weight of every order statistic among n ratings; 0 beyond."""
    total = comb(n, k)
    ranks = [(comb(i - 1, k - 1) - comb(n - i, k - 1)) / total if total else 0.0 for i in range(1, n + 1)]
    return np.array([*ranks, *[0.0] * (length - n)])


def _centered(ordered: FloatArray) -> FloatArray:
    """Less the smallest: equal ratings then have a range of exactly 0."""
    return ordered - ordered[..., :1]


def _sorted(x: FloatArray) -> tuple[FloatArray, IntArray]:
    return np.sort(_finite(x), axis=-1), _count(x)


def _count(x: FloatArray) -> IntArray:
    return np.asarray(np.count_nonzero(~np.isnan(x), axis=-1), dtype=np.int64)


def _finite(x: FloatArray) -> FloatArray:
    if np.isinf(x).any():
        raise ValueError("ratings must be finite, or NaN where missing")
    return x


def _within(x: FloatArray) -> FloatArray:
    if ((x < 0) | (x > 1)).any():
        raise ValueError("ratings must lie between 0 and 1; divide by the largest value of the scale first")
    return x


def _moments(x: FloatArray) -> tuple[IntArray, FloatArray, FloatArray]:
    """Ratings, their mean, their standard deviation."""
    n = _count(_finite(x))
    missing = None if bool((n == x.shape[-1]).all()) else np.isnan(x)
    base = x[..., 0] if missing is None else np.fmin.reduce(x, axis=-1)  # taken off first: equal ratings deviate by exactly 0
    off = x - base[..., None]
    if missing is not None:
        off[missing] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = off.sum(axis=-1) / n
        off -= mean[..., None]
        if missing is not None:
            off[missing] = 0.0
        sd = np.sqrt(np.einsum("...m,...m->...", off, off) / np.where(n >= 2, n - 1, np.nan))
    return n, base + mean, sd


def _quantile(ordered: FloatArray, n: IntArray, q: float) -> FloatArray:
    """Linear interpolation between order statistics (definition 7 of Hyndman and Fan 1996) of the n first values."""
    at = q * np.maximum(n - 1, 0)
    below = np.floor(at).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(n - 1, 0))
    low, high = (np.take_along_axis(ordered, i[..., None], axis=-1)[..., 0] for i in (below, above))
    return np.asarray(low + (at - below) * (high - low))


def _sd(x: FloatArray) -> FloatArray:
    return _moments(x)[2]


def _range(x: FloatArray) -> FloatArray:
    n = _count(_finite(x))
    top, bottom = np.where(np.isnan(x), -np.inf, x).max(axis=-1), np.where(np.isnan(x), np.inf, x).min(axis=-1)
    return np.asarray(np.subtract(top, bottom, out=np.full(n.shape, np.nan), where=n >= 2))


def _mad(x: FloatArray) -> FloatArray:
    ordered, n = _sorted(x)
    return _quantile(np.sort(np.abs(x - _quantile(ordered, n, 0.5)[..., None]), axis=-1), n, 0.5)


def _iqr(x: FloatArray) -> FloatArray:
    ordered, n = _sorted(x)
    return _quantile(ordered, n, 0.75) - _quantile(ordered, n, 0.25)


def _logit_sd(x: FloatArray) -> FloatArray:
    kept = np.clip(_within(x), EDGE, 1 - EDGE)
    return _sd(np.log(kept) - np.log1p(-kept))


def _adjusted(x: FloatArray) -> FloatArray:
    _, mean, sd = _moments(_within(x))
    room = mean * (1 - mean)
    return np.asarray(np.divide(sd, np.sqrt(np.maximum(room, 0.0)), out=np.full(sd.shape, np.nan), where=room > 0))


_STATISTICS: Mapping[str, Callable[[FloatArray], FloatArray]] = MappingProxyType(
    {
        "gmd": partial(rarefied_range, k=2),
        "sd": _sd,
        "range": _range,
        "adjusted": _adjusted,
        "logit_sd": _logit_sd,
        "mad": _mad,
        "iqr": _iqr,
    }
)
