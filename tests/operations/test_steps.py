"""The operations loop: twelve simulated weeks, and what goes wrong in between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import yaml

from tests.support import Server
from tsclust_model import DataVersioner, ModelMonitor, run_pipeline
from tsclust_model.data.synthetic import make_hospital
from tsclust_model.errors import DataLoadError, DataValidationError, RetrainingError
from tsclust_model.mlflow_integration.runs import ExperimentManager
from tsclust_model.mlflow_integration.storage import ModelStorage
from tsclust_model.operations.maintenance import maintain
from tsclust_model.operations.results import FIGURES
from tsclust_model.operations.settings import load_settings
from tsclust_model.operations.steps import STEPS, _load_config
from tsclust_model.operations.workspace import Workspace
from tsclust_model.training.lock import retrain_lock

TARGET = "length_of_stay_days"
FEATURES = ["age", "heart_rate", "creatinine", "temperature", "ward"]
SETTINGS: dict[str, Any] = {
    "data": {
        "target": TARGET,
        "features": FEATURES,
        "time": "admission_time",
        "id": "patient_id",
    },
    "model": {
        "hdbscan_params": {"min_cluster_size": 15},
        "lgb_timeseries_params": {"num_leaves": 7, "n_estimators": 20, "learning_rate": 0.2},
        "batch_size": 50,
        "expanding_window_size": 400,
        "retrain_cooldown_batches": 30,
    },
    "monitoring": {
        "accuracy_min_threshold": 0.2,
        "thresholds": {"rmse": {"threshold": 4.0, "greater_is_better": False}},
    },
}


@dataclass
class Loop:
    """A folder with a YAML and a file that a new week replaces."""

    folder: Path
    settings: dict[str, Any]

    @property
    def config(self) -> Path:
        path = self.folder / "pipeline.yaml"
        path.write_text(yaml.safe_dump(self.settings))
        return path

    @property
    def name(self) -> str:
        return self.settings["model"]["model_registry_prefix"]

    @property
    def storage(self) -> ModelStorage:
        return Workspace(load_settings(self.config)).storage

    @property
    def versions(self) -> DataVersioner:
        return DataVersioner(self.storage.data_versions)

    @property
    def history(self) -> DataVersioner:
        return self.storage.history

    @property
    def monitor(self) -> ModelMonitor:
        return ModelMonitor(self.storage.monitoring)

    def week(self, frame: pd.DataFrame) -> dict[str, Any]:
        frame.to_csv(self.folder / "week.csv", index=False)
        return self.again()

    def again(self) -> dict[str, Any]:
        return run_pipeline(self.config)


@pytest.fixture
def make_loop(store, tmp_path) -> Callable[..., Loop]:
    def make(name: str, **changes: dict[str, Any]) -> Loop:
        settings = json.loads(json.dumps(SETTINGS))
        settings["data"] |= {
            "path": str(tmp_path / "week.csv"),
            "versions_dir": str(tmp_path / "data"),
        }
        settings["model"] |= {
            "model_registry_prefix": name,
            "experiment_name": f"loop-{name}",
            "history_dir": str(tmp_path / "history"),
        }
        settings["monitoring"]["dir"] = str(tmp_path / "monitoring")
        for section, values in changes.items():
            settings.setdefault(section, {}).update(values)
        return Loop(tmp_path, settings)

    return make


@pytest.fixture(scope="module")
def stream() -> pd.DataFrame:
    return make_hospital(2200, random_state=3)


def week_of(stream: pd.DataFrame, number: int) -> pd.DataFrame:
    """Week 1 is 500 admissions, every later one 150; from week 5 on the hospital is another."""
    start = 0 if number == 1 else 500 + 150 * (number - 2)
    rows = stream[start : 500 + 150 * (number - 1)]
    if number < 5:
        return rows
    return rows.assign(
        age=rows["age"] + 15,
        creatinine=rows["creatinine"] * 1.5,
        **{TARGET: rows[TARGET] + 4},
    )


@pytest.fixture
def server(store, store_folder, python, monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    found = Server(store_folder, store, python)
    found.start()
    # Made here, its artifacts are files of this machine and not fetched through the server.
    ExperimentManager().create_experiment("loop-weeks")
    mlflow.set_tracking_uri(found.url)
    yield found
    found.kill()
    mlflow.set_tracking_uri(store)


def in_words(reason: str) -> str:
    """A reason without its figures, which depend on the libraries' builds."""
    return re.sub(r"-?\d+(\.\d+)?", "#", reason)


NO_MODEL = ["no model yet"]
NOTHING: tuple[str, list[str], str] = ("done", [], "1")
DRIFT = [
    "R² # is under #",
    "noise ratio # is over noise_threshold # and over #, the most of the training rows; "
    "# feature(s) drifted: creatinine (KS #, PSI #, shift # sd), age (KS #, PSI #, shift # sd); "
    "RMSE # is over #, the most of the training rows (mean #)",
]
AGAIN = ["the model has learned from # rows since the drift, and # more are labelled now"]
WEEKS = {
    1: ("done", NO_MODEL, "1"),
    2: NOTHING,
    3: NOTHING,
    4: NOTHING,
    5: ("done", DRIFT, "2"),
    6: ("done", AGAIN, "3"),
    7: ("done", [], "3"),
    8: ("blocked", [], "3"),
    9: ("done", [], "3"),
    10: ("deferred", [], None),
    11: ("done", [], "3"),
    12: ("done", [], "3"),
}


def test_twelve_weeks_with_drift_bad_data_and_an_outage(make_loop, stream, server):
    loop = make_loop("weeks")
    found = {}
    for number in WEEKS:
        frame = week_of(stream, number)
        if number == 8:
            frame = frame.assign(creatinine=frame["creatinine"] * 1000)
        if number == 10:
            server.kill()
        found[number] = loop.week(frame)
        if number == 10:
            server.start()
    decided = {
        number: (s["status"], [in_words(reason) for reason in s["reasons"]], s["model_version"])
        for number, s in found.items()
    }
    assert decided == WEEKS
    assert [number for number, s in found.items() if s["retrained"]] == [1, 5, 6]
    assert [number for number, s in found.items() if s["promoted"]] == [1, 5, 6]
    assert found[8]["message"].endswith(
        "is blocked: column 'creatinine' is 1000 times what it was: was its unit changed?"
    )
    assert found[10]["message"].startswith("MLflow does not answer; data version ")
    assert found[11]["caught_up"] == [found[10]["data_version"]]
    assert not any(found[number]["caught_up"] for number in WEEKS if number != 11)
    # What came in is all kept; what was blocked is nowhere but there.
    assert loop.versions.list_versions() == [s["data_version"] for s in found.values()][::-1]
    history = [loop.history.load(v)[0] for v in reversed(loop.history.list_versions())]
    assert [len(batch) for batch in history] == [500, *[150] * 10]
    assert max(batch["creatinine"].max() for batch in history) < 1000
    statuses = [record["summary"]["status"] for record in loop.monitor.records()]
    assert statuses == ["done"] * 7 + ["blocked"] + ["done"] * 4
    assert {s["validation_status"] for n, s in found.items() if n not in (8, 10)} == {"PASSED"}


def test_the_same_data_twice_does_nothing_and_says_so(make_loop, stream):
    loop = make_loop("twice")
    first = loop.week(week_of(stream, 1))
    again = loop.again()
    assert (first["status"], again["status"]) == ("done", "unchanged")
    assert (again["retrained"], again["reasons"], again["model_version"]) == (False, [], "1")
    assert again["message"].startswith(
        f"nothing to do: data version {first['data_version']} was processed at "
    )
    assert [again[name] for name in FIGURES] == [first[name] for name in FIGURES]
    assert list(again["durations"]) == ["ingest"]
    assert list(first["durations"]) == list(STEPS)
    assert len(loop.monitor.records()) == 1
    # Nor does it under another name, wherever the loop is called from.
    (loop.folder / "week.csv").rename(loop.folder / "copy.csv")
    loop.settings["data"]["path"] = str(loop.folder / "copy.csv")
    assert loop.again()["status"] == "unchanged"
    # A stricter threshold is another question, even of the same data.
    loop.settings["monitoring"]["thresholds"]["rmse"]["threshold"] = 0.001
    judged = loop.again()
    assert (judged["status"], judged["validation_status"]) == ("below_threshold", "FAILED")
    assert "Metric rmse value threshold check failed" in judged["failures"][0]
    still = loop.again()
    assert (still["status"], still["retrained"]) == ("below_threshold", False)
    assert still["message"].startswith("nothing to do: ")
    assert "and is still below_threshold: Metric rmse" in still["message"]
    assert len(loop.monitor.records()) == 2
    tags = mlflow.MlflowClient().get_model_version(loop.name, "1").tags
    assert tags["validation_status"] == "FAILED"
    assert judged["retrained"] is False


def test_an_outage_in_the_middle_of_a_training_leaves_nothing_half(
    make_loop, stream, store, monkeypatch
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    loop = make_loop("half")

    def cut(step: str, result: Any) -> None:
        if step == "check_monitor":
            mlflow.set_tracking_uri("http://127.0.0.1:9")

    week_of(stream, 1).to_csv(loop.folder / "week.csv", index=False)
    put_off = run_pipeline(loop.config, on_step=cut)
    mlflow.set_tracking_uri(store)
    assert (put_off["status"], put_off["retrained"]) == ("deferred", False)
    assert loop.monitor.records() == []
    assert loop.history.list_versions() == []
    assert not mlflow.MlflowClient().search_registered_models(f"name = '{loop.name}'")
    done = loop.again()
    assert (done["status"], done["reasons"], done["model_version"]) == ("done", NO_MODEL, "1")
    assert done["data_version"] == put_off["data_version"]


def test_a_killed_call_is_taken_up_by_the_next_one(make_loop, stream):
    loop = make_loop("killed")

    def kill(step: str, result: Any) -> None:
        if step == "train":
            raise KeyboardInterrupt

    week_of(stream, 1).to_csv(loop.folder / "week.csv", index=False)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline(loop.config, on_step=kill)
    assert loop.monitor.records() == []
    done = loop.again()
    assert (done["status"], done["retrained"], done["model_version"]) == ("done", False, "1")
    assert len(mlflow.MlflowClient().search_model_versions(f"name = '{loop.name}'")) == 1


BAD = {
    "renamed": (
        lambda f: f.rename(columns={"creatinine": "kreatinin"}),
        "column 'creatinine' is gone and 'kreatinin' is new: was it renamed?",
    ),
    "removed": (lambda f: f.drop(columns="age"), "column 'age' is gone"),
    "unit": (
        lambda f: f.assign(temperature=f["temperature"] / 1000),
        "column 'temperature' is 1/1000 of what it was: was its unit changed?",
    ),
    "text": (
        lambda f: f.assign(age="unknown"),
        "column 'age' is not a number in 100% of the rows",
    ),
}


def test_bad_data_is_blocked_or_warned_of_and_the_champion_stays(make_loop, stream):
    loop = make_loop("bad")
    loop.week(week_of(stream, 1))
    before = loop.history.list_versions()
    for change, expected in BAD.values():
        summary = loop.week(change(week_of(stream, 2)))
        assert summary["status"] == "blocked"
        assert (
            summary["message"] == f"data version {summary['data_version']} is blocked: {expected}"
        )
    assert loop.history.list_versions() == before
    added = loop.week(week_of(stream, 2).assign(shoe_size=44.0))
    assert added["status"] == "done"
    assert added["quality"]["problems"] == [
        {
            "check": "added",
            "column": "shoe_size",
            "message": "column 'shoe_size' is new; the model does not use it",
            "severity": "warn",
        }
    ]
    loop.settings["quality"] = {"mode": "warn"}
    warned = loop.week(BAD["unit"][0](week_of(stream, 3)))
    assert (warned["status"], warned["quality"]["decision"]) == ("done", "warn")
    assert (warned["retrained"], warned["model_version"]) == (False, "1")
    assert warned["message"].endswith(f"waits for data of the known schema: {BAD['unit'][1]}")


def test_broken_rows_are_removed_and_counted(make_loop, stream):
    loop = make_loop("broken")
    loop.week(week_of(stream, 1))
    week = week_of(stream, 2)
    broken = pd.concat([week, week.head(3)]).reset_index(drop=True)
    broken.loc[[10, 11], "age"] = float("nan")
    broken.loc[12, "creatinine"] = 1e7
    summary = loop.week(broken)
    assert summary["quality"]["removed"] == {"missing": 2, "range": 1, "duplicates": 3}
    assert (summary["quality"]["n_rows"], summary["quality"]["n_kept"]) == (153, 147)
    assert len(loop.history.load(loop.history.get_latest_version())[0]) == 147


def test_a_floor_that_is_missed_calls_for_one_retrain_and_then_waits_out_the_cooldown(
    make_loop, stream
):
    loop = make_loop("floor", monitoring={"accuracy_min_threshold": 0.999, "thresholds": {}})
    summaries = [loop.week(week_of(stream, number)) for number in (1, 2, 3)]
    assert [summary["retrained"] for summary in summaries] == [True, True, False]
    assert in_words(summaries[1]["reasons"][0]) == "R² # is under #"
    assert summaries[2]["reasons"] == []
    assert "more windows after a retrain (R² 0." in summaries[2]["message"]


@pytest.mark.parametrize("model_type", ["lightgbm", "random_forest"])
def test_no_retrain_of_the_loop_runs_again_on_the_same_labels(make_loop, stream, model_type):
    """A challenger has lost on them, and would again; a person may ask for it all the same."""
    name = "same-labels-" + model_type.replace("_", "-")
    loop = make_loop(name, monitoring={"accuracy_min_threshold": 0.999, "thresholds": {}})
    loop.settings["training"] = {"promote": False}
    loop.settings["model"]["retrain_cooldown_batches"] = 0
    if model_type != "lightgbm":
        loop.settings["training"] |= {"model_type": model_type, "params": {"n_estimators": 5}}
    loop.week(week_of(stream, 1))
    second, third = week_of(stream, 2), week_of(stream, 3)
    lost = loop.week(second)
    assert (lost["retrained"], lost["promoted"]) == (True, False)
    unlabelled = third.assign(**{TARGET: None})
    again = loop.week(pd.concat([second, unlabelled]))
    assert in_words(again["message"]).startswith(
        "a retrain is due (R² # is under #) and waits for labels that no challenger was compared "
        "on yet"
    )
    assert (again["retrained"], again["reasons"], again["model_version"]) == (False, [], "1")
    if model_type == "lightgbm":
        asked = maintain(name, reason="a person", promote=False).retraining
        assert (asked.version, asked.reason) == ("3", "a person")
    assert loop.week(third)["retrained"] is True


def test_a_run_of_the_loop_says_what_it_did(make_loop, stream):
    loop = make_loop("told")
    summary = loop.week(week_of(stream, 1))
    experiment = mlflow.get_experiment_by_name("loop-told")
    runs = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "pipeline"]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["status"] == "done"
    assert parent.data.tags["data_version"] == summary["data_version"]
    assert parent.data.metrics["rmse"] == summary["rmse"]
    assert parent.data.metrics["quality_n_rows"] == 500
    (training,) = [run for run in runs if run.info.run_name == "training"]
    assert training.data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_a_step_that_fails_marks_the_run_and_the_next_version_goes_on(make_loop, stream):
    loop = make_loop("failed")
    with pytest.raises(DataValidationError, match="no target column"):
        loop.week(week_of(stream, 2).drop(columns=TARGET))
    experiment = mlflow.get_experiment_by_name("loop-failed")
    runs = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if run.info.run_name == "pipeline"]
    assert parent.info.status == "FAILED"
    assert parent.data.tags["error.type"] == "DataValidationError"
    assert parent.data.tags["error.step"] == "train"
    done = loop.week(week_of(stream, 1))
    assert (done["status"], done["caught_up"]) == ("done", [])


def test_unlabelled_rows_wait_and_are_not_judged(make_loop, stream):
    loop = make_loop("unlabelled", training={"holdout": 0.0})
    loop.week(week_of(stream, 1))
    summary = loop.week(week_of(stream, 5).drop(columns=TARGET))
    assert (summary["status"], summary["retrained"], summary["reasons"]) == ("no_target", False, [])
    assert "waits for labelled rows that the champion was not trained on" in summary["message"]
    assert f"the data has no column '{TARGET}', so that nothing was evaluated" in summary["message"]
    assert [summary[name] for name in FIGURES] == [None] * len(FIGURES)
    assert summary["validation_status"] is None
    again = loop.again()
    assert again["status"] == "no_target"
    assert again["message"].endswith(
        f"and is still no_target: the data has no column '{TARGET}', so that nothing was evaluated"
    )
    renamed = loop.week(week_of(stream, 6).rename(columns={TARGET: "length_of_stay"}))
    assert renamed["status"] == "no_target"
    hint = f"no column '{TARGET}' ('length_of_stay' is new: was it renamed?), so that nothing was"
    assert hint in renamed["message"]


def test_a_second_run_of_the_loop_says_what_it_waits_for(make_loop, stream):
    loop = make_loop("busy")
    with (
        retrain_lock(loop.storage.monitoring / ".loop.lock"),
        pytest.raises(RetrainingError, match="another run of this loop is active; wait for it"),
    ):
        loop.week(week_of(stream, 1))


def test_a_model_that_stays_under_the_floor_is_no_done(make_loop, stream):
    noise = np.random.default_rng(0).permutation(len(stream))
    random = stream.assign(**{TARGET: stream[TARGET].to_numpy()[noise]})
    loop = make_loop("under-floor", monitoring={"accuracy_min_threshold": 0.5, "thresholds": {}})
    first = loop.week(week_of(random, 1))
    assert first["r2"] < 0.5
    assert (first["status"], first["validation_status"]) == ("below_threshold", "FAILED")
    assert first["failures"] == [f"R² {first['r2']:.4g} is below accuracy_min_threshold 0.5"]
    assert first["failures"][0] in first["message"]
    assert first["rmse_naive"] < first["rmse"]
    assert loop.again()["status"] == "below_threshold"
    tags = mlflow.MlflowClient().get_model_version(loop.name, "1").tags
    assert tags["validation_status.why"] == first["failures"][0]


BASELINES: dict[str, dict[str, Any]] = {
    "random_forest": {"n_estimators": 5, "max_depth": 4},
    "logistic": {},
}


@pytest.mark.parametrize("model_type", BASELINES)
def test_a_promoted_baseline_is_held_against_the_floor_too(make_loop, stream, model_type):
    rows, name, own = stream, "R²", "r2"
    if model_type == "logistic":
        kinds = np.where(stream["age"] > 55, "long", "short")
        rows, name, own = stream.assign(**{TARGET: kinds}), "accuracy", "accuracy"
    loop = make_loop(
        f"floor-{own}",
        monitoring={"accuracy_min_threshold": 0.999, "thresholds": {}},
        training={"model_type": model_type, "params": BASELINES[model_type]},
    )
    loop.week(rows[:500])
    late = rows[500:900]  # what has been learned is worth nothing any more
    if model_type == "logistic":
        late = late.assign(**{TARGET: np.where(late["heart_rate"] > 80, "long", "short")})
    else:
        late = late.assign(**{TARGET: late[TARGET] + 4})
    promoted = loop.week(late)
    assert (promoted["retrained"], promoted["promoted"]) == (True, True)
    assert promoted[own] < 0.999
    assert promoted["log_loss" if own == "accuracy" else "mae"] is not None
    assert promoted["accuracy_naive" if own == "accuracy" else "mae_naive"] is not None
    assert (promoted["status"], promoted["validation_status"]) == ("below_threshold", "FAILED")
    missed = f"{name} {promoted[own]:.4g} is below accuracy_min_threshold 0.999"
    assert promoted["failures"] == [missed]
    tags = mlflow.MlflowClient().get_model_version(loop.name, "2").tags
    assert (tags["validation_status"], tags["validation_status.why"]) == ("FAILED", missed)


def test_a_floor_that_cannot_be_evaluated_is_not_passed(make_loop, stream):
    loop = make_loop(
        "undefined",
        training={"holdout": 0.0, "promote": False},
        monitoring={"accuracy_min_threshold": 0.0, "thresholds": {}},
    )
    loop.week(week_of(stream, 1))
    same = loop.week(week_of(stream, 2).assign(**{TARGET: 5.0}))
    assert (same["status"], same["r2"], same["validation_status"]) == ("done", None, None)
    assert same["failures"] == []
    line = "accuracy_min_threshold 0 could not be evaluated: R² is undefined on these 150 rows"
    assert line in same["message"]
    tags = mlflow.MlflowClient().get_model_version(loop.name, "1").tags
    assert "validation_status" not in tags


def test_outcomes_that_come_later_are_no_vanished_target_and_nothing_is_evaluated(
    make_loop, stream
):
    loop = make_loop("empty", training={"holdout": 0.0})
    loop.week(week_of(stream, 1))
    line = "0 of 150 rows have an outcome: nothing was evaluated"
    for number, outcome in ((2, None), (3, "")):
        summary = loop.week(week_of(stream, number).assign(**{TARGET: outcome}))
        assert (summary["status"], summary["validation_status"]) == ("done", None)
        assert line in summary["message"]
        assert loop.again()["message"].endswith(line)
    loop.settings["monitoring"] |= {"accuracy_min_threshold": None, "thresholds": {}}
    assert line not in loop.again()["message"]  # nobody has asked for a judgement


@pytest.mark.parametrize("model_type", ["lightgbm", "random_forest"])
def test_a_file_that_grows_is_evaluated_on_its_new_rows_alone(make_loop, stream, model_type):
    loop = make_loop("grows-" + model_type.replace("_", "-"), training={"holdout": 0.2})
    if model_type != "lightgbm":
        loop.settings["training"] |= {"model_type": model_type, "params": {"n_estimators": 5}}
    loop.week(stream.head(300))
    grown = loop.week(stream.head(400))
    assert grown["retrained"] is False
    work = Workspace(load_settings(loop.config))
    champion = work.model("1")
    rows = work.out_of_sample(champion, work.register(champion, grown["data_version"]))
    assert len(rows) == 160  # the holdout of the first version, and what is new
    assert champion.info["n_rows"] == 240


def test_unreadable_data_is_one_line(make_loop, stream):
    loop = make_loop("unreadable")
    with pytest.raises(DataLoadError, match="no such file; check the path"):
        loop.again()
    (loop.folder / "week.csv").write_bytes(b"\x00\xff\x00")
    with pytest.raises(DataLoadError, match="cannot be read as csv"):
        loop.again()


def test_the_loop_writes_the_log_that_its_settings_ask_for(make_loop, tmp_path, capsys):
    loop = make_loop("logged", logging={"console": "off", "file": str(tmp_path / "log.jsonl")})
    with pytest.raises(DataLoadError):
        loop.again()
    (record,) = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert (record["level"], record["step"]) == ("ERROR", "pipeline")
    assert record["details"] == {"error": "DataLoadError"}
    assert capsys.readouterr().err == ""


def test_a_relative_path_is_of_the_working_folder_or_else_of_the_yaml(
    make_loop, stream, tmp_path, monkeypatch
):
    loop = make_loop("relative", data={"path": "week*.csv"})
    config = loop.config
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert _load_config(config).data.path == "week*.csv"  # nowhere
    (tmp_path / "week.csv").touch()
    assert _load_config(config).data.path == str(tmp_path / "week*.csv")
    assert _load_config("../pipeline.yaml").data.path == str(tmp_path / "here/../week*.csv")
    (tmp_path / "here" / "week.csv").touch()
    assert _load_config(config).data.path == "week*.csv"


def test_a_missing_yaml_is_a_file_that_is_not_found(tmp_path):
    with pytest.raises(FileNotFoundError):
        run_pipeline(tmp_path / "none.yaml")
