"""Councils chosen from ratings, made-up ensembles, and the power of studies: the thin layers over the statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from aligntax.atlas.choosing import choose
from aligntax.atlas.made_up import MadeUp, contrast_table, share_table, table
from aligntax.atlas.ratings import read_ratings
from aligntax.atlas.roles import roles_of
from aligntax.core.errors import InputError


def test_a_council_that_sees_what_others_overlook(tmp_path: Path) -> None:
    """Nine models see a pair alike and one does not: every council without it is blind."""
    rows = ["pair,category,model,rating,topic"]
    rng = np.random.default_rng(0)
    for p in range(24):
        category = "control" if p < 4 else "clash"
        for m in range(10):
            value = 0.9 if category == "control" else 0.2 if m != 7 else 0.8
            rows.append(f"p{p},{category},m{m},{value + rng.uniform(-0.02, 0.02):.3f},t{p}")
    path = tmp_path / "r.csv"
    path.write_text("\n".join(rows) + "\n")
    found, names = choose(read_ratings(path), 3)
    assert "m7" in names
    assert (found.rate, found.exhaustive) == (0.0, True)
    assert found.random_rate == pytest.approx(0.7)  # C(9, 3) of C(10, 3) councils are without it
    with pytest.raises(InputError, match="a council of 10 of 10 models"):
        choose(read_ratings(path), 10)
    with pytest.raises(InputError, match="every category is a control, an anchor"):
        choose(read_ratings(path), 3, controls=("c*",))


def test_roles_by_name_and_by_hand() -> None:
    there = ("anchor", "control_high", "foil_control", "clash")
    found = roles_of(there)
    assert (found.controls, found.anchors, found.contested, found.foils) == (("control_high", "foil_control"), ("anchor",), ("clash",), ())
    found = roles_of(there, ["control_*"], ["clash"])
    assert (found.controls, found.anchors, found.contested) == (("control_high",), ("clash",), ("anchor", "foil_control"))
    with pytest.raises(InputError, match="--control names the category 'none', which no pair has; there are: anchor"):
        roles_of(there, ["none"])


def test_made_up_ratings_hold_their_truth(tmp_path: Path) -> None:
    text, truth = table(MadeUp(models=30, pairs=60, ratio=3.0, spread=0.03, seed=4))
    path = tmp_path / "r.csv"
    path.write_text(text)
    found = read_ratings(path)
    x = found.means()
    sd = np.nanstd(x, axis=1, ddof=1)
    contested = np.array([c == "contested" for c in found.category])
    ratio = float(np.exp(np.log(sd[contested]).mean() - np.log(sd[~contested]).mean()))
    assert ratio == pytest.approx(3.0, rel=0.2)
    assert truth["ratio_drawn_from"] == 3.0
    assert found.x.shape == (120, 30, 2, 1, 2)
    assert 0.15 < float(str(table(MadeUp(models=40, pairs=40, share=0.3))[1]["omega2"])) < 0.45
    flat, told = table(MadeUp(null=True, noise=0.0))
    assert told["ratio_drawn_from"] == 1.0
    path.write_text(flat)
    assert float(np.nanmax(np.nanstd(read_ratings(path).means(), axis=1))) < 1e-12


@pytest.mark.parametrize("wrong", [{"models": 3}, {"pairs": 1}, {"ratio": 0.0}, {"spread": 0.0}, {"noise": -1.0}, {"share": 1.0}])
def test_ensembles_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        MadeUp(**wrong)  # type: ignore[arg-type]


def test_power_of_a_cell_and_what_no_study_has() -> None:
    found = contrast_table([2.0], [10], [8], heterogeneity=0.4, family=3, alpha=0.05, studies=400, seed=1)
    assert found[2.0, 10, 8].power == pytest.approx(0.77, abs=0.08)
    assert share_table([0.15], [20], pairs=10, alpha=0.05, studies=200, seed=1)[0.15, 20].power == pytest.approx(0.65, abs=0.12)
    with pytest.raises(InputError, match="power needs a positive ratio"):
        contrast_table([-1.0], [10], [8], heterogeneity=0.4, family=3, alpha=0.05, studies=100, seed=1)
    with pytest.raises(InputError, match="power needs a share"):
        share_table([1.0], [10], pairs=10, alpha=0.05, studies=100, seed=1)
