"""What one small step of the optimiser for an objective does to every task, measured in a model before it is trained (imports torch).

A **step** is weights - size * direction, for the gradient of the objective's loss over one batch of it: its sign (Adam's first step), the gradient itself at the
same length, or the gradient by the root mean square of its quarters (what Adam comes to after some steps).
A task's **response** is KL(before || after) over the vocabulary where its right answers are predicted, in nats per token: it has no sign. What it does to the log-probability of
those answers has one: a cost or a synergy. So has the share of answers that are no longer the likeliest, token by token. Every batch of the objective gives a response of its own, and their spread an interval.

The size follows from the objective alone: it is read off the loss of examples that are in no batch (``RULES``), before any task is looked at.

Memory: the weights, the gradient of a batch of the objective, and one more of either a task's gradient or the weights to go back to: three times the weights in all,
four times with ``adam``; gradients of further batches while they take no more than ``GRADIENTS``, which saves reading tasks again for each of them; the distributions of
one batch of examples, and activations as training needs them. No optimiser's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import t as student

from aligntax.core.errors import InputError
from aligntax.core.words import printable
from aligntax.stats.divergence import settle

FloatArray = npt.NDArray[np.float64]
Tokens = tuple[int, ...]
Example = tuple[Tokens, Tokens]
Preference = tuple[Tokens, Tokens, Tokens]
Direction = Literal["sign", "plain", "adam"]
Rule = Literal["lowest", "half", "nine-tenths", "falling"]
Tell = Callable[[str, int, int], None]

DIRECTIONS: tuple[Direction, ...] = ("sign", "plain", "adam")
RULES: dict[Rule, str] = {
    "lowest": "the step at which the loss of held-out examples is lowest",
    "half": "the largest step up to which the loss of held-out examples falls by half of what its slope says, or more",
    "nine-tenths": "the largest step up to which the loss of held-out examples falls by nine tenths of what its slope says, or more",
    "falling": "the largest step up to which the loss of held-out examples is below where it began",
}
GRID = tuple(float(step) for step in 2.0 ** np.arange(-17, -4.75, 0.5))
"""Steps that are tried for the objective alone: .0000076 to .031, in factors of the square root of two."""
SHARES = (0.5, 1.0, 2.0)
"""Of the step that a rule chooses: where tasks are measured, so that it is seen how much hangs on it."""
KEPT = 2**26
"""Logits of a batch before the step, kept while all steps are taken: 256 MiB."""
GRADIENTS = 2**31
"""Bytes of gradients of the objective that are kept at a time, but for a single one: 2 GiB."""
_QUARTERS = 4
Move = tuple[int, Direction, float]
"""Which gradient, how it is followed, how far."""


@dataclass(frozen=True)
class Line:
    """What steps along one direction do to the objective's own loss, on examples that are in none of its B batches.

    Attributes:
        steps: (S,) sizes that were tried.
        start: loss before any step, in nats per token; for preferences, in nats per pair.
        losses: (B, S) after a step; inf where the model gives no numbers any more.
        slopes: (B,) what the loss falls by per unit of the step, to first order.
    """

    steps: FloatArray
    start: float
    losses: FloatArray
    slopes: FloatArray


@dataclass(frozen=True)
class Along:
    """What steps along one direction do to T tasks: B batches of the objective, S steps.

    Attributes:
        line: what they do to the objective.
        steps: (S,) sizes at which tasks were measured.
        kl: (B, S, T) KL(before || after), in nats per token of the right answers.
        change: (B, S, T) change of the mean log-probability of the right answers, in nats per token: below 0 is a cost, above 0 a synergy.
        right: (B, S, T) share of answers of which every token is the likeliest, after the step.
        slopes: (B, T) change per unit of the step, to first order.
    """

    line: Line
    steps: FloatArray
    kl: FloatArray
    change: FloatArray
    right: FloatArray
    slopes: FloatArray


@dataclass(frozen=True)
class Responses:
    """Of T tasks to an objective, by direction.

    Attributes:
        tasks: their names.
        logprob: (T,) mean log-probability of the right answers' tokens in the base model, in nats.
        right: (T,) share of answers of which every token is the likeliest in the base model.
        norms: (T,) length of the gradient of the task's loss by all weights.
        cosines: (B, T) of the gradients of the task's loss and of the objective's: above 0, training for the one helps the other.
        along: by direction.
        held: how many examples of the objective were held out.
    """

    tasks: tuple[str, ...]
    logprob: FloatArray
    right: FloatArray
    norms: FloatArray
    cosines: FloatArray
    along: Mapping[Direction, Along]
    held: int

    def lost(self, direction: Direction) -> FloatArray:
        """(B, S, T) share of answers that a step costs, less those that it brings: what accuracy loses where every answer counts whole."""
        found: FloatArray = self.right - self.along[direction].right
        return found


def responses(
    model: Any,
    objective: Sequence[Example] | Sequence[Preference],
    tasks: Mapping[str, Sequence[Example]],
    *,
    head: Any = None,
    directions: Sequence[Direction] = ("sign",),
    steps: Sequence[float] | None = None,
    rule: Rule = "lowest",
    shares: Sequence[float] = SHARES,
    batches: int = 4,
    batch_size: int = 32,
    beta: float = 0.1,
    seed: int = 0,
    batch_tokens: int = 4096,
    tell: Tell | None = None,
) -> Responses:
    """Take a step for the objective from each of its batches, see what it does to every task, and take it back.

    Of each distinct prompt of the objective one example is used, so that what is held out was in no batch. The weights that need a gradient are stepped; they are the same
    to the last bit afterwards, whatever happens.

    Args:
        model: of transformers, causal.
        objective: what the training would teach, in token ids: (prompt, answer), or (prompt, chosen, rejected) for the loss of DPO at its reference.
        tasks: (prompt, right answer) by name; answers as the objective ends them (with or without an end token).
        head: what alone makes logits from the last states (``Scorer.head``).
        directions: which to go along.
        steps: sizes at which tasks are measured; None for shares of what the rule chooses for each direction.
        rule: how a size is chosen.
        shares: of it, where tasks are measured.
        batches: of the objective, disjoint.
        batch_size: examples, or pairs, of each.
        beta: of DPO's loss.
        seed: of what falls into which batch.
        batch_tokens: of a forward pass, padding included.
        tell: called with (what is done, how much of it, of how much), if given.

    Raises:
        InputError: if examples are too few, empty or too long, weights cannot be stepped (frozen, quantised, in half precision), something is no number, or steps
            are none or not above 0; or if no step makes the loss fall on held-out examples.
    """
    _check_options(directions, steps, rule, batches, batch_size, beta)
    _check_tasks(tasks)
    drawn, held = _split(objective, batches, batch_size, seed)
    weights = _weights(model)
    aim = _Aim(len(held[0]) == 3, beta)
    reader = _Reader(model, head, batch_tokens)
    every = [example for examples in tasks.values() for example in examples]
    for examples, what in ((aim.sequences(objective), "the objective"), (every, "the tasks")):
        reader.check(examples, what)
    say: Tell = tell or _silent
    with _untouched(model, weights):
        lines = _lines(reader, aim, weights, drawn, held, directions, say)
        sizes = {
            name: np.asarray(steps, np.float64) if steps is not None else np.array(shares, np.float64) * chosen(lines[name], rule)
            for name in directions
        }
        return _responses(reader, aim, weights, drawn, tasks, lines, sizes, len(held), say)


def _silent(_what: str, _done: int, _total: int) -> None:
    pass


def chosen(line: Line, rule: Rule) -> float:
    """The step that a rule chooses, from the mean over batches.

    Raises:
        InputError: if there is none: the loss falls at no step, or still falls as the rule asks at the largest.
    """
    falls = line.start - line.losses.mean(axis=0)
    if rule == "lowest":
        at = int(falls.argmax()) if (falls > 0).any() else -1
    else:
        least = {"falling": 0.0, "half": 0.5, "nine-tenths": 0.9}[rule] * float(line.slopes.mean()) * line.steps
        enough = (falls > 0) & (falls >= least)
        at = (len(enough) if enough.all() else int(enough.argmin())) - 1
    if at < 0:
        raise InputError(
            f"no step from {line.steps[0]:.2g} to {line.steps[-1]:.2g} along the objective's gradient makes its loss fall on examples that were held out, as the rule "
            f"{rule!r} asks; give more examples of one kind and larger batches, or steps of your own"
        )
    if at == len(line.steps) - 1:
        raise InputError(
            f"the objective's loss still falls at the largest step that is tried ({line.steps[-1]:.2g}), so that the rule {rule!r} chooses none; take the rule 'half' (a preference can be pressed without end), or give steps of your own"
        )
    return float(line.steps[at])


def over_batches(values: FloatArray, level: float = 0.95) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Mean over B batches of the objective (B, ...), and the ends of its t interval; it is wide for few batches, and knows nothing of a task's own items.

    Raises:
        InputError: if there are fewer than two batches.
    """
    count = len(values)
    if count < 2:
        raise InputError(f"an interval over batches takes two of them or more; there is {count}")
    mean = values.mean(axis=0)
    half = values.std(axis=0, ddof=1) / np.sqrt(count) * float(student.ppf((1 + level) / 2, count - 1))
    return mean, mean - half, mean + half


# -- what was given ------------------------------------------------------------------------------------------------------------------


def _check_options(
    directions: Sequence[Direction], steps: Sequence[float] | None, rule: Rule, batches: int, batch_size: int, beta: float
) -> None:
    for name in directions:
        if name not in DIRECTIONS:
            raise InputError(f"no direction {printable(repr(name))}; allowed: {', '.join(DIRECTIONS)}")
    if not directions or len(set(directions)) != len(directions):
        raise InputError(f"name one direction or several different ones; allowed: {', '.join(DIRECTIONS)}")
    if rule not in RULES:
        raise InputError(f"no rule {printable(repr(rule))} for the step; allowed: {', '.join(RULES)}")
    if steps is not None and (not len(steps) or not all(np.isfinite(step) and step > 0 for step in steps)):
        raise InputError(f"steps are numbers above 0; got {', '.join(f'{step:g}' for step in steps) or 'none'}")
    if batches < 1 or batch_size < _QUARTERS:
        raise InputError(f"the objective needs a batch or more of {_QUARTERS} examples or more; got {batches} of {batch_size}")
    if not (np.isfinite(beta) and beta > 0):
        raise InputError(f"beta is a number above 0; got {beta:g}")


def _check_tasks(tasks: Mapping[str, Sequence[Example]]) -> None:
    if not tasks:
        raise InputError("there is no task whose response could be measured; give one or more")
    if (empty := next((name for name, examples in tasks.items() if not len(examples)), None)) is not None:
        raise InputError(f"the task {printable(repr(empty))} has no examples; leave it out, or give some")


def _split(
    objective: Sequence[Example] | Sequence[Preference], batches: int, size: int, seed: int
) -> tuple[list[list[tuple[Tokens, ...]]], list[tuple[Tokens, ...]]]:
    """Disjoint batches, and held out one more or, where there is enough, half as many as are in all of them; every prompt once."""
    if len({len(one) for one in objective} - {2, 3}) or len({len(one) for one in objective}) > 1:
        raise InputError("the objective is of examples (prompt, answer) or of preferences (prompt, chosen, rejected), all of one kind")
    distinct: dict[Tokens, tuple[Tokens, ...]] = {}
    for one in objective:
        distinct.setdefault(one[0], one)
    need = (batches + 1) * size
    if len(distinct) < need:
        raise InputError(
            f"the objective has {len(distinct)} examples of different prompts, and {batches} batches of {size} with one more held out take {need}; give more, "
            "or ask for fewer or smaller batches"
        )
    every = list(distinct.values())
    order = np.random.default_rng(seed).permutation(len(every))[: batches * size + max(size, batches * size // 2)]
    mixed = [every[n] for n in order]
    return [mixed[k * size : (k + 1) * size] for k in range(batches)], mixed[batches * size :]


def _weights(model: Any) -> list[torch.nn.Parameter]:
    """Those that training would change."""
    weights = [p for p in model.parameters() if p.requires_grad and p.is_floating_point()]
    kind = printable(type(model).__name__)
    if getattr(model, "is_quantized", False):
        raise InputError(
            f"the weights of this {kind} are quantised, and no small step can be taken from them; load the model as it was before, with dtype=float32"
        )
    if not weights:
        raise InputError(
            f"all weights of this {kind} are frozen, so that there is no step to take; let those that training would change need a gradient"
        )
    if (half := next((p.dtype for p in weights if p.dtype not in (torch.float32, torch.float64)), None)) is not None:
        raise InputError(f"weights in {str(half).removeprefix('torch.')} round a small step away; load the model with dtype=float32")
    if not all(bool(torch.isfinite(p).all()) for p in weights):
        raise InputError(f"weights of this {kind} are no numbers: the file is broken, or training diverged")
    return weights


@contextmanager
def _untouched(model: Any, weights: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """A model in which dropout is off; its mode and its gradients are put back."""
    training = [module.training for module in model.modules()]
    gradients = [p.grad for p in weights]
    model.eval()
    try:
        yield
    finally:
        for p, gradient in zip(weights, gradients, strict=True):
            p.grad = gradient
        for module, was in zip(model.modules(), training, strict=True):
            module.training = was


# -- losses --------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Aim:
    """What is trained for: the loss of examples per token, or DPO's of pairs."""

    pairs: bool
    beta: float

    def sequences(self, some: Sequence[tuple[Tokens, ...]]) -> list[Example]:
        """(prompt, answer) of each; of pairs, chosen and rejected in turn."""
        return [(one[0], answer) for one in some for answer in one[1:]]

    def shares(self, some: Sequence[tuple[Tokens, ...]]) -> FloatArray:
        """What the loss falls by, to first order, as each sequence's log-probability rises by one nat."""
        if self.pairs:
            return np.tile([0.5, -0.5], len(some)) * self.beta / len(some)
        return _per_token(self.sequences(some))

    def losses(self, logprobs: FloatArray) -> FloatArray:
        """(M,) mean loss per pair; (M, E) log-probabilities of sequences, the first row before any step."""
        margins = logprobs[:, 0::2] - logprobs[:, 1::2]
        found: FloatArray = np.logaddexp(0, -self.beta * (margins - margins[0])).mean(axis=1)
        return found


def _per_token(examples: Sequence[Example]) -> FloatArray:
    return np.full(len(examples), 1 / sum(len(answer) for _, answer in examples))


# -- reading -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Batch:
    """(R, W) tokens and mask of some examples, and the N places from which their answers' tokens are predicted.

    Attributes:
        rows, at: (N,) where a place is. asked: (N,) the token that comes next. of: (N,) whose it is, among all examples.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    at: torch.Tensor
    asked: torch.Tensor
    of: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Read:
    """Of M moves and the base model before them, for E examples: sums over the tokens of an answer.

    Attributes:
        kl: (M, E). logprob: (M + 1, E). right: (M + 1, E) whether every token is the likeliest.
    """

    kl: FloatArray
    logprob: FloatArray
    right: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class _Reader:
    """A model and how it is read."""

    model: Any
    head: Any
    batch_tokens: int

    def check(self, examples: Sequence[Example], what: str) -> None:
        room = int(getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
        vocabulary = int(self.model.get_input_embeddings().weight.shape[0])
        for prompt, answer in examples:
            if not prompt or not answer:
                raise InputError(f"an example of {what} has no {'prompt' if not prompt else 'answer'}; leave it out")
            if len(prompt) + len(answer) > room:
                raise InputError(
                    f"an example of {what} has {len(prompt) + len(answer):,} tokens, and the model takes {room:,}; leave it out"
                )
            if not all(0 <= token < vocabulary for token in (*prompt, *answer)):
                raise InputError(f"an example of {what} has token ids that the model does not have; they go from 0 to {vocabulary - 1}")

    def batches(self, examples: Sequence[Example]) -> Iterator[_Batch]:
        """The longest first; of each batch the logits that are read are at most ``KEPT``, but for a single example."""
        places = KEPT // int(self.model.get_input_embeddings().weight.shape[0])
        order = sorted(range(len(examples)), key=lambda n: -sum(map(len, examples[n])))
        while order:
            width = sum(map(len, examples[order[0]]))
            asked = np.cumsum([len(examples[n][1]) for n in order])
            count = max(1, min(self.batch_tokens // width, int(np.searchsorted(asked, places, side="right"))))
            yield self._batch(examples, order[:count], width)
            order = order[count:]

    def _batch(self, examples: Sequence[Example], numbers: Sequence[int], width: int) -> _Batch:
        tokens = np.zeros((len(numbers), width), np.int64)
        mask = np.zeros((len(numbers), width), np.int64)
        rows: list[int] = []
        at: list[int] = []
        of: list[int] = []
        for row, number in enumerate(numbers):
            prompt, answer = examples[number]
            size = len(prompt) + len(answer)
            tokens[row, :size], mask[row, :size] = (*prompt, *answer), 1
            rows += [row] * len(answer)
            at += range(len(prompt) - 1, size - 1)
            of += [number] * len(answer)
        told, seen, row, place = (torch.from_numpy(np.asarray(x)).to(self.model.device) for x in (tokens, mask, rows, at))
        return _Batch(told, seen, row, place, told[row, place + 1], np.array(of, np.int64))

    def logits(self, batch: _Batch) -> torch.Tensor:
        """(N, V) in float32, or in float64 where the weights are."""
        inputs = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
        if self.head is None:
            return self.model(**inputs).logits[batch.rows, batch.at]
        return self.head(self.model.base_model(**inputs).last_hidden_state[batch.rows, batch.at])

    def gradient(self, weights: Sequence[torch.nn.Parameter], examples: Sequence[Example], shares: FloatArray) -> list[torch.Tensor]:
        """Of minus the log-probabilities of answers, each times its share, summed."""
        for p in weights:
            p.grad = None
        with torch.enable_grad():
            for batch in self.batches(examples):
                told = torch.log_softmax(self.logits(batch), dim=-1).gather(1, batch.asked[:, None])[:, 0]
                share = torch.from_numpy(shares[batch.of]).to(told)
                (-(told * share).sum()).backward()
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in weights]
        for p in weights:
            p.grad = None
        return found

    def read(self, moved: _Moved, examples: Sequence[Example], moves: Sequence[Move]) -> _Read:
        """What moves of the weights do to answers; the weights are back afterwards."""
        kl = np.zeros((len(moves), len(examples)))
        logprob = np.zeros((len(moves) + 1, len(examples)))
        wrong = np.zeros((len(moves) + 1, len(examples)), np.int64)
        with torch.no_grad():
            for batch in self.batches(examples):
                before = after = _Told(self.logits(batch))
                for number in range(len(moves) + 1):
                    if number:
                        moved.to(*moves[number - 1])
                        after = _Told(self.logits(batch))
                        np.add.at(kl[number - 1], batch.of, before.kl(after))
                    np.add.at(logprob[number], batch.of, after.logprob(batch.asked))
                    np.add.at(wrong[number], batch.of, after.misses(batch.asked))
                moved.back()
        return _Read(kl, logprob, wrong == 0)


class _Told:
    """Distributions over the vocabulary at N places, by logits (N, V) less the largest of each; these are overwritten.

    Normalised in float64: rounded to float32 the sums would drown the divergence of models that are close.
    """

    def __init__(self, logits: torch.Tensor) -> None:
        self.best = logits.argmax(dim=-1)
        self.logits = logits.sub_(logits.gather(1, self.best[:, None]))
        self.norm = self.logits.exp().sum(dim=-1, dtype=torch.float64).log()

    def logprob(self, asked: torch.Tensor) -> FloatArray:
        """(N,) of the tokens that come."""
        found: FloatArray = (self.logits.gather(1, asked[:, None])[:, 0].double() - self.norm).cpu().numpy()
        return found

    def misses(self, asked: torch.Tensor) -> npt.NDArray[np.int64]:
        """(N,) 1 where another token is likelier than the one that comes."""
        found: npt.NDArray[np.int64] = (self.best != asked).long().cpu().numpy()
        return found

    def kl(self, after: _Told) -> FloatArray:
        """(N,) KL(these || those)."""
        p = self.logits.exp()
        apart = (self.logits - after.logits).masked_fill_(p == 0, 0)
        sums = (p.mul_(apart)).sum(dim=-1, dtype=torch.float64) * (-self.norm).exp()
        return settle((sums - (self.norm - after.norm)).cpu().numpy())


# -- steps ---------------------------------------------------------------------------------------------------------------------------


class _Moved:
    """Weights that are moved along gradients and put back."""

    def __init__(self, weights: Sequence[torch.nn.Parameter], gradients: Sequence[_Gradient]) -> None:
        self.weights, self.gradients = weights, gradients

    def __enter__(self) -> Self:
        self.kept = [p.detach().clone() for p in self.weights]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.back()
        del self.kept

    def to(self, which: int, direction: Direction, step: float) -> None:
        """To a step down a direction from where they were kept."""
        with torch.no_grad():
            for number, (p, kept) in enumerate(zip(self.weights, self.kept, strict=True)):
                p.copy_(kept).sub_(self.gradients[which].part(direction, number), alpha=step)

    def back(self) -> None:
        """To where they were kept, to the last bit."""
        with torch.no_grad():
            for p, kept in zip(self.weights, self.kept, strict=True):
                p.copy_(kept)


@dataclass(frozen=True)
class _Gradient:
    """Of the objective's loss over a batch, weight by weight.

    Attributes:
        mean: itself. square: mean square of its quarters', each as of the whole loss; None where no direction needs it.
        scale: what gives it the length of its sign.
    """

    mean: list[torch.Tensor]
    square: list[torch.Tensor] | None
    scale: float

    @classmethod
    def of(
        cls, reader: _Reader, aim: _Aim, weights: Sequence[torch.nn.Parameter], some: Sequence[tuple[Tokens, ...]], squares: bool
    ) -> _Gradient:
        """Of a batch.

        Raises:
            InputError: if it is no number, or 0.
        """
        shares = aim.shares(some)
        if not squares:
            mean, square = reader.gradient(weights, aim.sequences(some), shares), None
        else:
            mean, square = [torch.zeros_like(p) for p in weights], [torch.zeros_like(p) for p in weights]
            each = len(shares) // len(some)
            for quarter in np.array_split(np.arange(len(some)), _QUARTERS):
                part = slice(each * quarter[0], each * (quarter[-1] + 1))
                for m, s, g in zip(mean, square, reader.gradient(weights, aim.sequences(some)[part], shares[part]), strict=True):
                    m.add_(g)
                    s.addcmul_(g, g, value=_QUARTERS)
        length = _dot(mean, mean) ** 0.5
        if not np.isfinite(length):
            raise InputError("the gradient of the objective is no number (an overflow, or broken weights); there is no step to take")
        if length == 0:
            raise InputError("the gradient of the objective is 0 in every weight; there is no step to take")
        moved = sum(int(torch.count_nonzero(g)) for g in mean)
        return cls(mean, square, moved**0.5 / length)

    def part(self, direction: Direction, number: int) -> torch.Tensor:
        """The direction, of one of the weights."""
        mean = self.mean[number]
        if direction == "sign":
            return mean.sign()
        if direction == "plain" or self.square is None:
            return mean * self.scale
        # By Cauchy and Schwarz nothing here is beyond 1.
        return mean / self.square[number].sqrt().clamp_min(torch.finfo(mean.dtype).tiny)

    def fall(self, direction: Direction, other: Sequence[torch.Tensor]) -> float:
        """What a loss with this gradient falls by per unit of a step, to first order."""
        return sum(_one_dot(self.part(direction, number), g) for number, g in enumerate(other))


def _dot(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> float:
    return sum(_one_dot(x, y) for x, y in zip(a, b, strict=True))


def _one_dot(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a * b).sum(dtype=torch.float64))


# -- all of it -----------------------------------------------------------------------------------------------------------------------


def _lines(
    reader: _Reader,
    aim: _Aim,
    weights: Sequence[torch.nn.Parameter],
    drawn: Sequence[Sequence[tuple[Tokens, ...]]],
    held: Sequence[tuple[Tokens, ...]],
    directions: Sequence[Direction],
    tell: Tell,
) -> dict[Direction, Line]:
    """What steps do to the objective where it was held out, by direction."""
    examples, shares = aim.sequences(held), aim.shares(held)
    moves: list[Move] = [(0, name, step) for name in directions for step in GRID]
    losses, slopes = np.zeros((len(drawn), len(directions), len(GRID))), np.zeros((len(drawn), len(directions)))
    start = 0.0
    for number, some in enumerate(drawn):
        tell("steps for the objective", number, len(drawn))
        gradient = _Gradient.of(reader, aim, weights, some, "adam" in directions)
        of_held = reader.gradient(weights, examples, shares)
        slopes[number] = [gradient.fall(name, of_held) for name in directions]
        del of_held
        with _Moved(weights, [gradient]) as moved:
            logprob = reader.read(moved, examples, moves).logprob
        found = aim.losses(logprob) if aim.pairs else -logprob @ shares
        start = float(found[0])
        losses[number] = found[1:].reshape(losses.shape[1:])
    tell("steps for the objective", len(drawn), len(drawn))
    if not np.isfinite(start):
        raise InputError("the model's log-probabilities of the objective's answers are no numbers (broken weights?)")
    losses[~np.isfinite(losses)] = np.inf
    return {name: Line(np.array(GRID), start, losses[:, k], slopes[:, k]) for k, name in enumerate(directions)}


def _responses(
    reader: _Reader,
    aim: _Aim,
    weights: Sequence[torch.nn.Parameter],
    drawn: Sequence[Sequence[tuple[Tokens, ...]]],
    tasks: Mapping[str, Sequence[Example]],
    lines: Mapping[Direction, Line],
    sizes: Mapping[Direction, FloatArray],
    held: int,
    tell: Tell,
) -> Responses:
    names, directions = list(tasks), list(lines)
    moves = [(name, float(step)) for name in directions for step in sizes[name]]
    shape = len(drawn), len(names)
    kl, change = np.zeros((*shape, len(moves))), np.zeros((*shape, len(moves)))
    right, logprob = np.zeros((*shape, len(moves) + 1)), np.zeros(shape)
    slopes, cosines, norms = np.zeros((*shape, len(directions))), np.zeros(shape), np.zeros(shape)
    at_once = max(1, GRADIENTS // (sum(p.numel() * p.element_size() for p in weights) * (2 if "adam" in directions else 1)))
    for begin in range(0, len(drawn), at_once):
        some = range(begin, min(begin + at_once, len(drawn)))
        gradients = [_Gradient.of(reader, aim, weights, drawn[b], "adam" in directions) for b in some]
        lengths = [_dot(g.mean, g.mean) ** 0.5 for g in gradients]
        every = [(k, direction, step) for k in range(len(some)) for direction, step in moves]
        for t, name in enumerate(names):
            tell("responses of tasks", begin * len(names) + t * len(some), len(drawn) * len(names))
            shares = _per_token(tasks[name])
            of_task = reader.gradient(weights, tasks[name], shares)
            norm = _dot(of_task, of_task) ** 0.5
            for b, gradient, length in zip(some, gradients, lengths, strict=True):
                slopes[b, t] = [gradient.fall(direction, of_task) for direction in directions]
                norms[b, t] = norm
                cosines[b, t] = _dot(of_task, gradient.mean) / (length * norm) if norm else 0.0
            del of_task
            with _Moved(weights, gradients) as moved:
                found = reader.read(moved, tasks[name], every)
            told, rights, apart = found.logprob @ shares, found.right.mean(axis=1), found.kl @ shares
            for k, b in enumerate(some):
                own = slice(k * len(moves), (k + 1) * len(moves))
                kl[b, t], logprob[b, t], change[b, t] = apart[own], told[0], told[1:][own] - told[0]
                right[b, t] = [rights[0], *rights[1:][own]]
    tell("responses of tasks", len(drawn) * len(names), len(drawn) * len(names))
    _check_numbers(names, moves, kl, change, norms, slopes)
    along = {}
    for k, direction in enumerate(directions):
        at = slice(begin := sum(len(sizes[name]) for name in directions[:k]), begin + len(sizes[direction]))
        of = {"kl": kl[..., at], "change": change[..., at], "right": right[..., 1:][..., at]}
        along[direction] = Along(
            lines[direction], sizes[direction], **{key: np.moveaxis(x, 2, 1) for key, x in of.items()}, slopes=slopes[..., k]
        )
    return Responses(tuple(names), logprob[0], right[0, :, 0], norms[0], cosines, along, held)


def _check_numbers(
    names: Sequence[str],
    moves: Sequence[tuple[Direction, float]],
    kl: FloatArray,
    change: FloatArray,
    norms: FloatArray,
    slopes: FloatArray,
) -> None:
    for t, name in enumerate(names):
        if not (np.isfinite(norms[:, t]).all() and np.isfinite(slopes[:, t]).all()):
            raise InputError(f"the gradient of the task {printable(repr(name))} is no number (an overflow, or broken weights)")
        broken = ~np.isfinite(kl[:, t] + change[:, t]).all(axis=0)
        if broken.any():
            direction, step = moves[int(broken.argmax())]
            raise InputError(
                f"after a step of {step:g} ({direction}) the model's log-probabilities for the task {printable(repr(name))} are no numbers; give smaller steps"
            )
