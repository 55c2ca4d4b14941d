"""The latency tax with models whose times are known: what is timed, in which order, and what is told apart."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aligntax.core.asks import Failure, GenerateAsk
from aligntax.core.errors import AligntaxError, InputError
from aligntax.core.samples import Outcome
from aligntax.core.study import Analysis, Elicitation
from aligntax.flow.diff import Comparison
from aligntax.flow.latency import LOST_IN_A_ROW, WARM_UP, Latency, chosen, orders, requests_of
from aligntax.flow.measure import Models, Options, Plan, measure, plan, stage_tree
from aligntax.flow.study_file import latency_of, read_study
from aligntax.models.timing import Timed
from aligntax.store.answers import Answers
from aligntax.store.run import load_run, write_run
from aligntax.tasks.find import find_tasks
from aligntax.testing import KnownModel, Machine, PacedModel
from tests.support.suites import suite

ROWS = [{"id": f"s{k}", "prompt": f"{k} plus {k}?", "answers": [str(2 * k)]} for k in range(60)]
TIMES = ("time_to_first_token", "time_per_output_token", "request_latency", "output_tokens", "output_tokens_per_second")


def number(prompt: str) -> int:
    return int(prompt.rpartition("question: ")[2].split()[0])


def words(per: Callable[[int], int]) -> Callable[[str], str]:
    return lambda prompt: " ".join(["so"] * per(number(prompt)))


def paced(
    name: str, per: Callable[[int], int] = lambda k: 3 + k % 5, *, first: float = 0.1, per_token: float = 0.02, **more: Any
) -> PacedModel:
    return PacedModel(name, words(per), first=first, per_token=per_token, **more)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    return suite(tmp_path / "tasks", "sums", ROWS)


def planned(
    folder: Path,
    models: list[KnownModel],
    latency: Latency | None,
    *,
    templates: tuple[Any, ...] = ("raw",),
    how: Elicitation | None = None,
    tasks: tuple[str, ...] = ("sums",),
    seed: int = 0,
) -> tuple[Plan, Models]:
    named = [(m.name, m.name, models[k - 1].name if k else None) for k, m in enumerate(models)]
    for model in models:
        Path(model.name).mkdir(exist_ok=True)  # a reference must name something
    specs, contrasts = stage_tree(named, list(templates), how or Elicitation())
    opened = Models(Options(), {spec.reference: m for spec in specs for m in models if m.name == spec.reference.place})
    found = [(task, None) for task in find_tasks(list(tasks), [folder])]
    return plan(specs, contrasts, found, Analysis(seed=seed), opened, latency), opened


def study(folder: Path, models: list[Any], latency: Latency | None, *, answers: Answers | None = None, **more: Any) -> Comparison:
    made, opened = planned(folder, models, latency, **more)
    with opened, answers or Answers(None) as kept:
        return measure(made, kept, lambda *_: None, lambda *_: None, divergence=False)


def changes(found: Comparison) -> dict[str, float | None]:
    return {entry.metric: entry.change for entry in found.ledger}


def test_five_milliseconds_more_per_token(sums: Path) -> None:
    with study(sums, [paced("base"), paced("slow", per_token=0.025)], Latency(40)) as found:
        change = changes(found)
        entry = found.ledger.find("sums", "time_per_output_token")
        whole = found.ledger.find("sums", "request_latency")
    assert change["time_per_output_token"] == pytest.approx(0.005)
    assert (change["time_to_first_token"], change["output_tokens"]) == (0.0, 0.0)
    tokens = np.array([3 + k % 5 for k in range(40)])
    assert change["request_latency"] == pytest.approx(0.005 * (tokens - 1).mean())
    assert change["output_tokens_per_second"] == pytest.approx(
        float(np.mean(tokens / (0.1 + 0.025 * (tokens - 1)) - tokens / (0.1 + 0.02 * (tokens - 1))))
    )
    assert (entry.n, entry.higher_is_better) == (40, False)
    assert found.ledger.find("sums", "output_tokens_per_second").higher_is_better is True
    assert whole.details["speed_effect"] == pytest.approx(whole.change)
    assert whole.details["verbosity_effect"] == whole.details["first_token_effect"] == 0.0
    assert entry.outcomes == {"base": {"scored": 40}, "slow": {"scored": 40}}


def test_verbosity_is_told_from_speed(sums: Path) -> None:
    """Twice as many words, each a quarter faster, and a slower beginning: what of it is what adds up."""
    wordy = paced("wordy", lambda k: 2 * (3 + k % 5), first=0.15, per_token=0.015)
    with study(sums, [paced("base"), wordy], Latency(60, 1)) as found:
        whole = found.ledger.find("sums", "request_latency")
        assert found.ledger.find("sums", "time_per_output_token").change == pytest.approx(-0.005)
        assert found.ledger.find("sums", "output_tokens").change == pytest.approx(np.mean([3 + k % 5 for k in range(60)]))
    n0 = np.array([3 + k % 5 for k in range(60)])
    m0, m1 = n0 - 1, 2 * n0 - 1
    details = whole.details
    assert details["parts_items"] == 60
    assert details["first_token_effect"] == pytest.approx(0.05)
    assert details["verbosity_effect"] == pytest.approx(float(np.mean((m1 - m0) * 0.0175)))
    assert details["speed_effect"] == pytest.approx(float(np.mean(-0.005 * (m0 + m1) / 2)))
    assert sum(whole.detail(f"{part}_effect") or 0.0 for part in ("first_token", "verbosity", "speed")) == pytest.approx(whole.change)
    low, high = details["speed_effect_ci"]  # type: ignore[misc]
    assert low < details["speed_effect"] < high < 0  # type: ignore[operator]


def test_a_drift_is_no_change(sums: Path) -> None:
    """Every request takes 1 % of its own time longer than the one before: asked in turn two equal arms are equal, one after the other they are not."""
    machine = Machine(drift=0.01)
    with study(sums, [paced("one", machine=machine), paced("two", machine=machine)], Latency(40)) as found:
        entry = found.ledger.find("sums", "time_to_first_token")
    assert machine.requests == 2 + 2 * WARM_UP + 2 * 3 * 40
    assert entry.baseline_value is not None
    assert entry.change is not None
    assert entry.baseline_value > 0.2  # it has become twice as slow
    assert abs(entry.change) < 0.002
    assert entry.ci_low is not None
    assert entry.ci_high is not None
    assert entry.ci_low < 0 < entry.ci_high
    blocks = Machine(drift=0.01)
    one, two = paced("one", machine=blocks), paced("two", machine=blocks)
    means = []
    for model in (one, two):
        some = [model.timed(GenerateAsk(model.raw(f"question: {k} plus"), 8)) for _ in range(3) for k in range(40)]
        means.append(np.mean([t.first for t in some if isinstance(t, Timed)]))  # type: ignore[type-var]
    assert means[1] - means[0] == pytest.approx(0.12)  # 120 requests of 1 % of .1 s


@pytest.mark.parametrize(("arms", "blocks"), [(2, 10), (3, 9), (4, 6), (1, 3)])
def test_every_arm_has_every_place_equally_often(arms: int, blocks: int) -> None:
    found = list(orders(arms, blocks, np.random.default_rng(1)))
    assert len(found) == blocks
    assert all(sorted(order) == list(range(arms)) for order in found)
    for start in range(0, blocks - arms + 1, arms):
        assert all({order[place] for order in found[start : start + arms]} == set(range(arms)) for place in range(arms))
    assert found == list(orders(arms, blocks, np.random.default_rng(1)))
    if arms > 1:
        assert any(found != list(orders(arms, blocks, np.random.default_rng(seed))) for seed in range(2, 12))


def test_other_scores_are_what_they_were(sums: Path) -> None:
    models = [KnownModel("base", words(lambda k: k % 2 + 1)), KnownModel("tuned", words(lambda k: k % 3 + 1))]
    how = Elicitation(trials=2, temperature=0.5)
    with study(sums, models, None, how=how) as found:
        alone = list(found.ledger)
    again = [paced("base", lambda k: k % 2 + 1, identity="base"), paced("tuned", lambda k: k % 3 + 1, identity="tuned")]
    with study(sums, again, Latency(7), how=how) as found:
        beside = [entry for entry in found.ledger if entry.metric not in TIMES]
        assert found.ledger.find("sums", "request_latency").n == 7
    assert [entry.model_dump() for entry in beside] == [entry.model_dump() for entry in alone]


def test_arms_of_one_model_and_a_task_without_answers(sums: Path, tmp_path: Path) -> None:
    choices = [{"prompt": f"p{k}", "choices": ["yes", "no"], "gold": k % 2} for k in range(20)]
    suite(tmp_path / "tasks", "choose", choices)
    models = [paced("base"), paced("tuned")]
    with study(sums, models, Latency(5, 2), templates=("raw", "chat"), tasks=("sums", "choose")) as found:
        latency = [entry for entry in found.ledger if entry.metric == "request_latency"]
        arms = found.provenance["arms"]
    assert {entry.task for entry in latency} == {"sums"}
    assert {entry.pair for entry in latency} == {
        ("base-raw", "tuned-raw"), ("base-raw", "base-chat"), ("base-chat", "tuned-chat"), ("base-raw", "tuned-chat")
    }  # fmt: skip
    facts = arms["tuned-chat"]["settings"]["latency"]
    assert (facts["prompts"], facts["rounds"], facts["batch_size"], facts["failed"]) == (5, 2, 1, 0)
    assert facts["same_text_as_scored"] == "10 of 10"
    assert facts["clock"] == "time.perf_counter"
    assert facts["energy"].startswith("not known: the machine that answers is not seen")
    assert facts["spread_within_items"]["request_latency"] == 0.0
    made, _ = planned(sums, models, Latency(5, 2), templates=("raw", "chat"), tasks=("sums", "choose"))
    assert requests_of(made.arms, Latency(5, 2)) == (5 * 2 * 4, WARM_UP * 4)


class Flaky(PacedModel):
    """Fails when it is timed where ``fails`` says so, by prompt and how often that was timed before."""

    def __init__(self, name: str, fails: Callable[[int, int], bool]) -> None:
        super().__init__(name, words(lambda k: 3), first=0.1, per_token=0.02)
        self.fails = fails
        self.times: dict[int, int] = {}

    def timed(self, ask: GenerateAsk) -> Timed | Failure:
        k = number(ask.prompt.text or "")
        before = self.times.get(k, 0)
        self.times[k] = before + 1
        found = super().timed(ask)
        if self.fails(k, before):
            return Failure("the endpoint answered 503")
        assert isinstance(found, Timed)
        slow = 1.0 + 9.0 * (before == 2)  # one round of three is an outlier
        return Timed(found.text, found.reason, slow * (found.first or 0), slow * found.total, found.tokens)


def test_an_items_value_is_the_median_of_its_rounds_and_failures_are_missing(sums: Path) -> None:
    """Prompts from the fifth on are not in the warm-up, nor asked for the trial: their rounds are counted from 0."""
    flaky = Flaky("flaky", lambda k, before: k == 9 or (k == 7 and before == 0))
    with study(sums, [paced("base", lambda k: 3), flaky], Latency(12)) as found:
        entry = found.ledger.find("sums", "request_latency")
        rows = found.rows.con.execute(
            "SELECT s.item, x.value, x.outcome FROM samples_1 s JOIN scores_1 x ON x.sample = s.rowid WHERE x.metric = 'request_latency'"
        ).fetchall()
        left_out = found.provenance["arms"]["flaky"]["left_out"]
        spread = found.provenance["arms"]["flaky"]["settings"]["latency"]["spread_within_items"]
    of = {item: (value, outcome) for item, value, outcome in rows}
    assert len(of) == 12
    values = {int(item): value for item, value in of.items()}
    assert values[9][0] is None
    assert values[8][0] == pytest.approx(0.14)  # of .14, .14, 1.4
    assert values[7][0] == pytest.approx((0.14 + 1.4) / 2)  # of two rounds
    assert entry.n == 11
    assert entry.outcomes["flaky"][str(Outcome.FAILED)] == 1
    assert "4 of 36 timed requests failed, the last because the endpoint answered 503" in left_out
    assert spread["request_latency"] == pytest.approx(9.0)


def test_who_fails_again_and_again_ends_it_and_no_answer_is_lost(sums: Path, tmp_path: Path) -> None:
    gone = Flaky("gone", lambda k, before: sum(gone.times.values()) > 20)
    store = tmp_path / "answers.sqlite"
    with pytest.raises(
        AligntaxError, match=f"gone failed {LOST_IN_A_ROW} timed requests in a row, the last because the endpoint answered 503"
    ):
        study(sums, [paced("base"), gone], Latency(40), answers=Answers(store))
    again = [paced("base"), paced("gone", lambda k: 3)]
    study(sums, again, None, answers=Answers(store)).rows.close()
    assert [model.asked for model in again] == [[], []]


@pytest.mark.parametrize("after", [61, 64, 100])
def test_a_stop_while_timing_loses_no_answer(sums: Path, tmp_path: Path, after: int) -> None:
    """One trial, then 60 answers each, then times: wherever it is stopped, what was answered is kept, and all models are let go."""
    store = tmp_path / "answers.sqlite"
    first = [paced("base"), paced("tuned", stop_after=after)]
    with pytest.raises(KeyboardInterrupt):
        study(sums, first, Latency(30), answers=Answers(store))
    assert all(model.closed >= 2 for model in first)
    again = [paced("base"), paced("tuned")]
    with study(sums, again, Latency(30), answers=Answers(store)) as found:
        assert found.ledger.find("sums", "request_latency").n == 30
    assert [len(model.asked) for model in again] == [1 + WARM_UP + 90] * 2


def test_all_models_are_there_while_timing_and_gone_after(sums: Path) -> None:
    there: list[int] = []

    class Loads(PacedModel):
        loaded = False

        def warm(self) -> None:
            self.loaded = True

        def close(self) -> None:
            super().close()
            self.loaded = False

        def timed(self, ask: GenerateAsk) -> Timed | Failure:
            there.append(sum(model.loaded for model in models))
            return super().timed(ask)

        def generate(self, asks: Any) -> Any:
            assert sum(model.loaded for model in models) == 1
            return super().generate(asks)

    models = [Loads(name, words(lambda k: 3), first=0.1, per_token=0.02) for name in ("base", "tuned")]
    study(sums, models, Latency(4)).rows.close()
    assert there[:2] == [0, 0]  # the trial, before anything is asked
    assert set(there[2:]) == {2}
    assert not any(model.loaded for model in models)


def test_what_cannot_be_timed_is_said_before_anything_is_asked(sums: Path, tmp_path: Path) -> None:
    suite(tmp_path / "tasks", "choose", [{"prompt": f"p{k}", "choices": ["yes", "no"], "gold": 0} for k in range(20)])
    models = [paced("base"), paced("tuned")]
    with pytest.raises(
        InputError, match="latency is the time of answers that are written, and no task here asks for any: choose; add a task"
    ):
        study(sums, models, Latency(5), tasks=("choose",))
    untimed = KnownModel("untimed", words(lambda k: 3))
    with pytest.raises(InputError, match="untimed cannot be timed: it has no ability to time an answer"):
        study(sums, [models[0], untimed], Latency(5))
    whole = Flaky("whole", lambda k, before: True)
    with pytest.raises(InputError, match="whole cannot be timed: the endpoint answered 503; leave latency out, or try again"):
        study(sums, [models[0], whole], Latency(5))
    assert (untimed.asked, len(whole.asked), len(models[0].asked)) == ([], 1, 1)  # one trial each, no question
    for prompts, rounds in ((0, 3), (-1, 3), (True, 3), (2.5, 3), (5, 0), (5, 1001), (5, "3")):
        with pytest.raises(InputError, match=r"latency(_rounds)? is the number of .* from 1 to"):
            Latency(prompts, rounds)  # type: ignore[arg-type]


def test_only_what_every_arm_answered_is_timed(sums: Path) -> None:
    """The first prompts of the task are not answered by one arm: the next ones are timed."""
    half = PacedModel("half", lambda p: Failure("too long") if 1 <= number(p) < 10 else "so so", first=0.1, per_token=0.02)
    with study(sums, [paced("base"), half], Latency(5)) as found:
        entry = found.ledger.find("sums", "request_latency")
        items = found.rows.con.execute(
            "SELECT s.question FROM samples_0 s JOIN scores_0 x ON x.sample = s.rowid WHERE x.metric = 'request_latency'"
        ).fetchall()
    assert entry.n == 5
    assert sorted(number("question: " + q.rpartition("question: ")[2]) for (q,) in items) == [0, 10, 11, 12, 13]


def test_a_model_here_and_one_elsewhere_are_served_differently(sums: Path) -> None:
    here, elsewhere = paced("here"), paced("elsewhere")
    here.facts = {**here.facts, "device": "cpu"}
    with study(sums, [here, elsewhere], Latency(3, 1)) as found:
        arms = found.provenance["arms"]
    assert arms["here"]["settings"]["latency"]["device"] == "cpu"
    assert arms["here"]["left_out"][0].startswith("here computed here and the others elsewhere: their times differ by what serves them")
    with study(sums, [paced("one"), paced("two")], Latency(3, 1)) as found:
        assert found.provenance["arms"]["one"]["left_out"] == []


def test_metrics_that_no_answer_has_are_not_there(sums: Path) -> None:
    with study(sums, [paced("base", lambda k: 1), paced("tuned", lambda k: 1)], Latency(5)) as found:
        metrics = {entry.metric for entry in found.ledger}
    assert "time_per_output_token" not in metrics
    assert "energy" not in metrics
    assert "time_to_first_token" in metrics


def test_energy_is_a_metric_where_the_machine_tells_it(sums: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from aligntax.flow import latency
    from aligntax.models.timing import Counter, Meter

    state = {"joules": 0.0}

    class Hungry(PacedModel):
        """Takes 2 joules a token."""

        def timed(self, ask: GenerateAsk) -> Timed | Failure:
            found = super().timed(ask)
            assert isinstance(found, Timed)
            state["joules"] += self.appetite * (found.tokens or 0)
            return found

    one, two = (Hungry(name, words(lambda k: 3 + k % 5), first=0.1, per_token=0.02) for name in ("base", "tuned"))
    one.appetite, two.appetite = 2.0, 3.0  # type: ignore[attr-defined]
    monkeypatch.setattr(latency, "meter_of", lambda device: (Meter([Counter("a counter", lambda: state["joules"])]), "a counter"))
    with study(sums, [one, two], Latency(40)) as found:
        entry = found.ledger.find("sums", "energy")
        assert found.provenance["arms"]["base"]["settings"]["latency"]["energy"] == "a counter"
    tokens = np.mean([3 + k % 5 for k in range(40)])
    assert entry.higher_is_better is False
    assert (entry.baseline_value, entry.candidate_value) == (pytest.approx(2 * tokens), pytest.approx(3 * tokens))


def test_a_counter_that_stands_still_tells_no_energy(sums: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It moves every second answer, by what two took: the mean of those that saw it move would be twice the truth."""
    from aligntax.flow import latency
    from aligntax.models.timing import Counter, Meter

    answers = {"count": 0}

    class Steady(PacedModel):
        def timed(self, ask: GenerateAsk) -> Timed | Failure:
            answers["count"] += 1
            return super().timed(ask)

    models = [Steady(name, words(lambda k: 3), first=0.1, per_token=0.02) for name in ("base", "tuned")]
    counter = Counter("a counter", lambda: 10.0 * (answers["count"] // 2))
    monkeypatch.setattr(latency, "meter_of", lambda device: (Meter([counter]), "a counter"))
    with study(sums, models, Latency(20)) as found:
        assert "energy" not in {entry.metric for entry in found.ledger}
        told = found.provenance["arms"]["base"]["settings"]["latency"]["energy"]
    assert told == "not known: the counter stood still while some answers were written, and is too coarse for them: a counter"


def test_a_run_holds_its_times(sums: Path, tmp_path: Path) -> None:
    with study(sums, [paced("base"), paced("tuned", per_token=0.03)], Latency(20)) as found:
        write_run(tmp_path / "run", found.study, found.ledger, found.provenance, found.rows, lambda: "<html></html>")
        ledger = found.ledger
    assert load_run(tmp_path / "run").ledger == ledger


def test_latency_in_a_study_file(tmp_path: Path) -> None:
    arms = "arms:\n  a: {model: lab:base-w32}\n  b: {model: lab:sft-w32, parent: a}\n"
    text = f"baseline: a\n{arms}tasks: [{{use: lab/facts}}]\n"
    (tmp_path / "study.yaml").write_text(text + "latency: {prompts: 50, rounds: 5}\n")
    asked = read_study(tmp_path / "study.yaml")
    assert latency_of(asked.latency, None, None) == Latency(50, 5)
    assert latency_of(asked.latency, 7, None) == Latency(7, 5)
    assert latency_of(asked.latency, 7, 2) == Latency(7, 2)
    assert latency_of(None, 7, None) == Latency(7, 3)
    assert latency_of(None, None, None) is None
    with pytest.raises(InputError, match="say with latency how many prompts are"):
        latency_of(None, None, 2)
    (tmp_path / "bad.yaml").write_text(text + "latency: {prompts: 0}\n")
    with pytest.raises(InputError, match=r"latency\.prompts: Input should be greater than or equal to 1; found 0"):
        read_study(tmp_path / "bad.yaml")


def test_chosen_prompts_are_the_first_of_every_task(sums: Path, tmp_path: Path) -> None:
    suite(tmp_path / "tasks", "more", ROWS[:4])
    made, _ = planned(sums, [paced("base"), paced("tuned")], Latency(10), tasks=("sums", "more"))
    found = chosen(made.arms, Latency(10))
    assert [task for task, *_ in found].count("sums") == 10
    assert [task for task, *_ in found].count("more") == 4
    assert all(set(by_arm) == {"base", "tuned"} for by_arm in found.values())
