"""McNemar's tests on discordant pairs (McNemar 1947; mid-p: Fagerland, Lydersen and Laake 2013, BMC Med Res Meth 13:91)."""

from __future__ import annotations

from scipy.special import bdtr, ndtr


def mcnemar_exact_p(lost: int, gained: int) -> float:
    """Two-sided exact p: ``2 P(Bin(lost + gained, 1/2) <= min)``, at most 1; 1 if nothing changed."""
    m, k = lost + gained, min(lost, gained)
    return 1.0 if m == 0 else min(1.0, 2.0 * float(bdtr(k, m, 0.5)))


def mcnemar_mid_p(lost: int, gained: int) -> float:
    """Two-sided mid-p: ``2 P(X < min) + P(X = min)``; 1 if the two counts are equal."""
    m, k = lost + gained, min(lost, gained)
    if lost == gained:
        return 1.0
    below = float(bdtr(k - 1, m, 0.5)) if k > 0 else 0.0
    at_most = float(bdtr(k, m, 0.5))
    return min(1.0, below + at_most)


def mcnemar_score_p(lost: float, gained: float) -> float:
    """Two-sided p of McNemar's chi-square without continuity correction (equal to Tango's test of no change)."""
    m = lost + gained
    return 1.0 if m == 0 else 2.0 * float(ndtr(-abs(gained - lost) / m**0.5))
