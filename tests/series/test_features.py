"""Windows against plain numpy, one row at a time, from their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.series.base_forecasts import (
    RegressionPrior,
    bank_forecasts,
    regression_forecasts,
    theta_forecasts,
)
from tsclust_model.series.covariates import Covariates
from tsclust_model.series.features import (
    SHAPE_FEATURES,
    Scaling,
    Windows,
    lags_of,
    shape_features,
    spans_averaged,
    usual_scale,
)

HORIZON, PERIODS = 5, 40


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    rng = np.random.default_rng(1)
    t = np.arange(PERIODS)
    found = 50 + 10 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 5, (4, PERIODS))
    found[1, :20] = np.nan  # begins late
    found[2, 33:] = np.nan  # ends early
    return found


def row_of_one(
    y: np.ndarray, season: int, step: int, place: int, usual: float, n_periods: int
) -> tuple[list[float], float, float, float]:
    """Features, level, scale and spread of one series that is known up to its last value."""
    n = len(y)
    span = season if season > 1 else 3
    level = y[-span:].mean()
    lag = season if n > season else 1
    changes = np.abs(y[lag:] - y[:-lag])
    scale = max(changes.mean() if len(changes) else 0.0, 1e-3 * abs(level), 1e-12)
    recent = changes[-2 * lag :].mean() if len(changes) else 0.0
    if n <= season:
        scale = recent = max(scale, usual * abs(level))
    spread = max(recent, 0.05 * scale, usual * abs(level) if n < 2 * season else 0.0)

    def scaled(x):
        return (x - level) / scale

    features = [scaled(y[-k]) if k <= n else np.nan for k in lags_of(season)]
    features += [scaled(y[-k:].mean()) for k in spans_averaged(season, n_periods)]
    two = y[-2 * span :]
    slope = np.polyfit(np.arange(len(two)), two, 1)[0] if len(two) > 1 else 0.0
    features += [two.std() / scale, slope * span / scale, np.log1p(abs(level))]
    features += [scale / (abs(level) + 1), n]

    def naive(known):
        column = len(known) - season + (step - 1) % season
        return known[column] if column >= 0 else known[-1]

    def bank(known):
        return bank_forecasts(known.reshape(1, -1), np.array([len(known)]), season, HORIZON, True)[
            0, 0
        ]

    own = scaled(bank(y)[step - 1])
    theta = theta_forecasts(y.reshape(1, -1), np.array([n]), season, HORIZON)[0, 0]
    theta, last = scaled(theta[step - 1]), scaled(naive(y))
    older = scaled(naive(y[: n - season]) if n > season else y[column_before(n, season, step)])
    missed, mean_missed = np.nan, np.nan
    if n > season:
        known = min(HORIZON, season)
        errors = y[n - season : n - season + known] - bank(y[: n - season])[:known]
        missed = errors[step - 1] / scale if step <= known else np.nan
        mean_missed = errors.mean() / scale
    features += [step, place, last, older, own, theta, own - theta, own - last, theta - last]
    return [*features, missed, mean_missed], level, scale, spread / scale


def column_before(n: int, season: int, step: int) -> int:
    raise AssertionError("the windows below are longer than a season")


@pytest.mark.parametrize(
    ("series", "origin", "step"), [(0, 40, 1), (0, 25, 5), (1, 40, 3), (2, 33, 2), (3, 14, 4)]
)
def test_a_row_says_what_is_known_at_its_origin(values, series, origin, step):
    ends = np.full(4, 475)
    windows = Windows(values, ends, np.array([14, 25, 33, 40]), 12, HORIZON, Scaling(usual=0.2))
    rows = windows.rows(*(np.array([x]) for x in (series, origin, step)))
    known = values[series, :origin]
    place = (475 - (PERIODS - origin) + step) % 12
    expected = row_of_one(known[~np.isnan(known)], 12, step, place, 0.2, PERIODS)
    np.testing.assert_allclose(rows.X[0], expected[0], rtol=1e-9, atol=1e-9)
    assert rows.level[0] == pytest.approx(expected[1])
    assert rows.scale[0] == pytest.approx(expected[2])
    assert rows.spread[0] == pytest.approx(expected[3])


def test_rows_do_not_depend_on_the_company_they_are_in(values):
    ends, origins = np.full(4, 475), np.array([14, 25, 33, 40])
    windows = Windows(values, ends, origins, 12, HORIZON, Scaling())
    who, when = np.array([0, 3, 1, 0, 2]), np.array([40, 14, 33, 25, 25])
    steps = np.array([1, 2, 5, 3, 4])
    together = windows.rows(who, when, steps)
    for i in range(len(who)):
        alone = windows.rows(who[[i]], when[[i]], steps[[i]])
        np.testing.assert_array_equal(alone.X[0], together.X[i])


def test_a_window_never_looks_past_its_origin(values):
    ends, at = np.full(4, 475), np.array([25])
    changed = values.copy()
    changed[:, 25:] += 1000
    args = (np.array([0, 3]), np.array([25, 25]), np.array([1, 5]))
    before = Windows(values, ends, at, 12, HORIZON, Scaling()).rows(*args)
    after = Windows(changed, ends, at, 12, HORIZON, Scaling()).rows(*args)
    np.testing.assert_array_equal(before.X, after.X)


def test_covariates_are_their_newest_value_and_that_of_the_season(values):
    covariate = np.tile(np.arange(PERIODS, dtype=float), (4, 1))
    windows = Windows(
        values,
        np.full(4, 475),
        np.array([36]),
        12,
        HORIZON,
        Scaling(),
        Covariates({"beds": covariate}),
    )
    rows = windows.rows(np.array([0]), np.array([36]), np.array([2]))
    level, scale = covariate[0, 24:36].mean(), 12.0
    expected = [(35 - level) / scale, (25 - level) / scale]
    np.testing.assert_allclose(rows.X[0, -2:], expected)


@pytest.fixture(scope="module")
def weekly() -> tuple[np.ndarray, Scaling]:
    """Two series with seasons of 4 and 20, one of which begins late, and their scaling."""
    rng, t = np.random.default_rng(3), np.arange(90)
    found = 50 + 9 * (t % 20 > 14) + 4 * np.sin(np.pi * t / 2) + rng.normal(0, 1, (2, 90))
    found[1, :53] = np.nan
    return found, Scaling(longer=20, prior=RegressionPrior.fit(found[:, :70], 4, 20, HORIZON))


def test_a_longer_season_shows_what_came_then_and_what_the_bases_missed(weekly):
    values, scaling = weekly
    windows = Windows(values, np.array([89, 89]), np.array([75]), 4, HORIZON, scaling)
    step = 3
    rows = windows.rows(np.array([0, 1]), np.array([75, 75]), np.array([step, step]))
    y, scale = values[0], rows.scale[0]

    def bank(origin):
        return bank_forecasts(values[:1], np.array([origin]), 4, HORIZON, True)[0, 0, step - 1]

    agos = [55, 35, 15]
    truth = np.array([y[ago + step - 1] for ago in agos])
    changes = truth - [y[ago - 4 : ago].mean() for ago in agos]
    of_bank = truth - [bank(ago) for ago in agos]
    of_naive = truth - [y[ago - 4 + step - 1] for ago in agos]
    around = y[55 : 55 + 4].mean() - y[51:55].mean()  # a season around 55 + 2
    expected = [changes[0], changes.mean(), around, of_bank[0], of_bank.mean(), of_naive.mean()]
    np.testing.assert_allclose(rows.X[0, -6:], np.array(expected) / scale)
    assert rows.X[0, -7] == pytest.approx((truth[0] - rows.level[0]) / scale)
    np.testing.assert_allclose(
        rows.X[0, -10:-7],
        rows.regression[0] - [0.0, rows.bank[0], rows.naive[0]],
    )
    known = regression_forecasts(values[:1, :75], np.array([75]), 4, HORIZON, scaling.prior)
    assert rows.regression[0] == pytest.approx((known[0, 0, step - 1] - rows.level[0]) / scale)
    assert np.isnan(rows.X[1, -7:]).all()  # it is 22 periods old: no season before the longer one
    assert rows.regression[1] == rows.bank[1]  # nor all the lags


def test_a_longer_season_never_looks_past_its_origin(weekly):
    values, scaling = weekly
    changed = values.copy()
    changed[:, 75:] += 1000
    args = (np.array([0, 0]), np.array([75, 75]), np.array([1, HORIZON]))
    before, after = (
        Windows(found, np.array([89, 89]), np.array([75]), 4, HORIZON, scaling).rows(*args)
        for found in (values, changed)
    )
    np.testing.assert_array_equal(before.X, after.X)
    np.testing.assert_array_equal(before.regression, after.regression)


@pytest.mark.parametrize("season", [1, 4, 7, 12, 24, 52])
def test_lags_hold_the_newest_values_and_a_season(season):
    lags = lags_of(season)
    assert lags == sorted(set(lags))
    assert {1, 2, 3, season, season + 1} <= set(lags)
    assert len(lags) <= 15


def test_a_strong_season_a_trend_and_noise_are_told_apart():
    t, rng = np.arange(60), np.random.default_rng(0)
    noise = rng.normal(0, 1, 60)
    seasonal = 100 + 20 * np.sin(2 * np.pi * t / 12) + noise
    trending = 100 + 3 * t + noise
    found = shape_features(np.array([seasonal, trending, 100 + noise]), 12)
    assert found.shape == (3, len(SHAPE_FEATURES))
    assert found[0, 0] > 0.95
    assert found[1, 1] > 0.95
    assert (found[2, :2] < 0.6).all()
    np.testing.assert_allclose(
        found[:, 2],
        [np.log1p(y.std() / y.mean()) for y in (seasonal, trending, 100 + noise)],
    )


def test_series_without_two_seasons_have_no_shape():
    y = np.full((3, 30), 1.0)
    y[1, :7] = np.nan
    y[2] = np.nan
    found = shape_features(y, 12)
    assert found[0].tolist() == [0.0, 0.0, 0.0]  # constant: nothing varies
    assert np.isnan(found[1:]).all()


def test_the_usual_scale_is_that_of_the_median_series():
    t = np.arange(24.0)
    y = np.array([10 + 0 * t, 10 + t / 12, np.where(t < 12, 5, 15), np.full(24, np.nan)])
    expected = 1 / y[1].mean()  # changes by 0, 1 and 10 over a season
    assert usual_scale(y, 12) == pytest.approx(expected)
    assert usual_scale(y[:, :12], 12) == 0.0


def test_intervals_of_a_ward_that_was_closed_for_two_seasons_collapse():
    y = np.where(np.arange(72) < 48, 50.0 + 10 * np.sin(np.arange(72)), 0.0)
    almost = np.where(np.arange(72) == 71, 1.0, y)
    spreads = [
        Windows(found[None], np.array([72]), np.array([72]), 12, 1, Scaling())
        .rows(np.array([0]), np.array([72]), np.array([1]))
        .spread[0]
        for found in (y, almost)
    ]
    assert spreads[0] == pytest.approx(0.05)  # the least share of the scale
    assert spreads[1] > 0.5
