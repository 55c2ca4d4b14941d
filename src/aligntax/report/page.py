"""The report: one self-contained HTML page. It loads nothing; its one script, allowed by its hash, searches the changed items.

Everything from models and logs is escaped by the template or packed for the script, which sets it as text; control characters
are shown as escapes.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from aligntax.core.errors import InputError
from aligntax.core.explain import first_rows, headline, is_note, is_subgroup, main_entries, metric_of_section, reasons, summary
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.samples import OUTCOMES
from aligntax.core.tables import Row, entry_row
from aligntax.core.words import VERDICT_MEANING, VERDICT_WORDS, cut, printable
from aligntax.flow.exchange import bought_sentence, exchange, name_of, rate_sentence
from aligntax.flow.frontier import frontier, plane
from aligntax.report import charts, overview
from aligntax.report.changes import changes, shared
from aligntax.report.curves import distribution, reliability
from aligntax.report.drawing import Draw, Figure, draw_here, narrow
from aligntax.report.pages import asset, figure, template
from aligntax.report.plane import plane_drawing

if TYPE_CHECKING:
    from aligntax.core.study import Study
    from aligntax.flow.diff import Comparison

MAX_CHARTS = 6
"""Forest plots and waterfalls, each; drawing one takes a fifth of a second."""
MAX_CURVES = 4
"""Reliability diagrams and distributions, each."""
MAX_RATES = 20
MAX_TABLE_ROWS = 400
MAX_LINES = 1_500
"""Entries told in all: with its reasons and statistics each takes two kilobytes of the page."""
MAX_SECTIONS = 80
MAX_PAIRS = 6
"""Pairs of arms told in full; of more, each has its cells in a table of all."""
MIN_POINTS = 3


@dataclass(frozen=True)
class _Line:
    """One entry prepared for the page."""

    key: str
    name: str
    row: Row
    indent: bool
    headline: str
    reasons: list[str]
    checks: list[str]
    notes: list[str]
    outcomes: list[tuple[str, str]]
    details: list[tuple[str, str]]


@dataclass(frozen=True)
class _Section:
    """The entries of one pair and metric, with their chart."""

    title: str
    where: str
    lines: list[_Line]
    hidden: int
    figure: Markup | None
    chart_note: str


class _Figures:
    """Plots gathered first and drawn in one go, each for a screen and for a phone, while the page is prepared."""

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self._plots: list[Figure] = []
        self._svgs: list[str] = []
        self._drawing: threading.Thread | None = None

    def plan(self, plot: Figure) -> int:
        """A number to ``show`` the plot by, once drawing has been started."""
        self._plots.append(plot)
        return len(self._plots) - 1

    def start(self) -> None:
        """Draw what was planned; another process does it, so that waiting for it costs this one nothing."""
        plots = [one for plot in self._plots for one in (plot, narrow(plot))]
        self._drawing = threading.Thread(target=lambda: self._svgs.extend(self._draw(plots)), name="aligntax-drawing")
        self._drawing.start()

    def show(self, number: int, label: str) -> Markup:
        if self._drawing is not None:
            self._drawing.join()
        wide, phone = self._svgs[2 * number : 2 * number + 2]
        return figure(wide, phone, label)


def render(comparison: Comparison, draw: Draw = draw_here) -> str:
    """The page of one comparison; ``draw`` makes SVGs of its plots."""
    ledger, study = comparison.ledger, comparison.study
    main = (study.baseline, study.candidate)
    ordered = sorted(ledger, key=lambda e: e.pair != main)  # what the study is about first, then its stages
    pairs = list(dict.fromkeys(e.pair for e in ordered))
    told = [pair for i, pair in enumerate(pairs) if i < MAX_PAIRS or pair == main]
    every: dict[tuple[tuple[str, str], str, str], list[Entry]] = {}
    for entry in ordered:
        if entry.pair in told:
            every.setdefault((entry.pair, entry.kind, metric_of_section(entry)), []).append(entry)
    groups = list(every.values())[:MAX_SECTIONS]
    figures = _Figures(draw)
    forests = _plan_forests(groups, figures)
    falls = overview.waterfalls(study, ledger)
    planned_falls = [(fall, figures.plan(fall.plot)) for fall in falls[:MAX_CHARTS]]
    split = overview.split(study, ledger, main)
    split_plot = None if split is None else figures.plan(split.plot)
    measured = next((p for p in _divergent(ledger, main) if len(overview.against_divergence(ledger, p)) >= MIN_POINTS), None)
    scatter = (
        None
        if measured is None
        else figures.plan(charts.scatter_plot(overview.against_divergence(ledger, measured), _distance(ledger, measured)))
    )
    safety = _plan_plane(study, ledger, figures)
    sure = _plan_curves(reliability, [e for e in main_entries(ledger) if e.pair == main and e.kind == "calibration"], figures)
    timed = _plan_curves(distribution, overview.timed(ledger, main), figures)
    figures.start()
    items = changes(comparison, told)
    page = template("page.html.j2")
    rooms = shared([min(len(group), MAX_TABLE_ROWS) for group in groups], MAX_LINES)
    sections = [(group[0].pair, _section(i, group, rooms[i], forests.get(i), figures)) for i, group in enumerate(groups)]
    script = asset("report.js")
    main_lines = main_entries(ledger)
    return page.render(
        css=asset("report.css"),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        title=f"{printable(study.baseline)} to {printable(study.candidate)}",
        sentence=summary(main_lines, *main),
        verdicts=[(name, VERDICT_WORDS[name], text) for name, text in VERDICT_MEANING.items()],
        scores=overview.scorecard(ledger, main),
        main_sections=[section for pair, section in sections if pair == main],
        others=[
            (" to ".join(map(printable, pair)), summary(main_lines, *pair), [section for p, section in sections if p == pair])
            for pair in told
            if pair != main
        ],
        pairs_left_out=len(pairs) - len(told),
        sections_left_out=len(every) - len(groups),
        stages=overview.stages(study, ledger) if len(study.arms) > 2 else [],
        paths=overview.path_tables(study, ledger),
        stage_sentences=overview.stage_sentences(study, ledger),
        waterfalls=[(fall, figures.show(number, f"Waterfall: {fall.title}, stage by stage")) for fall, number in planned_falls],
        waterfalls_left_out=len(falls) - len(planned_falls),
        matrices=overview.matrices(ledger) if len(pairs) > 1 else [],
        split=split,
        split_figure=None if split_plot is None else figures.show(split_plot, "Effects of weights and of the template, by task"),
        scatter=None if scatter is None else figures.show(scatter, "Each task's change against the divergence along its answers"),
        scatter_pair=" to ".join(map(printable, measured)) if measured else "",
        plane=None
        if safety is None
        else figures.show(safety, "Safety against performance: changes from the baseline, with the stage tree"),
        prices=_prices(ledger, main),
        reliability=[(e, figures.show(number, f"Reliability diagram of {printable(e.task)}")) for e, number in sure],
        distributions=[(e, figures.show(number, f"Distribution of {printable(e.metric)}, {printable(e.task)}")) for e, number in timed],
        latency=overview.latency_table(ledger, main),
        latency_parts=overview.latency_parts(ledger, main),
        changes=items,
        outcomes=overview.outcomes(ledger),
        doubts=overview.doubts(
            ledger, [(arm, text) for arm, about in comparison.provenance.get("arms", {}).items() for text in about.get("left_out", ())]
        ),
        used=overview.methods_used(ledger),
        study=study,
        settings=_settings(comparison),
        provenance=_provenance(comparison.provenance),
    )


def _prices(ledger: Ledger, pair: tuple[str, str]) -> list[tuple[str, list[str]]]:
    """What was bought, each with what it cost in every currency; then what has no price."""
    out: list[tuple[str, list[str]]] = []
    for one in exchange(ledger):
        if one.pair == pair:
            told = [r for r in one.rates if "derived" not in r.bought.details] or list(one.rates)  # a task's own score before the rule's
            for bought in dict.fromkeys(id(r.bought) for r in told):
                rates = [r for r in told if id(r.bought) == bought]
                out.append((bought_sentence(rates[0].bought), [rate_sentence(r) for r in rates[:MAX_RATES]]))
            out += [(f"{name_of(entry)}: {printable(why)}.", []) for entry, why in one.not_bought]
    return out[:MAX_RATES]


def _plan_plane(study: Study, ledger: Ledger, figures: _Figures) -> int | None:
    """The plane of safety and capability, where the arms have both; what is certain of them where they share everything measured."""
    found = plane(study, ledger)
    if found is None:
        return None
    try:
        front = frontier(ledger, study.analysis.level)
    except InputError:
        front = None
    return figures.plan(plane_drawing(found, front))


def _plan_curves(draw: Callable[[Entry], Figure | None], entries: Sequence[Entry], figures: _Figures) -> list[tuple[Entry, int]]:
    out: list[tuple[Entry, int]] = []
    for entry in entries:
        drawing = draw(entry)
        if drawing is not None and len(out) < MAX_CURVES:
            out.append((entry, figures.plan(drawing)))
    return out


def _plan_forests(groups: Sequence[Sequence[Entry]], figures: _Figures) -> dict[int, int]:
    """Forest plots of the first groups with several changes of one unit (the first of all may have one): figure by number of the group."""
    planned: dict[int, int] = {}
    for i, group in enumerate(groups):
        drawable = _drawable(group)
        worth = metric_of_section(group[0]) and (len(drawable) > 1 or (drawable and not planned))
        if worth and group[0].kind != "divergence" and len(planned) < MAX_CHARTS:
            planned[i] = figures.plan(charts.forest_plot(drawable))
    return planned


def _drawable(group: Sequence[Entry]) -> list[Entry]:
    return [e for e in group if e.change is not None and e.unit == group[0].unit]


def _divergent(ledger: Ledger, main: tuple[str, str]) -> list[tuple[str, str]]:
    """Pairs whose divergence is known: those of the main pair's arms first, then the last ones (the longest way from a base)."""
    known = list(dict.fromkeys(e.pair for e in ledger[::-1] if e.kind == "divergence"))
    return sorted(known, key=lambda p: (p != main, p[1] != main[1]))


def _distance(ledger: Ledger, pair: tuple[str, str]) -> str:
    entry = overview.distance_of(ledger, pair)
    return "" if entry is None else f"{entry.metric}, {entry.unit.replace('/', ' per ')} of the candidate's answers"


def _section(number: int, entries: Sequence[Entry], room: int, figure: int | None, figures: _Figures) -> _Section:
    first, drawable = entries[0], _drawable(entries)
    metric = metric_of_section(first)
    title = printable(f"{metric} ({first.kind.replace('_', ' ')})" if metric else first.kind.replace("_", " ").capitalize())
    return _Section(
        title=title,
        lines=[_line(f"e{number}-{k}", e, is_subgroup(e)) for k, e in enumerate(first_rows(entries, room))],
        hidden=max(0, len(entries) - room),
        where=printable(f"{title}, {first.baseline} to {first.candidate}"),
        figure=None if figure is None else figures.show(figure, f"Forest plot of {title}: the changes and intervals of the table below"),
        chart_note=_chart_note(drawable),
    )


def _chart_note(drawable: Sequence[Entry]) -> str:
    band = {e.margin for e in drawable}
    said = "; grey band: the margin, within which a change does not matter" if len(band) == 1 and None not in band else ""
    some = f" {charts.MAX_ROWS} of {len(drawable)} entries are drawn." if len(drawable) > charts.MAX_ROWS else ""
    return f"Marks: change; lines: interval{said}.{some}"


def _line(key: str, entry: Entry, indent: bool) -> _Line:
    outcomes = [
        (printable(arm), ", ".join(f"{counts[o]:,} {o}" for o in OUTCOMES if o in counts)) for arm, counts in entry.outcomes.items()
    ]
    row = entry_row(entry)
    name = row.task.split("/", 1)[1] if indent and "/" in row.task else row.task
    if not metric_of_section(entry):
        name = f"{name}: {row.metric}"
    return _Line(
        key, name, row, indent, headline(entry), reasons(entry),
        [printable(c) for c in entry.checks if not is_note(c)], [printable(c) for c in entry.checks if is_note(c)], outcomes,
        [(name, _detail(value)) for name, value in entry.details.items()],
    )  # fmt: skip


def _detail(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return f"[{', '.join(_detail(v) for v in value)}]"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


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
