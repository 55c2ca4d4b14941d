"""Pairs of accounts for the atlas: how two communities of the embedded world tell of one event, and how alike these accounts are in truth.

Categories: ``control``: one account in two wordings; ``two_communities``: how the hill and the shore tell of one event, where they differ; ``merged``: a community's
account against the mixture of both that ``lab:flat`` learned to give for either; ``anchor``: made-up accounts from unlike to alike. The reference is the truth
of the world (``world.alikeness`` over 9), which models were taught to say as a digit.
"""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator, Sequence

from aligntax.lab import world as w
from aligntax.lab.world import World, account_text, alikeness

HEAD = ("pair", "category", "topic", "text_a", "text_b", "reference")


def account_pairs(world: World) -> str:
    """A table of pairs as CSV, the same every time."""
    rng = random.Random("pairs of accounts")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEAD)
    for event in w.EVENTS:
        for number, (category, one, two) in enumerate(_of_event(world, event, rng)):
            texts = _texts(event, one, two, rng)
            topic = "" if category == "anchor" else event
            writer.writerow((f"{category} {event} {number}", category, topic, *texts, f"{alikeness(one, two) / w.ALIKE:.6f}"))
    return out.getvalue()


def _of_event(world: World, event: str, rng: random.Random) -> Iterator[tuple[str, Sequence[int], Sequence[int]]]:
    hill, shore = world.account[event, "hill"], world.account[event, "shore"]
    yield "control", hill, hill
    yield "control", shore, shore
    if hill != shore:
        yield "two_communities", hill, shore
        for own in (hill, shore):
            if own != world.merged(event):
                yield "merged", own, world.merged(event)
    yield "anchor", w.random_slots(rng), w.random_slots(rng)


def _texts(event: str, one: Sequence[int], two: Sequence[int], rng: random.Random) -> tuple[str, str]:
    """Two wordings; never one text twice."""
    while True:
        a, b = (account_text(event, slots, [rng.randrange(2) for _ in slots]) for slots in (one, two))
        if a != b:
            return a, b
