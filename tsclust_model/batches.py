"""Between the caller's arrays and the generation: a batch in, a batch's figures out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.classes import holds_classes
from tsclust_model.errors import DataValidationError
from tsclust_model.generation import Forecast, Generation
from tsclust_model.validation import validate_target


def training_frame(
    X: np.ndarray | pd.DataFrame, y: Any, resources: Mapping[str, Any]
) -> tuple[pd.DataFrame, str]:
    """Features, target (numbers, or classes as they come) and resources as one table, and the
    target's name there."""
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
        _one_each(classes, len(frame), target)
        values[target] = classes.array
    else:
        values[target] = validate_target(y, len(frame), target)
    return frame.assign(**values), target


def _one_each(y: pd.Series, n_rows: int, name: str) -> np.ndarray:
    if len(y) != n_rows:
        raise DataValidationError(f"{name} has {len(y)} values for {n_rows} rows; give one a row")
    return y.to_numpy(dtype=object)


def feature_frame(X: np.ndarray | pd.DataFrame, names: Sequence[str] | None) -> pd.DataFrame:
    """The batch as a table with text names; arrays get the model's, or ``feature_<i>``."""
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
    frame = feature_frame(X, generation.schema.names)
    if frame.empty:
        raise DataValidationError("the batch has no rows")
    roles = generation.roles
    others = [name for name in generation.reported_columns if name not in generation.schema.names]
    keys = [name for name in (roles.id, roles.time, *others) if name in frame]
    absent = [name for name in generation.schema.names if name not in frame]
    if absent:
        raise DataValidationError(f"the batch has no column '{absent[0]}'; add it")
    return frame[[*keys, *generation.schema.names]]


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
    generation: Generation, n_rows: int, y: Any, resources: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Known outcomes by column name: numbers, and classes as texts."""
    roles = generation.roles
    given = ({} if y is None else {roles.target: y}) | dict(resources)
    for name in resources:
        if name not in roles.resources:
            raise DataValidationError(f"'{name}' is no resource of this model")
    classes, known = generation.classes, {}
    for name, values in given.items():
        if classes is not None and name == classes.name:
            known[name] = classes.texts(_one_each(pd.Series(values), n_rows, name))
        else:
            known[name] = validate_target(values, n_rows, name)
    return known


def joined(parts: list[Forecast]) -> Forecast:
    """Chunks of a batch as one forecast."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    assignment = type(first.assignment)(
        *(
            np.concatenate([getattr(part.assignment, item.name) for part in parts])
            for item in fields(first.assignment)
        )
    )
    arrays = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("prediction", "lower", "upper", "weight", "probabilities")
    }
    return Forecast(assignment, **arrays, resources={})


def class_probabilities(generation: Generation, forecast: Forecast) -> dict[str, np.ndarray]:
    """The probability of each class by its column's name; empty for numbers."""
    names = [] if generation.classes is None else generation.classes.columns
    return dict(zip(names, forecast.probabilities.T, strict=True))


def sums_by_cluster(
    labels: np.ndarray,
    resources: Mapping[str, np.ndarray],
    costs: tuple[float, float] | None = None,
) -> dict[int, dict[str, float]]:
    """Sums over the rows of each cluster: of the resources, or of what scoring a row costs."""
    clusters, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums: dict[str, np.ndarray]
    if costs is not None:
        seconds, megabytes = costs
        sums = {"processing_time": counts * seconds, "memory_usage": counts * megabytes}
    else:
        sums = {
            name: np.bincount(inverse, weights=values, minlength=len(clusters))
            for name, values in resources.items()
        }
    return {
        int(cluster): {name: float(found[i]) for name, found in sums.items()}
        for i, cluster in enumerate(clusters)
    }


def measured_costs(generation: Generation) -> tuple[float, float]:
    """Seconds and MB that scoring a row costs here, measured on 256 made-up rows."""
    example = generation.example()
    frame = pd.concat([example] * (256 // len(example) + 1), ignore_index=True).head(256)
    X = generation.schema.encode(frame).X
    generation.forecast(X, generation.coverage)  # the first call parses the models
    started = time.perf_counter()
    forecast = generation.forecast(X, generation.coverage)
    seconds = (time.perf_counter() - started) / len(X)
    kept = X.nbytes * 2 + sum(
        values.nbytes for values in vars(forecast).values() if isinstance(values, np.ndarray)
    )
    return seconds, kept / len(X) / 2**20
