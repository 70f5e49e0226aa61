"""What calls for a retrain: the drift that was seen, until a retrain has answered it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsclust_model.config import PipelineConfig
from tsclust_model.monitoring.detectors import DriftWindow
from tsclust_model.monitoring.drift import DriftMonitor
from tsclust_model.monitoring.reference import Reference


class DriftWatch:
    """The detectors of a serving model from one retrain to the next.

    Parameters
    ----------
    reference : Reference
        Of the serving model.
    config : PipelineConfig
    learned : mapping, optional
        See `follow_up`.

    Attributes
    ----------
    drift : DriftMonitor
    reason : str
        What calls for a retrain; empty for nothing.
    """

    def __init__(
        self,
        reference: Reference,
        config: PipelineConfig,
        learned: Mapping[str, Any] | None = None,
    ) -> None:
        self.drift = DriftMonitor(
            reference, config.noise_threshold, config.retrain_cooldown_batches
        )
        self.reason = ""
        self.n_tried = 0
        self._learned = learned

    def update(self, window: DriftWindow, unanswered: str = "") -> bool:
        """Show the next rows to the detectors; whether they see drift, `unanswered` beside it."""
        if self.drift.update(window):
            self.reason = "; ".join(filter(None, (self.drift.reason, unanswered)))
        return self.drift.drift_detected

    def due(self, n_labelled: int) -> str:
        """Why a retrain is due: drift, or rows to learn from since the last one; empty for neither.

        Parameters
        ----------
        n_labelled : int
            Labelled rows that the serving model was not trained on.
        """
        return self.reason or follow_up(self._learned, n_labelled, self.n_tried)

    def start_over(
        self,
        reference: Reference,
        n_labelled: int = 0,
        learned: Mapping[str, Any] | None = None,
        *,
        paused: bool = True,
    ) -> None:
        """A retrain has happened: what was seen is answered, and a pause begins.

        With the same reference nobody was promoted: it was tried with `n_labelled` rows.
        """
        promoted = reference is not self.drift.reference
        self.drift = self.drift.after_retrain(reference, paused=paused)
        self.reason, self.n_tried = "", 0 if promoted else n_labelled
        if promoted or learned is not None:
            self._learned = learned


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
