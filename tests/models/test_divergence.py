"""Whole-vocabulary divergences agree with naive full logits and with closed forms, whatever the batch, the order and the company."""

from __future__ import annotations

import copy
import random
from dataclasses import fields, replace
from math import log
from typing import Any

import numpy as np
import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from aligntax.models.divergence import Divergence, divergences
from aligntax.models.scoring import Query, Scorer
from aligntax.stats import divergence as exact
from tests.models.test_scoring import questions, small

DISTANCES = ("kl_ab", "kl_ba", "js")


def moved(model: torch.nn.Module, by: float = 0.3, seed: int = 1) -> torch.nn.Module:
    """A copy whose weights went some way."""
    other, draws = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(by * p.std(correction=0) * torch.randn(p.shape, generator=draws))
    return other


def between(one: torch.nn.Module, two: torch.nn.Module, queries: list[Query], **options: Any) -> dict[int, Divergence]:
    return dict(divergences(Scorer(one, "one", **options), Scorer(two, "two", **options), queries))


@torch.inference_mode()
def naive(one: torch.nn.Module, two: torch.nn.Module, query: Query) -> Divergence:
    """From the full logits of both, in float64."""
    ids, asked = torch.tensor([[*query.context, *query.continuation]]), torch.tensor(query.continuation)
    a, b = (m(input_ids=ids, use_cache=False).logits[0, len(query.context) - 1 : -1].double().log_softmax(-1) for m in (one, two))
    p, q = a.exp(), b.exp()
    middle = ((p + q) / 2).log()
    found = {
        "logprobs_a": a.gather(1, asked[:, None])[:, 0],
        "logprobs_b": b.gather(1, asked[:, None])[:, 0],
        "greedy_a": a.argmax(-1) == asked,
        "greedy_b": b.argmax(-1) == asked,
        "kl_ab": (p * (a - b)).sum(-1),
        "kl_ba": (q * (b - a)).sum(-1),
        "js": ((p * (a - middle)).sum(-1) + (q * (b - middle)).sum(-1)) / 2,
        "entropy_a": -(p * a).sum(-1),
        "entropy_b": -(q * b).sum(-1),
        "agree": a.argmax(-1) == b.argmax(-1),
    }
    return Divergence(**{name: x.numpy() for name, x in found.items()})


def alike(found: Divergence, wanted: Divergence, within: float) -> None:
    for field in fields(Divergence):
        one, two = getattr(found, field.name), getattr(wanted, field.name)
        assert (one.shape, one.dtype) == (two.shape, two.dtype)
        assert one == pytest.approx(two, abs=within), field.name


# -- naive logits, closed forms ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "within"), [("llama", 1e-5), ("gpt2", 1e-5), ("gemma2, which caps its logits", 1e-5), ("mamba, which is recurrent", 1e-4)]
)
@pytest.mark.parametrize("share", [True, False])
def test_what_full_logits_say(name: str, within: float, share: bool) -> None:
    one = small(name)
    two, queries = moved(one, by=1.0), questions()
    found = between(one, two, queries, share=share)
    assert set(found) == set(range(len(queries)))
    for k, query in enumerate(queries):
        alike(found[k], naive(one, two, query), within)
    assert np.concatenate([f.kl_ab for f in found.values()]).mean() > 0.05  # there is something to see


def test_models_of_two_kinds_go_in_plain_batches() -> None:
    one, two = small("llama"), small("granite, which scales its logits")
    assert Scorer(one, "one").shares
    assert not Scorer(two, "two").shares
    queries = questions()
    found = between(one, two, queries)
    for k, query in enumerate(queries):
        alike(found[k], naive(one, two, query), 1e-5)


def constant(p: np.ndarray) -> torch.nn.Module:
    """A model that says p whatever it reads: its last norm gives (1, 0, 0, ...), and the output layer has log p there."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(p), n_embd=16, n_layer=1, n_head=2, n_positions=64, tie_word_embeddings=False)).eval()
    with torch.no_grad(), np.errstate(divide="ignore"):
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.zero_()[0] = 1
        model.lm_head.weight[:, 0] = torch.from_numpy(np.log(p))
    return model


def test_distributions_that_are_known() -> None:
    """p falls by halves, q is flat over 8: KL(q||p) = mean of k ln 2 - ln 8, and so on."""
    p, q = np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 128]), np.full(8, 1 / 8)
    steps = np.array([1, 2, 3, 4, 5, 6, 7, 7])
    (found,) = between(constant(p), constant(q), [Query((1, 2), (0, 3, 7))]).values()
    assert found.entropy_a == pytest.approx([(p * steps).sum() * log(2)] * 3, abs=1e-6)
    assert found.entropy_b == pytest.approx([log(8)] * 3, abs=1e-6)
    assert found.kl_ab == pytest.approx([log(8) - (p * steps).sum() * log(2)] * 3, abs=1e-6)
    assert found.kl_ba == pytest.approx([steps.mean() * log(2) - log(8)] * 3, abs=1e-6)
    assert found.js == pytest.approx([float(exact.jensen_shannon(np.log(p), np.log(q)))] * 3, abs=1e-6)
    assert found.logprobs_a == pytest.approx(-log(2) * np.array([1, 4, 7]), abs=1e-6)
    assert found.greedy_a.tolist() == [True, False, False]
    assert found.agree.all()  # of a flat distribution the first counts as most likely


def test_what_one_side_makes_impossible() -> None:
    """p = (1/2, 1/2, 0, 0), q = (1/2, 1/4, 1/4, 0): KL(p||q) = ln 2 / 2, KL(q||p) = inf, JS by hand."""
    p, q = np.array([0.5, 0.5, 0, 0]), np.array([0.5, 0.25, 0.25, 0])
    (found,) = between(constant(p), constant(q), [Query((3, 1), (0, 2))], share=False).values()
    assert found.kl_ab == pytest.approx([log(2) / 2] * 2, abs=1e-6)
    assert (found.kl_ba == np.inf).all()
    assert found.js == pytest.approx([(log(4 / 3) / 2 + log(2 / 3) / 4 + log(2) / 4) / 2] * 2, abs=1e-6)
    assert found.entropy_a == pytest.approx([log(2)] * 2, abs=1e-6)
    assert found.entropy_b == pytest.approx([1.5 * log(2)] * 2, abs=1e-6)
    assert found.logprobs_a == pytest.approx([-log(2), -np.inf])
    assert found.logprobs_b == pytest.approx([-log(2), -log(4)])


# -- what must hold ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama", "gpt2", "mamba, which is recurrent"])
def test_a_copy_is_no_way_apart(name: str) -> None:
    model = small(name)
    for found in between(model, copy.deepcopy(model), questions()).values():
        for distance in DISTANCES:
            assert (getattr(found, distance) == 0.0).all()
        assert found.agree.all()
        assert (found.logprobs_a == found.logprobs_b).all()
        assert (found.entropy_a == found.entropy_b).all()


def test_a_model_that_hardly_moved_is_hardly_apart() -> None:
    """KL is quadratic in a small step: far below what rounding of single log-probabilities would leave, and never negative."""
    model, queries = small("llama"), questions()
    far, near = (np.concatenate([f.kl_ab for f in between(model, moved(model, by), queries, share=False).values()]) for by in (3e-3, 3e-4))
    assert (near >= 0).all()
    assert near.mean() < 1e-5
    assert far.mean() / near.mean() == pytest.approx(100, rel=0.1)


def test_swapping_the_models_swaps_the_sides() -> None:
    one = small("llama")
    two, queries = moved(one), questions()
    ab, ba = between(one, two, queries), between(two, one, queries)
    for k in ab:
        turned = {field.name: getattr(ba[k], field.name) for field in fields(Divergence)}
        for left, right in (("logprobs_a", "logprobs_b"), ("greedy_a", "greedy_b"), ("kl_ab", "kl_ba"), ("entropy_a", "entropy_b")):
            turned[left], turned[right] = turned[right], turned[left]
        alike(ab[k], replace(ba[k], **turned), 1e-7)


@pytest.mark.parametrize("tokens", [1, 60, 10_000])
@pytest.mark.parametrize("share", [True, False])
def test_batch_order_and_chunks_do_not_matter(tokens: int, share: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one = small("llama")
    two, queries = moved(one), questions()
    wanted = between(one, two, queries)
    order = random.Random(tokens).sample(range(len(queries)), len(queries))
    monkeypatch.setattr("aligntax.models.divergence.LOGITS", 97 * tokens)
    monkeypatch.setattr("aligntax.models.divergence.BLOCK", 97 * min(tokens, 7))
    found = between(one, two, [queries[k] for k in order], share=share, batch_tokens=tokens)
    for at, k in enumerate(order):
        alike(found[at], wanted[k], 1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2, which caps its logits"])
def test_logits_keep_to_their_budget(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six places at a time, three for each model; where logits come whole, one sequence at a time."""
    one = small(name)
    two, queries = moved(one), [q for q in questions(shots=3) if len(q.continuation) > 1]
    a, b = Scorer(one, "one"), Scorer(two, "two")
    monkeypatch.setattr("aligntax.models.divergence.LOGITS", 97 * 6)
    sizes: list[int] = []
    for scorer in (a, b):
        layer = scorer.head if scorer.head is not None else scorer.model.get_output_embeddings()
        layer.register_forward_hook(lambda _, __, out: sizes.append(out.numel()))
    assert len(dict(divergences(a, b, queries))) == len(queries)
    longest = max(len(q.context) + len(q.continuation) - 1 for q in queries)
    assert max(sizes) == (97 * 3 if a.head is not None else 97 * longest)


def test_shared_questions_agree_with_the_scorer() -> None:
    one = small("llama")
    two, queries = moved(one), questions()
    found = between(one, two, queries)
    for model, side in ((one, "a"), (two, "b")):
        for k, likelihood in Scorer(model, "alone").score(queries):
            assert getattr(found[k], f"logprobs_{side}") == pytest.approx(likelihood.logprobs, abs=1e-5)
            assert (getattr(found[k], f"greedy_{side}") == likelihood.greedy).all()


# -- what is refused -------------------------------------------------------------------------------------------------------------------------


def test_vocabularies_of_two_sizes() -> None:
    one, two = Scorer(constant(np.full(8, 1 / 8)), "small\x1b"), Scorer(constant(np.full(9, 1 / 9)), "large")
    with pytest.raises(InputError, match=r"^small\\x1b has 8 tokens in its output and large has 9: .* per byte$"):
        divergences(one, two, [Query((1,), (2,))])


def test_what_either_model_cannot_take() -> None:
    one, two = Scorer(constant(np.full(97, 1 / 97)), "short"), Scorer(small("llama"), "llama")
    long = Query(tuple(range(60)), tuple(range(10)))
    for pair in ((one, two), (two, one)):
        with pytest.raises(InputError, match="short takes at most 65"):
            divergences(*pair, [long])


def test_a_model_that_gives_no_numbers_is_named() -> None:
    one, two = small("llama"), small("llama")
    a, b = Scorer(one, "fine"), Scorer(two, "broken")
    with torch.no_grad():
        two.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(FloatingPointError, match=r"^broken gives"):
        list(divergences(a, b, questions()))
