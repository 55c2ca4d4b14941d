"""What models tell, not how they rate: each tells of one topic in several voices, and raters, the same for all, say how alike these tellings are.

    told/            every telling as it was asked for, a run of its own (``run``)
    rated/           every reply of the raters, another
    tellings.jsonl   what was told, a line each: derived
    ratings.csv      how alike a model's tellings are, the teller as the model: derived, a table of ratings like any other
    models.csv       what is known of the tellers

Two categories. ``two_voices``: one topic in two voices. ``same_voice_control``: two tellings in one voice, as alike as a model's tellings are anyway. A stage
whose two voices come closer than its parent's, and whose tellings in one voice do not, has flattened what it tells.

A prompt is asked for as a pair of sentences is: what endpoints and local models take, what is kept of every attempt, and how a run goes on is all of ``run``.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.resources import as_file, files
from itertools import combinations, product
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from aligntax.atlas.asking import Line
from aligntax.atlas.pairs import MAX_NAME, MAX_TEXT, Pair, PairSet
from aligntax.atlas.protocol import Call, Order, Plan, Protocol
from aligntax.atlas.replies import Scale, read
from aligntax.atlas.roster import Roster
from aligntax.atlas.run import MODELS, PLAN, RATINGS, Run, derived, models_table, planned
from aligntax.core.errors import InputError, LogError, RunError
from aligntax.core.ids import canonical_json, digest
from aligntax.core.refusals import phrases
from aligntax.core.words import cut, items_text, printable
from aligntax.store.columns import Texts, read_columns
from aligntax.store.jsonio import shown
from aligntax.store.run import write_text

STANDARD = "tellings-1.csv"
"""The shipped prompts. They never change: others are another file, with the next number."""
NEEDED = ("topic", "voice", "prompt")
TWO_VOICES, SAME_VOICE = "two_voices", "same_voice_control"
TOLD, RATED, TELLINGS = "told", "rated", "tellings.jsonl"
COLUMNS = ("pair", "category", "model", "rating", "order", "variant", "repeat", "topic", "status", "mode", "flags", "call")
TELLING = "telling"
"""The wording of a call that asks for a telling: the prompt's own."""
PARAGRAPH = "\n\n"
"""Where what a model without a chat template tells ends, unless the table says otherwise."""
_LETTERS = 16
"""Characters of a token, at most, over a whole telling: a server that writes more does not keep to the limit, and raters are paid by length."""
_GUESS = 4
"""Characters of a token, for tellings that are not there yet."""
_WE = re.compile(r"\bwe\b", re.I)


# -- prompts -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prompt:
    """A topic, the voice it is to be told in, and how that is asked for.

    Attributes:
        topic, voice: names.
        text: of the request.
        raw: what a model without a chat template writes on from. stop: the text that ends what it writes.
    """

    topic: str
    voice: str
    text: str
    raw: str
    stop: str


@dataclass(frozen=True)
class Compared:
    """Two voices of a topic, or one voice with itself: what is compared of every teller."""

    topic: str
    one: str
    two: str

    @property
    def category(self) -> str:
        return SAME_VOICE if self.one == self.two else TWO_VOICES

    @property
    def name(self) -> str:
        """The same for all tellers."""
        return f"{self.topic}: {self.one} / {self.two}"


@dataclass(frozen=True)
class Prompts:
    """A table of prompts; ``source`` is its file."""

    prompts: tuple[Prompt, ...]
    source: str

    @cached_property
    def voices(self) -> dict[str, list[str]]:
        """By topic, in the order of the table."""
        out: dict[str, list[str]] = {}
        for one in self.prompts:
            out.setdefault(one.topic, []).append(one.voice)
        return out

    @cached_property
    def compared(self) -> tuple[Compared, ...]:
        return tuple(
            Compared(topic, one, two)
            for topic, voices in self.voices.items()
            for one, two in (*combinations(voices, 2), *((voice, voice) for voice in voices))
        )

    @property
    def pairs(self) -> PairSet:
        """Prompts as what a run asks about. The identity is that of all that a model may be shown."""
        kept = tuple(Pair(canonical_json([p.topic, p.voice]), p.voice, p.topic, p.text, p.raw, None) for p in self.prompts)
        rows = sorted([p.topic, p.voice, p.text, p.raw, p.stop] for p in self.prompts)
        return PairSet(kept, self.source, digest(rows))


def standard_prompts() -> Prompts:
    """Those that ship with the package."""
    with as_file(files("aligntax.atlas") / "stimuli" / STANDARD) as path:
        return read_prompts(path)


def first_topics(prompts: Prompts, count: int) -> Prompts:
    """The first topics with all their voices."""
    some = [*prompts.voices][:count]
    return Prompts(tuple(p for p in prompts.prompts if p.topic in some), f"{prompts.source}, the first {items_text(count, 'topic')}")


def read_prompts(path: Path) -> Prompts:
    """Prompts from a table with the columns ``topic``, ``voice``, ``prompt``, and for models without a chat template ``raw`` and ``stop``.

    Args:
        path: CSV, TSV, JSON lines or Parquet, a row per topic and voice. Other columns are left alone. Without ``raw`` such a model writes on from the prompt and
            an empty line, without ``stop`` to the next empty line.

    Raises:
        LogError: on what cannot be read, or is no table of prompts; the row is named.
    """
    table, where = read_columns(path), shown(path)
    if gone := [name for name in NEEDED if name not in table]:
        raise LogError(
            f"{where} has no column {' or '.join(gone)}; it has {cut(', '.join(map(printable, table)), 300)}. A table of prompts has a row per topic and voice "
            "with topic, voice and prompt, and may have raw and stop"
        )
    found = Prompts(tuple(_prompt(table, at, f"{where}, row {at + 1}") for at in range(len(table["topic"]))), path.name)
    _distinct(found, where)
    return found


def _prompt(table: Mapping[str, Texts], at: int, where: str) -> Prompt:
    topic, voice = (_cell(table, at, column, where, MAX_NAME) for column in ("topic", "voice"))
    if topic is None or voice is None:
        raise LogError(f"{where} has no {'topic' if topic is None else 'voice'}")
    text = _cell(table, at, "prompt", where, MAX_TEXT)
    if text is None:
        raise LogError(f"{where} has no prompt: how {cut(printable(voice), 60)} is asked to tell of {cut(printable(topic), 60)}")
    raw, stop = (_cell(table, at, column, where, MAX_TEXT) for column in ("raw", "stop"))
    return Prompt(topic, voice, text, f"{text}{PARAGRAPH}" if raw is None else raw, stop or PARAGRAPH)


def _cell(table: Mapping[str, Texts], at: int, column: str, where: str, longest: int) -> str | None:
    """A cell; what is asked may have several lines, a name has one.

    Raises:
        LogError: if it is too long, or holds what cannot be seen.
    """
    cell = table[column][at] if column in table else None
    if cell is None:
        return None
    text = str(cell).replace("\r\n", "\n")
    if len(text) > longest:
        raise LogError(f"{where}: {column} has {len(text):,} characters; {longest:,} are allowed")
    if printable(text, keep_newlines=longest == MAX_TEXT) != text:
        raise LogError(f"{where}: {column} holds characters that cannot be seen: {cut(printable(text), 100)}; leave them out")
    return text


def _distinct(prompts: Prompts, where: str) -> None:
    """Every voice of a topic once, two voices or more, and no two comparisons of one name.

    Raises:
        LogError: naming them.
    """
    rows: dict[tuple[str, ...], int] = {}
    for at, one in enumerate(prompts.prompts):
        first = rows.setdefault(tuple(unicodedata.normalize("NFKC", name).casefold() for name in (one.topic, one.voice)), at)
        if first != at:
            raise LogError(
                f"{where}, row {at + 1} has {cut(printable(one.topic), 60)} in the voice {cut(printable(one.voice), 60)}, as row {first + 1} has; "
                "every voice of a topic stands there once (capitals do not tell them apart)"
            )
    for topic, voices in prompts.voices.items():
        if len(voices) < 2:
            raise LogError(
                f"{where}: {cut(printable(topic), 60)} is told in one voice, {cut(printable(voices[0]), 60)}; a topic has two or more"
            )
    count = Counter(one.name for one in prompts.compared)
    if twice := next((name for name, n in count.items() if n > 1), None):
        raise LogError(
            f"{where}: {cut(printable(twice), 200)} could be two comparisons of voices; rename a topic or a voice so that it is one"
        )


# -- the plan ------------------------------------------------------------------------------------------------------------------


class TellingProtocol(Protocol):
    """How tellings are asked for; of the settings of a protocol these matter: ``repeats`` (tellings of each prompt), ``temperature``, ``max_tokens``, ``seed``."""

    orders: tuple[Order, ...] = ("AB",)
    variants: tuple[str, ...] = (TELLING,)
    repeats: Annotated[int, Field(ge=2, le=1000)] = 2
    scale: Scale = "dec2"
    logprobs: bool = False
    reprompt: bool = False
    max_tokens: Annotated[int, Field(ge=4, le=100_000)] = 300

    @model_validator(mode="after")
    def _known(self) -> TellingProtocol:
        return self  # the wording is the prompt's own


@dataclass(frozen=True)
class TellingPlan(Plan):
    """Every telling of a run; ``telling_plan`` makes one. A prompt stands where a pair does in ``Plan``."""

    prompts: Prompts

    @cached_property
    def identity(self) -> str:
        return digest([TELLING, self.protocol.model_dump(mode="json"), self.pairs.identity])

    def text(self, call: Call) -> str:
        return self.prompt(call).text

    def raw(self, call: Call) -> str:
        return self.prompt(call).raw

    def stops(self, call: Call) -> tuple[str, ...]:
        return (self.prompt(call).stop,)

    def prompt(self, call: Call) -> Prompt:
        """What a call asks for."""
        return self.prompts.prompts[call.pairs[0]]


def telling_plan(prompts: Prompts, protocol: TellingProtocol) -> TellingPlan:
    """Every telling that is to be asked for."""
    return TellingPlan(protocol, prompts.pairs, prompts)


def planned_tellings(out: Path, plan: TellingPlan, tellers: Roster, expectations: Path | None = None) -> Run:
    """The run of the tellers, new or begun before, in ``out``/told.

    Raises:
        InputError, RunError: as ``run.planned``; if ``out`` holds something else.
    """
    try:
        if not (out / TOLD / PLAN).exists() and out.exists() and any(path.name not in (TOLD, RATED) for path in out.iterdir()):
            raise InputError(f"{printable(str(out))} holds files and no tellings; name a new or empty folder with --out")
    except OSError as error:
        raise RunError(f"{printable(str(out))} cannot be read: {error.strerror}") from None
    return planned(out / TOLD, plan, tellers, expectations)


def planned_ratings(
    out: Path, told: Run, plan: TellingPlan, protocol: Protocol, raters: Roster, expectations: Path | None = None, *, guess: bool = False
) -> Run:
    """The run of the raters in ``out``/rated: every couple of tellings that is there.

    Which tellings come is not known when the raters are planned, so the set of pairs has the identity of the tellers' plan; a call's key holds the texts.

    Args:
        out: the folder of both runs.
        told: the run of the tellers.
        plan: theirs.
        protocol: how couples are shown.
        raters: whom.
        expectations: as of ``run.planned``.
        guess: whether what is not told yet counts as told, as long as it may be: for an estimate.

    Raises:
        InputError, RunError: as ``run.planned``.
    """
    some = [couple for couple in couples(told, plan) if couple.missing is None or (guess and couple.open)]
    unknown = "x" * (_GUESS * plan.protocol.max_tokens)
    pairs = []
    for couple in some:
        one, two = (telling.text if telling.status == "ok" else unknown for telling in (couple.one, couple.two))
        pairs.append(Pair(couple.key, couple.of.category, couple.of.topic, one, two, None))
    return planned(
        out / RATED, Plan(protocol, PairSet(tuple(pairs), f"tellings of {plan.pairs.source}", plan.identity)), raters, expectations
    )


# -- what was told -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Telling:
    """What one call came to.

    Attributes:
        call: its key.
        status: ``ok``, or why there is nothing to compare: ``not asked``, ``failed``, ``filtered``, ``wrong_model``, ``refusal``, ``empty``, ``truncated`` (cut short
            before it began) or ``overlong`` (much longer than was allowed).
        text: what is compared, thoughts left out.
        flags: ``cut_short`` (compared as it is), ``finish_unknown``, ``think``.
    """

    call: str
    status: str
    text: str = ""
    flags: tuple[str, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it may still come."""
        return self.status in ("not asked", "failed")


def tellings(told: Run, plan: TellingPlan) -> dict[tuple[str, Prompt, int], Telling]:
    """By teller, prompt and number from 1."""
    longest = _LETTERS * plan.protocol.max_tokens
    return {
        (call.model, plan.prompt(call), call.repeat): _telling(call.key, told.line(call), longest)
        for name in told.roster.models
        for call in sorted(told.calls[name], key=lambda c: (c.pairs, c.repeat))
    }


def _telling(key: str, line: Line | None, longest: int) -> Telling:
    if line is None:
        return Telling(key, "not asked")
    if line["outcome"] != "reply":
        return Telling(key, str(line["outcome"]))
    # What an empty reply would be that ended so: filtered, refused, cut short or at its end.
    ended = read("", "dec2", finish_reason=line.get("finish_reason"), refusal=line.get("refusal"))
    if ended.status in ("filtered", "refusal"):
        return Telling(key, ended.status)
    said, thought = _said(str(line["text"]))
    if not said:
        return Telling(key, ended.status)
    if len(said) > longest or line.get("cut"):
        return Telling(key, "overlong")
    # Who is told of may say "we will not"; who refuses to tell says "I".
    if phrases(_WE.sub("they", said)) == "full_refusal":
        return Telling(key, "refusal")
    unsure = "finish_unknown" in ended.flags
    flags = (*(["finish_unknown"] if unsure else ["cut_short"] if ended.status == "truncated" else []), *(["think"] if thought else []))
    return Telling(key, "ok", said, flags)


def _said(text: str) -> tuple[str, bool]:
    """What stands after a model's thoughts, and whether there were any; half of a surrogate pair is no character, and cannot be sent."""
    before, ended, said = text.rpartition("</think>")
    if not ended and text.lstrip().startswith("<think>"):
        before, said = text, ""
    return said.strip().encode("utf-16", "surrogatepass").decode("utf-16", "replace"), bool(before or ended)


@dataclass(frozen=True)
class Couple:
    """Two tellings of one model that are compared; ``number`` counts those of one comparison, from 1."""

    teller: str
    of: Compared
    number: int
    one: Telling
    two: Telling

    @property
    def key(self) -> str:
        """Its name among the raters' pairs."""
        return canonical_json([self.teller, self.of.topic, self.of.one, self.of.two, self.number])

    @property
    def missing(self) -> str | None:
        """Why it cannot be rated; None if it can."""
        return next((one.status for one in (self.one, self.two) if one.status != "ok"), None)

    @property
    def open(self) -> bool:
        """Whether both may still be told."""
        return all(one.status == "ok" or one.open for one in (self.one, self.two))

    @property
    def flags(self) -> tuple[str, ...]:
        found = {f"telling_{flag}" for one in (self.one, self.two) for flag in one.flags}
        return (*sorted(found), *(["identical"] if self.missing is None and self.one.text == self.two.text else []))


def couples(told: Run, plan: TellingPlan) -> list[Couple]:
    """Of every teller: its tellings in two voices, first with first, second with second, ...; in one voice first with second, third with fourth, ..."""
    found, prompts = tellings(told, plan), {(p.topic, p.voice): p for p in plan.prompts.prompts}
    count = plan.protocol.repeats
    out = []
    for teller, of in product(told.roster.models, plan.prompts.compared):
        one, two = prompts[of.topic, of.one], prompts[of.topic, of.two]
        same = of.category == SAME_VOICE
        numbers = [(2 * n - 1, 2 * n) if same else (n, n) for n in range(1, (count // 2 if same else count) + 1)]
        out += [Couple(teller, of, n, found[teller, one, a], found[teller, two, b]) for n, (a, b) in enumerate(numbers, 1)]
    return out


# -- what follows from both runs -----------------------------------------------------------------------------------------------


def finish(out: Path, told: Run, rated: Run, plan: TellingPlan) -> tuple[Path, Path]:
    """Write what follows from both runs: tellings.jsonl, ratings.csv and models.csv; the paths of the latter two.

    Raises:
        RunError: if they cannot be written.
    """
    write_text(out / TELLINGS, _told_lines(told, plan))
    return write_text(out / RATINGS, _ratings(told, rated, plan)), write_text(out / MODELS, models_table(told.roster))


def _told_lines(told: Run, plan: TellingPlan) -> str:
    """In ASCII: whatever a model tells, a line is a line, and does nothing to a terminal."""
    rows = [
        {"model": name, "topic": p.topic, "voice": p.voice, "telling": number, "status": one.status, "flags": one.flags, "text": one.text, "call": one.call}
        for (name, p, number), one in tellings(told, plan).items()
    ]  # fmt: skip
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _ratings(told: Run, rated: Run, plan: TellingPlan) -> str:
    """A row per rating that was planned, whatever came of it."""
    replies = _replies(rated)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for couple in couples(told, plan):
        for row in replies.get(couple.key) or _unrated(couple, rated):
            wording, repeats = row["variant"], rated.plan.protocol.repeats
            writer.writerow((
                couple.of.name, couple.of.category, couple.teller, row["rating"], row["order"],
                wording if len(rated.roster.models) == 1 else f"{row['model']}: {wording}", (couple.number - 1) * repeats + int(row["repeat"]),
                couple.of.topic, row["status"], row["mode"], " ".join((*row["flags"].split(), *couple.flags)), row["call"],
            ))  # fmt: skip
    return out.getvalue()


def _replies(rated: Run) -> dict[str, list[dict[str, str]]]:
    """Rows of the raters' own table by couple, the model a rater; without the texts, which are no part of it."""
    bare = tuple(replace(pair, a="", b="") for pair in rated.plan.pairs.pairs)
    run = replace(rated, plan=replace(rated.plan, pairs=replace(rated.plan.pairs, pairs=bare)))
    out: dict[str, list[dict[str, str]]] = {}
    for row in csv.DictReader(io.StringIO(derived(run)[0])):
        out.setdefault(row["pair"], []).append(row)
    return {key: sorted(rows, key=lambda r: (r["model"], r["variant"], r["order"], int(r["repeat"]))) for key, rows in out.items()}


def _unrated(couple: Couple, rated: Run) -> Iterator[dict[str, str]]:
    """The rows of a couple that nobody was asked about."""
    p = rated.plan.protocol
    for rater, wording, order, repeat in product(rated.roster.models, p.variants, p.orders, range(1, p.repeats + 1)):
        yield {
            "model": rater, "variant": wording, "order": order, "repeat": str(repeat), "rating": "", "mode": "", "flags": "", "call": "",
            "status": f"no telling: {couple.missing}",
        }  # fmt: skip


# -- what people should know ---------------------------------------------------------------------------------------------------


def outcomes(told: Run, plan: TellingPlan) -> dict[str, Counter[str]]:
    """Statuses of all planned tellings by teller; they add up to the plan."""
    out: dict[str, Counter[str]] = {name: Counter() for name in told.roster.models}
    for (name, _, _), one in tellings(told, plan).items():
        out[name][one.status] += 1
    return out


def notes(told: Run, plan: TellingPlan, raters: Roster) -> list[str]:
    """What people should know of how tellings came about, a sentence each; of ratings ``run.notes`` has it."""
    out = []
    if told.changed:
        out.append(f"what the roster says of {_some(told.changed)} was changed after the run had begun; {PLAN} has what it said before")
    if told.unlocked is not None:
        out.append(f"{printable(str(told.out))} cannot be held against a second command ({printable(told.unlocked)}); start none on it")
    out += [f"{printable(name)} was not asked further: {cut(printable(why), 400)}" for name, why in (told.strange | told.ended).items()]
    models = told.roster.models
    for name, teller in models.items():
        if teller.parent is not None and models[teller.parent].template != teller.template:
            out.append(
                f"{printable(name)} was asked with template {teller.template}, its parent {printable(teller.parent)} with {models[teller.parent].template}: "
                "where they differ, that may be why"
            )
    if own := [name for name, rater in raters.models.items() if rater.model in {teller.model for teller in models.values()}]:
        out.append(f"{_some(own)} rated tellings of its own among others")
    found, compared = tellings(told, plan), couples(told, plan)
    for name in models:
        short = sum(one.flags.count("cut_short") for (of, _, _), one in found.items() if of == name)
        if short:
            out.append(
                f"{printable(name)}: {items_text(short, 'telling')} cut short at {plan.protocol.max_tokens} tokens, and compared as they are (allow more with --max-tokens)"
            )
        same = sum("identical" in c.flags for c in compared if c.teller == name and c.of.category == SAME_VOICE)
        if same:
            out.append(
                f"{printable(name)}: {same:,} of {sum(c.teller == name and c.of.category == SAME_VOICE for c in compared):,} couples in one voice are one text twice"
            )
    return out


def _some(names: Sequence[str]) -> str:
    return cut(", ".join(map(printable, names)), 200)
