"""Drift: has the data, or the model's accuracy on it, moved away from what the model knows?

A `Reference` is made of the training rows and lives inside the model. Each detector is shown one
window of rows after another (`update`) and says whether it sees drift (`drift_detected`) and why
(`reason`). A window counts as moved only if the change is significant *and* large, larger also than
the training rows vary among themselves over time (a season is no drift); an alarm takes `votes` of
the last `of` windows; after it, `cooldown` windows raise none. Batches and outcomes too few to say
anything collect in the `DriftMonitor` until they make a window.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binom, linregress, norm

from tsclust_model.metrics import METRICS
from tsclust_model.monitoring.reference import ALPHA, BEYOND, MIN_ROWS, Reference
from tsclust_model.shown import one_line

Source = tuple[str, int]
"""Where rows lie in the history: the id of a version, and the first of its rows."""

_NOISE_EFFECT = 0.10

_LOSS_EFFECT = 0.20


@one_line
@dataclass(frozen=True)
class LossSums:
    """What losses say together: a process can leave it to the next one, and no row's value shows.

    Attributes
    ----------
    n : int
    mean : float
    squares : float
        Sum of the squared deviations from the mean.
    """

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of(cls, losses: np.ndarray) -> LossSums:
        if not len(losses):
            return cls()
        mean = float(losses.mean())
        return cls(len(losses), mean, float(np.square(losses - mean).sum()))

    def plus(self, other: LossSums) -> LossSums:
        """Both together (Chan, Golub & LeVeque 1983)."""
        n = self.n + other.n
        if not self.n or not other.n:
            return other if not self.n else self
        step = other.mean - self.mean
        squares = self.squares + other.squares + step**2 * self.n * other.n / n
        return LossSums(n, self.mean + step * other.n / n, squares)

    @property
    def sd(self) -> float:
        """Standard deviation; 0 of a single loss."""
        return math.sqrt(self.squares / (self.n - 1)) if self.n > 1 else 0.0


@one_line
@dataclass(frozen=True)
class DriftWindow:
    """One window of rows as the detectors see it.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_features)
    is_noise : ndarray of bool, shape (n,)
        Before the fallback.
    losses : ndarray of float64, shape (n_known,), or LossSums, or None
        Of the model's metric, where the outcome is known.
    source : Source or None
        Where its rows lie in the history.
    """

    X: np.ndarray
    is_noise: np.ndarray
    losses: np.ndarray | LossSums | None = None
    source: Source | None = None

    @property
    def loss_sums(self) -> LossSums:
        """The losses taken together; none are zero of them."""
        if isinstance(self.losses, LossSums):
            return self.losses
        return LossSums() if self.losses is None else LossSums.of(self.losses)


@one_line
@dataclass
class Detector(ABC):
    """`votes` of the last `of` windows make an alarm; after it, `cooldown` windows make none.

    The first `quiet` windows make none either, but they have votes. Subclasses say in `_moved`
    whether one window has moved, and how.

    Attributes
    ----------
    drift_detected : bool
        Whether the last `update` raised an alarm.
    reason : str
        What it saw, with figures; empty without an alarm.
    """

    reference: Reference
    votes: int = 2
    of: int = 3
    cooldown: int = 10
    quiet: int = 0
    drift_detected: bool = field(default=False, init=False)
    reason: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=self.of)
        self._quiet_until = self.quiet
        self._seen = 0
        self._since: Source | None = None

    def update(self, window: DriftWindow) -> bool:
        """Look at one more window; returns `drift_detected`."""
        self.clear()
        seen = self._moved(window) if self._n(window) >= MIN_ROWS else None
        if seen is None:
            return False
        self._seen += 1
        self._recent.append(bool(seen))
        if not any(self._recent):
            self._since = None
        elif seen and self._since is None:
            self._since = window.source
        alarm = bool(seen) and sum(self._recent) >= self.votes and self._seen > self._quiet_until
        self.drift_detected, self.reason = alarm, seen if alarm else ""
        if alarm:
            self._quiet_until = self._seen + self.cooldown
        return alarm

    def clear(self) -> None:
        """Say nothing until the next window."""
        self.drift_detected, self.reason = False, ""

    @property
    def since(self) -> Source | None:
        """The first of the windows whose votes make an alarm; None while they are too few."""
        return self._since if sum(self._recent) >= self.votes else None

    def go_on_from(self, other: Detector) -> None:
        """Remember where the drift began that `other` saw."""
        self._since = other._since

    def _n(self, window: DriftWindow) -> int:
        """How many rows of a window say something."""
        return len(window.X)

    @abstractmethod
    def _moved(self, window: DriftWindow) -> str | None:
        """What has moved in this window, in words; empty for nothing, None if it says nothing."""

    @property
    def n_votes(self) -> int:
        """How many of the last windows drifted."""
        return sum(self._recent)

    @property
    def quiet_left(self) -> int:
        """Windows that will still make no alarm."""
        return max(self._quiet_until - self._seen, 0)

    def state(self) -> dict[str, Any]:
        """What the next process needs to go on, as JSON."""
        return {
            "recent": list(self._recent),
            "quiet_until": self._quiet_until,
            "seen": self._seen,
            "since": self._since,
            "reason": self.reason,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._recent.clear()
        self._recent.extend(bool(item) for item in state["recent"])
        self._quiet_until, self._seen = int(state["quiet_until"]), int(state["seen"])
        self._since = _source(state.get("since"))
        self.reason = str(state.get("reason", ""))
        self.drift_detected = bool(self.reason)


@one_line
@dataclass
class NoiseDrift(Detector):
    """The share of noise is over `threshold` and over what the training rows had."""

    threshold: float = 0.3

    def _moved(self, window: DriftWindow) -> str:
        n, noise = len(window.is_noise), int(window.is_noise.sum())
        usual = max(self.reference.usual_noise, self.reference.noise_ratio + _NOISE_EFFECT)
        significant = binom.sf(noise - 1, n, min(usual, 1.0)) < ALPHA
        if noise / n > max(self.threshold, usual) and significant:
            return (
                f"noise ratio {noise / n:.2f} is over noise_threshold {self.threshold:.2f} and "
                f"over {usual:.2f}, the most of the training rows"
            )
        return ""


@one_line
@dataclass
class NoiseTrend(Detector):
    """The share of noise rises from window to window by over `rise`, to where it has not been."""

    length: int = 8
    rise: float = _NOISE_EFFECT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._ratios: deque[float] = deque(maxlen=self.length)

    def _moved(self, window: DriftWindow) -> str:
        self._ratios.append(float(window.is_noise.mean()))
        ratios = np.array(self._ratios)
        if len(ratios) < self.length or np.ptp(ratios) == 0:
            return ""
        trend = linregress(np.arange(self.length), ratios)
        rise = trend.slope * (self.length - 1)
        usual = max(self.reference.usual_noise, self.reference.noise_ratio + self.rise)
        if trend.pvalue < ALPHA and rise > self.rise and ratios[-1] > usual:
            return f"noise ratio rose by {rise:.2f} over {self.length} windows to {ratios[-1]:.2f}"
        return ""

    @property
    def since(self) -> Source | None:
        """None: what rises slowly has no beginning."""
        return None

    def state(self) -> dict[str, Any]:
        return super().state() | {"ratios": list(self._ratios)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._ratios.clear()
        self._ratios.extend(state["ratios"])


@one_line
@dataclass
class FeatureDrift(Detector):
    """A feature's distribution is another one (Kolmogorov-Smirnov, with false-discovery control,
    and the population stability index or the shift of the mean agrees that it matters)."""

    def _moved(self, window: DriftWindow) -> str:
        moved = self.reference.features.moved(window.X)
        return f"{len(moved)} feature(s) moved: {', '.join(moved[:3])}" if moved else ""


@one_line
@dataclass
class AccuracyDrift(Detector):
    """The error on labelled rows is higher than it was on rows no model had seen.

    By the share `degradation` of the metric, and beyond the worst block of the training rows (by a
    quarter; a lower `degradation` than 0.2 lowers that too, in proportion).
    """

    degradation: float = _LOSS_EFFECT

    def _n(self, window: DriftWindow) -> int:
        return window.loss_sums.n

    def _moved(self, window: DriftWindow) -> str:
        losses, metric = window.loss_sums, METRICS[self.reference.metric]
        mean = losses.mean
        usual = max(
            self.reference.usual_loss
            * (1 + (BEYOND - 1) * min(self.degradation / _LOSS_EFFECT, 1.0)),
            self.reference.loss_mean * metric.loss(1 + self.degradation),
        )
        spread = max(losses.sd, self.reference.loss_sd)
        error = math.hypot(
            spread / math.sqrt(losses.n),
            self.reference.loss_sd / math.sqrt(self.reference.loss_rows),
        )
        if mean > usual and norm.sf((mean - self.reference.loss_mean) / max(error, 1e-300)) < ALPHA:
            return (
                f"{metric.label} {metric.of(mean):.4g} is over {metric.of(usual):.4g}, the most "
                f"of the training rows (mean {metric.of(self.reference.loss_mean):.4g})"
            )
        return ""


class DriftMonitor:
    """All detectors over one stream.

    Batches of fewer than 50 rows collect until they are 50 or more, and make one window then; so
    do outcomes, by themselves, because they may come later or for some rows only.

    Parameters
    ----------
    reference : Reference
    noise_threshold : float
        0 to 1; see `NoiseDrift`.
    cooldown : int
        Windows after an alarm in which its detector raises none.
    quiet : int
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
        quiet: int = 0,
    ) -> None:
        pauses = {"cooldown": cooldown, "quiet": quiet}
        self.noise = NoiseDrift(reference, threshold=noise_threshold, **pauses)
        self.trend = NoiseTrend(reference, votes=1, of=1, **pauses)
        self.accuracy = AccuracyDrift(reference, **pauses)
        self.detectors: dict[str, Detector] = {
            "noise": self.noise,
            "noise_trend": self.trend,
            "features": FeatureDrift(reference, **pauses),
            "accuracy": self.accuracy,
        }
        self._rows: list[DriftWindow] = []
        self._losses = LossSums()
        self._losses_from: Source | None = None

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

    @property
    def drift_detected(self) -> bool:
        return any(detector.drift_detected for detector in self.detectors.values())

    @property
    def reason(self) -> str:
        return "; ".join(found.reason for found in self.detectors.values() if found.drift_detected)

    @property
    def votes(self) -> int:
        """How many of the last windows drifted, by the detector that saw the most."""
        return max(detector.n_votes for detector in self.detectors.values())

    @property
    def since(self) -> list[Source]:
        """Where the drift that is seen now began, as each of its detectors saw it."""
        found = (detector.since for detector in self.detectors.values())
        return list(dict.fromkeys(source for source in found if source is not None))

    def update(self, window: DriftWindow) -> bool:
        """Show the next rows to the detectors, once they make a window; `drift_detected`."""
        for detector in self.detectors.values():
            detector.clear()
        if len(window.X):
            self._rows.append(window)
        if sum(len(part.X) for part in self._rows) >= MIN_ROWS:
            whole = DriftWindow(
                np.concatenate([part.X for part in self._rows]),
                np.concatenate([part.is_noise for part in self._rows]),
                source=self._rows[0].source,
            )
            self._rows = []
            for name, detector in self.detectors.items():
                if name != "accuracy":
                    detector.update(whole)
        self.add_losses(window)
        return self.drift_detected

    def add_losses(self, window: DriftWindow) -> bool:
        """Show losses only: of rows that were shown before, and whose outcome is known by now.

        Returns
        -------
        bool
            Whether the accuracy has drifted.
        """
        detector, losses = self.detectors["accuracy"], window.loss_sums
        detector.clear()
        if losses.n and not self._losses.n:
            self._losses_from = window.source
        self._losses = self._losses.plus(losses)
        if self._losses.n < MIN_ROWS:
            return False
        nothing, nobody = np.empty((0, 0)), np.empty(0, dtype=bool)
        whole = DriftWindow(nothing, nobody, self._losses, self._losses_from)
        self._losses, self._losses_from = LossSums(), None
        return detector.update(whole)

    def go_on_from(self, other: DriftMonitor) -> None:
        """Remember where the drift began that `other` saw: nothing has been done about it."""
        for name, detector in self.detectors.items():
            detector.go_on_from(other.detectors[name])

    def state(self) -> dict[str, Any]:
        """What the next process needs to go on, as JSON.

        No row's values are in it: of rows that wait for others it says where they lie.
        """
        rows = [[*part.source, len(part.X)] for part in self._rows if part.source is not None]
        losses = [*vars(self._losses).values(), self._losses_from]
        waiting = {"rows": rows, "losses": losses}
        own = {name: detector.state() for name, detector in self.detectors.items()}
        return own | {"waiting": waiting}

    def restore(
        self,
        state: Mapping[str, Any],
        read: Callable[[Source, int], DriftWindow | None] | None = None,
    ) -> None:
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
        self._losses, self._losses_from = LossSums(*sums), _source(source)
        found = [
            None if read is None else read((version, row), n) for version, row, n in waiting["rows"]
        ]
        self._rows = [window for window in found if window is not None and len(window.X)]


def _source(found: Sequence[Any] | None) -> Source | None:
    """A source as JSON keeps it."""
    return None if found is None else (str(found[0]), int(found[1]))
