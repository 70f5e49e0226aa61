"""Baselines through the loop's doors: first training, challenger, and one call for any model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.pipeline import Pipeline

from tsclust_model.config import PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import content_digest
from tsclust_model.data.window import Window
from tsclust_model.errors import (
    ConfigurationError,
    DataValidationError,
    ModelTrainingError,
    RetrainingError,
    suggestion,
)
from tsclust_model.mlflow_integration.baselines import log_baseline
from tsclust_model.mlflow_integration.registry import (
    register,
    set_challenger,
    set_champion,
    tag_training_data,
    tag_version,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config, log_input
from tsclust_model.mlflow_integration.storage import open_storage, refuse_lost_rows
from tsclust_model.mlflow_integration.stores import translated
from tsclust_model.models.compare import Comparison, compare
from tsclust_model.operations.settings import LoopSettings
from tsclust_model.rows.baseline import (
    LIGHTGBM,
    LOGISTIC,
    MODEL_TYPE_TAG,
    Baseline,
    about_baseline,
    fit_baseline,
    fit_estimator,
    unfitted,
)
from tsclust_model.rows.fit import fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.table import TrainingData, training_data
from tsclust_model.shown import one_line
from tsclust_model.training.challenge import (
    COMPARED_SHARE,
    FEWEST_ROWS,
    labelled_window,
    labels_digest,
    owners,
)
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.publish import LABELS_TAG, run_tags
from tsclust_model.training.train import quality_schema, split_newest


@one_line
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
    held : dict of str to float or None
        `Baseline.figures`, and ``n_rows``, of the rows of the comparison, before the model learned
        from them too; empty of a first training.
    """

    model: Baseline
    version: str
    promoted: bool
    comparison: Comparison | None = None
    held: dict[str, float | None] = field(default_factory=dict)


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
            held = _held(model, unseen)
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
        refuse_lost_rows(storage, champion.info, champion.roles.target, window)
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
    seen = champion.info.get("quality", {}).get("seen", [])

    def fit(n_rows: int) -> Baseline:
        """Fit the oldest rows of the window."""
        known = in_time_order(window.frame.iloc[:n_rows], roles.time)
        data = training_data(known, roles, config, gaps=True, known=champion.outcome)
        model = _fit(data, known, roles, config, model_type, params, seen)
        log_input(known, "history", content_digest(known), "training", roles.target)
        model.info.update(window.origins(n_rows), history_from=champion.info["history_from"])
        return model

    fresh = window.outside(champion.info["trained_on"])[n_known:]
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("retraining", run_tags("retraining", reason, config)):
        log_config(experiments, config)
        model = fit(n_known)
        newest = window.frame.iloc[n_known:][fresh]
        comparison = compare(
            champion, model, newest, config.promotion_margin, owners(newest, roles)
        )
        held = _held(model, newest)
        holdout = {f"holdout_{figure}": value for figure, value in held.items()}
        shown = {"improvement": comparison.improvement} | holdout
        experiments.log_metrics(comparison.figures | shown)
        if comparison.better:  # what serves has learned from the newest rows, too
            model = fit(len(window.frame))
        version = _publish(model, name, model_type)
        set_challenger(name, version)
        figures = {"comparison": comparison.reason} | comparison.figures
        told = {"challenged": champion_version, "trigger": reason}
        told |= {LABELS_TAG: labels_digest(window, champion), "refitted": str(comparison.better)}
        tag_version(name, version, told | figures)
        promoted = promote and comparison.better
        if promoted:
            set_champion(name, version, reason, expected=champion_version, figures=figures)
    return BaselineTraining(model, version, promoted, comparison, held)


def _held(model: Baseline, rows: pd.DataFrame) -> dict[str, float | None]:
    """Figures on labelled rows that the model has not seen, and how many it could score."""
    scored = rows[model.schema.encode(rows).scorable]
    return {"n_rows": len(scored)} | (model.figures(scored) if len(scored) else {})


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
    frame = X_train
    if not isinstance(frame, pd.DataFrame):
        array = np.asarray(X_train)
        if array.ndim != 2:
            raise DataValidationError(f"X_train has {array.ndim} dimension(s); give two")
        frame = pd.DataFrame(array, columns=[f"feature_{i}" for i in range(array.shape[1])])
    if len(y_train) != len(frame):
        raise DataValidationError(f"{len(y_train)} outcomes for {len(frame)} rows; give one a row")
    target, y = _free_name(frame), np.asarray(y_train)
    frame = frame.reset_index(drop=True).assign(**{target: y})
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
    parts: dict[bool, list[Any]] = {True: [], False: []}
    for column, name in zip(columns, map(str, frame), strict=False):
        if name in is_number:
            parts[is_number[name]].append(column)
    estimator = unfitted(
        model_type, data.target, params, settings.random_state, parts[True], parts[False]
    )
    return fit_estimator(estimator, X_train, y, model_type)


def _asked(
    config: PipelineConfig | Mapping[str, Any] | None,
) -> tuple[PipelineConfig, str, Mapping[str, Any]]:
    """The configuration, the model type and its params of what `train_model` was given."""
    if isinstance(config, PipelineConfig):
        return config, LIGHTGBM, {}
    given = dict(config or {})
    if set(given) & set(LoopSettings.model_fields):
        for name in given:
            if name not in LoopSettings.model_fields:
                hint = suggestion(name, LoopSettings.model_fields)
                raise ConfigurationError(f"unknown section '{name}'{hint}")
        given = dict(given.get("model") or {}) | dict(given.get("training") or {})
        for name in ("holdout", "promote", "model_name"):  # of the loop alone
            given.pop(name, None)
    model_type, params = given.pop("model_type", LIGHTGBM), given.pop("params", {})
    return PipelineConfig.from_dict(given), model_type, params or {}


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
    return Baseline(estimator, data.schema, data.target, info | {"quality": quality})


def _publish(model: Baseline, name: str, model_type: str) -> str:
    with translated("the model cannot be logged"):
        uri, digest = log_baseline(model)
    version = str(register(uri, name, digest).version)
    tag_version(name, version, {MODEL_TYPE_TAG: model_type})
    tag_training_data(name, version, model.info["trained_on"])
    return version
