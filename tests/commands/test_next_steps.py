"""What the screen says to type next is typed, in the folder where it was printed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.utils.mlflow_tags import MLFLOW_PROJECT_ENV, MLFLOW_SOURCE_NAME, MLFLOW_SOURCE_TYPE

from tests.support import PROJECT, typed, under_next
from tsclust_model.commands.next_steps import NextSteps

DATA = "my stays.csv"  # a name that the shell would part


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
    assert heading == (
        "settings: c.yaml; next, with your names for the words in capitals (without --time or "
        "--id where the table has none):"
    )
    typed_in = "\n".join(lines)
    for option in ("time", "id"):  # the table has neither
        typed_in, n = re.subn(rf" (--|-P ){option}[= ]{option.upper()}\b", "", typed_in)
        assert n == 1
    for word, name in (("TARGET", "length_of_stay_days"), ("MODEL", "mine")):
        typed_in, n = re.subn(rf"\b{word}\b", name, typed_in)
        assert n == 1
    trained = typed(typed_in, home)
    assert trained.returncode == 0, trained.stderr
    assert "model: models:/mine@champion" in trained.stdout


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
