"""The rate that people would give, where a judge gave every label and people a random subset of them.

A judge labels all N answers of a system; people label n of these, drawn at random. A judge's errors differ between systems (on XSTest string
matching sees .98 of one model's refusals of unsafe prompts and .19 of another's), so a difference of judged rates may be all judge. Every
system needs labels of its own; ``rogan_gladen`` with somebody else's sensitivity answers only if that carries over, which nothing here tests.

**Which interval.** ``corrected_rate`` cuts the answers into strata by the judge's label, estimates each stratum's rate from its labels, and
inverts a test: a total T of positive answers among the N is kept unless the estimate lies farther from T than chance would bring it. Chance is
exact, hypergeometric by stratum, at the totals by stratum that are likeliest given T (Lloyd 2008, Aust. N. Z. J. Stat. 50:329); what lies just
as far counts half (mid-p, Lancaster 1961, JASA 56:223), and a T whose full p exceeds 1.5 times 1 - level is kept nevertheless. Chosen by exact
coverage at 95 % over random subsets of 50, 100 or 150 of 200-450 answers: 500 populations with rates of .02-.98, sensitivities of .1-.99 and
specificities of .8-1 (``benchmarks/judge_coverage.py``):

=======================================================  ======  ======  ==========  =====  =====
interval                                                 lowest  median  in .93-.97  < .93  > .97
=======================================================  ======  ======  ==========  =====  =====
stratified normal with finite-population correction         .12     .93        52 %   44 %    4 %
beta-binomial prediction of the unlabelled, Jeffreys        .91     .96        78 %    1 %   21 %
mid-p confidence distributions, melded (Fay et al. 2015)    .95     .97        61 %      0   39 %
the test above with two tails of 2.5 % each                 .94     .96        68 %      0   32 %
this one                                                    .93     .95        76 %      0   24 %
=======================================================  ======  ======  ==========  =====  =====

What exceeds .97 is discreteness. Call odd an answer whose label is not the usual one of its stratum. Where five or more odd answers may be
expected among the labelled, coverage lay in .93-.97 in all of the populations; with three to five in 97 % of them (at most .98); with fewer in
a quarter, and in the rest above, up to 1: outcomes are then so few that leaving one more out would cover too little. With no odd answer at all
the rate is always covered. The two ways of missing need not be equally likely: where odd answers are rare, it is mostly the subsets that hold
too many of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from aligntax.stats.clusters import FloatArray, IntArray
from aligntax.stats.intervals import wilson_interval
from aligntax.stats.moments import sample_variance
from aligntax.stats.paired import critical_value

MAX_STRATA = 3
"""More values of a judge than these are cut into so many classes of about the same size."""

MOST = 1.5
"""No total is dropped whose exact p is above so many times 1 - level: where outcomes are few, half of one may be much."""

_NEGLIGIBLE, _TIE = 1e-10, 1e-7
"""A probability not worth its sum; answers by which two distances may differ and be the same."""


@dataclass(frozen=True)
class CorrectedRate:
    """What people would say of all N answers.

    Attributes:
        rate: the corrected rate (mean label); None where nothing is labelled.
        low, high: its interval; None with a reason.
        naive: the mean of the judge's own labels; None where they do not lie in [0, 1].
        n: answers.
        labelled: those that people labelled.
        odd: labelled answers whose label is not the usual one of their stratum; None for graded labels. Below three the interval is
            conservative, and errors made from ``corrected_items`` are too small.
        sensitivity, specificity: of the judge on these answers, each labelled one standing for its stratum's share of them (Begg and
            Greenes 1983, Biometrics 39:207); None where the judge or people are not 0/1, or there is nothing to tell it from.
        method: ``stratified`` (0/1 labels) or ``ppi`` (graded labels), ``-finite`` or ``-superpopulation``; ``none``.
        level: confidence level.
        reason: why something is missing; empty otherwise.
    """

    rate: float | None
    low: float | None
    high: float | None
    naive: float | None
    n: int
    labelled: int
    odd: int | None
    sensitivity: float | None
    specificity: float | None
    method: str
    level: float
    reason: str = ""


@dataclass(frozen=True)
class JudgeQuality:
    """A 0/1 judge against people, on the answers that both labelled.

    Attributes:
        n: answers with both labels.
        true_positives, false_positives, false_negatives, true_negatives: counts, people being right.
        sensitivity, specificity: None where people gave no positive (negative) label.
        sensitivity_interval, specificity_interval: Wilson's.
        youden: sensitivity + specificity - 1.
        agreement: share of equal labels.
        kappa: Cohen's; None where both always gave the same one label.
        kappa_se: its large-sample standard error.
    """

    n: int
    true_positives: int
    false_positives: int
    false_negatives: int
    true_negatives: int
    sensitivity: float | None
    sensitivity_interval: tuple[float, float] | None
    specificity: float | None
    specificity_interval: tuple[float, float] | None
    youden: float | None
    agreement: float
    kappa: float | None
    kappa_se: float | None


@dataclass(frozen=True)
class RoganGladen:
    """A rate corrected by a known quality. ``rate``, ``low`` and ``high`` may lie outside [0, 1]: clamp them to show them, not before."""

    rate: float | None
    se: float | None
    low: float | None
    high: float | None
    reason: str = ""


@dataclass(frozen=True)
class PpiMean:
    """A prediction-powered mean.

    Attributes:
        mean: the estimate.
        se: its standard error; None where fewer than two labels, or three with an estimated lambda, leave nothing to estimate it from.
        low, high: t interval with one degree of freedom less than labels, two where lambda is estimated.
        power: lambda, the weight of the judge.
    """

    mean: float
    se: float | None
    low: float | None
    high: float | None
    power: float


def corrected_rate(judge: npt.ArrayLike, labels: npt.ArrayLike, level: float = 0.95, *, finite: bool = True) -> CorrectedRate:
    """The rate people would give, corrected by a labelled subset, with the interval that the module's docstring justifies.

    0/1 labels: post-stratified by the judge (its values if these are at most three, otherwise thirds of its scores); a stratum without a label
    joins its neighbour. Random labelling may differ in its share from stratum to stratum (more labels where the judge says yes are fine). With
    a 0/1 judge the rate is the prediction-powered one with its best lambda. Graded labels: ``ppi_mean``.

    Args:
        judge: (N,) the judge's labels or scores.
        labels: (N,) people's labels, NaN where nobody labelled.
        level: confidence level.
        finite: what the interval is for: the mean label of exactly these N answers, or the expected label of answers like these. The
            second joins Wilson's limits at N to the first by MOVER (Zou and Donner 2008, Stat. Med. 27:1693).

    Raises:
        ValueError: on arrays of different or no length, an infinite label, or a judge without a value.
    """
    f, y, known = _checked(judge, labels)
    n, labelled = len(f), int(known.sum())
    naive = float(f.mean()) if f.min() >= 0 and f.max() <= 1 else None
    if labelled == 0:
        return CorrectedRate(None, None, None, naive, n, 0, None, None, None, "none", level, "no answer is labelled")
    sensitivity, specificity = _weighted_rates(f, y, known)
    suffix = "finite" if finite else "superpopulation"
    if not _is_binary(y[known]):
        found = _ppi(f, y, known, level, finite=finite, power=None)
        reason = "" if found.se is not None else f"{labelled} labelled: to estimate an error of graded labels takes three"
        return CorrectedRate(
            found.mean, found.low, found.high, naive, n, labelled, None, sensitivity, specificity, f"ppi-{suffix}", level, reason
        )
    counts = _counts(_strata(f, known), y, known)
    rate = sum(size * hits / drawn for size, drawn, hits in counts) / n
    low, high = (limit / n for limit in _total_interval(counts, 1.0 - level))
    if not finite:
        below, above = wilson_interval(rate * n, n, level)
        low = max(0.0, rate - sqrt((rate - low) ** 2 + (rate - below) ** 2))
        high = min(1.0, rate + sqrt((high - rate) ** 2 + (above - rate) ** 2))
    odd = sum(min(hits, drawn - hits) for _, drawn, hits in counts)
    return CorrectedRate(rate, low, high, naive, n, labelled, odd, sensitivity, specificity, f"stratified-{suffix}", level)


def corrected_items(judge: npt.ArrayLike, labels: npt.ArrayLike) -> FloatArray:
    """(N,) values per answer whose mean is ``corrected_rate(...).rate``, for paired and clustered comparisons.

    The value is m_i where nobody labelled and label_i + k (1/share_i - 1)(label_i - m_i) elsewhere: m_i is the label expected after the
    judge's (the mean label of its stratum; for graded labels the line through judge and labels), share_i the stratum's share of labelled
    answers. With k = 1 this is prediction-powered inference with a recalibrated judge (Angelopoulos et al. 2023, Science 382:669), or the
    augmented inverse-probability weighted mean (Robins, Rotnitzky and Zhao 1994, JASA 89:846). Their sample variance over N estimates the
    variance of the rate among answers like these, the judge's errors in it. Values may lie outside [0, 1]: they are of unbounded scale.

    m_i is made of the same few labels, which then seem nearer to it than others would be. So the residuals are those from the mean of the
    stratum's m *other* labels, k = m/(m - 1) (leave one out, as in HC3: MacKinnon and White 1985, J. Econom. 29:305), or m/(m - 2) from a
    line; they add up to 0, whatever k is. Simulated with 20 labels of 200 answers in either arm, a paired test at 5 % rejects 2 to 5 % where
    each arm has three odd labels or more (up to 8 % with k = 1), and 6 to 10 % of all; with 10 graded labels 5 to 7 % (10 to 11 %). Where
    hardly any label is odd, or one or two graded ones are all there are, nothing shows how wrong a judge may be.

    Raises:
        ValueError: as ``corrected_rate``, and where nothing is labelled.
    """
    f, y, known = _checked(judge, labels)
    if not known.any():
        raise ValueError("no answer is labelled: there is nothing to correct with")
    expected, left = np.empty(len(f)), np.empty(len(f))  # left: k (1/share - 1)
    if _is_binary(y[known]):
        codes = _strata(f, known)
        for code, (size, drawn, hits) in enumerate(_counts(codes, y, known)):
            expected[codes == code], left[codes == code] = hits / drawn, (size / drawn - 1) * _left_out(drawn, 1)
    else:
        power = _power(f[known], y[known])
        expected[:] = power * f + float(np.mean(y[known] - power * f[known]))
        left[:] = (1 / known.mean() - 1) * _left_out(int(known.sum()), 2)
    label = np.where(known, y, expected)
    return label + left * (label - expected)


def _left_out(labels: int, fitted: int) -> float:
    """How much larger residuals are from what is fitted to the other labels; 1 where there are no others and no residuals."""
    return labels / (labels - fitted) if labels > fitted else 1.0


def ppi_mean(
    judge: npt.ArrayLike, labels: npt.ArrayLike, level: float = 0.95, *, finite: bool = False, power: float | None = None
) -> PpiMean:
    """Prediction-powered mean of the labels (Angelopoulos et al. 2023, Science 382:669; lambda: PPI++, arXiv:2311.01453).

    mean = lambda * mean(judge) + mean over labelled of (label - lambda * judge), the first mean over all N answers. The best lambda is
    Cov(judge, label)/Var(judge) among the labelled; 1 is the first paper's, 0 leaves the judge out. With the unlabelled alone in the first
    mean, as PPI++ writes it, the best lambda is smaller by (N - n)/N and the estimate the same. Its variance is
    (1/n - 1/N) Var(label - lambda * judge), and Var(label)/N more where the target is the mean of answers like these (finite False); an
    estimated lambda takes a degree of freedom, as a slope does. A normal law in effect: in simulation it covers 93 % or more of symmetric
    labels from 10 on, and 92 % of exponential ones from 20 on; with few odd labels it covers too little, and ``corrected_rate`` is for 0/1.

    Raises:
        ValueError: as ``corrected_rate``, and where nothing is labelled.
    """
    f, y, known = _checked(judge, labels)
    if not known.any():
        raise ValueError("no answer is labelled: there is nothing to correct with")
    return _ppi(f, y, known, level, finite=finite, power=power)


def judge_quality(judge: npt.ArrayLike, labels: npt.ArrayLike, level: float = 0.95) -> JudgeQuality:
    """Sensitivity, specificity and Cohen's kappa of a 0/1 judge, from the answers that people labelled at random.

    Kappa's standard error is Fleiss, Cohen and Everitt's (1969, Psychol. Bull. 72:323).

    Raises:
        ValueError: as ``corrected_rate``; where a label is not 0 or 1, or nothing is labelled.
    """
    f, y, known = _checked(judge, labels)
    f, y = f[known], y[known]
    if not len(f):
        raise ValueError("no answer is labelled: there is nothing to compare")
    if not (_is_binary(f) and _is_binary(y)):
        raise ValueError("a judge's quality needs labels of 0 and 1 on both sides")
    table = np.array([[np.sum((f == a) & (y == b)) for b in (0, 1)] for a in (0, 1)], dtype=np.int64)
    (tn, fn), (fp, tp) = table.tolist()
    sensitivity, specificity = _rates(f, y)
    kappa, kappa_se = _kappa(table)
    return JudgeQuality(
        n=len(f),
        true_positives=tp,
        false_positives=fp,
        false_negatives=fn,
        true_negatives=tn,
        sensitivity=sensitivity,
        sensitivity_interval=None if sensitivity is None else wilson_interval(tp, tp + fn, level),
        specificity=specificity,
        specificity_interval=None if specificity is None else wilson_interval(tn, tn + fp, level),
        youden=None if sensitivity is None or specificity is None else sensitivity + specificity - 1,
        agreement=(tp + tn) / len(f),
        kappa=kappa,
        kappa_se=kappa_se,
    )


def rogan_gladen(
    judged_positive: int, n: int, *, true_positives: int, positives: int, true_negatives: int, negatives: int, level: float = 0.95
) -> RoganGladen:
    """A judged rate corrected by sensitivity and specificity that other answers told: (p + sp - 1)/(se + sp - 1).

    Rogan and Gladen 1978 (Am. J. Epidemiol. 107:71), standard error by their delta method; interval of Lang and Reiczigel 2014 (Prev. Vet.
    Med. 113:13), who add z^2 judged answers, half of them positive, and one hit and one miss to each side of the calibration. For a labelled
    subset of the same answers ``corrected_rate`` is shorter, and does not assume that the quality carries over.

    Args:
        judged_positive: answers that the judge calls positive.
        n: answers that it judged.
        true_positives: of the calibration's positives, those that the judge calls so.
        positives: the calibration's answers that people call positive.
        true_negatives: of its negatives, those that the judge calls so.
        negatives: the calibration's answers that people call negative.
        level: confidence level.

    Returns:
        The rate and its interval, not clamped; nothing and a reason where sensitivity + specificity is 1 or less: such a judge tells no more
        than a coin.

    Raises:
        ValueError: where a count exceeds its total, is negative, or a total is 0.
    """
    for name, part, whole in (
        ("judged positive", judged_positive, n),
        ("true positive", true_positives, positives),
        ("true negative", true_negatives, negatives),
    ):
        if not 0 <= part <= whole or whole == 0:
            raise ValueError(f"{name}: {part} of {whole} is no share")
    p, se, sp = judged_positive / n, true_positives / positives, true_negatives / negatives
    if se + sp <= 1:
        return RoganGladen(None, None, None, None, f"sensitivity {se:.3g} + specificity {sp:.3g} is not above 1: the judge tells nothing")
    rate = (p + sp - 1) / (se + sp - 1)
    error = sqrt(_rogan_gladen_variance(p, n, se, positives, sp, negatives))
    z = critical_value(level, None)
    n1, se1, sp1 = n + z * z, (true_positives + 1) / (positives + 2), (true_negatives + 1) / (negatives + 2)
    p1 = (judged_positive + z * z / 2) / n1
    if se1 + sp1 <= 1:
        return RoganGladen(rate, error, None, None, "too few calibration answers for an interval: the judge may tell nothing")
    r1 = (p1 + sp1 - 1) / (se1 + sp1 - 1)
    shift = 2 * z * z * (r1 * se1 * (1 - se1) / (positives + 2) - (1 - r1) * sp1 * (1 - sp1) / (negatives + 2))
    half = z * sqrt(_rogan_gladen_variance(p1, n1, se1, positives + 2, sp1, negatives + 2))
    return RoganGladen(rate, error, r1 + shift - half, r1 + shift + half)


def _rogan_gladen_variance(p: float, n: float, se: float, positives: float, sp: float, negatives: float) -> float:
    rate = (p + sp - 1) / (se + sp - 1)
    parts = p * (1 - p) / n + rate**2 * se * (1 - se) / positives + (1 - rate) ** 2 * sp * (1 - sp) / negatives
    return parts / (se + sp - 1) ** 2


def _checked(judge: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Judge, labels, and which answers are labelled."""
    f, y = np.asarray(judge, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if f.ndim != 1 or f.shape != y.shape or not len(f):
        raise ValueError(f"judge and labels must be two lists of one length, not empty; got shapes {f.shape} and {y.shape}")
    if not np.isfinite(f).all():
        raise ValueError("the judge must have a finite value for every answer")
    if np.isinf(y).any():
        raise ValueError("a label is infinite; NaN stands for none")
    return f, y, ~np.isnan(y)


def _is_binary(x: FloatArray) -> bool:
    return bool(np.isin(x, (0.0, 1.0)).all())


def _rates(judge: FloatArray, labels: FloatArray) -> tuple[float | None, float | None]:
    """(sensitivity, specificity) of 0/1 labels."""
    if not (_is_binary(judge) and _is_binary(labels)):
        return None, None
    positive = labels == 1
    return (
        float(judge[positive].mean()) if positive.any() else None,
        float(1 - judge[~positive].mean()) if not positive.all() else None,
    )


def _weighted_rates(f: FloatArray, y: FloatArray, known: npt.NDArray[np.bool_]) -> tuple[float | None, float | None]:
    """(sensitivity, specificity) where strata may be labelled in different shares."""
    if not (_is_binary(f) and _is_binary(y[known])):
        return None, None
    positive, negative = [0.0, 0.0], [0.0, 0.0]
    for label in (0, 1):
        size, drawn = int(np.sum(f == label)), int(np.sum(known & (f == label)))
        if size and not drawn:
            return None, None
        if size:
            share = float(y[known & (f == label)].mean())
            positive[label], negative[label] = size * share, size * (1 - share)
    return (
        positive[1] / sum(positive) if sum(positive) > 0 else None,
        negative[0] / sum(negative) if sum(negative) > 0 else None,
    )


def _kappa(table: IntArray) -> tuple[float | None, float | None]:
    """Cohen's kappa and its standard error (Fleiss, Cohen and Everitt 1969) of a square table of counts."""
    n = float(table.sum())
    p = table / n
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, chance = float(np.trace(p)), float(rows @ columns)
    if chance >= 1:
        return None, None
    kappa = (observed - chance) / (1 - chance)
    mixed = rows[None, :] + columns[:, None]  # p_.i + p_j. for judge i, people j
    same = float(np.sum(np.diag(p) * (1 - np.diag(mixed) * (1 - kappa)) ** 2))
    other = (1 - kappa) ** 2 * float(np.sum((p * mixed**2)[~np.eye(len(p), dtype=bool)]))
    variance = (same + other - (kappa - chance * (1 - kappa)) ** 2) / (n * (1 - chance) ** 2)
    return kappa, sqrt(max(variance, 0.0))


def _power(f: FloatArray, y: FloatArray) -> float:
    """The lambda of least variance; 0 where the judge does not vary among the labelled."""
    spread = float(np.sum((f - f.mean()) ** 2))
    return float(np.sum((f - f.mean()) * (y - y.mean()))) / spread if spread > 0 else 0.0


def _ppi(f: FloatArray, y: FloatArray, known: npt.NDArray[np.bool_], level: float, *, finite: bool, power: float | None) -> PpiMean:
    n, labelled = len(f), int(known.sum())
    weight = _power(f[known], y[known]) if power is None else power
    rest = y[known] - weight * f[known]
    mean = weight * float(f.mean()) + float(rest.mean())
    df = labelled - (2 if power is None else 1)
    if df < 1:
        return PpiMean(mean, None, None, None, weight)
    spread = sample_variance(rest) * (labelled - 1) / df
    variance = (1 / labelled - 1 / n) * spread + (0.0 if finite else sample_variance(y[known]) / n)
    se = sqrt(max(variance, 0.0))
    half = critical_value(level, df) * se
    return PpiMean(mean, se, mean - half, mean + half, weight)


def _strata(f: FloatArray, known: npt.NDArray[np.bool_]) -> IntArray:
    """(N,) stratum codes 0..H-1 by the judge's value, every stratum with a labelled answer. Labels have no say in the cuts."""
    values = np.unique(f)
    if len(values) > MAX_STRATA:
        cuts = np.unique(np.quantile(f, np.arange(1, MAX_STRATA) / MAX_STRATA))
        codes = np.searchsorted(cuts, f, side="left").astype(np.int64)
    else:
        codes = np.searchsorted(values, f).astype(np.int64)
    labelled = np.unique(codes[known])
    nearest: IntArray = np.abs(codes[:, None] - labelled[None, :]).argmin(axis=1).astype(np.int64)
    return nearest


def _counts(codes: IntArray, y: FloatArray, known: npt.NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """(answers, labelled, labelled positive) of every stratum."""
    size, drawn = np.bincount(codes), np.bincount(codes[known], minlength=int(codes.max()) + 1)
    hits = np.bincount(codes[known], weights=y[known], minlength=len(size))
    return [(int(a), int(b), int(c)) for a, b, c in zip(size, drawn, hits, strict=True)]


def _total_interval(counts: list[tuple[int, int, int]], alpha: float) -> tuple[int, int]:
    """The totals of positive answers that are not rejected at ``alpha``, from the estimate outwards, by bisection."""
    estimate = sum(size * hits / drawn for size, drawn, hits in counts)
    least = sum(hits for _, _, hits in counts)
    most = sum(size - drawn + hits for size, drawn, hits in counts)
    likelihoods = [_log_likelihood(*one) for one in counts]
    joint, splits = _joint(likelihoods[:-1])

    def kept(total: int) -> bool:
        split = _likeliest(total, joint, splits, likelihoods[-1])
        farther, as_far = _distance_tails(total, estimate, counts, split)
        return farther + as_far / 2 > alpha or farther + as_far > MOST * alpha

    start = min(max(round(estimate), least), most)
    return _last_kept(start, least, kept), _last_kept(start, most, kept)


def _last_kept(start: int, end: int, kept: Callable[[int], bool]) -> int:
    """The total next to the first one, seen from ``start``, that is not kept; ``end`` where all are."""
    if kept(end):
        return end
    good, bad = start, end
    while abs(bad - good) > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if kept(middle) else (good, middle)
    return good


@lru_cache(maxsize=64)
def _log_factorials(most: int) -> FloatArray:
    """Log k! for k = 0..most."""
    return np.asarray(gammaln(np.arange(most + 1) + 1.0), dtype=np.float64)


def _log_hypergeometric(size: int, positive: int | IntArray, drawn: int, hits: int | IntArray) -> FloatArray:
    """Log probability of ``hits`` positive answers among ``drawn`` of ``size``, of which ``positive`` are; the arguments must allow it."""
    f = _log_factorials(size)
    negative, misses = size - positive, drawn - hits
    chosen = f[positive] - f[hits] - f[positive - hits] + f[negative] - f[misses] - f[negative - misses]
    return np.asarray(chosen - (f[size] - f[drawn] - f[size - drawn]), dtype=np.float64)


def _log_likelihood(size: int, drawn: int, hits: int) -> FloatArray:
    """(size + 1,) log probabilities of ``hits`` when 0..size of the answers are positive."""
    found = np.full(size + 1, -np.inf)
    possible = np.arange(hits, size - drawn + hits + 1)
    found[possible] = _log_hypergeometric(size, possible, drawn, hits)
    return found


def _joint(likelihoods: list[FloatArray]) -> tuple[FloatArray, IntArray]:
    """For every total of some strata the largest log likelihood (M + 1,), and the totals by stratum that have it (M + 1, H)."""
    if not likelihoods:
        return np.zeros(1), np.zeros((1, 0), dtype=np.int64)
    best, splits = likelihoods[0], np.arange(len(likelihoods[0]))[:, None]
    for following in likelihoods[1:]:
        chosen = [_likeliest(total, best, splits, following) for total in range(len(best) + len(following) - 1)]
        splits = np.array(chosen, dtype=np.int64)
        best = best[splits[:, :-1].sum(axis=1)] + following[splits[:, -1]]
    return best, splits


def _likeliest(total: int, joint: FloatArray, splits: IntArray, last: FloatArray) -> IntArray:
    """(H,) totals by stratum that add up to ``total`` and are likeliest together; ``last`` is the last stratum's log likelihood."""
    first = np.arange(max(0, total - len(last) + 1), min(len(joint) - 1, total) + 1)
    rest = int(first[np.argmax(joint[first] + last[total - first])])
    return np.append(splits[rest], total - rest)


def _distance_tails(total: int, estimate: float, counts: list[tuple[int, int, int]], split: IntArray) -> tuple[float, float]:
    """Probabilities that the estimate lies farther from ``total`` than it does, and just as far."""
    values, probability = np.zeros(1), np.ones(1)
    for (size, drawn, _), positive in zip(counts, split.tolist(), strict=True):
        hits = np.arange(max(0, drawn - size + positive), min(drawn, positive) + 1)
        p = np.exp(_log_hypergeometric(size, positive, drawn, hits))
        likely = p > _NEGLIGIBLE
        values = np.add.outer(values, size * hits[likely] / drawn).ravel()
        probability = np.multiply.outer(probability, p[likely]).ravel()
    farther = np.abs(values - total) - abs(estimate - total)
    return float(probability[farther > _TIE].sum()), float(probability[np.abs(farther) <= _TIE].sum())
