from __future__ import annotations

import json
import math
import subprocess

import lightgbm as lgb
import mlflow
import numpy as np
import pandas as pd
import pytest

from tests.support import PROJECT
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import DataValidationError, MLflowIntegrationError
from tsclust_model.mlflow_integration.artifacts import ArtifactManager
from tsclust_model.mlflow_integration.metric_writer import metric_name
from tsclust_model.mlflow_integration.runs import ExperimentManager, log_config, log_input

pytestmark = pytest.mark.usefixtures("store")


def run_data(run_id: str):
    return mlflow.get_run(run_id).data


def test_an_experiment_is_made_once_and_found_again():
    experiments = ExperimentManager()
    first = experiments.create_experiment("tracking-once")
    assert experiments.create_experiment("tracking-once") == first
    assert mlflow.get_experiment(first).name == "tracking-once"


def test_a_run_by_hand_keeps_params_metrics_and_artifacts(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    experiments = ExperimentManager("tracking-by-hand")
    run_id = experiments.start_run("by hand")
    experiments.log_params({"size": 5, "nothing": None})
    experiments.log_metrics({"rmse": 1.5, "undefined": None, "nan": math.nan}, step=3)
    assert experiments.log_artifact(tmp_path / "notes.txt", "texts/renamed.txt") == (
        "texts/renamed.txt"
    )
    child = experiments.start_run("child", nested=True)
    assert mlflow.get_run(child).info.experiment_id == mlflow.get_run(run_id).info.experiment_id
    experiments.end_run()
    experiments.end_run()
    run = mlflow.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"size": "5", "nothing": "null"}
    assert run.data.metrics == {"rmse": 1.5}
    assert mlflow.MlflowClient().get_metric_history(run_id, "rmse")[0].step == 3
    assert run_data(child).tags["mlflow.parentRunId"] == run_id
    stored = mlflow.artifacts.load_text(f"runs:/{run_id}/texts/renamed.txt")
    assert stored == "hello"
    name = mlflow.get_experiment(run.info.experiment_id).name
    assert name == "tracking-by-hand"


def test_a_run_left_by_an_error_is_failed_and_so_is_its_step():
    experiments = ExperimentManager("tracking-failed")
    ids = {}

    def fail() -> None:
        with (
            experiments.run("parent", {"phase": "training", "absent": None}) as ids["parent"],
            experiments.stage("HDBSCAN"),
        ):
            ids["step"] = mlflow.active_run().info.run_id
            raise DataValidationError("no good")

    with pytest.raises(DataValidationError, match="no good"):
        fail()
    assert {mlflow.get_run(run_id).info.status for run_id in ids.values()} == {"FAILED"}
    tags = run_data(ids["parent"]).tags
    assert tags["phase"] == "training"
    assert "absent" not in tags


def test_the_run_that_mlflow_run_made_is_resumed_with_its_experiment(monkeypatch):
    experiment = mlflow.create_experiment("made-by-mlflow-run")
    made = mlflow.MlflowClient().create_run(experiment).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", made)
    with ExperimentManager("another-experiment").run("training") as run_id:
        pass
    assert run_id == made
    assert mlflow.get_run(made).info.experiment_id == experiment


def test_a_store_that_refuses_is_one_line_of_ours(monkeypatch):
    with pytest.raises(MLflowIntegrationError, match="the experiment cannot be made"):
        ExperimentManager("bad\nname\n" * 200).start_run("x")
    experiments = ExperimentManager()
    with experiments.run("params"):
        experiments.log_params({"key": "one"})
        with pytest.raises(MLflowIntegrationError, match="the params cannot be logged"):
            experiments.log_params({"key": "two"})


def test_the_configuration_is_logged_flat_and_as_yaml():
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 25}, hospital_profile_id="north")
    experiments = ExperimentManager(config.experiment_name)
    with experiments.run("config") as run_id:
        log_config(experiments, config)
    params = run_data(run_id).params
    assert params["cfg.hdbscan_params.min_cluster_size"] == "25"
    assert params["cfg.hospital_profile_id"] == "north"
    assert params["cfg.max_reference_rows"] == "null"
    assert params["cfg.missing_markers"] == "['']"
    text = mlflow.artifacts.load_text(f"runs:/{run_id}/config.yaml")
    assert "min_cluster_size: 25" in text


def test_an_input_carries_our_digest_whatever_the_columns(hospital):
    frame = hospital.head(20).assign(visits=np.arange(20))
    with ExperimentManager().run("input") as run_id:
        log_input(frame, "data/hospital.csv", "ab" * 32, "training", "length_of_stay_days")
    (found,) = mlflow.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.name == "hospital.csv"
    assert found.dataset.digest == ("ab" * 32)[:36]
    assert run_data(run_id).tags["data.sha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Cost (€)", "cost ___"), ("nursing_hours_rmse", "nursing_hours_rmse"), ("a:b", "a_b")],
)
def test_metric_names_are_what_mlflow_takes(name, expected):
    assert metric_name(name) == expected
    with ExperimentManager().run("names"):
        mlflow.log_metric(metric_name(name), 1.0)


def test_a_generation_is_stored_and_comes_back_the_same(generation, hospital):
    with ExperimentManager().run("artifacts") as run_id:
        path = ArtifactManager("north").save_model(generation, "first", "pipeline")
    assert path == "north/models/pipeline/first"
    loaded = ArtifactManager("north", run_id).load_model("first", "pipeline")
    pd.testing.assert_frame_equal(
        loaded.predict(hospital.head(9)), generation.predict(hospital.head(9)), check_exact=True
    )


def test_a_booster_is_stored_and_comes_back_the_same():
    X = np.linspace(0, 1, 60).reshape(-1, 1)
    booster = lgb.train({"verbose": -1}, lgb.Dataset(X, X[:, 0]), 3)
    with ExperimentManager().run("artifacts"):
        manager = ArtifactManager()
        assert manager.save_model(booster, "b", "timeseries") == "default/models/timeseries/b"
        loaded = manager.load_model("b", "timeseries")
    assert loaded.predict(X).tolist() == booster.predict(X).tolist()


def test_a_booster_that_was_changed_is_not_parsed():
    X = np.linspace(0, 1, 60).reshape(-1, 1)
    booster = lgb.train({"verbose": -1}, lgb.Dataset(X, X[:, 0]), 3)
    with ExperimentManager().run("artifacts"):
        manager = ArtifactManager()
        path = manager.save_model(booster, "changed", "timeseries")
        home = mlflow.active_run().info.artifact_uri.removeprefix("file://")
        with open(f"{home}/{path}/booster.txt", "a") as stream:
            stream.write("x")
        with pytest.raises(MLflowIntegrationError, match=r"part 'booster\.txt'"):
            manager.load_model("changed", "timeseries")


def test_reports_are_kept_apart_by_hospital_profile():
    with ExperimentManager().run("reports"):
        north, south = ArtifactManager("north"), ArtifactManager("south")
        assert north.save_report({"rmse": 1.0}, "report.json") == "north/reports/report.json"
        south.save_report("plain text", "report.json")
        with open(north.get_artifact_path("north/reports/report.json")) as stream:
            assert json.load(stream) == {"rmse": 1.0}
        with open(south.get_artifact_path("south/reports/report.json")) as stream:
            assert stream.read() == "plain text"


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (np.arange(3), "the report is of type ndarray; give a string, or a mapping"),
        ([1, 2], "the report is of type list; give a string"),
        ({"rmse": np.arange(3)}, "the report is not JSON .*ndarray is not JSON serializable"),
    ],
    ids=["array", "list", "array inside"],
)
def test_a_report_that_is_no_text_is_one_line(report, message):
    with ExperimentManager().run("reports"), pytest.raises(MLflowIntegrationError, match=message):
        ArtifactManager().save_report(report, "report.json")


@pytest.mark.parametrize("name", ["../up", "a/../../b", "/etc/passwd", ""])
def test_a_path_that_leaves_the_run_is_refused(name, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with ExperimentManager().run("paths"):
        with pytest.raises(MLflowIntegrationError, match="is no path under a run; give one"):
            ArtifactManager().get_artifact_path(name)
        with pytest.raises(MLflowIntegrationError, match="is no path under a run; give one"):
            ExperimentManager().log_artifact(tmp_path / "notes.txt", name)


@pytest.mark.parametrize("name", ["../up", "a..b", ".hidden", "a/b", "", "x" * 65, "line\nbreak"])
def test_names_that_could_leave_their_folder_are_refused(name):
    with ExperimentManager().run("names"), pytest.raises(MLflowIntegrationError, match="no name"):
        ArtifactManager().save_report("text", name)


def test_without_a_run_there_is_nowhere_to_store():
    with pytest.raises(MLflowIntegrationError, match="no run is active"):
        ArtifactManager().save_report("text", "report.txt")


def test_an_absent_artifact_is_named():
    with (
        ExperimentManager().run("absent"),
        pytest.raises(MLflowIntegrationError, match=r"no artifact 'default/models/a/b'"),
    ):
        ArtifactManager().load_model("b", "a")


def test_what_is_no_plain_data_is_not_stored():
    with (
        ExperimentManager().run("pickle"),
        pytest.raises(MLflowIntegrationError, match="a dict cannot be stored"),
    ):
        ArtifactManager().save_model({}, "b", "a")


# -- a store that nobody has used yet ----------------------------------------------------------

FIRST_USE = """
import sys
import mlflow
from tsclust_model.mlflow_integration.registry import storage_folder
from tsclust_model.mlflow_integration.runs import ExperimentManager
mlflow.set_tracking_uri(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
print(ExperimentManager().create_experiment("x") if sys.argv[2] == "run" else storage_folder("m"))
"""


def test_two_processes_at_once_make_one_store(tmp_path, python):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    processes = [
        subprocess.Popen(
            [python, "-c", FIRST_USE, uri, what],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=PROJECT,
        )
        for what in ("run", "registry")
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert [answer for answer, _ in answers] == ["1\n", "None\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
