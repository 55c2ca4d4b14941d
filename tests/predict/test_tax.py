"""The tax of a safety objective from a base model: every prompt in one role, what is not identified has no number, and what is planted is found."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.predict import gather as module  # noqa: E402
from aligntax.predict.inputs import Capability, Objective, Request, capabilities, read_objective  # noqa: E402
from aligntax.predict.reading import Gradients, States  # noqa: E402
from aligntax.predict.results import Settings, TaxPrediction, as_json  # noqa: E402
from aligntax.predict.tax import predict_tax  # noqa: E402
from aligntax.report.predict_text import lead, risks_grid, view  # noqa: E402
from aligntax.report.terminal import console  # noqa: E402

QUICK = Settings(items=96, prompts=96, concepts=60)
PLANTED = Settings(items=96, prompts=96, concepts=60, metrics=False, step=False, place=-1)
TASKS = ["lab/addition", "lab/procedures", "lab/stories", "lab/honesty", "lab/brackets", "lab/harmful_procedures"]
D, LAYERS = 24, 3


@pytest.fixture(scope="module")
def objective() -> Objective:
    return read_objective("lab/harmful_procedures:lab/procedures", "raw")


@pytest.fixture(scope="module")
def found(base: HFModel, objective: Objective) -> TaxPrediction:
    return predict_tax(base, objective, capabilities(TASKS, "raw"), QUICK)


def test_a_prediction_of_an_embedded_model(found: TaxPrediction) -> None:
    assert found.objective == "lab/harmful_procedures:lab/procedures"
    assert "lab_harmful_procedures" not in {r.task for r in found.risks}
    assert {one.layer for one in found.layers} <= {0, 1, 2, 3, 4}
    assert found.layer in (1, 2, 3)
    assert found.chosen_by == "data"
    assert found.dimension == 32
    for one in found.layers:
        assert 0 <= one.fit.naive <= 1
        assert (one.fit.estimate is None) == (one.fit.reason is not None)
    cosines = [r.overlap.cosine for r in found.risks if r.overlap is not None]
    assert cosines == sorted(cosines)
    told = json.loads(as_json(found))
    assert (told["schema"], told["kind"], told["layer"]) == (2, "tax", found.layer)
    assert len(told["risks"]) == len(found.risks)


def test_beside_the_geometry_stand_a_step_and_other_definitions(found: TaxPrediction) -> None:
    assert found.made_of == "answers"  # of an unsafe task the right answer is what is wanted
    assert [one.name for one in found.metrics] == [
        "mean states", "linear probe", "without the largest axis", "without outlying coordinates", "where states lie", "across where states lie", "change of output (KL)",
    ]  # fmt: skip
    for one in found.metrics:
        if one.fit is not None and one.fit.overlaps:
            assert len(one.fit.overlaps) == len(found.tasks)
    assert found.step is not None
    assert found.step.after < found.step.loss
    lost = [t.lost.value for t in found.step.tasks]
    assert lost == sorted(lost, reverse=True)
    for t in found.step.tasks:
        assert t.kl.value >= 0
        assert t.lost.low <= t.lost.value <= t.lost.high
    assert {t.task for t in found.step.tasks} >= set(found.tasks)  # a direction that is mostly noise keeps no task from being asked
    assert set(found.used) == {t.task for t in found.step.tasks}
    said = " ".join(shown(found).split())
    assert "What one step of training does" in said
    assert "The same by other definitions" in said


def test_behaviour_is_measured_on_prompts_of_its_own(base: HFModel, objective: Objective) -> None:
    want = replace(QUICK, metrics=False, step=False, sweep=1, concepts=0)
    found = predict_tax(base, objective, capabilities(["lab/procedures", "lab/honesty"], "raw"), want)
    assert [(one.towards, one.task) for one in found.behaviour] == [
        (towards, max(found.risks, key=lambda r: abs(r.overlap.cosine) if r.overlap else 0.0).task) for towards in ("safety", "mean states")
    ]
    for one in found.behaviour:
        assert (one.angle is None or one.said is None) == (one.difference is None)
        assert one.angle is not None or one.reasons
        assert 0 < one.budget <= 0.2
    assert "Does the model behave as its directions say?" in " ".join(shown(found).split())


def test_equal_seeds_tell_the_same(base: HFModel, objective: Objective, found: TaxPrediction) -> None:
    again = predict_tax(base, objective, capabilities(TASKS, "raw"), QUICK)
    assert as_json(again) == as_json(found)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, set[Any]]]:
    """Every reading of the model: states or gradients, and the prompts."""
    read: list[tuple[str, set[Any]]] = []

    def states(model: Any, prompts: Sequence[Any], **more: Any) -> Iterator[States]:
        read.append(("states", set(prompts)))
        yield from hidden(model, prompts, **more)

    def grads(model: Any, examples: Sequence[Any], **more: Any) -> Iterator[Gradients]:
        read.append(("gradients", {prompt for prompt, _ in examples}))
        yield from gradients(model, examples, **more)

    hidden, gradients = module.hidden_states, module.gradients
    monkeypatch.setattr(module, "hidden_states", states)
    monkeypatch.setattr(module, "gradients", grads)
    return read


def test_every_prompt_has_one_role(base: HFModel, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    read = recorded(monkeypatch)
    predict_tax(base, objective, capabilities(TASKS, "raw"), replace(PLANTED, direction="states"))
    safety, tasks = [texts for what, texts in read if what == "states"], [texts for what, texts in read if what == "gradients"]
    assert len(safety) == 5  # two halves of two classes, and random concepts
    assert len(tasks) == 5
    everything = [*safety, *tasks]
    for i, one in enumerate(everything):
        for other in everything[i + 1 :]:
            assert not one & other


def test_every_prompt_has_one_role_where_answers_are_wanted(base: HFModel, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    read = recorded(monkeypatch)
    found = predict_tax(base, objective, capabilities(TASKS, "raw"), PLANTED)
    assert found.made_of == "answers"
    choosing, behind, *tasks = [texts for what, texts in read if what == "gradients"][:7]
    others = [texts for what, texts in read if what == "gradients"][7:]
    unsafe, safe = [texts for what, texts in read if what == "states"]  # the difference of mean states, beside
    assert unsafe == behind
    assert found.concepts.tried == len(others) > 0
    for i, one in enumerate([choosing, behind, safe, *tasks]):
        for other in [choosing, behind, safe, *tasks][i + 1 :]:
            assert not one & other
    for one in others:
        assert not one & set().union(behind, safe, *tasks)


def test_the_token_is_chosen_where_classes_stand_apart(base: HFModel, objective: Objective, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of prompts that end alike the last tokens may tell little; here only the third from the end is moved."""

    def states(model: Any, prompts: Sequence[Any], places: Sequence[int] = (-1,), **more: Any) -> Iterator[States]:
        for batch in hidden(model, prompts, places=places, **more):
            told = np.array([tuple(prompts[n]) in unsafe for n in batch.numbers], dtype=np.float32)
            yield States(batch.numbers, batch.states + (40.0 * told[:, None, None, None] if places[0] == -3 else 0.0))

    hidden = module.hidden_states
    unsafe = {module.prompt_tokens(base, one) for one in objective.unsafe}
    monkeypatch.setattr(module, "hidden_states", states)
    found = predict_tax(base, objective, capabilities(TASKS, "raw"), replace(PLANTED, direction="states", place=None))
    assert found.settings.place == -3
    assert "states at the token 3 from a prompt's end" in " ".join(shown(found).split())


def shown(found: TaxPrediction) -> str:
    screen = console()
    with screen.capture() as captured:
        screen.print(view(found))
    return captured.get()


def test_too_few_to_choose_a_layer_by(base: HFModel) -> None:
    few = read_objective("lab/harmful_procedures:lab/procedures", "raw", grouped=True)
    told = predict_tax(base, few, capabilities(TASKS, "raw"), QUICK)
    assert (told.chosen_by, told.layer) == ("rule", 2)
    assert any("the layer was not chosen by the data" in note for note in told.notes)
    assert all(one.z is None for one in told.layers)


def test_refused(base: HFModel, objective: Objective) -> None:
    with pytest.raises(InputError, match=r"--layer lies between 0 .* and 4; got 9"):
        predict_tax(base, objective, capabilities(TASKS, "raw"), Settings(layer=9))
    small = [Capability(t.name, t.requests[:20]) for t in capabilities(["lab/addition"], "raw")]
    with pytest.raises(InputError, match="no task has the 32 items"):
        predict_tax(base, objective, small, QUICK)
    one_group = Objective("o", tuple(Request(f"p {n}", f"p {n}", "g") for n in range(40)), objective.safe)
    with pytest.raises(InputError, match="o: 1 independent groups of prompts on one side, and 8 are needed"):
        predict_tax(base, one_group, capabilities(["lab/addition"], "raw"), QUICK)


# -- what is planted -------------------------------------------------------------------------------------------------------------


def planted(monkeypatch: pytest.MonkeyPatch, base: HFModel, cosines: Sequence[float], noise: float = 0.3) -> TaxPrediction:
    """States and gradients drawn around directions that are known: orthogonal tasks, and a safety direction with these cosines to them."""
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.normal(size=(D, len(cosines) + 1)))[0].T
    safety = np.asarray(cosines) @ axes[:-1] + np.sqrt(1 - np.sum(np.square(cosines))) * axes[-1]
    count = {"at": 0}

    def hidden(_model: Any, prompts: Sequence[Any], **_more: Any) -> Iterator[States]:
        sign = (
            0.0 if len(set(prompts)) and count["at"] >= 4 else (0.5 if count["at"] % 2 == 0 else -0.5)
        )  # unsafe, safe, unsafe, safe, concepts
        count["at"] += 1
        x = sign * safety + noise * rng.normal(size=(len(prompts), 5, 1, D))
        yield States(np.arange(len(prompts)), x.astype(np.float32))

    def grads(_model: Any, examples: Sequence[Any], **_more: Any) -> Iterator[Gradients]:
        task = axes[next(tasks)]
        x = task + noise * rng.normal(size=(len(examples), 5, D))
        yield Gradients(np.arange(len(examples)), x.astype(np.float32), np.full(len(examples), -0.1, dtype=np.float32))

    tasks = iter(range(len(cosines)))
    monkeypatch.setattr(module, "hidden_states", hidden)
    monkeypatch.setattr(module, "gradients", grads)

    def requests(name: str, size: int, wanted: str | None = " yes") -> tuple[Request, ...]:
        return tuple(Request(f"{name} {n}", f"{name} {n}", None, wanted) for n in range(size))

    names = [f"t{n}" for n in range(len(cosines))]
    return predict_tax(
        base,
        Objective("o", requests("bad", 200, None), requests("good", 200, None)),
        [Capability(n, requests(n, 200)) for n in names],
        PLANTED,
    )


def test_planted_overlaps_are_found_with_their_signs(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    found = planted(monkeypatch, base, (-0.6, 0.4, 0.0))
    of = {r.task: r for r in found.risks}
    for task, cosine in zip(("t0", "t1", "t2"), (-0.6, 0.4, 0.0), strict=True):
        overlap = of[task].overlap
        assert overlap is not None
        assert overlap.low - 0.05 < cosine < overlap.high + 0.05
        assert abs(overlap.naive) <= abs(overlap.cosine) + 1e-9
    assert found.fit.estimate == pytest.approx(0.52, abs=0.1)
    assert found.free == pytest.approx(np.sqrt(1 - found.fit.estimate))
    grid = {row[0]: row[4] for row in risks_grid(found).rows}
    assert grid["t0"] == "lowered"
    assert grid["t1"] == "raised"
    assert grid["t2"] == "not shown"
    assert [r.task for r in found.risks] == ["t0", "t2", "t1"]


def test_noise_alone_is_not_identified(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    with pytest.raises(InputError, match="no task has a direction that can be told from noise"):
        planted(monkeypatch, base, (0.5, 0.0), noise=40.0)


def test_a_page_of_words_for_people(found: TaxPrediction) -> None:
    screen = console()
    with screen.capture() as captured:
        screen.print(view(found))
    said = captured.get()
    assert lead(found).split(".")[0] in " ".join(said.split())
    assert "Tasks by predicted risk" in said
    assert re.search(r"\bnan\b", said) is None
