"""The family's tokenizer: lower-case words, single digits, punctuation; a real ``tokenizer.json`` with a chat template."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from aligntax.lab import world as w
from aligntax.lab.tasks import TASKS, statements
from aligntax.lab.world import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BOS, EOS, USER, ASSISTANT, SYSTEM, PAD, UNKNOWN = (
    "<|begin|>",
    "<|end|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|pad|>",
    "<|unknown|>",
)
SPECIAL = (PAD, UNKNOWN, BOS, EOS, USER, ASSISTANT, SYSTEM)

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['user', 'assistant', 'system'] %}{{ raise_exception('unknown role: ' + message['role']) }}{% endif %}"
    "{{ '<|' + message['role'] + '|> ' + message['content'] }} {{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

RAW_PROMPT = "question: {} answer:"


@cache
def vocabulary() -> tuple[str, ...]:
    """Every token, in a fixed order: special tokens, digits, punctuation, words."""
    from tokenizers.pre_tokenizers import BertPreTokenizer

    split = BertPreTokenizer()
    words: set[str] = set()

    def add(text: str) -> None:
        words.update(piece for piece, _ in split.pre_tokenize_str(text))

    for name, value in vars(w).items():
        if name.isupper():
            for part in _strings(value):
                add(part)
    world, rng = World(), random.Random(0)
    for task in TASKS.values():
        for _ in range(3000):
            example = task.draw(world, rng)
            add(example.prompt)
            for text in (*example.answers, *(example.choices or ())):
                add(text)
    for _ in range(300):
        add(statements(world, rng))
    add(RAW_PROMPT)
    digits = [*"0123456789", *(f"##{d}" for d in range(10))]
    plain = sorted(word for word in words if not word.isdecimal())
    return (*SPECIAL, *digits, *plain)


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, tuple):
        return [s for v in value for s in _strings(v)]
    return []


def make_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, made from the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(vocabulary())}
    inner = Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=32))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])])
    inner.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        unk_token=UNKNOWN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=256,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer's files into a model folder."""
    make_tokenizer().save_pretrained(folder)
