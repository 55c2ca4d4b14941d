"""What divergences over the whole vocabulary cost: two models compared token by token beside the same two models merely scored.

    python benchmarks/divergence_speed.py [--items 100] [--threads 2]

Two random Llamas of 26 M parameters with a vocabulary of 32,000 words in float32, as in score_speed.py, on four-way multiple choice. Prints
seconds (the least of three turns, both ways by turns in one process), their ratio (1.25 at most is wanted), and by how much each raised
the peak of resident memory, in a process of its own.
"""

from __future__ import annotations

import argparse
import random
import time
from multiprocessing import get_context
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from aligntax.models.divergence import divergences
from aligntax.models.scoring import Query, Scorer

VOCABULARY = 32_000
TARGET = 1.25


def scorer(seed: int) -> Scorer:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=6,
        max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    return Scorer(LlamaForCausalLM(config).eval(), f"random {seed}")


def questions(items: int, shots: int) -> list[Query]:
    """Questions of 20 to 60 tokens with four answers of 3 to 8, after shots that all share."""
    rng = random.Random(0)

    def words(low: int, high: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, VOCABULARY) for _ in range(rng.randint(low, high)))

    before = tuple(token for _ in range(shots) for token in (*words(20, 60), *words(3, 8)))
    contexts = [(*before, *words(20, 60)) for _ in range(items)]
    return [Query(context, words(3, 8)) for context in contexts for _ in range(4)]


def score(a: Scorer, b: Scorer, queries: list[Query]) -> None:
    dict(a.score(queries))
    dict(b.score(queries))


def compare(a: Scorer, b: Scorer, queries: list[Query]) -> None:
    dict(divergences(a, b, queries))


WAYS = {"scored": score, "compared": compare}


def seconds(items: int, shots: int, turns: int = 3) -> dict[str, float]:
    """The least of some turns, by way."""
    a, b, queries = scorer(0), scorer(1), questions(items, shots)
    found = dict.fromkeys(WAYS, float("inf"))
    for _ in range(turns):
        for name, work in WAYS.items():
            start = time.perf_counter()
            work(a, b, queries)
            found[name] = min(found[name], time.perf_counter() - start)
    return found


def growth(way: str, items: int, shots: int, threads: int) -> float:
    """MiB by which the peak of this process passes what it holds before the work."""
    torch.set_num_threads(threads)
    a, b, queries = scorer(0), scorer(1), questions(items, shots)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew; getrusage's would be that of making the models
    before = held("VmRSS")
    WAYS[way](a, b, queries)
    return held("VmHWM") - before


def held(what: str) -> float:
    """MiB of resident memory of this process: now (``VmRSS``), or at its peak (``VmHWM``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(what))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    for name, shots in (("five shots", 5), ("no shots", 0)):
        queries = questions(chosen.items, shots)
        taken = seconds(chosen.items, shots)
        with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            grown = {way: pool.apply(growth, (way, chosen.items, shots, chosen.threads)) for way in WAYS}
        ratio = taken["compared"] / taken["scored"]
        print(
            f"{name}: {len(queries)} answers, {sum(len(q.continuation) for q in queries)} tokens, {chosen.threads} threads; both scored "
            f"{taken['scored']:.2f} s, both compared {taken['compared']:.2f} s, ratio {ratio:.2f} (at most {TARGET} is wanted); peak memory "
            f"grew by {grown['scored']:.0f} MiB and {grown['compared']:.0f} MiB"
        )


if __name__ == "__main__":
    main()
