"""Log-probabilities of continuations (imports torch): prefixes shared, logits at the scored positions only, batches by tokens.

Sequences that begin alike are computed as trees (``trees.py``): a shared prefix once, a question once for all its answers. A model
whose attention cannot be masked freely is scored in plain batches; ``Scorer.sharing`` says which it is and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.trees import Row, Trunk, plan

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""
LOGITS = 2**24
"""Logits computed at once: 64 MiB in float32."""
_CLOSE = 1e-3


@dataclass(frozen=True)
class Query:
    """A continuation to be scored after a context; token ids, at least one each."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]


@dataclass(frozen=True)
class Likelihood:
    """What a model says of a continuation.

    Attributes:
        logprobs: (T,) log-probability in nats of each token after all before it.
        greedy: (T,) whether it is the most likely token there.
    """

    logprobs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.bool_]

    @property
    def total(self) -> float:
        """Log-likelihood of the continuation, in nats."""
        return float(self.logprobs.sum())


class _Held(DynamicLayer):
    """Keys and values of a trunk, put before those of every batch and never changed by it."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.lazy_initialization(keys, values)
        self.keys, self.values = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        size = key_states.shape[0]
        return (
            torch.cat([self.keys.expand(size, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(size, -1, -1, -1), value_states], dim=-2),
        )


class Scorer:
    """Scores continuations under one causal model.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        name: for messages.
        share: False scores in plain batches whatever the model can do.
        batch_tokens: tokens of a batch.

    Attributes:
        sharing: why prefixes are shared, or why not, in words.
    """

    def __init__(self, model: Any, name: str, *, share: bool = True, batch_tokens: int = BATCH_TOKENS) -> None:
        self.model, self.name, self.batch_tokens = model, name, batch_tokens
        self.device = next(model.parameters()).device
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self.head = self._head()
        reason = self._unsharable() if share else "plain batches were asked for"
        self.shares = reason is None
        self.sharing = (
            "prefixes shared: attention is full in every layer, and a trial agreed with plain batches" if reason is None else reason
        )

    # -- what the model can do --------------------------------------------------------------------------------------------

    def _unsharable(self) -> str | None:
        """Why prefixes cannot be shared under this model, None if they can."""
        config = self.model.config.get_text_config()
        kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
        if kinds:
            return f"plain batches: layers of type {', '.join(sorted(map(str, kinds)))}"
        if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
            return "plain batches: attention in a sliding window"
        if self.head is None:
            return "plain batches of whole logits: the model does more than multiply its last states by an output layer"
        try:
            return None if self._trial() else "plain batches: a trial of shared prefixes did not agree with plain batches"
        except (RuntimeError, ValueError, TypeError, AttributeError, NotImplementedError) as error:
            return f"plain batches: a trial of shared prefixes failed ({type(error).__name__})"

    @torch.inference_mode()
    def _head(self) -> Any:
        """The output layer, if it alone makes logits from the last hidden states; None if a model caps or scales them besides."""
        head = self.model.get_output_embeddings()
        if head is None or self.model.base_model is self.model:
            return None
        tokens = torch.arange(min(12, self.vocabulary), device=self.device)[None]
        logits = self.model(input_ids=tokens, use_cache=False).logits
        hidden = getattr(self.model.base_model(input_ids=tokens, use_cache=False), "last_hidden_state", None)
        same = (
            hidden is not None and hidden.shape[-1] == head.weight.shape[-1] and torch.allclose(head(hidden), logits, atol=_CLOSE, rtol=0)
        )
        return head if same else None

    def _trial(self) -> bool:
        """Whether a small tree, on a trunk and not, gives what plain batches give."""
        draw = np.random.default_rng(0).integers(0, self.vocabulary, 24).tolist()
        stem, rest = tuple(draw[:8]), draw[8:]
        queries = [
            Query(stem, (rest[0], rest[1])),
            Query((*stem, rest[2]), (rest[3],)),
            Query((*stem, rest[2]), (rest[4], rest[5], rest[6])),
        ]
        wanted = dict(self._plain(queries))
        for trunk in (4, 100):
            found = dict(self._trees(queries, row=6, trunk=trunk))
            if any(np.abs(found[k].logprobs - wanted[k].logprobs).max() > _CLOSE for k in wanted):
                return False
        return True

    # -- scoring ------------------------------------------------------------------------------------------------------------

    def score(self, queries: Sequence[Query]) -> Iterator[tuple[int, Likelihood]]:
        """(number of the query, its likelihood), in the order in which they are ready.

        Raises:
            InputError: if a query is empty, holds unknown ids or is longer than the model's context.
            FloatingPointError: if the model gives log-probabilities that are no numbers.
        """
        for query in queries:
            size = len(query.context) + len(query.continuation)
            if not query.context or not query.continuation:
                raise InputError("context and continuation need at least one token each")
            if not all(0 <= t < self.vocabulary for t in (*query.context, *query.continuation)):
                raise InputError(f"token ids go from 0 to {self.vocabulary - 1}")
            if size - 1 > self.context:
                raise InputError(f"{size} tokens are too many: {printable(self.name)} takes at most {self.context + 1}")
        yield from self._trees(queries) if self.shares else self._plain(queries)

    @torch.inference_mode()
    def _trees(self, queries: Sequence[Query], **sizes: int) -> Iterator[tuple[int, Likelihood]]:
        # The last token of a continuation is predicted and never read.
        sequences = [(*q.context, *q.continuation)[:-1] for q in queries]
        held: tuple[Trunk, list[tuple[torch.Tensor, torch.Tensor]]] | None = None
        for trunk in plan(sequences, [len(q.context) - 1 for q in queries], **sizes):
            keys = self._keys(trunk, held)
            held = trunk, keys
            for rows in _batches(trunk.rows, self.batch_tokens):
                yield from self._forest(rows, keys, len(trunk.tokens), queries)

    def _keys(
        self, trunk: Trunk, before: tuple[Trunk, list[tuple[torch.Tensor, torch.Tensor]]] | None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Keys and values of a trunk, layer by layer; going on from the trunk before where it begins with that."""
        if not len(trunk.tokens):
            return []
        known = 0
        cache = DynamicCache()
        if before is not None:
            size = min(len(before[0].tokens), len(trunk.tokens) - 1)
            differ = np.flatnonzero(before[0].tokens[:size] != trunk.tokens[:size])
            known = int(differ[0]) if len(differ) else size
            if known:
                for layer, (keys, values) in enumerate(before[1]):
                    cache.update(keys[:, :, :known], values[:, :, :known], layer)
        new = torch.from_numpy(trunk.tokens[known:])[None].to(self.device)
        position = torch.arange(known, len(trunk.tokens), device=self.device)[None]
        self.model.base_model(input_ids=new, position_ids=position, past_key_values=cache, use_cache=True)
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _forest(
        self, rows: list[Row], keys: list[tuple[torch.Tensor, torch.Tensor]], depth: int, queries: Sequence[Query]
    ) -> Iterator[tuple[int, Likelihood]]:
        width = max(len(row.tokens) for row in rows)
        tokens, position = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        mask = np.zeros((len(rows), 1, width, depth + width), bool)
        mask[..., :depth] = True
        mask[..., depth:] |= np.eye(width, dtype=bool)  # padding sees itself: a row of nothing gives NaN
        for k, row in enumerate(rows):
            size = len(row.tokens)
            tokens[k, :size], position[k, :size] = row.tokens, row.depth
            mask[k, 0, :size, depth : depth + size] = row.sees()
        hidden = self.model.base_model(
            input_ids=torch.from_numpy(tokens).to(self.device),
            position_ids=torch.from_numpy(position).to(self.device),
            attention_mask=self._mask(torch.from_numpy(mask).to(self.device)),
            past_key_values=Cache(layers=[_Held(*pair) for pair in keys]) if keys else None,
            use_cache=bool(keys),
        ).last_hidden_state.flatten(0, 1)
        wanted = [(number, k * width + nodes) for k, row in enumerate(rows) for number, nodes in row.wanted]
        yield from self._read(hidden, wanted, queries)

    def _mask(self, sees: torch.Tensor) -> torch.Tensor:
        if self.model.config._attn_implementation != "eager":
            return sees
        dtype = self.model.dtype
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)

    @torch.inference_mode()
    def _plain(self, queries: Sequence[Query]) -> Iterator[tuple[int, Likelihood]]:
        sizes = [len(q.context) + len(q.continuation) - 1 for q in queries]
        order = sorted(range(len(queries)), key=lambda k: -sizes[k])
        start = 0
        while start < len(order):
            width = sizes[order[start]]
            some = order[start : start + max(1, self.batch_tokens // width)]
            start += len(some)
            tokens, mask = np.zeros((len(some), width), np.int64), np.zeros((len(some), width), np.int64)
            for k, number in enumerate(some):
                query = queries[number]
                tokens[k, : sizes[number]] = (*query.context, *query.continuation)[:-1]
                mask[k, : sizes[number]] = 1
            inputs = {"input_ids": torch.from_numpy(tokens).to(self.device), "attention_mask": torch.from_numpy(mask).to(self.device)}
            if self.head is None:
                states = self.model(**inputs, use_cache=False).logits
            else:
                states = self.model.base_model(**inputs, use_cache=False).last_hidden_state
            wanted = [(n, k * width + np.arange(len(queries[n].context) - 1, sizes[n])) for k, n in enumerate(some)]
            yield from self._read(states.flatten(0, 1), wanted, queries)

    def _read(
        self, states: torch.Tensor, wanted: list[tuple[int, npt.NDArray[np.int64]]], queries: Sequence[Query]
    ) -> Iterator[tuple[int, Likelihood]]:
        """Likelihoods from last states (or logits, without a head); logits are computed where something is scored, once per position."""
        positions = np.concatenate([nodes for _, nodes in wanted])
        targets = np.concatenate([np.asarray(queries[number].continuation, np.int64) for number, _ in wanted])
        distinct, inverse = np.unique(positions, return_inverse=True)
        order = np.argsort(inverse, kind="stable")
        logprobs, greedy = np.empty(len(positions)), np.empty(len(positions), bool)
        step = max(1, LOGITS // self.vocabulary)
        for start in range(0, len(distinct), step):
            some = states[torch.from_numpy(distinct[start : start + step]).to(self.device)]
            logits = (some if self.head is None else self.head(some)).float()
            norm, best = logits.logsumexp(-1), logits.argmax(-1)
            lo, hi = np.searchsorted(inverse[order], [start, start + step])
            at = order[lo:hi]
            of = torch.from_numpy(inverse[at] - start).to(self.device)
            asked = torch.from_numpy(targets[at]).to(self.device)
            logprobs[at] = (logits[of, asked] - norm[of]).double().cpu().numpy()
            greedy[at] = (best[of] == asked).cpu().numpy()
        if not np.isfinite(logprobs).all():
            raise FloatingPointError(f"{self.name} gives log-probabilities that are no numbers")
        begin = 0
        for number, nodes in wanted:
            end = begin + len(nodes)
            yield number, Likelihood(logprobs[begin:end], greedy[begin:end])
            begin = end


def _batches(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length side by side, the longest first, so that what does not fit fails at once."""
    order = sorted(rows, key=lambda row: -len(row.tokens))
    while order:
        count = max(1, tokens // max(1, len(order[0].tokens)))
        yield order[:count]
        order = order[count:]
