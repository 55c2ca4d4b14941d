"""``aligntax atlas tell`` as a process: killed at any moment, stopped, with hostile tellings, and with what cannot work."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.faulty import Asked, Body, Faulty, number

KEY = "sk-never-write-me-0123456789"
QUESTION = "How alike in meaning"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of another kind there")


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.csv"
    rows = [f"t{i},{voice},Tell of the year {1900 + i} as the {voice} people do." for i in range(6) for voice in ("hill", "shore")]
    path.write_text("\n".join(["topic,voice,prompt", *rows]) + "\n")
    return path


def answer(asked: Asked, body: Body) -> tuple[Any, Body]:
    what = body["messages"][0]["content"]
    if QUESTION in what or "single digit" in what:
        return f"{number(asked) % 101 / 100:.2f}", {}
    return f"{asked[0]} tells: {what} {asked[1]}", {}


def write(path: Path, server: Faulty, *models: str, more: str = "") -> Path:
    """A roster; a teller is a stage of the first."""
    lines = [
        f'  {name}: {{model: "api:{server.url}#{name}", concurrency: {3 + at}{more}{"" if not at else f", parent: {models[0]}"}}}\n'
        for at, name in enumerate(models)
    ]
    path.write_text("models:\n" + "".join(lines))
    return path


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "aligntax", "atlas", *map(str, arguments)]
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


def both(folder: Path, server: Faulty, prompts: Path) -> tuple[object, ...]:
    """The arguments of a run of two tellers and a rater."""
    tellers, raters = write(folder / "roster.yaml", server, "m", "n"), write(folder / "raters.yaml", server, "judge")
    return ("tell", tellers, "--raters", raters, "--prompts", prompts)


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 8))])
def test_killed_at_any_moment_and_resumed(seed: int, tmp_path: Path, prompts: Path) -> None:
    rng, kills = random.Random(seed), 0
    with Faulty(faults=("500", "reset", "429 short"), latency=0.03, reply=answer) as server:
        what = both(tmp_path, server, prompts)
        code, _, err = run(*what, "--out", tmp_path / "undisturbed")
        assert code == 0, err
        wanted = {name: (tmp_path / "undisturbed" / name).read_text() for name in ("ratings.csv", "tellings.jsonl", "models.csv")}
        seeds = {asked[1] for asked in server.answered}
        server.answered.clear()
        server.rate = 0.1
        for moment in (rng.uniform(0, 1), rng.randrange(1, 40), rng.randrange(20, 80)):
            before = server.answered.total()
            process = start(*what, "--out", tmp_path / "run")
            if isinstance(moment, float):
                time.sleep(moment)
            else:
                once(lambda before=before, moment=moment: server.answered.total() >= before + moment)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += process.returncode == -signal.SIGKILL
        code, out, err = run(*what, "--out", tmp_path / "run")
        assert (code, out) == (0, ""), err
        assert kills == 3
        assert {name: (tmp_path / "run" / name).read_text() for name in wanted} == wanted
        twice = sum(n - 1 for (model, asked, _), n in server.answered.items() if asked in seeds and not _is_probe(model, asked, server))
        assert twice <= kills * (3 + 4)  # what was on its way
        for part in ("told", "rated"):
            rows = (tmp_path / "run" / part / "calls.jsonl").read_bytes().splitlines(keepends=True)
            assert all(row.endswith(b"\n") for row in rows)
            final = [line["call"] for row in rows if (line := _line(row)) is not None and line["outcome"] == "reply"]
            assert len(final) == len(set(final)) == {"told": 48, "rated": 96}[part]  # what was written is never asked again


def _line(row: bytes) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(row)
    except ValueError:
        return None
    return found


def _is_probe(model: str, seed: int, server: Faulty) -> bool:
    """Whether a request asks what an endpoint can do, which every start does."""
    return any("single digit" in body["messages"][0]["content"] for body in server.bodies if (body["model"], body["seed"]) == (model, seed))


@pytest.mark.parametrize("part", ["told", "rated"])
def test_stopped_in_one_sentence(part: str, tmp_path: Path, prompts: Path) -> None:
    with Faulty(latency=0.03, reply=answer) as server:
        process = start(*both(tmp_path, server, prompts), "--out", tmp_path / "run")
        log = tmp_path / "run" / part / "calls.jsonl"
        once(lambda: log.exists() and log.read_bytes().count(b"\n") > 5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (130, "")
        assert err.splitlines()[-1] == f"stopped; what was answered is in {log}, and the same command goes on from there"
        assert "Traceback" not in err


def test_what_it_says_and_the_ledger_that_follows(tmp_path: Path, prompts: Path) -> None:
    with Faulty(reply=answer) as server:
        code, out, err = run(*both(tmp_path, server, prompts), "--out", tmp_path / "run")
        assert (code, out) == (0, ""), err
    assert "m told: ok 24\n" in err
    assert "judge rated: ok 96\n" in err
    ratings, models = tmp_path / "run" / "ratings.csv", tmp_path / "run" / "models.csv"
    assert err.endswith(f"ratings: {ratings}\nanalyse: aligntax atlas analyse {ratings} --models {models} --out {tmp_path / 'run'}\n")
    code, out, err = run("analyse", ratings, "--models", models, "--out", tmp_path / "run")
    assert code == 0, err
    assert "two_voices" in out
    found = json.loads((tmp_path / "run" / "stages-1" / "ledger.json").read_text())
    assert {(e["task"], e["metric"], e["n"]) for e in found["entries"] if e["task"].startswith("atlas_")} == {
        ("atlas_two_voices", "rating", 6), ("atlas_two_voices", "collapse", 6), ("atlas_same_voice_control", "rating", 12),
    }  # fmt: skip
    code, _, err = run("run", tmp_path / "roster.yaml", "--out", tmp_path / "run")  # ratings of another kind have a folder of their own
    assert code == 2
    assert "holds files and no run of an atlas" in err


def test_a_dry_run_asks_nothing_and_writes_nothing(tmp_path: Path, prompts: Path) -> None:
    with Faulty(reply=answer) as server:
        what = both(tmp_path, server, prompts)
        for path in (tmp_path / "roster.yaml", tmp_path / "raters.yaml"):
            path.write_text(path.read_text().replace("concurrency", "price: {input: 3, output: 15}, concurrency"))
        code, out, err = run(*what, "--out", tmp_path / "run", "--limit", "2", "--dry-run", COLUMNS="200")
        assert (code, err) == (0, "")
        assert server.bodies == []
        assert not (tmp_path / "run").exists()
        shown = " ".join(out.split())
        assert "2 topics, 4 prompts, 2 tellings each" in shown
        assert "16 couples of tellings" in shown
        assert re.search(r"48 calls, about 0\.\d\d USD; nothing was asked", shown)  # 2 x 8 tellings, 16 couples in two orders
        assert shown.count("USD") == 4
        assert run(*what, "--out", tmp_path / "run", "--limit", "2")[0] == 0
        assert len([body for body in server.bodies if "single digit" not in body["messages"][0]["content"]]) == 48


def test_a_hostile_telling_and_a_key_show_nowhere(tmp_path: Path, prompts: Path) -> None:
    def hostile(asked: Asked, body: Body) -> tuple[Any, Body]:
        text, choice = answer(asked, body)
        return (f"=1+1 \x1b[2J\u202e{KEY} {asked[1]}" if text.startswith(("m tells", "n tells")) else text), choice

    with Faulty(reply=hostile) as server:
        code, out, err = run(*both(tmp_path, server, prompts), "--out", tmp_path / "run", ALIGNTAX_API_KEY=KEY)
        assert code == 0, err
    for said in (out, err, *(path.read_text() for path in (tmp_path / "run").rglob("*") if path.is_file())):
        assert KEY not in said
        assert not {"\x1b", "\u202e"} & set(said)
    assert "=1+1" not in (tmp_path / "run" / "ratings.csv").read_text()
    assert json.loads((tmp_path / "run" / "tellings.jsonl").read_text().splitlines()[0])["text"].startswith("=1+1 \x1b[2J\u202e")


def test_nobody_rates_what_nobody_told(tmp_path: Path, prompts: Path) -> None:
    with Faulty(reply=lambda asked, body: ("I'm sorry, I cannot tell that.", {})) as server:
        code, out, err = run(*both(tmp_path, server, prompts), "--out", tmp_path / "run")
    assert (code, out) == (1, "")
    assert "m told: refusal 24" in err
    assert err.splitlines()[-1].startswith("error: no telling was rated; every attempt is in ")
    assert err.count("error: ") == 1
    assert (tmp_path / "run" / "ratings.csv").read_text().count("no telling: refusal") == 96


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("one telling", {"options": ("--tellings", "1")}, "--tellings"),
    ("a key of the raters", {"raters": ", key_env: NOT_SET_AT_ALL"}, "NOT_SET_AT_ALL, which was named for the key, is empty or not set"),
    ("wording", {"options": ("--variants", "other")}, "variants are some of anchored, ends, contradiction"),
    ("one voice", {"prompts": "topic,voice,prompt\ndam,up,Tell.\n"}, "dam is told in one voice, up; a topic has two or more"),
    ("no prompts", {"prompts": "pair,category\na,b\n"}, "has no column topic or voice or prompt"),
    ("another folder", {"file": "report.html"}, "holds files and no tellings; name a new or empty folder with --out"),
]


@pytest.mark.parametrize(("how", "why"), [(how, why) for _, how, why in WRONG], ids=[name for name, *_ in WRONG])
def test_bad_input_is_one_sentence_and_nothing_is_asked(how: dict[str, Any], why: str, tmp_path: Path, prompts: Path) -> None:
    with Faulty(reply=answer) as server:
        what = both(tmp_path, server, prompts)
        write(tmp_path / "raters.yaml", server, "judge", more=how.get("raters", ""))
        if "prompts" in how:
            prompts.write_text(how["prompts"])
        if "file" in how:
            (tmp_path / "run").mkdir()
            (tmp_path / "run" / how["file"]).touch()
        code, out, err = run(*what, "--out", tmp_path / "run", *how.get("options", ()), COLUMNS="300")
        assert server.bodies == []
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert why in err
    assert not (tmp_path / "run" / "told").exists()
