"""Directions that were summed up by block say what their rows say: the same estimates, limits and reliabilities, of the same blocks."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest

from aligntax.stats.directions import (
    BlockSample,
    CrossFit,
    Sample,
    block_reliability,
    common_blocks,
    corrected_cosine,
    cross_fitted,
    partial_cosine,
    point_rate,
)

Rng = np.random.Generator
D = 20


def classes(rng: Rng, length: float, count: int, groups: bool) -> Sample:
    """Two classes of rows whose means differ along the first axis, the second and the last; in groups of three that share noise, or alone."""
    direction = np.zeros(D)
    direction[[0, 1, -1]] = length * np.array([0.5, -0.3, 0.8])
    sides, labels = [], []
    for sign, name in ((0.5, "a"), (-0.5, "b")):
        of = np.arange(count) // 3
        shared = rng.normal(size=(count, D))[of] * 0.3 if groups else 0.0
        sides.append(3 + sign * direction + shared + 0.5 * rng.normal(size=(count, D)))
        labels.append(np.array([f"{name}{n}" for n in of]))
    return Sample(*sides, *labels) if groups else Sample(*sides)


def gradients(rng: Rng, axis: int, count: int, prefix: str | None) -> Sample:
    mean = np.zeros(D)
    mean[axis], mean[5] = 1.0, 0.3
    rows = mean + 0.5 * rng.normal(size=(count, D))
    return Sample(rows, None, None if prefix is None else np.array([f"{prefix}{n // 2}" for n in range(count)]))


def labels_of(samples: list[Sample]) -> list[np.ndarray]:
    """Labels of every part of every sample; rows without are alone, in their order."""
    out = []
    for number, one in enumerate(samples):
        for part, (rows, given) in enumerate(((one.positive, one.groups), (one.negative, one.negative_groups))):
            if rows is not None:
                alone = np.array([f"{number} {part} {n:04d}" for n in range(len(np.asarray(rows)))])
                out.append(alone if given is None else np.asarray(given))
    return out


def summed(samples: list[Sample]) -> list[BlockSample]:
    """Block by block, means of rows and how many there are."""
    labels = labels_of(samples)
    count, blocks = common_blocks(labels, [f"part {n}" for n in range(len(labels))])
    each = iter(blocks)
    out = []
    for one in samples:
        parts = []
        for rows in (one.positive, one.negative):
            if rows is not None:
                block = next(each)
                parts.append([np.asarray(rows)[block == k] for k in range(count)])
        means = [np.stack([x.mean(axis=0) for x in part]) for part in parts]
        sizes = [np.array([float(len(x)) for x in part]) for part in parts]
        if len(parts) == 1:
            out.append(BlockSample(means[0], sizes[0]))
        else:
            out.append(BlockSample(means[0] - means[1], sizes[0] * sizes[1] / (sizes[0] + sizes[1])))
    return out


def drawn(seed: int, groups: bool, length: float = 1.5) -> list[Sample]:
    rng = np.random.default_rng(seed)
    prefixes = ("x", "x", "y") if groups else (None, None, None)  # two tasks share their groups
    return [
        classes(rng, length, 150, groups),
        *(gradients(rng, n, size, prefix) for n, (size, prefix) in enumerate(zip((90, 120, 64), prefixes, strict=True))),
    ]


def same(one: CrossFit, other: CrossFit) -> None:
    for field in fields(CrossFit):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "overlaps":
            flat = [[(o.cosine, o.low, o.high, o.naive) for o in x] for x in (a, b)]
            assert np.allclose(*flat)
        elif isinstance(a, float | tuple | np.ndarray):
            assert np.allclose(a, b), field.name
        else:
            assert a == b, field.name


@pytest.mark.parametrize("groups", [False, True])
def test_rows_and_their_blocks_give_the_same_tax_rate(groups: bool) -> None:
    safety, *tasks = samples = drawn(1, groups)
    own, *others = summed(samples)
    found = cross_fitted(safety, tasks)
    assert found.estimate is not None
    assert found.blocks == len(own.weights)
    same(cross_fitted(own, others), found)


def test_what_is_not_identified_is_so_of_blocks_too() -> None:
    safety, *tasks = samples = drawn(2, False, 0.05)
    found, summary = cross_fitted(safety, tasks), cross_fitted(*split(samples))
    assert found.reason is not None
    same(summary, found)


def split(samples: list[Sample]) -> tuple[BlockSample, list[BlockSample]]:
    own, *others = summed(samples)
    return own, others


def test_two_safety_directions() -> None:
    first, *tasks = drawn(3, False)
    second = classes(np.random.default_rng(4), 1.2, 99, False)
    samples = [first, second, *tasks]
    one, two, *others = summed(samples)
    found, summary = partial_cosine(first, second, tasks), partial_cosine(one, two, others)
    assert found.partial is not None
    assert summary.partial is not None
    assert summary.partial.estimate == pytest.approx(found.partial.estimate)
    assert (summary.partial.low, summary.partial.high) == pytest.approx((found.partial.low, found.partial.high))
    whole = corrected_cosine(one, two).rho
    assert whole is not None
    assert found.rho is not None
    assert (whole.estimate, whole.low, whole.high) == pytest.approx((found.rho.estimate, found.rho.low, found.rho.high))


@pytest.mark.parametrize("seed", range(3))
def test_the_estimate_alone_is_that_of_cross_fitted(seed: int) -> None:
    own, others = split(drawn(seed, bool(seed % 2)))
    found = cross_fitted(own, others)
    assert point_rate(own, others) == pytest.approx(found.estimate)
    assert block_reliability(own) == pytest.approx((found.reliability, found.z))
    for one, reliability in zip(others, found.capability_reliabilities, strict=True):
        assert block_reliability(one)[0] == pytest.approx(reliability)


def test_the_estimate_alone_takes_blocks_of_its_own() -> None:
    """Coarser blocks of the one direction are other blocks: nearly the same rate, and cross_fitted refuses them."""
    own, others = split(drawn(1, False))
    pairs = own.weights.reshape(-1, 2)
    coarse = BlockSample(
        (own.means * own.weights[:, None]).reshape(len(pairs), 2, D).sum(axis=1) / pairs.sum(axis=1, keepdims=True), pairs.sum(axis=1)
    )
    assert point_rate(coarse, others) == pytest.approx(cross_fitted(own, others).estimate, abs=0.02)
    with pytest.raises(ValueError, match="in common blocks"):
        cross_fitted(coarse, others)


def test_the_estimate_alone_of_what_is_not_identified() -> None:
    own, others = split(drawn(2, False, 0.05))
    assert point_rate(own, others) is None
    assert point_rate(BlockSample(np.zeros_like(own.means), own.weights), others) is None
    assert block_reliability(BlockSample(np.zeros_like(own.means), own.weights)) == (0.0, 0.0)


def test_reliability_by_hand() -> None:
    """Equal weights: the mean product of different blocks over the squared length of the mean; its error by leaving blocks out in turn."""
    rng = np.random.default_rng(5)
    means = rng.normal(size=(9, 4)) * 0.2 + [1.0, 0.0, 0.0, 0.0]

    def squared(x: np.ndarray) -> float:
        inner = x @ x.T
        return float((inner.sum() - np.trace(inner)) / (len(x) * (len(x) - 1)))

    without = np.array([squared(np.delete(means, k, axis=0)) for k in range(9)])
    error = np.sqrt(8 / 9 * np.sum((without - without.mean()) ** 2))
    centre = means.mean(axis=0)
    reliability, z = block_reliability(BlockSample(means, np.full(9, 7.0)))
    assert reliability == pytest.approx(squared(means) / float(centre @ centre))
    assert z == pytest.approx(squared(means) / error)


def test_refused() -> None:
    own, others = split(drawn(1, False))
    safety, *tasks = drawn(1, False)
    broken = own.means.copy()
    broken[3, 2] = np.nan
    for one, many, said in (
        (BlockSample(broken, own.weights), others, "not finite in a block"),
        (BlockSample(own.means, np.where(np.arange(len(own.weights)) == 2, 0.0, own.weights)), others, "a block without rows"),
        (BlockSample(own.means[:7], own.weights[:7]), [BlockSample(x.means[:7], x.weights[:7]) for x in others], "K at least 8"),
        (BlockSample(own.means[:, :5], own.weights), others, "of one layer"),
        (own, [], "no capability is given"),
        (own, tasks, "some samples are rows and some are summed by block"),
        (safety, others, "some samples are rows and some are summed by block"),
        (own, [others[0]] * (D + 1), "they span everything"),
    ):
        with pytest.raises(ValueError, match=said):
            cross_fitted(one, many)
    with pytest.raises(ValueError, match="a direction is zero"):
        cross_fitted(replace(own, means=np.zeros_like(own.means)), others)


def test_blocks_keep_groups_whole_and_in_common() -> None:
    rng = np.random.default_rng(6)
    parts = [
        rng.permutation(np.repeat([f"g{n}" for n in range(40)], 3)),
        np.array([f"g{n}" for n in range(20, 70)] * 2),
        np.array([f"alone {n}" for n in range(33)]),
    ]
    count, blocks = common_blocks(parts, ["one", "two", "three"])
    assert count == 32
    where: dict[str, set[int]] = {}
    for labels, of in zip(parts, blocks, strict=True):
        assert len(of) == len(labels)
        assert sorted(set(of.tolist())) == list(range(count))  # no block of any part is empty
        for label, block in zip(labels, of, strict=True):
            where.setdefault(label, set()).add(int(block))
    assert all(len(found) == 1 for found in where.values())
    assert len({label for label in where if label.startswith("g")}) == 70
    again = common_blocks([labels.copy() for labels in parts], ["one", "two", "three"])[1]
    assert all(np.array_equal(a, b) for a, b in zip(blocks, again, strict=True))


def test_fewer_groups_make_fewer_blocks() -> None:
    assert common_blocks([np.arange(100), np.arange(200, 211)], ["one", "two"])[0] == 11
    assert common_blocks([np.arange(100)], ["one"], 16)[0] == 16
    with pytest.raises(ValueError, match="two: 7 independent rows or groups"):
        common_blocks([np.arange(100), np.arange(200, 207)], ["one", "two"])
    with pytest.raises(ValueError, match="blocks is 7"):
        common_blocks([np.arange(100)], ["one"], 7)
    with pytest.raises(ValueError, match="one group label per row"):
        common_blocks([np.zeros((4, 4))], ["one"])
