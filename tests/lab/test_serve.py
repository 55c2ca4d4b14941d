"""The server: the protocol, and whatever a client may do to it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

import pytest

from tests.conftest import need

need("torch", "cpu")
need("transformers", "models")

import torch

from aligntax.lab.serve import MAX_BODY, Server
from aligntax.models.local import LocalModel, Request
from tests.support.random_models import random_model

PROMPT = "question: what is 1 + 2? answer:"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LocalModel:
    made = tmp_path_factory.mktemp("served")
    random_model(made, 64, 1)
    return LocalModel.load(made, "lab:test")


@pytest.fixture(scope="module")
def server(model: LocalModel) -> Iterator[Server]:
    with Server(model) as made:
        threading.Thread(target=made.serve_forever, daemon=True).start()
        yield made
        made.shutdown()


def send(server: Server, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, data, headers or {})
    answer = connection.getresponse()
    raw = answer.read()
    connection.close()
    return answer.status, json.loads(raw) if raw else None


def complete(server: Server, **body: object) -> dict[str, Any]:
    status, found = send(server, "POST", "/v1/completions", {"temperature": 0, **body})
    assert status == 200, found
    return found


def events(server: Server, path: str, body: dict[str, object]) -> list[Any]:
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("POST", path, json.dumps({**body, "stream": True}).encode())
    answer = connection.getresponse()
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/event-stream"
    lines = [line.removeprefix("data: ") for line in answer.read().decode().split("\n\n") if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


# -- the protocol ---------------------------------------------------------------------------------------------------------


def test_it_listens_on_loopback_only(server: Server) -> None:
    assert server.socket.getsockname()[0] == "127.0.0.1"
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/v1"


def test_models(server: Server) -> None:
    status, found = send(server, "GET", "/v1/models")
    assert status == 200
    assert [m["id"] for m in found["data"]] == ["lab:test"]
    assert send(server, "GET", "/v1/models/lab:test")[0] == 200
    assert send(server, "GET", "/health") == (200, {"status": "ok"})


def test_a_completion_is_what_the_model_says(server: Server, model: LocalModel) -> None:
    (wanted,) = model.generate([Request(model.encode(PROMPT), max_tokens=8)])
    found = complete(server, prompt=PROMPT, max_tokens=8, model="lab:test")
    assert found["object"] == "text_completion"
    assert found["choices"] == [{"index": 0, "text": wanted.text, "logprobs": None, "finish_reason": wanted.reason}]
    prompt = len(model.encode(PROMPT))
    assert found["usage"] == {"prompt_tokens": prompt, "completion_tokens": 8, "total_tokens": prompt + 8}
    assert complete(server, prompt=list(model.encode(PROMPT)), max_tokens=8)["choices"] == found["choices"]


@pytest.mark.parametrize(("asked", "answers"), [({}, "lab:test"), ({"model": "test"}, "test"), ({"model": "lab:test"}, "lab:test")])
def test_it_answers_by_the_name_that_was_asked(server: Server, asked: dict[str, str], answers: str) -> None:
    assert complete(server, prompt=PROMPT, max_tokens=1, **asked)["model"] == answers
    spoken = send(server, "POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, **asked})[1]
    assert spoken["model"] == answers


def test_lists_of_prompts_and_several_replies(server: Server, model: LocalModel) -> None:
    prompts = [PROMPT, "sort: 3 1 2 0"]
    found = complete(server, prompt=prompts, max_tokens=5, n=2, temperature=1, seed=4)["choices"]
    assert [c["index"] for c in found] == [0, 1, 2, 3]
    again = complete(server, prompt=prompts, max_tokens=5, n=2, temperature=1, seed=4)["choices"]
    assert found == again
    assert found[0]["text"] != found[1]["text"]
    ids = [list(model.encode(p)) for p in prompts]
    assert complete(server, prompt=ids, max_tokens=5, n=2, temperature=1, seed=4)["choices"] == found


def test_log_probabilities_with_echo_are_scores(server: Server, model: LocalModel) -> None:
    ids = model.encode(PROMPT)
    (scored,) = model.score([ids], top=2)
    found = complete(server, prompt=PROMPT, max_tokens=1, echo=True, logprobs=2)["choices"][0]
    told = found["logprobs"]
    assert told["token_logprobs"][0] is None
    assert told["token_logprobs"][1 : len(ids)] == pytest.approx([t.logprob for t in scored], abs=1e-4)
    assert len(told["tokens"]) == len(told["top_logprobs"]) == len(told["text_offset"]) == len(ids) + 1
    for token, top, row in zip(told["tokens"][1:-1], told["top_logprobs"][1:-1], scored, strict=True):
        assert len(top) in (2, 3)  # the token itself is always among them
        assert token in top
        assert (max(top, key=top.get) == token) == (row.top[0][0] == row.id)
    only = complete(server, prompt=PROMPT, max_tokens=0, echo=True, logprobs=1)["choices"][0]["logprobs"]
    assert only["token_logprobs"][1:] == pytest.approx([t.logprob for t in scored], abs=1e-4)


def test_chat_uses_the_template(server: Server, model: LocalModel) -> None:
    messages = [{"role": "system", "content": "be honest"}, {"role": "user", "content": "what is 1 + 2?"}]
    (wanted,) = model.generate([Request(model.encode_chat(messages), max_tokens=6)])
    status, found = send(
        server,
        "POST",
        "/v1/chat/completions",
        {"messages": messages, "max_tokens": 6, "temperature": 0, "logprobs": True, "top_logprobs": 3},
    )
    assert status == 200
    choice = found["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": wanted.text}
    content = choice["logprobs"]["content"]
    assert [t["logprob"] for t in content] == pytest.approx([t.logprob for t in wanted.tokens], abs=1e-4)
    assert all(len(t["top_logprobs"]) == 3 and t["token"] == t["top_logprobs"][0]["token"] for t in content)
    assert all(bytes(t["bytes"]).decode() == t["token"] for t in content)


def test_streams_say_the_same(server: Server) -> None:
    whole = complete(server, prompt=PROMPT, max_tokens=12)["choices"][0]
    chunks = events(
        server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stream_options": {"include_usage": True}}
    )
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == whole["text"]
    assert chunks[-2]["choices"][0]["finish_reason"] == whole["finish_reason"]
    assert chunks[-1]["usage"]["completion_tokens"] == 12
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 9, "temperature": 0}
    _, whole = send(server, "POST", "/v1/chat/completions", chat)
    deltas = [c["choices"][0]["delta"] for c in events(server, "/v1/chat/completions", chat)]
    assert deltas[0]["role"] == "assistant"
    assert "".join(d.get("content", "") for d in deltas) == whole["choices"][0]["message"]["content"]


def test_a_stop_is_never_streamed_in_part(server: Server) -> None:
    text = complete(server, prompt=PROMPT, max_tokens=12)["choices"][0]["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 6]
    wanted = text[: text.index(stop)]
    chunks = events(server, "/v1/completions", {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, "stop": [stop]})
    assert "".join(c["choices"][0]["text"] for c in chunks) == wanted
    assert complete(server, prompt=PROMPT, max_tokens=12, stop=stop)["choices"][0]["text"] == wanted


# -- whatever a client may do -----------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str, object, int, str]] = {
    "unknown path": ("/v1/embeddings", {"input": "x"}, 404, "there is nothing at"),
    "path that climbs": ("/v1/../../etc/passwd", {}, 404, "there is nothing at"),
    "not json": ("/v1/completions", b"{nope", 400, "not JSON"),
    "not utf-8": ("/v1/completions", b"\xff\xfe", 400, "not JSON"),
    "deep json": ("/v1/completions", b"[" * 100_000, 400, "not JSON"),
    "a list": ("/v1/completions", [1], 400, "the body:"),
    "no prompt": ("/v1/completions", {}, 400, "prompt"),
    "empty prompts": ("/v1/completions", {"prompt": []}, 400, "prompt"),
    "mixed prompts": ("/v1/completions", {"prompt": ["a", 1]}, 400, "prompt"),
    "tokens out of range": ("/v1/completions", {"prompt": [5, 9999]}, 400, "token ids go from 0 to"),
    "negative tokens": ("/v1/completions", {"prompt": [-1]}, 400, "token ids go from 0"),
    "too long": ("/v1/completions", {"prompt": "salt " * 400}, 400, "takes at most 255"),
    "no tokens wanted": ("/v1/completions", {"prompt": "a", "max_tokens": 0}, 400, "with echo only"),
    "negative max_tokens": ("/v1/completions", {"prompt": "a", "max_tokens": -3}, 400, "max_tokens"),
    "nan temperature": ("/v1/completions", b'{"prompt": "a", "temperature": NaN}', 400, "temperature"),
    "too many": ("/v1/completions", {"prompt": "a", "n": 100_000}, 400, "n: "),
    "unknown parameter": ("/v1/completions", {"prompt": "a", "guided_json": {}}, 400, "guided_json"),
    "unsupported penalty": ("/v1/completions", {"prompt": "a", "presence_penalty": 1.5}, 400, "presence_penalty"),
    "another model": ("/v1/completions", {"prompt": "a", "model": "gpt"}, 404, "this is lab:test"),
    "no messages": ("/v1/chat/completions", {"messages": []}, 400, "messages"),
    "unknown role": ("/v1/chat/completions", {"messages": [{"role": "root", "content": "x"}]}, 400, "messages.0.role"),
    "content of parts": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
        400,
        "messages.0.content",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests_are_refused_in_words(server: Server, name: str) -> None:
    path, body, code, words = BAD[name]
    status, found = send(server, "POST", path, body)
    assert status == code
    assert words in found["error"]["message"]
    assert "\x1b" not in found["error"]["message"]
    assert complete(server, prompt=PROMPT, max_tokens=1)["choices"]


def test_wrong_methods_and_huge_bodies(server: Server) -> None:
    assert send(server, "PUT", "/v1/completions", {})[0] == 405
    assert send(server, "GET", "/")[0] == 404
    assert send(server, "POST", "/v1/completions", b"", {"Content-Length": "0"})[0] == 400
    with socket.create_connection(server.server_address[:2], timeout=30) as raw:
        raw.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode())
        assert b" 413 " in raw.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(server.server_address[:2], timeout=30) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        assert b" 411 " in raw.recv(4096).split(b"\r\n")[0]
    with socket.create_connection(server.server_address[:2], timeout=30) as raw:
        raw.sendall(b"\x16\x03\x01 nonsense \x00\r\n\r\n")
        assert b"400" in raw.recv(4096)
    assert complete(server, prompt=PROMPT, max_tokens=1)["choices"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::ffff:10.0.0.1]:80"])
def test_a_page_under_another_name_is_refused(server: Server, host: str) -> None:
    status, found = send(server, "GET", "/v1/models", headers={"Host": host})
    assert status == 403
    assert "loopback only" in found["error"]["message"]


def test_clients_that_hang_up_disturb_nobody(server: Server) -> None:
    body = json.dumps({"prompt": PROMPT, "max_tokens": 200, "temperature": 1, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for sent in (head[:20], head, head + body[:10], head + body):
        for _ in range(5):
            raw = socket.create_connection(server.server_address[:2], timeout=30)
            raw.sendall(sent)
            raw.close()
    assert complete(server, prompt=PROMPT, max_tokens=2)["choices"]


def test_many_clients_at_once_get_their_own_answers(server: Server) -> None:
    prompts = [f"question: what is {i} + {j}? answer:" for i in range(8) for j in range(8)]
    alone = [complete(server, prompt=p, max_tokens=6)["choices"][0]["text"] for p in prompts]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(64) as pool:
        together = list(pool.map(lambda p: complete(server, prompt=p, max_tokens=6)["choices"][0]["text"], prompts))
    assert together == alone


def test_keys_are_not_wanted_and_not_told(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert send(server, "GET", "/v1/models", headers={"Authorization": "Bearer sk-secret"})[0] == 200
    assert "sk-secret" not in "".join(capfd.readouterr())


def test_a_prompt_that_is_complete_still_gets_one_token_with_its_logprob(
    server: Server, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evaluation harnesses score a text by echoing it with one more token, and cut that one off, whatever it is."""
    monkeypatch.setattr(model, "ends", set(range(len(model.tokenizer))))
    status, found = send(
        server, "POST", "/v1/completions", {"prompt": "the river of galt", "max_tokens": 1, "logprobs": 1, "echo": True, "temperature": 0}
    )
    assert status == 200
    choice = found["choices"][0]
    assert choice["finish_reason"] == "stop"
    assert choice["text"] == "the river of galt"
    assert len(choice["logprobs"]["token_logprobs"]) == len(model.encode("the river of galt")) + 1
    assert found["usage"]["completion_tokens"] == 1


def test_an_echo_is_the_prompt_as_given_and_offsets_point_into_it(server: Server, model: LocalModel) -> None:
    prompt = "question:  what is the River of Galt?   answer:"
    choice = complete(server, prompt=prompt, max_tokens=4, logprobs=1, echo=True)["choices"][0]
    assert choice["text"].startswith(prompt)
    told = choice["logprobs"]
    count = len(model.encode(prompt))
    for token, start in zip(told["tokens"][1:count], told["text_offset"][1:count], strict=True):
        assert prompt[start:].lower().startswith(token.strip())
    alone = complete(server, prompt=prompt, max_tokens=4, logprobs=1)["choices"][0]
    assert choice["text"] in (prompt + alone["text"], prompt + " " + alone["text"])
    assert alone["logprobs"]["text_offset"][0] == 0
    for token, start in zip(told["tokens"][count:], told["text_offset"][count:], strict=True):
        assert choice["text"][start:].lstrip().startswith(token.strip())
    ids = complete(server, prompt=list(model.encode(prompt)), max_tokens=0, logprobs=1, echo=True)["choices"][0]
    assert len(ids["logprobs"]["text_offset"]) == count
    assert max(ids["logprobs"]["text_offset"]) < len(ids["text"])


def test_each_of_several_streamed_replies_begins_with_its_role(server: Server) -> None:
    body = {"messages": [{"role": "user", "content": "what is 1 + 2?"}], "n": 3, "stream": True, "max_tokens": 3, "seed": 1}
    connection = HTTPConnection("127.0.0.1", server.server_address[1], timeout=60)
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    lines = connection.getresponse().read().decode().splitlines()
    events = [json.loads(line[6:])["choices"][0] for line in lines if line.startswith("data: {")]
    first = {}
    for event in events:
        first.setdefault(event["index"], event["delta"])
    assert sorted(first) == [0, 1, 2]
    assert all(delta.get("role") == "assistant" for delta in first.values())
    assert sum("role" in event["delta"] for event in events) == 3
    assert lines[-2] == "data: [DONE]"


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/completions", {"prompt": "a", "stream": True, "logprobs": 1}, "a stream carries neither"),
        ("/v1/completions", {"prompt": "a", "stream": True, "echo": True}, "a stream carries neither"),
        ("/v1/completions", {"prompt": ["a"] * 200, "n": 100}, "too many: at most 512"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, "top_logprobs needs logprobs"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "stream": True, "logprobs": True}, "a stream carries no"),
    ],
)
def test_what_would_be_dropped_is_refused(server: Server, path: str, body: dict, message: str) -> None:
    status, found = send(server, "POST", path, body)
    assert status == 400
    assert message in found["error"]["message"]


def test_one_request_that_fails_does_not_fail_its_company(server: Server, model: LocalModel, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model._choose

    def choose(logprobs: torch.Tensor, request: Request, draws: torch.Generator) -> int:
        if request.seed == 666:
            raise RuntimeError("broken")
        return whole(logprobs, request, draws)

    monkeypatch.setattr(model, "_choose", choose)
    body = {"prompt": "what is 1 + 2?", "max_tokens": 3, "temperature": 1}
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda seed: send(server, "POST", "/v1/completions", {**body, "seed": seed})[0], [1, 2, 666, 3, 4, 666, 5, 6])
        )
    assert found == [200, 200, 500, 200, 200, 500, 200, 200]


def test_a_closed_server_leaves_no_thread(model: LocalModel) -> None:
    before = threading.active_count()
    for _ in range(3):
        with Server(model) as made:
            thread = made.engine._thread
        thread.join(timeout=10)
        assert not thread.is_alive()
    assert threading.active_count() <= before
