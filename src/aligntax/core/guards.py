"""Guards: what stands between a model and its user. An input guard reads the question, an output guard the answer; each says block or pass.

A guard is a regular expression, a second model that is asked (a moderator), or a function of the user's. What is blocked is replaced by one
text. A system prompt guards as well, but blocks nothing: it is the arm's own ``system``.
"""

from __future__ import annotations

import re
import reprlib
import warnings
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from aligntax.core.asks import Failure
from aligntax.core.errors import InputError
from aligntax.core.words import printable

INSTEAD = "I'm sorry, but I can't help with that."
"""What the user gets in place of what was blocked, if the arm does not say."""

LONGEST = 20_000
"""Characters of a text that a pattern is searched in."""

MAX_TOKENS = 16
"""Tokens of a moderator's reply, if its guard does not say."""

Verdict = bool | Failure
"""True blocks, False passes; a failure is neither."""

T = TypeVar("T")
_PLACES = re.compile(r"\{(prompt|answer)\}")
_PROMPT, _ANSWER = "{prompt}", "{answer}"
_RECORDED = ("check", "version", "identity")
_KEYS = ("name", "where", "pattern", "model", "ask", "blocks", "passes", "template", "max_tokens")
_ODD = "\x00\x01"  # what no pattern that means something looks for


class Guard(BaseModel):
    """One guard; all of it but ``check`` is part of the arm's identity.

    Attributes:
        name: as the ledger calls it.
        where: ``input`` reads the question, ``output`` the answer.
        pattern: blocks where this regular expression is found.
        model: the moderator's reference; once planned, its label.
        ask: what the moderator is asked, with ``{prompt}`` (the question) and ``{answer}`` in their places.
        blocks: blocks where this is found in the moderator's reply. passes: passes where this is; a reply with neither is a failure. Without
            ``passes`` every other reply passes.
        template: how the moderator is asked; None takes its chat template if it has one. max_tokens: of its reply.
        check: gets the text, says whether to block; never read from a file. version: what tells it from its other versions.
        identity: of the moderator's content, filled in when a study is planned.

    Raises:
        InputError: if it is no guard; in one sentence.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    name: Annotated[str, Field(pattern=r"^[\w.-]{1,60}$")]
    where: Literal["input", "output"]
    pattern: str | None = None
    model: str | None = None
    ask: str | None = None
    blocks: str | None = None
    passes: str | None = None
    template: Literal["raw", "chat"] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = MAX_TOKENS
    check: Callable[[str], bool] | None = Field(default=None, exclude=True, repr=False)
    version: str | None = None
    identity: str | None = None

    def __init__(self, /, **given: Any) -> None:
        try:
            super().__init__(**given)
        except ValidationError as error:
            raise InputError(_sentence(error, given)) from None

    @model_validator(mode="after")
    def _is_one(self) -> Guard:
        for text in (self.pattern, self.ask, self.blocks, self.passes, self.version):
            try:
                (text or "").encode()
            except UnicodeEncodeError:
                raise ValueError("its texts must be UTF-8") from None
        kinds = {"a pattern": self.pattern, "a model": self.model, "a check": self.check or self.version}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(given) or "nothing of it"
            raise ValueError(f"a guard is a pattern, a model that is asked, or (from Python) a check with its version; found {found}")
        if self.model is None and (self.ask or self.blocks or self.passes or self.template or self.max_tokens != MAX_TOKENS):
            raise ValueError("ask, blocks, passes, template and max_tokens are for a model that is asked; name one with model")
        if self.pattern is not None:
            _expression("pattern", self.pattern)
        elif self.model is not None:
            self._asks()
        elif not self.version:
            raise ValueError("a check needs a version: its code is not part of the arm's identity, name and version are")
        return self

    def _asks(self) -> None:
        if not self.ask or not self.blocks:
            raise ValueError("a moderator needs ask (what it is asked) and blocks (a regular expression on its reply that blocks)")
        _expression("blocks", self.blocks)
        if self.passes is not None:
            _expression("passes", self.passes)
        if self.where == "output" and _ANSWER not in self.ask:
            raise ValueError("ask has no {answer}: an output guard must show its moderator the answer")
        if self.where == "input" and (_PROMPT not in self.ask or _ANSWER in self.ask):
            raise ValueError("ask of an input guard has {prompt}, and no {answer}: there is none yet")

    def searched(self, text: str) -> Verdict:
        """What a pattern or a check says of a text."""
        if self.check is None:
            return re.search(settled(self.pattern), text[:LONGEST]) is not None
        try:
            found = self.check(text)
        except Exception as error:  # noqa: BLE001 - somebody's code: a fault of the machinery, never a verdict
            return Failure(f"the check raised {type(error).__name__}: {printable(str(error))[:200]}")
        if type(found).__name__ not in ("bool", "bool_"):  # NumPy's as well
            raise InputError(f"guard {self.name!r}: its check must return True or False, got {printable(reprlib.repr(found))}")
        return bool(found)

    def question(self, prompt: str, answer: str | None) -> str:
        """What the moderator is asked. Both texts are put in at once: what looks like a place in them stays as it is."""
        texts = {"prompt": prompt, "answer": answer or ""}
        return _PLACES.sub(lambda place: texts[place[1]], settled(self.ask))

    def read(self, reply: str) -> Verdict:
        """What a moderator's reply says."""
        if re.search(settled(self.blocks), reply[:LONGEST]):
            return True
        if self.passes is None or re.search(self.passes, reply[:LONGEST]):
            return False
        return Failure("the moderator's reply is neither what blocks nor what passes")


def settled(value: T | None) -> T:
    """What a guard of this kind has.

    Raises:
        TypeError: if it is asked of a guard of another kind.
    """
    if value is None:
        raise TypeError("a guard of another kind has none of this")
    return value


def check_names(guards: tuple[Guard, ...], instead: str | None) -> None:
    """Whether the guards of one arm go together.

    Raises:
        ValueError: on two of one name, or a text in place of what nobody blocks.
    """
    names = [guard.name for guard in guards]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"two guards of one arm are named {twice!r}: each needs a name of its own")
    if instead is not None and not guards:
        raise ValueError("instead is what the user gets in place of what a guard blocks, and there are no guards")
    if instead is not None and not instead.strip():
        raise ValueError("instead is empty: name the text that the user gets in place of what is blocked")
    try:
        (instead or "").encode()
    except UnicodeEncodeError:
        raise ValueError("instead must be UTF-8 text") from None


def from_file(given: object) -> object:
    """A guard as a file may say it: code is not named in files.

    Raises:
        ValueError: on a key that only Python may give, or that is no word.
    """
    if isinstance(given, dict) and (odd := [key for key in given if not isinstance(key, str)]):
        raise ValueError(f"a guard has the keys {', '.join(_KEYS)}; found {printable(reprlib.repr(odd[0]))}")
    if isinstance(given, dict) and (key := next((key for key in _RECORDED if key in given), None)):
        raise ValueError(f"a guard in a file has no {key}: a file names no code; give functions from Python (docs/guards.md)")
    return given


def _expression(key: str, text: str) -> None:
    """Whether a regular expression can be searched for, and leaves anything out.

    Raises:
        ValueError: if not.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a pattern may mean in a later Python: it means what it means here
            found = re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{key} {printable(reprlib.repr(text))} is no regular expression ({printable(str(error))[:100]})") from None
    if found.search("") and found.search(_ODD):
        raise ValueError(f"{key} {printable(reprlib.repr(text))} is found in every text, even an empty one")


def _sentence(error: ValidationError, given: dict[str, Any]) -> str:
    first = error.errors(include_url=False)[0]
    name = given.get("name")
    who = f"guard {printable(reprlib.repr(name))}" if isinstance(name, str) else "a guard"
    key = ".".join(map(str, first["loc"]))
    value = printable(reprlib.repr(given.get(key)))[:80]
    if first["type"] == "extra_forbidden":
        return f"{who}: unknown key {printable(reprlib.repr(key))}; known: {', '.join(_KEYS)}"
    if first["type"] == "missing":
        return f"{who} has no {key}"
    if key == "where":
        why = "; a system prompt blocks nothing and is the arm's own key system" if given.get("where") == "system" else ""
        return f"{who}: where must be input (reads the question) or output (reads the answer), got {value}{why}"
    if key == "name":
        return f"{who}: a name has 1 to 60 letters, digits, dots, hyphens and underscores"
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{who}: {message}" if not key else f"{who}: {printable(key)}: {printable(message)}, got {value}"
