"""scikit-learn baselines as MLflow models."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType
from mlflow.types import Schema as MlflowSchema
from sklearn.base import BaseEstimator

from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.pyfunc import requirements
from tsclust_model.mlflow_integration.sealed_models import trusted_types
from tsclust_model.rows.baseline import Baseline
from tsclust_model.rows.schema import Schema
from tsclust_model.rows.targets import target_of

_METADATA = "tsclust_baseline"


def log_baseline(model: Baseline) -> tuple[str, str]:
    """Log a baseline under the active run; returns its URI and the digest of what it is."""
    about = {
        "schema": model.schema.to_dict(),
        "classes": model.outcome.to_state().get("classes"),
        "info": model.info,
    }
    text = json.dumps(about, sort_keys=True)
    kinds = {True: DataType.double, False: DataType.string}
    inputs: list[Any] = [ColSpec(kinds[f.is_number], f.name) for f in model.schema.features]
    answer = DataType[model.outcome.prediction_type]
    logged = mlflow.sklearn.log_model(
        model.estimator,
        name="model",
        signature=ModelSignature(MlflowSchema(inputs), MlflowSchema([ColSpec(answer)])),
        metadata={_METADATA: text},
        **how_kept(model.estimator),
    )
    return logged.model_uri, hashlib.sha256(text.encode()).hexdigest()


def how_kept(estimator: BaseEstimator) -> dict[str, Any]:
    """What ``mlflow.sklearn`` is told of how an estimator is kept.

    Its default format, skops, runs no code when it is read, and refuses types such as the arrays of
    a forest's trees unless they are named. Inferring the requirements would take 12 s.

    Raises
    ------
    MLflowIntegrationError
        See `trusted_types`.
    """
    return {
        "pip_requirements": [*requirements(), f"skops=={version('skops')}"],
        "skops_trusted_types": trusted_types(estimator),
    }


def load_baseline(model_uri: str) -> Baseline:
    """The baseline of a logged or registered model.

    Raises
    ------
    MLflowIntegrationError
        No such model, or not one of these.
    """
    try:
        text = (mlflow.models.get_model_info(model_uri).metadata or {}).get(_METADATA)
        if text is None:
            raise MLflowIntegrationError(f"{model_uri} is not a baseline of this package")
        estimator = mlflow.sklearn.load_model(model_uri)
    except (MlflowException, OSError) as error:
        raise MLflowIntegrationError(
            f"{model_uri} cannot be loaded: {str(error).splitlines()[0]}"
        ) from error
    about = json.loads(text)
    target = target_of(about["info"]["roles"]["target"], about["classes"])
    return Baseline(estimator, Schema.from_dict(about["schema"]), target, about["info"])
