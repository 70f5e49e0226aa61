"""Detectors of drift: each is shown one window of rows after another.

`update` says whether it sees drift (`drift_detected`) and why (`reason`). A window has drifted only
if the change is significant *and* large, larger also than the training rows vary among themselves
over time (a season is no drift); an alarm takes `votes` of the last `of` windows; after it,
`cooldown` windows raise none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import binom, linregress, norm

from tsclust_model.files import State
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
        if isinstance(self.losses, LossSums):
            return self.losses
        return LossSums() if self.losses is None else LossSums.of(self.losses)


@one_line
@dataclass
class Detector(ABC):
    """`votes` of the last `of` windows make an alarm; after it, `cooldown` windows make none.

    The first `pause` windows make none either, but they have votes. Subclasses say in `_change`
    whether one window has drifted, and how.

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
    pause: int = 0
    drift_detected: bool = field(default=False, init=False)
    reason: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self._recent: deque[bool] = deque(maxlen=self.of)
        self._paused_until = self.pause
        self._seen = 0
        self._since: Source | None = None

    def update(self, window: DriftWindow) -> bool:
        """Look at one more window; returns `drift_detected`."""
        self.clear()
        change = self._change(window) if self._n(window) >= MIN_ROWS else None
        if change is None:
            return False
        self._seen += 1
        self._recent.append(bool(change))
        if not any(self._recent):
            self._since = None
        elif change and self._since is None:
            self._since = window.source
        if change and self.n_votes >= self.votes and self._seen > self._paused_until:
            self.drift_detected, self.reason = True, change
            self._paused_until = self._seen + self.cooldown
        return self.drift_detected

    def clear(self) -> None:
        """Say nothing until the next window."""
        self.drift_detected, self.reason = False, ""

    @property
    def since(self) -> Source | None:
        """The first of the windows whose votes make an alarm; None while they are too few."""
        return self._since if self.n_votes >= self.votes else None

    @property
    def n_votes(self) -> int:
        """How many of the last windows drifted."""
        return sum(self._recent)

    @property
    def pause_left(self) -> int:
        """Windows that will still make no alarm."""
        return max(self._paused_until - self._seen, 0)

    def go_on_from(self, other: Detector) -> None:
        """Remember where the drift began that `other` saw."""
        self._since = other._since

    def _n(self, window: DriftWindow) -> int:
        """How many rows of a window say something."""
        return len(window.X)

    @abstractmethod
    def _change(self, window: DriftWindow) -> str | None:
        """What has drifted in this window; empty for nothing, None if the window says nothing."""

    def state(self) -> State:
        """What the next process needs to go on, as JSON."""
        return {
            "recent": list(self._recent),
            "quiet_until": self._paused_until,
            "seen": self._seen,
            "since": self._since,
            "reason": self.reason,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._recent = deque(map(bool, state["recent"]), maxlen=self.of)
        self._paused_until, self._seen = int(state["quiet_until"]), int(state["seen"])
        self._since = source_of(state.get("since"))
        self.reason = str(state.get("reason", ""))
        self.drift_detected = bool(self.reason)


@one_line
@dataclass
class NoiseDrift(Detector):
    """The share of noise is over `threshold` and over what the training rows had."""

    threshold: float = 0.3

    @property
    def usual(self) -> float:
        """The most noise (0 to 1) that the training rows explain."""
        return self.reference.most_noise(_NOISE_EFFECT)

    def _change(self, window: DriftWindow) -> str:
        return self.told(len(window.is_noise), int(window.is_noise.sum()))

    def told(self, n: int, noise: int) -> str:
        """What `n` rows say of which `noise` are noise; empty for nothing."""
        usual = self.usual
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

    def _change(self, window: DriftWindow) -> str:
        self._ratios.append(float(window.is_noise.mean()))
        ratios = np.array(self._ratios)
        if len(ratios) < self.length or np.ptp(ratios) == 0:
            return ""
        trend = linregress(np.arange(self.length), ratios)
        rise = trend.slope * (self.length - 1)
        usual = self.reference.most_noise(self.rise)
        if trend.pvalue < ALPHA and rise > self.rise and ratios[-1] > usual:
            return f"noise ratio rose by {rise:.2f} over {self.length} windows to {ratios[-1]:.2f}"
        return ""

    @property
    def since(self) -> Source | None:
        """None: what rises slowly has no beginning."""
        return None

    def state(self) -> State:
        return super().state() | {"ratios": list(self._ratios)}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._ratios = deque(state["ratios"], maxlen=self.length)


@one_line
@dataclass
class FeatureDrift(Detector):
    """A feature's distribution is another one (Kolmogorov-Smirnov, with false-discovery control,
    and the population stability index or the shift of the mean agrees that it matters)."""

    def _change(self, window: DriftWindow) -> str:
        shifted = self.reference.features.shifted(window.X)
        return f"{len(shifted)} feature(s) drifted: {', '.join(shifted[:3])}" if shifted else ""


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

    def _change(self, window: DriftWindow) -> str:
        losses, reference = window.loss_sums, self.reference
        metric, mean = METRICS[reference.metric], losses.mean
        beyond = 1 + (BEYOND - 1) * min(self.degradation / _LOSS_EFFECT, 1.0)
        usual = max(
            reference.usual_loss * beyond,
            reference.loss_mean * metric.loss(1 + self.degradation),
        )
        error = math.hypot(
            max(losses.sd, reference.loss_sd) / math.sqrt(losses.n),
            reference.loss_sd / math.sqrt(reference.loss_rows),
        )
        if mean > usual and norm.sf((mean - reference.loss_mean) / max(error, 1e-300)) < ALPHA:
            return (
                f"{metric.label} {metric.of(mean):.4g} is over {metric.of(usual):.4g}, the most "
                f"of the training rows (mean {metric.of(reference.loss_mean):.4g})"
            )
        return ""


def source_of(kept: Sequence[Any] | None) -> Source | None:
    """A source as JSON keeps it."""
    return None if kept is None else (str(kept[0]), int(kept[1]))
