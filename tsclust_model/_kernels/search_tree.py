"""A search tree in the layout of the kernels, and how rows are shared between the cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.neighbors import KDTree

from tsclust_model._kernels import rows as kernels

_NOBODY = -1

_ROWS_PER_PART = 250

_PARTS_PER_CORE = 4


class SearchTree:
    """scikit-learn's KD-tree of some points, its leaves laid out for the compiled search.

    Each leaf has as many slots as vector code takes at once; those without a point are at
    infinity.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)

    Attributes
    ----------
    arrays : tuple
        Coordinates (column after column within a leaf), the first slot of each node that is a leaf
        and whether it is one, the low and high corner of each node's box, the slots of a leaf and
        the number of features.
    """

    def __init__(self, points: np.ndarray) -> None:
        # scikit-learn's leaves have up to twice as many points as it is asked for.
        tree = KDTree(points, leaf_size=kernels.LEAF // 2)
        _, order, nodes, (low, high) = map(np.asarray, tree.get_arrays())
        is_leaf = nodes["is_leaf"].astype(np.bool_)
        leaves = np.flatnonzero(is_leaf)
        first = np.zeros(len(nodes), dtype=np.int64)
        first[leaves] = kernels.LEAF * np.arange(len(leaves))
        slots = np.full((len(leaves), kernels.LEAF), _NOBODY)
        for row, node in zip(slots, nodes[leaves], strict=True):
            row[: node["idx_end"] - node["idx_start"]] = order[node["idx_start"] : node["idx_end"]]
        self._slots = slots.ravel()
        values = self.in_slots(points, np.inf).reshape(len(leaves), kernels.LEAF, -1)
        columns = np.ascontiguousarray(values.transpose(0, 2, 1)).ravel()
        corners = (np.array(low), np.array(high))
        self.arrays = (columns, first, is_leaf, *corners, kernels.LEAF, points.shape[1])

    def in_slots(self, values: np.ndarray, filler: Any) -> np.ndarray:
        """What is known of each point, by slot; `filler` where a slot has no point."""
        taken = self._slots != _NOBODY
        spread = np.full((len(taken), *values.shape[1:]), filler, dtype=values.dtype)
        spread[taken] = values[self._slots[taken]]
        return spread

    def by_neighbourhood(self, X: np.ndarray) -> np.ndarray:
        """Positions of the rows of X such that neighbours come together, shape (n,)."""
        if len(X) < _ROWS_PER_PART:
            return np.arange(len(X))
        return np.argsort(kernels.first_leaves(X, self.arrays), kind="stable")


def in_parts(work: Callable[[np.ndarray], Any], rows: np.ndarray) -> None:
    """Call `work` with all of `rows`, part by part on every core if there are many."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    n_parts = min(len(rows) // _ROWS_PER_PART, _PARTS_PER_CORE * (cores or 1))
    if n_parts < 2 or cores == 1:
        work(rows)
        return
    parts = iter(np.array_split(rows, n_parts))

    def take_parts() -> None:
        for part in parts:
            work(part)

    with ThreadPoolExecutor(cores) as pool:
        others = [pool.submit(take_parts) for _ in range((cores or 1) - 1)]
        take_parts()  # this thread is one of them
        for other in others:
            other.result()
