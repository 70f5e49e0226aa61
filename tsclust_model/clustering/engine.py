"""Segments: scaling, HDBSCAN, and the nearest-neighbour fallback for noise.

`fit_density` and `fit_fallback` do the work; its result is an immutable `Segmentation`.
`AdaptiveClusteringEngine` is its scikit-learn-like face. Scaling happens here and nowhere else.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import hdbscan
import numpy as np
import pandas as pd
from sklearn.neighbors import BallTree, KDTree
from sklearn.preprocessing import StandardScaler

from tsclust_model.clustering.fallback import KNNFallback
from tsclust_model.clustering.hdbscan_tree import DensityTree
from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import validate_batch_data, validate_input_data
from tsclust_model.data.frames import as_pandas
from tsclust_model.errors import DataValidationError, ModelTrainingError, NotFittedError, caution
from tsclust_model.metrics import calculate_clustering_metrics
from tsclust_model.results import NOISE, Assignment, ClusteringMetrics, ClusteringResult
from tsclust_model.shown import one_line

MANY_CLUSTERS = 200


@one_line
@dataclass(frozen=True)
class Scaler:
    """Median, mean and standard deviation of each clustered column, in its own units.

    Attributes
    ----------
    median, mean, scale : ndarray of float64, shape (n_features,)
        A missing value becomes the median; a column that does not vary has scale 1.
    """

    median: np.ndarray
    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def fit(cls, X: np.ndarray) -> Scaler:
        median = np.nanmedian(X, axis=0)
        fitted = StandardScaler().fit(np.where(np.isnan(X), median, X))
        return cls(median, fitted.mean_, fitted.scale_)

    def fill(self, X: np.ndarray) -> np.ndarray:
        """X with medians for missing values, shape (n, n_features)."""
        return np.where(np.isnan(X), self.median, X)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Filled and standardised rows, shape (n, n_features)."""
        return (self.fill(X) - self.mean) / self.scale


@one_line
@dataclass(frozen=True)
class Segmentation:
    """A fitted clustering as immutable parts: what assigns a row to its segment.

    Attributes
    ----------
    scaler : Scaler
    density : DensityTree
    fallback : KNNFallback or None
        None where there is no cluster.
    point_labels : ndarray of int64, shape (n_points,), or None
        The fallback's label of each point of `density`, -1 for those it does not know; None if it
        knows other rows.
    """

    scaler: Scaler
    density: DensityTree
    fallback: KNNFallback | None
    point_labels: np.ndarray | None = None

    @classmethod
    def build(
        cls,
        scaler: Scaler,
        density: DensityTree,
        point_labels: np.ndarray,
        knn_params: Mapping[str, Any],
    ) -> Segmentation:
        """With a fallback to the points of `density` that are in a cluster, if any is."""
        inside = point_labels != NOISE
        fallback = None
        if inside.any():
            fallback = KNNFallback(**knn_params)
            fallback.remember(density.points[inside], point_labels[inside])
        return cls(scaler, density, fallback, point_labels)

    def assign(self, X: np.ndarray) -> Assignment:
        """Segment of each row: HDBSCAN first, the neighbours' vote for its noise.

        Parameters
        ----------
        X : ndarray of float64, shape (n, n_features)
            Clustered columns in their own units; NaN becomes the training median.
        """
        scaled = self.scaler.transform(X)
        density = self.density.assign(scaled, self._voting)
        labels, is_noise = density.voted, density.labels == NOISE
        if self.fallback is not None and density.unvoted.any():
            labels[density.unvoted] = self.fallback.vote(scaled[density.unvoted])
        return Assignment(labels, is_noise, density.strength)

    @cached_property
    def _voting(self) -> tuple[Any, ...]:
        voters = None
        if self.fallback is not None and self.point_labels is not None:
            voters = self.fallback.voters(self.point_labels)
        return self.density.voting(voters)

    def renumbered(self, ids: Mapping[int, int]) -> Segmentation:
        """The same segments under other ids."""
        return replace(
            self,
            density=replace(self.density, label=_renumber(self.density.label, ids)),
            fallback=None if self.fallback is None else self.fallback.renumbered(ids),
            point_labels=None if self.point_labels is None else _renumber(self.point_labels, ids),
        )

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The segmentation as arrays and JSON-ready values; `from_arrays` reads them back."""
        density = self.density
        arrays = {f"scaler_{name}": value for name, value in vars(self.scaler).items()}
        arrays |= {
            f"density_{part.name}": getattr(density, part.name)
            for part in fields(density)
            if isinstance(getattr(density, part.name), np.ndarray)
        }
        values: dict[str, Any] = {
            "min_samples": density.min_samples,
            "metric": density.metric,
            "metric_arguments": dict(density.metric_arguments),
            "tree_class": density.tree_class,
            "fallback": None,
        }
        if self.fallback is not None:
            values["fallback"] = self.fallback.settings
        if self.point_labels is not None:
            arrays["point_labels"] = self.point_labels
        elif self.fallback is not None:
            arrays["fallback_points"] = self.fallback.points_
            arrays["fallback_labels"] = self.fallback.labels_
        return arrays, values

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]
    ) -> Segmentation:
        def part(prefix: str) -> dict[str, Any]:
            return {
                name.removeprefix(prefix): np.ascontiguousarray(array)
                for name, array in arrays.items()
                if name.startswith(prefix)
            }

        settings = dict(values)
        knn_params = settings.pop("fallback")
        scaler = Scaler(**part("scaler_"))
        density = DensityTree(**part("density_"), **settings)
        if "point_labels" in arrays:
            return cls.build(scaler, density, arrays["point_labels"], knn_params or {})
        if knn_params is None:
            return cls(scaler, density, None)
        known = part("fallback_")
        fallback = KNNFallback(**knn_params).remember(known["points"], known["labels"])
        return cls(scaler, density, fallback)


@one_line
@dataclass(frozen=True)
class DensityFit:
    """HDBSCAN's own answer for the rows it was fitted on, before any fallback.

    Attributes
    ----------
    scaler : Scaler
    density : DensityTree
    rows : ndarray of int64
        Positions of the rows HDBSCAN saw, sorted: all of them, or the sample.
    labels : ndarray of int64, shape (n_samples,)
        Cluster of every row; rows outside the sample are assigned. -1 is noise.
    strength : ndarray of float64, shape (n_samples,)
    """

    scaler: Scaler
    density: DensityTree
    rows: np.ndarray
    labels: np.ndarray
    strength: np.ndarray


@one_line
@dataclass(frozen=True)
class FittedSegmentation:
    """A segmentation, what was found, and the segments of the rows it was fitted on."""

    segmentation: Segmentation
    result: ClusteringResult
    assignment: Assignment


def fit_density(
    X: np.ndarray, hdbscan_params: Mapping[str, Any], max_fit_rows: int, random_state: int
) -> DensityFit:
    """Scale and cluster the rows.

    Parameters
    ----------
    X : ndarray of float64, shape (n_samples, n_features)
        NaN is filled with the column's median.
    hdbscan_params : mapping
        Arguments of `hdbscan.HDBSCAN`.
    max_fit_rows : int
        Above it a seeded sample is clustered and the rest is assigned.

    Raises
    ------
    DataValidationError
        Fewer rows than the parameters need.
    ModelTrainingError
        hdbscan cannot be used with these parameters.
    """
    # What prediction needs is always made, by `DensityTree`, which asks hdbscan only where it must.
    params = {"core_dist_n_jobs": 1} | dict(hdbscan_params) | {"prediction_data": False}
    _require_rows(len(X), params)
    _require_tree(params.get("metric", "euclidean"))
    scaler = Scaler.fit(X)
    scaled = scaler.transform(X)
    rows = np.arange(len(X))
    if len(X) > max_fit_rows:
        rows = np.sort(
            np.random.default_rng(random_state).choice(len(X), max_fit_rows, replace=False)
        )
        _require_rows(max_fit_rows, params, "raise max_fit_rows")
    try:
        with warnings.catch_warnings():
            # hdbscan warns of all-noise fits; `_warn_of_shape` says it in our words.
            warnings.simplefilter("ignore", UserWarning)
            clusterer = _fit_hdbscan(params, scaled[rows])
    except (ValueError, TypeError) as error:
        raise ModelTrainingError(f"hdbscan refused its parameters: {error}") from error
    density = DensityTree.from_hdbscan(clusterer)
    labels = np.full(len(X), NOISE, dtype=np.int64)
    strength = np.zeros(len(X))
    labels[rows], strength[rows] = clusterer.labels_, clusterer.probabilities_
    rest = np.setdiff1d(np.arange(len(X)), rows, assume_unique=True)
    if rest.size:
        labels[rest], strength[rest] = density.predict(scaled[rest])
    return DensityFit(scaler, density, rows, labels, strength)


def _fit_hdbscan(params: Mapping[str, Any], X: np.ndarray) -> Any:
    try:
        return hdbscan.HDBSCAN(**params).fit(X)
    except IndexError:
        if not params.get("cluster_selection_persistence"):
            raise
        # hdbscan 0.8.44 stumbles over a tree without a split, in which nothing persists anyway.
        return hdbscan.HDBSCAN(**(dict(params) | {"cluster_selection_persistence": 0.0})).fit(X)


def fit_fallback(
    X: np.ndarray,
    fit: DensityFit,
    knn_params: Mapping[str, Any],
    max_reference_rows: int | None,
    random_state: int,
    unit: str = "rows",
) -> FittedSegmentation:
    """Add the fallback to a clustering, limit what the model keeps, and describe what was found.

    The fallback knows the rows that HDBSCAN's prediction knows, noise left out. `unit` is what
    a warning calls the rows of X.
    """
    scaler, labels = fit.scaler, fit.labels
    reference, kept = fit.density, np.arange(len(fit.rows))
    if max_reference_rows is not None:
        reference, kept = fit.density.sample(max_reference_rows, random_state)
    own = labels[fit.rows[kept]]
    segmentation = Segmentation.build(scaler, reference, own, knn_params)
    scaled = scaler.transform(X)
    voted, is_noise = labels.copy(), labels == NOISE  # counted before the fallback
    if segmentation.fallback is not None and is_noise.any():
        voted[is_noise] = segmentation.fallback.vote(scaled[is_noise])
    assignment = Assignment(voted, is_noise, fit.strength)
    metrics = calculate_clustering_metrics(scaled, labels, random_state)
    filled = scaler.fill(X)
    clusters = np.unique(labels[labels != NOISE])
    centers = np.array([filled[labels == cluster].mean(axis=0) for cluster in clusters])
    result = ClusteringResult(
        labels, centers.reshape(len(clusters), X.shape[1]), metrics["noise_ratio"], metrics
    )
    _warn_of_shape(result, unit)
    return FittedSegmentation(segmentation, result, assignment)


class AdaptiveClusteringEngine:
    """Scales, clusters with HDBSCAN, and assigns new rows with a fallback for noise.

    It follows scikit-learn's conventions: the constructor only stores, a second `fit` forgets the
    first, the caller's arrays are never changed, and a DataFrame may have its columns in any order.

    Parameters
    ----------
    hdbscan_params : mapping, optional
        Laid over the defaults of `PipelineConfig`.
    knn_params : mapping, optional
        Laid over the defaults of `PipelineConfig`.
    max_fit_rows : int
        Above it HDBSCAN fits on a seeded sample; the rest is assigned.
    max_reference_rows : int or None
        Scaled rows the engine keeps for its neighbour search; None keeps all it fitted on.
    random_state : int
        Seed of both samples.

    Attributes
    ----------
    segmentation_ : Segmentation
        After `fit`.
    result_ : ClusteringResult
        After `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0, 0.1, (50, 2)), rng.normal(5, 0.1, (50, 2))])
    >>> engine = AdaptiveClusteringEngine({"min_cluster_size": 20})
    >>> engine.fit(X).metrics["n_clusters"]
    2
    >>> engine.predict(X[[0, 99]]).tolist() == engine.predict(X[[0, 99]] + 0.01).tolist()
    True
    """

    def __init__(
        self,
        hdbscan_params: Mapping[str, Any] | None = None,
        knn_params: Mapping[str, Any] | None = None,
        *,
        max_fit_rows: int = 200_000,
        max_reference_rows: int | None = None,
        random_state: int = 42,
    ) -> None:
        self.hdbscan_params = hdbscan_params
        self.knn_params = knn_params
        self.max_fit_rows = max_fit_rows
        self.max_reference_rows = max_reference_rows
        self.random_state = random_state

    def fit(self, X: np.ndarray | pd.DataFrame) -> ClusteringResult:
        """Find the segments of X.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)

        Raises
        ------
        DataValidationError, ConfigurationError, ModelTrainingError
        """
        X = as_pandas(X)
        config, (values, _) = self._config(), validate_input_data(X)
        fit = fit_density(values, config.hdbscan_params, config.max_fit_rows, config.random_state)
        fitted = fit_fallback(
            values, fit, config.knn_params, config.max_reference_rows, config.random_state
        )
        self.features_: list[str] | int = (
            list(map(str, X.columns)) if isinstance(X, pd.DataFrame) else values.shape[1]
        )
        self.segmentation_, self.result_ = fitted.segmentation, fitted.result
        return self.result_

    def assign(self, X: np.ndarray | pd.DataFrame) -> Assignment:
        """Label, noise flag (before the fallback), strength and source of each row."""
        segmentation = self._fitted()
        return segmentation.assign(validate_batch_data(X, self.features_))

    def predict(self, X: np.ndarray | pd.DataFrame) -> np.ndarray:
        """Cluster of each row after the fallback, shape (n,); -1 only if there is no cluster.

        Raises
        ------
        NotFittedError, DataValidationError
        """
        return self.assign(X).labels

    def get_clustering_metrics(self) -> ClusteringMetrics:
        """The metrics of the last `fit`; see `ClusteringResult`."""
        self._fitted()
        return self.result_.metrics.copy()

    def update_fallback_model(
        self, X: np.ndarray | pd.DataFrame, labels: Sequence[int] | np.ndarray
    ) -> None:
        """Replace the rows the fallback knows.

        Parameters
        ----------
        X : array-like, shape (n_samples, n_features)
            Rows in their own units.
        labels : array-like of int, shape (n_samples,)
            Their clusters; -1 is left out.
        """
        segmentation = self._fitted()
        scaled = segmentation.scaler.transform(validate_batch_data(X, self.features_))
        fallback = KNNFallback(**self._config().knn_params).fit(scaled, labels)
        self.segmentation_ = replace(segmentation, fallback=fallback, point_labels=None)

    def _config(self) -> PipelineConfig:
        return PipelineConfig(
            hdbscan_params=dict(self.hdbscan_params or {}),
            knn_params=dict(self.knn_params or {}),
            max_fit_rows=self.max_fit_rows,
            max_reference_rows=self.max_reference_rows,
            random_state=self.random_state,
        )

    def _fitted(self) -> Segmentation:
        if not hasattr(self, "segmentation_"):
            raise NotFittedError("AdaptiveClusteringEngine is not fitted; call fit first")
        return self.segmentation_


def _renumber(labels: np.ndarray, ids: Mapping[int, int]) -> np.ndarray:
    table = {NOISE: NOISE} | dict(ids)
    return np.array([table[int(label)] for label in labels], dtype=np.int64)


def _require_rows(n_rows: int, params: Mapping[str, Any], remedy: str = "give more rows") -> None:
    size = params.get("min_cluster_size", 5)
    if n_rows < size:
        raise DataValidationError(
            f"{n_rows} rows are fewer than min_cluster_size={size}; "
            f"{remedy} or lower hdbscan_params.min_cluster_size"
        )
    needed = 2 * (params.get("min_samples") or size)
    if n_rows < needed:
        raise DataValidationError(
            f"{n_rows} rows are too few for min_samples={needed // 2}, which needs {needed}; "
            f"{remedy} or lower hdbscan_params.min_samples"
        )


def _require_tree(metric: str) -> None:
    if metric not in KDTree.valid_metrics and metric not in BallTree.valid_metrics:
        raise ModelTrainingError(
            f"hdbscan_params.metric '{metric}' cannot assign new rows; use one of "
            + ", ".join(sorted(BallTree.valid_metrics))
        )


def _warn_of_shape(result: ClusteringResult, unit: str) -> None:
    """Say what a user should change about a clustering of rows (or series) that serves little."""
    n_clusters, n_rows = result.metrics["n_clusters"], len(result.labels)
    if n_clusters == 0:
        caution(
            f"no cluster was found: all {n_rows} {unit} are noise and are served by the global "
            "model (cluster_source 'none'); lower hdbscan_params.min_cluster_size or min_samples"
        )
    elif n_clusters == 1:
        caution(
            f"one cluster was found, so segments tell no {unit} apart; "
            "lower hdbscan_params.min_cluster_size to find more"
        )
    elif n_clusters > MANY_CLUSTERS:
        caution(
            f"{n_clusters} clusters were found in {n_rows} {unit}; "
            f"hdbscan_params.min_cluster_size={-(-n_rows // MANY_CLUSTERS)} "
            f"makes {MANY_CLUSTERS} at most"
        )
