"""Trees of sequences: nothing lost, nothing computed twice that is shared, every token sees what it saw alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligntax.models.trees import Trunk, computed, plan

# Few different tokens and runs of one, so that prefixes are shared often and to every depth.
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=14), min_size=1, max_size=25)


def paths(trunks: list[Trunk]) -> dict[int, tuple[list[int], list[int]]]:
    """(tokens seen by its last token in order of depth, depths of what is wanted) by sequence, read from masks as a model does."""
    found = {}
    for trunk in trunks:
        for row in trunk.rows:
            sees = row.sees()
            for number, nodes in row.wanted:
                seen = np.flatnonzero(sees[nodes[-1]])
                seen = seen[np.argsort(row.depth[seen])]
                assert row.depth[seen].tolist() == list(range(len(trunk.tokens), len(trunk.tokens) + len(seen)))
                assert number not in found
                found[number] = ([*trunk.tokens.tolist(), *row.tokens[seen].tolist()], row.depth[nodes].tolist())
    return found


@settings(max_examples=300, deadline=None)
@given(sequences, st.integers(1, 30), st.integers(1, 8), st.randoms(use_true_random=False))
def test_every_sequence_is_a_path(given_: list[list[int]], row: int, trunk: int, rng) -> None:
    first = [rng.randrange(len(s)) for s in given_]
    trunks = plan(given_, first, row, trunk)
    found = paths(trunks)
    assert set(found) == set(range(len(given_)))
    for k, sequence in enumerate(given_):
        assert found[k] == (sequence, list(range(first[k], len(sequence))))
    for t in trunks:
        for r in t.rows:
            assert len(r.tokens) <= row or len({tuple(given_[number]) for number, _ in r.wanted}) == 1
            assert (r.parent < np.arange(len(r.tokens))).all()


@settings(max_examples=100, deadline=None)
@given(sequences)
def test_a_row_that_holds_all_computes_each_distinct_prefix_once(given_: list[list[int]]) -> None:
    distinct = {tuple(s[: k + 1]) for s in given_ for k in range(len(s))}
    assert computed(plan(given_, [len(s) - 1 for s in given_], row=10_000)) == len(distinct)


def test_five_shots_are_computed_once_and_questions_once() -> None:
    shots = list(range(300))
    asked = [[*shots, 1000 + q, 7, 7, 7, 7] for q in range(40)]
    every = [[*q, 500 + a, 8] for q in asked for a in range(4)]
    trunks = plan(every, [len(q) - 1 for q in asked for _ in range(4)])
    assert [len(t.tokens) for t in trunks] == [300]
    assert computed(trunks) == 300 + 40 * (5 + 4 * 2)


def test_a_trunk_ends_before_the_first_prediction_asked_for() -> None:
    every = [[*range(100), 200 + k] for k in range(50)]
    trunks = plan(every, [60] * 50, row=64)
    assert max(len(t.tokens) for t in trunks) <= 60
    assert set(paths(trunks)) == set(range(50))


@pytest.mark.parametrize(("sequence", "first"), [([], 0), ([1, 2], 2), ([1], -1)])
def test_of_every_sequence_something_is_asked(sequence: list[int], first: int) -> None:
    with pytest.raises(ValueError, match="at least one prediction"):
        plan([sequence], [first])


def test_nothing_gives_nothing() -> None:
    assert plan([], []) == []
