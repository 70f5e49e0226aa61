"""When to retrain, and whether the new model is better: decides, and is handed how to do it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import validate_target
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    RetrainingError,
    listed,
)
from tsclust_model.metrics import RMSE
from tsclust_model.models.compare import Comparison
from tsclust_model.monitoring.drift import DriftMonitor, DriftWindow, Source
from tsclust_model.monitoring.metrics import Clock, utc_now
from tsclust_model.monitoring.reference import Reference
from tsclust_model.results import BatchResult


def follow_up(learned: Mapping[str, Any] | None, n_new: int, n_tried: int = 0) -> str:
    """Why a model that was trained just after a drift should learn again; empty if it need not.

    It has seen few rows of what it serves now. While they are fewer than half of what it was fitted
    on, it learns again as soon as they have doubled; if that was no better, once there are half as
    many again.

    Parameters
    ----------
    learned : mapping or None
        ``drift`` of the info of the model that serves: ``n_after``, rows since the drift, and
        ``n_rows``, all rows.
    n_new : int
        Labelled rows that it was not trained on.
    n_tried : int
        How many there were when that was tried last.
    """
    if learned is None or 2 * learned["n_after"] >= learned["n_rows"]:
        return ""
    if n_new < max(learned["n_after"], 1.5 * n_tried):
        return ""
    return (
        f"the model has learned from {learned['n_after']} rows since the drift, and {n_new} more "
        "are labelled now"
    )


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
    ) -> None:
        self.config = config or PipelineConfig()
        self._retrain, self._obstacle = retrain, obstacle
        self._clock = clock
        self.n_batches = 0
        self.last_refusal = ""
        self.last_reason = ""
        self.last_comparison = ""
        self._outcompeted = False
        self.drift_thresholds: dict[str, float] = {}
        self.reference, self.drift = reference, DriftMonitor(reference)
        self._learned: Mapping[str, Any] | None = None
        self._n_labelled = self._n_tried = 0
        self.start_over(reference, last_training)

    def start_over(
        self,
        reference: Reference,
        last_training: datetime | None = None,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        """Watch from the start: a retrain has happened (default: just now).

        With the same reference, nobody was promoted: where drift began is remembered. `learned` is
        what `follow_up` takes.
        """
        if self.reference is reference and self.n_batches:
            self._n_tried = self._n_labelled
        else:
            self._learned, self._n_labelled, self._n_tried = learned, 0, 0
            self.last_comparison, self._outcompeted = "", False
        cooldown = self.config.retrain_cooldown_batches
        quiet = cooldown if self.n_batches else 0
        drift = DriftMonitor(reference, self.config.noise_threshold, cooldown, quiet)
        drift.steer(self.drift_thresholds)
        if self.reference is reference:
            drift.go_on_from(self.drift)
        self.drift, self.reference = drift, reference
        self._latest = self._clock()
        self.last_training = last_training or self._latest
        self._noise: list[float] = []
        self._pending = ""
        self.waits_for, self._ask_again = "", False

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
        batch_data = _matrix(batch_data, self.reference.features.names)
        n_rows = len(batch_result.cluster_assignments)
        if len(batch_data) != n_rows:
            raise DataValidationError(
                f"batch_data has {len(batch_data)} rows, batch_result {n_rows}; give the batch "
                "that the result is of"
            )
        self.n_batches += 1
        self._noise = [*self._noise[-9:], batch_result.noise_ratio]
        n_noise = round(batch_result.noise_ratio * len(batch_data))
        is_noise = np.arange(len(batch_data)) < n_noise
        source = None if batch_result.version_id is None else (batch_result.version_id, 0)
        self.drift.update(DriftWindow(batch_data, is_noise, losses, source))
        self._ask_again |= losses is not None
        self._n_labelled += 0 if losses is None else len(losses)
        if self.drift.reason:
            late = "" if self.waits_for else self._pending
            self._pending = "; ".join(filter(None, (self.drift.reason, late)))
            self._ask_again = True
        elif not self._pending:
            self._pending = follow_up(self._learned, self._n_labelled, self._n_tried)
            self._ask_again |= bool(self._pending)
        return self._run_when_possible()

    def _run_when_possible(self) -> bool:
        """Retrain for what was seen, or wait for labels that make it worth while."""
        if not self._pending:
            return False
        if self._obstacle is not None and self._ask_again:
            self.waits_for = self._obstacle(self.since)
        self._ask_again = False
        if self.waits_for:
            self.last_reason = self._pending
            return False
        due = self._run(self._pending)
        self._pending = ""  # not after an error: what cannot be run now is tried again
        return due

    @property
    def drift_reason(self) -> str:
        """The drift that was seen last, or that a retrain waits for labels because of."""
        return self.drift.reason or self._pending

    @property
    def since(self) -> list[Source]:
        """Where the drift that is seen now began."""
        return self.drift.since

    def record_losses(
        self, batch_data: np.ndarray, losses: np.ndarray, version_id: str | None = None
    ) -> None:
        """Losses, shape (n,), of a batch that was seen before, now that they are known.

        An alarm shows in the status and calls for a retrain with the next batch.
        """
        source = None if version_id is None else (version_id, 0)
        is_noise = np.zeros(len(batch_data), dtype=bool)
        self._ask_again = True
        self._n_labelled += len(losses)
        if self.drift.add_losses(DriftWindow(batch_data, is_noise, losses, source)):
            self._pending = self.drift.detectors["accuracy"].reason

    def look_again(self) -> None:
        """Ask anew what a retrain waits for: outcomes have come. The next batch starts it."""
        if self.waits_for and self._obstacle is not None:
            self.waits_for = self._obstacle(self.since)

    def record_comparison(self, comparison: Comparison, promoted: bool) -> None:
        """Keep how the last challenger did against the model that served, after `start_over`."""
        self.last_comparison, self._outcompeted = comparison.reason, not promoted

    def state(self) -> dict[str, Any]:
        """What the next process needs to go on, as JSON; no row's values are in it."""
        return {
            "n_batches": self.n_batches,
            "last_reason": self.last_reason,
            "last_refusal": self.last_refusal,
            "last_comparison": self.last_comparison,
            "outcompeted": self._outcompeted,
            "last_training": self.last_training.isoformat(),
            "noise": self._noise,
            "pending": self._pending,
            "waits_for": self.waits_for,
            "ask_again": self._ask_again,
            "n_labelled": self._n_labelled,
            "n_tried": self._n_tried,
            "drift": self.drift.state(),
        }

    def restore(
        self,
        state: Mapping[str, Any],
        read: Callable[[Source, int], DriftWindow | None] | None = None,
    ) -> None:
        """Go on from `state`; see `DriftMonitor.restore` for `read`."""
        self.n_batches = int(state["n_batches"])
        self.last_reason, self.last_refusal = state["last_reason"], state["last_refusal"]
        self.last_comparison = str(state.get("last_comparison", ""))
        self._outcompeted = bool(state.get("outcompeted", False))
        self.last_training = datetime.fromisoformat(state["last_training"])
        self._noise, self._pending = list(state["noise"]), str(state["pending"])
        self.waits_for, self._ask_again = str(state["waits_for"]), bool(state["ask_again"])
        self._n_labelled, self._n_tried = int(state["n_labelled"]), int(state["n_tried"])
        self.drift.restore(state["drift"], read)

    def configure(self, config: PipelineConfig) -> None:
        """Use another configuration from the next batch on."""
        self.config = config
        for detector in self.drift.detectors.values():
            detector.cooldown = config.retrain_cooldown_batches
        self.drift.noise.threshold = config.noise_threshold

    def configure_drift(self, thresholds: Mapping[str, float]) -> None:
        """Use other drift thresholds, see `DriftMonitor.steer`; they outlive a retrain."""
        self.drift_thresholds |= thresholds
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

    def get_retraining_status(self) -> dict[str, Any]:
        """``last_training_time``, ``batches_seen``, ``cooldown_batches_left``,
        ``drift_detected``, ``waits_for`` (what a retrain that drift calls for waits for),
        ``last_reason``, ``last_refusal`` (why the last retrain could not be run) and
        ``last_comparison`` (how the last challenger did against the model that served)."""
        return {
            "last_training_time": self.last_training,
            "batches_seen": self.n_batches,
            "cooldown_batches_left": self.drift.noise.quiet_left,
            "drift_detected": bool(self.drift_reason),
            "waits_for": self.waits_for,
            "last_reason": self.last_reason,
            "last_refusal": self.last_refusal,
            "last_comparison": self.last_comparison,
        }

    def get_retraining_recommendations(self) -> list[str]:
        """Sentences that name a figure and an action; empty when there is nothing to do."""
        found = []
        if self.waits_for:
            found.append(f"Give {self.waits_for}: a retrain waits for them ({self._pending}).")
        elif self.drift_reason:
            found.append(f"Retrain: {self.drift_reason}.")
        if self.last_refusal:
            found.append(f"The last retrain was refused: {self.last_refusal}.")
        if self._outcompeted:
            found.append(
                f"The last challenger was not promoted: {self.last_comparison}; label more rows, "
                "or lower expanding_window_size if the data has changed."
            )
        noise = float(np.mean(self._noise)) if self._noise else 0.0
        if noise > self.config.noise_threshold and not self.drift_reason:
            found.append(
                f"Mean noise of the last {len(self._noise)} batches is {noise:.2f}, over "
                f"noise_threshold {self.config.noise_threshold:.2f}, but it was "
                f"{self.reference.noise_ratio:.2f} in training: raise noise_threshold, or lower "
                "hdbscan_params.min_cluster_size at the next retrain."
            )
        return found

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
