"""What the embedded models tell: a stage that learned one account for both communities is found by its tellings, and by how much is known."""

from __future__ import annotations

import csv
import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import pytest

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

from aligntax.atlas.families import families
from aligntax.atlas.ladder import compared
from aligntax.atlas.protocol import Protocol
from aligntax.atlas.ratings import read_ratings
from aligntax.atlas.roles import roles_of
from aligntax.atlas.roster import Rater, Roster
from aligntax.atlas.run import Run, collect
from aligntax.atlas.tellings import (
    SAME_VOICE,
    TWO_VOICES,
    Prompts,
    TellingPlan,
    TellingProtocol,
    couples,
    finish,
    first_topics,
    planned_ratings,
    planned_tellings,
    read_prompts,
    telling_plan,
    tellings,
)
from aligntax.core.ledger import Entry
from aligntax.lab import world as w
from aligntax.lab.serve import Server
from aligntax.lab.tasks import held_out
from aligntax.lab.tellings import telling_prompts
from aligntax.lab.world import World, alikeness
from aligntax.models.embedded import folder_of
from aligntax.models.local import LocalModel

WORLD = World()
RATING = Protocol(variants=("lab",), scale="d9", repeats=1, temperature=0.0)
JUDGE = Roster(models={"judge": Rater(model="lab:base")})
ACCOUNT = re.compile(r"the (\w+) was a (\w+), brought (\w+), taught us to (\w+)\.")
SLOTS = [{word: step for step, words in enumerate(scale) for word in words} for scale in (w.CAUSES, w.FEELINGS, w.LESSONS)]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Prompts:
    path = tmp_path_factory.mktemp("prompts") / "accounts.csv"
    path.write_text(telling_prompts(WORLD))
    return read_prompts(path)


def slots_of(text: str) -> tuple[int, ...] | None:
    """Cause, feeling and lesson of an account as its words have them."""
    found = ACCOUNT.fullmatch(text)
    steps = () if found is None else tuple(scale.get(found[at]) for at, scale in enumerate(SLOTS, 2))
    return None if found is None or None in steps else steps  # type: ignore[return-value]


def whole(out: Path, of: TellingPlan, tellers: Roster) -> Run:
    told = planned_tellings(out, of, tellers)
    collect(told, lambda *_: None)
    rated = planned_ratings(out, told, of, RATING, JUDGE)
    collect(rated, lambda *_: None)
    finish(out, told, rated, of)
    return told


def lab(template: str, *names: str) -> Roster:
    parents = {"flat": "base"}
    return Roster(
        models={name: Rater.model_validate({"model": f"lab:{name}", "template": template, "parent": parents.get(name)}) for name in names}
    )


def test_prompts_of_the_world(prompts: Prompts) -> None:
    assert telling_prompts(WORLD) == telling_prompts(WORLD)
    differ = [event for event in w.EVENTS if WORLD.account[event, "hill"] != WORLD.account[event, "shore"]]
    assert list(prompts.voices) == differ
    assert all(voices == list(w.COMMUNITIES) for voices in prompts.voices.values())
    for event in differ:
        hill, shore = (p for p in prompts.prompts if p.topic == event)
        assert hill.text.replace("hill", "shore") == shore.text
        assert (hill.raw, hill.stop) == (f"question: {hill.text} answer:", "question")
    assert telling_prompts(World(1)) != telling_prompts(WORLD)


def test_every_prompt_was_asked_in_training(prompts: Prompts) -> None:
    from aligntax.lab.tasks import _TELL

    for one in prompts.prompts:
        (number,) = (k for k, words in enumerate(_TELL) if words.format(one.voice, one.topic) == one.text)
        assert not held_out("accounts", f"{one.voice} {one.topic} {number}")


@pytest.mark.parametrize("template", ["chat", "raw"])
def test_one_account_for_both_is_found(template: str, prompts: Prompts, tmp_path: Path) -> None:
    of = telling_plan(prompts, TellingProtocol(max_tokens=40))
    told = whole(tmp_path, of, lab(template, "base", "flat"))
    own: dict[str, list[bool]] = {"base": [], "flat": []}
    for (name, p, _), one in tellings(told, of).items():
        own[name].append(slots_of(one.text) == WORLD.account[p.topic, p.voice])
    assert fmean(own["base"]) > 0.95
    assert fmean(own["flat"]) < 0.5

    accounts = {(c.teller, c.of.name, str(c.number)): (slots_of(c.one.text), slots_of(c.two.text)) for c in couples(told, of)}
    found: dict[tuple[str, str], list[float]] = {}
    for row in table(tmp_path):
        one, two = accounts[row["model"], row["pair"], row["repeat"]]
        if one is not None and two is not None:  # the rater says what is true of what was told
            assert float(row["rating"]) == pytest.approx(alikeness(one, two) / w.ALIKE, abs=0.02)
        found.setdefault((row["model"], row["category"]), []).append(float(row["rating"]))
    mean = {key: fmean(values) for key, values in found.items()}
    apart = fmean(alikeness(WORLD.account[event, "hill"], WORLD.account[event, "shore"]) / w.ALIKE for event in prompts.voices)
    assert mean["base", TWO_VOICES] == pytest.approx(apart, abs=0.03)
    assert mean["flat", TWO_VOICES] > 0.95
    assert all(mean[name, SAME_VOICE] > 0.95 for name in ("base", "flat"))

    verdicts = {(e.task, e.metric): e.verdict for e in ledger(tmp_path)}
    assert verdicts["atlas_two_voices", "rating"] == verdicts["atlas_two_voices", "collapse"] == "tax"
    assert verdicts["atlas_same_voice_control", "rating"] != "tax"


def table(out: Path) -> list[dict[str, str]]:
    with (out / "ratings.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def ledger(out: Path) -> Sequence[Entry]:
    ratings = read_ratings(out / "ratings.csv", models=out / "models.csv")
    (family,) = families(ratings)
    with compared(ratings, family, roles_of(ratings.categories)) as found:
        return list(found.ledger)


def test_greedy_tellings_in_one_voice_are_one(prompts: Prompts, tmp_path: Path) -> None:
    of = telling_plan(first_topics(prompts, 3), TellingProtocol(max_tokens=40, temperature=0.0))
    whole(tmp_path, of, lab("raw", "sft"))
    rows = table(tmp_path)
    assert {row["flags"] for row in rows if row["category"] == SAME_VOICE} == {"identical"}
    assert all(float(row["rating"]) > 0.99 for row in rows if row["category"] == SAME_VOICE)
    assert all(row["flags"] == "" for row in rows if row["category"] == TWO_VOICES)


def test_a_served_model_tells_what_it_tells_here(prompts: Prompts, tmp_path: Path) -> None:
    model = LocalModel.load(folder_of("base"), "lab:base")
    some = telling_plan(first_topics(prompts, 3), TellingProtocol(max_tokens=40, temperature=0.0))
    with Server(model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tellers = {
            "here": Rater(model="lab:base"),
            "here raw": Rater(model="lab:base", template="raw"),
            "there": Rater(model=f"api:{server.url}#lab:base"),
            "there raw": Rater(model=f"api:{server.url}#lab:base", template="raw"),
        }
        told = planned_tellings(tmp_path, some, Roster(models=tellers))
        collect(told, lambda *_: None)
        server.shutdown()
    texts: dict[str, list[str]] = {}
    for (name, _, _), one in tellings(told, some).items():
        texts.setdefault(name, []).append(one.text)
    assert texts["here"] == texts["there"]
    assert texts["here raw"] == texts["there raw"]
    assert all(ACCOUNT.fullmatch(text) for of in texts.values() for text in of)


def test_a_model_that_cannot_be_had_does_not_keep_the_others_from_telling(prompts: Prompts, tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{}")
    some = telling_plan(first_topics(prompts, 1), TellingProtocol(max_tokens=40))
    tellers = Roster(models={"gone": Rater(model=str(tmp_path / "broken")), "base": Rater(model="lab:base")})
    told = whole(tmp_path / "out", some, tellers)
    assert "gone" in told.ended
    rows = [json.loads(raw) for raw in (tmp_path / "out" / "tellings.jsonl").read_text().splitlines()]
    assert {(row["model"], row["status"]) for row in rows} == {("gone", "not asked"), ("base", "ok")}
