"""The living pipeline: fit once, feed batches, and let it watch, retrain and promote itself."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model import results
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import write_table
from tsclust_model.errors import ConfigurationError, PipelineError, PredictionError
from tsclust_model.files import write_whole
from tsclust_model.mlflow_integration.registry import (
    load_generation,
    name_and_version,
    name_segment,
    registered_at,
    rollback,
)
from tsclust_model.mlflow_integration.stores import require_server
from tsclust_model.monitoring.metrics import Clock, PerformanceMonitor, utc_now
from tsclust_model.results import BatchResult, ClusteringResult, PerformanceReport, Purged
from tsclust_model.rows.batches import training_frame
from tsclust_model.training.challenge import Retraining
from tsclust_model.training.living import Callback, LivingModel
from tsclust_model.training.train import train_table
from tsclust_model.training.watch import AdaptiveRetrainingManager

# What takes effect at once; everything else when a model is fitted.
_NOW = frozenset(
    {"noise_threshold", "batch_size", "expanding_window_size", "experiment_name"}
    | {"promotion_margin", "retrain_cooldown_batches"}
)
# What a fitted pipeline cannot change: its model and its history are found by these.
_FIXED = frozenset({"model_registry_prefix", "hospital_profile_id", "history_dir"})


class TimeSeriesClusteringPipeline(LivingModel):
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
        super().__init__(_checked_config(config or PipelineConfig()), model_name, clock)

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
        with self._errors.whole_call(), self._errors.refusals("training"):
            frame, target = training_frame(X, y, resources or {})
            roles = Roles(target, resources=tuple(resources or ()), time=time, id=id)
            require_server()
            self._call("pre_training")
            training = train_table(
                frame, roles, self.config, model_name=self._model_name, trigger="fit_initial"
            )
            self._serve(training.generation, training.version)
            self._remember()
            self._reset_pending = False
            self._errors.resolve("training")
            self._call("post_training", training.clustering)
        assert training.clustering is not None  # a model of segments
        return training.clustering

    @classmethod
    def load(
        cls,
        model_uri: str,
        config: PipelineConfig | None = None,
        *,
        clock: Clock = utc_now,
    ) -> TimeSeriesClusteringPipeline:
        """Continue with a registered model, for instance in another process.

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
        name, version = name_and_version(model_uri)
        pipeline = cls(config or generation.config, model_name=name, clock=clock)
        pipeline._serve(generation, version, registered_at(name, version))
        pipeline._go_on(keep_noise_threshold=config is None)
        return pipeline

    def reset_pipeline_state(self) -> None:
        """Forget the model and what was monitored; call `fit_initial` before the next batch.

        Metrics, alerts and errors are cleared; thresholds, callbacks and the configuration stay.
        """
        self._serving = self._retraining = None
        self._n_batches, self._reset_pending = 0, True
        self._last_report = self.last_retraining = self.last_batch_result = None
        self._errors.clear_error_history()
        self._monitor = PerformanceMonitor(
            self._monitor.alert_thresholds, self._monitor.drift_thresholds, clock=self._clock
        )
        self.close()

    def close(self) -> None:
        """Write figures that wait for the tracking server (for at most 5 s)."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def process_batch(
        self,
        X_batch: np.ndarray | pd.DataFrame,
        y_batch: Sequence[float] | np.ndarray | pd.Series | None = None,
        resources: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> BatchResult:
        """Assign, forecast, store and monitor a batch, and retrain if that is due.

        The forecast comes first: what fails after it costs no prediction. The result's `degraded`
        names the parts that failed: ``resources``, ``history`` (the batch is not kept, its
        `version_id` is None), ``monitoring``, ``tracking``, ``retraining``, ``callback pre_batch``
        and so on; `get_recent_errors` says why. With graceful degradation turned off the first of
        these errors is raised, once the whole batch is done; the result is in
        `last_batch_result`.

        A batch that the history has already (the same rows and outcomes) is forecast again, and
        watched once.

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
        return self._process(X_batch, y_batch, resources or {})

    def record_outcomes(
        self,
        version_id: str | None,
        y: Sequence[float] | np.ndarray,
        resources: Mapping[str, Sequence[float] | np.ndarray] | None = None,
    ) -> None:
        """Add the outcomes of a batch that are known by now (a stay has ended).

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
        self._record(version_id, y, resources or {})

    def retrain(self, trigger_reason: str = "Manual request") -> Retraining:
        """Fit a challenger on the expanding window, compare it, and promote it if it is better.

        Raises
        ------
        NotFittedError, RetrainingError, MLflowIntegrationError
        """
        with self._errors.whole_call(), self._errors.refusals("retraining"):
            return self._retrain(trigger_reason)

    def check_scheduled_retraining(self, schedule_interval: timedelta) -> bool:
        """Retrain if the last training is this long ago; see `AdaptiveRetrainingManager`."""
        return self.retraining_manager.check_scheduled_retraining(schedule_interval)

    def rollback(self, reason: str) -> str:
        """Let ``@previous`` serve again, here and in the registry, and return its version."""
        self._fitted()
        require_server()
        version = rollback(self._model_name, reason)
        self._serve(load_generation(f"models:/{self._model_name}/{version}"), version)
        self._remember()
        return version

    def name_segment(self, cluster_id: int, name: str) -> None:
        """Name a segment; the name follows its id through retrains."""
        if cluster_id not in self._fitted().generation.cluster_ids:
            raise PredictionError(f"there is no segment {cluster_id}; see get_model_info()")
        require_server()
        name_segment(self._model_name, cluster_id, name)

    def purge(self, ids: Collection[Any] | None = None, before: str | None = None) -> Purged:
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
            they hold scaled training rows until they are deleted. Keep it: it is told once.

        Warns
        -----
        UserWarning
            The history holds no batch that the serving model was trained on.
        """
        return self._fitted().purge(ids, before)

    @property
    def retraining_manager(self) -> AdaptiveRetrainingManager:
        """Decides about retrains, e.g. ``request_manual_retraining(reason)``."""
        return self._manager

    def get_retraining_status(self) -> results.RetrainingStatus:
        """See `AdaptiveRetrainingManager.get_retraining_status`."""
        return self.retraining_manager.get_retraining_status()

    def get_retraining_recommendations(self) -> list[str]:
        """See `AdaptiveRetrainingManager.get_retraining_recommendations`."""
        return self.retraining_manager.get_retraining_recommendations()

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
        """``not_fitted``, ``healthy``, ``degraded`` (open errors or alerts) or ``drifting``."""
        return self._health().status

    @property
    def monitoring_statistics(self) -> results.MonitoringStatistics:
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
        now = self._clock()
        self._last_report = self._fitted().report(self.config, self._monitor, now, save_dir)
        return self._last_report

    def get_pipeline_status(self) -> results.PipelineStatus:
        """``pipeline_fitted``, ``batch_processing_enabled``, ``current_model_version``,
        ``last_training_time`` and ``performance_metrics``."""
        return {
            "pipeline_fitted": self.is_fitted,
            "batch_processing_enabled": self.is_batch_processing_enabled,
            "current_model_version": self.current_model_version,
            "last_training_time": None if self._serving is None else self._serving.trained_at,
            "performance_metrics": self._monitor.get_performance_summary(),
        }

    def get_model_info(self) -> results.ModelInfo:
        """``clustering`` (metrics, sizes, names, lineage), ``timeseries_models``,
        ``resource_models`` and ``fallback_model``."""
        return self._fitted().describe()

    def get_performance_metrics(
        self, metric_names: Sequence[str] | None = None, time_window: timedelta | None = None
    ) -> dict[str, list[results.RecordedValue]]:
        """Recorded values by metric: ``value``, ``component``, ``timestamp``, oldest first."""
        return self._monitor.by_metric(metric_names, time_window)

    def get_alert_summary(self, time_window: timedelta | None = None) -> results.AlertSummary:
        """``total``, ``by_severity``, ``by_metric`` and the ``alerts``, oldest first."""
        return self._monitor.alert_summary(time_window)

    def get_error_statistics(self) -> results.ErrorStatistics:
        """See `ErrorHandler.get_error_statistics`."""
        return self._errors.get_error_statistics()

    def get_recent_errors(self, limit: int = 10) -> list[dict[str, Any]]:
        """The newest errors, newest first, one dict each; see `ErrorRecord` for its keys."""
        return [asdict(record) for record in self._errors.recent(limit)]

    def enable_graceful_degradation(self, enable: bool = True) -> None:
        """Go on without a part of a batch that fails (the default), or let its error raise; see
        `process_batch`."""
        self._errors.enable_graceful_degradation(enable)

    def perform_health_check(self) -> results.HealthCheck:
        """``status``, and of each component whether it is ``ok`` or what is wrong.

        An alert counts while its metric is over the threshold, an error until its component works
        again, or for 24 hours. A tracking server that does not answer is given up after 3 s.
        """
        health = self._health()
        return {
            "status": health.status,
            "components": health.components,
            "timestamp": self._clock(),
        }

    def diagnose_pipeline_health(self) -> results.Diagnosis:
        """``pipeline_status``, ``component_health``, ``performance_metrics`` and
        ``recommendations``: sentences that name a number and an action."""
        health = self._health()
        advice = ["Call fit_initial, or load a registered model."]
        if self._serving is not None:
            advice = self.get_retraining_recommendations() + health.advice + self._serving.advice
        return {
            "pipeline_status": health.status,
            "component_health": health.components,
            "performance_metrics": self._monitor.get_performance_summary(),
            "recommendations": advice,
        }

    def export_performance_data(self, file_path: str | Path) -> str:
        """Write all recorded values as .json, .csv or .parquet, by the suffix; returns the path."""
        path, table = str(file_path), self._monitor.table()
        if not path.endswith(".json"):
            return write_table(table, path)
        rows = table.assign(timestamp=[stamp.isoformat() for stamp in table["timestamp"]])
        write_whole(Path(path), json.dumps(rows.to_dict(orient="records"), indent=2))
        return path

    def set_callbacks(
        self,
        pre_training: Callback = None,
        post_training: Callback = None,
        pre_batch: Callback = None,
        post_batch: Callback = None,
    ) -> None:
        """Functions to call: with nothing, a `ClusteringResult`, the batch as the model's matrix
        (ndarray), and a `BatchResult`. None calls nothing."""
        given = {"pre_training": pre_training, "post_training": post_training}
        given |= {"pre_batch": pre_batch, "post_batch": post_batch}
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
        names, old = [item.name for item in fields(PipelineConfig)], self.config
        changed = [name for name in names if getattr(new_config, name) != getattr(old, name)]
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
        """Change thresholds; the others stay.

        Parameters
        ----------
        alert_thresholds : mapping, optional
            ``noise_ratio`` (0 to 1), ``processing_time`` of a batch (s), ``memory_usage`` (MB): the
            resident memory of the process, the most of when the forecasts are there and when the
            batch is kept.
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


def _checked_config(config: PipelineConfig) -> PipelineConfig:
    if not isinstance(config, PipelineConfig):
        raise ConfigurationError(
            f"the configuration is {type(config).__name__}; give a PipelineConfig "
            "(PipelineConfig.from_dict or from_yaml make one)"
        )
    return config
