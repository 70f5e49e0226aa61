from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.panel import filled

ROLES = Roles("beds", time="month", id="ward", resources=("hours",), horizon=3)
SECRET = 987654.25


def table(**series: list[float | None]) -> pd.DataFrame:
    """Monthly series from January 2020 on; None is a row that is not there."""
    rows = [
        (name, month, value, 2 * value)
        for name, values in series.items()
        for month, value in zip(
            pd.date_range("2020-01-01", periods=len(values), freq="MS"), values, strict=True
        )
        if value is not None
    ]
    return pd.DataFrame(rows, columns=["ward", "month", "beds", "hours"])


def gaps_of(frame: pd.DataFrame, policy: str, roles: Roles = ROLES) -> dict[str, int]:
    found = series_panel(frame, roles, policy).gaps
    return {name: count for name, count in found.items() if count}


def test_series_lie_on_one_calendar_whatever_the_order_of_the_rows():
    frame = table(b=[1, 2, 3, 4, 5], a=[None, None, 7, 8])
    panel = series_panel(frame.sample(frac=1, random_state=1), ROLES)
    assert panel.ids.tolist() == ["a", "b"]
    assert panel.frequency.name == "MS"
    np.testing.assert_array_equal(panel.y, [[np.nan, np.nan, 7, 8, np.nan], [1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(panel.values["hours"], 2 * panel.y)
    assert panel.ends.tolist() == [604, 604]  # months since 1970-01
    assert panel.last_times.astype("M8[D]").astype(str).tolist() == ["2020-04-01", "2020-05-01"]
    assert panel.lengths.tolist() == [2, 5]


def test_right_aligned_series_end_in_the_last_column():
    panel = series_panel(table(a=[None, None, 7, 8], b=[1, 2, 3, 4, 5]), ROLES)
    aligned = panel.right_aligned()
    np.testing.assert_array_equal(aligned.y, [[np.nan, np.nan, np.nan, 7, 8], [1, 2, 3, 4, 5]])
    assert aligned.ends.tolist() == [603, 604]
    earlier = panel.right_aligned(drop=2)
    np.testing.assert_array_equal(earlier.y, [[np.nan] * 5, [np.nan, np.nan, 1, 2, 3]])
    assert earlier.ends.tolist() == [601, 602]
    assert earlier.last_times.astype("M8[M]").astype(str).tolist() == ["2020-02", "2020-03"]


def test_what_is_held_back_is_what_came_after_the_origin():
    panel = series_panel(table(a=[None, None, 7, 8, 9], b=[1, 2, 3, 4, 5], c=[6, 7]), ROLES)
    held = panel.held_back(2, 3)
    assert held.panel.ids.tolist() == ["a", "b"]  # nothing was known of c
    np.testing.assert_array_equal(held.panel.y[:, -2:], [[np.nan, 7], [2, 3]])
    np.testing.assert_array_equal(held.y, [[8, 9, np.nan], [4, 5, np.nan]])
    np.testing.assert_array_equal(held.truth["hours"], 2 * held.y)
    each = panel.held_back(np.array([1, 3, 0]), 2)
    np.testing.assert_array_equal(each.y, [[9, np.nan], [3, 4], [np.nan, np.nan]])
    both = type(held).joined([held, panel.held_back(1, 3)])
    assert both.panel.ids.tolist() == ["a", "b", "a", "b", "c"]
    assert both.panel.ends.tolist() == [602, 602, 603, 603, 600]


def test_what_is_known_stays_on_its_calendar():
    known = series_panel(table(a=[None, None, 7, 8, 9], b=[1, 2, 3, 4], c=[6, 7]), ROLES).known(2)
    assert known.ids.tolist() == ["a", "b"]
    np.testing.assert_array_equal(known.y, [[np.nan, np.nan, 7], [1, 2, np.nan]])
    assert known.ends.tolist() == [602, 602]


def test_months_may_be_given_at_their_start_middle_or_end():
    frame = table(a=[1, 2, 3, 4], b=[5, 6, 7, 8], c=[0, 0, 0, 0])
    expected = series_panel(frame, ROLES)
    for ward, days in (("b", 14), ("c", None)):
        rows = frame["ward"] == ward
        moved = frame.loc[rows, "month"] + (
            pd.offsets.MonthEnd() if days is None else pd.Timedelta(days=days)
        )
        frame.loc[rows, "month"] = moved
    found = series_panel(frame, ROLES)
    assert found.frequency == expected.frequency
    np.testing.assert_array_equal(found.y, expected.y)


def as_texts(times: pd.Series) -> pd.Series:
    return times.dt.strftime("%Y-%m-%d")


def as_texts_of_a_zone(times: pd.Series) -> pd.Series:
    return times.dt.tz_localize("Europe/Berlin").map(lambda time: time.isoformat())


@pytest.mark.parametrize(
    "form",
    [
        as_texts,
        as_texts_of_a_zone,
        lambda times: times.dt.strftime("%Y-%m"),
        lambda times: times.dt.tz_localize("Europe/Berlin"),
        lambda times: times.dt.to_period("M"),
        lambda times: times.dt.date.astype(object),
        lambda times: times.astype("category"),
    ],
    ids=["texts", "texts-with-offsets", "months", "zoned", "periods", "dates", "categories"],
)
def test_times_may_come_in_any_form_that_means_one_thing(form):
    frame = table(a=[1, 2, 3, 4, 5, 6], b=[5, 6, 7, 8, 9, 9])
    expected = series_panel(frame, ROLES)
    found = series_panel(frame.assign(month=form(frame["month"])), ROLES)
    np.testing.assert_array_equal(found.y, expected.y)
    assert found.last_times.tolist() == expected.last_times.tolist()


def test_hours_of_a_zone_are_utc_so_that_setting_the_clock_back_repeats_none():
    hours = pd.date_range("2024-10-26", periods=72, freq="h", tz="UTC").tz_convert("Europe/Berlin")
    frame = pd.DataFrame({"ward": "a", "month": hours, "beds": range(72), "hours": 0.0})
    panel = series_panel(frame, ROLES)
    assert panel.frequency.name == "h"
    np.testing.assert_array_equal(panel.y, [np.arange(72.0)])


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"month": "01/02/2020"}, "is not ISO 8601.*a day and a month could be mistaken"),
        ({"month": "soon"}, "is not ISO 8601"),
        ({"month": 3.5}, "holds numbers that are not whole"),
        ({"month": 202501}, "look like dates or timestamps.*to_datetime"),
        ({"month": 1_700_000_000}, "look like dates or timestamps.*to_datetime"),
        ({"month": None}, "time column 'month' is missing in 4 row"),
        ({"ward": None}, "id column 'ward' is missing in 4 row"),
        ({"beds": "many"}, "column 'beds' holds something that is not a number"),
        ({"hours": True}, "column 'hours' holds something that is not a number"),
        ({"beds": np.inf}, "column 'beds' has infinite values .* in a; correct them"),
    ],
)
def test_a_column_that_cannot_be_used_is_named_with_the_remedy(change, problem):
    frame = table(a=[1, 2, 3, 4]).assign(**change)
    with pytest.raises(DataValidationError, match=problem):
        series_panel(frame, ROLES)


def counted(step: int = 1, **series) -> pd.DataFrame:
    frame = table(**series)
    number = frame.groupby("ward", sort=False).cumcount()
    return frame.assign(month=5 + step * number)


def test_whole_numbers_are_a_calendar_of_their_own():
    frame = counted(a=[1, 2, 3, 4], b=[5, 6])
    panel = series_panel(frame.sample(frac=1, random_state=0), ROLES)
    assert (panel.frequency.name, panel.frequency.season) == ("period", 1)
    np.testing.assert_array_equal(panel.y, [[1, 2, 3, 4], [5, 6, np.nan, np.nan]])
    assert panel.frequency.shown(panel.last_times).tolist() == [8, 6]
    for kind in (float, "Int64", "category"):
        again = series_panel(frame.assign(month=frame["month"].astype(kind)), ROLES)
        np.testing.assert_array_equal(again.y, panel.y)
    tens = series_panel(counted(10, a=[1, 2, 3], b=[5, 6]), ROLES)
    assert tens.frequency.name == "10period"
    yearly = series_panel(frame, replace(ROLES, frequency="period/12"))
    assert yearly.frequency.season == 12


def test_whole_numbers_and_times_are_not_mixed_up():
    frame = table(a=[1, 2, 3])
    with pytest.raises(DataValidationError, match=r"no whole numbers, as frequency period needs"):
        series_panel(frame, replace(ROLES, frequency="period"))
    with pytest.raises(DataValidationError, match=r"holds numbers, and frequency MS needs times"):
        series_panel(counted(a=[1, 2, 3]), replace(ROLES, frequency="MS"))
    gone = counted(a=[1, 2, 3, 4]).drop(index=1)
    with pytest.raises(DataValidationError, match=r"1 of 1 series has gaps.*frequency period"):
        series_panel(gone, ROLES)


def test_years_may_be_numbers_where_the_frequency_says_so():
    frame = pd.DataFrame({"ward": 7, "month": [2001, 2002, 2003], "beds": [1, 2, 3], "hours": 0.0})
    panel = series_panel(frame, replace(ROLES, frequency="YS"))
    assert (panel.ids.tolist(), panel.frequency.season) == (["7"], 1)
    np.testing.assert_array_equal(panel.y, [[1, 2, 3]])


def test_identical_copies_count_once_and_contradictions_name_the_ids():
    frame = table(a=[1, 2, SECRET], b=[4, 5, 6])
    assert gaps_of(pd.concat([frame, frame.head(2)]), "error")["copies"] == 2
    other = frame.tail(1).assign(beds=SECRET)
    with pytest.raises(
        DataValidationError, match=r"^1 row gives a series another value.*: b; keep"
    ):
        series_panel(pd.concat([frame, other]), ROLES)


def test_a_missing_period_counts_once_however_many_columns_it_lacks():
    frame = table(a=[1, 2, 3, 4], b=[4, 5, 6, 7]).assign(nurses=1.0)
    roles = replace(ROLES, resources=("nurses",))
    with pytest.raises(DataValidationError, match=r"^1 of 2 series has gaps, 2 periods in all "):
        series_panel(frame.drop(index=[1, 2]), roles)


def test_gaps_are_an_error_that_names_three_ids_and_no_value():
    wards = {f"w{i}": [1, None, SECRET, 4, 5] for i in range(5)}
    with pytest.raises(DataValidationError) as caught:
        series_panel(table(**wards, whole=[1, 2, 3, 4, 5]), ROLES)
    text = str(caught.value)
    assert text.startswith("5 of 6 series have gaps, 5 periods in all (frequency MS): w0, w1, w2 ")
    assert "gap_policy" in text
    assert str(SECRET) not in text


def test_gaps_are_filled_by_a_straight_line_or_the_series_is_dropped():
    frame = table(a=[1, None, None, 4, 5], b=[1, 2, 3, 4, 5])
    panel = series_panel(frame, ROLES, "fill")
    np.testing.assert_array_equal(panel.y, [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    assert panel.gaps["filled"] == 4  # two months of two columns
    dropped = series_panel(frame, ROLES, "drop")
    assert dropped.ids.tolist() == ["b"]
    assert gaps_of(frame, "drop")["dropped"] == 1
    with pytest.raises(DataValidationError, match="no series is left"):
        series_panel(frame.head(3), ROLES, "drop")


def test_a_resource_may_start_later_and_keeps_its_last_value_where_it_ends_early():
    frame = table(a=[1, 2, 3, 4, 5])
    frame.loc[[0, 1], "hours"] = np.nan
    np.testing.assert_array_equal(
        series_panel(frame, ROLES).values["hours"], [[np.nan, np.nan, 6, 8, 10]]
    )
    frame.loc[4, "hours"] = np.nan
    with pytest.raises(DataValidationError, match="1 of 1 series has gaps, 1 period "):
        series_panel(frame, ROLES)
    np.testing.assert_array_equal(
        series_panel(frame, ROLES, "fill").values["hours"], [[np.nan, np.nan, 6, 8, 8]]
    )


def test_a_series_without_any_value_is_left_out_and_counted():
    frame = pd.concat([table(a=[1, 2, 3]), table(b=[1, 2]).assign(beds=np.nan)])
    with pytest.raises(DataValidationError, match="1 of 2 series have no value at all: b"):
        series_panel(frame, ROLES)
    assert gaps_of(frame, "fill")["without_values"] == 1


def test_rows_without_a_value_after_the_last_one_are_no_gap():
    frame = table(a=[1, 2, 3, 4])
    frame.loc[3, "beds"] = np.nan
    panel = series_panel(frame, ROLES)
    assert panel.last_times.astype("M8[D]").astype(str).tolist() == ["2020-03-01"]
    assert np.isnan(panel.values["hours"][0, 3])


def test_another_frequency_is_named_before_its_gaps_or_contradictions():
    frame = table(a=[1, 2, 3, 4, 5, 6, 7], b=[1, 2, 3, 4, 5, 6, 7])
    days = pd.DataFrame(
        {"ward": "d", "month": pd.date_range("2020-01-01", periods=9), "beds": 1.0, "hours": 0.0}
    )
    quarters = table(q=[1, None, None, 2, None, None, 3])
    for other in (days, quarters):
        ward = other["ward"].iloc[0]
        with pytest.raises(
            DataValidationError, match=f"1 of 3 series have another frequency than MS: {ward};"
        ):
            series_panel(
                pd.concat([frame, frame.assign(ward=frame["ward"] + "2"), other]).query(
                    f"ward in ['a', 'b', '{ward}']"
                ),
                replace(ROLES, frequency="MS"),
            )


@pytest.mark.parametrize(
    "values", [[5], [0] * 9, [3] * 9, [-2, 4, -6, 8]], ids=["one", "zero", "constant", "negative"]
)
def test_short_constant_and_negative_series_are_series(values):
    panel = series_panel(table(a=values, b=[1] * 30), ROLES)
    np.testing.assert_array_equal(panel.y[0, : len(values)], values)
    assert panel.gaps["shorter_than_a_season"] == 1


def test_ids_are_texts_and_whole_floats_lose_their_point():
    frame = table(a=[1, 2], b=[3, 4])
    numbers = frame["ward"].map({"a": 10.0, "b": 9.0})
    assert series_panel(frame.assign(ward=numbers), ROLES).ids.tolist() == ["10", "9"]


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        (replace(ROLES, id=None), "needs id; name the column"),
        (replace(ROLES, time=None), "needs time; name the column"),
        (replace(ROLES, horizon=-1), "horizon is -1"),
        (replace(ROLES, target="hours"), "'hours' has two roles"),
        (replace(ROLES, target="bed"), r"no column 'bed' \(did you mean 'beds'\?\)"),
    ],
)
def test_roles_that_cannot_be_are_refused(roles, problem):
    with pytest.raises((ConfigurationError, DataValidationError), match=problem):
        series_panel(table(a=[1, 2, 3]), roles)


def test_the_frequency_that_is_given_is_used():
    frame = table(a=[1, None, None, 2])
    panel = series_panel(frame, replace(ROLES, frequency="QS"))
    np.testing.assert_array_equal(panel.y, [[1, 2]])


def test_a_calendar_that_cannot_be_held_says_so():
    frame = table(a=[1, 2, 3])
    hours = frame.assign(month=["1700-01-01T00", "1700-01-01T01", "2100-01-01T02"])
    many = pd.concat([hours.assign(ward=f"w{i}") for i in range(200)])
    with pytest.raises(DataValidationError, match="too many to hold; check the oldest"):
        series_panel(many, ROLES)


def test_filling_is_the_straight_line_of_numpy():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(20, 15))
    values[rng.random(values.shape) < 0.4] = np.nan
    values[:, 0] = np.nan
    for row, got in zip(values, filled(values), strict=True):
        known = np.flatnonzero(~np.isnan(row))
        expected = np.interp(np.arange(15), known, row[known])
        expected[: known[0]] = np.nan
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_the_callers_table_is_not_changed():
    frame = table(a=[1, None, 3], b=[1, 2, 3])
    before = frame.copy(deep=True)
    series_panel(frame, ROLES, "fill")
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize("zone", ["+10:00", "Z"])
def test_times_with_a_zone_and_without_one_are_not_mixed(zone: str):
    """Read as UTC, one ward would be ten hours ahead of the others."""
    hours = [f"2026-01-01T{hour:02}:00" for hour in range(24)]
    plain = pd.DataFrame({"ward": "a", "hour": hours, "beds": 1.0})
    other = plain.assign(ward="b", hour=[hour + zone for hour in hours])
    roles = Roles("beds", time="hour", id="ward", horizon=2)
    series_panel(plain, roles)
    with pytest.raises(
        DataValidationError, match=r"'hour' has times with a zone and times without one; give all"
    ):
        series_panel(pd.concat([plain, other]), roles)
