"""Columns of a table: names, types, markers of missing values and times, checked once."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import DataValidationError, listed, suggestion

OK = "ok"

# Beyond this a squared, scaled distance overflows and neighbours mean nothing.
LARGEST = 1e100

RESERVED = frozenset(
    {"prediction", "prediction_lower", "prediction_upper", "cluster", "cluster_source"}
    | {"cluster_strength", "cluster_weight", "status"}
)
"""Names of the forecast's columns, which no key of the rows may have."""

MIXED = frozenset({"mixed", "mixed-integer"})
"""What pandas calls columns of numbers and texts."""

_AS_BOOLEAN = {"1": "true", "1.0": "true", "0": "false", "0.0": "false"}


def validate_input_data(
    X: np.ndarray | pd.DataFrame, y: Sequence[float] | np.ndarray | pd.Series | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Check a matrix of numbers and its target; the caller's data is copied, never changed.

    Parameters
    ----------
    X : array-like, shape (n_samples, n_features)
    y : array-like, shape (n_samples,), optional

    Returns
    -------
    X : ndarray of float64, shape (n_samples, n_features), C order, writable
    y : ndarray of float64, shape (n_samples,), or None

    Raises
    ------
    DataValidationError
        Not two-dimensional, empty, not numbers, missing or infinite; the columns are named.
    """
    X = as_pandas(X)
    values = _as_float(X, "X")
    if values.ndim != 2:
        raise DataValidationError(f"X has {values.ndim} dimension(s); give (n_samples, n_features)")
    if 0 in values.shape:
        raise DataValidationError(f"X has shape {values.shape}; give at least one row and column")
    names = _names(X)
    for broken, problem in (
        (~np.isfinite(values), "missing or infinite values"),
        (np.abs(values) > LARGEST, f"values beyond {LARGEST:g}"),
    ):
        columns = [
            name for name, is_broken in zip(names, broken.any(axis=0), strict=True) if is_broken
        ]
        if columns:
            raise DataValidationError(f"X has {problem} in: {listed(columns)}; remove or fill them")
    return values, None if y is None else validate_target(y, len(values), "y")


def validate_batch_data(
    X_batch: np.ndarray | pd.DataFrame, expected_features: int | Sequence[str]
) -> np.ndarray:
    """Check a batch against the features a model was fitted with.

    Parameters
    ----------
    X_batch : array-like, shape (n, n_features)
        A DataFrame may have its columns in any order, and more of them.
    expected_features : int or sequence of str
        Number, or names, of the features.

    Returns
    -------
    ndarray of float64, shape (n, n_features)

    Raises
    ------
    DataValidationError
        The features do not fit, or see `validate_input_data`.
    """
    X_batch, names = as_pandas(X_batch), None
    if not isinstance(expected_features, (int, np.integer)):
        names = [str(name) for name in expected_features]
    if isinstance(X_batch, pd.DataFrame) and names is not None:
        X_batch = named_strings(X_batch)
        require_columns(X_batch, names)
        X_batch = X_batch[names]
    X, _ = validate_input_data(X_batch)
    expected = expected_features if names is None else len(names)
    if X.shape[1] != expected:
        known = f": {listed(names)}" if names else ""
        raise DataValidationError(
            f"the batch has {X.shape[1]} features, the model was fitted with {expected}{known}"
        )
    return X


def validate_target(values: Any, n_rows: int, name: str) -> np.ndarray:
    """A target or resource as float64, shape (n_rows,); never missing, never infinite."""
    y = _as_float(values, name).reshape(-1)
    if len(y) != n_rows:
        raise DataValidationError(f"{name} has {len(y)} values for {n_rows} rows; give one a row")
    broken = int((~np.isfinite(y)).sum())
    if broken:
        raise DataValidationError(
            f"{name} is missing or infinite in {broken} row(s); remove those rows"
        )
    return y


def in_time_order(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The rows ordered by the column `time` (rows of one time keep their order)."""
    if time is None:
        return frame.reset_index(drop=True)
    require_columns(frame, [time])
    keys = time_keys(frame[time], time)
    if keys.isna().any():
        raise DataValidationError(
            f"time column '{time}' is missing in {int(keys.isna().sum())} row(s); remove those rows"
        )
    return frame.iloc[np.argsort(keys.to_numpy(), kind="stable")].reset_index(drop=True)


def time_keys(column: pd.Series, time: str) -> pd.Series:
    """What orders the rows: numbers, or times in UTC without a zone."""
    try:
        return numbers_or_times(column)
    except (ValueError, TypeError) as error:
        raise DataValidationError(
            f"time column '{time}' is neither numbers nor ISO 8601 dates "
            "(2026-01-31 or 2026-01-31T08:00); convert it"
        ) from error


def numbers_or_times(column: pd.Series, errors: Literal["raise", "coerce"] = "raise") -> pd.Series:
    """Numbers as they are; timestamps and ISO 8601 strings in UTC without a zone.

    With `errors` 'coerce' a string that is no time becomes NaT, else it is a ValueError.
    """
    column = column.infer_objects()
    if pd.api.types.is_numeric_dtype(column):
        return column
    if not pd.api.types.is_datetime64_any_dtype(column):
        column = pd.to_datetime(column, format="ISO8601", utc=True, errors=errors)
    return column if column.dt.tz is None else column.dt.tz_convert("UTC").dt.tz_localize(None)


def plain_strings(column: pd.Series, markers: Collection[str]) -> list[str | None]:
    """The values as strings; None is missing."""
    column = without_markers(column, markers)
    return [None if gap else str(v) for v, gap in zip(column, column.isna(), strict=True)]


def as_boolean(text: str) -> str:
    """``true`` or ``false`` of a string that says so in any spelling; another one in lower case."""
    lowered = text.strip().lower()
    return _AS_BOOLEAN.get(lowered, lowered)


def is_nested(value: Any) -> bool:
    """Whether a cell holds several values, which no column of ours does."""
    return isinstance(value, (list, tuple, dict, set, np.ndarray))


def outcome(frame: pd.DataFrame, name: str, role: str) -> np.ndarray:
    """The target or a resource of a table as float64, shape (n,)."""
    require_columns(frame, [name], role)
    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise DataValidationError(
            f"{role} '{name}' is {column.dtype}, not numbers; give a numeric column"
        )
    return validate_target(column.to_numpy(np.float64, na_value=np.nan), len(frame), name)


def require_columns(frame: pd.DataFrame, names: Sequence[str], role: str = "column") -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        hint = suggestion(absent[0], map(str, frame.columns)) if len(absent) == 1 else ""
        raise DataValidationError(
            f"the data has no {role} {listed(map(repr, absent))}{hint}; add it or correct the name"
        )
    twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
    if twice:
        raise DataValidationError(f"duplicated column names: {listed(twice)}; rename them")


def named_strings(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with its column names as texts (a DataFrame of an array has numbers)."""
    return frame.rename(columns=str)


def _names(X: Any) -> list[str]:
    if isinstance(X, pd.DataFrame):
        return [str(name) for name in X.columns]
    shape = np.shape(X)
    return [f"column {i}" for i in range(shape[1] if len(shape) == 2 else 1)]


def _as_float(values: Any, name: str) -> np.ndarray:
    if isinstance(values, pd.DataFrame):
        columns = [
            _as_float(values.iloc[:, i], f"{name}, column '{column}',")
            for i, column in enumerate(values.columns)
        ]
        return np.array(columns, dtype=np.float64).reshape(len(columns), -1).T.copy(order="C")
    try:
        if isinstance(values, pd.Series):
            if values.dtype.kind in "mM":
                raise TypeError("a time is no number")
            values = values.to_numpy(dtype=np.float64, na_value=np.nan)
        return np.array(values, dtype=np.float64, order="C")
    except (ValueError, TypeError, OverflowError) as error:
        raise DataValidationError(f"{name} holds something that is not a number") from error


def without_markers(column: pd.Series, markers: Collection[str]) -> pd.Series:
    """The column with marker strings as missing; one that holds no strings as it is."""
    kinds = (pd.StringDtype, pd.CategoricalDtype)
    if column.dtype != object and not isinstance(column.dtype, kinds):
        return column
    column = column.astype(object)
    return column.mask(column.isin(list(markers)))


def as_numbers(
    column: pd.Series,
    markers: Collection[str],
    remedy: str = ", and the model knows it as a number; correct the column, or train again",
    refused: str = "mM",
) -> np.ndarray:
    """The column as float64, shape (n,); NaN is missing.

    `refused` are kinds of dtypes that are no numbers here; `remedy` ends the text of the
    DataValidationError.
    """
    column = without_markers(column, markers)
    try:
        if column.dtype == object:
            column = pd.to_numeric(column)
        if column.dtype.kind in refused:
            raise TypeError("no number")
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataValidationError(
            f"column '{column.name}' holds something that is not a number{remedy}"
        ) from error


def numbers_or_not(column: pd.Series, markers: Collection[str]) -> tuple[np.ndarray, np.ndarray]:
    """The column as of `as_numbers`, and the mask of its cells that are no numbers, shape (n,).

    Such a cell is NaN. A column without a single number is a DataValidationError.
    """
    try:
        values = as_numbers(column, markers)
        return values, np.zeros(len(values), dtype=bool)
    except DataValidationError as error:
        cells = without_markers(column, markers)
        if cells.dtype != object or isinstance(error.__cause__, OverflowError):
            raise
        values = pd.to_numeric(cells, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
        if np.isnan(values).all():
            raise
        present = cells.notna().to_numpy()
        others = np.zeros(len(values), dtype=bool)
        for row in np.flatnonzero(present & np.isnan(values)):
            others[row] = str(cells.iloc[row]).strip().lower() != "nan"
        return values, others


def are_numbers(values: pd.Series | pd.Index) -> np.ndarray:
    """Mask of the values that are numbers, or strings of one, shape (n,)."""
    return np.array(pd.to_numeric(pd.Series(values), errors="coerce").notna(), dtype=bool)


def id_codes(column: pd.Series) -> tuple[np.ndarray, pd.Index]:
    """A number for each id, shape (n,), int64, and the ids in that order.

    Raises
    ------
    DataValidationError
        An id is missing.
    """
    codes, ids = pd.factorize(column)
    if (codes < 0).any():
        raise DataValidationError(
            f"id column '{column.name}' is missing in {int((codes < 0).sum())} row(s); "
            "fill or remove them"
        )
    return codes.astype(np.int64), ids


def row_status(problems: Mapping[str, Sequence[tuple[str, np.ndarray]]], n_rows: int) -> np.ndarray:
    """``ok``, or what is wrong with a row, naming columns and never values, shape (n_rows,).

    `problems` are columns by problem, each with the mask of its rows.
    """
    status = np.full(n_rows, OK, dtype=object)
    masks = [mask for columns in problems.values() for _, mask in columns]
    if not masks:
        return status
    for row in np.flatnonzero(np.logical_or.reduce(masks)):
        named = {
            problem: [column for column, mask in columns if mask[row]]
            for problem, columns in problems.items()
        }
        status[row] = "; ".join(f"{problem}: {', '.join(c)}" for problem, c in named.items() if c)
    return status
