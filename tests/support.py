"""What tests share: names of columns, configurations, a clock set by hand, a real server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tsclust_model.commands.demo import ROLES
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles

if TYPE_CHECKING:
    import pandas as pd

PROJECT = Path(__file__).parent.parent
ON_PATH = f"{PROJECT}{os.pathsep}{PROJECT / 'tests' / 'started'}"
"""PYTHONPATH of a process that finds this project and what shortens its start."""
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

PLAN_ROLES = Roles(
    "beds",
    time="day",
    id="ward",
    horizon=7,
    frequency="D",
    future=("planned",),
    static=("kind", "size"),
    holidays="AU",
)
PLAN_DAYS = 98

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


def planned_wards() -> pd.DataFrame:
    """``beds = 10 * planned + noise`` of wards, with plans for a horizon after the last day."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(3)
    days = pd.date_range("2024-01-01", periods=PLAN_DAYS + PLAN_ROLES.horizon)
    tables = []
    for number in range(12):
        planned = (rng.random(len(days)) < 0.15).astype(float)
        beds = 50 + 10 * planned + 0.5 * rng.normal(size=len(days))
        beds[PLAN_DAYS:] = np.nan
        known = {"ward": f"w{number:02d}", "day": days, "beds": beds, "planned": planned}
        tables.append(pd.DataFrame(known).assign(kind="ab"[number % 2], size=10.0 * number))
    return pd.concat(tables, ignore_index=True)


def copy_model(source: str, name: str) -> str:
    """Register `name`, whose champion is a copy of version 1 of `source` with its rows."""
    import shutil

    from mlflow import MlflowClient

    from tsclust_model.mlflow_integration.storage import open_storage

    client = MlflowClient()
    version = client.copy_model_version(f"models:/{source}/1", name).version
    client.set_registered_model_alias(name, "champion", version)
    folders = [open_storage(PipelineConfig(), one).history.base_dir for one in (source, name)]
    shutil.copytree(*folders)
    return name


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def typed(lines: str, folder: Path) -> subprocess.CompletedProcess:
    """Type lines into a shell in a folder."""
    shell = ["bash", "-e", "-c", lines]
    return subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=120)


def under_next(screen: str) -> dict[str, str]:
    """The lines under "next", by their first word."""
    _, _, last = screen.partition("next, in the folder you typed this in:\n")
    return {line.split()[0]: line[9:] for line in last.splitlines()}


class Server:
    """``mlflow server`` on a free port of this machine, over the tests' store."""

    def __init__(self, folder: Path, store: str, python: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._folder, self._store, self._python = folder, store, python
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [str(self._python), "-m", "mlflow", "server", "--host", "127.0.0.1"]
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
            while self._answers():  # what it started ends a moment later
                pass

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False
