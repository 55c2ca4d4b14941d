"""The report: one self-contained HTML page without a script, a font or an image from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import groupby
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from aligntax.core.explain import headline, is_subgroup, main_entries, reasons, summary
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.samples import OUTCOMES
from aligntax.core.tables import Row, entry_row
from aligntax.core.words import cut, number, printable
from aligntax.report import charts, overview
from aligntax.report.drawing import Draw, draw_here
from aligntax.report.terminal import answer_text

if TYPE_CHECKING:
    from aligntax.flow.diff import Comparison
    from aligntax.store.rows import Flip

MAX_FLIPS = 120
"""Flips shown in all; the page says how many there are."""
MAX_CHARTS = 12
MAX_TABLE_ROWS = 400
MAX_PAIRS = 6
"""Pairs of arms told in full; of more, each has its cells in a table of all."""
MIN_POINTS = 3
_QUESTION_CHARS, _ANSWER_CHARS = 600, 1000
_WORD = re.compile(r"\s+|\w+|[^\w\s]")
_ALIKE = 0.3
"""Share of words that two answers have in common before their differences are marked."""


@dataclass(frozen=True)
class _Line:
    """One entry prepared for the page."""

    row: Row
    indent: bool
    headline: str
    reasons: list[str]
    checks: list[str]
    outcomes: list[tuple[str, str]]
    details: list[tuple[str, str]]


@dataclass(frozen=True)
class _Section:
    """The entries of one pair and metric, with their chart."""

    title: str
    lines: list[_Line]
    hidden: int
    chart: Markup | None
    chart_note: str


@dataclass(frozen=True)
class _Flips:
    title: str
    total: int
    shown: int
    rows: list[dict[str, str | Markup]]


def render(comparison: Comparison, draw: Draw = draw_here) -> str:
    """The page of one comparison; ``draw`` makes SVGs of its plots."""
    ledger, study = comparison.ledger, comparison.study
    main = (study.baseline, study.candidate)
    ordered = sorted(ledger, key=lambda e: e.pair != main)  # what the study is about first, then its stages
    groups = [list(g) for _, g in groupby(ordered, key=lambda e: (e.pair, e.kind, e.metric))]
    drawable = [[e for e in group if e.change is not None and e.unit == group[0].unit] for group in groups]
    with_chart = [i for i, entries in enumerate(drawable) if entries and groups[i][0].kind != "divergence"][:MAX_CHARTS]
    measured = next((p for p in _divergent(ledger, main) if len(overview.against_divergence(ledger, p)) >= MIN_POINTS), None)
    apart = [] if measured is None else [charts.scatter_plot(overview.against_divergence(ledger, measured), _distance(ledger, measured))]
    svgs = draw([*(charts.forest_plot(drawable[i]) for i in with_chart), *apart])
    drawn = dict(zip(with_chart, svgs[: len(with_chart)], strict=True))
    pairs = list(dict.fromkeys(e.pair for e in ordered))
    told = {*pairs[:MAX_PAIRS], *((study.baseline, a) for a in [study.candidate])}
    sections = [_section(group, drawn.get(i), len(drawable[i])) for i, group in enumerate(groups) if group[0].pair in told]
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=f"{printable(study.baseline)} to {printable(study.candidate)}",
            summaries=[summary(main_entries(ledger), *pair) for pair in (pairs if len(pairs) <= MAX_PAIRS else pairs[:1])],
            scores=overview.scorecard(ledger, main),
            doubts=overview.doubts(
                ledger, [(arm, text) for arm, about in comparison.provenance.get("arms", {}).items() for text in about.get("left_out", ())]
            ),
            sections=sections,
            stages=overview.stages(study, ledger) if len(study.arms) > 2 else [],
            matrices=overview.matrices(ledger) if len(pairs) > MAX_PAIRS else [],
            splits=overview.splits(ledger, main),
            scatter=Markup(svgs[-1]) if apart else None,  # noqa: S704 - as the forest plots
            scatter_pair=" to ".join(map(printable, measured)) if measured else "",
            charts_left_out=sum(bool(d) and groups[i][0].pair in told for i, d in enumerate(drawable)) - len(with_chart),
            flips=_flips(comparison),
            study=study,
            settings=_settings(comparison),
            provenance=_provenance(comparison.provenance),
        )
    )


def _divergent(ledger: Ledger, main: tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs whose divergence is known: those of the main pair's arms first, then the last ones (the longest way from a base)."""
    known = list(dict.fromkeys(e.pair for e in ledger[::-1] if e.kind == "divergence"))
    return sorted(known, key=lambda p: (p != main, p[1] != main[1]))


def _distance(ledger: Ledger, pair: tuple[str, str]) -> str:
    entry = overview.distance_of(ledger, pair)
    return "" if entry is None else f"{entry.metric}, {entry.unit.replace('/', ' per ')} of the candidate's answers"


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("aligntax.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _section(entries: Sequence[Entry], svg: str | None, drawable: int) -> _Section:
    tasks = {e.task for e in entries}
    first = entries[0]
    return _Section(
        title=printable(f"{first.baseline} → {first.candidate}: {first.metric} ({first.kind.replace('_', ' ')})"),
        lines=[_line(e, is_subgroup(e, tasks)) for e in entries[:MAX_TABLE_ROWS]],
        hidden=max(0, len(entries) - MAX_TABLE_ROWS),
        chart=None if svg is None else Markup(svg),  # noqa: S704 - the drawing engine escapes labels; a test feeds it hostile ones
        chart_note=f"{charts.MAX_ROWS} of {drawable} entries are drawn." if drawable > charts.MAX_ROWS else "",
    )


def _line(entry: Entry, indent: bool) -> _Line:
    outcomes = [
        (printable(arm), ", ".join(f"{counts[o]:,} {o}" for o in OUTCOMES if o in counts)) for arm, counts in entry.outcomes.items()
    ]
    return _Line(
        entry_row(entry), indent, headline(entry), reasons(entry), [printable(c) for c in entry.checks], outcomes,
        [(key, _detail(value)) for key, value in entry.details.items()],
    )  # fmt: skip


def _detail(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"[{', '.join(_detail(v) for v in value)}]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _flips(comparison: Comparison) -> list[_Flips]:
    """Lost and gained items of the main pair, by metric, the cap shared between them."""
    study = comparison.study
    metrics = list(dict.fromkeys(e.metric for e in comparison.ledger if e.kind != "format"))
    cap = max(4, MAX_FLIPS // (2 * max(1, len(metrics))))
    out = []
    for metric in metrics[: MAX_FLIPS // 8]:
        for direction in ("lost", "gained"):
            try:
                total, found = comparison.flips(study.baseline, study.candidate, metric, direction=direction, limit=cap)
            except ValueError:  # a metric that only one of the two arms has
                continue
            if total:
                title = f"{'Lost' if direction == 'lost' else 'Gained'}: {printable(metric)}"
                out.append(_Flips(title, total, len(found), [_flip(f) for f in found]))
    return out


def _flip(flip: Flip) -> dict[str, str | Markup]:
    def shown(text: str | None, limit: int) -> str:
        return "" if text is None else cut(printable(text.strip(), keep_newlines=True), limit)

    before = shown(answer_text(flip.baseline_answer, flip.baseline_extracted), _ANSWER_CHARS)
    after = shown(answer_text(flip.candidate_answer, flip.candidate_extracted), _ANSWER_CHARS)
    marked = differences(before, after)
    return {
        "task": printable(f"{flip.task}/{flip.label}" if flip.label else flip.task),
        "item": printable(flip.item),
        "values": " → ".join(
            "-" if v is None else number(v, 0 if v.is_integer() else 3) for v in (flip.baseline_value, flip.candidate_value)
        ),
        "question": shown(flip.question, _QUESTION_CHARS),
        "target": shown(flip.target, 200),
        "baseline": marked[0],
        "candidate": marked[1],
    }


def differences(before: str, after: str) -> tuple[Markup, Markup]:
    """Both texts escaped, with the words marked that the other does not have in that place; unmarked where hardly anything is shared."""
    words = [_WORD.findall(text) for text in (before, after)]
    blocks = SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks()
    shared = sum(block.size for block in blocks)
    if 2 * shared < _ALIKE * (len(words[0]) + len(words[1])):
        return escape(before), escape(after)
    sides: list[list[Markup]] = [[], []]
    at = [0, 0]
    for block in blocks:
        for side, start in enumerate((block.a, block.b)):
            own = "".join(words[side][at[side] : start])
            if own:
                sides[side].append(Markup("<mark>{}</mark>").format(own) if own.strip() else escape(own))
            sides[side].append(escape("".join(words[side][start : start + block.size])))
            at[side] = start + block.size
    return Markup().join(sides[0]), Markup().join(sides[1])


def _settings(comparison: Comparison) -> list[tuple[str, str]]:
    a = comparison.study.analysis
    margin = (
        "each kind's default"
        if a.margin is None
        else f"{100 * a.margin.value:g} % of the baseline"
        if a.margin.relative
        else f"{a.margin.value:g}"
    )
    return [
        ("margin", margin),
        ("confidence", f"{100 * a.level:g} %"),
        ("cluster", printable(a.cluster or "none named")),
        ("subgroups by", printable(a.by or "none")),
        ("bootstrap", f"{a.bootstrap:,} resamples, seed {a.seed}" if a.bootstrap else "none"),
    ]


def _provenance(provenance: Any, prefix: str = "") -> list[tuple[str, str]]:
    """Nested provenance as flat lines of text."""
    if isinstance(provenance, dict):
        return [line for key, value in provenance.items() for line in _provenance(value, f"{prefix}.{key}" if prefix else str(key))]
    if isinstance(provenance, list):
        return [line for i, value in enumerate(provenance) for line in _provenance(value, f"{prefix}[{i}]")]
    return [(printable(prefix), cut(printable(str(provenance)), 300))]
