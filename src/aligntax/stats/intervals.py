"""Other published intervals for a paired difference: for cross-checks, simulations and readers who ask for them by name.

The ledger uses ``paired.paired_change``; these are here so that its choice can be compared (docs/validation.md).
Counts: ``both_right``, ``lost`` (right then wrong), ``gained``, ``both_wrong``.
"""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import numpy as np
from scipy.special import betainc, betaincinv, betaln

from aligntax.stats.paired import critical_value


def wald_interval(lost: float, gained: float, n: int, level: float = 0.95, ddof: int = 1) -> tuple[float, float]:
    """Normal interval with the differences' standard deviation (ddof 0 or 1). Covers 26-90 % when flips are rare."""
    change = (gained - lost) / n
    se = sqrt(((lost + gained) / n - change**2) / (n - ddof))
    z = critical_value(level, None)
    return change - z * se, change + z * se


def t_interval(lost: float, gained: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Student's t interval with n - 1 degrees of freedom."""
    change = (gained - lost) / n
    se = sqrt(((lost + gained) / n - change**2) / (n - 1))
    t = critical_value(level, n - 1)
    return change - t * se, change + t * se


def bonett_price_interval(lost: float, gained: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Bonett and Price 2012 (JEBS 37:479): Wald with one added to each discordant count, cut at +-1."""
    p1, p2 = (lost + 1) / (n + 2), (gained + 1) / (n + 2)
    half = critical_value(level, None) * sqrt((p1 + p2 - (p2 - p1) ** 2) / (n + 2))
    return max(-1.0, p2 - p1 - half), min(1.0, p2 - p1 + half)


def wilson_interval(successes: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Wilson 1927 score interval of one proportion."""
    z = critical_value(level, None)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return centre - half, centre + half


def newcombe_interval(both_right: int, lost: int, gained: int, both_wrong: int, level: float = 0.95) -> tuple[float, float]:
    """Newcombe 1998 (Stat Med 17:2635), method 10: Wilson limits joined with a continuity-corrected phi."""
    n = both_right + lost + gained + both_wrong
    base, candidate = both_right + lost, both_right + gained
    (lb, ub), (lc, uc) = wilson_interval(base, n, level), wilson_interval(candidate, n, level)
    product = float(base) * (n - base) * candidate * (n - candidate)
    phi = 0.0
    if product > 0:
        x = float(both_right * both_wrong - lost * gained)
        x = x - n / 2 if x > n / 2 else min(x, 0.0)
        phi = x / sqrt(product)
    pb, pc = base / n, candidate / n
    low = pc - pb - sqrt((pc - lc) ** 2 - 2 * phi * (pc - lc) * (ub - pb) + (ub - pb) ** 2)
    high = pc - pb + sqrt((uc - pc) ** 2 - 2 * phi * (uc - pc) * (pb - lb) + (pb - lb) ** 2)
    return low, high


def dirichlet_interval(lost: float, gained: float, n: int, level: float = 0.95, *, a: float = 1.0, r: float = 1.0) -> tuple[float, float]:
    """Equal-tailed posterior interval of the change under a Dirichlet prior on (gained, lost, unchanged).

    D ~ Beta(lost+gained+2a, unchanged+r) and W ~ Beta(gained+a, lost+a) are independent and the change is D(2W-1);
    a = r = 1 is the uniform three-cell prior (Bowyer et al. 2025, arXiv:2503.01747).
    """
    from scipy.optimize import brentq  # slow to import, and only this reference method needs it

    shape_d = (lost + gained + 2 * a, n - lost - gained + r)
    shape_w = (gained + a, lost + a)
    nodes, weights = np.polynomial.legendre.leggauss(400)

    def distribution(x: float) -> float:
        # P(D (2w - 1) <= x), averaged over w in three smooth pieces: |2w - 1| < |x| decides the event by its sign.
        cuts = [0.0, *sorted({0.5, min(max((1 + x) / 2, 0.0), 1.0)}), 1.0]
        total = 0.0
        for left, right in pairwise(cuts):
            if right <= left:
                continue
            w = 0.5 * (right - left) * nodes + 0.5 * (right + left)
            c = 2 * w - 1
            ratio = np.divide(x, c, out=np.zeros_like(c), where=c != 0)
            inside = betainc(*shape_d, np.clip(ratio, 0.0, 1.0))
            probability = np.where(c > 0, np.where(x < 0, 0.0, inside), np.where(x >= 0, 1.0, 1.0 - inside))
            log_density = (shape_w[0] - 1) * np.log(w) + (shape_w[1] - 1) * np.log1p(-w) - betaln(*shape_w)
            total += 0.5 * (right - left) * float(np.sum(weights * probability * np.exp(log_density)))
        return total

    alpha = (1.0 - level) / 2.0
    low, high = (float(brentq(lambda x, q=q: distribution(x) - q, -1.0, 1.0, xtol=1e-14)) for q in (alpha, 1 - alpha))
    return low, high


def clopper_pearson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact binomial interval of one proportion (Clopper and Pearson 1934); for Monte Carlo error of simulations."""
    alpha = 1.0 - level
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, alpha / 2))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1 - alpha / 2))
    return low, high
