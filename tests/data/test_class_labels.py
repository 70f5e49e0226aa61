"""Which values of a target are classes, and the columns they become."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsclust_model.config import PipelineConfig
from tsclust_model.data.class_labels import MOST_CLASSES, ClassLabels, check_names
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.rows.table import TrainingData, canonical_rows, training_data
from tsclust_model.rows.targets import ClassTarget, NumberTarget

SECRET = "Mrs-Secret-4711"


def fit(values: list, **options) -> ClassLabels:
    return ClassLabels.fit(pd.Series(values), "kind", **options)


def table(values: list, **columns: list) -> TrainingData:
    n = len(values)
    frame = pd.DataFrame({"a": np.arange(n, dtype=float), "kind": values, **columns})
    return training_data(frame, Roles("kind", features=("a",)), PipelineConfig())


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        (["no", "yes", "no"], "text", ("no", "yes")),
        ([True, False, True], "boolean", ("false", "true")),
        ([10.0, 9.0, 2.0], "number", ("2", "9", "10")),
        ([10, 9, -1], "number", ("-1", "9", "10")),
        ([0.5, 1.0, 0.25], "number", ("0.25", "0.5", "1")),
        ([1e300, 1.0, 2.0], "number", ("1", "2", "1e+300")),
        ([10**30, 10**30 + 1], "number", (str(10**30), str(10**30 + 1))),
        (pd.Series([1, 0, 1], dtype="Int64"), "number", ("0", "1")),
        (["x", 1, 1.5], "text", ("1", "1.5", "x")),
        (["é", "Ä\u0308", "日本", "'; DROP"], "text", ("'; DROP", "Ä\u0308", "é", "日本")),
    ],
)
def test_classes_are_texts_in_order(values, kind, classes):
    found = ClassLabels.fit(pd.Series(values), "kind", asked=True)
    assert (found.kind, found.classes) == (kind, classes)


@pytest.mark.parametrize(
    ("classes", "again"),
    [
        ([1, 0], ["1", "0.0", 1.0, True]),
        ([True, False], ["True", " false", 1, 0, "1.0"]),
        (["yes", "no"], ["no", "yes"]),
    ],
)
def test_one_class_may_be_written_in_several_ways(classes, again):
    found = fit(classes, asked=True)
    assert set(found.codes(found.texts(again))) <= {0, 1}
    assert ClassLabels.from_dict(found.to_dict()) == found


def test_a_class_of_texts_is_taken_to_the_letter_and_another_one_has_no_code():
    found = fit(["1", "1.0", "No", "yes"], asked=True)
    assert found.classes == ("1", "1.0", "No", "yes")
    assert found.codes(found.texts(["1.0", "no", "yes"])).tolist() == [1, -1, 3]


def test_columns_keep_the_class_but_for_blanks():
    found = fit(['say "hi"', "two\nlines", "tab\t  and  ", "naïve, 日本"])
    assert found.columns == [
        "probability_naïve, 日本",
        'probability_say "hi"',
        "probability_tab and",
        "probability_two lines",
    ]


@pytest.mark.filterwarnings("ignore:classes of target")
@given(
    st.lists(st.text("aAbß日'\"`.,; \n\t\u2028", max_size=6), min_size=2, unique=True, max_size=6)
)
def test_any_texts_are_columns_of_their_own_or_refused_in_one_line(texts):
    column = pd.Series(texts, dtype=object)
    if len({" ".join(text.split()) for text in texts}) < len(texts):
        with pytest.raises(DataValidationError, match=r"^two classes .* differ in blanks .*$"):
            ClassLabels.fit(column, "kind", asked=True)
        return
    found = ClassLabels.fit(column, "kind", asked=True)
    assert len(set(found.columns)) == len(texts)
    assert not any("\n" in name or "\t" in name for name in found.columns)
    assert set(found.codes(found.texts(column))) == set(range(len(texts)))


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (["a", None, "b", None], "kind is missing or infinite in 2 row"),
        ([1.0, np.inf, 2.0], "kind is missing or infinite in 1 row"),
        ([SECRET, SECRET], "target 'kind' has one class only; give rows of two"),
        ([f"c{i}" for i in range(101)], "target 'kind' has 101 classes, and 100 are the most"),
        (["x" * 201, "y"], "a class of more than 200 characters"),
        (["a b", "a  b\n"], "two classes of target 'kind' differ in blanks or line breaks only"),
        ([[1], [2]], "target 'kind' holds lists or mappings"),
        ([pd.Timestamp(0), pd.Timestamp(1)], "target 'kind' holds datetime"),
    ],
)
def test_what_makes_no_classes_is_refused_in_one_line_without_values(values, problem):
    with pytest.raises(DataValidationError, match=problem) as caught:
        fit(values, asked=True)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_the_most_classes_are_accepted():
    assert len(fit([f"c{i}" for i in range(MOST_CLASSES)]).classes) == MOST_CLASSES


def test_classes_that_differ_in_case_are_warned_of():
    with pytest.warns(UserWarning, match="classes of target 'kind' differ in case only") as caught:
        assert fit([SECRET, SECRET.lower(), "b"]).classes == (SECRET, "b", SECRET.lower())
    assert SECRET not in str(caught[0].message)


def test_numbers_with_a_stray_text_are_no_classes_unless_asked_for():
    values = ["1", "2", "3", "unknown"]
    with pytest.raises(DataValidationError, match="holds numbers and, in 1 row"):
        fit(values)
    assert fit(values, asked=True).classes == ("1", "2", "3", "unknown")


def test_classes_of_the_model_before_stay_with_their_kind():
    before = fit([0, 1, 2], asked=True)
    assert fit(["1", "0", "1"], known=before) == before
    assert fit(["1", "7"], known=before).classes == ("0", "1", "2", "7")


@pytest.mark.parametrize("name", ["probability_a", "probability_b"])
def test_a_key_named_as_a_column_of_the_answer_is_refused(name):
    with pytest.raises(DataValidationError, match=f"'{name}' is a column of the forecasts"):
        check_names(fit(["a", "b"]), (None, name))


def test_numbers_are_numbers_and_texts_are_classes_unless_said_otherwise():
    assert table([1.0, 2.0, 1.0]).target == NumberTarget("kind")
    assert table(["x", "y", "x"]).y.tolist() == [0.0, 1.0, 0.0]
    categories = pd.Categorical([10, 9, 10])
    assert table(categories).target == ClassTarget("kind", "text", ("10", "9"))
    assert table([True, False, True]).target == ClassTarget("kind", "boolean", ("false", "true"))


@pytest.mark.parametrize(
    "settings",
    [
        {"task": "classification"},
        {"lgb_timeseries_params": {"objective": "binary"}},
        {"lgb_timeseries_params": {"objective": "multiclass"}, "task": "classification"},
    ],
)
def test_numbers_are_classes_where_task_or_objective_say_so(settings):
    frame = pd.DataFrame({"a": [1.0, 2, 3], "kind": [5, 7, 5]})
    data = training_data(frame, Roles("kind"), PipelineConfig(**settings))
    assert data.target == ClassTarget("kind", "number", ("5", "7"))
    assert data.y.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("task", "objective"), [("regression", "binary"), ("classification", "poisson")]
)
def test_task_and_objective_must_agree(task, objective):
    with pytest.raises(ConfigurationError, match=f"objective is '{objective}' and task is"):
        PipelineConfig(task=task, lgb_timeseries_params={"objective": objective})


def test_three_classes_are_not_binary():
    frame = pd.DataFrame({"a": [1.0, 2, 3], "kind": ["x", "y", "z"]})
    config = PipelineConfig(lgb_timeseries_params={"objective": "binary"})
    with pytest.raises(DataValidationError, match="has 3 classes and the objective is 'binary'"):
        training_data(frame, Roles("kind"), config)


def test_the_history_holds_classes_as_texts_however_they_come():
    frame = make_hospital(20).assign(kind=[1, 0] * 10)
    roles = Roles("kind", features=("age",))
    data = training_data(frame, roles, PipelineConfig(task="classification"))
    forms = [frame, frame.astype({"kind": float}), frame.astype({"kind": str})]
    rows = [canonical_rows(form, data.schema, roles, data.target) for form in forms]
    assert rows[0]["kind"].tolist() == ["1", "0"] * 10
    for other in rows[1:]:
        pd.testing.assert_frame_equal(other, rows[0])
    some = canonical_rows(
        frame.assign(kind=[None, *frame["kind"][1:]]), data.schema, roles, data.target
    )
    assert some["kind"].isna().tolist() == [True] + [False] * 19
    assert some["kind"].tolist()[1:] == [*["0", "1"] * 9, "0"]
