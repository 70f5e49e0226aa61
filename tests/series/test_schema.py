from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from tsclust_model.data.roles import Roles
from tsclust_model.errors import DataValidationError
from tsclust_model.series.long_table import series_panel
from tsclust_model.series.schema import SeriesSchema, panel_rows, series_rows

ROLES = Roles("beds", time="month", id="ward", resources=("hours",), features=("heat",), horizon=3)
SCHEMA = SeriesSchema("beds", ("hours",), ("heat",), "MS", 3, 8, "ward", "month")


def long_table() -> pd.DataFrame:
    months = pd.date_range("2024-01-01", periods=5, freq="MS")
    frame = pd.DataFrame(
        {"ward": ["b"] * 5 + ["a"] * 2, "month": [*months, *months[:2]], "beds": range(7)}
    )
    return frame.assign(hours=frame["beds"] * 2, heat=1.5)


def row(**changes: object) -> dict[str, object]:
    values = {"beds": [1.0, 2.0, 4.0], "hours": [2.0, 4.0, 6.0], "heat": [0.0, 0.0, 1.0]}
    found = {"series_id": "a", "last_timestamp": pd.Timestamp("2024-03-31"), "y": values["beds"]}
    return found | {"hours": values["hours"], "heat": values["heat"]} | changes


def encode(*rows: dict[str, object]):
    return SCHEMA.encode(pd.DataFrame(rows))


def test_a_long_table_becomes_one_row_a_series():
    rows = series_rows(
        long_table().sample(frac=1, random_state=2), "ward", "month", "beds", ["hours"], ["heat"]
    )
    assert rows.to_dict("list") == {
        "series_id": ["a", "b"],
        "last_timestamp": [pd.Timestamp("2024-02-01"), pd.Timestamp("2024-05-01")],
        "y": [[5.0, 6.0], [0.0, 1.0, 2.0, 3.0, 4.0]],
        "hours": [[10.0, 12.0], [0.0, 2.0, 4.0, 6.0, 8.0]],
        "heat": [[1.5] * 2, [1.5] * 5],
    }
    assert all(type(value) is float for value in rows.loc[0, "y"])


def test_rows_read_back_are_the_panel_they_were_made_of():
    panel = series_panel(long_table(), ROLES)
    encoded = SCHEMA.encode(panel_rows(panel))
    assert encoded.status.tolist() == ["ok", "ok"]
    expected = SCHEMA.laid_out(panel.right_aligned())
    for name in ("beds", "hours", "heat"):
        np.testing.assert_array_equal(encoded.panel.values[name], expected.values[name])
    assert encoded.panel.ends.tolist() == expected.ends.tolist()
    assert encoded.panel.last_times.tolist() == panel.last_times.tolist()


def test_a_resource_that_starts_later_has_nulls_in_its_list():
    frame = long_table()
    frame.loc[0, "hours"] = np.nan
    rows = series_rows(frame, "ward", "month", "beds", ["hours"])
    assert rows.loc[1, "hours"] == [None, 2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    "form",
    [list, np.array, tuple, lambda y: np.array(y, dtype=np.float32), lambda y: [int(v) for v in y]],
    ids=["list", "array", "tuple", "float32", "whole numbers"],
)
def test_a_list_may_have_any_form(form):
    found = encode(row(y=form([1.0, 2.0, 4.0]))).panel.y
    np.testing.assert_array_equal(found, [[np.nan] * 5 + [1, 2, 4]])


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([1.0, None, 4.0], [1, 2.5, 4]),
        ([None, 2.0, 4.0], [np.nan, 2, 4]),
    ],
    ids=["inside", "before"],
)
def test_nulls_are_filled_as_gaps_are(given, expected):
    encoded = encode(row(y=given))
    assert encoded.status.tolist() == ["ok"]
    np.testing.assert_array_equal(encoded.panel.y[0, -3:], expected)
    if np.isnan(expected[0]):
        assert np.isnan(encoded.panel.values["heat"][0, -3])


@pytest.mark.parametrize("n_missing", [1, 2])
def test_a_series_that_ends_in_nulls_is_not_forecast_from_an_older_value(n_missing):
    values = [1.0, 2.0, 4.0, 8.0]
    y = values[:-n_missing] + [None] * n_missing
    encoded = encode(row(y=y, hours=values, heat=values))
    assert encoded.status.tolist() == ["no value at the end: y"]


def test_a_resource_that_is_not_known_at_the_end_yet_is_its_last_value():
    encoded = encode(row(y=[1.0, 2.0, 4.0], hours=[1.0, 2.0, None]))
    assert encoded.status.tolist() == ["ok"]
    np.testing.assert_array_equal(encoded.panel.values["hours"][0, -3:], [1, 2, 2])


def test_a_longer_series_keeps_its_newest_values():
    values = [float(i) for i in range(12)]
    found = encode(row(y=values, hours=values, heat=values)).panel
    np.testing.assert_array_equal(found.y, [values[-8:]])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"y": []}, "another length than y: hours, heat; missing: y"),
        ({"y": None, "hours": None, "heat": None}, "missing: y, hours, heat"),
        ({"y": [None] * 3}, "missing: y"),
        ({"hours": [None] * 3}, "missing: hours"),
        ({"heat": [None] * 3}, "ok"),
        ({"last_timestamp": None}, "missing: last_timestamp"),
        ({"y": [1.0, float("inf"), 2.0]}, "infinite: y"),
        ({"hours": [1.0, 1e300, 2.0]}, "out of range: hours"),
        ({"heat": [1.0]}, "another length than y: heat"),
        (
            {"y": ["Mrs", "Secret", "4711"]},
            "no list of numbers: y; another length than y: hours, heat",
        ),
        ({"series_id": None}, "ok"),
    ],
)
def test_a_row_that_cannot_be_scored_says_why_and_harms_no_other(changes, status):
    encoded = encode(row(), row(**changes), row())
    found = encoded.status.tolist()
    assert [found[0], found[2]] == ["ok", "ok"]
    assert sorted(found[1].split("; ")) == sorted(status.split("; "))
    np.testing.assert_array_equal(encoded.panel.y[[0, 2]], [[np.nan] * 5 + [1, 2, 4]] * 2)


def test_a_last_time_may_be_a_text_and_one_that_is_none_harms_no_other():
    frame = pd.DataFrame([row(), row(), row()])
    frame["last_timestamp"] = ["2024-03", "31/03/2024", "2024-03-31T00:00:00+02:00"]
    encoded = SCHEMA.encode(frame)
    assert encoded.status.tolist() == ["ok", "missing: last_timestamp", "ok"]
    assert encoded.panel.ends[[0, 2]].tolist() == [650, 650]


def test_a_column_that_is_absent_names_the_helper():
    with pytest.raises(DataValidationError, match=r"no column 'hours'.*series_rows"):
        SCHEMA.encode(pd.DataFrame([row()]).drop(columns="hours"))


def test_a_schema_survives_its_plain_form():
    assert SeriesSchema.from_dict(SCHEMA.to_dict()) == SCHEMA


def test_no_row_is_no_error():
    assert len(SCHEMA.encode(pd.DataFrame([row()]).head(0)).status) == 0
