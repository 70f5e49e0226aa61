"""A table in, one registered MLflow model out; and again, when the data has moved on."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from tsclust_model.config import CLASS_OBJECTIVES, PipelineConfig
from tsclust_model.data.columns import in_time_order
from tsclust_model.data.quality_schema import infer_quality_schema
from tsclust_model.data.roles import Roles
from tsclust_model.data.tables import content_digest
from tsclust_model.errors import (
    ConfigurationError,
    suggestion,
)
from tsclust_model.mlflow_integration.kinds import AnyGeneration
from tsclust_model.mlflow_integration.registry import (
    CHAMPION,
    alias_version,
    check_model_name,
    set_champion,
)
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config, log_input
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.report.build import build_report
from tsclust_model.results import ClusteringResult, Stages
from tsclust_model.rows.figures import performance_figures, shuffled_control, with_gain
from tsclust_model.rows.fit import FittedGeneration, fit_generation
from tsclust_model.rows.model import Generation
from tsclust_model.rows.report import fit_inputs
from tsclust_model.rows.table import TrainingData, training_data
from tsclust_model.series.figures import series_figures
from tsclust_model.series.fit import FittedSeries, fit_series_generation
from tsclust_model.series.long_table import value_columns
from tsclust_model.series.report import series_inputs
from tsclust_model.series.windows import (
    SeriesData,
    series_data,
)
from tsclust_model.shown import one_line
from tsclust_model.training.publish import about_run, headline, publish, run_tags


@one_line
@dataclass(frozen=True)
class Training:
    """What a training made.

    Attributes
    ----------
    generation : Generation
    clustering : ClusteringResult
    model_name, version : str
        The registered version.
    replaced : str or None
        The version that was ``@champion`` before.
    run_id : str
    report : dict
        The figures that are logged as ``report.json``.
    """

    generation: AnyGeneration
    clustering: ClusteringResult
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
    asked = config.lgb_timeseries_params["objective"] in CLASS_OBJECTIVES
    if roles.horizon and (asked or config.task == "classification"):
        raise ConfigurationError("series are forecast as numbers; leave task or horizon out")
    if roles.horizon:
        return _train_series(frame, roles, config, source, holdout, name, trigger)
    if roles.frequency is not None:
        raise ConfigurationError("frequency is of series; give a horizon too, or leave it out")
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            known, unseen = split_newest(frame, roles.time, holdout)
            if len(known) < 2 <= len(frame):
                raise ConfigurationError(
                    f"holdout {holdout:g} leaves {len(known)} of {len(frame)} rows; lower it"
                )
            data = training_data(known, roles, config)
            _warn_of_absent(frame, config)
            n_features = data.X.shape[1]
            stage.log({"n_rows": len(known), "n_holdout": len(unseen), "n_features": n_features})
        info = {
            "source": source,
            "quality": quality_schema(known, data.schema.names, roles, config, list(frame)),
        }
        fitted = fit_logged(experiments, known, data, roles, config, info)
        with experiments.stage("Performance-Report") as stage:
            control = shuffled_control(fitted, data, config)
            report = performance_figures(fitted, data, known, unseen, control)
            fitted = with_gain(fitted, report)
            about = about_run(name, run_id, "training", alias_version(name, CHAMPION), source)
            inputs = fit_inputs(fitted, data, known, unseen, control.fold_losses["blend"])
            page = build_report(fitted.generation, inputs, about)
            stage.log(headline(report))
        # Only now: a training that fails leaves no patients behind.
        fitted = replace(
            fitted, generation=_with_history(fitted.generation, known, unseen, config, name)
        )
        version = publish(experiments, fitted.generation, report, page, config, name)
        replaced = set_champion(name, version, f"training ({trigger})")
    return Training(fitted.generation, fitted.clustering, name, version, replaced, run_id, report)


def _warn_of_absent(frame: pd.DataFrame, config: PipelineConfig) -> None:
    """Say which columns the report cannot group by."""
    columns = list(map(str, frame.columns))
    for key in ("planning_columns", "audit_columns"):
        for name in getattr(config, key):
            if name not in columns:
                hint = suggestion(name, columns)
                warnings.warn(
                    f"{key} names '{name}', which the data does not have{hint}", stacklevel=3
                )


def _train_series(
    frame: pd.DataFrame,
    roles: Roles,
    config: PipelineConfig,
    source: str,
    holdout: float,
    name: str,
    trigger: str,
) -> Training:
    """`train_table` of a long table of series."""
    value_columns(frame, roles)  # a role that is forgotten needs no run
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("training", run_tags("training", trigger, config)) as run_id:
        log_config(experiments, config)
        with experiments.stage("Preprocessing") as stage:
            data = series_data(frame, roles, config, holdout)
            stage.log(data.panel.gaps | {"n_periods": data.panel.n_periods})
        fitted = fit_series_logged(
            experiments, data, roles, config, {"source": source}, list(frame)
        )
        with experiments.stage("Performance-Report") as stage:
            report = series_figures(fitted, data.held)
            about = about_run(name, run_id, "training", alias_version(name, CHAMPION), source)
            inputs = series_inputs(fitted.generation, data.panel, data.held)
            page = build_report(fitted.generation, inputs, about)
            stage.log(headline(report))
        history = open_storage(config, name, register=True).history
        batch_id = history.register(data.rows)
        ours = {
            "trained_on": {batch_id: [0, data.n_known]},
            "history_from": history.sequence(batch_id),
        }
        generation = replace(fitted.generation, info=fitted.generation.info | ours)
        version = publish(experiments, generation, report, page, config, name)
        replaced = set_champion(name, version, f"training ({trigger})")
    return Training(generation, fitted.clustering, name, version, replaced, run_id, report)


def fit_series_logged(
    experiments: ExperimentManager,
    data: SeriesData,
    roles: Roles,
    config: PipelineConfig,
    info: Mapping[str, Any],
    seen: Iterable[Any],
    stages: Stages | None = None,
) -> FittedSeries:
    known = data.rows.head(data.n_known)
    sha256 = content_digest(known)
    log_input(known, str(info["source"]), sha256, "training", roles.target)
    quality = quality_schema(known, data.panel.covariates, roles, config, seen)
    own = {"roles": asdict(roles), "data_sha256": sha256, "quality": quality}
    told, steps = dict(info) | own, stages or experiments.stage
    return fit_series_generation(data.panel, roles, config, told, steps)


def _with_history(
    generation: Generation,
    known: pd.DataFrame,
    unseen: pd.DataFrame,
    config: PipelineConfig,
    name: str,
) -> Generation:
    """Keep the rows of a first training, and say in the generation which they were."""
    history = open_storage(config, name, register=True).history
    rows = generation.canonical_rows(pd.concat([known, unseen]))
    batch_id = history.register(rows)
    ours = {
        "trained_on": {batch_id: [0, len(known)]},
        "history_from": history.sequence(batch_id),
    }
    return replace(generation, info=generation.info | ours)


def quality_schema(
    known: pd.DataFrame,
    features: Iterable[str],
    roles: Roles,
    config: PipelineConfig,
    seen: Iterable[Any],
) -> dict[str, Any]:
    """The schema that new rows are checked against; `seen` are the table's own columns.

    Outcomes of rows may come later; a series is made of them.
    """
    outcomes = (roles.target, *roles.resources)
    found = infer_quality_schema(
        known,
        columns=[name for name in (*features, *outcomes, roles.time, roles.id) if name],
        optional=() if roles.horizon else outcomes,
        time=roles.time,
        id=roles.id,
        unique=roles.horizon > 0,
        markers=config.missing_markers,
    )
    found["seen"] = sorted({*found["seen"], *map(str, seen)})
    return dict(found)


def fit_logged(
    experiments: ExperimentManager,
    known: pd.DataFrame,
    data: TrainingData,
    roles: Roles,
    config: PipelineConfig,
    info: Mapping[str, Any],
    stages: Stages | None = None,
) -> FittedGeneration:
    sha256 = content_digest(known)
    log_input(known, str(info["source"]), sha256, "training", roles.target)
    own = {"roles": asdict(roles), "data_sha256": sha256}
    return fit_generation(data, config, dict(info) | own, stages or experiments.stage)


def split_newest(
    frame: pd.DataFrame, time: str | None, share: float
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The table in time order, parted into the older rows and the newest `share` (0 to 1)."""
    ordered = in_time_order(frame, time)
    cut = len(ordered) - int(len(ordered) * share)
    return ordered.iloc[:cut], ordered.iloc[cut:].reset_index(drop=True)
