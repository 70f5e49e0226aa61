"""Which algorithm and how many clusters: a sweep that is evaluated without labels.

Every candidate is fitted on the same rows (a seeded sample above `SWEEP_ROWS`) and again on four
random subsets of four fifths. Four figures are ranked among the candidates, the ranks are averaged
with the same weight, and the mean is weighed by how far all candidates agree with this one;
docs/analysis.md has the formulas and why these four.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_limits

from tsclust_model.analysis.algorithms import fit_labels
from tsclust_model.analysis.indices import (
    agreement,
    connectivity,
    density_validity,
    modularity,
    nearest_rows,
    rand_matrix,
)
from tsclust_model.analysis.parameters import neighbour_distances
from tsclust_model.config import Params
from tsclust_model.errors import ClusteringError, counted
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

SWEEP_ROWS = 2_000

N_SUBSETS = 4

SUBSET_SHARE = 0.8

MOST_NOISE = 0.5

SMALLEST_CLUSTER = 3

_NUMBERS = (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20)

_LINKAGES = ("ward", "average", "single")

_ROWS_PER_CLUSTER = 8

_FEW_CLUSTERS = 5  # as many are tried where they have four rows each

_DBCV_OF_BEST = 10

_SIZES = (0.01, 0.02, 0.05, 0.1)

_MIN_SAMPLES = (1, 5, 10)

_QUANTILES = (0.8, 0.9, 0.95, 0.98)

_DBSCAN_SAMPLES = 5


@dataclass(frozen=True)
class Candidate:
    """An algorithm and what it is told, in terms that do not depend on the number of rows.

    Attributes
    ----------
    algorithm : str
    n_clusters : int or None
        None where the algorithm finds the number.
    linkage : str or None
        Of hierarchical.
    size_share : float or None
        hdbscan's ``min_cluster_size`` as a share of the rows.
    min_samples : int or None
        Of hdbscan.
    quantile : float or None
        dbscan's ``eps`` as a quantile of the distances to the fifth nearest row.
    """

    algorithm: str
    n_clusters: int | None = None
    linkage: str | None = None
    size_share: float | None = None
    min_samples: int | None = None
    quantile: float | None = None

    @property
    def family(self) -> str:
        """What counts as one opinion: hierarchical clusterings differ by linkage."""
        return self.linkage or self.algorithm

    def parameters(self, X: np.ndarray, random_state: int) -> Params:
        """The arguments for these rows, without the number of clusters."""
        if self.algorithm == "hierarchical":
            return {"linkage": self.linkage}
        if self.size_share is not None:
            size = max(2, round(self.size_share * len(X)))
            return {"min_cluster_size": size, "min_samples": self.min_samples}
        if self.quantile is not None:
            distances = neighbour_distances(X, _DBSCAN_SAMPLES, random_state)
            positive = distances[distances > 0]
            smallest = float(positive[0]) if positive.size else 1.0
            eps = max(float(np.quantile(distances, self.quantile)), smallest)
            return {"eps": eps, "min_samples": _DBSCAN_SAMPLES}
        if self.algorithm == "spectral":
            neighbours = min(10, max(2, len(X) // 4))
            return {"affinity": "nearest_neighbors", "n_neighbors": neighbours}
        return {}

    def complete(self, X: np.ndarray, random_state: int) -> Params:
        """The arguments with the number of clusters under the library's name."""
        parameters = self.parameters(X, random_state)
        if self.n_clusters is None:
            return parameters
        name = "n_components" if self.algorithm == "gaussian_mixture" else "n_clusters"
        return parameters | {name: self.n_clusters}


@one_line
@dataclass(frozen=True)
class EvaluatedCandidate:
    """A candidate and its figures; None where undefined.

    Attributes
    ----------
    candidate : Candidate
    parameters : dict
        Those of the sweep's rows.
    labels : ndarray of int64, shape (n_sweep_rows,)
    stability, agreement, connectivity, modularity : float or None
        What is ranked.
    dbcv, silhouette : float or None
        Beside it, for the reader; DBCV of the ten best only, for it is slow.
    excluded : str or None
        Why it is not ranked.
    mean_rank : float or None
        Of the four figures, above 0 and at most 1; 1 is first in everything.
    support : float or None
        Adjusted Rand index with all ranked candidates, weighted by their mean ranks, 0 to 1.
    score : float or None
        ``mean_rank * support``: a winner by chance stands alone.
    """

    candidate: Candidate
    parameters: Params
    labels: np.ndarray
    n_clusters: int
    noise_ratio: float
    stability: float | None = None
    agreement: float | None = None
    connectivity: float | None = None
    modularity: float | None = None
    dbcv: float | None = None
    silhouette: float | None = None
    excluded: str | None = None
    mean_rank: float | None = None
    support: float | None = None
    score: float | None = None


@one_line
@dataclass(frozen=True)
class Advice:
    """The sweep, best first, those that are not ranked last.

    Attributes
    ----------
    evaluated : tuple of EvaluatedCandidate
    n_rows : int
        Rows of the sweep.
    n_candidates : int
        How many there are; fewer in `evaluated` where the time budget was used up.
    """

    evaluated: tuple[EvaluatedCandidate, ...]
    n_rows: int
    n_candidates: int

    @property
    def best(self) -> EvaluatedCandidate | None:
        """The first of the ranking; None where nothing could be ranked."""
        return self.evaluated[0] if self.evaluated and self.evaluated[0].score is not None else None

    @property
    def complete(self) -> bool:
        """Whether every candidate was tried."""
        return len(self.evaluated) == self.n_candidates


def candidates(n_rows: int, n_clusters: int | None = None) -> list[Candidate]:
    """What the sweep tries on so many rows; with `n_clusters` only that number."""
    most = max(2, n_rows // _ROWS_PER_CLUSTER, min(_FEW_CLUSTERS, n_rows // 4))
    numbers = [n for n in _NUMBERS if n <= most] if n_clusters is None else [n_clusters]
    tried = [
        Candidate(algorithm, n)
        for algorithm in ("kmeans", "gaussian_mixture", "spectral")
        for n in numbers
    ]
    tried += [Candidate("hierarchical", n, linkage) for linkage in _LINKAGES for n in numbers]
    if n_clusters is None:
        tried += [
            Candidate("hdbscan", size_share=size, min_samples=samples)
            for size in _SIZES
            for samples in _MIN_SAMPLES
            if 2 * samples <= n_rows * SUBSET_SHARE
        ]
        tried += [Candidate("dbscan", quantile=quantile) for quantile in _QUANTILES]
    return tried


def sweep(
    X: np.ndarray,
    random_state: int = 42,
    n_clusters: int | None = None,
    watch: Callable[[list[Candidate]], Iterable[Candidate]] = iter,
    time_budget: float = np.inf,
) -> Advice:
    """Fit, refit and rank every candidate, in one thread.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
        Scaled rows, all finite.
    random_state : int
    n_clusters : int, optional
        Only candidates with this number.
    watch : callable, optional
        Wraps the list of candidates, for a progress bar.
    time_budget : float
        Seconds after which no further candidate is started; the first always is. Families take
        turns, small numbers of clusters first, so that a short budget sees a bit of everything.

    Returns
    -------
    Advice
        The same for the same rows and seed, if the budget is enough.
    """
    deadline = time.monotonic() + time_budget
    rng = np.random.default_rng(random_state)
    if len(X) > SWEEP_ROWS:
        X = X[np.sort(rng.choice(len(X), SWEEP_ROWS, replace=False))]
    size = int(SUBSET_SHARE * len(X))
    subsets = [np.sort(rng.choice(len(X), size, replace=False)) for _ in range(N_SUBSETS)]
    neighbours = nearest_rows(X)
    distinct = len(np.unique(X, axis=0))
    tried = [c for c in candidates(len(X), n_clusters) if _fits(c, distinct)]
    seen: dict[Candidate, EvaluatedCandidate] = {}
    with threadpool_limits(limits=1):  # threads cost more than they save on so few rows
        for candidate in watch(_in_turns(tried)):
            if seen and time.monotonic() >= deadline:
                break
            seen[candidate] = _evaluate(X, candidate, subsets, neighbours, random_state)
        evaluated = [seen[candidate] for candidate in tried if candidate in seen]
        ranked = _ranked([item for item in evaluated if item.excluded is None])
        ranked[:_DBCV_OF_BEST] = [
            dataclasses.replace(item, dbcv=density_validity(X, item.labels, random_state))
            for item in ranked[:_DBCV_OF_BEST]
        ]
    excluded = [item for item in evaluated if item.excluded is not None]
    return Advice((*ranked, *excluded), len(X), len(tried))


def _in_turns(tried: list[Candidate]) -> list[Candidate]:
    """One of each family, then the next of each."""
    turn: dict[Candidate, int] = {}
    taken: dict[str, int] = {}
    for candidate in tried:
        turn[candidate] = taken[candidate.family] = taken.get(candidate.family, -1) + 1
    return sorted(tried, key=turn.__getitem__)


def _fits(candidate: Candidate, distinct: int) -> bool:
    """Whether subsets have the distinct rows for so many clusters."""
    return candidate.n_clusters is None or candidate.n_clusters <= SUBSET_SHARE * distinct / 2


def _evaluate(
    X: np.ndarray,
    candidate: Candidate,
    subsets: list[np.ndarray],
    neighbours: np.ndarray,
    random_state: int,
) -> EvaluatedCandidate:
    parameters = candidate.complete(X, random_state)
    labels = fit_labels(X, candidate.algorithm, parameters, random_state)
    inside = labels != NOISE
    evaluated = EvaluatedCandidate(
        candidate, parameters, labels, int(labels.max()) + 1, float(1 - inside.mean())
    )
    reason = _reason(evaluated)
    if reason is not None:
        return dataclasses.replace(evaluated, excluded=reason)
    refits = [
        adjusted_rand_score(
            labels[rows],
            fit_labels(
                X[rows],
                candidate.algorithm,
                candidate.complete(X[rows], random_state),
                random_state + number + 1,
            ),
        )
        for number, rows in enumerate(subsets)
    ]
    return dataclasses.replace(
        evaluated,
        stability=float(np.mean(refits)),
        connectivity=connectivity(labels, neighbours),
        modularity=modularity(labels, neighbours),
        silhouette=float(silhouette_score(X[inside], labels[inside])),
    )


def _reason(evaluated: EvaluatedCandidate) -> str | None:
    """Why a candidate is not ranked."""
    if evaluated.n_clusters < 2:
        return counted(evaluated.n_clusters, "cluster")
    if evaluated.noise_ratio >= MOST_NOISE:
        return f"{evaluated.noise_ratio:.0%} noise"
    smallest = int(np.bincount(evaluated.labels[evaluated.labels != NOISE]).min())
    if smallest < SMALLEST_CLUSTER:
        return f"a cluster of {counted(smallest, 'row')}"
    return None


def _ranked(evaluated: list[EvaluatedCandidate]) -> list[EvaluatedCandidate]:
    """With agreement and score, best first."""
    if not evaluated:
        return []
    rand = rand_matrix([one.labels for one in evaluated])
    agreed = agreement(rand, [one.candidate.family for one in evaluated])
    figures: list[Any] = [
        [one.stability for one in evaluated],
        agreed,
        [one.connectivity for one in evaluated],
        [one.modularity for one in evaluated],
    ]
    # Rounded, so that the last bit of a sum does not decide a rank.
    ranks = [rankdata(np.round(np.asarray(values, dtype=float), 9)) for values in figures]
    mean = np.mean(ranks, axis=0) / len(evaluated)
    support = np.clip(rand @ mean / mean.sum(), 0.0, 1.0)
    score = mean * support
    order = np.argsort(-np.round(score, 12), kind="stable")
    return [
        dataclasses.replace(
            evaluated[i],
            agreement=float(agreed[i]),
            mean_rank=float(mean[i]),
            support=float(support[i]),
            score=float(score[i]),
        )
        for i in order
    ]


def require_best(advice: Advice, n_rows: int) -> EvaluatedCandidate:
    """The best candidate.

    Raises
    ------
    ClusteringError
        Nothing could be ranked.
    """
    if advice.best is None:
        raise ClusteringError(
            f"clustering_configuration.algorithm is 'auto', but none of "
            f"{counted(len(advice.evaluated), 'candidate')} found two clusters of "
            f"{SMALLEST_CLUSTER} rows or more in {n_rows} rows; name an algorithm, or give "
            "more rows"
        )
    return advice.best
