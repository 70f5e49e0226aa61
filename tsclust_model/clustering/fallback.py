"""The fallback for noise: a row that HDBSCAN leaves out goes where its neighbours are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.neighbors import BallTree, KDTree, KNeighborsClassifier

from tsclust_model.clustering.hdbscan_tree import Voters, is_euclidean
from tsclust_model.config import Params
from tsclust_model.data.columns import validate_batch_data, validate_input_data
from tsclust_model.errors import DataValidationError, ModelTrainingError, NotFittedError
from tsclust_model.results import NOISE

_ACCURACY_ROWS = 2_000


def _inverse(distances: np.ndarray) -> np.ndarray:
    """Votes, shape (n, k): one over the distance, as scikit-learn's 'distance'.

    A distance that overflows counts as the largest there is: scikit-learn refuses the batch then.
    """
    distances = np.minimum(distances, np.finfo(np.float64).max / 2)
    exact = distances == 0
    votes = 1 / np.where(exact, 1, distances)
    return np.where(exact.any(axis=1)[:, None], exact, votes)


class KNNFallback:
    """Assigns a noise row to the cluster of its nearest clustered neighbours.

    Parameters
    ----------
    n_neighbors : int
        Neighbours that vote; fewer when fewer rows are known.
    weights : {'distance', 'uniform'}
        How votes count.
    algorithm : {'auto', 'kd_tree', 'ball_tree'}
        Kind of search tree; never brute force, whose rounding depends on the batch.
    metric : str
        A metric of scikit-learn's trees.
    **arguments
        Further arguments of `sklearn.neighbors.KNeighborsClassifier`.

    Examples
    --------
    >>> import numpy as np
    >>> fallback = KNNFallback(n_neighbors=1).fit(np.array([[0.0], [9.0]]), [4, 7])
    >>> fallback.predict(np.array([[8.0], [1.0]])).tolist()
    [7, 4]
    """

    def __init__(
        self,
        n_neighbors: int = 5,
        weights: str = "distance",
        algorithm: str = "auto",
        metric: str = "euclidean",
        **arguments: Any,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.weights = weights
        self.algorithm = algorithm
        self.metric = metric
        self.arguments = arguments

    def fit(self, X: np.ndarray | pd.DataFrame, labels: Sequence[int] | np.ndarray) -> KNNFallback:
        """Remember the clustered rows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
        labels : array-like of int, shape (n_samples,)
            Rows labelled -1 (noise) are left out.

        Raises
        ------
        DataValidationError
            X is not finite, or no row is in a cluster.
        """
        values, _ = validate_input_data(X)
        groups = np.array(labels, dtype=np.int64)
        if groups.shape != (len(values),):
            raise DataValidationError(
                f"{len(groups)} labels for {len(values)} rows; give one a row"
            )
        inside = groups != NOISE
        if not inside.any():
            raise DataValidationError("every row is noise, so there is no cluster to fall back to")
        return self.remember(values[inside], groups[inside])

    def remember(self, points: np.ndarray, labels: np.ndarray) -> KNNFallback:
        """`fit` for rows that have been checked, each of them in a cluster."""
        self._tree = self._tree_algorithm()
        self.points_, self.labels_, self.n_predicted_ = points, labels, 0
        self._classifier: KNeighborsClassifier | None = None
        return self

    def _fitted_classifier(self) -> KNeighborsClassifier:
        """Built when it is first asked: a model's kernel answers for it most of the time."""
        if self._classifier is None:
            self._classifier = KNeighborsClassifier(
                n_neighbors=min(self.n_neighbors, len(self.points_)),
                weights=_inverse if self.weights == "distance" else self.weights,
                algorithm=self._tree,
                metric=self.metric,
                **self.arguments,
            ).fit(self.points_, self.labels_)
        return self._classifier

    def _tree_algorithm(self) -> str:
        if self.metric in KDTree.valid_metrics:
            return "ball_tree" if self.algorithm == "ball_tree" else "kd_tree"
        if self.metric in BallTree.valid_metrics:
            return "ball_tree"
        raise ModelTrainingError(
            f"knn_params.metric '{self.metric}' has no search tree; use one of "
            + ", ".join(sorted(BallTree.valid_metrics))
        )

    def predict(self, X: np.ndarray | pd.DataFrame) -> np.ndarray:
        """Cluster of each row by its neighbours' votes, shape (n,); a tie goes to the lower id.

        Raises
        ------
        NotFittedError, DataValidationError
        """
        if not hasattr(self, "points_"):
            raise NotFittedError("KNNFallback is not fitted; call fit first")
        values = validate_batch_data(X, self.points_.shape[1])
        self.n_predicted_ += len(values)
        return self.vote(values)

    def vote(self, X: np.ndarray) -> np.ndarray:
        """`predict` without checks and without counting, for checked rows, shape (n,)."""
        if len(X) == 0:
            return np.empty(0, dtype=np.int64)
        return np.asarray(self._fitted_classifier().predict(X), dtype=np.int64)

    def renumbered(self, ids: Mapping[int, int]) -> KNNFallback:
        """A fallback that knows the same rows by other cluster ids."""
        labels = np.array([ids[int(label)] for label in self.labels_], dtype=np.int64)
        return KNNFallback(**self.settings).remember(self.points_, labels)

    @property
    def settings(self) -> Params:
        """The constructor's arguments."""
        return {
            "n_neighbors": self.n_neighbors,
            "weights": self.weights,
            "algorithm": self.algorithm,
            "metric": self.metric,
        } | self.arguments

    def voters(self, labels: np.ndarray) -> Voters | None:
        """The same rule for the compiled search; None if it cannot replace this one.

        Parameters
        ----------
        labels : ndarray of int64
            One a point of the `DensityTree` whose clustered points this fallback knows.
        """
        known = self.weights in ("uniform", "distance") and is_euclidean(
            self.metric, self.arguments
        )
        if not known or self._tree != "kd_tree":
            return None
        return Voters(labels, self.n_neighbors, self.weights == "distance")

    def get_fallback_metrics(self) -> dict[str, float]:
        """How far the fallback can be trusted.

        Returns
        -------
        dict
            ``accuracy``: share (0 to 1) of clustered rows whose other neighbours name the
            cluster they are in, on 2,000 evenly spaced rows at most; ``usage``: rows predicted
            since `fit`.
        """
        if not hasattr(self, "points_"):
            raise NotFittedError("KNNFallback is not fitted; call fit first")
        return {"accuracy": self._leave_one_out(), "usage": float(self.n_predicted_)}

    def _leave_one_out(self) -> float:
        n = len(self.points_)
        if n < 2:
            return 1.0
        rows = np.unique(np.linspace(0, n - 1, min(n, _ACCURACY_ROWS)).astype(np.int64))
        k = min(self.n_neighbors + 1, n)
        distances, neighbours = self._fitted_classifier().kneighbors(self.points_[rows], k)
        # The row itself (or, among duplicates, the furthest) goes to the end, and out of the vote.
        order = np.argsort(neighbours == rows[:, None], axis=1, kind="stable")[:, : k - 1]
        votes = self.labels_[np.take_along_axis(neighbours, order, 1)]
        near = np.take_along_axis(distances, order, 1)
        weight = _inverse(near) if self.weights == "distance" else np.ones_like(near)
        kinds = np.unique(self.labels_)
        counts = np.stack([(weight * (votes == kind)).sum(axis=1) for kind in kinds], axis=1)
        winner = kinds[counts.argmax(axis=1)]
        return float((winner == self.labels_[rows]).mean())
