"""What stages took: published numbers again, what trainers write and leave out, sums along a tree, and nothing guessed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pytest import approx

from aligntax.core.errors import InputError
from aligntax.core.ledger import Entry, Ledger
from aligntax.core.study import Analysis, Arm, Study
from aligntax.flow.development import PETAFLOP_S_DAY, UNITS, develop, development_entries, read_trainer_state
from tests.conftest import need

# Ouyang et al. 2022 (arXiv:2203.02155), section 5.1.
INSTRUCT_GPT = """
pretraining: {petaflop_s_days: 3640}
stages:
  sft: {petaflop_s_days: 4.9}
  ppo-ptx: {petaflop_s_days: 60, parent: sft}
"""
# As TRL 1.16.0 with transformers 5.23.0 wrote them after four steps on a model of 656,512 parameters outside its embeddings: an SFT whose batches
# had 20, 20, 20 and 18 tokens, gone on with from its second step; a DPO with 32 each; a GRPO. Lines of the history before the last are left out.
SFT = {
    "epoch": 0.5, "global_step": 4, "max_steps": 4, "num_input_tokens_seen": 0, "num_train_epochs": 1, "total_flos": 307247616.0,
    "log_history": [
        {"epoch": 0.25, "loss": 14.09687328338623, "num_tokens": 36.0, "step": 2},
        {
            "epoch": 0.5, "step": 4, "total_flos": 307247616.0, "train_loss": 13.655879974365234, "train_runtime": 0.2777,
            "train_samples_per_second": 14.403, "train_steps_per_second": 7.201,
        },
    ],
}  # fmt: skip
DPO = {
    "epoch": 1.0, "global_step": 4, "max_steps": 4, "num_input_tokens_seen": 0, "num_train_epochs": 1, "total_flos": 504201216.0,
    "log_history": [
        {
            "epoch": 1.0, "step": 4, "total_flos": 504201216.0, "train_loss": 0.6894791275262833, "train_runtime": 0.9374,
            "train_samples_per_second": 8.534, "train_steps_per_second": 4.267,
        }
    ],
}  # fmt: skip
GRPO = {
    "epoch": 0.5, "global_step": 4, "max_steps": 4, "num_input_tokens_seen": 68, "num_train_epochs": 1, "total_flos": 0.0,
    "log_history": [
        {
            "epoch": 0.5, "step": 4, "total_flos": 0.0, "train_loss": -0.056862637400627136, "train_runtime": 1.0456,
            "train_samples_per_second": 7.651, "train_steps_per_second": 3.825,
        }
    ],
}  # fmt: skip
PARAMETERS = 656_512


def write(folder: Path, text: str, **states: Any) -> Path:
    """costs.yaml in a folder, and trainer states in ``<name>/trainer_state.json`` beside it."""
    for name, state in states.items():
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "trainer_state.json").write_text(json.dumps(state))
    path = folder / "costs.yaml"
    path.write_text(text)
    return path


def entries(folder: Path, text: str, **states: Any) -> dict[tuple[str, str, str], Entry]:
    found = {(*e.pair, e.metric): e for e in develop(write(folder, text, **states)).ledger}
    assert {e.unit for e in found.values()} <= {*UNITS.values(), "EUR"}
    return found


def test_instruct_gpt(tmp_path: Path) -> None:
    """4.9 and 60 against 3640 petaflop/s-days: 64.9, or 1.783 %."""
    found = entries(tmp_path, INSTRUCT_GPT)
    assert {key: e.change for key, e in found.items()} == {
        ("base", "sft", "training_compute"): 4.9,
        ("base", "sft", "training_compute_share"): approx(0.0013462, rel=1e-4),
        ("sft", "ppo-ptx", "training_compute"): 60,
        ("sft", "ppo-ptx", "training_compute_share"): approx(0.0164835, rel=1e-4),
        ("base", "ppo-ptx", "training_compute"): approx(64.9),
        ("base", "ppo-ptx", "training_compute_share"): approx(0.01783, abs=5e-6),
    }
    total = found["base", "ppo-ptx", "training_compute_share"]
    assert total.checks == ("pretraining is 3640 petaflop/s-days, as given", "sum of the stages sft, ppo-ptx")
    for entry in found.values():
        assert (entry.kind, entry.task, entry.n, entry.method, entry.verdict) == ("development", "development", 0, "none", None)
        assert (entry.baseline_value, entry.ci_low, entry.ci_high, entry.level) == (None, None, None, 0.95)
        assert entry.candidate_value == entry.change == entry.cost


def test_the_ledger_is_one(tmp_path: Path) -> None:
    ledger = develop(write(tmp_path, INSTRUCT_GPT)).ledger
    assert Ledger.from_dict(json.loads(ledger.to_json())) == ledger
    with_a_comment = develop(write(tmp_path, "# the same\n" + INSTRUCT_GPT)).ledger
    assert with_a_comment.study == ledger.study
    assert develop(write(tmp_path, INSTRUCT_GPT.replace("4.9", "5"))).ledger.study != ledger.study


def test_six_n_d(tmp_path: Path) -> None:
    """GPT-3: 175e9 parameters, 300e9 tokens, 3.15e23 operations (Brown et al. 2020, table D.1: 3.14e23, 3.64e3 petaflop/s-days)."""
    text = "pretraining: {parameters: 175e9, tokens: 300e9}\nstages: {a: {parameters: 175e9, tokens: 1e9, passes: 3, forward_tokens: 9e9}, b: {flops: 8.64e19}}"
    found = entries(tmp_path, text)
    assert found["base", "a", "training_compute"].change == approx(175e9 * (6 * 3e9 + 2 * 9e9) / 8.64e19)
    share = found["base", "a", "training_compute_share"]
    assert share.change == approx((6 * 3 + 2 * 9) / (6 * 300))
    assert share.checks[0].startswith("pretraining is 3645.83 petaflop/s-days, 6 N D (Kaplan et al. 2020)")
    assert any("2 N for each of 9e+09 tokens that passed forwards only" in check for check in share.checks)
    assert found["base", "b", "training_compute"].change == approx(1)


def test_total_flos_is_six_for_every_token_and_parameter(tmp_path: Path) -> None:
    """78 tokens of batches, padding among them; DPO's 128 are chosen and rejected answers, passed through the policy."""
    found = entries(
        tmp_path, "stages: {sft: {trainer_state: sft/trainer_state.json}, dpo: {trainer_state: dpo/trainer_state.json}}", sft=SFT, dpo=DPO
    )
    for name, tokens in (("sft", 78), ("dpo", 128)):
        entry = found["base", name, "training_compute"]
        assert entry.details["flops"] == 6 * tokens * PARAMETERS
        assert entry.change == approx(6 * tokens * PARAMETERS / PETAFLOP_S_DAY)
        assert entry.details["steps"] == 4
        assert "input_tokens" not in entry.details  # 0 unless the trainer is told to count
        assert any("a reference or reward model's passes, generated tokens" in check for check in entry.checks)


def test_what_a_trainer_does_not_count_is_unknown_and_not_0(tmp_path: Path) -> None:
    found = entries(tmp_path, "pretraining: {flops: 1e15}\nstages: {grpo: {trainer_state: grpo/trainer_state.json}}", grpo=GRPO)
    for metric in ("training_compute", "training_compute_share"):
        entry = found["base", "grpo", metric]
        assert (entry.change, entry.candidate_value, entry.cost) == (None, None, None)
        assert "total_flos is 0 or missing" in entry.checks[0]
    assert found["base", "grpo", "training_compute"].details["input_tokens"] == 68
    named = "stages: {grpo: {trainer_state: grpo/trainer_state.json, parameters: 656512, tokens: 68, forward_tokens: 68}}"
    entry = entries(tmp_path, named)["base", "grpo", "training_compute"]
    assert entry.change == approx(8 * 68 * PARAMETERS / PETAFLOP_S_DAY)
    assert entry.checks[-1] == "trainer_state.json counts nothing; what was given is taken"
    gone = {k: v for k, v in SFT.items() if k != "total_flos"}
    assert (
        entries(tmp_path, "stages: {sft: {trainer_state: sft/trainer_state.json}}", sft=gone)["base", "sft", "training_compute"].change
        is None
    )


def test_what_was_given_is_taken_and_the_trainer_beside_it(tmp_path: Path) -> None:
    entry = entries(tmp_path, "stages: {sft: {trainer_state: sft/trainer_state.json, flops: 8.64e19}}", sft=SFT)[
        "base", "sft", "training_compute"
    ]
    assert entry.change == approx(1)
    assert entry.checks[-1] == "trainer_state.json counts 3.55611e-12 petaflop/s-days; what was given is taken"


def test_hours_of_a_trainer_and_what_a_resume_hides(tmp_path: Path) -> None:
    text = "stages: {{{0}: {{trainer_state: {0}/trainer_state.json, devices: 8, watts_per_device: 700, power_usage_effectiveness: 1.25}}}}"
    whole = entries(tmp_path, text.format("dpo"), dpo=DPO)
    assert whole["base", "dpo", "device_hours"].change == approx(8 * 0.9374 / 3600)
    assert whole["base", "dpo", "energy"].change == approx(8 * 0.9374 / 3600 * 0.7 * 1.25)
    assert whole["base", "dpo", "training_compute"].details["flops_per_device_second"] == approx(504201216 / 0.9374 / 8)
    assert not any("missing" in check for check in whole["base", "dpo", "device_hours"].checks)
    resumed = entries(tmp_path, text.format("sft"), sft=SFT)["base", "sft", "device_hours"]
    assert "train_runtime covers about 2 of 4 steps: the hours before a resume are missing" in resumed.checks
    lines = SFT["log_history"]
    assert isinstance(lines, list)
    twice = {**SFT, "log_history": [{**lines[-1], "step": 2}, *lines]}
    both = entries(tmp_path, text.format("sft"), sft=twice)["base", "sft", "device_hours"]
    assert both.change == approx(2 * 8 * 0.2777 / 3600)
    assert "sum over 2 calls of train" in both.checks
    assert not any("missing" in check for check in both.checks)


def test_a_checkpoint_has_no_hours_and_may_not_be_the_last(tmp_path: Path) -> None:
    early = {**DPO, "global_step": 2, "total_flos": 252100608.0, "log_history": []}
    found = entries(tmp_path, "stages: {dpo: {trainer_state: dpo/trainer_state.json, devices: 8}}", dpo=early)
    assert "trainer_state.json stands at step 2 of 4" in found["base", "dpo", "training_compute"].checks
    hours = found["base", "dpo", "device_hours"]
    assert hours.change is None
    assert "checkpoints lack it" in hours.checks[0]
    assert ("base", "dpo", "energy") not in found


def test_nothing_is_guessed(tmp_path: Path) -> None:
    """What cannot be made from what is there is null with a reason; what nobody spoke of has no entry; 0 is 0."""
    found = entries(
        tmp_path, "stages: {a: {hours: 3}, b: {devices: 2, watts_per_device: 5}, c: {power_usage_effectiveness: 2}, d: {labels: 0}, e: {}}"
    )
    assert {(name, metric): e.change for (_, name, metric), e in found.items()} == {
        ("a", "device_hours"): None, ("b", "device_hours"): None, ("b", "energy"): None, ("c", "energy"): None, ("d", "labels"): 0,
    }  # fmt: skip
    assert found["base", "a", "device_hours"].checks == ("devices is not named: 3 hours of the clock on how many?",)
    assert found["base", "b", "energy"].checks == ("device hours are not known", "hours is not named: devices ran for how long?")


PRICES = "currency: EUR\nstages: {{a: {{{}}}}}"


@pytest.mark.parametrize(
    ("said", "price", "check"),
    [
        ("hours: 12, devices: 8, price_per_device_hour: 2.5", 240, "96 device hours at 2.5"),
        ("labels: 100, price_per_label: 0.67, price_of_rest: 3", 70, "100 labels at 0.67 + 3 for the rest"),
        ("energy_kwh: 50, price_per_kwh: 0.3, person_hours: 10, price_per_person_hour: 60", 615, "50 energy at 0.3 + 10 person hours at 60"),
        ("device_hours: 4, price_per_device_hour: 0, labels: 3, price_per_label: 1", 3, "4 device hours at 0 + 3 labels at 1"),
        ("device_hours: 4, watts_per_device: 100, price_per_device_hour: 2", 8, "4 device hours at 2"),
        ("labels: 0, device_hours: 4, price_per_device_hour: 2", 8, "4 device hours at 2"),
        ("price: 17, labels: 100", 17, "as given"),
        ("labels: 100, device_hours: 4, price_per_device_hour: 2", None, "no price: labels cost something, and price_per_label is not named (0 if they do not)"),
        ("hours: 4, labels: 10, price_per_label: 2", None, "no price: device hours cost something, and price_per_device_hour is not named"),
        ("price_per_label: 2", None, "no price: price_per_label is named, and labels not known"),
    ],
)  # fmt: skip
def test_a_price_has_all_its_parts(tmp_path: Path, said: str, price: float | None, check: str) -> None:
    entry = entries(tmp_path, PRICES.format(said))["base", "a", "price"]
    assert entry.change == (None if price is None else approx(price))
    assert entry.unit == "EUR"
    assert entry.checks[0].startswith(check)


TREE = """
stages:
  sft: {labels: 100, person_hours: 5}
  dpo: {labels: 30, parent: sft}
  rl: {labels: 7, person_hours: 2, parent: dpo}
  other: {labels: 1}
"""


def test_sums_along_a_tree(tmp_path: Path) -> None:
    found = entries(tmp_path, TREE)
    assert {key: e.change for key, e in found.items() if key[2] == "labels"} == {
        ("base", "sft", "labels"): 100, ("sft", "dpo", "labels"): 30, ("dpo", "rl", "labels"): 7, ("base", "other", "labels"): 1,
        ("base", "dpo", "labels"): 130, ("base", "rl", "labels"): 137,
    }  # fmt: skip
    total = found["base", "rl", "person_hours"]
    assert (total.change, total.checks) == (None, ("no sum over the stages: person_hours is not known of dpo",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {a: {parent: b}}", "names the parent 'b', which is not an arm; known: base, a"),
        ("stages: {a: {parent: b}, b: {parent: a}}", "is its own ancestor"),
        ("stages: {a: {parent: a}}", "is its own ancestor"),
        ("stages: {base: {}}", "the stage 'base' has the baseline's name; what the baseline took is pretraining"),
        (
            "stages: {a: {parameters: 1e30, tokens: 1e30, passes: 1e30}}\npretraining: {petaflop_s_days: 1e-300}",
            "is larger than any number",
        ),
    ],
)
def test_trees_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        develop(write(tmp_path, text))


def study(*arms: tuple[str, str | None]) -> Study:
    made = [Arm(name=name, parent=parent, source=name, reader="measured", identity=name) for name, parent in arms]
    return Study(baseline=arms[0][0], arms=tuple(made), analysis=Analysis())


def test_in_a_study_the_stages_are_its_arms(tmp_path: Path) -> None:
    tree = study(("llama", None), ("sft", "llama"), ("dpo", "sft"), ("dpo chat", "sft"))
    path = write(tmp_path, "baseline: llama\nstages: {dpo: {labels: 30}, sft: {labels: 100, parent: llama}}")
    assert {(*e.pair, e.metric): e.change for e in development_entries(path, tree)} == {
        ("sft", "dpo", "labels"): 30, ("llama", "sft", "labels"): 100, ("llama", "dpo", "labels"): 130,
    }  # fmt: skip
    alone = development_entries(write(tmp_path, "stages: {dpo: {labels: 30}}"), tree)
    assert [(e.pair, e.change, e.checks) for e in alone] == [
        (("sft", "dpo"), 30, ("as given",)), (("llama", "dpo"), None, ("no sum over the stages: labels is not known of sft",)),
    ]  # fmt: skip
    for text, message in (
        ("stages: {rlhf: {labels: 1}}", "the stage 'rlhf' is no aligned arm of the study; it has: sft, dpo, dpo chat"),
        ("stages: {llama: {labels: 1}}", "the stage 'llama' is no aligned arm"),
        ("stages: {dpo: {labels: 1, parent: llama}}", "the stage 'dpo' has the parent 'llama' here and 'sft' in the study"),
        ("baseline: base\nstages: {dpo: {labels: 1}}", "the baseline is 'base' here and 'llama' in the study"),
    ):
        with pytest.raises(InputError, match=message):
            development_entries(write(tmp_path, text), tree)


DEBT = """
currency: EUR
debt:
  horizon_months: 12
  discount_rate_per_year: 0
  now: {once: 50, per_month: 0}
  harm: {cost_per_month: {without: 10, with: 0}, growth_per_month: 0}
"""


def test_a_debt_is_between_the_baseline_and_the_candidate(tmp_path: Path) -> None:
    alone = develop(write(tmp_path, DEBT)).ledger
    assert {e.pair for e in alone} == {("base", "aligned")}
    assert alone.find("debt", "net_present_saving").change == 70
    with_stages = develop(write(tmp_path, TREE + DEBT)).ledger
    assert {e.pair for e in with_stages if e.task == "debt"} == {("base", "other")}
    of_study = development_entries(write(tmp_path, DEBT), study(("llama", None), ("sft", "llama"), ("dpo", "sft")))
    assert {e.pair for e in of_study} == {("llama", "dpo")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is no JSON that can be read; a trainer_state.json was expected"),
        ("[" * 100_000, "is no JSON that can be read"),
        ("9" * 10_000, "is no JSON that can be read"),
        ("[1]", "is no trainer_state.json: it has no global_step and log_history"),
        ("{}", "is no trainer_state.json"),
        ('{"global_step": 1, "log_history": 3}', "is no trainer_state.json"),
        ('{"global_step": 1, "log_history": [], "total_flos": "1e9"}', "total_flos must be a number of 0 and more; got '1e9'"),
        ('{"global_step": 1, "log_history": [], "total_flos": true}', "total_flos must be a number of 0 and more; got True"),
        ('{"global_step": 1, "log_history": [], "total_flos": NaN}', "total_flos must be a number of 0 and more; got nan"),
        ('{"global_step": -1, "log_history": []}', "global_step must be a number of 0 and more; got -1"),
        ('{"global_step": 1, "log_history": [], "total_flos": 1' + "0" * 400 + "}", "total_flos must be a number of 0 and more; got 1000"),
        ('{"global_step": 1, "log_history": [3, {"train_runtime": Infinity}]}', "train_runtime must be a number of 0 and more; got inf"),
    ],
)
def test_what_is_no_trainer_state(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "trainer_state.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_trainer_state(path)
    assert len(str(caught.value)) < 300


def test_trainer_states_that_cannot_be_read(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(500 * 2**20)
    os.mkfifo(tmp_path / "pipe")
    for name, message in (
        ("large.json", "is larger than 64 MiB; name flops and hours in the costs file instead"),
        ("pipe", "is no regular file"),
        (".", "is a folder; name a file in it"),
        ("none.json", "cannot be read: No such file or directory"),
    ):
        with pytest.raises(InputError, match=message):
            develop(write(tmp_path, f"stages: {{a: {{trainer_state: {name}}}}}"))


def test_trainer_states_are_found_beside_the_file_or_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "trainer_state.json").write_text(json.dumps(SFT))
    for named in ("../trainer_state.json", str(tmp_path / "trainer_state.json")):
        found = develop(write(tmp_path / "inner", f"stages: {{a: {{trainer_state: {named}}}}}"))
        assert found.ledger.find("development", "training_compute").details["flops"] == 307247616.0
    write(tmp_path / "inner", "stages: {a: {trainer_state: ../trainer_state.json}}")
    monkeypatch.chdir(tmp_path)
    relative = develop(Path("inner/costs.yaml")).ledger
    (tmp_path / "trainer_state.json").write_text(json.dumps(DPO))
    assert develop(Path("inner/costs.yaml")).ledger.study != relative.study


@pytest.mark.slow
def test_a_trainer_still_counts_what_the_checks_say() -> None:
    """6 for every token and parameter outside embeddings; frozen ones too; nothing where batches are lists, as GRPO's are."""
    need("transformers", "models")
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer

    config = LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    outside = sum(p.numel() for p in model.parameters()) - 50 * 16
    trainer: Any = SimpleNamespace(model=model)
    batch = {"input_ids": torch.zeros((3, 7), dtype=torch.long)}
    assert Trainer.floating_point_ops(trainer, batch) == 6 * 21 * outside
    for parameter in model.parameters():
        parameter.requires_grad = False
    assert Trainer.floating_point_ops(trainer, batch) == 6 * 21 * outside
    examples: Any = [{"prompt": "a"}]
    assert Trainer.floating_point_ops(trainer, examples) == 0
