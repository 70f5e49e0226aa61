"""A table prepared for clustering."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import IsolationForest

from tsclust_model.shown import one_line

OUTLIER_SCORE = 0.6


@one_line
@dataclass(frozen=True)
class Prepared:
    """What is clustered, and what became of the rest.

    Attributes
    ----------
    X : ndarray of float64, shape (n, n_dimensions)
        Scaled and reduced rows: the clustering space.
    original : ndarray of float64, shape (n, n_features)
        The same rows in their own units.
    features : list of str
        The columns of `original`.
    sample_ids : list of int or str, length n
        Position of each row in the table, or its value in ``id_column``.
    inlier : ndarray of bool, shape (n,)
        Rows that are clustered; the others were left out by ``outlier_detection``.
    target : ndarray or None, shape (n,)
        Codes of the known classes, -1 where there is none.
    statistics : dict
        The ``data_statistics`` of the result.
    notes : tuple of str
    """

    X: np.ndarray
    original: np.ndarray
    features: list[str]
    sample_ids: list[Any]
    inlier: np.ndarray
    target: np.ndarray | None
    statistics: dict[str, Any]
    notes: tuple[str, ...]


def isolation_scores(X: np.ndarray, random_state: int) -> np.ndarray:
    """How easily a row is isolated, 0 to 1 (Liu et al. 2008, eq. 2), shape (n,)."""
    forest = IsolationForest(random_state=random_state).fit(X)
    return np.clip(-np.asarray(forest.score_samples(X)), 0.0, 1.0)
