"""Which categories are controls, which anchors: as somebody says, else as their names do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable

CONTROLS, ANCHORS = ("control*", "*_control", "*control"), ("anchor*",)
CONTRADICTIONS, FOILS, MIDDLE = ("*contradiction*",), ("*foil*",), ("*mid*", "*matched*")
"""Names of categories, where nobody says which are which."""


@dataclass(frozen=True)
class Roles:
    """What every category is for.

    Attributes:
        categories: all.
        controls: what the others are compared with. contested: what has no other role.
        contradictions: opposite claims about everyday things. foils: form without what it stands for, or the other way round.
        anchors: with known ratings. middle: controls that are rated in the middle of the scale.
    """

    categories: tuple[str, ...]
    controls: tuple[str, ...]
    contested: tuple[str, ...]
    contradictions: tuple[str, ...]
    foils: tuple[str, ...]
    anchors: tuple[str, ...]
    middle: tuple[str, ...]

    @property
    def paraphrases(self) -> tuple[str, ...]:
        """Controls that say the same in other words."""
        return tuple(c for c in self.controls if c not in self.middle)

    def codes(self, names: Sequence[str]) -> tuple[int, ...]:
        return tuple(self.categories.index(name) for name in names)


def roles_of(
    categories: tuple[str, ...],
    controls: Sequence[str] = (),
    anchors: Sequence[str] = (),
    contradictions: Sequence[str] = (),
    foils: Sequence[str] = (),
    middle: Sequence[str] = (),
) -> Roles:
    """Named roles go before those guessed from names; what has none is contested.

    Raises:
        InputError: if a category is named that is not there.
    """
    given = {"anchor": anchors, "control": controls, "contradiction": contradictions, "foil": foils}
    usual = {"anchor": ANCHORS, "control": CONTROLS, "contradiction": CONTRADICTIONS, "foil": FOILS}
    found: dict[str, tuple[str, ...]] = {}
    for what in sorted(given, key=lambda name: not given[name]):
        taken = {c for names in found.values() for c in names}
        found[what] = tuple(c for c in named(given[what], usual[what], categories, what) if c not in taken)
    if not foils:
        found["foil"] = tuple(c for c in found["foil"] if c not in named((), CONTROLS, categories, "control"))
    taken = {c for names in found.values() for c in names}
    rest = tuple(c for c in categories if c not in taken)
    halfway = named(middle, MIDDLE, found["control"], "middle")
    return Roles(categories, found["control"], rest, found["contradiction"], found["foil"], found["anchor"], halfway)


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
