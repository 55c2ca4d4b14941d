"""Doubles with known answers, and suites that plug-ins can run on themselves. Public."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import InputError
from aligntax.core.samples import Outcome
from aligntax.models.references import Reference
from aligntax.models.timing import Timed
from aligntax.store.logs import Reader, Sighting, Want


@dataclass(frozen=True)
class Flips:
    """How a double's answers move from one arm to the next, per item.

    Attributes:
        lost: probability that a right answer becomes wrong.
        gained: probability that a wrong answer becomes right.
        unparsed: probability that an answer cannot be read (and counts as wrong).
    """

    lost: float = 0.0
    gained: float = 0.0
    unparsed: float = 0.0


class SimulatedTask:
    """A task whose arms are drawn, not run: the expected change of each arm is known in closed form.

    Args:
        name: task name.
        items: number of items. sources: number of clusters they are spread over.
        accuracy: probability that the first arm is right.
        seed: of the draws.
    """

    def __init__(self, name: str, *, items: int, sources: int, accuracy: float, seed: int) -> None:
        self.name, self.items, self.sources, self.accuracy = name, items, sources, accuracy
        self.rng = np.random.default_rng(seed)
        self.right = self.rng.random(items) < accuracy

    def arm(self, flips: Flips) -> Iterator[dict[str, Any]]:
        """Rows of the next arm, each made from the arm before it; columns as a plain table has them."""
        u, v = self.rng.random(self.items), self.rng.random(self.items)
        self.right = np.where(self.right, u >= flips.lost, u < flips.gained)
        for i in range(self.items):
            unread = bool(v[i] < flips.unparsed)
            right = bool(self.right[i]) and not unread
            target = (7 * i + 3) % 10
            said = "As for that, one could say many things." if unread else f"The answer is {target if right else (target + 1) % 10}."
            yield {
                "task": self.name,
                "item": f"{self.name}-{i:04d}",
                "score": int(right),
                "outcome": str(Outcome.UNPARSED if unread else Outcome.SCORED),
                "cluster": f"source {i % self.sources:02d}",
                "question": f"Simulated question {i} of {self.name}: which digit stands for it?",
                "target": str(target),
                "answer": said,
            }

    def expected(self, *steps: Flips) -> float:
        """Expected accuracy after these steps (unread answers of the last one count as wrong)."""
        p = self.accuracy
        for step in steps:
            p = p * (1 - step.lost) + (1 - p) * step.gained
        return p * (1 - steps[-1].unparsed) if steps else p


class KnownModel:
    """A model whose every answer is known: what it says is a function of what it is asked. Writes and scores; shows no distributions.

    Args:
        name: of the model, and its identity unless ``identity`` is given.
        says: its reply to a prompt, or a failure.
        likes: log-likelihood (nats) of a text after a prompt; by default minus its length.
        chats: whether it has a chat template, ``<role>text`` for every turn.
        stop_after: raises KeyboardInterrupt, as a Ctrl-C does, when it was asked so often.
        reason: why its replies end, ``stop`` or ``length``.

    Attributes:
        asked: the keys of everything it was asked, in order. closed: how often it was closed.
    """

    context = None
    renders = True

    def __init__(
        self,
        name: str,
        says: Callable[[str], str | Failure],
        *,
        likes: Callable[[str, str], float] = lambda _prompt, text: -float(len(text)),
        chats: bool = True,
        stop_after: int | None = None,
        identity: str | None = None,
        reason: Literal["stop", "length"] = "stop",
    ) -> None:
        self.name, self.says, self.likes, self.chats, self.stop_after, self.reason = name, says, likes, chats, stop_after, reason
        self.identity: Mapping[str, Any] = {"known": identity or name}
        self.facts: Mapping[str, Any] = {"chat_template": chats}
        self.asked: list[Any] = []
        self.closed = 0

    @property
    def reference(self) -> Reference:
        return Reference(self.name, "folder", self.name)

    def raw(self, text: str) -> Prompt:
        return Prompt(text, None)

    def template(self, messages: Sequence[Message]) -> str:
        if not self.chats:
            raise InputError(f"{self.name} has no chat template")
        return "".join(f"<{role}>{content}" for role, content in messages) + "<assistant>"

    def templated(self, text: str) -> Prompt:
        return Prompt(text, None, special=False)

    def chat(self, messages: Sequence[Message]) -> Prompt:
        return Prompt(self.template(messages), None, tuple(messages), special=False)

    def continuation(self, prompt: Prompt, text: str) -> ScoreAsk:
        return ScoreAsk(prompt, text, None)

    def _count(self, ask: Any) -> None:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise KeyboardInterrupt
        self.asked.append(ask.key)

    def generate(self, asks: Sequence[GenerateAsk]) -> Iterator[tuple[int, Generated | Failure]]:
        for number, ask in enumerate(asks):
            self._count(ask)
            said = self.says(ask.prompt.text or "")
            yield number, said if isinstance(said, Failure) else Generated(said, self.reason, len(said.split()))

    def score(self, asks: Sequence[ScoreAsk]) -> Iterator[tuple[int, Scored | Failure]]:
        for number, ask in enumerate(asks):
            self._count(ask)
            yield number, Scored((self.likes(ask.prompt.text or "", ask.text),), (False,))

    def warm(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1


class Machine:
    """What models run on: every request takes ``drift`` times its own time longer than the one before it, as on a machine that throttles."""

    def __init__(self, drift: float = 0.0) -> None:
        self.drift, self.requests = drift, 0

    def slowness(self) -> float:
        """By what the next request's time is multiplied."""
        self.requests += 1
        return 1.0 + self.drift * (self.requests - 1)


class PacedModel(KnownModel):
    """A model whose times are known as well: nothing is waited for, the times are told. A word is a token.

    Args:
        name: of the model.
        says: its reply to a prompt, or a failure.
        first: seconds to the first token.
        per_token: seconds for each token after it.
        machine: what it runs on; models that are compared share one.
        options: as for ``KnownModel``.
    """

    def __init__(
        self,
        name: str,
        says: Callable[[str], str | Failure],
        *,
        first: float,
        per_token: float,
        machine: Machine | None = None,
        **options: Any,
    ) -> None:
        super().__init__(name, says, **options)
        self.first, self.per_token, self.machine = first, per_token, machine or Machine()

    def timed(self, ask: GenerateAsk) -> Timed | Failure:
        self._count(ask)
        said, slowness = self.says(ask.prompt.text or ""), self.machine.slowness()
        if isinstance(said, Failure):
            return said
        tokens = len(said.split())
        total = slowness * (self.first + max(0, tokens - 1) * self.per_token)
        return Timed(said, self.reason, slowness * self.first if tokens else None, total, tokens)


def check_reader(reader: Reader, path: Path, want: Want | None = None) -> None:
    """What every reader must do, run on a log that it understands.

    Raises:
        AssertionError: naming the rule that is broken.
    """
    want = want or Want()
    assert reader.sniff(Sighting(path)), f"{reader.name} does not recognise {path}"
    source = reader.read(path, want)
    if source.rows is None:
        assert source.table is not None, "a source has rows or a table"
        return
    first = [_plain(row) for row in source.rows]
    assert first, "a log without rows must raise LogError, not come out empty"
    for row in first:
        assert row["task"], "every row names its task"
        assert row["item"] or row["content"], "every row has an id or a content hash"
        for metric, value in row["scores"].items():
            assert metric, "metrics have names"
            assert value.value is None or np.isfinite(value.value), "scores are finite or None"
            assert not (value.value is None and value.outcome is Outcome.SCORED), "a scored sample has a score"
    again = reader.read(path, want).rows
    assert again is not None
    assert first == [_plain(row) for row in again], "reading twice gives the same rows"


def _plain(row: Any) -> Mapping[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
