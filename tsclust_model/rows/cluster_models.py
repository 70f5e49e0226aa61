"""The face of `tsclust_model.boosting.blend` for data that is already parted by cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.boosting.blend import fit_outputs
from tsclust_model.boosting.folds import time_ordered_folds
from tsclust_model.boosting.output_model import OutputModel
from tsclust_model.boosting.recipes import NumberRecipe
from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import validate_batch_data, validate_target
from tsclust_model.errors import DataValidationError, NotFittedError
from tsclust_model.results import ClusterFigures


class ClusterSpecificModelManager:
    """Models of each cluster, for data that is already split by cluster.

    Parameters
    ----------
    lgb_params : mapping, optional
        LightGBM parameters of the target, laid over the defaults of `PipelineConfig`.
    lgb_resource_params : mapping, optional
        The same for resources.
    combine : {'blend', 'cluster', 'global'}
    min_cluster_rows : int
        A smaller cluster uses the global model.

    Examples
    --------
    >>> import numpy as np
    >>> X = np.linspace(0, 1, 200).reshape(-1, 1)
    >>> data = {0: {"X": X, "y": 3 * X[:, 0]}, 1: {"X": X + 5, "y": -X[:, 0]}}
    >>> manager = ClusterSpecificModelManager()
    >>> sorted(manager.fit_timeseries_models(data))
    [0, 1]
    >>> manager.predict_timeseries(1, X[:2] + 5).shape
    (2,)
    """

    def __init__(
        self,
        lgb_params: Mapping[str, Any] | None = None,
        lgb_resource_params: Mapping[str, Any] | None = None,
        *,
        combine: str = "blend",
        min_cluster_rows: int = 40,
    ) -> None:
        self.lgb_params = lgb_params
        self.lgb_resource_params = lgb_resource_params
        self.combine = combine
        self.min_cluster_rows = min_cluster_rows

    def fit_timeseries_models(
        self, cluster_data: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, ClusterFigures]:
        """Fit the target's models.

        Parameters
        ----------
        cluster_data : mapping of int to {'X': (n, n_features), 'y': (n,)}
            The rows of each cluster, oldest first. Clusters are taken to span the same time.

        Returns
        -------
        dict of int to dict
            ``rmse``, ``mae``, ``r2`` and ``n_rows`` of each cluster on rows of the folds that no
            model had seen.

        Raises
        ------
        DataValidationError, ConfigurationError, ModelTrainingError
        """
        config = self._config()
        _require_parts(cluster_data, "y")
        outcomes = {
            cluster: {"y": validate_target(part["y"], len(part["X"]), f"y of cluster {cluster}")}
            for cluster, part in cluster_data.items()
        }
        fitted = self._fit(cluster_data, outcomes, config.lgb_timeseries_params)
        self.timeseries_ = fitted["y"]
        return {cluster: self.get_model_metrics().get(cluster, {}) for cluster in cluster_data}

    def fit_resource_models(
        self, cluster_data: Mapping[int, Mapping[str, Any]]
    ) -> dict[int, dict[str, ClusterFigures]]:
        """Fit the resources' models.

        Parameters
        ----------
        cluster_data : mapping of int to {'X': (n, n_features), 'resources': {name: (n,)}}

        Returns
        -------
        dict of int to dict of str to dict
            The metrics of each resource in each cluster, as in `fit_timeseries_models`.
        """
        _require_parts(cluster_data, "resources")
        for cluster, part in cluster_data.items():
            if not isinstance(part["resources"], Mapping) or not part["resources"]:
                raise DataValidationError(
                    f"'resources' of cluster {cluster} holds none; give {{name: (n,)}}"
                )
        outcomes = {
            cluster: {
                name: validate_target(values, len(part["X"]), f"{name} of cluster {cluster}")
                for name, values in part["resources"].items()
            }
            for cluster, part in cluster_data.items()
        }
        if len({frozenset(names) for names in outcomes.values()}) > 1:
            raise DataValidationError("every cluster must have the same resources")
        self.resources_ = self._fit(cluster_data, outcomes, self._config().lgb_resource_params)
        return {
            cluster: {
                name: model.scores.clusters.get(cluster, {})
                for name, model in self.resources_.items()
            }
            for cluster in cluster_data
        }

    def predict_timeseries(self, cluster_id: int, X: np.ndarray) -> np.ndarray:
        """Forecast of each row, shape (n,); an unknown cluster is served by the global model.

        Raises
        ------
        NotFittedError, DataValidationError
        """
        if not hasattr(self, "timeseries_"):
            raise NotFittedError("no target models; call fit_timeseries_models first")
        values = validate_batch_data(X, self.features_)
        return self.timeseries_.predict(values, np.full(len(values), cluster_id))[0]

    def predict_resources(self, cluster_id: int, X: np.ndarray) -> dict[str, float]:
        """Each resource's forecast, summed over the rows of X, in the resource's unit.

        Raises
        ------
        NotFittedError, DataValidationError
        """
        if not hasattr(self, "resources_"):
            raise NotFittedError("no resource models; call fit_resource_models first")
        values = validate_batch_data(X, self.features_)
        labels = np.full(len(values), cluster_id)
        return {
            name: float(model.predict(values, labels)[0].sum())
            for name, model in self.resources_.items()
        }

    def get_model_metrics(self) -> dict[int, ClusterFigures]:
        """``rmse``, ``mae``, ``r2`` of the target for each cluster, out of fold."""
        if not hasattr(self, "timeseries_"):
            raise NotFittedError("no target models; call fit_timeseries_models first")
        return dict(self.timeseries_.scores.clusters)

    def _config(self) -> PipelineConfig:
        return PipelineConfig(
            lgb_timeseries_params=dict(self.lgb_params or {}),
            task="regression",
            lgb_resource_params=dict(self.lgb_resource_params or {}),
            combine=self.combine,
            min_cluster_rows=self.min_cluster_rows,
        )

    def _fit(
        self,
        cluster_data: Mapping[int, Mapping[str, Any]],
        outcomes: Mapping[int, Mapping[str, np.ndarray]],
        params: Mapping[str, Any],
    ) -> dict[str, OutputModel]:
        """Put the clusters back together, interleaved by age, and fit."""
        if not cluster_data:
            raise DataValidationError("cluster_data is empty; give at least one cluster")
        first = next(iter(cluster_data.values()))["X"]
        named = isinstance(first, pd.DataFrame)
        self.features_: list[str] | int = (
            list(map(str, first.columns)) if named else np.shape(first)[-1]
        )
        parts = {
            cluster: validate_batch_data(part["X"], self.features_)
            for cluster, part in cluster_data.items()
        }
        age = np.concatenate([np.linspace(0, 1, len(X)) for X in parts.values()])
        order = np.argsort(age, kind="stable")
        labels = np.repeat(list(parts), [len(X) for X in parts.values()])[order]
        names = next(iter(outcomes.values()))
        return fit_outputs(
            np.concatenate(list(parts.values()))[order],
            {n: np.concatenate([outcomes[c][n] for c in parts])[order] for n in names},
            labels,
            time_ordered_folds(len(labels)),
            NumberRecipe(params, (), self.combine, self.min_cluster_rows),
        )


def _require_parts(cluster_data: Mapping[int, Mapping[str, Any]], outcome: str) -> None:
    """Refuse clusters whose data lacks ``X`` or the outcome."""
    if not isinstance(cluster_data, Mapping):
        raise DataValidationError(
            f"cluster_data is a {type(cluster_data).__name__}; give {{cluster: {{'X': ..., "
            f"'{outcome}': ...}}}}"
        )
    for cluster, part in cluster_data.items():
        absent = [
            name for name in ("X", outcome) if not isinstance(part, Mapping) or name not in part
        ]
        if absent:
            raise DataValidationError(
                f"cluster {cluster} has no '{absent[0]}'; give {{'X': ..., '{outcome}': ...}}"
            )
