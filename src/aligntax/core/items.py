"""What is asked of every model, before any model renders it: tasks, their questions, and how an answer is graded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from aligntax.core.asks import Answer, Message
from aligntax.core.samples import Outcome
from aligntax.core.study import Elicitation


@dataclass(frozen=True, slots=True)
class Value:
    """One score of one sample: ``value`` None where there is none; ``extracted`` is what a parser took from the answer."""

    value: float | None
    outcome: Outcome = Outcome.SCORED
    extracted: str | None = None


@dataclass(frozen=True, slots=True)
class Templated:
    """A conversation as some other harness rendered it by the model's own chat template; nothing is added before it."""

    text: str


Wording = str | tuple[Message, ...] | Templated
"""What stands before an answer: a raw text, a conversation, or one rendered already."""


@dataclass(frozen=True, slots=True)
class Choose:
    """How likely is each of these texts after the wording?"""

    wording: Wording
    choices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """What comes after the wording, until one of the stops or so many tokens?"""

    wording: Wording
    max_tokens: int
    stops: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Roll:
    """How likely is this whole text? In windows of the model's context, every token predicted once."""

    text: str


Want = Choose | Write | Roll


@dataclass(frozen=True)
class Question:
    """One item as one arm is asked it.

    Attributes:
        item: the source's id. content: hash of question, choices and target.
        question, target: texts to show.
        wants: what is asked, in order. grade: the answers (one list per want: one answer, or one per choice) to scores by metric.
        cluster: what was sampled, where items are not independent. labels: what subgroups can be made of.
    """

    item: str
    content: str
    question: str
    target: str
    wants: tuple[Want, ...]
    grade: Callable[[Sequence[Sequence[Answer]]], dict[str, Value]]
    cluster: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


class Task(Protocol):
    """A source of questions.

    Attributes:
        name: as the ledger calls it.
        kind: what it measures, None where the table of kinds says so.
        identity: hash of its items and of how they are asked and graded.
        higher_is_better: direction by metric.
        facts: version and settings, for provenance.
    """

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str | None: ...

    @property
    def identity(self) -> str: ...

    @property
    def higher_is_better(self) -> Mapping[str, bool]: ...

    @property
    def facts(self) -> Mapping[str, Any]: ...

    def questions(self, how: Elicitation, template: Callable[[Sequence[Message]], str] | None) -> Sequence[Question]:
        """The items in their order, as an arm with this elicitation is asked them.

        Args:
            how: template, shots, system prompt.
            template: renders a conversation by the model's chat template; None where only an endpoint can.

        Raises:
            InputError: if the task cannot be asked so.
        """
