"""Simulation of the estimators of the geometry (slow): bias, coverage and level, against docs/validation.md's statements.

``make validate`` runs this and appends the tables to ``build/validation.md``. Data are those of the studies that stand with each estimator's
tests (tests/stats). Beside every estimator stands what one would compute without it, the naive one, with the interval that is usually made:
unless said otherwise percentiles of ``RESAMPLES`` bootstrap samples of prompts, in ``NAIVE`` studies of the same law.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import pytest
from scipy import linalg, stats

from aligntax.stats.clusters import FloatArray
from aligntax.stats.directions import tax_rate
from aligntax.stats.readouts import out_of_fold, readout_tax
from aligntax.stats.widths import fit_widths, packing_variance
from tests.stats import test_directions as directions
from tests.stats import test_overlap_nulls as overlap_nulls
from tests.stats import test_phases as phases
from tests.stats import test_predictors as predictors
from tests.stats import test_readouts as readouts
from tests.stats import test_subspaces as subspaces
from tests.stats import test_widths as widths
from tests.validation.test_validation import STUDIES, Z, write

pytestmark = pytest.mark.slow

Rng = np.random.Generator
Row = dict[str, Any]
NAIVE = 200
RESAMPLES = 199
LEAST = 0.9  # coverage that is claimed wherever a rate is identified, nominal .95


def slack(p: float, n: float) -> float:
    return float(Z * np.sqrt(p * (1 - p) / n))


def one(job: tuple[Callable[..., Row], Row, int]) -> Row:
    study, cell, count = job
    seed = zlib.crc32(repr((study.__name__, sorted(cell.items()))).encode())
    return {**cell, **study(np.random.default_rng(seed), **cell, studies=count)}


def run(study: Callable[..., Row], cells: list[Row], count: int) -> list[Row]:
    """A row per cell: its settings, and what ``study`` finds there in at most ``count`` studies."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, [(study, cell, min(count, STUDIES)) for cell in cells]))


# -- what is done without the estimators ------------------------------------------------------------------------------


def between(values: FloatArray, truth: float) -> bool:
    """Whether the truth lies between the 2.5th and the 97.5th percentile."""
    low, high = np.quantile(values, (0.025, 0.975))
    return bool(low <= truth <= high)


def weights(rng: Rng, n: int) -> FloatArray:
    """(RESAMPLES, n) shares of each row in bootstrap samples."""
    return rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def means(rng: Rng, rows: FloatArray) -> FloatArray:
    """(RESAMPLES, d) means of bootstrap samples."""
    return np.asarray(weights(rng, len(rows)) @ rows)


def naive_rate_covers(rng: Rng, d: int, m: int, n: int, tau: float, kappa: float, templates: int = 0) -> bool:
    """The naive tax rate with rows taken as independent."""
    x, y, basis, _ = directions.two_classes(rng, d, m, n, tau, kappa, templates)
    shift = means(rng, x) - means(rng, y)
    return between(np.sum((shift @ np.linalg.qr(basis)[0]) ** 2, axis=1) / np.sum(shift**2, axis=1), tau)


def naive_cross_covers(rng: Rng, d: int, m: int, n: int, tau: float, reliabilities: tuple[float, float]) -> bool:
    """The naive tax rate with safety and capability directions resampled, each from its own prompts."""
    safety, capabilities, _, _ = directions.estimated(rng, d, m, n, tau, reliabilities)
    assert safety.negative is not None
    shift = means(rng, np.asarray(safety.positive)) - means(rng, np.asarray(safety.negative))
    c = np.stack([means(rng, np.asarray(s.positive)) for s in capabilities], axis=1)
    b = np.einsum("rmd,rd->rm", c, shift)
    inside = np.einsum("rm,rm->r", b, np.linalg.solve(c @ c.transpose(0, 2, 1), b[:, :, None])[:, :, 0])
    return between(inside / np.sum(shift**2, axis=1), tau)


def naive_r2_covers(rng: Rng, n: int, m: int, r2: float, groups: int | None, icc: float) -> bool:
    """The R^2 as it stands with inputs taken as independent."""
    s, c = readouts.correlated(rng, n, m, r2, groups, icc)
    table = np.column_stack([s, c])
    w = weights(rng, n)
    mean = w @ table
    second = (w @ (table[:, :, None] * table[:, None, :]).reshape(n, -1)).reshape(len(w), m + 1, m + 1)
    v = second - mean[:, :, None] * mean[:, None, :]
    explained = np.einsum("rm,rm->r", v[:, 0, 1:], np.linalg.solve(v[:, 1:, 1:], v[:, 1:, :1])[:, :, 0])
    return between(explained / v[:, 0, 0], r2)


def naive_mean_covers(rng: Rng, n: int, signal: float, mean: float) -> bool:
    """The mean squared cosine of the subspaces as estimated."""
    x, y = subspaces.drawn(rng, 128, 3, 5, n, mean, signal)
    spans = [
        [linalg.eigh((rows.T * w) @ rows, subset_by_index=(128 - size, 127))[1] for w in weights(rng, n)] for rows, size in ((x, 3), (y, 5))
    ]
    return between(np.array([np.sum((v.T @ c) ** 2) / 3 for v, c in zip(*spans, strict=True)]), mean)


def naive_share(covers: Callable[..., bool], rng: Rng, **cell: Any) -> float:
    return float(np.mean([covers(rng, **cell) for _ in range(min(NAIVE, STUDIES))]))


# -- E1: a basis from other data --------------------------------------------------------------------------------------


def rates(rng: Rng, d: int, m: int, n: int, kappa: float, tau: float, studies: int) -> Row:
    found = directions.rate_summary(directions.rate_study(rng, d, m, n, tau, kappa, studies), tau)
    naive = naive_share(naive_rate_covers, rng, d=d, m=m, n=n, tau=tau, kappa=kappa)
    kept = {key: found.get(key, "") for key in ("identified", "mean", "sd", "covers", "above", "jackknife t", "fieller, all")}
    return {"naive": found["naive"], "naive covers": naive, **kept}


def test_rates() -> None:
    sizes = ((64, 1, 64, 0.25), (64, 8, 32, 0.25), (256, 8, 128, 0.25), (512, 16, 128, 0.25), (512, 16, 128, 0.8))
    cells = [{"d": d, "m": m, "n": n, "kappa": k, "tau": t} for (d, m, n, k), t in product(sizes, (0.0, 0.05, 0.2, 0.5))]
    rows = run(rates, cells, 800)
    write("E1: tax rate, basis from other data", "800 studies a cell.", rows)
    for r in rows:
        told = min(800, STUDIES) * r["identified"]
        assert r["identified"] > 0.85, r
        assert r["mean"] == pytest.approx(r["tau"], abs=Z * r["sd"] / np.sqrt(told) + 0.003), r
        assert r["covers"] >= LEAST, r
        assert r["above"] <= 0.075 + slack(0.05, told), r
        assert r["fieller, all"] >= 0.9 - slack(0.9, told), r
        if r["tau"] >= 0.2:
            assert r["naive"] < r["tau"] * 0.99, r
    # The naive rate is off wherever the rate is not that of noise, and its interval does not know.
    assert all(r["naive covers"] < 0.75 for r in rows if r["tau"] in (0.0, 0.5))
    assert np.mean([r["naive covers"] for r in rows]) < 0.5


def test_rates_that_are_not_identified() -> None:
    cells = [{"d": d, "m": m, "n": 32, "kappa": k, "tau": t} for (d, m), k, t in product(((64, 8), (512, 16)), (1.0, 2.0, 6.0), (0.0, 0.5))]
    rows = [{k: v for k, v in r.items() if k not in ("above", "jackknife t")} for r in run(rates, cells, 500)]
    write("E1 with too few prompts", "500 studies a cell; reliability 1/(1 + kappa), .5 and below.", rows)
    for r in rows:
        assert r["identified"] <= (0.5 if r["kappa"] == 1 else 0.02), r
        assert r["fieller, all"] >= 0.95, r


def grouped_rates(rng: Rng, templates: int, tau: float, studies: int) -> Row:
    found = directions.rate_study(rng, 64, 8, 200, tau, 0.05, studies, templates)
    row = directions.rate_summary(found, tau)
    apart = [u.low <= tau <= u.high for _, u in found if u.low is not None and u.high is not None]
    naive = naive_share(naive_rate_covers, rng, d=64, m=8, n=200, tau=tau, kappa=0.05, templates=templates)
    kept = {key: row[key] for key in ("identified", "mean", "sd", "covers", "above")}
    return {
        "naive": row["naive"],
        "naive covers": naive,
        "not told": row["groups not told"],
        "not told covers": float(np.mean(apart)),
        **kept,
    }


def test_rates_of_templates() -> None:
    rows = run(grouped_rates, [{"templates": t, "tau": tau} for t, tau in product((10, 16, 40), (0.0, 0.2, 0.5))], 500)
    write(
        "E1 with templates",
        "500 studies a cell, 200 prompts per class of so many templates, d 64, m 8; templates carry half of the variance.",
        rows,
    )
    for r in rows:
        assert r["mean"] == pytest.approx(r["tau"], abs=Z * r["sd"] / np.sqrt(min(500, STUDIES)) + 0.003), r
        assert r["covers"] >= LEAST, r
        assert r["not told covers"] < r["covers"], r
        if r["templates"] == 10:
            assert r["not told covers"] < 0.85, r
        if r["tau"] != 0.2:  # near .2 the pull of the templates and that of the noise happen to cancel
            assert r["naive covers"] < 0.8, r


# -- E2: all directions estimated -------------------------------------------------------------------------------------


def cross(rng: Rng, d: int, m: int, n: int, reliabilities: tuple[float, float], tau: float, studies: int) -> Row:
    count = studies if d < 512 else studies // 2
    found = directions.cross_summary(directions.cross_study(rng, d, m, n, tau, reliabilities, count), tau)
    naive = naive_share(naive_cross_covers, rng, d=d, m=m, n=n, tau=tau, reliabilities=reliabilities)
    kept = {key: found[key] for key in ("identified", "mean", "median", "sd", "covers", "above", "jackknife t", "cosine")}
    return {"naive": found["naive"], "naive covers": naive, **kept}


def test_cross_fits() -> None:
    cells = [
        {"d": d, "m": m, "n": n, "reliabilities": r, "tau": t}
        for (d, m, n), r, t in product(
            ((64, 1, 64), (64, 8, 64), (256, 8, 32), (512, 16, 128)), ((0.67, 0.75), (0.82, 0.82)), (0.0, 0.1, 0.4)
        )
    ]
    rows = run(cross, cells, 500)
    write(
        "E2: tax rate, all directions estimated",
        "500 studies a cell, 250 with 512 dimensions; reliabilities of safety and capabilities.",
        rows,
    )
    for r in rows:
        assert r["median"] == pytest.approx(r["tau"], abs=0.04), r
        assert r["mean"] == pytest.approx(r["tau"], abs=0.06 if r["d"] == 64 else 0.02), r
        assert r["covers"] >= LEAST, r
        assert r["cosine"] >= LEAST - slack(0.9, 250), r
        if r["tau"] == 0.4:
            assert r["naive"] < 0.33, r
            assert r["naive covers"] < 0.75, r
    assert np.mean([r["naive covers"] for r in rows]) < 0.4


def partial(rng: Rng, studies: int) -> Row:
    hits, estimates = directions.partial_study(rng, studies)
    return {"true": 0.5, "mean": float(np.mean(estimates)), "sd": float(np.std(estimates)), "covers": float(np.mean(hits))}


def test_partial_cosines() -> None:
    (row,) = run(partial, [{}], 1000)
    write("E2: partial cosine", "1,000 studies; cosine of two safety directions -.1, given three capabilities +.5.", [row])
    assert row["mean"] == pytest.approx(0.5, abs=0.015)
    assert row["covers"] >= LEAST


# -- E3: over inputs --------------------------------------------------------------------------------------------------


def explained(rng: Rng, n: int, m: int, groups: int | None, icc: float, r2: float, studies: int) -> Row:
    found = readouts.readout_study(rng, n, m, r2, studies, groups, icc)
    naive = naive_share(naive_r2_covers, rng, n=n, m=m, r2=r2, groups=groups, icc=icc)
    return {"raw": found.pop("raw"), "raw covers": naive, **found}


def test_readouts() -> None:
    cells = [
        {"n": n, "m": m, "groups": g, "icc": icc, "r2": r2}
        for (n, m, g, icc), r2 in product(
            ((200, 1, None, 0.0), (200, 16, None, 0.0), (200, 50, None, 0.0), (400, 5, 40, 0.3), (400, 5, 16, 0.3), (400, 16, 40, 0.8)),
            (0.0, 0.2, 0.6),
        )
    ]
    rows = run(explained, cells, 1000)
    write("E3: R^2 over inputs", "1,000 studies a cell.", rows)
    for r in rows:
        assert r["estimate"] == pytest.approx(r["r2"], abs=0.035 if r["icc"] == 0.8 else 0.01), r
        assert r["covers"] >= LEAST, r
        if r["r2"] == 0:
            # By blocks of few groups Hotelling's test is careful.
            assert r["rejects"] <= 0.05 + slack(0.05, min(1000, STUDIES)), r
            assert r["raw covers"] < 0.2, r
        if r["m"] >= 16 and r["r2"] < 0.5:
            assert r["raw covers"] < 0.75, r


def labels(rng: Rng, power: float, tau: float, studies: int) -> Row:
    found = readouts.label_summary(readouts.label_study(rng, 300, 64, 4, tau, power, studies), tau)
    hits = []
    for _ in range(min(50, studies)):
        x, s, c = readouts.labelled(rng, 300, 64, 4, tau, power)
        once = out_of_fold(x, np.column_stack([s, c]), rng).values
        naive = readout_tax(once[:, 0], once[:, 1:])
        hits.append(naive.low <= tau <= naive.high)
    return {"naive": found.pop("naive"), "naive covers": float(np.mean(hits)), **found}


def test_readouts_of_labels() -> None:
    rows = run(labels, [{"power": p, "tau": t} for p, t in product((0.0, 1.0), (0.0, 0.3, 0.7))], 100)
    write(
        "E3: readouts fitted to labels",
        "100 studies a cell, 300 inputs, 64 dimensions with eigenvalues j^-power, 4 capabilities; naive: R^2 of readouts by one fit and its own "
        "limits, 50 studies.",
        rows,
    )
    for r in rows:
        assert r["identified"] >= 0.7, r
        assert r["mean"] == pytest.approx(r["tau"], abs=0.05), r
        assert r["covers"] >= LEAST, r
        if r["tau"] == 0.7:
            assert r["naive"] < 0.6, r
            assert r["naive covers"] < 0.6, r


# -- E4: phases -------------------------------------------------------------------------------------------------------


def angles(rng: Rng, studies: int) -> Row:
    """At one budget; in degrees."""
    errors, found = (np.array(x) for x in phases.angle_study(rng, studies))
    off = np.rad2deg(found - phases.ANGLE)
    covered = np.abs(found - phases.ANGLE) <= stats.t.ppf(0.975, 24 - 5) * errors
    return {
        "true": 68,
        "mean": 68 + float(off.mean()),
        "sd": float(off.std()),
        "mean se": float(np.rad2deg(errors.mean())),
        "covers": float(np.mean(covered)),
    }


def prompts(rng: Rng, studies: int) -> Row:
    row = phases.prompt_study(rng, studies)
    return {"covers": row["by prompt"], "means over prompts cover": row["means"]}


def test_phases() -> None:
    (angle,) = run(angles, [{}], 4000)
    (by_prompt,) = run(prompts, [{}], 2000)
    write(
        "E4: behavioural angle",
        "4,000 sweeps of 24 phases, errors .05, amplitudes 2 and .7, in degrees; the theory's error is 1.25.",
        [angle],
    )
    write("E4: prompts that respond in directions of their own", "2,000 sweeps of 40 prompts.", [by_prompt])
    assert angle["mean"] == pytest.approx(68, abs=Z * 1.25 / np.sqrt(min(4000, STUDIES)))
    assert angle["sd"] == pytest.approx(1.25, abs=0.05)
    assert angle["mean se"] == pytest.approx(1.25, abs=0.03)
    assert angle["covers"] == pytest.approx(0.95, abs=slack(0.95, min(4000, STUDIES)))
    assert by_prompt["covers"] >= 0.93
    assert by_prompt["means over prompts cover"] < 0.5


# -- E5: widths -------------------------------------------------------------------------------------------------------


def laws(rng: Rng, count: int, tau0: float, studies: int) -> Row:
    found = widths.law_summary(widths.law_study(rng, np.geomspace(64, 4096, count), tau0, studies), tau0)
    return {"mean": found.pop("tau0"), **found}


def width_rates(rng: Rng, d: int, tau0: float) -> tuple[float, float, float]:
    """Estimate, its variance and the naive rate at the width d: 64 prompts per class, one intrinsic and 8 incidental directions, kappa .25."""
    v = rng.normal(size=d)
    v[0] = 0
    v = np.sqrt(1 - tau0) * v / np.linalg.norm(v)
    v[0] = np.sqrt(tau0)
    x, y = rng.normal(size=(2, 64, d)) / np.sqrt(d)
    found = tax_rate(x + v * np.sqrt(2 / 64 / 0.25), y, np.eye(d)[:, :9])
    assert found.estimate is not None
    assert found.se is not None
    return found.estimate, found.se**2 + float(packing_variance(d, tau0, 8, 1)), found.naive


def laws_from_states(rng: Rng, tau0: float, studies: int) -> Row:
    """The packing law fitted to estimated rates, and to naive ones with the same variances."""
    sizes = np.array([128.0, 256, 512, 1024, 2048])
    found = []
    for _ in range(studies):
        estimates, variances, naive = zip(*(width_rates(rng, int(d), tau0) for d in sizes), strict=True)
        for fitted in (estimates, naive):
            fit = fit_widths(sizes, fitted, variances).fits["packing"]
            assert fit.tau0_interval is not None
            found.append((fit.tau0, fit.tau0_interval[0] <= tau0 <= fit.tau0_interval[1]))
    (mean, covers), (naive_mean, naive_covers) = np.mean(np.array(found, dtype=np.float64).reshape(studies, 2, 2), axis=0).tolist()
    return {"naive": naive_mean, "naive covers": naive_covers, "mean": mean, "covers": covers}


def test_widths() -> None:
    rows = run(laws, [{"count": k, "tau0": t} for k, t in product((5, 7, 10), (0.0, 0.12, 0.3))], 2000)
    write(
        "E5: laws over widths",
        "2,000 studies a cell, `count` widths from 64 to 4,096, rates drawn from the exact law, 8 incidental directions.",
        rows,
    )
    for r in rows:
        assert r["mean"] == pytest.approx(r["tau0"], abs=0.0003), r
        assert r["covers tau0"] >= 0.93, r
        assert r["covers kappa"] >= 0.93, r
        assert r["power preferred"] <= 0.05, r
        assert r["constant preferred"] <= 0.05, r
    rows = run(laws_from_states, [{"tau0": t} for t in (0.0, 0.12, 0.3)], 300)
    write(
        "E5: tau0 from states",
        "300 studies a cell, five widths from 128 to 2,048, 64 prompts per class, kappa .25; naive: rates without correction.",
        rows,
    )
    for r in rows:
        assert r["mean"] == pytest.approx(r["tau0"], abs=0.005), r
        assert r["covers"] >= LEAST, r
        if r["tau0"] > 0:
            assert r["naive"] < 0.85 * r["tau0"], r
            assert r["naive covers"] < 0.5, r


# -- E6: nulls --------------------------------------------------------------------------------------------------------


def levels(rng: Rng, n: int, d: int, studies: int) -> Row:
    return overlap_nulls.level_study(rng, studies, n, d)


def test_nulls() -> None:
    rows = run(levels, [{"n": n, "d": d} for n, d in ((40, 60), (200, 60), (60, 400))], 2000)
    write("E6: nulls", "2,000 studies a cell; share with p at most .05 where nothing is there but anisotropic states.", rows)
    for r in rows:
        assert r["N1"] > 0.3, r
        for name in ("N3 signal", "N3 rate", "N4", "N5"):
            assert r[name] == pytest.approx(0.05, abs=slack(0.05, min(2000, STUDIES))), (name, r)
        assert 0.05 - slack(0.05, min(2000, STUDIES)) <= r["N2"] <= 0.055 + slack(0.055, min(2000, STUDIES)), r


# -- E7: subspaces ----------------------------------------------------------------------------------------------------


def overlaps(rng: Rng, n: int, signal: float, mean: float, studies: int) -> Row:
    found = subspaces.subspace_summary(
        subspaces.subspace_study(rng, 128, 3, 5, n, mean, signal, studies if n < 200 else studies // 2), mean
    )
    naive = float(np.mean([naive_mean_covers(rng, n, signal, mean) for _ in range(min(30, studies))]))
    return {
        "true mean": mean,
        "naive": found["naive"],
        "naive covers": naive,
        "identified": found["identified"],
        "estimate": found["mean"],
        "sd": found["sd"],
        "covers": found["covers"],
    }


def test_subspaces() -> None:
    cells = [{"n": n, "signal": s, "mean": t} for (n, s), t in product(((96, 0.5), (96, 0.3), (200, 0.3)), (0.0, 0.3, 0.7))]
    rows = [{k: v for k, v in r.items() if k != "mean"} for r in run(overlaps, cells, 300)]
    write(
        "E7: mean squared cosine of subspaces",
        "300 studies a cell, 150 with 200 rows; 3 of 128 dimensions against 5; naive covers: bootstrap of rows, 30 studies.",
        rows,
    )
    for r in rows:
        count = min(300, STUDIES) // (2 if r["n"] == 200 else 1)
        assert r["identified"] >= 0.97, r
        assert r["estimate"] == pytest.approx(r["true mean"], abs=0.01), r
        assert r["covers"] >= 0.95 - slack(0.95, count), r
        if r["true mean"] > 0:
            assert r["naive"] < r["true mean"] - 0.01, r
            assert r["naive covers"] < 0.8, r
    mean, largest = subspaces.null_level(np.random.default_rng(1), min(3000, STUDIES))
    write("E7: the null", "3,000 studies: share with p at most .05 of two random subspaces.", [{"mean": mean, "largest": largest}])
    for share in (mean, largest):
        assert share == pytest.approx(0.05, abs=slack(0.05, min(3000, STUDIES)))


# -- E8: predictors ---------------------------------------------------------------------------------------------------


def held(rng: Rng, tasks: int, studies: int) -> Row:
    return {"items pooled reject": pooled(rng, tasks, studies), **predictors.level_study(rng, tasks, studies)}


def pooled(rng: Rng, tasks: int, studies: int, items: int = 50) -> float:
    """Share of p at most .05 for a worthless predictor where items are the sample: each drop is its task's, .3 of the deviation, and its own."""
    hits = []
    for _ in range(studies):
        drops = 0.3 * rng.normal(size=(tasks, 1)) + rng.normal(size=(tasks, items))
        hits.append(stats.pearsonr(np.repeat(rng.normal(size=tasks), items), drops.ravel()).pvalue <= 0.05)
    return float(np.mean(hits))


def test_predictors() -> None:
    rows = run(held, [{"tasks": n} for n in (9, 16, 30)], 2000)
    write("E8: predictors", "2,000 studies a cell, levels of .05 tests and coverage of limits of Spearman's rho.", rows)
    count = min(2000, STUDIES)
    for r in rows:
        assert r["spearman rejects"] == pytest.approx(0.05, abs=slack(0.05, count)), r
        assert 0.03 <= r["kendall rejects"] <= 0.05 + slack(0.05, count), r
        assert r["swaps reject"] <= 0.06 + slack(0.06, count), r
        assert min(r["covers 0"], r["covers rho .48"]) >= LEAST - slack(0.9, count), r
        assert r["items pooled reject"] > 0.3, r
