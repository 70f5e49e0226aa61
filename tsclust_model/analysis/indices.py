"""Whether a clustering is any good, from the rows and the labels alone.

Used by the sweep (`advice`) for every candidate and by `analysis` for the chosen clustering.
Formulas are in docs/analysis.md.
"""

from __future__ import annotations

import numpy as np
from hdbscan.validity import validity_index
from sklearn.neighbors import NearestNeighbors

from tsclust_model.analysis.algorithms import by_size
from tsclust_model.results import NOISE

DBCV_ROWS = 2_000

_SMALLEST = 3

_NEIGHBOURS = 10


def density_validity(X: np.ndarray, labels: np.ndarray, random_state: int = 42) -> float | None:
    """DBCV (Moulavi et al. 2014), -1 to 1, by `hdbscan.validity.validity_index`.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
    labels : ndarray of int, shape (n,)
        -1 is noise, which lowers the index.
    random_state : int
        Seed of the 2,000 rows it is computed on above (it is quadratic).

    Returns
    -------
    float or None
        None with fewer than two clusters of three rows or more, where it overflows, or where
        identical rows leave hdbscan's index without a tree.
    """
    if len(X) > DBCV_ROWS:
        rows = np.random.default_rng(random_state).choice(len(X), DBCV_ROWS, replace=False)
        X, labels = X[rows], labels[rows]
    inside = labels != NOISE
    sizes = np.bincount(labels[inside]) if inside.any() else np.zeros(1, dtype=int)
    kept = by_size(np.where(inside & (sizes[np.maximum(labels, 0)] >= _SMALLEST), labels, NOISE))
    if kept.max() < 1:
        return None
    # The index raises distances to the power of the columns; near 1 they do not overflow.
    spread = float(np.sqrt(2 * X.var(axis=0).sum()))
    rows = np.ascontiguousarray(X / spread) if spread > 0 else X
    with np.errstate(all="ignore"):  # identical rows are infinitely dense
        try:
            index = float(validity_index(rows, kept))
        except AssertionError:  # hdbscan's, where ties leave its spanning tree without an edge
            return None
    return index if np.isfinite(index) else None


def nearest_rows(X: np.ndarray) -> np.ndarray:
    """Positions of the ten nearest other rows of each row, shape (n, 10 at most).

    Of fewer than 40 rows a quarter: the others of a small group are not ten.
    """
    count = min(_NEIGHBOURS, max(2, len(X) // 4), len(X) - 1)
    neighbours = NearestNeighbors(n_neighbors=count).fit(X)
    return np.asarray(neighbours.kneighbors(return_distance=False))


def connectivity(labels: np.ndarray, neighbours: np.ndarray) -> float:
    """Share of neighbours that are in the same cluster, 0 to 1; noise is in none.

    High where borders run through thin regions, whatever the shape of the clusters.
    """
    same = (labels[neighbours] == labels[:, None]) & (labels != NOISE)[:, None]
    return float(same.mean())


def modularity(labels: np.ndarray, neighbours: np.ndarray) -> float:
    """`connectivity` beyond what the clusters' sizes alone explain, -1 to 1.

    ``connectivity - sum(p_c ** 2)``, p_c being the share of the rows in cluster c.
    """
    inside = labels[labels != NOISE]
    shares = np.bincount(inside, minlength=1) / len(labels)
    return connectivity(labels, neighbours) - float((shares**2).sum())


def agreement(rand: np.ndarray, families: list[str]) -> np.ndarray:
    """How well other families of algorithms find the same clusters, shape (m,).

    For each candidate: the adjusted Rand index with the most similar candidate of each other
    family, averaged over those families; 0 where there is no other family.

    Parameters
    ----------
    rand : ndarray, shape (m, m)
        `rand_matrix` of the candidates.
    families : list of str, length m
    """
    family = np.array(families)
    best = np.array([rand[:, family == name].max(axis=1) for name in sorted(set(families))])
    others = np.array([family != name for name in sorted(set(families))])
    counts = others.sum(axis=0)
    return np.where(counts > 0, (best * others).sum(axis=0) / np.maximum(counts, 1), 0.0)


def rand_matrix(labels: list[np.ndarray]) -> np.ndarray:
    """Adjusted Rand index of every pair of clusterings of the same rows, shape (m, m).

    What `sklearn.metrics.adjusted_rand_score` gives (noise is one more cluster), from one product
    of indicator matrices: a sweep has thousands of pairs.
    """
    codes = [np.unique(item, return_inverse=True)[1] for item in labels]
    widths = [int(item.max()) + 1 for item in codes]
    starts = np.concatenate([[0], np.cumsum(widths)[:-1]])
    member = np.zeros((len(codes[0]), sum(widths)))
    for start, item in zip(starts, codes, strict=True):
        member[np.arange(len(item)), start + item] = 1.0
    together = (member.T @ member) ** 2
    pairs = np.add.reduceat(np.add.reduceat(together, starts, axis=0), starts, axis=1)
    n = len(codes[0])
    sizes = np.add.reduceat(member.sum(axis=0) ** 2, starts)
    both, own = (pairs - n) / 2, (sizes - n) / 2
    expected = np.outer(own, own) / (n * (n - 1) / 2)
    highest = (own[:, None] + own[None, :]) / 2
    same = highest - expected == 0  # both are one cluster, or both are single rows
    return np.where(same, 1.0, (both - expected) / np.where(same, 1.0, highest - expected))
