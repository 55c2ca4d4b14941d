"""Local models as raters: what they say is what they say through an endpoint."""

from __future__ import annotations

import csv
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aligntax.atlas import local as module
from aligntax.atlas.pairs import PairSet, pair_set, read_pairs
from aligntax.atlas.protocol import Plan, Protocol
from aligntax.atlas.roster import Rater, Roster
from aligntax.atlas.run import Run, collect, finish, notes, outcomes, planned
from aligntax.core.errors import InputError
from aligntax.lab.pairs import account_pairs
from aligntax.lab.world import World
from aligntax.models.embedded import folder_of
from tests.conftest import need

if TYPE_CHECKING:
    from aligntax.lab.serve import Server
    from aligntax.models.local import LocalModel

need("torch", "cpu")
need("transformers", "models")

LAB = Protocol(variants=("lab",), scale="d9", repeats=1)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> PairSet:
    path = tmp_path_factory.mktemp("pairs") / "accounts.csv"
    path.write_text(account_pairs(World()))
    return pair_set(read_pairs(path).pairs[:12], "accounts.csv")


@pytest.fixture(scope="module")
def base() -> LocalModel:
    from aligntax.models.local import LocalModel

    return LocalModel.load(folder_of("base"), "lab:base")


@pytest.fixture(scope="module")
def server(base: LocalModel) -> Iterator[Server]:
    from aligntax.lab.serve import Server

    with Server(base) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def run(folder: Path, plan: Plan, **models: Any) -> Run:
    made = planned(folder, plan, Roster(models={name: Rater.model_validate(given) for name, given in models.items()}))
    collect(made, lambda *_: None)
    return made


def table(made: Run) -> list[dict[str, str]]:
    with finish(made)[0].open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def lines(made: Run) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in (made.out / "calls.jsonl").read_bytes().splitlines()]


def test_expected_ratings_are_those_through_an_endpoint(server: Server, pairs: PairSet, tmp_path: Path) -> None:
    made = run(
        tmp_path,
        Plan(LAB, pairs),
        here={"model": "lab:base", "template": "raw"},
        there={"model": f"api:{server.url}#lab:base", "template": "raw"},
    )
    assert outcomes(made) == {"here": {"ok": 24}, "there": {"ok": 24}}
    rows = table(made)
    here, there = ({(r["pair"], r["order"]): r for r in rows if r["model"] == name} for name in ("here", "there"))
    assert {r["mode"] for r in rows} == {"logprob"}
    for key, row in here.items():
        assert float(row["rating"]) == pytest.approx(float(there[key]["rating"]), abs=1e-6), key
        assert float(row["sd"]) == pytest.approx(float(there[key]["sd"]), abs=1e-3)  # a server lists 20 tokens, not every digit
    truth = [p.reference for p in pairs.pairs]
    means = [sum(float(here[p.name, order]["rating"]) for order in ("AB", "BA")) / 2 for p in pairs.pairs]
    assert all(abs(m - t) < 0.35 for m, t in zip(means, truth, strict=True) if t is not None)  # it was taught to


def test_the_digits_are_the_models_own(base: LocalModel, pairs: PairSet, tmp_path: Path) -> None:
    plan = Plan(LAB, pairs)
    made = run(tmp_path, plan, m={"model": "lab:base", "template": "raw"})
    for line in lines(made)[:4]:
        prompt = base.encode(plan.raw(made.known[line["call"]]))
        told = dict(line["logprobs"][0][2])
        for digit in "0123456789":
            whole = base.encode(plan.raw(made.known[line["call"]]) + f" {digit}")
            (scored,) = base.score([whole])
            assert told[digit] == pytest.approx(sum(t.logprob for t in scored[len(prompt) - 1 :]), abs=1e-4)


def test_repeats_are_scored_once(pairs: PairSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[int] = []
    plain = module._digits

    def counting(plan: Plan, model: Any, rater: Rater, calls: Any) -> Any:
        shown.append(len(calls))
        return plain(plan, model, rater, calls)

    monkeypatch.setattr(module, "_digits", counting)
    monkeypatch.setattr(module, "BATCH", 20)
    made = run(tmp_path, Plan(Protocol(variants=("lab",), scale="d9", repeats=3), pairs), m={"model": "lab:base", "template": "raw"})
    assert outcomes(made) == {"m": {"ok": 72}}
    assert sum(shown) == 24
    assert len({line["fingerprint"] for line in lines(made)}) == 1  # of the weights
    by_cell: dict[tuple[str, str], set[str]] = {}
    for row in table(made):
        by_cell.setdefault((row["pair"], row["order"]), set()).add(row["rating"])
    assert all(len(values) == 1 for values in by_cell.values())


def test_sampled_ratings_are_those_through_an_endpoint(server: Server, pairs: PairSet, tmp_path: Path) -> None:
    plan = Plan(Protocol(variants=("lab",), scale="d9", repeats=2, logprobs=False), pairs)
    alone = run(tmp_path / "a", plan, m={"model": "lab:base", "template": "raw"})
    assert {r["mode"] for r in table(alone) if r["rating"]} == {"sampled"}
    again = run(tmp_path / "b", plan, m={"model": "lab:base", "template": "raw"})
    assert [r["rating"] for r in table(again)] == [r["rating"] for r in table(alone)]
    served = run(tmp_path / "c", plan, m={"model": f"api:{server.url}#lab:base", "template": "raw"})
    texts = {(line["pairs"][0], line["order"], line["repeat"]): line["text"] for line in lines(alone)}
    assert len(texts) == 48 == len(lines(served))
    assert all(line["text"].strip() for line in lines(served))


def test_where_digits_are_unlikely_the_reply_is_drawn(pairs: PairSet, tmp_path: Path) -> None:
    """The wordings for large models mean nothing to the embedded ones: the likeliest digit is not what they would write."""
    plan = Plan(Protocol(variants=("ends",), scale="d9", repeats=1), pair_set(pairs.pairs[:4], "four"))
    made = run(tmp_path, plan, m={"model": "lab:sft", "template": "chat"})
    drawn = [line for line in lines(made) if "logprobs" not in line]
    assert drawn
    assert all(line["digit_mass"] < 0.9 for line in drawn)
    assert all(line["logprobs"][0][0] == line["text"] for line in lines(made) if "logprobs" in line)
    for row in table(made):
        assert row["mode"] in ("", "sampled", "logprob")
        assert ("no_logprobs" in row["flags"]) is (row["mode"] == "sampled")


def test_asked_once_more_and_resumed_between_both(pairs: PairSet, tmp_path: Path) -> None:
    plan = Plan(Protocol(variants=("ends",), repeats=1, orders=("AB",)), pair_set(pairs.pairs[:4], "four"))
    made = run(tmp_path, plan, m={"model": "lab:sft", "template": "chat"})
    log, ratings = (tmp_path / "calls.jsonl").read_bytes(), [(r["rating"], r["status"], r["flags"]) for r in table(made)]
    first = [raw for raw in log.splitlines(keepends=True) if not json.loads(raw)["again"]]
    again = [json.loads(raw) for raw in log.splitlines() if json.loads(raw)["again"]]
    assert again
    assert len(first) == 4
    (tmp_path / "calls.jsonl").write_bytes(b"".join(first))
    resumed = run(tmp_path, plan, m={"model": "lab:sft", "template": "chat"})
    new = lines(resumed)[4:]
    assert [line["again"] for line in new] == [True] * len(again)
    assert {line["call"]: line["text"] for line in new} == {line["call"]: line["text"] for line in again}
    assert [(r["rating"], r["status"], r["flags"]) for r in table(resumed)] == ratings


def test_a_list_of_pairs(pairs: PairSet, tmp_path: Path) -> None:
    plan = Plan(
        Protocol(presentation="batch", variants=("ends",), repeats=1, orders=("AB",), scale="d9"), pair_set(pairs.pairs[:3], "three")
    )
    made = run(tmp_path, plan, m={"model": "lab:base", "template": "raw"})
    assert sum(outcomes(made)["m"].values()) == 3
    assert len(lines(made)) == 1


def test_a_model_without_a_template_is_told_so(pairs: PairSet, tmp_path: Path) -> None:
    made = run(tmp_path, Plan(LAB, pairs), m={"model": "lab:base", "template": "chat"}, n={"model": "lab:base", "template": "raw"})
    ended = made.ended.get("m")
    if ended is not None:
        assert "template: raw" in ended
        assert any(note.startswith("m was not asked further: ") for note in notes(made))
    assert outcomes(made)["n"] == {"ok": 24}


def test_what_cannot_be_opened(pairs: PairSet) -> None:
    with pytest.raises(InputError):
        list(module.rated(Plan(LAB, pairs), "m", Rater(model="lab:nobody"), []))


def test_numbers_that_are_written_are_numbers(pairs: PairSet, tmp_path: Path) -> None:
    made = run(tmp_path, Plan(LAB, pairs), m={"model": "lab:base", "template": "raw"})
    for line in lines(made):
        values = [value for _, value in line["logprobs"][0][2]]
        assert all(math.isfinite(value) and value <= 0 for value in values)
        assert 0.9 <= sum(map(math.exp, values)) <= 1 + 1e-6
