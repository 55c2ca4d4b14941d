"""What came back for one arm, item and trial."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What became of one planned sample; every planned sample has exactly one.

    ``refused``, ``unparsed`` and ``truncated`` count as incorrect in accuracies, because that is what the user got.
    ``failed`` (the machinery's fault) and ``absent`` are missing: the pair is left out.
    """

    SCORED = "scored"
    REFUSED = "refused"
    UNPARSED = "unparsed"
    TRUNCATED = "truncated"
    FAILED = "failed"
    ABSENT = "absent"


OUTCOMES: tuple[Outcome, ...] = tuple(Outcome)
"""Outcomes by their code in Parquet files: the position in this tuple."""

CODE: dict[Outcome, int] = {outcome: code for code, outcome in enumerate(OUTCOMES)}

MISSING = frozenset({Outcome.FAILED, Outcome.ABSENT})
"""Outcomes without a score: such a pair is left out of the comparison."""

MAX_SCORE = 1e100
"""Scores beyond this, either side of 0, are refused: their squares would leave what a double holds."""

MAX_TRIAL = 2**31 - 1

UNREAD = frozenset({Outcome.UNPARSED, Outcome.TRUNCATED})
"""Outcomes whose answer nobody knows: what the bounds of a change are about."""
