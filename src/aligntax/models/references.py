"""Names of models, and what stands behind them. Imports no torch until a local model is opened.

    lab:sft                     an embedded model
    path/to/folder              a model folder, or a PEFT adapter's (its base model is found as PEFT finds it)
    org/name, hf:org/name@rev   a model of the Hugging Face hub, at a revision
    api:http://host:8000/v1#m   an endpoint of the OpenAI protocol, and the model it serves (may be left out where it serves one)

Options follow after commas: ``dtype`` (auto, float32, bfloat16, float16), ``adapter`` (a PEFT folder), ``tokenizer`` (for endpoints).
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from aligntax.core.errors import InputError, MissingExtraError
from aligntax.core.words import printable
from aligntax.models.embedded import PREFIX, folder_of

if TYPE_CHECKING:
    from aligntax.models.asks import Model

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
DTYPES: tuple[str, ...] = get_args(Dtype)
_HUB = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")
_LONGEST = 4096
_OPTIONS = {"api": ("tokenizer",), "local": ("adapter", "dtype")}


@dataclass(frozen=True)
class Reference:
    """A model as it was named.

    Attributes:
        text: as given. where: ``lab``, ``folder``, ``hub`` or ``api``.
        place: name of the embedded model, folder, hub id or URL. revision: of a hub id.
        served: the model an endpoint serves. adapter, dtype, tokenizer: options.
    """

    text: str
    where: Literal["lab", "folder", "hub", "api"]
    place: str
    revision: str | None = None
    served: str | None = None
    adapter: str | None = None
    dtype: str = "auto"
    tokenizer: str | None = None

    @property
    def label(self) -> str:
        """A short name, without directories: what arms are called, and what is written down."""
        if self.where == "api":
            return self.served or "endpoint"
        return Path(self.place).name


def parse(text: str) -> Reference:
    """What a name means.

    Raises:
        InputError: if it means nothing, or an option is not known.
    """
    if not isinstance(text, str) or not text or len(text) > _LONGEST:
        raise InputError(f"a model is named by a text of 1 to {_LONGEST:,} characters, found {printable(reprlib.repr(text))}")
    if _there(text):  # a folder's name may hold anything
        return _folder(text, {})
    name, *rest = text.split(",")
    options = {}
    for part in rest:
        key, found, value = part.partition("=")
        if not (found and value):
            raise InputError(f"{printable(name)}: an option is written key=value, found {printable(repr(part))}")
        options[key.strip()] = value.strip()
    allowed = _OPTIONS["api" if name.startswith("api:") else "local"]
    if unknown := sorted(set(options) - set(allowed)):
        hint = "; a key belongs into the environment variable ALIGNTAX_API_KEY" if "key" in unknown[0] else ""
        raise InputError(f"{printable(name)}: no option {printable(unknown[0])!r} here; allowed: {', '.join(allowed)}{hint}")
    if options.get("dtype", "auto") not in DTYPES:
        raise InputError(f"{printable(text)}: dtype must be one of {', '.join(DTYPES)}")
    return _named(text, name, options)


def _named(text: str, name: str, options: dict[str, str]) -> Reference:
    if name.startswith("api:"):
        url, _, served = name.removeprefix("api:").partition("#")
        if not re.match(r"^https?://[^/\s]+", url):
            raise InputError(f"{printable(text)} names no endpoint; write api:http://host:port/v1#model")
        return Reference(text, "api", url, served=served or None, tokenizer=options.get("tokenizer"))
    if name.startswith(PREFIX):
        return Reference(text, "lab", name.removeprefix(PREFIX), None, None, options.get("adapter"), options.get("dtype", "auto"))
    if _there(name):
        return _folder(name, options)
    hub = name.removeprefix("hf:")
    if _HUB.match(hub):
        place, _, revision = hub.partition("@")
        return Reference(text, "hub", place, revision or None, None, options.get("adapter"), options.get("dtype", "auto"))
    raise InputError(
        f"{printable(text)} is no model: there is no such folder, and a hub id looks like org/name or hf:org/name@revision; "
        "embedded models are named lab:base, lab:sft, ..., endpoints api:URL#model"
    )


def _there(name: str) -> bool:
    try:
        return Path(name).exists()
    except (OSError, ValueError):  # too long for a path, or with a zero byte
        return False


def _folder(name: str, options: dict[str, str]) -> Reference:
    if not Path(name).is_dir():
        raise InputError(f"{printable(name)} is a file; a model is a folder with config.json and safetensors")
    return Reference(name, "folder", name, None, None, options.get("adapter"), options.get("dtype", "auto"))


def open_model(
    reference: Reference,
    *,
    device: str = "auto",
    batch_tokens: int | None = None,
    concurrency: int = 8,
    say: Callable[[str], None] | None = None,
) -> Model:
    """The model behind a name, loaded or connected; ``say`` is told what people should know while an endpoint is asked.

    Raises:
        InputError: if it cannot be had.
        MissingExtraError: if torch or transformers are not installed.
    """
    if reference.where == "api":
        from aligntax.models.endpoint import Endpoint

        tokenizer = None if reference.tokenizer is None else _tokenizer(parse(reference.tokenizer))
        endpoint = Endpoint(reference.place, reference.served, tokenizer=tokenizer, concurrency=concurrency, say=say)
        endpoint.connect()
        return endpoint
    need_torch()
    from aligntax.models.hf import HFModel

    return HFModel.open(reference, device=device, batch_tokens=batch_tokens)


def _tokenizer(reference: Reference) -> Any:
    need_torch()
    from aligntax.models.hf import load_tokenizer, local_folder

    return load_tokenizer(local_folder(reference))


def embedded_folder(reference: Reference) -> Path:
    """Folder of an embedded model."""
    return folder_of(reference.place)


def need_torch() -> None:
    """Whether local models can be opened.

    Raises:
        MissingExtraError: naming what is missing.
    """
    from importlib.util import find_spec

    missing = [m for m in ("torch", "transformers") if find_spec(m) is None]
    if missing:
        raise MissingExtraError(", ".join(missing), "models")
