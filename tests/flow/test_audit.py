"""Audits: the real cases that were verified by hand are found, and sound tables are left in peace."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import aligntax
from aligntax.core.errors import InputError
from aligntax.flow.audit import audit


def found(paths: Sequence[Path], what: str) -> list[str]:
    return [f.said for f in audit(paths) if f.what == what]


MEAN, UNEQUAL, FAR, SAME = (
    "average is not the mean of its cells", "average over unequal task sets", "a cell far off its siblings", "rows identical to the last digit",
)  # fmt: skip


def test_averages_of_published_tables(shared: Path) -> None:
    """Tülu 3 8B and 70B and OLMo 2 are reproduced; Tülu 3 405B and the OLMo 1B card are not."""
    path = shared / "data" / "published_tables" / "per_stage_results.csv"
    wrong = found([path], MEAN)
    assert {text.split(" is printed")[0] for text in wrong} == {
        *(f"Avg of Tulu-3-405B/{stage}" for stage in ("SFT", "DPO", "RLVR")),
        *(f"Avg of OLMo-1B-0724/{stage}" for stage in ("SFT", "DPO")),  # the base's is that of 100 - Toxigen and the others
    }
    assert "Avg of Tulu-3-405B/SFT is printed as 77.5; its 9 cells here average 75.70" in wrong
    far = found([path], FAR)
    assert any("TydiQA_GP moves by -35.06 from Llama-3-8B/Tulu2-SFT to Llama-3-8B/Tulu2-DPO (56.24 to 21.18)" in text for text in far)
    assert not any("MMLU" in text for text in far)


def test_an_impossible_average(shared: Path) -> None:
    path = shared / "data" / "published_tables" / "online_merging_2405.17931_table1_as_printed.csv"
    assert any("Qwen1.5-7B-Chat/ChildTuning is printed as 2.5; its 9 cells here average -0.4" in text for text in found([path], MEAN))
    assert found([shared / "data" / "published_tables" / "online_merging_2405.17931_tables5-7_per_benchmark.csv"], MEAN) == []


def test_printed_averages_of_lm_eval(shared: Path) -> None:
    wrong, far = sorted(audit([shared / "data" / "nous_logs"]), key=lambda one: one.what, reverse=True)
    assert (wrong.where, wrong.what) == ("Mixtral-7x8-Base.md", MEAN)
    assert wrong.said == "Average of AGIEval is printed as 41.85; its 8 cells here average 36.62"
    assert (far.where, far.what) == ("Hermes-2-Pro-Llama-3-8B-SFT.md", "a model far off its siblings: is it what its name says?")
    assert far.said == "better than every other of 16 models on 25 of 47 values, by 1.1 points in the middle"


def test_one_row_under_many_names(shared: Path) -> None:
    said = found([shared / "data" / "open_llm_leaderboard_v1" / "20230915.csv"], SAME)
    assert any("llama-65b, huggyllama/llama-65b" in text for text in said)


def test_predictions_that_were_filled_in(shared: Path) -> None:
    """Upstream put the letter G where nothing was said, in the Llama files only."""
    folder = shared / "data" / "mmlu_pro"
    (llama,) = found([folder / "Meta-Llama-3_1-8B-Instruct.zip"], "predictions filled in")
    assert "694 of 12,032 predictions are not what their texts yield (694 of them G)" in llama
    assert found([folder / "Mistral-7B-Instruct-v0.2.zip"], "predictions filled in") == []
    assert any("159 of 12,032 items repeat" in text for text in found([folder / "Mistral-7B-v0.1.zip"], "duplicated contents"))
    ledger = aligntax.diff(folder / "Meta-Llama-3_1-8B.zip", folder / "Meta-Llama-3_1-8B-Instruct.zip")
    assert sum("filled in upstream" in check for check in ledger.find("mmlu_pro").checks) == 2


def test_the_same_model_twice(shared: Path) -> None:
    said = found(sorted((shared / "data" / "lm_eval_samples_format").glob("*.jsonl")), "not asked alike")
    assert any("is this one model twice" in text for text in said)


def table(path: Path, rows: Sequence[str]) -> Path:
    path.write_text("model,stage,parent_stage,benchmark,value\n" + "\n".join(rows) + "\n")
    return path


def test_sound_tables_are_left_in_peace(tmp_path: Path) -> None:
    cells = {"base": (60.12, 41.33, 75.08), "sft": (61.02, 40.10, 77.25)}
    rows = [f"m,{s},{'base' if s == 'sft' else ''},b{k},{v}" for s, of in cells.items() for k, v in enumerate(of)]
    rows += [f"m,{s},,Average,{sum(of) / 3:.2f}" for s, of in cells.items()]
    assert audit([table(tmp_path / "t.csv", rows)]) == []


def test_averages_over_unequal_sets_and_copied_rows(tmp_path: Path) -> None:
    rows = [f"m,{s},,b{k},{50 + k}" for s in ("base", "sft") for k in range(3)]
    rows += ["m,base,,b3,90", "m,base,,Avg,60.75", "m,sft,,Avg,51"]
    first, second = table(tmp_path / "a.csv", rows), table(tmp_path / "b.csv", [f"other,chat,,b{k},{50 + k}" for k in range(3)])
    assert found([first], UNEQUAL) == ["Avg of m/sft has no b3, which others have: averages over unequal sets cannot be compared"]
    (said,) = found([first, second], SAME)
    assert said == "m/sft (a.csv), other/chat (b.csv): is one of them another model's row?"


def log(path: Path, scores: Sequence[object], prompt: str = "p", **settings: object) -> Path:
    path.mkdir()
    rows = [
        {"doc_id": k, "doc": {"q": f"q{k}"}, "target": "x", "arguments": {}, "resps": [["x"]], "filtered_resps": ["x"], "filter": "none",
         "metrics": ["acc"], "acc": score, "prompt_hash": f"{prompt}{k}"}
        for k, score in enumerate(scores)
    ]  # fmt: skip
    (path / "samples_t_2026-01-01T00-00-00.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (path / "results_2026-01-01T00-00-00.json").write_text(json.dumps({"results": {"t": {"acc,none": 0.5}}, **settings}))
    return path


def test_what_was_asked_differently(tmp_path: Path) -> None:
    base = log(tmp_path / "base", [1, 0] * 50, **{"n-shot": {"t": 5}, "lm_eval_version": "0.4.8", "versions": {"t": 1}})
    chat = log(tmp_path / "chat", [1, 0] * 50, "c", **{"n-shot": {"t": 0}, "lm_eval_version": "0.4.9", "versions": {"t": 1}})
    entry = aligntax.diff(base, chat).find("t")
    (check,) = [c for c in entry.checks if c.startswith("asked differently")]
    assert check == "asked differently (lm_eval_version 0.4.8 against 0.4.9; n-shot 5 against 0): the change mixes model and harness"
    said = found([base, chat], "not asked alike")
    assert any("n-shot 5 against 0" in text for text in said)
    assert any("prompts differ in 100 of 100" in text for text in said)
    assert not any(c.startswith("asked differently") for c in aligntax.diff(base, base).find("t").checks)


@pytest.mark.parametrize(("missing", "said"), [((0, 30), True), ((2, 3), False), ((20, 20), False)])
def test_unequal_attrition(tmp_path: Path, missing: tuple[int, int], said: bool) -> None:
    logs = [log(tmp_path / name, ([None] * n + [1, 0] * 65)[:130]) for name, n in zip("ab", missing, strict=True)]
    checks = aligntax.diff(*logs).find("t").checks
    assert any(c.startswith("unequal attrition") for c in checks) == said


def test_the_command(tmp_path: Path) -> None:
    path = table(tmp_path / "t.csv", [*(f"m,s,,b{k},{k}" for k in range(4)), "m,s,,Avg,9"])

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "aligntax", "audit", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = run("t.csv")
    assert (done.returncode, done.stderr) == (0, "1 finding\n")
    assert done.stdout == f"{MEAN}\n  t.csv: Avg of m/s is printed as 9; its 4 cells here average 1.50\n"
    assert run("t.csv", "--strict").returncode == 1
    assert json.loads(run("t.csv", "--json").stdout)["what"] == MEAN
    missing = run("nowhere.csv")
    assert (missing.returncode, missing.stdout) == (2, "")
    with pytest.raises(InputError, match="an audit reads whole tables"):
        audit([Path(f"{path}#m/s")])


def test_averages_of_fractions_of_groups_and_beside_what_is_not_measured(tmp_path: Path) -> None:
    (tmp_path / "fractions.csv").write_text("model,a,b,c,Average\nx,0.500,0.600,0.700,0.609\ny,0.500,0.600,0.700,0.600\n")
    assert [text.split(" is")[0] for text in found([tmp_path / "fractions.csv"], MEAN)] == ["Average of x"]
    (tmp_path / "groups.csv").write_text("model,ARC,MMLU,HS,Avg know,GSM,MATH,HE,Avg math\nx,10.0,20.0,30.0,20.0,40.0,50.0,60.0,50.0\n")
    (tmp_path / "v2.csv").write_text("model,#Params (B),Hub likes,CO2 cost (kg),Average,IFEval,BBH,MATH\nx,7,900,1.5,20.0,10.0,20.0,30.0\n")
    assert audit([tmp_path / "groups.csv"]) == audit([tmp_path / "v2.csv"]) == []


def test_the_same_model_in_two_tables_is_no_copy(tmp_path: Path) -> None:
    for name in ("card.csv", "board.csv"):
        (tmp_path / name).write_text("model,a,b,c\nm,1.5,2.5,3.5\n")
    assert audit([tmp_path / "card.csv", tmp_path / "board.csv"]) == []


def test_logs_beside_a_table_are_audited_too(tmp_path: Path) -> None:
    log(tmp_path / "run", [1, 0, None] * 20)
    table(tmp_path / "run" / "t.csv", [*(f"m,s,,b{k},{k}" for k in range(4)), "m,s,,Avg,9"])
    assert {f.what for f in audit([tmp_path / "run"])} >= {MEAN, "missing scores"}


def test_a_refusal_is_no_missing_score(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"item": 1, "score": 1, "outcome": "scored"}\n{"item": 2, "score": null, "outcome": "refused"}\n')
    assert audit([tmp_path / "a.jsonl"]) == []


def test_one_number_in_two_versions(shared: Path) -> None:
    said = found([shared / "data" / "published_tables" / "base_vs_aligned_and_merge.csv"], "a cell with two values")
    assert "MMLU_5shot of Llama-2-70B/aligned stands twice, as 52.9 and as 63.9" in said
    assert len(said) == 6


SWAPPED = "labels that look swapped"


def test_rows_that_two_models_have_swapped(tmp_path: Path) -> None:
    """As printed elsewhere, to fewer digits, with the labels of two models exchanged; a third model stays as it is."""
    values = {"a": (61.24, 40.13, 75.02), "b": (58.81, 44.40, 70.09), "c": (50.0, 51.0, 52.0)}

    def rows(names: Sequence[str], digits: int) -> list[str]:
        return [f"{n},,,b{k},{v:.{digits}f}" for n, of in zip(names, values.values(), strict=True) for k, v in enumerate(of)]

    first = table(tmp_path / "paper.csv", rows("abc", 2))
    assert found([first, table(tmp_path / "card.csv", rows("bac", 1))], SWAPPED) == [
        "a and b have each other's values in the two tables, on all of 3 benchmarks"
    ]
    assert found([first, table(tmp_path / "same.csv", rows("abc", 1))], SWAPPED) == []


def test_scores_that_say_the_opposite_of_their_answers(tmp_path: Path) -> None:
    def answers(name: str, metric: str, *, upside_down: bool) -> Path:
        rows = ["item,score,metric,answer,target"]
        rows += [f"{k},{int((k % 2 == 0) != upside_down)},{metric},{'yes' if k % 2 == 0 else 'no'},Yes" for k in range(60)]
        (tmp_path / name).write_text("\n".join(rows) + "\n")
        return tmp_path / name

    (said,) = found([answers("bad.csv", "exact_match", upside_down=True)], SWAPPED)
    assert said == "table, exact_match: 30 of 30 answers scored 0 are their targets, and 30 of 30 scored 1 are not"
    assert found([answers("good.csv", "exact_match", upside_down=False)], SWAPPED) == []
    assert found([answers("errors.csv", "error_rate", upside_down=True)], SWAPPED) == []


def test_the_answer_that_its_index_contradicts(shared: Path) -> None:
    (said,) = found([shared / "data" / "mmlu_pro" / "Meta-Llama-3_1-8B.zip"], SWAPPED)
    assert said == "mmlu_pro: answers that are not the option that their answer_index names: 1 of 12,032 (item 3983)"


def test_one_model_of_a_log_is_audited_by_its_name(shared: Path) -> None:
    file = shared / "data" / "gsm8k_bestofn" / "example_model_solutions.jsonl"
    assert audit([Path(f"{file}#6b_finetuning"), Path(f"{file}#6b_verification")]) == []
    with pytest.raises(InputError, match="name one of its models"):
        audit([file])


def test_cells_that_are_no_number(tmp_path: Path) -> None:
    (tmp_path / "card.csv").write_text("model,ARC,MMLU,GSM8K,Type\nx,56 %,62.0 ± 0.3,85.65 (1.23),chat\ny,57.5%,see text,-,base\n")
    assert [(f.what, f.said) for f in audit([tmp_path / "card.csv"])] == [("left out", "MMLU of y: 'see text' is no number")]


def test_a_row_copied_with_other_digits(shared: Path, tmp_path: Path) -> None:
    """Zephyr's table gives Llama-2-70B's row to the chat model, with two digits more; a copied lm-eval table is another file's."""
    said = found([shared / "data" / "published_tables" / "base_vs_aligned_and_merge.csv"], SAME)
    assert said == ["Llama-2-70B/base, Llama-2-70B/labelled_chat_but_equals_base: is one of them another model's row?"]
    text = (shared / "data" / "nous_logs" / "Mixtral-7x8-Base.md").read_text()
    for name in ("base", "chat"):
        (tmp_path / f"{name}.md").write_text(text)
    assert "base.md, chat.md: is one of them another model's row?" in found([tmp_path], SAME)


def test_averages_that_some_reading_yields(tmp_path: Path) -> None:
    """Rounded sound ones, less is better, groups, other scales: nothing; a model named like an average is no average."""
    rng = np.random.default_rng(0)
    rows = ["model,a,b,c,d,Average"]
    for k in range(200):
        values = rng.uniform(10, 90, 4)
        rows.append(f"m{k}," + ",".join(f"{v:.1f}" for v in values) + f",{values.mean():.1f}")
    (tmp_path / "rounded.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "scales.csv").write_text("model,a,b,c,Average\nx,.62,.51,.44,52.3\ny,62,51,44,0.523\n")
    (tmp_path / "groups.csv").write_text(
        "model,Math avg,GSM,MATH,Know avg,MMLU,ARC,PopQA,Overall\nx,40.0,50.0,30.0,60.0,80.0,70.0,30.0,50.0\n"
    )
    long = ["model,stage,parent_stage,benchmark,value,higher_is_better"]
    long += ["m,base,,a,60,1", "m,base,,b,70,1", "m,base,,toxic,20,0", "m,base,,Avg,70.0,1"]
    (tmp_path / "less.csv").write_text("\n".join(long) + "\n")
    (tmp_path / "names.csv").write_text("model,MMLU,GSM8K,BBH,Average,Overall\nAverage,1.0,2.0,3.0,2.0,2.0\nb,1.5,2.0,3.0,77.0,2.2\n")
    assert [f.said.split(" is printed")[0] for f in audit(sorted(tmp_path.glob("*.csv")))] == ["Average of b"]


def test_cells_beyond_any_number(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("model,MMLU,GSM8K,BBH,Average\na,0e999,0e99999999999999,3.0,2.0\nb,1e-2,2.0e0,3,2\n")
    assert {f.what for f in audit([tmp_path / "t.csv"])} == {"left out", UNEQUAL}


def test_findings_say_which_of_files_of_one_name(tmp_path: Path) -> None:
    for name in ("base", "dpo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.csv").write_text("item,score,question\n1,1,q\n2,0,q\n3,1,r\n")
    said = audit([tmp_path / name / "results.csv" for name in ("base", "dpo")])
    assert {f.where for f in said if f.what == "duplicated contents"} == {"base/results.csv", "dpo/results.csv"}


def test_a_readme_beside_logs_stops_nothing(tmp_path: Path) -> None:
    folder = log(tmp_path / "logs", [1, 0] * 20)
    (folder / "README.md").write_bytes(b"\xe9t\xe9")
    (folder / "NOTES.md").write_text("| Task | Owner |\n|---|---|\n| arc | me |\n")
    assert [(f.where, f.what) for f in audit([folder])][:1] == [("README.md", "left out")]


def test_no_template_against_one(tmp_path: Path) -> None:
    """lm-eval's null says that no chat template was used."""
    raw = log(tmp_path / "raw", [1, 0] * 50, **{"chat_template_sha": None, "n-shot": {"t": 5}})
    chat = log(tmp_path / "chat", [1, 0] * 50, **{"chat_template_sha": "abc", "n-shot": {"t": 5}})
    assert any("chat_template_sha none against abc" in text for text in found([raw, chat], "not asked alike"))


@pytest.mark.parametrize(
    ("reply", "filled"),
    [
        ("The answer is **B**. I hope this helps!", False),
        ("\\boxed{B}. I am sure.", False),
        ("the answer is (b). I checked.", False),
        ("", True),
        ("No idea.", True),
    ],
)
def test_what_counts_as_filled_in(tmp_path: Path, reply: str, filled: bool) -> None:
    rows = [
        {
            "question_id": k,
            "question": f"q{k}",
            "options": ["x", "y"],
            "answer": "A",
            "answer_index": 0,
            "pred": "B",
            "model_outputs": reply,
        }
        for k in range(20)
    ]
    (tmp_path / "out.json").write_text(json.dumps(rows))
    assert bool(found([tmp_path / "out.json"], "predictions filled in")) == filled


def test_results_without_samples_that_were_asked_differently(tmp_path: Path) -> None:
    folders = []
    for name, shots, version in (("base", 5, "0.4.8"), ("chat", 0, "0.4.9")):
        folder = tmp_path / name
        folder.mkdir()
        results = {
            "results": {"t": {"acc,none": 0.5, "acc_stderr,none": 0.05}},
            "n-shot": {"t": shots},
            "n-samples": {"t": {"effective": 100}},
        }
        (folder / "results_2026-01-01T00-00-00.json").write_text(json.dumps({**results, "lm_eval_version": version, "versions": {"t": 1}}))
        folders.append(folder)
    (said,) = found(folders, "not asked alike")
    assert "asked differently (lm_eval_version 0.4.8 against 0.4.9; n-shot 5 against 0)" in said


def test_a_pipe_is_no_log(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        audit([tmp_path / "pipe.csv"])
