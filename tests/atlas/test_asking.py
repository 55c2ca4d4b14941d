"""Endpoints that go wrong in every way at once: every planned call ends as one outcome, nothing is asked twice after success, nothing is lost, and no key
is ever written.
"""

from __future__ import annotations

import asyncio
import csv
import json
from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path
from typing import Any

import pytest

from aligntax.atlas.asking import Source, asked, is_other_model, probed
from aligntax.atlas.pairs import Pair, pair_set
from aligntax.atlas.protocol import ATLAS_V1, Plan, Protocol
from aligntax.atlas.roster import Rater, Roster
from aligntax.atlas.run import Run, collect, finish, notes, outcomes, planned, probes
from aligntax.core.errors import InputError
from tests.support.faulty import FAULTS, KINDS, Asked, Body, Faulty, number

KEY = "sk-never-write-me-0123456789"
PAIRS = pair_set(
    [Pair(f"p{i}", "ab"[i % 2], None, f"The river was high in {1900 + i}.", f"In {1900 + i} it was dry.", None) for i in range(10)], "test"
)


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNTAX_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


async def at_once(_: float) -> None:
    await asyncio.sleep(0)


def quiet(*_: object) -> None:
    pass


def rater(server: Faulty, model: str = "m", **more: Any) -> Rater:
    return Rater.model_validate({"model": f"api:{server.url}#{model}", **more})


def one(folder: Path, server: Faulty, plan: Plan, **more: Any) -> Run:
    """A whole run with one model."""
    run = planned(folder, plan, Roster(models={"m": rater(server, **more)}))
    collect(run, quiet, wait=at_once)
    return run


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(raw) for raw in (run.out / "calls.jsonl").read_bytes().splitlines()]


def table(run: Run) -> list[dict[str, str]]:
    with finish(run)[0].open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def small(**changes: Any) -> Plan:
    return Plan(Protocol(**{"variants": ("ends",), "orders": ("AB",), "repeats": 1, **changes}), PAIRS)


def said(text: Any, **choice: Any) -> Callable[[Asked, Body], tuple[Any, Body]]:
    return lambda _asked, _body: (text, choice)


def refused(status: int, message: str, **headers: str) -> Callable[[Body, dict[str, str]], tuple[int, dict[str, str], bytes]]:
    return lambda _body, _headers: (status, headers, json.dumps({"error": {"message": message}}).encode())


# -- everything at once --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 20))])
def test_every_call_ends_once_whatever_goes_wrong(seed: int, tmp_path: Path) -> None:
    def echoes(body: Body, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        return 401, {}, json.dumps({"error": {"message": f"Incorrect API key provided: {headers['authorization']}"}}).encode()

    plan = Plan(Protocol(variants=("ends", "anchored"), repeats=2), PAIRS)
    with Faulty(rate=0.45, seed=seed) as server, Faulty(served="another-model") as stranger:
        with Faulty() as gone:  # nobody listens there any more
            pass
        server.models["locked"] = echoes
        models = {
            "a": rater(server, "a", timeout=2, attempts=20, concurrency=8),
            "b": rater(server, "b", timeout=2, attempts=20, concurrency=3),
            "impatient": rater(server, "impatient", timeout=2, attempts=2, concurrency=4),
            "locked": rater(server, "locked", concurrency=4),
            "stranger": rater(stranger, "m", concurrency=2),
            "gone": Rater(model=f"api:http://127.0.0.1:{gone.port}/v1#m", attempts=2, timeout=2),
        }
        run = planned(tmp_path / "run", plan, Roster(models=models))
        told: Counter[str] = Counter()
        collect(run, lambda model, *_: told.update([model]), wait=at_once)
        rows = table(run)

        # Every planned call has one outcome.
        each = 10 * 2 * 2 * 2
        counts = outcomes(run)
        assert {name: sum(of.values()) for name, of in counts.items()} == dict.fromkeys(models, each)
        assert len(rows) == each * len(models)
        assert len({row["call"] for row in rows}) == len(rows)
        assert Counter((row["model"], row["status"]) for row in rows) == Counter(
            {(m, s): n for m, of in counts.items() for s, n in of.items()}
        )
        final = [line for line in lines(run) if line["final"]]
        assert max(Counter((line["call"], line["again"]) for line in final).values()) == 1
        assert not {"not asked", "failed"} & (counts["a"].keys() | counts["b"].keys())
        assert "ok" in counts["a"]
        assert len(counts["a"].keys() | counts["b"].keys()) > 3
        assert counts["impatient"]["failed"] > 0
        assert set(counts["locked"]) <= {"failed", "not asked"}
        assert set(counts["gone"]) <= {"failed", "not asked"}
        assert set(counts["stranger"]) <= {"wrong_model", "not asked"}
        assert counts["stranger"]["not asked"] > 0  # five were enough
        assert len(server.seen.keys() & set(FAULTS)) > len(FAULTS) / 2

        # Nothing was asked twice after success, and nothing that was answered is lost.
        seeds = {(run.roster.models[name].reference.served, c.seed): c.key for name, of in run.calls.items() for c in of}
        for one_server in (server, stranger):
            assert set(one_server.answered.values()) == {1}
        answered = {(seeds[model, seed], n > 1) for model, seed, n in server.answered}
        settled = {(line["call"], line["again"]) for line in final if line["outcome"] == "reply"}
        assert settled == answered
        for line in final:
            if line["outcome"] == "reply":
                call = run.known[line["call"]]
                text = server.texts[str(run.roster.models[call.model].reference.served), call.seed, 3 if line["again"] else 1]
                assert line["text"] == ((text[1]["text"] if isinstance(text, list) else text) or "")

        # The next run asks what has no answer, and nothing else.
        before = server.answered.copy()
        server.rate = 0.0
        again = planned(tmp_path / "run", plan, Roster(models=models))
        assert {name: len(of) for name, of in again.left.items()} == {
            name: of.get("failed", 0) + of.get("not asked", 0) + sum(c.key in run.begun for c in run.calls[name])
            for name, of in counts.items()
        }
        collect(again, quiet, wait=at_once)
        assert set(server.answered.values()) == {1}
        assert server.answered.keys() > before.keys()
        assert not again.left["impatient"]

    # No key anywhere.
    for path in (tmp_path / "run").iterdir():
        assert KEY not in path.read_text(encoding="utf-8")
    assert "[key]" in (tmp_path / "run" / "calls.jsonl").read_text()
    assert any(line.startswith("locked was not asked further: ") and "ALIGNTAX_API_KEY is refused" in line for line in notes(run))
    assert any(line.startswith("gone was not asked further: ") and "calls in a row got no answer" in line for line in notes(run))
    assert any(line.startswith("stranger was not asked further: another-model answers where m was asked") for line in notes(run))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_tried_again_and_said(fault: str, tmp_path: Path) -> None:
    with Faulty(rate=0.5, faults=[fault], seed=3, hangs=1, reply=said("0.5")) as server:
        run = one(tmp_path, server, small(), attempts=20, timeout=0.5 if fault == "hang" else 5, concurrency=2)
    assert outcomes(run)["m"] == {"ok": 10}
    assert server.seen[fault] > 0
    lost = [line for line in lines(run) if line["outcome"] == "lost"]
    assert len(lost) == server.seen[fault]
    assert all(line["why"] and not line["final"] for line in lost)


# -- how long is waited --------------------------------------------------------------------------------------------------------


def waits_for(folder: Path, status: int, after: str | None, attempts: int = 3) -> tuple[list[float], Run]:
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0)

    with Faulty() as server:
        server.models["m"] = refused(status, "not now", **({} if after is None else {"Retry-After": after}))
        run = planned(folder, small(), Roster(models={"m": rater(server, attempts=attempts, concurrency=1)}))
        collect(run, quiet, wait=wait)
    return waits, run


def test_a_server_that_says_when_is_asked_then(tmp_path: Path) -> None:
    waits, run = waits_for(tmp_path, 429, "300")
    assert all(299 < w < 302 for w in waits)
    assert lines(run)[0]["retry_after"] == 300
    assert lines(run)[-1]["final"]


def test_a_server_that_wants_to_be_left_alone_for_hours_is(tmp_path: Path) -> None:
    waits, run = waits_for(tmp_path, 429, "7200")
    assert waits == []
    assert len(lines(run)) == 1
    assert run.ended == {"m": "the endpoint asks to be left alone for 120 minutes; the same command goes on then"}
    assert outcomes(run)["m"] == {"failed": 1, "not asked": 9}


def test_being_asked_too_often_is_no_fault_of_the_call(tmp_path: Path) -> None:
    waits, run = waits_for(tmp_path, 429, None, attempts=2)
    found = Counter(line["call"] for line in lines(run))
    assert set(found.values()) == {10}  # five times as many attempts
    assert all(w <= 30 for w in waits)
    assert len(found) == 5
    assert "5 calls in a row got no answer" in run.ended["m"]


def test_a_server_that_is_broken_is_tried_as_often_as_is_allowed(tmp_path: Path) -> None:
    _, run = waits_for(tmp_path, 500, "nonsense", attempts=3)
    assert set(Counter(line["call"] for line in lines(run)).values()) == {3}
    assert lines(run)[0]["retry_after"] is None


# -- what servers want otherwise -----------------------------------------------------------------------------------------------


def picky(wants: Callable[[Body], str | None], status: int = 400) -> Callable[[Body, dict[str, str]], tuple[int, dict[str, str], bytes]]:
    """A server that refuses a body, and says why; a status of 0 lets it answer."""

    def answer(body: Body, _headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        why = wants(body)
        return (0, {}, b"") if why is None else (status, {}, json.dumps({"error": {"message": why}}).encode())

    return answer


OLD = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."


def test_the_limit_has_two_names(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5"), latency=0.01) as server:
        server.models["m"] = picky(lambda body: OLD if "max_tokens" in body else None)
        run = one(tmp_path, server, small(), attempts=1, concurrency=8)
    assert outcomes(run)["m"] == {"ok": 10}  # also those that were on their way
    assert all(body["max_completion_tokens"] == 16 for body in server.bodies if "max_completion_tokens" in body)


def test_parameters_that_are_not_taken_are_left_out_and_said(tmp_path: Path) -> None:
    def wants(body: Body) -> str | None:
        return next((f"Unsupported parameter: '{name}'" for name in ("temperature", "seed") if name in body), None)

    with Faulty(reply=said("0.5")) as server:
        server.models["m"] = picky(wants)
        run = one(tmp_path, server, small(), concurrency=4)
    assert outcomes(run)["m"] == {"ok": 10}
    assert "m: its endpoint does not take seed, temperature, and was asked without" in notes(run)


def test_a_value_that_is_refused_is_not_left_out(tmp_path: Path) -> None:
    with Faulty() as server:
        server.models["m"] = refused(400, "temperature: Input should be less than or equal to 1")
        run = one(tmp_path, server, small(temperature=1.5), concurrency=1)
    assert "less than or equal to 1" in run.ended["m"]
    assert len(lines(run)) == 5  # and it is not asked to the end


@pytest.mark.parametrize(("most", "left_out"), [(5, False), (0, True)])
def test_fewer_log_probabilities_or_none(most: int, left_out: bool, tmp_path: Path) -> None:
    def wants(body: Body) -> str | None:
        return f"top_logprobs must be at most {most}" if body.get("top_logprobs", 0) > most else None

    with Faulty(reply=said("7")) as server:
        server.models["m"] = picky(wants, 403)  # o-series
        run = one(tmp_path, server, small(scale="d9"), concurrency=4)
    assert outcomes(run)["m"] == {"ok": 10}
    sent = {body.get("top_logprobs") for body in server.bodies}
    assert sent == ({20, 5, None} if left_out else {20, 5})
    assert any("does not take logprobs" in note for note in notes(run)) is left_out
    assert "10 of 10 ratings are digits that were drawn" in " ".join(notes(run))


def test_the_path_may_be_left_out(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5")) as server:
        bare = Roster(models={"m": Rater(model=f"api:http://127.0.0.1:{server.port}#m")})
        run = planned(tmp_path, small(), bare)
        collect(run, quiet, wait=at_once)
        assert {head["path"] for head in server.headers} == {"/v1/chat/completions"}
        server.headers.clear()
        deep = Roster(models={"m": Rater(model=f"api:http://127.0.0.1:{server.port}/v1beta/openai#m")})
        collect(planned(tmp_path / "deep", small(), deep), quiet, wait=at_once)
        assert {head["path"] for head in server.headers} == {"/v1beta/openai/chat/completions"}


def test_an_endpoint_without_v1(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5")) as server:
        server.models["m"] = lambda _body, _headers: (404, {}, b"{}") if server.headers[-1]["path"].startswith("/v1/") else (0, {}, b"")
        bare = Roster(models={"m": Rater(model=f"api:http://127.0.0.1:{server.port}#m", concurrency=1)})
        run = planned(tmp_path, small(), bare)
        collect(run, quiet, wait=at_once)
    assert outcomes(run)["m"] == {"ok": 10}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"code": "content_filter", "message": "The response was filtered due to Azure's content management policy."}}),
        (403, {"error": {"message": "Your input was flagged by moderation"}}),
        (200, {"error": {"message": "PROHIBITED_CONTENT"}}),
    ],
)
def test_a_filter_that_answers_with_an_error_is_a_filter(status: int, body: Body, tmp_path: Path) -> None:
    with Faulty(reply=said("0.5")) as server:
        server.models["m"] = lambda asked, _: (status, {}, json.dumps(body).encode()) if len(server.bodies) % 2 else (0, {}, b"")
        run = one(tmp_path, server, small())
        assert outcomes(run)["m"].keys() == {"ok", "filtered"}
        assert not run.left["m"]
        before = len(server.bodies)
        one(tmp_path, server, small())
        assert len(server.bodies) == before


@pytest.mark.parametrize(
    ("served", "other"),
    [
        ("gpt-4o", False), ("gpt-4o-2024-08-06", False), ("openai/gpt-4o", False), ("GPT-4o:latest", False), ("gpt-4o-mini", True), ("gpt-4o-mini-2024-07-18", True),
        ("gpt-4", True), ("o1", True), (None, False), ("", False), ("gpt-4o\x1b[2J", True),
    ],
)  # fmt: skip
def test_whether_another_model_answered(served: str | None, other: bool, tmp_path: Path) -> None:
    with Faulty(reply=said("0.5"), extra=lambda _: {"model": served}) as server:
        run = planned(tmp_path, small(), Roster(models={"m": rater(server, "gpt-4o")}))
        collect(run, quiet, wait=at_once)
    assert (outcomes(run)["m"].get("wrong_model", 0) > 0) is other
    assert "\x1b" not in " ".join(notes(run))


@pytest.mark.parametrize(
    ("wanted", "served", "other"),
    [
        ("gpt-4o-2024-05-13", "gpt-4o-2024-08-06", True), ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13", False), ("gpt-4o-2024-05-13", "gpt-4o", False),
        ("mistral-large-latest", "mistral-large-2411", False), ("llama3", "llama3:latest", False), ("qwen2.5:7b", "qwen2.5:14b", True), ("phi-3", "phi-4", True),
        ("m.gguf", "m", False), ("meta/llama-3.1-70b", "llama-3.1-8b", True), ("claude-3-5-sonnet-latest", "claude-3-5-sonnet-20241022", False), ("2024", "2024", False),
    ],
)  # fmt: skip
def test_versions(wanted: str, served: str, other: bool) -> None:
    assert is_other_model(served, wanted, None) is other


def test_a_name_may_be_learned_later(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5"), served="deployed") as server:
        run = one(tmp_path, server, small(), concurrency=1)
        assert outcomes(run)["m"] == {"wrong_model": 5, "not asked": 5}
        assert outcomes(one(tmp_path, server, small(), answers_as="deployed"))["m"] == {"ok": 10}
        assert set(server.answered.values()) == {1}  # what was answered before counts now


def test_another_name_may_be_known(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5"), served="deployed") as server:
        assert outcomes(one(tmp_path, server, small(), answers_as="deployed"))["m"] == {"ok": 10}


# -- once more -----------------------------------------------------------------------------------------------------------------


def words_first(asked: Asked, _body: Body) -> tuple[str, Body]:
    return ("Hard to say.", {}) if asked[2] == 1 else ("0.25", {})


def test_a_reply_without_a_number_is_asked_for_once_more_and_flagged(tmp_path: Path) -> None:
    with Faulty(reply=words_first) as server:
        run = one(tmp_path, server, small())
    assert set(server.answered.values()) == {1}
    assert len(server.answered) == 20
    asked_again = next(body for body in server.bodies if len(body["messages"]) == 3)
    assert [m["role"] for m in asked_again["messages"]] == ["user", "assistant", "user"]
    assert asked_again["messages"][1]["content"] == "Hard to say."
    assert {(row["rating"], row["flags"]) for row in table(run)} == {("0.25", "reprompted")}


def test_only_once(tmp_path: Path) -> None:
    with Faulty(reply=said("Hard to say.")) as server:
        run = one(tmp_path, server, small())
        assert len(server.bodies) == 20
        assert outcomes(run)["m"] == {"nonnumeric": 10}
        one(tmp_path, server, small())
        assert len(server.bodies) == 20


@pytest.mark.parametrize("choice", [{"finish_reason": "length"}, {"refusal": "No."}, {"finish_reason": "content_filter"}])
def test_what_is_no_slip_is_not_asked_for_again(choice: Body, tmp_path: Path) -> None:
    with Faulty(reply=said("Let me", **choice)) as server:
        one(tmp_path, server, small())
    assert len(server.bodies) == 10


def test_nor_where_it_is_not_wanted(tmp_path: Path) -> None:
    with Faulty(reply=said("Hard to say.")) as server:
        one(tmp_path / "no", server, small(reprompt=False))
        one(tmp_path / "raw", server, small(), template="raw")
    assert len(server.bodies) == 20


def test_a_second_question_without_an_answer_is_put_another_day(tmp_path: Path) -> None:
    with Faulty(reply=words_first) as server:
        server.models["m"] = lambda body, _: (500, {}, b"") if len(body["messages"]) > 1 else (0, {}, b"")
        run = one(tmp_path, server, small(), attempts=2)
        assert outcomes(run)["m"] == {"nonnumeric": 10}
        again = planned(tmp_path, small(), run.roster)
        assert outcomes(again) == outcomes(run)
        assert len(again.begun) == 10 == sum(map(len, again.left.values()))
        del server.models["m"]
        collect(again, quiet, wait=at_once)
        assert outcomes(again)["m"] == {"ok": 10}
    assert set(server.answered.values()) == {1}


# -- log-probabilities ---------------------------------------------------------------------------------------------------------

PLACE = [("7", log(0.6)), ("8", log(0.3)), ("2", log(0.08)), ("I", log(0.02))]
EXPECTED = (7 * 0.6 + 8 * 0.3 + 2 * 0.08) / 0.98 / 9


def as_chat(top: list[tuple[str, Any]], first: Any = None) -> Body:
    row = {
        "token": top[0][0],
        "logprob": top[0][1] if first is None else first,
        "top_logprobs": [{"token": t, "logprob": p} for t, p in top],
    }
    return {"content": [row, {"token": "<|eot|>", "logprob": -0.1, "top_logprobs": []}]}


def test_expected_ratings_of_chats(tmp_path: Path) -> None:
    with Faulty(reply=said("7", logprobs=as_chat(PLACE))) as server:
        run = one(tmp_path, server, small(scale="d9"))
    assert {body["top_logprobs"] for body in server.bodies} == {20}
    rows = table(run)
    assert {(row["mode"], row["status"], row["flags"]) for row in rows} == {("logprob", "ok", "")}
    assert all(float(row["rating"]) == pytest.approx(EXPECTED, abs=1e-6) and float(row["sd"]) > 0 for row in rows)


def test_expected_ratings_of_raw_texts(tmp_path: Path) -> None:
    told = {"tokens": [" 7"], "token_logprobs": [log(0.6)], "top_logprobs": [{" " + t: p for t, p in PLACE}], "text_offset": [0]}
    with Faulty(reply=said(" 7", logprobs=told)) as server:
        run = one(tmp_path, server, small(scale="d9"), template="raw")
    assert {body["logprobs"] for body in server.bodies} == {20}
    assert {head["path"] for head in server.headers} == {"/v1/completions"}
    assert all(float(row["rating"]) == pytest.approx(EXPECTED, abs=1e-6) and row["mode"] == "logprob" for row in table(run))


def test_a_stop_that_is_listed_is_no_part_of_the_reply(tmp_path: Path) -> None:
    tokens = [" 7", " then", " question"]
    told = {"tokens": tokens, "token_logprobs": [log(0.6), -1, -1], "top_logprobs": [{" " + t: p for t, p in PLACE}, {}, {}]}
    with Faulty(reply=said(" 7 then", logprobs=told)) as server:
        run = one(tmp_path, server, small(scale="d9"), template="raw")
    assert {row["status"] for row in table(run)} == {"nonnumeric"}  # "7 then" states no rating
    told["tokens"][1] = "\n"
    with Faulty(reply=said(" 7\n", logprobs=told)) as server:
        run = one(tmp_path / "b", server, small(scale="d9"), template="raw")
    assert all(float(row["rating"]) == pytest.approx(EXPECTED, abs=1e-6) and row["mode"] == "logprob" for row in table(run))


ABSURD: list[tuple[str, Any, str]] = [
    ("none", None, "no log-probabilities came back"),
    ("text", "-0.1", "no log-probabilities came back"),
    ("empty", {"content": []}, "no log-probabilities came back"),
    ("odd rows", {"content": [3, None, {"token": 7}]}, "the tokens do not spell the reply"),
    ("zeros", as_chat([(t, 0) for t, _ in PLACE]), "all log-probabilities are 0"),
    ("floor", as_chat([("7", 0.0), ("8", -9999.0), ("2", -9999.0)]), "the log-probabilities are placeholders"),
    ("positive", as_chat([("7", 0.5), ("8", -1)]), "a log-probability is positive"),
    ("null", as_chat([("7", None), ("8", -1)]), "a log-probability is missing or no number"),
    ("nan", as_chat([("7", float("nan")), ("8", -1)]), "a log-probability is missing or no number"),
    ("infinite", as_chat([("7", -0.1), ("8", float("-inf"))]), "a log-probability is missing or no number"),
    ("huge", as_chat([("7", 10**400), ("8", -1)]), "a log-probability is missing or no number"),
    ("nested", as_chat([("7", {"a": [1]}), ("8", -1)]), "a log-probability is missing or no number"),
    ("other", as_chat([("9", -0.1), ("8", -2.5)]), "the tokens do not spell the reply"),
    ("twice", as_chat([("7", -0.9), ("7", -0.9), ("8", -3)]), "a digit's token is listed twice"),
    ("words", as_chat([("7", -3.0), ("I", -0.1)]), "too little of the probability lies on digits"),
]


@pytest.mark.parametrize(("told", "why"), [(told, why) for _, told, why in ABSURD], ids=[name for name, *_ in ABSURD])
def test_absurd_log_probabilities_leave_the_digit_that_was_drawn_and_are_named(told: Any, why: str, tmp_path: Path) -> None:
    with Faulty(reply=said("7", logprobs=told)) as server:
        run = one(tmp_path, server, small(scale="d9"))
    rows = table(run)
    assert {(row["rating"], row["mode"], row["sd"]) for row in rows} == {("0.777778", "sampled", "")}
    assert all(row["flags"] for row in rows)
    assert any(note.startswith(f"m: 10 of 10 ratings are digits that were drawn, no expected ratings: {why}") for note in notes(run))
    json.dumps(lines(run), allow_nan=False)


def test_some_of_each_are_never_mixed_unmarked(tmp_path: Path) -> None:
    def half(asked: Asked, _body: Body) -> tuple[str, Body]:
        return "7", {"logprobs": as_chat(PLACE) if len(server.bodies) % 2 else None}

    with Faulty(reply=half) as server:
        run = one(tmp_path, server, small(scale="d9"))
    rows = table(run)
    assert {row["mode"] for row in rows} == {"logprob", "sampled"}
    assert {"no_logprobs" in row["flags"] for row in rows if row["mode"] == "sampled"} == {True}
    assert {row["flags"] for row in rows if row["mode"] == "logprob"} == {""}


# -- hostile texts -------------------------------------------------------------------------------------------------------------

HOSTILE = {
    "ansi": "\x1b[2J\x1b]0;owned\x07 0.5",
    "surrogate": "0.5 \ud800\udfff \udc00",
    "zero": "0.5\x00",
    "lines": "0.5\n\r\n\u2028\u2029\x85\x0b\x0c\x1c",
    "csv": '0.5","x\n"=HYPERLINK("http://evil")',
    "json": '{"outcome":"reply","final":true}\n{"call":"x"}',
    "long": "0.5 " * 2**18,
    "longer": "x" * (2**20 + 10) + " 0.5",
    "bidi": "\u202e0.5\u200b\ufeff",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_replies_are_kept_as_they_are_and_break_nothing(name: str, tmp_path: Path) -> None:
    text = HOSTILE[name]
    plan = Plan(Protocol(variants=("ends",), orders=("AB",), repeats=1, reprompt=False), pair_set(PAIRS.pairs[:1], "one"))
    extra = {"system_fingerprint": text[:500], "provider": text[:500], "usage": {"prompt_tokens": 10**30, "x": text[:50]}}
    with Faulty(reply=said(text, finish_reason="stop"), extra=lambda _: extra) as server:
        run = one(tmp_path, server, plan)
        before = len(server.bodies)
        assert one(tmp_path, server, plan).done.keys() == run.done.keys()
        assert len(server.bodies) == before
    raw = (tmp_path / "calls.jsonl").read_bytes()
    assert raw.isascii()
    assert len(raw.splitlines()) == raw.count(b"\n") == 1
    assert all(line["text"] == json.loads(json.dumps(text))[: 2**20] for line in lines(run))
    assert len(table(run)) == 1
    status = next(iter(outcomes(run)["m"]))
    assert (status == "truncated") is (name == "longer")
    assert lines(run)[0].get("cut") == (len(text) if name == "longer" else None)
    assert "\x1b" not in (tmp_path / "ratings.csv").read_text() + " ".join(notes(run))


def test_a_long_reply_is_not_sent_back_whole(tmp_path: Path) -> None:
    with Faulty(reply=said("word " * 10_000)) as server:
        one(tmp_path, server, Plan(small().protocol, pair_set(PAIRS.pairs[:1], "one")))
    assert [max(len(m["content"]) for m in body["messages"]) for body in server.bodies][1:] == [2_000]


# -- keys ----------------------------------------------------------------------------------------------------------------------


def test_a_key_that_is_repeated_is_never_written(tmp_path: Path) -> None:
    spelled = {"content": [{"token": part, "logprob": -0.1, "top_logprobs": []} for part in (KEY[:9], KEY[9:], "7")]}

    def leaks(headers: dict[str, str]) -> Body:
        token = headers["authorization"]
        return {"model": f"m {token}", "provider": token, "system_fingerprint": token}

    def text(_asked: Asked, _body: Body) -> tuple[str, Body]:
        return f"Your key is {KEY}.", {"refusal": f"{KEY} {KEY}", "finish_reason": KEY, "logprobs": spelled, "reasoning_content": KEY}

    with Faulty(reply=text, extra=leaks) as server:
        run = one(tmp_path, server, small(scale="d9"), answers_as="m Bearer [key]")
        assert any(KEY in head["authorization"] for head in server.headers)
        assert [name for name, _ in probes(run)] == []
        second = planned(tmp_path / "p", small(scale="d9"), run.roster)
        facts = dict(probes(second, wait=at_once))
    finish(run)
    assert KEY not in repr(facts) + " ".join(notes(run))
    for path in (*tmp_path.glob("*.*"), *(tmp_path / "p").iterdir()):
        found = path.read_text(encoding="utf-8")
        assert KEY not in found
        assert KEY[9:] not in found
    assert lines(run)[0]["text"] == "Your key is [key]."


def test_a_key_in_the_roster_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with Faulty() as server:
        run = planned(tmp_path / "run", small(), Roster(models={"m": rater(server, note=f"use {KEY}")}))
        with pytest.raises(InputError, match=r"^the roster holds the key of m itself; it belongs into the environment alone$"):
            collect(run, quiet, wait=at_once)
    assert not (tmp_path / "run").exists()
    assert server.bodies == []


def test_a_key_that_is_not_there_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with Faulty() as server:
        models = {"a": rater(server), "b": rater(server, key_env="NOT_SET_AT_ALL")}
        run = planned(tmp_path / "run", small(), Roster(models=models))
        with pytest.raises(
            InputError, match=r"^b: the environment variable NOT_SET_AT_ALL, which was named for the key, is empty or not set$"
        ):
            collect(run, quiet, wait=at_once)
        with pytest.raises(InputError, match="NOT_SET_AT_ALL"):
            list(probed([Source("b", models["b"], [])]))
    assert server.bodies == []
    assert not (tmp_path / "run").exists()


def test_one_key_goes_to_one_host(tmp_path: Path) -> None:
    models = {"a": Rater(model="api:https://one.example/v1#a"), "b": Rater(model="api:https://two.example/v1#b")}
    run = planned(tmp_path / "run", small(), Roster(models=models))
    with pytest.raises(InputError, match=r"would go to several hosts \(one\.example, two\.example\); say of each model which key is meant"):
        collect(run, quiet, wait=at_once)


# -- the order of things -------------------------------------------------------------------------------------------------------


def test_no_more_at_a_time_than_is_allowed_and_all_models_at_once(tmp_path: Path) -> None:
    plan = Plan(Protocol(variants=("ends",), repeats=2), PAIRS)
    with Faulty(reply=said("0.5"), latency=0.02) as server:
        run = planned(tmp_path, plan, Roster(models={"a": rater(server, "a", concurrency=3), "b": rater(server, "b", concurrency=4)}))
        collect(run, quiet, wait=at_once)
    assert server.most == 7
    assert {body["model"] for body in server.bodies[:7]} == {"a", "b"}


def test_what_was_answered_is_written_before_the_next_is_asked(tmp_path: Path) -> None:
    written: list[str] = []

    def record(line: dict[str, Any]) -> None:
        written.append(line["call"])

    def behind(_body: Body, _headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        gaps.append(sum(server.answered.values()) - len(written))
        return 0, {}, b""

    gaps: list[int] = []
    plan = small()
    with Faulty(reply=said("0.5")) as server:
        server.models["m"] = behind
        found = list(asked(plan, [Source("m", rater(server, concurrency=1), plan.calls("m", "x"))], record))
    assert gaps == [0] * 10
    assert [line["call"] for some in found for line in some] == written


def test_a_log_that_cannot_be_written_ends_the_asking() -> None:
    def full(_line: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    plan = small()
    with Faulty(reply=said("0.5")) as server:
        calls = asked(plan, [Source("m", rater(server, concurrency=2), plan.calls("m", "x"))], full)
        with pytest.raises(OSError, match="No space left"):
            list(calls)
        assert len(server.bodies) <= 2


# -- probes, lists, and what is said of replies ----------------------------------------------------------------------------------


def test_who_answers_a_probe_in_the_place_of_another_is_paid_for_no_more(tmp_path: Path) -> None:
    with Faulty(served="x") as other, Faulty() as good:
        run = planned(tmp_path, small(), Roster(models={"other": rater(other), "good": rater(good)}))
        assert {name: facts["answers"] for name, facts in probes(run, wait=at_once)} == {"other": False, "good": True}
        collect(run, quiet, wait=at_once)
        assert len(other.bodies) == 1
        assert {name: len(of) for name, of in run.left.items()} == {"other": len(run.calls["other"]), "good": 0}
        assert any(note.startswith("other was not asked further: x answers where m was asked") for note in notes(run))


def test_probes(tmp_path: Path) -> None:
    def thinks(_asked: Asked, _body: Body) -> tuple[str, Body]:
        return "", {"finish_reason": "length", "reasoning_content": "Well, the first text"}

    with (
        Faulty(reply=said("7", logprobs=as_chat(PLACE)), extra=lambda _: {"system_fingerprint": "fp1"}) as good,
        Faulty(reply=thinks) as thinking,
        Faulty(served="x") as other,
        Faulty() as locked,
    ):
        locked.models["m"] = refused(401, "no")
        models = {"good": rater(good), "thinking": rater(thinking), "other": rater(other), "locked": rater(locked)}
        run = planned(tmp_path, small(scale="d9"), Roster(models=models))
        found = dict(probes(run, wait=at_once))
        assert [len(s.bodies) for s in (good, thinking, other, locked)] == [1, 1, 1, 1]
    assert (
        found["good"].items()
        >= {"answers": True, "served": "m", "fingerprint": "fp1", "logprobs": "there", "rating": "ok", "thinks": False}.items()
    )
    assert (
        found["thinking"].items()
        >= {"answers": True, "logprobs": "no log-probabilities came back", "rating": "truncated", "thinks": True}.items()
    )
    assert found["thinking"]["advice"].startswith("it spends them on thinking: turn that off")
    why = "x answers where m was asked; if that is its name, write answers_as into the roster"
    assert found["other"] == {"answers": False, "other": "x", "why": why}
    assert not found["locked"]["answers"]
    assert "the key in ALIGNTAX_API_KEY is refused" in found["locked"]["why"]
    kept = [json.loads(line) for line in (tmp_path / "probes.jsonl").read_text().splitlines()]
    assert {row["model"] for row in kept} == set(models)
    assert (tmp_path / "plan.json").exists()  # what was expected is hashed before anybody is asked anything


def test_thinking_that_leaves_no_room_is_said_with_advice(tmp_path: Path) -> None:
    details = {"usage": {"completion_tokens": 16, "completion_tokens_details": {"reasoning_tokens": 16}}}
    with Faulty(reply=said("", finish_reason="length"), extra=lambda _: details) as server:
        run = one(tmp_path, server, small())
    assert lines(run)[0]["usage"] == {"completion_tokens": 16, "reasoning_tokens": 16}
    (note,) = [n for n in notes(run) if n.startswith("m: ")]
    assert note.startswith("m: 100 % of its replies were cut short at 16 tokens (it spends them on thinking: turn that off in its send")


@pytest.mark.parametrize("template", ["chat", "raw"])
def test_a_list_is_read_per_pair(template: str, tmp_path: Path) -> None:
    text = "\n".join(f"{i}: 0.{i:02d}" for i in range(1, 10))
    with Faulty(reply=said(text)) as server:
        run = one(tmp_path, server, Plan(ATLAS_V1, PAIRS), template=template)
    assert len(server.bodies) == 1
    assert server.bodies[0]["max_tokens"] == 160
    assert server.bodies[0].get("stop") == (["\n\n"] if template == "raw" else None)
    rows = table(run)
    assert [row["rating"] for row in rows] == [*(f"0.{i:02d}".rstrip("0") for i in range(1, 10)), ""]
    assert rows[-1]["status"] == "empty"
    assert "missing" in rows[-1]["flags"]


def test_several_who_answered_are_named(tmp_path: Path) -> None:
    with Faulty(reply=said("0.5"), extra=lambda _: {"system_fingerprint": f"fp{len(server.bodies) % 2}"}) as server:
        run = one(tmp_path, server, small())
    assert "m: it was answered by several (fingerprint): fp0, fp1" in notes(run)


def test_kinds_are_all_there() -> None:
    assert {KINDS[number(("a", n, 1)) % len(KINDS)] for n in range(400)} == set(KINDS)
