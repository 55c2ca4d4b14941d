"""A run directory opened again as a comparison, for flips and for rendering its report once more."""

from __future__ import annotations

from pathlib import Path

from aligntax.core.ledger import Ledger
from aligntax.flow.diff import Comparison, metric_tables
from aligntax.store.logs import LogFacts
from aligntax.store.run import StoredRun, load_rows, load_run


def load(path: Path) -> StoredRun:
    """A complete run directory.

    Raises:
        RunError: if it is not one.
    """
    return load_run(path)


def reopen(run: StoredRun) -> Comparison:
    """The comparison behind a stored run: its ledger as recorded, its rows for the flips."""
    rows = load_rows(run)
    items = rows.items()
    tables = metric_tables(run.study, items, rows, [recorded(run.ledger)])
    return Comparison(run.study, run.ledger, run.provenance, rows, tables, items)


def recorded(ledger: Ledger) -> LogFacts:
    """Directions as the ledger recorded them."""
    return LogFacts(higher_is_better={(e.task, e.metric): e.higher_is_better for e in ledger if e.higher_is_better is not None})
