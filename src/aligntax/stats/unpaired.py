"""The change between two models of which only summaries are known: independent samples, as far as anybody can tell.

Where both answered the same items this is conservative, unless their errors are opposite: what agrees between them is counted as noise.

Sources: Miettinen and Nurminen 1985 (Statistics in Medicine 4:213) for two proportions; Welch 1947 (Biometrika 34:28) for two means.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import acos, copysign, cos, inf, pi, sqrt

from aligntax.stats.paired import TTest, critical_value

_HALVINGS = 60


@dataclass(frozen=True)
class TwoProportions:
    """Miettinen and Nurminen's score test of "p2 - p1 is delta", with their factor N/(N-1).

    Attributes:
        p1, n1: share and size of the first sample (baseline). p2, n2: of the second.
        df: None; its law is the normal one.
    """

    p1: float
    n1: float
    p2: float
    n2: float
    df: float | None = None

    def statistic(self, delta: float) -> float:
        """T(delta), decreasing in delta; the variance is that at the likeliest shares under "the change is delta"."""
        delta = min(max(delta, -1.0), 1.0)
        numerator = self.p2 - self.p1 - delta
        if abs(numerator) < 1e-14:
            return 0.0
        r1 = _restricted(self.p1, self.n1, self.p2, self.n2, delta)
        r2 = min(max(r1 + delta, 0.0), 1.0)
        total = self.n1 + self.n2
        variance = (r1 * (1 - r1) / self.n1 + r2 * (1 - r2) / self.n2) * total / (total - 1)
        return numerator / sqrt(variance) if variance > 1e-300 else copysign(inf, numerator)

    def interval(self, level: float) -> tuple[float, float]:
        """(low, high): the changes not rejected at ``level``."""
        z, change = critical_value(level, None), self.p2 - self.p1
        return self._crossing(-1.0, change, z), self._crossing(change, 1.0, -z)

    def _crossing(self, left: float, right: float, value: float) -> float:
        if self.statistic(left) <= value:
            return left
        if self.statistic(right) >= value:
            return right
        for _ in range(_HALVINGS):
            middle = (left + right) / 2
            if self.statistic(middle) > value:
                left = middle
            else:
                right = middle
        return (left + right) / 2


def _restricted(p1: float, n1: float, p2: float, n2: float, delta: float) -> float:
    """The likeliest first share where the second is larger by ``delta``: the root of a cubic, in closed form (their appendix)."""
    x1, both, total = p1 * n1, p1 * n1 + p2 * n2, n1 + n2
    l3, l2 = total, (n2 + 2 * n1) * delta - total - both
    l1, l0 = (n1 * delta - total - 2 * x1) * delta + both, x1 * delta * (1 - delta)
    third = l2 / (3 * l3)
    q = third**3 - l1 * l2 / (6 * l3 * l3) + l0 / (2 * l3)
    p = copysign(sqrt(max(third * third - l1 / (3 * l3), 0.0)), q)
    angle = (pi + acos(min(1.0, max(-1.0, q / p**3)))) / 3 if p else 0.0
    return min(max(2 * p * cos(angle) - third, 0.0, -delta), 1.0, 1.0 - delta)


def two_means(change: float, se1: float, n1: float | None, se2: float, n2: float | None) -> TTest | None:
    """Welch's test of two means from their standard errors; of the normal law where a size is unknown. None if neither has any error."""
    variance = se1 * se1 + se2 * se2
    if not variance > 0:
        return None
    if n1 is None or n2 is None or n1 < 2 or n2 < 2:
        return TTest(change, sqrt(variance), 1e9)  # degrees of freedom unknown: the normal law to nine digits
    df = variance**2 / (se1**4 / (n1 - 1) + se2**4 / (n2 - 1))
    return TTest(change, sqrt(variance), df)
