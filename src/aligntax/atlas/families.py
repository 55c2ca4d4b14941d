"""Families of models, and what a step of training does to ratings over several of them.

A family is every model that descends from one root (the column ``parent``). A step leads from a stage to the next, as the column ``stage`` names them: base to
sft, sft to dpo. One family's steps are judged by its own ledger (``ladder``); here the same step of several families is one question, and the families are the
sample: whether alignment flattens, not whether this model was flattened.

Two changes of a step, by category:

- ``rating``: how much more alike the child rates a category's pairs than its parent does.
- ``collapse``: the same less the change of the same topic's paraphrases (controls that say the same), so that a move of the whole scale cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from aligntax.atlas.ratings import PARENT, STAGE, FloatArray, Ratings, known_mean
from aligntax.atlas.roles import Roles
from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable
from aligntax.stats.crossed import CrossedMean, crossed_mean
from aligntax.stats.multiplicity import holm

RATING, COLLAPSE = "rating", "collapse"


@dataclass(frozen=True)
class Family:
    """A root and its descendants, parents before children; ``parents`` by name, None for the root."""

    root: str
    parents: dict[str, str | None]


Finding = Literal["more alike", "further apart", "not shown"]


@dataclass(frozen=True)
class StageStep:
    """What one step did to one category, over families.

    Attributes:
        before, after: stages.
        category: of pairs.
        measure: ``rating`` or ``collapse``.
        families: roots of those that took the step.
        change: mean over families, with its interval over other families and other pairs.
        p_holm: over all steps, categories and measures.
    finding: whether the child rates these pairs more alike than its parent, or further apart; ``not shown`` beyond the level.
    """

    before: str
    after: str
    category: str
    measure: str
    families: tuple[str, ...]
    change: CrossedMean
    p_holm: float
    finding: Finding


def families(ratings: Ratings) -> list[Family]:
    """Families of two models and more.

    Raises:
        InputError: where a parent did not rate, or a model descends from itself.
    """
    if PARENT not in ratings.lineage:
        return []
    parent = dict(zip(ratings.models, ratings.lineage[PARENT], strict=True))
    for name, above in parent.items():
        if above is not None and above not in parent:
            raise InputError(
                f"{printable(name)} names the parent {cut(printable(above), 60)}, which rated nothing; leave it out, or have it rate as well"
            )
    out: dict[str, dict[str, str | None]] = {}
    for name in ratings.models:
        path, at = [name], parent[name]
        while at is not None:
            if at in path:
                raise InputError(f"{printable(name)} is its own ancestor in the column parent")
            path.append(at)
            at = parent[at]
        family = out.setdefault(path[-1], {path[-1]: None})
        for one in reversed(path):
            family.setdefault(one, parent[one])
    return [Family(root, of) for root, of in out.items() if len(of) > 1]


def stage_steps(ratings: Ratings, x: FloatArray, of: Sequence[Family], roles: Roles, level: float = 0.95) -> list[StageStep]:
    """Every step that two families or more took, on every category that has a better side (contested, paraphrases).

    Args:
        ratings: of the ensemble.
        x: (pairs, models) their means.
        of: families.
        roles: of categories.
        level: confidence.
    """
    found = []
    for (before, after), taken in _taken(ratings, of).items():
        if len(taken) < 2:
            continue
        change = {measure: _changes(x, base, taken) for measure, base in ((RATING, None), (COLLAPSE, calm(ratings, x, roles)))}
        for category in (*roles.contested, *roles.paraphrases):
            rows = [i for i, c in enumerate(ratings.category) if c == category]
            for measure in (RATING, COLLAPSE) if category in roles.contested else (RATING,):
                d = change[measure][:, rows]
                there = [bool(np.isfinite(row).any()) for row in d]
                if sum(there) >= 2 and np.isfinite(d).any(axis=0).sum() >= 2:
                    roots = tuple(root for root, known in zip(taken, there, strict=True) if known)
                    found.append((before, after, category, measure, roots, crossed_mean(d, level)))
    adjusted = holm([one[-1].p for one in found])
    return [StageStep(*one, p_holm=p, finding=_finding(one[-1], p)) for one, p in zip(found, adjusted, strict=True)]


def _finding(change: CrossedMean, p: float) -> Finding:
    if p > 1 - change.level:
        return "not shown"
    return "more alike" if change.mean > 0 else "further apart"


def _taken(ratings: Ratings, of: Sequence[Family]) -> dict[tuple[str, str], dict[str, list[tuple[int, int]]]]:
    """By (stage before, stage after) and root: (parent, child) of every time the step was taken."""
    if STAGE not in ratings.lineage:
        return {}
    stage = dict(zip(ratings.models, ratings.lineage[STAGE], strict=True))
    at = {name: number for number, name in enumerate(ratings.models)}
    out: dict[tuple[str, str], dict[str, list[tuple[int, int]]]] = {}
    for family in of:
        for child, parent in family.parents.items():
            before, after = (None if parent is None else stage[parent]), stage[child]
            if parent is not None and before is not None and after is not None:
                out.setdefault((before, after), {}).setdefault(family.root, []).append((at[parent], at[child]))
    return out


def _changes(x: FloatArray, base: FloatArray | None, taken: dict[str, list[tuple[int, int]]]) -> FloatArray:
    """(families, pairs) mean change from parent to child, NaN where one of the two has no rating; of ``x`` less ``base``."""
    y = x if base is None else x - base
    return np.stack([np.stack([y[:, child] - y[:, parent] for parent, child in edges]).mean(axis=0) for edges in taken.values()])


def calm(ratings: Ratings, x: FloatArray, roles: Roles) -> FloatArray:
    """(pairs, models) every model's mean rating of the paraphrases of a pair's topic; NaN where there is none.

    Args:
        ratings: whose topics and categories count.
        x: (pairs, models) means.
        roles: which categories are paraphrases.
    """
    out = np.full(x.shape, np.nan)
    for topic in {t for t in ratings.topic or () if t is not None}:
        rows = [i for i, t in enumerate(ratings.topic or ()) if t == topic]
        same = [i for i in rows if ratings.category[i] in roles.paraphrases]
        if same:
            out[rows] = known_mean(x[same], 0)
    return out
