"""What a report is made of, whichever kind of model it is about: segments, forecasts, outcomes.

The kinds of models make these (`rows.report`, `series.report`); `report` shows them and never asks
which kind it holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

import numpy as np
from scipy.stats import norm

from tsclust_model.boosting.intervals import Support
from tsclust_model.boosting.segment_gain import mean_error
from tsclust_model.metrics import Metric, calculate_classification_metrics, calculate_model_metrics
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.monitoring.detectors import DriftWindow

MISSING = "(missing)"

FEW = 3
"""Cells of a picture with fewer rows are left out."""

_CLASSES = 10

_ENOUGH = 100  # fewer rows hardly fill a cell

METHODS = {
    "global": "one global model",
    "cluster": "segments' own models alone",
    "blend": "blend (what is served)",
    "control": "blend with shuffled segments (control)",
    "bank": "exponential filters (no model)",
    "theta": "Theta (no model)",
    "regression": "regression on its own past (no model)",
    "seasonal_naive": "the value a season ago",
    "naive": "the training rows' median, or shares of classes (no model)",
    "last_value": "the last value (no model)",
}
"""Methods of forecasting, in the order they are shown; ``blend`` is what is served."""


class Column(TypedDict):
    """A figure that is shown of a group beside the measure."""

    name: str
    label: str
    format: str  # number, signed or share


class MethodScore(TypedDict):
    """The error of a method, and the share of the global model's that it saves."""

    way: str
    label: str
    value: float | None
    error: float | None
    saved: float | None
    saved_error: float | None


class MethodTable(TypedDict):
    """Methods on the same rows."""

    basis: str
    ways: list[MethodScore]


class Total(TypedDict):
    """A sum over rows, expected with its interval, and what it came to."""

    n_rows: int
    expected: float
    lower: float
    upper: float
    actual: float


def _column(name: str, label: str, format: str) -> Column:
    return {"name": name, "label": label, "format": format}


SUM_COLUMNS = (
    _column("bias", "Mean error", "signed"),
    _column("interval_coverage", "In intervals", "share"),
)
NUMBER_COLUMNS = (_column("mae", "MAE", "number"), _column("r2", "R²", "number"), *SUM_COLUMNS)
CLASS_COLUMNS = (_column("accuracy", "Right", "share"), _column("auc", "AUC", "number"))


@dataclass(frozen=True)
class Pool:
    """Past errors (truth - forecast) that stand for new ones: their mean, variance and number."""

    mean: float
    variance: float
    n: int


@one_line
@dataclass(frozen=True)
class Chart:
    """A picture of the accuracy; the report draws it by its name from the arguments."""

    name: str
    caption: str
    alt: str
    arguments: tuple[Any, ...]


@one_line
@dataclass(frozen=True)
class ShownForecast:
    """A series in a picture: its newest known values, and one value a step of what followed."""

    name: str
    past: np.ndarray
    prediction: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    actual: np.ndarray | None = None


@one_line
@dataclass(frozen=True)
class OutputRows:
    """One output on n rows.

    Attributes
    ----------
    truth, prediction, lower, upper : ndarray of float64, shape (n,)
        NaN where unknown. The truth of a class is 0 or 1, its prediction a probability, and it has
        no bounds.
    variance : ndarray of float64, shape (n,)
        Of each row's own error.
    pool : ndarray of int64, shape (n,)
        Position in `pools` of the errors that stand for a row's own.
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
    def columns(self) -> tuple[Column, ...]:
        """Which `scores` are shown; a sum has no MAE of its own."""
        return NUMBER_COLUMNS if self.shares is None else SUM_COLUMNS

    def outputs(self, name: str) -> dict[str, OutputRows]:
        """What has totals, of a target of this name."""
        return {name: self}

    @property
    def known(self) -> np.ndarray:
        """Mask of the rows with an outcome and a forecast, shape (n,)."""
        return np.isfinite(self.truth) & np.isfinite(self.prediction)

    def covered(self, rows: np.ndarray) -> float | None:
        """Share of some rows (a mask) inside their intervals; None where none has one."""
        inside = self.shares
        if inside is None:
            inside = ((self.lower <= self.truth) & (self.truth <= self.upper)).astype(np.float64)
            inside[~(self.known & np.isfinite(self.lower))] = np.nan
        inside = inside[rows]
        inside = inside[np.isfinite(inside)]
        return float(inside.mean()) if inside.size else None

    def total(self, rows: np.ndarray, coverage: float) -> Total:
        """Sum over some rows (a mask, shape (n,)) where the outcome is known, and its interval.

        The interval is normal, around the sum of the forecasts. Its variance has two parts: that
        of independent errors, and that of an error which all rows of a pool share, as large as
        the pool's mean error, which is itself known from n errors only.
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

    def scores(self, rows: np.ndarray) -> dict[str, float | None]:
        """``mae``, ``r2``, ``bias`` and ``interval_coverage`` of some rows (a mask)."""
        known = rows & self.known
        truth, prediction = self.truth[known], self.prediction[known]
        metrics = calculate_model_metrics(truth, prediction)
        return {
            "mae": metrics["mae"],
            "r2": metrics["r2"],
            "bias": float((prediction - truth).mean()) if known.any() else None,
            "interval_coverage": self.covered(known),
        }

    def charts(self, unit: str) -> list[Chart]:
        """Actual against predicted, and what was missed; none of fewer than 100 rows."""
        known = self.known
        if known.sum() < _ENOUGH:
            return []
        note = f"Rows are counted in cells; cells of fewer than {FEW} rows are left out."
        drawn = (self.truth[known], self.prediction[known], unit, FEW)
        return [
            Chart(
                "predicted",
                f"Actual against predicted. {note}",
                "Actual against predicted values around the line where they are equal.",
                drawn,
            ),
            Chart(
                "residuals",
                f"What the forecast missed. {note}",
                "Actual minus predicted over predicted values, around zero.",
                drawn,
            ),
        ]


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
    columns: ClassVar[tuple[Column, ...]] = CLASS_COLUMNS

    def outputs(self, name: str) -> dict[str, OutputRows]:
        """The ten likeliest classes, whose totals are how many rows are of them."""
        nothing, pool = np.full(len(self.codes), np.nan), np.zeros(len(self.codes), dtype=np.int64)
        outputs = {}
        likeliest = np.argsort(-self.probabilities.sum(axis=0), kind="stable")[:_CLASSES]
        for code in likeliest.tolist():
            p, came = self.probabilities[:, code], (self.codes == code).astype(np.float64)
            rows = OutputRows(came, p, nothing, nothing, p * (1 - p), pool, [Pool(0.0, 0.0, 1)])
            outputs[f"{name}: {self.names[code]}"] = rows
        return outputs

    def scores(self, rows: np.ndarray) -> dict[str, float | None]:
        """``accuracy`` and ``auc`` of some rows (a mask)."""
        metrics = calculate_classification_metrics(self.codes[rows], self.probabilities[rows])
        return {name: metrics[name] for name in ("accuracy", "auc")}

    def charts(self, unit: str) -> list[Chart]:
        """The table of the classes by what was predicted."""
        predicted = self.probabilities.argmax(axis=1)
        return [
            Chart(
                "confusion",
                "What was predicted of the rows of each class, as shares of the class; cells of "
                f"fewer than {FEW} rows are left out.",
                f"Table of {len(self.names)} classes by what was predicted.",
                (self.codes, predicted, self.names, FEW),
            )
        ]


@one_line
@dataclass(frozen=True)
class Evidence:
    """Out-of-sample forecasts of rows whose outcome is known, shape (n,) each.

    Attributes
    ----------
    basis : str
        Which rows they are, in words.
    labels : ndarray of int64
        Segment that served the row.
    parts : ndarray of int64
        Fold of the row; zeros where there are none.
    losses : dict of str to ndarray of float64
        Loss of each of `METHODS`.
    name : str
        Of the target.
    target : OutputRows or ClassRows
    resources : dict of str to OutputRows
    groups : dict of str to ndarray of object
        Group of each row, by the columns that were chosen.
    metric : Metric
    units : ndarray of int64 or None
        Whose row it is, where rows have an id.
    quantile_losses : mapping of str to float or None
        ``wql`` and of series ``sql`` of all rows; empty where there are no quantiles.
    """

    basis: str
    labels: np.ndarray
    parts: np.ndarray
    losses: dict[str, np.ndarray]
    name: str
    target: OutputRows | ClassRows
    resources: dict[str, OutputRows]
    groups: dict[str, np.ndarray]
    metric: Metric
    units: np.ndarray | None = None
    quantile_losses: Mapping[str, float | None] = field(default_factory=dict)

    @cached_property
    def outputs(self) -> dict[str, OutputRows]:
        """What has totals: the target, or its classes, then the resources."""
        return self.target.outputs(self.name) | self.resources

    def value(self, losses: np.ndarray) -> float:
        """The metric of some rows' losses, shape (n,), n > 0."""
        return self.metric.of(float(losses.mean()))

    def error(self, losses: np.ndarray, parts: np.ndarray | None = None) -> float | None:
        """Standard error of `value` (of a root by the delta method); see `mean_error`."""
        spread, value = mean_error(losses, parts), self.value(losses)
        if spread is None or not self.metric.squared:
            return spread
        return spread / (2 * value) if value > 0 else 0.0

    @property
    def methods(self) -> MethodTable:
        """Each method, and what it saves of the global model's error."""
        shown = [self._score(name) for name in METHODS if name in self.losses]
        return {"basis": self.basis, "ways": shown}

    def _score(self, name: str) -> MethodScore:
        losses, before = self.losses[name], self.losses["global"]
        saved = saved_error = None
        if name != "global" and before.mean() > 0:
            saved = 1 - self.value(losses) / self.value(before)
            spread = mean_error(before - losses, self.parts, self.units)
            slope = (2 if self.metric.squared else 1) * float(before.mean())
            saved_error = None if spread is None else spread / slope
        return {
            "way": name,
            "label": METHODS[name],
            "value": self.value(losses),
            "error": self.error(losses, self.parts),
            "saved": saved,
            "saved_error": saved_error,
        }


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
    sample_ids : list, length n
        What to call a row: its id, or its position in time order.
    """

    X: np.ndarray
    original: np.ndarray
    features: list[str]
    labels: np.ndarray
    served: np.ndarray
    strength: np.ndarray
    sample_ids: list[Any]


@one_line
@dataclass(frozen=True)
class Traits:
    """What a report says of a model and only its kind knows.

    Attributes
    ----------
    clustered : list of str
        What segments are found on.
    weight : float
        Share (0 to 1) of segments' own models in the forecast.
    own_shares : dict of int to float
        The same of each segment that has a model of its own.
    gain : mapping or None
        Of `SegmentGain.to_dict`; None in models of older builds.
    importance : dict of str to (float, float)
        Share of the target's gain of each feature, in the global model and in what is served;
        empty where no column stands out.
    least_rows : int or None
        A segment under so many rows has no model of its own; None where something else decides.
    ahead : str
        How far ahead it forecasts, in words.
    has_groups : bool
        Whether rows have columns to group them by.
    """

    clustered: list[str]
    weight: float
    own_shares: dict[int, float]
    gain: Mapping[str, Any] | None
    importance: dict[str, tuple[float, float]]
    least_rows: int | None = None
    ahead: str = ""
    has_groups: bool = True


@one_line
@dataclass(frozen=True)
class ReportInputs:
    """All that a report needs of a model and of the rows it is about.

    Attributes
    ----------
    traits : Traits
    segments : SegmentRows
    evidence : Evidence or None
        None where no row with a known outcome was forecast out of sample.
    facts : dict
        ``period``, ``n_holdout``, ``n_evaluated``, ``n_not_scored``, as far as they apply.
    fold_methods : MethodTable or None
        Of the fit itself, where `evidence` is of other rows.
    newest : DriftWindow or None
        Rows to compare with the training rows.
    relabelled : tuple of ndarray of int64, or None
        Segments of the same rows by the generation before and by this one.
    charts : sequence of Chart
        Beside those of the evidence.
    """

    traits: Traits
    segments: SegmentRows
    evidence: Evidence | None
    facts: dict[str, Any]
    fold_methods: MethodTable | None = None
    newest: DriftWindow | None = None
    relabelled: tuple[np.ndarray, np.ndarray] | None = None
    charts: Sequence[Chart] = ()
