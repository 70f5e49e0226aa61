"""Cheap forecasts of a series alone: a bank of exponential filters, Theta and the naive one.

They are what the models of `series.output_model` correct. Arrays have a series a row and
a period a column; an origin is the number of columns that are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from tsclust_model._kernels import series as series_kernels
from tsclust_model._kernels.search_tree import in_parts
from tsclust_model.series.panel import row_means
from tsclust_model.shown import one_line

_ALPHAS = (0.02, 0.06, 0.12, 0.25, 0.5, 0.9)

_TRENDS = ((0.0, 0.0), (0.1, 0.9), (0.05, 0.98))  # beta and damping

_SEASONS = ((0.0, 0.0), (0.05, 0.5), (0.05, 0.9), (0.15, 0.7), (0.3, 1.0))  # gamma, first share

_LIMITS = (0.97, 16.0)  # memory of errors, most periods that count

_ROUNDS, _PANEL_SHARE, _LARGEST = 3, 0.9, 10.0

FILTERS = np.array(
    [(a, *trend, *season) for a, trend, season in product(_ALPHAS, _TRENDS, _SEASONS)]
).T.copy()
"""alpha, beta, phi, gamma and the share of the first season's pattern of each filter."""

_RIDGE = 1e-4

_COUNTED = (1.0, 20.0, 100.0)

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
    values: np.ndarray,
    origins: np.ndarray,
    season: int,
    horizon: int,
    on_logs: bool,
    prior: np.ndarray | None = None,
) -> np.ndarray:
    """Forecasts of a bank of additive-season exponential filters.

    Every filter runs once over the series; at an origin the forecasts are averaged with weights
    ``prior * SSE ** (-min(n, 16) / 2)``, where SSE are squared one-step errors with memory 0.97 and
    n is the number of periods after the first season, which only starts the filters.

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
    prior : ndarray of float64, shape (2, 90), optional
        See `mean_filter_weights`; None is the same for every filter.

    Returns
    -------
    ndarray of float64, shape (n, n_origins, horizon)
        NaN where an origin is outside a series.
    """
    start = np.ones((2, FILTERS.shape[1])) if prior is None else prior

    def run(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, out: np.ndarray) -> None:
        for some, logs in _by_logs(values, rows, on_logs):
            spans, settings = (starts, stops, some, origins), (season, FILTERS, _LIMITS)
            used = start[: 1 + logs]
            series_kernels.bank(values, *spans, *settings, used, logs, out)

    return _at_origins(values, origins, horizon, run)


def mean_filter_weights(values: np.ndarray, season: int, on_logs: bool) -> np.ndarray:
    """What a panel says of the filters of `bank_forecasts` before a series has shown anything.

    The mean weight of each filter over the series, counted 0.9, and 0.1 of equal weights: three
    rounds, in each of which a series' weights start from those of the round before.

    The parameters are those of `bank_forecasts`.

    Returns
    -------
    ndarray of float64, shape (2, 90)
        On the values and on their logarithms; the mean is 1.
    """
    starts, stops = spans_of(values)
    own = np.zeros((len(values), 2, FILTERS.shape[1]))

    def run(rows: np.ndarray) -> None:
        for some, logs in _by_logs(values, rows, on_logs):
            spans, settings = (starts, stops, some), (season, FILTERS, _LIMITS)
            series_kernels.filter_weights(values, *spans, *settings, logs, own)

    in_parts(run, np.flatnonzero(stops - starts > season))
    own = own[stops - starts > season]
    prior = np.ones(own.shape[1:])
    for _ in range(_ROUNDS if len(own) else 0):
        weights = own * prior
        weights /= weights.sum(axis=(1, 2), keepdims=True)
        prior = _PANEL_SHARE * prior.size * weights.mean(axis=0) + 1.0 - _PANEL_SHARE
    return prior


def filter_prior(
    values: np.ndarray, folds: np.ndarray, season: int, horizon: int, on_logs: bool
) -> np.ndarray | None:
    """`mean_filter_weights` of what is known at the first fold, if the folds are better with it.

    The mean scaled error of the series, at most 10 each, has to fall by more than its standard
    error; None is no better. (On M1, whose errors fall for most series and rise for a few, what
    LightGBM makes of it is worse.)
    """
    prior = mean_filter_weights(values[:, : folds[0]], season, on_logs)
    asked = (values, folds, season, horizon, on_logs)
    before, after = (
        np.minimum(_scaled_errors(values, folds, season, bank_forecasts(*asked, weights)), _LARGEST)
        for weights in (None, prior)
    )
    saved = before - after
    certain = len(saved) > 1 and saved.mean() > saved.std(ddof=1) / np.sqrt(len(saved))
    return prior if certain else None


def _by_logs(
    values: np.ndarray, rows: np.ndarray, on_logs: bool
) -> Iterator[tuple[np.ndarray, bool]]:
    """The rows whose filters run on logarithms, too, and the others."""
    has_logs = on_logs & ~(np.fmin.reduce(values[rows], axis=1) < 0)
    for logs in (True, False):
        some = rows[has_logs == logs]
        if len(some):
            yield some, logs


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


@one_line
@dataclass(frozen=True)
class RegressionPrior:
    """What a panel says of the regression of a series on its own lags.

    Attributes
    ----------
    lags : ndarray of int64, shape (n_lags,)
        Rising.
    moments : ndarray of float64, shape (n_lags + 2, n_lags + 2)
        Mean products of the lags, 1 and the value, over all series, whose values are centred and
        scaled; the lower triangle.
    counted : float
        Periods of a series that they count for.
    """

    lags: np.ndarray
    moments: np.ndarray
    counted: float

    @classmethod
    def fit(
        cls, values: np.ndarray, season: int, longer: int, horizon: int
    ) -> RegressionPrior | None:
        """The prior of a panel, shape (n, n_periods); None where no series has all lags.

        The periods it counts for are those that forecast best a horizon and two before the end.
        """
        lags = regression_lags(season, longer)
        moments = _pooled_moments(values, lags, season)
        if moments is None:
            return None
        origins = values.shape[1] - horizon * np.arange(2, 0, -1)
        origins = origins[origins > lags[-1]]
        tried = [cls(lags, moments, counted) for counted in _COUNTED]
        if not len(origins):
            return tried[1]
        asked = (values, origins, season, horizon)
        found = [regression_forecasts(*asked, prior) for prior in tried]
        scaled = [_scaled_errors(values, origins, season, forecasts) for forecasts in found]
        errors = [float(of_series.mean()) for of_series in scaled if len(of_series)]
        certain = len(errors) == len(tried) and np.isfinite(errors).all()
        return tried[int(np.argmin(errors))] if certain else tried[1]

    def to_dict(self) -> dict[str, Any]:
        """As JSON, which keeps every bit."""
        return {
            "lags": self.lags.tolist(),
            "moments": self.moments.tolist(),
            "counted": self.counted,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> RegressionPrior | None:
        """What `to_dict` gave; models of older builds have None."""
        if values is None:
            return None
        lags = np.array(values["lags"], dtype=np.int64)
        return cls(lags, np.array(values["moments"]), values["counted"])


def regression_lags(season: int, longer: int) -> np.ndarray:
    """Lags of the regression: the newest, those around a season, and around a longer one (0 is
    none)."""
    lags = {1, 2, 3} | ({season, season + 1} if season > 1 else set())
    if longer:
        lags |= {season - 1, 2 * season, 2 * season + 1, longer - 1, longer, longer + 1}
        lags |= {longer - season, longer + season, longer + season + 1}
    return np.array(sorted(lags), dtype=np.int64)


def regression_forecasts(
    values: np.ndarray, origins: np.ndarray, season: int, horizon: int, prior: RegressionPrior
) -> np.ndarray:
    """Forecasts of the regression of each series on its own lags, each step from those before it.

    The squares are least over what is known at the origin and the prior's periods, with a ridge of
    1e-4; values are centred on the mean of the last two seasons and divided by the mean absolute
    change over a season. A forecast goes no further than the range of the known values beyond them.

    The parameters are those of `bank_forecasts`; so is the result, which is NaN too where a series
    has no more values than the longest lag.
    """

    def run(rows: np.ndarray, starts: np.ndarray, stops: np.ndarray, out: np.ndarray) -> None:
        spans, facts = (starts, stops, rows, origins), (prior.lags, prior.moments)
        settings = (prior.counted, _RIDGE)
        series_kernels.regression(values, *spans, max(season, 1), *facts, settings, out)

    return _at_origins(values, origins, horizon, run)


def _pooled_moments(values: np.ndarray, lags: np.ndarray, season: int) -> np.ndarray | None:
    """Mean products over all series; None without a series that has all lags."""
    total = np.zeros((len(lags) + 2, len(lags) + 2))
    starts, stops = spans_of(values)
    for series, start, stop in zip(values, starts, stops, strict=True):
        known = series[start:stop]
        scale = np.abs(known[season:] - known[:-season]).mean() if len(known) > lags[-1] else 0.0
        if scale > 0:
            scaled = (known - known[-2 * season :].mean()) / scale
            columns = [scaled[lags[-1] - lag : len(known) - lag] for lag in (*lags, 0)]
            rows = np.array([*columns[:-1], np.ones(len(columns[0])), columns[-1]])
            total += rows @ rows.T
    n_rows = total[len(lags), len(lags)]
    return np.tril(total / n_rows) if n_rows else None


def _scaled_errors(
    values: np.ndarray, origins: np.ndarray, season: int, forecasts: np.ndarray
) -> np.ndarray:
    """Mean absolute errors of forecasts, shape (n, n_origins, horizon), over the mean change of a
    season; of the series where both are known."""
    ahead = origins[:, None] + np.arange(forecasts.shape[2])
    truth = values[:, np.minimum(ahead, values.shape[1] - 1)]
    missed = np.abs(np.where(ahead < values.shape[1], truth, np.nan) - forecasts)
    errors = row_means(missed.reshape(len(values), -1))
    changes = row_means(np.abs(values[:, season:] - values[:, :-season]))
    known = (changes > 0) & ~np.isnan(errors)
    return np.asarray(errors[known] / changes[known])


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
