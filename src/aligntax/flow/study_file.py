"""study.yaml: a measured study as a person writes it."""

from __future__ import annotations

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from aligntax.core.errors import InputError
from aligntax.core.files import read_text
from aligntax.core.guards import Guard, check_names, from_file
from aligntax.core.items import Task
from aligntax.core.study import Elicitation, Frozen, check_tree
from aligntax.core.words import printable
from aligntax.core.yamlio import read_yaml
from aligntax.flow.latency import Latency
from aligntax.flow.measure import ArmSpec
from aligntax.models.references import parse
from aligntax.tasks.find import find_tasks

MAX_BYTES = 4 * 2**20


class ArmEntry(Frozen):
    """One arm: its model, how it is asked, what guards it, and the arm it was made from."""

    model: str
    parent: str | None = None
    template: Literal["raw", "chat"] = "raw"
    shots: Annotated[int, Field(ge=0)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    trials: Annotated[int, Field(ge=1, le=10_000)] = 1
    guards: tuple[Annotated[Guard, BeforeValidator(from_file)], ...] = ()
    instead: str | None = None

    @model_validator(mode="after")
    def _guards_go_together(self) -> ArmEntry:
        check_names(self.guards, self.instead)
        return self


class TaskEntry(Frozen):
    """One task or group, how many of its items, and what it measures."""

    use: str
    limit: Annotated[int, Field(ge=1)] | None = None
    kind: str | None = None


class AnalysisEntry(Frozen):
    """How changes are judged; as the options of ``aligntax measure``."""

    margin: float | str | None = None
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    cluster: str | None = None
    by: str | None = None
    bootstrap: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    diversity: bool | None = None
    embedder: str | None = None
    rewordings: bool = False
    lower_is_better: tuple[str, ...] = ()
    scales: dict[str, tuple[float, float]] = Field(default_factory=dict)


class LatencyEntry(Frozen):
    """How many prompts of every task are timed, and how often each."""

    prompts: Annotated[int, Field(ge=1, le=1_000_000)]
    rounds: Annotated[int, Field(ge=1, le=1000)] = 3


class JudgeEntry(Frozen):
    """The model that says what was refused, and by which rubric."""

    model: str
    rubric: str = "xstest"


class StudyFile(Frozen):
    """The whole file."""

    baseline: str
    arms: dict[Annotated[str, Field(min_length=1)], ArmEntry] = Field(min_length=2)
    tasks: tuple[TaskEntry, ...] = Field(min_length=1)
    include: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    analysis: AnalysisEntry = AnalysisEntry()
    latency: LatencyEntry | None = None
    judge: JudgeEntry | None = None

    def specs(self) -> list[ArmSpec]:
        """The arms, the baseline first.

        Raises:
            InputError: on an unknown baseline or parent, a loop, or a reference that names no model.
        """
        names = list(self.arms)
        if self.baseline not in self.arms:
            raise InputError(f"the baseline {printable(repr(self.baseline))} is not an arm; arms: {printable(', '.join(names))}")
        names.sort(key=lambda name: name != self.baseline)
        parents = {name: self.arms[name].parent for name in names}
        check_tree(names, parents)
        return [ArmSpec(name, parents[name], parse(self.arms[name].model), self._how(self.arms[name])) for name in names]

    def _how(self, arm: ArmEntry) -> Elicitation:
        return Elicitation(**{key: value for key, value in arm if key not in ("model", "parent")}, seed=self.seed)


def read_study(path: Path) -> StudyFile:
    """A study file.

    Raises:
        InputError: if it cannot be read, or says something it may not; the place is named.
    """
    where = printable(str(path))
    data = read_yaml(read_text(path, "a study file was expected", MAX_BYTES, pipes=True), where)
    if not isinstance(data, dict):
        raise InputError(f"{where} is no study: a mapping with baseline, arms and tasks was expected")
    try:
        return StudyFile.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        found = "" if first["type"] == "missing" else f"; found {printable(reprlib.repr(first['input']))[:80]}"
        if first["type"] == "value_error":  # a sentence of ours, which says what was found
            found = ""
        raise InputError(f"{where}: {printable(place)}: {printable(first['msg']).removeprefix('Value error, ')}{found}") from None


def tasks_of(study: StudyFile, beside: Path) -> tuple[list[tuple[Task, int | None]], dict[str, str]]:
    """(tasks with their limits, kinds by task); folders to include are looked for beside the file.

    Raises:
        InputError: on an unknown task, or one that is named twice with different limits.
    """
    include = [beside / name for name in study.include]
    found: dict[str, tuple[Task, int | None]] = {}
    kinds = {}
    for entry in study.tasks:
        for task in find_tasks([entry.use], include):
            if found.get(task.name, (task, entry.limit))[1] != entry.limit:
                raise InputError(f"the task {printable(task.name)} is named twice, with limits {found[task.name][1]} and {entry.limit}")
            found[task.name] = task, entry.limit
            if entry.kind is not None:
                kinds[task.name] = entry.kind
    return list(found.values()), kinds


def analysis_settings(entry: AnalysisEntry) -> dict[str, Any]:
    """The analysis as keyword arguments of ``aligntax.api.analysis_of``, kinds and seed aside."""
    return {
        "margin": entry.margin,
        "level": entry.level,
        "cluster": entry.cluster,
        "by": entry.by,
        "lower_is_better": entry.lower_is_better,
        "scales": entry.scales,
        "bootstrap": entry.bootstrap,
        "diversity": entry.diversity,
        "rewordings": entry.rewordings,
    }


def latency_of(entry: LatencyEntry | None, prompts: int | None, rounds: int | None) -> Latency | None:
    """What is timed: what was asked for by hand goes before what the file says; None if neither asks for it.

    Raises:
        InputError: if a number is out of range, or there are rounds of nothing.
    """
    given = prompts if prompts is not None else None if entry is None else entry.prompts
    if given is None:
        if rounds is not None:
            raise InputError("latency_rounds says how often each prompt is timed; say with latency how many prompts are")
        return None
    return Latency(given, rounds if rounds is not None else 3 if entry is None else entry.rounds)
