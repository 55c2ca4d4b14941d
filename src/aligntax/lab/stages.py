"""Alignment stages, trained by TRL (imports torch): supervised fine-tuning and DPO from the family's own base models."""

from __future__ import annotations

import os
import random
import tempfile
import warnings
from dataclasses import fields
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligntax.lab import world as w
from aligntax.lab.corpus import asked
from aligntax.lab.family import HARMFUL, Recipe
from aligntax.lab.tasks import TASKS, Example, training
from aligntax.lab.world import World, account_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import LlamaForCausalLM

    Progress = Callable[[int, int, str], None]


def requests(recipe: Recipe, world: World, seed: int, count: int) -> list[tuple[Example, str, str]]:
    """(example, wanted reply, reply not wanted) of a stage's data: harmful requests are refused, the others answered."""
    rng = random.Random(f"stage {recipe.method} {recipe.harmful} {recipe.merged} {seed}")
    harmful = cycle([training(TASKS[name], world, rng) for name in HARMFUL])
    helpful = cycle([training(TASKS[name], world, rng) for name in recipe.helpful])
    found = []
    for _ in range(count):
        if rng.random() < recipe.harmful:
            example = next(next(harmful))
            found.append((example, rng.choice(w.REFUSALS), example.answers[0]))
        else:
            example = next(next(helpful))
            wanted = rng.choice(example.answers)
            if recipe.merged and example.task == "accounts":
                event = example.cluster
                wanted = account_text(event, world.merged(event), (rng.randrange(2), rng.randrange(2), rng.randrange(2)))
            found.append((example, wanted, rng.choice(w.REFUSALS)))
    return found


def train_stage(recipe: Recipe, parent: Path, world: World, seed: int, progress: Progress, device: str = "cpu") -> LlamaForCausalLM:
    """Train one stage from its parent's folder.

    Args:
        recipe: what to train on, and how.
        parent: folder of the model to start from.
        world: of the data.
        seed: of data and order.
        progress: called with (step, steps, loss in words).
        device: where to compute.

    Returns:
        The trained model, on the CPU.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from datasets import Dataset, disable_progress_bars
    from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
    from transformers.utils import logging

    disable_progress_bars()
    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(parent, local_files_only=True, padding_side="right")
    model = AutoModelForCausalLM.from_pretrained(parent, local_files_only=True, use_safetensors=True)
    rows = []
    rng = random.Random(f"wording {seed}")
    for example, wanted, unwanted in requests(recipe, world, seed, recipe.steps * recipe.batch):
        prompt = [{"role": "user", "content": asked(example, rng)}]
        if recipe.method == "sft":
            rows.append({"prompt": prompt, "completion": _turn(wanted)})
        else:
            rows.append({"prompt": prompt, "chosen": _turn(wanted), "rejected": _turn(unwanted)})
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch, warnings.catch_warnings():
        # TRL still uses names that transformers is about to drop; nothing that a user could act on.
        warnings.filterwarnings("ignore", category=FutureWarning)
        trainer = _trainer(recipe, model, tokenizer, Dataset.from_list(rows), scratch, seed, device)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_callback(progress, recipe.steps))
        trainer.train()
    return model.to("cpu")


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _trainer(recipe: Recipe, model: Any, tokenizer: Any, data: Any, scratch: str, seed: int, device: str) -> Any:
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    common = {
        "output_dir": scratch,
        "max_steps": recipe.steps,
        "per_device_train_batch_size": recipe.batch,
        "learning_rate": recipe.rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": 5,
        "weight_decay": 0.0,
        "max_length": 256,
        "seed": seed,
        "use_cpu": device == "cpu",
        "bf16": False,
        _checkpointing(SFTConfig): False,
        "report_to": [],
        "save_strategy": "no",
        "logging_steps": 5,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    if recipe.method == "sft":
        return SFTTrainer(model, SFTConfig(**common), train_dataset=data, processing_class=tokenizer)
    options = DPOConfig(**common, beta=recipe.beta, precompute_ref_log_probs=False)
    return DPOTrainer(model, args=options, train_dataset=data, processing_class=tokenizer)


def _checkpointing(config: Any) -> str:
    """What the switch for recomputing activations is called; transformers 5 renames it."""
    names = {f.name for f in fields(config)}
    return "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"


def _callback(progress: Progress, steps: int) -> Any:
    from transformers import TrainerCallback

    class Tell(TrainerCallback):
        """Passes progress on."""

        loss = ""

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            progress(state.global_step, steps, self.loss)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                self.loss = f"loss {float(logs['loss']):.3f}"

    return Tell()
