"""The bases of series against plain numpy, written from their definitions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tsclust_model.series.base_forecasts import (
    FILTERS,
    THETA_ALPHAS,
    RegressionPrior,
    bank_forecasts,
    filter_prior,
    mean_filter_weights,
    regression_forecasts,
    regression_lags,
    seasonal_naive,
    spans_of,
    theta_forecasts,
)

HORIZON = 9


def series(n_periods: int, season: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(n_periods)
    pattern = 20 * np.sin(2 * np.pi * t / max(season, 2) + rng.uniform(0, 6))
    return np.maximum(60 + 0.3 * t + pattern + rng.normal(0, 8, n_periods), 0.0)


def filters_of_one(y: np.ndarray, season: int, on_logs: bool) -> tuple[np.ndarray, np.ndarray]:
    """Forecasts and weights of every filter, as a loop over the periods of one series."""
    scales = [y, np.log1p(y)] if on_logs else [y]
    found, errors = [], []
    for scale, z in enumerate(scales):
        for alpha, beta, phi, gamma, share in FILTERS.T:
            level, trend, error = z[:season].mean(), 0.0, 0.0
            pattern = np.zeros(season)
            if len(z) >= season:
                pattern = (z[:season] - level) * share
            for t, value in enumerate(z):
                ahead = level + phi * trend
                miss = value - ahead - pattern[t % season]
                unit = 1 + y[t] if scale else 1.0
                error = 0.97 * error + (t >= season) * (unit * miss) ** 2
                level, trend = ahead + alpha * miss, phi * trend + beta * alpha * miss
                pattern[t % season] += gamma * (1 - alpha) * miss
            steps = np.arange(1, HORIZON + 1)
            damped = np.cumsum(phi**steps)
            found.append(level + damped * trend + pattern[(len(z) + steps - 1) % season])
            errors.append(error)
    forecasts, losses = np.array(found), np.array(errors)
    losses = losses + losses.mean() * 1e-9 + 1e-300
    return forecasts, (losses.min() / losses) ** (min(max(len(y) - season, 0), 16) / 2)


def bank_of_one(
    y: np.ndarray, season: int, on_logs: bool, prior: np.ndarray | float = 1.0
) -> np.ndarray:
    forecasts, weights = filters_of_one(y, season, on_logs)
    n = FILTERS.shape[1]
    weights = weights * (np.ones((2, n)) * prior)[: 1 + on_logs].ravel()
    total = weights[:n] @ forecasts[:n]
    if on_logs:
        total = total + weights[n:].sum() * np.expm1(
            weights[n:] @ forecasts[n:] / weights[n:].sum()
        )
    return total / weights.sum()


def theta_of_one(y: np.ndarray, season: int) -> np.ndarray:
    """The classic Theta of one series."""
    n, ratios = len(y), y.min() > 0
    pattern = np.full(season, 1.0 if ratios else 0.0)
    centred = y - y.mean()
    if season > 1 and n >= 2 * season and centred.any():
        r = np.array([centred[k:] @ centred[: n - k] for k in range(1, season + 1)])
        r = r / (centred @ centred)
        if abs(r[-1]) > 1.645 * np.sqrt((1 + 2 * (r[:-1] ** 2).sum()) / n):
            weights = np.ones(season + 1 - season % 2) / season
            if season % 2 == 0:
                weights[[0, -1]] /= 2
            average = np.convolve(y, weights, "valid")
            half = season // 2
            inner = y[half : half + len(average)]
            rest = inner / average if ratios else inner - average
            places = (np.arange(len(average)) + half) % season
            pattern = np.array([rest[places == place].mean() for place in range(season)])
            pattern = pattern / pattern.mean() if ratios else pattern - pattern.mean()
    at = pattern[np.arange(n) % season]
    z = y / at if ratios else y - at
    slope = np.polyfit(np.arange(n), z, 1)[0] if n > max(season, 5) else 0.0
    best = (np.inf, 0.0, 0.0)
    for alpha in THETA_ALPHAS:
        level, squares = z[0], 0.0
        for value in z[1:]:
            squares += (value - level) ** 2
            level += alpha * (value - level)
        best = min(best, (squares, alpha, level), key=lambda found: found[0])
    _, alpha, level = best
    k = np.arange(HORIZON)
    ahead = level + slope / 2 * (k + (1 - (1 - alpha) ** n) / alpha)
    future = pattern[(n + k) % season]
    return ahead * future if ratios else ahead + future


def regression_of_one(y: np.ndarray, season: int, prior: RegressionPrior) -> np.ndarray:
    """Least squares with the prior and the ridge as further rows of the table."""
    lags, n_lags = prior.lags, len(prior.lags)
    level, scale = y[-2 * season :].mean(), np.abs(y[season:] - y[:-season]).mean()
    z = (y - level) / scale
    rows = [[*z[t - lags], 1.0, z[t]] for t in range(lags[-1], len(z))]
    moments = np.array(rows).T @ rows
    moments += prior.counted * (np.tril(prior.moments) + np.tril(prior.moments, -1).T)
    A, b = moments[:-1, :-1].copy(), moments[:-1, -1]
    ridge = 1e-4 * np.diag(A)[:n_lags].mean()
    weights = np.linalg.solve(A + np.diag([ridge] * n_lags + [1e-9]), b)
    for _ in range(HORIZON):
        z = np.append(z, np.append(z[len(z) - lags], 1.0) @ weights)
        reach = (y.min() - np.ptp(y) - level) / scale, (y.max() + np.ptp(y) - level) / scale
        z[-1] = np.clip(z[-1], *reach)
    return level + scale * z[-HORIZON:]


def prior_of(season: int, longer: int = 0) -> RegressionPrior:
    panel = np.array([series(90, season, seed) for seed in range(8)])
    found = RegressionPrior.fit(panel, season, longer, HORIZON)
    assert found is not None
    return found


@pytest.mark.parametrize(("season", "longer"), [(12, 0), (1, 0), (4, 20), (7, 0)])
def test_the_regression_is_least_squares_with_the_panel_as_further_rows(season, longer):
    prior = prior_of(season, longer)
    y = np.array([series(50, season, seed) for seed in range(3)]) - 30.0
    found = regression_forecasts(y, np.array([50]), season, HORIZON, prior)[:, 0]
    expected = np.array([regression_of_one(row, season, prior) for row in y])
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-7)


def test_the_prior_is_the_mean_of_products_over_the_series_and_survives_json():
    panel = np.array([series(40, 4, seed) for seed in range(5)])
    panel[0, :10], panel[1, :38] = np.nan, np.nan  # the second is too short to count
    panel[2] = 7.0  # and this one never changes
    prior = RegressionPrior.fit(panel, 4, 0, 4)
    rows = []
    for y in (panel[0, 10:], panel[3], panel[4]):
        z = (y - y[-8:].mean()) / np.abs(y[4:] - y[:-4]).mean()
        rows += [[*z[t - prior.lags], 1.0, z[t]] for t in range(5, len(z))]
    products = np.array(rows).T @ np.array(rows) / len(rows)
    np.testing.assert_allclose(prior.moments, np.tril(products), rtol=1e-12)
    again = RegressionPrior.from_dict(json.loads(json.dumps(prior.to_dict())))
    np.testing.assert_array_equal(again.moments, prior.moments)
    assert (again.lags.tolist(), again.counted) == ([1, 2, 3, 4, 5], prior.counted)
    assert RegressionPrior.fit(panel[:, -5:], 4, 0, 4) is None


def test_the_prior_counts_for_little_where_series_differ_and_for_much_where_they_are_short():
    t, rng = np.arange(300), np.random.default_rng(0)
    long = np.array([50 + 10 * np.sin(2 * np.pi * t / p) for p in np.linspace(5, 40, 20)])
    assert RegressionPrior.fit(long, 1, 0, 12).counted == 1.0
    noise = rng.normal(0, 5, (60, 34))
    alike = 50 + 10 * np.sin(2 * np.pi * t[:34] / 12) + noise
    assert RegressionPrior.fit(alike, 12, 0, 6).counted == 100.0


def test_lags_are_the_newest_and_those_around_each_season():
    assert regression_lags(1, 0).tolist() == [1, 2, 3]
    assert regression_lags(12, 0).tolist() == [1, 2, 3, 12, 13]
    expected = [1, 2, 3, 23, 24, 25, 48, 49, 144, 167, 168, 169, 192, 193]
    assert regression_lags(24, 168).tolist() == expected


@pytest.mark.parametrize("on_logs", [False, True])
@pytest.mark.parametrize(("n_periods", "season"), [(50, 12), (9, 12), (30, 1), (1, 4), (29, 7)])
def test_the_bank_is_every_filter_weighed_by_its_errors(n_periods, season, on_logs):
    y = np.array([series(n_periods, season, seed) for seed in range(3)])
    found = bank_forecasts(y, np.array([n_periods]), season, HORIZON, on_logs)[:, 0]
    expected = np.array([bank_of_one(row, season, on_logs) for row in y])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("on_logs", [False, True])
def test_a_prior_multiplies_the_weights_of_the_filters(on_logs):
    prior = np.random.default_rng(1).uniform(0.1, 3, (2, FILTERS.shape[1]))
    y = np.array([series(30, 12, seed) for seed in range(3)])
    for n_periods in (9, 30):  # in the first season the prior alone decides
        found = bank_forecasts(y, np.array([n_periods]), 12, HORIZON, on_logs, prior)[:, 0]
        expected = np.array([bank_of_one(row[:n_periods], 12, on_logs, prior) for row in y])
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def test_the_weights_of_a_panel_are_the_mean_of_its_series_in_three_rounds():
    panel = np.array([series(30, 4, seed) for seed in range(6)])
    panel[0] -= 90.0  # no logarithms
    panel[1, :7], panel[2, :27], panel[3] = np.nan, np.nan, np.nan  # late, too short, nothing
    of_series = [filters_of_one(row, 4, on_logs=True)[1] for row in (panel[1, 7:], *panel[4:])]
    of_series.append(np.append(filters_of_one(panel[0], 4, on_logs=False)[1], np.zeros(90)))
    prior = np.ones(180)
    for _ in range(3):
        own = [weights * prior / (weights @ prior) for weights in of_series]
        prior = 0.9 * 180 * np.mean(own, axis=0) + 0.1
    found = mean_filter_weights(panel, 4, on_logs=True)
    np.testing.assert_allclose(found, prior.reshape(2, 90), rtol=1e-9)
    np.testing.assert_array_equal(mean_filter_weights(panel[2:4], 4, on_logs=True), 1.0)


def test_a_panel_has_a_prior_where_its_folds_are_better_with_it():
    """Short noisy wards gain; those that begin to walk away lose by what was said of them."""
    rng, t = np.random.default_rng(3), np.arange(40)
    alike = 100 + 20 * np.sin(2 * np.pi * t / 12) + rng.normal(0, 8, (60, 40))
    prior = filter_prior(alike, np.array([22, 28]), 12, 6, on_logs=True)
    np.testing.assert_array_equal(prior, mean_filter_weights(alike[:, :22], 12, on_logs=True))
    walks = alike + np.cumsum(rng.normal(0, 30, (60, 40)) * (t > 21), axis=1)
    assert filter_prior(walks, np.array([22, 28]), 12, 6, on_logs=True) is None


@pytest.mark.parametrize("shift", [0.0, -70.0])
@pytest.mark.parametrize(("n_periods", "season"), [(50, 12), (9, 12), (30, 1), (1, 4), (29, 7)])
def test_theta_is_smoothing_with_half_the_slope(n_periods, season, shift):
    y = np.array([series(n_periods, season, seed) + shift for seed in range(3)])
    found = theta_forecasts(y, np.array([n_periods]), season, HORIZON)[:, 0]
    expected = np.array([theta_of_one(row, season) for row in y])
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def further(forecasts):
    """What a base takes beside values, origins, season and horizon."""
    return {bank_forecasts: (True,), regression_forecasts: (prior_of(12),)}.get(forecasts, ())


BASES = [theta_forecasts, bank_forecasts, regression_forecasts]


@pytest.mark.parametrize("forecasts", BASES)
def test_a_forecast_at_an_origin_sees_nothing_after_it(forecasts):
    y = np.array([series(40, 12, 1)])
    more = further(forecasts)
    at = forecasts(y, np.array([5, 20, 33]), 12, HORIZON, *more)
    for position, origin in enumerate((5, 20, 33)):
        alone = forecasts(y[:, :origin].copy(), np.array([origin]), 12, HORIZON, *more)
        np.testing.assert_array_equal(at[:, position], alone[:, 0])


@pytest.mark.parametrize("forecasts", BASES)
def test_a_series_is_forecast_alike_alone_among_others_and_behind_a_gap(forecasts):
    more = further(forecasts)
    y = np.array([series(40, 12, seed) for seed in range(600)])  # more than one part
    together = forecasts(y, np.array([40]), 12, HORIZON, *more)
    alone = forecasts(y[[7]], np.array([40]), 12, HORIZON, *more)
    late = np.concatenate([np.full((1, 13), np.nan), y[[7]]], axis=1)
    behind = forecasts(late, np.array([53]), 12, HORIZON, *more)
    np.testing.assert_array_equal(together[7], alone[0])
    np.testing.assert_array_equal(behind, alone)


def test_origins_outside_a_series_have_no_forecast():
    y = np.full((2, 10), np.nan)
    y[0, 3:8] = 5.0
    found = bank_forecasts(y, np.array([3, 4, 8, 9]), 4, 2, True)
    np.testing.assert_allclose(found[0, [1, 2]], 5.0)
    assert np.isnan(found[0, [0, 3]]).all()
    assert np.isnan(found[1]).all()
    assert np.isnan(theta_forecasts(y, np.array([3, 9]), 4, 2)).all()
    y[0, 3:9] = [5.0, 6, 5, 7, 5, 6]
    found = regression_forecasts(y, np.array([3, 8, 9, 10]), 4, 2, prior_of(4))
    assert np.isfinite(found[0]).all(axis=1).tolist() == [False, False, True, False]
    assert np.isnan(found[1]).all()


def test_a_constant_series_stays_constant():
    for value in (0.0, 7.0, -3.0):
        y = np.full((1, 30), value)
        never_negative = value >= 0
        bank = bank_forecasts(y, np.array([30]), 12, 5, never_negative)
        np.testing.assert_allclose(bank, value, atol=1e-12)
        np.testing.assert_allclose(theta_forecasts(y, np.array([30]), 12, 5), value, atol=1e-12)
        regression = regression_forecasts(y, np.array([30]), 12, 5, prior_of(12))
        np.testing.assert_array_equal(regression, np.full((1, 1, 5), value))


def test_spans_of_rows_with_values_everywhere_somewhere_and_nowhere():
    y = np.full((3, 4), np.nan)
    y[0], y[1, 1:3] = 1.0, 2.0
    starts, stops = spans_of(y)
    assert starts.tolist() == [0, 1, 0]
    assert stops.tolist() == [4, 3, 0]


def test_the_seasonal_naive_repeats_the_last_season_or_the_last_value():
    y = np.array([[1.0, 2, 3, 4, 5, 6], [np.nan, np.nan, np.nan, np.nan, 8, 9]])
    steps = np.arange(1, 6)
    for row, expected in ((0, [3, 4, 5, 6, 3]), (1, [9, 9, 8, 9, 9])):
        found = seasonal_naive(y, np.full(5, row), np.full(5, 6), steps, 4)
        assert found.tolist() == expected
