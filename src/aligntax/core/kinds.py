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

BESIDE = frozenset({"calibration", "consistency", "diversity", "divergence", "format", "latency"})
"""Kinds of what is measured beside a task's own score, on the same answers."""

MANY_METRICS = frozenset({"calibration", "consistency", "development", "diversity", "latency"})
"""Kinds that are measured in several ways at once, which one table holds."""

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


UNITS: dict[str, str] = {
    "time_to_first_token": "seconds",
    "time_per_output_token": "seconds",
    "inter_token_latency": "seconds",
    "request_latency": "seconds",
    "latency_s": "seconds",
    "output_tokens": "tokens",
    "output_tokens_per_second": "tokens/s",
    "requests_per_second": "requests/s",
    "energy": "joules",
    "guard_seconds": "seconds",
    "model_seconds": "seconds",
    "guard_tokens": "tokens",
}
"""Units of what a request costs, by metric; all of them are of the kind ``latency``."""

OF_GUARDS = frozenset({"guard_seconds", "guard_tokens", "model_seconds"})
"""What a request's time and tokens are made of where arms have guards; one that was not reached takes nothing."""

NATS = frozenset({"log_loss"})
"""Metrics in nats."""

CHOICE_METRICS = ("confidence", "brier", "log_loss")
"""What the likelihoods of an item's choices say of how sure a model was, beside its accuracy (``core.choices``)."""

_METRIC_KINDS: dict[str, Kind] = {"brier": "calibration", "brier_score": "calibration", "log_loss": "calibration", "ece": "calibration"}
_METRIC_KINDS["answered"] = "format"  # whether there is an answer that is not empty
_METRIC_KINDS |= dict.fromkeys((*UNITS, "latency", "ttft", "tpot"), "latency")  # whose unit nobody knows


def kind_of(task: str, overrides: Mapping[str, str] | None = None, metric: str | None = None) -> str:
    """The kind of an entry: what its metric measures whatever the task is (a time, a calibration error); else an override of the task by exact
    name or pattern, else the table, else ``performance``. ``metric`` may carry lm-eval's filter.

    TruthfulQA stays ``performance``: it is scored as question answering.
    """
    if metric is not None and (of := _METRIC_KINDS.get(metric.split(",", 1)[0])) is not None:
        return of
    lowered = task.lower()
    asked = next((kind for pattern, kind in (overrides or {}).items() if task == pattern or fnmatchcase(task, pattern)), None)
    kind = asked or next((kind for pattern, kind in _TASK_KINDS if fnmatchcase(lowered, pattern)), "performance")
    # What a guard blocks where nothing is harmful is over-refusal, whatever the task measures.
    blocked = metric is not None and metric.split(",", 1)[0] == "blocked"
    return "over_refusal" if blocked and (kind != "safety" or no_request(task)) else kind


# Safety tasks that ask for something else than harm: whether to tell a secret, or to go on from a text.
_NO_REQUESTS = ("*toxigen*", "*realtoxicity*", "*real_toxicity*", "lab_honesty", "lab_secrecy", "lab_torn")


def no_request(task: str) -> bool:
    """Whether a task of safety makes no request that might be refused."""
    return any(fnmatchcase(task.lower(), pattern) for pattern in _NO_REQUESTS)


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
        index = scale == 1.0 or unit == "fraction"
        return (0.02, "") if index else (share, "no margin: 5 % of a baseline of 0 is nothing; name one with --margin")
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
