"""The tax rate in other metrics (imports torch): which shifts count as large decides which angle is measured (``stats.metric``).

A difference of mean states is a vector and a gradient is a covector; only a metric makes the one comparable with the other. Theory puts them together by the
Euclidean product. Beside that stand: without what a few coordinates or one axis make of it, the metric of states (a shift that stays where states lie is small), its
opposite (a shift across the states' large directions is dear), and that of the output (a shift is as large as it changes the next token's distribution, in KL).

Covariances are shrunk to a multiple of the identity by Ledoit and Wolf's rule (2004, J. Multivar. Anal. 88:365), in which prompts count as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aligntax.core.words import items_text
from aligntax.predict.gather import Tell, prompt_tokens
from aligntax.predict.inputs import Request
from aligntax.predict.reading import gradients, hidden_states, sampled_tokens
from aligntax.predict.results import InMetric, Settings
from aligntax.stats.directions import BlockSample, CrossFit, cross_fitted
from aligntax.stats.metric import Metric, budget_metric, on_distribution

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

MEAN_STATES = "mean states"
"""Name of the safety direction that is a difference of them."""
PROBE = "linear probe"
"""Name of the safety direction that reads unsafe prompts off states."""
MAX_PROMPTS = 2048
"""Prompts behind a covariance."""
WELL = 1e12
"""A covariance of which the condition is worse has no inverse to speak of."""
OUTLYING = 20.0
"""A coordinate whose variance is so many times the mean one is an outlier."""

FloatArray = npt.NDArray[np.float64]


class Moments:
    """Mean, covariance and how noisy that is, of rows that are not kept."""

    def __init__(self, *, centred: bool) -> None:
        self.centred = centred
        self.count = 0
        self.pilot: FloatArray | None = None
        self.total = np.zeros(0)
        self.products = np.zeros((0, 0))
        self.cubes = np.zeros(0)
        self.fourth = 0.0

    def add(self, rows: npt.NDArray[np.float32]) -> None:
        """Rows (B, D)."""
        x = rows.astype(np.float64)
        if self.pilot is None:
            self.pilot = x.mean(axis=0) if self.centred else np.zeros(x.shape[1])  # near the mean, so that squares keep their digits
            self.total, self.cubes, self.products = np.zeros(x.shape[1]), np.zeros(x.shape[1]), np.zeros((x.shape[1], x.shape[1]))
        x = x - self.pilot
        squares = np.einsum("nd,nd->n", x, x)
        self.count += len(x)
        self.total += x.sum(axis=0)
        self.products += x.T @ x
        self.cubes += squares @ x
        self.fourth += float(np.sum(squares**2))

    def covariance(self) -> tuple[FloatArray, float]:
        """(D, D) shrunk, and by which share; about zero where not centred."""
        mean = self.total / self.count if self.centred else np.zeros_like(self.total)
        plain = self.products / self.count - np.outer(mean, mean)
        # Sums of |x - mean|^4 from sums about the pilot, so that nothing hangs on what came first.
        length = float(mean @ mean)
        fourth = self.fourth + 4 * float(mean @ self.products @ mean) - 3 * self.count * length**2
        fourth += 2 * length * float(np.trace(self.products)) - 4 * float(mean @ self.cubes)
        size = len(plain)
        middle = float(np.trace(plain)) / size
        spread = float(np.sum(plain**2)) - size * middle**2
        # Ledoit and Wolf's b^2: the mean squared distance of one row's product from the covariance, by how many rows there are.
        noise = max(fourth / self.count - float(np.sum(plain**2)), 0.0) / self.count
        share = min(1.0, noise / spread) if spread > 0 else 1.0
        return (1 - share) * plain + share * middle * np.eye(size), share


def in_metrics(
    model: HFModel,
    rows: Sequence[Request],
    safety: BlockSample,
    capabilities: Sequence[BlockSample],
    layer: int,
    want: Settings,
    tell: Tell,
    *,
    vector: bool,
    difference: BlockSample | None = None,
) -> tuple[InMetric, ...]:
    """Tax rates and overlaps in metrics other than Euclid's, and those of a linear probe.

    Args:
        model: the base model.
        rows: prompts of which states are taken, none of which is behind a direction.
        safety: its direction at the layer, by block.
        capabilities: gradients, by block.
        layer: where.
        want: settings; the seed draws tokens.
        tell: progress.
        vector: whether the safety direction is a difference of means; a mean gradient is a covector.
        difference: of mean states, by block, of which a probe is made; None for none.
    """
    prompts = [prompt_tokens(model, one) for one in rows[:MAX_PROMPTS]]
    states = _states(model, prompts, layer, want, partial(tell, "covariance of states"))
    sigma, share = states.covariance()
    note = f"covariance of {items_text(states.count, 'state')}, {share:.0%} of it shrunk"
    every = np.eye(len(sigma))
    largest = np.linalg.eigh(sigma)[1][:, -1]
    ordinary = np.diag(sigma) <= OUTLYING * np.trace(sigma) / len(sigma)
    score = _scores(model, prompts, layer, want, partial(tell, "Fisher information"))
    fisher, fisher_share = score.covariance()
    away = _sides(lambda: on_distribution(sigma), vector=vector)
    dear = _sides(lambda: budget_metric(sigma), vector=vector)
    output = _sides(lambda: budget_metric(fisher), vector=vector)
    dropped = int((~ordinary).sum())
    made = [
        ("without the largest axis", (every - np.outer(largest, largest),) * 2, "the axis along which states vary most taken out"),
        ("without outlying coordinates", (every[:, ordinary],) * 2 if dropped else None, f"coordinates with more than {OUTLYING:g} times the mean variance: {dropped}"),
        ("where states lie", away, f"inverse covariance: shifts along which states vary are small; {note}"),
        ("across where states lie", dear, f"covariance: shifts along which states vary are dear; {note}"),
        ("change of output (KL)", output, f"Fisher information of the next token, {items_text(score.count, 'sampled token')}, {fisher_share:.0%} of it shrunk"),
    ]  # fmt: skip
    found = [_fit(name, sides, told, safety, capabilities, want.level) for name, sides, told in made]
    if difference is None:
        return tuple(found)
    # What reads a class off a state, by linear discriminant analysis: the covector of the difference where states lie.
    probe = (np.asarray(np.linalg.inv(sigma), np.float64), every) if np.linalg.cond(sigma) < WELL else None
    told = f"linear discriminant of unsafe and safe prompts, in place of the safety direction; {note}"
    return _fit(PROBE, probe, told, difference, capabilities, want.level), *found


def by_states(direction: BlockSample, capabilities: Sequence[BlockSample], level: float) -> InMetric:
    """The tax rate of the difference of mean states, in place of what raises the wanted answers."""
    every = np.eye(direction.means.shape[1])
    return _fit(
        MEAN_STATES,
        (every, every),
        "mean state after unsafe prompts less that after safe ones, in place of the safety direction",
        direction,
        capabilities,
        level,
    )


Sides = tuple[FloatArray, FloatArray]


def _sides(make: Callable[[], Metric], *, vector: bool) -> Sides | None:
    """What takes the safety direction, and covectors, to where the budget is a ball; None where the metric cannot be made."""
    try:
        metric = make()
    except ValueError:
        return None
    return (metric.lower if vector else metric.root), metric.root


def _fit(name: str, sides: Sides | None, told: str, safety: BlockSample, capabilities: Sequence[BlockSample], level: float) -> InMetric:
    if sides is None:
        return InMetric(name, told, None)
    own, other = sides
    turned = [BlockSample(one.means @ other, one.weights) for one in capabilities]
    try:
        fit: CrossFit | None = cross_fitted(BlockSample(safety.means @ own, safety.weights), turned, level=level)
    except ValueError as error:
        return InMetric(name, f"{told}; {error}", None)
    return InMetric(name, told, fit)


def _states(model: HFModel, prompts: Sequence[tuple[int, ...]], layer: int, want: Settings, tell: Callable[[int, int], None]) -> Moments:
    found = Moments(centred=True)
    for batch in hidden_states(model.local.model, prompts, places=(want.place or -1,), batch_tokens=want.batch_tokens):
        found.add(batch.states[:, layer, 0])
        tell(found.count, len(prompts))
    return found


def _scores(model: HFModel, prompts: Sequence[tuple[int, ...]], layer: int, want: Settings, tell: Callable[[int, int], None]) -> Moments:
    """Second moment of the gradient of log p(token) for a token drawn from p: the Fisher information of the next token, pulled back to the layer."""
    found = Moments(centred=False)
    drawn = sampled_tokens(model.local.model, prompts, want.seed, batch_tokens=want.batch_tokens)
    examples = [(prompt, (token,)) for prompt, token in zip(prompts, drawn, strict=True)]
    for batch in gradients(model.local.model, examples, layers=[layer], head=model.scorer.head, batch_tokens=want.batch_tokens):
        # The gradient of log p is (1 - p) times that of the log-odds.
        found.add((batch.gradients[:, 0] * -np.expm1(batch.values)[:, None]).astype(np.float32))
        tell(found.count, len(prompts))
    return found
