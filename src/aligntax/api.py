"""The public Python API: the same verbs as the command line, returning a ``Ledger``. Stands above ``report``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from pydantic import ValidationError

from aligntax.core.errors import InputError
from aligntax.core.ledger import Ledger
from aligntax.core.study import Analysis, Margin, Scale
from aligntax.core.words import printable

AnyPath = str | PathLike[str]
DEFAULT_RUNS = Path("aligntax-runs")


def diff(
    base: AnyPath,
    candidate: AnyPath,
    *,
    stages: Sequence[tuple[str, AnyPath] | tuple[str, AnyPath, str]] = (),
    names: tuple[str, str] = ("base", "candidate"),
    cluster: str | None = None,
    by: str | None = None,
    margin: float | str | None = None,
    level: float = 0.95,
    bootstrap: int = 0,
    seed: int = 0,
    kinds: Mapping[str, str] | None = None,
    lower_is_better: Sequence[str] = (),
    scales: Mapping[str, tuple[float, float]] | None = None,
    columns: Mapping[str, str] | None = None,
    out: AnyPath | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Ledger:
    """What alignment changed, from logs that are already there. Runs no model.

    Args:
        base: log of the base model: a file or folder of lm-eval or MMLU-Pro outputs, or a table (CSV, TSV, JSON lines,
            Parquet) with columns item and score.
        candidate: log of the aligned model.
        stages: (name, log) or (name, log, parent) of stages between or beside them; those without a parent stand
            between base and candidate in the order given.
        names: what to call base and candidate.
        cluster: column of what was sampled or shares text (source document, passage, seed question).
        by: column that splits every task into subgroups.
        margin: the loss that starts to matter, in the metric's unit (accuracies as fractions) or as ``"5%"`` of the
            baseline; by default each kind's own (0.01 for fractions).
        level: confidence level.
        bootstrap: resamples of a percentile cross-check; 0 for none.
        seed: of the bootstrap.
        kinds: overrides of the kind of tasks, by name or pattern.
        lower_is_better: metrics for which less is better.
        scales: known (low, high) range of a metric's scores.
        columns: names of a plain table's columns by role: item, score, task, trial, answer, outcome, metric.
        out: folder to write the run to; None writes nothing.
        progress: called with (what is being done, rows so far).

    Returns:
        The ledger: entries for every edge of the stage tree and from base to each arm.

    Raises:
        InputError: on anything wrong with the logs or with what was asked, in one sentence.
    """
    from aligntax.flow.diff import chain, diff_logs
    from aligntax.store.logs import Columns, Want

    analysis = analysis_of(margin, level, cluster, by, kinds, lower_is_better, scales, bootstrap, seed)
    unknown = set(columns or {}) - set(Columns.__dataclass_fields__)
    if unknown:
        raise InputError(f"unknown column role {', '.join(sorted(unknown))}; known: {', '.join(Columns.__dataclass_fields__)}")
    tree = chain(Path(base), Path(candidate), names, [(s[0], Path(s[1]), s[2] if len(s) > 2 else None) for s in stages])
    want = Want(cluster=cluster, by=by, columns=Columns(**(columns or {})))
    with diff_logs(tree, analysis, want, progress) as comparison:
        if out is not None:
            from aligntax.report.page import render
            from aligntax.store.run import check_target, write_run

            check_target(Path(out), comparison.study.id)
            write_run(Path(out), comparison.study, comparison.ledger, comparison.provenance, comparison.rows, lambda: render(comparison))
        return comparison.ledger


def load(run: AnyPath) -> Ledger:
    """The ledger of a run directory, its files checked against the manifest.

    Raises:
        RunError: if it is not a complete run.
    """
    from aligntax.store.run import load_run

    return load_run(Path(run)).ledger


def analysis_of(
    margin: float | str | None,
    level: float,
    cluster: str | None,
    by: str | None,
    kinds: Mapping[str, str] | None,
    lower_is_better: Sequence[str],
    scales: Mapping[str, tuple[float, float]] | None,
    bootstrap: int,
    seed: int,
) -> Analysis:
    """Settings as given by a person, checked.

    Raises:
        InputError: naming the setting, what was found and what is allowed.
    """
    if isinstance(margin, float | int) and not margin > 0:
        raise InputError(f"margin must be greater than 0, got {margin}: with a margin of 0 nothing could be ruled out")
    try:
        return Analysis(
            margin=parse_margin(margin),
            level=level,
            cluster=cluster,
            by=by,
            kinds=dict(kinds or {}),
            lower_is_better=tuple(lower_is_better),
            scales={metric: Scale(low=low, high=high) for metric, (low, high) in (scales or {}).items()},
            bootstrap=bootstrap,
            seed=seed,
        )
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        got = "" if "got" in message else f", got {printable(repr(first['input']))[:80]}"
        raise InputError(f"{place + ': ' if place else ''}{message}{got}") from None


def parse_margin(margin: float | str | None) -> Margin | None:
    """A margin in the metric's unit, or a share of the baseline as ``"5%"``.

    Raises:
        InputError: if it is not a positive number.
    """
    if margin is None:
        return None
    text = str(margin).strip()
    relative = text.endswith("%")
    try:
        value = float(text.removesuffix("%")) / (100 if relative else 1)
    except ValueError:
        value = float("nan")
    if not 0 < value < float("inf"):
        raise InputError(
            f"margin must be a number greater than 0 (0.01 is one point of an accuracy) or a share like 5%, got {printable(repr(text))}"
        )
    return Margin(value=value, relative=relative)
