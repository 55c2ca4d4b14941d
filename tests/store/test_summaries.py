"""Logs without samples: results files, printed tables, published tables, leaderboards, serving benchmarks."""

from __future__ import annotations

import json
import subprocess
import sys
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

import aligntax
from aligntax.core.errors import InputError, LogError, PairingError
from aligntax.store.logs import Summary, Want, open_log


def summaries(path: Path | str) -> dict[tuple[str, str], Summary]:
    source = open_log(Path(path), Want())
    assert source.rows is None
    return {(s.task, s.metric): s for s in source.summaries or []}


def results(path: Path, values: dict[str, Any], **more: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"results": values, **more}))
    return path


def test_results_of_both_versions(tmp_path: Path) -> None:
    new = results(
        tmp_path / "a" / "results_2026-01-01T00-00-00.json",
        {
            "arc": {"alias": "arc", "acc,none": 0.6, "acc_stderr,none": 0.0155},
            "mean": {"acc,none": 0.6},
            "odd": {"acc,none": 0.5, "acc_stderr,none": "N/A"},
        },
        **{
            "n-samples": {"arc": {"original": 1000, "effective": 1000}},
            "group_subtasks": {"mean": ["arc"]},
            "higher_is_better": {"arc": {"acc": True}},
        },
    )
    assert summaries(new) == {
        ("arc", "acc,none"): Summary("arc", "acc,none", 0.6, 0.0155, 1000),
        ("odd", "acc,none"): Summary("odd", "acc,none", 0.5),
    }
    old = results(tmp_path / "b" / "results_x.json", {"arc": {"acc": 0.55, "acc_stderr": 0.0157, "acc_norm": 0.5}}, versions={"arc": 0})
    assert summaries(old)["arc", "acc"] == Summary("arc", "acc", 0.55, 0.0157)
    assert summaries(tmp_path / "a") == summaries(new)


def test_known_sizes_give_a_score_test_and_unknown_ones_no_interval(tmp_path: Path) -> None:
    def one(name: str, p: float, n: int | None, **more: float) -> Path:
        counts = {} if n is None else {"n-samples": {"t": {"effective": n}}}
        return results(tmp_path / name / "results_1.json", {"t": {"acc,none": p, **more}}, **counts)

    known = aligntax.diff(one("a", 48 / 80, 80), one("b", 56 / 70, 70))[0]
    assert (known.n, known.method, known.verdict) == (0, "unpaired", "gain")
    assert (known.ci_low, known.ci_high) == (pytest.approx(0.0528, abs=6e-5), pytest.approx(0.3382, abs=6e-5))
    assert (known.details["n_baseline"], known.details["n_candidate"]) == (80, 70)
    assert known.outcomes == {"base": {"scored": 80}, "candidate": {"scored": 70}}
    assert any(check.startswith("unpaired") for check in known.checks)
    unknown = aligntax.diff(one("c", 0.6, None), one("d", 0.3, None))[0]
    assert (unknown.method, unknown.ci_low, unknown.p_value, unknown.verdict) == ("none", None, None, "undetermined")
    assert unknown.change == pytest.approx(-0.3)
    assert any("no interval" in check for check in unknown.checks)
    errors = {"acc_stderr,none": 0.02}
    told = aligntax.diff(one("e", 0.6, None, **errors), one("f", 0.5, None, **errors))[0]
    assert told.se == pytest.approx(0.02 * sqrt(2))
    assert (told.method, told.verdict) == ("unpaired", "tax")


def test_samples_on_one_side_are_summarised(tmp_path: Path) -> None:
    table = tmp_path / "base.csv"
    table.write_text("task,metric,item,score\n" + "".join(f'arc,"acc,none",{k},{int(k % 10 < 6)}\n' for k in range(200)))
    other = results(tmp_path / "results_1.json", {"arc": {"acc,none": 0.2}}, **{"n-samples": {"arc": {"effective": 200}}})
    entry = aligntax.diff(table, other)[0]
    assert (entry.baseline_value, entry.verdict, entry.details["n_baseline"]) == (pytest.approx(0.6), "tax", 200)
    paired = aligntax.diff(table, table)[0]
    assert paired.n == 200
    with pytest.raises(InputError, match="neither sources nor subgroups"):
        aligntax.diff(table, other, cluster="item")
    with pytest.raises(PairingError, match="no task and metric in common"):
        aligntax.diff(table, results(tmp_path / "c" / "results_1.json", {"boolq": {"acc,none": 0.2}}))


def test_printed_tables(shared: Path) -> None:
    folder = shared / "data" / "nous_logs"
    for path in sorted(folder.glob("*.md")):
        if path.name != "LICENSE":
            assert len(summaries(path)) > 20, path.name
    found = summaries(folder / "Mistral-7B-Base.md")
    assert found["agieval_sat_math", "acc_norm"] == Summary("agieval_sat_math", "acc_norm", 0.2545, 0.0294)
    assert found["arc_challenge", "acc,none"] == Summary("arc_challenge", "acc,none", 0.5026, None)
    ledger = aligntax.diff(folder / "OpenHermes-2.5-Mistral-7B.md", folder / "DPOpenHermes.md")
    assert ledger.find("hellaswag", "acc_norm").verdict in ("gain", "tax", "no_tax", "undetermined")
    assert ledger.find("hellaswag", "acc_norm").method == "unpaired"


def test_stages_of_a_published_table_add_up(shared: Path) -> None:
    """SFT -> DPO -> RLVR of Tülu 3: on every benchmark the edges add up to the total."""
    path = shared / "data" / "published_tables" / "per_stage_results.csv"
    for model in ("Tulu-3-8B", "Tulu-3-70B", "OLMo-2-13B"):
        ledger = aligntax.diff(
            f"{path}#{model}/SFT", f"{path}#{model}/RLVR", names=("sft", "rlvr"), stages=[("dpo", f"{path}#{model}/DPO")]
        )
        tasks = {e.task for e in ledger if e.pair == ("sft", "rlvr")}
        assert len(tasks) >= 9
        assert not any("avg" in task.lower() for task in tasks)
        for task in tasks:
            change = {e.pair: e.change for e in ledger if e.task == task}
            total = (change["sft", "dpo"] or 0) + (change["dpo", "rlvr"] or 0)
            assert change["sft", "rlvr"] == pytest.approx(total, abs=1e-9)
            assert all(e.ci_low is None and e.verdict == "undetermined" for e in ledger if e.task == task)


def test_stages_of_printed_tables_add_up(shared: Path) -> None:
    """Mixtral base -> SFT -> DPO as lm-eval printed them: the values of evidence.md, edges that add up, no tax beyond noise."""
    folder = shared / "data" / "nous_logs"
    ledger = aligntax.diff(
        folder / "Mixtral-7x8-Base.md", folder / "Nous-Hermes-2-Mixtral-8x7B-DPO.md",
        stages=[("sft", folder / "Nous-Hermes-2-Mixtral-8x7B-SFT.md")], names=("base", "dpo"),
    )  # fmt: skip
    for task, metric, values in (
        ("arc_challenge", "acc_norm", (0.5964, 0.6323, 0.6425)),
        ("hellaswag", "acc_norm", (0.8401, 0.8434, 0.8489)),
        ("winogrande", "acc", (0.7632, 0.7569, 0.7616)),
        ("truthfulqa_mc", "mc2", (0.4851, 0.5388, 0.5783)),
    ):
        first, second = ledger.find(task, metric, "sft"), ledger.find(task, metric, "dpo", "sft")
        assert (first.baseline_value, first.candidate_value, second.candidate_value) == values
    edges = {(e.task, e.metric, e.pair): e.change or 0.0 for e in ledger}
    whole = [key[:2] for key in edges if key[2] == ("base", "dpo")]
    assert len(whole) > 40
    for key in whole:
        assert edges[*key, ("base", "dpo")] == pytest.approx(edges[*key, ("base", "sft")] + edges[*key, ("sft", "dpo")], abs=1e-9)
    assert not [e for e in ledger if e.verdict == "tax"]
    assert all(e.method in ("unpaired", "none") and e.n == 0 for e in ledger)


def test_percent_signs_errors_and_brackets_of_published_tables(tmp_path: Path) -> None:
    path = tmp_path / "card.csv"
    path.write_text("model,ARC,MMLU,GSM8K,HE,Type\nx,56 %,62.0 ± 0.3,85.65 (1.23),see text,chat\ny,57.5%,\u22121.5,-,3,base\n")
    assert {key: (one.value, one.se) for key, one in summaries(f"{path}#x").items()} == {
        ("ARC", "points"): (56.0, None),
        ("MMLU", "points"): (62.0, 0.3),
        ("GSM8K", "points"): (85.65, None),
    }
    assert open_log(Path(f"{path}#x"), Want()).facts.notes == ["HE is left out: 'see text' is no number"]
    assert summaries(f"{path}#y")["MMLU", "points"].value == -1.5


def test_a_leaderboard(shared: Path) -> None:
    path = shared / "data" / "open_llm_leaderboard_v1" / "20230915.csv"
    first, second = (summaries(f"{path}#meta-llama/Llama-2-7b-hf~{n}") for n in (1, 2))
    assert first["MMLU(5-shot)", "points"].value == 46.9
    assert second["MMLU(5-shot)", "points"].value == 43.8
    assert set(first) == {(name, "points") for name in ("ARC(25-shot)", "HellaSwag(10-shot)", "MMLU(5-shot)", "TruthfulQA(0-shot)")}
    for reference, message in (
        (f"{path}#meta-llama/Llama-2-7b-hf", r"2 different rows of that name; number one, as 20230915\.csv#NAME~1"),
        (f"{path}#meta-llama/Llama-2-7b-hf~3", "no row 3"),
        (f"{path}#nobody", "has no 'nobody': name one"),
        (str(path), "holds several models: name one"),
    ):
        with pytest.raises(LogError, match=message):
            open_log(Path(reference), Want())


VLLM = {
    "date": "20260101-000000", "backend": "vllm", "model_id": "m", "num_prompts": 100, "completed": 100, "request_throughput": 9.5,
    "output_throughput": 1200.0, "mean_ttft_ms": 50.0, "median_ttft_ms": 48.0, "std_ttft_ms": 10.0, "p99_ttft_ms": 90.0, "mean_tpot_ms": 8.0,
    "std_tpot_ms": 1.0,
}  # fmt: skip


def test_a_serving_benchmark_of_vllm(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(VLLM))
    (tmp_path / "b.json").write_text(json.dumps({**VLLM, "mean_ttft_ms": 60.0, "request_throughput": 8.0}))
    assert summaries(tmp_path / "a.json")["serving", "time_to_first_token"] == Summary("serving", "time_to_first_token", 0.05, 0.001, 100)
    ledger = aligntax.diff(tmp_path / "a.json", tmp_path / "b.json", kinds={"serving": "latency"})
    first = ledger.find("serving", "time_to_first_token")
    assert (first.higher_is_better, first.change, first.verdict) == (False, pytest.approx(0.01), "tax")
    assert first.ci_low == pytest.approx(0.01 - 1.972 * 0.001 * sqrt(2), abs=1e-5)
    rate = ledger.find("serving", "requests_per_second")
    assert (rate.higher_is_better, rate.ci_low, rate.cost) == (True, None, pytest.approx(1.5))


def test_a_serving_benchmark_of_guidellm(tmp_path: Path) -> None:
    def stat(mean: float) -> dict[str, Any]:
        return {"successful": {"mean": mean, "std_dev": mean / 5, "count": 25, "percentiles": {"p99": 2 * mean}}, "errored": {}}

    metrics = {"time_to_first_token_ms": stat(100.0), "request_latency": stat(2.0), "requests_per_second": stat(4.0)}
    report = {"benchmarks": [{"config": {"strategy": {"type_": "constant", "rate": 4.0}}, "metrics": metrics}, {"metrics": metrics}]}
    (tmp_path / "g.json").write_text(json.dumps(report))
    found = summaries(tmp_path / "g.json")
    assert found["serving/constant@4", "time_to_first_token"] == Summary(
        "serving/constant@4", "time_to_first_token", 0.1, pytest.approx(0.004), 25
    )
    assert found["serving/constant@4", "requests_per_second"] == Summary("serving/constant@4", "requests_per_second", 4.0)
    assert found["serving/2", "request_latency"].value == 2.0


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.md", "| Tasks | Metric | Value |\n|---|---|---|\n", "has no row of results"),
        ("t.md", "|Task|Metric|Value|\n|-|-|-|\n|a|acc|0.5|\n|a|acc|0.6|\n", "line 4: a, acc stands twice, with 0.5 and 0.6"),
        ("t.csv", "model,stage,benchmark,value\nm,s,b,1\nm,s,b,2\n", "b of m/s stands twice, with 1 and 2"),
        ("t.csv", "model,stage,benchmark,value\nm,s,b,soon\n", "has no number of m/s"),
        ("results_1.json", '{"results": {"t": {"alias": "t"}}}', "results without a number"),
    ],
)
def test_tables_that_say_nothing_or_two_things(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(LogError, match=message):
        open_log(Path(f"{tmp_path / name}#m/s" if name.endswith("csv") else tmp_path / name), Want())


def test_a_run_of_summaries_is_a_run_like_others(tmp_path: Path) -> None:
    for name, p in (("a", 0.6), ("b", 0.4)):
        results(
            tmp_path / name / "results_1.json", {"t": {"acc,none": p}, "u": {"acc,none": p}}, **{"n-samples": {"t": {"effective": 500}}}
        )
    aligntax.diff(tmp_path / "a", tmp_path / "b", out=tmp_path / "run")
    assert aligntax.load(tmp_path / "run").find("t").verdict == "tax"
    for arguments in (["show", "run"], ["report", "run", "--markdown"], ["export", "run", "--to", "csv"], ["flips", "run"]):
        done = subprocess.run([sys.executable, "-m", "aligntax", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 2), done.stderr
        assert "unexpectedly" not in done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "unpaired, 500 and 500 items" in page


def test_clusters_of_the_side_that_has_samples_count(tmp_path: Path) -> None:
    """Twenty sources of fifty equal scores are twenty observations, not a thousand."""
    rows = "".join(f"arc,acc,{k},{int(k // 50 < 7)},s{k // 50}\n" for k in range(1000))
    (tmp_path / "a.csv").write_text("task,metric,item,score,cluster\n" + rows)
    other = results(tmp_path / "results_1.json", {"arc": {"acc": 0.45}}, **{"n-samples": {"arc": {"effective": 1000}}})
    entry = aligntax.diff(tmp_path / "a.csv", other)[0]
    assert entry.details["clusters_baseline"] == 20
    assert entry.details["se_baseline"] == pytest.approx(sqrt(0.35 * 0.65 / 19), rel=1e-6)
    assert entry.verdict == "undetermined"


def test_scales_and_directions_are_not_guessed_silently(tmp_path: Path) -> None:
    (tmp_path / "f.csv").write_text("model,arc,mmlu\nA,0.561,0.4\n")
    (tmp_path / "p.csv").write_text("model,arc,mmlu,toxicity\nB,56.1,40,10\nC,57,41,20\n")
    with pytest.raises(InputError, match="gives fractions and candidate percentages"):
        aligntax.diff(f"{tmp_path / 'f.csv'}#A", f"{tmp_path / 'p.csv'}#B")
    ledger = aligntax.diff(f"{tmp_path / 'p.csv'}#B", f"{tmp_path / 'p.csv'}#C")
    assert ledger.find("toxicity").cost == 10
    assert any("no log says whether more arc is better" in check for check in ledger.find("arc").checks)


def test_printed_rows_are_never_given_to_another_task(tmp_path: Path) -> None:
    (tmp_path / "t.md").write_text(
        "|Task|V|Metric|Value| |Stderr|\n|-|-|-|-|-|-|\n|A|0|acc|0.5|_|0.01|\n|B|0|acc|0.6|_|0.01|x|\n| | |acc_norm|0.9|_|0.01|\n|C|0|acc|0.7|_|0.01|```\n"
    )
    assert {key: s.value for key, s in summaries(tmp_path / "t.md").items()} == {("A", "acc"): 0.5, ("C", "acc"): 0.7}


def test_plain_tables_stay_plain(tmp_path: Path) -> None:
    for name, text, columns in (
        ("a.csv", "question,score,model,task,value\nq,1,m,t,2\n", {}),
        ("b.csv", "model,prompt_id,correct\nm,p1,1\n", {"item": "prompt_id", "score": "correct"}),
        ("c.csv", "item,score,id,type,prompt,completion,gold_label\n1,1,i,t,p,c,x\n", {}),
    ):
        (tmp_path / name).write_text(text)
        ledger = aligntax.diff(tmp_path / name, tmp_path / name, columns=columns)
        assert ledger[0].n == 1


def test_a_damaged_header_of_a_table_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"model,x\ra,1\r")
    (tmp_path / "b.csv").write_text('"' + "x" * 200_000)
    for name in ("a.csv", "b.csv"):
        with pytest.raises(InputError):
            aligntax.diff(tmp_path / name, tmp_path / name)


def test_answers_that_nobody_could_read_count_as_they_do_in_pairs(tmp_path: Path) -> None:
    """Refused, unparsed and cut answers without a score are wrong answers; failed ones are missing. An error that is no number is none."""
    outcomes = ["scored"] * 60 + ["refused"] * 10 + ["unparsed"] * 10 + ["truncated"] * 10 + ["failed"] * 10
    rows = [f"t,acc,{k},{1 if o == 'scored' else ''},{o}" for k, o in enumerate(outcomes)]
    (tmp_path / "a.csv").write_text("task,metric,item,score,outcome\n" + "\n".join(rows) + "\n")
    other = results(
        tmp_path / "results_1.json", {"t": {"acc": 0.5, "acc_stderr": float("nan")}}, **{"n-samples": {"t": {"effective": 100}}}
    )
    entry = aligntax.diff(tmp_path / "a.csv", other)[0]
    paired = aligntax.diff(tmp_path / "a.csv", tmp_path / "a.csv")[0]
    assert entry.baseline_value == paired.baseline_value == pytest.approx(60 / 90)
    assert entry.details["n_baseline"] == paired.n == 90
    assert "se_candidate" not in entry.details


@pytest.mark.parametrize("asked", [{"diversity": True}, {"rewordings": True}, {"judges": {"a": "b"}}])
def test_what_takes_answers_is_refused_of_summaries(tmp_path: Path, asked: dict[str, Any]) -> None:
    path = results(tmp_path / "results_2026-01-01T00-00-00.json", {"arc": {"acc,none": 0.6}})
    with pytest.raises(InputError, match="base has no samples, and so no answers; leave --"):
        aligntax.diff(path, path, **asked)
