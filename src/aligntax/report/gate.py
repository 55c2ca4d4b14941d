"""What a gate found: for people, as GitHub annotations, Markdown, JUnit XML, JSON and a badge. Nothing in a name is read as markup."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from xml.etree import ElementTree

from rich.console import Group
from rich.table import Table
from rich.text import Text

from aligntax.core.tables import entry_row
from aligntax.core.words import printable
from aligntax.flow.gate import Gate, Held, allowed_text, confidence_text
from aligntax.report.markdown import escaped

_RED, _GREEN = "#b34a00", "#00694c"
_LETTER, _PAD = 6.6, 10  # widths of the badge's letters and of what is beside them, in pixels


def verdict_line(found: Gate) -> str:
    """One sentence."""
    n = len(found.held)
    what = "1 comparison" if n == 1 else f"{n} comparisons"
    if not found.exceeded:
        return f"within budget: all of {what} at {confidence_text(found.confidence)} confidence"
    return f"budget exceeded: {len(found.exceeded)} of {what} at {confidence_text(found.confidence)} confidence"


def gate_view(found: Gate) -> Group:
    """A table, what exceeds the budget first, with the reasons below."""
    table = Table(box=None, pad_edge=False, header_style="dim", collapse_padding=True)
    for heading, side in (
        ("", "left"),
        ("task", "left"),
        ("metric", "left"),
        ("change", "right"),
        ("interval", "left"),
        ("at most", "right"),
        ("rule", "left"),
    ):
        table.add_column(heading, justify=side, overflow="fold")  # type: ignore[arg-type]
    for one in _sorted(found):
        row = entry_row(one.entry)
        style = "bold red" if one.status == "exceeded" else "green"
        cells = (row.task, _metric(one), row.change, row.interval, _most(one), one.budget.rule.replace("_", " "))
        table.add_row(Text(one.status, style=style), *(Text(cell) for cell in cells))
    lines = [Text(f"{_name(one)}: {one.reason}") for one in _sorted(found) if one.status == "exceeded"]
    doubts = [Text(f"! {_name(one)}: {printable(check)}", style="yellow") for one in _sorted(found) for check in one.doubts]
    return Group(table, *lines, *doubts)


def gate_markdown(found: Gate) -> str:
    """For a pull request, or a step's summary."""
    out = [f"### Alignment budget: {'exceeded' if found.exceeded else 'kept'}", "", escaped(verdict_line(found)), ""]
    out += ["| | arms | task | metric | change | interval | at most | rule | why |", "|---|---|---|---|--:|---|--:|---|---|"]
    for one in _sorted(found):
        row = entry_row(one.entry)
        cells = (row.pair, row.task, _metric(one), row.change, row.interval, _most(one), one.budget.rule.replace("_", " "), one.reason)
        out.append(f"| **{one.status}** | " + " | ".join(map(escaped, cells)) + " |")
    out += [f"\n- doubt: {escaped(f'{_name(one)}: {check}')}" for one in _sorted(found) for check in one.doubts]
    return "\n".join([*out, ""])


def github_annotations(found: Gate) -> Iterator[str]:
    """Workflow commands: an error per entry beyond its budget, a warning per doubt."""
    for one in _sorted(found):
        if one.status == "exceeded":
            yield f"::error title={_property(f'alignment budget: {_name(one)}')}::{_data(one.reason)}"
        for check in one.doubts:
            yield f"::warning title={_property(f'alignment budget: {_name(one)}')}::{_data(printable(check))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def junit(found: Gate) -> str:
    """A test case per entry, named by its line of the budget."""
    suite = ElementTree.Element(
        "testsuite", name="aligntax gate", tests=str(len(found.held)), failures=str(len(found.exceeded)), errors="0", skipped="0"
    )
    for one in found.held:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"aligntax.{one.entry.kind}", name=f"{_name(one)}: {_most(one)}, {one.budget.rule}"
        )
        if one.status == "exceeded":
            failure = ElementTree.SubElement(case, "failure", message=one.reason, type=one.budget.rule)
            failure.text = f"{entry_row(one.entry).change} {entry_row(one.entry).interval}"
        if one.doubts:
            ElementTree.SubElement(case, "system-out").text = "\n".join(map(printable, one.doubts))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def gate_json(found: Gate) -> str:
    """Every entry held, with what it was held to."""
    rows = [
        {
            "status": one.status, "kind": one.entry.kind, "task": one.entry.task, "metric": one.entry.metric, "baseline": one.entry.baseline,
            "candidate": one.entry.candidate, "of": one.budget.of, "unit": one.entry.unit, "change": one.entry.change,
            "ci_low": one.entry.ci_low, "ci_high": one.entry.ci_high, "level": one.entry.level, "allowed": one.allowed, "rule": one.budget.rule, "p": one.p,
            "reason": one.reason, "doubts": list(one.doubts),
        }
        for one in found.held
    ]  # fmt: skip
    return json.dumps({"within_budget": not found.exceeded, "confidence": found.confidence, "held": rows}, indent=2)


def badge_svg(found: Gate) -> str:
    """A badge of one line, for a README."""
    label, said = "alignment budget", "exceeded" if found.exceeded else "kept"
    left, right = (round(_LETTER * len(text)) + 2 * _PAD for text in (label, said))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right}" height="20" role="img" aria-label="{label}: {said}">'
        f'<rect width="{left}" height="20" fill="#444"/><rect x="{left}" width="{right}" height="20" fill="{_RED if found.exceeded else _GREEN}"/>'
        f'<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2}" y="14">{escape(label)}</text><text x="{left + right / 2}" y="14">{escape(said)}</text></g></svg>\n'
    )


def badge_json(found: Gate) -> str:
    """The form that shields.io reads from an endpoint."""
    said = "exceeded" if found.exceeded else "kept"
    colour = _RED if found.exceeded else _GREEN
    return json.dumps({"schemaVersion": 1, "label": "alignment budget", "message": said, "color": colour}) + "\n"


def _sorted(found: Gate) -> list[Held]:
    return sorted(found.held, key=lambda one: one.status != "exceeded")


def _name(one: Held) -> str:
    return printable(f"{one.entry.task} ({_metric(one)}), {one.entry.baseline} to {one.entry.candidate}")


def _metric(one: Held) -> str:
    """The metric, and which quantile of it is held."""
    return printable(one.entry.metric if one.budget.of is None else f"{one.entry.metric}, {one.budget.of}")


def _most(one: Held) -> str:
    return "unknown" if one.allowed is None else allowed_text(one.budget, one.entry, one.allowed)
