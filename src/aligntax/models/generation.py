"""Continuations of many prompts (imports torch): what prompts share is computed once, and nobody waits for the longest reply.

Requests are written together on shared prefixes (``benches.py``). A model whose attention cannot be masked freely decodes plain batches;
``Generator.sharing`` says which it is and why. Choices and ends follow ``LocalModel`` (``writing.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from aligntax.models.attention import stretch, uncut, window
from aligntax.models.benches import Benches
from aligntax.models.local import Reply, Request
from aligntax.models.writing import Watch, Writer, Writing

BATCH_TOKENS = 2**14
"""Tokens whose keys and values are held at once."""
_TRIAL = 16
"""Positions that a trial reaches."""


@dataclass(frozen=True)
class _Way:
    """Of decoding without sharing: requests side by side or not, with a cache or not."""

    batched: bool
    cached: bool
    words: str


class Generator:
    """Continues prompts under one causal model. No reply depends on its company, but for rounding in near-ties.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer.
        name: for messages.
        share: False decodes plain batches whatever the model can do.
        batch_tokens: tokens whose keys and values are held at once. A single request that needs more gets more.

    Attributes:
        sharing: why prefixes are shared, or why not, in words.
        reach: positions within which prefixes are shared; a request that may go beyond is decoded plainly.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str, *, share: bool = True, batch_tokens: int = BATCH_TOKENS) -> None:
        self.writer = Writer(model, tokenizer, name)
        self.model, self.name, self.device, self.batch_tokens = self.writer.model, name, self.writer.device, batch_tokens
        self.context = self.writer.context
        self._stretch = stretch(self.writer.config)
        self.reach = min(self.context, window(self.writer.config), self._stretch)
        reason = self._unsharable() if share else "as asked"
        self.shares = reason is None
        if reason is None:
            beyond = f"; what may go beyond {self.reach} tokens, where attention changes, is decoded plainly"
            self.sharing = "prefixes shared: a trial agreed with plain decoding" + (beyond if self.reach < self.context else "")
        else:
            self.sharing = f"{self._plainly.words}: {reason}"

    def generate(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """(which request, its complete reply), in the order in which they are ready.

        Raises:
            InputError: at once, if a prompt is empty, holds unknown ids or leaves no room in the context.
            FloatingPointError: if the model gives logits that are no numbers.
        """
        for request in requests:
            self.writer.local.check(request.tokens, room=1)
        found: Iterator[tuple[int, Reply]] = self._generate([self.writer.begin(k, request) for k, request in enumerate(requests)])
        return found

    @torch.inference_mode()
    def _generate(self, writings: list[Writing]) -> Iterator[tuple[int, Reply]]:
        shared = [w for w in writings if self.shares and min(w.most, self.context) <= self.reach]
        for writing in Benches(self.writer, shared, self.batch_tokens).run() if shared else ():
            yield writing.number, writing.reply
        kept = {w.number for w in shared}
        for writing in self._plain([w for w in writings if w.number not in kept]):
            yield writing.number, writing.reply

    # -- what the model can do ------------------------------------------------------------------------------------------------

    def _unsharable(self) -> str | None:
        """Why prefixes cannot be shared under this model, None if they can."""
        if (why := uncut(self.writer.config)) is not None:
            return why
        if self.reach < _TRIAL:
            return f"attention in a window of {self.reach} tokens"
        agrees, why = self._trial(lambda some: Benches(self.writer, some, 2 * _TRIAL, seats=2, trunk=4, row=6).run())
        return None if agrees else f"a trial of shared prefixes {why}"

    @cached_property
    def _plainly(self) -> _Way:
        """The fastest way of decoding without sharing that a trial agrees with."""
        for way in (_Way(True, True, "plain batches"), _Way(False, True, "one request at a time")):
            if self._trial(partial(self._plain, way=way))[0]:
                return way
        return _Way(False, False, "one request at a time, computed anew for every token")

    @torch.inference_mode()
    def _trial(self, run: Callable[[list[Writing]], Iterator[Writing]]) -> tuple[bool, str]:
        """Whether a way of decoding gives the log-probabilities of whole sequences computed alone, and what happened if not."""
        draw = np.random.default_rng(0).integers(0, self.writer.vocabulary, 24).tolist()
        prompts = [draw[:6] + draw[8:11], draw[:6] + draw[8:10] + draw[12:17], draw[:6] + draw[17:18], draw[20:23]]
        some = [self.writer.begin(k, Request(tuple(p), max_tokens=2 + k % 2, top=32)) for k, p in enumerate(prompts)]
        # No end token ends a trial, and nothing is decoded: the tokens are random.
        some = [replace(writing, ends=set(), watch=Watch(lambda _: "", ())) for writing in some]
        try:
            return all(self._as_alone(writing) for writing in list(run(some))), "did not agree with plain decoding"
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError, FloatingPointError) as error:
            return False, f"failed ({type(error).__name__})"

    def _as_alone(self, writing: Writing) -> bool:
        count = len(writing.reply.tokens)
        tokens = torch.tensor([writing.ids[:-1]], device=self.device)
        given = {"attention_mask": torch.ones_like(tokens)} if "attention_mask" in self.writer.takes else {}
        logits = self.model(input_ids=tokens, use_cache=False, **given).logits[0, -count:]
        wanted = logits.float().log_softmax(-1).cpu()
        differ = [abs(float(wanted[k, i]) - x) for k, token in enumerate(writing.reply.tokens) for i, x in token.top]
        # Noise is 1e-6 of how far log-probabilities spread, in half precision 1e-2; something masked wrongly or out of place is far more.
        close = 1e-3 if self.model.dtype in (torch.float32, torch.float64) else 5e-2
        return float(np.mean(differ)) < close * float(wanted[wanted.isfinite()].std())

    # -- plain batches ----------------------------------------------------------------------------------------------------------

    def _plain(self, writings: list[Writing], way: _Way | None = None) -> Iterator[Writing]:
        """Batches of similar length, the longest first, so that what does not fit fails at once."""
        order = sorted(writings, key=lambda w: -len(w.ids))
        while order:
            how = way or self._plainly
            size = min(max(w.most for w in order[: self.writer.abreast]), self.context)
            # Positions that stretch with the longest of a batch would make a reply depend on its company, and its end on where it began.
            batched = how.batched and size <= self._stretch
            count = max(1, min(self.batch_tokens // size, self.writer.abreast)) if batched else 1
            crosses = not batched and len(order[0].ids) <= self._stretch < order[0].most
            yield from self._together(order[:count], how.cached and not crosses)
            order = order[count:]

    def _together(self, some: list[Writing], cached: bool) -> Iterator[Writing]:
        """Write a batch padded on the left; who ends leaves it."""
        takes = self.writer.takes
        width = max(len(w.ids) for w in some)
        tokens = torch.tensor([[0] * (width - len(w.ids)) + w.ids for w in some], device=self.device)
        mask = torch.tensor([[0] * (width - len(w.ids)) + [1] * len(w.ids) for w in some], device=self.device)
        memory = "past_key_values" if "past_key_values" in takes else "cache_params"
        cache: Any = None
        while some:
            given: dict[str, Any] = {"attention_mask": mask, "logits_to_keep": 1}
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
            if cache is not None:
                given[memory] = cache
                if memory == "cache_params":  # purely recurrent: padding has left no trace in the state, and a mask is not understood
                    del given["attention_mask"]
            out = self.model(input_ids=tokens, use_cache=cached, **{k: v for k, v in given.items() if k in takes})
            cache = getattr(out, memory) if cached else None
            chosen = self.writer.pick(out.logits[:, -1], some)
            going = []
            for k, writing in enumerate(some):
                if self.writer.write(writing, chosen[k]):
                    yield writing
                else:
                    going.append(k)
            keep = torch.tensor(going, dtype=torch.long, device=self.device)
            if len(going) < len(some):
                some, mask = [some[k] for k in going], mask[keep]
                if cached and some:
                    cache.reorder_cache(keep)
            new = torch.tensor([w.ids[-1:] for w in some], dtype=torch.long, device=self.device)
            tokens = new if cached else torch.cat([tokens[keep], new], 1) if some else tokens
            mask = torch.cat([mask, mask.new_ones(len(some), 1)], 1)
