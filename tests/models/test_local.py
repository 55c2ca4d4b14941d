"""The local engine: the same answers alone and in company, equal to what transformers says itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligntax.core.errors import InputError
from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch

from aligntax.models.local import LocalModel, Request
from tests.support.random_models import random_model

TEXTS = [
    "question: what is 1 + 2? answer:",
    "question: sort: 3 1 2 0 answer:",
    "the river of galt is",
    "account one: the flood was the gift of the earth",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model")
    random_model(made, 64, 1)
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> LocalModel:
    return LocalModel.load(folder)


def test_greedy_replies_are_those_of_transformers(model: LocalModel) -> None:
    for text in TEXTS:
        ids = model.encode(text)
        wanted = model.model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :].tolist()
        wanted = wanted[: wanted.index(3)] if 3 in wanted else wanted
        (reply,) = model.generate([Request(ids, max_tokens=20)])
        assert [t.id for t in reply.tokens] == wanted
        assert reply.text == model.tokenizer.decode(wanted, skip_special_tokens=True)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_company_changes_nothing(model: LocalModel, temperature: float) -> None:
    requests = [Request(model.encode(t), max_tokens=6 + 5 * i, temperature=temperature, seed=i, top=3) for i, t in enumerate(TEXTS)]
    together = model.generate(requests)
    for request, reply in zip(requests, together, strict=True):
        (alone,) = model.generate([request])
        assert [t.id for t in alone.tokens] == [t.id for t in reply.tokens]
        assert [t.logprob for t in alone.tokens] == pytest.approx([t.logprob for t in reply.tokens], abs=1e-4)
        assert alone.reason == reply.reason


def test_seeds_make_draws(model: LocalModel) -> None:
    ids = model.encode(TEXTS[2])

    def drawn(seed: int) -> str:
        return model.generate([Request(ids, max_tokens=12, temperature=1.5, seed=seed)])[0].text

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(8)}) > 4


def test_sampling_follows_the_distribution(model: LocalModel) -> None:
    ids = model.encode(TEXTS[0])
    logits = model.model(torch.tensor([ids])).logits[0, -1]
    wanted = (logits / 2.0).softmax(-1)
    counts = torch.zeros_like(wanted)
    for reply in model.generate([Request(ids, max_tokens=1, temperature=2.0, seed=s) for s in range(3000)]):
        counts[reply.tokens[0].id if reply.tokens else 3] += 1
    top = wanted.topk(5).indices
    assert torch.allclose(counts[top] / 3000, wanted[top], atol=4 * (0.25 / 3000) ** 0.5)


def test_top_p_leaves_out_the_tail(model: LocalModel) -> None:
    ids = model.encode(TEXTS[1])
    probs = model.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
    sorted_, order = probs.sort(descending=True)
    allowed = set(order[: int((sorted_.cumsum(0) < 0.5).sum()) + 1].tolist())
    drawn = {
        r.tokens[0].id if r.tokens else 3
        for r in model.generate([Request(ids, max_tokens=1, temperature=1.0, top_p=0.5, seed=s) for s in range(400)])
    }
    assert drawn <= allowed


def test_scores_are_log_probabilities(model: LocalModel) -> None:
    sequences = [model.encode(t) for t in TEXTS]
    for sequence, scored in zip(sequences, model.score(sequences, top=2), strict=True):
        logprobs = model.model(torch.tensor([sequence])).logits[0].log_softmax(-1).detach()
        assert [t.logprob for t in scored] == pytest.approx([float(logprobs[i, t]) for i, t in enumerate(sequence[1:])], abs=1e-4)
        assert [t.id for t in scored] == list(sequence[1:])
        assert [t.top[0][1] for t in scored] == pytest.approx(logprobs[:-1].max(-1).values.tolist(), abs=1e-4)


def test_stops_end_a_reply_and_are_not_part_of_it(model: LocalModel) -> None:
    ids = model.encode(TEXTS[0])
    (free,) = model.generate([Request(ids, max_tokens=10)])
    words = free.text.split(" ")
    (stopped,) = model.generate([Request(ids, max_tokens=10, stops=(words[2],))])
    assert stopped.text == free.text[: free.text.index(words[2])]
    assert stopped.reason == "stop"
    assert free.reason == "length"


def test_the_context_is_a_limit(model: LocalModel) -> None:
    ids = tuple([2] + [40] * 250)
    (reply,) = model.generate([Request(ids, max_tokens=100)])
    assert len(reply.tokens) <= 5
    with pytest.raises(InputError, match="takes at most 255"):
        model.generate([Request(tuple([2] * 256))])
    with pytest.raises(InputError, match="at least one token is needed"):
        model.generate([Request(())])
    with pytest.raises(InputError, match="each from 0 to"):
        model.score([[2, 5000]])


def test_pieces_add_up_to_the_text(model: LocalModel) -> None:
    for text in [*TEXTS, "dear anna, a song awaits you if you join the choir. 47 + 305?"]:
        ids = list(model.encode(text))
        assert "".join(model.piece(ids[:i], t) for i, t in enumerate(ids)) == model.decode(ids, special=True)


def test_what_is_no_model(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no config\.json"):
        LocalModel.load(tmp_path)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="cannot be loaded as a model"):
        LocalModel.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(InputError, match="cannot be loaded as a model"):
        LocalModel.load(tmp_path)


@pytest.mark.parametrize(
    "harm", ["a layer missing", "another shape", "cut off", "no safetensors", "a list as configuration", "a field of another type"]
)
def test_broken_weights_are_no_model(folder: Path, tmp_path: Path, harm: str, capfd: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    state = load_file(weights)
    if harm == "a layer missing":
        save_file({k: v for k, v in state.items() if "layers.2" not in k}, weights, metadata={"format": "pt"})
    elif harm == "another shape":
        save_file({k: v[:5] if k.endswith("norm.weight") else v for k, v in state.items()}, weights, metadata={"format": "pt"})
    elif harm == "cut off":
        weights.write_bytes(weights.read_bytes()[:-5000])
    elif harm == "no safetensors":
        weights.write_bytes(b"PK\x03\x04 not weights")
    elif harm == "a list as configuration":
        config.write_text("[1]")
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), "hidden_size": "wide"}))
    with pytest.raises(InputError, match=r"cannot be loaded as a model|is no complete model"):
        LocalModel.load(tmp_path)
    out, err = capfd.readouterr()
    assert out + err == ""


def test_a_temperature_next_to_nothing_is_greedy(model: LocalModel) -> None:
    ids = model.encode(TEXTS[0])
    (cold,), (greedy,) = (model.generate([Request(ids, max_tokens=5, temperature=t)]) for t in (1e-46, 0.0))
    assert cold == greedy


def test_pickled_weights_are_not_loaded(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    torch.save(LocalModel.load(folder).model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded as a model"):
        LocalModel.load(tmp_path)
