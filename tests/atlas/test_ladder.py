"""Stages of families: flattening is found where it is, in one family's ledger and over several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aligntax.atlas.analysis import Settings, analyse
from aligntax.atlas.claims import claims
from aligntax.atlas.families import families
from aligntax.atlas.ladder import compared
from aligntax.atlas.ratings import read_ratings
from aligntax.atlas.roles import roles_of
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
    with compared(read, family, roles_of(read.categories)) as found:
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
    assert (calm.higher_is_better, clash.higher_is_better) == (True, False)
    assert not any("whether more" in check for check in calm.checks)
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


def test_only_what_has_a_better_side_is_in_the_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ratings.csv"
    names = ("control_high", "control_mid", "contradiction", "foil", "anchor", "clash")
    rows = [
        f"{c} {t},{c},{m},{0.1 * (t + i + (m == 'dpo')) % 1:.2f},AB,t{t},{'base' if m == 'dpo' else ''}"
        for i, c in enumerate(names)
        for t in range(6)
        for m in ("base", "dpo")
    ]
    path.write_text(HEAD + "\n".join(rows) + "\n")
    assert {(e.task, e.metric) for e in ledger(path) if e.task.startswith("atlas_")} == {
        ("atlas_control_high", "rating"),
        ("atlas_clash", "rating"),
        ("atlas_clash", "collapse"),
    }


def herd(folder: Path, shift: float, *, families: int = 6, whole: float = 0.0, missing: int = 0, seed: int = 3) -> Path:
    """Families of a base and a stage that rates clashes ``shift`` higher, give or take .02, and everything ``whole`` higher."""
    rng = np.random.default_rng(seed)
    rows = []
    for f in range(families):
        moved = shift + rng.normal(0, 0.02)
        for t in range(12):
            for category, mean in (("control_high", 0.7), ("clash", 0.3)):
                own = mean + rng.normal(0, 0.05)
                for stage in ("base", "dpo"):
                    extra = 0.0 if stage == "base" else whole + (moved if category == "clash" else 0.0)
                    gone = stage == "dpo" and f == 0 and t < missing
                    value = "" if gone else f"{own + extra + rng.normal(0, 0.01):.4f}"
                    parent = f"f{f} base" if stage == "dpo" else ""
                    rows.append(f"{category} {t},{category},f{f} {stage},{value},t{t},{stage},{parent}")
    path = folder / "herd.csv"
    path.write_text("pair,category,model,rating,topic,stage,parent\n" + "\n".join(rows) + "\n")
    return path


def test_a_step_over_families(tmp_path: Path) -> None:
    found = analyse(read_ratings(herd(tmp_path, 0.1, missing=3)), Settings(draws=99, resamples=99))
    of = {(s.category, s.measure): s for s in found.stages}
    assert set(of) == {("clash", "rating"), ("clash", "collapse"), ("control_high", "rating")}
    for measure in ("rating", "collapse"):
        step = of["clash", measure]
        assert (step.before, step.after, step.finding) == ("base", "dpo", "more alike")
        assert step.families == tuple(f"f{f} base" for f in range(6))
        assert step.change.low < 0.1 < step.change.high < 0.15
    assert of["control_high", "rating"].finding == "not shown"
    (claim,) = (c for c in claims(found) if "after pretraining" in c.claim)
    assert claim.judgement == "supported"
    assert "base to dpo, clash: +0.1" in claim.why


def test_a_step_that_moves_the_whole_scale(tmp_path: Path) -> None:
    found = analyse(read_ratings(herd(tmp_path, 0.0, whole=0.1)), Settings(draws=99, resamples=99))
    of = {(s.category, s.measure): s.finding for s in found.stages}
    assert of == {("clash", "rating"): "more alike", ("clash", "collapse"): "not shown", ("control_high", "rating"): "more alike"}
    (claim,) = (c for c in claims(found) if "after pretraining" in c.claim)
    assert claim.judgement == "not supported"


def test_a_step_that_pulls_apart_contradicts(tmp_path: Path) -> None:
    found = analyse(read_ratings(herd(tmp_path, -0.1)), Settings(draws=99, resamples=99))
    assert {c.judgement for c in claims(found) if "after pretraining" in c.claim} == {"contradicted"}


def test_one_family_is_no_sample_of_families(tmp_path: Path) -> None:
    found = analyse(read_ratings(herd(tmp_path, 0.1, families=1)), Settings(draws=99, resamples=99))
    assert found.stages == []
    assert {c.judgement for c in claims(found) if "after pretraining" in c.claim} == {"cannot be told"}
