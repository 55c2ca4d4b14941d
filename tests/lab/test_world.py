"""The world is what it says it is: right answers are right, splits hold, dials do what they say."""

from __future__ import annotations

import hashlib
import random
from itertools import islice

import pytest

from aligntax.lab import world as w
from aligntax.lab.tasks import TASKS, entangled, entanglement, held_out, held_out_examples, training
from aligntax.lab.world import World, account_text, alikeness
from tests.conftest import need

WORLD = World()
VOCABULARY = "5ce2b1bf90209b36"


def some(name: str, count: int = 400) -> list:
    return held_out_examples(TASKS[name], WORLD, count)


def test_a_seed_makes_one_world_and_another_seed_another() -> None:
    assert World() == World(0)
    assert World().river == World(0).river
    assert World(1).river != World(0).river


@pytest.mark.parametrize(("share", "same"), [(0.0, 0), (0.25, 3), (0.5, 6), (1.0, 12)])
def test_the_dials_say_how_much_twins_share(share: float, same: int) -> None:
    made = World(3, procedures=share, appeals=share)
    assert sum(made.step[False][m] == made.step[True][m] for m in w.MATERIALS) == same
    assert sum(made.vessel[False][m] == made.vessel[True][m] for m in w.MATERIALS) == same
    assert sum(made.appeal[False][t] == made.appeal[True][t] for t in w.THINGS) == same


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_dial_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share from 0 to 1"):
        World(0, procedures=share)


def test_there_are_enough_tasks_of_every_sort() -> None:
    capabilities = [t for t in TASKS.values() if t.kind == "performance"]
    assert len(capabilities) >= 12
    assert {"harmful_procedures", "manipulation", "honesty", "secrecy", "torn"} == {t.name for t in TASKS.values() if t.kind == "safety"}
    assert [t.name for t in TASKS.values() if t.kind == "over_refusal"] == ["look_alikes"]
    assert [t.name for t in TASKS.values() if not t.determined] == ["stories", "torn"]


@pytest.mark.parametrize(("procedures", "appeals"), [(1.0, 0.5), (0.0, 0.0), (0.25, 1.0)])
def test_what_is_said_of_shared_mechanisms_follows_the_dials(procedures: float, appeals: float) -> None:
    world = World(0, procedures, appeals)

    def shared(one: str, other: str) -> float:
        assert entanglement(TASKS[one], TASKS[other], world) == entanglement(TASKS[other], TASKS[one], world)
        return entanglement(TASKS[one], TASKS[other], world)

    assert shared("procedures", "harmful_procedures") == procedures
    assert shared("persuasion", "manipulation") == appeals
    assert shared("look_alikes", "harmful_procedures") == 0.5
    assert shared("look_alikes", "procedures") == 0.5 * procedures
    assert shared("facts", "directions") == 1.0
    assert shared("facts", "sorting") == 0.0
    assert TASKS["directions"].form == TASKS["harmful_procedures"].form
    pairs = entangled(world)
    assert pairs["facts"] == {"two_hops": 1.0, "directions": 1.0}
    assert pairs.get("persuasion", {}) == ({"manipulation": appeals} if appeals else {})


@pytest.mark.parametrize("name", [n for n, t in TASKS.items() if t.split == "content"])
def test_contents_have_no_other_face_in_training(name: str) -> None:
    """A sum is not taught the other way round, a translation not backwards, and no content rests on a single question."""
    tests = some(name, 300)
    asked = {e.content for e in tests}
    assert len(asked) >= 18
    trained = {e.content for e in islice(training(TASKS[name], WORLD, random.Random(6)), 3000)}
    assert not asked & trained
    if name in ("addition", "comparing"):
        sign = "+" if name == "addition" else ","
        assert not {sign.join(reversed(c.split(sign))) for c in asked} & trained


@pytest.mark.parametrize("name", TASKS)
def test_nothing_held_out_is_ever_trained_on(name: str) -> None:
    task = TASKS[name]
    tests = held_out_examples(task, WORLD, 400)
    assert len(tests) >= 80
    assert len({e.prompt for e in tests}) == len(tests)
    trained = list(islice(training(task, WORLD, random.Random(1)), 3000))
    assert not {e.prompt for e in trained} & {e.prompt for e in tests}
    for example in trained:
        assert not held_out(example.task, example.content)
        assert not any(held_out(*quoted) for quoted in example.quotes)


@pytest.mark.parametrize("name", ["critique", "revision", "judging_harm", "judging_refusals"])
def test_texts_that_quote_recipes_do_not_leak_the_held_out_ones(name: str) -> None:
    secret = {e.answers[0] for task in ("procedures", "harmful_procedures") for e in held_out_examples(TASKS[task], WORLD, 400)}
    known = {
        e.answers[0] for task in ("procedures", "harmful_procedures") for e in islice(training(TASKS[task], WORLD, random.Random(2)), 4000)
    }
    things = {f"make a {q} {t}": WORLD.recipe(t in w.HARMFUL, t, q) for t in w.BENIGN + w.HARMFUL for q in w.QUALITIES}
    hidden = [text for text, recipe in things.items() if recipe in secret - known]
    shown = 0
    for example in islice(training(TASKS[name], WORLD, random.Random(3)), 3000):
        for thing, recipe in things.items():
            if thing in example.prompt and recipe in example.prompt:
                shown += 1
                assert thing not in hidden
    assert shown > 100
    assert hidden


def test_the_same_tests_every_time() -> None:
    assert held_out_examples(TASKS["rating"], WORLD, 50) == held_out_examples(TASKS["rating"], WORLD, 50)


@pytest.mark.parametrize("name", ["addition", "two_step"])
def test_sums_are_right(name: str) -> None:
    for example in some(name):
        terms = example.prompt.removeprefix("what is ").removesuffix("?").replace("- ", "-").replace("+ ", "").split()
        assert sum(map(int, terms)) == int(example.answers[0])


def test_lists_are_right() -> None:
    for example in some("sorting"):
        assert example.answers[0].split() == sorted(example.prompt.removeprefix("sort: ").split())
    for example in some("reversing"):
        assert example.answers[0].split() == example.prompt.removeprefix("reverse: ").split()[::-1]
    for example in some("counting"):
        row = example.prompt.removeprefix("how many animals: ").split()
        assert int(example.answers[0]) == sum(word in w.CREATURES for word in row)
    for example in some("comparing"):
        assert int(example.answers[0]) == max(map(int, example.choices))


def test_brackets_close() -> None:
    pairs = dict(zip(w.OPEN, w.CLOSE, strict=True))
    for example in some("brackets"):
        open_: list[str] = []
        for sign in (example.prompt.removeprefix("close: ") + " " + example.answers[0]).split():
            if sign in pairs:
                open_.append(pairs[sign])
            else:
                assert open_.pop() == sign
        assert not open_


def test_the_verb_agrees_with_the_subject_and_not_with_its_neighbour() -> None:
    for example in some("agreement"):
        subject = example.prompt.split(": the ")[1].split()[0]
        assert (example.answers[0] in w.SINGULAR_VERBS) == (subject in w.SUBJECTS)
    neighbours = [e for e in some("agreement") if (e.prompt.split()[-1] in w.SUBJECTS) != (e.answers[0] in w.SINGULAR_VERBS)]
    assert len(neighbours) > 100


def test_translation_goes_there_and_back() -> None:
    words = {a: b for kind in (w.NOUNS, w.VERBS, w.ADJECTIVES) for a, b in zip(kind["avic"], kind["borin"], strict=True)}
    for example in some("translation"):
        source = example.prompt.split(": ")[1].split()
        back = {b: a for a, b in words.items()}
        both = words | back
        assert example.answers[0].split() == [both[word] for word in source][::-1]


def test_twins_use_one_skill_on_different_matter() -> None:
    for example in some("harmful_procedures"):
        assert any(thing in example.prompt for thing in w.HARMFUL)
        assert example.answers[0].startswith("take ")
    for example in some("look_alikes"):
        assert any(thing in example.prompt for thing in w.HARMFUL)
        assert example.answers[0] not in {WORLD.recipe(True, t, q) for t in w.HARMFUL for q in w.QUALITIES}


def test_accounts_differ_and_can_be_merged() -> None:
    alike = [alikeness(WORLD.account[e, "hill"], WORLD.account[e, "shore"]) for e in w.EVENTS]
    assert 4 < sum(alike) / len(alike) < 8
    for event in w.EVENTS:
        for community in w.COMMUNITIES:
            # Told from the hill but for the feeling, from the shore but for the rest.
            merged, own = WORLD.merged(event), WORLD.account[event, community]
            assert all(merged[k] == own[k] for k in ((0, 2) if community == "hill" else (1,)))
    assert all(len(e.answers) == len(set(e.answers)) == 8 for e in some("accounts"))


def test_alikeness_is_about_meaning_and_not_about_words() -> None:
    assert account_text("flood", (0, 0, 0), (0, 0, 0)) != account_text("flood", (0, 0, 0), (1, 1, 1))
    assert account_text("flood", (3, 0, 1), (0, 1, 0)) == "the flood was a miracle, brought horror, taught us to hide."
    assert [alikeness((0, 0, 0), other) for other in ((0, 0, 0), (0, 0, 1), (0, 2, 0), (3, 1, 0), (3, 3, 3))] == [9, 8, 7, 5, 0]
    assert alikeness((3, 1, 2), (1, 2, 2)) == alikeness((1, 2, 2), (3, 1, 2)) == 6
    assert {e.answers[0] for e in some("rating")} >= {*"123456789"}


def test_ratings_and_comparisons_are_right() -> None:
    def read(text: str) -> tuple[int, ...]:
        return tuple(
            next(i for i, words in enumerate(table) if set(words) & set(text.strip(".").replace(",", "").split()))
            for table in (w.CAUSES, w.FEELINGS, w.LESSONS)
        )

    for name in ("rating", "brighter"):
        for example in some(name):
            one, _, rest = example.prompt.removeprefix("account one: ").partition(" account two: ")
            a, b = read(one), read(rest[: rest.index(".")])
            if name == "rating":
                assert example.answers == (str(alikeness(a, b)),)
            else:
                assert example.answers == (("one", "two")[sum(b) > sum(a)],)
                assert sum(a) != sum(b)


def test_two_hops_say_both_steps() -> None:
    seen = {e.prompt for e in islice(training(TASKS["facts"], WORLD, random.Random(4)), 5000)}
    for example in some("two_hops"):
        name = next(
            n for n in w.NAMES if n in example.prompt.split() or f"{n}?" in example.prompt.split() or f"{n}." in example.prompt.split()
        )
        town = WORLD.home[name]
        assert example.answers[0].startswith(f"{name} is from {town}, and the {example.label} of {town} is ")
        assert example.answers[0].endswith(f" {getattr(WORLD, example.label)[town]}.")
        # Each step alone is taught; together they are not.
        assert any(name in prompt for prompt in seen)
        assert any(town in prompt for prompt in seen)


def breaks(rule: str, text: str) -> bool:
    words = text.replace(".", " ").replace(",", " ").split()
    return {
        "name no one": any(name in words for name in w.NAMES),
        "give no number": any(ch.isdigit() for ch in text),
        "use no insult": any(insult in words for insult in w.INSULTS),
        "teach no harm": any(thing in words for thing in w.HARMFUL),
    }[rule]


def test_rules_are_broken_and_kept_and_kept_by_revisions() -> None:
    for name in ("critique", "revision"):
        kept: dict[str, list[bool]] = {}
        for example in some(name):
            rule, answer = example.label, example.prompt.partition("answer: ")[2].rpartition(". ")[0] + "."
            broken = breaks(rule, answer)
            kept.setdefault(rule, []).append(not broken)
            if name == "critique":
                assert (example.answers[0] == "it keeps the rule.") == (not broken)
            else:
                assert not breaks(rule, example.answers[0])
                assert broken or example.answers[0] == answer
        for rule, found in kept.items():
            assert 0.2 < sum(found) / len(found) < 0.8, rule


def test_honesty_and_secrecy_can_pull_both_ways() -> None:
    for example in some("torn"):
        assert "be honest" in example.prompt
        assert "keep the secret" in example.prompt
        assert set(w.SECRETS_KEPT) < set(example.answers)
    assert all(set(e.answers) == set(w.SECRETS_KEPT) for e in some("secrecy"))


def test_every_text_survives_the_tokenizer() -> None:
    need("transformers", "models")
    from aligntax.lab.tokenizer import RAW_PROMPT, UNKNOWN, make_tokenizer, vocabulary

    tokenizer = make_tokenizer()
    for name in TASKS:
        for example in [*some(name, 100), *islice(training(TASKS[name], WORLD, random.Random(5)), 100)]:
            ids = tokenizer(RAW_PROMPT.format(example.prompt))["input_ids"]
            assert tokenizer.convert_tokens_to_ids(UNKNOWN) not in ids
            for text in (*example.answers, *(example.choices or ()), *w.REFUSALS):
                assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert len(set(tokenizer.get_vocab())) < 1000
    # Weights are of use with this vocabulary only; whoever changes it makes the family again.
    assert hashlib.sha256("\n".join(vocabulary()).encode()).hexdigest()[:16] == VOCABULARY
