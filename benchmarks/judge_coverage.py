"""Coverage of intervals for a judged rate corrected by a labelled subset: what ``aligntax.stats.judges`` chose by.

    python benchmarks/judge_coverage.py [--populations 500] [--processes 2] [--three 0]

Draws populations of 200-450 answers (people's rate .02-.98, sensitivity .1-.99, specificity .8-1), labels 50, 100 or 150 of each, and
computes the coverage of nominal 95 % exactly: over every count of labelled answers in either stratum and of positive labels in each. Then the
same (of the test at the true total; bisection may keep a little more) for XSTest's systems where ``$ALIGNTAX_SHARED`` (or the folder ``shared`` beside the checkout) holds them, beside 1,000 random subsets
through ``corrected_rate``'s own code. ``--three P`` simulates P populations of a judge with three classes.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from functools import lru_cache
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from scipy.special import betaln, gammaln

from aligntax.stats.judges import MOST, _log_likelihood, _total_interval
from aligntax.stats.paired import critical_value

SHARED = Path(os.environ.get("ALIGNTAX_SHARED", Path(__file__).parent.parent.parent / "shared"))
ALPHA = 0.05
METHODS = ("normal", "jeffreys", "melded", "two tails", "product")

Population = tuple[int, int, int, int, int]
"""Answers and positives where the judge says 1, the same where it says 0, labelled."""


def log_choose(n, k):
    return gammaln(n + 1.0) - gammaln(k + 1.0) - gammaln(n - k + 1.0)


def outcomes(size: int, positive: int, drawn: int, least: float = 1e-7) -> tuple[np.ndarray, np.ndarray]:
    """Labelled positives that are not too unlikely, and their probabilities."""
    hits = np.arange(max(0, drawn - size + positive), min(drawn, positive) + 1)
    p = np.exp(log_choose(positive, hits) + log_choose(size - positive, drawn - hits) - log_choose(size, drawn))
    return hits[p > least], p[p > least]


def subsets(population: Population) -> Iterator[tuple[float, list[tuple[int, int, int]]]]:
    """(probability, strata as (answers, positives, labelled)) of every number labelled in the first stratum; empty ones joined."""
    size1, positive1, size0, positive0, drawn = population
    for drawn1, p in zip(*outcomes(size1 + size0, size1, drawn, 1e-6), strict=True):
        drawn0 = drawn - int(drawn1)
        if drawn1 == 0 or drawn0 == 0:
            yield p, [(size1 + size0, positive1 + positive0, drawn), (0, 0, 0)]
        else:
            yield p, [(size1, positive1, int(drawn1)), (size0, positive0, drawn0)]


@lru_cache(maxsize=4096)
def beta_binomial(size: int, drawn: int, a: float, b: float) -> np.ndarray:
    """(drawn + 1, size + 1): probability of every total given every count of labelled positives, Beta(a, b) before it; a + b may be 1."""
    found, rest = np.zeros((drawn + 1, size + 1)), np.arange(size - drawn + 1)
    for y in range(drawn + 1):
        if y + a == 0 or drawn - y + b == 0:
            found[y, y if y + a == 0 else y + size - drawn] = 1.0
        else:
            p = np.exp(
                log_choose(size - drawn, rest) + betaln(rest + y + a, size - drawn - rest + drawn - y + b) - betaln(y + a, drawn - y + b)
            )
            found[y, y : y + size - drawn + 1] = p / p.sum()
    return found


def predicted(strata, hits, total: int, method: str) -> np.ndarray:
    """Whether the equal-tailed interval of the predicted total holds the true one, by labelled positives of both strata."""
    laws = []
    for (size, _, drawn), y in zip(strata, hits, strict=True):
        if method == "jeffreys":
            laws.append(beta_binomial(size, drawn, 0.5, 0.5)[y])
        else:  # half each of the distributions whose limits are Clopper and Pearson's
            laws.append((beta_binomial(size, drawn, 0, 1)[y] + beta_binomial(size, drawn, 1, 0)[y]) / 2 if drawn else np.ones((1, 1)))
    left = total - np.arange(laws[0].shape[1])
    inside = (left >= 0) & (left < laws[1].shape[1])
    point = np.where(inside, laws[1][:, np.clip(left, 0, laws[1].shape[1] - 1)], 0.0)
    below = np.where(left >= 0, np.cumsum(laws[1], axis=1)[:, np.clip(left, 0, laws[1].shape[1] - 1)], 0.0)
    at, upto = laws[0] @ point.T, laws[0] @ below.T
    return (upto > ALPHA / 2) & (upto - at < 1 - ALPHA / 2)


def normal(strata, hits, total: int) -> np.ndarray:
    estimate, variance = 0.0, 0.0
    for (size, _, drawn), y, shape in zip(strata, hits, ((-1, 1), (1, -1)), strict=True):
        if drawn:
            share = (y / drawn).reshape(shape)
            estimate, variance = estimate + size * share, variance + size**2 * (1 - drawn / size) * share * (1 - share) / max(drawn - 1, 1)
    return np.abs(estimate - total) <= critical_value(1 - ALPHA, None) * np.sqrt(variance) + 1e-9


def tested(strata, hits, total: int) -> tuple[np.ndarray, np.ndarray]:
    """(two tails, one distance): whether the true total is kept, by labelled positives of both strata."""
    (size1, _, drawn1), (size0, _, drawn0) = strata
    split = np.arange(max(0, total - size0), min(size1, total) + 1)
    law1 = np.array([_log_likelihood(size1, drawn1, y)[split] for y in range(drawn1 + 1)])
    law0 = np.array([_log_likelihood(size0, drawn0, y)[total - split] for y in range(drawn0 + 1)])
    likeliest = (law1[hits[0]][:, None, :] + law0[hits[1]][None, :, :]).argmax(axis=2)
    estimate = np.add.outer(size1 * np.arange(drawn1 + 1) / drawn1, size0 * np.arange(drawn0 + 1) / max(drawn0, 1))
    _, rank = np.unique(np.round(estimate, 7), return_inverse=True)
    _, distance = np.unique(np.round(np.abs(estimate - total), 7), return_inverse=True)
    at = np.ix_(*hits)
    rank_at, distance_at = rank.reshape(estimate.shape)[at], distance.reshape(estimate.shape)[at]
    tails, one = np.zeros(likeliest.shape, dtype=bool), np.zeros(likeliest.shape, dtype=bool)
    for k in np.unique(likeliest):
        here = likeliest == k
        p = np.multiply.outer(np.exp(law1[:, k]), np.exp(law0[:, k])).ravel()
        by_rank, by_distance = np.bincount(rank.ravel(), weights=p), np.bincount(distance.ravel(), weights=p)
        below = (np.cumsum(by_rank) - by_rank / 2)[rank_at[here]]
        tails[here] = (below > ALPHA / 2) & (below < 1 - ALPHA / 2)
        as_far = np.cumsum(by_distance[::-1])[::-1]
        one[here] = ((as_far - by_distance / 2 > ALPHA) | (as_far > MOST * ALPHA))[distance_at[here]]
    return tails, one


def coverage(population: Population) -> dict[str, float]:
    """Exact coverage by method; ``odd`` is how many odd answers may be expected among the labelled."""
    size1, positive1, size0, positive0, drawn = population
    total, held, mass = positive1 + positive0, dict.fromkeys(METHODS, 0.0), 0.0
    for p, strata in subsets(population):
        found = [outcomes(*one) for one in strata]
        hits, weight = (found[0][0], found[1][0]), p * np.multiply.outer(found[0][1], found[1][1])
        mass += weight.sum()
        tails, one = tested(strata, hits, total)
        kept = {
            "normal": normal(strata, hits, total),
            "jeffreys": predicted(strata, hits, total, "jeffreys"),
            "melded": predicted(strata, hits, total, "melded"),
            "two tails": tails,
            "product": one,
        }
        for name in METHODS:
            held[name] += float(weight[kept[name]].sum())
    odd = (min(positive1, size1 - positive1) + min(positive0, size0 - positive0)) * drawn / (size1 + size0)
    return {name: value / mass for name, value in held.items()} | {"odd": odd}


def drawn_population(rng: np.random.Generator) -> Population:
    n, rate = int(rng.integers(200, 451)), rng.choice([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98])
    sensitivity, specificity = rng.choice([0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99]), rng.choice([0.8, 0.9, 0.95, 0.98, 1.0])
    positive = int(rng.binomial(n, rate))
    seen, false = int(rng.binomial(positive, sensitivity)), int(rng.binomial(n - positive, 1 - specificity))
    return seen + false, seen, n - seen - false, positive - seen, int(rng.choice([50, 100, 150]))


def xstest() -> dict[str, tuple[int, int, int, int]]:
    found = {}
    for path in sorted((SHARED / "data" / "xstest").glob("*_streval.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for safety in ("safe", "unsafe"):
            chosen = [row for row in rows if row["type"].startswith("contrast") == (safety == "unsafe")]
            for refusal, labels in (("full", "2"), ("any", "23")):
                cells = [[0, 0], [0, 0]]
                for row in chosen:
                    cells[row["strmatch_label"][0] == "2"][row["final_label"][0] in labels] += 1
                name = f"{path.stem.removesuffix('_streval')} {safety} {refusal}"
                found[name] = (sum(cells[1]), cells[1][1], sum(cells[0]), cells[0][1])
    return found


def simulated(cells: list[tuple[int, int]], drawn: int, subsets: int, rng: np.random.Generator) -> float:
    """Share of random subsets whose interval, by the product's code, holds the rate; ``cells`` are (answers, positives) by stratum."""
    interval = lru_cache(maxsize=None)(lambda counts: _total_interval(list(counts), ALPHA))
    total, held = sum(positive for _, positive in cells), 0
    for _ in range(subsets):
        y = rng.multivariate_hypergeometric([c for size, positive in cells for c in (positive, size - positive)], drawn).reshape(-1, 2)
        counts = [(size, int(row.sum()), int(row[0])) for (size, _), row in zip(cells, y, strict=True)]
        merged: list[tuple[int, int, int]] = []
        for one in counts:  # a stratum without a label joins the one before it, or the one after it
            if merged and (one[1] == 0 or merged[-1][1] == 0):
                last = merged.pop()
                one = (last[0] + one[0], last[1] + one[1], last[2] + one[2])
            merged.append(one)
        low, high = interval(tuple(merged))
        held += low <= total <= high
    return held / subsets


def three_classes(population: int) -> tuple[float, float]:
    """(coverage, expected odd) of a judge that says no, partly or yes, over 500 subsets."""
    rng = np.random.default_rng(population)
    n, drawn = int(rng.integers(200, 451)), int(rng.choice([50, 100, 150]))
    people = rng.choice(3, n, p=rng.dirichlet([1, 0.5, 1]))
    confusion = np.array([rng.dirichlet(np.where(np.arange(3) == c, rng.choice([2, 10, 40]), 1.0)) for c in range(3)])
    judge = np.array([rng.choice(3, p=confusion[c]) for c in people])
    positive = people == 2 if rng.random() < 0.5 else people > 0
    cells = [(int((judge == c).sum()), int(positive[judge == c].sum())) for c in range(3) if (judge == c).any()]
    odd = sum(min(hits, size - hits) for size, hits in cells) * drawn / n
    return simulated(cells, drawn, 500, rng), odd


def line(name: str, values: np.ndarray) -> str:
    inside, above = (values >= 0.93) & (values <= 0.97), values > 0.97
    return f"{name:12} {values.min():7.3f} {np.median(values):7.3f} {inside.mean():9.1%} {(values < 0.93).mean():7.1%} {above.mean():7.1%}"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--populations", type=int, default=500)
    arguments.add_argument("--processes", type=int, default=2)
    arguments.add_argument("--three", type=int, default=0)
    given = arguments.parse_args()
    rng = np.random.default_rng(20)
    with Pool(given.processes) as pool:
        found = pool.map(coverage, [drawn_population(rng) for _ in range(given.populations)], chunksize=4)
        print(f"{given.populations} populations, exact coverage\n{'':12}  lowest  median  .93-.97   < .93   > .97")
        for name in METHODS:
            print(line(name, np.array([one[name] for one in found])))
        odd, ours = np.array([one["odd"] for one in found]), np.array([one["product"] for one in found])
        print("\nproduct, by odd answers expected among the labelled")
        for low, high in ((0, 0.5), (0.5, 1), (1, 2), (2, 3), (3, 5), (5, 10), (10, 1000)):
            here = (odd >= low) & (odd < high)
            if here.any():
                print(line(f"{low}-{high}", ours[here]), f"{ours[here].max():7.3f} of {here.sum()}")
        for name, cells in xstest().items():
            for drawn in (50, 100, 150):
                exact = coverage((*cells, drawn))
                seen = simulated([cells[:2], cells[2:]], drawn, 1000, rng)
                print(f"{name:28} {drawn:4} odd {exact['odd']:5.1f}", *(f"{exact[m]:7.3f}" for m in METHODS), f" 1,000 subsets {seen:.3f}")
        if given.three:
            three = np.array(pool.map(three_classes, range(given.three), chunksize=1))
            print(f"\n{given.three} populations of three classes, 500 subsets each\n{line('product', three[:, 0])}")
            print(line("3 odd and up", three[three[:, 1] >= 3, 0]))


if __name__ == "__main__":
    main()
