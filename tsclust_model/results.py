"""What the public calls return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

NOISE = -1
"""The label of a row that belongs to no cluster."""


@dataclass(frozen=True)
class ClusteringResult:
    """What a clustering found.

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
        found = np.where(self.is_noise, "knn", "hdbscan").astype(object)
        found[self.labels == NOISE] = "none"
        return found

    @property
    def noise_ratio(self) -> float:
        """Share of noise rows before the fallback, 0 to 1; 0 for an empty batch."""
        return float(self.is_noise.mean()) if self.is_noise.size else 0.0
