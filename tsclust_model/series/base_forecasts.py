"""Cheap forecasts of a series alone: a bank of exponential filters, Theta and the naive one.

They are what the models of `series.output_model` correct. Arrays have a series a row and
a period a column; an origin is the number of columns that are known.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tsclust_model._kernels import series as series_kernels
from tsclust_model._kernels.search_tree import in_parts

_ALPHAS = (0.02, 0.06, 0.12, 0.25, 0.5, 0.9)

_TRENDS = ((0.0, 0.0), (0.1, 0.9), (0.05, 0.98))  # beta and damping

_SEASONS = ((0.0, 0.0), (0.05, 0.5), (0.05, 0.9), (0.15, 0.7), (0.3, 1.0))  # gamma, first share

_MEMORY, _MOST_COUNTED = 0.97, 16.0

FILTERS = np.array(
    [(a, *trend, *season) for a, trend, season in product(_ALPHAS, _TRENDS, _SEASONS)]
).T.copy()
"""alpha, beta, phi, gamma and the share of the first season's pattern of each filter."""

THETA_ALPHAS = np.linspace(0.02, 0.98, 25)


def spans_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First column with a value and the one after the last, of each row, shape (n,) each.

    A row without a value has both at 0.
    """
    known = ~np.isnan(values)
    starts = known.argmax(axis=1)
    stops = values.shape[1] - known[:, ::-1].argmax(axis=1)
    stops[~known.any(axis=1)] = 0
    return starts, stops


def bank_forecasts(
    values: np.ndarray, origins: np.ndarray, season: int, horizon: int, on_logs: bool
) -> np.ndarray:
    """Forecasts of a bank of additive-season exponential filters.

    Every filter runs once over the series; at an origin the forecasts are averaged with weights
    ``SSE ** (-min(n, 16) / 2)``, where SSE are squared one-step errors with memory 0.97 and n is
    the number of periods after the first season, which only starts the filters.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
        NaN before a series begins and after it ends.
    origins : ndarray of int64, sorted
    season : int
        Periods in a season; 1 is none.
    horizon : int
    on_logs : bool
        Run the same filters on log(1 + y), too, whose forecasts are averaged as logarithms; not of
        a series with values below 0, which have none.

    Returns
    -------
    ndarray of float64, shape (n, n_origins, horizon)
        NaN where an origin is outside a series.
    """

    def run(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, out: np.ndarray) -> None:
        limits = (_MEMORY, _MOST_COUNTED)
        has_logs = on_logs & ~(np.fmin.reduce(values[rows], axis=1) < 0)
        for logs in (True, False):
            some = rows[has_logs == logs]
            if len(some):
                spans = (starts, stops, some, origins)
                series_kernels.bank(values, *spans, season, FILTERS, limits, logs, out)

    return _at_origins(values, origins, horizon, run)


def theta_forecasts(
    values: np.ndarray, origins: np.ndarray, season: int, horizon: int
) -> np.ndarray:
    """Forecasts of the Theta method (Assimakopoulos & Nikolopoulos 2000).

    Simple exponential smoothing with half the slope of the linear trend as drift (Hyndman & Billah
    2003), after a classical decomposition where the series is seasonal (90% test on the
    autocorrelation): multiplicative if it is positive, else additive.

    The parameters are those of `bank_forecasts`; so is the result.
    """

    def run(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, out: np.ndarray) -> None:
        series_kernels.theta(values, starts, stops, rows, origins, season, THETA_ALPHAS, out)

    return _at_origins(values, origins, horizon, run)


def _at_origins(values: np.ndarray, origins: np.ndarray, horizon: int, run: Any) -> np.ndarray:
    starts, stops = spans_of(values)
    out = np.full((len(values), len(origins), horizon), np.nan)
    in_parts(lambda rows: run(rows, starts, stops, out), np.arange(len(values)))
    return out


def seasonal_naive(
    values: np.ndarray, series: np.ndarray, origins: np.ndarray, steps: np.ndarray, season: int
) -> np.ndarray:
    """The newest known value of the same season, shape (m,); the last value where there is none.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
    series, origins, steps : ndarray of int64, shape (m,)
        Row of `values`, origin and step (from 1) of each forecast.
    season : int
    """
    column = origins - season + (steps - 1) % season
    found = np.where(column >= 0, values[series, np.maximum(column, 0)], np.nan)
    return np.where(np.isnan(found), values[series, origins - 1], found)
