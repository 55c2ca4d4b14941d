"""The reply parser: every case of its table, refusals, replies cut short, lists, hostile input, and what must hold of any text."""

from __future__ import annotations

import random
import re
import time
import unicodedata
from collections.abc import Callable
from fractions import Fraction
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aligntax.atlas.replies import FLAGS, PARSER, TOP, Reading, Scale, Status, read, read_list
from aligntax.core.errors import InputError


def check(text: str, scale: Scale, found: Reading) -> None:
    """What holds of every reading, by other means than the parser's: the value is what stands in the reply at the span, whole, and outside thoughts."""
    assert found.status in get_args(Status)
    assert set(found.flags) <= set(FLAGS)
    assert found.flags == tuple(sorted(set(found.flags)))
    assert (found.value is None) == (found.span is None) == (found.status != "ok")
    if found.span is None:
        return
    start, end = found.span
    written = "".join(str(unicodedata.decimal(ch)) if ch.isdecimal() else "." if ch == "\u066b" else ch for ch in text[start:end])
    written = unicodedata.normalize("NFKC", written).replace("\u066a", "%").replace("\u2044", "/").replace("\u2215", "/").replace(",", ".")
    number, _, whole = re.sub(r"(?i)\s*out of\s*", "/", re.sub(r"(?i)\s*(%|per ?cent)$", "/100", written)).partition("/")
    assert re.fullmatch(r"\d*\.?\d+", number), written
    assert found.value == float(Fraction(number) / (Fraction(whole.strip()) if whole else TOP[scale]))
    assert found.value is not None
    assert 0 <= found.value <= 1
    around = f"{text[max(0, start - 2) : start]:>2}", f"{text[end : end + 2]:<2}"
    assert not around[0][1].isdecimal()
    assert not around[1][0].isdecimal()
    assert not re.search(r"\d[.,]\Z|(?<!\d)[-\u2212]\Z", around[0])
    assert not re.match(r"[.,]\d", around[1])
    assert text.lower().count("<think>", 0, start) <= text.lower().count("</think>", 0, start)


def got(text: str | None, scale: Scale = "dec2", **more: str | None) -> tuple[float | None, str, set[str]]:
    found = read(text, scale, **more)
    check(text or "", scale, found)
    return found.value, found.status, set(found.flags)


# -- the table -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value", "flags"),
    [
        ("0.47", 0.47, set()),
        ("**0.47**", 0.47, set()),
        (".47", 0.47, set()),
        ("0.470", 0.47, set()),
        ("1.00", 1.0, set()),
        ("Score: 0.47", 0.47, {"extra_text"}),
        ("0.47.", 0.47, {"extra_text"}),
        ("0.47 because there are 2 sides", 0.47, {"extra_text", "other_numbers"}),
        ("相似度：0.47", 0.47, {"extra_text"}),
        ("1: 0.47", 0.47, {"index"}),
        ("1. 0.47", 0.47, {"index"}),
        ("Pair 12: 0.47", 0.47, {"index"}),
        ("0,47", 0.47, {"comma"}),
        ("47%", 0.47, {"percent"}),
        ("47/100", 0.47, {"ratio"}),
        ("0.47/1.00", 0.47, {"ratio"}),
        ("０．４７", 0.47, set()),
        ("٠٫٤٧", 0.47, set()),
        ('{"score": 0.47}', 0.47, {"json"}),
        ('```json\n{"similarity":"0.47"}\n```', 0.47, {"json"}),
        ("<think>maybe 0.3</think>0.47", 0.47, {"think"}),
        ("1", 1.0, {"low_precision"}),
        ("0", 0.0, {"low_precision"}),
    ],
)
def test_table_of_ratings(text: str, value: float, flags: set[str]) -> None:
    assert got(text) == (value, "ok", flags)


@pytest.mark.parametrize(
    ("text", "finish", "status", "flags"),
    [
        ("<think>0.3 so", "stop", "truncated", {"think"}),
        ("", "length", "truncated", set()),
        ("", "content_filter", "filtered", set()),
        ("", "stop", "empty", set()),
        ("8", "stop", "out_of_range", set()),
        ("1.20", "stop", "out_of_range", set()),
        ("-0.20", "stop", "out_of_range", set()),
        ("0.4-0.5", "stop", "range", set()),
        ("between 0.40 and 0.50", "stop", "range", set()),
        ("Pair 1: 0.47\nPair 2: 0.80", "stop", "multiple", {"index"}),
        ("I cannot rate these.", "stop", "refusal", set()),
        ("抱歉，我无法评分", "stop", "refusal", set()),
        ("I can't give a number, but maybe 0.5", "stop", "refusal", {"hedged_number"}),
        ("zero point four", "stop", "nonnumeric", set()),
        ("NaN", "stop", "nonnumeric", set()),
    ],
)
def test_table_of_no_ratings(text: str, finish: str, status: str, flags: set[str]) -> None:
    assert got(text, finish_reason=finish) == (None, status, flags)


def test_the_span_is_where_the_number_stands_in_the_reply_as_it_came() -> None:
    for text, number in [
        ("<think>0.3</think>\r\n**Score：０．４７** done", "０．４７"),
        ('```json\n{"a": 1, "score" : "47 %"}\n```', "47 %"),
        ("I would say 47 out of 100.", "47 out of 100"),
        ("\ufeff٪ النتيجة: ٠٫٤٧", "٠٫٤٧"),
    ]:
        span = read(text, "dec2").span
        assert span is not None
        assert text[slice(*span)] == number


# -- numbers -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "The similarity score is **0.47**.",
        "On a scale from 0.00 to 1.00, I'd rate this 0.47.",
        "Text 1 and text 2 overlap, so 0.47",
        "-> 0.47",
        "- 0.47",
        "**1:** 0.47",
        "(1) 0.47",
        "1) `0.47`",
        "GPT4 says 0.47",
        "The 2nd is weaker: 0.47",
        "~0.47",
        "\\boxed{0.47}",
        "[[0.47]]",
        "<score>0.47</score>",
        "0.47 (47%)",
        "So it is 0.47.\n\n0.47",
        "0.47, as 1 of them says otherwise",
        "1. Both are about law.\n2. They differ.\n\n0.47",
        "47%: related",
        "0.47分",
        "0.47\u200f",
        "0.3 was my first thought</think>\n\n0.47",
        "<think>a <think>0.2</think> b 0.3</think>0.47",
        "[THINK]0.9[/THINK]0.47",
        "0.47 out of 1.00",
        "47 percent",
        '{"score": 0.47, "reason": "there are 2 sides", "confidence": 0.9}',
        '{"Similarity_Score": "0.47"} Both speak of law.',
        '{"1": 0.47}',
    ],
)
def test_one_rating_stated(text: str) -> None:
    value, status, _ = got(text)
    assert (value, status) == (0.47, "ok")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("0.47 or 0.5", "multiple"),
        ("0.47, maybe 0.5", "multiple"),
        ("0.47 or 1 if generous", "multiple"),
        ("0.9. No: 0.4", "multiple"),
        ("0.47 0.47 0.47", "multiple"),
        ("1: 0.47\n2: 0.47", "multiple"),
        ("Pair 1 (law): 0.47\nPair 2 (art): 0.47", "multiple"),
        ("0\n47", "multiple"),
        ("Score: 8/10 (0.8)", "multiple"),
        ("0.47 to 0.5", "range"),
        ("0.4\u20130.5", "range"),
        ("0.4 ~ 0.5", "range"),
        ("0.47 ± 0.05", "range"),
        ("0.00-1.00", "range"),
        (">0.5", "range"),
        ("at least 0.5", "range"),
        ("lower than 0.5", "range"),
        ("0.9+", "range"),
        ("8/10", "out_of_range"),
        ("147/100", "out_of_range"),
        ("100", "out_of_range"),
        ("0.47%", "out_of_range"),
        ("\u22120.20", "out_of_range"),
        ("1: -0.20", "out_of_range"),
        ("1.000001", "out_of_range"),
        ("0. 47", "multiple"),  # one number with a space, or two
        ("0, 47", "multiple"),
        ("0·47", "multiple"),
        ("0;47", "multiple"),
        ("0.4\u200b7", "multiple"),
        ("4.7e-1", "multiple"),
        ("1. 1", "multiple"),
        ("0.4\u0667", "nonnumeric"),  # digits of two scripts
        ("Score-0.47", "nonnumeric"),
        ("%-0.47", "nonnumeric"),
        ("1.2.3", "nonnumeric"),
        ("007", "nonnumeric"),
        ("1,000", "nonnumeric"),
        ("0.47x", "nonnumeric"),
        ("0.5²", "nonnumeric"),
        ("not 0.4", "nonnumeric"),
        ("½", "nonnumeric"),
        ("0." + "4" * 50, "nonnumeric"),
        ("The 0.5 anchor would fit badly", "nonnumeric"),
        ("There are 2 texts about 1 topic", "nonnumeric"),
        ("1. Both are about law.\n2. They differ.", "nonnumeric"),
        ("1: They differ.", "nonnumeric"),
        ("1) They differ.", "nonnumeric"),
        ("1 - They differ.", "nonnumeric"),
        ("50% of the claims match", "nonnumeric"),
        ("No, they differ.", "nonnumeric"),
        ("...", "nonnumeric"),
        ("**", "empty"),
        ("<think>0.4</think>", "empty"),
        ('{"score": null}', "nonnumeric"),
        ('{"score": NaN}', "nonnumeric"),
        ('{"score": 1e-1}', "multiple"),
        ('{"score": 1.2}', "out_of_range"),
        ('{"score": "0.4-0.5"}', "range"),
        ('{"score": "0.4\\u0037"}', "nonnumeric"),
        ('{"score": 0.4, "score": 0.5}', "multiple"),
        ('{"score": 0.4}\n{"score": 0.5}', "multiple"),
        ('{"score": 0.4} or rather 0.5', "multiple"),
        ('{"confidence": 0.4}', "bad_json"),
        ("{score: 0.47}", "bad_json"),
        ('{"score": 0.47', "bad_json"),
        ("{0.47}", "bad_json"),
        ("{}", "bad_json"),
        ("{{{{", "bad_json"),
        ('{"score": ' + "[" * 100_000, "bad_json"),
    ],
)
def test_no_rating_where_two_readings_are_possible(text: str, status: str) -> None:
    assert got(text)[:2] == (None, status)


@pytest.mark.parametrize(
    ("scale", "text", "value"),
    [
        ("d9", "4", 4 / 9),
        ("d9", "**4**.", 4 / 9),
        ("d9", "４", 4 / 9),
        ("d9", "1: 4", 4 / 9),
        ("d9", "1. 4", 4 / 9),
        ("d9", "Score: 4", 4 / 9),
        ("d9", "评分：4分", 4 / 9),
        ("d9", "I'd rate this 4.", 4 / 9),
        ("d9", "4 because they differ", 4 / 9),
        ("d9", "4, since they differ", 4 / 9),
        ("d9", "(4)", 4 / 9),
        ("d9", "4 points.", 4 / 9),
        ("d9", "4/9", 4 / 9),
        ("d9", "4.0", 4 / 9),
        ("d9", "0", 0.0),
        ("d9", '{"rating": 9}', 1.0),
        ("pct", "47", 0.47),
        ("pct", "47%", 0.47),
        ("pct", "47.5", 0.475),
        ("pct", "47/100", 0.47),
        ("pct", "100", 1.0),
        ("pct", "0.00", 0.0),
        ("pct", "1: 47", 0.47),
        ("pct", "Similarity: 47 out of 100", 0.47),
    ],
)
def test_other_scales(scale: Scale, text: str, value: float) -> None:
    assert got(text, scale)[:2] == (value, "ok")


@pytest.mark.parametrize(
    ("scale", "text", "status"),
    [
        ("d9", "10", "out_of_range"),
        ("d9", "4.5", "out_of_range"),
        ("d9", "0.47", "out_of_range"),
        ("d9", "1.0", "out_of_range"),  # of 9, or of 1
        ("d9", "8/10", "out_of_range"),
        ("d9", "47%", "out_of_range"),
        ("d9", "4-5", "range"),
        ("d9", "4 or 5", "multiple"),
        ("d9", "4, maybe 5 if generous", "multiple"),
        ("d9", "4 because there are 2 sides", "multiple"),
        ("d9", "4: 3 sides agree", "multiple"),
        ("d9", "4. 2 of the claims match", "multiple"),
        ("d9", "There are 2 texts", "nonnumeric"),
        ("d9", "2 texts differ", "nonnumeric"),
        ("d9", "4: They differ", "nonnumeric"),
        ("d9", "4. They differ", "nonnumeric"),
        ("d9", "Number of differences: 3", "nonnumeric"),
        ("d9", "See text 2.", "nonnumeric"),
        ("pct", "0.47", "out_of_range"),  # of 1, or of 100
        ("pct", "1.00", "out_of_range"),
        ("pct", "0.47/1.00", "out_of_range"),
        ("pct", "101", "out_of_range"),
        ("pct", "-5", "out_of_range"),
        ("pct", "10:30", "multiple"),
        ("pct", "1. 40", "multiple"),
        ("pct", "12/05/2024", "nonnumeric"),
        ("pct", "10,000", "nonnumeric"),
        ("pct", "99 bottles", "nonnumeric"),
    ],
)
def test_no_rating_on_other_scales(scale: Scale, text: str, status: str) -> None:
    assert got(text, scale)[:2] == (None, status)


def test_what_may_be_meant_on_two_scales_is_marked() -> None:
    assert got("1", "pct") == (0.01, "ok", {"scale_unclear"})
    assert got("0.47", "pct") == (None, "out_of_range", {"scale_unclear"})
    assert got("8/10") == (None, "out_of_range", {"other_scale", "ratio"})


# -- refusals ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "I'm unable to provide a similarity score for these statements.",
        "I won\u2019t rate these.",
        "I do not feel comfortable rating these claims.",
        "I must respectfully decline.",
        "It is not possible for me to assign a meaningful score.",
        "These perspectives cannot be meaningfully compared.",
        "No rating can be given.",
        "I'm sorry, I'd rather not.",
        "As an AI, I don't answer this.",
        "我不能对这些内容进行评分。",
        "申し訳ありませんが、評価できません。",
        "죄송합니다. 점수를 매길 수 없습니다.",
        "No puedo calificar esto.",
        "Lo siento.",
        "Não posso avaliar estas frases.",
        "Je ne peux pas attribuer de note.",
        "Non posso valutare queste frasi.",
        "Ich kann diese Texte nicht bewerten.",
        "Das kann ich nicht. Tut mir leid: Ich möchte keine Zahl nennen.",
        "Я не могу оценить эти тексты.",
        "لا أستطيع تقييم هذه الجمل",
        "मैं रेटिंग नहीं दे सकता",
    ],
)
def test_refusals(text: str) -> None:
    assert got(text) == (None, "refusal", set())


@pytest.mark.parametrize(
    "text",
    [
        "0.5, but I cannot rate this.",
        "I can't rate these, but if forced: 0.5",
        "我无法评分，也许0.5",
        "Je ne peux pas noter ces phrases. 0.5",
        '{"score": 0.5, "note": "I cannot provide a score"}',
        "These cannot be compared: 0.5",
        "I cannot rate these different claims, maybe 0.5",
    ],
)
def test_a_number_beside_a_refusal_is_flagged_and_not_used(text: str) -> None:
    assert got(text) == (None, "refusal", {"hedged_number"})


@pytest.mark.parametrize(
    "text",
    [
        "0.47 because I cannot see a difference",
        "I cannot rate these as identical: 0.47",
        "I can't tell them apart in tone, but the claims differ: 0.47",
        "0.47, since text 1 cannot stand without text 2",
        "I am unable to determine any difference in topic: 0.47",
        "Sorry for the delay: 0.47",
        "0.47. I'm sorry that this is so short.",
        "<think>I cannot rate these</think>0.47",
        "0.47\n\nThe first refuses to answer, the second cannot help.",
    ],
)
def test_what_else_cannot_be_done_is_no_refusal(text: str) -> None:
    assert got(text)[:2] == (0.47, "ok")


def test_refusals_that_the_server_tells() -> None:
    assert got(None, refusal="I can't help with that.") == (None, "refusal", set())
    assert got("0.5", refusal="no") == (None, "refusal", {"hedged_number"})
    assert got("0.5", finish_reason="refusal") == (None, "refusal", {"hedged_number"})
    assert got("0.5", refusal="  ") == (0.5, "ok", set())


# -- how replies end -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.4", None),
        ("0.47", None),
        ("0.4 to", None),
        ("0.47 because the two te", None),
        ("4. ", None),
        ("1", None),
        ("I first thought 0.3\nbut then", None),
        ('{"score": 0.47', None),
        ("Score: 0.47\nBecau", 0.47),
        ("0.47\n\nExpl", 0.47),
        ("1: 0.47\n", 0.47),
        ("**0.47**\n", 0.47),
        ("0.47. The two te", 0.47),
        ('{"score": 0.47}', 0.47),
    ],
)
def test_replies_cut_short(text: str, value: float | None) -> None:
    found = got(text, finish_reason="length")
    assert found[:2] == (value, "truncated" if value is None else "ok")
    assert ("cut" in found[2]) == (value is not None)


def test_reasons_of_other_servers() -> None:
    assert got("0.47", finish_reason=None) == (0.47, "ok", set())
    assert got("0.47", finish_reason="end_turn") == (0.47, "ok", set())
    assert got("0.47", finish_reason="MAX_TOKENS") == (None, "truncated", set())
    assert got("0.47", finish_reason="SAFETY") == (None, "filtered", set())
    assert got("0.47", finish_reason="who\x1bknows") == (None, "truncated", {"finish_unknown"})
    assert got("0.47\n", finish_reason="who knows") == (0.47, "ok", {"cut", "finish_unknown"})
    assert got("I cannot rate th", finish_reason="length") == (None, "refusal", set())
    assert got(None) == (None, "empty", set())


def test_a_scale_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"'stars\\x1b' is no scale of ratings; there are dec2, d9, pct"):
        read("4", "stars\x1b")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="at least one pair, got 0"):
        read_list("1: 0.4", 0, "dec2")


def test_the_version_is_a_word_that_can_be_kept() -> None:
    assert re.fullmatch(r"\d+", PARSER)


# -- lists ---------------------------------------------------------------------------------------------------------------------


def listed(text: str | None, pairs: int = 3, scale: Scale = "dec2", **more: str | None) -> list[tuple[float | None, str]]:
    found = read_list(text, pairs, scale, **more)
    for one in found:
        check(text or "", scale, one)
    return [(one.value, one.status) for one in found]


RATED = [(0.47, "ok"), (0.5, "ok"), (0.6, "ok")]


@pytest.mark.parametrize(
    "text",
    [
        "1: 0.47\n2: 0.50\n3: 0.6",
        "1. 0.47\n2. 0.50\n3. 0.6\n",
        "3: 0.6\n1: 0.47\n2: 0.5",
        "Pair 1: 0.47\r\nPair 2: 0.5\r\nPair 3: 0.6",
        "Sure! Here are the ratings:\n\n**1:** 0.47\n**2:** 0.5\n**3:** 0.6\n\nLet me know if you need more.",
        "| Pair | Score |\n|---|---|\n| 1 | 0.47 |\n| 2 | 0.5 |\n| 3 | **0.6** |",
        "1 0.47\n2, 0.5\n3 - 0.6",
        "1) 0.47\n2) 0.5\n3) 0.6",
        "- 1: 0.47\n- 2: 0.5\n- 3: 0.6",
        "1: 0.47\n\n2: 0.5\n\n3: 0.6",
        "1：０．４７\n2：０．５\n3：０．６",
        "<think>1: 0.1\n2: 0.2</think>1: 0.47\n2: 0.5\n3: 0.6",
        '{"1": 0.47, "2": "0.5", "3": 0.60}',
        '{"pair 1": 0.47, "pair 2": 0.5, "pair 3": {"score": 0.6}}',
        "1: 0.47 (both on law)\n2: 0.5 because\n   the second denies it\n3: 0.6",
    ],
)
def test_lists(text: str) -> None:
    assert listed(text) == RATED


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("1: 0.47\n1: 0.5\n2: 8\n3: 0.4-0.5", ["multiple", "out_of_range", "range"]),
        ("1: 0.47\nActually 0.6\n2: -0.3\n3:", ["multiple", "out_of_range", "empty"]),
        ("1: 0.47, 2: 0.5, 3: 0.6", ["multiple", "empty", "empty"]),
        ("0.47\n0.5\n0.6", ["nonnumeric"] * 3),
        ("0.47, 0.5, 0.6", ["nonnumeric"] * 3),
        ("1.00\n0.5\n0.6", ["nonnumeric"] * 3),
        ("They all differ.", ["nonnumeric"] * 3),
        ('{"1": 0.47, "scores": 0.5}', ["bad_json"] * 3),
        ('{"1": 0.47', ["bad_json"] * 3),
        ('{"1": 0.4, "1": 0.5, "2": "I cannot rate this", "3": null}', ["multiple", "refusal", "nonnumeric"]),
        ("I cannot rate these.", ["refusal"] * 3),
        ("I can't rate these, but:\n1: 0.4\n2: 0.5\n3: 0.6", ["refusal"] * 3),
        ("1: 0.4\n2: 0.5\n3: 0.6\n\nI cannot honestly rate these.", ["refusal"] * 3),
        ("<think>1: 0.4", ["truncated"] * 3),
        ("", ["empty"] * 3),
    ],
)
def test_lists_without_ratings(text: str, wanted: list[str]) -> None:
    assert listed(text) == [(None, status) for status in wanted]


def test_refusals_in_lists_are_those_of_their_pairs() -> None:
    assert listed("1: 0.47\n2: I cannot rate this\n3: 0.6") == [(0.47, "ok"), (None, "refusal"), (0.6, "ok")]
    assert listed("1: 0.47\n2: 0.5\n\nI cannot rate pair 3.") == [(0.47, "ok"), (0.5, "ok"), (None, "refusal")]
    found = read_list("1: 0.47\n2: 0.5\n3: 0.6\n\nI cannot rate pair 3.", 3, "dec2")
    assert [one.value for one in found] == [0.47, 0.5, None]
    assert found[2].flags == ("hedged_number",)


def test_lists_cut_short() -> None:
    assert listed("1: 0.47\n2: 0.5", finish_reason="length") == [(0.47, "ok"), (None, "truncated"), (None, "truncated")]
    assert listed("1: 0.47\n3: 0.6\n", finish_reason="length") == [(0.47, "ok"), (None, "empty"), (0.6, "ok")]
    assert listed("1: 0.47", finish_reason="content_filter") == [(None, "filtered")] * 3
    assert listed(None, refusal="No.") == [(None, "refusal")] * 3
    assert listed('{"1": 0.4', finish_reason="length") == [(None, "truncated")] * 3


def test_marks_of_lists() -> None:
    first, second = read_list("1: 0.47\n5: 0.5\n\nThe anchor is 0.50.", 2, "dec2")
    assert first.flags == ("outside_text", "unknown_pairs")
    assert (second.status, second.flags) == ("empty", ("missing", "outside_text", "unknown_pairs"))
    assert read_list("0.47\n0.5", 2, "dec2")[0].flags == ("unnumbered",)
    assert read_list("1: 0.47\n1: 0.470", 1, "dec2")[0].flags == ("repeated",)
    assert read_list("1: 0.47\n1: 0.47\n1: 0.47", 1, "dec2")[0].status == "multiple"


def test_whole_numbers_in_lists() -> None:
    assert listed("1: 4\n2. 5\n3) 9", scale="d9") == [(4 / 9, "ok"), (5 / 9, "ok"), (1.0, "ok")]
    assert listed("1: 40\n2. 50\n3 60", scale="pct") == [(0.4, "ok"), (0.5, "ok"), (0.6, "ok")]
    # 1 - 3 may be a range
    assert listed("1 - 3", 1, "d9") == [(None, "nonnumeric")]


# -- any text ------------------------------------------------------------------------------------------------------------------

PIECES = [
    *"0123456789.,-+/%:;() \n", "0.47", ".3", "0,5", "1.00", "1", "47", "100", "8", "-0.2", "0.4-0.5", "Score: ", "1: ", "2. ", " or ", " to ", "because ",
    "0.5", "*", "text ", " out of ", "is ", "４", "\n\n", '"', "٫", "Pair 1: ", "<think>", "</think>", "[]", "3) ", "| 1 | ", "0.62",
    *"{}<>|_`'~=#\\^$&!?\t", "1e-3", "  ", "\r\n", "\u200b", "\u200f", "\ufeff", "\u2212", "\u2013", "０", "．", "٤", "٪", "५", "²", "½", "\u20e3", "分", "：",
    "，", "[THINK]", "```", "```json\n", '{"score": ', '"score"', '{"1":', "null", "true", "pair ", " and ", "between ", "about ", "than ", "not ",
    "I cannot rate ", "sorry", "抱歉", "无法评分", "相似度", "<b>", "</b>", "\ud800", "\x00", "\x1b[2J", "= ", "->", "é", "İ", "ß", "a", "x",
]  # fmt: skip
SCALES = st.sampled_from(get_args(Scale))
ENDS = st.sampled_from(["stop", "length", None, "content_filter", "?"])


def check_both(text: str, scale: Scale, finish: str | None, pairs: int) -> None:
    check(text, scale, read(text, scale, finish_reason=finish))
    found = read_list(text, pairs, scale, finish_reason=finish)
    assert len(found) == pairs
    for one in found:
        check(text, scale, one)
    spans = [one.span for one in found if one.span is not None]
    assert len(set(spans)) == len(spans)


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), st.text(max_size=60)), SCALES, ENDS, st.integers(1, 4))
def test_no_crash_and_never_a_number_that_is_not_there(text: str, scale: Scale, finish: str | None, pairs: int) -> None:
    check_both(text, scale, finish, pairs)


def fuzz(seed: int, replies: int) -> int:
    """How many of so many replies made of pieces have a rating; most pieces numbers and what belongs to them, or nearly none would."""
    draws, rated = random.Random(seed), 0
    for _ in range(replies):
        near = draws.random() < 0.5
        text = "".join(draws.choices(PIECES[: 60 if near else None], k=draws.randrange(1, 6 if near else 20)))
        scale, finish = draws.choice(get_args(Scale)), draws.choice(["stop", "stop", "length", None])
        check_both(text, scale, finish, draws.randrange(1, 4))
        rated += read(text, scale, finish_reason=finish).value is not None
    return rated


def test_never_a_number_that_is_not_there_in_many_replies() -> None:
    assert fuzz(1, 2_500) > 100


@pytest.mark.slow
def test_never_a_number_that_is_not_there_in_very_many_replies() -> None:
    assert fuzz(2, 150_000) > 7_500


WORDS = st.lists(
    st.sampled_from(["so", "these", "two", "are", "close", "since", "both", "speak", "of", "law", "a", "bit"]), max_size=6
).map(" ".join)
CENTS = st.integers(1, 99)


@settings(max_examples=100, deadline=None)
@given(WORDS, CENTS, st.sampled_from([" ", ": ", "\n", ". ", ", "]), WORDS, st.sampled_from([" ", ": ", "\n", ", ", "; "]), CENTS, WORDS)
def test_two_different_ratings_are_never_one(before: str, one: int, stop: str, middle: str, label: str, other: int, after: str) -> None:
    assume(one != other)
    text = f"{before} 0.{one:02d}{stop}{middle}{label}0.{other:02d} {after}"
    assert read(text, "dec2").value is None


@settings(max_examples=100, deadline=None)
@given(
    CENTS,
    st.sampled_from(["", "<think>0.{:02d}, or 0.9</think>", "so 0.{:02d} it seems</think>\n", "[THINK]{:02d}[/THINK]"]),
    CENTS,
    st.sampled_from(["", "Score: ", "**", "1: ", "Pair 7: ", "Similarity = ", "On a scale from 0.00 to 1.00: ", "相似度："]),
    st.sampled_from(["", ".", "**", "\n", " because text 1 names 3 causes.", "\n\nThe two differ in 12 ways."]),
)
def test_the_rating_is_found_among_what_does_not_count(cents: int, thought: str, decoy: int, label: str, tail: str) -> None:
    text = f"{thought.format(decoy)}{label}0.{cents:02d}{tail}"
    assert read(text, "dec2").value == cents / 100


@settings(max_examples=100, deadline=None)
@given(
    st.lists(CENTS, min_size=1, max_size=12),
    st.randoms(use_true_random=False),
    st.sampled_from(["{}: 0.{:02d}", "{}. 0.{:02d}", "Pair {}: **0.{:02d}**"]),
)
def test_lists_are_read_by_their_numbers(cents: list[int], shuffler: random.Random, line: str) -> None:
    lines = [line.format(k, c) for k, c in enumerate(cents, start=1)]
    shuffler.shuffle(lines)
    assert [one.value for one in read_list("\n".join(lines), len(cents), "dec2")] == [c / 100 for c in cents]


# -- hostile lengths -----------------------------------------------------------------------------------------------------------

HOSTILE: dict[str, Callable[[int], str]] = {
    "digits": lambda n: "4" * n,
    "decimals": lambda n: "0." + "4" * n,
    "spaces": lambda n: "Score:" + " " * n + "0.47" + " " * n + ".",
    "braces": lambda n: "{" * n,
    "objects": lambda n: '{"a":' * (n // 5),
    "lists in JSON": lambda n: '{"score":' + "[" * n,
    "keys": lambda n: "{" + '"a":1,' * (n // 6) + '"score":0.4}',
    "ratings in JSON": lambda n: "{" + '"score":1,' * (n // 10) + '"a":1}',
    "numbers": lambda n: "1 " * (n // 2),
    "ratios": lambda n: "1/" * (n // 2),
    "dots": lambda n: "1." * (n // 2),
    "tags": lambda n: "<a" * (n // 2),
    "thoughts": lambda n: "<think>" * (n // 7),
    "ends of thoughts": lambda n: "</think>" * (n // 8) + "0.47",
    "minus": lambda n: "0.4" + "-" * n + "0.5",
    "refusals begun": lambda n: "ich kann nicht " * (n // 15),
    "refusals nearly": lambda n: "i cannot provide a b c d " * (n // 25),
    "one long word": lambda n: "i cannot " + "a" * n,
    "無": lambda n: "无法" * (n // 2),
    "line breaks": lambda n: "\n" * n + "0.4",
    "lines": lambda n: "1: 0.47\n" * (n // 8),
    "quotes": lambda n: "." + "'" * n,
    "fences": lambda n: "```\n" * (n // 4),
    "objects in a list": lambda n: '1: {"a\n' * (n // 7),
    "bangs": lambda n: "!" * n,
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_time_is_linear_in_the_length(kind: str) -> None:
    """Eight times the length takes about eight times as long, not 64 times; time of this process alone, the best of several runs."""

    def seconds(n: int, runs: int) -> float:
        text, times = HOSTILE[kind](n), []
        for _ in range(runs):
            begun = time.process_time()
            one, several = read(text, "dec2"), read_list(text, 3, "pct")
            times.append(time.process_time() - begun)
            check(text, "dec2", one)
            assert len(several) == 3
        return min(times)

    assert seconds(24_000, 3) < 28 * max(seconds(3_000, 5), 0.001)


@pytest.mark.parametrize("text", ["4" * 100_000, "0.47" + " " * 2_000_000, "{" * 300_000, "[" * 200_000 + "0.4", '{"a":' * 200_000])
def test_huge_replies_take_a_moment(text: str) -> None:
    begun = time.process_time()
    check(text, "dec2", read(text, "dec2"))
    assert time.process_time() - begun < 5
