"""Complex exponential smoothing against plain numpy and scipy, written from its equations."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from tsclust_model._kernels import ces as kernels
from tsclust_model.series.ces import CesForecast, ces_forecasts, settings_of

HORIZON = 9


def series(n_periods: int, season: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(n_periods)
    pattern = 20 * np.sin(2 * np.pi * t / season + rng.uniform(0, 6))
    return np.maximum(60 + 0.3 * t + pattern + rng.normal(0, 8, n_periods), 0.0)


def pattern_of(y: np.ndarray, season: int) -> np.ndarray:
    """Mean distance from the centred moving average at each place of the season."""
    weights = np.ones(season + 1 - season % 2) / season
    if season % 2 == 0:
        weights[[0, -1]] /= 2
    average, half = np.convolve(y, weights, "valid"), len(weights) // 2
    rest, places = y[half : half + len(average)] - average, np.arange(half, half + len(average))
    found = np.array([rest[places % season == place].mean() for place in range(season)])
    return found - found.mean()


def smoothed(
    y: np.ndarray, season: int, coefficients: np.ndarray, usual: np.ndarray
) -> tuple[float, np.ndarray]:
    """Sum of squared one-step errors, and forecasts, of one pass; a backward pass starts it."""
    part = np.array([1.0, 1 / 1.1])
    level, seasonal = y[-season:].mean() * part, pattern_of(y, season)[:, None] * part
    F, g, Fs, gs = equations(usual)
    for t in reversed(range(len(y))):
        e = y[t] - level[0] - seasonal[t % season, 0]
        level, seasonal[t % season] = F @ level + g * e, Fs @ seasonal[t % season] + gs * e
    level, seasonal = F @ level, seasonal @ Fs.T
    F, g, Fs, gs = equations(coefficients)
    squares, ahead = 0.0, np.empty(HORIZON)
    for t in range(len(y)):
        e = y[t] - level[0] - seasonal[t % season, 0]
        squares += e * e
        level, seasonal[t % season] = F @ level + g * e, Fs @ seasonal[t % season] + gs * e
    for k in range(HORIZON):
        place = (len(y) + k) % season
        ahead[k] = level[0] + seasonal[place, 0]
        level, seasonal[place] = F @ level, Fs @ seasonal[place]
    return squares, ahead


def equations(coefficients: np.ndarray) -> tuple[np.ndarray, ...]:
    """Transition and persistence of level and season: x_t = F x_(t-1) + g e_t."""
    found = []
    for a0, a1 in coefficients.reshape(2, 2):
        found += [np.array([[1.0, a1 - 1.0], [1.0, 1.0 - a0]]), np.array([a0 - a1, a0 + a1])]
    return tuple(found)


def loss(coefficients: np.ndarray, y: np.ndarray, season: int, settings: np.ndarray) -> float:
    usual, spread = settings[:2]
    penalty = np.square((coefficients - usual) / spread).sum() / len(y)
    return float(np.log(smoothed(y, season, coefficients, usual)[0]) + penalty)


def fitted(y: np.ndarray, season: int, settings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and forecasts of one series, as it is and wherever they go."""
    coefficients, out = np.empty((1, 4)), np.empty((1, HORIZON))
    one, origins = np.zeros(1, dtype=np.int64), np.array([len(y)])
    pairs = (one, one, one, origins)
    kernels.ces(y[None], *pairs, False, season, np.inf, settings, coefficients, out)
    return coefficients[0], out[0]


@pytest.mark.parametrize(("season", "n_periods"), [(12, 60), (4, 21), (7, 38)])
def test_forecasts_are_those_of_the_equations(season, n_periods):
    y = series(n_periods, season, 3)
    given = np.array([1.31, 0.98, 1.12, 1.03])
    coefficients, out = fitted(y, season, np.array([given, np.ones(4), given, given]))
    np.testing.assert_array_equal(coefficients, given)
    np.testing.assert_allclose(out, smoothed(y, season, given, given)[1], rtol=1e-9)


@pytest.mark.parametrize("on_logs", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_the_coefficients_are_nearly_as_likely_as_those_that_scipy_finds(seed, on_logs):
    y, settings = series(60, 12, seed), settings_of(on_logs)
    y = np.log1p(y) if on_logs else y - 50
    coefficients, out = fitted(y, 12, settings)
    limits = list(zip(*settings[2:], strict=True))
    best = minimize(loss, settings[0], args=(y, 12, settings), method="L-BFGS-B", bounds=limits)
    assert loss(coefficients, y, 12, settings) < best.fun + 0.005
    assert best.fun < loss(settings[0], y, 12, settings) - 0.01
    np.testing.assert_allclose(out, smoothed(y, 12, coefficients, settings[0])[1], rtol=1e-9)


def forecast(values: np.ndarray, season: int = 4) -> CesForecast:
    n, n_periods = values.shape
    steps = np.tile(np.arange(1, HORIZON + 1), n)
    pairs = np.repeat(np.arange(n), HORIZON), np.full(len(steps), n_periods)
    return ces_forecasts(values, *pairs, steps, season, HORIZON)


def test_it_counts_from_three_seasons_on_and_wholly_from_four():
    values = np.array([series(24, 4, seed) for seed in range(4)])
    for row, n_known in enumerate((12, 14, 16)):
        values[row, : 24 - n_known] = np.nan
    found = forecast(values)
    assert found.trust[::HORIZON].tolist() == [0.0, 0.5, 1.0, 1.0]
    np.testing.assert_array_equal(np.isnan(found.forecast[::HORIZON]), [True, False, False, False])
    blend = np.arange(4.0 * HORIZON)
    mixed = found.mixed(blend, 0.2)
    np.testing.assert_array_equal(mixed[:HORIZON], blend[:HORIZON])
    expected = 0.9 * blend + 0.1 * found.forecast
    np.testing.assert_allclose(mixed[HORIZON : 2 * HORIZON], expected[HORIZON : 2 * HORIZON])


def test_forecasts_are_fitted_on_logarithms_and_stay_near_the_range_of_the_history():
    grown = 10.0 * 1.04 ** np.arange(48)
    values = np.array([grown, grown - 30.0, series(48, 12, 1)])
    rows = forecast(values, 12).forecast.reshape(3, HORIZON)
    low, high = values.min(axis=1), values.max(axis=1)
    assert (rows <= (high + 0.1 * (high - low))[:, None] + 1e-9).all()
    _, out = fitted(np.log1p(values[2]), 12, settings_of(True))
    np.testing.assert_allclose(rows[2], np.expm1(out), rtol=1e-12)


@pytest.mark.parametrize("season", [1, 4])
def test_series_without_a_season_or_that_stand_still_have_none(season):
    values = np.array(
        [np.full(40, 7.0), np.r_[series(32, 4, 0), np.full(8, 3.0)], series(40, 4, 0)]
    )
    trust = forecast(values, season).trust[::HORIZON]
    assert trust.tolist() == [0.0, 0.0, float(season > 1)]


def test_the_company_of_a_series_and_what_comes_later_change_no_bit():
    values = np.array([series(60, 12, seed) for seed in range(300)])
    whole, alone = forecast(values, 12).forecast, forecast(values[7:8], 12).forecast
    np.testing.assert_array_equal(whole[7 * HORIZON : 8 * HORIZON], alone)
    later = np.concatenate([values[7:8], np.full((1, 5), 1e6)], axis=1)
    steps, rows = np.arange(1, HORIZON + 1), np.zeros(HORIZON, dtype=int)
    found = ces_forecasts(later, rows, np.full(HORIZON, 60), steps, 12, HORIZON)
    np.testing.assert_array_equal(found.forecast, alone)


@pytest.mark.parametrize("huge", [1e300, -1e300])
def test_values_next_to_infinite_leave_the_blend_alone(huge):
    values = series(48, 4, 2)[None]
    values[0, 20] = huge
    mixed = forecast(values).mixed(np.zeros(HORIZON), 0.3)
    assert np.isfinite(mixed).all()
    if huge < 0:  # its squares are infinite, and a logarithm would not help
        np.testing.assert_array_equal(mixed, 0.0)
