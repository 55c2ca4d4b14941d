"""roster.yaml: which models rate, where they are, and what is known of them before anybody looks at a rating."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from aligntax.core.errors import InputError
from aligntax.core.files import read_text
from aligntax.core.ids import canonical_json
from aligntax.core.study import Frozen
from aligntax.core.words import cut, printable
from aligntax.core.yamlio import read_yaml
from aligntax.models.embedded import folder_of
from aligntax.models.references import Reference, parse
from aligntax.models.wire import address

_LONGEST = 100
_SECRET = re.compile(r"api.?key|secret|password|authori[sz]ation|credential|bearer|^(x-)?key$|(access|auth).?token|^token$", re.I)
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,99}")
_OURS = frozenset(
    {
        "model", "messages", "prompt", "stream", "n", "temperature", "seed", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs", "stop", "echo",
    }
)  # fmt: skip


class Price(Frozen):
    """Of a million tokens, in whatever currency the roster names."""

    input: Annotated[float, Field(ge=0)]
    output: Annotated[float, Field(ge=0)]


class Rater(BaseModel):
    """One model of the ensemble. Keys beside these are facts about it (developer, country, stage, ...): its groups.

    Attributes:
        model: reference, as everywhere (``api:URL#model``, ``lab:sft``, a folder, a hub id).
        template: ``chat``, or ``raw`` for models without one (then with examples).
        parent: the model it was made from, by its name in the roster: the stages of one family.
        answers_as: another name under which the endpoint may answer for the model; dated versions of its own name are known.
        key_env: environment variable with the endpoint's key, in capitals.
        price: for the estimate.
        concurrency: requests at a time. timeout: seconds of one attempt. attempts: how often one request is tried.
        send: further parameters of every request (``provider``, ``reasoning_effort``), never keys.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    model: str
    template: Literal["chat", "raw"] = "chat"
    parent: str | None = None
    answers_as: str | None = None
    key_env: str | None = None
    price: Price | None = None
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 8
    timeout: Annotated[float, Field(gt=0, le=3600)] = 120.0
    attempts: Annotated[int, Field(ge=1, le=20)] = 6
    send: dict[str, Any] = {}

    @field_validator("model", "answers_as")
    @classmethod
    def _can_be_seen(cls, text: str | None) -> str | None:
        if text is not None and not _shows(text):
            raise ValueError("this is a text of characters that can be seen")
        return text

    @field_validator("key_env")
    @classmethod
    def _is_a_variable(cls, name: str | None) -> str | None:
        if name is not None and not _VARIABLE.fullmatch(name):  # it may be the key itself, and is not repeated
            raise ValueError("this is the name of an environment variable, in capitals, such as OTHER_API_KEY; never the key itself")
        return name

    @field_validator("send")
    @classmethod
    def _harmless(cls, send: dict[str, Any]) -> dict[str, Any]:
        if wrong := [k for k in send if k in _OURS]:
            raise ValueError(f"send cannot set {wrong[0]}: the protocol does")
        try:
            canonical_json(send).encode()
        except (TypeError, ValueError, RecursionError):
            raise ValueError("send holds what JSON cannot: texts, numbers, lists and mappings") from None
        if secret := next((name for name in _names(send) if _SECRET.search(name)), None):
            raise ValueError(f"send holds {secret}: keys belong into the environment, named by key_env")
        return send

    @model_validator(mode="after")
    def _facts_are_texts(self) -> Rater:
        known = [name for name in Rater.model_fields if name != "model"]
        for name, value in (self.model_extra or {}).items():
            if _SECRET.search(name):
                raise ValueError(f"{name}: keys belong into the environment, named by key_env")
            if name in _OURS:
                raise ValueError(f"{name}: the protocol sets it, for all models alike")
            if near := get_close_matches(name, known, 1, 0.8):
                raise ValueError(f"{name}: did you mean {near[0]}? a fact about the model needs another name")
            if not _shows(name) or len(name) > _LONGEST:
                raise ValueError(f"the name of a fact has 1 to {_LONGEST} characters that can be seen")
            if value is not None and not isinstance(value, str | int | float | bool):
                raise ValueError(f"{name} must be one text or number, what it says of the model")
            if isinstance(value, float) and not isfinite(value):
                raise ValueError(f"{name} must be one text or number, what it says of the model")
            if isinstance(value, str) and value and (not _shows(value) or len(value) > _LONGEST):
                raise ValueError(f"{name} must be one text of at most {_LONGEST} characters that can be seen")
        return self

    @property
    def facts(self) -> dict[str, str]:
        """What is known of the model, as texts: its groups."""
        return {name: _text(value) for name, value in (self.model_extra or {}).items() if value is not None and value != ""}

    @cached_property
    def reference(self) -> Reference:
        return parse(self.model)

    @property
    def remote(self) -> bool:
        """Whether an endpoint answers for it."""
        return self.reference.where == "api"


def _text(value: Any) -> str:
    return ("no", "yes")[value] if isinstance(value, bool) else str(value)


def _shows(text: str) -> bool:
    """Whether a text is of characters that can be seen, so that it may stand in tables and on terminals."""
    return bool(text.strip()) and printable(text) == text


def _names(value: Any) -> Iterator[str]:
    """Every name in what is sent, however deep."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


class Roster(Frozen):
    """The ensemble. ``currency`` is that of the prices."""

    models: dict[str, Rater] = Field(min_length=1)
    currency: Annotated[str, Field(pattern=r"^[^\W\d_]{1,12}$|^[$€£¥]$")] = "USD"

    @model_validator(mode="after")
    def _family(self) -> Roster:
        settled: set[str] = set()
        for name, rater in self.models.items():
            if not _shows(name) or len(name) > _LONGEST:
                raise ValueError(f"a model's name has 1 to {_LONGEST} characters that can be seen")
            above, at = {name}, rater.parent
            while at is not None and at not in settled:
                if at not in self.models:
                    raise ValueError(f"{name} names the parent {at}, which is not in the roster")
                if at in above:
                    raise ValueError(f"{name} is its own ancestor")
                above.add(at)
                at = self.models[at].parent
            settled |= above
        return self

    def groups(self) -> dict[str, dict[str, str]]:
        """Column -> model -> label, of every fact that some model has; ``parent`` among them where there are families."""
        columns = dict.fromkeys(name for rater in self.models.values() for name in rater.facts)
        out = {column: {name: rater.facts[column] for name, rater in self.models.items() if column in rater.facts} for column in columns}
        parents = {name: rater.parent for name, rater in self.models.items() if rater.parent is not None}
        return {**out, **({"parent": parents} if parents else {})}


def read_roster(path: Path) -> Roster:
    """Read roster.yaml.

    Raises:
        InputError: if it cannot be read, or says what no roster says: where, what was found, what is allowed.
    """
    shown = printable(str(path))
    given = read_yaml(read_text(path, "a roster is a small text", pipes=True), shown)
    if not isinstance(given, Mapping) or not isinstance(given.get("models"), Mapping):
        raise InputError(
            f"{shown} is no roster: 'models:' is expected, with a name and a model each, such as  gpt: {{model: \"api:https://host/v1#gpt\"}}"
        )
    if odd := [name for name in given["models"] if not isinstance(name, str)]:
        raise InputError(f"{shown}: models: the name {printable(str(odd[0]))} is read as no text; write it in quotes")
    try:
        found = Roster.model_validate(given)
    except ValidationError as error:
        one = error.errors()[0]
        where = ", ".join(map(str, one["loc"]))
        said = one["msg"].removeprefix("Value error, ")
        raise InputError(f"{shown}: {cut(printable(where), 200)}{': ' if where else ''}{cut(printable(said), 300)}") from None
    for name, rater in found.models.items():
        try:
            _known(rater.model)
        except InputError as error:
            raise InputError(f"{shown}: models, {printable(name)}: {error}") from None
    return found


def _known(model: str) -> None:
    """Whether a reference is one that can be asked: an endpoint's names its model, an embedded model is there.

    Raises:
        InputError: if not; a password in an address is not repeated.
    """
    if model.startswith("api:"):
        address(model.removeprefix("api:").partition("#")[0].partition(",")[0])
    reference = parse(model)
    if reference.where == "api" and reference.served is None:
        raise InputError(f"{printable(model)} does not say which model; write api:URL#model")
    if reference.where == "lab":
        folder_of(reference.place)
