"""Diversity of groups of texts: closed forms, sacrebleu, and what no measure may depend on."""

from __future__ import annotations

import random
import zlib
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligntax.stats import diversity as d
from aligntax.stats.paired import p_value, paired_change


def groups_of(*groups: list[str]) -> tuple[d.Words, np.ndarray, int]:
    texts = [text for group in groups for text in group]
    return d.words_of(texts), np.repeat(np.arange(len(groups)), [len(g) for g in groups]), len(groups)


def test_words() -> None:
    numbers: dict[str, int] = {}
    words = d.words_of(["The cat, the CAT!", "", "猫は2匹 ok"], numbers)
    assert list(numbers) == ["the", "cat", ",", "!", "猫", "は", "2", "匹", "ok"]
    assert words.lengths.tolist() == [6, 0, 5]
    assert words.cut(np.array([2, 5, 1])).ids.tolist() == [0, 1, 4]
    assert words.take(np.array([2, 0])).ids.tolist() == [4, 5, 6, 7, 8, 0, 1, 2, 0, 1, 3]
    assert d.shortened("The cat, the CAT!", 3) == "The cat,"
    assert d.shortened("The cat", 0) == d.shortened("", 4) == ""
    assert d.joined([words, words.take(np.array([0]))]).starts.tolist() == [0, 6, 6, 11, 17]


def test_distinct_by_hand() -> None:
    words, group, count = groups_of(["a b a b", "a b"], ["x y z"], [""])
    few, all_ = d.distinct(words, group, count)
    assert few[:2].tolist() == [[2, 3, 0], [2, 2, 0]]  # a b | ab ba
    assert all_[:3].tolist() == [[6, 3, 0], [4, 2, 0], [2, 1, 0]]  # no n-gram reaches over the end of a text
    share = d.distinct_share(few, all_)
    assert share[0, :2].tolist() == [pytest.approx(1 / 3), 1.0]
    assert np.isnan(share[0, 2])


def test_expectation_adjusted_by_hand() -> None:
    few, all_ = np.array([[30.0], [0.0]]), np.array([[40.0], [0.0]])
    assert d.expectation_adjusted(few, all_, 100)[0] == pytest.approx(30 / (100 * (1 - 0.99**40)))
    words, group, count = groups_of([" ".join(map(str, range(50)))])
    value = d.expectation_adjusted(*d.distinct(words, group, count))[0]
    assert 1 < value < 1.001  # all distinct: a little more than drawing at random would give
    assert np.isnan(d.expectation_adjusted(np.zeros((5, 1)), np.zeros((5, 1))))[0]


def test_word_entropy_by_hand() -> None:
    words, group, count = groups_of(["a a", "b c"], ["a a a"], [""])
    found = d.word_entropy(words, group, count)
    assert found[0] == pytest.approx(0.5 * log(2) + 2 * 0.25 * log(4))
    assert found[1] == 0
    assert np.isnan(found[2])


def test_self_bleu_is_sacrebleus() -> None:
    bleu = pytest.importorskip("sacrebleu.metrics").BLEU(smooth_method="floor", smooth_value=0.1, effective_order=True, tokenize="none")
    rng = random.Random(0)
    groups = [[" ".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(rng.randint(2, 5))] for _ in range(200)]
    words, group, count = groups_of(*groups)
    expected = [np.mean([bleu.sentence_score(text, of[:i] + of[i + 1 :]).score / 100 for i, text in enumerate(of)]) for of in groups]
    assert d.self_bleu(words, group, count) == pytest.approx(np.array(expected), abs=1e-12)


def test_self_bleu_by_hand() -> None:
    words, group, count = groups_of(["a b c d", "a b c d"], ["a b", "c d"], ["alone"], ["a", "a b"])
    found = d.self_bleu(words, group, count)
    assert found[:2].tolist() == [1.0, 0.0]
    assert np.isnan(found[2])
    # "a": all its words match, and it is half as long; "a b": one of two words, no pair of one, so .1
    assert found[3] == pytest.approx((exp(1 - 2) + (0.5 * 0.1) ** 0.5) / 2)


def test_vectors_in_closed_form() -> None:
    same, apart = ["a b c"] * 4, ["a", "b", "c", "d"]
    words, group, count = groups_of(same, apart, ["", ""], ["", "a"], ["one"])
    unit = d.tfidf(words)
    assert d.vendi(unit, group, count)[:4] == pytest.approx([1, 4, 1, 2])
    assert d.mean_distance(unit, group, count)[:4] == pytest.approx([0, 1, 0, 1], abs=1e-12)
    assert np.isnan(d.vendi(unit, group, count)[4])
    assert np.isnan(d.mean_distance(unit, group, count)[4])
    # Two vectors at an angle: eigenvalues (1 +- cos)/2.
    pair = d.unit_rows(np.array([[1.0, 0.0], [3.0, 4.0]]))
    p = (1 + 0.6) / 2
    assert d.vendi(pair, np.zeros(2, dtype=np.int64), 1)[0] == pytest.approx(exp(-p * log(p) - (1 - p) * log(1 - p)))
    assert d.mean_distance(pair, np.zeros(2, dtype=np.int64), 1)[0] == pytest.approx(0.4)
    with pytest.raises(ValueError, match="no direction"):
        d.unit_rows(np.array([[0.0, 0.0]]))


def test_vendi_of_large_groups_is_the_same() -> None:
    rng = np.random.default_rng(0)
    vectors = d.unit_rows(rng.standard_normal((130, 6)))
    whole = d.vendi(vectors, np.zeros(130, dtype=np.int64), 1)[0]  # by one matrix product
    eigen = np.linalg.eigvalsh((vectors.T @ vectors).toarray() / 130)
    assert whole == pytest.approx(exp(-np.sum(eigen * np.log(eigen))))


def test_compression_by_hand() -> None:
    text = "the same again " * 40
    raw = text.encode()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    expected = len(raw) / len(packer.compress(raw) + packer.flush())
    assert d.compression_ratio([[text], ["   "]])[0] == pytest.approx(expected)
    assert np.isnan(d.compression_ratio([["  ", ""]])[0])
    assert d.compression_ratio([["lone \ud800 surrogate"]])[0] > 0


def test_lengths_are_matched_by_rank() -> None:
    group = np.array([0, 0, 0, 1])
    limits = d.matched_lengths([np.array([9, 2, 5, 0]), np.array([1, 8, 8, 7])], group)
    assert limits[0].tolist() == [8, 1, 5, 0]
    assert limits[1].tolist() == [1, 8, 5, 0]


@given(st.lists(st.lists(st.text(alphabet="ab \n.é", max_size=12), min_size=2, max_size=4), min_size=1, max_size=4), st.randoms())
def test_order_of_texts_does_not_matter(groups: list[list[str]], rng: random.Random) -> None:
    order = [list(of) for of in groups]
    for of in order:
        rng.shuffle(of)
    for measure in (
        lambda w, g, n: d.distinct_share(*d.distinct(w, g, n)),
        d.word_entropy,
        d.self_bleu,
        lambda w, g, n: d.vendi(d.tfidf(w), g, n),
        lambda w, g, n: d.mean_distance(d.tfidf(w), g, n),
    ):
        assert measure(*groups_of(*groups)) == pytest.approx(measure(*groups_of(*order)), nan_ok=True, abs=1e-9)


def test_changes_of_identical_models_are_called_as_often_as_they_should() -> None:
    """The value of a prompt's answers is its score: paired over prompts, 5 % of the intervals of two samples of one model leave 0 out."""
    rng = np.random.default_rng(4)
    group = np.repeat(np.arange(60), 3)
    called: dict[str, list[bool]] = {}
    for _ in range(250):
        topics = rng.integers(0, 400, (60, 12))
        sides = []
        for _side in range(2):
            ids = np.take_along_axis(np.repeat(topics, 3, axis=0), rng.integers(0, 12, (180, 8)), axis=1)
            words = d.Words(ids.ravel(), np.arange(181) * 8)
            unit = d.tfidf(words)
            few, all_ = d.distinct(words, group, 60)
            sides.append(
                {
                    "ead": d.expectation_adjusted(few, all_), "distinct": d.distinct_share(few[1], all_[1]), "bleu": d.self_bleu(words, group, 60),
                    "entropy": d.word_entropy(words, group, 60), "vendi": d.vendi(unit, group, 60), "distance": d.mean_distance(unit, group, 60),
                }
            )  # fmt: skip
        for name, values in sides[0].items():
            test = paired_change(sides[1][name] - values, binary=False, scale=None).test
            assert test is not None
            called.setdefault(name, []).append(p_value(test) < 0.05)
    assert all(0.02 <= np.mean(of) <= 0.09 for of in called.values()), {name: np.mean(of) for name, of in called.items()}
