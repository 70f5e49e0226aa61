"""Parameters of clustering algorithms: checked, and carried over to other rows."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import hdbscan
import numpy as np
from scipy.spatial import KDTree
from sklearn.cluster import (
    DBSCAN,
    OPTICS,
    AgglomerativeClustering,
    KMeans,
    SpectralClustering,
)
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from tsclust_model.config import Params
from tsclust_model.errors import ClusteringError, listed, suggestion

DENSITY_METHODS = frozenset({"dbscan", "hdbscan", "optics"})

CLASSES: dict[str, type] = {
    "kmeans": KMeans,
    "dbscan": DBSCAN,
    "hierarchical": AgglomerativeClustering,
    "spectral": SpectralClustering,
    "gaussian_mixture": GaussianMixture,
    "hdbscan": hdbscan.HDBSCAN,
    "optics": OPTICS,
}

# Set by fields of their own, by the machine, or of no use here.
_MANAGED = frozenset(
    [
        *("n_clusters", "n_components", "random_state", "n_jobs", "core_dist_n_jobs", "memory"),
        *("verbose", "warm_start", "copy_x", "connectivity", "precomputed", "prediction_data"),
        "gen_min_span_tree",
    ]
)

# Numbers whose default is None or a name; of optics a share of the rows, up to 1, too.
_COUNTS_TOO = frozenset({"min_samples", "min_cluster_size", "n_init"})

_KNEE_ROWS = 10_000

TREE_COLUMNS = 15  # beyond, a tree is slower than all pairs

LEAF = 40


def transferred(
    parameters: Mapping[str, Any],
    X: np.ndarray,
    members: np.ndarray,
    random_state: int,
    place: float | None = None,
) -> Params:
    """The parameters that mean to `members`, some rows of X, what these mean to X.

    ``min_cluster_size`` keeps its share of the rows (2 at least), and ``eps`` its place among the
    distances to the ``min_samples``-th nearest row (`eps_place`, where it is known). Numbers that
    fewer rows cannot have are cut.
    """
    carried = dict(parameters)
    size = carried.get("min_cluster_size")
    if isinstance(size, int):
        carried["min_cluster_size"] = max(2, round(size * len(members) / len(X)))
    if isinstance(carried.get("min_samples"), int) and "eps" not in carried:
        carried["min_samples"] = min(carried["min_samples"], len(members) // 2)
    place = eps_place(carried, X, random_state) if place is None else place
    if place is not None:
        distances = neighbour_distances(members, carried.get("min_samples", 5), random_state)
        eps = float(np.quantile(distances, place))
        carried["eps"] = eps if eps > 0 else carried["eps"]
    for name in ("n_clusters", "n_components", "n_neighbors"):
        if isinstance(carried.get(name), int):
            carried[name] = min(carried[name], len(members) - 1)
    return carried


def eps_place(parameters: Mapping[str, Any], X: np.ndarray, random_state: int) -> float | None:
    """The share of the rows whose ``min_samples``-th nearest row is within ``eps``, if any."""
    eps, samples = parameters.get("eps"), parameters.get("min_samples", 5)
    if not isinstance(eps, (int, float)) or not isinstance(samples, int):
        return None
    return float((neighbour_distances(X, samples, random_state) <= eps).mean())


def whole_parameters(algorithm: str, parameters: Mapping[str, Any]) -> Params:
    """The parameters with 5.0 as 5 where the library counts: JSON does not tell them apart."""
    known = inspect.signature(CLASSES[algorithm]).parameters

    def counts(name: str, value: float) -> bool:
        if not value.is_integer() or (algorithm == "optics" and value <= 1):
            return False
        return name in _COUNTS_TOO or (name in known and type(known[name].default) is int)

    return {
        name: int(value) if isinstance(value, float) and counts(name, value) else value
        for name, value in parameters.items()
    }


def check_parameters(algorithm: str, parameters: Mapping[str, Any], n_clusters: int | None) -> None:
    """Refuse what the algorithm does not take, before anything is computed."""
    if n_clusters is not None and algorithm in DENSITY_METHODS:
        raise ClusteringError(
            f"clustering_configuration.n_clusters is {n_clusters}, but {algorithm} finds the "
            "number itself; leave it out, or use kmeans"
        )
    known = set(inspect.signature(CLASSES[algorithm]).parameters) - {"kwargs", "self"}
    for name, value in parameters.items():
        where = f"clustering_configuration.parameters.{name}"
        if name in _MANAGED:
            field = "n_clusters" if name == "n_components" else name
            raise ClusteringError(
                f"{where} is {value!r}; it is managed here"
                + (
                    f": use clustering_configuration.{field}"
                    if field in ("n_clusters", "random_state")
                    else ", leave it out"
                )
            )
        if name not in known:
            raise ClusteringError(
                f"{where} is {value!r}, but {algorithm} has no such parameter"
                f"{suggestion(name, known - _MANAGED)}; it has {listed(sorted(known - _MANAGED))}"
            )
        if value == "precomputed":
            raise ClusteringError(f"{where} is 'precomputed', but the rows are features")


def require_rows(n_clusters: int | None, n_rows: int) -> None:
    """Refuse as many clusters as rows, or more.

    Raises
    ------
    ClusteringError
    """
    if n_clusters is not None and n_clusters >= n_rows:
        raise ClusteringError(
            f"clustering_configuration.n_clusters is {n_clusters}, but there are {n_rows} rows; "
            "ask for fewer clusters than rows"
        )


def neighbour_distances(X: np.ndarray, min_samples: int, random_state: int) -> np.ndarray:
    """Sorted distances to the `min_samples`-th nearest row (itself is the first), of all rows or
    of a seeded 10,000, shape (m,)."""
    rows = np.arange(len(X))
    if len(X) > _KNEE_ROWS:
        rows = np.random.default_rng(random_state).choice(len(X), _KNEE_ROWS, replace=False)
    others = min(max(min_samples, 2), len(X)) - 1
    return np.sort(nearest_others(X, others, rows)[0][:, -1])


def nearest_others(X: np.ndarray, count: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other rows of some rows of X.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
    count : int
        1 to n - 1.
    rows : ndarray of int, shape (m,)
        Positions in X.

    Returns
    -------
    distances : ndarray of float64, shape (m, count)
        The nearest first.
    positions : ndarray of int, shape (m, count)
    """
    if X.shape[1] > TREE_COLUMNS:
        search = NearestNeighbors(n_neighbors=count + 1).fit(X)
        distances, positions = search.kneighbors(X[rows])
    else:
        tree = KDTree(X, leafsize=LEAF)
        place = np.empty(len(X), dtype=np.int64)
        place[tree.indices] = np.arange(len(X))
        order = np.argsort(place[rows])  # rows of one leaf together: four times as fast
        back = np.argsort(order)
        distances, positions = (part[back] for part in tree.query(X[rows[order]], count + 1))
    others = positions != rows[:, None]
    others[others.all(axis=1), -1] = False  # so many copies that the row itself is not among them
    shape = (len(rows), count)
    return distances[others].reshape(shape), positions[others].reshape(shape)


def knee(distances: np.ndarray) -> float:
    """The sorted distance that lies furthest below the chord from the first to the last."""
    chord = np.linspace(distances[0], distances[-1], len(distances))
    distance = float(distances[np.argmax(chord - distances)])
    positive = distances[distances > 0]
    return distance if distance > 0 else float(positive[0]) if positive.size else 1.0
