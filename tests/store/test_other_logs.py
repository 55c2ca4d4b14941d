"""XSTest labels, solutions of several models, AlpacaEval annotations: real files where there are some, and what is wrong in one sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import aligntax
from aligntax.core.errors import InputError, LogError
from aligntax.core.samples import Outcome
from aligntax.store.logs import Want, find_reader, located, open_log
from aligntax.testing import check_reader

# -- XSTest --------------------------------------------------------------------------------------------------------------------------


def test_refusals_with_and_without_a_system_prompt(shared: Path) -> None:
    """Full refusals of Llama 2 with its first system prompt and without: 63 against 3 safe prompts (people's final label)."""
    folder = shared / "data" / "xstest"
    ledger = aligntax.diff(folder / "llama2orig_streval.csv", folder / "llama2new_streval.csv")
    safe = ledger.find("xstest_safe", "full_refusal,final_label")
    assert (safe.kind, safe.n, safe.details["lost"], safe.details["gained"], safe.verdict) == ("over_refusal", 250, 3, 63, "gain")
    assert safe.details["mcnemar_exact_p"] == pytest.approx(1.3e-15, rel=0.01)
    assert (safe.higher_is_better, ledger.find("xstest_unsafe", "full_refusal,final_label").higher_is_better) == (False, True)
    assert ledger.find("xstest_unsafe", "full_refusal,strmatch_label").baseline_value == 0.98
    told = {(e.task, e.metric) for e in ledger if e.metric.endswith("_label")}
    judges = ("final_label", "strmatch_label")
    assert told == {(t, f"{m}_refusal,{j}") for t in ("xstest_safe", "xstest_unsafe") for m in ("full", "any") for j in judges} | {
        ("xstest_safe", f"partial_refusal,{j}") for j in judges
    }


def test_partial_refusal_is_a_class_of_its_own_on_safe_prompts(shared: Path) -> None:
    """People saw 54 partial refusals of 250 safe prompts with Llama 2's first system prompt, 39 without it; string matching sees none."""
    folder = shared / "data" / "xstest"
    ledger = aligntax.diff(folder / "llama2orig_streval.csv", folder / "llama2new_streval.csv")
    partial = ledger.find("xstest_safe", "partial_refusal,final_label")
    assert (partial.baseline_value, partial.candidate_value, partial.higher_is_better) == (54 / 250, 39 / 250, False)
    full, either = (ledger.find("xstest_safe", f"{m}_refusal,final_label") for m in ("full", "any"))
    assert partial.change == pytest.approx(either.change - full.change)
    assert ledger.find("xstest_safe", "partial_refusal,strmatch_label").baseline_value == 0.0


def test_every_label_file_is_read(shared: Path) -> None:
    for path in sorted((shared / "data" / "xstest").glob("*.csv")):
        check_reader(find_reader(path), path)
        ledger = aligntax.diff(path, path, by="type")
        assert {(e.task, e.n) for e in ledger if "/" not in e.task} == {("xstest_safe", 250), ("xstest_unsafe", 200)}
        assert "xstest_safe/homonyms" in {e.task for e in ledger}


XSTEST = "id,type,prompt,completion,final_label\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (XSTEST + "v2-1,homonyms,p,c,4_maybe\n", "is '4_maybe'; labels are 1_full_compliance"),
        (XSTEST + "v2-1,homonyms,p\n", "row 1 has no completion"),
        (XSTEST + 'v2-1,homonyms,p,"c', "unexpected end of data"),
    ],
)
def test_damaged_label_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    source = open_log(path, Want())
    assert source.reader == "xstest"
    with pytest.raises(LogError, match=message):
        list(source.rows or ())


def test_a_prompt_that_nobody_labelled_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(XSTEST + 'v2-1,contrast_homonyms,p,"c\n\nd",\n')
    (row,) = open_log(path, Want()).rows or ()
    assert (row.task, row.answer) == ("xstest_unsafe", "c\n\nd")
    assert row.scores["full_refusal,final_label"].outcome is Outcome.FAILED


# -- solutions of several models -------------------------------------------------------------------------------------------------------


def test_best_of_a_hundred(shared: Path) -> None:
    """Fine-tuned 6B against the best of 100 by a verifier, on the same 1,319 problems."""
    path = shared / "data" / "gsm8k_bestofn" / "example_model_solutions.jsonl"
    (entry,) = aligntax.diff(f"{path}#6b_finetuning", f"{path}#6b_verification")
    assert (entry.n, entry.details["lost"], entry.details["gained"], entry.verdict) == (1319, 64, 293, "gain")
    assert entry.baseline_value == pytest.approx(0.2168, abs=5e-5)
    assert entry.candidate_value == pytest.approx(0.3904, abs=5e-5)


def solution(number: int, **models: bool) -> dict[str, Any]:
    told = {name: {"is_correct": right, "solution": "s"} for name, right in models.items()}
    return {"question": f"q{number}", "ground_truth": "1", **told}


def test_a_model_of_several_is_named(tmp_path: Path) -> None:
    path = tmp_path / "made#1.jsonl"
    path.write_text("\n".join(json.dumps(solution(k, one=k % 2 == 0, two=True)) for k in range(20)))
    assert located(Path(f"{path}#one")) == (path, "one")
    assert located(path) == (path, None)
    assert aligntax.diff(f"{path}#one", f"{path}#two")[0].change == 0.5
    for reference, message in ((str(path), "name one of its models"), (f"{path}#three", "it has no model 'three'")):
        with pytest.raises(LogError, match=f"{message}.*there are: one, two"):
            list(open_log(Path(reference), Want()).rows or ())
    plain = tmp_path / "t.csv"
    plain.write_text("item,score\na,1\n")
    with pytest.raises(InputError, match=r"holds one model \(table\); leave #one out"):
        open_log(Path(f"{plain}#one"), Want())


# -- AlpacaEval ------------------------------------------------------------------------------------------------------------------------


def annotation(number: int, preference: Any, **change: Any) -> dict[str, Any]:
    return {
        "instruction": f"do {number}", "output_1": "reference", "output_2": f"model {number}", "generator_1": "gpt4_turbo", "generator_2": "mine",
        "dataset": "koala", "annotator": "weighted_alpaca_eval_gpt4_turbo", "preference": preference, **change,
    }  # fmt: skip


def test_preferences_become_win_rates(tmp_path: Path) -> None:
    for name, better in (("base", 1.2), ("tuned", 1.9)):
        rows = [annotation(k, better if k % 4 else 1.5, generator_2=name) for k in range(100)]
        rows.append(annotation(100, None, generator_2=name))
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    check_reader(find_reader(tmp_path / "base.json"), tmp_path / "base.json")
    entry = aligntax.diff(tmp_path / "base.json", tmp_path / "tuned.json").find("alpaca_eval", "win_rate")
    assert (entry.kind, entry.metric, entry.unit, entry.n, entry.verdict) == ("helpfulness", "win_rate", "fraction", 100, "gain")
    assert entry.baseline_value == pytest.approx(0.25 * 0.5 + 0.75 * 0.2)
    assert entry.change == pytest.approx(0.75 * 0.7)
    assert entry.outcomes["base"] == {"scored": 100, "failed": 1}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([annotation(1, 3)], "preference is 3; it runs from 1"),
        ([annotation(1, True)], "preference is True"),
        ([annotation(1, 1), annotation(2, 1, generator_2="other")], "generator_2 is 'other' and was 'mine' before"),
        ([annotation(1, 1), {"instruction": "x"}], "has no output_1, output_2, preference"),
    ],
)
def test_annotations_that_are_none(tmp_path: Path, rows: list[Any], message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(LogError, match=message):
        list(open_log(path, Want()).rows or ())
