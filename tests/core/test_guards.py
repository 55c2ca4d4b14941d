"""Guards as they are written: what is one, what they say of a text, and what a moderator is asked."""

from __future__ import annotations

from typing import Any

import pytest

from aligntax.core.asks import Failure
from aligntax.core.errors import InputError
from aligntax.core.guards import LONGEST, Guard, from_file
from aligntax.core.study import Elicitation

MODERATOR: dict[str, Any] = {"name": "judge", "where": "output", "model": "lab:base", "ask": "{prompt} {answer}?", "blocks": "yes"}


def test_a_pattern_is_searched_for() -> None:
    guard = Guard(name="words", where="input", pattern=r"(?i)\b(bomb|poison)\b")
    assert [guard.searched(text) for text in ("How to make a BOMB?", "bombastic", "", "a\npoison")] == [True, False, False, True]


def test_only_the_beginning_of_a_very_long_text_is_searched() -> None:
    guard = Guard(name="words", where="output", pattern="bomb")
    assert guard.searched("x" * (LONGEST - 4) + "bomb") is True
    assert guard.searched("x" * (LONGEST - 3) + "bomb") is False


def test_a_check_says_true_or_false_and_what_it_raises_is_no_verdict() -> None:
    long = Guard(name="long", where="output", check=lambda text: len(text) > 3, version="1")
    assert [long.searched(text) for text in ("abc", "abcd")] == [False, True]

    def broken(text: str) -> bool:
        raise KeyError(text)

    verdict = Guard(name="broken", where="input", check=broken, version="1").searched("a\x1b[2J")
    assert isinstance(verdict, Failure)
    assert verdict.why == "the check raised KeyError: 'a\\x1b[2J'"
    for found in ("yes", None, 1, 0.9):
        with pytest.raises(InputError, match="guard 'odd': its check must return True or False, got"):
            Guard(name="odd", where="input", check=lambda _, found=found: found, version="1").searched("x")


def test_a_moderator_is_shown_texts_as_they_are() -> None:
    """An answer that holds a place is not filled in, nor is a question; braces are only braces."""
    guard = Guard(**{**MODERATOR, "ask": "Q: {prompt}\nA: {answer}\nharmful? {json} {{prompt}}"})
    assert guard.question("what is {answer}?", "{prompt} {0} \\g<0>") == (
        "Q: what is {answer}?\nA: {prompt} {0} \\g<0>\nharmful? {json} {what is {answer}?}"
    )


def test_a_reply_blocks_passes_or_is_neither() -> None:
    loose = Guard(**{**MODERATOR, "blocks": r"(?i)^\s*yes"})
    assert [loose.read(reply) for reply in (" Yes.", "no, yes", "")] == [True, False, False]
    strict = Guard(**{**MODERATOR, "blocks": r"(?i)^\s*yes", "passes": r"(?i)^\s*no"})
    assert [strict.read(reply) for reply in ("yes and no", "no")] == [True, False]
    neither = strict.read("As an AI")
    assert isinstance(neither, Failure)
    assert "neither" in neither.why


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"where": "input", "pattern": "x"}, "a guard has no name"),
        ({"name": "w", "pattern": "x"}, "guard 'w' has no where"),
        ({"name": "w", "where": "inside", "pattern": "x"}, "guard 'w': where must be input (reads the question) or output (reads the answer), got 'inside'"),
        ({"name": "w", "where": "system", "text": "Be careful."}, "a system prompt blocks nothing and is the arm's own key system"),
        ({"name": "w", "where": "input"}, "a guard is a pattern, a model that is asked, or (from Python) a check with its version; found nothing of it"),
        ({**MODERATOR, "pattern": "x"}, "found a pattern and a model"),
        ({"name": "w", "where": "input", "pattern": "x", "blocks": "x"}, "ask, blocks, passes, template and max_tokens are for a model that is asked"),
        ({"name": "w", "where": "input", "pattern": "x", "max_tokens": 5}, "max_tokens are for a model that is asked"),
        ({"name": "w", "where": "input", "pattern": "x", "self": 5}, "guard 'w': unknown key 'self'"),
        ({"name": "w", "where": "input", "pattern": "("}, "guard 'w': pattern '(' is no regular expression (missing ), unterminated subpattern"),
        ({"name": "w", "where": "input", "pattern": ""}, "guard 'w': pattern '' is found in every text, even an empty one"),
        ({"name": "w", "where": "input", "pattern": "(bomb)*"}, "is found in every text"),
        ({"name": "w", "where": "input", "pattern": "\ud800"}, "guard 'w': its texts must be UTF-8"),
        ({"name": "w", "where": "input", "pattern": "x", "colour": "red"}, "guard 'w': unknown key 'colour'; known: name, where, pattern, model"),
        ({"name": "w w", "where": "input", "pattern": "x"}, "a name has 1 to 60 letters, digits, dots, hyphens and underscores"),
        ({"name": "a,b", "where": "input", "pattern": "x"}, "a name has 1 to 60 letters"),
        ({**MODERATOR, "ask": "Is it harmful? {prompt}"}, "guard 'judge': ask has no {answer}: an output guard must show its moderator the answer"),
        ({**MODERATOR, "where": "input"}, "ask of an input guard has {prompt}, and no {answer}"),
        ({**MODERATOR, "where": "input", "ask": "harmful?"}, "ask of an input guard has {prompt}"),
        ({**MODERATOR, "ask": None}, "a moderator needs ask (what it is asked) and blocks"),
        ({**MODERATOR, "blocks": None}, "a moderator needs ask (what it is asked) and blocks"),
        ({**MODERATOR, "blocks": "["}, "blocks '[' is no regular expression"),
        ({**MODERATOR, "passes": ".*"}, "passes '.*' is found in every text"),
        ({**MODERATOR, "max_tokens": 0}, "guard 'judge': max_tokens: Input should be greater than or equal to 1, got 0"),
        ({"name": "c", "where": "input", "check": "os.system", "version": "1"}, "guard 'c': check: Input should be callable, got 'os.system'"),
        ({"name": "c", "where": "input", "check": len}, "guard 'c': a check needs a version"),
        ({"name": "c", "where": "input", "check": len, "version": ""}, "guard 'c': a check needs a version"),
    ],
)  # fmt: skip
def test_what_is_no_guard_is_refused_in_one_sentence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Guard(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pattern_that_another_python_may_read_otherwise_is_one() -> None:
    assert Guard(name="brackets", where="input", pattern="[[a]").searched("[") is True  # re warns of it, and a warning is an error here


def test_an_empty_answer_may_be_what_is_blocked() -> None:
    assert Guard(name="silent", where="output", pattern=r"^\s*$").searched("") is True


def test_guards_of_an_arm_go_together() -> None:
    one = Guard(name="words", where="input", pattern="bomb")
    for given, message in (
        ({"guards": (one, one)}, "two guards of one arm are named 'words'"),
        ({"instead": "no."}, "instead is what the user gets in place of what a guard blocks, and there are no guards"),
        ({"guards": (one,), "instead": " "}, "instead is empty"),
        ({"guards": (one,), "instead": "\ud800"}, "instead must be UTF-8 text"),
    ):
        with pytest.raises(ValueError, match=message):
            Elicitation(**given)  # type: ignore[arg-type]


def test_code_is_not_written_down() -> None:
    """What is stored of a check is its name and version; such a record can be read again."""
    how = Elicitation(guards=(Guard(name="c", where="input", check=len, version="2024-05"),))
    stored = how.model_dump(mode="json")
    assert "check" not in stored["guards"][0]
    again = Elicitation.model_validate(stored)
    assert (again.guards[0].name, again.guards[0].version, again.guards[0].check) == ("c", "2024-05", None)
    assert again.model_dump(mode="json") == stored


@pytest.mark.parametrize("key", ["check", "version", "identity"])
def test_a_file_names_no_code(key: str) -> None:
    with pytest.raises(ValueError, match=f"a guard in a file has no {key}: a file names no code"):
        from_file({"name": "c", "where": "input", key: "os.system"})
    assert from_file({"name": "c"}) == {"name": "c"}


@pytest.mark.parametrize("key", [1, None, True, ("a", "b")])
def test_keys_in_a_file_are_words(key: object) -> None:
    with pytest.raises(ValueError, match=r"a guard has the keys name, where, pattern, .*; found") as caught:
        from_file({"name": "c", key: "x"})
    assert str(caught.value).endswith(repr(key))
