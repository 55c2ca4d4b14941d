# ruff: noqa: E402 - libraries are told to be quiet before they load
"""How true the clock is: one model against itself, asked in turn and one after the other; beside transformers' own decoding; and what intervals cost.

    python benchmarks/latency_speed.py [--prompts 40] [--rounds 3]

The model is lab:base on the processor, with one thread. In turn the median ratio of the two equal arms should be 1, and its interval hold it.
One after the other it holds whatever the machine did meanwhile. transformers' ``generate`` is timed with a streamer, on the same prompts, for the
same tokens.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")

import numpy as np
import torch

from aligntax.core.asks import GenerateAsk
from aligntax.core.study import Elicitation
from aligntax.flow.collect import plan_arm
from aligntax.flow.latency import orders
from aligntax.models.references import open_model, parse
from aligntax.models.timing import Timed, stopwatch
from aligntax.stats.quantiles import LARGE, latency_details
from aligntax.tasks.find import find_tasks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    model: Any = open_model(parse("lab:base"), device="cpu")
    watch = stopwatch(model)
    assert watch is not None
    tasks = [(task, chosen.prompts) for task in find_tasks(["lab/persuasion"], ())]
    asks = [a for a in plan_arm("base", model, Elicitation(), tasks).requests.values() if isinstance(a, GenerateAsk)]
    for ask in asks[:3]:
        watch(ask)

    def seconds(ask: GenerateAsk) -> float:
        found = watch(ask)
        assert isinstance(found, Timed)
        return found.total

    turns = np.empty((2, chosen.rounds, len(asks)))
    order = orders(2, chosen.rounds * len(asks), np.random.default_rng(0))
    for r in range(chosen.rounds):
        for k, ask in enumerate(asks):
            for arm in next(order):
                turns[arm, r, k] = seconds(ask)
    blocks = np.array([[[seconds(ask) for ask in asks] for _ in range(chosen.rounds)] for _ in range(2)])
    print(f"{len(asks)} prompts, {chosen.rounds} rounds, one model twice; median ratio of an answer's time, 95 % interval")
    for name, taken in (("in turn", turns), ("one after the other", blocks)):
        base, cand = np.median(taken, axis=1)
        found = latency_details(base, cand, None, 0.95, np.random.default_rng(1))
        print(f"  {name:20s} {found['median_ratio']:.4f} {[round(x, 4) for x in found['median_ratio_ci']]}")

    ours, theirs = [], []
    for ask in asks:
        found = watch(ask)
        assert isinstance(found, Timed)
        if found.per_token is not None and found.first is not None:
            first, per_token = streamed(model, ask, found.tokens or 0)
            ours.append((found.first, found.per_token))
            theirs.append((first, per_token))
    a, b = np.median(ours, axis=0) * 1e3, np.median(theirs, axis=0) * 1e3
    print(f"first token {a[0]:.2f} ms, transformers' generate {b[0]:.2f} ms; per token {a[1]:.2f} ms, {b[1]:.2f} ms")

    rng = np.random.default_rng(2)
    for n in (50, 200, 1000, LARGE, LARGE + 1, 200_000):
        base = rng.lognormal(size=n)
        begun = time.perf_counter()
        latency_details(base, base * rng.lognormal(0, 0.3, n), None, 0.95, rng)
        print(f"details of {n:,} pairs: {time.perf_counter() - begun:.3f} s")


class Clock:
    """A streamer that notes when tokens come; the first call brings the prompt."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def put(self, _value: object) -> None:
        self.times.append(time.perf_counter())

    def end(self) -> None:
        """Nothing is left to be said."""


def streamed(model: Any, ask: GenerateAsk, tokens: int) -> tuple[float, float]:
    """Seconds to the first token and per token after it."""
    clock = Clock()
    ids = torch.tensor([ask.prompt.tokens])
    begun = time.perf_counter()
    with torch.inference_mode():
        model.local.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            streamer=clock,
            do_sample=False,
            min_new_tokens=tokens,
            max_new_tokens=tokens,
            pad_token_id=0,
        )
    return clock.times[1] - begun, (clock.times[-1] - clock.times[1]) / (len(clock.times) - 2)


if __name__ == "__main__":
    main()
