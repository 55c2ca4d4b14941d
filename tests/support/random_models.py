"""Small models with random weights, as folders. Needs torch and transformers."""

from __future__ import annotations

from pathlib import Path


def random_model(folder: Path, width: int = 64, seed: int = 1, times: float = 6) -> Path:
    """A model of the lab's architecture that was taught nothing.

    Weights are scaled up so that choices are far from ties, and so do not depend on rounding.
    """
    import torch

    from aligntax.lab.train import new_model, save_model

    model = new_model(width, seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(times)
    save_model(model, folder)
    return folder
