"""What is known beside the values of series, and what it moves in their forecasts.

Three kinds: of the past (known up to the last value), of the future (planned, so that it is known
for the horizon as well; holidays are one that the model makes) and static (one value a series).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from tsclust_model.series.base_forecasts import bank_forecasts, seasonal_naive
from tsclust_model.series.panel import filled
from tsclust_model.shown import one_line

_RIDGE = 1e-9

# What covariates explain by chance counts so many times. On hospital_monthly two that are noise
# raise the folds' error of the bank by 0.9% with 1 and by 0.03% with 4, and one that moves a tenth
# of the periods lowers it by 7.7% and 6.1%.
_CHANCE = 4.0


@one_line
@dataclass(frozen=True)
class Covariates:
    """What is known beside the values of some series.

    Attributes
    ----------
    past : mapping of str to ndarray of float64, shape (n, n_periods)
    future : mapping of str to ndarray of float64, shape (n, n_periods + horizon)
    static : mapping of str to ndarray of float64, shape (n,)
        Numbers, then codes of categories; NaN is missing.
    n_categories : int
        How many of the static ones, the last, are codes.
    """

    past: Mapping[str, np.ndarray] = field(default_factory=dict)
    future: Mapping[str, np.ndarray] = field(default_factory=dict)
    static: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_categories: int = 0

    def take(self, rows: np.ndarray | slice) -> Covariates:
        """Those of some series."""
        past, future, static = (
            {name: found[rows] for name, found in kind.items()}
            for kind in (self.past, self.future, self.static)
        )
        return Covariates(past, future, static, self.n_categories)


class Effects:
    """What future covariates move in the values of series, from what was known at each origin.

    The slopes are those of a regression, series by series, of seasonal changes of the values on
    seasonal changes of the covariates, so that level, trend and season drop out. They are shrunk
    by how much they explain beyond chance (like positive-part James-Stein), often to 0.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
    future : mapping of str to ndarray of float64, shape (n, n_periods + horizon)
    origins : ndarray of int64, sorted
    season, horizon : int
    filters : ndarray of float64, shape (2, 90), or None
        The prior of the filters that forecast the values: what a covariate's past lets expect is
        what they would make of it.
    """

    def __init__(
        self,
        values: np.ndarray,
        future: Mapping[str, np.ndarray],
        origins: np.ndarray,
        season: int,
        horizon: int,
        filters: np.ndarray | None = None,
    ) -> None:
        self._season, self._origins = season, origins
        self._future = list(future.values())
        self._known = [filled(found[:, : values.shape[1]]) for found in self._future]
        self._slopes = slopes(values, self._known, origins, season)
        self._expected = [
            bank_forecasts(known, origins, season, horizon, False, filters) for known in self._known
        ]

    def of(
        self, series: np.ndarray, origins: np.ndarray, steps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        """Of forecasts, in units of the series: what bases have to add, and the features.

        Returns
        -------
        smooth : ndarray of float64, shape (m,)
            To a forecast that has smoothed the past: slope times what is planned beyond what the
            covariate's own past lets expect.
        naive : ndarray of float64, shape (m,)
            To the value of the season before: slope times the change since then.
        features : list of ndarray of float64, shape (m,)
            Of each covariate its value, its change since the season before, and its smooth effect.
        """
        place = np.searchsorted(self._origins, origins)
        smooth, naive = np.zeros((2, len(series)))
        features: list[np.ndarray] = []
        for i, (found, known) in enumerate(zip(self._future, self._known, strict=True)):
            planned, slope = found[series, origins + steps - 1], self._slopes[series, place, i]
            before = seasonal_naive(known, series, origins, steps, self._season)
            effect = slope * (planned - self._expected[i][series, place, steps - 1])
            smooth += np.nan_to_num(effect)
            naive += np.nan_to_num(slope * (planned - before))
            features += [planned, planned - before, effect]
        return smooth, naive, features


def slopes(
    values: np.ndarray, known: list[np.ndarray], origins: np.ndarray, season: int
) -> np.ndarray:
    """Slopes of the values on covariates, shape (n, n_origins, n_covariates); see `Effects`.

    Those of an origin are of the seasonal changes before it.
    """
    n, n_periods = values.shape
    k = len(known)
    if n_periods <= season:
        return np.zeros((n, len(origins), k))
    changes = [found[:, season:] - found[:, :-season] for found in (*known, values)]
    valid = np.isfinite(changes).all(axis=0)
    ones = np.where(valid, 1.0, 0.0)
    rows = [np.where(valid, found, 0.0) for found in changes] + [ones]
    at = np.maximum(origins - season, 0)

    def upto(found: np.ndarray) -> np.ndarray:
        sums = np.cumsum(found, axis=1)
        return np.where(at > 0, sums[:, np.maximum(at - 1, 0)], 0.0)

    moments = np.empty((n, len(at), k + 2, k + 2))
    for i, one in enumerate(rows):
        for j, other in enumerate(rows[: i + 1]):
            moments[:, :, i, j] = moments[:, :, j, i] = upto(one * other)
    count, sums = np.maximum(moments[:, :, -1, -1], 1.0), moments[:, :, :-1, -1]
    centred = sums[..., None] * sums[..., None, :] / count[..., None, None]
    moments = moments[:, :, :-1, :-1] - centred
    diagonal = np.einsum("...ii->...i", moments[:, :, :k, :k])
    diagonal += _RIDGE * diagonal + np.where(diagonal > 0, 0.0, 1.0)
    slope = np.linalg.solve(moments[:, :, :k, :k], moments[:, :, :k, k:])[..., 0]
    explained = (slope * moments[:, :, :k, k]).sum(axis=2)
    spare = count - k - 1
    left = np.maximum(moments[:, :, k, k] - explained, 0.0) / np.maximum(spare, 1.0)
    beyond = 1 - _CHANCE * k * left / np.where(explained > 0, explained, np.inf)
    shrunk = np.where((spare > 1) & (explained > 0), np.maximum(beyond, 0.0), 0.0)
    return np.asarray(slope * shrunk[..., None])
