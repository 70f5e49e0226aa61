"""The loop as a pipeline of Kubeflow: compiled, loaded and run by kfp itself, without a cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import pytest
import yaml
from click.testing import Result
from kfp import components, local

from tests.support import PROJECT
from tsclust_model.commands.compile_kfp import TASKS, loop_pipeline
from tsclust_model.operations.steps import STEPS, run_pipeline

IMAGE = "tsclust-model:1"


@pytest.fixture
def settings(tmp_path, hospital) -> dict:
    """Settings of a loop whose folders are all below tmp_path."""
    hospital.head(600).to_csv(tmp_path / "hospital.csv", index=False)
    return {
        "data": {
            "path": str(tmp_path / "hospital.csv"),
            "target": "length_of_stay_days",
            "time": "admission_time",
            "id": "patient_id",
            "versions_dir": str(tmp_path / "versions"),
        },
        "model": {
            "model_registry_prefix": "kubeflow",
            "hdbscan_params": {"min_cluster_size": 20},
            "lgb_timeseries_params": {"num_leaves": 7, "n_estimators": 10},
            "history_dir": str(tmp_path / "history"),
        },
        "training": {"holdout": 0.2},
        "monitoring": {"dir": str(tmp_path / "monitoring")},
        "logging": {"console": "off"},
    }


@pytest.fixture
def compile_kfp(tmp_path, tsclust):
    """Run the command on settings: compile_kfp({...}, '--image', 'x')."""

    def call(settings: dict, *options: str) -> Result:
        path = tmp_path / "pipeline.yaml"
        path.write_text(yaml.safe_dump(settings))
        words = [str(path), "-o", str(tmp_path / "loop.yaml"), "--mount", str(tmp_path)]
        return tsclust("compile-kfp", *words, *options)

    return call


def compiled(folder: Path) -> tuple[dict, dict]:
    """The pipeline and its platform, as Kubeflow reads them."""
    pipeline, platform = yaml.safe_load_all((folder / "loop.yaml").read_text())
    return pipeline, platform


def failure(result: Result) -> str:
    assert result.exit_code == 1
    (line,) = result.output.splitlines()
    return line


def test_the_loop_compiles_into_what_kfp_loads(compile_kfp, settings, tmp_path):
    done = compile_kfp(settings, "--image", IMAGE, "--claim", "shared")
    assert done.exit_code == 0, done.output
    assert "ingest, check, train, evaluate" in done.output
    loaded = components.load_component_from_file(str(tmp_path / "loop.yaml"))
    assert json.loads(loaded.component_spec.inputs["config"].default) == settings

    pipeline, platform = compiled(tmp_path)
    executors = pipeline["deploymentSpec"]["executors"]
    assert [found["container"]["image"] for found in executors.values()] == [IMAGE] * 4
    assert "pip install" not in str(executors)
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(mounted) == set(executors)
    for found in mounted.values():
        (claim,) = found["pvcMount"]
        assert (claim["constant"], claim["mountPath"]) == ("shared", str(tmp_path))


def test_the_example_compiles_as_it_is_shipped(tsclust, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    example = PROJECT / "examples" / "pipeline.yaml"
    done = tsclust("compile-kfp", str(example), "-o", "deep/loop.yaml")
    assert done.exit_code == 0, done.output
    written, note = done.output.splitlines()
    assert written.startswith("deep/loop.yaml: ingest, check, train, evaluate")
    assert note == (
        "data.path is 'demo/hospital.csv', which a step looks for in the image's working folder; "
        "give one below /var/lib/tsclust, or a URL"
    )
    loaded = components.load_component_from_file("deep/loop.yaml")
    kept = json.loads(loaded.component_spec.inputs["config"].default)
    assert kept["data"]["path"] == "${DATA:-demo/hospital.csv}"
    monkeypatch.setenv("DATA", "s3://ward/x.csv")
    assert "data.path is" not in tsclust("compile-kfp", str(example), "-o", "loop.yaml").output


def test_every_step_of_the_loop_has_its_place_and_none_is_cached(compile_kfp, settings, tmp_path):
    assert ["ingest", *(step for steps in TASKS.values() for step in steps)] == list(STEPS)
    compile_kfp(settings)
    pipeline, _ = compiled(tmp_path)
    tasks = pipeline["root"]["dag"]["tasks"]
    assert tasks["for-loop-1"]["iteratorPolicy"] == {"parallelismLimit": 1}
    inner = pipeline["components"]["comp-for-loop-1"]["dag"]["tasks"]
    found = {task["taskInfo"]["name"]: task for task in inner.values()}
    assert {
        name: task["inputs"]["parameters"]["steps"]["runtimeValue"]["constant"]
        for name, task in found.items()
    } == TASKS
    for task in [tasks["ingest"], *inner.values()]:
        assert task["cachingOptions"] == {}


# kfp would rather see the image run in Docker.
@pytest.mark.filterwarnings("ignore:You may be attemping to run a task:RuntimeWarning")
# the names of steps that a cluster shows mean nothing to the local runner
@pytest.mark.filterwarnings("ignore:.*have no effect in the current local runner")
def test_kfp_runs_the_pipeline_and_the_loop_goes_on_from_there(
    settings, tmp_path, store, python, monkeypatch
):
    monkeypatch.setattr(sys, "executable", str(python))
    settings["mlflow"] = {"tracking_uri": store}
    text = json.dumps(settings)
    runner = local.SubprocessRunner(use_venv=False)
    local.init(runner=runner, pipeline_root=str(tmp_path / "kfp"))
    loop_pipeline(text, IMAGE, "shared", str(tmp_path))()

    champion = mlflow.MlflowClient().get_model_version_by_alias("kubeflow", "champion")
    path = tmp_path / "pipeline.yaml"
    path.write_text(text)
    summary = run_pipeline(path)
    assert (summary["status"], summary["model_version"]) == ("unchanged", str(champion.version))
    assert summary["r2"] > 0.5


@pytest.mark.parametrize("name", ["password", "token"])
def test_a_secret_is_never_compiled_into_the_pipeline(compile_kfp, settings, tmp_path, name):
    settings["mlflow"] = {name: "hunter2-4711"}
    line = failure(compile_kfp(settings))
    assert line.startswith(f"Error: mlflow.{name} is written out and would be compiled")
    assert f"write ${{MLFLOW_{name.upper()}}}" in line
    assert "hunter2" not in line
    assert not (tmp_path / "loop.yaml").exists()


def test_a_secret_of_the_environment_stays_there(compile_kfp, settings, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TOKEN", "hunter2-4711")
    settings["mlflow"] = {"token": "${MLFLOW_TOKEN}"}
    assert compile_kfp(settings).exit_code == 0
    text = (tmp_path / "loop.yaml").read_text()
    assert "${MLFLOW_TOKEN}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("section", "key"),
    [("data", "versions_dir"), ("monitoring", "dir"), ("model", "history_dir")],
    ids=["versions", "monitoring", "history"],
)
def test_a_folder_that_the_steps_do_not_share_is_refused(compile_kfp, settings, section, key):
    settings[section][key] = "somewhere"
    line = failure(compile_kfp(settings))
    assert f"{section}.{key} is 'somewhere', which the steps do not share" in line


def test_without_kfp_one_line_says_what_to_install(compile_kfp, settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "kfp", None)
    line = failure(compile_kfp(settings))
    assert line == (
        "Error: compile_kfp needs one more package: pip install 'tsclust-model[kubeflow]'"
    )
