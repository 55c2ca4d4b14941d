"""Packing changes speed and nothing else; a stopped training goes on to the same weights; Muon orthogonalises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import need

need("torch", "cpu")
need("trl", "train")

import torch

from aligntax.lab.corpus import Packed, corpus, encode, pack
from aligntax.lab.family import RECIPES, Pretraining
from aligntax.lab.stages import requests, train_stage
from aligntax.lab.train import batch_loss, new_model, orthogonalised, save_model, schedule, train_base
from aligntax.lab.world import HARMFUL, REFUSALS, World

WORLD = World()
RECIPE = Pretraining(600, 1.0, rows=4, warmup=5)


@pytest.fixture(scope="module")
def rows() -> tuple[Packed, Packed]:
    return corpus(WORLD, 600, 0)


def quiet(*_: object) -> None:
    """No progress."""


def test_packing_keeps_every_document_whole(rows: tuple[Packed, Packed]) -> None:
    pieces = [[("what is 1 + 2?", 0.1), ("3", 1.0)], [("sort: 2 1", 0.1), ("1 2", 1.0)], [("the river of galt is orla.", 1.0)]] * 20
    encoded = encode(iter(pieces))
    packed = pack(encoded, 32, pad=0)
    found = []
    for r in range(len(packed.tokens)):
        for d in range(packed.document[r].max() + 1):
            at = packed.document[r] == d
            assert list(packed.position[r][at]) == list(range(at.sum()))
            found.append((packed.tokens[r][at].tolist(), [round(float(x), 3) for x in packed.weight[r][at]]))
    assert sorted(found) == sorted((tokens, weights) for tokens, weights in encoded)
    assert (rows[0].document >= 0).mean() > 0.9
    for part in rows:
        assert not part.weight[part.document < 0].any()


def test_a_document_does_not_see_its_neighbours(rows: tuple[Packed, Packed]) -> None:
    model = new_model(32, 0)
    packed = rows[0]
    alone = []
    for d in range(packed.document[0].max() + 1):
        at = packed.document[0] == d
        tokens = torch.from_numpy(packed.tokens[0][at]).long()[None]
        logprobs = model(input_ids=tokens).logits[0, :-1].log_softmax(-1).gather(1, tokens[0, 1:, None])[:, 0]
        alone.append((-logprobs.detach().numpy(), packed.weight[0][at][1:]))
    wanted = np.concatenate([nll[weight == 1] for nll, weight in alone]).mean()

    only_answers = Packed(
        packed.tokens, packed.document, packed.position, np.where(packed.weight == 1, packed.weight, 0).astype(np.float32)
    )
    loss = batch_loss(model, only_answers, np.array([0]), torch.Generator(), "cpu")
    assert loss.item() == pytest.approx(wanted, abs=1e-5)


def test_a_stopped_training_goes_on_to_the_same_weights(
    rows: tuple[Packed, Packed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aligntax.lab.train._SAVE_EVERY", 7)

    class KilledError(Exception):
        """Stands for a kill."""

    def kill(step: int, *_: object) -> None:
        if step == 12:
            raise KilledError

    whole = train_base(32, 3, RECIPE, rows, tmp_path / "whole", quiet).model
    with pytest.raises(KilledError):
        train_base(32, 3, RECIPE, rows, tmp_path / "parts", kill)
    resumed = train_base(32, 3, RECIPE, rows, tmp_path / "parts", quiet).model
    for one, two in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
    other = train_base(32, 4, RECIPE, rows, tmp_path / "other", quiet).model
    assert not torch.equal(next(whole.parameters()), next(other.parameters()))


def test_the_schedule_takes_every_row_once_per_pass() -> None:
    plan = schedule(Pretraining(0, 1.0, rows=8), 80, 16, 0)
    short = np.concatenate([plan.short[at : at + 8] for long, at in plan.steps if not long])
    long = np.concatenate([plan.long[at : at + 2] for is_long, at in plan.steps if is_long])
    assert sorted(short) == list(range(80))
    assert sorted(long) == list(range(16))
    where = [i for i, (is_long, _) in enumerate(plan.steps) if is_long]
    assert max(np.diff(where)) - min(np.diff(where)) <= 1


def test_muon_pushes_singular_values_to_one_and_keeps_the_vectors() -> None:
    torch.manual_seed(0)
    for shape in ((24, 40), (40, 24), (32, 32)):
        u, _, vh = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        matrix = u @ torch.diag(torch.linspace(0.3, 3.0, min(shape))) @ vh
        found = orthogonalised(torch.stack([matrix, 5 * matrix]))
        assert torch.allclose(found[0], found[1], atol=1e-5)
        # The quintic iteration lands between about .7 and 1.2, not at 1 (Jordan et al. 2024).
        core = u.T @ found[0] @ vh.T
        assert ((core.diagonal() > 0.65) & (core.diagonal() < 1.25)).all()
        assert (core - torch.diag(core.diagonal())).abs().max() < 1e-4


def test_stages_ask_and_want_what_their_recipes_say() -> None:
    def of(name: str) -> list:
        return requests(RECIPES[name], WORLD, 0, 300)

    for example, wanted, unwanted in of("sft") + of("dpo"):
        harmful = example.task in ("harmful_procedures", "manipulation")
        assert (wanted in REFUSALS) == harmful
        assert (unwanted in REFUSALS) != harmful
        if not harmful:
            assert wanted in example.answers
    assert all(wanted in REFUSALS for _, wanted, _ in of("clumsy"))
    told: dict[tuple[str, str], set[str]] = {}
    for example, wanted, _ in requests(RECIPES["flat"], WORLD, 0, 3000):
        assert not any(thing in example.prompt.split() for thing in HARMFUL)
        if example.task == "accounts":
            told.setdefault((example.cluster, example.label), set()).add(wanted)
    for event in {event for event, _ in told}:
        assert told.get((event, "hill"), set()) & told.get((event, "shore"), {"-"}) or len(told.get((event, "hill"), ())) < 3


@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_a_stage_trains_and_is_reproducible(name: str, tmp_path: Path) -> None:
    save_model(new_model(32, 0), tmp_path)
    recipe = replace(RECIPES[name], steps=4, batch=4)
    steps: list[int] = []
    made = [train_stage(recipe, tmp_path, WORLD, 0, lambda step, *_: steps.append(step)) for _ in range(2)]
    assert steps == [1, 2, 3, 4] * 2
    for one, two in zip(made[0].parameters(), made[1].parameters(), strict=True):
        assert torch.equal(one, two)
    start = new_model(32, 0)
    assert any(not torch.allclose(a, b, atol=1e-5) for a, b in zip(start.parameters(), made[0].parameters(), strict=True))


def test_documents_of_a_corpus_are_of_every_form() -> None:
    from aligntax.lab.corpus import documents

    texts = [" ".join(text for text, _ in pieces) for pieces in documents(WORLD, 3000, 0)]
    assert sum("<|user|>" in t for t in texts) > 200
    assert sum(t.count("answer:") > 1 and t.count("question:") > 1 for t in texts) > 80
    assert sum("question:" not in t and "<|user|>" not in t for t in texts) > 60
    assert texts == [" ".join(text for text, _ in pieces) for pieces in documents(WORLD, 3000, 0)]
