"""A run on disk: the plan before the first call, a log that only grows, resuming, and what is refused."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligntax.atlas.pairs import Pair, PairSet, pair_set
from aligntax.atlas.protocol import ATLAS_V1, Plan, Protocol
from aligntax.atlas.ratings import read_ratings
from aligntax.atlas.roster import Rater, Roster
from aligntax.atlas.run import Run, collect, estimates, finish, notes, outcomes, planned, probes
from aligntax.core.errors import InputError, RunError
from tests.support.faulty import Asked, Body, Faulty, reply

PAIRS = pair_set(
    [Pair(f"p{i}", "ab"[i % 2], None, f"The river was high in {1900 + i}.", f"In {1900 + i} it was dry.", 0.5) for i in range(8)], "test"
)
SMALL = Protocol(variants=("ends",), repeats=1)


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def quiet(*_: object) -> None:
    pass


def roster(server: Faulty, *names: str, **more: Any) -> Roster:
    return Roster(models={name: Rater.model_validate({"model": f"api:{server.url}#{name}", **more}) for name in names or ("m",)})


def plan(pairs: PairSet = PAIRS, **changes: Any) -> Plan:
    return Plan(Protocol.model_validate({**SMALL.model_dump(), **changes}), pairs)


def whole(folder: Path, server: Faulty, of: Plan | None = None, **more: Any) -> Run:
    run = planned(folder, of or plan(), roster(server, **more))
    collect(run, quiet, wait=at_once)
    finish(run)
    return run


def words_first(asked: Asked, _body: Body) -> tuple[str, Body]:
    return ("Hard to say.", {}) if asked[2] == 1 else ("0.25", {})


# -- resuming ------------------------------------------------------------------------------------------------------------------


def test_what_is_done_is_not_asked_again(tmp_path: Path) -> None:
    with Faulty() as server:
        run = whole(tmp_path, server)
        count, log, ratings = len(server.bodies), (tmp_path / "calls.jsonl").read_bytes(), (tmp_path / "ratings.csv").read_bytes()
        again = whole(tmp_path, server)
        assert dict(probes(again)) == {}
    assert len(server.bodies) == count
    assert (tmp_path / "calls.jsonl").read_bytes() == log
    assert (tmp_path / "ratings.csv").read_bytes() == ratings
    assert outcomes(again) == outcomes(run)


def test_a_log_cut_anywhere_goes_on_from_there(tmp_path: Path) -> None:
    with Faulty() as server:
        whole(tmp_path / "whole", server, concurrency=1)
        log, ratings = (tmp_path / "whole" / "calls.jsonl").read_bytes(), (tmp_path / "whole" / "ratings.csv").read_text()
        size = len(log)
        for number, at in enumerate([0, 1, size // 3, size // 2, size - 200, size - 2, size - 1]):
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "plan.json").write_bytes((tmp_path / "whole" / "plan.json").read_bytes())
            (folder / "calls.jsonl").write_bytes(log[:at])
            had = {(json.loads(raw)["call"], json.loads(raw)["again"]) for raw in log[:at].split(b"\n") if _is_json(raw)}
            server.answered.clear()
            run = whole(folder, server, concurrency=1)
            assert (folder / "ratings.csv").read_text() == ratings
            assert sum(server.answered.values()) == log.count(b"\n") - len(had)
            now = (folder / "calls.jsonl").read_bytes()
            assert now.startswith(log[:at])
            rows = now.splitlines(keepends=True)
            assert all(row.endswith(b"\n") for row in rows)
            broken = [row for row in rows if not _is_json(row)]
            assert len(broken) == (at > 0 and log[at : at + 1] != b"\n" and log[at - 1 : at] != b"\n")
            assert not run.left["m"]


def _is_json(raw: bytes) -> bool:
    try:
        json.loads(raw)
    except ValueError:
        return False
    return True


def test_a_kill_between_both_questions(tmp_path: Path) -> None:
    with Faulty(reply=words_first) as server:
        whole(tmp_path, server, concurrency=1)
        log, ratings = (tmp_path / "calls.jsonl").read_bytes(), (tmp_path / "ratings.csv").read_text()
        first = [raw for raw in log.splitlines(keepends=True) if not json.loads(raw)["again"]]
        (tmp_path / "calls.jsonl").write_bytes(b"".join(first))
        server.bodies.clear()
        run = planned(tmp_path, plan(), roster(server))
        assert outcomes(run)["m"] == {"nonnumeric": 16}  # what is known so far
        assert len(run.begun) == len(run.left["m"]) == 16
        whole(tmp_path, server)
    assert [len(body["messages"]) for body in server.bodies] == [3] * 16
    assert all(body["messages"][1]["content"] == "Hard to say." for body in server.bodies)
    assert (tmp_path / "ratings.csv").read_text() == ratings


@pytest.mark.parametrize(
    "odd",
    [
        b"\n", b"[1]\n", b"\x00\xff\n", b'{"call":[],"final":true}\n', b'{"call":"x","model":"m","outcome":"reply","final":true,"text":3}\n', b'{"final":true}\n',
        b"[" * 100_000 + b"\n",
    ],
)  # fmt: skip
def test_a_log_with_lines_that_are_none_of_ours(odd: bytes, tmp_path: Path) -> None:
    with Faulty() as server:
        run = whole(tmp_path, server)
        with (tmp_path / "calls.jsonl").open("ab") as file:
            file.write(odd)
        count = len(server.bodies)
        assert outcomes(whole(tmp_path, server)) == outcomes(run)
    assert len(server.bodies) == count


def test_models_may_join(tmp_path: Path) -> None:
    with Faulty() as server:
        whole(tmp_path, server)
        begun = json.loads((tmp_path / "plan.json").read_text())
        server.bodies.clear()
        run = planned(tmp_path, plan(), roster(server, "m", "n"))
        collect(run, quiet, wait=at_once)
        assert {body["model"] for body in server.bodies} == {"n"}
        found = json.loads((tmp_path / "plan.json").read_text())
        assert found["models"].keys() == {"m", "n"}
        assert found["begun"] == begun["begun"]
        assert [change["models_added"] for change in found["changes"]] == [["n"]]


def test_facts_that_change_after_the_beginning_are_said(tmp_path: Path) -> None:
    with Faulty() as server:
        whole(tmp_path, server, country="here", timeout=50)
        run = whole(tmp_path, server, country="there", timeout=60)
        told = "what the roster says of m was changed after the run had begun; plan.json has what it said before"
        assert told in notes(run)
        assert told in notes(planned(tmp_path, plan(), roster(server, country="there")))
        (change,) = json.loads((tmp_path / "plan.json").read_text())["changes"]
        assert change["models_before"]["m"]["country"] == "here"
        assert (tmp_path / "models.csv").read_text() == "model,country\nm,there\n"


# -- what is refused -----------------------------------------------------------------------------------------------------------


def moved(server: Faulty) -> Roster:
    return Roster(models={"m": Rater(model=f"api:{server.url}#other")})


def hotter(server: Faulty) -> Roster:
    return roster(server, send={"top_p": 0.5})


REFUSED: list[tuple[str, Callable[[Faulty], tuple[Plan, Roster]], str]] = [
    ("repeats", lambda s: (plan(repeats=2), roster(s)), r"another protocol \(repeats\)"),
    ("scale", lambda s: (plan(scale="pct"), roster(s)), r"another protocol \(scale\)"),
    ("seed", lambda s: (plan(seed=1), roster(s)), r"another protocol \(seed\)"),
    ("several", lambda s: (plan(temperature=0, max_tokens=9), roster(s)), r"another protocol \(max_tokens, temperature\)"),
    ("pairs", lambda s: (plan(pair_set(PAIRS.pairs[1:], "test")), roster(s)), "other pairs"),
    ("gone", lambda s: (plan(), roster(s, "n")), "a run with m, which the roster has no more"),
    ("model", lambda s: (plan(), moved(s)), "a run in which m was another model"),
    ("send", lambda s: (plan(), hotter(s)), "a run in which m was another model"),
    ("template", lambda s: (plan(), roster(s, template="raw")), "a run in which m was another model"),
]


@pytest.mark.parametrize(("other", "why"), [(other, why) for _, other, why in REFUSED], ids=[name for name, *_ in REFUSED])
def test_another_run_is_refused_in_one_sentence(other: Callable[[Faulty], tuple[Plan, Roster]], why: str, tmp_path: Path) -> None:
    with Faulty() as server:
        whole(tmp_path, server)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        count = len(server.bodies)
        with pytest.raises(
            InputError, match=rf"^\S+ holds {why if why.startswith('a run') else 'a run with ' + why}; name another folder with --out$"
        ):
            planned(tmp_path, *other(server))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(server.bodies) == count


def test_a_list_in_another_order_is_another_run(tmp_path: Path) -> None:
    with Faulty() as server:
        whole(tmp_path, server, Plan(ATLAS_V1, PAIRS))
        turned = pair_set(PAIRS.pairs[::-1], "test")
        assert turned.identity == PAIRS.identity
        with pytest.raises(InputError, match="with other wordings, or its list in another order"):
            planned(tmp_path, Plan(ATLAS_V1, turned), roster(server))
        whole(tmp_path / "one", server)
        planned(tmp_path / "one", plan(turned), roster(server))  # one pair a request: nothing moved


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"protocol": 1}', "nonsense", "[" * 50_000, '{"protocol": {}, "pairs": {}, "models": []}']
)
def test_a_plan_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(text)
    with (
        Faulty() as server,
        pytest.raises(InputError, match=r"plan\.json (cannot be read|is no plan of a run); name another folder with --out$"),
    ):
        planned(tmp_path, plan(), roster(server))


def test_folders_that_are_none_of_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with Faulty() as server:
        with pytest.raises(InputError, match="holds files and no run of an atlas; name a new or empty folder with --out"):
            planned(tmp_path, plan(), roster(server))
        with pytest.raises(RunError, match=r"thesis\.tex cannot be read: Not a directory"):
            planned(tmp_path / "thesis.tex", plan(), roster(server))


def test_what_a_kill_before_the_plan_leaves_is_ours(tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").touch()
    (tmp_path / ".plan.json.0a1b2c3d.partial").write_text("{")
    with Faulty() as server:
        assert not whole(tmp_path, server).left["m"]


# -- before the first call -----------------------------------------------------------------------------------------------------


def test_what_was_expected_is_hashed_before_anything_is_asked(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def look(_body: Body, _headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        seen.append(json.loads((tmp_path / "run" / "plan.json").read_text()))
        return 0, {}, b""

    file = tmp_path / "expect.md"
    file.write_bytes(b"clash > control \xff\n")
    with Faulty() as server:
        server.models["m"] = look
        run = planned(tmp_path / "run", plan(), roster(server), file)
        assert len(dict(probes(run))) == 1
        collect(run, quiet, wait=at_once)
        assert len(seen) == len(server.bodies) >= 17
        assert {found["expectations"] for found in seen} == {hashlib.sha256(file.read_bytes()).hexdigest()}
        assert seen[0]["identity"] == run.plan.identity
        assert seen[0]["calls"] == {"m": 16}
        assert not any("wrote down" in note for note in notes(run))

        file.write_text("control > clash")  # as if it had been known
        for other, why in ((file, "others were"), (None, "others were")):
            with pytest.raises(InputError, match=rf"other expectations \({why} written down before it began\)"):
                planned(tmp_path / "run", plan(), roster(server), other)
        without = planned(tmp_path / "without", plan(), roster(server))
        collect(without, quiet, wait=at_once)
        assert any(note.startswith("nobody wrote down what they expected") for note in notes(without))
        with pytest.raises(InputError, match=r"other expectations \(none were written down before it began\)"):
            planned(tmp_path / "without", plan(), roster(server), file)
        with pytest.raises(InputError, match=r"nothing\.md cannot be read: No such file or directory"):
            planned(tmp_path / "x", plan(), roster(server), tmp_path / "nothing.md")


def test_planning_writes_nothing(tmp_path: Path) -> None:
    with Faulty() as server:
        run = planned(tmp_path / "run", plan(), roster(server))
        estimates(run)
        notes(run)
        assert outcomes(run) == {"m": {"not asked": 16}}
    assert not (tmp_path / "run").exists()
    assert server.bodies == []


def test_estimates(tmp_path: Path) -> None:
    price = {"input": 3.0, "output": 15.0}
    with Faulty(latency=0.02) as server:
        run = planned(tmp_path, plan(), roster(server, price=price, concurrency=4))
        (found,) = estimates(run)
        letters = sum(len(run.plan.text(call)) for call in run.calls["m"])
        assert (found.model, found.calls, found.left, found.tokens_out) == ("m", 16, 16, 16 * 16)
        assert letters / 4 + 16 * 8 <= found.tokens_in <= letters / 4 + 16 * 9
        assert found.price == pytest.approx((found.tokens_in * 3 + 256 * 15) / 1e6)
        assert found.seconds == pytest.approx(16 * 1.5 / 4)
        collect(run, quiet, wait=at_once)
        (left,) = estimates(run)
        assert (left.left, left.tokens_in, left.tokens_out, left.price, left.seconds) == (0, 0, 0, 0.0, 0.0)
        partly = planned(tmp_path, plan(), roster(server, "m", "n", concurrency=4))
        first, second = estimates(partly)
        assert first.left == 0
        assert second.price is None
        chinese = plan(pair_set([Pair("p", "a", None, "河" * 400, "水" * 400, None), Pair("q", "a", None, "x", "y", None)], "t"))
        (more,) = estimates(planned(tmp_path / "zh", chinese, roster(server)))
        assert more.tokens_in > 2 * 800


# -- one command at a time, and disks -----------------------------------------------------------------------------------------------


def test_two_commands_on_one_folder(tmp_path: Path) -> None:
    with Faulty() as server:
        first, second, third = (planned(tmp_path, plan(), roster(server)) for _ in range(3))
        tried: list[str] = []

        def meanwhile(*_: object) -> None:
            if not tried:
                for work in (lambda: collect(second, quiet, wait=at_once), lambda: list(probes(second, wait=at_once))):
                    with pytest.raises(RunError) as raised:
                        work()
                    tried.append(str(raised.value))

        collect(first, meanwhile, wait=at_once)
        assert tried == [f"another command is working on {tmp_path}; wait for it, or name another folder with --out"] * 2
        count = len(server.bodies)
        collect(third, quiet, wait=at_once)  # planned before the first began
        assert len(server.bodies) == count
        assert outcomes(third) == outcomes(first)


FULL = """
    import asyncio, resource, signal, sys
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from tests.atlas.test_run import Rater, Roster, collect, plan, planned, quiet, at_once
    from aligntax.core.errors import RunError
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    run = planned(Path({out!r}), plan(), Roster(models={{"m": Rater(model="api:{url}#m", concurrency=2)}}))
    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000, 3_000))
    try:
        collect(run, quiet, wait=at_once)
    except RunError as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on files there")
def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    with Faulty() as server:
        script = textwrap.dedent(FULL).format(root=root, out=str(tmp_path / "run"), url=server.url)
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False, env={**os.environ})
        assert done.stderr == ""
        assert done.stdout.strip().endswith("; what was answered before is kept")
        assert "cannot be written: " in done.stdout
        log = (tmp_path / "run" / "calls.jsonl").read_bytes()
        assert 2_500 < len(log) <= 3_000
        asked = sum(server.answered.values())
        assert asked < 16
        run = whole(tmp_path / "run", server)
        assert not run.left["m"]
        assert sum(n - 1 for n in server.answered.values()) <= 2  # what did not fit, of two at a time
        assert sum(not _is_json(row) for row in (tmp_path / "run" / "calls.jsonl").read_bytes().splitlines()) <= 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with Faulty() as server:
        run = planned(tmp_path / "run", plan(), roster(server))
        run.out = tmp_path / "file" / "run"
        with pytest.raises(RunError, match="cannot be written: Not a directory"):
            collect(run, quiet, wait=at_once)
    assert server.bodies == []


# -- what follows --------------------------------------------------------------------------------------------------------------


def test_ratings_are_read_by_the_analysis(tmp_path: Path) -> None:
    with Faulty() as server:
        run = planned(tmp_path, plan(repeats=2, variants=("ends", "anchored")), roster(server, "m", "n", country="here", open=True))
        collect(run, quiet, wait=at_once)
        ratings, models = finish(run)
    found = read_ratings(ratings, models=models)
    assert found.x.shape == (8, 2, 2, 2, 2)
    assert found.asked.all()
    assert found.groups == {"country": ("here", "here"), "open": ("yes", "yes")}
    counts = outcomes(run)
    assert sum(found.missing.values()) == sum(n for of in counts.values() for status, n in of.items() if status != "ok")
    assert found.modes == {"m": ("sampled",), "n": ("sampled",)}
    with ratings.open(newline="") as file:
        for row in csv.DictReader(file):
            assert bool(row["rating"]) is (row["status"] == "ok") is (row["mode"] == "sampled")
    by_call = {c.seed: c for of in run.calls.values() for c in of}
    for asked, text in server.texts.items():
        if (found_text := reply(asked, {})[0]) and isinstance(text, str):
            assert text == found_text
        assert asked[1] in by_call


def test_a_model_that_cannot_be_opened_keeps_nobody_else_from_being_asked(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with Faulty() as server:
        models = {"broken": Rater(model=str(tmp_path / "model")), "m": Rater(model=f"api:{server.url}#m")}
        run = planned(tmp_path / "run", plan(), Roster(models=models))
        collect(run, quiet, wait=at_once)
        assert not run.left["m"]
        assert outcomes(run)["broken"] == {"not asked": 16}
        assert any(note.startswith("broken was not asked further: ") for note in notes(run))


def test_calls_come_in_an_order_of_their_own(tmp_path: Path) -> None:
    with Faulty() as server:
        run = planned(tmp_path, plan(reprompt=False), roster(server, "m", "n", concurrency=1))
        collect(run, quiet, wait=at_once)
    by_seed = {c.seed: (c.pairs, c.order) for of in run.calls.values() for c in of}
    orders = {name: [by_seed[body["seed"]] for body in server.bodies if body["model"] == name] for name in ("m", "n")}
    assert sorted(orders["m"]) == sorted(orders["n"])
    assert orders["m"] != orders["n"] != sorted(orders["n"])
