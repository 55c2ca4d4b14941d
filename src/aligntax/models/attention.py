"""What a model's configuration says of its attention: how far every token sees every one before it. Imports no torch."""

from __future__ import annotations

from typing import Any

FAR = 2**31
_FULL = frozenset({"full_attention", "sliding_attention", "chunked_attention"})
"""Layers that, up to some length, see every token before."""


def uncut(config: Any) -> str | None:
    """Why prefixes cannot be shared whatever the length; None if nothing in the configuration says so."""
    kinds = set(getattr(config, "layer_types", None) or ()) - _FULL
    if kinds:
        return f"layers of type {', '.join(sorted(map(str, kinds)))}"
    if getattr(config, "window_size", None):  # gpt_neo: the window goes by places in the cache, not by positions
        return "attention in a window that the model keeps to itself"
    return None


def window(config: Any) -> int:
    """Positions before any layer leaves tokens out."""
    kinds = getattr(config, "layer_types", None)
    sizes = [FAR]
    if getattr(config, "use_sliding_window", True) and (kinds is None or "sliding_attention" in kinds):
        sizes.append(getattr(config, "sliding_window", None) or FAR)
    if kinds is not None and "chunked_attention" in kinds:
        sizes.append(getattr(config, "attention_chunk_size", None) or FAR)
    return int(min(sizes))


def stretch(config: Any) -> int:
    """Positions before rotary embeddings change with the length of the longest sequence of a batch."""
    rope = getattr(config, "rope_parameters", None) or {}
    sets = [rope, *(value for value in rope.values() if isinstance(value, dict))]
    long = [s.get("original_max_position_embeddings") for s in sets if s.get("rope_type") == "longrope"]
    return int(min([FAR, *(size or 1 for size in long)]))
