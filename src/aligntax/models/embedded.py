"""The embedded models: their names, folders and what is recorded of them. Imports no torch."""

from __future__ import annotations

import json
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from aligntax.core.errors import InputError
from aligntax.core.words import printable

PREFIX = "lab:"
WEIGHTS = Path(__file__).parent / "weights"
INDEX = "family.json"


@cache
def family(folder: Path = WEIGHTS) -> dict[str, dict[str, Any]]:
    """What is recorded of each model of a family, by name.

    Raises:
        InputError: if the folder holds no family.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{printable(str(folder))} holds no family of models (no {INDEX}); make one with 'aligntax lab build'")
    found = json.loads(path.read_text(encoding="utf-8"))
    return dict(found["models"])


def folder_of(name: str, folder: Path = WEIGHTS) -> Path:
    """The folder of an embedded model, by its name with or without ``lab:``.

    Raises:
        InputError: naming near names, if there is no such model.
    """
    known = family(folder)
    bare = name.removeprefix(PREFIX)
    if bare not in known:
        near = get_close_matches(bare, known, n=3, cutoff=0.4)
        raise InputError(
            f"no embedded model {printable(repr(bare))}; "
            + (f"did you mean {' or '.join(near)}? " if near else "")
            + f"there are: {', '.join(known)}"
        )
    return folder / bare
