"""Fixtures that tests share: a synthetic hospital, wards, one embedded store, one model a kind.

What is heavy is imported by the fixture that needs it: a unit test starts in a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import tomllib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    import pandas as pd
    from click.testing import Result

    from tsclust_model.rows.fit import FittedGeneration
    from tsclust_model.rows.model import Generation
    from tsclust_model.rows.table import TrainingData
    from tsclust_model.series.model import SeriesGeneration
    from tsclust_model.training.train import Training


# How many examples a property is tried on; a test sets max_examples where it needs fewer.
settings.register_profile("quick", max_examples=100, deadline=None, database=None)
settings.register_profile("thorough", max_examples=2000, deadline=None, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

# Folders whose tests need MLflow's store, other processes or servers, or take long.
INTEGRATION = {"analysis", "commands", "contract", "report", "mlflow_integration", "operations"}
INTEGRATION |= {"saved_models", "spark", "system", "training"}

# Found by the processes that tests start.
_STARTED = Path(__file__).parent / "started"
if str(_STARTED) not in os.environ.get("PYTHONPATH", ""):
    others = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    os.environ["PYTHONPATH"] = os.pathsep.join([*others, str(_STARTED)])

# What is imported stays until the end: without this a third of the time of the imports, and of some
# tests, goes into looking for garbage among the two million objects of mlflow and the others.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


collect_ignore_glob = ["saved_models/*/*/*.py", "started/*.py"]  # what others import


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With TSCLUST_NO_SKIPS a skipped test fails: continuous integration has everything."""
    report = yield
    if report.skipped and os.environ.get("TSCLUST_NO_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped where nothing may be: {report.longrepr[2]}"
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a store of MLflow, processes or a server; ``make quick`` leaves it out."""
    for item in items:
        uses_store = "store_folder" in getattr(item, "fixturenames", ())
        if uses_store or item.path.parent.name in INTEGRATION:
            item.add_marker("integration")


@pytest.fixture(scope="session")
def hospital() -> pd.DataFrame:
    """1,500 admissions, oldest first."""
    from tsclust_model.data.synthetic import make_hospital

    return make_hospital(1500, random_state=3)


@pytest.fixture(scope="session")
def hospital_data(hospital: pd.DataFrame) -> TrainingData:
    from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
    from tsclust_model.rows.table import training_data

    return training_data(hospital, HOSPITAL_ROLES, HOSPITAL_CONFIG)


@pytest.fixture(scope="session")
def fitted(hospital_data: TrainingData) -> FittedGeneration:
    from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
    from tsclust_model.rows.fit import fit_generation

    return fit_generation(hospital_data, HOSPITAL_CONFIG, {"roles": vars(HOSPITAL_ROLES)})


@pytest.fixture(scope="session")
def generation(fitted: FittedGeneration) -> Generation:
    return fitted.generation


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of an embedded store without a model, to copy: mlflow takes seconds to make it.

    The processes of pytest-xdist share it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "empty-store"
    folder.mkdir(exist_ok=True)
    database = folder / "mlflow.db"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            import mlflow

            mlflow.MlflowClient(f"sqlite:///{folder}/new.db").search_experiments()
            (folder / "new.db").rename(database)
    return database


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """An embedded sqlite store with its artifacts beside it."""
    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as database, database:
        database.execute("UPDATE experiments SET artifact_location = ?", (f"{folder}/mlruns/0",))
    return folder


@pytest.fixture
def store(store_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URI of the store, which is the one in use, with its folder as the working folder."""
    import mlflow

    uri = f"sqlite:///{store_folder}/mlflow.db"
    monkeypatch.chdir(store_folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    yield uri
    assert mlflow.active_run() is None, "the test left a run open"
    mlflow.set_tracking_uri(before)


@contextlib.contextmanager
def _using(store_folder: Path) -> Iterator[None]:
    import mlflow

    uri = f"sqlite:///{store_folder}/mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(store_folder)
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(uri)
        yield
        mlflow.set_tracking_uri(before)


@pytest.fixture
def tsclust(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """Run a command in this process: ``tsclust("score", data=..., model_uri=...)``."""
    from click.testing import CliRunner

    from tsclust_model.commands import main

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


@pytest.fixture(scope="session")
def python() -> Iterator[Path]:
    """An interpreter that has imported the libraries already: a process costs a tenth of a second.

    It knows ``-m``, ``-c`` and a file; with any other option it is `sys.executable`.
    """
    # A socket's path has a hundred characters at most, which a folder of pytest may exceed.
    with tempfile.TemporaryDirectory(prefix="tsclust-") as folder:
        program = Path(folder) / "python"
        program.write_text(f"#!{sys.executable} -IS\n{(_STARTED / 'python').read_text()}")
        program.chmod(0o755)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        log = program.with_name("log")
        with log.open("wb") as errors:
            server = subprocess.Popen(
                [sys.executable, str(_STARTED / "preloaded.py"), str(program.with_name("socket"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n", log.read_text()
        yield program
        server.communicate()


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Path:
    """A folder with the program that pip installs, over the package that is tested."""
    from tests.support import PROJECT

    folder = tmp_path_factory.mktemp("bin")
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["tsclust"].partition(":")
    program = folder / "tsclust"
    program.write_text(
        f"#!{python}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
        f"from {module} import {function}\nsys.exit({function}())\n"
    )
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def mlflow_run(python: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Run this project as a user does: ``mlflow_run(folder, "-e", "score", data=...)``."""
    from tests.support import PROJECT

    def call(
        folder: Path, *words: str, project: object = PROJECT, **given: object
    ) -> subprocess.CompletedProcess:
        command = [str(python), "-m", "mlflow", "run", str(project), "--env-manager", "local"]
        command += [word for key, value in given.items() for word in ("-P", f"{key}={value}")]
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        environment.pop("MLFLOW_RUN_ID", None)
        return subprocess.run(
            [*command, *words],
            capture_output=True,
            text=True,
            timeout=300,
            cwd=folder,
            env=environment,
        )

    return call


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch, python: Path) -> Callable[..., None]:
    """``mlflow run <uri> -e <name> --env-manager local`` with this process as mlflow's."""
    import mlflow

    from tests.support import PROJECT

    monkeypatch.setenv("PATH", f"{python.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)

    def call(
        name: str,
        experiment: str | None = None,
        *,
        uri: str = str(PROJECT),
        version: str | None = None,
        **parameters: object,
    ) -> None:
        mlflow.projects.run(
            uri,
            name,
            version=version,
            parameters=parameters,
            experiment_name=experiment,
            env_manager="local",
        )

    return call


@pytest.fixture(scope="session")
def wards() -> pd.DataFrame:
    """60 wards over 48 months: a long table of series."""
    from tsclust_model.data.synthetic import make_ward_series

    return make_ward_series(60, 48, random_state=5)


@pytest.fixture(scope="session")
def plan_model() -> SeriesGeneration:
    """A model of `planned_wards`, with every kind of covariate."""
    from tests.support import PLAN_ROLES, planned_wards
    from tsclust_model.config import PipelineConfig
    from tsclust_model.series.fit import fit_series_generation
    from tsclust_model.series.long_table import series_panel

    config = PipelineConfig(lgb_timeseries_params={"n_estimators": 10, "num_leaves": 4})
    panel = series_panel(planned_wards(), PLAN_ROLES)
    info = {"roles": vars(PLAN_ROLES)}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no cluster was found")
        return fit_series_generation(panel, PLAN_ROLES, config, info).generation


@pytest.fixture(scope="session")
def registered_wards(store_folder: Path, wards: pd.DataFrame) -> Training:
    """A model of the wards' first 42 months, ``known-wards@champion``; do not retrain it."""
    from tests.support import WARD_ROLES
    from tsclust_model.config import PipelineConfig
    from tsclust_model.training.train import train_table

    first = wards[wards["month"] < "2023-07-01"]
    with _using(store_folder):
        return train_table(
            first, WARD_ROLES, PipelineConfig(), holdout=0.1, model_name="known-wards"
        )


@pytest.fixture(scope="session")
def ward_model(registered_wards: Training) -> SeriesGeneration:
    return registered_wards.generation  # type: ignore[return-value]


@pytest.fixture(scope="session")
def registered(store_folder: Path, hospital: pd.DataFrame) -> Training:
    """A hospital model, trained and registered as ``hospital@champion``; do not retrain it."""
    from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
    from tsclust_model.training.train import train_table

    with _using(store_folder):
        return train_table(
            hospital, HOSPITAL_ROLES, HOSPITAL_CONFIG, holdout=0.2, model_name="hospital"
        )


@pytest.fixture(scope="session")
def stays(hospital: pd.DataFrame) -> pd.DataFrame:
    """The hospital with a target of three classes, whose names are hard to write."""
    import numpy as np

    from tests.support import VITALS

    days = hospital["length_of_stay_days"]
    kind = np.select([days < 3, days < 6], ["short", 'say "mid"\n day'], "länger, 日本")
    columns = [*VITALS, "ward", "admission_time", "patient_id", "nursing_hours"]
    return hospital[columns].astype(dict.fromkeys(VITALS, float)).assign(stay=kind)


@pytest.fixture(scope="session")
def registered_classes(store_folder: Path, stays: pd.DataFrame) -> Training:
    """A model of the classes, registered as ``stays@champion``, logged as code."""
    from tests.support import STAY_CONFIG, STAY_ROLES
    from tsclust_model.training.train import train_table

    with _using(store_folder):
        return train_table(
            stays.head(1000), STAY_ROLES, STAY_CONFIG, holdout=0.2, model_name="stays"
        )
