"""How wide the intervals of a series are, from what it has shown of itself.

Residuals pooled over a panel know the horizon's steps, but not which of two series is the noisier
one. So each forecast has a width of its own: the geometric mean of the spread of the series' last
two seasons and of a width that is linear in the logarithms of a few signs of noise, fitted to the
residuals of the folds by maximum likelihood of Laplace distributions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from tsclust_model.shown import one_line

_LEAST_SIGN = 0.05  # scales: below it, a difference says nothing

_RIDGE_CASES = 20.0  # a penalty as of so many cases without any sign

_LARGEST_RESIDUAL = 10.0

_SHORTEST_SEASON = 6


def noise_signs(
    level: np.ndarray,
    scale: np.ndarray,
    steps: np.ndarray,
    bases: Sequence[np.ndarray],
    missed: np.ndarray,
    change: np.ndarray,
) -> np.ndarray:
    """Logarithms of what goes with large errors, shape (m, 5).

    They are the root of the level (counts vary with it), the disagreement of the base forecasts,
    the step, the mean error of a season ago, and the mean change from a period to the next.

    Parameters
    ----------
    level, scale : ndarray of float64, shape (m,)
        Units of the series.
    steps : ndarray of int64, shape (m,)
        From 1.
    bases : three ndarrays of float64, shape (m,)
        Base forecasts, scaled.
    missed, change : ndarray of float64, shape (m,)
        Units of the series; NaN is unknown and counts as a scale.
    """
    one, two, three = bases
    apart = np.abs(one - two) + np.abs(one - three) + np.abs(two - three)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.column_stack(
            [
                0.5 * np.log(np.abs(level) / scale + 1.0) - 0.5 * np.log(scale),
                np.log(apart + _LEAST_SIGN),
                np.log(steps),
                _log_of(missed / scale),
                _log_of(change / scale),
            ]
        )


def _log_of(sign: np.ndarray) -> np.ndarray:
    return np.log(np.abs(np.where(np.isfinite(sign), sign, 1.0)) + _LEAST_SIGN)


def stands_still(values: np.ndarray, season: int) -> np.ndarray:
    """Which right-aligned series, shape (n, T), had one value only for two seasons; shape (n,).

    A season counts as 6 periods at least.
    """
    span = 2 * max(season, _SHORTEST_SEASON)
    if values.shape[1] < span:
        return np.zeros(len(values), dtype=bool)
    return np.asarray((values[:, -span:] == values[:, -1:]).all(axis=1))


def ends_beyond(values: np.ndarray, season: int) -> np.ndarray:
    """Which right-aligned series end on a value farther from all others than their range.

    Shape (n,); none with less than a season before it, or whose others are all the same.
    """
    before, last = values[:, :-1], values[:, -1]
    known = (~np.isnan(before)).sum(axis=1) >= max(season, _SHORTEST_SEASON)
    low, high = (least.reduce(before, axis=1, initial=np.nan) for least in (np.fmin, np.fmax))
    with np.errstate(over="ignore", invalid="ignore"):
        apart = np.maximum(low - last, last - high)
        return np.asarray(known & (high > low) & (apart > high - low))


@one_line
@dataclass(frozen=True)
class Widths:
    """Widths of forecasts by their signs of noise.

    Attributes
    ----------
    weights : tuple of float
        Of `noise_signs`; none leaves the spread alone, as before there were widths.
    low, high : float
        Limits of the weighted sum, as on the folds.
    """

    weights: tuple[float, ...] = ()
    low: float = 0.0
    high: float = 0.0

    @classmethod
    def fit(
        cls, signs: np.ndarray, residuals: np.ndarray, weights: np.ndarray, parts: np.ndarray
    ) -> Widths:
        """Fit to residuals of folds, shape (m,), at most ten scales each.

        A fold may be hard or easy for all series: residuals are compared with the mean of their
        fold, and signs with theirs. Few forecasts say little: the penalty on the weights falls with
        their number.

        Parameters
        ----------
        signs : ndarray of float64, shape (m, n_signs)
        residuals, weights : ndarray of float64, shape (m,)
        parts : ndarray of int64, shape (m,)
            Folds.
        """
        X, missed = signs.copy(), np.minimum(np.abs(residuals), _LARGEST_RESIDUAL)
        for part in np.unique(parts):
            rows, own = parts == part, weights[parts == part]
            X[rows] -= np.average(X[rows], axis=0, weights=own)
            missed[rows] /= np.average(missed[rows], weights=own) or 1.0
        counts = weights / weights.sum()
        cases = np.square(weights.sum()) / np.square(weights).sum() / len(np.unique(signs[:, 2]))
        ridge = _RIDGE_CASES / cases

        def loss(beta: np.ndarray) -> tuple[float, np.ndarray]:
            logs = X @ beta
            ratios = missed * np.exp(np.minimum(-logs, 60.0))
            slope = X.T @ (counts * (1.0 - ratios)) + ridge * beta
            return float(counts @ (ratios + logs) + ridge * (beta @ beta) / 2), slope

        found = minimize(loss, np.zeros(X.shape[1]), jac=True, method="L-BFGS-B").x
        sums = _weighted(signs, found)
        return cls(tuple(map(float, found)), float(sums.min()), float(sums.max()))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Widths:
        """The widths of a state; of an older one, without any, the spread alone."""
        return cls(**{**values, "weights": tuple(values.get("weights", ()))})

    def of(self, signs: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Width of each forecast in scales, up to a factor of all; shape (m,)."""
        if not self.weights:
            return spread
        sums = np.clip(_weighted(signs, self.weights), self.low, self.high)
        return np.sqrt(spread) * np.exp(0.5 * sums)


def _weighted(signs: np.ndarray, weights: Sequence[float] | np.ndarray) -> np.ndarray:
    """The weighted sum of each row, sign by sign: a matrix product would depend on other rows."""
    total = np.zeros(len(signs))
    for sign, weight in zip(signs.T, weights, strict=True):
        total += weight * sign
    return total
