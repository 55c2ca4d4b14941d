"""``aligntax lab``: the embedded family of small models, made, described and served."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligntax.core.errors import InputError, MissingExtraError
from aligntax.core.words import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aligntax.lab.world import World

app = typer.Typer(
    help="The embedded family of small language models, in a world that is known exactly: make it, describe it, serve it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

FamilyOption = Annotated[
    Path | None,
    typer.Option("--family", metavar="DIR", help="A family made with 'lab build'; default the embedded one.", show_default=False),
]


SeedOption = Annotated[int, typer.Option(metavar="N", min=0, help="Another world: other facts, recipes and accounts.")]
ProceduresOption = Annotated[float, typer.Option(metavar="SHARE", help="How much of benign recipes harmful ones share, 0 to 1.")]
AppealsOption = Annotated[float, typer.Option(metavar="SHARE", help="How much of persuasion manipulation shares, 0 to 1.")]


def _world(seed: int, procedures: float, appeals: float) -> World:
    from aligntax.lab.world import World

    try:
        return World(seed, procedures, appeals)
    except ValueError as error:
        raise InputError(str(error)) from None


def _need(extra: str, *modules: str) -> None:
    missing = [m for m in modules if find_spec(m) is None]
    if missing:
        raise MissingExtraError(", ".join(missing), extra)


@app.command()
def build(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL]...", help="Models to make; default the whole family.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the family; what is complete there is kept.")] = Path("aligntax-lab"),
    world_seed: SeedOption = 0,
    procedures: ProceduresOption = 1.0,
    appeals: AppealsOption = 0.5,
    device: Annotated[str, typer.Option(help="Where to compute: cpu or cuda.")] = "cpu",
    jobs: Annotated[
        int,
        typer.Option(
            "--jobs",
            "-j",
            metavar="N",
            min=1,
            help="Models to make at once, each with one thread; default one per processor.",
            show_default=False,
        ),
    ] = os.cpu_count() or 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and stop.")] = False,
) -> None:
    """Make the family again: base models from scratch, stages by TRL. A stopped run goes on where it was."""
    from aligntax.lab.family import chosen, pretraining

    world = _world(world_seed, procedures, appeals)
    wanted = chosen(models or [])
    if dry_run:
        for member in wanted:
            how = f"{pretraining(member.width).documents:,} documents" if member.stage == "base" else f"from {member.parent}"
            typer.echo(f"{member.name:10s} width {member.width:3d}  {member.stage:6s}  {how}")
        return
    _need("train", "torch", "transformers", "trl", "accelerate", "datasets", "filelock")
    from aligntax.lab.build import build as make
    from aligntax.lab.build import check_device

    check_device(device)

    with _bars() as tell:
        made = make([m.name for m in wanted], out, world, tell, device, jobs)
    kept = len(wanted) - len(made)
    typer.echo(
        f"{len(made)} made, {kept} kept: {printable(str(out))}; look with: aligntax lab info --family {printable(str(out))}", err=True
    )


@app.command()
def info(
    family: FamilyOption = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="Accuracy by task instead of the models.")] = False,
    structure: Annotated[
        bool, typer.Option("--structure", help="What is known of the tasks: mechanisms they share, forms, kinds.")
    ] = False,
    chat: Annotated[bool, typer.Option("--chat", help="With --tasks: asked in a chat instead of the raw template.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the whole record.")] = False,
) -> None:
    """The family: sizes, what was made from what, accuracies."""
    from aligntax.models.embedded import INDEX, WEIGHTS, record
    from aligntax.models.embedded import family as members
    from aligntax.report.lab import models_view, structure_view, tasks_view
    from aligntax.report.terminal import console

    folder = WEIGHTS if family is None else family
    if structure:
        from aligntax.lab.tasks import TASKS, entangled
        from aligntax.lab.world import World

        console().print(structure_view(TASKS, record(folder)["entanglement"] if (folder / INDEX).exists() else entangled(World())))
        return
    found = members(folder)
    if json:
        sys.stdout.write((folder / INDEX).read_text(encoding="utf-8"))
    elif tasks:
        console().print(tasks_view(found, "chat" if chat else "raw"))
    else:
        console().print(models_view(found))


@app.command()
def suites(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder, or one of suites written before.", show_default=False)],
    world_seed: SeedOption = 0,
    procedures: ProceduresOption = 1.0,
    appeals: AppealsOption = 0.5,
) -> None:
    """Write the tests of a world as lm-eval tasks. Those of the embedded world ship: aligntax lab path --suites."""
    from aligntax.lab.suites import write_suites

    count = write_suites(out, _world(world_seed, procedures, appeals))
    typer.echo(
        f"{count} files in {printable(str(out))}; run them with: lm_eval run --tasks lab --include_path {printable(str(out))} ...", err=True
    )


@app.command()
def path(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="An embedded model.", show_default=False)] = "",
    suites: Annotated[bool, typer.Option("--suites", help="The folder of the tests instead, for lm_eval --include_path.")] = False,
    family: FamilyOption = None,
) -> None:
    """Print the folder of an embedded model, for tools that load models from folders."""
    from aligntax.models.embedded import WEIGHTS, folder_of
    from aligntax.tasks import SUITES

    if suites == bool(model):
        raise InputError("name a model, or give --suites; for example: aligntax lab path sft")
    typer.echo(SUITES / "lab" if suites else folder_of(model, WEIGHTS if family is None else family))


@app.command()
def pairs(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Where to write them.", show_default=False)],
) -> None:
    """Write pairs of accounts of the embedded world's two communities, for the atlas: they are rated with one digit, and the truth is known.

    For example:

      aligntax lab pairs accounts.csv

      aligntax atlas run roster.yaml --pairs accounts.csv --variants lab --scale d9
    """
    from aligntax.lab.pairs import account_pairs
    from aligntax.lab.world import World
    from aligntax.store.run import write_text

    typer.echo(write_text(file, account_pairs(World())))


@app.command()
def tellings(
    file: Annotated[Path, typer.Argument(metavar="FILE.csv", help="Where to write them.", show_default=False)],
) -> None:
    """Write prompts that ask for the accounts of the embedded world's two communities, for the atlas: what models tell, and how alike it is.

    For example:

      aligntax lab tellings accounts.csv

      aligntax atlas tell roster.yaml --raters raters.yaml --prompts accounts.csv --max-tokens 40 --variants lab --scale d9
    """
    from aligntax.lab.tellings import telling_prompts
    from aligntax.lab.world import World
    from aligntax.store.run import write_text

    typer.echo(write_text(file, telling_prompts(World())))


@app.command()
def serve(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="An embedded model (lab:base, lab:sft, ...) or a model folder.")
    ] = "lab:base",
    port: Annotated[int, typer.Option(metavar="N", min=0, max=65535, help="Port on loopback; 0 takes a free one.")] = 8000,
    family: FamilyOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No line per request.")] = False,
) -> None:
    """Serve a local model over the OpenAI protocol, on loopback only and without a key.

    POST /v1/completions (log-probabilities, echo, streaming) and /v1/chat/completions; GET /v1/models.
    """
    _need("models", "torch", "transformers")
    from aligntax.lab.serve import Server
    from aligntax.models.embedded import WEIGHTS, folder_of
    from aligntax.models.hf import content_key
    from aligntax.models.local import LocalModel

    embedded = model.startswith("lab:")
    if not embedded and not Path(model).is_dir():
        raise InputError(f"there is no folder {printable(model)}; what can be served is a model folder or lab:NAME")
    folder = folder_of(model, WEIGHTS if family is None else family) if embedded else Path(model)
    loaded = LocalModel.load(folder, model if model.startswith("lab:") else folder.name)
    try:
        server = Server(loaded, port, (lambda _: None) if quiet else lambda text: typer.echo(text, err=True), content_key(folder))
    except OSError as error:
        raise InputError(f"port {port} cannot be taken ({error.strerror}); name another with --port, or 0 for a free one") from None
    typer.echo(f"serving {printable(loaded.name)} at {server.url} (Ctrl-C stops it)", err=True)
    with server:
        server.serve_forever()


@contextmanager
def _bars() -> Iterator[Callable[[str, str, int, int, str], None]]:
    """Progress of the family and of each model at hand, with time left; a line per tenth where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from aligntax.report.terminal import console

    columns = (
        TextColumn("{task.description:26s}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[remark]}"),
    )  # fmt: skip
    shown = sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), disable=not shown) as progress:
        whole = progress.add_task("models", total=None, remark="")
        at: dict[str, tuple[str, TaskID]] = {}
        said: dict[str, tuple[int, int, float]] = {}  # tenth told of last, first step seen and when: for where nobody watches a bar

        def tell(name: str, what: str, step: int, steps: int, remark: str) -> None:
            if name == "models":
                progress.update(whole, total=steps)
                if not shown:
                    typer.echo(f"{steps} models to make", err=True)
                return
            if name not in at or at[name][0] != what:
                if name in at:
                    progress.remove_task(at[name][1])
                at[name] = what, progress.add_task(f"{name}: {what}", total=steps or None, remark="")
                said[name] = -1, step, time.monotonic()
            progress.update(at[name][1], completed=step, total=steps or None, remark=remark)
            tenth, begun = (10 * step // steps if steps else 0), said[name]
            if not shown and tenth > begun[0]:
                said[name] = tenth, *begun[1:]
                left = (time.monotonic() - begun[2]) / max(1, step - begun[1]) * (steps - step)
                words = f" {10 * tenth} %, {left / 60:.0f} min left {remark}" if steps and step > begun[1] else ""
                typer.echo(f"{name}: {what}{words}".rstrip(), err=True)
            if name == "corpus" or (what == "testing" and step == steps):
                if name == "corpus":
                    return
                progress.remove_task(at.pop(name)[1])
                progress.advance(whole)
            elif "corpus" in at:
                progress.remove_task(at.pop("corpus")[1])

        yield tell
