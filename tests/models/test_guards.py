"""Guards at their posts: how a moderator is asked, what identifies it, and what a verdict takes."""

from __future__ import annotations

from typing import Any

import pytest

from aligntax.core.asks import Failure, GenerateAsk, Prompt
from aligntax.core.errors import InputError
from aligntax.core.guards import Guard
from aligntax.models.guards import Checked, posted
from aligntax.models.timing import stopwatch
from aligntax.testing import KnownModel, PacedModel


def judge(**more: Any) -> Guard:
    return Guard(
        **{"name": "judge", "where": "output", "model": "x", "ask": "harm? {prompt} {answer}", "blocks": "^yes", "passes": "^no", **more}
    )


def test_a_moderator_is_asked_in_a_chat_if_it_can() -> None:
    can, cannot = KnownModel("m", lambda _: "no"), KnownModel("m", lambda _: "no", chats=False)
    assert posted(judge(), can, "m", "arm").ask("p", "a") == GenerateAsk(can.chat([("user", "harm? p a")]), 16)
    assert posted(judge(), cannot, "m", "arm").ask("p", "a").prompt.text == "harm? p a"
    assert posted(judge(template="raw", max_tokens=3), can, "m", "arm").ask("p", "a") == GenerateAsk(can.raw("harm? p a"), 3)
    with pytest.raises(InputError, match="guard 'judge' of arm asks m in a chat, and it has no chat template"):
        posted(judge(template="chat"), cannot, "m", "arm")


def test_a_moderator_is_identified_by_its_content() -> None:
    one, other = (posted(judge(), KnownModel("m", lambda _: "no", identity=i), "label", "arm").guard for i in ("one", "other"))
    assert one.identity != other.identity
    assert (one.model, one.template) == ("label", "chat")
    assert posted(judge(), KnownModel("m", lambda _: "no", identity="one"), "label", "arm").guard == one


def test_who_cannot_act_is_refused() -> None:
    class Mute:
        name, facts, identity = "mute", {"chat_template": True}, {"known": "mute"}

    with pytest.raises(InputError, match="guard 'judge' of arm asks mute, which writes no answers"):
        posted(judge(), Mute(), "mute", "arm")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="guard 'c' of arm is a function that is not here"):
        posted(Guard(name="c", where="input", version="1"), None, "", "arm")


class Counted(PacedModel):
    """Knows its tokens: a word is one."""

    def chat(self, messages: Any) -> Prompt:
        text = super().chat(messages).text or ""
        return Prompt(text, tuple(range(len(text.split()))), tuple(messages), special=False)


def test_a_verdict_takes_the_moderators_time_and_tokens() -> None:
    model = Counted("m", lambda text: "yes indeed" if "bomb" in text else "no", first=0.5, per_token=0.25)
    sentry = posted(judge(), model, "m", "arm")
    assert sentry.timed("p", "a bomb", stopwatch(model)) == Checked(True, 0.75, 4 + 2)
    assert sentry.timed("p", "a", stopwatch(model)) == Checked(False, 0.5, 3 + 1)
    blind = PacedModel("m", lambda _: "no", first=0.5, per_token=0.25)
    assert posted(judge(), blind, "m", "arm").timed("p", "a", stopwatch(blind)) == Checked(False, 0.5, None)  # nobody told what it read
    for said, why in ((Failure("it was down"), "it was down"), ("maybe", "neither")):
        failing = PacedModel("m", lambda _, said=said: said, first=0.5, per_token=0.25)
        found = posted(judge(), failing, "m", "arm").timed("p", "a", stopwatch(failing))
        assert isinstance(found, Failure)
        assert why in found.why


def test_a_pattern_and_a_check_take_their_own_time() -> None:
    for guard in (Guard(name="w", where="input", pattern="bomb"), Guard(name="c", where="input", check=lambda t: "bomb" in t, version="1")):
        found = posted(guard, None, "", "arm").timed("a bomb", None, None)
        assert isinstance(found, Checked)
        assert found.blocks
        assert 0 < found.seconds < 1
        assert found.tokens == 0
