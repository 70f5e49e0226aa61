"""What a report is made of: rows whose outcome is known, and how they were forecast.

`fold_evidence` takes the rows of the folds of a fit, `frame_evidence` a labelled table that the
model has not seen. Everything in a report about accuracy, totals and intervals comes from one
`Evidence`; everything about segments from one `SegmentRows`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from tsclust_model.classification import ClassModel
from tsclust_model.evaluation import as_numbers, last_values
from tsclust_model.folds import Fold, time_ordered_folds
from tsclust_model.forecasting import OutputModel
from tsclust_model.generation import FittedGeneration, FittedPipeline, Generation
from tsclust_model.intervals import Calibration, Support
from tsclust_model.metrics import naive_forecast, naive_losses
from tsclust_model.results import NOISE, Assignment
from tsclust_model.segment_gain import mean_error
from tsclust_model.shown import one_line
from tsclust_model.validation import TrainingData

MISSING = "(missing)"
_CLASSES = 10
_DISTINCT = 10  # a column of more different numbers is shown in four parts


@dataclass(frozen=True)
class Measure:
    """How errors are counted.

    Attributes
    ----------
    name, label : str
        ``rmse`` and "RMSE".
    unit : str
        What it is counted in; empty for a bare number.
    root : bool
        Whether it is the square root of the mean loss, or the mean itself.
    """

    name: str
    label: str
    unit: str
    root: bool

    def value(self, losses: np.ndarray) -> float | None:
        """The measure of some rows' losses, shape (n,); None without rows."""
        if not len(losses):
            return None
        mean = float(losses.mean())
        return math.sqrt(mean) if self.root else mean

    def error(self, losses: np.ndarray, parts: np.ndarray | None = None) -> float | None:
        """Standard error of `value` (of a root by the delta method).

        It is the larger of the one over rows and, with `parts` (the fold of each row), the one
        over folds: many rows do not make up for two folds that disagree.
        """
        spread = mean_error(losses, parts)
        value = self.value(losses)
        if spread is None or value is None or not self.root:
            return spread
        return spread / (2 * value) if value > 0 else 0.0


@dataclass(frozen=True)
class Pool:
    """Errors (truth - forecast) that new errors are like: their mean, variance and number."""

    mean: float
    variance: float
    n: int


@one_line
@dataclass(frozen=True)
class OutputRows:
    """One output on n rows.

    Attributes
    ----------
    truth, prediction, lower, upper : ndarray of float64, shape (n,)
        NaN where unknown.
        The truth of a class is 0 or 1, its prediction a probability, and it has no bounds.
    variance : ndarray of float64, shape (n,)
        Of each row's own error.
    pool : ndarray of int64, shape (n,)
        Position in `pools` of the errors that a row's own error is like.
    pools : sequence of Pool
    shares : ndarray of float64, shape (n,), or None
        Share of a row's values inside their intervals, where a row is a sum of several.
    support : Support
        What totals keep to, as their rows do.
    """

    truth: np.ndarray
    prediction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    variance: np.ndarray
    pool: np.ndarray
    pools: Sequence[Pool]
    shares: np.ndarray | None = None
    support: Support = field(default_factory=Support)

    @property
    def inside(self) -> np.ndarray:
        """Whether (or how much of) each row is inside its interval, 0 to 1; NaN unknown."""
        if self.shares is not None:
            return self.shares
        inside = (self.lower <= self.truth) & (self.truth <= self.upper)
        return np.where(self.known & np.isfinite(self.lower), inside, np.nan)

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows with an outcome and a forecast, shape (n,)."""
        return np.isfinite(self.truth) & np.isfinite(self.prediction)

    def total(self, rows: np.ndarray, coverage: float) -> dict[str, float]:
        """Sum over some rows (a mask, shape (n,)) where the outcome is known, and its interval.

        The interval is normal, around the sum of the forecasts. Its variance has two parts: that
        of independent errors, and that of an error which all rows of a pool share, as large as
        the pool's mean error, which is itself known from n errors only.

        Returns
        -------
        dict
            ``n_rows``, ``expected``, ``lower``, ``upper`` and ``actual``.
        """
        rows = rows & self.known
        counts = np.bincount(self.pool[rows], minlength=len(self.pools))
        expected = float(self.prediction[rows].sum())
        variance = float(self.variance[rows].sum()) + sum(
            count**2 * (pool.mean**2 + pool.variance / pool.n)
            for count, pool in zip(counts.tolist(), self.pools, strict=True)
        )
        half = float(norm.ppf((1 + coverage) / 2)) * math.sqrt(variance)
        total = np.array([expected])
        lower, upper = self.support.bounds(total, total - half, total + half)
        return {
            "n_rows": int(rows.sum()),
            "expected": expected,
            "lower": float(lower[0]),
            "upper": float(upper[0]),
            "actual": float(self.truth[rows].sum()),
        }


@one_line
@dataclass(frozen=True)
class ClassRows:
    """What a target of classes was, and what was said of it.

    Attributes
    ----------
    names : tuple of str
    codes : ndarray of int64, shape (n,)
        Position of what happened; -1 is a class the model does not know.
    probabilities : ndarray of float64, shape (n, n_classes)
    """

    names: tuple[str, ...]
    codes: np.ndarray
    probabilities: np.ndarray

    @property
    def hits(self) -> np.ndarray:
        """Whether the likeliest class was the one that happened, shape (n,)."""
        return np.asarray(self.probabilities.argmax(axis=1) == self.codes)


@one_line
@dataclass(frozen=True)
class Evidence:
    """Rows that no model had seen when it forecast them, shape (n,) each.

    Attributes
    ----------
    basis : str
        Which rows they are, in words.
    labels : ndarray of int64
        Segment that served the row.
    parts : ndarray of int64
        Fold of the row; zeros where there are none.
    losses : dict of str to ndarray of float64
        Loss of each way of forecasting: ``blend`` is what is served.
    outputs : dict of str to OutputRows
        The target first, or its classes, then the resources.
    resources : tuple of str
        Which of the outputs are resources.
    groups : dict of str to ndarray of object
        Group of each row, by the columns that were chosen.
    measure : Measure
    classes : ClassRows or None
        Of a target of classes.
    units : ndarray of int64 or None
        Whose row it is, where rows have an id.
    """

    basis: str
    labels: np.ndarray
    parts: np.ndarray
    losses: dict[str, np.ndarray]
    outputs: dict[str, OutputRows]
    resources: tuple[str, ...]
    groups: dict[str, np.ndarray]
    measure: Measure
    classes: ClassRows | None = None
    units: np.ndarray | None = None

    @property
    def target(self) -> OutputRows | None:
        """The target of numbers; None of classes."""
        return None if self.classes is not None else next(iter(self.outputs.values()))


@one_line
@dataclass(frozen=True)
class SegmentRows:
    """Rows and their segments, for profiles and pictures.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_cluster_features)
        The clustered columns, scaled.
    original : ndarray of float64, shape (n, n_cluster_features)
        The same in their own units, gaps filled with medians.
    features : list of str
    labels : ndarray of int64, shape (n,)
        Before the fallback; -1 is noise.
    served : ndarray of int64, shape (n,)
        After the fallback.
    strength : ndarray of float64, shape (n,)
    ids : list, length n
        What to call a row: its id, or its position in time order.
    """

    X: np.ndarray
    original: np.ndarray
    features: list[str]
    labels: np.ndarray
    served: np.ndarray
    strength: np.ndarray
    ids: list[Any]


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


def shows_ids(generation: FittedPipeline) -> bool:
    """Whether reports may name rows by their ids; models of before never asked for it."""
    return bool(generation.info["config"].get("show_ids", False))


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
