"""When to retrain: decides, and is handed how to do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import validate_target
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    RetrainingError,
    listed,
)
from tsclust_model.files import State
from tsclust_model.metrics import RMSE
from tsclust_model.models.compare import Comparison
from tsclust_model.monitoring.detectors import DriftWindow, Source
from tsclust_model.monitoring.drift import DriftMonitor, ReadRows
from tsclust_model.monitoring.metrics import Clock, utc_now
from tsclust_model.monitoring.reference import Reference
from tsclust_model.monitoring.watch import DriftWatch
from tsclust_model.results import BatchResult, RetrainingStatus


class AdaptiveRetrainingManager:
    """Watches batches, and says when a retrain is due: drift, a schedule, or a person.

    Parameters
    ----------
    reference : Reference
        Of the serving generation.
    config : PipelineConfig
    retrain : callable, optional
        Called with the reason when a retrain is due; without it the manager only says so.
    obstacle : callable, optional
        Called with `since` before a retrain that drift calls for; says what it has to wait for,
        and nothing if it may run. It is asked again when outcomes have come.
    clock : callable, optional
        Gives the time (UTC).
    last_training : datetime, optional
        When the generation was trained; default: now.
    learned : mapping, optional
        See `tsclust_model.monitoring.watch.follow_up`.
    """

    def __init__(
        self,
        reference: Reference,
        config: PipelineConfig | None = None,
        retrain: Callable[[str], Any] | None = None,
        obstacle: Callable[[list[Source]], str] | None = None,
        *,
        clock: Clock = utc_now,
        last_training: datetime | None = None,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = config or PipelineConfig()
        self._retrain, self._obstacle = retrain, obstacle
        self._clock = clock
        self._watch = DriftWatch(reference, self.config, learned)
        self.n_batches = self._n_labelled = 0
        self.last_reason = self.last_refusal = self.last_comparison = ""
        self._outcompeted = False
        self._wait_for_drift(last_training)

    def start_over(
        self,
        reference: Reference,
        last_training: datetime | None = None,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        """Watch from the start: a retrain has happened (default: just now).

        With the same reference, nobody was promoted: where drift began is remembered. `learned` is
        what `tsclust_model.monitoring.watch.follow_up` takes.
        """
        if reference is not self.reference:
            self._n_labelled = 0
            self.last_comparison, self._outcompeted = "", False
        paused = self.n_batches > 0
        self._watch.start_over(reference, self._n_labelled, learned, paused=paused)
        self._wait_for_drift(last_training)

    def _wait_for_drift(self, last_training: datetime | None) -> None:
        self._latest = self._clock()
        self.last_training = last_training or self._latest
        self._noise: list[float] = []
        self.waits_for, self._ask_again = "", False

    @property
    def drift(self) -> DriftMonitor:
        """The detectors."""
        return self._watch.drift

    @property
    def reference(self) -> Reference:
        """What drift is measured against."""
        return self.drift.reference

    @property
    def drift_reason(self) -> str:
        """The drift that was seen last, or that a retrain waits for labels because of."""
        return self.drift.reason or self._watch.reason

    @property
    def since(self) -> list[Source]:
        """Where the drift that is seen now began."""
        return self.drift.since

    def monitor_batch_result(
        self,
        batch_result: BatchResult,
        batch_data: np.ndarray | pd.DataFrame | Mapping[str, Any],
        losses: np.ndarray | None = None,
    ) -> bool:
        """Look at one batch, and retrain if drift says so.

        Parameters
        ----------
        batch_result : BatchResult
        batch_data : array-like, DataFrame or mapping
            The batch: the model's matrix, shape (n, n_features); a table with its columns; or a
            mapping of columns to values, or of ``X`` to either and ``y`` to the outcomes.
        losses : ndarray of float64, shape (n,), optional
            Of the model's metric (`Generation.losses`), where the outcome is known; default: the
            squared errors of ``y`` in `batch_data`.

        Returns
        -------
        bool
            Whether a retrain is due; it has been run if the manager was given how to.

        Raises
        ------
        DataValidationError
            The batch is not that of the result, or not the model's columns.
        """
        if losses is None:
            losses = _squared_errors(batch_result, batch_data, self.reference.metric)
        X = _matrix(batch_data, self.reference.features.names)
        n_rows = len(batch_result.cluster_assignments)
        if len(X) != n_rows:
            raise DataValidationError(
                f"batch_data has {len(X)} rows, batch_result {n_rows}; give the batch "
                "that the result is of"
            )
        self.n_batches += 1
        self._noise = [*self._noise[-9:], batch_result.noise_ratio]
        self._ask_again |= losses is not None
        self._n_labelled += 0 if losses is None else len(losses)
        is_noise = np.arange(n_rows) < round(batch_result.noise_ratio * n_rows)
        window = DriftWindow(X, is_noise, losses, _source(batch_result.version_id))
        watch = self._watch
        if watch.update(window, unanswered="" if self.waits_for else watch.reason):
            self._ask_again = True
        elif not watch.reason:
            watch.reason = watch.due(self._n_labelled)
            self._ask_again |= bool(watch.reason)
        return self._run_when_possible()

    def _run_when_possible(self) -> bool:
        """Retrain for what was seen, or wait for labels to learn from."""
        reason = self._watch.reason
        if not reason:
            return False
        if self._ask_again and self._obstacle is not None:
            self.waits_for = self._obstacle(self.since)
        self._ask_again = False
        if self.waits_for:
            self.last_reason = reason
            return False
        due = self._run(reason)
        self._watch.reason = ""  # not after an error: what cannot be run now is tried again
        return due

    def record_losses(
        self, batch_data: np.ndarray, losses: np.ndarray, version_id: str | None = None
    ) -> None:
        """Losses, shape (n,), of a batch that was seen before, now that they are known.

        An alarm shows in the status and calls for a retrain with the next batch.
        """
        self._ask_again = True
        self._n_labelled += len(losses)
        if self.drift.add_losses(losses, _source(version_id)):
            self._watch.reason = self.drift.accuracy.reason

    def look_again(self) -> None:
        """Ask anew what a retrain waits for: outcomes have come. The next batch starts it."""
        if self.waits_for and self._obstacle is not None:
            self.waits_for = self._obstacle(self.since)

    def record_comparison(self, comparison: Comparison, promoted: bool) -> None:
        """Keep how the last challenger did against the model that served, after `start_over`."""
        self.last_comparison, self._outcompeted = comparison.reason, not promoted

    def state(self) -> State:
        """What the next process needs to go on, as JSON; no row's values are in it."""
        return {
            "n_batches": self.n_batches,
            "last_reason": self.last_reason,
            "last_refusal": self.last_refusal,
            "last_comparison": self.last_comparison,
            "outcompeted": self._outcompeted,
            "last_training": self.last_training.isoformat(),
            "noise": self._noise,
            "pending": self._watch.reason,
            "waits_for": self.waits_for,
            "ask_again": self._ask_again,
            "n_labelled": self._n_labelled,
            "n_tried": self._watch.n_tried,
            "drift": self.drift.state(),
        }

    def restore(self, state: Mapping[str, Any], read: ReadRows | None = None) -> None:
        """Go on from `state`; see `DriftMonitor.restore` for `read`."""
        self.n_batches = int(state["n_batches"])
        self.last_reason, self.last_refusal = state["last_reason"], state["last_refusal"]
        self.last_comparison = str(state.get("last_comparison", ""))
        self._outcompeted = bool(state.get("outcompeted", False))
        self.last_training = datetime.fromisoformat(state["last_training"])
        self._noise = list(state["noise"])
        self.waits_for, self._ask_again = str(state["waits_for"]), bool(state["ask_again"])
        self._n_labelled = int(state["n_labelled"])
        self._watch.reason, self._watch.n_tried = str(state["pending"]), int(state["n_tried"])
        self.drift.restore(state["drift"], read)

    def configure(self, config: PipelineConfig) -> None:
        """Use another configuration from the next batch on."""
        self.config = config
        self.drift.configure(config.noise_threshold, config.retrain_cooldown_batches)

    def configure_drift(self, thresholds: Mapping[str, float]) -> None:
        """Use other drift thresholds, see `DriftMonitor.steer`; they outlive a retrain."""
        self.drift.steer(thresholds)

    def request_manual_retraining(self, reason: str) -> bool:
        """Retrain because a person says so; False (and why, in the status) if it cannot be."""
        return self._run(reason)

    def check_scheduled_retraining(self, schedule_interval: timedelta) -> bool:
        """Retrain if the last training is `schedule_interval` ago or more.

        A clock that goes backwards starts the interval again from where it went to.
        """
        if not isinstance(schedule_interval, timedelta):
            raise ConfigurationError(
                f"schedule_interval is a {type(schedule_interval).__name__}; give a "
                "datetime.timedelta"
            )
        now = self._clock()
        if now < self._latest:
            self.last_training = now
        self._latest = now
        if now - self.last_training < schedule_interval:
            return False
        return self._run(f"schedule: every {schedule_interval}")

    def get_retraining_status(self) -> RetrainingStatus:
        """``last_training_time``, ``batches_seen``, ``cooldown_batches_left``,
        ``drift_detected``, ``waits_for`` (what a retrain that drift calls for waits for),
        ``last_reason``, ``last_refusal`` (why the last retrain could not be run) and
        ``last_comparison`` (how the last challenger did against the model that served)."""
        return {
            "last_training_time": self.last_training,
            "batches_seen": self.n_batches,
            "cooldown_batches_left": self.drift.noise.pause_left,
            "drift_detected": bool(self.drift_reason),
            "waits_for": self.waits_for,
            "last_reason": self.last_reason,
            "last_refusal": self.last_refusal,
            "last_comparison": self.last_comparison,
        }

    def get_retraining_recommendations(self) -> list[str]:
        """Sentences that name a figure and an action; empty when there is nothing to do."""
        advice = []
        if self.waits_for:
            advice.append(
                f"Give {self.waits_for}: a retrain waits for them ({self._watch.reason})."
            )
        elif self.drift_reason:
            advice.append(f"Retrain: {self.drift_reason}.")
        if self.last_refusal:
            advice.append(f"The last retrain was refused: {self.last_refusal}.")
        if self._outcompeted:
            advice.append(
                f"The last challenger was not promoted: {self.last_comparison}; label more rows, "
                "or lower expanding_window_size if the data has changed."
            )
        noise = float(np.mean(self._noise)) if self._noise else 0.0
        if noise > self.config.noise_threshold and not self.drift_reason:
            advice.append(self._about_noise(noise))
        return advice

    def _about_noise(self, noise: float) -> str:
        """What helps against noise over the threshold: it is new, or was there in training."""
        n, before = len(self._noise), self.reference.noise_ratio
        over = (
            f"{'Noise of the last batch' if n == 1 else f'Mean noise of the last {n} batches'} is "
            f"{noise:.2f}, over noise_threshold {self.config.noise_threshold:.2f}, "
        )
        if noise > self.drift.noise.usual:
            return (
                f"{over}and it was {before:.2f} in training: record the outcomes of these rows, "
                "and a retrain can find segments for them."
            )
        return (
            f"{over}but it was {before:.2f} in training: raise noise_threshold, or lower "
            "hdbscan_params.min_cluster_size at the next retrain."
        )

    def _run(self, reason: str) -> bool:
        self.last_reason = reason
        if self._retrain is None:
            return True
        try:
            self._retrain(reason)
        except RetrainingError as error:
            self.last_refusal = str(error)
            return False
        self.last_refusal = ""
        return True


def _source(version_id: str | None) -> Source | None:
    return None if version_id is None else (version_id, 0)


def _squared_errors(result: BatchResult, batch: Any, metric: str) -> np.ndarray | None:
    """Losses, shape (n,), of the outcomes that a mapping holds beside its ``X``, if it does."""
    if not isinstance(batch, Mapping) or "X" not in batch or batch.get("y") is None:
        return None
    if metric != RMSE.name:
        raise DataValidationError(f"'y' beside 'X' is for numbers; give the losses of {metric}")
    y = validate_target(batch["y"], len(result.timeseries_predictions), "y")
    return np.square(y - result.timeseries_predictions)


def _matrix(batch: Any, names: Sequence[str]) -> np.ndarray:
    """A batch as the model's matrix, shape (n, n_features); NaN is missing."""
    if isinstance(batch, Mapping):
        batch = batch["X"] if "X" in batch else pd.DataFrame(dict(batch))
    batch = as_pandas(batch)
    if isinstance(batch, pd.DataFrame):
        batch = batch.rename(columns=str)
        absent = [name for name in names if name not in batch]
        if absent:
            raise DataValidationError(f"batch_data has no column '{absent[0]}'; add it")
        batch = batch[list(names)]
        strings = [name for name in names if not pd.api.types.is_numeric_dtype(batch[name])]
        if strings:
            raise DataValidationError(
                f"column '{strings[0]}' of batch_data is no number; give the model's matrix "
                "(process_batch does it)"
            )
        return batch.to_numpy(dtype=np.float64, na_value=np.nan)
    try:
        X = np.asarray(batch, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataValidationError(
            f"batch_data is a {type(batch).__name__}, no table of numbers; give an array, a "
            "DataFrame, or a mapping of columns"
        ) from error
    if X.ndim != 2 or X.shape[1] != len(names):
        raise DataValidationError(
            f"batch_data has the shape {X.shape}; give (n, {len(names)}): {listed(names)}"
        )
    return X
