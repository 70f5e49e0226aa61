"""Baselines through the loop's doors: first training, challenger, and one call for any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.baselines import (
    LIGHTGBM,
    MODEL_TYPE_TAG,
    Baseline,
    about_baseline,
    fit_baseline,
    log_baseline,
)
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, ModelTrainingError, RetrainingError
from tsclust_model.generation import Generation, fit_generation
from tsclust_model.history import Window
from tsclust_model.registry import (
    register,
    set_challenger,
    set_champion,
    tag_training_data,
    tag_version,
)
from tsclust_model.retraining import Comparison, compare, retrain_lock
from tsclust_model.storage import open_storage
from tsclust_model.tables import content_digest
from tsclust_model.tracking import ExperimentManager, log_config, log_input, translated
from tsclust_model.training import (
    COMPARED_SHARE,
    FEWEST_ROWS,
    labelled_window,
    owners,
    quality_schema,
    run_tags,
    split_newest,
)
from tsclust_model.validation import Roles, TrainingData, in_time_order, training_data


@dataclass(frozen=True)
class BaselineTraining:
    """What a training or retrain of a baseline made.

    Attributes
    ----------
    model : Baseline
    version : str
        The registered one.
    promoted : bool
        Whether it serves now.
    comparison : Comparison or None
        None of a first training.
    """

    model: Baseline
    version: str
    promoted: bool
    comparison: Comparison | None = None


def train_baseline(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    model_type: str,
    params: Mapping[str, Any],
    *,
    source: str,
    holdout: float,
    model_name: str,
    trigger: str,
) -> BaselineTraining:
    """Fit, log and register a baseline; it becomes ``@champion`` (see `train_table`)."""
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)):
        log_config(experiments, config)
        known, unseen = split_newest(frame, roles.time, holdout)
        data = training_data(known, roles, config)
        model = _fit(data, known, roles, config, model_type, params, list(frame))
        log_input(known, source, content_digest(known), "training", roles.target)
        history = open_storage(config, model_name, register=True).history
        batch_id = history.register(model.canonical_rows(pd.concat([known, unseen])))
        model.info.update(
            trained_on={batch_id: [0, len(known)]}, history_from=history.sequence(batch_id)
        )
        if len(unseen):
            held = model.figures(unseen[model.schema.encode(unseen).scorable])
            experiments.log_metrics({f"holdout_{name}": v for name, v in held.items()})
        version = _publish(model, model_name, model_type)
        set_champion(model_name, version, f"training ({trigger})")
    return BaselineTraining(model, version, True)


def retrain_baseline(
    champion: Generation | Baseline,
    champion_version: str,
    model_name: str,
    config: PipelineConfig,
    model_type: str,
    params: Mapping[str, Any],
    reason: str,
    *,
    promote: bool = True,
) -> BaselineTraining:
    """Fit a baseline as challenger of any champion, compare them, and let the better one serve.

    Raises
    ------
    RetrainingError
        Another retrain is running, or there are too few labelled rows, or the fit failed.
    """
    storage = open_storage(config, model_name)
    with retrain_lock(storage.retrain_lock):
        window = labelled_window(champion, storage.history, config)
        if len(window.frame) < FEWEST_ROWS:
            raise RetrainingError(
                f"{len(window.frame)} labelled rows are too few for a retrain, which needs "
                f"{FEWEST_ROWS}"
            )
        try:
            return _challenge(
                champion, champion_version, model_name, config, model_type, params, reason, window,
                promote,
            )  # fmt: skip
        except (DataValidationError, ModelTrainingError) as error:
            raise RetrainingError(f"the challenger could not be fitted: {error}") from error


def _challenge(
    champion: Generation | Baseline,
    champion_version: str,
    name: str,
    config: PipelineConfig,
    model_type: str,
    params: Mapping[str, Any],
    reason: str,
    window: Window,
    promote: bool,
) -> BaselineTraining:
    roles = champion.roles
    n_known = len(window.frame) - int(len(window.frame) * COMPARED_SHARE)
    fresh = window.outside(champion.info["trained_on"])[n_known:]
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("retraining", run_tags("retraining", reason, config)):
        log_config(experiments, config)
        known = in_time_order(window.frame.iloc[:n_known], roles.time)
        data = training_data(known, roles, config, gaps=True, known=champion.classes)
        seen = champion.info.get("quality", {}).get("seen", [])
        model = _fit(data, known, roles, config, model_type, params, seen)
        log_input(known, "history", content_digest(known), "training", roles.target)
        model.info.update(
            trained_on=window.ranges(n_known), history_from=champion.info["history_from"]
        )
        newest = window.frame.iloc[n_known:][fresh]
        comparison = compare(
            champion, model, newest, config.promotion_margin, owners(newest, roles)
        )
        experiments.log_metrics(comparison.figures | {"improvement": comparison.improvement})
        version = _publish(model, name, model_type)
        set_challenger(name, version)
        figures = {"comparison": comparison.reason} | comparison.figures
        tag_version(name, version, {"challenged": champion_version, "trigger": reason} | figures)
        promoted = promote and comparison.better
        if promoted:
            set_champion(name, version, reason, expected=champion_version, figures=figures)
    return BaselineTraining(model, version, promoted, comparison)


def train_model(
    X_train: pd.DataFrame | np.ndarray,
    y_train: Any,
    config: PipelineConfig | Mapping[str, Any] | None = None,
) -> Generation | Baseline:
    """Fit a model of any type in memory; nothing is logged or registered.

    Parameters
    ----------
    X_train : DataFrame or array, shape (n_samples, n_features)
        The columns of an array are called ``feature_0``, ``feature_1``, ...
    y_train : array-like, shape (n_samples,)
        Numbers or classes; whole numbers of at most two values are classes too.
    config : PipelineConfig or mapping, optional
        A mapping holds fields of `PipelineConfig`, and may hold ``model_type`` (``lightgbm``,
        ``logistic``, ``random_forest``) and ``params`` of the scikit-learn estimator.

    Returns
    -------
    Generation or Baseline
        Both have ``predict`` of a table; see there.

    Raises
    ------
    DataValidationError, ConfigurationError, ModelTrainingError

    Examples
    --------
    >>> from tsclust_model import generate_synthetic_data, train_model
    >>> data = generate_synthetic_data(200, 5, 0)
    >>> model = train_model(data.drop(columns="target"), data["target"], {"model_type": "logistic"})
    >>> model.predict(data.head(3)).shape
    (3,)
    """
    given = {} if config is None or isinstance(config, PipelineConfig) else dict(config)
    model_type, params = given.pop("model_type", LIGHTGBM), given.pop("params", {})
    settings = config if isinstance(config, PipelineConfig) else PipelineConfig.from_dict(given)
    frame = X_train
    if not isinstance(frame, pd.DataFrame):
        array = np.asarray(X_train)
        if array.ndim != 2:
            raise DataValidationError(f"X_train has {array.ndim} dimension(s); give two")
        frame = pd.DataFrame(array, columns=[f"feature_{i}" for i in range(array.shape[1])])
    if len(y_train) != len(frame):
        raise DataValidationError(f"{len(y_train)} outcomes for {len(frame)} rows; give one a row")
    target = _free_name(frame)
    frame = frame.reset_index(drop=True).assign(**{target: np.asarray(y_train)})
    if settings.task == "auto" and frame[target].nunique() <= 2:
        settings = PipelineConfig.from_dict(settings.to_dict() | {"task": "classification"})
    roles = Roles(target)
    data = training_data(frame, roles, settings)
    if model_type == LIGHTGBM:
        info = {"roles": vars(roles), "source": "memory"}
        return fit_generation(data, settings, info).generation
    return _fit(data, frame, roles, settings, model_type, params, list(frame))


def _free_name(frame: pd.DataFrame) -> str:
    name = "target"
    while name in frame.columns:
        name += "_"
    return name


def _fit(
    data: TrainingData,
    known: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    model_type: str,
    params: Mapping[str, Any],
    seen: list[Any],
) -> Baseline:
    estimator = fit_baseline(data, known, model_type, params, config.random_state)
    info = about_baseline(data, roles, config, model_type)
    quality = quality_schema(known, data.schema.names, roles, config, seen)
    return Baseline(estimator, data.schema, data.classes, info | {"quality": quality})


def _publish(model: Baseline, name: str, model_type: str) -> str:
    with translated("the model cannot be logged"):
        uri, digest = log_baseline(model)
    version = str(register(uri, name, digest).version)
    tag_version(name, version, {MODEL_TYPE_TAG: model_type})
    tag_training_data(name, version, model.info["trained_on"])
    return version
