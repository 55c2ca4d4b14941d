"""Pairs of texts: the shipped set keeps its own rules, and what no set may hold is one sentence."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import pytest

from aligntax.atlas.pairs import (
    CONTESTED,
    Pair,
    PairSet,
    against_checklist,
    matching,
    matching_report,
    pair_measures,
    pair_set,
    read_pairs,
    standard_pairs,
    standardised_difference,
    text_hash,
    text_hashes,
    words,
)
from aligntax.core.errors import InputError, LogError

BLOCKED = ("control_high", "control_mid", "neutral_contradiction", "foil_control", *CONTESTED, "reverse_foil")
HEAD = ["pair", "category", "topic", "text_a", "text_b", "reference"]
ROWS = [
    ["one", "control", "rivers", "The river rises in spring.", "In spring the river, it rises.", "0.9"],
    ["two", "clash", "rivers", 'The "river" is a resource.', "The river is kin.", ""],
    ["three", "anchor", "", "A pear is sweet.", "A bus is late.", "0"],
]


def table(folder: Path, rows: list[list[str]], head: list[str] | None = None, name: str = "pairs.csv", delimiter: str = ",") -> Path:
    path = folder / name
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([head or HEAD, *rows])
    return path


@pytest.fixture(scope="module")
def standard() -> PairSet:
    return standard_pairs()


# ---------------------------------------------------------------------------------------------------------------------- the shipped set


def test_the_shipped_set_is_pinned(standard: PairSet) -> None:
    """Ratings name this hash. Other texts are another file with the next number, never an edit of this one."""
    assert standard.source == "pairs-1.csv"
    assert standard.identity == "9b82ed72f8f0d417e06eaec0c428379e7a19fe385794c6dec012b73128ffcca2"


def test_every_cell_has_a_pair_on_every_topic(standard: PairSet) -> None:
    assert Counter(p.category for p in standard.pairs) == dict.fromkeys(("anchor", *BLOCKED), 12)
    assert len(standard.topics) == 12
    cells = Counter((p.category, p.topic) for p in standard.pairs if p.category != "anchor")
    assert cells == {(category, topic): 1 for category in BLOCKED for topic in standard.topics}
    assert all(p.topic is None for p in standard.pairs if p.category == "anchor")


def test_no_text_stands_twice(standard: PairSet) -> None:
    texts = [text for p in standard.pairs for text in (p.a, p.b)]
    twice = {text for text, n in Counter(texts).items() if n > 1}
    assert twice == {p.a for p in standard.pairs if p.name == "anchor-1.0-1"}
    assert len({p.name for p in standard.pairs}) == 108


def test_anchors_are_graded_and_hold_the_attention_checks(standard: PairSet) -> None:
    anchors = [p for p in standard.pairs if p.category == "anchor"]
    assert Counter(p.reference for p in anchors) == dict.fromkeys((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 2)
    assert [p.name for p in anchors if p.a == p.b] == ["anchor-1.0-1"]
    same = next(p for p in anchors if p.name == "anchor-1.0-2")
    assert Counter(words(same.a)) == Counter(words(same.b))  # the same clauses, the other way round
    for unrelated in (p for p in anchors if p.reference == 0):
        assert pair_measures(unrelated)["overlap"] < 0.15


def test_only_what_has_an_answer_has_a_reference(standard: PairSet) -> None:
    """Nobody can say beforehand how alike an official account and what it left out are: a number there would be an invented finding."""
    references = {c: {p.reference for p in standard.pairs if p.category == c} for c in BLOCKED}
    assert references["control_high"] == references["foil_control"] == {0.9}
    assert references["control_mid"] == {0.4}
    assert all(references[c] == {None} for c in ("neutral_contradiction", *CONTESTED))
    assert {p.reference for p in standard.pairs if p.name.startswith("reverse-foil-same")} == {0.9}
    assert {p.reference for p in standard.pairs if p.name.startswith("reverse-foil-opposed")} == {None}


def test_the_checklist_holds(standard: PairSet) -> None:
    assert against_checklist(standard) == []
    for pair in standard.pairs:
        for text in (pair.a, pair.b):
            assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:'\-]*\.", text), text  # one sentence, in plain characters
            assert "  " not in text


def test_nobody_is_named(standard: PairSet) -> None:
    """After its first word a text has no capital but those of the calendar: no person, people, place, company or model."""
    calendar = {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday", "Sundays", "Sunday's"} | {
        "January", "March", "April", "May", "June", "August", "September", "October",
    }  # fmt: skip
    for pair in standard.pairs:
        for text in (pair.a, pair.b):
            assert {w for w in re.findall(r"[\w']+", text)[1:] if w[0].isupper()} <= calendar, text


def test_reverse_foils_are_what_they_say(standard: PairSet) -> None:
    foils = {p.name: pair_measures(p)["overlap"] for p in standard.pairs if p.category == "reverse_foil"}
    assert {name for name, overlap in foils.items() if overlap == 1} == {name for name in foils if "opposed" in name}
    assert all(overlap < 0.15 for name, overlap in foils.items() if "same" in name)
    assert Counter("opposed" in name for name in foils) == {True: 6, False: 6}


def test_categories_match_the_contested_ones(standard: PairSet) -> None:
    """In everything that can be counted; the overlap of anchors and reverse foils differs because it is meant to."""
    rows = matching(standard)
    off = {(row.category, name) for row in rows for name, found in row.measures.items() if found.notable}
    assert off == {("anchor", "overlap"), ("reverse_foil", "overlap")}
    counted = {"words", "length_difference", "overlap", "negations", "word_length"}
    assert all(row.measures[name].d is not None for row in rows for name in counted)


def test_nothing_is_copied_from_the_source(standard: PairSet, shared: Path) -> None:
    """No six words in a row of the page that describes the test."""
    path = shared / "sources" / "atlas-divergence-test.txt"
    if not path.exists():
        pytest.skip("the shared folder has no sources/atlas-divergence-test.txt")
    source = words(path.read_text(encoding="utf-8"))
    runs = {tuple(source[i : i + 6]) for i in range(len(source) - 5)}
    assert len(runs) > 1000
    for pair in standard.pairs:
        for text in (words(pair.a), words(pair.b)):
            assert not runs & {tuple(text[i : i + 6]) for i in range(len(text) - 5)}


def test_the_documentation_shows_what_is_printed(standard: PairSet) -> None:
    text = (Path(__file__).parents[2] / "docs" / "stimuli.md").read_text(encoding="utf-8")
    assert matching_report(standard) in text
    for pair in standard.pairs:
        assert pair.topic != "place names" or f"| `{pair.category}` | {pair.a} | {pair.b} |" in text


# ------------------------------------------------------------------------------------------------------------------------- tables of pairs


def test_a_table_is_read(tmp_path: Path) -> None:
    found = read_pairs(table(tmp_path, ROWS))
    assert found.pairs == (
        Pair("one", "control", "rivers", "The river rises in spring.", "In spring the river, it rises.", 0.9),
        Pair("two", "clash", "rivers", 'The "river" is a resource.', "The river is kin.", None),
        Pair("three", "anchor", None, "A pear is sweet.", "A bus is late.", 0.0),
    )
    assert (found.source, found.categories, found.topics) == ("pairs.csv", ("control", "clash", "anchor"), ("rivers",))


def test_every_form_reads_alike(tmp_path: Path) -> None:
    import duckdb

    expected = read_pairs(table(tmp_path, ROWS))
    rows = [
        {k: (None if v == "" else float(v) if k == "reference" else v) for k, v in zip(HEAD, row, strict=True)} | {"note": 1}
        for row in ROWS
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "p.json").write_text(json.dumps(rows), encoding="utf-8")
    table(tmp_path, ROWS, name="p.tsv", delimiter="\t")
    quoted = [
        "(" + ", ".join("NULL" if v == "" else v if k == "reference" else "'" + v + "'" for k, v in zip(HEAD, row, strict=True)) + ")"
        for row in ROWS
    ]
    duckdb.execute(f"COPY (SELECT * FROM (VALUES {', '.join(quoted)}) t({', '.join(HEAD)})) TO '{tmp_path / 'p.parquet'}' (FORMAT parquet)")
    for name in ("p.jsonl", "p.json", "p.tsv", "p.parquet"):
        found = read_pairs(tmp_path / name)
        assert (found.pairs, found.identity, found.source) == (expected.pairs, expected.identity, name)


def test_topic_and_reference_may_be_left_out(tmp_path: Path) -> None:
    found = read_pairs(table(tmp_path, [[r[0], r[1], r[3], r[4]] for r in ROWS], ["pair", "category", "text_a", "text_b"]))
    assert {(p.topic, p.reference) for p in found.pairs} == {(None, None)}


def test_identity_is_of_the_content() -> None:
    """By hand: the canonical JSON of the rows, sorted by name, hashed."""
    pairs = (Pair("q", "c", None, "x y", "z", 0.5), Pair("p", "c", "t", "ä", "b", None))
    plain = '[["p","c","t","ä","b",null],["q","c",null,"x y","z",0.5]]'
    found = pair_set(pairs, "a.csv")
    assert found.identity == hashlib.sha256(plain.encode()).hexdigest()
    assert found.identity == pair_set(pairs[::-1], "b.csv").identity
    others = [{"name": "r"}, {"category": "d"}, {"topic": ""}, {"a": "x  y"}, {"b": "Z"}, {"reference": None}]
    changed = {pair_set((replace(pairs[0], **other), pairs[1]), "a.csv").identity for other in others}
    assert len(changed | {found.identity}) == len(others) + 1
    with pytest.raises(InputError, match=r"two pairs of a\.csv are called q; every pair has a name of its own"):
        pair_set((pairs[0], replace(pairs[1], name="q")), "a.csv")


def test_texts_have_hashes_of_their_own() -> None:
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert text_hash("abc") == abc
    assert text_hashes(pair_set((Pair("p", "c", None, "abc", "abd", None),), "x"))["p"] == (abc, text_hash("abd"))


def edit(row: int, column: str, value: str) -> list[list[str]]:
    rows = [list(one) for one in ROWS]
    rows[row][HEAD.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (edit(1, "text_b", ""), r"row 2, pair two: text_b is empty; a pair has two texts"),
        (edit(1, "text_a", "   "), r"row 2, pair two: text_a is empty"),
        (edit(2, "pair", "one"), r"row 3 names the pair one, and row 1 one; every pair has a name of its own"),
        (edit(2, "pair", "ONE"), r"row 3 names the pair ONE, and row 1 one; .*capitals do not tell them apart"),
        (edit(0, "pair", ""), r"row 1 has no pair"),
        (edit(0, "category", ""), r"row 1 has no category"),
        (edit(0, "category", "c" * 201), r"row 1: category has 201 characters; names have 200 at most"),
        (edit(0, "text_a", "x" * 4001), r"row 1, pair one: text_a has 4,001 characters; a text has 4,000 at most"),
        (edit(0, "text_a", "line\nline"), r"text_a holds the control character U\+000A"),
        (edit(0, "text_b", "bell\x07"), r"text_b holds the control character U\+0007"),
        (edit(0, "text_b", "turned \u202e round"), r"text_b holds the control character U\+202E"),
        (edit(0, "text_b", "hidden \U000e0041"), r"text_b holds the control character U\+E0041"),
        (edit(0, "reference", "high"), r"row 1, pair one: reference is 'high'; it is a number from 0 .* to 1"),
        (edit(0, "reference", "1.2"), r"reference is '1\.2'"),
        (edit(0, "reference", "-0.1"), r"reference is '-0\.1'"),
        (edit(0, "reference", "nan"), r"reference is 'nan'"),
        (edit(0, "reference", "inf"), r"reference is 'inf'"),
        (ROWS[:1], r"has one pair; a set has two or more"),
        ([], r"holds no rows"),
    ],
)
def test_what_no_set_may_hold(tmp_path: Path, rows: list[list[str]], said: str) -> None:
    with pytest.raises(LogError, match=said) as caught:
        read_pairs(table(tmp_path, rows))
    assert "pairs.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("gone", ["pair", "category", "text_a", "text_b"])
def test_a_missing_column_is_named(tmp_path: Path, gone: str) -> None:
    kept = [i for i, name in enumerate(HEAD) if name != gone]
    with pytest.raises(LogError, match=rf"pairs\.csv has no column {gone}; it has ") as caught:
        read_pairs(table(tmp_path, [[row[i] for i in kept] for row in ROWS], [HEAD[i] for i in kept]))
    assert "\n" not in str(caught.value)


def test_the_longest_text_and_spelling_by_joiners_pass(tmp_path: Path) -> None:
    rows = edit(0, "text_a", "x" * 4000)
    rows[1][HEAD.index("text_a")] = "می\u200cخواهم"  # a non-joiner is part of the spelling
    found = read_pairs(table(tmp_path, rows))
    assert (len(found.pairs[0].a), found.pairs[1].a) == (4000, "می\u200cخواهم")


def test_names_in_messages_are_harmless(tmp_path: Path) -> None:
    rows = edit(0, "reference", "x\x1b[31m")
    with pytest.raises(LogError) as caught:
        read_pairs(table(tmp_path, rows))
    assert "\x1b" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------------------------------- matching


def test_measures_by_hand() -> None:
    """7 and 5 words; {the, boat, doesn't, leave, at, high, tide} and {the, boat, leaves, at, dawn} share 3 of 9."""
    found = pair_measures(Pair("p", "c", None, "The boat doesn't leave at high tide.", "The boat leaves at dawn.", None))
    letters = len("Theboatdoesn'tleaveathightide") + len("Theboatleavesatdawn")
    assert found == {
        "words": 6.0,
        "length_difference": pytest.approx(2 / 7),
        "overlap": pytest.approx(3 / 9),
        "negations": 1.0,
        "word_length": pytest.approx(letters / 12),
    }
    assert pair_measures(Pair("p", "c", None, "No, never!", "Nothing isn’t...", None))["negations"] == 4
    assert pair_measures(Pair("p", "c", None, "...", "!", None)) == dict.fromkeys(found, 0.0)
    assert words("Well-kept rivers' names, 2 of them") == ["well-kept", "rivers", "names", "2", "of", "them"]


def test_standardised_difference_by_hand() -> None:
    """Sums of squares 2 and 6 on 3 degrees of freedom: s = sqrt(8/3)."""
    assert standardised_difference([0, 2], [1, 1, 4]) == pytest.approx(-1 / sqrt(8 / 3))
    assert standardised_difference([1, 2, 3], [4, 5, 6]) == pytest.approx(-3)
    assert standardised_difference([1], [2, 4]) == pytest.approx(-2 / sqrt(2))
    assert standardised_difference([1, 1], [1, 1]) == 0
    assert standardised_difference([2, 2], [1, 1]) == inf
    assert standardised_difference([1], [2]) is None
    assert standardised_difference([], [1, 2, 3]) is None


def test_matching_by_hand() -> None:
    def pair(name: str, category: str, n: int, reference: float | None = None) -> Pair:
        return Pair(name, category, None, " ".join(["word"] * n), " ".join(["word"] * n), reference)

    found = pair_set(
        (
            pair("a", "x", 10),
            pair("b", "x", 12),
            pair("c", "y", 14),
            pair("d", "y", 16),
            pair("e", "control", 10, 0.5),
            pair("f", "control", 20),
        ),
        "s",
    )
    x, y, control = matching(found, {"a": 0.2, "b": 0.4, "e": 0.3}, contested=("x", "y"))
    assert (x.category, x.n, x.contested, control.contested) == ("x", 2, True, False)
    assert (x.measures["words"].mean, x.measures["words"].sd) == (11, pytest.approx(sqrt(2)))
    assert x.measures["words"].d == pytest.approx(-4 / sqrt(2))  # from y alone, not from itself
    assert y.measures["words"].d == pytest.approx(4 / sqrt(2))
    pooled = sqrt((50 + 20) / 4)  # of the control, sum of squares 50, and of 10, 12, 14, 16, sum of squares 20
    assert control.measures["words"].d == pytest.approx((15 - 13) / pooled)
    assert control.measures["words"].notable
    assert (control.measures["reference"].n, control.measures["reference"].mean, control.measures["reference"].sd) == (1, 0.5, None)
    assert (x.measures["reference"].mean, control.measures["reference"].d) == (None, None)
    assert control.measures["rating"].mean == 0.3
    assert control.measures["rating"].d == pytest.approx(0)
    assert "rating" not in matching(found)[0].measures
    with pytest.raises(InputError, match=r"no pair of s is called ghost; ratings belong to pairs of the set"):
        matching(found, {"ghost": 0.1})


def test_the_report_says_what_is_off(tmp_path: Path) -> None:
    rows = [[f"p{i}", "cross_cultural" if i % 2 else "a|b<i>", "", "word " * (5 + i), "word " * 12, ""] for i in range(6)]
    text = matching_report(read_pairs(table(tmp_path, rows)))
    assert "pairs.csv: 6 pairs, 2 categories, 0 topics" in text
    assert "a\\|b&lt;i>" in text
    assert "- p0: texts of 5 and 12 words, not 12 to 40" in text
    assert "- p0: lengths differ by 58 %, more than 30 %" in text
    assert "reference" in text
    widths = {len(line) for line in text.splitlines() if line.startswith(("| category", "| cross"))}
    assert len(widths) == 2  # either table keeps its columns


def test_without_contested_categories_there_is_nothing_to_differ_from(tmp_path: Path) -> None:
    text = matching_report(read_pairs(table(tmp_path, ROWS)))
    assert "No differences: the set has none of the contested categories (cross_cultural, erasure_sensitive, epistemic_clash)." in text
    assert "from clash together" in matching_report(read_pairs(table(tmp_path, ROWS)), contested=("clash",))


def test_pairs_fit_a_table_of_ratings(tmp_path: Path, standard: PairSet) -> None:
    """The same names for the same columns: a set with a model's ratings beside it is a table of ratings."""
    from aligntax.atlas.ratings import read_ratings

    rows = [
        [p.name, p.category, p.topic or "", p.a, p.b, "" if p.reference is None else str(p.reference), "m", "0.5"] for p in standard.pairs
    ]
    found = read_ratings(table(tmp_path, rows, [*HEAD, "model", "rating"], "ratings.csv"))
    assert found.pairs == tuple(p.name for p in standard.pairs)
    assert found.topic == tuple(p.topic for p in standard.pairs)
    assert found.texts == tuple((p.a, p.b) for p in standard.pairs)
