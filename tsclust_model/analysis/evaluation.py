"""How good the chosen clustering is: metrics, stability, silhouettes, and a null reference."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypedDict

import numpy as np
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    silhouette_samples,
)

from tsclust_model.analysis.algorithms import Clustering
from tsclust_model.analysis.indices import density_validity
from tsclust_model.analysis.parameters import DENSITY_METHODS
from tsclust_model.analysis.schema import EvaluationConfiguration
from tsclust_model.errors import EvaluationError, counted
from tsclust_model.metrics import calculate_clustering_metrics
from tsclust_model.results import NOISE

N_FOLDS = 5

FOLD_SHARE = 0.8

FOLD_ROWS = 4_000

SILHOUETTE_ROWS = 4_000

N_SHUFFLES = 5

SHUFFLE_ROWS = 1_000

_SEPARATION = ("silhouette_score", "calinski_harabasz_score", "davies_bouldin_score")

_METRICS = (
    *_SEPARATION,
    *("inertia", "dbcv", "adjusted_rand_score", "normalized_mutual_info_score"),
)

Refit = Callable[[np.ndarray, int], np.ndarray]
"""Rows and a seed in, labels of the same algorithm out."""


class CrossValidation(TypedDict):
    """Figures of refits on random subsets."""

    folds: list[dict[str, float | None]]
    mean_adjusted_rand_score: float
    rows_per_fold: int


class ClusterSilhouette(TypedDict):
    cluster_id: int
    mean_silhouette: float
    share_negative: float


class ShuffledSilhouettes(TypedDict):
    """The silhouette, and those of tables whose columns were shuffled one by one."""

    silhouette_score: float | None
    shuffled_silhouette_scores: list[float | None]
    excess: float | None


def evaluate_clustering(
    X: np.ndarray,
    clustering: Clustering,
    target: np.ndarray | None,
    settings: EvaluationConfiguration,
    refit: Refit,
    random_state: int,
) -> dict[str, Any]:
    """The ``evaluation_metrics`` of the result; None where undefined, with the reason.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_features)
        The rows as they were clustered.
    clustering : Clustering
    target : ndarray of int, shape (n,), or None
        Codes of the known classes, -1 where there is none.
    settings : EvaluationConfiguration
    refit : callable
        Clusters other rows in the same way.
    random_state : int

    Raises
    ------
    EvaluationError
        The target is no column of classes, or a metric needs a target that was not named.
    """
    values, undefined = _separation(X, clustering, random_state)
    if clustering.inertia is None:
        undefined["inertia"] = f"{clustering.algorithm} minimises no inertia; it is kmeans'"
    values["inertia"] = clustering.inertia
    values["dbcv"], reason = _density(X, clustering, settings, random_state)
    undefined |= {} if reason is None else {"dbcv": reason}
    supervised, missing = _supervised(clustering.labels, target)
    values, undefined = values | supervised, undefined | missing
    for name in _METRICS:
        if settings.evaluation_metrics is not None and name not in settings.evaluation_metrics:
            values[name], undefined[name] = None, "not asked for"
    return values | {
        "undefined": undefined,
        "cross_validation": (
            _cross_validation(X, clustering, refit, random_state)
            if settings.cross_validation
            else None
        ),
        "silhouette_analysis": (
            _silhouettes(X, clustering.labels, random_state)
            if settings.silhouette_analysis
            else None
        ),
        "cluster_validation": (
            _against_shuffled(X, clustering, refit, random_state)
            if settings.cluster_validation
            else None
        ),
    }


def _density(
    X: np.ndarray, clustering: Clustering, settings: EvaluationConfiguration, random_state: int
) -> tuple[float | None, str | None]:
    """DBCV, or why there is none."""
    if clustering.algorithm not in DENSITY_METHODS and "dbcv" not in (
        settings.evaluation_metrics or ()
    ):
        return None, f"{clustering.algorithm} is no density method; ask for dbcv by name"
    value = density_validity(X, clustering.labels, random_state)
    if value is not None:
        return value, None
    return None, (
        "fewer than two clusters of three rows or more, or identical rows, whose density "
        "is infinite"
    )


def require_classes(
    target: np.ndarray | None, name: str | None, asked: Collection[str] | None
) -> None:
    """Refuse a target that is not a class, and supervised metrics without one.

    Raises
    ------
    EvaluationError
    """
    if target is None:
        for metric in ("adjusted_rand_score", "normalized_mutual_info_score"):
            if metric in (asked or ()):
                raise EvaluationError(
                    f"evaluation_configuration.evaluation_metrics names '{metric}', which needs "
                    "known classes; name their column in clustering_data.target_variable"
                )
        return
    known = target[target >= 0]
    n_classes = len(np.unique(known))
    if n_classes < 2 or n_classes > len(known) / 2:
        raise EvaluationError(
            f"clustering_data.target_variable is '{name}', which has "
            f"{counted(n_classes, 'distinct value')} in {counted(len(known), 'row')}; "
            "name a column of two or more classes"
        )


def silhouette_values(
    X: np.ndarray, labels: np.ndarray, random_state: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Silhouettes and labels of the rows in clusters (4,000 of them at most), each shape (m,).

    None where they are undefined: fewer than two clusters, or one row a cluster.
    """
    inside = np.flatnonzero(labels != NOISE)
    if len(inside) > SILHOUETTE_ROWS:
        rng = np.random.default_rng(random_state)
        inside = np.sort(rng.choice(inside, SILHOUETTE_ROWS, replace=False))
    known = labels[inside]
    if not 2 <= len(np.unique(known)) < len(known):
        return None
    return silhouette_samples(X[inside], known), known


def _separation(
    X: np.ndarray, clustering: Clustering, random_state: int
) -> tuple[dict[str, float | None], dict[str, str]]:
    metrics: Mapping[str, Any] = calculate_clustering_metrics(X, clustering.labels, random_state)
    values = {name: metrics[name] for name in _SEPARATION}
    reason = (
        f"{counted(clustering.n_clusters, 'cluster')}; two or more, and more rows than clusters, "
        "are needed"
    )
    return values, {name: reason for name, value in values.items() if value is None}


def _supervised(
    labels: np.ndarray, target: np.ndarray | None
) -> tuple[dict[str, float | None], dict[str, str]]:
    """Agreement with the known classes, noise being one more cluster."""
    names = ("adjusted_rand_score", "normalized_mutual_info_score")
    if target is None:
        return dict.fromkeys(names), dict.fromkeys(names, "no target_variable")
    known = target >= 0
    truth, guess = target[known], labels[known]
    return {
        "adjusted_rand_score": float(adjusted_rand_score(truth, guess)),
        "normalized_mutual_info_score": float(normalized_mutual_info_score(truth, guess)),
    }, {}


def _cross_validation(
    X: np.ndarray, clustering: Clustering, refit: Refit, random_state: int
) -> CrossValidation:
    """Refits on random subsets, and how far they give the same rows the same clusters."""
    size = min(int(FOLD_SHARE * len(X)), FOLD_ROWS)
    rng = np.random.default_rng(random_state)
    folds = []
    for number in range(N_FOLDS):
        rows = np.sort(rng.choice(len(X), size, replace=False))
        labels = refit(X[rows], random_state + number + 1)
        metrics: Mapping[str, Any] = calculate_clustering_metrics(X[rows], labels, random_state)
        folds.append(
            {
                "adjusted_rand_score": float(adjusted_rand_score(clustering.labels[rows], labels)),
                **{name: metrics[name] for name in ("n_clusters", "noise_ratio", *_SEPARATION)},
            }
        )
    return {
        "folds": folds,
        "mean_adjusted_rand_score": float(np.mean([f["adjusted_rand_score"] for f in folds])),
        "rows_per_fold": size,
    }


def _silhouettes(X: np.ndarray, labels: np.ndarray, random_state: int) -> list[ClusterSilhouette]:
    silhouettes = silhouette_values(X, labels, random_state)
    if silhouettes is None:
        return []
    values, known = silhouettes
    return [
        {
            "cluster_id": int(cluster),
            "mean_silhouette": float(values[known == cluster].mean()),
            "share_negative": float((values[known == cluster] < 0).mean()),
        }
        for cluster in np.unique(known)
    ]


def _against_shuffled(
    X: np.ndarray, clustering: Clustering, refit: Refit, random_state: int
) -> ShuffledSilhouettes:
    """The silhouette beside that of tables with the same columns and nothing between them."""
    rng = np.random.default_rng(random_state)
    rows = np.arange(len(X))
    if len(X) > SHUFFLE_ROWS:
        rows = np.sort(rng.choice(len(X), SHUFFLE_ROWS, replace=False))
    own = _mean_silhouette(X[rows], clustering.labels[rows], random_state)
    others = []
    for number in range(N_SHUFFLES):
        shuffled = rng.permuted(X[rows], axis=0)
        labels = refit(shuffled, random_state + number)
        others.append(_mean_silhouette(shuffled, labels, random_state))
    defined = [value for value in others if value is not None]
    return {
        "silhouette_score": own,
        "shuffled_silhouette_scores": others,
        "excess": None if own is None or not defined else own - float(np.mean(defined)),
    }


def _mean_silhouette(X: np.ndarray, labels: np.ndarray, random_state: int) -> float | None:
    silhouettes = silhouette_values(X, labels, random_state)
    return None if silhouettes is None else float(silhouettes[0].mean())
