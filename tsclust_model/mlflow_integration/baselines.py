"""scikit-learn's estimators: which can be kept, by skops alone or as MLflow models.

skops runs no code when it is read, and refuses types such as the arrays of a forest's trees unless
they are named.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType
from mlflow.types import Schema as MlflowSchema
from sklearn.base import BaseEstimator

from tsclust_model.errors import MLflowIntegrationError, listed
from tsclust_model.mlflow_integration.pyfunc import requirements
from tsclust_model.mlflow_integration.registry import BASELINE_METADATA
from tsclust_model.mlflow_integration.stores import loading
from tsclust_model.rows.baseline import Baseline
from tsclust_model.rows.schema import Schema
from tsclust_model.rows.targets import target_of

# Types of scikit-learn's own estimators, and LightGBM's, that skops asks about. No whole numpy or
# scipy: some of their functions run what they are given.
_TRUSTED = ("sklearn.", "lightgbm.", "scipy.sparse._", "scipy.interpolate._")

_TRUSTED_TYPES = (
    *("numpy.dtype", "numpy.mean", "collections.OrderedDict"),
    "scipy._lib.array_api_compat.numpy._aliases.asarray",
)


def estimator_bytes(estimator: BaseEstimator) -> bytes:
    """An estimator as skops writes it.

    What skops cannot keep, or a type that is not scikit-learn's, LightGBM's, scipy's or numpy's, is
    named in an MLflowIntegrationError.
    """
    name = f"a {type(estimator).__name__}"
    try:
        content = _skops().dumps(estimator)
    except _skops().exceptions.UnsupportedTypeException as error:
        raise MLflowIntegrationError(
            f"{name} cannot be kept: skops takes no {type(estimator).__name__} or a part of it "
            f"({error}); take another estimator"
        ) from error
    _trusted_types(content, name)
    return content


def estimator_of_bytes(content: bytes) -> Any:
    """The estimator of `estimator_bytes`; a type that is not trusted is refused."""
    return _skops().loads(content, trusted=_trusted_types(content, "the stored estimator"))


def save_estimator(estimator: BaseEstimator, path: Path) -> None:
    """Save an estimator as an MLflow model in a new folder."""
    mlflow.sklearn.save_model(estimator, str(path), **_how_kept(estimator))


def load_estimator(model_uri: str) -> Any:
    """The estimator of an MLflow model; None if the model is of another kind."""
    if "sklearn" not in mlflow.models.get_model_info(model_uri).flavors:
        return None
    return mlflow.sklearn.load_model(model_uri)


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
        metadata={BASELINE_METADATA: text},
        **_how_kept(model.estimator),
    )
    return logged.model_uri, hashlib.sha256(text.encode()).hexdigest()


def load_baseline(model_uri: str) -> Baseline:
    """The baseline of a logged or registered model; any other is an MLflowIntegrationError."""
    with loading(model_uri):
        text = (mlflow.models.get_model_info(model_uri).metadata or {}).get(BASELINE_METADATA)
        if text is None:
            raise MLflowIntegrationError(f"{model_uri} is not a baseline of this package")
        estimator = mlflow.sklearn.load_model(model_uri)
    about = json.loads(text)
    target = target_of(about["info"]["roles"]["target"], about["classes"])
    return Baseline(estimator, Schema.from_dict(about["schema"]), target, about["info"])


def _skops() -> Any:
    """``skops.io``, whose import goes through all of scikit-learn and scipy for nearly a second."""
    import skops.io
    import skops.io.exceptions

    return skops.io


def _how_kept(estimator: BaseEstimator) -> dict[str, Any]:
    """What ``mlflow.sklearn`` is told; inferring the requirements would take 12 s."""
    return {
        "pip_requirements": [*requirements(), f"skops=={version('skops')}"],
        "skops_trusted_types": _trusted_types(
            estimator_bytes(estimator), f"a {type(estimator).__name__}"
        ),
    }


def _trusted_types(content: bytes, name: str) -> list[str]:
    asked = _skops().get_untrusted_types(data=content)
    foreign = [t for t in asked if not t.startswith(_TRUSTED) and t not in _TRUSTED_TYPES]
    if foreign:
        raise MLflowIntegrationError(
            f"{name} holds {listed(foreign)}, which could run code when it is read; make it of "
            "scikit-learn's own classes and numpy's functions"
        )
    return list(asked)
