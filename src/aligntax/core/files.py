"""Small files that people name, read up to a limit; one sentence about whatever is wrong."""

from __future__ import annotations

from pathlib import Path
from stat import S_ISDIR, S_ISREG

from aligntax.core.errors import InputError
from aligntax.core.words import printable

MAX_BYTES = 2**20
"""Of what somebody wrote by hand: a budget, a roster, costs."""


def read_text(path: Path, small: str, most: int = MAX_BYTES, *, pipes: bool = False) -> str:
    """A text in UTF-8; arguments as of ``read_bytes``.

    Raises:
        InputError: if it is none, is larger, or cannot be read.
    """
    try:
        return read_bytes(path, small, most, pipes=pipes).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{printable(str(path))} is no UTF-8 text") from None


def read_bytes(path: Path, small: str, most: int = MAX_BYTES, *, pipes: bool = False) -> bytes:
    """What a file holds.

    Args:
        path: the file.
        small: ends the sentence about one that is too large: what is expected, or what to do.
        most: bytes that it may have, a whole number of MiB.
        pipes: whether it may be a pipe, as ``<(...)`` of a shell is; without it only a regular file will do, since nobody may ever write to a pipe.

    Raises:
        InputError: if it is a folder, no such file, larger, or cannot be read.
    """
    where = printable(str(path))
    try:
        mode = path.stat().st_mode
        if S_ISDIR(mode):
            raise InputError(f"{where} is a folder; name a file in it")
        if not (pipes or S_ISREG(mode)):
            raise InputError(f"{where} is no regular file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except InputError:
        raise
    except (OSError, ValueError) as error:  # of a name that holds a null
        raise InputError(f"{where} cannot be read: {printable(getattr(error, 'strerror', None) or str(error))}") from None
    if len(data) > most:
        raise InputError(f"{where} is larger than {most // 2**20} MiB; {small}")
    return data
