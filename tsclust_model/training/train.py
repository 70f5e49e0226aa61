"""A table in, one registered MLflow model out; and again, when the data has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.data.digest import content_digest
from tsclust_model.data.frames import as_pandas
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError
from tsclust_model.mlflow_integration.registry import (
    CHAMPION,
    alias_version,
    check_model_name,
    set_champion,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config, log_input
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.models.base import FittedModel
from tsclust_model.models.task import Prepared, Task
from tsclust_model.report.build import build_report
from tsclust_model.results import ClusteringResult, Stages
from tsclust_model.shown import one_line
from tsclust_model.training.publish import about_run, headline, publish, run_tags
from tsclust_model.training.task import task_of


@one_line
@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes
    ----------
    generation : Generation, SeriesGeneration or Baseline
    clustering : ClusteringResult or None
        None of a model without segments.
    model_name, version : str
        The registered version.
    replaced : str or None
        The version that was ``@champion`` before.
    run_id : str
    report : dict
        The figures that are logged as ``report.json``.
    """

    generation: Any
    clustering: ClusteringResult | None
    model_name: str
    version: str
    replaced: str | None
    run_id: str
    report: dict[str, Any]

    @property
    def model_uri(self) -> str:
        return f"models:/{self.model_name}@{CHAMPION}"


def train_table(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig | None = None,
    *,
    source: str = "memory",
    holdout: float = 0.0,
    model_name: str | None = None,
    trigger: str = "manual",
) -> Training:
    """Fit, evaluate, log and register a model of a table; it becomes ``@champion``.

    Parameters
    ----------
    frame : DataFrame
        One row a case; see `Roles` for its columns.
    roles : Roles
    config : PipelineConfig, optional
    source : str
        Where the table came from, for the record.
    holdout : float
        Newest share of the rows (0 to below 1) that is never fitted, only evaluated on.
    model_name : str, optional
        Registered model; default: that of the configuration.
    trigger : str
        Who asked for the training, for the run's tag.

    Returns
    -------
    Training

    Raises
    ------
    DataValidationError, ConfigurationError, ModelTrainingError, MLflowIntegrationError
        The run is marked FAILED and nothing is registered.
    """
    task = task_of(roles, config or PipelineConfig())
    return train(
        task, frame, source=source, holdout=holdout, model_name=model_name, trigger=trigger
    )


def train(
    task: Task,
    frame: pd.DataFrame,
    *,
    source: str = "memory",
    holdout: float = 0.0,
    model_name: str | None = None,
    trigger: str = "manual",
) -> Training:
    """`train_table` of a task, which may be that of a scikit-learn estimator."""
    config, frame = task.config, as_pandas(frame)
    name = check_model_name(model_name or config.registered_model_name)
    if not 0 <= holdout < 1:
        raise ConfigurationError(f"holdout is {holdout!r}; it must be a share from 0 to below 1")
    task.check(frame)
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            prepared = task.prepare(frame, holdout)
            stage.log(prepared.figures)
        fit = fit_logged(experiments, task, prepared, {"source": source}, list(frame))
        with experiments.stage("Performance-Report") as stage:
            findings = task.findings(fit, prepared, prepared.holdout)
            page = None
            if findings.inputs is not None:
                told = about_run(name, run_id, "training", alias_version(name, CHAMPION), source)
                page = build_report(findings.fit.generation, findings.inputs, told)
            stage.log(headline(findings.figures))
        # Only now: a training that fails leaves no patients behind.
        model = _with_history(task, findings.fit.generation, prepared, name)
        version = publish(experiments, model, findings.figures, page, config, name)
        replaced = set_champion(name, version, f"training ({trigger})")
    return Training(model, fit.clustering, name, version, replaced, run_id, findings.figures)


def fit_logged(
    experiments: ExperimentManager,
    task: Task,
    prepared: Prepared,
    info: Mapping[str, Any],
    seen: Iterable[Any],
    stages: Stages | None = None,
) -> Any:
    """Fit a model whose info says of which data it is; `seen` are the columns of the table."""
    sha256 = content_digest(prepared.known)
    log_input(prepared.known, str(info["source"]), sha256, "training", task.roles.target)
    own = {
        "roles": asdict(task.roles),
        "data_sha256": sha256,
        "quality": task.quality_schema(prepared, seen),
    }
    return task.fit(prepared, prepared.info | dict(info) | own, stages or experiments.stage)


def _with_history(task: Task, model: FittedModel, prepared: Prepared, name: str) -> FittedModel:
    """Keep the rows of a first training, and say in the model which they were."""
    history = open_storage(task.config, name, register=True).history
    batch_id = history.register(task.history_rows(model, prepared))
    return model.with_info(
        {
            "trained_on": {batch_id: [0, len(prepared.known)]},
            "history_from": history.sequence(batch_id),
        }
    )
