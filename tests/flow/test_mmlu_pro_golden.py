"""Both Mistral pairs on MMLU-Pro, against results computed independently of this project."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytest import approx

import aligntax
from aligntax import Entry, Ledger

PAIRS = {
    "v0.1": ("Mistral-7B-v0.1", "Mistral-7B-Instruct-v0.1", "paired_Mistral-7B-v0.1__Mistral-7B-Instruct-v0.1.csv"),
    "v0.2": ("Mistral-7B-v0.2-hf", "Mistral-7B-Instruct-v0.2", "paired_Mistral-7B-v0.2-hf__Mistral-7B-Instruct-v0.2.csv"),
}


def near(x: float) -> Any:
    return approx(x, rel=1e-9, abs=1e-9)


def near_p(p: float) -> Any:
    return approx(p, rel=1e-9, abs=0)


@pytest.fixture(scope="module", params=list(PAIRS))
def case(request: pytest.FixtureRequest, shared: Path, golden: Callable[[str], Any]) -> tuple[Ledger, dict[str, Any], tuple[Path, Path]]:
    base, candidate, key = PAIRS[request.param]
    paths = shared / "data" / "mmlu_pro" / f"{base}.zip", shared / "data" / "mmlu_pro" / f"{candidate}.zip"
    return aligntax.diff(*paths, cluster="src", by="category", margin=0.01), golden("mmlu_pro.json")[key], paths


Case = tuple[Ledger, dict[str, Any], tuple[Path, Path]]


def total(ledger: Ledger) -> Entry:
    return ledger.find(task="mmlu_pro")


def test_the_total(case: Case) -> None:
    ledger, known, _ = case
    entry = total(ledger)
    assert (entry.task, entry.metric, entry.unit, entry.kind) == ("mmlu_pro", "accuracy", "fraction", "performance")
    assert entry.n == known["n"]
    assert entry.clusters == known["cluster_src"]["G"]
    assert entry.baseline_value == near(known["base"])
    assert entry.candidate_value == near(known["aligned"])
    assert entry.change == near(known["diff"])
    assert entry.cost == near(-known["diff"])
    details = entry.details
    assert (details["lost"], details["gained"]) == (known["n10"], known["n01"])
    assert details["mcnemar_exact_p"] == near_p(known["mcnemar_exact_p"])
    assert details["mcnemar_mid_p"] == near_p(known["mcnemar_mid_p"])
    assert details["se_independent_items"] == near(known["se_paired"])
    assert details["se_unpaired"] == near(known["se_unpaired"])
    assert details["se_clustered_cr1"] == near(known["cluster_src"]["se_finite"])
    assert details["correlation"] == near(known["corr"])
    assert details["equivalence_p_independent"] == near_p(known["tost_p"]["0.01"])
    assert details["unparsed_baseline"] == near(known["parse_fail_base"])
    assert details["unparsed_candidate"] == near(known["parse_fail_aligned"])
    assert details["n_both_parsed"] == known["n_both_parsed"]
    assert details["change_both_parsed"] == near(known["diff_both_parsed"])


def test_every_category(case: Case) -> None:
    ledger, known, _ = case
    for label, expected in known["categories"].items():
        entry = ledger.find(task=f"mmlu_pro/{label}")
        assert entry.n == expected["n"]
        assert entry.baseline_value == near(expected["base"])
        assert entry.candidate_value == near(expected["aligned"])
        assert (entry.details["lost"], entry.details["gained"]) == (expected["n10"], expected["n01"])
        assert entry.details["mcnemar_exact_p"] == near_p(expected["mcnemar_p"])
        assert entry.details["holm_mcnemar_exact_p"] == near_p(expected["holm"])
        assert entry.details["bh_mcnemar_exact_p"] == near_p(expected["bh"])
    assert len(ledger) == 1 + len(known["categories"])


@pytest.mark.parametrize("margin", [0.005, 0.015, 0.02, 0.05])
def test_other_margins_and_the_other_cluster_column(case: Case, margin: float) -> None:
    _, known, paths = case
    entry = total(aligntax.diff(*paths, cluster="category", margin=margin))
    assert entry.clusters == known["cluster_category"]["G"]
    assert entry.details["se_clustered_cr1"] == near(known["cluster_category"]["se_finite"])
    expected = known["tost_p"][str(margin)]
    if expected < 1e-16:
        # The independent computation took 1 - Phi(z) of the larger tail, which is 0 in doubles beyond z = 8.3, and so
        # kept the smaller one. The larger tail itself is the answer.
        z = (known["diff"] + margin) / known["se_paired"]
        expected = math.erfc(z / math.sqrt(2)) / 2
        assert expected == approx(9.15e-25, rel=1e-3)
    assert entry.details["equivalence_p_independent"] == near_p(expected)


def test_verdicts_of_section_3_6(case: Case, request: pytest.FixtureRequest) -> None:
    ledger, known, _ = case
    entry = total(ledger)
    if known["diff"] < -0.05:
        assert entry.verdict == "tax"
        assert [entry.ci_low, entry.ci_high] == approx([-0.0702, -0.0422], abs=5e-5)
        assert "the loss exceeds the margin for certain" in entry.checks
        assert "format or knowledge: not separable" in entry.checks
    else:
        assert entry.verdict == "undetermined"
        assert [entry.ci_low, entry.ci_high] == approx([-0.0176, 0.0093], abs=5e-5)
        # On items that both answered, the aligned model is better: the check says that the sign differs.
        assert any("of the other sign" in check for check in entry.checks)
    assert entry.details["df"] == approx(42.1, abs=0.05)


def test_outcomes_add_up_to_the_plan(case: Case) -> None:
    ledger, _, _ = case
    for entry in ledger:
        for arm in (entry.baseline, entry.candidate):
            assert sum(entry.outcomes[arm].values()) == entry.n


def test_llama_where_upstream_filled_predictions_in(shared: Path) -> None:
    folder = shared / "data" / "mmlu_pro"
    entry = total(aligntax.diff(folder / "Meta-Llama-3_1-8B.zip", folder / "Meta-Llama-3_1-8B-Instruct.zip", cluster="src"))
    assert entry.verdict == "gain"
    assert (entry.details["lost"], entry.details["gained"]) == (1127, 2053)
    assert entry.change == approx(0.0770, abs=5e-5)
    assert [entry.ci_low, entry.ci_high] == approx([0.0598, 0.0942], abs=5e-5)
    assert entry.details["design_effect"] == approx(3.38, abs=0.005)
    # Nothing is recorded as unparsed, so the bounds collapse onto the change.
    assert entry.details["change_bounds"] == approx([entry.change, entry.change])


def test_one_model_twice(shared: Path) -> None:
    first, second = sorted((shared / "data" / "lm_eval_samples_format").glob("*.jsonl"))
    entry = aligntax.diff(first, second)[0]
    assert (entry.task, entry.metric, entry.n) == ("aime24_nofigures", "exact_match,none", 30)
    assert entry.change == 0
    assert entry.ci_low is not None
    assert entry.ci_high is not None
    assert entry.ci_low < 0 < entry.ci_high
    assert entry.verdict == "undetermined"
    assert "replies are identical in all 30 pairs: is this one model twice?" in entry.checks
    assert entry.details["identical_replies"] == 30
