"""A run: the plan written down before anything is asked, an append-only log of every attempt, and the ratings that follow from it.

    plan.json        protocol, pairs, roster without keys, and the hash of what was expected; written first
    calls.jsonl      every attempt at every call, as it came; only ever appended to
    ratings.csv      what the log says, one row per rating: derived, and made again at the end of every run
    atlas.json/.html the analysis

A run that was stopped goes on where it stopped: a call with a reply is not asked again.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aligntax.atlas.asking import Line, Source, asked, places, readings, unreadable
from aligntax.atlas.digits import rate
from aligntax.atlas.protocol import Call, Plan, Protocol
from aligntax.atlas.replies import PARSER
from aligntax.atlas.roster import Rater, Roster
from aligntax.core.errors import InputError, RunError
from aligntax.core.ids import canonical_json, digest
from aligntax.core.words import cut, items_text, printable
from aligntax.store.run import write_text

PLAN, CALLS, RATINGS, MODELS = "plan.json", "calls.jsonl", "ratings.csv", "models.csv"
COLUMNS = (
    "pair", "category", "model", "rating", "order", "variant", "repeat", "topic", "reference", "text_a", "text_b", "status", "mode", "flags", "sd", "served", "call",
)  # fmt: skip
_SECONDS = 1.5
"""Of one call to an endpoint that nobody has asked before, for the estimate."""
_LETTERS = 4
"""Characters of a token, for the estimate of prices."""


@dataclass
class Run:
    """A planned run and what is there of it.

    Attributes:
        out: its folder.
        plan: pairs and protocol. roster: the ensemble.
        expected: hash of the expectations that were written down before; None where there are none.
        calls: by model.
        done: the last line of every finished call; begun: replies to be asked for once more.
    """

    out: Path
    plan: Plan
    roster: Roster
    expected: str | None
    calls: dict[str, list[Call]]
    done: dict[str, Line] = field(default_factory=dict)
    begun: dict[str, str] = field(default_factory=dict)
    torn: bool = False
    told: set[str] = field(default_factory=set)
    finished: dict[str, int] = field(default_factory=dict)

    @property
    def left(self) -> dict[str, list[Call]]:
        """Calls that are still to be asked, by model."""
        return {name: [c for c in of if c.key not in self.done] for name, of in self.calls.items()}


def planned(out: Path, plan: Plan, roster: Roster, expectations: Path | None = None) -> Run:
    """A run, new or begun before.

    Args:
        out: its folder.
        plan: what is asked.
        roster: whom.
        expectations: a file in which somebody wrote down what they expect; hashed before the first call.

    Raises:
        InputError: if the folder holds another run, or something else.
    """
    expected = None
    if expectations is not None:
        try:
            expected = digest(expectations.read_bytes().decode("utf-8", "replace"))
        except OSError as error:
            raise InputError(f"{printable(str(expectations))} cannot be read: {error.strerror}") from None
    calls = {name: plan.calls(name, identity_of(rater)) for name, rater in roster.models.items()}
    run = Run(out, plan, roster, expected, calls)
    there = out / PLAN
    if there.exists():
        _same(run, there)
    elif out.exists() and any(out.iterdir()):
        raise InputError(f"{printable(str(out))} holds files and no run of an atlas; name a new or empty folder with --out")
    _load(run)
    return run


def identity_of(rater: Rater) -> str:
    """Of all in a roster's entry that may move a rating."""
    return digest([rater.model, rater.template, rater.send])


def _described(run: Run) -> dict[str, Any]:
    roster = {name: rater.model_dump(mode="json") for name, rater in run.roster.models.items()}
    return {
        "schema": 1,
        "identity": run.plan.identity,
        "protocol": run.plan.protocol.model_dump(mode="json"),
        "pairs": {"source": run.plan.pairs.source, "identity": run.plan.pairs.identity, "count": len(run.plan.pairs.pairs)},
        "models": roster,
        "currency": run.roster.currency,
        "expectations": run.expected,
        "calls": {name: len(of) for name, of in run.calls.items()},
    }


def _same(run: Run, there: Path) -> None:
    """Whether a folder's run is this one.

    Raises:
        InputError: naming what differs.
    """
    try:
        found = json.loads(there.read_text(encoding="utf-8"))
        assert isinstance(found, dict)  # noqa: S101 - told below
    except (OSError, ValueError, AssertionError):
        raise InputError(f"{printable(str(there))} cannot be read; name another folder with --out") from None
    mine = json.loads(canonical_json(_described(run)))
    for key, what in (("protocol", "another protocol"), ("pairs", "other pairs"), ("expectations", "other expectations")):
        if found.get(key) != mine[key]:
            raise InputError(f"{printable(str(there.parent))} holds a run with {what}; name another folder with --out")
    for name, rater in mine["models"].items():
        old = found.get("models", {}).get(name)
        if old is not None and any(old.get(key) != rater[key] for key in ("model", "template", "send")):
            raise InputError(
                f"{printable(str(there.parent))} holds a run in which {printable(name)} was another model; name another folder with --out"
            )
    if gone := [name for name in found.get("models", {}) if name not in mine["models"]]:
        raise InputError(
            f"{printable(str(there.parent))} holds a run with {printable(gone[0])}, which the roster has no more; name another folder with --out"
        )


def _load(run: Run) -> None:
    """What the log says: which calls are done. A last line that was cut off by a kill is passed over."""
    path = run.out / CALLS
    if not path.exists():
        return
    known = {call.key: call for of in run.calls.values() for call in of}
    replies: dict[str, Line] = {}
    with path.open("rb") as file:
        for raw in file:
            if not raw.endswith(b"\n"):
                run.torn = True
                break
            try:
                line = json.loads(raw)
            except ValueError:
                continue
            if not isinstance(line, dict) or not line.get("final") or line.get("call") not in known:
                continue
            if line.get("outcome") not in ("reply", "wrong_model"):
                if line.get("again"):  # the first reply stands
                    run.done[line["call"]] = replies.get(line["call"], line)
                continue
            key = line["call"]
            if not line.get("again"):
                replies[key] = line
            run.done[key] = line
    run.told = set(run.done)
    for key in run.done:
        run.finished[known[key].model] = run.finished.get(known[key].model, 0) + 1
    protocol = run.plan.protocol
    for key, line in replies.items():
        call, rater = known[key], run.roster.models[known[key].model]
        once = run.done.get(key) is line and line["outcome"] == "reply"
        if (
            once
            and protocol.reprompt
            and rater.template == "chat"
            and unreadable(run.plan, call, str(line.get("text") or ""), line.get("finish_reason"))
        ):
            run.begun[key] = str(line.get("text") or "")
            del run.done[key]


def collect(run: Run, tell: Callable[[str, int, int], None], device: str = "auto") -> None:
    """Ask what is left; lines are written down before the next are taken.

    Args:
        run: planned.
        tell: (model, its finished calls, of how many).
        device: for local models.

    Raises:
        InputError: if a local model cannot be had.
        RunError: if the log cannot be written.
    """
    try:
        run.out.mkdir(parents=True, exist_ok=True)
        write_text(run.out / PLAN, json.dumps(_described(run), indent=1, ensure_ascii=False) + "\n")
        with (run.out / CALLS).open("ab", buffering=0) as log:
            if run.torn:
                log.write(b"\n")  # what a kill cut off stays where it is, on a line of its own
            for lines in _lines(run, device):
                log.write(b"".join(map(_encoded, lines)))
                for line in lines:
                    _take(run, line, tell)
            with suppress(OSError):
                os.fsync(log.fileno())
    except OSError as error:
        raise RunError(f"{printable(str(run.out))} cannot be written: {error.strerror}") from None


def _encoded(line: Line) -> bytes:
    return json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace") + b"\n"


def _take(run: Run, line: Line, tell: Callable[[str, int, int], None]) -> None:
    if not line.get("final"):
        return
    if line["outcome"] in ("reply", "wrong_model") or not line.get("again"):
        run.done[line["call"]] = line
    name = line["model"]
    if line["call"] not in run.told:
        run.told.add(line["call"])
        run.finished[name] = run.finished.get(name, 0) + 1
    tell(name, run.finished[name], len(run.calls[name]))


def _lines(run: Run, device: str) -> Iterator[list[Line]]:
    """Endpoints first, all at once; then local models, one at a time."""
    left = {name: of for name, of in run.left.items() if of}
    remote = [
        Source(name, run.roster.models[name], of, {c.key: run.begun[c.key] for c in of if c.key in run.begun})
        for name, of in left.items()
        if run.roster.models[name].reference.where == "api"
    ]
    if remote:
        yield from asked(run.plan, remote)
    for name, of in left.items():
        if run.roster.models[name].reference.where != "api":
            from aligntax.atlas.local import rated

            for line in rated(run.plan, name, run.roster.models[name], of, device):
                yield [line]


# -- what follows from the log -------------------------------------------------------------------------------------------------


def derived(run: Run) -> tuple[str, str]:
    """(ratings.csv, models.csv): one row per rating that was planned, whatever came of it."""
    rows, groups = io.StringIO(), run.roster.groups()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(COLUMNS)
    for of in run.calls.values():
        for call in of:
            for row in _rows(run, call, run.done.get(call.key)):
                writer.writerow(row)
    models = io.StringIO()
    writer = csv.writer(models, lineterminator="\n")
    writer.writerow(["model", *groups])
    for name in run.roster.models:
        writer.writerow([name, *(of.get(name, "") for of in groups.values())])
    return rows.getvalue(), models.getvalue()


def _rows(run: Run, call: Call, line: Line | None) -> Iterator[Sequence[object]]:
    for pair_number, (value, status, mode, flags, sd) in zip(call.pairs, _values(run.plan, call, line), strict=True):
        pair = run.plan.pairs.pairs[pair_number]
        yield (
            pair.name, pair.category, call.model, "" if value is None else f"{value:.6f}".rstrip("0").rstrip("."), call.order, call.variant, call.repeat,
            pair.topic or "", "" if pair.reference is None else pair.reference, pair.a, pair.b, status, mode, " ".join(flags),
            "" if sd is None else f"{sd:.6f}", (line or {}).get("served") or "", call.key,
        )  # fmt: skip


Value = tuple[float | None, str, str, tuple[str, ...], float | None]


def _values(plan: Plan, call: Call, line: Line | None) -> list[Value]:
    """(rating, status, mode, flags, SD of the model's own distribution) of every pair of a call."""
    nothing: tuple[str, ...] = ()
    if line is None:
        return [(None, "not asked", "", nothing, None)] * len(call.pairs)
    if line["outcome"] != "reply":
        return [(None, line["outcome"], "", nothing, None)] * len(call.pairs)
    again = ("reprompted",) if line.get("again") else nothing
    if plan.protocol.scale == "d9" and plan.protocol.logprobs and len(call.pairs) == 1:
        found = rate(places(line), line.get("text"), finish_reason=line.get("finish_reason"), refusal=line.get("refusal"))
        why = (found.expected.reason,) if found.expected.reason and found.value is not None else nothing
        mode = found.source if found.value is not None else ""
        return [(found.value, found.reading.status, mode, (*found.reading.flags, *again, *why), found.expected.sd)]
    return [(r.value, r.status, "sampled" if r.value is not None else "", (*r.flags, *again), None) for r in readings(plan, call, line)]


def finish(run: Run) -> tuple[Path, Path]:
    """Write what follows from the log; the two files' paths.

    Raises:
        RunError: if they cannot be written.
    """
    ratings, models = derived(run)
    return write_text(run.out / RATINGS, ratings), write_text(run.out / MODELS, models)


# -- before anything is spent --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """What is left of a model: calls, tokens in and out at most, seconds and price where they can be told."""

    model: str
    calls: int
    left: int
    tokens_in: int
    tokens_out: int
    seconds: float | None
    price: float | None


def estimates(run: Run) -> list[Estimate]:
    """Per model; prompts by their letters, replies at their longest, seconds from the answers that are there or from a guess."""
    out = []
    known: dict[str, list[float]] = {}
    for line in run.done.values():
        if isinstance(line.get("latency_s"), float):
            known.setdefault(line["model"], []).append(line["latency_s"])
    for name, left in run.left.items():
        rater = run.roster.models[name]
        letters = sum(len(run.plan.text(call)) for call in left)
        given, most = letters // _LETTERS, sum(run.plan.limit(call) for call in left)
        price = None if rater.price is None else (given * rater.price.input + most * rater.price.output) / 1e6
        each = sum(known[name]) / len(known[name]) if name in known else _SECONDS
        seconds = len(left) * each / rater.concurrency if rater.reference.where == "api" else None
        out.append(Estimate(name, len(run.calls[name]), len(left), given, most, seconds, price))
    return out


def outcomes(run: Run) -> dict[str, dict[str, int]]:
    """Statuses of all planned ratings by model, those not asked among them; they add up to the plan."""
    out: dict[str, dict[str, int]] = {}
    for name, of in run.calls.items():
        counts = out.setdefault(name, {})
        for call in of:
            for _, status, *_ in _values(run.plan, call, run.done.get(call.key)):
                counts[status] = counts.get(status, 0) + 1
    return out


def notes(run: Run) -> list[str]:
    """What people should know of how ratings came about."""
    out = []
    if run.expected is None:
        out.append("nobody wrote down what they expected before the first call (--expect FILE): what is found was not predicted")
    served: dict[str, set[str]] = {}
    for line in run.done.values():
        for key in ("served", "fingerprint", "provider"):
            if line.get(key):
                served.setdefault(f"{line['model']} {key}", set()).add(str(line[key]))
    for what, names in served.items():
        if len(names) > 1:
            model, _, key = what.rpartition(" ")
            out.append(f"{printable(model)} was answered by several ({key}): {cut(', '.join(map(printable, sorted(names))), 200)}")
    wrong = sum(line["outcome"] == "wrong_model" for line in run.done.values())
    if wrong:
        out.append(
            f"{items_text(wrong, 'reply').replace('replys', 'replies')} came from another model than was asked, and count as missing"
        )
    return out


def shown_protocol(protocol: Protocol) -> str:
    """The protocol in one sentence."""
    how = "all pairs in one list" if protocol.presentation == "batch" else "one pair a request"
    return (
        f"{how}, orders {' and '.join(protocol.orders)}, wordings {', '.join(protocol.variants)}, {items_text(protocol.repeats, 'repeat')} at temperature "
        f"{protocol.temperature:g}, scale {protocol.scale}{', expected ratings from log-probabilities where there are any' if protocol.scale == 'd9' and protocol.logprobs else ''} (parser {PARSER})"
    )
