"""What can be asked of a model, and what comes back: the words that tasks, models and the flow share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Message = tuple[str, str]
"""(role, content) of one turn of a conversation."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as rendered; what is not known here is left to the endpoint.

    Attributes:
        text: the rendered text; None where an endpoint applies its own chat template.
        tokens: its token ids, begin token included; None where an endpoint tokenizes.
        messages: the conversation it was rendered from; empty for raw prompts.
        special: whether the tokenizer adds its own begin token; a chat template brings it along.
    """

    text: str | None
    tokens: tuple[int, ...] | None
    messages: tuple[Message, ...] = ()
    special: bool = True

    @property
    def key(self) -> Any:
        """What identifies it: tokens if known, else the text, else the messages."""
        if self.tokens is not None:
            return list(self.tokens)
        return self.text if self.text is not None else [list(m) for m in self.messages]


@dataclass(frozen=True, slots=True)
class ScoreAsk:
    """How likely is ``text`` after ``prompt``? ``tokens`` are its token ids, None where an endpoint tokenizes.

    ``top`` asks also for so many of the likeliest tokens at every place.
    """

    prompt: Prompt
    text: str
    tokens: tuple[int, ...] | None
    top: int = 0

    @property
    def key(self) -> Any:
        asked = list(self.tokens) if self.tokens is not None else self.text
        return ["score", self.prompt.key, asked, *([self.top] if self.top else [])]


@dataclass(frozen=True, slots=True)
class GenerateAsk:
    """What comes after ``prompt``?

    Attributes:
        max_tokens: at most so many new tokens.
        temperature: 0 takes the most likely token. top_p: sample from the smallest set with this mass.
        stops: texts that end the answer; they are not part of it.
        seed: of the draws; equal seeds give equal answers where the model can promise it.
    """

    prompt: Prompt
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    stops: tuple[str, ...] = ()
    seed: int = 0

    @property
    def key(self) -> Any:
        drawn = [self.temperature, self.top_p, self.seed] if self.temperature > 0 else []
        return ["generate", self.prompt.key, self.max_tokens, list(self.stops), drawn]


Ask = ScoreAsk | GenerateAsk


@dataclass(frozen=True, slots=True)
class Scored:
    """Log-probabilities (nats) of the tokens of a text, each after all before it, and whether each was the most likely one.

    ``tops``, where they were asked for and ids are told: at every place the log-probabilities of the likeliest tokens by id, the text's own
    token among them.
    """

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    tops: tuple[Mapping[int, float], ...] = ()

    @property
    def total(self) -> float:
        return sum(self.logprobs)


@dataclass(frozen=True, slots=True)
class Generated:
    """An answer: its text without the stop, why it ended (``stop``, or ``length`` when the budget was spent), how many tokens it has if known.

    ``drawn``: ids of the tokens as they were drawn, those of the stop and the end token among them; empty where nobody told.
    """

    text: str
    reason: Literal["stop", "length"]
    tokens: int | None
    drawn: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Diverged:
    """How far two models are from each other along one answer: sums over its tokens, in nats.

    Attributes:
        tokens: of the answer.
        kl_forward: KL(candidate || baseline). kl_reverse: KL(baseline || candidate). js: Jensen-Shannon divergence.
        entropy_baseline, entropy_candidate: entropies over the vocabulary.
        agree: tokens where both have the same most likely token.
    """

    tokens: int
    kl_forward: float
    kl_reverse: float
    js: float
    entropy_baseline: float
    entropy_candidate: float
    agree: int


@dataclass(frozen=True, slots=True)
class Failure:
    """The machinery did not answer: why, in one sentence. Never an answer, never a score."""

    why: str


Answer = Scored | Generated | Diverged | Failure
