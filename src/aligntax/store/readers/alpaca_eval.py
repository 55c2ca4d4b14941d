"""AlpacaEval annotations (tatsu-lab/alpaca_eval, ``annotations.json``): which of two answers a judge prefers, instruction by instruction.

``preference`` runs from 1 (the reference's answer, ``generator_1``) to 2 (the model's, ``generator_2``), 1.5 (or 0) is a tie; the metric ``win_rate`` is
preference - 1, whose mean is AlpacaEval's win rate without its control of lengths.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

from aligntax.core.errors import LogError
from aligntax.core.ids import item_content
from aligntax.core.items import Value
from aligntax.core.samples import Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import json_rows, opened
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Want, reader

TASK, METRIC = "alpaca_eval", "win_rate"
LENGTHS = "length_difference"
"""Characters by which the model's answer is longer than the reference's: what a win rate at equal lengths is made with."""
_NEEDED = ("instruction", "output_1", "output_2", "preference")


def _sniff(seen: Sighting) -> bool:
    row = seen.first_object
    return row is not None and all(key in row for key in _NEEDED)


@reader("alpaca-eval", _sniff)
def alpaca_eval(path: Path, want: Want) -> LogSource:
    """Every annotation as an item of ``alpaca_eval``."""
    facts = LogFacts(higher_is_better={(TASK, METRIC): True}, settings={"harness": "AlpacaEval"})
    return LogSource("alpaca-eval", _rows(path, want, facts), facts=facts)


def _rows(path: Path, want: Want, facts: LogFacts) -> Iterator[LogRow]:
    with opened(path) as streams:
        for where, stream in streams:
            for number, row in json_rows(stream, where):
                facts.labels.update(str(key) for key, value in row.items() if isinstance(value, str | int) and key not in _NEEDED)
                for key, name in (("generator_1", "reference"), ("generator_2", "model"), ("annotator", "annotator")):
                    told = label_text(row.get(key))
                    if told is not None and facts.settings.setdefault(name, told) != told:
                        raise LogError(
                            f"{where}, row {number}: {key} is {printable(told)!r} and was {printable(str(facts.settings[name]))!r} before; "
                            "one file holds one model, one reference and one annotator"
                        )
                yield _row(row, want, f"{where}, row {number}")


def _row(row: dict[str, Any], want: Want, where: str) -> LogRow:
    missing = [key for key in _NEEDED if key not in row]
    if missing:
        raise LogError(f"{where} has no {', '.join(missing)}; AlpacaEval annotations have {', '.join(_NEEDED)}")
    instruction = str(row["instruction"])
    return LogRow(
        task=TASK,
        item=None,
        content=item_content(instruction, None, str(row["output_1"])),  # the same instruction against the same answer of the reference
        scores={METRIC: _value(row["preference"], where), LENGTHS: Value(float(len(str(row["output_2"])) - len(str(row["output_1"]))))},
        question=instruction,
        answer=str(row["output_2"]),
        cluster=label_text(row.get(want.cluster)) if want.cluster else None,
        by=label_text(row.get(want.by)) if want.by else None,
    )


def _value(preference: object, where: str) -> Value:
    if preference is None or (isinstance(preference, float) and not isfinite(preference)):
        return Value(None, Outcome.FAILED)  # the judge gave none
    if preference == 0 and not isinstance(preference, bool):
        return Value(0.5)  # a draw, as annotators of letters write it
    if isinstance(preference, bool) or not isinstance(preference, int | float) or not 1 <= preference <= 2:
        raise LogError(f"{where}: preference is {printable(repr(preference))[:40]}; it runs from 1 (the reference) to 2 (the model)")
    return Value(float(preference) - 1.0)
