"""Safety objectives against each other: planted conflicts are told by their outcome, every prompt has one role, and what is not identified has no number."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.predict import conflicts, gather  # noqa: E402
from aligntax.predict.conflict_results import Conflicts, as_json, level_of, outcome  # noqa: E402
from aligntax.predict.conflicts import predict_conflicts  # noqa: E402
from aligntax.predict.inputs import Capability, Objective, Request, capabilities, read_objective  # noqa: E402
from aligntax.predict.reading import Gradients, States  # noqa: E402
from aligntax.predict.results import Settings  # noqa: E402
from aligntax.stats.coupling import kept  # noqa: E402

D, LAYERS = 24, 5
QUICK = Settings(items=96, prompts=96)
TASKS = ["lab/addition", "lab/stories", "lab/procedures", "lab/harmful_procedures"]
Vector = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def objectives() -> list[Objective]:
    return [
        read_objective(name, "raw") for name in ("lab/harmful_procedures:lab/procedures", "lab/torn:lab/secrecy", "lab/torn:lab/honesty")
    ]


@pytest.fixture(scope="module")
def found(base: HFModel, objectives: list[Objective]) -> Conflicts:
    return predict_conflicts(base, objectives, capabilities(TASKS, "raw"), QUICK)


def test_conflicts_in_an_embedded_model(found: Conflicts) -> None:
    assert [(pair.first, pair.second) for pair in found.pairs] == [
        ("lab/harmful_procedures:lab/procedures", "lab/torn:lab/secrecy"),
        ("lab/harmful_procedures:lab/procedures", "lab/torn:lab/honesty"),
        ("lab/torn:lab/secrecy", "lab/torn:lab/honesty"),
    ]
    assert (found.chosen_by, found.dimension) == ("data", 32)
    assert found.layer in (1, 2, 3)
    names = [task.task for task in found.tasks]
    assert "lab_harmful_procedures" not in names
    for pair in found.pairs:
        assert [one.task for one in pair.each] == names
        assert (pair.rho is None) == (pair.whole.reason is not None)
    assert any(
        "lab/torn:lab/secrecy and lab/torn:lab/honesty have" in note and "in common on the same side" in note for note in found.notes
    )
    assert found.pairs[2].common > 100
    told = json.loads(as_json(found))
    assert (told["schema"], told["kind"], len(told["pairs"])) == (1, "conflicts", 3)
    assert "concepts" not in told["settings"]
    assert told["pairs"][2]["together"]["outcome"] == outcome(found, found.pairs[2], found.pairs[2].together)  # type: ignore[arg-type]


def test_equal_seeds_tell_the_same(base: HFModel, objectives: list[Objective], found: Conflicts) -> None:
    assert as_json(predict_conflicts(base, objectives, capabilities(TASKS, "raw"), QUICK)) == as_json(found)


def test_every_prompt_has_one_role(base: HFModel, objectives: list[Objective], monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts that choose the layer give no direction, also not another objective's, and no task has one of them."""
    states: list[set[Any]] = []
    tasks: list[set[Any]] = []
    hidden, gradients = gather.hidden_states, gather.gradients

    def read(model: Any, prompts: Sequence[Any], **more: Any) -> Iterator[States]:
        states.append(set(prompts))
        yield from hidden(model, prompts, **more)

    def grads(model: Any, examples: Sequence[Any], **more: Any) -> Iterator[Gradients]:
        tasks.append({prompt for prompt, _ in examples})
        yield from gradients(model, examples, **more)

    monkeypatch.setattr(gather, "hidden_states", read)
    monkeypatch.setattr(gather, "gradients", grads)
    told = predict_conflicts(base, objectives, capabilities(TASKS, "raw"), QUICK)
    assert (len(states), len(tasks)) == (12, 3)
    choosing, giving = (set.union(*part) for part in (states[:6], states[6:]))
    assert not choosing & giving
    assert states[8] == states[10]  # what both objectives hold stands in the same half of each
    for n, one in enumerate(tasks):
        for other in (choosing, giving, *tasks[n + 1 :]):
            assert not one & other
    assert any(
        "300 prompts of lab_procedures" not in note and "lab_procedures are the safety objective's as well" in note for note in told.notes
    )


# -- what is planted -------------------------------------------------------------------------------------------------------------


def requests(name: str, size: int) -> tuple[Request, ...]:
    return tuple(Request(f"{name}|{n}", f"{name}|{n}", None, " yes") for n in range(size))


def objective(name: str, size: int = 200) -> Objective:
    return Objective(name, requests(f"{name}|bad", size), requests(f"{name}|good", size))


def planted(
    monkeypatch: pytest.MonkeyPatch,
    base: HFModel,
    vectors: Mapping[str, Vector],
    tasks: Mapping[str, Vector],
    noise: float = 0.25,
    objectives: Sequence[Objective] | None = None,
    settings: Settings = QUICK,
) -> Conflicts:
    """States and gradients drawn around directions that are known, by the names in the prompts."""
    rng = np.random.default_rng(3)
    signs = {"bad": 0.5, "good": -0.5}

    def around(prompt: Sequence[Any]) -> Vector:
        name, which = str(prompt[0]).split("|")[:2]
        return signs[which] * vectors[name] + noise * rng.normal(size=(LAYERS, D))

    def hidden(_model: Any, prompts: Sequence[Any], **_more: Any) -> Iterator[States]:
        x = np.stack([around(prompt)[:, None] for prompt in prompts])
        yield States(np.arange(len(prompts)), x.astype(np.float32))

    def grads(_model: Any, examples: Sequence[Any], **_more: Any) -> Iterator[Gradients]:
        x = []
        for (text,), (answer,) in examples:
            name = text.split("|")[0]
            true = tasks[name] if name in tasks else (0.5 if answer == "chosen" else -0.5) * vectors[name]
            x.append(true + noise * rng.normal(size=(LAYERS, D)))
        yield Gradients(np.arange(len(examples)), np.stack(x).astype(np.float32), np.full(len(examples), -0.1, dtype=np.float32))

    monkeypatch.setattr(gather, "hidden_states", hidden)
    monkeypatch.setattr(gather, "gradients", grads)
    monkeypatch.setattr(gather, "prompt_tokens", lambda _model, one: (one.text,))
    monkeypatch.setattr(gather, "example", lambda _model, one, answer: ((one.text,), (answer,)))
    given = objectives or [objective(name) for name in vectors]
    return predict_conflicts(base, given, [Capability(name, requests(name, 96)) for name in tasks], settings)


def three(rho: float, a: float, b: float) -> tuple[dict[str, Vector], dict[str, Vector]]:
    """Two objectives with the cosine rho and one task with cosines a and b to them, and a task that is none of theirs."""
    axes = np.linalg.qr(np.random.default_rng(4).normal(size=(D, 4)))[0].T
    root = np.linalg.cholesky(np.array([[1, a, b], [a, 1, rho], [b, rho, 1]])) @ axes[:3]
    return {"A": root[1], "B": root[2]}, {"task": root[0], "other": axes[3]}


@pytest.mark.parametrize(
    ("rho", "a", "b", "said"),
    [
        (-0.3, 0.6, -0.7, "resolved"),
        (-0.3, 0.6, -0.5, "mediated"),
        (-0.6, 0.5, -0.4, "attenuated"),
        (-0.4, 0.0, 0.0, "unchanged"),
        (-0.3, 0.6, 0.5, "worsened"),
        (0.2, 0.6, 0.7, "induced"),
        (0.5, 0.5, 0.5, "none"),
    ],
)
def test_planted_outcomes(monkeypatch: pytest.MonkeyPatch, base: HFModel, rho: float, a: float, b: float, said: str) -> None:
    vectors, tasks = three(rho, a, b)
    found = planted(monkeypatch, base, vectors, tasks, noise=0.12, settings=replace(QUICK, prompts=400))
    (pair,) = found.pairs
    assert pair.rho is not None
    assert pair.together is not None
    assert pair.together.partial is not None
    truth = (rho - a * b) / np.sqrt((1 - a * a) * (1 - b * b))
    assert pair.rho.low - 0.05 < rho < pair.rho.high + 0.05
    assert pair.together.partial.low - 0.05 < truth < pair.together.partial.high + 0.05
    assert outcome(found, pair, pair.each[0]) == said
    assert outcome(found, pair, pair.together) == said
    assert outcome(found, pair, pair.each[1]) == ("unchanged" if rho < 0 else "none")
    level = level_of(pair)
    exact = kept(vectors["A"], vectors["B"], np.stack([*tasks.values()], axis=1))
    assert level is not None
    assert (level.before, level.after) == (pytest.approx(exact.fair_before, abs=0.05), pytest.approx(exact.fair_after, abs=0.05))
    assert level.after <= level.before


def test_a_weak_overlap_is_not_shown(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    vectors, tasks = three(-0.05, 0.1, -0.1)
    found = planted(monkeypatch, base, vectors, tasks, noise=0.4)
    (pair,) = found.pairs
    assert pair.rho is not None
    assert pair.rho.low < 0 < pair.rho.high
    assert {outcome(found, pair, one) for one in pair.each} == {"not shown"}


def test_p_values_are_holms_over_the_tasks(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    found = planted(monkeypatch, base, *three(-0.3, 0.2, 0.1))
    (pair,) = found.pairs
    raw = sorted(one.change.p for one in pair.each if one.change is not None)
    adjusted = sorted(one.p_holm for one in pair.each if one.p_holm is not None)
    assert adjusted == pytest.approx([min(1.0, 2 * raw[0]), max(min(1.0, 2 * raw[0]), raw[1])])
    assert pair.together is not None
    assert pair.together.change is not None
    assert pair.together.p_holm == pair.together.change.p


def test_preferences_and_classes_together(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    vectors, tasks = three(-0.5, 0.3, 0.3)
    pairs = tuple(Request(f"B|{n}", f"B|{n}", f"B|{n}", "chosen", "rejected") for n in range(200))
    found = planted(monkeypatch, base, vectors, tasks, objectives=[objective("A"), Objective("B", pairs, ())])
    (pair,) = found.pairs
    assert pair.rho is not None
    assert pair.rho.low < -0.5 < pair.rho.high
    assert [one.made_of for one in found.objectives] == ["states", "preferences"]
    assert any("a vector" in note and "a covector" in note for note in found.notes)


def test_what_cannot_be_told_from_noise(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    vectors, tasks = three(-0.3, 0.6, -0.5)
    alone = planted(
        monkeypatch, base, {name: 4 * v for name, v in vectors.items()}, {name: 0.01 * v for name, v in tasks.items()}, noise=1.0
    )
    (pair,) = alone.pairs
    assert alone.tasks == ()
    assert (pair.together, pair.each, level_of(pair)) == (None, (), None)
    assert pair.rho is not None
    assert pair.rho.high < 0
    assert any("no task has a direction that can be told from noise: objectives are set against each other" in note for note in alone.notes)
    weak = planted(monkeypatch, base, {"A": vectors["A"], "B": 0.01 * vectors["B"]}, tasks)
    (pair,) = weak.pairs
    assert pair.rho is None
    assert pair.whole.reason is not None
    assert "the direction of B has reliability" in pair.whole.reason
    assert pair.together is not None
    assert outcome(weak, pair, pair.together) == "not identified"
    assert json.loads(as_json(weak))["pairs"][0]["whole"]["rho"] is None


def test_prompts_in_common_are_in_common_blocks(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    """Noise that two objectives share by their prompts makes no cosine: products of one block are left out."""
    seen: dict[str, Any] = {}

    def blocks_of(parts: Mapping[str, tuple[Sequence[Request], str]]) -> tuple[int, dict[str, Any]]:
        count, blocks = gather.blocks_of(parts)
        seen.update({name: (rows, blocks[name]) for name, (rows, _) in parts.items()})
        return count, blocks

    monkeypatch.setattr(conflicts, "blocks_of", blocks_of)
    vectors, tasks = three(-0.3, 0.2, 0.1)
    shared = tuple(replace(one, group=f"g{n % 40}" if n < 60 else None) for n, one in enumerate(requests("A|good", 120)))
    plain = tuple(replace(one, group=None) for one in shared)
    given = [Objective("A", requests("A|bad", 120), shared), Objective("B", requests("B|bad", 120), plain)]
    found = planted(monkeypatch, base, vectors, tasks, objectives=given, settings=replace(QUICK, prompts=400))
    assert found.pairs[0].common == 120
    assert any("120 prompts in common on the same side" in note for note in found.notes)
    first, second = ({one.text: block for one, block in zip(*seen[f"{name}, safe prompts"], strict=True)} for name in "AB")
    assert first == second
    assert 40 <= len(first) <= 80
    by_group: dict[Any, set[Any]] = {}
    for one in shared:
        if one.text in first and one.group is not None:
            by_group.setdefault(one.group, set()).add(first[one.text])
    assert {len(blocks) for blocks in by_group.values()} == {1}
    turned = planted(monkeypatch, base, vectors, tasks, objectives=[given[0], Objective("B", shared, requests("B|good", 120))])
    assert any("120 prompts in common on opposite sides" in note for note in turned.notes)


def test_too_few_to_choose_a_layer_by(base: HFModel) -> None:
    few = [
        read_objective(name, "raw", grouped=True) for name in ("lab/harmful_procedures:lab/procedures", "lab/manipulation:lab/persuasion")
    ]
    told = predict_conflicts(base, few, capabilities(TASKS, "raw"), QUICK)
    assert (told.chosen_by, told.layer) == ("rule", 2)
    assert any("the layer was not chosen by the data: lab/harmful_procedures:lab/procedures has" in note for note in told.notes)


def test_refused(base: HFModel, objectives: list[Objective]) -> None:
    tasks = capabilities(["lab/addition"], "raw")
    with pytest.raises(InputError, match="a conflict takes two safety objectives or more, and 1 was given"):
        predict_conflicts(base, objectives[:1], tasks)
    with pytest.raises(InputError, match="hold the same prompts on the same sides: an objective has no conflict with itself"):
        predict_conflicts(base, [objectives[0], replace(objectives[0], name="again")], tasks)
    with pytest.raises(InputError, match=r"--layer lies between 0 .* and 4; got 9"):
        predict_conflicts(base, objectives, tasks, Settings(layer=9))
    with pytest.raises(InputError, match="layer 0 of base-w32 is the same after all prompts of lab/harmful_procedures:lab/procedures"):
        predict_conflicts(base, objectives, tasks, Settings(layer=0, prompts=48, items=32))
    with pytest.raises(InputError, match="no task has the 16 items in 8 groups"):
        predict_conflicts(base, objectives, [Capability(t.name, t.requests[:12]) for t in tasks])
    one_group = Objective("o", tuple(Request(f"p {n}", f"p {n}", "g") for n in range(40)), objectives[0].safe)
    with pytest.raises(InputError, match="o: 1 independent groups of prompts on one side, and 8 are needed"):
        predict_conflicts(base, [one_group, objectives[1]], tasks)


def test_files_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch, base: HFModel) -> None:
    vectors, tasks = three(-0.3, 0.2, 0.1)
    given = [replace(objective(name), name="prompts.csv") for name in vectors]
    found = planted(monkeypatch, base, vectors, tasks, objectives=given)
    assert [one.name for one in found.objectives] == ["prompts.csv", "prompts.csv (2)"]


def test_wanted_answers_are_directions_as_well(base: HFModel) -> None:
    one, two = (read_objective(f"lab/{name}:lab/procedures", "raw") for name in ("harmful_procedures", "manipulation"))
    want = Settings(items=48, prompts=64, direction="answers", answers=("i cannot help with that.",))
    found = predict_conflicts(base, [one, two], capabilities(["lab/addition", "lab/stories"], "raw"), want)
    assert [(o.made_of, o.safe) for o in found.objectives] == [("answers", 0)] * 2
    assert found.pairs[0].rho is not None
    assert found.pairs[0].rho.low > 0  # the same is to be said, to requests of one form
    told = json.loads(as_json(found))["settings"]
    assert (told["direction"], told["answers"]) == ("answers", ["i cannot help with that."])
    with pytest.raises(InputError, match="nobody says what is wanted of unsafe prompts"):
        predict_conflicts(
            base,
            [replace(one, unsafe_tasks=(), unsafe=tuple(replace(r, wanted=None) for r in one.unsafe)), two],
            capabilities(["lab/addition"], "raw"),
            replace(want, answers=()),
        )
