"""``tsclust pipeline``: its screen, exit code and logs, and the thresholds of ``evaluate``."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import yaml

from tests.support import PROJECT
from tsclust_model.errors import ConfigurationError, DataValidationError
from tsclust_model.mlflow_integration.runs import ExperimentManager, active_run_id, error_handler
from tsclust_model.mlflow_integration.thresholds import failed_thresholds
from tsclust_model.operations.logs import LOGGER, logging_to
from tsclust_model.operations.settings import LoggingSettings, load_settings

EXAMPLE = PROJECT / "examples" / "music_therapy"
make_sessions = runpy.run_path(str(EXAMPLE / "make_sessions.py"))["make_sessions"]


@pytest.fixture
def music(store, tmp_path, monkeypatch) -> Callable[..., Path]:
    """The example's YAML over a file of this test: music(week, shift) writes the next week."""
    monkeypatch.chdir(tmp_path)

    def write(week: int = 1, shift: float = 0.0, **changes: dict[str, object]) -> Path:
        make_sessions(week, shift).to_csv("sessions.csv", index=False)
        content = yaml.safe_load((EXAMPLE / "pipeline.yaml").read_text())
        content["model"]["model_registry_prefix"] = tmp_path.name
        for section, values in changes.items():
            content.setdefault(section, {}).update(values)
        Path("pipeline.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "pipeline.yaml"

    return write


# -- music therapy: another domain, classes ----------------------------------------------------


def test_music_therapy_goes_through_the_loop_from_first_model_to_drift(tsclust, music):
    first = tsclust("pipeline", config=music(1))
    assert first.exit_code == 0, first.output
    lines = first.stdout.splitlines()
    assert lines[0] == "done: trained (no model yet): version 1"
    assert lines[1].endswith(": 400 of 400 rows kept")
    assert "retrained  yes" in lines
    assert any(line.startswith("figures    accuracy 1") for line in lines)
    assert "thresholds PASSED" in lines
    again = tsclust("pipeline", config=music(1), json="true")
    summary = json.loads(again.stdout)
    assert (summary["status"], summary["reasons"]) == ("unchanged", [])
    assert summary["accuracy"] > 0.95
    assert summary["rmse"] is None
    moved = json.loads(tsclust("pipeline", config=music(2, 25.0), json="true").stdout)
    assert (moved["status"], moved["retrained"], moved["promoted"]) == ("done", True, True)
    assert moved["reasons"][0].startswith("accuracy 0.")
    assert any("tempo" in reason for reason in moved["reasons"])
    served = mlflow.pyfunc.load_model(moved["model_uri"])
    answer = served.predict(make_sessions(3, 25.0).astype({"minutes": float}))
    assert {"prediction", "probability_relaxation", "cluster"} <= set(answer)


def test_a_baseline_is_replaced_by_segments_when_the_yaml_says_so(tsclust, music):
    music(1, training={"model_type": "logistic"})
    first = json.loads(tsclust("pipeline", config="pipeline.yaml", json="true").stdout)
    assert first["accuracy"] > 0.9
    music(2, training={"model_type": "logistic"})
    usual = json.loads(tsclust("pipeline", config="pipeline.yaml", json="true").stdout)
    assert (usual["reasons"], usual["model_version"]) == ([], "1")
    music(3)
    other = json.loads(tsclust("pipeline", config="pipeline.yaml", json="true").stdout)
    assert other["reasons"] == ["training.model_type is lightgbm, the champion's is logistic"]
    assert other["retrained"] is True
    assert "log-loss" in other["message"]


# -- exit codes and one line -------------------------------------------------------------------


def test_what_a_person_must_look_at_exits_with_1_and_the_yaml_gates_evaluate(tsclust, music):
    config = music(1)
    summary = json.loads(tsclust("pipeline", config=config, json="true").stdout)
    make_sessions(2).to_csv("new.csv", index=False)
    options = {"data": "new.csv", "model_uri": summary["model_uri"], "config": config}
    passed = tsclust("evaluate", fail_on_regression="true", **options)
    assert passed.exit_code == 0, passed.output
    assert "thresholds: PASSED" in passed.stdout
    music(1, monitoring={"thresholds": {"log_loss": {"threshold": 0, "greater_is_better": False}}})
    failed = tsclust("evaluate", fail_on_regression="true", **options)
    assert failed.exit_code == 1
    assert "Metric log_loss value threshold check failed" in failed.stderr
    assert tsclust("evaluate", **options).exit_code == 1
    name = load_settings(config).model_name
    tags = mlflow.MlflowClient().get_model_version(name, "1").tags
    assert tags["validation_status"] == "FAILED"
    music(1)
    Path("none.yaml").write_text("data: {path: x, target: y}")
    assert (
        "none.yaml has no monitoring.thresholds"
        in tsclust("evaluate", **(options | {"config": "none.yaml"})).stderr
    )

    make_sessions(2).rename(columns={"tempo": "bpm"}).to_csv("sessions.csv", index=False)
    blocked = tsclust("pipeline", config="pipeline.yaml")
    assert blocked.exit_code == 1
    hint = "column 'tempo' is gone and 'bpm' is new: was it renamed?"
    assert blocked.stdout.startswith("blocked: data version ")
    assert hint in blocked.stdout.splitlines()[0]
    assert "is blocked: " not in blocked.stderr  # the summary says it
    music(2, monitoring={"thresholds": {"accuracy": {"threshold": 1.1, "greater_is_better": True}}})
    missed = tsclust("pipeline", config="pipeline.yaml")
    assert missed.exit_code == 1
    assert "thresholds FAILED" in missed.stdout


@pytest.mark.parametrize(("closing_line", "n_lines"), [(True, 1), (False, 0)])
def test_only_who_prints_the_summary_does_without_the_closing_line(
    tmp_path, capsys, store, closing_line, n_lines
):
    settings = LoggingSettings(file=str(tmp_path / "log.jsonl"))
    with logging_to(settings, closing_line) as log:
        log.error("all is lost", extra={"step": "pipeline", "closing": True})
    assert capsys.readouterr().err.count("all is lost") == n_lines
    (record,) = records(tmp_path / "log.jsonl")
    assert record["message"] == "all is lost"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "none.yaml: no such file; check the path"),
        ("a: &a [*a]", "refers to itself"),
        ("data: {path: no.csv, target: y}", "data: no.csv: no such file; check the path"),
    ],
)
def test_a_mistake_is_one_line(tsclust, store, tmp_path, monkeypatch, content, expected):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("none.yaml").write_text(content)
    found = tsclust("pipeline", config="none.yaml")
    assert found.exit_code == 1
    assert found.output.count(expected) == 1
    assert found.stderr.splitlines()[-1].startswith("Error: ")
    assert expected in found.stderr.splitlines()[-1]


# -- thresholds --------------------------------------------------------------------------------

LOWER = {"greater_is_better": False}


@pytest.mark.parametrize(
    ("thresholds", "baseline", "failures"),
    [
        ({"rmse": LOWER | {"threshold": 2.0}}, None, 0),
        ({"rmse": LOWER | {"threshold": 1.0}}, None, 1),
        ({"accuracy": {"threshold": 0.5, "greater_is_better": True}}, None, 1),
        ({"rmse": LOWER | {"min_relative_change": 0.1}}, {"rmse": 2.0}, 0),
        ({"rmse": LOWER | {"min_relative_change": 0.1}}, {"rmse": 1.51}, 1),
        ({"rmse": LOWER | {"min_absolute_change": 0.1}}, {"rmse": 1.7}, 0),
    ],
)
def test_thresholds_are_those_of_mlflow(thresholds, baseline, failures):
    found = failed_thresholds(thresholds, {"rmse": 1.5, "accuracy": None}, baseline)
    assert len(found) == failures
    assert all("\n" not in line for line in found)


def test_a_threshold_that_mlflow_refuses_is_named():
    with pytest.raises(ConfigurationError, match=r"of rmse: .*no threshold was specified"):
        failed_thresholds({"rmse": LOWER}, {"rmse": 1.0})


# -- error_handler -----------------------------------------------------------------------------


def test_an_error_marks_the_run_and_goes_on(store):
    with (
        pytest.raises(DataValidationError, match="row 7 is broken"),
        mlflow.start_run(run_name="by hand") as run,
        error_handler("preparation"),
    ):
        raise DataValidationError("row 7 is broken")
    found = mlflow.get_run(run.info.run_id)
    assert found.info.status == "FAILED"
    assert found.data.tags["error.type"] == "DataValidationError"
    assert found.data.tags["error.step"] == "preparation"
    assert "row 7" not in json.dumps(dict(found.data.tags))


def test_a_run_stays_marked_although_the_error_is_caught_inside(store):
    with ExperimentManager("marked").run("by hand") as run_id:
        with pytest.raises(ZeroDivisionError), error_handler("division"):
            _ = 1 / 0
        assert mlflow.get_run(run_id).info.status == "FAILED"
        assert mlflow.get_run(run_id).data.tags["error.type"] == "ZeroDivisionError"


def test_without_a_run_or_a_server_the_error_itself_goes_on(store, monkeypatch):
    with pytest.raises(KeyError, match="gone"), error_handler("alone"):
        raise KeyError("gone")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with ExperimentManager("unmarked").run("by hand"):
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        with pytest.raises(KeyError, match="gone"), error_handler("down"):
            raise KeyError("gone")
        mlflow.set_tracking_uri(store)


def test_nothing_happens_where_nothing_is_raised(store):
    with mlflow.start_run() as run, error_handler("fine"):
        pass
    assert mlflow.get_run(run.info.run_id).info.status == "FINISHED"


# -- logs --------------------------------------------------------------------------------------

NASTY = 'a\nb\r\n"c"\x00\x1b[31m\u2028{"level": "ERROR"}'


def records(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_record_is_one_line_whatever_it_holds(tmp_path, capsys, store):
    path = tmp_path / "deep" / "log.jsonl"
    with logging_to(LoggingSettings(file=str(path))) as log, mlflow.start_run() as run:
        log.info("%s", NASTY, extra={"step": "x", "details": {NASTY: NASTY}})
    (record,) = records(path)
    assert (record["message"], record["details"]) == (NASTY, {NASTY: NASTY})
    assert (record["level"], record["step"], record["run_id"]) == ("INFO", "x", run.info.run_id)
    (line,) = [text for text in capsys.readouterr().err.splitlines() if "x: a" in text]
    assert f" {run.info.run_id[:8]} x: a\\nb\\r\\n" in line
    assert "\x1b" not in line


def test_the_file_is_rotated_and_the_logger_is_left_as_it_was(tmp_path):
    path = tmp_path / "log.jsonl"
    before = list(LOGGER.handlers)
    settings = LoggingSettings(file=str(path), console="off", max_bytes=1000, backups=2)
    with logging_to(settings) as log:
        for number in range(50):
            log.info("record %d", number)
    assert LOGGER.handlers == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["log.jsonl", "log.jsonl.1", "log.jsonl.2"]
    kept = [r for p in sorted(tmp_path.iterdir(), reverse=True) for r in records(p)]
    assert kept[-1]["message"] == "record 49"
    assert all(r["run_id"] == "-" for r in kept)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "a").write_text("no folder")
    settings = LoggingSettings(file=str(tmp_path / "a" / "log.jsonl"))
    with pytest.raises(ConfigurationError, match="cannot be written"), logging_to(settings):
        pass


def test_every_step_is_logged_with_the_run_and_no_row(tsclust, music):
    secret = 987654.25
    config = music(1, logging={"file": "logs/loop.jsonl", "console": "json"})
    frame = pd.read_csv("sessions.csv")
    frame.loc[5, "loudness"] = secret
    frame.to_csv("sessions.csv", index=False)
    done = tsclust("pipeline", config=config)
    assert done.exit_code == 0, done.output
    found = records(Path("logs/loop.jsonl"))
    steps = ["ingest", "check_quality", "check_monitor", "train", "evaluate", "record", "pipeline"]
    assert [record["step"] for record in found] == steps
    run_ids = {record["run_id"] for record in found[1:6]}
    assert len(run_ids) == 1
    assert mlflow.get_run(run_ids.pop()).info.run_name == "pipeline"
    assert active_run_id() is None
    assert str(secret) not in Path("logs/loop.jsonl").read_text()
    assert len([line for line in done.stderr.splitlines() if line.startswith("{")]) == 7


def test_mlflow_run_makes_the_run_of_the_loop(music, project, tmp_path, monkeypatch, capfd):
    config = music(1)
    monkeypatch.setenv("SESSIONS", str(tmp_path / "sessions.csv"))
    for name, folder in (
        ("DATA__VERSIONS_DIR", "data"),
        ("MONITORING__DIR", "monitoring"),
        ("MODEL__HISTORY_DIR", "history"),
    ):
        monkeypatch.setenv(f"TSCLUST_{name}", str(tmp_path / folder))
    project("pipeline", "music-run", config=config)
    assert "done: trained (no model yet): version 1" in capfd.readouterr().out
    experiment = mlflow.get_experiment_by_name("music-run")
    runs = mlflow.MlflowClient().search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["phase"] == "pipeline"
    assert parent.data.params["config"] == str(config)
