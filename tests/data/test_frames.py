from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from tests.support import planned_wards
from tsclust_model.clustering.engine import AdaptiveClusteringEngine
from tsclust_model.data.columns import validate_batch_data, validate_input_data
from tsclust_model.data.digest import content_digest
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.history import DataVersioner
from tsclust_model.data.quality import validate_data_quality
from tsclust_model.errors import DataValidationError
from tsclust_model.rows.model import Generation
from tsclust_model.series.model import SeriesGeneration
from tsclust_model.series.schema import series_rows
from tsclust_model.series.scoring import score_series

TABLE = pd.DataFrame(
    {
        "age": [31.0, 64.0, 47.5],
        "beds": [1, 2, 3],
        "ward": ["A", None, "日本"],
        "planned": [True, False, True],
        "day": pd.to_datetime(["2026-01-01", "2026-01-02", None]),
        "gap": [1.5, None, 2.5],
    }
)
OTHERS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": lambda frame: pl.from_pandas(frame.reset_index(drop=True)),
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
}


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> Callable[[pd.DataFrame], Any]:
    return OTHERS[request.param]


def test_a_table_of_another_library_holds_what_it_held(other):
    pd.testing.assert_frame_equal(as_pandas(other(TABLE)), TABLE, check_dtype=False)
    assert content_digest(as_pandas(other(TABLE))) == content_digest(TABLE)


def test_numbers_of_arrow_are_not_copied():
    numbers = np.arange(1000.0)
    table = pa.table({"a": numbers, "b": numbers[::-1].copy()})
    frame = as_pandas(table)
    assert np.shares_memory(frame["a"].to_numpy(), numbers)


def test_numbers_of_polars_are_not_copied():
    table = pl.DataFrame({"a": np.arange(1000.0), "b": np.arange(1000)})
    frame = as_pandas(table)
    for name in table.columns:
        assert np.shares_memory(frame[name].to_numpy(), table[name].to_numpy())


def test_a_column_is_taken_as_well():
    column = as_pandas(pl.Series("stay", [1.0, 2.0]))
    pd.testing.assert_series_equal(column, pd.Series([1.0, 2.0], name="stay"))


@pytest.mark.parametrize(
    "given", [TABLE, TABLE["age"], np.zeros((2, 2)), [[1.0]], {"age": [1.0]}, None, 3, "text"]
)
def test_anything_else_comes_back_as_it_is(given: Any):
    assert as_pandas(given) is given


def test_a_table_that_is_not_computed_is_refused():
    with pytest.raises(DataValidationError, match=r"LazyFrame, which is not computed.* collect"):
        as_pandas(pl.LazyFrame({"a": [1]}))


def test_matrices_are_checked_alike(other):
    numbers = TABLE[["age", "beds"]]
    X, _ = validate_input_data(other(numbers))
    np.testing.assert_array_equal(X, numbers.to_numpy(float))
    batch = validate_batch_data(other(TABLE), ["beds", "age"])
    np.testing.assert_array_equal(batch, TABLE[["beds", "age"]].to_numpy(float))
    with pytest.raises(DataValidationError, match="missing or infinite values in: gap"):
        validate_input_data(other(TABLE[["age", "gap"]]))


def test_an_engine_knows_the_names_of_the_columns(other, hospital: pd.DataFrame):
    numbers = hospital[["age", "heart_rate", "temperature"]].astype(float).head(400)
    plain, given = AdaptiveClusteringEngine(), AdaptiveClusteringEngine()
    expected = plain.fit(numbers)
    np.testing.assert_array_equal(given.fit(other(numbers)).labels, expected.labels)
    assert given.features_ == list(numbers)
    mixed = numbers[["temperature", "age", "heart_rate"]]
    np.testing.assert_array_equal(given.predict(other(mixed)), plain.predict(numbers))


def test_rows_are_forecast_alike(other, generation: Generation, hospital: pd.DataFrame):
    rows = hospital.tail(200)
    expected = generation.predict(rows.reset_index(drop=True))
    pd.testing.assert_frame_equal(generation.predict(other(rows)), expected)


def test_series_are_forecast_alike(other, plan_model: SeriesGeneration):
    long = planned_wards()
    rows = series_rows(long, model=plan_model)
    pd.testing.assert_frame_equal(series_rows(other(long), model=plan_model), rows)
    expected = plan_model.predict(rows)
    pd.testing.assert_frame_equal(plan_model.predict(other(rows)), expected)
    pd.testing.assert_frame_equal(
        score_series(plan_model, other(long)), score_series(plan_model, long)
    )


def test_a_history_has_one_version_of_a_table_in_any_library(other, tmp_path):
    history = DataVersioner(tmp_path)
    version = history.register(TABLE)
    assert history.register(other(TABLE)) == version


def test_quality_is_checked_alike(other):
    expected = validate_data_quality(TABLE, "ingest")
    assert validate_data_quality(other(TABLE), "ingest") == expected
