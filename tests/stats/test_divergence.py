"""Divergences against closed forms, what holds for any pair of distributions, and simulations in which the answer is known."""

from __future__ import annotations

import itertools
from math import e, inf, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytest import approx

from aligntax.stats.divergence import (
    bits_per_byte_difference,
    entropy,
    jensen_shannon,
    k1,
    k2,
    k3,
    kl,
    kl_at_least,
    known_to_both,
    per_sequence,
    per_token,
    settle,
    top1_agreement,
    total_variation,
)


def logs(*p: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(p))


# -- closed forms -----------------------------------------------------------------------------------------------------------------

HALF = (0.5, 0.5)
# (p, q, KL(p||q), KL(q||p), JS, TV) by hand
PAIRS = [
    (HALF, HALF, 0.0, 0.0, 0.0, 0.0),
    # 1/2 log 2 + 1/2 log (2/3); 1/4 log(1/2) + 3/4 log(3/2)
    (HALF, (0.25, 0.75), log(2) - log(3) / 2, 3 / 4 * log(3) - log(2), (log(4 / 3) / 2 + log(4 / 5) / 2 + log(2 / 3) / 4 + 3 / 4 * log(6 / 5)) / 2, 0.25),
    ((0.5, 0.25, 0.25), (0.25, 0.5, 0.25), log(2) / 4, log(2) / 4, log(4 / 3) / 2 + log(2 / 3) / 4, 0.25),
    ((1.0, 0.0), HALF, log(2), inf, (log(4 / 3) + log(2 / 3) / 2 + log(2) / 2) / 2, 0.5),
    ((1.0, 0.0), (0.0, 1.0), inf, inf, log(2), 1.0),
    ((0.5, 0.5, 0.0), (0.25, 0.75, 0.0), log(2) - log(3) / 2, 3 / 4 * log(3) - log(2), (log(4 / 3) / 2 + log(4 / 5) / 2 + log(2 / 3) / 4 + 3 / 4 * log(6 / 5)) / 2, 0.25),
]  # fmt: skip


@pytest.mark.parametrize(("p", "q", "forward", "reverse", "js", "tv"), PAIRS)
def test_pairs_that_can_be_done_by_hand(p: tuple, q: tuple, forward: float, reverse: float, js: float, tv: float) -> None:
    a, b = logs(*p), logs(*q)
    assert kl(a, b) == approx(forward, abs=1e-14)
    assert kl(b, a) == approx(reverse, abs=1e-14)
    assert jensen_shannon(a, b) == approx(js, abs=1e-14)
    assert total_variation(a, b) == approx(tv, abs=1e-15)


def test_entropy_and_the_most_likely_token() -> None:
    rows = np.stack([logs(0.25, 0.25, 0.25, 0.25), logs(1, 0, 0, 0), logs(0.5, 0.25, 0.25, 0)])
    assert entropy(rows) == approx([log(4), 0, 1.5 * log(2)], abs=1e-15)
    assert top1_agreement(rows, rows[::-1]).tolist() == [True, True, True]
    assert top1_agreement(logs(0.4, 0.6), logs(0.6, 0.4)).tolist() is False
    assert top1_agreement(logs(0.5, 0.5), logs(0.9, 0.1)).tolist() is True  # a tie goes to the lowest id


def test_rows_that_are_none() -> None:
    with pytest.raises(ValueError, match="do not add up to 1"):
        kl(np.zeros(3), np.zeros(3))
    with pytest.raises(ValueError, match="do not add up to 1"):
        entropy(np.array([np.nan, 0.0]))
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        kl(logs(*HALF), logs(0.2, 0.3, 0.5))


def test_only_rounding_is_set_to_zero() -> None:
    assert settle(np.array([-1e-7, -0.0, 0.0, 1e-9, -1e-5])).tolist() == [0.0, 0.0, 0.0, 1e-9, -1e-5]


def test_float32_rows_of_nearly_equal_models_keep_their_divergence() -> None:
    """Rows normalised in float32 add up to 1 only so far; the divergence is smaller than that error."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=50_000)
    shifted = logits + 1e-4 * rng.normal(size=50_000)
    exact = [x - np.log(np.exp(x).sum()) for x in (logits, shifted)]
    rough = [x.astype(np.float32) + np.float32(c) for x, c in zip(exact, (3e-6, -3e-6), strict=True)]
    assert kl(*exact) == approx(5e-9, rel=0.05)
    assert kl(*rough) == approx(float(kl(*exact)), abs=1e-9)


# -- what holds for any pair --------------------------------------------------------------------------------------------------------

weights = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1.0)), min_size=8, max_size=8).filter(lambda w: sum(w) > 0.01)


def distribution(w: list[float]) -> np.ndarray:
    return logs(*(np.array(w) / sum(w)))


@given(weights, weights)
@settings(max_examples=150, deadline=None)
def test_signs_symmetry_and_bounds(w: list[float], u: list[float]) -> None:
    p, q = distribution(w), distribution(u)
    forward, js, tv = float(kl(p, q)), float(jensen_shannon(p, q)), float(total_variation(p, q))
    assert forward >= 0
    assert jensen_shannon(q, p) == js
    assert 0 <= js <= log(2) + 1e-12
    assert tv <= sqrt(forward / 2) + 1e-9  # Pinsker
    assert js <= tv * log(2) + 1e-9  # Lin 1991
    assert kl(p, p) == jensen_shannon(p, p) == 0.0
    assert (forward == inf) == bool(((p > -inf) & (q == -inf)).any())
    m = np.logaddexp(p, q) - log(2)
    assert js == approx(float(kl(p, m) + kl(q, m)) / 2, abs=1e-12)


@given(weights, weights, st.permutations(range(8)), st.sampled_from([0.0, 1e-6, 1e-3]))
@settings(max_examples=150, deadline=None)
def test_the_bound_is_below_and_grows_with_what_is_known(w: list[float], u: list[float], order: list[int], rounding: float) -> None:
    p, q = distribution(w)[order], distribution(u)[order]
    found = [float(kl_at_least(p[:k], q[:k], rounding)) for k in range(9)]
    assert found[0] == 0
    assert all(low <= high + 1e-9 for low, high in itertools.pairwise(found))
    assert found[-1] <= kl(p, q) + 1e-9
    if rounding == 0:
        assert found[-1] == approx(float(kl(p, q)), abs=1e-9)


def test_the_bound_from_two_lists_that_differ() -> None:
    p, q = {"a": log(0.5), "b": log(0.3), "c": log(0.1)}, {"b": log(0.6), "a": log(0.2), "d": log(0.1)}
    logp, logq = known_to_both([p, {"x": log(0.5)}], [q, {"y": log(0.5)}])
    assert logp.shape == (2, 2)
    assert np.isnan(logp[1]).all()
    wanted = 0.5 * log(0.5 / 0.2) + 0.3 * log(0.3 / 0.6) + 0.2 * log(0.2 / 0.2)
    assert kl_at_least(logp, logq, rounding=0) == approx([wanted, 0.0], abs=1e-11)
    assert kl_at_least(logp, logq) == approx([wanted, 0.0], abs=1e-5)
    assert (kl_at_least(logp, logq) <= kl_at_least(logp, logq, rounding=0)).all()
    assert kl_at_least(*known_to_both([{}], [{}])).tolist() == [0.0]


def test_a_rest_lost_in_rounding_is_no_infinite_divergence() -> None:
    """q's list says everything, as far as its digits tell; p's leaves a little."""
    p, q = logs(0.999, 0.0009), logs(0.5, 0.5)
    assert kl_at_least(p, q, rounding=1e-4) < kl_at_least(p, q) < kl_at_least(p, q, rounding=0) < 0.7


def test_lists_that_cannot_be_bounded() -> None:
    with pytest.raises(ValueError, match="more than 1"):
        kl_at_least(logs(0.9, 0.2), logs(0.5, 0.2))
    with pytest.raises(ValueError, match="same tokens"):
        kl_at_least(np.array([-1.0, np.nan]), np.array([-1.0, -2.0]))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        known_to_both([{"a": -1.0}], [])


# -- samples ------------------------------------------------------------------------------------------------------------------------


def test_estimators_by_hand() -> None:
    p, q = np.log([0.5, 0.25]), np.log([0.25, 0.5])
    assert k1(p, q) == approx([log(2), -log(2)])
    assert k2(p, q) == approx([log(2) ** 2 / 2] * 2)
    assert k3(p, q) == approx([log(2) - 0.5, 1 - log(2)])
    assert k1(0.0, -inf) == k3(0.0, -inf) == inf
    with pytest.raises(ValueError, match="probability 0"):
        k1(-inf, 0.0)


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    """p = (.4, .4, .2), q = (.02, .5, .48); draws from p. The mean of k2 is E[(log p/q)^2] / 2 and no KL."""
    p, q = logs(0.4, 0.4, 0.2), logs(0.02, 0.5, 0.48)
    exact = float(kl(p, q))
    second = float((np.exp(p) * (p - q) ** 2).sum()) / 2
    assert abs(second - exact) > 0.2
    for seed in range(8):
        drawn = np.random.default_rng(seed).choice(3, size=40_000, p=np.exp(p))
        for estimator, wanted in ((k1, exact), (k3, exact), (k2, second)):
            values = estimator(p[drawn], q[drawn])
            assert abs(values.mean() - wanted) < 4 * values.std(ddof=1) / 200
        assert abs(k2(p[drawn], q[drawn]).mean() - exact) > 20 * k2(p[drawn], q[drawn]).std() / 200
        assert (k3(p[drawn], q[drawn]) >= 0).all()


def test_k3_misses_what_p_makes_impossible() -> None:
    p, q = logs(1, 0), logs(0.75, 0.25)
    assert kl(p, q) == approx(log(4 / 3))
    assert k3(p[0], q[0]) == approx(log(4 / 3) - 0.25)


def test_sums_and_the_ratio_of_means() -> None:
    sums = per_sequence([1.0, 2.0, 3.0, 4.0], [1, 0, 3])
    assert sums.tolist() == [1.0, 0.0, 9.0]
    found = per_token(sums, [1, 0, 3])
    assert (found.value, found.sequences, found.tokens) == (2.5, 3, 4)  # the mean of ratios would be (1 + 3) / 2
    # e = (1 - 2.5, 0, 9 - 7.5): 3/2 * 4.5 / 16
    assert found.se == approx(sqrt(1.5 * 4.5) / 4)
    assert np.isnan(per_token([1.0], [2]).se)
    assert per_token([inf, 1.0], [2, 2]).value == inf
    with pytest.raises(ValueError, match="add up to 3, but there are 2"):
        per_sequence([1.0, 2.0], [3])
    with pytest.raises(ValueError, match="at least one token"):
        per_token([0.0], [0])


class Chains:
    """Two Markov chains over three tokens, the last of which ends a text: whose sequence KL is known.

    With f_s = E[sum of row KLs from state s on] and n_s = E[tokens from s on]: f = g + P f and n = 1 + P n over the states that go on, where
    g_s = KL(P_s || Q_s), so that f = (1 - P)^-1 g.
    """

    def __init__(self) -> None:
        self.p = np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2]])
        self.q = np.array([[0.3, 0.4, 0.3], [0.3, 0.6, 0.1]])
        self.rows = kl(np.log(self.p), np.log(self.q))
        inverse = np.linalg.inv(np.eye(2) - self.p[:, :2])
        self.sequence, self.tokens = float((inverse @ self.rows)[0]), float(inverse.sum(1)[0])

    def draw(self, count: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Sums over each of ``count`` texts that start in state 0: of k1, of k3, of row KLs, and their lengths."""
        found = {name: np.zeros(count) for name in ("k1", "k3", "rao", "length")}
        steps, logp, logq = self.p.cumsum(1), np.log(self.p), np.log(self.q)
        going, state = np.arange(count), np.zeros(count, np.int64)
        while len(going):
            drawn = (rng.random((len(going), 1)) > steps[state]).sum(1).clip(0, 2)
            told = logp[state, drawn], logq[state, drawn]
            for name, values in (("k1", k1(*told)), ("k3", k3(*told)), ("rao", self.rows[state]), ("length", 1.0)):
                found[name][going] += values
            going, state = going[drawn < 2], drawn[drawn < 2]
        return found


def test_intervals_over_sequences_cover_the_sequence_kl() -> None:
    """3000 times 200 texts: normal 95 % intervals of k1, of k3 by token and of the Rao-Blackwellised sum, which varies less."""
    chains, times, count = Chains(), 3000, 200
    drawn = {k: v.reshape(times, count) for k, v in chains.draw(times * count, np.random.default_rng(1)).items()}
    assert drawn["length"].mean() == approx(chains.tokens, rel=0.01)
    for name in ("k1", "k3", "rao"):
        mean, se = drawn[name].mean(1), drawn[name].std(1, ddof=1) / sqrt(count)
        covered = np.abs(mean - chains.sequence) < 1.96 * se
        assert 0.93 < covered.mean() < 0.97, name
        overall = drawn[name].ravel()
        assert abs(overall.mean() - chains.sequence) < 4 * overall.std() / sqrt(overall.size)
    assert drawn["rao"].var() < drawn["k1"].var()


def test_intervals_of_the_ratio_cover_the_kl_per_token() -> None:
    chains, times, count = Chains(), 3000, 200
    drawn = {k: v.reshape(times, count) for k, v in chains.draw(times * count, np.random.default_rng(2)).items()}
    exact = chains.sequence / chains.tokens
    found = [per_token(totals, lengths) for totals, lengths in zip(drawn["k1"], drawn["length"], strict=True)]
    covered = [abs(f.value - exact) < 1.96 * f.se for f in found]
    assert 0.93 < np.mean(covered) < 0.97
    naive = (drawn["k1"] / drawn["length"]).mean()
    assert abs(naive - exact) > 0.005  # the mean of ratios is something else


# -- bytes ----------------------------------------------------------------------------------------------------------------------------


def test_bits_per_byte() -> None:
    """Two bits against six for the same two bytes, whatever the number of tokens."""
    assert bits_per_byte_difference(np.log([0.25]), np.log([0.125, 0.125]), 2) == approx(2.0)
    assert bits_per_byte_difference([-1.0], [-1.0], 1) == 0.0
    assert bits_per_byte_difference([-e], [0.0], 1) == approx(-e / log(2))
    with pytest.raises(ValueError, match="at least one byte"):
        bits_per_byte_difference([], [], 0)
