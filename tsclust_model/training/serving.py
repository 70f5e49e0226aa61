"""The registered model that a pipeline serves in this process: what it is, and what it does."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import (
    DataValidationError,
    MLflowIntegrationError,
    PredictionError,
)
from tsclust_model.mlflow_integration.registry import (
    CHAMPION,
    alias_version,
    segment_names,
    versions_trained_on,
)
from tsclust_model.mlflow_integration.storage import ModelStorage, open_storage
from tsclust_model.mlflow_integration.stores import require_server
from tsclust_model.models.base import FittedPipeline
from tsclust_model.monitoring.detectors import DriftWindow, Source
from tsclust_model.monitoring.error_handler import ErrorHandler
from tsclust_model.monitoring.metrics import PerformanceMonitor
from tsclust_model.report.build import build_report
from tsclust_model.results import ModelInfo, PerformanceReport, Purged
from tsclust_model.rows.batches import (
    Batch,
    chunked_forecast,
    later_outcomes,
    outcome_columns,
    refuse_other_order,
    scorable_matrix,
)
from tsclust_model.rows.costs import BatchCosts, measured_costs, sums_by_cluster
from tsclust_model.rows.model import Forecast, Generation
from tsclust_model.shown import one_line
from tsclust_model.training.challenge import waits_for
from tsclust_model.training.publish import save_page, watched_batches


@one_line
@dataclass(frozen=True)
class LateOutcomes:
    """Rows of a batch whose outcome has just become known, or was corrected.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_features)
    losses : ndarray of float64, shape (n,)
    is_new : ndarray of bool, shape (n,)
        Known for the first time.
    """

    X: np.ndarray
    losses: np.ndarray
    is_new: np.ndarray


@one_line
@dataclass(frozen=True)
class Serving:
    """What serves now; a retrain swaps it by one assignment.

    Attributes
    ----------
    generation : Generation
    version, model_name : str
        Where it is registered.
    trained_at : datetime
    costs : BatchCosts or None
        What a batch costs; None of a model that has resources.
    storage : ModelStorage
    """

    generation: Generation
    version: str
    model_name: str
    trained_at: datetime
    costs: BatchCosts | None
    storage: ModelStorage

    @classmethod
    def open(
        cls,
        generation: FittedPipeline,
        version: str,
        model_name: str,
        config: PipelineConfig,
        trained_at: datetime,
    ) -> Serving:
        """Let a registered model serve here.

        Raises
        ------
        ConfigurationError
            It is no model of rows.
        """
        rows: Generation = generation.of_features(model_name)
        costs = None if rows.resources else measured_costs(rows, config.batch_size)
        storage = open_storage(config, model_name)
        return cls(rows, version, model_name, trained_at, costs, storage)

    @cached_property
    def _target(self) -> Generation:
        """The generation without its resources: a batch forecasts these one by one."""
        return replace(self.generation, resources={})

    def forecast(
        self, X: np.ndarray, batch_size: int, errors: ErrorHandler
    ) -> tuple[Forecast, dict[int, dict[str, float]]]:
        """The forecast of a batch, `batch_size` rows at a time, and its resources by cluster.

        A resource that cannot be predicted is left out.
        """
        forecast = chunked_forecast(self._target, X, batch_size)
        labels, resources = forecast.assignment.labels, {}
        for name, model in self.generation.resources.items():
            with errors.part("resources", PredictionError(f"'{name}' cannot be predicted")):
                chunks = [
                    slice(start, start + batch_size) for start in range(0, len(X), batch_size)
                ]
                parts = [model.predict(X[chunk], labels[chunk])[0] for chunk in chunks]
                resources[name] = np.concatenate(parts)
        return forecast, sums_by_cluster(labels, resources, self.costs)

    def keep(self, batch: Batch) -> tuple[str, bool]:
        """Let a batch join the history: its version there, and whether it is new."""
        rows = self.generation.canonical_rows(batch.frame.assign(**batch.outcomes))
        return self.storage.history.registered(rows)

    def record_outcomes(
        self, version_id: str | None, y: Any, resources: Mapping[str, Any]
    ) -> LateOutcomes:
        """Let outcomes of a batch join the history.

        Raises
        ------
        DataValidationError
        """
        if version_id is None:
            raise DataValidationError("version_id is None: the batch was not kept; send it again")
        refuse_other_order(None, y, resources)
        generation, history = self.generation, self.storage.history
        frame, _ = history.load(version_id)
        labelled = outcome_columns(generation, len(frame), y, resources, partial=True)
        outcomes = later_outcomes(generation, frame, labelled)
        history.record_outcomes(version_id, outcomes.columns)
        rows = outcomes.is_new | outcomes.is_changed
        X, losses = np.empty((0, 0)), np.empty(0)
        if rows.any():
            X = scorable_matrix(generation, frame[rows])
            known = outcomes.columns[generation.roles.target][rows]
            losses = generation.row_losses(known, generation.forecast(X, generation.coverage))
        return LateOutcomes(X, losses, outcomes.is_new[rows])

    def rows_of(self, source: Source, n_rows: int) -> DriftWindow | None:
        """Rows that waited for others when the last process ended; None if they were purged."""
        history = self.storage.history
        if source[0] not in history.list_versions():
            return None
        X = scorable_matrix(self.generation, history.load(source[0])[0])
        return DriftWindow(X, self.generation.is_noise(X), source=source)

    def waits_for(self, config: PipelineConfig, since: Sequence[Source]) -> str:
        """What a retrain that drift calls for has to wait for; empty for nothing."""
        require_server()
        return waits_for(self.generation, self.version, self.model_name, config, since)

    def purge(self, ids: Collection[Any] | None, before: str | None) -> Purged:
        """See `TimeSeriesClusteringPipeline.purge`."""
        require_server()
        generation, history = self.generation, self.storage.history
        spans = generation.info.get("trained_on", {}).items()
        target = generation.roles.target
        lost = (history.has_lost(batch, first, end, target) for batch, (first, end) in spans)
        if spans and all(lost):
            warnings.warn(
                f"{history.base_dir} holds no batch that version {self.version} was trained on, "
                "so their rows cannot be purged there; check history_dir and TSCLUST_STORAGE",
                stacklevel=3,
            )
        removed = history.purge(ids, before, id_column=generation.roles.id)
        versions = versions_trained_on(self.model_name, removed)
        return {"removed_rows": removed, "model_versions": versions}

    def report(
        self,
        config: PipelineConfig,
        monitor: PerformanceMonitor,
        made_at: datetime,
        save_dir: str | Path | None,
    ) -> PerformanceReport:
        """See `TimeSeriesClusteringPipeline.get_performance_report`."""
        require_server()
        generation, paths = self.generation, dict[str, str]()
        window = generation.labelled_window(self.storage.history, config)
        if len(window.frame):
            about = {
                "phase": "serving",
                "made_at": f"{made_at:%Y-%m-%d %H:%M UTC}",
                "model_name": self.model_name,
                "version": self.version,
                "source": "history",
            }
            fresh = window.frame[window.outside(generation.info["trained_on"])]
            figures = build_report(
                generation,
                generation.report_inputs(window.frame, fresh),
                about,
                watched=watched_batches(monitor, generation.metric.name),
                names=segment_names(self.model_name),
            )
            paths = save_page(figures, Path(save_dir or self.storage.folder / "report"))
        return PerformanceReport(
            generation.info["clustering"],
            dict(generation.target.scores.clusters),
            paths,
            made_at,
            self.version,
        )

    def describe(self) -> ModelInfo:
        """See `TimeSeriesClusteringPipeline.get_model_info`."""
        require_server()
        generation, fallback = self.generation, self.generation.segmentation.fallback
        return {
            "clustering": generation.info["clustering"]
            | {
                "cluster_ids": generation.cluster_ids,
                "cluster_sizes": generation.info["cluster_sizes"],
                "segment_names": segment_names(self.model_name),
                "lineage": generation.info["lineage"],
            },
            "timeseries_models": _model_info(generation.target),
            "resource_models": {k: _model_info(v) for k, v in generation.resources.items()},
            "fallback_model": None
            if fallback is None
            else {"n_neighbors": fallback.n_neighbors, "n_rows": len(fallback.points_)},
        }

    def registry_problem(self) -> str:
        """Why this is not what the registry lets serve; empty if it is."""
        try:
            require_server()
            champion = alias_version(self.model_name, CHAMPION)
        except MLflowIntegrationError as error:
            return str(error)
        if champion == self.version:
            return ""
        return f"version {self.version} serves here, @{CHAMPION} is {champion}; load it anew"

    @property
    def advice(self) -> list[str]:
        """A sentence on segments that earn nothing in the forecast."""
        target, metric = self.generation.target, self.generation.metric
        if target.weight:
            return []
        return [
            f"Segments have weight 0 in the forecast (global {metric.label} "
            f"{target.scores.errors['global']:.4g}): read them as description, or try other "
            "cluster_features."
        ]


def _model_info(model: Any) -> dict[str, Any]:
    return {
        "clusters": model.clusters,
        "cluster_weight": model.weight,
        f"fold_{model.scores.metric}": dict(model.scores.errors),
        "metrics": dict(model.scores.clusters),
    }
