"""A search tree in the layout of the kernels, and how rows are shared between the cores."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from sklearn.neighbors import KDTree

from tsclust_model import kernels

_LEAF_ROWS = 24
_ROWS_PER_PART = 250
_PARTS_PER_CORE = 4


class SearchTree:
    """scikit-learn's KD-tree of some points, its leaves laid out for the compiled search.

    Parameters
    ----------
    points : ndarray of float64, shape (n_points, n_features)

    Attributes
    ----------
    order : ndarray of int64, shape (n_points,)
        Which point is at each position of the tree.
    arrays : tuple
        The leaves' coordinates (column after column within a leaf), start, stop and leaf flag of
        each node, the low and high corner of its box, and the size of the largest leaf.
    """

    def __init__(self, points: np.ndarray) -> None:
        _, order, nodes, corners = KDTree(points, leaf_size=_LEAF_ROWS).get_arrays()
        self.order = np.array(order, dtype=np.int64)
        nodes = np.asarray(nodes)
        start, stop = (nodes[name].astype(np.int64) for name in ("idx_start", "idx_end"))
        is_leaf = nodes["is_leaf"].astype(np.bool_)
        n_features = points.shape[1]
        values = np.empty(points.size)
        ordered = points[self.order]
        for node in np.flatnonzero(is_leaf):
            rows = slice(start[node], stop[node])
            values[start[node] * n_features : stop[node] * n_features] = ordered[rows].T.ravel()
        low, high = (np.array(corner, dtype=np.float64, order="C") for corner in corners)
        widest = int((stop - start)[is_leaf].max())
        self.arrays = (values, start, stop, is_leaf, low, high, widest)

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
