"""Hostile texts in what is printed."""

from __future__ import annotations

import json

import pytest

from aligntax.core.words import printable, safe_json

HOSTILE = "a\u202eb\x9b31mc\u2028d\U000e0001e \u00e9 \u6f22 \U0001f600 \ud800"


def test_json_for_a_terminal_is_the_same_data() -> None:
    text = json.dumps({"k": HOSTILE}, ensure_ascii=False, indent=1)
    safe = safe_json(text)
    assert json.loads(safe) == {"k": HOSTILE}
    assert "\u00e9 \u6f22 \U0001f600" in safe
    for bad in "\u202e\x9b\u2028\U000e0001\ud800":
        assert bad not in safe
    assert safe_json('{"a": 1}\n') == '{"a": 1}\n'


@pytest.mark.parametrize("bad", ["\x1b[2J", "\u202e", "\x9b", "\u200b", "\ud800"])
def test_nothing_acts_on_a_terminal(bad: str) -> None:
    assert bad[0] not in printable(f"x{bad}y")
