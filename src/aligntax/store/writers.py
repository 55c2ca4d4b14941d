"""Runs as logs of other tools: Inspect's ``.eval`` and lm-eval's samples and results. One folder per arm, one file per task."""

from __future__ import annotations

import json
import re
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import duckdb

from aligntax import __version__
from aligntax.core.errors import InputError, RunError
from aligntax.core.ids import digest
from aligntax.core.samples import OUTCOMES, Outcome
from aligntax.core.words import printable
from aligntax.store.jsonio import shown
from aligntax.store.readers.inspect_ai import DIRECTIONS, OUTCOME
from aligntax.store.readers.table import first_line
from aligntax.store.rows import ArmRows, Rows

Directions = Mapping[tuple[str, str], bool]
"""(task, metric) -> whether higher is better."""


@dataclass(frozen=True)
class _Score:
    metric: str
    value: float | None
    outcome: Outcome
    extracted: str | None


@dataclass(frozen=True)
class _Sample:
    """One sample of an arm with all its scores."""

    task: str
    item: str
    content: str
    trial: int
    question: str
    target: str
    answer: str | None
    prompt: str | None
    labels: dict[str, str]
    scores: tuple[_Score, ...]


def write_logs(out: Path, to: str, rows: Rows, directions: Directions, study: str) -> list[Path]:
    """Every arm as a folder of logs.

    Args:
        out: a folder that is new or empty.
        to: ``inspect`` or ``lm-eval``.
        rows: the run's rows.
        directions: of metrics, as far as they are known.
        study: id of the study, written into the logs.

    Returns:
        The files.

    Raises:
        InputError: if the folder has files already, or the form has no room for what the run holds.
        RunError: if it cannot be written.
    """
    write = {"inspect": _write_inspect, "lm-eval": _write_lm_eval}[to]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{shown(out)} is not an empty folder; name a new one with --out")
    now = datetime.now(UTC)
    part = out.with_name(f".{out.name}.{secrets.token_hex(4)}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        part.mkdir()
        try:
            for arm in rows.arms:
                folder = part / _file_name(arm.name)
                folder.mkdir()
                write(folder, arm, groupby(_samples(rows, arm.number), key=lambda sample: sample.task), directions, study, now)
            if out.exists():
                out.rmdir()
            part.rename(out)
        finally:
            _remove(part)
    except (OSError, duckdb.Error) as error:
        raise RunError(f"{shown(out)} cannot be written: {first_line(error)}") from None
    return sorted(p for p in out.rglob("*") if p.is_file())


def _remove(folder: Path) -> None:
    if folder.exists():
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        folder.rmdir()


def _samples(rows: Rows, k: int) -> Iterator[_Sample]:
    """Samples in the order of their tasks; rows of one sample are merged."""
    texts = ", ".join(f'any_value(s."{c}") AS "{c}"' for c in ("question", "target", "answer", "prompt", "cluster", "by"))
    score = "{'metric': x.metric, 'value': x.value, 'outcome': x.outcome, 'extracted': x.extracted}"
    with rows.con.cursor() as con:
        found = con.execute(
            f"SELECT s.task, s.item, s.content, s.trial, {texts}, list({score} ORDER BY x.metric) FILTER (x.metric IS NOT NULL) "
            f"FROM samples_{k} s LEFT JOIN scores_{k} x ON x.sample = s.rowid "
            "GROUP BY s.task, s.item, s.content, s.trial ORDER BY s.task, min(s.rowid)"
        )
        while batch := found.fetchmany(2000):
            for task, item, content, trial, question, target, answer, prompt, cluster, by, scores in batch:
                yield _Sample(
                    task=task,
                    item=item,
                    content=content,
                    trial=trial,
                    question=question or "",
                    target=target or "",
                    answer=answer,
                    prompt=prompt,
                    labels={name: value for name, value in (("cluster", cluster), ("by", by)) if value is not None},
                    scores=tuple(_Score(s["metric"], s["value"], OUTCOMES[s["outcome"]], s["extracted"]) for s in scores or ()),
                )


def _file_name(name: str) -> str:
    """A name that is safe in a path, and still its own: what was changed gets a mark of what it was."""
    safe = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII).lstrip(".")[:100]
    return safe if safe == name else f"{safe}-{digest(name)[:8]}"


# -- Inspect -----------------------------------------------------------------------------------------------------------------------

_STOP = {Outcome.TRUNCATED: "max_tokens", Outcome.REFUSED: "content_filter"}


def _write_inspect(
    folder: Path, arm: ArmRows, tasks: Iterator[tuple[str, Iterator[_Sample]]], directions: Directions, study: str, now: datetime
) -> None:
    for task, samples in tasks:
        with zipfile.ZipFile(folder / f"{_file_name(task)}.eval", "x", zipfile.ZIP_DEFLATED) as archive:
            _write_eval(partial(_member, archive), arm, task, samples, directions, study, now)


def _member(archive: zipfile.ZipFile, name: str, data: Any) -> None:
    archive.writestr(name, _json(data))


def _write_eval(
    write: Callable[[str, Any], None],
    arm: ArmRows,
    task: str,
    samples: Iterator[_Sample],
    directions: Directions,
    study: str,
    now: datetime,
) -> None:
    """The members of one log, as Inspect's format of version 2 has them."""
    ids: list[str] = []
    summaries: list[dict[str, Any]] = []
    totals: dict[str, list[float]] = {}
    written: set[str] = set()
    for sample in samples:
        made = _inspect_sample(arm, sample)
        if f"{made['id']}_{sample.trial}" in written:  # two contents under one id: each is an item of its own
            made["id"] = f"{made['id']}-{sample.content[:8]}"
        written.add(f"{made['id']}_{sample.trial}")
        ids.append(made["id"])
        write(f"samples/{_file_name(made['id'])}_epoch_{sample.trial + 1}.json", made)
        summaries.append({key: made[key] for key in ("id", "epoch", "input", "target", "metadata", "scores", "model_usage")})
        for score in sample.scores:
            if score.value is not None:
                totals.setdefault(score.metric, []).append(score.value)
    stamp, unique = now.isoformat(timespec="seconds"), list(dict.fromkeys(ids))
    about = {
        "run_id": digest([study, arm.name])[:22], "created": stamp, "task": task, "task_id": digest([study, arm.name, task])[:22],
        "task_version": 0, "task_attribs": {}, "task_args": {}, "model": arm.source, "model_args": {}, "config": {},
        "dataset": {"name": task, "samples": len(unique), "sample_ids": unique, "shuffled": False},
        "packages": {"aligntax": __version__}, "metadata": {"aligntax": __version__, "study": study, DIRECTIONS: {m: d for (t, m), d in directions.items() if t == task}},
    }  # fmt: skip
    plan = {"name": "plan", "steps": [], "config": {}}
    scores = []
    for metric, values in totals.items():
        name = "accuracy" if directions.get((task, metric)) and all(0 <= v <= 1 for v in values) else "mean"
        scores.append(
            {
                "name": metric,
                "scorer": metric,
                "params": {},
                "metrics": {name: {"name": name, "value": sum(values) / len(values), "params": {}}},
            }
        )
    write("_journal/start.json", {"version": 2, "eval": about, "plan": plan})
    write("summaries.json", summaries)
    write(
        "header.json",
        {
            "version": 2,
            "status": "success",
            "eval": about,
            "plan": plan,
            "results": {"total_samples": len(summaries), "completed_samples": len(summaries), "scores": scores},
            "stats": {"started_at": stamp, "completed_at": stamp, "model_usage": {}},
        },
    )


def _inspect_sample(arm: ArmRows, sample: _Sample) -> dict[str, Any]:
    said = {"role": "assistant", "content": sample.answer or "", "source": "generate", "model": arm.source}
    outcomes = {score.outcome for score in sample.scores}
    stop = next((reason for outcome, reason in _STOP.items() if outcome in outcomes), "stop")
    made: dict[str, Any] = {
        "id": sample.item or sample.content,
        "epoch": sample.trial + 1,
        "input": sample.question,
        "target": sample.target,
        "messages": [{"role": "user", "content": sample.question, "source": "input"}, said],
        "output": {"model": arm.source, "choices": [{"message": said, "stop_reason": stop}]},
        "scores": {
            score.metric: {"value": score.value, "answer": score.extracted, "metadata": {OUTCOME: str(score.outcome)}}
            for score in sample.scores
            if score.value is not None
        },
        "metadata": sample.labels,
        "store": {},
        "events": [],
        "model_usage": {},
        "attachments": {},
    }
    if Outcome.FAILED in outcomes and not made["scores"]:
        made["error"] = {"message": "the log that was read has no score", "traceback": "", "traceback_ansi": ""}
    return made


# -- lm-eval -----------------------------------------------------------------------------------------------------------------------


def _write_lm_eval(
    folder: Path, arm: ArmRows, tasks: Iterator[tuple[str, Iterator[_Sample]]], directions: Directions, study: str, now: datetime
) -> None:
    stamp = now.strftime("%Y-%m-%dT%H-%M-%S.%f")
    results: dict[str, Any] = {}
    higher: dict[str, dict[str, bool]] = {}
    counts: dict[str, dict[str, int]] = {}
    for task, samples in tasks:
        totals: dict[str, list[float]] = {}
        items = 0
        with (folder / f"samples_{_file_name(task)}_{stamp}.jsonl").open("x", encoding="utf-8", newline="\n") as file:
            for sample in samples:
                if sample.trial:
                    raise InputError(f"{printable(task)} was asked several times; lm-eval's logs have no trials: export --to inspect")
                items += 1
                for row in _lm_eval_rows(sample):
                    file.write(_json(row) + "\n")
                for score in sample.scores:
                    if score.value is not None:
                        totals.setdefault(score.metric, []).append(score.value)
        name = _file_name(task)
        results[name] = {"alias": name, **{metric: sum(values) / len(values) for metric, values in totals.items()}}
        counts[name] = {"original": items, "effective": items}
        for metric in totals:
            if (task, metric) in directions:
                higher.setdefault(name, {})[metric.partition(",")[0]] = directions[task, metric]
    document = {
        "results": results,
        "higher_is_better": higher,
        "n-samples": counts,
        "versions": {},
        "n-shot": {},
        "config": {"model": "aligntax", "model_args": arm.source},
        "model_name": arm.source,
        "date": now.timestamp(),
        "aligntax": {"version": __version__, "study": study, "arm": arm.name},
    }
    (folder / f"results_{stamp}.json").write_text(_json(document, indent=2) + "\n", encoding="utf-8")


def _lm_eval_rows(sample: _Sample) -> Iterator[dict[str, Any]]:
    """One row per filter, as lm-eval logs a reply that several filters read."""
    by_filter: dict[str, list[_Score]] = {}
    for score in sample.scores:
        by_filter.setdefault(score.metric.partition(",")[2] or "none", []).append(score)
    for name, scores in by_filter.items():
        extracted = next((s.extracted for s in scores if s.extracted is not None), None)
        unread = any(s.outcome in (Outcome.UNPARSED, Outcome.TRUNCATED) for s in scores)
        metrics = {s.metric.partition(",")[0]: s.value for s in scores}
        yield {
            "doc_id": int(sample.item) if sample.item.isdecimal() and str(int(sample.item)) == sample.item else sample.item,
            "doc": {"question": sample.question, **sample.labels},
            "target": sample.target,
            "arguments": {},
            "resps": [[sample.answer or ""]],
            "filtered_resps": [
                "[invalid]" if unread and extracted is None else extracted if extracted is not None else sample.answer or ""
            ],
            "filter": name,
            "metrics": list(metrics),
            "doc_hash": digest([sample.question, sample.labels]),
            "prompt_hash": sample.prompt or "",
            "target_hash": digest(sample.target),
            **metrics,
        }


def _json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
