from __future__ import annotations

from datetime import timedelta

import pytest

from tests.support import START, Clock
from tsclust_model.errors import (
    DataValidationError,
    MLflowIntegrationError,
    ModelTrainingError,
    NotFittedError,
)
from tsclust_model.monitoring.error_handler import ErrorHandler, ErrorRecord

SECRET = "patient Doe, 71"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def handler(clock: Clock) -> ErrorHandler:
    return ErrorHandler(clock=clock)


def test_our_own_error_is_kept_with_its_text(handler: ErrorHandler):
    handler.handle_error(DataValidationError("y has 3 rows, X has 4"), {"component": "door"})
    assert list(handler.recent()) == [
        ErrorRecord("DataValidationError", "y has 3 rows, X has 4", "door", START, "warning")
    ]


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        RuntimeError({"row": SECRET}),
        OSError(2, SECRET, SECRET),
        KeyboardInterrupt(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        UnicodeDecodeError("utf-8", SECRET.encode(), 0, 1, SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_nothing_of_a_foreign_errors_text_is_kept(handler: ErrorHandler, error: BaseException):
    error.add_note(SECRET)
    error.__cause__ = DataValidationError(SECRET)
    handler.handle_error(error, {"component": "callback", "row": SECRET, SECRET: 1})
    name = type(error).__name__
    assert list(handler.recent()) == [
        ErrorRecord(name, f"{name} in callback", "callback", START, "warning")
    ]
    assert SECRET not in repr(vars(handler))
    assert SECRET not in repr(handler.get_error_statistics())


def test_what_caused_our_own_error_is_not_kept(handler: ErrorHandler):
    error = MLflowIntegrationError("the store refused")
    error.__cause__ = ValueError(SECRET)
    handler.handle_error(error, "tracking")
    assert SECRET not in repr(vars(handler))
    (record,) = handler.recent()
    assert (record.message, record.error_type) == ("the store refused", "ValueError")


def test_errors_are_counted_by_type_and_component(handler: ErrorHandler):
    for error, context in [
        (ValueError("a"), "callback"),
        (ValueError("b"), {"component": "resources"}),
        (KeyError("c"), {"component": "resources", "batch": 3}),
        (KeyError("d"), {}),
    ]:
        handler.handle_error(error, context)
    assert handler.get_error_statistics() == {
        "total_errors": 4,
        "by_type": {"ValueError": 2, "KeyError": 2},
        "by_component": {"callback": 1, "resources": 2, "": 1},
        "refused_calls": {},
        "graceful_degradation": True,
    }


def test_only_graceful_degradation_lets_a_batch_go_on(handler: ErrorHandler):
    assert handler.handle_error(ValueError(), "callback") is True  # the default
    handler.enable_graceful_degradation(False)
    assert handler.handle_error(ValueError(), "callback") is False
    assert handler.get_error_statistics()["graceful_degradation"] is False
    handler.enable_graceful_degradation()
    assert handler.handle_error(ValueError(), "callback") is True
    assert handler.get_error_statistics()["total_errors"] == 3
    assert [record.severity for record in handler.recent()] == ["warning", "error", "warning"]


def test_the_type_of_an_error_is_the_foreign_one_behind_ours(handler: ErrorHandler):
    ours, between = MLflowIntegrationError("the store refused"), DataValidationError("x")
    ours.__cause__ = between
    handler.handle_error(ours, "tracking")
    between.__cause__ = TimeoutError(SECRET)
    handler.handle_error(ours, "tracking")
    assert [record.error_type for record in handler.recent()] == [
        "TimeoutError",
        "MLflowIntegrationError",
    ]
    assert handler.get_error_statistics()["by_type"] == {
        "MLflowIntegrationError": 1,
        "TimeoutError": 1,
    }


def test_refused_calls_are_counted_apart_from_errors(handler: ErrorHandler):
    for error in (DataValidationError("a"), NotFittedError("b"), DataValidationError("c")):
        with pytest.raises(type(error)), handler.refusals("process_batch"):
            raise error
    with pytest.raises(ModelTrainingError), handler.refusals("fit_initial"):
        raise ModelTrainingError("no tree")
    found = handler.get_error_statistics()
    assert found["refused_calls"] == {"DataValidationError": 2, "NotFittedError": 1}
    assert (found["total_errors"], found["by_component"]) == (1, {"fit_initial": 1})
    assert [(record.error_type, record.severity) for record in handler.recent()] == [
        ("ModelTrainingError", "error")
    ]
    handler.clear_error_history()
    assert handler.get_error_statistics()["refused_calls"] == {}


def test_an_error_is_open_until_its_component_works_again_or_a_day_is_over(
    handler: ErrorHandler, clock: Clock
):
    handler.handle_error(ValueError(), "callback")
    clock.now += timedelta(hours=1)
    handler.handle_error(OSError(), "history")
    day = timedelta(hours=24)
    assert handler.open_components(day) == ["callback", "history"]
    handler.resolve("history")
    handler.resolve("never failed")
    assert handler.open_components(day) == ["callback"]
    clock.now += timedelta(hours=23, seconds=1)
    assert handler.open_components(day) == []
    assert handler.get_error_statistics()["total_errors"] == 2


def test_the_last_1000_errors_are_kept_and_all_are_counted(handler: ErrorHandler):
    for i in range(1500):
        handler.handle_error(DataValidationError(str(i)), "door")
    kept = [record.message for record in handler.recent(5000)]
    assert kept == [str(i) for i in range(1499, 499, -1)]
    assert handler.get_error_statistics()["total_errors"] == 1500


@pytest.mark.parametrize(("limit", "expected"), [(0, []), (2, ["4", "3"]), (9, list("43210"))])
def test_recent_errors_are_newest_first(handler: ErrorHandler, limit: int, expected: list[str]):
    for i in range(5):
        handler.handle_error(DataValidationError(str(i)), "door")
    assert [record.message for record in handler.recent(limit)] == expected


def test_clearing_forgets_errors_and_counts_but_not_the_degradation(handler: ErrorHandler):
    handler.enable_graceful_degradation()
    handler.handle_error(ValueError(), "callback")
    handler.clear_error_history()
    assert list(handler.recent()) == []
    assert handler.get_error_statistics() == {
        "total_errors": 0,
        "by_type": {},
        "by_component": {},
        "refused_calls": {},
        "graceful_degradation": True,
    }
    assert handler.open_components(timedelta(days=1)) == []
