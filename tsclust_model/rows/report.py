"""What the report of a model of rows is made of.

`fold_evidence` takes the rows of the folds of a fit, `frame_evidence` a labelled table that the
model was not fitted on.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from tsclust_model.boosting.folds import Fold, time_ordered_folds
from tsclust_model.boosting.intervals import Calibration, Support
from tsclust_model.boosting.output_model import NumberModel
from tsclust_model.data.columns import numbers_or_times
from tsclust_model.models.evidence import (
    MISSING,
    ClassRows,
    Evidence,
    OutputRows,
    Pool,
    ReportInputs,
    SegmentRows,
    Traits,
)
from tsclust_model.monitoring.detectors import DriftWindow
from tsclust_model.results import NOISE, Assignment
from tsclust_model.rows.evaluation import last_values
from tsclust_model.rows.table import TrainingData

if TYPE_CHECKING:
    from tsclust_model.rows.fit import FittedGeneration
    from tsclust_model.rows.model import Forecast, Generation

LEAST_ROWS = 10
"""Accuracy is shown of so many rows or more."""

_CLASSES = 10

_DISTINCT = 10  # a column of more different numbers is shown in four parts


def fit_inputs(
    fitted: FittedGeneration,
    data: TrainingData,
    known: pd.DataFrame,
    holdout: pd.DataFrame,
    control: np.ndarray | None = None,
    *,
    champion: Generation | None = None,
    evaluated: Generation | None = None,
) -> ReportInputs:
    """What the report of a training or a retrain is made of.

    Parameters
    ----------
    fitted : FittedGeneration
    data : TrainingData
    known : DataFrame
        The table of `data`, in the same order.
    holdout : DataFrame
        Newer labelled rows; may be empty.
    control : ndarray of float64, optional
        Losses on the folds of the blend with shuffled segments.
    champion : Generation, optional
        The generation before, for which rows changed their segment.
    evaluated : Generation, optional
        A model that was fitted without `holdout`, if this one was not; accuracy is its own.
    """
    generation = fitted.generation
    folds = fold_evidence(fitted, data, known, generation.reported_columns, control)
    evidence, fold_methods, newest = folds, None, None
    if _n_scorable(evaluated or generation, holdout) >= LEAST_ROWS:
        fold_methods = folds.methods if len(folds.labels) else None
        newest = _drift_window(evaluated or generation, holdout)
        evidence = _holdout_evidence(generation, evaluated, holdout)
    roles = generation.roles
    ids = known[roles.id].tolist() if roles.id is not None and generation.shows_ids else None
    return ReportInputs(
        traits(generation),
        training_segments(fitted, data, ids),
        evidence,
        {"n_holdout": 0 if evaluated else len(holdout), "period": period(known, roles.time)},
        fold_methods,
        newest,
        None if champion is None else _relabelled(champion, generation, known),
    )


def table_inputs(
    generation: Generation,
    frame: pd.DataFrame,
    fresh: pd.DataFrame | None = None,
    *,
    certain: bool = True,
) -> ReportInputs:
    """What the report of a model on a labelled table is made of.

    Parameters
    ----------
    generation : Generation
    frame : DataFrame
        Whose segments are shown.
    fresh : DataFrame, optional
        Those of the rows that the model was not fitted on; default: all. Accuracy and drift are
        theirs.
    certain : bool
        Whether it is known that they were not fitted.
    """
    segments = frame_segments(generation, frame)
    fresh = frame if fresh is None else fresh
    n = _n_scorable(generation, fresh)
    evidence, newest = None, None
    if n:
        basis = "{n} rows that were not fitted"
        if not certain:
            basis = "{n} rows, of which some may have been fitted: the model does not know"
        columns = generation.reported_columns
        evidence = frame_evidence(generation, fresh, columns, basis)
        newest = _drift_window(generation, fresh)
    facts = {
        "n_evaluated": n,
        "n_not_scored": len(frame) - len(segments.labels),
        "period": period(frame, generation.roles.time),
    }
    return ReportInputs(traits(generation), segments, evidence, facts, newest=newest)


def traits(generation: Generation) -> Traits:
    """What a report says of a model of rows and only it knows."""
    model = generation.target
    return Traits(
        clustered=list(generation.schema.cluster_features),
        weight=model.weight,
        own_shares={cluster: model.weight for cluster in model.texts if cluster != NOISE},
        gain=generation.info.get("segment_gain"),
        importance=_importance(generation),
        least_rows=generation.info["config"]["min_cluster_rows"],
    )


def period(frame: pd.DataFrame, time: str | None) -> list[str] | None:
    """First and last day (or number) of the time column; None without one."""
    if time is None or time not in frame or not len(frame):
        return None
    keys = numbers_or_times(frame[time])
    if pd.api.types.is_numeric_dtype(keys):
        return [f"{keys.min():g}", f"{keys.max():g}"]
    return [keys.min().date().isoformat(), keys.max().date().isoformat()]


def fold_evidence(
    fitted: FittedGeneration,
    data: TrainingData,
    frame: pd.DataFrame,
    columns: Collection[str],
    control: np.ndarray | None = None,
) -> Evidence:
    """The rows of the folds, each forecast by models of other rows.

    An interval, and the error of a total, is calibrated on the other folds. `frame`, `columns` and
    `control` are those of `fit_inputs` and `frame_evidence`.
    """
    generation, target = fitted.generation, fitted.generation.target
    rows = np.concatenate([fold.valid for fold in fitted.folds])
    losses = dict(target.fold_losses) | fold_naive_losses(fitted, data, frame)
    if control is not None:
        losses["control"] = control

    def on_folds(truth: np.ndarray, model: NumberModel, folds: Sequence[Fold]) -> OutputRows:
        labels = fitted.assignment.labels
        return _on_folds(truth, model, folds, labels, generation.coverage, rows)

    own: OutputRows | ClassRows
    if target.summed:
        own = on_folds(data.y, target.summed[0], fitted.folds)
    else:
        codes = data.y[rows].astype(np.int64)
        own = ClassRows(generation.outcome.classes, codes, target.fold_values)
    resources = {}
    for name, model in generation.resources.items():
        known = np.flatnonzero(np.isfinite(data.resources[name]))
        groups = None if data.groups is None else data.groups[known]
        folds = time_ordered_folds(len(known), groups)
        folds = [Fold(known[fold.train], known[fold.valid]) for fold in folds]
        resources[name] = on_folds(data.resources[name], model, folds)
    return Evidence(
        basis=f"{len(rows):,} training rows, each forecast by models of older rows only "
        f"({len(fitted.folds)} folds)",
        labels=fitted.assignment.labels[rows],
        parts=np.repeat(np.arange(len(fitted.folds)), [len(fold.valid) for fold in fitted.folds]),
        losses=losses,
        name=generation.roles.target,
        target=own,
        resources=resources,
        groups=row_groups(frame.iloc[rows], columns),
        metric=generation.metric,
        units=None if data.groups is None else data.groups[rows],
    )


def fold_naive_losses(
    fitted: FittedGeneration, data: TrainingData, frame: pd.DataFrame
) -> dict[str, np.ndarray]:
    """`Target.naive_losses` on the rows of the folds, each forecast made of older rows only.

    `frame` is the table `data` was made of, in the same order.
    """
    last = last_values(fitted.generation, frame)
    parts = [
        data.target.naive_losses(
            data.target.naive(data.y[fold.train]),
            data.y[fold.valid],
            None if last is None else last[fold.valid],
        )
        for fold in fitted.folds
    ]
    methods = parts[0] if parts else {}
    return {method: np.concatenate([part[method] for part in parts]) for method in methods}


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
        Which rows they are, in words; ``{n}`` is how many.
    """
    encoded = generation.schema.encode(frame)
    rows = np.flatnonzero(encoded.scorable)
    known = frame.iloc[rows]
    y = generation.outcomes(known)
    outcome = generation.outcome
    forecast = generation.forecast(encoded.X[rows], generation.coverage)
    labels = forecast.assignment.labels

    def calibrated(truth: np.ndarray, prediction: np.ndarray, model: NumberModel) -> OutputRows:
        fit = (model.calibration, generation.coverage, model.support)
        return _calibrated(truth, prediction, labels, *fit)

    own: OutputRows | ClassRows
    if generation.target.summed:
        own = calibrated(y, forecast.values, generation.target.summed[0])
    else:
        own = ClassRows(outcome.classes, outcome.codes(y).astype(np.int64), forecast.values)
    return Evidence(
        basis=basis.format(n=f"{len(rows):,}"),
        labels=labels,
        parts=np.zeros(len(rows), dtype=np.int64),
        losses=_frame_losses(generation, encoded.X[rows], y, forecast)
        | _frame_naive_losses(generation, frame, rows, y),
        name=generation.roles.target,
        target=own,
        resources={
            name: calibrated(
                known[name].to_numpy(np.float64, na_value=np.nan), forecast.resources[name], model
            )
            for name, model in generation.resources.items()
            if name in known
        },
        groups=row_groups(known, columns),
        metric=generation.metric,
        quantile_losses=outcome.quantile_figures(generation.target, y, forecast.values, labels),
    )


def _frame_losses(
    generation: Generation, X: np.ndarray, y: np.ndarray, forecast: Forecast
) -> dict[str, np.ndarray]:
    """Losses of what is served, of the global model and of segments' models alone."""
    losses, labels = {"blend": generation.row_losses(y, forecast)}, forecast.assignment.labels
    for method, weight in (("global", 0.0), ("cluster", 1.0)):
        alone = generation.target.predict(X, labels, weight)[0]
        losses[method] = generation.outcome.losses(y, alone)
    return losses


def _frame_naive_losses(
    generation: Generation, frame: pd.DataFrame, rows: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    if "naive" not in generation.info:  # of an older build
        return {}
    last, outcome = last_values(generation, frame), generation.outcome
    before = None if last is None else last[rows]
    return outcome.naive_losses(generation.info["naive"], outcome.codes(y), before)


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
    named = generation.shows_ids and column is not None and column in frame
    ids = frame[column].iloc[rows].tolist() if named else [f"row {row}" for row in rows.tolist()]
    return _segments(generation, encoded.X[rows], assignment, ids)


def row_groups(frame: pd.DataFrame, columns: Collection[str]) -> dict[str, np.ndarray]:
    """Group of each row as text, shape (n,), by the columns that the table has.

    A column of more than ten different numbers is split at its quartiles, whose bounds are
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
    named = np.array(names, dtype=object)[np.searchsorted(edges, values, side="left")]
    return np.where(missing, MISSING, named)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def _on_folds(
    truth: np.ndarray,
    model: NumberModel,
    folds: Sequence[Fold],
    labels: np.ndarray,
    coverage: float,
    rows: np.ndarray,
) -> OutputRows:
    """An output on some training rows, known on the rows of the folds only."""
    n = len(truth)
    errors, part = np.full(n, np.nan), np.full(n, -1)
    valid = np.concatenate([fold.valid for fold in folds])
    errors[valid] = truth[valid] - model.fold_values
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
            truth[fold.valid],
            truth[fold.valid] - errors[fold.valid],
            labels[fold.valid],
            calibration,
            coverage,
            model.support,
        )
        for name, values in columns.items():
            values[fold.valid] = getattr(own, name)
        pool[fold.valid] = own.pool + len(pools)
        pools += own.pools
    shown = {name: values[rows] for name, values in columns.items()}
    return OutputRows(**shown, pool=pool[rows], pools=pools, support=model.support)


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
    variance = np.array([one.variance for one in pools])[pool]
    return OutputRows(truth, prediction, lower, upper, variance, pool, pools, support=support)


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


def _holdout_evidence(
    generation: Generation, evaluated: Generation | None, holdout: pd.DataFrame
) -> Evidence:
    """Accuracy of the model that did not fit the rows, by the segments of the other."""
    if evaluated is None:
        basis = "the newest {n} rows, which were not fitted"
        return frame_evidence(generation, holdout, generation.reported_columns, basis)
    basis = "the newest {n} rows, by the same fit without them"
    evidence = frame_evidence(evaluated, holdout, evaluated.reported_columns, basis)
    own = generation.schema.encode(holdout)
    if own.scorable.sum() == len(evidence.labels):
        labels = generation.assign(own.X[own.scorable]).labels
        evidence = replace(evidence, labels=labels)
    return evidence


def _n_scorable(generation: Generation, frame: pd.DataFrame) -> int:
    return int(generation.schema.encode(frame).scorable.sum()) if len(frame) else 0


def _drift_window(generation: Generation, frame: pd.DataFrame) -> DriftWindow:
    encoded = generation.schema.encode(frame)
    X = encoded.X[encoded.scorable]
    return DriftWindow(X, generation.assign(X).is_noise)


def _relabelled(
    champion: Generation, generation: Generation, frame: pd.DataFrame
) -> tuple[np.ndarray, np.ndarray]:
    """Segments of the rows that both can score, by each."""
    before, after = (one.schema.encode(frame) for one in (champion, generation))
    rows = before.scorable & after.scorable
    return champion.assign(before.X[rows]).labels, generation.assign(after.X[rows]).labels


def _importance(generation: Generation) -> dict[str, tuple[float, float]]:
    """Share of the target's gain of each feature, globally and as served, the largest first."""
    model = generation.target
    globally = _gain_shares(model.global_booster)
    served = globally
    if model.weight > 0 and model.clusters:
        sizes = {int(k): n for k, n in generation.info["cluster_sizes"].items() if int(k) != NOISE}
        total = max(sum(sizes.values()), 1)
        own = sum(
            _gain_shares(booster) * sizes.get(cluster, 0) / total
            for cluster, booster in model.cluster_boosters.items()
        )
        covered = sum(sizes.get(cluster, 0) for cluster in model.clusters) / total
        served = (1 - model.weight * covered) * globally + model.weight * own
    names, order = generation.schema.names, np.argsort(-served, kind="stable")
    return {names[i]: (float(globally[i]), float(served[i])) for i in order}


def _gain_shares(booster: Any) -> np.ndarray:
    gains = np.asarray(booster.feature_importance("gain"), dtype=np.float64)
    return gains / gains.sum() if gains.sum() > 0 else gains
