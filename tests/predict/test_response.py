"""Responses to a small step: what copies of the model that take the step by hand say."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch  # noqa: E402
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, LlamaConfig  # noqa: E402

from aligntax.models.scoring import Scorer  # noqa: E402
from aligntax.predict import response  # noqa: E402
from aligntax.predict.response import DIRECTIONS, RULES, Line, chosen, over_batches, responses  # noqa: E402

WORDS = 14
FAMILIES = ("llama", "gpt2", "gemma2")


@cache
def fixed(family: str) -> Any:
    wide = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "intermediate_size": 24,
    }
    configs = {
        "llama": lambda: LlamaConfig(vocab_size=WORDS, max_position_embeddings=32, tie_word_embeddings=True, **wide),
        "gpt2": lambda: GPT2Config(vocab_size=WORDS, n_embd=16, n_layer=2, n_head=2, n_positions=32),  # with dropout
        "gemma2": lambda: Gemma2Config(vocab_size=WORDS, max_position_embeddings=32, sliding_window=16, **wide),  # caps its logits
    }
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(configs[family](), attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return model.double()


def random_model(family: str = "llama") -> Any:
    return deepcopy(fixed(family))


@pytest.fixture(autouse=True)
def short_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer steps to try, and some that are too large for the objective of a model this small."""
    monkeypatch.setattr(response, "GRID", (1e-7, 0.004, 0.016, 0.25, 4.0))


def draws(count: int, seed: int, answers: int = 1) -> list[Any]:
    """(prompt, answer ...) of different prompts."""
    rng = np.random.default_rng(seed)

    def some(low: int, high: int) -> tuple[int, ...]:
        return tuple(int(x) for x in rng.integers(2, WORDS, rng.integers(low, high)))

    return [((int(n // 10 % 10) + 2, n % 10 + 2, *some(1, 6)), *(some(1, 4) for _ in range(answers))) for n in range(count)]


def aimed(count: int = 40, seed: int = 5) -> list[Any]:
    """A thing that can be learned: whatever is asked, the same reply."""
    return [(prompt, (3, 4)) for prompt, _ in draws(count, seed)]


TASKS = {"one": draws(5, 1), "two": draws(9, 2)}


def token_logprobs(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """(T, V) where an answer's tokens are predicted, of one text alone."""
    logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits, dim=-1)


def loss(model: Any, examples: Any) -> torch.Tensor:
    """Mean negative log-probability of all answers' tokens."""
    told = [token_logprobs(model, p, a)[range(len(a)), list(a)] for p, a in examples]
    return -torch.cat(told).mean()


def value(model: Any, examples: Any) -> float:
    with torch.no_grad():
        return float(loss(model, examples))


def by_hand(model: Any, batch: Any, direction: str, step: float) -> Any:
    """A copy of the model that took the step."""
    grads = dict(
        zip([n for n, _ in model.named_parameters()], torch.autograd.grad(loss(model, batch), list(model.parameters())), strict=True)
    )
    flat = torch.cat([g.flatten() for g in grads.values()])
    moved = deepcopy(model)
    with torch.no_grad():
        for name, p in moved.named_parameters():
            unit = grads[name].sign() if direction == "sign" else grads[name] * (flat.count_nonzero() ** 0.5 / flat.norm())
            p -= step * unit
    return moved


def batches_of(objective: Any, batches: int, size: int, seed: int) -> list[Any]:
    order = np.random.default_rng(seed).permutation(len(objective))
    return [[objective[n] for n in order[k * size : (k + 1) * size]] for k in range(batches + 1)]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("direction", ["sign", "plain"])
def test_a_response_is_what_a_copy_that_took_the_step_says(family: str, direction: str) -> None:
    model, objective = random_model(family).eval(), aimed(24)
    # Where a model this small is hardly capped, its output layer passes for all that makes logits.
    head = None if family == "gemma2" else Scorer(model, family).head
    found = responses(
        model, objective, TASKS, head=head, directions=(direction,), steps=(0.002, 0.02), batches=2, batch_size=8, seed=7, batch_tokens=20
    )
    along = found.along[direction]
    one, two, held = batches_of(objective, 2, 8, 7)
    for b, batch in enumerate((one, two)):
        for s, step in enumerate((0.002, 0.02)):
            moved = by_hand(model, batch, direction, step)
            for t, name in enumerate(TASKS):
                with torch.no_grad():
                    pairs = [(token_logprobs(model, p, a), token_logprobs(moved, p, a)) for p, a in TASKS[name]]
                    before, after = (torch.cat(side) for side in zip(*pairs, strict=True))
                    kl = float((before.exp() * (before - after)).sum(dim=-1).mean())
                    change = float(loss(model, TASKS[name]) - loss(moved, TASKS[name]))
                assert along.kl[b, s, t] == pytest.approx(kl, rel=5e-3, abs=1e-9)
                assert along.change[b, s, t] == pytest.approx(change, rel=5e-3, abs=1e-9)
        k = 2
        tried = by_hand(model, batch, direction, float(along.line.steps[k]))
        assert along.line.losses[b, k] == pytest.approx(value(tried, held), rel=1e-4)
    assert found.held == 8
    assert along.line.start == pytest.approx(value(model, held), abs=1e-5)
    for t, name in enumerate(TASKS):
        greedy = [all(token_logprobs(model, p, a).argmax(dim=-1)[k] == token for k, token in enumerate(a)) for p, a in TASKS[name]]
        assert found.right[t] == np.mean(greedy)
        left = [all(token_logprobs(moved, p, a).argmax(dim=-1)[k] == token for k, token in enumerate(a)) for p, a in TASKS[name]]
        assert found.lost(direction)[1, 1, t] == pytest.approx(np.mean(greedy) - np.mean(left))
        assert found.logprob[t] == pytest.approx(-value(model, TASKS[name]), abs=1e-5)


def test_adam_divides_by_what_quarters_of_a_batch_say() -> None:
    model, objective = random_model().eval(), aimed(24)
    found = responses(model, objective, TASKS, directions=("adam",), steps=(0.01,), batches=1, batch_size=12, seed=7).along["adam"]
    batch, _ = batches_of(objective, 1, 12, 7)
    tokens = sum(len(a) for _, a in batch)
    quarters = [batch[k : k + 3] for k in range(0, 12, 3)]
    grads = [torch.autograd.grad(loss(model, q) * sum(len(a) for _, a in q) / tokens * 4, list(model.parameters())) for q in quarters]
    moved = deepcopy(model)
    with torch.no_grad():
        for k, p in enumerate(moved.parameters()):
            some = torch.stack([g[k] for g in grads])
            rms = some.square().mean(dim=0).sqrt()
            p -= 0.01 * torch.where(rms > 0, some.mean(dim=0) / rms, 0)
        change = float(loss(model, TASKS["two"]) - loss(moved, TASKS["two"]))
    assert found.change[0, 0, 1] == pytest.approx(change, rel=1e-3)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_small_steps_do_what_the_slope_says(direction: str) -> None:
    model = random_model("gpt2")  # the others' norms compute in float32
    tiny = 1e-7
    found = responses(model, aimed(), TASKS, directions=(direction,), steps=(tiny,), batches=2, batch_size=10)
    along = found.along[direction]
    assert along.change[:, 0] == pytest.approx(along.slopes * tiny, rel=0.01, abs=1e-12)
    assert along.line.start - along.line.losses[:, 0] == pytest.approx(along.line.slopes * along.line.steps[0], rel=0.01)


def test_cosines_and_norms_are_those_of_whole_gradients() -> None:
    model, objective = random_model().eval(), aimed(24)
    found = responses(model, objective, TASKS, steps=(0.001,), batches=2, batch_size=8, seed=3, batch_tokens=16)

    def flat(examples: Any) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(model, examples), list(model.parameters()))])

    for b, batch in enumerate(batches_of(objective, 2, 8, 3)[:2]):
        for t, examples in enumerate(TASKS.values()):
            assert found.norms[t] == pytest.approx(float(flat(examples).norm()), rel=1e-4)
            cosine = torch.nn.functional.cosine_similarity(flat(batch), flat(examples), dim=0)
            assert found.cosines[b, t] == pytest.approx(float(cosine), abs=1e-4)


def test_preferences_step_down_the_loss_of_dpo() -> None:
    model = random_model().eval()
    objective = [(prompt, chosen, tuple(reversed((*chosen, 5)))) for prompt, chosen in draws(24, 8)]
    beta, step = 0.3, 0.004
    found = responses(model, objective, TASKS, steps=(step,), batches=2, batch_size=8, seed=3, beta=beta, batch_tokens=24)
    one, _, held = batches_of(objective, 2, 8, 3)

    def dpo(policy: Any, pairs: Any) -> torch.Tensor:
        def told(m: Any, p: Any, a: Any) -> torch.Tensor:
            return token_logprobs(m, p, a)[range(len(a)), list(a)].sum()

        margins = [told(policy, p, c) - told(policy, p, r) - (told(model, p, c) - told(model, p, r)).detach() for p, c, r in pairs]
        return -torch.nn.functional.logsigmoid(beta * torch.stack(margins)).mean()

    policy = deepcopy(model)
    moved = deepcopy(model)
    k = 1
    with torch.enable_grad():
        grads = torch.autograd.grad(dpo(policy, one), list(policy.parameters()))
    with torch.no_grad():
        for p, g in zip(moved.parameters(), grads, strict=True):
            p -= step * g.sign()
        change = float(loss(model, TASKS["one"]) - loss(moved, TASKS["one"]))
        assert found.along["sign"].change[0, 0, 0] == pytest.approx(change, rel=1e-3)
        for p, g in zip(moved.parameters(), grads, strict=True):
            p += (step - float(found.along["sign"].line.steps[k])) * g.sign()
        assert found.along["sign"].line.start == pytest.approx(np.log(2))
        assert found.along["sign"].line.losses[0, k] == pytest.approx(float(dpo(moved, held)), abs=1e-5)


def test_the_model_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model("gpt2").float().train()
    some = list(model.parameters())
    some[0].requires_grad_(False)
    some[1].grad = torch.ones_like(some[1])
    before = {name: t.clone() for name, t in model.state_dict().items()}

    def same() -> bool:
        modes = all(module.training for module in model.modules())
        grads = [p.grad is None for p in some] == [k != 1 for k in range(len(some))] and bool((some[1].grad == 1).all())
        bits = all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
        return modes and grads and bits and [p.requires_grad for p in some] == [k != 0 for k in range(len(some))]

    responses(model, aimed(), TASKS, directions=DIRECTIONS, steps=(0.003,), batches=2, batch_size=8)
    assert same()
    calls = 0
    honest = response._Reader.logits

    def breaks(self: Any, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:
            assert not torch.equal(some[2], before["transformer.h.0.ln_1.weight"])  # it is in the middle of a step
            raise RuntimeError("the machine is out of memory")
        return honest(self, batch)

    monkeypatch.setattr(response._Reader, "logits", breaks)
    with pytest.raises(RuntimeError, match="out of memory"):
        responses(model, aimed(), TASKS, steps=(0.003,), batches=2, batch_size=8)
    assert same()


def test_frozen_weights_stay_where_they_are() -> None:
    model, objective = random_model("gpt2").eval(), aimed(24)
    for name, p in model.named_parameters():
        p.requires_grad_(name.endswith("mlp.c_fc.weight"))
    found = responses(model, objective, TASKS, steps=(0.003,), batches=1, batch_size=8, seed=3)
    moved = deepcopy(model)
    free = [p for p in moved.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss(moved, batches_of(objective, 1, 8, 3)[0]), free)
    with torch.no_grad():
        for p, g in zip(free, grads, strict=True):
            p -= 0.003 * g.sign()
        change = float(loss(model, TASKS["one"]) - loss(moved, TASKS["one"]))
    assert found.along["sign"].change[0, 0, 0] == pytest.approx(change, rel=1e-3)


def test_equal_seeds_give_equal_responses_and_other_batches_others() -> None:
    model, objective = random_model(), aimed()
    told: list[tuple[str, int, int]] = []
    a, b, c = (
        responses(model, objective, TASKS, steps=(0.003,), batches=2, batch_size=8, seed=seed, tell=lambda *now: told.append(now))
        for seed in (1, 1, 2)
    )
    assert np.array_equal(a.along["sign"].kl, b.along["sign"].kl)
    assert not np.array_equal(a.along["sign"].kl, c.along["sign"].kl)
    assert told[-1] == ("responses of tasks", 4, 4)
    assert ("steps for the objective", 2, 2) in told


def test_the_step_is_read_off_the_objective() -> None:
    model = random_model()
    found = responses(model, aimed(), TASKS, batches=2, batch_size=8, rule="half").along["sign"]
    size = chosen(found.line, "half")
    assert found.steps.tolist() == [size / 2, size, size * 2]
    assert found.kl.shape == (2, 3, 2)
    assert size in response.GRID


def test_rules() -> None:
    steps = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    # Falls by .99, 1.9, 3, 2, -5 where the slope says 1, 2, 4, 8, 16.
    mean = 10 - np.array([0.99, 1.9, 3.0, 2.0, -5.0])
    spread = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    line = Line(steps, 10.0, np.stack([mean - spread, mean + spread]), np.array([0.5, 1.5]))
    assert {rule: chosen(line, rule) for rule in RULES} == {"lowest": 4, "half": 4, "nine-tenths": 2, "falling": 8}
    rising = Line(steps, 10.0, 10 + np.ones((2, 5)), np.array([1.0, 1.0]))
    endless = Line(steps, 100.0, 100 - np.stack([steps, steps]), np.array([1.0, 1.0]))
    broken = Line(steps, 10.0, np.stack([[9.0, 8.0, np.inf, np.inf, np.inf]] * 2), np.array([1.0, 1.0]))
    for rule in RULES:
        assert chosen(broken, rule) == 2
        with pytest.raises(InputError, match="no step from 1 to 16 along the objective's gradient makes its loss fall"):
            chosen(rising, rule)
        with pytest.raises(InputError, match=r"still falls at the largest step that is tried \(16\)"):
            chosen(endless, rule)


def test_intervals_over_batches() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0]])
    mean, low, high = over_batches(values)
    assert mean.tolist() == [2, 5]
    assert high - mean == pytest.approx([12.7062, 0], abs=1e-3)  # t of one degree of freedom, times 1
    assert low - mean == pytest.approx(mean - high)
    with pytest.raises(InputError, match="two of them or more; there is 1"):
        over_batches(values[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": aimed(20)}, "has 20 examples of different prompts, and 2 batches of 8 with one more held out take 24"),
        ({"objective": aimed(12) * 5}, "has 12 examples of different prompts"),
        ({"objective": [*aimed(30), ((1,), (2,), (3,))]}, "all of one kind"),
        ({"objective": [*aimed(30), ((1,), ())]}, "an example of the objective has no answer"),
        ({"objective": [*aimed(30), ((1,), (99,))]}, "token ids that the model does not have; they go from 0 to 13"),
        ({"objective": [*aimed(30), ((1,) * 40, (2,))]}, "an example of the objective has 41 tokens, and the model takes 32"),
        ({"tasks": {}}, "there is no task"),
        ({"tasks": {"one": TASKS["one"], "b\x1b[2J": []}}, r"the task 'b\\x1b\[2J' has no examples"),
        ({"tasks": {"one": [((), (1,))]}}, "an example of the tasks has no prompt"),
        ({"steps": (0.001, 0.0)}, "steps are numbers above 0; got 0.001, 0"),
        ({"steps": (float("nan"),)}, "steps are numbers above 0; got nan"),
        ({"steps": ()}, "steps are numbers above 0; got none"),
        ({"directions": ("up",)}, "no direction 'up'; allowed: sign, plain, adam"),
        ({"directions": ()}, "name one direction or several"),
        ({"rule": "best"}, "no rule 'best' for the step; allowed: lowest, half"),
        ({"batches": 0}, "a batch or more of 4 examples or more; got 0 of 8"),
        ({"batch_size": 2}, "got 2 of 2"),
        ({"beta": 0.0}, "beta is a number above 0; got 0"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"objective": aimed(30), "tasks": TASKS, "batches": 2, "batch_size": 8, **options}
    with pytest.raises(InputError, match=message):
        responses(random_model().float(), **given)


def test_a_step_after_which_the_model_is_broken_is_refused() -> None:
    model = random_model("gpt2").float()
    with pytest.raises(
        InputError, match=r"after a step of 1e\+30 \(sign\) the model's log-probabilities for the task 'one' are no numbers"
    ):
        responses(model, aimed(30), TASKS, steps=(0.001, 1e30), batches=2, batch_size=8)


def broken(how: str) -> Any:
    model = random_model().float()
    if how == "frozen":
        model.requires_grad_(False)
    elif how == "half":
        model.bfloat16()
    elif how == "quantised":
        model.is_quantized = True
    elif how == "no numbers":
        with torch.no_grad():
            next(model.parameters())[0, 0] = float("nan")
    elif how == "overflow":
        with torch.no_grad():
            model.model.norm.weight.fill_(1e38)
    else:
        with torch.no_grad():
            model.model.norm.weight.zero_()
        for name, p in model.named_parameters():
            p.requires_grad_("mlp" in name)
    return model


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("frozen", "all weights of this LlamaForCausalLM are frozen"),
        ("half", "weights in bfloat16 round a small step away; load the model with dtype=float32"),
        ("quantised", "the weights of this LlamaForCausalLM are quantised"),
        ("no numbers", "weights of this LlamaForCausalLM are no numbers"),
        ("overflow", "the gradient of the objective is no number"),
        ("no way", "the gradient of the objective is 0 in every weight"),
    ],
)
def test_models_that_cannot_be_stepped_are_refused(how: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        responses(broken(how), aimed(30), TASKS, batches=2, batch_size=8)
