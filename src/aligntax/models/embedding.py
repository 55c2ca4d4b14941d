"""Vectors of texts from a local model (imports torch): means of its last hidden states over the tokens of each text.

Mean pooling is what sentence encoders are trained for (Reimers and Gurevych 2019, arXiv:1908.10084); of a causal model it is a rough measure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.models.hf import content_key, load_config, load_tokenizer, local_folder, pick_device
from aligntax.models.local import loading
from aligntax.models.references import parse

BATCH_TOKENS = 2**14

Embed = Callable[[Sequence[str]], npt.NDArray[np.float64]]


def open_embedder(name: str, device: str = "auto") -> tuple[str, Embed]:
    """A model that makes vectors of texts.

    Args:
        name: a folder, a hub id or an embedded model, as arms are named.
        device: ``auto``, ``cpu``, ``cuda``, ...

    Returns:
        (its label with a hash of its content, the function). Texts longer than the model's context are cut at its end.

    Raises:
        InputError: if it is no local model, or is incomplete.
    """
    reference = parse(name)
    if reference.where == "api" or reference.adapter:
        raise InputError(f"{printable(name)} cannot make vectors of texts; name a local model without an adapter")
    folder = local_folder(reference)
    config, tokenizer = load_config(folder), load_tokenizer(folder)
    where, _ = pick_device(device)
    most = int(getattr(config.get_text_config(), "max_position_embeddings", None) or 512)
    loaded: list[Any] = []

    def embed(texts: Sequence[str]) -> npt.NDArray[np.float64]:
        if not loaded:
            loaded.append(_load(folder, where))
        different = list(dict.fromkeys(texts))
        at = {text: number for number, text in enumerate(different)}
        return _vectors(loaded[0], tokenizer, different, most)[[at[text] for text in texts]]

    return f"{reference.label} {content_key(folder)[:16]}", embed


def _load(folder: Path, device: str) -> Any:
    from transformers import AutoModel

    with loading(folder):
        model, found = AutoModel.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, local_files_only=True, trust_remote_code=False
        )
    # The library fills gaps with random weights. A pooler is not used here, and encoders are stored without.
    gaps = sorted(str(key) for kind in ("missing_keys", "mismatched_keys") for key in found.get(kind) or () if "pooler" not in str(key))
    if gaps:
        raise InputError(
            f"{printable(str(folder))} is no complete model: {len(gaps)} weights are missing, the first {printable(gaps[0])[:100]}"
        )
    return model.to(device).eval()


def _vectors(model: Any, tokenizer: Any, texts: Sequence[str], most: int) -> npt.NDArray[np.float64]:
    # A text without tokens is nothing to average over; its vector is that of a space, or of the begin token.
    rows = [tokenizer(text or " ", truncation=True, max_length=most)["input_ids"] or [tokenizer.eos_token_id or 0] for text in texts]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out: npt.NDArray[np.float64] | None = None
    at = 0
    while at < len(order):
        count = 1
        while at + count < len(order) and (count + 1) * len(rows[order[at + count]]) <= BATCH_TOKENS:
            count += 1
        some = order[at : at + count]
        width = len(rows[some[-1]])
        tokens = torch.tensor([rows[i] + [0] * (width - len(rows[i])) for i in some], device=model.device)
        mask = torch.tensor([[1] * len(rows[i]) + [0] * (width - len(rows[i])) for i in some], device=model.device)
        with torch.inference_mode():
            hidden = model(input_ids=tokens, attention_mask=mask).last_hidden_state.float()
            means = ((hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).double().cpu().numpy()
        if out is None:
            out = np.empty((len(rows), means.shape[1]))
        out[some] = means
        at += count
    return np.zeros((0, 1)) if out is None else out
