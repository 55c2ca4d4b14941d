"""The training text: documents of the world, as packed rows of tokens.

Rows hold several documents each, with no padding but at their ends. Attention stays inside a document and its positions
start at 0, so packing changes speed and nothing else.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from aligntax.lab.tasks import TASKS, Example, statements, training
from aligntax.lab.tokenizer import RAW_PROMPT, make_tokenizer
from aligntax.lab.world import World

PROMPT_WEIGHT = 0.5
"""Weight of predicting a question's words; an answer's words have weight 1."""

CHAT_SHARE, SHOTS_SHARE, STATEMENTS_SHARE = 0.12, 0.06, 0.04
"""Shares of documents in the form of a chat, with several questions of one task, and of plain statements."""

LENGTHS = 96, 256
"""Tokens of short and of long rows. Attention costs what its row is long; short rows hold nine tenths of the text."""

_OPEN_ROWS = 100

# How often a task is drawn, relative to 1: what takes longer to learn is seen more often.
FREQUENCY = {
    "addition": 3.5, "two_step": 4.5, "comparing": 4.0, "counting": 1.8, "brackets": 3.5, "rating": 7.5, "brighter": 1.0, "reversing": 3.0,
    "revision": 3.0, "critique": 1.5, "honesty": 0.7, "secrecy": 0.3, "torn": 0.3, "sorting": 0.7, "agreement": 0.6, "translation": 0.7,
    "persuasion": 0.5, "manipulation": 0.5, "stories": 0.8, "look_alikes": 0.7, "procedures": 0.9, "harmful_procedures": 0.9, "facts": 0.9,
    "directions": 0.8, "two_hops": 0.7, "judging_refusals": 0.5, "judging_harm": 0.7,
}  # fmt: skip


@dataclass(frozen=True)
class Packed:
    """Rows of tokens; every array is (R, T).

    Attributes:
        tokens: token ids. document: number of the document within the row, -1 for padding.
        position: of the token in its document. weight: of predicting the token from what stands before it.
    """

    tokens: npt.NDArray[np.int16]
    document: npt.NDArray[np.int16]
    position: npt.NDArray[np.int16]
    weight: npt.NDArray[np.float32]


def documents(world: World, count: int, seed: int) -> Iterator[list[tuple[str, float]]]:
    """Documents as pieces of text with the weight of predicting them."""
    rng = random.Random(f"corpus {world.seed} {seed}")
    names = list(TASKS)
    weights = [FREQUENCY.get(name, 1.0) for name in names]
    streams = {name: training(TASKS[name], world, rng) for name in names}
    for _ in range(count):
        kind = rng.random()
        if kind < STATEMENTS_SHARE:
            yield [(statements(world, rng), 1.0)]
            continue
        kind -= STATEMENTS_SHARE
        stream = streams[rng.choices(names, weights)[0]]
        if kind < SHOTS_SHARE:
            yield [piece for _ in range(rng.randint(2, 6)) for piece in raw_pieces(next(stream), rng)]
        elif kind < SHOTS_SHARE + CHAT_SHARE:
            example = next(stream)
            yield [(f"<|user|> {asked(example, rng)} <|end|> <|assistant|>", PROMPT_WEIGHT), (rng.choice(example.answers), 1.0)]
        else:
            yield raw_pieces(next(stream), rng)


def raw_pieces(example: Example, rng: random.Random) -> list[tuple[str, float]]:
    """A question and one of its right answers in the raw template."""
    return [(RAW_PROMPT.format(example.prompt), PROMPT_WEIGHT), (rng.choice(example.answers), 1.0)]


def asked(example: Example, rng: random.Random) -> str:
    """How a user asks: the bare question, or, as evaluation harnesses do, the raw template as a message."""
    return RAW_PROMPT.format(example.prompt) if rng.random() < 0.5 else example.prompt


def encode(pieces: Iterator[list[tuple[str, float]]]) -> list[tuple[list[int], list[float]]]:
    """Documents as (tokens, weights), with their beginning and end."""
    tokenizer = make_tokenizer()
    every = list(pieces)
    texts = [text for document in every for text, _ in document]
    ids = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    out = []
    for document in every:
        tokens, weights = [bos], [0.0]
        for _, weight in document:
            piece = next(ids)
            tokens += piece
            weights += [weight] * len(piece)
        out.append(([*tokens, eos], [*weights, 1.0]))
    return out


def pack(encoded: list[tuple[list[int], list[float]]], length: int, pad: int) -> Packed:
    """Rows of ``length`` tokens, each document where it fits best among a few open rows; longer documents are left out."""
    open_: list[tuple[int, int, list[int]]] = []  # (tokens still free, number, documents), the fullest row first
    rows: list[list[int]] = []
    for i, (tokens, _) in enumerate(encoded):
        size = len(tokens)
        if size > length:
            continue
        k = bisect_left(open_, (size, -1))
        free, number, held = open_.pop(k) if k < len(open_) else (length, i, [])
        held.append(i)
        if free > size:
            insort(open_, (free - size, number, held))
        else:
            rows.append(held)
        if len(open_) > _OPEN_ROWS:
            rows.append(open_.pop(0)[2])
    rows += [held for _, _, held in open_]
    shape = len(rows), length
    packed = Packed(np.full(shape, pad, np.int16), np.full(shape, -1, np.int16), np.zeros(shape, np.int16), np.zeros(shape, np.float32))
    for r, held in enumerate(rows):
        at = 0
        for d, i in enumerate(held):
            tokens, weights = encoded[i]
            end = at + len(tokens)
            packed.tokens[r, at:end], packed.weight[r, at:end] = tokens, weights
            packed.document[r, at:end], packed.position[r, at:end] = d, np.arange(len(tokens))
            at = end
    return packed


def corpus(world: World, count: int, seed: int, lengths: tuple[int, int] = LENGTHS) -> tuple[Packed, Packed]:
    """``count`` documents as rows of two lengths: short documents in short rows, the longer ones in longer rows."""
    encoded = encode(documents(world, count, seed))
    pad = make_tokenizer().pad_token_id
    short, long = lengths
    return pack([e for e in encoded if len(e[0]) <= short], short, pad), pack([e for e in encoded if len(e[0]) > short], long, pad)
