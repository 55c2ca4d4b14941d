"""The ledger: one entry per change measured, each with its interval, verdict, outcomes and doubts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from pydantic import Field, ValidationError, field_validator

from aligntax.core.errors import MissingExtraError, RunError
from aligntax.core.kinds import BESIDE, Kind
from aligntax.core.study import Frozen
from aligntax.core.tables import entry_rows, html_table, text_table

if TYPE_CHECKING:
    from types import ModuleType

SCHEMA = 1

Method = Literal["score", "score-trials", "score-clustered", "t", "t-clustered", "unpaired", "none"]
METHODS: tuple[str, ...] = get_args(Method)
VerdictName = Literal["tax", "gain", "no_tax", "undetermined"]
Detail = float | int | None | list[float | None]

MEAN_OVER_TASKS = "mean over tasks"
MEAN_OVER_ITEMS = "mean over items"
AVERAGES = frozenset({MEAN_OVER_TASKS, MEAN_OVER_ITEMS})


class Entry(Frozen):
    """What changed in one metric of one task between two arms. Null means unknown or not applicable, never 0.

    Attributes:
        kind: what sort of cost or benefit this is (``aligntax.core.kinds``).
        task: task name; a subgroup is ``task/label``.
        metric, unit, higher_is_better: the metric's key, its unit, its direction (None if unknown).
        baseline, candidate: arm names.
        n: paired items. clusters: sources they come from, None without a cluster column.
        baseline_value, candidate_value: means over the paired items. change: candidate - baseline.
        cost: the change signed so that positive is worse.
        se, ci_low, ci_high, p_value: of the change, by ``method`` at confidence ``level``.
        p_adjusted: Holm over the family; None in a family of one.
        margin: the loss that would matter. verdict: tax, gain, no_tax or undetermined.
        outcomes: per arm, how many samples had each outcome; they add up to the plan.
        details: further statistics by name (docs/methods.md). checks: doubts in words.
    """

    kind: Kind
    task: str
    metric: str
    unit: str
    higher_is_better: bool | None
    baseline: str
    candidate: str
    n: int = Field(ge=0)
    clusters: int | None = Field(ge=0)
    baseline_value: float | None
    candidate_value: float | None
    change: float | None
    cost: float | None
    se: float | None
    level: float
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    p_adjusted: float | None
    method: Method
    margin: float | None
    verdict: VerdictName | None
    outcomes: dict[str, dict[str, int]]
    details: dict[str, Detail]
    checks: tuple[str, ...]

    @field_validator("details")
    @classmethod
    def _finite(cls, details: dict[str, Detail]) -> dict[str, Detail]:
        for key, value in details.items():
            numbers = value if isinstance(value, list) else [value]
            if any(isinstance(x, float) and (x != x or abs(x) == float("inf")) for x in numbers):
                raise ValueError(f"detail {key} is not finite: {value!r}")
        return details

    @property
    def pair(self) -> tuple[str, str]:
        return self.baseline, self.candidate

    def detail(self, key: str) -> float | None:
        """A single-number detail; None where absent or null."""
        value = self.details.get(key)
        return None if value is None or isinstance(value, list) else float(value)


class Ledger(Frozen):
    """The table of entries of one study. Iterates over them, prints as a table, becomes a data frame."""

    study: str
    baseline: str
    entries: tuple[Entry, ...]

    def __iter__(self) -> Iterator[Entry]:  # type: ignore[override]
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Entry: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Entry, ...]: ...

    def __getitem__(self, index: int | slice) -> Entry | tuple[Entry, ...]:
        return self.entries[index]

    def find(self, task: str, metric: str | None = None, candidate: str | None = None, baseline: str | None = None) -> Entry:
        """The one entry with these keys; None matches anything. Without a metric, a task's own score goes before what is measured beside it
        (calibration, consistency, diversity, latency, format, divergence) or made of its answers (refusals by rule, corrected judges).

        Raises:
            KeyError: if no entry or more than one fits.
        """
        wanted = {"task": task, "metric": metric, "candidate": candidate, "baseline": baseline}
        fits = [e for e in self if all(v is None or getattr(e, k) == v for k, v in wanted.items())]
        if metric is None and len(fits) > 1:
            fits = [e for e in fits if e.kind not in BESIDE and "derived" not in e.details] or fits
        if len(fits) != 1:
            tasks = ", ".join(dict.fromkeys(f"{e.task} ({e.metric}, {e.baseline} -> {e.candidate})" for e in self))
            raise KeyError(f"{len(fits)} entries fit {wanted}; the ledger has: {tasks}")
        return fits[0]

    def to_dict(self) -> dict[str, Any]:
        """The content of ledger.json."""
        return {
            "schema": SCHEMA,
            "study": self.study,
            "baseline": self.baseline,
            "entries": [entry.model_dump(mode="json") for entry in self],
        }

    def to_json(self) -> str:
        """ledger.json: an export for other programs (the Parquet file is the record)."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "ledger") -> Ledger:
        """Read what ``to_dict`` wrote.

        Raises:
            RunError: if it is not a ledger of this schema; ``where`` names the file in the message.
        """
        if data.get("schema") != SCHEMA:
            raise RunError(f"{where} has ledger schema {data.get('schema')!r}; this version reads schema {SCHEMA}")
        try:
            return cls(study=data["study"], baseline=data["baseline"], entries=data["entries"])
        except (KeyError, ValidationError) as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else {"loc": error.args, "msg": "missing"}
            place = ".".join(str(part) for part in first["loc"])
            raise RunError(f"{where} is not a ledger: {place}: {first['msg']}") from None

    def to_frame(self) -> Any:
        """The entries as a pandas or polars data frame, whichever is installed (pandas first).

        ``outcomes``, ``details`` and ``checks`` stay nested objects in their columns.

        Raises:
            MissingExtraError: if neither is installed.
        """
        rows = [entry.model_dump() for entry in self]
        module = _frame_library()
        return module.DataFrame(rows)

    def __str__(self) -> str:
        return text_table(entry_rows(self.entries))

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html_table(entry_rows(self.entries))


def _frame_library() -> ModuleType:
    for name in ("pandas", "polars"):
        try:
            return __import__(name)
        except ImportError:
            continue
    raise MissingExtraError("Neither pandas nor polars, one of which to_frame() needs,", "frames")
