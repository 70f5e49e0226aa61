"""A model of any type, fitted in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from tsclust_model.config import PipelineConfig
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError, suggestion
from tsclust_model.models.base import LIGHTGBM
from tsclust_model.rows.baseline import LOGISTIC, fit_estimator, unfitted
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import training_data

SECTIONS = ("data", "quality", "model", "training", "monitoring", "mlflow", "logging")
"""Of the loop's settings."""


def train_model(
    X_train: pd.DataFrame | np.ndarray,
    y_train: Any,
    config: PipelineConfig | Mapping[str, Any] | None = None,
) -> Generation | Pipeline:
    """Fit a model of any type in memory; nothing is logged or registered.

    Parameters
    ----------
    X_train : DataFrame or array, shape (n_samples, n_features)
        The model takes what it was fitted on: tables of these columns, or arrays.
    y_train : array-like, shape (n_samples,)
        Numbers or classes; whole numbers of at most two values are classes too, and so are those
        of a logistic regression.
    config : PipelineConfig or mapping, optional
        A mapping holds the sections of the loop's settings, of which ``training`` (``model_type``:
        ``lightgbm``, ``logistic`` or ``random_forest``; ``params`` of the estimator) and ``model``
        (fields of `PipelineConfig`) are read; or, without sections, ``model_type``, ``params`` and
        the fields of `PipelineConfig` side by side.

    Returns
    -------
    sklearn.pipeline.Pipeline or Generation
        The fitted scikit-learn estimator: ``predict``, ``score``, ``predict_proba`` and
        ``classes_`` in the values of `y_train`. Of ``lightgbm``, which fits segments, the
        `Generation`, whose ``predict`` takes a table. `ModelRegistry.save` keeps both.

    Raises
    ------
    DataValidationError, ConfigurationError, ModelTrainingError

    Examples
    --------
    >>> from tsclust_model import generate_synthetic_data, train_model
    >>> data = generate_synthetic_data(200, 5, 0)
    >>> X, y = data.drop(columns="target"), data["target"]
    >>> model = train_model(X, y, {"training": {"model_type": "logistic"}})
    >>> model.predict_proba(X.head(3)).shape
    (3, 2)
    """
    settings, model_type, params = _asked(config)
    y = np.asarray(y_train)
    frame, target = _table(X_train, y)
    whole = pd.api.types.is_integer_dtype(y) and model_type == LOGISTIC
    if settings.task == "auto" and (whole or frame[target].nunique() <= 2):
        settings = PipelineConfig.from_dict(settings.to_dict() | {"task": "classification"})
    roles = Roles(target)
    data = training_data(frame, roles, settings)
    if model_type == LIGHTGBM:
        info = {"roles": vars(roles), "source": "memory"}
        return fit_generation(data, settings, info).generation
    is_number = {feature.name: feature.is_number for feature in data.schema.features}
    columns = list(X_train) if isinstance(X_train, pd.DataFrame) else range(len(is_number))
    named = [(c, n) for c, n in zip(columns, map(str, frame), strict=False) if n in is_number]
    numbers, strings = ([c for c, n in named if is_number[n] is wanted] for wanted in (True, False))
    estimator = unfitted(model_type, data.target, params, settings.random_state, numbers, strings)
    return fit_estimator(estimator, X_train, y, model_type)


def _table(X: pd.DataFrame | np.ndarray, y: np.ndarray) -> tuple[pd.DataFrame, str]:
    """Features and outcomes as one table, and the name of the outcomes."""
    frame = as_pandas(X)
    if not isinstance(frame, pd.DataFrame):
        array = np.asarray(X)
        if array.ndim != 2:
            raise DataValidationError(f"X_train has {array.ndim} dimension(s); give two")
        frame = pd.DataFrame(array, columns=[f"feature_{i}" for i in range(array.shape[1])])
    if len(y) != len(frame):
        raise DataValidationError(f"{len(y)} outcomes for {len(frame)} rows; give one a row")
    target = "target"
    while target in frame.columns:
        target += "_"
    return frame.reset_index(drop=True).assign(**{target: y}), target


def _asked(
    config: PipelineConfig | Mapping[str, Any] | None,
) -> tuple[PipelineConfig, str, Mapping[str, Any]]:
    """The configuration, the model type and its params of what `train_model` was given."""
    if isinstance(config, PipelineConfig):
        return config, LIGHTGBM, {}
    given = dict(config or {})
    if set(given) & set(SECTIONS):
        for name in given:
            if name not in SECTIONS:
                hint = suggestion(name, SECTIONS)
                raise ConfigurationError(f"unknown section '{name}'{hint}")
        given = dict(given.get("model") or {}) | dict(given.get("training") or {})
        for name in ("holdout", "promote", "model_name"):  # of the loop alone
            given.pop(name, None)
    model_type, params = given.pop("model_type", LIGHTGBM), given.pop("params", {})
    return PipelineConfig.from_dict(given), model_type, params or {}
