"""Councils: which models of an ensemble overlook the least, chosen on some contested pairs and verified on others."""

from __future__ import annotations

import numpy as np

from aligntax.atlas.ratings import Ratings, numbered
from aligntax.atlas.roles import roles_of
from aligntax.core.errors import InputError
from aligntax.stats.councils import CouncilChoice, choose_council
from aligntax.stats.dispersion import flags


def choose(
    ratings: Ratings,
    size: int,
    *,
    controls: tuple[str, ...] = (),
    anchors: tuple[str, ...] = (),
    tau: float = 0.20,
    held_out: float = 0.5,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[CouncilChoice, list[str]]:
    """(the council and what it was found to be worth, its models' names).

    Args:
        ratings: of the whole ensemble.
        size: of the council.
        controls: categories that are left out; empty takes those whose names say so.
        anchors: likewise.
        tau: largest range that passes for agreement.
        held_out: share of the divided pairs that the council is verified on.
        level: confidence.
        seed: of the split.

    Raises:
        InputError: where too few pairs divide the ensemble, or the council is as large as it.
    """
    roles = roles_of(ratings.categories, controls, anchors)
    x = ratings.means()
    contested = np.array([c in roles.contested for c in ratings.category])
    if not contested.any():
        raise InputError(
            "every category is a control, an anchor, a contradiction or a foil: nothing is contested; name the controls with --control"
        )
    flagged = (flags(x) == 1) & contested
    topics = None if ratings.topic is None else numbered(ratings.topic)
    try:
        found = choose_council(
            x, size, tau, rng=np.random.default_rng(seed), flagged=flagged, topics=topics, held_out=held_out, level=level
        )
    except ValueError as error:
        raise InputError(str(error)) from None
    return found, [ratings.models[m] for m in found.council]
