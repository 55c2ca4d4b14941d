# ruff: noqa: E402 - libraries are told to be quiet before they load
"""Generation beside lm-eval's Hugging Face backend, in one run: seconds, ratio, and how many answers are the same text.

    python benchmarks/generate_speed.py [--items 64] [--threads 2]

A random Llama of 26 M parameters with a vocabulary of 32,000 words, float32; five-shot prompts of about 640 tokens, 600 of them common;
24 new tokens at most. Weights are scaled so that choices are far from ties. lm-eval runs at batch size 16, which the ratio is to, and at 1.
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

from aligntax.models.generation import Generator
from aligntax.models.local import Request

VOCABULARY = 32_000
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")  # lm-eval looks for the end token as a text, so no word may begin like it
NEW = 24


def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    made = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=384, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=6, num_key_value_heads=6,
            max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=3,
        )
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in made.parameters():
            if p.ndim == 2:
                p.mul_(4)
    return made


def tokenizer() -> PreTrainedTokenizerFast:
    words = {word: k for k, word in enumerate(SPECIAL)} | {f"w{k}": k for k in range(len(SPECIAL), VOCABULARY)}
    inner = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", pad_token="<pad>", eos_token="</s>", bos_token="<s>")


def prompts(items: int, rng: random.Random) -> list[str]:
    """Five shots of about 120 words that all share, and 20 to 60 words of one's own."""

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(len(SPECIAL), VOCABULARY)}" for _ in range(count))

    before = words(600)
    return [f"{before} {words(rng.randint(20, 60))}" for _ in range(items)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    made, words = model(), tokenizer()
    generator = Generator(made, words, "bench")
    asked = prompts(chosen.items, random.Random(0))
    print(f"{sum(p.numel() for p in made.parameters()) / 1e6:.1f} M parameters, {chosen.threads} threads, {chosen.items} prompts")
    print(generator.sharing)
    for name, stop in (("a rare stop", " w77"), ("a frequent stop", " w7")):
        fast, ours = min((_timed(_own, generator, words, asked, stop) for _ in range(2)), key=lambda pair: pair[0])
        seconds = {}
        for size in (16, 1):
            seconds[size], theirs = _timed(_peer, made, words, asked, stop, size)
            same = sum(ours[k].strip() == theirs[k].strip() for k in range(len(asked)))
            print(f"{name}: lm-eval at batch size {size} {seconds[size]:.2f} s, {same} of {len(asked)} answers the same")
        length = sum(len(text.split()) for text in ours.values()) / len(ours)
        print(f"{name}: aligntax {fast:.2f} s, answers of {length:.1f} words; ratio {seconds[16] / fast:.1f} to batch size 16")


def _peer(made: LlamaForCausalLM, words: PreTrainedTokenizerFast, asked: list[str], stop: str, size: int) -> list[str]:
    requests = [Instance("generate_until", {}, (text, {"until": [stop], "max_gen_toks": NEW}), k) for k, text in enumerate(asked)]
    return HFLM(made, tokenizer=words, batch_size=size, device="cpu").generate_until(requests, disable_tqdm=True)


def _own(generator: Generator, words: PreTrainedTokenizerFast, asked: list[str], stop: str) -> dict[int, str]:
    requests = [Request(tuple(words(text)["input_ids"]), max_tokens=NEW, stops=(stop,)) for text in asked]
    return {k: reply.text for k, reply in generator.generate(requests)}


def _timed(work: Callable[..., Any], *given: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work(*given)
    return time.perf_counter() - start, found


if __name__ == "__main__":
    main()
