"""HDBSCAN's prediction of new rows, on plain arrays.

A fitted `hdbscan.HDBSCAN` is read once into a `DensityTree`; `DensityTree.predict` then gives the
labels and strengths of `hdbscan.approximate_predict` to the last bit, without hdbscan; where
hdbscan contradicts its own labels (see `_selected_nodes`), the labels of the fit count.

Euclidean distances take the compiled path of `_kernels.rows`. Where an answer hangs on the
order in which scikit-learn's tree lists equally distant points, the row asks that tree, and so
does every row under another metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from sklearn.neighbors import BallTree, KDTree

from tsclust_model._kernels import rows as kernels
from tsclust_model._kernels.search_tree import SearchTree, in_parts
from tsclust_model.errors import DataValidationError
from tsclust_model.results import NOISE
from tsclust_model.shown import one_line

_TREES = {"kd_tree": KDTree, "ball_tree": BallTree}

_NO_PARENT = -np.inf

_NEARLY_ALL = 0.9  # of the points vote: one list of neighbours mostly holds enough voters

_MOST_VOTES = 128  # beyond it numpy sums in another order than the kernel


def is_euclidean(metric: str, arguments: Mapping[str, Any]) -> bool:
    """Whether the kernels measure what scikit-learn's KD-tree does under this metric."""
    return metric in ("euclidean", "l2", "minkowski", "p") and not arguments


@one_line
@dataclass(frozen=True)
class Voters:
    """The k-nearest-neighbour rule for noise, for points that a `DensityTree` knows.

    Attributes
    ----------
    labels : ndarray of int64, shape (n_points,)
        What each point votes for; -1 does not vote.
    n_neighbors : int
    by_distance : bool
        Votes count 1 / distance; otherwise all alike.
    """

    labels: np.ndarray
    n_neighbors: int
    by_distance: bool


@one_line
@dataclass(frozen=True)
class Neighbourhood:
    """What a `DensityTree` says of some rows, shape (n,) each.

    Attributes
    ----------
    labels : ndarray of int64
        -1 is noise.
    strength : ndarray of float64
        0 to 1; 0 for noise.
    voted : ndarray of int64
        The labels, with noise where its neighbours are.
    unvoted : ndarray of bool
        Noise that the voters were not asked about, or could not agree on to the last bit.
    """

    labels: np.ndarray
    strength: np.ndarray
    voted: np.ndarray
    unvoted: np.ndarray


@one_line
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
        """Read a fitted ``hdbscan.HDBSCAN``.

        It needs no prediction data where distances are Euclidean: the same core distances come
        out of the compiled search, in a fifth of the time.
        """
        min_samples = int(clusterer.min_samples or clusterer.min_cluster_size)
        # hdbscan forgets `p` of minkowski here, so its predictions do, and ours with them.
        arguments = dict(clusterer._metric_kwargs)
        if is_euclidean(clusterer.metric, arguments):
            points = np.array(clusterer._raw_data, dtype=np.float64, order="C")
            core_distances, tree_class = _core_distances(points, min_samples), "kd_tree"
        else:
            if clusterer._prediction_data is None:
                clusterer.generate_prediction_data()
            data = clusterer.prediction_data_
            points = np.array(data.raw_data, dtype=np.float64, order="C")
            core_distances = np.array(data.core_distances, dtype=np.float64)
            tree_class = "kd_tree" if isinstance(data.tree, KDTree) else "ball_tree"
        n_points = len(points)
        tree = clusterer.condensed_tree_._raw_tree
        children, first = np.unique(tree["child"], return_index=True)
        is_point = children < n_points
        point_cluster = np.zeros(n_points, dtype=np.int64)
        point_lambda = np.zeros(n_points, dtype=np.float64)
        point_cluster[children[is_point]] = tree["parent"][first[is_point]] - n_points
        point_lambda[children[is_point]] = tree["lambda_val"][first[is_point]]

        n_nodes = int(max(tree["parent"].max(), tree["child"].max())) - n_points + 1
        parent = np.zeros(n_nodes, dtype=np.int64)
        birth = np.full(n_nodes, _NO_PARENT)
        rows = first[~is_point]
        nodes = children[~is_point] - n_points
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
        if not (tree["child_size"] > 1).any():  # hdbscan calls every new row noise then
            label[:] = NOISE
        return cls(
            points=points,
            core_distances=core_distances,
            point_cluster=point_cluster,
            point_lambda=point_lambda,
            parent=parent,
            birth=birth,
            label=label,
            max_lambda=max_lambda,
            min_samples=min_samples,
            metric=clusterer.metric,
            metric_arguments=arguments,
            tree_class=tree_class,
        )

    @cached_property
    def _tree(self) -> KDTree | BallTree:
        return _TREES[self.tree_class](self.points, metric=self.metric, **self.metric_arguments)

    @cached_property
    def _search(self) -> SearchTree | None:
        """The tree of the compiled path; None where there is none."""
        if self.tree_class != "kd_tree" or not is_euclidean(self.metric, self.metric_arguments):
            return None
        return SearchTree(self.points)

    @cached_property
    def _compiled(self) -> tuple[Any, ...]:
        """What the kernel reads of the tree, its points in the slots of the search."""
        assert self._search is not None
        in_slots = self._search.in_slots
        points = (self.core_distances, self.point_cluster, self.point_lambda)
        clusters = (self.parent, self.birth, self.label, self.max_lambda)
        return (
            self._search.arrays,
            tuple(in_slots(array, 0) for array in points),
            tuple(map(np.array, clusters)),
            self.min_samples,
        )

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
        answer = self.assign(X)
        return answer.labels, answer.strength

    def voting(self, voters: Voters | None) -> tuple[Any, ...]:
        """`voters` in the form that `assign` takes; None vote for nothing."""
        if voters is None or self._search is None or voters.n_neighbors > _MOST_VOTES:
            return np.empty(0, dtype=np.int64), 0, 0, False, False
        labels = self._search.in_slots(voters.labels, NOISE)
        n_voters = int((voters.labels != NOISE).sum())
        n_votes = min(voters.n_neighbors, n_voters)
        nearly_all = n_voters >= _NEARLY_ALL * len(voters.labels)
        return labels, n_votes, min(n_votes + 1, n_voters), voters.by_distance, nearly_all

    def assign(self, X: np.ndarray, voting: tuple[Any, ...] | None = None) -> Neighbourhood:
        """`predict`, and in the same search of the tree the vote on the rows that are noise.

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
            Rows in the space of `points`, finite.
        voting : tuple, optional
            Of `voting`; without it every noise row stays `unvoted`.

        Raises
        ------
        DataValidationError
            X has another number of columns.
        """
        n, width = len(X), self.points.shape[1]
        if X.shape != (n, width):
            raise DataValidationError(
                f"the rows have the shape {X.shape}, and the segments {width} columns"
            )
        if n == 0 or len(self.label) == 1:
            labels, strength = np.full(n, NOISE, dtype=np.int64), np.zeros(n)
            return Neighbourhood(labels, strength, labels.copy(), labels == NOISE)
        if self._search is None:
            labels, strength = self._by_query(X)
            return Neighbourhood(labels, strength, labels.copy(), labels == NOISE)
        X = np.require(X, np.float64, ["C", "W"])
        voting = self.voting(None) if voting is None else voting
        labels, voted = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        strength, undecided = np.empty(n), np.empty(n, dtype=np.int8)
        out = (labels, strength, voted, undecided)
        in_parts(
            lambda rows: kernels.assign(X, rows, *self._compiled, voting, out),
            self._search.by_neighbourhood(X),
        )
        unvoted = undecided == kernels.UNDECIDED_VOTE
        if voting[1] == 0:
            unvoted |= labels == NOISE
        (open_rows,) = np.nonzero(undecided == kernels.UNDECIDED_SEGMENT)
        if open_rows.size:
            labels[open_rows], strength[open_rows] = self._by_query(X[open_rows])
            voted[open_rows] = labels[open_rows]
            unvoted[open_rows] = labels[open_rows] == NOISE
        return Neighbourhood(labels, strength, voted, unvoted)

    def _by_query(self, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`predict` by scikit-learn's own search."""
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


def _core_distances(points: np.ndarray, min_samples: int) -> np.ndarray:
    """Distance of each point to its `min_samples`-th neighbour, itself included."""
    search, distances = SearchTree(points), np.empty(len(points))
    in_parts(
        lambda rows: kernels.core_distances(points, rows, search.arrays, min_samples, distances),
        search.by_neighbourhood(points),
    )
    return distances


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
