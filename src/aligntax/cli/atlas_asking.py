"""What commands that ask an ensemble share: what they say before, while and after they ask."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aligntax.cli.shared import note
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rich.table import Table

    from aligntax.atlas.run import Estimate, Run


def words(values: Sequence[str] | None) -> tuple[str, ...]:
    """Parts of an option that takes several, with commas or again."""
    return tuple(part.strip() for value in values or () for part in value.split(",") if part.strip())


def counted(counts: Mapping[str, int]) -> str:
    """How often each, the most frequent first."""
    return ", ".join(f"{status} {n:,}" for status, n in sorted(counts.items(), key=lambda kv: -kv[1])) or "nothing"


def ask(run: Run, device: str) -> None:
    """Ask what is left of a run, with its progress."""
    from aligntax.atlas.run import CALLS, collect, probes

    try:
        for name, facts in probes(run):
            _say_probe(printable(name), facts)
        with _bar(sum(map(len, run.left.values()))) as tell:
            collect(run, tell, device)
    except KeyboardInterrupt:
        note(f"stopped; what was answered is in {run.out / CALLS}, and the same command goes on from there")
        raise


def plan_table(run: Run, estimates: Sequence[Estimate], what: str = "model") -> Table:
    """What is left of a run by model: calls, tokens, time and price."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in (what, "is", "calls", "left", "tokens in", "tokens out", "time", "price"):
        table.add_column(heading, justify="left" if heading in (what, "is") else "right")
    for one in estimates:
        rater = run.roster.models[one.model]
        table.add_row(
            Text(printable(one.model)), Text(printable(rater.reference.label)), f"{one.calls:,}", f"{one.left:,}", f"~ {one.tokens_in:,}", f"<= {one.tokens_out:,}",
            "-" if one.seconds is None else f"~ {one.seconds / 60:.1f} min", "-" if one.price is None else f"~ {one.price:,.2f} {printable(run.roster.currency)}",
        )  # fmt: skip
    return table


def price_text(run: Run, estimates: Sequence[Estimate]) -> str:
    """What a run may cost; empty where no price is known."""
    prices = [one.price for one in estimates if one.price is not None]
    if not prices:
        return ""
    return (
        f", about {sum(prices):,.2f} {printable(run.roster.currency)}{'' if len(prices) == len(estimates) else ' where a price is known'}"
    )


def _say_probe(name: str, facts: dict[str, Any]) -> None:
    """What an endpoint can do, before it is asked all that it will be paid for."""
    if not facts["answers"]:
        note(f"{name} does not answer: {facts['why']}")
        return
    note(f"{name}: served as {printable(str(facts['served']))}, log-probabilities: {facts['logprobs']}")
    if facts.get("left_out"):
        note(f"{name}: takes no {', '.join(facts['left_out'])}")
    if facts.get("thinks"):
        note(f"{name}: thinks before it answers")
    if facts.get("advice"):
        note(f"{name}: its reply was cut short: {facts['advice']}")


def _counted(advance: Callable[[int], None]) -> Callable[[str, int, int], None]:
    """What is told of single models, as steps of all calls."""
    before: dict[str, int] = {}

    def tell(model: str, known: int, _of: int) -> None:
        advance(max(0, known - before.setdefault(model, known - 1)))
        before[model] = known

    return tell


def _tenths(total: int) -> Callable[[int], None]:
    """A line for every tenth."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        tenth, done = 10 * done // max(1, total), done + more
        if 10 * done // max(1, total) > tenth:
            note(f"{done:,} of {total:,} calls")

    return advance


@contextmanager
def _bar(total: int) -> Iterator[Callable[[str, int, int], None]]:
    """Progress over all calls; on a terminal a bar, else a line for every tenth."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _counted(_tenths(total))
        return
    with Progress(TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task("asking", total=total)
        yield _counted(lambda more: progress.advance(task, more))
