"""The behavioural angle of a model: shifts do what gradients say, planted angles are found, and small budgets give the angle of the mean gradients."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, LlamaConfig  # noqa: E402

from aligntax.models.hf import HFModel  # noqa: E402
from aligntax.predict import sweep as module  # noqa: E402
from aligntax.predict.reading import gradients  # noqa: E402
from aligntax.predict.sweep import Represented, Swept, angles, metric_gradients, represented, shifted, sweep  # noqa: E402
from aligntax.stats.directions import Sample, cross_fitted  # noqa: E402
from tests.predict.test_reading import FAMILIES, mean_logprob, random_model  # noqa: E402

Rng = np.random.Generator
PHASES = np.arange(24) * 2 * np.pi / 24
BUDGETS = np.array([0.5, 1.0, 2.0])


def draws(count: int, seed: int, words: int = 12) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    rng = np.random.default_rng(seed)
    return [tuple(tuple(rng.integers(1, words, n).tolist()) for n in rng.integers(1, 5, 2)) for _ in range(count)]  # type: ignore[misc]


SAFETY = [(p, a, b if n % 3 else None) for n, ((p, a), (_, b)) in enumerate(zip(draws(9, 1), draws(9, 2), strict=True))]
TASKS = {"one": draws(8, 3), "two": draws(10, 4)}


def tokens_of(model: HFModel, pairs: list[tuple[str, str]]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    out = []
    for prompt, answer in pairs:
        whole = tuple(model.local.tokenizer(f"question: {prompt} answer: {answer}")["input_ids"])
        count = len(model.local.tokenizer(f"question: {prompt} answer:")["input_ids"])
        out.append((whole[:count], whole[count:]))
    return out


SUMS = [(f"what is {a} + {b}?", str(a + b)) for a in (11, 14, 23) for b in (12, 25, 31, 54)]
STEPS = [
    (f"how do i make a {q} {t}?", "take clay, press it with lime, and keep it in a tub.")
    for q in ("soft", "bright", "warm")
    for t in ("candle", "lamp", "rope", "cup")
]


# -- shifts ----------------------------------------------------------------------------------------------------------------------


def slope(model: Any, layer: int, examples: Any, vector: Any, head: Any) -> float:
    """Of the mean log-odds along a vector, by shifts up and down."""
    metric = module._Metric.made(model, "these", [(*one, None) for one in examples])
    change, _ = module._Reader(model, layer, head, 64).changes(metric, np.stack([vector, -vector]))
    return float(change[:, 0].mean() - change[:, 1].mean()) / 2


def test_shifts_do_what_gradients_say_at_every_layer(base: HFModel) -> None:
    model, head = base.local.model, base.scorer.head
    examples = tokens_of(base, SUMS + STEPS)
    found = np.concatenate([b.gradients for b in gradients(model, examples, head=head)]).mean(axis=0)
    rng = np.random.default_rng(1)
    assert len(found) == 5
    for layer, gradient in enumerate(found):
        vector = rng.normal(size=32)
        vector += 2 * np.linalg.norm(vector) * gradient / np.linalg.norm(gradient)  # nearly orthogonal ones would test rounding
        vector *= 0.01 / np.linalg.norm(vector)
        assert slope(model, layer, examples, vector, head) == pytest.approx(float(gradient @ vector), rel=3e-3)
        assert slope(model, layer, examples, vector, None) == pytest.approx(float(gradient @ vector), rel=3e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_shifted(family: str) -> None:
    model = random_model(family)
    examples = TASKS["two"]
    found = np.concatenate([b.gradients for b in gradients(model, examples)]).mean(axis=0)
    rng = np.random.default_rng(2)
    for layer, gradient in enumerate(found):
        vector = rng.normal(size=16)
        vector *= 2e-3 * np.sign(gradient @ vector)
        assert slope(model, layer, examples, vector, None) == pytest.approx(float(gradient @ vector), rel=2e-2, abs=3e-6)


def test_a_shift_is_set_between_passes_and_gone_afterwards() -> None:
    model = random_model("llama")
    tokens = torch.tensor([[5, 3, 9, 4]])
    places = torch.tensor([0, 0]), torch.tensor([1, 2])
    with torch.inference_mode():
        before = model(input_ids=tokens).logits
        layers = model(input_ids=tokens, output_hidden_states=True).hidden_states
        with shifted(model, 1) as shift:
            assert torch.equal(model(input_ids=tokens).logits, before)
            shift.places, shift.by = places, torch.ones(16)
            one = model(input_ids=tokens).logits
            assert shift.seen is not None
            assert torch.allclose(shift.seen, layers[1][places])
            shift.by = 2 * torch.ones(16)
            two = model(input_ids=tokens).logits
            shift.by = None
            assert torch.equal(model(input_ids=tokens).logits, before)
        assert torch.equal(model(input_ids=tokens).logits, before)
    assert torch.equal(one[0, 0], before[0, 0])  # what comes before the shift knows nothing of it
    assert (one[0, 1:] != before[0, 1:]).any(dim=-1).all()
    assert not torch.equal(one, two)


def test_a_model_whose_blocks_are_not_known() -> None:
    class Odd(torch.nn.Module):
        def __init__(self, lists: int) -> None:
            super().__init__()
            self.config = LlamaConfig(num_hidden_layers=2)
            for n in range(lists):
                self.add_module(
                    f"part{n}", torch.nn.ModuleList([torch.nn.ModuleList([torch.nn.Linear(1, 1) for _ in range(2)]) for _ in range(2)])
                )

        @property
        def base_model(self) -> Any:
            return self

    for lists, said in ((0, "no list of 2 modules"), (2, r"2 lists of 2 modules \(part0, part1\)")):
        with pytest.raises(InputError, match=said), shifted(Odd(lists), 1):
            pass
    with shifted(Odd(1), 1):  # lists within its blocks are none of blocks
        pass
    with pytest.raises(InputError, match="no part that ends with its last states; choose a layer below 2"), shifted(Odd(1), 2):
        pass


# -- the sweep -------------------------------------------------------------------------------------------------------------------


def test_values_are_those_of_each_prompt_alone() -> None:
    """Whatever the batches: the model is read by hand, with its embeddings shifted."""
    model = random_model("llama")
    rng = np.random.default_rng(5)
    v, c = rng.normal(size=16), rng.normal(size=(2, 16))
    told: list[tuple[str, int, int]] = []
    budgets = (0.2, 0.1, 0.4)
    found = sweep(model, 0, v, c, SAFETY, TASKS, budgets=budgets, batch_tokens=30, tell=lambda *now: told.append(now))
    again = sweep(model, 0, 3 * v, 7 * c, SAFETY, TASKS, budgets=budgets, batch_tokens=1000)
    assert [one.capability for one in found] == ["one", "two"]
    for one, same, direction in zip(found, again, c, strict=True):
        e1 = direction / np.linalg.norm(direction)
        e2 = v - (v @ e1) * e1
        e2 /= np.linalg.norm(e2)
        assert one.naive == pytest.approx(np.arccos(v @ e1 / np.linalg.norm(v)))
        assert one.safety.shape == (9, 3, 24)
        assert one.values.shape == (len(TASKS[one.capability]), 3, 24)
        assert one.values == pytest.approx(same.values, abs=1e-4)
        for b, k in ((2, 5), (1, 13)):
            shift = budgets[b] * (np.cos(PHASES[k]) * e1 + np.sin(PHASES[k]) * e2)

            def change(p: Any, a: Any, shift: Any = shift) -> float:
                return mean_logprob(model, p, a, shift.astype(np.float32), odds=True) - mean_logprob(model, p, a, odds=True)

            for n, (p, wanted, unwanted) in enumerate(SAFETY):
                expected = change(p, wanted) - (change(p, unwanted) if unwanted is not None else 0)
                assert one.safety[n, b, k] == pytest.approx(expected, abs=2e-4)
            for n, (p, a) in enumerate(TASKS[one.capability]):
                assert one.values[n, b, k] == pytest.approx(change(p, a), abs=2e-4)
    assert told[-1] == ("two", 10, 10)
    assert ("safety in the plane of one", 15, 15) in told
    assert ("gradients of safety", 15, 15) in told


def test_small_budgets_give_the_angle_of_the_mean_gradients(base: HFModel) -> None:
    """On the prompts that the directions are of it is that between the directions, and whatever the plane is, that of the gradients in it."""
    model, head = base.local.model, base.scorer.head
    sums, steps = tokens_of(base, SUMS), tokens_of(base, STEPS)
    refusal = tokens_of(base, [(STEPS[0][0], "i cannot help with that.")])[0][1]
    safety = [(prompt, refusal, answer) for prompt, answer in steps]
    for layer in (1, 4):
        v = metric_gradients(model, layer, safety, head=head).mean(axis=0)
        c = metric_gradients(model, layer, [(*one, None) for one in sums], head=head).mean(axis=0)
        other = np.random.default_rng(3).normal(size=32)
        for direction, angle in (
            (v, np.arccos(v @ c / np.linalg.norm(v) / np.linalg.norm(c))),
            (v / np.linalg.norm(v) + 0.2 * other, None),
        ):
            swept = sweep(model, layer, direction, c[None], safety, {"sums": sums}, head=head, budgets=(0.01, 0.02, 0.04))
            result = angles(swept)[0]
            assert result.linear is not None
            assert result.behaviour.angle == pytest.approx(result.linear, abs=0.01)
            assert result.turned is not None
            assert result.turned.difference == pytest.approx(result.behaviour.angle - result.linear, abs=1e-9)
            assert result.linear_se == pytest.approx(result.behaviour.se, rel=0.05)
            if angle is None:
                assert abs(result.linear - result.naive) > 0.1
            else:
                assert result.linear == pytest.approx(angle, abs=1e-5)
                assert result.naive == pytest.approx(angle, abs=1e-5)


def test_a_model_of_two_tokens_is_linear() -> None:
    """Its log-odds are the difference of both logits: at the last layer the wanted token goes up exactly as the other one goes down."""
    config = LlamaConfig(
        vocab_size=2, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, max_position_embeddings=16
    )
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config).eval()
    rng = np.random.default_rng(1)
    prompts = [tuple(rng.integers(0, 2, 4).tolist()) for _ in range(10)]
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
    w = (model.lm_head.weight[1] - model.lm_head.weight[0]).detach().double().numpy()
    v, c = rng.normal(size=(2, 8))
    swept = sweep(model, 1, v, c[None], [(p, (1,), None) for p in prompts], {"other": [(p, (0, 0)) for p in prompts]})[0]
    inside = w @ np.stack([c, v - (v @ c) / (c @ c) * c]).T / [np.linalg.norm(c), np.linalg.norm(v - (v @ c) / (c @ c) * c)]
    expected = BUDGETS[:, None] / 2 * swept.budgets.max() * (inside[0] * np.cos(PHASES) + inside[1] * np.sin(PHASES))
    assert swept.budgets == pytest.approx(0.2 * swept.length * np.array([0.25, 0.5, 1]), rel=1e-6)  # nothing is curved
    assert swept.safety == pytest.approx(np.tile(expected, (10, 1, 1)), abs=1e-4)
    assert swept.values == pytest.approx(-swept.safety, abs=1e-4)
    assert swept.slopes == pytest.approx(np.tile(-inside, (10, 1)), rel=1e-4)
    assert angles([swept])[0].behaviour.angle == pytest.approx(np.pi, abs=1e-3) or angles([swept])[0].behaviour.angle == pytest.approx(
        -np.pi, abs=1e-3
    )


def test_budgets_are_as_small_as_the_second_harmonic_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task whose second harmonic is a tenth of the first at .06 of a state's length, 5 long, and less below."""
    model = random_model("llama")
    v, c = np.eye(16)[1], np.eye(16)[0]
    curved = 0.1 / (0.06 * 5)

    def changes(self: Any, metric: Any, shifts: Any, tell: Any = None) -> Any:
        x, y = shifts @ c, shifts @ v
        quadratic = curved * (x**2 - y**2) if metric.name == bent else 0
        return np.tile(x + quadratic, (metric.count, 1)), 5.0

    monkeypatch.setattr(module._Reader, "changes", changes)
    for name, largest in (("the task 'one'", 0.05 * 5), ("the safety objective", 0.05 * 5), ("none", 0.2 * 5)):
        bent = name
        swept = sweep(model, 1, v, c[None], SAFETY, {"one": TASKS["one"]})[0]
        assert swept.budgets == pytest.approx(largest * np.array([0.25, 0.5, 1]))
        assert swept.length == 5
    curved, bent = 100.0, "the safety objective"
    assert sweep(model, 1, v, c[None], SAFETY, {"one": TASKS["one"]})[0].budgets.max() == pytest.approx(0.2 / 64 * 5)


# -- angles ----------------------------------------------------------------------------------------------------------------------


def planted(rng: Rng, directions: Any, truths: Any, prompts: int = 40, cubic: float = 0.0) -> Swept:
    """A linear model whose metrics have the mean gradients ``truths`` (safety, task), in the plane of ``directions``."""
    v, c = (x / np.linalg.norm(x) for x in directions)
    axes = np.stack([c, (v - (v @ c) * c) / np.linalg.norm(v - (v @ c) * c)])
    slopes = [t @ axes.T + 0.3 * rng.normal(size=(prompts, 2)) for t in truths]
    shifts = BUDGETS[:, None, None] * np.column_stack([np.cos(PHASES), np.sin(PHASES)])
    values = [np.einsum("px,bkx->pbk", s, shifts) for s in slopes]
    values[0] = values[0] + cubic * shifts[..., 0] ** 3
    return Swept("task", 1, 5.0, float(np.arccos(v @ c)), BUDGETS, PHASES, values[0], values[1], slopes[0], slopes[1])


def two(rho: float, d: int) -> tuple[Any, Any]:
    """Safety and task, in d dimensions."""
    v, c = np.zeros((2, d))
    c[0], v[:2] = 1, (rho, np.sqrt(1 - rho**2))
    return v, c


def test_a_planted_angle_is_found_and_another_is_refuted() -> None:
    rng = np.random.default_rng(6)
    v, c = two(np.cos(np.deg2rad(68)), 16)
    result = angles([planted(rng, (v, c), (v, c))], [Represented(np.cos(np.deg2rad(68)), 0.02)])[0]
    assert result.behaviour.angle == pytest.approx(np.deg2rad(68), abs=0.15)
    assert result.linear == pytest.approx(result.behaviour.angle, abs=1e-9)
    assert result.represented == result.expected == pytest.approx(np.deg2rad(68))
    assert result.represented_se == pytest.approx(0.02 / np.sin(np.deg2rad(68)))
    assert result.expected_se == pytest.approx(result.represented_se, rel=1e-3)
    assert result.agreement is not None
    assert result.agreement.p > 0.05
    assert result.reasons == ()
    assert (result.prompts, result.items, result.budgets) == (40, 40, (0.5, 1.0, 2.0))
    # A metric that answers along something else than the direction: only behaviour and gradients agree.
    away = angles([planted(rng, (v, c), (-c + 0.3 * v, c))], [Represented(np.cos(np.deg2rad(68)), 0.02)])[0]
    assert away.agreement is not None
    assert away.agreement.p < 1e-6
    assert away.turned is not None
    assert away.turned.difference == pytest.approx(0, abs=1e-9)
    # Curvature of an odd order turns behaviour away from the gradients.
    bent = angles([planted(rng, (v, c), (v, c), cubic=0.1)])[0]
    assert bent.turned is not None
    assert bent.turned.high < -0.02
    assert json.loads(json.dumps(asdict(bent)))["behaviour"]["budgets"][2]["budget"] == 2


def study(rng: Rng, studies: int, rho: float, d: int, rows: int, noise: float) -> tuple[float, float, float, float]:
    """(coverage of the difference, mean behaviour, mean expected, mean represented) where the plane is of noisy directions."""
    v, c = two(rho, d)
    hits, found = [], []
    for _ in range(studies):
        one, other = (x + noise * rng.normal(size=(rows, d)) for x in (v, c))
        fit = cross_fitted(Sample(one), [Sample(other)])
        result = angles([planted(rng, (one.mean(axis=0), other.mean(axis=0)), (v, c), 60)], represented(fit))[0]
        if result.agreement is None or result.behaviour.angle is None or result.expected is None or result.represented is None:
            continue
        hits.append(result.agreement.low <= 0 <= result.agreement.high)
        found.append((result.behaviour.angle, result.expected, result.represented))
    return (float(np.mean(hits)), *np.rad2deg(np.mean(found, axis=0)).tolist())


def test_noise_of_the_directions_is_reckoned_with() -> None:
    """Reliabilities of .75: what is left of both gradients in the plane of their estimates is nearer than they are."""
    covered, shown, expected, alone = study(np.random.default_rng(7), 60, 0.5, 64, 96, np.sqrt(96 / 64 / 3))
    assert alone == pytest.approx(60, abs=2.5)
    assert shown == pytest.approx(expected, abs=3)
    assert shown < alone - 4.5
    assert covered >= 0.85


def test_what_noise_leaves_in_the_plane() -> None:
    def degrees(*of: float) -> float:
        return float(np.rad2deg(np.arccos(module._in_plane(*of))))

    assert degrees(0.5, 1, 1) == pytest.approx(60)
    assert degrees(0.5, 0.9, 0.9) == pytest.approx(56.8, abs=0.1)
    assert degrees(0.5, 2 / 3, 2 / 3) == pytest.approx(50.5, abs=0.1)
    assert degrees(-0.5, 2 / 3, 2 / 3) == pytest.approx(180 - 50.5, abs=0.1)
    assert degrees(0, 0.5, 0.7) == pytest.approx(90)
    # A true direction of 200000 dimensions and of the plane that its estimate spans with the other's.
    rng = np.random.default_rng(8)
    d, rho, n = 200_000, 0.3, (0.5, 0.2)
    v, c = two(rho, d)
    span = np.linalg.qr(np.stack([x + np.sqrt(k / d) * rng.normal(size=d) for x, k in zip((v, c), n, strict=True)], axis=1))[0]
    left, right = v @ span, c @ span
    assert degrees(rho, 1 / 1.5, 1 / 1.2) == pytest.approx(
        np.rad2deg(np.arccos(left @ right / np.linalg.norm(left) / np.linalg.norm(right))), abs=0.5
    )


def test_what_is_not_identified_has_no_number() -> None:
    rng = np.random.default_rng(9)
    v, c = two(0.4, 16)
    still = angles([planted(rng, (v, c), (v, 0 * c))], [Represented(0.4, 0.01)])[0]
    assert (still.behaviour.angle, still.linear, still.agreement, still.turned) == (None, None, None, None)
    assert "the first harmonic of capability" in still.reasons[0]
    assert "gradient of a metric is less than 4 standard errors" in still.reasons[1]
    beyond = angles([planted(rng, (v, c), (v, c))], [Represented(1.02, 0.1)])[0]
    assert (beyond.represented, beyond.agreement) == (None, None)
    assert beyond.behaviour.angle is not None
    assert beyond.reasons == ("the corrected cosine between the directions is 1.02, which no angle has",)
    silent = angles([planted(rng, (v, c), (v, c))])[0]
    assert silent.reasons == ("the directions are not identified, or say nothing",)
    noisy = cross_fitted(Sample(rng.normal(size=(40, 16))), [Sample(c + 0.1 * rng.normal(size=(40, 16)))])
    assert represented(noisy) == [None]
    fit = cross_fitted(Sample(v + 0.3 * rng.normal(size=(64, 16))), [Sample(c + 0.3 * rng.normal(size=(64, 16)))])
    told = represented(fit)[0]
    assert told is not None
    assert (told.cosine, told.safety_reliability) == (fit.overlaps[0].cosine, fit.reliability)
    assert fit.overlaps[0].high - told.cosine == pytest.approx(2.04 * told.se, rel=0.01)  # t of 31 degrees of freedom


# -- bad input -------------------------------------------------------------------------------------------------------------------

NAN = np.where(np.arange(16) == 3, np.nan, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": 3}, r"a layer lies between 0 \(the embeddings\) and 2 in this LlamaForCausalLM; got 3"),
        ({"layer": -1}, "got -1"),
        ({"safety_direction": np.zeros(16)}, "the safety direction is zero, and spans no plane"),
        ({"capability_directions": np.zeros((1, 16))}, "the direction of the task 'one' is zero"),
        ({"safety_direction": NAN}, "the safety direction has 1 values that are no numbers"),
        ({"safety_direction": -2 * np.eye(16)[0] + 1e-6 * np.eye(16)[1]}, "that of the task 'one' lie on one line: they span no plane"),
        ({"safety_direction": np.ones(15)}, r"a row of 16 numbers.* found the shapes \(15,\) and \(1, 16\)"),
        ({"capability_directions": np.ones((2, 16))}, r"for each of 1 tasks.* \(2, 16\)"),
        ({"capability_examples": {}, "capability_directions": np.ones((0, 16))}, "for each of 0 tasks, one or more"),
        ({"safety_examples": SAFETY[:7]}, "the safety objective has 7 prompts, and a sweep takes 8 or more"),
        ({"capability_examples": {"a\x1b[2J": TASKS["one"][:3]}}, r"the task 'a\\x1b\[2J' has 3 prompts"),
        ({"safety_examples": [*SAFETY, ((1,), (2,), ())]}, "example 10 of the safety objective has no answer"),
        ({"safety_examples": [*SAFETY, ((), (2,), None)]}, "example 10 of the safety objective has no prompt"),
        ({"safety_examples": [*SAFETY, ((1,) * 63, (2, 3), None)]}, "has 65 tokens, and the model takes 64"),
        ({"safety_examples": [*SAFETY, ((1,), (12,), None)]}, "token ids that the model does not have; they go from 0 to 11"),
        ({"budgets": (0.1, 0.0, 0.2)}, "budgets are 3 different numbers or more, all above 0; got 0.1, 0, 0.2"),
        ({"budgets": (0.1, 0.1, 0.2)}, "got 0.1, 0.1, 0.2"),
        ({"budgets": ()}, "got none"),
        ({"budgets": (0.1, float("nan"), 0.2)}, "got 0.1, nan, 0.2"),
        (
            {"budgets": (0.1, 0.2, 1e39)},
            r"after a shift of 1e\+39 of the states at layer 1 the log-odds of the safety objective are no numbers",
        ),
        ({"phases": 23}, "23 phases: a sweep takes 24 or more"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {
        "layer": 1,
        "safety_direction": np.eye(16)[1],
        "capability_directions": np.eye(16)[:1],
        "safety_examples": SAFETY,
        "capability_examples": {"one": TASKS["one"]},
        **options,
    }
    with pytest.raises(InputError, match=message):
        sweep(random_model("llama"), **given)


def test_refused_of_angles_and_models() -> None:
    rng = np.random.default_rng(10)
    one = planted(rng, two(0.4, 16), two(0.4, 16))
    for said, message in (
        ([], "1 planes were swept and directions say something of 0"),
        ([Represented(0.4, -0.1)], "got 0.4, -0.1, 1, 1"),
        ([Represented(float("nan"), 0.1)], "got nan, 0.1"),
        ([Represented(0.4, 0.1, 0.0)], "reliabilities above 0 to 1; got 0.4, 0.1, 0, 1"),
    ):
        with pytest.raises(InputError, match=message):
            angles([one], said)
    few = replace(one, safety=one.safety[:5], safety_slopes=one.safety_slopes[:5])
    with pytest.raises(InputError, match="task: safety has 5 prompts"):
        angles([few])
    model = random_model("llama")
    model.train()
    try:
        with pytest.raises(InputError, match="in training mode"):
            metric_gradients(model, 1, SAFETY)
    finally:
        model.eval()


@pytest.mark.slow
def test_agreement_covers() -> None:
    for rho, d, rows, noise in ((0.5, 64, 96, 0.7), (-0.2, 256, 128, 0.4), (0.8, 32, 64, 0.5)):
        covered, shown, expected, _ = study(np.random.default_rng(11), 600, rho, d, rows, noise)
        assert shown == pytest.approx(expected, abs=2.5)
        assert 0.91 <= covered <= 0.98
