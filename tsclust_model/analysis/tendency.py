"""Whether a table has groups at all, before anyone asks which.

Three figures of the rows are compared with those of single clouds of the same size and spread: an
even one and a bell-shaped one. A table that one of them explains in every figure has no groups.
docs/analysis.md has the formulas and their calibration.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture
from threadpoolctl import threadpool_limits

from tsclust_model.shown import one_line

TENDENCY_ROWS = 500

N_CLOUDS = 12

CLOUDS = ("uniform", "normal")

FIGURES = ("silhouette", "valley", "bic_gain")

BOUND = 4.0
"""Standard deviations above the mean of the clouds' figures."""

_DIMENSIONS = 10

_MOST_CLUSTERS = 6

_MOST_COMPONENTS = 3

_NEIGHBOURS = 5

_SMALLEST_SHARE = 0.02

_SMALLEST = 3

_RIDGE = 1e-3

_TINY = 1e-12


@one_line
@dataclass(frozen=True)
class Tendency:
    """What the rows have, and what single clouds reach by chance.

    Attributes
    ----------
    present : bool
        Whether there are groups: each kind of cloud is exceeded in some figure.
    n_rows : int
        Rows it was computed on.
    figures : dict
        Figure -> value of the rows.
    bounds : dict
        Kind of cloud -> figure -> mean + 4 standard deviations of its 12 draws.
    """

    present: bool
    n_rows: int
    figures: dict[str, float]
    bounds: dict[str, dict[str, float]]


def clustering_tendency(X: np.ndarray, random_state: int = 42) -> Tendency:
    """Whether the rows lie in groups.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
        Scaled rows, all finite; of more than 500 a seeded sample is taken.
    random_state : int

    Returns
    -------
    Tendency
        The same for the same rows and seed.
    """
    with threadpool_limits(limits=1):
        return _tested(X, np.random.default_rng(random_state), random_state)


def _tested(X: np.ndarray, rng: np.random.Generator, random_state: int) -> Tendency:
    if len(X) > TENDENCY_ROWS:
        X = X[np.sort(rng.choice(len(X), TENDENCY_ROWS, replace=False))]
    rows = PCA(min(*X.shape, _DIMENSIONS), random_state=random_state).fit_transform(X)
    width = np.ptp(rows, axis=0)
    rows = rows[:, width > _TINY * width.max()]
    rows = rows / rows[:, 0].std()
    own = _figures(rows, random_state)
    bounds = {}
    for kind in CLOUDS:
        drawn = [_figures(_cloud(kind, rows, rng), random_state) for _ in range(N_CLOUDS)]
        bounds[kind] = {
            name: float(np.mean(values) + BOUND * np.std(values, ddof=1))
            for name in FIGURES
            for values in [[figures[name] for figures in drawn]]
        }
    present = all(any(own[name] > bound[name] for name in FIGURES) for bound in bounds.values())
    return Tendency(present, len(rows), own, bounds)


def _cloud(kind: str, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many rows of one cloud with the spread of these along their principal axes."""
    if kind == "uniform":
        return rng.uniform(rows.min(axis=0), rows.max(axis=0), rows.shape)
    return rng.normal(0.0, rows.std(axis=0), rows.shape)


def _figures(X: np.ndarray, random_state: int) -> dict[str, float]:
    distances = squareform(pdist(X))
    return {
        "silhouette": _best_silhouette(X, distances, random_state),
        "valley": _deepest_valley(distances),
        "bic_gain": _bic_gain(X, random_state),
    }


def _best_silhouette(X: np.ndarray, distances: np.ndarray, random_state: int) -> float:
    """Highest silhouette of kmeans with 2 to 6 clusters."""
    best = -1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct rows than clusters
        for number in range(2, min(_MOST_CLUSTERS, len(X) // _SMALLEST) + 1):
            labels = KMeans(number, n_init=1, random_state=random_state).fit_predict(X)
            if len(np.unique(labels)) > 1:
                score = silhouette_score(distances, labels, metric="precomputed")
                best = max(best, float(score))
    return best


def _deepest_valley(distances: np.ndarray) -> float:
    """How much sparser it is between two groups than within the sparser of them.

    Rows are joined by their mutual reachability distances, the nearest first. Where two groups of
    2% of the rows meet (3 at least), the logarithm of the distance over that at which the younger
    one came to be; the largest of these, 0 where groups never meet.
    """
    n = len(distances)
    neighbour = max(1, min(_NEIGHBOURS, n // 4))
    smallest = max(_SMALLEST, round(_SMALLEST_SHARE * n))
    core = np.partition(distances, neighbour, axis=1)[:, neighbour]
    reach = np.maximum(np.maximum(distances, core), core[:, None])
    tree = minimum_spanning_tree(np.maximum(reach, _TINY)).tocoo()
    parent, size, born = list(range(n)), [1] * n, [np.inf] * n
    deepest = 0.0
    for edge in np.argsort(tree.data, kind="stable"):
        here = float(tree.data[edge])
        a, b = _root(parent, int(tree.row[edge])), _root(parent, int(tree.col[edge]))
        if min(size[a], size[b]) >= smallest:
            deepest = max(deepest, float(np.log(here / max(born[a], born[b]))))
        parent[b], size[a] = a, size[a] + size[b]
        born[a] = min(born[a], born[b])
        if size[a] >= smallest and not np.isfinite(born[a]):
            born[a] = here
    return deepest


def _root(parent: list[int], item: int) -> int:
    while parent[item] != item:
        parent[item] = item = parent[parent[item]]
    return item


def _bic_gain(X: np.ndarray, random_state: int) -> float:
    """BIC of one Gaussian less the lowest of mixtures of two and three, divided by the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mixture that does not converge counts as it is
        bic = [
            GaussianMixture(number, reg_covar=_RIDGE, random_state=random_state).fit(X).bic(X)
            for number in range(1, min(_MOST_COMPONENTS, len(X) // _SMALLEST) + 1)
        ]
    return (bic[0] - min(bic[1:], default=bic[0])) / len(X)
