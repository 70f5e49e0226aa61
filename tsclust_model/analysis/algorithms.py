"""Seven clustering algorithms behind one call: rows in, labels and confidences out."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hdbscan
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestNeighbors

from tsclust_model.analysis.parameters import (
    CLASSES,
    DENSITY_METHODS,
    LEAF,
    TREE_COLUMNS,
    check_parameters,
    knee,
    nearest_others,
    neighbour_distances,
    require_rows,
    transferred,
    whole_parameters,
)
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.config import Params
from tsclust_model.errors import ClusteringError, counted
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

LARGEST_FIT = {
    "spectral": 20_000,
    "hierarchical": 20_000,
    "optics": 20_000,
    "dbscan": 100_000,
    "hdbscan": 200_000,
}
"""Rows above which an algorithm fits a seeded sample of so many, and the rest is assigned."""

_MOST_CLUSTERS_TRIED = 10

_CHOICE_ROWS = 2_000

_NEIGHBOURS = 10

_MOST_SAMPLES = 25  # hdbscan keeps twice as many neighbours of each row it predicts

_ROWS_AT_A_TIME = 50_000

_TINY = 1e-12


@one_line
@dataclass(frozen=True)
class Clustering:
    """What an algorithm found.

    Attributes
    ----------
    algorithm : str
    parameters : dict
        Arguments it ran with, defaults that were chosen here included; plain JSON values.
    labels : ndarray of int64, shape (n,)
        Cluster of each row, 0 being the largest; -1 is noise.
    confidence : ndarray of float64, shape (n,)
        0 to 1; 0 for noise. docs/analysis.md has the formulas.
    n_fitted : int
        Rows the algorithm saw; the others were assigned.
    notes : tuple of str
        What the library warned of.
    inertia : float or None
        Sum of squared distances to the centres, of kmeans only.
    """

    algorithm: str
    parameters: Params
    labels: np.ndarray
    confidence: np.ndarray
    n_fitted: int
    notes: tuple[str, ...] = ()
    inertia: float | None = None

    @property
    def n_clusters(self) -> int:
        return int(self.labels.max()) + 1 if self.labels.size else 0

    @property
    def noise_ratio(self) -> float:
        """Share of noise, 0 to 1."""
        return float((self.labels == NOISE).mean())


def fit_clustering(
    X: np.ndarray,
    algorithm: str,
    parameters: Mapping[str, Any] | None = None,
    n_clusters: int | None = None,
    random_state: int = 42,
) -> Clustering:
    """Cluster the rows of X.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
        Scaled rows, all finite.
    algorithm : str
        One of kmeans, dbscan, hierarchical, spectral, gaussian_mixture, hdbscan, optics.
    parameters : mapping, optional
        Arguments of the library's class; what is not given is chosen, see `chosen_parameters`.
    n_clusters : int, optional
        None is chosen: the best silhouette (for mixtures the lowest BIC) of 2 to 10 clusters.
    random_state : int

    Raises
    ------
    ClusteringError
        Parameters that do not exist, are refused, or ask for more than there is.
    """
    given = whole_parameters(algorithm, parameters or {})
    check_parameters(algorithm, given, n_clusters)
    require_rows(n_clusters, len(X))
    rows = _fitted_rows(len(X), algorithm, random_state)
    members = X if rows is None else X[rows]
    if rows is not None:
        given = transferred(given, X, members, random_state)
    chosen = given | chosen_parameters(members, algorithm, given, n_clusters, random_state)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, labels = _fit(members, algorithm, chosen, random_state)
    notes = tuple(sorted({" ".join(str(item.message).split()) for item in caught}))
    confidence = _confidence(members, labels, algorithm, model)
    if rows is not None:
        labels, confidence = _assign_rest(X, rows, labels, confidence, model)
    confidence = np.where(labels == NOISE, 0.0, np.clip(confidence, 0.0, 1.0))
    inertia = float(model.inertia_) if algorithm == "kmeans" else None
    return Clustering(algorithm, chosen, by_size(labels), confidence, len(members), notes, inertia)


def fit_labels(
    X: np.ndarray, algorithm: str, parameters: Mapping[str, Any], random_state: int
) -> np.ndarray:
    """Labels alone, shape (n,), for the many refits of a sweep; warnings are not kept.

    Parameters are complete, as `Clustering.parameters` are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a candidate that does not converge scores as it is
        _, labels = _fit(X, algorithm, dict(parameters), random_state)
    return by_size(labels)


def chosen_parameters(
    X: np.ndarray,
    algorithm: str,
    given: Mapping[str, Any],
    n_clusters: int | None,
    random_state: int,
) -> dict[str, Any]:
    """The parameters that were not given, where this package has a better one than the library.

    The number of clusters; dbscan's ``eps`` (the knee of the sorted distances to the
    ``min_samples``-th neighbour); hdbscan's ``min_cluster_size`` (1% of the rows, 5 at least)
    and ``min_samples`` (as many, 25 at most);
    optics' ``min_cluster_size`` and ``min_samples`` (2% of the rows, 10 at least). What is a
    number of rows is a quarter of them at most.
    """
    fewest = max(2, len(X) // 4)  # so that a dozen rows can have three clusters
    if algorithm == "dbscan":
        size = given.get("min_samples", min(5, fewest))
        if "eps" in given or not isinstance(size, int):
            return {"min_samples": size}
        return {"min_samples": size, "eps": knee(neighbour_distances(X, size, random_state))}
    if algorithm in DENSITY_METHODS:
        if algorithm == "hdbscan":
            size = given.get("min_cluster_size", max(min(5, fewest), len(X) // 100))
            if "min_samples" in given or not isinstance(size, int):
                return {"min_cluster_size": size}
            return {"min_cluster_size": size, "min_samples": min(size, _MOST_SAMPLES)}
        names = {"min_cluster_size", "min_samples"} - set(given)
        return dict.fromkeys(sorted(names), max(min(10, fewest), len(X) // 50))
    name = "n_components" if algorithm == "gaussian_mixture" else "n_clusters"
    extra: dict[str, Any] = {}
    if algorithm == "spectral" and "affinity" not in given:
        neighbours = min(given.get("n_neighbors", min(_NEIGHBOURS, fewest)), len(X) - 1)
        extra = {"affinity": "nearest_neighbors", "n_neighbors": neighbours}
    if n_clusters is not None:
        return extra | {name: n_clusters}
    if algorithm == "hierarchical" and given.get("distance_threshold") is not None:
        return {name: None}
    return extra | {name: _best_number(X, algorithm, dict(given) | extra, name, random_state)}


def by_size(labels: np.ndarray) -> np.ndarray:
    """The same clusters numbered from the largest, 0; equal sizes in the order of the rows."""
    inside = labels != NOISE
    values, first, codes, sizes = np.unique(
        labels[inside], return_index=True, return_inverse=True, return_counts=True
    )
    place = np.empty(len(values), dtype=np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(values))
    renumbered = np.full(len(labels), NOISE, dtype=np.int64)
    renumbered[inside] = place[codes]
    return renumbered


def _fitted_rows(n: int, algorithm: str, random_state: int) -> np.ndarray | None:
    """Positions of the sample that is fitted; None is all rows."""
    most = LARGEST_FIT.get(algorithm, n)
    if n <= most:
        return None
    return np.sort(np.random.default_rng(random_state).choice(n, most, replace=False))


def _fit(
    X: np.ndarray, algorithm: str, parameters: Params, random_state: int
) -> tuple[Any, np.ndarray]:
    if algorithm == "dbscan" and X.shape[1] <= TREE_COLUMNS and _plain_dbscan(parameters):
        return None, _dbscan(X, parameters["eps"], parameters["min_samples"])
    arguments = dict(parameters)
    if algorithm in ("kmeans", "spectral", "gaussian_mixture"):
        arguments["random_state"] = random_state
    if algorithm == "kmeans":
        arguments.setdefault("n_init", 10)
    if algorithm == "hdbscan":
        arguments["core_dist_n_jobs"] = 1
    try:
        model = CLASSES[algorithm](**arguments)
        # Translated, for the libraries' checks are of the parameters: the rows are clean.
        return model, np.asarray(model.fit_predict(X), dtype=np.int64)
    except (ValueError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ClusteringError(
            f"clustering_configuration.parameters {parameters} are refused by {algorithm}: {text}"
        ) from error


def _plain_dbscan(parameters: Mapping[str, Any]) -> bool:
    """Whether `_dbscan` can run it; all else, what is refused included, is scikit-learn's."""
    eps, samples = parameters.get("eps"), parameters.get("min_samples")
    valid = isinstance(eps, (int, float)) and isinstance(samples, int) and eps > 0 and samples > 0
    return valid and set(parameters) == {"eps", "min_samples"}


def _dbscan(X: np.ndarray, eps: float, min_samples: int) -> np.ndarray:
    """The labels of scikit-learn's DBSCAN, shape (n,), in an eighth of its time.

    Its labels are the connected parts of the core rows, by their first core row; another row
    within ``eps`` of core rows has the first of their clusters.
    """
    n = len(X)
    pairs = KDTree(X, leafsize=LEAF).query_pairs(eps, output_type="ndarray")
    core = np.bincount(pairs.ravel(), minlength=n) + 1 >= min_samples  # a row is its own neighbour
    of_core = core[pairs]
    left, right = pairs[of_core.all(axis=1)].T
    graph = coo_array((np.ones(len(left), dtype=np.int8), (left, right)), shape=(n, n))
    parts = connected_components(graph, directed=False)[1]
    labels = np.full(n, n)
    _, first, codes = np.unique(parts[core], return_index=True, return_inverse=True)
    labels[core] = np.argsort(np.argsort(first))[codes]
    for inside, border in ((0, 1), (1, 0)):
        near = pairs[of_core[:, inside] & ~of_core[:, border]]
        np.minimum.at(labels, near[:, border], labels[near[:, inside]])
    return np.where(labels < n, labels, NOISE)


def _best_number(X: np.ndarray, algorithm: str, given: Params, name: str, random_state: int) -> int:
    if len(X) > _CHOICE_ROWS:
        X = X[np.random.default_rng(random_state).choice(len(X), _CHOICE_ROWS, replace=False)]
    distinct = len(np.unique(X, axis=0))
    if distinct < 2:
        raise ClusteringError(
            f"the rows have {counted(distinct, 'distinct value')} in the clustered columns; "
            "2 or more are needed"
        )
    most = min(_MOST_CLUSTERS_TRIED, distinct - 1)
    if algorithm == "gaussian_mixture":  # a component of a few rows is infinitely likely
        most = min(most, len(X) // 4)
    score_of: Callable[[np.ndarray, np.ndarray, Any], float] = (
        _bic if algorithm == "gaussian_mixture" else _silhouette
    )
    scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(2, max(2, most) + 1):
            model, labels = _fit(X, algorithm, given | {name: number}, random_state)
            scores[number] = score_of(X, labels, model)
    return max(scores, key=lambda number: scores[number])


def _bic(X: np.ndarray, labels: np.ndarray, model: Any) -> float:
    return -float(model.bic(X))


def _silhouette(X: np.ndarray, labels: np.ndarray, model: Any) -> float:
    if not 2 <= len(np.unique(labels)) < len(X):
        return -1.0
    return float(silhouette_score(X, labels))


def _confidence(X: np.ndarray, labels: np.ndarray, algorithm: str, model: Any) -> np.ndarray:
    if algorithm == "hdbscan":
        return np.asarray(model.probabilities_, dtype=np.float64)
    if algorithm == "gaussian_mixture":
        return np.asarray(model.predict_proba(X).max(axis=1))
    if algorithm == "kmeans":
        return _centre_confidence(model.transform(X))
    return _neighbour_confidence(X, labels)


def _centre_confidence(distances: np.ndarray) -> np.ndarray:
    """``b / (a + b)`` of the distances a to the nearest centre and b to the next; 1 with one."""
    if distances.shape[1] == 1:
        return np.ones(len(distances))
    nearest = np.partition(distances, 1, axis=1)[:, :2]
    return (nearest[:, 1] + _TINY) / (nearest.sum(axis=1) + 2 * _TINY)


def _neighbour_confidence(X: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Share of the ten nearest other rows in the same cluster, weighted by 1 / distance."""
    inside = np.flatnonzero(labels != NOISE)
    sure = np.zeros(len(X))
    if inside.size:
        distances, others = nearest_others(X, min(_NEIGHBOURS, len(X) - 1), inside)
        weights = 1 / (distances + _TINY)
        same = labels[others] == labels[inside, None]
        sure[inside] = (weights * same).sum(axis=1) / weights.sum(axis=1)
    return sure


def _assign_rest(
    X: np.ndarray, rows: np.ndarray, labels: np.ndarray, confidence: np.ndarray, model: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Rows outside the sample: hdbscan's own prediction, else what their nearest row has."""
    rest = np.setdiff1d(np.arange(len(X)), rows, assume_unique=True)
    all_labels, sure = np.empty(len(X), dtype=np.int64), np.empty(len(X))
    all_labels[rows], sure[rows] = labels, confidence
    if isinstance(model, hdbscan.HDBSCAN):
        tree = DensityTree.from_hdbscan(model)
        for part in np.array_split(rest, -(-len(rest) // _ROWS_AT_A_TIME)):
            all_labels[part], sure[part] = tree.predict(X[part])
    else:
        nearest = NearestNeighbors(n_neighbors=1).fit(X[rows])
        nearest_row = nearest.kneighbors(X[rest], return_distance=False)[:, 0]
        all_labels[rest], sure[rest] = labels[nearest_row], confidence[nearest_row]
    return all_labels, sure
