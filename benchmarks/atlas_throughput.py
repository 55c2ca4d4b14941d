"""How many calls a second an atlas run makes, against bare httpx2 and Inspect AI, on one loopback server with a fixed latency.

    python benchmarks/atlas_throughput.py [--calls 11520] [--latency 0.05] [--in-flight 64] [--inspect 1000]

The server answers every chat completion with "0.47" after the latency; it runs in a process of its own. At most in_flight / latency calls a second are
possible. Ours is the whole command's work: requests, attempts, the raw log on disk, parsing, ratings.csv. Inspect AI is a whole evaluation of as many samples as
--inspect says, without its display and score logs of its own making left as they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

BODY = {
    "id": "x",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "usage": {"prompt_tokens": 90, "completion_tokens": 4, "total_tokens": 94},
}


def serve(port_box: multiprocessing.Queue, latency: float) -> None:  # type: ignore[type-arg]
    choice = {"index": 0, "message": {"role": "assistant", "content": "0.47"}, "finish_reason": "stop"}
    data = json.dumps({**BODY, "choices": [choice]}).encode()
    models = json.dumps({"object": "list", "data": [{"id": "m", "object": "model"}]}).encode()

    def answer(body: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                if head.startswith(b"GET"):
                    writer.write(answer(models))
                    continue
                await asyncio.sleep(latency)
                writer.write(answer(data))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(client, "127.0.0.1", 0)
        port_box.put(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


def ours(port: int, calls: int, in_flight: int, folder: Path) -> float:
    from aligntax.atlas.pairs import Pair, pair_set
    from aligntax.atlas.protocol import Plan, Protocol
    from aligntax.atlas.roster import Rater, Roster
    from aligntax.atlas.run import collect, finish, planned

    repeats = max(1, calls // (96 * 2 * 3))
    texts = (
        "Oral accounts of a harvest keep the order of its days well.",
        "An account of a harvest that is told loses the order of its days.",
    )
    pairs = pair_set([Pair(f"p{i}", "clash", None, f"{texts[0]} ({i})", texts[1], None) for i in range(96)], "bench")
    rater = Rater(model=f"api:http://127.0.0.1:{port}/v1#m", concurrency=in_flight)
    begun = time.perf_counter()
    run = planned(folder, Plan(Protocol(repeats=repeats), pairs), Roster(models={"m": rater}))
    collect(run, lambda *_: None)
    finish(run)
    seconds = time.perf_counter() - begun
    total = sum(map(len, run.calls.values()))
    assert len(run.done) == total
    return total / seconds


def bare(port: int, calls: int, in_flight: int) -> float:
    import httpx2

    async def work() -> float:
        limits = httpx2.Limits(max_connections=in_flight)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", limits=limits, timeout=60, trust_env=False) as client:
            todo = iter(range(calls))
            body = {
                "model": "m",
                "messages": [{"role": "user", "content": "How alike are these? " * 12}],
                "temperature": 1,
                "max_tokens": 16,
            }

            async def worker() -> None:
                for _ in todo:
                    (await client.post("/v1/chat/completions", json=body)).json()

            begun = time.perf_counter()
            await asyncio.gather(*(worker() for _ in range(in_flight)))
            return calls / (time.perf_counter() - begun)

    return asyncio.run(work())


def inspect(port: int, calls: int, in_flight: int, folder: Path) -> float:
    os.environ |= {"BENCH_BASE_URL": f"http://127.0.0.1:{port}/v1", "BENCH_API_KEY": "none", "INSPECT_LOG_DIR": str(folder)}
    import inspect_ai
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.scorer import match
    from inspect_ai.solver import generate

    task = inspect_ai.Task(
        MemoryDataset([Sample(input=f"How alike are these? {i}", target="0.47") for i in range(calls)]), solver=generate(), scorer=match()
    )
    begun = time.perf_counter()
    (log,) = inspect_ai.eval(task, model="openai-api/bench/m", max_connections=in_flight, max_samples=in_flight, display="none")
    assert log.status == "success", log.error
    return calls / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--calls", type=int, default=11_520)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--inspect", type=int, default=1_000)
    chosen = parser.parse_args()
    box: multiprocessing.Queue = multiprocessing.Queue()  # type: ignore[type-arg]
    server = multiprocessing.Process(target=serve, args=(box, chosen.latency), daemon=True)
    server.start()
    port, most = box.get(), chosen.in_flight / chosen.latency
    with tempfile.TemporaryDirectory() as folder:
        found = {"aligntax atlas run": ours(port, chosen.calls, chosen.in_flight, Path(folder) / "run")}
        found["bare httpx2"] = bare(port, chosen.calls, chosen.in_flight)
        if chosen.inspect and find_spec("openai") is None:
            print("Inspect AI is left out: it asks endpoints through the package openai, which is not installed")
        elif chosen.inspect:
            found["Inspect AI"] = inspect(port, chosen.inspect, chosen.in_flight, Path(folder) / "inspect")
    server.terminate()
    for name, rate in found.items():
        print(f"{name:20s} {rate:8.0f} calls/s  {100 * rate / most:5.1f} % of what the latency allows")
    if "Inspect AI" in found:
        print(
            f"ours is {found['aligntax atlas run'] / found['Inspect AI']:.1f} times Inspect AI, {found['aligntax atlas run'] / found['bare httpx2']:.2f} of bare httpx2"
        )


if __name__ == "__main__":
    main()
