"""scikit-learn's estimators as MLflow models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
from sklearn.base import BaseEstimator

from tsclust_model.mlflow_integration.pyfunc import requirements
from tsclust_model.rows.estimators import estimator_bytes, trusted_types


def save_estimator(estimator: BaseEstimator, path: Path) -> None:
    """Save an estimator as an MLflow model in a new folder."""
    mlflow.sklearn.save_model(estimator, str(path), **_how_kept(estimator))


def load_estimator(model_uri: str) -> Any:
    """The estimator of an MLflow model; None if the model is of another kind."""
    if "sklearn" not in mlflow.models.get_model_info(model_uri).flavors:
        return None
    return mlflow.sklearn.load_model(model_uri)


def _how_kept(estimator: BaseEstimator) -> dict[str, Any]:
    """What ``mlflow.sklearn`` is told; inferring the requirements would take 12 s."""
    return {
        "pip_requirements": requirements("skops"),
        "skops_trusted_types": trusted_types(
            estimator_bytes(estimator), f"a {type(estimator).__name__}"
        ),
    }
