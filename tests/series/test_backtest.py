"""Shares of the ways to forecast: what few forecasts and one odd series may decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tsclust_model.series.backtest import Backtest
from tsclust_model.series.ces import CesForecast
from tsclust_model.series.examples import Examples
from tsclust_model.series.output_model import WAYS

NO_SEGMENT = -1


def backtest(losses: dict[str, np.ndarray], n_series: int) -> Backtest:
    """Cases of one step at three folds, a horizon apart; signs of errors alternate."""
    series, origins = np.tile(np.arange(n_series), 3), np.repeat([10, 11, 12], n_series)
    n = len(series)
    sign = np.where(np.arange(n) % 2, 1.0, -1.0)
    zeros, unused = np.zeros(n), Any
    ways = np.array([losses[way] * sign for way in WAYS])
    examples = Examples(
        unused, zeros, series, origins, np.ones(n, dtype=int), 0, (10, 11, 12), unused
    )
    labels = np.full(n, NO_SEGMENT)
    return Backtest(examples, ways, np.arange(n), series, origins, labels)


def shares(losses: dict[str, np.ndarray], n_series: int) -> dict[str, float]:
    found = backtest(losses, n_series).shares({NO_SEGMENT}, "blend")[NO_SEGMENT]
    return dict(zip(WAYS, found, strict=True))


def noisy(n_series: int, means: dict[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    n = 3 * n_series
    return {way: mean * rng.uniform(0.5, 1.5, n) for way, mean in means.items()}


USUAL = {"global": 1.0, "cluster": 1.0, "bank": 1.03, "theta": 1.05, "regression": 1.05}


def test_few_forecasts_leave_the_shares_near_their_prior():
    few, many = (shares(noisy(n, USUAL), n) for n in (3, 3000))
    assert abs(few["global"] - 0.5) < abs(many["global"] - 0.5)
    assert many["global"] > 0.6
    assert sum(few.values()) == pytest.approx(1)


def test_one_series_whose_errors_are_huge_decides_nothing():
    losses = noisy(21, USUAL)
    before = shares(losses, 21)
    odd = np.arange(63) % 21 == 4
    after = shares({way: np.where(odd, 1e6, found) for way, found in losses.items()}, 21)
    only = {way: np.where(odd & (way == "global"), 1e6, found) for way, found in losses.items()}
    assert after["global"] == pytest.approx(before["global"], abs=0.05)
    assert shares(only, 21)["global"] > 0.05


def test_a_base_that_is_better_by_more_than_noise_serves_alone():
    flat = {way: np.full(63, loss) for way, loss in (USUAL | {"bank": 0.99}).items()}
    assert shares(flat, 21) == dict.fromkeys(WAYS, 0.0) | {"bank": 1.0}


def test_a_fold_a_horizon_older_counts_half():
    found = backtest(noisy(2, USUAL), 2)
    assert found.weights.tolist() == [0.25, 0.25, 0.5, 0.5, 1.0, 1.0]


def with_ces(losses: dict[str, np.ndarray], n_series: int, errors: np.ndarray) -> Backtest:
    """The same, with forecasts by complex exponential smoothing that miss by `errors`."""
    found = backtest(losses, n_series)
    trust = np.where(found.origins == 10, 0.0, 1.0)  # the oldest fold is too short for it
    ces = CesForecast(errors, trust)
    return replace(found, examples=replace(found.examples, ces=ces))


@pytest.mark.parametrize(("errors", "expected"), [(-1.0, 0.2), (3.0, 0.0)])
def test_complex_smoothing_has_the_share_that_the_folds_like_best(errors, expected):
    flat = {way: np.full(3000, loss) for way, loss in USUAL.items()}
    found = with_ces(flat, 1000, errors * np.where(np.arange(3000) % 2, 1.0, -1.0))
    blend = found.blend(dict.fromkeys([NO_SEGMENT], (1.0, 0.0, 0.0, 0.0, 0.0)))
    served, share = found.served({NO_SEGMENT: (1.0, 0.0, 0.0, 0.0, 0.0)})
    assert share == pytest.approx(expected, abs=0.003)
    old = found.origins == 10
    np.testing.assert_array_equal(served[old], blend[old])
    weight = share * ~old
    np.testing.assert_allclose(served, (1 - weight) * blend + weight * found.examples.ces.forecast)


def test_few_forecasts_leave_complex_smoothing_near_a_tenth():
    flat = {way: np.full(9, loss) for way, loss in USUAL.items()}
    alone = {NO_SEGMENT: (1.0, 0.0, 0.0, 0.0, 0.0)}
    few = with_ces(flat, 3, 3.0 * np.where(np.arange(9) % 2, 1.0, -1.0)).served(alone)[1]
    assert few == pytest.approx(0.1 * 20 / (20 + 5.4))
    none = with_ces(flat, 3, np.zeros(9))
    untrusted = CesForecast(np.full(9, np.nan), np.zeros(9))
    none = replace(none, examples=replace(none.examples, ces=untrusted))
    served, share = none.served(alone)
    assert share == 0.1
    np.testing.assert_array_equal(served, none.blend(alone))
