"""Expected ratings: what a model would rate on average, from the probabilities of the ten digits at the place of its answer.

A reply is one draw; the log-probabilities at the place where the digit stands tell the whole distribution, as far as servers list it. The mean of
that distribution is the better judgement than its mode in most comparisons (Wang et al. 2025, arXiv:2503.03064). It is taken on the scale ``d9`` alone,
where an answer is one token; with more digits, families of tokenizers differ.

The answer's token is found by reading the reply first (``replies.read``) and then looking up which token wrote that digit: not the first digit that comes
along, which may stand in a think block, in the number of a pair, or in a label. What servers send instead of log-probabilities (zeros, -9999, null)
is refused by name. A rating that was not accepted falls back to the digit that was drawn and says so: ``logprob`` and ``sampled`` are different measurements,
with different noise, and are never mixed without a word (``mixed``).

What the distribution leaves out: a ``1`` may go on to be ``10``, and servers may list log-probabilities before or after temperature and masks; the first
is off the scale and only its share is counted, the second belongs to what is known of an endpoint. Ask for more than one token: a digit at the very
end of a reply that was cut short is no answer.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, fsum, isnan, log, sqrt
from typing import Literal

from aligntax.atlas.replies import TOP, Reading, read
from aligntax.core.words import cut, printable

LEAST_MASS = 0.9
"""Probability that has to lie on the ten digits."""

Source = Literal["logprob", "sampled"]
"""What a rating is: the mean of the digits' probabilities, or the digit that was drawn."""

REASONS: Mapping[str, str] = {
    "no_logprobs": "no log-probabilities came back",
    "no_rating": "the reply itself has no rating",
    "no_match": "the tokens do not spell the reply",
    "shared_token": "the digit shares its token with other characters",
    "no_alternatives": "the token has no alternatives beside it",
    "not_a_number": "a log-probability is missing or no number",
    "positive": "a log-probability is positive",
    "all_zero": "all log-probabilities are 0",
    "floor": "the log-probabilities are placeholders: the chosen token or all others are below -100",
    "sum_above_one": "the probabilities add up to more than 1",
    "repeated_token": "a digit's token is listed twice",
    "inconsistent": "the chosen token has two log-probabilities",
    "low_mass": "too little of the probability lies on digits",
}
"""Why there is no expected rating."""

_FLOOR = -100.0
_NOISE = 1e-4  # above 0 by rounding, as models/endpoint.py has it
_ABOVE_ONE = 1e-3
_SAME = 0.01  # nats between two listings of the chosen token: rounding in half precision
_SLACK = 1e-9
_TRAILING = 8
_MARKS = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})  # how vocabularies write a space and a line break
_SPECIAL = re.compile(r"<[^<>]{1,60}>|\[/?[A-Z_]{1,20}\]")


@dataclass(frozen=True, slots=True)
class Place:
    """One position of a reply.

    Attributes:
        token: text of the token that was chosen.
        logprob: its log-probability in nats; NaN where the server sent null.
        top: texts and log-probabilities of the likeliest tokens there; the chosen one may be among them.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """The distribution over digits at the place of the answer. ``rating``, ``sd`` and ``mode`` are on 0 to 1, a ninth of the digit.

    Attributes:
        reason: None if it was accepted, else the key of ``REASONS``; then the numbers are None, but for what was found on the way.
        place: of the answer's token among those given.
        mass: probability of the ten digits together.
        digit: mean of the digit, 0 to 9, given that it is one.
        rating: digit/9.
        sd: standard deviation of the rating.
        entropy: of the digit, in nats.
        mode: rating of the likeliest digit, of equal ones the lowest.
    """

    reason: str | None
    place: int | None = None
    mass: float | None = None
    digit: float | None = None
    rating: float | None = None
    sd: float | None = None
    entropy: float | None = None
    mode: float | None = None


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating that says what it is.

    Attributes:
        value: 0 to 1; None where there is none.
        source: ``logprob`` or ``sampled``.
        reading: what the reply says.
        expected: what the log-probabilities say, or why they say nothing.
    """

    value: float | None
    source: Source
    reading: Reading
    expected: Expected


def rate(places: Sequence[Place], text: str | None, *, finish_reason: str | None = "stop", refusal: str | None = None) -> Rated:
    """The expected rating where it is accepted, else the digit that was drawn, if there is one.

    Args:
        places: of the reply, in order; none where the server told no log-probabilities.
        text: the reply to a question on the scale ``d9``.
        finish_reason: why the reply ended, as the server says; None where it does not.
        refusal: the refusal that some servers send beside the text.
    """
    reading = read(text, "d9", finish_reason=finish_reason, refusal=refusal)
    found = expected(places, text or "", reading)
    if found.reason is None:
        return Rated(found.rating, "logprob", reading, found)
    return Rated(reading.value, "sampled", reading, found)


def expected(places: Sequence[Place], text: str, reading: Reading) -> Expected:
    """Mean, spread and entropy of the digit at the place of the answer.

    With p(d) the sum over tokens whose text, spaces aside, is the digit d: mass = sum p(d), q(d) = p(d)/mass, digit = sum d q(d),
    sd^2 = sum (d - digit)^2 q(d)/81, entropy = -sum q ln q.

    Args:
        places: of the reply, in order.
        text: the reply.
        reading: of it, on the scale ``d9``.
    """
    if not places:
        return Expected("no_logprobs")
    if reading.span is None:
        return Expected("no_rating")
    at = _answer(places, text, reading.span)
    if at is None:
        return Expected("no_match")
    place = places[at]
    if _digit(place.token) is None:
        return Expected("shared_token", at)
    entries = _entries(place)
    if (reason := _absurd(place, entries)) is not None:
        return Expected(reason, at)
    p = [0.0] * 10
    for token, value in entries:
        if (digit := _digit(token)) is not None:
            p[digit] += exp(value)
    return _summary(p, at)


def _summary(p: Sequence[float], at: int) -> Expected:
    mass = fsum(p)
    if mass < LEAST_MASS - _SLACK:
        return Expected("low_mass", at, mass)
    q = [x / mass for x in p]
    mean = fsum(d * x for d, x in enumerate(q))
    variance = fsum(x * (d - mean) ** 2 for d, x in enumerate(q))
    top = TOP["d9"]
    # 0.0 -: an entropy of nothing is 0, not -0
    entropy = 0.0 - fsum(x * log(x) for x in q if x > 0)
    return Expected(None, at, mass, mean, mean / top, sqrt(variance) / top, entropy, q.index(max(q)) / top)


def mixed(sources: Mapping[str, Iterable[Source]]) -> str | None:
    """What has to be said where ratings of several models go into one number: a sentence if they are not of one kind, else None.

    Args:
        sources: by model, what each of its ratings is.
    """
    kinds = {model: set(found) for model, found in sources.items()}
    expecting = sorted(model for model, found in kinds.items() if found == {"logprob"})
    sampling = sorted(model for model, found in kinds.items() if found == {"sampled"})
    both = sorted(model for model, found in kinds.items() if len(found) > 1)
    if not both and not (expecting and sampling):
        return None
    parts = [
        f"{what} of {', '.join(cut(printable(model), 60) for model in models)}"
        for what, models in (
            ("expected ratings (from log-probabilities)", expecting),
            ("sampled ratings", sampling),
            ("ratings of both kinds", both),
        )
        if models
    ]
    return "ratings of two kinds are mixed: " + "; ".join(parts)


# -- where the answer stands ---------------------------------------------------------------------------------------------------


def _text(token: str) -> str:
    """A token as it is written: some servers send spaces as vocabularies mark them."""
    return token.translate(_MARKS)


def _digit(token: str) -> int | None:
    """The digit that a token is, spaces aside."""
    core = _text(token).strip()
    return unicodedata.decimal(core, None) if len(core) == 1 else None


def _answer(places: Sequence[Place], text: str, span: tuple[int, int]) -> int | None:
    """Which token wrote the digit. Spaces are left aside: some tokenizers have none in their tokens, and servers strip replies.

    The reply has to be the end of what the tokens spell, but for end tokens: a server may keep the thinking before it to itself.
    """
    wanted = "".join(text.split())
    digit = next(k for k in range(*span) if text[k].isdecimal())
    from_end = len(wanted) - len("".join(text[:digit].split()))
    spelled = ["".join(_text(place.token).split()) for place in places]
    joined = "".join(spelled)
    for last in range(len(spelled), max(0, len(spelled) - _TRAILING) - 1, -1):
        if joined.endswith(wanted):
            return _token_at(spelled[:last], len(joined) - from_end)
        if last == 0 or (spelled[last - 1] and not _SPECIAL.fullmatch(spelled[last - 1])):
            return None
        joined = joined[: len(joined) - len(spelled[last - 1])]
    return None


def _token_at(spelled: Sequence[str], at: int) -> int | None:
    seen = 0
    for k, piece in enumerate(spelled):
        seen += len(piece)
        if seen > at:
            return k
    return None


# -- whether the log-probabilities can be true ---------------------------------------------------------------------------------


def _entries(place: Place) -> list[tuple[str, float]]:
    """What is listed, the chosen token once."""
    listed = any(_text(token) == _text(place.token) for token, _ in place.top)
    return [*place.top] if listed else [(place.token, place.logprob), *place.top]


def _absurd(place: Place, entries: Sequence[tuple[str, float]]) -> str | None:
    """Why the log-probabilities of one place cannot be used; None if they can.

    A value below -100 is what servers put where they have none (DeepSeek, and vLLM for masked tokens, -9999). Beside others it is nothing, and counts
    nothing; where nothing but the chosen token is above it, there is no distribution.
    """
    values = [place.logprob, *(value for _, value in entries)]
    if any(isnan(value) for value in values):
        return "not_a_number"
    if any(value > _NOISE for value in values):
        return "positive"
    if len(entries) < 2:
        return "no_alternatives"
    if not any(values):
        return "all_zero"
    others = [value for token, value in entries if _text(token) != _text(place.token)]
    if place.logprob < _FLOOR or all(value < _FLOOR for value in others):
        return "floor"
    return _inconsistent(place, entries)


def _inconsistent(place: Place, entries: Sequence[tuple[str, float]]) -> str | None:
    """Listed twice, at two values, or at more than everything.

    Spellings of one digit (``4`` with a space and without) are different tokens. One spelling twice is not known to be: the same token again, or
    one that only its bytes tell apart.
    """
    digits = [_text(token) for token, _ in entries if _digit(token) is not None]
    if len(set(digits)) < len(digits):
        return "repeated_token"
    if any(_text(token) == _text(place.token) and abs(value - place.logprob) > _SAME for token, value in entries):
        return "inconsistent"
    return "sum_above_one" if fsum(exp(value) for _, value in entries) > 1 + _ABOVE_ONE else None
