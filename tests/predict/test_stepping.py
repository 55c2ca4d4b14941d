"""A step of the optimiser that is taken and taken back: weights to the last bit, no step where nothing is known, and who is taught what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch  # noqa: E402

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.predict import stepping  # noqa: E402
from aligntax.predict.gather import example  # noqa: E402
from aligntax.predict.inputs import Objective, Request, capabilities, read_objective, taught  # noqa: E402
from aligntax.predict.response import Responses  # noqa: E402
from aligntax.predict.results import OptimiserStep, Settings  # noqa: E402
from aligntax.predict.stepping import BATCHES, ITEMS, SIZES, optimiser_step  # noqa: E402

REFUSAL = "i cannot help with that."
WANT = Settings(answers=(REFUSAL,))


def silent(*_: object) -> None:
    """Progress that nobody asked for."""


@pytest.fixture(scope="module")
def objective() -> Objective:
    found = read_objective("lab/harmful_procedures:lab/procedures", "raw")
    return replace(found, unsafe=found.unsafe[:100])


@pytest.fixture(scope="module")
def tasks() -> dict[str, tuple[Request, ...]]:
    one, other = capabilities(["lab/addition", "lab/stories"], "raw")
    return {one.name: one.requests[: ITEMS + 4], other.name: other.requests[:20]}


def weights(model: HFModel) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.local.model.named_parameters()}


def untouched(model: HFModel, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(p, before[name]) for name, p in model.local.model.named_parameters())


@pytest.fixture(scope="module")
def step(base: HFModel, objective: Objective, tasks: dict[str, tuple[Request, ...]]) -> OptimiserStep:
    before, grads = weights(base), [p.requires_grad for p in base.local.model.parameters()]
    notes: list[str] = []
    found = optimiser_step(base, objective, tasks, WANT, silent, notes)
    assert found is not None
    assert notes == []
    assert untouched(base, before)
    assert [p.requires_grad for p in base.local.model.parameters()] == grads
    assert all(p.grad is None for p in base.local.model.parameters())
    return found


def test_a_step_lowers_the_objectives_loss_where_it_was_not_taken(step: OptimiserStep) -> None:
    assert 0 < step.after < step.loss
    assert step.size > 0
    assert (step.batches, step.batch_size) == (BATCHES, SIZES[1])  # 100 prompts are too few for larger batches
    assert step.held >= SIZES[1]


def test_what_is_said_of_a_task(step: OptimiserStep, base: HFModel, tasks: dict[str, tuple[Request, ...]]) -> None:
    assert [(t.lost.value, t.task) for t in step.tasks] == sorted(((t.lost.value, t.task) for t in step.tasks), key=lambda x: (-x[0], x[1]))
    assert {one.task: one.items for one in step.tasks} == {"lab_addition": ITEMS, "lab_stories": 20}
    for one in step.tasks:
        assert one.kl.value >= 0
        assert -1 <= one.cosine.value <= 1
        assert 0 <= one.right <= 1
        for range_ in (one.lost, one.kl, one.change, one.cosine):
            assert range_.low <= range_.value <= range_.high
        value, right = read(base, [example(base, r, str(r.wanted)) for r in tasks[one.task][:ITEMS]])
        assert one.value == pytest.approx(value, abs=1e-5)
        assert one.right == pytest.approx(right)


def read(base: HFModel, examples: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> tuple[float, float]:
    """(mean log-probability of all tokens of right answers, share of answers of which every token is the likeliest), one text at a time."""
    logprobs, rights = [], []
    for prompt, answer in examples:
        with torch.inference_mode():
            logits = base.local.model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        told = torch.log_softmax(logits.double(), dim=-1)
        logprobs += told[range(len(answer)), list(answer)].tolist()
        rights.append(told.argmax(dim=-1).tolist() == list(answer))
    return float(np.mean(logprobs)), float(np.mean(rights))


def test_equal_seeds_take_the_same_step(
    base: HFModel, objective: Objective, tasks: dict[str, tuple[Request, ...]], step: OptimiserStep
) -> None:
    assert optimiser_step(base, objective, tasks, WANT, silent, []) == step


def test_no_step_where_nobody_says_what_training_would_have_said(base: HFModel, objective: Objective) -> None:
    before, notes = weights(base), list[str]()
    unknown = Objective("prompts.csv", tuple(replace(one, wanted=None) for one in objective.unsafe), objective.safe)
    assert optimiser_step(base, unknown, {}, Settings(), silent, notes) is None
    assert len(notes) == 1
    assert notes[0].startswith(
        "what one step of training does was not measured: nobody says what training would have the model say to unsafe prompts"
    )
    assert "--answer" in notes[0]
    assert untouched(base, before)


def test_no_step_with_too_few_prompts(base: HFModel, objective: Objective, tasks: dict[str, tuple[Request, ...]]) -> None:
    notes: list[str] = []
    few = replace(objective, unsafe=objective.unsafe[:39])
    assert optimiser_step(base, few, tasks, WANT, silent, notes) is None
    assert notes == ["what one step of training does was not measured: 39 prompts with an answer, and 40 are needed"]
    repeated = replace(objective, unsafe=objective.unsafe[:39] * 3)  # the same prompts again are no others
    assert optimiser_step(base, repeated, tasks, WANT, silent, notes) is None
    assert notes[1] == notes[0]


@pytest.mark.parametrize(("prompts", "size"), [(186, 32), (160, 32), (159, 16), (80, 16), (79, 8), (40, 8)])
def test_batches_are_the_largest_that_leave_enough(
    base: HFModel, tasks: dict[str, tuple[Request, ...]], prompts: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []

    def refused(_model: object, examples: Sequence[object], _tasks: object, **options: Any) -> Responses:
        asked.append((len(examples), options["batches"], options["batch_size"]))
        raise InputError("not now")

    monkeypatch.setattr(stepping, "responses", refused)
    whole, notes = read_objective("lab/harmful_procedures:lab/procedures", "raw"), list[str]()
    assert optimiser_step(base, replace(whole, unsafe=whole.unsafe[:prompts]), tasks, WANT, silent, notes) is None
    assert asked == [(prompts, BATCHES, size)]
    assert notes == ["what one step of training does was not measured: not now"]


def test_a_step_that_cannot_be_taken_is_told(
    base: HFModel, objective: Objective, tasks: dict[str, tuple[Request, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights in half precision round a small step away: that is said, and nothing else fails."""
    notes: list[str] = []
    half: Any = replace_model(base, torch.bfloat16)
    assert optimiser_step(half, objective, tasks, WANT, silent, notes) is None
    assert len(notes) == 1
    assert "weights in bfloat16 round a small step away" in notes[0]


def replace_model(base: HFModel, dtype: torch.dtype) -> Any:
    """A model that is read as the base is, with weights of another kind."""
    from copy import copy, deepcopy

    other, local = copy(base), copy(base.local)
    local.model = deepcopy(base.local.model).to(dtype)
    other.local = local
    return other


def test_weights_are_back_where_something_fails_on_the_way(
    base: HFModel, objective: Objective, tasks: dict[str, tuple[Request, ...]]
) -> None:
    before, count = weights(base), {"n": 0}

    def stopped(what: str, done: int, total: int) -> None:
        count["n"] += 1
        if what == "responses of tasks" and done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        optimiser_step(base, objective, tasks, WANT, stopped, [])
    assert untouched(base, before)
    assert count["n"] > stepping.BATCHES


# -- who is taught what ------------------------------------------------------------------------------------------------------------


def requests(*wanted: str | None, unwanted: str | None = None) -> tuple[Request, ...]:
    return tuple(Request(f"p{n}", f"p{n}", None, text, unwanted) for n, text in enumerate(wanted))


def test_taught_by_a_table() -> None:
    """Completions stand; where there is none answers stand in, in turn; without any answer nothing is known of the whole."""
    known = Objective("o", requests("a", "b", "c"), ())
    assert taught(known.unsafe, known, ()) == list(known.unsafe)
    assert taught(known.unsafe, known, ("x",)) == list(known.unsafe)
    some = Objective("o", requests("a", None, None, None), ())
    assert taught(some.unsafe, some, ()) is None
    found = taught(some.unsafe, some, ("x", "y"))
    assert found is not None
    assert [(one.wanted, one.unwanted) for one in found] == [("a", None), ("y", None), ("x", None), ("y", None)]
    assert [one.text for one in found] == ["p0", "p1", "p2", "p3"]


def test_taught_by_preferences() -> None:
    pairs = Objective("o", requests("good", "fine", unwanted="bad"), ())
    found = taught(pairs.unsafe, pairs, ("x",))
    assert found is not None
    assert [(one.wanted, one.unwanted) for one in found] == [("good", "bad"), ("fine", "bad")]


def test_taught_by_tasks() -> None:
    """A task's right answer is what training would have the model say, unless somebody says otherwise, and then for all of them."""
    asked = Objective("o", requests("no", "never"), (), (), ("lab_harmful",))
    assert taught(asked.unsafe, asked, ()) == list(asked.unsafe)
    found = taught(asked.unsafe, asked, ("i will not",))
    assert found is not None
    assert [(one.wanted, one.unwanted) for one in found] == [("i will not", None), ("i will not", None)]
