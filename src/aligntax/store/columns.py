"""A table as columns of text: CSV, TSV, JSON lines, a JSON list, or Parquet. For tables that are not scores (ratings, pairs of sentences)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from aligntax.core.errors import LogError
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, opened, shown
from aligntax.store.loading import quoted
from aligntax.store.logs import Sighting
from aligntax.store.readers.table import database_relation, first_line

Texts = npt.NDArray[np.object_]
"""(N,) texts, None where a cell is empty."""


def read_columns(path: Path) -> dict[str, Texts]:
    """Every column by name, cells stripped, all of one length.

    Raises:
        LogError: on what cannot be read as a table, or has no rows; row and column are named.
    """
    seen = Sighting(path)
    if seen.is_dir:
        raise LogError(f"{shown(path)} is a folder; a table is expected: CSV, TSV, JSON lines or Parquet")
    found = _from_json(path) if seen.looks_like_json else _from_database(path, "parquet" if seen.head[:4] == b"PAR1" else "csv")
    if not found or not len(next(iter(found.values()))):
        raise LogError(f"{shown(path)} holds no rows")
    return found


def _from_json(path: Path) -> dict[str, Texts]:
    rows: list[dict[str, Any]] = []
    with opened(path) as streams:
        for where, stream in streams:
            for number, row in json_rows(stream, where):
                if bad := next((key for key, value in row.items() if isinstance(value, dict | list)), None):
                    raise LogError(f"{where}, row {number}: {printable(bad)[:80]} holds a list or an object; cells are texts and numbers")
                rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return {str(name): _texts([label_text(row.get(name)) for row in rows]) for name in names}


def _from_database(path: Path, form: str) -> dict[str, Texts]:
    import duckdb

    try:
        relation = database_relation(path, form)
        with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as con:
            names = [str(row[0]) for row in con.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()]
            cells = ", ".join(f"nullif(trim(CAST({quoted(name)} AS VARCHAR)), '') AS {quoted(name)}" for name in names)
            found = con.execute(f"SELECT {cells} FROM {relation}").fetchnumpy()
    except duckdb.Error as error:
        raise LogError(f"{shown(path)} is no readable {form.upper()} table: {first_line(error)}") from None
    return {name: _texts(np.ma.asarray(found[name]).tolist()) for name in names}  # a list has None where an array is masked


def _texts(cells: Any) -> Texts:
    out = np.empty(len(cells), dtype=object)
    out[:] = [None if cell is None or not (text := str(cell).strip()) else text for cell in cells]
    return out
