"""HDBSCAN's prediction of new rows, on plain arrays.

A fitted `hdbscan.HDBSCAN` is read once into a `DensityTree`; `DensityTree.predict` then gives the
labels and strengths of `hdbscan.approximate_predict` to the last bit, without hdbscan, and for all
rows at once instead of one by one; where hdbscan contradicts its own labels (see
`_selected_nodes`), the labels of the fit count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.neighbors import BallTree, KDTree

from tsclust_model.results import NOISE

_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}
_NO_PARENT = -np.inf


@dataclass(frozen=True)
class DensityTree:
    """What HDBSCAN needs to know to assign a new row.

    Clusters of the condensed tree are numbered from 0, which is its root.

    Attributes
    ----------
    points : ndarray of float64, shape (n_points, n_features)
        The (scaled) rows HDBSCAN was fitted on.
    core_distances : ndarray of float64, shape (n_points,)
        Distance of each point to its `min_samples`-th neighbour, itself included.
    point_cluster : ndarray of int64, shape (n_points,)
        The cluster each point falls out of.
    point_lambda : ndarray of float64, shape (n_points,)
        The density (1 / distance) at which it does.
    parent : ndarray of int64, shape (n_nodes,)
        The cluster each cluster was split from; the root is its own.
    birth : ndarray of float64, shape (n_nodes,)
        The density at which it was; -inf for the root.
    label : ndarray of int64, shape (n_nodes,)
        Selected cluster that a node belongs to; -1 is none.
    max_lambda : ndarray of float64, shape (n_nodes,)
        Highest density inside that selected cluster; 0 where there is none.
    min_samples : int
        Neighbours that make a core distance.
    metric, metric_arguments, tree_class
        How neighbours are searched. The class of tree decides ties, so it is kept.
    """

    points: np.ndarray
    core_distances: np.ndarray
    point_cluster: np.ndarray
    point_lambda: np.ndarray
    parent: np.ndarray
    birth: np.ndarray
    label: np.ndarray
    max_lambda: np.ndarray
    min_samples: int
    metric: str = "euclidean"
    metric_arguments: Mapping[str, Any] = field(default_factory=dict)
    tree_class: str = "kd_tree"

    @classmethod
    def from_hdbscan(cls, clusterer: Any) -> DensityTree:
        """Read a fitted ``hdbscan.HDBSCAN`` that has prediction data."""
        data = clusterer.prediction_data_
        n_points = len(data.raw_data)
        tree = clusterer.condensed_tree_._raw_tree
        children, first = np.unique(tree["child"], return_index=True)
        points, point_rows = children < n_points, first[children < n_points]
        point_cluster = np.zeros(n_points, dtype=np.int64)
        point_lambda = np.zeros(n_points, dtype=np.float64)
        point_cluster[children[points]] = tree["parent"][point_rows] - n_points
        point_lambda[children[points]] = tree["lambda_val"][point_rows]

        n_nodes = int(max(tree["parent"].max(), tree["child"].max())) - n_points + 1
        parent = np.zeros(n_nodes, dtype=np.int64)
        birth = np.full(n_nodes, _NO_PARENT)
        rows = first[~points]
        nodes = children[~points] - n_points
        parent[nodes] = tree["parent"][rows] - n_points
        birth[nodes] = tree["lambda_val"][rows]
        label = np.full(n_nodes, NOISE, dtype=np.int64)
        max_lambda = np.zeros(n_nodes)
        for number, selected in enumerate(
            _selected_nodes(parent, point_cluster, clusterer.labels_)
        ):
            below = _below(parent, selected)
            label[below] = number
            max_lambda[below] = tree["lambda_val"][tree["parent"] == selected + n_points].max()
        if len(data.cluster_tree) == 0:  # hdbscan calls every new row noise then
            label[:] = NOISE
        return cls(
            points=np.array(data.raw_data, dtype=np.float64, order="C"),
            core_distances=np.array(data.core_distances, dtype=np.float64),
            point_cluster=point_cluster,
            point_lambda=point_lambda,
            parent=parent,
            birth=birth,
            label=label,
            max_lambda=max_lambda,
            min_samples=int(clusterer.min_samples or clusterer.min_cluster_size),
            metric=clusterer.metric,
            # hdbscan forgets `p` of minkowski here, so its predictions do, and ours with them.
            metric_arguments=dict(clusterer._metric_kwargs),
            tree_class="kd_tree" if isinstance(data.tree, KDTree) else "ball_tree",
        )

    @cached_property
    def _tree(self) -> KDTree | BallTree:
        return _TREES[self.tree_class](self.points, metric=self.metric, **self.metric_arguments)

    def predict(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and membership strengths of new rows.

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
            Rows in the space of `points`, finite.

        Returns
        -------
        labels : ndarray of int64, shape (n,)
            -1 is noise.
        strength : ndarray of float64, shape (n,)
            0 to 1; 0 for noise.
        """
        if len(X) == 0 or len(self.label) == 1:
            return np.full(len(X), NOISE, dtype=np.int64), np.zeros(len(X))
        return self._from_neighbours(*self._tree.query(X, k=2 * self.min_samples))

    def predict_left_out(self, rows: np.ndarray) -> np.ndarray:
        """Labels of some of the points as if the tree did not know them, shape (n,).

        A point is its own nearest neighbour, so `predict` is kinder to it than to a new row. This
        is what new rows of the same kind get.

        Parameters
        ----------
        rows : ndarray of int64, shape (n,)
            Positions in `points`.
        """
        k = 2 * self.min_samples
        if len(self.label) == 1 or k >= len(self.points):
            return np.full(len(rows), NOISE, dtype=np.int64)
        distances, neighbours = self._tree.query(self.points[rows], k=k + 1)
        # The point itself goes; among duplicates it may not be listed, then the last one does.
        itself = neighbours == rows[:, None]
        itself[~itself.any(axis=1), -1] = True
        others = ~itself
        return self._from_neighbours(
            distances[others].reshape(-1, k), neighbours[others].reshape(-1, k)
        )[0]

    def _from_neighbours(
        self, distances: np.ndarray, neighbours: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`predict` from each row's neighbours, shape (n, 2 * min_samples) each."""
        reach = np.maximum(
            np.maximum(self.core_distances[neighbours], distances[:, [self.min_samples]]),
            distances,
        )
        nearest = reach.argmin(axis=1)
        rows = np.arange(len(reach))
        distance = reach[rows, nearest]
        density = np.full(len(reach), np.finfo(np.float64).max)
        np.divide(1.0, distance, out=density, where=distance > 0)
        neighbour = neighbours[rows, nearest]
        node = self._walk_up(self.point_cluster[neighbour], self.point_lambda[neighbour], density)
        labels, peak = self.label[node], self.max_lambda[node]
        strength = np.ones(len(reach))
        np.divide(np.minimum(peak, density), peak, out=strength, where=peak > 0)
        strength[labels == NOISE] = 0.0
        return labels, strength

    def _walk_up(self, node: np.ndarray, leaves: np.ndarray, density: np.ndarray) -> np.ndarray:
        """The cluster a row of `density` is in when its neighbour leaves `node` at `leaves`."""
        node = node.copy()
        climbing = np.flatnonzero(leaves > density)
        while climbing.size:
            climbing = climbing[self.birth[node[climbing]] >= density[climbing]]
            node[climbing] = self.parent[node[climbing]]
        return node

    def sample(self, n_points: int, random_state: int) -> tuple[DensityTree, np.ndarray]:
        """The same tree with a seeded sample of its points, and the positions it kept.

        Each cluster keeps its share. Neighbours get further apart in a sample, so `min_samples`
        shrinks with it: the distance to the (f * k)-th neighbour in a share f estimates the
        distance to the k-th in all. Core distances stay those of all points.
        """
        share = n_points / len(self.points)
        if share >= 1:
            return self, np.arange(len(self.points))
        kept = _proportional_sample(self.point_cluster, n_points, random_state)
        reduced = replace(
            self,
            points=self.points[kept],
            core_distances=self.core_distances[kept],
            point_cluster=self.point_cluster[kept],
            point_lambda=self.point_lambda[kept],
            min_samples=max(1, int(self.min_samples * share)),
        )
        return reduced, kept


def _selected_nodes(parent: np.ndarray, point_cluster: np.ndarray, labels: np.ndarray) -> list[int]:
    """The node of each label: the lowest one that all its points are below.

    hdbscan 0.8.44 takes the lowest-numbered node that a point of the label falls out of, which is
    a part of the selected cluster when that splits before it loses a point; its predictions then
    contradict its own labels.
    """
    selected = []
    for number in range(int(labels.max()) + 1):
        paths = [_path(parent, int(node)) for node in np.unique(point_cluster[labels == number])]
        shared = [level[0] for level in zip(*paths, strict=False) if len(set(level)) == 1]
        selected.append(shared[-1])
    return selected


def _path(parent: np.ndarray, node: int) -> list[int]:
    """The nodes from the root down to `node`."""
    nodes = [node]
    while nodes[-1] != 0:
        nodes.append(int(parent[nodes[-1]]))
    return nodes[::-1]


def _below(parent: np.ndarray, selected: int) -> np.ndarray:
    """Mask of a node and all nodes below it; a node is numbered after its parent."""
    inside = np.zeros(len(parent), dtype=bool)
    inside[selected] = True
    for node in range(selected + 1, len(parent)):
        inside[node] = inside[parent[node]]
    return inside


def _proportional_sample(groups: np.ndarray, n: int, random_state: int) -> np.ndarray:
    """`n` sorted positions; every group gets its share, at most one row off."""
    order = np.lexsort((np.random.default_rng(random_state).random(len(groups)), groups))
    # Evenly spaced ranks over the rows sorted by group visit each group in proportion.
    ranks = np.floor((np.arange(n) + 0.5) * len(groups) / n).astype(np.int64)
    return np.sort(order[ranks])
