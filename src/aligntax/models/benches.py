"""Many replies written together on shared prefixes (imports torch): who ends leaves, who waits takes the seat.

A *bench* is a row of the batch. It holds the keys and values of one shared prefix (a trunk, see ``trees.py``) once, and beside them those
of everyone seated on it, one query each; a mask tells each which columns are its own. A bench of one seat is an ordinary row of a batch;
a bench of several reads the trunk once for all of them.

Columns of a bench: 0 is nobody's, for padding; then the trunk; the rest are given to whoever needs one, the lowest free one first, and
taken back when it leaves. The order of columns does not matter: positions are in the keys, and the mask says whose they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.cache_utils import Cache, DynamicLayer

from aligntax.models.trees import Row, plan
from aligntax.models.writing import Writer, Writing

PREFILL = 4096
"""Tokens of prompts computed at once, padding included."""
RESERVE = 32
"""New tokens for which everyone seated has room when another request is seated. Who writes more may send somebody back to wait."""
TRUNK = 16
"""A shared prefix shorter than this is repeated rather than kept apart."""
ROW = 128
"""Prompts with more distinct tokens than this among them get a trunk for what they share."""
_LOOK = 0.2
"""Time that a query takes to look at a key, in that of reading the key and its value from memory; measured on a processor."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Pair = tuple[torch.Tensor, torch.Tensor]
"""Keys and values of a layer, each (rows, heads, tokens, size)."""


class _Onto(DynamicLayer):
    """Keys and values of a trunk, perhaps of none, put before new ones, which are kept apart."""

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> None:
        super().__init__()
        self.new: Pair | None = None
        if keys is not None and values is not None:
            self.lazy_initialization(keys, values)
            self.keys, self.values = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Pair:
        self.new = key_states, value_states
        if self.keys is None or self.values is None:
            return self.new
        size = key_states.shape[0]
        return (
            torch.cat([self.keys.expand(size, -1, -1, -1), key_states], dim=-2),
            torch.cat([self.values.expand(size, -1, -1, -1), value_states], dim=-2),
        )


@dataclass
class _Places:
    """Where the newest keys go, rows (B, 1) and columns (B, W), and how many benches and columns are looked at."""

    rows: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    columns: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    benches: int = 0
    top: int = 0


class _Pool(DynamicLayer):
    """Keys and values of all benches in one layer, (benches, heads, columns, size), in room that grows by need.

    Room is filled with zeros: what is masked is multiplied by zero, and zero times what lay in memory may be no number.
    """

    def __init__(self, places: _Places, pair: Pair, shape: tuple[int, int]) -> None:
        super().__init__()
        self.places = places
        self.lazy_initialization(*pair)
        self.keys, self.values = (x.new_zeros(0, x.shape[1], 0, x.shape[3]) for x in pair)
        self.grow(*shape)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Pair:
        at = self.places
        self.keys[at.rows, :, at.columns] = key_states.transpose(1, 2)
        self.values[at.rows, :, at.columns] = value_states.transpose(1, 2)
        return self.keys[: at.benches, :, : at.top], self.values[: at.benches, :, : at.top]

    def grow(self, benches: int, columns: int) -> None:
        def grown(x: torch.Tensor) -> torch.Tensor:
            made = x.new_zeros(benches, x.shape[1], columns, x.shape[3])
            made[: x.shape[0], :, : x.shape[2]] = x
            return made

        self.keys, self.values = grown(self.keys), grown(self.values)


@dataclass(eq=False)
class _Bench:
    """Number and length of its trunk, and who sits on which seat."""

    trunk: int
    depth: int
    seated: dict[int, Writing] = field(default_factory=dict)


class Benches:
    """Writes replies together.

    Args:
        writer: whose model computes.
        writings: at least one.
        tokens: whose keys and values are held at once; a single writing that needs more gets more. Rows side by side are padded to the
            longest, which is not counted.
        seats: on a bench, default what is fastest by ``seats_for``.
        trunk, row: see ``trees.plan``.
    """

    def __init__(
        self, writer: Writer, writings: list[Writing], tokens: int, *, seats: int | None = None, trunk: int = TRUNK, row: int = ROW
    ) -> None:
        self.writer, self.model, self.device, self.tokens = writer, writer.model, writer.device, tokens
        found = plan([w.ids for w in writings], [len(w.ids) - 1 for w in writings], row=row, trunk=trunk)
        self.trunks: list[Ints] = [t.tokens for t in found]
        self.waiting: deque[Writing] = deque()
        for number, each in enumerate(found):
            some = [writings[k] for r in each.rows for k, _ in r.wanted]
            for writing in some:
                writing.trunk = number
            # The longest first, so that benches side by side are of similar length; among similar ones those that begin alike together.
            self.waiting.extend(sorted(some, key=lambda w: -(len(w.ids) // 256)))
        depths = [len(self.trunks[w.trunk]) for w in writings]
        own = [len(w.ids) - depth + _soon(w) / 2 for w, depth in zip(writings, depths, strict=True)]
        self.seats = seats or seats_for(float(np.mean(depths)), float(np.mean(own)), writer.config)
        self.held: tuple[int, list[Pair]] | None = None  # the trunk computed last
        self.benches: list[_Bench] = []
        self.places = _Places()
        self.layers: list[_Pool] = []
        self.used: Bools = np.zeros((0, 0), bool)  # (benches, columns) whether a column is taken
        self.sees: Bools = np.zeros((0, self.seats, 0), bool)  # (benches, seats, columns) whether who sits there sees it

    def run(self) -> Iterator[Writing]:
        """Complete writings, as they are ready."""
        while self.waiting or self.benches:
            self._admit()
            yield from self._step()

    @property
    def _live(self) -> int:
        return sum(len(b.seated) for b in self.benches)

    @property
    def _room(self) -> int:
        return self.tokens - int(self.used[: len(self.benches)].sum())

    @property
    def _spare(self) -> int:
        """Room that nobody seated will need soon."""
        return self._room - sum(_soon(w) for b in self.benches for w in b.seated.values())

    # -- who is seated --------------------------------------------------------------------------------------------------------

    def _admit(self) -> None:
        """Seat who waits, once there is room for several: computing one prompt costs about as much as a token for everyone."""
        live = self._live
        if live and (self._spare < self.tokens // 8 or live > self.writer.abreast * 7 // 8):
            return
        while some := self._next():
            trunk = self._trunk(some[0].trunk)
            self._open(some, trunk)
            self._prefill(some, trunk)

    def _next(self) -> list[Writing]:
        """Who can be seated now, of those next in line that share a trunk."""
        some: list[Writing] = []
        live, room, new = self._live, self._spare, 0
        trunk = self.waiting[0].trunk if self.waiting else 0
        depth = len(self.trunks[trunk])
        free = sum(self.seats - len(b.seated) for b in self.benches if b.trunk == trunk)
        while self.waiting and self.waiting[0].trunk == trunk and live + len(some) < self.writer.abreast:
            own = len(self.waiting[0].ids) - depth
            opens = len(some) >= free and (len(some) - free) % self.seats == 0
            need = own + _soon(self.waiting[0]) + opens * (depth + 1)
            if (live or some) and (need > room or new + own > PREFILL):
                break
            room, new = room - need, new + own
            some.append(self.waiting.popleft())
        return some

    def _open(self, some: list[Writing], keys: list[Pair]) -> None:
        """As many benches of a trunk as it takes to seat some more."""
        trunk, start = some[0].trunk, len(self.benches)
        depth = len(self.trunks[trunk])
        here = [b for b in self.benches if b.trunk == trunk]
        wanted = -(-(len(some) + sum(len(b.seated) for b in here)) // self.seats)
        self.benches += [_Bench(trunk, depth) for _ in range(wanted - len(here))]
        own = sum(len(w.ids) - depth + _soon(w) for w in some)
        self._grow(depth + 1 + own // max(wanted, len(here)))
        end = len(self.benches)
        self.used[start:end] = False
        self.used[start:end, : depth + 1] = True
        for layer, (k, v) in zip(self.layers, keys, strict=False):
            layer.keys[start:end, :, 1 : depth + 1], layer.values[start:end, :, 1 : depth + 1] = k, v

    def _sit(self, writing: Writing) -> tuple[int, Ints]:
        """A seat on the emptiest bench of its trunk: which bench, and columns for what is known of it and not in the trunk."""
        at = min((g for g, b in enumerate(self.benches) if b.trunk == writing.trunk), key=lambda g: len(self.benches[g].seated))
        bench = self.benches[at]
        seat = next(s for s in range(self.seats) if s not in bench.seated)
        bench.seated[seat] = writing
        columns = self._take(at, len(writing.ids) - 1 - bench.depth)
        self.sees[at, seat, 1 : bench.depth + 1] = True
        self.sees[at, seat, columns] = True
        return at, columns

    def _leave(self, at: int, seat: int) -> None:
        bench = self.benches[at]
        del bench.seated[seat]
        self.used[at] &= ~self.sees[at, seat]
        self.used[at, : bench.depth + 1] = True
        self.sees[at, seat] = False

    def _send_back(self) -> None:
        """Who has written least goes back to wait until the rest have room for a token; what it wrote is kept, its keys are not."""
        while self._room < self._live and self._live > 1:
            places = [(g, s) for g, b in enumerate(self.benches) for s in b.seated]
            at, seat = min(places, key=lambda place: len(self.benches[place[0]].seated[place[1]].reply.tokens))
            self.waiting.appendleft(self.benches[at].seated[seat])
            self._leave(at, seat)
        self._tidy()

    def _tidy(self) -> None:
        """Remove empty benches; the last one takes their place."""
        for at in reversed(range(len(self.benches))):
            if self.benches[at].seated:
                continue
            last = self.benches.pop()
            end = len(self.benches)
            if at < end:
                self.benches[at] = last
                for array in (self.used, self.sees, *(x for layer in self.layers for x in (layer.keys, layer.values))):
                    array[at] = array[end]
            self.sees[end] = False

    def _take(self, at: int, count: int) -> Ints:
        """The lowest free columns of a bench."""
        free = np.flatnonzero(~self.used[at])
        if len(free) < count:
            self._grow(self.used.shape[1] + count - len(free))
            free = np.flatnonzero(~self.used[at])
        self.used[at, free[:count]] = True
        return free[:count]

    def _grow(self, columns: int) -> None:
        """Room for all benches with so many columns."""
        before, width = self.used.shape
        if columns > width:
            columns = max(columns, width + width // 4) + 63 & ~63
        shape = max(before, len(self.benches)), max(columns, width)
        if shape == self.used.shape:
            return
        more = (0, shape[0] - before), (0, shape[1] - width)
        self.used, self.sees = np.pad(self.used, more), np.pad(self.sees, (more[0], (0, 0), more[1]))
        for layer in self.layers:
            layer.grow(*shape)

    # -- what is computed -----------------------------------------------------------------------------------------------------

    def _trunk(self, number: int) -> list[Pair]:
        """Keys and values of a trunk, layer by layer; going on from the trunk before where it begins with that."""
        tokens = self.trunks[number]
        if not len(tokens):
            return []
        known: list[Pair] = []
        same = 0
        if self.held is not None:
            if self.held[0] == number:
                return self.held[1]
            before = self.trunks[self.held[0]]
            size = min(len(before), len(tokens) - 1)
            differ = np.flatnonzero(before[:size] != tokens[:size])
            same = int(differ[0]) if len(differ) else size
            known = [(k[:, :, :same], v[:, :, :same]) for k, v in self.held[1]] if same else []
        new = self._compute(tokens[None, same:], np.arange(same, len(tokens))[None], None, known)
        keys = [(torch.cat([k, x], 2), torch.cat([v, y], 2)) for (k, v), (x, y) in zip(known, new, strict=True)] if same else new
        self.held = number, keys
        return keys

    def _compute(self, tokens: Ints, position: Ints, sees: Bools | None, trunk: list[Pair]) -> list[Pair]:
        """Keys and values of new tokens (B, W) after a trunk of P; ``sees`` (B, 1, W, P + W), without it each sees all before it."""
        cache = Cache(layers=[_Onto(*pair) for pair in trunk]) if trunk else Cache(layer_class_to_replicate=_Onto)
        keep = {"logits_to_keep": 1} if "logits_to_keep" in self.writer.takes else {}
        self._forward(tokens, position, sees, cache, **keep)
        new = [layer.new for layer in cache.layers]
        if not self.layers:
            self.layers = [_Pool(self.places, pair, self.used.shape) for pair in new]
        return new

    def _forward(self, tokens: Ints, position: Ints, sees: Bools | None, cache: Cache, **more: int) -> torch.Tensor:
        """Logits (B, W, V)."""
        if sees is None:  # said outright: a model wonders about padding tokens in a prompt
            mask = torch.ones(len(tokens), int(position[0, -1]) + 1, dtype=torch.long, device=self.device)
        else:  # numbers added to scores, which every kind of attention takes
            hidden = torch.from_numpy(~sees).to(self.device)
            mask = torch.zeros(hidden.shape, dtype=self.model.dtype, device=self.device)
            mask.masked_fill_(hidden, torch.finfo(mask.dtype).min)
        out = self.model(
            input_ids=torch.from_numpy(tokens).to(self.device),
            position_ids=torch.from_numpy(position).to(self.device),
            attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
            **more,
        )
        logits: torch.Tensor = out.logits
        return logits

    def _prefill(self, some: list[Writing], trunk: list[Pair]) -> None:
        """Seat writings that share a trunk; all that is known of them is computed but the last token, which the next step reads."""
        depth = len(self.trunks[some[0].trunk])
        seats = [self._sit(writing) for writing in some]
        longer = [k for k, w in enumerate(some) if len(w.ids) - 1 > depth]
        if not longer:
            return
        # As forests, in which every sequence is wanted whole, so that there are no trunks.
        (forest,) = plan([some[k].ids[depth:-1] for k in longer], [0] * len(longer))
        rows = sorted(forest.rows, key=lambda row: -len(row.tokens))
        while rows:
            width = len(rows[0].tokens)
            count = max(1, min(PREFILL // width, 4 * PREFILL // (width + depth)))
            self._prefill_rows(rows[:count], depth, trunk, [seats[k] for k in longer])
            rows = rows[count:]

    def _prefill_rows(self, rows: list[Row], depth: int, trunk: list[Pair], seats: list[tuple[int, Ints]]) -> None:
        width = len(rows[0].tokens)
        tokens, position = np.zeros((len(rows), width), np.int64), np.zeros((len(rows), width), np.int64)
        sees = np.zeros((len(rows), 1, width, depth + width), bool)
        sees[..., :depth] = True
        sees[..., depth:] |= np.eye(width, dtype=bool)  # padding sees itself: a row of nothing gives NaN
        for k, row in enumerate(rows):
            size = len(row.tokens)
            tokens[k, :size], position[k, :size] = row.tokens, depth + row.depth
            sees[k, 0, :size, depth : depth + size] = row.sees()
        new = self._compute(tokens, position, sees, trunk)
        paths = [(k, nodes, *seats[number]) for k, row in enumerate(rows) for number, nodes in row.wanted]
        sizes = [len(nodes) for _, nodes, _, _ in paths]
        index = (
            np.repeat([k for k, _, _, _ in paths], sizes),
            np.concatenate([nodes for _, nodes, _, _ in paths]),
            np.repeat([bench for _, _, bench, _ in paths], sizes),
            np.concatenate([columns for _, _, _, columns in paths]),
        )
        row_of, node_of, bench_of, column_of = (torch.from_numpy(i).to(self.device) for i in index)
        for layer, (k_new, v_new) in zip(self.layers, new, strict=True):
            layer.keys[bench_of, :, column_of] = k_new[row_of, :, node_of]
            layer.values[bench_of, :, column_of] = v_new[row_of, :, node_of]

    def _step(self) -> Iterator[Writing]:
        """One token for everyone seated; yields whose reply is complete."""
        self._send_back()
        seated = [(g, s) for g, b in enumerate(self.benches) for s in b.seated]
        writings = [self.benches[g].seated[s] for g, s in seated]
        for (at, seat), writing, token in zip(seated, writings, self.writer.pick(self._logits(), writings), strict=True):
            if self.writer.write(writing, token):
                self._leave(at, seat)
                yield writing
        self._tidy()

    def _logits(self) -> torch.Tensor:
        """(B, V) logits after the last token of everyone seated, bench by bench."""
        shape = len(self.benches), max(len(b.seated) for b in self.benches)
        tokens, position, columns = (np.zeros(shape, np.int64) for _ in range(3))
        for g, bench in enumerate(self.benches):
            size = len(bench.seated)
            tokens[g, :size] = [w.ids[-1] for w in bench.seated.values()]
            position[g, :size] = [len(w.ids) - 1 for w in bench.seated.values()]
            columns[g, :size] = self._take(g, size)
            self.sees[g, list(bench.seated), columns[g, :size]] = True
        top = int(np.flatnonzero(self.used[: shape[0]].any(0))[-1]) + 1
        sees = np.zeros((shape[0], 1, shape[1], top), bool)
        for g, bench in enumerate(self.benches):
            sees[g, 0, : len(bench.seated)] = self.sees[g, list(bench.seated), :top]
            sees[g, 0, len(bench.seated) :, 0] = True  # padding sees the column that it writes to
        if not self.layers:  # nothing has been computed yet: prompts of one token
            self._compute(tokens[:1, :1], position[:1, :1], None, [])
        self.places.rows = torch.arange(shape[0], device=self.device)[:, None]
        self.places.columns = torch.from_numpy(columns).to(self.device)
        self.places.benches, self.places.top = shape[0], top
        logits = self._forward(tokens, position, sees, Cache(layers=list(self.layers)))
        filled = np.concatenate([g * shape[1] + np.arange(len(b.seated)) for g, b in enumerate(self.benches)])
        return logits.flatten(0, 1)[torch.from_numpy(filled).to(self.device)]


def _soon(writing: Writing) -> int:
    """Tokens that it may write before anybody is sent back."""
    return max(0, min(RESERVE, writing.most - len(writing.ids)))


def seats_for(depth: float, own: float, config: Any) -> int:
    """How many seats make a bench fastest: those on it read the trunk once for all, and look at each other's columns in vain.

    Args:
        depth: tokens of the trunk.
        own: tokens of a request besides.
        config: of the model.
    """
    heads = getattr(config, "num_attention_heads", None) or 1
    keys = getattr(config, "num_key_value_heads", None) or heads

    def cost(seats: int) -> float:
        copies = 1 if seats == 1 or heads == keys else 1 + 2 * heads / keys  # for several queries, shared heads are copied out
        return (depth / seats + own) * keys * copies + (depth + seats * own) * heads * _LOOK

    return min((1, 2, 4, 8, 16), key=cost)
