"""The angle between safety and a task as a model's answers show it (imports torch): states are shifted, and both metrics are measured.

**What is measured.** In the plane of the direction of a task c and the safety direction v, e1 = c and e2 = the rest of v (both of length 1), the states of one
layer are shifted by delta(phi) = B (cos phi e1 + sin phi e2), one vector at every place from which the answer is predicted (``reading``). At every phase and budget
the *same* shift meets both metrics, each on its own prompts: the mean log-odds of the right answer's tokens for the task, and for safety those of the wanted
answer less those of the unwanted one (the wanted one's alone where no other is given), means over tokens. Values are changes against no shift.

**What is compared with what.** Three angles of safety less the task, in that plane:

- ``behaviour``: what the sweep shows (``stats.phases``), at budgets above 0.
- ``linear``: the mean gradients of both metrics at no shift, on the same prompts, as they fall into the plane. Behaviour comes to it as B goes to 0, whatever v
  and c are: that is calculus, and checks the measurement. What is left at the budgets of the sweep (``turned``) is curvature of an odd order.
- ``represented``: the corrected angle between the directions that were given, from other prompts. That behaviour shows it is what the theory says, and it can fail
  (``agreement``).

A linear metric answers to a shift by its *gradient*. Where v is the mean gradient of the safety metric (``metric_gradients``), the theory and calculus say the same, and
agreement tests curvature, and that the prompts of the directions tell of those of the sweep. Where v is a difference of *mean states* it is a direction of states, not a
gradient: that safety answers along it, and along nothing else in the plane, is an assumption about the model. Where agreement fails and ``turned`` is small it is this
assumption that fails; where ``turned`` is as large as the disagreement the shifts were too long.

**Directions with noise.** The plane is that of the directions as estimated, and what is left of two true gradients in it does not have their angle: with rho the corrected
cosine and G the Gram matrix [[1/r_C, rho], [rho, 1/r_S]] of the estimates (r their reliabilities), the cosine in the plane is a'G^-1 b/sqrt(a'G^-1 a b'G^-1 b) for
a = (1, rho), b = (rho, 1). For rho = .5 that is the angle 60 degrees with reliabilities of 1, but 57 with .9 and 50 with 2/3. So ``agreement`` is with this (``expected``), and the
prompts of the sweep must be others than those of the directions. The intervals of the difference cover .93 to .97 in simulations with reliabilities of .75 to .9, though
``expected`` is then a degree or two off; near 0 and 180 degrees errors are no more than a guess.

**Budgets.** The unit is the mean length of the layer's states where they are shifted. The largest budget is the largest of 1/5, 1/10, ..., 1/320 of it at which the second
harmonic is at most a tenth of the first (``MAX_CURVATURE``) in both metrics, by 8 phases on the first 32 prompts; the sweep then goes over it, its half and its quarter.
The choice looks at even orders only, and at no angle, so that it does not choose agreement. Where not even the last is small enough it is taken, and
``behaviour.budgets`` says so. Shares of a shared unit rather than one length for all: planes differ in how curved they are.

A sweep of P prompts takes (3 K + 1) passes over each answer, that is 73 with 24 phases, of safety once more for every task. Nothing is kept but values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import acos, atan2, pi, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import stdtr

from aligntax.core.errors import InputError
from aligntax.core.words import cut, printable
from aligntax.predict.reading import gradients
from aligntax.predict.response import KEPT
from aligntax.stats.directions import CrossFit
from aligntax.stats.paired import critical_value
from aligntax.stats.phases import (
    MAX_CURVATURE,
    MIN_BUDGETS,
    MIN_PHASES,
    MIN_PROMPTS,
    MIN_Z,
    Agreement,
    BehaviouralAngle,
    agrees,
    behavioural_angle,
)

FloatArray = npt.NDArray[np.float64]
Tokens = tuple[int, ...]
Example = tuple[Tokens, Tokens]
Told = tuple[Tokens, Tokens, Tokens | None]
"""(prompt, wanted, unwanted) in token ids; the last None where nobody says it."""
Tell = Callable[[str, int, int], None]

SHARES = tuple(0.2 / 2**k for k in range(7))
"""Largest budgets that are tried, in mean lengths of a state."""
_FACTORS = (0.25, 0.5, 1.0)
_PILOT_PROMPTS = 32
_PILOT_PHASES = 8
_COLLINEAR = 1e-4
"""Sine below which two directions make no plane: what is left is rounding of float32."""


# -- a shift ---------------------------------------------------------------------------------------------------------------------


@dataclass
class Shift:
    """What is added to the states of a layer in the passes that follow; set it between them.

    Attributes:
        places: (rows, positions) of the states of a pass that are shifted, (N,) each; None for none.
        by: (D,) what is added; None for nothing.
        seen: (N, D) the states at the places in the last pass, before anything was added.
    """

    places: tuple[torch.Tensor, torch.Tensor] | None = None
    by: torch.Tensor | None = None
    seen: torch.Tensor | None = None

    def added(self, states: torch.Tensor) -> torch.Tensor:
        """(R, W, D) states with the shift."""
        if self.places is None:
            return states
        self.seen = states[self.places].detach()
        if self.by is None:
            return states
        return states.index_put(self.places, self.by.to(states).expand(len(self.places[0]), -1), accumulate=True)


@contextmanager
def shifted(model: Any, layer: int) -> Iterator[Shift]:
    """Shift the states of a layer of a model, as long as the context lasts.

    Args:
        model: of transformers, causal.
        layer: 0 for what goes into the first block, l for what block l gives, the last for what the output layer reads (after the final norm).

    Raises:
        InputError: if there is no such layer, or the model's blocks are not found.
    """
    shift = Shift()
    deep = int(model.config.get_text_config().num_hidden_layers)
    if not 0 <= layer <= deep:
        raise InputError(f"a layer lies between 0 (the embeddings) and {deep} in this {_kind(model)}; got {layer}")
    if layer == deep and model.base_model is not model:
        hook = model.base_model.register_forward_hook(lambda _module, _given, made: _changed(made, shift))
    elif layer == deep:
        raise InputError(f"this {_kind(model)} has no part that ends with its last states; choose a layer below {deep}")
    elif layer == 0:
        hook = _blocks(model, deep)[0].register_forward_pre_hook(
            lambda _module, given, named: _given(given, named, shift), with_kwargs=True
        )
    else:
        hook = _blocks(model, deep)[layer - 1].register_forward_hook(lambda _module, _given, made: _changed(made, shift))
    try:
        yield shift
    finally:
        hook.remove()


def _blocks(model: Any, deep: int) -> Any:
    """The list of the model's blocks: the one list of as many modules as it has layers that lies in no other."""
    found: dict[str, Any] = {}
    for name, module in model.base_model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == deep and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = module
    if len(found) != 1:
        told = f"{len(found)} lists of {deep} modules ({cut(printable(', '.join(found)), 100)})" if found else f"no list of {deep} modules"
        raise InputError(
            f"the blocks of this {_kind(model)} are not known: it has {told}, and one is needed to shift the states between them"
        )
    return next(iter(found.values()))


def _given(given: tuple[Any, ...], named: dict[str, Any], shift: Shift) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A block's arguments with its states shifted."""
    if given:
        return (shift.added(given[0]), *given[1:]), named
    return given, {**named, "hidden_states": shift.added(named["hidden_states"])}


def _changed(made: Any, shift: Shift) -> Any:
    """What a module gave, with its states shifted."""
    if isinstance(made, torch.Tensor):
        return shift.added(made)
    if isinstance(made, tuple):
        return (shift.added(made[0]), *made[1:])
    made.last_hidden_state = shift.added(made.last_hidden_state)
    return made


def _kind(model: Any) -> str:
    return printable(type(model).__name__)


# -- metrics ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Metric:
    """A metric of E examples, made of the mean log-odds of S answers.

    Attributes:
        name: for people.
        answers: (prompt, answer) in token ids.
        of: (S,) whose an answer is.
        signs: (S,) 1 for what is wanted, -1 for what is not.
    """

    name: str
    answers: list[Example]
    of: npt.NDArray[np.int64]
    signs: FloatArray

    @classmethod
    def made(cls, model: Any, name: str, examples: Sequence[Told]) -> _Metric:
        """Of examples.

        Raises:
            InputError: if there are too few, or one is empty, too long, or of tokens that the model does not have.
        """
        if len(examples) < MIN_PROMPTS:
            raise InputError(
                f"{name} has {len(examples)} prompts, and a sweep takes {MIN_PROMPTS} or more, and some dozens for a narrow interval"
            )
        room = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**31)
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        parts = [
            (prompt, answer, n, sign)
            for n, (prompt, *said) in enumerate(examples)
            for answer, sign in zip(said, (1.0, -1.0), strict=False)
            if answer is not None
        ]
        for prompt, answer, n, _ in parts:
            if not prompt or not answer:
                raise InputError(f"example {n + 1} of {name} has no {'answer' if prompt else 'prompt'}; leave it out")
            if len(prompt) + len(answer) > room:
                raise InputError(
                    f"example {n + 1} of {name} has {len(prompt) + len(answer):,} tokens, and the model takes {room:,}; leave it out"
                )
            if not all(0 <= token < vocabulary for token in (*prompt, *answer)):
                raise InputError(
                    f"example {n + 1} of {name} has token ids that the model does not have; they go from 0 to {vocabulary - 1}"
                )
        return cls(
            name,
            [(prompt, answer) for prompt, answer, _, _ in parts],
            np.array([n for _, _, n, _ in parts]),
            np.array([sign for *_, sign in parts]),
        )

    @property
    def count(self) -> int:
        return int(self.of[-1]) + 1

    def first(self, count: int) -> _Metric:
        """The first examples."""
        keep = self.of < count
        return _Metric(self.name, [one for one, kept in zip(self.answers, keep, strict=True) if kept], self.of[keep], self.signs[keep])


@dataclass(frozen=True)
class _Reader:
    """A model and how it is read at one layer."""

    model: Any
    layer: int
    head: Any
    batch_tokens: int

    def changes(self, metric: _Metric, shifts: FloatArray, tell: Callable[[int, int], None] | None = None) -> tuple[FloatArray, float]:
        """((E, S) changes of a metric by (S, D) shifts, in nats per token; mean length of the states that were shifted).

        Raises:
            InputError: if a change is no number.
        """
        out = np.zeros((metric.count, len(shifts)))
        lengths, places, done = 0.0, 0, 0
        vectors = torch.from_numpy(shifts).to(self.model.dtype).to(self.model.device)
        with torch.inference_mode(), shifted(self.model, self.layer) as shift:
            for numbers in self._batches(metric.answers):
                batch = _Batch.made([metric.answers[n] for n in numbers], self.model.device)
                shift.places, shift.by = (batch.rows, batch.at), None
                base = self._log_odds(batch)
                assert shift.seen is not None  # noqa: S101 - the layer has just been read
                lengths += float(shift.seen.float().norm(dim=-1).sum())
                places += len(batch.at)
                own = np.empty((len(numbers), len(shifts)))
                for k, shift.by in enumerate(vectors):
                    own[:, k] = self._log_odds(batch) - base
                np.add.at(out, metric.of[numbers], metric.signs[numbers, None] * own)
                done += len(numbers)
                if tell is not None:
                    tell(done, len(metric.answers))
        if not np.isfinite(out).all():
            length = np.linalg.norm(shifts, axis=1)[~np.isfinite(out).all(axis=0)].min()
            raise InputError(
                f"after a shift of {length:.3g} of the states at layer {self.layer} the log-odds of {metric.name} are no numbers; give smaller budgets, or load the "
                "model with dtype=float32"
            )
        return out, lengths / places

    def slopes(self, metric: _Metric, axes: FloatArray | None, tell: Callable[[int, int], None] | None = None) -> FloatArray:
        """(E, A) gradients of a metric along (A, D) axes, in nats per token and unit of the state; (E, D) along none."""
        out: FloatArray | None = None
        done = 0
        for batch in gradients(self.model, metric.answers, head=self.head, batch_tokens=self.batch_tokens):
            own = batch.gradients[:, self.layer].astype(np.float64)
            own = own if axes is None else own @ axes.T
            out = np.zeros((metric.count, own.shape[1])) if out is None else out
            np.add.at(out, metric.of[batch.numbers], metric.signs[batch.numbers, None] * own)
            done += len(own)
            if tell is not None:
                tell(done, len(metric.answers))
        assert out is not None  # noqa: S101 - there are examples
        return out

    def _batches(self, answers: Sequence[Example]) -> Iterator[list[int]]:
        """The longest first; of each batch the logits that are read are at most ``KEPT``, but for a single answer."""
        places = KEPT // int(self.model.get_input_embeddings().weight.shape[0])
        order = sorted(range(len(answers)), key=lambda n: -sum(map(len, answers[n])))
        while order:
            read = np.cumsum([len(answers[n][1]) for n in order])
            fit = min(self.batch_tokens // sum(map(len, answers[order[0]])), int(np.searchsorted(read, places, side="right")))
            yield order[: max(1, fit)]
            order = order[max(1, fit) :]

    def _log_odds(self, batch: _Batch) -> FloatArray:
        """(R,) mean log-odds of the answers' tokens."""
        inputs = {"input_ids": batch.tokens, "attention_mask": batch.mask, "use_cache": False}
        if self.head is None:
            logits = self.model(**inputs).logits[batch.rows, batch.at]
        else:
            logits = self.head(self.model.base_model(**inputs).last_hidden_state[batch.rows, batch.at])
        logits = logits if logits.dtype == torch.float64 else logits.float()
        right = batch.tokens[batch.rows, batch.at + 1][:, None]
        own = logits.gather(1, right)[:, 0]
        odds = (own - logits.scatter(1, right, -torch.inf).logsumexp(dim=-1)).cpu().double().numpy()
        found: FloatArray = np.bincount(batch.of, odds) / np.bincount(batch.of)
        return found


@dataclass(frozen=True)
class _Batch:
    """(R, W) tokens and mask of R answers behind their prompts, and the N places from which the answers' tokens are predicted.

    Attributes:
        rows, at: (N,) where a place is; the token that comes next is the answer's.
        of: (N,) the row again, as numpy counts.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    rows: torch.Tensor
    at: torch.Tensor
    of: npt.NDArray[np.int64]

    @classmethod
    def made(cls, answers: Sequence[Example], device: Any) -> _Batch:
        """Padded on the right."""
        width = max(sum(map(len, one)) for one in answers)
        tokens, mask = np.zeros((len(answers), width), np.int64), np.zeros((len(answers), width), np.int64)
        for row, (prompt, answer) in enumerate(answers):
            size = len(prompt) + len(answer)
            tokens[row, :size], mask[row, :size] = (*prompt, *answer), 1
        of = np.repeat(np.arange(len(answers)), [len(answer) for _, answer in answers])
        at = np.concatenate([np.arange(len(prompt) - 1, len(prompt) + len(answer) - 1) for prompt, answer in answers])
        told, seen, rows, places = (torch.from_numpy(x).to(device) for x in (tokens, mask, of, at))
        return cls(told, seen, rows, places, of)


def metric_gradients(
    model: Any, layer: int, examples: Sequence[Told], *, head: Any = None, batch_tokens: int = 4096, tell: Tell | None = None
) -> FloatArray:
    """(P, D) gradients of a metric, a row per example: what a safety direction is made from that a linear model answers to.

    Args:
        model: of transformers, causal, in evaluation mode.
        layer: 0 to the number of blocks.
        examples: (prompt, wanted, unwanted or None) in token ids; a task's are (prompt, right answer, None).
        head: what alone makes logits from the last states (``Scorer.head``).
        batch_tokens: of a pass, padding included.
        tell: progress: what, done, of how many.

    Raises:
        InputError: if there are too few examples, one is empty or too long, or a gradient is no number.
    """
    _check_model(model, layer)
    metric = _Metric.made(model, "the metric", examples)
    return _Reader(model, layer, head, batch_tokens).slopes(metric, None, _part(tell, "gradients"))


# -- the sweep -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Swept:
    """The plane of safety and one task: P prompts of safety, I items of the task, B budgets, K phases.

    Attributes:
        capability: the task's name.
        layer: where states were shifted.
        length: mean length of the states that were shifted.
        naive: angle between both directions as given, in radians.
        budgets: (B,) lengths of shifts. phases: (K,) radians.
        safety, values: (P, B, K) and (I, B, K) changes of the safety metric and of the task's, in nats per token.
        safety_slopes, slopes: (P, 2) and (I, 2) gradients along both axes of the plane at no shift, in nats per token and unit of the state.
    """

    capability: str
    layer: int
    length: float
    naive: float
    budgets: FloatArray
    phases: FloatArray
    safety: FloatArray
    values: FloatArray
    safety_slopes: FloatArray
    slopes: FloatArray


def sweep(
    model: Any,
    layer: int,
    safety_direction: npt.ArrayLike,
    capability_directions: npt.ArrayLike,
    safety_examples: Sequence[Told],
    capability_examples: Mapping[str, Sequence[Example]],
    *,
    head: Any = None,
    budgets: Sequence[float] | None = None,
    phases: int = 24,
    batch_tokens: int = 4096,
    tell: Tell | None = None,
) -> list[Swept]:
    """Go round the plane of safety and every task, and measure both metrics.

    Prompts are taken as independent: of those that share a template or a source give one. They should be others than those of the directions.

    Args:
        model: of transformers, causal, in evaluation mode.
        layer: 0 for the embeddings, l for what block l gives, the last for what the output layer reads.
        safety_direction: (D,) towards safety, of any length.
        capability_directions: (m, D), one per task.
        safety_examples: (prompt, wanted, unwanted or None) in token ids.
        capability_examples: (prompt, right answer) in token ids by task, in the order of their directions.
        head: what alone makes logits from the last states (``Scorer.head``).
        budgets: lengths of shifts, three and more, for all planes; None chooses them for each (module docstring).
        phases: evenly spaced.
        batch_tokens: of a pass, padding included.
        tell: progress: what, done, of how many.

    Raises:
        InputError: if directions do not fit the layer or make no plane, there are too few prompts, budgets or phases, an example is empty or too long, or the log-odds are
            no numbers.
    """
    _check_model(model, layer)
    given = _check_grid(budgets, phases)
    names = [f"the task {printable(repr(name))}" for name in capability_examples]
    planes, naive = _planes(model, safety_direction, capability_directions, names)
    safety = _Metric.made(model, "the safety objective", safety_examples)
    tasks = [
        _Metric.made(model, name, [(*one, None) for one in some]) for name, some in zip(names, capability_examples.values(), strict=True)
    ]
    reader = _Reader(model, layer, head, batch_tokens)
    phase = np.arange(phases) * 2 * pi / phases
    along = reader.slopes(safety, planes.reshape(-1, planes.shape[-1]), _part(tell, "gradients of safety")).reshape(safety.count, -1, 2)
    out = []
    for n, (name, task) in enumerate(zip(capability_examples, tasks, strict=True)):
        slopes = reader.slopes(task, planes[n], _part(tell, f"gradients of {printable(name)}"))
        sizes = _chosen(reader, planes[n], safety, task) if given is None else given
        grid = (sizes[:, None, None] * _circle(phase)).reshape(-1, 2) @ planes[n]
        s, one = reader.changes(safety, grid, _part(tell, f"safety in the plane of {printable(name)}"))
        c, two = reader.changes(task, grid, _part(tell, printable(name)))
        s, c = (x.reshape(-1, len(sizes), phases) for x in (s, c))
        out.append(Swept(name, layer, (one + two) / 2, float(naive[n]), sizes, phase, s, c, along[:, n], slopes))
    return out


def _part(tell: Tell | None, what: str) -> Callable[[int, int], None] | None:
    return None if tell is None else lambda done, total: tell(what, done, total)


def _circle(phases: FloatArray) -> FloatArray:
    """(K, 2)."""
    return np.column_stack([np.cos(phases), np.sin(phases)])


def _check_model(model: Any, layer: int) -> None:
    if model.training:
        raise InputError(
            "the model is in training mode, in which dropout would be taken for an effect of the shift; call its eval() before"
        )
    with shifted(model, layer):  # says what is wrong with the layer
        pass


def _check_grid(budgets: Sequence[float] | None, phases: int) -> FloatArray | None:
    if phases < MIN_PHASES:
        raise InputError(f"{phases} phases: a sweep takes {MIN_PHASES} or more")
    if budgets is None:
        return None
    sizes = np.asarray(budgets, np.float64)
    if (
        sizes.ndim != 1
        or len(np.unique(sizes)) != len(sizes)
        or len(sizes) < MIN_BUDGETS
        or not (np.isfinite(sizes).all() and (sizes > 0).all())
    ):
        raise InputError(
            f"budgets are {MIN_BUDGETS} different numbers or more, all above 0; got {', '.join(f'{b:g}' for b in sizes.ravel()) or 'none'}"
        )
    return sizes


def _planes(model: Any, safety: npt.ArrayLike, capabilities: npt.ArrayLike, names: Sequence[str]) -> tuple[FloatArray, FloatArray]:
    """((m, 2, D) axes of length 1: the task, and the rest of safety; (m,) angles between both directions)."""
    v, c = np.asarray(safety, np.float64), np.asarray(capabilities, np.float64)
    d = int(model.config.get_text_config().hidden_size)
    if v.shape != (d,) or c.shape != (len(names), d) or not len(names):
        raise InputError(
            f"the safety direction is a row of {d} numbers at a layer of this {_kind(model)}, and there is one such row for each of {len(names)} tasks, one or more; "
            f"found the shapes {v.shape} and {c.shape}"
        )
    for what, x in (("the safety direction", v), *((f"the direction of {name}", x) for name, x in zip(names, c, strict=True))):
        if not np.isfinite(x).all():
            raise InputError(f"{what} has {int(np.sum(~np.isfinite(x)))} values that are no numbers")
        if not x.any():
            raise InputError(f"{what} is zero, and spans no plane")
    v, c = v / np.linalg.norm(v), c / np.linalg.norm(c, axis=1, keepdims=True)
    rest = v - (c @ v)[:, None] * c
    rest -= np.sum(rest * c, axis=1, keepdims=True) * c  # once more: the first pass leaves rounding errors of the size of v
    sine = np.linalg.norm(rest, axis=1)
    if (flat := np.flatnonzero(sine <= _COLLINEAR)).size:
        raise InputError(
            f"the safety direction and that of {names[flat[0]]} lie on one line: they span no plane, and there is no angle to measure"
        )
    return np.stack([c, rest / sine[:, None]], axis=1), np.arctan2(sine, c @ v)


def _chosen(reader: _Reader, axes: FloatArray, safety: _Metric, task: _Metric) -> FloatArray:
    """Budgets for a plane (module docstring)."""
    pilot = safety.first(_PILOT_PROMPTS), task.first(_PILOT_PROMPTS)
    circle = _circle(np.arange(_PILOT_PHASES) * 2 * pi / _PILOT_PHASES) @ axes
    length = float(np.mean([reader.changes(metric, np.zeros((0, axes.shape[1])))[1] for metric in pilot]))
    for share in SHARES:
        waves = (np.abs(np.fft.rfft(reader.changes(metric, share * length * circle)[0].mean(axis=0))) for metric in pilot)
        if all(wave[2] <= MAX_CURVATURE * wave[1] for wave in waves):
            break
    sizes: FloatArray = np.array(_FACTORS) * share * length
    return sizes


# -- angles ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Represented:
    """The angle between a safety direction and a task's, as other prompts tell it.

    Attributes:
        cosine: corrected for noise. se: its standard error.
        safety_reliability, reliability: of the direction of safety and of the task as they were swept, above 0 to 1; 1 where a direction is known.
    """

    cosine: float
    se: float
    safety_reliability: float = 1.0
    reliability: float = 1.0


@dataclass(frozen=True)
class SweepResult:
    """Three angles of safety less a task, in radians (module docstring); None where not identified.

    Attributes:
        capability: the task's name.
        layer: where states were shifted.
        prompts, items: of safety and of the task.
        length: mean length of a state there. budgets: lengths of shifts.
        naive: angle between the directions as they were swept.
        behaviour: what the sweep shows.
        linear, linear_se: what gradients on the same prompts say of the plane.
        represented, represented_se: what the directions say, corrected for noise.
        expected, expected_se: what is left of that in the plane of directions with noise.
        agreement: of behaviour with ``expected``.
        turned: of behaviour with ``linear``, whose prompts are the same.
        reasons: why a number is missing.
    """

    capability: str
    layer: int
    prompts: int
    items: int
    length: float
    budgets: tuple[float, ...]
    naive: float
    behaviour: BehaviouralAngle
    linear: float | None
    linear_se: float | None
    represented: float | None
    represented_se: float | None
    expected: float | None
    expected_se: float | None
    agreement: Agreement | None
    turned: Agreement | None
    reasons: tuple[str, ...]


def represented(fit: CrossFit) -> list[Represented | None]:
    """What directions say, by capability; None of all where they are not identified."""
    if not fit.overlaps:
        return [None] * len(fit.capability_reliabilities)
    t = critical_value(fit.level, fit.blocks - 1)
    return [
        Represented(one.cosine, (one.high - one.low) / (2 * t), min(1.0, fit.reliability), min(1.0, float(reliability)))
        for one, reliability in zip(fit.overlaps, fit.capability_reliabilities, strict=True)
    ]


def angles(swept: Sequence[Swept], said: Sequence[Represented | None] | None = None, *, level: float = 0.95) -> list[SweepResult]:
    """What sweeps show, and whether directions said so.

    Args:
        swept: of one safety direction.
        said: what directions say, in the same order; None where they say nothing.
        level: confidence.

    Raises:
        InputError: if there are not as many of both, or what directions say is no cosine with an error.
    """
    known = [None] * len(swept) if said is None else said
    if len(known) != len(swept):
        raise InputError(f"{len(swept)} planes were swept and directions say something of {len(known)}; one is needed for each")
    return [_result(one, told, level) for one, told in zip(swept, known, strict=True)]


def _result(one: Swept, told: Represented | None, level: float) -> SweepResult:
    try:
        found = behavioural_angle(one.budgets, one.phases, one.safety, one.values, level=level)
    except ValueError as error:
        raise InputError(f"{printable(one.capability)}: {error}") from None
    reasons = [] if found.reason is None else [found.reason]
    linear = _linear(one)
    if linear is None:
        reasons.append(f"the gradient of a metric is less than {MIN_Z:g} standard errors long in this plane, and there is no linear angle")
    angle, expected = (None, None) if told is None else _expected(told)
    if told is None:
        reasons.append("the directions are not identified, or say nothing")
    elif angle is None:
        reasons.append(f"the corrected cosine between the directions is {told.cosine:.3g}, which no angle has")
    return SweepResult(
        capability=one.capability,
        layer=one.layer,
        prompts=len(one.safety),
        items=len(one.values),
        length=one.length,
        budgets=tuple(one.budgets.tolist()),
        naive=one.naive,
        behaviour=found,
        linear=None if linear is None else linear[0],
        linear_se=None if linear is None else linear[1],
        represented=None if angle is None else angle[0],
        represented_se=None if angle is None else angle[1],
        expected=None if expected is None else expected[0],
        expected_se=None if expected is None else expected[1],
        agreement=None if expected is None or found.angle is None else agrees(found, *expected, level),
        turned=None if linear is None or found.angle is None else _turned(one, level),
        reasons=tuple(reasons),
    )


def _expected(told: Represented) -> tuple[tuple[float, float] | None, tuple[float, float] | None]:
    """((angle, error) between the directions, the same in the plane of their estimates); None where the cosine has no angle."""
    numbers = (told.cosine, told.se, told.safety_reliability, told.reliability)
    if not np.isfinite(numbers).all() or told.se < 0 or not all(0 < r <= 1 for r in numbers[2:]):
        raise InputError(
            f"directions say a cosine, its error of 0 or more, and reliabilities above 0 to 1; got {', '.join(f'{x:g}' for x in numbers)}"
        )
    if abs(told.cosine) >= 1:
        return None, None
    step = 1e-4 * (1 - abs(told.cosine))
    up, down = (acos(_in_plane(told.cosine + h, *numbers[2:])) for h in (step, -step))
    slope = (up - down) / (2 * step)
    alone = acos(told.cosine), told.se / sqrt(1 - told.cosine**2)
    return alone, (acos(_in_plane(told.cosine, *numbers[2:])), abs(slope) * told.se)


def _in_plane(cosine: float, safety_reliability: float, reliability: float) -> float:
    """Cosine of two directions as they fall into the plane of their estimates."""
    gram = np.array([[1 / reliability, cosine], [cosine, 1 / safety_reliability]])
    both = np.array([[1.0, cosine], [cosine, 1.0]])
    products = both @ np.linalg.solve(gram, both)
    return float(np.clip(products[0, 1] / sqrt(products[0, 0] * products[1, 1]), -1, 1))


def _linear(one: Swept) -> tuple[float, float] | None:
    """Angle of the mean gradients in the plane, and its error; None where one is not told from 0."""
    phases, variance = [], 0.0
    for slopes in (one.safety_slopes, one.slopes):
        mean = slopes.mean(axis=0)
        length = float(np.hypot(*mean))
        if length == 0:
            return None
        errors = slopes @ np.column_stack([mean, (-mean[1], mean[0])]) / length
        along, around = errors.std(axis=0, ddof=1) / sqrt(len(slopes))
        if length < MIN_Z * along:
            return None
        phases.append(atan2(mean[1], mean[0]))
        variance += float(around / length) ** 2
    return _wrapped(phases[0] - phases[1]), sqrt(variance)


def _turned(one: Swept, level: float) -> Agreement:
    """Behaviour less gradients: by prompt, since both are of the same ones."""
    difference, variance = 0.0, 0.0
    for sign, values, slopes in ((1, one.safety, one.safety_slopes), (-1, one.values, one.slopes)):
        # The first harmonic of ``stats.phases``: phases are evenly spaced, and orthogonal to the others.
        first = np.einsum("pbk,b,kx->px", values, one.budgets, _circle(one.phases)) * 2 / (len(one.phases) * np.sum(one.budgets**2))
        pulls = []
        for x in (first, slopes):
            mean = x.mean(axis=0)
            pulls.append((x - mean) @ (-mean[1], mean[0]) / (mean @ mean))
        a, b = first.mean(axis=0), slopes.mean(axis=0)
        difference += sign * atan2(b[0] * a[1] - b[1] * a[0], a @ b)
        variance += float(np.var(pulls[0] - pulls[1], ddof=1)) / len(values)
    difference = _wrapped(difference)
    df, se = min(len(one.safety), len(one.values)) - 1, sqrt(variance)
    half = critical_value(level, df) * se
    p = float(2 * stdtr(df, -abs(difference) / se)) if se > 0 else float(difference == 0)
    return Agreement(difference, difference - half, difference + half, p)


def _wrapped(angle: float) -> float:
    """``angle`` in (-pi, pi]."""
    return pi - (pi - angle) % (2 * pi)
