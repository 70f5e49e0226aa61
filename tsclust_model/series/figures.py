"""What a fit of series found and what it gains, as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsclust_model.series.evaluation import evaluate_series
from tsclust_model.series.fit import FittedSeries
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.panel import HeldBack


def series_figures(
    fitted: FittedSeries, held: HeldBack | None, evaluated: SeriesGeneration | None = None
) -> dict[str, Any]:
    """What a fit has found and what it gains, as JSON-ready figures.

    ``folds`` holds errors at the rolling origins inside the training part, of what is served
    (``blend``) and of each way by itself, and of a control with the segments shuffled. ``holdout``
    is of `evaluated`, a model that was fitted without `held` (default: this one).
    """
    generation = fitted.generation
    scores: Mapping[str, Any] = generation.info["scores"]
    name = generation.metric.name
    return {
        "clustering": fitted.clustering.metrics,
        "cluster_sizes": generation.info["cluster_sizes"],
        "folds": {f"{name}_{way}": value for way, value in scores[name].items()}
        | {"cluster_weight": scores["cluster_weight"]},
        "gain": scores["gain"],
        "clusters": scores["clusters"],
        "scores": scores,
        "gaps": generation.info["gaps"],
        "resources": {},
        "holdout": None
        if held is None
        else json_ready(evaluate_series(evaluated or generation, held)),
    }


def json_ready(report: Mapping[str, Any]) -> dict[str, Any]:
    """A report of `evaluate_series` with the clusters as texts."""
    return dict(report) | {"clusters": {str(c): found for c, found in report["clusters"].items()}}
