"""Which categories are controls, which anchors: as somebody says, else as their names do."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable

CONTROLS, ANCHORS = ("control*", "*_control", "*control"), ("anchor*",)
"""Names of categories, where nobody says which are which."""


def roles_of(
    categories: Sequence[str], controls: Sequence[str] = (), anchors: Sequence[str] = ()
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(controls, anchors): those given, by name or pattern, else those whose names say so; an anchor is no control.

    Raises:
        InputError: if a category is named that is not there.
    """
    fixed = named(anchors, ANCHORS, categories, "anchor")
    return tuple(c for c in named(controls, CONTROLS, categories, "control") if c not in fixed), fixed


def named(given: Sequence[str], usual: Sequence[str], there: Sequence[str], what: str) -> tuple[str, ...]:
    """Categories that are meant: those given, by name or pattern, else those that usually are.

    Raises:
        InputError: if one is not there.
    """
    for one in given:
        if not any(one == c or fnmatchcase(c, one) for c in there):
            raise InputError(unknown(f"--{what} names", one, there))
    if given:
        return tuple(c for c in there if any(c == p or fnmatchcase(c, p) for p in given))
    return tuple(c for c in there if any(fnmatchcase(c.lower(), p) for p in usual))


def unknown(what: str, name: str, there: Sequence[str]) -> str:
    """That a category is not there."""
    return (
        f"{what} the category {cut(printable(repr(name)), 80)}, which no pair has; there are: {cut(', '.join(map(printable, there)), 300)}"
    )
