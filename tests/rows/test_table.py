from __future__ import annotations

import dataclasses
import datetime
import decimal
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import (
    in_time_order,
    outcome,
    validate_batch_data,
    validate_input_data,
    validate_target,
)
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.schema import Feature, Schema
from tsclust_model.rows.table import TrainingData, canonical_rows, training_data
from tsclust_model.rows.targets import NumberTarget

# Stand in bad rows; no message may repeat them.
SECRET = "JaneDoe"
SECRET_NUMBER = 471147114711

IMPUTE = PipelineConfig(missing_values="impute")
# What a model has learnt of a table with a column of each kind.
SCHEMA = Schema(
    features=(
        Feature("age", "number"),
        Feature("ward", "category", ("cardiology", "surgery")),
        Feature("urgent", "boolean", ("false", "true")),
        Feature("weight", "number"),
    ),
    cluster_features=("age", "weight"),
)


def table(**columns: Any) -> pd.DataFrame:
    """Four rows that are fit for training, with `columns` changed or added."""
    plain = {"age": [30.0, 40.0, 50.0, 60.0], "ward": ["a", "b", "a", "c"], "y": [1.0, 2, 3, 4]}
    return pd.DataFrame(plain | columns)


def trained(
    config: PipelineConfig | None = None, roles: Roles | None = None, **columns: Any
) -> TrainingData:
    return training_data(table(**columns), roles or Roles("y"), config or PipelineConfig())


def feature(column: Any, config: PipelineConfig = IMPUTE) -> tuple[Feature, list[float]]:
    """What becomes of a column in training, and its part of the matrix (None is missing)."""
    data = trained(config, x=column)
    position = data.schema.names.index("x")
    return data.schema.features[position], nones(data.X[:, position])


def nones(values: np.ndarray) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def batch(**columns: Any) -> pd.DataFrame:
    """One row that `SCHEMA` can score, with `columns` changed or added."""
    plain = {"age": [30.0], "ward": ["surgery"], "urgent": [True], "weight": [70.5]}
    return pd.DataFrame(plain | columns)


def refusal(call: Callable[..., object], *args: Any, **kwargs: Any) -> str:
    """The one line in which a call refuses its data; it never repeats the data."""
    with pytest.raises(DataValidationError) as caught:
        call(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    assert SECRET.lower() not in message.lower()
    assert str(SECRET_NUMBER) not in message
    return message


# Kinds of columns in training


def test_numbers_texts_and_booleans_are_told_apart():
    data = trained(urgent=[True, False, True, False], n=[1, 2, 3, 5])
    assert data.schema == Schema(
        features=(
            Feature("age", "number"),
            Feature("ward", "category", ("a", "b", "c")),
            Feature("urgent", "boolean", ("false", "true")),
            Feature("n", "number"),
        ),
        cluster_features=("age", "n"),
    )
    assert data.X.tolist() == [
        [30.0, 0.0, 1.0, 1.0],
        [40.0, 1.0, 0.0, 2.0],
        [50.0, 0.0, 1.0, 3.0],
        [60.0, 2.0, 0.0, 5.0],
    ]
    assert data.y.tolist() == [1.0, 2.0, 3.0, 4.0]
    assert data.resources == {}
    assert data.groups is None


@pytest.mark.parametrize(
    "column",
    [
        pd.Series([1, 2, 5, 4], dtype="int8"),
        pd.Series([1, 2, 5, 4], dtype="float32"),
        pd.Series([1, 2, 5, 4], dtype="Int64"),
        pd.Series([1, 2, 5, 4], dtype="int64[pyarrow]"),
        pd.Series([1, 2.0, 5, 4], dtype=object),
        pd.Series([decimal.Decimal(n) for n in (1, 2, 5, 4)], dtype=object),
        pd.arrays.SparseArray([1, 2, 5, 4]),
    ],
    ids=["int8", "float32", "Int64", "arrow", "object", "decimal", "sparse"],
)
def test_numbers_are_numbers_however_they_are_stored(column: Any):
    assert feature(column) == (Feature("x", "number"), [1.0, 2.0, 5.0, 4.0])


@pytest.mark.parametrize(
    "column",
    [
        [True, None, False, True],
        pd.Series([True, None, False, True], dtype="boolean"),
        pd.Series([True, np.nan, False, True], dtype=object),
        pd.Series([True, None, False, True], dtype="category"),
    ],
    ids=["object with None", "nullable", "object with NaN", "category"],
)
def test_a_boolean_column_may_have_gaps(column: Any):
    assert feature(column) == (Feature("x", "boolean", ("false", "true")), [1.0, None, 0.0, 1.0])


@pytest.mark.parametrize("dtype", ["str", "object", "category", "string[pyarrow]"])
def test_texts_are_categories_in_sorted_order(dtype: str):
    column = pd.Series(["b", "a", None, "b"], dtype=dtype)
    assert feature(column) == (Feature("x", "category", ("a", "b")), [1.0, 0.0, None, 1.0])


def test_codes_of_categories_are_positions_among_the_sorted_texts():
    texts = np.random.default_rng(0).choice(["z", "ab", "ä", "B", " a", "a"], 40).tolist()
    data = training_data(
        pd.DataFrame({"n": range(40), "x": texts, "y": 1.0}), Roles("y"), PipelineConfig()
    )
    known = sorted(set(texts))
    assert data.schema.features[1].categories == tuple(known)
    assert data.X[:, 1].tolist() == [known.index(text) for text in texts]


def test_a_column_of_type_category_is_a_category_even_if_it_holds_numbers():
    found, codes = feature(pd.Series([7, 3, 7, 5], dtype="category"))
    assert found == Feature("x", "category", ("3", "5", "7"))
    assert codes == [2.0, 0.0, 2.0, 1.0]


def test_numbers_in_texts_stay_texts():
    assert feature(["007", "08", "007", "1"])[0] == Feature("x", "category", ("007", "08", "1"))


def test_a_column_of_numbers_and_texts_is_a_category():
    column = pd.Series([1, "a", 2, "a"], dtype=object)
    assert feature(column) == (Feature("x", "category", ("1", "2", "a")), [0.0, 2.0, 1.0, 2.0])


def test_missing_markers_make_a_text_column_numeric():
    config = PipelineConfig(missing_values="impute", missing_markers=["?", ""])
    column = ["1.5", "?", "2", ""]
    assert feature(column, config) == (Feature("x", "number"), [1.5, None, 2.0, None])


def test_missing_markers_are_missing_among_texts_and_objects():
    config = PipelineConfig(missing_values="impute", missing_markers=["?"])
    assert feature(["u", "?", "", "u"], config) == (
        Feature("x", "category", ("", "u")),
        [1.0, None, 0.0, 1.0],
    )
    assert feature(pd.Series([1, "?", 2, 4], dtype=object), config) == (
        Feature("x", "number"),
        [1.0, None, 2.0, 4.0],
    )


@pytest.mark.parametrize("marker", ["?", "-", "NA", "n/a", "NULL", "missing", "Unknown", " ", "."])
def test_a_forgotten_missing_marker_is_pointed_at(marker: str):
    message = refusal(feature, ["1", marker, "2", str(SECRET_NUMBER)])
    assert message == (
        "column 'x' holds numbers and a text that seems to mean 'missing'; "
        "add that text to missing_markers"
    )


def test_a_column_that_looks_like_an_identifier_is_warned_about():
    frame = pd.DataFrame(
        {"n": range(150), "name": [f"{SECRET}-{i}" for i in range(150)], "y": range(150)}
    )
    with pytest.warns(UserWarning, match="'name' has 150 distinct texts in 150 rows") as caught:
        training_data(frame, Roles("y"), PipelineConfig())
    assert SECRET not in str(caught[0].message)


def test_a_text_column_of_few_rows_or_few_texts_is_not_warned_about():
    few_rows = pd.DataFrame({"n": range(100), "x": [f"t{i}" for i in range(100)], "y": 1.0})
    few_texts = pd.DataFrame({"n": range(300), "x": [f"t{i % 150}" for i in range(300)], "y": 1.0})
    for frame in (few_rows, few_texts):
        training_data(frame, Roles("y"), PipelineConfig())


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pd.date_range("2026-01-01", periods=4), "holds times, which are no features"),
        (pd.date_range("2026-01-01", periods=4, tz="Europe/Berlin"), "holds times, which are no"),
        (pd.to_timedelta([1, 2, 3, 4], unit="D"), "holds times, which are no features"),
        ([datetime.date(2026, 1, day) for day in (1, 2, 3, 4)], "holds date values"),
        (
            pd.Series([datetime.datetime(2026, 1, day) for day in (1, 2, 3, 4)], dtype=object),
            "holds datetime values",
        ),
        (pd.period_range("2026-01", periods=4, freq="M"), "holds period values"),
        ([[1], [2], [3], [SECRET_NUMBER]], "holds lists or mappings"),
        ([{"a": SECRET}, {}, {}, {}], "holds lists or mappings"),
        ([b"a", b"b", SECRET.encode(), b"d"], "holds bytes values"),
    ],
    ids=["time", "zone", "span", "date", "datetime", "period", "list", "mapping", "bytes"],
)
def test_a_column_that_is_no_feature_is_refused_and_named(column: Any, problem: str):
    message = refusal(feature, column)
    assert message.startswith(f"column 'x' {problem}")
    assert message.endswith("add it to drop_columns")


def test_a_column_that_is_no_feature_can_be_dropped():
    config = PipelineConfig(drop_columns=["x"])
    data = trained(config, x=pd.date_range("2026-01-01", periods=4))
    assert data.schema.names == ["age", "ward"]


def test_a_dropped_column_that_is_not_there_is_warned_of():
    for roles in (None, Roles("y", features=("age",))):
        with pytest.warns(UserWarning, match=r"names 'wart', .* \(did you mean 'ward'\?\)"):
            trained(PipelineConfig(drop_columns=["wart"]), roles)


# Values that cannot be trained on


def test_a_missing_value_is_refused_and_the_column_is_named():
    message = refusal(trained, x=[1, None, 3, None], z=["u", None, "", "v"], w=[1, 2, None, 4])
    assert message == (
        "column(s) with missing values (3 of 4 rows): x, z, w; "
        "fill them, or set missing_values to 'impute'"
    )


def test_missing_values_are_kept_as_gaps_when_they_are_imputed():
    data = trained(IMPUTE, x=[1, None, 3, 4], z=["u", None, "", "v"])
    assert nones(data.X[:, 2]) == [1.0, None, 3.0, 4.0]
    assert nones(data.X[:, 3]) == [0.0, None, None, 1.0]


@pytest.mark.parametrize("config", [PipelineConfig(), IMPUTE], ids=["error", "impute"])
@pytest.mark.parametrize(
    "column",
    [
        [SECRET_NUMBER] * 4,
        [SECRET] * 4,
        [True] * 4,
        [None] * 4,
        [np.nan] * 4,
        [""] * 4,
        pd.Series([None] * 4, dtype="str"),
        pd.Series([pd.NA] * 4, dtype="Int64"),
        pd.Series([pd.NA] * 4, dtype="boolean"),
    ],
    ids=["number", "string", "boolean", "object", "float", "markers", "str", "Int64", "boolean NA"],
)
def test_a_constant_column_is_left_out_and_named(column: Any, config: PipelineConfig):
    expected = "^left out, because they hold one value only or none: x, z$"
    with pytest.warns(UserWarning, match=expected):
        data = trained(config, x=column, z=column)
    assert data.schema.names == ["age", "ward"]
    assert data.X.tolist() == [[30.0, 0.0], [40.0, 1.0], [50.0, 0.0], [60.0, 2.0]]
    assert data.given == ("age", "ward", "x", "z")


def test_a_constant_column_leaves_the_clustering_too():
    config = PipelineConfig(cluster_features=["age", "x"])
    with pytest.warns(UserWarning, match="left out"):
        data = trained(config, x=[5, 5, 5, 5])
    assert data.schema.cluster_features == ("age",)


def test_a_table_without_a_column_that_varies_is_refused():
    assert refusal(trained, age=[SECRET_NUMBER] * 4, ward=[None] * 4) == (
        "every feature holds one value only, or none: age, ward; name columns that vary"
    )


def few_whole_numbers(n_rows: int, n_values: int, step: float = 1.0) -> pd.DataFrame:
    return pd.DataFrame({"x": np.arange(n_rows) * 1.0, "y": (np.arange(n_rows) % n_values) * step})


def test_a_target_of_few_whole_numbers_asks_whether_they_are_classes():
    expected = (
        "^target 'y' holds 3 different whole numbers and is predicted as a number; if they are "
        r"classes, set task to 'classification' \(--task classification\), if not, to "
        "'regression'$"
    )
    with pytest.warns(UserWarning, match=expected):
        data = training_data(few_whole_numbers(50, 3), Roles("y"), PipelineConfig())
    assert data.target == NumberTarget("y")


@pytest.mark.parametrize(
    ("frame", "task"),
    [
        (few_whole_numbers(49, 3), "auto"),
        (few_whole_numbers(60, 11), "auto"),
        (few_whole_numbers(60, 3, 0.5), "auto"),
        (few_whole_numbers(60, 3), "regression"),
        (few_whole_numbers(60, 3), "classification"),
    ],
    ids=["few rows", "many values", "fractions", "told: number", "told: classes"],
)
def test_a_target_that_is_clear_asks_nothing(frame: pd.DataFrame, task: str):
    training_data(frame, Roles("y"), PipelineConfig(task=task))


def test_a_column_of_one_value_and_gaps_tells_something():
    assert feature([1, 1, None, 1])[1] == [1.0, 1.0, None, 1.0]


@pytest.mark.parametrize("value", [np.inf, -np.inf])
@pytest.mark.parametrize("config", [PipelineConfig(), IMPUTE], ids=["error", "impute"])
def test_an_infinite_value_is_refused_and_the_column_named(config: PipelineConfig, value: float):
    message = refusal(trained, config, x=[1, value, SECRET_NUMBER, 4])
    assert message == "column(s) with infinite values: x; replace them or remove the rows"


def test_a_value_whose_square_overflows_is_refused_and_the_column_named():
    message = refusal(trained, x=[1, 2, -1.5e200, 4])
    assert message == "column(s) with values beyond 1e+100: x; correct them"


def test_a_whole_number_beyond_floating_point_is_refused_and_the_column_named():
    assert "'x'" in refusal(trained, x=pd.Series([1, 2, SECRET_NUMBER**100, 4], dtype=object))


def test_many_broken_columns_are_listed_up_to_the_twentieth():
    columns = {f"c{i}": [1.0, 2.0, 3.0, np.inf] for i in range(25)}
    message = refusal(trained, **columns)
    assert "c0, c1, " in message
    assert "c19 and 5 more" in message


@pytest.mark.parametrize("n_rows", [0, 1])
def test_a_table_of_too_few_rows_is_refused_for_its_rows(n_rows: int):
    message = refusal(training_data, table().iloc[:n_rows], Roles("y"), PipelineConfig())
    assert "row" in message
    assert "drop_columns" not in message


def test_fewer_rows_than_a_cluster_needs_are_refused():
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 30})
    assert "4 rows are fewer than min_cluster_size=30" in refusal(fit_generation, trained(), config)


# Names and roles


def test_duplicated_column_names_in_memory_are_refused_and_named():
    frame = pd.DataFrame([[1, 2, SECRET, 3.0]] * 4, columns=["a", "b", "a", "y"])
    assert refusal(training_data, frame, Roles("y"), PipelineConfig()) == (
        "duplicated column names: a; rename them"
    )


def test_columns_without_text_names_can_be_trained_on():
    frame = pd.DataFrame(np.arange(12.0).reshape(4, 3)).assign(y=[1.0, 2, 3, 4])
    data = training_data(frame, Roles("y"), PipelineConfig())
    assert data.schema.names == ["0", "1", "2"]
    np.testing.assert_array_equal(data.X, np.arange(12.0).reshape(4, 3))


def test_a_column_has_one_role():
    roles = Roles("y", resources=("cost", "hours"), time="day", id="who")
    data = trained(
        roles=roles,
        cost=[1, 2, 3, 4],
        hours=[5.0, 6, 7, 8],
        day=[4, 3, 2, 1],
        who=["p", "q", "p", "r"],
    )
    assert data.schema.names == ["age", "ward"]
    assert {name: values.tolist() for name, values in data.resources.items()} == {
        "cost": [4.0, 3.0, 2.0, 1.0],
        "hours": [8.0, 7.0, 6.0, 5.0],
    }
    assert data.y.tolist() == [4.0, 3.0, 2.0, 1.0]
    assert data.groups.tolist() == [0, 1, 2, 1]


def test_features_can_be_named_and_come_in_that_order_once():
    data = trained(roles=Roles("y", features=("ward", "age", "ward")))
    assert data.schema.names == ["ward", "age"]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (Roles("Y"), "the data has no target column 'Y'"),
        (Roles("agee"), "no target column 'agee' (did you mean 'age'?); add it or correct"),
        (Roles("y", features=("age", "wards")), "no feature column 'wards' (did you mean 'ward'?)"),
        (Roles("y", features=("q", "age", "z")), "no feature column 'q', 'z'; add it"),
        (Roles("y", resources=("cost",)), "no resource column 'cost'"),
        (Roles("y", time="day"), "no column 'day'"),
        (Roles("y", id="who"), "no column 'who'"),
        (Roles("y", resources=("age", "y")), "'y' is the target and a resource; choose one"),
        (Roles("y", features=("age", "y")), "'y' is the target and also a feature"),
        (
            Roles("y", features=("age", "ward"), resources=("age",)),
            "'age' is a resource and also a feature",
        ),
    ],
)
def test_roles_that_do_not_fit_the_table_are_refused(roles: Roles, message: str):
    assert message in refusal(trained, roles=roles)


@pytest.mark.parametrize(
    "roles",
    [
        Roles("y", time="y"),
        Roles("y", id="y"),
        Roles("y", resources=("age",), time="age"),
        Roles("y", resources=("age",), id="age"),
    ],
)
def test_what_is_predicted_can_neither_order_nor_group_the_rows(roles: Roles):
    name = "age" if roles.resources else "y"
    assert f"'{name}'" in refusal(trained, roles=roles, other=[1, 2, 3, 5])


def test_a_dropped_column_that_is_named_as_a_feature_is_refused():
    config = PipelineConfig(drop_columns=["ward"])
    with pytest.raises((ConfigurationError, DataValidationError), match="ward"):
        trained(config, roles=Roles("y", features=("age", "ward")))


def test_a_table_without_a_feature_is_refused():
    config = PipelineConfig(drop_columns=["age", "ward"])
    assert refusal(trained, config).startswith("no feature column is left")


def test_a_table_without_a_numeric_feature_is_refused():
    assert refusal(trained, roles=Roles("y", features=("ward",))) == (
        "no numeric feature to find segments on; add one, or convert a text column to numbers"
    )


def test_clustered_features_can_be_chosen():
    config = PipelineConfig(cluster_features=["weight"])
    schema = trained(config, weight=[1, 2, 3, 4]).schema
    assert schema.cluster_features == ("weight",)
    assert schema.cluster_columns.tolist() == [2]
    assert schema.categorical_columns == [1]
    assert schema.text_columns == ["ward"]


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("agee", r"'agee' is not a feature \(did you mean 'age'\?\)"),
        ("y", "'y' is not a feature"),
        ("ward", "'ward' is text; segments are found on numbers only"),
    ],
)
def test_a_clustered_column_that_is_no_numeric_feature_is_refused(name: str, problem: str):
    with pytest.raises(ConfigurationError, match=f"cluster_features: {problem}"):
        trained(PipelineConfig(cluster_features=["age", name]))


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        ([1, None, 3, None], "y is missing or infinite in 2 row(s); remove those rows"),
        ([1, np.inf, 3, SECRET_NUMBER], "y is missing or infinite in 1 row(s)"),
        (pd.Series([1, None, 3, 4], dtype="Int64"), "y is missing or infinite in 1 row(s)"),
        (["1", "2", "3", SECRET], "target 'y' holds numbers and, in 1 row(s), texts; correct them"),
        ([[1], [2], [3], [4]], "target 'y' holds lists or mappings; give numbers, or classes"),
        (pd.date_range("2026-01-01", periods=4), "target 'y' is datetime64[us], not numbers"),
    ],
    ids=["missing", "infinite", "nullable", "text", "lists", "time"],
)
def test_a_target_that_is_no_number_in_every_row_is_refused(column: Any, problem: str):
    assert problem in refusal(trained, y=column)


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (["1", "2", "3", SECRET], "target 'y' is str, not numbers; give a numeric column"),
        ([True, False, True, False], "target 'y' is bool, not numbers"),
    ],
    ids=["text", "boolean"],
)
def test_where_a_number_is_asked_for_a_class_is_refused(column: list, problem: str):
    config = PipelineConfig(task="regression")
    assert problem in refusal(lambda **columns: trained(config, **columns), y=column)


def test_a_resource_that_is_no_number_is_refused_by_its_name():
    roles = Roles("y", resources=("cost",))
    assert refusal(trained, roles=roles, cost=[SECRET] * 4).startswith("resource 'cost' is str")
    assert refusal(trained, roles=roles, cost=[1, None, 3, 4]).startswith("cost is missing or inf")


def test_an_outcome_is_read_by_name():
    assert outcome(table(), "y", "target").tolist() == [1.0, 2.0, 3.0, 4.0]
    assert "no target 'z'" in refusal(outcome, table(), "z", "target")


def test_rows_of_one_id_have_one_number():
    who = ["p", "q", "p", "r"]
    groups = trained(roles=Roles("y", id="who"), who=who).groups
    assert groups.dtype == np.int64
    for i in range(4):
        for j in range(4):
            assert (groups[i] == groups[j]) == (who[i] == who[j])


@pytest.mark.parametrize(
    "who",
    [
        [SECRET, None, "q", None],
        [SECRET_NUMBER, np.nan, 2, np.nan],
        pd.Series([SECRET, None, "q", None], dtype="category"),
        pd.Series([SECRET_NUMBER, None, 2, None], dtype="Int64"),
        [SECRET, "", "q", ""],
    ],
    ids=["text", "number", "category", "nullable", "marker"],
)
def test_an_id_with_missing_values_is_refused(who: Any):
    assert refusal(trained, roles=Roles("y", id="who"), who=who) == (
        "id column 'who' is missing in 2 row(s); fill or remove them"
    )


def test_training_changes_nothing_of_the_table():
    frame = table(x=["1", "?", "2", "3"], day=["2026-01-02", "2026-01-01", "2026-01-04", "2026"])
    before = frame.copy(deep=True)
    config = PipelineConfig(missing_values="impute", missing_markers=["?"])
    training_data(frame, Roles("y", time="day"), config)
    pd.testing.assert_frame_equal(frame, before)


# Time order


@pytest.mark.parametrize(
    "times",
    [
        [4, 3, 1, 2],
        [4.5, 3.5, -np.inf, 2.5],
        pd.Series([4, 3, 1, 2], dtype="Int64"),
        pd.Series([4, 3, 1, 2], dtype=object),
        pd.to_datetime(["2026-01-04", "2026-01-03", "2026-01-01", "2026-01-02"]),
        pd.to_datetime(
            ["2026-01-04", "2026-01-03", "2026-01-01", "2026-01-02"], format="ISO8601"
        ).tz_localize("Europe/Berlin"),
        ["2026-01-04", "2026-01-03", "2026-01-01", "2026-01-02"],
        pd.Series(["2026-04", "2026-03", "2026-01", "2026-02"], dtype="category"),
        ["2026-01-01T10:00:00.004", "2026-01-01T10:00:00.003", "2026-01-01", "2026-01-01T10:00"],
        # The same hours in other zones: 22:00, 21:00, 19:00 and 20:00 UTC.
        [
            "2026-01-01T22:00:00Z",
            "2026-01-02T02:00:00+05:00",
            "2026-01-01T14:00:00-05:00",
            "2026-01-01T20:00",
        ],
        ["9999-12-31", "2026-01-03", "1066-10-14", "1700-01-01"],
        [datetime.date(2026, 1, day) for day in (4, 3, 1, 2)],
    ],
    ids=[
        "whole",
        "float",
        "nullable",
        "object",
        "times",
        "zone",
        "dates",
        "months",
        "hours",
        "zones",
        "far away",
        "date objects",
    ],
)
def test_rows_are_put_into_time_order(times: Any):
    frame = pd.DataFrame({"when": times, "row": range(4)}).set_axis([9, 9, 7, 8])
    ordered = in_time_order(frame, "when")
    assert ordered["row"].tolist() == [2, 3, 1, 0]
    assert ordered.index.tolist() == [0, 1, 2, 3]


def test_rows_of_one_time_keep_their_order():
    days = np.random.default_rng(0).integers(0, 5, 200)
    frame = pd.DataFrame({"day": days, "row": range(200)})
    expected = [row for day in range(5) for row in range(200) if days[row] == day]
    assert in_time_order(frame, "day")["row"].tolist() == expected


def test_without_a_time_rows_keep_their_order():
    frame = pd.DataFrame({"row": [3, 1, 2]}, index=[5, 5, 1])
    pd.testing.assert_frame_equal(in_time_order(frame, None), pd.DataFrame({"row": [3, 1, 2]}))


@pytest.mark.parametrize(
    "times",
    [
        ["31/01/2026", "01/02/2026"],
        ["Jan 3 2026", "Jan 2 2026"],
        ["2026-01-01", SECRET],
        ["2026-13-45", "2026-01-01"],
        pd.to_timedelta([1, 2], unit="D"),
        [[1], [2]],
    ],
    ids=["day first", "words", "text", "no such day", "spans", "lists"],
)
def test_times_that_are_neither_numbers_nor_iso_dates_are_refused(times: Any):
    message = refusal(in_time_order, pd.DataFrame({"when": times}), "when")
    assert message.startswith("time column 'when' is neither numbers nor ISO 8601 dates")


@pytest.mark.parametrize(
    "times",
    [[1.0, None], ["2026-01-01", None], ["2026-01-01", ""], [pd.Timestamp("2026-01-01"), pd.NaT]],
)
def test_a_missing_time_is_refused(times: Any):
    assert refusal(in_time_order, pd.DataFrame({"when": times}), "when") == (
        "time column 'when' is missing in 1 row(s); remove those rows"
    )


def test_a_time_column_that_is_not_there_is_refused():
    frame = pd.DataFrame({"when": [1]})
    assert "no column 'whem' (did you mean 'when'?)" in refusal(in_time_order, frame, "whem")


# Encoding a batch

ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "age": st.none() | st.sampled_from([1.5, 0.0, np.nan, np.inf, -1e101, 2**60]),
            "ward": st.sampled_from(["cardiology", "surgery", "Surgery", "trauma", "", None]),
            "urgent": st.sampled_from([True, False, None, "true", " FALSE ", "perhaps", ""]),
            "weight": st.sampled_from([70.5, None, "80", -np.inf]),
        }
    ),
    min_size=1,
    max_size=8,
)


def slow_encode(row: Mapping[str, Any], missing_values: str) -> tuple[list[float | None], str]:
    """The row as the docstrings say, a cell at a time."""
    cells: list[float | None] = []
    found: dict[str, list[str]] = {"missing": [], "infinite": [], "out of range": []}
    for item in SCHEMA.features:
        value = row[item.name]
        cell = None
        if value is None or value == "" or value != value:
            if missing_values == "error":
                found["missing"].append(item.name)
        elif item.kind == "number":
            cell = float(value)
            if math.isinf(cell):
                found["infinite"].append(item.name)
            elif abs(cell) > 1e100:
                found["out of range"].append(item.name)
        else:
            text = str(value).strip().lower() if item.kind == "boolean" else value
            if text in item.categories:
                cell = float(item.categories.index(text))
        cells.append(cell)
    problems = [f"{problem}: {', '.join(names)}" for problem, names in found.items() if names]
    return cells, "; ".join(problems) or "ok"


@given(rows=ROWS, missing_values=st.sampled_from(["error", "impute"]))
def test_a_batch_is_encoded_as_its_rows_are_alone(rows: list[dict], missing_values: str):
    schema = Schema(SCHEMA.features, SCHEMA.cluster_features, missing_values)
    encoded = schema.encode(pd.DataFrame(rows))
    for i, row in enumerate(rows):
        expected = slow_encode(row, missing_values)
        alone = schema.encode(pd.DataFrame([row]))
        assert (nones(alone.X[0]), alone.status[0]) == expected
        assert (nones(encoded.X[i]), encoded.status[i]) == expected
    assert encoded.scorable.tolist() == [status == "ok" for status in encoded.status]


@given(rows=ROWS, order=st.permutations([*SCHEMA.names, "extra"]))
def test_the_order_of_columns_and_extra_columns_do_not_matter(rows: list[dict], order: list[str]):
    frame = pd.DataFrame(rows)
    moved = frame.assign(extra=SECRET)[order].set_axis([7] * len(frame), axis=0)
    plain, other = SCHEMA.encode(frame), SCHEMA.encode(moved)
    np.testing.assert_array_equal(plain.X, other.X)
    assert plain.status.tolist() == other.status.tolist()


def test_a_status_names_columns_and_never_values():
    encoded = SCHEMA.encode(
        batch(age=[np.inf], ward=[SECRET], urgent=[None], weight=[SECRET_NUMBER * 1e95])
    )
    assert encoded.status.tolist() == ["missing: urgent; infinite: age; out of range: weight"]
    assert encoded.scorable.tolist() == [False]


def test_a_category_that_was_not_seen_in_training_is_scored_as_missing():
    encoded = SCHEMA.encode(batch(ward=["trauma"]))
    assert nones(encoded.X[0]) == [30.0, None, 1.0, 70.5]
    assert encoded.status.tolist() == ["ok"]


@pytest.mark.parametrize(
    ("values", "codes"),
    [
        (["true", "False", " TRUE "], [1.0, 0.0, 1.0]),
        ([True, False, True], [1.0, 0.0, 1.0]),
        (pd.array([True, None, False], dtype="boolean"), [1.0, None, 0.0]),
        ([True, None, "false"], [1.0, None, 0.0]),
        ([1, 0, 1], [1.0, 0.0, 1.0]),
        (["1", "0", "1"], [1.0, 0.0, 1.0]),
        ([1.0, np.nan, 0.0], [1.0, None, 0.0]),
    ],
    ids=["text", "bool", "nullable", "mixed", "0 and 1", "text 0 and 1", "with a gap"],
)
def test_a_boolean_is_known_in_any_of_its_forms(values: Any, codes: list[float | None]):
    frame = pd.concat([batch()] * 3, ignore_index=True).assign(urgent=values)
    assert nones(SCHEMA.encode(frame).X[:, 2]) == codes


@pytest.mark.parametrize(
    "column",
    [
        [SECRET],
        [" "],
        ["1,5"],
        [[SECRET_NUMBER]],
        pd.to_datetime(["2026-01-01"]),
        pd.Series([datetime.datetime(2026, 1, 1)], dtype=object),
        pd.to_timedelta([1], unit="D"),
        pd.Series([SECRET], dtype="category"),
    ],
    ids=["text", "blank", "comma", "list", "time", "datetime", "span", "category"],
)
def test_what_is_no_number_in_a_number_column_is_refused_at_scoring(column: Any):
    assert refusal(SCHEMA.encode, batch(age=column)) == (
        "column 'age' holds something that is not a number, and the model knows it as a number; "
        "correct the column, or train again"
    )


@pytest.mark.parametrize("missing_values", ["error", "impute"])
def test_a_cell_that_is_no_number_is_the_matter_of_its_row(missing_values):
    ages = pd.Series(["30", SECRET, None, " nan ", "12.5"], dtype=object)
    rows = pd.concat([batch()] * 5, ignore_index=True).assign(age=ages)
    encoded = dataclasses.replace(SCHEMA, missing_values=missing_values).encode(rows)
    gap = "missing: age" if missing_values == "error" else "ok"
    assert encoded.status.tolist() == ["ok", "not a number: age", gap, gap, "ok"]
    expected = [30.0, None, None, None, 12.5]
    assert nones(encoded.X[:, 0]) == expected
    assert nones(canonical_rows(rows, SCHEMA, Roles("y"))["age"].to_numpy()) == expected


def test_a_whole_number_beyond_floating_point_is_refused_at_scoring():
    frame = batch(age=pd.Series([SECRET_NUMBER**100], dtype=object))
    assert "'age'" in refusal(SCHEMA.encode, frame)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (batch().drop(columns="ward"), "the data has no column 'ward'; add it"),
        (batch().drop(columns=["ward", "age"]), "the data has no column 'age', 'ward'; add it"),
        (batch().rename(columns={"age": "agee"}), "no column 'age' (did you mean 'agee'?)"),
        (
            batch().drop(columns="age").assign(**{"0": 1}).rename(columns={"0": 0}),
            "no column 'age'",
        ),
        (batch().iloc[:, [0, 0, 1, 2, 3]], "duplicated column names: age; rename them"),
    ],
    ids=["one", "two", "misspelt", "numbered", "twice"],
)
def test_a_batch_whose_columns_do_not_fit_is_refused(frame: pd.DataFrame, message: str):
    assert message in refusal(SCHEMA.encode, frame)


def test_a_batch_without_rows_is_encoded_as_none():
    encoded = SCHEMA.encode(batch().iloc[:0])
    assert encoded.X.shape == (0, 4)
    assert encoded.status.tolist() == []
    assert encoded.scorable.tolist() == []


def test_encoding_changes_nothing_of_the_batch():
    frame = batch(ward=[""], urgent=["TRUE"])
    before = frame.copy(deep=True)
    SCHEMA.encode(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_the_training_table_is_encoded_as_it_was_trained_on(hospital_data, hospital):
    encoded = hospital_data.schema.encode(hospital)
    np.testing.assert_array_equal(encoded.X, hospital_data.X)
    assert set(encoded.status) == {"ok"}


@pytest.mark.parametrize("missing_values", ["error", "impute"])
def test_a_schema_goes_to_json_and_back(missing_values: str):
    schema = Schema(SCHEMA.features, SCHEMA.cluster_features, missing_values, ("?", ""))
    assert Schema.from_dict(json.loads(json.dumps(schema.to_dict()))) == schema


# Arrays


@pytest.mark.parametrize(
    "X",
    [
        [[1, 2], [3, 4]],
        np.array([[1, 2], [3, 4]], dtype=np.int8),
        np.asfortranarray([[1.0, 2.0], [3.0, 4.0]]),
        np.array([[1.0, 9.0, 2.0], [3.0, 9.0, 4.0]])[:, ::2],
        np.array([[1, 2], [3, 4]], dtype=object),
        pd.DataFrame({"a": [1, 3], "b": [2, 4]}),
        pd.DataFrame({"a": [1.0, 3.0], "b": [2.0, 4.0]}),
        pd.DataFrame({"a": [1, 3], "b": [2.0, 4.0]}).astype("Float64"),
    ],
    ids=["list", "int8", "fortran", "strided", "object", "ints", "floats", "nullable"],
)
def test_a_matrix_becomes_a_float64_copy_in_c_order_that_can_be_written(X: Any):
    found, y = validate_input_data(X)
    assert y is None
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert found.flags.owndata
    assert found.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_the_data_given_is_copied_and_never_changed():
    X, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1.0, 2.0])
    found, target = validate_input_data(X, y)
    batch = validate_batch_data(X, 2)
    for copy in (found, target, batch):
        copy[:] = -1
    assert X.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert y.tolist() == [1.0, 2.0]


def test_read_only_data_of_pandas_can_be_written_in_its_copy():
    frame = pd.DataFrame({"a": [1.0, 3.0], "b": [2.0, 4.0]})
    column = pd.Series([1.0, 2.0])
    assert not frame.to_numpy().flags.writeable
    for X in (frame, frame.to_numpy()):
        for copy in (*validate_input_data(X, column), validate_batch_data(X, 2)):
            copy[0] = -1
    assert frame.iloc[0].tolist() == [1.0, 2.0]
    assert column.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([1.0, SECRET_NUMBER], "X has 1 dimension(s); give (n_samples, n_features)"),
        (SECRET_NUMBER, "X has 0 dimension(s)"),
        ([[[1.0]]], "X has 3 dimension(s)"),
        (np.empty((0, 3)), "X has shape (0, 3); give at least one row and column"),
        (np.empty((3, 0)), "X has shape (3, 0); give at least one row and column"),
        ([[1, 2], [3]], "X "),
        ([[SECRET, 1]], "X holds something that is not a number"),
        ([[SECRET_NUMBER**100, 1]], "X "),
        ([[1j, 1]], "X holds something that is not a number"),
        ([[1, -1.5e200]], "column 1"),
        ([[1, None, 3]], "X has missing or infinite values in: column 1; remove or fill them"),
        ([[np.inf, 2, np.nan]], "X has missing or infinite values in: column 0, column 2;"),
        (pd.DataFrame({"a": [1, 2], "b": [1, None]}), "missing or infinite values in: b;"),
        (pd.DataFrame({"a": [1, -np.inf], "b": [1, 2]}), "missing or infinite values in: a;"),
    ],
    ids=[
        "flat",
        "scalar",
        "cube",
        "no row",
        "no column",
        "ragged",
        "text",
        "huge",
        "complex",
        "square overflows",
        "missing",
        "infinite",
        "missing in a frame",
        "infinite in a frame",
    ],
)
def test_a_matrix_that_cannot_be_used_is_refused(X: Any, message: str):
    assert message in refusal(validate_input_data, X)


@pytest.mark.parametrize(
    "column",
    [[SECRET, "b"], pd.date_range("2026-01-01", periods=2)],
    ids=["text", "time"],
)
def test_a_column_that_is_not_numbers_is_named(column: Any):
    frame = pd.DataFrame({"a": [1, 2], "ward": column})
    assert "ward" in refusal(validate_input_data, frame)
    assert "ward" in refusal(validate_batch_data, frame, ["ward"])


@pytest.mark.parametrize(
    "y", [[1, 2], (1.0, 2.0), np.array([[1], [2]]), pd.Series([1, 2], index=[5, 5])]
)
def test_a_target_becomes_a_flat_float64_copy(y: Any):
    _, found = validate_input_data([[1], [2]], y)
    assert found.dtype == np.float64
    assert found.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, 2, 3], "y has 3 values for 2 rows; give one a row"),
        ([[1, 2], [3, 4]], "y has 4 values for 2 rows"),
        (5, "y has 1 values for 2 rows"),
        ([SECRET_NUMBER, np.nan], "y is missing or infinite in 1 row(s); remove those rows"),
        ([np.inf, None], "y is missing or infinite in 2 row(s)"),
        ([SECRET, 1], "y holds something that is not a number"),
        (pd.Series([1, pd.NA], dtype="Int64"), "y is missing or infinite in 1 row(s)"),
    ],
    ids=["longer", "matrix", "scalar", "missing", "infinite", "text", "nullable"],
)
def test_a_target_that_does_not_fit_is_refused(y: Any, message: str):
    assert message in refusal(validate_input_data, [[1], [2]], y)


def test_a_target_is_named_in_its_errors():
    assert refusal(validate_target, [np.nan], 1, "cost") == (
        "cost is missing or infinite in 1 row(s); remove those rows"
    )


def test_a_batch_may_have_its_columns_in_any_order_and_more_of_them():
    frame = pd.DataFrame({"name": [SECRET], "b": [2], "a": [1]})
    assert validate_batch_data(frame, ["a", "b"]).tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    "expected",
    [2, np.int64(2), ["a", "b"], ("a", "b"), pd.Index(["a", "b"])],
    ids=["number", "number of numpy", "list", "tuple", "index"],
)
def test_a_batch_without_names_is_checked_by_its_number_of_features(expected: Any):
    assert validate_batch_data([[1, 2]], expected).tolist() == [[1.0, 2.0]]
    message = refusal(validate_batch_data, [[1, 2, SECRET_NUMBER]], expected)
    assert message.startswith("the batch has 3 features, the model was fitted with 2")


def test_a_batch_of_too_many_features_is_told_which_the_model_knows():
    message = refusal(validate_batch_data, [[1, 2, 3]], ["age", "weight"])
    assert message.endswith("the model was fitted with 2: age, weight")


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"a": [1]}), "the data has no column 'b'"),
        (pd.DataFrame({"a": [1], "bb": [SECRET]}), "no column 'b' (did you mean 'bb'?)"),
        (pd.DataFrame([[1, 2, 3]], columns=["a", "b", "b"]), "duplicated column names: b"),
        (pd.DataFrame({"a": [1], "b": [None]}), "missing or infinite values in: b"),
        (pd.DataFrame({"a": [], "b": []}), "give at least one row"),
    ],
    ids=["absent", "misspelt", "twice", "missing", "empty"],
)
def test_a_batch_that_does_not_fit_is_refused(frame: pd.DataFrame, message: str):
    assert message in refusal(validate_batch_data, frame, ["a", "b"])
