"""Inspect logs, ``.eval`` (a zip of JSON) and ``.json``, read as what they are; Inspect itself is not needed.

A sample is an item, an epoch a trial, a scorer a metric. Letter grades become numbers as Inspect makes them (C 1, P .5, I and N 0), and N is a
refusal. What Inspect turns into 0 with a warning, a value that is no number, is left out with a note; so is a score of NaN, which
is Inspect's word for "not scored".
"""

from __future__ import annotations

import zipfile
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

from aligntax.core.errors import LogError
from aligntax.core.ids import canonical_json, digest, item_content
from aligntax.core.items import Value
from aligntax.core.samples import MAX_TRIAL, MISSING, OUTCOMES, Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import archive_of, json_members, load_json, member_json, shown
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Want, reader

NAME = "inspect"
OUTCOME = "aligntax_outcome"
"""In a score's metadata: the outcome, where a log was written by this package."""
DIRECTIONS = "aligntax_higher_is_better"
"""In such a log's own metadata: directions by metric, which Inspect has no place for."""
_HEADER, _START = "header.json", "_journal/start.json"
_SAMPLES = "samples/"
_SHELL = "/sample.json"
_REFERENCE = "attachment://"
_DIGITS, _MAX_SETTING = 12, 100_000
_TOLD = frozenset(str(outcome) for outcome in OUTCOMES if outcome not in MISSING)
_GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
_WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
_ACCURACIES = frozenset({"accuracy", "pass_at"})


def _sniff(seen: Sighting) -> bool:
    if seen.is_dir:  # a folder that lm-eval wrote to as well is refused by its reader
        of_lm_eval = any(True for pattern in ("samples_*.jsonl", "results_*.json") for _ in seen.path.rglob(pattern))
        return not of_lm_eval and any(True for _ in seen.path.rglob("*.eval"))
    if seen.zip_names:
        return _HEADER in seen.zip_names or _START in seen.zip_names
    return seen.path.suffix == ".json" and b'"eval"' in seen.head and b'"version"' in seen.head and b'"status"' in seen.head


@reader(NAME, _sniff)
def inspect_log(path: Path, want: Want) -> LogSource:
    """One log, or every ``.eval`` at or below a folder: one log per task."""
    facts = LogFacts(settings={"harness": "inspect"})
    files = sorted(path.rglob("*.eval")) if path.is_dir() else [path]
    logs = [_opened(file) for file in files]
    by_task: dict[str, Path] = {}
    for file, log in zip(files, logs, strict=True):
        if log.task in by_task:
            raise LogError(
                f"{shown(path)} has two logs of the task {printable(log.task)}: {shown(by_task[log.task].name)} and {shown(file.name)}; "
                "name one of the files, or keep one run per folder"
            )
        by_task[log.task] = file
        _read_header(log, facts)
    return LogSource(NAME, _rows(logs, want, facts), facts=facts)


@dataclass(frozen=True)
class _Log:
    """A log before its samples are read; ``samples`` reads them one by one, with what resolves their attachments."""

    where: str
    header: Mapping[str, Any]
    samples: Callable[[], Iterator[tuple[Mapping[str, Any], Callable[[str], str]]]]

    @property
    def about(self) -> Mapping[str, Any]:
        return _mapping(self.header.get("eval"))

    @property
    def task(self) -> str:
        return str(self.about.get("task") or Path(self.where).stem)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_data(value: object) -> bool:
    """Whether a setting can be written down: no NaN, no depth that nobody reads."""
    try:
        return len(canonical_json(value)) < _MAX_SETTING
    except (ValueError, TypeError, RecursionError):
        return False


def _opened(path: Path) -> _Log:
    if zipfile.is_zipfile(path):
        with archive_of(path) as archive:
            names = {info.filename for info in json_members(path, archive)}
            if _HEADER not in names and _START not in names:
                raise LogError(f"{shown(path)} is no Inspect log: it has neither {_HEADER} nor {_START}")
            header = _mapping(member_json(path, archive, _HEADER if _HEADER in names else _START))
        return _Log(shown(path), header, lambda: _of_zip(path))
    data = load_json(path)
    if not isinstance(data, dict) or not isinstance(data.get("eval"), dict):
        raise LogError(f"{shown(path)} is no Inspect log: it has no object 'eval'")
    samples = data.get("samples")
    listed = [one for one in samples if isinstance(one, dict)] if isinstance(samples, list) else []
    return _Log(shown(path), data, lambda: ((one, _by_name(one)) for one in listed))


def _by_name(sample: Mapping[str, Any]) -> Callable[[str], str]:
    """Attachments of a sample that has them beside it, by their hash."""
    told = _mapping(sample.get("attachments"))
    return lambda name: str(told.get(name, _REFERENCE + name))


def _of_zip(path: Path) -> Iterator[tuple[Mapping[str, Any], Callable[[str], str]]]:
    with archive_of(path) as archive:
        names = sorted({info.filename for info in json_members(path, archive) if info.filename.startswith(_SAMPLES)})
        for name in names:
            if name.count("/") == 1:
                sample = _mapping(member_json(path, archive, name))
                yield sample, _by_name(sample)
            elif name.endswith(_SHELL) and name.count("/") == 2:  # a large sample, in pieces
                yield _mapping(member_json(path, archive, name)), _by_number(path, archive, name.removesuffix(_SHELL), names)


def _by_number(path: Path, archive: zipfile.ZipFile, place: str, names: list[str]) -> Callable[[str], str]:
    """Attachments of a large sample: pieces of a list, each named by the index of its first entry."""
    folder = f"{place}/attachments/"
    stems = [n[len(folder) : -len(".json")] for n in names if n.startswith(folder)]
    starts = sorted(int(stem) for stem in stems if stem.isdecimal() and len(stem) < _DIGITS and stem == str(int(stem)))
    pieces: dict[int, Any] = {}

    def find(name: str) -> str:
        at = bisect_right(starts, int(name)) - 1 if name.isdecimal() and len(name) < _DIGITS else -1
        if at < 0:
            return _REFERENCE + name
        start = starts[at]
        if start not in pieces:
            pieces[start] = member_json(path, archive, f"{folder}{start}.json")
        piece, index = pieces[start], int(name) - start
        return str(piece[index]) if isinstance(piece, list) and index < len(piece) else _REFERENCE + name

    return find


# -- what a log says of itself -----------------------------------------------------------------------------------------------------


def _read_header(log: _Log, facts: LogFacts) -> None:
    about = log.about
    facts.settings.setdefault("tasks", {})[log.task] = {
        key: value
        for key, value in {
            "model": about.get("model"),
            "created": about.get("created"),
            "task_version": about.get("task_version"),
            "task_args": about.get("task_args"),
            "dataset": _mapping(about.get("dataset")).get("name"),
            "config": about.get("config"),
            "generate": about.get("model_generate_config"),
            "packages": about.get("packages"),
            "plan": [str(_mapping(step).get("solver")) for step in _listed(_mapping(log.header.get("plan")).get("steps"))],
        }.items()
        if value not in (None, {}, []) and _is_data(value)
    }
    facts.settings.setdefault("model", label_text(about.get("model")) if isinstance(about.get("model"), str) else None)
    status = log.header.get("status")
    if status not in (None, "success"):
        facts.note(f"{log.task}: the log says that its run ended with status {status!r}; what it has is compared")
    if log.header.get("invalidated"):
        facts.note(f"{log.task}: the log is marked as invalidated")
    for name, metrics in _scorers(log).items():
        if metrics & _ACCURACIES:
            facts.higher_is_better[log.task, name] = True
    for name, higher in _mapping(_mapping(about.get("metadata")).get(DIRECTIONS)).items():
        if isinstance(higher, bool):
            facts.higher_is_better[log.task, str(name)] = higher


def _scorers(log: _Log) -> dict[str, set[str]]:
    """The scorers of a log with their metrics' names, by what its results or its plan say."""
    found: dict[str, set[str]] = {}
    for score in _listed(_mapping(log.header.get("results")).get("scores")):
        one = _mapping(score)
        found.setdefault(str(one.get("name")), set()).update(map(str, _mapping(one.get("metrics"))))
    for scorer in _listed(log.about.get("scorers")):
        one = _mapping(scorer)
        names = (str(_mapping(m).get("name", "")).rpartition("/")[2] for m in _listed(one.get("metrics")))
        found.setdefault(str(one.get("name")), set()).update(names)
    return found


# -- samples -------------------------------------------------------------------------------------------------------------------------


def _rows(logs: list[_Log], want: Want, facts: LogFacts) -> Iterator[LogRow]:
    for log in logs:
        scorers = _scorers(log)
        empty = True
        for sample, attachment in log.samples():
            empty = False
            yield _row(log, sample, attachment, scorers, want, facts)
        if empty:
            raise LogError(f"{log.where} has no samples; item by item comparison needs them (Inspect's log_samples)")


def _row(
    log: _Log, sample: Mapping[str, Any], attachment: Callable[[str], str], scorers: Mapping[str, set[str]], want: Want, facts: LogFacts
) -> LogRow:
    if "id" not in sample:
        raise LogError(f"{log.where}: a sample has no id; Inspect gives every sample one")
    epoch = sample.get("epoch", 1)
    if not isinstance(epoch, int) or not 1 <= epoch <= MAX_TRIAL:
        raise LogError(f"{log.where}: sample {printable(str(sample['id']))} has epoch {printable(repr(epoch))[:40]}; epochs count from 1")
    question = _input(sample.get("input"), attachment)
    target = _target(sample.get("target"))
    choices = sample.get("choices")
    metadata = _mapping(sample.get("metadata"))
    facts.labels.update(str(key) for key, value in metadata.items() if isinstance(value, str | int | float | bool))
    return LogRow(
        task=log.task,
        item=label_text(sample["id"]),
        content=item_content(question, [str(c) for c in choices] if isinstance(choices, list) else None, target),
        scores=_scores(log.task, sample, scorers, facts),
        trial=epoch - 1,
        question=question,
        target=target,
        answer=_answer(sample, attachment),
        prompt=_prompt(sample, attachment),
        cluster=_cluster(log, metadata, want, facts),
        by=label_text(metadata.get(want.by)) if want.by else None,
    )


def _cluster(log: _Log, metadata: Mapping[str, Any], want: Want, facts: LogFacts) -> str | None:
    """The source asked for; in a log that this package wrote also the one it was compared by."""
    if want.cluster:
        return label_text(metadata.get(want.cluster))
    if "aligntax" not in _mapping(log.about.get("metadata")) or "cluster" not in metadata:
        return None
    facts.auto_cluster = "cluster"
    return label_text(metadata["cluster"])


def _text(content: object, attachment: Callable[[str], str]) -> str:
    """Text of a message's content: a string, or pieces of which only texts are shown."""
    if isinstance(content, str):
        return attachment(content.removeprefix(_REFERENCE)) if content.startswith(_REFERENCE) else content
    if isinstance(content, list):
        pieces = [_mapping(piece) for piece in content]
        return "\n".join(
            _text(piece.get("text", ""), attachment) if piece.get("type", "text") == "text" else f"[{piece.get('type')}]"
            for piece in pieces
        )
    return ""


def _input(given: object, attachment: Callable[[str], str]) -> str:
    if isinstance(given, list):
        return "\n\n".join(_text(_mapping(message).get("content"), attachment) for message in given)
    return _text(given, attachment)


def _target(given: object) -> str:
    return "\n".join(map(str, given)) if isinstance(given, list) else "" if given is None else str(given)


def _answer(sample: Mapping[str, Any], attachment: Callable[[str], str]) -> str | None:
    output = _mapping(sample.get("output"))
    choices = output.get("choices")
    if isinstance(choices, list) and choices:
        return _text(_mapping(_mapping(choices[0]).get("message")).get("content"), attachment)
    completion = output.get("completion")
    return _text(completion, attachment) if isinstance(completion, str) and completion else None


def _prompt(sample: Mapping[str, Any], attachment: Callable[[str], str]) -> str | None:
    """Identity of what stood before the model's first turn; None where the log does not hold it."""
    messages = sample.get("messages")
    if not isinstance(messages, list) or not messages:
        return None
    before = []
    for message in map(_mapping, messages):
        if message.get("role") == "assistant" and message.get("source") != "input":
            break
        before.append([message.get("role"), _text(message.get("content"), attachment)])
    return digest(before)[:32]


def _ending(sample: Mapping[str, Any]) -> Outcome:
    """What a wrong answer is called: cut off, refused by the provider, or simply scored."""
    choices = _mapping(sample.get("output")).get("choices")
    reason = _mapping(choices[0]).get("stop_reason") if isinstance(choices, list) and choices else None
    if reason == "content_filter":
        return Outcome.REFUSED
    return Outcome.TRUNCATED if reason in ("max_tokens", "model_length") or sample.get("limit") else Outcome.SCORED


def _scores(task: str, sample: Mapping[str, Any], scorers: Mapping[str, set[str]], facts: LogFacts) -> dict[str, Value]:
    given = _mapping(sample.get("scores")) or ({"score": sample["score"]} if isinstance(sample.get("score"), dict) else {})
    if sample.get("error") is not None or not given:
        # The machinery failed before the answer could be scored: there is no score, and it is no 0.
        return {name: Value(None, Outcome.FAILED) for name in given or scorers}
    ending = _ending(sample)
    found: dict[str, Value] = {}
    for name, score in given.items():
        one = _mapping(score)
        value, answer = one.get("value"), one.get("answer")
        parts = value if isinstance(value, dict) else {"": value}
        for part, number in parts.items():
            key = f"{name}/{part}" if part else str(name)
            if key not in found and (made := _value(number, ending, answer)) is not None:
                told = _mapping(one.get("metadata")).get(OUTCOME)
                known = isinstance(told, str) and told in _TOLD and made.value is not None
                found[key] = replace(made, outcome=Outcome(str(told))) if known else made
                if part and (task, str(name)) in facts.higher_is_better:
                    facts.higher_is_better.setdefault((task, key), True)
            elif key not in found:
                kind = "a list" if isinstance(number, list) else f"the text {printable(str(number))[:40]!r}"
                facts.note(f"{task}: {key} is left out where its value is no number (for example {kind})")
    return found


def _value(value: object, ending: Outcome, answer: object) -> Value | None:
    """A score as a number; None if it is none."""
    extracted = answer if isinstance(answer, str) else None
    number: float | None = None
    if isinstance(value, bool | int | float):
        try:
            number = float(value)
        except OverflowError:
            return None
        if not isfinite(number):
            return Value(None, Outcome.FAILED, extracted)
    elif isinstance(value, str):
        number = _GRADES.get(value, _WORDS.get(value.lower()))
        if number is None:
            try:
                number = float(value)
            except ValueError:
                return None
            if not isfinite(number):
                return Value(None, Outcome.FAILED, extracted)
    elif value is None:
        return Value(None, Outcome.FAILED, extracted)
    else:
        return None
    if value == "N":
        return Value(number, Outcome.REFUSED, extracted)
    return Value(number, ending if number == 0 else Outcome.SCORED, extracted)
