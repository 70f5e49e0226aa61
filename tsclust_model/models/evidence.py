"""What a report needs of a model of any kind: segments, forecasts and what happened."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import norm

from tsclust_model.boosting.intervals import Support
from tsclust_model.boosting.segment_gain import mean_error
from tsclust_model.shown import one_line

if TYPE_CHECKING:
    from tsclust_model.models.base import FittedPipeline

MISSING = "(missing)"


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


def shows_ids(generation: FittedPipeline) -> bool:
    """Whether reports may name rows by their ids; models of before never asked for it."""
    return generation.shows_ids
