"""Which of two answers a judge model prefers: those of every arm against the baseline's to the same request, in both orders.

The metric is ``win_rate``, a tie half; the baseline's own is 1/2 by definition, so that a change of it is what an arm wins beyond a draw. Two
stages are compared by how they fare against the same answers. A judge's liking for a place cancels in the mean of both orders; equal answers
are a tie that nobody is asked about. How much longer an answer is stands beside it, which makes the rate at equal lengths
(``flow.judged.length_controlled_tables``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aligntax.core.asks import Answer, Failure, GenerateAsk, Generated
from aligntax.core.items import Value
from aligntax.core.kinds import kind_of
from aligntax.core.samples import Outcome
from aligntax.core.words import items_text
from aligntax.flow.collect import ArmPlan, Sitting
from aligntax.flow.judged import LENGTHS, WINS

Key = tuple[str, str, str, int]
"""(task, item, content, trial) of one answer."""

KIND = "helpfulness"
"""Of the tasks whose answers are compared."""


@dataclass
class Match:
    """An answer and the baseline's to the same request, with the requests to the judge: the arm's answer shown first, and shown second.

    ``rival`` is None for the baseline itself.
    """

    sitting: Sitting
    answer: Answer
    rival: Answer | None
    requests: tuple[str, str] | None = None

    @property
    def texts(self) -> tuple[str, str] | None:
        """Both answers where there is something to compare: there are two, and they differ."""
        if not isinstance(self.answer, Generated) or not isinstance(self.rival, Generated) or self.answer.text == self.rival.text:
            return None
        return self.answer.text, self.rival.text


def to_compare(arm: ArmPlan, kinds: Mapping[str, str]) -> Iterator[tuple[int, str]]:
    """(number of the sitting, identity of its request) of every answer in words to a task of helpfulness."""
    for number, sitting in enumerate(arm.sittings):
        if kind_of(sitting.task, kinds) == KIND:
            key = next((key for keys in sitting.requests for key in keys if isinstance(arm.requests[key], GenerateAsk)), None)
            if key is not None:
                yield number, key


def matches(arms: Sequence[ArmPlan], kinds: Mapping[str, str], shown: Callable[[str, int, str], Answer]) -> dict[str, list[Match]]:
    """Every arm's answers beside those of the first, by identity of the question and the trial.

    Args:
        arms: the baseline first.
        kinds: overrides of tasks' kinds.
        shown: (arm, number of the sitting, identity of its request) -> what the user got.
    """
    out: dict[str, list[Match]] = {}
    of_baseline: dict[Key, Answer] = {}
    for arm in arms:
        found = [(arm.sittings[n], shown(arm.name, n, key)) for n, key in to_compare(arm, kinds)]
        if arm is arms[0]:
            of_baseline = {key_of(sitting): answer for sitting, answer in found}
            out[arm.name] = [Match(sitting, answer, None) for sitting, answer in found]
        else:
            lost = Failure("the baseline was not asked this")
            out[arm.name] = [Match(sitting, answer, of_baseline.get(key_of(sitting), lost)) for sitting, answer in found]
    return out


def key_of(sitting: Sitting) -> Key:
    """Identity of the question and the trial."""
    return sitting.task, sitting.question.item, sitting.question.content, sitting.trial


@dataclass
class Preferences:
    """What became of one arm's answers: scores by answer, and what there is to say."""

    scores: dict[Key, dict[str, Value]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def preferences(found: Sequence[Match], read: Callable[[str], float | None], baseline: str) -> Preferences:
    """Win rates and lengths of one arm's answers.

    Args:
        found: its answers.
        read: preference for the answer shown first, by the identity of the request to the judge; None where it gave none.
        baseline: its name, for the notes.
    """
    out = Preferences()
    lost: Counter[str] = Counter()
    firsts, odd, same = [], 0, 0
    for one in found:
        value, why = 0.5 if one.rival is None else None, ""
        if not isinstance(one.answer, Generated):
            value, why = None, "it failed"
        elif one.rival is not None and not isinstance(one.rival, Generated):
            why = f"{baseline} has no answer"
        elif one.requests is not None:
            ahead, behind = read(one.requests[0]), read(one.requests[1])
            if ahead is None or behind is None:
                why = "the judge named neither answer"
            else:
                value = (ahead + 1 - behind) / 2
                firsts.append(ahead - (1 - behind))
                odd += ahead == behind != 0.5
        elif one.rival is not None:
            value = 0.5
            same += 1
        if value is None:
            lost[why] += 1
            out.scores[key_of(one.sitting)] = {WINS: Value(None, Outcome.FAILED)}
            continue
        assert isinstance(one.answer, Generated)
        longer = len(one.answer.text) - len(one.rival.text) if isinstance(one.rival, Generated) else 0
        out.scores[key_of(one.sitting)] = {WINS: Value(value, Outcome.SCORED), LENGTHS: Value(float(longer))}
    out.notes += [f"{items_text(n, 'answer')} not compared: {why}" for why, n in lost.most_common()]
    if same:
        out.notes.append(f"{items_text(same, 'answer')} equal to those of {baseline}: ties, without asking the judge")
    if firsts:
        out.notes.append(
            f"the judge compared {items_text(len(firsts), 'answer')} with those of {baseline} in both orders; an answer won "
            f"{100 * sum(firsts) / len(firsts):+.1f} points more often when shown first, and {odd:,} times the place alone decided"
        )
    return out
