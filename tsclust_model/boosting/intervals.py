"""Prediction intervals by split conformal prediction from out-of-fold residuals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

Value = TypeVar("Value")

_ROUNDING = 1e-9  # of a bound that floating point misses a whole number by

ENOUGH = 100
"""Residuals a cluster needs for a calibration of its own."""

_MOST = 1_000

_ALL = NOISE

_FEWEST_A_STEP, _MOST_A_STEP = 50, 400

_SHRUNK_BY = 200


@one_line
@dataclass(frozen=True)
class Support:
    """What values an outcome takes, so that no forecast and no bound is another.

    Attributes
    ----------
    never_negative : bool
        No value was below 0. Then a forecast below 0 becomes 0, which is nearer to any such value.
    whole : bool
        All values were whole numbers. Then bounds become the outermost whole numbers between them,
        which hold the same whole numbers as before; the forecast is a mean and stays.
    """

    never_negative: bool = False
    whole: bool = False

    @classmethod
    def of(cls, values: np.ndarray, *, clip: bool = True, whole: bool = True) -> Support:
        """The support of known outcomes, shape (n,); False leaves a limit out."""
        return cls(
            clip and bool((values >= 0).all()), whole and bool((values == np.round(values)).all())
        )

    def clipped(self, forecast: np.ndarray) -> np.ndarray:
        """The forecasts (or bounds), none of them outside the support."""
        # + 0.0: no forecast is -0.0.
        return np.maximum(forecast, 0.0) + 0.0 if self.never_negative else forecast

    def bounds(
        self, prediction: np.ndarray, lower: np.ndarray, upper: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The bounds within the support; they hold what they held and enclose the prediction."""
        lower, upper = self.clipped(lower), self.clipped(upper)
        if self.whole:
            slack = _ROUNDING * np.maximum(1.0, np.abs(prediction))
            lower = np.minimum(np.ceil(lower - slack), np.floor(prediction)) + 0.0
            upper = np.maximum(np.floor(upper + slack), np.ceil(prediction)) + 0.0
        return lower, upper


@one_line
@dataclass(frozen=True)
class Calibration:
    """Sorted residuals (y - prediction) of rows no model had seen: of all rows, and of a cluster.

    An interval reaches from the lower to the upper residual quantile around a prediction, so it
    may be lopsided, as lengths of stay are. With n residuals the ranks are
    ``floor((n + 1) * a / 2)`` and ``ceil((n + 1) * (1 - a / 2))`` for coverage ``1 - a``, which is
    at least ``1 - a`` of exchangeable new rows (Vovk et al. 2005; Lei et al. 2018). A rank beyond
    the residuals takes the outermost one.

    Attributes
    ----------
    residuals : mapping of int to ndarray of float64
        Sorted; -1 is all rows, other keys are clusters with at least 100 residuals. Above 1,000
        they are thinned to evenly spaced order statistics.
    """

    residuals: Mapping[int, np.ndarray]

    @classmethod
    def fit(cls, residuals: np.ndarray, labels: np.ndarray) -> Calibration:
        """Calibrate on residuals, shape (n,), and the clusters of their rows, shape (n,)."""
        clusters, counts = np.unique(labels[labels != NOISE], return_counts=True)
        parts = {_ALL: _thinned(residuals)}
        for cluster in clusters[counts >= ENOUGH]:
            parts[int(cluster)] = _thinned(residuals[labels == cluster])
        return cls(parts)

    def bounds(
        self, prediction: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of each prediction, shape (n,) each; they enclose it.

        Parameters
        ----------
        prediction : ndarray of float64, shape (n,)
        labels : ndarray of int64, shape (n,)
        coverage : float
            Above 0 and below 1.
        """
        clusters, inverse = np.unique(labels, return_inverse=True)
        offsets = np.array(
            [_offsets(self.residuals.get(int(c), self.residuals[_ALL]), coverage) for c in clusters]
        ).reshape(-1, 2)
        return prediction + offsets[inverse, 0], prediction + offsets[inverse, 1]

    def renumbered(self, ids: Mapping[int, int]) -> Calibration:
        """The same residuals under other cluster ids."""
        return Calibration(renumbered_keys(self.residuals, ids))


def renumbered_keys(by_cluster: Mapping[int, Value], ids: Mapping[int, int]) -> dict[int, Value]:
    """The same values under other cluster ids; a key without a new one stays."""
    return {ids.get(cluster, cluster): value for cluster, value in by_cluster.items()}


def _offsets(residuals: np.ndarray, coverage: float) -> tuple[float, float]:
    n = len(residuals)
    tail = (1 - coverage) / 2
    # 1e-9: (n + 1) * (1 - tail) is often a whole number that floating point misses by a hair.
    low = int(np.floor((n + 1) * tail + 1e-9)) - 1
    high = int(np.ceil((n + 1) * (1 - tail) - 1e-9)) - 1
    lower, upper = residuals[max(low, 0)], residuals[min(high, n - 1)]
    return min(float(lower), 0.0), max(float(upper), 0.0)


def _thinned(residuals: np.ndarray) -> np.ndarray:
    ordered = np.sort(residuals)
    if len(ordered) <= _MOST:
        return ordered
    return ordered[np.round(np.linspace(0, len(ordered) - 1, _MOST)).astype(np.int64)]


@one_line
@dataclass(frozen=True)
class StepCalibration:
    """Sorted scaled residuals of forecasts over a horizon, step by step.

    A segment's quantile is shrunk towards that of all series by ``n / (n + 200)``, n being its
    series in the residuals: few series say little about a tail.

    Attributes
    ----------
    residuals : mapping of int to ndarray of float64, shape (horizon, n_kept)
        Sorted along the second axis; -1 is all series, other keys are segments.
    counts : mapping of int to int
        Series behind the residuals of each segment.
    """

    residuals: Mapping[int, np.ndarray]
    counts: Mapping[int, int]

    @classmethod
    def fit(
        cls,
        residuals: np.ndarray,
        steps: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        horizon: int,
    ) -> StepCalibration:
        """Calibrate on residuals of forecasts, shape (m,), their steps (from 1) and segments.

        Weights, shape (m,), let older residuals count less (Barber et al. 2023).
        """
        parts = {_ALL: _by_step(residuals, steps, weights, horizon)}
        counts = {}
        for cluster in np.unique(labels[labels != NOISE]):
            own = labels == cluster
            counts[int(cluster)] = int((own & (steps == 1)).sum())
            if counts[int(cluster)] >= _FEWEST_A_STEP:
                parts[int(cluster)] = _by_step(residuals[own], steps[own], weights[own], horizon)
        return cls(parts, {cluster: n for cluster, n in counts.items() if cluster in parts})

    def offsets(self, labels: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Distance of the lower and the upper bound from a forecast, shape (n, horizon) each.

        Parameters
        ----------
        labels : ndarray of int64, shape (n,)
        coverage : float
            Above 0 and below 1.
        """
        known, inverse = np.unique(labels, return_inverse=True)
        everyone = self._offsets_of(_ALL, coverage)
        table = []
        for label in known:
            n = self.counts.get(int(label), 0)
            own = self._offsets_of(int(label), coverage) if n else everyone
            share = n / (n + _SHRUNK_BY)
            table.append(share * own + (1 - share) * everyone)
        found = np.array(table).reshape(-1, *everyone.shape)[inverse]
        return found[:, :, 0], found[:, :, 1]

    def _offsets_of(self, cluster: int, coverage: float) -> np.ndarray:
        return np.array([_offsets(step, coverage) for step in self.residuals[cluster]])

    def renumbered(self, ids: Mapping[int, int]) -> StepCalibration:
        """The same residuals under other segment ids."""
        return StepCalibration(
            renumbered_keys(self.residuals, ids), renumbered_keys(self.counts, ids)
        )


def _by_step(
    residuals: np.ndarray, steps: np.ndarray, weights: np.ndarray, horizon: int
) -> np.ndarray:
    """Evenly spaced order statistics of each step; steps with few residuals ask their neighbours.

    The neighbours are as many as it takes to have 50 residuals.
    """
    counts = np.bincount(steps, minlength=horizon + 1)[1 : horizon + 1]
    n_kept = int(min(max(counts.max(), _FEWEST_A_STEP), _MOST_A_STEP))
    places = (np.arange(n_kept) + 0.5) / n_kept
    kept = np.empty((horizon, n_kept))
    for step in range(1, horizon + 1):
        reach = 0
        while reach < horizon and _within(counts, step, reach) < _FEWEST_A_STEP:
            reach += 1
        near = np.flatnonzero(np.abs(steps - step) <= reach)
        near = near[np.argsort(residuals[near], kind="stable")]
        passed = np.cumsum(weights[near])
        kept[step - 1] = residuals[near[np.searchsorted(passed, places * passed[-1])]]
    return kept


def _within(counts: np.ndarray, step: int, reach: int) -> int:
    """Residuals of the steps that are at most `reach` away."""
    return int(counts[max(step - 1 - reach, 0) : step + reach].sum())
