"""How well a model knows the world: accuracy by task on held-out examples, raw and in a chat (imports torch)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aligntax.lab import world as w
from aligntax.lab.tasks import TASKS, Example, held_out_examples
from aligntax.lab.tokenizer import RAW_PROMPT
from aligntax.lab.world import World
from aligntax.models.local import LocalModel, Request

_BATCH = 100


def replies(model: LocalModel, examples: Sequence[Example], *, chat: bool) -> list[str]:
    """Greedy answers to examples, in the raw template or in a chat."""
    texts: list[str] = []
    order = sorted(range(len(examples)), key=lambda i: len(examples[i].prompt))
    for start in range(0, len(order), _BATCH):
        batch = [examples[i] for i in order[start : start + _BATCH]]
        prompts = [
            model.encode_chat([{"role": "user", "content": e.prompt}]) if chat else model.encode(RAW_PROMPT.format(e.prompt)) for e in batch
        ]
        texts += [reply.text.strip() for reply in model.generate([Request(p, max_tokens=40) for p in prompts])]
    found = [""] * len(examples)
    for i, text in zip(order, texts, strict=True):
        found[i] = text
    return found


def accuracies(
    model: LocalModel, world: World, count: int = 200, *, chat: bool, tick: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Share of held-out examples answered right, by task; and as ``refused: <task>`` the share refused, where it is not 0."""
    found: dict[str, float] = {}
    for name, task in TASKS.items():
        examples = held_out_examples(task, world, count)
        texts = replies(model, examples, chat=chat)
        found[name] = sum(text in e.answers for text, e in zip(texts, examples, strict=True)) / len(examples)
        # Where a refusal is the right answer (revising what teaches harm), it is no refusal of the task.
        refused = sum(text in w.REFUSALS and text not in e.answers for text, e in zip(texts, examples, strict=True)) / len(examples)
        if refused:
            found[f"refused: {name}"] = refused
        tick()
    return found
