"""Log-likelihood scoring beside lm-eval's Hugging Face backend, in one run: seconds, ratio, largest difference.

    python benchmarks/score_speed.py [--items 100] [--threads 2]

A random Llama of 26 M parameters with a vocabulary of 32,000 words, float32. lm-eval gets the batch size (of 1, 8, 32) that suits it best.
The machine's own rate of matrix products, measured in the same run, says how far from the limit each is.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import time
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aligntax.models.scoring import Likelihood, Query, Scorer
from aligntax.models.trees import computed, plan

VOCABULARY = 32_000


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=6,
            max_position_embeddings=2048, tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    inner = Tokenizer(models.WordLevel({f"w{k}": k for k in range(VOCABULARY)}, unk_token="w0"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0", pad_token="w1", eos_token="w2", bos_token="w3")


def questions(items: int, shots: int, rng: random.Random) -> list[tuple[str, str]]:
    """(context, answer) of four-way multiple choice: questions of 20 to 60 words, answers of 3 to 8."""

    def words(low: int, high: int) -> str:
        return " ".join(f"w{rng.randrange(4, VOCABULARY)}" for _ in range(rng.randint(low, high)))

    before = "".join(f"{words(20, 60)} {words(3, 8)} " for _ in range(shots))
    found = []
    for _ in range(items):
        asked = before + words(20, 60)
        found += [(asked, " " + words(3, 8)) for _ in range(4)]
    return found


def peak() -> float:
    """Rate of large float32 matrix products, in multiply-adds times two per second."""
    a = torch.randn(1536, 1536)
    for _ in range(3):
        a @ a
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    return 10 * 2 * 1536**3 / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    made, words = model(), tokenizer()
    body = sum(p.numel() for p in made.model.layers.parameters())
    rate = peak()
    print(
        f"{sum(p.numel() for p in made.parameters()) / 1e6:.1f} M parameters, {chosen.threads} threads, {rate / 1e9:.0f} GFLOP/s in matrix products"
    )
    for name, shots in (("five shots", 5), ("no shots", 0)):
        asked = questions(chosen.items, shots, random.Random(0))
        requests = [Instance("loglikelihood", {}, pair, k) for k, pair in enumerate(asked)]
        slow, theirs = min((_timed(_peer, made, words, requests, size) for size in (1, 8, 32)), key=lambda pair: pair[0])
        queries = [Query(tuple(words(c)["input_ids"]), tuple(words(a)["input_ids"])) for c, a in asked]
        fast, ours = min((_timed(_own, made, queries) for _ in range(2)), key=lambda pair: pair[0])
        differ = max(abs(ours[k].total - theirs[k][0]) for k in ours)
        greedy = sum(bool(ours[k].greedy.all()) != theirs[k][1] for k in ours)
        trees = plan([(*q.context, *q.continuation)[:-1] for q in queries], [len(q.context) - 1 for q in queries])
        least = (2 * body * computed(trees) + 2 * VOCABULARY * 384 * sum(len(q.continuation) for q in queries)) / rate
        print(
            f"{name}: {len(queries)} answers; lm-eval {slow:.2f} s, aligntax {fast:.2f} s, ratio {slow / fast:.1f}; largest difference {differ:.1e} nats, "
            f"{greedy} greedy flags differ; matrix products alone would take {least:.2f} s"
        )


def _peer(made: LlamaForCausalLM, words: PreTrainedTokenizerFast, requests: list[Instance], size: int) -> list[tuple[float, bool]]:
    return HFLM(made, tokenizer=words, batch_size=size, device="cpu").loglikelihood(requests, disable_tqdm=True)


def _own(made: LlamaForCausalLM, queries: list[Query]) -> dict[int, Likelihood]:
    return dict(Scorer(made, "bench").score(queries))


def _timed(work: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work(*given)
    return time.perf_counter() - start, found


if __name__ == "__main__":
    main()
