"""The rival of the geometry: what one step of the optimiser for the objective does to the tasks' own answers (imports torch).

The step is the sign of the gradient, Adam's first, of the loss of what training would have the model say to unsafe prompts; its size is the one at which that
loss is lowest on prompts that were held out. ``predict.response`` takes it, and takes it back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from aligntax.core.errors import InputError
from aligntax.core.words import items_text
from aligntax.predict.gather import Tell, example
from aligntax.predict.inputs import Objective, Request, taught
from aligntax.predict.response import Responses, over_batches, responses
from aligntax.predict.results import OptimiserStep, Range, Settings, TaskStep

if TYPE_CHECKING:
    from aligntax.models.hf import HFModel

BATCHES = 4
"""Disjoint batches of the objective; their responses differ by what falls into a batch, which the interval tells."""
SIZES = (32, 16, 8)
"""Examples of a batch: the largest that leaves enough to be held out."""
ITEMS = 64
"""Items of a task on which a step is looked at."""


def optimiser_step(
    model: HFModel, objective: Objective, tasks: Mapping[str, Sequence[Request]], want: Settings, tell: Tell, notes: list[str]
) -> OptimiserStep | None:
    """What a step does to every task; None, and a note, where it cannot be taken.

    Args:
        model: the base model; its weights are the same to the last bit afterwards.
        objective: unsafe prompts, and where known what training would have the model say.
        tasks: items with right answers, by name.
        want: ``answers`` for prompts of which nothing is known, in turn.
        tell: progress.
        notes: where to say why there is none.
    """
    wanted = taught(objective.unsafe, objective, want.answers)
    if wanted is None:
        notes.append(
            "what one step of training does was not measured: nobody says what training would have the model say to unsafe prompts; a table says so in the column "
            "completion, and --answer for those of which it does not"
        )
        return None
    examples = list({prompt: (prompt, answer) for prompt, answer in (example(model, one, str(one.wanted)) for one in wanted)}.values())
    size = next((size for size in SIZES if len(examples) >= (BATCHES + 1) * size), None)
    if size is None:
        notes.append(
            f"what one step of training does was not measured: {items_text(len(examples), 'prompt')} with an answer, and {(BATCHES + 1) * SIZES[-1]} are needed"
        )
        return None
    seen = {name: rows[:ITEMS] for name, rows in tasks.items()}
    try:
        found = responses(
            model.local.model,
            examples,
            {name: [example(model, one, str(one.wanted)) for one in rows] for name, rows in seen.items()},
            head=model.scorer.head,
            shares=(1.0,),
            batches=BATCHES,
            batch_size=size,
            seed=want.seed,
            batch_tokens=want.batch_tokens,
            tell=tell,
        )
    except InputError as error:
        notes.append(f"what one step of training does was not measured: {error}")
        return None
    return _told(found, {name: len(rows) for name, rows in seen.items()}, size, want.level)


def _told(found: Responses, items: Mapping[str, int], size: int, level: float) -> OptimiserStep:
    along = found.along["sign"]
    line = along.line
    step = float(along.steps[0])
    at = int(np.argmin(np.abs(line.steps - step)))
    kept = {"lost": found.lost("sign")[:, 0], "kl": along.kl[:, 0], "change": along.change[:, 0], "cosine": found.cosines}
    ranges = {name: _ranges(values, level) for name, values in kept.items()}
    told = [
        TaskStep(
            name,
            ranges["lost"][n],
            ranges["kl"][n],
            ranges["change"][n],
            ranges["cosine"][n],
            float(found.norms[n]),
            float(found.logprob[n]),
            float(found.right[n]),
            items[name],
        )
        for n, name in enumerate(found.tasks)
    ]
    return OptimiserStep(
        step,
        BATCHES,
        size,
        found.held,
        line.start,
        float(line.losses[:, at].mean()),
        tuple(sorted(told, key=lambda t: (-t.lost.value, t.task))),
    )


def _ranges(values: npt.NDArray[np.float64], level: float) -> list[Range]:
    """Of (B, T): means over batches with their t limits."""
    return [Range(*map(float, one)) for one in zip(*over_batches(values, level), strict=True)]
