from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.series.frequency import Frequency


@pytest.mark.parametrize(
    ("given", "name", "season"),
    [
        ("MS", "MS", 12),
        ("ME", "MS", 12),
        ("monthly", "MS", 12),
        ("QE-DEC", "QS", 4),
        ("6MS", "6MS", 2),
        ("12MS", "YS", 1),
        ("YE", "YS", 1),
        ("W-MON", "W", 52),
        ("2W", "2W", 26),
        ("D", "D", 7),
        ("7D", "W", 52),
        ("10D", "10D", 1),
        ("h", "h", 24),
        ("60min", "h", 24),
        ("6h", "6h", 4),
        ("30min", "30min", 48),
        ("5min", "5min", 12),
        ("period", "period", 1),
        ("period/12", "period/12", 12),
        ("10period", "10period", 1),
        ("1period/1", "period", 1),
    ],
)
def test_a_name_gives_the_calendar_and_its_season(given, name, season):
    found = Frequency.parse(given)
    assert (found.name, found.season) == (name, season)
    assert Frequency.parse(found.name) == found


@pytest.mark.parametrize(
    ("name", "longer"),
    [
        *[("h", 168), ("30min", 336), ("6h", 28), ("5min", 288), ("D", 364)],
        *[("W", 0), ("10D", 0), ("MS", 0), ("YS", 0), ("period/24", 0)],
    ],
)
def test_hours_have_a_week_minutes_a_day_and_days_a_year_of_whole_weeks_too(name, longer):
    assert Frequency.parse(name).longer_season == longer


@pytest.mark.parametrize(
    "name", ["", "B", "5MS", "7h", "fortnight", "0D", "7min", "0period", "period/0"]
)
def test_a_name_of_no_regular_calendar_is_refused(name):
    with pytest.raises(ConfigurationError, match="give YS, QS, MS, W, D, h, 30min"):
        Frequency.parse(name)


@pytest.mark.parametrize(
    "alias",
    [
        "MS",
        "ME",
        "QS",
        "QE",
        "2MS",
        "6ME",
        "YS",
        "YE",
        "W-SUN",
        "W-WED",
        "2W-MON",
        "4W-MON",
        "D",
        "h",
        "6h",
        "30min",
        "15min",
    ],
)
def test_the_guess_and_what_follows_agree_with_pandas(alias):
    times = pd.date_range("2019-01-01", periods=40, freq=alias)
    known, ahead = times[:30].to_numpy(), times[30:].to_numpy()
    found = Frequency.guess(np.zeros(30, dtype=np.int64), known)
    np.testing.assert_array_equal(np.diff(found.ordinals(times.to_numpy())), 1)
    np.testing.assert_array_equal(found.after(known[-1:], 10)[0], ahead.astype("M8[s]"))


def test_two_months_are_no_four_weeks():
    february = np.array(["2021-02-01", "2021-03-01"], dtype="M8[s]")
    mondays = np.array(["2021-02-08", "2021-03-08", "2021-04-05", "2021-05-03"], dtype="M8[s]")
    assert Frequency.guess(np.zeros(2, dtype=np.int64), february).name == "MS"
    assert Frequency.guess(np.zeros(4, dtype=np.int64), mondays).name == "4W"


def test_phases_of_months_start_in_january_and_periods_begin_where_they_should():
    found = Frequency.parse("MS")
    ordinals = found.ordinals(np.array(["1969-12-31", "2024-02-29"], dtype="M8[s]"))
    assert found.phase(ordinals).tolist() == [11, 1]
    assert found.starts(ordinals).astype(str).tolist() == [
        "1969-12-01T00:00:00",
        "2024-02-01T00:00:00",
    ]


def test_the_middle_of_a_month_stays_the_middle():
    found = Frequency.parse("MS").after(np.array(["2024-01-30"], dtype="M8[s]"), 2)
    assert found[0].astype("M8[D]").astype(str).tolist() == ["2024-02-29", "2024-03-30"]


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        (["2024-01-01", "2024-01-01"], "no series has two different times"),
        (["2024-01-01T00:00", "2024-01-01T00:07"], "420 seconds, which is no regular calendar"),
    ],
)
def test_what_cannot_be_guessed_asks_for_the_frequency(times, problem):
    with pytest.raises(DataValidationError, match=problem):
        Frequency.guess(np.zeros(2, dtype=np.int64), np.array(times, dtype="M8[s]"))
