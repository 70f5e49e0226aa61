"""The living pipeline: fit once, feed batches, and let it watch, retrain and promote itself."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import write_table
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    MLflowIntegrationError,
    NotFittedError,
    PipelineError,
    PredictionError,
    RetrainingError,
)
from tsclust_model.files import read_state, write_state
from tsclust_model.mlflow_integration.metric_writer import MetricWriter
from tsclust_model.mlflow_integration.registry import (
    CHAMPION,
    alias_version,
    load_generation,
    name_and_version,
    name_segment,
    registered_at,
    rollback,
    segment_names,
    versions_trained_on,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.mlflow_integration.storage import ModelStorage, open_storage
from tsclust_model.mlflow_integration.stores import require_server
from tsclust_model.models.base import FittedPipeline
from tsclust_model.monitoring.detectors import DriftWindow, Source
from tsclust_model.monitoring.error_handler import ErrorHandler
from tsclust_model.monitoring.metrics import Clock, PerformanceMonitor, utc_now
from tsclust_model.report.build import build_report
from tsclust_model.results import BatchResult, ClusteringResult, PerformanceReport
from tsclust_model.rows.batches import (
    BatchCosts,
    batch_frame,
    chunked_forecast,
    class_probabilities,
    later_outcomes,
    measured_costs,
    outcome_columns,
    refuse_other_order,
    resident_megabytes,
    scorable_matrix,
    sums_by_cluster,
    training_frame,
)
from tsclust_model.rows.model import Forecast, Generation
from tsclust_model.shown import one_line
from tsclust_model.training.challenge import Retraining, retrain_model, waits_for
from tsclust_model.training.publish import save_page, watched_batches
from tsclust_model.training.train import train_table
from tsclust_model.training.watch import AdaptiveRetrainingManager

# What takes effect at once; everything else when a model is fitted.
_NOW = frozenset(
    {"noise_threshold", "batch_size", "expanding_window_size", "experiment_name"}
    | {"promotion_margin", "retrain_cooldown_batches"}
)
# What a fitted pipeline cannot change: its model and its history are found by these.
_FIXED = frozenset({"model_registry_prefix", "hospital_profile_id", "history_dir"})

_RECENT = timedelta(hours=24)

Callback = Callable[..., Any] | None


@one_line
@dataclass(frozen=True)
class _Serving:
    """What serves now; a retrain swaps it by one assignment."""

    generation: Generation
    version: str
    clustering: dict[str, Any]
    trained_at: datetime
    costs: BatchCosts | None
    storage: ModelStorage

    @cached_property
    def target(self) -> Generation:
        """The generation without its resources: a batch forecasts these one by one."""
        return replace(self.generation, resources={})


class TimeSeriesClusteringPipeline:
    """Segments, forecasts, monitoring and retraining behind one object.

    Parameters
    ----------
    config : PipelineConfig, optional
    model_name : str, optional
        Registered model; default: that of the configuration.
    clock : callable, optional
        Gives the time (UTC).

    Examples
    --------
    >>> pipeline = TimeSeriesClusteringPipeline()
    >>> pipeline.is_fitted
    False
    """

    def __init__(
        self,
        config: PipelineConfig | None = None,
        *,
        model_name: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.config = _checked_config(config or PipelineConfig())
        self._model_name = model_name or self.config.registered_model_name
        self._clock = clock
        self._serving: _Serving | None = None
        self._retraining: AdaptiveRetrainingManager | None = None
        self._monitor = PerformanceMonitor(
            {"noise_ratio": self.config.noise_threshold}, clock=clock
        )
        self._errors = ErrorHandler(clock=clock)
        self._callbacks: dict[str, Callback] = dict.fromkeys(
            ("pre_training", "post_training", "pre_batch", "post_batch")
        )
        self._writer: MetricWriter | None = None
        self._n_batches = 0
        self._last_report: PerformanceReport | None = None
        self._failures: dict[str, Exception] = {}
        self.last_batch_result: BatchResult | None = None
        self.last_retraining: Retraining | None = None
        self._reset_pending = False

    # -- fitting and loading -------------------------------------------------------------------

    def fit_initial(
        self,
        X: np.ndarray | pd.DataFrame,
        y: Sequence[float] | np.ndarray | pd.Series,
        resources: Mapping[str, Sequence[float] | np.ndarray] | None = None,
        *,
        time: str | None = None,
        id: str | None = None,
    ) -> ClusteringResult:
        """Find segments, fit their models, and register them as ``@champion``.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Oldest row first, unless `time` orders them.
        y : array-like, shape (n_samples,)
        resources : mapping of str to array-like, shape (n_samples,), optional
        time, id : str, optional
            Columns of X that order the rows, and say whose they are; they are no features.

        Raises
        ------
        DataValidationError, ModelTrainingError, MLflowIntegrationError
        """
        with self._whole_call(), self._errors.refusals("training"):
            frame, target = training_frame(X, y, resources or {})
            roles = Roles(target, resources=tuple(resources or ()), time=time, id=id)
            require_server()
            self._call("pre_training")
            training = train_table(
                frame, roles, self.config, model_name=self._model_name, trigger="fit_initial"
            )
            clustering = training.clustering
            assert clustering is not None  # a model of segments
            self._serve(training.generation, training.version, clustering.metrics)
            self._remember()
            self._reset_pending = False
            self._errors.resolve("training")
            self._call("post_training", clustering)
        return clustering

    @classmethod
    def load(
        cls,
        model_uri: str,
        config: PipelineConfig | None = None,
        *,
        clock: Clock = utc_now,
    ) -> TimeSeriesClusteringPipeline:
        """Go on with a registered model in another process.

        Parameters
        ----------
        model_uri : str
            ``models:/<name>@champion`` or ``models:/<name>/<version>``.
        config : PipelineConfig, optional
            Default: the one the model was fitted with.

        Raises
        ------
        MLflowIntegrationError
        """
        require_server()
        generation = load_generation(model_uri)
        settings = config or PipelineConfig.from_dict(generation.info["config"])
        name, version = name_and_version(model_uri)
        pipeline = cls(settings, model_name=name, clock=clock)
        trained_at = registered_at(name, version)
        pipeline._serve(generation, version, generation.info["clustering"], trained_at)
        pipeline._go_on(keep_noise_threshold=config is None)
        return pipeline

    def reset_pipeline_state(self) -> None:
        """Forget the model and what was watched; batches wait for the next `fit_initial`.

        Metrics, alerts and errors are cleared; thresholds, callbacks and the configuration stay.
        """
        self._serving, self._retraining = None, None
        self._n_batches, self._reset_pending = 0, True
        self._last_report = self.last_retraining = self.last_batch_result = None
        self._errors.clear_error_history()
        self._monitor = PerformanceMonitor(
            self._monitor.alert_thresholds, self._monitor.drift_thresholds, clock=self._clock
        )
        self.close()

    def close(self) -> None:
        """Write what is waiting for the tracking server (for 5 s at most)."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    # -- batches -------------------------------------------------------------------------------

    def process_batch(
        self,
        X_batch: np.ndarray | pd.DataFrame,
        y_batch: Sequence[float] | np.ndarray | pd.Series | None = None,
        resources: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> BatchResult:
        """Assign, forecast, keep, watch, and retrain if it is due.

        The forecast comes first: what fails after it costs no prediction. The result's `degraded`
        names the parts that failed: ``resources``, ``history`` (the batch is not kept, its
        `version_id` is None), ``monitoring``, ``tracking``, ``retraining``, ``callback pre_batch``
        and so on; `get_recent_errors` says why. With graceful degradation turned off the first of
        these errors is raised, once the whole batch is done; the result is in
        `last_batch_result`.

        A batch that the history has already (the same rows and outcomes) is forecast again, and
        counts once: no metric, no drift detector and no retrain sees it a second time.

        Parameters
        ----------
        X_batch : array-like, shape (n, n_features)
        y_batch : array-like, shape (n,), optional
            Where all of it is known already, row by row as in `X_batch` (a Series with the index
            of `X_batch` in another order is refused); later: `record_outcomes`.
        resources : mapping of str to array-like, shape (n,), optional

        Raises
        ------
        NotFittedError, DataValidationError, PredictionError
        """
        with self._whole_call() as failures, self._errors.refusals("process_batch"):
            serving = self._fitted()
            started = time.perf_counter()
            generation = serving.generation
            refuse_other_order(X_batch, y_batch, resources or {})
            frame = batch_frame(X_batch, generation)
            X = scorable_matrix(generation, frame)
            labelled = outcome_columns(generation, len(frame), y_batch, resources or {})
            self._call("pre_batch", X.copy())
            forecast, used = self._forecast(serving, X)
            megabytes = resident_megabytes()
            version_id, is_new = None, True
            with self._part("history"):
                rows = generation.canonical_rows(frame.assign(**labelled))
                version_id, is_new = serving.storage.history.registered(rows)
            result = BatchResult(
                forecast.assignment.labels,
                forecast.prediction,
                used,
                forecast.assignment.noise_ratio,
                time.perf_counter() - started,
                version_id,
                probabilities=class_probabilities(generation, forecast),
            )
            megabytes = max(megabytes, resident_megabytes())
            if is_new:
                y = labelled.get(generation.roles.target)
                self._watch(result, X, forecast, y, megabytes)
            self._call("post_batch", replace(result, degraded=tuple(failures)))
            self.last_batch_result = result = replace(result, degraded=tuple(failures))
        return result

    def record_outcomes(
        self,
        version_id: str | None,
        y: Sequence[float] | np.ndarray,
        resources: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        """Give the outcomes of a batch that are known by now (a stay has ended).

        They join the history, and the accuracy that is watched: each row once, when its outcome
        is known for the first time. Another outcome for a row corrects the history, and the
        newest accuracy is that of the corrected rows; the drift detector takes no second vote of
        them, and one that was cast for a wrong outcome fades with the next three windows.

        Parameters
        ----------
        version_id : str
            Of the batch's result.
        y : array-like, shape (n,)
            By position: the first is that of the batch's first row. NaN (None) is not known yet;
            a later call gives more, and none takes back what is known.
        resources : mapping of str to array-like, shape (n,), optional
            NaN as in `y`.

        Raises
        ------
        NotFittedError
        DataValidationError
            There is no such version; a length, a kind or an infinite value that cannot be; nothing
            is known; or a Series whose index counts the rows in another order.
        """
        with self._errors.refusals("history"):
            serving = self._fitted()
            if version_id is None:
                raise DataValidationError(
                    "version_id is None: the batch was not kept; send it again"
                )
            refuse_other_order(None, y, resources or {})
            generation, history = serving.generation, serving.storage.history
            frame, _ = history.load(version_id)
            labelled = outcome_columns(generation, len(frame), y, resources or {}, partial=True)
            outcomes = later_outcomes(generation, frame, labelled)
            history.record_outcomes(version_id, outcomes.columns)
        rows = outcomes.is_new | outcomes.is_changed
        if rows.any():
            X = scorable_matrix(generation, frame[rows])
            forecast = generation.forecast(X, generation.coverage)
            losses = generation.row_losses(
                outcomes.columns[generation.roles.target][rows], forecast
            )
            metric = generation.metric
            self._monitor.record_metric(metric.name, metric.of(losses.mean()), "accuracy")
            is_new = outcomes.is_new[rows]
            if is_new.any():
                self.retraining_manager.record_losses(X[is_new], losses[is_new], version_id)
            with self._part("retraining"):
                self.retraining_manager.look_again()
        self._remember()

    # -- retraining ----------------------------------------------------------------------------

    def retrain(self, trigger_reason: str = "Manual request") -> Retraining:
        """Fit a challenger on the expanding window, compare it, and promote it if it is better.

        Raises
        ------
        NotFittedError, RetrainingError, MLflowIntegrationError
        """
        with self._whole_call(), self._errors.refusals("retraining"):
            return self._retrain(trigger_reason)

    def _retrain(self, trigger_reason: str) -> Retraining:
        serving = self._fitted()
        require_server()
        self._call("pre_training")
        retraining = retrain_model(
            *(serving.generation, serving.version, self._model_name, self.config, trigger_reason),
            watched=watched_batches(self._monitor, serving.generation.metric.name),
            since=self.retraining_manager.since,
        )
        if retraining.promoted:
            self._serve(
                retraining.generation,
                retraining.version,
                retraining.generation.info["clustering"],
            )
        else:
            self.retraining_manager.start_over(serving.generation.reference)
        self.retraining_manager.record_comparison(retraining.comparison, retraining.promoted)
        self._remember()
        self.last_retraining = retraining
        self._errors.resolve("retraining")
        self._call("post_training", retraining.clustering)
        return retraining

    def check_scheduled_retraining(self, schedule_interval: timedelta) -> bool:
        """Retrain if the last training is this long ago; see `AdaptiveRetrainingManager`."""
        return self.retraining_manager.check_scheduled_retraining(schedule_interval)

    def rollback(self, reason: str) -> str:
        """Let ``@previous`` serve again, here and in the registry, and return its version."""
        self._fitted()
        require_server()
        version = rollback(self._model_name, reason)
        generation = load_generation(f"models:/{self._model_name}/{version}")
        self._serve(generation, version, generation.info["clustering"])
        self._remember()
        return version

    def name_segment(self, cluster_id: int, name: str) -> None:
        """Name a segment; the name follows its id through retrains."""
        if cluster_id not in self._fitted().generation.cluster_ids:
            raise PredictionError(f"there is no segment {cluster_id}; see get_model_info()")
        require_server()
        name_segment(self._model_name, cluster_id, name)

    def purge(
        self, ids: Collection[Any] | None = None, before: str | None = None
    ) -> dict[str, Any]:
        """Remove patients' rows, or old batches, from the history.

        Parameters
        ----------
        ids : collection, optional
            Values of the id column.
        before : str, optional
            ISO 8601 time; older batches go whole.

        Returns
        -------
        dict
            ``removed_rows`` {batch: rows} and ``model_versions``, those trained on such batches:
            they hold scaled training rows until they are deleted. Keep the answer: rows that are
            gone from the history name no version a second time.

        Warns
        -----
        UserWarning
            The history holds no batch that the serving model was trained on.
        """
        serving = self._fitted()
        require_server()
        generation, history = serving.generation, serving.storage.history
        trained_on = generation.info.get("trained_on", {})
        target = generation.roles.target
        spans = [(v, rows[0], rows[1]) for v, rows in trained_on.items()]
        if spans and all(history.has_lost(*span, target) for span in spans):
            warnings.warn(
                f"{history.base_dir} holds no batch that version {serving.version} was trained on, "
                "so their rows cannot be purged there; check history_dir and TSCLUST_STORAGE",
                stacklevel=2,
            )
        removed = history.purge(ids, before, id_column=generation.roles.id)
        return {
            "removed_rows": removed,
            "model_versions": versions_trained_on(self._model_name, removed),
        }

    @property
    def retraining_manager(self) -> AdaptiveRetrainingManager:
        """What decides about retrains, e.g. ``request_manual_retraining(reason)``."""
        self._fitted()
        assert self._retraining is not None
        return self._retraining

    def get_retraining_status(self) -> dict[str, Any]:
        """See `AdaptiveRetrainingManager.get_retraining_status`."""
        return self.retraining_manager.get_retraining_status()

    def get_retraining_recommendations(self) -> list[str]:
        """See `AdaptiveRetrainingManager.get_retraining_recommendations`."""
        return self.retraining_manager.get_retraining_recommendations()

    # -- reading -------------------------------------------------------------------------------

    @property
    def is_fitted(self) -> bool:
        return self._serving is not None

    @property
    def is_batch_processing_enabled(self) -> bool:
        """False until a model is fitted or loaded, and while a reset is pending."""
        return self.is_fitted and not self._reset_pending

    @property
    def current_model_version(self) -> str | None:
        """Registered version that serves here."""
        return None if self._serving is None else self._serving.version

    @property
    def last_performance_report(self) -> PerformanceReport | None:
        return self._last_report

    @property
    def current_health_status(self) -> str:
        """``not_fitted``, ``healthy``, ``degraded`` (open errors or active alerts) or
        ``drifting``; it recovers with its cause, see `perform_health_check`."""
        return str(self.perform_health_check()["status"])

    @property
    def monitoring_statistics(self) -> dict[str, Any]:
        """``batches``, ``metrics`` (summary), ``alerts`` and ``errors`` (counts of all)."""
        return {
            "batches": self._n_batches,
            "metrics": self._monitor.get_performance_summary(),
            "alerts": len(self._monitor.alerts()),
            "errors": self._errors.get_error_statistics()["total_errors"],
        }

    def get_performance_report(self, save_dir: str | Path | None = None) -> PerformanceReport:
        """Clustering and accuracy of the serving model, as figures, a page and pictures.

        The page is about the labelled rows of the history; accuracy and drift are those of rows
        the model was not fitted on.

        Parameters
        ----------
        save_dir : str or Path, optional
            Folder of the page and the pictures; default: ``report`` in the model's storage.
        """
        serving = self._fitted()
        require_server()
        generation = serving.generation
        window = generation.labelled_window(serving.storage.history, self.config)
        paths = {}
        if len(window.frame):
            about = {
                "phase": "serving",
                "made_at": f"{self._clock():%Y-%m-%d %H:%M UTC}",
                "model_name": self._model_name,
                "version": serving.version,
                "source": "history",
            }
            fresh = window.frame[window.outside(generation.info["trained_on"])]
            figures = build_report(
                generation,
                generation.report_inputs(window.frame, fresh),
                about,
                watched=watched_batches(self._monitor, generation.metric.name),
                names=segment_names(self._model_name),
            )
            paths = save_page(figures, Path(save_dir or serving.storage.folder / "report"))
        self._last_report = PerformanceReport(
            serving.clustering,
            dict(generation.target.scores.clusters),
            paths,
            self._clock(),
            serving.version,
        )
        return self._last_report

    def get_pipeline_status(self) -> dict[str, Any]:
        """``pipeline_fitted``, ``batch_processing_enabled``, ``current_model_version``,
        ``last_training_time`` and ``performance_metrics``."""
        return {
            "pipeline_fitted": self.is_fitted,
            "batch_processing_enabled": self.is_batch_processing_enabled,
            "current_model_version": self.current_model_version,
            "last_training_time": self._serving.trained_at if self._serving else None,
            "performance_metrics": self._monitor.get_performance_summary(),
        }

    def get_model_info(self) -> dict[str, Any]:
        """``clustering`` (metrics, sizes, names, lineage), ``timeseries_models``,
        ``resource_models`` and ``fallback_model``."""
        generation = self._fitted().generation
        require_server()
        fallback = generation.segmentation.fallback
        return {
            "clustering": generation.info["clustering"]
            | {
                "cluster_ids": generation.cluster_ids,
                "cluster_sizes": generation.info["cluster_sizes"],
                "segment_names": segment_names(self._model_name),
                "lineage": generation.info["lineage"],
            },
            "timeseries_models": _model_info(generation.target),
            "resource_models": {k: _model_info(v) for k, v in generation.resources.items()},
            "fallback_model": None
            if fallback is None
            else {"n_neighbors": fallback.n_neighbors, "n_rows": len(fallback.points_)},
        }

    def get_performance_metrics(
        self, metric_names: Sequence[str] | None = None, time_window: timedelta | None = None
    ) -> dict[str, list[dict[str, Any]]]:
        """Recorded values by metric: ``value``, ``component``, ``timestamp``, oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        for record in self._monitor.records(metric_names, time_window):
            entry = asdict(record)
            found.setdefault(entry.pop("metric_name"), []).append(entry)
        return found

    def get_alert_summary(self, time_window: timedelta | None = None) -> dict[str, Any]:
        """``total``, ``by_severity``, ``by_metric`` and the ``alerts``, oldest first."""
        alerts = self._monitor.alerts(time_window)
        return {
            "total": len(alerts),
            "by_severity": _counted(alert.severity for alert in alerts),
            "by_metric": _counted(alert.metric_name for alert in alerts),
            "alerts": alerts,
        }

    def get_error_statistics(self) -> dict[str, Any]:
        """See `ErrorHandler.get_error_statistics`."""
        return self._errors.get_error_statistics()

    def get_recent_errors(self, limit: int = 10) -> list[dict[str, Any]]:
        """The newest errors, newest first, one dict each.

        ``timestamp``, ``error_type`` (of one of ours that translates a foreign error: the foreign
        class), ``message``, ``component`` and ``severity``; see `ErrorRecord`.
        """
        return [asdict(record) for record in self._errors.recent(limit)]

    def enable_graceful_degradation(self, enable: bool = True) -> None:
        """Go on without a part of a batch that fails (the default), or let its error raise.

        The result's ``degraded`` says what failed. When this is off, `process_batch` raises the
        first error at its end, and `last_batch_result` has the result.
        """
        self._errors.enable_graceful_degradation(enable)

    def perform_health_check(self) -> dict[str, Any]:
        """``status``, and of each component whether it is ``ok`` or what is wrong.

        An alert counts while its metric is over the threshold, an error until its component works
        again, or for 24 hours. A tracking server that does not answer is given up after 3 s.
        """
        components = {
            "model": "ok" if self.is_fitted else "not fitted; call fit_initial or load",
            "registry": self._registry_health(),
            "tracking": self._tracking_health(),
            "drift": self._drift_health(),
            "alerts": self._alert_health(),
            "errors": self._error_health(),
        }
        if not self.is_fitted:
            status = "not_fitted"
        elif components["drift"] != "ok":
            status = "drifting"
        else:
            status = "healthy" if set(components.values()) == {"ok"} else "degraded"
        return {"status": status, "components": components, "timestamp": self._clock()}

    def diagnose_pipeline_health(self) -> dict[str, Any]:
        """``pipeline_status``, ``component_health``, ``performance_metrics`` and
        ``recommendations``: sentences that name a number and an action."""
        health = self.perform_health_check()
        return {
            "pipeline_status": health["status"],
            "component_health": health["components"],
            "performance_metrics": self._monitor.get_performance_summary(),
            "recommendations": self._recommendations(health["components"]),
        }

    def export_performance_data(self, file_path: str | Path) -> str:
        """Write all recorded values as .json, .csv or .parquet, by the suffix; returns the path."""
        path, table = str(file_path), self._monitor.table()
        if not path.endswith(".json"):
            return write_table(table, path)
        rows = table.assign(timestamp=[stamp.isoformat() for stamp in table["timestamp"]])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(json.dumps(rows.to_dict(orient="records"), indent=2))
        return path

    # -- settings ------------------------------------------------------------------------------

    def set_callbacks(
        self,
        pre_training: Callback = None,
        post_training: Callback = None,
        pre_batch: Callback = None,
        post_batch: Callback = None,
    ) -> None:
        """Functions to call: with nothing, a `ClusteringResult`, the batch as the model's matrix
        (ndarray), and a `BatchResult`. None calls nothing."""
        given = {
            "pre_training": pre_training,
            "post_training": post_training,
            "pre_batch": pre_batch,
            "post_batch": post_batch,
        }
        for name, callback in given.items():
            if callback is not None and not callable(callback):
                raise ConfigurationError(f"{name} cannot be called; give a function, or None")
        self._callbacks = given

    def update_configuration(self, new_config: PipelineConfig) -> dict[str, list[str]]:
        """Use another configuration.

        The alert on ``noise_ratio`` follows `noise_threshold`, unless
        `update_performance_thresholds` has set it.

        Returns
        -------
        dict
            ``effective_now`` and ``effective_at_retrain``: names of the fields that differ.

        Raises
        ------
        PipelineError
            A field that says where the fitted model and its history are differs.
        """
        _checked_config(new_config)
        changed = [
            item.name
            for item in fields(PipelineConfig)
            if getattr(new_config, item.name) != getattr(self.config, item.name)
        ]
        fixed = sorted(_FIXED & set(changed))
        if self.is_fitted and fixed:
            raise PipelineError(
                f"{', '.join(fixed)} of a fitted pipeline cannot change; make another pipeline"
            )
        if self._monitor.alert_thresholds["noise_ratio"] == self.config.noise_threshold:
            self._monitor.update_thresholds({"noise_ratio": new_config.noise_threshold})
        self.config = new_config
        if self._retraining is not None:
            self._retraining.configure(new_config)
        return {
            "effective_now": [name for name in changed if name in _NOW],
            "effective_at_retrain": [name for name in changed if name not in _NOW],
        }

    def update_performance_thresholds(
        self,
        alert_thresholds: Mapping[str, float] | None = None,
        drift_thresholds: Mapping[str, float] | None = None,
    ) -> None:
        """Lay thresholds over those in force.

        Parameters
        ----------
        alert_thresholds : mapping, optional
            ``noise_ratio`` (0 to 1), ``processing_time`` of a batch (s), ``memory_usage`` (MB): the
            memory that the process holds (resident), read when the forecasts are there and again
            when the batch is kept, the larger of the two.
        drift_thresholds : mapping, optional
            ``noise_ratio_trend``: rise of the noise ratio (absolute) over the batches;
            ``performance_degradation``: rise of the metric (relative to that of fold rows). The
            detectors use them from the next batch on.

        Raises
        ------
        ConfigurationError
        """
        self._monitor.update_thresholds(alert_thresholds, drift_thresholds)
        if self._retraining is not None:
            self._retraining.configure_drift(self._monitor.drift_thresholds)
            self._remember()

    # -- inside --------------------------------------------------------------------------------

    def _fitted(self) -> _Serving:
        if self._serving is None:
            raise NotFittedError("the pipeline is not fitted; call fit_initial or load first")
        return self._serving

    def _serve(
        self,
        generation: FittedPipeline,
        version: str,
        clustering: dict[str, Any],
        trained_at: datetime | None = None,
    ) -> None:
        """Let a generation serve from now on."""
        if not isinstance(generation, Generation):
            raise ConfigurationError(
                f"'{self._model_name}' is a model of series, and this class takes rows of "
                "features; ask it through mlflow.pyfunc.load_model with series_rows(...), and "
                "retrain it with maintain(...)"
            )
        costs = None
        if not generation.resources:
            costs = measured_costs(generation, self.config.batch_size)
        when = trained_at or self._clock()
        storage = open_storage(self.config, self._model_name)
        self._serving = _Serving(generation, version, clustering, when, costs, storage)
        if self._retraining is None:
            self._retraining = AdaptiveRetrainingManager(
                generation.reference,
                self.config,
                self._retrain_when_due,
                self._waits_for,
                clock=self._clock,
                last_training=when,
            )
            self._retraining.configure_drift(self._monitor.drift_thresholds)
        learned = generation.info.get("drift")
        self._retraining.start_over(generation.reference, when, learned)

    @property
    def _state_path(self) -> Path:
        return self._fitted().storage.monitoring / "pipeline.json"

    def _remember(self) -> None:
        """Leave to the next process what was watched; it must not cost a result."""
        with self._part("monitoring"):
            state = {
                "version": self._fitted().version,
                "n_batches": self._n_batches,
                "retraining": self.retraining_manager.state(),
                "monitor": self._monitor.state(),
            }
            write_state(self._state_path, state)

    def _go_on(self, *, keep_noise_threshold: bool) -> None:
        """Take over what the process before has watched; of another version only its alerts."""
        state, manager = read_state(self._state_path), self.retraining_manager
        if not state:
            return
        wanted = self._monitor.alert_thresholds["noise_ratio"]
        self._monitor.restore(state["monitor"])
        if not keep_noise_threshold:  # the caller has given a configuration
            self._monitor.update_thresholds({"noise_ratio": wanted})
        manager.configure_drift(self._monitor.drift_thresholds)
        if state["version"] == self._fitted().version:
            self._n_batches = int(state["n_batches"])
            manager.restore(state["retraining"], self._rows_of)

    def _rows_of(self, source: Source, n_rows: int) -> DriftWindow | None:
        """Rows that waited for others when the last process ended; None if they were purged."""
        serving = self._fitted()
        if source[0] not in serving.storage.history.list_versions():
            return None
        frame, _ = serving.storage.history.load(source[0])
        X = scorable_matrix(serving.generation, frame)
        return DriftWindow(X, serving.generation.assign(X).is_noise, source=source)

    def _waits_for(self, since: Sequence[Source]) -> str:
        """What a retrain that drift calls for has to wait for."""
        require_server()
        serving = self._fitted()
        known = (serving.generation, serving.version, self._model_name, self.config)
        return waits_for(*known, since)

    def _forecast(
        self, serving: _Serving, X: np.ndarray
    ) -> tuple[Forecast, dict[int, dict[str, float]]]:
        """The forecast of a batch, `batch_size` rows at a time, and its resources by cluster."""
        generation = serving.generation
        size = self.config.batch_size
        chunks = [X[start : start + size] for start in range(0, len(X), size)]
        forecast = chunked_forecast(serving.target, X, size)
        labels = forecast.assignment.labels
        resources = {}
        for name, model in generation.resources.items():
            with self._part("resources", PredictionError(f"'{name}' cannot be predicted")):
                parts = [
                    model.predict(chunk, labels[i * size : (i + 1) * size])[0]
                    for i, chunk in enumerate(chunks)
                ]
                resources[name] = np.concatenate(parts)
        return forecast, sums_by_cluster(labels, resources, serving.costs)

    def _watch(
        self,
        result: BatchResult,
        X: np.ndarray,
        forecast: Forecast,
        y: np.ndarray | None,
        megabytes: float,
    ) -> None:
        """Record, alert, write to MLflow, look for drift and retrain."""
        self._n_batches += 1
        generation = self._fitted().generation
        losses = None
        figures = {
            "noise_ratio": result.noise_ratio,
            "processing_time": result.processing_time,
            "memory_usage": megabytes,
        }
        with self._part("monitoring"):
            if y is not None:
                losses = generation.row_losses(y, forecast)
                figures[generation.metric.name] = generation.metric.of(losses.mean())
            for name, value in figures.items():
                self._monitor.record_metric(name, value, "batch")
        with self._part("tracking"):
            self._track(figures | {"n_rows": len(X)})
        with self._part("retraining"):
            self.retraining_manager.monitor_batch_result(result, X, losses)
        self._remember()

    def _track(self, figures: Mapping[str, float]) -> None:
        """Queue the figures of a batch for its MLflow run, which the writer makes."""
        if self._writer is None:
            experiments = ExperimentManager(self.config.experiment_name)
            tags = {
                "phase": "batch-processing",
                "hospital_profile_id": self.config.hospital_profile_id,
            }
            self._writer = MetricWriter(lambda: experiments.make_run("batch-processing", tags))
        self._writer.write(figures, self._n_batches)
        if self._writer.last_error:
            raise MLflowIntegrationError(
                f"the tracking server does not answer ({self._writer.last_error}); "
                f"{self._writer.pending} values wait for it"
            )

    def _retrain_when_due(self, reason: str) -> None:
        """What the manager runs; a retrain that is refused shows in the batch's result too."""
        try:
            self._retrain(reason)
        except RetrainingError as error:
            self._failed(error, "retraining")
            raise

    def _call(self, name: str, *arguments: Any) -> None:
        callback = self._callbacks[name]
        if callback is not None:
            with self._part(f"callback {name}"):
                callback(*arguments)

    @contextmanager
    def _whole_call(self) -> Iterator[dict[str, Exception]]:
        """Collect what fails on the way; without degradation the first of it raises at the end."""
        outer = self._failures
        failures: dict[str, Exception] = {}
        self._failures = failures
        try:
            yield failures
        finally:
            self._failures = outer
        if failures and not self._errors.graceful_degradation:
            raise next(iter(failures.values()))

    @contextmanager
    def _part(self, component: str, meaning: PipelineError | None = None) -> Iterator[None]:
        """A part of a call whose failure costs no result.

        Results come first, whatever a callback, a disk, a server or a broken model raises;
        `meaning` is the error that is kept for it, by default the error itself.
        """
        try:
            yield
        except Exception as error:
            if meaning is not None:
                meaning.__cause__ = error
            self._failed(meaning or error, component)
        else:
            if component not in self._failures:
                self._errors.resolve(component)

    def _failed(self, error: Exception, component: str) -> None:
        self._errors.handle_error(error, component)
        self._failures.setdefault(component, error)

    def _registry_health(self) -> str:
        if self._serving is None:
            return "ok"
        try:
            require_server()
            champion = alias_version(self._model_name, CHAMPION)
        except MLflowIntegrationError as error:
            return str(error)
        if champion == self._serving.version:
            return "ok"
        return (
            f"version {self._serving.version} serves here, @{CHAMPION} is {champion}; load it anew"
        )

    def _tracking_health(self) -> str:
        if self._writer is None or not self._writer.last_error:
            return "ok"
        return f"{self._writer.pending} values wait for the tracking server"

    def _drift_health(self) -> str:
        reason = "" if self._retraining is None else self._retraining.drift_reason
        return reason or "ok"

    def _alert_health(self) -> str:
        return "; ".join(alert.message for alert in self._monitor.check_alerts()) or "ok"

    def _error_health(self) -> str:
        failed = self._errors.open_components(_RECENT)
        if not failed:
            return "ok"
        return f"{len(failed)} part(s) failed: {', '.join(failed)}; see get_recent_errors()"

    def _recommendations(self, components: Mapping[str, str]) -> list[str]:
        if self._serving is None or self._retraining is None:
            return ["Call fit_initial, or load a registered model."]
        found = self._retraining.get_retraining_recommendations()
        found += [
            f"Look at {name}: {state}."
            for name, state in components.items()
            if state != "ok" and name != "drift"
        ]
        generation = self._serving.generation
        if generation.target.weight == 0:
            metric, error = generation.metric, generation.target.scores.errors["global"]
            found.append(
                f"Segments have weight 0 in the forecast (global {metric.label} {error:.4g}): "
                "read them as description, or try other cluster_features."
            )
        return found


def _checked_config(config: PipelineConfig) -> PipelineConfig:
    if not isinstance(config, PipelineConfig):
        raise ConfigurationError(
            f"the configuration is {type(config).__name__}; give a PipelineConfig "
            "(PipelineConfig.from_dict or from_yaml make one)"
        )
    return config


def _model_info(model: Any) -> dict[str, Any]:
    return {
        "clusters": model.clusters,
        "cluster_weight": model.weight,
        f"fold_{model.scores.metric}": dict(model.scores.errors),
        "metrics": dict(model.scores.clusters),
    }


def _counted(values: Any) -> dict[str, int]:
    found: dict[str, int] = {}
    for value in values:
        found[value] = found.get(value, 0) + 1
    return found
