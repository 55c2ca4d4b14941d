"""Reading text, JSON and zip files that nobody vouches for: bounded, streaming, and never trusting a path or a size."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TextIO, cast

from aligntax.core.errors import LogError
from aligntax.core.words import printable

MAX_ROW_CHARS = 64 * 2**20
"""A single JSON row longer than this is refused: no evaluation log has one, and it would not fit beside its peers."""

MAX_MEMBER = 512 * 2**20
"""A single member of an archive that is read whole (a sample of an agent's run) is no larger."""
MAX_ZIP_RATIO = 100
MAX_ZIP_BYTES = 64 * 2**30
MAX_ZIP_MEMBERS = 200_000
_ZSTANDARD, _LOCAL_HEADER = 93, 30  # of the zip format
_BOMB_FLOOR = 10 * 2**20  # small members compress to anything

_FIRST_CHUNK, _LAST_CHUNK = 1 << 20, 1 << 24
_SPACE = " \t\r\n"


def shown(path: Path | str) -> str:
    """A file name for a message, control characters made visible."""
    return printable(str(path))


@contextmanager
def opened(path: Path) -> Iterator[Iterator[tuple[str, TextIO]]]:
    """The text streams inside ``path``: the file itself, or every ``.json``/``.jsonl`` member of a zip.

    Yields:
        An iterator of (name for messages, text stream). Streams are read one after the other.

    Raises:
        LogError: on what cannot be opened, is not UTF-8, or is an unsafe or damaged archive.
    """
    with _said(path):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                yield _members(path, archive)
        else:
            with path.open("rb") as raw:
                yield iter([(shown(path), _text(raw))])


@contextmanager
def archive_of(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read members of, one by one.

    Raises:
        LogError: on what cannot be opened, or is damaged.
    """
    with _said(path), zipfile.ZipFile(path) as archive:
        yield archive


@contextmanager
def _said(path: Path) -> Iterator[None]:
    """What goes wrong with a file, in one sentence."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise LogError(
            f"{shown(path)} is not UTF-8 text (byte {error.object[error.start]:#04x} where a character should be); save it as UTF-8"
        ) from None
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise LogError(f"{shown(path)} is a damaged zip file ({error}); fetch it again") from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, RecursionError):
            raise LogError(f"{shown(path)} nests too deeply to be an evaluation log") from None
        raise LogError(f"{shown(path)} cannot be read: {printable(str(error))}") from None


def _text(raw: Any) -> TextIO:
    return cast("TextIO", io.TextIOWrapper(raw, encoding="utf-8-sig", errors="strict", newline="\n"))


def json_members(path: Path, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The JSON members of an archive, after checking every member's name and size.

    Raises:
        LogError: on hostile paths, encryption, too many members, or sizes that only a zip bomb has.
    """
    infos = archive.infolist()
    if len(infos) > MAX_ZIP_MEMBERS:
        raise LogError(f"{shown(path)} holds {len(infos):,} members; at most {MAX_ZIP_MEMBERS:,} are read")
    for info in infos:
        _check_member(path, info)
    if sum(info.file_size for info in infos) > MAX_ZIP_BYTES:
        raise LogError(f"{shown(path)} would unpack to more than {MAX_ZIP_BYTES // 2**30} GiB; split it")
    return [i for i in infos if not i.is_dir() and i.filename.lower().endswith((".json", ".jsonl"))]


def member_json(path: Path, archive: zipfile.ZipFile, name: str) -> Any:
    """One member as JSON, of moderate size. Zstandard, which Python reads by itself from 3.14 on, is read as well.

    Raises:
        LogError: if it is no JSON, too large, or damaged.
    """
    info = archive.getinfo(name)
    where = f"{shown(path)}:{printable(name)}"
    _check_member(path, info)
    if info.file_size > MAX_MEMBER:
        raise LogError(f"{where} is larger than {MAX_MEMBER // 2**20} MiB, which no sample is")
    try:
        return json.loads(_unpacked(archive, info, where))
    except UnicodeDecodeError:
        raise LogError(f"{where} is not UTF-8 text") from None
    except RecursionError:
        raise LogError(f"{where} nests too deeply to be a log") from None
    except ValueError as error:
        raise LogError(f"{where} is not valid JSON ({printable(str(error))})") from None


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo, where: str) -> bytes:
    if info.compress_type != _ZSTANDARD or hasattr(zipfile, "ZIP_ZSTANDARD"):
        return archive.read(info)
    import zstandard

    raw = archive.fp
    assert raw is not None  # noqa: S101 - it is open
    raw.seek(info.header_offset)
    header = raw.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\x03\x04":
        raise LogError(f"{where} is damaged; fetch the log again")
    names, extra = struct.unpack("<HH", header[26:30])
    raw.seek(names + extra, io.SEEK_CUR)
    try:
        with zstandard.ZstdDecompressor().stream_reader(raw.read(info.compress_size), read_across_frames=True) as stream:
            data = bytes(stream.read(info.file_size + 1))
    except zstandard.ZstdError as error:
        raise LogError(f"{where} is damaged ({printable(str(error))}); fetch the log again") from None
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise LogError(f"{where} is damaged: its checksum does not fit; fetch the log again")
    return data


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    name = info.filename
    parts = {*PurePosixPath(name).parts, *PureWindowsPath(name).parts}
    if ".." in parts or PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or "\\" in name or "\0" in name:
        raise LogError(f"{shown(path)} holds a member with an unsafe path ({printable(name)!r}); a log needs plain relative names")
    if info.flag_bits & 0x1:
        raise LogError(f"{shown(path)} is encrypted ({printable(name)}); unpack it first")
    if info.file_size > _BOMB_FLOOR and info.file_size > MAX_ZIP_RATIO * max(info.compress_size, 1):
        raise LogError(
            f"{shown(path)}: {printable(name)} would unpack {info.file_size // max(info.compress_size, 1):,}-fold to "
            f"{info.file_size:,} bytes, as only a zip bomb does; logs compress at most {MAX_ZIP_RATIO}-fold"
        )


def _members(path: Path, archive: zipfile.ZipFile) -> Iterator[tuple[str, TextIO]]:
    members = json_members(path, archive)
    if not members:
        raise LogError(f"{shown(path)} holds no .json or .jsonl member; {len(archive.infolist())} members of other kinds")
    for info in members:
        with archive.open(info) as raw:
            yield f"{shown(path)}:{printable(info.filename)}", _text(raw)


def json_rows(stream: TextIO, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array or of JSON lines, one at a time, with their number (from 1).

    Raises:
        LogError: on anything that is not an object per row, on truncation, and on rows beyond ``MAX_ROW_CHARS``.
    """
    buffer = stream.read(_FIRST_CHUNK)
    if not buffer.strip(_SPACE):
        raise LogError(f"{where} is empty; an evaluation log was expected")
    start = len(buffer) - len(buffer.lstrip(_SPACE))
    is_array = buffer[start] == "["
    yield from _objects(stream, buffer, start + 1 if is_array else start, where, is_array)


def _objects(stream: TextIO, buffer: str, at: int, where: str, is_array: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    decoder = json.JSONDecoder()
    skip = _SPACE + "," if is_array else _SPACE
    row, chunk, ended, closed = 0, _FIRST_CHUNK, False, False
    while True:
        while at < len(buffer) and buffer[at] in skip:
            at += 1
        if at < len(buffer):
            if is_array and buffer[at] == "]":
                closed = True
                break
            found = _decode(decoder, buffer, at, f"{where}, row {row + 1}", final=ended)
            if found is not None:
                value, after = found
                row, at, chunk = row + 1, after, _FIRST_CHUNK
                yield row, value
                continue
        elif ended:
            break
        if len(buffer) - at > MAX_ROW_CHARS:
            raise _too_long(f"{where}, row {row + 1}")
        more = stream.read(chunk)
        ended, chunk = not more, min(chunk * 2, _LAST_CHUNK)
        buffer, at = buffer[at:] + more, 0
    if is_array and not closed:
        raise LogError(f"{where} ends after row {row} without closing its list; is the file truncated?")
    if row == 0:
        raise LogError(f"{where} holds no rows")


def _decode(decoder: json.JSONDecoder, buffer: str, at: int, where: str, *, final: bool) -> tuple[dict[str, Any], int] | None:
    """(object, where it ends), or None if it is cut off and more text may come (``final`` says that none will)."""
    if buffer[at] != "{":
        raise LogError(f"{where}: a JSON object was expected, found {_glimpse(buffer[at:])}")
    try:
        value, after = decoder.raw_decode(buffer, at)
    except RecursionError:
        raise LogError(f"{where} nests too deeply to be an evaluation log") from None
    except ValueError as error:
        if not final:
            return None
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise LogError(f"{where} is not complete JSON ({what}); is the file truncated?") from None
    if after - at > MAX_ROW_CHARS:
        raise _too_long(where)
    return value, after


def _too_long(where: str) -> LogError:
    return LogError(f"{where} is longer than {MAX_ROW_CHARS // 2**20} MiB or not valid JSON; no log has such rows")


def _glimpse(text: str, limit: int = 40) -> str:
    return repr(printable(text[:limit])) + ("..." if len(text) > limit else "")


def load_json(path: Path) -> Any:
    """One whole JSON document of moderate size.

    Raises:
        LogError: if it is not one.
    """
    try:
        if path.stat().st_size > MAX_ROW_CHARS:
            raise LogError(f"{shown(path)} is larger than {MAX_ROW_CHARS // 2**20} MiB, which no results file is")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise LogError(f"{shown(path)} is not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise LogError(f"{shown(path)} nests too deeply to be a results file") from None
    except OSError as error:
        raise LogError(f"{shown(path)} cannot be read: {printable(str(error))}") from None
    except ValueError as error:
        raise LogError(f"{shown(path)} is not valid JSON ({error}); is the file truncated?") from None
