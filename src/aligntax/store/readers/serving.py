"""Serving benchmarks: vLLM's ``vllm bench serve --save-result`` JSON and GuideLLM's ``benchmarks.json``, as summaries in seconds and tokens.

Requests have no identity in these files (no prompt, no id), so nothing is paired by their order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import sqrt
from pathlib import Path
from typing import Any

from aligntax.core.errors import LogError
from aligntax.core.samples import MAX_SCORE
from aligntax.core.words import printable
from aligntax.store.jsonio import load_json, shown
from aligntax.store.logs import LogFacts, LogSource, Sighting, Summary, Want, reader

# vLLM: mean_X_ms and std_X_ms over requests. GuideLLM: metrics.X.successful with mean, std_dev and count.
_VLLM = {"ttft": "time_to_first_token", "tpot": "time_per_output_token", "itl": "inter_token_latency", "e2el": "request_latency"}
_VLLM_RATES = {"request_throughput": "requests_per_second", "output_throughput": "output_tokens_per_second"}
_GUIDE = {
    "time_to_first_token_ms": ("time_to_first_token", 1e-3),
    "time_per_output_token_ms": ("time_per_output_token", 1e-3),
    "inter_token_latency_ms": ("inter_token_latency", 1e-3),
    "request_latency": ("request_latency", 1.0),
    "requests_per_second": ("requests_per_second", 1.0),
    "output_tokens_per_second": ("output_tokens_per_second", 1.0),
    "output_token_count": ("output_tokens", 1.0),
}
_HIGHER = frozenset({"requests_per_second", "output_tokens_per_second"})
_OF_REQUESTS = frozenset({"time_to_first_token", "time_per_output_token", "inter_token_latency", "request_latency", "output_tokens"})
"""What has one value per request, so that its spread over requests gives an error of its mean."""


def _sniff_vllm(seen: Sighting) -> bool:
    row = None if seen.is_dir else seen.first_object
    return row is not None and "mean_ttft_ms" in row and "request_throughput" in row


@reader("vllm-bench", _sniff_vllm)
def vllm_bench(path: Path, want: Want) -> LogSource:
    """One run of ``vllm bench serve``: task ``serving``, times in seconds."""
    del want
    data = load_json(path)
    if not isinstance(data, dict):
        raise LogError(f"{shown(path)} is no result of vllm bench: an object was expected")
    completed = data.get("completed")
    n = completed if isinstance(completed, int) and 0 < completed < 2**63 else None
    found = []
    for short, name in _VLLM.items():
        mean, spread = _real(data.get(f"mean_{short}_ms")), _real(data.get(f"std_{short}_ms"))
        if mean is not None:
            se = None if spread is None or spread < 0 or n is None else spread / 1000 / sqrt(n)
            found.append(Summary("serving", name, mean / 1000, se, n))
    found += [Summary("serving", name, value) for key, name in _VLLM_RATES.items() if (value := _real(data.get(key))) is not None]
    keys = ("date", "backend", "model_id", "num_prompts", "request_rate", "max_concurrency", "completed")
    settings = {key: str(data[key])[:100] for key in keys if data.get(key) is not None}
    return _source("vllm-bench", path, found, {"harness": "vllm bench serve", **settings})


def _sniff_guide(seen: Sighting) -> bool:
    return (
        not seen.is_dir and seen.path.suffix == ".json" and b'"benchmarks"' in seen.head and b'"' in seen.head and _looks_like_guide(seen)
    )


def _looks_like_guide(seen: Sighting) -> bool:
    row = seen.first_object
    return (
        row is not None
        and isinstance(row.get("benchmarks"), list)
        and bool(row["benchmarks"])
        and "metrics" in _mapping(row["benchmarks"][0])
    )


@reader("guidellm", _sniff_guide)
def guidellm(path: Path, want: Want) -> LogSource:
    """Every benchmark of a GuideLLM report: a task per strategy and rate, times in seconds."""
    del want
    data = _mapping(load_json(path))
    found: list[Summary] = []
    seen: set[str] = set()
    for number, benchmark in enumerate(data.get("benchmarks") or (), 1):
        task = _strategy(_mapping(benchmark), number)
        task = f"{task} ({number})" if task in seen else task
        seen.add(task)
        found += _guide_summaries(task, _mapping(_mapping(benchmark).get("metrics")))
    return _source("guidellm", path, found, {"harness": "GuideLLM"})


def _strategy(benchmark: Mapping[str, Any], number: int) -> str:
    """The load: ``serving/synchronous``, ``serving/constant@4``."""
    for place in ("config", "args", "scheduler"):
        told = _mapping(_mapping(benchmark.get(place)).get("strategy"))
        if told:
            rate = _real(told.get("rate")) or _real(told.get("streams"))
            return f"serving/{told.get('type_', told.get('type', 'load'))}" + ("" if rate is None else f"@{rate:g}")
    return f"serving/{number}"


def _guide_summaries(task: str, metrics: Mapping[str, Any]) -> Iterator[Summary]:
    for key, (name, factor) in _GUIDE.items():
        one = _mapping(_mapping(metrics.get(key)).get("successful"))
        mean, spread, count = _real(one.get("mean")), _real(one.get("std_dev")), one.get("count")
        if mean is None:
            continue
        n = count if isinstance(count, int) and 0 < count < 2**63 and name in _OF_REQUESTS else None
        se = None if spread is None or spread < 0 or n is None else factor * spread / sqrt(n)
        yield Summary(task, name, factor * mean, se, n)


def _source(name: str, path: Path, found: list[Summary], settings: dict[str, Any]) -> LogSource:
    if not found:
        raise LogError(f"{shown(path)} has none of the numbers that are read: {printable(', '.join(sorted(_OF_REQUESTS | _HIGHER)))}")
    facts = LogFacts(settings=settings)
    facts.higher_is_better = {(one.task, one.metric): one.metric in _HIGHER for one in found}
    return LogSource(name, None, facts=facts, summaries=found)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _real(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_SCORE:
        return None
    return float(value)
