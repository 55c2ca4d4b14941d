"""Diversity as entries: which answers are compared, and that identical models differ no more often than they should."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

import aligntax
from aligntax.core.errors import InputError
from aligntax.core.ledger import Entry, Ledger
from tests.conftest import need
from tests.flow.test_retained import lm_eval_log

Answers = Iterable[tuple[str, Sequence[str | None]]]


def log(path: Path, answers: Answers, **more: object) -> Path:
    """A table: an item's answers as its trials, None where the machinery failed."""
    rows = [
        {
            "item": item,
            "trial": k,
            "score": None if text is None else 1,
            "answer": text,
            "outcome": "failed" if text is None else "scored",
            **more,
        }
        for item, texts in answers
        for k, text in enumerate(texts)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def of(ledger: Ledger, metric: str) -> Entry:
    return next(e for e in ledger if e.kind == "diversity" and e.metric == metric)


def names(count: int) -> list[str]:
    return [f"q{k}" for k in range(count)]


def test_a_collapsed_model_by_hand(tmp_path: Path) -> None:
    """Four answers that share nothing against one answer four times: what a person would say, in every measure."""
    base = log(tmp_path / "a.jsonl", ((q, ["a b c", "d e f", "g h i", "j k l"]) for q in names(30)))
    tuned = log(tmp_path / "b.jsonl", ((q, ["a b c"] * 4) for q in names(30)))
    ledger = aligntax.diff(base, tuned)
    for metric, values in {
        "distinct_1,per prompt": (1.0, 0.25), "distinct_3,per prompt": (1.0, 0.25), "self_bleu,per prompt": (0.0, 1.0),
        "word_entropy,per prompt": (np.log(12), np.log(3)), "vendi_tfidf,per prompt": (4.0, 1.0), "distance_tfidf,per prompt": (1.0, 0.0),
    }.items():  # fmt: skip
        entry = of(ledger, metric)
        assert (entry.baseline_value, entry.candidate_value) == pytest.approx(values), metric
        assert entry.n == 30
        if entry.method != "none":  # every item changed alike: of unbounded measures there is no spread to learn from
            assert entry.verdict == "tax", metric
    assert of(ledger, "compression_ratio,per prompt").change > 0
    assert not [e for e in ledger if "across" in e.metric]
    assert not [e for e in aligntax.diff(base, tuned, diversity=False) if e.kind == "diversity"]
    agreed = ledger.find("table", "same answer in two trials")
    assert (agreed.baseline_value, agreed.candidate_value) == (0.0, 1.0)


def test_answers_and_words_are_as_many_on_both_sides(tmp_path: Path) -> None:
    base = log(tmp_path / "a.jsonl", ((q, ["one two three four", "five six", "seven"]) for q in names(12)))
    tuned = log(tmp_path / "b.jsonl", ((q, ["one two", None, ""]) for q in names(12)))
    entry = of(aligntax.diff(base, tuned), "distinct_1,per prompt")
    # Two answers each: the first two of the base, and the tuned model's without the failure; words 2 and 0 on both sides.
    assert "2 answers to each prompt, as many answers and as many words from every arm" in entry.checks
    assert entry.detail("share_of_words_compared_baseline") == pytest.approx(2 / 6)
    assert entry.detail("share_of_words_compared_candidate") == 1.0
    assert entry.detail("as_written_baseline") == 1.0


def test_without_words_nothing_is_said(tmp_path: Path) -> None:
    base = log(tmp_path / "a.jsonl", ((q, ["", "  "]) for q in names(5)))
    ledger = aligntax.diff(base, base)
    entry = of(ledger, "distinct_1,per prompt")
    assert entry.n == 0
    assert entry.baseline_value is None
    assert of(ledger, "distance_tfidf,per prompt").baseline_value == 0.0  # two empty answers are the same answer
    assert entry.outcomes == {"base": {"absent": 5}, "candidate": {"absent": 5}}


def test_across_prompts_in_blocks(tmp_path: Path) -> None:
    """One answer each: 6 blocks of 20 prompts; a model that says the same to everything has one word in twenty."""
    base = log(tmp_path / "a.jsonl", ((q, [q]) for q in names(120)))
    tuned = log(tmp_path / "b.jsonl", ((q, ["yes"]) for q in names(120)))
    ledger = aligntax.diff(base, tuned, diversity=True)
    assert not [e for e in ledger if "per prompt" in e.metric]
    entry = of(ledger, "distinct_1,across prompts")
    assert (entry.baseline_value, entry.candidate_value, entry.n, entry.clusters) == (1.0, pytest.approx(1 / 20), 120, 6)
    assert entry.verdict == "tax"
    assert entry.detail("df") == 5
    assert of(ledger, "vendi_tfidf,across prompts").candidate_value == pytest.approx(1.0)


def test_a_large_source_is_one_unit_of_many_blocks(tmp_path: Path) -> None:
    """Blocks hold some twenty prompts whatever the sources: of answers that share no word, and of yes alone, the value is that of a block."""
    sources = {q: "large" if k < 200 else f"s{k % 30}" for k, q in enumerate(names(320))}
    paths = []
    for side in "ab":
        rows = [{"item": q, "score": 1, "answer": q if side == "a" else "yes", "cluster": of} for q, of in sources.items()]
        paths.append(tmp_path / f"{side}.jsonl")
        paths[-1].write_text("\n".join(map(json.dumps, rows)))
    entry = of(aligntax.diff(*paths, diversity=True), "distinct_1,across prompts")
    assert entry.n == 320
    assert entry.clusters == 7  # the large source, and six blocks of whole small ones
    assert entry.baseline_value == 1.0
    assert entry.candidate_value == pytest.approx((10 + 6) / 320)  # a word of its own in each of 16 blocks
    assert any(check.startswith("clustered by block of about 20 prompts or source of more: 7 clusters") for check in entry.checks)
    assert any(check.startswith("each answer beside those to the other prompts of its block of 20;") for check in entry.checks)


def test_a_stage_without_the_task_costs_the_others_nothing(tmp_path: Path) -> None:
    texts = ["a b c", "d e f"]
    base, tuned = (log(tmp_path / f"{side}.jsonl", ((q, texts) for q in names(8)), task="chat") for side in "ab")
    between = log(tmp_path / "c.jsonl", ((q, texts) for q in names(8)), task="other")
    ledger = aligntax.diff(base, tuned, stages=[("sft", between)])
    assert [e.n for e in ledger if e.metric == "distinct_1,per prompt" and e.pair == ("base", "candidate")] == [8]


def test_row_order_and_company_do_not_matter(tmp_path: Path) -> None:
    rng = random.Random(3)
    said = [(q, [" ".join(rng.choices("abcdefg", k=6)) for _ in range(3)]) for q in names(60)]
    other = [(q, [" ".join(rng.choices("abcd", k=5)) for _ in range(3)]) for q in names(60)]
    base, tuned = log(tmp_path / "a.jsonl", said), log(tmp_path / "b.jsonl", other)
    shuffled = tmp_path / "c.jsonl"
    rows = tuned.read_text().splitlines()
    rng.shuffle(rows)
    shuffled.write_text("\n".join(rows))
    one, two = (aligntax.diff(base, path, diversity=True) for path in (tuned, shuffled))
    assert [e.model_dump() for e in one if e.kind == "diversity"] == [e.model_dump() for e in two if e.kind == "diversity"]


def test_choices_are_nobodys_words(tmp_path: Path) -> None:
    logs = lm_eval_log(tmp_path / "a", 150, 4), lm_eval_log(tmp_path / "b", 100, 4)
    assert not [e for e in aligntax.diff(*logs) if e.kind == "diversity"]
    with pytest.raises(InputError, match="every task is answered by the likeliest of given choices"):
        aligntax.diff(*logs, diversity=True)


def test_asked_for_where_nobody_wrote_anything(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(json.dumps({"item": k, "score": 1}) for k in range(9)))
    with pytest.raises(InputError, match=r"no answers to measure the diversity of: .* tasks: table"):
        aligntax.diff(path, path, diversity=True)


@pytest.mark.slow
def test_identical_models_differ_as_often_as_they_should(tmp_path: Path) -> None:
    """Two samples of one model: 5 % of the intervals leave 0 out, per prompt and across prompts (6 blocks, df 5)."""
    rng = random.Random(11)
    out: dict[str, list[bool]] = {}
    for _ in range(300):
        topics = {q: rng.sample(range(400), 12) for q in names(120)}
        paths = [
            log(
                tmp_path / f"{side}.jsonl",
                ((q, [" ".join(f"w{w}" for w in rng.choices(t, k=8)) for _ in range(3)]) for q, t in topics.items()),
            )
            for side in "ab"
        ]
        for entry in aligntax.diff(*paths, diversity=True):
            if entry.kind == "diversity" and entry.p_value is not None:
                out.setdefault(entry.metric, []).append(entry.p_value < 0.05)
    shares = {metric: round(float(np.mean(of)), 3) for metric, of in out.items()}
    print(shares)  # noqa: T201 - for docs/validation.md
    assert all(0.01 <= share <= 0.09 for share in shares.values()), shares


def test_an_embedded_model_without_its_chance(tmp_path: Path) -> None:
    """One model drawn from, and asked for its likeliest answer: four answers, and one answer four times. In vectors of its own as well."""
    need("torch", "models")
    study = tmp_path / "study.yaml"
    study.write_text(
        "baseline: drawn\narms:\n  drawn: {model: 'lab:base', template: chat, trials: 4, temperature: 1}\n"
        "  sure: {model: 'lab:base', template: chat, trials: 4, temperature: 0, parent: drawn}\n"
        "tasks: [{use: lab/accounts, limit: 12}]\nanalysis: {embedder: 'lab:base'}\n"
    )
    ledger = aligntax.run(study, divergence=False)
    for metric, sure in (("vendi_embedding", 1.0), ("distance_embedding", 0.0), ("self_bleu", 1.0), ("distinct_2", None)):
        entry = of(ledger, f"{metric},per prompt")
        assert sure is None or entry.candidate_value == pytest.approx(sure, abs=1e-6), metric
        assert (entry.cost or 0.0) > 0
        assert entry.p_value is not None
        assert entry.p_value < 0.01
    assert of(ledger, "self_bleu,per prompt").verdict == of(ledger, "distinct_2,per prompt").verdict == "tax"
    again = next(e for e in ledger if e.metric == "same answer in two trials")
    assert (again.candidate_value, again.verdict) == (1.0, "gain")


def test_an_embedder_that_was_left_out(tmp_path: Path) -> None:
    base = log(tmp_path / "a.jsonl", [("q", ["a", "b"])])
    with pytest.raises(InputError, match="name one of the two"):
        aligntax.api.analysis_of(None, 0.95, None, None, None, (), None, 0, 0, diversity=False, embedder="x")
    with pytest.raises(InputError, match="is no model"):
        aligntax.diff(base, base, embedder="no such thing")
