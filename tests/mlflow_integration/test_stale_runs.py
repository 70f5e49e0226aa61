"""Runs that a killed process has left behind, and those of the living, which stay as they are."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from tests.support import ON_PATH
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.mlflow_integration.stale_runs import close_stale_runs, process_tags

pytestmark = pytest.mark.usefixtures("store")

KILLED_WHILE_IT_LOGS_ITS_MODEL = """
import os, signal, mlflow
from tsclust_model.config import PipelineConfig
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.training.train import train_table
from tsclust_model.rows.table import Roles

print(os.getpid(), flush=True)

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

mlflow.MlflowClient.log_model_artifacts = die
quick = {"num_leaves": 7, "n_estimators": 5}
config = PipelineConfig(
    experiment_name="stale-training", hdbscan_params={"min_cluster_size": 30},
    lgb_timeseries_params=quick, lgb_resource_params=quick, history_dir="stale-history",
)
roles = Roles("length_of_stay_days", ("age", "heart_rate"), (), "admission_time")
train_table(make_hospital(200), roles, config, model_name="stale")
"""

WAITS_IN_ITS_RUN = """
import sys
from tsclust_model.mlflow_integration.runs import ExperimentManager
with ExperimentManager("stale-waiting").run("training") as run_id:
    print(run_id, flush=True)
    sys.stdin.readline()
"""


def start(code: str, python: Path | str = sys.executable) -> subprocess.Popen:
    return subprocess.Popen(
        [python, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": ON_PATH},
    )


def statuses(experiment_id: str) -> dict[str, str]:
    """Status of each run by its name."""
    return {
        run.info.run_name: run.info.status for run in MlflowClient().search_runs([experiment_id])
    }


def test_what_a_killed_training_left_is_closed_by_the_next_one(python):
    with start(KILLED_WHILE_IT_LOGS_ITS_MODEL, python) as killed:
        assert killed.stdout is not None
        pid = int(killed.stdout.readline())
        assert killed.wait() == -signal.SIGKILL
    experiments = ExperimentManager("stale-training")
    experiment_id = experiments.create_experiment("stale-training")
    left = statuses(experiment_id)
    assert (left["training"], left["HDBSCAN"]) == ("RUNNING", "FINISHED")
    (model,) = mlflow.search_logged_models([experiment_id], output_format="list")
    assert str(model.status) == "PENDING"

    with experiments.run("next"):
        pass
    assert set(statuses(experiment_id).values()) == {"FINISHED", "KILLED"}
    assert statuses(experiment_id)["training"] == "KILLED"
    (run,) = MlflowClient().search_runs([experiment_id], "attributes.status = 'KILLED'")
    host = process_tags()["process.host"]
    assert run.data.tags["closed.reason"] == f"process {pid} on {host} is gone"
    assert str(mlflow.get_logged_model(model.model_id).status) == "FAILED"


def test_a_run_is_left_alone_while_its_process_lives_and_closed_when_it_does_not():
    experiments = ExperimentManager("stale-waiting")
    experiment_id = experiments.create_experiment("stale-waiting")
    own = experiments.make_run("batch-processing", {"phase": "batch-processing"})
    with start(WAITS_IN_ITS_RUN) as process:
        assert process.stdout is not None
        run_id = process.stdout.readline().strip()
        assert close_stale_runs(experiment_id) == []
        process.kill()
        # It is dead, and nobody has asked for its exit code yet.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert close_stale_runs(experiment_id) == [run_id]
    assert statuses(experiment_id) == {"training": "KILLED", "batch-processing": "RUNNING"}
    MlflowClient().set_terminated(own)


ELSEWHERE = {"process.host": "ward-7", "process.space": "another boot", "process.pid": "1"}


@pytest.mark.parametrize(
    ("changes", "hours", "reason"),
    [
        ({}, 1000, ""),
        ({"process.start": "1"}, 0, "process {pid} on {host} is gone"),
        (ELSEWHERE, 47, ""),
        (ELSEWHERE, 49, "process 1 on ward-7 cannot be seen from here, and began 49 hours ago"),
        (ELSEWHERE | {"phase": "batch-processing"}, 1000, ""),
        ({"process.space": ""}, 47, ""),
        (None, 1000, ""),
    ],
    ids=["alive", "number taken over", "away", "away long", "endless", "no proc", "not ours"],
)
def test_which_runs_are_closed(changes: dict[str, str] | None, hours: float, reason: str):
    client = MlflowClient()
    experiment_id = ExperimentManager().create_experiment("stale-cases")
    tags: dict[str, Any] = {} if changes is None else process_tags() | changes
    began = round((time.time() - 3600 * hours) * 1000)
    run_id = client.create_run(experiment_id, began, tags).info.run_id
    assert close_stale_runs(experiment_id) == ([run_id] if reason else [])
    run = client.get_run(run_id)
    expected = reason.format(pid=os.getpid(), host=process_tags()["process.host"])
    assert run.data.tags.get("closed.reason", "") == expected
    assert run.info.status == ("KILLED" if reason else "RUNNING")
    client.set_terminated(run_id)
