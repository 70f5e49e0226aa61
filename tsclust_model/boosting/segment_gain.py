"""What segments save beyond shuffled ones: the only part of a blend's gain that is theirs.

Two models averaged forecast better than one, whatever the segments are. So a blend is compared with
the same blend whose segments were shuffled among the rows, row by row on the folds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

_CHANCE = 2.0  # standard errors


@dataclass(frozen=True)
class SegmentGain:
    """Shares of one global model's error, out-of-sample on the folds.

    Attributes
    ----------
    saved, control : float or None
        Saved by the blend that is served, and by the same blend with shuffled segments; None where
        more than the segments' models is blended in (series), so that neither is theirs.
    beyond : float
        Saved by the blend beyond its control.
    error : float or None
        Standard error of `beyond`, see `mean_error`; None of fewer than two rows.
    earned : bool
        Whether the segments are credited: they save more than two standard errors over rows and
        units, and more than one over folds (of two: both gain).
    """

    saved: float | None
    control: float | None
    beyond: float
    error: float | None
    earned: bool

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def segment_gain(
    everyone: np.ndarray,
    served: np.ndarray,
    control: np.ndarray,
    *,
    root: bool,
    parts: np.ndarray | None = None,
    units: np.ndarray | None = None,
    only_segments: bool = True,
) -> SegmentGain | None:
    """The gain of a blend from its losses on the same rows, shape (n,) each.

    Parameters
    ----------
    everyone, served, control : ndarray of float64
        Losses of the global model, of the blend, and of the blend with shuffled segments.
    root : bool
        Whether the error is the root of the mean loss, or the mean itself.
    parts, units : ndarray, shape (n,), optional
        See `mean_error`.
    only_segments : bool
        Whether the blend holds nothing but the global and the segments' models.

    Returns
    -------
    SegmentGain or None
        None without rows, or where the global model makes no error.
    """
    if not len(everyone) or not everyone.mean() > 0:
        return None
    before, after, shuffled = (
        math.sqrt(losses.mean()) if root else float(losses.mean())
        for losses in (everyone, served, control)
    )
    paired = control - served
    error, by_rows = mean_error(paired, parts, units), mean_error(paired, None, units)
    earned = (
        error is not None
        and by_rows is not None
        and float(paired.mean()) > max(error, _CHANCE * by_rows)
    )
    slope = after + shuffled if root else 1.0  # of a difference of roots by the delta method
    if error is not None:
        error = error / slope / before if slope > 0 else 0.0
    saved, by_chance = 1 - after / before, 1 - shuffled / before
    return SegmentGain(
        saved if only_segments else None,
        by_chance if only_segments else None,
        (shuffled - after) / before,
        error,
        earned,
    )


def mean_error(
    values: np.ndarray, parts: np.ndarray | None = None, units: np.ndarray | None = None
) -> float | None:
    """Standard error of a mean, the largest of those over rows, units and parts.

    Many rows do not make up for two folds that disagree, nor for few patients.

    Parameters
    ----------
    values : ndarray of float64, shape (n,)
    parts : ndarray, shape (n,), optional
        The fold of each row.
    units : ndarray, shape (n,), optional
        Whose row it is: rows of a patient or a series go together (cluster-robust error).

    Returns
    -------
    float or None
        None of fewer than two rows.
    """
    n = len(values)
    if n < 2:
        return None
    errors = [float(values.std(ddof=1) / math.sqrt(n))]
    if units is not None:
        whose = np.unique(units, return_inverse=True)[1]
        sums = np.bincount(whose, values - values.mean())
        if len(sums) > 1:
            spread = float(np.square(sums).sum()) * len(sums) / (len(sums) - 1)
            errors.append(math.sqrt(spread) / n)
    if parts is not None and len(np.unique(parts)) > 1:
        means = np.array([values[parts == part].mean() for part in np.unique(parts)])
        errors.append(float(means.std(ddof=1) / math.sqrt(len(means))))
    return max(errors)


def gain_sentence(gain: Mapping[str, Any], weight: float) -> str:
    """What the segments are credited with, in words without a full stop.

    Parameters
    ----------
    gain : mapping
        Of `SegmentGain.to_dict`.
    weight : float
        Share (0 to 1) of the segments' own models in the forecast.
    """
    saved, beyond, error = gain["saved"], gain["beyond"], gain["error"]
    margin = f"{beyond:.1%}" + ("" if error is None else f" ± {error:.1%}")
    if gain["earned"]:
        own = "" if saved is None else f"{saved:.1%} of the error, "
        whole = " of the error" if saved is None else ""
        return f"Segments save {own}{margin}{whole} beyond shuffled segments"
    reason = f"they save {margin} of the error beyond shuffled segments"
    if saved is not None:
        reason = f"they save {saved:.1%} of the error and shuffled segments {gain['control']:.1%}"
        reason += "" if error is None else f", a difference of {margin}"
    start = "Segments do not improve the forecast here"
    if weight == 0:
        reason = "they have weight 0"
    elif error is not None and beyond > error:
        start = "Segments may improve the forecast here, but it is not certain"
    return f"{start}: {reason}; use them to describe"
