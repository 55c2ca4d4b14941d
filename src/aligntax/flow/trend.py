"""Scale: does the tax shrink or grow with the size of the model?

From runs (one per size, each its baseline to its candidate), or from a published table with a model of several sizes. The change is fitted on
log10 of the size (``stats.trend``). What is compared across sizes must be the same thing: the same tasks, asked the same way. Changes of several
protocols (prompt styles, shots) of a published table are never averaged together: the sign of a tax can depend on it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import isfinite, log10, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aligntax.core.errors import InputError
from aligntax.core.explain import is_not_alike
from aligntax.core.ledger import AVERAGES, MEAN_OVER_TASKS, Entry
from aligntax.core.words import change_number, change_unit, cut, decimals_for, level_text, number, p_text, printable
from aligntax.flow.exchange import few_sources, quantities, sampling_error, tasks_behind
from aligntax.flow.inversion import benefit
from aligntax.stats.paired import critical_value
from aligntax.stats.trend import MIN_POINTS, Trend, fit_trend
from aligntax.store.jsonio import opened
from aligntax.store.readers.tables_of_results import Table, tables_of

if TYPE_CHECKING:
    from aligntax.core.study import Study
    from aligntax.store.run import StoredRun

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBT])", re.I)
# In a name, K counts the tokens of a context or the samples of a data set (128k), T the tokens of training: neither is a size.
_SIZE_IN_NAME = re.compile(r"(?<![0-9A-Za-z.])(\d+(?:\.\d+)?)\s*([MB])(?![0-9A-Za-z])", re.I)
_UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_UNEQUAL_ERRORS = 4.0


@dataclass(frozen=True)
class SizePoint:
    """One size.

    Attributes:
        name: the run or row.
        size: of the model, in parameters.
        change: candidate less baseline in the direction of benefit: less than 0 is a loss.
        se: its standard error, None if that is not known.
        low, high: its interval; None if that is not known.
    """

    name: str
    size: float
    change: float
    se: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SizeTrend:
    """A tax against size.

    Attributes:
        what: the quantity in words.
        unit: of the changes.
        points: by size, the smallest first.
        fit: the line through them, on log10 of the size.
        notes: how the points were made.
        doubts: what to mind.
    """

    what: str
    unit: str
    points: tuple[SizePoint, ...]
    fit: Trend
    notes: tuple[str, ...]
    doubts: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What is established of the loss: where it shrinks, it goes towards 0 as the model grows. A loss that becomes a gain is one for certain at the
        one end and a gain for certain at the other.
        """
        if not self.fit.slope_p < 1 - self.fit.level:
            return "no trend shown"
        ends = [self.at(p.size) for p in (self.points[0], self.points[-1])]
        if ends[0][0] * ends[1][0] < 0 and any(low <= 0 <= high for _, low, high in ends):
            return f"the change moves from {'loss towards gain' if self.fit.slope > 0 else 'gain towards loss'} with size"
        return direction(-ends[0][0], -ends[1][0])

    def at(self, size: float) -> tuple[float, float, float]:
        """The line at a size, and its limits there, in the direction of benefit."""
        return self.fit.at(log10(size))


def direction(first: float, last: float) -> str:
    """What the loss does on the way from ``first``, at the smallest size, to ``last``, at the largest; a gain is a loss below 0."""
    if first == last:
        return "the change stays the same"
    if first >= 0 and last >= 0:
        return "the loss shrinks with size" if last < first else "the loss grows with size"
    if first <= 0 and last <= 0:
        return "the gain grows with size" if last < first else "the gain shrinks with size"
    return "the loss shrinks with size and becomes a gain" if last < first else "the gain shrinks with size and becomes a loss"


def size_in(name: str) -> float | None:
    """The size that a name tells in millions or billions, such as 8e9 of ``Tulu-3-8B/SFT``; None where it tells none or several (``8x7B`` tells none)."""
    found = {float(amount) * _UNITS[unit.upper()] for amount, unit in _SIZE_IN_NAME.findall(name)}
    return found.pop() if len(found) == 1 else None


def parse_size(text: str) -> float:
    """A number of parameters: ``1300000000``, ``1.3e9`` or ``1.3B``.

    Raises:
        InputError: if it is none.
    """
    told = _SIZE.fullmatch(text.strip())
    try:
        size = float(told[1]) * _UNITS[told[2].upper()] if told else float(text)
    except ValueError:
        size = float("nan")
    if not (isfinite(size) and size > 0):
        raise InputError(f"a size is a number of parameters such as 1300000000, 1.3e9 or 1.3B; got {printable(repr(cut(text, 40)))}")
    return size


# -- from runs ----------------------------------------------------------------------------------------------------------------------------


def trend_of_runs(
    runs: Sequence[tuple[str, StoredRun]],
    sizes: Mapping[str, float],
    *,
    kind: str = "performance",
    task: str | None = None,
    metric: str | None = None,
    template: str | None = None,
    level: float = 0.95,
) -> SizeTrend:
    """The change from each run's baseline to its candidate, against size.

    Args:
        runs: (name, run); names are those of ``sizes``.
        sizes: parameters of the runs' models; where a run is not named, what was counted when they were loaded, or what their names tell.
        kind: of which the mean over tasks is taken, or its only task.
        task: one task instead.
        metric: where several have one.
        template: ``raw`` or ``chat``: baseline's and candidate's models both asked so, where a run asked them both ways.
        level: confidence level.

    Raises:
        InputError: if runs measured different things, a size is not known, or there are fewer than three sizes.
    """
    unknown = [name for name in sizes if name not in {name for name, _ in runs}]
    if unknown:
        raise InputError(
            f"--size names {printable(repr(unknown[0]))}, which is no run here; runs: {printable(', '.join(n for n, _ in runs))}"
        )
    found = [(name, run, _entry(name, run, _pair(name, run.study, template), kind, task, metric)) for name, run in runs]
    _refuse_twice(found)
    _refuse_unlike(found)
    notes, doubts, points = [], [], []
    for name, run, entry in found:
        size, how = (sizes[name], "") if name in sizes else size_of_run(name, run)
        if how:
            notes.append(f"{printable(name)}: size {size_text(size)} {how}")
        sign, error = benefit(entry), sampling_error(entry)
        limits = (None, None) if entry.ci_low is None or entry.ci_high is None else sorted((sign * entry.ci_low, sign * entry.ci_high))
        points.append(SizePoint(name, size, sign * (entry.change or 0.0), None if error is None else error[0], limits[0], limits[1]))
    first, first_study = found[0][2], found[0][1].study
    unlike = [name for name, run, entry in found if _asked_unlike(run, entry)]
    if unlike:
        doubts.append(
            f"baseline and candidate were not asked alike in {printable(', '.join(unlike))}: the change mixes model and way of asking"
        )
    numbers = {entry.n for _, _, entry in found}
    if len(numbers) > 1 and not first_study.tasks:
        doubts.append(f"the logs hold {min(numbers):,} to {max(numbers):,} items: whether they are the same at every size is not known")
    few = [name for name, _, entry in found if few_sources(entry)]
    if few:
        doubts.append(f"too few sources for a verdict, and so an error that is hardly known: {printable(', '.join(few))}")
    return _fitted(f"{first.kind.replace('_', ' ')}: {first.task} ({first.metric})", first.unit, points, level, notes, doubts)


def size_of_run(name: str, run: StoredRun) -> tuple[float, str]:
    """The size of a run's models and how it is known: counted when they were loaded, or read from a name; the candidate's before the baseline's.

    Raises:
        InputError: if nothing tells it.
    """
    arms = {arm.name: arm for arm in run.study.arms}
    pair = [arms[run.study.candidate], arms[run.study.baseline]]
    for arm in pair:
        size = _counted(run, arm.name)
        if size is not None:
            return size, f"(parameters of {printable(arm.source)})"
    for text in (text for arm in pair for text in (arm.source, arm.name)):
        size = size_in(text)
        if size is not None:
            return size, f"(read from the name {printable(text)})"
    raise InputError(f"the size of the models of {printable(name)} is not known: name it with --size {printable(name)}=NUMBER")


def _counted(run: StoredRun, arm: str) -> float | None:
    """The number of parameters that provenance has of a model that was loaded here."""
    at: object = run.provenance
    for key in ("arms", arm, "settings", "model", "parameters"):
        at = at.get(key) if isinstance(at, dict) else None
    return float(at) if isinstance(at, int) and not isinstance(at, bool) and at > 0 else None


def _pair(name: str, study: Study, template: str | None) -> tuple[str, str]:
    """The study's baseline and candidate, or the arms in which their models were asked by a template."""
    if template is None:
        return study.baseline, study.candidate
    arms = {arm.name: arm for arm in study.arms}
    found = []
    for end in (arms[study.baseline], arms[study.candidate]):
        same = [a for a in study.arms if a.elicitation is not None and a.model == end.model and a.elicitation.template == template]
        if len(same) > 1:
            raise InputError(
                f"{printable(name)} asked {printable(end.source)} with the template {printable(repr(template))} in several arms "
                f"({printable(', '.join(a.name for a in same))}), which differ in something else; leave --template out"
            )
        if not same:
            raise InputError(
                f"{printable(name)} has no arm in which {printable(end.source)} was asked with the template {printable(repr(template))}"
            )
        found.append(same[0].name)
    return found[0], found[1]


def _asked_unlike(run: StoredRun, entry: Entry) -> bool:
    """Whether baseline and candidate were asked in different ways, as far as is known."""
    how = [arm.elicitation for arm in run.study.arms if arm.name in entry.pair]
    return how[0] != how[1] or any(map(is_not_alike, entry.checks))


def _entry(name: str, run: StoredRun, pair: tuple[str, str], kind: str, task: str | None, metric: str | None) -> Entry:
    """The one change of a run that was asked for."""
    if task is not None:
        of = [e for e in run.ledger if e.pair == pair and e.task == task and e.change is not None and e.kind != "divergence"]
        of = [e for e in of if e.kind == kind] if len({e.kind for e in of}) > 1 else of
    else:
        of = [e for e in quantities(run.ledger, pair) if e.kind == kind]
        means = [e for e in of if e.task == MEAN_OVER_TASKS]
        of = means or of
    of = [e for e in of if metric is None or e.metric == metric]
    if len(of) == 1:
        return of[0]
    what = f"{task if task is not None else kind}{'' if metric is None else f' ({metric})'}"
    where = f"{printable(name)} ({printable(pair[0])} to {printable(pair[1])})"
    if not of:
        known = dict.fromkeys(f"{e.kind}: {e.task} ({e.metric})" for e in quantities(run.ledger, pair))
        raise InputError(f"{where} has no change of {printable(what)}; it has: {cut(printable('; '.join(known)), 600) or 'nothing'}")
    many = dict.fromkeys(f"{e.task} ({e.metric})" for e in of)
    raise InputError(
        f"{where} has several changes of {printable(what)} and no mean over them; name one with --task or --metric: {cut(printable('; '.join(many)), 600)}"
    )


def _refuse_twice(found: Sequence[tuple[str, StoredRun, Entry]]) -> None:
    """Refuse a run that is given twice, or copied: the same answers are not two sizes.

    Raises:
        InputError: naming both.
    """
    seen: dict[tuple[str, ...], str] = {}
    for name, run, entry in found:
        identities = {arm.name: arm.identity for arm in run.study.arms}
        other = seen.setdefault(tuple(identities[arm] for arm in entry.pair), name)
        if other != name:
            raise InputError(f"{printable(other)} and {printable(name)} hold the same answers; each size needs a run of its own")


def _refuse_unlike(found: Sequence[tuple[str, StoredRun, Entry]]) -> None:
    """Refuse runs that did not measure the same thing in the same way.

    Raises:
        InputError: naming two runs and in what they differ.
    """
    name, run, entry = found[0]
    alike = _what(run, entry)
    for other, its_run, its_entry in found[1:]:
        for said, value in _what(its_run, its_entry).items():
            if value != alike[said]:
                raise InputError(
                    f"{printable(name)} and {printable(other)} did not measure the same thing: {said} {cut(printable(str(alike[said])), 300)} and "
                    f"{cut(printable(str(value)), 300)}; a trend needs the same at every size"
                )


def _what(run: StoredRun, entry: Entry) -> dict[str, object]:
    arms = {arm.name: arm.elicitation for arm in run.study.arms}
    tasks = sorted(tasks_behind(run.ledger, entry)) if entry.task in AVERAGES else [entry.task]
    asked = {t.name: (t.identity, t.limit) for t in run.study.tasks if t.name in tasks}
    return {
        "unit": entry.unit,
        "metric": entry.metric,
        "better side": "less" if benefit(entry) < 0 else "more",
        "tasks": ", ".join(tasks),
        "items of the tasks": sorted(asked.items()),
        "ways of asking": " to ".join("unknown" if (how := arms[name]) is None else how.model_dump_json() for name in entry.pair),
    }


# -- from a published table -----------------------------------------------------------------------------------------------------------------


def trend_of_table(
    path: Path, baseline: str, candidate: str, tasks: Sequence[str], sizes: Mapping[str, float], *, level: float = 0.95
) -> SizeTrend:
    """Mean change over benchmarks of a published table, against size; errors are known where every cell has one.

    Args:
        path: a table that ``aligntax diff`` reads.
        baseline: rows' names with one ``*`` for what tells sizes apart, such as ``GPT/*``.
        candidate: the same, such as ``PPO/*``.
        tasks: names or patterns of benchmarks, such as ``*/few-shot``; none for all.
        sizes: parameters by what stands for ``*``; where it is not named, what it tells itself (``1.3B``).
        level: confidence level.

    Every benchmark has the same weight, and its change is in points: one of which no value lies outside [0, 1] is taken for a fraction. Values are
    known to their last printed digit: a scatter below what rounding makes is none.

    Raises:
        InputError: if the benchmarks were asked under several protocols, nothing fits, a cell stands twice, or there are fewer than three sizes.
    """
    tables = tables_of(path)
    if tables is None or len(tables) != 1:
        raise InputError(
            f"{printable(str(path))} is no table of published results with several models; 'aligntax diff' names what it reads"
        )
    cells = {arm: {name: cell.value for name, cell in of.items()} for arm, of in tables[0].cells.items()}
    pairs = _rungs(path, list(cells), baseline, candidate)
    _refuse_unknown_sizes(sizes, [rung for rung, _, _ in pairs])
    common = [name for name in cells[pairs[0][1]] if all(name in cells[arm] for _, a, b in pairs for arm in (a, b))]
    every = list(dict.fromkeys(name for _, a, b in pairs for arm in (a, b) for name in cells[arm]))
    wanted = [name for name in every if not tasks or any(name == one or fnmatchcase(name, one) for one in tasks)]
    chosen = [name for name in wanted if name in common]
    if not chosen:
        raise InputError(
            f"no benchmark that every size has fits {printable(', '.join(tasks) or 'all')}; there are: {cut(printable(', '.join(every)), 600)}"
        )
    _refuse_protocols(path, chosen)
    _refuse_doubled(path, tables[0], {arm for _, a, b in pairs for arm in (a, b)}, chosen)
    fractions = {name for name in chosen if all(0 <= of[name] <= 1 for of in cells.values() if name in of)}
    lower = {name for _, name in tables[0].inverted}
    points = []
    for rung, a, b in pairs:
        changes = [(100 if n in fractions else 1) * (-1 if n in lower else 1) * (cells[b][n] - cells[a][n]) for n in chosen]
        size = sizes.get(rung) or size_in(rung)
        if size is None:
            raise InputError(f"the size of {printable(repr(rung))} is not known: name it with --size {printable(rung)}=NUMBER")
        change, error = sum(changes) / len(changes), _printed_error(tables[0], (a, b), chosen, fractions)
        half = None if error is None else critical_value(level, None) * error
        points.append(
            SizePoint(rung, size, change, error, None if half is None else change - half, None if half is None else change + half)
        )
    notes, doubts = [], []
    if all(p.se is not None for p in points):
        notes.append(
            "errors as printed; those of baseline and candidate are taken as independent, which makes them larger where the items are the same"
        )
    if len(chosen) > 1:
        notes.append(f"mean of {len(chosen)} benchmarks, each the same weight: {printable(', '.join(chosen))}")
    if fractions:
        notes.append(f"taken for fractions and multiplied by 100: {printable(', '.join(n for n in chosen if n in fractions))}")
    if left := [name for name in wanted if name not in common]:
        doubts.append(f"left out, since not every size has it: {cut(printable(', '.join(left)), 300)}")
    if lower & set(chosen):
        notes.append(f"less is better, and counted so: {printable(', '.join(n for n in chosen if n in lower))}")
    what = f"{baseline} to {candidate}, {chosen[0] if len(chosen) == 1 else f'mean of {len(chosen)} benchmarks'}"
    # A printed value is off by up to half a unit of its last digit, evenly: a variance of unit^2/12. Files drop zeros at the end of a number.
    units = [(100 if n in fractions else 1) * min(of[n].unit for of in tables[0].cells.values() if n in of) for n in chosen]
    rounding = sqrt(2 * sum(u * u for u in units) / 12) / len(chosen)
    return _fitted(what, "points", points, level, notes, doubts, rounding)


def _printed_error(table: Table, arms: tuple[str, str], chosen: Sequence[str], fractions: Container[str]) -> float | None:
    """The standard error of a pair's mean change by the errors printed after ±; None where a cell has none."""
    errors = [(100 if n in fractions else 1) * (table.cells[arm][n].error or 0.0) for arm in arms for n in chosen]
    return sqrt(sum(e * e for e in errors)) / len(chosen) if all(e > 0 for e in errors) else None


def _refuse_unknown_sizes(sizes: Mapping[str, float], rungs: Sequence[str]) -> None:
    unknown = next((name for name in sizes if name not in rungs), None)
    if unknown is not None:
        raise InputError(
            f"--size names {printable(repr(unknown))}, which stands for * in no pair of rows; there are: {printable(', '.join(rungs))}"
        )


def _refuse_doubled(path: Path, table: Table, arms: Container[str], chosen: Sequence[str]) -> None:
    """Refuse cells that stand twice with different values: a table of several protocols that its reader cannot tell apart.

    Raises:
        InputError: naming one.
    """
    for arm, name, one, other in table.twice:
        if arm in arms and name in chosen:
            raise InputError(
                f"{printable(str(path))}: {printable(name)} of {printable(arm)} stands twice, with {printable(one)} and {printable(other)}; "
                "leave one of the rows out"
            )


def _rungs(path: Path, arms: Sequence[str], baseline: str, candidate: str) -> list[tuple[str, str, str]]:
    """(what stands for ``*``, baseline's row, candidate's row) of every size that has both."""
    found = []
    for pattern in (baseline, candidate):
        if pattern.count("*") != 1:
            raise InputError(f"--base and --candidate name rows with one * for the size, such as 'GPT/*'; got {printable(repr(pattern))}")
        before, after = pattern.split("*")
        of = {
            arm[len(before) : len(arm) - len(after)]: arm
            for arm in arms
            if arm.startswith(before) and arm.endswith(after) and len(arm) > len(before) + len(after)
        }
        found.append(of)
    if baseline == candidate:
        raise InputError(f"--base and --candidate name the same rows, {printable(repr(baseline))}; name two")
    both = [(rung, found[0][rung], found[1][rung]) for rung in found[0] if rung in found[1]]
    if not both:
        raise InputError(
            f"{printable(str(path))} has no rows {printable(repr(baseline))} and {printable(repr(candidate))} that agree in *; "
            f"its rows: {cut(printable(', '.join(arms)), 600) or 'none'}"
        )
    return both


def _refuse_protocols(path: Path, chosen: Sequence[str]) -> None:
    """Refuse to average over several protocols: the reader sets a table's column ``prompt`` behind the benchmark's name.

    Raises:
        InputError: naming the protocols.
    """
    protocols: dict[str, int] = {}
    prompts = sorted(_prompts(path), key=len, reverse=True)
    for name in chosen:
        told = next((prompt for prompt in prompts if name.endswith(f"/{prompt}")), "none named")
        protocols[told] = protocols.get(told, 0) + 1
    if len(protocols) > 1:
        said = ", ".join(f"{name} ({n} benchmarks)" for name, n in protocols.items())
        raise InputError(
            f"{printable(str(path))}: the average would mix protocols: {printable(said)}; choose one, as --task '*/{printable(next(iter(protocols)))}'"
        )


def _prompts(path: Path) -> set[str]:
    found: set[str] = set()
    with opened(path) as streams:
        for _, stream in streams:
            for row in csv.DictReader(stream):
                found |= {(value or "").strip() for key, value in row.items() if (key or "").strip() == "prompt"} - {""}
    return found


# -- both -----------------------------------------------------------------------------------------------------------------------------------


def _fitted(
    what: str, unit: str, points: Sequence[SizePoint], level: float, notes: Sequence[str], doubts: Sequence[str], rounding: float = 0.0
) -> SizeTrend:
    ordered = sorted(points, key=lambda p: p.size)
    if len({p.size for p in ordered}) < MIN_POINTS:
        said = ", ".join(f"{p.name} ({size_text(p.size)})" for p in ordered)
        raise InputError(f"a trend needs {MIN_POINTS} sizes or more, got {printable(said)}: through two points a line always fits")
    errors = [p.se for p in ordered if p.se is not None]
    known = len(errors) == len(ordered)
    se = np.array(errors) if known else None
    fit = fit_trend(np.array([log10(p.size) for p in ordered]), np.array([p.change for p in ordered]), se, level=level, rounding=rounding)
    told = list(doubts)
    if not known:
        which = "the changes" if not errors else f"{', '.join(printable(p.name) for p in ordered if p.se is None)}, and so none are used"
        told.append(f"no errors are known of {which}: the interval rests on the scatter about the line alone")
        if 0 < fit.scale <= rounding**2:
            told.append("the points lie on the line as far as the printed digits tell: the interval is what rounding leaves open")
    elif max(errors) > _UNEQUAL_ERRORS * min(errors):
        told.append(
            f"some errors are more than {_UNEQUAL_ERRORS:g} times as large as others: the interval may hold less than it says (87 % in simulations)"
        )
    if fit.df <= 2:
        few = "1 degree of freedom" if fit.df == 1 else f"{fit.df} degrees of freedom"
        told.append(
            f"{len(ordered)} sizes leave {few}: the interval is very wide, unless the points lie on a line, as few points may do by luck"
        )
    return SizeTrend(what, unit, tuple(ordered), fit, tuple(notes), tuple(told))


def size_text(size: float) -> str:
    """A number of parameters, for example ``1.3B`` or ``62K``."""
    for unit, factor in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if size >= factor:
            return f"{size / factor:.3g}{unit}"
    return f"{size:.6g}"


def trend_sentences(found: SizeTrend) -> list[str]:
    """What the line says, and what it leaves open."""
    low, high = found.fit.slope_interval
    se, unit = found.fit.slope_se, found.unit
    slope = change_number(found.fit.slope, unit, se)
    span = f"{level_text(found.fit.level)} interval {change_number(low, unit, se)} to {change_number(high, unit, se)}"
    first, last = found.points[0], found.points[-1]
    verdict = found.verdict
    if verdict == "no trend shown":
        seen = direction(-first.change, -last.change)
        verdict = f"no trend shown; from the smallest size to the largest {seen}, as measured"
    ends = ", ".join(f"{change_number(p.change, unit, digits_of(found, p))} at {size_text(p.size)}" for p in (first, last))
    out = [
        f"{printable(found.what)}: {verdict} ({ends}, {change_unit(unit)}).",
        f"With ten times the size the change moves by {slope} {change_unit(unit)} ({span}; p {p_text(found.fit.slope_p)}; {len(found.points)} sizes).",
    ]
    if found.fit.tau2:
        out.append(f"Sizes differ from the line by {_sd(found)} beyond their errors.")
    return out


def digits_of(found: SizeTrend, point: SizePoint) -> float | None:
    """The error that decides how many digits a point is shown with; hundredths of a point where none is known."""
    return point.se or {"fraction": 0.0005, "points": 0.05}.get(found.unit)


def _sd(found: SizeTrend) -> str:
    sd = (found.fit.tau2 or 0.0) ** 0.5 * (100 if found.unit == "fraction" else 1)
    return f"{number(sd, decimals_for(sd / 3))} {change_unit(found.unit)} (standard deviation)"


def trend_rows(found: SizeTrend) -> dict[str, object]:
    """The trend as plain values for JSON; changes in the direction of benefit."""
    low, high = found.fit.slope_interval
    points = []
    for p in found.points:
        value, below, above = found.at(p.size)
        points.append(
            {
                "name": p.name, "size": p.size, "change": p.change, "se": p.se, "low": p.low, "high": p.high, "line": value, "line_low": below,
                "line_high": above,
            }
        )  # fmt: skip
    return {
        "what": found.what, "unit": found.unit, "verdict": found.verdict, "slope_per_tenfold": found.fit.slope, "low": low, "high": high,
        "p": found.fit.slope_p, "df": found.fit.df, "level": found.fit.level, "tau2": found.fit.tau2, "points": points, "notes": list(found.notes),
        "doubts": list(found.doubts),
    }  # fmt: skip
