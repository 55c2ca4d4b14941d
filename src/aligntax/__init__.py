"""aligntax: what making a language model safer or more helpful cost it, and what it bought.

import aligntax
ledger = aligntax.diff("base-logs/", "aligned-logs/", cluster="doc_source")
ledger = aligntax.measure("lab:base", "lab:sft", tasks=["lab/facts"])
print(ledger)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from aligntax.api import diff, load, measure, run
    from aligntax.core.errors import AligntaxError, InputError
    from aligntax.core.guards import Guard
    from aligntax.core.ledger import Entry, Ledger

__all__ = ["AligntaxError", "Entry", "Guard", "InputError", "Ledger", "__version__", "diff", "load", "measure", "run"]

_HOME = {
    "diff": "aligntax.api",
    "load": "aligntax.api",
    "measure": "aligntax.api",
    "run": "aligntax.api",
    "AligntaxError": "aligntax.core.errors",
    "InputError": "aligntax.core.errors",
    "Entry": "aligntax.core.ledger",
    "Guard": "aligntax.core.guards",
    "Ledger": "aligntax.core.ledger",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that importing aligntax costs nothing and loads no library.
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'aligntax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
