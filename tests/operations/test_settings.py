"""The YAML of the operations loop: sections, the environment, and every way to get it wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support import PROJECT
from tsclust_model.config import PipelineConfig
from tsclust_model.errors import ConfigurationError
from tsclust_model.operations.settings import MlflowSettings, load_settings, mlflow_variables

SECRET = "hunter2-very-secret"
PLAIN = "data: {path: rows.csv, target: stay}\n"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("TSCLUST_", "MLFLOW_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path):
    def call(content: str | bytes) -> Path:
        path = tmp_path / "pipeline.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return call


def test_defaults_are_the_documented_ones(write):
    settings = load_settings(write(PLAIN))
    assert settings.pipeline == PipelineConfig()
    assert settings.model_name == "timeseries-clustering"
    assert (settings.quality.mode, settings.training.model_type) == ("block", "lightgbm")
    assert settings.data.features == ()


def test_series_are_forecast_by_lightgbm_alone(write):
    series = "data: {path: rows.csv, target: stay, id: ward, time: day, horizon: 7, frequency: D}\n"
    data = load_settings(write(series)).data
    assert (data.horizon, data.frequency) == (7, "D")
    with pytest.raises(
        ConfigurationError,
        match=r"training\.model_type logistic forecasts no series; take lightgbm",
    ):
        load_settings(write(series + "training: {model_type: logistic}\n"))


def test_the_section_model_holds_the_fields_of_the_pipeline(write):
    settings = load_settings(write(PLAIN + "model: {preset: medical, noise_threshold: 0.4}\n"))
    assert settings.pipeline == PipelineConfig.preset("medical", noise_threshold=0.4)


def test_the_example_names_every_key_with_its_default():
    settings = load_settings(PROJECT / "examples" / "pipeline.yaml")
    for name, section in type(settings).model_fields.items():
        if name in ("model", "mlflow"):
            continue
        written = getattr(settings, name)
        known = set(section.annotation.model_fields)
        assert written.model_fields_set >= known - {"model_name"}, name
    assert settings.quality == type(settings.quality)()
    assert settings.data.path == "demo/hospital.csv"


def test_the_environment_wins_over_the_file(write, monkeypatch):
    monkeypatch.setenv("TSCLUST_DATA__TARGET", "cost")
    monkeypatch.setenv("TSCLUST_DATA__FEATURES", '["age", "ward"]')
    monkeypatch.setenv("TSCLUST_TRAINING__HOLDOUT", "0.5")
    monkeypatch.setenv("TSCLUST_MODEL__HDBSCAN_PARAMS__MIN_CLUSTER_SIZE", "33")
    settings = load_settings(write(PLAIN + "model: {hdbscan_params: {min_samples: 4}}\n"))
    assert (settings.data.path, settings.data.target) == ("rows.csv", "cost")
    assert settings.data.features == ("age", "ward")
    assert settings.training.holdout == 0.5
    assert settings.pipeline.hdbscan_params["min_cluster_size"] == 33
    assert settings.pipeline.hdbscan_params["min_samples"] == 4


def test_a_value_may_name_variables(write, monkeypatch):
    monkeypatch.setenv("FOLDER", "/in")
    monkeypatch.setenv("NOISE", "0.4")
    settings = load_settings(
        write(
            "data: {path: '${FOLDER}/rows.csv', target: '${TARGET:-stay}'}\n"
            "model: {noise_threshold: '${NOISE}'}\n"
            "training: {holdout: '${HOLDOUT:-0.3}'}\n"
        )
    )
    assert (settings.data.path, settings.data.target) == ("/in/rows.csv", "stay")
    assert (settings.pipeline.noise_threshold, settings.training.holdout) == (0.4, 0.3)


def test_a_variable_cannot_bring_yaml_of_its_own(write, monkeypatch):
    monkeypatch.setenv("TARGET", "stay\nquality: {mode: off}")
    settings = load_settings(write("data: {path: rows.csv, target: '${TARGET}'}\n"))
    assert settings.quality.mode == "block"


def test_secrets_are_never_shown(write, monkeypatch):
    monkeypatch.setenv("TSCLUST_MLFLOW__TOKEN", SECRET)
    settings = load_settings(write(PLAIN + f"mlflow: {{password: {SECRET}, username: me}}\n"))
    for shown in (repr(settings), str(settings.mlflow), settings.model_dump_json()):
        assert SECRET not in shown
    with mlflow_variables(settings.mlflow):
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRET
        assert os.environ["MLFLOW_TRACKING_TOKEN"] == SECRET
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


def test_a_wrong_secret_is_not_shown_either(write):
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(PLAIN + f"mlflow: {{password: [{SECRET}]}}\n"))
    assert SECRET not in str(caught.value)
    assert "mlflow.password is wrong" in str(caught.value)


def test_variables_that_are_set_stay(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://theirs")
    with mlflow_variables(MlflowSettings(tracking_uri="http://ours", max_retries=2)):
        assert os.environ["MLFLOW_TRACKING_URI"] == "http://theirs"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "2"
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi")  # noqa: B905
)
WRONG = {
    "tabs": ("data:\n\tpath: x\n", r"is not valid YAML at line 2; indent by spaces, not by tabs"),
    "itself": ("data: &a\n  path: *a\n", r"refers to itself at line \d; remove that alias"),
    "bomb": (BOMB, "holds more than 10000 values once its aliases are written out"),
    "deep": ("[" * 5000, "nested too deeply"),
    "twice": (PLAIN + "data: {}\n", "has the key 'data' twice, again at line 2; keep one"),
    "binary": (b"\x00\x01\xff\xfe", "is not valid YAML"),
    "huge": (b"#" * 1_100_000, "has 1100000 bytes; settings have 1 MB at most"),
    "empty": ("", "is empty; it must be a mapping of sections"),
    "list": ("- a\n- b\n", "is a list; it must be a mapping of sections"),
    "tag": ("data: !!python/object:os.system {}\n", "is not valid YAML"),
    "section": (PLAIN + "trainng: {}\n", r"unknown key 'trainng' \(did you mean 'training'\?\)"),
    "key": (
        PLAIN + "training: {modle_type: x}\n",
        r"unknown key 'training.modle_type' \(did you mean 'model_type'\?\)",
    ),
    "threshold": (
        PLAIN + "monitoring: {thresholds: {rmse: {treshold: 1, greater_is_better: true}}}\n",
        r"unknown key 'monitoring.thresholds.rmse.treshold' \(did you mean 'threshold'\?\)",
    ),
    "model": (
        PLAIN + "model: {noise_treshold: 0.2}\n",
        r"section model: unknown configuration key 'noise_treshold' \(did you mean 'noise_thre",
    ),
    "missing": ("data: {path: x}\n", "data.target is missing; it is required"),
    "none": ("quality: {mode: warn}\n", "data is missing; it is required"),
    "type": (PLAIN + "training: {holdout: lots}\n", "training.holdout is wrong: .*valid number"),
    "range": (PLAIN + "training: {holdout: 1.5}\n", "training.holdout is wrong: .*less than 1"),
    "choice": (PLAIN + "quality: {mode: blocked}\n", "quality.mode is wrong: .*'off', 'warn'"),
    "check": (
        PLAIN + "quality: {checks: {rename: warn}}\n",
        r"quality.checks is wrong: there is no check 'rename' \(did you mean 'renamed'\?\)",
    ),
    "variable": (
        "data: {path: '${NOWHERE}', target: y}\n",
        "data.path needs the environment variable NOWHERE; set it",
    ),
    "mapping": (PLAIN + "training: 3\n", "training is wrong: .*dictionary"),
    "file": (PLAIN + "monitoring: {metrics_file: ../up}\n", "monitoring.metrics_file is wrong"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_one_line(write, case):
    content, expected = WRONG[case]
    with pytest.raises(ConfigurationError) as caught:
        load_settings(write(content))
    assert re.search(expected, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_variable_that_cannot_be_read_is_one_line(write, monkeypatch):
    monkeypatch.setenv("TSCLUST_DATA__FEATURES", "age,ward")
    with pytest.raises(ConfigurationError, match=r"TSCLUST_DATA\.\.\. cannot be read"):
        load_settings(write(PLAIN))


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(ConfigurationError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)


def test_the_same_reader_reads_the_configuration_of_a_training(write):
    with pytest.raises(ConfigurationError, match="refers to itself"):
        PipelineConfig.from_yaml(write("hdbscan_params: &a {x: *a}\n"))
