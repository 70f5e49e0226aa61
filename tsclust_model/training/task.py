"""Which kind of model is trained: the one place that asks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError
from tsclust_model.models.base import LIGHTGBM
from tsclust_model.models.task import Task
from tsclust_model.rows.task import BaselineTask, RowsTask
from tsclust_model.series.task import SeriesTask


def task_of(
    roles: Roles,
    config: PipelineConfig,
    model_type: str = LIGHTGBM,
    params: Mapping[str, Any] | None = None,
) -> Task:
    """What is trained on a table of these roles.

    Parameters
    ----------
    roles : Roles
        With a horizon they are those of series.
    config : PipelineConfig
    model_type : {'lightgbm', 'logistic', 'random_forest'}
    params : mapping, optional
        Arguments of an estimator of scikit-learn.

    Raises
    ------
    ConfigurationError
        Covariates of series without a horizon, or an estimator that forecasts no series.
    """
    if roles.horizon:
        if model_type != LIGHTGBM:
            raise ConfigurationError(
                f"training.model_type {model_type} forecasts no series; take lightgbm, or leave "
                "data.horizon out"
            )
        return SeriesTask(roles, config)
    if roles.future or roles.static or roles.holidays:
        raise ConfigurationError(
            "future, static and holidays are of series; give horizon as well, or make the columns "
            "features"
        )
    if model_type == LIGHTGBM:
        return RowsTask(roles, config)
    return BaselineTask(roles, config, model_type, params or {})
