"""Simulated studies: data with a known truth, put through the code as built.

Every function takes a generator and returns shares over its studies; ``STUDIES`` per setting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np

from aligntax.core.study import Analysis, Margin
from aligntax.flow.judge import MetricFacts, Pairing, Side, draft, judge
from aligntax.stats.average import mean_over_tasks
from aligntax.stats.paired import PairedChange, critical_value, noninferiority_p, p_value, paired_change
from aligntax.stats.verdict import verdict

STUDIES = 4000
FRACTION = MetricFacts("fraction", True, 1.0, True)
Rng = np.random.Generator


def covers(found: PairedChange, truth: float) -> bool:
    if found.test is None:
        return True  # no interval was given, so none is wrong
    low, high = found.test.interval(0.95)
    return low - 1e-12 <= truth <= high + 1e-12


# -- unclustered 0/1 ------------------------------------------------------------------------------------------------


@cache
def binary_result(lost: int, gained: int, n: int, truth: float, margin: float) -> tuple[bool, bool, str]:
    """(covers, rejects no change, verdict) for these counts."""
    d = np.concatenate([np.full(lost, -1.0), np.full(gained, 1.0), np.zeros(n - lost - gained)])
    found = paired_change(d, binary=True)
    assert found.test is not None
    p, ni = p_value(found.test), noninferiority_p(found.test, margin)
    return covers(found, truth), p < 0.05, verdict(found.change, p, ni, df=None, level=0.95)


def binary(rng: Rng, n: int, discordant: float, change: float, margin: float = 0.01, studies: int = STUDIES) -> dict[str, float]:
    p_lost, p_gained = (discordant - change) / 2, (discordant + change) / 2
    counts = rng.multinomial(n, [p_lost, p_gained, 1 - discordant], size=studies)
    found = [binary_result(int(lost), int(gained), n, change, margin) for lost, gained, _ in counts]
    said = [v for *_, v in found]
    return {
        "covers": float(np.mean([f[0] for f in found])),
        "rejects": float(np.mean([f[1] for f in found])),
        **{name: said.count(name) / studies for name in ("tax", "gain", "no_tax", "undetermined")},
    }


# -- clusters -------------------------------------------------------------------------------------------------------


def cluster_sizes(kind: str, count: int, n: int, rng: Rng) -> np.ndarray:
    """Sizes that add up to n, at least one each: equal, lognormal (sigma 1) or Zipf (exponent 1)."""
    weights = {"equal": np.ones(count), "lognormal": rng.lognormal(0, 1, count), "zipf": 1 / np.arange(1, count + 1)}[kind]
    sizes = np.maximum(1, np.floor(weights / weights.sum() * n)).astype(int)
    while sizes.sum() != n:
        sizes[int(np.argmax(sizes))] += int(np.sign(n - sizes.sum()))
    return sizes


def clustered_flips(rng: Rng, sizes: np.ndarray, discordant: float, change: float, icc: float) -> np.ndarray:
    """(n,) differences; cluster probabilities are Dirichlet, so that the ICC of d is exactly ``icc``."""
    p = np.array([(discordant - change) / 2, (discordant + change) / 2, 1 - discordant])
    if icc == 0:
        per_cluster = np.tile(p, (len(sizes), 1))
    else:
        concentration = np.where(p > 0, p * (1 - icc) / icc, 0)
        per_cluster = np.zeros((len(sizes), 3))
        per_cluster[:, p > 0] = rng.dirichlet(concentration[p > 0], size=len(sizes))
    values = np.array([-1.0, 1.0, 0.0])
    u = rng.random(int(sizes.sum()))
    first = np.repeat(per_cluster[:, 0], sizes)
    second = first + np.repeat(per_cluster[:, 1], sizes)
    return values[(u > first).astype(np.int64) + (u > second)]


def clustered(
    rng: Rng, n: int, count: int, kind: str, icc: float, discordant: float, change: float, studies: int = STUDIES
) -> dict[str, float]:
    """Coverage of the default, of CR1 with t(G-1), of CR2 with t(df_BM), and of independent items (Tango)."""
    tally = dict.fromkeys(("covers", "rejects", "cr1", "cr2", "items", "tax", "no_tax", "df"), 0.0)
    for _ in range(studies):
        sizes = cluster_sizes(kind, count, n, rng)
        codes = np.repeat(np.arange(count), sizes)
        d = clustered_flips(rng, sizes, discordant, change, icc)
        found = paired_change(d, codes, binary=True)
        tally["covers"] += covers(found, change)
        if found.test is None:
            continue
        p, ni = p_value(found.test), noninferiority_p(found.test, 0.01)
        tally["rejects"] += p < 0.05
        said = verdict(found.change, p, ni, df=found.df, level=0.95)
        if said in tally:
            tally[said] += 1
        tally["df"] += found.df or 0
        facts = found.clusters
        if facts is None:
            continue
        tally["cr1"] += abs(found.change - change) <= critical_value(0.95, count - 1) * np.sqrt(facts.variance_cr1) + 1e-12
        tally["cr2"] += abs(found.change - change) <= critical_value(0.95, facts.df) * np.sqrt(facts.variance_cr2) + 1e-12
        tally["items"] += binary_result(int((d < 0).sum()), int((d > 0).sum()), n, change, 0.01)[0]
    return {key: value / studies for key, value in tally.items()}


def odd_source(rng: Rng, count: int, kind: str, studies: int = STUDIES) -> dict[str, float]:
    """Each source falls by 30 points with probability .1 (n 1000, other items flip at .1, balanced): coverage of -.03."""
    hits = 0
    for _ in range(studies):
        sizes = cluster_sizes(kind, count, 1000, rng)
        odd = rng.random(count) < 0.1
        p_lost = np.repeat(np.where(odd, 0.35, 0.05), sizes)
        u = rng.random(1000)
        d = np.where(u < p_lost, -1.0, np.where(u > 0.95, 1.0, 0.0))
        hits += covers(paired_change(d, np.repeat(np.arange(count), sizes), binary=True), -0.03)
    return {"covers": hits / studies}


# -- graded, real-valued, trials --------------------------------------------------------------------------------------

DRAWS: dict[str, tuple[Callable[[Rng, int], np.ndarray], float, float | None]] = {
    "normal": (lambda rng, n: rng.normal(size=n), 0.0, None),
    "t3": (lambda rng, n: rng.standard_t(3, size=n), 0.0, None),
    "lognormal": (lambda rng, n: rng.lognormal(0, 1, size=n), float(np.exp(0.5)), None),
    "graded, 15 % non-zero": (lambda rng, n: rng.uniform(-1, 1, n) * (rng.random(n) < 0.15), 0.0, 1.0),
    "graded, 3.5 % non-zero": (lambda rng, n: rng.uniform(-1, 0.5, n) * (rng.random(n) < 0.035), -0.25 * 0.035, 1.0),
}


def drawn(rng: Rng, name: str, n: int, studies: int = STUDIES) -> dict[str, float]:
    """Coverage of the method chosen (t, or the score test for graded scores), and of t beside it."""
    draw, truth, scale = DRAWS[name]
    hits = t_hits = 0
    for _ in range(studies):
        d = draw(rng, n)
        hits += covers(paired_change(d, binary=False, scale=scale), truth)
        t = paired_change(d, binary=False, scale=None)
        t_hits += t.test is not None and covers(t, truth)
    return {"covers": hits / studies, "t": t_hits / studies}


def trials(rng: Rng, n: int, k: int, share: float, drop: float, studies: int = STUDIES) -> dict[str, float]:
    """K trials of items with p ~ Beta(2, 1); a share of them falls by ``drop``: coverage of the mean change, and of t."""
    hits = t_hits = 0
    for _ in range(studies):
        p = rng.beta(2, 1, n)
        moved = rng.random(n) < share
        q = np.where(moved, np.maximum(p - drop, 0), p)
        # Items outside the moved ones answer the same in both arms: changes are rare, as between stages.
        base = rng.binomial(k, p) / k
        candidate = np.where(moved, rng.binomial(k, q) / k, base)
        truth = -share * expected_drop(drop)
        d = candidate - base
        hits += covers(paired_change(d, binary=False, trials=True), truth)
        t = paired_change(d, binary=False, scale=None)
        t_hits += t.test is not None and covers(t, truth)
    return {"covers": hits / studies, "t": t_hits / studies}


@cache
def expected_drop(drop: float) -> float:
    """E[min(p, drop)] for p ~ Beta(2, 1), whose density is 2p."""
    return 2 * drop**3 / 3 + drop * (1 - drop**2)


# -- verdicts through the flow ----------------------------------------------------------------------------------------


def side(scores: np.ndarray) -> Side:
    ones, nothing = np.ones(len(scores)), np.zeros(len(scores))
    return Side(scores, ones, np.full(len(scores), np.nan), nothing, scores)


def entries(parts: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray | None]], margin: float) -> list[str | None]:
    """Verdicts of one family of comparisons, by ``flow.judge`` as a diff makes them."""
    analysis = Analysis(margin=Margin(value=margin))
    drafts = [
        draft(
            Pairing("performance", f"t{i}", "accuracy", "base", "candidate", FRACTION, side(b), side(c), codes, "source", {}, ("family",)),
            analysis,
        )
        for i, (b, c, codes) in enumerate(parts)
    ]
    return [entry.verdict for entry in judge(drafts, analysis)]


def two_copies(rng: Rng, sizes: list[int], agreement: float, change: float = 0.0, studies: int = STUDIES) -> dict[str, float]:
    """Two noisy copies of one model on several subgroups (or a candidate worse by ``change`` everywhere).

    Returns shares of studies in which any subgroup is called tax, gain or no_tax.
    """
    tally = dict.fromkeys(("any tax", "any gain", "any no_tax"), 0.0)
    for _ in range(studies):
        parts = []
        for n in sizes:
            base = (rng.random(n) < 0.6).astype(float)
            u = rng.random(n)
            d_lost, d_gained = (agreement - change) / 2, (agreement + change) / 2
            candidate = np.where(base == 1, u >= d_lost / 0.6, u < d_gained / 0.4).astype(float)
            parts.append((base, candidate, None))
        said = entries(parts, 0.01)
        for name in tally:
            tally[name] += name.removeprefix("any ") in said
    return {key: value / studies for key, value in tally.items()}


def averaged(rng: Rng, sizes: list[int], discordant: float, change: float, icc: float = 0.0, studies: int = STUDIES) -> dict[str, float]:
    """Coverage and size of the mean over tasks of unequal size, each task moving by ``change``."""
    hit = reject = 0
    for _ in range(studies):
        parts = []
        for n in sizes:
            groups = cluster_sizes("equal", max(2, n // 10), n, rng)
            d = clustered_flips(rng, groups, discordant, change, icc)
            parts.append(paired_change(d, np.repeat(np.arange(len(groups)), groups) if icc else None, binary=True))
        found = mean_over_tasks(parts)
        hit += covers(found, change)
        reject += found.test is not None and p_value(found.test) < 0.05
    return {"covers": hit / studies, "rejects": reject / studies}


def uneven_average(
    rng: Rng, large: int, count: int, small: int, rate: float, small_rate: float, studies: int = STUDIES
) -> dict[str, float]:
    """``count`` large tasks flip at ``rate`` both ways alike, one small task only loses, at ``small_rate``: the mean over tasks."""
    hit = no_tax = 0
    truth = -small_rate / (count + 1)
    for _ in range(studies):
        parts = [flips_to_change(rng, large, rate / 2, rate / 2) for _ in range(count)] + [flips_to_change(rng, small, small_rate, 0.0)]
        found = mean_over_tasks(parts)
        hit += covers(found, truth)
        assert found.test is not None
        no_tax += verdict(found.change, p_value(found.test), noninferiority_p(found.test, -truth), df=None, level=0.95) == "no_tax"
    return {"covers": hit / studies, "no_tax": no_tax / studies}


def flips_to_change(rng: Rng, n: int, p_lost: float, p_gained: float) -> PairedChange:
    lost, gained, _ = (int(k) for k in rng.multinomial(n, [p_lost, p_gained, 1 - p_lost - p_gained]))
    return counted(lost, gained, n)


@cache
def counted(lost: int, gained: int, n: int) -> PairedChange:
    return paired_change(np.concatenate([np.full(lost, -1.0), np.full(gained, 1.0), np.zeros(n - lost - gained)]), binary=True)


def describe(rows: list[dict[str, Any]]) -> str:
    """A Markdown table."""
    keys = list(rows[0])
    lines = ["| " + " | ".join(keys) + " |", "|" + "|".join("---" for _ in keys) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()) + " |")
    return "\n".join(lines)
