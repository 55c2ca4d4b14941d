"""Ratings of sentence pairs by many models: read from a table, checked, and laid out as an array."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import numpy as np
import numpy.typing as npt

from aligntax.core.errors import InputError, LogError
from aligntax.core.words import cut, printable
from aligntax.store.columns import Texts, read_columns
from aligntax.store.jsonio import shown

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FACETS = ("order", "variant", "repeat")
"""How often a model rated a pair: with the sentences in which order, by which wording of the question, and how many times."""
OF_PAIRS = ("category", "topic", "reference", "text_a", "text_b")
PARENT, STAGE = "parent", "stage"
"""Columns that say where a model comes from, and by which stage of training; read wherever they are."""
"""Column of the model that a model was made from: it makes families of stages, and is no group like the others."""
MAX_CELLS = 200_000_000


def known_mean(x: FloatArray, axis: int) -> FloatArray:
    """Mean along an axis of what is not missing; NaN where nothing is there."""
    known = np.isfinite(x)
    n = known.sum(axis=axis)
    return np.asarray(np.where(known, x, 0.0).sum(axis=axis) / np.where(n > 0, n, np.nan))


def numbered(names: Sequence[str | None]) -> IntArray:
    """Codes 0, 1, ... of names in the order in which they appear; who has none is alone under a code of its own."""
    known: dict[object, int] = {}
    return np.array([known.setdefault(i if name is None else name, len(known)) for i, name in enumerate(names)], dtype=np.int64)


@dataclass(frozen=True)
class Ratings:
    """Ratings in [0, 1], one cell per pair, model, order, variant and repeat.

    Attributes:
        x: (pairs, models, orders, variants, repeats), NaN where there is no rating.
        asked: the same shape: a row says that this was asked, whatever came of it.
        pairs, models, orders, variants: names along the first four axes, in the order in which they appeared.
        category: of every pair.
        topic: of every pair, shared by pairs that were matched to one another; None without such a column.
        reference: (pairs,) what people (or whoever is named) say, in [0, 1], NaN where unknown.
        texts: of every pair, None where unknown.
        groups: by column, the label of every model, None where it has none.
        lineage: the same of the columns ``parent`` and ``stage``, as far as they are there.
        missing: (model, category, why) -> how many were asked and gave no rating.
        modes: how ratings were made (``sampled``, ``logprob``), by model, where the table says so.
        source: file name.
        notes: what was taken for what, in words.
    """

    x: FloatArray
    asked: npt.NDArray[np.bool_]
    pairs: tuple[str, ...]
    models: tuple[str, ...]
    orders: tuple[str, ...]
    variants: tuple[str, ...]
    category: tuple[str, ...]
    topic: tuple[str | None, ...] | None
    reference: FloatArray
    texts: tuple[tuple[str, str] | None, ...]
    groups: Mapping[str, tuple[str | None, ...]]
    missing: Mapping[tuple[str, str, str], int]
    modes: Mapping[str, tuple[str, ...]]
    source: str
    notes: tuple[str, ...] = ()
    lineage: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        """In the order in which they appeared."""
        return tuple(dict.fromkeys(self.category))

    def means(self) -> FloatArray:
        """(pairs, models) mean rating over orders, variants and repeats; NaN where there is none.

        Each order has the same weight, within it each variant, within it each repeat: a lost repeat does not tilt the mean to the other order.
        """
        return known_mean(known_mean(known_mean(self.x, 4), 3), 2)


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are called, and on which scale it rates."""

    pair: str = "pair"
    category: str = "category"
    model: str = "model"
    rating: str = "rating"
    groups: tuple[str, ...] = ()
    scale: tuple[float, float] = (0.0, 1.0)


def read_ratings(path: Path, columns: Columns | None = None, models: Path | None = None) -> Ratings:
    """Ratings from a table: one row per rating, or one row per pair with a column per model.

    Args:
        path: CSV, TSV, JSON lines or Parquet with ``pair``, ``category``, ``model``, ``rating`` and, where known, ``order``, ``variant``,
            ``repeat``, ``topic``, ``reference``, ``text_a``, ``text_b``, ``status``, ``mode``, ``group``. Without ``model`` and ``rating``
            every other column is a model.
        columns: other names, the columns that group models, the scale.
        models: a second table with a row per model (``model``) and its groups, one per column.

    Raises:
        LogError: on what cannot be read, or is no table of ratings; the row is named.
        InputError: if a named column is not there.
    """
    want = columns or Columns()
    low, high = want.scale
    if not (isfinite(low) and isfinite(high) and low < high):
        raise InputError(f"the scale must run from a number to a larger one, such as 0:1 or 0:100; got {low:g}:{high:g}")
    given = read_columns(path)
    table, notes = _long(given, want, shown(path))
    found = _Loader(table, want, shown(path), len(next(iter(given.values())))).ratings(path.name, notes)
    if models is not None:
        return _with_groups(found, models, want)
    if gone := [name for name in want.groups if name not in table]:
        raise InputError(
            f"{shown(path)} has no column {printable(gone[0])!r} to group models by; it has {cut(', '.join(map(printable, table)), 300)}"
        )
    return found


def _long(table: dict[str, Texts], want: Columns, where: str) -> tuple[dict[str, Texts], list[str]]:
    """The table with a row per rating; a wide one is turned, and a note says which columns were taken for models."""
    names = ", ".join(map(printable, table))
    if want.model in table and want.rating in table:
        need = [c for c in (want.pair, want.category) if c not in table]
        if need:
            raise LogError(f"{where} has no column {' or '.join(map(printable, need))}; it has {cut(names, 300)}")
        return table, []
    default = (want.model, want.rating) == ("model", "rating")
    if not default or (want.model in table) != (want.rating in table) or want.pair not in table or want.category not in table:
        missing = [c for c in (want.pair, want.category, want.model, want.rating) if c not in table]
        raise LogError(
            f"{where} has no column {', '.join(map(printable, missing))}; it has {cut(names, 300)}. A table of ratings has a row per rating with "
            "pair, category, model and rating, or a row per pair with pair, category and a column per model"
        )
    models = [c for c in table if c not in (want.pair, want.category, *OF_PAIRS, *FACETS)]
    if not models:
        raise LogError(f"{where} has pairs and no ratings: name model and rating, or give every model a column")
    size = len(table[want.pair])
    wide = {name: np.tile(column, len(models)) for name, column in table.items() if name not in models}
    wide["model"] = np.repeat(np.array(models, dtype=object), size)
    wide["rating"] = np.concatenate([table[name] for name in models])
    return wide, [f"a row per pair: the columns {cut(', '.join(map(printable, models)), 300)} were taken for models"]


@dataclass
class _Loader:
    """Columns of text on their way to an array.

    Attributes:
        rows: of the file; fewer than those of ``table``, where every model had a column.
    """

    table: dict[str, Texts]
    want: Columns
    where: str
    rows: int
    codes: dict[str, tuple[IntArray, tuple[str, ...]]] = field(default_factory=dict)

    def ratings(self, source: str, notes: Sequence[str]) -> Ratings:
        want = self.want
        pair, pairs = self._coded(want.pair, needed=True)
        model, models = self._coded(want.model, needed=True)
        order, orders = self._coded("order")
        variant, variants = self._coded("variant")
        repeat, repeats = self._coded("repeat")
        shape = (len(pairs), len(models), len(orders), len(variants), len(repeats))
        if int(np.prod(shape, dtype=float)) > MAX_CELLS:
            raise LogError(
                f"{self.where} spans {' x '.join(map(str, shape))} pairs, models, orders, variants and repeats, more than {MAX_CELLS:,} cells; "
                "repeats are numbers that start again for every pair and model"
            )
        at = (pair, model, order, variant, repeat)
        flat = np.ravel_multi_index(at, shape)
        self._once(flat)
        x, asked = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
        value = self._values()
        x[at], asked[at] = value, True
        category = self._of_pairs(want.category, pair, pairs, needed=True)
        topic = self._of_pairs("topic", pair, pairs) if "topic" in self.table else None
        texts = [self._of_pairs(name, pair, pairs) if name in self.table else [None] * len(pairs) for name in ("text_a", "text_b")]

        def of(column: str) -> tuple[str | None, ...]:
            return tuple(self._of_models(column, model, models))

        return Ratings(
            x,
            asked,
            pairs,
            models,
            orders,
            variants,
            tuple(str(one) for one in category),
            None if topic is None else tuple(topic),
            self._reference(pair, pairs),
            tuple(None if a is None or b is None else (a, b) for a, b in zip(*texts, strict=True)),
            {name: of(name) for name in self.want.groups or ("group", STAGE) if name in self.table},
            self._missing(value, model, models, pair, category),
            self._modes(model, models),
            source,
            tuple(notes),
            {name: of(name) for name in (PARENT, STAGE) if name in self.table},
        )

    def _row(self, at: int) -> str:
        wide = len(self.table[self.want.pair]) > self.rows
        return f"{self.where}, row {at % self.rows + 1}" + (
            f", column {cut(printable(str(self.table[self.want.model][at])), 60)}" if wide else ""
        )

    def _coded(self, name: str, *, needed: bool = False) -> tuple[IntArray, tuple[str, ...]]:
        """(code of every row, names in the order in which they appear); one nameless value where there is no such column."""
        size = len(self.table[self.want.pair])
        if name not in self.table:
            return np.zeros(size, dtype=np.int64), ("",)
        column = self.table[name]
        if needed and (empty := np.flatnonzero(column == None)).size:  # noqa: E711 - elementwise
            raise LogError(f"{self._row(int(empty[0]))} has no {printable(name)}")
        known: dict[str | None, int] = {}
        codes = np.fromiter((known.setdefault(cell, len(known)) for cell in column), dtype=np.int64, count=size)
        return codes, tuple("" if cell is None else cell for cell in known)

    def _once(self, flat: IntArray) -> None:
        """No cell is rated twice.

        Raises:
            LogError: naming the row.
        """
        _, first, count = np.unique(flat, return_index=True, return_counts=True)
        if (count > 1).any():
            seen = flat == flat[first[np.argmax(count > 1)]]
            one, two = np.flatnonzero(seen)[:2]
            named = ", ".join(
                f"{name} {printable(str(self.table[name][one]))}"
                for name in (self.want.pair, self.want.model, *FACETS)
                if name in self.table
            )
            raise LogError(
                f"{self._row(int(two))} rates what row {int(one) % self.rows + 1} rates ({cut(named, 200)}); a column repeat (order, variant) tells them apart"
            )

    def _values(self) -> FloatArray:
        """Ratings on [0, 1].

        Raises:
            LogError: on what is no number, or off the scale.
        """
        low, high = self.want.scale
        out = np.full(len(self.table[self.want.rating]), np.nan)
        known: dict[str, float] = {}
        for at, cell in enumerate(self.table[self.want.rating]):
            if cell is None:
                continue
            value = known.get(cell)
            if value is None:
                value = known[cell] = _number(cell)
                if not low <= value <= high:
                    raise LogError(
                        f"{self._row(at)}: rating is {cut(printable(repr(cell)), 60)}; ratings are numbers from {low:g} to {high:g} (another scale is named "
                        "with --scale, such as 0:100), and empty where a model gave none"
                    )
            out[at] = value
        return (out - low) / (high - low)

    def _of_pairs(self, name: str, pair: IntArray, pairs: Sequence[str], *, needed: bool = False) -> list[str | None]:
        return self._fixed(name, pair, pairs, "pair", needed=needed)

    def _of_models(self, name: str, model: IntArray, models: Sequence[str]) -> list[str | None]:
        return self._fixed(name, model, models, "model", needed=False)

    def _fixed(self, name: str, code: IntArray, names: Sequence[str], what: str, *, needed: bool) -> list[str | None]:
        """A column that says something of every pair or model; rows may leave it empty, but not contradict each other.

        Raises:
            LogError: naming the row.
        """
        out: list[str | None] = [None] * len(names)
        for at, (of, cell) in enumerate(zip(code.tolist(), self.table[name], strict=True)):
            if cell is None:
                continue
            if out[of] is None:
                out[of] = cell
            elif out[of] != cell:
                raise LogError(
                    f"{self._row(at)}: {what} {cut(printable(names[of]), 60)} has {printable(name)} {cut(printable(cell), 60)!r} and had "
                    f"{cut(printable(str(out[of])), 60)!r} before; a {what} has one"
                )
        if needed and (none := next((n for n, cell in zip(names, out, strict=True) if cell is None), None)) is not None:
            raise LogError(f"{self.where}: {what} {cut(printable(none), 60)} has no {printable(name)}")
        return out

    def _reference(self, pair: IntArray, pairs: Sequence[str]) -> FloatArray:
        out = np.full(len(pairs), np.nan)
        if "reference" not in self.table:
            return out
        low, high = self.want.scale
        for at, cell in enumerate(self._of_pairs("reference", pair, pairs)):
            if cell is None:
                continue
            value = _number(cell)
            if not low <= value <= high:
                raise LogError(
                    f"{self.where}: the reference of pair {cut(printable(pairs[at]), 60)} is {cut(printable(repr(cell)), 60)}, no number from {low:g} to {high:g}"
                )
            out[at] = (value - low) / (high - low)
        return out

    def _missing(
        self, value: FloatArray, model: IntArray, models: Sequence[str], pair: IntArray, category: Sequence[str | None]
    ) -> dict[tuple[str, str, str], int]:
        out: dict[tuple[str, str, str], int] = {}
        status = self.table.get("status")
        for at in np.flatnonzero(np.isnan(value)):
            why = "no rating" if status is None or status[at] is None else str(status[at])
            key = (models[model[at]], str(category[pair[at]]), why)
            out[key] = out.get(key, 0) + 1
        return out

    def _modes(self, model: IntArray, models: Sequence[str]) -> dict[str, tuple[str, ...]]:
        if "mode" not in self.table:
            return {}
        found: dict[str, dict[str, None]] = {}
        for of, cell in zip(model.tolist(), self.table["mode"], strict=True):
            if cell is not None:
                found.setdefault(models[of], {})[cell] = None
        return {name: tuple(sorted(of)) for name, of in found.items()}


def _number(cell: str) -> float:
    """The number a cell says, NaN if it says none."""
    try:
        return float(cell) if "_" not in cell else float("nan")  # Python reads 0_5 as 5
    except ValueError:
        return float("nan")


def _with_groups(found: Ratings, path: Path, want: Columns) -> Ratings:
    """Groups from a table of models.

    Raises:
        LogError: if a model is not there or there twice. InputError: if a named column is not there.
    """
    table, where = read_columns(path), shown(path)
    if want.model not in table:
        raise LogError(f"{where} has no column {printable(want.model)}; it has {cut(', '.join(map(printable, table)), 300)}")
    rows: dict[str, int] = {}
    for at, name in enumerate(table[want.model]):
        if name is None or name in rows:
            raise LogError(
                f"{where}, row {at + 1}: {'no model is named' if name is None else f'{cut(printable(name), 60)} stands there twice'}"
            )
        rows[name] = at
    if gone := next((name for name in found.models if name not in rows), None):
        raise LogError(
            f"{where} has no row for {cut(printable(gone), 60)}, which rated pairs; it has {cut(', '.join(map(printable, rows)), 300)}"
        )
    columns = want.groups or tuple(name for name in table if name not in (want.model, PARENT))
    if wrong := next((name for name in want.groups if name not in table and name not in found.groups), None):
        raise InputError(
            f"no column {printable(wrong)!r} in {where}, to group models by; it has {cut(', '.join(map(printable, table)), 300)}"
        )
    groups, lineage = (
        {name: tuple(table[name][rows[model]] for model in found.models) for name in names if name in table}
        for names in (columns, (PARENT, STAGE))
    )
    return replace(found, groups={**found.groups, **groups}, lineage={**found.lineage, **lineage})
