"""YAML as data: the safe loader, no key twice, and one sentence about whatever is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable


class _Loader(yaml.SafeLoader):
    """The safe loader; a key that stands twice is an error, since one of the two would be dropped silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise yaml.YAMLError(f"the key {key.value!r} stands in line {seen[key.value]} and again in line {line}")
                seen[key.value] = line
        return super().construct_mapping(node, deep)


def read_yaml(text: str, where: str, names: Sequence[str] = ()) -> Any:
    """What a YAML text says.

    Args:
        text: the YAML.
        where: names the file in messages.
        names: tags whose values are taken as plain text (lm-eval's ``!function``); nothing is ever called.

    Raises:
        InputError: if it is no YAML, a key stands twice, or a value is not what its tag says.
    """
    loader = type("_Named", (_Loader,), {})
    for tag in names:
        loader.add_constructor(tag, lambda _, node: str(node.value))  # type: ignore[attr-defined]
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - a safe loader
    # The loader raises whatever a value's constructor raises: a date that is none, a number of 5,000 digits.
    except (yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise InputError(f"{where} is no YAML that can be read: {cut(printable(why), 300)}") from None
