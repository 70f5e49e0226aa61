"""The door: names, types and finiteness are checked here once, and trusted below.

A training table becomes a `TrainingData` (float64 arrays in time order) and a `Schema`; a batch
becomes an `Encoded` (the same matrix, and a status for every row that cannot be scored).
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.classes import ClassTarget, check_names, holds_classes
from tsclust_model.config import CLASS_OBJECTIVES, PipelineConfig
from tsclust_model.errors import ConfigurationError, DataValidationError, listed, suggestion
from tsclust_model.fitted_rows import MOST_ROWS, FittedRows
from tsclust_model.shown import one_line

OK = "ok"

# Beyond this a squared, scaled distance overflows and neighbours mean nothing.
_LARGEST = 1e100

RESERVED = frozenset(
    {"prediction", "prediction_lower", "prediction_upper", "cluster", "cluster_source"}
    | {"cluster_strength", "cluster_weight", "status"}
)
"""Names of the forecast's columns, which no key of the rows may have."""

_FEWEST = 2

# So few different whole numbers in so many rows may be classes.
_ASKED_VALUES = 10
_ASKED_ROWS = 50

_AS_BOOLEAN = {"1": "true", "1.0": "true", "0": "false", "0.0": "false"}

# What people write for "missing"; used only to point at a forgotten `missing_markers`.
_LIKELY_MARKERS = frozenset(
    {"", "?", "-", "--", ".", "na", "n/a", "nan", "null", "none", "missing", "unknown", "#n/a"}
)


@dataclass(frozen=True)
class Feature:
    """One input column: its name, its kind and, for a category, the texts seen in training.

    ``kind`` is ``number``, ``category`` or ``boolean``; the position in ``categories`` is the
    code LightGBM sees, and a text that is not among them is missing.
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()

    @property
    def is_number(self) -> bool:
        return self.kind == "number"


@one_line
@dataclass(frozen=True)
class Encoded:
    """A batch as LightGBM and the clustering see it.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_features)
        Numbers, and the codes of categories; NaN is missing.
    status : ndarray of object, shape (n,)
        ``ok``, or why the row cannot be scored, naming columns and never values.
    """

    X: np.ndarray
    status: np.ndarray

    @property
    def scorable(self) -> np.ndarray:
        """Mask of the rows that can be scored, shape (n,)."""
        return np.asarray(self.status == OK, dtype=bool)


@dataclass(frozen=True)
class Schema:
    """The input columns of a model, and how their values become numbers."""

    features: tuple[Feature, ...]
    cluster_features: tuple[str, ...]
    missing_values: str = "error"
    missing_markers: tuple[str, ...] = ("",)

    @cached_property
    def names(self) -> list[str]:
        return [feature.name for feature in self.features]

    @property
    def text_columns(self) -> list[str]:
        return [feature.name for feature in self.features if not feature.is_number]

    @cached_property
    def cluster_columns(self) -> np.ndarray:
        """Positions of the clustered columns in the matrix."""
        return np.array([self.names.index(name) for name in self.cluster_features])

    @property
    def categorical_columns(self) -> list[int]:
        """Positions of the categorical columns in the matrix."""
        return [i for i, feature in enumerate(self.features) if not feature.is_number]

    def encode(self, frame: pd.DataFrame) -> Encoded:
        """Turn a table into the model's matrix, one row at a time in effect.

        Extra columns are ignored and the order of columns does not matter.

        Raises
        ------
        DataValidationError
            A column is absent, duplicated, or holds text where the model knows a number.
        """
        if frame.columns.tolist() != self.names:
            _require_columns(frame, self.names)
            frame = frame[self.names]
        unseen = np.zeros(frame.shape, dtype=bool)
        ready = [
            feature.is_number and isinstance(dtype, np.dtype) and dtype.kind in "fiu"
            for feature, dtype in zip(self.features, frame.dtypes, strict=True)
        ]
        if all(ready):
            X = np.array(frame.to_numpy(np.float64), order="C")
            return Encoded(X, self._status(X, unseen))
        X = np.empty(frame.shape, dtype=np.float64)
        X[:, ready] = frame.loc[:, ready].to_numpy(np.float64)
        for i in np.flatnonzero(np.logical_not(ready)):
            feature = self.features[i]
            column = frame[feature.name]
            if feature.is_number:
                X[:, i] = _numbers(column, self.missing_markers)
            else:
                X[:, i], unseen[:, i] = _codes(column, feature, self.missing_markers)
        return Encoded(X, self._status(X, unseen))

    def _status(self, X: np.ndarray, unseen: np.ndarray) -> np.ndarray:
        if (np.abs(X) <= _LARGEST).all():  # and none of them is NaN
            return np.full(len(X), OK, dtype=object)
        missing = np.isnan(X) & ~unseen
        bad = {
            "infinite": np.isinf(X),
            "out of range": np.isfinite(X) & (np.abs(X) > _LARGEST),
        }
        if self.missing_values == "error":
            bad = {"missing": missing} | bad
        status = np.full(len(X), OK, dtype=object)
        for row in np.flatnonzero(
            np.logical_or.reduce([mask.any(axis=1) for mask in bad.values()])
        ):
            status[row] = "; ".join(
                f"{problem}: {', '.join(np.array(self.names, dtype=object)[mask[row]])}"
                for problem, mask in bad.items()
                if mask[row].any()
            )
        return status

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Schema:
        return cls(
            tuple(
                Feature(item["name"], item["kind"], tuple(item["categories"]))
                for item in content["features"]
            ),
            tuple(content["cluster_features"]),
            content["missing_values"],
            tuple(content["missing_markers"]),
        )


@dataclass(frozen=True)
class Roles:
    """Which column of a training table is what.

    Parameters
    ----------
    target : str
        The column to predict.
    features : sequence of str
        Input columns; empty means all that have no other role and are not dropped.
    resources : sequence of str
        Further columns to predict, one model each.
    time : str or None
        Numbers, timestamps or ISO 8601 texts that order the rows; None keeps their order.
    id : str or None
        Who a row belongs to; a fold never parts the rows of one id.
    horizon : int
        0 predicts the target of the same row. Above it the table is a long table of series, one
        row an `id` and `time`, and the next `horizon` values of each are forecast; `features` are
        then covariates, none unless they are named.
    frequency : str or None
        Of series, such as ``MS``, ``W``, ``D`` or ``h``; None guesses it.
    """

    target: str
    features: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    time: str | None = None
    id: str | None = None
    horizon: int = 0
    frequency: str | None = None

    @property
    def not_features(self) -> set[str]:
        return {self.target, *self.resources} | {name for name in (self.time, self.id) if name}


@one_line
@dataclass(frozen=True)
class TrainingData:
    """A training table as arrays, rows in time order.

    Attributes
    ----------
    schema : Schema
    X : ndarray of float64, shape (n, n_features)
    y : ndarray of float64, shape (n,)
        Of classes their codes.
    resources : dict of str to ndarray of float64, shape (n,)
        NaN where a resource is not known.
    groups : ndarray of int64, shape (n,), or None
        A number for each id.
    classes : ClassTarget or None
        None if the target is a number.
    fitted : FittedRows or None
        Which rows these are, for the model that is fitted on them.
    given : tuple of str
        All features in the table's order; those that are not in the schema were left out, because
        they hold one value only or none.
    """

    schema: Schema
    X: np.ndarray
    y: np.ndarray
    resources: dict[str, np.ndarray] = field(default_factory=dict)
    groups: np.ndarray | None = None
    classes: ClassTarget | None = None
    fitted: FittedRows | None = None
    given: tuple[str, ...] = ()

    @property
    def n_classes(self) -> int | None:
        """How many classes the target has; None if it is a number."""
        return None if self.classes is None else len(self.classes.classes)


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
    values = _as_float(X, "X")
    if values.ndim != 2:
        raise DataValidationError(f"X has {values.ndim} dimension(s); give (n_samples, n_features)")
    if 0 in values.shape:
        raise DataValidationError(f"X has shape {values.shape}; give at least one row and column")
    names = _names(X)
    for broken, problem in (
        (~np.isfinite(values), "missing or infinite values"),
        (np.abs(values) > _LARGEST, f"values beyond {_LARGEST:g}"),
    ):
        columns = [name for name, found in zip(names, broken.any(axis=0), strict=True) if found]
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
    names = None
    if not isinstance(expected_features, (int, np.integer)):
        names = [str(name) for name in expected_features]
    if isinstance(X_batch, pd.DataFrame) and names is not None:
        X_batch = _text_names(X_batch)
        _require_columns(X_batch, names)
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


def training_data(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    *,
    gaps: bool = False,
    known: ClassTarget | None = None,
) -> TrainingData:
    """Check a training table and turn it into arrays in time order.

    Parameters
    ----------
    frame : DataFrame
    roles : Roles
    config : PipelineConfig
    gaps : bool
        Whether resources may be missing in some rows (NaN then): batches need not bring them.
    known : ClassTarget, optional
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
    frame = _text_names(frame)
    twice = frame.columns[frame.columns.duplicated()].unique()
    if len(twice):
        raise DataValidationError(f"duplicated column names: {listed(twice)}; rename them")
    if len(frame) < _FEWEST:
        raise DataValidationError(f"{len(frame)} row(s) are too few; give {_FEWEST} or more")
    features = _feature_names(frame, roles, config)
    frame = in_time_order(frame, roles.time)
    left_out = _uninformative(frame, features, config)
    schema = _fit_schema(frame, features, left_out, config)
    encoded = schema.encode(frame)
    _refuse_broken(schema, encoded.X, frame)
    classes = _class_target(frame, roles, config, known)
    if classes is None:
        y = outcome(frame, roles.target, "target")
        _ask_for_classes(y, roles.target, config)
    else:
        y = classes.codes(class_outcome(frame, classes, schema.missing_markers)).astype(np.float64)
    return TrainingData(
        schema,
        encoded.X,
        y,
        {name: _resource(frame, name, gaps) for name in roles.resources},
        None if roles.id is None else _groups(frame[roles.id], config.missing_markers),
        classes,
        _fitted_rows(frame, schema, roles, config, classes),
        tuple(features),
    )


def _fitted_rows(
    frame: pd.DataFrame,
    schema: Schema,
    roles: Roles,
    config: PipelineConfig,
    classes: ClassTarget | None,
) -> FittedRows | None:
    if not config.row_hashes or len(frame) > MOST_ROWS:
        return None
    rows = canonical_rows(frame, schema, roles, classes)
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
    if any(isinstance(value, (list, tuple, dict, set, np.ndarray)) for value in column.head(1)):
        return 2  # refused by its type
    present = _without_markers(column, markers)
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
            stacklevel=3,
        )


def _class_target(
    frame: pd.DataFrame, roles: Roles, config: PipelineConfig, known: ClassTarget | None
) -> ClassTarget | None:
    """The classes of the target, or None if it is a number (see `PipelineConfig.task`)."""
    given = frame[roles.target]
    column = _without_markers(given, config.missing_markers)
    if isinstance(given.dtype, pd.CategoricalDtype):
        column = column.map(str, na_action="ignore")
    objective = config.lgb_timeseries_params["objective"]
    asked = config.task == "classification" or objective in CLASS_OBJECTIVES
    if not (asked or known or (config.task == "auto" and holds_classes(given))):
        return None
    found = ClassTarget.fit(column, roles.target, known=known, asked=asked)
    if objective == "binary" and len(found.classes) > 2:
        raise DataValidationError(
            f"target '{roles.target}' has {len(found.classes)} classes and the objective is "
            "'binary'; take 'multiclass'"
        )
    check_names(found, (roles.id, roles.time))
    return found


def in_time_order(frame: pd.DataFrame, time: str | None) -> pd.DataFrame:
    """The rows ordered by the column `time` (rows of one time keep their order)."""
    if time is None:
        return frame.reset_index(drop=True)
    _require_columns(frame, [time])
    keys = _time_keys(frame[time], time)
    if keys.isna().any():
        raise DataValidationError(
            f"time column '{time}' is missing in {int(keys.isna().sum())} row(s); remove those rows"
        )
    return frame.iloc[np.argsort(keys.to_numpy(), kind="stable")].reset_index(drop=True)


def _time_keys(column: pd.Series, time: str) -> pd.Series:
    """What orders the rows: numbers, or times in UTC without a zone."""
    keys = column.infer_objects()
    if pd.api.types.is_numeric_dtype(keys):
        return keys
    if not pd.api.types.is_datetime64_any_dtype(keys):
        try:
            keys = pd.to_datetime(keys, format="ISO8601", utc=True)
        except (ValueError, TypeError) as error:
            raise DataValidationError(
                f"time column '{time}' is neither numbers nor ISO 8601 dates "
                "(2026-01-31 or 2026-01-31T08:00); convert it"
            ) from error
    return keys.dt.tz_convert("UTC").dt.tz_localize(None) if keys.dt.tz is not None else keys


def canonical_rows(
    frame: pd.DataFrame,
    schema: Schema,
    roles: Roles,
    classes: ClassTarget | None = None,
    kept: Collection[str] = (),
) -> pd.DataFrame:
    """The columns a model knows, each as one type, so that the same rows are the same anywhere.

    A csv has texts where a table in memory has times and booleans: numbers become float64,
    categories, ids and `classes` texts, times UTC; other columns are left out, but for `kept`.
    """
    columns: dict[str, Any] = {}
    if roles.id is not None and roles.id in frame:
        columns[roles.id] = _plain_texts(frame[roles.id], schema.missing_markers)
    if roles.time is not None and roles.time in frame:
        keys = _time_keys(frame[roles.time], roles.time)
        numeric = pd.api.types.is_numeric_dtype(keys)
        columns[roles.time] = keys.astype(np.float64 if numeric else "datetime64[ns]").to_numpy()
    for feature in schema.features:
        if feature.is_number:
            columns[feature.name] = _numbers(frame[feature.name], schema.missing_markers)
        else:
            texts = _plain_texts(frame[feature.name], schema.missing_markers)
            if feature.kind == "boolean":
                texts = [None if text is None else _as_boolean(text) for text in texts]
            columns[feature.name] = texts
    for name in (roles.target, *roles.resources):
        if name not in frame:
            continue
        if classes is not None and name == classes.name:
            column = _without_markers(frame[name], schema.missing_markers)
            known, found = column.notna().to_numpy(), np.full(len(frame), None, dtype=object)
            found[known] = classes.texts(column[known])
            columns[name] = found
        else:
            columns[name] = _numbers(frame[name], schema.missing_markers)
    for name in kept:
        if name in frame and name not in columns:
            read = _numbers if frame[name].dtype.kind in "iuf" else _plain_texts
            columns[name] = read(frame[name], schema.missing_markers)
    return pd.DataFrame(columns)


def _plain_texts(column: pd.Series, markers: Collection[str]) -> list[str | None]:
    column = _without_markers(column, markers)
    return [None if gap else str(v) for v, gap in zip(column, column.isna(), strict=True)]


def _as_boolean(text: str) -> str:
    lowered = text.strip().lower()
    return _AS_BOOLEAN.get(lowered, lowered)


def outcome(frame: pd.DataFrame, name: str, role: str) -> np.ndarray:
    """The target or a resource of a table as float64, shape (n,)."""
    _require_columns(frame, [name], role)
    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        raise DataValidationError(
            f"{role} '{name}' is {column.dtype}, not numbers; give a numeric column"
        )
    return validate_target(column.to_numpy(np.float64, na_value=np.nan), len(frame), name)


def class_outcome(
    frame: pd.DataFrame, classes: ClassTarget, markers: Collection[str]
) -> np.ndarray:
    """The target's classes as texts, shape (n,).

    Raises
    ------
    DataValidationError
        The target is absent, or missing in some rows.
    """
    _require_columns(frame, [classes.name], "target column")
    return classes.texts(_without_markers(frame[classes.name], markers))


def _resource(frame: pd.DataFrame, name: str, gaps: bool) -> np.ndarray:
    if not gaps:
        return outcome(frame, name, "resource")
    known = frame[name].notna().to_numpy()
    values = np.full(len(frame), np.nan)
    values[known] = outcome(frame[known], name, "resource")
    return values


def _require_columns(frame: pd.DataFrame, names: Sequence[str], role: str = "column") -> None:
    absent = [name for name in names if name not in frame.columns]
    if absent:
        hint = suggestion(absent[0], map(str, frame.columns)) if len(absent) == 1 else ""
        raise DataValidationError(
            f"the data has no {role} {listed(map(repr, absent))}{hint}; add it or correct the name"
        )
    twice = [name for name in names if isinstance(frame[name], pd.DataFrame)]
    if twice:
        raise DataValidationError(f"duplicated column names: {listed(twice)}; rename them")


def _text_names(frame: pd.DataFrame) -> pd.DataFrame:
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


def _feature_names(frame: pd.DataFrame, roles: Roles, config: PipelineConfig) -> list[str]:
    """The features, after every role has been checked against the others."""
    _require_columns(frame, [roles.target], "target column")
    _require_columns(frame, roles.resources, "resource column")
    _require_columns(frame, [name for name in (roles.time, roles.id) if name])
    if roles.target in roles.resources:
        raise DataValidationError(f"'{roles.target}' is the target and a resource; choose one")
    predicted = {roles.target, *roles.resources}
    for role, name in (("time", roles.time), ("id", roles.id)):
        if name in predicted:
            raise DataValidationError(f"'{name}' is the {role} column and is predicted; choose one")
        if name in RESERVED:
            raise DataValidationError(f"'{name}' is a column of the forecasts; rename the {role}")
    if roles.features:
        _require_columns(frame, roles.features, "feature column")
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
        for name in config.drop_columns:
            if name not in frame.columns:
                warnings.warn(
                    f"drop_columns names '{name}', which the data does not have"
                    f"{suggestion(name, map(str, frame.columns))}",
                    stacklevel=3,
                )
        unusable = roles.not_features | set(config.drop_columns)
        features = [str(name) for name in frame.columns if name not in unusable]
    if not features:
        raise DataValidationError("no feature column is left; name some or drop fewer columns")
    return features


def _fit_schema(
    frame: pd.DataFrame, given: list[str], left_out: Collection[str], config: PipelineConfig
) -> Schema:
    names = [name for name in given if name not in left_out]
    markers = tuple(config.missing_markers)
    features = tuple(_fit_feature(frame[name], name, markers) for name in names)
    numeric = [feature.name for feature in features if feature.is_number]
    asked = config.cluster_features
    chosen = numeric if asked is None else list(dict.fromkeys(asked))
    chosen = [name for name in chosen if name not in left_out]
    for name in chosen:
        if name not in names:
            raise ConfigurationError(
                f"cluster_features: '{name}' is not a feature{suggestion(name, names)}"
            )
        if name not in numeric:
            raise ConfigurationError(
                f"cluster_features: '{name}' is text; segments are found on numbers only"
            )
    if not chosen:
        raise DataValidationError(
            "no numeric feature to find segments on; add one, or convert a text column to numbers"
        )
    return Schema(features, tuple(chosen), config.missing_values, markers)


def _fit_feature(column: pd.Series, name: str, markers: tuple[str, ...]) -> Feature:
    """Decide the kind of a column, and for a category its texts in sorted order."""
    if pd.api.types.is_datetime64_any_dtype(column) or pd.api.types.is_timedelta64_dtype(column):
        raise DataValidationError(
            f"column '{name}' holds times, which are no features; make it the time column, "
            "turn it into numbers or add it to drop_columns"
        )
    if pd.api.types.is_bool_dtype(column):
        return Feature(name, "boolean", ("false", "true"))
    if pd.api.types.is_numeric_dtype(column):
        return Feature(name, "number")
    if any(isinstance(value, (list, tuple, dict, set, np.ndarray)) for value in column):
        raise DataValidationError(
            f"column '{name}' holds lists or mappings; spread them into columns "
            "or add it to drop_columns"
        )
    present = _without_markers(column, markers).dropna()
    kind = pd.api.types.infer_dtype(present, skipna=True)
    if kind == "boolean":
        return Feature(name, "boolean", ("false", "true"))
    if isinstance(column.dtype, pd.CategoricalDtype) and kind != "empty":
        kind = "string"  # somebody has said that its numbers are names
    if kind in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return Feature(name, "number")
    if kind not in ("string", "categorical", "mixed-integer", "mixed"):
        raise DataValidationError(
            f"column '{name}' holds {kind} values; give numbers or texts, or add it to drop_columns"
        )
    texts = pd.Index(present.astype(str).unique()).sort_values()
    if set(texts.str.strip().str.lower()) <= {"false", "true"}:  # as the history keeps booleans
        return Feature(name, "boolean", ("false", "true"))
    looks_numeric = pd.to_numeric(texts.to_series(), errors="coerce").notna()
    if looks_numeric.any() and len(present) < column.notna().sum() and looks_numeric.all():
        return Feature(name, "number")  # numbers once the markers are gone
    others = set(texts[~looks_numeric].str.strip().str.lower())
    if looks_numeric.any() and others and others <= _LIKELY_MARKERS:
        raise DataValidationError(
            f"column '{name}' holds numbers and a text that seems to mean 'missing'; "
            "add that text to missing_markers"
        )
    n_numbers = int(present.astype(str).isin(texts[looks_numeric]).sum())
    if len(present) > 50 and 0.99 * len(present) <= n_numbers < len(present):
        warnings.warn(
            f"column '{name}' is taken as text, although {n_numbers} of {len(present)} values are "
            "numbers; correct the others, or add their text to missing_markers",
            stacklevel=2,
        )
    elif len(texts) > 100 and len(texts) > len(column) / 2:
        warnings.warn(
            f"column '{name}' has {len(texts)} distinct texts in {len(column)} rows and looks "
            "like an identifier; add it to drop_columns if it is one",
            stacklevel=2,
        )
    return Feature(name, "category", tuple(texts))


def _refuse_broken(schema: Schema, X: np.ndarray, frame: pd.DataFrame) -> None:
    """Refuse columns that cannot be trained on, all of one kind in one line."""
    names = np.array(schema.names, dtype=object)

    def refuse(broken: Collection[bool], problem: str, remedy: str) -> None:
        if any(broken):
            columns = names[np.array(broken)]
            raise DataValidationError(f"column(s) {problem}: {listed(columns, 20)}; {remedy}")

    refuse(np.isinf(X).any(axis=0), "with infinite values", "replace them or remove the rows")
    refuse((np.abs(X) > _LARGEST).any(axis=0), f"with values beyond {_LARGEST:g}", "correct them")
    missing = np.isnan(X)
    if schema.missing_values == "error":
        refuse(
            missing.any(axis=0),
            f"with missing values ({int(missing.any(axis=1).sum())} of {len(frame)} rows)",
            "fill them, or set missing_values to 'impute'",
        )


def _without_markers(column: pd.Series, markers: Collection[str]) -> pd.Series:
    """The column with marker texts as missing; a column without text is returned as it is."""
    if not (
        column.dtype == object or isinstance(column.dtype, (pd.StringDtype, pd.CategoricalDtype))
    ):
        return column
    column = column.astype(object)
    return column.mask(column.isin(list(markers)))


def _numbers(column: pd.Series, markers: Collection[str]) -> np.ndarray:
    column = _without_markers(column, markers)
    try:
        if column.dtype == object:
            column = pd.to_numeric(column)
        elif column.dtype.kind in "mM":
            raise TypeError("a time is no number")
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataValidationError(
            f"column '{column.name}' holds something that is not a number, and the model knows it "
            "as a number; correct the column, or train again"
        ) from error


def _codes(
    column: pd.Series, feature: Feature, markers: Collection[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of a category column (NaN is missing) and the mask of texts not seen in training."""
    column = _without_markers(column, markers)
    missing = column.isna().to_numpy()
    texts = column.astype(str)
    if feature.kind == "boolean":
        texts = texts.str.strip().str.lower().replace(_AS_BOOLEAN)
    codes = pd.Index(feature.categories, dtype=object).get_indexer(pd.Index(texts, dtype=object))
    unseen = (codes < 0) & ~missing
    return np.where(missing | (codes < 0), np.nan, codes), unseen


def _groups(column: pd.Series, markers: Collection[str]) -> np.ndarray:
    codes, _ = pd.factorize(_without_markers(column, markers))
    if (codes < 0).any():
        raise DataValidationError(
            f"id column '{column.name}' is missing in {int((codes < 0).sum())} row(s); "
            "fill or remove them"
        )
    return codes.astype(np.int64)
