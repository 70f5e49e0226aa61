"""Between the caller's arrays and the generation: a batch in, a batch's figures out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.data.class_labels import holds_classes
from tsclust_model.data.columns import validate_target
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import DataValidationError
from tsclust_model.results import Assignment
from tsclust_model.rows.model import Forecast, Generation
from tsclust_model.rows.targets import NumberTarget, one_each
from tsclust_model.shown import one_line


def training_frame(
    X: np.ndarray | pd.DataFrame, y: Any, resources: Mapping[str, Any]
) -> tuple[pd.DataFrame, str]:
    """Features, target (numbers, or classes as they come) and resources as one table, and the
    target's name there."""
    y = as_pandas(y)
    refuse_other_order(X, y, resources)
    frame = feature_frame(X, None)
    named = isinstance(y, pd.Series) and y.name is not None
    target = str(y.name) if named else "target"
    columns = {target: y} | dict(resources)
    taken = sorted(set(columns) & set(frame.columns))
    if taken:
        raise DataValidationError(f"X has a column '{taken[0]}', which is predicted; take it out")
    values: dict[str, Any] = {
        name: validate_target(v, len(frame), name) for name, v in resources.items()
    }
    classes = pd.Series(y)
    if holds_classes(classes):
        one_each(classes, len(frame), target)
        values[target] = classes.array
    else:
        values[target] = validate_target(y, len(frame), target)
    return frame.assign(**values), target


def refuse_other_order(
    X: np.ndarray | pd.DataFrame | None, y: Any, resources: Mapping[str, Any]
) -> None:
    """Refuse outcomes whose index says that they are in another order than the rows.

    They are paired with the rows by position. An index with other labels than that of X says
    nothing of the order.

    Parameters
    ----------
    X : array-like, shape (n_samples, n_features), or None
        None where the rows are those of a batch that was processed before: they count from 0.
    y : array-like, shape (n_samples,)
    resources : mapping of str to array-like, shape (n_samples,)

    Raises
    ------
    DataValidationError
    """
    for name, values in ({"y": y} | dict(resources)).items():
        if not isinstance(values, (pd.Series, pd.DataFrame)):
            continue
        if X is None and _permuted(values.index, pd.RangeIndex(len(values))):
            raise DataValidationError(
                f"{name} counts the rows in another order; outcomes are by position in the batch: "
                f"{name}.sort_index(), or {name}.to_numpy() if it is in the batch's order"
            )
        if isinstance(X, pd.DataFrame) and _permuted(values.index, X.index):
            raise DataValidationError(
                f"{name} has the index of X in another order; reorder it: {name}.loc[X.index]"
            )


def _permuted(index: pd.Index, rows: pd.Index) -> bool:
    """Whether one index holds the labels of the other in another order."""
    return len(index) == len(rows) and not index.equals(rows) and set(index) == set(rows)


def feature_frame(X: np.ndarray | pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    """The batch as a table with text names; arrays get the model's, or ``feature_<i>``."""
    X = as_pandas(X)
    if isinstance(X, pd.DataFrame):
        return X.rename(columns=str).reset_index(drop=True)
    values = np.asarray(X)
    if values.ndim != 2:
        raise DataValidationError(f"X has {values.ndim} dimension(s); give (n_samples, n_features)")
    columns = list(names) if names else [f"feature_{i}" for i in range(values.shape[1])]
    if len(columns) != values.shape[1]:
        raise DataValidationError(
            f"the batch has {values.shape[1]} features, the model was fitted with {len(columns)}: "
            + ", ".join(columns)
        )
    return pd.DataFrame(values, columns=columns)


def batch_frame(X: np.ndarray | pd.DataFrame, generation: Generation) -> pd.DataFrame:
    """The batch's columns that are kept: features, and those that are known by name otherwise."""
    frame = feature_frame(X, generation.given_features)
    if frame.empty:
        raise DataValidationError("the batch has no rows")
    roles = generation.roles
    others = [name for name in generation.reported_columns if name not in generation.schema.names]
    keys = [name for name in (roles.id, roles.time, *others) if name in frame]
    absent = [name for name in generation.schema.names if name not in frame]
    if absent:
        raise DataValidationError(f"the batch has no column '{absent[0]}'; add it")
    return frame[[*keys, *generation.schema.names]]


@one_line
@dataclass(frozen=True)
class Batch:
    """A batch that has been checked.

    Attributes
    ----------
    frame : DataFrame
        The columns that are kept.
    X : ndarray of float64, shape (n, n_features)
    outcomes : dict of str to ndarray, shape (n,)
        What is known of the target and the resources.
    """

    frame: pd.DataFrame
    X: np.ndarray
    outcomes: dict[str, np.ndarray]


def read_batch(
    generation: Generation, X: np.ndarray | pd.DataFrame, y: Any, resources: Mapping[str, Any]
) -> Batch:
    """Check a batch and what is known of it.

    Raises
    ------
    DataValidationError
    """
    refuse_other_order(X, y, resources)
    frame = batch_frame(X, generation)
    matrix = scorable_matrix(generation, frame)
    return Batch(frame, matrix, outcome_columns(generation, len(frame), y, resources))


def scorable_matrix(generation: Generation, frame: pd.DataFrame) -> np.ndarray:
    """The batch as the model's matrix; every row must be scorable."""
    encoded = generation.schema.encode(frame)
    broken = encoded.status[~encoded.scorable]
    if len(broken):
        raise DataValidationError(
            f"{len(broken)} of {len(frame)} rows cannot be scored ({broken[0]}); fill them, set "
            "missing_values to 'impute', or use the logged model, which leaves such rows null"
        )
    return encoded.X


def outcome_columns(
    generation: Generation,
    n_rows: int,
    y: Any,
    resources: Mapping[str, Any],
    *,
    partial: bool = False,
) -> dict[str, np.ndarray]:
    """Known outcomes by column name: numbers, and classes as texts.

    With `partial` a value may be missing, which is not known yet: NaN, of a class None.
    """
    roles = generation.roles
    given = ({} if y is None else {roles.target: y}) | dict(resources)
    for name in resources:
        if name not in roles.resources:
            raise DataValidationError(f"'{name}' is no resource of this model")
    target, known = generation.outcome, {}
    for name, values in given.items():
        own = target if name == target.name else NumberTarget(name)
        known[name] = own.given(values, n_rows, partial=partial)
    return known


@one_line
@dataclass(frozen=True)
class Outcomes:
    """Outcomes of a batch that came later, beside those that it had.

    Attributes
    ----------
    columns : dict of str to ndarray, shape (n,)
        All that are known now: what is not known yet stays as it was.
    is_new, is_changed : ndarray of bool, shape (n,)
        Rows whose target is known for the first time, and those where it was another.
    """

    columns: dict[str, np.ndarray]
    is_new: np.ndarray
    is_changed: np.ndarray


def later_outcomes(
    generation: Generation, frame: pd.DataFrame, labelled: Mapping[str, np.ndarray]
) -> Outcomes:
    """Join outcomes (see `outcome_columns`) with those that a batch of the history has."""
    roles = generation.roles
    before = {
        name: _held(frame[name]) for name in (roles.target, *roles.resources) if name in frame
    }
    columns = before | {
        name: np.where(pd.isna(values), before.get(name, values), values)
        for name, values in labelled.items()
    }
    nothing = np.full(len(frame), None, dtype=object)
    old, new = (known.get(roles.target, nothing) for known in (before, labelled))
    is_given, was_known = ~pd.isna(new), ~pd.isna(old)
    return Outcomes(columns, is_given & ~was_known, is_given & was_known & (old != new))


def _held(column: pd.Series) -> np.ndarray:
    if pd.api.types.is_numeric_dtype(column):
        return column.to_numpy(np.float64)
    return column.astype(object).where(column.notna(), None).to_numpy()


def joined(parts: list[Forecast]) -> Forecast:
    """Chunks of a batch as one forecast."""
    if len(parts) == 1:
        return parts[0]

    def whole(values: Callable[[Forecast], np.ndarray]) -> np.ndarray:
        return np.concatenate([values(part) for part in parts])

    assignment = Assignment(
        whole(lambda part: part.assignment.labels),
        whole(lambda part: part.assignment.is_noise),
        whole(lambda part: part.assignment.strength),
    )
    return Forecast(
        assignment,
        values=whole(lambda part: part.values),
        prediction=whole(lambda part: part.prediction),
        bounds=(whole(lambda part: part.bounds[0]), whole(lambda part: part.bounds[1])),
        weight=whole(lambda part: part.weight),
        resources={},
    )


def class_probabilities(generation: Generation, forecast: Forecast) -> dict[str, np.ndarray]:
    """The probability of each class by its column's name; empty for numbers."""
    return {name: forecast.values[:, i] for i, name in enumerate(generation.outcome.class_columns)}


def chunked_forecast(generation: Generation, X: np.ndarray, batch_size: int) -> Forecast:
    """The forecast of a matrix, `batch_size` rows at a time."""
    chunks = [X[start : start + batch_size] for start in range(0, len(X), batch_size)]
    return joined([generation.forecast(chunk, generation.coverage) for chunk in chunks])
