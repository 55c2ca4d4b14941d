"""What a small council of models does not show: blind spots, agreement displaced toward sameness, and councils chosen to see more.

``x`` (P, M) holds ratings in [0, 1], NaN where missing. These are this project's own measures; no published standard exists.

- **Blind-spot rate** B(k, tau) of a pair: the share of councils of k models whose ratings span at most tau. On pairs that the full ensemble
  flags as divergent it is how often a council would have reported agreement. Exact: with ratings sorted, sum_i C(c_i, k - 1)/C(n, k), c_i the
  ratings from the i-th on that exceed it by at most tau (each council is counted at its smallest rating).
- **Within and across clusters**: the same over councils drawn from one cluster, and over all others. Clusters found in the same ratings make
  the first larger by construction: take clusters from other pairs, or from what is known of the models.
- **Consensus illusion** of a pair: clip(r_wg, 0, 1) x clip((mean - ref)/(1 - ref), 0, 1), r_wg = 1 - 12 s^2 (James, Demaree and Wolf 1984,
  J. Appl. Psychol. 69:85, against a uniform law on [0, 1]): tight agreement, displaced from an outside reference toward sameness. Without a
  reference it is not defined, which is not 0.
- **Collapse contrast** of a model: its rating of a clash minus the midpoint of its ratings of the same topic's paraphrase and of mundane
  contradictions. The weights add up to 0, so a constant offset cancels; ``position``, (clash - contradiction)/(paraphrase - contradiction), is
  free of the model's slope as well: 0 is rated like a contradiction, 1 like a paraphrase.

Two ratings that differ by tau but for rounding (1e-9) count as within tau.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from math import comb, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import comb as combs
from scipy.special import ndtr, stdtrit

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.intervals import wilson_interval
from aligntax.stats.moments import correlation

MAX_COUNCILS = 50_000
"""As many councils are compared one by one; beyond it the search is greedy with swaps."""

_ROUNDING = 1e-9
_BLOCK_CELLS = 2_000_000


@dataclass(frozen=True)
class CouncilChoice:
    """A council chosen on some pairs and verified on others. Rates are shares of flagged pairs on which a council's ratings span at most tau.

    Attributes:
        council: models, ascending.
        exhaustive: every council was compared; otherwise greedy choice and swaps, which may have missed the best.
        compared: councils compared.
        chosen_on, verified_on: flagged pairs in the two parts.
        chosen_rate: the council's rate where it was chosen; too good, by the choosing.
        rate: its rate on the held-out pairs.
        random_rate: the mean rate of all councils of that size on the held-out pairs, exact.
        difference, low, high: rate minus random_rate with its interval, for this council on pairs like the held-out ones.
        level: confidence.
    """

    council: tuple[int, ...]
    exhaustive: bool
    compared: int
    chosen_on: int
    verified_on: int
    chosen_rate: float
    rate: float
    random_rate: float
    difference: float
    low: float
    high: float
    level: float


@dataclass(frozen=True)
class PerModel:
    """An estimate and its interval per model, each (M,); NaN where there is none."""

    estimate: FloatArray
    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class CollapseContrast:
    """Where each model puts a clash between a contradiction and a paraphrase.

    Attributes:
        contrast: clash - (paraphrase + contradiction)/2.
        above_contradiction: clash - contradiction.
        above_paraphrase: clash - paraphrase of the same topic; below 0 where the clash is kept apart.
        position: (clash - contradiction)/(paraphrase - contradiction); its interval is NaN where these two do not differ for sure.
        topics, contradictions: (M,) how many each model rated.
    """

    contrast: PerModel
    above_contradiction: PerModel
    above_paraphrase: PerModel
    position: PerModel
    topics: IntArray
    contradictions: IntArray


def blind_spots(x: npt.ArrayLike, k: int, tau: float) -> FloatArray:
    """(P,) share of councils of ``k`` models whose ratings span at most ``tau``, among the models that rated the pair; NaN where these are fewer than k.

    Raises:
        ValueError: on other shapes, k below 2 or above the models, or a negative tau.
    """
    ratings = _checked(x, k, tau)
    n = np.isfinite(ratings).sum(axis=1)
    return _ratio(_agreeing(ratings, k, tau), combs(n, k))


def blind_spots_by_cluster(x: npt.ArrayLike, labels: npt.ArrayLike, k: int, tau: float) -> tuple[FloatArray, FloatArray]:
    """(P,) blind-spot rate of councils from one cluster, and of all others; NaN where there is no such council.

    Args:
        x: (P, M) ratings, NaN where missing.
        labels: (M,) cluster of each model.
        k: models in a council.
        tau: largest span that counts as agreement.

    Raises:
        ValueError: as ``blind_spots``, and on labels of another length.
    """
    ratings, clusters = _checked(x, k, tau), np.asarray(labels)
    if clusters.shape != (ratings.shape[1],):
        raise ValueError(f"one cluster per model is needed: {clusters.shape} for {ratings.shape[1]} models")
    agreeing, councils = np.zeros(len(ratings)), np.zeros(len(ratings))
    for c in np.unique(clusters):
        own = ratings[:, clusters == c]
        agreeing += _agreeing(own, k, tau)
        councils += combs(np.isfinite(own).sum(axis=1), k)
    everyone = combs(np.isfinite(ratings).sum(axis=1), k)
    return _ratio(agreeing, councils), _ratio(_agreeing(ratings, k, tau) - agreeing, everyone - councils)


def consensus_illusion(x: npt.ArrayLike, reference: npt.ArrayLike) -> FloatArray:
    """(P,) consensus illusion index; NaN with fewer than two ratings, without a reference, and where the reference is 1 (no room above it).

    Args:
        x: (P, M) ratings in [0, 1], NaN where missing.
        reference: (P,) means of people, or targets set beforehand; NaN where there is none.

    Raises:
        ValueError: on other shapes, or values outside [0, 1].
    """
    ratings, outside = np.asarray(x, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if ratings.ndim != 2 or outside.shape != (len(ratings),):
        raise ValueError(f"one reference per pair is needed: {outside.shape} for ratings {ratings.shape}")
    for values in (ratings, outside):
        if np.any(values < 0) or np.any(values > 1):
            raise ValueError("ratings and references lie in [0, 1]")
    rated = np.isfinite(ratings)
    n = rated.sum(axis=1)
    filled = np.where(rated, ratings, 0.0)
    mean = _ratio(filled.sum(axis=1), n.astype(np.float64))
    squares = np.sum(np.where(rated, (filled - mean[:, None]) ** 2, 0.0), axis=1)
    tight = np.clip(1 - 12 * _ratio(squares, n - 1.0), 0, 1)
    return tight * np.clip(_ratio(mean - outside, 1 - outside), 0, 1)


def collapse_contrast(
    clash: npt.ArrayLike, paraphrase: npt.ArrayLike, contradiction: npt.ArrayLike, *, level: float = 0.95
) -> CollapseContrast:
    """Where each model puts clashes, for topics and contradictions like these (they are the sampled units, the model is fixed).

    Intervals are Welch's t (1947, Biometrika 34:28): topics enter as pairs of clash and paraphrase, contradictions as a second sample. That of
    ``position`` is Fieller's (1954, J. R. Stat. Soc. B 16:175) with the same degrees of freedom. For the ensemble as a whole pass its mean over
    models as one column: the interval is then for these models.

    Args:
        clash: (T, M) ratings of clashes, NaN where missing.
        paraphrase: (T, M) ratings of the same topics' neutral paraphrases.
        contradiction: (Q, M) ratings of mundane contradictions.
        level: confidence level.

    Returns:
        Estimates and intervals per model; a topic counts for a model that rated both its clash and its paraphrase. NaN below two topics or two
        contradictions.

    Raises:
        ValueError: on shapes that do not fit.
    """
    c, p, q = (np.asarray(a, dtype=np.float64) for a in (clash, paraphrase, contradiction))
    if c.ndim != 2 or c.shape != p.shape or q.ndim != 2 or q.shape[1] != c.shape[1]:
        raise ValueError(f"clash and paraphrase are (topics, models), contradiction (pairs, models): found {c.shape}, {p.shape}, {q.shape}")
    models = c.shape[1]
    found = np.full((4, 3, models), np.nan)
    both = np.isfinite(c) & np.isfinite(p)
    rated = np.isfinite(q)
    for m in range(models):
        one, two, three = c[both[:, m], m], p[both[:, m], m], q[rated[:, m], m]
        if len(one) >= 2:
            found[2, :, m] = _welch(one - two, None, level)
            if len(three) >= 2:
                found[0, :, m] = _welch(one - two / 2, three / 2, level)
                found[1, :, m] = _welch(one, three, level)
                found[3, :, m] = _position(one, two, three, level)
    contrast, above_contradiction, above_paraphrase, position = (PerModel(*rows) for rows in found)
    topics, contradictions = both.sum(axis=0).astype(np.int64), rated.sum(axis=0).astype(np.int64)
    return CollapseContrast(contrast, above_contradiction, above_paraphrase, position, topics, contradictions)


def choose_council(
    x: npt.ArrayLike,
    k: int,
    tau: float,
    *,
    rng: np.random.Generator,
    flagged: npt.ArrayLike | None = None,
    topics: npt.ArrayLike | None = None,
    held_out: float = 0.5,
    level: float = 0.95,
    starts: int = 5,
) -> CouncilChoice:
    """The council of ``k`` models with the fewest blind spots on one part of the flagged pairs, verified on the other.

    Among councils with as few blind spots the one with the widest mean span is taken. A member that did not rate a pair shows nothing there: the
    span is that of the others, and with fewer than two ratings the pair is a blind spot, for the chosen council and for random ones alike.
    The interval joins Wilson's for the council's rate to that of the random councils' mean, both with Student's critical value, by MOVER (Zou and
    Donner 2008, Stat. Med. 27:1693) with half the correlation of the two over topics. Half was chosen by simulation, among six variants in six
    settings of 20 to 100 pairs (2,000 studies each): with all of it a 95 % interval covered .91 to .95, since a correlation over some ten held-out
    topics is poorly known; with none .98 to 1; with half .98 to .99, so it is somewhat too wide.

    Args:
        x: (P, M) ratings, NaN where missing.
        k: models in the council, from 2 to M - 1.
        tau: largest span that counts as agreement.
        rng: splits the pairs, and starts the search where it is not exhaustive.
        flagged: (P,) pairs that the full ensemble flags as divergent; None flags those whose ratings span more than tau.
        topics: (P,) whole numbers; pairs of one topic stay in one part, and count as one unit in the interval. None takes every pair alone.
        held_out: share of the flagged topics held out.
        level: confidence level.
        starts: random councils from which the search starts again where it is not exhaustive.

    Raises:
        ValueError: on other shapes, k outside 2..M - 1, a negative tau, a share outside (0, 1), or fewer than four flagged topics.
    """
    ratings = _checked(x, k, tau)
    total, models = ratings.shape
    if k >= models or not 0 < held_out < 1:
        raise ValueError(
            f"a council of {k} of {models} models and {held_out} held out: choose fewer models than there are, and a share between 0 and 1"
        )
    top, bottom = _extremes(ratings, np.arange(models)[None, :])
    marked = (top - bottom)[:, 0] > tau + _ROUNDING if flagged is None else np.asarray(flagged, dtype=bool)
    topic = np.arange(total) if topics is None else np.asarray(topics)
    if marked.shape != (total,) or topic.shape != (total,):
        raise ValueError(f"flags and topics are one per pair: {marked.shape} and {topic.shape} for {total} pairs")
    units = np.unique(topic[marked])
    if len(units) < 4:
        raise ValueError(f"{len(units)} flagged topics: at least four are needed to choose on some and verify on others")
    away = min(max(round(held_out * len(units)), 2), len(units) - 2)
    later = np.isin(topic, rng.choice(units, away, replace=False))
    train, test = np.flatnonzero(marked & ~later), np.flatnonzero(marked & later)
    exhaustive = comb(models, k) <= MAX_COUNCILS
    search = _all_councils if exhaustive else _greedy
    council, compared = search(ratings[train], k, tau, rng, starts)
    blind = _blind(ratings[test], council[None, :], tau)[:, 0]
    codes = np.unique(topic[test], return_inverse=True)[1]
    rate, chance, low, high = _verified(blind, _random_councils(ratings[test], k, tau), codes, level)
    return CouncilChoice(
        council=tuple(int(m) for m in council),
        exhaustive=exhaustive,
        compared=compared,
        chosen_on=len(train),
        verified_on=len(test),
        chosen_rate=float(_blind(ratings[train], council[None, :], tau).mean()),
        rate=rate,
        random_rate=chance,
        difference=rate - chance,
        low=low,
        high=high,
        level=level,
    )


def _verified(blind: FloatArray, random: FloatArray, units: IntArray, level: float) -> tuple[float, float, float, float]:
    """The council's and the random councils' rate, and limits of their difference; topics are averaged first."""
    sizes = np.bincount(units)
    own, other = (np.bincount(units, weights=v) / sizes for v in (blind, random))
    n, rate, chance = len(sizes), float(own.mean()), float(other.mean())
    critical = float(stdtrit(n - 1, 1 - (1 - level) / 2))
    below, above = wilson_interval(rate * n, n, 1 - 2 * float(ndtr(-critical)))
    half = critical * float(other.std(ddof=1)) / sqrt(n)
    r = (correlation(own, other) or 0.0) / 2  # chosen by simulation: docstring of choose_council
    down, up = (sqrt(max(side**2 + half**2 - 2 * r * side * half, 0.0)) for side in (rate - below, above - rate))
    return rate, chance, max(rate - chance - down, -1.0), min(rate - chance + up, 1.0)


def _checked(x: npt.ArrayLike, k: int, tau: float) -> FloatArray:
    ratings = np.asarray(x, dtype=np.float64)
    if ratings.ndim != 2 or not len(ratings):
        raise ValueError(f"ratings must be (pairs, models), found {ratings.shape}")
    if not 2 <= k <= ratings.shape[1]:
        raise ValueError(f"a council of {k} models out of {ratings.shape[1]}: it needs two or more, and no more than there are")
    if not tau >= 0 or np.any(np.isinf(ratings)):
        raise ValueError("tau is 0 or more, and ratings are finite or NaN")
    return ratings


def _ratio(a: FloatArray, b: FloatArray) -> FloatArray:
    """a/b, NaN where b is 0 or less."""
    good = b > 0
    return np.where(good, a / np.where(good, b, 1.0), np.nan)


def _agreeing(x: FloatArray, k: int, tau: float) -> FloatArray:
    """(P,) how many councils of k models span at most tau."""
    total, models = x.shape
    out = np.zeros(total)
    ordered = np.sort(x, axis=1)  # NaN last
    block = max(1, _BLOCK_CELLS // max(1, models * models))
    for start in range(0, total, block):
        rows = ordered[start : start + block]
        near = rows[:, None, :] - rows[:, :, None] <= tau + _ROUNDING
        later = np.sum(near & np.triu(np.ones((models, models), dtype=bool), 1), axis=2)
        out[start : start + block] = combs(later, k - 1).sum(axis=1)
    return out


def _extremes(x: FloatArray, councils: IntArray) -> tuple[FloatArray, FloatArray]:
    """(P, C) largest and smallest rating of each council; -inf and inf where nobody rated."""
    top, bottom = np.full((len(x), len(councils)), -np.inf), np.full((len(x), len(councils)), np.inf)
    for member in councils.T:
        column = x[:, member]
        np.fmax(top, column, out=top)
        np.fmin(bottom, column, out=bottom)
    return top, bottom


def _blind(x: FloatArray, councils: IntArray, tau: float) -> FloatArray:
    """(P, C) 1 where a council's ratings span at most tau, one or no rating included."""
    top, bottom = _extremes(x, councils)
    return (top - bottom <= tau + _ROUNDING).astype(np.float64)


def _random_councils(x: FloatArray, k: int, tau: float) -> FloatArray:
    """(P,) the mean of ``_blind`` over all councils of k models: those of which j rated the pair, over j."""
    n, models = np.isfinite(x).sum(axis=1), x.shape[1]
    out = np.zeros(len(x))
    for j in range(k + 1):
        agreeing = combs(n, j) if j < 2 else _agreeing(x, j, tau)
        out += agreeing * combs(models - n, k - j)
    return np.asarray(out / combs(models, k), dtype=np.float64)


def _best(x: FloatArray, councils: IntArray, tau: float) -> tuple[int, tuple[float, float]]:
    """The council with the fewest blind spots, of these the one with the widest mean span, of these the first; and its score."""
    scores = np.empty((2, len(councils)))
    block = max(1, _BLOCK_CELLS // len(x))
    for start in range(0, len(councils), block):
        top, bottom = _extremes(x, councils[start : start + block])
        span = np.maximum(top - bottom, 0.0)
        scores[0, start : start + block] = (span <= tau + _ROUNDING).mean(axis=0)
        scores[1, start : start + block] = -np.round(span.mean(axis=0), 12)
    found = int(np.lexsort((scores[1], scores[0]))[0])
    return found, (float(scores[0, found]), float(scores[1, found]))


def _all_councils(x: FloatArray, k: int, tau: float, rng: np.random.Generator, starts: int) -> tuple[IntArray, int]:  # noqa: ARG001
    councils = np.array(list(combinations(range(x.shape[1]), k)), dtype=np.int64)
    return councils[_best(x, councils, tau)[0]], len(councils)


def _greedy(x: FloatArray, k: int, tau: float, rng: np.random.Generator, starts: int) -> tuple[IntArray, int]:
    """From the best two models, adding the best third and so on, and from random councils: swaps of one member until none helps."""
    models = x.shape[1]
    council, compared = _all_councils(x, 2, tau, rng, 0)
    while len(council) < k:
        more = np.array([[*council, m] for m in range(models) if m not in council], dtype=np.int64)
        compared += len(more)
        council = more[_best(x, more, tau)[0]]
    found: list[tuple[tuple[float, float], tuple[int, ...]]] = []
    for start in [council, *(rng.choice(models, k, replace=False) for _ in range(starts))]:
        here, score = np.asarray(start, dtype=np.int64), _best(x, np.asarray(start, dtype=np.int64)[None, :], tau)[1]
        while True:
            outside = [m for m in range(models) if m not in here]
            swaps = np.repeat(here[None, :], k * len(outside), axis=0)
            swaps[np.arange(len(swaps)), np.repeat(np.arange(k), len(outside))] = np.tile(outside, k)
            compared += len(swaps)
            best, better = _best(x, swaps, tau)
            if better >= score:
                break
            here, score = swaps[best], better
        found.append((score, tuple(sorted(here.tolist()))))
    return np.array(min(found)[1], dtype=np.int64), compared


def _welch(a: FloatArray, b: FloatArray | None, level: float) -> tuple[float, float, float]:
    """mean(a) - mean(b) and its interval; b None for one sample."""
    samples = [a] if b is None else [a, b]
    parts = [float(s.var(ddof=1)) / len(s) for s in samples]
    change = float(a.mean()) - (0.0 if b is None else float(b.mean()))
    half = _critical(parts, [len(s) for s in samples], level) * sqrt(sum(parts))
    return change, change - half, change + half


def _critical(parts: list[float], sizes: list[int], level: float) -> float:
    """Student's critical value with Welch-Satterthwaite degrees of freedom; with no variance at all, the fewest."""
    spread = sum(v * v / (n - 1) for v, n in zip(parts, sizes, strict=True))
    df = sum(parts) ** 2 / spread if spread > 0 else min(sizes) - 1
    return float(stdtrit(df, 1 - (1 - level) / 2))


def _position(clash: FloatArray, paraphrase: FloatArray, contradiction: FloatArray, level: float) -> tuple[float, float, float]:
    """(clash - contradiction)/(paraphrase - contradiction) and the ratios r at which clash - r paraphrase - (1 - r) contradiction is not rejected."""
    low = float(contradiction.mean())
    above, room = float(clash.mean()) - low, float(paraphrase.mean()) - low
    if abs(room) < 1e-12:
        return np.nan, np.nan, np.nan
    r = above / room
    n = len(clash)
    covariance = np.cov(clash, paraphrase) / n
    noise = float(contradiction.var(ddof=1)) / len(contradiction)
    parts = [float((clash - r * paraphrase).var(ddof=1)) / n, (1 - r) ** 2 * noise]
    t2 = _critical(parts, [n, len(contradiction)], level) ** 2
    # (above - r room)^2 <= t^2 (variance of it, quadratic in r)
    quadratic = room**2 - t2 * (covariance[1, 1] + noise)
    linear = above * room - t2 * (covariance[0, 1] + noise)
    constant = above**2 - t2 * (covariance[0, 0] + noise)
    if quadratic <= 0:
        return r, np.nan, np.nan
    half = sqrt(max(linear * linear - quadratic * constant, 0.0))
    return r, float((linear - half) / quadratic), float((linear + half) / quadratic)
