"""The work behind a pipeline: what serves, what it has watched, and what is left for later."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import MLflowIntegrationError, NotFittedError, RetrainingError
from tsclust_model.files import read_state, write_state
from tsclust_model.mlflow_integration.metric_writer import MetricWriter
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.mlflow_integration.stores import require_server
from tsclust_model.models.base import FittedPipeline
from tsclust_model.monitoring.error_handler import ErrorHandler
from tsclust_model.monitoring.health import Health
from tsclust_model.monitoring.metrics import Clock, PerformanceMonitor, utc_now
from tsclust_model.results import BatchResult, PerformanceReport
from tsclust_model.rows.batches import class_probabilities, read_batch
from tsclust_model.rows.costs import resident_megabytes
from tsclust_model.training.challenge import Retraining, retrain_model
from tsclust_model.training.publish import watched_batches
from tsclust_model.training.serving import Serving
from tsclust_model.training.watch import AdaptiveRetrainingManager

_RECENT = timedelta(hours=24)

Callback = Callable[..., Any] | None


class LivingModel:
    """A model that is fed batches, watches itself, and is replaced by a better one.

    `tsclust_model.TimeSeriesClusteringPipeline` is its public face.
    """

    def __init__(
        self,
        config: PipelineConfig,
        model_name: str | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.config = config
        self._model_name = model_name or config.registered_model_name
        self._clock = clock
        self._serving: Serving | None = None
        self._retraining: AdaptiveRetrainingManager | None = None
        self._monitor = PerformanceMonitor({"noise_ratio": config.noise_threshold}, clock=clock)
        self._errors = ErrorHandler(clock=clock)
        self._callbacks: dict[str, Callback] = dict.fromkeys(
            ("pre_training", "post_training", "pre_batch", "post_batch")
        )
        self._writer: MetricWriter | None = None
        self._n_batches = 0
        self._last_report: PerformanceReport | None = None
        self.last_batch_result: BatchResult | None = None
        self.last_retraining: Retraining | None = None
        self._reset_pending = False

    def _fitted(self) -> Serving:
        if self._serving is None:
            raise NotFittedError("the pipeline is not fitted; call fit_initial or load first")
        return self._serving

    @property
    def _manager(self) -> AdaptiveRetrainingManager:
        self._fitted()
        assert self._retraining is not None
        return self._retraining

    def _serve(
        self, generation: FittedPipeline, version: str, trained_at: datetime | None = None
    ) -> None:
        """Let a generation serve from now on."""
        when = trained_at or self._clock()
        serving = Serving.open(generation, version, self._model_name, self.config, when)
        reference, learned = generation.reference, generation.info.get("drift")
        self._serving = serving
        if self._retraining is not None:
            self._retraining.start_over(reference, when, learned)
            return
        self._retraining = AdaptiveRetrainingManager(
            reference,
            self.config,
            self._retrain_when_due,
            lambda since: self._fitted().waits_for(self.config, since),
            clock=self._clock,
            last_training=when,
            learned=learned,
        )
        self._retraining.configure_drift(self._monitor.drift_thresholds)

    @property
    def _state_path(self) -> Path:
        return self._fitted().storage.monitoring / "pipeline.json"

    def _remember(self) -> None:
        """Leave to the next process what was watched; it must not cost a result."""
        with self._errors.part("monitoring"):
            state = {
                "version": self._fitted().version,
                "n_batches": self._n_batches,
                "retraining": self._manager.state(),
                "monitor": self._monitor.state(),
            }
            write_state(self._state_path, state)

    def _go_on(self, *, keep_noise_threshold: bool) -> None:
        """Take over what the process before has watched; of another version only its alerts."""
        state, manager = read_state(self._state_path), self._manager
        if not state:
            return
        wanted = self._monitor.alert_thresholds["noise_ratio"]
        self._monitor.restore(state["monitor"])
        if not keep_noise_threshold:  # the caller has given a configuration
            self._monitor.update_thresholds({"noise_ratio": wanted})
        manager.configure_drift(self._monitor.drift_thresholds)
        if state["version"] == self._fitted().version:
            self._n_batches = int(state["n_batches"])
            manager.restore(state["retraining"], self._fitted().rows_of)

    def _process(
        self, X_batch: Any, y_batch: Any, given_resources: Mapping[str, Any]
    ) -> BatchResult:
        """See `TimeSeriesClusteringPipeline.process_batch`."""
        errors = self._errors
        with errors.whole_call() as failures, errors.refusals("process_batch"):
            serving, started = self._fitted(), time.perf_counter()
            batch = read_batch(serving.generation, X_batch, y_batch, given_resources)
            self._call("pre_batch", batch.X.copy())
            forecast, used = serving.forecast(batch.X, self.config.batch_size, errors)
            megabytes = resident_megabytes()
            version_id, is_new = None, True
            with errors.part("history"):
                version_id, is_new = serving.keep(batch)
            result = BatchResult(
                forecast.assignment.labels,
                forecast.prediction,
                used,
                forecast.assignment.noise_ratio,
                time.perf_counter() - started,
                version_id,
                probabilities=class_probabilities(serving.generation, forecast),
            )
            if is_new:
                y, losses = batch.outcomes.get(serving.generation.roles.target), None
                with errors.part("monitoring"):
                    losses = None if y is None else serving.generation.row_losses(y, forecast)
                self._watch(result, batch.X, losses, max(megabytes, resident_megabytes()))
            self._call("post_batch", replace(result, degraded=tuple(failures)))
            self.last_batch_result = result = replace(result, degraded=tuple(failures))
        return result

    def _watch(
        self, result: BatchResult, X: np.ndarray, losses: np.ndarray | None, megabytes: float
    ) -> None:
        """Record, alert, write to MLflow, look for drift and retrain."""
        self._n_batches += 1
        errors, metric = self._errors, self._fitted().generation.metric
        figures = {
            "noise_ratio": result.noise_ratio,
            "processing_time": result.processing_time,
            "memory_usage": megabytes,
        }
        if losses is not None:
            figures[metric.name] = metric.of(losses.mean())
        with errors.part("monitoring"):
            for name, value in figures.items():
                self._monitor.record_metric(name, value, "batch")
        with errors.part("tracking"):
            self._track(figures | {"n_rows": len(X)})
        with errors.part("retraining"):
            self._manager.monitor_batch_result(result, X, losses)
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

    def _record(self, version_id: str | None, y: Any, resources: Mapping[str, Any]) -> None:
        """See `TimeSeriesClusteringPipeline.record_outcomes`."""
        with self._errors.refusals("history"):
            serving = self._fitted()
            late = serving.record_outcomes(version_id, y, resources)
        if len(late.losses):
            metric, is_new = serving.generation.metric, late.is_new
            self._monitor.record_metric(metric.name, metric.of(late.losses.mean()), "accuracy")
            if is_new.any():
                self._manager.record_losses(late.X[is_new], late.losses[is_new], version_id)
            with self._errors.part("retraining"):
                self._manager.look_again()
        self._remember()

    def _retrain(self, trigger_reason: str) -> Retraining:
        serving, manager = self._fitted(), self._manager
        require_server()
        self._call("pre_training")
        retraining = retrain_model(
            serving.generation,
            serving.version,
            self._model_name,
            self.config,
            trigger_reason,
            watched=watched_batches(self._monitor, serving.generation.metric.name),
            since=manager.since,
        )
        if retraining.promoted:
            self._serve(retraining.generation, retraining.version)
        else:
            manager.start_over(serving.generation.reference)
        manager.record_comparison(retraining.comparison, retraining.promoted)
        self._remember()
        self.last_retraining = retraining
        self._errors.resolve("retraining")
        self._call("post_training", retraining.clustering)
        return retraining

    def _retrain_when_due(self, reason: str) -> None:
        """What the manager runs; a retrain that is refused shows in the batch's result too."""
        try:
            self._retrain(reason)
        except RetrainingError as error:
            self._errors.failed(error, "retraining")
            raise

    def _call(self, name: str, *arguments: Any) -> None:
        callback = self._callbacks[name]
        if callback is not None:
            with self._errors.part(f"callback {name}"):
                callback(*arguments)

    def _health(self) -> Health:
        """What is wrong with each part."""
        serving, manager, writer = self._serving, self._retraining, self._writer
        tracking = errors = ""
        if writer is not None and writer.last_error:
            tracking = f"{writer.pending} values wait for the tracking server"
        failed = self._errors.open_components(_RECENT)
        if failed:
            errors = f"{len(failed)} part(s) failed: {', '.join(failed)}; see get_recent_errors()"
        return Health(
            model="not fitted; call fit_initial or load" if serving is None else "",
            registry="" if serving is None else serving.registry_problem(),
            tracking=tracking,
            drift="" if manager is None else manager.drift_reason,
            alerts="; ".join(alert.message for alert in self._monitor.check_alerts()),
            errors=errors,
        )
