"""Best of n: n answers are drawn and the one with the highest reward is given. Costs compute instead of weights, and moves the model by a known
amount at most.
"""

from __future__ import annotations

from math import comb, expm1, log

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

FloatArray = npt.NDArray[np.float64]


def kl_bound(n: int) -> float:
    """KL(best of n || model) in nats, at most: log n - (n - 1)/n; approached as no two answers have the same reward or much mass (Beirami et al.
    2024, arXiv:2401.01879).

    Args:
        n: answers drawn.

    Raises:
        ValueError: if n is no whole number of at least 1.
    """
    _check(n)
    return log(n) - (n - 1) / n


def n_for_kl(kl: float) -> float:
    """The n (no whole number) whose bound is ``kl`` nats: log n - 1 + 1/n = kl. So many must be drawn at least to move the model so far.

    Raises:
        ValueError: if kl is negative, not finite, or asks for more than a double holds (700).
    """
    if not 0 <= kl <= 700:
        raise ValueError(f"kl must lie between 0 and 700 nats, got {kl}")
    if kl == 0:
        return 1.0
    # In x = log n: x - (1 - exp(-x)), which is exact near 0 where log n - 1 + 1/n is not; at x = kl + 1 it is beyond kl.
    return float(np.exp(brentq(lambda x: x + expm1(-x) - kl, 0.0, kl + 1.0, xtol=1e-14, rtol=1e-14)))


def win_rate_bound(n: int) -> float:
    """How often the best of n beats one further draw by reward, ties counted half, at most: n/(n + 1); met if rewards have no ties, since
    the best of n + 1 draws is each of them equally often.

    Raises:
        ValueError: if n is no whole number of at least 1.
    """
    _check(n)
    return n / (n + 1)


def compute_factor(n: int, share: float = 1.0) -> float:
    """Compute for answers, as a multiple of drawing one: 1 + share (n - 1) if a share of the prompts is answered by the best of n.

    The tax convention of Leike (2022, "Distinguishing three alignment taxes"): best of 2 costs 100 % more; best of 4 on a tenth of the prompts
    30 % more. Scoring the rewards comes on top.

    Raises:
        ValueError: if n is no whole number of at least 1, or share no share.
    """
    _check(n)
    if not 0 <= share <= 1:
        raise ValueError(f"share must lie between 0 and 1, got {share}")
    return 1.0 + share * (n - 1)


def best_of(p: npt.ArrayLike, reward: npt.ArrayLike, n: int) -> FloatArray:
    """The exact distribution of the best of n over finitely many answers: F(y)^n - F(y-)^n with F the distribution of the reward; among
    answers of one reward, which tie, in proportion to p (the first drawn is taken).

    Args:
        p: (m,) probabilities of the answers.
        reward: (m,) their rewards.
        n: answers drawn.

    Returns:
        (m,) probabilities.

    Raises:
        ValueError: if p are no probabilities, shapes differ, a reward is no number, or n no whole number of at least 1.
    """
    _check(n)
    p, reward = np.asarray(p, dtype=np.float64), np.asarray(reward, dtype=np.float64)
    if p.ndim != 1 or p.shape != reward.shape or not len(p) or np.isnan(reward).any():
        raise ValueError(f"p and reward must be (m,) numbers, got shapes {p.shape} and {reward.shape}")
    if not (p >= 0).all() or abs(float(p.sum()) - 1) > 1e-9:
        raise ValueError("p must be probabilities that add up to 1")
    _, rank = np.unique(reward, return_inverse=True)
    mass = np.bincount(rank, weights=p)
    upper = np.minimum(np.cumsum(mass), 1.0)
    upper[-1] = 1.0
    best = np.diff(upper**n, prepend=0.0)
    with np.errstate(invalid="ignore"):
        within = np.where(mass[rank] > 0, p / mass[rank], 0.0)
    return np.asarray(best[rank] * within, dtype=np.float64)


def best_of_draws(reward: npt.ArrayLike, value: npt.ArrayLike, n: int) -> float:
    """What the best of n is worth, from K answers drawn to one prompt: the mean, over all subsets of n of them, of the value of the answer
    with the highest reward; unbiased, as the subsets are n independent draws each. Of answers of one reward each is taken equally often.

    With c of the K rewards at or below one, all of a subset are so in a share of C(c, n)/C(K, n). Where reward and value are one 0/1 score it is
    pass@k (Chen et al. 2021, arXiv:2107.03374): 1 - C(K - right, n)/C(K, n). n = 1 is the mean of the values. One number per prompt, so that
    prompts pair, and cluster, like scores. Drawing n with replacement from the K would be biased towards what was drawn.

    Args:
        reward: (K,) what the answers are chosen by.
        value: (K,) what they are worth.
        n: answers that the best is chosen of, K at most.

    Raises:
        ValueError: if shapes differ, a reward is no number, a value not finite, or n no whole number from 1 to K.
    """
    _check(n)
    r, v = np.asarray(reward, dtype=np.float64), np.asarray(value, dtype=np.float64)
    if r.ndim != 1 or r.shape != v.shape or np.isnan(r).any() or not np.isfinite(v).all():
        raise ValueError(f"reward and value must be (K,) numbers, got shapes {r.shape} and {v.shape}")
    if n > len(r):
        raise ValueError(f"the best of {n} takes {n} answers to a prompt, got {len(r)}")
    _, rank = np.unique(r, return_inverse=True)
    count = np.bincount(rank)
    below = np.cumsum(count)
    all_below = np.array([comb(int(c), int(n)) / comb(len(r), int(n)) for c in below])
    return float(np.diff(all_below, prepend=0.0) @ (np.bincount(rank, weights=v) / count))


def _check(n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ValueError(f"n must be a whole number of at least 1, got {n!r}")
