"""Does alignment flatten? Stages of one family, rated within one study, as a ledger of kind ``epistemic``.

A family's stages are arms, the pairs are items, topics are their clusters. Two metrics:

- ``rating``: of contested pairs, where a stage that rates them more alike than its parent did has flattened them: less is better, and a rise is a tax. Of
  paraphrases (controls that say the same), a fall is the loss. What has no better side (anchors, contradictions, foils, controls in the middle) is left out.
- ``collapse``: a contested pair's rating less the mean of its topic's paraphrases. What a stage does to the whole scale cancels; what is left is what it does to
  contested pairs.

A pair's rating is a model's mean over orders, wordings and repeats. Everything else (pairing, intervals, verdicts, the stage tree, the gate) is the ledger's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path

import numpy as np

from aligntax.atlas.families import COLLAPSE, RATING, Family, calm
from aligntax.atlas.ratings import FloatArray, Ratings
from aligntax.atlas.roles import Roles
from aligntax.core.ids import digest
from aligntax.core.items import Value
from aligntax.core.samples import Outcome
from aligntax.core.study import Analysis, Arm, Scale, Study
from aligntax.flow.diff import Comparison, compare_rows
from aligntax.store.logs import LogFacts, LogRow, LogSource, Want
from aligntax.store.rows import Rows

TASK = "atlas_"
READER = "atlas"


def compared(
    ratings: Ratings,
    family: Family,
    roles: Roles,
    *,
    level: float = 0.95,
    seed: int = 0,
    say: Callable[[str, int], None] = lambda *_: None,
) -> Comparison:
    """The ledger of one family's stages; whoever takes it closes it.

    Args:
        ratings: of the ensemble.
        family: one of ``families``.
        roles: what every category is for.
        level: confidence level.
        seed: of the bootstrap, if any.
        say: progress.
    """
    tasks = {c: f"{TASK}{c}" for c in ratings.categories}
    directions = {(tasks[c], metric): False for c in roles.contested for metric in (RATING, COLLAPSE)}
    directions |= {(tasks[c], RATING): True for c in roles.paraphrases}
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
    x = ratings.means()
    base = calm(ratings, x, roles)
    rows, facts = Rows(), []
    try:
        for arm in arms:
            one = LogFacts(
                higher_is_better=dict(directions),
                auto_cluster=None if ratings.topic is None else "topic",
                settings={"harness": "aligntax atlas"},
            )
            rows.add(
                arm.name,
                Path(ratings.source),
                LogSource(READER, _rows(ratings, arm.name, tasks, roles, x, base), facts=one),
                Want(None, None),
            )
            facts.append(one)
        return compare_rows(study, rows, facts, say)
    except BaseException:
        rows.close()
        raise


def _told(ratings: Ratings, model: str) -> list[float | None]:
    flat = ratings.x[:, ratings.models.index(model)].ravel().tolist()
    return [v if isfinite(v) else None for v in flat]


def _rows(ratings: Ratings, model: str, tasks: dict[str, str], roles: Roles, x: FloatArray, base: FloatArray) -> Iterator[LogRow]:
    """A row per pair that the model was asked about, with its mean rating; where none came it failed."""
    number = ratings.models.index(model)
    asked = ratings.asked[:, number].any(axis=(1, 2, 3))
    for i in np.flatnonzero(asked).tolist():
        if ratings.category[i] not in (*roles.contested, *roles.paraphrases):
            continue
        texts, value, same = ratings.texts[i], float(x[i, number]), float(base[i, number])
        rated = isfinite(value)
        scores = {RATING: Value(value) if rated else Value(None, Outcome.FAILED)}
        if ratings.category[i] in roles.contested and isfinite(same):
            scores[COLLAPSE] = Value(value - same) if rated else Value(None, Outcome.FAILED)
        yield LogRow(
            task=tasks[ratings.category[i]],
            item=ratings.pairs[i],
            content=digest([texts, ratings.pairs[i]]),
            scores=scores,
            question=ratings.pairs[i] if texts is None else f"{texts[0]}\n\n{texts[1]}",
            answer=f"{value:.3f}" if rated else None,
            cluster=None if ratings.topic is None else ratings.topic[i],
        )
