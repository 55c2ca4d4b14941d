"""A guard at its post: with the model that it asks, if it asks one. Imports no torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aligntax.core.asks import Failure, GenerateAsk, Generated
from aligntax.core.errors import InputError
from aligntax.core.guards import Guard, Verdict, settled
from aligntax.core.ids import digest
from aligntax.core.words import printable
from aligntax.models.asks import Generates, Model
from aligntax.models.timing import Stopwatch


@dataclass(frozen=True)
class Checked:
    """One verdict by the clock: seconds it took, and how many tokens a moderator read and wrote (0 without one, None if unknown)."""

    blocks: bool
    seconds: float
    tokens: int | None


@dataclass(frozen=True)
class Sentry:
    """A guard that can act; ``model`` is its moderator, None where it asks nobody."""

    guard: Guard
    model: Model | None = None

    @property
    def name(self) -> str:
        return self.guard.name

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the moderator says about itself."""
        return {} if self.model is None else self.model.facts

    def ask(self, prompt: str, answer: str | None) -> GenerateAsk:
        """What its moderator is asked, greedily, so that equal texts get equal verdicts."""
        model, text = settled(self.model), self.guard.question(prompt, answer)
        asked = model.raw(text) if self.guard.template == "raw" else model.chat([("user", text)])
        return GenerateAsk(asked, self.guard.max_tokens)

    def read(self, reply: Generated | Failure) -> Verdict:
        """What the moderator's reply says."""
        return reply if isinstance(reply, Failure) else self.guard.read(reply.text)

    def timed(self, prompt: str, answer: str | None, watch: Stopwatch | None) -> Checked | Failure:
        """One verdict, asked once and alone; ``watch`` is its moderator's."""
        if self.model is None:
            begun = time.perf_counter()
            found = self.guard.searched(prompt if answer is None else answer)
            took = time.perf_counter() - begun
            return found if isinstance(found, Failure) else Checked(found, took, 0)
        ask = self.ask(prompt, answer)
        reply = settled(watch)(ask)
        if isinstance(reply, Failure):
            return reply
        verdict = self.guard.read(reply.text)
        if isinstance(verdict, Failure):
            return verdict
        read = ask.prompt.tokens
        return Checked(verdict, reply.total, None if read is None or reply.tokens is None else len(read) + reply.tokens)


def posted(guard: Guard, model: Model | None, label: str, arm: str) -> Sentry:
    """A guard with its moderator, whose content becomes part of what identifies it.

    Args:
        guard: as given.
        model: its moderator.
        label: what the moderator is called; never a path.
        arm: whose guard it is, for messages.

    Raises:
        InputError: if it cannot act.
    """
    who = f"guard {guard.name!r} of {printable(arm)}"
    if model is None:
        if guard.pattern is None and guard.check is None:
            raise InputError(f"{who} is a function that is not here: only its name and version are written down; give it again from Python")
        return Sentry(guard)
    if not isinstance(model, Generates):
        raise InputError(f"{who} asks {printable(model.name)}, which writes no answers; a moderator must write")
    chats = bool(model.facts.get("chat_template", True))
    if guard.template == "chat" and not chats:
        raise InputError(f"{who} asks {printable(model.name)} in a chat, and it has no chat template; ask it with template: raw")
    template = guard.template or ("chat" if chats else "raw")
    return Sentry(guard.model_copy(update={"model": label, "template": template, "identity": digest(dict(model.identity))[:16]}), model)
