"""Rows with known outcomes from a panel of series: a sample to learn from, and those of the folds.

A fold is an origin inside the training panel: what was known there is learned from, and the
horizon after it judges. Nothing is split at random.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property

import numpy as np

from tsclust_model.errors import DataValidationError
from tsclust_model.series.base_forecasts import RegressionPrior, filter_prior
from tsclust_model.series.ces import CesForecast, ces_forecasts
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.features import (
    Rows,
    Scaling,
    Windows,
    corrected_bases,
    least_scale,
    usual_scale,
)
from tsclust_model.series.panel import Panel
from tsclust_model.shown import one_line

_MOST_ROWS = 110_000

_CELLS_AT_ONCE = 4_000_000  # of forecasts: series x origins x horizon

_MOST_FOLDS, _MOST_ORIGINS = 3, 200

_AGING = 0.5  # weight of a fold against one a horizon later

_LARGEST_TARGET = 10.0


def rolling_origins(n_periods: int, horizon: int, season: int) -> tuple[int, ...]:
    """Origins inside a panel, rising: up to three, a horizon apart, or closer in a short panel.

    Raises
    ------
    DataValidationError
        The panel is too short for two.
    """
    first = season + 1 if season > 1 else 3
    apart = range(n_periods - horizon, first - 1, -horizon)
    if len(apart) >= 2:
        return tuple(sorted(apart[:_MOST_FOLDS]))
    last = max(n_periods - horizon, first)
    newest = n_periods - max(1, (n_periods - last) // 2)
    if not first <= last < newest < n_periods:
        raise DataValidationError(
            f"the longest series has {n_periods} periods, which is too short for a horizon of "
            f"{horizon} with {season} periods in a season; give {first + 2} or more, "
            "or another frequency"
        )
    return (last, newest)


@one_line
@dataclass(frozen=True)
class Examples:
    """Rows of one output with known outcomes: sampled ones for training, all of the folds' own.

    Attributes
    ----------
    rows : Rows
    truth : ndarray of float64, shape (m,)
        Scaled.
    series, origins, steps : ndarray of int64, shape (m,)
    n_train : int
        The first so many rows are for training.
    folds : tuple of int
        Origins.
    scaling : Scaling
    n_categories : int
        How many columns of the rows, the last, are codes of categories.
    ces : CesForecast or None
        Of the rows of the folds, scaled; None with a longer season or future covariates, of which
        it knows nothing.
    """

    rows: Rows
    truth: np.ndarray
    series: np.ndarray
    origins: np.ndarray
    steps: np.ndarray
    n_train: int
    folds: tuple[int, ...]
    scaling: Scaling
    n_categories: int = 0
    ces: CesForecast | None = None

    @cached_property
    def targets(self) -> dict[str, np.ndarray]:
        """What the models learn: the errors of the two bases, ten scales at most either way.

        A leaf is shared by many series: without a limit, one that has hardly any scale would carry
        its huge errors into all of them.
        """
        limits = (-_LARGEST_TARGET, _LARGEST_TARGET)
        names = corrected_bases(self.scaling.longer)
        return {name: np.clip(self.truth - getattr(self.rows, name), *limits) for name in names}

    @property
    def evaluated_rows(self) -> Rows:
        """Rows of all folds."""
        return self.rows.take(slice(self.n_train, None))

    def known_at(self, origin: int | None) -> np.ndarray:
        """Training rows whose outcome was known at an origin; None is all of them."""
        outcome = self.origins[: self.n_train] + self.steps[: self.n_train]
        return np.flatnonzero(outcome <= (np.inf if origin is None else origin))

    def weight_of(self, fold: int) -> float:
        """How much a fold counts: the newest is most like what comes, and has seen the most."""
        return float(_AGING ** ((self.folds[-1] - fold) / int(self.steps.max())))

    def evaluated_at(self, origin: int) -> np.ndarray:
        """Rows of a fold."""
        return self.n_train + np.flatnonzero(self.origins[self.n_train :] == origin)


def make_examples(
    panel: Panel,
    name: str,
    folds: tuple[int, ...],
    random_state: int,
    *,
    clip: bool = True,
    covariates: Covariates | None = None,
) -> Examples:
    """The rows of one output; those of training are a seeded sample.

    Without `clip` forecasts may be negative, whatever the values are.
    """
    values, covariates = panel.values[name], covariates or Covariates()
    season, horizon = panel.frequency.season, panel.horizon
    longer = longer_season(panel, folds[0])
    on_logs = clip and bool(np.nanmin(values) >= 0)
    scaling = Scaling(
        on_logs,
        usual_scale(values, season),
        least_scale(values, season),
        longer,
        RegressionPrior.fit(values[:, : folds[0]], season, longer, horizon),
        filter_prior(values, np.array(folds), season, horizon, on_logs),
    )
    first = _first_origin(folds[0], horizon, season)
    training = _sampled(values, first, horizon, random_state)
    judged = _with_outcomes(values, np.array(folds), horizon, at_least=1)
    series, origins, steps = (np.concatenate(both) for both in zip(training, judged, strict=True))
    chunk = max(1, _CELLS_AT_ONCE // (len(np.unique(origins)) * horizon))
    places, parts = [], []
    for start in range(0, len(values), chunk):
        some = slice(start, start + chunk)
        own = np.flatnonzero((series >= start) & (series < start + chunk))
        if len(own):
            windows = Windows(
                values[some],
                panel.ends[some],
                np.unique(origins[own]),
                season,
                horizon,
                scaling,
                covariates.take(some),
            )
            parts.append(windows.rows(series[own] - start, origins[own], steps[own]))
            places.append(own)
    rows = _in_order(parts, np.concatenate(places))
    truth = rows.scaled(values[series, origins + steps - 1])
    n_train = len(training[0])
    n_codes = covariates.n_categories
    ces = None
    if not longer and not covariates.future:
        ces = ces_forecasts(values, *judged, season, horizon)
        evaluated = rows.take(slice(n_train, None))
        ces = replace(ces, forecast=evaluated.scaled(ces.forecast))
    return Examples(rows, truth, series, origins, steps, n_train, folds, scaling, n_codes, ces)


def longer_season(panel: Panel, first_fold: int) -> int:
    """The season beyond the season, where the panel has two and the first fold learns from one;
    else 0."""
    longer, season = panel.frequency.longer_season, panel.frequency.season
    enough = panel.n_periods >= 2 * longer and first_fold >= longer + season + 2 * panel.horizon
    return longer if enough else 0


def _in_order(parts: list[Rows], places: np.ndarray) -> Rows:
    """Rows of several chunks as one, each where its place says."""
    order = np.argsort(places, kind="stable")
    columns = (
        np.concatenate([getattr(part, item.name) for part in parts])[order] for item in fields(Rows)
    )
    return Rows(*columns)


def _first_origin(first_fold: int, horizon: int, season: int) -> int:
    """The first origin that rows are made at: after two seasons, or earlier in a short panel."""
    least = season + 1 if season > 1 else 3
    return min(max(2 * season, 6), max(least, first_fold - horizon))


Forecasts = tuple[np.ndarray, np.ndarray, np.ndarray]


def _with_outcomes(
    values: np.ndarray, origins: np.ndarray, horizon: int, at_least: int
) -> Forecasts:
    """Series, origin and step of every forecast with a known outcome.

    A series counts at an origin when it has `at_least` values before it.
    """
    known = ~np.isnan(values)
    before = np.cumsum(known, axis=1)[:, origins - 1]
    who, at = np.nonzero((before >= at_least) & known[:, origins - 1])
    steps = np.arange(1, horizon + 1)
    columns = origins[at][:, None] + steps - 1
    inside = columns < values.shape[1]
    inside &= known[who[:, None], np.minimum(columns, values.shape[1] - 1)]
    pair, k = np.nonzero(inside)
    return who[pair], origins[at][pair], steps[k]


def _sampled(values: np.ndarray, first: int, horizon: int, random_state: int) -> Forecasts:
    """A seeded sample of all forecasts that could be judged, a part of the series at a time."""
    n_series, n_periods = values.shape
    last = n_periods - 1
    n_origins = min(n_periods - first, _MOST_ORIGINS)
    origins = np.unique(np.linspace(first, last, n_origins).astype(np.int64))
    rng = np.random.default_rng(random_state)
    share = min(1.0, _MOST_ROWS / max(n_series * len(origins) * horizon, 1))
    chunk = max(1, _CELLS_AT_ONCE // (len(origins) * horizon))
    parts = []
    for start in range(0, n_series, chunk):
        series, at, steps = _with_outcomes(
            values[start : start + chunk], origins, horizon, at_least=first
        )
        kept = rng.random(len(series)) < share
        parts.append((series[kept] + start, at[kept], steps[kept]))
    series, at, steps = (np.concatenate(column) for column in zip(*parts, strict=True))
    return series, at, steps
