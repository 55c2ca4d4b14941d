"""Replies are what each request would get alone, computed plainly, whatever is shared, whoever is there, and however stops are found."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

from aligntax.lab.tokenizer import make_tokenizer
from aligntax.lab.train import new_model
from aligntax.models import benches
from aligntax.models.benches import Benches, seats_for
from aligntax.models.generation import Generator
from aligntax.models.local import LocalModel, Reply, Request, choose
from aligntax.models.writing import Watch

SMALL = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 128, "head_dim": 8, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": 40,
}
# (architecture, changes to the small configuration, what is said about sharing)
MODELS = {
    "llama": ("llama", {}, "prefixes shared: a trial agreed with plain decoding"),
    "llama eager": ("llama", {"attn_implementation": "eager"}, "prefixes shared: a trial agreed with plain decoding"),
    "qwen3": ("qwen3", {}, "prefixes shared: a trial agreed with plain decoding"),
    "gpt2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, "prefixes shared: a trial agreed with plain decoding"),
    "gpt_neox": ("gpt_neox", {}, "prefixes shared: a trial agreed with plain decoding"),
    "granite, which scales its logits": ("granite", {"logits_scaling": 0.3}, "prefixes shared: a trial agreed with plain decoding"),
    "a window": ("mistral", {"sliding_window": 8}, "plain batches: attention in a window of 8 tokens"),
    "a wider window": ("mistral", {"sliding_window": 40}, "prefixes shared: .*; what may go beyond 40 tokens, where attention changes, is"),
    "windows in some layers": (
        "gemma2",
        {"sliding_window": 16},
        "prefixes shared: .*; what may go beyond 16 tokens, where attention changes",
    ),
    "positions that stretch": ("llama", {"rope_parameters": LONG}, "prefixes shared: .*; what may go beyond 40 tokens, where attention"),
    "a window by places": (
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "window_size": 24, "attention_types": [[["global", "local"], 1]]},
        "plain batches: attention in a window that the model keeps to itself",
    ),
    "mamba, which is recurrent": ("mamba", {"state_size": 4}, "plain batches: layers of type linear_attention"),
}


def small(name: str) -> torch.nn.Module:
    kind, changes, _ = MODELS[name]
    made = {**SMALL, **changes}
    attention = made.pop("attn_implementation", None)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**made), **({"attn_implementation": attention} if attention else {}))
    with torch.no_grad():  # choices that are far from ties, and distributions far from flat, so that a wrong position shows
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return model.eval()


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def some_requests(seed: int = 0, count: int = 24, shots: int = 30, temperature: float = 0.0, **more: Any) -> list[Request]:
    """Prompts with shared shots, prompts without, prefixes of each other, repeats, and one of a single token."""
    rng = random.Random(seed)

    def tokens(n: int) -> tuple[int, ...]:
        return tuple(rng.randrange(3, 97) for _ in range(n))

    start, other = tokens(shots), tokens(20)
    prompts = [(*start, *tokens(rng.randint(1, 15))) for _ in range(count - 10)]
    prompts += [(*other, *tokens(rng.randint(1, 9))) for _ in range(5)]
    prompts += [start, start, prompts[0][:-1], tokens(1), tokens(70)]
    return [Request(p, max_tokens=rng.randint(1, 25), temperature=temperature, seed=k, **more) for k, p in enumerate(prompts)]


@torch.inference_mode()
def alone(model: torch.nn.Module, tokenizer: Any, request: Request, reply: Reply) -> tuple[list[int], list[float], str, str | None]:
    """Tokens, log-probabilities, text and reason by the plainest rule: the request alone, no cache, all decoded anew after every token.

    As long as tokens are those of the reply, their logits come from one pass over the whole reply.
    """
    local = LocalModel(model, tokenizer, "plain")
    local.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
    stretches = "longrope" in str(getattr(model.config, "rope_parameters", None))  # what comes later would change what came before
    given, count = [*request.tokens, *(t.id for t in reply.tokens)], len(request.tokens)
    rows = model(input_ids=torch.tensor([given]), use_cache=False).logits[0, count - 1 :]
    ids, logprobs, draws = list(request.tokens), [], torch.Generator().manual_seed(request.seed)
    text, reason = "", None
    while reason is None:
        known = not stretches and ids == given[: len(ids)]
        row = rows[len(ids) - count] if known else model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
        row = row.float().log_softmax(-1)
        ids.append(choose(row, request, draws))
        logprobs.append(float(row[ids[-1]]))
        if ids[-1] in local.ends:
            reason = "stop"
            break
        text = local.decode(ids[count:])
        cuts = [at for stop in request.stops if (at := text.find(stop)) >= 0]
        if cuts:
            text, reason = text[: min(cuts)], "stop"
        elif len(logprobs) >= request.max_tokens or len(ids) >= local.context:
            reason = "length"
    return ids[count:], logprobs, text, reason


def check(model: torch.nn.Module, tokenizer: Any, request: Request, reply: Reply) -> None:
    tokens, logprobs, text, reason = alone(model, tokenizer, request, reply)
    assert [t.id for t in reply.tokens] == tokens
    assert [t.logprob for t in reply.tokens] == pytest.approx(logprobs, abs=2e-4)
    assert (reply.text, reply.reason) == (text, reason)


# -- what is computed -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("share", [True, False])
def test_every_reply_is_the_one_computed_alone_and_plainly(name: str, share: bool, words: PreTrainedTokenizerFast) -> None:
    model = small(name)
    generator = Generator(model, words, name, share=share)
    said = MODELS[name][2] if share else "plain batches: as asked"
    assert re.match(said, generator.sharing), generator.sharing
    requests = [*some_requests(), *some_requests(1, 12, temperature=1.0), *some_requests(2, 12, temperature=0.8, top_p=0.7)]
    found = dict(generator.generate(requests))
    assert set(found) == set(range(len(requests)))
    for k, request in enumerate(requests):
        check(model, words, request, found[k])


@pytest.mark.parametrize("tokens", [1, 60, 150, 400, 10_000])
def test_budget_order_and_company_do_not_matter(tokens: int, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    requests = [*some_requests(0, 40), *some_requests(1, 20, temperature=1.0)]
    wanted = dict(Generator(model, words, "llama").generate(requests))
    order = random.Random(tokens).sample(range(len(requests)), len(requests))
    monkeypatch.setattr(benches, "PREFILL", tokens)
    monkeypatch.setattr(benches, "ROW", 1 + tokens % 50)
    found = dict(Generator(model, words, "llama", batch_tokens=tokens).generate([requests[k] for k in order]))
    for at, k in enumerate(order):
        assert [t.id for t in found[at].tokens] == [t.id for t in wanted[k].tokens]
        assert [t.logprob for t in found[at].tokens] == pytest.approx([t.logprob for t in wanted[k].tokens], abs=2e-4)


@pytest.mark.parametrize("seats", [1, 2, 5])
def test_alone_and_among_fifty(seats: int, words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benches, "seats_for", lambda *_: seats)
    generator = Generator(small("llama"), words, "llama")
    requests = [*some_requests(0, 30), *some_requests(3, 20, temperature=0.9)]
    for k, reply in generator.generate(requests):
        ((_, single),) = generator.generate([requests[k]])
        assert [t.id for t in single.tokens] == [t.id for t in reply.tokens]
        assert (single.text, single.reason) == (reply.text, reply.reason)


def test_replies_are_those_of_the_local_model(words: PreTrainedTokenizerFast) -> None:
    model = new_model(64, 1)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(6)
    local = LocalModel(model, words, "lab")
    texts = ["question: what is 1 + 2? answer:", "question: sort: 3 1 2 0 answer:", "the river of galt is", "account one: the flood was"]
    free = local.generate([Request(local.encode(t), max_tokens=12) for t in texts])
    requests = []
    for text, reply in zip(texts, free, strict=True):
        requests += [Request(local.encode(text), max_tokens=40, stops=(word,), top=3) for word in reply.text.split()[2:5]]
        requests += [Request(local.encode(text), max_tokens=40, temperature=t, seed=k) for k, t in enumerate((0.5, 1.0, 1.5))]
    found = dict(Generator(model, words, "lab").generate(requests))
    for k, wanted in enumerate(local.generate(requests)):
        assert [t.id for t in found[k].tokens] == [t.id for t in wanted.tokens]
        assert (found[k].text, found[k].reason) == (wanted.text, wanted.reason)
        for one, two in zip(found[k].tokens, wanted.tokens, strict=True):
            assert [i for i, _ in one.top] == [i for i, _ in two.top]
            assert [x for _, x in one.top] == pytest.approx([x for _, x in two.top], abs=2e-4)


def test_what_is_shared_is_computed_once(words: PreTrainedTokenizerFast) -> None:
    model = small("llama")
    generator = Generator(model, words, "llama")
    rng = random.Random(0)
    start = [rng.randrange(3, 97) for _ in range(80)]
    requests = [Request((*start, *(rng.randrange(3, 97) for _ in range(5))), max_tokens=4) for _ in range(32)]
    read: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True)
    replies = dict(generator.generate(requests))
    written = sum(len(r.tokens) for r in replies.values())
    assert sum(read) <= 80 + 32 * 5 + 2 * written  # those at prefill and, some padding included, one for each new token
    assert max(read) < 32 * 5


def test_nobody_waits_for_the_longest(words: PreTrainedTokenizerFast) -> None:
    """One reply of 80 tokens and many of 2 cost little more steps than the long one alone."""
    model = small("llama")
    with torch.no_grad():
        model.get_output_embeddings().weight[2] = 0.0  # the end token is never the likeliest
    generator = Generator(model, words, "llama", batch_tokens=450)
    rng = random.Random(0)
    requests = [Request(tuple(rng.randrange(3, 97) for _ in range(10)), max_tokens=80 if k == 7 else 2) for k in range(100)]
    calls: list[int] = []
    model.register_forward_pre_hook(lambda _, __, given: calls.append(given["input_ids"].shape[1]), with_kwargs=True)
    order = [k for k, _ in generator.generate(requests)]
    assert order[-1] == 7
    assert len(calls) <= 80 + 100 // 4


def test_the_budget_is_kept_and_who_is_sent_back_loses_nothing(words: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small("llama")
    requests = some_requests(5, 40)
    requests = [Request(r.tokens, max_tokens=60, seed=r.seed) for r in requests]
    held, sent, back = [], [], Benches._send_back

    def watched(self: Benches) -> None:
        before = self._live
        back(self)
        sent.append(before - self._live)
        held.append((self.tokens - self._room + self._live, self._live))

    monkeypatch.setattr(Benches, "_send_back", watched)
    generator = Generator(model, words, "llama", batch_tokens=300)
    sent.clear()
    held.clear()
    found = dict(generator.generate(requests))
    assert sum(sent) > 0
    assert all(tokens <= 300 or live == 1 for tokens, live in held)
    for k, request in enumerate(requests):
        check(model, words, request, found[k])


def test_trunks_grow_from_trunks(words: PreTrainedTokenizerFast) -> None:
    """Two subjects with shots of their own under one instruction, and several draws for each question."""
    model = small("llama")
    rng = random.Random(1)
    head = [rng.randrange(3, 97) for _ in range(20)]
    requests = []
    for _ in range(2):
        shots = [*head, *(rng.randrange(3, 97) for _ in range(20))]
        for _ in range(6):
            prompt = (*shots, *(rng.randrange(3, 97) for _ in range(30)))
            requests += [Request(prompt, max_tokens=8, temperature=1.0, seed=len(requests) + s) for s in range(5)]
    rng.shuffle(requests)
    for k, reply in Generator(model, words, "llama", batch_tokens=700).generate(requests):
        check(model, words, requests[k], reply)


class Bare(torch.nn.Module):
    """A model that takes token ids and nothing else, not more than ``most`` rows of them, or none of unequal length."""

    def __init__(self, inner: Any, most: int = 1) -> None:
        super().__init__()
        self.inner, self.most = inner, most
        self.config, self.generation_config, self.dtype = inner.config, inner.generation_config, inner.dtype

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> Any:
        if len(input_ids) > self.most:
            raise ValueError
        return self.inner(input_ids=input_ids, use_cache=False)


class Caching(Bare):
    def forward(self, input_ids: torch.Tensor, use_cache: bool = False, past_key_values: Any = None) -> Any:  # type: ignore[override]
        if len(input_ids) > self.most:
            raise ValueError
        return self.inner(input_ids=input_ids, use_cache=use_cache, past_key_values=past_key_values)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Bare, "one request at a time, computed anew for every token: a trial of shared prefixes failed (TypeError)"),
        (Caching, "one request at a time: a trial of shared prefixes failed (TypeError)"),
    ],
)
def test_a_model_that_can_do_little_is_asked_for_little(kind: type[Bare], said: str, words: PreTrainedTokenizerFast) -> None:
    model = kind(small("llama"))
    generator = Generator(model, words, "bare")
    assert generator.sharing == said
    requests = some_requests(0, 12)
    for k, reply in generator.generate(requests):
        check(model.inner, words, requests[k], reply)


def test_logits_that_are_no_numbers_are_an_error_and_no_reply(words: PreTrainedTokenizerFast) -> None:
    for share in (True, False):
        model = small("llama")
        generator = Generator(model, words, "some-model", share=share)
        with torch.no_grad():
            model.get_output_embeddings().weight[7] = float("nan")
        with pytest.raises(FloatingPointError, match="some-model gives logits that are no numbers"):
            list(generator.generate(some_requests()))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [((), "at least one token"), ((97,), "from 0 to 96"), ((-1, 5), "from 0 to 96"), (tuple([5] * 128), "some-model takes at most 127")],
)
def test_what_cannot_be_continued_is_said_before_anything_is_computed(
    tokens: tuple[int, ...], message: str, words: PreTrainedTokenizerFast
) -> None:
    model = small("llama")
    generator = Generator(model, words, "some-model")
    model.register_forward_pre_hook(lambda *_: pytest.fail("computed"))
    with pytest.raises(InputError, match=message):
        generator.generate([Request((5, 6)), Request(tokens)])


def test_the_context_is_a_limit_and_nothing_is_asked_of_nothing(words: PreTrainedTokenizerFast) -> None:
    model = small("llama")
    for share in (True, False):
        generator = Generator(model, words, "llama", share=share)
        assert list(generator.generate([])) == []
        requests = [Request((*range(3, 90), *range(3, 90))[:n], max_tokens=50) for n in (127, 120, 60)]
        for k, reply in generator.generate(requests):
            check(model, words, requests[k], reply)
            assert len(requests[k].tokens) + len(reply.tokens) <= 128


def test_a_prefix_is_read_once_by_several_where_that_pays() -> None:
    plain = CONFIG_MAPPING["llama"](**{**SMALL, "num_key_value_heads": 4})
    shared = CONFIG_MAPPING["llama"](**{**SMALL, "num_attention_heads": 16, "num_key_value_heads": 2})
    assert seats_for(0, 200, plain) == 1
    assert seats_for(600, 60, plain) >= 8
    assert seats_for(600, 60, shared) == 1  # several queries would have shared heads copied out for each


# -- where stops are found ------------------------------------------------------------------------------------------------------

SAID = [
    "the naïve café — 東京 is big 😀😀 done.\n\nQ: 12+30?",
    "Ωmega «word» ...\n### end\n",
    "été 한국어 test's don't, ok",
    "🧑‍🚀 flies to 月 !",
]


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE, where characters are split over tokens."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.train_from_iterator(
        SAID * 4,
        trainers.BpeTrainer(
            vocab_size=330, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


def byte_fallback() -> PreTrainedTokenizerFast:
    """As sentencepiece decodes: spaces in tokens, the first one dropped, unknown characters as bytes."""
    pieces = ["<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", "▁the", "▁a", "b", "ok", ".", "\n", "##", "▁Q:", "é", "東", "▁▁"]
    inner = Tokenizer(models.BPE({piece: k for k, piece in enumerate(pieces)}, [], byte_fallback=True))
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    inner.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>")


def encodings(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> list[list[int]]:
    return [ids for text in texts if (ids := list(tokenizer(text, add_special_tokens=False)["input_ids"]))]


TOKENIZERS: dict[str, tuple[PreTrainedTokenizerFast, list[list[int]]]] = {}


def tokenizer_named(name: str) -> tuple[PreTrainedTokenizerFast, list[list[int]]]:
    """A tokenizer, and runs of its tokens that make sense."""
    if name not in TOKENIZERS:
        if name == "bytes":
            made = byte_level()
            TOKENIZERS[name] = made, encodings(made, SAID)
        elif name == "fallback":
            made = byte_fallback()
            runs = [[made.convert_tokens_to_ids(f"<0x{b:02X}>") for b in text.encode()] for text in ("東京", "😀", "é", "x y")]
            TOKENIZERS[name] = made, [*runs, *([k] for k in range(258, len(made)))]
        else:
            made = make_tokenizer()
            TOKENIZERS[name] = made, encodings(made, ["the river of galt is 47 + 305?", "dear anna, a song awaits you.", "sort: 3 1 2 0"])
    return TOKENIZERS[name]


def by_the_rule(decode: Callable[[Sequence[int]], str], stops: Sequence[str], ids: Sequence[int]) -> tuple[str, int | None]:
    text = ""
    for n in range(1, len(ids) + 1):
        text = decode(ids[:n])
        cuts = [at for stop in stops if (at := text.find(stop)) >= 0]
        if cuts:
            return text[: min(cuts)], n
    return text, None


def watched(decode: Callable[[Sequence[int]], str], stops: Sequence[str], ids: Sequence[int]) -> tuple[tuple[str, int | None], bool]:
    """What a watch finds, and whether its window moved."""
    watch = Watch(decode, stops)
    for token in ids:
        if watch.add(token):
            break
    return watch.settled(), watch._start > 0


@pytest.mark.parametrize("name", ["bytes", "fallback", "lab"])
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_stops_are_found_as_if_all_were_decoded_every_time(name: str, data: st.DataObject) -> None:
    tokenizer, runs = tokenizer_named(name)
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    noise = data.draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    ids: list[int] = []
    size = data.draw(st.integers(1, 260))
    while len(ids) < size:
        ids += [rng.randrange(len(tokenizer))] if rng.random() < noise else rng.choice(runs)

    def decode(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), skip_special_tokens=True))

    text = decode(ids)
    stops = []
    for _ in range(data.draw(st.integers(1, 3))):  # something that comes, as late as can be; something that never does
        at = rng.randrange(max(1, len(text)))
        length = rng.choice([1, 2, 5, 12, 40])
        stops.append(rng.choice([text[at : at + length], text[-length:], text[: at + 1][-length:], "\n\n", "###", "\ufffd", " ", "."]))
    stops = [s for s in stops if s]
    assert watched(decode, stops, ids)[0] == by_the_rule(decode, stops, ids)


@pytest.mark.parametrize("name", ["bytes", "fallback", "lab"])
def test_windows_move_and_late_stops_are_found(name: str) -> None:
    tokenizer, runs = tokenizer_named(name)
    rng = random.Random(0)
    moved = 0
    for _ in range(40):
        ids = [token for _ in range(120) for token in rng.choice(runs)][:200]
        text = str(tokenizer.decode(ids))
        for length in (3, 9, 30):
            late = text[-length:]
            while late in text[:-length] and len(late) < 60:
                late = text[-len(late) - 1 :]
            decoded = lambda some: str(tokenizer.decode(list(some)))  # noqa: E731
            found, did = watched(decoded, [late], ids)
            assert found == by_the_rule(decoded, [late], ids)
            moved += did
    assert moved > 60


def odd_joins(ids: Sequence[int]) -> str:
    """Text whose end depends on its beginning: after a first token of 0, ``x`` is written ``y``."""
    text = "".join("abx. "[i % 5] for i in ids)
    return text.replace("x", "y") if ids and ids[0] == 0 else text


def late_change(ids: Sequence[int]) -> str:
    """Text that changes as a whole when it gets long."""
    text = "".join("abx. "[i % 5] for i in ids)
    return text.upper() if len(ids) > 100 else text


@pytest.mark.parametrize("decode", [odd_joins, late_change])
def test_tokenizers_that_no_window_understands_are_taken_back_to_where_they_should_have_ended(
    decode: Callable[[Sequence[int]], str],
) -> None:
    rng = random.Random(0)
    for trial in range(200):
        ids = [0, *(rng.choice([0, 1, 3, 4]) for _ in range(180))]
        ids[rng.randrange(60, 180)] = 2
        stops = [rng.choice(["y", "x", "X", "Y", "by", "B", "y."])]
        found, _ = watched(decode, stops, ids)
        assert found == by_the_rule(decode, stops, ids), (trial, stops)


def test_a_window_costs_less_than_all() -> None:
    decoded = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(ids)
        return " ".join(f"w{i}" for i in ids)

    watched(decode, ["never"], list(range(2000)))
    assert decoded < 2000 * 80
