from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
from tsclust_model.data.fitted_rows import FittedPeriods, FittedRows
from tsclust_model.data.roles import Roles
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import canonical_rows, training_data

ROWS = pd.DataFrame(
    {
        "a": [1.0, 2.5, np.nan, -0.0],
        "b": ["x", "y", None, "x"],
        "y": [0.1, 0.2, 0.3, 0.4],
        "id": ["7", "8", "9", None],
        "t": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]),
    }
)
OWN = ("a", "b", "y")


def of(rows: pd.DataFrame, keys=("id", "t")) -> FittedRows:
    return FittedRows.of(rows, OWN, keys, b"seed")


def test_rows_are_recognised_whatever_their_order_columns_and_types():
    fitted = of(ROWS)
    assert fitted.contains(ROWS).tolist() == [True] * 4
    assert fitted.contains(ROWS[:0]).tolist() == []
    other = ROWS.iloc[::-1].assign(extra=1)[["t", "y", "extra", "id", "b", "a"]]
    assert fitted.contains(other).tolist() == [True] * 4
    single = ROWS.astype({"a": np.float32, "y": np.float32, "b": "category"})
    assert fitted.contains(single).tolist() == [True] * 4
    assert fitted.contains(ROWS.assign(a=[1, 2.5, np.nan, 0])).tolist() == [True] * 4
    ids = ROWS.assign(id=[7.0, 8.0, 9.0, np.nan], t=ROWS["t"].astype("datetime64[s]"))
    assert fitted.contains(ids).tolist() == [True] * 4


@pytest.mark.parametrize("column", ["a", "b", "y", "id", "t"])
def test_a_row_that_differs_in_any_column_is_new(column):
    changed = ROWS.head(2).copy()
    changed[column] = changed[column].to_numpy()[::-1]
    assert of(ROWS).contains(changed).tolist() == [False, False]


def test_without_its_id_or_time_an_equal_row_counts_as_fitted():
    copies = ROWS.assign(id="new", t=pd.Timestamp("2030-01-01"))
    assert of(ROWS).contains(copies).tolist() == [False] * 4
    assert of(ROWS).contains(copies.drop(columns="id")).tolist() == [True] * 4
    assert of(ROWS).contains(copies.assign(id=[None, "1", "1", "1"]))[0]
    assert of(ROWS, keys=()).contains(copies).tolist() == [True] * 4


def test_models_of_other_data_have_other_hashes():
    one, other = (FittedRows.of(ROWS, OWN, (), seed) for seed in (b"one", b"other"))
    assert not set(one.contents.tolist()) & set(other.contents.tolist())
    assert one.contains(ROWS).tolist() == other.contains(ROWS).tolist()
    again = FittedRows.of(ROWS, OWN, (), b"one")
    assert again.contents.tolist() == one.contents.tolist()


def test_hashes_take_eight_bytes_a_row_and_eight_with_keys():
    arrays = of(ROWS).to_arrays()
    assert (arrays["contents"].nbytes, arrays["keyed"].nbytes) == (32, 32)
    assert of(ROWS, keys=()).keyed.size == 0
    back = FittedRows.from_arrays(arrays)
    assert back.contains(ROWS).tolist() == [True] * 4
    assert (back.columns, back.keys) == (OWN, ("id", "t"))


def test_series_are_known_up_to_their_last_fitted_period():
    fitted = FittedPeriods.of(["b", "a"], np.array([7, 3]), b"seed")
    assert fitted.last_of(["a", "b", "c"]).tolist() == [3, 7, np.iinfo(np.int64).min]
    assert FittedPeriods.from_arrays(fitted.to_arrays()).last_of(["b"]).tolist() == [7]
    assert FittedPeriods.of([], np.array([]), b"").last_of(["a"])[0] < 0


def test_a_fit_of_a_table_knows_its_rows_from_csv_and_parquet(generation, hospital, tmp_path):
    fitted = generation.fitted
    assert len(fitted.contents) == len(fitted.keyed) == len(hospital)
    csv = pd.read_csv(io.StringIO(hospital.sample(frac=1, random_state=0).to_csv()))
    assert generation.fitted_part(csv).all()
    hospital.to_parquet(tmp_path / "rows.parquet")
    assert generation.fitted_part(pd.read_parquet(tmp_path / "rows.parquet")).all()
    new = hospital.assign(admission_time=hospital["admission_time"] + pd.Timedelta(days=4000))
    assert not generation.fitted_part(new).any()


def test_a_fit_on_rows_of_the_history_knows_and_reads_booleans_of_the_table(generation, hospital):
    table = hospital.head(200).astype({"emergency": bool})
    kept = generation.canonical_rows(table)
    assert set(kept["emergency"]) == {"false", "true"}
    roles = replace(HOSPITAL_ROLES, features=tuple(generation.schema.names))
    data = training_data(kept, roles, HOSPITAL_CONFIG)
    written = pd.read_csv(io.StringIO(table.to_csv(index=False)), dtype={"emergency": str})
    assert set(written["emergency"]) == {"False", "True"}
    np.testing.assert_array_equal(data.schema.encode(written).X, data.X)
    rows = canonical_rows(written, data.schema, roles, generation.outcome)
    assert data.fitted.contains(rows).all()


def test_a_saved_state_keeps_them_and_an_older_one_does_not_know(generation, hospital):
    parts = generation.to_parts()
    assert Generation.from_parts(parts).fitted_part(hospital).all()
    older = {name: part for name, part in parts.items() if name != "fitted-rows.npz"}
    assert Generation.from_parts(older).fitted_part(hospital) is None
    assert "salt" not in repr(generation)


def test_no_hashes_where_they_are_switched_off(hospital):
    config = replace(HOSPITAL_CONFIG, row_hashes=False)
    assert training_data(hospital, HOSPITAL_ROLES, config).fitted is None


def test_rows_without_id_and_time_are_known_by_their_content(hospital):
    roles = Roles(HOSPITAL_ROLES.target)
    own = hospital.drop(columns=["patient_id", "admission_time", "nursing_hours"])
    data = training_data(own.drop(columns="medication_cost"), roles, HOSPITAL_CONFIG)
    assert data.fitted.keys == ()
    assert data.fitted.keyed.size == 0
