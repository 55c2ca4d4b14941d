"""A comparison as Markdown for a pull request."""

from __future__ import annotations

import re

from aligntax.core.explain import headline, main_entries, reasons, summary
from aligntax.core.ledger import Ledger
from aligntax.core.tables import entry_row
from aligntax.core.words import cut, printable

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+!|~@&:-])")
_MAX_ROWS = 100


def escaped(text: str) -> str:
    """Text that Markdown and the HTML in it leave alone."""
    return _SPECIAL.sub(r"\\\1", cut(printable(text), 200)).replace("\\<", "&lt;").replace("\\>", "&gt;").replace("\\&", "&amp;")


def markdown(ledger: Ledger) -> str:
    """Summary, table, and the doubts folded away."""
    pairs = list(dict.fromkeys(e.pair for e in ledger))
    lines = ["### Alignment tax", ""]
    lines += [escaped(summary(main_entries(ledger), *pair)) for pair in pairs]
    lines += [
        "",
        "| arms | task | metric | n | baseline | candidate | change | interval | p | verdict |",
        "|---|---|---|--:|--:|--:|--:|---|--:|---|",
    ]
    for entry in list(ledger)[:_MAX_ROWS]:
        row = entry_row(entry)
        cells = [row.pair, row.task, row.metric, row.n, row.baseline, row.candidate, row.change, row.interval, row.p]
        lines.append("| " + " | ".join(_cell(c) for c in cells) + f" | **{row.verdict}** |")
    if len(ledger) > _MAX_ROWS:
        lines.append(f"\n{_MAX_ROWS} of {len(ledger)} entries; the run's ledger.json has all.")
    lines += ["", "<details><summary>What the verdicts rest on</summary>", ""]
    for entry in main_entries(ledger):
        lines.append(f"- {escaped(headline(entry))}")
        lines += [f"  - {escaped(text)}" for text in (*reasons(entry), *entry.checks)]
    lines += ["", "</details>", ""]
    return "\n".join(lines)


def _cell(text: str) -> str:
    """Numbers need no escapes; anything else gets them."""
    return text if re.fullmatch(r"[-+0-9.,%<e \[\]]*", text) and "<" not in text else escaped(text)
