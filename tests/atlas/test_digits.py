"""Expected ratings: the known answer, where the answer stands, and log-probabilities that cannot be true."""

from __future__ import annotations

from dataclasses import astuple
from math import exp, inf, log, nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.atlas.digits import LEAST_MASS, REASONS, Expected, Place, mixed, rate
from aligntax.atlas.replies import read

F5 = {"4": 0.5, "5": 0.3, "3": 0.1, "6": 0.05, " the": 0.02}
"""The page's known answer."""


def place(token: str, listed: dict[str, float], own: float | None = None) -> Place:
    """A position by probabilities; the chosen token's is that in the list, else ``own``."""
    p = listed.get(token, own)
    assert p is not None
    return Place(token, log(p), tuple((t, log(x)) for t, x in listed.items()))


def sure(token: str) -> Place:
    """A position that is not the answer's."""
    return Place(token, log(0.98), ((token, log(0.98)), ("9", log(0.015))))


def reason(answer: Place, text: str = "4") -> str | None:
    rated = rate([answer], text)
    assert (rated.source == "logprob") == (rated.expected.reason is None)
    if rated.expected.reason is not None:
        assert rated.expected.rating is None
        assert rated.value == rated.reading.value
    return rated.expected.reason


def test_known_answer() -> None:
    """F5 of the page, to the digits it prints."""
    found = rate([place("4", F5)], "4")
    got = found.expected
    assert found.source == "logprob"
    assert got.mass == pytest.approx(0.95, abs=1e-12)
    assert got.digit == pytest.approx(4.315789, abs=5e-7)
    assert found.value == got.rating == pytest.approx(0.479532, abs=5e-7)
    assert got.sd == pytest.approx(0.081032, abs=5e-7)
    assert got.entropy == pytest.approx(1.093770, abs=5e-7)
    assert got.mode == pytest.approx(0.444444, abs=5e-7)


def test_closed_forms() -> None:
    """Two halves: mean in the middle, sd half their distance, entropy ln 2. All ten alike: 4.5, sqrt(99/12), ln 10, and the lowest mode."""
    two = rate([place("2", {"2": 0.5, "6": 0.5})], "2").expected
    assert (two.mass, two.digit, two.mode) == (1.0, 4.0, pytest.approx(2 / 9))
    assert two.sd == pytest.approx(2 / 9)
    assert two.entropy == pytest.approx(log(2))
    ten = rate([place("7", {str(d): 0.1 for d in range(10)})], "7").expected
    assert ten.digit == pytest.approx(4.5)
    assert ten.sd == pytest.approx((99 / 12) ** 0.5 / 9)
    assert ten.entropy == pytest.approx(log(10))
    assert ten.mode == 0.0


def test_the_value_may_differ_from_the_digit_that_was_drawn() -> None:
    rated = rate([place("3", F5)], "3")
    assert rated.reading.value == pytest.approx(3 / 9)
    assert rated.value == pytest.approx(4.315789 / 9, abs=1e-7)


def test_spellings_of_one_digit_are_summed() -> None:
    rated = rate([place(" 4", {" 4": 0.3, "4": 0.2, "\uff14": 0.1, "8": 0.35})], "4")
    assert rated.expected.mass == pytest.approx(0.95)
    assert rated.expected.digit == pytest.approx((0.6 * 4 + 0.35 * 8) / 0.95)


def test_the_chosen_token_counts_once_listed_or_not() -> None:
    listed = rate([place("4", F5)], "4").expected
    rest = {t: p for t, p in F5.items() if t != "4"}
    assert astuple(rate([place("4", rest, own=0.5)], "4").expected) == pytest.approx(astuple(listed))
    marked = Place("\u01204", log(0.5), tuple((t.replace("4", " 4"), log(p)) for t, p in F5.items()))
    assert astuple(rate([marked], "4").expected) == pytest.approx(astuple(listed))


# -- where the answer stands ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], []),
        (["<think>", "maybe", " ", "3", "</think>"], []),
        (["<think>", "\u0120not", "\u01204", "</think>", "\u010a\u010a"], ["<|im_end|>"]),
        (["Score", ":"], ["</s>"]),
        (["Pair", " ", "1", "2", ":"], []),
        (["1", ".", " "], []),
        (["**"], ["**", "\n", "<|eot_id|>", "<|end_of_text|>"]),
        (["\u2581"], [" because", " they", " differ", "."]),
        (['{"', "rating", '":', " "], ["}"]),
        (["```", "json", "\n", '{"', "score", '":"'], ['"', "}", "\n", "```"]),
    ],
)
def test_the_answer_is_looked_up_not_the_first_digit(before: list[str], after: list[str]) -> None:
    """Every other place would give 9s: only the answer's gives the known answer."""
    places = [*map(sure, before), place("4", F5), *map(sure, after)]
    text = "".join([*before, "4", *after]).replace("\u0120", " ").replace("\u010a", "\n").replace("\u2581", " ")
    for special in ("<|im_end|>", "</s>", "<|eot_id|>", "<|end_of_text|>"):
        text = text.replace(special, "")
    rated = rate(places, text.strip())
    assert rated.expected.place == len(before)
    assert rated.value == pytest.approx(0.479532, abs=5e-7)


def test_thinking_that_the_server_keeps_to_itself_may_stand_before() -> None:
    rated = rate([*map(sure, ["so", " ", "7", "."]), place("4", F5)], "4")
    assert rated.expected.place == 4
    assert rated.source == "logprob"


def test_end_tokens_of_the_text_itself_are_not_taken_off() -> None:
    rated = rate([*map(sure, ["<score>"]), place("4", F5), *map(sure, ["</score>", "<|im_end|>"])], "<score>4</score>")
    assert rated.expected.place == 1


@pytest.mark.parametrize(
    ("tokens", "text", "why"),
    [
        (["4"], "5", "no_match"),
        (["4", " or", " so"], "4", "no_match"),
        (["4", *["<|im_end|>"] * 50], "4", "no_match"),
        (["\ufffd\ufffd", "\n", "4"], "é\n4", "no_match"),
        (["4."], "4.", "shared_token"),
        (["Score:4"], "Score:4", "shared_token"),
        (["I", " can", "not", " rate", " this"], "I cannot rate this", "no_rating"),
        (["4", "7"], "47", "no_rating"),
        (["4", "-", "5"], "4-5", "no_rating"),
        (["<think>", "4"], "<think>4", "no_rating"),
        ([], "4", "no_logprobs"),
    ],
)
def test_no_expected_rating_without_the_answers_token(tokens: list[str], text: str, why: str) -> None:
    rated = rate([place(t, {t: 0.95, "8": 0.04}) for t in tokens], text)
    assert rated.expected.reason == why
    assert (rated.source, rated.value) == ("sampled", read(text, "d9").value)


def test_a_digit_at_the_end_of_a_reply_cut_short_is_no_answer() -> None:
    rated = rate([place("4", F5)], "4", finish_reason="length")
    assert rated.reading.status == "truncated"
    assert (rated.value, rated.source, rated.expected.reason) == (None, "sampled", "no_rating")


def test_a_refusal_beside_the_text_takes_the_rating_with_it() -> None:
    rated = rate([place("4", F5)], "4", refusal="I cannot help with that.")
    assert (rated.value, rated.reading.status, rated.expected.reason) == (None, "refusal", "no_rating")


# -- what servers send instead -------------------------------------------------------------------------------------------------


def test_mass() -> None:
    assert reason(place("4", {"4": 0.6, "5": 0.3, "the": 0.1})) is None
    found = rate([place("4", {"4": 0.6, "5": 0.29, "the": 0.11})], "4").expected
    assert (found.reason, found.mass, found.rating) == ("low_mass", pytest.approx(0.89), None)
    assert pytest.approx(0.9) == LEAST_MASS


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Place("4", 0.0, (("4", 0.0), ("5", 0.0), ("the", 0.0))), "all_zero"),
        (Place("4", 0.0, (("4", 0.0), ("5", -9999.0), ("6", -9999.0))), "floor"),
        (Place("4", 0.0, (("4", 0.0), ("5", -inf))), "floor"),
        (Place("4", -9999.0, (("4", -9999.0), ("5", -0.1))), "floor"),
        (Place("4", -9999.0, (("4", -9999.0), ("5", -9999.0))), "floor"),
        (Place("4", -0.1, (("4", -0.1), ("5", nan))), "not_a_number"),
        (Place("4", nan, (("4", -0.1), ("5", -3.0))), "not_a_number"),
        (Place("4", inf, (("4", -0.1), ("5", -3.0))), "positive"),
        (Place("4", -0.1, (("4", -0.1), ("5", 0.5))), "positive"),
        (Place("4", -0.1, (("4", -0.1), ("5", 1e300))), "positive"),
        (Place("4", -0.1, (("4", -0.1), ("5", -0.2))), "sum_above_one"),
        (Place("4", log(0.6), (("4", log(0.6)), ("5", log(0.402)))), "sum_above_one"),
        (Place("4", -0.1, ()), "no_alternatives"),
        (Place("4", 0.0, (("4", 0.0),)), "no_alternatives"),
        (Place("4", log(0.6), (("4", log(0.6)), ("5", log(0.15)), ("5", log(0.15)))), "repeated_token"),
        (Place("4", log(0.6), (("4", log(0.6)), (" 5", log(0.2)), ("\u01205", log(0.1)))), "repeated_token"),
        (Place("4", log(0.6), (("4", log(0.3)), ("5", log(0.3)))), "inconsistent"),
    ],
)
def test_log_probabilities_that_cannot_be_true(answer: Place, why: str) -> None:
    assert reason(answer) == why


def test_what_may_look_odd_and_is_not() -> None:
    assert reason(Place("4", log(0.6), (("4", log(0.6)), ("5", log(0.4005))))) is None  # rounding
    assert reason(Place("4", 5e-5, (("4", 5e-5), ("5", -12.0)))) is None  # certain, by rounding above 0
    assert reason(Place("4", log(0.6), (("4", log(0.603)), ("5", log(0.39))))) is None  # half precision
    # A grammar masks all but digits: what is masked counts nothing.
    masked = rate([Place("4", log(0.6), (("4", log(0.6)), ("5", log(0.4)), ("the", -9999.0), ("6", -inf)))], "4").expected
    assert (masked.reason, masked.digit) == (None, pytest.approx(4.4))


def test_every_reason_is_explained() -> None:
    assert all(text and text[0].islower() for text in REASONS.values())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([*"0123456789", " 4", "\u01204", "the", "", "10", "²", "\u0664"]), st.floats(width=32)),
        max_size=12,
    ),
    st.sampled_from([*"0123456789", " 4", "\u0664"]),
    st.floats(max_value=0.0),
)
def test_no_list_of_log_probabilities_crashes_or_leaves_the_scale(top: list[tuple[str, float]], token: str, own: float) -> None:
    found = rate([Place(token, own, tuple(top))], token.strip())
    got = found.expected
    assert got.reason is None or got.reason in REASONS
    if got.reason is None:
        assert got.mass is not None
        assert got.digit is not None
        assert got.sd is not None
        assert got.entropy is not None
        assert LEAST_MASS - 1e-6 <= got.mass <= 1.002
        assert -1e-12 <= got.digit <= 9 + 1e-12
        assert 0 <= got.sd <= 0.5 + 1e-12
        assert 0 <= got.entropy <= log(10) + 1e-12
    else:
        assert got.rating is None
        assert found.source == "sampled"


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(min_value=1e-6, max_value=1.0), min_size=10, max_size=10), st.floats(min_value=0.9, max_value=1.0))
def test_it_is_the_mean_of_the_distribution(weights: list[float], mass: float) -> None:
    """Against the definition, digit by digit, for any distribution with enough on digits."""
    total = sum(weights)
    p = [mass * w / total for w in weights]
    got: Expected = rate([place("4", {str(d): x for d, x in enumerate(p)} | {"the": max(1 - mass, 1e-12)})], "4").expected
    assert got.mass == pytest.approx(mass)
    mean = sum(d * x / mass for d, x in enumerate(p))
    assert got.digit == pytest.approx(mean)
    assert got.sd == pytest.approx(sum((d - mean) ** 2 * x / mass for d, x in enumerate(p)) ** 0.5 / 9)
    assert got.entropy is not None
    assert exp(got.entropy) <= 10 + 1e-9


# -- kinds of ratings ----------------------------------------------------------------------------------------------------------


def test_kinds_are_never_mixed_without_a_word() -> None:
    assert mixed({}) is None
    assert mixed({"a": ["logprob"], "b": ["logprob", "logprob"]}) is None
    assert mixed({"a": ["sampled"], "b": []}) is None
    said = mixed({"b": ["sampled"], "a": ["logprob"], "c\x1b[2J": ["logprob", "sampled"]})
    assert said == (
        "ratings of two kinds are mixed: expected ratings (from log-probabilities) of a; sampled ratings of b; ratings of both kinds of c\\x1b[2J"
    )
    assert mixed({"c": ["logprob", "sampled"]}) is not None
