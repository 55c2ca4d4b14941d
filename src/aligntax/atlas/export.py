"""An analysis as JSON: every number, null where there is none, and what the published claims come to."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from math import isfinite
from typing import Any

import numpy as np

from aligntax.atlas.analysis import Analysis
from aligntax.atlas.claims import claims
from aligntax.core.words import safe_json

SCHEMA = 1


def as_json(found: Analysis) -> str:
    """The text of ``atlas.json``."""
    whole = {"schema": SCHEMA, **_plain(found), "claims": [asdict(c) for c in claims(found)]}
    return safe_json(json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)) + "\n"


def _plain(value: Any) -> Any:
    """Only what JSON has; numbers that are not finite are null."""
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {" x ".join(key) if isinstance(key, tuple) else str(key): _plain(of) for key, of in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
