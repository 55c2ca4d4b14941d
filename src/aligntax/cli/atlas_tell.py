"""``aligntax atlas tell``: what models tell in several voices, and how alike raters find it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.cli.atlas_asking import ask, counted, plan_table, price_text, words
from aligntax.cli.shared import note
from aligntax.core.errors import AligntaxError

if TYPE_CHECKING:
    from aligntax.atlas.run import Run
    from aligntax.atlas.tellings import TellingPlan


def tell(
    roster: Annotated[Path, typer.Argument(metavar="ROSTER.yaml", help="Which models tell, as for run.", show_default=False)],
    raters: Annotated[
        Path, typer.Option(metavar="RATERS.yaml", help="A second roster: which models rate, the same for all tellers.", show_default=False)
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What is told of: topic, voice, prompt, and for models without a chat template raw, stop. Default: the set that ships.",
        ),
    ] = None,
    tellings: Annotated[
        int, typer.Option(metavar="N", min=2, max=1000, help="Of each prompt; two in one voice are what two voices are held against.")
    ] = 2,
    temperature: Annotated[float, typer.Option(metavar="T", min=0, max=2, help="Of telling; at 0 tellings in one voice are one.")] = 1.0,
    max_tokens: Annotated[int, typer.Option(metavar="N", min=4, max=100_000, help="Longest telling, in tokens.")] = 300,
    variants: Annotated[
        str, typer.Option(metavar="A,B,C", help="Wordings of the raters' question: anchored, ends, contradiction; lab for embedded models.")
    ] = "ends",
    orders: Annotated[str, typer.Option(metavar="AB,BA", help="Orders of the two tellings.")] = "AB,BA",
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="How often each rater is asked.")] = 1,
    scale: Annotated[
        str,
        typer.Option(metavar="SCALE", help="dec2: 0.00 to 1.00; d9: a digit, with expected ratings from log-probabilities; pct: 0 to 100."),
    ] = "dec2",
    rating_temperature: Annotated[float, typer.Option(metavar="T", min=0, max=2, help="Of rating.")] = 0.0,
    rating_tokens: Annotated[int, typer.Option(metavar="N", min=4, help="Longest reply of a rater; reasoning models need more.")] = 16,
    expect: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What you expect, written down: hashed before the first call.")
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="The first N topics.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, max=2**31 - 1, help="Of the order of calls and of sampling.")] = 0,
    device: Annotated[str, typer.Option(metavar="NAME", help="For local models: auto, cpu, cuda.")] = "auto",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="What would be asked, how long it may take and cost; nothing is asked.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of both runs; default atlas-runs/<identity>. The same command goes on where it stopped."),
    ] = None,
) -> None:
    """What models tell: each tells of one topic in two voices, and raters say how alike the tellings are.

    A model may rate as it did before it was aligned and yet tell one story for all. Raters compare a model's tellings of a
    topic in two voices, and two tellings in one voice, which are as alike as its tellings are anyway. ratings.csv has the
    teller as the model: analyse reads it like any other, and where the roster names parents, writes the ledger of stages.

    For example:

      aligntax atlas tell roster.yaml --raters raters.yaml --dry-run

      aligntax atlas tell roster.yaml --raters raters.yaml --expect expectations.md --out told
    """
    from aligntax.atlas.protocol import protocol_of
    from aligntax.atlas.roster import read_roster
    from aligntax.atlas.run import CALLS, notes, ready, shown_protocol
    from aligntax.atlas.run import outcomes as rated_outcomes
    from aligntax.atlas.tellings import (
        TellingProtocol,
        finish,
        first_topics,
        outcomes,
        planned_ratings,
        planned_tellings,
        read_prompts,
        standard_prompts,
        telling_plan,
    )
    from aligntax.atlas.tellings import notes as told_notes
    from aligntax.core.words import items_text, printable

    found = standard_prompts() if prompts is None else read_prompts(prompts)
    plan = telling_plan(
        found if limit is None else first_topics(found, limit),
        TellingProtocol(repeats=tellings, temperature=temperature, max_tokens=max_tokens, seed=seed),
    )
    how = protocol_of({
        "variants": words([variants]), "orders": words([orders]), "repeats": repeats, "scale": scale, "temperature": rating_temperature,
        "max_tokens": rating_tokens, "seed": seed,
    })  # fmt: skip
    tellers, judges = read_roster(roster), read_roster(raters)
    target = out or Path("atlas-runs") / plan.identity[:16]
    told = planned_tellings(target, plan, tellers, expect)
    rated = planned_ratings(target, told, plan, how, judges, expect, guess=True)
    if dry_run:
        _say_plans(target, told, rated, plan)
        return
    ready(rated)  # before anybody is paid for telling
    note(
        f"{items_text(len(plan.prompts.voices), 'topic')}, {len(plan.prompts.prompts)} prompts, {tellings} tellings each at temperature {temperature:g}: {items_text(len(tellers.models), 'teller')}"
    )
    ask(told, device)
    for name, counts in outcomes(told, plan).items():
        note(f"{printable(name)} told: {counted(counts)}")
    rated = planned_ratings(target, told, plan, how, judges, expect)
    note(
        f"{items_text(len(rated.plan.pairs.pairs), 'couple')} of tellings, {items_text(len(judges.models), 'rater')}: {shown_protocol(how)}"
    )
    ask(rated, device)
    ratings, models = finish(target, told, rated, plan)
    judged = rated_outcomes(rated)
    for name, of in judged.items():
        note(f"{printable(name)} rated: {counted(of)}")
    for text in (*told_notes(told, plan, judges), *notes(rated)):
        note(f"! {text}")
    if not any("ok" in of for of in judged.values()):
        raise AligntaxError(
            f"no telling was rated; every attempt is in {told.out / CALLS} and {rated.out / CALLS}, and the same command asks again"
        )
    if missing := sum(map(len, (*told.left.values(), *rated.left.values()))):
        note(f"{missing:,} calls have no answer yet; the same command makes them")
    note(f"ratings: {ratings}")
    note(f"analyse: aligntax atlas analyse {ratings} --models {models} --out {target}")


def _say_plans(target: Path, told: Run, rated: Run, plan: TellingPlan) -> None:
    """Both runs as tables: what is left, tokens, time and price."""
    from aligntax.atlas.run import estimates, shown_protocol
    from aligntax.core.words import items_text, printable
    from aligntax.report.terminal import console

    screen = console()
    both = []
    for what, run in (("tells", told), ("rates", rated)):
        found = estimates(run)
        screen.print(plan_table(run, found, what))
        both += found
    p = plan.protocol
    price = price_text(told, both) if told.roster.currency == rated.roster.currency else ""
    left = sum(map(len, (*told.left.values(), *rated.left.values())))
    screen.print(
        f"{items_text(len(plan.prompts.voices), 'topic')}, {len(plan.prompts.prompts)} prompts, {p.repeats} tellings each at temperature {p.temperature:g}, up to {p.max_tokens} tokens; "
        f"{items_text(len(rated.plan.pairs.pairs), 'couple')} of tellings; {shown_protocol(rated.plan.protocol)}."
    )
    screen.print(
        f"{left:,} calls{price}; nothing was asked. Tokens are guessed from letters, tellings that are not there yet taken to be as long as they may, and retries come on top. "
        f"The runs would be in {printable(str(target))}"
    )
