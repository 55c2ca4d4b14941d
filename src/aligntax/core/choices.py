"""What the likelihoods of an item's choices say of how sure a model was."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, fsum, log


def beliefs(likelihoods: Sequence[float], right: bool, gold: int | None) -> dict[str, float]:
    """Confidence and its scores, from probabilities that are the likelihoods over their sum (a softmax of log-likelihoods as they are, without
    a normalisation by length).

    Args:
        likelihoods: log-likelihoods (nats) of the choices.
        right: whether the likeliest one is the right one, as the accuracy has it.
        gold: number of the right one, where it is known.

    Returns:
        ``confidence``: the likeliest choice's probability. ``brier``: (confidence - right)^2, from 0 to 1 (Brier 1950 for the event that the
        answer is right; lm-eval's ``brier_score`` sums over all choices instead). ``log_loss`` (nats): minus the log-probability of the right
        choice; absent where it is not known. Nothing where a likelihood is no finite number.
    """
    if len(likelihoods) < 2 or not all(abs(x) < float("inf") for x in likelihoods):
        return {}
    most = max(likelihoods)
    total = most + log(fsum(exp(x - most) for x in likelihoods))
    confidence = exp(most - total)
    out = {"confidence": confidence, "brier": (confidence - right) ** 2}
    if gold is not None and 0 <= gold < len(likelihoods):
        out["log_loss"] = total - likelihoods[gold]
    return out
