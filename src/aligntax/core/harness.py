"""What lm-eval's words mean here; ``tasks`` (its tasks asked by us) and ``models`` (our models asked by it) read them alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aligntax.core.asks import Message
from aligntax.core.errors import InputError
from aligntax.core.words import printable

MAX_NEW_TOKENS = 256
"""lm-eval's budget where a task names none."""

_BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")  # lm-eval's aliases, the first one counts
_IDLE: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,), "num_return_sequences": (1,), "n": (1,), "use_cache": (True,), "early_stopping": (False,), "top_k": (0, -1),
    "min_p": (0,), "typical_p": (1,), "repetition_penalty": (1,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "no_repeat_ngram_size": (0,),
}  # fmt: skip
"""Settings by the values that change nothing."""

_ONLY_OF_DRAWS = frozenset({"top_k", "min_p", "typical_p", "seed"})
_MARK = "THE_ANSWER_GOES_ON_HERE "


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a reply is written: at most so many tokens, until one of the stops, drawn at a temperature (0: the likeliest) from a mass."""

    max_tokens: int
    stops: tuple[str, ...]
    temperature: float
    top_p: float


def decoding(given: Mapping[str, Any], temperature: float | None = None) -> Decoding:
    """lm-eval's ``generation_kwargs``.

    Args:
        given: as an instance carries them.
        temperature: at which answers will be drawn instead; None for the given one. What only bends draws is let pass where none are made.

    Raises:
        InputError: naming a setting that would be lost here.
    """
    left = {str(name): value for name, value in given.items() if value is not None}
    budgets = [left.pop(name) for name in _BUDGETS if name in left]
    budget = _number("max_gen_toks", budgets[0] if budgets else MAX_NEW_TOKENS)
    until = left.pop("until", ())
    sampled = left.pop("do_sample", None)
    if sampled not in (None, True, False):
        raise InputError(f"do_sample must be true or false, found {printable(repr(sampled))}")
    own, top_p = _number("temperature", left.pop("temperature", 0.0)), _number("top_p", left.pop("top_p", 1.0))
    if sampled is False:
        own = 0.0
    drawn = (own if temperature is None else temperature) > 0
    if budget < 1 or own < 0 or (drawn and not 0 < top_p <= 1):
        raise InputError(f"no answer can be written with max_gen_toks {budget:g}, temperature {own:g} and top_p {top_p:g}")
    for name, value in left.items():
        if value not in _IDLE.get(name, ()) and (drawn or name not in _ONLY_OF_DRAWS):
            raise InputError(f"the generation setting {printable(name)}={printable(str(value))[:40]} is not known here")
    stops = tuple(str(stop) for stop in ([until] if isinstance(until, str) else until) if str(stop))
    return Decoding(int(budget), stops, own, top_p if 0 < top_p <= 1 else 1.0)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InputError(f"{name} must be a number, found {printable(repr(value))[:40]}") from None


def begun(template: Callable[[Sequence[Message]], str], messages: Sequence[Message]) -> str:
    """A conversation whose last turn the assistant has begun, as text that ends where the turn's words end.

    ``template`` always adds a generation prompt, so words of the last turn cannot simply be put after it: where a template sets
    something between role and words, two texts would differ. The turn is rendered with a mark at its end, and cut there, which is
    what transformers does for ``continue_final_message``.

    Raises:
        InputError: if the template refuses the messages.
    """
    *turns, (role, words) = messages
    try:
        text = template([*turns, (role, words + _MARK)])
    except InputError:  # some templates end with the user only
        return template(turns) + words
    at = text.rfind(_MARK.rstrip())
    if at < 0:  # some templates drop what the assistant said
        return template(turns) + words
    return text[:at] if text.startswith(_MARK, at) else text[:at].rstrip()
