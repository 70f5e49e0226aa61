"""Between the caller's arrays and the generation: a batch in, a batch's figures out."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.classes import holds_classes
from tsclust_model.errors import DataValidationError
from tsclust_model.generation import Forecast, Generation
from tsclust_model.history import DataVersioner
from tsclust_model.validation import validate_target

_MEASURED_ROWS = (64, 2048)


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


@dataclass(frozen=True)
class BatchCosts:
    """What a batch costs: what is fixed, and what comes with each row.

    Attributes
    ----------
    seconds : tuple of float
        Of `process_batch`'s work up to the result (its `processing_time`).
    megabytes : tuple of float
        The most that Python and numpy hold for it at once, beyond what the process holds anyway.
    """

    seconds: tuple[float, float]
    megabytes: tuple[float, float]

    def of(self, n_rows: int) -> dict[str, float]:
        """``processing_time`` (s) and ``memory_usage`` (MB) of a batch of so many rows."""
        return {
            "processing_time": self.seconds[0] + n_rows * self.seconds[1],
            "memory_usage": self.megabytes[0] + n_rows * self.megabytes[1],
        }


def sums_by_cluster(
    labels: np.ndarray,
    resources: Mapping[str, np.ndarray],
    costs: BatchCosts | None = None,
) -> dict[int, dict[str, float]]:
    """Sums over the rows of each cluster: of the resources, or of what the batch costs.

    What is fixed in a batch's costs is shared by its rows.
    """
    clusters, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    sums: dict[str, np.ndarray]
    if costs is not None:
        shares = counts / len(labels)
        sums = {k: shares * np.float64(value) for k, value in costs.of(len(labels)).items()}
    else:
        sums = {
            name: np.bincount(inverse, weights=values, minlength=len(clusters))
            for name, values in resources.items()
        }
    return {
        int(cluster): {name: float(values[i]) for name, values in sums.items()}
        for i, cluster in enumerate(clusters)
    }


def chunked_forecast(generation: Generation, X: np.ndarray, batch_size: int) -> Forecast:
    """The forecast of a matrix, `batch_size` rows at a time."""
    chunks = [X[start : start + batch_size] for start in range(0, len(X), batch_size)]
    return joined([generation.forecast(chunk, generation.coverage) for chunk in chunks])


def measured_costs(
    generation: Generation,
    batch_size: int,
    timer: Callable[[], float] = time.perf_counter,
) -> BatchCosts:
    """What a batch costs here, measured on two of synthetic rows.

    They take the way of `process_batch`, into a history of their own in the system's folder for
    temporary files.

    Parameters
    ----------
    generation : Generation
        Without resources.
    batch_size : int
        As in `process_batch`.
    timer : callable
        Gives seconds.
    """
    rng = np.random.default_rng(0)
    seconds, megabytes = [], []
    with tempfile.TemporaryDirectory() as folder:
        history = DataVersioner(folder)

        def run(rows: pd.DataFrame) -> float:
            started = timer()
            frame = batch_frame(rows, generation)
            X = scorable_matrix(generation, frame)
            sums_by_cluster(chunked_forecast(generation, X, batch_size).assignment.labels, {})
            history.register(generation.canonical_rows(frame))
            return timer() - started

        for n_rows in _MEASURED_ROWS:
            # The first call parses the models; each batch is another, or it would not be kept.
            batches = [_synthetic_rows(generation, n_rows, rng) for _ in range(4)]
            run(batches[0])
            seconds.append(min(run(batches[1]), run(batches[2])))
            megabytes.append(_peak_megabytes(partial(run, batches[3])))
    return BatchCosts(_line(seconds), _line(megabytes))


def resident_megabytes() -> float:
    """MB of memory that this process holds now; the most it ever held where /proc is absent."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return pages * resource.getpagesize() / 2**20


def _synthetic_rows(generation: Generation, n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """The generation's example over and over, its clustered columns shaken so that rows differ."""
    example = generation.example()
    frame = pd.concat([example] * (n_rows // len(example) + 1), ignore_index=True).head(n_rows)
    names = list(generation.schema.cluster_features)
    shaken = frame[names] + rng.normal(size=(n_rows, len(names))) * (
        0.1 * generation.segmentation.scaler.scale
    )
    return frame.assign(**shaken)


def _peak_megabytes(call: Callable[[], object]) -> float:
    """The most memory that Python and numpy hold at once for a call, in MB."""
    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    try:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        call()
        return (tracemalloc.get_traced_memory()[1] - before) / 2**20
    finally:
        if not tracing:
            tracemalloc.stop()


def _line(values: Sequence[float]) -> tuple[float, float]:
    """What is fixed, and what comes with each row, of values measured at `_MEASURED_ROWS`."""
    few, many = _MEASURED_ROWS
    a_row = max(values[1] - values[0], 0.0) / (many - few)
    return max(values[0] - few * a_row, 0.0), a_row
