"""Who can be asked. Imports no torch.

Three abilities: ``Generates`` writes on from a prompt, ``ScoresText`` tells how likely a given text is, ``Exposes`` shows whole
distributions. A local model has all three; an endpoint has those that its server offers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from aligntax.core.asks import Answer, Ask, Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored

__all__ = [
    "Answer", "Ask", "Exposes", "Failure", "GenerateAsk", "Generated", "Generates", "Message", "Model", "Prompt", "ScoreAsk", "Scored",
    "ScoresText",
]  # fmt: skip


class Model(Protocol):
    """Who is asked.

    Attributes:
        name: for people.
        identity: what is hashed into the identity of every request: the content of weights, adapter and tokenizer with the dtype, or
            the endpoint and the model it serves. Two models never share it.
        facts: choices with their reasons, for provenance: device, dtype, whether prefixes are shared.
        context: tokens that prompt and answer may have together; None if unknown.
        renders: whether conversations become text here; False where only the endpoint has the template.
    """

    @property
    def name(self) -> str: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    @property
    def context(self) -> int | None: ...

    @property
    def renders(self) -> bool: ...

    def raw(self, text: str) -> Prompt:
        """A text as it is."""

    def chat(self, messages: Sequence[Message]) -> Prompt:
        """A conversation, ready for the assistant's turn.

        Raises:
            InputError: if the tokenizer has no chat template, or it refuses the messages.
        """

    def templated(self, text: str) -> Prompt:
        """A conversation that was rendered by this model's chat template already (``template``); nothing is added before it."""

    def template(self, messages: Sequence[Message]) -> str:
        """A conversation as text.

        Raises:
            InputError: where only the endpoint can, or there is no chat template.
        """

    def continuation(self, prompt: Prompt, text: str) -> ScoreAsk:
        """``text`` to be scored after ``prompt``; tokenized together, so that tokens do not depend on where the cut is."""

    def warm(self) -> None:
        """Load what answering needs, or do nothing."""

    def close(self) -> None:
        """Give back memory and connections."""


@runtime_checkable
class Generates(Protocol):
    def generate(self, asks: Sequence[GenerateAsk]) -> Iterator[tuple[int, Generated | Failure]]:
        """(number of the ask, its answer), in the order in which they are ready."""


@runtime_checkable
class ScoresText(Protocol):
    def score(self, asks: Sequence[ScoreAsk]) -> Iterator[tuple[int, Scored | Failure]]:
        """(number of the ask, its answer), in the order in which they are ready."""


@runtime_checkable
class Exposes(Protocol):
    def distributions(self) -> Any:
        """The model's scorer over whole vocabularies (``models.scoring.Scorer``); imports torch."""
