"""lm-eval 0.4 logs: folders of ``results_*.json`` and ``samples_*.jsonl``, or one samples file.

The task comes from the samples file's name. A metric is every name in a row's ``metrics``; in older logs every
numeric or boolean field (and list of 0/1 values) that is not bookkeeping. Metric keys are lm-eval's own, ``name,filter``.
List-valued metrics (IFEval's instruction level) become one item per element, clustered by document, because lm-eval
averages over elements.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import Any

from aligntax.core.choices import beliefs
from aligntax.core.errors import LogError
from aligntax.core.ids import digest
from aligntax.core.items import Value
from aligntax.core.samples import MAX_SCORE, Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, load_json, opened, shown
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Summary, Want, reader

_SAMPLES = re.compile(r"^samples_(?P<task>.+?)_(?P<date>\d{4}-\d{2}-\d{2}T\d{2}[-:]\d{2}[-:]\d{2}(?:\.\d+)?)\.jsonl$")
_RESULTS = re.compile(r"^results_(?P<date>.+)\.json$")
_BOOKKEEPING = frozenset(
    ["doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash", "target_hash"]
)
_QUESTION_FIELDS = ("question", "problem", "query", "prompt", "input", "goal", "sentence", "text", "ctx", "context")
# What lm-eval's regex filters leave when nothing matched.
_NOTHING_EXTRACTED = frozenset({"[invalid]", "", "[no match]"})


def _is_sample(row: Mapping[str, Any] | None) -> bool:
    return row is not None and "doc_id" in row and ("filtered_resps" in row or "resps" in row)


def _sniff(seen: Sighting) -> bool:
    if seen.is_dir:
        return any(True for _ in seen.path.rglob("samples_*.jsonl")) or any(True for _ in seen.path.rglob("results_*.json"))
    if _RESULTS.match(seen.path.name):
        row = seen.first_object
        return row is not None and "results" in row
    return _is_sample(seen.first_object)


@reader("lm-eval", _sniff)
def lm_eval(path: Path, want: Want) -> LogSource:
    """Every samples file at or below ``path``, with the facts of the results files beside them."""
    if path.is_dir() and any(True for _ in path.rglob("*.eval")):
        raise LogError(f"{shown(path)} holds lm-eval's and Inspect's logs; keep one run per folder, or name one of the files")
    samples, results = _files(path)
    facts = LogFacts()
    for file in results:
        _read_results(file, facts)
    facts.settings.setdefault("harness", "lm-eval")
    if not samples:
        facts.note("results without samples, so nothing is paired item by item: run lm-eval with --log_samples")
        return LogSource("lm-eval", None, facts=facts, summaries=_summaries(path, results, facts))
    by_task: dict[str, Path] = {}
    for file in samples:
        task = _task_name(file)
        if task in by_task:
            raise LogError(
                f"{shown(path)} has two logs of the task {printable(task)}: {shown(by_task[task].name)} and "
                f"{shown(file.name)}; name one of the files, or keep one run per folder"
            )
        by_task[task] = file
    return LogSource("lm-eval", _rows(by_task, want, facts), facts=facts)


def _files(path: Path) -> tuple[list[Path], list[Path]]:
    """(samples files, results files). A results file stands for the samples of the same date beside it."""
    if path.is_dir():
        samples, results = sorted(path.rglob("samples_*.jsonl")), sorted(path.rglob("results_*.json"))
    elif match := _RESULTS.match(path.name):
        samples, results = sorted(path.parent.glob(f"samples_*_{match['date']}.jsonl")), [path]
    else:
        match = _SAMPLES.match(path.name)
        beside = path.parent / f"results_{match['date']}.json" if match else None
        samples, results = [path], [beside] if beside is not None and beside.is_file() else []
    return samples, results


def _task_name(path: Path) -> str:
    match = _SAMPLES.match(path.name)
    if match:
        return match["task"]
    stem = path.name.removesuffix(".jsonl").removesuffix(".json")
    return stem.removeprefix("samples_") or stem


def _read_results(path: Path, facts: LogFacts) -> None:
    data = load_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        raise LogError(f"{shown(path)} is not an lm-eval results file: it has no object 'results'")
    for task, directions in _mapping(data.get("higher_is_better")).items():
        for metric, higher in _mapping(directions).items():
            if isinstance(higher, bool):
                facts.higher_is_better[str(task), str(metric)] = higher
    for group, tasks in _mapping(data.get("group_subtasks")).items():
        if isinstance(tasks, list) and tasks:
            facts.groups[str(group)] = tuple(str(t) for t in tasks)
    config = _mapping(data.get("config"))
    for key, value in {
        "model": data.get("model_name") or config.get("model_args"),
        "lm_eval_version": data.get("lm_eval_version"),
        "git_hash": data.get("git_hash"),
        "chat_template_sha": data.get("chat_template_sha"),
        "system_instruction_sha": data.get("system_instruction_sha"),
        "dtype": config.get("model_dtype"),
        "limit": config.get("limit"),
    }.items():
        if value is not None:
            facts.settings[key] = value
        elif key in data and key.endswith("_sha"):
            facts.settings[key] = "none"  # lm-eval's null says that there was none
    for key in ("n-shot", "versions", "task_hashes"):
        facts.settings.setdefault(key, {}).update(_mapping(data.get(key)))


def _summaries(path: Path, results: list[Path], facts: LogFacts) -> list[Summary]:
    """Every task's metrics with their standard errors, in the form of 0.4 (``acc,none``) and the flat one of 0.3 (``acc``)."""
    found: dict[tuple[str, str], Summary] = {}
    for file in results:
        data = load_json(file)
        counts = _mapping(data.get("n-samples"))
        for task, metrics in _mapping(data.get("results")).items():
            if task in facts.groups:
                facts.note(f"{task} is left out: an average over its tasks")
                continue
            n = _mapping(counts.get(task)).get("effective")
            for key, value in _mapping(metrics).items():
                name, comma, filter_ = key.partition(",")
                if not _is_number(value) or isinstance(value, bool) or "_stderr" in name or name in ("alias", "samples", "sample_len"):
                    continue
                told = _mapping(metrics).get(f"{name}_stderr{comma}{filter_}")
                # "N/A", NaN and the like are no errors.
                error = float(told) if isinstance(told, int | float) and not isinstance(told, bool) and 0 <= told <= MAX_SCORE else None
                one = Summary(
                    str(task), key, _finite(value, key, shown(file)), error,
                    n if isinstance(n, int) and n > 0 else None,
                )  # fmt: skip
                if found.setdefault((one.task, key), one) != one:
                    raise LogError(
                        f"{shown(path)} has two results of the task {printable(one.task)}; name one of the files, or keep one run per folder"
                    )
    if not found:
        raise LogError(f"{shown(path)} has lm-eval results without a number")
    return list(found.values())


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _rows(files: Mapping[str, Path], want: Want, facts: LogFacts) -> Iterator[LogRow]:
    for task, path in files.items():
        with opened(path) as streams:
            for where, stream in streams:
                for number, row in json_rows(stream, where):
                    if not _is_sample(row):
                        raise LogError(f"{where}, row {number} is no lm-eval sample: it has no doc_id with resps")
                    yield from _sample(task, row, want, facts, f"{where}, row {number}")


def _sample(task: str, row: Mapping[str, Any], want: Want, facts: LogFacts, where: str) -> Iterator[LogRow]:
    doc = row.get("doc")
    fields = doc if isinstance(doc, dict) else {}
    facts.labels.update(str(key) for key, value in fields.items() if isinstance(value, str | int | float | bool))
    source = label_text(row["doc_id"])
    content = digest_of(doc, row)
    filtered = row.get("filtered_resps")
    outcome, extracted = _outcome(row, filtered)
    base = LogRow(
        task=task,
        item=source,
        content=content,
        scores={},
        question=_question(fields, row),
        target=_text(row.get("target")),
        answer=_answer(row),
        prompt=_text(row.get("prompt_hash")),
        cluster=_label(fields, row, want.cluster),
        by=_label(fields, row, want.by),
    )
    suffix = str(row.get("filter") or "none")
    elements: dict[str, list[float]] = {}
    for name in _metric_names(row):
        # What lm-eval logs per sample under this name is a log-likelihood; its results say "lower is better" of the perplexity made of it.
        key = f"{'log_likelihood' if name == 'perplexity' else name},{suffix}"
        if name == "perplexity":
            facts.higher_is_better[task, key] = True
        elif (task, name) in facts.higher_is_better:
            facts.higher_is_better.setdefault((task, key), facts.higher_is_better[task, name])
        value = row.get(name)
        if isinstance(value, list) and value and all(_is_number(v) and v in (0, 1) for v in value):
            elements[key] = [float(v) for v in value]
        elif isinstance(value, bool | int | float):
            base.scores[key] = Value(_finite(value, name, where), outcome, extracted)
        elif value is None:
            base.scores[key] = Value(None, Outcome.FAILED)
        else:
            facts.note(
                f"{task}: metric {key} is left out: its per-sample value is {_describe(value)}, which only a corpus-level sum can use"
            )
    if _likelihoods(row):
        facts.chosen.add(task)
    for key in base.scores:
        if key.split(",", 1)[0] in ("acc", "acc_norm") and (options := _options(row)):
            facts.guess(task, key, options)
    _add_beliefs(base, row, suffix)
    if base.scores or not elements:
        yield base
    if elements and not want.cluster:
        facts.auto_cluster = "document"
    yield from _element_rows(base, elements, want)


def _add_beliefs(base: LogRow, row: Mapping[str, Any], suffix: str) -> None:
    """How sure the model was of the choice that ``acc`` judges, where the log holds the likelihoods of all choices."""
    right, target = base.scores.get(f"acc,{suffix}"), row.get("target")
    if right is None or right.value is None or not _options(row):
        return
    text = str(target).strip()
    gold = int(text) if text.isdecimal() and len(text) < 4 else None
    found = beliefs([likelihood for one in row["resps"] if (likelihood := _loglikelihood(one)) is not None], bool(right.value), gold)
    for name, value in found.items():
        base.scores.setdefault(f"{name},{suffix}", Value(value))


def _element_rows(base: LogRow, elements: Mapping[str, list[float]], want: Want) -> Iterator[LogRow]:
    """One row per element of a list-valued metric: the document is the cluster, unless a coarser one was asked for."""
    for position in range(max((len(values) for values in elements.values()), default=0)):
        yield LogRow(
            task=base.task,
            item=f"{base.item}.{position}",
            content=None if base.content is None else digest([base.content, position]),
            scores={key: Value(values[position]) for key, values in elements.items() if position < len(values)},
            question=base.question,
            target=base.target,
            answer=base.answer,
            prompt=base.prompt,
            cluster=base.cluster if want.cluster else f"document {base.item}",
            by=base.by,
        )


def digest_of(doc: object, row: Mapping[str, Any]) -> str | None:
    """Content identity of a document with its target: of the document itself, or of lm-eval's hashes where it was not logged."""
    if doc is not None:
        return digest([_without_nan(doc), _without_nan(row.get("target"))])
    if row.get("doc_hash") is not None:
        return digest([row["doc_hash"], row.get("target_hash")])
    return None


def _without_nan(value: object) -> object:
    """JSON as lm-eval writes it may hold NaN in a document; hashing needs plain values."""
    if isinstance(value, float) and not isfinite(value):
        return repr(value)
    if isinstance(value, list):
        return [_without_nan(v) for v in value]
    if isinstance(value, dict):
        return {k: _without_nan(v) for k, v in value.items()}
    return value


def _metric_names(row: Mapping[str, Any]) -> list[str]:
    listed = row.get("metrics")
    if isinstance(listed, list) and listed:
        return [str(name) for name in listed]
    # Older logs do not list their metrics.
    return [
        k for k, v in row.items() if k not in _BOOKKEEPING and (_is_number(v) or (isinstance(v, list) and v and all(map(_is_number, v))))
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, bool | int | float)


def _finite(value: float, name: str, where: str) -> float:
    if not abs(value) <= MAX_SCORE:
        found = value if isinstance(value, float) else "a whole number of over 100 digits"
        raise LogError(
            f"{where}: {printable(name)} is {found}; scores must be finite numbers, at most {MAX_SCORE:g} either side of 0 (null where there is none)"
        )
    return float(value)


def _outcome(row: Mapping[str, Any], filtered: object) -> tuple[Outcome, str | None]:
    """Whether the filter found an answer in a generated reply; multiple choice by log-likelihood always has one."""
    first = filtered[0] if isinstance(filtered, list) and filtered else filtered
    if first is None:
        return Outcome.UNPARSED, None
    if not isinstance(first, str):
        return Outcome.SCORED, None
    if len(filtered if isinstance(filtered, list) else []) > 1 and _is_choice(row):
        return Outcome.SCORED, None
    return (Outcome.UNPARSED if first.strip() in _NOTHING_EXTRACTED else Outcome.SCORED), first


def _is_choice(row: Mapping[str, Any]) -> bool:
    arguments = row.get("arguments")
    return isinstance(arguments, dict) and len(arguments) > 1


def _options(row: Mapping[str, Any]) -> int:
    """How many choices an item offers, each with a likelihood; 0 where it is no such item, or offers its choices once more without their question."""
    resps = row.get("resps")
    if not isinstance(resps, list) or len(resps) < 2 or any(_loglikelihood(one) is None for one in resps):
        return 0
    return 0 if "acc_mutual_info" in row else len(resps)


def _likelihoods(row: Mapping[str, Any]) -> bool:
    """Whether the model was asked how likely given texts are, and wrote nothing."""
    resps = row.get("resps")
    return isinstance(resps, list) and bool(resps) and all(_loglikelihood(one) is not None for one in resps)


def _answer(row: Mapping[str, Any]) -> str | None:
    """The reply: the generated text, or the most likely choice."""
    resps = row.get("resps")
    if not isinstance(resps, list) or not resps:
        return None
    first = resps[0][0] if isinstance(resps[0], list) and resps[0] else resps[0]
    if isinstance(first, str):
        return first
    choices = [_loglikelihood(r) for r in resps]
    if any(c is None for c in choices):
        return None
    best = max(range(len(choices)), key=lambda i: choices[i] or 0.0)
    arguments = row.get("arguments")
    values = list(arguments.values()) if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else []
    if best < len(values):
        chosen = values[best]
        text = chosen.get("arg_1") if isinstance(chosen, dict) else chosen[1] if isinstance(chosen, list) and len(chosen) > 1 else None
        if isinstance(text, str):
            return f"{text.strip()} (log-likelihood {choices[best]:.4f})"
    return f"choice {best} (log-likelihood {choices[best]:.4f})"


def _loglikelihood(response: object) -> float | None:
    while isinstance(response, list) and response and isinstance(response[0], list):
        response = response[0]
    if not isinstance(response, list) or not response:
        return None
    try:
        value = float(response[0])
    except (TypeError, ValueError):
        return None
    return value if isfinite(value) else None


def _question(fields: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    for key in _QUESTION_FIELDS:
        if isinstance(fields.get(key), str):
            return str(fields[key])
    arguments = row.get("arguments")
    values = list(arguments.values()) if isinstance(arguments, dict) else arguments if isinstance(arguments, list) else []
    first = values[0] if values else None
    prompt = first.get("arg_0") if isinstance(first, dict) else first[0] if isinstance(first, list) and first else None
    return prompt if isinstance(prompt, str) else None


def _label(fields: Mapping[str, Any], row: Mapping[str, Any], name: str | None) -> str | None:
    """A label from the document (``subject``, or ``meta.subject`` for nested fields), else from the row."""
    if name is None:
        return None
    if name in fields:
        return label_text(fields[name])
    value: object = {"doc": fields, **fields}
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None and name not in _BOOKKEEPING:
        value = row.get(name)
    return label_text(value) if not isinstance(value, dict | list) else None


def _text(value: object) -> str | None:
    return None if value is None else value if isinstance(value, str) else str(value)


def _describe(value: object) -> str:
    return f"a {type(value).__name__} of {len(value)}" if isinstance(value, list | dict | str) else f"a {type(value).__name__}"
