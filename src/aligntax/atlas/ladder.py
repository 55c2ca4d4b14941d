"""Does alignment flatten? Stages of one family, rated within one study, as a ledger of kind ``epistemic``.

A family is every model that descends from one root (the column ``parent``). Its stages are arms, the pairs are items, topics are their clusters. Two metrics:

- ``rating``: of contested pairs, where a stage that rates them more alike than its parent did has flattened them: less is better, and a rise is a tax. Of
  controls, which say the same, a fall is the loss. Anchors, contradictions and foils have no better side and are left out.
- ``collapse``: a contested pair's rating less the mean of its topic's paraphrases (controls that say the same). What a stage does to the whole scale cancels; what is left is what it does to
  contested pairs.

A pair's rating is a model's mean over orders, wordings and repeats. Everything else (pairing, intervals, verdicts, the stage tree, the gate) is the ledger's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np

from aligntax.atlas.ratings import FloatArray, Ratings
from aligntax.atlas.roles import Roles, roles_of
from aligntax.core.errors import InputError
from aligntax.core.ids import digest
from aligntax.core.items import Value
from aligntax.core.samples import Outcome
from aligntax.core.study import Analysis, Arm, Scale, Study
from aligntax.core.words import cut, printable
from aligntax.flow.diff import Comparison, compare_rows
from aligntax.store.logs import LogFacts, LogRow, LogSource, Want
from aligntax.store.rows import Rows

PARENT = "parent"
RATING, COLLAPSE = "rating", "collapse"
TASK = "atlas_"
READER = "atlas"


@dataclass(frozen=True)
class Family:
    """A root and its descendants, parents before children; ``parents`` by name, None for the root."""

    root: str
    parents: dict[str, str | None]


def families(ratings: Ratings) -> list[Family]:
    """Families of two models and more.

    Raises:
        InputError: where a parent did not rate, or a model descends from itself.
    """
    if PARENT not in ratings.groups:
        return []
    parent = dict(zip(ratings.models, ratings.groups[PARENT], strict=True))
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


def compared(
    ratings: Ratings,
    family: Family,
    *,
    controls: Sequence[str] = (),
    anchors: Sequence[str] = (),
    level: float = 0.95,
    seed: int = 0,
    say: Callable[[str, int], None] = lambda *_: None,
) -> Comparison:
    """The ledger of one family's stages; whoever takes it closes it.

    Args:
        ratings: of the ensemble.
        family: one of ``families``.
        controls: categories that the others are compared with; empty takes those whose names say so.
        anchors: categories with known ratings.
        level: confidence level.
        seed: of the bootstrap, if any.
        say: progress.

    Raises:
        InputError: if a category is named that is not there.
    """
    roles = roles_of(ratings.categories, controls, anchors)
    tasks = {c: f"{TASK}{c}" for c in ratings.categories}
    directions = {(tasks[c], metric): False for c in roles.contested for metric in (RATING, COLLAPSE)}
    analysis = Analysis(
        level=level,
        kinds={f"{TASK}*": "epistemic"},
        scales={RATING: Scale(low=0.0, high=1.0), COLLAPSE: Scale(low=-1.0, high=1.0)},
        diversity=False,
        seed=seed,
    )
    arms = tuple(
        Arm(name=name, parent=above, source=ratings.source, reader=READER, identity=digest([name, _told(ratings, name)]))
        for name, above in family.parents.items()
    )
    study = Study(baseline=family.root, arms=arms, analysis=analysis)
    rows, facts = Rows(), []
    try:
        for arm in arms:
            one = LogFacts(
                higher_is_better=dict(directions),
                auto_cluster=None if ratings.topic is None else "topic",
                settings={"harness": "aligntax atlas"},
            )
            rows.add(arm.name, Path(ratings.source), LogSource(READER, _rows(ratings, arm.name, tasks, roles), facts=one), Want(None, None))
            facts.append(one)
        return compare_rows(study, rows, facts, say)
    except BaseException:
        rows.close()
        raise


def _told(ratings: Ratings, model: str) -> list[float | None]:
    flat = ratings.x[:, ratings.models.index(model)].ravel().tolist()
    return [v if isfinite(v) else None for v in flat]


def _rows(ratings: Ratings, model: str, tasks: dict[str, str], roles: Roles) -> Iterator[LogRow]:
    """A row per pair that the model was asked about, with its mean rating; where none came it failed."""
    number = ratings.models.index(model)
    mean, asked = ratings.means()[:, number], ratings.asked[:, number].any(axis=(1, 2, 3))
    base = _control_means(ratings, mean, roles.paraphrases)
    for i in np.flatnonzero(asked).tolist():
        if ratings.category[i] not in (*roles.contested, *roles.controls):
            continue
        texts, topic, value = ratings.texts[i], None if ratings.topic is None else ratings.topic[i], float(mean[i])
        rated = isfinite(value)
        scores = {RATING: Value(value) if rated else Value(None, Outcome.FAILED)}
        if ratings.category[i] in roles.contested and topic in base:
            scores[COLLAPSE] = Value(value - base[topic]) if rated else Value(None, Outcome.FAILED)
        yield LogRow(
            task=tasks[ratings.category[i]],
            item=ratings.pairs[i],
            content=digest([texts, ratings.pairs[i]]),
            scores=scores,
            question=ratings.pairs[i] if texts is None else f"{texts[0]}\n\n{texts[1]}",
            answer=f"{value:.3f}" if rated else None,
            cluster=topic,
        )


def _control_means(ratings: Ratings, mean: FloatArray, calm: Sequence[str]) -> dict[str | None, float]:
    """By topic, the model's mean rating of its control pairs; topics without one are left out."""
    found: dict[str | None, list[float]] = {}
    for i, topic in enumerate(ratings.topic or ()):
        if topic is not None and ratings.category[i] in calm and isfinite(mean[i]):
            found.setdefault(topic, []).append(float(mean[i]))
    return {topic: sum(of) / len(of) for topic, of in found.items()}
