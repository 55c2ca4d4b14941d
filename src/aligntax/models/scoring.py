"""Log-probabilities of continuations (imports torch): prefixes shared, logits at the scored positions only, batches by tokens.

Sequences that begin alike are computed as trees (``trees.py``): a shared prefix once, a question once for all its answers. A model
whose attention cannot be masked freely is scored in plain batches; ``Scorer.sharing`` says which it is and why.

Two halves, so that two models can be read side by side (``divergence.py``): ``lockstep`` makes the last states of one batch after another
under any number of models, ``read`` goes through the positions that are asked for and hands the numbers back query by query.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.attention import FAR, stretch, uncut, window
from aligntax.models.trees import Row, Trunk, plan

Ints = npt.NDArray[np.int64]
Wanted = list[tuple[int, Ints]]
"""For each query of a batch its number and where, among the states of that batch, the predictions of its tokens are."""
Pairs = list[tuple[torch.Tensor, torch.Tensor]]
"""Keys and values of a trunk, layer by layer; none for an empty trunk."""

BATCH_TOKENS = 4096
"""Tokens of a batch, padding included."""
LOGITS = 2**24
"""Logits computed at once: 64 MiB in float32."""
_CLOSE, _CLOSE_HALF = 1e-3, 0.1
"""Nats that rounding may make, in single and in half precision; a token masked wrongly or out of place makes far more."""
_TRIAL = 16
"""Positions that a trial reaches."""


@dataclass(frozen=True)
class Query:
    """A continuation to be scored after a context; token ids, at least one each. ``top`` of the likeliest tokens are told at every place."""

    context: tuple[int, ...]
    continuation: tuple[int, ...]
    top: int = 0


@dataclass(frozen=True)
class Likelihood:
    """What a model says of a continuation.

    Attributes:
        logprobs: (T,) log-probability in nats of each token after all before it.
        greedy: (T,) whether it is the most likely token there.
        top, top_logprobs: (T, K) the K likeliest tokens at each place and their log-probabilities, the likeliest first; K is the most that
            any query of the call asked for.
    """

    logprobs: npt.NDArray[np.float64]
    greedy: npt.NDArray[np.bool_]
    top: npt.NDArray[np.int64]
    top_logprobs: npt.NDArray[np.float64]

    @property
    def total(self) -> float:
        """Log-likelihood of the continuation, in nats."""
        return float(self.logprobs.sum())


@dataclass(frozen=True)
class Batch:
    """Sequences side by side, the same for every model that computes them.

    Attributes:
        tokens: (R, W) token ids, padded.
        position: (R, W) positions in the sequence; None where a model counts by itself.
        sees: (R, 1, W, P + W) whether a token sees another, those of a trunk of P first; (R, W) which are no padding, where tokens see
            all before them.
    """

    tokens: Ints
    position: Ints | None
    sees: npt.NDArray[np.bool_]


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
        reach: positions within which prefixes are shared; longer sequences go in plain batches.
        stretch: positions beyond which a sequence goes alone, because rotary embeddings change with the longest of a batch.
    """

    def __init__(self, model: Any, name: str, *, share: bool = True, batch_tokens: int = BATCH_TOKENS) -> None:
        self.model, self.name, self.batch_tokens = model, name, batch_tokens
        self.device = next(model.parameters()).device
        self.context = int(getattr(model.config, "max_position_embeddings", None) or 2**31)
        self.vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self.head = self._head()
        config = model.config.get_text_config()
        self.stretch = stretch(config)
        self.reach = min(window(config), self.stretch)
        reason = self._unsharable(config) if share else "as asked"
        self.shares = reason is None
        beyond = (
            f"; sequences longer than {self.reach} tokens, where attention changes, in plain batches" if self.reach < self.context else ""
        )
        self.sharing = f"prefixes shared: a trial agreed with plain batches{beyond}" if reason is None else f"plain batches: {reason}"

    # -- what the model can do --------------------------------------------------------------------------------------------

    def _unsharable(self, config: Any) -> str | None:
        """Why prefixes cannot be shared under this model, None if they can."""
        if (why := uncut(config)) is not None:
            return why
        if self.reach < _TRIAL:
            return f"attention in a window of {self.reach} tokens"
        if self.head is None:
            return "whole logits, since the model does more than multiply its last states by an output layer"
        try:
            return None if self._trial() else "a trial of shared prefixes did not agree with plain batches"
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, NotImplementedError) as error:
            return f"a trial of shared prefixes failed ({type(error).__name__})"

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
        close = _CLOSE if self.model.dtype in (torch.float32, torch.float64) else _CLOSE_HALF
        wanted = dict(self._likelihoods(queries, _plain([self], queries, self.batch_tokens)))
        for trunk in (4, 100):
            found = dict(self._likelihoods(queries, _trees([self], queries, self.batch_tokens, row=6, trunk=trunk)))
            # Not "greater than": what is no number agrees with nothing.
            if not all(np.abs(found[k].logprobs - wanted[k].logprobs).max() <= close for k in wanted):
                return False
        return True

    # -- scoring ------------------------------------------------------------------------------------------------------------

    def score(self, queries: Sequence[Query]) -> Iterator[tuple[int, Likelihood]]:
        """(number of the query, its likelihood), in the order in which they are ready.

        Raises:
            InputError: if a query is empty, holds unknown ids or is longer than the model's context.

        Log-probabilities that are no numbers are given as they are.
        """
        self.check(queries)
        yield from self._likelihoods(queries, lockstep([self], queries, self.batch_tokens))

    def check(self, queries: Sequence[Query]) -> None:
        """Whether every query can be scored.

        Raises:
            InputError: if one is empty, holds unknown ids or is longer than the model's context.
        """
        for query in queries:
            size = len(query.context) + len(query.continuation)
            if not query.context or not query.continuation:
                raise InputError("context and continuation need at least one token each")
            if not all(0 <= t < self.vocabulary for t in (*query.context, *query.continuation)):
                raise InputError(f"token ids go from 0 to {self.vocabulary - 1}")
            if size - 1 > self.context:
                raise InputError(f"{size} tokens are too many: {printable(self.name)} takes at most {self.context + 1}")

    @torch.inference_mode()
    def _likelihoods(
        self, queries: Sequence[Query], steps: Iterator[tuple[Wanted, list[torch.Tensor]]]
    ) -> Iterator[tuple[int, Likelihood]]:
        top = min(self.vocabulary, max((q.top for q in queries), default=0))
        for wanted, (states,) in steps:
            for number, found in read(wanted, queries, LOGITS // self.vocabulary, partial(self._asked, states, top)):
                yield number, Likelihood(**found)
            del states  # before the next batch is computed

    def _asked(self, states: torch.Tensor, top: int, places: Ints, of: Ints, asked: Ints) -> dict[str, npt.NDArray[Any]]:
        """What ``read`` wants measured, for a likelihood."""
        logits = self.logits(states, places)
        norm, best = logits.logsumexp(-1), logits.argmax(-1)
        row, token = torch.from_numpy(of).to(self.device), torch.from_numpy(asked).to(self.device)
        logprobs = (logits[row, token] - norm[row]).double().cpu().numpy()
        high = logits.topk(top, -1)
        return {
            "logprobs": logprobs,
            "greedy": (best[row] == token).cpu().numpy(),
            "top": high.indices.cpu().numpy()[of],
            "top_logprobs": (high.values - norm[:, None]).double().cpu().numpy()[of],
        }

    # -- states and logits --------------------------------------------------------------------------------------------------

    def logits(self, states: torch.Tensor, places: Ints) -> torch.Tensor:
        """(C, V) logits in float32, the caller's to change, of C places among the states of a batch."""
        some = states[torch.from_numpy(places).to(self.device)]
        return (some if self.head is None else self.head(some)).float()

    def states(self, batch: Batch, keys: Pairs) -> torch.Tensor:
        """(R * W, H) last hidden states of a batch after a trunk with these keys and values; (R * W, V) logits without a head."""
        inputs: dict[str, Any] = {"input_ids": torch.from_numpy(batch.tokens).to(self.device), "use_cache": bool(keys)}
        sees = torch.from_numpy(batch.sees).to(self.device)
        if batch.position is None:
            inputs["attention_mask"] = sees.long()
        else:
            inputs["position_ids"] = torch.from_numpy(batch.position).to(self.device)
            inputs["attention_mask"] = self._mask(sees)
        if keys:
            inputs["past_key_values"] = Cache(layers=[_Held(*pair) for pair in keys])
        found = self.model(**inputs).logits if self.head is None else self.model.base_model(**inputs).last_hidden_state
        return found.flatten(0, 1)

    def keys(self, trunk: Trunk, before: tuple[Trunk, Pairs] | None) -> Pairs:
        """Keys and values of a trunk, going on from the trunk before where it begins with that."""
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

    def _mask(self, sees: torch.Tensor) -> torch.Tensor:
        if self.model.config._attn_implementation != "eager":
            return sees
        dtype = self.model.dtype
        return torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)


# -- batches under one model or several ----------------------------------------------------------------------------------------


def lockstep(scorers: Sequence[Scorer], queries: Sequence[Query], room: int) -> Iterator[tuple[Wanted, list[torch.Tensor]]]:
    """One batch after another: what is wanted of it, and its last states (``Scorer.states``) under each model.

    The batches are the same for all models, of at most ``room`` tokens: trees of what all models can share, plain ones of the rest.
    """
    reach = min(s.reach for s in scorers) if all(s.shares for s in scorers) else 0
    stretches = min(s.stretch for s in scorers)
    sizes = [len(q.context) + len(q.continuation) - 1 for q in queries]
    for way, low, high in ((_trees, 0, reach), (_plain, reach, stretches), (_alone, max(reach, stretches), FAR)):
        some = [k for k, size in enumerate(sizes) if low < size <= high]
        if some:
            for wanted, states in way(scorers, [queries[k] for k in some], room):
                yield [(some[number], nodes) for number, nodes in wanted], states


def _alone(scorers: Sequence[Scorer], queries: Sequence[Query], _room: int) -> Iterator[tuple[Wanted, list[torch.Tensor]]]:
    found: Iterator[tuple[Wanted, list[torch.Tensor]]] = _plain(scorers, queries, 1)
    return found


@torch.inference_mode()
def _trees(scorers: Sequence[Scorer], queries: Sequence[Query], room: int, **sizes: int) -> Iterator[tuple[Wanted, list[torch.Tensor]]]:
    # The last token of a continuation is predicted and never read.
    sequences = [(*q.context, *q.continuation)[:-1] for q in queries]
    held: list[tuple[Trunk, Pairs] | None] = [None] * len(scorers)
    for trunk in plan(sequences, [len(q.context) - 1 for q in queries], **sizes):
        keys = [s.keys(trunk, before) for s, before in zip(scorers, held, strict=True)]
        held = [(trunk, pairs) for pairs in keys]
        for rows in _batches(trunk.rows, room):
            batch, wanted = _forest(rows, len(trunk.tokens))
            yield wanted, [s.states(batch, pairs) for s, pairs in zip(scorers, keys, strict=True)]


def _batches(rows: Sequence[Row], tokens: int) -> Iterator[list[Row]]:
    """Rows of similar length side by side, the longest first, so that what does not fit fails at once."""
    order = sorted(rows, key=lambda row: -len(row.tokens))
    while order:
        count = max(1, tokens // max(1, len(order[0].tokens)))
        yield order[:count]
        order = order[count:]


def _forest(rows: Sequence[Row], depth: int) -> tuple[Batch, Wanted]:
    """Rows that hang on a trunk of ``depth`` tokens."""
    width = max(len(row.tokens) for row in rows)
    tokens, position = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
    sees = np.zeros((len(rows), 1, width, depth + width), bool)
    sees[..., :depth] = True
    sees[..., depth:] |= np.eye(width, dtype=bool)  # padding sees itself: a row of nothing gives NaN
    for k, row in enumerate(rows):
        size = len(row.tokens)
        tokens[k, :size], position[k, :size] = row.tokens, row.depth
        sees[k, 0, :size, depth : depth + size] = row.sees()
    return Batch(tokens, position, sees), [(number, k * width + nodes) for k, row in enumerate(rows) for number, nodes in row.wanted]


@torch.inference_mode()
def _plain(scorers: Sequence[Scorer], queries: Sequence[Query], room: int) -> Iterator[tuple[Wanted, list[torch.Tensor]]]:
    sizes = [len(q.context) + len(q.continuation) - 1 for q in queries]
    order = sorted(range(len(queries)), key=lambda k: -sizes[k])
    start = 0
    while start < len(order):
        width = sizes[order[start]]
        some = order[start : start + max(1, room // width)]
        start += len(some)
        tokens, real = np.zeros((len(some), width), np.int64), np.zeros((len(some), width), bool)
        for k, number in enumerate(some):
            query = queries[number]
            tokens[k, : sizes[number]] = (*query.context, *query.continuation)[:-1]
            real[k, : sizes[number]] = True
        wanted = [(n, k * width + np.arange(len(queries[n].context) - 1, sizes[n])) for k, n in enumerate(some)]
        yield wanted, [s.states(Batch(tokens, None, real), []) for s in scorers]


# -- reading them ----------------------------------------------------------------------------------------------------------------


def read(
    wanted: Wanted, queries: Sequence[Query], step: int, measure: Callable[[Ints, Ints, Ints], Mapping[str, npt.NDArray[Any]]]
) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """(number of a query, its named (T, ...) arrays): every place is measured once, however many queries ask for it.

    Args:
        wanted: as ``lockstep`` gives it.
        queries: all of them.
        step: places that are measured at once.
        measure: gets C distinct places among the states of the batch (C,), and for N asked tokens which of the C each is read at (N,) and
            its id (N,); gives arrays (N, ...) by name.
    """
    positions = np.concatenate([nodes for _, nodes in wanted])
    targets = np.concatenate([np.asarray(queries[number].continuation, np.int64) for number, _ in wanted])
    distinct, inverse = np.unique(positions, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    found: dict[str, npt.NDArray[Any]] = {}
    step = max(1, step)
    for start in range(0, len(distinct), step):
        lo, hi = np.searchsorted(inverse[order], [start, start + step])
        at = order[lo:hi]
        for name, values in measure(distinct[start : start + step], inverse[at] - start, targets[at]).items():
            found.setdefault(name, np.empty((len(positions), *values.shape[1:]), values.dtype))[at] = values
    begin = 0
    for number, nodes in wanted:
        end = begin + len(nodes)
        yield number, {name: values[begin:end] for name, values in found.items()}
        begin = end
