"""An atlas analysis for a terminal, and the tables and sentences that its page shares. Nothing in a cell is read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from rich.console import Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from aligntax.atlas.analysis import Analysis, Comparison
from aligntax.atlas.claims import Claim, claims
from aligntax.core.words import cut, level_text, p_text, percent, printable
from aligntax.stats.contrasts import LogRatio

_STYLES = {"supported": "green", "contradicted": "bold red", "not supported": "yellow", "cannot be told": "dim"}
MAX_PAIRS = 10
NOTHING = "-"


@dataclass(frozen=True)
class Grid:
    """A table of words: headings with whether a column holds numbers, rows of cells."""

    title: str
    headings: tuple[tuple[str, bool], ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def decimals(value: float | None, places: int = 3) -> str:
    """A number, or a dash."""
    return NOTHING if value is None else f"{value:.{places}f}"


def lead(found: Analysis) -> str:
    """What was found, in one or two sentences for people who are no statisticians."""
    c = found.counts
    what = f"{c['models']} models rated how alike {c['pairs']} pairs of sentences are in meaning."
    if not found.spreads:
        return what
    control = [found.spreads[name][0] for name in found.controls if name in found.spreads]
    contested = [(found.spreads[name][0], name) for name in found.contested if name in found.spreads]
    if not control or not contested:
        return what
    most, name = max(contested)
    calm = sum(control) / len(control)
    more = [one.first for one in found.comparisons if one.finding == "more divergent"]
    told = f"Two models picked at random differ by {calm:.2f} on a control pair and by {most:.2f} on one of {printable(name)}, on a scale from 0 to 1."
    if len(more) == len(found.comparisons) and more:
        return f"{what} {told} Every contested category divides them more than the controls, also after allowing for where on the scale it lies."
    if more:
        return f"{what} {told} More than the controls, after allowing for where on the scale they lie, divide them: {cut(', '.join(map(printable, more)), 200)}."
    return f"{what} {told} That contested categories divide models more than controls do is not shown once the place on the scale is allowed for."


def categories_grid(found: Analysis) -> Grid:
    """One row per category."""
    rows = []
    for name in found.categories:
        of = found.summaries[name]
        mean, low, high = found.spreads.get(name, (None, None, None))
        role = "control" if name in found.controls else "anchor" if name in found.anchors else "contested"
        rows.append(
            (
                printable(name), role, str(of.pairs), decimals(of.mean_rating, 2), decimals(mean),
                NOTHING if low is None or high is None else f"{low:.3f} to {high:.3f}",
                decimals(of.means["full_range"]), decimals(_rarefied(found, name)), decimals(of.means["sd"]), decimals(of.means["adjusted"]),
                NOTHING if of.flagged is None else percent(of.flagged, 0),
            )
        )  # fmt: skip
    return Grid(
        "Divergence by category",
        (
            ("category", False), ("is", False), ("pairs", True), ("mean rating", True), ("difference of two models", True),
            (level_text(found.settings.level), False), ("range", True), (f"range of {found.k}", True), ("SD", True), ("SD, adjusted", True), ("flagged", True),
        ),
        tuple(rows),
        f"Means over a category's pairs. The range grows with the number of models: 'range of {found.k}' is the mean over all groups of {found.k} models, and compares with other "
        "ensembles. Adjusted: the share of the largest SD that the pair's mean rating allows. Flagged: a range that stands for an SD of .086 or more, whatever the number of models.",
    )  # fmt: skip


def _rarefied(found: Analysis, name: str) -> float | None:
    values = [row.rarefied for row in found.pairs if row.category == name and row.rarefied is not None]
    return sum(values) / len(values) if values else None


def ratio_text(ratio: LogRatio | None, estimate: float) -> str:
    """How many times, with its interval where there is one."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"{estimate:.2f}"
    return f"{exp(ratio.estimate):.2f} [{exp(ratio.low):.2f}, {exp(ratio.high):.2f}]"


def comparisons_grid(found: Analysis, rows: Sequence[Comparison], title: str) -> Grid:
    """Categories against controls, or step by step."""
    return Grid(
        title,
        (("category", False), ("against", False), ("times as divergent", False), ("p", True), ("adjusted for the scale", False), ("p", True), ("finding", False)),
        tuple(
            (
                printable(one.first), printable(one.second), ratio_text(one.ratio, one.test.ratio), p_text(one.p_holm),
                ratio_text(one.adjusted_ratio, one.adjusted_test.ratio), p_text(one.adjusted_p_holm), one.finding,
            )
            for one in rows
        ),
        f"Ratios of geometric means of the mean difference of two models, with {level_text(found.settings.level)} intervals over other models and other pairs; p by permuting categories over pairs, Holm over the "
        "rows. A difference counts only where both agree: a pair rated .5 has more room to divide models than one rated .95.",
    )  # fmt: skip


def groups_grid(found: Analysis) -> Grid:
    """Group shares beside what labels without meaning give."""
    rows = []
    for row in found.groups:
        share = row.share
        if share is None or share.eta2 is None or share.omega2 is None:
            rows.append(
                (
                    printable(row.column),
                    row.on,
                    NOTHING,
                    NOTHING,
                    NOTHING,
                    NOTHING,
                    NOTHING,
                    printable(row.reason or (share.reason if share else "")),
                )
            )
            continue
        rows.append(
            (
                printable(row.column), row.on, percent(share.omega2), NOTHING if share.upper is None else percent(share.upper), percent(share.eta2),
                f"{percent(share.null_mean or 0.0)} to {percent(share.null_95 or 0.0)}", p_text(row.p_holm if row.p_holm is not None else share.p or 1.0),
                printable(row.reason),
            )
        )  # fmt: skip
    return Grid(
        "What models' groups explain",
        (
            ("column", False),
            ("on", False),
            ("omega squared", True),
            ("at most", True),
            ("eta squared", True),
            ("eta squared by chance", False),
            ("p", True),
            ("note", False),
        ),
        tuple(rows),
        "The share of the disagreement that lies between groups. Eta squared is large by chance alone where models are few: beside it stands what labels without meaning give (mean to 95th percentile). "
        f"'At most' is the upper bound at {level_text(found.settings.level)}; that a share is small is claimed by it alone.",
    )


def components_grid(found: Analysis) -> Grid | None:
    """Where the variance of ratings lies."""
    if found.components is None:
        return None
    of = {" x ".join(effect): value for effect, value in found.components.effects.items()}
    if found.components.noise is not None:
        of["asked again"] = found.components.noise
    total = sum(max(v, 0.0) for v in of.values())
    words = {
        "pair": "pairs differ",
        "model": "models differ throughout",
        "pair x model": "a model sees a pair its own way",
        "order": "order of the sentences",
        "variant": "wording of the question",
    }
    rows = tuple(
        (words.get(name, name), f"{value:.5f}", percent(max(value, 0.0) / total) if total else NOTHING) for name, value in of.items()
    )
    noise = (
        ""
        if found.components.noise is not None
        else " Nothing was asked twice, so the last interaction holds the noise of single ratings as well."
    )
    return Grid(
        "Where ratings vary",
        (("source", False), ("variance", True), ("share", True)),
        rows,
        f"Components of variance by the method of moments; a value below 0 says that a component is small.{noise}",
    )


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value, 0)


def councils_grid(found: Analysis) -> Grid | None:
    """Blind spots by size."""
    if not found.councils:
        return None
    return Grid(
        "What a small council does not see",
        (("models", True), ("seem to agree", True), ("from one cluster", True), ("mixed", True), ("agree on controls", True)),
        tuple((str(r.k), percent(r.rate, 0), _share(r.within), _share(r.across), _share(r.controls)) for r in found.councils),
        f"Of all councils of so many models, the share whose ratings lie within {found.settings.tau:g} on contested pairs on which the whole ensemble is divided. Clusters come from the same ratings, which makes "
        "the difference between one cluster and mixed ones larger than it is.",
    )


def pairs_grid(found: Analysis, limit: int = MAX_PAIRS) -> Grid:
    """The pairs that divide models most."""
    known = sorted((row for row in found.pairs if row.gmd is not None), key=lambda row: -(row.gmd or 0.0))[:limit]
    return Grid(
        "Pairs that divide models most",
        (
            ("pair", False),
            ("category", False),
            ("mean", True),
            ("difference", True),
            ("range", True),
            ("lowest", False),
            ("highest", False),
        ),
        tuple(
            (
                cut(printable(r.name), 40),
                printable(r.category),
                decimals(r.mean, 2),
                decimals(r.gmd),
                decimals(r.range, 2),
                printable(r.lowest or ""),
                printable(r.highest or ""),
            )
            for r in known
        ),
    )


def grids(found: Analysis) -> list[Grid]:
    """Every table there is something to say in."""
    out = [categories_grid(found)]
    if found.comparisons:
        out.append(comparisons_grid(found, found.comparisons, "Against the controls"))
    if found.steps:
        out.append(comparisons_grid(found, found.steps, "Step by step"))
    out += [grid for grid in (components_grid(found),) if grid is not None]
    if found.groups:
        out.append(groups_grid(found))
    out += [grid for grid in (councils_grid(found),) if grid is not None]
    return [*out, pairs_grid(found)]


def doubts(found: Analysis) -> list[str]:
    """What to think of before believing any of it."""
    out = list(found.notes)
    lost = sum(n for *_, n in found.missing)
    if lost:
        worst: dict[str, int] = {}
        for model, _, _, n in found.missing:
            worst[model] = worst.get(model, 0) + n
        names = ", ".join(f"{printable(m)} {n:,}" for m, n in sorted(worst.items(), key=lambda kv: -kv[1])[:3])
        out.append(
            f"{lost:,} ratings are missing (most of them: {names}); models that refuse the contested pairs are not missing by chance"
        )
    modes = {mode for row in found.models for mode in row.modes}
    if len(modes) > 1:
        out.append(
            f"ratings were made in several ways ({cut(', '.join(sorted(map(printable, modes))), 100)}): they do not compare without care"
        )
    unfit = [row.name for row in found.models if row.unfit]
    if unfit:
        out.append(
            f"moved by the order of the sentences beyond the threshold of a flag: {cut(', '.join(map(printable, unfit)), 200)}; they cannot carry a claim of divergence"
        )
    if found.counts["orders"] == 1:
        out.append("asked in one order only: what a model makes of the order is taken for divergence")
    if found.counts["repeats"] == 1:
        out.append("asked once: a model's own noise is taken for divergence between models")
    if found.counts["variants"] == 1:
        out.append("asked in one wording: whether another would divide the same pairs is not known")
    if found.clusters is None and found.counts["models"] >= 3:
        out.append("models could not be put into clusters")
    return out


def view(found: Analysis) -> Group:
    """Tables, claims and doubts for a terminal."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    for grid in grids(found):
        parts += [Text(grid.title, style="bold"), _rich(grid)]
        if grid.note:
            parts.append(Text(grid.note, style="dim"))
        parts.append(Text(""))
    parts += _rest(found)
    parts.append(Text("What the published claims come to", style="bold"))
    parts += [line for claim in claims(found) for line in _claim(claim)]
    parts.append(Text(""))
    parts += [Text(f"! {cut(text, 400)}", style="yellow") for text in doubts(found)]
    return Group(*parts)


def sentences(found: Analysis) -> list[str]:
    """Numbers that need no table."""
    out = []
    if found.trend is not None:
        adjusted = "" if found.adjusted_trend is None else f", adjusted {p_text(found.adjusted_trend.p)}"
        out.append(
            f"The staircase {' < '.join(map(printable, found.settings.order))} as a whole: p {p_text(found.trend.p)}{adjusted} (Jonckheere-Terpstra). A trend may rest on one step."
        )
    if found.clusters is not None:
        one = found.clusters
        out.append(
            f"{one.k} clusters of models, silhouette {one.silhouette:.2f} (p {p_text(one.silhouette_p)} against ratings shuffled between models)."
        )
    if found.dimensions is not None and found.dimensions.debiased is not None:
        out.append(
            f"The disagreement has {found.dimensions.debiased:.1f} dimensions (participation ratio, chance taken out); two opposed camps are one."
        )
    if "contested" in found.distinct:
        of = found.distinct["contested"]
        control = f", {found.distinct['control'].free:.1f} on controls" if "control" in found.distinct else ""
        spans = ", ".join(f"{v:.1f} at h = {h:g}" for h, v in of.by_bandwidth.items())
        out.append(
            f"The ensemble is worth {of.free:.1f} distinct raters on contested pairs{control} (Vendi, without a bandwidth; with one: {spans})."
        )
    if found.votes is not None and found.votes.votes is not None:
        out.append(
            f"Against the reference it is worth {found.votes.votes:.1f} independent votes (Kish, errors correlate {found.votes.mean_r:.2f})."
        )
    if found.order_noise is not None:
        out.append(
            f"Exchanging the two sentences moves a rating by an SD of {found.order_noise:.3f}, which is error: similarity has no order."
        )
    if found.variants is not None and found.variants[0] is not None:
        out.append(
            f"Between wordings of the question the pairs' divergences rank alike by a Kendall tau of {found.variants[0]:.2f}; {found.variants[1]} pairs are flagged under two wordings and more."
        )
    if found.illusion:
        told = ", ".join(f"{printable(c)} {v:.3f}" for c, v in found.illusion.items() if v is not None)
        out.append(f"Consensus illusion (tight agreement, more alike than the reference): {told}." if told else "")
    if found.calibrated:
        told = ", ".join(f"{printable(c)} {v:.3f}" for c, v in found.calibrated.items() if v is not None)
        out.append(f"Mean difference of two models after each was calibrated on the anchors: {told}." if told else "")
    if found.sensitivity:
        told = "; ".join(
            f"{way}: " + ", ".join(f"{printable(c)} {decimals(v, 2)}" for c, v in of.items()) for way, of in found.sensitivity.items()
        )
        out.append(f"Times as divergent as controls, by what is done about missing ratings: {told}.")
    return [text for text in out if text]


def _rest(found: Analysis) -> list[RenderableType]:
    told = sentences(found)
    return [*(Text(text) for text in told), *([Text("")] if told else [])]


def _rich(grid: Grid) -> RichTable:
    table = RichTable(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    for name, numeric in grid.headings:
        table.add_column(name, justify="right" if numeric else "left")
    for row in grid.rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _claim(claim: Claim) -> list[Text]:
    return [Text.assemble((claim.judgement, _STYLES[claim.judgement]), f": {claim.claim}"), Text(f"  {claim.why}", style="dim")]
