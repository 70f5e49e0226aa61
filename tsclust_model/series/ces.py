"""Complex exponential smoothing: one more base forecast, where a series has years to show.

Svetunkov, Kourentzes & Ord (2022), "Complex exponential smoothing", Naval Research Logistics 69.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tsclust_model._kernels import ces as kernels
from tsclust_model._kernels.search_tree import in_parts
from tsclust_model.series.base_forecasts import spans_of
from tsclust_model.shown import one_line

_USUAL = (1.2, 1.0, 1.05, 1.0)  # coefficients of the level, then of the season

_SPREADS = {True: (0.1, 0.001, 0.03, 0.03), False: (0.1, 0.003, 0.03, 0.03)}  # on logarithms or not

_LIMITS = ((1.0, 0.9, 1.0, 0.9), (1.8, 1.1, 1.5, 1.1))  # within them it is stable

_BEYOND = 0.1  # ranges of the known values

_FIRST_SEASONS, _ENOUGH_SEASONS = 3.0, 4.0


def settings_of(on_logs: bool) -> np.ndarray:
    """Usual coefficients, the spread of their prior, and their limits, shape (4, 4)."""
    return np.array([_USUAL, _SPREADS[on_logs], *_LIMITS])


@one_line
@dataclass(frozen=True)
class CesForecast:
    """Forecasts by complex exponential smoothing, and how far each may count.

    Attributes
    ----------
    forecast : ndarray of float64, shape (m,)
        NaN where the trust is 0.
    trust : ndarray of float64, shape (m,)
        From 0, with 3 seasons or less to learn from, to 1, with 4 or more. 0 too where there is
        no season, or the series has stood still for two.
    """

    forecast: np.ndarray
    trust: np.ndarray

    def mixed(self, blend: np.ndarray, share: float) -> np.ndarray:
        """Other forecasts, shape (m,), that these replace by a share where they are trusted."""
        change = np.where(self.trust > 0, self.forecast - blend, 0.0)
        return np.asarray(blend + share * self.trust * change)


def ces_forecasts(
    values: np.ndarray,
    series: np.ndarray,
    origins: np.ndarray,
    steps: np.ndarray,
    season: int,
    horizon: int,
) -> CesForecast:
    """Forecasts of the "full" model, in units of the series.

    It is fitted on log(1 + y) where no value is below 0. Its coefficients have the least sum of
    squared one-step errors, with a normal prior around what is usual. A forecast goes no further
    than a tenth of the range of the known values beyond them.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
        NaN before a series begins and after it ends.
    series, origins, steps : ndarray of int64, shape (m,)
        Row of `values`, columns that are known, and step (from 1) of each forecast.
    season, horizon : int
    """
    pairs, pair = np.unique(series * (values.shape[1] + 1) + origins, return_inverse=True)
    who, when = np.divmod(pairs, values.shape[1] + 1)
    starts, _ = spans_of(values)
    seasons = (when - starts[who]) / season
    trust = np.clip((seasons - _FIRST_SEASONS) / (_ENOUGH_SEASONS - _FIRST_SEASONS), 0.0, 1.0)
    if season < 2:
        trust[:] = 0.0
    has_logs = ~(np.fmin.reduce(values, axis=1) < 0)[who]
    coefficients, out = np.empty((len(who), 4)), np.full((len(who), horizon), np.nan)

    def work(rows: np.ndarray) -> None:
        for on_logs in (True, False):
            at, settings = rows[has_logs[rows] == on_logs], settings_of(on_logs)
            spans = (values, starts, at, who, when)
            kernels.ces(*spans, on_logs, season, _BEYOND, settings, coefficients, out)

    in_parts(work, np.flatnonzero(trust > 0))
    trust[np.isnan(out).any(axis=1)] = 0.0
    return CesForecast(out[pair, steps - 1], trust[pair])
