"""What checks are made of: how they are registered, and comparisons that name no value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.errors import listed
from tsclust_model.testing.subjects import Subject

HUGE, STRING = 1.2345e300, "Jane Doe"
"""A number and a string that no message may repeat."""


@dataclass(frozen=True)
class Check:
    """A check, and the traits that a model must have for it to apply (`Subject.traits`)."""

    run: Callable[[Subject], None]
    needs: frozenset[str]


CHECKS: dict[str, Check] = {}
"""Every check by name, in the order in which they run."""


def check(*needs: str) -> Callable[[Callable[[Subject], None]], Callable[[Subject], None]]:
    """Register a function as a check of the models with these traits."""

    def register(function: Callable[[Subject], None]) -> Callable[[Subject], None]:
        CHECKS[function.__name__] = Check(function, frozenset(needs))
        return function

    return register


def require(holds: Any, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)


def require_same(actual: pd.DataFrame, expected: pd.DataFrame, what: str = "the answer") -> None:
    """Equal to the last bit: columns, index, types and cells."""
    require(isinstance(actual, pd.DataFrame), f"{what} is a {type(actual).__name__}, no table")
    require(list(actual.columns) == list(expected.columns), f"{what} has other columns")
    require(actual.index.equals(expected.index), f"{what} has another index")
    differing = [name for name in expected if not _equal(actual[name], expected[name])]
    require(not differing, f"{what} differs in: {listed(differing)}")


def _equal(actual: pd.Series, expected: pd.Series) -> bool:
    if actual.dtype != expected.dtype or not actual.isna().equals(expected.isna()):
        return False
    if pd.api.types.is_float_dtype(expected):
        bits = [c.to_numpy(np.float64, na_value=np.nan).tobytes() for c in (actual, expected)]
        return bits[0] == bits[1]
    return all(map(equal_cells, actual, expected))


def equal_cells(actual: Any, expected: Any) -> bool:
    if isinstance(expected, (list, np.ndarray)):
        arrays = [np.asarray(cell, dtype=np.float64) for cell in (actual, expected)]
        return arrays[0].shape == arrays[1].shape and arrays[0].tobytes() == arrays[1].tobytes()
    return bool(pd.isna(expected)) or actual == expected


def numbers(column: pd.Series) -> np.ndarray:
    """The known numbers of a column of numbers or arrays, one after the other."""
    cells = [np.atleast_1d(np.asarray(cell, dtype=np.float64)) for cell in column.dropna()]
    return np.concatenate([np.empty(0), *cells])


def refusal(error: type[Exception], call: Callable[[], Any]) -> str:
    """The message of the error that a call must raise; it is one line."""
    try:
        call()
    except error as raised:
        text = str(raised)
        require(text and "\n" not in text, f"the message of the {error.__name__} is not one line")
        return text
    raise AssertionError(f"no {error.__name__} was raised")


def with_cell(rows: pd.DataFrame, name: str, change: Callable[[Any], Any], row: int = 0) -> Any:
    """Rows with the cell of one of them changed; a list is changed element by element."""
    cells = list(rows[name])
    one = cells[row]
    many = isinstance(one, (list, np.ndarray))
    cells[row] = [change(value) for value in one] if many else change(one)
    kind = rows[name].dtype if isinstance(cells[row], float) else object
    return rows.assign(**{name: pd.Series(cells, index=rows.index, dtype=kind)})


def with_broken_row(subject: Subject) -> pd.DataFrame:
    """The rows, the first of which no model can score: a number in it is out of range."""
    return with_cell(subject.rows, subject.number, lambda _: HUGE)
