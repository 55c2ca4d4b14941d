"""What probing costs over the passes that it needs, and whether its memory grows with the number of prompts.

    python benchmarks/predict_speed.py [--model lab:base] [--prompts 512] [--rounds 5]

Bare passes are forward (and backward) through the same batches, padded alike, by transformers alone: logits at the answers' places, their log-odds, and a backward
pass to the embeddings. Probing keeps the states or gradients of all layers as well and sums them by block. Both run in turn in one process; medians of the
rounds. Memory is the largest resident size of a process of its own that reads so many prompts, less that of one that reads 32.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from aligntax.models.references import open_model, parse
from aligntax.predict.gather import Sums, example, prompt_tokens, read_gradients, read_states
from aligntax.predict.inputs import Request, capabilities
from aligntax.predict.reading import _batches
from aligntax.predict.results import Settings

TASKS = ["lab/facts", "lab/addition", "lab/stories", "lab/look_alikes", "lab/revision", "lab/rating", "lab/honesty", "lab/procedures"]


def requests(count: int) -> list[Request]:
    """So many, again and again the same ones if need be."""
    found = [one for task in capabilities(TASKS, "raw") for one in task.requests]
    return [found[(7 * n) % len(found)] for n in range(count)]


def bare_forward(model: Any, prompts: list[tuple[int, ...]]) -> None:
    for numbers, tokens, mask in _batches(model, prompts, Settings().batch_tokens):
        with torch.inference_mode():
            last = model.base_model(input_ids=tokens, attention_mask=mask, use_cache=False).last_hidden_state
            last[torch.arange(len(numbers)), mask.sum(dim=1) - 1].numpy()


def bare_backward(model: Any, head: Any, examples: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> None:
    for numbers, tokens, mask in _batches(model, [(*p, *a) for p, a in examples], Settings().batch_tokens):
        starts = torch.tensor([len(examples[n][0]) for n in numbers])
        begun = model.get_input_embeddings()(tokens).detach().requires_grad_(True)
        last = model.base_model(inputs_embeds=begun, attention_mask=mask, use_cache=False).last_hidden_state
        place = torch.arange(tokens.shape[1])
        rows, at = torch.nonzero((place >= starts[:, None] - 1) & (place < mask.sum(dim=1, keepdim=True) - 1), as_tuple=True)
        logits = head(last[rows, at]).float()
        told = logits.log_softmax(dim=-1).gather(1, tokens[rows, at + 1][:, None])
        torch.autograd.grad(told.sum(), begun)


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(name: str, count: int, rounds: int) -> None:
    model: Any = open_model(parse(name))
    for p in model.local.model.parameters():
        p.requires_grad_(False)
    rows, want = requests(count), Settings()
    layers = list(range(int(model.local.model.config.num_hidden_layers) + 1))
    blocks = np.arange(count) % 32
    prompts, examples = [prompt_tokens(model, one) for one in rows], [example(model, one, str(one.wanted)) for one in rows]

    def nothing(_done: int, _total: int) -> None:
        pass

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "states": (
            lambda: read_states(model, rows, [Sums(blocks, 32)], layers, want, nothing),
            lambda: bare_forward(model.local.model, prompts),
        ),
        "gradients": (
            lambda: read_gradients(model, rows, Sums(blocks, 32), layers, want, nothing),
            lambda: bare_backward(model.local.model, model.scorer.head, examples),
        ),
    }
    tokens = timed(lambda: [example(model, one, str(one.wanted)) for one in rows])
    for what, (probe, bare) in pairs.items():
        times = [(timed(probe), timed(bare)) for _ in range(rounds + 1)][1:]
        ours, theirs = (statistics.median(side) for side in zip(*times, strict=True))
        print(
            f"{what}: {count} prompts, probing {ours:.3f} s (of which tokenizing {tokens:.3f} s), bare passes {theirs:.3f} s: {ours / theirs:.2f} times"
        )


def peak(name: str, count: int) -> None:
    """Of this process, in MiB, after reading so many prompts."""
    model: Any = open_model(parse(name))
    layers = list(range(int(model.local.model.config.num_hidden_layers) + 1))
    rows = requests(count)
    read_states(model, rows, [Sums(np.arange(count) % 32, 32)], layers, Settings(), lambda *_: None)
    read_gradients(model, rows, Sums(np.arange(count) % 32, 32), layers, Settings(), lambda *_: None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="lab:base")
    parser.add_argument("--prompts", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak", type=int)
    asked = parser.parse_args()
    if asked.peak is not None:
        peak(asked.model, asked.peak)
        return
    measure(asked.model, asked.prompts, asked.rounds)
    sizes = {}
    for count in (32, 512, 4096):
        done = subprocess.run(
            [sys.executable, __file__, "--model", asked.model, "--peak", str(count)], capture_output=True, text=True, check=True
        )
        sizes[count] = float(done.stdout)
    print(
        "memory beyond 32 prompts: "
        + ", ".join(f"{count:,} prompts {size - sizes[32]:+.0f} MiB" for count, size in sizes.items() if count > 32)
    )


if __name__ == "__main__":
    main()
