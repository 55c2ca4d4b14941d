"""Stages of one family as a ledger: flattening is found where it is, and the gate holds it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aligntax.atlas.ladder import compared, families
from aligntax.atlas.ratings import read_ratings
from aligntax.core.errors import InputError
from aligntax.core.ledger import Ledger

HEAD = "pair,category,model,rating,order,topic,parent\n"


def ratings(folder: Path, shift: float, *, whole: float = 0.0, parents: str = "base", lost: int = 0) -> Path:
    """A base and a stage that rates clashes ``shift`` higher, and everything ``whole`` higher: 24 topics with a control and a clash each, both orders."""
    rng = np.random.default_rng(5)
    rows = []
    for t in range(24):
        for category, mean in (("control_high", 0.8), ("clash", 0.3)):
            own = mean + rng.normal(0, 0.05)
            for model, extra in (("base", 0.0), ("dpo", whole + (shift if category == "clash" else 0.0))):
                for order in ("AB", "BA"):
                    value = (
                        ""
                        if lost and model == "dpo" and category == "clash" and t < lost
                        else f"{min(1, max(0, own + extra + rng.normal(0, 0.01))):.3f}"
                    )
                    rows.append(f"{category} {t},{category},{model},{value},{order},t{t},{parents if model == 'dpo' else ''}")
    path = folder / "ratings.csv"
    path.write_text(HEAD + "\n".join(rows) + "\n")
    return path


def ledger(path: Path) -> Ledger:
    read = read_ratings(path)
    (family,) = families(read)
    with compared(read, family) as found:
        return found.ledger


def test_a_stage_that_flattens_is_a_tax(tmp_path: Path) -> None:
    found = ledger(ratings(tmp_path, 0.1))
    clash, collapse, calm = (
        found.find("atlas_clash", "rating"),
        found.find("atlas_clash", "collapse"),
        found.find("atlas_control_high", "rating"),
    )
    assert {clash.kind, collapse.kind, calm.kind} == {"epistemic"}
    assert (clash.verdict, collapse.verdict) == ("tax", "tax")
    assert clash.change == pytest.approx(0.1, abs=0.01)
    assert clash.n == 24
    assert calm.verdict == "no_tax"
    assert (clash.margin, collapse.margin) == (0.05, 0.1)  # 5 % of the scale
    assert not [e for e in found if e.kind == "consistency"]


def test_a_stage_that_moves_the_whole_scale_collapses_nothing(tmp_path: Path) -> None:
    found = ledger(ratings(tmp_path, 0.0, whole=0.1))
    assert found.find("atlas_clash", "rating").verdict == "tax"
    assert found.find("atlas_clash", "collapse").verdict == "no_tax"


def test_what_was_refused_is_missing(tmp_path: Path) -> None:
    entry = ledger(ratings(tmp_path, 0.1, lost=6)).find("atlas_clash", "rating")
    assert entry.n == 18
    assert entry.outcomes["dpo"] == {"scored": 18, "failed": 6}


def test_families_and_what_is_none(tmp_path: Path) -> None:
    path = ratings(tmp_path, 0.0)
    (family,) = families(read_ratings(path))
    assert (family.root, family.parents) == ("base", {"base": None, "dpo": "base"})
    path.write_text("\n".join(line.rpartition(",")[0] for line in path.read_text().splitlines()) + "\n")
    assert families(read_ratings(path)) == []  # no column parent
    with pytest.raises(InputError, match="dpo names the parent gone, which rated nothing"):
        families(read_ratings(ratings(tmp_path, 0.0, parents="gone")))
    with pytest.raises(InputError, match="dpo is its own ancestor"):
        families(read_ratings(ratings(tmp_path, 0.0, parents="dpo")))
