"""Values that stand alone in their series."""

from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.series.panel import opened, standing_alone, without_alone

SEASON = 12
BEDS = 20.0 + 8 * np.sin(2 * np.pi * np.arange(60) / SEASON) + np.arange(60) % 5


def with_values(values: dict[int, float], y: np.ndarray = BEDS) -> np.ndarray:
    changed = y.copy()
    changed[list(values)] = list(values.values())
    return changed


@pytest.mark.parametrize(
    ("y", "alone"),
    [
        (with_values({31: 90_000.0}), [31]),
        (with_values({31: -90_000.0}), [31]),
        (with_values({31: 20.0 + 5 * np.ptp(BEDS)}), []),  # large, yet of the same world
        (with_values({31: 90_000.0, 40: 80_000.0}), []),  # two of 60 are no slip
        (with_values({55: 90_000.0}), [55]),  # what follows is as before
        (with_values({59: 20.0 + 50 * np.ptp(BEDS)}), []),  # it may be the new level
        (with_values({59: 90_000.0}), [59]),  # no new level is a hundred ranges away
        (with_values({58: 90_000.0, 59: 90_000.0}), []),  # but two values say that it is one
        (with_values({20: 90_000.0}, np.full(60, 7.0)), [20]),
        (with_values({20: 90_000.0}, np.zeros(60)), []),  # what is mostly zero has no range
        (with_values({3: 90_000.0}, BEDS[:20]), []),  # less than two seasons
        (np.exp(np.arange(60) / 4.0), []),
        (np.full(60, np.nan), []),
    ],
)
def test_a_value_stands_alone_ten_ranges_from_all_others_unless_it_may_be_a_new_level(y, alone):
    np.testing.assert_array_equal(np.flatnonzero(standing_alone(y[None], SEASON)[0]), alone)


def test_up_to_a_hundredth_of_a_long_series_may_stand_alone():
    y = np.tile(BEDS, 5)
    y[[10, 100, 200]] = 1e6, 2e6, -1e6
    found = standing_alone(y[None], SEASON)
    np.testing.assert_array_equal(np.flatnonzero(found[0]), [10, 100, 200])


def test_a_value_that_stands_alone_becomes_that_of_a_season_before_or_after():
    y = np.stack([with_values({31: 90_000.0}), with_values({5: 90_000.0}), BEDS])
    y[2, :20] = np.nan
    found, alone = without_alone(y, SEASON)
    np.testing.assert_array_equal(np.argwhere(alone), [[0, 31], [1, 5]])
    assert found[0, 31] == BEDS[19]
    assert found[1, 5] == BEDS[17]
    np.testing.assert_array_equal(found[~alone], y[~alone])
    assert y[0, 31] == 90_000.0  # the caller's values stay


@pytest.mark.parametrize(
    ("y", "begins"),
    [
        ([0.0] * 42 + [5.0] * 6, 42),  # a ward that opened half a year ago
        ([0.0] * 100 + [40.0, 50.0, 45.0], 100),
        ([0.0] * 100 + [50.0], 0),  # one value says little: the next may be zero again
        ([0.0] * 2 + [5.0] * 46, 2),
        ([0.0] + [5.0] * 46, 0),
        ([np.nan] * 3 + [0.0] * 20 + [7.0] * 25, 23),
        ([0.0] * 14 + [0.0, 0.0, 9.0, 8.0, 7.0, 9.0, 8.0] * 10, 16),  # closed on two days a week
        (([0.0] * 9 + [3.0]) * 10, 0),  # intermittent
        ([0.0] * 40 + ([0.0] * 5 + [3.0]) * 10, 0),
        ([0.0] * 48, 0),
        ([3.0] * 24 + [0.0] * 24, 0),  # zeros at the end are none at the start
    ],
)
def test_zeros_before_a_series_began_are_no_part_of_it(y: list[float], begins: int):
    values = np.array([y])
    expected = np.where(np.arange(len(y)) < begins, np.nan, values)
    np.testing.assert_array_equal(opened(values), expected)


def test_what_did_not_begin_late_is_the_same_array():
    values = np.arange(1.0, 25.0).reshape(2, 12)
    assert opened(values) is values
