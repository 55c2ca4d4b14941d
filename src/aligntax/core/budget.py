"""budget.yaml: the most that a release may lose, and how sure one has to be."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from aligntax.core.costs import refuse_misread
from aligntax.core.errors import InputError
from aligntax.core.files import read_text
from aligntax.core.kinds import KINDS
from aligntax.core.ledger import Entry
from aligntax.core.study import Frozen, Margin
from aligntax.core.words import cut, printable
from aligntax.core.yamlio import read_yaml

Rule = Literal["ruled_out", "not_shown"]
Quantile = Literal["p50", "p95", "p99"]


class Budget(Frozen):
    """One line of the budget.

    Attributes:
        kind, task, metric: which entries it holds; task and metric may be patterns (``xstest*``), none of them named means all.
        lose_at_most: in the metric's unit (0.01 is a point of an accuracy), or a share of the baseline's value (``5%``).
        rule: ``ruled_out``: a loss beyond that must be ruled out. ``not_shown``: it must not be shown.
        of: the quantile of a time that is held, and of whose baseline's value a share is taken; None for the mean.
    """

    lose_at_most: Margin
    kind: str | None = None
    task: str | None = None
    metric: str | None = None
    rule: Rule = "ruled_out"
    of: Quantile | None = None

    @field_validator("lose_at_most", mode="before")
    @classmethod
    def _amount(cls, given: Any) -> Any:
        share = isinstance(given, str) and given.strip().endswith("%")
        try:
            value = float(given.strip().removesuffix("%")) / 100 if share else float(given)
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise ValueError(f"must be a number such as 0.01, or a share of the baseline such as 5%; got {_shown(given)}") from None
        if isinstance(given, bool) or not 0 < value < float("inf"):
            raise ValueError(f"must be more than 0; got {_shown(given)}")
        return {"value": value, "relative": share}

    @model_validator(mode="after")
    def _known(self) -> Budget:
        if self.kind is not None and self.kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {_shown(self.kind)}")
        if self.of is not None and self.kind not in (None, "latency"):
            raise ValueError(f"of names a quantile, which is kept of the kind latency alone; got the kind {self.kind}")
        return self

    def holds(self, entry: Entry) -> bool:
        """Whether an entry falls under this line, by kind, task and metric."""
        return (
            (self.kind is None or entry.kind == self.kind)
            and (self.task is None or fnmatchcase(entry.task, self.task))
            and (self.metric is None or fnmatchcase(entry.metric, self.metric))
        )

    @property
    def named(self) -> str:
        """What it holds, in words."""
        parts = [self.kind.replace("_", " ") if self.kind else "", self.task or "", self.metric or ""]
        what = printable(", ".join(part for part in parts if part)) or "everything"
        return what if self.of is None else f"{self.of} of {what}"


class BudgetFile(Frozen):
    """The whole file. ``confidence`` is that of a two-sided interval: each rule errs at most half of the rest of the time."""

    budgets: tuple[Budget, ...] = Field(min_length=1)
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95


def read_budget(path: Path) -> BudgetFile:
    """Read budget.yaml.

    Raises:
        InputError: if it cannot be read, or says something that no budget says: which line, what was found, what is allowed.
    """
    where = printable(str(path))
    text = read_text(path, "a budget is a small text", pipes=True)
    given = read_yaml(text, where)
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is no budget: 'budgets:' with a list is expected")
    refuse_misread(text, where)
    try:
        return BudgetFile.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{where}: {_first(error)}") from None


_CHOICES = {"rule": "ruled_out or not_shown", "of": "p50, p95 or p99 (without it the mean is held)"}


def _first(error: ValidationError) -> str:
    """What is wrong, the first of it, in one sentence."""
    one = error.errors()[0]
    place = [str(p) if isinstance(p, str) else f"number {p + 1}" for p in one["loc"]]
    where = printable(", ".join(place))
    if one["type"] in ("extra_forbidden", "invalid_key"):
        place[-1] = str(one["loc"][-1])
        allowed = ", ".join((Budget if len(place) > 1 else BudgetFile).model_fields)
        return f"{printable(', '.join(place))} is not known here; allowed: {allowed}"
    if one["loc"] == ("budgets",) and one["type"] != "missing":
        return "budgets must be a list of one line and more, such as - {kind: performance, lose_at_most: 0.01}"
    if one["type"] == "missing":
        return f"{where} is missing"
    if one["type"] == "model_type":
        return f"{where} must be a mapping, such as {{kind: performance, lose_at_most: 0.01}}; got {_shown(one['input'])}"
    if one["loc"][-1] in _CHOICES:
        return f"{where} must be {_CHOICES[str(one['loc'][-1])]}; got {_shown(one['input'])}"
    if one["loc"] == ("confidence",):
        return f"confidence must be a number above 0.5 and below 1, such as 0.95; got {_shown(one['input'])}"
    said = printable(one["msg"].removeprefix("Value error, "))
    return f"{where} {said}" if said.startswith("must be") else f"{where}: {said}"


def _shown(given: Any) -> str:
    return cut(printable(repr(given)), 60)
