"""Figures that say how good a clustering or a forecast is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import (
    calinski_harabasz_score,
    davies_bouldin_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
    silhouette_score,
)

from tsclust_model.errors import DataValidationError
from tsclust_model.results import NOISE, ClusteringMetrics

SILHOUETTE_ROWS = 10_000
_SILHOUETTE_SAMPLE = 4_000  # the mean of so many is known to about 0.005


@dataclass(frozen=True)
class Metric:
    """What models of one kind are compared by; lower is better.

    Attributes
    ----------
    name : str
        In reports, tags and MLflow, e.g. ``rmse``.
    label : str
        In sentences, e.g. ``RMSE``.
    squared : bool
        Whether the loss of a row is a square; the figure is then the root of the mean loss, and
        otherwise the mean loss.
    """

    name: str
    label: str
    squared: bool = False

    def of(self, mean_loss: float) -> float:
        """The figure of a mean loss."""
        return math.sqrt(mean_loss) if self.squared else float(mean_loss)

    def loss(self, figure: float) -> float:
        """The mean loss of a figure, as of 1.2 for "20% worse"."""
        return figure**2 if self.squared else figure


RMSE = Metric("rmse", "RMSE", squared=True)
LOG_LOSS = Metric("log_loss", "log-loss")
MASE = Metric("mase", "MASE")
METRICS = {metric.name: metric for metric in (RMSE, LOG_LOSS, MASE)}

NAIVE_FIGURES = (
    *("rmse_naive", "mae_naive", "rmse_last_value", "mae_last_value"),
    *("log_loss_naive", "accuracy_naive", "accuracy_last_value"),
)
"""Names of what a model has to beat, whatever the target is."""

_LEAST_PROBABILITY = 1e-6


def calculate_clustering_metrics(
    X: np.ndarray, labels: Sequence[int] | np.ndarray, random_state: int = 42
) -> ClusteringMetrics:
    """How well separated clusters are, noise left out.

    Parameters
    ----------
    X : array-like, shape (n_samples, n_features)
        The rows, scaled as they were clustered.
    labels : array-like of int, shape (n_samples,)
        Cluster of each row; -1 is noise.
    random_state : int
        Seed of the 4,000 rows the silhouette is computed on above 10,000 (it is quadratic).

    Returns
    -------
    dict
        ``n_clusters``, ``n_noise_points``, ``noise_ratio`` (0 to 1) and scikit-learn's
        ``silhouette_score``, ``calinski_harabasz_score`` and ``davies_bouldin_score``, None where
        they are undefined (fewer than two clusters, or one row a cluster).
    """
    X, labels = np.asarray(X), np.asarray(labels)
    inside = labels != NOISE
    n_clusters = len(np.unique(labels[inside]))
    metrics: ClusteringMetrics = {
        "n_clusters": n_clusters,
        "n_noise_points": int((~inside).sum()),
        "noise_ratio": float((~inside).mean()) if len(inside) else 0.0,
        "silhouette_score": None,
        "calinski_harabasz_score": None,
        "davies_bouldin_score": None,
    }
    if 2 <= n_clusters < inside.sum():
        members, groups = X[inside], labels[inside]
        rows = silhouette_rows(groups, random_state)
        metrics["silhouette_score"] = float(silhouette_score(members[rows], groups[rows]))
        metrics["calinski_harabasz_score"] = float(calinski_harabasz_score(members, groups))
        metrics["davies_bouldin_score"] = float(davies_bouldin_score(members, groups))
    return metrics


def calculate_model_metrics(
    y_true: Sequence[float] | np.ndarray, y_pred: Sequence[float] | np.ndarray
) -> dict[str, float | None]:
    """``rmse`` and ``mae`` (units of y) and ``r2``; None where undefined.

    Parameters
    ----------
    y_true, y_pred : array-like, shape (n,)

    Raises
    ------
    DataValidationError
        Different lengths, or missing or infinite values.
    """
    if len(y_true) != len(y_pred):
        raise DataValidationError(
            f"y_true has {len(y_true)} values and y_pred {len(y_pred)}; give one forecast a row"
        )
    if len(y_true) == 0:
        return {"rmse": None, "mae": None, "r2": None}
    for name, values in (("y_true", y_true), ("y_pred", y_pred)):
        if not np.isfinite(np.asarray(values, dtype=np.float64)).all():
            raise DataValidationError(
                f"{name} has missing or infinite values; leave those rows out"
            )
    varied = len(y_true) > 1 and float(np.ptp(y_true)) > 0
    return {
        "rmse": math.sqrt(mean_squared_error(y_true, y_pred)),
        "mae": float(mean_absolute_error(y_true, y_pred)),
        "r2": float(r2_score(y_true, y_pred)) if varied else None,
    }


def calculate_classification_metrics(
    y_true: Sequence[Any] | np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[Any] | None = None,
) -> dict[str, float | None]:
    """``accuracy`` (0 to 1), ``log_loss`` (nats) and ``auc``; None where undefined.

    The log-loss treats a probability below 1e-6 as 1e-6, so that a class the model has never seen
    costs 13.8 and not infinity. The area under the ROC curve is that of each class against the
    rest, averaged over the classes that some rows have and others have not.

    Parameters
    ----------
    y_true : array-like, shape (n,)
        What happened: positions of classes, or classes where `classes` says what they are. One
        that is not among them is never right.
    probabilities : array-like, shape (n, n_classes)
    classes : sequence, optional
        The class of each column; default: its position.
    """
    P = np.asarray(probabilities, dtype=np.float64)
    codes = np.asarray(y_true)
    if classes is not None:
        place = {value: code for code, value in enumerate(classes)}
        codes = np.array([place.get(value, -1) for value in codes], dtype=np.int64)
    if len(codes) == 0:
        return {"accuracy": None, "log_loss": None, "auc": None}
    return {
        "accuracy": float((P.argmax(axis=1) == codes).mean()),
        "log_loss": float(log_losses(true_probabilities(P, codes)).mean()),
        "auc": _mean_auc(P, codes),
    }


def interval_coverage(y: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float | None:
    """Share (0 to 1) of the known values that are within their bounds; None without any."""
    known = ~np.isnan(y)
    inside = (lower <= y) & (y <= upper)
    return float(inside[known].mean()) if known.any() else None


def quantile_losses(
    y: np.ndarray, quantiles: np.ndarray, probabilities: Sequence[float]
) -> np.ndarray:
    """Twice the pinball loss, which of the median is the absolute error.

    Parameters
    ----------
    y : ndarray of float64, shape (...)
        NaN is not known.
    quantiles : ndarray of float64, shape (n_probabilities, ...)
    probabilities : sequence of float

    Returns
    -------
    ndarray of float64, shape (...)
        Their mean over the quantiles; NaN where y is not known.
    """
    p = np.reshape(probabilities, (-1, *[1] * np.ndim(y)))
    missed = y - quantiles
    return np.asarray(2 * np.maximum(p * missed, (p - 1) * missed).mean(axis=0))


def weighted_quantile_loss(y: np.ndarray, losses: np.ndarray) -> float | None:
    """WQL: the sum of `quantile_losses` over that of |y|; None where that is 0."""
    total = float(np.nansum(np.abs(y)))
    return float(np.nansum(losses)) / total if total > 0 else None


def true_probabilities(probabilities: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The probability, shape (n,), that was given to what happened; 0 where it has no column."""
    codes = codes.astype(np.int64)
    given = probabilities[np.arange(len(codes)), np.maximum(codes, 0)]
    return np.where(codes < 0, 0.0, given)


def log_losses(probability: np.ndarray) -> np.ndarray:
    """``-log(p)`` of the probability given to what happened, shape (n,); 13.8 at most."""
    return -np.log(np.maximum(probability, _LEAST_PROBABILITY))


def _mean_auc(P: np.ndarray, codes: np.ndarray) -> float | None:
    columns = range(P.shape[1]) if P.shape[1] > 2 else (1,)  # of two classes both are the same
    areas = [
        roc_auc_score(codes == code, P[:, code])
        for code in columns
        if 0 < int((codes == code).sum()) < len(codes)
    ]
    return float(np.mean(areas)) if areas else None


def silhouette_rows(labels: np.ndarray, random_state: int = 42) -> np.ndarray:
    """All rows, or a seeded sample in which every cluster has a row or more."""
    n = len(labels)
    if n <= SILHOUETTE_ROWS:
        return np.arange(n)
    order = np.random.default_rng(random_state).permutation(n)
    _, firsts = np.unique(labels[order], return_index=True)
    return np.unique(np.concatenate([order[firsts], order[:_SILHOUETTE_SAMPLE]]))
