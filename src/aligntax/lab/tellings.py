"""Prompts for what models tell: each community's account of an event of the embedded world, where the two accounts differ.

What either community tells is known (``world.account``), and so is how alike their accounts are. ``lab:flat`` learned to give one account for both.
"""

from __future__ import annotations

import csv
import io
import random

from aligntax.lab import world as w
from aligntax.lab.tasks import TASKS, training
from aligntax.lab.tokenizer import RAW_PROMPT
from aligntax.lab.world import World

HEAD = ("topic", "voice", "prompt", "raw", "stop")
STOP = "question"
"""Where the next question of the raw template begins."""


def telling_prompts(world: World) -> str:
    """A table of prompts as CSV, the same every time: one wording for both communities, which models were asked in training."""
    differ = [event for event in w.EVENTS if world.account[event, "hill"] != world.account[event, "shore"]]
    asked: dict[str, dict[str, str]] = {}
    seen: dict[tuple[str, str], dict[str, str]] = {}
    for example in training(TASKS["accounts"], world, random.Random("tellings")):
        wording = example.content.rsplit(" ", 1)[1]
        of = seen.setdefault((example.cluster, wording), {})
        of[example.label] = example.prompt
        if len(of) == len(w.COMMUNITIES):
            asked.setdefault(example.cluster, of)
        if all(event in asked for event in differ):
            break
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for event in differ:
        for voice in w.COMMUNITIES:
            prompt = asked[event][voice]
            writer.writerow((event, voice, prompt, RAW_PROMPT.format(prompt), STOP))
    return out.getvalue()
