"""What a study comes to: scorecard, stage tree, every pair at a glance, weights against template, outcomes, change against divergence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from aligntax.core.explain import detail_interval, effect_text, error_of, is_judged, is_unsound, main_entries, metric_of_section, size_of
from aligntax.core.kinds import DISTANCES, MANY_METRICS
from aligntax.core.ledger import AVERAGES, MEAN_OVER_ITEMS, MEAN_OVER_TASKS, Entry, Ledger
from aligntax.core.samples import OUTCOMES
from aligntax.core.study import Study
from aligntax.core.tables import entry_row
from aligntax.core.words import (
    VERDICT_WORDS,
    change_number,
    change_unit,
    cut,
    is_fraction,
    p_text,
    percent,
    printable,
    scale_of,
    size_text,
    value_text,
)
from aligntax.flow.split import fours
from aligntax.flow.stages import Account, accounts, cells, losses_of_safety, worst
from aligntax.flow.stages import Cell as StageCell
from aligntax.report import charts
from aligntax.report.charts import Plot

MAX_SPLIT_ROWS = 20
MAX_OUTCOME_ROWS = 60
MAX_ACCOUNTS = 40
MAX_PARTS = 12
MAX_MATRIX_ROWS = 200


@dataclass(frozen=True)
class Stage:
    """One arm in the tree: how deep it stands, and what changed from the arm it was made from."""

    depth: int
    name: str
    about: str
    verdicts: str
    means: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """One change at a glance; ``verdict`` in words, empty where there is no entry."""

    text: str
    verdict: str


@dataclass(frozen=True)
class Matrix:
    """Tasks down, candidates across."""

    title: str
    candidates: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    hidden: int


@dataclass(frozen=True)
class SplitRow:
    """One task asked four ways: the values of the four arms, and what of the total change is the weights' doing, what the template's."""

    task: str
    items: str
    values: tuple[str, str, str, str]
    total: str
    weights: str
    template: str
    interaction: str


@dataclass(frozen=True)
class Split:
    """The two-by-two split of one pair; ``arms`` are base raw, base chat, aligned raw, aligned chat."""

    arms: tuple[str, ...]
    rows: tuple[SplitRow, ...]
    not_drawn: int
    plot: Plot


@dataclass(frozen=True)
class Waterfall:
    """One quantity along the stage tree; ``note`` says where branches rest on other items."""

    title: str
    note: str
    plot: Plot


@dataclass(frozen=True)
class Outcomes:
    """How the answers of one task came out in one arm: (outcome, count, share in per cent) of those that occur."""

    task: str
    arm: str
    planned: int
    parts: tuple[tuple[str, int, float], ...]


@dataclass(frozen=True)
class Score:
    """One kind of cost on the scorecard: how many comparisons came out how, and the largest established loss and gain, in words."""

    kind: str
    counts: tuple[tuple[str, int], ...]
    worst: str
    best: str


def scorecard(ledger: Ledger, pair: tuple[str, str]) -> list[Score]:
    """The pair's tasks by kind; kinds without verdicts (divergence) and averages are left out, and a task counts once per metric."""
    out = []
    entries = [e for e in main_entries(ledger) if e.pair == pair and is_judged(e)]
    for kind in dict.fromkeys(e.kind for e in entries):
        of = [e for e in entries if e.kind == kind]
        counts = tuple((name, sum(e.verdict == name for e in of)) for name in ("tax", "gain", "no_tax", "undetermined"))
        lost, won = (max((e for e in of if e.verdict == name), key=size_of, default=None) for name in ("tax", "gain"))
        out.append(Score(kind.replace("_", " "), counts, worst=_named(lost), best=_named(won)))
    return out


def _named(entry: Entry | None) -> str:
    return "" if entry is None else f"{printable(entry.task)} ({printable(entry.metric)}): {entry_row(entry).change}"


@dataclass(frozen=True)
class Doubt:
    """What makes comparisons unsound, and which."""

    said: str
    where: str


def doubts(ledger: Ledger, left_out: Sequence[tuple[str, str]]) -> list[Doubt]:
    """What stands against the comparisons, each once: checks of entries that question their soundness, and what the logs left out."""
    tasks: dict[str, list[str]] = {}
    for entry in ledger:
        for check in entry.checks:
            if is_unsound(check):
                tasks.setdefault(check, []).append(f"{entry.task} ({entry.baseline} to {entry.candidate})")
    found = []
    for check, named in tasks.items():
        names = list(dict.fromkeys(named))
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        found.append(Doubt(printable(check), printable(", ".join(names[:3])) + more))
    arms: dict[str, list[str]] = {}
    for arm, text in left_out:
        arms.setdefault(text, []).append(arm)
    return found + [Doubt(printable(text), printable(", ".join(named))) for text, named in arms.items()]


def stages(study: Study, ledger: Ledger) -> list[Stage]:
    """The stage tree, depth first."""
    arms = {arm.name: arm for arm in study.arms}
    entries = main_entries(ledger)
    out = []
    for name, parent, depth in _tree(study):
        how = arms[name].elicitation
        template = "" if how is None else f", {how.template} template"
        edge = [e for e in entries if e.pair == (parent, name)]
        out.append(Stage(depth, printable(name), printable(arms[name].source) + template, _verdicts(edge), _means(edge)))
    return out


def _verdicts(entries: Sequence[Entry]) -> str:
    judged = [e for e in entries if e.verdict is not None and e.task not in AVERAGES]
    counts = {name: sum(e.verdict == name for e in judged) for name in ("tax", "gain", "no_tax", "undetermined")}
    return ", ".join(f"{n} {VERDICT_WORDS[name]}" for name, n in counts.items() if n)


def _means(entries: Sequence[Entry]) -> tuple[str, ...]:
    return tuple(
        f"{printable(e.metric)} ({e.kind.replace('_', ' ')}): {row.change} {row.interval}"
        for e in entries
        if e.task == MEAN_OVER_ITEMS and (row := entry_row(e))
    )


def matrices(ledger: Ledger) -> list[Matrix]:
    """Every pair at a glance, one table per baseline, kind and metric; divergences and subgroups are left to the sections."""
    entries = [e for e in main_entries(ledger) if e.kind != "divergence"]
    entries.sort(key=lambda e: e.baseline != ledger.baseline)
    out = []
    for key in dict.fromkeys((e.baseline, e.kind, metric_of_section(e)) for e in entries):
        of = {(_row_name(e), e.candidate): e for e in entries if (e.baseline, e.kind, metric_of_section(e)) == key}
        candidates = tuple(dict.fromkeys(candidate for _, candidate in of))
        tasks = sorted(dict.fromkeys(task for task, _ in of), key=lambda task: task.split(":")[0] not in AVERAGES)
        rows = tuple(
            (printable(task), tuple(_cell(of.get((task, candidate))) for candidate in candidates)) for task in tasks[:MAX_MATRIX_ROWS]
        )
        kind = key[1].replace("_", " ")
        title = printable(f"From {key[0]}: {key[2]} ({kind})" if key[2] else f"From {key[0]}: {kind}")
        out.append(Matrix(title, tuple(map(printable, candidates)), rows, max(0, len(tasks) - MAX_MATRIX_ROWS)))
    return out


def _row_name(entry: Entry) -> str:
    """A task; with its metric where one table holds several."""
    return entry.task if metric_of_section(entry) else f"{entry.task}: {entry.metric} ({change_unit(entry.unit)})"


@dataclass(frozen=True)
class Quantiles:
    """One metric of latency of one pair: what is compared, and per quantile the two arms' values with the change and its interval."""

    name: str
    unit: str
    rows: tuple[tuple[str, str, str, str], ...]


def timed(ledger: Ledger, pair: tuple[str, str]) -> list[Entry]:
    """Entries of latency worth drawing: of several tasks their mean over items, the whole time before its parts."""
    entries = [e for e in main_entries(ledger) if e.pair == pair and e.kind == "latency" and e.change is not None]
    whole = [e for e in entries if e.task == MEAN_OVER_ITEMS] or [e for e in entries if e.task not in AVERAGES]
    order = ("request_latency", "time_to_first_token", "time_per_output_token", "output_tokens")
    return sorted(whole, key=lambda e: order.index(e.metric) if e.metric in order else len(order))


def latency_table(ledger: Ledger, pair: tuple[str, str]) -> list[Quantiles]:
    """Medians, tails and medians of pairs, of what ``timed`` chooses."""
    out = []
    for entry in timed(ledger, pair):
        rows = [_quantile(entry, name) for name in ("p50", "p95", "p99") if entry.detail(f"{name}_change") is not None]
        if entry.detail("median_change") is not None:
            ratio = entry.detail("median_ratio")
            times = "" if ratio is None else f"{ratio:.3g} times"
            rows.append(("median of the pairs", "", times, effect_text(entry, "median_change")))
        out.append(Quantiles(printable(f"{entry.metric}, {entry.task}"), printable(change_unit(entry.unit)), tuple(rows)))
    return out


def latency_parts(ledger: Ledger, pair: tuple[str, str]) -> list[str]:
    """What the change of each task's whole time is made of."""
    names = {"the first token": "first_token_effect", "more or fewer tokens": "verbosity_effect", "time per token": "speed_effect"}
    out = []
    for entry in main_entries(ledger):
        told = [f"{what} {effect_text(entry, key)}" for what, key in names.items() if entry.detail(key) is not None]
        if entry.pair == pair and told:
            out.append(f"{printable(entry.task)}, of the change of the mean time ({change_unit(entry.unit)}): {', '.join(told)}.")
    return out[:MAX_PARTS]


def _quantile(entry: Entry, name: str) -> tuple[str, str, str, str]:
    low, high = detail_interval(entry, f"{name}_change")
    error = error_of(entry) if low is None or high is None else (high - low) / 4
    base, cand = (value_text(entry.detail(f"{name}_{side}"), entry.unit, error) for side in ("baseline", "candidate"))
    return name, base, cand, effect_text(entry, f"{name}_change")


def _cell(entry: Entry | None) -> Cell:
    if entry is None:
        return Cell("", "")
    row = entry_row(entry)
    text = row.change.removesuffix(" points") if metric_of_section(entry) else row.change.removesuffix(f" {change_unit(entry.unit)}")
    return Cell(text, row.verdict)


def split(study: Study, ledger: Ledger, pair: tuple[str, str]) -> Split | None:
    """The two-by-two split of one pair, where the study has its four arms."""
    four = next((four for four in fours(study) if (four[0], four[3]) == pair), None)
    entries = [e for e in main_entries(ledger) if e.pair == pair and e.detail("weights_effect") is not None]
    if four is None or not entries:
        return None
    unit = entries[0].unit
    shown = [e for e in entries if e.unit == unit][:MAX_SPLIT_ROWS]
    names = charts.labels(shown)
    marks = [
        charts.Mark(name, factor * (e.detail(f"{key}_effect") or 0.0), factor * span[0], factor * span[1], group)
        for e, name in zip(shown, names, strict=True)
        for group, key in (("weights", "weights"), ("template", "elicitation"))
        if (factor := scale_of(unit)) and (span := _span(e, f"{key}_effect"))
    ]
    plot = Plot("effects", tuple(marks), axis=f"effect ({charts.unit_text(unit)})")
    return Split(tuple(map(printable, four)), tuple(map(_split_row, entries)), len(entries) - len(shown), plot)


def _split_row(entry: Entry) -> SplitRow:
    values = entry.details.get("split_values")
    of = values if isinstance(values, list) else [None] * 4
    base_raw, base_chat, aligned_raw, aligned_chat = (value_text(v, entry.unit, error_of(entry)) for v in of)
    items = entry.detail("split_items") or 0.0
    return SplitRow(
        printable(f"{entry.task} ({entry.metric})"),
        f"{items:,.0f}",
        (base_raw, base_chat, aligned_raw, aligned_chat),
        change_number((entry.detail("weights_effect") or 0.0) + (entry.detail("elicitation_effect") or 0.0), entry.unit, error_of(entry)),
        effect_text(entry, "weights_effect"),
        effect_text(entry, "elicitation_effect"),
        effect_text(entry, "interaction"),
    )


def _span(entry: Entry, name: str) -> tuple[float, float] | None:
    """The interval of an effect; where there is none, the effect itself."""
    low, high = detail_interval(entry, name)
    value = entry.detail(name)
    return (low, high) if low is not None and high is not None else None if value is None else (value, value)


def waterfalls(study: Study, ledger: Ledger) -> list[Waterfall]:
    """Stage trees of three arms and more, by kind and metric: the mean over items or over tasks; without one every task, the largest steps first."""
    tree = _tree(study)
    if len(tree) < 3:
        return []
    averages: list[Waterfall] = []
    single: list[tuple[tuple[bool, float], Waterfall]] = []
    edges_of = {(parent or "", name) for name, parent, _ in tree}
    entries = [
        e
        for e in main_entries(ledger)
        if e.pair in edges_of and e.change is not None and e.kind not in ("divergence", "format", *MANY_METRICS)
    ]
    for kind, metric in dict.fromkeys((e.kind, e.metric) for e in entries):
        of = [e for e in entries if (e.kind, e.metric) == (kind, metric)]
        tasks = list(dict.fromkeys(e.task for e in of))
        reached = {e.pair for e in of}
        average = next((t for t in (MEAN_OVER_ITEMS, MEAN_OVER_TASKS) if {e.pair for e in of if e.task == t} == reached), None)
        for task in tasks if average is None else [average]:
            edges = {e.pair: e for e in of if e.task == task}
            if len(edges) >= 2 and (average is not None or task not in AVERAGES):
                fall = _waterfall(printable(f"{task}: {metric} ({kind.replace('_', ' ')})"), tree, edges)
                if average is None:
                    single.append((max(map(size_of, edges.values())), fall))
                else:
                    averages.append(fall)
    return averages + [fall for _, fall in sorted(single, key=lambda one: one[0], reverse=True)]


def _waterfall(title: str, tree: Sequence[tuple[str, str | None, int]], edges: Mapping[tuple[str, str], Entry]) -> Waterfall:
    """A bar per edge; edges add up, since those of a branch of the tree rest on the items that all its arms have."""
    marks: list[charts.Mark] = []
    apart = []
    start: float | None = None
    factor = scale_of(unit := next(iter(edges.values())).unit)
    for name, parent, depth in tree:
        entry = edges.get((parent or "", name))
        shown = _distinct(f"{'└' + '─' * (depth - 1) + ' ' if depth else ''}{cut(printable(name), 40)}", marks)
        if parent is None:
            start = next((e.baseline_value for pair, e in edges.items() if pair[0] == name), None)
            if start is not None:
                marks.append(charts.Mark(shown, factor * start, None, None, "start", value_text(start, unit)))
        elif entry is not None and entry.baseline_value is not None and entry.candidate_value is not None:
            row = entry_row(entry)
            ends = factor * entry.candidate_value, factor * entry.baseline_value
            marks.append(charts.Mark(shown, *ends, None, row.verdict, f"{row.change}, {row.verdict}" if row.verdict != "-" else row.change))
            if depth == 1 and start is not None and entry.baseline_value != start:
                apart.append(f"{printable(name)} starts from {value_text(entry.baseline_value, unit)}")
    note = f"Branches rest on the items that all their arms have: {'; '.join(apart)}." if apart else ""
    return Waterfall(title, note, Plot("waterfall", tuple(marks), axis="per cent" if is_fraction(unit) else charts.unit_text(unit)))


def _distinct(label: str, marks: Sequence[charts.Mark]) -> str:
    """A label that no mark has yet: a chart merges rows of one name."""
    return label if all(mark.label != label for mark in marks) else f"{label} ({len(marks) + 1})"


def _tree(study: Study) -> list[tuple[str, str | None, int]]:
    """(arm, its parent, depth), depth first."""
    children: dict[str | None, list[str]] = {}
    for arm in study.arms:
        children.setdefault(arm.parent, []).append(arm.name)

    def walk(name: str, parent: str | None, depth: int) -> Iterator[tuple[str, str | None, int]]:
        yield name, parent, depth
        for child in children.get(name, []):
            yield from walk(child, name, depth + 1)

    return [one for root in children.get(None, []) for one in walk(root, None, 0)]


@dataclass(frozen=True)
class AccountRow:
    """One task along a path, in words: its first value, what each stage changed and kept, what the whole path did."""

    task: str
    start: str
    steps: tuple[Cell, ...]
    total: str
    retained: str
    refunded: str


@dataclass(frozen=True)
class PathTable:
    """One path through the stage tree: its arms, and a row per task."""

    arms: tuple[str, ...]
    rows: tuple[AccountRow, ...]
    hidden: int


def path_tables(study: Study, ledger: Ledger) -> list[PathTable]:
    """The accounts of every path, averages first."""
    found = accounts(study, ledger)
    out = []
    for path in dict.fromkeys(one.path for one in found):
        of = sorted((one for one in found if one.path == path), key=lambda one: one.task not in AVERAGES)
        out.append(PathTable(tuple(map(printable, path)), tuple(map(_account_row, of[:MAX_ACCOUNTS])), max(0, len(of) - MAX_ACCOUNTS)))
    return out


def _account_row(one: Account) -> AccountRow:
    error = error_of(one.steps[0].entry)

    def kept(share: float | None) -> str:
        return "" if share is None else percent(share, 1)

    steps = []
    for step in one.steps:
        row = entry_row(step.entry)
        said = (
            f"{change_number(step.change, one.unit, error_of(step.entry))} ({kept(step.retained)})"
            if step.retained is not None
            else row.change
        )
        steps.append(Cell(said, row.verdict))
    return AccountRow(
        printable(f"{one.task} ({one.metric})"),
        value_text(one.values[0], one.unit, error),
        tuple(steps),
        change_number(one.total, one.unit, error),
        kept(one.retained),
        size_text(one.refunded, one.unit, error) if one.refunded > 0 else "",
    )


def stages_view(study: Study, ledger: Ledger) -> Group:
    """The accounts of every path for a terminal, and what stands out in the tree."""
    parts: list[RenderableType] = [Text(text) for text in stage_sentences(study, ledger)]
    for path in path_tables(study, ledger):
        table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
        table.add_column("task", overflow="fold")
        for heading in (path.arms[0], *(f"to {arm}" for arm in path.arms[1:]), "total", "retained", "refunded"):
            table.add_column(heading, justify="right")
        for row in path.rows:
            table.add_row(
                *(Text(cell) for cell in (row.task, row.start, *(c.text for c in row.steps), row.total, row.retained, row.refunded))
            )
        parts += [Text(), Text(" -> ".join(path.arms), style="bold"), table]
        if path.hidden:
            parts.append(Text(f"{path.hidden} more rows are in ledger.json.", style="dim"))
    return Group(*parts)


def stage_sentences(study: Study, ledger: Ledger) -> list[str]:
    """The worst cell of the whole tree, and where safety itself was lost; each says whether that is established over all cells."""
    found = cells(study, ledger)
    edges = len({cell.entry.pair for cell in found})
    if edges < 2:
        return []
    out = []
    for unit in dict.fromkeys(cell.entry.unit for cell in found if cell.entry.unit in ("fraction", "points")):
        cell = worst(found, unit)
        if cell is not None:
            out.append(f"The largest loss of any task at any stage: {_cell_text(cell, len(found), ledger)}.")
    safety = losses_of_safety(found)
    if safety:
        out.append("Safety fell at: " + "; ".join(_cell_text(cell, len(found), ledger) for cell in safety[:4]) + ".")
    return out


def _cell_text(cell: StageCell, count: int, ledger: Ledger) -> str:
    entry = cell.entry
    where = f"{printable(entry.task)} from {printable(entry.baseline)} to {printable(entry.candidate)}, {entry_row(entry).change}"
    if cell.q is None:
        return f"{where} ({'no interval is known' if cell.entry.p_value is None else 'too few sources for a verdict'})"
    sure = cell.q < 1 - ledger[0].level
    return f"{where} ({'established' if sure else 'not established'} among all {count} cells of the tree, Holm p {p_text(cell.q)})"


def outcomes(ledger: Ledger) -> tuple[list[Outcomes], int, int]:
    """(Tasks and arms where not every answer was scored, how many more of them there are, comparisons where all were); each arm once per task and metric."""
    seen: dict[tuple[str, str, str], dict[str, int]] = {}
    for entry in main_entries(ledger):
        if entry.task not in AVERAGES and entry.kind not in ("format", "divergence"):
            for arm, counts in entry.outcomes.items():
                if any(counts.values()):  # values without samples have none
                    seen.setdefault((entry.task, entry.metric, arm), counts)
    rows = []
    for (task, metric, arm), found in seen.items():
        planned = sum(found.values())
        if found.get("scored", 0) < planned:
            parts = tuple((str(o), found[o], 100 * found[o] / planned) for o in OUTCOMES if found.get(o))
            rows.append(Outcomes(printable(f"{task} ({metric})"), printable(arm), planned, parts))
    rows.sort(key=lambda row: sum(share for name, _, share in row.parts if name == "scored"))
    return rows[:MAX_OUTCOME_ROWS], max(0, len(rows) - MAX_OUTCOME_ROWS), len(seen) - len(rows)


def methods_used(ledger: Ledger) -> set[str]:
    """What the methods section has to explain: names of methods, and of what was made of them."""
    used: set[str] = {e.method for e in ledger}
    for name, holds in {
        "family": lambda e: e.p_adjusted is not None,
        "split": lambda e: e.detail("weights_effect") is not None,
        "divergence": lambda e: e.kind == "divergence",
        "diversity": lambda e: e.kind == "diversity",
        "calibration": lambda e: e.kind == "calibration" and e.detail("ece_baseline") is not None,
        "latency": lambda e: e.kind == "latency" and e.detail("median_change") is not None,
        "average": lambda e: e.task in AVERAGES,
        "unread": lambda e: e.detail("unparsed_baseline") is not None,
        "margin": lambda e: e.margin is not None,
        "samples": lambda e: e.n > 0,
    }.items():
        if any(map(holds, ledger)):
            used.add(name)
    return used


def distance_of(ledger: Ledger, pair: tuple[str, str]) -> Entry | None:
    """An entry of the metric that stands for a pair's divergence (``core.kinds.DISTANCES``)."""
    known = {e.metric: e for e in ledger if e.pair == pair and e.kind == "divergence"}
    return next((known[metric] for metric in DISTANCES if metric in known), None)


def against_divergence(ledger: Ledger, pair: tuple[str, str]) -> list[tuple[Entry, float]]:
    """Accuracies of one pair's tasks with the divergence along the same task's answers."""
    stands = distance_of(ledger, pair)
    distance = {e.task: e.change for e in ledger if e.pair == pair and stands is not None and e.metric == stands.metric}
    changes = [e for e in main_entries(ledger) if e.pair == pair and e.unit == "fraction" and e.change is not None and e.kind != "format"]
    return [(e, x) for e in changes if (x := distance.get(e.task)) is not None]
