"""From series to rows: what is known at an origin, for each step ahead of it.

Every value is scaled as ``(x - level) / scale``: level is the mean of the last season, scale the
mean absolute change over a season up to the origin, so that an absolute error of 1 on the scaled
target is a mean absolute scaled error (MASE, Hyndman & Koehler 2006) of 1. A series that has been
zero so far has no scale of its own and takes that of the panel (`least_scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from tsclust_model._kernels import series as series_kernels
from tsclust_model._kernels.search_tree import in_parts
from tsclust_model.series.base_forecasts import (
    RegressionPrior,
    bank_forecasts,
    regression_forecasts,
    seasonal_naive,
    spans_of,
    theta_forecasts,
)
from tsclust_model.series.covariates import Covariates, Effects
from tsclust_model.series.panel import row_means
from tsclust_model.series.widths import noise_signs
from tsclust_model.shown import one_line

SHAPE_FEATURES = ("seasonal_strength", "trend_strength", "log_variation")
"""What `shape_features` measures."""

_MOST_LAGS = 13

_LONGER_SEASONS = 3  # that are looked back at

_RANGES_BEYOND, _SCALES_BEYOND = 2.0, 10.0

_FLOOR_QUANTILE, _FLOOR_SHARE = 0.05, 0.1

NO_FLOOR = 1e-12
"""The floor of scales of models that were fitted before there was one of the panel."""


@one_line
@dataclass(frozen=True)
class Rows:
    """Forecasts to be made: a row for each series, origin and step.

    Attributes
    ----------
    X : ndarray of float64, shape (m, n_features)
    level, scale : ndarray of float64, shape (m,)
        Units of the series; ``(x - level) / scale`` is what the models see.
    spread : ndarray of float64, shape (m,)
        The scale of the last two seasons alone, as a share of `scale`: how wide intervals are. The
        least share, 0.05, where these seasons hold one value only.
    bank, theta, naive : ndarray of float64, shape (m,)
        The bases' forecasts, scaled.
    lowest, highest : ndarray of float64, shape (m,)
        The series' reach, scaled: its least and its largest known value, and twice the range
        between them and ten times its scale beyond.
    moved : ndarray of float64, shape (m,)
        The naive forecast with the effects of future covariates; the other bases have them.
    signs : ndarray of float64, shape (m, n_signs)
        See `tsclust_model.series.widths.noise_signs`.
    regression : ndarray of float64, shape (m,)
        Another base, scaled; the bank's where there is no prior, or the history is too short.
    """

    X: np.ndarray
    level: np.ndarray
    scale: np.ndarray
    spread: np.ndarray
    bank: np.ndarray
    theta: np.ndarray
    naive: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    moved: np.ndarray
    signs: np.ndarray
    regression: np.ndarray

    def corrected_base(self, longer: int) -> np.ndarray:
        """The mean of the bases that LightGBM corrects; see `corrected_bases`."""
        first, second = (getattr(self, name) for name in corrected_bases(longer))
        return np.asarray((first + second) / 2)

    def scaled(self, values: np.ndarray) -> np.ndarray:
        return (values - self.level) / self.scale

    def take(self, rows: slice) -> Rows:
        return Rows(*(getattr(self, item.name)[rows] for item in fields(Rows)))

    def within_reach(self, forecast: np.ndarray, case: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The last guard: a forecast that leaves its series' reach is replaced as a whole.

        Parameters
        ----------
        forecast : ndarray of float64, shape (m,)
            Scaled.
        case : ndarray of int64, shape (m,)
            Number of the series and origin of each row.

        Returns
        -------
        forecast : ndarray of float64, shape (m,)
            The seasonal naive one in the cases where a step was out of reach.
        replaced : ndarray of bool, shape (n_cases,)
        """
        outside = ~((self.lowest <= forecast) & (forecast <= self.highest))  # so is NaN
        replaced = np.bincount(case, outside) > 0
        return np.where(replaced[case], self.naive, forecast), replaced

    def clipped(self, bound: np.ndarray) -> np.ndarray:
        """Bounds of intervals, scaled, that stay within the series' reach."""
        return np.clip(bound, self.lowest, self.highest)


@one_line
@dataclass(frozen=True)
class Scaling:
    """How the series of a panel are measured beside their own values.

    Attributes
    ----------
    on_logs : bool
        See `tsclust_model.series.base_forecasts.bank_forecasts`.
    usual : float
        Scale of most series, as a share of their level: for those with a season or less, whose own
        few changes say little.
    least : float
        Of the series that have been zero up to an origin; see `least_scale`.
    longer : int
        Periods in a longer season, such as the week of hours; 0 is none.
    prior : RegressionPrior or None
        None has no regression.
    filters : ndarray of float64, shape (2, 90), or None
        See `tsclust_model.series.base_forecasts.filter_prior`.
    """

    on_logs: bool = True
    usual: float = 0.0
    least: float = NO_FLOOR
    longer: int = 0
    prior: RegressionPrior | None = None
    filters: np.ndarray | None = None


def corrected_bases(longer: int) -> tuple[str, str]:
    """The two columns of `Rows` whose errors LightGBM learns.

    With a longer season (0 is none) the seasonal naive forecast repeats the wrong day of the week.
    """
    return ("bank", "regression" if longer else "moved")


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
    scaling : Scaling
    covariates : Covariates, optional
    """

    def __init__(
        self,
        values: np.ndarray,
        ends: np.ndarray,
        origins: np.ndarray,
        season: int,
        horizon: int,
        scaling: Scaling,
        covariates: Covariates | None = None,
    ) -> None:
        self.values, self.ends, self.origins = values, ends, origins
        self.season, self.horizon = season, horizon
        self.covariates, self._scaling = covariates or Covariates(), scaling
        self._low, self._high = (
            least.accumulate(values, axis=1)[:, origins - 1] for least in (np.fmin, np.fmax)
        )
        self._starts = spans_of(values)[0]
        with np.errstate(over="ignore"):
            changes = np.nan_to_num(np.abs(np.diff(values, axis=1, prepend=np.nan)), posinf=np.inf)
            self._changes = np.cumsum(changes, axis=1)
        # The bank's own error a season ago is a feature, so it is asked there, too.
        ago = [season * np.arange(2), scaling.longer * np.arange(1, _LONGER_SEASONS + 1)]
        lags = np.concatenate(ago if scaling.longer else ago[:1])
        asked = np.unique(origins - lags[:, None])
        self._asked = asked[asked > 0]
        filters = (scaling.on_logs, scaling.filters)
        self._bank = bank_forecasts(values, self._asked, season, horizon, *filters)
        self._theta = theta_forecasts(values, origins, season, horizon)
        planned = self.covariates.future
        asked_of = (values, planned, origins, season, horizon, scaling.filters)
        self._effects = Effects(*asked_of) if planned else None
        self._regression = self._bank[:, np.searchsorted(self._asked, origins)]
        if scaling.prior is not None:
            found = regression_forecasts(values, origins, season, horizon, scaling.prior)
            self._regression = np.where(np.isnan(found), self._regression, found)

    def rows(self, series: np.ndarray, origins: np.ndarray, steps: np.ndarray) -> Rows:
        """The rows of these forecasts.

        Parameters
        ----------
        series, origins, steps : ndarray of int64, shape (m,)
            Row of `values`, one of `origins` inside that series, and step from 1.
        """
        pairs, pair = np.unique(series * (self.values.shape[1] + 1) + origins, return_inverse=True)
        who, when = np.divmod(pairs, self.values.shape[1] + 1)
        known, found = self._known(self.values, who, when, self._scaling.least)
        level, scale, recent = found[pair].T
        k, bases = steps - 1, np.searchsorted(self.origins, origins)
        bank = (self._bank[series, np.searchsorted(self._asked, origins), k] - level) / scale
        theta = (self._theta[series, bases, k] - level) / scale
        naive, older = (
            (seasonal_naive(self.values, series, at, steps, self.season) - level) / scale
            for at in (origins, np.maximum(origins - self.season, 1))
        )
        regression = (self._regression[series, bases, k] - level) / scale
        moved: np.ndarray = naive
        effects: list[np.ndarray] = []
        if self._effects is not None:
            smooth, change, effects = self._effects.of(series, origins, steps)
            bank, theta = bank + smooth / scale, theta + smooth / scale
            regression = regression + smooth / scale
            moved = naive + change / scale
            effects[2::3] = [effect / scale for effect in effects[2::3]]
        place = (self.ends[series] - (self.values.shape[1] - origins) + steps) % self.season
        missed, mean_missed = self._missed_a_season_ago(who, when)
        has_prior = self._scaling.prior is not None
        others = [regression, regression - bank, regression - naive] if has_prior else []
        if self._scaling.longer:
            value, *distances = self._longer_columns(series, origins, k)
            others += [(value - level) / scale, *(found / scale for found in distances)]
        columns = [
            *(steps, place, naive, older, bank, theta, bank - theta, bank - naive, theta - naive),
            missed[pair, k] / scale,
            mean_missed[pair] / scale,
            *self._covariate_columns(who, when, pair, series, origins, steps),
            *others,
            *effects,
            *(found[series] for found in self.covariates.static.values()),
        ]
        X = np.concatenate([known[pair], np.column_stack(columns)], axis=1)
        low, high = self._low[series, bases], self._high[series, bases]
        beyond = _RANGES_BEYOND * (high - low) + _SCALES_BEYOND * scale
        reach = ((low - beyond - level) / scale, (high + beyond - level) / scale)
        made, change = (bank, theta, naive), self._mean_change(who, when)[pair]
        signs = noise_signs(level, scale, steps, made, mean_missed[pair], change)
        return Rows(X, level, scale, recent / scale, *made, *reach, moved, signs, regression)

    def _known(
        self, values: np.ndarray, who: np.ndarray, when: np.ndarray, least: float = NO_FLOOR
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features of each pair that no step changes, and its level and scale."""
        lags = np.array(lags_of(self.season))
        spans = np.array(spans_averaged(self.season, values.shape[1]))
        known, units = np.empty((len(who), len(lags) + len(spans) + 5)), np.empty((len(who), 3))

        def work(rows: np.ndarray) -> None:
            found, unit = np.empty((len(rows), known.shape[1])), np.empty((len(rows), 3))
            pairs, scales = (who[rows], when[rows]), (self._scaling.usual, least)
            out = (unit, found)
            series_kernels.windows(
                values, self._starts, *pairs, self.season, *scales, lags, spans, *out
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

    def _mean_change(self, who: np.ndarray, when: np.ndarray) -> np.ndarray:
        """Mean absolute change from a period to the next, of two seasons before each origin."""
        last = when - 1
        first = np.maximum(last - 2 * self.season, self._starts[who])
        with np.errstate(invalid="ignore"):  # of values that are next to infinite
            total = self._changes[who, last] - self._changes[who, first]
        return np.asarray(total / np.maximum(last - first, 1))

    def _longer_columns(
        self, series: np.ndarray, origins: np.ndarray, k: np.ndarray
    ) -> list[np.ndarray]:
        """What the longer season says of each step, in units of the series.

        The value a longer season ago; its distance from the level then, of it alone, as the mean of
        up to three seasons, and of a season around it; what the bank missed there, once and as the
        mean, and what the seasonal naive forecast did.
        """
        values, season, longer = self.values, self.season, self._scaling.longer
        inner = np.arange(season)
        changes, bank_missed, naive_missed = [], [], []
        for ago in origins - longer * np.arange(1, _LONGER_SEASONS + 1)[:, None]:
            known = (ago - season >= self._starts[series]) & (ago + k < origins)
            at = np.where(known, ago, season)
            truth = np.where(known, values[series, np.minimum(at + k, values.shape[1] - 1)], np.nan)
            before = values[series[:, None], at[:, None] - season + inner]
            place = np.searchsorted(self._asked, at).clip(0, len(self._asked) - 1)
            changes.append(truth - before.mean(axis=1))
            bank_missed.append(truth - self._bank[series, place, k])
            naive_missed.append(truth - before[np.arange(len(k)), k % season])
            if len(changes) == 1:
                column = (at + k)[:, None] - season // 2 + inner
                inside = known & (column[:, -1] < origins)
                around = values[series[:, None], np.minimum(column, values.shape[1] - 1)]
                centre = np.where(inside, around.mean(axis=1), np.nan) - before.mean(axis=1)
                value = truth
        means = [
            row_means(np.column_stack(found)) for found in (changes, bank_missed, naive_missed)
        ]
        return [value, changes[0], means[0], centre, bank_missed[0], *means[1:]]

    def _covariate_columns(
        self,
        who: np.ndarray,
        when: np.ndarray,
        pair: np.ndarray,
        series: np.ndarray,
        origins: np.ndarray,
        steps: np.ndarray,
    ) -> list[np.ndarray]:
        """Of each past covariate its newest value and that of the season, in its own units."""
        columns = []
        for found in self.covariates.past.values():
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
    scale = _scales(values, season)
    known = np.isfinite(scale) & (np.abs(np.nan_to_num(values)).sum(axis=1) > 0)
    if not known.any():
        return 0.0
    return float(np.median(scale[known] / np.nanmean(np.abs(values[known]), axis=1)))


def least_scale(values: np.ndarray, season: int) -> float:
    """A tenth of the 5% quantile of the scales of a panel's series that have one.

    It is the floor for a series that has been zero so far: what it wakes up to is measured by its
    neighbours, and it is forecast to stay near zero until then.
    """
    scale = _scales(values, season)
    known = scale[np.isfinite(scale) & (scale > NO_FLOOR)]
    return float(_FLOOR_SHARE * np.quantile(known, _FLOOR_QUANTILE)) if known.size else NO_FLOOR


def _scales(values: np.ndarray, season: int) -> np.ndarray:
    """Mean absolute change over a season, shape (n,); NaN where a series has no more than one."""
    scale = np.full(len(values), np.nan)
    if values.shape[1] <= season:
        return scale
    changes = np.abs(values[:, season:] - values[:, :-season])
    known = np.isfinite(changes).any(axis=1)
    scale[known] = np.nanmean(changes[known], axis=1)
    return scale
