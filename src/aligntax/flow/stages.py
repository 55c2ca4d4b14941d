"""A stage tree's accounts: along every path from a root to a leaf what each stage changed, kept and gave back; and the worst cell of all.

Shares add up and retentions multiply up exactly, since the entries of a path rest on the same items: total = sum of v_k - v_(k-1), and
v_K / v_0 = product of v_k / v_(k-1). A refund is what a stage wins back of what the stages before it had lost: later stages often do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from aligntax.core.explain import main_entries
from aligntax.core.ledger import AVERAGES, Entry, Ledger
from aligntax.core.study import Study
from aligntax.flow.exchange import few_sources
from aligntax.flow.inversion import benefit
from aligntax.stats.multiplicity import holm


@dataclass(frozen=True)
class Step:
    """One edge of a path.

    Attributes:
        entry: the comparison of the edge.
        change: of the value, in the metric's unit.
        retained: value over the value before; None where that is not above 0, the value is below it, or less is better.
        refund: how much of the loss before it is won back; 0 where there was none.
    """

    entry: Entry
    change: float
    retained: float | None
    refund: float


@dataclass(frozen=True)
class Account:
    """One quantity along one path: ``values`` of its arms, one step less than those."""

    path: tuple[str, ...]
    task: str
    metric: str
    kind: str
    unit: str
    values: tuple[float, ...]
    steps: tuple[Step, ...]

    @property
    def total(self) -> float:
        return self.values[-1] - self.values[0]

    @property
    def retained(self) -> float | None:
        """The last value over the first; None where a step has none."""
        return None if any(step.retained is None for step in self.steps) else self.values[-1] / self.values[0]

    @property
    def refunded(self) -> float:
        return sum(step.refund for step in self.steps)


@dataclass(frozen=True)
class Cell:
    """One task on one edge; ``q`` is the p of no change, Holm-adjusted over all cells of the tree, None where there is no test or too few sources for a
    verdict.
    """

    entry: Entry
    q: float | None


def paths(study: Study) -> list[tuple[str, ...]]:
    """From the root to every leaf, of two edges and more."""
    parents = {arm.name: arm.parent for arm in study.arms}
    leaves = [arm.name for arm in study.arms if arm.name not in parents.values()]

    def up(name: str | None) -> Iterator[str]:
        while name is not None:
            yield name
            name = parents[name]

    found = [tuple(reversed(list(up(leaf)))) for leaf in leaves]
    return [path for path in found if len(path) > 2]


def accounts(study: Study, ledger: Ledger) -> list[Account]:
    """Every task and average along every path that has all its edges; divergences and differences of extractors are left out."""
    cells: dict[tuple[tuple[str, str], str, str, str], Entry] = {
        (e.pair, e.kind, e.metric, e.task): e for e in main_entries(ledger) if e.kind not in ("divergence", "format")
    }
    keys = list(dict.fromkeys(key[1:] for key in cells))
    return [one for path in paths(study) for key in keys if (one := _account(path, key, cells)) is not None]


def _account(
    path: tuple[str, ...], key: tuple[str, str, str], cells: Mapping[tuple[tuple[str, str], str, str, str], Entry]
) -> Account | None:
    kind, metric, task = key
    edges = [cells.get((pair, kind, metric, task)) for pair in pairwise(path)]
    found = [e for e in edges if e is not None and e.baseline_value is not None and e.candidate_value is not None]
    if len(found) < len(edges):
        return None
    values = [found[0].baseline_value, *(e.candidate_value for e in found)]
    steps, lost = [], 0.0
    for entry, (before, after) in zip(found, pairwise(values), strict=True):
        assert before is not None
        assert after is not None
        change = after - before
        won = benefit(entry) * change
        refund = min(won, lost) if won > 0 else 0.0
        lost = max(0.0, lost - won)
        share = after / before if before > 0 and after >= 0 and entry.higher_is_better is not False else None
        steps.append(Step(entry, change, share, refund))
    return Account(path, task, metric, kind, found[0].unit, tuple(v for v in values if v is not None), tuple(steps))


def cells(study: Study, ledger: Ledger) -> list[Cell]:
    """Every task on every edge, its p adjusted over all of them: looking for the worst of many cells finds one by chance."""
    edges = {(arm.parent, arm.name) for arm in study.arms if arm.parent is not None}
    found = [e for e in main_entries(ledger) if e.pair in edges and e.verdict is not None and e.kind != "format" and e.task not in AVERAGES]
    tested = [e for e in found if e.p_value is not None and not few_sources(e)]
    adjusted = dict(zip(map(id, tested), holm([e.p_value or 0.0 for e in tested]), strict=True))
    return [Cell(e, adjusted.get(id(e))) for e in found]


def worst(found: list[Cell], unit: str = "fraction") -> Cell | None:
    """The cell of ``unit`` that lost most, established or not; None if none lost."""
    lost = [cell for cell in found if cell.entry.unit == unit and (cell.entry.cost or 0.0) > 0]
    return max(lost, key=lambda cell: cell.entry.cost or 0.0, default=None)


def losses_of_safety(found: list[Cell]) -> list[Cell]:
    """Cells of safety that lost, the largest first."""
    return sorted(
        (cell for cell in found if cell.entry.kind == "safety" and (cell.entry.cost or 0.0) > 0), key=lambda cell: -(cell.entry.cost or 0.0)
    )
