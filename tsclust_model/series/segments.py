"""Segments of series: HDBSCAN on their shapes, whatever their level."""

from __future__ import annotations

from typing import Any

import numpy as np

from tsclust_model.clustering.engine import (
    FittedSegmentation,
    Segmentation,
    fit_density,
    fit_fallback,
)
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError
from tsclust_model.results import NOISE, Assignment, Stages
from tsclust_model.series.features import shape_features
from tsclust_model.series.panel import Panel

FEWEST_SERIES = 6

_CLUSTER_SHARES = (0.03, 0.05, 0.08, 0.12)

_MOST_TRIED = 2_000

_FEWEST_INSIDE = 0.6


def assign_shapes(segmentation: Segmentation, shapes: np.ndarray) -> Assignment:
    """Segments of series by their shapes, shape (n, n_shapes); -1 and strength 0 without one."""
    known = ~np.isnan(shapes).any(axis=1)
    labels = np.full(len(shapes), NOISE, dtype=np.int64)
    is_noise, strength = np.zeros(len(shapes), dtype=bool), np.zeros(len(shapes))
    if known.any():
        found = segmentation.assign(shapes[known])
        labels[known], is_noise[known], strength[known] = (
            found.labels,
            found.is_noise,
            found.strength,
        )
    return Assignment(labels, is_noise, strength)


def fit_segments(
    panel: Panel, config: PipelineConfig, stages: Stages
) -> tuple[FittedSegmentation, Assignment]:
    """Segments of the series by their shapes."""
    shapes = shape_features(panel.y, panel.frequency.season)
    known = ~np.isnan(shapes).any(axis=1)
    if known.sum() < FEWEST_SERIES:
        raise DataValidationError(
            f"{int(known.sum())} of {len(panel)} series have two seasons "
            f"({2 * max(panel.frequency.season, 3)} periods), which is too few to find segments "
            f"in; give {FEWEST_SERIES} such series, or another frequency"
        )
    X = shapes[known]
    params = density_params(X, config)
    with stages("HDBSCAN") as stage:
        found = fit_density(X, params, config.max_fit_rows, config.random_state)
        stage.log({"fitted_rows": len(found.rows)} | params)
    with stages("kNN-Fallback") as stage:
        kept, seed = config.max_reference_rows, config.random_state
        fitted = fit_fallback(X, found, config.knn_params, kept, seed, unit="series")
        stage.log({"fallback_rows": int(fitted.assignment.is_noise.sum())} | fitted.result.metrics)
    assignment = assign_shapes(fitted.segmentation, shapes)
    assignment.labels[known] = fitted.assignment.labels
    assignment.is_noise[known] = fitted.assignment.is_noise
    assignment.strength[known] = fitted.assignment.strength
    return fitted, assignment


def density_params(X: np.ndarray, config: PipelineConfig) -> dict[str, Any]:
    """HDBSCAN's parameters for series.

    Those of the config, if somebody has changed them. Otherwise the best of a few settings that
    grow with the number of series: three to eight segments with less than 40% noise come before
    those with more, and these before other numbers of segments; among alike, the balance of the
    sizes (entropy, 0 to 1) times the squared share that is not noise decides.

    Parameters
    ----------
    X : ndarray of float64, shape (n, n_shapes)
    config : PipelineConfig
    """
    own = dict(config.hdbscan_params)
    if own != PipelineConfig().hdbscan_params:
        return own
    rng = np.random.default_rng(config.random_state)
    rows = X if len(X) <= _MOST_TRIED else X[rng.choice(len(X), _MOST_TRIED, replace=False)]
    best: tuple[tuple[float, float], dict[str, Any]] | None = None
    for share in _CLUSTER_SHARES:
        for min_samples in (3, 10):
            for method in ("eom", "leaf"):
                size = max(5, int(share * len(rows)))
                if len(rows) < max(size, 2 * min_samples):
                    continue
                tried = own | {
                    "min_cluster_size": size,
                    "min_samples": min_samples,
                    "cluster_selection_method": method,
                }
                labels = fit_density(rows, tried, _MOST_TRIED, config.random_state).labels
                rank = _merit(labels)
                if best is None or rank > best[0]:
                    grown = max(5, int(share * len(X)))
                    best = rank, tried | {"min_cluster_size": grown}
    return own if best is None else best[1]


def _merit(labels: np.ndarray) -> tuple[float, float]:
    """How useful a clustering is; larger is better."""
    sizes = np.unique(labels[labels != NOISE], return_counts=True)[1]
    if len(sizes) == 0:
        return (0.0, 0.0)
    inside = float((labels != NOISE).mean())
    share = sizes / sizes.sum()
    balance = float(-(share * np.log(share)).sum() / np.log(max(len(sizes), 3)))
    wanted = 3 <= len(sizes) <= 8
    return (float(wanted + (wanted and inside > _FEWEST_INSIDE)), balance * inside**2)
