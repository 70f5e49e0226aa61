"""The oracle of the clustering's tests: hdbscan itself."""

from __future__ import annotations

import warnings
from typing import Any

import hdbscan
import numpy as np

from tsclust_model.results import NOISE


def fit(X: np.ndarray, **params: Any) -> hdbscan.HDBSCAN:
    params = {"core_dist_n_jobs": 1, "prediction_data": True} | params
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # hdbscan's, of data that is all noise
        return hdbscan.HDBSCAN(**params).fit(X)


def approximate_predict(clusterer: hdbscan.HDBSCAN, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: one row after the other, in Python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return hdbscan.approximate_predict(clusterer, X)


def knows_its_own_clusters(clusterer: hdbscan.HDBSCAN) -> bool:
    """Whether hdbscan predicts with the clusters it selected.

    It looks for a selected cluster among the clusters that points fall out of, so it mistakes a
    cluster that splits before a point has fallen out of it for one of its parts.
    """
    tree = clusterer.condensed_tree_._raw_tree
    points = tree[tree["child"] < len(clusterer.labels_)]
    numbers = clusterer.prediction_data_.cluster_map
    return all(
        numbers.get(row["parent"], NOISE) == clusterer.labels_[row["child"]] for row in points
    )
