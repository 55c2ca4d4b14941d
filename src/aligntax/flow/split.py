"""Two by two: what of a change is the weights' doing, and what the way of asking.

Four arms {base, aligned} x {raw, chat}, on the items that all four have. Per item, weights effect = mean of its effects at raw and at chat,
elicitation effect likewise; the two add up to the total (base raw to aligned chat) exactly, which is an identity of sums:
((AR - BR) + (AC - BC)) / 2 + ((BC - BR) + (AC - AR)) / 2 = AC - BR. The interaction (AC - BC) - (AR - BR) says whether the weights'
effect depends on the template. (Shapley values of a two-player game.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aligntax.core.ledger import Detail, Entry
from aligntax.core.study import Arm, Study
from aligntax.flow import checks as words
from aligntax.flow.compare import MetricTable
from aligntax.flow.scores import FloatArray, IntArray, relabelled
from aligntax.stats.paired import paired_change, without_noise
from aligntax.store.rows import Items

Four = tuple[str, str, str, str]
"""Names of base raw, base chat, aligned raw, aligned chat."""


def fours(study: Study) -> Iterator[Four]:
    """The two-by-two designs of a study: its baseline asked raw and in a chat, with every other model asked so."""
    arms = {arm.name: arm for arm in study.arms}
    base = arms[study.baseline]
    base_chat = _asked_by(study, base, "chat")
    if base.elicitation is None or base.elicitation.template != "raw" or base_chat is None:
        return
    for arm in study.arms:
        chat = _asked_by(study, arm, "chat")
        if arm.model != base.model and arm.elicitation == base.elicitation and chat is not None:  # guards and shots are no weights
            yield base.name, base_chat.name, arm.name, chat.name


def _asked_by(study: Study, arm: Arm, template: str) -> Arm | None:
    """The arm of the same model that differs in the template alone."""
    if arm.elicitation is None:
        return None
    how = arm.elicitation.model_copy(update={"template": template})
    return next((a for a in study.arms if a.model == arm.model and a.elicitation == how), None)


def with_splits(study: Study, entries: Sequence[Entry], tables: Sequence[MetricTable], items: Items) -> list[Entry]:
    """Entries from base raw to aligned chat gain the split in their details."""
    by_pair = {(four[0], four[3]): four for four in fours(study)}
    metrics = {table.metric: table for table in tables}
    out = []
    for entry in entries:
        four = by_pair.get(entry.pair)
        if four is None or entry.task not in items.tasks or entry.metric not in metrics:
            out.append(entry)
            continue
        details = _split(metrics[entry.metric], four, items, items.tasks.index(entry.task), entry)
        common = details.get("split_items")
        fewer = [words.split_of_fewer(common, entry.n)] if isinstance(common, int) and common != entry.n else []
        out.append(entry.model_copy(update={"details": {**entry.details, **details}, "checks": (*entry.checks, *fewer)}))
    return out


def effects(base_raw: FloatArray, base_chat: FloatArray, aligned_raw: FloatArray, aligned_chat: FloatArray) -> dict[str, FloatArray]:
    """Per item, all (N,): what weights did, what elicitation did, and how the one depends on the other."""
    return {
        "weights_effect": ((aligned_raw - base_raw) + (aligned_chat - base_chat)) / 2,
        "elicitation_effect": ((base_chat - base_raw) + (aligned_chat - aligned_raw)) / 2,
        "interaction": (aligned_chat - base_chat) - (aligned_raw - base_raw),
    }


def _split(table: MetricTable, four: Four, items: Items, task: int, entry: Entry) -> Mapping[str, Detail]:
    if any(name not in table.arms for name in four):
        return {}
    chosen = (items.task == task) & np.logical_and.reduce([table.arms[name].valid for name in four])
    at = np.flatnonzero(chosen)
    if not len(at):
        return {}
    codes: IntArray | None = items.cluster[at] if entry.clusters is not None else None
    if codes is not None and (codes < 0).any():
        codes = None
    scale = table.facts[task].scale
    details: dict[str, Detail] = {"split_items": len(at), "split_values": [float(table.arms[arm].mean[at].mean()) for arm in four]}
    for name, d in effects(*(table.arms[arm].mean[at] for arm in four)).items():
        span = None if scale is None else scale * (2 if name == "interaction" else 1)
        settled = without_noise(d, span)
        estimate = paired_change(settled, None if codes is None else relabelled(codes), binary=False, trials=False, scale=span)
        details[name] = estimate.change
        low, high = (None, None) if estimate.test is None else estimate.test.interval(entry.level)
        details[f"{name}_ci"] = [low, high]
    return details
