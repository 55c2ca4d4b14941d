"""The embedded models: their names, folders and what is recorded of them. Imports no torch."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aligntax.core.errors import InputError
from aligntax.core.words import printable

PREFIX = "lab:"
WEIGHTS = Path(__file__).parent / "weights"
INDEX = "family.json"
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]  # a folder of its own, and no way out of it


class Accuracy(BaseModel):
    """Share right by task, raw and in a chat; ``refused: <task>`` is the share refused where that is not the right answer."""

    raw: dict[str, Share]
    chat: dict[str, Share]


class Facts(BaseModel):
    """What is recorded of one model."""

    model_config = ConfigDict(extra="allow")

    stage: str
    width: int
    seed: int
    parent: str | None
    parameters: int
    seconds: int
    accuracy: Accuracy
    sha256: dict[str, str]


class Record(BaseModel):
    """What is recorded of a family."""

    model_config = ConfigDict(extra="allow")

    models: Annotated[dict[Name, Facts], Field(min_length=1)]
    entanglement: dict[str, dict[str, Share]]
    items: dict[str, dict[str, int]]


@cache
def record(folder: Path = WEIGHTS) -> dict[str, Any]:
    """The whole record of a family.

    Raises:
        InputError: if the folder holds no family, or its record is none.
    """
    path = folder / INDEX
    if not path.is_file():
        raise InputError(f"{printable(str(folder))} holds no family of models (no {INDEX}); make one with 'aligntax lab build'")
    try:
        return Record.model_validate_json(path.read_bytes()).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        what = printable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")[:200]
        raise InputError(f"{printable(str(path))} is no record of a family ({what})") from None
    except OSError as error:
        raise InputError(f"{printable(str(path))} cannot be read: {printable(str(error))}") from None


def family(folder: Path = WEIGHTS) -> dict[str, dict[str, Any]]:
    """What is recorded of each model of a family, by name; errors as of ``record``."""
    return dict(record(folder)["models"])


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
