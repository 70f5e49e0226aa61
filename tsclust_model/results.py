"""What the public calls return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np

from tsclust_model.shown import one_line

NOISE = -1
"""The label of a row that belongs to no cluster."""

_SOURCES = np.array(["hdbscan", "knn", "none"], dtype=object)


@one_line
@dataclass(frozen=True)
class ClusteringResult:
    """The result of a clustering.

    Attributes
    ----------
    labels : ndarray of int64, shape (n_samples,)
        Cluster of each fitted row; -1 is noise (before any fallback).
    cluster_centers : ndarray of float64, shape (n_clusters, n_features)
        Mean of each cluster's rows, in the units of the input.
    noise_ratio : float
        Share of noise rows, 0 to 1.
    metrics : dict
        ``n_clusters``, ``n_noise_points``, ``noise_ratio``, ``silhouette_score``,
        ``calinski_harabasz_score`` and ``davies_bouldin_score``; None where undefined.
    """

    labels: np.ndarray
    cluster_centers: np.ndarray
    noise_ratio: float
    metrics: dict[str, Any]


@one_line
@dataclass(frozen=True)
class Assignment:
    """The segments of one batch of rows.

    Attributes
    ----------
    labels : ndarray of int64, shape (n,)
        Cluster of each row after the fallback; -1 only where the model has no clusters.
    is_noise : ndarray of bool, shape (n,)
        Whether HDBSCAN called the row noise, before the fallback. Drift watches this.
    strength : ndarray of float64, shape (n,)
        HDBSCAN membership strength, 0 to 1; 0 for noise.
    """

    labels: np.ndarray
    is_noise: np.ndarray
    strength: np.ndarray

    @property
    def source(self) -> np.ndarray:
        """Where each label comes from, shape (n,): ``hdbscan``, ``knn`` or ``none``."""
        return _SOURCES[np.where(self.labels == NOISE, 2, self.is_noise.astype(np.int64))]

    @property
    def noise_ratio(self) -> float:
        """Share of noise rows before the fallback, 0 to 1; 0 for an empty batch."""
        return float(self.is_noise.mean()) if self.is_noise.size else 0.0


@one_line
@dataclass(frozen=True)
class BatchResult:
    """The result of one batch.

    Attributes
    ----------
    cluster_assignments : ndarray of int64, shape (n,)
        Segment of each row after the fallback; -1 only where the model has none.
    timeseries_predictions : ndarray of float64, or of object, shape (n,)
        The target in its unit, or its classes as strings.
    resource_predictions : dict of int to dict of str to float
        Each resource summed over the batch's rows of a cluster. Without resources: the cost of the
        batch, ``processing_time`` (s) and ``memory_usage`` (MB that Python and numpy hold for it),
        from a fixed cost and a cost per row measured when the model was fitted or loaded; each
        cluster has the share of its rows.
    noise_ratio : float
        Share of noise before the fallback, 0 to 1.
    processing_time : float
        Seconds from the call to this result, without the monitoring after it.
    version_id : str or None
        The batch in the history; `record_outcomes` takes it.
    probabilities : dict of str to ndarray of float64, shape (n,)
        Probability of each class by column name (``probability_<class>``); empty for numbers.
    degraded : tuple of str
        Parts that failed and were left out, with graceful degradation on.
    """

    cluster_assignments: np.ndarray
    timeseries_predictions: np.ndarray
    resource_predictions: dict[int, dict[str, float]]
    noise_ratio: float
    processing_time: float
    version_id: str | None = None
    degraded: tuple[str, ...] = ()
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)


@one_line
@dataclass(frozen=True)
class PerformanceReport:
    """Performance of the served model.

    Attributes
    ----------
    clustering_metrics : dict
    model_metrics : dict of int to dict
        ``rmse``, ``mae``, ``r2`` of each cluster.
    visualizations : dict of str to str
        Paths of pictures, by name.
    timestamp : datetime
        UTC.
    model_version : str
    """

    clustering_metrics: dict[str, Any]
    model_metrics: dict[int, dict[str, Any]]
    visualizations: dict[str, str]
    timestamp: datetime
    model_version: str


@dataclass(frozen=True)
class PerformanceAlert:
    """A metric that is over its threshold.

    Attributes
    ----------
    metric_name : str
    value, threshold : float
    severity : str
        ``warning``, or ``critical`` from one and a half times the threshold.
    component : str
    message : str
    timestamp : datetime
        UTC.
    """

    metric_name: str
    value: float
    threshold: float
    severity: str
    component: str
    message: str
    timestamp: datetime


class Stage:
    """What a step of training tells whoever watches it; this one keeps it to itself."""

    def log(self, figures: Mapping[str, Any]) -> None:
        """Figures of the step, by name; None is undefined."""

    def progress(self, done: int, total: int) -> None:
        """`done` of `total` pieces of work are finished."""


Stages = Callable[[str], AbstractContextManager[Stage]]


def silent(name: str) -> AbstractContextManager[Stage]:
    """The `Stages` of somebody who does not watch."""
    return nullcontext(Stage())
