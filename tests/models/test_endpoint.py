"""Endpoints: the same numbers as the model behind them, and one clear sentence for whatever a server may do."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request as WebRequest
from werkzeug import Response

from aligntax.core.asks import Failure, GenerateAsk, Generated, Prompt, ScoreAsk, Scored
from aligntax.core.errors import AligntaxError, InputError
from aligntax.models import endpoint as module
from aligntax.models import wire
from aligntax.models.asks import Generates, Model, ScoresText
from aligntax.models.endpoint import Endpoint
from tests.conftest import need
from tests.support.random_models import random_model

KEY = "sk-test-0123456789abcdef"
PROMPTS = ["question: what is 1 + 2? answer:", "question: sort: 3 1 2 0 answer: ", "the river of galt is"]
TEXTS = [" 3", "0 1 2 3", " the flood of the earth."]


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALIGNTAX_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture(scope="module")
def make_httpserver() -> Iterator[HTTPServer]:
    """Takes requests at the same time, which pytest-httpserver does not unless it is told."""
    server = HTTPServer("localhost", 0, threaded=True)
    server.start()
    yield server
    server.clear()
    if server.is_running():
        server.stop()


@pytest.fixture
def httpserver(make_httpserver: HTTPServer) -> Iterator[HTTPServer]:
    yield make_httpserver
    make_httpserver.clear()


# -- a server of our own, with a real model -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Any:
    need("torch", "cpu")
    need("transformers", "models")

    from aligntax.models.local import LocalModel

    made = tmp_path_factory.mktemp("served")
    random_model(made, 64, 1)
    return LocalModel.load(made, "lab:test")


@pytest.fixture(scope="module")
def url(local: Any) -> Iterator[str]:
    from aligntax.lab.serve import Server

    with Server(local) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made.url
        made.shutdown()


@pytest.fixture(scope="module", params=["tokenizer", "offsets"])
def served(request: pytest.FixtureRequest, local: Any, url: str) -> Endpoint:
    made = Endpoint(url, tokenizer=local.tokenizer if request.param == "tokenizer" else None)
    made.connect()
    return made


def wanted_score(local: Any, prompt: tuple[int, ...], text: tuple[int, ...]) -> tuple[list[float], list[bool]]:
    (scored,) = local.score([[*prompt, *text]], top=1)
    own = scored[len(prompt) - 1 :]
    return [t.logprob for t in own], [t.top[0][0] == t.id for t in own]


def test_it_has_the_abilities(served: Endpoint, url: str, local: Any) -> None:
    model: Model = served
    assert isinstance(model, Generates)
    assert isinstance(model, ScoresText)
    assert model.name == "lab:test"
    assert model.context == local.context
    assert {k: model.identity[k] for k in ("endpoint", "model")} == {"endpoint": url, "model": "lab:test"}
    assert model.facts["log_probabilities"] is True
    assert model.facts["listed"] is True
    json.dumps([dict(model.identity), dict(model.facts)])


def test_scores_are_those_of_the_model(served: Endpoint, local: Any) -> None:
    asks = [served.continuation(served.raw(p), t) for p in PROMPTS for t in TEXTS]
    found = dict(served.score(asks))
    assert sorted(found) == list(range(9))
    greedy = []
    for at, (prompt, text) in enumerate((p, t) for p in PROMPTS for t in TEXTS):
        bare = local.encode(prompt.rstrip())
        logprobs, most_likely = wanted_score(local, bare, local.encode(prompt + text)[len(bare) :])
        answer = found[at]
        assert isinstance(answer, Scored), answer
        assert list(answer.logprobs) == pytest.approx(logprobs, abs=1e-5)
        assert list(answer.greedy) == most_likely
        greedy += most_likely
    assert not all(greedy)


def test_the_most_likely_token_is_greedy(served: Endpoint, local: Any) -> None:
    from aligntax.models.local import Request

    prompt = local.encode(PROMPTS[0])
    (reply,) = local.generate([Request(prompt, max_tokens=3)])
    ((_, answer),) = served.score([served.continuation(served.raw(PROMPTS[0]), " " + reply.text.strip())])
    assert isinstance(answer, Scored)
    assert answer.greedy[0]


def test_scores_after_a_conversation(local: Any, url: str) -> None:
    made = Endpoint(url, tokenizer=local.tokenizer)
    prompt = made.chat([("user", "what is 1 + 2?")])
    assert prompt.tokens == local.encode_chat([{"role": "user", "content": "what is 1 + 2?"}])
    assert prompt == Prompt(prompt.text, made.templated(str(prompt.text)).tokens, (("user", "what is 1 + 2?"),), special=False)
    ask = made.continuation(prompt, " 3")
    ((_, answer),) = made.score([ask])
    logprobs, greedy = wanted_score(local, prompt.tokens or (), ask.tokens or ())
    assert isinstance(answer, Scored)
    assert list(answer.logprobs) == pytest.approx(logprobs, abs=1e-5)
    assert list(answer.greedy) == greedy


def test_nothing_before_a_text(local: Any, url: str) -> None:
    made = Endpoint(url, tokenizer=local.tokenizer)
    ask = made.continuation(made.raw(""), "the river")
    assert ask.prompt.tokens == (local.tokenizer.bos_token_id,)
    ((_, answer),) = made.score([ask])
    assert isinstance(answer, Scored)
    assert len(answer.logprobs) == len(ask.tokens or ()) == 2
    with pytest.raises(
        InputError, match=r"nothing comes before the text to be scored, and whether 127\.0\.0\.1 puts a begin token there is not known"
    ):
        Endpoint(url).continuation(Prompt(" ", None), "the river")


def test_a_long_text_is_scored_in_windows(local: Any, url: str) -> None:
    made = Endpoint(url, tokenizer=local.tokenizer)
    made.connect()
    assert made.rolling is not None
    text = "the river of galt is the flood of the earth . " * 60
    asks = made.rolling(text)
    tokens = local.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [t for ask in asks for t in ask.tokens or ()] == tokens
    assert len(asks) > 1
    assert max(len(a.prompt.tokens or ()) + len(a.tokens or ()) for a in asks) <= local.context
    for at, answer in made.score(asks):
        assert isinstance(answer, Scored), answer
        logprobs, _ = wanted_score(local, asks[at].prompt.tokens or (), asks[at].tokens or ())
        assert list(answer.logprobs) == pytest.approx(logprobs, abs=1e-5)
    assert Endpoint(url).rolling is None


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("spoken", [False, True])
def test_answers_are_those_of_the_model(served: Endpoint, local: Any, temperature: float, spoken: bool) -> None:
    from aligntax.models.local import Request

    asks, requests = [], []
    for seed, text in enumerate(PROMPTS):
        prompt = served.chat([("user", text.strip())]) if spoken else served.raw(text)
        asks.append(GenerateAsk(prompt, 12, temperature, 0.9, ("of",), seed))
        tokens = local.encode_chat([{"role": "user", "content": text.strip()}]) if spoken else local.encode(text)
        requests.append(Request(tokens, 12, temperature, 0.9, seed, ("of",)))
    found = dict(served.generate(asks))
    for at, reply in enumerate(local.generate(requests)):
        drawn = tuple(token.id for token in reply.tokens)
        # Without its tokenizer prompts are texts, and nothing is asked by ids.
        assert found[at] == Generated(reply.text, reply.reason, len(drawn), drawn if asks[at].prompt.tokens else ())


def test_who_renders_a_conversation(local: Any, url: str) -> None:
    messages = [("user", "what is 1 + 2?")]
    bare = Endpoint(url)
    assert bare.chat(messages) == Prompt(None, None, (("user", "what is 1 + 2?"),), special=False)
    with pytest.raises(InputError, match="renders conversations itself, so no text can be scored after one; name its tokenizer with token"):
        bare.continuation(bare.chat(messages), " 3")
    with pytest.raises(InputError, match="its chat template cannot be seen from here; name its tokenizer"):
        bare.template(messages)
    with pytest.raises(InputError, match="a second begin token"):
        bare.templated("<|begin|><|user|> a")
    with pytest.raises(InputError, match="nothing can be scored after one"):
        bare.score([ScoreAsk(bare.chat(messages), " 3", None)])
    with pytest.raises(InputError, match="refuses these messages: unknown role: robot"):
        Endpoint(url, tokenizer=local.tokenizer).chat([("robot", "hum")])


def test_the_tokenizer_is_part_of_the_identity(local: Any, url: str) -> None:
    from copy import deepcopy

    first = Endpoint(url, tokenizer=local.tokenizer).identity["tokenizer"]
    other = deepcopy(local.tokenizer)
    other.backend_tokenizer.enable_padding(length=7)
    assert Endpoint(url, tokenizer=other).identity["tokenizer"] == first
    other.chat_template = "{{ messages }}"
    assert Endpoint(url, tokenizer=other).identity["tokenizer"] != first
    assert "tokenizer" not in Endpoint(url).identity


def test_another_models_tokenizer_is_noticed(local: Any, url: str) -> None:
    class Other:
        """Its tokens mean other words."""

        bos_token, bos_token_id, chat_template = None, 2, None

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [10 + len(w) for w in text.split()]}

        def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
            return "question: what is 1 + 2? answer: 3"

        def get_vocab(self) -> dict[str, int]:
            return {"a": 1}

    with pytest.raises(InputError, match="the tokenizer named is not that of lab:test: it wrote 'question"):
        Endpoint(url, tokenizer=Other()).connect()


def test_inside_a_running_event_loop(served: Endpoint) -> None:
    async def notebook() -> list[tuple[int, Scored | Failure]]:
        return list(served.score([served.continuation(served.raw(PROMPTS[0]), " 3")]))

    ((_, answer),) = asyncio.run(notebook())
    assert isinstance(answer, Scored)


def test_a_prompt_too_long_is_one_failure(served: Endpoint, local: Any) -> None:
    asks = [GenerateAsk(served.raw(text), 2) for text in ("the river " * local.context, PROMPTS[0])]
    found = dict(served.generate(asks))
    assert isinstance(found[1], Generated)
    why = found[0]
    assert isinstance(why, Failure)
    assert re.search(r"the endpoint answered 400: the prompt has \d+ tokens; this model takes at most", why.why)


# -- a server that says what it is told to ----------------------------------------------------------------------------------------

Reply = Callable[[dict[str, Any]], Any]


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """An honest echo with word tokens; every logprob is minus the token's length, and the likeliest alternative is at -3."""
    prompt = body["prompt"]
    tokens = re.findall(r"\s*\S+", prompt) if isinstance(prompt, str) else [f" {t}" for t in prompt]
    text = prompt if isinstance(prompt, str) else "".join(tokens)
    tokens += [" more"] * body["max_tokens"]
    text += " more" * body["max_tokens"]
    values = [None, *(-float(len(t)) for t in tokens[1:])]
    return {
        "choices": [
            {
                "text": text,
                "finish_reason": "length",
                "logprobs": {
                    "tokens": tokens,
                    "token_logprobs": values,
                    "top_logprobs": [None, *({"x": -3.0, t: -float(len(t))} for t in tokens[1:])],
                    "text_offset": [sum(map(len, tokens[:k])) for k in range(len(tokens))],
                },
            }
        ]
    }


def write(text: str, reason: Any = "stop", **more: Any) -> Reply:
    return lambda body: {"choices": [{"text": text, "message": {"content": text}, "finish_reason": reason}], **more}


class Script:
    """Answers the probe as an honest server does, and everything else from a list; the last entry stays."""

    def __init__(self, server: HTTPServer, *replies: Any, probe: Reply = echo, models: Any = None, path: str = "/v1") -> None:
        self.replies, self.probe, self.bodies = list(replies), probe, []
        self.headers: list[dict[str, str]] = []
        self.lock = threading.Lock()
        self.in_flight = self.most = 0
        served = {"data": [{"id": "m", "object": "model"}]} if models is None else models
        server.expect_request(f"{path}/models").respond_with_json(served)
        server.expect_request(re.compile(f"{path}/(chat/)?completions")).respond_with_handler(self.answer)

    def answer(self, request: WebRequest) -> Response:
        body = request.get_json()
        if body.get("prompt") == "".join(module._PROBE):
            return self.respond(self.probe, body)
        with self.lock:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
            reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            return self.respond(reply, body)
        finally:
            with self.lock:
                self.in_flight -= 1

    @staticmethod
    def respond(reply: Any, body: dict[str, Any]) -> Response:
        reply = reply(body) if callable(reply) and not isinstance(reply, Response) else reply
        return reply if isinstance(reply, Response) else Response(json.dumps(reply), content_type="application/json")


def refuse(status: int, message: str = "no", headers: dict[str, str] | None = None, **error: Any) -> Response:
    return Response(json.dumps({"error": {"message": message, **error}}), status, headers, content_type="application/json")


def reach(server: HTTPServer, waits: list[float] | None = None, path: str = "/v1", **options: Any) -> Endpoint:
    async def wait(seconds: float) -> None:
        if waits is not None:
            waits.append(seconds)

    made = Endpoint(server.url_for(path), wait=wait, **{"concurrency": 1, "timeout": 20.0, **options})
    made.connect()
    return made


SCORE = ScoreAsk(Prompt("a bb", None), " ccccc d", None)
WRITE = GenerateAsk(Prompt("a bb", None), 5)
SPEAK = GenerateAsk(Prompt(None, None, (("user", "hello"),)), 5)


def why(found: Iterator[tuple[int, Any]]) -> str:
    ((_, answer),) = found
    assert isinstance(answer, Failure), answer
    return answer.why


def scored(found: Iterator[tuple[int, Any]]) -> Scored:
    ((_, answer),) = found
    assert isinstance(answer, Scored), answer
    return answer


def test_an_honest_echo(httpserver: HTTPServer) -> None:
    script = Script(httpserver, echo)
    made = reach(httpserver)
    assert scored(made.score([SCORE])) == Scored((-6.0, -2.0), (False, True))
    assert script.bodies == [
        {"model": "m", "prompt": "a bb ccccc d", "echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0}
    ]  # fmt: skip
    assert scored(made.score([ScoreAsk(Prompt(None, (5, 6)), "", (7, 812))])) == Scored((-2.0, -4.0), (True, False))
    assert script.bodies[-1]["prompt"] == [5, 6, 7, 812]


def twist(**columns: Any) -> Reply:
    """An echo with some columns of the log-probabilities replaced or made by a function; ``text`` and ``usage`` as well."""

    def reply(body: dict[str, Any]) -> dict[str, Any]:
        found = echo(body)
        choice = found["choices"][0]
        for name, value in columns.items():
            place = found if name == "usage" else choice if name in ("text", "logprobs") else choice["logprobs"]
            place[name] = value(place.get(name)) if callable(value) else value
        return found

    return reply


TOKENS = ScoreAsk(Prompt(None, (5, 6)), "", (7, 8))


@pytest.mark.parametrize(
    ("ask", "reply", "sentence"),
    [
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], None, v[3]]), "a log-probability was dropped: null stands in its place"),
        (SCORE, twist(token_logprobs=lambda v: v[:-1]), "the lists of tokens, token_logprobs, top_logprobs, text_offset that came back differ"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], 0.5, v[3]]), "a log-probability that came back is positive: 0.5"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], float("nan"), v[3]]), "a log-probability that came back is no number"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], float("inf"), v[3]]), "a log-probability that came back is positive: inf"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], "-1", v[3]]), "a log-probability that came back is no number: '-1'"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], True, v[3]]), "a log-probability that came back is no number: True"),
        (SCORE, twist(token_logprobs=lambda v: [*v[:2], -(10**400), v[3]]), "a log-probability that came back is no number"),
        (SCORE, twist(top_logprobs=lambda v: [*v[:2], {"x": "y"}, v[3]]), "a log-probability that came back is no number: 'y'"),
        (SCORE, twist(top_logprobs=lambda v: [*v[:2], None, v[3]]), "no alternatives came back with a log-probability, so whether it is"),
        (SCORE, twist(text_offset=[0, 1, 4, 9]), "the offsets that came back do not fit the text: other words stand there"),
        (SCORE, twist(text_offset=[0, 1, 10, 4]), "the offsets that came back do not fit the text: they go backwards"),
        (SCORE, twist(text_offset=[0, 1, 4, 99]), "the offsets that came back do not fit the text: they go past its end"),
        (SCORE, twist(text_offset=[0, 1, 4, "x"]), "the tokens or offsets that came back are not texts and counts"),
        (SCORE, twist(text_offset=None), "the log-probabilities that came back lack text_offset"),
        (SCORE, twist(text_offset=[0, 0, 0, 0]), "the offsets that came back do not fit the text: other words stand there"),
        (SCORE, twist(tokens=["a", " xx", " ccccc", " d"]), "the tokens that came back do not spell the text that was sent"),
        (SCORE, twist(text="something else"), "the text that came back is not the one that was sent (echo is not offered)"),
        (SCORE, twist(text=None), "the text that came back is not the one that was sent (echo is not offered)"),
        (SCORE, twist(logprobs=None), "no log-probabilities came back (echo with logprobs is not offered)"),
        (SCORE, lambda b: echo({**b, "max_tokens": 3}), "7 log-probabilities came back for 4 tokens"),
        (SCORE, write("hello"), "the text that came back is not the one that was sent|no log-probabilities came back"),
        (TOKENS, twist(token_logprobs=lambda v: v[1:], top_logprobs=lambda v: v[1:]), "3 log-probabilities came back for 4 tokens"),
        (TOKENS, lambda b: echo({**b, "max_tokens": 3}), "7 log-probabilities came back for 4 tokens"),
        (TOKENS, twist(token_logprobs=lambda v: [*v[:3], None]), "a log-probability was dropped: null stands in its place"),
        (TOKENS, twist(usage={"prompt_tokens": 5}), "4 tokens were sent, and the server read 5"),
        (ScoreAsk(Prompt(None, (5, 6)), "", ()), echo, "the text to be scored has no tokens"),
        (ScoreAsk(Prompt("a", None), "", None), echo, "the text to be scored has no tokens"),
        (ScoreAsk(Prompt(None, ()), "", (7,)), echo, "nothing comes before the text to be scored, so its first token has no probability"),
    ],
)  # fmt: skip
def test_scores_that_are_none(httpserver: HTTPServer, ask: ScoreAsk, reply: Reply, sentence: str) -> None:
    Script(httpserver, reply)
    found = why(reach(httpserver).score([ask]))
    assert any(part in found for part in sentence.split("|")), found


def test_rounding_is_no_invention(httpserver: HTTPServer) -> None:
    Script(httpserver, twist(token_logprobs=lambda v: [None, -1.0, 1e-7, float("-inf")]))
    assert scored(reach(httpserver).score([SCORE])) == Scored((0.0, float("-inf")), (True, False))


def test_ties_count_as_most_likely(httpserver: HTTPServer) -> None:
    Script(httpserver, twist(top_logprobs=lambda v: [None, {"x": -1.0}, {"x": -6.0}, {"x": -1.999}]))
    assert scored(reach(httpserver).score([SCORE])).greedy == (True, False)


@pytest.mark.parametrize(
    ("tokens", "offsets", "first"),
    [
        (["<s>", "a", " bb", " ccccc", " d"], [0, 3, 4, 7, 13], 3),  # vLLM: the begin token moves all others
        (["<s>", "a", " bb", " ccccc", " d"], [0, 0, 1, 4, 10], 3),  # places in the text itself
        (["", "a", " bb", " ccccc", " d"], [0, 0, 1, 4, 10], 3),
        (["<s>", "a", "bb", "ccccc", "d"], [0, 0, 2, 5, 11], 3),  # spaces are in no token
        (["<s>", "A", "BB", "CCCCC", "D"], [0, 0, 2, 5, 11], 3),
        (["a", " b", "b c", "cccc", " d"], [0, 1, 3, 6, 10], 2),  # one token reaches over the boundary
        (["a", " bb ", "ccccc", " ", "d"], [0, 1, 5, 10, 11], 1),
        (["a", " bb", "\ufffd", "\ufffd", " d"], [0, 1, 4, 4, 10], 2),  # parts of one character
        (["a", " bb", "", " ccccc", " d"], [0, 1, 4, 4, 10], 2),
    ],
)
def test_where_the_text_begins(httpserver: HTTPServer, tokens: list[str], offsets: list[int], first: int) -> None:
    values = [None, -1.0, -2.0, -3.0, -4.0]
    tops = [None, *({"x": -2.0} for _ in range(4))]
    Script(httpserver, twist(tokens=tokens, text_offset=offsets, token_logprobs=values, top_logprobs=tops))
    assert scored(reach(httpserver).score([SCORE])).logprobs == tuple(values[first:])


def test_a_server_that_wants_to_write_one_token(httpserver: HTTPServer) -> None:
    def picky(body: dict[str, Any]) -> Any:
        return refuse(400, "max_tokens must be at least 1") if body["max_tokens"] == 0 else echo(body)

    script = Script(httpserver, picky, probe=picky)
    made = reach(httpserver)
    assert list(made.score([SCORE, SCORE])) == [(0, Scored((-6.0, -2.0), (False, True))), (1, Scored((-6.0, -2.0), (False, True)))]
    assert [b["max_tokens"] for b in script.bodies] == [1, 1]
    assert scored(made.score([TOKENS])) == Scored((-2.0, -2.0), (True, True))


def test_a_server_that_takes_0_for_nothing_said(httpserver: HTTPServer) -> None:
    def falsy(body: dict[str, Any]) -> Any:
        return echo({**body, "max_tokens": body["max_tokens"] or 16})

    script = Script(httpserver, falsy, probe=falsy)
    assert scored(reach(httpserver).score([SCORE])) == Scored((-6.0, -2.0), (False, True))
    assert [b["max_tokens"] for b in script.bodies] == [1]


def test_an_endpoint_that_cannot_score(httpserver: HTTPServer) -> None:
    script = Script(httpserver, write("hello", usage={"completion_tokens": 1}), probe=lambda _: refuse(404, "this is a chat model"))
    made = reach(httpserver)
    assert made.facts["log_probabilities"] is False
    assert made.facts["log_probabilities_reason"] == "the endpoint answered 404: this is a chat model"
    with pytest.raises(InputError, match=r"m at http://localhost:.* gives no log-probabilities of given texts: the endpoint answered 404"):
        made.score([SCORE])
    assert script.bodies == []
    assert list(made.generate([SPEAK])) == [(0, Generated("hello", "stop", 1))]


def test_a_probe_that_settles_nothing(httpserver: HTTPServer, waits: list[float]) -> None:
    Script(httpserver, echo, probe=lambda _: refuse(500, "out of memory"))
    made = reach(httpserver, waits)
    assert made.facts["log_probabilities"] is None
    assert len(waits) == 1
    assert scored(made.score([SCORE])) == Scored((-6.0, -2.0), (False, True))


# -- writing ----------------------------------------------------------------------------------------------------------------------


def test_what_is_sent(httpserver: HTTPServer) -> None:
    script = Script(httpserver, write("hello"))
    made = reach(httpserver)
    list(made.generate([GenerateAsk(Prompt("a", (4, 5)), 5, 0.5, 0.9, ("", "1", "2", "3", "4", "5"), 7), SPEAK]))
    first, second = script.bodies
    assert first == {
        "model": "m",
        "prompt": [4, 5],
        "max_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "stop": ["1", "2", "3", "4"],
    }
    assert second == {
        "model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, "temperature": 0.0, "top_p": 1.0, "seed": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("owner", "sent"), [("vllm", {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}), ("somebody", {}), (7, {})])
def test_defaults_of_a_server_are_switched_off(httpserver: HTTPServer, owner: Any, sent: dict[str, float]) -> None:
    script = Script(httpserver, write("hello"), models={"data": [{"id": "m", "owned_by": owner, "max_model_len": 4096}]})
    made = reach(httpserver)
    list(made.generate([WRITE]))
    assert {k: v for k, v in script.bodies[0].items() if k in ("top_k", "min_p", "repetition_penalty")} == sent
    assert made.facts["settings_sent"] == sent
    assert made.context == 4096


@pytest.mark.parametrize(
    ("text", "reason", "wanted"),
    [
        ("one two", "stop", Generated("one two", "stop", 9)),
        ("one two", "length", Generated("one two", "length", 9)),
        ("one. two", "length", Generated("one", "stop", None)),  # a stop that the server was not told of
        ("one E two.", "stop", Generated("one ", "stop", None)),
        ("one.", "stop", Generated("one", "stop", 9)),  # a server that includes the stop
        ("", "length", Generated("", "length", 9)),
        ("a\ud800b", "stop", Generated("a\ufffdb", "stop", 9)),
    ],
)
def test_stops_are_cut(httpserver: HTTPServer, text: str, reason: str, wanted: Generated) -> None:
    Script(httpserver, write(text, reason, usage={"completion_tokens": 9}))
    ask = GenerateAsk(Prompt("a", None), 5, stops=("A", "B", "C", "D", "E", "."))
    assert list(reach(httpserver).generate([ask])) == [(0, wanted)]


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}, {"completion_tokens": -1}, {"completion_tokens": True}, [3]])
def test_tokens_that_nobody_counted_are_not_made_up(httpserver: HTTPServer, usage: Any) -> None:
    Script(httpserver, write("one two three", usage=usage))
    assert list(reach(httpserver).generate([WRITE])) == [(0, Generated("one two three", "stop", None))]


def test_the_tokenizer_counts_where_the_server_does_not(httpserver: HTTPServer) -> None:
    class Words:
        """One token a word; the server above reads them as numbers, and cannot be compared with."""

        bos_token, chat_template = "<s>", None

        def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
            return {"input_ids": [*([1] if add_special_tokens else []), *range(2, 2 + len(text.split()))]}

        def get_vocab(self) -> dict[str, int]:
            return {"a": 1}

    Script(httpserver, lambda b: refuse(400) if b.get("echo") else write("one two three.")(b))
    made = reach(httpserver, tokenizer=Words())
    assert list(made.generate([WRITE, GenerateAsk(Prompt("a", None), 5, stops=(" two",))])) == [
        (0, Generated("one two three.", "stop", 3)),
        (1, Generated("one", "stop", 1)),
    ]
    assert made.raw("<s> a b").special is False
    assert made.raw("<s> a b").tokens == (2, 3, 4)


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (write("no", "content_filter"), "the provider's filter ended the answer (finish_reason content_filter)"),
        (write("no", None), "the answer did not end as answers do: finish_reason is None"),
        (write("no", "tool_calls\x1b[2J"), "the answer did not end as answers do: finish_reason is 'tool_calls\\x1b[2J'"),
        ({"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}, "there is no text in it"),
        ({"choices": [{"message": [], "finish_reason": "stop"}]}, "there is no text in it"),
        ({"choices": []}, "there is no choice in it"),
        ({"choices": "x"}, "there is no choice in it"),
        ({"choices": [1]}, "there is no choice in it"),
        ({}, "there is no choice in it"),
        ([], "the answer is JSON of the wrong shape: not an object"),
        (Response("7"), "the answer is JSON of the wrong shape: not an object"),
        ({"error": {"message": "bad\x1b[31m words"}}, "the endpoint answered 200 with an error: bad\\x1b[31m words"),
        ({"error": "broken"}, "the endpoint answered 200 with an error: broken"),
    ],
)  # fmt: skip
def test_answers_that_are_none(httpserver: HTTPServer, waits: list[float], reply: Any, sentence: str) -> None:
    script = Script(httpserver, reply)
    assert sentence in why(reach(httpserver, waits).generate([SPEAK]))
    assert waits == []
    assert len(script.bodies) == 1


def test_half_a_character_is_sent_as_it_is(httpserver: HTTPServer) -> None:
    script = Script(httpserver, write("hello"))
    assert list(reach(httpserver).generate([GenerateAsk(Prompt("a\ud800", None), 5)])) == [(0, Generated("hello", "stop", None))]
    assert script.bodies[0]["prompt"] == "a\ud800"


def test_all_spent_before_the_answer_began(httpserver: HTTPServer) -> None:
    Script(httpserver, {"choices": [{"message": {"content": None}, "finish_reason": "length"}], "usage": {"completion_tokens": 5}})
    assert list(reach(httpserver).generate([SPEAK])) == [(0, Generated("", "length", 5))]


def test_the_other_name_of_the_limit(httpserver: HTTPServer) -> None:
    def newer(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            return refuse(400, "'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.")
        return write("hello")(body)

    script = Script(httpserver, newer)
    assert [a for _, a in reach(httpserver).generate([SPEAK, SPEAK])] == [Generated("hello", "stop", None)] * 2
    assert ["max_tokens" in b for b in script.bodies] == [True, False, False]


# -- trying again -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble",
    [
        *(refuse(status) for status in (408, 409, 429, 500, 502, 503, 504)),
        Response("<html>busy</html>", content_type="text/html"),
        Response('{"choices": [{"te'),
        Response(""),
        Response(b"\xff\xfe\x00"),
        Response('{"error": {"message": "x", "code": 503}}'),
        Response('{"error": "The engine is currently overloaded, please try again later"}'),
    ],
    ids=lambda r: f"{r.status_code}-{r.get_data()[:12]!r}",
)
def test_trouble_that_passes(httpserver: HTTPServer, waits: list[float], trouble: Response) -> None:
    script = Script(httpserver, trouble, trouble, write("hello"))
    said: list[str] = []
    made = reach(httpserver, waits, say=said.append)
    assert list(made.generate([WRITE])) == [(0, Generated("hello", "stop", None))]
    assert len(script.bodies) == 3
    assert len(waits) == 2
    assert 0 <= waits[0] <= 0.5
    assert 0 <= waits[1] <= 1.0
    assert len(said) == 1
    assert "it is tried up to 6 times" in said[0]


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (refuse(429, "slow down"), "the endpoint answered 429: slow down"),
        (refuse(500, "out of memory"), "the endpoint answered 500: out of memory"),
        (Response("<html>\n<b>busy</b>"), "the answer is not JSON, or was cut off; it begins with '<html> <b>busy</b>'"),
        (Response('{"choices": [{"te'), "the answer is not JSON, or was cut off; it begins with '{"),
        (Response(""), "the answer is empty"),
        (Response("[" * 100_000), "the answer is not JSON, or was cut off; it begins with '[[["),
        ({"error": {"message": "overloaded"}}, "the endpoint answered 200 with an error: overloaded"),
    ],
)
def test_trouble_that_stays(httpserver: HTTPServer, waits: list[float], trouble: Any, sentence: str) -> None:
    script = Script(httpserver, trouble)
    found = why(reach(httpserver, waits, attempts=4).generate([WRITE]))
    assert sentence in found
    assert len(found) < 400
    assert len(script.bodies) == 4
    assert len(waits) == 3
    assert max(waits) <= 2.0


def test_waits_grow_and_are_spread(httpserver: HTTPServer, waits: list[float]) -> None:
    Script(httpserver, refuse(429))
    list(reach(httpserver, waits, attempts=12).generate([WRITE] * 4))
    assert len(set(waits)) == len(waits) == 44
    assert max(waits[k] for k in range(0, 44, 11)) <= 0.5
    assert 2 < max(waits) <= 30


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7.5),
        ("0.25", 0.25, 0.75),
        ("86400", 60, 60),
        ("date+20", 18, 20.6),
        ("date+9999", 60, 60),
        ("date-50", 0, 0.5),
        ("-3", 0, 0.5),
        ("soon", 0, 0.5),
        ("nan", 0, 0.5),
        ("inf", 0, 0.5),
    ],
)
def test_a_server_says_when(httpserver: HTTPServer, waits: list[float], header: str, least: float, most: float) -> None:
    value = formatdate(time.time() + float(header[4:]), usegmt=True) if header.startswith("date") else header
    Script(httpserver, refuse(429, headers={"Retry-After": value}), write("hello"))
    list(reach(httpserver, waits).generate([WRITE]))
    assert len(waits) == 1
    assert least <= waits[0] <= most


@pytest.mark.parametrize("status", [400, 413, 422, 418, 501])
def test_what_is_refused_once_is_refused(httpserver: HTTPServer, waits: list[float], status: int) -> None:
    script = Script(httpserver, refuse(status, "no\x1b[2J\u202e room " + "x" * 900), write("hello"))
    made = reach(httpserver, waits)
    found = dict(made.generate([WRITE, WRITE]))
    assert found[1] == Generated("hello", "stop", None)
    failure = found[0]
    assert isinstance(failure, Failure)
    assert failure.why.startswith(f"the endpoint answered {status}: no\\x1b[2J\\u202e room xxx")
    assert re.search(r"x … \(\+\d+ characters\)$", failure.why)
    assert len(failure.why) < 300
    assert waits == []
    assert len(script.bodies) == 2


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"error": "plain"}', "plain"),
        ('{"message": "flat"}', "flat"),
        ('{"detail": [{"loc": ["body"], "msg": "missing"}]}', '[{"loc": ["body"], "msg": "missing"}]'),
        ('{"error": {"code": 7}}', '{"code": 7}'),
        ("just text", "just text"),
        ("", None),
    ],
)
def test_where_servers_say_why(httpserver: HTTPServer, body: str, said: str | None) -> None:
    Script(httpserver, Response(body, 400))
    assert why(reach(httpserver).generate([WRITE])) == "the endpoint answered 400" + (f": {said}" if said else "")


@pytest.mark.parametrize(
    ("reply", "kind", "sentence"),
    [
        (refuse(401, "who?"), InputError, "it wants a key, and there is none in ALIGNTAX_API_KEY (the endpoint answered 401: who?)"),
        (refuse(403, "no"), InputError, "it wants a key, and there is none in ALIGNTAX_API_KEY (the endpoint answered 403: no)"),
        (refuse(404, "gone"), InputError, "does not know the model m, or does not offer what was asked for (the endpoint answered 404: gone)"),
        (refuse(405, "no"), InputError, "does not offer what was asked for (the endpoint answered 405: no)"),
        (refuse(402, "pay"), AligntaxError, "wants to be paid (the endpoint answered 402: pay)"),
        (refuse(429, "spent", code="insufficient_quota"), AligntaxError, "wants to be paid (the endpoint answered 429: spent)"),
        (
            Response("", 307, {"Location": "http://elsewhere.example/v1?token=secret"}), InputError,
            "the endpoint answered 307, which points to http://elsewhere.example/v1; redirects are not followed; give the address it points to",
        ),
    ],
    ids=lambda v: getattr(v, "status", None),
)  # fmt: skip
def test_what_ends_everything(httpserver: HTTPServer, waits: list[float], reply: Response, kind: type[Exception], sentence: str) -> None:
    script = Script(httpserver, write("hello"), reply)
    made = reach(httpserver, waits)
    answers = made.generate([WRITE] * 9)
    assert next(answers) == (0, Generated("hello", "stop", None))
    with pytest.raises(kind) as caught:
        next(answers)
    assert type(caught.value) is kind
    assert sentence in str(caught.value)
    assert "secret" not in str(caught.value)
    assert waits == []
    assert len(script.bodies) == 2


def test_an_answer_without_end_is_not_read(httpserver: HTTPServer, waits: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(httpserver, write("x" * 5000))
    made = reach(httpserver, waits)
    monkeypatch.setattr(wire, "MAX_BODY", 4000)
    assert why(made.generate([WRITE])) == "the answer is longer than 4,000 bytes"
    assert len(script.bodies) == 1


def test_a_server_that_hangs(httpserver: HTTPServer, waits: list[float]) -> None:
    done = threading.Event()
    script = Script(httpserver, lambda _: (done.wait(20), write("late")(_))[1])
    made = reach(httpserver, waits, attempts=2, timeout=0.3)
    start = time.perf_counter()
    assert why(made.generate([WRITE])) == "there was no answer within 0.3 s"
    done.set()
    assert time.perf_counter() - start < 15
    assert len(script.bodies) == 2


# -- being gone -------------------------------------------------------------------------------------------------------------------


class Dying:
    """Answers so many completions as a server does, then takes connections and drops them."""

    def __init__(self, alive: int) -> None:
        self.alive, self.dropped = alive, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/v1"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.answer(connection)

    def answer(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := connection.recv(65536)):
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = int((re.search(rb"(?i)content-length: (\d+)", head) or [0, 0])[1])
        while len(body) < length:
            body += connection.recv(65536)
        if head.startswith(b"GET"):
            reply: Any = {"data": [{"id": "m"}]}
        elif b'"echo"' in body:
            reply = echo(json.loads(body))
        elif self.alive > 0:
            self.alive -= 1
            reply = write("hello")({})
        else:
            self.dropped += 1
            connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"choices"')
            return
        data = json.dumps(reply).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)


def dying(alive: int, waits: list[float], **options: Any) -> tuple[Dying, Endpoint]:
    async def wait(seconds: float) -> None:
        waits.append(seconds)

    server = Dying(alive)
    made = Endpoint(server.url, wait=wait, **{"concurrency": 1, "attempts": 3, **options})
    made.connect()
    return server, made


def test_a_server_that_goes_down_in_the_middle(waits: list[float]) -> None:
    server, made = dying(3, waits)
    answers = made.generate([WRITE] * 100)
    found = [next(answers)[1] for _ in range(7)]
    with pytest.raises(AligntaxError) as caught:
        next(answers)
    server.socket.close()
    assert caught.value.exit_code == 1
    assert re.match(
        rf"{re.escape(server.url)} is gone: 5 requests in a row got no answer, the last because the connection failed", str(caught.value)
    )
    assert found[:3] == [Generated("hello", "stop", None)] * 3
    assert [type(a) for a in found[3:]] == [Failure] * 4
    assert server.dropped == 15
    assert len(waits) == 10


def test_what_is_lost_now_and_then_is_not_gone(httpserver: HTTPServer) -> None:
    gateway = refuse(503, "loading")
    Script(httpserver, *[gateway] * 4, write("hello"), *[gateway] * 4, write("hello"), *[gateway] * 5, write("hello"))
    made = reach(httpserver, attempts=1)
    found = list(made.generate([WRITE] * 10))
    assert [at for at, a in found if isinstance(a, Generated)] == [4, 9]
    with pytest.raises(
        AligntaxError, match="is gone: 5 requests in a row got no answer, the last because the endpoint answered 503: loading"
    ):
        list(made.generate([WRITE] * 10))


def test_refusals_do_not_count_as_gone(httpserver: HTTPServer) -> None:
    Script(httpserver, refuse(400))
    assert all(isinstance(a, Failure) for _, a in reach(httpserver).generate([WRITE] * 12))


def test_nobody_there(waits: list[float]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def wait(seconds: float) -> None:
        waits.append(seconds)

    with pytest.raises(
        InputError, match=rf"^nobody answers at http://127.0.0.1:{port}/v1: the connection failed \(ConnectError: .+\)$"
    ) as caught:
        Endpoint(f"http://127.0.0.1:{port}/v1", wait=wait).connect()
    assert caught.value.exit_code == 2
    assert len(waits) == 1


@pytest.mark.parametrize("host", ["a" * 70, "a..b"])
def test_a_name_that_no_host_has(host: str) -> None:
    with pytest.raises(InputError, match=r"nobody answers at|is no URL"):
        Endpoint(f"http://{host}:1/v1", attempts=1).connect()


def test_a_model_that_is_not_ready(httpserver: HTTPServer, waits: list[float]) -> None:
    httpserver.expect_request("/v1/models").respond_with_json({"error": {"message": "Loading model"}}, 503)
    with pytest.raises(InputError, match=r"the model is not ready at http://.*/v1: the endpoint answered 503: Loading model"):
        reach(httpserver, waits)
    assert len(waits) == 1


def test_a_first_question_connects(httpserver: HTTPServer) -> None:
    Script(httpserver, write("hello"))
    made = Endpoint(httpserver.url_for("/v1"))
    assert list(made.generate([WRITE])) == [(0, Generated("hello", "stop", None))]
    assert made.identity["model"] == "m"


# -- at the same time -------------------------------------------------------------------------------------------------------------


def threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == "aligntax-endpoint"]


def test_so_many_at_a_time(httpserver: HTTPServer) -> None:
    def slow(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.05 if body["seed"] else 0.4)
        return write(str(body["seed"]))(body)

    script = Script(httpserver, slow)
    found = list(reach(httpserver, concurrency=4).generate([GenerateAsk(Prompt("a", None), 5, seed=k) for k in range(12)]))
    assert script.most == 4
    assert sorted(found) == [(k, Generated(str(k), "stop", None)) for k in range(12)]
    assert found[0][0] != 0  # ready first, told first
    assert threads() == []


def test_who_has_seen_enough_waits_for_nobody(httpserver: HTTPServer) -> None:
    done = threading.Event()
    script = Script(httpserver, write("hello"), lambda b: (done.wait(30), write("late")(b))[1])
    answers = reach(httpserver, concurrency=3).generate([WRITE] * 50)
    assert next(answers)[1] == Generated("hello", "stop", None)
    start = time.perf_counter()
    answers.close()  # type: ignore[attr-defined]
    assert time.perf_counter() - start < 15
    assert threads() == []
    assert len(script.bodies) <= 4
    done.set()


_ASKS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the tests in the background ignores it
from aligntax.core.asks import GenerateAsk, Prompt
from aligntax.models.endpoint import Endpoint
print(list(Endpoint(sys.argv[1], concurrency=1, timeout=25.0).generate([GenerateAsk(Prompt("a bb", None), 5)])))
"""


def test_an_interrupt_waits_for_nobody(httpserver: HTTPServer) -> None:
    """In a process of its own: the signal is sent once its request is under way."""
    done, asked = threading.Event(), threading.Event()
    Script(httpserver, lambda b: (asked.set(), done.wait(20), write("late")(b))[2])
    process = subprocess.Popen(
        [sys.executable, "-c", _ASKS, httpserver.url_for("/v1")], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert asked.wait(60)
    process.send_signal(signal.SIGINT)
    try:
        out, said = process.communicate(timeout=15)  # the answer would take longer
    finally:
        done.set()
        process.kill()
    assert "KeyboardInterrupt" in said
    assert out == ""


def test_the_other_name_of_the_limit_is_found_by_several(httpserver: HTTPServer) -> None:
    gate = threading.Barrier(4, timeout=10)

    def newer(body: dict[str, Any]) -> Any:
        if "max_tokens" in body:
            gate.wait()
            return refuse(400, "Use 'max_completion_tokens' instead.")
        return write("hello")(body)

    Script(httpserver, newer)
    found = [a for _, a in reach(httpserver, concurrency=4).generate([SPEAK] * 4)]
    assert found == [Generated("hello", "stop", None)] * 4


def test_nothing_to_ask(httpserver: HTTPServer) -> None:
    Script(httpserver, write("hello"))
    made = reach(httpserver)
    assert list(made.generate([])) == []
    assert list(made.score([])) == []
    made.close()


# -- where it is, and what it serves ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_ways_to_write_the_address(httpserver: HTTPServer, path: str) -> None:
    Script(httpserver, write("hello"))
    said: list[str] = []
    made = reach(httpserver, path=path, say=said.append)
    assert made.identity == {"endpoint": httpserver.url_for("/v1"), "model": "m"}
    root = httpserver.url_for("/").rstrip("/")
    assert said == ([] if "v1" in path else [f"{root}: the OpenAI protocol is spoken at {root}/v1"])
    made.connect()
    assert made.identity["endpoint"] == httpserver.url_for("/v1")


def test_a_protocol_without_v1(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("nothing here", 404)
    Script(httpserver, write("hello"), path="/api")
    httpserver.expect_request("/api/v1/models").respond_with_data("nothing here", 404)
    assert reach(httpserver, path="/api").identity["endpoint"] == httpserver.url_for("/api")


def test_v1_goes_first(httpserver: HTTPServer) -> None:
    """llama.cpp answers /models as well, but its /completions is another protocol."""
    httpserver.expect_request("/models").respond_with_json({"data": [{"id": "m"}]})
    Script(httpserver, write("hello"))
    assert reach(httpserver, path="/").identity["endpoint"] == httpserver.url_for("/v1")


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "http://me:hunter2@host/v1",
            "the URL of the endpoint holds a user or password; leave it out, and put a key into ALIGNTAX_API_KEY",
        ),
        ("http://hunter2@host/v1", "the URL of the endpoint holds a user or password"),
        ("http://me:hunter2@host:x/v1", "the URL of the endpoint is no URL"),
        ("http://host/v1?key=hunter2", "the URL of the endpoint has a part after ? or #"),
        ("http://host/v1#hunter2", "the URL of the endpoint has a part after ? or #"),
        ("http://ho:st/v1#hunter2", "the URL of the endpoint is no URL"),
        ("host:8000/v1", "host:8000/v1 is no URL of an endpoint; write http://host:port/v1"),
        ("localhost", "localhost is no URL of an endpoint; write http://host:port/v1"),
        ("ftp://host/v1", "ftp://host/v1 is no URL of an endpoint"),
        ("http://", "http:// is no URL of an endpoint"),
        ("http://\x1b[2J", "http://\\x1b[2J is no URL"),
        ("", " is no URL of an endpoint"),
        ("http://host:99999/v1", "http://host:99999/v1 is no URL of an endpoint"),
    ],
)
def test_addresses_that_are_none(address: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Endpoint(address)
    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"attempts": 0}, {"timeout": 0}, {"timeout": float("nan")}])
def test_numbers_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="at least 1"):
        Endpoint("http://host/v1", **options)


def test_several_models(httpserver: HTTPServer) -> None:
    Script(httpserver, write("hello"), models={"data": [{"id": "llama-base"}, {"id": "llama-chat\x1b[2J"}, {"id": 7}, "x"]})
    with pytest.raises(InputError, match=r"serves 2 models, name one of them: llama-base, llama-chat\\x1b\[2J$"):
        reach(httpserver)
    made = reach(httpserver, model="llama-base")
    assert made.name == "llama-base"
    assert made.identity["model"] == "llama-base"
    with pytest.raises(InputError, match=r"serves no model 'lama-base'; did you mean llama-base\? it serves: llama-base, "):
        reach(httpserver, model="lama-base")


@pytest.mark.parametrize("listed", [{"data": []}, {"data": None}, {"models": []}, {"data": [{"id": ""}]}, {"data": [{"name": "m"}]}])
def test_a_list_of_models_that_is_none(httpserver: HTTPServer, listed: Any) -> None:
    Script(httpserver, write("hello"), models=listed)
    with pytest.raises(
        InputError, match=r"/v1 does not speak the OpenAI protocol: GET .*/v1/models: there is no list of models in the answer"
    ):
        reach(httpserver)


def test_a_web_page_is_no_endpoint(httpserver: HTTPServer, waits: list[float]) -> None:
    httpserver.expect_request(re.compile(".*")).respond_with_data("<html>welcome</html>", content_type="text/html")
    with pytest.raises(
        InputError, match=r"does not speak the OpenAI protocol: GET .*: the answer is not JSON, or was cut off; it begins with '<html>"
    ):
        reach(httpserver, waits)


def test_an_endpoint_that_lists_no_models(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/v1/models").respond_with_data("no", 404)
    httpserver.expect_request("/v1/completions").respond_with_json(echo({"prompt": "".join(module._PROBE), "max_tokens": 0}))
    said: list[str] = []
    made = reach(httpserver, model="m", say=said.append)
    assert made.facts["listed"] is False
    assert said == [f"{httpserver.url_for('/v1')} lists no models; m is asked for unseen"]
    with pytest.raises(InputError, match="does not speak the OpenAI protocol"):
        reach(httpserver)


@pytest.mark.parametrize("limit", ["4096", -1, 0, True, None, 1.5])
def test_a_context_that_is_none(httpserver: HTTPServer, limit: Any) -> None:
    Script(httpserver, write("hello"), models={"data": [{"id": "m", "max_model_len": limit}]})
    assert reach(httpserver).context is None


# -- keys -------------------------------------------------------------------------------------------------------------------------


def authorization(script: Script) -> str | None:
    return script.headers[-1].get("Authorization")


def test_a_key_of_ours_is_sent(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(httpserver, write("hello"))
    monkeypatch.setenv("ALIGNTAX_API_KEY", f"{KEY}\n")
    made = reach(httpserver)
    list(made.generate([WRITE]))
    assert authorization(script) == f"Bearer {KEY}"
    assert KEY not in f"{dict(made.identity)} {dict(made.facts)} {made!r} {made.name} {vars(made)}"


def test_a_key_of_openai_goes_to_nobody_else(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(httpserver, write("hello"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    list(reach(httpserver).generate([WRITE]))
    assert authorization(script) is None
    with pytest.raises(
        InputError, match=r"OPENAI_API_KEY goes to https://api\.openai\.com only; put the key for localhost into ALIGNTAX_API_KEY"
    ):
        reach(httpserver, key_env="OPENAI_API_KEY")
    for near in ("http://api.openai.com/v1", "https://api.openai.com.example/v1", "https://xapi.openai.com/v1"):
        assert wire.Wire(near).key() == ("ALIGNTAX_API_KEY", None)
    assert wire.Wire("https://API.openai.com/v1").key() == ("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ALIGNTAX_API_KEY", "ours")
    assert wire.Wire("https://api.openai.com/v1").key() == ("ALIGNTAX_API_KEY", "ours")


def test_a_key_of_another_name(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Script(httpserver, write("hello"))
    monkeypatch.setenv("ALIGNTAX_API_KEY", "ours-and-not-theirs")
    with pytest.raises(InputError, match="the environment variable THEIR_KEY, which was named for the key, is empty or not set"):
        reach(httpserver, key_env="THEIR_KEY")
    monkeypatch.setenv("THEIR_KEY", KEY)
    list(reach(httpserver, key_env="THEIR_KEY").generate([WRITE]))
    assert authorization(script) == f"Bearer {KEY}"


@pytest.mark.parametrize("key", ["sk-secret two", "sk-secret\x00", "sk-sécret", "sk-secret\nX-Header: 1"])
def test_a_key_that_is_none_is_not_shown(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    environment = {**os.environ, "ALIGNTAX_API_KEY": key}
    monkeypatch.setattr(wire.os, "environ", environment)
    with pytest.raises(InputError, match="the environment variable ALIGNTAX_API_KEY holds no key") as caught:
        Endpoint("http://host/v1")
    assert "cret" not in str(caught.value)


def test_a_key_that_is_refused_is_not_shown(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNTAX_API_KEY", KEY)
    httpserver.expect_request("/v1/models").respond_with_json({"error": {"message": f"Incorrect key: {KEY}"}}, 401)
    with pytest.raises(InputError, match=r"the key in ALIGNTAX_API_KEY is refused \(the endpoint answered 401: Incorrect key: \[key\]\)"):
        reach(httpserver)
    with pytest.raises(InputError, match=r"the key in ALIGNTAX_API_KEY is refused"):
        reach(httpserver, path="/")


def test_a_probe_that_wants_a_key(httpserver: HTTPServer) -> None:
    Script(httpserver, write("hello"), probe=lambda _: refuse(401, "who?"))
    with pytest.raises(InputError, match="it wants a key, and there is none in ALIGNTAX_API_KEY"):
        reach(httpserver)


def test_a_key_over_plain_http_is_said(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(httpserver, write("hello"))
    monkeypatch.setenv("ALIGNTAX_API_KEY", KEY)
    said: list[str] = []
    reach(httpserver, say=said.append)
    assert said == []
    monkeypatch.setattr(module, "is_local", lambda _: False)
    reach(httpserver, say=said.append)
    assert said == ["the key goes to localhost unencrypted; use https"]


def test_a_proxy_is_for_hosts_elsewhere(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Script(httpserver, write("hello"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert list(reach(httpserver).generate([WRITE])) == [(0, Generated("hello", "stop", None))]


def test_a_proxy_is_asked_for_hosts_elsewhere(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(request: WebRequest) -> Response:
        asked.append(f"{request.method} {request.environ['HTTP_HOST']} {request.path}")
        return Response('{"data": [{"id": "m"}]}', content_type="application/json")

    httpserver.expect_request(re.compile(".*")).respond_with_handler(answer)
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"localhost:{httpserver.port}")
    monkeypatch.setenv("NO_PROXY", "near.invalid")
    monkeypatch.setenv("no_proxy", "near.invalid")
    assert once("http://far.invalid/v1") == {"data": [{"id": "m"}]}
    assert asked == ["GET far.invalid /v1/models"]
    with pytest.raises(wire.NoAnswerError, match="the connection failed"):
        once("http://near.invalid/v1")
    assert len(asked) == 1


def once(url: str) -> Any:
    there = wire.Wire(url)

    async def work() -> Any:
        async with there.call(lambda _: None) as call:
            return await there.once(call, "GET", f"{url}/models", None)

    return asyncio.run(work())


def test_cookies_are_not_kept(httpserver: HTTPServer) -> None:
    sent: list[bool] = []

    def answer(request: WebRequest) -> Response:
        sent.append("Cookie" in request.headers)
        return Response("{}", headers={"Set-Cookie": "who=you; Path=/"}, content_type="application/json")

    httpserver.expect_request("/v1/models").respond_with_handler(answer)
    there = wire.Wire(httpserver.url_for("/v1"))

    async def work() -> None:
        async with there.call(lambda _: None) as call:
            for _ in range(2):
                await there.once(call, "GET", f"{there.url}/models", None)

    asyncio.run(work())
    assert sent == [False, False]


def test_the_first_error_of_many_tasks_is_raised() -> None:
    async def fails(name: str) -> None:
        raise InputError(name)

    async def work(_: Callable[[Any], None]) -> None:
        async with asyncio.TaskGroup() as outer:
            async with asyncio.TaskGroup() as group:
                group.create_task(fails("the first"))
                group.create_task(fails("the second"))
            outer.create_task(fails("never"))

    with pytest.raises(InputError, match="the first"):
        list(wire.in_background(work))


def test_it_loads_no_torch() -> None:
    code = "import sys, aligntax.models.endpoint; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()).stdout.split()
    assert not {"torch", "transformers", "jinja2"} & set(loaded)
