"""Where a trained model's own shift lies: a vector that is planted is found, no shift is no number, and the prompts are none of those behind a direction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy, deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch  # noqa: E402

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.models.references import open_model, parse  # noqa: E402
from aligntax.predict import gather  # noqa: E402
from aligntax.predict.gather import Sums, prompt_tokens, read_gradients  # noqa: E402
from aligntax.predict.inputs import Capability, Objective, capabilities, read_objective  # noqa: E402
from aligntax.predict.reading import Gradients, States, hidden_states  # noqa: E402
from aligntax.predict.results import Settings, ShiftPoint, TaxPrediction  # noqa: E402
from aligntax.predict.shifts import shift_points  # noqa: E402
from aligntax.predict.tax import predict_tax  # noqa: E402

FloatArray = npt.NDArray[np.float64]
QUICK = Settings(items=96, prompts=128, concepts=0, metrics=False, step=False, direction="states", place=-1)
TASKS = ["lab/addition", "lab/stories", "lab/honesty"]
WHERE = ("unsafe prompts", "prompts of tasks")


def silent(*_: object) -> None:
    """Progress that nobody asked for."""


@pytest.fixture(scope="module")
def objective() -> Objective:
    return read_objective("lab/harmful_procedures:lab/procedures", "raw")


@pytest.fixture(scope="module")
def tasks() -> list[Capability]:
    return capabilities(TASKS, "raw")


@pytest.fixture(scope="module")
def made(base: HFModel, objective: Objective, tasks: list[Capability]) -> TaxPrediction:
    found = predict_tax(base, objective, tasks, QUICK)
    assert found.made_of == "states"
    assert len(found.tasks) >= 2
    return found


def mean_state(model: Any, base: HFModel, rows: Sequence[Any], layer: int) -> FloatArray:
    batches = hidden_states(model, [prompt_tokens(base, one) for one in rows])
    return np.concatenate([batch.states[:, layer, 0] for batch in batches]).astype(np.float64).mean(axis=0)


@pytest.fixture(scope="module")
def safety(base: HFModel, objective: Objective, made: TaxPrediction) -> FloatArray:
    """The difference of mean states after all prompts of either class."""
    one, two = (mean_state(base.local.model, base, side, made.layer) for side in (objective.unsafe, objective.safe))
    return one - two


def shifted(base: HFModel, layer: int, vector: FloatArray, noise: float = 0.0) -> HFModel:
    """The base with a vector added to what a block gives, at every place; with noise that is another one of every text."""
    stage, local = copy(base), copy(base.local)
    local.model = deepcopy(base.local.model)
    stage.local = local
    draws = torch.Generator().manual_seed(1)

    def add(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + torch.from_numpy(vector).to(output) + noise * torch.randn((len(output), 1, output.shape[-1]), generator=draws)

    local.model.base_model.layers[layer - 1].mlp.register_forward_hook(add)  # added to what goes on, as all that a block makes
    return stage


def points(
    base: HFModel, stage: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction
) -> dict[tuple[str, str], ShiftPoint]:
    found = shift_points(base, [("tuned", stage)], objective, tasks, made, silent)
    assert {one.stage for one in found} == {"tuned"}
    return {(one.where, one.towards): one for one in found}


def test_a_hook_shifts_the_states_of_its_layer(base: HFModel, objective: Objective, made: TaxPrediction, safety: FloatArray) -> None:
    """What the other tests plant is there."""
    stage = shifted(base, made.layer, safety)
    some = objective.unsafe[:8]
    moved = mean_state(stage.local.model, base, some, made.layer) - mean_state(base.local.model, base, some, made.layer)
    assert moved == pytest.approx(safety, abs=1e-4)


def test_a_shift_towards_safety_is_found(
    base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction, safety: FloatArray
) -> None:
    """Its cosine with safety is near 1 and its share in what tasks need is the tax rate of safety, on prompts of either kind."""
    found = points(base, shifted(base, made.layer, 0.5 * safety, 0.02 * float(np.linalg.norm(safety))), objective, tasks, made)
    assert set(found) == {(where, "safety") for where in WHERE}
    before = mean_state(base.local.model, base, objective.unsafe, made.layer)
    for point in found.values():
        assert point.reason is None
        assert point.safety == pytest.approx(1, abs=0.06)
        assert point.safety_low is not None
        assert point.safety_high is not None
        assert point.safety_low <= point.safety <= point.safety_high
        assert point.rate == pytest.approx(made.fit.estimate, abs=0.1)
        assert point.rate_low is not None
        assert point.rate_high is not None
        assert point.rate_low <= point.rate <= point.rate_high
    size = 0.5 * float(np.linalg.norm(safety)) / float(np.linalg.norm(before))
    assert found["unsafe prompts", "safety"].size == pytest.approx(size, rel=0.1)
    assert found["unsafe prompts", "safety"].prompts == 64
    away = points(base, shifted(base, made.layer, -0.5 * safety), objective, tasks, made)
    assert away["unsafe prompts", "safety"].safety == pytest.approx(-1, abs=0.06)


def test_a_shift_along_what_a_task_needs(
    base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction, safety: FloatArray
) -> None:
    rows = next(one for one in tasks if one.name == made.tasks[0]).requests[:200]
    sums = read_gradients(base, rows, Sums(np.arange(len(rows)) % 8, 8), [made.layer], QUICK, silent)
    along = sums.mean(0) / np.linalg.norm(sums.mean(0)) * np.linalg.norm(safety)
    found = points(base, shifted(base, made.layer, along), objective, tasks, made)
    for point in found.values():
        assert point.rate == pytest.approx(1, abs=0.15)
        assert abs(point.safety or 0.0) < 0.9


def test_a_shift_that_is_neither(
    base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction, safety: FloatArray
) -> None:
    directions = [safety]
    for one in tasks:
        sums = read_gradients(base, one.requests[:200], Sums(np.arange(min(200, len(one.requests))) % 8, 8), [made.layer], QUICK, silent)
        directions.append(sums.mean(0))
    basis = np.linalg.qr(np.array(directions).T)[0]
    other = np.random.default_rng(2).normal(size=len(safety))
    other -= basis @ (basis.T @ other)
    found = points(base, shifted(base, made.layer, other / np.linalg.norm(other) * np.linalg.norm(safety)), objective, tasks, made)
    for point in found.values():
        assert point.safety == pytest.approx(0, abs=0.15)
        assert point.rate == pytest.approx(0, abs=0.15)


def test_no_shift_is_no_number(base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction) -> None:
    """A stage that is the base has not moved: nothing is identified, and that is told."""
    opened: Any = open_model(parse("lab:base-w32"))
    found = points(base, opened, objective, tasks, made)
    opened.close()
    assert set(found) == {(where, "safety") for where in WHERE}
    for point in found.values():
        assert point.size == 0
        assert point.reason is not None
        assert "a direction is zero" in point.reason
        assert (point.rate, point.rate_low, point.rate_high, point.safety, point.safety_low, point.safety_high) == (None,) * 6


def test_a_shift_that_is_noise_is_not_identified(base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction) -> None:
    stage = shifted(base, made.layer, np.zeros(32), 3.0)
    for point in points(base, stage, objective, tasks, made).values():
        assert point.reason is not None
        assert point.reason.startswith("not identified: ")
        assert (point.rate, point.safety) == (None, None)


def test_where_wanted_answers_are_known_there_are_two_directions(base: HFModel, objective: Objective, tasks: list[Capability]) -> None:
    """What raises them is safety, and the difference of mean states stands beside; a shift along the one is told from one along the other."""
    want = replace(QUICK, answers=("i cannot help with that.",), layer=2, direction="auto")
    made = predict_tax(base, objective, tasks, want)
    assert made.made_of == "answers"
    states = mean_state(base.local.model, base, objective.unsafe, 2) - mean_state(base.local.model, base, objective.safe, 2)
    found = points(base, shifted(base, 2, states), objective, tasks, made)
    assert set(found) == {
        ("prompts of tasks", "safety"),
        ("prompts of tasks", "mean states"),
    }  # the layer was named: no unsafe prompts are left
    assert found["prompts of tasks", "mean states"].safety == pytest.approx(1, abs=0.08)
    assert abs(found["prompts of tasks", "safety"].safety or 0.0) < 0.8


def test_the_prompts_are_none_of_those_behind_a_direction(
    base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[tuple[bool, set[Any]]] = []
    hidden, grads = gather.hidden_states, gather.gradients

    def states(model: Any, prompts: Sequence[Any], **more: Any) -> Iterator[States]:
        read.append((model is stage.local.model, set(prompts)))
        yield from hidden(model, prompts, **more)

    def gradients(model: Any, examples: Sequence[Any], **more: Any) -> Iterator[Gradients]:
        read.append((False, {prompt for prompt, _ in examples}))
        yield from grads(model, examples, **more)

    stage = shifted(base, made.layer, np.ones(32))
    monkeypatch.setattr(gather, "hidden_states", states)
    monkeypatch.setattr(gather, "gradients", gradients)
    shift_points(base, [("tuned", stage)], objective, tasks, made, silent)
    shifts = [texts for of_stage, texts in read if of_stage]
    assert len(shifts) == 2
    others = [texts for of_stage, texts in read if not of_stage and texts not in shifts]
    assert len(others) == 2 + len(made.tasks)  # two classes, and the gradients of the tasks
    for one in shifts:
        assert not any(one & other for other in others)
        assert (False, one) in read  # the base's states of the same prompts
    assert not shifts[0] & shifts[1]


def test_models_of_another_shape_cannot_be_compared(
    base: HFModel, objective: Objective, tasks: list[Capability], made: TaxPrediction
) -> None:
    other = shifted(base, made.layer, np.zeros(32))
    other.local.model.config = deepcopy(other.local.model.config)
    other.local.model.config.hidden_size = 48
    with pytest.raises(InputError, match=r"tuned\\x1b has the hidden_size 48 and base-w32 32: states of both cannot be compared"):
        shift_points(base, [("tuned\x1b", other)], objective, tasks, made, silent)
