"""Predictions held against a ledger: what is planted is found and stands first, nothing is turned round afterwards, and what cannot be held says why."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from aligntax.core.errors import InputError
from aligntax.core.ids import digest
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.diff import ArmSource, diff_logs
from aligntax.predict.results import (
    AtLayer,
    Concepts,
    InMetric,
    OptimiserStep,
    Range,
    Settings,
    TaskRisk,
    TaskStep,
    TaxPrediction,
    Used,
    as_json,
)
from aligntax.predict.verify import Verification, read_prediction, stages_of, verify
from aligntax.predict.verify import as_json as told
from aligntax.stats.directions import CrossFit, SignedOverlap
from aligntax.stats.multiplicity import holm
from aligntax.store.logs import Want
from aligntax.store.run import StoredRun, load_run, write_run
from tests.support.tables import write_csv

Found = dict[str, Any]
Change = Callable[[Found], object]
TASKS = tuple(f"t{n:02d}" for n in range(11))
ITEMS, SEEN = 40, 10
LOST = dict(zip(TASKS, (2, 9, 4, 14, 0, 7, 11, 1, 16, 5, 3), strict=True))
"""Of every task, of the items that were not seen."""
IDENTITY = {"weights": "w" * 64, "tokenizer": "t" * 64}
KEY = digest(IDENTITY)[:16]
HOSTILE = "<script>alert(1)</script>]]>\x1b[31m\u202e"


# -- a prediction that is known ----------------------------------------------------------------------------------------------------


def overlap(cosine: float) -> SignedOverlap:
    return SignedOverlap(cosine, cosine - 0.1, cosine + 0.1, cosine * 0.9)


def fit(cosines: Mapping[str, float]) -> CrossFit:
    return CrossFit(
        estimate=0.25, low=0.2, high=0.3, se=0.02, jackknife=(0.2, 0.3), naive=0.2, overlaps=tuple(overlap(c) for c in cosines.values()), reliability=0.9,
        capability_reliabilities=np.full(len(cosines), 0.9), z=9.0, least_eigenvalue=0.5, clipped=0, reason=None, blocks=32, level=0.95,
    )  # fmt: skip


def around(value: float) -> Range:
    return Range(value, value - 0.1, value + 0.1)


def noise(seed: int, low: float = 0.1, high: float = 0.9) -> dict[str, float]:
    return dict(zip(TASKS, np.random.default_rng(seed).uniform(low, high, len(TASKS)).tolist(), strict=True))


def prediction(**more: Any) -> Found:
    """The content of prediction.json: one step of training loses what is lost in truth, and nothing else knows of it."""
    signs = dict(zip(TASKS, np.random.default_rng(0).choice([-1.0, 1.0], len(TASKS)).tolist(), strict=True))
    cosines = {t: signs[t] * c for t, c in noise(1).items()}
    lengths, values, kl, change, angles, norms, right = (noise(seed) for seed in range(2, 9))
    risks = tuple(TaskRisk(t, overlap(cosines[t]), 0.5, 0.9, lengths[t], -values[t], 20) for t in TASKS)
    steps = tuple(
        TaskStep(t, around(LOST[t] / 30), around(kl[t]), around(-change[t]), around(-angles[t]), norms[t], -values[t], right[t], 20)
        for t in TASKS
    )
    used = {t: tuple(Used(f"i{n}", "") for n in range(SEEN)) for t in TASKS}
    made = TaxPrediction(
        "base-w32", IDENTITY, "prompts.csv", "raw", (AtLayer(2, 0.9, 8.0, fit(cosines)), AtLayer(3, 0.9, 8.0, replace(fit(cosines), estimate=0.75))), 2, "data",
        32, risks, Concepts((), (), 0, None), 100, 90, Settings(), (), (InMetric("where states lie", "told", fit({t: -c for t, c in cosines.items()})),),
        OptimiserStep(0.01, 4, 16, 32, 3.0, 2.0, steps), used, TASKS,
    )  # fmt: skip
    return dict(json.loads(as_json(replace(made, **more))))


# -- a run that is known -----------------------------------------------------------------------------------------------------------


def rows(lost: Mapping[str, int], seen_right: bool) -> list[dict[str, Any]]:
    """Of the items that were not seen the first few are lost; those that were seen say the opposite."""
    out = []
    for task, count in lost.items():
        for n in range(ITEMS):
            right = seen_right if n < SEEN else n >= SEEN + count
            out.append({"task": task, "item": f"i{n}", "score": int(right)})
    return out


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """A base, an arm that lost what the step foretells, and one that lost nearly that; from logs, which do not say whose they are."""
    folder = tmp_path_factory.mktemp("run")
    nearly = dict(zip(TASKS, (3, 9, 5, 13, 1, 6, 12, 2, 15, 4, 0), strict=True))
    arms = {"base": rows(dict.fromkeys(TASKS, 0), True), "sft": rows(LOST, True), "dpo": rows(nearly, False)}
    tree = [ArmSource(name, write_csv(folder / f"{name}.csv", found), None if name == "base" else "base") for name, found in arms.items()]
    with diff_logs(tree, Analysis(), Want()) as found:
        write_run(folder / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    return load_run(folder / "run")


def asked(run: StoredRun, models: Mapping[str, str], templates: Mapping[str, str] | None = None) -> StoredRun:
    """The same run as ``measure`` would have made it: who answered, and how it was asked."""
    arms = tuple(
        arm.model_copy(
            update={"model": models[arm.name], "elicitation": Elicitation(template=(templates or {}).get(arm.name, "raw"))}  # type: ignore[arg-type]
        )
        if arm.name in models
        else arm
        for arm in run.study.arms
    )
    return replace(run, study=run.study.model_copy(update={"arms": arms}))


@pytest.fixture(scope="module")
def run(logs: StoredRun) -> StoredRun:
    return asked(logs, {"base": KEY, "sft": "a" * 16, "dpo": "b" * 16})


@pytest.fixture(scope="module")
def held(run: StoredRun) -> Verification:
    return verify(run, prediction(), draws=999)


# -- what is planted ---------------------------------------------------------------------------------------------------------------


def test_a_predictor_that_is_right_is_found(held: Verification) -> None:
    assert (held.base, [one.arm for one in held.arms]) == ("base", ["sft", "dpo"])
    for one in held.arms:
        assert one.leader == "answers lost in a step"
        assert one.holding.tasks == 11
    best = held.arms[0].holding.held["answers lost in a step"]
    assert best.spearman == pytest.approx(1)
    assert best.spearman_p == pytest.approx(1 / 1000)
    assert best.adjusted_p == pytest.approx(len(held.arms[0].holding.held) / 1000)
    assert best.auc == pytest.approx(1)
    assert max(held.together, key=lambda name: held.together[name].spearman) == "answers lost in a step"
    assert held.together["answers lost in a step"].adjusted_p < 0.05
    assert all(of.adjusted_p > 0.05 for name, of in held.together.items() if name != "answers lost in a step")
    assert held.common == TASKS
    assert held.left_out == {}


def test_drops_are_of_items_that_were_not_seen(held: Verification) -> None:
    one = held.arms[0]
    assert {d.task: round(d.drop * (ITEMS - SEEN)) for d in one.drops} == LOST
    assert all(d.items == ITEMS - SEEN for d in one.drops)
    assert [d.drop for d in one.drops] == sorted((d.drop for d in one.drops), reverse=True)
    assert all(d.low is None or d.high is None or d.low <= d.drop <= d.high for d in one.drops)
    # 'dpo' is right on none of the items that were seen: with them every task would have lost more.
    assert {d.task: round(d.drop * (ITEMS - SEEN)) for d in held.arms[1].drops}["t10"] == 0
    assert held.notes == ("110 items of the run were seen by the prediction and take no part in the drops",)
    assert one.holding.beyond == sum(count > 0.03 * (ITEMS - SEEN) for count in LOST.values())


def test_more_of_every_predictor_means_a_larger_drop(held: Verification) -> None:
    """By what theory or its author says: opposed overlaps, answers and likelihood that are lost, gradients that point away, tasks that are hard."""
    found = prediction()
    risks, steps = {r["task"]: r for r in found["risks"]}, {s["task"]: s for s in found["step"]["tasks"]}
    expected: dict[str, Callable[[str], float]] = {
        "overlap, opposed": lambda t: -risks[t]["overlap"]["cosine"],
        "overlap, absolute": lambda t: abs(risks[t]["overlap"]["cosine"]),
        "overlap, squared": lambda t: risks[t]["overlap"]["cosine"] ** 2,
        "overlap, opposed, by gradient": lambda t: -risks[t]["overlap"]["cosine"] * risks[t]["gradient"],
        "overlap, opposed: where states lie": lambda t: risks[t]["overlap"]["cosine"],  # planted the other way round
        "overlap, absolute: where states lie": lambda t: abs(risks[t]["overlap"]["cosine"]),
        "gradient of states": lambda t: risks[t]["gradient"],
        "answers lost in a step": lambda t: steps[t]["lost"]["value"],
        "KL of a step": lambda t: steps[t]["kl"]["value"],
        "log-probability lost in a step": lambda t: -steps[t]["change"]["value"],
        "gradient cosine, opposed": lambda t: -steps[t]["cosine"]["value"],
        "gradient cosine, absolute": lambda t: abs(steps[t]["cosine"]["value"]),
        "gradient of weights": lambda t: steps[t]["norm"],
        "surprise": lambda t: -risks[t]["value"],
        "answers not right": lambda t: 1 - steps[t]["right"],
    }
    assert {p.name for p in held.predictors} == set(expected)
    for one in held.arms[0].drops:
        assert one.foretold == pytest.approx({name: value(one.task) for name, value in expected.items()})
    y = [d.drop for d in held.arms[0].drops]
    for name, value in expected.items():
        by_hand = stats.spearmanr([value(d.task) for d in held.arms[0].drops], y).statistic
        assert held.arms[0].holding.held[name].spearman == pytest.approx(by_hand)


def test_a_predictor_that_is_the_wrong_way_round_is_below_0(run: StoredRun) -> None:
    found = prediction()
    for step in found["step"]["tasks"]:
        step["lost"]["value"] *= -1
    told = verify(run, found, arms=["sft"], draws=99)
    assert told.arms[0].holding.held["answers lost in a step"].spearman == pytest.approx(-1)
    assert told.arms[0].leader != "answers lost in a step"
    assert told.together == {}
    assert told.common == ()


def test_every_test_is_adjusted_for_all_that_were_tried(held: Verification) -> None:
    for one in held.arms:
        tests = one.holding.held.values()
        assert [t.adjusted_p for t in tests] == pytest.approx(holm([t.spearman_p for t in tests]))
        assert set(one.against) == set(one.holding.held) - {one.leader} == set(one.adjusted)
        assert list(one.adjusted.values()) == pytest.approx(holm([d.p for d in one.against.values()]))
    assert [t.adjusted_p for t in held.together.values()] == pytest.approx(holm([t.p for t in held.together.values()]))
    mean = np.mean([one.holding.held["surprise"].spearman for one in held.arms])
    assert held.together["surprise"].spearman == pytest.approx(mean)


def test_a_metric_of_which_less_is_better(tmp_path: Path) -> None:
    """Errors that rise by what the step foretells are drops, as are the limits."""
    arms = {"base": dict.fromkeys(TASKS, 0), "sft": LOST}
    tree = []
    for name, lost in arms.items():
        table = [row | {"score": 1 - row["score"], "metric": "error"} for row in rows(lost, True)]
        tree.append(ArmSource(name, write_csv(tmp_path / f"{name}.csv", table), None if name == "base" else "base"))
    with diff_logs(tree, Analysis(), Want()) as found:
        write_run(tmp_path / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    told = verify(load_run(tmp_path / "run"), prediction(), base="base", draws=99).arms[0]
    assert {d.task: round(d.drop * (ITEMS - SEEN)) for d in told.drops} == LOST
    assert all(d.low is not None and d.high is not None and d.low <= d.drop <= d.high for d in told.drops)
    assert told.holding.held["answers lost in a step"].spearman == pytest.approx(1)


def test_equal_seeds_tell_the_same(run: StoredRun, held: Verification) -> None:
    again = told(verify(run, prediction(), draws=999))
    assert again == told(held)
    assert told(verify(run, prediction(), draws=999, seed=5)) != again
    whole = json.loads(again)
    assert (whole["schema"], whole["kind"], whole["run"], whole["base"]) == (2, "verification", run.path.name, "base")
    assert whole["prediction"]["tax_rates"] == {"safety": 0.25, "where states lie": 0.25}


def test_the_tax_rate_is_that_of_the_layer_that_was_chosen(held: Verification) -> None:
    assert held.tax_rate("safety") == 0.25
    assert held.tax_rate("wanted answers") is None


# -- tasks that take no part -------------------------------------------------------------------------------------------------------


def test_tasks_left_out_say_why(run: StoredRun) -> None:
    found = prediction()
    found["used"]["t00"] = [{"item": f"i{n}", "content": ""} for n in range(31)]
    found["risks"] = [r for r in found["risks"] if r["task"] != "t01"]
    found["step"]["tasks"] = [s for s in found["step"]["tasks"] if s["task"] != "t01"]
    found["metrics"] = []
    next(r for r in found["risks"] if r["task"] == "t02")["overlap"] = None
    told = verify(run, found, draws=99)
    assert told.left_out == {
        "t00": "9 items that the prediction has not seen; 10 are needed",
        "t01": "the prediction does not have it",
        "t02": "not all predictors have it: its direction could not be told from noise",
    }
    assert {d.task for d in told.arms[0].drops} == set(TASKS[3:]) == set(told.common)
    assert told.arms[0].holding.tasks == 8


def test_a_task_is_left_out_of_the_arms_that_lack_it(tmp_path: Path) -> None:
    few = [row for row in rows(LOST, True) if row["task"] != "t00" or int(row["item"][1:]) < SEEN + 5]
    tree = [
        ArmSource(name, write_csv(tmp_path / f"{name}.csv", table), None if name == "base" else "base")
        for name, table in (("base", rows(dict.fromkeys(TASKS, 0), True)), ("sft", rows(LOST, True)), ("dpo", few))
    ]
    with diff_logs(tree, Analysis(), Want()) as found:
        write_run(tmp_path / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "no page")
    told = verify(load_run(tmp_path / "run"), prediction(), base="base", draws=9)
    held = {one.arm: {d.task for d in one.drops} for one in told.arms}
    assert held == {"sft": set(TASKS), "dpo": set(TASKS[1:])}
    assert "t00" not in told.left_out or "dpo" in told.left_out["t00"]


def test_few_tasks_decide_nothing(run: StoredRun) -> None:
    found = prediction()
    found["risks"], found["metrics"] = found["risks"][:7], []
    found["step"]["tasks"] = [s for s in found["step"]["tasks"] if s["task"] in {r["task"] for r in found["risks"]}]
    told = verify(run, found, draws=99)
    for one in told.arms:
        assert (len(one.drops), one.leader, one.holding.held, one.against) == (7, None, {}, {})
        assert one.holding.reason == "not identified: 7 tasks, and it takes at least 8"
    assert told.together == {}


def test_a_prediction_without_a_step_or_another_metric(run: StoredRun) -> None:
    found = prediction(step=None, metrics=())
    names = {p.name for p in verify(run, found, draws=99).predictors}
    assert names == {
        "overlap, opposed",
        "overlap, absolute",
        "overlap, squared",
        "overlap, opposed, by gradient",
        "gradient of states",
        "surprise",
    }


def test_nothing_was_lost(run: StoredRun, logs: StoredRun) -> None:
    """An arm that lost nothing has nothing to rank: that is said, and the others are held."""
    same = asked(logs, {"base": KEY, "sft": "a" * 16, "dpo": "b" * 16})
    found = prediction()
    found["used"] = {t: [{"item": f"i{n}", "content": ""} for n in range(30)] for t in TASKS}  # all that were lost
    told = verify(same, found, draws=99)
    assert [one.holding.reason for one in told.arms] == ["not identified: all tasks lost the same"] * 2


def test_predictors_that_tell_nothing_are_not_drops_that_are_equal(run: StoredRun) -> None:
    found = prediction(step=None, metrics=())
    for risk in found["risks"]:
        risk |= {"gradient": 0.5, "value": -0.5}
        risk["overlap"] |= {"cosine": 0.3}
    assert "all tasks lost the same" not in str(verify(run, found, draws=99).arms[0].holding.reason)


def test_every_item_was_seen(run: StoredRun) -> None:
    found = prediction()
    found["used"] = {t: [{"item": f"i{n}", "content": ""} for n in range(35)] for t in TASKS}
    with pytest.raises(InputError, match=r"with 10 items that it has not seen .* measure more items, or predict from fewer \(--items\)"):
        verify(run, found)


def test_every_last_item_was_seen(run: StoredRun) -> None:
    found = prediction()
    found["used"] = {t: [{"item": f"i{n}", "content": ""} for n in range(ITEMS)] for t in TASKS}
    with pytest.raises(InputError, match=r"predict from fewer \(--items\)"):
        verify(run, found)


def test_a_metric_that_no_task_has_is_named(run: StoredRun) -> None:
    with pytest.raises(InputError, match="nothing"):
        verify(run, prediction(), metric="nothing")


def test_a_prediction_of_other_tasks(run: StoredRun) -> None:
    text = as_text(prediction())
    for task in TASKS:
        text = text.replace(f'"{task}"', f'"other {task}"')
    with pytest.raises(InputError, match="no task of run is one of the prediction's"):
        verify(run, json.loads(text))


# -- which arm is the base ---------------------------------------------------------------------------------------------------------


def as_text(found: Found) -> str:
    return json.dumps(found)


def test_wrong_base(run: StoredRun) -> None:
    with pytest.raises(InputError, match="run has no arm 'nobody'; it has base, sft, dpo"):
        verify(run, prediction(), base="nobody")
    with pytest.raises(InputError, match="sft has other weights than the base-w32 that the prediction was made from"):
        verify(run, prediction(), base="sft")
    with pytest.raises(InputError, match="run has no arm 'base' beside the base; it has sft, dpo"):
        verify(run, prediction(), arms=["base"])
    with pytest.raises(InputError, match="run has no arm 'x' beside the base"):
        verify(run, prediction(), arms=["sft", "x"])


def test_wrong_weights(logs: StoredRun) -> None:
    other = asked(logs, {"base": "c" * 16, "sft": "a" * 16, "dpo": "b" * 16})
    with pytest.raises(InputError, match="no arm of run has the weights of base-w32; name the base with --baseline, one of base, sft, dpo"):
        verify(other, prediction())


def test_logs_without_identity_need_a_name(logs: StoredRun) -> None:
    with pytest.raises(InputError, match=r"\(logs do not say which weights answered\); name the base with --baseline"):
        verify(logs, prediction())
    told = verify(logs, prediction(), base="base", draws=99)
    assert "the run does not say which weights base has; that it is base-w32 is taken from you" in told.notes
    assert [one.arm for one in told.arms] == ["sft", "dpo"]
    assert told.arms[0].leader == "answers lost in a step"


def test_another_template(logs: StoredRun) -> None:
    chat = asked(logs, {"base": KEY, "sft": "a" * 16, "dpo": "b" * 16}, {"base": "chat", "sft": "chat"})
    with pytest.raises(
        InputError, match="base: the prediction was made by the template raw, and the run asked by another; predict by that one"
    ):
        verify(chat, prediction())
    told = verify(chat, prediction(), base="base", draws=99)
    assert "base was asked by the template chat, and the prediction was made by raw" in told.notes
    assert [one.arm for one in told.arms] == ["sft"]  # dpo was asked by another template than the base


def test_several_bases(logs: StoredRun) -> None:
    twice = asked(logs, {"base": KEY, "sft": KEY, "dpo": "b" * 16})
    with pytest.raises(InputError, match=r"several arms have the base's weights \(base, sft\); name one with --baseline"):
        verify(twice, prediction())
    assert [one.arm for one in verify(twice, prediction(), base="base", draws=99).arms] == ["dpo"]
    one = asked(logs, {"base": KEY, "sft": KEY, "dpo": "b" * 16}, {"sft": "chat"})
    assert verify(one, prediction(), draws=99).base == "base"


def test_no_other_arm(logs: StoredRun) -> None:
    alone = asked(logs, {"base": KEY, "sft": KEY, "dpo": KEY}, {"sft": "chat", "dpo": "chat"})
    with pytest.raises(InputError, match="run has no other model that was asked as base was"):
        verify(alone, prediction())


def test_arms_of_models(run: StoredRun, logs: StoredRun) -> None:
    assert list(stages_of(run, prediction())) == ["sft", "dpo"]
    assert list(stages_of(run, prediction(), arms=["dpo"])) == ["dpo"]
    assert stages_of(logs, prediction(), base="base") == {}


def test_an_arm_that_is_named_twice_is_one(run: StoredRun) -> None:
    told = verify(run, prediction(), arms=["sft", "sft"], draws=99)
    assert [one.arm for one in told.arms] == ["sft"]
    assert told.together == {}


# -- files that are none -----------------------------------------------------------------------------------------------------------


def read(folder: Path, text: str) -> Found:
    path = folder / "prediction.json"
    path.write_text(text, encoding="utf-8")
    return read_prediction(path)


def test_a_file_that_was_written_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, as_text(prediction())) == prediction()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not valid JSON"),
        ("[1]", "is no prediction.json of 'aligntax predict tax'"),
        ('{"kind": "conflicts", "schema": 2}', "is no prediction.json of 'aligntax predict tax'"),
        ('{"kind": "tax", "schema": 1}', "has schema 1, and this version reads 2; make the prediction again"),
        ('{"kind": "tax"}', "has schema None, and this version reads 2"),
        ('{"kind": "tax", "schema": "\\u001b[31m' + "x" * 500 + '"}', "has schema '\\x1b[31m"),
        ('{"kind": "tax", "schema": 2}', "is a broken prediction.json (KeyError('risks')); make it again"),
        ("[" * 5000, "nests too deeply"),
    ],
)
def test_other_files(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    message = str(caught.value)
    assert said in message
    assert "\n" not in message
    assert "\x1b" not in message
    assert len(message) < 400 + len(str(tmp_path))


def put(*path: str | int, value: Any) -> Change:
    """Sets a value; ``None`` as a value takes the key away."""

    def change(found: Found) -> None:
        at: Any = found
        for key in path[:-1]:
            at = at[key]
        if value is GONE:
            del at[path[-1]]
        else:
            at[path[-1]] = value

    return change


GONE = object()
BROKEN: dict[str, Change] = {
    "no risks": put("risks", value=GONE),
    "risks are a number": put("risks", value=3),
    "a risk is a text": put("risks", 0, value="x"),
    "a risk without a task": put("risks", 0, "task", value=GONE),
    "a cosine is a text": put("risks", 0, "overlap", "cosine", value="x"),
    "an overlap is a list": put("risks", 0, "overlap", value=[1]),
    "a cosine beyond all floats": put("risks", 0, "overlap", "cosine", value=10**400),
    "metrics are nothing": put("metrics", value=None),
    "fewer overlaps than tasks": put("metrics", 0, "fit", "overlaps", value=[{"cosine": 0.1}]),
    "no tasks": put("tasks", value=GONE),
    "no step": put("step", value=GONE),
    "a step without tasks": put("step", "tasks", value=GONE),
    "a range is a number": put("step", "tasks", 0, "lost", value=0.5),
    "a change is nothing": put("step", "tasks", 0, "change", "value", value=None),
    "no items used": put("used", value=GONE),
    "items used are a list": put("used", value=[]),
    "an item used is a number": put("used", "t00", value=[1]),
    "an item without a content": put("used", "t00", 0, "content", value=GONE),
    "no template": put("template", value=GONE),
    "no identity": put("identity", value=GONE),
    "an identity is a text": put("identity", value="x"),
    "no model": put("model", value=GONE),
    "no objective": put("objective", value=GONE),
    "no layer": put("layer", value=GONE),
    "no layers": put("layers", value=GONE),
    "layers are a text": put("layers", value="x"),
    "a layer that is not among the layers": put("layer", value=9),
    "a layer without a fit": put("layers", 0, "fit", value=GONE),
    "no unsafe": put("unsafe", value=GONE),
    "no settings": put("settings", value=GONE),
    "nothing that a direction is made of": put("made_of", value=GONE),
    "a metric's fit without an estimate": put("metrics", 0, "fit", "estimate", value=GONE),
    "what a direction is made of is not known": put("made_of", value="<b>"),
}
TOLD_LATE: dict[str, Change] = {
    "a gradient beyond all floats": put("risks", 0, "gradient", value=10**400),
    "an identity with a number that is none": put("identity", value={"weights": float("nan")}),
    "settings that nest deeply": put("settings", value=json.loads("[" * 600 + "]" * 600)),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_predictions(tmp_path: Path, what: str) -> None:
    found = prediction()
    BROKEN[what](found)
    with pytest.raises(InputError, match=r"is a broken prediction.json \(.*\); make it again") as caught:
        read(tmp_path, as_text(found))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250 + len(str(tmp_path))


@pytest.mark.parametrize("what", TOLD_LATE)
def test_broken_predictions_that_are_told_late(run: StoredRun, tmp_path: Path, what: str) -> None:
    found = prediction()
    TOLD_LATE[what](found)
    with pytest.raises(InputError):
        told(verify(run, read(tmp_path, as_text(found)), arms=["sft"], draws=9))


def test_numbers_that_are_none_are_not_known(run: StoredRun, tmp_path: Path) -> None:
    """NaN and what is beyond all floats tell nothing of a task: it is left out, as if its direction were noise."""
    text = as_text(prediction())
    found = json.loads(text)
    found["risks"][0]["gradient"] = float("nan")
    found["risks"][1]["overlap"]["cosine"] = float("inf")
    held = verify(run, read(tmp_path, as_text(found)), draws=99)
    assert set(held.left_out) == {found["risks"][n]["task"] for n in (0, 1)}
    assert "NaN" not in told(held)
    assert json.loads(told(held))["arms"][0]["holding"]["tasks"] == 9


def test_hostile_names_are_shown_as_what_they_are(logs: StoredRun, tmp_path: Path) -> None:
    found = prediction()
    found |= {"model": HOSTILE, "objective": HOSTILE, "template": HOSTILE}
    found["metrics"][0]["name"] = HOSTILE
    held = verify(logs, read(tmp_path, as_text(found)), base="base", draws=9)
    text = told(held)
    assert "\x1b" not in text
    assert "\u202e" not in text
    for words in (*held.notes, *(p.name for p in held.predictors), *held.left_out.values()):
        assert words.isprintable()
    for bad in ({"base": None}, {"base": HOSTILE}, {"base": "base", "arms": [HOSTILE]}):
        with pytest.raises(InputError) as caught:
            verify(logs, found, **bad)  # type: ignore[arg-type]
        assert str(caught.value).isprintable()


def test_a_prediction_is_left_as_it_was(run: StoredRun) -> None:
    found = prediction()
    before = deepcopy(found)
    verify(run, found, arms=["sft"], draws=9)
    assert found == before
