"""The commands, as a user runs them: in this process, and each once by ``mlflow run``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import Result
from mlflow import MlflowClient
from mlflow.exceptions import ExecutionException

from tests.support import ON_PATH, PROJECT, REAL_DATA
from tsclust_model.commands.score import score
from tsclust_model.commands.train import clipped_line
from tsclust_model.mlflow_integration.pyfunc import log_generation
from tsclust_model.mlflow_integration.registry import register, set_champion
from tsclust_model.series.schema import series_rows

SECRET = 987654.25

TRAIN = {
    "target": "length_of_stay_days",
    "resources": "nursing_hours,medication_cost",
    "time": "admission_time",
    "id": "patient_id",
}


@pytest.fixture
def run(store, tsclust) -> Callable[..., Result]:
    """Run a command on the tests' store: run('train', data=..., target=...)."""
    return tsclust


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(f"hdbscan_params: {{min_cluster_size: 15}}\nhistory_dir: {tmp_path}/history\n")
    return path


@pytest.fixture
def data(tmp_path, hospital) -> Path:
    path = tmp_path / "hospital.csv"
    hospital.head(400).to_csv(path, index=False)
    return path


def failure(result: Result) -> str:
    """The one line a failed command ends in."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    (line,) = [line for line in result.output.splitlines() if line.startswith("Error: ")]
    assert "Traceback" not in result.output
    assert str(SECRET) not in result.output
    return line


def test_mlflow_run_evaluates_scores_and_analyzes(
    store, project, registered, store_folder, data, capfd
):
    uri, near = registered.model_uri, os.path.relpath(data, store_folder)
    project("evaluate", data=near, model_uri=uri, baseline_uri=uri)
    printed = capfd.readouterr().out
    assert "0 rows, 0 not scored" in printed
    assert "400 further rows were trained on and are left out" in printed
    # Relative to the folder that mlflow is started in, which is not the project's.
    project("score", data=near, model_uri=uri, output="cli.parquet")
    assert "400 rows, 0 not scored" in capfd.readouterr().out
    assert len(pd.read_parquet(store_folder / "cli.parquet")) == 400
    assert not (PROJECT / "cli.parquet").exists()
    project("analyze", request=PROJECT / "examples/customer_segmentation.json", output="cli")
    assert "kmeans: 4 clusters" in capfd.readouterr().out
    assert (store_folder / "cli" / "result.json").exists()


def test_a_users_mistake_fails_the_run_of_mlflow_run_in_one_line(store, project, data, capfd):
    with pytest.raises(ExecutionException):
        project("train", "mistakes", data=data, target="lenght_of_stay_days", model_name="mistake")
    printed = capfd.readouterr().err
    assert "(did you mean 'length_of_stay_days'?)" in printed
    assert "Traceback" not in printed
    experiment = mlflow.get_experiment_by_name("mistakes")
    statuses = {run.info.status for run in MlflowClient().search_runs([experiment.experiment_id])}
    assert statuses == {"FAILED"}
    assert MlflowClient().search_registered_models("name = 'mistake'") == []


def test_relative_paths_start_from_the_working_dir(run, data, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    missing = run("train", data=data.name, target="length_of_stay_days")
    assert failure(missing).endswith(
        f"{data.name}: no such file; check the path (looked for {Path.cwd() / data.name})"
    )
    found = run("train", data=data.name, target="nothing", working_dir=tmp_path)
    assert "the data has no target column 'nothing'" in failure(found)
    no_folder = run("train", data=data.name, target="nothing", working_dir="nowhere")
    assert "'nowhere' does not exist" in no_folder.output


def test_without_a_time_column_one_line_says_what_orders_the_rows(run, data):
    options = {"data": data, "target": "length_of_stay_days", "features": "nothing"}
    said = "no time column: the order of the rows counts as time; name one with time"
    assert said in run("train", **options).output.splitlines()
    assert said not in run("train", **options, time="admission_time").output


def test_columns_are_dropped_and_the_task_is_set_without_a_settings_file(
    run, hospital, config, tmp_path
):
    path = tmp_path / "kinds.csv"
    frame = hospital.head(300)[["age", "heart_rate", "creatinine", "emergency"]]
    frame.assign(kind=np.arange(300) % 2).to_csv(path, index=False)
    done = run(
        "train",
        data=path,
        target="kind",
        config=config,
        model_name="dropped",
        drop_columns="emergency, creatinine",
        task="classification",
    )
    assert done.exit_code == 0, done.output
    model = mlflow.pyfunc.load_model("models:/dropped@champion")
    assert model.metadata.get_input_schema().input_names() == ["age", "heart_rate"]
    assert "probability_1" in model.metadata.get_output_schema().input_names()


def test_a_panel_too_small_for_lightgbm_trains_and_says_what_forecasts(run, tmp_path):
    t, rng = np.arange(24), np.random.default_rng(0)
    quarters = pd.date_range("2018-01-01", periods=24, freq="QS")
    parts = [
        pd.DataFrame({"ward": f"Ä {i} № 1", "when": quarters, "beds": 50 + i + wave})
        for i in range(12)
        for wave in [10 * np.sin(np.pi * t / 2 + i) * (i % 2) + rng.normal(0, 2, 24)]
    ]
    pd.concat(parts).to_csv(tmp_path / "quarters.csv", index=False)
    small = "hdbscan_params: {min_cluster_size: 5, min_samples: 1}"
    (tmp_path / "config.yaml").write_text(f"{small}\nhistory_dir: {tmp_path}/history\n")
    done = run(
        "train",
        data=tmp_path / "quarters.csv",
        config=tmp_path / "config.yaml",
        model_name="quarters",
        id="ward",
        time="when",
        target="beds",
        horizon=4,
        holdout=0.2,
    )
    assert done.exit_code == 0, done.output
    assert "LightGBM too few rows: the exponential filters and Theta forecast alone" in done.output
    assert "12, 12, 12 series at the rolling origins" in done.output
    assert "control" not in done.output


WARDS = {
    "target": "beds",
    "resources": "nursing_hours",
    "features": "temperature",
    "time": "month",
    "id": "ward_id",
}


def test_series_are_trained_evaluated_scored_and_retrained_by_the_same_table(
    run, wards, config, tmp_path
):
    data, newest = tmp_path / "wards.csv", tmp_path / "newest.csv"
    is_new = wards["month"] >= "2023-07-01"
    wards[~is_new].to_csv(data, index=False)
    wards[is_new].to_csv(newest, index=False)
    trees = "lgb_timeseries_params: {n_estimators: 20}\nlgb_resource_params: {n_estimators: 20}\n"
    config.write_text(config.read_text() + trees)
    trained = run(
        "train", data=data, config=config, model_name="cli-wards", horizon=6, holdout=0.1, **WARDS
    )
    assert trained.exit_code == 0, trained.output
    assert "clusters in 60 series" in trained.output
    assert "error (MASE) of beds:" in trained.output
    for data_ in ("folds", "holdout"):  # the simple forecasts stand under the data they are of
        assert len(re.findall(rf"^  {data_} +base \S+ +Theta \S+ ", trained.output, re.M)) == 1
    uri = "models:/cli-wards@champion"

    evaluated = run("evaluate", data=data, model_uri=uri, baseline_uri=uri)
    assert evaluated.exit_code == 0, evaluated.output
    assert "60 series, 0 not scored" in evaluated.output
    assert "were trained on" not in evaluated.output  # the holdout is 6 months or less
    assert "seasonal naive" in evaluated.output
    assert "nursing_hours: MASE" in evaluated.output
    alone = failure(run("evaluate", data=newest, model_uri=uri))
    assert alone == (
        "Error: nothing lies before the newest 6 periods, which are evaluated; add the history of "
        "each series before them, 13 periods or more"
    )

    for name in ("scored.csv", "scored.parquet"):
        scored = run("score", data=data, model_uri=uri, output=tmp_path / name)
        assert scored.exit_code == 0, scored.output
        assert "60 series, 0 not scored" in scored.output
    table = pd.read_parquet(tmp_path / "scored.parquet")
    assert list(table.columns[:4]) == ["ward_id", "month", "step", "prediction"]
    assert len(table) == 360
    rows = tmp_path / "rows.parquet"
    series_rows(
        wards[~is_new], "ward_id", "month", "beds", ["nursing_hours"], ["temperature"]
    ).to_parquet(rows)
    again = {"output": tmp_path / "again.parquet", "quantiles": 0.5}
    assert run("score", data=rows, model_uri=uri, **again).exit_code == 0
    found = pd.read_parquet(tmp_path / "again.parquet")
    pd.testing.assert_frame_equal(found.drop(columns="q0.5"), table)
    assert found["q0.5"].tolist() == table["prediction"].tolist()

    retrained = run("retrain", data=newest, model_name="cli-wards", config=config)
    assert retrained.exit_code == 0, retrained.output
    assert "retrained (Manual request): version 2" in retrained.output
    assert "MASE" in retrained.output


def frames(hospital: pd.DataFrame) -> dict[str, pd.DataFrame]:
    good = hospital.head(200)
    return {
        "infinite": good.assign(age=np.where(np.arange(200) == 3, np.inf, SECRET)),
        "missing": good.assign(age=good["age"].where(good.index > 3)),
        "missing target": good.assign(
            length_of_stay_days=good["length_of_stay_days"].where(good.index > 3)
        ),
        "one class": good.assign(length_of_stay_days="long"),
        "few": good.head(12),
        "times": good.assign(discharged=good["admission_time"]),
        "bad time": good.assign(admission_time="31/12/2024"),
    }


MISTAKES = {
    "infinite": ({}, "column(s) with infinite values: age; "),
    "missing": ({}, "missing values (4 of 200 rows): age; fill them, or set missing_values to"),
    "missing target": ({}, "length_of_stay_days is missing or infinite in 4 row(s)"),
    "one class": ({}, "target 'length_of_stay_days' has one class only; give rows of two"),
    "few": ({}, "12 rows are fewer than min_cluster_size=15"),
    "times": ({}, "column 'discharged' holds times, which are no features"),
    "bad time": ({}, "time column 'admission_time' is neither numbers nor ISO 8601 dates"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_table_that_cannot_be_trained_on_is_one_line(run, hospital, config, tmp_path, case):
    path = tmp_path / "bad.parquet"
    frames(hospital)[case].to_parquet(path)
    more, expected = MISTAKES[case]
    result = run("train", data=path, config=config, model_name="bad", **(TRAIN | more))
    assert expected in failure(result)
    assert MlflowClient().search_registered_models("name = 'bad'") == []


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"target": "nothing"}, "the data has no target column 'nothing'"),
        ({"resources": "nursing_hour"}, "(did you mean 'nursing_hours'?)"),
        ({"features": "age,nursing_hours"}, "'nursing_hours' is a resource and also a feature"),
        ({"features": "age,length_of_stay_days"}, "'length_of_stay_days' is the target and also"),
        ({"resources": "length_of_stay_days"}, "is the target and a resource; choose one"),
        ({"data": "no/such.csv"}, "no/such.csv: no such file; check the path"),
        ({"data": "no/*.csv"}, "no/*.csv: no such file"),
        ({"config": "none.yaml"}, "none.yaml: no such file"),
        ({"model_name": "a/b"}, "model_name is 'a/b'"),
        ({"holdout": "1.5"}, "holdout is 1.5"),
        ({"engine": "spark"}, "engine 'spark' is not there yet"),
        ({"horizon": "12", "id": ""}, "a forecast over a horizon needs id"),
        ({"frequency": "MS"}, "give a horizon too"),
    ],
)
def test_a_wrong_option_of_train_is_one_line(run, data, config, options, expected):
    given = {"data": data, "config": config, "model_name": "bad"} | TRAIN | options
    assert expected in failure(run("train", **given))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("empty.csv", b"", "is empty"),
        ("header.csv", b"a,b\n", "has no rows"),
        ("corrupt.parquet", b"PAR1 no parquet", "cannot be read as parquet"),
        ("twice.csv", b"a,a\n1,2\n", "duplicated column names: a"),
        ("broken.json", b'{"a": [987654.25', "cannot be read as json"),
        ("table.xls", b"x", "the format is told by the suffix"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(run, tmp_path, config, name, content, expected):
    (tmp_path / name).write_bytes(content)
    result = run("train", data=tmp_path / name, config=config, target="a")
    assert expected in failure(result)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noise_treshold: 0.2", "unknown configuration key 'noise_treshold' (did you mean"),
        ("hdbscan_params: {min_cluster: 3}", "hdbscan_params has no key 'min_cluster'"),
        ("coverage: 2", "coverage is 2; it must be a number above 0 and below 1"),
        ("a: [1", "is not valid YAML"),
        ("- 1", "it must be a mapping"),
        ("cluster_features: [ward]", "cluster_features: 'ward' is text"),
        ("cluster_features: [wards]", "cluster_features: 'wards' is not a feature"),
    ],
)
def test_a_wrong_configuration_is_one_line(run, data, tmp_path, text, expected):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    assert expected in failure(run("train", data=data, config=path, model_name="bad", **TRAIN))


def test_evaluate_fails_on_a_regression_only_when_it_is_asked_to(
    run, registered, tmp_path, hospital
):
    # A target that runs against the segments: the blend is worse than the global model.
    data = tmp_path / "data.parquet"
    generation = registered.generation
    X = generation.schema.encode(hospital).X
    everyone, _ = generation.target.predict(X, generation.assign(X).labels, weight=0.0)
    hospital.assign(length_of_stay_days=everyone).to_parquet(data)
    options = {"data": data, "model_uri": registered.model_uri}
    lenient = run("evaluate", **options)
    assert lenient.exit_code == 0, lenient.output
    assert "regression: RMSE" in lenient.output
    line = failure(run("evaluate", fail_on_regression="true", **options))
    assert "its own global model's plus 1%" in line
    same = run("evaluate", fail_on_regression="true", baseline_uri=registered.model_uri, **options)
    assert same.exit_code == 0, same.output
    error = re.search(r"^RMSE (\S+)", same.output, re.MULTILINE)[1]
    assert f"baseline on the same rows: {error} (the model 0.0% against it)" in same.output


def test_evaluate_says_that_the_worse_model_was_promoted_for_newer_rows(
    run, registered, hospital, tmp_path
):
    before, name = registered.generation, "promoted-for-newer"
    after = replace(before, target=replace(before.target, weight=0.0))
    for version, model, reason in (("1", before, "first"), ("2", after, "drift")):
        with mlflow.start_run():
            logged = log_generation(model)
        register(logged.model_uri, name, logged.metadata["state_sha256"])
        set_champion(name, version, reason)
    data = tmp_path / "old.parquet"
    forecasts = before.predict(hospital)["prediction"].to_numpy(dtype=float)
    hospital.assign(length_of_stay_days=forecasts).to_parquet(data)
    uris = {"model_uri": f"models:/{name}@champion", "baseline_uri": f"models:/{name}@previous"}
    worse = run("evaluate", data=data, **uris)
    assert worse.exit_code == 0, worse.output
    assert worse.output.splitlines()[-1] == (
        "version 2 took over from version 1 (drift) because it was better on other rows; if rows "
        "like these are what comes, roll back"
    )


def test_evaluate_says_why_a_series_has_no_error(run, registered_wards, wards, tmp_path):
    few = wards[wards["ward_id"].isin(wards["ward_id"].unique()[:5])]
    first = few["ward_id"] == few["ward_id"].iloc[0]
    data = tmp_path / "wards.csv"
    few.assign(beds=few["beds"].mask(first, 7)).to_csv(data, index=False)
    result = run("evaluate", data=data, model_uri=registered_wards.model_uri)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0] == (
        "5 series, 1 not scored (they are constant, which gives their errors no scale)"
    )


def test_evaluate_leaves_out_what_was_trained_on(run, registered, hospital, tmp_path):
    data = tmp_path / "data.csv"
    hospital.sample(frac=1.0, random_state=2).to_csv(data, index=False)
    result = run("evaluate", data=data, model_uri=registered.model_uri)
    assert result.exit_code == 0, result.output
    held = registered.report["holdout"]
    lines = result.stdout.splitlines()
    assert lines[0] == "300 rows, 0 not scored"
    assert lines[1] == "1200 further rows were trained on and are left out"
    assert lines[2].startswith("in-sample RMSE of what was trained on: ")
    assert lines[3].startswith(f"RMSE {held['rmse']:.4g} (global alone ")
    assert lines[3].endswith(f"MAE {held['mae']:.4g}   R2 {held['r2']:.4g}")
    assert lines[4].startswith(f"naive (median) RMSE {held['rmse_naive']:.4g} MAE ")
    experiment = mlflow.get_experiment_by_name("TimeSeries-Clustering-Pipeline")
    (last,) = MlflowClient().search_runs([experiment.experiment_id], max_results=1)
    report = mlflow.artifacts.load_dict(f"{last.info.artifact_uri}/default/reports/evaluation.json")
    assert (report["n_rows"], report["n_trained_on"]) == (300, 1200)
    assert report["in_sample"]["rmse"] < report["rmse"]
    assert last.data.metrics["in_sample_rmse"] == report["in_sample"]["rmse"]
    assert last.data.metrics["rmse"] == report["rmse"]


def test_a_gate_on_rows_that_were_trained_on_fails_in_one_line(run, registered, hospital, tmp_path):
    data, config = tmp_path / "data.parquet", tmp_path / "loop.yaml"
    hospital.head(60).to_parquet(data)
    config.write_text(
        "data: {path: x, target: y}\n"
        "monitoring: {thresholds: {rmse: {threshold: 99, greater_is_better: false}}}\n"
    )
    options = {"data": data, "model_uri": registered.model_uri}
    lenient = run("evaluate", **options)
    assert lenient.exit_code == 0, lenient.output
    assert lenient.stdout.splitlines()[0] == "0 rows, 0 not scored"
    expected = "all 60 rows were trained on, so that nothing is out-of-sample"
    assert expected in lenient.stdout.splitlines()[-1]
    assert expected in failure(run("evaluate", fail_on_regression="true", **options))
    assert expected in failure(run("evaluate", config=config, **options))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda f: f.drop(columns="age"), "the data has no column 'age'"),
        (lambda f: f.assign(age=f"text {SECRET}"), "'age' holds something that is not a number"),
        (lambda f: f.drop(columns="length_of_stay_days"), "no target column"),
        (lambda f: f.assign(age=np.nan), "none of 1500 rows can be scored"),
    ],
)
def test_evaluate_refuses_what_it_cannot_use_in_one_line(
    run, registered, hospital, tmp_path, change, expected
):
    path = tmp_path / "data.csv"
    change(hospital).to_csv(path, index=False)
    result = run("evaluate", data=path, model_uri=registered.model_uri)
    assert expected in failure(result)


def test_score_writes_null_rows_with_a_status_and_all_others(run, registered, hospital, tmp_path):
    frame = hospital.head(30).astype({"age": object})
    frame.loc[4, "age"] = None
    frame.loc[7, "age"] = f"text {SECRET}"
    path, output = tmp_path / "new.csv", tmp_path / "out" / "scored.csv"
    frame.to_csv(path, index=False)
    asked = {"model_uri": registered.model_uri, "quantiles": "0.05, 0.5,0.95"}
    result = run("score", data=path, output=output, **asked)
    assert result.exit_code == 0, result.output
    assert "30 rows, 2 not scored" in result.output
    table = pd.read_csv(output)
    for name, same in (("q0.05", "_lower"), ("q0.5", ""), ("q0.95", "_upper")):
        assert table[name].equals(table[f"prediction{same}"].rename(name))
    assert table.loc[[4, 7], "status"].tolist() == ["missing: age", "not a number: age"]
    assert table["prediction"].isna().tolist() == [i in (4, 7) for i in range(30)]
    assert str(SECRET) not in result.output


def test_classes_go_from_a_csv_through_every_command(run, stays, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        "hdbscan_params: {min_cluster_size: 20}\n"
        "lgb_timeseries_params: {num_leaves: 7, n_estimators: 20}\n"
    )
    known, new = tmp_path / "known.csv", tmp_path / "new.csv"
    stays.head(700).drop(columns="nursing_hours").to_csv(known, index=False)
    stays.tail(300).drop(columns="nursing_hours").to_csv(new, index=False)
    roles = {"target": "stay", "time": "admission_time", "id": "patient_id"}
    name = {"model_name": "csv-stays"}
    trained = run("train", data=known, config=config, holdout=0.2, **name, **roles)
    assert trained.exit_code == 0, trained.output
    assert "error (log-loss) of stay:" in trained.output
    assert "  accuracy folds " in trained.output
    uri = "models:/csv-stays@champion"
    judged = run("evaluate", data=new, model_uri=uri, baseline_uri=uri)
    assert judged.exit_code == 0, judged.output
    assert "log-loss " in judged.output
    assert "accuracy " in judged.output
    assert "AUC " in judged.output
    again = run("retrain", data=new, **name)
    assert "is @champion now; log-loss" in again.output or "@challenger; log-loss" in again.output
    written = tmp_path / "scored.csv"
    scored = run("score", data=new, model_uri=f"{uri}", output=written)
    assert scored.exit_code == 0, scored.output
    found = pd.read_csv(written)
    assert list(found.columns[:3]) == ["patient_id", "admission_time", "prediction"]
    assert (found["prediction"] == stays.tail(300)["stay"].to_numpy()).mean() > 0.6
    for column in ("probability_länger, 日本", 'probability_say "mid" day', "probability_short"):
        assert found[column].between(0, 1).all()


def test_a_baseline_of_another_task_is_one_line(
    run, registered, registered_classes, stays, tmp_path
):
    data = tmp_path / "data.parquet"
    stays.tail(50).to_parquet(data)
    options = {"data": data, "model_uri": registered_classes.model_uri}
    line = failure(run("evaluate", baseline_uri=registered.model_uri, **options))
    assert "the model is judged by log-loss and the baseline by RMSE" in line


def test_score_gives_the_same_whatever_the_batch_size(registered, hospital):
    generation = registered.generation
    rows = hospital.head(50).astype({"age": object})
    rows.loc[rows.index[7:14], "age"] = "unknown"  # a whole part of seven rows
    whole = generation.predict(rows)
    assert (whole["status"] == "ok").sum() == 43
    generation.info["config"]["batch_size"], before = 7, generation.info["config"]["batch_size"]
    parts = score(generation, rows)
    generation.info["config"]["batch_size"] = before
    pd.testing.assert_frame_equal(parts, whole, check_exact=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"model_uri": "models:/nobody@champion"}, "models:/nobody@champion cannot be loaded"),
        ({"output": "scored.xls"}, "scored.xls: the format is told by the suffix"),
        ({"quantiles": "0.9,0.1"}, "quantiles must be up to 99 numbers above 0 and below 1"),
        ({"quantiles": "median"}, "quantiles must be up to 99 numbers above 0 and below 1"),
    ],
)
def test_a_wrong_option_of_score_is_one_line(run, registered, data, options, expected):
    given = {"data": data, "model_uri": registered.model_uri, "output": "scored.csv"} | options
    assert expected in failure(run("score", **given))


def test_progress_bars_are_silent_off_a_terminal(run, data, config):
    result = run("train", data=data, config=config, model_name="silent", **TRAIN)
    assert result.exit_code == 0, result.output
    assert "HDBSCAN" not in result.stderr
    assert "%|" not in result.output


@pytest.mark.skipif(not REAL_DATA.exists(), reason=f"the real data is not at {REAL_DATA}")
def test_real_encounters_train_evaluate_and_score_within_the_bars(run, tmp_path):
    encounters = pd.read_parquet(REAL_DATA / "diabetes130.parquet").sort_values("encounter_id")
    data, newest = tmp_path / "data.parquet", tmp_path / "newest.parquet"
    encounters.tail(11_000 + 7_000).to_parquet(data)
    encounters.tail(7_000).to_parquet(newest)
    constant = ["acetohexamide", "troglitazone", "tolazamide", "tolbutamide"]
    constant += ["glipizide-metformin", "glimepiride-pioglitazone"]  # among the older rows
    result = run(
        "train",
        data=data,
        target="time_in_hospital",
        resources="num_lab_procedures,num_medications",
        time="encounter_id",
        drop_columns=",".join(constant),
        holdout=7 / 18,
        config=PROJECT / "examples" / "diabetes130.yaml",
        model_name="diabetes",
    )
    assert result.exit_code == 0, result.output
    version = MlflowClient().get_model_version_by_alias("diabetes", "champion")
    metrics = mlflow.get_run(version.run_id).data.metrics
    assert metrics["holdout_n_rows"] == 7000
    assert metrics["holdout_rmse"] <= 2.33
    assert metrics["holdout_rmse"] <= 1.01 * metrics["holdout_rmse_global"]

    uri = "models:/diabetes@champion"
    evaluated = run("evaluate", data=newest, model_uri=uri, fail_on_regression="true")
    assert evaluated.exit_code == 0, evaluated.output
    assert f"RMSE {metrics['holdout_rmse']:.4g}" in evaluated.output
    scored = run("score", data=newest, model_uri=uri, output=tmp_path / "scored.parquet")
    assert scored.exit_code == 0, scored.output
    assert "7000 rows, 0 not scored" in scored.output


def test_a_wide_table_is_trained_and_loaded_without_foreign_noise(store_folder, tmp_path):
    shutil.copy(store_folder / "mlflow.db", tmp_path)
    rng = np.random.default_rng(4)
    names = [f"column_{i}" for i in range(120)]
    frame = pd.DataFrame(rng.normal(size=(120, 120)), columns=names).assign(y=rng.normal(size=120))
    frame["day"] = pd.date_range("2024-01-01", periods=120)
    frame.to_csv(tmp_path / "wide.csv", index=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PYTHONPATH": ON_PATH}

    def told(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return [line for line in done.stderr.splitlines() if line and "it/s]" not in line]

    train = ["-m", "entrypoints.train", "--data", "wide.csv", "--target", "y", "--time", "day"]
    config = tmp_path / "config.yaml"
    config.write_text("lgb_timeseries_params: {n_estimators: 5}\ncluster_features: [column_0]\n")
    lines = told(*train, "--config", str(config), "--model_name", "wide")
    assert all(line.startswith("Warning: ") for line in lines)
    assert len(lines) == len({*lines}) <= 1
    load = "import mlflow; mlflow.pyfunc.load_model('models:/wide@champion')"
    assert told("-c", load) == []


def test_the_last_screen_counts_the_series_that_carry_the_means_away():
    scores = {"n_series_clipped": 1, "clipped_mase": {"global": 0.91234, "blend": 0.9}}
    assert clipped_line(scores) == (
        "  clipped  1 series has an error above 10 on the folds; with 10 at most: "
        "global 0.9123   blend 0.9"
    )


def test_a_model_with_plans_is_scored_by_what_train_says(run, tmp_path):
    days, rng = pd.date_range("2025-01-01", periods=77, freq="D"), np.random.default_rng(0)
    wards = pd.DataFrame(
        {
            "ward": np.repeat([f"w{i:02}" for i in range(10)], len(days)),
            "day": np.tile(days, 10),
            "planned": rng.poisson(2, 10 * len(days)),
        }
    )
    wards["beds"] = 30 + 5 * wards["planned"] + rng.normal(0, 1, len(wards))
    known = wards["day"] < days[-7]
    wards[known].to_csv(tmp_path / "known.csv", index=False)
    wards.assign(beds=wards["beds"].where(known)).to_csv(tmp_path / "plans.csv", index=False)
    columns = {"id": "ward", "time": "day", "target": "beds", "future": "planned", "horizon": 7}
    with pytest.warns(UserWarning, match="no cluster was found"):
        trained = run("train", data=tmp_path / "known.csv", model_name="cli-plans", **columns)
    assert (
        "  score  give 'score' a table that goes on for 7 periods with planned and without beds"
        in trained.output
    )
    scored = run(
        "score",
        data=tmp_path / "plans.csv",
        model_uri="models:/cli-plans@champion",
        output=tmp_path / "out.csv",
    )
    assert "0.0% noise, served by the nearest segment (cluster_source 'knn')" in scored.output
    assert (
        "100.0% without a segment, served by the global model (cluster_source 'none')"
        in scored.output
    )
