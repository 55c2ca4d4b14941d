"""A run: the plan written down before anything is asked, an append-only log of every attempt, and the ratings that follow from it.

    plan.json        protocol, pairs, roster without keys, and the hash of what was expected; written first
    probes.jsonl     what each endpoint can do, asked before every start
    calls.jsonl      every attempt at every call, as it came; only ever appended to
    ratings.csv      what the log says, one row per rating: derived, and made again at the end of every run
    models.csv       what is known of the models, one row each
    atlas.json/.html the analysis

A run that was stopped goes on where it stopped: a call with a reply is not made again, one without is. One command at a time works on a folder.
"""

from __future__ import annotations

import asyncio
import csv
import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from aligntax.atlas.asking import SETTLED, Line, Source, Wait, advice, asked, asks_again, judged, probed, rated, readings, wire_of
from aligntax.atlas.digits import REASONS
from aligntax.atlas.protocol import Call, Plan, Protocol
from aligntax.atlas.replies import PARSER
from aligntax.atlas.roster import Rater, Roster
from aligntax.core.errors import AligntaxError, InputError, RunError
from aligntax.core.files import read_bytes
from aligntax.core.ids import canonical_json, digest
from aligntax.core.words import cut, items_text, percent, printable
from aligntax.models.wire import OWN_VARIABLE, is_local
from aligntax.store.run import write_text

PLAN, CALLS, RATINGS, MODELS, PROBES = "plan.json", "calls.jsonl", "ratings.csv", "models.csv", "probes.jsonl"
COLUMNS = (
    "pair", "category", "model", "rating", "order", "variant", "repeat", "topic", "reference", "text_a", "text_b", "status", "mode", "flags", "sd", "served", "call",
)  # fmt: skip
_MAX_EXPECTED = 64 * 2**20
"""Bytes of a file with expectations, which may be of any kind."""
_SECONDS = 1.5
"""Of one call to an endpoint that nobody has asked before, for the estimate."""
_LETTERS = 4
"""Characters of a token, for the estimate of prices; of other scripts than Latin, every character counts as one."""
_OVERHEAD = 8
"""Tokens that a chat template adds to a message, for the estimate."""
_CUT_SHARE = 0.05
"""Share of replies cut short from which advice is given."""

Value = tuple[float | None, str, str, tuple[str, ...], float | None]
"""(rating, status, mode, flags, SD of the model's own distribution) of one pair of a call."""


@dataclass
class Run:
    """A planned run and what is there of it.

    Attributes:
        out: its folder.
        plan: pairs and protocol. roster: the ensemble.
        expected: sha256 of the file with the expectations that were written down before; None where there are none.
        calls: by model.
        done: the line that a call ended with, its reply above all. first: the first reply of every call that has one.
        begun: first replies that are to be asked for once more.
        failed: the last line of calls that have no reply; they are made again.
        ended: why a model was not asked further, by its name.
        strange: which model answered a probe in the place of another, in words, by the other's name; it is not asked further.
        changed: models whose facts in the roster are not those the run began with.
        unlocked: why the folder could not be held against a second command.
    """

    out: Path
    plan: Plan
    roster: Roster
    expected: str | None
    calls: dict[str, list[Call]]
    done: dict[str, Line] = field(default_factory=dict)
    first: dict[str, Line] = field(default_factory=dict)
    begun: dict[str, Line] = field(default_factory=dict)
    failed: dict[str, Line] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    strange: dict[str, str] = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    unlocked: str | None = None
    _size: int = 0
    _torn: bool = False
    _read: dict[str, tuple[Line, list[Value]]] = field(default_factory=dict)
    _counted: dict[str, set[str]] = field(default_factory=dict)

    @cached_property
    def known(self) -> dict[str, Call]:
        """Calls by their keys."""
        return {call.key: call for of in self.calls.values() for call in of}

    @property
    def left(self) -> dict[str, list[Call]]:
        """Calls that are still to be made, by model."""
        return {name: [c for c in of if c.key not in self.done] for name, of in self.calls.items()}

    def line(self, call: Call) -> Line | None:
        """The line that stands for a call; None if it was not made."""
        return self.done.get(call.key) or self.begun.get(call.key) or self.failed.get(call.key)


def planned(out: Path, plan: Plan, roster: Roster, expectations: Path | None = None) -> Run:
    """A run, new or begun before.

    Args:
        out: its folder.
        plan: what is asked.
        roster: whom.
        expectations: a file in which somebody wrote down what they expect; hashed before the first call.

    Raises:
        InputError: if the folder holds another run, or something else; if the expectations cannot be read.
        RunError: if the folder cannot be read.
    """
    expected = None
    if expectations is not None:
        written = read_bytes(expectations, "what is expected goes into a file of its own", _MAX_EXPECTED, pipes=True)
        expected = hashlib.sha256(written).hexdigest()
    calls = {name: plan.calls(name, identity_of(rater)) for name, rater in roster.models.items()}
    run = Run(out, plan, roster, expected, calls)
    try:
        if (out / PLAN).exists():
            _same(run, out / PLAN)
        elif out.exists() and any(_foreign(path) for path in out.iterdir()):
            raise InputError(f"{printable(str(out))} holds files and no run of an atlas; name a new or empty folder with --out")
        _load(run)
    except OSError as error:
        raise RunError(f"{printable(str(out))} cannot be read: {error.strerror}") from None
    return run


def _foreign(path: Path) -> bool:
    """Whether a file is none that a run leaves behind that was killed before its plan stood."""
    return not path.name.endswith(".partial") and not (path.name == CALLS and path.stat().st_size == 0)


def identity_of(rater: Rater) -> str:
    """Of all in a roster's entry that may move a rating."""
    return digest([rater.model, rater.template, rater.send])


def _described(run: Run) -> dict[str, Any]:
    roster = {name: rater.model_dump(mode="json") for name, rater in run.roster.models.items()}
    return {
        "schema": 1,
        "begun": datetime.now(UTC).isoformat(timespec="seconds"),
        "identity": run.plan.identity,
        "protocol": run.plan.protocol.model_dump(mode="json"),
        "pairs": {"source": run.plan.pairs.source, "identity": run.plan.pairs.identity, "count": len(run.plan.pairs.pairs)},
        "models": roster,
        "currency": run.roster.currency,
        "expectations": run.expected,
        "calls": {name: len(of) for name, of in run.calls.items()},
        "changes": [],
    }


def _same(run: Run, there: Path) -> dict[str, Any]:
    """What a folder's plan says, if it is this one.

    Raises:
        InputError: naming what differs.
    """
    folder, other = printable(str(there.parent)), "name another folder with --out"
    try:
        found = json.loads(there.read_bytes())
    except (OSError, ValueError, RecursionError):
        raise InputError(f"{printable(str(there))} cannot be read; {other}") from None
    parts = ("protocol", "pairs", "models")
    if not isinstance(found, dict) or not all(isinstance(found.get(part), dict) for part in parts):
        raise InputError(f"{printable(str(there))} is no plan of a run; {other}")
    mine = json.loads(canonical_json(_described(run)))
    if differs := [key for key, value in mine["protocol"].items() if found["protocol"].get(key) != value]:
        raise InputError(f"{folder} holds a run with another protocol ({', '.join(differs)}); {other}")
    if found["pairs"].get("identity") != mine["pairs"]["identity"]:
        raise InputError(f"{folder} holds a run with other pairs; {other}")
    if found.get("identity") != mine["identity"]:
        raise InputError(f"{folder} holds a run with other wordings, or its list in another order; {other}")
    if found.get("expectations") != mine["expectations"]:
        how = "none" if found.get("expectations") is None else "others"
        raise InputError(f"{folder} holds a run with other expectations ({how} were written down before it began); {other}")
    for name, rater in mine["models"].items():
        old = found["models"].get(name)
        if isinstance(old, dict) and any(old.get(key) != rater[key] for key in ("model", "template", "send")):
            raise InputError(f"{folder} holds a run in which {printable(name)} was another model; {other}")
    if gone := [name for name in found["models"] if name not in mine["models"]]:
        raise InputError(f"{folder} holds a run with {printable(gone[0])}, which the roster has no more; {other}")
    told = {name for change in _changes(found) if isinstance(change, dict) for name in change.get("models_before") or ()}
    run.changed = tuple(name for name, old in found["models"].items() if name in told or _facts(old) != _facts(mine["models"][name]))
    return found


def _changes(plan: dict[str, Any]) -> list[Any]:
    """What a plan says was changed after the run had begun."""
    found = plan.get("changes")
    return found if isinstance(found, list) else []


def _facts(entry: object) -> object:
    """What an entry says of its model, which is to be known before anybody looks at a rating."""
    ours = {"model", "template", "send", "answers_as", "key_env", "price", "concurrency", "timeout", "attempts"}
    return {key: value for key, value in entry.items() if key not in ours} if isinstance(entry, dict) else entry


# -- the log -------------------------------------------------------------------------------------------------------------------


def _load(run: Run) -> None:
    """What the log says: which calls are done. Lines that a kill tore are passed over."""
    run.done, run.first, run.begun, run.failed, run.ended, run._read = {}, {}, {}, {}, {}, {}
    run._size, run._torn = 0, False
    path = run.out / CALLS
    if path.is_file():
        known = run.known
        with path.open("rb") as file:
            for raw in file:
                run._size += len(raw)
                run._torn = not raw.endswith(b"\n")
                if (line := _whole(raw)) is not None and line["call"] in known:
                    _settle(run, known[line["call"]], line)
    run.ended = {}  # of an earlier day
    run._counted = {name: {call.key for call in of if call.key in run.done} for name, of in run.calls.items()}


def _whole(raw: bytes) -> Line | None:
    """The line of a log if it is one that ended a call."""
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if (
        not isinstance(line, dict)
        or line.get("final") is not True
        or not all(isinstance(line.get(k), str) for k in ("call", "model", "outcome"))
    ):
        return None
    return line if line["outcome"] != "reply" or isinstance(line.get("text"), str) else None


def _settle(run: Run, call: Call, line: Line) -> None:
    """What the last attempt at a call means for it. A second question without an answer is put again another day; till then the first reply stands."""
    key, rater = call.key, run.roster.models[call.model]
    line = judged(line, rater)
    if line.get("ended"):
        run.ended[call.model] = str(line["ended"])
    if line["outcome"] not in SETTLED:
        if key not in run.done and key not in run.begun:
            run.failed[key] = line
        return
    run.failed.pop(key, None)
    if line.get("again"):
        run.begun.pop(key, None)
        run.done[key] = line if line["outcome"] == "reply" else run.first.get(key, line)
        return
    run.first[key] = line
    if line["outcome"] == "reply" and asks_again(run.plan, rater, call, line):
        run.begun[key] = line
    else:
        run.done[key] = line


@contextmanager
def _alone(run: Run) -> Iterator[Callable[[Line], None]]:
    """The log, open for this process alone, as what writes a line to it; a lock goes with the process that holds it, however it ends.

    Raises:
        RunError: if another process has it, or it cannot be written.
    """
    run.out.mkdir(parents=True, exist_ok=True)
    with (run.out / CALLS).open("ab", buffering=0) as log:
        run.unlocked = _hold(log, run.out)
        if (run.out / PLAN).exists() and log.tell() != run._size:  # another command was faster
            _load(run)
        if run._torn:  # what a kill cut off stays where it is, on a line of its own; no part of an object is one
            log.write(b"\n")
            run._torn, run._size = False, run._size + 1
        yield lambda line: _append(log, _encoded(line))
        with suppress(OSError):
            os.fsync(log.fileno())


def _hold(log: io.FileIO, folder: Path) -> str | None:
    """Lock an open file; why that is not possible here, where it is not.

    Raises:
        RunError: if another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return "this system has no locks of the kind"
    try:
        fcntl.flock(log.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise RunError(f"another command is working on {printable(str(folder))}; wait for it, or name another folder with --out") from None
    except OSError as error:
        return error.strerror or "no reason given"
    return None


def _append(log: io.FileIO, data: bytes) -> None:
    """Write a whole line. A full disk takes a part of it, which stays, on a line of its own once there is room.

    Raises:
        OSError: if it does not fit.
    """
    written = log.write(data)
    if written != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _encoded(line: Line) -> bytes:
    """JSON in ASCII: whatever a model writes, a line is a line, and does nothing to a terminal."""
    return json.dumps(line, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


# -- asking --------------------------------------------------------------------------------------------------------------------


def collect(run: Run, tell: Callable[[str, int, int], None], device: str = "auto", wait: Wait = asyncio.sleep) -> None:
    """Ask what is left; every line is written down before the next call is made.

    Args:
        run: planned.
        tell: (model, its finished calls, of how many).
        device: for local models.
        wait: pauses between attempts.

    Raises:
        InputError: if an address or a key cannot be used; nothing was asked then.
        RunError: if another command works on the folder, or it cannot be written; what was answered before is kept.
    """
    ready(run)
    try:
        with _alone(run) as record:
            _write_plan(run)
            for lines in _lines(run, record, device, wait):
                for line in lines:
                    _take(run, line, tell)
    except OSError as error:
        raise RunError(f"{printable(str(run.out))} cannot be written: {error.strerror}; what was answered before is kept") from None


def ready(run: Run) -> None:
    """Whether everybody can be asked, as far as that can be told without asking: addresses, keys, and that no key stands in the roster.

    Raises:
        InputError: if not.
    """
    hosts, roster, left = set(), canonical_json(_described(run)), run.left
    for name, rater in run.roster.models.items():
        if not rater.remote or not left[name]:
            continue
        try:
            wire = wire_of(rater)
        except InputError as error:
            raise InputError(f"{printable(name)}: {error}") from None
        if wire.without_key(roster) != roster:
            raise InputError(f"the roster holds the key of {printable(name)} itself; it belongs into the environment alone")
        if rater.key_env is None and wire.key()[0] == OWN_VARIABLE and wire.key()[1] and not is_local(wire.given.host):
            hosts.add(wire.given.host)
    if len(hosts) > 1:
        raise InputError(
            f"the key in {OWN_VARIABLE} would go to several hosts ({cut(', '.join(map(printable, sorted(hosts))), 200)}); say of each model which key is meant, "
            f"such as key_env: {OWN_VARIABLE}"
        )


def _write_plan(run: Run) -> None:
    """The plan, before the first call. Of a run that goes on it stays as it was, but for models that are new and facts that changed, which is written down."""
    there, mine = run.out / PLAN, _described(run)
    if there.exists():
        found = _same(run, there)
        changed = {name: old for name, old in found["models"].items() if _facts(old) != _facts(mine["models"][name])}
        added = [name for name in mine["models"] if name not in found["models"]]
        if not changed and not added:
            return
        mine["changes"] = [*_changes(found), {"time": mine["begun"], "models_before": changed, "models_added": added}]
        mine["begun"] = found.get("begun")
    write_text(there, json.dumps(mine, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def probes(run: Run, wait: Wait = asyncio.sleep) -> Iterator[tuple[str, dict[str, Any]]]:
    """(model, what its endpoint can do) of every endpoint that has calls left, as ``asking.probed`` finds it; kept in probes.jsonl.

    Raises:
        InputError, RunError: as of ``collect``.
    """
    ready(run)
    sources = _endpoints(run)
    try:
        with _alone(run), (run.out / PROBES).open("ab", buffering=0) as log:
            _write_plan(run)
            for name, facts in probed(sources, run.plan.protocol.max_tokens, wait):
                _append(log, _encoded({"time": datetime.now(UTC).isoformat(timespec="seconds"), "model": name, **facts}))
                if "other" in facts:
                    run.strange[name] = facts["why"]
                yield name, facts
    except OSError as error:
        raise RunError(f"{printable(str(run.out))} cannot be written: {error.strerror}") from None


def _take(run: Run, line: Line, tell: Callable[[str, int, int], None]) -> None:
    if not line["final"]:
        return
    call = run.known[line["call"]]
    _settle(run, call, line)
    counted = run._counted[call.model]
    counted.add(call.key)
    tell(call.model, len(counted), len(run.calls[call.model]))


def _endpoints(run: Run) -> list[Source]:
    """Endpoints that have calls left, but those that are known to answer as another model."""
    return [
        Source(name, rater, of, run.begun)
        for name, of in run.left.items()
        if of and (rater := run.roster.models[name]).remote and name not in run.strange
    ]


def _lines(run: Run, record: Callable[[Line], None], device: str, wait: Wait) -> Iterator[list[Line]]:
    """Endpoints first, all at once; then local models, one at a time. A model that cannot be had does not keep the others from being asked."""
    left = run.left
    if remote := _endpoints(run):
        yield from asked(run.plan, remote, record, wait)
    for name, of in left.items():
        rater = run.roster.models[name]
        if of and not rater.remote:
            from aligntax.atlas import local

            try:
                for line in local.rated(run.plan, name, rater, of, run.begun, device):
                    record(line)
                    yield [line]
            except AligntaxError as error:
                run.ended[name] = str(error)


# -- what follows from the log -------------------------------------------------------------------------------------------------


def derived(run: Run) -> tuple[str, str]:
    """(ratings.csv, models.csv): one row per rating that was planned, whatever came of it."""
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(COLUMNS)
    for of in run.calls.values():
        for call in of:
            writer.writerows(_rows(run, call))
    return rows.getvalue(), models_table(run.roster)


def models_table(roster: Roster) -> str:
    """models.csv: what is known of the models, a row each."""
    out, groups = io.StringIO(), roster.groups()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["model", *groups])
    writer.writerows([name, *(of.get(name, "") for of in groups.values())] for name in roster.models)
    return out.getvalue()


def _rows(run: Run, call: Call) -> Iterator[Sequence[object]]:
    line = run.line(call) or {}
    for pair_number, (value, status, mode, flags, sd) in zip(call.pairs, _values(run, call), strict=True):
        pair = run.plan.pairs.pairs[pair_number]
        yield (
            pair.name, pair.category, call.model, "" if value is None else f"{value:.6f}".rstrip("0").rstrip("."), call.order, call.variant, call.repeat,
            pair.topic or "", "" if pair.reference is None else pair.reference, pair.a, pair.b, status, mode, " ".join(flags),
            "" if sd is None else f"{sd:.6f}", line.get("served") or "", call.key,
        )  # fmt: skip


def _values(run: Run, call: Call) -> list[Value]:
    """What a call says of each of its pairs. A reply is read once, however often it is asked for."""
    line = run.line(call)
    if line is None:
        return [(None, "not asked", "", (), None)] * len(call.pairs)
    kept = run._read.get(call.key)
    if kept is None or kept[0] is not line:
        kept = run._read[call.key] = (line, _read(run.plan, call, line))
    return kept[1]


def _read(plan: Plan, call: Call, line: Line) -> list[Value]:
    if line["outcome"] != "reply":
        return [(None, line["outcome"], "", (), None)] * len(call.pairs)
    again = ("reprompted",) if line.get("again") else ()
    if plan.protocol.expects:
        found = rated(line)
        why = (found.expected.reason,) if found.expected.reason and found.value is not None else ()
        mode = found.source if found.value is not None else ""
        return [
            (
                found.value,
                found.reading.status,
                mode,
                (*found.reading.flags, *again, *why),
                found.expected.sd if found.source == "logprob" else None,
            )
        ]
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
    """What is left of a model.

    Attributes:
        model: its name.
        calls: all that were planned. left: those to be made.
        tokens_in: of the prompts, guessed from their characters. tokens_out: if every reply is as long as is allowed.
        seconds: from the answers that are there, or from a guess; None for local models.
        price: of these tokens; attempts that fail and replies that are asked for once more come on top. None where no price is known.
    """

    model: str
    calls: int
    left: int
    tokens_in: int
    tokens_out: int
    seconds: float | None
    price: float | None


def estimates(run: Run) -> list[Estimate]:
    """Calls, tokens, time and price of what is left, per model."""
    out = []
    known: dict[str, list[float]] = {}
    for line in run.done.values():
        if isinstance(line.get("latency_s"), float):
            known.setdefault(line["model"], []).append(line["latency_s"])
    for name, left in run.left.items():
        rater = run.roster.models[name]
        given = sum(_tokens(run.plan.raw(call) if rater.template == "raw" else run.plan.text(call)) for call in left)
        most = sum(run.plan.limit(call) for call in left)
        price = None if rater.price is None else (given * rater.price.input + most * rater.price.output) / 1e6
        each = sum(known[name]) / len(known[name]) if name in known else _SECONDS
        seconds = len(left) * each / min(rater.concurrency, len(left) or 1) if rater.remote else None
        out.append(Estimate(name, len(run.calls[name]), len(left), given, most, seconds, price))
    return out


def _tokens(text: str) -> int:
    plain = len(text) if text.isascii() else sum(ord(ch) < 0x250 for ch in text)
    return _OVERHEAD + -(-plain // _LETTERS) + len(text) - plain


def outcomes(run: Run) -> dict[str, dict[str, int]]:
    """Statuses of all planned ratings by model, those not asked among them; they add up to the plan."""
    out: dict[str, dict[str, int]] = {}
    for name, of in run.calls.items():
        counts = out.setdefault(name, {})
        for call in of:
            for _, status, *_ in _values(run, call):
                counts[status] = counts.get(status, 0) + 1
    return out


# -- what people should know ---------------------------------------------------------------------------------------------------


def notes(run: Run) -> list[str]:
    """What people should know of how ratings came about, a sentence each."""
    out = []
    if run.expected is None:
        out.append("nobody wrote down what they expected before the first call (--expect FILE): what is found was not predicted")
    if run.changed:
        out.append(f"what the roster says of {_some(run.changed)} was changed after the run had begun; {PLAN} has what it said before")
    if run.unlocked is not None:
        out.append(f"{printable(str(run.out))} cannot be held against a second command ({printable(run.unlocked)}); start none on it")
    out += [f"{printable(name)} was not asked further: {cut(printable(why), 400)}" for name, why in (run.strange | run.ended).items()]
    for name, of in run.calls.items():
        out += [f"{printable(name)}: {text}" for text in _of_model(run, of)]
    return out


def _some(names: Sequence[str]) -> str:
    return cut(", ".join(map(printable, names)), 200)


def _of_model(run: Run, of: Sequence[Call]) -> Iterator[str]:
    """What is remarkable about one model's replies."""
    lines = [(call, line) for call in of if (line := run.line(call)) is not None]
    replies = [(call, line) for call, line in lines if line["outcome"] == "reply"]
    for key in ("served", "fingerprint", "provider"):
        names = sorted({str(line[key]) for _, line in replies if line.get(key)})
        if len(names) > 1:
            yield f"it was answered by several ({key}): {_some(names)}"
    if strangers := sorted({str(line.get("served")) for _, line in lines if line["outcome"] == "wrong_model"}):
        yield f"replies of another model ({_some(strangers)}) count as missing"
    if left_out := sorted({str(p) for _, line in replies for p in line.get("left_out") or ()}):
        yield f"its endpoint does not take {', '.join(map(printable, left_out))}, and was asked without"
    values = [value for call, _ in replies for value in _values(run, call)]
    truncated = sum(status == "truncated" for _, status, *_ in values)
    if values and truncated / len(values) >= _CUT_SHARE:
        thinks = any(line.get("thought") or (line.get("usage") or {}).get("reasoning_tokens") for _, line in replies)
        limit = run.plan.protocol.max_tokens
        yield f"{percent(truncated / len(values), 0)} of its replies were cut short at {limit} tokens ({advice(thinks)})"
    sampled = [next((flag for flag in reversed(flags) if flag in REASONS), None) for _, _, mode, flags, _ in values if mode == "sampled"]
    why = [reason for reason in sampled if reason is not None]
    if why:
        rated_ = sum(value is not None for value, *_ in values)
        told = ", ".join(f"{REASONS[reason]} ({why.count(reason):,})" for reason in dict.fromkeys(why))
        yield f"{len(why):,} of {rated_:,} ratings are digits that were drawn, no expected ratings: {told}"


def shown_protocol(protocol: Protocol) -> str:
    """The protocol in one sentence."""
    how = "all pairs in one list" if protocol.presentation == "batch" else "one pair a request"
    return (
        f"{how}, orders {' and '.join(protocol.orders)}, wordings {', '.join(protocol.variants)}, {items_text(protocol.repeats, 'repeat')} at temperature "
        f"{protocol.temperature:g}, scale {protocol.scale}{', expected ratings from log-probabilities where there are any' if protocol.expects else ''} (parser {PARSER})"
    )
