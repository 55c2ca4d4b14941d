"""Pairs of accounts of the embedded world: the truth beside each, and never one text twice."""

from __future__ import annotations

from pathlib import Path

from aligntax.atlas.pairs import read_pairs
from aligntax.lab.pairs import account_pairs
from aligntax.lab.world import EVENTS, World


def test_pairs_of_accounts(tmp_path: Path) -> None:
    text = account_pairs(World())
    assert text == account_pairs(World())
    path = tmp_path / "accounts.csv"
    path.write_text(text)
    found = read_pairs(path).pairs
    by = {c: [p for p in found if p.category == c] for c in ("control", "two_communities", "merged", "anchor")}
    assert len(by["control"]) == 2 * len(EVENTS)
    assert {p.reference for p in by["control"]} == {1.0}
    assert all((p.reference or 0) < 1 for p in (*by["two_communities"], *by["merged"]))
    assert {p.topic for p in by["anchor"]} == {None}
    assert all(p.a != p.b for p in found)
    world = World()
    different = [e for e in EVENTS if world.account[e, "hill"] != world.account[e, "shore"]]
    assert [p.topic for p in by["two_communities"]] == different
