"""How an ensemble is asked: which wording, which scale, which orders, how often, one pair at a time or all in a list; and every call that makes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from aligntax.atlas.pairs import Pair, PairSet
from aligntax.atlas.replies import Scale
from aligntax.core.asks import Message
from aligntax.core.errors import InputError
from aligntax.core.ids import digest, seed_of
from aligntax.core.study import Frozen
from aligntax.core.words import cut, printable

Order = Literal["AB", "BA"]
Presentation = Literal["isolated", "batch"]

_SCALES: Mapping[Scale, tuple[str, str, str, str]] = {
    "dec2": ("from 0.00 to 1.00, with two decimals", "0.00", "0.50", "1.00"),
    "d9": ("with a single digit from 0 to 9", "0", "4 or 5", "9"),
    "pct": ("with a whole number from 0 to 100", "0", "50", "100"),
}

VARIANTS: Mapping[str, str] = {
    "anchored": "{low} means that they have nothing to do with each other in meaning, {mid} that they are about one subject and differ much in view or content, "
    "{high} that they mean the same.",
    "ends": "{low} means that they have nothing in common in meaning, {high} that they mean the same.",
    "contradiction": "{low} means that they have nothing in common in meaning, or that they make opposite claims about the same thing; {high} means that they mean "
    "the same.",
}
"""Wordings with different anchors, ours. ``anchored`` has those of the published protocol, which instruct a model to put a clash in the middle; ``ends`` has none
there, and ``contradiction`` says what opposite claims are worth: what a model makes of the instruction is told apart from what it makes of the pair."""

_ONE = "How alike in meaning are the following two texts? Answer {scale}. {anchors} Answer with the number alone.\n\nText 1: {one}\n\nText 2: {two}"
_LIST = (
    "{count} pairs of texts follow. Say of every pair how alike the two are in meaning, {scale}. {anchors} Answer with one line per pair: its number, a colon and your "
    "rating; nothing else.\n\n{pairs}"
)
_LAB = "account one: {one} account two: {two} how alike are they?"
AGAIN = "Answer with the number alone, {scale}."

LAB = "lab"
"""The wording that the embedded models were taught; a digit."""

SHOTS = (
    ("The shop opens at nine in the morning.", "From nine in the morning the shop is open.", {"dec2": "0.97", "d9": "9", "pct": "97"}),
    ("The shop opens at nine in the morning.", "A kilogram of flour makes two loaves.", {"dec2": "0.02", "d9": "0", "pct": "2"}),
    ("The shop opens at nine in the morning.", "The shop sells bread and cheese.", {"dec2": "0.41", "d9": "4", "pct": "41"}),
)
"""Examples for models without a chat template, of no category of pairs."""
_ECHO = 2_000
"""Characters of an unreadable reply that are shown to the model when it is asked once more: the request has a price, too."""


class Protocol(Frozen):
    """How pairs are shown.

    Attributes:
        presentation: ``isolated``: one pair a request, in a conversation of its own; ``batch``: all pairs as one numbered list, as the published procedure has it.
        orders: of the two texts; similarity has none, so what it does is error.
        variants: wordings (``VARIANTS``; ``lab`` for embedded models, which is theirs alone).
        repeats: how often each is asked.
        temperature: of sampling; 0 is not without noise at most providers.
        scale: ``dec2`` 0.00 to 1.00, ``d9`` a digit (expected ratings from log-probabilities, where a model tells them), ``pct`` 0 to 100.
        logprobs: whether expected ratings are asked for, on ``d9``.
        reprompt: whether a reply without a number is asked once more, flagged.
        max_tokens: longest reply; of a list, per pair.
        seed: of the order of calls and of sampling.
    """

    presentation: Presentation = "isolated"
    orders: tuple[Order, ...] = ("AB", "BA")
    variants: tuple[str, ...] = ("anchored", "ends", "contradiction")
    repeats: Annotated[int, Field(ge=1, le=1000)] = 3
    temperature: Annotated[float, Field(ge=0, le=2)] = 1.0
    scale: Scale = "dec2"
    logprobs: bool = True
    reprompt: bool = True
    max_tokens: Annotated[int, Field(ge=4, le=100_000)] = 16
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _known(self) -> Protocol:
        if not self.orders or len(set(self.orders)) < len(self.orders):
            raise ValueError("orders are AB, BA or both")
        wrong = [v for v in self.variants if v not in (*VARIANTS, LAB)]
        if wrong or not self.variants or len(set(self.variants)) < len(self.variants):
            raise ValueError(
                f"variants are some of {', '.join(VARIANTS)}, or {LAB}, each once; got {cut(printable(', '.join(self.variants)), 100) or 'none'}"
            )
        if LAB in self.variants and (self.scale != "d9" or self.presentation == "batch"):
            raise ValueError(f"the variant {LAB} asks for one digit about one pair: name the scale d9 and leave batch out")
        return self

    @property
    def expects(self) -> bool:
        """Whether ratings are expected ones where a model tells log-probabilities: of a single digit about a single pair."""
        return self.logprobs and self.scale == "d9" and self.presentation == "isolated"


ATLAS_V1 = Protocol(presentation="batch", orders=("AB",), variants=("anchored",), repeats=1, temperature=1.0, scale="dec2", reprompt=False)
"""The published procedure (Atlas Divergence Test, protocol v1.0), in our words with the same anchors: all pairs in one list, once, in one order."""


def protocol_of(given: Mapping[str, object], of: Protocol | None = None) -> Protocol:
    """A protocol from settings as somebody wrote them.

    Args:
        given: settings by name.
        of: the protocol that the others are taken from; the default one without it.

    Raises:
        InputError: naming the setting, what was found and what is allowed.
    """
    try:
        return Protocol.model_validate({**(of or Protocol()).model_dump(), **given})
    except ValidationError as error:
        one = error.errors()[0]
        where = ".".join(map(str, one["loc"]))
        found = "" if not where or isinstance(one["input"], Mapping) else f"; found {cut(printable(repr(one['input'])), 60)}"
        raise InputError(f"{where}{': ' if where else ''}{one['msg'].removeprefix('Value error, ')}{found}") from None


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one model.

    Attributes:
        model: its name in the roster.
        pairs: numbers of the pairs shown, one if isolated.
        order, variant, repeat: which of them.
        key: identity of the request within a run; the repeat is part of it, so that nothing answers for it.
        seed: of sampling.
    """

    model: str
    pairs: tuple[int, ...]
    order: Order
    variant: str
    repeat: int
    key: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """Every call of a run. ``identity`` is that of all that may move a rating but the roster."""

    protocol: Protocol
    pairs: PairSet

    @cached_property
    def identity(self) -> str:
        wordings = [dict(VARIANTS), {k: list(v) for k, v in _SCALES.items()}, _ONE, _LIST, _LAB, AGAIN, [list(shot) for shot in SHOTS]]
        listed = (
            [pair.name for pair in self.pairs.pairs] if self.protocol.presentation == "batch" else []
        )  # what stands before moves a rating
        return digest([self.protocol.model_dump(mode="json"), self.pairs.identity, listed, wordings])

    def calls(self, model: str, identity: str) -> list[Call]:
        """Calls of one model in an order of its own: drift and outages then hit all categories alike.

        Args:
            model: its name.
            identity: of model and parameters, part of every key; the name is too, so that one model under two names is asked twice.
        """
        p = self.protocol
        every = range(len(self.pairs.pairs))
        shown = [tuple(every)] if p.presentation == "batch" else [(i,) for i in every]
        out = [
            self._call(model, identity, pairs, order, variant, repeat)
            for pairs in shown
            for order in p.orders
            for variant in p.variants
            for repeat in range(1, p.repeats + 1)
        ]
        random.Random(f"{p.seed} {model}").shuffle(out)  # noqa: S311 - an order of questions
        return out

    def _call(self, model: str, identity: str, pairs: tuple[int, ...], order: Order, variant: str, repeat: int) -> Call:
        shown = [[self.pairs.pairs[i].name, self.pairs.pairs[i].a, self.pairs.pairs[i].b] for i in pairs]
        key = digest([self.identity, model, identity, shown, order, variant, repeat])[:32]
        return Call(model, pairs, order, variant, repeat, key, seed_of(self.protocol.seed, key))

    def text(self, call: Call) -> str:
        """What the model is shown."""
        if call.variant == LAB:
            return _LAB.format(**_texts(self.pairs.pairs[call.pairs[0]], call.order))
        how, low, mid, high = _SCALES[self.protocol.scale]
        anchors = VARIANTS[call.variant].format(low=low, mid=mid, high=high)
        if self.protocol.presentation == "isolated":
            return _ONE.format(scale=how, anchors=anchors, **_texts(self.pairs.pairs[call.pairs[0]], call.order))
        shown = "\n\n".join(f"{n}.\n{_both(self.pairs.pairs[i], call.order)}" for n, i in enumerate(call.pairs, 1))
        return _LIST.format(count=len(call.pairs), scale=how, anchors=anchors, pairs=shown)

    def messages(self, call: Call) -> tuple[Message, ...]:
        """The conversation, one message long."""
        return (("user", self.text(call)),)

    def again(self, call: Call, reply: str) -> tuple[Message, ...]:
        """The conversation that asks once more."""
        return (*self.messages(call), ("assistant", reply[:_ECHO]), ("user", AGAIN.format(scale=_SCALES[self.protocol.scale][0])))

    def raw(self, call: Call) -> str:
        """The whole text for a model without a chat template: examples first, for it was not taught to follow a request."""
        how = self.text(call)
        if call.variant == LAB:
            return f"question: {how} answer:"
        if self.protocol.presentation == "batch":
            return f"{how}\n\nRatings:\n"
        head, _, pair = how.partition("\n\n")
        shown = "\n\n".join(f"Text 1: {a}\n\nText 2: {b}\n\nRating: {value[self.protocol.scale]}" for a, b, value in SHOTS)
        return f"{head}\n\n{shown}\n\n{pair}\n\nRating:"

    def stops(self, call: Call) -> tuple[str, ...]:
        """Where the reply of a model without a chat template ends: a list at an empty line, a rating with its own."""
        if call.variant == LAB:
            return ("question",)
        return ("\n\n",) if self.protocol.presentation == "batch" else ("\n",)

    def limit(self, call: Call) -> int:
        """Longest reply, in tokens."""
        return self.protocol.max_tokens * len(call.pairs)


def _texts(pair: Pair, order: Order) -> dict[str, str]:
    one, two = (pair.a, pair.b) if order == "AB" else (pair.b, pair.a)
    return {"one": one, "two": two}


def _both(pair: Pair, order: Order) -> str:
    return "Text 1: {one}\nText 2: {two}".format(**_texts(pair, order))
