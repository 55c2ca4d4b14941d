"""What published stage trees say of the claim that the step from SFT to DPO costs safety: where it does, and where it does not."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from aligntax.core.study import Analysis
from aligntax.flow.diff import Comparison, chain, diff_logs
from aligntax.flow.exchange import exchange
from aligntax.flow.stages import cells, losses_of_safety
from aligntax.store.logs import Want

SAFETY = {
    "Tulu-3-8B": (("SFT", "DPO", "RLVR"), (-5.9, -1.7)),
    "Tulu-3-70B": (("SFT", "DPO", "RLVR"), (-5.4, -0.7)),
    "Tulu-3-405B": (("SFT", "DPO", "RLVR"), (-2.2, 1.2)),
    "OLMo-2-7B": (("SFT", "DPO", "RLVR"), (-1.1, -0.4)),
    "OLMo-2-13B": (("SFT", "DPO", "RLVR"), (-2.6, -0.6)),
    "Olmo-3.1-32B-Instruct": (("SFT", "DPO", "RLVR"), (-3.2, 0.6)),
    "Olmo-3-7B-Instruct": (("SFT", "DPO", "RLVR"), (1.0, -2.9)),
    "Olmo-3-7B-Think": (("SFT", "DPO", "RLVR"), (1.9, 3.0)),
    "Olmo-3-32B-Think": (("SFT", "DPO", "RL3.0", "RL3.1"), (0.5, 3.5, 14.8)),
}
"""Points of safety by stage (Tulu 3 2411.15124, OLMo 2 2501.00656, OLMo 3 2512.13961, as their cards and reports print them)."""


def published(shared: Path, model: str, stages: tuple[str, ...]) -> Comparison:
    file = shared / "data" / "published_tables" / "per_stage_results.csv"
    first, *between, last = stages
    ends = [Path(f"{file}#{model}/{stage}") for stage in (first, last)]
    arms = chain(ends[0], ends[1], (first, last), [(stage, Path(f"{file}#{model}/{stage}"), None) for stage in between])
    with diff_logs(arms, Analysis(), Want()) as comparison:
        return comparison


@pytest.mark.parametrize("model", SAFETY)
def test_safety_by_stage(shared: Path, model: str) -> None:
    """Six of nine trees lose safety from SFT to DPO, at most 5.9 points; Olmo 3 7B's and its thinking models gain there, and one loses it to RLVR."""
    stages, changes = SAFETY[model]
    run = published(shared, model, stages)
    edges = list(pairwise(stages))
    found = {e.pair: e.change for e in run.ledger if e.task == "Safety" and e.pair in edges}
    assert [found[edge] for edge in edges] == pytest.approx(changes)
    lost = {cell.entry.pair: cell.entry.cost for cell in losses_of_safety(cells(run.study, run.ledger))}
    assert lost == {edge: pytest.approx(-change) for edge, change in zip(edges, changes, strict=True) if change < 0}
    assert all(cell.q is None for cell in losses_of_safety(cells(run.study, run.ledger)))  # no errors are printed: none is established


def test_points_without_errors_have_no_price(shared: Path) -> None:
    """Olmo 3 7B's DPO raised safety by a point as printed; without errors nothing is shown to have been bought."""
    run = published(shared, "Olmo-3-7B-Instruct", ("SFT", "DPO", "RLVR"))
    (one,) = [x for x in exchange(run.ledger) if x.pair == ("SFT", "DPO")]
    assert one.rates == ()
    reasons = {entry.task: why for entry, why in one.not_bought}
    assert reasons["Safety"] == "+1.0 points, and no interval is known: that anything was bought is not shown, so it has no price"
