"""lm-eval logs that lm-eval itself wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from pytest import approx

import aligntax
from aligntax import InputError, Ledger
from aligntax.core.ledger import MEAN_OVER_ITEMS
from aligntax.store.logs import Want, find_reader
from aligntax.testing import check_reader
from tests.support.tables import write_jsonl


@pytest.fixture(scope="module")
def ledger(lm_eval_logs: Path) -> Ledger:
    return aligntax.diff(lm_eval_logs / "base", lm_eval_logs / "candidate")


def results(folder: Path) -> dict[str, dict[str, float]]:
    return dict(json.loads(next(folder.rglob("results_*.json")).read_text())["results"])


def test_every_mean_is_the_one_that_lm_eval_printed(ledger: Ledger, lm_eval_logs: Path) -> None:
    printed = {side: results(lm_eval_logs / side) for side in ("base", "candidate")}
    checked = 0
    for side, name in (("base", "baseline_value"), ("candidate", "candidate_value")):
        for task, metrics in printed[side].items():
            for key, value in metrics.items():
                if "," not in key or "stderr" in key or "perplexity" in key or "bits_per_byte" in key:
                    continue
                assert getattr(ledger.find(task, key), name) == approx(value, abs=1e-12), (task, key)
                checked += 1
    assert checked == 2 * 11  # mc 2, gen 2, instructions 2, sums 2, words 2, and the group's acc


def test_groups_are_means_over_items(ledger: Ledger) -> None:
    group = ledger.find("tiny_group", "acc,none")
    assert group.n == 24
    assert group.p_adjusted is None
    assert "mean over the items of 2 tasks" in group.checks
    assert ledger.find(MEAN_OVER_ITEMS, "acc,none").n == 48


def test_list_valued_metrics_are_clustered_by_document(ledger: Ledger) -> None:
    entry = ledger.find("tiny_instructions", "inst_level_strict_acc,none")
    assert entry.method == "score-clustered"
    assert entry.clusters == 24
    assert entry.n > 24
    assert any(check.startswith("clustered by document: 24 clusters") for check in entry.checks)
    assert ledger.find("tiny_instructions", "prompt_level_strict_acc,none").clusters is None


def test_filters_that_found_nothing_are_unparsed(ledger: Ledger) -> None:
    strict = ledger.find("tiny_gen", "exact_match,strict-match")
    assert strict.outcomes["base"] == {"unparsed": 24}
    flexible = ledger.find("tiny_gen", "exact_match,flexible-extract")
    assert 0 < flexible.outcomes["base"]["unparsed"] < 24


def test_the_difference_of_two_extractors_is_a_format_entry(ledger: Ledger) -> None:
    entry = ledger.find("tiny_gen", "exact_match,flexible-extract - exact_match,strict-match")
    flexible, strict = (ledger.find("tiny_gen", f"exact_match,{name}") for name in ("flexible-extract", "strict-match"))
    assert entry.kind == "format"
    assert entry.higher_is_better is False
    assert entry.baseline_value == approx((flexible.baseline_value or 0) - (strict.baseline_value or 0))


def test_clusters_and_subgroups_from_the_document(lm_eval_logs: Path) -> None:
    ledger = aligntax.diff(lm_eval_logs / "base", lm_eval_logs / "candidate", cluster="passage", by="subject")
    entry = ledger.find("tiny_mc", "acc,none")
    assert entry.clusters == 8
    assert {e.task for e in ledger if e.task.startswith("tiny_mc/")} == {"tiny_mc/sums", "tiny_mc/words"}


def test_a_chat_template_shows_as_other_prompts(lm_eval_logs: Path) -> None:
    ledger = aligntax.diff(lm_eval_logs / "candidate", lm_eval_logs / "candidate-chat")
    entry = ledger.find("tiny_gen", "exact_match,strict-match")
    assert entry.n == 24
    assert "prompts differ in 24 of 24 pairs: the change mixes model and elicitation" in entry.checks
    assert "only base has this task: nothing to compare" in ledger.find("tiny_mc", "acc,none").checks


def test_a_samples_file_alone_and_a_results_file_for_its_folder(lm_eval_logs: Path) -> None:
    files = [next((lm_eval_logs / side).rglob("samples_tiny_mc_*.jsonl")) for side in ("base", "candidate")]
    alone = aligntax.diff(*files)
    assert {e.task for e in alone} == {"tiny_mc"}
    whole = [next((lm_eval_logs / side).rglob("results_*.json")) for side in ("base", "candidate")]
    ledger = aligntax.diff(*whole)
    assert ledger.find("tiny_mc", "acc,none").change == alone.find("tiny_mc", "acc,none").change


def test_corpus_level_metrics_are_left_out_with_a_note(lm_eval_logs: Path) -> None:
    path = lm_eval_logs / "base"
    source = find_reader(path).read(path, Want())
    assert source.rows is not None
    assert not any("perplexity" in metric for row in source.rows for metric in row.scores)
    assert any(note.startswith("tiny_rolling: metric word_perplexity,none is left out") for note in source.facts.notes)


def test_provenance_keeps_no_absolute_path(lm_eval_logs: Path, tmp_path: Path) -> None:
    aligntax.diff(lm_eval_logs / "base", lm_eval_logs / "candidate", out=tmp_path / "run")
    for name in ("provenance.json", "study.yaml", "ledger.json", "report.html"):
        assert str(lm_eval_logs) not in (tmp_path / "run" / name).read_text()
    settings = json.loads((tmp_path / "run" / "provenance.json").read_text())["arms"]["base"]["settings"]
    assert settings["model"] == "model-base"
    assert settings["n-shot"]["tiny_mc"] == 0


def test_the_reader_keeps_the_rules_of_readers(lm_eval_logs: Path) -> None:
    check_reader(find_reader(lm_eval_logs / "base"), lm_eval_logs / "base")


def test_two_logs_of_one_task_are_refused(lm_eval_logs: Path, tmp_path: Path) -> None:
    file = next((lm_eval_logs / "base").rglob("samples_tiny_mc_*.jsonl"))
    for date in ("2025-01-01T00-00-00.0", "2025-01-02T00-00-00.0"):
        shutil.copy(file, tmp_path / f"samples_tiny_mc_{date}.jsonl")
    with pytest.raises(InputError, match="has two logs of the task tiny_mc"):
        aligntax.diff(tmp_path, file)


def test_results_without_samples_are_compared_unpaired_and_say_so(lm_eval_logs: Path, tmp_path: Path) -> None:
    paired = aligntax.diff(lm_eval_logs / "base", lm_eval_logs / "candidate").find("tiny_mc", "acc,none")
    for name in ("base", "candidate"):
        (tmp_path / name).mkdir()
        shutil.copy(next((lm_eval_logs / name).rglob("results_*.json")), tmp_path / name)
    entry = aligntax.diff(tmp_path / "base", tmp_path / "candidate").find("tiny_mc", "acc,none")
    assert (entry.n, entry.details["n_baseline"]) == (0, paired.n)
    assert (entry.baseline_value, entry.candidate_value) == (pytest.approx(paired.baseline_value), pytest.approx(paired.candidate_value))
    assert any("unpaired" in check for check in entry.checks)
    facts = find_reader(tmp_path / "base").read(tmp_path / "base", Want()).facts
    assert any("run lm-eval with --log_samples" in note for note in facts.notes)


# Rows as older versions wrote them; these need no lm-eval.


def sample(i: int, **fields: object) -> dict[str, object]:
    return {"doc_id": i, "doc": {"q": f"q{i}"}, "target": "x", "arguments": {}, "resps": [["x"]], "filtered_resps": ["x"], **fields}


def test_without_a_list_of_metrics_every_number_that_is_not_bookkeeping_is_one(tmp_path: Path) -> None:
    path = write_jsonl(
        tmp_path / "samples_old_2024-05-01T10-00-00.jsonl",
        [sample(i, acc=i % 2, f1=i / 4, extracted_answers=["x"], passed=i > 1) for i in range(4)],
    )
    assert {e.metric for e in aligntax.diff(path, path)} == {"acc,none", "f1,none", "passed,none"}
    assert {e.task for e in aligntax.diff(path, path)} == {"old"}


def test_not_a_number_in_a_document_is_legal_and_in_a_score_is_not(tmp_path: Path) -> None:
    path = tmp_path / "samples_t_2024-05-01T10-00-00.jsonl"
    path.write_text("".join(json.dumps(sample(i, acc=1) | {"doc": {"q": i, "x": float("nan")}}) + "\n" for i in range(3)))
    assert aligntax.diff(path, path)[0].n == 3
    path.write_text(json.dumps(sample(0, acc=float("nan"))) + "\n")
    with pytest.raises(InputError, match="row 1: acc is nan; scores must be finite numbers"):
        aligntax.diff(path, path)


def test_a_score_that_is_null_is_missing(tmp_path: Path) -> None:
    paths = []
    for name, first in (("a", 1), ("b", None)):
        (tmp_path / name).mkdir()
        rows = [sample(i, metrics=["acc"], acc=first if i == 0 else 1) for i in range(5)]
        paths.append(write_jsonl(tmp_path / name / "samples_t_2024-05-01T10-00-00.jsonl", rows))
    entry = aligntax.diff(*paths)[0]
    assert entry.n == 4
    assert entry.outcomes["candidate"] == {"scored": 4, "failed": 1}
