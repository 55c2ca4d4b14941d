"""Other metrics: covariances and their shrinkage against rows that were kept, sampled scores against the Fisher information, and what all metrics agree on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch  # noqa: E402

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.models.scoring import Scorer  # noqa: E402
from aligntax.predict import metrics  # noqa: E402
from aligntax.predict.gather import prompt_tokens  # noqa: E402
from aligntax.predict.inputs import Request, capabilities  # noqa: E402
from aligntax.predict.metrics import Moments, by_states, in_metrics  # noqa: E402
from aligntax.predict.reading import States, hidden_states, sampled_tokens  # noqa: E402
from aligntax.predict.results import InMetric, Settings  # noqa: E402
from aligntax.stats.directions import BlockSample, cross_fitted  # noqa: E402
from aligntax.stats.metric import budget_metric, on_distribution, softmax_fisher  # noqa: E402
from tests.predict.test_reading import random_model  # noqa: E402

FloatArray = npt.NDArray[np.float64]
NAMES = ("without the largest axis", "without outlying coordinates", "where states lie", "across where states lie", "change of output (KL)")
D, K = 12, 16


def silent(*_: object) -> None:
    """Progress that nobody asked for."""


@pytest.fixture(scope="module")
def prompts(base: HFModel) -> list[tuple[int, ...]]:
    found = [one for name in ("lab/addition", "lab/stories", "lab/honesty") for one in capabilities([name], "raw")[0].requests[:60]]
    return [prompt_tokens(base, one) for one in found]


# -- covariances -------------------------------------------------------------------------------------------------------------------


def ledoit_wolf(x: FloatArray, *, centred: bool) -> tuple[FloatArray, float]:
    """Their formulas (2004), row by row: S the covariance, m = tr S/p, d^2 = ||S - m I||^2/p, b^2 = mean ||x x' - S||^2/(n p) at most d^2; b^2/d^2 of m I."""
    n, p = x.shape
    x = x - x.mean(axis=0) if centred else x
    s = x.T @ x / n
    m = np.trace(s) / p
    d2 = np.sum((s - m * np.eye(p)) ** 2) / p
    b2 = min(np.mean([np.sum((np.outer(row, row) - s) ** 2) for row in x]) / n / p, d2)
    share = b2 / d2
    return share * m * np.eye(p) + (1 - share) * s, float(share)


def rows(seed: int, n: int = 60, far: float = 0.0) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, D)) * np.linspace(0.2, 2.0, D) @ np.linalg.qr(rng.normal(size=(D, D)))[0]
    return (x + far * rng.normal(size=D)).astype(np.float32)


def moments(parts: Sequence[npt.NDArray[np.float32]], *, centred: bool) -> Moments:
    found = Moments(centred=centred)
    for part in parts:
        found.add(part)
    return found


@pytest.mark.parametrize("centred", [True, False])
def test_shrinkage_is_ledoit_and_wolfs(centred: bool) -> None:
    x = rows(1)
    sigma, share = moments([x], centred=centred).covariance()
    expected, by_hand = ledoit_wolf(x.astype(np.float64), centred=centred)
    assert 0.01 < share < 0.99
    assert share == pytest.approx(by_hand, rel=1e-6)
    assert sigma == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_rows_far_from_zero_keep_their_digits() -> None:
    x = rows(2, far=1000.0)
    sigma, share = moments([x], centred=True).covariance()
    expected, by_hand = ledoit_wolf(x.astype(np.float64), centred=True)
    assert share == pytest.approx(by_hand, rel=1e-5)
    assert sigma == pytest.approx(expected, rel=1e-5, abs=1e-8)


def test_without_a_mean_batches_make_no_difference() -> None:
    x = rows(3)
    sigma, share = moments(np.array_split(x, 7), centred=False).covariance()
    once, whole = moments([x], centred=False).covariance()
    assert share == pytest.approx(whole)
    assert sigma == pytest.approx(once)


def in_order(seed: int) -> list[npt.NDArray[np.float32]]:
    """Batches as a model reads them, the longest prompts first: their means are not those of all."""
    x = rows(seed, 120)
    x = x[np.argsort(x[:, 0] + x[:, 1])]
    return np.array_split(x, 6)


def test_the_plain_covariance_does_not_depend_on_batches() -> None:
    parts = in_order(4)
    one, many = moments([np.concatenate(parts)], centred=True), moments(parts, centred=True)
    plain = [found.products / found.count - np.outer(found.total, found.total) / found.count**2 for found in (one, many)]
    assert plain[1] == pytest.approx(plain[0], rel=1e-6, abs=1e-9)
    assert plain[0] == pytest.approx(np.cov(np.concatenate(parts).astype(np.float64).T, bias=True), rel=1e-6, abs=1e-9)


def test_the_share_that_is_shrunk_does_not_depend_on_batches() -> None:
    parts = in_order(4)
    by_hand = ledoit_wolf(np.concatenate(parts).astype(np.float64), centred=True)[1]
    assert moments([np.concatenate(parts)], centred=True).covariance()[1] == pytest.approx(by_hand, rel=1e-6)
    assert moments(parts, centred=True).covariance()[1] == pytest.approx(by_hand, rel=1e-6)


def test_rows_that_do_not_differ_are_shrunk_to_nothing_else() -> None:
    same = np.ones((20, D), dtype=np.float32)
    sigma, share = moments([same], centred=True).covariance()
    assert (share, np.abs(sigma).max()) == (1.0, 0.0)


# -- tokens that are drawn ---------------------------------------------------------------------------------------------------------


def distribution(model: Any, tokens: tuple[int, ...]) -> FloatArray:
    with torch.inference_mode():
        found: FloatArray = model(input_ids=torch.tensor([tokens])).logits[0, -1].double().softmax(dim=-1).numpy()
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_tokens_follow_the_models_distribution(family: str) -> None:
    """4000 draws after one prompt: a chi-square of 11 degrees of freedom is beyond 31.3 once in a thousand times."""
    model = random_model(family)
    p = distribution(model, (5, 3, 9))
    drawn = np.bincount(sampled_tokens(model, [(5, 3, 9)] * 4000, 7), minlength=len(p))
    common = p * 4000 >= 5
    observed, expected = np.append(drawn[common], drawn[~common].sum()), np.append(p[common], p[~common].sum()) * 4000
    assert np.sum((observed - expected) ** 2 / np.maximum(expected, 1e-9)) < 31.3
    assert len(set(np.flatnonzero(drawn))) > 1


def test_a_draw_does_not_depend_on_its_company() -> None:
    model = random_model("llama")
    rng = np.random.default_rng(8)
    some = [tuple(rng.integers(1, 12, size=int(size)).tolist()) for size in rng.integers(1, 20, size=50)]
    found = sampled_tokens(model, some, 3)
    assert sampled_tokens(model, some, 3, batch_tokens=1) == found
    assert sampled_tokens(model, some, 3, batch_tokens=37) == found
    assert sampled_tokens(model, some[:20], 3) == found[:20]
    assert sampled_tokens(model, some, 4) != found


def test_every_draw_is_the_inverse_of_the_distribution() -> None:
    model = random_model("llama")
    some = [(5, 3, 9), (7, 1), (6, 6, 1, 2), (4,)] * 5
    uniform = np.random.default_rng(11).random(len(some))
    expected = [int(np.searchsorted(np.cumsum(distribution(model, one)), u, side="right")) for one, u in zip(some, uniform, strict=True)]
    assert sampled_tokens(model, some, 11) == expected


# -- Fisher information ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_sampled_scores_make_the_fisher_information_of_the_last_layer(family: str) -> None:
    """At the last layer it has a closed form, and a mean over M sampled tokens misses it by sqrt(E|score|^4/M) at most, on average."""
    model = random_model(family)
    rng = np.random.default_rng(9)
    some = [tuple(rng.integers(1, 12, size=int(size)).tolist()) for size in rng.integers(2, 9, size=40)]
    deep = int(model.config.num_hidden_layers)
    wrapped: Any = SimpleNamespace(local=SimpleNamespace(model=model), scorer=Scorer(model, family))
    found = metrics._scores(wrapped, some * 150, deep, Settings(seed=1), silent)
    assert found.count == 6000
    sampled, error = found.products / found.count, np.sqrt(found.fourth / found.count / found.count)
    states = np.concatenate([batch.states[:, deep, 0] for batch in hidden_states(model, some)]).astype(np.float64)
    exact = softmax_fisher(model.get_output_embeddings().weight.detach().double().numpy(), states)
    assert error < 0.1 * np.linalg.norm(exact)  # so that what is compared can be told from anything else
    assert np.linalg.norm(sampled - exact) < 2 * error
    assert np.trace(sampled) == pytest.approx(np.trace(exact), abs=3 * error)
    assert np.linalg.norm(found.total / found.count) < 4 * np.sqrt(np.trace(exact) / found.count)  # scores have the mean 0


def test_the_states_that_a_covariance_is_of(base: HFModel, prompts: list[tuple[int, ...]]) -> None:
    found = metrics._states(base, prompts, 2, Settings(batch_tokens=10**6), silent)
    kept = np.concatenate([batch.states[:, 2, 0] for batch in hidden_states(base.local.model, prompts, batch_tokens=10**6)]).astype(
        np.float64
    )
    assert found.count == len(prompts)
    mean = found.total / found.count
    assert found.products / found.count - np.outer(mean, mean) == pytest.approx(np.cov(kept.T, bias=True), rel=1e-4, abs=1e-6)


# -- what is known of tax rates ----------------------------------------------------------------------------------------------------


def planted(seed: int, cosines: Sequence[float] = (0.6, -0.3), noise: float = 0.05) -> tuple[BlockSample, list[BlockSample]]:
    """A safety direction with these cosines to orthogonal capabilities, block by block."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(D, len(cosines) + 1)))[0].T
    safety = np.asarray(cosines) @ axes[:-1] + np.sqrt(1 - np.sum(np.square(cosines))) * axes[-1]

    def blocks(direction: FloatArray) -> BlockSample:
        return BlockSample(direction + noise * rng.normal(size=(K, D)), np.full(K, 10.0))

    return blocks(safety), [blocks(axis) for axis in axes[:-1]]


def made(sigma_rows: FloatArray, score_rows: FloatArray, *, vector: bool, monkeypatch: pytest.MonkeyPatch) -> dict[str, InMetric]:
    """All metrics where the states and the scores are these rows."""
    tokens = [(1,)] * len(sigma_rows)

    def states(_model: Any, asked: Sequence[Any], **_more: Any) -> Iterator[States]:
        assert len(asked) == len(tokens)
        yield States(np.arange(len(asked)), sigma_rows.astype(np.float32)[:, None, None])

    def scores(*_: object) -> Moments:
        return moments([score_rows.astype(np.float32)], centred=False)

    monkeypatch.setattr(metrics, "hidden_states", states)
    monkeypatch.setattr(metrics, "_scores", scores)
    monkeypatch.setattr(metrics, "prompt_tokens", lambda *_: (1,))
    model: Any = SimpleNamespace(local=SimpleNamespace(model=None))
    requests = [Request("p", "p")] * len(sigma_rows)
    safety, tasks = planted(1)
    found = in_metrics(model, requests, safety, tasks, 0, Settings(), silent, vector=vector)
    assert tuple(one.name for one in found) == NAMES
    return {one.name: one for one in found}


def balanced(d: int = D, times: float = 1.0) -> FloatArray:
    """Rows whose mean is 0 and whose second moment is a multiple of the identity."""
    return times * np.concatenate([np.eye(d), -np.eye(d)]) * np.sqrt(d)


@pytest.mark.parametrize("vector", [True, False])
def test_with_the_identity_all_metrics_are_euclids(vector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(balanced(), balanced(times=3.0), vector=vector, monkeypatch=monkeypatch)
    safety, tasks = planted(1)
    plain = cross_fitted(safety, tasks)
    assert plain.estimate == pytest.approx(0.45, abs=0.05)
    for name in ("where states lie", "across where states lie", "change of output (KL)"):
        fit = found[name].fit
        assert fit is not None
        assert (fit.estimate, fit.low, fit.high, fit.naive) == pytest.approx((plain.estimate, plain.low, plain.high, plain.naive))
        assert [o.cosine for o in fit.overlaps] == pytest.approx([o.cosine for o in plain.overlaps])
    assert found["without outlying coordinates"].fit is None
    assert found["without outlying coordinates"].told.endswith("20 times the mean variance: 0")


@pytest.mark.parametrize("vector", [True, False])
def test_a_metric_takes_vectors_and_covectors_as_it_should(vector: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each against ``stats.metric``: a difference of means is made a covector by the metric, a gradient is one already."""
    rng = np.random.default_rng(5)
    x, g = rng.normal(size=(400, D)) * np.linspace(0.3, 1.5, D), rng.normal(size=(400, D)) * np.linspace(1.2, 0.4, D)
    found = made(x, g, vector=vector, monkeypatch=monkeypatch)
    sigma, fisher = (
        moments([x.astype(np.float32)], centred=True).covariance()[0],
        moments([g.astype(np.float32)], centred=False).covariance()[0],
    )
    safety, tasks = planted(1)
    for name, metric in (
        ("where states lie", on_distribution(sigma)),
        ("across where states lie", budget_metric(sigma)),
        ("change of output (KL)", budget_metric(fisher)),
    ):

        def turned(one: BlockSample, *, is_vector: bool, metric: Any = metric) -> BlockSample:
            covectors = metric.covector_of(one.means.T) if is_vector else one.means.T
            return BlockSample(metric.covectors(covectors).T, one.weights)

        expected = cross_fitted(turned(safety, is_vector=vector), [turned(one, is_vector=False) for one in tasks])
        fit = found[name].fit
        assert fit is not None
        assert (fit.estimate, fit.low, fit.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    whole = cross_fitted(safety, tasks).estimate
    assert found["where states lie"].fit is not None
    assert found["where states lie"].fit.estimate != pytest.approx(whole, abs=0.01)


def test_the_largest_axis_is_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """States that vary most along what a task needs: without that axis the rate is that of what is left."""
    safety, tasks = planted(1)
    axis = tasks[0].means.mean(axis=0)
    axis = axis / np.linalg.norm(axis)
    rng = np.random.default_rng(6)
    x = rng.normal(size=(300, D)) + 5 * rng.normal(size=(300, 1)) * axis
    largest = np.linalg.eigh(np.cov(x.T))[1][:, -1]
    found = made(x, balanced(), vector=True, monkeypatch=monkeypatch)["without the largest axis"].fit
    assert found is not None
    keep = np.eye(D) - np.outer(largest, largest)
    cut = [BlockSample(one.means @ keep, one.weights) for one in (safety, *tasks)]
    expected = cross_fitted(cut[0], cut[1:])
    assert found.reason == expected.reason
    assert found.estimate == (None if expected.estimate is None else pytest.approx(expected.estimate, abs=1e-3))
    assert found.naive == pytest.approx(expected.naive, abs=1e-3)


def test_outlying_coordinates_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 30 coordinates one varies a thousand times as much as the others."""
    rng = np.random.default_rng(7)
    x = rng.normal(size=(300, D))
    x[:, 4] *= 1000
    told = made(x, balanced(), vector=True, monkeypatch=monkeypatch)["without outlying coordinates"]
    assert told.fit is None  # of 12 coordinates none can have 20 times the mean
    wide = np.concatenate([x, rng.normal(size=(300, 20))], axis=1)
    safety, tasks = planted(1)
    spread = [BlockSample(np.concatenate([one.means, np.zeros((K, 20))], axis=1), one.weights) for one in (safety, *tasks)]
    monkeypatch.setattr(metrics, "_scores", lambda *_: moments([balanced(D + 20).astype(np.float32)], centred=False))
    monkeypatch.setattr(metrics, "hidden_states", lambda *_, **__: iter([States(np.arange(300), wide.astype(np.float32)[:, None, None])]))
    model: Any = SimpleNamespace(local=SimpleNamespace(model=None))
    found = {
        one.name: one for one in in_metrics(model, [Request("p", "p")] * 300, spread[0], spread[1:], 0, Settings(), silent, vector=True)
    }["without outlying coordinates"]
    kept = np.arange(D + 20) != 4
    cut = [BlockSample(one.means[:, kept], one.weights) for one in spread]
    expected = cross_fitted(cut[0], cut[1:])
    assert found.fit is not None
    assert found.fit.estimate == pytest.approx(expected.estimate)
    assert found.told.endswith("20 times the mean variance: 1")


def test_a_metric_that_cannot_be_made_has_no_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """A direction without any cost has no bound: none is made up."""
    flat = np.zeros((40, D))
    found = made(balanced(), flat, vector=True, monkeypatch=monkeypatch)
    assert found["change of output (KL)"].fit is None
    assert found["where states lie"].fit is not None


def test_mean_states_are_held_by_euclids_product() -> None:
    safety, tasks = planted(3)
    one, plain = by_states(safety, tasks, 0.9), cross_fitted(safety, tasks, level=0.9)
    assert one.name == "mean states"
    assert one.fit is not None
    assert (one.fit.estimate, one.fit.low, one.fit.high) == pytest.approx((plain.estimate, plain.low, plain.high))
    nothing = by_states(BlockSample(np.zeros((K, D)), np.full(K, 1.0)), tasks, 0.9)
    assert nothing.fit is None
    assert "a direction is zero" in nothing.told


def test_a_probe_is_the_discriminant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Covariance diag(9, 1, ...): what differs along the wide axis tells a ninth of what the same difference tells along another."""
    safety, tasks = planted(5)
    scale = np.ones(D)
    scale[0] = 3.0
    states = balanced(times=1.0) * scale
    monkeypatch.setattr(
        metrics, "hidden_states", lambda *_, **__: iter([States(np.arange(len(states)), states.astype(np.float32)[:, None, None])])
    )
    monkeypatch.setattr(metrics, "_scores", lambda *_: moments([states.astype(np.float32)], centred=False))
    model: Any = SimpleNamespace(local=SimpleNamespace(model=None))
    monkeypatch.setattr(metrics, "prompt_tokens", lambda *_: (1,))
    found = in_metrics(model, [Request("p", "p")] * len(states), safety, tasks, 0, Settings(), silent, vector=True, difference=safety)[0]
    assert found.name == "linear probe"
    assert found.fit is not None
    sigma = ledoit_wolf(states, centred=True)[0]
    expected = cross_fitted(BlockSample(safety.means @ np.linalg.inv(sigma), safety.weights), tasks)
    assert found.fit.estimate == pytest.approx(expected.estimate, rel=1e-6)
    assert found.fit.estimate != pytest.approx(cross_fitted(safety, tasks).estimate, rel=0.05)
