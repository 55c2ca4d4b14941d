"""Rates that a judge reports, corrected by labels: hand-computed values, brute force, peers, and coverage, on XSTest's people among others."""

from __future__ import annotations

import csv
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import hypergeom

from aligntax.stats import judges
from aligntax.stats.intervals import wilson_interval
from aligntax.stats.judges import corrected_items, corrected_rate, judge_quality, ppi_mean, rogan_gladen
from aligntax.stats.paired import critical_value, noninferiority_p, p_value, paired_change

NAN = float("nan")


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same counts need no second inversion: simulations meet them again and again."""
    original = judges._total_interval
    inversion = lru_cache(maxsize=None)(lambda counts, alpha: original(list(counts), alpha))
    monkeypatch.setattr(judges, "_total_interval", lambda counts, alpha: inversion(tuple(counts), alpha))


def answers(*cells: tuple[float, float, int]) -> tuple[np.ndarray, np.ndarray]:
    """(judge, labels) from (judge's label, people's label, how many)."""
    judge = np.concatenate([np.full(count, f) for f, _, count in cells])
    return judge, np.concatenate([np.full(count, y) for _, y, count in cells])


def hidden(labels: np.ndarray, drawn: int, rng: np.random.Generator) -> np.ndarray:
    """The labels of a random subset; NaN elsewhere."""
    seen = np.full(len(labels), NAN)
    chosen = rng.choice(len(labels), drawn, replace=False)
    seen[chosen] = labels[chosen]
    return seen


def limits(found: judges.CorrectedRate) -> tuple[float, float]:
    assert found.low is not None
    assert found.high is not None
    return found.low, found.high


def coverage(judge: np.ndarray, labels: np.ndarray, drawn: int, subsets: int, rng: np.random.Generator) -> float:
    """Share of random labelled subsets whose interval holds the rate that people gave."""
    target, held = labels.mean(), 0
    for _ in range(subsets):
        low, high = limits(corrected_rate(judge, hidden(labels, drawn, rng)))
        held += low - 1e-12 <= target <= high + 1e-12
    return held / subsets


def test_a_rate_by_hand() -> None:
    """Judge yes: 10 answers, 3 of 4 labelled are; judge no: 30, 1 of 6: (10 * 3/4 + 30/6)/40 = .3125, where the judge says .25."""
    judge, labels = answers((1, 1, 3), (1, 0, 1), (1, NAN, 6), (0, 1, 1), (0, 0, 5), (0, NAN, 24))
    found = corrected_rate(judge, labels)
    assert (found.rate, found.naive, found.n, found.labelled, found.odd) == (0.3125, 0.25, 40, 10, 2)
    # Of 10 * 3/4 + 30/6 = 12.5 positives the judge sees 7.5; of 2.5 + 25 negatives 25.
    assert (found.sensitivity, found.specificity) == (pytest.approx(0.6), pytest.approx(25 / 27.5))
    assert found.method == "stratified-finite"
    low, high = limits(found)
    assert low >= 4 / 40  # those that were seen to be positive
    assert high <= 34 / 40  # and all but those that were seen not to be
    items = corrected_items(judge, labels)
    # 3/4 or 1/6 where nobody labelled. Elsewhere the label, and its distance from the mean of the others (1 - 2/3, 0 - 1; 1 - 0, 0 - 1/5)
    # once more for each of the 10/4 - 1 or 30/6 - 1 unlabelled answers that it stands for.
    assert items[:5] == pytest.approx([1 + 1.5 / 3, 1 + 1.5 / 3, 1 + 1.5 / 3, -1.5, 0.75])
    assert items[10:12] == pytest.approx([1 + 4, -4 / 5])
    assert items.mean() == pytest.approx(0.3125)
    # With a 0/1 judge the prediction-powered mean with its best lambda, 3/4 - 1/6, is the same.
    ppi = ppi_mean(judge, labels)
    assert ppi.power == pytest.approx(7 / 12)
    assert ppi.mean == pytest.approx(0.3125)


def brute_force(counts: list[tuple[int, int, int]], alpha: float) -> list[int]:
    """Every total that the test keeps, each by itself, from scipy's hypergeometric law; one or two strata."""
    if len(counts) == 1:
        counts = [*counts, (0, 0, 0)]
    (n1, m1, y1), (n0, m0, y0) = counts

    def estimate(a: int, b: int) -> float:
        return n1 * a / m1 + (n0 * b / m0 if m0 else 0.0)

    def probability(size: int, positive: int, drawn: int, hits: int) -> float:
        return float(hypergeom.pmf(hits, size, positive, drawn)) if size else float(hits == 0)

    kept = []
    for total in range(y1 + y0, n1 + n0 - (m1 - y1) - (m0 - y0) + 1):
        splits = [(a, total - a) for a in range(n1 + 1) if 0 <= total - a <= n0]
        p1, p0 = max(splits, key=lambda s: probability(n1, s[0], m1, y1) * probability(n0, s[1], m0, y0))
        as_far, farther = 0.0, 0.0
        for a in range(m1 + 1):
            for b in range(m0 + 1):
                beyond = abs(estimate(a, b) - total) - abs(estimate(y1, y0) - total)
                p = probability(n1, p1, m1, a) * probability(n0, p0, m0, b)
                farther += p * (beyond > 1e-7)
                as_far += p * (abs(beyond) <= 1e-7)
        if farther + as_far / 2 > alpha or farther + as_far > judges.MOST * alpha:
            kept.append(total)
    return kept


@pytest.mark.parametrize(
    "counts",
    [[(30, 10, 0)], [(30, 10, 4)], [(20, 20, 7)], [(25, 8, 7), (15, 6, 1)], [(12, 5, 5), (28, 9, 0)], [(14, 6, 2), (20, 12, 11)]],
)
def test_the_interval_is_what_brute_force_keeps(counts: list[tuple[int, int, int]]) -> None:
    low, high = judges._total_interval(counts, 0.05)
    kept = brute_force(counts, 0.05)
    assert low in kept
    assert high in kept
    assert low - 1 not in kept
    assert high + 1 not in kept


def test_everything_labelled_is_a_count_and_nothing_labelled_is_unknown() -> None:
    judge, labels = answers((1, 1, 20), (0, 1, 10), (0, 0, 70))
    found = corrected_rate(judge, labels)
    assert (found.rate, found.low, found.high) == (0.3, 0.3, 0.3)
    assert corrected_items(judge, labels).tolist() == labels.tolist()  # nothing is left to a judge
    wide = corrected_rate(judge, labels, finite=False)
    assert limits(wide) == pytest.approx(wilson_interval(30, 100, 0.95))
    none = corrected_rate(judge, np.full(100, NAN))
    assert (none.rate, none.low, none.naive, none.labelled) == (None, None, 0.2, 0)
    assert none.reason == "no answer is labelled"
    for call in (corrected_items, ppi_mean, judge_quality):
        with pytest.raises(ValueError, match="no answer is labelled"):
            call(judge, np.full(100, NAN))


def test_a_stratum_without_a_label_joins_its_neighbour() -> None:
    judge, labels = answers((1, NAN, 5), (0, 1, 2), (0, 0, 8), (0, NAN, 85))
    found = corrected_rate(judge, labels)
    assert found.rate == pytest.approx(0.2)
    assert (found.sensitivity, found.specificity) == (None, None)  # nobody looked where the judge says yes
    assert corrected_items(judge, labels).mean() == pytest.approx(0.2)
    # Three classes: the empty middle one joins the lower.
    judge, labels = answers((0, 0, 5), (0.5, NAN, 10), (0, NAN, 5), (1, 1, 2), (1, NAN, 8))
    assert corrected_rate(judge, labels).rate == pytest.approx(10 / 30)
    # Scores of many values are cut into thirds of about one size.
    scores = np.linspace(0, 1, 90)
    labels = np.where(np.arange(90) % 3 == 0, (scores > 0.6).astype(float), NAN)
    found = corrected_rate(scores, labels)
    # 30 scores each; 10 labelled in each; of the middle third (30-59) those above .6 begin at 54: 2 of 10 labelled.
    assert found.rate == pytest.approx((30 * 2 / 10 + 30) / 90)
    assert corrected_items(scores, labels).mean() == pytest.approx(found.rate)
    assert found.sensitivity is None


def test_graded_labels_get_the_prediction_powered_mean() -> None:
    rng = np.random.default_rng(1)
    truth = rng.normal(5, 2, 200)
    judge = 0.5 * truth + rng.normal(0, 0.5, 200)
    labels = hidden(truth, 60, rng)
    found, ppi = corrected_rate(judge, labels), ppi_mean(judge, labels, finite=True)
    assert found.method == "ppi-finite"
    assert (found.rate, found.low, found.high) == (ppi.mean, ppi.low, ppi.high)
    assert (found.naive, found.odd, found.sensitivity) == (None, None, None)
    assert corrected_items(judge, labels).mean() == pytest.approx(ppi.mean, abs=1e-12)
    for count in (1, 2):  # a line goes through two
        few = corrected_rate(judge, np.where(np.arange(200) < count, truth, NAN))
        assert few.rate is not None
        assert few.low is None
        assert few.reason == f"{count} labelled: to estimate an error of graded labels takes three"
    three = np.where(np.arange(200) < 3, truth, NAN)
    ppi, line = ppi_mean(judge, three, finite=True), np.polyfit(judge[:3], truth[:3], 1)
    residuals = truth[:3] - np.polyval(line, judge[:3])
    assert ppi.se == pytest.approx(np.sqrt((1 / 3 - 1 / 200) * np.sum(residuals**2)))  # one degree of freedom is left
    assert ppi.high == pytest.approx(ppi.mean + critical_value(0.95, 1.0) * (ppi.se or NAN))
    # Residuals from the line, three times as large (3/(3 - 2)), for each of the 200/3 - 1 answers that a label stands for.
    assert corrected_items(judge, three)[:3] == pytest.approx(truth[:3] + 3 * (200 / 3 - 1) * residuals)
    assert corrected_items(judge, three)[3:] == pytest.approx(np.polyval(line, judge[3:]))


def test_ppi_is_that_of_the_paper() -> None:
    """PPI++ (arXiv:2311.01453), with judged answers N' apart from n labelled: lambda = cov/((1 + n/N') var), mean, and its variance."""
    rng = np.random.default_rng(2)
    y = rng.normal(0, 1, 300)
    f = 0.7 * y + rng.normal(0, 0.6, 300) + 0.3
    labels = np.where(np.arange(300) < 80, y, NAN)
    f1, y1, rest = f[:80], y[:80], f[80:]
    weight = np.cov(f1, y1)[0, 1] / f1.var(ddof=1) / (1 + 80 / 220)
    theirs = weight * rest.mean() + (y1 - weight * f1).mean()
    found = ppi_mean(f, labels)
    assert found.mean == pytest.approx(theirs, abs=1e-12)
    assert found.power * 220 / 300 == pytest.approx(weight, abs=1e-12)
    plain = ppi_mean(f, labels, power=1.0)
    assert plain.mean == pytest.approx(f.mean() + (y1 - f1).mean(), abs=1e-12)
    r = y1 - f1
    se = np.sqrt(r.var(ddof=1) * (1 / 80 - 1 / 300) + y1.var(ddof=1) / 300)
    assert plain.se == pytest.approx(se, rel=1e-12)
    assert plain.high == pytest.approx(plain.mean + critical_value(0.95, 79.0) * se)
    assert ppi_mean(f, labels, power=0.0).mean == pytest.approx(y1.mean())
    assert ppi_mean(np.ones(300), labels).power == 0.0


@pytest.mark.parametrize("labelled", [6, 12, 60])
def test_ppi_covers_what_all_labels_would_say_and_what_they_are_drawn_from(labelled: int) -> None:
    rng, finite, beyond = np.random.default_rng(12), 0, 0
    for _ in range(2000):
        y = rng.normal(0, 1, 150)
        f, seen = 0.7 * y + rng.normal(0, 0.7, 150), hidden(y, labelled, rng)
        here, like = ppi_mean(f, seen, finite=True), ppi_mean(f, seen)
        assert here.low is not None
        assert here.high is not None
        assert like.low is not None
        assert like.high is not None
        finite += here.low <= y.mean() <= here.high
        beyond += like.low <= 0 <= like.high
    assert 0.92 <= finite / 2000 <= 0.965  # .89 with six labels, were lambda taken as known
    assert 0.925 <= beyond / 2000 <= 0.965


def test_rogan_gladen_by_hand() -> None:
    """30 of 100 judged positive, se 45/50, sp 95/100: (.3 + .95 - 1)/.85 = .25/.85."""
    found = rogan_gladen(30, 100, true_positives=45, positives=50, true_negatives=95, negatives=100)
    assert found.rate == pytest.approx(0.25 / 0.85)
    # (.3*.7/100 + (.25/.85)^2 * .9*.1/50 + (.60/.85)^2 * .95*.05/100)/.85^2 = (.0021 + .000155709 + .000236678)/.7225
    assert found.se == pytest.approx(np.sqrt(0.002492387 / 0.7225), rel=1e-6)
    # Lang and Reiczigel with z^2 = 3.841459: n' = 103.841459, p' = 31.920729/103.841459 = .3073987, se' = 46/52, sp' = 96/102,
    # r' = (.3073987 + .9411765 - 1)/.8257919 = .3010144; shift = 7.682918 (r' .1020710/52 - .6989856 .0553633/102) = .0016243.
    assert found.low is not None
    assert found.high is not None
    assert (found.low + found.high) / 2 == pytest.approx(0.3010144 + 0.0016243, abs=2e-6)
    # var' = (.2129047/103.841459 + .0906097 .1020710/52 + .4885809 .0553633/102)/.6819322 = .0036562
    assert found.high - found.low == pytest.approx(2 * 1.959964 * np.sqrt(0.0036562), rel=1e-4)


def test_rogan_gladen_says_when_a_judge_tells_nothing() -> None:
    found = rogan_gladen(30, 100, true_positives=3, positives=10, true_negatives=6, negatives=10)
    assert found.rate is None
    assert "not above 1" in found.reason
    few = rogan_gladen(30, 100, true_positives=1, positives=1, true_negatives=1, negatives=10)
    assert few.rate is not None
    assert few.low is None
    assert "too few" in few.reason
    outside = rogan_gladen(0, 100, true_positives=45, positives=50, true_negatives=90, negatives=100)
    assert outside.rate is not None
    assert outside.rate < 0  # for a reader to clamp, not for sums
    with pytest.raises(ValueError, match="judged positive: 101 of 100"):
        rogan_gladen(101, 100, true_positives=1, positives=2, true_negatives=1, negatives=2)
    with pytest.raises(ValueError, match="true negative: 0 of 0"):
        rogan_gladen(1, 100, true_positives=1, positives=2, true_negatives=0, negatives=0)


@pytest.mark.parametrize(("rate", "se", "sp"), [(0.3, 0.9, 0.95), (0.05, 0.7, 0.9), (0.8, 0.6, 0.8)])
def test_rogan_gladen_covers(rate: float, se: float, sp: float) -> None:
    rng, hits = np.random.default_rng(3), 0
    for _ in range(2000):
        judged = rng.binomial(300, rate * se + (1 - rate) * (1 - sp))
        found = rogan_gladen(
            int(judged),
            300,
            true_positives=int(rng.binomial(80, se)),
            positives=80,
            true_negatives=int(rng.binomial(120, sp)),
            negatives=120,
        )
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= rate <= found.high
    assert 0.93 <= hits / 2000 <= 0.975


def test_quality_is_counted_and_kappa_is_that_of_statsmodels() -> None:
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    judge, labels = answers((1, 1, 40), (0, 1, 10), (1, 0, 6), (0, 0, 44), (1, NAN, 30))
    found = judge_quality(judge, labels)
    assert (found.n, found.true_positives, found.false_positives, found.false_negatives, found.true_negatives) == (100, 40, 6, 10, 44)
    assert (found.sensitivity, found.specificity, found.agreement) == (0.8, pytest.approx(0.88), 0.84)
    assert found.youden == pytest.approx(0.68)
    assert found.kappa == pytest.approx(0.68)  # (.84 - .5)/(1 - .5): people say yes half of the time
    assert found.sensitivity_interval == pytest.approx(wilson_interval(40, 50, 0.95))
    assert found.specificity_interval == pytest.approx(wilson_interval(44, 50, 0.95))
    for table in ([[44, 10], [6, 40]], [[90, 3], [1, 6]], [[5, 20], [30, 7]]):
        (tn, fn), (fp, tp) = table
        peer = inter_rater.cohens_kappa(np.array(table))
        ours = judge_quality(*answers((0, 0, tn), (0, 1, fn), (1, 0, fp), (1, 1, tp)))
        assert ours.kappa == pytest.approx(peer.kappa, rel=1e-9)
        assert ours.kappa_se == pytest.approx(peer.std_kappa, rel=1e-9)


def test_quality_that_cannot_be_known_is_not_given() -> None:
    found = judge_quality([1, 1, 1], [1, 1, 1])
    assert (found.sensitivity, found.specificity, found.specificity_interval, found.youden, found.kappa) == (1.0, None, None, None, None)
    with pytest.raises(ValueError, match="0 and 1 on both sides"):
        judge_quality([0.5, 1], [1, 1])


def test_bad_input_is_refused() -> None:
    for judge, labels, said in (
        ([1, 0], [1], "one length"),
        ([], [], "not empty"),
        ([1, NAN], [1, 0], "finite value for every answer"),
        ([1, 0], [1, np.inf], "infinite"),
    ):
        with pytest.raises(ValueError, match=said):
            corrected_rate(judge, labels)


@pytest.mark.parametrize(
    ("rate", "se", "sp", "n", "drawn"),
    [(0.35, 0.19, 0.99, 200, 50), (0.5, 0.9, 0.8, 450, 100), (0.1, 0.5, 0.95, 300, 150), (0.9, 0.95, 0.8, 250, 100)],
)
@pytest.mark.usefixtures("remembered")
def test_it_covers_the_rate_of_exactly_these_answers(rate: float, se: float, sp: float, n: int, drawn: int) -> None:
    rng = np.random.default_rng(4)
    labels = (rng.random(n) < rate).astype(float)
    judge = np.where(labels == 1, rng.random(n) < se, rng.random(n) > sp).astype(float)
    assert 0.93 <= coverage(judge, labels, drawn, 500, rng) <= 0.97


@pytest.mark.usefixtures("remembered")
def test_labelling_more_where_the_judge_says_yes_is_fine() -> None:
    """40 of the 60 yes and 30 of the 240 no: the mean of the labels is far off, the corrected rate is not."""
    rng, held, estimates = np.random.default_rng(5), 0, []
    judge, labels = answers((1, 1, 45), (1, 0, 15), (0, 1, 30), (0, 0, 210))
    for _ in range(400):
        seen = np.full(300, NAN)
        for part, drawn in ((np.arange(60), 40), (np.arange(60, 300), 30)):
            chosen = rng.choice(part, drawn, replace=False)
            seen[chosen] = labels[chosen]
        found = corrected_rate(judge, seen)
        low, high = limits(found)
        held += low <= 0.25 <= high
        estimates.append(found.rate)
    assert np.mean(estimates) == pytest.approx(0.25, abs=0.005)
    assert 0.925 <= held / 400 <= 0.975


@pytest.mark.parametrize(("rate", "se", "sp"), [(0.3, 0.6, 0.95), (0.85, 0.9, 0.9)])
def test_it_covers_the_rate_of_answers_like_these(rate: float, se: float, sp: float) -> None:
    rng, held = np.random.default_rng(6), 0
    for _ in range(500):
        labels = (rng.random(250) < rate).astype(float)
        judge = np.where(labels == 1, rng.random(250) < se, rng.random(250) > sp).astype(float)
        low, high = limits(corrected_rate(judge, hidden(labels, 100, rng), finite=False))
        held += low <= rate <= high
    assert 0.925 <= held / 500 <= 0.975


def test_items_make_a_paired_test_that_holds_its_level_where_the_judges_labels_do_not() -> None:
    """Two systems refuse 40 %; the judge sees .9 of one's refusals and .4 of the other's. 150 of 400 labelled, the same for both."""
    rng, runs, judged, corrected, wide = np.random.default_rng(7), 500, 0, 0, 0
    for _ in range(runs):
        ease = rng.random(400)
        values, naive = [], []
        for se in (0.9, 0.4):
            people = (np.where(rng.random(400) < 0.5, ease, rng.random(400)) < 0.4).astype(float)
            judge = np.where(people == 1, rng.random(400) < se, rng.random(400) < 0.02).astype(float)
            labels = np.where(np.arange(400) < 150, people, NAN)
            values.append(corrected_items(judge, labels))
            naive.append(judge)
        judged += p_value(paired_change(naive[1] - naive[0], binary=True).test) < 0.05
        test = paired_change(values[1] - values[0], binary=False, scale=None).test
        assert test is not None
        corrected += p_value(test) < 0.05
        wide += noninferiority_p(test, 0.0) < 0.025
    assert judged == runs
    assert 0.03 <= corrected / runs <= 0.075
    assert wide / runs <= 0.05


def rejections(labelled: int, draw: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray]], runs: int = 1000) -> float:
    """Share of paired tests at 5 % that tell two systems apart which are drawn alike, (judge, people) of 200 answers by ``draw``."""
    rng, found = np.random.default_rng(13), 0
    for _ in range(runs):
        values = []
        for _ in range(2):
            judge, people = draw(rng)
            values.append(corrected_items(judge, np.where(np.arange(200) < labelled, people, NAN)))
        test = paired_change(values[1] - values[0], binary=False, scale=None).test
        found += test is not None and p_value(test) < 0.05
    return found / runs


def test_few_labels_hold_the_level_too() -> None:
    """m_i is made of the labels that it is compared with: taken from the labels themselves, residuals are too small."""

    def refusals(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        people = rng.random(200) < 0.5
        return np.where(rng.random(200) < 0.8, people, ~people).astype(float), people.astype(float)

    def grades(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        people = rng.normal(0, 1, 200)
        return people + rng.normal(0, 1, 200), people

    assert 0.03 <= rejections(20, refusals) <= 0.068  # .08 before
    assert 0.03 <= rejections(12, grades) <= 0.075  # .10 before


def xstest(shared: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(string matching, people) by system, safety and what counts as a refusal."""
    found = {}
    for path in sorted((shared / "data" / "xstest").glob("*_streval.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for safety in ("safe", "unsafe"):
            chosen = [row for row in rows if row["type"].startswith("contrast") == (safety == "unsafe")]
            judge = np.array([row["strmatch_label"].startswith("2") for row in chosen], dtype=np.float64)
            for refusal, classes in (("full", ("2",)), ("any", ("2", "3"))):
                people = np.array([row["final_label"].startswith(classes) for row in chosen], dtype=np.float64)
                found[f"{path.stem.removesuffix('_streval')} {safety} {refusal}"] = (judge, people)
    return found


def odd_answers(judge: np.ndarray, labels: np.ndarray) -> int:
    return int(sum(min(labels[judge == v].sum(), (1 - labels[judge == v]).sum()) for v in np.unique(judge)))


def check_xstest(shared: Path, drawn: int) -> dict[str, float]:
    """Coverage over 1,000 subsets, checked; above .97 only where few odd answers can be expected among the labelled."""
    found, rng = {}, np.random.default_rng(drawn)
    for name, (judge, labels) in xstest(shared).items():
        found[name] = coverage(judge, labels, drawn, 1000, rng)
        assert found[name] >= 0.93, name
        if odd_answers(judge, labels) * drawn / len(labels) >= 4:
            assert found[name] <= 0.97, name
    assert len(found) >= 12
    return found


@pytest.mark.usefixtures("remembered")
def test_it_covers_what_people_said_of_every_system_of_xstest(shared: Path) -> None:
    """100 labels of 200 or 250 answers. Two systems refuse (nearly) every unsafe prompt, one nearly no safe one: there it is conservative."""
    found = check_xstest(shared, 100)
    inside = {name for name, value in found.items() if value <= 0.97}
    assert {name for name in found if "safe" in name and name not in inside} <= {
        "llama2orig unsafe full",
        "llama2orig unsafe any",
        "llama2new unsafe any",
        "mistralinstruct safe full",
        "mistralinstruct safe any",
    }


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [50, 150])
@pytest.mark.usefixtures("remembered")
def test_it_covers_on_xstest_with_fewer_and_more_labels(shared: Path, drawn: int) -> None:
    assert check_xstest(shared, drawn)


def test_string_matching_is_not_one_judge_on_xstest(shared: Path) -> None:
    """Its sensitivity on unsafe prompts is .98 for one system and .19 for another (people: full or partial refusal)."""
    quality = {name: judge_quality(*pair) for name, pair in xstest(shared).items()}
    assert quality["llama2orig unsafe any"].sensitivity == pytest.approx(0.98)
    assert quality["mistralinstruct unsafe any"].sensitivity == pytest.approx(14 / 72)
    assert quality["llama2orig safe any"].kappa == pytest.approx(0.65, abs=0.005)
    judge, people = xstest(shared)["mistralinstruct unsafe any"]
    labels = np.where(np.arange(200) % 2 == 0, people, NAN)
    found = corrected_rate(judge, labels)
    assert found.naive == 0.075
    low, high = limits(found)
    assert low > 0.2
    assert low <= people.mean() <= high


@pytest.mark.slow
@pytest.mark.usefixtures("remembered")
def test_no_other_system_is_covered_too_little() -> None:
    """Systems drawn at random: rates .02-.98, sensitivity .1-.99, specificity .8-1; judges of two classes and of three."""
    rng, found = np.random.default_rng(8), []
    for i in range(120):
        n, drawn = int(rng.integers(200, 451)), int(rng.choice([50, 100, 150]))
        labels = (rng.random(n) < rng.uniform(0.02, 0.98)).astype(float)
        se, sp = rng.uniform(0.1, 0.99), rng.uniform(0.8, 1.0)
        judge = np.where(labels == 1, rng.random(n) < se, rng.random(n) > sp).astype(float)
        if i % 12 == 0:
            judge = np.where((judge == 1) & (rng.random(n) < 0.4), 0.5, judge)
        found.append((coverage(judge, labels, drawn, 400, rng), odd_answers(judge, labels) * drawn / n))
    values, odd = np.array(found).T
    # 400 subsets know a coverage to +-.011 (one standard error); the lowest of 120 at .94 may read .91.
    assert values.min() >= 0.905
    assert 0.945 <= np.median(values) <= 0.965
    assert values[odd >= 4].mean() == pytest.approx(0.952, abs=0.006)
    assert values[odd >= 4].max() <= 0.99
