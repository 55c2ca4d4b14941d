"""Cluster-robust variance of a mean of paired differences, and what tells whether to trust it.

``d`` (n,) are differences, ``codes`` (n,) integer cluster codes 0..G-1. With f_g = n_g / n and S_g = the sum of
d - mean(d) in cluster g:

    CR0 = sum S_g^2 / n^2                    CR1 = CR0 * G / (G - 1)
    CR2 = sum S_g^2 / (1 - f_g) / n^2        CR3 = (G - 1)/G * sum S_g^2 / (1 - f_g)^2 / n^2

Sources: Bell and McCaffrey 2002 (Survey Methodology 28:169) for CR2 and its Satterthwaite degrees of freedom, here
in the closed form that a mean allows; Imbens and Kolesar 2016 (REStat 98:701) for the compound-symmetry variant;
Carter, Schnepel and Steigerwald 2017 for the effective number of clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClusterFacts:
    """What a cluster column says about one set of differences.

    Attributes:
        count: G, the clusters present.
        sizes: n_g (G,), items per cluster.
        sums: S_g (G,), sums of centred differences.
        variance_cr1, variance_cr2: variances of the mean.
        df: Bell-McCaffrey degrees of freedom; depends on the sizes alone.
        icc: ANOVA intraclass correlation of the differences (None if every cluster has one item); reported, never
            used to choose a method.
        flip_clusters: clusters with at least one difference other than 0.
        largest_share: the largest cluster's share of the items.
        mean_of_means: the mean of the clusters' own means.
    """

    count: int
    sizes: FloatArray
    sums: FloatArray
    variance_cr1: float
    variance_cr2: float
    df: float
    icc: float | None
    flip_clusters: int
    largest_share: float
    mean_of_means: float


def cluster_sums(d: FloatArray, codes: IntArray) -> tuple[FloatArray, FloatArray]:
    """(sizes n_g, centred sums S_g), each (G,)."""
    sizes = np.bincount(codes).astype(np.float64)
    if d.min() == d.max():
        return sizes, np.zeros(len(sizes))  # exactly, where subtracting a rounded mean would leave noise
    # Totals first: of whole numbers they are exact, whatever the order of rows.
    return sizes, np.bincount(codes, weights=d, minlength=len(sizes)) - sizes * d.mean()


def cr_variance(d: FloatArray, codes: IntArray, kind: str = "CR2") -> float:
    """Variance of mean(d) by the estimator named ``kind``: CR0, CR1, CR2 or CR3.

    Raises:
        ValueError: on an unknown kind, or with a single cluster (no variance between clusters can be seen).
    """
    sizes, sums = cluster_sums(d, codes)
    count, n = len(sizes), len(d)
    if count < 2:
        raise ValueError("one cluster: its variance cannot be estimated")
    rest = 1.0 - sizes / n
    total = {
        "CR0": np.sum(sums**2),
        "CR1": np.sum(sums**2) * count / (count - 1),
        "CR2": np.sum(sums**2 / rest),
        "CR3": np.sum(sums**2 / rest**2) * (count - 1) / count,
    }
    if kind not in total:
        raise ValueError(f"kind must be one of {', '.join(total)}, got {kind!r}")
    return float(total[kind]) / n**2


def bell_mccaffrey_df(sizes: npt.ArrayLike) -> float:
    """Satterthwaite degrees of freedom of CR2 for a mean: ``1 / (sum f^2 + (sum a)^2 - sum a^2)``, a = f^2/(1-f).

    Equal sizes give G - 1; the largest cluster pulls it down (sizes 100,1,1,1,1 give 1.06).
    """
    f = np.asarray(sizes, dtype=np.float64)
    f = f / f.sum()
    a = f * f / (1.0 - f)
    # Rounding must not decide whether five equal clusters have the four degrees of freedom that a verdict takes.
    return float(f"{1.0 / (np.sum(f * f) + a.sum() ** 2 - np.sum(a * a)):.13g}")


def imbens_kolesar_df(sizes: npt.ArrayLike, rho: float) -> float:
    """The same degrees of freedom when items of a cluster correlate by ``rho`` (compound symmetry).

    With B_gh = sqrt(w_g w_h) Cov(S_g, S_h), w = 1/(1-f): df = (tr B)^2 / tr(B^2).
    """
    n_g = np.asarray(sizes, dtype=np.float64)
    n = n_g.sum()
    f = n_g / n
    variance_of_total = n_g * (1.0 + (n_g - 1.0) * rho)
    # S_g = Y_g - f_g * sum_h Y_h with independent cluster totals Y_h.
    mixing = np.eye(len(n_g)) - np.outer(f, np.ones(len(n_g)))
    covariance = mixing @ np.diag(variance_of_total) @ mixing.T
    weights = np.sqrt(1.0 / (1.0 - f))
    b = covariance * np.outer(weights, weights)
    return float(np.trace(b) ** 2 / np.trace(b @ b))


def kish_clusters(sizes: npt.ArrayLike) -> float:
    """Kish's effective number of clusters, ``(sum n_g)^2 / sum n_g^2``."""
    n_g = np.asarray(sizes, dtype=np.float64)
    return float(n_g.sum() ** 2 / np.sum(n_g**2))


def anova_icc(d: FloatArray, codes: IntArray) -> float | None:
    """Intraclass correlation ``(MSB - MSW) / (MSB + (n0 - 1) MSW)``, n0 = (n - sum n_g^2/n)/(G - 1).

    None where it is undefined: one cluster, one item per cluster, or no variance at all.
    """
    sizes = np.bincount(codes).astype(np.float64)
    count, n = len(sizes), len(d)
    if count < 2 or n == count:
        return None
    sizes, sums = cluster_sums(d, codes)
    squares = float(np.sum(d * d)) - n * float(d.mean()) ** 2
    between_squares = float(np.sum(sums**2 / sizes))
    between = between_squares / (count - 1)
    within = max(0.0, squares - between_squares) / (n - count)
    n0 = (n - float(np.sum(sizes**2)) / n) / (count - 1)
    scale = between + (n0 - 1.0) * within
    return None if scale <= 1e-15 else (between - within) / scale


def cluster_facts(d: FloatArray, codes: IntArray) -> ClusterFacts:
    """Everything the comparison needs to know of one clustering (at least two clusters).

    Raises:
        ValueError: with fewer than two clusters.
    """
    sizes, sums = cluster_sums(d, codes)
    changed = np.bincount(codes, weights=(d != 0).astype(np.float64), minlength=len(sizes))
    means = np.bincount(codes, weights=d, minlength=len(sizes)) / sizes
    return ClusterFacts(
        count=len(sizes),
        sizes=sizes,
        sums=sums,
        variance_cr1=cr_variance(d, codes, "CR1"),
        variance_cr2=cr_variance(d, codes, "CR2"),
        df=bell_mccaffrey_df(sizes),
        icc=anova_icc(d, codes),
        flip_clusters=int(np.count_nonzero(changed)),
        largest_share=float(sizes.max() / sizes.sum()),
        mean_of_means=float(means.mean()),
    )
