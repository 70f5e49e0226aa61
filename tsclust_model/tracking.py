"""Runs, params, metrics, inputs and artifacts in MLflow.

Three users share this module: training (a parent run with a child for each step), the
`ExperimentManager` for people who drive runs by hand, and the `ArtifactManager` for what they
store beside a run.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import json
import math
import os
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

import mlflow
import pandas as pd
import requests
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, RunStatus
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_PROJECT_ENV,
    MLFLOW_RUN_NOTE,
    MLFLOW_SOURCE_NAME,
    MLFLOW_SOURCE_TYPE,
)
from tqdm import tqdm

from tsclust_model.config import NAME_CHARACTERS, NAME_PATTERN, PipelineConfig
from tsclust_model.errors import MLflowIntegrationError
from tsclust_model.kept_models import Kept, open_model, seal_model
from tsclust_model.pyfunc import read_parts, write_parts
from tsclust_model.stages import Stage
from tsclust_model.stale_runs import close_stale_runs, process_tags

_METRICS_A_WRITE = 500
_GATHER_SECONDS = 1.0
_MOST_WAITING = 10_000
_PROBE_SECONDS = 3.0
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
        """Id of the experiment of this name, made if there is none."""
        make_stores()
        with translated("the experiment cannot be made"):
            found = mlflow.get_experiment_by_name(experiment_name)
            if found is None:
                try:
                    return str(mlflow.create_experiment(experiment_name))
                except MlflowException:
                    found = mlflow.get_experiment_by_name(experiment_name)
                    if found is None:  # it was not that another process was faster
                        raise
            return str(found.experiment_id)

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
        _check_artifact_path(artifact_name)
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
        """A run as a context: FINISHED at its end, FAILED when it is left by an error.

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


class MetricWriter:
    """Metrics of batches, written by a thread of its own, so that no batch waits for a server.

    What cannot be written is tried again; the newest 10,000 values wait at most. mlflow keeps one
    value for each (name, step, timestamp), so a write whose answer was lost does no harm when it
    is repeated.

    Parameters
    ----------
    run : str or callable
        Id of the run, or what makes one and returns its id; a run that was made here is ended by
        `close`.
    retry_seconds : float
        Pause after a failed write.
    """

    def __init__(self, run: str | Callable[[], str], retry_seconds: float = 1.0) -> None:
        self.run_id = run if isinstance(run, str) else None
        self._make_run = None if isinstance(run, str) else run
        self.retry_seconds = retry_seconds
        self.last_error = ""
        self._queue: deque[Metric] = deque()
        self._writing = 0
        self._wake = threading.Condition()
        self._closing = False
        self._hurry = False
        self._thread = threading.Thread(target=self._work, name="metric-writer", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def write(self, metrics: Mapping[str, float], step: int) -> None:
        """Queue metrics; returns at once."""
        now = time.time_ns() // 1_000_000
        with self._wake:
            self._queue.extend(
                Metric(metric_name(name), float(value), now, step)
                for name, value in metrics.items()
                if math.isfinite(value)
            )
            self._trim()
            self._wake.notify_all()

    @property
    def pending(self) -> int:
        """Values that are not written yet."""
        with self._wake:
            return len(self._queue) + self._writing

    def flush(self, seconds: float) -> bool:
        """Wait until everything is written, for `seconds` at most; whether it was."""
        with self._wake:
            self._hurry = True
            self._wake.notify_all()
            return self._wake.wait_for(lambda: not self._queue and not self._writing, seconds)

    def close(self, seconds: float = 5.0) -> None:
        """Write what is queued, for `seconds` at most, and stop."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(seconds)
        atexit.unregister(self.close)

    def _trim(self) -> None:
        while len(self._queue) > _MOST_WAITING:
            self._queue.popleft()

    def _next(self) -> list[Metric]:
        """Wait for values, and take them off the queue; none means to stop."""
        with self._wake:
            self._wake.wait_for(lambda: self._queue or self._closing)
            # One write for the batches of a second: each costs the scoring thread some of its time.
            self._wake.wait_for(lambda: self._hurry or self._closing, _GATHER_SECONDS)
            self._hurry = False
            taken = [self._queue.popleft() for _ in range(min(len(self._queue), _METRICS_A_WRITE))]
            self._writing = len(taken)
            return taken

    def _work(self) -> None:
        while batch := self._next():
            try:
                self._write(batch)
                error = ""
            except (MlflowException, MLflowIntegrationError, OSError) as failure:
                error = type(failure).__name__
            with self._wake:
                self.last_error = error
                self._writing = 0
                if error:
                    self._queue.extendleft(reversed(batch))
                    self._trim()
                    if self._closing:
                        return
                    self._wake.wait_for(lambda: self._closing, self.retry_seconds)
                self._wake.notify_all()
        if self._make_run is not None and self.run_id is not None:
            with contextlib.suppress(MlflowException, OSError):  # it stays RUNNING, as after a kill
                mlflow.MlflowClient().set_terminated(self.run_id)

    def _write(self, batch: list[Metric]) -> None:
        require_server()
        if self.run_id is None and self._make_run is not None:
            self.run_id = self._make_run()
        mlflow.MlflowClient().log_batch(str(self.run_id), metrics=batch)


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


class ArtifactManager:
    """Models and reports beside a run, kept apart by hospital profile.

    Parameters
    ----------
    hospital_profile_id : str, optional
        First folder of every path; default ``default``.
    run_id : str, optional
        The run; default: the active one at each call.
    """

    def __init__(self, hospital_profile_id: str | None = None, run_id: str | None = None) -> None:
        self.profile = _checked_name(hospital_profile_id or "default")
        self.run_id = run_id

    def save_model(self, model: Kept, model_name: str, model_type: str) -> str:
        """Store a fitted model as sealed plain data; it is never a pickle.

        Parameters
        ----------
        model : Kept
            A model, clustering engine, fallback or cluster models of this package, a
            ``lightgbm.Booster``, or an estimator of scikit-learn or LightGBM (see `seal_model`).
        model_name, model_type : str
            The path is ``<profile>/models/<model_type>/<model_name>``.

        Returns
        -------
        str
            That path, under the run's artifacts.

        Raises
        ------
        MLflowIntegrationError
            The model is of no such class, or holds a type that could run code when it is read.
        """
        path = self._model_path(model_name, model_type)
        parts = seal_model(model)
        with tempfile.TemporaryDirectory() as folder, translated("the model cannot be stored"):
            write_parts(parts, Path(folder))
            mlflow.log_artifacts(folder, path, run_id=self._run())
        return path

    def load_model(self, model_name: str, model_type: str) -> Any:
        """The model of `save_model`; nothing is parsed before its checksum is right."""
        path = self.get_artifact_path(self._model_path(model_name, model_type))
        return open_model(read_parts(Path(path)))

    def save_report(self, report: Mapping[str, Any] | str, report_name: str) -> str:
        """Store a report, a string or a mapping (as JSON), and return its path under the run.

        The path is ``<profile>/reports/<report_name>``.

        Raises
        ------
        MLflowIntegrationError
            The report is neither, or holds what JSON has not.
        """
        path = f"{self.profile}/reports/{_checked_name(report_name)}"
        text = report if isinstance(report, str) else _as_json(report)
        with translated("the report cannot be stored"):
            mlflow.log_text(text, path, run_id=self._run())
        return path

    def get_artifact_path(self, artifact_name: str) -> str:
        """Local path of an artifact of the run, fetched if its store is not local."""
        _check_artifact_path(artifact_name)
        run_id = self._run()
        try:
            return str(
                mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path=artifact_name)
            )
        except (MlflowException, OSError) as error:
            raise MLflowIntegrationError(
                f"run {run_id} has no artifact '{artifact_name}'; store it first"
            ) from error

    def _model_path(self, model_name: str, model_type: str) -> str:
        return f"{self.profile}/models/{_checked_name(model_type)}/{_checked_name(model_name)}"

    def _run(self) -> str:
        active = mlflow.active_run()
        if self.run_id is None and active is None:
            raise MLflowIntegrationError("no run is active; start one or give a run_id")
        return self.run_id or str(active.info.run_id)  # type: ignore[union-attr]


def require_server() -> None:
    """Refuse at once to begin what needs a tracking server that is not there.

    mlflow's own calls try again for minutes (4 min 10 s by default) before they say so.

    Raises
    ------
    MLflowIntegrationError
        The server of the store or of the registry cannot be reached within 3 s. A store that is
        no server passes, as does any answer.
    """
    for uri in dict.fromkeys((mlflow.get_tracking_uri(), mlflow.get_registry_uri())):
        if not uri.startswith(("http://", "https://")):
            continue
        try:
            requests.head(f"{uri.rstrip('/')}/health", timeout=_PROBE_SECONDS)
        except requests.exceptions.SSLError:
            continue  # something answers; whether mlflow may trust it is its own setting
        except (requests.ConnectionError, requests.Timeout) as error:
            raise MLflowIntegrationError(
                f"the tracking server does not answer ({type(error).__name__}); "
                "start it, or check MLFLOW_TRACKING_URI"
            ) from error


def embedded_file(uri: str) -> Path | None:
    """The file of an embedded (sqlite) store; None of any other."""
    kind, _, place = uri.partition(":///")
    file = unquote(place.partition("?")[0])
    if kind.partition("+")[0] != "sqlite" or file in ("", ":memory:"):
        return None
    return Path(file).absolute()


def make_stores() -> None:
    """Make the tables of embedded stores that have none, one process at a time.

    mlflow makes them at the first use, and of two processes that do so at once one fails
    (``duplicate column name``).

    Raises
    ------
    MLflowIntegrationError
        The store cannot be opened.
    """
    for uri in dict.fromkeys((mlflow.get_tracking_uri(), mlflow.get_registry_uri())):
        file = embedded_file(uri)
        if file is not None and file.parent.is_dir():
            _make_store(uri, file)


@functools.cache
def _make_store(uri: str, file: Path) -> None:
    with _alone_in(file.parent), translated("the store cannot be opened"):
        mlflow.MlflowClient(uri).search_experiments(max_results=1)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """One process at a time; what is locked is the folder itself, so that no file is left."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a file system that locks no folders, such as NFS
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _as_json(report: Mapping[str, Any]) -> str:
    remedy = "give a string, or a mapping of strings, numbers, lists and mappings"
    if not isinstance(report, Mapping):
        raise MLflowIntegrationError(f"the report is of type {type(report).__name__}; {remedy}")
    try:
        return json.dumps(dict(report), indent=2, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise MLflowIntegrationError(f"the report is not JSON ({error}); {remedy}") from error


def log_config(experiments: ExperimentManager, config: PipelineConfig) -> None:
    """The resolved configuration as params under ``cfg.`` and as ``config.yaml``."""
    flat: dict[str, Any] = {}
    for key, value in config.to_dict().items():
        nested = value if isinstance(value, dict) else {"": value}
        flat |= {f"cfg.{key}.{name}".rstrip("."): found for name, found in nested.items()}
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
            source=source,
            name=PurePosixPath(source).name[:64] or "table",
            targets=target,
            digest=digest[:_DIGEST_LENGTH],
        )
        mlflow.log_input(dataset, context=context)
        mlflow.set_tag("data.sha256", digest)


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
    """Mark the active run FAILED when a step raises, and let the error go on.

    Parameters
    ----------
    step_name : str
        Tag ``error.step``; the tag ``error.type`` is the name of the error's class. Its text is not
        kept: it may be somebody else's, and quote rows.
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
    with contextlib.suppress(MlflowException):  # the error itself matters more than its mark
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


def metric_name(name: str) -> str:
    """`name` as mlflow takes it for a metric: other characters become ``_``, and lower case."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name).lower()


def _check_artifact_path(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise MLflowIntegrationError(
            f"artifact {str(name)!r} is no path under a run; give one such as reports/week.json"
        )


def _checked_name(name: str) -> str:
    if not NAME_PATTERN.fullmatch(name):
        raise MLflowIntegrationError(
            f"{name!r} is no name; use 1 to 64 characters of {NAME_CHARACTERS}"
        )
    return name


@contextmanager
def translated(what: str) -> Iterator[None]:
    """mlflow's errors become ours, here and nowhere else in this module."""
    try:
        yield
    except MlflowException as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MLflowIntegrationError(f"{what}: {first_line}") from error
