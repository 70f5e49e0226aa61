"""Prediction intervals by split conformal prediction from out-of-fold residuals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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

_SYMMETRY = 0.75


def probabilities_of(coverage: float) -> tuple[float, float]:
    """The quantiles that bound a central interval: ``(1 - coverage) / 2`` and its complement."""
    return (1 - coverage) / 2, (1 + coverage) / 2


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
        return self.quantile(prediction, lower, 0.0), self.quantile(prediction, upper, 1.0)

    def quantile(
        self,
        prediction: np.ndarray,
        found: np.ndarray,
        probability: float,
        *,
        nearest: bool = False,
    ) -> np.ndarray:
        """A quantile within the support, on the same side of the prediction as it was.

        Whole quantiles below the median are rounded up and those above it down, as bounds are. With
        `nearest` they are the nearest whole numbers, which are better quantiles: those between are
        too narrow by a half on either side. The median is the prediction and stays.
        """
        found = self.clipped(found)
        if not self.whole or _side(probability) == 0:
            return found
        slack = _ROUNDING * np.maximum(1.0, np.abs(prediction))
        if _side(probability) < 0:
            inner = np.floor(found + 0.5) if nearest else np.ceil(found - slack)
            return np.minimum(inner, np.floor(prediction)) + 0.0
        inner = np.ceil(found - 0.5) if nearest else np.floor(found + slack)
        return np.maximum(inner, np.ceil(prediction)) + 0.0


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
        lower, upper = self.quantiles(prediction, labels, probabilities_of(coverage))
        return lower, upper

    def quantiles(
        self, prediction: np.ndarray, labels: np.ndarray, probabilities: Sequence[float]
    ) -> np.ndarray:
        """Quantiles of the outcome of each prediction, shape (n_probabilities, n).

        They never cross, that of 0.5 is the prediction, and the bounds of a coverage ``c`` are
        those of ``(1 - c) / 2`` and ``(1 + c) / 2``.

        Parameters
        ----------
        prediction : ndarray of float64, shape (n,)
        labels : ndarray of int64, shape (n,)
        probabilities : sequence of float
            Above 0 and below 1, in any order.
        """
        clusters, inverse = np.unique(labels, return_inverse=True)
        known = [self.residuals.get(int(c), self.residuals[_ALL]) for c in clusters]
        table = [[_offset(residuals, p) for p in probabilities] for residuals in known]
        offsets = np.array(table).reshape(len(clusters), len(probabilities))
        return np.asarray(prediction + offsets[inverse].T)

    def renumbered(self, ids: Mapping[int, int]) -> Calibration:
        """The same residuals under other cluster ids."""
        return Calibration(renumbered_keys(self.residuals, ids))


def renumbered_keys(by_cluster: Mapping[int, Value], ids: Mapping[int, int]) -> dict[int, Value]:
    """The same values under other cluster ids; a key without a new one stays."""
    return {ids.get(cluster, cluster): value for cluster, value in by_cluster.items()}


def _side(probability: float) -> int:
    """Where a quantile lies: -1 below the prediction, 0 on it, 1 above."""
    if abs(probability - 0.5) < _ROUNDING:
        return 0
    return -1 if probability < 0.5 else 1


def _offsets(residuals: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
    """Distance of quantiles from a prediction; sorted residuals (..., n) to (..., n_p).

    That of 0.5 is 0: a forecast is its own median, so that no quantile crosses it.
    """
    return np.stack([_offset(residuals, float(p)) for p in probabilities], axis=-1)


def _offset(residuals: np.ndarray, probability: float) -> np.ndarray:
    n, side = residuals.shape[-1], _side(probability)
    # 1e-9: (n + 1) * p is often a whole number that floating point misses by a hair.
    if side < 0:
        rank = math.floor((n + 1) * probability + _ROUNDING) - 1
        return np.minimum(residuals[..., max(rank, 0)], 0.0)
    if side > 0:
        rank = math.ceil((n + 1) * probability - _ROUNDING) - 1
        return np.maximum(residuals[..., min(rank, n - 1)], 0.0)
    return np.zeros(residuals.shape[:-1])


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
    symmetry : float
        Share (0 to 1) of a quantile's mean distance with its mirror image in what is served: that
        forecasts were too low on a few folds seldom goes on, so most of it is taken back.
    """

    residuals: Mapping[int, np.ndarray]
    counts: Mapping[int, int]
    symmetry: float = 0.0

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
        known = {cluster: n for cluster, n in counts.items() if cluster in parts}
        return cls(parts, known, _SYMMETRY)

    def offsets(self, labels: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
        """Distance of quantiles from a forecast, shape (n_probabilities, n, horizon).

        They never cross, and that of 0.5 is 0.

        Parameters
        ----------
        labels : ndarray of int64, shape (n,)
        probabilities : sequence of float
            Above 0 and below 1, in any order.
        """
        if self.symmetry:
            mirrored = [1 - p for p in probabilities]
            own, mirror = (self._offsets(labels, asked) for asked in (probabilities, mirrored))
            return own - self.symmetry / 2 * (own + mirror)
        return self._offsets(labels, probabilities)

    def _offsets(self, labels: np.ndarray, probabilities: Sequence[float]) -> np.ndarray:
        known, inverse = np.unique(labels, return_inverse=True)
        everyone = _offsets(self.residuals[_ALL], probabilities)
        table = []
        for label in known:
            n = self.counts.get(int(label), 0)
            own = _offsets(self.residuals[int(label)], probabilities) if n else everyone
            share = n / (n + _SHRUNK_BY)
            table.append(share * own + (1 - share) * everyone)
        found = np.array(table).reshape(len(known), *everyone.shape)[inverse]
        return np.moveaxis(found, -1, 0)

    def renumbered(self, ids: Mapping[int, int]) -> StepCalibration:
        """The same residuals under other segment ids."""
        return StepCalibration(
            renumbered_keys(self.residuals, ids),
            renumbered_keys(self.counts, ids),
            self.symmetry,
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
