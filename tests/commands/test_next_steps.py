"""What the screen says to type next is typed, in the folder where it was printed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENV, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from tests.support import PROJECT
from tsclust_model.commands.next_steps import NextSteps

DATA = "my stays.csv"  # a name that the shell would part


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """A folder with the program that pip installs, over the package that is tested."""
    folder = tmp_path_factory.mktemp("bin")
    scripts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["scripts"]
    module, _, function = scripts["tsclust"].partition(":")
    program = folder / "tsclust"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
        f"from {module} import {function}\nsys.exit({function}())\n"
    )
    program.chmod(0o755)
    return folder


@pytest.fixture
def home(store_folder, hospital, programs, tmp_path, monkeypatch) -> Iterator[Path]:
    """A user's folder with a table, an embedded store of its own and nothing in the environment."""
    folder = tmp_path / "at home"
    folder.mkdir()
    shutil.copy(store_folder / "mlflow.db", folder)
    hospital.head(120)[["age", "creatinine", "length_of_stay_days"]].to_csv(
        folder / DATA, index=False
    )
    monkeypatch.chdir(folder)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    yield folder
    mlflow.set_tracking_uri(before)


def typed(lines: str, folder: Path) -> subprocess.CompletedProcess:
    """Type lines into a shell in a folder."""
    shell = ["bash", "-e", "-c", lines]
    return subprocess.run(shell, cwd=folder, capture_output=True, text=True, timeout=120)


def under_next(screen: str) -> dict[str, str]:
    """The lines under "next", by their first word."""
    _, _, last = screen.partition("next, in the folder you typed this in:\n")
    return {line.split()[0]: line[9:] for line in last.splitlines()}


@pytest.mark.parametrize(
    ("store", "options"),
    [(None, {"working_dir": "at home"}), ("sqlite:///own.db", {})],
    ids=["elsewhere", "another store"],
)
def test_the_lines_under_next_work_where_they_are_printed(
    home, tsclust, monkeypatch, store, options
):
    folder = home.parent if options else home
    monkeypatch.chdir(folder)
    if store is not None:
        shutil.copy("mlflow.db", "own.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    given = {"data": DATA, "target": "length_of_stay_days", "model_name": "printed"}
    done = tsclust("train", **given, **options)
    assert done.exit_code == 0, done.output
    lines = under_next(done.stdout)
    assert lines["look"] == "mlflow ui" + (
        "" if store is None else ' --backend-store-uri "$MLFLOW_TRACKING_URI"'
    )
    assert lines["serve"] == "mlflow models serve -m models:/printed@champion --env-manager local"
    assert lines["score"].startswith("tsclust score --data ")
    once = lines.get("once", "true")
    assert ("cd " in once) == bool(options)
    scored = typed(f"{once}\n{lines['score']}", folder)
    assert scored.returncode == 0, scored.stderr
    assert len(pd.read_csv(home / "scored.csv")) == 120


def test_mlflow_run_makes_the_demo_whose_blend_beats_global_and_whose_control_does_not(
    home, mlflow_run, tsclust
):
    (home / "mlflow.db").unlink()
    made = mlflow_run(home)
    assert made.returncode == 0, made.stderr
    assert "5 clusters in 4800 rows" in made.stdout
    lines, uri = under_next(made.stdout), "models:/timeseries-clustering@champion"
    assert lines["serve"] == f"mlflow models serve -m {uri} --env-manager local"
    assert lines["look"] == "mlflow ui"
    scored = typed(f"{lines.get('once', 'true')}\n{lines['score']}", home)
    assert scored.returncode == 0, scored.stderr
    table = pd.read_csv("scored.csv")
    assert len(table) == 200
    assert list(table.columns[:3]) == ["patient_id", "admission_time", "prediction"]
    assert set(table["status"]) == {"ok"}

    held = tsclust("evaluate", data="demo/holdout.csv", model_uri=uri, fail_on_regression="true")
    assert held.exit_code == 0, held.output
    assert held.stdout.splitlines()[0] == "1200 rows, 0 not scored"
    assert "trained on" not in held.stdout
    (trained,) = mlflow.MlflowClient().search_runs(["0"], "tags.trigger = 'demo'")
    worth = trained.data.metrics
    assert worth["fold_rmse_blend"] <= 0.9 * worth["fold_rmse_global"]
    assert worth["holdout_rmse"] <= 0.9 * worth["holdout_rmse_global"]
    assert worth["fold_rmse_control"] >= 0.99 * worth["fold_rmse_global"]


def test_analyze_prints_how_to_train_on_the_settings_it_wrote(home, tsclust):
    asked = {
        "clustering_data": {"data_source": DATA, "features": ["age", "creatinine"]},
        "clustering_configuration": {"algorithm": "hdbscan"},
        "visualization_configuration": {"generate_plots": False},
    }
    Path("request.json").write_text(json.dumps(asked))
    done = tsclust("analyze", request="request.json", output="out", promote_to_config="c.yaml")
    assert done.exit_code == 0, done.output
    heading, *lines = done.stdout[done.stdout.index("settings: ") :].splitlines()
    assert heading == "settings: c.yaml; next, with the column to predict instead of TARGET:"
    trained = typed("\n".join(lines).replace("TARGET", "length_of_stay_days"), home)
    assert trained.returncode == 0, trained.stderr
    assert "model: models:/" in trained.stdout


@pytest.fixture
def run_id(store) -> str:
    with mlflow.start_run() as run:
        return str(run.info.run_id)


def test_without_the_program_the_project_is_run(run_id, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert NextSteps(run_id).command("score", data="a b.csv") == (
        f"mlflow run {PROJECT} -e score --env-manager local -P 'data=a b.csv'"
    )
    (tmp_path / "tsclust").touch(0o755)  # installed, but in no folder of the PATH
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert NextSteps(run_id).command("demo") == f"{tmp_path / 'tsclust'} demo"


def test_an_environment_that_mlflow_made_is_made_again(run_id):
    tags = {MLFLOW_SOURCE_TYPE: "PROJECT", MLFLOW_PROJECT_ENV: "uv"}
    for key, value in (tags | {MLFLOW_SOURCE_NAME: "https://example.invalid/p.git"}).items():
        mlflow.MlflowClient().set_tag(run_id, key, value)
    steps = NextSteps(run_id)
    assert steps.once() is None
    assert steps.command("score", model_uri="models:/m@champion") == (
        "mlflow run https://example.invalid/p.git -e score --env-manager uv "
        "-P model_uri=models:/m@champion"
    )
    assert steps.serve("models:/m@champion") == (
        "mlflow models serve -m models:/m@champion --env-manager uv"
    )


def test_a_server_is_looked_at_by_its_address(run_id, monkeypatch):
    steps = NextSteps(run_id)
    monkeypatch.setattr("mlflow.get_registry_uri", lambda: "https://me:secret@ml.example/")
    assert steps.look() == "https://ml.example"
