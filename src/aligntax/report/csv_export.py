"""The ledger as CSV, one line per entry; details as columns."""

from __future__ import annotations

import csv
import io
from typing import Any

from aligntax.core.ledger import Ledger
from aligntax.core.samples import OUTCOMES
from aligntax.core.words import printable

_NESTED = frozenset({"outcomes", "details", "checks"})
# Spreadsheets run cells that start like this as formulas.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def ledger_csv(ledger: Ledger) -> str:
    """Columns: the entry's fields, ``outcome.<which>.<baseline|candidate>``, ``detail.<name>``, and checks joined by " | ".

    Text that a spreadsheet would run as a formula is prefixed with an apostrophe, and control characters are shown as
    escapes; numbers are not touched.
    """
    details = list(dict.fromkeys(key for entry in ledger for key in entry.details))
    rows = []
    for entry in ledger:
        record: dict[str, Any] = {key: value for key, value in entry.model_dump().items() if key not in _NESTED}
        for side in ("baseline", "candidate"):
            counts = entry.outcomes.get(getattr(entry, side), {})
            record |= {f"outcome.{o}.{side}": counts.get(str(o), 0) for o in OUTCOMES}
        record |= {f"detail.{key}": _flat(entry.details.get(key)) for key in details}
        record["checks"] = " | ".join(entry.checks)
        rows.append({key: value if key.startswith("detail.") else _safe(value) for key, value in record.items()})
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else ["kind"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _flat(value: Any) -> Any:
    return " ".join("" if v is None else repr(v) for v in value) if isinstance(value, list) else value


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(_FORMULA) else text
