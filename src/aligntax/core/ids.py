"""Identities: hashes of content, the same on every machine."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence


def canonical_json(value: object) -> str:
    """JSON with sorted keys, no spaces and no NaN.

    Raises:
        ValueError: on NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """sha256 (hex) of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def seed_of(*parts: object) -> int:
    """A seed for the draws that ``parts`` identify: other parts, independent draws; the same parts, the same draws. Below 2^31."""
    return int(digest(["seed", *parts])[:8], 16) >> 1


def item_content(question: str, choices: Sequence[object] | None, target: str | None) -> str:
    """Content identity of an item: sha256 over question, choices and target; never the rendered prompt, never a cluster.

    Each part is written as its length in UTF-8 bytes, a colon and itself (None as ``-``), so that no two contents run
    together; a database can build the same string (``store.rows``).
    """
    parts = [question]
    if choices:
        parts += [c if isinstance(c, str) else canonical_json(c) for c in choices]
    if target is not None:
        parts.append(target)
    text = "".join([f"{len(p) if p.isascii() else len(p.encode('utf-8', 'replace'))}:{p}" for p in parts])
    if target is None:
        text += "-"
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
