from __future__ import annotations

import inspect
import pickle
import re

import pytest
import sklearn.exceptions

from tsclust_model import errors
from tsclust_model.errors import NotFittedError, PipelineError, listed, suggestion

ERRORS = [
    item
    for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, PipelineError) and item is not PipelineError
]


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_is_a_pipeline_error_with_a_sentence_of_its_own(error: type[Exception]):
    assert issubclass(error, PipelineError)
    assert error.__doc__ != PipelineError.__doc__


def test_the_tree_in_the_docstring_is_the_tree():
    drawn = re.findall(r"── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(error.__name__ for error in ERRORS)


@pytest.mark.parametrize(
    "name",
    [
        "DataValidationError",
        "ModelTrainingError",
        "PredictionError",
        "MLflowIntegrationError",
        "RetrainingError",
    ],
)
def test_the_names_of_the_specification_exist(name: str):
    assert issubclass(getattr(errors, name), PipelineError)


def test_code_that_expects_the_not_fitted_error_of_sklearn_catches_ours():
    with pytest.raises(sklearn.exceptions.NotFittedError, match="call fit first"):
        raise NotFittedError("call fit first")


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_comes_back_whole_from_another_process(error: type[Exception]):
    again = pickle.loads(pickle.dumps(error("the thing; what to do")))
    assert type(again) is error
    assert str(again) == "the thing; what to do"


def test_a_close_name_is_suggested():
    assert suggestion("heart_rat", ["age", "heart_rate"]) == " (did you mean 'heart_rate'?)"


def test_the_closest_of_several_names_is_suggested():
    assert suggestion("min_samplse", ["min_sample_size", "min_samples"]) == (
        " (did you mean 'min_samples'?)"
    )


@pytest.mark.parametrize("known", [[], ["age", "heart_rate"]])
def test_nothing_is_suggested_for_a_name_that_is_like_no_other(known: list[str]):
    assert suggestion("zzz", known) == ""


def test_known_names_may_come_from_any_iterable():
    assert suggestion("agee", (name for name in ("age", "ward"))) == " (did you mean 'age'?)"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ([], ""),
        (["a"], "a"),
        (["a", 2], "a, 2"),
        ("abcdefgh", "a, b, c, d, e, f, g, h"),
        ("abcdefghi", "a, b, c, d, e, f, g, h and 1 more"),
        (range(100), "0, 1, 2, 3, 4, 5, 6, 7 and 92 more"),
    ],
)
def test_names_are_listed_up_to_the_eighth_and_then_counted(names, text: str):
    assert listed(names) == text


def test_how_many_names_are_listed_can_be_chosen():
    assert listed("abc", most=1) == "a and 2 more"
