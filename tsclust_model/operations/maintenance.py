"""What a scheduler calls: look at new data, retrain if it is due, and say what was done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.files import read_state, write_state
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.mlflow_integration.registry import CHAMPION, alias_version, registered_generation
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.monitoring.detectors import DriftWindow, Source
from tsclust_model.monitoring.watch import DriftWatch
from tsclust_model.rows.model import Generation
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.windows import canonical_series_rows, series_batch, series_window
from tsclust_model.shown import one_line
from tsclust_model.training.challenge import (
    Retraining,
    labelled_window,
    retrain_model,
    row_hashes,
    waits_for,
)

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
    return Observation(message, monitor.due(), monitor.n_fresh(), pause, monitor.waits_for())


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
    what the detectors have seen is kept beside the history from one call to the next.

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
    seen = "no new rows were given"
    if frame is not None:
        seen = monitor.look_at(frame)
    due = monitor.due() if if_due else ""
    if if_due and not due:
        return Maintenance(f"nothing is due: {seen}", None)
    if if_due and not monitor.n_fresh():
        return Maintenance(
            f"drift ({due}), but no labelled rows since the last training; "
            "give them as data, and the retrain will follow",
            None,
        )
    waits = monitor.waits_for() if if_due else ""
    if waits:
        return Maintenance(f"a retrain is due ({due}) and waits for {waits}", None)
    why = due or reason
    known = (monitor.champion, monitor.version, model_name, monitor.config, why)
    retraining = retrain_model(*known, promote=promote, since=monitor.watch.drift.since)
    monitor.forget(retraining)
    outcome = "is @champion now" if retraining.promoted else "stays @challenger"
    return Maintenance(
        f"retrained ({why}): version {retraining.version} {outcome}; "
        f"{retraining.comparison.reason}",
        retraining,
    )


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
        self, champion: AnyGeneration, version: str, config: PipelineConfig, model_name: str
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
        rows = self._kept(frame)
        batch_id = self.history.register(rows)
        if batch_id in self.batches:
            return f"batch {batch_id} was seen before"
        noise = []
        X, losses, positions = self._shown(batch_id)
        for start in range(0, len(X), self.config.batch_size):
            part = slice(start, start + self.config.batch_size)
            is_noise = self._is_noise(X[part])
            noise.append(is_noise)
            known = losses[part][~np.isnan(losses[part])]
            source = (batch_id, int(positions[start]))
            self.watch.update(DriftWindow(X[part], is_noise, known, source))
        self.batches = [*self.batches, batch_id][-1000:]
        self._save()
        ratio = float(np.concatenate(noise).mean()) if noise else 0.0
        drift = self.watch.drift
        pause = drift.noise.pause_left
        verdict = f"; paused for {pause} more windows after a retrain" if pause else " and no drift"
        if not pause and drift.votes and not self.watch.reason:
            verdict = (
                f"; {drift.votes} of the last {drift.noise.of} windows drifted, and "
                f"{drift.noise.votes} make an alarm"
            )
        n_rows = f"{len(frame)} rows"
        if isinstance(self.champion, Generation) and len(X) < len(frame):
            n_rows = f"{len(X)} new rows, of {len(frame)},"
        return (
            f"batch {batch_id} of {n_rows} has noise {ratio:.2f} "
            f"(threshold {self.config.noise_threshold:.2f}){verdict}"
        )

    def _shown(self, batch_id: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What a batch shows: the matrix, losses (NaN where none is known), and rows of it."""
        champion = self.champion
        if isinstance(champion, SeriesGeneration):
            window = series_window(champion, self.history, self.config, until=batch_id)
            X, losses = series_batch(champion, window, batch_id, self.config)
            return X, losses, np.arange(len(X))
        frame, _ = self.history.load(batch_id)
        X, losses, rows = self._encoded(frame)
        new = self._new(batch_id, frame)[rows]
        return X[new], losses[new], rows[new]

    def _new(self, batch_id: str, frame: pd.DataFrame) -> np.ndarray:
        """Mask of the rows of a batch that were not shown before, shape (n,).

        An export that grows brings the rows that the champion was fitted on again, and those of the
        batch before. Without an id or a time, equal rows are rows of their own.
        """
        champion = self.champion
        assert isinstance(champion, Generation)
        new = np.ones(len(frame), dtype=bool)
        own = row_hashes(frame, champion.roles)
        if own is None:
            return new
        trained = champion.fitted_part(frame) if champion.roles.target in frame else None
        if trained is not None:
            new &= ~trained
        versions = self.history.list_versions()
        for before in versions[versions.index(batch_id) + 1 :][:1]:
            if before in self.batches:
                shown = row_hashes(self.history.load(before)[0], champion.roles)
                new &= ~np.isin(own, () if shown is None else shown)
        return new

    def _is_noise(self, X: np.ndarray) -> np.ndarray:
        champion = self.champion
        if isinstance(champion, SeriesGeneration):
            return champion.segmentation.assign(X).is_noise
        return champion.assign(X).is_noise

    def _rows_of(self, source: Source, n_rows: int) -> DriftWindow | None:
        """Rows that waited for others when the last call ended; None if they were purged."""
        if source[0] not in self.history.list_versions():
            return None
        X, _, positions = self._shown(source[0])
        start = int(np.searchsorted(positions, source[1]))
        part = X[start : start + n_rows]
        return DriftWindow(part, self._is_noise(part), source=source) if len(part) else None

    def due(self) -> str:
        """Why a retrain is due; empty if it is not."""
        return self.watch.reason or self.watch.due(self.n_fresh())

    def waits_for(self) -> str:
        """What a retrain has to wait for; see `tsclust_model.training.challenge.waits_for`."""
        known = (self.champion, self.version, self.model_name, self.config)
        return waits_for(*known, self.watch.drift.since)

    def n_fresh(self) -> int:
        """Labelled rows of the window that the champion was not trained on."""
        window = labelled_window(self.champion, self.history, self.config)
        return int(window.outside(self.champion.info["trained_on"]).sum())

    def forget(self, retraining: Retraining) -> None:
        """A retrain has happened: what the batches showed is answered, and a pause begins."""
        if retraining.promoted:
            self.version = retraining.version
            self.watch.start_over(retraining.generation.reference)
        else:
            self.watch.start_over(self.champion.reference, self.n_fresh())
        self._save()

    def _kept(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows as the history keeps them, after they have been checked."""
        champion = self.champion
        if isinstance(champion, SeriesGeneration):
            roles = replace(champion.roles, frequency=champion.schema.frequency)
            series_panel(frame, roles, self.config.gap_policy, self.config.missing_markers)
            return canonical_series_rows(frame, roles, self.config)
        ordered = in_time_order(frame, champion.roles.time)
        champion.schema.encode(ordered)
        return champion.canonical_rows(ordered)

    def _encoded(self, frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The scorable rows of a batch, their losses (NaN: no outcome yet), and their numbers."""
        champion = self.champion
        assert isinstance(champion, Generation)
        encoded = champion.schema.encode(frame)
        losses = np.full(len(frame), np.nan)
        if champion.roles.target in frame:
            known = np.flatnonzero(frame[champion.roles.target].notna())
            losses[known] = champion.losses(frame.iloc[known])
        rows = np.flatnonzero(encoded.scorable)
        return encoded.X[rows], losses[rows], rows

    def _saved(self) -> dict[str, Any]:
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
