"""What the public calls return."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypedDict

import numpy as np

from tsclust_model.shown import one_line

NOISE = -1
"""The label of a row that belongs to no cluster."""

ClusterFigures = dict[str, float | None]
"""Metrics of one cluster by name, and ``n_rows``; None where undefined."""


Evaluation = dict[str, Any]
"""What `FittedModel.evaluate` says, by name: counts, metrics of the target's kind (each also of
simpler forecasts, as ``rmse_global``), and ``clusters`` and ``resources`` with their metrics."""

MetricSummaries = dict[str, dict[str, float]]
"""``count``, ``last``, ``mean``, ``min`` and ``max`` by metric."""


class ClusteringMetrics(TypedDict):
    """How well separated clusters are; see `calculate_clustering_metrics`."""

    n_clusters: int
    n_noise_points: int
    noise_ratio: float
    silhouette_score: float | None
    calinski_harabasz_score: float | None
    davies_bouldin_score: float | None


class RecordedValue(TypedDict):
    """A value of a metric."""

    value: float
    component: str
    timestamp: datetime


class AlertSummary(TypedDict):
    """Alerts of a time, oldest first, and how many there are."""

    total: int
    by_severity: dict[str, int]
    by_metric: dict[str, int]
    alerts: list[PerformanceAlert]


class ErrorStatistics(TypedDict):
    """How many errors there were, by type and component, and calls that were refused."""

    total_errors: int
    by_type: dict[str, int]
    by_component: dict[str, int]
    refused_calls: dict[str, int]
    graceful_degradation: bool


class RetrainingStatus(TypedDict):
    """See `AdaptiveRetrainingManager.get_retraining_status`."""

    last_training_time: datetime
    batches_seen: int
    cooldown_batches_left: int
    drift_detected: bool
    waits_for: str
    last_reason: str
    last_refusal: str
    last_comparison: str


class MonitoringStatistics(TypedDict):
    """How much was monitored; `alerts` and `errors` are counts."""

    batches: int
    metrics: MetricSummaries
    alerts: int
    errors: int


class PipelineStatus(TypedDict):
    """What a pipeline serves."""

    pipeline_fitted: bool
    batch_processing_enabled: bool
    current_model_version: str | None
    last_training_time: datetime | None
    performance_metrics: MetricSummaries


class HealthCheck(TypedDict):
    """Whether a pipeline is well, and each of its components."""

    status: str
    components: dict[str, str]
    timestamp: datetime


class Diagnosis(TypedDict):
    """What is wrong with a pipeline, and what to do."""

    pipeline_status: str
    component_health: dict[str, str]
    performance_metrics: MetricSummaries
    recommendations: list[str]


class Purged(TypedDict):
    """Removed rows by batch, and the versions that were trained on such batches."""

    removed_rows: dict[str, int]
    model_versions: list[str]


class ClusteringInfo(ClusteringMetrics):
    """The segments of a model that serves."""

    cluster_ids: list[int]
    cluster_sizes: dict[str, int]
    segment_names: dict[int, str]
    lineage: LineageFigures


class LineageFigures(TypedDict):
    """`Lineage` as JSON."""

    kept: dict[str, int]
    born: list[int]
    retired: list[int]
    next_id: int


class FallbackInfo(TypedDict):
    """The nearest-neighbour fallback of a model that serves."""

    n_neighbors: int
    n_rows: int


class ModelInfo(TypedDict):
    """What a pipeline serves, in figures."""

    clustering: ClusteringInfo
    timeseries_models: dict[str, Any]
    resource_models: dict[str, dict[str, Any]]
    fallback_model: FallbackInfo | None


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
    metrics: ClusteringMetrics


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

    clustering_metrics: ClusteringMetrics
    model_metrics: dict[int, ClusterFigures]
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
