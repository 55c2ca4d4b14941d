"""``aligntax atlas run`` as a process: killed at any moment, interrupted, with keys, and with what cannot work."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligntax.atlas.pairs import read_pairs
from aligntax.atlas.protocol import Plan, Protocol
from aligntax.atlas.roster import read_roster
from aligntax.atlas.run import collect, finish, planned
from tests.support.faulty import Asked, Body, Faulty

KEY = "sk-never-write-me-0123456789"
OPTIONS = ("--variants", "ends,contradiction", "--repeats", "2")
PROTOCOL = Protocol(variants=("ends", "contradiction"), repeats=2)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind there")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.csv"
    rows = [f"p{i},{'ab'[i % 2]},The river was high in {1900 + i}.,In {1900 + i} it was dry." for i in range(8)]
    path.write_text("\n".join(["pair,category,text_a,text_b", *rows]) + "\n")
    return path


def write(path: Path, server: Faulty, *models: str) -> Path:
    path.write_text(
        "models:\n" + "".join(f'  {name}: {{model: "api:{server.url}#{name}", concurrency: {3 + at}}}\n' for at, name in enumerate(models))
    )
    return path


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "aligntax", "atlas", "run", *map(str, arguments)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    # Whoever runs the tests in the background ignores SIGINT, and so would what it starts.
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments: object, **environment: str) -> tuple[int, str, str]:
    process = start(*arguments, **environment)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def once(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def undisturbed(roster: Path, pairs: Path, out: Path) -> tuple[str, set[int]]:
    """ratings.csv of a run that nobody stops, and the seeds of its calls."""
    made = planned(out, Plan(PROTOCOL, read_pairs(pairs)), read_roster(roster))
    collect(made, lambda *_: None, wait=at_once)
    return finish(made)[0].read_text(), {c.seed for of in made.calls.values() for c in of}


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_killed_at_any_moment_and_resumed(seed: int, tmp_path: Path, pairs: Path) -> None:
    rng, kills = random.Random(seed), 0
    with Faulty(rate=0.1, faults=("500", "reset", "429 short"), latency=0.03) as server:
        roster = write(tmp_path / "roster.yaml", server, "m", "n")
        wanted, seeds = undisturbed(roster, pairs, tmp_path / "undisturbed")
        server.answered.clear()
        for moment in (rng.uniform(0, 1), rng.randrange(1, 30), rng.randrange(10, 80)):
            before = server.answered.total()
            process = start(roster, "--pairs", pairs, "--out", tmp_path / "run", *OPTIONS)
            if isinstance(moment, float):
                time.sleep(moment)
            else:
                once(lambda before=before, moment=moment: server.answered.total() >= before + moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        code, out, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", *OPTIONS)
        assert (code, out) == (0, ""), err
        assert kills == 3
        assert (tmp_path / "run" / "ratings.csv").read_text() == wanted
        twice = sum(n - 1 for (_, asked, _), n in server.answered.items() if asked in seeds)
        assert twice <= kills * (3 + 4)  # what was on its way
        rows = (tmp_path / "run" / "calls.jsonl").read_bytes().splitlines(keepends=True)
        broken = [row for row in rows if not _whole(row)]
        assert len(broken) <= kills
        assert all(row.endswith(b"\n") for row in rows)
        final = [(line["call"], line["again"]) for row in rows if _whole(row) and (line := json.loads(row))["outcome"] == "reply"]
        assert len(final) == len(set(final))  # what was written is never asked again
        assert len(final) == len({key for key in server.answered if key[1] in seeds})


def _whole(row: bytes) -> bool:
    try:
        return bool(json.loads(row)["call"])
    except ValueError:
        return False


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_one_sentence(number: int, code: int, tmp_path: Path, pairs: Path) -> None:
    with Faulty(latency=0.03) as server:
        roster = write(tmp_path / "roster.yaml", server, "m")
        process = start(roster, "--pairs", pairs, "--out", tmp_path / "run", *OPTIONS)
        once(lambda: server.answered.total() > 20)
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (code, "")
        assert (
            err.splitlines()[-1]
            == f"stopped; what was answered is in {tmp_path / 'run' / 'calls.jsonl'}, and the same command goes on from there"
        )
        assert "Traceback" not in err
        log = (tmp_path / "run" / "calls.jsonl").read_bytes()
        assert log.endswith(b"\n")
        assert log.count(b"\n") >= 20 - 3
        assert not [path for path in (tmp_path / "run").iterdir() if path.name.endswith(".partial")]


def test_a_key_is_in_no_file_and_on_no_screen(tmp_path: Path, pairs: Path) -> None:
    def locked(_body: Body, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return 401, {"Location": KEY}, json.dumps({"error": {"message": f"no such key: {headers['authorization']}", "code": KEY}}).encode()

    def broken(_body: Body, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return 200, {}, f"<html>{headers['authorization']}</html>".encode()

    def text(_asked: Asked, _body: Body) -> tuple[str, Body]:
        return f"0.5 {KEY}", {}

    with Faulty(reply=text, extra=lambda headers: {"model": headers["authorization"], "system_fingerprint": KEY}) as server:
        server.models |= {"locked": locked, "broken": broken}
        roster = write(tmp_path / "roster.yaml", server, "m", "locked", "broken")
        roster.write_text(roster.read_text().replace("concurrency", "attempts: 1, concurrency"))
        code, out, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", *OPTIONS, ALIGNTAX_API_KEY=KEY)
        assert any(KEY in head["authorization"] for head in server.headers)
    assert code == 1  # another model answered, the others not at all
    assert "is refused" in err
    for said in (out, err, *(path.read_text() for path in (tmp_path / "run").iterdir())):
        assert KEY not in said
        assert KEY[3:] not in said


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path: Path, pairs: Path) -> None:
    with Faulty() as server:
        roster = write(tmp_path / "roster.yaml", server, "m", "n")
        roster.write_text(roster.read_text().replace("concurrency", "price: {input: 3, output: 15}, concurrency"))
        code, out, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", *OPTIONS, "--dry-run", COLUMNS="200")
        assert (code, err) == (0, "")
        assert server.bodies == []
    assert not (tmp_path / "run").exists()
    assert "128 calls" in " ".join(out.split())
    assert "nothing was asked" in out
    assert "USD" in out


def test_the_published_procedure(tmp_path: Path, pairs: Path) -> None:
    text = "\n".join(f"{i}: 0.{i:02d}" for i in range(1, 9))
    with Faulty(reply=lambda asked, body: ("7" if "digit" in body["messages"][0]["content"] else text, {})) as server:
        roster = write(tmp_path / "roster.yaml", server, "m")
        code, _, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", "--protocol", "atlas-v1")
        assert code == 0, err
        assert len(server.bodies) == 2  # a probe, and all pairs at once
        assert len((tmp_path / "run" / "ratings.csv").read_text().splitlines()) == 9
        code, _, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", "--protocol", "atlas-v1", "--repeats", "5")
        assert code == 2
        assert err.count("\n") == 1
        assert "--repeats" in err


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("key missing", {"more": "key_env: NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL, which was named for the key, is empty or not set"),
    ("unknown variant", {"options": ("--variants", "ends,other")}, "variants are some of anchored, ends, contradiction, or lab"),
]


@pytest.mark.parametrize(("how", "why"), [(how, why) for _, how, why in WRONG], ids=[name for name, *_ in WRONG])
def test_bad_input_is_one_sentence(how: dict[str, Any], why: str, tmp_path: Path, pairs: Path) -> None:
    with Faulty() as server:
        roster = write(tmp_path / "roster.yaml", server, "m")
        if "more" in how:
            roster.write_text(roster.read_text().replace("concurrency", f"{how['more']}, concurrency"))
        code, out, err = run(roster, "--pairs", pairs, "--out", tmp_path / "run", *how.get("options", OPTIONS))
        assert server.bodies == []
    assert (code, out) == (2, "")
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert why in lines[0]
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()
