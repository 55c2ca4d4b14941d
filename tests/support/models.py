"""A model whose every answer is known: what it says is a function of what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import InputError
from aligntax.models.references import Reference


class Known:
    """Answers by a function of the prompt's text; counts what it was asked. ``stop_after`` raises like a Ctrl-C."""

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
        reason: str = "stop",
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
            yield number, said if isinstance(said, Failure) else Generated(said, self.reason, len(said.split()))  # type: ignore[arg-type]

    def score(self, asks: Sequence[ScoreAsk]) -> Iterator[tuple[int, Scored | Failure]]:
        for number, ask in enumerate(asks):
            self._count(ask)
            yield number, Scored((self.likes(ask.prompt.text or "", ask.text),), (False,))

    def warm(self) -> None:
        pass

    def close(self) -> None:
        self.closed += 1
