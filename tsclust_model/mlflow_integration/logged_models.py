"""A fitted model of any kind as a model of mlflow: logged, and loaded from the registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch

from tsclust_model.mlflow_integration.baselines import load_baseline, log_baseline
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.mlflow_integration.registry import registered_generation, version_tags
from tsclust_model.models.base import LIGHTGBM, MODEL_TYPE_TAG, FittedModel
from tsclust_model.rows.baseline import Baseline
from tsclust_model.shown import one_line


@one_line
@dataclass(frozen=True)
class Logged:
    """Where a model is logged, the digest of what it is, and tags of its version."""

    uri: str
    digest: str
    tags: dict[str, str] = field(default_factory=dict)


@singledispatch
def log_fitted(model: FittedModel, serialization: str) -> Logged:
    """Log a model under the active run; see `log_generation` and `log_baseline`."""
    logged = log_generation(model, serialization)  # type: ignore[arg-type]
    return Logged(logged.model_uri, (logged.metadata or {})["state_sha256"])


@log_fitted.register
def _(model: Baseline, serialization: str) -> Logged:
    return Logged(*log_baseline(model), {MODEL_TYPE_TAG: model.model_type})


def registered_model(name: str, version: str) -> FittedModel:
    """The model of a registered version, of whichever type it is.

    Raises
    ------
    MLflowIntegrationError
    """
    if version_tags(name, version).get(MODEL_TYPE_TAG, LIGHTGBM) != LIGHTGBM:
        return load_baseline(f"models:/{name}/{version}")
    return registered_generation(name, version)
