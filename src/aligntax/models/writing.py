"""Replies as they are written (imports torch): how a token is chosen, and when a reply has ended, whatever computes the logits.

The rules are those of ``LocalModel.generate``: at a temperature of 0 the most likely token, else a draw from the request's own generator;
stops are texts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from aligntax.core.words import printable
from aligntax.models.local import COLD, LocalModel, Reply, Request, Token, alternatives, choose

LOGITS = 2**24
"""Logits computed at once: 64 MiB in float32."""
_ABREAST = 256
"""Requests decoded at once at most: beyond it nothing is gained, and every first answer waits longer."""
_WINDOW = 32
"""Tokens at a reply's end that are decoded at every token to look for stops; up to twice as many, more where text does not come apart."""
_NEAR = 24
"""Characters that a window keeps besides as many as the longest stop has: further than any tokenizer looks back."""


class Watch:
    """The first stop in a text that grows token by token.

    The rule is ``LocalModel``'s: all tokens are decoded after every token, and the first time that a stop is in the text, it ends there,
    cut at the earliest stop. Decoding everything every time costs the square of the length. Here a window at the end is decoded; it moves on
    only where the text after the cut is what it was before, so that no character, space or run of bytes is cut in two. What the window
    shows is believed only if the whole text has it, and at the end the whole text is looked through once more; if a stop has been missed,
    the reply is taken back to where the rule would have ended it.

    Args:
        decode: text of token ids.
        stops: texts, each of which ends the reply.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str]) -> None:
        self.decode, self.stops = decode, stops
        self.ids: list[int] = []
        self._start = 0
        self._near = max(map(len, stops), default=0) + _NEAR
        self._patience = 2 * _WINDOW  # tokens that the window has when it is next tried to move on

    def add(self, token: int) -> bool:
        """Add a token; whether the text has a stop now."""
        self.ids.append(token)
        if not self.stops:
            return False
        text = self.decode(self.ids[self._start :])
        if self._cut(text) is not None and (not self._start or self._cut(self.decode(self.ids)) is not None):
            return True
        if len(self.ids) - self._start >= self._patience:
            self._move(text)
        return False

    def settled(self) -> tuple[str, int | None]:
        """The text before the first stop, and after how many tokens that was there; None if there is none."""
        if not self.ids:
            return "", None
        first = None
        if self._start and self._cut(self.decode(self.ids[:-1])) is not None:  # the window has missed one
            first = next(n for n in range(1, len(self.ids)) if self._cut(self.decode(self.ids[:n])) is not None)
        text = self.decode(self.ids[:first])
        at = self._cut(text)
        return (text, None) if at is None else (text[:at], first or len(self.ids))

    def _cut(self, text: str) -> int | None:
        """Where the earliest stop begins."""
        return min((at for stop in self.stops if (at := text.find(stop)) >= 0), default=None)

    def _move(self, text: str) -> None:
        """Leave the first half of the window behind, if its text comes apart there."""
        start = (self._start + len(self.ids)) // 2
        tail = self.decode(self.ids[start:])
        # A replacement character may be half of a character, or stand for a run of bytes that is judged as a whole.
        if "\ufffd" not in tail and len(tail) >= self._near and text.endswith(tail):
            self._start, self._patience = start, 2 * _WINDOW
        else:
            self._patience = len(self.ids) - self._start + _WINDOW // 4


@dataclass(eq=False)
class Writing:
    """A reply being written.

    Attributes:
        number: of the request.
        ids: prompt and what was written after it; the model has not read the last one yet.
        ends: tokens that end it.
        trunk: number of the prefix that it shares, for ``benches.Benches``.
    """

    number: int
    request: Request
    ids: list[int]
    watch: Watch
    ends: set[int]
    draws: torch.Generator
    reply: Reply = field(default_factory=Reply)
    trunk: int = 0

    @property
    def most(self) -> int:
        """Tokens that prompt and reply have at most, if the context allows it."""
        return len(self.request.tokens) + self.request.max_tokens


class Writer:
    """Begins and goes on with the replies of one model.

    Attributes:
        takes: names of what the model's ``forward`` takes.
        abreast: requests that may be decoded at once.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.local = LocalModel(model, tokenizer, name)
        self.model, self.name, self.device = self.local.model, name, self.local.device
        self.config = model.config.get_text_config()
        self.local.context = self.context = int(getattr(self.config, "max_position_embeddings", None) or 2**31)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self.abreast = max(1, min(_ABREAST, LOGITS // self.vocabulary))
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model  # an adapter hides what its model takes
        self.takes = {*inspect.signature(model.forward).parameters, *inspect.signature(bare.forward).parameters}

    def begin(self, number: int, request: Request) -> Writing:
        """A reply of which nothing is written."""
        watch = Watch(self.local.decode, request.stops)
        return Writing(number, request, list(request.tokens), watch, self.local.ends, torch.Generator().manual_seed(request.seed))

    def pick(self, logits: torch.Tensor, writings: Sequence[Writing]) -> list[Token]:
        """The next token of each of B writings by its row of (B, V) logits.

        Raises:
            FloatingPointError: if they are no numbers.
        """
        logprobs = logits.float().log_softmax(-1)
        best = logprobs.argmax(-1)
        values = logprobs.gather(-1, best[:, None])[:, 0]
        if not bool(values.isfinite().all()):
            raise FloatingPointError(f"{printable(self.name)} gives logits that are no numbers")
        ids, likely = best.tolist(), values.tolist()
        look = [k for k, w in enumerate(writings) if w.request.temperature >= COLD or w.request.top]
        if not look:
            return [Token(*pair) for pair in zip(ids, likely, strict=True)]
        rows = dict(zip(look, logprobs[torch.tensor(look, device=logprobs.device)].cpu(), strict=True))
        for k, row in rows.items():
            ids[k] = choose(row, writings[k].request, writings[k].draws)
            likely[k] = float(row[ids[k]])
        tops = [alternatives(rows[k], w.request.top) if k in rows else () for k, w in enumerate(writings)]
        return [Token(*each) for each in zip(ids, likely, tops, strict=True)]

    def write(self, writing: Writing, token: Token) -> bool:
        """Add a token; whether the reply is complete."""
        reply = writing.reply
        reply.tokens.append(token)
        writing.ids.append(token.id)
        if token.id in writing.ends or writing.watch.add(token.id):
            reply.reason = "stop"
        elif self.local.full(writing.request, reply):
            reply.reason = "length"
        else:
            return False
        reply.text, stopped = writing.watch.settled()
        if stopped is not None:
            reply.reason = "stop"
            del reply.tokens[stopped:]
        return True
