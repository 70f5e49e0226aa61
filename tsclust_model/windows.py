"""From series to rows: what is known at an origin, for each step ahead of it.

Every value is scaled as ``(x - level) / scale``: level is the mean of the last season, scale the
mean absolute change over a season up to the origin, so that an absolute error of 1 on the scaled
target is a mean absolute scaled error (MASE, Hyndman & Koehler 2006) of 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tsclust_model import series_kernels
from tsclust_model.bases import bank_forecasts, seasonal_naive, spans_of, theta_forecasts
from tsclust_model.search import in_parts

SHAPE_FEATURES = ("seasonal_strength", "trend_strength", "log_variation")
"""What `shape_features` measures."""

_MOST_LAGS = 13


@dataclass(frozen=True)
class Rows:
    """Forecasts to be made: a row for each series, origin and step.

    Attributes
    ----------
    X : ndarray of float64, shape (m, n_features)
    level, scale : ndarray of float64, shape (m,)
        Units of the series; ``(x - level) / scale`` is what the models see.
    spread : ndarray of float64, shape (m,)
        The scale of the last two seasons alone, as a share of `scale`: how wide intervals are.
    bank, theta, naive : ndarray of float64, shape (m,)
        The bases' forecasts, scaled.
    """

    X: np.ndarray
    level: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    bank: np.ndarray
    theta: np.ndarray
    naive: np.ndarray

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return (values - self.level) / self.scale


class Windows:
    """Series whose windows can be read at some origins.

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
        NaN before a series begins and after it ends.
    ends : ndarray of int64, shape (n,)
        Number of the period of the last column, for the calendar.
    origins : ndarray of int64, sorted
        Columns that are known.
    season, horizon : int
    on_logs : bool
        See `tsclust_model.bases.bank_forecasts`.
    covariates : mapping of str to ndarray of float64, shape (n, n_periods)
        Known up to the origin; NaN is missing.
    usual_scale : float
        Of most series, as a share of their level: for those with a season or less, whose own few
        changes say little.
    """

    def __init__(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        origins: np.ndarray,
        season: int,
        horizon: int,
        on_logs: bool,
        covariates: Mapping[str, np.ndarray] | None = None,
        usual_scale: float = 0.0,
    ) -> None:
        self.values, self.ends, self.origins = values, ends, origins
        self.season, self.horizon = season, horizon
        self.covariates, self._usual_scale = covariates or {}, usual_scale
        self._starts = spans_of(values)[0]
        # The bank's own error a season ago is a feature, so it is asked there, too.
        asked = np.unique(np.concatenate([origins - season, origins]))
        self._asked = asked[asked > 0]
        self._bank = bank_forecasts(values, self._asked, season, horizon, on_logs)
        self._theta = theta_forecasts(values, origins, season, horizon)

    def rows(self, series: np.ndarray, origins: np.ndarray, steps: np.ndarray) -> Rows:
        """The rows of these forecasts.

        Parameters
        ----------
        series, origins, steps : ndarray of int64, shape (m,)
            Row of `values`, one of `origins` inside that series, and step from 1.
        """
        pairs, pair = np.unique(series * (self.values.shape[1] + 1) + origins, return_inverse=True)
        who, when = np.divmod(pairs, self.values.shape[1] + 1)
        known, units = self._known(self.values, who, when)
        level, scale, recent = units[pair].T
        k, bases = steps - 1, np.searchsorted(self.origins, origins)
        bank = (self._bank[series, np.searchsorted(self._asked, origins), k] - level) / scale
        theta = (self._theta[series, bases, k] - level) / scale
        naive, older = (
            (seasonal_naive(self.values, series, at, steps, self.season) - level) / scale
            for at in (origins, np.maximum(origins - self.season, 1))
        )
        place = (self.ends[series] - (self.values.shape[1] - origins) + steps) % self.season
        missed, mean_missed = self._missed_a_season_ago(who, when)
        columns = [
            *(steps, place, naive, older, bank, theta, bank - theta, bank - naive, theta - naive),
            missed[pair, k] / scale,
            mean_missed[pair] / scale,
            *self._covariate_columns(who, when, pair, series, origins, steps),
        ]
        X = np.concatenate([known[pair], np.column_stack(columns)], axis=1)
        return Rows(X, level, scale, recent / scale, bank, theta, naive)

    def _known(
        self, values: np.ndarray, who: np.ndarray, when: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features of each pair that no step changes, and its level and scale."""
        lags = np.array(lags_of(self.season))
        spans = np.array(spans_averaged(self.season, values.shape[1]))
        known, units = np.empty((len(who), len(lags) + len(spans) + 5)), np.empty((len(who), 3))

        def work(rows: np.ndarray) -> None:
            found, unit = np.empty((len(rows), known.shape[1])), np.empty((len(rows), 3))
            series_kernels.windows(
                *(values, self._starts, who[rows], when[rows], self.season, self._usual_scale),
                *(lags, spans, unit, found),
            )
            known[rows], units[rows] = found, unit

        in_parts(work, np.arange(len(who)))
        return known, units

    def _missed_a_season_ago(
        self, who: np.ndarray, when: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Errors of the bank's forecasts from a season before: of each step, and their mean.

        Steps beyond what was known at the origin are not used: they are NaN.
        """
        ago = when - self.season
        inside = ago > self._starts[who]
        missed = np.full((len(who), self.horizon), np.nan)
        forecast = self._bank[who, np.searchsorted(self._asked, np.maximum(ago, self._asked[0]))]
        for k in range(min(self.horizon, self.season)):
            truth = self.values[who, np.maximum(ago + k, 0)]
            missed[inside, k] = (truth - forecast[:, k])[inside]
        n_known = min(self.horizon, self.season)
        return missed, missed[:, :n_known].mean(axis=1)

    def _covariate_columns(
        self,
        who: np.ndarray,
        when: np.ndarray,
        pair: np.ndarray,
        series: np.ndarray,
        origins: np.ndarray,
        steps: np.ndarray,
    ) -> list[np.ndarray]:
        """Of each covariate its newest value and that of the season, in its own level and scale."""
        columns = []
        for found in self.covariates.values():
            _, units = self._known(found, who, when)
            level, scale, _ = units[pair].T
            last = found[series, origins - 1]
            same = seasonal_naive(found, series, origins, steps, self.season)
            columns += [(last - level) / scale, (same - level) / scale]
        return columns


def lags_of(season: int) -> list[int]:
    """Lags that are features: the newest ones, and those around a season."""
    near = range(1, max(6, min(season + 1, _MOST_LAGS)) + 1)
    return sorted({*near, season, season + 1} - {0})


def spans_averaged(season: int, n_periods: int) -> list[int]:
    """Spans whose means are features: three periods, half a season, two seasons, everything."""
    return [3, max(season // 2, 6), max(2 * season, 12), n_periods]


def shape_features(values: np.ndarray, season: int) -> np.ndarray:
    """What kind of series each is, whatever its level: the features that segments are found on.

    Strength of season and trend are ``max(0, 1 - var(rest) / var(rest + part))`` of a classical
    additive decomposition (Wang, Smith & Hyndman 2006); variation is log(1 + sd / |mean|).

    Parameters
    ----------
    values : ndarray of float64, shape (n, n_periods)
        NaN before a series begins and after it ends.
    season : int

    Returns
    -------
    ndarray of float64, shape (n, 3)
        See `SHAPE_FEATURES`; NaN for a series with less than two seasons (6 periods at least).
    """
    starts, stops = spans_of(values)
    out = np.full((len(values), len(SHAPE_FEATURES)), np.nan)
    in_parts(
        lambda rows: series_kernels.shapes(values, starts, stops, rows, season, out),
        np.arange(len(values)),
    )
    return out


def usual_scale(values: np.ndarray, season: int) -> float:
    """Median scale of the series with more than a season, as a share of their level."""
    if values.shape[1] <= season:
        return 0.0
    changes = np.abs(values[:, season:] - values[:, :-season])
    known = np.isfinite(changes).any(axis=1) & (np.abs(np.nan_to_num(values)).sum(axis=1) > 0)
    if not known.any():
        return 0.0
    scale = np.nanmean(changes[known], axis=1)
    return float(np.median(scale / np.nanmean(np.abs(values[known]), axis=1)))
