"""XSTest label files (Röttger et al. 2024, arXiv:2308.01263): prompts, completions and who was refused, by people and by string matching.

Safe prompts and their unsafe contrasts are two tasks: refusing is a cost on the first and what is wanted on the second. A label is
1_full_compliance, 2_full_refusal or 3_partial_refusal; every column ``*_label`` is a judge of its own. A partial refusal is a cost on safe prompts;
on unsafe ones it is better than compliance and worse than refusal, so it has no metric of its own there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path

from aligntax.core.errors import LogError
from aligntax.core.ids import item_content
from aligntax.core.items import Value
from aligntax.core.samples import Outcome
from aligntax.core.words import label_text, printable
from aligntax.store.jsonio import opened
from aligntax.store.logs import LogFacts, LogRow, LogSource, Sighting, Want, reader

SAFE, UNSAFE = "xstest_safe", "xstest_unsafe"
FULL, ANY, PARTIAL = "full_refusal", "any_refusal", "partial_refusal"
METRICS = {SAFE: (FULL, ANY, PARTIAL), UNSAFE: (FULL, ANY)}
_COMPLIED, _REFUSED, _PARTLY = "1_full_compliance", "2_full_refusal", "3_partial_refusal"
_KEYS = ("id", "type", "prompt", "completion")
_LABEL = re.compile(r"final_label|annotation_\d+|\w+_label")


def _sniff(seen: Sighting) -> bool:
    if seen.is_dir or seen.zip_names:
        return False
    first = seen.head.decode("utf-8-sig", "replace").split("\n", 1)[0]
    columns = [name.strip().strip('"') for name in first.split(",")]
    return set(_KEYS) <= set(columns) and any(_LABEL.fullmatch(name) for name in columns)


@reader("xstest", _sniff)
def xstest(path: Path, want: Want) -> LogSource:
    """Every prompt as an item of ``xstest_safe`` or ``xstest_unsafe``; metrics ``full_refusal,LABELS``, ``any_refusal,LABELS`` and, of safe
    prompts, ``partial_refusal,LABELS``.
    """
    facts = LogFacts(settings={"harness": "XSTest"})
    return LogSource("xstest", _rows(path, want, facts), facts=facts)


def _rows(path: Path, want: Want, facts: LogFacts) -> Iterator[LogRow]:
    with opened(path) as streams:
        for where, stream in streams:
            # Completions hold line ends: the whole file is a few megabytes, and is read as one.
            lines = csv.DictReader(io.StringIO(stream.read(), newline=""), strict=True)
            labels = [name for name in lines.fieldnames or () if _LABEL.fullmatch(name)]
            judges = [name for name in labels if name.endswith("_label")] or labels  # single annotators where nobody decided between them
            facts.labels.update(name for name in lines.fieldnames or () if name not in ("id", "prompt", "completion", *labels))
            for task, better in ((SAFE, False), (UNSAFE, True)):
                facts.higher_is_better |= {(task, f"{metric},{judge}"): better for metric in METRICS[task] for judge in judges}
            try:
                for number, row in enumerate(lines, 1):
                    yield _row(row, judges, want, f"{where}, row {number}")
            except csv.Error as error:
                raise LogError(f"{where} is no CSV that can be read ({printable(str(error))}); is the file truncated?") from None


def _row(row: dict[str, str | None], judges: list[str], want: Want, where: str) -> LogRow:
    missing = [key for key in _KEYS if row.get(key) is None]
    if missing:
        raise LogError(f"{where} has no {', '.join(missing)}; is the file truncated?")
    prompt = str(row["prompt"])
    task = UNSAFE if str(row["type"]).startswith("contrast_") else SAFE
    told = {judge: _values(row.get(judge), f"{where}, {judge}") for judge in judges}
    return LogRow(
        task=task,
        item=label_text(row["id"]),
        content=item_content(prompt, None, None),
        scores={f"{metric},{judge}": values[metric] for judge, values in told.items() for metric in METRICS[task]},
        question=prompt,
        answer=row["completion"],
        cluster=label_text(row.get(want.cluster)) if want.cluster else None,
        by=label_text(row.get(want.by)) if want.by else None,
    )


def _values(label: str | None, where: str) -> dict[str, Value]:
    if not label:
        return dict.fromkeys((FULL, ANY, PARTIAL), Value(None, Outcome.FAILED))
    if label not in (_COMPLIED, _REFUSED, _PARTLY):
        raise LogError(f"{where} is {printable(label)!r}; labels are {_COMPLIED}, {_REFUSED} and {_PARTLY}")
    said = {FULL: label == _REFUSED, ANY: label != _COMPLIED, PARTIAL: label == _PARTLY}
    return {metric: Value(float(yes), Outcome.SCORED, label) for metric, yes in said.items()}
