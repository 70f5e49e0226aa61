"""Runs, params, metrics, inputs and artifacts in MLflow.

Three users share this module: training (a parent run with a child for each step), the
`ExperimentManager` for people who drive runs by hand, and the `ArtifactManager` for what they
store beside a run.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import mlflow
import pandas as pd
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import RunStatus
from mlflow.utils.mlflow_tags import (
    MLFLOW_PROJECT_ENV,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)
from tqdm import tqdm

from tsclust_model.config import PipelineConfig
from tsclust_model.data.delta import delta_version
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.mlflow_integration.artifacts import check_artifact_path
from tsclust_model.mlflow_integration.metric_writer import metric_name
from tsclust_model.mlflow_integration.stale_runs import close_stale_runs, process_tags
from tsclust_model.mlflow_integration.stores import THERE, make_stores, tolerated, translated
from tsclust_model.results import Stage

_DIGEST_LENGTH = 36  # what mlflow stores of a dataset's digest


class ExperimentManager:
    """Experiments and runs.

    Parameters
    ----------
    experiment_name : str, optional
        Where a run goes that has no experiment yet; default: that of `PipelineConfig`. A run
        that ``mlflow run`` has made keeps its own.

    Notes
    -----
    Every method raises `MLflowIntegrationError` when the tracking store refuses.
    """

    def __init__(self, experiment_name: str | None = None) -> None:
        self.experiment_name = experiment_name or PipelineConfig().experiment_name

    def create_experiment(self, experiment_name: str) -> str:
        """Id of the experiment of this name, created if there is none."""
        make_stores()
        with translated("the experiment cannot be made"):
            known = mlflow.get_experiment_by_name(experiment_name)
            if known is None:
                with tolerated(THERE):
                    return str(mlflow.create_experiment(experiment_name))
                known = mlflow.get_experiment_by_name(experiment_name)  # another process's
            if known is None:  # one that is deleted, which mlflow says
                return str(mlflow.create_experiment(experiment_name))
            return str(known.experiment_id)

    def start_run(self, run_name: str, nested: bool = False) -> str:
        """Start a run, or resume the one ``mlflow run`` made, and return its id.

        Runs of the same experiment that a killed process has left are closed (`close_stale_runs`).
        """
        make_stores()
        with translated("the run cannot be started"):
            parent = mlflow.active_run() if nested else None
            if parent is not None:
                experiment_id = parent.info.experiment_id  # mlflow would take the default one
            elif "MLFLOW_RUN_ID" in os.environ:
                experiment_id = None
            else:
                experiment_id = self.create_experiment(self.experiment_name)
            run = mlflow.start_run(
                run_name=run_name, experiment_id=experiment_id, nested=nested, tags=process_tags()
            )
        if parent is None:
            close_stale_runs(str(run.info.experiment_id))
        return str(run.info.run_id)

    def make_run(self, run_name: str, tags: Mapping[str, str | None]) -> str:
        """Make a run that is not the active one, for `MetricWriter`, and return its id."""
        with translated("the run cannot be made"):
            experiment_id = self.create_experiment(self.experiment_name)
            run = mlflow.MlflowClient().create_run(
                experiment_id,
                run_name=run_name,
                tags=process_tags() | {k: v for k, v in tags.items() if v is not None},
            )
            return str(run.info.run_id)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Params of the active run; None is written as 'null'."""
        with translated("the params cannot be logged"):
            mlflow.log_params({k: "null" if v is None else v for k, v in params.items()})

    def log_metrics(self, metrics: Mapping[str, float | None], step: int = 0) -> None:
        """Metrics of the active run; what is undefined (None, NaN) is left out."""
        defined = {
            name: float(value)
            for name, value in metrics.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        }
        with translated("the metrics cannot be logged"):
            mlflow.log_metrics(defined, step=step)

    def log_artifact(self, artifact_path: str | Path, artifact_name: str) -> str:
        """Store a local file under the active run as `artifact_name`, and return that name."""
        check_artifact_path(artifact_name)
        source = Path(artifact_path)
        if not source.is_file():
            raise MLflowIntegrationError(f"{artifact_path} is no file; give the path of one")
        with translated("the artifact cannot be logged"), tempfile.TemporaryDirectory() as folder:
            target = PurePosixPath(artifact_name)
            copy = Path(folder) / target.name
            copy.write_bytes(source.read_bytes())
            parent = str(target.parent)
            mlflow.log_artifact(str(copy), None if parent == "." else parent)
        return artifact_name

    def end_run(self, status: str = "FINISHED") -> None:
        """End the active run as FINISHED, FAILED or KILLED."""
        with translated("the run cannot be ended"):
            mlflow.end_run(status)

    @contextmanager
    def run(
        self, run_name: str, tags: Mapping[str, str | None] | None = None, nested: bool = False
    ) -> Iterator[str]:
        """A run as a context: FINISHED at its end, FAILED after an error.

        It is a child of the run that is active, if one is.
        """
        run_id = self.start_run(run_name, nested=nested or mlflow.active_run() is not None)
        status = RunStatus.FAILED
        try:
            with translated("the tags cannot be set"):
                mlflow.set_tags({k: v for k, v in (tags or {}).items() if v is not None})
            yield run_id
            status = RunStatus.FINISHED
        finally:
            self.end_run(RunStatus.to_string(status))

    @contextmanager
    def active_or_new(self, run_name: str, tags: Mapping[str, str | None]) -> Iterator[str]:
        """The run that is active, which stays so, or else one as `run` makes it."""
        active = mlflow.active_run()
        if active is None:
            with self.run(run_name, tags) as run_id:
                yield run_id
            return
        with translated("the tags cannot be set"):
            mlflow.set_tags({k: v for k, v in tags.items() if v is not None})
        yield str(active.info.run_id)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """A step of training as a child run with a progress bar (silent off a terminal)."""
        bar = tqdm(total=1, desc=name, unit="model", leave=False, disable=not sys.stderr.isatty())
        with self.run(name, nested=True), bar:
            yield _Watched(self, bar)


class _Watched(Stage):
    """Figures become metrics of the child run, progress moves the bar."""

    def __init__(self, experiments: ExperimentManager, bar: tqdm) -> None:
        self._experiments = experiments
        self._bar = bar

    def log(self, figures: Mapping[str, Any]) -> None:
        self._experiments.log_metrics({metric_name(name): v for name, v in figures.items()})

    def progress(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)


def log_config(experiments: ExperimentManager, config: PipelineConfig) -> None:
    """The resolved configuration as params under ``cfg.`` and as ``config.yaml``."""
    flat: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        nested = value if isinstance(value, dict) else {"": value}
        flat |= {f"cfg.{key}.{name}".rstrip("."): setting for name, setting in nested.items()}
    experiments.log_params(flat)
    with translated("the configuration cannot be logged"):
        mlflow.log_text(config.to_yaml(), "config.yaml")


def log_input(frame: pd.DataFrame, source: str, digest: str, context: str, target: str) -> None:
    """The table as an input of the active run, by our own sha256 (mlflow's reads 10,000 rows)."""
    with translated("the data set cannot be logged"), warnings.catch_warnings():
        # mlflow advises on integer columns of signatures; this is no signature.
        warnings.simplefilter("ignore", UserWarning)
        dataset = from_pandas(
            frame,
            source=_dataset_source(source),
            name=PurePosixPath(source).name[:64] or "table",
            targets=target,
            digest=digest[:_DIGEST_LENGTH],
        )
        mlflow.log_input(dataset, context=context)
        mlflow.set_tag("data.sha256", digest)


def _dataset_source(source: str) -> str | DatasetSource:
    """What mlflow keeps of where a table came from: of a Delta table the version as well."""
    found = delta_version(source)
    if found is None:
        return source
    return DeltaDatasetSource(path=found[0], delta_table_version=found[1])


def active_run_id() -> str | None:
    """Id of the active run, or None."""
    active = mlflow.active_run()
    return None if active is None else str(active.info.run_id)


def project_of(run_id: str) -> tuple[str | None, str]:
    """The project ``mlflow run`` started a run of (path or URL, or None), and its environment.

    The environment is what ``--env-manager`` takes: ``local``, unless mlflow made one.
    """
    with translated("the run cannot be read"):
        tags = mlflow.MlflowClient().get_run(run_id).data.tags
    if tags.get(MLFLOW_SOURCE_TYPE) != "PROJECT":
        return None, "local"
    return tags[MLFLOW_SOURCE_NAME].removeprefix("file://"), tags.get(MLFLOW_PROJECT_ENV, "local")


@contextmanager
def error_handler(step_name: str) -> Iterator[None]:
    """Mark the active run FAILED if a step raises an error, which is raised again.

    Parameters
    ----------
    step_name : str
        Tag ``error.step``; the tag ``error.type`` is the name of the error's class. Its text is not
        stored, because another package's error may quote rows.
    """
    try:
        yield
    except BaseException as error:
        active = mlflow.active_run()
        if active is not None:
            _mark_failed(str(active.info.run_id), step_name, type(error).__name__)
        raise


def _mark_failed(run_id: str, step_name: str, error_type: str) -> None:
    client = mlflow.MlflowClient()
    with tolerated():  # the error itself matters more than its mark
        client.set_tag(run_id, "error.type", error_type)
        client.set_tag(run_id, "error.step", step_name)
        client.update_run(run_id, status="FAILED")


def log_page(
    page_name: str, page: str, figures_name: str, figures: Mapping[str, Any], note: str
) -> None:
    """A report under the active run: its page, its figures as JSON, and the run's description."""
    with translated("the report cannot be logged"):
        mlflow.log_text(page, page_name)
        mlflow.log_text(json.dumps(figures, indent=1), figures_name)
        mlflow.set_tag(MLFLOW_RUN_NOTE, note)
