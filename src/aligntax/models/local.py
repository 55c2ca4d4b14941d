"""Local causal language models (imports torch): batched decoding and scoring whose results do not depend on the batch.

Each request carries its own temperature, seed and stops; a request's draws come from its own generator, so that its
answer is the same alone and in company (up to float32 noise in near-ties).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable

COLD = 1e-5
"""Below this temperature the most likely token is taken: the quotient would overflow, and nothing else would be drawn."""


@dataclass(frozen=True)
class Request:
    """One continuation to be generated.

    Attributes:
        tokens: rendered prompt as token ids, at least one.
        max_tokens: at most so many new tokens.
        temperature: 0 takes the most likely token. top_p: sample from the smallest set with this mass.
        seed: of this request's draws.
        stops: texts that end the continuation; they are not part of it.
        top: how many alternatives to report per token, with their log-probabilities.
    """

    tokens: tuple[int, ...]
    max_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stops: tuple[str, ...] = ()
    top: int = 0


@dataclass(frozen=True)
class Token:
    """One token with its log-probability (nats, at temperature 1) and the most likely alternatives."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class Reply:
    """What came back: every token drawn, the end token among them; text without it and without the stop; why it ended (``stop`` or ``length``)."""

    tokens: list[Token] = field(default_factory=list)
    text: str = ""
    reason: str | None = None


def choose(logprobs: torch.Tensor, request: Request, draws: torch.Generator) -> int:
    """The next token by its (V,) log-probabilities, on the processor: the most likely one, or one drawn."""
    if request.temperature < COLD:
        return int(logprobs.argmax())
    probs = (logprobs / request.temperature).softmax(-1)
    if request.top_p < 1:
        sorted_, order = probs.sort(descending=True)
        sorted_[sorted_.cumsum(0) - sorted_ >= request.top_p] = 0
        return int(order[torch.multinomial(sorted_, 1, generator=draws)])
    return int(torch.multinomial(probs, 1, generator=draws))


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """While a folder is loaded transformers says nothing, and whatever it raises is one sentence.

    Raises:
        InputError: if it cannot be loaded.
    """
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the libraries raise almost anything on a broken file
        raise InputError(f"{printable(str(folder))} cannot be loaded as a model: {printable(str(error))[:300]}") from None
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


class LocalModel:
    """A causal language model with its tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.model, self.tokenizer, self.name = model.eval(), tokenizer, name
        self.device = next(model.parameters()).device
        configured = model.generation_config.eos_token_id
        ends = configured if isinstance(configured, list) else [configured]
        self.ends = {int(e) for e in [*ends, tokenizer.eos_token_id] if e is not None}
        self.context = int(getattr(model.config, "max_position_embeddings", 2048))

    @classmethod
    def load(cls, folder: Path, name: str | None = None, *, dtype: Any = torch.float32, device: str = "cpu") -> LocalModel:
        """A model folder: safetensors and JSON, nothing that could run code.

        Args:
            folder: with config.json, safetensors and a tokenizer.
            name: for people; default the folder's.
            dtype: a torch type, or ``auto`` for the one the weights are stored in.
            device: where to compute.

        Raises:
            InputError: if the folder is not a complete model.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if not (folder / "config.json").is_file():
            raise InputError(f"{printable(str(folder))} is no model folder (no config.json)")
        with loading(folder):
            options = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, dtype=dtype, **options
            )
        # The library fills gaps with random weights; a model with gaps is no model.
        gaps = [str(key) for kind in ("missing_keys", "mismatched_keys", "error_msgs") for key in sorted(map(str, found.get(kind) or ()))]
        if gaps:
            raise InputError(
                f"{printable(str(folder))} is no complete model: {len(gaps)} weights are missing or have another shape, the first of them "
                f"{printable(gaps[0])[:100]}"
            )
        return cls(model.to(device), tokenizer, name or folder.name)

    # -- text and tokens ----------------------------------------------------------------------------------------------

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a raw prompt, as the tokenizer begins one."""
        return tuple(self.tokenizer(text)["input_ids"])

    def encode_chat(self, messages: Sequence[dict[str, str]]) -> tuple[int, ...]:
        """Token ids of a conversation, ready for the assistant's turn.

        Raises:
            InputError: if the tokenizer has no chat template, or the template refuses the messages.
        """
        return tuple(self.tokenizer(render_chat(self.tokenizer, self.name, messages), add_special_tokens=False)["input_ids"])

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """Text of token ids."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))

    def piece(self, before: Sequence[int], token: int) -> str:
        """What a token adds to the text of those before it."""
        near = list(before[-4:])
        whole, known = self.decode([*near, token], special=True), self.decode(near, special=True)
        return whole[len(known) :] if whole.startswith(known) else self.decode([token], special=True)

    def offsets(self, text: str, ids: Sequence[int]) -> list[int]:
        """Where each token of a prompt begins in its text; tokens that are not in it (the begin token) stand where they would be."""
        found = self.tokenizer(text, return_offsets_mapping=True) if self.tokenizer.is_fast else {"input_ids": ()}
        if tuple(found["input_ids"]) == tuple(ids):
            spans = [start for start, _ in found["offset_mapping"]]
        else:  # token ids were given, and the text was made of them
            spans, at = [], 0
            for k, token in enumerate(ids):
                spans.append(at)
                at = len(self.decode(ids[: k + 1])) if token not in self.tokenizer.all_special_ids else at
        return [min(span, len(text)) for span in spans]

    # -- generation -----------------------------------------------------------------------------------------------------

    def generate(self, requests: Sequence[Request]) -> list[Reply]:
        """Replies in the order of the requests."""
        replies = [Reply() for _ in requests]
        for at, reply in self.stream(requests):
            replies[at] = reply
        return replies

    @torch.inference_mode()
    def stream(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """(which request, its reply so far) for every new token; the last one of each has a reason.

        Raises:
            InputError: if a prompt leaves no room in the context.
        """
        for request in requests:
            self.check(request.tokens, room=1)
        if not requests:
            return
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        width = max(len(r.tokens) for r in requests)
        tokens = torch.tensor([[pad] * (width - len(r.tokens)) + list(r.tokens) for r in requests], device=self.device)
        mask = torch.tensor([[0] * (width - len(r.tokens)) + [1] * len(r.tokens) for r in requests], device=self.device)
        draws = [torch.Generator().manual_seed(r.seed) for r in requests]
        replies = [Reply() for _ in requests]
        rows = list(range(len(requests)))
        cache: Any = None
        while rows:
            position = (mask.cumsum(1) - 1).clamp(min=0)
            out = self.model(
                input_ids=tokens, attention_mask=mask, position_ids=position[:, -tokens.shape[1] :], past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache = out.past_key_values
            logprobs = out.logits[:, -1].float().log_softmax(-1).cpu()
            chosen = [self._choose(logprobs[k], requests[row], draws[row]) for k, row in enumerate(rows)]
            going = []
            for k, row in enumerate(rows):
                self._extend(replies[row], requests[row], chosen[k], logprobs[k])
                yield row, replies[row]
                if replies[row].reason is None:
                    going.append(k)
            if len(going) < len(rows):
                rows = [rows[k] for k in going]
                if not rows:
                    return
                keep = torch.tensor(going, device=self.device)
                mask = mask[keep]
                cache.batch_select_indices(keep)
            tokens = torch.tensor([[chosen[k]] for k in going], device=self.device)
            mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype, device=self.device)], 1)

    def check(self, tokens: Sequence[int], room: int) -> None:
        """Whether tokens can be computed, and leave room for so many more.

        Raises:
            InputError: if not.
        """
        size = len(self.model.get_input_embeddings().weight)
        if not tokens or any(not 0 <= t < size for t in tokens):
            raise InputError(f"at least one token is needed, each from 0 to {size - 1}")
        if len(tokens) > self.context - room:
            raise InputError(f"{len(tokens)} tokens are too many: {printable(self.name)} takes at most {self.context - room}")

    _choose = staticmethod(choose)

    def _extend(self, reply: Reply, request: Request, token: int, logprobs: torch.Tensor) -> None:
        reply.tokens.append(Token(token, float(logprobs[token]), alternatives(logprobs, request.top)))
        if token in self.ends:
            reply.reason = "stop"
            return
        reply.text = self.decode([t.id for t in reply.tokens])
        found = [at for stop in request.stops if (at := reply.text.find(stop)) >= 0]
        if found:
            reply.text, reply.reason = reply.text[: min(found)], "stop"
        elif self.full(request, reply):
            reply.reason = "length"

    def full(self, request: Request, reply: Reply) -> bool:
        """Whether there is no room for another token, in the request's budget or in the context."""
        return len(reply.tokens) >= request.max_tokens or len(request.tokens) + len(reply.tokens) >= self.context

    # -- scoring ----------------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def score(self, sequences: Sequence[Sequence[int]], top: int = 0) -> list[list[Token]]:
        """Log-probabilities (nats) of given tokens, each after those before it; the first of a sequence has none and is left out.

        Args:
            sequences: token ids, each of at least one.
            top: alternatives to report.

        Raises:
            InputError: if a sequence is empty, longer than the context, or holds unknown ids.
        """
        for sequence in sequences:
            self.check(sequence, room=0)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        width = max(len(s) for s in sequences)
        tokens = torch.tensor([[*s, *[pad] * (width - len(s))] for s in sequences], device=self.device)
        mask = torch.tensor([[1] * len(s) + [0] * (width - len(s)) for s in sequences], device=self.device)
        logprobs = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1).cpu()
        found = []
        for row, sequence in zip(logprobs, sequences, strict=True):
            scored = []
            for at, token in enumerate(sequence[1:]):
                scored.append(Token(int(token), float(row[at, token]), alternatives(row[at], top)))
            found.append(scored)
        return found


def alternatives(logprobs: torch.Tensor, top: int) -> tuple[tuple[int, float], ...]:
    """The so many most likely tokens of (V,) log-probabilities, with these."""
    if not top:
        return ()
    values, ids = logprobs.topk(min(top, len(logprobs)))
    return tuple(zip(ids.tolist(), values.tolist(), strict=True))


def render_chat(tokenizer: Any, name: str, messages: Sequence[dict[str, str]]) -> str:
    """A conversation as text, ready for the assistant's turn.

    Raises:
        InputError: if the tokenizer has no chat template, or the template refuses the messages.
    """
    from jinja2 import TemplateError

    if not tokenizer.chat_template:
        raise InputError(f"{printable(name)} has no chat template")
    try:
        return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))
    except Exception as error:  # noqa: BLE001 - a template is a program, and raises what it likes
        why = str(error) if isinstance(error, TemplateError) else f"{type(error).__name__}: {error}"
        raise InputError(f"the chat template of {printable(name)} refuses these messages: {cut(printable(why), 200)}") from None
