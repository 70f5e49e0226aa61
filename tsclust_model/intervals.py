"""Prediction intervals by split conformal prediction from out-of-fold residuals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tsclust_model.results import NOISE

ENOUGH = 100
"""Residuals a cluster needs for a calibration of its own."""

_MOST = 1_000
_ALL = NOISE


@dataclass(frozen=True)
class Calibration:
    """Sorted residuals (y - prediction) of rows no model had seen: of all rows, and of a cluster.

    An interval reaches from the lower to the upper residual quantile around a prediction, so it
    may be lopsided, as lengths of stay are. With n residuals the ranks are
    ``floor((n + 1) * a / 2)`` and ``ceil((n + 1) * (1 - a / 2))`` for coverage ``1 - a``, which is
    at least ``1 - a`` of exchangeable new rows (Vovk et al. 2005; Lei et al. 2018). A rank beyond
    the residuals takes the outermost one.

    Attributes
    ----------
    residuals : mapping of int to ndarray of float64
        Sorted; -1 is all rows, other keys are clusters with at least 100 residuals. Above 1,000
        they are thinned to evenly spaced order statistics.
    """

    residuals: Mapping[int, np.ndarray]

    @classmethod
    def fit(cls, residuals: np.ndarray, labels: np.ndarray) -> Calibration:
        """Calibrate on residuals, shape (n,), and the clusters of their rows, shape (n,)."""
        clusters, counts = np.unique(labels[labels != NOISE], return_counts=True)
        parts = {_ALL: _thinned(residuals)}
        for cluster in clusters[counts >= ENOUGH]:
            parts[int(cluster)] = _thinned(residuals[labels == cluster])
        return cls(parts)

    def bounds(
        self, prediction: np.ndarray, labels: np.ndarray, coverage: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bound of each prediction, shape (n,) each; they enclose it.

        Parameters
        ----------
        prediction : ndarray of float64, shape (n,)
        labels : ndarray of int64, shape (n,)
        coverage : float
            Above 0 and below 1.
        """
        clusters, inverse = np.unique(labels, return_inverse=True)
        offsets = np.array(
            [_offsets(self.residuals.get(int(c), self.residuals[_ALL]), coverage) for c in clusters]
        ).reshape(-1, 2)
        return prediction + offsets[inverse, 0], prediction + offsets[inverse, 1]


def _offsets(residuals: np.ndarray, coverage: float) -> tuple[float, float]:
    n = len(residuals)
    tail = (1 - coverage) / 2
    # 1e-9: (n + 1) * (1 - tail) is often a whole number that floating point misses by a hair.
    low = int(np.floor((n + 1) * tail + 1e-9)) - 1
    high = int(np.ceil((n + 1) * (1 - tail) - 1e-9)) - 1
    lower, upper = residuals[max(low, 0)], residuals[min(high, n - 1)]
    return min(float(lower), 0.0), max(float(upper), 0.0)


def _thinned(residuals: np.ndarray) -> np.ndarray:
    ordered = np.sort(residuals)
    if len(ordered) <= _MOST:
        return ordered
    return ordered[np.round(np.linspace(0, len(ordered) - 1, _MOST)).astype(np.int64)]
