"""What tests share: a made-up hospital, one fitted generation, one embedded store."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tsclust_model.commands import main
from tsclust_model.commands.demo import ROLES
from tsclust_model.config import PipelineConfig
from tsclust_model.datasets import make_hospital, make_ward_series
from tsclust_model.generation import FittedGeneration, Generation, fit_generation
from tsclust_model.series_generation import SeriesGeneration
from tsclust_model.training import Training, train_table
from tsclust_model.validation import Roles, TrainingData, training_data

PROJECT = Path(__file__).parent.parent
collect_ignore_glob = ["saved_models/*/*/*.py"]  # what those models carry
REAL_DATA = PROJECT.parent / "shared" / "data"

HOSPITAL_ROLES = ROLES
HOSPITAL_CONFIG = PipelineConfig(hdbscan_params={"min_cluster_size": 30, "min_samples": 5})

WARD_ROLES = Roles(
    "beds",
    features=("temperature",),
    resources=("nursing_hours",),
    time="month",
    id="ward_id",
    horizon=6,
)

VITALS = (
    "age",
    "heart_rate",
    "systolic_pressure",
    "temperature",
    "oxygen_saturation",
    "creatinine",
    "c_reactive_protein",
    "body_mass_index",
)
QUICK = {"num_leaves": 7, "n_estimators": 20, "learning_rate": 0.2}
STAY_ROLES = Roles("stay", (), ("nursing_hours",), "admission_time", "patient_id")
STAY_CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 20},
    lgb_timeseries_params=QUICK,
    lgb_resource_params=QUICK,
    serialization="code",
    missing_values="impute",
)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


class Server:
    """``mlflow server`` on a free port of this machine, over the tests' store."""

    def __init__(self, folder: Path, store: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._store = folder, store
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self._store]
        environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
        environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # it starts sooner
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.1)
            log_text = (self._folder / "server.log").read_text()[-3000:]
            assert self._process.poll() is None, log_text
            assert time.monotonic() < deadline, log_text

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With TSCLUST_NO_SKIPS a skipped test fails: continuous integration has everything."""
    report = yield
    if report.skipped and os.environ.get("TSCLUST_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr[2]}"
    return report


@pytest.fixture(scope="session")
def hospital() -> pd.DataFrame:
    """1,500 admissions, oldest first."""
    return make_hospital(1500, random_state=3)


@pytest.fixture(scope="session")
def hospital_data(hospital: pd.DataFrame) -> TrainingData:
    return training_data(hospital, HOSPITAL_ROLES, HOSPITAL_CONFIG)


@pytest.fixture(scope="session")
def fitted(hospital_data: TrainingData) -> FittedGeneration:
    info = {"roles": vars(HOSPITAL_ROLES)}
    return fit_generation(hospital_data, HOSPITAL_CONFIG, info)


@pytest.fixture(scope="session")
def generation(fitted: FittedGeneration) -> Generation:
    return fitted.generation


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An embedded sqlite store, made once: several processes at once cannot make it."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # the default experiment keeps its artifacts where it was made
        mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
    return folder


@pytest.fixture
def store(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of the store, which is the one in use, with its folder as the working folder."""
    uri = f"sqlite:///{store_folder}/mlflow.db"
    monkeypatch.chdir(store_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    assert mlflow.active_run() is None, "the test left a run open"
    mlflow.set_tracking_uri(before)


@pytest.fixture
def tsclust(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process: ``tsclust("score", data=..., model_uri=...)``."""
    # A command changes the loggers and warnings of its process.
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    levels = {name: logging.getLogger(name).level for name in ("mlflow", "alembic")}

    def call(name: str, *words: str, **options: object) -> Result:
        given = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return CliRunner().invoke(main.tsclust, [name, *words, *given])

    yield call
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def mlflow_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., subprocess.CompletedProcess]:
    """Run this project as a user does: ``mlflow_run(folder, "-e", "score", data=...)``."""
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    def call(
        folder: Path, *words: str, project: object = PROJECT, **given: object
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "mlflow", "run", str(project), "--env-manager", "local"]
        command += [word for key, value in given.items() for word in ("-P", f"{key}={value}")]
        environment = os.environ | {"PATH": path}
        return subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=folder,
            env=environment,
        )

    return call


@pytest.fixture(scope="session")
def wards() -> pd.DataFrame:
    """60 wards over 48 months: a long table of series."""
    return make_ward_series(60, 48, random_state=5)


@pytest.fixture(scope="session")
def registered_wards(store_folder: Path, wards: pd.DataFrame) -> Training:
    """A model of the wards' first 42 months, ``known-wards@champion``; do not retrain it."""
    uri = f"sqlite:///{store_folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        training = train_table(
            wards[wards["month"] < "2023-07-01"],
            WARD_ROLES,
            PipelineConfig(),
            holdout=0.1,
            model_name="known-wards",
        )
        mlflow.set_tracking_uri(before)
    return training


@pytest.fixture(scope="session")
def ward_model(registered_wards: Training) -> SeriesGeneration:
    assert isinstance(registered_wards.generation, SeriesGeneration)
    return registered_wards.generation


@pytest.fixture(scope="session")
def registered(store_folder: Path, hospital: pd.DataFrame) -> Training:
    """A hospital model, trained and registered as ``hospital@champion``; do not retrain it."""
    with _using(store_folder):
        return train_table(
            hospital, HOSPITAL_ROLES, HOSPITAL_CONFIG, holdout=0.2, model_name="hospital"
        )


@contextmanager
def _using(store_folder: Path) -> Iterator[None]:
    uri = f"sqlite:///{store_folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        yield
        mlflow.set_tracking_uri(before)


@pytest.fixture(scope="session")
def stays(hospital: pd.DataFrame) -> pd.DataFrame:
    """The hospital with a target of three classes, whose names are hard to write."""
    days = hospital["length_of_stay_days"]
    kind = np.select([days < 3, days < 6], ["short", 'say "mid"\n day'], "länger, 日本")
    columns = [*VITALS, "ward", "admission_time", "patient_id", "nursing_hours"]
    return hospital[columns].astype(dict.fromkeys(VITALS, float)).assign(stay=kind)


@pytest.fixture(scope="session")
def registered_classes(store_folder: Path, stays: pd.DataFrame) -> Training:
    """A model of the classes, registered as ``stays@champion``, logged as code."""
    with _using(store_folder):
        return train_table(
            stays.head(1000), STAY_ROLES, STAY_CONFIG, holdout=0.2, model_name="stays"
        )
