"""Texts as token ids. Imports no torch."""

from __future__ import annotations

from typing import Any


def encoded(tokenizer: Any, text: str, special: bool) -> tuple[int, ...]:
    """Token ids of a text, with what the tokenizer puts before one if ``special``; never what it puts after.

    An end token after a prompt would end it, and a continuation would be cut in the wrong place.
    """
    found = tuple(tokenizer(text, add_special_tokens=special)["input_ids"])
    if special and found and found[-1] == getattr(tokenizer, "eos_token_id", None) and not text.endswith(str(tokenizer.eos_token)):
        return found[:-1]
    return found
