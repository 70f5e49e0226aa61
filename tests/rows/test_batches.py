from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tsclust_model.errors import DataValidationError
from tsclust_model.rows.batches import (
    batch_frame,
    feature_frame,
    joined,
    outcome_columns,
    refuse_other_order,
    scorable_matrix,
    training_frame,
)
from tsclust_model.rows.targets import ClassTarget

SECRET = 987654.25


@pytest.fixture(scope="module")
def batch(hospital, generation) -> pd.DataFrame:
    return hospital.tail(40)[generation.schema.names].reset_index(drop=True)


def test_arrays_become_a_table_with_numbered_features():
    frame, target = training_frame(np.arange(6.0).reshape(3, 2), [1, 2, 3], {"hours": [4, 5, 6]})
    assert target == "target"
    assert frame.to_dict("list") == {
        "feature_0": [0.0, 2.0, 4.0],
        "feature_1": [1.0, 3.0, 5.0],
        "target": [1.0, 2.0, 3.0],
        "hours": [4.0, 5.0, 6.0],
    }


def test_a_series_names_the_target_and_rows_are_joined_by_position():
    X = pd.DataFrame({"age": [31.0, 64.0]}, index=[7, 3])
    y = pd.Series([1.0, 2.0], index=[0, 1], name="stay")
    hours = pd.Series([8.0, 9.0], index=[3, 5])
    frame, target = training_frame(X, y, {"hours": hours})
    assert target == "stay"
    assert frame.to_dict("list") == {"age": [31, 64], "stay": [1, 2], "hours": [8, 9]}
    assert list(X.columns) == ["age"]


SHUFFLED = pd.Series([1.0, 2.0, 3.0], index=[3, 7, 5])


@pytest.mark.parametrize(
    ("y", "resources", "name"),
    [(SHUFFLED, {}, "y"), ([1.0, 2.0, 3.0], {"hours": SHUFFLED}, "hours")],
)
def test_values_in_another_order_than_the_index_of_x_are_refused(y, resources, name):
    X = pd.DataFrame({"age": [31.0, 64.0, 70.0]}, index=[7, 3, 5])
    with pytest.raises(DataValidationError) as caught:
        refuse_other_order(X, y, resources)
    assert str(caught.value) == (
        f"{name} has the index of X in another order; reorder it: {name}.loc[X.index]"
    )
    with pytest.raises(DataValidationError, match=f"^{name} has the index of X in another order"):
        training_frame(X, y, resources)
    refuse_other_order(X, SHUFFLED.loc[X.index], {"hours": SHUFFLED.reset_index(drop=True)})
    refuse_other_order(X.to_numpy(), y, resources)


def test_outcomes_whose_index_counts_the_rows_in_another_order_are_refused():
    shuffled = pd.Series([1.0, 2.0, 3.0], index=[2, 0, 1])
    with pytest.raises(DataValidationError) as caught:
        refuse_other_order(None, shuffled, {})
    assert str(caught.value) == (
        "y counts the rows in another order; outcomes are by position in the batch: "
        "y.sort_index(), or y.to_numpy() if it is in the batch's order"
    )
    with pytest.raises(DataValidationError, match=r"^hours counts the rows in another order"):
        refuse_other_order(None, [1.0, 2.0, 3.0], {"hours": shuffled})
    for index in ([0, 1, 2], [5, 3, 4], list("cab")):
        refuse_other_order(None, shuffled.set_axis(index), {})


@pytest.mark.parametrize(
    ("y", "resources", "column"),
    [
        (pd.Series([1.0, 2.0], name="age"), {}, "age"),
        ([1.0, 2.0], {"age": [1.0, 2.0]}, "age"),
    ],
)
def test_what_is_predicted_may_not_be_a_feature(y, resources, column):
    with pytest.raises(DataValidationError, match=f"X has a column '{column}', which is predicted"):
        training_frame(pd.DataFrame({"age": [31.0, 64.0]}), y, resources)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1.0], "target has 1 values for 2 rows"),
        ([1.0, np.nan], r"target is missing or infinite in 1 row\(s\)"),
        ([1.0, np.inf], r"target is missing or infinite in 1 row\(s\)"),
    ],
)
def test_a_broken_target_is_refused(y, message):
    with pytest.raises(DataValidationError, match=message):
        training_frame(np.ones((2, 2)), y, {})


@pytest.mark.parametrize("X", [np.ones(3), np.ones((1, 2, 3))])
def test_an_array_that_is_no_table_is_refused(X):
    with pytest.raises(DataValidationError, match=rf"X has {X.ndim} dimension\(s\); give \(n_sam"):
        feature_frame(X, None)


def test_an_array_of_another_width_names_the_fitted_features():
    with pytest.raises(
        DataValidationError, match="has 3 features, the model was fitted with 2: age, weight"
    ):
        feature_frame(np.ones((4, 3)), ["age", "weight"])


def test_the_kept_columns_are_features_id_and_time_whatever_their_order(hospital, generation):
    rows = hospital.tail(5)
    mixed = rows[rows.columns[::-1]]
    frame = batch_frame(mixed, generation)
    assert list(frame) == ["patient_id", "admission_time", *generation.schema.names]
    assert frame.index.tolist() == [0, 1, 2, 3, 4]
    pd.testing.assert_frame_equal(frame, batch_frame(rows, generation))


def test_id_and_time_may_be_absent(batch, generation):
    assert list(batch_frame(batch, generation)) == generation.schema.names


def test_an_absent_feature_is_named(batch, generation):
    with pytest.raises(DataValidationError, match="the batch has no column 'age'; add it"):
        batch_frame(batch.drop(columns="age"), generation)


def test_a_batch_without_rows_is_refused(batch, generation):
    with pytest.raises(DataValidationError, match="the batch has no rows"):
        batch_frame(batch.head(0), generation)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "missing"), (np.inf, "infinite")])
def test_rows_that_cannot_be_scored_are_refused_without_their_values(
    batch, generation, value, word
):
    broken = batch.assign(age=SECRET)
    broken.loc[[3, 8], "creatinine"] = value
    with pytest.raises(
        DataValidationError, match=rf"2 of 40 rows cannot be scored \({word}: creatinine\); fill"
    ) as caught:
        scorable_matrix(generation, broken)
    assert str(SECRET) not in str(caught.value)


def test_outcomes_get_the_names_of_the_training_table(generation):
    found = outcome_columns(generation, 2, [1, 2], {"nursing_hours": [3, 4]})
    assert {name: values.tolist() for name, values in found.items()} == {
        "length_of_stay_days": [1.0, 2.0],
        "nursing_hours": [3.0, 4.0],
    }
    assert outcome_columns(generation, 2, None, {}) == {}


def test_outcomes_that_are_not_known_yet_are_nan_where_they_may_be(generation):
    hours = pd.Series([3, None, 4], dtype=object)
    found = outcome_columns(generation, 3, [1, np.nan, 2], {"nursing_hours": hours}, partial=True)
    assert list(found) == ["length_of_stay_days", "nursing_hours"]
    np.testing.assert_array_equal(found["length_of_stay_days"], [1.0, np.nan, 2.0])
    np.testing.assert_array_equal(found["nursing_hours"], [3.0, np.nan, 4.0])
    with pytest.raises(DataValidationError, match=r"is missing or infinite in 1 row\(s\)"):
        outcome_columns(generation, 3, [1, np.nan, 2], {})


@pytest.mark.parametrize(
    ("y", "message"),
    [
        ([1, np.inf, np.nan], r"^length_of_stay_days is missing or infinite in 1 row\(s\)"),
        ([np.nan] * 3, "^length_of_stay_days holds no outcome that is known; call again with one"),
        ([np.nan] * 2, "^length_of_stay_days has 2 values for 3 rows"),
        (["a", None, None], "^length_of_stay_days holds something that is not a number"),
    ],
)
def test_partial_outcomes_that_say_nothing_or_too_much_are_refused(generation, y, message):
    with pytest.raises(DataValidationError, match=message):
        outcome_columns(generation, 3, y, {}, partial=True)


STATES = ClassTarget("state", "text", ("critical", "stable"))
COUNTS = ClassTarget("state", "number", ("1", "2"))
ALIVE = ClassTarget("state", "boolean", ("false", "true"))


@pytest.mark.parametrize(
    ("target", "y", "n", "kind"),
    [
        (STATES, np.ones(2), 2, "strings"),
        (STATES, ["stable", 1], 1, "strings"),
        (STATES, [True, False], 2, "strings"),
        (COUNTS, ["1", "high"], 1, "numbers"),
        (ALIVE, ["true", "high"], 1, "booleans"),
        (ALIVE, [1, 2], 1, "booleans"),
    ],
)
def test_outcomes_that_cannot_be_a_class_are_refused(target, y, n, kind):
    with pytest.raises(DataValidationError) as caught:
        target.given(y, 2)
    assert str(caught.value) == (
        f"state holds {n} value(s) that can be no class of this model, whose classes are {kind}; "
        "give classes as in training"
    )


@pytest.mark.parametrize(
    ("target", "y", "texts"),
    [
        (STATES, ["stable", "transferred"], ["stable", "transferred"]),
        (STATES, pd.Series(["stable", "critical"], dtype="category"), ["stable", "critical"]),
        (ClassTarget("state", "text", ("10", "9")), [9, 10], ["9", "10"]),
        (COUNTS, [1.0, 3], ["1", "3"]),
        (COUNTS, ["1", "3"], ["1", "3"]),
        (ALIVE, [True, 0], ["true", "false"]),
        (ALIVE, ["True", "0"], ["true", "false"]),
    ],
)
def test_a_class_that_is_new_is_taken_if_it_is_of_the_models_kind(target, y, texts):
    assert target.given(y, 2).tolist() == texts


def test_classes_that_are_not_known_yet_are_none():
    assert STATES.given(["stable", np.nan], 2, partial=True).tolist() == ["stable", None]
    with pytest.raises(DataValidationError, match=r"state is missing or infinite in 1 row\(s\)"):
        STATES.given(["stable", np.nan], 2)


def test_an_unknown_resource_is_refused(generation):
    with pytest.raises(DataValidationError, match="'beds' is no resource of this model"):
        outcome_columns(generation, 2, [1, 2], {"beds": [3, 4]})


@pytest.mark.parametrize("size", [1, 7, 39, 40])
def test_joined_chunks_are_the_whole_batch(batch, generation, size):
    target = replace(generation, resources={})
    X = scorable_matrix(generation, batch)
    whole = target.forecast(X, 0.9)
    parts = [target.forecast(X[i : i + size], 0.9) for i in range(0, len(X), size)]
    found = joined(parts)
    for name in ("prediction", "bounds", "weight"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))
    for name in ("labels", "is_noise", "strength"):
        np.testing.assert_array_equal(
            getattr(found.assignment, name), getattr(whole.assignment, name)
        )
