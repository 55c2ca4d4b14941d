"""Small files: every command that is given one reads it up to a limit, and says in one sentence what is wrong with it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligntax.atlas.pairs import Pair, pair_set
from aligntax.atlas.protocol import Plan, Protocol
from aligntax.atlas.roster import Rater, Roster, read_roster
from aligntax.atlas.run import planned
from aligntax.core.budget import read_budget
from aligntax.core.costs import read_costs
from aligntax.core.errors import InputError
from aligntax.core.files import MAX_BYTES, read_bytes, read_text
from aligntax.flow.development import MAX_STATE_BYTES, read_trainer_state

ENSEMBLE = Roster(models={"m": Rater(model="api:http://127.0.0.1:9/v1#m")})
BUDGET = b"budgets:\n  - {lose_at_most: 0.01}\n"
ROSTER = b"models: {m: {model: 'api:http://127.0.0.1:9/v1#m'}}\n"


def expected(path: Path) -> str | None:
    pairs = pair_set([Pair("p", "a", None, "one", "two", None)], "test")
    return planned(path.parent / "no run", Plan(Protocol(), pairs), ENSEMBLE, path).expected


TEXTS: dict[str, Callable[[Path], Any]] = {"costs": read_costs, "budget": read_budget, "roster": read_roster}
READERS = {**TEXTS, "trainer state": read_trainer_state, "expectations": expected}
PIPED = {"budget": (read_budget, BUDGET), "roster": (read_roster, ROSTER), "expectations": (expected, b"control < clash \xff")}
"""What may come from a pipe; the others are named in files, or name files beside them."""
LARGE = {
    "costs": "1 MiB; costs.yaml is a small text",
    "budget": "1 MiB; a budget is a small text",
    "roster": "1 MiB; a roster is a small text",
    "trainer state": "64 MiB; name flops and hours in the costs file instead",
    "expectations": "64 MiB; what is expected goes into a file of its own",
}


def refusal(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    said = str(caught.value)
    assert said.isprintable()
    return said


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file(name: str, tmp_path: Path) -> None:
    read = READERS[name]
    assert refusal(read, tmp_path / "none") == f"{tmp_path / 'none'} cannot be read: No such file or directory"
    assert refusal(read, tmp_path) == f"{tmp_path} is a folder; name a file in it"
    assert refusal(read, tmp_path / "none" / ("n" * 5000)).endswith("cannot be read: File name too long")
    assert "cannot be read: " in refusal(read, tmp_path / "a\0\x1b")


@pytest.mark.parametrize("name", READERS)
def test_what_is_too_large_or_endless(name: str, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(2**36)  # which takes no room, and is more than anybody reads
    assert refusal(READERS[name], tmp_path / "large") == f"{tmp_path / 'large'} is larger than {LARGE[name]}"
    why = f"is larger than {LARGE[name]}" if name in PIPED else "is no regular file"
    assert refusal(READERS[name], Path("/dev/zero")) == f"/dev/zero {why}"


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_text(name: str, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"a: caf\xe9\n")
    assert refusal(TEXTS[name], tmp_path / "latin") == f"{tmp_path / 'latin'} is no UTF-8 text"


@pytest.mark.parametrize("name", [name for name in READERS if name not in PIPED])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert refusal(READERS[name], tmp_path / "pipe") == f"{tmp_path / 'pipe'} is no regular file"


@pytest.mark.parametrize("name", PIPED)
def test_what_comes_from_a_pipe_is_what_a_file_says(name: str, tmp_path: Path) -> None:
    read, content = PIPED[name]
    (tmp_path / "file").write_bytes(content)
    out, into = os.pipe()
    os.write(into, content)
    os.close(into)
    try:
        assert read(Path(f"/dev/fd/{out}")) == read(tmp_path / "file")
    finally:
        os.close(out)


def test_what_was_expected_may_be_of_any_kind_and_length(tmp_path: Path) -> None:
    content = b"\xff\x00" * MAX_BYTES
    (tmp_path / "expect.pdf").write_bytes(content)
    assert expected(tmp_path / "expect.pdf") == hashlib.sha256(content).hexdigest()


def test_the_limit_itself_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MAX_BYTES)
    assert read_text(path, "") == "x" * MAX_BYTES
    assert len(read_bytes(path, "", MAX_STATE_BYTES)) == MAX_BYTES
    path.write_bytes(b"x" * (MAX_BYTES + 1))
    assert refusal(lambda p: read_text(p, "shorter"), path) == f"{path} is larger than 1 MiB; shorter"
    assert len(read_bytes(path, "", MAX_STATE_BYTES)) == MAX_BYTES + 1
