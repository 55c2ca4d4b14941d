"""States and gradients: those of one text alone, and what a small shift does."""

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
from transformers import AutoModelForCausalLM, Gemma2Config, GPT2Config, GPTNeoXConfig, LlamaConfig, Qwen3Config  # noqa: E402

from aligntax.models.scoring import Scorer  # noqa: E402
from aligntax.predict.reading import gradients, hidden_states  # noqa: E402

FAMILIES = ("llama", "gpt2", "gemma2", "neox", "qwen3")
SIZE = {"vocab_size": 12, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}


@cache
def random_model(family: str) -> Any:
    """Tiny, with random weights; gemma2 caps its logits and its attention scores."""
    wide = {**SIZE, "num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 24}
    configs = {
        "llama": lambda: LlamaConfig(**wide),
        "gpt2": lambda: GPT2Config(vocab_size=12, n_embd=16, n_layer=2, n_head=2, n_positions=64),
        "gemma2": lambda: Gemma2Config(**wide, sliding_window=32),
        "neox": lambda: GPTNeoXConfig(**SIZE, intermediate_size=24),
        "qwen3": lambda: Qwen3Config(**wide),
    }
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(configs[family](), attn_implementation="eager")
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return model.eval()


PROMPTS = [(5, 3, 9), (7, 1, 2, 8, 4), (6, 6)]
EXAMPLES = [((5, 3, 9), (4,)), ((7, 1), (2, 8, 4)), ((6, 6, 1, 2), (9, 3))]


@pytest.mark.parametrize("family", FAMILIES)
def test_states_are_those_of_each_prompt_alone(family: str) -> None:
    model = random_model(family)
    found = {
        int(n): s
        for batch in hidden_states(model, PROMPTS, (-1, -2), batch_tokens=10)
        for n, s in zip(batch.numbers, batch.states, strict=True)
    }
    assert set(found) == {0, 1, 2}
    for number, tokens in enumerate(PROMPTS):
        with torch.inference_mode():
            layers = model.base_model(input_ids=torch.tensor([tokens]), output_hidden_states=True, use_cache=False).hidden_states
        for layer, states in enumerate(layers):
            assert found[number][layer] == pytest.approx(states[0, [-1, -2]].numpy(), abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("with_head", [True, False])
def test_gradients_are_what_a_small_shift_does(family: str, with_head: bool) -> None:
    model = deepcopy(random_model(family)).double()
    head = Scorer(model, family).head if with_head else None
    if with_head and head is None:
        pytest.skip("no output layer alone makes this family's logits")  # covered without one
    found: dict[int, Any] = {}
    for batch in gradients(model, EXAMPLES, head=head, batch_tokens=8):
        found |= {int(n): (g, v) for n, g, v in zip(batch.numbers, batch.gradients, batch.values, strict=True)}
    rng = np.random.default_rng(1)
    for number, (prompt, answer) in enumerate(EXAMPLES):
        gradient, value = found[number]
        assert value == pytest.approx(mean_logprob(model, prompt, answer), abs=1e-3)
        shift = rng.normal(size=gradient.shape[1])
        shift *= 1e-4 / np.linalg.norm(shift)
        up, down = (mean_logprob(model, prompt, answer, sign * shift, odds=True) for sign in (1, -1))
        assert float(gradient[0] @ shift) == pytest.approx((up - down) / 2, rel=2e-2, abs=1e-8)


def mean_logprob(model: Any, prompt: tuple[int, ...], answer: tuple[int, ...], shift: Any = None, *, odds: bool = False) -> float:
    """Of the answer's tokens, or their log-odds, with a shift of the embeddings where the answer is predicted."""
    tokens = torch.tensor([[*prompt, *answer]])
    with torch.inference_mode():
        states = model.get_input_embeddings()(tokens).clone()
        if shift is not None:
            states[0, len(prompt) - 1 : -1] += torch.from_numpy(shift)
        logits = model(inputs_embeds=states, use_cache=False).logits[0, len(prompt) - 1 : -1]
        told = torch.log_softmax(logits, dim=-1)
    own = told[range(len(answer)), list(answer)]
    return float((own - torch.log1p(-own.exp())).mean() if odds else own.mean())


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_of_some_layers_are_those_of_all(family: str) -> None:
    model = random_model(family)
    (every,), (some,) = (list(gradients(model, EXAMPLES, layers=layers)) for layers in (None, [2, 0]))
    assert some.gradients.shape[1] == 2
    assert np.array_equal(some.gradients, every.gradients[:, [2, 0]])
    assert np.array_equal(some.values, every.values)


def test_weights_are_left_as_they_were() -> None:
    model = random_model(FAMILIES[0])
    before = [p.requires_grad for p in model.parameters()]
    list(gradients(model, EXAMPLES))
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())


def test_refused() -> None:
    model = deepcopy(random_model(FAMILIES[0]))
    with pytest.raises(InputError, match="prompt 2 has 1 tokens, and a state is wanted 2 from its end"):
        list(hidden_states(model, [(1, 2), (3,)], (-2,)))
    with pytest.raises(InputError, match="places are counted from a prompt's end"):
        list(hidden_states(model, [(1, 2)], (0,)))
    with pytest.raises(InputError, match="example 1 has no answer"):
        list(gradients(model, [((1,), ())]))
    with pytest.raises(InputError, match="text 1 has 100,000 tokens"):
        list(hidden_states(model, [(1,) * 100_000]))
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(InputError, match="the model's state is no number"):
        list(hidden_states(model, [(1, 2)]))
