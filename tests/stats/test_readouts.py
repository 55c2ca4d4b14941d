"""The tax rate over inputs: identities, refits by hand, noise of fits, and studies of bias and coverage."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from aligntax.stats.clusters import FloatArray
from aligntax.stats.readouts import PENALTIES, LabelTax, label_tax, out_of_fold, partial_correlation, readout_tax

Rng = np.random.Generator


def correlated(rng: Rng, n: int, m: int, r2: float, groups: int | None = None, icc: float = 0.0) -> tuple[FloatArray, FloatArray]:
    """A safety readout and m capability readouts with this R^2, with common parts of groups in each."""

    def draw(q: int) -> FloatArray:
        own = rng.normal(size=(n, q))
        if groups is None:
            return own
        return np.sqrt(1 - icc) * own + np.sqrt(icc) * rng.normal(size=(groups, q))[np.arange(n) % groups]

    c, beta = draw(m), rng.normal(size=m)
    return np.sqrt(r2) * c @ beta / np.linalg.norm(beta) + np.sqrt(1 - r2) * draw(1)[:, 0], c


def test_it_is_the_tax_rate_in_the_states_covariance() -> None:
    """R^2 of s'h on c_i'h is b'G^-1 b/s'Ss with products by the sample covariance; case I of the theory has .762."""
    rng = np.random.default_rng(1)
    h = rng.normal(size=(300, 6)) @ rng.normal(size=(6, 6))
    s, c = rng.normal(size=6), rng.normal(size=(6, 3))
    sigma = np.cov(h, rowvar=False)
    expected = s @ sigma @ c @ np.linalg.solve(c.T @ sigma @ c, c.T @ sigma @ s) / (s @ sigma @ s)
    assert readout_tax(h @ s, h @ c).raw == pytest.approx(expected, rel=1e-10)
    exact = np.linalg.qr(rng.normal(size=(80, 4)) * [0, 1, 1, 1] + [1, 0, 0, 0])[0][:, 1:] * np.array(
        [2.0, 1.0, 0.5]
    )  # covariance diag(4, 1, .25)
    assert readout_tax(exact.sum(axis=1), exact[:, 0]).raw == pytest.approx(0.7619047619, abs=1e-9)


def test_f_and_partial_correlations_are_those_of_least_squares() -> None:
    sm = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(2)
    s, c = correlated(rng, 60, 4, 0.3)
    found, theirs = readout_tax(s, c), sm.OLS(s, sm.add_constant(c)).fit()
    assert (found.raw, found.adjusted, found.estimate) == pytest.approx((theirs.rsquared, theirs.rsquared_adj, theirs.rsquared_adj))
    assert (found.f, found.p) == pytest.approx((theirs.fvalue, theirs.f_pvalue))
    for i, partial in enumerate(found.partials):
        others = sm.add_constant(np.delete(c, i, axis=1))
        rest = [sm.OLS(y, others).fit().resid for y in (s, c[:, i])]
        r = float(np.corrcoef(*rest)[0, 1])
        z = np.arctanh(r) * np.sqrt(60 - 3 - 3)
        assert (partial.estimate, partial.given) == (pytest.approx(r), 3)
        assert partial.p == pytest.approx(2 * stats.norm.sf(abs(z)))
        assert partial.adjusted_p >= partial.p
        assert partial.high == pytest.approx(np.tanh(np.arctanh(r) + 1.959963985 / np.sqrt(54)))
    two = partial_correlation(s, c[:, 0], c[:, 1:])
    assert (two.estimate, two.low) == pytest.approx((found.partials[0].estimate, found.partials[0].low))


def test_without_groups_it_is_the_adjusted_r2_and_with_groups_the_jackknife() -> None:
    rng = np.random.default_rng(3)
    s, c = correlated(rng, 120, 3, 0.4)
    plain = readout_tax(s, c)
    assert plain.estimate == pytest.approx(1 - (1 - plain.raw) * 119 / 116)
    g = np.arange(120) % 20
    found = readout_tax(s, c, [f"g{i:02d}" for i in g])
    without = [readout_tax(s[g != i], c[g != i], g[g != i]).raw for i in range(20)]
    assert found.estimate == pytest.approx(20 * found.raw - 19 * float(np.mean(without)), rel=1e-9)
    assert (found.blocks, found.grouped) == (20, True)
    assert found.df == (3.0, 17.0)
    many = readout_tax(*correlated(rng, 200, 25, 0.4), np.arange(200) % 20)
    assert (many.f, many.df, many.p) == (None, None, None)


def test_the_penalty_is_chosen_by_groups_left_out_and_readouts_are_of_other_groups() -> None:
    """Refitted by hand: ridge without the fold, penalty by refitting without each group; a readout is in units of its own deviation there."""
    rng = np.random.default_rng(4)
    n, d = 48, 70
    x = rng.normal(size=(n, d)) + 5
    groups = 10 + np.arange(n) // 3
    y = np.sign(x @ rng.normal(size=d) - 5 + 5 * rng.normal(size=n))
    y = np.where(y == 0, 1.0, y)
    found = out_of_fold(x, y, np.random.default_rng(5), groups, folds=4)
    fold = np.random.default_rng(5).permutation(np.arange(16) % 4)[groups - 10]
    for k in range(4):
        inside = fold != k
        centred = x[inside] - x[inside].mean(axis=0)
        scale = float(np.sum(centred**2)) / inside.sum()

        def fit(rows: FloatArray, penalty: float, scale: float = scale) -> tuple[FloatArray, FloatArray, float]:
            z = x[rows] - x[rows].mean(axis=0)
            w = z.T @ np.linalg.solve(z @ z.T + scale * penalty * np.eye(len(z)), y[rows] - y[rows].mean())
            return w, x[rows].mean(axis=0), float(y[rows].mean())

        errors = []
        for penalty in PENALTIES:
            missed = 0.0
            for g in np.unique(groups[inside]):
                w, mean, offset = fit(inside & (groups != g), float(penalty))
                missed += float(np.sum((y[groups == g] - offset - (x[groups == g] - mean) @ w) ** 2))
            errors.append(missed)
        assert found.penalties[k, 0] == PENALTIES[int(np.argmin(errors))]
        w, mean, _ = fit(inside, float(found.penalties[k, 0]))
        assert found.values[fold == k, 0] == pytest.approx((x[fold == k] - mean) @ w / (centred @ w).std(), rel=1e-6)


def test_a_label_that_cannot_be_read_is_told() -> None:
    """Held-out readouts of noise labels correlate with them by nothing: not below 0, as with fits' offsets they would."""
    rng = np.random.default_rng(6)
    x = rng.normal(size=(80, 30))
    y = np.column_stack([np.sign(x[:, 0] + 0.3 * rng.normal(size=80)), *rng.choice([-1.0, 1.0], size=(30, 80))])
    found = out_of_fold(x, y, rng)
    assert found.reasons[0] is None
    assert found.agreement[0] > 0.4
    assert sum(r is not None for r in found.reasons[1:]) >= 24
    assert np.mean(found.agreement[1:]) == pytest.approx(0.0, abs=0.07)


def labelled(rng: Rng, n: int, d: int, m: int, tau: float, power: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """States with eigenvalues j^-power, and labels of a safety and m capability readouts with this tau_Sigma."""
    spread = np.arange(1, d + 1.0) ** (-power / 2)
    c = np.linalg.qr(rng.normal(size=(d, m)) * spread[:, None])[0]
    inside, outside = c @ rng.normal(size=m), rng.normal(size=d) * spread
    outside -= c @ (c.T @ outside)
    v = np.sqrt(tau) * inside / np.linalg.norm(inside) + np.sqrt(1 - tau) * outside / np.linalg.norm(outside)
    z = rng.normal(size=(n, d))
    return z * spread, np.sign(z @ v + 0.3 * rng.normal(size=n)), np.sign(z @ c + 0.3 * rng.normal(size=(n, m)))


def label_study(rng: Rng, n: int, d: int, m: int, tau: float, power: float, studies: int) -> list[LabelTax]:
    return [label_tax(*labelled(rng, n, d, m, tau, power), rng) for _ in range(studies)]


def label_summary(found: list[LabelTax], tau: float) -> dict[str, float]:
    told = [f for f in found if f.estimate is not None]
    row = {
        "naive": float(np.mean([f.naive for f in found])),
        "identified": len(told) / len(found),
        "fits agree": float(np.mean([f.agreement.min() for f in found])),
    }
    if told:
        estimates = np.array([f.estimate for f in told], dtype=np.float64)
        covered = [f.low <= tau <= f.high for f in told if f.low is not None and f.high is not None]
        row |= {"mean": float(estimates.mean()), "sd": float(estimates.std()), "covers": float(np.mean(covered))}
    return row


def test_the_noise_of_fits_is_corrected_for() -> None:
    row = label_summary(label_study(np.random.default_rng(7), 240, 30, 2, 0.7, 1.0, 8), 0.7)
    assert row["identified"] > 0.9
    assert row["naive"] < 0.64
    assert row["mean"] == pytest.approx(0.7, abs=0.07)
    assert row["covers"] >= 0.7


def test_fits_that_do_not_agree_give_nothing() -> None:
    rng = np.random.default_rng(8)
    x, s, c = labelled(rng, 120, 200, 2, 0.5, 0.0)
    found = label_tax(x, s, c, rng)
    assert (found.estimate, found.low, found.high, found.se, found.overlaps) == (None, None, None, None, ())
    assert found.reason is not None
    assert "two independent fits" in found.reason
    x, s, c = labelled(rng, 400, 20, 2, 0.5, 0.0)
    found = label_tax(x, s, c, rng, np.arange(400) // 4)
    assert found.estimate is not None
    assert found.estimate > found.naive
    flipped = label_tax(x, s, np.column_stack([-c[:, 0], c[:, 1]]), np.random.default_rng(9), np.arange(400) // 4)
    again = label_tax(x, s, c, np.random.default_rng(9), np.arange(400) // 4)
    assert flipped.estimate == pytest.approx(again.estimate)
    assert flipped.overlaps[0].cosine == pytest.approx(-again.overlaps[0].cosine)
    assert flipped.overlaps[1].cosine == pytest.approx(again.overlaps[1].cosine)


def test_what_cannot_be_read() -> None:
    rng = np.random.default_rng(10)
    s, c = correlated(rng, 40, 3, 0.3)
    hole = s.copy()
    hole[1] = np.inf
    for arguments, said in (
        ((hole, c), "1 values not finite"),
        ((np.ones(40), c), "the safety readout is the same on all inputs"),
        ((s, np.column_stack([c, np.full(40, 2.0)])), "capability readout 3 .* is the same"),
        ((s, np.column_stack([c, c[:, 0] + c[:, 1]])), "depend on each other"),
        ((s[:30], c), r"\(30,\) and \(40, 3\)"),
        ((s[:7], c[:7]), "7 inputs are too few for 3"),
        ((s, c, np.arange(40) // 8), "5 independent rows or groups"),
    ):
        with pytest.raises(ValueError, match=said):
            readout_tax(*arguments)
    x = rng.normal(size=(40, 5))
    for states, labels, said in (
        (np.ones((40, 5)), s, "the same on all inputs"),
        (x, np.ones(40), "one value only"),
        (x[:20], s, "states are"),
        (np.where(x > 2, np.nan, x), s, "not finite"),
    ):
        with pytest.raises(ValueError, match=said):
            out_of_fold(states, labels, rng)
    with pytest.raises(ValueError, match="one value only"):
        label_tax(x, np.ones(40), s, rng)
    with pytest.raises(ValueError, match="at least 10"):
        label_tax(x, s, c, rng, blocks=9)


def readout_study(rng: Rng, n: int, m: int, r2: float, studies: int, groups: int | None = None, icc: float = 0.0) -> dict[str, float]:
    found = []
    for _ in range(studies):
        s, c = correlated(rng, n, m, r2, groups, icc)
        f = readout_tax(s, c, None if groups is None else np.arange(n) % groups)
        t = stats.t.ppf(0.975, f.blocks - 1) * f.se
        found.append((f.raw, f.adjusted, f.estimate, f.low <= r2 <= f.high, abs(f.estimate - r2) <= t, f.p is not None and f.p < 0.05))
    names = ("raw", "adjusted", "estimate", "covers", "jackknife t", "rejects")
    return dict(zip(names, np.mean(np.array(found, dtype=np.float64), axis=0).tolist(), strict=True))


@pytest.mark.parametrize(("m", "r2", "groups"), [(1, 0.0, None), (8, 0.2, None), (5, 0.0, 40), (5, 0.3, 40)])
def test_r2_is_unbiased_and_covered(m: int, r2: float, groups: int | None) -> None:
    row = readout_study(np.random.default_rng(11), 240, m, r2, 160, groups, 0.5 if groups else 0.0)
    assert row["estimate"] == pytest.approx(r2, abs=0.015)
    assert row["covers"] >= 0.9
    assert row["raw"] > r2
    if r2 == 0:
        assert row["rejects"] <= 0.1
        if groups:
            assert row["adjusted"] > 0.02


@pytest.mark.slow
@pytest.mark.parametrize(("n", "m", "groups", "icc"), [(200, 1, None, 0.0), (200, 50, None, 0.0), (400, 5, 40, 0.3), (400, 16, 40, 0.8)])
@pytest.mark.parametrize("r2", [0.0, 0.05, 0.2, 0.6])
def test_r2_is_covered_everywhere(n: int, m: int, groups: int | None, icc: float, r2: float) -> None:
    row = readout_study(np.random.default_rng(12), n, m, r2, 2000, groups, icc)
    assert row["estimate"] == pytest.approx(r2, abs=0.04)
    assert row["covers"] >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize(("n", "d", "m"), [(300, 32, 1), (300, 64, 4), (600, 64, 4)])
@pytest.mark.parametrize("power", [0.0, 1.0])
@pytest.mark.parametrize("tau", [0.0, 0.3, 0.7])
def test_label_taxes_are_covered(n: int, d: int, m: int, power: float, tau: float) -> None:
    row = label_summary(label_study(np.random.default_rng(13), n, d, m, tau, power, 100), tau)
    assert row["mean"] == pytest.approx(tau, abs=0.05)
    assert row["covers"] >= 0.9
