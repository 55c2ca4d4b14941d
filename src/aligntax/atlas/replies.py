"""What a model replied when it was asked how similar two texts are: a rating, or the reason why there is none.

A strict parser. A value is always a number that stands in the reply, on the scale that was asked for: nothing is clipped, no middle of a range
is taken, no number on another scale is carried over. Where two readings are possible there is no value but a status; a missing rating can be
asked for again and counted, a wrong one is never found. The rules:

1. **What does not count**: think blocks (an end without a beginning ends one that the prompt began; a beginning without an end is a reply cut
   short), the number of the pair (``1: 0.47``, ``Pair 12: 0.47``), references (``text 1``), and the ends of the scale where it is merely
   mentioned (``on a scale from 0.00 to 1.00: 0.47``).
2. **One rating**: every other number that could be a rating on this scale makes the reply ``multiple``, or ``range`` where two are joined as
   one. The same number said twice is one. Numbers that could not be ratings stand aside (``0.47 because there are 2 sides``); with decimals
   asked for so do a bare 0 and 1 in running text (``0.47, as 1 of them says``), since a rating with decimals stands beside them. Among whole numbers
   nothing tells a count from a rating: ``4 because there are 2 sides`` is ``multiple`` on ``d9``.
3. **It has to be stated**: at the beginning of a line, after a colon or an equals sign, after a word such as ``is`` or ``score``, or, with decimals,
   at the end of a sentence; and a whole number has to end its line or be followed by a comma, a bracket or ``because``. ``There are 2 texts`` and
   ``1. Both are about law`` state no rating.
4. **A refusal takes its number with it**: where a reply says that it cannot or will not rate, score, judge, compare or give a number, a number beside it
   is flagged and not used. What else a model cannot do is no refusal: ``0.47 because I cannot see a difference`` is a rating, ``I cannot rate
   these as identical: 0.3`` is one, and ``0.5, but I cannot rate this`` is none. The position of the number settles nothing, the wording does.
   Without any stated number, an apology at the beginning and ``core.refusals.phrases`` count as well.
5. **A reply cut short** (``finish_reason`` length, or one not known) has a value only where the number opens the reply and a line break or the end
   of a sentence follows; ``0.4`` may have been about to become ``0.47`` or ``0.4 to 0.5``.
6. **Another scale is out of range**: ``8``, ``8/10`` and ``-0.20`` on 0.00 to 1.00, ``4.5`` on single digits. ``47%`` and ``47/100`` are hundredths in
   so many words and are read; ``0.47%``, and ``0.47`` or ``1.00`` where hundredths are asked for, may be meant on either scale, and are not.

Every step takes time linear in the length of the reply. Refusals are known in English, Chinese, Japanese, Korean, Spanish, Portuguese,
French, Italian, German, Russian, Arabic and Hindi; in other languages they are ``nonnumeric``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import lru_cache
from itertools import islice, pairwise
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Literal, get_args

from aligntax.core.errors import InputError
from aligntax.core.refusals import phrases
from aligntax.core.words import printable

_SHORT = 200
"""Characters of replies whose reading is kept."""

PARSER = "1"
"""Version of the rules, kept beside every value that they made."""

Scale = Literal["dec2", "d9", "pct"]
"""``dec2``: 0.00 to 1.00. ``d9``: one digit, 0 to 9. ``pct``: 0 to 100."""

Status = Literal["ok", "refusal", "empty", "truncated", "filtered", "nonnumeric", "range", "multiple", "out_of_range", "bad_json"]

TOP: Mapping[Scale, int] = {"dec2": 1, "d9": 9, "pct": 100}
"""The upper end of each scale; the lower one is 0."""

FLAGS: Mapping[str, str] = {
    "approximate": "the number is said to be approximate",
    "comma": "a comma is its decimal mark",
    "cut": "the reply was cut short after the rating",
    "extra_text": "more than the number was written",
    "finish_unknown": "why the reply ended is not known, so it may be cut short",
    "hedged_number": "a number stands beside the refusal, and was not used",
    "index": "the number of a pair stands before the rating",
    "json": "the rating came as JSON",
    "low_precision": "a whole number where decimals were asked for",
    "missing": "the list has no line of this pair",
    "odd_number": "a number that cannot be read for certain",
    "other_numbers": "other numbers were written that are no ratings",
    "other_scale": "a number on another scale",
    "outside_text": "text outside the list has numbers that could be ratings",
    "percent": "written in percent",
    "ratio": "written as out of the end of the scale, or of 100",
    "repeated": "the same rating was written twice",
    "scale_echo": "the ends of the scale are mentioned",
    "scale_unclear": "may be meant on 0 to 1 or on 0 to 100",
    "think": "a think block was left out",
    "unknown_pairs": "the list has pairs that were not asked about",
    "unnumbered": "the numbers of the list say not which pairs they are of",
}
"""Every flag and what it means."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply says about one pair.

    Attributes:
        value: the rating from 0 to 1: the number written, by the end of the scale (n/9 of a digit, n/100 of hundredths); None unless ``ok``.
        status: ``ok``, or why there is no value.
        flags: what is remarkable, sorted; see ``FLAGS``.
        span: where the number stands in the reply, from and to, with its percent sign or what it is out of; None where there is no value.
    """

    value: float | None
    status: Status
    flags: tuple[str, ...] = ()
    span: tuple[int, int] | None = None


def read(text: str | None, scale: Scale, *, finish_reason: str | None = "stop", refusal: str | None = None) -> Reading:
    """The rating in the reply to a question about one pair.

    Args:
        text: the reply as it came; None where the server sent none.
        scale: what was asked for.
        finish_reason: why the reply ended, as the server says; None where it does not.
        refusal: the refusal that some servers send beside the text.

    Raises:
        InputError: on a scale that there is not.
    """
    if text is None or len(text) > _SHORT:
        return _read(text, scale, finish_reason, refusal)
    return _kept(text, scale, finish_reason, refusal)


def _read(text: str | None, scale: Scale, finish_reason: str | None, refusal: str | None) -> Reading:
    opened = _open(text, scale, finish_reason, refusal)
    if opened.settled is not None:
        return opened.settled
    found = _piece(opened.plain, 0, len(opened.plain), scale, cut=opened.cut)
    return _flagged(_of_one_script(text or "", found), opened.flags)


_kept = lru_cache(maxsize=20_000)(_read)
"""Most replies are a bare number, and there are few of these."""


def read_list(
    text: str | None, pairs: int, scale: Scale, *, finish_reason: str | None = "stop", refusal: str | None = None
) -> tuple[Reading, ...]:
    """The ratings in the reply to a question about a numbered list of pairs: ``1: 0.47``, one pair on a line.

    A pair's line, and what follows up to the next pair or an empty line, is read as the reply about one pair is. Nothing is matched by position: without
    numbers there are no ratings. A refusal outside the list withdraws every rating, unless it names pairs ("pair 3"): then it is theirs.

    Args:
        text: the reply as it came; None where the server sent none.
        pairs: how many were asked about; their numbers are 1 to ``pairs``.
        scale: what was asked for.
        finish_reason: why the reply ended, as the server says; None where it does not.
        refusal: the refusal that some servers send beside the text.

    Returns:
        One reading per pair, in order. A pair without a line is ``truncated`` if the reply was cut short, else ``refusal`` if a refusal stands
        outside the list, else ``empty`` with the flag ``missing``.

    Raises:
        InputError: on a scale that there is not, or less than one pair.
    """
    if pairs < 1:
        raise InputError(f"a list has at least one pair, got {pairs}")
    opened = _open(text, scale, finish_reason, refusal)
    if opened.settled is not None:
        return (opened.settled,) * pairs
    found = _listed(opened.plain, pairs, scale, cut=opened.cut)
    return tuple(_flagged(_of_one_script(text or "", one), opened.flags) for one in found)


# -- before the text -----------------------------------------------------------------------------------------------------------

_STOPPED = frozenset({None, "stop", "end_turn", "eos", "eos_token", "stop_sequence"})
_CUT = frozenset({"length", "max_tokens", "model_length", "max_output_tokens"})
_FILTERED = frozenset({"content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"})


@dataclass(frozen=True, slots=True)
class _Opened:
    """A reply before its numbers are read.

    Attributes:
        settled: the reading, where the server or an empty reply settles it.
        plain: the text without thoughts; its places are those of the reply.
        cut: short, for all that is known. flags: so far.
    """

    settled: Reading | None
    plain: str = ""
    cut: bool = False
    flags: tuple[str, ...] = ()


def _open(text: str | None, scale: Scale, finish_reason: str | None, refusal: str | None) -> _Opened:
    if scale not in TOP:
        raise InputError(f"{printable(repr(scale))[:60]} is no scale of ratings; there are {', '.join(get_args(Scale))}")
    reason = finish_reason.strip().lower() if finish_reason is not None else None
    if reason in _FILTERED:
        return _Opened(_none("filtered"))
    plain, thought = _without_thought(_normal(text or ""))
    if reason == "refusal" or (refusal is not None and refusal.strip()):
        hedged = plain is not None and any(n.role == "rating" for n in _numbers(plain, 0, len(plain), scale))
        return _Opened(_none("refusal", ["hedged_number"] if hedged else []))
    known = reason in _STOPPED or reason in _CUT
    cut = reason in _CUT or not known
    flags = (*(["think"] if thought else []), *([] if known else ["finish_unknown"]))
    if plain is None or (cut and not plain.strip(_NOTHING)):
        return _Opened(_none("truncated", flags))
    if not plain.strip(_NOTHING):
        return _Opened(_none("empty", flags))
    return _Opened(None, plain, cut, flags)


def _none(status: Status, flags: Iterable[str] = ()) -> Reading:
    return Reading(None, status, tuple(sorted(set(flags))))


def _flagged(found: Reading, flags: Iterable[str]) -> Reading:
    return replace(found, flags=tuple(sorted({*found.flags, *flags})))


# -- text, character by character: places stay what they are ----------------------------------------------------------------------

_SPACE = " \t\r\n\v\f\ufeff\u200b\u200e\u200f"
_NOTHING = _SPACE + "`*_#\"'"
_SIGNS = {
    "\u066b": ".", "\u066a": "%", "\u2044": "/", "\u2215": "/", "\u2212": "-", "\ufe63": "-", "\u2010": "-", "\u2011": "-",
    "\u3000": " ", "\xa0": " ", "\u202f": " ", "\u2009": " ", "\u2028": "\n", "\u2029": "\n", "\x85": "\n", "\r": " ", "\u2019": "'",
}  # fmt: skip


def _plain_character(ch: str) -> str:
    if ch in _SIGNS:
        return _SIGNS[ch]
    digit = unicodedata.decimal(ch, None)
    if digit is not None:
        return str(digit)
    return chr(ord(ch) - 0xFEE0) if "\uff01" <= ch <= "\uff5e" else ch


def _normal(text: str) -> str:
    """Digits of all scripts as ASCII, full-width forms and signs as their plain ones; one character for one."""
    if text.isascii():
        return text.replace("\r", " ")
    return text.translate({ord(ch): _plain_character(ch) for ch in set(text)})


def _of_one_script(text: str, found: Reading) -> Reading:
    """A number with digits of two scripts is not read: which of them was meant cannot be told."""
    if found.span is None:
        return found
    scripts = {ord(ch) - unicodedata.decimal(ch) for ch in text[slice(*found.span)] if ch.isdecimal()}
    return found if len(scripts) == 1 else _none("nonnumeric", {*found.flags, "odd_number"})


_THOUGHT = re.compile(
    r"<(/?)(?:[a-z]{1,12}:)?(?:think|thinking|thoughts?|reasoning|analysis|reflection|scratchpad)>|\[(/?)think\]|\u25c1(/?)think\u25b7",
    re.I,
)
_FENCE = re.compile(r"^[ \t]{0,8}```[ \t]{0,8}\w{0,20}[ \t]{0,8}$", re.M)
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,80}>")


def _blank(text: str, holes: Iterable[tuple[int, int]], last: str = " ") -> str:
    """The text with spaces for what stands in the holes, and ``last`` for the last character of each."""
    parts, at = [], 0
    for start, end in holes:
        parts += [text[at:start], " " * (end - start - 1), last]
        at = end
    return "".join([*parts, text[at:]])


def _without_thought(text: str) -> tuple[str | None, bool]:
    """The text with think blocks, code fences and tags blanked; None where a think block has no end. And whether there was one."""
    holes: list[tuple[int, int]] = []
    depth = begun = 0
    for tag in _THOUGHT.finditer(text):
        closes = "/" in (tag[1], tag[2], tag[3])
        if closes and depth == 0:
            holes = [(0, tag.end())]  # the prompt began it
        elif closes:
            depth -= 1
            if depth == 0:
                holes.append((begun, tag.end()))
        else:
            begun = tag.start() if depth == 0 else begun
            depth += 1
    if depth:
        return None, True
    plain = _blank(text, holes, "\n")  # the answer begins on a line of its own
    plain = _blank(plain, [m.span() for m in _FENCE.finditer(plain)])
    return _blank(plain, [m.span() for m in _TAG.finditer(plain)]), bool(holes)


# -- numbers -------------------------------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"\.?[0-9]++(?:[.,][0-9]++)*+")
_SHAPE = re.compile(r"(0|[1-9][0-9]*)?(?:([.,])([0-9]+))?")
_LONGEST = 40
"""Characters of a number: a longer one is nobody's rating."""
_MOST = 1000
"""Numbers in a reply: more of them answer no question about two texts."""
_LOOK = 80
"""Characters around a number that are looked at."""
_LABEL = 40
"""Characters of a label before the rating of a reply that was cut short."""

_MARKS = "*_`#\"'\u201c\u201d\u2018\u00ab\u00bb\u300c\u300d()[]{}|$\\"
_OPENERS = _MARKS + _SPACE + "~\u2248+-\u2013\u2014\u2022\u00b7"
_OF = re.compile(r"[ \t]{0,3}/[ \t]{0,3}|[ \t]{1,3}out of[ \t]{1,3}", re.I)
_PERCENT = re.compile(r"[ \t]{0,2}(?:%|per ?cent\b)", re.I)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.I)
_REFERENCE = re.compile(
    r"(?:\b(?:texts?|sentences?|statements?|passages?|pairs?|claims?|options?|items?|points?|paragraphs?|parts?|versions?|sides?|numbers?|no\.|nr\.|"
    r"text[eoi]s?|textos?|frases?|phrases?|paires?|par|sätze?|satz|aussagen?|paar|предложени[ея]|пар[аы])|текст|文本|句子|第|テキスト|文章|문장|텍스트|نص|पाठ|#)"
    r"[ \t]{0,3}#?[ \t*_]{0,4}$",
    re.I,
)
_DELIMITER = re.compile(r"[*_`)\]]{0,4}([:.)])[*_`]{0,4}([ \t]*)[*_`]{0,4}-?")
_RANGE = re.compile(
    r"[%\s]*(?:-+|\u2013|\u2014|~|\u301c|\u2026|\.\.+|\u00b1|\+/-|to|through|until|up to|and up to|bis|à|a|al|do|до|至|到|から|에서|إلى|से)\s*",
    re.I,
)
_AND = re.compile(r"[%\s]*(?:and|und|et|y|e|и|和|与|&|و|और)\s*", re.I)
_LIST = re.compile(
    r"[%\s]*(?:,|;|/|,? ?(?:or|and|oder|und|ou|et|o|y|e|или|и|或者?|和|または|또는|أو|या|vs\.?|then)(?: maybe| perhaps)?)\s*", re.I
)
_BETWEEN = re.compile(r"(?:\b(?:between|from|zwischen|von|entre|de|tra|fra|da|между|от)|介于|在|从|بين|من)[ *_`]{0,4}$", re.I)
_SPACED = re.compile(r"\s*[.,]\s*")
_BOUND = re.compile(
    r"(?:(?<![-=])>|<|[<>]=|\u2264|\u2265|\b(?:than|at least|at most|minimum|maximum|up to|under|over|above|below))[ \t*_`~]{0,4}$", re.I
)
_DENIED = re.compile(r"\b(?:not|never|isn't|nicht|no es|pas)[ \t*_`]{1,4}$", re.I)
_ABOUT = re.compile(
    r"(?:[~\u2248]|\b(?:about|around|roughly|approximately|approx\.?|circa|ca\.|maybe|perhaps|probably)|约|大约|大概)[ \t*_`]{0,4}$", re.I
)
_SAID = re.compile(
    r"\b(?:(?:score|rating|similarity|answer|value)(?: (?:is|of|would be|as|at))?|is|be|a|an|say|give|assign|"
    r"(?:rate|score) (?:it|them|this|these|both|the pair)(?: (?:a|an|as|at))?)[ \t*_`\"']{0,4}$",
    re.I,
)
_NAMED = re.compile(
    r"score|rating|rate|similar|answer|result|value|相似|评分|評分|分数|分數|得分|スコア|類似|評価|점수|유사|평점|puntu|punta|similit|calific|pontua|"
    r"\bnota?e?\b|simili|ähnlich|bewertung|punteg|somigl|оцен|сходств|балл|درجة|تشابه|تقييم|स्कोर|समान|रेटिंग",
    re.I,
)
_STOP = re.compile(
    r"[*_`\"'\u201d\u2019\u00bb\u300d)\]}| \t\u200e\u200f]*+(?:\Z|\n|[.,;:!?。；！？、،؟।([\u2013\u2014-]|because\b|since\b|as\b|points?\b|weil\b|porque\b|parce\b|因为|因為|分|点|점)",
    re.I,
)
# After a whole number a colon, a dash, a bracket or a full stop before more words may as well number a list: "1. Both texts ..."
_ENDS = re.compile(
    r"[*_`\"'\u201d\u2019\u00bb\u300d)\]}| \t\u200e\u200f分点점]*+(?:[.!?。！？।]{0,3}[*_`\"')\]}| \t]*+(?:\Z|\n)|[,;；、،(]|"
    r"(?:because|since|as|weil|porque|parce)\b|points?[.!]?(?:\Z|\n)|因为|因為)",
    re.I,
)
_FIRM = re.compile(r"[*_`\"')\]} \t]*+(?:\n|[;!。！](?:\s|\Z)|\.\s)")

_Role = Literal["rating", "off", "odd", "reference", "index"]


@dataclass(slots=True)
class _Number:
    """A number and what is written around it.

    Attributes:
        start, end: with a percent sign, or what it is out of.
        rating: from 0 to 1; None where it is none on the scale.
        role: ``off`` the scale, ``odd`` if it cannot be read for certain, ``reference`` to a text, or ``index`` of a pair.
        bare: digits alone. decimals: written with some.
        link: ``range`` or ``list`` if joined to another number so; ``bound`` if it is more or less than this that is meant.
        stated: as an answer.
        leads: its line.
    """

    start: int
    end: int
    rating: Fraction | None
    role: _Role
    bare: bool
    decimals: bool
    flags: set[str] = field(default_factory=set)
    link: str = ""
    stated: bool = False
    leads: bool = False


def _numbers(text: str, lo: int, hi: int, scale: Scale) -> list[_Number]:
    """All numbers between two places, at most one more than ``_MOST``."""
    found = list(islice(_expressions(text, lo, hi, scale), _MOST + 1))
    for k, number in enumerate(found):
        before, after = _around(text, lo, hi, found, k)
        # The window shows the beginning of the line only where it reaches it.
        line = before.rpartition("\n")
        number.leads = (bool(line[1]) or len(before) == number.start - lo) and not line[2].strip(_OPENERS)
        if number.bare and number.role != "odd" and _REFERENCE.search(before):
            number.role = "reference"
        elif _BOUND.search(before) or after.startswith("+"):
            number.link = "bound"
        elif _DENIED.search(before):
            number.role = "odd"
        if _ABOUT.search(before):
            number.flags.add("approximate")
    for k, (one, other) in enumerate(pairwise(found)):
        gap = text[one.end : other.start] if other.start - one.end <= _LOOK else None
        if gap is None:
            continue
        if _is_index(one, other, gap, text[other.end : min(hi, other.end + _LOOK)], scale):
            one.role, other.stated = "index", True
        elif one.role == "reference":
            other.stated = other.stated or gap.strip(_MARKS + _SPACE) == ":"
            one.role = "index" if other.stated else one.role
        else:
            _join(one, other, gap, _around(text, lo, hi, found, k)[0])
    for k, number in enumerate(found):
        number.stated = number.stated or _is_stated(number, *_around(text, lo, hi, found, k))
    return found


def _around(text: str, lo: int, hi: int, found: list[_Number], k: int) -> tuple[str, str]:
    number = found[k]
    least = found[k - 1].end if k else lo
    return text[max(least, number.start - _LOOK) : number.start], text[number.end : min(hi, number.end + _LOOK)]


def _expressions(text: str, lo: int, hi: int, scale: Scale) -> Iterator[_Number]:
    """Numbers with their percent signs and what they are out of."""
    group: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(text, lo, hi):
        start, end = token.span()
        if text[start] == "." and start > lo and text[start - 1] == ".":
            start += 1  # the end of an ellipsis
        if group and _OF.fullmatch(text, group[-1][1], start):
            group.append((start, end))
            continue
        if group:
            yield _expression(text, lo, hi, group, scale)
        group = [(start, end)]
    if group:
        yield _expression(text, lo, hi, group, scale)


def _expression(text: str, lo: int, hi: int, group: list[tuple[int, int]], scale: Scale) -> _Number:
    start, end = group[0][0], group[-1][1]
    written = text[start : group[0][1]]
    number = _Number(start, end, None, "odd", written.isdecimal() and len(group) == 1, not written.isdecimal())
    percent = _PERCENT.match(text, end, hi)
    if percent:
        number.end, number.bare = percent.end(), False
    amounts = [_amount(text[a:b]) for a, b in group]
    sign = _sign(text, lo, start)
    if len(group) > 2 or (percent and len(group) > 1) or None in amounts or sign is None or _is_attached(text, lo, hi, start, end):
        if _ORDINAL.match(text, end, hi) or (number.bare and start > lo and _is_cased(text[start - 1])):
            number.role = "reference"  # a word: 2nd, GPT4
        return number
    amount, whole = amounts[0], amounts[-1] if len(group) > 1 else None
    number.flags |= {"comma"} if "," in written else set()
    number.flags |= {"percent"} if percent else set()
    number.flags |= {"ratio"} if whole is not None else set()
    number.role = "off"
    if sign == "-" or amount is None:
        return number
    top = TOP[scale]
    unit = Fraction(100) if percent else whole if whole is not None else Fraction(top)
    if unit != top and not (unit == 100 and scale == "dec2"):
        number.flags.add("other_scale")
        return number
    return _placed(number, amount, unit, scale)


def _placed(number: _Number, amount: Fraction, unit: Fraction, scale: Scale) -> _Number:
    """A number of a known unit on its scale, if it lies there."""
    if unit > 1 and number.decimals and 0 < amount <= 1:
        number.flags.add("scale_unclear")
    elif scale == "d9" and amount.denominator > 1:
        number.flags.add("other_scale")
    elif 0 <= amount <= unit:
        number.role, number.rating = "rating", amount / unit
        number.flags |= {"low_precision"} if scale == "dec2" and unit == 1 and not number.decimals else set()
        number.flags |= {"scale_unclear"} if unit == 100 and amount == 1 and scale == "pct" else set()
    return number


def _amount(written: str) -> Fraction | None:
    """A number as written; None where it cannot be read for certain: 1.2.3, 007, 1,000, or longer than numbers are."""
    if len(written) > _LONGEST:
        return None
    shape = _SHAPE.fullmatch(written)
    if shape is None:
        return None
    whole, mark, decimals = shape[1] or "", shape[2], shape[3] or ""
    if mark == "," and len(decimals) == 3 and whole not in ("", "0"):
        return None
    return Fraction(int(whole + decimals), 10 ** len(decimals))


def _is_cased(ch: str) -> bool:
    """A letter of a script that has spaces between words; 分 may stand right behind a number."""
    return ch.isalpha() and ch.lower() != ch.upper()


def _is_attached(text: str, lo: int, hi: int, start: int, end: int) -> bool:
    """Whether a number is part of a word, or of a longer sign: GPT4, 4.7e-1, 0.5², a.47, yes,47."""
    before = text[start - 1] if start > lo else " "
    after = text[end] if end < hi else " "
    return _is_cased(before) or before == "," or _is_cased(after) or unicodedata.category(after) in ("No", "Nl", "Mn", "Me", "Mc")


def _sign(text: str, lo: int, start: int) -> str | None:
    """A minus right before a number, or nothing; None where a hyphen may be either."""
    if start == lo or text[start - 1] not in "-\u2013\u2014":
        return ""
    before = text[start - 2] if start - 1 > lo else " "
    if before.isspace() or before in _MARKS + ":=":
        return "-"
    number = before.isdecimal() or (before == "%" and start - 2 > lo and text[start - 3].isdecimal())
    return "" if number else None


def _is_index(one: _Number, other: _Number, gap: str, after: str, scale: Scale) -> bool:
    """``1: 0.47``: a whole number at the beginning of a line, a delimiter, and a number with decimals, or one that fills the rest of the line."""
    delimiter = _DELIMITER.fullmatch(gap)
    if not (one.bare and one.leads and one.role in ("rating", "off") and one.end - one.start <= 4 and delimiter) or other.role == "odd":
        return False
    if not other.decimals and after.partition("\n")[0].strip(_MARKS + _SPACE + "."):
        return False
    if not delimiter[2] and (delimiter[1] == "." or other.bare):
        return False
    # 1. 0 may be 1.0, and 47. 5 may be 47.5
    return delimiter[1] != "." or not other.bare or scale == "d9"


def _join(one: _Number, other: _Number, gap: str, before: str) -> None:
    """How two numbers in a row belong together."""
    if _RANGE.fullmatch(gap) or (_AND.fullmatch(gap) and _BETWEEN.search(before)):
        one.link = "range"
    elif one.bare and other.bare and _SPACED.fullmatch(gap):
        one.role = other.role = "odd"  # 0. 47 and 0, 47 may be one number
        one.rating = other.rating = None
    elif len(gap) <= 3 and not any(ch.isspace() for ch in gap):
        one.role = other.role = "odd"  # 0·47, 0;47, 10:30, 0.4 and 7 with nothing visible between them
        one.rating = other.rating = None
    elif _LIST.fullmatch(gap) and "\n" not in gap:
        one.link = one.link or "list"
        other.link = other.link or "list"


def _is_stated(number: _Number, before: str, after: str) -> bool:
    stops = (_ENDS if number.bare else _STOP).match(after) is not None
    label = before.rstrip(_MARKS + _SPACE + "~\u2248")
    named = label.endswith((":", "=", "\u2192", "->", "=>"))
    if number.decimals:
        return number.leads or named or stops or _SAID.search(before) is not None
    named = named and _NAMED.search(label.rpartition("\n")[2]) is not None
    return stops and (number.leads or named or _SAID.search(before) is not None)


# -- refusals ------------------------------------------------------------------------------------------------------------------

_LONG = (
    ("\u02bc", "'"), ("can't", "cannot"), ("won't", "will not"), ("n't", " not"), ("'m ", " am "), ("'re ", " are "), ("'ll ", " will "), ("'d ", " would "),
)  # fmt: skip
_TASK = (
    r"(?:(?:rat|scor|judg|grad|assess|evaluat|compar|quantify|determin|measur)\w{0,4}|answer|comply|help|assist|respond|participate|fulfil\w{0,2}|engage|"
    r"do (?:this|that|so)|(?:giv|provid|assign|offer|produc|generat|mak|put|supply)\w{0,3} (?:[\w-]{1,20} ){0,4}?"
    r"(?:numbers?|ratings?|scores?|values?|answers?|assessments?|comparisons?|judge?ments?|evaluations?|figures?))"
)
_JUDGES = (
    r"(?!(?: [\w-]{1,20}){0,5}? (?:higher|lower|above|below|beyond|more than|less than|(?:an?|any) (?:[\w-]{1,20} )?differences?|"
    r"as (?:[\w-]{1,20} )?(?:identical|equivalent|equal|the same|similar|different|high|low))\b)"
)
_WILL_NOT = (
    # English; "I cannot rate these as identical" judges, and so does not count.
    rf"\b(?:i|we)(?: am| are| would| will| must| have to| need to)?(?: [a-z]{{1,15}}ly| just| still| also)?"
    rf" (?:cannot|can not|could not|will not|must not|not able to|unable to|not allowed to|not permitted to|not willing to|not comfortable|do not feel comfortable|not going to|"
    rf"not in a position to|decline to|refuse to|prefer not to|rather not)(?: [a-z]{{1,15}}ly| really| in good conscience| be able to)? {_TASK}\b{_JUDGES}",
    rf"\b(?:cannot|can not|should not) be (?:[a-z]{{1,15}}ly )?(?:rated|scored|judged|compared|quantified|assessed|evaluated|determined)\b{_JUDGES}",
    rf"\b(?:impossible|not possible|inappropriate|not appropriate|unethical) (?:for me )?to (?:[a-z]{{1,15}}ly )?{_TASK}\b{_JUDGES}",
    r"\bno (?:[a-z]{1,15} )?(?:rating|score|number)s? (?:can|could|will) be (?:given|assigned|provided)",
    r"\bi (?:(?:must|have to|will|need to|would) )?(?:[a-z]{1,15}ly )?(?:decline|refuse)(?: to (?:rate|score|judge|answer|do)|[.,;!]|$)",
    # Chinese, Japanese, Korean
    r"(?:无法|無法|不能|不便|拒绝|拒絕|不愿|不願|没法|沒法|难以|難以)[^。！？!?\n]{0,12}?"
    r"(?:评分|評分|打分|评价|評價|评估|評估|评判|評判|评级|比较|比較|判断|判斷|判定|回答|提供|给出|給出|协助|協助|帮助|幫助|满足|滿足|完成)",
    r"(?:評価|採点|判断|判定|比較|回答|お答え|提供|お手伝い|スコア|点数|対応)[^。！？!?\n]{0,10}?(?:できません|できない|できかね|しかね|いたしかね|出来ません|差し控え)",
    r"(?:평가|점수|판단|비교|답변|대답|제공|도와|채점)[^.!?\n]{0,14}?(?:수 없|수가 없|수는 없|못합니다|못해|불가능|어렵습니다)",
    # Spanish, Portuguese, French, Italian
    r"\bno (?:puedo|podemos|podr[eé]|soy capaz de|me es posible|es posible|quiero|deseo|voy a)(?: [a-zñáéíóú]{1,15}){0,2}? "
    r"(?:calificar|puntuar|valorar|evaluar|comparar|juzgar|responder|ayudar|dar|proporcionar|asignar|ofrecer|cumplir)(?:l[aeo]s?|te)?\b(?! m[aá]s\b)",
    r"\bn[aã]o (?:posso|consigo|podemos|[eé] poss[ií]vel|sou capaz de|vou|quero)(?: [a-zãõçáéíóúâê]{1,15}){0,2}? "
    r"(?:avaliar|classificar|pontuar|comparar|julgar|responder|ajudar|dar|fornecer|atribuir|oferecer)\b(?! mais\b)",
    r"\bje (?:ne |n')(?:peux|puis|suis pas|saurais|souhaite|veux|vais)(?: [a-zàâçéèêëîïôû']{1,15}){0,5}? "
    r"(?:noter|évaluer|attribuer|donner|comparer|juger|répondre|aider|fournir)\b(?! plus\b)",
    r"\bje refuse d",
    r"\bnon (?:posso|riesco a|possiamo|è possibile|sono in grado di|voglio|intendo)(?: [a-zàèéìòù]{1,15}){0,2}? "
    r"(?:valutare|giudicare|confrontare|rispondere|aiutar\w{0,2}|dare|fornire|assegnare|attribuire|paragonare)\b(?! più\b)",
    # German
    r"\bich (?:kann|werde|möchte|darf|will)(?: [a-zäöüß]{1,20}){0,6}? (?:nicht|keine?n?|keine[rs])(?: [a-zäöüß0-9]{1,20}){0,5}? "
    r"(?:bewerten|einschätzen|einstufen|beurteilen|vergleichen|vergeben|geben|abgeben|beantworten|helfen|nennen)\b",
    # Russian
    r"(?:\bне (?:могу|можем|смогу|в состоянии|буду|имею возможности|способ\w{1,5})|невозможно|отказываюсь)(?: [а-яё]{1,20}){0,3}? "
    r"(?:оцен|сравни|отве[тч]|дать|поставить|помочь|предостав|присво|суди)",
    # Arabic, Hindi
    r"(?:لا أستطيع|لا استطيع|لا يمكنني|لا يمكن|لا أقدر|لست قادر|غير قادر|أعتذر عن|أرفض|لن أ)[^.!?؟\n]{0,20}?"
    r"(?:تقييم|تقدير|مقارنة|إعطاء|اعطاء|أعطي|تقديم|الإجابة|المساعدة|الحكم|قيم|قيّم|تحديد)",
    r"(?:मूल्यांकन|रेटिंग|तुलना|उत्तर|अंक|स्कोर|मदद|आकलन)[^।.!?\n]{0,20}?(?:नहीं कर सक|नहीं दे सक|असमर्थ|नहीं करूँग|नहीं दूँग)",
)
_REFUSES = re.compile("|".join(f"(?:{pattern})" for pattern in _WILL_NOT))
_SORRY = re.compile(
    r"\W{0,8}(?:很抱歉|抱歉|对不起|對不起|很遗憾|申し訳|すみません|ごめん|죄송|미안|lo siento|disculp|desculp|lamento|sinto muito|désolé|je regrette|mi dispiace|"
    r"spiacente|es tut mir leid|tut mir leid|entschuldig|извините|простите|к сожалению|آسف|عذرا|عذرًا|أعتذر|क्षमा|माफ़|मुझे खेद)"
)
_NO = re.compile(r"\W{0,8}no[,.!]", re.I)


def _refuses(text: str) -> bool:
    """Whether it says that it cannot or will not rate; a number beside that does not count."""
    folded = " ".join(text.casefold().split())
    for short, long in _LONG:
        folded = folded.replace(short, long)
    return _REFUSES.search(folded) is not None


def _apologizes(text: str) -> bool:
    """Whether a text without a rating reads as a refusal: an apology at its beginning, or what refuses any request. A mere No does not."""
    return _SORRY.match(text.casefold()) is not None or (phrases(text) not in (None, "full_compliance") and not _NO.match(text))


# -- one piece of text ---------------------------------------------------------------------------------------------------------


def _piece(text: str, lo: int, hi: int, scale: Scale, *, cut: bool = False) -> Reading:
    """What a text between two places says about one pair."""
    piece = text[lo:hi]
    if not piece.strip(_NOTHING):
        return _none("truncated" if cut else "empty")
    lo, hi = lo + len(piece) - len(piece.lstrip(_SPACE)), lo + len(piece.rstrip(_SPACE))
    refuses = _refuses(piece)
    if text[lo] == "{" and not refuses:
        return _object(text, lo, hi, scale, cut=cut)
    numbers = _numbers(text, lo, hi, scale)
    if refuses:
        return _none("refusal", ["hedged_number"] if any(n.role == "rating" for n in numbers) else [])
    found = _decide(numbers)
    if found.status == "nonnumeric" and not any(n.stated and n.role != "index" for n in numbers) and _apologizes(piece):
        return _none("refusal")
    if found.span is None:
        return _none("truncated" if cut and found.status in ("nonnumeric", "out_of_range") else found.status, found.flags)
    if cut and not _is_firm(text, lo, numbers, found.span):
        return _none("truncated")
    return _flagged(found, _extras(text, lo, hi, numbers, found.span) + (["cut"] if cut else []))


def _decide(numbers: list[_Number]) -> Reading:
    """The one rating among all numbers, or why there is none."""
    flags: set[str] = set()
    indexes = [n for n in numbers if n.role == "index"]
    flags |= {"index"} if indexes else set()
    live = [n for n in numbers if n.role not in ("index", "reference")]
    if len(numbers) > _MOST or len(indexes) > 1:
        return _none("multiple", flags)
    live, echoed = _without_scale(live)
    flags |= {"scale_echo"} if echoed else set()
    if any(n.link in ("range", "bound") for n in live):
        return _none("range", flags)
    if any(n.role == "odd" for n in live):
        return _none("multiple" if len(live) > 1 else "nonnumeric", flags | {"odd_number"})
    ratings = [n for n in live if n.role == "rating"]
    if any(n.decimals and n.stated for n in ratings):  # then a bare 0 or 1 in running text counts something
        ratings = [n for n in ratings if "low_precision" not in n.flags or n.stated or n.link]
    off = [n for n in live if n.role == "off" and n.stated]
    flags |= {"other_numbers"} if len(live) > len(ratings) and ratings else set()
    stated = [n for n in ratings if n.stated]
    references = sum(n.role == "reference" for n in numbers)
    if len({n.rating for n in ratings}) > 1 or len(ratings) > 2 or (ratings and off) or (len(ratings) > 1 and references > 1):
        return _none("multiple", flags)
    if stated and (rating := stated[0].rating) is not None:
        flags |= stated[0].flags | ({"repeated"} if len(ratings) > 1 else set())
        return Reading(float(rating), "ok", tuple(sorted(flags)), (stated[0].start, stated[0].end))
    if off and not ratings:
        return _none("out_of_range", flags.union(*(n.flags & {"other_scale", "scale_unclear", "comma", "percent", "ratio"} for n in off)))
    return _none("nonnumeric", flags | ({"other_numbers"} if numbers else set()))


def _without_scale(live: list[_Number]) -> tuple[list[_Number], bool]:
    """Without the ends of the scale as a range, if something else could be a rating: "on a scale from 0.00 to 1.00: 0.47"."""
    ends = {
        at
        for k, (one, other) in enumerate(pairwise(live))
        if one.link == "range" and one.rating == 0 and other.rating == 1
        for at in (k, k + 1)
    }
    rest = [n for k, n in enumerate(live) if k not in ends]
    return (rest, True) if ends and any(n.role == "rating" for n in rest) else (live, False)


def _is_firm(text: str, lo: int, numbers: list[_Number], span: tuple[int, int]) -> bool:
    """Whether a number of a reply that was cut short is the whole answer: it opens the reply, and its line or sentence has ended."""
    index = numbers[0] if numbers[0].role == "index" else None
    before = text[index.end if index else lo : span[0]].strip(_OPENERS)
    if len(before) > _LABEL or (before and not (index and before in ":.") and not (before.endswith((":", "=")) and _NAMED.search(before))):
        return False
    after = text[span[1] : span[1] + _LOOK]
    return _FIRM.match(after) is not None and not (text[span[0] : span[1]].isdecimal() and after[:1] == ".")


def _extras(text: str, lo: int, hi: int, numbers: list[_Number], span: tuple[int, int]) -> list[str]:
    """Whether there is more than the number, the number of the pair and marks."""
    if numbers[0].role == "index":
        lead = text[lo : numbers[0].start].strip(_MARKS + _SPACE)
        between = text[numbers[0].end : span[0]].strip(_MARKS + _SPACE + ":.)")
        before = between + ("" if re.fullmatch(r"(?:pair|item|no\.|number|第)?", lead, re.I) else lead)
    else:
        before = text[lo : span[0]].strip(_MARKS + _SPACE)
    return ["extra_text"] if before or text[span[1] : hi].strip(_MARKS + _SPACE) else []


# -- JSON ----------------------------------------------------------------------------------------------------------------------

_KEYS = frozenset(
    {"score", "rating", "similarity", "value", "answer", "result", "output", "similarityscore", "similarityrating", "semanticsimilarity",
     "semanticsimilarityscore", "semanticsimilarityrating", "finalscore", "finalrating", "finalanswer", "相似度", "评分", "評分", "分数", "得分"}
)  # fmt: skip
_PAIR_KEY = re.compile(r"(?:pair)?[ _]?([1-9][0-9]{0,3})", re.I)
_GAP = re.compile(r"[ \t\r\n]*+")
_DECODER = JSONDecoder(parse_int=str, parse_float=str)


def _entries(text: str) -> tuple[list[tuple[str, int, int]], int]:
    """Keys and places of the values of the JSON object that a text begins with, and where it ends.

    Raises:
        ValueError: if there is none.
    """
    entries: list[tuple[str, int, int]] = []
    at = _skip(text, 1)
    if text[at : at + 1] == "}":
        return entries, at + 1
    while True:
        if text[at : at + 1] != '"':
            raise ValueError("no key")
        key, at = scanstring(text, at + 1)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise ValueError("no colon")
        start = _skip(text, at + 1)
        value, stop = _DECODER.raw_decode(text, start)
        if isinstance(value, str) and text[start] == '"' and value != text[start + 1 : stop - 1]:
            entries.append((key, stop, stop))  # written with escapes: what it says does not stand there
        else:
            entries.append((key, start, stop))
        at = _skip(text, stop)
        if text[at : at + 1] == "}":
            return entries, at + 1
        if text[at : at + 1] != ",":
            raise ValueError("no comma")
        at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    found = _GAP.match(text, at)
    return found.end() if found else at


def _object(text: str, lo: int, hi: int, scale: Scale, *, cut: bool) -> Reading:
    """A reply that begins as a JSON object: the rating is under a known key, or the only entry's key is the number of a pair."""
    piece = text[lo:hi]
    try:
        entries, stop = _entries(piece)
    except (JSONDecodeError, ValueError, RecursionError):
        return _none("truncated" if cut else "bad_json")
    named = [re.sub(r"[\W_]", "", key).lower() in _KEYS for key, _, _ in entries]
    indexed = not any(named) and len(entries) == 1 and _PAIR_KEY.fullmatch(entries[0][0]) is not None
    known = [e for e, is_named in zip(entries, named, strict=True) if is_named or indexed]
    if not known:
        return _none("bad_json")
    others = [e for e, is_named in zip(entries, named, strict=True) if not is_named and not indexed]
    numbers = [n for _, a, b in known for n in _numbers(text, lo + a, lo + b, scale)]
    found = _decide([*numbers, *_numbers(text, lo + stop, hi, scale)])
    flags = {"json"}
    flags |= {"index"} if indexed else set()
    flags |= {"other_numbers"} if any(_TOKEN.match(piece, a, b) for _, a, b in others) else set()
    flags |= {"extra_text"} if piece[stop:].strip(_MARKS + _SPACE) else set()
    flags |= {"cut"} if cut and found.span else set()
    return _flagged(found, flags)


# -- lists ---------------------------------------------------------------------------------------------------------------------

_LINE = re.compile(
    r"^[ \t>|*_#\u2022`-]{0,12}(?:(?:pair|item|no\.|第)[ \t]{0,3})?[*_`#(\[]{0,4}([1-9][0-9]{0,3})(?![0-9])(?:对|組|组)?[*_`)\]]{0,4}[ \t]{0,4}"
    r"(?:(?::|\)|\||=)[*_`]{0,4}|\.[*_`]{0,4}(?=[ \t\n])|([\u2013\u2014-])[*_`]{0,4}(?=[ \t])|,?[ \t]{1,4}(?=\.?[0-9][0-9.,]{0,12}%?[ \t]{0,8}$))",
    re.M | re.I,
)
_PAIR_NAMED = re.compile(r"(?:\b(?:pairs?|items?)[ \t]{0,3}#?|#)[ \t]{0,3}([1-9][0-9]{0,3})(?![0-9])", re.I)
_LINES = 3
"""Lines of one pair that are read: a rating may be repeated once, so the third one settles that it is none."""
_PARAGRAPH = re.compile(r"\n[ \t]*+\n")


def _listed(text: str, pairs: int, scale: Scale, *, cut: bool) -> list[Reading]:
    """One reading per pair of a list."""
    first = len(text) - len(text.lstrip(_SPACE))
    if text[first] == "{":
        return _listed_object(text, first, pairs, scale, cut=cut)
    # 3 - 5 may be a range of whole numbers
    heads = [head for head in _LINE.finditer(text) if scale == "dec2" or not head[2]]
    if not heads:
        return [_unlisted(text, scale, cut=cut)] * pairs
    places, rest = _cut_up(text, heads)
    refused = [line for part in rest for line in part.split("\n") if _refuses(line)]
    named = [{int(m[1]) for m in _PAIR_NAMED.finditer(line)} for line in refused]
    withdrawn = set(range(1, pairs + 1)) if not all(named) else set().union(*named)
    flags = {"unknown_pairs"} if any(k > pairs for k in places) else set()
    if any(n.role == "rating" and n.decimals for part in rest for n in _numbers(part, 0, len(part), scale)):
        flags.add("outside_text")
    missing: Status = "refusal" if any(_apologizes(part) for part in rest if part.strip()) else "empty"
    last = max(places)
    found = []
    for k in range(1, pairs + 1):
        parts = [_piece(text, a, b, scale, cut=cut and a == heads[-1].end()) for a, b in places.get(k, ())[:_LINES]]
        if k in withdrawn:
            one = _none("refusal", {"hedged_number"} if any(p.span for p in parts) else ())
        elif parts:
            one = _same(parts)
        else:
            one = _none("truncated" if cut and k > last else missing, {"missing"})
        found.append(_flagged(one, flags))
    return found


def _unlisted(text: str, scale: Scale, *, cut: bool) -> Reading:
    """What a reply without numbered lines says about every pair."""
    whole = _piece(text, 0, len(text), scale, cut=cut)
    if whole.status == "refusal":
        return whole
    if cut:
        return _none("truncated")
    return _none("nonnumeric", {"unnumbered"} if _TOKEN.search(text) else ())


def _cut_up(text: str, heads: list[re.Match[str]]) -> tuple[dict[int, list[tuple[int, int]]], list[str]]:
    """Places of what is said about each pair, which ends at the next one or at an empty line; and what stands outside."""
    places: dict[int, list[tuple[int, int]]] = {}
    outside, at = [], 0
    for head, following in zip(heads, [*(h.start() for h in heads[1:]), len(text)], strict=True):
        outside.append(text[at : head.start()])
        gap = _PARAGRAPH.search(text, head.end(), following)
        at = gap.start() if gap else following
        places.setdefault(int(head[1]), []).append((head.end(), at))
    return places, [*outside, text[at:]]


def _same(parts: list[Reading]) -> Reading:
    """A pair of which there are several lines has a rating if all of them say the same, at most twice."""
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2 and parts[0].value is not None and parts[0].value == parts[1].value:
        return _flagged(parts[0], {"repeated"})
    return _none("multiple")


def _listed_object(text: str, lo: int, pairs: int, scale: Scale, *, cut: bool) -> list[Reading]:
    """A list as a JSON object with the numbers of the pairs as keys."""
    try:
        entries, stop = _entries(text[lo:])
    except (JSONDecodeError, ValueError, RecursionError):
        return [_none("truncated" if cut else "bad_json")] * pairs
    numbered = [(_PAIR_KEY.fullmatch(key), lo + a, lo + b) for key, a, b in entries]
    if not entries or not all(m for m, _, _ in numbered) or text[lo + stop :].strip(_SPACE + _MARKS):
        return [_none("bad_json")] * pairs
    by: dict[int, list[Reading]] = {}
    for m, a, b in numbered:
        piece = _flagged(_piece(text, a, b, scale), ["json"])
        by.setdefault(int(m[1]) if m else 0, []).append(piece)
    flags = {"unknown_pairs"} if any(k > pairs for k in by) else set()
    return [_flagged(_same(by[k]) if k in by else _none("empty", {"missing"}), flags) for k in range(1, pairs + 1)]
