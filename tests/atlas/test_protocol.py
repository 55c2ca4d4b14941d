"""The plan of an ensemble's questions: what is asked, in which order, and what makes it another plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from aligntax.atlas import protocol as module
from aligntax.atlas.pairs import Pair, PairSet, pair_set
from aligntax.atlas.protocol import AGAIN, ATLAS_V1, VARIANTS, Call, Plan, Protocol, protocol_of
from aligntax.atlas.replies import read_list
from aligntax.core.errors import InputError

PAIRS = pair_set([Pair(f"p{i}", "ab"[i % 2], None, f"first {i}", f"second {i}", None) for i in range(6)], "test")
CHANGES: dict[str, Any] = {
    "presentation": "batch", "orders": ("AB",), "variants": ("ends",), "repeats": 2, "temperature": 0.0, "scale": "pct", "logprobs": False, "reprompt": False,
    "max_tokens": 20, "seed": 1,
}  # fmt: skip


def calls(plan: Plan, model: str = "m", identity: str = "x") -> list[Call]:
    return plan.calls(model, identity)


# -- identity ------------------------------------------------------------------------------------------------------------------


def test_every_setting_is_part_of_the_identity() -> None:
    assert CHANGES.keys() == Protocol.model_fields.keys()
    plain = Protocol()
    found = {Plan(plain, PAIRS).identity}
    for name, value in CHANGES.items():
        changed = Protocol.model_validate({**plain.model_dump(), name: value})
        assert changed != plain
        found.add(Plan(changed, PAIRS).identity)
    assert len(found) == 1 + len(CHANGES)


def other(pair: Pair, **changes: Any) -> PairSet:
    return pair_set([replace(pair, **changes), *PAIRS.pairs[1:]], "test")


@pytest.mark.parametrize("change", [{"name": "q"}, {"a": "First 0"}, {"b": "second 0 "}, {"a": "second 0", "b": "first 0"}])
def test_so_is_every_character_of_a_pair(change: dict[str, str]) -> None:
    assert Plan(Protocol(), other(PAIRS.pairs[0], **change)).identity != Plan(Protocol(), PAIRS).identity


@pytest.mark.parametrize("name", ["_ONE", "_LIST", "_LAB", "AGAIN"])
def test_and_every_wording(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = Plan(Protocol(), PAIRS).identity
    monkeypatch.setattr(module, name, getattr(module, name) + " ")
    assert Plan(Protocol(), PAIRS).identity != before


def test_the_order_of_the_rows_is_where_it_can_be_seen() -> None:
    turned = pair_set(PAIRS.pairs[::-1], "test")
    assert Plan(Protocol(), turned).identity == Plan(Protocol(), PAIRS).identity
    assert Plan(ATLAS_V1, turned).identity != Plan(ATLAS_V1, PAIRS).identity
    assert {c.key for c in calls(Plan(Protocol(), turned))} == {c.key for c in calls(Plan(Protocol(), PAIRS))}


def test_keys_are_unique() -> None:
    plan = Plan(Protocol(repeats=5), PAIRS)
    found = [c.key for model in ("m", "n") for identity in ("x", "y") for c in calls(plan, model, identity)]
    assert len(found) == 2 * 2 * 6 * 2 * 3 * 5
    assert len(set(found)) == len(found)
    seeds = [c.seed for c in calls(plan)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_two_pairs_of_one_text_are_two() -> None:
    twins = pair_set([Pair("p", "a", None, "x", "y", None), Pair("q", "b", None, "x", "y", None)], "test")
    assert len({c.key for c in calls(Plan(Protocol(), twins))}) == 2 * 2 * 3 * 3


def test_another_plan_has_other_keys() -> None:
    plain = Plan(Protocol(), PAIRS)
    hotter = Plan(Protocol(temperature=0.5), PAIRS)
    assert not {c.key for c in calls(plain)} & {c.key for c in calls(hotter)}


# -- the order of calls ------------------------------------------------------------------------------------------------------------


def test_the_order_is_random_of_each_model_and_the_same_every_time() -> None:
    plan = Plan(Protocol(), PAIRS)
    one, two = calls(plan, "m"), calls(plan, "n")
    assert calls(Plan(Protocol(), PAIRS), "m") == one

    def shown(some: list[Call]) -> list[tuple[object, ...]]:
        return [(c.pairs, c.order, c.variant, c.repeat) for c in some]

    assert sorted(shown(one)) == sorted(shown(two))
    assert shown(one) != shown(two) != sorted(shown(two))
    assert shown(calls(Plan(Protocol(seed=1), PAIRS))) != shown(one)
    halves = Counter(PAIRS.pairs[c.pairs[0]].category for c in one[: len(one) // 2])
    assert min(halves.values()) > len(one) / 8  # drift hits every category


def test_every_cell_is_asked_as_often() -> None:
    found = calls(Plan(Protocol(repeats=2), PAIRS))
    assert len(found) == 6 * 2 * 3 * 2
    assert Counter((c.pairs, c.order, c.variant) for c in found) == Counter(
        {((i,), order, variant): 2 for i in range(6) for order in ("AB", "BA") for variant in VARIANTS}
    )
    assert {c.repeat for c in found} == {1, 2}


# -- what is shown -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [*VARIANTS, "lab"])
def test_the_other_order_swaps_the_texts_and_nothing_else(variant: str) -> None:
    plan = Plan(Protocol(variants=(variant,), scale="d9", repeats=1), PAIRS)
    by_order = {c.order: plan.text(c) for c in calls(plan) if c.pairs == (2,)}
    assert by_order["AB"].index("first 2") < by_order["AB"].index("second 2")
    assert by_order["BA"].index("second 2") < by_order["BA"].index("first 2")
    assert by_order["BA"].replace("second 2", "*").replace("first 2", "second 2").replace("*", "first 2") == by_order["AB"]


@pytest.mark.parametrize(("scale", "ends"), [("dec2", ("0.00", "1.00")), ("d9", ("0", "9")), ("pct", ("0", "100"))])
def test_wordings_name_the_ends_of_the_scale(scale: Any, ends: tuple[str, str]) -> None:
    plan = Plan(Protocol(scale=scale, repeats=1, orders=("AB",)), PAIRS)
    texts = {c.variant: plan.text(c) for c in calls(plan) if c.pairs == (0,)}
    assert len(set(texts.values())) == 3
    for text in texts.values():
        assert all(f" {end} means that they" in text or f" {end} that they" in text for end in ends)
        assert "{" not in text
    assert ("0.50" in texts["anchored"], "0.50" in texts["ends"]) == ((True, False) if scale == "dec2" else (False, False))
    assert "opposite claims" in texts["contradiction"]


def test_texts_that_look_like_templates_are_shown_as_they_are() -> None:
    odd = pair_set([Pair("p", "a", None, "{one} {scale} {0} %s", "}{ {{two}}", None), Pair("q", "a", None, "x", "y", None)], "t")
    for protocol in (Protocol(repeats=1), ATLAS_V1, Protocol(variants=("lab",), scale="d9")):
        plan = Plan(protocol, odd)
        text = plan.text(next(c for c in calls(plan) if 0 in c.pairs))
        assert "{one} {scale} {0} %s" in text
        assert "}{ {{two}}" in text


def test_one_question_is_one_message_and_the_second_has_the_reply() -> None:
    plan = Plan(Protocol(), PAIRS)
    call = calls(plan)[0]
    assert plan.messages(call) == (("user", plan.text(call)),)
    again = plan.again(call, "Well.")
    assert again[:2] == (("user", plan.text(call)), ("assistant", "Well."))
    assert again[2] == ("user", AGAIN.format(scale="from 0.00 to 1.00, with two decimals"))
    assert len(plan.again(call, "x" * 10**6)[1][1]) == 2_000


def test_raw_texts_show_examples_and_end_where_the_number_belongs() -> None:
    plan = Plan(Protocol(), PAIRS)
    call = next(c for c in calls(plan) if c.order == "AB")
    raw = plan.raw(call)
    assert raw.count("\n\nRating:") == 4
    assert raw.endswith(f"Text 1: first {call.pairs[0]}\n\nText 2: second {call.pairs[0]}\n\nRating:")
    assert raw.startswith(plan.text(call).partition("\n\n")[0])
    assert plan.stops(call) == ("\n",)
    lab = Plan(Protocol(variants=("lab",), scale="d9"), PAIRS)
    assert lab.raw(calls(lab)[0]).startswith("question: account one: ")
    assert lab.raw(calls(lab)[0]).endswith(" answer:")
    batch = Plan(ATLAS_V1, PAIRS)
    assert batch.raw(calls(batch)[0]).endswith("\n\nRatings:\n")
    assert batch.stops(calls(batch)[0]) == ("\n\n",)  # a line break is between the ratings


# -- lists ---------------------------------------------------------------------------------------------------------------------


def test_a_list_shows_every_pair_once_with_its_number() -> None:
    plan = Plan(ATLAS_V1, PAIRS)
    (call,) = calls(plan)
    text = plan.text(call)
    assert call.pairs == tuple(range(6))
    assert text.startswith("6 pairs of texts follow.")
    for number, pair in enumerate(PAIRS.pairs, 1):
        assert f"\n\n{number}.\nText 1: {pair.a}\nText 2: {pair.b}" in text
    assert plan.limit(call) == 6 * 16
    reply = "\n".join(f"{number}: 0.{number}0" for number in range(1, 7))
    assert [r.value for r in read_list(reply, len(call.pairs), "dec2")] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_the_published_procedure_is_what_it_says() -> None:
    assert ATLAS_V1.model_dump() == {
        "presentation": "batch", "orders": ("AB",), "variants": ("anchored",), "repeats": 1, "temperature": 1.0, "scale": "dec2", "logprobs": True,
        "reprompt": False, "max_tokens": 16, "seed": 0,
    }  # fmt: skip


# -- bad settings --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"orders": ()}, "orders are AB, BA or both"),
        ({"orders": ("AB", "AB")}, "orders are AB, BA or both"),
        ({"orders": ("AC",)}, "'AB' or 'BA'"),
        ({"variants": ()}, "each once; got none"),
        ({"variants": ("ends", "ends")}, "each once; got ends, ends"),
        ({"variants": ("mine",)}, "variants are some of anchored, ends, contradiction, or lab, each once; got mine"),
        ({"variants": ("lab",)}, "name the scale d9"),
        ({"variants": ("lab",), "scale": "d9", "presentation": "batch"}, "leave batch out"),
        ({"repeats": 0}, "greater than or equal to 1"),
        ({"temperature": float("nan")}, "finite number"),
        ({"temperature": 2.1}, "less than or equal to 2"),
        ({"max_tokens": 3}, "greater than or equal to 4"),
        ({"scale": "stars"}, "'dec2', 'd9' or 'pct'"),
        ({"seed": 2**31}, "less than 2147483648"),
        ({"reasoning": "off"}, "Extra inputs"),
    ],
)
def test_what_no_protocol_is(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        Protocol.model_validate(given)
    with pytest.raises(InputError, match=why) as raised:
        protocol_of(given)
    assert "\n" not in str(raised.value)
    assert "Value error" not in str(raised.value)


def test_expected_ratings_are_of_one_digit_about_one_pair() -> None:
    assert Protocol(scale="d9").expects
    for other in ({"scale": "dec2"}, {"scale": "pct"}, {"logprobs": False}, {"presentation": "batch"}):
        assert not protocol_of({"scale": "d9", **other}).expects


def test_settings_as_somebody_wrote_them() -> None:
    assert protocol_of({}) == Protocol()
    assert protocol_of({"orders": ("BA",), "repeats": 5}) == Protocol(orders=("BA",), repeats=5)
    assert protocol_of({"seed": 3, "max_tokens": 200}, ATLAS_V1) == ATLAS_V1.model_copy(update={"seed": 3, "max_tokens": 200})
    with pytest.raises(InputError, match=r"^temperature: Input should be less than or equal to 2; found 3$"):
        protocol_of({"temperature": 3}, ATLAS_V1)
    with pytest.raises(InputError, match=r"got \\x1b"):
        protocol_of({"variants": ("\x1b[2J",)})
