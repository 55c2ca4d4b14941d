"""YAML as data: nothing dropped, nothing called, one sentence about what is wrong."""

from __future__ import annotations

import time

import pytest

from aligntax.core.errors import InputError
from aligntax.core.ids import seed_of
from aligntax.core.yamlio import read_yaml


def test_plain_data_and_named_tags() -> None:
    assert read_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}", "f") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}
    assert read_yaml("a: !function items.load", "f", names=("!function",)) == {"a": "items.load"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "the key 'a' stands in line 1 and again in line 3"),
        ("arms:\n  x: {model: m}\n  x: {model: n}", "'x' stands in line 2 and again in line 3"),
        ("a: 2026-99-99", "month must be in"),
        ("a: !!int 'x'", "f is no YAML that can be read"),
        ("a: !!bool 'x'", "f is no YAML that can be read"),
        ("a: !!timestamp 'x'", "f is no YAML that can be read"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: !function items.load", "could not determine a constructor"),
        ("[" * 20000, "nested too deeply"),
        ("a: " + "9" * 5000, "f is no YAML that can be read"),
    ],
)
def test_what_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_yaml(text, "f")
    assert "\n" not in str(caught.value)


def test_a_bomb_is_no_bomb() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 30)]
    begun = time.monotonic()
    assert len(read_yaml("\n".join(lines), "f")) == 30
    assert time.monotonic() - begun < 5


def test_seeds_are_of_their_parts() -> None:
    assert seed_of(0, "task", "item", 1) == seed_of(0, "task", "item", 1)
    seeds = {seed_of(run, item, trial) for run in range(3) for item in range(50) for trial in range(4)}
    assert len(seeds) == 600
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seed_of("a", "bc") != seed_of("ab", "c")
