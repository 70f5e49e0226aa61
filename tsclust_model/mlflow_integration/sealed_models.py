"""Any fitted model as sealed parts of plain data: arrays, JSON and LightGBM text; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightgbm as lgb
from sklearn.base import BaseEstimator

from tsclust_model.boosting.output_model import NumberModel
from tsclust_model.clustering.engine import AdaptiveClusteringEngine, Segmentation
from tsclust_model.clustering.fallback import KNNFallback
from tsclust_model.config import Params
from tsclust_model.errors import MLflowIntegrationError, NotFittedError
from tsclust_model.mlflow_integration.pyfunc import open_generation, seal_generation
from tsclust_model.models.base import FittedModel
from tsclust_model.models.state import (
    Parts,
    open_sealed,
    pack_arrays,
    pack_json,
    seal,
    unpack_arrays,
    unpack_json,
)
from tsclust_model.results import ClusteringResult
from tsclust_model.rows.cluster_models import ClusterSpecificModelManager
from tsclust_model.rows.estimators import estimator_bytes, estimator_of_bytes
from tsclust_model.rows.model import output_from_parts, output_parts

Kept = (
    FittedModel
    | AdaptiveClusteringEngine
    | KNNFallback
    | ClusterSpecificModelManager
    | lgb.Booster
    | BaseEstimator
)
"""What `seal_model` takes."""

_ENGINE, _FALLBACK, _MANAGER = "clustering-engine", "fallback", "cluster-models"


def seal_model(model: Any) -> Parts:
    """A fitted model as parts of plain bytes with their checksums.

    Parameters
    ----------
    model : Kept
        A model, engine, fallback or manager of this package, a ``lightgbm.Booster``, or an
        estimator of scikit-learn (a pipeline too) or LightGBM.

    Raises
    ------
    MLflowIntegrationError
        It is none of these, or skops cannot keep a part of it; the part is named.
    NotFittedError
        It is ours and not fitted.
    """
    if isinstance(model, FittedModel):
        return seal_generation(model)
    if isinstance(model, lgb.Booster):
        return seal({"booster.txt": model.model_to_string().encode()}, "", "")
    if isinstance(model, BaseEstimator):
        return seal({"estimator.skops": estimator_bytes(model)}, "", "")
    if isinstance(model, AdaptiveClusteringEngine):
        return seal(_engine_parts(model), "", "")
    if isinstance(model, KNNFallback):
        return seal(_fallback_parts(model), "", "")
    if isinstance(model, ClusterSpecificModelManager):
        return seal(_manager_parts(model), "", "")
    raise MLflowIntegrationError(
        f"a {type(model).__name__} cannot be stored as plain data; give a fitted model of this "
        "package, a lightgbm.Booster or a scikit-learn estimator"
    )


def open_model(parts: Parts) -> Any:
    """The model of `seal_model`; nothing is parsed before its checksum is right.

    A part that was changed, or is of a type that is not trusted, is an MLflowIntegrationError.
    """
    if "info.json" in parts:
        return open_generation(parts)
    open_sealed(parts)
    if "booster.txt" in parts:
        return lgb.Booster(model_str=parts["booster.txt"].decode())
    if "estimator.skops" in parts:
        return estimator_of_bytes(parts["estimator.skops"])
    about = unpack_json(parts["kind.json"])
    return _OPEN[about.pop("kind")](parts, about)


def _engine_parts(engine: AdaptiveClusteringEngine) -> Parts:
    if not hasattr(engine, "segmentation_"):
        raise NotFittedError("AdaptiveClusteringEngine is not fitted; call fit first")
    arrays, values = engine.segmentation_.to_arrays()
    result = engine.result_
    about = {
        "kind": _ENGINE,
        "hdbscan_params": _plain(engine.hdbscan_params),
        "knn_params": _plain(engine.knn_params),
        "max_fit_rows": engine.max_fit_rows,
        "max_reference_rows": engine.max_reference_rows,
        "random_state": engine.random_state,
        "features": engine.features_,
        "segmentation": values,
        "metrics": result.metrics,
        "noise_ratio": result.noise_ratio,
    }
    return {
        "kind.json": pack_json(about),
        "segmentation.npz": pack_arrays(arrays),
        "result.npz": pack_arrays({"labels": result.labels, "centers": result.cluster_centers}),
    }


def _open_engine(parts: Parts, about: dict[str, Any]) -> AdaptiveClusteringEngine:
    result = unpack_arrays(parts["result.npz"])
    features, values = about.pop("features"), about.pop("segmentation")
    metrics, ratio = about.pop("metrics"), about.pop("noise_ratio")
    engine = AdaptiveClusteringEngine(**about)
    engine.features_ = features
    engine.segmentation_ = Segmentation.from_arrays(
        unpack_arrays(parts["segmentation.npz"]), values
    )
    engine.result_ = ClusteringResult(result["labels"], result["centers"], ratio, metrics)
    return engine


def _fallback_parts(fallback: KNNFallback) -> Parts:
    if not hasattr(fallback, "points_"):
        raise NotFittedError("KNNFallback is not fitted; call fit first")
    arrays = {"points": fallback.points_, "labels": fallback.labels_}
    about = {
        "kind": _FALLBACK,
        "settings": fallback.settings,
        "n_predicted": fallback.n_predicted_,
    }
    return {"kind.json": pack_json(about), "points.npz": pack_arrays(arrays)}


def _open_fallback(parts: Parts, about: dict[str, Any]) -> KNNFallback:
    arrays = unpack_arrays(parts["points.npz"])
    fallback = KNNFallback(**about["settings"]).remember(arrays["points"], arrays["labels"])
    fallback.n_predicted_ = about["n_predicted"]
    return fallback


def _manager_parts(manager: ClusterSpecificModelManager) -> Parts:
    target, resources = getattr(manager, "timeseries_", None), getattr(manager, "resources_", {})
    if target is None and not resources:
        raise NotFittedError("no models of clusters; call fit_timeseries_models first")
    about = {
        "kind": _MANAGER,
        "lgb_params": _plain(manager.lgb_params),
        "lgb_resource_params": _plain(manager.lgb_resource_params),
        "combine": manager.combine,
        "min_cluster_rows": manager.min_cluster_rows,
        "features": manager.features_,
        "target": target is not None,
        "resources": list(resources),
    }
    parts = {"kind.json": pack_json(about)}
    if target is not None:
        parts |= output_parts(target, "target")
    for i, model in enumerate(resources.values()):
        parts |= output_parts(model, f"resource-{i}")
    return parts


def _open_manager(parts: Parts, about: dict[str, Any]) -> ClusterSpecificModelManager:
    features, target, names = about.pop("features"), about.pop("target"), about.pop("resources")
    manager = ClusterSpecificModelManager(**about)
    manager.features_ = features
    if target:
        manager.timeseries_ = output_from_parts(parts, "target", NumberModel)
    if names:
        manager.resources_ = {
            name: output_from_parts(parts, f"resource-{i}", NumberModel)
            for i, name in enumerate(names)
        }
    return manager


def _plain(params: Mapping[str, Any] | None) -> Params | None:
    return None if params is None else dict(params)


_OPEN = {_ENGINE: _open_engine, _FALLBACK: _open_fallback, _MANAGER: _open_manager}
