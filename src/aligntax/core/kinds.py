"""Which kind of cost or benefit a task measures, and the margin below which a change of that kind does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args

Kind = Literal[
    "performance",
    "format",
    "latency",
    "diversity",
    "calibration",
    "consistency",
    "over_refusal",
    "divergence",
    "development",
    "epistemic",
    "safety",
    "helpfulness",
]
KINDS: tuple[str, ...] = get_args(Kind)

NO_BETTER_SIDE = frozenset({"divergence", "development"})
"""Kinds that have no better side by themselves, and so no verdict."""

# First match wins; patterns are matched against the lower-cased task name.
_TASK_KINDS: tuple[tuple[str, Kind], ...] = (
    ("xstest*unsafe*", "safety"),
    ("xstest*safe*", "over_refusal"),
    ("or_bench*toxic*", "safety"),
    ("or_bench*", "over_refusal"),
    ("or-bench*toxic*", "safety"),
    ("or-bench*", "over_refusal"),
    ("xstest*", "over_refusal"),
    ("*toxigen*", "safety"),
    ("*realtoxicity*", "safety"),
    ("*real_toxicity*", "safety"),
    ("*harmbench*", "safety"),
    ("*advbench*", "safety"),
    ("*strong_reject*", "safety"),
    ("*strongreject*", "safety"),
    ("*sorry_bench*", "safety"),
    ("*agentharm*", "safety"),
    ("*wildguard*", "safety"),
    ("lab_harmful_procedures", "safety"),
    ("lab_manipulation", "safety"),
    ("lab_honesty", "safety"),
    ("lab_secrecy", "safety"),
    ("lab_torn", "safety"),
    ("lab_look_alikes", "over_refusal"),
    ("safety*", "safety"),
    ("*_safety", "safety"),
    ("alpaca_eval*", "helpfulness"),
    ("alpacaeval*", "helpfulness"),
    ("mt_bench*", "helpfulness"),
    ("arena_hard*", "helpfulness"),
)


def kind_of(task: str, overrides: Mapping[str, str] | None = None) -> str:
    """The kind a task measures: an override by exact name or pattern, else the table, else ``performance``.

    TruthfulQA stays ``performance``: it is scored as question answering.
    """
    for pattern, kind in (overrides or {}).items():
        if task == pattern or fnmatchcase(task, pattern):
            return kind
    lowered = task.lower()
    return next((kind for pattern, kind in _TASK_KINDS if fnmatchcase(lowered, pattern)), "performance")


def default_margin(kind: str, unit: str, baseline: float | None, scale: float | None) -> tuple[float | None, str]:
    """The margin of one entry.

    Args:
        kind: kind of the entry.
        unit: unit of its metric.
        baseline: the baseline's value, for margins that are a share of it.
        scale: largest possible |difference| of one item, None if unbounded.

    Returns:
        (margin, reason why there is none); the margin is None where nothing is known about what matters in that unit.
    """
    share = None if baseline is None or baseline == 0 else 0.05 * abs(baseline)
    if kind == "latency" or unit in {"tokens", "seconds", "tokens/s"}:
        return share, "no margin: 5 % of a baseline of 0 is nothing; name one with --margin"
    if kind == "diversity":
        return (0.02, "") if scale == 1.0 else (share, "no margin: 5 % of a baseline of 0 is nothing; name one with --margin")
    if kind == "epistemic":
        return (None if scale is None else 0.05 * scale), "no margin: the scale of the scores is not known; name it with --scale"
    if unit == "fraction":
        return 0.01, ""
    if scale is not None:
        return 0.01 * scale, ""
    return None, f"no margin is known for the unit {unit}: name one with --margin"


FORWARD, REVERSE, SHANNON = "kl(candidate||baseline)", "kl(baseline||candidate)", "js"
"""Metrics of the kind ``divergence``, exact over the vocabulary."""
K1, K3, BOUND = "k1(candidate||baseline)", "k3(candidate||baseline)", "kl(candidate||baseline), at least"
"""The same from samples, and from the likeliest tokens."""
BYTES = "log-ratio(candidate/baseline)"
"""The same per byte, for models of different tokenizers."""
DISTANCES = (FORWARD, K1, BYTES)
"""The metric that stands for a pair's divergence: the first that there is."""
