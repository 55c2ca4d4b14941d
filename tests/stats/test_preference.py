"""Win rates, plain and at equal lengths: known answers, statsmodels, and simulations that the intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

from aligntax.stats.intervals import clopper_pearson_interval
from aligntax.stats.paired import critical_value
from aligntax.stats.preference import (
    LengthControlled,
    length_controlled,
    preferences_from_alpaca,
    preferences_from_signs,
    preferences_of_both_orders,
    win_rate,
)
from aligntax.stats.tango import tango_interval


def known(found: LengthControlled) -> tuple[float, float, float, float]:
    """(rate, low, high, se) of a rate that has all of them."""
    assert found.rate is not None
    assert found.low is not None
    assert found.high is not None
    assert found.se is not None
    return found.rate, found.low, found.high, found.se


def drawn(
    rng: np.random.Generator, n: int, theta: float, phi: float, kind: str = "0/1", shift: float = 0.0, quality: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Preferences and length differences (sd 300); ``shift`` in sds makes the candidate longer, ``quality`` its longer answers better."""
    z = rng.normal(size=n)
    p = expit(theta + phi * np.tanh(z + shift) + quality * z)
    if kind == "ties":
        u, tie = rng.random(n), 0.2 * np.minimum(p, 1 - p)
        y = np.where(u < p - tie, 1.0, np.where(u < p + tie, 0.5, 0.0))
    elif kind == "weighted":
        y = rng.beta(3 * p, 3 * (1 - p))
    else:
        y = (rng.random(n) < p).astype(np.float64)
    return y, 300 * (z + shift)


def test_preferences_from_other_codings() -> None:
    assert preferences_from_signs([1, 0, -1, np.nan]).tolist()[:3] == [1.0, 0.5, 0.0]
    assert np.isnan(preferences_from_signs([np.nan])).all()
    assert preferences_from_alpaca([1, 2, 1.5, 0, 1.25]).tolist() == [0.0, 1.0, 0.5, 0.5, 0.25]
    with pytest.raises(ValueError, match="signs must be"):
        preferences_from_signs([2])
    with pytest.raises(ValueError, match=r"lie in \[1, 2\]"):
        preferences_from_alpaca([0.5])


def test_both_orders_cancel_a_liking_for_the_first() -> None:
    """A judge that always picks the first answer has no preference, and a bias of 1."""
    mean, bias = preferences_of_both_orders([0, 0, 0], [1, 1, 1])
    assert mean.tolist() == [0.5, 0.5, 0.5]
    assert bias == 1.0
    mean, bias = preferences_of_both_orders([1, 0, np.nan], [1, 1, 1])
    assert mean[:2].tolist() == [1.0, 0.5]
    assert np.isnan(mean[2])
    assert bias == 0.5
    with pytest.raises(ValueError, match="no item was judged in both"):
        preferences_of_both_orders([np.nan], [1])
    with pytest.raises(ValueError, match="same items"):
        preferences_of_both_orders([1], [1, 0])


def test_win_rate_counts_ties_half_and_has_the_ledgers_interval() -> None:
    y = np.concatenate([np.ones(60), np.full(10, 0.5), np.zeros(30), [np.nan]])
    found = win_rate(y)
    assert (found.rate, found.n, found.wins, found.ties, found.losses) == (0.65, 100, 60, 10, 30)
    low, high = tango_interval(30, 60, 100, critical_value(0.95, None))
    assert found.low == pytest.approx(0.5 + low / 2, abs=1e-12)
    assert found.high == pytest.approx(0.5 + high / 2, abs=1e-12)
    # At delta = 0 Tango's statistic is McNemar's: (60 - 30)/sqrt(90), p .00157.
    assert found.p_value == pytest.approx(0.00157, abs=1e-5)


def test_win_rate_refuses_what_is_no_preference() -> None:
    for bad in ([1.2], [-0.1, 0.5], [[0.5]]):
        with pytest.raises(ValueError, match="from 0 to 1"):
            win_rate(bad)
    with pytest.raises(ValueError, match="no item has a preference"):
        win_rate([np.nan])
    assert win_rate([1.0]).low is None
    assert win_rate([1.0]).reason


@pytest.mark.parametrize("weights", [(0.5, 0.2, 0.3), (0.9, 0.05, 0.05)])
def test_win_rate_covers(weights: tuple[float, float, float]) -> None:
    rng, truth, hits = np.random.default_rng(5), weights[0] + weights[1] / 2, 0
    for _ in range(1000):
        found = win_rate(rng.choice([1.0, 0.5, 0.0], 120, p=weights))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 0.93 <= hits / 1000 <= 0.97


def test_two_lengths_are_solved_by_hand() -> None:
    """Longer by c 80 % are preferred, shorter by c 50 %: both logits are met, their mean is ln(4)/2 = ln 2, and expit(ln 2) = 2/3."""
    y = np.concatenate([np.ones(80), np.zeros(20), np.ones(50), np.zeros(50)])
    delta = np.concatenate([np.full(100, 40.0), np.full(100, -40.0)])
    found = length_controlled(y, delta)
    rate, low, high, se = known(found)
    assert rate == pytest.approx(2 / 3, abs=1e-9)
    assert found.raw == pytest.approx(0.65)
    # Delta method on theta = (logit p1 + logit p2)/2, each logit of variance 1/(n p (1 - p)): se(theta) = sqrt(.0625 + .04)/2.
    assert se == pytest.approx(2 / 9 * np.sqrt(0.0625 + 0.04) / 2, rel=0.02)
    half = critical_value(0.95, 199.0) * se / (2 / 9)
    assert low == pytest.approx(expit(np.log(2) - half), abs=1e-9)
    assert high == pytest.approx(expit(np.log(2) + half), abs=1e-9)
    assert found.items is not None
    assert found.items.mean() == pytest.approx(rate, abs=1e-12)
    assert se == pytest.approx(found.items.std(ddof=1) / np.sqrt(200), rel=1e-12)


@pytest.mark.parametrize("kind", ["0/1", "ties", "weighted"])
def test_coefficients_are_those_of_statsmodels(kind: str) -> None:
    glm = pytest.importorskip("statsmodels.genmod.generalized_linear_model")
    families = pytest.importorskip("statsmodels.genmod.families")
    rng = np.random.default_rng(6)
    y, delta = drawn(rng, 300, 0.4, 0.9, kind, shift=0.5)
    difficulty = rng.normal(size=300)
    t = np.tanh(delta / delta.std(ddof=1))
    plain = glm.GLM(y, np.column_stack([np.ones(300), t]), family=families.Binomial()).fit(tol=1e-14, maxiter=200, cov_type="HC0")
    found = length_controlled(y, delta)
    assert found.rate == pytest.approx(expit(plain.params[0]), abs=1e-6)
    assert found.length_effect == pytest.approx(plain.params[1], abs=1e-6)
    assert found.length_effect_se == pytest.approx(plain.bse[1], rel=0.03)  # HC3 against HC0
    assert known(found)[3] == pytest.approx(plain.bse[0] * expit(plain.params[0]) * expit(-plain.params[0]), rel=0.03)
    x = np.column_stack([np.ones(300), difficulty, t])
    hard = glm.GLM(y, x, family=families.Binomial()).fit(tol=1e-14, maxiter=200)
    x[:, 2] = 0.0
    found = length_controlled(y, delta, difficulty=difficulty)
    assert found.rate == pytest.approx(float(expit(x @ hard.params).mean()), abs=1e-6)
    assert found.length_effect == pytest.approx(hard.params[2], abs=1e-6)


def test_items_are_what_leaving_one_out_tells() -> None:
    """n times the rate less n - 1 times the rate without item i, up to the change of the lengths' sd (Tukey's pseudo-values)."""
    y, delta = drawn(np.random.default_rng(7), 150, 0.5, 1.0, shift=0.5)
    found = length_controlled(y, delta)
    assert found.items is not None
    left_out = np.array([length_controlled(np.delete(y, i), np.delete(delta, i)).rate for i in range(150)], dtype=np.float64)
    pseudo = 150 * known(found)[0] - 149 * left_out
    assert np.corrcoef(found.items, pseudo)[0, 1] > 0.99
    assert found.items.std() == pytest.approx(pseudo.std(), rel=0.05)


def test_without_a_difference_of_lengths_it_is_the_win_rate() -> None:
    y = np.array([1.0, 1, 0, 0.5, 1, 0.25, 0, 1])
    found = length_controlled(y, np.zeros(8))
    assert known(found)[0] == pytest.approx(y.mean(), abs=1e-12)
    assert found.length_effect is None
    # Leverage is 1/8 everywhere: the usual error, and n/(n - 1) of it.
    assert known(found)[3] == pytest.approx(y.std(ddof=1) / np.sqrt(8) * 8 / 7, rel=1e-12)


def test_reasons_instead_of_nonsense() -> None:
    rng = np.random.default_rng(8)
    delta = rng.normal(50, 100, 60)
    for y in (np.ones(60), np.zeros(60), (delta > 20).astype(float), (delta <= 20).astype(float)):
        found = length_controlled(y, delta)
        assert found.rate is None
        assert found.items is None
        assert "separated" in found.reason
    tied = np.where(delta > 20, 1.0, 0.0)
    tied[np.argmin(np.abs(delta - 20))] = 0.5  # still separated: the tie sits at the border
    assert "separated" in length_controlled(tied, delta).reason
    tied[np.argmax(delta)] = 0.5
    assert length_controlled(tied, delta).rate is not None
    assert "cannot be told" in length_controlled(rng.integers(0, 2, 60), np.full(60, 30.0)).reason
    found = length_controlled(rng.integers(0, 2, 60), delta, difficulty=np.ones(60))
    assert "cannot be told apart" in found.reason
    one = length_controlled(rng.integers(0, 2, 60), delta, np.zeros(60, dtype=np.int64))
    assert one.rate is not None
    assert one.low is None
    assert "one source" in one.reason


def test_extrapolation_is_told_and_missing_preferences_are_left_out() -> None:
    y, delta = drawn(np.random.default_rng(9), 100, 0.0, 0.5)
    assert length_controlled(y, np.abs(delta) + 1).extrapolated
    for shift in (1500, 3000):
        far = length_controlled(y, delta + shift)
        assert far.rate is None
        assert "which no such data tell" in far.reason
    y, delta = drawn(np.random.default_rng(9), 100, 0.0, 0.5)
    gaps, lengths = y.copy(), delta.copy()
    gaps[::10], lengths[::10] = np.nan, np.nan
    codes = np.arange(100)
    found = length_controlled(gaps, lengths, codes)
    assert not found.extrapolated
    assert found.n == 90
    assert found.kept.sum() == 90
    assert known(found) == pytest.approx(known(length_controlled(np.delete(y, codes[::10]), np.delete(delta, codes[::10]))))
    with pytest.raises(ValueError, match="must be known"):
        length_controlled(y, lengths)
    with pytest.raises(ValueError, match="same items"):
        length_controlled(y, delta[:-1])
    with pytest.raises(ValueError, match="same items"):
        length_controlled(y, delta, codes[:-1])
    with pytest.raises(ValueError, match="fewer than two"):
        length_controlled([1.0], [3.0])


def truth(theta: float, phi: float, shift: float, quality: float) -> float:
    """The LC win rate of all items: the fit to the preferences' expectations of very many."""
    z = np.random.default_rng(0).normal(size=60_000)
    p = expit(theta + phi * np.tanh(z + shift) + quality * z)
    rate = length_controlled(p, 300 * (z + shift)).rate
    assert rate is not None
    return rate


CASES = [
    (0.0, 0.0, 0.0, 0.0, "0/1"),
    (1.0, 1.0, 0.8, 0.0, "ties"),
    (-1.5, 2.0, 0.5, 0.0, "0/1"),
    (0.3, 0.5, 0.8, 0.7, "weighted"),
    (2.2, 0.8, 0.0, 0.7, "0/1"),
]


def covered(case: tuple[float, float, float, float, str], n: int, runs: int) -> float:
    theta, phi, shift, quality, kind = case
    rng, target, hits = np.random.default_rng(n), truth(theta, phi, shift, quality), 0
    for _ in range(runs):
        _, low, high, _ = known(length_controlled(*drawn(rng, n, theta, phi, kind, shift, quality)))
        hits += low <= target <= high
    return hits / runs


@pytest.mark.parametrize("case", CASES)
def test_it_covers(case: tuple[float, float, float, float, str]) -> None:
    """Also where longer answers are better (quality): the target is what the model tells of very many items."""
    if case[3] == 0:
        assert truth(*case[:4]) == pytest.approx(expit(case[0]), abs=0.005)
    assert 0.925 <= covered(case, 150, 300) <= 0.975


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 200, 400, 800])
@pytest.mark.parametrize("case", CASES)
def test_it_covers_at_every_size(case: tuple[float, float, float, float, str], n: int) -> None:
    assert 0.93 <= covered(case, n, 3000) <= 0.97


def test_it_covers_with_clusters_and_would_not_without() -> None:
    """60 sources of 5 items that share their ease; the target is the rate over sources."""
    rng, ease = np.random.default_rng(10), 1.0
    u = rng.normal(0, ease, 150_000)
    z = rng.normal(size=len(u))
    target = length_controlled(expit(0.5 + np.tanh(z) + u), 300 * z).rate
    assert target is not None
    codes, hits, alone = np.repeat(np.arange(60), 5), 0, 0
    for _ in range(250):
        z = rng.normal(size=300)
        y = (rng.random(300) < expit(0.5 + np.tanh(z) + rng.normal(0, ease, 60)[codes])).astype(float)
        _, low, high, _ = known(length_controlled(y, 300 * z, codes))
        hits += low <= target <= high
        _, low, high, _ = known(length_controlled(y, 300 * z))
        alone += low <= target <= high
    assert 0.925 <= hits / 250 <= 0.98
    assert alone / 250 < 0.92


def test_its_test_holds_its_level_where_the_plain_win_rate_is_moved_by_length() -> None:
    """Equal answers, a judge that likes length, a longer candidate: the raw win rate is .62, and 5 % of LC intervals miss 1/2."""
    rng, raw, controlled = np.random.default_rng(11), 0, 0
    for _ in range(400):
        y, delta = drawn(rng, 300, 0.0, 1.0, shift=0.7)
        plain = win_rate(y).p_value
        assert plain is not None
        raw += plain < 0.05
        _, low, high, _ = known(length_controlled(y, delta))
        controlled += not low <= 0.5 <= high
    assert raw / 400 > 0.8
    low, high = clopper_pearson_interval(controlled, 400, 0.99)
    assert low <= 0.05 <= high
