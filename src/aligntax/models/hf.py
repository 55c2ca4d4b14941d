"""Local models of transformers as arms of a study (imports torch): loading, identity, dtype and device, and the three abilities."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import InputError, MissingExtraError
from aligntax.core.ids import digest
from aligntax.core.words import cut, printable
from aligntax.models.encoding import encoded
from aligntax.models.generation import Generator
from aligntax.models.local import LocalModel, Request, render_chat
from aligntax.models.references import Reference, embedded_folder
from aligntax.models.scoring import BATCH_TOKENS, Likelihood, Query, Scorer

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model",
)  # fmt: skip
_PATTERNS = ["*.safetensors", "*.json", "*.jinja", *(f for f in _TOKENIZER_FILES if not f.endswith((".json", ".jinja")))]
_ADAPTER = "adapter_config.json"
_SHA256 = re.compile(r"^[0-9a-f]{64}$")


class HFModel:
    """A local causal model; satisfies ``Model``, ``Generates``, ``ScoresText`` and ``Exposes``.

    Weights are loaded when something is asked for the first time: planning needs the tokenizer alone, and a run whose answers are all
    known needs no weights.

    Args:
        folder: of the model.
        name: for people.
        adapter: folder of a PEFT adapter, or None.
        dtype: ``auto`` or the name of a torch type. device: ``auto`` or a torch device.
        batch_tokens: tokens of a batch. share: False never shares prefixes.

    Raises:
        InputError: if there is no configuration or tokenizer, or the device is not there.
    """

    renders = True

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        adapter: Path | None = None,
        dtype: str = "auto",
        device: str = "auto",
        batch_tokens: int | None = None,
        share: bool = True,
    ) -> None:
        self.folder, self.name, self.adapter = folder, name, adapter
        self.batch_tokens, self.share = batch_tokens or BATCH_TOKENS, share
        config = load_config(folder)
        # An adapter may bring its own tokenizer, and with it the chat template it was trained with.
        own = adapter is not None and (adapter / "tokenizer_config.json").is_file()
        self.tokenizer = load_tokenizer(adapter if adapter is not None and own else folder)
        self.context: int | None = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31)
        self._vocabulary = int(getattr(config.get_text_config(), "vocab_size", None) or 2**31)
        self.device, device_reason = pick_device(device)
        self.dtype, dtype_reason = _dtype(dtype, self.device, config)
        self.identity: Mapping[str, Any] = {
            "weights": content_key(folder),
            "adapter": None if adapter is None else content_key(adapter),
            "dtype": str(self.dtype).removeprefix("torch."),
        }
        self._facts: dict[str, Any] = {
            "device": self.device,
            "device_reason": device_reason,
            "dtype": self.identity["dtype"],
            "dtype_reason": dtype_reason,
            "chat_template": bool(self.tokenizer.chat_template),
            "batch_tokens": self.batch_tokens,
            "torch": torch.__version__,
        }

    @classmethod
    def open(cls, reference: Reference, *, device: str = "auto", batch_tokens: int | None = None) -> HFModel:
        """What a reference names.

        Raises:
            InputError: if it cannot be had.
        """
        folder = local_folder(reference)
        adapter = Path(reference.adapter) if reference.adapter else None
        if adapter is not None and not (adapter / _ADAPTER).is_file():
            raise InputError(f"{printable(str(adapter))} is no adapter's folder (no {_ADAPTER})")
        if (folder / _ADAPTER).is_file():
            adapter, folder = folder, _base_of(folder)
        return cls(folder, reference.label, adapter=adapter, dtype=reference.dtype, device=device, batch_tokens=batch_tokens)

    @property
    def facts(self) -> Mapping[str, Any]:
        """Choices with their reasons; what only the weights tell is there once they are loaded."""
        if "local" not in self.__dict__:
            return {**self._facts, "weights": "not loaded: every answer was known"}
        return {
            **self._facts,
            "architecture": type(self.local.model).__name__,
            "parameters": sum(p.numel() for p in self.local.model.parameters()),
            "attention": str(self.local.model.config._attn_implementation),
            "scoring": self.scorer.sharing if "scorer" in self.__dict__ else "nothing was scored",
            "generation": self.generator.sharing if "generator" in self.__dict__ else "nothing was written",
        }

    @cached_property
    def local(self) -> LocalModel:
        """The loaded model.

        Raises:
            InputError: if it is no complete model, or would have to be unpickled.
            MissingExtraError: if an adapter is named and peft is not installed.
        """
        loaded = LocalModel.load(self.folder, self.name, dtype=self.dtype, device=self.device)
        if self.adapter is None:
            return loaded
        return LocalModel(_adapted(loaded.model, self.adapter), self.tokenizer, self.name)

    @cached_property
    def scorer(self) -> Scorer:
        """Scores texts, and exposes whole distributions."""
        return Scorer(self.local.model, self.name, share=self.share, batch_tokens=self.batch_tokens)

    @cached_property
    def generator(self) -> Generator:
        """Writes answers."""
        return Generator(self.local.model, self.tokenizer, self.name, share=self.share)

    # -- prompts -----------------------------------------------------------------------------------------------------------

    def raw(self, text: str) -> Prompt:
        """A text as the tokenizer begins one; a begin token that the text brings along is not doubled."""
        begin = self.tokenizer.bos_token
        special = not (begin and text.startswith(begin))
        return Prompt(text, self._encode(text, special), (), special)

    def template(self, messages: Sequence[Message]) -> str:
        """A conversation by the tokenizer's chat template, ready for the assistant's turn."""
        return render_chat(self.tokenizer, self.name, [{"role": role, "content": content} for role, content in messages])

    def templated(self, text: str) -> Prompt:
        """A text that the chat template made; nothing is added before it."""
        return Prompt(text, self._encode(text, special=False), (), special=False)

    def chat(self, messages: Sequence[Message]) -> Prompt:
        """A conversation, ready for the assistant's turn."""
        text = self.template(messages)
        return Prompt(text, self._encode(text, special=False), tuple(messages), special=False)

    def continuation(self, prompt: Prompt, text: str) -> ScoreAsk:
        """``text`` after ``prompt``: spaces at the prompt's end go to the text, both are tokenized together, and cut where the prompt's tokens end.

        That is lm-eval's rule, so that log-likelihoods agree.
        """
        before = prompt.text or ""
        bare = before.rstrip()
        spaces = before[len(bare) :]
        whole = self._encode(bare + spaces + text, prompt.special)
        context = self._encode(bare, prompt.special) if spaces else (prompt.tokens or ())
        if not context:  # nothing comes before: the model is asked after its begin token
            context = (self._begin(),)
            whole = (*context, *whole)
        return ScoreAsk(Prompt(bare, context, prompt.messages, prompt.special), spaces + text, whole[len(context) :])

    def rolling(self, text: str) -> list[ScoreAsk]:
        """A whole text in windows of the context, every token predicted once, the first after the begin token; lm-eval's windows.

        Where a tokenizer adds a begin token, lm-eval also counts that token after itself; here it is context only.
        """
        tokens = self._encode(text, special=False)
        size = self._room
        begin = self._begin()
        asks = []
        for start in range(0, len(tokens), size):
            some = tokens[start : start + size]
            before = (begin,) if start == 0 else tokens[max(0, start + len(some) - size - 1) : start]
            asks.append(ScoreAsk(Prompt(None, before), "", some))
        return asks

    @property
    def _room(self) -> int:
        return self.context or 2**31

    def _begin(self) -> int:
        tokenizer = self.tokenizer
        token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        if token is None:
            raise InputError(f"{printable(self.name)}: its tokenizer has no begin or end token to put before a text")
        return int(token)

    def _encode(self, text: str, special: bool) -> tuple[int, ...]:
        found = encoded(self.tokenizer, text, special)
        if found and max(found) >= self._vocabulary:
            raise InputError(
                f"{printable(self.name)}: its tokenizer makes token {max(found)}, and its configuration has {self._vocabulary} tokens; "
                "it is another model's tokenizer"
            )
        return found

    # -- abilities ---------------------------------------------------------------------------------------------------------

    def score(self, asks: Sequence[ScoreAsk]) -> Iterator[tuple[int, Scored | Failure]]:
        """Log-probabilities of texts, prefixes shared where the model allows it."""
        fit = []
        for number, ask in enumerate(asks):
            why = self._unscorable(ask)
            if why is None:
                fit.append(number)
            else:
                yield number, Failure(why)
        queries = [Query(asks[n].prompt.tokens or (), asks[n].tokens or (), asks[n].top) for n in fit]
        for at, found in self.scorer.score(queries):
            yield fit[at], _scored(found, queries[at], self.name)

    def _unscorable(self, ask: ScoreAsk) -> str | None:
        if not ask.tokens:
            return "the text to be scored has no tokens"
        size = len(ask.prompt.tokens or ()) + len(ask.tokens) - 1
        return None if size <= self._room else f"{size} tokens are too many: {self.name} takes at most {self._room}"

    def generate(self, asks: Sequence[GenerateAsk]) -> Iterator[tuple[int, Generated | Failure]]:
        """Answers, decoded together; none depends on its company."""
        fit = []
        for number, ask in enumerate(asks):
            size = len(ask.prompt.tokens or (self._begin(),))
            if size < self._room:
                fit.append(number)
            else:
                yield number, Failure(f"a prompt of {size} tokens leaves no room: {self.name} takes at most {self._room}")
        requests = [_request(asks[n], asks[n].prompt.tokens or (self._begin(),)) for n in fit]
        left = set(range(len(fit)))
        try:
            for at, reply in self.generator.generate(requests):
                left.discard(at)
                drawn = tuple(token.id for token in reply.tokens)
                yield fit[at], Generated(reply.text, "length" if reply.reason == "length" else "stop", len(drawn), drawn)
        except FloatingPointError as error:
            for at in sorted(left):
                yield fit[at], Failure(str(error))

    def distributions(self) -> Scorer:
        """The scorer, for divergences over whole vocabularies."""
        return self.scorer

    def warm(self) -> None:
        """Load the weights."""
        _ = self.local

    def close(self) -> None:
        """Give the memory back."""
        for part in ("scorer", "generator", "local"):
            self.__dict__.pop(part, None)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _scored(found: Likelihood, query: Query, name: str) -> Scored | Failure:
    logprobs = found.logprobs.tolist()
    if any(x != x or x == float("inf") for x in logprobs):
        return Failure(f"{name} gives log-probabilities that are no numbers")
    tops: list[Mapping[int, float]] = []
    if query.top:
        told = zip(
            found.top[:, : query.top].tolist(), found.top_logprobs[:, : query.top].tolist(), query.continuation, logprobs, strict=True
        )
        tops = [dict(zip([*ids, own], [*values, logprob], strict=True)) for ids, values, own, logprob in told]
    return Scored(tuple(logprobs), tuple(found.greedy.tolist()), tuple(tops))


def _request(ask: GenerateAsk, tokens: tuple[int, ...]) -> Request:
    return Request(
        tokens=tokens,
        max_tokens=ask.max_tokens,
        temperature=ask.temperature,
        top_p=ask.top_p,
        seed=ask.seed,
        stops=ask.stops,
    )


# -- loading -------------------------------------------------------------------------------------------------------------------


def local_folder(reference: Reference) -> Path:
    """The folder of a model; of a hub id, its snapshot in the hub's cache, fetched if it is not there.

    Raises:
        InputError: if it cannot be had.
    """
    if reference.where == "lab":
        return embedded_folder(reference)
    if reference.where == "folder":
        return Path(reference.place)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    named = printable(reference.place + (f"@{reference.revision}" if reference.revision else ""))
    try:
        return Path(snapshot_download(reference.place, revision=reference.revision, allow_patterns=_PATTERNS))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        why = printable(str(error).splitlines()[0] if str(error) else type(error).__name__)[:200]
        raise InputError(
            f"there is no folder {named} here, and it cannot be fetched from the hub ({why}); check the path, or the id, the revision, access "
            "and the connection"
        ) from None


def load_config(folder: Path) -> Any:
    """A folder's configuration.

    Raises:
        InputError: if it is no model folder, or needs code of its own.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise InputError(f"{printable(str(folder))} is no model folder (no config.json)")
    if not any(path.is_file() for path in folder.glob("*.safetensors")):
        others = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".gguf"))
        what = f"it has {printable(others[0])}, which is not read: convert it to safetensors" if others else "it has no *.safetensors"
        raise InputError(f"{printable(str(folder))} has no weights that can be read safely: {what}")
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the library raises almost anything on a broken file
        raise InputError(f"{printable(str(folder))} has no configuration that can be read: {_why(error)}") from None


def load_tokenizer(folder: Path) -> Any:
    """A folder's tokenizer.

    Raises:
        InputError: if there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001 - the library raises almost anything on a broken file
        raise InputError(f"{printable(str(folder))} has no tokenizer that can be loaded: {_why(error)}") from None


def content_key(folder: Path) -> str:
    """Hash of everything in a folder that moves an answer: weights, configuration, tokenizer, chat template."""
    named = [p for p in sorted(folder.iterdir()) if p.suffix == ".safetensors" or p.name in _TOKENIZER_FILES]
    named += [p for name in ("config.json", "generation_config.json", _ADAPTER) if (p := folder / name).is_file()]
    return digest([[p.name, _content(p)] for p in named])


def _content(path: Path) -> str:
    """sha256 of a file; the hub's cache names large files by it."""
    if path.suffix == ".json" and path.name in ("config.json", "generation_config.json", _ADAPTER):
        try:
            return digest(_settings(json.loads(path.read_text(encoding="utf-8"))))
        except ValueError:
            pass
    target = path.resolve().name
    if path.is_symlink() and _SHA256.match(target):
        return target
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settings(config: Any) -> Any:
    """A configuration without what says where and by what it was written."""
    return {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version")} if isinstance(config, dict) else config


def _why(error: Exception) -> str:
    return cut(printable(" ".join(str(error).split()) or type(error).__name__), 200)


def pick_device(wanted: str) -> tuple[str, str]:
    """A device and the reason for it.

    Raises:
        InputError: if it cannot be used here.
    """
    if wanted != "auto":
        try:
            torch.zeros(1, device=wanted)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise InputError(
                f"the device {printable(repr(wanted))} cannot be used here ({printable(str(error).splitlines()[0])})"
            ) from None
        if torch.device(wanted).type == "meta":
            raise InputError("the device 'meta' computes nothing; allowed: auto, cpu, cuda, ...")
        return wanted, "as asked"
    if torch.cuda.is_available():
        return "cuda", "a CUDA device is there"
    return "cpu", "no CUDA device is there"


def _dtype(wanted: str, device: str, config: Any) -> tuple[Any, str]:
    if wanted != "auto":
        return getattr(torch, wanted), "as asked"
    if not device.startswith("cuda"):
        return torch.float32, "exact, and on a processor the fastest sound type"
    stored = getattr(config, "dtype", None)
    if isinstance(stored, torch.dtype):
        return stored, "as the weights are stored"
    return torch.float32, "the configuration does not say how the weights are stored"


def _base_of(adapter: Path) -> Path:
    """The folder of the model an adapter was made for."""
    from aligntax.models.references import parse

    try:
        settings = json.loads((adapter / _ADAPTER).read_text(encoding="utf-8"))
        base, revision = settings.get("base_model_name_or_path"), settings.get("revision")
    except (OSError, ValueError, AttributeError):
        base = revision = None
    if not isinstance(base, str) or not base:
        raise InputError(f"{printable(str(adapter))}: its {_ADAPTER} names no base model")
    beside = adapter / base
    if beside.is_dir():
        return local_folder(parse(str(beside)))
    named = parse(base)
    if named.where == "hub" and named.revision is None and isinstance(revision, str) and revision:
        named = replace(named, revision=revision)
    return local_folder(named)


def _adapted(model: Any, adapter: Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise MissingExtraError("peft, which adapters need,", "train") from None
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError(f"{printable(str(adapter))} has no adapter_model.safetensors; pickled adapters are not read")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Found missing adapter keys")  # an error here, said below
            adapted = PeftModel.from_pretrained(model, str(adapter))
        _check_adapter(adapted, file)
        return adapted.merge_and_unload()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - the library raises almost anything on a broken file
        raise InputError(f"{printable(str(adapter))} cannot be loaded as an adapter: {_why(error)}") from None


def _check_adapter(adapted: Any, file: Path) -> None:
    """PEFT warns where weights are missing or left over, and goes on with random ones.

    Raises:
        InputError: if the file does not hold the weights that the adapter's configuration makes, and no others.
    """
    from peft.utils.save_and_load import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        found = set(opened.keys())
    wanted = set(get_peft_model_state_dict(adapted, save_embedding_layers=False))
    extra = {name for name in found - wanted if not re.search(r"(embed|lm_head|wte)", name)}  # saved beside, where tokens were added
    for what, names in (("lacks", wanted - found), ("has more than its configuration asks for:", extra)):
        if names:
            raise InputError(
                f"{printable(str(file))} {what} {printable(min(names))}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            )
