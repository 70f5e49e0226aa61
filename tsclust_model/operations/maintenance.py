"""What a scheduler calls: look at new data, retrain if it is due, and say what was done."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.files import State, read_state, write_state
from tsclust_model.mlflow_integration.registry import CHAMPION, alias_version, registered_generation
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.models.base import BatchWindow, FittedPipeline
from tsclust_model.monitoring.detectors import DriftWindow, Source
from tsclust_model.monitoring.reference import MIN_ROWS
from tsclust_model.monitoring.watch import DriftWatch
from tsclust_model.shown import one_line
from tsclust_model.training.challenge import Retraining, retrain_model, waits_for

_STATE = ".monitor.json"


@one_line
@dataclass(frozen=True)
class Maintenance:
    """What one call did.

    Attributes
    ----------
    message : str
        One line for the person who reads the scheduler's log.
    retraining : Retraining or None
    """

    message: str
    retraining: Retraining | None


@dataclass(frozen=True)
class Observation:
    """What the detectors of a champion say of new rows.

    Attributes
    ----------
    message : str
        What the rows looked like.
    reason : str
        The drift that calls for a retrain, or that rows since the last one have doubled (see
        `tsclust_model.monitoring.watch.follow_up`); empty for neither.
    n_fresh : int
        Labelled rows of the window that the champion was not trained on.
    pause : int
        Windows until the cooldown after a retrain is over; 0 where none is on.
    waits_for : str
        What a retrain, for drift or a low accuracy, has to wait for; empty for nothing.
    """

    message: str
    reason: str
    n_fresh: int
    pause: int = 0
    waits_for: str = ""


def observe(
    model_name: str, frame: pd.DataFrame, config: PipelineConfig | None = None
) -> Observation:
    """Add new rows to the history of a model and show them to its detectors, and retrain nothing.

    Rows that were added before count once; `maintain` takes over what was seen.

    Raises
    ------
    MLflowIntegrationError, DataValidationError
    """
    monitor = _open_monitor(model_name, config)
    message = monitor.look_at(frame)
    # An alarm pauses its detector too, but that is no retrain yet.
    pause = 0 if monitor.watch.reason else monitor.watch.drift.noise.pause_left
    return Observation(message, monitor.due(), monitor.n_fresh, pause, monitor.waits_for())


def maintain(
    model_name: str,
    frame: pd.DataFrame | None = None,
    *,
    config: PipelineConfig | None = None,
    reason: str = "Manual request",
    if_due: bool = False,
    promote: bool = True,
) -> Maintenance:
    """Add new rows to the history of a model, and retrain it.

    Safe to call at any time and any number of times: rows that were added before count once, and
    the state of the detectors is stored beside the history between calls.

    Parameters
    ----------
    model_name : str
        Registered model that has a ``@champion``.
    frame : DataFrame, optional
        New rows, with the target where it is known.
    config : PipelineConfig, optional
        Default: the one the champion was fitted with.
    reason : str
        Why, unless drift gives the reason.
    if_due : bool
        Retrain only if the rows show drift, or if those since the last drift have doubled, and if
        there are labels that no challenger was compared on yet.
    promote : bool
        False registers the challenger and lets nobody take over.

    Raises
    ------
    MLflowIntegrationError, DataValidationError, RetrainingError
    """
    monitor = _open_monitor(model_name, config)
    seen = "no new rows were given" if frame is None else monitor.look_at(frame)
    due = monitor.due() if if_due else ""
    if if_due and not due:
        return Maintenance(f"nothing is due: {seen}", None)
    if if_due and not monitor.n_fresh:
        return Maintenance(
            f"drift ({due}), but no labelled rows since the last training; "
            "give them as data, and the retrain will follow",
            None,
        )
    waits = monitor.waits_for() if if_due else ""
    if waits:
        return Maintenance(f"a retrain is due ({due}) and waits for {waits}", None)
    why = due or reason
    retraining = retrain_model(
        monitor.champion,
        monitor.version,
        model_name,
        monitor.config,
        why,
        promote=promote,
        since=monitor.watch.drift.since,
    )
    monitor.forget(retraining)
    return Maintenance(outcome_of(retraining, why), retraining)


def outcome_of(retraining: Retraining, why: str) -> str:
    """What a retrain came to, in a sentence."""
    outcome = "is @champion now" if retraining.promoted else "stays @challenger"
    version, comparison = retraining.version, retraining.comparison
    return f"retrained ({why}): version {version} {outcome}; {comparison.reason}"


def _open_monitor(model_name: str, config: PipelineConfig | None) -> _Monitor:
    version = alias_version(model_name, CHAMPION)
    if version is None:
        raise MLflowIntegrationError(
            f"'{model_name}' has no @{CHAMPION}; train it first (tsclust train --help)"
        )
    champion = registered_generation(model_name, version)
    settings = config or PipelineConfig.from_dict(champion.info["config"])
    return _Monitor(champion, version, settings, model_name)


class _Monitor:
    """The detectors of a champion between calls, in a file beside its history."""

    def __init__(
        self, champion: FittedPipeline, version: str, config: PipelineConfig, model_name: str
    ) -> None:
        self.champion = champion
        self.version = version
        self.config, self.model_name = config, model_name
        storage = open_storage(config, model_name)
        self.history = storage.history
        self.path = storage.folder / _STATE
        self.watch = DriftWatch(champion.reference, config, champion.info.get("drift"))
        state = self._saved()
        self.batches: list[str] = state.get("batches", [])
        self.watch.reason = state.get("reason", "")
        self.watch.n_tried = int(state.get("n_tried", 0))
        if "drift" in state:
            self.watch.drift.restore(state["drift"], self._rows_of)

    def look_at(self, frame: pd.DataFrame) -> str:
        """Keep the rows, show them to the detectors once, and say what they looked like."""
        batch_id = self.history.register(self.champion.checked_rows(frame, self.config))
        if batch_id in self.batches:
            return f"batch {batch_id} was seen before"
        if batch_id in self.champion.info.get("trained_on", ()):
            return f"batch {batch_id} is data that the model was trained on"
        batch = self._batch(batch_id)
        noise, waiting = [], self.watch.drift.n_waiting
        for start in range(0, len(batch.X), self.config.batch_size):
            part = slice(start, start + self.config.batch_size)
            is_noise = self.champion.is_noise(batch.X[part])
            noise.append(is_noise)
            losses = batch.losses[part]
            source = (batch_id, int(batch.positions[start]))
            known = losses[~np.isnan(losses)]
            self.watch.update(DriftWindow(batch.X[part], is_noise, known, source))
        self.batches = [*self.batches, batch_id][-1000:]
        self._save()
        n_rows = f"{len(frame)} rows"
        if batch.n_new is not None and batch.n_new < len(frame):
            n_rows = f"{batch.n_new} new rows, of {len(frame)},"
        ratio = float(np.concatenate(noise).mean()) if noise else 0.0
        is_tested = self.watch.drift.n_waiting < waiting + len(batch.X)
        return (
            f"batch {batch_id} of {n_rows} has noise {ratio:.2f} "
            f"(threshold {self.config.noise_threshold:.2f}){self._verdict(is_tested)}"
        )

    def _verdict(self, is_tested: bool) -> str:
        drift = self.watch.drift
        if drift.n_waiting and not is_tested:
            return (
                f"; drift is tested once {MIN_ROWS} {self.champion.unit} are collected "
                f"({drift.n_waiting} until now)"
            )
        if drift.noise.pause_left:
            return f"; paused for {drift.noise.pause_left} more windows after a retrain"
        if drift.votes and not self.watch.reason:
            return (
                f"; {drift.votes} of the last {drift.noise.of} windows drifted, and "
                f"{drift.noise.votes} make an alarm"
            )
        return " and no drift"

    def _batch(self, batch_id: str) -> BatchWindow:
        return self.champion.batch(self.history, batch_id, self.batches, self.config)

    def _rows_of(self, source: Source, n_rows: int) -> DriftWindow | None:
        """Rows that waited for others when the last call ended; None if they were purged."""
        if source[0] not in self.history.list_versions():
            return None
        batch = self._batch(source[0])
        start = int(np.searchsorted(batch.positions, source[1]))
        X = batch.X[start : start + n_rows]
        return DriftWindow(X, self.champion.is_noise(X), source=source) if len(X) else None

    def due(self) -> str:
        """Why a retrain is due; empty if it is not."""
        return self.watch.reason or self.watch.due(self.n_fresh)

    def waits_for(self) -> str:
        """What a retrain has to wait for; see `tsclust_model.training.challenge.waits_for`."""
        since = self.watch.drift.since
        return waits_for(self.champion, self.version, self.model_name, self.config, since)

    @cached_property
    def n_fresh(self) -> int:
        """Labelled rows of the window that the champion was not trained on, after `look_at`."""
        window = self.champion.labelled_window(self.history, self.config)
        return int(window.outside(self.champion.info["trained_on"]).sum())

    def forget(self, retraining: Retraining) -> None:
        """A retrain has happened: what the batches showed is answered, and a pause begins."""
        if retraining.promoted:
            self.version = retraining.version
            self.watch.start_over(retraining.generation.reference)
        else:
            self.watch.start_over(self.champion.reference, self.n_fresh)
        self._save()

    def _saved(self) -> State:
        state = read_state(self.path)
        if not state or state["version"] == self.version:
            return state
        # What the detectors saw of another champion says nothing of this one.
        return {"batches": state["batches"]}

    def _save(self) -> None:
        state = {
            "version": self.version,
            "drift": self.watch.drift.state(),
            "batches": self.batches,
            "reason": self.watch.reason,
            "n_tried": self.watch.n_tried,
        }
        write_state(self.path, state)
