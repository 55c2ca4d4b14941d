"""Our models as a model of lm-eval (extra ``eval``): whatever lm-eval can ask, it can ask through this engine.

    import aligntax.models.lm_eval_model  # lm-eval finds models that are imported
    lm_eval.simple_evaluate(model="aligntax", model_args="pretrained=lab:base", tasks=["lab"])

A rolling log-likelihood counts every token of the text once, after a begin token. lm-eval's own ``hf`` model counts the begin token as
well where the tokenizer adds one, as if a text began twice; with ``add_bos_token=False`` the two agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from aligntax.core.asks import Failure, GenerateAsk, Generated, Message, Prompt, ScoreAsk, Scored
from aligntax.core.errors import AligntaxError, InputError, MissingExtraError
from aligntax.core.harness import begun, decoding
from aligntax.core.ids import digest, seed_of
from aligntax.core.words import printable
from aligntax.models.asks import Generates, Model, ScoresText
from aligntax.models.references import open_model, parse

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ImportError:
    raise MissingExtraError("lm-eval", "eval") from None

NAME = "aligntax"
_OPTIONS = ("dtype", "adapter", "tokenizer")


@register_model(NAME)
class AligntaxLM(LM):
    """One of our models, asked by lm-eval.

    Args:
        pretrained: a reference (``lab:base``, a folder, ``org/name``, ``api:URL#model``), or a model that is open already.
        device: ``auto``, ``cpu``, ``cuda``, ...; where an opened model computes is settled.
        dtype, adapter, tokenizer: options of the reference.
        batch_tokens: tokens of a batch; None for the engine's own number.
        concurrency: requests under way at an endpoint.
        batch_size, max_batch_size: lm-eval always says these; the engine fills its batches by tokens, and no answer depends on them.

    Raises:
        InputError: if the reference names no model, or the model cannot be had.
    """

    def __init__(
        self,
        pretrained: str | Model,
        device: str | None = None,
        dtype: str | None = None,
        adapter: str | None = None,
        tokenizer: str | None = None,
        batch_tokens: int | None = None,
        concurrency: int = 8,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        del batch_size, max_batch_size
        if unknown:
            raise InputError(
                f"no model argument {printable(min(unknown))!r}; allowed: pretrained, device, {', '.join(_OPTIONS)}, batch_tokens, concurrency"
            )
        if isinstance(pretrained, str):
            options = dict(zip(_OPTIONS, (dtype, adapter, tokenizer), strict=True))
            text = ",".join([pretrained, *(f"{name}={value}" for name, value in options.items() if value)])
            self.model = open_model(parse(text), device=device or "auto", batch_tokens=batch_tokens, concurrency=concurrency)
        else:
            self.model = pretrained
        self._device = device
        # lm-eval hands contexts back as bare texts; these are the ones that a chat template made.
        self._rendered: set[str] = set()
        self._spoken: dict[str, tuple[Message, ...]] = {}

    # -- conversations -------------------------------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as text by the model's own template; where only the endpoint can render it, its turns as JSON.

        Raises:
            RuntimeError: if there is no chat template, it refuses the messages, or an endpoint would have to go on with an answer.
        """
        turns = tuple((str(m["role"]), str(m["content"])) for m in chat_history)
        open_end = not add_generation_prompt and bool(turns) and turns[-1][0] == "assistant"
        try:
            text = begun(self.model.template, turns) if open_end else self.model.template(turns)
        except InputError as error:
            if open_end or not self._renders_itself(turns):
                raise RuntimeError(str(error)) from error
            text = json.dumps(turns)
            self._spoken[text] = turns
            return text
        self._rendered.add(text)
        return text

    def _renders_itself(self, turns: Sequence[Message]) -> bool:
        try:
            return self.model.chat(turns).text is None
        except InputError:
            return False

    @property
    def tokenizer_name(self) -> str:
        """What lm-eval keeps requests apart by."""
        return digest(dict(self.model.identity))[:16]

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template's source, for lm-eval's results; empty where only an endpoint knows it.

        Raises:
            RuntimeError: if one of several templates is asked for by name.
        """
        if isinstance(chat_template, str):
            raise RuntimeError(f"the model's own chat template is used; no other can be chosen by name ({chat_template})")
        own = getattr(getattr(self.model, "tokenizer", None), "chat_template", None)
        return own if chat_template and isinstance(own, str) else "" if chat_template else None

    def get_model_info(self) -> dict[str, Any]:
        """What lm-eval writes beside its results."""
        return {"model_name": self.model.name, "model_identity": dict(self.model.identity), "model_facts": dict(self.model.facts)}

    def _prompt(self, context: str) -> Prompt:
        if context in self._spoken:
            return self.model.chat(self._spoken[context])
        return self.model.templated(context) if context in self._rendered else self.model.raw(context)

    # -- lm-eval's three questions --------------------------------------------------------------------------------------------

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy decoding gives it) of every continuation.

        Raises:
            RuntimeError: with the reason of the first one that cannot be scored.
        """
        del disable_tqdm
        with _told():
            asks = [self.model.continuation(self._prompt(r.args[0]), r.args[1]) for r in requests]
            found = [(one.total, all(one.greedy)) for one in self._scored(asks)]
        self._keep("loglikelihood", requests, found)
        return found

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of every text as a whole.

        Raises:
            RuntimeError: if the model cannot cut texts into windows, or a window cannot be scored.
        """
        del disable_tqdm
        rolling = getattr(self.model, "rolling", None)
        if rolling is None:
            raise RuntimeError(f"{self.model.name} gives no rolling log-likelihoods: they need its tokenizer")
        with _told():
            windows = [list(rolling(r.args[0])) for r in requests]
            scored = iter(self._scored([ask for some in windows for ask in some]))
        found = [sum(next(scored).total for _ in some) for some in windows]
        self._keep("loglikelihood_rolling", requests, found)
        return found

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """A reply to every context.

        Raises:
            RuntimeError: on a generation setting that is not known here, or with the reason of the first reply that is missing.
        """
        del disable_tqdm
        if not isinstance(self.model, Generates):
            raise RuntimeError(f"{self.model.name} writes no answers")
        drawn: Counter[str] = Counter()
        with _told():
            asks = [self._write(r.args[0], r.args[1], drawn) for r in requests]
            found = [one.text for one in _in_order(self.model.generate(asks), len(asks), Generated)]
        self._keep("generate_until", requests, found)
        return found

    def _write(self, context: str, settings: Mapping[str, Any], drawn: Counter[str]) -> GenerateAsk:
        how = decoding(settings)
        # Each request has draws of its own; lm-eval repeats one to get several replies.
        key = json.dumps([context, sorted(settings.items())], default=str)
        drawn[key] += 1
        seed = seed_of(key, drawn[key])
        return GenerateAsk(self._prompt(context), how.max_tokens, how.temperature, how.top_p, how.stops, seed)

    def _scored(self, asks: Sequence[ScoreAsk]) -> list[Scored]:
        if not isinstance(self.model, ScoresText):
            raise RuntimeError(f"{self.model.name} gives no log-probabilities of given texts")
        return _in_order(self.model.score(asks), len(asks), Scored)

    def _keep(self, kind: str, requests: Sequence[Instance], found: Sequence[Any]) -> None:
        for request, one in zip(requests, found, strict=True):
            self.cache_hook.add_partial(kind, request.args, one)


@contextmanager
def _told() -> Iterator[None]:
    """lm-eval knows none of our errors."""
    try:
        yield
    except AligntaxError as error:
        raise RuntimeError(str(error)) from error


def _in_order(answers: Iterable[tuple[int, Any]], count: int, kind: type[Any]) -> list[Any]:
    found: list[Any] = [None] * count
    for at, answer in answers:
        found[at] = answer
    for answer in found:
        if not isinstance(answer, kind):
            raise RuntimeError(answer.why if isinstance(answer, Failure) else "the model gave no answer")
    return found


def command_line() -> None:
    """lm-eval's own command line, on the arguments of this process.

    Raises:
        InputError: if lm-eval refuses them.
    """
    from lm_eval.__main__ import cli_evaluate

    try:
        cli_evaluate()
    except ValueError as error:
        if isinstance(error, AligntaxError):
            raise
        raise InputError(f"lm-eval refuses this: {printable(' '.join(str(error).split()))[:300]}") from None
