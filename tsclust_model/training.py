"""A table in, one registered MLflow model out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.evaluation import evaluate_generation
from tsclust_model.forecasting import fold_blend_rmse
from tsclust_model.generation import FittedGeneration, Generation, fit_generation
from tsclust_model.pyfunc import log_generation
from tsclust_model.registry import CHAMPION, check_model_name, register, set_champion
from tsclust_model.tables import content_digest
from tsclust_model.tracking import ArtifactManager, ExperimentManager, log_config, log_input
from tsclust_model.validation import Roles, TrainingData, in_time_order, training_data


@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes
    ----------
    generation : Generation
    model_name, version : str
        The registered version.
    replaced : str or None
        The version that was ``@champion`` before.
    run_id : str
    report : dict
        The figures that are logged as ``report.json``.
    """

    generation: Generation
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
    config = config or PipelineConfig()
    name = check_model_name(model_name or config.registered_model_name)
    if not 0 <= holdout < 1:
        raise ConfigurationError(f"holdout is {holdout!r}; it must be a share from 0 to below 1")
    experiments = ExperimentManager(config.experiment_name)
    tags = {
        "phase": "training",
        "trigger": trigger,
        "hospital_profile_id": config.hospital_profile_id,
    }
    with experiments.run("training", tags) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            known, unseen = split_newest(frame, roles.time, holdout)
            data = training_data(known, roles, config)
            stage.log(
                {"n_rows": len(known), "n_holdout": len(unseen), "n_features": data.X.shape[1]}
            )
        sha256 = content_digest(known)
        log_input(known, source, sha256, "training", roles.target)
        info = {"roles": asdict(roles), "data_sha256": sha256, "source": source}
        fitted = fit_generation(data, config, info, experiments.stage)
        with experiments.stage("Performance-Report") as stage:
            report = performance_figures(fitted, data, config, unseen)
            stage.log(headline(report))
        experiments.log_metrics(headline(report))
        ArtifactManager(config.hospital_profile_id).save_report(report, "report.json")
        logged = log_generation(fitted.generation, config.serialization)
        digest = (logged.metadata or {})["state_sha256"]
        version = register(logged.model_uri, name, digest)
        replaced = set_champion(name, str(version.version), f"training ({trigger})")
    return Training(fitted.generation, name, str(version.version), replaced, run_id, report)


def split_newest(
    frame: pd.DataFrame, time: str | None, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table in time order, parted into the older rows and the newest `share` (0 to 1)."""
    ordered = in_time_order(frame, time)
    cut = len(ordered) - int(len(ordered) * share)
    return ordered.iloc[:cut], ordered.iloc[cut:].reset_index(drop=True)


def performance_figures(
    fitted: FittedGeneration, data: TrainingData, config: PipelineConfig, unseen: pd.DataFrame
) -> dict[str, Any]:
    """What was found and what it is worth, as JSON-ready figures.

    ``worth`` holds errors on the folds: of the global model, of clusters alone, of the blend that
    is served, and of a control, the same blend with the labels shuffled among the rows.
    """
    generation = fitted.generation
    labels = np.random.default_rng(config.random_state).permutation(fitted.assignment.labels)
    control = fold_blend_rmse(
        data.X,
        data.y,
        labels,
        fitted.folds,
        config.lgb_timeseries_params,
        categorical=data.schema.categorical_columns,
        min_cluster_rows=config.min_cluster_rows,
    )
    scores = generation.target.scores
    return {
        "clustering": fitted.clustering.metrics,
        "cluster_sizes": generation.info["cluster_sizes"],
        "worth": {
            f"rmse_{way}": value for way, value in (scores.rmse | {"control": control}).items()
        }
        | {"cluster_weight": generation.target.weight},
        "clusters": {str(cluster): figures for cluster, figures in scores.clusters.items()},
        "resources": {
            name: {f"rmse_{way}": value for way, value in model.scores.rmse.items()}
            | {"cluster_weight": model.weight}
            for name, model in generation.resources.items()
        },
        "holdout": evaluate_generation(generation, unseen) if len(unseen) else None,
    }


def headline(report: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a report that a run shows as metrics."""
    figures = {
        k: report["clustering"][k] for k in ("n_clusters", "noise_ratio", "silhouette_score")
    }
    figures |= {f"fold_{name}": value for name, value in report["worth"].items()}
    for name, value in (report["holdout"] or {}).items():
        if not isinstance(value, dict):
            figures[f"holdout_{name}"] = value
    return figures
