"""Drift: has the data, or the model's accuracy on it, changed from what the model knows?

`DriftMonitor` shows windows of rows to the detectors; batches and outcomes too few to say anything
collect until they make a window. `mean_distance` and `has_risen` are the rules of those who know
means or a metric only (`ModelMonitor`, `PerformanceMonitor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tsclust_model.files import State
from tsclust_model.monitoring.detectors import (
    AccuracyDrift,
    Detector,
    DriftWindow,
    FeatureDrift,
    LossSums,
    NoiseDrift,
    NoiseTrend,
    Source,
    source_of,
)
from tsclust_model.monitoring.reference import MIN_ROWS, Reference

ReadRows = Callable[[Source, int], DriftWindow | None]
"""Gives so many rows of a source; None if they are gone."""

_ZERO = 1e-12


class DriftMonitor:
    """All detectors over one stream.

    Batches of fewer than 50 rows are collected until they make a window of 50 or more. Outcomes are
    collected separately, because they may arrive later or for some rows only.

    Parameters
    ----------
    reference : Reference
    noise_threshold : float
        0 to 1; see `NoiseDrift`.
    cooldown : int
        Windows after an alarm in which its detector raises none.
    pause : int
        Windows at the start in which none does: a retrain has just happened.

    Attributes
    ----------
    drift_detected : bool
    reason : str
        The reasons of the last window's alarms, joined by "; ".
    """

    def __init__(
        self,
        reference: Reference,
        noise_threshold: float = 0.3,
        cooldown: int = 10,
        pause: int = 0,
    ) -> None:
        self.reference = reference
        pauses = {"cooldown": cooldown, "pause": pause}
        self.noise = NoiseDrift(reference, threshold=noise_threshold, **pauses)
        self.trend = NoiseTrend(reference, votes=1, of=1, **pauses)
        self.features = FeatureDrift(reference, **pauses)
        self.accuracy = AccuracyDrift(reference, **pauses)
        self.detectors: dict[str, Detector] = {
            "noise": self.noise,
            "noise_trend": self.trend,
            "features": self.features,
            "accuracy": self.accuracy,
        }
        self._rows: list[DriftWindow] = []
        self._losses = LossSums()
        self._losses_from: Source | None = None

    def configure(self, noise_threshold: float, cooldown: int) -> None:
        """Use another threshold and cooldown from the next window on."""
        self.noise.threshold = noise_threshold
        for detector in self.detectors.values():
            detector.cooldown = cooldown

    def steer(self, thresholds: Mapping[str, float]) -> None:
        """Use other thresholds from the next window on.

        Parameters
        ----------
        thresholds : mapping
            ``noise_ratio_trend``: rise of the noise ratio (absolute); ``performance_degradation``:
            rise of the metric (relative). One that is absent stays.
        """
        self.trend.rise = thresholds.get("noise_ratio_trend", self.trend.rise)
        self.accuracy.degradation = thresholds.get(
            "performance_degradation", self.accuracy.degradation
        )

    def after_retrain(self, reference: Reference, *, paused: bool = True) -> DriftMonitor:
        """The monitor of what serves after a retrain, with the same settings.

        With the same reference nobody was promoted, and nothing has been done about the drift:
        where it began is remembered.
        """
        cooldown = self.noise.cooldown
        new = DriftMonitor(reference, self.noise.threshold, cooldown, cooldown if paused else 0)
        new.trend.rise, new.accuracy.degradation = self.trend.rise, self.accuracy.degradation
        if reference is self.reference:
            for name, detector in new.detectors.items():
                detector.go_on_from(self.detectors[name])
        return new

    @property
    def drift_detected(self) -> bool:
        return any(detector.drift_detected for detector in self.detectors.values())

    @property
    def reason(self) -> str:
        alarms = (item for item in self.detectors.values() if item.drift_detected)
        return "; ".join(detector.reason for detector in alarms)

    @property
    def n_waiting(self) -> int:
        """Rows that wait for others to make a window."""
        return sum(len(part.X) for part in self._rows)

    @property
    def votes(self) -> int:
        """How many of the last windows drifted, by the detector that saw the most."""
        return max(detector.n_votes for detector in self.detectors.values())

    @property
    def since(self) -> list[Source]:
        """Where the drift that is seen now began, as each of its detectors saw it."""
        sources = (detector.since for detector in self.detectors.values())
        return list(dict.fromkeys(source for source in sources if source is not None))

    def update(self, window: DriftWindow) -> bool:
        """Show the next rows to the detectors, once they make a window; `drift_detected`."""
        for detector in self.detectors.values():
            detector.clear()
        if len(window.X):
            self._rows.append(window)
        if self.n_waiting >= MIN_ROWS:
            whole = DriftWindow(
                np.concatenate([part.X for part in self._rows]),
                np.concatenate([part.is_noise for part in self._rows]),
                source=self._rows[0].source,
            )
            self._rows = []
            for detector in (self.noise, self.trend, self.features):
                detector.update(whole)
        self.add_losses(window.losses, window.source)
        return self.drift_detected

    def add_losses(
        self, losses: np.ndarray | LossSums | None, source: Source | None = None
    ) -> bool:
        """Show losses only: of rows that were shown before, and whose outcome is known by now.

        Parameters
        ----------
        losses : ndarray of float64, shape (n,), or LossSums, or None
        source : Source, optional

        Returns
        -------
        bool
            Whether the accuracy has drifted.
        """
        self.accuracy.clear()
        nothing = DriftWindow(np.empty((0, 0)), np.empty(0, dtype=bool), losses, source)
        if nothing.loss_sums.n and not self._losses.n:
            self._losses_from = source
        self._losses = self._losses.plus(nothing.loss_sums)
        if self._losses.n < MIN_ROWS:
            return False
        whole = replace(nothing, losses=self._losses, source=self._losses_from)
        self._losses, self._losses_from = LossSums(), None
        return self.accuracy.update(whole)

    def state(self) -> State:
        """What the next process needs to go on, as JSON.

        No row's values are in it: of rows that wait for others it says where they lie.
        """
        rows = [[*part.source, len(part.X)] for part in self._rows if part.source is not None]
        losses = [*vars(self._losses).values(), self._losses_from]
        own = {name: detector.state() for name, detector in self.detectors.items()}
        return own | {"waiting": {"rows": rows, "losses": losses}}

    def restore(self, state: Mapping[str, Any], read: ReadRows | None = None) -> None:
        """Go on from `state`.

        Parameters
        ----------
        state : mapping
        read : callable, optional
            Gives so many rows of a source; None if they are gone. Without it, rows that waited
            for others are forgotten.
        """
        for name, detector in self.detectors.items():
            if name in state:
                detector.restore(state[name])
        waiting = state.get("waiting", {"rows": [], "losses": [0, 0.0, 0.0, None]})
        *sums, source = waiting["losses"]
        self._losses, self._losses_from = LossSums(*sums), source_of(source)
        windows = [] if read is None else [read((v, row), n) for v, row, n in waiting["rows"]]
        self._rows = [window for window in windows if window is not None and len(window.X)]


def has_risen(before: np.ndarray, now: np.ndarray, limit: float) -> bool:
    """Whether the mean of a metric's values, shape (n,), rose by over `limit` from `before`, and
    by over twice the standard error of the difference."""
    rise = float(now.mean() - before.mean())
    error = float(np.sqrt((before.var(ddof=1) + now.var(ddof=1)) / len(now)))
    return rise > max(limit, 2 * error)


def mean_distance(means: Mapping[str, float], reference: Mapping[str, Sequence[float]]) -> float:
    """Relative L1 distance of means from a reference; 0 where they have no feature in common.

    The mean over the features of ``|mean - reference| / max(|reference|, scale)``: each feature
    counts the same, whatever its unit. The scale is a standard deviation, or 0: a mean near zero is
    measured in standard deviations, any other one as a share of itself. A reference of 0 without a
    scale counts 0 while the mean is 0 and 1 when it is not.

    Parameters
    ----------
    means : mapping of str to float
        One that is not finite is left out.
    reference : mapping of str to (mean, scale)
    """
    distances = [
        _share(float(mean), *reference[name])
        for name, mean in means.items()
        if name in reference and math.isfinite(mean)
    ]
    return round(float(np.mean(distances)), 12) if distances else 0.0


def _share(mean: float, reference: float, scale: float) -> float:
    """The change of a mean as a share of its reference, or of its scale where that is more."""
    change = abs(mean - reference)
    divisor = max(abs(reference), scale if math.isfinite(scale) else 0.0)
    return change / divisor if divisor > _ZERO else float(change > _ZERO)
