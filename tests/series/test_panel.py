"""Values that stand alone in their series."""

from __future__ import annotations

import numpy as np
import pytest

from tsclust_model.series.panel import standing_alone, without_alone

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
        (with_values({55: 90_000.0}), []),  # in the last season: it may be the new level
        (with_values({20: 90_000.0}, np.full(60, 7.0)), [20]),
        (with_values({20: 90_000.0}, np.zeros(60)), []),  # what is mostly zero has no range
        (with_values({3: 90_000.0}, BEDS[:20]), []),  # less than two seasons
        (np.exp(np.arange(60) / 4.0), []),
        (np.full(60, np.nan), []),
    ],
)
def test_a_value_stands_alone_ten_ranges_from_all_others_and_before_the_last_season(y, alone):
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
