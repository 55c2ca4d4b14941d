"""An atlas analysis for a terminal, and the tables and sentences that its page shares. Nothing in a cell is read as markup."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from rich.console import Group, RenderableType
from rich.text import Text

from aligntax.atlas.analysis import Analysis, Comparison
from aligntax.atlas.claims import Claim, claims
from aligntax.atlas.families import COLLAPSE, RATING
from aligntax.core.words import cut, items_text, level_text, number, p_text, percent, printable
from aligntax.report.grids import NOTHING, Grid, decimals, name_text, rich_table
from aligntax.stats.contrasts import LogRatio

_STYLES = {"supported": "green", "contradicted": "bold red", "not supported": "yellow", "cannot be told": "dim"}
MAX_PAIRS = 10
MAX_COLLAPSED = 12
"""Rows of single models in a terminal; the page has all."""
MATCHED_TITLE = "Against controls in the middle of the scale"
BEYOND = "Is it contradiction as such, or the words"
COLLAPSED = "Like a paraphrase or like a contradiction"
STAGES = "What steps of training did, over families"
MATCHED = 0.15
"""Mean ratings of controls and contested pairs that lie farther apart are no match."""


def ends_text(names: Sequence[str]) -> str:
    """Who stands at the end of a pair's ratings."""
    return NOTHING if not names else name_text(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def role_text(found: Analysis, category: str) -> str:
    """What a category is for."""
    roles = {
        "control": found.roles.controls,
        "anchor": found.roles.anchors,
        "contradiction": found.roles.contradictions,
        "foil": found.roles.foils,
    }
    return next((role for role, names in roles.items() if category in names), "contested")


def role_mean(found: Analysis, names: Sequence[str]) -> float | None:
    """Mean difference of two models over all pairs of these categories."""
    values = [row.gmd for row in found.pairs if row.category in names and row.gmd is not None]
    return sum(values) / len(values) if values else None


def lead(found: Analysis) -> str:
    """What was found, in one or two sentences for people who are no statisticians."""
    c = found.counts
    what = f"{items_text(c['models'], 'model')} rated how alike {items_text(c['pairs'], 'pair')} of sentences are in meaning."
    calm = role_mean(found, found.roles.controls)
    contested = [(found.spreads[name][0], name) for name in found.roles.contested if name in found.spreads]
    if calm is None or not contested:
        return f"{what} {_without(found)}"
    most, name = max(contested)
    told = f"Two of them picked at random differ by {calm:.2f} on a control pair and by {most:.2f} on one of {name_text(name)}, on a scale from 0 to 1."
    more = [one.first for one in found.comparisons if one.finding == "more divergent"]
    if len(more) == len(found.roles.contested):
        every = "Every contested category divides" if len(more) > 1 else "That category divides"
        return f"{what} {told} {every} these models more than the controls, also after allowing for where on the scale it lies."
    if more:
        return (
            f"{what} {told} More than the controls, also after allowing for where on the scale they lie, divide them: "
            f"{cut(', '.join(map(printable, more)), 200)}. Of the other contested categories that is not shown."
        )
    return f"{what} {told} That contested categories divide models more than controls do is not shown."


def _without(found: Analysis) -> str:
    of = role_mean(found, found.roles.categories)
    return (
        ""
        if of is None
        else f"Two of them picked at random differ by {of:.2f} on a pair, on a scale from 0 to 1. There is nothing to compare that with: {_lacking(found)}."
    )


def _lacking(found: Analysis) -> str:
    if not found.roles.controls:
        return "no category is a control"
    return "no category is contested" if not found.roles.contested else "controls or contested pairs were not rated by two models"


def categories_grid(found: Analysis) -> Grid:
    """One row per category."""
    rows = []
    for name in found.roles.categories:
        of = found.summaries[name]
        mean, low, high = found.spreads.get(name, (None, None, None))
        rows.append(
            (
                name_text(name), role_text(found, name), str(of.pairs), decimals(of.mean_rating, 2), decimals(mean),
                NOTHING if low is None or high is None else f"{low:.2f} to {high:.2f}",
                decimals(of.means["full_range"]), decimals(_rarefied(found, name)), decimals(of.means["sd"]), decimals(of.means["adjusted"]),
                NOTHING if of.flagged is None else percent(of.flagged, 0),
            )
        )  # fmt: skip
    return Grid(
        "Divergence by category",
        (
            ("category", False), ("is", False), ("pairs", True), ("mean rating", True), ("difference", True),
            (level_text(found.settings.level), False), ("range", True), (f"range of {found.k}", True), ("SD", True), ("SD, adjusted", True), ("flagged", True),
        ),
        tuple(rows),
        f"Means over a category's pairs. Difference: of two models picked at random. The range grows with the number of models: 'range of {found.k}' is the mean over all groups of {found.k} models, and compares with other "
        "ensembles. Adjusted: the SD over the largest that the pair's mean rating allows. Flagged: a range that stands for an SD of .086 or more, whatever the number of models.",
    )  # fmt: skip


def _rarefied(found: Analysis, name: str) -> float | None:
    values = [row.rarefied for row in found.pairs if row.category == name and row.rarefied is not None]
    return sum(values) / len(values) if values else None


def ratio_text(ratio: LogRatio | None, estimate: float) -> str:
    """How many times, with its interval where there is one."""
    if ratio is None or ratio.low is None or ratio.high is None:
        return f"{estimate:.2f}"
    return f"{exp(ratio.estimate):.2f} [{exp(ratio.low):.2f}, {exp(ratio.high):.2f}]"


def comparisons_grid(rows: Sequence[Comparison], title: str, note: str = "") -> Grid:
    """Categories against controls, or step by step."""
    return Grid(
        title,
        (("category", False), ("against", False), ("times as divergent", False), ("p", True), ("adjusted for the scale", False), ("p", True), ("finding", False)),
        tuple(
            (
                name_text(one.first), name_text(one.second), ratio_text(one.ratio, one.test.ratio), p_text(one.p_holm),
                ratio_text(one.adjusted_ratio, one.adjusted_test.ratio), p_text(one.adjusted_p_holm), one.finding,
            )
            for one in rows
        ),
        note,
    )  # fmt: skip


def _comparisons(found: Analysis) -> list[Grid]:
    """Tables of comparisons; what their numbers are is said below the first."""
    what = (
        f"Ratios of geometric means of the mean difference of two models, with {level_text(found.settings.level)} intervals over other models and other pairs; p by permuting categories over pairs, Holm over the "
        "rows. A difference counts only where both agree: a pair rated .5 has more room to divide models than one rated .95. "
    )
    given = (
        ("Against the controls", found.comparisons, ""),
        (
            MATCHED_TITLE,
            found.matched,
            "These controls lie where contested pairs do: what divides models no more than they do need only have more room to.",
        ),
        (
            BEYOND,
            found.beyond,
            "What divides models no more than contradictions about everyday things do may divide them as any contradiction does; foils are alike in words and not in meaning, or the other way.",
        ),
        ("Step by step", found.steps, ""),
    )
    shown = [(title, rows, more) for title, rows, more in given if rows]
    return [comparisons_grid(rows, title, ((what if i == 0 else "") + more).strip()) for i, (title, rows, more) in enumerate(shown)]


def groups_grid(found: Analysis) -> Grid:
    """Group shares beside what labels without meaning give."""
    rows = []
    for row in found.groups:
        share = row.share
        if share is None or share.eta2 is None or share.omega2 is None:
            rows.append(
                (
                    name_text(row.column),
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
                name_text(row.column), row.on, percent(share.omega2), NOTHING if share.upper is None else percent(share.upper), percent(share.eta2),
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
        "The share of the disagreement that lies between groups; omega squared is about 0 (and may fall below) where there is none. Eta squared is large by chance alone where models are few: beside it stands what "
        f"labels without meaning give (mean to 95th percentile). 'At most' is the upper bound at {level_text(found.settings.level)}; that a share is small is claimed by it alone.",
    )


SHOWN = 0.005
"""Interactions with a smaller share of the variance are added up."""
_WORDS = {
    "pair": "pairs differ",
    "model": "models differ throughout",
    "pair x model": "a model sees a pair its own way",
    "order": "order of the sentences",
    "variant": "wording of the question",
    "asked again": "the same question again",
}


def component_values(found: Analysis) -> list[tuple[str, float]]:
    """Components of variance by name, small interactions added up; nothing where there are none."""
    if found.components is None:
        return []
    of = {" x ".join(effect): value for effect, value in found.components.effects.items()}
    if found.components.noise is not None:
        of["asked again"] = found.components.noise
    total = sum(max(v, 0.0) for v in of.values())
    shown = {name: value for name, value in of.items() if name in _WORDS or (total and value >= SHOWN * total)}
    rest = sum(value for name, value in of.items() if name not in shown)
    lines = [(_WORDS.get(name, name), value) for name, value in shown.items()]
    lines += (
        [(f"{items_text(len(of) - len(shown), 'other interaction')}, each below {percent(SHOWN)}", rest)] if len(of) > len(shown) else []
    )
    return lines


def components_grid(found: Analysis) -> Grid | None:
    """Where the variance of ratings lies."""
    if found.components is None:
        return None
    lines = component_values(found)
    total = sum(max(value, 0.0) for _, value in lines)
    rows = tuple((name, number(value, 5), percent(max(value, 0.0) / total) if total else NOTHING) for name, value in lines)
    noise = (
        ""
        if found.components.noise is not None
        else " Nothing was asked twice, so the last interaction holds the noise of single ratings as well."
    )
    return Grid(
        "Where ratings vary",
        (("source", False), ("variance", True), ("share", True)),
        rows,
        f"Components of variance by the method of moments, of these models and pairs, without intervals; a value below 0 says that a component is small.{noise}",
    )


def designs_grid(found: Analysis) -> Grid | None:
    """What another order, wording or repeat would do to a divergence."""
    if not found.designs:
        return None
    words = {"order": "orders", "variant": "wordings", "repeat": "repeats"}
    names = [name for name in words if any(name in design["counts"] for design in found.designs)]
    return Grid(
        "What asking more often would do",
        (*((words[name], True) for name in names), ("of a divergence true", True), ("too large by", True)),
        tuple(
            (
                *(str(design["counts"].get(name, 1)) for name in names),
                NOTHING if design["reliability"] is None else percent(design["reliability"], 0),
                NOTHING if design["inflation"] is None else percent(design["inflation"] - 1, 0),
            )
            for design in found.designs
        ),
        "First as it was asked, then with one more of each. Of the variance between models on an average pair: how much would still be there if each were asked without end; and how much larger than that "
        "noise makes the standard deviation.",
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
        f"Of all councils of so many models, the share whose ratings lie within {found.settings.tau:g} on the {items_text(found.councils[0].pairs, 'pair')} on which the whole ensemble is divided by more (and flagged). "
        "Clusters come from the same ratings, which makes the difference between one cluster and mixed ones larger than it is. These are counts over this ensemble, without intervals.",
    )


def collapse_grid(found: Analysis, limit: int | None = None) -> Grid | None:
    """Where models put contested pairs between contradictions and paraphrases: of all together every category, of each the one that divides them most.

    ``limit`` leaves only so many single models, the outermost.
    """
    if not found.collapse:
        return None
    whole = [row for row in found.collapse if row.model is None]
    there = {row.category for row in found.collapse}
    top = max(there, key=lambda c: (found.spreads[c][0] if c in found.spreads else 0.0, c))
    single = [row for row in found.collapse if row.model is not None and row.category == top]
    single.sort(key=lambda row: (row.contrast or 0.0, row.model or ""))
    dropped = 0 if limit is None else max(0, len(single) - limit)
    if dropped and limit is not None:
        single = [*single[: limit // 2], *single[len(single) - limit // 2 :]]
    first = whole[0] if whole else None
    return Grid(
        COLLAPSED,
        (("model", False), ("category", False), ("position", True), (level_text(found.settings.level), False), ("above the middle", True), (level_text(found.settings.level), False), ("topics", True)),
        tuple(
            (
                name_text(row.model) if row.model is not None else f"mean of {items_text(row.models, 'model')}", name_text(row.category),
                decimals(row.position if row.position_low is not None else None, 2), _span(row.position_low, row.position_high),
                _signed(row.contrast), _span(row.contrast_low, row.contrast_high), str(row.topics),
            )
            for row in (*whole, *single)
        ),
        "Position: 0: rated like a contradiction, 1: rated like a paraphrase of the same topic; no number where a model does not tell these two apart. Above the middle: the rating less the midpoint of the two. "
        "Intervals are over topics and contradictions, for these models, and not adjusted for how many rows there are."
        + (f" The mean is that of the models that rated all of these pairs, {first.models} of {found.counts['models']}." if first is not None and first.models < found.counts["models"] else "")
        + (f" {items_text(dropped, 'model')} between these {'is' if dropped == 1 else 'are'} left out here." if dropped else "")
        + (" Single models are shown on the category that divides them most; atlas.json has the others." if len(there) > 1 else ""),
    )  # fmt: skip


def _signed(value: float | None, places: int = 2) -> str:
    """A contrast with its sign."""
    if value is None:
        return NOTHING
    text = number(value, places)
    return text if text.startswith("-") or not float(text) else f"+{text}"


def _span(low: float | None, high: float | None) -> str:
    return NOTHING if low is None or high is None else f"{low:.2f} to {high:.2f}"


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
                name_text(r.name),
                name_text(r.category),
                decimals(r.mean, 2),
                decimals(r.gmd),
                decimals(r.range, 2),
                ends_text(r.lowest),
                ends_text(r.highest),
            )
            for r in known
        ),
    )


def stages_grid(found: Analysis) -> Grid | None:
    """What a step of training did, over families."""
    if not found.stages:
        return None
    words = {RATING: "rating", COLLAPSE: "rating less paraphrases"}
    return Grid(
        STAGES,
        (
            ("step", False), ("category", False), ("families", True), ("pairs", True), ("change of", False), ("by", True), (level_text(found.settings.level), False), ("p", True), ("rated", False),
        ),
        tuple(
            (
                f"{name_text(one.before)} to {name_text(one.after)}", name_text(one.category), str(one.change.rows), str(one.change.columns), words[one.measure],
                _signed(one.change.mean, 3), f"{_signed(one.change.low, 3)} to {_signed(one.change.high, 3)}", p_text(one.p_holm), one.finding,
            )
            for one in found.stages
        ),
        "Child less parent, mean over the families that took the step, with its interval over other families and other pairs (wide where there are two or three); p by Holm over the rows. "
        "Of contested pairs a rise is flattening; of paraphrases, which say the same, a fall is a loss. What a step did to one family is in the ledger of that family.",
    )  # fmt: skip


def grids(found: Analysis, collapsed: int | None = None) -> list[Grid]:
    """Every table there is something to say in; ``collapsed`` as ``limit`` of ``collapse_grid``."""
    more = (
        collapse_grid(found, collapsed),
        stages_grid(found),
        components_grid(found),
        designs_grid(found),
        groups_grid(found) if found.groups else None,
        councils_grid(found),
        pairs_grid(found),
    )
    return [categories_grid(found), *_comparisons(found), *(grid for grid in more if grid is not None)]


def doubts(found: Analysis) -> list[str]:
    """What to think of before believing any of it."""
    return [*found.notes, *_design_doubts(found), *_model_doubts(found), *_asking_doubts(found)]


def _design_doubts(found: Analysis) -> list[str]:
    """Controls that are missing, or sit elsewhere on the scale."""
    out = []
    means = {name: of.mean_rating for name, of in found.summaries.items() if of.mean_rating is not None}
    calm = [means[name] for name in found.roles.controls if name in means]
    apart = [name for name in found.roles.contested if name in means and calm and min(abs(means[name] - at) for at in calm) > MATCHED]
    if apart:
        out.append(
            f"no control is rated about as high as {cut(', '.join(map(printable, apart)), 200)}: controls in the middle of the scale would show how far models differ there anyway"
        )
    if not found.roles.contested or not found.roles.controls:
        return out
    if found.matched and not any(one.finding == "more divergent" for one in found.matched):
        out.append("no contested category is shown to divide models more than controls in the middle of the scale do")
    if not found.roles.contradictions:
        out.append(
            "without contradictions about everyday things, what models make of any contradiction is not told from what they make of these pairs"
        )
    elif not any(one.finding == "more divergent" and one.first in found.roles.contested for one in found.beyond):
        out.append(
            "no contested category is shown to divide models more than everyday contradictions do: what divides them may be how they rate any contradiction"
        )
    return out


def _model_doubts(found: Analysis) -> list[str]:
    """Ratings that are missing, made in several ways, or moved by the order."""
    out = []
    lost = sum(n for *_, n in found.missing)
    if lost:
        worst: dict[str, int] = {}
        for model, _, _, n in found.missing:
            worst[model] = worst.get(model, 0) + n
        names = ", ".join(f"{name_text(m)} {n:,}" for m, n in sorted(worst.items(), key=lambda kv: -kv[1])[:3])
        out.append(
            f"{items_text(lost, 'rating')} {'is' if lost == 1 else 'are'} missing (most of them: {names}); models that refuse the contested pairs are not missing by chance"
        )
    silent = [row.name for row in found.models if not row.ratings]
    if silent:
        out.append(f"rated nothing, and are in no number: {cut(', '.join(map(printable, silent)), 200)}")
    modes = {mode for row in found.models for mode in row.modes}
    if len(modes) > 1:
        out.append(
            f"ratings were made in several ways ({cut(', '.join(sorted(map(printable, modes))), 100)}): part of the divergence may come from that"
        )
    unfit = [row.name for row in found.models if row.unfit]
    if unfit:
        out.append(
            f"moved by the order of the sentences beyond the threshold of a flag: {cut(', '.join(map(printable, unfit)), 200)}; they cannot carry a claim of divergence"
        )
    return out


def _asking_doubts(found: Analysis) -> list[str]:
    """What one order, one wording and one call leave open."""
    out = []
    if found.counts["orders"] == 1:
        out.append("asked in one order only: what a model makes of the order is taken for divergence")
    if found.counts["repeats"] == 1:
        out.append("asked once: a model's own noise is taken for divergence between models")
    if found.counts["variants"] == 1:
        out.append("asked in one wording: whether another would divide the same pairs is not known")
    return out


def view(found: Analysis) -> Group:
    """Tables, claims and doubts for a terminal."""
    parts: list[RenderableType] = [Text(lead(found), style="bold"), Text("")]
    for grid in grids(found, MAX_COLLAPSED):
        parts += [Text(grid.title, style="bold"), rich_table(grid)]
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
            f"The staircase {' < '.join(map(name_text, found.settings.order))} as a whole: p {p_text(found.trend.p)}{adjusted} (Jonckheere-Terpstra). A trend may rest on one step."
        )
    if found.clusters is not None:
        one = found.clusters
        out.append(
            f"Models fall into {one.k} clusters{_doubtful(found)}: silhouette {one.silhouette:.2f}, p {p_text(one.silhouette_p)} against ratings shuffled between models."
        )
    if found.dimensions is not None and found.dimensions.debiased is not None:
        out.append(
            f"The disagreement has about {found.dimensions.debiased:.1f} dimensions (participation ratio, chance taken out; at most {found.counts['models'] - 1} but for noise); two opposed camps are one."
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
            f"Against the table's reference ratings (whoever's they are) it is worth {found.votes.votes:.1f} independent votes (Kish, errors correlate {found.votes.mean_r:.2f})."
        )
    alpha = found.reliability["all"]["alpha"]
    if alpha is not None:
        out.append(
            f"Krippendorff's alpha over all pairs is {alpha:.2f} (1: perfect agreement, 0: chance); it rises with how different the pairs are, so that categories do not compare by it."
        )
    if found.order_shift is not None:
        out.append(
            f"A model's ratings of the two orders differ by {found.order_shift:.3f} on average, its noise included; that is error, as similarity has no order."
        )
    if found.variants is not None and found.variants[0] is not None:
        out.append(
            f"Between wordings of the question the pairs' divergences rank alike by a Kendall tau of {found.variants[0]:.2f}; {items_text(found.variants[1], 'pair')} of {found.counts['pairs']:,} flagged under two wordings and more."
        )
    if found.illusion:
        told = ", ".join(f"{name_text(c)} {v:.3f}" for c, v in found.illusion.items() if v is not None)
        out.append(
            f"Consensus illusion against the table's reference ratings (0: none, 1: all agree that the sentences mean the same and the reference says they do not): {told}."
            if told
            else ""
        )
    if found.calibrated:
        told = ", ".join(f"{name_text(c)} {v:.3f}" for c, v in found.calibrated.items() if v is not None)
        out.append(f"Mean difference of two models after each was calibrated on the anchors: {told}." if told else "")
    if found.sensitivity:
        told = "; ".join(
            f"{way}: " + ", ".join(f"{name_text(c)} {decimals(v, 2)}" for c, v in of.items()) for way, of in found.sensitivity.items()
        )
        out.append(f"Times as divergent as controls, by what is done about missing ratings: {told}.")
    return [text for text in out if text]


def _doubtful(found: Analysis) -> str:
    """Said of clusters that chance gives as well."""
    return "" if found.clusters is None or found.clusters.silhouette_p <= 1 - found.settings.level else ", which chance gives as well"


def _rest(found: Analysis) -> list[RenderableType]:
    told = sentences(found)
    return [*(Text(text) for text in told), *([Text("")] if told else [])]


def _claim(claim: Claim) -> list[Text]:
    return [Text.assemble((claim.judgement, _STYLES[claim.judgement]), f": {claim.claim}"), Text(f"  {claim.why}", style="dim")]
