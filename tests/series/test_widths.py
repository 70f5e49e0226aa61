"""Widths of forecasts: who is noisier gets the wider interval, whoever else is in the batch."""

from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.series.widths import Widths, ends_beyond, noise_signs, stands_still


def panel(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signs, residuals whose width is the square of the first sign, and two folds."""
    rng = np.random.default_rng(seed)
    signs = rng.normal(0, 0.5, (n, 5))
    signs[:, 2] = np.log(rng.integers(1, 4, n))
    folds = np.arange(n) % 2
    hard = np.where(folds == 0, 3.0, 1.0)  # for all series, so it says nothing of any
    return signs, rng.laplace(0, 0.1 * np.exp(2 * signs[:, 0])) * hard, folds


def test_signs_are_logarithms_of_their_definitions():
    bases = [np.array([1.0]), np.array([0.5]), np.array([-0.5])]
    found = noise_signs(
        np.array([-90.0]), np.array([10.0]), np.array([3]), bases, np.array([-4.0]), np.array([6.0])
    )
    level = np.log(np.sqrt(100.0) / 10.0)
    expected = [level, np.log(3.05), np.log(3), np.log(0.45), np.log(0.65)]
    np.testing.assert_allclose(found, [expected], atol=1e-12)


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_known_of_a_series_counts_as_a_scale(odd):
    one = np.ones(1)
    found = noise_signs(one, one, one, [one] * 3, np.array([odd]), np.array([odd]))
    np.testing.assert_allclose(found[0, 3:], np.log(1.05))


def test_the_width_that_residuals_show_is_found_whatever_the_fold():
    signs, residuals, folds = panel(6000)
    fit = Widths.fit(signs, residuals, np.ones(6000), folds)
    np.testing.assert_allclose(fit.weights, [2, 0, 0, 0, 0], atol=0.2)  # a penalty shrinks it


def test_few_forecasts_say_little():
    signs, residuals, folds = panel(30)
    few = Widths.fit(signs, residuals, np.ones(30), folds)
    assert 0 < few.weights[0] < 1


def test_a_width_is_between_that_of_the_spread_and_that_of_the_signs():
    signs = np.zeros((2, 5))
    signs[:, 0] = [0.7, 99.0]
    widths = Widths((2.0, 0.0, 0.0, 0.0, 0.0), -3.0, 4.0)
    spread = np.array([0.25, 0.25])
    expected = np.sqrt(spread * np.exp([1.4, 4.0]))  # none wider than any on the folds
    np.testing.assert_allclose(widths.of(signs, spread), expected)
    assert Widths().of(signs, spread) is spread


def test_a_width_is_the_same_bits_alone_and_among_others():
    signs, residuals, folds = panel(500)
    fit = Widths.fit(signs, residuals, np.ones(500), folds)
    spread = np.linspace(0.05, 3, 500)
    whole = fit.of(signs, spread)
    alone = [fit.of(signs[i : i + 1], spread[i : i + 1])[0] for i in range(500)]
    np.testing.assert_array_equal(whole, alone)


def test_constant_series_have_residuals_of_zero_and_a_width_all_the_same():
    signs, _, folds = panel(40)
    fit = Widths.fit(signs, np.zeros(40), np.ones(40), folds)
    assert np.isfinite(fit.of(signs, np.ones(40))).all()
    assert Widths.from_dict({}) == Widths()


def test_a_series_stands_still_with_one_value_for_two_seasons():
    flat, late = np.full(24, 7.0), np.full(24, 7.0)
    late[0] = 8.0
    short = np.where(np.arange(24) < 1, np.nan, 7.0)
    assert stands_still(np.array([flat, late, short]), 12).tolist() == [True, False, False]
    assert stands_still(np.array([late]), 6).tolist() == [True]
    assert stands_still(flat[None, :20], 12).tolist() == [False]


def test_a_series_ends_beyond_all_others_by_more_than_their_range():
    usual = np.tile([1.0, 2.0, 3.0], 6)
    ends = [5.0, 5.1, -1.1, 3.0]
    series = np.array([[*usual, end] for end in ends] + [[1.0] * 18 + [9.0]])
    assert ends_beyond(series, 12).tolist() == [False, True, True, False, False]
    assert ends_beyond(series[:, -5:], 12).tolist() == [False] * 5  # too little before it
