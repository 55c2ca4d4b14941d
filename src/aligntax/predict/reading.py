"""Hidden states and gradients of a local model (imports torch), a batch at a time: nothing is kept that its caller does not keep.

Layer 0 is what the embeddings give, layer l what block l gives; the last is what the output layer reads (after the final norm, in most architectures).

A **state** is read at a place counted from the end of a prompt: -1 is its last token, from which the answer is begun.

A **gradient** is that of the mean log-odds of an answer's tokens, log p - log(1 - p) in nats, by a shift that is added to the states of one layer at every
place from which the answer is predicted: the prompt's last token and all of the answer's but its last. That is the shift that theory speaks of, one vector for
all places, and what a steering vector does to an answer. Log-odds, since the gradient of log p is (1 - p) times theirs and vanishes where a model is sure: of a
task that a model has mastered it is the noise of the few items that it has not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aligntax.core.errors import InputError
from aligntax.core.words import printable

FloatArray = npt.NDArray[np.float32]
IntArray = npt.NDArray[np.int64]
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class States:
    """Of a batch.

    Attributes:
        numbers: (B,) which of the prompts.
        states: (B, L, K, D) by layer and place.
    """

    numbers: IntArray
    states: FloatArray


@dataclass(frozen=True)
class Gradients:
    """Of a batch.

    Attributes:
        numbers: (B,) which of the examples.
        gradients: (B, L, D) by layer, of the log-odds, in nats per token and unit of the state.
        values: (B,) mean log-probability of the answers' tokens, in nats.
    """

    numbers: IntArray
    gradients: FloatArray
    values: FloatArray


def hidden_states(model: Any, prompts: Sequence[Tokens], places: Sequence[int] = (-1,), *, batch_tokens: int = 4096) -> Iterator[States]:
    """States of prompts, the longest first.

    Args:
        model: of transformers, causal.
        prompts: token ids.
        places: counted from a prompt's end, -1 and below.
        batch_tokens: of a batch, padding included.

    Raises:
        InputError: if a prompt has no token at a place, or a state is no number.
    """
    if not places or any(place >= 0 for place in places):
        raise InputError(f"places are counted from a prompt's end, -1 and below; got {', '.join(map(str, places)) or 'none'}")
    need = max(-place for place in places)
    if (short := next((n for n, tokens in enumerate(prompts) if len(tokens) < need), None)) is not None:
        raise InputError(f"prompt {short + 1} has {len(prompts[short])} tokens, and a state is wanted {need} from its end")
    where = torch.tensor(places)
    for numbers, tokens, mask in _batches(model, prompts, batch_tokens):
        with torch.inference_mode():
            layers = model.base_model(input_ids=tokens, attention_mask=mask, output_hidden_states=True, use_cache=False).hidden_states
            at = (mask.sum(dim=1, keepdim=True).cpu() + where).to(tokens.device)
            rows = torch.arange(len(numbers), device=tokens.device)[:, None]
            found = torch.stack([layer[rows, at] for layer in layers], dim=1)
        yield States(numbers, _checked(found, "state"))


def gradients(
    model: Any,
    examples: Sequence[tuple[Tokens, Tokens]],
    *,
    layers: Sequence[int] | None = None,
    head: Any = None,
    batch_tokens: int = 4096,
) -> Iterator[Gradients]:
    """Gradients of examples, the longest first; weights get none.

    Args:
        model: of transformers, causal.
        examples: (prompt, answer) in token ids, one each and more.
        layers: of which gradients are wanted, in this order; None for all. Nothing is gone back through below the lowest of them.
        head: what alone makes logits from the last states (``Scorer.head``): then they are made where they are needed, which saves most of them.
        batch_tokens: of a batch, padding included.

    Raises:
        InputError: if a prompt or an answer is empty, or a gradient is no number.
    """
    if (empty := next((n for n, (prompt, answer) in enumerate(examples) if not prompt or not answer), None)) is not None:
        raise InputError(f"example {empty + 1} has no {'prompt' if not examples[empty][0] else 'answer'}")
    whole = [(*prompt, *answer) for prompt, answer in examples]
    starts = np.array([len(prompt) for prompt, _ in examples])
    frozen = [p for p in model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        for numbers, tokens, mask in _batches(model, whole, batch_tokens):
            yield _gradients(model, head, layers, numbers, tokens, mask, torch.from_numpy(starts[numbers]).to(tokens.device))
    finally:
        for p in frozen:
            p.requires_grad_(True)


def sampled_tokens(model: Any, prompts: Sequence[Tokens], seed: int, *, batch_tokens: int = 4096) -> list[int]:
    """A token after every prompt, drawn from the model's distribution; a prompt's draw does not depend on its company.

    Args:
        model: of transformers, causal.
        prompts: token ids, one each and more.
        seed: of the draws.
        batch_tokens: of a batch, padding included.

    Raises:
        InputError: if a logit is no number.
    """
    uniform = np.random.default_rng(seed).random(len(prompts))
    found = [0] * len(prompts)
    for numbers, tokens, mask in _batches(model, prompts, batch_tokens):
        with torch.inference_mode():
            last = mask.sum(dim=1) - 1
            logits = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[
                torch.arange(len(numbers), device=tokens.device), last
            ]
            below = _checked(logits.double().softmax(dim=-1).cumsum(dim=-1), "logit")
        for row, number in enumerate(numbers.tolist()):
            found[number] = min(int(np.searchsorted(below[row], uniform[number] * below[row][-1], side="right")), below.shape[1] - 1)
    return found


def _gradients(
    model: Any,
    head: Any,
    wanted: Sequence[int] | None,
    numbers: IntArray,
    tokens: torch.Tensor,
    mask: torch.Tensor,
    starts: torch.Tensor,
) -> Gradients:
    with torch.enable_grad():
        begun = model.get_input_embeddings()(tokens).detach().requires_grad_(True)
        run = model if head is None else model.base_model
        made = run(inputs_embeds=begun, attention_mask=mask, output_hidden_states=True, use_cache=False)
        layers = made.hidden_states
        place = torch.arange(tokens.shape[1], device=tokens.device)
        # Place t predicts token t + 1; the answer's tokens stand from the prompt's length on.
        predicts = (place >= starts[:, None] - 1) & (place < mask.sum(dim=1, keepdim=True) - 1)
        rows, at = torch.nonzero(predicts, as_tuple=True)
        logits = (made.logits[rows, at] if head is None else head(layers[-1][rows, at])).float()
        right = tokens[rows, at + 1][:, None]
        own = logits.gather(1, right)[:, 0]
        others = logits.scatter(1, right, -torch.inf).logsumexp(dim=-1)
        count = predicts.sum(dim=1)

        def mean(of: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(numbers), device=tokens.device).index_add_(0, rows, of) / count

        found = torch.autograd.grad(
            mean(own - others).sum(), layers if wanted is None else [layers[at] for at in wanted], allow_unused=True
        )
        told = mean(torch.nn.functional.logsigmoid(own - others).detach())
    if any(one is None for one in found):
        raise InputError(
            "its states do not lead to its answers, so that there is no gradient by them: the model is wrapped in a way that is not known here"
        )
    by_layer = torch.stack([(predicts[:, None].to(one.dtype) @ one)[:, 0] for one in found], dim=1)
    return Gradients(numbers, _checked(by_layer, "gradient"), _checked(told, "log-probability"))


def _batches(model: Any, sequences: Sequence[Tokens], batch_tokens: int) -> Iterator[tuple[IntArray, torch.Tensor, torch.Tensor]]:
    """(which, token ids, mask) padded on the right, sequences of one length together."""
    room = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
    if (long := next((n for n, tokens in enumerate(sequences) if len(tokens) > room), None)) is not None:
        raise InputError(
            f"text {long + 1} has {len(sequences[long]):,} tokens, more than the {room:,} that {printable(type(model).__name__)} takes"
        )
    order = sorted(range(len(sequences)), key=lambda n: -len(sequences[n]))
    at = 0
    while at < len(order):
        width = max(1, len(sequences[order[at]]))
        some = order[at : at + max(1, batch_tokens // width)]
        tokens = torch.zeros((len(some), width), dtype=torch.long)
        mask = torch.zeros((len(some), width), dtype=torch.long)
        for row, number in enumerate(some):
            tokens[row, : len(sequences[number])] = torch.tensor(sequences[number], dtype=torch.long)
            mask[row, : len(sequences[number])] = 1
        yield np.array(some, dtype=np.int64), tokens.to(model.device), mask.to(model.device)
        at += len(some)


def _checked(found: torch.Tensor, what: str) -> FloatArray:
    """As numbers.

    Raises:
        InputError: if one is none.
    """
    made: FloatArray = found.detach().float().cpu().numpy()
    if not np.isfinite(made).all():
        raise InputError(f"the model's {what} is no number (an overflow in half precision, or broken weights); load it with dtype=float32")
    return made
