"""What a study with many arms comes to: the stage tree, every pair at a glance, weights against template, change against divergence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aligntax.core.explain import error_of, main_entries
from aligntax.core.kinds import DISTANCES
from aligntax.core.ledger import AVERAGES, MEAN_OVER_ITEMS, Entry, Ledger
from aligntax.core.study import Study
from aligntax.core.tables import entry_row
from aligntax.core.words import VERDICT_WORDS, change_number, interval_text, printable


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


@dataclass(frozen=True)
class Split:
    """What of one task's total change is the weights' doing, and what the template's."""

    task: str
    total: str
    weights: str
    elicitation: str
    interaction: str


@dataclass(frozen=True)
class Score:
    """One kind of cost on the scorecard: how many comparisons came out how, and the largest established loss and gain, in words."""

    kind: str
    tax: int
    gain: int
    no_tax: int
    undetermined: int
    worst: str
    best: str


def scorecard(ledger: Ledger, pair: tuple[str, str]) -> list[Score]:
    """The pair's tasks by kind; kinds without verdicts (divergence) and averages are left out, and a task counts once per metric."""
    out = []
    entries = [e for e in main_entries(ledger) if e.pair == pair and e.verdict is not None and e.task not in AVERAGES]
    for kind in dict.fromkeys(e.kind for e in entries):
        of = [e for e in entries if e.kind == kind]
        counts = {name: sum(e.verdict == name for e in of) for name in ("tax", "gain", "no_tax", "undetermined")}
        lost = max((e for e in of if e.verdict == "tax"), key=lambda e: (e.cost or 0.0, e.task), default=None)
        won = min((e for e in of if e.verdict == "gain"), key=lambda e: (e.cost or 0.0, e.task), default=None)
        out.append(Score(kind.replace("_", " "), **counts, worst=_named(lost), best=_named(won)))
    return out


def _named(entry: Entry | None) -> str:
    return "" if entry is None else f"{printable(entry.task)}: {entry_row(entry).change}"


@dataclass(frozen=True)
class Doubt:
    """What makes comparisons unsound, and which."""

    said: str
    where: str


_UNSOUND = (
    "stand for different contents", "repeat the content", "prompts differ", "replies are identical", "asked differently", "unequal attrition",
    "no average over unequal", "filled in upstream", "no score for", "unpaired:", "not separable", "only ", "carried a score",
)  # fmt: skip


def doubts(ledger: Ledger, left_out: Sequence[tuple[str, str]]) -> list[Doubt]:
    """What stands against the comparisons, each once: checks of entries that question their soundness, and what the logs left out."""
    tasks: dict[str, list[str]] = {}
    for entry in ledger:
        for check in entry.checks:
            if any(sign in check for sign in _UNSOUND):
                tasks.setdefault(check, []).append(f"{entry.task} ({entry.baseline} to {entry.candidate})")
    found = []
    for check, named in tasks.items():
        names = list(dict.fromkeys(named))
        more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
        found.append(Doubt(printable(check), printable(", ".join(names[:3])) + more))
    return found + [Doubt(printable(text), printable(arm)) for arm, text in left_out]


def stages(study: Study, ledger: Ledger) -> list[Stage]:
    """The stage tree, depth first."""
    children: dict[str | None, list[str]] = {}
    arms = {arm.name: arm for arm in study.arms}
    for arm in study.arms:
        children.setdefault(arm.parent, []).append(arm.name)
    entries = main_entries(ledger)
    out: list[Stage] = []

    def walk(name: str, depth: int) -> None:
        arm = arms[name]
        template = "" if arm.elicitation is None else f", {arm.elicitation.template} template"
        edge = [e for e in entries if e.pair == (arm.parent, name)]
        out.append(Stage(depth, printable(name), printable(arm.source) + template, _verdicts(edge), _means(edge)))
        for child in children.get(name, []):
            walk(child, depth + 1)

    for root in children.get(None, []):
        walk(root, 0)
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
    for key in dict.fromkeys((e.baseline, e.kind, e.metric) for e in entries):
        of = {(e.task, e.candidate): e for e in entries if (e.baseline, e.kind, e.metric) == key}
        candidates = tuple(dict.fromkeys(candidate for _, candidate in of))
        rows = tuple(
            (printable(task), tuple(_cell(of.get((task, candidate))) for candidate in candidates))
            for task in dict.fromkeys(task for task, _ in of)
        )
        title = printable(f"From {key[0]}: {key[2]} ({key[1].replace('_', ' ')})")
        out.append(Matrix(title, tuple(map(printable, candidates)), rows))
    return out


def _cell(entry: Entry | None) -> Cell:
    if entry is None:
        return Cell("", "")
    row = entry_row(entry)
    return Cell(row.change.removesuffix(" points"), row.verdict)


def splits(ledger: Ledger, pair: tuple[str, str]) -> list[Split]:
    """The two-by-two split of one pair's tasks."""
    return [
        Split(
            printable(e.task),
            entry_row(e).change,
            _effect(e, "weights_effect"),
            _effect(e, "elicitation_effect"),
            _effect(e, "interaction"),
        )
        for e in main_entries(ledger)
        if e.pair == pair and e.detail("weights_effect") is not None
    ]


def _effect(entry: Entry, name: str) -> str:
    interval = entry.details.get(f"{name}_ci")
    low, high = interval if isinstance(interval, list) else (None, None)
    error = error_of(entry) if low is None or high is None else (high - low) / 4
    return f"{change_number(entry.detail(name) or 0.0, entry.unit, error)} {interval_text(low, high, entry.unit, error)}"


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
