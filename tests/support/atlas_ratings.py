"""Ratings of an ensemble, made without a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from aligntax.atlas.ratings import FloatArray, Ratings


def ratings_of(
    x: FloatArray,
    category: Sequence[str],
    *,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    topic: Sequence[str | None] | None = None,
    reference: Sequence[float] | None = None,
    models: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
) -> Ratings:
    """Ratings (pairs, models) or (pairs, models, orders, variants, repeats); what is NaN was refused."""
    full = np.asarray(x, dtype=np.float64)
    full = full[:, :, None, None, None] if full.ndim == 2 else full
    names = tuple(models or [f"m{i}" for i in range(full.shape[1])])
    missing: dict[tuple[str, str, str], int] = {}
    for p, m in np.argwhere(np.isnan(full).any(axis=(2, 3, 4))):
        key = (names[m], category[p], "refusal")
        missing[key] = missing.get(key, 0) + int(np.isnan(full[p, m]).sum())
    return Ratings(
        full,
        np.ones(full.shape, dtype=bool),
        tuple(pairs or [f"p{i}" for i in range(len(full))]),
        names,
        ("AB", "BA", "CD")[: full.shape[2]],
        tuple(f"v{i}" for i in range(full.shape[3])),
        tuple(category),
        None if topic is None else tuple(topic),
        np.full(len(full), np.nan) if reference is None else np.asarray(reference, dtype=np.float64),
        (None,) * len(full),
        {name: tuple(labels) for name, labels in (groups or {}).items()},
        missing,
        {},
        "made.csv",
    )
