"""An entry's test, kept in its details and built again from them: what it says at another confidence, or of another loss."""

from __future__ import annotations

from aligntax.core.ledger import Detail, Entry
from aligntax.stats.paired import Inversion, ScoreTest, TTest
from aligntax.stats.unpaired import TwoProportions

_NORMAL = 1e8
"""Degrees of freedom from which a t law is the normal one, and not written down."""
_EXACT = 1e-7


def parameters(test: Inversion) -> dict[str, Detail]:
    """What ``inversion_of`` needs beside the entry's fields: effective counts of a score test, degrees of freedom of a t test."""
    df: dict[str, Detail] = {} if test.df is None or test.df >= _NORMAL else {"df": test.df}
    if isinstance(test, ScoreTest):
        scale: dict[str, Detail] = {} if test.scale == 1.0 else {"scale": test.scale}
        return {"effective_lost": test.lost, "effective_gained": test.gained, "effective_n": test.n, **scale, **df}
    return df


def inversion_of(entry: Entry) -> Inversion | None:
    """The test behind an entry's interval, in the direction of benefit (for a divergence, less is better).

    None where the entry has no interval, or one that its details do not reproduce (a ledger of another version).
    """
    if entry.change is None or entry.ci_low is None or entry.ci_high is None:
        return None
    sign = benefit(entry)
    df = entry.detail("df")
    lost, gained, n = (entry.detail(f"effective_{name}") for name in ("lost", "gained", "n"))
    n1, n2, p1, p2 = entry.detail("n_baseline"), entry.detail("n_candidate"), entry.baseline_value, entry.candidate_value
    tests: list[Inversion] = []
    if lost is not None and gained is not None and n is not None:
        tests.append(ScoreTest(lost, gained, n, df, entry.detail("scale") or 1.0))
    if n1 is not None and n2 is not None and p1 is not None and p2 is not None and entry.unit == "fraction":
        tests.append(TwoProportions(p1, n1, p2, n2) if sign > 0 else TwoProportions(1 - p1, n1, 1 - p2, n2))
    if entry.se:
        tests.append(TTest(sign * entry.change, entry.se, _NORMAL if df is None else df))
    limits = (entry.ci_low, entry.ci_high) if sign > 0 else (-entry.ci_high, -entry.ci_low)
    return next((test for test in tests if _same(test.interval(entry.level), limits)), None)


def benefit(entry: Entry) -> float:
    """1 where more is better, -1 where less is (as of a divergence, of which nobody wants more than there must be)."""
    return -1.0 if entry.higher_is_better is False or entry.kind == "divergence" else 1.0


def _same(one: tuple[float, float], other: tuple[float, float]) -> bool:
    width = max(other[1] - other[0], 1e-12)
    return all(abs(a - b) <= _EXACT * width + 1e-12 for a, b in zip(one, other, strict=True))
