"""Fits a model of rows: segments, folds, the target and each resource."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tsclust_model.boosting.blend import OutputFits
from tsclust_model.boosting.boosters import model_threads, rows_by_cluster
from tsclust_model.boosting.folds import Fold, time_ordered_folds
from tsclust_model.boosting.output_model import OutputModel
from tsclust_model.boosting.recipes import Recipe
from tsclust_model.clustering.engine import (
    DensityFit,
    FittedSegmentation,
    Segmentation,
    fit_density,
    fit_fallback,
)
from tsclust_model.clustering.lineage import first_lineage
from tsclust_model.config import PipelineConfig
from tsclust_model.monitoring.reference import MIN_ROWS, Reference
from tsclust_model.results import NOISE, Assignment, ClusteringResult, Stages, silent
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import TrainingData
from tsclust_model.rows.targets import number_recipe
from tsclust_model.shown import one_line

_REFERENCE_ROWS = 5_000


@one_line
@dataclass(frozen=True)
class FittedGeneration:
    """A generation, and what its fit leaves behind for reports.

    Attributes
    ----------
    generation : Generation
    clustering : ClusteringResult
    assignment : Assignment
        Segments of the training rows.
    folds : list of Fold
    clustered : ndarray of int64
        Training rows that HDBSCAN was fitted on.
    """

    generation: Generation
    clustering: ClusteringResult
    assignment: Assignment
    folds: list[Fold]
    clustered: np.ndarray


def fit_generation(
    data: TrainingData,
    config: PipelineConfig,
    info: Mapping[str, Any] | None = None,
    stages: Stages = silent,
) -> FittedGeneration:
    """Fit a whole generation.

    Parameters
    ----------
    data : TrainingData
    config : PipelineConfig
    info : mapping, optional
        JSON-ready values that join the generation's own.
    stages : callable, optional
        Called with the name of each step; gives a context manager of a `Stage`.

    Raises
    ------
    DataValidationError, ModelTrainingError
    """
    with model_threads() as threads:
        target_fits, resource_fits = _begin_fits(threads, data, config)
        density, segments = _fit_segments(data, config, stages)
        labels = segments.assignment.labels
        target_fits.add_clusters(labels)
        for rows, fits in resource_fits:
            fits.add_clusters(labels[rows])
        with stages("TimeSeries-LGB") as stage:
            (target,) = target_fits.finish(stage.progress).values()
            stage.log(_output_figures(target))
        with stages("Resource-LGB") as stage:
            fitted: dict[str, Any] = {}
            for _, fits in resource_fits:
                fitted |= fits.finish(stage.progress)
            resources = {name: fitted[name] for name in data.resources}
            stage.log({"n_resources": len(resources)})
            for name, model in resources.items():
                stage.log({f"{name}_{key}": value for key, value in _output_figures(model).items()})
    own_info = {
        "config": config.to_dict(),
        "n_rows": len(data.y),
        "clustering": segments.result.metrics,
        "cluster_sizes": {str(c): len(rows) for c, rows in rows_by_cluster(labels)},
        "fitted_rows": len(density.rows),
        "naive": data.target.naive(data.y),
        "lineage": first_lineage(segments.result.metrics["n_clusters"]).to_dict(),
    }
    generation = Generation(
        data.schema,
        segments.segmentation,
        data.target,
        target,
        resources,
        _reference(data, segments.segmentation, target),
        {"given_features": list(data.given or data.schema.names)} | dict(info or {}) | own_info,
        data.fitted,
    )
    folds = list(target_fits.folds)
    return FittedGeneration(generation, segments.result, segments.assignment, folds, density.rows)


@one_line
@dataclass(frozen=True)
class OutOfSample:
    """What a model showed on rows it was not fitted on, for the one that is fitted on them, too.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_features)
        As the model that follows encodes them.
    losses : ndarray of float64, shape (n,)
    y : ndarray, shape (n,)
        What happened.
    values : ndarray of float64, shape (n,) or (n, n_classes)
        What was forecast.
    """

    X: np.ndarray
    losses: np.ndarray
    y: np.ndarray
    values: np.ndarray


def with_newest(
    fitted: FittedGeneration, data: TrainingData, after: np.ndarray, newest: OutOfSample
) -> FittedGeneration:
    """A refitted generation whose reference and intervals are of the newest rows.

    Its own folds lie across whatever broke: a model that is measured by them cannot see its own
    error, and its intervals are as wide as the break. What there are fewer than 50 of stays.

    Parameters
    ----------
    fitted : FittedGeneration
    data : TrainingData
        What it was fitted on.
    after : ndarray of bool, shape (n_samples,)
        Rows of `data` since the break; all of them where none is known.
    newest : OutOfSample
        Of a model that was fitted without these rows.
    """
    generation = fitted.generation
    reference, target = generation.reference, generation.target
    if MIN_ROWS <= after.sum() < len(after):
        density = generation.segmentation.density
        noisy = density.predict_left_out(np.flatnonzero(after[fitted.clustered])) == NOISE
        reference = reference.of_rows(data.X[after], noisy if len(noisy) >= MIN_ROWS else None)
    if len(newest.losses) >= MIN_ROWS:
        reference = reference.of_losses(newest.losses)
        labels = generation.assign(newest.X).labels
        target = target.recalibrated(newest.y, newest.values, labels)
    return replace(fitted, generation=replace(generation, target=target, reference=reference))


def _begin_fits(
    threads: Executor, data: TrainingData, config: PipelineConfig
) -> tuple[OutputFits, list[tuple[np.ndarray, OutputFits]]]:
    """Begin to fit the target and the resources, each set of these with the rows it is known in."""

    categorical = data.schema.categorical_columns

    def begin(rows: np.ndarray, outcomes: Mapping[str, np.ndarray], recipe: Recipe) -> OutputFits:
        whole = len(rows) == len(data.y)
        groups = None if data.groups is None else data.groups[rows]
        X, known = data.X, outcomes
        if not whole:
            X, known = X[rows], {name: values[rows] for name, values in outcomes.items()}
        return OutputFits(threads, X, known, time_ordered_folds(len(rows), groups), recipe)

    target = begin(
        np.arange(len(data.y)), {data.target.name: data.y}, data.target.recipe(config, categorical)
    )
    recipe = number_recipe(config, config.lgb_resource_params, categorical)
    return target, [
        (rows, begin(rows, {name: data.resources[name] for name in names}, recipe))
        for names, rows in _by_known_rows(data.resources)
    ]


def _fit_segments(
    data: TrainingData, config: PipelineConfig, stages: Stages
) -> tuple[DensityFit, FittedSegmentation]:
    X = data.X[:, data.schema.cluster_columns]
    with stages("HDBSCAN") as stage:
        density = fit_density(X, config.hdbscan_params, config.max_fit_rows, config.random_state)
        stage.log({"fitted_rows": len(density.rows)})
    with stages("kNN-Fallback") as stage:
        segments = fit_fallback(
            X, density, config.knn_params, config.max_reference_rows, config.random_state
        )
        stage.log({"fallback_rows": int(segments.assignment.is_noise.sum())})
        stage.log(segments.result.metrics)
        if segments.segmentation.fallback is not None:
            accuracy = segments.segmentation.fallback.get_fallback_metrics()["accuracy"]
            stage.log({"fallback_accuracy": accuracy})
    return density, segments


def _by_known_rows(
    resources: Mapping[str, np.ndarray],
) -> list[tuple[list[str], np.ndarray]]:
    """Resources that are known in the same rows, and those rows: each set is fitted together."""
    together: dict[bytes, tuple[list[str], np.ndarray]] = {}
    for name, values in resources.items():
        known = np.isfinite(values)
        together.setdefault(known.tobytes(), ([], np.flatnonzero(known)))[0].append(name)
    return list(together.values())


def _reference(data: TrainingData, segmentation: Segmentation, target: OutputModel) -> Reference:
    density = segmentation.density
    n = len(density.points)
    rows = np.unique(np.linspace(0, n - 1, min(n, _REFERENCE_ROWS)).astype(np.int64))
    is_noise = density.predict_left_out(rows) == NOISE
    losses, metric = target.fold_losses["blend"], target.scores.metric
    return Reference.fit(data.X, data.schema.names, is_noise, losses, metric)


def _output_figures(model: OutputModel) -> dict[str, Any]:
    return {
        "cluster_weight": model.weight,
        "n_cluster_models": len(model.clusters),
        "fold_rows": model.scores.n_rows,
        **{f"fold_{name}_blend": value for name, value in model.scores.served.items()},
    } | {f"fold_{model.scores.metric}_{way}": v for way, v in model.scores.errors.items()}
