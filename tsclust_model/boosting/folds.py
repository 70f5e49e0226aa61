"""Time-ordered folds that never part a group."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from tsclust_model.shown import one_line

# A fold trains on everything before its origin and validates up to the next one.
ORIGINS = (0.6, 0.8)


@one_line
@dataclass(frozen=True)
class Fold:
    """Positions of the rows of one fold, sorted.

    Attributes
    ----------
    train, valid : ndarray of int64
    """

    train: np.ndarray
    valid: np.ndarray


def time_ordered_folds(
    n_rows: int, groups: np.ndarray | None = None, origins: tuple[float, ...] = ORIGINS
) -> list[Fold]:
    """Folds with a growing training part, over rows that are in time order.

    A group (a patient) is placed by its newest row, so its rows are on one side of every origin
    and no fold trains on a row that is newer than the newest row of any group it validates.

    Parameters
    ----------
    n_rows : int
        Rows, oldest first.
    groups : ndarray of int, shape (n_rows,), optional
        Who a row belongs to; without it every row is its own group.
    origins : tuple of float
        Shares of the rows (0 to 1, rising) that each fold trains on; the last one validates up
        to the end.

    Returns
    -------
    list of Fold
        One for each origin; a fold in which either side would be empty is left out (a single
        group cannot be split).
    """
    placed = np.arange(n_rows)
    if groups is not None:
        last = np.zeros(int(groups.max()) + 1, dtype=np.int64)
        np.maximum.at(last, groups, placed)
        placed = last[groups]
    # Rows counted up to and including the group that ends here: a group is never cut.
    rank = np.searchsorted(np.sort(placed), placed, side="right")
    bounds = [*(round(origin * n_rows) for origin in origins), n_rows]
    folds = [
        Fold(np.flatnonzero(rank <= start), np.flatnonzero((rank > start) & (rank <= end)))
        for start, end in itertools.pairwise(bounds)
    ]
    return [fold for fold in folds if fold.train.size and fold.valid.size]
