"""Arms, study and analysis settings: what is compared, and how. All of it is hashed into the study's identity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from aligntax.core.errors import InputError
from aligntax.core.guards import Guard, check_names
from aligntax.core.ids import digest
from aligntax.core.kinds import KINDS


class Frozen(BaseModel):
    """Base of every value object: immutable, finite, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Scale(Frozen):
    """The known range of a metric's scores, so that bounded-score methods apply."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Scale:
        if not self.low < self.high:
            raise ValueError(f"a scale runs from low to high, got {self.low} to {self.high}")
        return self


class Margin(Frozen):
    """The change that starts to matter: ``value`` in the metric's unit, or as a share of the baseline's value."""

    value: Annotated[float, Field(gt=0)]
    relative: bool = False


class Analysis(Frozen):
    """How changes are judged.

    Attributes:
        margin: None takes each kind's default.
        level: confidence level.
        cluster: column that names what was sampled or shares text (source document, passage, seed question).
        by: column that splits each task into subgroups.
        kinds: overrides of task kinds.
        lower_is_better: metrics for which less is better, whatever the logs say.
        scales: known score ranges, by metric.
        diversity: True measures how different answers are, to one prompt and across prompts; None only to one prompt, where several answers to
            it were given; False not at all.
        embedder: model whose vectors say how far texts are apart; None takes TF-IDF vectors.
        rewordings: whether the items of one cluster are rewordings of one question, whose answers should not differ.
        judge_model: identity of the model that says what was refused; None without one.
        judges: metrics of judges, by the metric of people's labels that corrects them (judge -> people).
        bootstrap: resamples of the percentile cross-check; 0 for none.
        seed: of every random draw.
    """

    margin: Margin | None = None
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    cluster: str | None = None
    by: str | None = None
    kinds: dict[str, str] = {}
    lower_is_better: tuple[str, ...] = ()
    scales: dict[str, Scale] = {}
    diversity: bool | None = None
    embedder: str | None = None
    rewordings: bool = False
    judge_model: str | None = None
    judges: dict[str, str] = {}
    bootstrap: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @model_validator(mode="after")
    def _known_kinds(self) -> Analysis:
        for task, kind in self.kinds.items():
            if kind not in KINDS:
                raise ValueError(f"kind of {task} must be one of {', '.join(KINDS)}; got {kind!r}")
        if self.embedder is not None and self.diversity is False:
            raise ValueError("an embedder measures diversity, which was left out: name one of the two")
        return self


class Elicitation(Frozen):
    """How a model is asked.

    Attributes:
        template: ``raw`` text, or ``chat`` through the model's own chat template (shots as turns of their own).
        shots: examples before the question; None takes each task's own number.
        system: system prompt; in a raw text it stands before everything else.
        max_tokens: overrides each task's budget for a reply.
        temperature, top_p: override each task's sampling. trials: how often each question is asked.
        seed: from which the draws of every item and trial are seeded.
        guards: what stands between the model and its user, in their order. instead: what the user gets in place of what they block; None where
            there are none, or for ``core.guards.INSTEAD``.
    """

    template: Literal["raw", "chat"] = "raw"
    shots: Annotated[int, Field(ge=0)] | None = None
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    trials: Annotated[int, Field(ge=1, le=10_000)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    guards: tuple[Guard, ...] = ()
    instead: str | None = None

    @model_validator(mode="after")
    def _guards_go_together(self) -> Elicitation:
        check_names(self.guards, self.instead)
        return self

    @field_validator("system")
    @classmethod
    def _is_text(cls, system: str | None) -> str | None:
        try:
            (system or "").encode()
        except UnicodeEncodeError:
            raise ValueError("a system prompt must be UTF-8 text") from None
        return system


class Arm(Frozen):
    """Who was asked. Read from logs: identified by its rows. Measured: by the content of its model and how it was asked.

    Attributes:
        name: as the ledger calls it.
        parent: the arm it was made from; None for a root.
        source: file, folder or model name (never an absolute path).
        reader: which reader understood it; ``measured`` where a model was asked.
        identity: sha256 of its rows, whatever their order; or of model and elicitation.
        elicitation: how the model was asked; None for logs.
        model: hash of the model alone, the same in all its arms; None for logs.
    """

    name: str
    parent: str | None
    source: str
    reader: str
    identity: str
    elicitation: Elicitation | None = None
    model: str | None = None


class TaskUse(Frozen):
    """A task of a measured study: its name, the hash of its items and settings, and how many items were taken (None: all)."""

    name: str
    identity: str
    limit: int | None = None


class Study(Frozen):
    """Which arms, against which baseline, judged how.

    Attributes:
        baseline: name of the arm everything is compared with.
        arms: the stage tree; the last one is what the study is about.
        analysis: how changes are judged.
        tasks: what models were asked; empty for logs.
        contrasts: pairs compared beside the edges of the tree and the totals.
    """

    baseline: str
    arms: tuple[Arm, ...]
    analysis: Analysis
    tasks: tuple[TaskUse, ...] = ()
    contrasts: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        """Hash of everything that can move a number: arms by their rows, tree, analysis. File names are left out."""
        arms = [{"name": a.name, "parent": a.parent, "identity": a.identity} for a in self.arms]
        tasks = [t.model_dump() for t in self.tasks]
        return digest({"baseline": self.baseline, "arms": arms, "analysis": self.analysis.model_dump(), "tasks": tasks})[:16]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(baseline, candidate) names compared: every edge of the tree, then the baseline to each arm, then the contrasts."""
        edges = [(a.parent, a.name) for a in self.arms if a.parent is not None]
        totals = [(self.baseline, a.name) for a in self.arms if a.name != self.baseline]
        return tuple(dict.fromkeys([*edges, *totals, *self.contrasts]))

    @property
    def candidate(self) -> str:
        """The arm that the study is about: the last one."""
        return self.arms[-1].name


def check_tree(names: list[str], parents: dict[str, str | None]) -> None:
    """Refuse a stage tree with repeated names, unknown parents or a loop.

    Raises:
        InputError: naming the arm at fault.
    """
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two arms are named {name!r}: every arm needs a name of its own")
        parent = parents[name]
        if parent is not None and parent not in names:
            raise InputError(f"stage {name!r} names the parent {parent!r}, which is not an arm; known: {', '.join(names)}")
    for name in names:
        seen, at = {name}, parents[name]
        while at is not None:
            if at in seen:
                raise InputError(f"stage {name!r} is its own ancestor: the stages must form a tree")
            seen.add(at)
            at = parents[at]
