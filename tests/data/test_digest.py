from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.batches import TABLE
from tsclust_model.data.digest import content_digest
from tsclust_model.data.tables import read_table, write_table

SECRET = "Jane Doe 4711"
ROWS = st.lists(
    st.tuples(
        st.integers(-(2**53), 2**53),
        st.none() | st.floats(allow_nan=False, allow_infinity=False),
        st.none() | st.from_regex("w[a-zäß ,']{0,5}", fullmatch=True),
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)


def frame_of(rows: list[tuple]) -> pd.DataFrame:
    n, x, text, flag = zip(*rows, strict=True)
    return pd.DataFrame(
        {
            "n": np.array(n, dtype=np.int64),
            "x": np.array(x, dtype=np.float64),
            "text": pd.Series(text, dtype="str"),
            "flag": np.array(flag),
        }
    )


@settings(max_examples=50)
@given(rows=ROWS)
def test_a_table_has_one_digest_in_csv_in_parquet_and_in_memory(rows: list[tuple]):
    frame = frame_of(rows)
    digests = {content_digest(frame)}
    for suffix in ("csv", "parquet"):
        target = write_table(frame, f"memory://digests/t.{suffix}")
        digests.add(content_digest(read_table(target, text_columns=["text"])))
    assert len(digests) == 1


@given(rows=ROWS, data=st.data())
def test_a_digest_is_another_one_when_any_cell_changes(rows: list[tuple], data: st.DataObject):
    frame = frame_of(rows)
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.integers(0, 3))
    cells = list(rows[row])
    others = {0: cells[0] + 1, 1: 0.5 if cells[1] != 0.5 else None, 2: f"{cells[2]}w"}
    cells[column] = others.get(column, not cells[3])
    changed = frame_of([*rows[:row], tuple(cells), *rows[row + 1 :]])
    assert content_digest(changed) != content_digest(frame)


@given(rows=ROWS, order=st.permutations(["n", "x", "text", "flag"]))
def test_the_order_of_columns_and_the_index_leave_a_digest_as_it_is(
    rows: list[tuple], order: list[str]
):
    frame = frame_of(rows)
    moved = frame[order].set_index(pd.Index(range(5, 5 + len(frame)), name="i"))
    assert content_digest(moved) == content_digest(frame)


@pytest.mark.parametrize(
    "change",
    [
        lambda frame: frame.iloc[::-1],
        lambda frame: frame.iloc[:-1],
        lambda frame: frame.rename(columns={"count": "counts"}),
        lambda frame: frame.rename(columns={"count": "ratio", "ratio": "count"}),
        lambda frame: frame.astype({"count": float}),
        lambda frame: frame.astype({"count": str}),
        lambda frame: frame.drop(columns="flag"),
        lambda frame: frame.assign(name=["a", None, "c"]),
    ],
    ids=["row order", "a row", "a name", "two names", "a type", "text", "a column", "a gap"],
)
def test_rows_names_and_types_count_in_a_digest(
    change: Callable[[pd.DataFrame], pd.DataFrame],
):
    assert content_digest(change(TABLE)) != content_digest(TABLE)


@pytest.mark.parametrize("unit", ["days", "microseconds", "nanoseconds"])
def test_a_change_in_the_last_of_many_rows_counts(unit: str):
    days = pd.Series([pd.Timestamp("2026-01-01")] * 20_000, dtype="datetime64[ns]")
    frame = pd.DataFrame({"x": 0.0, "day": days})
    other = frame.copy()
    other.loc[19_999, "day"] += pd.Timedelta(1, unit)
    assert content_digest(other) != content_digest(frame)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (pd.Series(["a", None]), pd.Series(["a", None], dtype="category")),
        (pd.Series(["a", None]), pd.Series(["a", None], dtype=object)),
        (pd.Series([1, 2]), pd.Series([1, 2], dtype="int16")),
        (pd.Series([0.5, 2]), pd.Series([0.5, 2], dtype="float32")),
        (
            pd.Series(["2026-01-01"], dtype="datetime64[ns]"),
            pd.Series(["2026-01-01"], dtype="datetime64[s]"),
        ),
    ],
    ids=["category", "object", "small int", "small float", "time unit"],
)
def test_how_a_value_is_stored_does_not_count_in_a_digest(left: pd.Series, right: pd.Series):
    assert content_digest(pd.DataFrame({"x": left})) == content_digest(pd.DataFrame({"x": right}))


@pytest.mark.parametrize(
    ("dtype", "values"),
    [("Float64", [1.0, 2.0, 3.0]), ("Int64", [1, 2, 3]), ("boolean", [True, True, False])],
)
def test_what_a_gap_once_held_does_not_count_in_a_digest(dtype: str, values: list):
    erased = pd.DataFrame({"x": pd.array(values, dtype=dtype)})
    erased.loc[1, "x"] = pd.NA
    never = pd.DataFrame({"x": pd.array([values[0], pd.NA, values[2]], dtype=dtype)})
    pd.testing.assert_frame_equal(erased, never)
    assert content_digest(erased) == content_digest(never)


def test_a_gap_is_a_gap_in_a_nullable_column_too():
    plain = pd.DataFrame({"x": [1.0, np.nan]})
    assert content_digest(plain.astype("Float64")) == content_digest(plain)


def test_a_part_of_a_table_has_the_digest_of_a_table_of_its_own():
    own = pd.DataFrame(TABLE.iloc[1:].to_dict("list"))
    assert content_digest(TABLE.iloc[1:]) == content_digest(own)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (["ab", "c"], ["a", "bc"]),
        (["", "a"], [None, "a"]),
        ([0.0, 1.0], [np.nan, 1.0]),
        (pd.array([False, True]), pd.array([None, True], dtype="boolean")),
        ([datetime.date(2026, 1, 1)], [datetime.date(2026, 1, 2)]),
        ([decimal.Decimal("1.10")], [decimal.Decimal("1.11")]),
        (pd.to_timedelta([1, 2], unit="s"), pd.to_timedelta([1, 3], unit="s")),
        ([[1, 2], [3]], [[1], [2, 3]]),
        ([b"ab", b"c"], [b"a", b"bc"]),
        ([None, None], [None]),
        (pd.to_datetime(["2026-01-01"]), pd.to_datetime(["2026-01-01"]).tz_localize("UTC")),
    ],
    ids=[
        "texts",
        "no text",
        "zero",
        "false",
        "date",
        "decimal",
        "span",
        "lists",
        "bytes",
        "nothing",
        "zone",
    ],
)
def test_values_of_every_kind_count_in_a_digest(left: Any, right: Any):
    first, second = pd.DataFrame({"x": left}), pd.DataFrame({"x": right})
    assert content_digest(first) == content_digest(first.copy())
    assert content_digest(first) != content_digest(second)


def test_names_cannot_be_moved_into_values():
    first, second = pd.DataFrame({"a": ["bc"]}), pd.DataFrame({"ab": ["c"]})
    assert content_digest(first) != content_digest(second)


def test_a_day_far_in_the_future_has_a_digest():
    frame = pd.DataFrame({"until": pd.to_datetime(["9999-12-31", "2026-01-01"])})
    assert content_digest(frame) != content_digest(frame.iloc[::-1])


def test_a_column_of_numbers_and_texts_has_a_digest():
    # Two csv files, of which one holds only numbers, make such a column.
    frame = pd.DataFrame({"code": pd.Series([1, SECRET], dtype=object)})
    other = pd.DataFrame({"code": pd.Series([2, SECRET], dtype=object)})
    assert content_digest(frame) != content_digest(other)


def test_a_digest_changes_nothing():
    frame = TABLE.copy()
    content_digest(frame)
    pd.testing.assert_frame_equal(frame, TABLE)
