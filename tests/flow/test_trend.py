"""Tax against size: InstructGPT's Table 14 cell by cell, protocols that are never averaged together, runs that are not alike refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from aligntax.core.errors import InputError
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.diff import chain, diff_logs
from aligntax.flow.trend import (
    SizePoint,
    SizeTrend,
    direction,
    parse_size,
    size_in,
    size_text,
    trend_of_runs,
    trend_of_table,
    trend_rows,
    trend_sentences,
)
from aligntax.stats.paired import critical_value
from aligntax.stats.trend import fit_trend
from aligntax.store.logs import Want
from aligntax.store.run import StoredRun
from tests.support.tables import write_csv

EIGHT = ("HellaSwag", "WSC", "RTE", "SST", "QuAC_F1", "SQuADv2_F1", "DROP_F1", "FR_EN_BLEU")


def table14(shared: Path) -> Path:
    return shared / "data" / "published_tables" / "instructgpt_2203.02155_table14.csv"


def instructgpt(shared: Path, method: str, prompt: str) -> SizeTrend:
    return trend_of_table(table14(shared), "GPT/*", f"{method}/*", [f"{task}/{prompt}" for task in EIGHT], {})


@pytest.mark.parametrize(
    ("method", "prompt", "changes"),
    [
        ("PPO", "few-shot", (-3.67, -5.09, -6.99)),
        ("PPO-ptx", "few-shot", (-0.02, 0.48, 1.64)),
        ("PPO", "zero-shot", (-0.04, -0.06, -6.38)),
        ("PPO-ptx", "zero-shot", (3.06, 0.40, -1.24)),
    ],
)
def test_instructgpt_by_size(shared: Path, method: str, prompt: str, changes: tuple[float, ...]) -> None:
    """Ouyang et al. 2022, Table 14: means over eight tasks against GPT-3 of the same size, fractions times 100; the sign hangs on the prompt."""
    found = instructgpt(shared, method, prompt)
    assert [(p.name, p.size) for p in found.points] == [("1.3B", 1.3e9), ("6B", 6e9), ("175B", 175e9)]
    assert [p.change for p in found.points] == pytest.approx(changes, abs=0.005)
    assert f"taken for fractions and multiplied by 100: {', '.join(f'{task}/{prompt}' for task in EIGHT[:4])}" in found.notes
    by_pattern = trend_of_table(table14(shared), "GPT/*", f"{method}/*", ["*/few-shot"], {})
    if prompt == "few-shot":
        assert by_pattern.points == found.points  # the eight are all that were asked with few shots


def test_ppo_loses_more_the_larger_it_is_but_three_sizes_cannot_show_it(shared: Path) -> None:
    """By hand: x = log10 of the sizes in billions; slope Sxy/Sxx = -1.514, residual error with one degree of freedom."""
    found = instructgpt(shared, "PPO", "few-shot")
    x, y = np.log10([1.3, 6.0, 175.0]), np.array([p.change for p in found.points])
    dx = x - x.mean()
    slope = float((dx * y).sum() / (dx * dx).sum())
    rest = y - y.mean() - slope * dx
    half = critical_value(0.95, 1.0) * float(np.sqrt((rest**2).sum() / (dx**2).sum()))
    assert found.fit.slope == pytest.approx(slope)
    assert slope == pytest.approx(-1.514, abs=0.002)
    assert found.fit.slope_interval == pytest.approx((slope - half, slope + half))
    assert half > 2  # 12.7 standard errors to either side
    assert found.fit.df == 1
    assert found.verdict == "no trend shown"
    first, second = trend_sentences(found)
    assert (
        "no trend shown; from the smallest size to the largest the loss grows with size, as measured (-3.67 at 1.3B, -6.99 at 175B, points)"
        in first
    )
    assert "95 % interval -4.0 to +1.0; p 0.083; 3 sizes" in second
    assert "3 sizes leave 1 degree of freedom" in found.doubts[-1]
    assert "no errors are known" in found.doubts[0]


def test_protocols_are_never_averaged_together(shared: Path) -> None:
    with pytest.raises(
        InputError, match=r"the average would mix protocols: zero-shot \(1 benchmarks\), few-shot \(1 benchmarks\); choose one"
    ):
        trend_of_table(table14(shared), "GPT/*", "PPO/*", ["DROP_F1/*"], {})
    with pytest.raises(InputError, match=r"basic \(3 benchmarks\), respectful \(3 benchmarks\)"):
        trend_of_table(table14(shared), "GPT/*", "PPO/*", [], {})
    toxic = trend_of_table(table14(shared), "GPT/*", "PPO/*", ["RealToxicity/biased"], {})
    assert "less is better, and counted so: RealToxicity/biased" in toxic.notes
    assert [p.change for p in toxic.points] == pytest.approx([-0.4, -12.1, -14.2])  # more toxic, the larger


def test_a_table_by_stage(shared: Path) -> None:
    """The price in safety of DPO after SFT, of three sizes of one family, whose names tell them."""
    file = shared / "data" / "published_tables" / "per_stage_results.csv"
    found = trend_of_table(file, "Tulu-3-*/SFT", "Tulu-3-*/DPO", ["Safety"], {})
    assert [(p.size, round(p.change, 2)) for p in found.points] == [(8e9, -5.9), (70e9, -5.4), (405e9, -2.2)]
    assert found.what == "Tulu-3-*/SFT to Tulu-3-*/DPO, Safety"
    for base, tasks, said in (
        ("Tulu-3/SFT", ["Safety"], "one \\* for the size"),
        ("Nothing-*/SFT", ["Safety"], "has no rows 'Nothing-\\*/SFT'"),
        ("Tulu-3-*/SFT", ["Nowhere"], "no benchmark that every size has fits Nowhere"),
    ):
        with pytest.raises(InputError, match=said):
            trend_of_table(file, base, "Tulu-3-*/DPO", tasks, {})
    with pytest.raises(InputError, match=r"needs 3 sizes or more, got 7B \(7B\), 13B \(13B\)"):
        trend_of_table(file, "OLMo-2-*/SFT", "OLMo-2-*/DPO", ["Safety"], {})


def test_sizes_in_names() -> None:
    assert [size_in(name) for name in ("Tulu-3-8B/SFT", "Qwen2.5-0.5b-instruct", "GPT/1.3B", "opt-125m", "org/x_405B")] == [
        8e9, 0.5e9, 1.3e9, 125e6, 405e9,
    ]  # fmt: skip
    assert [size_in(name) for name in ("Mixtral-8x7B", "llama3", "v2.0", "7B-to-13B", "dpo-w32", "3BB")] == [None] * 6
    # Tokens of a context, of training, samples: no sizes.
    assert [size_in(name) for name in ("phi-3-mini-128k-instruct", "sft-100k", "OLMo-3T")] == [None] * 3
    assert [size_in(name) for name in ("Llama-3-8B-262k", "TinyLlama-1.1B-step-1431k-3T")] == [8e9, 1.1e9]
    assert [parse_size(text) for text in ("1.3B", "7e9", " 61792 ", "2 T")] == [1.3e9, 7e9, 61792.0, 2e12]
    for text in ("large", "-1", "0", "inf", "nan", ""):
        with pytest.raises(InputError, match="a size is a number of parameters"):
            parse_size(text)
    assert [size_text(x) for x in (61792, 1.3e9, 175e9, 12.0)] == ["61.8K", "1.3B", "175B", "12"]


def test_what_a_loss_does() -> None:
    assert direction(5.0, 1.0) == "the loss shrinks with size"
    assert direction(1.0, 5.0) == "the loss grows with size"
    assert direction(-1.0, -5.0) == "the gain grows with size"
    assert direction(-5.0, -1.0) == "the gain shrinks with size"
    assert direction(5.0, -1.0) == "the loss shrinks with size and becomes a gain"
    assert direction(-1.0, 5.0) == "the gain shrinks with size and becomes a loss"
    assert direction(2.0, 2.0) == "the change stays the same"
    assert direction(5.0, 0.0) == "the loss shrinks with size"  # to nothing, which is no gain
    assert direction(0.0, 5.0) == "the loss grows with size"
    assert direction(0.0, -5.0) == "the gain grows with size"


def test_a_gain_at_one_end_is_said_only_where_it_is_established() -> None:
    """Both lines rise from a loss to a gain, for certain; only of the steeper one the loss at the smallest size is."""
    said = []
    for first in (-0.001, -0.2):
        points = tuple(SizePoint(f"{n}", 10.0**n, first + 0.1 * n, 0.01, None, None) for n in range(6))
        fit = fit_trend(np.arange(6.0), np.array([p.change for p in points]), np.full(6, 0.01))
        said.append(SizeTrend("sums", "fraction", points, fit, (), ()).verdict)
    assert said == ["the change moves from loss towards gain with size", "the loss shrinks with size and becomes a gain"]


def run_of(base: Path, candidate: Path, analysis: Analysis | None = None) -> StoredRun:
    """A run as it is read again, without a folder of its own and a page."""
    with diff_logs(chain(base, candidate, ("base", "candidate"), []), analysis or Analysis(), Want()) as comparison:
        return StoredRun(base.parent, comparison.study, comparison.ledger, dict(comparison.provenance))


def runs_of(folder: Path, lost: Mapping[str, int], analysis: Analysis | None = None) -> list[tuple[str, StoredRun]]:
    """A run per size of 200 items, of which so many were lost, named as given."""
    found = []
    for name, n in lost.items():
        paths = [
            write_csv(folder / f"{name}-{arm}.csv", [{"task": "sums", "item": i, "score": int(i >= k)} for i in range(200)])
            for arm, k in (("base", 20), ("dpo", 20 + n))
        ]
        found.append((name, run_of(*paths, analysis)))
    return found


def test_a_tax_that_shrinks(tmp_path: Path) -> None:
    found = trend_of_runs(runs_of(tmp_path, {"m-1B": 80, "m-6B": 54, "m-40B": 28, "m-200B": 8}), {})
    assert found.verdict == "the loss shrinks with size"
    assert [p.size for p in found.points] == [1e9, 6e9, 40e9, 200e9]
    assert [p.change for p in found.points] == pytest.approx([-0.4, -0.27, -0.14, -0.04])
    assert all(p.se is not None and p.low is not None and p.high is not None for p in found.points)
    assert found.fit.slope_interval[0] > 0
    assert "m-1B: size 1B (read from the name m-1B-dpo.csv)" in found.notes
    assert trend_sentences(found)[0].startswith("performance: sums (score): the loss shrinks with size (-40.0 at 1B, -4.0 at 200B, points)")
    rows = trend_rows(found)
    assert rows["verdict"] == "the loss shrinks with size"
    assert rows["df"] == 2


def test_less_is_better_turns_the_sign(tmp_path: Path) -> None:
    """The same answers as errors: fewer items right is more of them wrong."""
    runs = runs_of(tmp_path, {"m-1B": 80, "m-4B": 50, "m-20B": 20}, Analysis(lower_is_better=("score",)))
    found = trend_of_runs(runs, {})
    assert [p.change for p in found.points] == pytest.approx([0.4, 0.25, 0.1])
    assert direction(-found.points[0].change, -found.points[-1].change) == "the gain shrinks with size"


def test_runs_that_are_not_alike_are_refused(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"a": 80, "b": 60, "c": 35})
    with pytest.raises(InputError, match="the size of the models of a is not known: name it with --size a=NUMBER"):
        trend_of_runs(runs, {})
    sizes = {"a": 1e9, "b": 2e9, "c": 4e9}
    assert trend_of_runs(runs, sizes).fit.df == 1
    with pytest.raises(InputError, match="--size names 'd', which is no run here"):
        trend_of_runs(runs, {**sizes, "d": 1e9})
    with pytest.raises(InputError, match="needs 3 sizes or more"):
        trend_of_runs(runs[:2], {"a": 1e9, "b": 2e9})
    with pytest.raises(InputError, match="has no change of safety; it has: performance: sums"):
        trend_of_runs(runs, sizes, kind="safety")
    with pytest.raises(InputError, match=r"no arm in which a-base\.csv was asked with the template 'raw'"):
        trend_of_runs(runs, sizes, template="raw")
    other = [
        write_csv(tmp_path / f"{n}.csv", [{"task": "words", "item": i, "score": i % k} for i in range(50)]) for n, k in (("x", 2), ("y", 1))
    ]
    with pytest.raises(InputError, match="a and d did not measure the same thing: tasks sums and words"):
        trend_of_runs([*runs, ("d", run_of(*other))], {**sizes, "d": 8e9})
    name, run = runs[2]
    arms = tuple(arm.model_copy(update={"elicitation": Elicitation(template="chat")}) for arm in run.study.arms)
    asked = StoredRun(run.path, run.study.model_copy(update={"arms": arms}), run.ledger, run.provenance)
    with pytest.raises(InputError, match="did not measure the same thing: ways of asking unknown to unknown and"):
        trend_of_runs([*runs[:2], (name, asked)], sizes)


def test_one_run_is_not_two_sizes(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"m-1B": 80, "m-6B": 54, "m-40B": 28})
    copied = StoredRun(tmp_path / "copy", runs[0][1].study, runs[0][1].ledger, runs[0][1].provenance)
    with pytest.raises(InputError, match="m-1B and copy hold the same answers; each size needs a run of its own"):
        trend_of_runs([*runs, ("copy", copied)], {"copy": 2e9})


def test_what_is_not_known_of_logs_is_a_doubt(tmp_path: Path) -> None:
    runs = runs_of(tmp_path, {"m-1B": 80, "m-6B": 54, "m-40B": 28})
    name, run = runs[2]
    fewer = tuple(e.model_copy(update={"n": 120}) for e in run.ledger)
    other = StoredRun(run.path, run.study, run.ledger.model_copy(update={"entries": fewer}), run.provenance)
    doubts = trend_of_runs([*runs[:2], (name, other)], {}).doubts
    assert "the logs hold 120 to 200 items: whether they are the same at every size is not known" in doubts
    few = tuple(e.model_copy(update={"method": "score-clustered", "details": {**e.details, "df": 2.0}}) for e in run.ledger)
    other = StoredRun(run.path, run.study, run.ledger.model_copy(update={"entries": few}), run.provenance)
    assert (
        "too few sources for a verdict, and so an error that is hardly known: m-40B" in trend_of_runs([*runs[:2], (name, other)], {}).doubts
    )
    none = tuple(e.model_copy(update={"ci_low": None, "ci_high": None, "se": None}) for e in run.ledger)
    other = StoredRun(run.path, run.study, run.ledger.model_copy(update={"entries": none}), run.provenance)
    found = trend_of_runs([*runs[:2], (name, other)], {})
    assert found.fit.tau2 is None
    assert found.doubts[0].startswith("no errors are known of m-40B, and so none are used: the interval rests on the scatter")


def test_several_arms_of_one_template_are_told_from_none(tmp_path: Path) -> None:
    """An arm with guards is asked by the same template as the arm without."""
    ((name, run),) = runs_of(tmp_path, {"m-1B": 80})
    raw = Elicitation(template="raw")
    arms = [arm.model_copy(update={"elicitation": raw, "model": arm.name}) for arm in run.study.arms]
    study = run.study.model_copy(update={"arms": (arms[0], arms[0].model_copy(update={"name": "guarded"}), arms[1])})
    with pytest.raises(InputError, match=r"asked m-1B-base\.csv with the template 'raw' in several arms \(base, guarded\)"):
        trend_of_runs([(name, StoredRun(run.path, study, run.ledger, run.provenance))], {}, template="raw")


def published(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows_by_size(values: Mapping[str, tuple[str, str]], more: str = "") -> str:
    return "".join(f"base-{size},A{more},{one}\naligned-{size},A{more},{two}\n" for size, (one, two) in values.items())


def test_a_table_whose_heading_has_spaces_is_not_averaged_over_protocols_either(tmp_path: Path) -> None:
    body = "".join(rows_by_size(dict.fromkeys(("1B", "2B", "4B"), ("50.5", "51.0")), f", {prompt}") for prompt in ("zero", "few"))
    file = published(tmp_path / "t.csv", f"model, benchmark, prompt, value\n{body}")
    with pytest.raises(InputError, match="the average would mix protocols"):
        trend_of_table(file, "base-*", "aligned-*", [], {})


def test_what_a_table_cannot_tell_is_refused(tmp_path: Path) -> None:
    body = rows_by_size({"1B": ("50", "51"), "2B": ("50", "53"), "4B": ("50", "55")})
    file = published(tmp_path / "t.csv", f"model,benchmark,value\n{body}")
    with pytest.raises(InputError, match=r"--size names '1b', which stands for \* in no pair of rows; there are: 1B, 2B, 4B"):
        trend_of_table(file, "base-*", "aligned-*", [], {"1b": 3e9})
    with pytest.raises(InputError, match="name the same rows"):
        trend_of_table(file, "base-*", "base-*", [], {})
    # Rows of several numbers of shots, in a column that the reader does not know: which one is meant is not known.
    twice = published(tmp_path / "u.csv", f"model,benchmark,value\n{body}aligned-2B,A,70\n")
    with pytest.raises(InputError, match="A of aligned-2B stands twice, with 53 and 70; leave one of the rows out"):
        trend_of_table(twice, "base-*", "aligned-*", [], {})
    with pytest.raises(InputError, match="its rows: none"):
        trend_of_table(published(tmp_path / "v.csv", "model,benchmark,value\n"), "base-*", "aligned-*", [], {})


def test_errors_that_a_table_prints_are_used(tmp_path: Path) -> None:
    """Two errors of 3 and 4 points make one of 5, and every size has it: the slope's error is 5/sqrt(2) by hand, at sizes 1, 10 and 100 billions."""
    body = rows_by_size({"1B": ("50 ± 3", "51 ± 4"), "10B": ("50 ± 3", "54 ± 4"), "100B": ("50 ± 3", "53 ± 4")})
    found = trend_of_table(published(tmp_path / "t.csv", f"model,benchmark,value\n{body}"), "base-*", "aligned-*", [], {})
    assert [p.se for p in found.points] == pytest.approx([5.0] * 3)
    assert found.fit.tau2 == 0.0
    assert found.fit.covariance[2] == pytest.approx(25 / 2)
    assert not any("no errors are known" in doubt for doubt in found.doubts)
    partly = trend_of_table(
        published(tmp_path / "u.csv", f"model,benchmark,value\n{body.replace('50 ± 3', '50', 1)}"), "base-*", "aligned-*", [], {}
    )
    assert partly.fit.tau2 is None
    assert any("no errors are known of 1B, and so none are used" in doubt for doubt in partly.doubts)


def test_whole_numbers_on_a_line_by_luck_are_no_trend(tmp_path: Path) -> None:
    """+1, +2, +3 points in whole per cents: each is off by up to one, so that with one degree of freedom nothing is shown."""
    file = published(
        tmp_path / "t.csv", "model,benchmark,value\n" + rows_by_size({"1B": ("50", "51"), "10B": ("50", "52"), "100B": ("50", "53")})
    )
    found = trend_of_table(file, "base-*", "aligned-*", [], {})
    assert found.fit.scale == pytest.approx(2 / 12)
    assert found.verdict == "no trend shown"
    assert "the points lie on the line as far as the printed digits tell: the interval is what rounding leaves open" in found.doubts
    fractions = published(
        tmp_path / "u.csv", "model,benchmark,value\n" + rows_by_size({"1B": (".5", ".51"), "10B": (".5", ".52"), "100B": (".5", ".53")})
    )
    found = trend_of_table(fractions, "base-*", "aligned-*", [], {})
    assert found.fit.scale == pytest.approx(2 / 12)  # .5 stands for .50: the digits are those of the benchmark
    assert "taken for fractions and multiplied by 100: A" in found.notes


def test_several_changes_are_not_averaged_here(tmp_path: Path) -> None:
    """Two metrics: no mean over them; a task and a metric choose one. Two tasks of one metric: the ledger's mean over tasks is taken."""
    found = []
    for size in (1, 2, 4):
        rows = [
            [{"task": t, "item": i, "score": int(i % 10 >= k), "metric": "acc"} for t in ("sums", "words") for i in range(60)]
            for k in (1, 2 + size)
        ]
        rows = [[*of, *({"task": "sums", "item": i, "score": 1, "metric": "em"} for i in range(60))] for of in rows]
        paths = [write_csv(tmp_path / f"{name}-{size}B.csv", of) for name, of in zip(("base", "dpo"), rows, strict=True)]
        found.append((f"{size}B", run_of(*paths)))
    mean = trend_of_runs(found, {})
    assert mean.what == "performance: mean over tasks (acc)"
    assert mean.points[0].change == pytest.approx(-0.2)
    with pytest.raises(
        InputError, match=r"has several changes of sums and no mean over them; name one with --task or --metric: sums \(acc\); sums"
    ):
        trend_of_runs(found, {}, task="sums")
    assert trend_of_runs(found, {}, task="sums", metric="acc").what == "performance: sums (acc)"
