"""Fieller's interval for the share retained: known answers, and a simulation that it covers."""

from __future__ import annotations

import numpy as np
import pytest

from aligntax.stats.paired import critical_value
from aligntax.stats.ratio import ratio_interval


def test_ends_are_the_ratios_at_which_t_is_critical() -> None:
    """By definition: at both ends t of c - r b is the critical value, with n - 1 degrees of freedom."""
    rng = np.random.default_rng(1)
    b = rng.uniform(0.2, 1.0, 50)
    c = 0.8 * b + rng.normal(0, 0.1, 50)
    share, interval = ratio_interval(c, b, None, level=0.95)
    assert share == pytest.approx(c.mean() / b.mean())
    assert interval is not None
    for r in interval:
        d = c - r * b
        assert abs(d.mean()) / (d.std(ddof=1) / np.sqrt(50)) == pytest.approx(critical_value(0.95, 49.0), rel=1e-9)


def test_a_floor_is_taken_off_both() -> None:
    rng = np.random.default_rng(2)
    b, c = rng.uniform(0.5, 1.0, 40), rng.uniform(0.4, 0.9, 40)
    shifted, floored = ratio_interval(c - 0.25, b - 0.25, None, level=0.9), ratio_interval(c, b, None, level=0.9, floor=0.25)
    assert shifted[0] == pytest.approx(floored[0])
    assert shifted[1] == pytest.approx(floored[1])


def test_no_interval_where_the_baseline_may_be_the_floor_or_nothing_is_known_of_errors() -> None:
    rng = np.random.default_rng(3)
    b, c = rng.normal(0.02, 1.0, 30), rng.normal(1.0, 1.0, 30)
    assert ratio_interval(c, b, None, level=0.95)[1] is None
    one = np.array([0.5])
    assert ratio_interval(one, one, None, level=0.95) == (1.0, None)
    assert ratio_interval(np.ones(4), np.full(4, 0.5), np.zeros(4, dtype=np.int64), level=0.95) == (2.0, None)
    with pytest.raises(ValueError, match="nothing to retain"):
        ratio_interval(one, one, None, level=0.95, floor=0.5)


@pytest.mark.parametrize("clustered", [False, True])
def test_it_covers(clustered: bool) -> None:
    """0/1 answers of a base with .6 and an aligned model with .5, retained .8333, 60 sources of 5 items where clustered; 600 studies."""
    rng = np.random.default_rng(4)
    groups, size, hits = 60, 5, 0
    codes = np.repeat(np.arange(groups), size)
    for _ in range(600):
        ease = np.clip(rng.normal(0, 0.25 if clustered else 0.0, groups), -0.35, 0.35)[codes]
        u = rng.random(groups * size)
        b = (u < 0.6 + ease).astype(np.float64)
        c = np.where(rng.random(len(u)) < 0.8, u, rng.random(len(u)))
        c = (c < 0.5 + ease).astype(np.float64)
        _, interval = ratio_interval(c, b, codes if clustered else None, level=0.95)
        assert interval is not None
        hits += interval[0] <= 5 / 6 <= interval[1]
    assert 0.925 <= hits / 600 <= 0.975
