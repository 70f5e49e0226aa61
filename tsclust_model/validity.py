"""Whether a clustering is any good, from the rows and the labels alone.

Used by the sweep (`advice`) for every candidate and by `analysis` for the chosen clustering.
Formulas are in docs/analysis.md.
"""

from __future__ import annotations

import numpy as np
from hdbscan.validity import validity_index
from sklearn.metrics import adjusted_rand_score
from sklearn.neighbors import NearestNeighbors

from tsclust_model.clusterers import by_size
from tsclust_model.results import NOISE

DBCV_ROWS = 2_000
_DBCV_DIMENSIONS = 10  # beyond it the powers of the distances overflow
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
        None with fewer than two clusters of three rows or more, or where it overflows.
    """
    if len(X) > DBCV_ROWS:
        rows = np.random.default_rng(random_state).choice(len(X), DBCV_ROWS, replace=False)
        X, labels = X[rows], labels[rows]
    inside = labels != NOISE
    sizes = np.bincount(labels[inside]) if inside.any() else np.zeros(1, dtype=int)
    kept = by_size(np.where(inside & (sizes[np.maximum(labels, 0)] >= _SMALLEST), labels, NOISE))
    if kept.max() < 1:
        return None
    dimensions = min(X.shape[1], _DBCV_DIMENSIONS)
    with np.errstate(all="ignore"):  # identical rows are infinitely dense
        found = float(validity_index(np.ascontiguousarray(X), kept, d=dimensions))
    return found if np.isfinite(found) else None


def nearest_rows(X: np.ndarray) -> np.ndarray:
    """Positions of the ten nearest other rows of each row, shape (n, 10 at most)."""
    neighbours = NearestNeighbors(n_neighbors=min(_NEIGHBOURS, len(X) - 1)).fit(X)
    return np.asarray(neighbours.kneighbors(return_distance=False))


def connectivity(labels: np.ndarray, neighbours: np.ndarray) -> float:
    """Share of neighbours in the same cluster beyond what cluster sizes alone explain.

    ``mean(same cluster) - sum(p_c ** 2)``, the modularity of the neighbour graph; noise is in no
    cluster. Between -1 and 1.
    """
    inside = labels != NOISE
    same = (labels[neighbours] == labels[:, None]) & inside[:, None]
    shares = np.bincount(labels[inside]) / len(labels) if inside.any() else np.zeros(1)
    return float(same.mean() - (shares**2).sum())


def agreement(labels: list[np.ndarray], families: list[str]) -> np.ndarray:
    """How well other families of algorithms find the same clusters, shape (n_candidates,).

    For each candidate: the adjusted Rand index with the most similar candidate of each other
    family, averaged over those families; 0 where there is no other family.
    """
    n = len(labels)
    rand = np.ones((n, n))
    for i in range(n):
        for j in range(i):
            rand[i, j] = rand[j, i] = adjusted_rand_score(labels[i], labels[j])
    family = np.array(families)
    best = np.array([rand[:, family == name].max(axis=1) for name in sorted(set(families))])
    others = np.array([family != name for name in sorted(set(families))])
    counts = others.sum(axis=0)
    return np.where(counts > 0, (best * others).sum(axis=0) / np.maximum(counts, 1), 0.0)
