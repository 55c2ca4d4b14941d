"""Training of base models (imports torch): a plain loop over packed rows, resumable to the bit on one machine.

Hidden matrices are trained by Muon (orthogonalised momentum; Jordan et al. 2024), everything else by AdamW.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file

from aligntax.lab.corpus import PROMPT_WEIGHT, Packed
from aligntax.lab.family import HEAD, LAYERS, Pretraining
from aligntax.lab.tokenizer import make_tokenizer, save_tokenizer

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

CONTEXT = 256
ROPE_BASE = 20.0
"""Base of the rotary positions. The usual 10,000 leaves a head of 16 one pair of dimensions that tells neighbours apart."""
ARCHITECTURE = {"type": "llama", "layers": LAYERS, "head": HEAD, "context": CONTEXT, "rope_base": ROPE_BASE, "tied": True}
_SAVE_EVERY = 100
# Coefficients of the quintic Newton-Schulz iteration that pushes singular values towards 1 (Jordan et al. 2024).
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
Progress = Callable[[int, int, str], None]


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised by five Newton-Schulz steps, scaled to the size of an Adam update.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/; scaling .2 sqrt(max(shape)) of Liu et al. 2025,
    arXiv:2502.16982. torch.optim.Muon iterates in bfloat16, which CPUs without it emulate at a fraction of the speed; this
    one works in float32 and takes matrices of one shape together.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.01) -> None:
        super().__init__(list(params), {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # noqa: ARG002
        """One update."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[torch.nn.Parameter, torch.Tensor]]] = defaultdict(list)
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 1 - group["momentum"])
                update = p.grad.lerp(momentum, group["momentum"])
                by_shape[tuple(p.shape)].append((p, update))
            for shape, pairs in by_shape.items():
                updates = orthogonalised(torch.stack([u for _, u in pairs]))
                scale = 0.2 * max(shape) ** 0.5
                for (p, _), update in zip(pairs, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update, alpha=-group["lr"] * scale)


def orthogonalised(matrices: torch.Tensor) -> torch.Tensor:
    """(B, m, n) matrices with singular values pushed towards 1, singular vectors kept."""
    a, b, c = _NEWTON_SCHULZ
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


def new_model(width: int, seed: int, layers: int = LAYERS) -> LlamaForCausalLM:
    """A Llama of this width with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=width // HEAD,
            num_key_value_heads=width // HEAD,
            head_dim=HEAD,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def save_model(model: LlamaForCausalLM, folder: Path) -> None:
    """A complete model folder. Weights are stored in half precision, to be loaded as float32: 11 bits are more than training noise."""
    folder.mkdir(parents=True, exist_ok=True)
    tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
    state = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in model.state_dict().items() if name not in tied}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library leaves it readable by its owner alone
    config = model.config.to_diff_dict()
    config.update({"dtype": "float32", "architectures": ["LlamaForCausalLM"]})
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    ids = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    (folder / "generation_config.json").write_text(json.dumps({**ids, "do_sample": False}, indent=1) + "\n", encoding="utf-8")
    save_tokenizer(folder)


@dataclass(frozen=True)
class Schedule:
    """Which rows each step sees: (is it a step of long rows, first row) per step, and the order of the rows."""

    steps: list[tuple[bool, int]]
    short: npt.NDArray[np.int64]
    long: npt.NDArray[np.int64]


def schedule(recipe: Pretraining, short: int, long: int, seed: int) -> Schedule:
    """Short and long rows in turn, as often as there are of each, reshuffled in every pass."""
    rng = np.random.default_rng([seed, 1])
    passes = int(np.ceil(recipe.epochs)) + 1
    orders = [np.concatenate([rng.permutation(n) for _ in range(passes)]) for n in (short, long)]
    each = recipe.rows, max(1, recipe.rows // 3)
    counts = [int(recipe.epochs * n / size) for n, size in zip((short, long), each, strict=True)]
    total = sum(counts)
    steps, taken = [], [0, 0]
    for t in range(total):
        which = (t + 1) * counts[1] // total > t * counts[1] // total
        steps.append((which, taken[which]))
        taken[which] += each[which]
    return Schedule(steps, *orders)


@dataclass(frozen=True)
class Trained:
    """A base model, and the seconds of training that earlier, stopped runs had put into it."""

    model: LlamaForCausalLM
    seconds_before: float


def train_base(
    width: int,
    seed: int,
    recipe: Pretraining,
    rows: tuple[Packed, Packed],
    scratch: Path,
    progress: Progress,
    device: str = "cpu",
    layers: int = LAYERS,
    key: str = "",
) -> Trained:
    """Train a base model, going on from ``scratch`` if a run of the same plan was stopped there.

    Args:
        width: hidden size.
        seed: of weights and order of rows.
        recipe: budget.
        rows: short and long rows of the corpus.
        scratch: folder for the state of an unfinished run.
        progress: called with (step, steps, loss in words).
        device: where to compute.
        layers: of the model.
        key: of all that decides the weights; a kept state of another key is not gone on from.
    """
    model = new_model(width, seed, layers).to(device)
    begun = time.perf_counter()
    plan = schedule(recipe, len(rows[0].tokens), len(rows[1].tokens), seed)
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if not (p.ndim == 2 and "embed" not in name)]
    optimisers = [Muon(matrices, lr=recipe.rate), torch.optim.AdamW(others, lr=recipe.rate, betas=(0.9, 0.95), weight_decay=0.0)]
    key = f"{key} {width} {seed} {layers} {recipe} {len(plan.steps)} {device}"
    start, before = _restore(scratch, model, optimisers, key)
    noise = torch.Generator()
    average = 0.0
    model.train()
    for t in range(start, len(plan.steps)):
        is_long, first = plan.steps[t]
        packed, order = (rows[1], plan.long) if is_long else (rows[0], plan.short)
        size = max(1, recipe.rows // 3) if is_long else recipe.rows
        noise.manual_seed(seed * 1_000_003 + t)
        loss = batch_loss(model, packed, order[first : first + size], noise, device)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        factor = min(1.0, (t + 1) / recipe.warmup, (len(plan.steps) - t) / (recipe.decay * len(plan.steps)))
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate * factor
            optimiser.step()
            optimiser.zero_grad()
        average = loss.item() if t == start else 0.98 * average + 0.02 * loss.item()
        progress(t + 1, len(plan.steps), f"loss {average:.3f}")
        if (t + 1) % _SAVE_EVERY == 0:
            _keep(scratch, model, optimisers, t + 1, key, before + time.perf_counter() - begun)
    return Trained(model, before)


def batch_loss(model: LlamaForCausalLM, packed: Packed, rows: npt.NDArray[np.int64], noise: torch.Generator, device: str) -> torch.Tensor:
    """Mean cross entropy (nats) over the answers' tokens and a share of the questions', of some rows.

    Of tokens with a small weight, that share is predicted at random: the expected loss is the weighted one, and logits of
    the rest are never computed.
    """
    tokens, document = torch.from_numpy(packed.tokens[rows]).long(), torch.from_numpy(packed.document[rows])
    weight = torch.from_numpy(packed.weight[rows])[:, 1:]
    keep = ((weight >= 1) | ((weight > 0) & (torch.rand(weight.shape, generator=noise) < PROMPT_WEIGHT))).to(device)
    length = tokens.shape[1]
    mask = ((document[:, :, None] == document[:, None, :]) & torch.ones(length, length, dtype=torch.bool).tril())[:, None].to(device)
    tokens = tokens.to(device)
    position = torch.from_numpy(packed.position[rows]).long().to(device)
    hidden = model.model(input_ids=tokens, position_ids=position, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]), tokens[:, 1:][keep])


def _keep(scratch: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], step: int, key: str, seconds: float) -> None:
    """The whole state of a run, beside the last one and renamed over it."""
    state = {f"model.{name}": p.detach().cpu() for name, p in model.named_parameters()}
    for k, optimiser in enumerate(optimisers):
        at = 0
        for group in optimiser.param_groups:
            for p in group["params"]:
                state |= {f"optimiser.{k}.{at}.{name}": value.detach().cpu().clone() for name, value in optimiser.state[p].items()}
                at += 1
    scratch.mkdir(parents=True, exist_ok=True)
    part = scratch / f"state.{os.getpid()}.part"
    save_file(state, part, metadata={"step": str(step), "key": key, "seconds": f"{seconds:.1f}"})
    part.replace(scratch / "state.safetensors")


def _restore(scratch: Path, model: LlamaForCausalLM, optimisers: list[torch.optim.Optimizer], key: str) -> tuple[int, float]:
    """Put a kept state back; (step to go on from, seconds it took), 0 where there is none or it belongs to another plan."""
    from safetensors import safe_open

    path = scratch / "state.safetensors"
    if not path.is_file():
        return 0, 0.0
    with safe_open(path, "pt") as file:
        meta = file.metadata()
    if meta.get("key") != key:
        return 0, 0.0
    state = load_file(path)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(state[f"model.{name}"])
    for k, optimiser in enumerate(optimisers):
        at = 0
        for group in optimiser.param_groups:
            for p in group["params"]:
                prefix = f"optimiser.{k}.{at}."
                optimiser.state[p] = {
                    name.removeprefix(prefix): value if value.ndim == 0 else value.to(p.device)
                    for name, value in state.items()
                    if name.startswith(prefix)
                }
                at += 1
    return int(meta["step"]), float(meta["seconds"])
