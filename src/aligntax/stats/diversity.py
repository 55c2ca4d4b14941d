"""How different the texts of one group are: a prompt's answers, or one answer each to several prompts.

Texts are rows of words (``Words``: word ids, and where every text begins); a group is several of them. Every function gives one value per
group, NaN where a group has nothing to be measured (no words, fewer than two texts). All are linear in the number of words but for
sorting, except ``vendi``, which is cubic in the texts of one group.

Sources: distinct-n Li et al. 2016 (arXiv:1510.03055); expectation-adjusted distinct Liu et al. 2022 (arXiv:2202.13587), averaged over n = 1..5
as Kirk et al. 2024 (arXiv:2310.06452); self-BLEU Zhu et al. 2018 (arXiv:1802.01886); Vendi score Friedman and Dieng 2023 (arXiv:2210.02410);
compression ratio Shaib et al. 2024 (arXiv:2403.00553).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt
from scipy import sparse

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

VOCABULARY = 50_257
"""Words that the expectation of distinct n-grams draws from: GPT-2's number, as in Kirk et al.'s implementation."""
ORDERS = 5
BLEU_ORDERS = 4
BLEU_FLOOR = 0.1
"""Matches that an order without any is given (sacrebleu's smoothing ``floor``; method 1 of Chen and Cherry 2014)."""

# Writing without spaces has a word per character; everything else a word per run of letters and digits, or per mark.
_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_GRAM_CELLS = 100_000
"""Inner products computed at once."""
_ALONE = 100
"""Texts of a group above which its inner products are one matrix product."""
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]")


@dataclass(frozen=True)
class Grams:
    """N-grams of one order: (M,) code, and the text each stands in. Equal ones have equal codes."""

    code: IntArray
    text: IntArray


@dataclass(frozen=True)
class Words:
    """Texts as words.

    Attributes:
        ids: (W,) word ids of all texts one after another.
        starts: (D+1,) where every text begins, and the end.
    """

    ids: IntArray
    starts: IntArray

    @property
    def lengths(self) -> IntArray:
        """(D,) words of every text."""
        return np.diff(self.starts)

    def cut(self, limits: IntArray) -> Words:
        """The first ``limits`` (D,) words of every text."""
        kept = np.minimum(self.lengths, limits)
        at = np.arange(len(self.ids)) - np.repeat(self.starts[:-1], self.lengths) < np.repeat(kept, self.lengths)
        return Words(self.ids[at], np.concatenate([[0], np.cumsum(kept)]))

    def take(self, texts: IntArray) -> Words:
        """Some of the texts, in the order given."""
        lengths = self.lengths[texts]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        return Words(self.ids[np.arange(starts[-1]) + np.repeat(self.starts[:-1][texts] - starts[:-1], lengths)], starts)

    @cached_property
    def grams(self) -> list[Grams]:
        """N-grams of the orders 1..``ORDERS``."""
        text = np.repeat(np.arange(len(self.starts) - 1), self.lengths)
        width = int(self.ids.max(initial=0)) + 1
        code, of = self.ids, text
        out = [Grams(code, of)]
        for order in range(2, ORDERS + 1):
            # An n-gram is the one before it and one word more; codes are renumbered so that products stay within 64 bits.
            following = self.ids[order - 1 :]
            code, of = code[: len(following)], of[: len(following)]
            code = np.unique(code * width + following, return_inverse=True)[1]
            # Runs over the end of a text stay in line, and are left out where they are counted.
            of = np.where(of == text[order - 1 :], of, -1)
            out.append(Grams(code[of >= 0], of[of >= 0]))
        return out


def words_of(texts: Sequence[str], numbers: dict[str, int] | None = None) -> Words:
    """Texts as words, whatever their case; marks are words of their own.

    Args:
        texts: D of them.
        numbers: ids of words seen before; it is added to, so that several sets of texts share their ids.
    """
    known = {} if numbers is None else numbers
    ids: list[int] = []
    starts = [0]
    for text in texts:
        ids += [known.setdefault(word.lower(), len(known)) for word in _WORD.findall(text)]
        starts.append(len(ids))
    return Words(np.array(ids, dtype=np.int64), np.array(starts, dtype=np.int64))


def shortened(text: str, words: int) -> str:
    """A text up to the end of its ``words``-th word."""
    last = next(islice(_WORD.finditer(text), words - 1, None), None) if words > 0 else None
    return text[: last.end()] if last else ""


def joined(several: Sequence[Words]) -> Words:
    """Several sets of texts that share their word ids, as one."""
    shifts = np.cumsum([0, *(len(one.ids) for one in several)])
    starts = [one.starts[:-1] + shift for one, shift in zip(several, shifts[:-1], strict=True)]
    return Words(np.concatenate([one.ids for one in several]), np.concatenate([*starts, shifts[-1:]]))


def distinct(words: Words, group: IntArray, groups: int, orders: int = ORDERS) -> tuple[FloatArray, FloatArray]:
    """Distinct and all n-grams of every group.

    Args:
        words: D texts.
        group: (D,) the group of every text, 0..groups-1.
        groups: how many there are.
        orders: n = 1..orders.

    Returns:
        (orders, groups) distinct n-grams, and (orders, groups) all of them.
    """
    few, all_ = np.zeros((orders, groups)), np.zeros((orders, groups))
    for k, grams in enumerate(words.grams[:orders]):
        of = group[grams.text]
        all_[k] = np.bincount(of, minlength=groups)
        if len(of):
            size = int(grams.code.max()) + 1
            pairs = np.sort(of * size + grams.code)  # np.unique hashes, and is ten times slower here
            few[k] = np.bincount(pairs[np.concatenate([[True], pairs[1:] != pairs[:-1]])] // size, minlength=groups)
    return few, all_


def distinct_share(few: FloatArray, all_: FloatArray) -> FloatArray:
    """Distinct-n: the share of n-grams that are distinct; NaN without any."""
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.where(all_ > 0, few / all_, np.nan)
    return out


def expectation_adjusted(few: FloatArray, all_: FloatArray, vocabulary: int = VOCABULARY) -> FloatArray:
    """Distinct n-grams over those expected of as many uniform draws from a vocabulary, V[1 - ((V - 1)/V)^C], averaged over orders.

    Args:
        few: (orders, groups) distinct n-grams.
        all_: (orders, groups) all n-grams.
        vocabulary: V.

    Returns:
        (groups,) means over the orders that have any n-gram. A little above 1 where more are distinct than are expected.
    """
    expected = -vocabulary * np.expm1(all_ * np.log1p(-1 / vocabulary))
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(all_ > 0, few / expected, 0.0)
        out: FloatArray = ratio.sum(0) / (all_ > 0).sum(0)
    return out


def word_entropy(words: Words, group: IntArray, groups: int) -> FloatArray:
    """Shannon entropy (nats) of the words of every group; NaN without any."""
    of = np.repeat(group, words.lengths)
    if not len(of):
        return np.full(groups, np.nan)
    size = int(words.ids.max()) + 1
    pair, count = np.unique(of * size + words.ids, return_counts=True)
    of_pair = pair // size
    total = np.bincount(of, minlength=groups).astype(np.float64)
    p = count / total[of_pair]
    return np.where(total > 0, np.bincount(of_pair, weights=-p * np.log(p), minlength=groups), np.nan)


def self_bleu(words: Words, group: IntArray, groups: int) -> FloatArray:
    """Mean BLEU-4 (0 to 1) of every text of a group against all others of it; NaN for groups of one text.

    Sentence BLEU with clipped counts, the closest reference's length (of two the shorter), orders that a text is long enough for, and
    ``BLEU_FLOOR`` for orders without a match; a text that shares no word with the others has 0. Equal to sacrebleu's ``sentence_bleu`` with
    ``smooth_method="floor", smooth_value=0.1, use_effective_order=True``.
    """
    texts = len(words.starts) - 1
    lengths = words.lengths
    logs, orders, any_match = np.zeros(texts), np.zeros(texts), np.zeros(texts, dtype=bool)
    for k, grams in enumerate(words.grams[:BLEU_ORDERS]):
        total = np.maximum(lengths - k, 0)
        matched = _matched(grams, group, texts)
        any_match |= matched > 0
        has = total > 0
        logs[has] += np.log(np.where(matched[has] > 0, matched[has], BLEU_FLOOR) / total[has])
        orders += has
    closest = _closest(lengths, group)
    with np.errstate(invalid="ignore", divide="ignore"):
        penalty = np.where(lengths < closest, np.exp(1 - closest / lengths), 1.0)
        bleu = np.where(any_match, penalty * np.exp(logs / orders), 0.0)
    count = np.bincount(group, minlength=groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        out: FloatArray = np.where(count > 1, np.bincount(group, weights=bleu, minlength=groups) / count, np.nan)
    return out


def _matched(grams: Grams, group: IntArray, texts: int) -> FloatArray:
    """(texts,) n-grams of every text that another text of its group has, each as often as the one that has it most."""
    if not len(grams.code):
        return np.zeros(texts)
    size = int(grams.code.max()) + 1
    pair, count = np.unique(grams.text * size + grams.code, return_counts=True)
    text, code = pair // size, pair % size
    key = group[text] * size + code
    order = np.lexsort((-count, key))
    key, count, text = key[order], count[order], text[order]
    first = np.concatenate([[True], key[1:] != key[:-1]])
    start = np.flatnonzero(first)
    run = np.cumsum(first) - 1
    second = np.where(np.append(start[1:], len(key)) - start > 1, count[np.minimum(start + 1, len(key) - 1)], 0)
    most = np.where(first, second[run], count[start[run]])  # of the others: the largest, or for its holder the next
    return np.asarray(np.bincount(text, weights=np.minimum(count, most), minlength=texts), dtype=np.float64)


def _closest(lengths: IntArray, group: IntArray) -> FloatArray:
    """(D,) the length closest to each text's among the others of its group, of two the shorter; infinite where there is none."""
    order = np.lexsort((lengths, group))
    x, g = lengths[order].astype(np.float64), group[order]
    same = g[1:] == g[:-1]
    below = np.concatenate([[np.inf], np.where(same, x[1:] - x[:-1], np.inf)])
    above = np.concatenate([np.where(same, x[1:] - x[:-1], np.inf), [np.inf]])
    out = np.empty(len(x))
    out[order] = np.where(below <= above, x - below, x + above)
    return np.where(np.isfinite(out), out, np.inf)


def compression_ratio(texts: Sequence[Sequence[str]]) -> FloatArray:
    """Bytes of every group's texts over those of their deflate stream (level 9, without a header); NaN without any. More is more alike.

    Args:
        texts: of every group.
    """
    out = []
    for group in texts:
        raw = "\n".join(group).encode("utf-8", "surrogatepass")
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = len(packer.compress(raw)) + len(packer.flush())
        out.append(len(raw) / packed if raw.strip() else float("nan"))
    return np.array(out, dtype=np.float64)


def tfidf(words: Words) -> sparse.csr_matrix:
    """(D, F) unit vectors of single words and pairs of neighbours, weighted by 1 + log((1 + D)/(1 + texts that have it)).

    A text without words has a feature of its own, so that two of them are alike and differ from all others.
    """
    texts = len(words.starts) - 1
    one, two = words.grams[:2]
    size = int(one.code.max()) + 1 if len(one.code) else 0
    column = np.concatenate([one.code, two.code + size, np.zeros(int((words.lengths == 0).sum()), dtype=np.int64)])
    row = np.concatenate([one.text, two.text, np.flatnonzero(words.lengths == 0)])
    column[len(one.code) + len(two.code) :] = column.max(initial=0) + 1
    width = int(column.max(initial=0)) + 1
    counts = sparse.csr_matrix((np.ones(len(row)), (row, column)), shape=(texts, width))
    counts.sum_duplicates()
    having = np.bincount(counts.indices, minlength=width)
    counts.data *= (1 + np.log((1 + texts) / (1 + having)))[counts.indices]
    return unit_rows(counts)


def unit_rows(vectors: sparse.csr_matrix | FloatArray) -> sparse.csr_matrix:
    """(D, F) rows scaled to length 1.

    Raises:
        ValueError: if a row is nothing but 0, or holds no numbers: it has no direction.
    """
    rows = sparse.csr_matrix(vectors)
    norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1))).ravel()
    if not (np.isfinite(norms).all() and (norms > 0).all()):
        raise ValueError("a vector of length 0, or that holds no numbers, has no direction")
    return sparse.csr_matrix(sparse.diags(1 / norms) @ rows)


def mean_distance(vectors: sparse.csr_matrix, group: IntArray, groups: int) -> FloatArray:
    """1 - mean cosine of all pairs of a group's unit vectors; NaN for groups of one text."""
    member = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group)))), shape=(groups, len(group)))
    sums = member @ vectors
    squared = np.asarray(sums.multiply(sums).sum(axis=1)).ravel()
    count = np.bincount(group, minlength=groups).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosine = (squared - count) / (count * (count - 1))
        out: FloatArray = np.where(count > 1, np.clip(1 - cosine, 0.0, 2.0), np.nan)
    return out


def vendi(vectors: sparse.csr_matrix, group: IntArray, groups: int) -> FloatArray:
    """Vendi score: exp of the entropy of the eigenvalues of K/n, K the cosines of a group's unit vectors: the effective number of different texts.

    From 1 (all alike) to n (all orthogonal); NaN for groups of one text. Cubic in the texts of a group.
    """
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group, minlength=groups)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    out = np.full(groups, np.nan)
    for size in np.unique(sizes[sizes > 1]):
        alike = np.flatnonzero(sizes == size)
        step = max(1, _GRAM_CELLS // int(size) ** 2)
        for first in range(0, len(alike), step):
            some = alike[first : first + step]
            eigen = np.linalg.eigvalsh(_grams_of(vectors, order, starts[some], int(size)) / size)
            eigen = np.maximum(eigen, 1e-300)
            out[some] = np.exp(-np.sum(eigen * np.log(eigen), axis=1))
    return out


def _grams_of(vectors: sparse.csr_matrix, order: IntArray, starts: IntArray, size: int) -> FloatArray:
    """(g, size, size) inner products within each of several groups of one size."""
    if size > _ALONE:
        return np.stack([(some @ some.T).toarray() for some in (vectors[order[k : k + size]] for k in starts)])
    upper = np.triu_indices(size, 1)
    left, right = (order[(starts[:, None] + side).ravel()] for side in upper)
    products = np.asarray(vectors[left].multiply(vectors[right]).sum(axis=1)).reshape(len(starts), -1)
    out = np.tile(np.eye(size), (len(starts), 1, 1))
    out[:, upper[0], upper[1]] = out[:, upper[1], upper[0]] = products
    return out


def matched_lengths(lengths: Sequence[IntArray], group: IntArray) -> list[IntArray]:
    """How many words of each text are compared, so that every group holds as many words on all sides.

    Args:
        lengths: per side (D,) words of every text; every side has as many texts of a group as the others.
        group: (D,) the group of every text, the same on all sides.

    Returns:
        Per side (D,): within a group the r-th longest text of every side is cut to the shortest r-th longest text of any side.
    """
    orders = [np.lexsort((-of, group)) for of in lengths]
    least = np.minimum.reduce([of[order] for of, order in zip(lengths, orders, strict=True)])
    out = []
    for order in orders:
        limits = np.empty(len(group), dtype=np.int64)
        limits[order] = least
        out.append(limits)
    return out
