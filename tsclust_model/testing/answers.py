"""Checks of answers: what `predict` gives, whatever rows it is given.

A check's name and first sentence say what must hold. What it raises names columns and counts, and
never a value of a row.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.data.columns import OK
from tsclust_model.errors import (
    DataValidationError,
    listed,
)
from tsclust_model.testing.checking import (
    STRING,
    check,
    equal_cells,
    numbers,
    refusal,
    require,
    require_same,
    with_broken_row,
    with_cell,
)
from tsclust_model.testing.subjects import Subject

_TYPES = {"double": "Float64", "long": "Int64", "array": "object"}

# -- the answer ------------------------------------------------------------------------------------


@check()
def the_answer_is_a_table_of_the_documented_columns(subject: Subject) -> None:
    """`predict` returns `output_columns`, in this order."""
    require(isinstance(subject.answer, pd.DataFrame), "predict returns no table")
    require(
        list(subject.answer) == list(subject.model.output_columns),
        "the answer's columns are not output_columns",
    )


@check()
def the_answer_has_the_columns_and_types_of_the_signature(subject: Subject) -> None:
    """Numbers are ``Float64``, whole ones ``Int64``, strings of pandas' own type."""
    require(list(subject.answer) == list(subject.outputs), "the signature has other columns")
    for name, kind in subject.outputs.items():
        column = subject.answer[name]
        fits = (
            pd.api.types.is_string_dtype(column)
            if kind == "string"
            else column.dtype == _TYPES[kind]
        )
        require(fits, f"column {name} is {column.dtype}, the signature says {kind}")


@check()
def strings_of_the_answer_are_strings_to_pandas(subject: Subject) -> None:
    """``isin`` and ``str`` work on them, also where a row is null."""
    answer = subject.predict(with_broken_row(subject))
    for name, kind in subject.outputs.items():
        if kind == "string":
            lengths = answer[name].str.len()
            require(lengths.isna().equals(answer[name].isna()), f"str.len of {name} differs")
            known = answer[name].isin(set(answer[name].dropna()))
            require((known == answer[name].notna()).all(), f"isin of {name} differs")


@check()
def no_rows_give_an_empty_table_of_the_same_columns(subject: Subject) -> None:
    """An empty batch is no error, and its answer has the same columns and types."""
    empty = subject.predict(subject.rows.head(0))
    require_same(empty, subject.answer.head(0), "the answer to no rows")


@check()
def a_row_alone_gets_the_answer_it_has_in_company(subject: Subject) -> None:
    """A batch of one row is scored as in a larger one."""
    few = min(5, len(subject.rows))
    parts = [subject.predict(subject.rows.iloc[[i]]) for i in range(few)]
    require_same(pd.concat(parts), subject.answer.head(few))


@check()
def splitting_a_batch_changes_no_row(subject: Subject) -> None:
    """Servers and Spark cut batches where they like."""
    n = len(subject.rows)
    for cut in {1, n // 3, n // 2, n - 1} - {0, n}:
        parts = [subject.rows.iloc[:cut], subject.rows.iloc[cut:]]
        require_same(pd.concat([subject.predict(part) for part in parts]), subject.answer)


@check()
def the_order_of_rows_changes_their_order_only(subject: Subject) -> None:
    """Permuted rows get the same answers, permuted."""
    order = np.random.default_rng(0).permutation(len(subject.rows))
    for chosen in (order, np.arange(len(order))[::-1]):
        require_same(subject.predict(subject.rows.iloc[chosen]), subject.answer.iloc[chosen])


@check()
def equal_rows_get_equal_answers(subject: Subject) -> None:
    """A row that is there twice is answered twice."""
    twice = pd.concat([subject.rows, subject.rows])
    require_same(subject.predict(twice), pd.concat([subject.answer, subject.answer]))


@check()
def predicting_twice_gives_equal_bits(subject: Subject) -> None:
    """`predict` leaves no trace in the model."""
    require_same(subject.predict(subject.rows), subject.answer)


@check()
def two_threads_get_equal_bits(subject: Subject) -> None:
    """A server scores requests at the same time."""
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(subject.predict, [subject.rows] * 6))
    for answer in answers:
        require_same(answer, subject.answer)


@check()
def predicting_is_silent_and_draws_no_random_numbers(subject: Subject) -> None:
    """`predict` prints nothing, warns of nothing and leaves numpy's generator as it is."""
    before: Any = np.random.get_state()
    spoken = io.StringIO()
    with warnings.catch_warnings(), contextlib.redirect_stdout(spoken):
        warnings.simplefilter("error")
        subject.predict(subject.rows)
    require(not spoken.getvalue(), "predict prints")
    after: Any = np.random.get_state()
    same = np.array_equal(before[1], after[1]) and before[2] == after[2]
    require(same, "predict draws from numpy's global generator")


@check()
def editing_an_answer_changes_no_later_one(subject: Subject) -> None:
    """Answers share no memory with the model or with each other."""
    answer = subject.predict(subject.rows)
    expected = pickle.loads(pickle.dumps(answer))  # it shares no memory, not even of cells
    for cell in answer["prediction"]:
        if isinstance(cell, np.ndarray) and cell.flags.writeable:
            cell[:] = -1.0
    answer.iloc[:, :] = answer.iloc[::-1].to_numpy()
    answer.columns = [f"edited {name}" for name in answer.columns]
    require_same(subject.predict(subject.rows), expected)


@check()
def the_index_of_the_rows_is_kept(subject: Subject) -> None:
    """Also of strings, of times, and with labels that occur twice."""
    n = len(subject.rows)
    for index in (
        pd.Index([f"row {i}" for i in range(n)], name="key"),
        pd.Index(np.arange(n) // 2 * 7),
        pd.date_range("2026-01-01", periods=n),
    ):
        answer = subject.predict(subject.rows.set_axis(index))
        require_same(answer, subject.answer.set_axis(index))


@check()
def the_answer_is_strict_json(subject: Subject) -> None:
    """What is not known is null; no NaN and no infinity hides in a cell, nor in the text."""
    answer = subject.predict(with_broken_row(subject))
    for name in answer:
        for cell in answer[name]:
            if cell is not None and cell is not pd.NA and not isinstance(cell, str):
                require(np.isfinite(cell).all(), f"column {name} holds NaN or infinity")

    def refuse(constant: str) -> None:
        raise AssertionError(f"the text holds {constant}")

    json.loads(answer.to_json(orient="split"), parse_constant=refuse)


# -- rows as they come -----------------------------------------------------------------------------


@check()
def the_rows_are_not_changed(subject: Subject) -> None:
    """The caller's table keeps its cells, types, columns and index."""
    given = with_broken_row(subject)
    before = given.copy(deep=True)
    cells = [np.array(c, copy=True) for c in given[subject.number]]
    subject.predict(given)
    require_same(given, before, "the caller's table")
    same = all(map(equal_cells, given[subject.number], cells))
    require(same, f"the caller's cells of {subject.number} were changed")


@check()
def read_only_arrays_are_taken(subject: Subject) -> None:
    """Arrays of Arrow, Spark and pandas itself cannot be written to."""

    def frozen(values: Any) -> np.ndarray:
        array = np.array(values, dtype=np.float64)
        array.flags.writeable = False
        return array

    columns: dict[Any, Any] = {name: subject.rows[name] for name in subject.rows}
    for name, kind in subject.numbers_and_strings.items():
        if kind == "double":
            columns[name] = pd.Series(frozen(columns[name]), subject.rows.index, copy=False)
        elif kind == "array":
            cells = [frozen(cell) for cell in columns[name]]
            columns[name] = pd.Series(cells, subject.rows.index, dtype=object)
    require_same(subject.predict(pd.DataFrame(columns, copy=False)), subject.answer)


@check()
def numbers_of_any_type_give_equal_bits(subject: Subject) -> None:
    """A column of numbers may be of Python objects or of pandas' nullable type; a list an array."""
    changed = {}
    for name, kind in subject.numbers_and_strings.items():
        column = subject.rows[name]
        if kind == "double":
            changed[name] = [column.astype(object), column.astype("Float64")]
        elif kind == "array":
            arrays = [np.asarray(cell, dtype=np.float64) for cell in column]
            tuples = [tuple(cell) for cell in column]
            changed[name] = [pd.Series(c, column.index, dtype=object) for c in (arrays, tuples)]
    for i in range(2):
        rows = subject.rows.assign(**{name: kinds[i] for name, kinds in changed.items()})
        require_same(subject.predict(rows), subject.answer)


@check()
def other_columns_are_ignored(subject: Subject) -> None:
    """A table may have columns that the model does not know."""
    rows = subject.rows.copy()
    rows.insert(0, " other", STRING)
    require_same(subject.predict(rows.assign(another=np.nan)), subject.answer)


@check()
def the_outcome_in_the_rows_changes_nothing(subject: Subject) -> None:
    """Target and resources are never features, whatever they say."""
    roles, given = subject.model.roles, {}
    for name in (roles.target, *roles.resources):
        if name not in subject.inputs:
            given[name] = -1.0
    require_same(subject.predict(subject.rows.assign(**given)), subject.answer)


@check()
def the_order_of_columns_does_not_matter(subject: Subject) -> None:
    """Columns are found by name."""
    require_same(subject.predict(subject.rows.iloc[:, ::-1]), subject.answer)


@check()
def a_missing_column_is_named(subject: Subject) -> None:
    """Without one of its columns a table is a `DataValidationError` that names it."""
    for name in subject.model.schema.names:
        rows = subject.rows.drop(columns=name)
        text = refusal(DataValidationError, partial(subject.predict, rows))
        require(f"'{name}'" in text, f"the message does not name {name}")


@check("strings")
def an_unknown_string_is_scored(subject: Subject) -> None:
    """A category that training did not see is a missing one, and is not repeated."""
    name = next(n for n, kind in subject.numbers_and_strings.items() if kind == "string")
    answer = subject.predict(with_cell(subject.rows, name, lambda _: STRING))
    require(answer["status"].iloc[0] == subject.answer["status"].iloc[0], "it is not scored")
    require(STRING not in answer.to_json(), "the answer repeats the string")


# -- rows that cannot be scored --------------------------------------------------------------------


@check()
def a_row_that_cannot_be_scored_is_null(subject: Subject) -> None:
    """Every column but ``status`` is null, and pandas' types stay."""
    answer = subject.predict(with_broken_row(subject))
    known = [name for name in answer if name != "status" and not pd.isna(answer[name].iloc[0])]
    require(not known, f"not null in: {listed(known)}")
    require(answer.dtypes.equals(subject.answer.dtypes), "the types of columns change")


@check()
def a_status_names_columns_and_no_value(subject: Subject) -> None:
    """Why a row is not scored is said without what it holds."""
    status = subject.predict(with_broken_row(subject))["status"].iloc[0]
    require(subject.number in status, f"the status does not name {subject.number}")
    require("1.23" not in status and "e+300" not in status, "the status quotes the value")


@check()
def a_row_that_cannot_be_scored_changes_no_other(subject: Subject) -> None:
    """The rest of the batch is scored as without it."""
    answer = subject.predict(with_broken_row(subject))
    require_same(answer.iloc[1:], subject.answer.iloc[1:])


@check()
def a_batch_without_a_row_to_score_is_answered(subject: Subject) -> None:
    """Nothing but broken rows is no error."""
    rows = with_broken_row(subject).iloc[[0, 0]]
    answer = subject.predict(rows)
    require(len(answer) == 2 and (answer["status"] != OK).all(), "not every row has a status")
    require(answer["prediction"].isna().all(), "a row has a prediction")


@check()
def a_missing_value_is_scored_or_named(subject: Subject) -> None:
    """A row without a number is scored where the model imputes; else its status names it."""
    answer = subject.predict(with_cell(subject.rows, subject.number, lambda _: float("nan")))
    status, imputes = answer["status"].iloc[0], subject.model.info["config"]["missing_values"]
    is_scored = "cases" in subject.traits and imputes == "impute"
    expected = OK if is_scored else f"missing: {subject.number}"
    require(status.startswith(expected), "the status is another")
    require(bool(answer["prediction"].isna().iloc[0]) != is_scored, "status and row disagree")


@check()
def a_value_of_the_wrong_type_is_never_quoted(subject: Subject) -> None:
    """A string among numbers is an error, or a status, that names the column only."""
    rows = with_cell(subject.rows, subject.number, lambda _: STRING)
    try:
        text = subject.predict(rows)["status"].iloc[0]
    except DataValidationError as error:
        text = str(error)
    require(subject.number in text, f"{subject.number} is not named")
    require(STRING not in text and "\n" not in text, "the value is quoted")


@check()
def every_row_has_a_status_that_agrees_with_it(subject: Subject) -> None:
    """A status is never null, and rows that are ``ok`` have finite predictions."""
    answer = subject.predict(with_broken_row(subject))
    require(answer["status"].notna().all(), "a status is null")
    fine = answer[answer["status"] == OK]
    require(fine["prediction"].notna().all(), "a row that is ok has no prediction")
    if "classes" not in subject.traits:
        require(np.isfinite(numbers(fine["prediction"])).all(), "a prediction is not finite")
