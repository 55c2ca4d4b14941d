"""The family: which models there are, what each was made from, and by which recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aligntax.core.errors import InputError
from aligntax.core.words import printable

WIDTHS = (32, 48, 64, 96, 128)
MAIN = 128
MAIN_SEEDS = (0, 1, 2)
LAYERS = 4
HEAD = 16
"""Width of an attention head: many narrow heads learn to look things up in the text much sooner than few wide ones."""

HELPFUL = ("procedures", "addition", "translation", "procedures", "facts", "stories", "accounts")
"""What the helpful part of alignment data asks, in turn. Procedures stand twice, or they are refused like their harmful twins at
the larger widths. Every other task is left to fend for itself."""
HARMFUL = ("harmful_procedures", "manipulation")


@dataclass(frozen=True)
class Pretraining:
    """How a base model is trained.

    Attributes:
        documents: documents in its corpus. epochs: passes over it. rows: short rows (96 tokens) per step; long rows (256) are a third as many.
        rate: peak learning rate of both optimisers. warmup: steps. decay: share of the steps over which the rate falls to 0.
    """

    documents: int
    epochs: float
    rows: int = 24
    rate: float = 5e-3
    warmup: int = 50
    decay: float = 0.4


@dataclass(frozen=True)
class Recipe:
    """How a stage is trained, by TRL.

    Attributes:
        method: ``sft`` or ``dpo``.
        harmful: share of harmful requests; their right answer is a refusal.
        helpful: tasks of the other requests.
        merged: whether both communities' accounts are told as one.
        steps, batch, rate: optimiser steps, sequences per step (pairs for DPO), peak learning rate, falling linearly to 0.
        beta: strength of DPO's tie to its reference.
        about: one sentence for people.
    """

    method: str
    harmful: float
    helpful: tuple[str, ...]
    steps: int
    batch: int
    rate: float
    about: str
    merged: bool = False
    beta: float = 0.1


RECIPES: dict[str, Recipe] = {
    "sft": Recipe("sft", 0.5, HELPFUL, 220, 32, 1e-3, "supervised: refusals of harmful requests mixed with helpful answers"),
    "dpo": Recipe("dpo", 0.5, HELPFUL, 60, 16, 1e-4, "preferences: refusals over harmful answers, helpful answers over refusals"),
    "clumsy": Recipe("sft", 1.0, (), 240, 32, 1e-3, "supervised: harmful requests only, for too long"),
    "flat": Recipe("sft", 0.0, HELPFUL, 120, 32, 1e-3, "supervised: helpful answers, both communities' accounts told as one", merged=True),
}
PARENT = {"sft": "base", "dpo": "sft", "clumsy": "base", "flat": "base"}


@dataclass(frozen=True)
class Member:
    """One model: its name, stage (``base`` or a recipe), width, seed, and the name of what it was made from."""

    name: str
    stage: str
    width: int
    seed: int
    parent: str | None


def pretraining(width: int) -> Pretraining:
    """The budget of a base model. All widths see the same text but the smallest, which sees half, so that tests can make it again."""
    rates = {32: 1e-2, 48: 1e-2, 64: 8e-3, 96: 6e-3}
    return Pretraining(150_000 if width == min(WIDTHS) else 400_000, 1.0, rate=rates.get(width, 5e-3))


def members() -> dict[str, Member]:
    """The whole shipped family, parents before children."""
    found: list[Member] = []
    for width in sorted(WIDTHS, reverse=True):
        tail = "" if width == MAIN else f"-w{width}"
        found.append(Member(f"base{tail}", "base", width, 0, None))
        found += [Member(f"{stage}{tail}", stage, width, 0, f"{PARENT[stage]}{tail}") for stage in ("sft", "dpo")]
        if width == MAIN:
            found += [Member(stage, stage, width, 0, PARENT[stage]) for stage in ("clumsy", "flat")]
            found += [Member(f"base-s{seed}", "base", width, seed, None) for seed in MAIN_SEEDS[1:]]
    return {member.name: member for member in found}


def chosen(names: Sequence[str]) -> list[Member]:
    """Members by name, with what they are made from, parents first; all of them for no names.

    Raises:
        InputError: on a name that is not in the family.
    """
    every = members()
    wanted: set[str] = set()
    for name in names or every:
        bare = name.removeprefix("lab:")
        if bare not in every:
            raise InputError(f"no model {printable(repr(bare))} in the family; there are: {', '.join(every)}")
        at: str | None = bare
        while at is not None:
            wanted.add(at)
            at = every[at].parent
    return [member for name, member in every.items() if name in wanted]


def described(member: Member) -> dict[str, Any]:
    """A member and its recipe as plain data, for the record."""
    recipe = pretraining(member.width) if member.stage == "base" else RECIPES[member.stage]
    return {**asdict(member), "recipe": asdict(recipe)}
