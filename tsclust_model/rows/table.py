"""Input validation of rows: names, types and finiteness, checked once and trusted below.

A training table becomes a `TrainingData` (float64 arrays in time order) and a `Schema`; a batch
becomes an `Encoded` (the same matrix, and a status for every row that cannot be scored).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import CLASS_OBJECTIVES, PipelineConfig
from tsclust_model.data.class_labels import check_names, holds_classes
from tsclust_model.data.columns import (
    RESERVED,
    as_boolean,
    as_numbers,
    id_codes,
    in_time_order,
    is_nested,
    named_strings,
    numbers_or_not,
    outcome,
    plain_strings,
    require_columns,
    time_keys,
    without_markers,
)
from tsclust_model.data.fitted_rows import MOST_ROWS, FittedRows
from tsclust_model.data.roles import Roles
from tsclust_model.errors import DataValidationError, listed, suggestion
from tsclust_model.rows.schema import Schema, fit_schema, refuse_broken
from tsclust_model.rows.targets import ClassTarget, NumberTarget, Target
from tsclust_model.shown import one_line

_FEWEST = 2

# So few different whole numbers in so many rows may be classes.
_ASKED_VALUES = 10

_ASKED_ROWS = 50


@one_line
@dataclass(frozen=True)
class TrainingData:
    """A training table as arrays, rows in time order.

    Attributes
    ----------
    schema : Schema
    X : ndarray of float64, shape (n, n_features)
    target : Target
    y : ndarray of float64, shape (n,)
        Codes of the outcomes: numbers, or positions of classes.
    resources : dict of str to ndarray of float64, shape (n,)
        NaN where a resource is not known.
    groups : ndarray of int64, shape (n,), or None
        A number for each id.
    fitted : FittedRows or None
        Which rows these are, for the model that is fitted on them.
    given : tuple of str
        All features in the table's order; those that are not in the schema were left out, because
        they hold one value only or none.
    """

    schema: Schema
    X: np.ndarray
    target: Target
    y: np.ndarray
    resources: dict[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = None
    fitted: FittedRows | None = None
    given: tuple[str, ...] = ()


def training_data(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    *,
    gaps: bool = False,
    known: Target | None = None,
) -> TrainingData:
    """Check a training table and turn it into arrays in time order.

    Parameters
    ----------
    frame : DataFrame
    roles : Roles
    config : PipelineConfig
    gaps : bool
        Whether resources may be missing in some rows (NaN then): batches need not bring them.
    known : Target, optional
        Of the model that this one may follow; its classes stay.

    Raises
    ------
    DataValidationError
        Whatever makes the table unfit for training; the message names the columns.

    Warns
    -----
    UserWarning
        Columns that hold one value only, or none, are left out and named; a target of few whole
        numbers is predicted as a number.
    """
    frame = named_strings(frame)
    twice = frame.columns[frame.columns.duplicated()].unique()
    if len(twice):
        raise DataValidationError(f"duplicated column names: {listed(twice)}; rename them")
    if len(frame) < _FEWEST:
        raise DataValidationError(f"{len(frame)} row(s) are too few; give {_FEWEST} or more")
    features = _feature_names(frame, roles, config)
    frame = in_time_order(frame, roles.time)
    left_out = _uninformative(frame, features, config)
    schema = fit_schema(frame, features, left_out, config)
    encoded = schema.encode(frame)
    refuse_broken(schema, encoded.X, frame)
    target, y = _target(frame, roles, config, known)
    return TrainingData(
        schema,
        encoded.X,
        target,
        y,
        {name: _resource(frame, name, gaps) for name in roles.resources},
        None if roles.id is None else _groups(frame[roles.id], config.missing_markers),
        _fitted_rows(frame, schema, roles, config, target),
        tuple(features),
    )


def _groups(column: pd.Series, markers: Collection[str]) -> np.ndarray:
    return id_codes(without_markers(column, markers))[0]


def _fitted_rows(
    frame: pd.DataFrame,
    schema: Schema,
    roles: Roles,
    config: PipelineConfig,
    target: Target,
) -> FittedRows | None:
    if not config.row_hashes or len(frame) > MOST_ROWS:
        return None
    rows = canonical_rows(frame, schema, roles, target)
    content = pd.util.hash_pandas_object(rows, index=False).to_numpy()
    seed = config.random_state.to_bytes(8, "little") + content.tobytes()
    return FittedRows.of(rows, (*schema.names, roles.target), (roles.id, roles.time), seed)


def _uninformative(
    frame: pd.DataFrame, features: Sequence[str], config: PipelineConfig
) -> tuple[str, ...]:
    """Features that hold one value only, or none: they tell nothing, and are named in a warning.

    A column of one value and gaps stays: whether it is missing tells something.
    """
    markers = tuple(config.missing_markers)
    one = tuple(name for name in features if _distinct(frame[name], markers) <= 1)
    if not one:
        return ()
    if len(one) == len(features):
        raise DataValidationError(
            f"every feature holds one value only, or none: {listed(one, 20)}; name columns that "
            "vary"
        )
    warnings.warn(
        f"left out, because they hold one value only or none: {listed(one, 20)}",
        stacklevel=3,
    )
    return one


def _distinct(column: pd.Series, markers: Collection[str]) -> int:
    """How many different values a column has, 2 for two or more; a gap beside values is one."""
    if any(map(is_nested, column.head(1))):
        return 2  # refused by its type
    present = without_markers(column, markers)
    known = present.dropna()
    if known.empty:
        return 0
    return 1 if len(known) == len(present) and bool((known == known.iloc[0]).all()) else 2


def _ask_for_classes(y: np.ndarray, target: str, config: PipelineConfig) -> None:
    """Say that a target of few whole numbers is taken as a number, and how it becomes classes."""
    if config.task != "auto" or len(y) < _ASKED_ROWS:
        return
    values = np.unique(y)
    if 2 <= len(values) <= _ASKED_VALUES and bool((values == np.round(values)).all()):
        warnings.warn(
            f"target '{target}' holds {len(values)} different whole numbers and is predicted as a "
            "number; if they are classes, set task to 'classification' (--task classification), "
            "if not, to 'regression'",
            stacklevel=4,
        )


def _target(
    frame: pd.DataFrame, roles: Roles, config: PipelineConfig, known: Target | None
) -> tuple[Target, np.ndarray]:
    """The target, a number or classes (see `PipelineConfig.task`), and its codes, float64."""
    given = frame[roles.target]
    column = without_markers(given, config.missing_markers)
    if isinstance(given.dtype, pd.CategoricalDtype):
        column = column.map(str, na_action="ignore")
    objective = config.lgb_timeseries_params["objective"]
    asked = config.task == "classification" or objective in CLASS_OBJECTIVES
    before = known if isinstance(known, ClassTarget) else None
    if not (asked or before or (config.task == "auto" and holds_classes(given))):
        y = outcome(frame, roles.target, "target")
        _ask_for_classes(y, roles.target, config)
        return NumberTarget(roles.target), y
    target = ClassTarget.fit(column, roles.target, known=before, asked=asked)
    if objective == "binary" and len(target.classes) > 2:
        raise DataValidationError(
            f"target '{roles.target}' has {len(target.classes)} classes and the objective is "
            "'binary'; take 'multiclass'"
        )
    check_names(target, (roles.id, roles.time))
    return target, target.codes(target.texts(column)).astype(np.float64)


def canonical_rows(
    frame: pd.DataFrame,
    schema: Schema,
    roles: Roles,
    target: Target | None = None,
    kept: Collection[str] = (),
) -> pd.DataFrame:
    """The columns a model knows, each as one type, so that the same rows are the same anywhere.

    A csv has texts where a table in memory has times and booleans: numbers become float64,
    categories, ids and classes strings, times UTC; other columns are left out, but for `kept`.
    Without a `target` no outcomes are in.
    """
    columns: dict[str, Any] = {}
    if roles.id is not None and roles.id in frame:
        columns[roles.id] = plain_strings(frame[roles.id], schema.missing_markers)
    if roles.time is not None and roles.time in frame:
        keys = time_keys(frame[roles.time], roles.time)
        numeric = pd.api.types.is_numeric_dtype(keys)
        columns[roles.time] = keys.astype(np.float64 if numeric else "datetime64[ns]").to_numpy()
    for feature in schema.features:
        if feature.is_number:
            columns[feature.name], _ = numbers_or_not(frame[feature.name], schema.missing_markers)
        else:
            texts = plain_strings(frame[feature.name], schema.missing_markers)
            if feature.kind == "boolean":
                texts = [None if text is None else as_boolean(text) for text in texts]
            columns[feature.name] = texts
    if target is not None and target.name in frame:
        columns[target.name] = target.canonical(frame[target.name], schema.missing_markers)
    for name in roles.resources:
        if name in frame:
            columns[name] = as_numbers(frame[name], schema.missing_markers)
    for name in kept:
        if name in frame and name not in columns:
            read = as_numbers if frame[name].dtype.kind in "iuf" else plain_strings
            columns[name] = read(frame[name], schema.missing_markers)
    return pd.DataFrame(columns)


def _resource(frame: pd.DataFrame, name: str, gaps: bool) -> np.ndarray:
    if not gaps:
        return outcome(frame, name, "resource")
    known = frame[name].notna().to_numpy()
    values = np.full(len(frame), np.nan)
    values[known] = outcome(frame[known], name, "resource")
    return values


def _feature_names(frame: pd.DataFrame, roles: Roles, config: PipelineConfig) -> list[str]:
    """The features, after every role has been checked against the others."""
    require_columns(frame, [roles.target], "target column")
    require_columns(frame, roles.resources, "resource column")
    require_columns(frame, [name for name in (roles.time, roles.id) if name])
    if roles.target in roles.resources:
        raise DataValidationError(f"'{roles.target}' is the target and a resource; choose one")
    predicted = {roles.target, *roles.resources}
    for role, name in (("time", roles.time), ("id", roles.id)):
        if name in predicted:
            raise DataValidationError(f"'{name}' is the {role} column and is predicted; choose one")
        if name in RESERVED:
            raise DataValidationError(f"'{name}' is a column of the forecasts; rename the {role}")
    for name in config.drop_columns:
        if name not in frame.columns:
            warnings.warn(
                f"drop_columns names '{name}', which the data does not have"
                f"{suggestion(name, map(str, frame.columns))}",
                stacklevel=3,
            )
    if roles.features:
        require_columns(frame, roles.features, "feature column")
        features = list(dict.fromkeys(roles.features))
        for name in features:
            if name in predicted:
                role = "the target" if name == roles.target else "a resource"
                raise DataValidationError(
                    f"'{name}' is {role} and also a feature; take it out of one of the two"
                )
            if name in config.drop_columns:
                raise DataValidationError(
                    f"'{name}' is a feature and in drop_columns; take it out of one of the two"
                )
    else:
        unusable = roles.not_features | set(config.drop_columns)
        features = [str(name) for name in frame.columns if name not in unusable]
    if not features:
        raise DataValidationError("no feature column is left; name some or drop fewer columns")
    return features
