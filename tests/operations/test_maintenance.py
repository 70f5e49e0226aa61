"""What a scheduler calls, from Python and as ``tsclust retrain``."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result
from mlflow import MlflowClient

from tests.support import ON_PATH, copy_model
from tsclust_model.config import PipelineConfig
from tsclust_model.data.roles import Roles
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataValidationError, MLflowIntegrationError, RetrainingError
from tsclust_model.mlflow_integration.registry import alias_version
from tsclust_model.mlflow_integration.storage import open_storage
from tsclust_model.operations.maintenance import maintain, observe
from tsclust_model.training.lock import retrain_lock
from tsclust_model.training.train import train_table

TARGET = "length_of_stay_days"
SECRET = 987654.25
QUICK = {"num_leaves": 7, "n_estimators": 20, "learning_rate": 0.2}
CONFIG = PipelineConfig(
    hdbscan_params={"min_cluster_size": 15}, lgb_timeseries_params=QUICK, batch_size=100
)
ROLES = Roles(TARGET, time="admission_time", id="patient_id")
MOVED = "feature(s) drifted"
_numbers = count()


def rows(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as it lies in a file: times are texts."""
    plain = frame.drop(columns=["nursing_hours", "medication_cost", "emergency"])
    return plain.assign(admission_time=plain["admission_time"].astype(str)).reset_index(drop=True)


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    return make_hospital(1500, random_state=3)


@pytest.fixture(scope="module")
def usual(stream) -> pd.DataFrame:
    return rows(stream[500:800])


@pytest.fixture(scope="module")
def moved() -> pd.DataFrame:
    """Admissions of a hospital that is no longer the one of the training."""
    return rows(make_hospital(2400, random_state=4, drift=5.0).tail(600))


@pytest.fixture(scope="module")
def fitted_once() -> list[str]:
    return []


@pytest.fixture
def name(store, stream, fitted_once) -> str:
    """A model with a champion and its history, a copy of one that was trained once."""
    if not fitted_once:
        train_table(rows(stream[:500]), ROLES, CONFIG, model_name="operated")
        fitted_once.append("operated")
    return copy_model("operated", f"operated-{next(_numbers)}")


def n_versions(name: str) -> int:
    return len(MlflowClient().search_model_versions(f"name = '{name}'"))


# -- from Python -------------------------------------------------------------------------------


def test_usual_data_calls_for_nothing(name, usual):
    done = maintain(name, usual, if_due=True)
    (batch_id, _) = open_storage(CONFIG, name).history.list_versions()
    assert done.retraining is None
    assert done.message.startswith(f"nothing is due: batch {batch_id} of 300 rows has noise 0.")
    assert done.message.endswith("(threshold 0.30) and no drift")
    assert n_versions(name) == 1


def test_few_rows_wait_for_others_before_drift_is_tested(name, usual):
    few = maintain(name, usual[:40], if_due=True)
    assert few.message.endswith("; drift is tested once 50 rows are collected (40 until now)")
    assert maintain(name, usual[40:60], if_due=True).message.endswith(" and no drift")


def test_what_the_model_was_trained_on_is_no_drift(name, stream, registered_wards, wards):
    again = maintain(name, rows(stream[:500]), if_due=True)
    assert again.message.startswith("nothing is due: batch ")
    assert again.message.endswith(" is data that the model was trained on")
    first = wards[wards["month"] < "2023-07-01"]  # its newest periods were the holdout
    series = observe(registered_wards.model_name, first).message
    assert series.endswith(" is data that the model was trained on")


def test_without_data_nothing_is_due(name):
    done = maintain(name, if_due=True)
    assert done.message == "nothing is due: no new rows were given"


def test_the_same_data_counts_once(name, usual, moved):
    maintain(name, usual, if_due=True)
    history = open_storage(CONFIG, name).history
    before = history.list_versions()
    again = maintain(name, usual.sample(frac=1, random_state=0), if_due=True)
    assert again.message == f"nothing is due: batch {before[0]} was seen before"
    assert history.list_versions() == before
    # One drifted window is no alarm, however often it is shown.
    for _ in range(4):
        assert maintain(name, moved[:100], if_due=True).retraining is None


def test_an_export_that_grows_shows_its_new_rows_only(name, stream, moved):
    grown = pd.concat([rows(stream[:500]), moved[:100]])
    done = maintain(name, grown, if_due=True)
    assert done.retraining is None
    assert "of 100 new rows, of 600, has noise" in done.message
    assert done.message.endswith("; 1 of the last 3 windows drifted, and 2 make an alarm")
    # Of the next export the second hundred alone votes, and not the first once more.
    again = maintain(name, pd.concat([grown, moved[100:140]]), if_due=True)
    assert again.retraining is None
    assert "of 40 new rows, of 640, has noise" in again.message
    assert maintain(name, pd.concat([grown, moved[100:240]]), if_due=True).retraining is not None


def test_drift_that_is_seen_over_two_calls_retrains_and_promotes(name, moved):
    assert maintain(name, moved[:100], if_due=True).retraining is None
    done = maintain(name, moved[100:200], if_due=True)
    assert MOVED in done.retraining.reason
    assert done.retraining.promoted
    assert done.message.startswith("retrained (")
    assert MOVED in done.message
    assert f"version 2 is @champion now; {done.retraining.comparison.reason}" in done.message
    assert (alias_version(name, "champion"), alias_version(name, "previous")) == ("2", "1")
    assert maintain(name, moved[:200], if_due=True).message.startswith("nothing is due: batch ")


def test_a_retrain_that_is_not_if_due_needs_no_drift(name, usual):
    done = maintain(name, usual, reason="new ward", promote=False)
    assert done.message.startswith("retrained (new ward): version 2 stays @challenger; RMSE ")
    assert (alias_version(name, "champion"), alias_version(name, "challenger")) == ("1", "2")


def test_drift_that_could_not_be_answered_is_answered_by_the_next_call(name, moved):
    lock = retrain_lock(open_storage(CONFIG, name).retrain_lock)
    with lock, pytest.raises(RetrainingError, match="another retrain of this model is running"):
        maintain(name, moved[:300], if_due=True)
    assert n_versions(name) == 1
    done = maintain(name, if_due=True)
    assert MOVED in done.retraining.reason


def test_after_a_retrain_a_cooldown_holds_the_next(name, moved):
    config = replace(CONFIG, promotion_margin=1.0, retrain_cooldown_batches=10)
    assert maintain(name, moved[:300], config=config, if_due=True).retraining is not None
    again = maintain(name, moved[300:600], config=config, if_due=True)
    assert again.message.startswith("nothing is due: ")
    assert n_versions(name) == 2


def test_drift_of_a_champion_that_was_replaced_says_nothing_of_the_next(name, moved):
    maintain(name, moved[:100], if_due=True)
    copy = MlflowClient().copy_model_version(f"models:/{name}/1", name)
    MlflowClient().set_registered_model_alias(name, "champion", copy.version)
    assert maintain(name, moved[100:200], if_due=True).retraining is None


def test_drift_without_outcomes_waits_for_them_and_then_retrains(name, moved):
    unlabelled = moved.drop(columns=TARGET)
    done = maintain(name, unlabelled[:300], if_due=True)
    assert done.retraining is None
    assert MOVED in done.message
    assert "no labelled rows since the last training" in done.message
    later = maintain(name, moved[300:], if_due=True)
    assert later.retraining.comparison.n_rows > 0


def test_no_retrain_runs_again_on_the_same_labels_unless_a_person_asks(name, moved):
    config = replace(CONFIG, promotion_margin=1.0, retrain_cooldown_batches=0)
    lost = maintain(name, moved[:300], config=config, if_due=True)
    assert (lost.retraining.promoted, n_versions(name)) == (False, 2)
    again = maintain(name, moved[300:].drop(columns=TARGET), config=config, if_due=True)
    assert again.retraining is None
    assert again.message.startswith("a retrain is due (")
    assert again.message.endswith(") and waits for labels that no challenger was compared on yet")
    assert MOVED in again.message
    assert n_versions(name) == 2
    asked = maintain(name, config=config, reason="a person")
    assert (asked.retraining.reason, n_versions(name)) == ("a person", 3)


def test_a_model_of_few_rows_since_a_drift_learns_again_when_they_have_doubled(name, moved):
    config = replace(CONFIG, retrain_cooldown_batches=30)
    first = maintain(name, moved[:200], config=config, if_due=True).retraining
    assert first.promoted
    learned = first.generation.info["drift"]
    assert (learned["n_after"], learned["n_rows"]) == (200, 700)
    # A margin that nobody meets: what is learned again must still be better.
    strict = replace(config, promotion_margin=1.0)
    few = maintain(name, moved[200:399], config=strict, if_due=True)
    assert few.message.startswith("nothing is due: ")
    lost = maintain(name, moved[399:400], config=strict, if_due=True)
    assert lost.message.startswith(
        "retrained (the model has learned from 200 rows since the drift, and 200 more are labelled "
        "now): version 3 stays @challenger; "
    )
    # That was tried with 200 rows; the next try is with half as many again, by every process.
    assert maintain(name, moved[400:499], config=config, if_due=True).retraining is None
    done = maintain(name, moved[499:500], config=config, if_due=True).retraining
    assert done.reason == (
        "the model has learned from 200 rows since the drift, and 300 more are labelled now"
    )
    assert done.comparison.n_rows > 0
    assert done.generation.info["n_rows"] == (1000 if done.promoted else 850)


def test_the_training_table_from_a_file_is_no_new_batch(name, stream):
    """In memory times are times and booleans are booleans; in a file both are texts."""
    before = open_storage(CONFIG, name).history.list_versions()
    done = maintain(name, rows(stream[:500]), if_due=True)
    assert done.message.startswith("nothing is due")
    assert open_storage(CONFIG, name).history.list_versions() == before


def test_rows_that_an_overlapping_export_brings_again_are_not_compared_on(name, stream):
    done = maintain(name, rows(stream[250:700]), promote=False)
    assert 0 < done.retraining.comparison.n_rows <= 200
    trained = sum(
        stop - start for start, stop in done.retraining.generation.info["trained_on"].values()
    )
    assert trained <= 560  # four fifths of 700 different rows


def test_a_model_without_a_champion_is_refused(store):
    with pytest.raises(MLflowIntegrationError, match="'nobody' has no @champion; train it first"):
        maintain("nobody")


def test_a_table_without_a_feature_is_refused_and_not_kept(name, usual):
    before = open_storage(CONFIG, name).history.list_versions()
    with pytest.raises(DataValidationError, match="'age'"):
        maintain(name, usual.drop(columns="age"), if_due=True)
    assert open_storage(CONFIG, name).history.list_versions() == before


# -- the command -------------------------------------------------------------------------------


@pytest.fixture
def run(name, tsclust) -> Callable[..., Result]:
    """run(data=...) -> what ``tsclust retrain`` did, in this process."""
    return lambda **options: tsclust("retrain", **({"model_name": name} | options))


@pytest.fixture
def files(tmp_path, usual, moved) -> dict[str, Path]:
    tables = {"usual": usual, "moved": moved[:300], "more": moved[300:600]}
    for key, frame in tables.items():
        frame.to_csv(tmp_path / f"{key}.csv", index=False)
    return {key: tmp_path / f"{key}.csv" for key in tables}


def line(result: Result) -> str:
    """The one line of a command that did what it should."""
    assert result.exit_code == 0, result.output
    (found,) = result.stdout.splitlines()
    return found


def retrained(stdout: str) -> str:
    """What the first line of a retrain says; the second has what stands beside the RMSE."""
    found, figures = stdout.splitlines()
    start = "version 2 on the newest rows, before it learned from them: MAE "
    assert figures.startswith(start)
    assert all(name in figures for name in ("R2 ", "naive (median) RMSE ", "last value RMSE "))
    return found


def failure(result: Result) -> str:
    """The one line of a command that failed."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    (found,) = result.stderr.splitlines()
    assert found.startswith("Error: ")
    assert str(SECRET) not in found
    return found


def test_the_command_says_in_one_line_that_nothing_is_due(run, files, name):
    first = line(run(data=files["usual"], if_due="true"))
    assert first.startswith("nothing is due: batch ")
    assert first.endswith(" and no drift")
    again = line(run(data=files["usual"], if_due="true"))
    assert again.startswith("nothing is due: batch ")
    assert again.endswith(" was seen before")
    assert line(run(if_due="true")) == "nothing is due: no new rows were given"
    assert len(open_storage(CONFIG, name).history.list_versions()) == 2


def test_the_command_retrains_on_drifted_data(run, files, name):
    done = run(data=files["moved"], if_due="true")
    assert done.exit_code == 0, done.output
    found = retrained(done.stdout)
    assert found.startswith("retrained (")
    assert "version 2 is @champion now; RMSE " in found
    assert alias_version(name, "champion") == "2"
    assert line(run(data=files["moved"], if_due="true")).startswith("nothing is due: batch ")


def test_the_command_leaves_the_champion_with_promote_false(run, files, name):
    done = run(data=files["moved"], promote="false", reason="a look")
    assert done.exit_code == 0, done.output
    found = retrained(done.stdout)
    assert found.startswith("retrained (a look): version 2 stays @challenger; RMSE ")
    assert alias_version(name, "champion") == "1"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model_name": "nobody"}, "'nobody' has no @champion; train it first"),
        ({"model_name": "a/b"}, "model_name is 'a/b'"),
        ({"data": "no/such.csv"}, "no/such.csv: no such file; check the path"),
        ({"config": "none.yaml"}, "none.yaml: no such file"),
    ],
)
def test_a_mistake_is_one_line(run, options, expected):
    assert expected in failure(run(**options))


def test_an_unknown_model_with_data_is_one_line_too(run, files):
    found = failure(run(model_name="nobody", data=files["usual"]))
    assert "nobody" in found
    assert "champion" in found


def test_data_that_cannot_be_read_by_the_model_is_one_line_without_values(run, usual, tmp_path):
    usual.assign(age=f"text {SECRET}").to_csv(tmp_path / "bad.csv", index=False)
    assert "'age' holds something that is not a number" in failure(run(data=tmp_path / "bad.csv"))


def test_a_retrain_that_runs_elsewhere_is_one_line(run, files, name):
    with retrain_lock(open_storage(CONFIG, name).retrain_lock):
        found = failure(run(data=files["usual"]))
    assert found == "Error: another retrain of this model is running; wait for it"


def test_what_was_seen_goes_on_in_the_next_process(name, moved, python, tmp_path):
    assert maintain(name, moved[:100], if_due=True).message.startswith("nothing is due: ")
    state = open_storage(CONFIG, name).folder / ".monitor.json"
    assert json.loads(state.read_text())["version"] == "1"
    data = tmp_path / "next.csv"
    moved[100:200].to_csv(data, index=False)
    options = {"data": data, "model_name": name, "if_due": "true"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    done = subprocess.run(
        [python, "-m", "entrypoints.retrain", *words],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": ON_PATH},
    )
    assert done.returncode == 0, done.stderr
    assert retrained(done.stdout).startswith("retrained (")
    assert alias_version(name, "previous") == "1"
