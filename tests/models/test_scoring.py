"""Shared prefixes change speed and nothing else, on every architecture, whatever the batch, the order and the company."""

from __future__ import annotations

import random

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from aligntax.models.scoring import Query, Scorer

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
# (architecture, changes to the small configuration, whether prefixes can be shared)
MODELS = {
    "llama": ("llama", {}, True),
    "llama eager": ("llama", {"attn_implementation": "eager"}, True),
    "qwen3": ("qwen3", {}, True),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, True),
    "gpt_neox": ("gpt_neox", {}, True),
    "mistral with a window": ("mistral", {"sliding_window": 8}, False),
    "mistral with a wider one, which some questions leave": ("mistral", {"sliding_window": 47}, True),
    "gpt_neo, with a window by places": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "window_size": 24, "attention_types": [[["global", "local"], 1]]},
        False,
    ),
    "phi3, whose positions stretch": (
        "phi3",
        {
            "original_max_position_embeddings": 44,
            "rope_parameters": {
                "rope_type": "longrope",
                "short_factor": [1.0] * 4,
                "long_factor": [4.0] * 4,
                "original_max_position_embeddings": 44,
                "rope_theta": 10000.0,
            },
        },
        True,
    ),
    "gemma2, which caps its logits": ("gemma2", {"final_logit_softcapping": 0.5, "sliding_window": 16}, False),
    "granite, which scales its logits": ("granite", {"logits_scaling": 3.0}, False),
    "mamba, which is recurrent": ("mamba", {"state_size": 4, "n_positions": 128}, False),
}


def small(name: str) -> torch.nn.Module:
    kind, changes, _ = MODELS[name]
    settings = {**SMALL, **changes}
    attention = settings.pop("attn_implementation", None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**settings), **({"attn_implementation": attention} if attention else {}))
    with torch.no_grad():  # distributions that are far from flat, so that a wrong position shows
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return model.eval()


def questions(seed: int = 0, shots: int = 40) -> list[Query]:
    """Multiple choice with shared shots, answers of one to four tokens, prefixes of each other, and repeats."""
    rng = random.Random(seed)

    def words(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 97) for _ in range(n))

    start, found = words(shots), []
    for _ in range(9):
        context = (*start, *words(rng.randint(1, 12)))
        found += [Query(context, words(rng.randint(1, 4))) for _ in range(3)]
        found.append(Query(context[:-1], (context[-1], 5)))
    return [*found, found[0], Query(words(1), words(3)), Query(start, words(2))]


@torch.inference_mode()
def alone(model: torch.nn.Module, query: Query) -> tuple[np.ndarray, np.ndarray]:
    ids = torch.tensor([[*query.context, *query.continuation][:-1]])  # the last token is predicted, and not read
    logits = model(input_ids=ids, use_cache=False).logits[0, len(query.context) - 1 :].double()
    targets = torch.tensor(query.continuation)
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0].numpy(), (logits.argmax(-1) == targets).numpy()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [True, False])
def test_what_is_shared_is_what_was_alone(name: str, share: bool) -> None:
    model = small(name)
    scorer = Scorer(model, name, share=share)
    assert scorer.shares == (share and MODELS[name][2]), scorer.sharing
    queries = questions()
    found = dict(scorer.score(queries))
    assert set(found) == set(range(len(queries)))
    for k, query in enumerate(queries):
        logprobs, greedy = alone(model, query)
        assert found[k].logprobs == pytest.approx(logprobs, abs=1e-4)
        assert (found[k].greedy == greedy).all()
        assert found[k].total == pytest.approx(logprobs.sum(), abs=2e-4)


@pytest.mark.parametrize("tokens", [1, 60, 300, 10_000])
def test_batch_size_and_order_do_not_matter(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    queries = questions()
    wanted = dict(Scorer(model, "llama").score(queries))
    order = random.Random(tokens).sample(range(len(queries)), len(queries))
    monkeypatch.setattr("aligntax.models.scoring.LOGITS", 97 * tokens)
    found = dict(Scorer(model, "llama", batch_tokens=tokens).score([queries[k] for k in order]))
    for at, k in enumerate(order):
        assert found[at].logprobs == pytest.approx(wanted[k].logprobs, abs=1e-4)
        assert (found[at].greedy == wanted[k].greedy).all()


def test_trunks_grow_from_trunks() -> None:
    """Two subjects with shots of their own under one instruction, each too large for a row."""
    model = small("llama")
    rng = random.Random(1)
    head = tuple(rng.randrange(97) for _ in range(20))
    queries = []
    for _ in range(2):
        shots = (*head, *(rng.randrange(97) for _ in range(30)))
        queries += [Query((*shots, *(rng.randrange(97) for _ in range(20))), (k % 97, 3)) for k in range(60)]
    found = dict(Scorer(model, "llama").score(queries))
    for k in range(0, len(queries), 7):
        assert found[k].logprobs == pytest.approx(alone(model, queries[k])[0], abs=1e-4)


def test_what_is_no_number_is_given_as_it_is() -> None:
    model = small("llama")
    scorer = Scorer(model, "llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[7] = float("nan")
    assert all(np.isnan(found.logprobs).all() for _, found in scorer.score(questions()))


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query((), (1,)), "at least one token each"),
        (Query((1,), ()), "at least one token each"),
        (Query((1,), (97,)), "from 0 to 96"),
        (Query((-1,), (1,)), "from 0 to 96"),
        (Query(tuple(range(90)), tuple(range(40))), "takes at most 129"),
    ],
)
def test_what_cannot_be_scored_is_said(query: Query, message: str) -> None:
    with pytest.raises(InputError, match=message):
        list(Scorer(small("llama"), "llama").score([query]))


def test_the_longest_sequence_that_fits_is_scored() -> None:
    model = small("llama")
    query = Query(tuple(range(90)), tuple(range(39)))
    ((_, found),) = Scorer(model, "llama").score([query])
    assert len(found.logprobs) == 39
