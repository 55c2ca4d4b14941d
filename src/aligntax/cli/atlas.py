"""aligntax atlas: where an ensemble of models stops agreeing on the meaning of sentences, and whether alignment made it so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.atlas_asking import ask, counted, plan_table, price_text, words
from aligntax.cli.atlas_tell import tell
from aligntax.cli.shared import note
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from aligntax.atlas.analysis import Analysis
    from aligntax.atlas.families import Family
    from aligntax.atlas.pairs import PairSet
    from aligntax.atlas.ratings import Ratings
    from aligntax.atlas.run import Run

app = typer.Typer(
    help="Many models rate how alike two sentences are in meaning: where they stop agreeing, on what, and what that is worth.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

OutOption = Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for atlas.json and atlas.html; without it nothing is written.")]


def _scale(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high)
    except ValueError:
        raise InputError(f"--scale takes LOW:HIGH with two numbers, such as 0:100; got {text!r}") from None


@app.command()
def analyse(
    ratings: Annotated[
        Path, typer.Argument(metavar="RATINGS", help="Table of ratings: CSV, TSV, JSON lines or Parquet.", show_default=False)
    ],
    models: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table with a row per model and its groups, one per column (country, stage, ...).")
    ] = None,
    control: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Control category, name or pattern (repeat); default: those whose names say control."),
    ] = None,
    anchor: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Category with known ratings, for calibration alone (repeat); default: anchor*."),
    ] = None,
    contradiction: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Category of opposite claims about everyday things (repeat); default: *contradiction*."),
    ] = None,
    foil: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Category of foils, told apart from the contested (repeat); default: *foil*."),
    ] = None,
    middle: Annotated[
        list[str] | None,
        typer.Option(metavar="CATEGORY", help="Controls that are rated in the middle of the scale (repeat); default: *mid*, *matched*."),
    ] = None,
    order: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Categories from the least to the most divergent, as expected before looking: the staircase."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column that groups models (repeat); default: group and stage, or all columns of --models."),
    ] = None,
    pair: Annotated[str, typer.Option(metavar="COL", help="Column that names the pair.")] = "pair",
    category: Annotated[str, typer.Option(metavar="COL", help="Column that names its category.")] = "category",
    model: Annotated[str, typer.Option(metavar="COL", help="Column that names the model.")] = "model",
    rating: Annotated[str, typer.Option(metavar="COL", help="Column with the rating.")] = "rating",
    scale: Annotated[str, typer.Option(metavar="LOW:HIGH", help="Scale of the ratings.")] = "0:1",
    step: Annotated[
        float | None,
        typer.Option(metavar="S", help="Smallest step of the scale, in its own unit; default a hundredth of it.", show_default=False),
    ] = None,
    tau: Annotated[
        float, typer.Option(metavar="T", help="Largest range that passes for agreement in a council, on a scale from 0 to 1.")
    ] = 0.20,
    rarefy: Annotated[
        int | None, typer.Option(metavar="K", help="Models of a sub-ensemble, for ranges that compare between ensembles of different size.")
    ] = None,
    permutations: Annotated[int, typer.Option(metavar="N", min=99, help="Relabellings drawn where not all are gone through.")] = 10_000,
    level: Annotated[float, typer.Option(metavar="L", help="Confidence level.")] = 0.95,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of every random draw.")] = 0,
    out: OutOption = None,
    json: Annotated[bool, typer.Option("--json", help="Print atlas.json and nothing else.")] = False,
) -> None:
    """The whole analysis of a plain table of ratings. No model is asked, nothing leaves this machine.

    One row per rating with the columns pair, category, model and rating (empty where a model gave none), and where known
    order, variant, repeat, topic, reference, text_a, text_b, status, mode and group. Or one row per pair with pair,
    category and a column per model, as ratings collected by hand are. docs/atlas.md says what every number means.

    For example:

      aligntax atlas analyse ratings.csv --order control,cross_cultural,erasure,clash --out atlas

      aligntax atlas analyse matrix.csv --models models.csv --group country
    """
    from aligntax.atlas.analysis import Settings
    from aligntax.atlas.analysis import analyse as work
    from aligntax.atlas.export import as_json
    from aligntax.atlas.families import families
    from aligntax.atlas.ratings import Columns, read_ratings
    from aligntax.report.atlas_text import view
    from aligntax.report.terminal import console
    from aligntax.store.run import check_target

    low, high = _scale(scale)
    columns = Columns(pair, category, model, rating, words(group), (low, high))
    settings = Settings(
        controls=words(control), anchors=words(anchor), contradictions=words(contradiction), foils=words(foil), middle=words(middle),
        order=words([order] if order else None), tau=tau, rarefied=rarefy, draws=permutations,
        level=level, step=0.01 if step is None else step / (high - low) if high > low else step, seed=seed,
    )  # fmt: skip
    read = read_ratings(ratings, columns, models)
    targets = [] if out is None else [(family, out / f"stages-{number}") for number, family in enumerate(families(read), 1)]
    for _, target in targets:
        check_target(target, None)
    found = work(read, settings, _tell)
    text = as_json(found)
    if json:
        sys.stdout.write(text)
    else:
        console().print(view(found))
    if out is not None:
        _write(out, found, text)
        for family, target in targets:
            _write_family(target, read, family, found)


def _write_family(target: Path, ratings: Ratings, family: Family, found: Analysis) -> None:
    """A run with the ledger of one family's stages; one that an earlier analysis left there is replaced."""
    from aligntax.atlas.ladder import compared
    from aligntax.core.explain import main_entries, summary
    from aligntax.report.page import render
    from aligntax.store.run import write_run

    with compared(ratings, family, found.roles, level=found.settings.level, seed=found.settings.seed) as one:
        write_run(target, one.study, one.ledger, one.provenance, one.rows, lambda: render(one), replace=True)
        note(f"stages of {printable(family.root)}: {target / 'report.html'} (a run: aligntax show, gate and exchange read it)")
        for baseline, candidate in dict.fromkeys(e.pair for e in one.ledger):
            note(f"  {summary(main_entries(one.ledger), baseline, candidate)}")


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        note(f"{what} ...")


def _write(out: Path, found: Analysis, text: str) -> None:
    from aligntax.report.atlas_page import render
    from aligntax.store.run import write_text

    write_text(out / "atlas.json", text)
    note(f"report: {write_text(out / 'atlas.html', render(found))}")


_OF_ISOLATED = ("orders", "variants", "repeats", "scale", "logprobs", "reprompt")
"""Options that the published procedure settles."""


@app.command("run")
def run_(
    ctx: typer.Context,
    roster: Annotated[
        Path, typer.Argument(metavar="ROSTER.yaml", help="Which models rate, and what is known of them.", show_default=False)
    ],
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Pairs of sentences: pair, category, text_a, text_b, and where known topic, reference. Default: the set that ships.",
        ),
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(metavar="NAME", help="isolated: one pair a request; atlas-v1: the published procedure, all pairs in one list, once."),
    ] = "isolated",
    orders: Annotated[str, typer.Option(metavar="AB,BA", help="Orders of the two sentences.")] = "AB,BA",
    variants: Annotated[
        str, typer.Option(metavar="A,B,C", help="Wordings: anchored, ends, contradiction; lab for embedded models.")
    ] = "anchored,ends,contradiction",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="How often each is asked.")] = 3,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, max=2, help="Of sampling.")] = 1.0,
    scale: Annotated[
        str,
        typer.Option(metavar="SCALE", help="dec2: 0.00 to 1.00; d9: a digit, with expected ratings from log-probabilities; pct: 0 to 100."),
    ] = "dec2",
    logprobs: Annotated[
        bool, typer.Option("--logprobs/--no-logprobs", help="With d9: expected ratings where a model tells log-probabilities.")
    ] = True,
    reprompt: Annotated[
        bool, typer.Option("--reprompt/--no-reprompt", help="Ask once more where a reply has no number; such ratings are flagged.")
    ] = True,
    max_tokens: Annotated[
        int, typer.Option(metavar="N", min=4, help="Longest reply, in tokens (of a list: per pair); reasoning models need more.")
    ] = 16,
    expect: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What you expect, written down: hashed before the first call.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=2, help="The first N pairs of every category.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the order of calls and of sampling.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="For local models: auto, cpu, cuda.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="What would be asked, how long it may take and cost; nothing is asked.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the run; default atlas-runs/<identity>. The same command goes on where it stopped."),
    ] = None,
) -> None:
    """Ask an ensemble how alike the two sentences of every pair are, and write down every reply.

    A roster names models as everywhere (api:URL#model, lab:sft, folders, hub ids) with what is known of them before anybody
    looks: developer, country, stage, parent. Keys come from the environment (ALIGNTAX_API_KEY, or key_env of an entry).
    calls.jsonl holds every attempt and is only ever appended to; a run that was stopped goes on. docs/atlas.md has a roster.

    For example:

      aligntax atlas run roster.yaml --dry-run

      aligntax atlas run roster.yaml --pairs pairs.csv --expect expectations.md --scale d9
    """
    from aligntax.atlas.pairs import read_pairs, standard_pairs
    from aligntax.atlas.protocol import ATLAS_V1, Plan, protocol_of
    from aligntax.atlas.roster import read_roster
    from aligntax.atlas.run import CALLS, finish, notes, outcomes, planned, shown_protocol

    if protocol not in ("isolated", "atlas-v1"):
        raise InputError(f"--protocol is isolated or atlas-v1; got {printable(repr(protocol))}")
    if protocol == "atlas-v1":
        for name in _OF_ISOLATED:
            if (source := ctx.get_parameter_source(name)) is not None and source.name == "COMMANDLINE":
                raise InputError(
                    f"--{name.replace('_', '-')} does not go with --protocol atlas-v1, which settles it; leave one of the two out"
                )
    given: dict[str, object] = {"temperature": temperature, "seed": seed, "max_tokens": max_tokens}
    if protocol == "isolated":
        given |= {
            "orders": words([orders]), "variants": words([variants]), "repeats": repeats, "scale": scale, "logprobs": logprobs, "reprompt": reprompt,
        }  # fmt: skip
    how = protocol_of(given, ATLAS_V1 if protocol == "atlas-v1" else None)
    found = standard_pairs() if pairs is None else read_pairs(pairs)
    plan = Plan(how, found if limit is None else _first(found, limit))
    ensemble = read_roster(roster)
    target = out or Path("atlas-runs") / plan.identity[:16]
    run = planned(target, plan, ensemble, expect)
    if dry_run:
        _say_plan(run, shown_protocol(how))
        return
    note(f"{len(plan.pairs.pairs)} pairs, {len(ensemble.models)} models: {shown_protocol(how)}")
    ask(run, device)
    ratings, models = finish(run)
    for name, counts in outcomes(run).items():
        note(f"{printable(name)}: {counted(counts)}")
    for text in notes(run):
        note(f"! {text}")
    if not any("ok" in counts for counts in outcomes(run).values()):
        raise AligntaxError(f"no model gave a rating; every attempt is in {target / CALLS}, and the same command asks again")
    missing = sum(map(len, run.left.values()))
    if missing:
        note(f"{missing:,} calls have no answer yet; the same command makes them")
    note(f"ratings: {ratings}")
    note(f"analyse: aligntax atlas analyse {ratings} --models {models} --out {target}")


def _say_plan(run: Run, how: str) -> None:
    from aligntax.atlas.run import estimates
    from aligntax.report.terminal import console

    screen, found = console(), estimates(run)
    screen.print(plan_table(run, found))
    screen.print(f"{len(run.plan.pairs.pairs)} pairs; {how}.")
    screen.print(
        f"{sum(one.left for one in found):,} calls{price_text(run, found)}; nothing was asked. Tokens are guessed from letters, and retries come on top. The run would be {printable(str(run.out))}"
    )


def _first(pairs: PairSet, limit: int) -> PairSet:
    """The first pairs of every category, as a set of their own."""
    from aligntax.atlas.pairs import pair_set

    count: dict[str, int] = {}
    kept = []
    for pair in pairs.pairs:
        count[pair.category] = count.get(pair.category, 0) + 1
        if count[pair.category] <= limit:
            kept.append(pair)
    return pair_set(kept, f"{pairs.source}, the first {limit} of every category")


def _numbers(text: str, option: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found:
        raise InputError(f"{option} takes numbers separated by commas, got {text!r}")
    return found


def _whole(text: str, option: str) -> list[int]:
    found = _numbers(text, option)
    if any(x != int(x) or x < 1 for x in found):
        raise InputError(f"{option} takes whole numbers above 0 separated by commas, got {text!r}")
    return [int(x) for x in found]


@app.command()
def power(
    models: Annotated[str, typer.Option(metavar="M,...", help="Models in the ensemble.")] = "10,20",
    pairs: Annotated[str, typer.Option(metavar="N,...", help="Pairs per category.")] = "5,8,12,20,30",
    ratio: Annotated[
        str, typer.Option(metavar="R,...", help="How many times as divergent contested pairs are in truth (ratio of SDs).")
    ] = "1.25,1.5,2,3",
    share: Annotated[
        str | None, typer.Option(metavar="S,...", help="Instead: the share of disagreement between two groups of models, such as .05,.15.")
    ] = None,
    heterogeneity: Annotated[
        float, typer.Option(metavar="SD", min=0, help="SD of the log divergence between pairs of one category.")
    ] = 0.4,
    family: Annotated[int, typer.Option(metavar="N", min=1, help="Contested categories that are tested together (Holm).")] = 3,
    level: Annotated[float, typer.Option(metavar="L", min=0.5, max=0.9999, help="Confidence level of the test.")] = 0.95,
    studies: Annotated[int, typer.Option(metavar="N", min=100, help="Simulated studies per cell.")] = 1_000,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the simulation.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """How many pairs and models a claim needs: the share of studies that would find what is true.

    Ratings are drawn normal on every pair, models independent; the test is the permutation of mean log SD over pairs, as in
    analyse. Doubling pairs buys much, doubling models little; for groups of models it is the other way round.

    For example:

      aligntax atlas power --models 20 --pairs 12,30 --ratio 1.5,2

      aligntax atlas power --share 0.05,0.15 --models 10,20,40
    """
    from dataclasses import asdict
    from json import dumps

    from rich.table import Table

    from aligntax.atlas.made_up import contrast_table, share_table
    from aligntax.core.words import level_text, percent
    from aligntax.report.terminal import console

    sizes, alpha = _whole(models, "--models"), 1 - level
    table = Table(box=None, pad_edge=False, header_style="dim")
    if share is not None:
        counts = _whole(pairs, "--pairs")
        shares = share_table(
            _numbers(share, "--share"), sizes, pairs=counts[0] if len(counts) == 1 else 10, alpha=alpha, studies=studies, seed=seed
        )
        if json:
            typer.echo(dumps([{"share": s, "models": m, **asdict(found)} for (s, m), found in shares.items()], indent=1))
            return
        for heading in ("true share", "models", "found", "eta squared seen, 90 % of studies"):
            table.add_column(heading, justify="right")
        for (s, m), one in shares.items():
            table.add_row(percent(s), str(m), percent(one.power, 0), f"{percent(one.eta2_range[0])} to {percent(one.eta2_range[1])}")
        console().print(table)
        note(f"{studies:,} studies per row, two groups of equal size, {level_text(level)}; more pairs hardly help: the unit is the model")
        return
    found = contrast_table(
        _numbers(ratio, "--ratio"),
        sizes,
        _whole(pairs, "--pairs"),
        heterogeneity=heterogeneity,
        family=family,
        alpha=alpha,
        studies=studies,
        seed=seed,
    )
    if json:
        typer.echo(dumps([{"ratio": r, "models": m, "pairs": n, **asdict(one)} for (r, m, n), one in found.items()], indent=1))
        return
    columns = list(dict.fromkeys(n for _, _, n in found))
    for heading in ("ratio", "models", *(f"{n} pairs" for n in columns)):
        table.add_column(heading, justify="right")
    for r, m in dict.fromkeys((r, m) for r, m, _ in found):
        cells = [found[r, m, n] for n in columns]
        table.add_row(f"{r:g}", str(m), *(f"{percent(one.power, 0)} ({percent(one.first_step, 0)})" for one in cells))
    console().print(table)
    note(
        f"share of {studies:,} studies that find it at {level_text(level)}; in brackets among {family} contrasts, whatever the others show (Holm's first step). "
        f"Pairs of one category differ by a log SD of {heterogeneity:g}"
    )


@app.command()
def simulate(
    out: Annotated[
        Path,
        typer.Argument(
            metavar="RATINGS.csv",
            help="Where to write the made-up ratings; the truth stands beside them as .truth.json.",
            show_default=False,
        ),
    ],
    models: Annotated[int, typer.Option(metavar="M", help="Models.")] = 20,
    pairs: Annotated[int, typer.Option(metavar="N", help="Pairs per category.")] = 12,
    ratio: Annotated[float, typer.Option(metavar="R", help="How many times as divergent contested pairs are; 1 for no difference.")] = 2.0,
    spread: Annotated[float, typer.Option(metavar="SD", help="SD between models on a control pair.")] = 0.06,
    noise: Annotated[float, typer.Option(metavar="SD", help="SD of one call about the model's own rating.")] = 0.02,
    repeats: Annotated[int, typer.Option(metavar="N", help="Calls per pair, model and order.")] = 2,
    share: Annotated[
        float,
        typer.Option(
            metavar="S", help="Share of the disagreement that an offset between two groups of models explains; it adds to both categories."
        ),
    ] = 0.0,
    null: Annotated[bool, typer.Option("--null", help="One mind in all models: whatever is found is found in noise.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the draw.")] = 0,
) -> None:
    """Ratings of a made-up ensemble whose truth is known, to see what the analysis makes of them.

    For example:

      aligntax atlas simulate ratings.csv --ratio 2 --share 0.3

      aligntax atlas analyse ratings.csv
    """
    from json import dumps

    from aligntax.atlas.made_up import MadeUp, table
    from aligntax.store.run import write_text

    ratings, truth = table(MadeUp(models, pairs, ratio, spread, noise, repeats, share, null, seed))
    write_text(out.with_suffix(".truth.json"), dumps(truth, indent=1) + "\n")
    typer.echo(write_text(out, ratings))


@app.command()
def council(
    ratings: Annotated[Path, typer.Argument(metavar="RATINGS", help="Table of ratings, as for analyse.", show_default=False)],
    size: Annotated[int, typer.Option(metavar="K", min=2, help="Models in the council.")] = 3,
    control: Annotated[list[str] | None, typer.Option(metavar="CATEGORY", help="Control category (repeat), which is left out.")] = None,
    anchor: Annotated[
        list[str] | None, typer.Option(metavar="CATEGORY", help="Category with known ratings (repeat), which is left out.")
    ] = None,
    tau: Annotated[float, typer.Option(metavar="T", help="Largest range that passes for agreement, on a scale from 0 to 1.")] = 0.20,
    held_out: Annotated[float, typer.Option(metavar="SHARE", help="Share of the divided pairs on which the council is verified.")] = 0.5,
    scale: Annotated[str, typer.Option(metavar="LOW:HIGH", help="Scale of the ratings.")] = "0:1",
    level: Annotated[float, typer.Option(metavar="L", help="Confidence level.")] = 0.95,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of the split of pairs.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Choose the models of a small council so that it overlooks as little as possible, and verify it on pairs held out.

    A blind spot is a contested pair on which the whole ensemble is divided and the council seems to agree. The council is
    chosen on one half of these pairs and counted on the other, beside councils drawn at random.

    For example:

      aligntax atlas council ratings.csv --size 3
    """
    from dataclasses import asdict
    from json import dumps

    from aligntax.atlas.choosing import choose
    from aligntax.atlas.ratings import Columns, read_ratings
    from aligntax.core.words import level_text, percent
    from aligntax.report.terminal import console

    read = read_ratings(ratings, Columns(scale=_scale(scale)))
    found, names = choose(read, size, controls=words(control), anchors=words(anchor), tau=tau, held_out=held_out, level=level, seed=seed)
    if json:
        typer.echo(dumps({"models": names, **asdict(found)}, indent=1))
        return
    screen = console()
    screen.print(", ".join(map(printable, names)), style="bold", markup=False, highlight=False)
    how = (
        f"of all {found.compared:,} councils"
        if found.exhaustive
        else f"by search among {found.compared:,} councils, which may have missed the best"
    )
    screen.print(
        f"chosen {how}, on {found.chosen_on} divided pairs (blind on {percent(found.chosen_rate, 0)} of these, which choosing flatters)"
    )
    screen.print(
        f"on {found.verified_on} pairs held out it is blind on {percent(found.rate, 0)}, a council drawn at random on {percent(found.random_rate, 0)}: "
        f"{100 * found.difference:+.0f} points, {level_text(found.level)} interval {100 * found.low:+.0f} to {100 * found.high:+.0f}"
    )
    if found.low <= 0 <= found.high:
        screen.print("that it sees more than one drawn at random is not shown: more divided pairs are needed, or a larger council")


@app.command("pairs")
def pairs_(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Pairs of your own; default the set that ships.", show_default=False)
    ] = None,
    copy: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="Copy the set that ships to a file, to begin your own with.")
    ] = None,
) -> None:
    """How well the categories of a set of pairs are matched, in length, overlap, negation and expected rating (docs/stimuli.md)."""
    from importlib.resources import files

    from aligntax.atlas.pairs import against_checklist, matching_report, read_pairs, standard_pairs
    from aligntax.store.run import write_text

    if copy is not None:
        if file is not None:
            raise InputError("--copy copies the set that ships: name no file beside it")
        note(f"copied to {write_text(copy, (files('aligntax.atlas') / 'stimuli' / 'pairs-1.csv').read_text(encoding='utf-8'))}")
        return
    found = standard_pairs() if file is None else read_pairs(file)
    typer.echo(matching_report(found))
    for text in against_checklist(found):
        note(f"! {printable(text)}")


app.command("tell")(tell)
