from __future__ import annotations

import dataclasses

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tests.support import HOSPITAL_CONFIG, HOSPITAL_ROLES
from tsclust_model.config import PipelineConfig
from tsclust_model.data.digest import content_digest
from tsclust_model.data.roles import Roles
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.mlflow_integration.registry import load_generation
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.rows.task import split_newest
from tsclust_model.training.train import train_table

pytestmark = pytest.mark.usefixtures("store")

STEPS = [
    "Preprocessing",
    "HDBSCAN",
    "kNN-Fallback",
    "TimeSeries-LGB",
    "Resource-LGB",
    "Performance-Report",
]


def children(run_id: str) -> dict[str, mlflow.entities.Run]:
    experiment = mlflow.get_run(run_id).info.experiment_id
    found = MlflowClient().search_runs(
        [experiment], f"tags.mlflow.parentRunId = '{run_id}'", order_by=["start_time"]
    )
    return {run.info.run_name: run for run in found}


def test_the_run_tree_holds_every_step_with_its_figures(registered):
    steps = children(registered.run_id)
    assert list(steps) == STEPS
    assert {run.info.status for run in steps.values()} == {"FINISHED"}
    assert steps["Preprocessing"].data.metrics == {
        "n_rows": 1200.0,
        "n_holdout": 300.0,
        "n_features": 10.0,
    }
    assert "silhouette_score" in steps["kNN-Fallback"].data.metrics
    assert "fold_rmse_blend" in steps["TimeSeries-LGB"].data.metrics
    assert "nursing_hours_fold_rmse_global" in steps["Resource-LGB"].data.metrics
    assert "holdout_interval_coverage" in steps["Performance-Report"].data.metrics


def test_the_parent_run_says_what_was_trained_on_what(registered, hospital):
    run = mlflow.get_run(registered.run_id)
    known, _ = split_newest(hospital, "admission_time", 0.2)
    assert run.data.tags["phase"] == "training"
    assert run.data.tags["trigger"] == "manual"
    assert run.data.tags["data.sha256"] == content_digest(known)
    assert run.data.params["cfg.hdbscan_params.min_cluster_size"] == "30"
    assert run.data.metrics["fold_rmse_blend"] == registered.report["folds"]["rmse_blend"]
    (found,) = run.inputs.dataset_inputs
    assert found.dataset.digest == content_digest(known)[:36]
    names = {item.path for item in MlflowClient().list_artifacts(registered.run_id)}
    assert {"config.yaml", "default"} <= names


def test_the_first_version_is_champion_and_its_state_is_tagged(registered):
    version = MlflowClient().get_model_version_by_alias("hospital", "champion")
    assert (str(version.version), registered.replaced) == ("1", None)
    assert len(version.tags["state.sha256"]) == 64
    assert version.tags["promoted.reason"] == "training (manual)"


def test_the_holdout_is_the_newest_share_and_is_never_fitted(registered, hospital):
    assert registered.generation.info["n_rows"] == 1200
    _, unseen = split_newest(hospital, "admission_time", 0.2)
    y = unseen["length_of_stay_days"].to_numpy()
    served = registered.generation.predict(unseen)["prediction"].to_numpy()
    held = registered.report["holdout"]
    assert held["n_rows"] == 300
    assert held["rmse"] == pytest.approx(float(np.sqrt(np.mean((y - served) ** 2))), rel=1e-12)


def test_split_newest_orders_by_time_and_cuts_the_end():
    frame = pd.DataFrame({"t": [3, 1, 2, 5, 4], "x": list("cabed")})
    known, unseen = split_newest(frame, "t", 0.4)
    assert (list(known["x"]), list(unseen["x"])) == (list("abc"), list("de"))
    everything, nothing = split_newest(frame, None, 0.0)
    assert (list(everything["x"]), len(nothing)) == (list("cabed"), 0)


def test_training_again_replaces_the_champion_and_says_so(hospital):
    roles = Roles("length_of_stay_days", time="admission_time")
    frame = hospital.drop(columns=["patient_id", *HOSPITAL_ROLES.resources]).head(400)
    config = PipelineConfig(hdbscan_params={"min_cluster_size": 15}, serialization="code")
    first = train_table(frame, roles, config, model_name="again")
    second = train_table(frame, roles, config, model_name="again")
    assert (first.version, first.replaced) == ("1", None)
    assert (second.version, second.replaced) == ("2", "1")
    pd.testing.assert_frame_equal(
        load_generation("models:/again@champion").predict(frame),
        load_generation("models:/again@previous").predict(frame),
        check_exact=True,
    )


def test_the_profile_names_the_model_and_keeps_reports_apart(hospital):
    config = dataclasses.replace(HOSPITAL_CONFIG, hospital_profile_id="st-mary")
    roles = Roles("length_of_stay_days", features=("age", "heart_rate"), id="patient_id")
    training = train_table(hospital.head(300), roles, config)
    assert training.model_uri == "models:/timeseries-clustering-st-mary@champion"
    run = mlflow.get_run(training.run_id)
    assert run.data.tags["hospital_profile_id"] == "st-mary"
    listed = MlflowClient().list_artifacts(training.run_id, "st-mary/reports")
    assert [item.path for item in listed] == ["st-mary/reports/report.json"]


def test_a_failed_training_is_marked_and_registers_nothing(hospital):
    broken = hospital.assign(age=hospital["age"].where(hospital.index > 0, np.inf))
    with pytest.raises(DataValidationError, match="infinite values: age"):
        train_table(broken, HOSPITAL_ROLES, HOSPITAL_CONFIG, model_name="never")
    experiment = mlflow.get_experiment_by_name(HOSPITAL_CONFIG.experiment_name)
    newest = MlflowClient().search_runs([experiment.experiment_id], max_results=2)
    assert {run.info.run_name: run.info.status for run in newest} == {
        "training": "FAILED",
        "Preprocessing": "FAILED",
    }
    assert MlflowClient().search_registered_models("name = 'never'") == []
    assert open_storage(HOSPITAL_CONFIG, "never").history.list_versions() == []


@pytest.mark.parametrize("holdout", [-0.1, 1.0, 2.0])
def test_an_impossible_holdout_is_refused(hospital, holdout):
    with pytest.raises(ConfigurationError, match="holdout is"):
        train_table(hospital, HOSPITAL_ROLES, holdout=holdout)


@pytest.mark.parametrize(
    "settings",
    [{"task": "classification"}, {"lgb_timeseries_params": {"objective": "binary"}}],
    ids=["task", "objective"],
)
def test_series_of_classes_are_refused_in_one_line(hospital, settings):
    roles = Roles("age", time="admission_time", id="ward", horizon=3)
    with pytest.raises(ConfigurationError, match=r"^series are forecast as numbers; leave task"):
        train_table(hospital, roles, PipelineConfig(**settings))
