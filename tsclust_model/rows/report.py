"""What a report is made of: rows whose outcome is known, and how they were forecast.

`fold_evidence` takes the rows of the folds of a fit, `frame_evidence` a labelled table that the
model has not seen. Everything in a report about accuracy, totals and intervals comes from one
`Evidence`; everything about segments from one `SegmentRows`.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsclust_model.boosting.blend import OutputModel
from tsclust_model.boosting.folds import Fold, time_ordered_folds
from tsclust_model.boosting.intervals import Calibration, Support
from tsclust_model.metrics import naive_forecast, naive_losses
from tsclust_model.models.evidence import (
    MISSING,
    ClassRows,
    Evidence,
    Measure,
    OutputRows,
    Pool,
    SegmentRows,
    shows_ids,
)
from tsclust_model.results import NOISE, Assignment
from tsclust_model.rows.class_target import ClassModel
from tsclust_model.rows.evaluation import as_numbers, last_values
from tsclust_model.rows.table import TrainingData

if TYPE_CHECKING:
    from tsclust_model.rows.fit import FittedGeneration
    from tsclust_model.rows.model import Generation

_CLASSES = 10

_DISTINCT = 10  # a column of more different numbers is shown in four parts


def fold_evidence(
    fitted: FittedGeneration,
    data: TrainingData,
    frame: pd.DataFrame,
    columns: Collection[str],
    control: np.ndarray | None = None,
) -> Evidence:
    """The rows of the folds, each forecast by models that had not seen it.

    An interval, and the error of a total, is calibrated on the other folds.

    Parameters
    ----------
    fitted : FittedGeneration
        As it came out of the fit.
    data : TrainingData
    frame : DataFrame
        The table `data` was made of, in the same order.
    columns : collection of str
        To group by; those that the table does not have are left out.
    control : ndarray of float64, optional
        Losses on the folds of the blend with shuffled segments.
    """
    generation, target = fitted.generation, fitted.generation.target
    labels, coverage = fitted.assignment.labels, generation.coverage
    rows = np.concatenate([fold.valid for fold in fitted.folds])
    losses = dict(target.fold_losses) | fold_naive_losses(fitted, data, frame)
    if control is not None:
        losses["control"] = control
    classes, outputs = None, {}
    if isinstance(target, ClassModel):
        codes = data.y[rows].astype(np.int64)
        classes = ClassRows(target.outcome.classes, codes, target.fold_probabilities)
        outputs = _class_outputs(generation, codes, target.fold_probabilities)
    else:
        found = _on_folds(data.y, target, fitted.folds, labels, coverage)
        outputs[generation.roles.target] = _picked(found, rows)
    for name, model in generation.resources.items():
        known = np.flatnonzero(np.isfinite(data.resources[name]))
        groups = None if data.groups is None else data.groups[known]
        folds = [
            Fold(known[fold.train], known[fold.valid])
            for fold in time_ordered_folds(len(known), groups)
        ]
        found = _on_folds(data.resources[name], model, folds, labels, coverage)
        outputs[name] = _picked(found, rows)
    return Evidence(
        f"{len(rows):,} training rows, each forecast by models of older rows only "
        f"({len(fitted.folds)} folds)",
        labels[rows],
        np.repeat(np.arange(len(fitted.folds)), [len(fold.valid) for fold in fitted.folds]),
        losses,
        outputs,
        tuple(generation.resources),
        row_groups(frame.iloc[rows], columns),
        measure_of(generation),
        classes,
        None if data.groups is None else data.groups[rows],
    )


def fold_naive_losses(
    fitted: FittedGeneration, data: TrainingData, frame: pd.DataFrame
) -> dict[str, np.ndarray]:
    """`naive_losses` on the rows of the folds, each naive forecast made of its older rows only.

    Parameters
    ----------
    fitted : FittedGeneration
    data : TrainingData
    frame : DataFrame
        The table `data` was made of, in the same order.
    """
    last = last_values(fitted.generation, frame)
    parts = [
        naive_losses(
            naive_forecast(data.y[fold.train], data.n_classes),
            data.y[fold.valid],
            None if last is None else last[fold.valid],
        )
        for fold in fitted.folds
    ]
    ways = parts[0] if parts else {}
    return {way: np.concatenate([part[way] for part in parts]) for way in ways}


def frame_evidence(
    generation: Generation, frame: pd.DataFrame, columns: Collection[str], basis: str
) -> Evidence:
    """A labelled table that the model was not fitted on; rows that cannot be scored are left out.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
    columns : collection of str
        To group by; those that the table does not have are left out.
    basis : str
        Which rows they are, in words.
    """
    encoded = generation.schema.encode(frame)
    rows = np.flatnonzero(encoded.scorable)
    known = frame.iloc[rows]
    y = generation.outcomes(known)
    X = encoded.X[rows]
    forecast = generation.forecast(X, generation.coverage)
    labels = forecast.assignment.labels
    losses = {"blend": generation.row_losses(y, forecast)}
    for way, weight in (("global", 0.0), ("cluster", 1.0)):
        alone = generation.target.predict(X, labels, weight)[0]
        if generation.classes is None:
            other = replace(forecast, prediction=alone)
        else:
            other = replace(forecast, probabilities=alone)
        losses[way] = generation.row_losses(y, other)
    if "naive" in generation.info:
        last = last_values(generation, frame)
        losses |= naive_losses(
            generation.info["naive"],
            as_numbers(generation, y),
            None if last is None else last[rows],
        )
    classes, outputs = None, {}
    if isinstance(generation.target, ClassModel):
        codes = generation.target.outcome.codes(y)
        classes = ClassRows(generation.target.outcome.classes, codes, forecast.probabilities)
        outputs = _class_outputs(generation, codes, forecast.probabilities)
    else:
        outputs[generation.roles.target] = _calibrated(
            *(y, forecast.prediction, labels, generation.target.calibration, generation.coverage),
            generation.target.support,
        )
    for name, model in generation.resources.items():
        if name in known:
            truth = known[name].to_numpy(np.float64, na_value=np.nan)
            outputs[name] = _calibrated(
                *(truth, forecast.resources[name], labels, model.calibration, generation.coverage),
                model.support,
            )
    return Evidence(
        basis,
        labels,
        np.zeros(len(rows), dtype=np.int64),
        losses,
        outputs,
        tuple(name for name in generation.resources if name in outputs),
        row_groups(known, columns),
        measure_of(generation),
        classes,
    )


def training_segments(
    fitted: FittedGeneration, data: TrainingData, ids: Sequence[Any] | None
) -> SegmentRows:
    """The rows a generation was fitted on, with the segments they were given."""
    return _segments(fitted.generation, data.X, fitted.assignment, ids)


def frame_segments(generation: Generation, frame: pd.DataFrame) -> SegmentRows:
    """The rows of a table that can be scored, with the segments the model gives them."""
    encoded = generation.schema.encode(frame)
    rows = np.flatnonzero(encoded.scorable)
    assignment = generation.assign(encoded.X[rows])
    column = generation.roles.id
    named = shows_ids(generation) and column is not None and column in frame
    ids = frame[column].iloc[rows].tolist() if named else [f"row {row}" for row in rows.tolist()]
    return _segments(generation, encoded.X[rows], assignment, ids)


def measure_of(generation: Generation) -> Measure:
    """What a model is judged by; only a root of squares is in the target's unit."""
    metric = generation.metric
    unit = generation.roles.target if metric.squared else ""
    return Measure(metric.name, metric.label, unit, metric.squared)


def row_groups(frame: pd.DataFrame, columns: Collection[str]) -> dict[str, np.ndarray]:
    """Group of each row as text, shape (n,), by the columns that the table has.

    A column of more than ten different numbers is parted at its quartiles, whose bounds are
    rounded to two digits so that no bound is a row's value.
    """
    return {name: _groups(frame[name]) for name in dict.fromkeys(columns) if name in frame}


def _groups(column: pd.Series) -> np.ndarray:
    missing = column.isna().to_numpy()
    numbers = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
    if not numbers or column.nunique() <= _DISTINCT:
        texts = column.astype(object).map(_plain)
        return np.where(missing, MISSING, texts.to_numpy(dtype=object))
    values = column.to_numpy(np.float64, na_value=np.nan)
    edges = np.unique([_rounded(e) for e in np.nanquantile(values, [0.25, 0.5, 0.75])])
    names = [f"up to {edges[0]:g}"]
    names += [f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges)]
    names.append(f"above {edges[-1]:g}")
    found = np.array(names, dtype=object)[np.searchsorted(edges, values, side="left")]
    return np.where(missing, MISSING, found)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _on_folds(
    truth: np.ndarray,
    model: OutputModel,
    folds: Sequence[Fold],
    labels: np.ndarray,
    coverage: float,
) -> OutputRows:
    """An output over all training rows, known on the rows of the folds only."""
    n = len(truth)
    errors, part = np.full(n, np.nan), np.full(n, -1)
    valid = np.concatenate([fold.valid for fold in folds])
    errors[valid] = model.residuals
    for i, fold in enumerate(folds):
        part[fold.valid] = i
    names = ("truth", "prediction", "lower", "upper", "variance")
    columns = {name: np.full(n, np.nan) for name in names}
    pool = np.zeros(n, dtype=np.int64)
    pools: list[Pool] = []
    for i, fold in enumerate(folds):
        others = (part >= 0) & (part != i)
        calibration = Calibration.fit(errors[others], labels[others])
        own = _calibrated(
            *(truth[fold.valid], truth[fold.valid] - errors[fold.valid], labels[fold.valid]),
            calibration,
            coverage,
            model.support,
        )
        for name, values in columns.items():
            values[fold.valid] = getattr(own, name)
        pool[fold.valid] = own.pool + len(pools)
        pools += own.pools
    return OutputRows(**columns, pool=pool, pools=pools, support=model.support)


def _calibrated(
    truth: np.ndarray,
    prediction: np.ndarray,
    labels: np.ndarray,
    calibration: Calibration,
    coverage: float,
    support: Support,
) -> OutputRows:
    bounds = calibration.bounds(prediction, labels, coverage)
    lower, upper = support.bounds(prediction, *bounds)
    keys = sorted(calibration.residuals)
    # A segment without a calibration of its own has that of all rows.
    own = np.where(np.isin(labels, keys), labels, NOISE)
    pools = [
        Pool(float(errors.mean()), float(errors.var()), len(errors))
        for errors in (calibration.residuals[key] for key in keys)
    ]
    pool = np.searchsorted(keys, own)
    variance = np.array([found.variance for found in pools])[pool]
    return OutputRows(truth, prediction, lower, upper, variance, pool, pools, support=support)


def _class_outputs(
    generation: Generation, codes: np.ndarray, probabilities: np.ndarray
) -> dict[str, OutputRows]:
    """The ten likeliest classes as outputs, whose totals are how many rows are of them."""
    classes = generation.classes
    assert classes is not None
    likeliest = np.argsort(-probabilities.sum(axis=0), kind="stable")[:_CLASSES].tolist()
    nothing, first = np.full(len(codes), np.nan), np.zeros(len(codes), dtype=np.int64)
    return {
        f"{generation.roles.target}: {classes.classes[code]}": OutputRows(
            (codes == code).astype(np.float64),
            probabilities[:, code],
            nothing,
            nothing,
            probabilities[:, code] * (1 - probabilities[:, code]),
            first,
            [Pool(0.0, 0.0, 1)],
        )
        for code in likeliest
    }


def _picked(found: OutputRows, rows: np.ndarray) -> OutputRows:
    names = ("truth", "prediction", "lower", "upper", "variance", "pool")
    return replace(found, **{name: getattr(found, name)[rows] for name in names})


def _segments(
    generation: Generation, X: np.ndarray, assignment: Assignment, ids: Sequence[Any] | None
) -> SegmentRows:
    scaler, columns = generation.segmentation.scaler, generation.schema.cluster_columns
    clustered = scaler.fill(X[:, columns])
    return SegmentRows(
        scaler.transform(clustered),
        clustered,
        list(generation.schema.cluster_features),
        np.where(assignment.is_noise, NOISE, assignment.labels),
        assignment.labels,
        assignment.strength,
        [f"row {i}" for i in range(len(X))] if ids is None else list(ids),
    )
